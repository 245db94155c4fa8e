"""Who may ask, by what key, for which models; and that no key is ever shown."""

import hashlib
import json
from datetime import date
from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, Answer, FakeUpstream, chat_error
from relay_process import SECRET, Start, run, text_of
from talk import (
    CLIENT_KEY,
    DIALECTS,
    JSON,
    PAIRS,
    UPSTREAM_KEY,
    Reply,
    ask,
    config,
    dial,
    each,
    one,
    table,
)

HASH = f"sha256:{hashlib.sha256(CLIENT_KEY.encode()).hexdigest()}"
CARRIERS = {
    "bearer": {"authorization": f"Bearer {CLIENT_KEY}"},
    "bearer in lower case": {"authorization": f"bearer {CLIENT_KEY}"},
    "x-api-key": {"x-api-key": CLIENT_KEY},
    "api-key": {"api-key": CLIENT_KEY},
    "x-goog-api-key": {"x-goog-api-key": CLIENT_KEY},
}


def guarded(upstream: FakeUpstream, dialect: str = "openai", **alice: JSON) -> JSON:
    return config(upstream, dialect=dialect) | {"keys": {"alice": {"key": CLIENT_KEY, **alice}}}


def shows_secret(reply: Reply) -> bool:
    return SECRET in str(dict(reply.headers)) + reply.body.decode(errors="replace")


# ---- Keys that open ------------------------------------------------------------------------


GOOGLE_SAYS: JSON = {
    "contents": [{"role": "user", "parts": [{"text": "Hi."}]}],
    "system_instruction": {"parts": [{"text": "Be brief."}]},
    "generation_config": {"max_output_tokens": 500, "stop_sequences": ["x"]},
}


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_google_s_clients_say_their_key_in_any_way(
    upstream: FakeUpstream, relay: Start, http: ClientSession, version: str
) -> None:
    """Checklist 34: header, query or bearer, and fields in snake case."""
    server = await relay(guarded(upstream))
    carriers = {**CARRIERS, "query": {}}

    async def opens(name: str, headers: dict[str, str]) -> None:
        query = {"key": CLIENT_KEY} if name == "query" else {}
        url = f"{server.url}/{version}/models/m:generateContent"
        async with http.post(url, json=GOOGLE_SAYS, headers=headers, params=query) as response:
            assert response.status == 200, await response.read()
            answer = await response.json()
        assert answer["candidates"][0]["content"]["parts"][0]["text"] == TEXT

    await each(carriers, opens)
    for seen in upstream.requests:
        assert seen.json["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (seen.json["max_tokens"], seen.json["stop"]) == (500, ["x"])
        assert CLIENT_KEY not in seen.query + str(seen.headers)


async def test_a_key_is_taken_from_any_header_on_any_route(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream))

    async def opens(_name: str, headers: dict[str, str]) -> None:
        for client in DIALECTS:
            assert (await ask(http, server, client, headers=headers)).said.text == TEXT
        async with http.get(f"{server.url}/v1/models", headers=headers) as response:
            assert response.status == 200

    await each(CARRIERS, opens)


async def test_a_key_is_taken_from_the_query_and_not_forwarded(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream))
    path = f"/v1/chat/completions?key={CLIENT_KEY}"
    assert (await ask(http, server, path=path)).said.text == TEXT
    assert CLIENT_KEY not in upstream.requests[0].query


async def test_one_valid_credential_among_several_is_enough(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream))
    headers = {"authorization": "Bearer something-else", "x-api-key": CLIENT_KEY}
    assert (await ask(http, server, headers=headers)).said.text == TEXT
    assert (await server.logged()).key == "alice"


async def test_the_first_valid_credential_names_the_caller(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice": {"key": "sk-secret-alice"}, "bob": {"key": "sk-secret-bob"}}
    server = await relay(config(upstream) | {"keys": keys})
    headers = {"x-api-key": "sk-secret-alice", "authorization": "Bearer sk-secret-bob"}
    await ask(http, server, headers=headers)
    assert (await server.logged()).key == "bob"


async def test_a_key_may_be_known_by_its_hash_alone(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream, key=HASH))
    assert (await ask(http, server, headers=CARRIERS["bearer"])).said.text == TEXT
    stolen = {"authorization": f"Bearer {HASH}"}
    assert (await ask(http, server, headers=stolen)).status == 401


