"""What is said in the benchmark, in every dialect, rendered by relay's own hub.

A dialect that is new in `DIALECTS` is measured without a line being written here.
"""

import random
from pathlib import Path
from typing import Any

import relay

STAMP = "T=0000000000000000000"  # the provider writes the time over it, see provider.c
WORDS = (
    "the of and to in is it that for on was with as are be at by this have from or had not but "
    "what all were when we there can an your which their said if do will each about how up out"
).split()
KINDS = ("tiny", "agent")


class Maker:
    """Words that look like prose and code, always the same ones."""

    def __init__(self) -> None:
        self._random = random.Random(7)  # for prose, not for secrets

    def prose(self, size: int) -> str:
        words = " ".join(self._random.choices(WORDS, k=size // 3))
        return words[:size]

    def code(self, size: int) -> str:
        line = '    if (rows[{}] != "{}\\n") {{ return call({}, {}); }}\t// {} \N{EM DASH} ok\n'
        lines = []
        for _ in range(size // 60 + 1):
            number, word = self._random.randrange(999), self._random.choice(WORDS)
            lines.append(line.format(number, word, word, number, self.prose(20)))
        return "".join(lines)[:size]

    def schema(self) -> dict[str, Any]:
        names = (f"{word}_{index}" for index, word in enumerate(self._random.sample(WORDS, 8)))
        properties = {name: {"type": "string", "description": self.prose(120)} for name in names}
        return {"type": "object", "properties": properties, "required": list(properties)[:2]}

    def request(self, kind: str, stream: bool) -> relay.Request:
        """`tiny`: 200 bytes; `agent`: 60 turns of a coding agent with 25 tools, 260 KB."""
        user = relay.Message("user", (relay.Text(self.prose(110)),))
        if kind == "tiny":
            return relay.Request(model="bench", messages=(user,), max_tokens=64, stream=stream)
        turns = [relay.Message("system", (relay.Text(self.prose(14000)),)), user]
        for index in range(30):
            id, name = f"call_{index:04}", f"tool_{index % 25}"
            path = relay.dumps({"path": f"/src/{index}.py", "text": self.prose(200)}).decode()
            call = relay.ToolCall(id, name, path)
            turns.append(relay.Message("assistant", (relay.Text(self.prose(300)), call)))
            result = relay.ToolResult(id, (relay.Text(self.code(4700)),))
            turns.append(relay.Message("user", (result,)))
        tools = tuple(
            relay.Tool(f"tool_{index}", self.prose(1400), self.schema()) for index in range(25)
        )
        return relay.Request(
            model="bench", messages=tuple(turns), tools=tools, max_tokens=8192, stream=stream
        )


def body(dialect: relay.Dialect, kind: str, stream: bool) -> bytes:
    quirks = getattr(dialect, "quirks", relay.Quirks)()
    rendered = dialect.render_request(Maker().request(kind, stream), quirks, "")
    return relay.dumps(rendered.body)


def path(dialect: relay.Dialect, stream: bool) -> str:
    """Where a client posts to."""
    versioned = dialect.path if dialect.path.startswith("/v1") else f"/v1{dialect.path}"
    if hasattr(dialect, "address"):
        return str(dialect.address(versioned, "bench", stream, ""))
    return versioned


def post(port: int, where: str, data: bytes, headers: tuple[str, ...] = ()) -> bytes:
    """A whole HTTP request."""
    lines = (
        f"POST {where} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        "accept: */*",
        "user-agent: bench/1",
        f"content-length: {len(data)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + data


def write_answers(dialect: relay.Dialect, directory: Path) -> Path:
    """What a provider of this dialect answers, in the files that provider.c reads."""
    directory.mkdir(parents=True, exist_ok=True)
    asked, usage = relay.AnswerContext("bench", "bench"), relay.Usage(input=11, output=300)
    whole = relay.Response("an-id", "bench", (relay.Text("A" * 100),), "stop", usage)
    (directory / "whole").write_bytes(relay.dumps(dialect.render_response(whole, asked)))
    encoder = dialect.encoder(asked)
    said = {
        "opening": (relay.Start("an-id", "bench", usage), relay.PartStart(relay.Text())),
        "delta": (relay.PartDelta(f" {STAMP}"),),
        "ending": (relay.PartEnd(), relay.Finish("stop", usage)),
    }
    for name, events in said.items():
        (directory / name).write_bytes(b"".join(map(encoder.encode, events)))
    return directory
