"""JSON text, checked access, server-sent events."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import relay
from relay import ServerSentEvent as Event
from relay import SSEDecoder, Wire

# JSON


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('"\\ud83d"', "\ud83d"),
        ('"\\ud83d\\ude80"', "\U0001f680"),
        ('["\\u2028\u2028"]', ["\u2028\u2028"]),
        (b'"\xc3\xa9"', "\u00e9"),
        ("  null ", None),
    ],
)
def test_what_clients_send_is_read(text: str | bytes, value: object) -> None:
    assert relay.loads(text) == value


@pytest.mark.parametrize(
    "text", ["", "{", "nul", "NaN", "[Infinity]", "{'a': 1}", "[" * 100_000, b"\xff", "1 2"]
)
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the kind is the contract)
        relay.loads(text)


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, True]}, "\U0001f680", "\ud83d", 2**70, {"\ud83d": "x"}]
)
def test_what_is_written_reads_as_it_was(value: object) -> None:
    data = relay.dumps(value)
    assert json.loads(data) == value
    assert b"\n" not in data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ('{"n": 12345678901234567890123}', {"n": 12345678901234567890123}),
        ("[]", None),
        ('"x"', None),
        ("", None),
        ("{", None),
        ('{"a": 1}{"b": 2}', None),
    ],
)
def test_arguments_are_an_object_or_none(text: str, value: object) -> None:
    assert relay.parse_object(text) == value


def test_a_number_keeps_all_its_digits() -> None:
    for number in (9007199254740993, 2**63, 2**64, 10**30, -(10**19)):
        body = json.dumps({"id": number, "x": 0.1})
        assert relay.loads_exactly(body.encode()) == {"id": number, "x": 0.1}
        assert relay.parse_object(body) == {"id": number, "x": 0.1}


# Wire: a client's object, with the way to every complaint

COMPLAINTS: list[tuple[Any, Callable[[Wire], object], str]] = [
    ([], lambda w: w, "body: expected an object, got a list"),
    ({}, lambda w: w.required("model", str), "model: required"),
    ({"model": 3}, lambda w: w.required("model", str), "model: expected a string, got 3"),
    ({"n": True}, lambda w: w.optional("n", int), "n: expected an integer, got true"),
    ({"n": "1"}, lambda w: w.optional("n", int), 'n: expected an integer, got "1"'),
    ({"n": 1.5}, lambda w: w.optional("n", int), "n: expected an integer, got 1.5"),
    ({"t": []}, lambda w: w.optional("t", float), "t: expected a number, got a list"),
    ({"s": 1}, lambda w: w.optional("s", bool), "s: expected true or false, got 1"),
    ({"m": {}}, lambda w: list(w.each("m")), "m: expected a list, got an object"),
    (
        {"m": [{}, 3]},
        lambda w: list(w.each("m")),
        "m[1]: expected an object, got 3",
    ),
    (
        {"m": [{"c": [{"t": 3}]}]},
        lambda w: [c.optional("t", str) for m in w.each("m") for c in m.each("c")],
        "m[0].c[0].t: expected a string, got 3",
    ),
    ({"o": {"x": 1}}, lambda w: w.inner("o").required("x", str), "o.x: expected a string, got 1"),
    ({"o": 3}, lambda w: w.inner("o"), "o: expected an object, got 3"),
    ({"stop": ["a", 1]}, lambda w: w.texts("stop"), "stop: expected strings, got 1"),
    ({"stop": {}}, lambda w: w.texts("stop"), "stop: expected a list, got an object"),
]


@pytest.mark.parametrize(("data", "read", "complaint"), COMPLAINTS)
def test_a_complaint_says_where_and_what(
    data: Any, read: Callable[[Wire], object], complaint: str
) -> None:
    with pytest.raises(relay.BadRequest) as caught:
        read(Wire(data))
    assert caught.value.message == complaint


def test_a_complaint_does_not_repeat_a_clients_prose() -> None:
    with pytest.raises(relay.BadRequest) as caught:
        Wire({"n": "secret " * 40}).optional("n", int)
    assert "secret secret" not in caught.value.message


def test_a_whole_number_is_an_integer_too() -> None:
    """Clients whose language has one kind of number write 1000.0."""
    value = Wire({"n": 1000.0}).required("n", int)
    assert (value, type(value)) == (1000, int)


def test_an_integer_is_a_number_too() -> None:
    assert Wire({"t": 1}).optional("t", float) == 1
    assert Wire({"t": None}).optional("t", float) is None


def test_one_string_may_stand_for_a_list() -> None:
    assert Wire({"stop": "x"}).texts("stop") == ("x",)
    assert Wire({"stop": ["x", "y"]}).texts("stop") == ("x", "y")
    assert Wire({}).texts("stop") == ()


def test_what_nobody_reads_is_noted_once_per_kind_of_place() -> None:
    wire = Wire({"a": 1, "b": 2, "none": None, "m": [{"x": 1}, {"x": 2}]})
    wire.drop_unknown(frozenset(("a", "m")))
    for item in wire.each("m"):
        item.drop_unknown(frozenset())
    assert list(wire.dropped) == ["b", "m[].x"]


# Server-sent events

STREAMS: list[tuple[bytes, list[Event]]] = [
    (b"data: a\n\n", [Event("", b"a")]),
    (b"data:a\n\n", [Event("", b"a")]),
    (b"data:  a\n\n", [Event("", b" a")]),
    (b"event: x\ndata: a\n\n", [Event("x", b"a")]),
    (b"event:x\ndata:a\n\n", [Event("x", b"a")]),
    (b"data: a\nevent: x\n\n", [Event("x", b"a")]),
    (b"data: a\ndata: b\n\n", [Event("", b"a\nb")]),
    (b"data: a\ndata:\ndata: b\n\n", [Event("", b"a\n\nb")]),
    (b"data\n\n", [Event("", b"")]),
    (b": comment\n\n", []),
    (b": c\ndata: a\n: d\n\n", [Event("", b"a")]),
    (b"id: 1\nretry: 2\ndata: a\nfoo: bar\n\n", [Event("", b"a")]),
    (b"event: x\n\n", []),
    (b"\n\n\n\ndata: a\n\n\n\n", [Event("", b"a")]),
    (b"data: a\n\ndata: b\n\n", [Event("", b"a"), Event("", b"b")]),
    ("\ufeffdata: a\n\n".encode(), [Event("", b"a")]),
    (
        "data: a\u2028b\u0085c\x0bd\x0ce\x1ef\n\n".encode(),
        [Event("", "a\u2028b\u0085c\x0bd\x0ce\x1ef".encode())],
    ),
    ("data: \U0001f680\n\n".encode(), [Event("", "\U0001f680".encode())]),
    (b"data: a: b\n\n", [Event("", b"a: b")]),
    (b'data: {"a":\ndata: 1}\n\n', [Event("", b'{"a":\n1}')]),
]
ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])


@pytest.mark.parametrize(("data", "events"), STREAMS)
@ENDS
def test_events_are_read_by_the_standard(data: bytes, events: list[Event], end: bytes) -> None:
    wire = data.replace(b"\n", end)
    for pieces in ([wire], [bytes((byte,)) for byte in wire], [*wire.partition(end)]):
        decoder = SSEDecoder()
        seen = [event for piece in pieces for event in decoder.feed(piece)]
        assert seen + decoder.eof() == events
    junk = SSEDecoder()
    assert junk.feed(wire + b"data: half") + junk.eof() == [*events, Event("", b"half")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_an_event_is_out_as_soon_as_it_is_whole(end: bytes) -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a" + end) == []
    assert decoder.feed(end) == [Event("", b"a")]
    assert decoder.feed(b"data: b") == []


def test_an_event_that_never_ends_is_let_go_of() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a") == []
    assert decoder.eof() == [Event("", b"a")]
    assert decoder.eof() == []


def test_an_event_is_written_as_one_line() -> None:
    assert relay.sse({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
    assert relay.sse({"type": "ping"}, "ping") == b'event: ping\ndata: {"type":"ping"}\n\n'


WHOLE = [
    (b"", 0),
    (b"data: a", 0),
    (b"data: a\n", 0),
    (b"data: a\n\n", 9),
    (b"data: a\n\ndata: b", 9),
    (b"data: a\r\n\r\ndata: b\r\n", 11),
    (b"data: a\r\rdata: b", 9),
    (b"data: a\n\ndata: b\r\n\r\nx", 20),
]


@pytest.mark.parametrize(("data", "end"), WHOLE)
def test_where_the_last_whole_event_ends(data: bytes, end: int) -> None:
    assert relay.whole_events(data) == end


@pytest.mark.parametrize("digits", [1, 18, 19, 20, 40])
@pytest.mark.parametrize("place", range(9))
def test_a_long_number_is_found_wherever_it_stands(digits: int, place: int) -> None:
    for around in (b" ", b"12:30:45,", b"0f3a9c17"):  # blanks, times, hashes
        before, behind = (around * 90)[: 100 + place], (b"x" + around * 90)[:300]
        data = before + b"x" + b"7" * digits + behind
        assert relay.has_long_number(data) is (digits >= 19)
        assert relay.has_long_number(b"7" * digits + behind) is (digits >= 19)
        assert relay.has_long_number(before + b"x" + b"7" * digits) is (digits >= 19)
