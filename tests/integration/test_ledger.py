"""What was used: counted once, kept through kills, shown in tables of the right days."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession
from fake_upstream import Answer, FakeUpstream, Seen, chat_error, chat_stream, chat_whole
from relay_process import SECRET, RelayProcess, Start, run
from talk import JSON, Reply, ask, config, dial, eventually, noon, one

KEYS = {name: {"key": f"{SECRET}-of-{name}"} for name in ("alice", "bob")}
PRICES = {"*": {"input": 1000, "output": 1000}}
AS = {name: {"x-api-key": entry["key"]} for name, entry in KEYS.items()}


def kept(upstream: FakeUpstream, **top: JSON) -> JSON:
    provider = one(upstream, models=["m", "n"], prices=PRICES)
    return {**provider, "keys": KEYS, "admin_key": f"{SECRET}-admin", "timezone": noon(), **top}


async def usage(http: ClientSession, server: RelayProcess) -> JSON:
    headers = {"x-api-key": f"{SECRET}-admin"}
    async with http.get(f"{server.url}/admin/usage", headers=headers) as response:
        assert response.status == 200
        return await response.json()


def day_of(report: JSON, **who: str) -> JSON:
    (found,) = [row for row in report["days"] if all(row[k] == v for k, v in who.items())]
    return found


async def test_totals_are_kept_per_key_provider_and_model(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(kept(upstream))
    for name, model in (("alice", "m"), ("alice", "m"), ("alice", "n"), ("bob", "m")):
        assert (await ask(http, server, headers=AS[name], model=model)).status == 200
    upstream.script(chat_error(400, "no"))
    assert (await ask(http, server, headers=AS["bob"], model="n")).status == 400

    async def all_there() -> bool:
        return sum(row["requests"] for row in (await usage(http, server))["days"]) == 5

    await eventually(all_there)
    report = await usage(http, server)
    row = day_of(report, key="alice", model="m")
    assert row.pop("start") == day_of(report, key="bob", model="m")["start"]
    assert row == {
        "key": "alice",
        "provider": "first",
        "model": "m",
        "requests": 2,
        "errors": 0,
        "estimated": 0,
        "tokens_in": 2090,
        "tokens_out": 114,
        "cache_read": 2048,
        "cache_write": 0,
        "cost": pytest.approx(2.204),
    }
    failed = day_of(report, key="bob", model="n")
    assert (failed["requests"], failed["errors"], failed["tokens_in"]) == (1, 1, 0)
    assert report["hours"] == report["days"] or len(report["hours"]) >= len(report["days"])
    assert [line["code"] for line in report["recent"]] == ["OK"] * 4 + ["UE"]
    assert SECRET not in json.dumps(report)


async def test_usage_wants_the_admin_key(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(kept(upstream))
    async with http.get(f"{server.url}/admin/usage", headers=AS["alice"]) as response:
        assert response.status == 401


async def test_the_command_prints_tables(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(kept(upstream))
    for _ in range(3):
        await ask(http, server, headers=AS["alice"])
    assert await server.stop() == 0
    named = ("-c", server.file.name)
    ran = await run("usage", *named, cwd=server.file.parent)
    assert ran.status == 0, ran.output
    days = ran.stdout.partition("hours:")[0].splitlines()
    assert days[1].split() == [
        *("from", "key", "model", "requests", "errors", "tokens_in", "tokens_out"),
        *("cache_read", "cache_write", "cost"),
    ]
    assert days[2].split()[1:] == ["alice", "m", "3", "0", "3135", "171", "3072", "0", "3.3060"]
    assert days[3].split() == ["all", "3", "0", "3135", "171", "3072", "0", "3.3060"]
    by_provider = await run("usage", *named, "--by", "provider", cwd=server.file.parent)
    assert by_provider.stdout.splitlines()[2].split()[1] == "first"
    as_json = await run("usage", *named, "--json", "--days", "1", cwd=server.file.parent)
    assert json.loads(as_json.stdout)["days"][0]["requests"] == 3
    wrong = await run("usage", *named, "--by", "colour", cwd=server.file.parent)
    assert (wrong.status, "one of key, provider, model" in wrong.output) == (2, True)


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati"])
async def test_days_begin_at_the_configured_midnight(
    zone: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(kept(upstream, timezone=zone))
    await ask(http, server, headers=AS["alice"])
    await server.stop()
    ran = await run("usage", "-c", server.file.name, "--json", cwd=server.file.parent)
    report = json.loads(ran.stdout)
    assert [row["start"][10:19] for row in report["days"]] == ["T00:00:00"]
    assert [row["start"][13:19] for row in report["hours"]] == [":00:00"]


def absurd(count: int) -> JSON:
    return {"prompt_tokens": count, "completion_tokens": count, "total_tokens": 2 * count}


ANSWERS: dict[str, tuple[Answer, str]] = {
    "told nothing": (chat_stream("one two three", usage=None), "OK"),
    "broke off": (chat_stream("one two three four five").but(cut_after=700), "UR"),
    "absurd": (chat_stream("one two three", usage=absurd(10**18)), "OK"),
    "of 400 digits": (chat_stream("one two three", usage=absurd(int("9" * 400))), "OK"),
    "negative": (chat_stream("one two three", usage=absurd(-5)), "OK"),
}


@pytest.mark.parametrize(("answer", "code"), ANSWERS.values(), ids=ANSWERS)
async def test_a_usage_that_was_not_told_is_estimated_and_says_so(
    answer: Answer, code: str, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(answer)
    server = await relay(kept(upstream))
    async with dial(server) as wire:
        await wire.post("openai", AS["alice"], text="x" * 3000)
        await wire.reply()
    await server.logged()
    (record,) = [record for record in server.log() if "code" in record]
    assert (record["code"], record["estimated"]) == (code, True)
    assert 1.0 < record["cost"] < 1.2
    await server.stop()
    ran = await run("usage", "-c", server.file.name, "--json", cwd=server.file.parent)
    (row,) = json.loads(ran.stdout)["days"]
    assert row["estimated"] == 1
    assert 1000 < row["tokens_in"] < 1100
    assert 2 <= row["tokens_out"] < 20


async def test_estimates_learn_how_a_model_counts(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """Twenty turns of an agent later an estimate is within five percent, also after a restart, and
    in a conversation that is new; that it is one is still said."""

    def tokens(seen: Seen) -> int:  # a model with small tokens
        return len(seen.body) // 2

    def answer(seen: Seen) -> Answer:
        count = tokens(seen)
        usage = {"prompt_tokens": count, "completion_tokens": 5, "total_tokens": count + 5}
        return chat_whole("Hi.", usage=usage)

    async def counted(server: RelayProcess, headers: dict[str, str], text: str) -> float:
        path, body = "/v1/messages/count_tokens", {"model": "m", "messages": [user(text)]}
        raw = json.dumps(body).encode()
        reply = await ask(http, server, "anthropic", path=path, raw=raw, headers=headers)
        assert (reply.status, reply.headers["x-relay-estimated"]) == (200, "true")
        return float(json.loads(reply.body)["input_tokens"])

    def user(text: str) -> JSON:
        return {"role": "user", "content": text}

    upstream.script(*[answer] * 30)
    settings = kept(upstream, state=f"sqlite:{tmp_path}/state.db")
    server, text = await relay(settings), "def f(x):\n    return [x, 1]\n" * 200
    headers = AS["alice"] | {"x-claude-code-session-id": "a-session"}
    before = await counted(server, headers, text)
    for _ in range(20):
        text += "    print(x)  # more\n" * 20
        assert (await ask(http, server, "anthropic", text=text, headers=headers)).status == 200
    true = tokens(upstream.requests[-1])
    assert abs(before / true - 1) > 0.2
    assert abs(await counted(server, headers, text) / true - 1) < 0.05
    await server.stop()
    other = await relay(settings)
    assert abs(await counted(other, AS["alice"], text) / true - 1) < 0.05


# ---- The file


def totals(file: Path) -> tuple[int, int]:
    """(requests, tokens) of the file's days; it has to be whole."""
    data = sqlite3.connect(file)
    try:
        assert data.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        query = "SELECT sum(requests), sum(tokens_in + tokens_out) FROM usage WHERE span = ?"
        query += " AND provider NOT LIKE '%/%'"  # those are credentials, counted once more
        sums = [data.execute(query, (span,)).fetchone() for span in (3600, 86400)]
        spent = data.execute("SELECT sum(tokens) FROM spent WHERE length(period) = 7").fetchone()
    finally:
        data.close()
    assert sums[0] == sums[1]
    assert spent[0] == sums[0][1]
    return sums[0]


