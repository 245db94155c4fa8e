"""A history put in order: one result per call, names that fit, and a prefix that stays."""

import re
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ACCOUNT,
    DIALECTS,
    arguments,
    carried,
    conversations,
    idents,
    images,
    patterns,
    quirked,
    requests,
    requests_between,
    words,
)

import relay
from relay import Message, Reasoning, Request, Text, ToolCall, ToolResult

# Anything a client may send: ids that were used before, results of calls that are gone or that
# come twice, calls nobody answered, system messages anywhere, turns of one role in a row.
few_ids = st.sampled_from(("a", "b", "c"))
results = st.builds(
    ToolResult, few_ids, st.lists(st.builds(Text, words), max_size=2).map(tuple), st.booleans()
)
user_parts = results | st.builds(Text, words) | images
assistant_parts = (
    st.builds(ToolCall, few_ids, idents, arguments)
    | st.builds(Text, words)
    | st.builds(Reasoning, words)
)
messages = (
    st.builds(Message, st.just("user"), st.lists(user_parts, max_size=4).map(tuple))
    | st.builds(Message, st.just("assistant"), st.lists(assistant_parts, max_size=4).map(tuple))
    | st.builds(Message, st.just("system"), st.tuples(st.builds(Text, words)))
)
histories = st.lists(messages, max_size=8)


def call_ids(message: Message) -> list[str]:
    return [part.id for part in message.parts if isinstance(part, ToolCall)]


def result_ids(message: Message) -> list[str]:
    return [part.call_id for part in message.parts if isinstance(part, ToolResult)]


@given(history=histories)
def test_repairing_twice_is_repairing_once(history: list[Message]) -> None:
    once = relay.repaired(history)
    assert relay.repaired(once) == once


@given(history=histories)
def test_every_call_has_exactly_one_result_first_in_the_next_turn(history: list[Message]) -> None:
    turns = relay.repaired(history)
    for turn, following in zip(turns, (*turns[1:], Message("system", ())), strict=False):
        owed = call_ids(turn) if turn.role == "assistant" else []
        if owed:
            assert following.role == "user"
        if following.role == "user":
            head = following.parts[: len(owed)]
            assert [part.call_id for part in head if isinstance(part, ToolResult)] == owed
            assert len(result_ids(following)) == len(owed)


@given(history=histories)
def test_turns_alternate_but_for_system_messages(history: list[Message]) -> None:
    turns = relay.repaired(history)
    spoken = [turn.role for turn in turns if turn.role != "system"]
    touching = [a.role for a, b in pairwise(turns) if a.role == b.role != "system"]
    assert touching == []
    assert {"user", "assistant"} >= set(spoken)


@given(history=histories)
def test_nothing_that_was_said_is_lost(history: list[Message]) -> None:
    """Texts, pictures and what results hold are all there afterwards, in whatever place."""
    before = sorted(map(repr, said(history)))
    after = sorted(map(repr, said(relay.repaired(history))))
    assert [text for text in before if text not in after] == []


@given(history=histories)
def test_every_call_has_an_id_of_its_own(history: list[Message]) -> None:
    """And what was there before keeps its own as more is said."""
    turns = relay.repaired(history)
    ids = [id for turn in turns for id in call_ids(turn)]
    assert len(set(ids)) == len(ids)
    shorter = [id for turn in relay.repaired(history[:-1]) for id in call_ids(turn)]
    assert shorter == ids[: len(shorter)]


def said(history: Any) -> list[Any]:
    """What was said, whatever the ids of calls."""
    parts = [part for message in history for part in message.parts]
    parts = [relay.replace(p, id="") if isinstance(p, ToolCall) else p for p in parts]
    inside = [p for part in parts if isinstance(part, ToolResult) for p in part.parts]
    return [part for part in (*parts, *inside) if not isinstance(part, ToolResult)]


@given(history=conversations())
def test_what_is_in_order_stays_as_it_is(history: tuple[Message, ...]) -> None:
    assert relay.repaired(history) == history


# Names and ids

PATTERNS = sorted(
    {r"[a-zA-Z0-9_-]{1,64}", r"[a-zA-Z0-9_-]{1,128}", r"[a-zA-Z0-9]{9}", r"[a-zA-Z_][\w-]{2,63}"}
    | {dialect.call_id for dialect in DIALECTS}
    | {q.tool_name for p in relay.PRESETS.values() for q in p.quirks.values()}
    | {q.call_id for p in relay.PRESETS.values() for q in p.quirks.values() if q.call_id}
)
odd_names = st.text(max_size=90) | st.from_regex(r"[a-z.:/\d-]{1,90}", fullmatch=True) | idents


@given(pattern=st.sampled_from(PATTERNS), names=st.lists(odd_names, max_size=6, unique=True))
def test_every_name_fits_and_distinct_names_stay_distinct(pattern: str, names: list[str]) -> None:
    compiled = re.compile(pattern)
    there = [relay.accepted_name(name, compiled) for name in names]
    assert [name for name in there if not compiled.fullmatch(name)] == []
    assert len(set(there)) == len(names)
    assert there == [relay.accepted_name(name, compiled) for name in names]
    assert all(a == b for a, b in zip(names, there, strict=True) if compiled.fullmatch(a))