async def test_a_key_made_by_the_command_opens(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    words = (await run("key", cwd=tmp_path)).output.replace('"', " ").split()
    (digest,) = (word for word in words if word.startswith("sha256:"))
    known = {hashlib.sha256(word.encode()).hexdigest(): word for word in words}
    key = known[digest.removeprefix("sha256:")]
    server = await relay(guarded(upstream, key=digest))
    assert (await ask(http, server, headers={"x-api-key": key})).said.text == TEXT


# ---- Keys that do not ----------------------------------------------------------------------


WRONG = {
    "none": {},
    "wrong": {"x-api-key": f"{CLIENT_KEY}x"},
    "empty": {"x-api-key": ""},
    "empty bearer": {"authorization": "Bearer "},
    "basic": {"authorization": f"Basic {CLIENT_KEY}"},
    "another's": {"authorization": f"Bearer {UPSTREAM_KEY}"},
}


@pytest.mark.parametrize("client", DIALECTS)
async def test_without_a_right_key_it_is_401_and_not_worth_a_retry(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream))

    async def is_refused(_name: str, headers: dict[str, str]) -> None:
        reply = await ask(http, server, client, headers=headers)
        assert reply.status == 401
        assert reply.error["message"]
        assert reply.headers["x-should-retry"] == "false"

    await each(WRONG, is_refused)
    assert upstream.requests == []
    await server.logged(len(WRONG))
    assert {(line.status, line.code) for line in server.lines()} == {(401, "AU")}


async def test_a_wrong_key_is_401_in_anthropic_s_words(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    reply = await ask(http, await relay(guarded(upstream)), "anthropic")
    assert reply.error["type"] == "authentication_error"


async def test_an_expired_key_is_401(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream, expires=date(2020, 1, 1)))
    reply = await ask(http, server, headers=CARRIERS["bearer"])
    assert reply.status == 401
    assert "expired" in reply.error["message"]


@pytest.mark.parametrize("expires", [date(2099, 12, 31), "2099-12-31"], ids=["date", "text"])
async def test_a_key_that_is_still_good_opens(
    expires: JSON, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream, expires=expires))
    assert (await ask(http, server, headers=CARRIERS["bearer"])).said.text == TEXT


async def test_a_list_of_models_needs_a_key_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream))
    async with http.get(f"{server.url}/v1/models") as response:
        assert response.status == 401


# ---- Allowed models ------------------------------------------------------------------------


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_model_outside_the_allowlist_is_403(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream, models=["glm-*", "claude-*"]))
    reply = await ask(http, server, client, model="m", headers=CARRIERS["bearer"])
    assert reply.status == 403
    assert reply.error["message"]
    assert upstream.requests == []


async def test_the_allowlist_sees_the_name_without_suffix_and_provider(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream, models=["m"]))
    for name in ("m", "first/m", "first,m", "m[1m]"):
        reply = await ask(http, server, model=name, headers=CARRIERS["bearer"])
        assert reply.said.text == TEXT, name


