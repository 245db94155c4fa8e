"""Credentials that a program prints: when it runs, what is sent, and that nothing shows them."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, Answer, FakeUpstream, Seen, chat_error, chat_stream, chat_whole
from relay_process import Start, run
from talk import ask, one

import relay as relay_module

TOKEN = "ya29.token-number-{}"


class Program:
    """A program that prints another token each time, and counts how often it ran."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "program.py"
        self.runs = folder / "runs"
        self.set("print(token)")

    def set(self, does: str) -> None:
        self.file.write_text(
            "import pathlib, sys, time\n"
            f"runs = pathlib.Path({str(self.runs)!r})\n"
            "number = len(runs.read_text()) + 1 if runs.exists() else 1\n"
            "runs.write_text('.' * number)\n"
            f"token = {TOKEN!r}.format(number)\n{does}\n"
        )

    @property
    def count(self) -> int:
        return len(self.runs.read_text()) if self.runs.exists() else 0

    def key(self, **more: Any) -> Any:
        return {"command": f"{sys.executable} '{self.file}'", **more}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Program(folder)


def bearers(upstream: FakeUpstream) -> list[str]:
    return [seen.headers["Authorization"].removeprefix("Bearer ") for seen in upstream.requests]


async def test_it_runs_when_it_is_needed_and_once_for_all_who_wait(
    upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    program.set("time.sleep(0.3); print(token)")
    server = await relay(one(upstream, api_key=program.key()))
    assert program.count == 0
    replies = await asyncio.gather(*(ask(http, server) for _ in range(5)))
    assert {reply.said.text for reply in replies} == {TEXT}
    assert (set(bearers(upstream)), program.count) == ({TOKEN.format(1)}, 1)
    assert TOKEN.format(1) not in server.stderr


async def test_it_runs_again_before_its_time_is_over(
    upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    server, clock = await relay(one(upstream, api_key=program.key(ttl="2s"))), time.monotonic
    began = clock()
    while TOKEN.format(2) not in bearers(upstream):
        assert (await ask(http, server)).said.text == TEXT
        await asyncio.sleep(0.1)
    assert bearers(upstream)[0] == TOKEN.format(1)
    # at nine tenths of 2 s, however long all of this took
    assert 2 <= program.count <= 2 + (clock() - began) / 1.8


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_makes_it_run_once_more(
    stream: bool, upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    def answer(seen: Seen) -> Answer:
        if TOKEN.format(1) in seen.headers["Authorization"]:
            return chat_error(401, f"expired: {TOKEN.format(1)}")
        return (chat_stream if stream else chat_whole)(text="yes")

    upstream.script(answer)
    server = await relay(one(upstream, api_key=program.key()))
    reply = await ask(http, server, stream=stream)
    assert (reply.said.text, program.count) == ("yes", 2)
    assert (await ask(http, server)).said.text == "yes"
    assert bearers(upstream) == [TOKEN.format(1), TOKEN.format(2), TOKEN.format(2)]
    assert "ya29" not in server.stderr


async def test_after_two_refusals_it_is_a_failure_like_any_other(
    upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    upstream.script(lambda seen: chat_error(401, seen.headers["Authorization"]))
    server = await relay(one(upstream, api_key=program.key()))
    reply = await ask(http, server)
    assert (reply.status, program.count, len(upstream.requests)) == (502, 2, 2)
    assert "ya29" not in reply.body.decode() + server.stderr
    await ask(http, server)
    assert program.count == 2  # it is cooling down


@pytest.mark.parametrize(
    ("does", "shown"),
    [
        ("print(token); sys.exit('log in first ' + token)", "status 1: log in first [secret]"),
        ("print(token); sys.exit(3)", "status 3: no word why"),
        ("print(token, token)", "printed no credential"),
        ("print('')", "printed no credential"),
    ],
)
async def test_its_error_is_the_provider_s_and_shows_nothing_of_its_output(
    does: str, shown: str, upstream: FakeUpstream, relay: Start, http: ClientSession,
    program: Program,
) -> None:  # fmt: skip
    program.set(does)
    server = await relay(one(upstream, api_key=program.key()))
    reply = await ask(http, server)
    text = reply.body.decode()
    assert (reply.status, upstream.requests) == (502, [])
    assert shown in text
    assert "was not asked; the program in `api_key` gave no credential" in text
    assert "ya29" not in text + server.stderr
    line = await server.logged()
    assert line.attempts[0]["outcome"] == "auth"


async def test_another_credential_of_the_list_or_plan_serves_meanwhile(
    upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    program.set("sys.exit(1)")
    server = await relay(one(upstream, api_key=[program.key(), "plain"]))
    for _ in range(4):
        assert (await ask(http, server)).said.text == TEXT
    assert set(bearers(upstream)) == {"plain"}
    config = one(upstream)
    first = config["providers"]["first"]
    first["endpoints"] = {"a": first.pop("endpoint")}
    server.write(config | {"providers": {"first": first | {"api_key": {"a": program.key()}}}})
    program.set("print(token)")
    await server.hup()
    assert (await ask(http, server)).said.text == TEXT
    assert bearers(upstream)[-1].startswith("ya29")


async def test_a_reload_keeps_what_is_still_good(
    upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    server = await relay(one(upstream, api_key=program.key(ttl="1h")))
    await ask(http, server)
    server.write(one(upstream, api_key=program.key(ttl="1h"), priority=5))
    await server.hup()
    upstream.script(lambda seen: chat_error(400, seen.headers["Authorization"]))
    reply = await ask(http, server)
    assert program.count == 1
    assert "Bearer [secret]" in reply.body.decode()


async def test_what_it_printed_is_masked_below_p_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession, program: Program
) -> None:
    upstream.script(lambda seen: chat_error(403, seen.headers["Authorization"]))
    server = await relay(one(upstream, api_key=program.key()))
    async with http.get(f"{server.url}/p/first/v1/models") as reply:
        assert "[secret]" in (text := await reply.text())
    assert "ya29" not in text + server.stderr


async def test_check_knows_it_and_live_runs_it(
    upstream: FakeUpstream, program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    key = f"{{command: \"{sys.executable} '{program.file}'\"}}"
    entry = f"{{api_format: openai, endpoint: '{upstream.url}/v1', models: [m], api_key: {key}}}"
    file.write_text(f"providers: {{first: {entry}}}\n")
    ran = await run("check", "-c", str(file), cwd=tmp_path)
    assert (ran.status, program.count) == (0, 0)
    ran = await run("check", "--live", "--yes", "-c", str(file), cwd=tmp_path)
    assert program.count == 1
    assert set(bearers(upstream)) == {TOKEN.format(1)}
    assert "ya29" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("{command: no-such-program here}", "command: there is no program 'no-such-program' here"),
        ('{command: "it\'s"}', "command: expected a program and its arguments: no closing"),
        ("{command: ''}", "command: expected a program and its arguments, got ''"),
        ("{ttl: 5m}", "api_key.command: required"),
    ],
)
async def test_check_says_what_is_wrong(key: str, shown: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    entry = f"{{api_format: openai, endpoint: 'http://h/v1', api_key: {key}}}"
    file.write_text(f"providers: {{first: {entry}}}\n")
    ran = await run("check", "-c", str(file), cwd=tmp_path, env=dict(os.environ))
    assert ran.status == 2
    assert shown in ran.stderr


async def test_one_that_hangs_is_ended_and_not_run_again_at_once(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module.Credentials, "_RUN_SECONDS", 1.0)
    program.set("print(token, flush=True); time.sleep(60)")
    command = (sys.executable, str(program.file))
    credential = relay_module.Credential("p/regular/1", "", "1", command, 60.0)
    credentials, masks = relay_module.Credentials(), relay_module.Secrets(())
    for _ in range(2):
        with pytest.raises(relay_module.UpstreamError, match="printed no credential within 1 s"):
            await credentials.secret(credential, masks)
    assert program.count == 1


async def test_a_run_that_was_under_way_at_a_refusal_may_end_at_any_time(program: Program) -> None:
    command = (sys.executable, str(program.file))
    credential = relay_module.Credential("p/regular/1", "", "1", command, 3600)
    credentials, masks = relay_module.Credentials(), relay_module.Secrets(())
    first = await credentials.secret(credential, masks)
    printed = credentials._printed["p/regular/1"]
    old = printed._replace(since=printed.since - 3300)  # over nine tenths of its time
    credentials._printed["p/regular/1"] = old
    program.set("time.sleep(0.2); print(token)")
    assert await credentials.secret(credential, masks) == first  # and another run is under way
    _, running = credentials._runs["p/regular/1"]
    assert credentials.refused(credential, first)
    assert await running == ""
    second = credentials._printed["p/regular/1"]
    old = second._replace(since=second.since - 2 * relay_module.Credentials._TRUST_SECONDS)
    credentials._printed["p/regular/1"] = old
    assert credentials.refused(credential, second.secret)
