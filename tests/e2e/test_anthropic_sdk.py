"""Anthropic's own SDK, before a provider that speaks Anthropic and one that speaks OpenAI.

Every answer relay gives is also held against the vendor's types, event by event.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    DefaultAsyncHttpxClient,
    GatewayTimeoutError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    beta_async_tool,
)
from fake_upstream import SIGNATURE, FakeUpstream, whole
from relay_process import RelayProcess, Start
from talk import CLIENT_KEY, DIALECTS, one
from vendor import PNG, Recorder

Says = Callable[..., None]

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
MARK = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather, now.", "input_schema": SCHEMA}
CALLS = (
    ("toolu_01", "get_weather", '{"city": "Oslo"}'),
    ("toolu_02", "get_weather", '{"city": "Rome"}'),
)


def user(*content: Any) -> Any:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def text(value: str, **extra: Any) -> Any:
    return {"type": "text", "text": value, **extra}


def result(ident: str, *content: Any, **extra: Any) -> Any:
    value = content[0] if isinstance(content[0], str) else list(content)
    return {"type": "tool_result", "tool_use_id": ident, "content": value, **extra}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder("anthropic")
    yield recorder
    recorder.judge()


def connected(
    server: RelayProcess, recorder: Recorder, **options: Any
) -> AbstractAsyncContextManager[AsyncAnthropic]:
    given: Any = {"api_key": CLIENT_KEY, "max_retries": 0} | options
    http = DefaultAsyncHttpxClient(transport=recorder)
    return AsyncAnthropic(base_url=server.url, http_client=http, **given)


@pytest.fixture
async def client(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> AsyncIterator[AsyncAnthropic]:
    server = await relay(one(upstream, behind))
    async with connected(server, recorder) as sdk:
        yield sdk


async def say(client: AsyncAnthropic, streamed: bool = False, **body: Any) -> Any:
    """A `Message`."""
    asked: Any = {"model": "m", "max_tokens": 1000, "messages": [user("Hi.")]} | body
    if not streamed:
        return await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        return await stream.get_final_message()


def has_key(value: Any, *names: str) -> bool:
    """Is there an object, however deep, with one of these keys?"""
    if isinstance(value, dict):
        return any(name in value for name in names) or has_key(list(value.values()), *names)
    return isinstance(value, list) and any(has_key(item, *names) for item in value)


# ---- Answers -------------------------------------------------------------------------------


async def test_text_and_usage(client: AsyncAnthropic, says: Says, streamed: bool) -> None:
    says(text="Hello there, you.")
    message = await say(client, streamed)
    (block,) = message.content
    assert (block.type, block.text) == ("text", "Hello there, you.")
    assert (message.role, message.stop_reason) == ("assistant", "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (21, 1024)
    assert usage.output_tokens == 57


async def test_a_text_ends_at_a_stop_whoever_writes_it(
    client: AsyncAnthropic, says: Says, streamed: bool, upstream: FakeUpstream, behind: str
) -> None:
    """A sixth is more than Gemini takes; chat takes four, Responses none."""
    stops, pieces = (
        ["a#", "b#", "c#", "d#", "e#", "END"],
        ["One E", "N two E", "ND three", " four."],
    )
    says(text=pieces if streamed else "".join(pieces))
    message = await say(client, streamed, stop_sequences=stops)
    if behind == "anthropic":  # which would have stopped
        assert upstream.requests[-1].json["stop_sequences"] == stops
        return
    assert message.content[0].text == "One EN two "
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert message.usage.output_tokens == 57  # all of it was written


async def test_text_arrives_in_the_pieces_it_was_said_in(
    client: AsyncAnthropic, says: Says
) -> None:
    says(text=["Hel", "lo\u2028 ", "wörld", " 🌍."])
    asked: Any = {"model": "m", "max_tokens": 9, "messages": [user("Hi.")]}
    async with client.messages.stream(**asked) as stream:
        pieces = [piece async for piece in stream.text_stream]
    assert pieces == ["Hel", "lo\u2028 ", "wörld", " 🌍."]


async def test_parallel_calls(client: AsyncAnthropic, says: Says, streamed: bool) -> None:
    says(text="Both.", calls=CALLS)
    message = await say(client, streamed, tools=[TOOL])
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    calls = [(block.id, block.name, block.input) for block in message.content[1:]]
    assert calls == [(ident, name, json.loads(given)) for ident, name, given in CALLS]
    assert message.stop_reason == "tool_use"


async def test_a_call_without_arguments(client: AsyncAnthropic, says: Says, streamed: bool) -> None:
    says(calls=[("toolu_01", "now", "{}")])
    message = await say(
        client, streamed, tools=[{"name": "now", "input_schema": {"type": "object"}}]
    )
    assert [(block.name, block.input) for block in message.content] == [("now", {})]


FINISHES = {
    "max_tokens": {"anthropic": "max_tokens", "openai": "length"},
    "refusal": {"anthropic": "refusal", "openai": "content_filter"},
}


@pytest.mark.parametrize("stop", FINISHES)
async def test_stop_reasons(
    client: AsyncAnthropic, says: Says, streamed: bool, behind: str, stop: str
) -> None:
    says(text="Cut", finish=FINISHES[stop][behind])
    message = await say(client, streamed)
    assert message.stop_reason == stop


async def test_thinking_comes_signed_and_goes_back(
    client: AsyncAnthropic, says: Says, streamed: bool, behind: str, upstream: FakeUpstream
) -> None:
    says(reasoning="Need weather.", calls=CALLS[:1])
    first = await say(client, streamed, tools=[TOOL], thinking={"type": "adaptive"})
    thought, call = first.content
    assert (thought.type, thought.thinking) == ("thinking", "Need weather.")
    assert thought.signature

    says(text="Sunny.")
    history = [user("Weather?"), first.to_param(), user([result(call.id, "22 C")])]
    await say(client, streamed, tools=[TOOL], messages=history)
    sent = upstream.requests[-1].json["messages"]
    if behind == "anthropic":
        assert thought.signature == SIGNATURE
        block = {"type": "thinking", "thinking": "Need weather.", "signature": SIGNATURE}
        assert sent[1]["content"][0] == block
    else:
        assert sent[1]["reasoning_content"] == "Need weather."
        assert thought.signature not in json.dumps(sent)


async def test_the_tool_runner_goes_on_without_a_thread(
    client: AsyncAnthropic, upstream: FakeUpstream, behind: str
) -> None:
    """It lets Anthropic keep the conversation, and sends only what is new, where that works."""
    asked: list[str] = []

    @beta_async_tool
    async def get_weather(city: str) -> str:
        """Weather, now."""
        asked.append(city)
        return "22 C"

    whole = DIALECTS[behind].whole
    upstream.script(whole(calls=CALLS[:1]), whole(text="Sunny."))
    runner = client.beta.messages.tool_runner(
        model="m", max_tokens=100, messages=[user("Weather?")], tools=[get_weather]
    )
    message = await runner.until_done()
    assert asked == ["Oslo"]
    assert [block.text for block in message.content if block.type == "text"] == ["Sunny."]
    assert len(upstream.requests) == 2
    assert not any("thread" in request.json for request in upstream.requests)
    assert "Weather?" in json.dumps(upstream.requests[-1].json["messages"])


# ---- Requests ------------------------------------------------------------------------------

ROUND = [
    user(text("What is on it?"), IMAGE),
    {
        "role": "assistant",
        "content": [
            text("Let me see."),
            {"type": "tool_use", "id": "toolu_01", "name": "look", "input": {"at": "ü"}},
            {"type": "tool_use", "id": "toolu_02", "name": "look", "input": {}},
        ],
    },
    user(
        result("toolu_01", text("A picture."), IMAGE),
        result("toolu_02", "It broke.", is_error=True, cache_control=MARK),
        text("Go on."),
    ),
]
DATA_URL = f"data:image/png;base64,{PNG}"


async def test_tool_results_with_images(
    client: AsyncAnthropic, behind: str, upstream: FakeUpstream
) -> None:
    await say(client, messages=ROUND, tools=[TOOL])
    sent = upstream.requests[0].json["messages"]
    if behind == "anthropic":
        assert sent == ROUND
        return
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    picture = {"type": "image_url", "image_url": {"url": DATA_URL}}
    assert sent[0]["content"] == [text("What is on it?"), picture]
    assert sent[1]["content"] == "Let me see."
    called = [(call["id"], call["function"]["name"]) for call in sent[1]["tool_calls"]]
    assert called == [("toolu_01", "look"), ("toolu_02", "look")]
    given = [json.loads(call["function"]["arguments"]) for call in sent[1]["tool_calls"]]
    assert given == [{"at": "ü"}, {}]
    assert [message["tool_call_id"] for message in sent[2:4]] == ["toolu_01", "toolu_02"]
    assert "A picture." in sent[2]["content"]
    assert "It broke." in sent[3]["content"]
    assert picture in sent[4]["content"]
    assert sent[4]["content"][-1] == text("Go on.")


async def test_a_body_of_many_kinds(
    client: AsyncAnthropic, behind: str, streamed: bool, upstream: FakeUpstream
) -> None:
    await say(
        client,
        streamed,
        system=[text("Be brief.", cache_control=MARK), text("Be kind.")],
        tools=[TOOL | {"cache_control": MARK}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        output_config={"effort": "low"},
        metadata={"user_id": "somebody"},
    )
    seen = upstream.requests[0]
    if behind == "anthropic":
        assert seen.path == "/v1/messages"
        assert seen.headers["anthropic-version"]
        return
    sent = seen.json
    assert seen.path == "/v1/chat/completions"
    assert not any(name.lower().startswith("anthropic") for name in seen.headers)
    assert not has_key(sent, "cache_control", "output_config", "stop_sequences", "system")
    assert sent["messages"][0] == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    function = {"name": "get_weather", "description": "Weather, now.", "parameters": SCHEMA}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("required", False)
    assert sent["stop"] == ["END"]
    assert 1000 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
    assert sent.get("stream", False) is streamed


PLACES = {
    "anything": ({}, ["user", "assistant", "user"]),
    "deepseek": ({"preset": "deepseek", "models": ["m"]}, ["user", "system", "assistant", "user"]),
}


@pytest.mark.parametrize("provider", PLACES)
async def test_a_later_system_message_keeps_its_place(
    relay: Start, upstream: FakeUpstream, recorder: Recorder, provider: str
) -> None:
    """In the user's words where a system message may only come first, but never elsewhere."""
    preset, roles = PLACES[provider]
    server = await relay(one(upstream, "openai", **preset))
    history = [
        user("Hi."),
        {"role": "system", "content": "It is night."},
        {"role": "assistant", "content": "Hello."},
        user("Go on."),
    ]
    async with connected(server, recorder) as client:
        await say(client, messages=history)
    sent = upstream.requests[0].json["messages"]
    assert [message["role"] for message in sent] == roles
    said = json.dumps(sent)
    places = [said.index(words) for words in ("Hi.", "It is night.", "Hello.", "Go on.")]
    assert places == sorted(places)


