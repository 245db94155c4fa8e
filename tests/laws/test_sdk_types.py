"""What goes out is what the vendors' own SDKs have types for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ACCOUNT,
    ASKED,
    DIALECTS,
    answers,
    dialects,
    pairs,
    passage,
    piped,
    requests,
    stream_of,
)

import relay

anthropic = pytest.importorskip("anthropic.types")
openai = pytest.importorskip("openai.types.chat")
responses = pytest.importorskip("openai.types.responses")
pydantic = pytest.importorskip("pydantic")

# Of an event, of a whole answer, of a request
TYPES = {
    "anthropic": (
        anthropic.RawMessageStreamEvent,
        anthropic.Message,
        anthropic.message_create_params.MessageCreateParamsBase,
    ),
    "openai": (
        openai.ChatCompletionChunk,
        openai.ChatCompletion,
        openai.completion_create_params.CompletionCreateParamsBase,
    ),
    "responses": (
        responses.ResponseStreamEvent,
        responses.Response,
        responses.response_create_params.ResponseCreateParamsBase,
    ),
}
ADAPTERS = {
    name: tuple(map(pydantic.TypeAdapter, types))
    for name, types in TYPES.items()
    if name in relay.DIALECTS
}


def test_every_dialect_has_a_judge() -> None:
    assert ADAPTERS.keys() == relay.DIALECTS.keys()


def stream_is_known(client: relay.Dialect, data: bytes) -> None:
    for event in relay.SSEDecoder().feed(data):
        if event.data == b"[DONE]" or event.event == "ping" or b'"keepalive"' in event.data:
            continue
        wire = relay.loads(event.data)
        if "error" not in wire:  # the SDKs raise these
            ADAPTERS[client.name][0].validate_python(wire, strict=True)


@pairs
@given(data=st.data())
def test_every_event_is_one_that_the_sdk_knows(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    pipe = relay.Streamed(passage(upstream, client, names={"a": "b"}))  # never passed through
    out = piped(pipe, [stream_of(upstream, data.draw(answers(upstream)))])
    stream_is_known(client, out + client.encoder(ASKED).alive())


@pairs
@given(data=st.data())
def test_every_whole_answer_is_one_that_the_sdk_knows(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    pipe = relay.Gathered(passage(upstream, client, names={"a": "b"}))
    out = piped(pipe, [stream_of(upstream, data.draw(answers(upstream)))])
    ADAPTERS[client.name][1].validate_python(relay.loads(out), strict=True)


@dialects
@given(request=requests())
def test_every_request_is_one_that_the_sdk_could_have_sent(
    dialect: relay.Dialect, request: relay.Request
) -> None:
    body = dialect.render_request(request, dialect.quirks(), ACCOUNT).body
    ADAPTERS[dialect.name][2].validate_python(plain(body))


def plain(value: Any) -> Any:
    """Through JSON, as it goes over the wire."""
    return relay.loads(relay.dumps(value))


@given(kind=st.sampled_from(["rate_limit", "overloaded", "auth", "server", "context_length"]))
def test_every_error_is_one_that_the_sdk_knows(kind: str) -> None:
    error = relay.RelayError("what happened", kind=kind)
    for dialect in DIALECTS:
        wire = plain(dialect.render_error(error, "req_1"))
        if dialect.name == "anthropic":
            pydantic.TypeAdapter(anthropic.ErrorResponse).validate_python(wire)
        assert wire["error"]["message"]
