"""`relay env` and `relay run`, as a person in a shell has them: the child's environment, its
files, its terminal, its signals, its exit status."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from fake_upstream import FakeUpstream
from relay_process import (
    PROGRAM,
    RelayProcess,
    Start,
    environment,
    free_port,
    run,
    served,
    spawn,
    text_of,
)
from talk import CLIENT_KEY, DIALECTS, JSON, UPSTREAM_KEY, one


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a configuration whose address nobody listens on."""
    place(tmp_path, {"providers": {"demo": {"api_format": "demo"}}})
    return tmp_path


def place(home: Path, config: JSON) -> None:
    (home / "config.yaml").write_text(text_of(config, f"127.0.0.1:{free_port()}"))


def script(home: Path, name: str, text: str) -> str:
    """A tool of the test's own; its path."""
    path = home / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def environment_of(home: Path, client: str, *options: str, **env: str) -> dict[str, str]:
    """What a tool of that name finds around it."""
    tool = script(home, client, "exec env -0")
    ran = await run("run", *options, tool, cwd=home, env=env)
    assert ran.status == 0, ran.output
    return dict(line.split("=", 1) for line in ran.stdout.split("\0") if line)


# ---- env


async def test_env_is_read_by_a_shell(home: Path) -> None:
    ran = await run("env", "claude", cwd=home)
    assert ran.status == 0
    assert "unset ANTHROPIC_API_KEY" in ran.stdout
    script(home, "read", f"{ran.stdout}\necho $ANTHROPIC_BASE_URL")
    read = await run("run", "./read", cwd=home)
    address = (home / "config.yaml").read_text().split("listen: ")[1].split()[0]
    assert read.stdout.strip() == f"http://{address}"


async def test_env_for_mise_keeps_the_key_out_of_the_projects_file(home: Path) -> None:
    place(home, {"keys": {"a": {"key": CLIENT_KEY}}, "providers": {"d": {"api_format": "demo"}}})
    ran = await run("env", "claude", "--format", "mise", "--model", "m", cwd=home)
    assert 'ANTHROPIC_AUTH_TOKEN = "{{ env.RELAY_KEY }}"' in ran.stdout
    assert 'ANTHROPIC_MODEL = "m"' in ran.stdout
    assert CLIENT_KEY not in ran.output


async def test_env_without_a_port_is_2(home: Path) -> None:
    place(home, {"listen": f"unix:{home}/s", "providers": {"demo": {"api_format": "demo"}}})
    ran = await run("env", "claude", cwd=home)
    assert (ran.status, ran.stdout) == (2, "")
    assert "need a port" in ran.stderr


@pytest.mark.parametrize("client", ["claude", "codex", "anything"])
async def test_env_for_a_relay_elsewhere_needs_no_configuration(
    client: str, tmp_path: Path
) -> None:
    url = "https://relay.lan:8484"
    for given in (url, f"{url}/v1/"):
        options = ("env", client, "--url", given, "--model", "m")
        ran = await run(*options, cwd=tmp_path, env={"RELAY_KEY": "rk-mine"})
        assert ran.status == 0, ran.output
        assert f"{url}/v1/" not in ran.stdout
        assert {"claude": f"ANTHROPIC_BASE_URL={url}\n"}.get(client, f"{url}/v1") in ran.stdout
        assert "rk-mine" in ran.stdout
        assert ran.stderr == ""


async def test_env_for_a_relay_elsewhere_says_what_it_lacks(tmp_path: Path) -> None:
    ran = await run("env", "claude", "--url", "http://10.0.0.7:8484", cwd=tmp_path)
    assert ran.status == 0
    assert "RELAY_KEY is not set" in ran.stderr
    named = await run("env", "claude", "--url", "http://h", "--key", "alice", cwd=tmp_path)
    assert (named.status, named.stdout) == (2, "")
    assert "no configuration: give -c FILE" in named.stderr
    (tmp_path / "config.yaml").write_text(
        "providers: {demo: {api_format: demo}}\nkeys: {alice: {key: sk-alice}}\n"
    )
    named = await run("env", "claude", "--url", "http://h", "--key", "alice", cwd=tmp_path)
    assert "ANTHROPIC_AUTH_TOKEN=sk-alice\n" in named.stdout
    (tmp_path / "config.yaml").unlink()
    for options in (["codex", "--url", "http://h"], ["claude", "--url", "h:8484"]):
        assert (await run("env", *options, cwd=tmp_path)).status == 2


