"""The real Claude Code, headless, works with a tool through relay.

It is found by RELAY_TEST_CLAUDE; `eval "$(.ci/clients)"` installs it and sets that.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from e2e.cli import LONGEST
from fake_upstream import SIGNATURE, FakeUpstream
from relay_process import Start
from talk import CLIENT_KEY, DIALECTS, UPSTREAM_KEY, one
from vendor import Heard, Tee

ATTRIBUTION = "x-anthropic-billing-header"
ASKED = "Run the command, please."
BASH = '{"command": "echo relay-$((40+2))", "description": "Say it"}'
FINAL = "The command said relay-42, as it should."


@dataclass(frozen=True)
class Session:
    """What came of one run: what was printed, what Claude Code said, what relay made of it."""

    printed: str
    heard: list[Heard]
    upstream: FakeUpstream


class Run(Protocol):
    def __call__(self, behind: str, **options: Any) -> Awaitable[Session]: ...


@pytest.fixture
def claude(installed: Callable[[str], Path]) -> Path:
    return installed("claude")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def run(relay: Start, upstream: FakeUpstream, claude: Path, home: Path) -> Run:
    """Claude Code is asked once, calls Bash once, and ends, all through relay."""

    async def run(behind: str, **options: Any) -> Session:
        says = DIALECTS[behind].stream
        upstream.script(
            says(text="I will.", reasoning="A command.", calls=[("call_a1", "Bash", BASH)]),
            says(text=FINAL),
            path=DIALECTS[behind].path,
        )
        options["models"] = {"claude-*": "real-model"}
        server = await relay(one(upstream, behind, **options))
        async with Tee("anthropic", server.url) as tee:
            printed = await ask(claude, tee.url, home)
        tee.judge()
        return Session(printed, tee.heard, upstream)

    return run


async def ask(claude: Path, url: str, home: Path) -> str:
    """One headless run, in an empty home and with no settings but these."""
    settings = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": CLIENT_KEY,
        "ANTHROPIC_MODEL": "claude-relay-test",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "HOME": str(home),
        "PATH": os.environ["PATH"],
    }
    command = [str(claude), "-p", ASKED, "--allowedTools", "Bash"]
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, cwd=home, env=settings, stdin=none, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(LONGEST):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out + err
    return out.decode()


def turns(heard: list[Heard]) -> list[Heard]:
    return [each for each in heard if each.path == "/v1/messages"]


def ordered(body: bytes) -> Any:
    """JSON with the order of its keys."""
    return json.loads(body, object_pairs_hook=list)


def keys_in(value: Any) -> set[str]:
    """The keys of all objects, however deep, but those of schemas, which are the tools' own."""
    if isinstance(value, dict):
        inner = [value[key] for key in value if key not in ("parameters", "input_schema")]
        return set(value).union(*map(keys_in, inner))
    return set().union(*map(keys_in, value)) if isinstance(value, list) else set()


async def test_a_tool_round_trip_through_a_provider_that_speaks_anthropic(run: Run) -> None:
    session = await run("anthropic")
    assert session.printed.strip() == FINAL
    asked, seen = turns(session.heard), session.upstream.requests
    assert [request.path for request in seen] == ["/v1/messages"] * 2

    # All that Claude Code said, byte for byte, but its attribution block and the model's name.
    for said, got in zip(asked, seen, strict=True):
        sent = json.loads(said.sent)
        assert sent["system"][0]["text"].startswith(ATTRIBUTION)
        assert ATTRIBUTION not in got.body.decode()
        expected = sent | {"model": "real-model", "system": sent["system"][1:]}
        assert ordered(got.body) == ordered(json.dumps(expected).encode())
        for name in ("anthropic-beta", "anthropic-version", "x-app", "user-agent"):
            assert got.headers[name] == said.sent_headers[name]
        assert got.query == "beta=true"
        assert CLIENT_KEY not in str(got.headers)
        assert UPSTREAM_KEY in str(got.headers)

    # The tool's result, and the thinking that led to it, as it was signed.
    thought, text, call = seen[1].json["messages"][-2]["content"]
    assert (thought["thinking"], thought["signature"]) == ("A command.", SIGNATURE)
    assert text["text"] == "I will."
    assert (call["id"], call["input"]["command"]) == ("call_a1", "echo relay-$((40+2))")
    result = seen[1].json["messages"][-1]["content"][0]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "call_a1")
    assert "relay-42" in json.dumps(result["content"])

    # And back: the answers as the provider gave them.
    speaks = DIALECTS["anthropic"]
    assert bytes(asked[1].body) == speaks.stream(text=FINAL).wire


