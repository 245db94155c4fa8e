"""README's block for each client, run as it stands there but for the port."""

import asyncio
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.cli import LONGEST
from fake_upstream import Answer, FakeUpstream, Seen, chat_stream, chat_whole
from relay_process import Start
from talk import one

README = (Path(__file__).parents[2] / "README.md").read_text()
SAID = "Relay carried this."

# The heading, the kind of block, the file it is (or none: a shell's lines), what is run behind it
BLOCKS = {
    "claude": ("Claude Code on GLM", "sh", "", "-p hello"),
    "codex": ("Codex", "toml", ".codex/config.toml", "codex exec --skip-git-repo-check hello"),
    "gemini": ("Gemini CLI", "sh", "", "-p hello --skip-trust"),
    "qwen": ("Qwen Code", "sh", "", "-p hello"),
    "claude in Chinese": ("Claude Code 接 GLM 编程套餐", "sh", "", "-p hello"),
    "codex in Chinese": (
        *("Codex 接 GLM 编程套餐", "toml", ".codex/config.toml"),
        "codex exec --skip-git-repo-check hello",
    ),
    "opencode": ("opencode", "json", "opencode.json", "opencode run -m relay/glm-4.6 hello"),
}
LOGIN = {".gemini/settings.json": r'\{"security".*?\}\}\}'}  # files that the prose names


def block(heading: str, kind: str) -> str:
    """The last block of this kind under a heading: the one in front of the client."""
    section = README.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    found = re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)
    assert found, f"README has no {kind} block under {heading}"
    return found[-1].strip()


def answer(seen: Seen) -> Answer:
    return (chat_stream if seen.json.get("stream") else chat_whole)(text=SAID)


@pytest.mark.parametrize("client", BLOCKS)
async def test_a_client_is_set_up_as_readme_says(
    client: str,
    relay: Start,
    upstream: FakeUpstream,
    installed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    heading, kind, file, command = BLOCKS[client]
    client = client.partition(" ")[0]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / client).symlink_to(installed(client))
    upstream.script(answer)
    server = await relay(one(upstream))
    text = block(heading, kind).replace("127.0.0.1:8484", server.url.partition("//")[2])
    assert text != block(heading, kind), "the block names no address"
    files = {name: re.search(p, README, re.DOTALL) for name, p in LOGIN.items()}
    written = {name: match[0] for name, match in files.items() if match} | (
        {file: text} if file else {}
    )
    for name, content in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    ran = await shell(command if file else f"{text} {command}", tmp_path, programs)
    assert SAID in ran, ran
    assert upstream.requests


async def shell(script: str, home: Path, programs: Path) -> str:
    """What a shell prints that runs this in an empty home."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"set -e; cd {shlex.quote(str(home))}; {script}"),
        env={"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LONGEST):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode()
