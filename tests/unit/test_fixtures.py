"""Golden fixtures: streams and answers that are odd in one way each, and the hub's reading.

stream.sse or response.json   the bytes, hand-made after the source that meta.json names
events.json                   what they mean; reviewed, and rewritten only by --accept
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from laws.strategies import ASKED, DIALECTS, check_grammar, decoded, passage, piped, speech

import relay

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = sorted(path for path in FIXTURES.glob("*/*") if path.is_dir())
STREAMS = [path for path in CASES if (path / "stream.sse").exists()]
WHOLE = [path for path in CASES if (path / "response.json").exists()]


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


streams = pytest.mark.parametrize("case", STREAMS, ids=name_of)
whole = pytest.mark.parametrize("case", WHOLE, ids=name_of)
clients = pytest.mark.parametrize("client", DIALECTS, ids=[dialect.name for dialect in DIALECTS])


def dialect_of(case: Path) -> relay.Dialect:
    return relay.DIALECTS[case.parent.name]


def as_it_came(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in data]


def with_crlf(data: bytes) -> list[bytes]:
    return [data if b"\r" in data else data.replace(b"\n", b"\r\n")]


def with_crlf_byte_by_byte(data: bytes) -> list[bytes]:
    return byte_by_byte(with_crlf(data)[0])


WAYS = (as_it_came, byte_by_byte, with_crlf, with_crlf_byte_by_byte)
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@streams
@ways
def test_a_stream_is_read_as_reviewed(
    case: Path, way: Callable[[bytes], list[bytes]], accept: bool
) -> None:
    events = decoded(dialect_of(case), way((case / "stream.sse").read_bytes()))
    compare(case, events, accept and way is as_it_came)


@whole
def test_an_answer_is_read_as_reviewed(case: Path, accept: bool) -> None:
    data = (case / "response.json").read_bytes()
    events = relay.whole_answer(data, dialect_of(case))
    check_grammar(events)
    compare(case, events, accept)


def compare(case: Path, events: Sequence[relay.Event], accept: bool) -> None:
    path = case / "events.json"
    seen = named([shown(event) for event in events], case)
    if accept:
        lines = ",\n  ".join(json.dumps(event) for event in seen)
        path.write_text(f"[\n  {lines}\n]\n")
    assert seen == json.loads(path.read_text())


def named(seen: list[dict[str, Any]], case: Path) -> list[dict[str, Any]]:
    """With `minted 1`, `minted 2` for ids that the provider did not give, or gave before."""
    text = "".join(path.read_text() for path in case.glob("[sr]*.*"))
    known: dict[str, int] = {}
    for part in (event["part"] for event in seen if event.get("part", {}).get("id")):
        id = part["id"]
        assert id not in known, f"two calls have the id {id}"
        known[id] = len(known)
        if f'"{id}"' not in text:
            part["id"] = f"minted {sum(known_id not in text for known_id in known)}"
    return seen


def shown(event: relay.Event) -> dict[str, Any]:
    """An event as JSON, without what is as always.

    A failure in relay's own words is known by its cause; the words may change.
    """
    fields = said(event)
    if isinstance(event, relay.Failure) and event.cause:
        fields.pop("message")
    return {"event": type(event).__name__} | fields


def said(value: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for spec in dataclasses.fields(value):
        inner = getattr(value, spec.name)
        if spec.default is not dataclasses.MISSING and inner == spec.default:
            continue
        if dataclasses.is_dataclass(inner):
            kind = {"kind": type(inner).__name__} if spec.name == "part" else {}
            inner = kind | said(inner)
        fields[spec.name] = inner
    return fields


# What the pipes make of them


@streams
@clients
def test_every_client_is_told_the_same(case: Path, client: relay.Dialect) -> None:
    data = (case / "stream.sse").read_bytes()
    reading = relay.fold(decoded(dialect_of(case), [data]))
    for way in WAYS:
        pipe = relay.Streamed(passage(dialect_of(case), client))
        told(client, pipe, piped(pipe, way(data)), reading)


@streams
@clients
def test_a_client_that_is_not_shown_thoughts_is_told_the_rest(
    case: Path, client: relay.Dialect
) -> None:
    data, dialect = (case / "stream.sse").read_bytes(), dialect_of(case)
    if dialect is client:
        return  # passes through: the provider itself was asked not to tell
    reading = relay.fold(decoded(dialect, [data]))
    if isinstance(reading, relay.Response):
        silent = [p for p in reading.parts if not isinstance(p, relay.Reasoning)]
        reading = dataclasses.replace(reading, parts=tuple(silent))
    between = dataclasses.replace(passage(dialect, client), context=ASKED._replace(shown=False))
    pipe = relay.Streamed(between)
    told(client, pipe, piped(pipe, byte_by_byte(data)), reading)


@whole
@clients
def test_json_on_a_streaming_request_tells_every_client_the_same(
    case: Path, client: relay.Dialect
) -> None:
    data = (case / "response.json").read_bytes()
    reading = relay.fold(relay.whole_answer(data, dialect_of(case)))
    pipe = relay.Streamed(passage(dialect_of(case), client))
    told(client, pipe, piped(pipe, byte_by_byte(data)), reading)


def told(
    client: relay.Dialect, pipe: relay.Pipe, out: bytes, reading: relay.Response | relay.Failure
) -> None:
    """The client's stream says what was read; a break is a break, and none is made up."""
    if isinstance(reading, relay.Failure):
        assert pipe.failure or not pipe.translated  # what passes is not read, but for its end
        assert not pipe.committed or isinstance(decoded(client, [out])[-1], relay.Failure)
        return
    assert pipe.failure is None
    got = relay.fold(decoded(client, [out]))
    assert isinstance(got, relay.Response)
    assert words_of(got, relay.Reasoning) == words_of(reading, relay.Reasoning)
    explained = reading.detail if reading.finish == "content_filter" else ""
    text = words_of(reading, relay.Text)
    assert words_of(got, relay.Text) in (text, text + explained)  # where a refusal is a text
    assert list(calls_in(got)) == list(calls_for(client, reading))
    assert (got.finish == "tool_calls") is (reading.finish == "tool_calls")
    assert (got.finish in FULL) is (reading.finish in FULL)
    assert (pipe.usage or relay.Usage()) == reading.usage


