"""Marks on real sockets: listed, cleared, probed; conversations stay where their state is."""

import asyncio
import datetime
import zoneinfo

import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream, Seen, anthropic_stream, chat_error, chat_whole
from relay_process import SECRET, RelayProcess, Start, run
from talk import JSON, ask, config, eventually, one

ADMIN = f"{SECRET}-admin"
KEYS = [f"{SECRET}-{n}" for n in range(5)]


async def marks(
    http: ClientSession, server: RelayProcess, key: str = ADMIN
) -> list[dict[str, JSON]]:
    head = {"Authorization": f"Bearer {key}"}
    async with http.get(f"{server.url}/admin/health", headers=head) as response:
        assert response.status == 200
        said: list[dict[str, JSON]] = (await response.json())["marks"]
        return said


async def clear(http: ClientSession, server: RelayProcess, body: JSON, key: str = ADMIN) -> int:
    head = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{server.url}/admin/health/clear"
    async with http.post(url, json=body, headers=head) as response:
        return response.status


async def test_a_mark_is_listed_with_cause_and_end_and_cleared_by_name(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(401, f"bad key {KEYS[0]}"), chat_whole(text="again"))
    server = await relay(one(upstream, api_key=KEYS[0]) | {"admin_key": ADMIN})
    assert (await ask(http, server)).status == 502
    (mark,) = await marks(http, server)
    assert (mark["scope"], mark["cause"], mark["times"]) == ("credential", "auth", 1)
    assert mark["until"] - mark["since"] == 900
    assert mark["next_probe"] == mark["until"]
    assert "[secret]" in mark["said"]
    assert (await ask(http, server)).status == 502
    assert len(upstream.requests) == 1
    assert await clear(http, server, {"name": "nobody"}) == 200
    assert len(await marks(http, server)) == 1
    assert await clear(http, server, {"name": "first"}) == 200
    assert (await ask(http, server)).said.text == "again"


