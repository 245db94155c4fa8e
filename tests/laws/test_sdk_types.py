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
genai = pytest.importorskip("google.genai.types")
responses = pytest.importorskip("openai.types.responses")
pydantic = pytest.importorskip("pydantic")


class GenerateContentBody(pydantic.BaseModel):  # type: ignore[misc]  # the SDK has no one type
    model_config = pydantic.ConfigDict(extra="forbid")
    contents: list[genai.Content]
    systemInstruction: genai.Content | None = None  # noqa: N815  # as it is on the wire
    tools: list[genai.Tool] | None = None
    toolConfig: genai.ToolConfig | None = None  # noqa: N815
    generationConfig: genai.GenerationConfig | None = None  # noqa: N815


# Of an event, of a whole answer, of a request
TYPES = {
    "anthropic": (
        anthropic.RawMessageStreamEvent,
        anthropic.Message,
        anthropic.message_create_params.MessageCreateParamsBase,
    ),
    "gemini": (
        genai.GenerateContentResponse,
        genai.GenerateContentResponse,
        GenerateContentBody,
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


def judged(dialect: relay.Dialect, at: int, wire: Any) -> None:
    """By the SDK's own type.  Google's are enumerations and bytes: read from JSON, as it does."""
    judge = ADAPTERS[dialect.name][at]
    if dialect.name == "gemini":
        judge.validate_json(relay.dumps(wire), strict=True)
    else:
        judge.validate_python(wire, strict=True)


def stream_is_known(client: relay.Dialect, data: bytes) -> None:
    for event in relay.SSEDecoder().feed(data):
        if event.data == b"[DONE]" or event.event == "ping" or b'"keepalive"' in event.data:
            continue
        wire = relay.loads(event.data)
        if "error" not in wire:  # the SDKs raise these
            judged(client, 0, wire)


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
    judged(client, 1, relay.loads(out))


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
