"""What is said in a dialect and read again is what was said."""

from dataclasses import replace

import relay
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ASKED,
    answers,
    cuttings,
    decoded,
    dialects,
    folded,
    newlines,
    requests,
    retold,
    same_answer,
    stream_of,
)


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
    same_answer(dialect.parse_response(wire), answer)


@dialects
@given(data=st.data())
def test_a_stream_comes_back_however_it_is_cut(
    dialect: relay.Dialect, data: st.DataObject
) -> None:
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
    whole = dialect.parse_response(dialect.render_response(answer, ASKED))
    streamed = folded(dialect, stream_of(dialect, answer))
    assert isinstance(streamed, relay.Response)
    assert streamed == whole


@dialects
@given(request=requests())
def test_a_request_comes_back(dialect: relay.Dialect, request: relay.Request) -> None:
    again, dropped = retold(request, dialect)
    assert dropped == ()
    assert words_of(again.thinking) == words_of(request.thinking)
    assert (again.format and again.format.schema) == (request.format and request.format.schema)
    assert replace(again, **LOOSE) == replace(request, **LOOSE)


# Said by every dialect in its own way: compared above, or a fact of the stream alone.
LOOSE = {"thinking": None, "format": None, "include_usage": True}


def words_of(thinking: relay.Thinking | None) -> str | None:
    return thinking and thinking.word()
