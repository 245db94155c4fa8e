"""A page of another origin, in a real Chromium, with the openai SDK as browsers load it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from browser import Page, browser
from fake_upstream import FakeUpstream, chat_error, chat_stream, chat_whole
from relay_process import RelayProcess, Start
from talk import CLIENT_KEY, JSON, one

HTML = "<!doctype html><title>app</title><p>An app of another origin.</p>"
# What a page does with the SDK: `open` gives a client whose answers' headers are kept.
SCRIPT = """
(async () => {
  const { OpenAI } = await import("/sdk/index.mjs");
  window.open_ = (url, apiKey) => new OpenAI({ baseURL: url + "/v1", apiKey, maxRetries: 0,
    dangerouslyAllowBrowser: true });
  window.asked = { model: "m", messages: [{ role: "user", content: "Hi." }] };
  return true;
})()
"""


@asynccontextmanager
async def site(sdk: Path) -> AsyncIterator[str]:
    """The origin of a page with the SDK's files."""

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=HTML, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_static("/sdk", sdk)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def serving(upstream: FakeUpstream, relay: Start, *origins: str) -> RelayProcess:
    keys = {"keys": {"alice": {"key": CLIENT_KEY, "raw": True}}}
    cors = {"cors": {"origins": list(origins)}} if origins else {}
    return await relay(one(upstream, models=["m"]) | keys | cors)


async def outcome(page: Page, url: str, what: str, key: str = CLIENT_KEY) -> JSON:
    """What a script with a client `ai` gives, or the error as [name, status, message]."""
    return await page.run(
        f"(async () => {{ const ai = open_({url!r}, {key!r}); try {{ {what} }} catch (error) "
        "{ return [error.constructor.name, error.status ?? null, error.message]; } })()"
    )


async def test_a_page_of_an_allowed_origin_uses_the_sdk(
    upstream: FakeUpstream, relay: Start, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    sdk = installed("sdks") / "node_modules/openai"
    async with site(sdk) as origin, browser(tmp_path / "chromium") as page:
        server = await serving(upstream, relay, origin)
        await page.open(origin)
        assert await page.run(SCRIPT)

        upstream.script(chat_whole(text="whole"))
        whole = await outcome(
            page,
            server.url,
            "const { data, response } = await ai.chat.completions.create(asked).withResponse();"
            "return [data.choices[0].message.content, response.headers.get('x-relay-provider'),"
            " !!response.headers.get('x-relay-request-id')];",
        )
        assert whole == ["whole", "first", True]

        upstream.script(chat_stream(text=["one ", "two"]))
        streamed = "let text = ''; for await (const chunk of await ai.chat.completions.create("
        streamed += "{ ...asked, stream: true })) text += chunk.choices[0]?.delta.content ?? '';"
        assert await outcome(page, server.url, streamed + "return text;") == "one two"

        names = "return (await ai.models.list()).data.map((model) => model.id);"
        assert "m" in await outcome(page, server.url, names)

        # errors can be read, too
        wrong = await outcome(page, server.url, "return await ai.models.list();", key="wrong")
        assert wrong[:2] == ["AuthenticationError", 401]
        upstream.script(chat_error(429, "slow", headers={"retry-after": "7"}))
        limit = "await ai.chat.completions.create(asked);"
        assert (await outcome(page, server.url, limit))[:2] == ["RateLimitError", 429]

        # nothing but models is open
        how = f"{{ headers: {{ 'x-api-key': {CLIENT_KEY!r} }} }}"
        for path in ("/admin/status", "/metrics", "/p/first/v1/models", "/"):
            reading = f"fetch({server.url + path!r}, {how}).then(() => 'read', () => 'refused')"
            assert await page.run(reading) == "refused", path


@pytest.mark.parametrize("allowed", [[], ["https://app.example"]], ids=["none", "another"])
async def test_other_pages_are_refused(
    allowed: list[str],
    upstream: FakeUpstream,
    relay: Start,
    installed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    sdk = installed("sdks") / "node_modules/openai"
    async with site(sdk) as origin, browser(tmp_path / "chromium") as page:
        server = await serving(upstream, relay, *allowed)
        await page.open(origin)
        assert await page.run(SCRIPT)
        ask = "return await ai.chat.completions.create(asked);"
        assert (await outcome(page, server.url, ask))[0] == "APIConnectionError"
    assert upstream.requests == []


async def test_the_headers_of_a_preflight_and_of_an_answer(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await serving(upstream, relay, "https://app.example")
    asking = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    for path in ("chat/completions", "messages", "models", "models/m", "embeddings"):
        async with http.options(f"{server.url}/v1/{path}", headers=asking) as response:
            head = response.headers
            assert response.status == 204
            assert head["Access-Control-Allow-Origin"] == "https://app.example"
            assert head["Access-Control-Allow-Headers"] == asking["Access-Control-Request-Headers"]
            assert head["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in head
    for path in ("admin/status", "healthz", "p/first/v1/models"):
        async with http.options(f"{server.url}/{path}", headers=asking) as response:
            assert not [name for name in response.headers if name.startswith("Access-Control")]
    url, key = f"{server.url}/v1/models", {"x-api-key": CLIENT_KEY}
    async with http.get(url, headers={**key, "Origin": "https://evil.example"}) as response:
        assert (response.status, response.headers["Vary"]) == (200, "Origin")
        assert "Access-Control-Allow-Origin" not in response.headers
    async with http.get(url, headers={**key, "Origin": "https://app.example"}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