def stored(file: Path) -> int:
    """The requests in it so far."""
    data = sqlite3.connect(file)
    try:
        query = "SELECT coalesce(sum(requests), 0) FROM usage WHERE span = 86400"
        query += " AND provider NOT LIKE '%/%'"  # those are credentials, counted once more
        return int(data.execute(query).fetchone()[0])
    finally:
        data.close()


async def load(http: ClientSession, server: RelayProcess, answered: list[Reply]) -> None:
    """Requests one after the other until relay is gone."""
    while server.process.returncode is None:
        try:
            reply = await ask(http, server, headers=AS["alice"])
        except (OSError, ClientError):
            return
        if reply.status == 200 and reply.clean:
            answered.append(reply)


async def test_killed_under_load(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """What is answered comes into the file while more is asked; and the file stays whole."""
    file = tmp_path / "state.db"
    settings = kept(upstream, state=f"sqlite:{file}")
    server = await relay(settings)
    answered: list[Reply] = []
    clients = [asyncio.create_task(load(http, server, answered)) for _ in range(4)]
    before = 0
    for _ in range(3):
        before = await all_stored(file, answered, before + 10)
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.gather(*clients)
    requests, tokens = totals(file)
    assert tokens == requests * 1102
    assert before <= requests <= len(answered) + len(clients)
    again = await relay(settings)
    assert (await ask(http, again, headers=AS["alice"])).status == 200
    assert await again.stop() == 0
    assert totals(file)[0] == requests + 1


async def all_stored(file: Path, answered: list[Reply], least: int) -> int:
    """So many are answered, and then those are in the file; how many."""

    async def enough() -> bool:
        return len(answered) >= least

    await eventually(enough)
    count = len(answered)

    async def there() -> bool:
        return stored(file) >= count

    await eventually(there)
    return count


async def test_two_processes_on_one_file_add_up(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    settings = kept(upstream, state=f"sqlite:{tmp_path}/state.db")
    servers = list(await asyncio.gather(relay(settings), relay(settings), relay(settings)))

    async def some(server: RelayProcess) -> None:
        for _ in range(40):
            assert (await ask(http, server, headers=AS["alice"])).status == 200

    await asyncio.gather(*(some(server) for server in servers for _ in range(2)))
    assert [await server.stop() for server in servers] == [0, 0, 0]
    assert totals(tmp_path / "state.db") == (240, 240 * 1102)


async def test_processes_whose_file_is_removed_begin_the_same_new_one(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """Not what SQLite keeps beside the old one, which the others still have open: that would
    damage the new one for as long as they run."""
    file = tmp_path / "state.db"
    servers = [await relay(kept(upstream, state=f"sqlite:{file}")) for _ in range(3)]
    for server in servers:
        assert (await ask(http, server, headers=AS["alice"])).status == 200
    await asyncio.sleep(2)  # until all have stored it
    file.unlink()
    for server in servers:
        await server.says("it is opened anew", within=60)
        await server.says("the state store is back", within=60)
        for _ in range(3):
            assert (await ask(http, server, headers=AS["alice"])).status == 200
    for server in servers:
        await server.stop()
        assert "damaged" not in server.stderr
        assert "disk I/O error" not in server.stderr
    assert totals(file) == (9, 9 * 1102)


async def test_a_backup_is_whole_though_relay_goes_on(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """And a relay goes on from it."""
    file, copy = tmp_path / "state.db", tmp_path / "copy.db"
    server, answered = await relay(kept(upstream, state=f"sqlite:{file}")), list[Reply]()
    loading = asyncio.create_task(load(http, server, answered))
    await eventually(lambda: asyncio.to_thread(lambda: stored(file) >= 5))
    ran = await run("backup", str(copy), "-c", server.file.name, cwd=server.file.parent)
    assert (ran.status, ran.stderr) == (0, "")
    requests, _ = totals(copy)
    assert requests >= 5
    assert copy.stat().st_mode & 0o777 == 0o600
    again = await run("backup", str(copy), "-c", server.file.name, cwd=server.file.parent)
    assert (again.status, again.stderr) == (1, f"{copy}: File exists\n")
    await server.stop()
    await loading
    other = await relay(kept(upstream, state=f"sqlite:{copy}"))
    assert (await ask(http, other, headers=AS["alice"])).status == 200
    await other.stop()
    assert totals(copy)[0] == requests + 1
    # The request that the stop cut off is counted too, but has no answer.
    assert totals(file)[0] - len(answered) in (0, 1)


async def start_fails(relay: Start, settings: JSON) -> str:
    with pytest.raises(RuntimeError, match="status 2") as caught:
        await relay(settings)
    return str(caught.value)


async def test_a_broken_file_is_said_plainly(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    file = tmp_path / "state.db"
    file.write_bytes(b"this is no database " * 1000)
    said = await start_fails(relay, kept(upstream, state=f"sqlite:{file}"))
    assert "state.db cannot be used: file is not a database; move it away" in said
    assert file.read_bytes().startswith(b"this is no database")


async def test_a_newer_schema_is_not_touched(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    file = tmp_path / "state.db"
    server = await relay(kept(upstream, state=f"sqlite:{file}"))
    await server.stop()
    with sqlite3.connect(file) as data:
        data.execute("PRAGMA user_version = 99")
    data.close()
    said = await start_fails(relay, kept(upstream, state=f"sqlite:{file}"))
    assert "it has schema 99, this relay knows 1" in said


async def test_another_programs_database_is_left_alone(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    file = tmp_path / "state.db"
    with sqlite3.connect(file) as data:
        data.execute("CREATE TABLE theirs (x)")
    data.close()
    said = await start_fails(relay, kept(upstream, state=f"sqlite:{file}"))
    assert "it is the database of another program" in said


async def test_where_it_lies_when_nobody_says(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    """Beside the configuration, or in systemd's folder; a relative path begins there too."""
    home = tmp_path / "state"
    home.mkdir()
    beside = await relay(kept(upstream))
    assert (beside.file.parent / "relay.db").exists()
    env = {"STATE_DIRECTORY": f"{home}:/elsewhere"}
    there = await relay(kept(upstream), env=env)
    assert (home / "relay.db").exists()
    assert not (there.file.parent / "relay.db").exists()
    await relay(kept(upstream, state="sqlite:mine.db"), env=env)
    assert (home / "mine.db").stat().st_mode & 0o777 == 0o600
    await relay(kept(upstream, state="memory"), env=env)
    assert sorted(path.name for path in home.iterdir() if path.suffix == ".db") == [
        "mine.db",
        "relay.db",
    ]


async def test_a_file_that_is_locked_is_waited_for_and_nothing_is_lost(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """Another program holds the file: relay serves on, says so, and writes it all later."""
    file = tmp_path / "state.db"
    server = await relay(kept(upstream, state=f"sqlite:{file}"))
    holder = sqlite3.connect(file, isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        for _ in range(5):
            assert (await ask(http, server, headers=AS["alice"])).status == 200
        await server.says("the state store is down", within=60)
        async with http.get(f"{server.url}/readyz") as response:
            assert response.status == 200
            assert "the state store is down" in await response.text()
        assert (await ask(http, server, headers=AS["alice"])).status == 200
        holder.execute("ROLLBACK")
    finally:
        holder.close()
    await server.says("the state store is back", within=60)
    await server.stop()
    assert totals(file) == (6, 6 * 1102)


async def test_cooldowns_and_bonds_outlive_a_restart(
    upstreams: Callable[[int], Awaitable[list[FakeUpstream]]],
    relay: Start,
    http: ClientSession,
    tmp_path: Path,
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(429, "slow down", headers={"retry-after": "600"}))
    settings = {**config(first, second), "state": f"sqlite:{tmp_path}/state.db"}
    server = await relay(settings)
    for _ in range(2):
        assert (await ask(http, server)).headers["x-relay-provider"] == "second"
    assert (await server.logged(2)).attempts != []
    await server.stop()
    again = await relay(settings)
    assert (await ask(http, again)).headers["x-relay-provider"] == "second"
    assert len(first.requests) == 1
    await again.logged()
    assert [record["sticky"] for record in again.log() if "sticky" in record] == ["hit"]


async def test_a_cooldown_of_a_provider_that_is_gone_does_not_come_back(
    upstreams: Callable[[int], Awaitable[list[FakeUpstream]]],
    relay: Start,
    http: ClientSession,
    tmp_path: Path,
) -> None:
    """It was removed while relay was stopped: no list and no metric has it any more."""
    first, second = await upstreams(2)
    first.script(chat_error(429, "slow down", headers={"retry-after": "600"}))
    settings = {**config(first, second), "state": f"sqlite:{tmp_path}/state.db"}
    server = await relay(settings)
    assert (await ask(http, server)).headers["x-relay-provider"] == "second"
    await server.stop()
    settings["providers"].pop("first")
    again = await relay(settings | {"routing_rules": {"m": ["second"]}})
    async with http.get(f"{again.url}/admin/health") as response:
        assert (await response.json())["marks"] == []