@pytest.mark.parametrize("behind", ["anthropic"])
async def test_equal_dialects_pass_bytes(
    relay: Start, upstream: FakeUpstream, recorder: Recorder, says: Says, streamed: bool
) -> None:
    says(text="Hello.", reasoning="Well.", calls=CALLS)
    server = await relay(one(upstream, "anthropic", models={"m": "real-model"}))
    async with connected(server, recorder) as client:
        await say(client, streamed, messages=ROUND, extra_body={"of_tomorrow": {"x": 1.50}})
    heard, seen = recorder.last, upstream.requests[0]
    assert seen.body == heard.sent.replace(b'"model":"m"', b'"model":"real-model"')
    assert CLIENT_KEY not in str(seen.headers)
    said = DIALECTS["anthropic"]
    answer = (said.stream if streamed else said.whole)(
        text="Hello.", reasoning="Well.", calls=CALLS
    )
    assert bytes(heard.body) == answer.wire
    assert heard.headers["x-relay-body"] == "edited"


# ---- Errors --------------------------------------------------------------------------------

ERRORS = {
    400: (BadRequestError, 400, "invalid_request_error"),
    401: (InternalServerError, 502, "api_error"),
    402: (InternalServerError, 502, "api_error"),
    413: (APIStatusError, 413, None),
    429: (RateLimitError, 429, "rate_limit_error"),
    500: (InternalServerError, 502, "api_error"),
    503: (OverloadedError, 529, "overloaded_error"),
    504: (InternalServerError, None, None),
    529: (OverloadedError, 529, "overloaded_error"),
}


