"""A conversation that goes from one maker to another and back, as failover sends it, goes on.

Every maker seals what it thinks, and refuses seals it did not make.  The client keeps what it was
given, and sends all of it back.  So each request must hold the seals of the maker it goes to, no
other's, and be one that this maker takes.

The makers are played by what they say over the wire, the clients by what they keep of it; only
what lies between is relay's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fake_upstream as fake
import pytest
import talk
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ACCOUNT,
    ASKED,
    DIALECTS,
    answers,
    calls_of,
    carried,
    folded,
    piped,
    stream_of,
    text_of,
)
from laws.test_sdk_types import ADAPTERS, plain

import relay

JSON = Any


# The makers


@dataclass(frozen=True)
class Maker:
    """A provider under one account, and how the seal of its n-th answer looks."""

    dialect: relay.Dialect
    account: str
    quirks: relay.Quirks

    def seal(self, turn: int) -> str:
        return base64.b64encode(f"sealed by {self.account}, {turn:3}".encode()).decode()

    def says(self, turn: int, streamed: bool, **said: Any) -> bytes:
        whole, stream, written = MAKERS[self.dialect.name]
        wire = (stream if streamed else whole)(**said).wire
        assert written.encode() in wire
        return wire.replace(written.encode(), sealing(written, self.seal(turn)))


THOUGHT = "Hm."
CHAT_THOUGHT = f'"reasoning_content": "{THOUGHT}"'
# Whole, streamed, and what stands in both where the seal goes.
MAKERS: dict[str, tuple[Callable[..., fake.Answer], Callable[..., fake.Answer], str]] = {
    "anthropic": (fake.anthropic_whole, fake.anthropic_stream, fake.SIGNATURE),
    "gemini": (fake.gemini_whole, fake.gemini_stream, fake.SIGNATURE),
    "openai": (fake.chat_whole, fake.chat_stream, CHAT_THOUGHT),
    "responses": (fake.responses_whole, fake.responses_stream, fake.ENCRYPTED),
}


def sealing(written: str, seal: str) -> bytes:
    """The seal, or for chat the member that holds it, as OpenRouter has it."""
    if written != CHAT_THOUGHT:
        return seal.encode()
    detail = {"type": "reasoning.encrypted", "data": seal, "index": 0}
    return f'"reasoning_details": {json.dumps([detail])}'.encode()


def makers(dialect: relay.Dialect, number: int) -> Maker:
    sealing_chat = dialect.name == "openai"
    quirks = dialect.quirks(replay_field="reasoning_details") if sealing_chat else dialect.quirks()
    return Maker(dialect, f"{number:08x}", quirks)


# The clients


@dataclass(frozen=True)
class Client:
    """What a client keeps of a whole answer, and how it says the other things."""

    read: Callable[[list[JSON]], JSON]  # the events of a stream, as a whole answer
    kept: Callable[[JSON], list[JSON]]
    asks: Callable[[str], JSON]
    results: Callable[[list[fake.Call]], list[JSON]]
    body: Callable[[list[JSON]], JSON]


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "look", "description": "Look."}


def read_anthropic(events: list[JSON]) -> JSON:
    blocks = [event for event in events if event["type"].startswith("content_block_")]
    return {"content": talk.anthropic_blocks(blocks)}


def read_chat(events: list[JSON]) -> JSON:
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    message: JSON = {"role": "assistant"}
    for member in ("content", "reasoning_content"):
        message[member] = "".join(delta.get(member) or "" for delta in deltas)
    details = [detail for delta in deltas for detail in delta.get("reasoning_details", ())]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    message["reasoning_details"] = merged(details, lambda whole, piece: whole.update(piece))
    message["tool_calls"] = merged(calls, extend_call)
    return {"choices": [{"message": {key: value for key, value in message.items() if value}}]}


def merged(pieces: list[JSON], add: Callable[[JSON, JSON], None]) -> list[JSON]:
    """By their index."""
    whole: dict[int, JSON] = {}
    for piece in pieces:
        if piece["index"] in whole:
            add(whole[piece["index"]], piece)
        else:
            whole[piece["index"]] = piece
    return list(whole.values())


def extend_call(whole: JSON, piece: JSON) -> None:
    whole["function"]["arguments"] += piece["function"]["arguments"]


def read_gemini(events: list[JSON]) -> JSON:
    parts = [part for event in events for part in event["candidates"][0]["content"]["parts"]]
    return {"candidates": [{"content": {"role": "model", "parts": parts}}]}


def anthropic_results(calls: list[fake.Call]) -> list[JSON]:
    blocks = [{"type": "tool_result", "tool_use_id": id, "content": f"R{id}"} for id, *_ in calls]
    return [{"role": "user", "content": blocks}]


def gemini_results(calls: list[fake.Call]) -> list[JSON]:
    answers = [{"id": id, "name": name, "response": {"output": f"R{id}"}} for id, name, _ in calls]
    return [{"role": "user", "parts": [{"functionResponse": answer} for answer in answers]}]


CLIENTS = {
    "anthropic": Client(
        read_anthropic,
        lambda wire: [{"role": "assistant", "content": wire["content"]}],
        lambda text: {"role": "user", "content": text},
        anthropic_results,
        lambda turns: {
            "model": "m",
            "max_tokens": 9000,
            "messages": turns,
            "tools": [TOOL | {"input_schema": SCHEMA}],
        },
    ),
    "gemini": Client(
        read_gemini,
        lambda wire: [wire["candidates"][0]["content"]],
        lambda text: {"role": "user", "parts": [{"text": text}]},
        gemini_results,
        lambda turns: {
            "contents": turns,
            "tools": [{"functionDeclarations": [TOOL | {"parameters": SCHEMA}]}],
        },
    ),
    "openai": Client(
        read_chat,
        lambda wire: [wire["choices"][0]["message"]],
        lambda text: {"role": "user", "content": text},
        lambda calls: [
            {"role": "tool", "tool_call_id": id, "content": f"R{id}"} for id, *_ in calls
        ],
        lambda turns: {
            "model": "m",
            "messages": turns,
            "tools": [{"type": "function", "function": TOOL | {"parameters": SCHEMA}}],
        },
    ),
    "responses": Client(
        lambda events: events[-1]["response"],
        lambda wire: wire["output"],
        lambda text: {"role": "user", "content": text},
        lambda calls: [
            {"type": "function_call_output", "call_id": id, "output": f"R{id}"} for id, *_ in calls
        ],
        lambda turns: {
            "model": "m",
            "input": turns,
            "tools": [{"type": "function", "strict": False, **TOOL, "parameters": SCHEMA}],
        },
    ),
}


def test_every_dialect_has_its_maker_and_its_client() -> None:
    assert MAKERS.keys() == CLIENTS.keys() == relay.DIALECTS.keys()


# The sessions


@dataclass(frozen=True)
class Step:
    """Who answers, and what."""

    maker: Maker
    text: str
    calls: int
    streamed: bool
    shown: bool  # is the client shown what was thought?


@st.composite
def sessions(draw: st.DrawFn, client: relay.Dialect, first: relay.Dialect) -> list[Step]:
    """From the first maker to others and back to it.

    Two makers of the client's own dialect are not told apart: what passes through bears no mark.
    """
    others = st.sampled_from(DIALECTS).filter(lambda d: d is not client or d is not first)
    second, third = makers(draw(others), 2), makers(draw(others), 3)
    if second.dialect is third.dialect is client:
        third = second
    ways = st.sampled_from([second, third, makers(first, 1)])
    path = [makers(first, 1), second, *draw(st.lists(ways, max_size=3)), makers(first, 1)]
    text = st.sampled_from(["", "I look.", "Wörter 🌍."])
    calls, either = st.integers(1, 2), st.booleans()
    return [Step(maker, draw(text), draw(calls), draw(either), draw(either)) for maker in path]


def sent(client: relay.Dialect, turns: list[JSON], maker: Maker) -> JSON:
    """A request of the client's as it goes to a maker."""
    body = relay.loads(relay.dumps(CLIENTS[client.name].body(turns)))
    if maker.dialect is client:
        return plain(client.cleaned(body, maker.quirks, maker.account, False))
    return plain(carried(body, client, maker.dialect, maker.quirks, maker.account).body)