@pytest.mark.parametrize("preset", [None, "deepseek"])
async def test_a_tool_round_trip_through_a_provider_that_speaks_openai(
    run: Run, preset: str | None
) -> None:
    session = await run("openai", **({"preset": preset} if preset else {}))
    assert session.printed.strip() == FINAL
    asked, seen = turns(session.heard), session.upstream.requests
    assert [request.path for request in seen] == ["/v1/chat/completions"] * 2
    for said, got in zip(asked, seen, strict=True):
        check_chat_request(json.loads(said.sent), got.json, in_place=preset == "deepseek")
        assert not any(name.lower().startswith("anthropic") for name in got.headers)
        assert got.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"

    # The call and its result, each in its message, with the reasoning that led to the call.
    *before, called, answered = seen[1].json["messages"]
    assert before == seen[0].json["messages"]
    assert (called["role"], called["content"]) == ("assistant", "I will.")
    assert called["reasoning_content"] == "A command."
    call = called["tool_calls"][0]
    assert (call["id"], call["type"], call["function"]["name"]) == ("call_a1", "function", "Bash")
    assert json.loads(call["function"]["arguments"]) == json.loads(BASH)
    assert (answered["role"], answered["tool_call_id"]) == ("tool", "call_a1")
    assert "relay-42" in json.dumps(answered["content"])


def check_chat_request(said: Any, sent: Any, in_place: bool) -> None:
    """A turn of Claude Code's in the words of chat, and none of Anthropic's."""
    assert sent["model"] == "real-model"
    assert sent["stream"] is True
    assert said["max_tokens"] in (sent.get("max_tokens"), sent.get("max_completion_tokens"))

    # The system prompt first, all of it but the attribution.
    first, asked, *later = sent["messages"]
    assert first["role"] == "system"
    for block in said["system"][1:]:
        assert block["text"] in first["content"]
    assert ATTRIBUTION not in json.dumps(sent)

    # The system message behind the question stays there, be it in the user's words.
    question, surroundings = map(texts, said["messages"][:2])
    assert (said["messages"][1]["role"], asked["role"]) == ("system", "user")
    if in_place:
        assert (texts(asked), later[0]["role"]) == (question, "system")
        assert texts(later[0]) == surroundings
    else:
        assert texts(asked).startswith(question)
        assert surroundings in texts(asked).removeprefix(question)
        assert "system" not in [message["role"] for message in later]

    foreign = {"cache_control", "context_management", "output_config", "signature", "system"}
    foreign |= {"betas", "anthropic_beta", "stop_sequences", "input_schema", "display"}
    foreign |= {"defer_loading", "eager_input_streaming", "metadata"}
    assert not keys_in(sent) & foreign
    assert json.loads(said["metadata"]["user_id"])["device_id"] not in json.dumps(sent)

    offered = {tool["name"] for tool in said["tools"] if not tool.get("defer_loading")}
    assert {tool["type"] for tool in sent["tools"]} == {"function"}
    assert {tool["function"]["name"] for tool in sent["tools"]} == offered
    assert all(re.fullmatch(r"[\w-]{1,64}", name, re.ASCII) for name in offered)


def texts(message: Any) -> str:
    """A message's text, be it a string or parts; how parts are joined is left open."""
    content = message["content"]
    parts = [content] if isinstance(content, str) else [part["text"] for part in content]
    return re.sub(r"\s+", " ", " ".join(parts)).strip()


async def test_claude_code_gives_up_at_once_on_a_wrong_key(
    relay: Start, upstream: FakeUpstream, claude: Path, home: Path
) -> None:
    server = await relay(one(upstream) | {"keys": {"alice": {"key": f"{CLIENT_KEY}-of-alice"}}})
    async with asyncio.timeout(100):  # its ten tries would be over three minutes
        with pytest.raises(AssertionError, match="401"):
            await ask(claude, server.url, home)
    assert not upstream.requests
