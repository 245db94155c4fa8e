"""What the laws draw, and how it is read back.

Everything is drawn for a dialect by name, with a common ground that every dialect must be able
to say.  So a new dialect is under all laws as soon as it stands in `relay.DIALECTS`; a row in
`SPEECHES` says what it can say beyond.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st

import relay
from relay import (
    Finish,
    Media,
    Message,
    PartDelta,
    PartEnd,
    PartStart,
    Reasoning,
    Request,
    Response,
    Seal,
    Start,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)

Draw = Callable[..., Any]

dialects = pytest.mark.parametrize("dialect", relay.DIALECTS.values(), ids=relay.DIALECTS)
DIALECTS = list(relay.DIALECTS.values())
PAIRS = list(itertools.product(DIALECTS, repeat=2))
pairs = pytest.mark.parametrize(
    ("upstream", "client"), PAIRS, ids=[f"{a.name}-to-{b.name}" for a, b in PAIRS]
)
requests_between = pytest.mark.parametrize(
    ("client", "upstream"), PAIRS, ids=[f"{a.name}-to-{b.name}" for a, b in PAIRS]
)

ASKED = relay.AnswerContext("the-model", "req_1", 0, 1_700_000_000, True)
ACCOUNT = "0a1b2c3d"

# Words

# What breaks readers that cut in the wrong place: line separators that are none in SSE, characters
# of several bytes, the marks that meters and decoders look for.
TRAPS = (
    "\u2028",
    "\u2029",
    "\u0085",
    "\x0b",
    "\x1e",
    "\r",
    "\n\n",
    "\r\n\r\n",
    "data: [DONE]",
    '"usage":{"x":1}',
    '"finish_reason":"stop"',
    '"message_stop"',
    '{"error":{"message":"no"}}',
    "\\",
    '"',
    "\\u0022",
    "\U0001f9d1\u200d\U0001f680",
    "\u6f22\u5b57",
    "\x00",
    "</system-reminder>",
    "rly1.as",
)
_plain = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
words = st.lists(_plain | st.sampled_from(TRAPS), min_size=1, max_size=4).map("".join)
# Where a text that is only white space counts as none.
spoken_words = words.map(lambda text: "w" + text + "w")
idents = st.from_regex(r"[a-z][a-z0-9_-]{0,7}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(idents | words, values, max_size=3)
arguments = objects.map(lambda value: relay.dumps(value).decode())


# Answers


@dataclass(frozen=True)
class Speech:
    """What a dialect can say in an answer beyond the common ground.

    The common ground is one thought, one text and calls, in this order; a regular finish, a
    cut-off one and a filtered one; input, output and cached tokens.
    """

    any_order: bool = False
    merges: bool = False  # two texts in a row are one, and two thoughts without a seal between
    seals: tuple[str, ...] = ()
    own_seals: tuple[str, ...] = ()  # those that stand there without an envelope, as base64
    finishes: tuple[str, ...] = ()
    cache_write: bool = False
    reasoning_tokens: bool = False
    whole_calls: bool = False  # no fragments: a call whose arguments were cut off is not said
    silent_breaks: bool = False  # a break is told by the connection alone
    unsaid: tuple[str, ...] = ()  # fields of a request that it has no word for


SPEECHES = {
    "anthropic": Speech(
        any_order=True,
        seals=("as", "ad", "cd", "xx"),
        finishes=("stop_sequence", "context_length", "pause"),
        cache_write=True,
        reasoning_tokens=True,
    ),
    "gemini": Speech(
        any_order=True,
        merges=True,
        own_seals=("gs",),
        reasoning_tokens=True,
        whole_calls=True,
        silent_breaks=True,
        unsaid=("parallel_tools", "strict", "model", "stream"),
    ),
    "openai": Speech(seals=("as", "cd", "xx"), cache_write=True, reasoning_tokens=True),
    "responses": Speech(
        any_order=True, seals=("re", "as", "ad", "xx"), cache_write=True, reasoning_tokens=True
    ),
}


# What of a request a dialect has no words for; then that has to be said.
UNSAID: dict[str, tuple[str, ...]] = {
    "anthropic": ("verbosity", "service_tier"),
    "gemini": ("verbosity", "service_tier"),
    "openai": ("verbosity", "service_tier"),  # where the provider is not OpenAI itself
    "responses": ("service_tier",),
}


def speech(dialect: relay.Dialect) -> Speech:
    return SPEECHES.get(dialect.name, Speech())


def seals(said: Speech) -> st.SearchStrategy[Seal | None]:
    ways: list[st.SearchStrategy[Seal | None]] = [st.none()]
    if fields := [field for field in said.seals if field != "ad"]:
        ways.append(st.builds(Seal, st.sampled_from(fields), words, st.just(ACCOUNT)))
    if said.own_seals:
        ways.append(st.builds(Seal, st.sampled_from(said.own_seals), tokens))
    return st.one_of(ways)


tokens = st.binary(min_size=1, max_size=9).map(lambda data: base64.b64encode(data).decode())


@st.composite
def thoughts(draw: Draw, said: Speech) -> Reasoning:
    seal = draw(seals(said))
    if "ad" in said.seals and draw(st.integers(0, 4)) == 0:
        return Reasoning("", Seal("ad", draw(words), ACCOUNT))
    return Reasoning(draw(words | st.just("")) if seal else draw(words), seal)


calls = st.builds(ToolCall, idents, idents, arguments)


@st.composite
def usages(draw: Draw, said: Speech) -> Usage:
    count = st.integers(0, 9999)
    read = draw(count)
    write = draw(count) if said.cache_write else 0
    thought = draw(count) if said.reasoning_tokens else 0
    # Where neither input nor output was counted nothing is said of it.
    return Usage(draw(count) + read + write + 1, draw(count) + thought + 1, read, write, thought)


@st.composite
def answers(draw: Draw, dialect: relay.Dialect) -> Response:
    """An answer that `dialect` can say without loss."""
    said = speech(dialect)
    thought, text = thoughts(said), st.builds(Text, words)
    if said.any_order:
        parts = draw(st.lists(thought | text | calls, max_size=5))
    else:
        parts = draw(st.lists(thought, max_size=1)) + draw(st.lists(text, max_size=1))
        parts += draw(st.lists(calls, max_size=3))
    parts = unmergeable(distinct(parts)) if said.merges else distinct(parts)
    called = any(isinstance(part, ToolCall) for part in parts)
    finish = draw(st.sampled_from(("regular", "length", "content_filter", *said.finishes)))
    if finish == "regular" or (finish in ("stop_sequence", "pause") and called):
        finish = "tool_calls" if called else "stop"
    detail = draw(idents) if finish == "stop_sequence" else ""
    return Response(draw(idents), ASKED.model, tuple(parts), finish, draw(usages(said)), detail)


def distinct(parts: Sequence[relay.OutputPart]) -> list[relay.OutputPart]:
    """The parts without calls whose id stood there before."""
    ids: set[str] = set()
    kept = []
    for part in parts:
        if not isinstance(part, ToolCall) or part.id not in ids:
            kept.append(part)
        if isinstance(part, ToolCall):
            ids.add(part.id)
    return kept


def unmergeable(parts: Sequence[relay.OutputPart]) -> list[relay.OutputPart]:
    """The parts without those that would be one with the part before."""
    kept: list[relay.OutputPart] = []
    for part in parts:
        last = kept[-1] if kept else None
        sealed = isinstance(last, Reasoning) and last.seal
        if sealed or isinstance(part, ToolCall) or type(part) is not type(last):
            kept.append(part)
    return kept


# Streams


def events_of(dialect: relay.Dialect, response: Response) -> list[bytes]:
    """A whole answer as the dialect's stream, one piece of bytes per event of the hub."""
    encoder = dialect.encoder(ASKED)
    return [encoder.encode(event) for event in relay.unfold(response)]