async def test_the_allowlist_sees_the_name_before_it_is_mapped(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice": {"key": CLIENT_KEY, "models": ["cheap"]}}
    mapped = one(upstream, models={"cheap": "dear", "dear": "dear"}) | {"keys": keys}
    server = await relay(mapped)
    replies = [
        await ask(http, server, model=name, headers=CARRIERS["bearer"])
        for name in ("cheap", "dear", "first/dear")
    ]
    assert [reply.status for reply in replies] == [200, 403, 403]


# ---- Without keys --------------------------------------------------------------------------


async def test_without_keys_a_caller_on_loopback_needs_none(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    assert (await ask(http, server)).said.text == TEXT
    assert (await ask(http, server, headers=CARRIERS["bearer"])).said.text == TEXT


async def test_without_keys_a_loopback_host_is_served(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    for host in ("127.0.0.1", "localhost:8484", "[::1]:8484", "LOCALHOST"):
        async with dial(server) as wire:
            await wire.post("openai", headers={"host": host}, stream=False)
            assert await wire.head() == 200, host


async def test_without_keys_a_foreign_host_is_refused(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1:8484", ""):
        async with dial(server) as wire:
            await wire.post("openai", headers={"host": host}, stream=False)
            assert await wire.head() in (400, 401, 403, 421), host
    assert upstream.requests == []


async def test_with_keys_any_host_is_served(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(guarded(upstream))
    async with dial(server) as wire:
        headers = {"host": "relay.example", **CARRIERS["bearer"]}
        await wire.post("openai", headers=headers, stream=False)
        assert await wire.head() == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:{}", "[::]:{}", ":{}"])
async def test_without_keys_relay_does_not_listen_beyond_loopback(
    listen: str, upstream: FakeUpstream, tmp_path: Path
) -> None:
    open_wide = config(upstream) | {"listen": listen.format(8484)}
    (tmp_path / "config.yaml").write_text(text_of(open_wide, ""))
    ran = await run("-c", "config.yaml", cwd=tmp_path)
    assert ran.status == 2
    assert "allow_anonymous" in ran.output


async def test_unless_it_is_told_to(
    upstream: FakeUpstream, relay: Start, http: ClientSession, unused_port: int
) -> None:
    opened = {"listen": f"0.0.0.0:{unused_port}", "allow_anonymous": True}
    server = await relay(config(upstream) | opened)
    assert (await ask(http, server)).said.text == TEXT
    async with dial(server) as wire:
        await wire.post("openai", headers={"host": "relay.example"}, stream=False)
        assert await wire.head() == 200


async def test_with_keys_it_may_listen_anywhere(
    upstream: FakeUpstream, relay: Start, http: ClientSession, unused_port: int
) -> None:
    server = await relay(guarded(upstream) | {"listen": f"0.0.0.0:{unused_port}"})
    assert (await ask(http, server)).status == 401
    assert (await ask(http, server, headers=CARRIERS["bearer"])).said.text == TEXT


# ---- Nothing is shown ----------------------------------------------------------------------


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_the_client_s_credential_is_never_forwarded(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream, provider))
    more = {"cookie": f"session={CLIENT_KEY}", "proxy-authorization": f"Basic {CLIENT_KEY}"}

    async def keeps_it(_name: str, headers: dict[str, str]) -> None:
        assert not shows_secret(await ask(http, server, client, headers={**headers, **more}))

    await each(CARRIERS, keeps_it)
    assert len(upstream.requests) == len(CARRIERS)
    for seen in upstream.requests:
        sent = [*seen.headers.values(), seen.query, seen.body.decode()]
        assert not any(CLIENT_KEY in text for text in sent)
        # Servers of other makers that speak Anthropic's dialect know one header or the other.
        assert sum(UPSTREAM_KEY in text for text in sent) == (2 if provider == "anthropic" else 1)


async def test_without_keys_too_what_a_client_sends_as_its_key_stays_here(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_key=""))
    await ask(http, server, headers=CARRIERS["bearer"])
    assert not any(CLIENT_KEY in value for value in upstream.requests[0].headers.values())


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_secret_in_a_provider_s_error_is_cut_out(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    text = f"Incorrect API key provided: {UPSTREAM_KEY}. See docs."
    leaks = {f"p{status}": chat_error(status, text) for status in (400, 401, 403, 422, 429, 500)}
    server = await relay(table(upstream, leaks))

    async def is_cut(name: str, _leak: Answer) -> None:
        reply = await ask(http, server, client, model=name)
        assert "See docs." in json.dumps(reply.json)
        assert not shows_secret(reply)

    await each(leaks, is_cut)
    await server.logged(len(leaks))
    assert SECRET not in server.stderr


async def test_a_secret_in_a_provider_s_headers_is_not_passed_on(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    leak = {"x-debug-authorization": f"Bearer {UPSTREAM_KEY}"}
    upstream.script(chat_error(400, "no", headers=leak))
    assert not shows_secret(await ask(http, await relay(config(upstream))))


async def test_a_key_in_the_query_is_not_logged(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream))
    await ask(http, server, path=f"/v1/chat/completions?key={CLIENT_KEY}")
    await ask(http, server, path=f"/v1/chat/completions?key={CLIENT_KEY}x")
    await ask(http, server, path=f"/nowhere?key={CLIENT_KEY}")
    await server.logged(2)
    assert SECRET not in server.stderr + server.stdout


async def test_debug_logs_hold_no_secret_either(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(guarded(upstream) | {"log": {"level": "debug"}})
    await ask(http, server, headers=CARRIERS["x-api-key"])
    upstream.script(chat_error(401, f"bad key {UPSTREAM_KEY}"))
    await ask(http, server, headers=CARRIERS["bearer"])
    await server.logged(2)
    assert SECRET not in server.stderr + server.stdout