@pytest.mark.parametrize("client", ["claude", "codex", "anything"])
async def test_env_needs_no_providers_key(client: str, home: Path) -> None:
    keys = {"a": {"key": "${RELAY_KEY_A}"}}
    zai = {"preset": "zai", "api_key": "${ZAI_API_KEY}", "models": ["glm-5.3"]}
    place(home, {"keys": keys, "providers": {"zai": zai, "f": zai | {"api_key": "file:none"}}})
    ran = await run("env", client, cwd=home, env={"RELAY_KEY": "of-a"})
    assert ran.status == 0, ran.output
    assert "of-a" in ran.stdout
    ran = await run("env", client, cwd=home)
    assert (ran.status, ran.stdout) == (2, "")
    assert "the key of a is not set in this environment: set RELAY_KEY" in ran.stderr


@pytest.mark.parametrize("command", ["env", "run"])
async def test_what_cannot_be_known_is_asked_for(command: str, home: Path) -> None:
    place(home, {"providers": {"deepseek": {"preset": "deepseek", "api_key": UPSTREAM_KEY}}})
    ran = await run(command, "codex", cwd=home)
    assert ran.status == 2
    assert "--model NAME" in ran.stderr
    assert "deepseek-*" in ran.stderr


# ---- run: what a child gets


@pytest.mark.parametrize("client", ["claude", "codex", "gemini", "qwen", "opencode", "anything"])
async def test_a_child_finds_a_relay_that_answers(client: str, home: Path) -> None:
    """None listens at the configured address, so one serves on a free port, for as long."""
    env = await environment_of(home, client)
    address = (home / "config.yaml").read_text().split("listen: ")[1].split()[0]
    assert address not in str(env)
    named = {name for name, value in env.items() if "http://127.0.0.1:" in value}
    assert named or client == "codex"  # which is told by its arguments


async def test_a_child_talks_to_its_relay(home: Path) -> None:
    body = json.dumps(DIALECTS["anthropic"].body(model="any"))
    tool = script(home, "ask", f"curl -sf $RELAY_URL/v1/messages -d '{body}'")
    ran = await run("run", tool, cwd=home)
    assert ran.status == 0, ran.output
    assert json.loads(ran.stdout)["stop_reason"] == "end_turn"
    assert ran.stderr == ""


