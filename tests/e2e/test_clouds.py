"""Clouds that sell the makers' models: what their SDKs' own clients send, relay sends equally.

The same call is made twice: by the vendor's client for the cloud at a fake cloud, and by its plain
client at relay, whose provider is the cloud's preset at the same fake.
"""

import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import fake_upstream as fake
import httpx2
import openai
import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream, Seen
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import types
from relay_process import Start
from talk import CLIENT_KEY, ask

KEY = "cloud-token"
PLACE = "/v1/projects/PROJECT/locations/global"
HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "anthropic-workspace-id", "content-type")


@dataclass
class Cloud:
    preset: str
    client: Callable[[str], Any]  # the vendor's own, for a cloud at this address
    base: str = ""  # what follows the host in `endpoint`
    model: str = "claude-sonnet-4-5@20250929"
    options: dict[str, Any] = field(default_factory=dict)  # of the provider


CLAUDE = {
    "vertex": Cloud(
        "vertex-anthropic",
        lambda url: anthropic.AsyncAnthropicVertex(
            region="global", project_id="PROJECT", access_token=KEY, base_url=f"{url}/v1"
        ),
        PLACE,
    ),
    "bedrock": Cloud(
        "bedrock",
        lambda url: anthropic.AsyncAnthropicBedrockMantle(
            api_key=KEY, aws_region="us-east-1", base_url=f"{url}/anthropic"
        ),
        model="anthropic.claude-sonnet-4-5-v1:0",
        options={"api_format": ["anthropic", "responses", "openai"]},
    ),
    "aws": Cloud(
        "anthropic-aws",
        lambda url: anthropic.AsyncAnthropicAWS(api_key=KEY, workspace_id="W", base_url=url),
        options={"headers": {"anthropic-workspace-id": "W"}},
    ),
    "google": Cloud(
        "anthropic-google",
        lambda url: anthropic.AsyncAnthropicGoogleCloud(
            token_provider=lambda: KEY, base_url=f"{url}{PLACE}/workspaces/W/invoke"
        ),
        f"{PLACE}/workspaces/W/invoke",
    ),
    "foundry": Cloud(
        "azure",
        lambda url: anthropic.AsyncAnthropicFoundry(api_key=KEY, base_url=f"{url}/anthropic/"),
        options={"api_format": "anthropic"},
    ),
}
MESSAGES = [{"role": "user", "content": "Say yes."}]
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
CALL = {"max_tokens": 100, "messages": MESSAGES, "tools": [TOOL], "system": "Be brief."}


def config(cloud: Cloud, upstream: FakeUpstream) -> Any:
    entry = {"preset": cloud.preset, "endpoint": upstream.url + cloud.base, "api_key": KEY}
    return {"providers": {"cloud": entry | {"models": {"m": cloud.model}} | cloud.options}}


def answer(seen: Seen) -> Answer:
    """As the cloud does: the address or the body says whether to stream."""
    if "count" in seen.path:
        return fake.whole({"input_tokens": 12})
    if "generateContent" in seen.path or "streamGenerateContent" in seen.path:
        streams = "stream" in seen.path
        return (fake.gemini_stream if streams else fake.gemini_whole)(text="yes")
    streams = seen.json.get("stream", False)
    if "redict" in seen.path:  # Vertex
        assert seen.path.endswith(":streamRawPredict" if streams else ":rawPredict")
    if "/openai/" in seen.path or "openapi" in seen.path:
        return fake.answer_well(seen)
    return (fake.anthropic_stream if streams else fake.anthropic_whole)(text="yes")


def likeness(seen: Seen) -> Any:
    """What has to be equal."""
    headers = {name: seen.headers[name] for name in HEADERS if name in seen.headers}
    return urllib.parse.unquote(seen.path), headers, seen.json


async def send(client: Any, model: str, stream: bool) -> str:
    """A message, read whole."""
    if not stream:
        message = await client.messages.create(model=model, **CALL)
        return str(message.content[0].text)
    async with client.messages.stream(model=model, **CALL) as events:
        return str(await events.get_final_text())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CLAUDE)
async def test_claude_is_asked_as_the_cloud_s_own_client_asks(
    name: str, stream: bool, upstream: FakeUpstream, relay: Start
) -> None:
    cloud = CLAUDE[name]
    upstream.script(answer)
    server = await relay(config(cloud, upstream))
    async with cloud.client(upstream.url) as own:
        assert await send(own, cloud.model, stream) == "yes"
    async with anthropic.AsyncAnthropic(api_key=CLIENT_KEY, base_url=server.url) as plain:
        assert await send(plain, "m", stream) == "yes"
    theirs, ours = map(likeness, upstream.requests)
    if name == "foundry":  # `api-key` and `x-api-key`; the latter is what it reads
        assert "api-key" in upstream.requests[0].headers
    assert ours == theirs


