"""OpenAI's own SDK in its Responses half, before a provider of every dialect.

Every answer relay gives is also held against the vendor's types, event by event.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fake_upstream import ENCRYPTED, SIGNATURE, FakeUpstream
from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    DefaultAsyncHttpxClient,
    RateLimitError,
)
from relay_process import Start
from talk import CLIENT_KEY, DIALECTS, one
from vendor import PNG, Recorder

Says = Callable[..., None]

DATA_URL = f"data:image/png;base64,{PNG}"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
PATCHER = {
    "type": "custom",
    "name": "apply_patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'},
}
SPACE = {"type": "namespace", "name": "agents", "description": "Agents.", "tools": [TOOL]}
CALLS = (
    ("call_1", "get_weather", '{"city": "Oslo"}'),
    ("call_2", "get_weather", '{"city": "Rome"}'),
)
PATCH = '*** Begin Patch\n+"é" 🚀\n*** End Patch\n'


@pytest.fixture(params=["anthropic", "openai", "responses"])
def behind(request: pytest.FixtureRequest) -> str:
    dialect: str = request.param
    return dialect


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder("responses")
    yield recorder
    recorder.judge()


@pytest.fixture
async def client(
    relay: Start, upstream: FakeUpstream, behind: str, recorder: Recorder
) -> AsyncIterator[AsyncOpenAI]:
    server = await relay(one(upstream, behind))
    http = DefaultAsyncHttpxClient(transport=recorder)
    given: Any = {"api_key": CLIENT_KEY, "max_retries": 0}
    async with AsyncOpenAI(base_url=f"{server.url}/v1", http_client=http, **given) as sdk:
        yield sdk


async def say(client: AsyncOpenAI, streamed: bool = False, **body: Any) -> Any:
    """A `Response`, put together by the SDK where it is streamed."""
    asked: Any = {"model": "m", "input": "Hi.", "store": False} | body
    if not streamed:
        return await client.responses.create(**asked)
    async with client.responses.stream(**asked) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_response()


# ---- Answers -------------------------------------------------------------------------------


async def test_text_and_usage(client: AsyncOpenAI, says: Says, streamed: bool) -> None:
    says(text="Hello there, you.")
    response = await say(client, streamed)
    assert response.output_text == "Hello there, you."
    assert response.status == "completed"
    usage = response.usage
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (1045, 1024)
    assert (usage.output_tokens, usage.total_tokens) == (57, 1102)


async def test_an_answer_repeats_what_was_asked_for(
    client: AsyncOpenAI, streamed: bool, behind: str
) -> None:
    if behind == "responses":
        return  # it passes through: the provider repeats it
    asked: Any = {"metadata": {"run": "7"}, "max_output_tokens": 300, "text": {"verbosity": "low"}}
    response = await say(client, streamed, **asked)
    assert (response.metadata, response.max_output_tokens) == ({"run": "7"}, 300)
    assert response.text.verbosity == "low"


async def test_text_arrives_in_the_pieces_it_was_said_in(client: AsyncOpenAI, says: Says) -> None:
    says(text=["Hel", "lo\u2028 ", "wörld", " 🌍."])
    stream = await client.responses.create(model="m", input="Hi.", stream=True)
    pieces = [e.delta async for e in stream if e.type == "response.output_text.delta"]
    assert pieces == ["Hel", "lo\u2028 ", "wörld", " 🌍."]


async def test_parallel_calls_and_their_results(
    client: AsyncOpenAI, says: Says, streamed: bool, upstream: FakeUpstream
) -> None:
    says(reasoning="Need weather.", text="Both.", calls=CALLS)
    response = await say(client, streamed, tools=[TOOL])
    assert [item.type for item in response.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(c.call_id, json.loads(c.arguments)) for c in calls] == [
        ("call_1", {"city": "Oslo"}),
        ("call_2", {"city": "Rome"}),
    ]
    says(text="Sunny.")
    history = [item.to_dict() for item in response.output]
    for item in history:
        item.pop("parsed_arguments", None)
    answers = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "22 C"}
        for call in reversed(calls)
    ]
    again = await say(client, streamed, input=[*history, *answers], tools=[TOOL])
    assert again.output_text == "Sunny."
    sent = json.dumps(upstream.requests[-1].json)
    assert sent.count("22 C") == 2
    assert "rly1." not in sent


async def test_sealed_reasoning_goes_back_to_its_maker(
    client: AsyncOpenAI, says: Says, streamed: bool, behind: str, upstream: FakeUpstream
) -> None:
    says(reasoning="Need weather.", calls=CALLS[:1])
    response = await say(client, streamed, tools=[TOOL])
    history = [item.to_dict() for item in response.output]
    for item in history:
        item.pop("parsed_arguments", None)
    answer = {"type": "function_call_output", "call_id": "call_1", "output": "22 C"}
    says(text="Sunny.")
    await say(client, streamed, input=[*history, answer], tools=[TOOL])
    sent = json.dumps(upstream.requests[-1].json)
    seal = {"anthropic": SIGNATURE, "openai": '"reasoning_content"', "responses": ENCRYPTED}
    assert seal[behind] in sent
    assert "Need weather." in sent


@pytest.mark.parametrize("behind", ["anthropic", "openai"])
async def test_calls_come_back_as_the_tools_were_offered(
    client: AsyncOpenAI, says: Says, streamed: bool
) -> None:
    wrapped = ("call_1", "apply_patch", json.dumps({"input": PATCH}))
    spaced = ("call_2", "agents__get_weather", '{"city": "Oslo"}')
    says(calls=[wrapped, spaced])
    response = await say(client, streamed, tools=[PATCHER, SPACE])
    patch, call = response.output
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", PATCH)
    assert (call.type, call.namespace, call.name) == ("function_call", "agents", "get_weather")


async def test_an_answer_that_was_cut_off(
    client: AsyncOpenAI, says: Says, behind: str, streamed: bool
) -> None:
    says(text="Cut", finish=DIALECTS[behind].cut)
    if streamed:  # the helper waits for response.completed and takes no other end
        events = await client.responses.create(model="m", input="Hi.", stream=True)
        response = [event async for event in events][-1].response
    else:
        response = await say(client)
    assert (response.status, response.output_text) == ("incomplete", "Cut")
    assert response.incomplete_details.reason == "max_output_tokens"


# ---- Requests ------------------------------------------------------------------------------


async def test_a_picture(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    image = {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}
    question = {"type": "input_text", "text": "What is on it?"}
    await say(client, input=[{"role": "user", "content": [question, image]}])
    assert PNG in json.dumps(upstream.requests[0].json)


async def test_instructions_effort_and_room(
    client: AsyncOpenAI, behind: str, upstream: FakeUpstream
) -> None:
    effort: Any = {"effort": "low"}
    await say(client, instructions="Be brief.", max_output_tokens=9000, reasoning=effort)
    sent = upstream.requests[0].json
    assert "Be brief." in json.dumps(sent)
    assert sent[DIALECTS[behind].room] == 9000
    assert {"thinking", "reasoning_effort", "reasoning"} & sent.keys()


async def test_a_schema_for_the_answer(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    schema = SCHEMA | {"additionalProperties": False}
    format = {"type": "json_schema", "name": "place", "schema": schema, "strict": True}
    await say(client, text={"format": format})
    assert json.dumps(schema) in json.dumps(upstream.requests[0].json)


async def test_tokens_are_counted(client: AsyncOpenAI) -> None:
    counted = await client.responses.input_tokens.count(model="m", input="Hi there.")
    assert counted.input_tokens > 0


@pytest.mark.parametrize("behind", ["anthropic", "openai"])
async def test_a_conversation_is_compacted_and_goes_on(
    client: AsyncOpenAI, says: Says, upstream: FakeUpstream
) -> None:
    says(text="They asked for the weather.")
    compacted = await client.responses.compact(model="m", input="Weather?")
    (item,) = compacted.output
    assert item.type == "compaction"
    says(text="Sunny.")
    await say(client, input=[item.to_dict(), {"role": "user", "content": "Go on."}])
    assert "They asked for the weather." in json.dumps(upstream.requests[-1].json)


@pytest.mark.parametrize("behind", ["responses"])
async def test_what_the_provider_keeps_passes_to_it(
    client: AsyncOpenAI, upstream: FakeUpstream
) -> None:
    await say(client, previous_response_id="resp_0")
    assert upstream.requests[0].json["previous_response_id"] == "resp_0"


@pytest.mark.parametrize("behind", ["anthropic", "openai"], indirect=True)
async def test_a_conversation_goes_on_from_its_last_answer(
    client: AsyncOpenAI, upstream: FakeUpstream, says: Says, streamed: bool
) -> None:
    says(text="Both.", calls=CALLS)
    first = await say(client, streamed, tools=[TOOL], store=True)
    results = [
        {"type": "function_call_output", "call_id": id, "output": "22 C"} for id, *_ in CALLS
    ]
    said: Any = {"input": results, "previous_response_id": first.id, "store": True}
    await say(client, streamed, tools=[TOOL], **said)
    again = upstream.requests[-1].json["messages"]
    items = [{"role": "user", "content": "Hi."}, *first.to_dict()["output"], *results]
    await say(client, streamed, tools=[TOOL], input=items)
    assert again == upstream.requests[-1].json["messages"]


# ---- Errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", ["anthropic", "openai"])
async def test_what_another_provider_keeps_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match="previous_response_id"):
        await say(client, previous_response_id="resp_0")


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequestError), (429, RateLimitError)])
async def test_errors_are_the_sdk_own(
    client: AsyncOpenAI,
    behind: str,
    streamed: bool,
    upstream: FakeUpstream,
    status: int,
    kind: type[APIStatusError],
) -> None:
    upstream.script(DIALECTS[behind].error(status, "The provider says why."))
    with pytest.raises(kind, match="The provider says why"):
        await say(client, streamed)


async def test_a_break_in_mid_stream_is_a_failed_response(
    client: AsyncOpenAI, behind: str, upstream: FakeUpstream
) -> None:
    speaks = DIALECTS[behind]
    chunks = speaks.stream(text="One two three.").chunks
    at = next(i for i, chunk in enumerate(chunks) if b"two" in chunk) + 1
    spoiled = speaks.stream(text="x").but(body=(*chunks[:at], speaks.error_event("boom")))
    upstream.script(spoiled)
    asked: Any = {"model": "m", "input": "Hi.", "stream": True}
    kinds: list[str] = []
    with contextlib.suppress(APIConnectionError):  # it ends without its last chunk
        async for event in await client.responses.create(**asked):
            kinds += [event.type]
    assert kinds[-1] == "response.failed"
    assert "response.completed" not in kinds
