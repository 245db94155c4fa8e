"""The command-line clients: how each is set up, how it is asked once without a terminal, and what
it calls its shell.

    ended = await run(CLIENTS["codex"], installed("codex"), server.url, home)
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from talk import CLIENT_KEY, JSON

ASKED = "Run the command, please."
SHELL = "printf 'relay-%d' 42; sleep 0.5"  # a shell that ends at once is not always heard
PRINTED = "relay-42"
FINAL = "The command said relay-42, as it should."
LONGEST = 240  # seconds that a run may take; within the 300 that any test may
MODEL = "claude-relay-test"  # Claude Code lists no other names; the rest take any


@dataclass(frozen=True)
class Client:
    """In `env` and `files`, <url> stands for relay's address and <key> for the client's key."""

    speaks: str
    args: tuple[str, ...]
    tool: str  # what its shell is called
    call: JSON  # and what it must be given
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # in its home
    program: str = ""  # as `installed` knows it, if not by the name it has here


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return self.out + self.err


SAID = {"command": SHELL, "description": "Say it"}
NOT_BEHIND = SAID | {"is_background": False}
CODEX = f"""
model = "{MODEL}"
model_provider = "relay"
[analytics]
enabled = false
[model_providers.relay]
name = "relay"
base_url = "<url>/v1"
env_key = "RELAY_KEY"
wire_api = "responses"
"""
QWEN = ("-p", ASKED, "--yolo", "--auth-type")
GEMINI_AUTH = {"security": {"auth": {"selectedType": "gemini-api-key"}}}

CLIENTS = {
    "claude": Client(
        speaks="anthropic",
        args=("-p", ASKED, "--allowedTools", "Bash"),
        tool="Bash",
        call=SAID,
        env={
            "ANTHROPIC_BASE_URL": "<url>",
            "ANTHROPIC_AUTH_TOKEN": "<key>",
            "ANTHROPIC_MODEL": MODEL,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    ),
    "codex": Client(
        speaks="responses",
        args=("exec", "--skip-git-repo-check", "--json", "-s", "danger-full-access", ASKED),
        tool="exec_command",
        call={"cmd": SHELL},
        env={"RELAY_KEY": "<key>"},
        files={".codex/config.toml": CODEX},
    ),
    "gemini": Client(
        speaks="gemini",
        args=("-m", MODEL, "-p", ASKED, "--yolo"),
        tool="run_shell_command",
        call=SAID,
        env={
            "GEMINI_API_KEY": "<key>",
            "GOOGLE_GEMINI_BASE_URL": "<url>",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        },
        files={".gemini/settings.json": json.dumps(GEMINI_AUTH)},
    ),
    "qwen": Client(
        speaks="openai",
        args=(*QWEN, "openai"),
        tool="run_shell_command",
        call=NOT_BEHIND,
        env={"OPENAI_API_KEY": "<key>", "OPENAI_BASE_URL": "<url>/v1", "OPENAI_MODEL": MODEL},
    ),
}
# Qwen Code speaks the other dialects too, each in a way of its own.
CLIENTS["qwen-responses"] = replace(
    CLIENTS["qwen"], speaks="responses", args=(*QWEN, "openai-responses"), program="qwen"
)
CLIENTS["qwen-anthropic"] = replace(
    CLIENTS["qwen"],
    speaks="anthropic",
    args=(*QWEN, "anthropic"),
    env={"ANTHROPIC_API_KEY": "<key>", "ANTHROPIC_BASE_URL": "<url>", "ANTHROPIC_MODEL": MODEL},
    program="qwen",
)
CLIENTS["qwen-gemini"] = replace(
    CLIENTS["qwen"],
    speaks="gemini",
    args=(*QWEN, "gemini"),
    env={"GEMINI_API_KEY": "<key>", "GOOGLE_GEMINI_BASE_URL": "<url>", "GEMINI_MODEL": MODEL},
    program="qwen",
)


def asking_for(model: str, client: Client) -> Client:
    """The same client, asking for another model: Codex offers other tools by the name."""
    files = {name: text.replace(MODEL, model) for name, text in client.files.items()}
    return replace(client, files=files)


async def run(client: Client, program: Path, url: str, home: Path) -> Ended:
    """One run, in a home and with an environment that hold nothing but what it needs."""

    def told(text: str) -> str:
        return text.replace("<url>", url).replace("<key>", CLIENT_KEY)

    for name, content in client.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(told(content))
    env = {name: told(value) for name, value in client.env.items()}
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        str(program),
        *client.args,
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"], **env},
        stdin=none,
        stdout=pipe,
        stderr=pipe,
    )
    try:
        async with asyncio.timeout(LONGEST):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
