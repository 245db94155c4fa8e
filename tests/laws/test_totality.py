"""Whatever the bytes, what comes out is a sentence of the grammar, and never an exception."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from laws.strategies import (
    ASKED,
    answers,
    check_grammar,
    cuttings,
    decoded,
    dialects,
    events_of,
    newlines,
    pairs,
    passage,
    piped,
    scalars,
)

import relay

# Every name and every word that a stream or a whole answer of any dialect is made of, so that
# odd objects are nearly right ones.
EVERYTHING = relay.Response(
    "r",
    "m",
    (
        relay.Reasoning("t", relay.Seal("as", "s", "0a1b2c3d")),
        relay.Reasoning("", relay.Seal("ad", "s", "0a1b2c3d")),
        relay.Text("t"),
        relay.ToolCall("c", "n", "{}"),
    ),
    "content_filter",
    relay.Usage(9, 9, 1, 1, 1),
    "because",
)
ODDITIES = (
    "error",
    "base_resp",
    "code",
    "detail",
    "summary",
    "thinking",
    "refusal",
    "cached_tokens",
)


def objects_in(data: bytes) -> list[Any]:
    events = relay.SSEDecoder().feed(data)
    return [relay.loads(event.data) for event in events if event.data.startswith(b"{")]


def walked(value: Any) -> list[Any]:
    """Every key and every string in a value."""
    if isinstance(value, dict):
        return [*value, *(w for inner in value.values() for w in walked(inner))]
    if isinstance(value, list):
        return [w for inner in value for w in walked(inner)]
    return [value] if isinstance(value, str) else []


SPOKEN = [
    value
    for dialect in relay.DIALECTS.values()
    for value in [
        dialect.render_response(EVERYTHING, ASKED),
        *objects_in(b"".join(events_of(dialect, EVERYTHING))),
    ]
]
VOCABULARY = sorted({*walked(SPOKEN), *ODDITIES})

names = st.sampled_from(VOCABULARY)
odd_values = st.recursive(
    scalars | names | st.sampled_from((0, -1, 1e308, 2**70, "\ud800", "{", "{}{}")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
odd_objects = st.dictionaries(names, odd_values, max_size=5)


@st.composite
def bent(draw: Any, value: Any) -> Any:
    """A value with one place in it replaced, or taken out."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(list(value)))
        if draw(st.integers(0, 5)) == 0:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: draw(bent(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(bent(value[at])), *value[at + 1 :]]
    return draw(odd_values)


def event(value: Any, data: bytes = b"data: ") -> bytes:
    return data + json.dumps(value).encode() + b"\n\n"


@st.composite
def streams(draw: Any, dialect: relay.Dialect) -> bytes:
    """A real stream with events bent, doubled, dropped, shuffled; junk between; cut short."""
    whole = b"".join(events_of(dialect, draw(answers(dialect))))
    blocks = [block + b"\n\n" for block in whole.split(b"\n\n") if block]
    objects = [value for block in blocks for value in objects_in(block)]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(blocks) - 1)))
        match draw(st.integers(0, 5)):
            case 0:
                blocks[at:at] = [event(draw(bent(draw(st.sampled_from(objects)))))]
            case 1:
                blocks[at:at] = blocks[at : at + 1]
            case 2:
                del blocks[at : at + 1]
            case 3:
                blocks = draw(st.permutations(blocks))
            case 4:
                blocks[at:at] = [draw(st.binary(max_size=20)), b"\n\n"]
            case _:
                blocks[at:at] = [event(draw(odd_objects))]
    data = b"".join(blocks).replace(b"\n", draw(newlines))
    return data if draw(st.booleans()) else data[: draw(st.integers(0, len(data)))]


junk = st.lists(
    st.binary(max_size=40) | odd_objects.map(event) | odd_values.map(event), max_size=6
).map(b"".join)


