"""Several relays and a real Redis: limits and budgets hold across them, and outlive its death."""

import asyncio
import json
import random
import re
import time
import zoneinfo
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_upstream import CHAT_USAGE, HEAD, FakeUpstream, chat_error, chat_stream, chat_whole
from redis_server import RedisServer
from relay_process import SECRET, RelayProcess, Start, run
from talk import JSON, ask, config, dial, eventually, noon, one

import relay as relay_module

USED = CHAT_USAGE["prompt_tokens"] + CHAT_USAGE["completion_tokens"]
ALICE = f"{SECRET}-of-alice"
BOB = f"{SECRET}-of-bob"
AS_ALICE, AS_BOB = {"x-api-key": ALICE}, {"x-api-key": BOB}
ADMIN = {"x-api-key": f"{SECRET}-admin"}


@pytest.fixture
async def redis(tmp_path: Path, tool: Callable[[str], str]) -> AsyncIterator[RedisServer]:
    home = tmp_path / "redis"
    home.mkdir()
    server = RedisServer(tool("redis-server"), home)
    await server.start()
    yield server
    await server.stop()


def shared(upstream: FakeUpstream, redis: RedisServer, top: JSON = None, **limits: JSON) -> JSON:
    """Alice has limits, Bob has none."""
    keys = {"alice": {"key": ALICE, "limits": limits}, "bob": {"key": BOB}}
    return {
        **one(upstream),
        "keys": keys,
        "timezone": noon(),
        "admin_key": f"{SECRET}-admin",
        "state": f"{redis.url}/0?prefix=team",
        **(top or {}),
    }


async def days(http: ClientSession, server: RelayProcess) -> list[JSON]:
    async with http.get(f"{server.url}/admin/usage", headers=ADMIN) as response:
        assert response.status == 200, await response.text()
        return list((await response.json())["days"])


async def requests_in(http: ClientSession, server: RelayProcess) -> int:
    return sum(day["requests"] for day in await days(http, server))