def stream_of(dialect: relay.Dialect, response: Response) -> bytes:
    return b"".join(events_of(dialect, response))


newlines = st.sampled_from((b"\n", b"\r\n", b"\r"))


@st.composite
def cuttings(draw: Draw, data: bytes) -> list[bytes]:
    """The same bytes in pieces: anywhere, or every byte alone."""
    if draw(st.booleans()):
        return [bytes((byte,)) for byte in data]
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in itertools.pairwise([0, *at, len(data)])]


@st.composite
def cuts(draw: Draw, length: int) -> int:
    """Where a stream is cut off: anywhere before its end, and often shortly before it."""
    return draw(st.integers(0, length - 1) | st.integers(1, min(60, length)).map(length.__sub__))


def decoded(dialect: relay.Dialect, pieces: Iterable[bytes]) -> list[relay.Event]:
    """What a decoder makes of the pieces; the grammar is checked on the way."""
    decoder = dialect.decoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    events += decoder.eof()
    check_grammar(events)
    return events


def folded(dialect: relay.Dialect, *pieces: bytes) -> Response | relay.Failure:
    return relay.fold(decoded(dialect, pieces))


def piped(pipe: relay.Pipe, pieces: Iterable[bytes]) -> bytes:
    return b"".join([*map(pipe.feed, pieces), pipe.eof()])


def passage(upstream: relay.Dialect, client: relay.Dialect, **more: Any) -> relay.AnswerPath:
    return relay.AnswerPath(upstream, client, ASKED, account=ACCOUNT, **more)


