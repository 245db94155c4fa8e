"""/admin: who may look and who may act, what is seen, what is done."""

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import re
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator
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


async def test_a_login_is_read_only_as_far_as_a_key_can_reach(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    url = f"{server.url}/admin/login"

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1000

    for body in (b'{"key": "%b"}' % (b"x" * 20_000), pieces()):
        async with http.post(url, data=body) as response:
            assert response.status == 413
            assert "16KB" in await response.text()
    async with http.post(url, json={"key": ADMIN}) as response:
        assert response.status == 200


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
    for path in ("file", "tree", "record"):
        async with http.get(f"{server.url}/admin/{path}") as response:
            assert response.status == 403
    for path in (
        *("reload", "file", "disable", "abandon", "health/clear", "config/edit", "chat", "test"),
        *("secret", "pull", "replay"),
    ):
        assert (await post(http, server, path, {}, x="y"))[0] == 403, path
    async with http.get(f"{server.url}/admin/nothing") as response:
        assert response.status == 404


# What is seen


async def test_the_configuration_in_force_is_shown_without_secrets(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice": {"key": f"{SECRET}-alice", "models": ["m"]}}
    hashed = {"key": f"sha256:{'0' * 64}", "expires": "2099-01-01"}
    off = {"preset": "deepseek", "api_key": "${KEY_OF_NOBODY:-sk-never}", "active": False}
    providers = one(upstream, active=True)["providers"] | {"off": off}
    keys |= {"bob": hashed}
    server = await relay({"providers": providers, "admin_key": ADMIN, "keys": keys})
    text = (await get(http, server, "config"))["text"]
    assert "sk-never" not in text
    assert "sk-never" not in str(await get(http, server, "tree"))
    shown = yaml.safe_load(text)
    assert shown["providers"]["first"]["endpoint"] == upstream.url
    assert shown["keys"]["alice"] == {"key": "[secret]", "models": ["m"]}
    assert shown["keys"]["bob"] == {"key": "sha256:[secret]", "expires": "2099-01-01"}
    assert shown["providers"]["off"]["api_key"] == "[secret]"
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


# The page's own: what is configured, and edits of the file


async def test_names_are_shown_with_where_they_go_and_why(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    two = config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1")
    rules = {"m": ["first/x", "second/y"], "g-*": "second"}
    server = await relay(two | {"admin_key": ADMIN, "routing_rules": rules})
    found = await get(http, server, "models")
    shown = {model["name"]: model for model in found["models"]}
    assert shown["m"]["groups"] == [["first/x"], ["second/y"]]
    assert (shown["m"]["why"], "g-*" in found["globs"]) == ("rule m", True)
    (other,) = (await get(http, server, "models?name=g-7"))["models"]
    assert (other["why"], other["groups"]) == ("rule g-*", [["second/g-7"]])


async def test_keys_are_shown_with_what_is_used_of_them(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(usage={"prompt_tokens": 1000, "completion_tokens": 200}))
    limits = {"rpm": 9, "tokens_per_day": 5000, "cost_per_day": 2, "concurrent": 3}
    keys = {"alice": {"key": f"{SECRET}-alice", "limits": limits}, "bob": {"key": f"{SECRET}-bob"}}
    prices = {"*": {"input": 1, "output": 4}}
    server = await relay(one(upstream, prices=prices) | {"admin_key": ADMIN, "keys": keys})
    assert (await ask(http, server, headers={"x-api-key": f"{SECRET}-alice"})).status == 200
    await server.logged()
    alice, bob = (await get(http, server, "keys"))["keys"]
    assert alice["limits"] == limits
    used = {"rpm": 1, "tokens_per_day": 1200, "cost_per_day": 0.0018, "concurrent": 0}
    assert alice["used"] == used
    assert (bob["name"], bob["limits"], bob["expired"]) == ("bob", {}, False)


async def test_usage_says_how_long_first_events_took(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_stream(text="here"))
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    for _ in range(3):
        await ask(http, server, stream=True)
    hours = (await get(http, server, "usage?hours=48"))["first_events"]
    assert hours[-1]["count"] == 3
    assert 0 < hours[-1]["p50"] <= hours[-1]["p95"] <= 5
    async with http.get(f"{server.url}/admin/usage?hours=x", headers=KEYED) as response:
        assert response.status == 400


async def test_the_tree_of_the_file_has_references_but_no_secrets(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    text = f"""\
admin_key: {ADMIN}
keys: {{on: {{key: {SECRET}-on}}, off: {{key: "sha256:{"0" * 64}"}}}}
providers:
  first:
    api_format: openai
    endpoint: http://127.0.0.1:9
    proxy: http://user:{SECRET}-url@127.0.0.1:9
    api_key: [{SECRET}-1, "${{KEY_TWO}}"]
    headers: {{Authorization: "Bearer {SECRET}-3"}}
"""
    server = await relay(text, env={"KEY_TWO": f"{SECRET}-2"})
    shown = await get(http, server, "tree")
    assert SECRET not in str(shown)
    tree = shown["tree"]
    assert tree["keys"] == {"on": {"key": "[secret]"}, "off": {"key": f"sha256:{'0' * 64}"}}
    first = tree["providers"]["first"]
    assert first["api_key"] == ["[secret]", "${KEY_TWO}"]
    assert first["headers"] == {"Authorization": "[secret]"}
    server.file.write_text("a: [")
    assert (await get(http, server, "tree"))["tree"] is None


async def test_a_change_keeps_comments_and_is_shown_before_it_is_saved(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    head = f"# ours\nadmin_key: {ADMIN}   # not for everybody\nproviders:\n"
    first = (
        f"  first: {{api_format: openai, endpoint: {upstream.url}, priority: 1}}   # the usual\n"
    )
    server = await relay(head + first)
    before, digest = server.file.read_text(), (await get(http, server, "tree"))["digest"]
    key = f"{SECRET}-new"
    changes = [
        {"path": ["providers", "first", "priority"], "value": 7},
        {"path": ["providers", "second"], "value": {"preset": "deepseek", "api_key": key}},
    ]
    edit = {"digest": digest, "changes": changes}
    status, seen = await post(http, server, "config/edit", edit)
    assert (status, seen["problems"], seen["digest"]) == (200, [], digest)
    assert "+    api_key: [secret]" in seen["diff"].splitlines()
    assert server.file.read_text() == before  # only shown
    status, seen = await post(http, server, "config/edit", edit | {"save": True})
    assert "provider second: added" in seen["said"]
    after = before.replace("priority: 1", "priority: 7").replace(
        "# the usual\n", f"# the usual\n  second:\n    preset: deepseek\n    api_key: {key}\n"
    )
    assert server.file.read_text() == after
    # the file is another one now
    status, seen = await post(http, server, "config/edit", edit | {"save": True})
    assert (status, server.file.read_text()) == (409, after)
    # what is wrong is said, and nothing is saved
    digest = (await get(http, server, "tree"))["digest"]
    wrong = {"digest": digest, "changes": [{"path": ["providers", "first", "prio"], "value": 1}]}
    status, seen = await post(http, server, "config/edit", wrong | {"save": True})
    assert (status, seen["said"], server.file.read_text()) == (200, "", after)
    assert re.search(r":\d+:\d+: providers.first.prio: unknown key", seen["problems"][0])
    for path in (["nothing", 3, "x"], [["x"]], [None]):
        change = {"digest": digest, "changes": [{"path": path, "delete": True}]}
        assert (await post(http, server, "config/edit", change))[0] == 400
    gone = {"digest": digest, "changes": [{"path": ["providers", "second"], "delete": True}]}
    assert (await post(http, server, "config/edit", gone | {"save": True}))[0] == 200
    assert server.file.read_text() == before.replace("priority: 1", "priority: 7")


async def test_a_file_of_windows_keeps_its_line_ends_and_loses_its_mark(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    text = server.file.read_text()
    server.file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert (await get(http, server, "file"))["text"] == text.replace("\n", "\r\n")
    # as the editor of a browser sends it
    edited = {"text": text + "default: first/m\n", "save": True}
    status, answer = await post(http, server, "config/edit", edited)
    assert (status, answer["problems"]) == (200, [])
    assert [line for line in answer["diff"].splitlines() if line[0] in "+-"] == [
        "+default: first/m"
    ]
    changes = [{"path": ["keys", "bob"], "value": {"key": f"{SECRET}-bob"}}]
    status, answer = await post(http, server, "config/edit", {"changes": changes, "save": True})
    assert (status, answer["problems"]) == (200, [])
    assert SECRET not in answer["diff"]
    data = server.file.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n")
    assert yaml.safe_load(data)["keys"] == {"bob": {"key": f"{SECRET}-bob"}}


async def test_a_key_that_is_typed_for_one_plan_is_not_in_the_diff(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    keys = {"path": ["providers", "second", "api_key", "coding"], "value": f"{SECRET}-coding"}
    status, answer = await post(http, server, "config/edit", {"changes": [keys]})
    assert (status, SECRET in answer["diff"]) == (200, False)
    assert "+      coding: [secret]" in answer["diff"].splitlines()
    status, answer = await post(http, server, "config/edit", {"changes": [{"path": []}]})
    assert status == 200
    assert answer["problems"]  # of no path: the whole file would be nothing


@pytest.mark.parametrize("step", [True, None, 1.5, [], {}])
async def test_a_path_has_names_and_numbers(
    step: JSON, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m", "n"]) | {"admin_key": ADMIN})
    change = {"path": ["providers", "first", "models", step], "value": "x"}
    status, answer = await post(http, server, "config/edit", {"changes": [change]})
    assert (status, answer["error"]["message"]) == (
        400,
        "path: expected names, and numbers of items",
    )


async def test_of_two_changes_at_once_one_is_refused(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"admin_key": ADMIN})
    digest = (await get(http, server, "tree"))["digest"]
    saves = [
        post(
            http,
            server,
            "config/edit",
            {
                "digest": digest,
                "save": True,
                "changes": [{"path": ["providers", "first", "priority"], "value": number}],
            },
        )
        for number in range(1, 6)
    ]
    answers = await asyncio.gather(*saves)
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409]
    (index,) = (at for at, (status, _) in enumerate(answers) if status == 200)
    assert yaml.safe_load(server.file.read_text())["providers"]["first"]["priority"] == index + 1


async def test_a_chat_is_a_request_of_the_key_that_is_named(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="here"))
    keys = {
        "alice": {"key": f"{SECRET}-alice", "models": ["m"], "limits": {"rpm": 1}},
        "bob": {"key": f"{SECRET}-bob", "expires": "2020-01-01"},
    }
    server = await relay(one(upstream) | {"admin_key": ADMIN, "keys": keys})
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}
    for name, model, headers, status in (
        ("alice", "m", {}, 401),
        ("alice", "m", {"x-api-key": f"{SECRET}-alice"}, 401),  # a caller is no admin
        ("bob", "m", KEYED, 401),
        ("nobody", "m", KEYED, 401),
        ("alice", "other", KEYED, 403),
        ("alice", "m", KEYED, 200),
        ("alice", "m", KEYED, 429),
    ):
        url = f"{server.url}/admin/chat?key={name}"
        async with http.post(url, json=body | {"model": model}, headers=headers) as response:
            assert response.status == status, (name, model, await response.text())
    await server.logged(7)
    assert [line.key for line in server.lines() if line.code == "OK"] == ["alice"]
    assert "Authorization" not in upstream.requests[-1].headers or (
        ADMIN not in upstream.requests[-1].headers["Authorization"]
    )


async def test_a_record_is_shown_sent_again_and_printed(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="here"))
    server = await relay(one(upstream) | {"admin_key": ADMIN, "record": {"directory": "records"}})
    id = (await ask(http, server)).headers["x-relay-request-id"]
    path = server.file.parent / "records"
    async with asyncio.timeout(SOON):
        while not list(path.glob("*.jsonl")):  # noqa: ASYNC110  # a thread writes it
            await asyncio.sleep(0.05)
    record = await get(http, server, f"record?id={id}")
    assert [leg["name"] for leg in record["legs"]] == [
        "request",
        "attempt 1",
        "answer 1",
        "response",
    ]
    assert UPSTREAM_KEY not in str(record)
    said = (await post(http, server, "replay", {"id": id, "curl": True}))[1]["said"]
    assert said.startswith("printf %s ")
    said = (await post(http, server, "replay", {"id": id}))[1]["said"]
    assert said.startswith("here\n")
    for wrong in ("-h", "../x", "zz"):
        assert (await post(http, server, "replay", {"id": wrong}))[0] == 400
    async with http.get(f"{server.url}/admin/record?id=abcd", headers=KEYED) as response:
        assert response.status == 404


async def test_what_a_provider_serves_is_pulled_and_a_test_is_a_table(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m", "gone"]) | {"admin_key": ADMIN})
    (pulled,) = (await post(http, server, "pull", {"provider": "first"}))[1]["lists"]
    assert (pulled["served"], pulled["listed"]) == (["upstream-model"], ["m", "gone"])
    tried = (await post(http, server, "test", {"provider": "first"}))[1]
    assert (tried["well"], [trial["dialect"] for trial in tried["trials"]]) == (True, ["openai"])
    assert {"whole", "stream", "tool"} <= tried["trials"][0]["cells"].keys()
    assert "whole" in tried["said"]
    for path in ("pull", "test"):
        assert (await post(http, server, path, {"provider": "--help"}))[0] == 404


async def test_tools_are_set_up_for_a_key_at_an_address(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys = {"alice": {"key": f"{SECRET}-alice", "models": ["n"]}}
    server = await relay(one(upstream, models=["m", "n"]) | {"admin_key": ADMIN, "keys": keys})
    base = "https://relay.example:8484"
    tools = (await get(http, server, f"connect?key=alice&base={base}"))["tools"]
    assert f"ANTHROPIC_BASE_URL={base}" in tools["claude"]
    assert "ANTHROPIC_AUTH_TOKEN=YOUR_KEY" in tools["claude"]
    assert 'model="n"' in tools["codex"]
    assert SECRET not in str(tools)
    for query in (f"key=eve&base={base}", "key=alice&base=file:///etc", "key=alice"):
        async with http.get(f"{server.url}/admin/connect?{query}", headers=KEYED) as response:
            assert response.status in (400, 404), query
    made = (await post(http, server, "secret", {}))[1]
    assert made["hash"] == "sha256:" + hashlib.sha256(made["secret"].encode()).hexdigest()


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
