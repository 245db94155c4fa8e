"""SIGHUP: a good file is taken at once, a bad one changes nothing, what runs runs on."""

import asyncio
import re
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream, chat_error, chat_stream, chat_whole
from relay_process import SECRET, Start, free_port, run
from talk import CLIENT_KEY, JSON, ask, chat, config, dial, one

BAD: dict[str, tuple[JSON, str]] = {  # a change, and what is said about it
    "unknown key": ({"defalt": "first"}, "default"),
    "dead rule": ({"routing_rules": {"m": "nobody"}}, "nobody"),
    "no providers": ({"providers": {}}, "providers"),
    "not yet": ({"timeouts": {"idle": -1}}, "timeouts"),
    "no path": ({"plugins": ["\0"]}, "plugins[0]"),
    "no text": ({"record": {"directory": None}}, "record.directory"),
}


async def test_a_new_provider_serves_after_the_signal(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["old"]))
    assert (await ask(http, server, model="new")).status == 404
    server.write(one(upstream, models=["new"]))
    await server.hup()
    assert (await ask(http, server, model="new")).said.text == TEXT
    assert (await ask(http, server, model="old")).status == 404


async def test_what_changed_is_said(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    server.write(config(upstream, upstream))
    said = await server.hup()
    assert "second" in said
    assert SECRET not in said


async def test_the_file_alone_changes_nothing(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]))
    server.write(one(upstream, models=["other"]))
    assert (await ask(http, server)).said.text == TEXT


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
async def test_a_bad_file_changes_nothing_and_is_explained(
    change: JSON, said: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    server.write({**config(upstream), **change})
    report = await server.hup()
    assert re.search(r"config\.yaml:\d+:\d+", report)
    assert said in report
    assert (await ask(http, server)).said.text == TEXT


async def test_a_file_that_is_no_config_changes_nothing(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    for text in ("", "providers: [", "\x00", "- a list", "\tproviders:\n"):
        server.file.write_text(text)
        assert "config.yaml" in await server.hup()
        assert (await ask(http, server)).said.text == TEXT


async def test_a_file_that_is_gone_changes_nothing(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    server.file.unlink()
    assert "config.yaml" in await server.hup()
    assert (await ask(http, server)).said.text == TEXT


async def test_after_a_bad_file_a_good_one_is_taken(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]))
    server.write("providers: [")
    await server.hup()
    server.write(one(upstream, models={"m": "n"}))
    await server.hup()
    assert (await ask(http, server)).headers["x-relay-model"] == "n"


@pytest.mark.parametrize("good", [False, True], ids=["bad", "good"])
async def test_a_running_stream_finishes_on_the_plan_it_began_with(
    good: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    go = asyncio.Event()
    upstream.script(chat_stream(text="One two three.").but(hold={2: go}), chat_whole(text="new"))
    server = await relay(one(upstream, models=["m"]))
    async with dial(server) as wire:
        await wire.post("openai")
        await wire.head()
        early = await wire.until(b"One")
        server.write(one(upstream, models={"other": "n"}) if good else "providers: [")
        await server.hup()
        if good:
            assert (await ask(http, server, model="other")).said.text == "new"
        go.set()
        assert (await wire.reply(early)).said.text == "One two three."


async def test_a_request_still_failing_over_keeps_its_targets(
    upstream: FakeUpstream, relay: Start
) -> None:
    go = asyncio.Event()
    upstream.script(chat_error(500, "no").but(hold={-1: go}), chat_stream(text="second"))
    server = await relay(config(upstream, upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        await upstream.arrived()
        server.write(one(upstream, models=["other"]))
        await server.hup()
        go.set()
        assert (await wire.reply()).said.text == "second"


async def test_a_connection_survives(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        for _ in range(2):
            await wire.post("openai", stream=False)
            await wire.head()
            assert (await wire.reply()).said.text == TEXT
            await server.hup()


async def test_keys_change_at_once(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"keys": {"alice": {"key": CLIENT_KEY}}})
    headers = {"x-api-key": CLIENT_KEY}
    assert (await ask(http, server, headers=headers)).status == 200
    server.write(config(upstream) | {"keys": {"alice": {"key": "sk-secret-another"}}})
    assert SECRET not in await server.hup()
    assert (await ask(http, server, headers=headers)).status == 401


async def test_another_address_needs_a_restart(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]))
    elsewhere = one(upstream, models=["other"]) | {"listen": f"127.0.0.1:{free_port()}"}
    server.write(elsewhere)
    assert "restart" in await server.hup()
    assert (await ask(http, server)).said.text == TEXT


async def test_a_changed_key_clears_the_mark_of_the_old_one(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    refused, good = "sk-secret-refused", "sk-secret-good"
    upstream.script(
        lambda seen: (
            chat_whole(text="yes")
            if good in seen.headers["authorization"]
            else chat_error(401, "bad key")
        )
    )
    server = await relay(one(upstream, api_key=refused))
    assert (await ask(http, server)).status == 502
    server.write(one(upstream, api_key=good))
    await server.hup()
    assert (await ask(http, server)).said.text == "yes"


async def test_cooldowns_outlive_a_reload(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(429, "slow", headers={"retry-after": "60"}), chat_whole(text="yes"))
    server = await relay(config(upstream, upstream))
    assert (await ask(http, server)).headers["x-relay-provider"] == "second"
    server.write(config(upstream, upstream, timeouts={"idle": 100}))
    await server.hup()
    assert (await ask(http, server)).headers["x-relay-attempts"] == "1"


async def test_ten_reloads_in_a_row_lose_no_request(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    asked = [asyncio.create_task(ask(http, server, stream=True)) for _ in range(20)]
    for number in range(10):
        server.write(config(upstream, timeouts={"idle": 100 + number}))
        await server.hup()
        asked += [asyncio.create_task(ask(http, server)) for _ in range(3)]
    assert {reply.said.text for reply in await asyncio.gather(*asked)} == {TEXT}


async def test_a_credential_in_a_file_is_read_again(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """Within a second, without a signal; a file that is gone for a moment changes nothing."""
    token = tmp_path / "token"
    token.write_text("first\n")
    server = await relay(one(upstream, api_key=f"file:{token}"))

    async def carried() -> str:
        assert (await ask(http, server)).said.text == TEXT
        return upstream.requests[-1].headers["Authorization"]

    assert await carried() == "Bearer first"
    token.unlink()
    await asyncio.sleep(1.3)
    assert await carried() == "Bearer first"
    token.write_text("second\n")
    for _ in range(50):
        if await carried() == "Bearer second":
            break
        await asyncio.sleep(0.1)
    assert await carried() == "Bearer second"
    assert "second" not in server.stderr


async def test_a_signal_while_it_starts_is_done_once_it_serves(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "once"
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        f"import os, pathlib, signal\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch()\n    os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    server = await relay(one(upstream) | {"plugins": [str(plugin)]})
    assert "reloaded" in await server.says("reloaded")


@pytest.mark.parametrize(
    "fault", ["default: nowhere", "state: memory", "record: {directory: /dev}"]
)
async def test_what_plugins_register_goes_when_the_reload_fails(
    fault: str, upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """Else the next good reload, or a path of its dialect, would already be as refused."""
    plugin = tmp_path / "plugin.py"
    own = "import relay\nfrom dataclasses import replace\n"
    plugin.write_text(own + "relay.PRESETS['mine'] = replace(relay.PRESETS['vllm'])\n")
    using = one(upstream) | {"plugins": [str(plugin)], "admin_key": f"{SECRET}-admin"}
    server = await relay(using)
    plugin.write_text(own + "relay.PRESETS['other'] = relay.PRESETS.pop('mine')\n")
    server.file.write_text(server.file.read_text() + f"\n{fault}\n")
    assert "failed" in await server.hup()
    plugin.write_text("")
    third = {"preset": "mine", "endpoint": upstream.url}
    server.write({**using, "providers": {"third": third}})
    assert '"reloaded"' in await server.hup()


async def test_a_certificate_stays_when_the_reload_fails(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    files = [issued(tmp_path, name) for name in ("old", "new")]
    old = Path(files[0][0]).read_text()  # noqa: ASYNC240  # once
    server = await relay(one(upstream) | {"tls": dict(zip(KEYS, files[0], strict=True))})
    port = int(server.url.rpartition(":")[2])
    server.write(
        one(upstream)
        | {"tls": dict(zip(KEYS, files[1], strict=True)), "record": {"directory": "/dev/null/x"}}
    )
    assert "failed" in await server.hup()
    served = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    assert served.strip() == old.strip()


KEYS = ("certificate", "key")


def issued(folder: Path, name: str) -> tuple[str, str]:
    files = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}".split()
    subprocess.run(
        [*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    return files


async def test_a_watched_file_is_taken_once_it_is_valid(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["old"]) | {"watch": True})
    server.write("providers: [")
    await server.says("reload failed, nothing changed")
    server.write(one(upstream, models=["new"]) | {"watch": True})
    await server.says('"reloaded"')
    assert (await ask(http, server, model="new")).said.text == TEXT
    server.file.write_text(server.file.read_text())  # touched, and the same
    await asyncio.sleep(3.5)
    assert server.stderr.count('"reloaded"') == server.stderr.count("reload failed") == 1


async def test_the_command_reloads_and_says_what_is_wrong(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    admin = {"admin_key": f"{SECRET}-admin"}
    server = await relay(one(upstream, models=["old"]) | admin)
    command = ("reload", "-c", server.file.name)
    server.write(one(upstream, models=["new"]) | admin)
    ran = await run(*command, cwd=server.file.parent)
    assert (ran.status, "first" in ran.stdout) == (0, True)
    assert (await ask(http, server, model="new")).said.text == TEXT
    server.write(one(upstream, models=["new"]) | admin | {"default": "nobody"})
    ran = await run(*command, cwd=server.file.parent)
    assert (ran.status, "nobody" in ran.stderr) == (1, True)


async def test_a_plugin_s_dialect_may_have_other_paths_after_a_reload(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"

    def write(path: str) -> None:
        plugin.write_text(
            "import relay\nclass Mine(type(relay.CHAT)):\n    name = 'mine'\n"
            f"    def serves(self, path): return 'answer' if path == {path!r} else ''\n"
            "relay.DIALECTS['mine'] = Mine()\n"
        )

    async def status(path: str) -> int:
        async with http.post(f"{server.url}{path}", json=chat()) as response:
            return response.status

    write("/mine/1")
    server = await relay(one(upstream) | {"plugins": [str(plugin)]})
    assert (await status("/mine/1"), await status("/mine/2")) == (200, 404)
    write("/mine/2")
    await server.hup()
    assert (await status("/mine/1"), await status("/mine/2")) == (404, 200)