def check_grammar(events: Sequence[relay.Event]) -> None:
    """stream := Start part* (Finish | Failure) | Failure;  part := PartStart PartDelta* PartEnd?

    Only before a failure may another part than a call lack its end.
    """
    state, part = "begin", None
    for event in events:
        check_types(event)
        match state, event:
            case "begin", Start():
                state = "between"
            case "begin" | "between" | "part", relay.Failure():
                state = "end"
            case "between" | "part", PartStart(new):
                assert state == "between" or isinstance(part, ToolCall), events
                state, part = "part", new
                assert part == relay.filled(part, ""), events
            case "part", PartDelta(text):
                assert text, events
            case "part", PartEnd(seal):
                state = "between"
                assert seal is None or isinstance(part, Reasoning), events
            case "between" | "part", Finish(reason):
                cut = reason not in ("stop", "tool_calls", "stop_sequence", "pause")
                assert state == "between" or (isinstance(part, ToolCall) and cut), events
                state = "end"
            case _:
                raise AssertionError((state, event, events))
    assert state == "end", events


def check_types(event: relay.Event) -> None:
    """The types that the annotations promise: whoever renders them relies on that."""
    inner = event.part if isinstance(event, PartStart) else event
    for name in ("id", "model", "name", "text", "detail", "message", "code", "type", "cause"):
        assert isinstance(getattr(inner, name, ""), str), event
    usage = getattr(event, "usage", Usage())
    assert all(isinstance(count, int) for count in dataclasses.astuple(usage)), event
    if isinstance(event, PartEnd) and event.seal:
        assert all(isinstance(field, str) for field in dataclasses.astuple(event.seal)), event


def known(response: Response | relay.Failure) -> Response:
    """An answer without what differs between two tellings: the envelopes of seals."""
    assert isinstance(response, Response), response
    return replace(response, parts=tuple(map(_unsealed, response.parts)))


def _unsealed(part: relay.OutputPart) -> relay.OutputPart:
    if not isinstance(part, Reasoning) or part.seal is None:
        return part
    opened = relay.opened(part.seal.value, part.seal.field)
    seal = opened if opened.account else part.seal  # else there was no envelope
    return replace(part, seal=seal if seal.value else None)


def same_answer(got: Response | relay.Failure, said: Response) -> None:
    """Equal but for the envelopes, and for what a dialect puts before an id."""
    got = known(got)
    assert said.id in got.id
    assert replace(got, id=said.id) == said


def text_of(response: Response, kind: type) -> str:
    return "".join(part.text for part in response.parts if isinstance(part, kind))


def calls_of(response: Response) -> list[tuple[str, str, Any]]:
    return [(p.id, p.name, json.loads(p.text)) for p in response.parts if isinstance(p, ToolCall)]


# Requests

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk"
    "Jggg=="
)
PDF = "JVBERi0xLjQKJcOkw7zDtsOfCjIgMCBvYmoKPDwv"
_urls = idents.map(lambda name: f"https://example.com/{name}.png")
images = st.builds(Media, st.just("image"), st.just("image/png"), st.just(PNG)) | st.builds(
    Media, st.just("image"), url=_urls
)


@dataclass(frozen=True)
class Turn:
    """An assistant's turn and the user's answer to it."""

    text: str
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    said: tuple[Text | Media, ...]


@st.composite
def turns(draw: Draw) -> Turn:
    called = distinct(draw(st.lists(calls, max_size=3)))
    text = draw(spoken_words if not called else spoken_words | st.just(""))
    results = tuple(draw(spoken_words) for _ in called)
    return Turn(text, tuple(called), results, draw(said(none=bool(called))))


@st.composite
def said(draw: Draw, none: bool = False) -> tuple[Text | Media, ...]:
    """What a user says: a text, a picture, both, or (behind results) nothing."""
    text, image = Text(draw(spoken_words)), draw(images)
    ways = [(text,), (text, image), (image, text), (image,)] + ([()] if none else [])
    return draw(st.sampled_from(ways))


def conversation(system: str, first: Sequence[Any], turns: Sequence[Turn]) -> tuple[Message, ...]:
    """A conversation in the one order that every dialect can say."""
    messages = [Message("system", (Text(system),))] if system else []
    messages.append(Message("user", tuple(first)))
    for turn in turns:
        text = (Text(turn.text),) if turn.text else ()
        messages.append(Message("assistant", (*text, *turn.calls)))
        results = zip(turn.calls, turn.results, strict=True)
        answers = (ToolResult(call.id, (Text(text),)) for call, text in results)
        messages.append(Message("user", (*answers, *turn.said)))
    return tuple(messages)


@st.composite
def conversations(draw: Draw, most: int = 4) -> tuple[Message, ...]:
    """Every call has an id of its own, as clients have it."""
    drawn = draw(st.lists(turns(), max_size=most))
    numbered = [
        replace(t, calls=tuple(replace(c, id=f"{c.id}_{i}") for c in t.calls))
        for i, t in enumerate(drawn)
    ]
    return conversation(draw(spoken_words | st.just("")), draw(said()), numbered)