@dialects
@given(data=st.data())
def test_a_decoder_is_total_over_junk(dialect: relay.Dialect, data: st.DataObject) -> None:
    decoded(dialect, data.draw(cuttings(data.draw(junk))))


@dialects
@given(data=st.data())
@settings(max_examples=settings.default.max_examples * 4)
def test_a_decoder_is_total_over_streams_that_went_wrong(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    speaker = data.draw(st.sampled_from(list(relay.DIALECTS.values())))
    decoded(dialect, data.draw(cuttings(data.draw(streams(speaker)))))


@dialects
@given(value=odd_values | odd_objects)
def test_a_whole_answer_of_any_kind_is_an_answer_or_a_failure(
    dialect: relay.Dialect, value: Any
) -> None:
    check_grammar(relay.whole_answer(json.dumps(value).encode(), dialect))


@dialects
@given(data=st.data())
def test_a_whole_answer_that_went_wrong_is_an_answer_or_a_failure(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    good = dialect.render_response(data.draw(answers(dialect)), ASKED)
    wire = json.dumps(data.draw(bent(good))).encode()
    check_grammar(relay.whole_answer(wire, dialect))


@pairs
@given(data=st.data())
def test_a_pipe_for_a_stream_is_total(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    """What the client gets is a sentence too, or nothing yet: then another target is tried."""
    whole = json.dumps(upstream.render_response(data.draw(answers(upstream)), ASKED)).encode()
    wire = data.draw(streams(upstream) | junk | st.just(whole) | st.binary())
    pipe = relay.Streamed(passage(upstream, client))
    out = piped(pipe, data.draw(cuttings(wire)))
    assert isinstance(out, bytes)
    assert pipe.failure or pipe.committed
    if pipe.committed and pipe.translated:
        decoded(client, [out])


@pairs
@given(data=st.data())
def test_a_pipe_for_a_whole_answer_is_total(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    whole = json.dumps(upstream.render_response(data.draw(answers(upstream)), ASKED)).encode()
    wire = data.draw(streams(upstream) | junk | st.just(whole) | st.binary())
    pipe = relay.Gathered(passage(upstream, client))
    out = piped(pipe, data.draw(cuttings(wire)))
    assert bool(out) is (pipe.failure is None)
    if pipe.failure is None:
        relay.fold(client.decoder().whole(relay.loads(out)))


@dialects
@given(data=st.data())
def test_a_request_of_any_kind_is_read_or_a_bad_request(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    """A client's mistakes are its own: 400 with a place, and never an internal error."""
    body = data.draw(odd_requests(dialect))
    try:
        request = dialect.parse_request(body)
    except relay.BadRequest:
        return
    for other in relay.DIALECTS.values():
        tidy = relay.replace(request, messages=relay.repaired(request.messages))
        relay.estimate(tidy)
        relay.dumps(other.render_request(tidy, other.quirks(), "0a1b2c3d").body)


REQUESTED = relay.Request(
    model="m",
    messages=(
        relay.Message("system", (relay.Text("s"),)),
        relay.Message("user", (relay.Text("u"), relay.Media("image", url="https://a/b"))),
        relay.Message("assistant", (relay.Text("t"), relay.ToolCall("c", "n", "{}"))),
        relay.Message("user", (relay.ToolResult("c", (relay.Text("r"),)),)),
    ),
    tools=(relay.Tool("n", "d", {"type": "object", "properties": {}}, True),),
    tool_choice=relay.ToolChoice("named", ("n",)),
    max_tokens=9,
    stop=("x",),
    format=relay.Format({"type": "object"}),
    stream=True,
)


@st.composite
def odd_requests(draw: Any, dialect: relay.Dialect) -> relay.JSON:
    body = dialect.render_request(REQUESTED, dialect.quirks(), "0a1b2c3d").body
    for _ in range(draw(st.integers(1, 3))):
        body = draw(bent(body))
    return body if isinstance(body, dict) else {"model": body}
