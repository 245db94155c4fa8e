"""The flight recorder: what relay keeps of exchanges, and what can be done with it."""

import asyncio
import datetime
import json
import os
import re
import shutil
import signal
import stat
import zoneinfo
from pathlib import Path

import pytest
from aiohttp import ClientSession, FormData
from fake_upstream import TEXT, FakeUpstream, chat_error, chat_stream, chat_whole, whole
from relay_process import SECRET, Ran, RelayProcess, Start, run
from talk import (
    CLIENT_KEY,
    DIALECTS,
    JSON,
    UPSTREAM_KEY,
    ask,
    config,
    dial,
    eventually,
    messages,
    one,
)

import relay as program

KEYS = {"alice": {"key": CLIENT_KEY, "raw": True}}
AS_ALICE = {"x-api-key": CLIENT_KEY}
RECORD = {"directory": "records", "keep": "2MB"}


def recorded(*upstreams: FakeUpstream | str, **top: JSON) -> JSON:
    return config(*upstreams, **{"keys": KEYS, "record": RECORD, **top})


def ring_of(server: RelayProcess) -> program.Ring:
    return program.Ring(server.file.parent / "records", 2 << 20)


async def records(server: RelayProcess, count: int) -> list[program.Record]:
    """So many, the newest first, once they are written."""
    ring = ring_of(server)

    async def written() -> bool:
        return ring.directory.is_dir() and len(ring.names()) >= count

    await eventually(written)
    names = ring.names()
    assert len(names) == count
    return [ring.read(name.partition("-")[2].removesuffix(".jsonl")) for name in names]


async def command(server: RelayProcess, *args: str) -> Ran:
    return await run(*args, "-c", str(server.file), cwd=server.file.parent)


def written(server: RelayProcess) -> bytes:
    return b"".join(path.read_bytes() for path in ring_of(server).directory.iterdir())


# ---- What is kept