def returned(client: relay.Dialect, step: Step, wire: bytes) -> JSON:
    """A maker's answer as the client has it in the end."""
    asked = ASKED._replace(shown=step.shown or step.maker.dialect is client)
    passage = relay.AnswerPath(step.maker.dialect, client, asked, account=step.maker.account)
    if not step.streamed:
        return relay.loads(piped(relay.Gathered(passage), [wire]))
    out = piped(relay.Streamed(passage), [wire])
    return CLIENTS[client.name].read([e.json for e in talk.events_of(out) if e.data != "[DONE]"])


def texts(value: JSON) -> list[str]:
    """All strings, however deep."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in texts(each)]


Past = list[tuple[Maker, int, int]]  # who answered, in which turn, with how many calls
ENVELOPES = ("rly1.", base64.b64encode(b"rly1.")[:6].decode())


def check(body: JSON, maker: Maker, past: Past) -> None:
    said = texts(body)
    assert not [text for text in said if text.startswith(ENVELOPES)]
    for other, turn, _ in past:
        mine = any(other.seal(turn) in text for text in said)
        assert mine == (other.account == maker.account), (other, turn)
    ADAPTERS[maker.dialect.name][2].validate_python(body)
    messages = maker.dialect.parse_request(body).messages
    assert flat(messages) == flat(relay.repaired(messages))
    results = [p for m in messages for p in m.parts if isinstance(p, relay.ToolResult)]
    assert [texts_of(result) for result in results] == [
        f"R{call}" for _, turn, calls in past for call in named(turn, calls)
    ]


def flat(messages: Sequence[relay.Message]) -> list[tuple[str, relay.Part]]:
    return [(message.role, part) for message in messages for part in message.parts]


def texts_of(result: relay.ToolResult) -> str:
    return "".join(part.text for part in result.parts if isinstance(part, relay.Text))


def named(turn: int, calls: int) -> list[str]:
    """The ids of a turn's calls."""
    return [f"call_{turn}_{number}" for number in range(calls)]


