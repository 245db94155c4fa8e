"""What is said in a dialect and read again is what was said."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from laws.strategies import (
    ACCOUNT,
    ASKED,
    DIALECTS,
    UNSAID,
    answers,
    cuttings,
    decoded,
    dialects,
    folded,
    fractions,
    newlines,
    requests,
    retold,
    same_answer,
    sayable,
    stream_of,
    words,
)

import relay


@dialects
@given(data=st.data())
def test_fold_undoes_unfold(dialect: relay.Dialect, data: st.DataObject) -> None:
    answer = data.draw(answers(dialect))
    assert relay.fold(relay.unfold(answer)) == answer


@dialects
@given(data=st.data())
def test_a_whole_answer_comes_back(dialect: relay.Dialect, data: st.DataObject) -> None:
    answer = data.draw(answers(dialect))
    wire = relay.loads(relay.dumps(dialect.render_response(answer, ASKED)))
    assert dialect.claims(wire)
    same_answer(relay.fold(dialect.decoder().whole(wire)), answer)


@dialects
@given(data=st.data())
def test_a_stream_comes_back_however_it_is_cut(dialect: relay.Dialect, data: st.DataObject) -> None:
    answer = data.draw(answers(dialect))
    wire = stream_of(dialect, answer).replace(b"\n", data.draw(newlines))
    pieces = data.draw(cuttings(wire))
    same_answer(relay.fold(decoded(dialect, pieces)), answer)


@dialects
@given(data=st.data())
def test_cutting_changes_no_event(dialect: relay.Dialect, data: st.DataObject) -> None:
    wire = stream_of(dialect, data.draw(answers(dialect)))
    assert decoded(dialect, data.draw(cuttings(wire))) == decoded(dialect, [wire])


@dialects
@given(data=st.data())
def test_the_stream_of_an_answer_says_what_the_answer_says(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(dialect))
    whole = relay.fold(dialect.decoder().whole(dialect.render_response(answer, ASKED)))
    streamed = folded(dialect, stream_of(dialect, answer))
    assert isinstance(streamed, relay.Response)
    assert streamed == whole


@dialects
@given(request=requests())
def test_a_request_comes_back(dialect: relay.Dialect, request: relay.Request) -> None:
    """Checklist 63, with the laws on answers above."""
    request = sayable(request, dialect)
    unsaid = [name for name in UNSAID[dialect.name] if getattr(request, name)]
    again, dropped = retold(request, dialect)
    assert sorted(dropped) == sorted(unsaid)
    request = replace(request, **{name: SILENT[name].default for name in unsaid})
    assert words_of(again.thinking) == words_of(request.thinking)
    assert (again.format and again.format.schema) == (request.format and request.format.schema)
    assert replace(again, **LOOSE) == replace(request, **LOOSE)


# Said by every dialect in its own way: compared above, or a fact of the stream alone.
SILENT = relay.Request.__dataclass_fields__
LOOSE = {"thinking": None, "show_thoughts": None, "format": None, "include_usage": True}


def words_of(thinking: relay.Thinking | None) -> str | None:
    return thinking and thinking.level()


# What is lost


@st.composite
def demanding(draw: st.DrawFn) -> relay.Request:
    """A request that asks for more than most targets can do."""
    request = draw(requests())
    numbers = st.none() | st.integers(0, 20).map(lambda n: n / 10)
    sampling = relay.Sampling(
        temperature=draw(numbers),
        top_p=draw(fractions),
        top_k=draw(st.none() | st.integers(1, 40)),
        seed=draw(st.none() | st.integers(0, 9)),
        frequency_penalty=draw(numbers),
        presence_penalty=draw(numbers),
    )
    thinking = draw(
        st.none()
        | st.just(relay.Thinking(False))
        | st.builds(
            relay.Thinking,
            st.just(True),
            st.sampled_from(("", "minimal", "low", "medium", "high", "xhigh", "max")),
        )
        | st.integers(1024, 32000).map(lambda n: relay.Thinking(True, "", n))
    )
    stop = tuple(draw(st.lists(words, max_size=7, unique=True)))
    choice = request.tool_choice
    if choice and choice.mode in ("auto", "required"):
        some = st.lists(st.sampled_from([tool.name for tool in request.tools]), unique=True)
        choice = replace(choice, names=tuple(draw(some)))
    return replace(request, sampling=sampling, thinking=thinking, stop=stop, tool_choice=choice)


EVERY_QUIRK = [
    (dialect, quirks)
    for dialect in DIALECTS
    for quirks in [
        dialect.quirks(),
        *{
            repr(preset.quirks[dialect.name]): preset.quirks[dialect.name]
            for preset in relay.PRESETS.values()
            if dialect.name in preset.quirks
        }.values(),
    ]
]


@given(request=demanding(), at=st.integers(0, len(EVERY_QUIRK) - 1))
@settings(max_examples=settings.default.max_examples * 4)
def test_what_a_request_loses_is_said(request: relay.Request, at: int) -> None:
    """DESIGN.md 1.2: nothing is lost silently."""
    dialect, quirks = EVERY_QUIRK[at]
    again, dropped = retold(request, dialect, quirks)
    for name in relay.SAMPLING:
        before, after = getattr(request.sampling, name), getattr(again.sampling, name)
        assert before is None or after is not None or said(dropped, name)
    assert sorted(request.stop) == sorted(again.stop)
    if request.tools and request.tool_choice and request.tool_choice.mode != "auto":
        bare = replace(request.tool_choice, names=())  # where the tools are cut to the subset
        kept = again.tool_choice in (request.tool_choice, bare, only_one(request.tool_choice))
        none = request.tool_choice.mode == "none" and not again.tools
        assert kept or none or said(dropped, "tool_choice")
    if request.tool_choice and request.tool_choice.mode in ("auto", "required"):
        only = request.tool_choice.names
        meant = {t.name for t in request.tools if not only or t.name in only}
        among = again.tool_choice.names if again.tool_choice else ()
        assert {tool.name for tool in again.tools} == meant or set(among) == meant
    for name in ("verbosity", "service_tier"):
        assert getattr(again, name) == getattr(request, name) or said(dropped, name)
    if request.thinking and request.thinking != relay.Thinking(True):  # "on" is left to the model
        body = dialect.render_request(request, quirks, ACCOUNT).body
        switched = any("think" in key or "reason" in key for key in flat_keys(body))
        assert switched or said(dropped, "thinking", "reasoning")
    if request.format and again.format != request.format:
        told = relay.dumps(request.format.schema).decode()
        assert again.format
        assert again.format.schema or told in repr(again.messages[0])


def only_one(choice: relay.ToolChoice) -> relay.ToolChoice:
    """Who must call one of one tool must call that one."""
    one = choice.mode == "required" and len(choice.names) == 1
    return replace(choice, mode="named") if one else choice


def flat_keys(value: object) -> list[str]:
    inner = value.values() if isinstance(value, dict) else ()
    return [*(value if isinstance(value, dict) else ()), *(k for v in inner for k in flat_keys(v))]


def said(dropped: tuple[str, ...], *names: str) -> bool:
    return any(name in item for item in dropped for name in names)