@pytest.mark.parametrize("body", [{}, {"all": False}, {"name": 3}, {"all": True, "name": "x"}, []])
async def test_clearing_wants_to_be_told_what(
    body: JSON, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    assert await clear(http, server, body) == 400


async def test_without_an_admin_key_everybody_here_may_look_and_nobody_clear(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(401, "bad key"))
    server = await relay(one(upstream))
    await ask(http, server)
    assert len(await marks(http, server, "")) == 1
    assert await clear(http, server, {"all": True}, "") == 403
    assert len(await marks(http, server, "")) == 1


async def test_the_command_lists_and_clears(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(401, "bad key"), chat_whole(text="again"))
    server = await relay(
        one(upstream) | {"admin_key": "${RELAY_ADMIN}"}, env={"RELAY_ADMIN": ADMIN}
    )
    home, env = server.file.parent, {"RELAY_ADMIN": ADMIN}
    await ask(http, server)
    ran = await run("health", cwd=home, env=env)
    assert (ran.status, ran.stderr) == (0, "")
    assert "first/regular/" in ran.stdout
    assert "auth" in ran.stdout
    assert "bad key" in ran.stdout
    assert SECRET not in ran.output
    ran = await run("health", "--clear", "nobody", cwd=home, env=env)
    assert (ran.status, ran.stdout) == (1, "no mark on nobody\n")
    ran = await run("health", "--clear", "all", cwd=home, env=env)
    assert (ran.status, ran.stdout[:13]) == (0, "cleared first")
    assert (await run("health", cwd=home, env=env)).stdout.startswith("nothing cools down\n")
    assert (await ask(http, server)).said.text == "again"


PROBED = datetime.timedelta(minutes=15)  # after so long, a refused key is tried once more


async def test_the_command_says_who_does_not_answer_and_who_may_not_ask(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """The file needs no provider's key in this shell: only address and admin key count."""
    upstream.script(chat_error(401, "bad key"))
    zone = {"timezone": "Pacific/Kiritimati"}
    config = one(upstream, api_key="${NOT_IN_THIS_SHELL}") | {"admin_key": ADMIN} | zone
    server = await relay(config, env={"NOT_IN_THIS_SHELL": KEYS[0]})
    await ask(http, server)
    ran = await run("health", cwd=server.file.parent)
    assert ran.status == 0
    until = datetime.datetime.now(zoneinfo.ZoneInfo("Pacific/Kiritimati")) + PROBED
    near = {f"until {until + datetime.timedelta(minutes=m):%H:%M}" for m in (-1, 0, 1)}
    assert any(text in ran.stdout for text in near), ran.output
    server.write(config | {"admin_key": "another"})
    ran = await run("health", cwd=server.file.parent)
    assert (ran.status, ran.stdout, ran.stderr) == (1, "", "the admin key is needed here\n")
    await server.stop()
    ran = await run("health", cwd=server.file.parent)
    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr.startswith("no relay answers at 127.0.0.1:")
    assert "(Connection refused): start it" in ran.stderr


async def test_at_the_end_of_a_cooldown_one_request_finds_out(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Eight come at once; the provider that was sick sees one of them."""
    sick, go = FakeUpstream(), asyncio.Event()
    async with sick:
        sick.script(
            chat_error(429, "slow down", headers={"retry-after": "1"}),
            chat_whole(text="well again").but(hold={-1: go}),
            chat_whole(text="well"),
        )
        server = await relay(config(sick, upstream))
        await ask(http, server)
        assert len(sick.requests) == 1
        await asyncio.sleep(1.1)
        asked = [asyncio.create_task(ask(http, server, text=f"{n}")) for n in range(8)]
        await upstream.arrived(8)
        await sick.arrived(2)
        assert (len(upstream.requests), len(sick.requests)) == (8, 2)
        go.set()
        said = sorted([(await reply).said.text for reply in asked])
        assert said.count("well again") == 1
        assert (await ask(http, server)).said.text == "well"


async def test_a_probe_whose_client_leaves_makes_room_for_the_next(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    async with FakeUpstream() as sick:
        sick.script(
            chat_error(429, "slow down", headers={"retry-after": "1"}),
            Answer(delay=3600),
            chat_whole(text="well again"),
        )
        server = await relay(config(sick, upstream))
        await ask(http, server)
        await asyncio.sleep(1.1)
        probe = asyncio.create_task(ask(http, server))
        await sick.arrived(2)
        probe.cancel()
        await eventually(lambda: answered(http, server, "well again"))


async def answered(http: ClientSession, server: RelayProcess, text: str) -> bool:
    return (await ask(http, server)).said.text == text


# ---- Conversations -------------------------------------------------------------------------


def key_of(request: Seen) -> str:
    return str(request.headers["authorization"]).removeprefix("Bearer ")


async def test_what_belongs_to_an_account_goes_back_to_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Five keys, ten conversations of five turns: each stays with one key, and all keys serve."""
    server = await relay(one(upstream, api_key=KEYS))
    used: dict[str, set[str]] = {}
    for turn in range(5):
        for number in range(10):
            name = f"session {number}"
            await ask(http, server, text=f"turn {turn}", prompt_cache_key=name)
            used.setdefault(name, set()).add(key_of(upstream.requests[-1]))
    assert all(len(keys) == 1 for keys in used.values())
    assert len(set.union(*used.values())) >= 3
    await server.logged(50)
    words = [record["sticky"] for record in server.log() if "sticky" in record]
    assert words == ["miss"] * 10 + ["hit"] * 40


async def test_a_conversation_that_had_to_move_stays_where_it_went(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    bad: set[str] = set()
    upstream.script(
        lambda request: (
            chat_error(429, "slow", headers={"retry-after": "1"})
            if key_of(request) in bad
            else chat_whole(text="ok")
        )
    )
    server = await relay(one(upstream, api_key=KEYS))
    for _ in range(2):
        await ask(http, server, prompt_cache_key="s")
    first = key_of(upstream.requests[-1])
    bad.add(first)
    await ask(http, server, prompt_cache_key="s")
    second = key_of(upstream.requests[-1])
    assert second != first
    bad.clear()
    await asyncio.sleep(1.1)
    await ask(http, server, prompt_cache_key="s")
    assert key_of(upstream.requests[-1]) == second
    await server.logged(4)
    words = [record["sticky"] for record in server.log() if "sticky" in record]
    assert words == ["miss", "hit", "repin", "hit"]


# ---- Reload --------------------------------------------------------------------------------


async def test_a_reload_keeps_marks_and_bonds_but_those_of_what_is_gone(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(
        lambda request: (
            chat_error(401, "bad key") if key_of(request) == KEYS[0] else chat_whole(text="ok")
        )
    )
    both = {"first": KEYS[0], "second": KEYS[1]}
    providers = {
        name: one(upstream, api_key=key)["providers"]["first"] for name, key in both.items()
    }
    top = {"providers": providers, "routing_rules": {"m": ["first", "second"]}, "admin_key": ADMIN}
    server = await relay(top)
    for _ in range(2):
        assert (await ask(http, server, prompt_cache_key="s")).said.text == "ok"
    assert len(upstream.requests) == 3
    server.write(top | {"default": "second"})
    await server.hup()
    (mark,) = await marks(http, server)
    assert mark["cause"] == "auth"
    await ask(http, server, prompt_cache_key="s")
    assert len(upstream.requests) == 4
    providers["first"]["api_key"] = KEYS[2]  # a new key begins with a clean slate
    server.write(top)
    receipt = await server.hup()
    assert "provider first: changed (api_key)" in receipt
    assert f"mark on {mark['name']}: forgotten" in receipt
    assert await marks(http, server) == []
    reply = await ask(http, server, prompt_cache_key="s")
    assert reply.headers["x-relay-provider"] == "first"


# ---- Caches --------------------------------------------------------------------------------


def counted(read: int, write: int = 0) -> Answer:
    usage = {
        "input_tokens": 50,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": write,
        "output_tokens": 9,
    }
    return anthropic_stream(text="ok", usage=usage)


async def test_a_lost_cache_is_explained_in_a_line_of_its_own(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(counted(0, 9000), counted(9000, 50), counted(100, 9000), counted(9100))
    server = await relay(one(upstream, "anthropic", api_key=KEYS[0]) | {"admin_key": ADMIN})
    said = [{"role": "user" if n % 2 == 0 else "assistant", "content": f"{n}"} for n in range(7)]
    system = "be careful " * 300
    head = {"x-claude-code-session-id": "s"}
    for turns, told in ((1, system), (3, system), (5, system.upper()), (7, system.upper())):
        body = {"model": "m", "max_tokens": 9, "stream": True, "system": told}
        body["messages"] = said[:turns]
        async with http.post(f"{server.url}/v1/messages", json=body, headers=head) as response:
            assert b"message_stop" in await response.read()
    line = await server.logged(4)
    lost = [record for record in server.log() if record.get("message") == "cache lost"]
    assert [(r["changed"], r["by"], r["read"], r["expected"]) for r in lost] == [
        ("system", "client", 100, 9050)
    ]
    assert lost[0]["id"] == server.lines()[2].id != line.id
    assert "careful" not in server.stderr.lower()
    async with http.get(f"{server.url}/admin/health", headers={"x-api-key": ADMIN}) as response:
        assert (await response.json())["cache_lost"] == {"client: system": 1}