@given(base=idents, ends=st.lists(st.sampled_from(".:/ #"), min_size=2, max_size=5, unique=True))
def test_names_that_clean_to_the_same_text_stay_distinct(base: str, ends: list[str]) -> None:
    compiled = re.compile(r"[a-zA-Z0-9_-]{1,64}")
    assert len({relay.accepted_name(base + end, compiled) for end in ends}) == len(ends)


@given(request=requests(), rename=st.sampled_from(("mcp.{}", "{}", "functions.{}:0", "9{}" * 40)))
def test_a_suited_request_has_names_that_fit_everywhere_and_a_way_back(
    request: Request, rename: str
) -> None:
    """Calls and results still pair, and the same names come of the same request."""
    named = renamed(request, rename)
    for dialect in DIALECTS:
        names, ids = patterns(dialect, dialect.quirks())
        takes = relay.Takes(names.pattern, ids.pattern, 999, True, True)
        fits, back = relay.lowered(named, takes)
        assert (fits, back) == relay.lowered(named, takes)
        assert [tool.name for tool in fits.tools if not names.fullmatch(tool.name)] == []
        assert [back.get(tool.name, tool.name) for tool in fits.tools] == [
            tool.name for tool in named.tools
        ]
        chosen = fits.tool_choice.names if fits.tool_choice else ()
        assert set(chosen) <= {tool.name for tool in fits.tools}
        for before, after in zip(named.messages, fits.messages, strict=True):
            assert [back.get(n, n) for n in call_names(after)] == call_names(before)
            assert all(map(names.fullmatch, call_names(after)))
            assert all(map(ids.fullmatch, (*call_ids(after), *result_ids(after))))
        assert relay.repaired(fits.messages) == fits.messages


def call_names(message: Message) -> list[str]:
    return [part.name for part in message.parts if isinstance(part, ToolCall)]


def renamed(request: Request, form: str) -> Request:
    """The same request with odd names and ids."""

    def part_of(part: relay.Part) -> relay.Part:
        if isinstance(part, ToolCall):
            return relay.replace(
                part, id=form.replace("{}", part.id), name=form.replace("{}", part.name)
            )
        if isinstance(part, ToolResult):
            return relay.replace(part, call_id=form.replace("{}", part.call_id))
        return part

    choice = request.tool_choice
    return relay.replace(
        request,
        tools=tuple(relay.replace(t, name=form.replace("{}", t.name)) for t in request.tools),
        tool_choice=choice
        and relay.replace(choice, names=tuple(form.replace("{}", n) for n in choice.names)),
        messages=tuple(
            Message(message.role, tuple(map(part_of, message.parts)))
            for message in request.messages
        ),
    )


# The prefix of a conversation: what a provider's prompt cache goes by


def before_the_last(turns: list[Any]) -> bytes:
    """The bytes of a request's turns up to the last."""
    return messages_json(turns[:-1])


def messages_json(said: list[Any]) -> bytes:
    return relay.dumps(said)[:-1]  # without the closing bracket


QUIRKS: dict[str, dict[str, Any]] = {
    "": {},
    "in place": {"system_in_place": True},
    "native": {"native": True, "signed": True},
    "deepseek": {"placeholder": " ", "json_schema": False},
    "details": {"replay": "always", "replay_field": "reasoning_details"},
}


@requests_between
@given(
    request=requests(),
    turns=conversations(most=2),
    quirks=st.sampled_from(list(QUIRKS.values())),
    injected=st.booleans(),
)
def test_a_request_is_a_prefix_of_the_next_one(
    client: relay.Dialect,
    upstream: relay.Dialect,
    request: Request,
    turns: tuple[Message, ...],
    quirks: dict[str, Any],
    injected: bool,
) -> None:
    """Every turn a client adds leaves what was sent before byte for byte as it was."""
    following = [turn for turn in turns if turn.role != "system"]
    if injected and following:  # Claude Code's reminders in place
        following.insert(1, Message("system", (Text("be brief"),)))
    history = request.messages
    if history[-1].role == "user":
        following = [Message("assistant", (Text("so"),)), *following]
    ends = [0, *(n + 1 for n, turn in enumerate(following) if turn.role == "user")]
    sent = [
        body_of(
            client, upstream, relay.replace(request, messages=(*history, *following[:n])), quirks
        )
        for n in ends
    ]
    for earlier, later in pairwise(sent):
        assert messages_json(later[upstream.turns]).startswith(
            before_the_last(earlier[upstream.turns])
        )
        assert relay.dumps(later.get("system")) == relay.dumps(earlier.get("system"))
        if request.tools:
            assert relay.dumps(later["tools"]) == relay.dumps(earlier["tools"])


def body_of(
    client: relay.Dialect, upstream: relay.Dialect, request: Request, quirks: dict[str, Any]
) -> relay.JSON:
    own = client.render_request(request, quirked(client, system_in_place=True), ACCOUNT).body
    return carried(
        relay.loads(relay.dumps(own)), client, upstream, quirked(upstream, **quirks)
    ).body