@pytest.mark.parametrize("client", DIALECTS, ids=relay.DIALECTS)
@pytest.mark.parametrize("first", DIALECTS, ids=[f"by-{name}" for name in relay.DIALECTS])
@given(data=st.data())
def test_a_session_that_changes_its_maker_goes_on(
    client: relay.Dialect, first: relay.Dialect, data: st.DataObject
) -> None:
    """Checklist 64, for every maker and every client."""
    plays = CLIENTS[client.name]
    turns, past = [plays.asks("Look.")], Past()
    for number, step in enumerate(data.draw(sessions(client, first))):
        check(sent(client, turns, step.maker), step.maker, past)
        calls = [(call, "look", '{"city": "Oslo"}') for call in named(number, step.calls)]
        said = {"text": step.text, "reasoning": THOUGHT, "calls": calls}
        wire = step.maker.says(number, step.streamed, **said)
        turns += plays.kept(returned(client, step, wire))
        turns += plays.results(calls)
        past.append((step.maker, number, step.calls))


@pytest.mark.parametrize("client", DIALECTS, ids=relay.DIALECTS)
@pytest.mark.parametrize("maker", DIALECTS, ids=[f"by-{name}" for name in relay.DIALECTS])
@given(data=st.data(), streamed=st.booleans())
def test_what_a_client_is_not_shown_it_keeps(
    client: relay.Dialect, maker: relay.Dialect, data: st.DataObject, streamed: bool
) -> None:
    """Its maker may want it back: all that was thought is in what the client returns."""
    if maker is client:
        return  # passes through: the maker itself was asked not to tell
    answer, plays = data.draw(answers(maker)), CLIENTS[client.name]
    asked = ASKED._replace(shown=False)
    passage = relay.AnswerPath(maker, client, asked, account=ACCOUNT)
    if streamed:
        out = piped(relay.Streamed(passage), [stream_of(maker, answer)])
        events = [event.json for event in talk.events_of(out) if event.data != "[DONE]"]
        got, wire = folded(client, out), plays.read(events)
    else:
        said = relay.dumps(maker.render_response(answer, ASKED))
        wire = relay.loads(piped(relay.Gathered(passage), [said]))
        got = relay.fold(client.decoder().whole(wire))
    assert isinstance(got, relay.Response)
    assert text_of(got, relay.Reasoning) == ""
    assert text_of(got, relay.Text) == text_of(answer, relay.Text)
    assert calls_of(got) == calls_of(answer)
    body = plays.body([plays.asks("Look."), *plays.kept(wire)])
    turns = client.parse_request(relay.loads(relay.dumps(body))).messages
    thoughts = [p for m in turns for p in m.parts if isinstance(p, relay.Reasoning)]
    assert "".join(p.text for p in thoughts) == text_of(answer, relay.Reasoning)
