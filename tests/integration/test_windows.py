"""relay as on Windows: without what that system lacks, see tests/windows.py."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import relay_process
import windows
import yaml
from fake_upstream import FakeUpstream, Seen, chat_stream, chat_whole
from relay_process import STARTED, Ran, RelayProcess
from talk import one

ROOT = Path(__file__).parents[2]
ADMIN = "rk-admin-for-windows"


@pytest.fixture(autouse=True)
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_process, "BEFORE", windows.BEFORE)


@pytest.fixture
async def server(tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[RelayProcess]:
    upstream.script(answer)
    config = {**one(upstream), "admin_key": ADMIN, "record": {"directory": "records"}}
    file = tmp_path / "config.yaml"
    started = await relay_process.launch(file, config, env=windows.ENVIRONMENT)
    yield started
    await started.end()


def answer(seen: Seen) -> object:
    return (chat_stream if seen.json.get("stream") else chat_whole)(text="Grüße, 世界.")


async def command(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> Ran:
    return await relay_process.run(*args, cwd=cwd, env={**windows.ENVIRONMENT, **(env or {})})


async def test_it_serves_records_and_shows_what_it_served(server: RelayProcess) -> None:
    import aiohttp

    body = {"model": "any", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    admin = {"Authorization": f"Bearer {ADMIN}"}
    async with aiohttp.ClientSession(server.url) as session:
        for stream in (False, True):
            for path in ("/v1/messages", "/v1/chat/completions"):
                async with session.post(path, json=body | {"stream": stream}) as reply:
                    assert reply.status == 200
                    assert "世界" in await reply.text()
        async with session.get("/") as reply:
            assert "<title>" in await reply.text()
        async with session.get("/metrics", headers=admin) as reply:
            assert "relay_requests_total" in await reply.text()
    folder = server.file.parent
    for _ in range(20):  # it is written down within a second or two
        used = await command("-c", "config.yaml", "usage", cwd=folder)
        assert used.status == 0
        if re.search(r"\b4\b", used.output):
            break
        await asyncio.sleep(0.3)
    assert re.search(r"\b4\b", used.output), used.output
    for _ in range(50):
        if len(list((folder / "records").glob("*"))) > 4:
            break
        await asyncio.sleep(0.1)
    listed = await command("-c", "config.yaml", "records", cwd=folder)
    assert listed.output.count("any -> first/any") == 4, listed.output


async def test_a_page_saves_and_a_command_reloads(server: RelayProcess) -> None:
    import aiohttp

    admin = {"Authorization": f"Bearer {ADMIN}"}
    text = server.file.read_text("utf-8") + "# größer\n"
    async with aiohttp.ClientSession(server.url, headers=admin) as session:
        async with session.get("/admin/file") as reply:
            shown = await reply.json()
        saved = {"text": text, "digest": shown["digest"]}
        async with session.post("/admin/file", json=saved) as reply:
            assert reply.status == 200, await reply.text()
    assert server.file.read_text("utf-8") == text
    config = yaml.safe_load(text) | {"log": {"level": "debug"}}
    server.file.write_text(yaml.safe_dump(config), "utf-8")
    done = await command("-c", "config.yaml", "reload", cwd=server.file.parent)
    assert done.status == 0, done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
async def test_a_signal_stops_it(server: RelayProcess, number: signal.Signals) -> None:
    """SIGUSR2 plays SIGBREAK, which Ctrl-Break sends."""
    assert await server.stop(number) == 0
    assert "stopped" in server.stdout + server.stderr


async def test_commands_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "# größer\nproviders: {p: {api_format: openai, endpoint: 'http://127.0.0.1:9/v1'}}\n",
        "utf-8",
    )
    for words in (
        ["check"],
        ["route", "x"],
        ["env", "claude"],
        ["models"],
        ["key"],
        ["help", "keys"],
    ):
        ran = await command(*words, cwd=tmp_path)
        assert ran.status == 0, ran.output
        assert "Traceback" not in ran.output


@pytest.mark.parametrize("tool", ["claude", "gemini"])
async def test_a_tool_of_npm_is_run(tmp_path: Path, tool: str) -> None:
    """They are files like claude.cmd there; Gemini CLI's settings are in a private folder."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    (home / ".gemini").mkdir(parents=True)
    (home / ".gemini" / "settings.json").write_text('{"theme": "größe"}', "utf-8")
    (home / ".gemini" / "oauth.json").write_text("{}")
    shown = (
        "import os, json, pathlib, sys; e = os.environ; home = e.get('GEMINI_CLI_HOME', '');"
        " files = home and sorted(p.name for p in pathlib.Path(home, '.gemini').iterdir());"
        " told = {'argv': sys.argv[1:], 'url': e.get('ANTHROPIC_BASE_URL'), 'files': files};"
        " print(json.dumps(told)); sys.exit(7)"
    )
    program = programs / f"{tool}.CMD"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{shown}" "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    ran = await command("--demo", "run", tool, "-p", "hello", cwd=tmp_path, env=env)
    assert ran.status == 7, ran.output
    told = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith('{"argv"')))
    assert told["argv"] == ["-p", "hello"]
    if tool == "claude":
        assert told["url"].startswith("http://127.0.0.1:")
    else:
        assert {"settings.json", "oauth.json"} <= set(told["files"])


async def test_what_windows_lacks_is_said(tmp_path: Path) -> None:
    config = "providers: {p: {api_format: openai, endpoint: 'http://127.0.0.1:9/v1'}}\n"
    (tmp_path / "config.yaml").write_text(f"{config}listen: unix:{tmp_path}/r.sock\n")
    ran = await command("serve", cwd=tmp_path)
    assert ran.status == 2
    assert "Windows has no unix sockets" in ran.output
    top = await command("top", "--listen", "127.0.0.1:9", cwd=tmp_path)
    assert top.status != 0
    assert "Traceback" not in top.output


async def test_the_suite_of_requests_passes_there() -> None:
    """The tests of whole requests, each before a relay that lacks the same."""
    env = {**os.environ, "RELAY_TEST_BEFORE": windows.BEFORE}
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
        ),
        *("tests/integration/test_relay.py", "--deselect"),
        "tests/integration/test_relay.py::test_each_way_is_what_it_is_called",  # no uvloop there
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 20 * STARTED)
    assert process.returncode == 0, said.decode()[-4000:]
    assert int(re.search(r"(\d+) passed", said.decode())[1]) > 30  # type: ignore[index]
