"""OpenAI's own SDK, before a provider that speaks OpenAI and one that speaks Anthropic.

Every answer relay gives is also held against the vendor's types, chunk by chunk.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from fake_upstream import SIGNATURE, FakeUpstream
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    DefaultAsyncHttpxClient,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from relay_process import RelayProcess, Start
from talk import CLIENT_KEY, DIALECTS, one
from vendor import PNG, Recorder

Says = Callable[..., None]

DATA_URL = f"data:image/png;base64,{PNG}"
IMAGE = {"type": "image_url", "image_url": {"url": DATA_URL}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Weather, now.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CALLS = (
    ("call_1", "get_weather", '{"city": "Oslo"}'),
    ("call_2", "get_weather", '{"city": "Rome"}'),
)


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


def call(ident: str, name: str, arguments: str) -> Any:
    function = {"name": name, "arguments": arguments}
    return {"id": ident, "type": "function", "function": function}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder("openai")
    yield recorder
    recorder.judge()


def connected(
    server: RelayProcess, recorder: Recorder, **options: Any
) -> AbstractAsyncContextManager[AsyncOpenAI]:
    given: Any = {"api_key": CLIENT_KEY, "max_retries": 0} | options
    http = DefaultAsyncHttpxClient(transport=recorder)
    return AsyncOpenAI(base_url=f"{server.url}/v1", http_client=http, **given)


@pytest.fixture
async def client(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> AsyncIterator[AsyncOpenAI]:
    server = await relay(one(upstream, behind))
    async with connected(server, recorder) as sdk:
        yield sdk


async def say(client: AsyncOpenAI, streamed: bool = False, **body: Any) -> Any:
    """A `ChatCompletion`."""
    asked: Any = {"model": "m", "messages": [user("Hi.")]} | body
    if not streamed:
        return await client.chat.completions.create(**asked)
    asked["stream_options"] = {"include_usage": True}
    async with client.chat.completions.stream(**asked) as stream:
        return await stream.get_final_completion()


# ---- Answers -------------------------------------------------------------------------------


async def test_text_and_usage(client: AsyncOpenAI, says: Says, streamed: bool) -> None:
    says(text="Hello there, you.")
    completion = await say(client, streamed)
    choice = completion.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello there, you.")
    assert choice.finish_reason == "stop"
    usage = completion.usage
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (1045, 1024)
    assert (usage.completion_tokens, usage.total_tokens) == (57, 1102)


async def test_text_arrives_in_the_pieces_it_was_said_in(client: AsyncOpenAI, says: Says) -> None:
    says(text=["Hel", "lo\u2028 ", "wörld", " 🌍."])
    stream = await client.chat.completions.create(model="m", messages=[user("Hi.")], stream=True)
    pieces = [choice.delta.content async for chunk in stream for choice in chunk.choices]
    assert [piece for piece in pieces if piece] == ["Hel", "lo\u2028 ", "wörld", " 🌍."]


async def test_usage_comes_only_when_asked_for(client: AsyncOpenAI) -> None:
    asked: Any = {"model": "m", "messages": [user("Hi.")], "stream": True}
    chunks = [chunk async for chunk in await client.chat.completions.create(**asked)]
    assert not any(chunk.usage for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    asked |= {"stream_options": {"include_usage": True}}
    chunks = [chunk async for chunk in await client.chat.completions.create(**asked)]
    assert [chunk.choices for chunk in chunks if chunk.usage] == [[]]


async def test_parallel_calls(client: AsyncOpenAI, says: Says, streamed: bool) -> None:
    says(text="Both.", calls=CALLS)
    choice = (await say(client, streamed, tools=[TOOL])).choices[0]
    assert choice.message.content == "Both."
    assert choice.finish_reason == "tool_calls"
    calls = [one_call.to_dict() for one_call in choice.message.tool_calls or []]
    named = [(made["id"], made["function"]["name"]) for made in calls]
    assert named == [("call_1", "get_weather"), ("call_2", "get_weather")]
    given = [json.loads(made["function"]["arguments"]) for made in calls]
    assert given == [{"city": "Oslo"}, {"city": "Rome"}]


async def test_parallel_calls_in_a_stream_have_each_their_index(
    client: AsyncOpenAI, says: Says
) -> None:
    says(calls=CALLS)
    asked: Any = {"model": "m", "messages": [user("Hi.")], "tools": [TOOL]}
    stream = await client.chat.completions.create(**asked, stream=True)
    deltas = [choice.delta async for chunk in stream for choice in chunk.choices]
    parts = [part for delta in deltas for part in delta.tool_calls or []]
    assert [(part.index, part.id) for part in parts if part.id] == [(0, "call_1"), (1, "call_2")]
    for index, (_, _, arguments) in enumerate(CALLS):
        pieces = [part.function for part in parts if part.index == index]
        joined = "".join(piece.arguments or "" for piece in pieces if piece)
        assert json.loads(joined) == json.loads(arguments)


FINISHES = {
    "length": {"anthropic": "max_tokens", "openai": "length"},
    "content_filter": {"anthropic": "refusal", "openai": "content_filter"},
}


@pytest.mark.parametrize("finish", FINISHES)
async def test_finish_reasons(client: AsyncOpenAI, says: Says, behind: str, finish: str) -> None:
    says(text="Cut", finish=FINISHES[finish][behind])
    assert (await say(client)).choices[0].finish_reason == finish
    asked: Any = {"model": "m", "messages": [user("Hi.")], "stream": True}
    stream = await client.chat.completions.create(**asked)
    choices = [choice async for chunk in stream for choice in chunk.choices]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [finish]


async def test_reasoning_comes_beside_the_text_and_goes_back(
    client: AsyncOpenAI, says: Says, streamed: bool, behind: str, upstream: FakeUpstream
) -> None:
    says(reasoning="Need weather.", calls=CALLS[:1])
    message = (await say(client, streamed, tools=[TOOL])).choices[0].message.to_dict()
    assert message["reasoning_content"] == "Need weather."

    says(text="Sunny.")
    kept = {name: value for name, value in message.items() if name != "parsed" and value}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "22 C"}
    await say(client, streamed, tools=[TOOL], messages=[user("Weather?"), kept, answer])
    sent = upstream.requests[-1].json["messages"]
    if behind == "openai":
        assert sent[1]["reasoning_content"] == "Need weather."
        return
    blocks = sent[1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
    thought = {"type": "thinking", "thinking": "Need weather.", "signature": SIGNATURE}
    assert blocks[0] == thought


# ---- Requests ------------------------------------------------------------------------------

ROUND = [
    {"role": "system", "content": "Be brief."},
    user([{"type": "text", "text": "What is on it?"}, IMAGE]),
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [call("call_1", "look", '{"at": "ü"}'), call("call_2", "look", "{}")],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "A picture."},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "Nothing."}]},
    user("Go on."),
]


async def test_a_round_of_tools_and_images(
    client: AsyncOpenAI, behind: str, upstream: FakeUpstream
) -> None:
    await say(client, messages=ROUND, tools=[TOOL])
    sent = upstream.requests[0].json
    if behind == "openai":
        assert sent["messages"] == ROUND
        return
    assert "Be brief." in json.dumps(sent["system"])
    asked, called, answered = sent["messages"]
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert asked["role"] == "user"
    assert asked["content"][1] == {"type": "image", "source": source}
    assert called["role"] == "assistant"
    assert [block["type"] for block in called["content"]] == ["text", "tool_use", "tool_use"]
    assert [block["input"] for block in called["content"][1:]] == [{"at": "ü"}, {}]
    results = answered["content"][:2]
    assert [block["type"] for block in results] == ["tool_result", "tool_result"]
    assert [block["tool_use_id"] for block in results] == ["call_1", "call_2"]
    assert "A picture." in json.dumps(results[0])
    assert "Nothing." in json.dumps(results[1])
    assert "Go on." in json.dumps(answered["content"][2:])
    assert sent["max_tokens"] > 0


async def test_a_body_of_many_kinds(
    client: AsyncOpenAI, behind: str, streamed: bool, upstream: FakeUpstream
) -> None:
    await say(
        client,
        streamed,
        messages=[{"role": "developer", "content": "Be kind."}, user("Hi.")],
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=77,
        stop="END",
        temperature=0.5,
        user="somebody",
    )
    seen = upstream.requests[0]
    sent = seen.json
    if behind == "openai":
        assert seen.path == "/v1/chat/completions"
        assert sent["max_completion_tokens"] == 77
        return
    assert seen.path == "/v1/messages"
    assert seen.headers["anthropic-version"]
    assert "Be kind." in json.dumps(sent["system"])
    assert [message["role"] for message in sent["messages"]] == ["user"]
    tool = {"name": "get_weather", "description": "Weather, now.", "input_schema": SCHEMA}
    assert sent["tools"] == [tool]
    assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert (sent["max_tokens"], sent["stop_sequences"]) == (77, ["END"])
    assert sent.get("stream", False) is streamed
    theirs = {"parallel_tool_calls", "max_completion_tokens", "stop", "user"}
    assert not theirs & sent.keys()


async def test_a_reasoning_effort(client: AsyncOpenAI, behind: str, upstream: FakeUpstream) -> None:
    await say(client, reasoning_effort="low", max_completion_tokens=20000)
    sent = upstream.requests[0].json
    if behind == "openai":
        assert sent["reasoning_effort"] == "low"
        return
    assert "reasoning_effort" not in sent
    assert sent["thinking"]["type"] in ("adaptive", "enabled")


async def test_structured_output(client: AsyncOpenAI, behind: str, upstream: FakeUpstream) -> None:
    schema = SCHEMA | {"additionalProperties": False}
    named = {"name": "place", "schema": schema, "strict": True}
    await say(client, response_format={"type": "json_schema", "json_schema": named})
    sent = upstream.requests[0].json
    if behind == "openai":
        assert sent["response_format"]["json_schema"] == named
    else:
        assert sent["output_config"]["format"] == {"type": "json_schema", "schema": schema}
        assert "response_format" not in sent


@pytest.mark.parametrize("behind", ["openai"])
async def test_equal_dialects_pass_bytes(
    relay: Start, upstream: FakeUpstream, recorder: Recorder, says: Says, streamed: bool
) -> None:
    said: Any = {"text": "Hello.", "reasoning": "Well.", "calls": CALLS}
    says(**said)
    server = await relay(one(upstream, "openai", models={"m": "real-model"}))
    async with connected(server, recorder) as client:
        await say(client, streamed, messages=ROUND, extra_body={"of_tomorrow": {"x": 1.50}})
    heard, seen = recorder.last, upstream.requests[0]
    assert seen.body == heard.sent.replace(b'"model":"m"', b'"model":"real-model"')
    assert CLIENT_KEY not in str(seen.headers)
    speaks = DIALECTS["openai"]
    answer = (speaks.stream if streamed else speaks.whole)(**said)
    assert bytes(heard.body) == answer.wire
    assert heard.headers["x-relay-body"] == "edited"


# ---- Errors --------------------------------------------------------------------------------

ERRORS: dict[int, tuple[type[APIStatusError], set[int]]] = {
    400: (BadRequestError, {400}),
    401: (InternalServerError, {502}),
    402: (InternalServerError, {502}),
    413: (APIStatusError, {413}),
    429: (RateLimitError, {429}),
    500: (InternalServerError, {502}),
    503: (InternalServerError, {503}),
    504: (InternalServerError, {502, 504}),
    529: (InternalServerError, {503}),
}


# Before the first event a stream fails as a whole answer does: two kinds tell.
ASKED = [*((status, False) for status in ERRORS), (400, True), (529, True)]


@pytest.mark.parametrize(("status", "streamed"), ASKED)
async def test_errors_are_the_sdk_own(
    client: AsyncOpenAI, behind: str, streamed: bool, upstream: FakeUpstream, status: int
) -> None:
    upstream.script(DIALECTS[behind].error(status, "The provider says why."))
    kind, statuses = ERRORS[status]
    with pytest.raises(kind, match="The provider says why") as raised:
        await say(client, streamed)
    error = raised.value
    assert error.status_code in statuses
    if status in (401, 402):
        assert error.response.headers["x-should-retry"] == "false"
    if status == 429:
        assert int(error.response.headers["retry-after"]) >= 1


async def test_an_error_event_after_text_is_raised(
    client: AsyncOpenAI, behind: str, upstream: FakeUpstream
) -> None:
    speaks = DIALECTS[behind]
    said = speaks.stream(text="One two three four.")
    broken = (*said.chunks[:4], speaks.error_event("Out of breath."))
    upstream.script(said.but(body=broken))
    with pytest.raises(APIError, match="Out of breath"):
        await say(client, True)


async def test_a_cut_stream_is_never_an_answer(
    client: AsyncOpenAI, behind: str, upstream: FakeUpstream
) -> None:
    said = DIALECTS[behind].stream(text="One two three four.")
    upstream.script(said.but(cut_after=len(b"".join(said.chunks[:4]))))
    with pytest.raises(APIError):
        await say(client, True)


async def test_an_unknown_model(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> None:
    server = await relay(one(upstream, behind, models=["weather-large"]))
    async with connected(server, recorder) as client:
        with pytest.raises(NotFoundError, match="weather-large") as raised:
            await say(client, model="weather-lage")
    assert raised.value.code == "model_not_found"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert not upstream.requests


async def test_a_wrong_key(relay: Start, upstream: FakeUpstream, recorder: Recorder) -> None:
    server = await relay(one(upstream) | {"keys": {"alice": {"key": CLIENT_KEY}}})
    async with connected(server, recorder) as client:
        await say(client)
    async with connected(server, recorder, api_key="wrong", max_retries=2) as client:
        with pytest.raises(AuthenticationError) as raised:
            await say(client)
    assert raised.value.code == "invalid_api_key"
    assert len(recorder.heard) == 2
    assert len(upstream.requests) == 1


# ---- Listing -------------------------------------------------------------------------------


async def test_models_are_listed(relay: Start, upstream: FakeUpstream, recorder: Recorder) -> None:
    config = one(upstream, models={"big": "real-big", "small": "real-small", "claude-*": "big"})
    server = await relay(config | {"routing_rules": {"alias": "first/big"}})
    async with connected(server, recorder) as client:
        listed = [model.id async for model in client.models.list()]
        assert {"big", "small", "alias"} <= set(listed)
        assert not any("*" in name for name in listed)
        assert (await client.models.retrieve("small")).id == "small"
        with pytest.raises(NotFoundError):
            await client.models.retrieve("nothing-of-the-kind")
    assert not upstream.requests