async def test_vertex_gets_no_beta_in_its_query(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Claude Code asks for /v1/messages?beta=true, which AnthropicVertex leaves out."""
    upstream.script(answer)
    server = await relay(config(CLAUDE["vertex"], upstream))
    await ask(http, server, "anthropic", model="m", path="/v1/messages?beta=true&x=1")
    assert upstream.requests[0].query == "x=1"


@pytest.mark.parametrize("name", CLAUDE)
async def test_tokens_of_claude_are_counted_as_by_the_cloud_s_own_client(
    name: str, upstream: FakeUpstream, relay: Start
) -> None:
    cloud = CLAUDE[name]
    upstream.script(answer)
    server = await relay(config(cloud, upstream))
    async with cloud.client(upstream.url) as own:
        await own.messages.count_tokens(model=cloud.model, messages=MESSAGES)
    async with anthropic.AsyncAnthropic(api_key=CLIENT_KEY, base_url=server.url) as plain:
        counted = await plain.messages.count_tokens(model="m", messages=MESSAGES)
    assert counted.input_tokens == 12
    theirs, ours = map(likeness, upstream.requests)
    assert ours == theirs


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CLAUDE)
async def test_a_chat_client_reaches_claude_there(
    name: str, stream: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    cloud = CLAUDE[name]
    upstream.script(answer)
    server = await relay(config(cloud, upstream) if name != "bedrock" else _claude_only(upstream))
    reply = await ask(http, server, "openai", stream=stream, model="m")
    assert (reply.said.text, reply.headers["x-relay-body"]) == ("yes", "translated")
    async with cloud.client(upstream.url) as own:
        await send(own, cloud.model, stream)
    ours, theirs = upstream.requests
    assert likeness(ours)[:2] == likeness(theirs)[:2]
    assert ours.json.get("model") == theirs.json.get("model")
    assert ours.json.get("stream", False) == stream
    version = "vertex-2023-10-16" if name == "vertex" else None
    assert ours.json.get("anthropic_version") == version


def _claude_only(upstream: FakeUpstream) -> Any:
    entry = config(CLAUDE["bedrock"], upstream)
    entry["providers"]["cloud"]["api_format"] = "anthropic"
    return entry


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai_s_client_for_bedrock_sends_the_same(
    api: str, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(CLAUDE["bedrock"], upstream))

    async def send(client: Any, model: str) -> None:
        if api == "chat":
            await client.chat.completions.create(model=model, messages=MESSAGES)
        else:
            await client.responses.create(model=model, input="Say yes.")

    own = openai.AsyncBedrockOpenAI(api_key=KEY, base_url=f"{upstream.url}/openai/v1")
    async with own:
        await send(own, CLAUDE["bedrock"].model)
    async with openai.AsyncOpenAI(api_key=CLIENT_KEY, base_url=f"{server.url}/v1") as plain:
        await send(plain, "m")
    theirs, ours = map(likeness, upstream.requests)
    assert ours == theirs


@pytest.mark.parametrize("base", [PLACE, f"{PLACE}/publishers/google"])
@pytest.mark.parametrize("call", ["whole", "stream", "count"])
async def test_gemini_on_vertex_is_asked_as_by_google_s_client(
    call: str, base: str, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(answer if call != "count" else fake.whole({"totalTokens": 12}))
    cloud = Cloud("vertex", lambda url: None, base, "gemini-3-pro")
    server = await relay(config(cloud, upstream))

    async def send(client: Any, model: str) -> None:
        contents: Any = "Say yes."
        if call == "whole":
            await client.models.generate_content(model=model, contents=contents)
        elif call == "stream":
            async for _ in await client.models.generate_content_stream(
                model=model, contents=contents
            ):
                pass
        else:
            counted = await client.models.count_tokens(model=model, contents=contents)
            assert counted.total_tokens == 12

    token = AnonymousCredentials()  # type: ignore[no-untyped-call]
    token.token = KEY
    transport = httpx2.AsyncClient()

    def options(url: str, **more: Any) -> types.HttpOptions:
        return types.HttpOptions(base_url=url, httpx_async_client=transport, **more)

    own = genai.Client(
        vertexai=True,
        project="PROJECT",
        location="global",
        credentials=token,
        http_options=options(upstream.url, api_version="v1"),
    )
    await send(own.aio, "gemini-3-pro")
    plain = genai.Client(api_key=CLIENT_KEY, http_options=options(server.url))
    await send(plain.aio, "m")
    await transport.aclose()
    theirs, ours = upstream.requests
    assert (theirs.path, theirs.query) == (ours.path, ours.query)
    assert theirs.json["contents"] == ours.json["contents"]
    assert ours.headers["authorization"] == f"Bearer {KEY}"


async def test_vertex_s_openai_endpoint_is_below_the_project(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    cloud = Cloud("vertex", lambda url: None, PLACE, "google/gemini-3-pro")
    entry = config(cloud, upstream)
    entry["providers"]["cloud"]["api_format"] = "openai"
    server = await relay(entry)
    await ask(http, server, "openai", model="m")
    (seen,) = upstream.requests
    assert seen.path == f"{PLACE}/endpoints/openapi/chat/completions"
    assert json.loads(seen.body)["model"] == "google/gemini-3-pro"
