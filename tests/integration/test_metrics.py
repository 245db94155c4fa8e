"""/metrics after real traffic: what happened is counted once, and only for those who may see it."""

import asyncio
from collections.abc import Callable, Mapping

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import FakeUpstream, chat_error, chat_stream, chat_whole
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from relay_process import RelayProcess, Start
from talk import CLIENT_KEY, ask, config, dial, one

import relay as program

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
Labels = Mapping[str, str]


async def scraped(
    http: ClientSession, server: RelayProcess, headers: Mapping[str, str] | None = None
) -> str:
    async with http.get(f"{server.url}/metrics", headers=headers) as response:
        assert response.status == 200
        return await response.text()


async def value(http: ClientSession, server: RelayProcess, name: str, **labels: str) -> float:
    """The sum of the samples with that name and these labels."""
    families = prometheus(await scraped(http, server))
    samples = [s for family in families for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


async def test_a_request_is_counted_with_all_that_is_known_of_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server, "anthropic")
    upstream.script(chat_stream(text="Hello."))
    await ask(http, server, "openai", stream=True)
    await server.logged(2)
    ok = {"provider": "first", "code": "OK", "status": "200", "operation": "chat"}
    for dialect in ("anthropic", "openai"):
        assert await value(http, server, "relay_requests_total", dialect=dialect, **ok) == 1
    called = {"gen_ai_provider_name": "first", "gen_ai_request_model": "m"}
    for name in ("server_request_duration", "server_time_to_first_token"):
        assert await value(http, server, f"gen_ai_{name}_seconds_count", **called) == 2
    lines = [await server.logged(number) for number in (1, 2)]
    for kind, tokens in (("input", "tokens_in"), ("output", "tokens_out")):
        used = await value(
            http, server, "gen_ai_client_token_usage_sum", gen_ai_token_type=kind, **called
        )
        assert used == sum(getattr(line, tokens) for line in lines) > 0
    cached = await value(http, server, "relay_cache_tokens_total", kind="read", model="m")
    assert cached == sum(line.cache_read or 0 for line in lines) > 0


async def test_each_attempt_is_counted_where_it_was_made(
    upstreams: Callable[..., object], relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)  # type: ignore[misc]
    first.script(chat_error(503, "busy"))
    server = await relay(config(first, second))
    assert (await ask(http, server)).status == 200
    name = "relay_attempt_duration_seconds_count"
    assert await value(http, server, name, provider="second", outcome="ok") == 1
    assert await value(http, server, name, provider="first") == 1
    assert await value(http, server, name, provider="first", outcome="ok") == 0
    assert await value(http, server, "relay_requests_total", provider="second") == 1
    assert await value(http, server, "relay_cooldowns") == 1


async def test_every_end_has_its_code(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]))
    await ask(http, server, model="unknown")
    hold = asyncio.Event()
    upstream.script(chat_stream(text="Hello.").but(hold={2: hold}))
    async with dial(server) as wire:
        await wire.post("openai")
        await wire.head()
        assert await value(http, server, "relay_inflight") == 1
    await server.logged(2)
    codes = {line.code for line in server.lines()}
    for code in codes:
        assert await value(http, server, "relay_requests_total", code=code) == 1
    assert "CD" in codes
    assert await value(http, server, "relay_inflight") == 0


async def test_names_that_clients_make_up_become_no_labels(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """A provider without `models` is asked for anything; only what it knows is kept."""
    unknown = chat_error(404, "no such model", code="model_not_found")
    upstream.script(*[unknown] * 5, chat_whole())
    server = await relay(one(upstream))
    for number in range(5):
        assert (await ask(http, server, model=f"made-up-{number}")).status == 502
    assert (await ask(http, server, model="real")).status == 200
    text = await scraped(http, server)
    assert "made-up" not in text
    name = "gen_ai_server_request_duration_seconds_count"
    assert await value(http, server, name, gen_ai_request_model="other") == 5
    assert await value(http, server, name, gen_ai_request_model="real") == 1


async def test_keys_are_counted_by_name_and_never_shown(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, keys={"alice": {"key": CLIENT_KEY}}))
    await ask(http, server, headers={"authorization": f"Bearer {CLIENT_KEY}"})
    await ask(http, server, headers={"authorization": "Bearer wrong"})
    assert await value(http, server, "relay_key_requests_total", key="alice") == 1
    assert await value(http, server, "relay_key_requests_total") == 2
    assert CLIENT_KEY not in await scraped(http, server)


async def test_reloads_are_counted(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await server.hup()
    assert await value(http, server, "relay_reload_total", result="taken") == 1
    assert await value(http, server, "relay_config_generation") == 2
    assert await value(http, server, "relay_config_reload_success") == 1
    server.write("providers: {}")
    await server.hup()
    assert await value(http, server, "relay_reload_total", result="refused") == 1
    assert await value(http, server, "relay_config_generation") == 2
    assert await value(http, server, "relay_config_reload_success") == 0


async def test_promtool_and_both_parsers_accept_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tool: Callable[[str], str]
) -> None:
    server = await relay(config(upstream))
    await ask(http, server)
    text = await scraped(http, server)
    assert {family.name for family in openmetrics(await scraped(http, server, OPENMETRICS))} == {
        family.base for family in program.Metrics().families()
    }
    command = [tool("promtool"), "check", "metrics"]
    pipe = asyncio.subprocess.PIPE
    checking = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert await checking.communicate(text.encode()) == (b"", b"")
    assert checking.returncode == 0


@pytest.mark.parametrize(
    ("headers", "kind"), [({}, "text/plain"), (OPENMETRICS, "application/openmetrics-text")]
)
async def test_the_form_is_that_which_was_asked_for(
    headers: Labels, kind: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    async with http.get(f"{server.url}/metrics", headers=headers) as response:
        assert response.content_type == kind
        assert (await response.text()).endswith("# EOF\n") is (headers == OPENMETRICS)


# ---- Who may see it

ADMIN = "the-admin-key-of-the-tests"
STRANGERS: dict[str, Labels] = {
    "another host": {"host": "relay.example"},
    "another site": {"origin": "https://other.example"},
    "through a proxy": {"x-forwarded-for": "10.1.2.3"},
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("admin_key", ["", ADMIN])
async def test_it_is_for_this_machine_and_for_the_admin(
    admin_key: str, headers: Labels, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream, admin_key=admin_key))
    async with aiohttp.ClientSession() as http:
        url = f"{server.url}/metrics"
        async with http.get(url) as response:
            assert response.status == 200
        async with http.get(url, headers=headers) as response:
            assert response.status in (401, 403)
            assert "relay_requests" not in await response.text()
        allowed = {**headers, "authorization": f"Bearer {ADMIN}"}
        async with http.get(url, headers=allowed) as response:
            assert (response.status == 200) is bool(admin_key)


# ---- /readyz


async def test_readyz_says_what_is_degraded_and_names_nobody(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))

    async def degraded() -> list[str]:
        async with http.get(f"{server.url}/readyz") as response:
            assert response.status == 200
            said: list[str] = (await response.json())["degraded"]
            return said

    assert await degraded() == []
    upstream.script(chat_error(401, "wrong key"))
    await ask(http, server)
    assert await degraded() == ["cooling down: 1 auth"]
    server.write("providers: {}")
    await server.hup()
    assert "the last reload failed" in await degraded()
