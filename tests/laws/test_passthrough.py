"""Where both sides speak one dialect, relay reads along and changes nothing."""

import json

from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ACCOUNT,
    answers,
    cuts,
    cuttings,
    decoded,
    dialects,
    events_of,
    newlines,
    passage,
    piped,
    quirked,
    requests,
    stream_of,
)

import relay

pipes = st.sampled_from((relay.Passthrough, relay.Streamed))


@dialects
@given(data=st.data())
def test_what_comes_in_goes_out_however_it_is_cut(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    wire = stream_of(dialect, data.draw(answers(dialect))).replace(b"\n", data.draw(newlines))
    pipe = data.draw(pipes)(passage(dialect, dialect))
    assert piped(pipe, data.draw(cuttings(wire))) == wire
    assert (pipe.committed, pipe.failure, pipe.translated) == (True, None, False)


@dialects
@given(data=st.data())
def test_a_last_event_may_lack_its_blank_line(dialect: relay.Dialect, data: st.DataObject) -> None:
    end = data.draw(newlines)
    wire = stream_of(dialect, data.draw(answers(dialect))).replace(b"\n", end)
    wire = wire[: -len(end) * data.draw(st.integers(1, 2))]
    pipe = data.draw(pipes)(passage(dialect, dialect))
    assert piped(pipe, data.draw(cuttings(wire))) == wire
    assert pipe.failure is None


@dialects
@given(data=st.data())
def test_what_is_unknown_goes_through_too(dialect: relay.Dialect, data: st.DataObject) -> None:
    """Comments, pings, retry lines, fields and events of next year."""
    blocks = [block for block in events_of(dialect, data.draw(answers(dialect))) if block]
    odd = (b": hi\n\n", b"retry: 9\n\n", b'event: x\ndata: {"type":"x"}\n\n', b"id: 1\n:c\n\n")
    for extra in data.draw(st.lists(st.sampled_from(odd), max_size=3)):
        blocks.insert(data.draw(st.integers(0, len(blocks) - 1)), extra)
    wire = b"".join(blocks)
    assert piped(relay.Passthrough(passage(dialect, dialect)), data.draw(cuttings(wire))) == wire


@dialects
@given(data=st.data())
def test_the_meter_reads_what_the_full_decode_reads(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    wire = stream_of(dialect, data.draw(answers(dialect))).replace(b"\n", data.draw(newlines))
    pipe = data.draw(pipes)(passage(dialect, dialect))
    piped(pipe, data.draw(cuttings(wire)))
    read = relay.fold(decoded(dialect, [wire]))
    assert isinstance(read, relay.Response)
    assert pipe.usage == read.usage


@dialects
@given(data=st.data())
def test_the_gate_opens_when_the_full_decode_says_something(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    """`begun` at the first meaningful event, not before and not after."""
    pipe, decoder = relay.Passthrough(passage(dialect, dialect)), dialect.decoder()
    said = False
    for block in events_of(dialect, data.draw(answers(dialect))):
        pipe.feed(block)
        for event in decoder.feed(block):
            said |= meaningful(event)
        assert pipe.committed is said


def meaningful(event: relay.Event) -> bool:
    """DESIGN.md 5: text, a thought, a call, a regular finish; not a start, not a ping."""
    match event:
        case relay.PartDelta() | relay.Finish():
            return True
        case relay.PartStart(part):  # a model may think for minutes without a word
            return not isinstance(part, relay.Text)
        case relay.PartEnd(seal):
            return seal is not None
        case _:
            return False


@dialects
@given(data=st.data())
def test_a_whole_answer_goes_through_as_it_came(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(dialect))
    wire = relay.dumps(dialect.render_response(answer, relay.AnswerContext("m", "r")))
    pipe = relay.Gathered(passage(dialect, dialect))
    assert piped(pipe, data.draw(cuttings(wire))) == wire
    assert (pipe.failure, pipe.translated, pipe.usage) == (None, False, answer.usage)


@dialects
@given(data=st.data())
def test_what_is_cut_off_goes_through_up_to_the_cut_and_ends_in_an_error(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    """Only the error event is added; half an event is let go before it."""
    *most, last = events_of(dialect, data.draw(answers(dialect)))
    wire = b"".join(most) + last.split(b"\n\n")[0]  # the finish reason stands in the first
    wire = wire[: data.draw(cuts(len(wire)))]
    pipe = relay.Passthrough(passage(dialect, dialect))
    out = piped(pipe, data.draw(cuttings(wire)))
    assert pipe.failure
    if pipe.committed:  # until then another target is tried, or the failure becomes a status
        assert out.startswith(wire[: wire.rfind(b"\n\n") + 2])
        *said, last = decoded(dialect, [out])
        assert isinstance(last, relay.Failure)
        assert said in [decoded(dialect, [w])[:-1] for w in (wire, wire[: wire.rfind(b"\n\n") + 2])]


@dialects
@given(data=st.data())
def test_a_body_whose_bytes_say_it_is_clean_has_nothing_to_take_out(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
    """Reasoning of its own maker and of others, in the separators of Node and of Python."""
    request, account = data.draw(requests()), data.draw(st.sampled_from((ACCOUNT, "1" * 8)))
    body = dialect.render_request(request, quirked(dialect, unsigned=True), account).body
    spaced = data.draw(st.booleans())
    raw = json.dumps(body).encode() if spaced else relay.dumps(body)
    native, placeholder = data.draw(st.booleans()), data.draw(st.sampled_from(("", ".")))
    quirks = quirked(dialect, native=native, placeholder=placeholder)
    if dialect.is_clean(raw, relay.Body(raw, words=dialect.words).words, quirks):
        assert dialect.cleaned(relay.loads(raw), quirks, ACCOUNT, False) == relay.loads(raw)
