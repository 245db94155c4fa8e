"""Google's own SDK, before providers that speak Anthropic, OpenAI and Gemini.

Every answer relay gives is also held against the vendor's types, chunk by chunk.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import fake_upstream as fake
import httpx2
import pytest
from fake_upstream import SIGNATURE, Answer, FakeUpstream, Seen
from google import genai
from google.genai import errors, types
from relay_process import Start
from talk import CLIENT_KEY, one
from vendor import Recorder

Says = Callable[..., None]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather", description="Weather, now.", parameters_json_schema=SCHEMA
        )
    ]
)
CALLS = (
    ("call_1", "get_weather", '{"city": "Oslo"}'),
    ("call_2", "get_weather", '{"city": "Rome"}'),
)
SPEAKERS: dict[str, tuple[Callable[..., Answer], Callable[..., Answer]]] = {
    "anthropic": (fake.anthropic_whole, fake.anthropic_stream),
    "gemini": (fake.gemini_whole, fake.gemini_stream),
    "openai": (fake.chat_whole, fake.chat_stream),
}


@pytest.fixture(params=SPEAKERS)
def behind(request: pytest.FixtureRequest) -> str:
    dialect: str = request.param
    return dialect


@pytest.fixture
def says(upstream: FakeUpstream, behind: str) -> Says:
    whole, stream = SPEAKERS[behind]

    def script(**said: Any) -> None:
        def answer(seen: Seen) -> Answer:
            streams = "stream" in seen.path or seen.json.get("stream")
            return (stream if streams else whole)(**said)

        upstream.script(answer)

    return script


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder("gemini")
    yield recorder
    recorder.judge()


@pytest.fixture
async def client(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> AsyncIterator[Any]:
    server = await relay(one(upstream, behind, models=["gemini-3-pro"]))
    http = httpx2.AsyncClient(transport=recorder)
    options = types.HttpOptions(base_url=server.url, httpx_async_client=http)
    async with genai.Client(api_key=CLIENT_KEY, http_options=options).aio as sdk:
        yield sdk
    await http.aclose()


async def say(
    client: Any, streamed: bool, contents: Any = "Hi.", **config: Any
) -> tuple[list[Any], Any]:
    """The parts that were said, and the last chunk (or the whole answer)."""
    asked: Any = {"model": "gemini-3-pro", "contents": contents, "config": config or None}
    if not streamed:
        answer = await client.models.generate_content(**asked)
        return list(answer.candidates[0].content.parts), answer
    chunks = [chunk async for chunk in await client.models.generate_content_stream(**asked)]
    return [part for chunk in chunks for part in chunk.candidates[0].content.parts], chunks[-1]


def text_of(parts: list[Any]) -> str:
    return "".join(part.text for part in parts if part.text and not part.thought)


async def test_text_and_usage(client: Any, says: Says, streamed: bool) -> None:
    says(text="Hello there, you.")
    parts, last = await say(client, streamed, system_instruction="Be brief.")
    assert text_of(parts) == "Hello there, you."
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    usage = last.usage_metadata
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (1045, 1024)
    assert (usage.candidates_token_count, usage.total_token_count) == (57, 1102)


async def test_text_arrives_in_the_pieces_it_was_said_in(client: Any, says: Says) -> None:
    said = ["Hel", "lo\u2028 ", "wörld", " 🌍."]
    says(text=said)
    parts, _ = await say(client, True)
    assert [part.text for part in parts if part.text] == said


@pytest.mark.parametrize("shown", [True, False])
async def test_parallel_calls_and_their_results(
    client: Any, says: Says, streamed: bool, upstream: FakeUpstream, behind: str, shown: bool
) -> None:
    """What the SDK was given it sends back: thoughts, shown or not, calls, signatures."""
    says(text="Both.", reasoning="Need weather.", calls=CALLS)
    asked = {"thinking_config": types.ThinkingConfig(include_thoughts=True)} if shown else {}
    parts, last = await say(client, streamed, "Weather?", tools=[TOOL], **asked)
    calls = [part.function_call for part in parts if part.function_call]
    assert [(c.id, c.name, c.args["city"]) for c in calls] == [
        ("call_1", "get_weather", "Oslo"),
        ("call_2", "get_weather", "Rome"),
    ]
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert text_of(parts) == "Both."
    thoughts = [part.text for part in parts if part.thought and part.text]
    assert bool(thoughts) is (shown or behind == "gemini")  # which passes through

    says(text="Sunny.")
    answers = [
        types.Part(
            function_response=types.FunctionResponse(
                id=call.id, name=call.name, response={"output": f"{call.args['city']}: 22 C"}
            )
        )
        for call in calls
    ]
    kept = [part for part in parts if part.text != ""]
    contents = [
        types.Content(role="user", parts=[types.Part(text="Weather?")]),
        types.Content(role="model", parts=kept),
        types.Content(role="user", parts=answers),
    ]
    parts, _ = await say(client, streamed, contents, tools=[TOOL])
    assert text_of(parts) == "Sunny."
    RETURNED[behind](upstream.requests[-1].json)


def returned_to_anthropic(body: Any) -> None:
    _, said, answered = body["messages"]
    thought = {"type": "thinking", "thinking": "Need weather.", "signature": SIGNATURE}
    assert said["content"][0] == thought
    assert [block["type"] for block in said["content"][1:]] == ["text", "tool_use", "tool_use"]
    results = [block["content"][0]["text"] for block in answered["content"]]
    assert results == ["Oslo: 22 C", "Rome: 22 C"]


def returned_to_chat(body: Any) -> None:
    _, said, first, second = body["messages"]
    assert said["reasoning_content"] == "Need weather."
    assert [call["id"] for call in said["tool_calls"]] == ["call_1", "call_2"]
    assert [first["content"], second["content"]] == ["Oslo: 22 C", "Rome: 22 C"]


def returned_to_gemini(body: Any) -> None:
    """Passed through: Google's signature stands where it stood, and nowhere else."""
    parts = [part for part in body["contents"][1]["parts"] if "functionCall" in part]
    assert [part.get("thoughtSignature") for part in parts] == [SIGNATURE, None]