async def test_a_budget_holds_across_relays_under_load(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    """Each request uses 1,102 tokens of 20,000 and reserves more: 19 at the most are answered,
    whoever is asked, and of those that are refused none reaches the provider."""
    upstream.script(chat_whole(text="Hi.").but(delay=0.01))
    settings = shared(upstream, redis, tokens_per_day=20_000)
    servers = [await relay(settings), await relay(settings)]

    async def client(number: int) -> list[int]:
        said = []
        for _ in range(10):
            reply = await ask(http, servers[number % 2], headers=AS_ALICE, max_tokens=1200)
            said.append(reply.status)
        return said

    statuses = [status for said in await asyncio.gather(*map(client, range(10))) for status in said]
    answered = statuses.count(200)
    assert answered == len(upstream.requests)
    assert 20_000 // 1300 <= answered <= 20_000 // USED + 1
    assert set(statuses) <= {200, 402, 429}
    for server in servers:  # what is left is given away one at a time, once nothing is reserved

        async def is_spent(server: RelayProcess = server) -> bool:
            return (await ask(http, server, headers=AS_ALICE, max_tokens=1200)).status == 402

        await eventually(is_spent)
    assert len(upstream.requests) == 20_000 // USED + 1


async def test_rates_and_concurrency_are_common(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    go = asyncio.Event()
    upstream.script(chat_stream("Hi.").but(hold={HEAD: go}), chat_stream("Hi."))
    settings = shared(upstream, redis, rpm=3, concurrent=1)
    first, second = await relay(settings), await relay(settings)
    async with dial(first) as wire:
        await wire.post("openai", AS_ALICE)
        await upstream.arrived()
        reply = await ask(http, second, headers=AS_ALICE)
        assert (reply.status, "concurrent 1" in reply.error["message"]) == (429, True)
        assert (await ask(http, second, headers=AS_BOB, stream=True)).status == 200
        go.set()
        assert (await wire.reply()).status == 200
    for left in (1, 0):

        async def admitted(left: int = left) -> bool:
            reply = await ask(http, second, headers=AS_ALICE, stream=True)
            if reply.status == 200:
                assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
            return reply.status == 200

        await eventually(admitted)

    async def over_the_rate() -> bool:
        reply = await ask(http, first, headers=AS_ALICE)
        assert (reply.status, 1 <= int(reply.headers["retry-after"]) <= 60) == (429, True)
        return "rpm 3" in reply.error["message"]

    await eventually(over_the_rate)  # the other relay's permit may not be back yet


async def test_one_after_the_other_never_meets_its_own_permit(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    server = await relay(shared(upstream, redis, concurrent=1))
    for _ in range(30):
        assert (await ask(http, server, headers=AS_ALICE)).status == 200


async def test_killed_and_started_again_it_loses_and_doubles_nothing(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    settings = shared(upstream, redis, tokens_per_day=10**9, rpm=10**6)
    servers = [await relay(settings), await relay(settings)]
    stopping, answered = asyncio.Event(), list[int]()

    async def client(number: int) -> None:
        while not stopping.is_set():
            reply = await ask(http, servers[number % 2], headers=AS_ALICE)
            assert reply.status == 200, reply.body
            answered.append(number)

    clients = [asyncio.create_task(client(number)) for number in range(4)]

    async def more() -> None:
        enough = len(answered) + 40

        async def there() -> bool:
            return len(answered) >= enough

        await eventually(there)

    for _ in range(3):
        await more()
        await redis.kill()
        for server in servers:
            await server.until(lambda server=server: store_of(server) == "down")
        await more()
        await redis.start()
    await more()
    stopping.set()
    await asyncio.gather(*clients)
    for server in servers:
        await server.until(lambda server=server: store_of(server) == "back", 60)

    async def all_there() -> bool:
        return await requests_in(http, servers[0]) >= len(answered)

    await eventually(all_there, within=60)
    (day,) = await days(http, servers[0])
    assert day["requests"] == len(answered)
    assert day["tokens_in"] + day["tokens_out"] == len(answered) * USED
    spent = await redis.command("HGET", f"{{team}}:spent:alice:{day['start'][:10]}", "tokens")
    assert spent.split(b"\r\n")[1] == str(len(answered) * USED).encode()


def store_of(server: RelayProcess) -> str:
    """What the log said last of the state store: that it is down, or back."""
    said = [word for line in server.log() for word in STORE.findall(line.get("message", ""))]
    return said[-1] if said else ""


STORE = re.compile("the state store is (down|back)")


@pytest.mark.parametrize("how", ["dead", "frozen"])
async def test_while_it_is_down_relay_goes_on_alone_and_nobody_waits(
    how: str, upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    """One request may find out; the others are decided here at once, by limits of its own."""
    server = await relay(shared(upstream, redis, rpm=90))
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    if how == "dead":
        await redis.kill()
    else:
        redis.freeze()
    clock = asyncio.get_running_loop().time
    began = clock()
    statuses = [(await ask(http, server, headers=AS_ALICE)).status for _ in range(95)]
    assert clock() - began < 30  # a timeout for each would be over 45 seconds
    assert statuses.count(200) == 89
    assert statuses[-1] == 429
    await server.says("the state store is down")
    async with http.get(f"{server.url}/readyz") as response:
        assert (response.status, (await response.json())["degraded"]) == (
            200,
            ["the state store is down"],
        )
    async with http.get(f"{server.url}/metrics", headers=ADMIN) as response:
        assert "relay_state_up 0" in await response.text()
    if how == "dead":
        await redis.start()
    else:
        redis.thaw()
    await server.says("the state store is back", within=60)

    async def all_there() -> bool:
        return await requests_in(http, server) == 90

    await eventually(all_there)


async def test_it_may_be_down_from_the_start(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    await redis.kill()
    server = await relay(shared(upstream, redis, rpm=1))
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    assert (await ask(http, server, headers=AS_ALICE)).status == 429
    await redis.start()
    await server.says("the state store is back", within=60)

    async def all_there() -> bool:
        return await requests_in(http, server) == 1

    await eventually(all_there)


async def test_budgets_may_fail_closed(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    settings = shared(upstream, redis, {"state_fail_closed": True}, tokens_per_day=10**6)
    server = await relay(settings)
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    await redis.kill()
    reply = await ask(http, server, headers=AS_ALICE)
    assert (reply.status, reply.headers["retry-after"]) == (503, "10")
    assert "the shared state is down" in reply.error["message"]
    assert (await server.logged(2)).code == "SD"
    assert (await ask(http, server, headers=AS_BOB)).status == 200


async def test_the_permits_of_a_relay_that_died_end_by_themselves(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    """Here the lease is ended by hand, rather than waited for."""
    upstream.script(chat_stream("Hi.").but(hold={1: asyncio.Event()}), chat_stream("Hi."))
    settings = shared(upstream, redis, concurrent=1)
    first, second = await relay(settings), await relay(settings)
    async with dial(first) as wire:
        await wire.post("openai", AS_ALICE)
        await upstream.arrived()
        await first.end()
    assert (await ask(http, second, headers=AS_ALICE)).status == 429
    lease = (await redis.command("ZRANGE", "{team}:lease:alice", "0", "0")).split(b"\r\n")[2]
    await redis.command("ZADD", "{team}:lease:alice", "1", lease.decode())
    assert (await ask(http, second, headers=AS_ALICE, stream=True)).status == 200


async def test_every_key_has_an_end(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(429, "slow down", headers={"retry-after": "60"}), chat_whole("Hi."))
    settings = shared(upstream, redis, rpm=10, tpm=10**6, cost_per_day=1)
    settings |= {"providers": config(upstream, upstream)["providers"], "default": "first"}
    settings |= {"routing_rules": {"m": ["first", "second"]}}
    server = await relay(settings)
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    await server.stop()
    ends = await redis.keys()
    assert {name.split(":")[1] for name in ends} >= {"last", "spent", "minute", "usage", "notes"}
    assert [name for name, left in ends.items() if left <= 0] == []


async def test_cooldowns_are_common(
    upstreams: Callable[[int], object], redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    """What one relay learns the hard way, the other knows; and so does one that starts later."""
    first, second = await upstreams(2)  # type: ignore[misc]
    first.script(chat_error(429, "slow down", headers={"retry-after": "600"}))
    settings = {**config(first, second), "state": redis.url, "admin_key": f"{SECRET}-admin"}
    servers = [await relay(settings), await relay(settings)]
    assert (await ask(http, servers[0])).headers["x-relay-provider"] == "second"
    asked = len(first.requests)

    async def known(server: RelayProcess) -> bool:
        async with http.get(f"{server.url}/admin/health", headers=ADMIN) as response:
            return len((await response.json())["marks"]) == 1

    await eventually(lambda: known(servers[1]))
    assert (await ask(http, servers[1])).headers["x-relay-provider"] == "second"
    third = await relay(settings)
    assert (await ask(http, third)).headers["x-relay-provider"] == "second"
    assert len(first.requests) == asked
    async with http.post(
        f"{third.url}/admin/health/clear", headers=ADMIN, json={"all": True}
    ) as response:
        assert response.status == 200

    async def forgotten() -> bool:
        return not any([await known(server) for server in servers])

    await eventually(forgotten)


async def test_the_command_reads_it(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    server = await relay(shared(upstream, redis, rpm=100))
    for _ in range(3):
        await ask(http, server, headers=AS_ALICE)
    await server.stop()
    ran = await run("usage", "-c", server.file.name, "--json", cwd=server.file.parent)
    (row,) = json.loads(ran.stdout)["days"]
    assert (row["key"], row["requests"], row["tokens_out"]) == ("alice", 3, 171)
    await redis.kill()
    ran = await run("usage", "-c", server.file.name, cwd=server.file.parent)
    assert (ran.status, ran.stderr.startswith("Redis: "), ran.stdout) == (1, True, "")


async def test_a_password_is_never_said(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    await redis.command("CONFIG", "SET", "requirepass", "another one")
    state = redis.url.replace("redis://", f"redis://:{SECRET}-of-redis@")
    server = await relay({**shared(upstream, redis, rpm=2), "state": state})
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    await server.says("the state store is down")


async def test_without_its_client_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['redis'] = None\n")
    (tmp_path / "config.yaml").write_text(
        'providers: {demo: {api_format: demo}}\nstate: "redis://127.0.0.1"\n'
    )
    ran = await run("check", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert ran.status == 2
    assert ran.stderr.startswith(
        "config.yaml:2:1: state: Redis needs one more package: pip install"
    )


async def test_the_script_judges_as_relay_itself_does(redis: RedisServer) -> None:
    """The same requests and ends, told to both: the same answers, by the same limit."""
    store, chance = relay_module.RedisStore(redis.url), random.Random(7)
    store.open()
    try:
        for number in range(25):
            agree(store, chance, f"key{number}")
    finally:
        store.close()


def agree(store: relay_module.RedisStore, chance: random.Random, name: str) -> None:
    config = relay_module.LimitConfig(
        rpm=chance.choice((None, 5, 12)),
        tpm=chance.choice((None, 900, 3000)),
        concurrent=chance.choice((None, 2, 4)),
        tokens_per_day=chance.choice((None, 2000)),
        cost_per_month=chance.choice((None, 2.5)),
    )
    caller = relay_module.Caller(name, limits=config, zone=zoneinfo.ZoneInfo(noon()))
    limits, out = relay_module.Limits(), list[relay_module.Permit]()
    for step in range(25):
        now = time.time()
        while out and chance.random() < 0.4:
            permit = out.pop(chance.randrange(len(out)))
            used = relay_module.Spend(permit.reserved.tokens // 2, permit.reserved.cost // 3)
            limits.settle(permit, used, now)
        asked = relay_module.Spend(chance.randrange(900), chance.randrange(relay_module.MONEY))
        spent, ended = limits.collect()
        blank = relay_module.Account(name)
        permit = relay_module.Permit(f"{name}-{step}", caller, blank, asked, int(now))
        batch = relay_module.Batch(spent=spent, ended=ended, asked=[permit])
        (judged,) = store.sync(batch).admissions
        mine = ""
        try:
            permit = limits.admit(permit.id, caller, asked, now, now)
            out.append(permit)
            assert judged.requests == permit.account.window.sums[0]
            assert judged.tokens == permit.account.window.sums[1]
        except (relay_module.LimitExceeded, relay_module.BudgetSpent) as error:
            mine = error.message
        theirs = judged.refusal.error(caller, now).message if judged.refusal else ""
        assert seconds_apart(mine) == seconds_apart(theirs)


async def test_a_clock_that_is_set_back_holds_nobody_up(redis: RedisServer) -> None:
    """What Redis has counted at a later time is in no minute that there is now."""
    store = relay_module.RedisStore(redis.url)
    caller = relay_module.Caller("alice", limits=relay_module.LimitConfig(rpm=3))
    later = int(time.time()) + 3000
    await redis.command("HSET", "{relay}:minute:alice", f"{later}:r", "3", f"{later}:t", "3")
    store.open()
    try:
        words = list[str]()
        for number in range(4):
            permit = relay_module.Limits().admit(str(number), caller, relay_module.Spend(), 0, 0)
            (judged,) = store.sync(relay_module.Batch(asked=[permit])).admissions
            words.append(judged.refusal.word if judged.refusal else "")
        assert words == ["", "", "", "rpm"]
    finally:
        store.close()


async def test_many_notes_are_read_in_parts_and_none_is_missed(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module.RedisStore, "_MOST_NOTES_READ", 3)
    writer, reader = (relay_module.RedisStore(redis.url) for _ in range(2))
    for store in (writer, reader):
        store.open()

    def write(*names: str) -> None:
        notes = [relay_module.Note("mark", name, {}, time.time() + 60) for name in names]
        writer.sync(relay_module.Batch(notes=notes))

    def read() -> list[str]:
        return [note.name for note in reader.sync(relay_module.Batch()).notes]

    try:
        write(*"abcdefg")
        write("b")
        assert [read() for _ in range(4)] == [["a", "c", "d"], ["e", "f", "g"], ["b"], []]
        await redis.command("FLUSHALL")  # all is lost, and others write more than was read
        writer._stored.clear()
        write(*"hijklmnopq")
        assert [read() for _ in range(5)] == [[*"hij"], [*"klm"], [*"nop"], ["q"], []]
    finally:
        for store in (writer, reader):
            store.close()


def seconds_apart(message: str) -> str:
    """Without the number of seconds, which differs by what the two clocks do."""
    return re.sub(r"in \d+ s", "in some seconds", message)


async def test_what_was_spent_yesterday_is_not_learnt_as_todays(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked a moment before midnight, answered a moment after it: spending only grows, so what
    is learnt of the wrong day would hold all day long."""
    store, caller = relay_module.RedisStore(redis.url), relay_module.Caller("alice")
    permit = relay_module.Limits().admit("1", caller, relay_module.Spend(), 0.0, 0.0)
    days = [("2027-01-31", "2027-01"), ("2027-02-01", "2027-02")]
    spent = {("alice", label): relay_module.Spend(7) for label in days[0]}
    clock = relay_module.Clock(0, 0, ("", ""))
    later = (clock._replace(periods=day) for day in days)
    monkeypatch.setattr(relay_module, "clock_at", lambda now, zone: next(later))
    store.open()
    try:
        news = store.sync(relay_module.Batch(spent=spent, asked=[permit]))
    finally:
        store.close()
    assert news.spent == spent


async def test_two_relays_agree_on_what_is_left_of_a_plan(
    upstream: FakeUpstream, redis: RedisServer, relay: Start, http: ClientSession
) -> None:
    """One of them has learnt it, from a header; new conversations leave the plan at both."""
    headers = {
        "x-codex-primary-used-percent": "96",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-after-seconds": "3600",
    }
    upstream.script(chat_whole("Hi.").but(headers=headers), path="/plan/v1/chat/completions")
    endpoints = {"plan": f"{upstream.url}/plan/v1", "paid": f"{upstream.url}/paid/v1"}
    settings = shared(upstream, redis)
    settings["providers"]["first"] |= {
        "endpoint": None,
        "endpoints": endpoints,
        "billing_plans": ["plan", "paid"],
        "switch_at": "95%",
    }
    servers = [await relay(settings), await relay(settings)]

    async def turn(server: RelayProcess, talk: str) -> str:
        upstream.requests.clear()
        await ask(http, server, model="m", headers=AS_BOB | {"x-session-id": talk})
        return upstream.requests[-1].path.split("/")[1]

    async def known(server: RelayProcess) -> list[JSON]:
        async with http.get(f"{server.url}/admin/plans", headers=ADMIN) as response:
            (provider,) = (await response.json())["providers"]
        keys = ("name", "used", "resets", "seconds")
        windows = provider["plans"][0]["credentials"][0]["windows"]
        return [{key: window[key] for key in keys} for window in windows]

    assert await turn(servers[0], "a") == "plan"

    async def agree() -> bool:
        one, two = [await known(server) for server in servers]
        return one == two and bool(one)

    await eventually(agree)
    assert [await turn(server, "new") for server in servers] == ["paid", "paid"]
    assert [await turn(server, "a") for server in servers] == ["plan", "plan"]
