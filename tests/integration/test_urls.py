"""Addresses in every shape, of providers and of relay itself."""

from collections.abc import Sequence

import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream, anthropic_whole, chat_whole
from relay_process import Start
from talk import DIALECTS, JSON, UPSTREAM_KEY, ask, config, one, provider

OPENAI = "/v1/chat/completions"
ANTHROPIC = "/v1/messages"

BASES = [  # dialect, what is configured after the host, what is asked
    ("openai", "", OPENAI),
    ("openai", "/", OPENAI),
    ("openai", "/v1", OPENAI),
    ("openai", "/v1/", OPENAI),
    ("openai", "/v1//", OPENAI),
    ("openai", "/v1/chat/completions", OPENAI),
    ("openai", "/v1/chat/completions/", OPENAI),
    ("openai", "/api/paas/v4", "/api/paas/v4/chat/completions"),
    ("openai", "/api/paas/v4/", "/api/paas/v4/chat/completions"),
    ("openai", "/api/paas/v4/chat/completions", "/api/paas/v4/chat/completions"),
    ("openai", "/compatible-mode/v1", "/compatible-mode/v1/chat/completions"),
    ("openai", "/v1beta/openai", "/v1beta/openai/chat/completions"),
    ("anthropic", "", ANTHROPIC),
    ("anthropic", "/", ANTHROPIC),
    ("anthropic", "/v1", ANTHROPIC),
    ("anthropic", "/v1/", ANTHROPIC),
    ("anthropic", "/v1/messages", ANTHROPIC),
    ("anthropic", "/v1/messages/", ANTHROPIC),
    ("anthropic", "/api/anthropic", "/api/anthropic/v1/messages"),
    ("anthropic", "/api/anthropic/", "/api/anthropic/v1/messages"),
    ("anthropic", "/api/anthropic/v1", "/api/anthropic/v1/messages"),
    ("anthropic", "/api/anthropic/v1/messages", "/api/anthropic/v1/messages"),
]


def numbered(upstream: FakeUpstream, bases: Sequence[tuple[str, str]]) -> JSON:
    """Providers p0, p1, ... of these dialects and bases."""
    bases_of = {f"p{number}": base for number, base in enumerate(bases)}
    return {
        "providers": {
            name: provider(upstream.url + base, dialect)
            for name, (dialect, base) in bases_of.items()
        }
    }


async def test_a_base_of_any_shape_is_joined_right(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(numbered(upstream, [(dialect, base) for dialect, base, _ in BASES]))
    for number, (dialect, base, asked) in enumerate(BASES):
        assert (await ask(http, server, dialect, model=f"p{number}/m")).said.text == TEXT
        assert upstream.requests[-1].path == asked, base


async def test_counting_is_joined_right_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    bases = [("anthropic", base) for base in ("", "/", "/v1", "/v1/", "/v1/messages")]
    server = await relay(numbered(upstream, bases))
    for number, base in enumerate(bases):
        count = "/v1/messages/count_tokens"
        assert (
            await ask(http, server, "anthropic", path=count, model=f"p{number}/m")
        ).status == 200
        assert upstream.requests[-1].path == count, base


async def test_a_full_path_tells_the_dialect(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    paths = (OPENAI, ANTHROPIC, f"{OPENAI}/", f"/x{ANTHROPIC}")
    providers = {
        f"p{number}": {"endpoint": upstream.url + path, "api_key": UPSTREAM_KEY}
        for number, path in enumerate(paths)
    }
    server = await relay({"providers": providers})
    for number, path in enumerate(paths):
        assert (await ask(http, server, model=f"p{number}/m")).said.text == TEXT
        assert upstream.requests[-1].path == path.rstrip("/")


async def test_endpoints_may_be_given_per_dialect(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    endpoint = {"openai": f"{upstream.url}/chat/v1", "anthropic": f"{upstream.url}/claude"}
    first = {"endpoint": endpoint, "api_key": UPSTREAM_KEY}
    server = await relay({"providers": {"first": first}})
    for client in endpoint:
        assert (await ask(http, server, client)).headers["x-relay-body"] == "verbatim"
    paths = {seen.path for seen in upstream.requests}
    assert paths == {"/chat/v1/chat/completions", "/claude/v1/messages"}


AZURE = "/openai/deployments/{model}/chat/completions?api-version=2024-10-21"
PATHS: list[tuple[str, JSON, str, str]] = [  # endpoint, paths, path asked, query asked
    ("", {"openai": "/v2/chat"}, "/v2/chat", ""),
    ("/ignored/v1", {"openai": "/v2/chat"}, "/v2/chat", ""),
    ("", {"openai": AZURE}, "/openai/deployments/gpt-5/chat/completions", "api-version=2024-10-21"),
    ("/v1", {"openai": "/v1/x/{model}"}, "/v1/x/gpt-5", ""),
]


@pytest.mark.parametrize(("base", "paths", "path", "query"), PATHS)
async def test_a_path_of_its_own_replaces_everything_after_the_host(
    base: str,
    paths: JSON,
    path: str,
    query: str,
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    upstream.script(chat_whole(text="served"))
    own = one(upstream, models={"m": "gpt-5"}, paths=paths, endpoint=upstream.url + base)
    server = await relay(own)
    assert (await ask(http, server)).said.text == "served"
    assert (upstream.requests[0].path, upstream.requests[0].query) == (path, query)


async def test_a_name_in_a_path_is_quoted(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="served"))
    server = await relay(one(upstream, paths={"openai": "/x/{model}/y"}))
    assert (await ask(http, server, model="a?b#c d")).said.text == "served"
    assert upstream.requests[0].path == "/x/a%3Fb%23c%20d/y"
    assert upstream.requests[0].query == ""


CLIENT_PATHS = [
    *(("anthropic", path) for path in ("/v1/messages", "/v1/v1/messages", "/messages")),
    *(("openai", path) for path in (OPENAI, f"/v1{OPENAI}", "/chat/completions")),
    ("anthropic", "/v1/messages/"),
    ("openai", f"{OPENAI}/"),
]


async def test_paths_that_a_wrong_base_makes_are_served(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_format=["openai", "anthropic"]))
    for client, path in CLIENT_PATHS:
        assert (await ask(http, server, client, path=path)).said.text == TEXT, path
        assert upstream.requests[-1].path == DIALECTS[client].path


async def test_lists_are_served_there_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]))
    for path in ("/v1/v1/models", "/v1/models", "/v1/models/"):
        async with http.get(server.url + path) as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["m"], path


async def test_redirects_of_a_provider_are_not_followed(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """They would carry the key to a host that is not in the config."""
    elsewhere = {"location": f"http://localhost:{upstream.port}/v1/messages"}
    upstream.script(anthropic_whole().but(status=307, headers=elsewhere, body=b""))
    server = await relay(config(upstream, dialect="anthropic"))
    assert (await ask(http, server, "anthropic")).status == 502
    assert len(upstream.requests) == 1