async def test_an_exchange_is_kept_from_end_to_end(upstream: FakeUpstream, relay: Start) -> None:
    refusal = chat_error(429, f"{UPSTREAM_KEY} has asked too often")
    upstream.script(refusal, path="/a/v1/chat/completions")
    first, second = asyncio.Event(), asyncio.Event()
    answer = chat_stream(text="Hello to you.").but(hold={2: first, 3: second})
    upstream.script(answer, path="/b/v1/chat/completions")
    server = await relay(recorded(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1"))
    async with dial(server) as wire:
        await wire.post("anthropic", AS_ALICE, text=f"I am {CLIENT_KEY}")
        await wire.head()
        early = b""
        for word, go in ((b"Hello", first), (b"to", second)):
            early += await wire.until(word)
            await asyncio.sleep(0.03)
            go.set()
        reply = await wire.reply(early)
    assert reply.said.text == "Hello to you."
    (record,) = await records(server, 1)
    assert record.id == reply.headers["x-relay-request-id"] == (await server.logged()).id
    assert [tried["outcome"] for tried in record.summary["attempts"]] == ["rate_limited", "ok"]
    assert record.request.head["path"] == "/v1/messages"
    assert json.loads(record.request.body) == messages(text="I am [secret]", stream=True)
    attempts, answers = numbered(record, "attempt"), numbered(record, "answer")
    assert [leg.head["target"] for leg in attempts] == ["first/m", "second/m"]
    assert [leg.head["url"] for leg in attempts] == [
        f"{upstream.url}/{name}/v1/chat/completions" for name in "ab"
    ]
    sent = [request.body.replace(CLIENT_KEY.encode(), b"[secret]") for request in upstream.requests]
    assert [leg.body for leg in attempts] == sent
    assert [leg.head["status"] for leg in answers] == [429, 200]
    assert answers[1].body == answer.wire
    assert record.response.body == reply.body
    assert dict(attempts[1].headers)["Authorization"] == "Bearer [secret]"
    times = [at for at, _ in answers[1].blocks]
    assert len(times) >= 3
    assert times == sorted(times)
    assert times[-1] >= times[0] + 50
    assert SECRET.encode() not in written(server)


def numbered(record: program.Record, what: str) -> list[program.Leg]:
    """The attempts, or the answers, in the order in which they were made."""
    names = (f"{what} {number}" for number in range(1, 9))
    return [record.legs[name] for name in names if name in record.legs]


async def test_files_are_their_owners_alone(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    await ask(http, server, headers=AS_ALICE)
    await records(server, 1)
    directory = ring_of(server).directory
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert (modes, stat.S_IMODE(directory.stat().st_mode)) == ({0o600}, 0o700)


async def test_without_record_nothing_is_written(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server)
    await server.logged()
    assert not (server.file.parent / "records").exists()
    ran = await command(server, "records")
    lacking = "nothing is recorded: the configuration has no `record.directory`\n"
    assert (ran.status, ran.stderr) == (1, lacking)


@pytest.mark.parametrize(
    ("record", "lacking"),
    [
        ("{directory: records}", "record.directory: HOME/records: made when relay first serves\n"),
        ("{}", "nothing is recorded: the configuration has no `record.directory`\n"),
    ],
)
@pytest.mark.parametrize("command", [("records",), ("replay", "last"), ("export", "last")])
async def test_where_nothing_was_recorded_yet_it_says_why(
    command: tuple[str, ...], record: str, lacking: str, tmp_path: Path
) -> None:
    text = f"providers: {{demo: {{api_format: demo}}}}\nrecord: {record}\n"
    (tmp_path / "config.yaml").write_text(text)
    ran = await run(*command, cwd=tmp_path)
    if command[0] == "replay" and record == "{}":  # it needs a configuration that could be served
        assert (ran.status, ran.stderr) == (2, "config.yaml:2:1: record.directory: required\n")
    else:
        assert (ran.status, ran.stderr) == (1, lacking.replace("HOME", str(tmp_path)))


async def test_whatever_way_it_ends_there_is_a_record(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    assert (await ask(http, server, headers=AS_ALICE, raw=b"no json")).status == 400
    upstream.script(chat_stream(text="Hello you.").but(cut_after=450))
    async with dial(server) as wire:
        await wire.post("openai", AS_ALICE)
        broken = await wire.reply()
    assert not broken.clean
    silent = chat_stream(text="Hello you.")
    upstream.script(silent.but(hold={4: asyncio.Event()}))
    async with dial(server) as wire:
        await wire.post("openai", AS_ALICE)
        await wire.head()
        seen = await wire.until(b"Hello")
    left, cut, refused = await records(server, 3)
    assert [r.summary["code"] for r in (refused, cut, left)] == ["BR", "UR", "CD"]
    assert refused.request.body == b"no json"
    assert cut.response.body == broken.body
    assert left.response.body.startswith(seen)


async def test_who_has_no_key_pushes_nothing_out(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    for headers in ({}, {"x-api-key": f"{CLIENT_KEY}x"}):
        assert (await ask(http, server, headers=headers)).status == 401
        async with http.post(
            f"{server.url}/p/first/v1/any", headers=headers, data=b"x"
        ) as response:
            assert response.status == 401
    reply = await ask(http, server, headers=AS_ALICE)
    await server.logged(5)
    await server.stop()
    (record,) = await records(server, 1)
    assert record.id == reply.headers["x-relay-request-id"]


async def test_a_caller_whose_name_begins_its_key_keeps_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice-laptop": {"key": "alice-laptop-1"}, "bobby": {"key": "bobby-key-2"}}
    server = await relay(recorded(upstream, keys=keys))
    for key in ("alice-laptop-1", "bobby-key-2"):
        assert (await ask(http, server, headers={"x-api-key": key})).status == 200
    assert [r.summary["key"] for r in await records(server, 2)] == ["bobby", "alice-laptop"]
    assert (await command(server, "replay", "last", "--save")).status == 0
    newest, *_ = await records(server, 3)
    assert newest.summary["key"] == "bobby"
    assert b"bobby-key-2" not in written(server)


async def test_what_is_forwarded_is_kept_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay({**one(upstream), "keys": KEYS, "record": RECORD})
    upstream.script(whole({"ok": True}))
    url, headers = server.url, AS_ALICE
    body = b'{"model": "embed", "input": "a"}'
    async with http.post(f"{url}/v1/embeddings", data=body, headers=headers) as reply:
        assert await reply.json() == {"ok": True}
    form = FormData({"model": "whisper"})
    form.add_field("file", b"\xff\xfe sound", filename="a.wav")
    async with http.post(f"{url}/v1/audio/transcriptions", data=form, headers=headers) as reply:
        assert await reply.json() == {"ok": True}
    async with http.put(f"{url}/p/first/files/1?a=b", data=b"raw", headers=headers) as reply:
        assert await reply.json() == {"ok": True}
    raw, sound, embedding = await records(server, 3)
    assert embedding.request.body == body == numbered(embedding, "attempt")[0].body
    assert b"\xff\xfe sound" in sound.request.body
    assert sound.request.body == upstream.requests[1].body
    assert (raw.request.head["method"], raw.request.body) == ("PUT", b"raw")
    for record in (raw, sound, embedding):
        assert record.response.body == numbered(record, "answer")[0].body == b'{"ok": true}'
    assert SECRET.encode() not in written(server)


# ---- Bounds


async def test_the_ring_is_bounded_also_over_a_restart(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    keep = {"directory": str(shared), "keep": "200KB"}
    first, second = [await relay(recorded(upstream, record=keep)) for _ in range(2)]
    servers = [first, second] * 10
    ids = list[str]()
    for server in servers:
        reply = await ask(http, server, headers=AS_ALICE, text="x" * 8000)
        ids.append(reply.headers["x-relay-request-id"])
    assert [await server.stop() for server in (first, second)] == [0, 0]
    third = await relay(recorded(upstream, record=keep))
    for _ in range(5):
        reply = await ask(http, third, headers=AS_ALICE, text="x" * 8000)
        ids.append(reply.headers["x-relay-request-id"])
    assert await third.stop() == 0
    assert sum(path.stat().st_size for path in shared.iterdir()) <= 200 << 10
    ring = program.Ring(shared, 200 << 10)
    names = [name.partition("-")[2].removesuffix(".jsonl") for name in ring.names()]
    assert 4 < len(names) < 20
    assert set(ids[-4:]) < set(names) < set(ids)
    assert ring.read("last").id == ids[-1]


async def test_a_kill_leaves_files_that_can_be_read(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    for _ in range(3):
        await ask(http, server, headers=AS_ALICE)

    async def keep_asking() -> None:
        while True:
            await ask(http, server, headers=AS_ALICE)

    busy = [asyncio.create_task(keep_asking()) for _ in range(4)]
    await server.logged(20)

    async def some_are_kept() -> bool:
        return len(ring_of(server).names()) > 3

    await eventually(some_are_kept)
    server.process.send_signal(signal.SIGKILL)
    await server.exited()
    ended = await asyncio.gather(*busy, return_exceptions=True)
    assert all(isinstance(each, Exception) for each in ended)
    ran = await command(server, "records", "--number", "1000")
    lines = ran.stdout.splitlines()
    assert len(lines) > 3
    assert "skipped" not in ran.stdout
    assert all("m -> first/m" in line for line in lines)


async def test_a_stuck_disk_holds_nobody_up(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    os.mkfifo(ring_of(server).directory / ".ring")  # whoever reads it waits for ever
    for _ in range(20):
        assert (await ask(http, server, headers=AS_ALICE)).said.text == TEXT
    assert ring_of(server).names() == []
    assert await server.stop() == 0


async def test_a_lost_directory_is_told_and_nothing_else(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    shutil.rmtree(ring_of(server).directory)

    def said() -> list[JSON]:
        return [line for line in server.log() if line.get("message") == "records were lost"]

    async def told() -> bool:
        assert (await ask(http, server, headers=AS_ALICE)).said.text == TEXT
        return bool(said())

    await eventually(told)
    (event,) = said()
    assert event["reason"] == "No such file or directory"
    assert event["records"] >= 1


# ---- Configuration


async def test_what_is_no_request_is_not_recorded(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    async with http.get(f"{server.url}/nothing") as response:
        assert response.status == 404
    await ask(http, server, headers=AS_ALICE)
    await server.logged(2)
    await server.stop()
    assert len(list((server.file.parent / "records").glob("*.jsonl"))) == 1


async def test_a_directory_others_can_see_is_refused(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir(0o755)
    (tmp_path / "config.yaml").write_text(
        json.dumps(recorded(upstream, record={"directory": str(tmp_path / "open")}))
    )
    ran = await run("serve", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert (ran.status, ran.stdout) == (2, "")
    assert "chmod 700" in ran.stderr
    assert ran.stderr.count("\n") == 1


async def test_recording_begins_and_ends_with_a_reload(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, keys=KEYS))
    await ask(http, server, headers=AS_ALICE)
    server.write(recorded(upstream))
    assert "reloaded" in await server.hup()
    await ask(http, server, headers=AS_ALICE)
    await records(server, 1)
    (server.file.parent / "open").mkdir(0o755)
    server.write(recorded(upstream, record={"directory": "open"}))
    assert "nothing changed" in await server.hup()
    await ask(http, server, headers=AS_ALICE)
    await records(server, 2)
    server.write(config(upstream, keys=KEYS))
    assert "reloaded" in await server.hup()
    await ask(http, server, headers=AS_ALICE)
    await server.logged(4)
    assert await server.stop() == 0
    assert len(ring_of(server).names()) == 2


# ---- Commands


async def test_records_are_listed_and_the_damaged_skipped(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    ids = list[str]()
    for _ in range(3):
        ids.append((await ask(http, server, headers=AS_ALICE)).headers["x-relay-request-id"])
        await records(server, len(ids))
    ring = ring_of(server)
    damaged = ring.directory / ring.names()[1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    ran = await command(server, "records")
    lines = ran.stdout.splitlines()
    assert ran.status == 0
    assert lines[0].startswith(ids[2])
    assert lines[0].endswith("OK 200  m -> first/m")
    assert lines[1] == f"{damaged}: skipped: it is not whole"
    assert lines[2].startswith(ids[0])
    assert len((await command(server, "records", "--number", "1")).stdout.splitlines()) == 1
    hour = datetime.datetime.now(zoneinfo.ZoneInfo("Pacific/Kiritimati")).strftime("%Y-%m-%d %H:")
    server.file.write_text("timezone: Pacific/Kiritimati\n" + server.file.read_text())
    assert f"  {hour}" in (await command(server, "records")).stdout
    ran = await command(server, "diff", "last", "zzz")
    assert (ran.status, ran.stderr) == (1, "no record begins with 'zzz'\n")


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_sent_again(
    dialect: str, stream: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    reply = await ask(http, server, dialect, headers=AS_ALICE, stream=stream)
    await records(server, 1)
    ran = await command(server, "replay", reply.headers["x-relay-request-id"][:9])
    assert ran.status == 0, ran.output
    before, after = upstream.requests
    assert (before.path, before.body) == (after.path, after.body)
    assert after.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert ran.stdout.startswith(f"{TEXT}\n\n")
    assert re.search(rf"^text +{len(TEXT)} characters +the same$", ran.stdout, re.M)
    assert "status    200 OK" in ran.stdout
    await records(server, 1)
    assert (await command(server, "replay", "last", "--save")).status == 0
    await records(server, 2)


async def test_a_request_is_sent_to_another_target(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="From a."), path="/a/v1/chat/completions")
    call = ("call_1", "look", '{"at":"it"}')
    upstream.script(chat_whole(text="From b.", calls=[call]), path="/b/v1/chat/completions")
    server = await relay(recorded(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1"))
    await ask(http, server, headers=AS_ALICE)
    await records(server, 1)
    ran = await command(server, "replay", "last", "--to", "second/their-model")
    assert ran.status == 0, ran.output
    assert upstream.requests[1].json["model"] == "their-model"
    assert ran.stdout.startswith('From b.\n[look({"at":"it"})]\n\n')
    assert "text: 'From a.' | 'From b.'" in ran.stdout
    assert "second/their-model" in ran.stdout
    ran = await command(server, "replay", "last", "--to", "nobody/x")
    assert (ran.status, ran.stderr) == (2, "--to nobody/x: there is no such provider\n")
    assert len(upstream.requests) == 2


async def test_what_a_key_may_not_use_is_refused_again(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice": {"key": CLIENT_KEY, "models": ["other-*"]}}
    server = await relay(recorded(upstream, keys=keys))
    assert (await ask(http, server, headers=AS_ALICE)).status == 403
    await records(server, 1)
    ran = await command(server, "replay", "last")
    assert ran.status == 1
    assert "status    403" in ran.stdout
    assert upstream.requests == []


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_half_a_character_does_not_end_recording(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """A name that cannot be written as UTF-8 is among what was dropped, as the record says."""
    server = await relay(recorded(upstream))
    for text in ("one", "two"):
        body = json.dumps(DIALECTS[dialect].body(text=text) | {"zz\ud800": 1, "user": "\udcff"})
        await http.post(server.url + DIALECTS[dialect].path, data=body, headers=AS_ALICE)
    second, first = await records(server, 2)
    assert [json.loads(each.request.body)["zz\ud800"] for each in (first, second)] == [1, 1]


async def test_an_answer_that_fails_again_is_told(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    upstream.script(
        chat_stream(text="Hello you."), chat_stream(text="Hello you.").but(cut_after=450)
    )
    await stream_of_alice(server)
    await records(server, 1)
    ran = await command(server, "replay", "last")
    assert ran.status == 1
    assert "200 UR" in ran.stdout


async def stream_of_alice(server: RelayProcess) -> None:
    async with dial(server) as wire:
        await wire.post("openai", AS_ALICE)
        assert (await wire.reply()).clean


async def test_two_exchanges_are_compared(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(recorded(upstream))
    ids = list[str]()
    for text in ("one", "two"):
        reply = await ask(http, server, headers={**AS_ALICE, "x-turn": text}, text=text)
        ids.append(reply.headers["x-relay-request-id"])
    await records(server, 2)
    ran = await command(server, "diff", *ids)
    assert ran.status == 0
    assert ran.stdout.startswith(
        "header x-turn: 'one' | 'two'\nbody.messages[0].content: 'one' | 'two'\n"
    )
    assert re.search(rf"^text +{len(TEXT)} characters +the same$", ran.stdout, re.M)


AWKWARD = 'it\'s "$HOME" `ls` \\n \n ü \u2028 !! 100%s'


async def test_an_exported_command_says_the_same(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tool: object
) -> None:
    assert callable(tool)
    bash, _ = tool("bash"), tool("curl")
    server = await relay(recorded(upstream, record={"directory": "records"}))
    await ask(http, server, headers={**AS_ALICE, "x-odd": "it's $HOME"}, text=AWKWARD * 4000)
    await records(server, 1)
    client = await command(server, "export", "last")
    assert client.stdout == (await command(server, "export", "last", "--curl")).stdout
    provider = await command(server, "export", "last", "--curl", "--attempt", "1")
    assert SECRET not in client.output + provider.output
    assert "${RELAY_KEY}" in client.stdout
    assert "${FIRST_API_KEY}" in provider.stdout
    keys = {"RELAY_KEY": CLIENT_KEY, "FIRST_API_KEY": UPSTREAM_KEY}
    for text in (client.stdout, provider.stdout):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            bash, env={**os.environ, **keys}, stdin=pipe, stdout=pipe
        )
        said, _ = await process.communicate(text.encode())
        assert json.loads(said)["choices"][0]["message"]["content"] == TEXT
    first, *others = upstream.requests
    assert len(others) == 2
    for other in others:
        assert (other.path, other.body) == (first.path, first.body)
        assert other.headers["x-odd"] == "it's $HOME"
        assert other.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
