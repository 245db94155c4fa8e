"""/admin: who may look and who may act, what is seen, what is done."""

import asyncio
import contextlib
import json
import os
import pty
import re
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import ClientSession
from fake_upstream import HEAD, FakeUpstream, chat_stream, chat_whole
from relay_process import PROGRAM, SECRET, SOON, STARTED, RelayProcess, Start, run
from talk import JSON, UPSTREAM_KEY, ask, config, one

ADMIN = f"{SECRET}-admin"
KEYED = {"Authorization": f"Bearer {ADMIN}"}


async def get(http: ClientSession, server: RelayProcess, path: str, **how: JSON) -> JSON:
    async with http.get(f"{server.url}/admin/{path}", headers=KEYED, **how) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def post(
    http: ClientSession, server: RelayProcess, path: str, body: JSON, **headers: str
) -> tuple[int, JSON]:
    url = f"{server.url}/admin/{path}"
    async with http.post(url, json=body, headers=headers or KEYED) as response:
        return response.status, await response.json()


async def events(http: ClientSession, server: RelayProcess) -> AsyncGenerator[tuple[str, JSON]]:
    async with http.get(f"{server.url}/admin/events", headers=KEYED) as response:
        kind = ""
        async for line in response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


# Who


async def test_the_page_itself_may_be_seen_by_anybody_and_loads_nothing(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    async with http.get(server.url) as response:
        policy = response.headers["Content-Security-Policy"]
        page = await response.text()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert ADMIN not in page


async def test_a_session_looks_and_only_its_page_acts(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    assert (await post(http, server, "login", {"key": "wrong"}, x="y"))[0] == 401
    url = f"{server.url}/admin/login"
    async with http.post(url, json={"key": ADMIN}) as response:
        said = response.headers["Set-Cookie"]
        assert response.status == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/admin"} <= set(said.split("; "))
    assert ADMIN not in said
    cookie = said.partition(";")[0]
    async with http.get(f"{server.url}/admin/status", headers={"Cookie": cookie}) as response:
        assert (response.status, (await response.json())["session"]) == (200, True)
    for headers, status in (
        ({"Cookie": cookie}, 401),  # as another site's form would send it
        ({"Cookie": cookie, "X-Relay-Page": "1"}, 200),
        ({"Cookie": "relay_session=made-up", "X-Relay-Page": "1"}, 401),
    ):
        assert (await post(http, server, "reload", {}, **headers))[0] == status, headers
    own = {"Cookie": cookie, "X-Relay-Page": "1"}
    assert (await post(http, server, "logout", {}, **own))[0] == 200
    assert (await post(http, server, "reload", {}, **own))[0] == 401


async def test_another_admin_key_ends_the_sessions_of_the_one_before(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    async with http.post(f"{server.url}/admin/login", json={"key": ADMIN}) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    for key, status in ((ADMIN, 200), (f"{ADMIN}-2", 401)):
        server.write(one(upstream) | {"admin_key": key})
        await server.hup()
        async with http.get(f"{server.url}/admin/status", headers={"Cookie": cookie}) as response:
            assert response.status == status


async def test_a_sixth_wrong_key_in_a_minute_has_to_wait(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    tries = [await post(http, server, "login", {"key": f"{n}"}, x="y") for n in range(6)]
    assert [status for status, _ in tries] == [401] * 5 + [429]
    assert (await post(http, server, "login", {"key": ADMIN}, x="y"))[0] == 429
    assert (await get(http, server, "status"))["version"]  # the key in a header works on


async def test_wrong_keys_in_a_header_have_to_wait_and_the_right_one_does_not(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})

    async def status(key: str, path: str = "status") -> int:
        headers = {"x-api-key": key}
        async with http.get(f"{server.url}/admin/{path}", headers=headers) as response:
            return response.status

    assert [await status(f"wrong{n}") for n in range(7)] == [401] * 5 + [429] * 2
    assert await status(ADMIN) == 200
    elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with ClientSession(connector=elsewhere) as other:
        url = f"{server.url}/admin/login"
        for key, expected in (("wrong", 401), (ADMIN, 200)):
            async with other.post(url, json={"key": key}) as response:
                assert response.status == expected
        async with other.get(f"{server.url}/admin/status", headers={"x-api-key": "w"}) as response:
            assert response.status == 401


async def test_who_logs_out_watches_no_longer(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    async with http.post(f"{server.url}/admin/login", json={"key": ADMIN}) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    own = {"Cookie": cookie, "X-Relay-Page": "1"}
    async with http.get(f"{server.url}/admin/events", headers=own) as watching:
        await watching.content.readline()
        assert (await post(http, server, "logout", {}, **own))[0] == 200
        async with asyncio.timeout(SOON):
            await watching.read()


@pytest.mark.parametrize(
    "header",
    [
        *("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via"),
        *("CF-Connecting-IP", "CF-Ray", "True-Client-IP", "X-Client-IP", "Fastly-Client-IP"),
    ],
)
async def test_without_an_admin_key_no_proxy_is_answered(
    header: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    for path in ("admin/status", "admin", "metrics"):
        async with http.get(f"{server.url}/{path}", headers={header: "1.2.3.4"}) as response:
            assert response.status in (401, 403), path
    async with http.get(f"{server.url}/admin/status") as response:
        assert response.status == 200


async def test_without_an_admin_key_this_machine_looks_and_nobody_acts(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    for path in ("status", "health", "usage", "config", "login"):
        async with http.get(f"{server.url}/admin/{path}") as response:
            assert response.status == 200, path
    async with http.get(f"{server.url}/admin/status", headers={"Host": "evil.example"}) as response:
        assert response.status == 403
        assert "relay has no `admin_key`" in (await response.json())["error"]["message"]
    assert (await post(http, server, "login", {"key": "any"}, x="y"))[0] == 403
    async with http.get(f"{server.url}/admin/file") as response:
        assert response.status == 403
    for path in ("reload", "file", "disable", "abandon", "health/clear"):
        assert (await post(http, server, path, {}, x="y"))[0] == 403, path
    async with http.get(f"{server.url}/admin/nothing") as response:
        assert response.status == 404


# What is seen


async def test_the_configuration_in_force_is_shown_without_secrets(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice": {"key": f"{SECRET}-alice", "models": ["m"]}}
    server = await relay(one(upstream, active=True) | {"admin_key": ADMIN, "keys": keys})
    text = (await get(http, server, "config"))["text"]
    shown = yaml.safe_load(text)
    assert shown["providers"]["first"]["endpoint"] == upstream.url
    assert shown["keys"]["alice"] == {"key": "[secret]", "models": ["m"]}
    assert SECRET not in text
    assert UPSTREAM_KEY not in text


async def test_what_is_said_and_what_runs_is_told_as_it_happens(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    gate = asyncio.Event()
    upstream.script(chat_stream(text=["one", "two"]).but(hold={3: gate}))
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    asking = asyncio.create_task(ask(http, server, stream=True, model="m"))
    await upstream.arrived()
    seen: list[str] = []
    async with asyncio.timeout(SOON), aclosing(events(http, server)) as told:
        async for kind, said in told:
            seen.append(kind)
            if kind == "running" and said and said[0]["begun"]:
                assert said[0]["target"] == "first/m"
                assert said[0]["sent"] > 0
                gate.set()
            if kind == "request":
                assert (said["code"], said["target"]) == ("OK", "first/m")
                assert said["line"].endswith(said["id"])
                break
    assert seen[0] == "event"
    await asking


# What is done


async def test_a_silent_attempt_is_given_up_for_the_next_target(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    never = asyncio.Event()
    upstream.script(chat_stream().but(hold={HEAD: never}), path="/a/v1/chat/completions")
    upstream.script(chat_stream(text="from b"), path="/b/v1/chat/completions")
    server = await relay(
        config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1") | {"admin_key": ADMIN}
    )
    asking = asyncio.create_task(ask(http, server, stream=True))
    await upstream.arrived()
    async with asyncio.timeout(SOON), aclosing(events(http, server)) as told:
        async for kind, said in told:
            if kind == "running" and said:
                break
    assert said[0]["begun"] is False
    assert (await post(http, server, "abandon", {"id": said[0]["id"]}))[0] == 200
    reply = await asking
    assert (reply.said.text, reply.headers["x-relay-attempts"]) == ("from b", "2")
    assert (await post(http, server, "abandon", {"id": said[0]["id"]}))[0] == 404
    never.set()


async def test_a_provider_is_left_out_until_it_is_used_again_or_reloaded(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="here"))
    server = await relay(
        config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1") | {"admin_key": ADMIN}
    )

    async def served_by() -> str:
        return (await ask(http, server)).headers.get("x-relay-provider", "nobody")

    off = {"provider": "first", "disabled": True}
    assert (await post(http, server, "disable", off))[0] == 200
    assert await served_by() == "second"
    assert (await post(http, server, "disable", {"provider": "second"}))[0] == 200
    assert await served_by() == "nobody"
    message = (await ask(http, server)).error["message"]
    assert message.startswith("every target is left out: first/m: left out by the admin until")
    assert (await post(http, server, "disable", off | {"disabled": False}))[0] == 200
    assert await served_by() == "first"
    assert (await post(http, server, "disable", off))[0] == 200
    assert (await post(http, server, "reload", {}))[0] == 200
    assert await served_by() == "first"
    assert (await post(http, server, "disable", {"provider": "nobody"}))[0] == 404


async def test_the_file_is_changed_whole_or_not_at_all(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    os.chmod(server.file, 0o640)
    before = await get(http, server, "file")
    assert before["text"] == server.file.read_text()
    status, said = await post(http, server, "file", {"text": before["text"] + "\nlistn: 1\n"})
    assert status == 400
    assert re.search(r":\d+:1: listn: unknown key; did you mean 'listen'\?", str(said))
    assert server.file.read_text() == before["text"]
    text = "# a comment that stays\n" + before["text"] + "\ndefault: first/other\n"
    status, said = await post(http, server, "file", {"text": text, "digest": before["digest"]})
    assert (status, said["said"]) == (200, "default: changed")
    assert server.file.read_text() == text
    assert stat.S_IMODE(server.file.stat().st_mode) == 0o640
    assert server.file.with_name(server.file.name + ".bak").read_text() == before["text"]
    stale = {"text": before["text"], "digest": before["digest"]}
    status, said = await post(http, server, "file", stale)
    assert (status, "somebody else" in str(said)) == (409, True)


async def test_a_change_that_needs_a_restart_is_refused_before_it_is_written(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    text = server.file.read_text()
    for changed in (
        re.sub(r"listen: .*", "listen: 127.0.0.1:1", text),
        text + "\nstate: memory\n",
        text + "\ntls: {self_signed: true}\n",
    ):
        status, reply = await post(http, server, "file", {"text": changed})
        assert (status, "restart" in str(reply) or "tls" in str(reply)) == (400, True)
        assert server.file.read_text() == text
        assert [each.name for each in server.file.parent.iterdir() if ".new" in each.name] == []


async def test_an_error_of_relay_itself_is_one_line_of_the_log(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("import relay\ndef broken(*_): return 1 / 0\nrelay.usage_report = broken\n")
    server = await relay(one(upstream) | {"admin_key": ADMIN, "plugins": [str(plugin)]})
    async with http.get(f"{server.url}/admin/usage", headers=KEYED) as response:
        assert response.status == 500
        assert "relay's log" in (await response.json())["error"]["message"]
    await server.says("ZeroDivisionError")
    faults = [record for record in server.log() if record.get("type") == "ZeroDivisionError"]
    where = [each.split(":")[0] for each in faults[0]["where"]]
    assert (where[-1], "usage" in where) == ("broken", True)
    assert len(faults) == 1


async def test_a_path_of_any_length_is_answered_and_logged_in_short(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    for method in ("GET", "POST", "PUT", "DELETE"):
        url = f"{server.url}/v1/{'long' * 15000}"
        async with http.request(method, url) as response:
            assert (response.status, len(await response.read()) < 500) == (404, True)
    await server.until(lambda: len(server.lines()) == 4)
    assert max(map(len, server.stderr.splitlines())) < 2000


# The commands


async def test_logs_prints_the_lines_that_are_wanted(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="here"))
    server = await relay(one(upstream, models=["m"]) | {"admin_key": ADMIN})
    await ask(http, server)
    await ask(http, server, model="unknown")
    ran = await run("logs", "-c", str(server.file), cwd=server.file.parent)
    assert ran.status == 0, ran.output
    assert [line.split()[1] for line in ran.output.splitlines()] == ["info", "OK", "BR"]
    only = ("--code", "B*")
    ran = await run("logs", "-c", str(server.file), *only, cwd=server.file.parent)
    assert [line.split()[1] for line in ran.output.splitlines()] == ["BR"]


async def test_top_shows_what_ran_where_there_is_no_terminal(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="here"))
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    await ask(http, server, headers={"User-Agent": "claude-cli/2.1.329 (external, cli)"})
    await ask(http, server, headers={"User-Agent": f"{UPSTREAM_KEY}/1"})
    admin = {"x-api-key": ADMIN}
    async with http.post(f"{server.url}/admin/abandon", json={"id": "?"}, headers=admin) as reply:
        assert reply.status == 404
    ran = await run("top", "-c", str(server.file), cwd=server.file.parent)
    assert ran.status == 0, ran.output
    assert re.search(r"OK +claude-cli +- +m +first/m", ran.output)
    assert re.search(r"OK +- +- +m +first/m", ran.output)  # who shows a secret is not shown
    assert "BR" not in ran.output  # what an admin was refused is no model's request


async def test_top_gives_up_a_silent_attempt_from_a_terminal(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    never = asyncio.Event()
    upstream.script(chat_stream().but(hold={HEAD: never}), path="/a/v1/chat/completions")
    upstream.script(chat_stream(text="from b"), path="/b/v1/chat/completions")
    server = await relay(
        config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1") | {"admin_key": ADMIN}
    )
    asking = asyncio.create_task(ask(http, server, stream=True))
    await upstream.arrived()
    ours, theirs = pty.openpty()
    command = (sys.executable, str(PROGRAM), "top", "-c", str(server.file))
    top = await asyncio.create_subprocess_exec(*command, stdin=theirs, stdout=theirs)
    os.close(theirs)
    screen = Screen(ours)
    await screen.shows(b"waits")
    os.write(ours, b"a")
    assert (await asking).said.text == "from b"
    await screen.shows(b"given up")
    os.write(ours, b"q")
    await screen.shows(b"\x1b[?1049l")  # the screen as it was before
    assert await top.wait() == 0
    screen.close()
    never.set()


class Screen:
    """What a program wrote to its terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._said = b""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self._said += os.read(self._descriptor, 1 << 16)
        self._more.set()

    async def shows(self, text: bytes) -> None:
        """Wait until it is there; what stood before it is forgotten."""
        async with asyncio.timeout(STARTED):
            while text not in self._said:
                self._more.clear()
                await self._more.wait()
        self._said = self._said.partition(text)[2]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)


@pytest.mark.parametrize("command", ["logs", "top", "health"])
async def test_a_relay_that_does_not_run_is_said_to(command: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("listen: 127.0.0.1:9\nproviders: {d: {api_format: demo}}\n")
    ran = await run(command, "-c", "config.yaml", cwd=tmp_path)
    assert ran.status == 1
    assert "no relay answers at 127.0.0.1:9 (Connection refused): start it" in ran.output