async def test_a_child_uses_the_relay_that_serves_already(
    upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(DIALECTS["openai"].whole(text="Hello."), path=DIALECTS["openai"].path)
    server = await relay(one(upstream))
    home = server.file.parent
    body = json.dumps(DIALECTS["openai"].body())
    tool = script(
        home, "ask", f"echo $RELAY_URL; curl -sf $RELAY_URL/v1/chat/completions -d '{body}'"
    )
    ran = await run("run", tool, cwd=home, env={"RELAY_KEY": "any"})
    assert ran.stdout.startswith(f"{server.url}\n")
    assert "Hello." in ran.stdout
    assert (await server.logged()).code == "OK"


async def test_the_demo_is_not_a_relay_that_serves_something_else(
    upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(one(upstream))
    listen = server.url.removeprefix("http://")
    ran = await run(
        "--demo", "--listen", listen, "run", "sh", "-c", "echo $RELAY_URL", cwd=server.file.parent
    )
    assert ran.stdout.strip() != server.url
    assert f"the relay at {server.url} has another configuration" in ran.stderr


async def test_a_relay_with_other_models_is_not_used(tmp_path: Path) -> None:
    """As a demo that was left open, when the first real provider is tried."""
    listen = f"127.0.0.1:{free_port()}"
    process = await spawn("--demo", "--listen", listen, cwd=tmp_path)
    server = await served(RelayProcess(f"http://{listen}", tmp_path / "none", process))
    tool = ("--listen", listen, "run", "--model", "glm-5.3", "sh", "-c", "echo $RELAY_URL")
    try:
        ran = await run(*tool, cwd=tmp_path, env={"ZAI_API_KEY": "k"})
    finally:
        await server.end()
    assert ran.status == 0, ran.output
    assert ran.stdout.strip() not in ("", server.url)
    assert f"the relay at {server.url} has another configuration" in ran.stderr


async def test_a_child_of_a_relay_that_serves_needs_no_providers_key(
    upstream: FakeUpstream, relay: Start
) -> None:
    config = one(upstream, api_key="${THE_PROVIDERS_KEY}")
    server = await relay(config, env={"THE_PROVIDERS_KEY": "k"})
    ran = await run("run", "sh", "-c", "echo $RELAY_URL", cwd=server.file.parent)
    assert (ran.status, ran.stdout, ran.stderr) == (0, f"{server.url}\n", "")
    await server.end()
    ran = await run("run", "sh", "-c", "echo $RELAY_URL", cwd=server.file.parent)
    assert ran.status == 2
    assert "THE_PROVIDERS_KEY is not set" in ran.stderr


async def test_a_script_is_told_a_model(home: Path) -> None:
    ran = await run("--demo", "run", "sh", "-c", "echo $RELAY_MODEL", cwd=home)
    assert ran.stdout == "demo\n"


async def test_a_demo_that_serves_already_is_used(tmp_path: Path) -> None:
    listen = ("--demo", "--listen", f"127.0.0.1:{free_port()}")
    process = await spawn(*listen, cwd=tmp_path)
    server = await served(RelayProcess(f"http://{listen[-1]}", tmp_path / "none", process))
    try:
        ran = await run(*listen, "run", "sh", "-c", "echo $RELAY_URL", cwd=tmp_path)
    finally:
        await server.end()
    assert ran.stdout.strip() == server.url


async def test_something_else_at_the_address_is_not_taken_for_a_relay(home: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        taken = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        place(home, {"listen": taken, "providers": {"demo": {"api_format": "demo"}}})
        env = await environment_of(home, "anything")
    assert env["RELAY_URL"] != f"http://{taken}"


async def test_a_child_inherits_no_key_of_a_provider(home: Path) -> None:
    provider = {"preset": "deepseek", "api_key": "${MY_OWN_NAME}", "models": ["m"]}
    place(home, {"providers": {"deepseek": provider}})
    keys = {"MY_OWN_NAME": UPSTREAM_KEY, "ZAI_API_KEY": "z", "CLAUDE_CODE_USE_BEDROCK": "1"}
    env = await environment_of(home, "claude", **keys, KEPT="yes")
    assert env["KEPT"] == "yes"
    assert not env.keys() & keys.keys()
    assert UPSTREAM_KEY not in str(env)


async def test_a_child_shows_the_key_that_was_named(home: Path) -> None:
    keys = {"alice": {"key": CLIENT_KEY}, "bob": {"key": f"{CLIENT_KEY}-of-bob"}}
    place(home, {"keys": keys, "providers": {"demo": {"api_format": "demo"}}})
    refused = await run("run", "claude", cwd=home)
    assert refused.status == 2
    assert "--key NAME (alice, bob)" in refused.stderr
    env = await environment_of(home, "claude", "--key", "bob")
    assert env["ANTHROPIC_AUTH_TOKEN"] == f"{CLIENT_KEY}-of-bob"


GEMINI = """
h=$GEMINI_CLI_HOME; echo $h; stat -c %a $h $h/.gemini/settings.json; cat $h/.gemini/settings.json
echo; cat $h/.gemini/history/last; echo more >> $h/.gemini/history/last
"""


async def test_gemini_finds_a_home_of_its_own_that_is_gone_after(home: Path) -> None:
    """Its settings are the user's with one choice changed, and all else is the user's."""
    users = home / ".gemini"
    (users / "history").mkdir(parents=True)
    (users / "history/last").write_text("the last\n")
    own = '{"security": {"auth": {"selectedType": "oauth-personal"}, "x": 1}, "ui": {"theme": "y"}}'
    (users / "settings.json").write_text(own)
    ran = await run("run", script(home, "gemini", GEMINI), cwd=home, env={"HOME": str(home)})
    assert ran.status == 0, ran.output
    path, *modes, text, last = ran.stdout.splitlines()
    assert modes == ["700", "600"]
    assert json.loads(text) == {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "x": 1},
        "ui": {"theme": "y"},
    }
    assert last == "the last"
    assert not os.path.exists(path)  # noqa: ASYNC240
    assert (users / "settings.json").read_text() == own
    assert (users / "history/last").read_text() == "the last\nmore\n"


async def test_gemini_keeps_its_home_if_that_says_what_it_should(home: Path) -> None:
    (home / ".gemini").mkdir()
    own = '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'
    (home / ".gemini/settings.json").write_text(own)
    env = await environment_of(home, "gemini", HOME=str(home))
    assert "GEMINI_CLI_HOME" not in env


async def test_settings_that_cannot_be_kept_stop_it(home: Path) -> None:
    (home / ".gemini").mkdir()
    (home / ".gemini/settings.json").write_text("{// a comment\n}")
    tool = script(home, "gemini", "echo ran")
    ran = await run("run", tool, cwd=home, env={"HOME": str(home)})
    assert (ran.status, ran.stdout) == (2, "")
    assert ".gemini/settings.json" in ran.stderr


async def test_nothing_is_written_in_the_users_home(home: Path) -> None:
    inside = home / "inside"
    inside.mkdir()
    for client in ("claude", "codex", "gemini", "qwen", "opencode"):
        tool = script(home, client, "exit 0")
        ran = await run("-c", "../config.yaml", "run", tool, cwd=inside, env={"HOME": str(inside)})
        assert ran.status == 0, ran.output
    assert list(inside.iterdir()) == []


async def test_the_log_of_its_relay_goes_where_it_is_told(home: Path) -> None:
    body = json.dumps(DIALECTS["anthropic"].body(model="any"))
    tool = script(home, "ask", f"curl -sf $RELAY_URL/v1/messages -d '{body}' >/dev/null")
    ran = await run("run", "--log", "log", tool, cwd=home)
    assert (ran.status, ran.output) == (0, "")
    records = [json.loads(line) for line in (home / "log").read_text().splitlines()]
    assert [record["code"] for record in records if "code" in record] == ["OK"]


# ---- run: arguments, status, signals, terminal


async def test_all_behind_the_tool_is_the_tools(home: Path) -> None:
    tool = script(home, "tool", 'printf "%s|" "$@"')
    given = ["-c", "x", "--model", "m", "--help", "--", "-", "a b"]
    ran = await run("run", "--model", "m", tool, *given, cwd=home)
    assert ran.stdout == "".join(f"{each}|" for each in given)


async def test_codex_gets_its_settings_before_the_users_arguments(home: Path) -> None:
    ran = await run("run", script(home, "codex", 'printf "%s\\n" "$@"'), "exec", "hi", cwd=home)
    *settings, last, words = ran.stdout.splitlines()
    assert (last, words) == ("exec", "hi")
    assert 'model_provider="relay"' in settings


@pytest.mark.parametrize(
    ("ends", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
async def test_the_childs_end_is_its_own(ends: str, status: int, home: Path) -> None:
    assert (await run("run", "sh", "-c", ends, cwd=home)).status == status


async def test_a_tool_that_is_not_there_is_127_and_tells_how_to_get_it(home: Path) -> None:
    ran = await run("run", "claude", cwd=home, env={"PATH": str(home)})
    assert ran.status == 127
    assert "npm install -g @anthropic-ai/claude-code" in ran.stderr
    assert "Traceback" not in ran.stderr


WAITS = 'trap "echo got $1; exit 5" $1; echo ready; for i in $(seq 600); do sleep 0.05; done'


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
async def test_a_signal_for_relay_is_the_childs(name: str, home: Path) -> None:
    process = await spawn("run", "sh", "-c", WAITS, "sh", name, cwd=home)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
            process.send_signal(getattr(signal, f"SIG{name}"))
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (out, process.returncode) == (f"got {name}\n".encode(), 5)


# A child that has threads may not be forked into (Python 3.12 warns of it): it makes the terminal
# its own itself.
LOGGED_IN = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """relay as the job in front of a terminal of its own, seen from the other end."""

    def __init__(self, home: Path, *args: str) -> None:
        self.end, theirs = pty.openpty()
        command = [sys.executable, str(PROGRAM), *args]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOGGED_IN, *command],
            cwd=home,
            env=environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def type(self, text: bytes) -> None:
        os.write(self.end, text)

    def read_until(self, word: bytes) -> bytes:
        said = b""
        while word not in said:
            said += os.read(self.end, 1000)
        return said

    def rest(self) -> bytes:
        """All that is still said, up to its end."""
        said = b""
        with suppress(OSError):  # which is what a terminal says at its end
            while block := os.read(self.end, 1000):
                said += block
        os.close(self.end)
        return said

    def status(self) -> int:
        return self._process.wait()


TOOL = """
trap 'echo caught; caught=yes' INT
test -t 0 && test -t 1 && echo terminal
read word; echo "read $word"
until [ "$caught" ]; do sleep 0.05; done; echo waited
sleep 0.2; exit 3
"""


def test_the_terminal_is_the_childs(home: Path) -> None:
    """It is one, it is read from, and Ctrl-C reaches the child once."""
    terminal = Terminal(home, "run", script(home, "tool", TOOL))
    terminal.read_until(b"terminal\r\n")
    terminal.type(b"hello\n")
    terminal.read_until(b"read hello\r\n")
    terminal.type(b"\x03")
    said = terminal.rest()
    assert said.count(b"caught") == said.count(b"waited") == 1
    assert b"Traceback" not in said
    assert terminal.status() == 3