# Before the first event a stream fails as a whole answer does: two kinds tell.
ASKED = [*((status, False) for status in ERRORS), (400, True), (529, True)]


@pytest.mark.parametrize(("status", "streamed"), ASKED)
async def test_errors_are_the_sdk_own(
    client: AsyncAnthropic, behind: str, streamed: bool, upstream: FakeUpstream, status: int
) -> None:
    refused = "invalid_request_error" if status == 413 else None
    upstream.script(DIALECTS[behind].error(status, "The provider says why.", refused))
    kind, expected, name = ERRORS[status]
    with pytest.raises(kind, match="The provider says why") as raised:
        await say(client, streamed)
    error = raised.value
    assert expected in (error.status_code, None)
    assert name in (error.type, None)
    if status in (401, 402):
        assert error.response.headers["x-should-retry"] == "false"
    if status == 429:
        assert int(error.response.headers["retry-after"]) >= 1


async def test_a_refused_provider_key_is_not_tried_again(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> None:
    upstream.script(DIALECTS[behind].error(401, "bad key"))
    server = await relay(one(upstream, behind))
    async with connected(server, recorder, max_retries=2) as client:
        with pytest.raises(InternalServerError):
            await say(client)
    assert len(recorder.heard) == 1


async def test_a_silent_stream_is_a_timeout(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> None:
    upstream.script(DIALECTS[behind].stream(text="Late.").but(delay=5))
    server = await relay(one(upstream, behind, timeouts={"first_event": 0.3}))
    async with connected(server, recorder) as client:
        with pytest.raises(GatewayTimeoutError) as raised:
            await say(client, True)
    assert raised.value.type == "timeout_error"


async def test_an_error_event_after_text_is_raised(
    client: AsyncAnthropic, behind: str, upstream: FakeUpstream
) -> None:
    speaks = DIALECTS[behind]
    said = speaks.stream(text="One two three four.")
    broken = (*said.chunks[:4], speaks.error_event("Out of breath."))
    upstream.script(said.but(body=broken))
    with pytest.raises(APIStatusError, match="Out of breath"):
        await say(client, True)


async def test_a_cut_stream_is_never_an_answer(
    client: AsyncAnthropic, behind: str, upstream: FakeUpstream
) -> None:
    said = DIALECTS[behind].stream(text="One two three four.")
    upstream.script(said.but(cut_after=len(b"".join(said.chunks[:4]))))
    with pytest.raises(APIStatusError):
        await say(client, True)


async def test_an_unknown_model(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder, streamed: bool
) -> None:
    server = await relay(one(upstream, behind, models=["weather-large"]))
    async with connected(server, recorder) as client:
        with pytest.raises(NotFoundError, match="weather-large") as raised:
            await say(client, streamed, model="weather-lage")
    assert raised.value.type == "not_found_error"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert not upstream.requests


async def test_a_wrong_key(relay: Start, upstream: FakeUpstream, recorder: Recorder) -> None:
    server = await relay(one(upstream) | {"keys": {"alice": {"key": CLIENT_KEY}}})
    async with connected(server, recorder) as client:
        await say(client)
    async with connected(server, recorder, api_key="wrong", max_retries=2) as client:
        with pytest.raises(AuthenticationError) as raised:
            await say(client)
    assert raised.value.type == "authentication_error"
    assert len(recorder.heard) == 2
    assert len(upstream.requests) == 1


# ---- Counting and listing ------------------------------------------------------------------


async def test_tokens_are_counted_by_a_provider_that_can(
    relay: Start, upstream: FakeUpstream, recorder: Recorder
) -> None:
    upstream.script(whole({"input_tokens": 4242}), path="/count_tokens")
    server = await relay(one(upstream, "anthropic", models={"m": "real-model"}))
    async with connected(server, recorder) as client:
        counted = await client.messages.count_tokens(model="m", messages=[user("Hi.")])
    assert counted.input_tokens == 4242
    seen = upstream.requests[0]
    assert (seen.path, seen.json["model"]) == ("/v1/messages/count_tokens", "real-model")


async def test_tokens_are_estimated_otherwise(
    relay: Start, upstream: FakeUpstream, recorder: Recorder
) -> None:
    server = await relay(one(upstream, "openai"))

    async def count(client: AsyncAnthropic, *content: Any, **body: Any) -> int:
        asked: Any = {"model": "m", "messages": [user(*content)]} | body
        return int((await client.messages.count_tokens(**asked)).input_tokens)

    async with connected(server, recorder) as client:
        short = await count(client, "Hi.")
        long = await count(client, "Hi. " * 1000)
        tools = await count(client, "Hi.", tools=[TOOL])
        image = await count(client, text("Hi."), IMAGE)
    assert 0 < short < 20
    assert 900 < long < 3000
    assert short < tools
    assert short < image
    assert not upstream.requests


async def test_models_are_listed(relay: Start, upstream: FakeUpstream, recorder: Recorder) -> None:
    config = one(upstream, models={"big": "real-big", "small": "real-small", "claude-*": "big"})
    server = await relay(config | {"routing_rules": {"alias": "first/big"}})
    async with connected(server, recorder) as client:
        listed = [model.id async for model in client.models.list(limit=1000)]
        assert {"big", "small", "alias"} <= set(listed)
        assert not any("*" in name for name in listed)
        assert (await client.models.retrieve("small")).id == "small"
        with pytest.raises(NotFoundError):
            await client.models.retrieve("nothing-of-the-kind")
    assert not upstream.requests
