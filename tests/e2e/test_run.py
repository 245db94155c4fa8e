"""`relay run CLIENT` with the real tools: nothing is set up but relay's own configuration, and
the tool calls a tool of its own, through relay, before a provider that is played."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e.cli import LONGEST
from fake_upstream import Answer, FakeUpstream, Seen
from relay_process import environment, free_port, spawn, text_of
from talk import DIALECTS, JSON, UPSTREAM_KEY, one

import relay

ASKED = "Run the command, please."
# No substitution: Gemini CLI refuses it.  A shell that ends at once is not always heard.
COMMAND = "printf 'relay-%d' 42; sleep 0.5"
FINAL = "The command said relay-42, as it should."


@dataclass(frozen=True)
class Tool:
    """How a client is asked once, without a terminal, and what its shell is called."""

    args: tuple[str, ...]
    shell: str
    call: JSON
    speaks: str
    env: dict[str, str] = field(default_factory=dict)


QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
TRUSTED = {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
SAID = {"command": COMMAND, "description": "Say it"}
TOOLS = {
    "claude": Tool(("-p", ASKED, "--allowedTools", "Bash"), "Bash", SAID, "anthropic", QUIET),
    "codex": Tool(
        ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", ASKED),
        "exec_command",
        {"cmd": COMMAND},
        "responses",
    ),
    "gemini": Tool(("-p", ASKED, "--yolo"), "run_shell_command", SAID, "gemini", TRUSTED),
    "qwen": Tool(
        ("-p", ASKED, "--yolo"), "run_shell_command", SAID | {"is_background": False}, "openai"
    ),
    "opencode": Tool(("run", ASKED), "bash", SAID, "openai"),
}


def answering(tool: Tool) -> Callable[[Seen], Answer]:
    """A model that calls the shell once, then ends; small calls without tools get a title."""
    says = DIALECTS["openai"]

    def answer(seen: Seen) -> Answer:
        speak = says.stream if seen.json.get("stream") else says.whole
        if not seen.json.get("tools"):
            return speak(text="A title")
        if seen.json["messages"][-1]["role"] == "tool":
            return speak(text=FINAL)
        return speak(calls=[("call_a1", tool.shell, json.dumps(tool.call))])

    return answer


@pytest.mark.parametrize("client", TOOLS)
async def test_a_tool_round_trip(
    client: str, upstream: FakeUpstream, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    tool, path = TOOLS[client], installed(client)
    if tool.speaks not in relay.DIALECTS:
        pytest.skip(f"relay does not speak {tool.speaks} yet")
    upstream.script(answering(tool), path=DIALECTS["openai"].path)
    home = tmp_path / "home"
    home.mkdir()
    models = {"real-model": {"context": 150_000, "output": 9_000}}
    config = one(upstream, "openai", models=models)
    (tmp_path / "config.yaml").write_text(text_of(config, f"127.0.0.1:{free_port()}"))

    env = {"HOME": str(home), "OPENAI_API_KEY": "inherited", **tool.env}
    command = ("-c", "../config.yaml", "run", str(path), *tool.args)
    process = await spawn(*command, cwd=home, env=env)
    try:
        async with asyncio.timeout(LONGEST):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out + err
    assert FINAL in out.decode() + err.decode()

    turns = [seen for seen in upstream.requests if seen.json.get("tools")]
    result = turns[-1].json["messages"][-1]
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_a1")
    assert "relay-42" in json.dumps(result["content"])
    assert {seen.json["model"] for seen in upstream.requests} == {"real-model"}
    assert {seen.headers["authorization"] for seen in upstream.requests} == {
        f"Bearer {UPSTREAM_KEY}"
    }


def test_nothing_of_the_tests_environment_leads_elsewhere() -> None:
    assert not [name for name in environment() if name.endswith("_API_KEY")]
    assert os.environ.keys() >= {"PATH"}