schemas = st.dictionaries(idents, st.sampled_from(({"type": "string"}, {"type": "integer"}))).map(
    lambda properties: {"type": "object", "properties": properties}
)
closed_schemas = schemas.map(lambda schema: schema | {"additionalProperties": False})
described = words | st.just("")
tools = st.lists(
    st.builds(Tool, idents, described, schemas)
    | st.builds(Tool, idents, described, closed_schemas, st.just(True)),
    max_size=3,
    unique_by=lambda tool: tool.name,
)
fractions = st.none() | st.integers(0, 100).map(lambda n: n / 100)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # PROTOCOLS.md 2.2.3
efforts = st.sampled_from(EFFORTS[2:6])


@st.composite
def requests(draw: Draw) -> Request:
    """A request in the common ground of all dialects, repaired."""
    said, offered = draw(conversations()), draw(tools)
    named = {part.name for m in said for part in m.parts if isinstance(part, ToolCall)}
    missing = sorted(named - {tool.name for tool in offered})  # what was called was offered
    offered = (*offered, *(Tool(name, "", draw(schemas)) for name in missing))
    choice, parallel = None, None
    if offered:
        modes = ("auto", "none", "required", "named")
        mode = draw(st.none() | st.sampled_from(modes))
        names = (draw(st.sampled_from(offered)).name,) if mode == "named" else ()
        choice = relay.ToolChoice(mode, names) if mode else None
        parallel = (
            draw(st.sampled_from((None, False))) if mode in ("auto", "required", "named") else None
        )
    free = choice is None or choice.mode in ("auto", "none")
    thinking = draw(st.none() | st.builds(relay.Thinking, st.just(True), efforts)) if free else None
    sampling = relay.Sampling()
    if not thinking:
        sampling = relay.Sampling(temperature=draw(fractions), top_p=draw(fractions))
    return Request(
        model=ASKED.model,
        messages=said,
        tools=offered,
        tool_choice=choice,
        parallel_tools=parallel,
        max_tokens=draw(st.integers(40_000, 90_000)),
        sampling=sampling,
        stop=tuple(draw(st.lists(spoken_words, max_size=4, unique=True))),
        thinking=thinking,
        format=draw(st.none() | st.builds(relay.Format, closed_schemas)),
        verbosity=draw(st.sampled_from(("", "low", "high"))),
        service_tier=draw(st.sampled_from(("", "auto", "default", "flex", "priority"))),
        stream=draw(st.booleans()),
    )


def sayable(request: Request, dialect: relay.Dialect) -> Request:
    """The request without what a dialect has no word for, or has in the address."""
    unsaid = speech(dialect).unsaid
    none = {"parallel_tools": None, "model": "", "stream": False}
    if "strict" in unsaid:
        request = replace(request, tools=tuple(replace(t, strict=None) for t in request.tools))
    return replace(request, **{name: none[name] for name in unsaid if name in none})


def retold(
    request: Request, dialect: relay.Dialect, quirks: relay.Quirks | None = None
) -> tuple[Request, tuple[str, ...]]:
    """A request said in a dialect and read again, with all that was lost on either way."""
    rendered = dialect.render_request(request, quirks or dialect.quirks(), ACCOUNT)
    again = dialect.parse_request(relay.loads(relay.dumps(rendered.body)))
    stop = (*again.stop, *rendered.stops)  # what it does not take relay watches for
    repaired = replace(again, messages=relay.repaired(again.messages), stop=stop)
    return repaired, (*rendered.dropped, *again.dropped)


def carried(
    body: relay.JSON,
    client: relay.Dialect,
    upstream: relay.Dialect,
    quirks: relay.Quirks | None = None,
    account: str = ACCOUNT,
) -> relay.Rendered:
    """A client's request as it goes to an upstream of another dialect."""
    quirks = quirks or upstream.quirks()
    request = client.parse_request(body)
    request = replace(request, messages=relay.repaired(request.messages))
    return upstream.render_request(request, quirks, account)


def quirked(dialect: relay.Dialect, **words: Any) -> relay.Quirks:
    """Quirks of a dialect, with those of these words that it has."""
    known = {spec.name for spec in dataclasses.fields(dialect.quirks)}
    return dialect.quirks(**{name: value for name, value in words.items() if name in known})


def patterns(dialect: relay.Dialect, quirks: relay.Quirks) -> tuple[Any, Any]:
    import re

    return re.compile(quirks.tool_name), re.compile(quirks.call_id or dialect.call_id)


def retargeted(body: relay.Body, model: str) -> bytes:
    """The bytes that go out with another model."""
    data, _ = body.outgoing(model)
    return data if isinstance(data, bytes) else b"".join(data)