RETURNED = {
    "anthropic": returned_to_anthropic,
    "gemini": returned_to_gemini,
    "openai": returned_to_chat,
}


async def test_a_picture_and_controls(
    client: Any, behind: str, upstream: FakeUpstream, streamed: bool
) -> None:
    picture = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n", mime_type="image/png")
    contents = [types.Content(role="user", parts=[types.Part(text="What is it?"), picture])]
    config: Any = {"temperature": 0.5, "max_output_tokens": 300, "stop_sequences": ["x"]}
    parts, _ = await say(client, streamed, contents, **config)
    assert text_of(parts) == "Hello from upstream."
    sent = upstream.requests[-1].json
    if behind == "gemini":
        assert sent["generationConfig"]["maxOutputTokens"] == 300
        return
    assert sent["temperature"] == 0.5
    assert sent["max_tokens"] == 300
    assert "iVBORw0KGgo" in json.dumps(sent["messages"][0])


async def test_calls_are_made_for_the_caller(client: Any) -> None:
    """The SDK runs functions itself and sends what they returned."""
    ran = []

    def get_weather(city: str) -> str:
        """Weather, now."""
        ran.append(city)
        return "22 C"

    answer = await client.models.generate_content(
        model="gemini-3-pro", contents="Weather?", config={"tools": [get_weather]}
    )
    assert ran == ["Oslo"]
    assert answer.text == "Hello from upstream."


async def test_a_chat_goes_on(client: Any, streamed: bool) -> None:
    chat = client.chats.create(model="gemini-3-pro")
    for _ in range(2):
        if streamed:
            said = [c.text async for c in await chat.send_message_stream("Hi.") if c.text]
            assert "".join(said) == "Hello from upstream."
        else:
            assert (await chat.send_message("Hi.")).text == "Hello from upstream."


async def test_tokens_are_counted(client: Any, behind: str) -> None:
    counted = await client.models.count_tokens(model="gemini-3-pro", contents="hello there")
    assert counted.total_tokens >= 2


async def test_models_are_listed(client: Any) -> None:
    names = [model.name async for model in await client.models.list()]
    assert "models/gemini-3-pro" in names
    assert (await client.models.get(model="gemini-3-pro")).name == "models/gemini-3-pro"


async def test_an_error_is_the_sdks_own(
    client: Any, behind: str, upstream: FakeUpstream, streamed: bool
) -> None:
    refuse = {
        "anthropic": fake.anthropic_error,
        "gemini": fake.gemini_error,
        "openai": fake.chat_error,
    }[behind]
    upstream.script(refuse(429, "slow down", headers={"retry-after": "17"}))
    with pytest.raises(errors.ClientError) as caught:
        await say(client, streamed)
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert "slow down" in str(caught.value.message)


async def test_a_stream_that_breaks_is_no_end(
    client: Any, says: Says, upstream: FakeUpstream, behind: str
) -> None:
    _, stream = SPEAKERS[behind]
    whole = stream(text="Hello there, you.")
    cut = len(b"".join(whole.chunks[: len(whole.chunks) // 2]))
    upstream.script(whole.but(cut_after=cut))
    with pytest.raises(Exception, match=r"(?i)incomplete|closed|peer|read|unavailable"):
        await say(client, True)