FULL = ("length", "context_length")


def words_of(answer: relay.Response, kind: type) -> str:
    """Text with halves of emoji put together, as every JSON reader of a client does."""
    text = "".join(part.text for part in answer.parts if isinstance(part, kind))
    return text.encode("utf-16", errors="surrogatepass").decode("utf-16")


def calls_for(client: relay.Dialect, answer: relay.Response) -> Iterator[tuple[str, str, Any]]:
    """The calls as a client can be told: where they are whole, every object is a call."""
    for id, name, value in calls_in(answer):
        if isinstance(value, dict) or not speech(client).whole_calls:
            yield id, name, value
            continue
        with contextlib.suppress(ValueError):  # cut off: not said
            for number, one in enumerate(relay.json_values(value.encode())):
                yield f"{id}_{number + 1}" if number else id, name, one


def calls_in(answer: relay.Response) -> Iterator[tuple[str, str, Any]]:
    for part in answer.parts:
        if isinstance(part, relay.ToolCall):
            value = relay.parse_object(part.text or "{}")
            yield part.id, part.name, part.text if value is None else value


@streams
def test_a_stream_passes_through_as_it_came(case: Path) -> None:
    """Up to where it breaks, if it breaks; then one error event is added and nothing else."""
    dialect, data = dialect_of(case), (case / "stream.sse").read_bytes()
    for pieces in (way(data) for way in WAYS):
        came = b"".join(pieces)
        pipe = relay.Passthrough(passage(dialect, dialect))
        out = piped(pipe, pieces)
        if pipe.failure is None:
            assert out == came
        elif pipe.committed:
            kept = came[: relay.whole_events(came)]
            assert out.startswith(kept)
            rest = out.removeprefix(kept)
            assert rest == b"" or isinstance(decoded(dialect, [rest])[-1], relay.Failure)


@whole
def test_a_whole_answer_passes_through_as_it_came(case: Path) -> None:
    dialect, data = dialect_of(case), (case / "response.json").read_bytes()
    pipe = relay.Gathered(passage(dialect, dialect))
    out = piped(pipe, [data])
    assert out == (b"" if pipe.failure else data)


@streams
@clients
def test_a_stream_on_a_whole_request_becomes_one_answer(case: Path, client: relay.Dialect) -> None:
    data = (case / "stream.sse").read_bytes()
    reading = relay.fold(decoded(dialect_of(case), [data]))
    pipe = relay.Gathered(passage(dialect_of(case), client))
    out = piped(pipe, byte_by_byte(data))
    if isinstance(reading, relay.Failure):
        assert pipe.failure
        assert out == b""
        return
    expected = client.render_response(reading, ASKED)
    got = relay.fold(client.decoder().whole(relay.loads(out)))
    assert list(calls_in(got)) == list(calls_in(relay.fold(client.decoder().whole(expected))))
    assert words_of(got, relay.Text) == words_of(
        relay.fold(client.decoder().whole(expected)), relay.Text
    )


# The fixtures themselves


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_fixture_says_who_does_it_and_where_that_is_known_from(case: Path) -> None:
    meta = json.loads((case / "meta.json").read_text())
    assert list(meta) == ["what", "who", "source"]
    assert all(meta.values())
    files = {path.name for path in case.iterdir()}
    assert files in (
        {"stream.sse", "meta.json", "events.json"},
        {"response.json", "meta.json", "events.json"},
    )


@pytest.mark.parametrize("dialect", relay.DIALECTS)
def test_every_dialect_has_fixtures(dialect: str) -> None:
    assert [case for case in CASES if case.parent.name == dialect]
