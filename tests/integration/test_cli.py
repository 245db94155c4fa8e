"""The commands, as a person in a shell has them."""

import asyncio
import json
import os
import pty
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import FakeUpstream
from relay_process import (
    PROGRAM,
    SECRET,
    STARTED,
    Ran,
    RelayProcess,
    Start,
    complaints,
    environment,
    free_port,
    run,
    served,
    spawn,
    text_of,
)
from talk import DIALECTS, JSON, ask, config, one

import relay

LOCAL = "127.0.0.1:8484"


async def relay_on(home: Path, config: JSON, *command: str, **env: str) -> Ran:
    """A command on a config."""
    (home / "config.yaml").write_text(text_of(config, LOCAL))
    return await run(*command, "-c", "config.yaml", cwd=home, env=env)


async def checked(home: Path, config: JSON, **env: str) -> Ran:
    return await relay_on(home, config, "check", **env)


def refused(ran: Ran, *words: str) -> None:
    assert ran.status == 2, ran.output
    assert "Traceback" not in ran.output
    for word in words:
        assert word in ran.output


LOCALHOST = {"api_format": "openai", "endpoint": "http://127.0.0.1:1/v1"}
GOOD = {"providers": {"local": LOCALHOST | {"api_key": "sk-secret", "models": ["m", "n"]}}}

# ---- check ---------------------------------------------------------------------------------


async def test_a_good_file_is_0(tmp_path: Path) -> None:
    ran = await checked(tmp_path, GOOD)
    assert ran.status == 0
    assert SECRET not in ran.output


async def test_the_file_may_stand_before_or_after_the_command(tmp_path: Path) -> None:
    await checked(tmp_path, GOOD)
    for order in (["check", "-c", "config.yaml"], ["-c", "config.yaml", "check"]):
        assert (await run(*order, cwd=tmp_path)).status == 0


async def test_a_file_named_config_yaml_is_found(tmp_path: Path) -> None:
    await checked(tmp_path, GOOD)
    assert (await run("check", cwd=tmp_path)).status == 0


async def test_all_problems_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """\
listen: 127.0.0.1:99999
providers:
  local:
    api_format: opnai
    endpont: http://127.0.0.1:1/v1
    priority: high
routing_rules:
  m: [nobody]
timeouts:
  idle: -3
"""
    ran = await checked(tmp_path, text)
    refused(ran, "providers.local.endpont", "endpoint", "openai", "nobody")
    for line, path in ((1, "listen"), (4, "api_format"), (5, "endpont"), (6, "priority")):
        assert re.search(rf"config\.yaml:{line}:\d+:.*{path}", ran.output), (line, path)
    for line, path in ((8, "routing_rules"), (10, "idle")):
        assert re.search(rf"config\.yaml:{line}:\d+:.*{path}", ran.output), (line, path)
    assert "config.yaml:5:5:" in ran.output


MISSPELT = """\
provders: {}
routing-rules: {}
timeouts: {first_evnt: 1}
server: {max_bdy: 1MB}
keys:
  alice: {kye: x}
providers:
  local: {api_format: openai, endpoint: "http://127.0.0.1:1/v1", billing_plan: [x]}
  glm: {preset: bigmodle, api_key: x}
routing_rules: {m: locl}
default: locla/m
"""
MEANT = {
    1: "providers",
    2: "routing_rules",
    3: "first_event",
    4: "max_body",
    6: "key",
    8: "billing_plans",
    9: "bigmodel",
    10: "local",
    11: "local",
}


async def test_a_misspelt_word_is_answered_with_the_right_one(tmp_path: Path) -> None:
    ran = await checked(tmp_path, MISSPELT)
    refused(ran)
    for line, word in MEANT.items():
        pattern = rf"config\.yaml:{line}:\d+: .*[Dd]id you mean.*\b{word}\b"
        assert re.search(pattern, ran.output), (line, word, ran.output)


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "providers: {}\n", "providers: [\n", "a: b: c\n", "\x00"]
)
async def test_a_file_that_is_no_config_is_2(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    refused(await run("-c", "config.yaml", cwd=tmp_path), "config.yaml")


async def test_a_missing_file_is_2(tmp_path: Path) -> None:
    refused(await run("check", "-c", "nowhere.yaml", cwd=tmp_path), "nowhere.yaml")


NONSENSE = """\
listen: nonsense
allow_anonymous: maybe
timeouts: {connect: 0}
server: {max_body: 64 elephants}
log: {format: xml}
default: nobody/m
keys:
  empty: {key: ""}
  none: {}
  hash: {key: "sha256:xyz"}
  date: {key: x, expires: someday}
providers:
  nothing: {}
  relative: {api_format: openai, endpoint: "127.0.0.1:1"}
  scheme: {api_format: openai, endpoint: "ftp://127.0.0.1/v1"}
  mode: {api_format: openai, endpoint: "http://127.0.0.1:1/v1", stream_mode: sometimes}
  models: {api_format: openai, endpoint: "http://127.0.0.1:1/v1", models: 5}
  override: {api_format: openai, endpoint: "http://127.0.0.1:1/v1", override: {add: {}}}
  plans: {api_format: openai, endpoint: "http://127.0.0.1:1/v1", billing_plans: [gold]}
  weight: {api_format: openai, endpoint: "http://127.0.0.1:1/v1", weight: -1}
routing_rules:
  empty: []
  dead: nobody
"""


async def test_every_value_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    ran = await checked(tmp_path, NONSENSE)
    refused(ran)
    told = {int(line) for line in re.findall(r"config\.yaml:(\d+):\d+:", ran.output)}
    headings = {7, 12, 21}
    assert set(range(1, 24)) - headings - told == set(), ran.output


async def test_check_opens_no_connection(upstream: FakeUpstream, tmp_path: Path) -> None:
    assert (await checked(tmp_path, config(upstream))).status == 0
    assert upstream.requests == []


async def test_a_key_given_twice_is_told(tmp_path: Path) -> None:
    text = text_of(GOOD, LOCAL) + "default: local/m\ndefault: local/n\n"
    refused(await checked(tmp_path, text), "default")


# ---- References ----------------------------------------------------------------------------


def with_key(key: str) -> JSON:
    return {"providers": {"local": LOCALHOST | {"api_key": key}}}


@pytest.mark.parametrize("key", ["${NO_SUCH_KEY}", "os.environ/NO_SUCH_KEY"])
async def test_an_unset_variable_is_named(key: str, tmp_path: Path) -> None:
    refused(await checked(tmp_path, with_key(key)), "NO_SUCH_KEY", "providers.local.api_key")


async def test_an_inactive_provider_may_lack_its_variable(tmp_path: Path) -> None:
    sleeping = LOCALHOST | {"api_key": "${NO_SUCH_KEY}", "active": False}
    both = {"providers": {"local": LOCALHOST, "sleeping": sleeping}}
    assert (await checked(tmp_path, both)).status == 0


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("${SOME_KEY}", "sk-secret-found"),
        ("${NO_SUCH_KEY:-sk-secret-default}", "sk-secret-default"),
        ("${SOME_KEY:-sk-secret-default}", "sk-secret-found"),
        ("os.environ/SOME_KEY", "sk-secret-found"),
        ("file:{file}", "sk-secret-filed"),
        ("sk-secret-$${SOME_KEY}", "sk-secret-${SOME_KEY}"),
        ("sk-secret-${PART}-${PART}", "sk-secret-a-a"),
    ],
)
async def test_a_reference_is_followed(
    written: str,
    sent: str,
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_text("sk-secret-filed\n")
    key = written.replace("{file}", str(tmp_path / "key"))
    env = {"SOME_KEY": "sk-secret-found", "PART": "a"}
    server = await relay(one(upstream, api_key=key), env=env)
    await ask(http, server)
    assert upstream.requests[0].headers["authorization"] == f"Bearer {sent}"


async def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    refused(await checked(tmp_path, with_key("file:/no/such/file")), "/no/such/file")


# ---- route, models, key, schema ------------------------------------------------------------


async def test_route_says_where_a_name_goes_and_why(tmp_path: Path) -> None:
    rules = {"routing_rules": {"claude-*": ["local/m", "local/n"]}}
    (tmp_path / "config.yaml").write_text(text_of(GOOD | rules, LOCAL))
    ran = await run("route", "claude-opus", "-c", "config.yaml", cwd=tmp_path)
    assert ran.status == 0
    for word in ("local/m", "local/n", "claude-*"):
        assert word in ran.stdout
    assert SECRET not in ran.output


CONDITIONS = """\
keys:
  alice: {key: sk-secret-alice}
  bob: {key: sk-secret-bob, models: [gpt-*]}
providers:
  local: {api_format: openai, endpoint: "http://127.0.0.1:1/v1"}
  other: {api_format: anthropic, endpoint: "http://127.0.0.1:2", weight: 3}
routing_rules:
  claude-*:
    - {when: {header: {x-team: blue}}, to: local/blue}
    - {when: {key: alice, tokens_over: 50}, to: local/long}
    - {when: {images: true}, to: [local/vl, other/vl], balance: weighted}
  claude-x: {when: {thinking: true}, to: other/deep}
default: other/rest
"""
LONG = {"model": "claude-x", "max_tokens": 1, "messages": [{"role": "user", "content": "w " * 900}]}


async def explained(tmp_path: Path, body: JSON, *args: str) -> list[str]:
    """What `route` says of a request, line by line."""
    (tmp_path / "config.yaml").write_text(CONDITIONS)
    (tmp_path / "body.json").write_text(json.dumps(body))
    asked = ("route", "claude-x", "-c", "config.yaml", "--request", "body.json", *args)
    ran = await run(*asked, cwd=tmp_path)
    assert ran.status == 0, ran.output
    assert SECRET not in ran.output
    return [line.strip() for line in ran.stdout.splitlines()]


async def test_route_says_which_entry_a_request_meets_and_why_not_the_others(
    tmp_path: Path,
) -> None:
    lines = await explained(tmp_path, LONG, "--key", "alice", "--header", "X-Team: red")
    assert lines[:4] == [
        "claude-x: rule claude-*, entry 2",
        "not rule claude-x: thinking: true; the request: false",
        'not rule claude-*, entry 1: header: {"x-team":"blue"}; the request: {"x-team":"red"}',
        "1. local/long (regular)",
    ]
    lines = await explained(tmp_path, LONG)
    assert lines[0] == "claude-x: default"
    assert [line for line in lines if "entry 2" in line] == [
        'not rule claude-*, entry 2: key: ["alice"]; the request: ""'
    ]
    assert (await explained(tmp_path, LONG, "--header", "x-team:BLUE"))[0].endswith("entry 1")


async def test_route_shows_equals_in_the_order_of_that_conversation(tmp_path: Path) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}
    body = LONG | {"messages": [{"role": "user", "content": [image]}]}
    first = Counter[str]()
    for n in range(8):
        lines = await explained(tmp_path, body, "--header", f"x-claude-code-session-id: {n}")
        assert lines[0] == "claude-x: rule claude-*, entry 3"
        assert "(one of equals, weighted)" in lines[4]
        first[lines[4].split()[1]] += 1
    assert set(first) == {"local/vl", "other/vl"}


async def test_route_knows_the_keys_and_reads_the_request(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONDITIONS)
    (tmp_path / "body.json").write_text("{")
    for args, status, told in (
        (("--key", "alcie"), 2, "did you mean 'alice'?"),
        (("--key", "bob"), 1, "key 'bob' may not use it"),
        (("--request", "body.json"), 2, "body.json: the body is not JSON"),
        (("--request", "nothing.json"), 2, "nothing.json"),
    ):
        ran = await run("route", "claude-x", "-c", "config.yaml", *args, cwd=tmp_path)
        assert ran.status == status
        assert told in ran.output
        assert "Traceback" not in ran.output


async def test_route_of_an_unknown_name_suggests(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text_of(GOOD | {"providers": GLM}, LOCAL))
    ran = await run("route", "glm-46", "-c", "config.yaml", cwd=tmp_path)
    assert ran.status != 0
    assert "glm-4.6" in ran.output


GLM = {"local": LOCALHOST | {"models": ["glm-4.6"]}}


@pytest.mark.parametrize(
    ("word", "preset"), [("claude", "anthropic"), ("GLM", "bigmodel"), ("deepsek", "deepseek")]
)
async def test_a_makers_word_is_answered_with_its_preset(
    word: str, preset: str, tmp_path: Path
) -> None:
    ran = await checked(tmp_path, {"providers": {"a": {"preset": word, "api_key": "k"}}})
    refused(ran, f"unknown preset '{word}'; did you mean '{preset}'?")


async def test_a_preset_and_a_key_are_a_complete_provider(tmp_path: Path) -> None:
    """Of several plans the subscription alone: nobody is billed by surprise."""
    providers = {"glm": {"preset": "bigmodel", "api_key": "sk-secret"}}
    (tmp_path / "config.yaml").write_text(text_of({"providers": providers}, LOCAL))
    ran = await run("route", "glm-4.6", "-c", "config.yaml", cwd=tmp_path)
    assert ran.status == 0
    assert "https://open.bigmodel.cn/api/" in ran.stdout
    assert "https://open.bigmodel.cn/api/paas/v4" not in ran.stdout
    assert SECRET not in ran.output


async def test_models_lists_the_names_clients_may_use(tmp_path: Path) -> None:
    providers = {"local": LOCALHOST | {"models": {"alpha": "Org/A", "beta-*": "b"}, "prefix": "q"}}
    ran = await relay_on(tmp_path, {"providers": providers}, "models")
    assert ran.status == 0
    for name in ("alpha", "q/alpha", "local", "Org/A"):
        assert name in ran.stdout


UNSET = {
    "keys": {"alice": {"key": "${RELAY_KEY_ALICE}", "models": ["glm-*"]}},
    "admin_key": "${RELAY_ADMIN}",
    "providers": {
        "zai": {"preset": "zai", "api_key": "${ZAI_API_KEY}", "models": ["glm-5.3"]},
        "file": {"preset": "openai", "api_key": "file:/nowhere/key"},
        "off": {"preset": "openai", "api_key": "${OFF_KEY}", "active": False},
    },
    "state": "sqlite:relay.db",
}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("models", "glm-5.3  ->  zai/glm-5.3"),
        ("route glm-5.3", "1. zai/glm-5.3 (coding)"),
        ("route gpt-4 --key alice", "key 'alice' may not use it"),
        ("usage", "relay.db: No such file"),  # which it would not have come to
    ],
)
async def test_in_another_terminal_no_secret_need_be_set(
    command: str, said: str, tmp_path: Path
) -> None:
    ran = await relay_on(tmp_path, UNSET, *command.split())
    assert said in ran.output
    assert "not set" not in ran.output
    ran = await relay_on(tmp_path, UNSET | {"timeouts": {"idle": -3}}, *command.split())
    refused(ran, "timeouts.idle")
    assert "not set" not in ran.output


async def test_where_secrets_matter_each_is_asked_for(tmp_path: Path) -> None:
    ran = await checked(tmp_path, UNSET)
    refused(ran, "RELAY_KEY_ALICE", "RELAY_ADMIN", "ZAI_API_KEY", "file:/nowhere/key")
    assert "OFF_KEY" not in ran.output


async def test_key_makes_a_new_key_each_time(tmp_path: Path) -> None:
    first, second = [await run("key", cwd=tmp_path) for _ in range(2)]
    assert (first.status, second.status) == (0, 0)
    assert first.stdout != second.stdout
    assert re.search(r"sha256:[0-9a-f]{64}", first.stdout)


async def test_schema_is_a_json_schema_of_the_whole_config(tmp_path: Path) -> None:
    ran = await run("schema", cwd=tmp_path)
    schema = json.loads(ran.stdout)
    assert "json-schema.org" in schema["$schema"]
    assert {"providers", "routing_rules", "listen", "keys", "timeouts"} <= schema[
        "properties"
    ].keys()


async def test_version_is_said(tmp_path: Path) -> None:
    ran = await run("--version", cwd=tmp_path)
    assert ran.status == 0
    assert re.search(r"\d+\.\d+", ran.stdout)


async def test_help_names_the_commands(tmp_path: Path) -> None:
    ran = await run("--help", cwd=tmp_path)
    assert ran.status == 0
    for command in ("serve", "check", "route", "models", "key", "schema", "--demo", "--version"):
        assert command in ran.stdout


async def test_help_explains_every_option(tmp_path: Path) -> None:
    """An option and nothing behind it is a riddle."""
    for command in ([], ["serve"], ["check"], ["route"], ["usage"], ["run"], ["import"]):
        said = (await run(*command, "--help", cwd=tmp_path)).stdout
        for option in ("--config FILE", "--demo", "--listen ADDRESS", "--reuse-port"):
            assert re.search(rf"^ .*{option}\s+[a-z.]", said, re.M), (command, option)


async def test_the_demo_passes_its_own_trial(tmp_path: Path) -> None:
    ran = await run("--demo", "check", "--live", "--yes", cwd=tmp_path, within=110)
    assert (ran.status, ran.stdout.splitlines()[0]) == (0, "the demo: ok")
    rows = re.findall(r"^demo +regular .+$", ran.stdout, re.M)
    assert len(rows) == len(re.findall(r"^  demo \(regular\)", ran.stdout, re.M)) > 3
    assert not any("FAILED" in row or "no call" in row for row in rows)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run", "required: client\n"),
        ("check --foo", "unrecognized arguments: --foo"),
        ("check --provider x", "need --live"),
        ("models --provider x", "need --fetch"),
        ("check --json", "need --live"),
        ("models --json", "need --fetch"),
        ("diff 3f2a", "required: other\n"),
    ],
)
async def test_what_is_missing_or_too_much_is_said(command: str, said: str, tmp_path: Path) -> None:
    ran = await run(*command.split(), cwd=tmp_path)
    assert ran.status == 2
    assert said in ran.stderr
    assert "need --" in said or f"usage: relay {command.split()[0]} " in ran.stderr


@pytest.mark.parametrize("command", ["health", "top", "logs"])
async def test_an_address_is_enough_to_ask_a_running_relay(
    command: str, demo: RelayProcess, tmp_path: Path
) -> None:
    ran = await run("--listen", demo.url.removeprefix("http://"), command, cwd=tmp_path)
    assert ran.status == 0, ran.output
    missing = await run(command, cwd=tmp_path)
    assert (missing.status, missing.stderr[:16]) == (2, "no configuration")


@pytest.mark.parametrize("command", ["health", "reload", "plans", "logs", "top"])
async def test_another_program_at_the_address_is_said_to_be_no_relay(
    command: str, tmp_path: Path
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        ran = await run("--demo", "--listen", address, command, cwd=tmp_path)
    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr == f"what answers at {address} is no relay\n"


async def test_lists_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    providers = {name: {"api_format": "demo"} for name in ("zeta", "alpha")}
    ran = await relay_on(tmp_path, {"providers": providers}, "models", "--fetch", "--json")
    lists = json.loads(ran.stdout)["lists"]
    assert [each["provider"] for each in lists] == ["zeta", "alpha"]


@pytest.mark.parametrize("option", ["-f", "--follow"])
def test_following_has_a_short_name(option: str) -> None:
    arguments = ["logs", option]
    assert relay.parser(arguments).parse_args(arguments).follow


async def test_help_explains_a_command_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    ran = await run("help", "route", cwd=tmp_path)
    assert ran.status == 0
    assert "--request FILE" in ran.output
    refused(await run("help", "nonsense", cwd=tmp_path), "unknown topic: nonsense; expected")


async def test_help_lists_the_paths_of_all_requests(tmp_path: Path) -> None:
    ran = await run("help", "paths", cwd=tmp_path)
    for path in ("POST /v1/messages", "POST /v1/embeddings", "/p/PROVIDER/...", "GET /models"):
        assert re.search(rf"^{path} ", ran.output, re.M), path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_the_output_is_said(tmp_path: Path) -> None:
    command = (sys.executable, str(PROGRAM), "schema")
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (ran.returncode, ran.stderr) == (2, b"output: No space left on device\n")


def test_an_interrupted_command_ends_as_other_programs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(relay.COMMANDS, "key", relay.COMMANDS["key"]._replace(run=interrupted))
    assert relay.main(["key"]) == 130


async def test_a_malformed_address_in_the_file_is_said(tmp_path: Path) -> None:
    for command in ("systemd", "docker", "health"):
        (tmp_path / "config.yaml").write_text("listen: nope\nproviders: {}\n")
        ran = await run(command, cwd=tmp_path)
        refused(ran, "expected host:port or unix:PATH, got 'nope'")


async def test_an_unknown_command_is_2(tmp_path: Path) -> None:
    refused(await run("sevre", cwd=tmp_path), "serve")


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[RelayProcess]:
    """`relay --demo`, on a free port."""
    address = f"127.0.0.1:{free_port()}"
    server = await serving(tmp_path, f"http://{address}", "--demo", "--listen", address)
    yield server
    await server.end()
    assert not complaints(server)


# ---- serve ---------------------------------------------------------------------------------


async def serving(home: Path, address: str, *args: str, **env: str) -> RelayProcess:
    process = await spawn(*args, cwd=home, env=env)
    return await served(RelayProcess(address, home / "config.yaml", process))


async def test_serve_may_be_said(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "config.yaml").write_text(text_of(GOOD, f"127.0.0.1:{port}"))
    server = await serving(tmp_path, f"http://127.0.0.1:{port}", "serve", "-c", "config.yaml")
    assert await server.stop() == 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_demo_answers_in_both_dialects_without_anything(
    streamed: bool, demo: RelayProcess, http: ClientSession
) -> None:
    texts = set()
    for client in DIALECTS:
        asked: JSON = {"stream": streamed}
        if streamed and client == "openai":
            asked["stream_options"] = {"include_usage": True}
        said = (await ask(http, demo, client, model="demo", **asked)).said
        assert said.finish == "stop"
        assert said.tokens_in > 0
        texts.add(said.text)
    assert len(texts) == 1
    assert texts != {""}


async def test_demo_knows_the_model_that_stands_in_a_url(
    demo: RelayProcess, http: ClientSession
) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    url = f"{demo.url}/v1beta/models/some-model:generateContent"
    async with http.post(url, json=body) as reply:
        said = await reply.text()
    assert reply.status == 200
    assert "asked for the model 'some-model'" in said


@pytest.mark.parametrize("client", DIALECTS)
async def test_demo_calls_a_tool_when_asked_to(
    client: str, demo: RelayProcess, http: ClientSession
) -> None:
    asked: JSON = {"model": "demo", "text": "Use the tool get_weather for Oslo.", "stream": True}
    reply = await ask(http, demo, client, tools=[DIALECTS[client].tool], **asked)
    assert [name for name, _ in reply.said.calls] == ["get_weather"]
    assert reply.said.finish == "tool_calls"


async def test_a_taken_port_is_said_plainly(relay: Start, tmp_path: Path) -> None:
    server = await relay(GOOD)
    (tmp_path / "config.yaml").write_text(text_of(GOOD, server.url.removeprefix("http://")))
    ran = await run("-c", "config.yaml", cwd=tmp_path)
    assert ran.status != 0
    assert server.url.rpartition(":")[2] in ran.stderr
    assert "Traceback" not in ran.output


async def test_several_addresses_are_all_served(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    server = await relay(config(upstream) | {"listen": addresses})
    for address in addresses:
        async with http.get(f"http://{address}/healthz") as response:
            assert response.status == 200
    assert await server.stop() == 0


async def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    port = free_port()
    listen = {"listen": [f"127.0.0.1:{port}", f"unix:{path}"]}
    (tmp_path / "config.yaml").write_text(text_of(GOOD | listen, ""))
    server = await serving(tmp_path, f"http://127.0.0.1:{port}", "-c", "config.yaml")
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get("http://localhost/healthz") as response,
    ):
        assert response.status == 200
    assert await server.stop() == 0
    assert not path.exists()


async def test_without_a_file_it_serves_the_providers_of_the_environment(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    env = {"DEEPSEEK_API_KEY": "sk-secret-found"}
    process = await spawn("--listen", address, cwd=tmp_path, env=env)
    server = RelayProcess(f"http://{address}", tmp_path / "config.yaml", process)
    try:
        said = await server.says("deepseek", STARTED)
        assert "DEEPSEEK_API_KEY" in said
        assert SECRET not in said
    finally:
        await server.end()


async def test_without_a_file_or_a_key_it_says_what_to_do(tmp_path: Path) -> None:
    ran = await run(cwd=tmp_path)
    assert ran.status == 2
    assert "--demo" in ran.output
    assert "Traceback" not in ran.output


async def test_the_start_is_announced_without_secrets(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    said = await server.says(re.escape(server.url.removeprefix("http://")))
    assert SECRET not in said


# ---- Words ---------------------------------------------------------------------------------


async def test_what_cannot_be_read_is_said_in_the_systems_words(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD))
    for arguments in (("import", "nope.json"), ("route", "m", "--request", "nope.json")):
        ran = await run(*arguments, cwd=tmp_path)
        refused(ran, "nope.json: ", "No such file or directory")
        assert "Errno" not in ran.output


async def test_a_file_in_another_coding_is_said_where(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"providers:\n  p: {preset: ollama} # \xe4\n")
    refused(await run("check", cwd=tmp_path), "config.yaml:2:25: not UTF-8: the byte 0xE4")


async def test_what_tls_and_plugins_lack_is_named(tmp_path: Path) -> None:
    extra = {"tls": {"certificate": "/nope.pem", "key": "/nope.key"}, "plugins": ["nope.py"]}
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD | extra))
    refused(
        await run("check", cwd=tmp_path),
        "tls: cannot read /nope.pem: No such file or directory; cannot read /nope.key: No such",
        f"plugins: cannot read {tmp_path}/nope.py: No such file or directory",
    )


async def test_an_unknown_column_of_usage_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD))
    ran = await run("usage", "--by", "colour", cwd=tmp_path)
    assert (ran.status, ran.stdout) == (2, "")
    assert "--by colour: one of key, provider, model" in ran.stderr


@pytest.mark.parametrize("command", [("check", "--live", "--yes"), ("models", "--fetch")])
async def test_a_provider_that_is_none_is_an_error_in_the_arguments(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD))
    ran = await run(*command, "--provider", "locol", cwd=tmp_path)
    refused(ran, "no provider is called 'locol'; did you mean 'local'?")


async def test_an_address_in_use_is_said_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = await run("--listen", listen, cwd=tmp_path)
    refused(ran, f"cannot listen on {listen}: address already in use; --listen takes another")


async def test_the_demo_is_a_command_too(tmp_path: Path, http: ClientSession) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = await serving(tmp_path, f"http://{address}", "demo", "--listen", address)
    try:
        assert (await ask(http, server)).headers["x-relay-provider"] == "demo"
    finally:
        await server.end()


async def test_a_port_that_the_system_chose_is_said(tmp_path: Path, http: ClientSession) -> None:
    (tmp_path / "config.yaml").write_text(text_of(GOOD, "127.0.0.1:0"))
    server = await serving(tmp_path, "")
    try:
        listen = server.log()[0]["listen"]
        async with http.get(f"http://{listen}/healthz") as response:
            assert response.status == 200
    finally:
        await server.end()


NO_ARGUMENTS = [
    (("records", "--number", "-1"), "'-1': expected a number from 1 to 9999"),
    (("usage", "--days", "0"), "'0': expected a number from 1 to 9999"),
    (("usage", "--days", "many"), "'many': expected a number from 1 to 9999"),
    (("route", "m", "--header", "x-team"), "--header 'x-team': expected 'NAME: VALUE'"),
    (("route", "m", "--header", ": red"), "--header ': red': expected 'NAME: VALUE'"),
    (("check", "--listen", "8484x"), "expected host:port or unix:PATH, got '8484x'"),
    (("systemd", "--listen", "8484x"), "expected host:port or unix:PATH, got '8484x'"),
]


@pytest.mark.parametrize(("arguments", "said"), NO_ARGUMENTS, ids=str)
async def test_arguments_that_are_none_are_2(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(GOOD))
    refused(await run(*arguments, cwd=tmp_path), said)


# ---- On a terminal -------------------------------------------------------------------------


async def on_terminal(
    home: Path, *command: str, **env: str
) -> tuple[asyncio.subprocess.Process, int]:
    """A relay whose stderr is a terminal, and the terminal's other end."""
    out, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), *command),
        cwd=home,
        env=environment({"TERM": "xterm", "NO_COLOR": ""} | env),
        stderr=terminal,
        stdout=asyncio.subprocess.PIPE,
    )
    os.close(terminal)
    return process, out


async def written(out: int, mark: str) -> str:
    """What is on the terminal once the mark is."""
    seen = ""
    async with asyncio.timeout(STARTED):
        while mark not in seen:
            seen += (await asyncio.to_thread(os.read, out, 4096)).decode()
    return seen


@pytest.mark.parametrize(
    ("env", "more", "coloured"),
    [
        ({}, "", True),
        ({"NO_COLOR": "1"}, "", False),
        ({"TERM": "dumb"}, "", False),
        ({}, "log: {format: json}", False),
    ],
    ids=["colours", "NO_COLOR", "dumb", "json"],
)
async def test_the_log_of_a_terminal_names_the_page_and_the_next_step(
    env: dict[str, str], more: str, coloured: bool, tmp_path: Path, http: ClientSession
) -> None:
    address = f"127.0.0.1:{free_port()}"
    provider = 'providers: {demo: {api_format: demo, models: ["*"]}}'
    (tmp_path / "own.yaml").write_text(f"listen: {address}\n{provider}\n{more}\n")
    process, out = await on_terminal(tmp_path, "-c", "own.yaml", **env)
    try:
        first = await written(out, "\n")
        assert f"http://{address}/" in first
        assert ("next=relay -c own.yaml run claude" in first) is not more.startswith("log")
        async with http.get(f"http://{address}/") as response:
            assert response.status == 200
            assert "<html" in await response.text()
        asked = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post(f"http://{address}/v1/chat/completions", json=asked) as response:
            assert response.status == 200
        line = await written(out, "\n")
    finally:
        process.terminate()
        await process.wait()
        os.close(out)
    assert ("\x1b[32minfo\x1b[0m" in first) is coloured
    assert ("\x1b[32mOK 200\x1b[0m  m -> demo/m" in line) is coloured
    assert coloured or "\x1b" not in first + line


async def test_a_log_in_a_file_has_no_colours(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = await serving(tmp_path, f"http://{address}", "--demo", "--listen", address)
    await server.end()
    assert "is ready" in server.stderr
    assert f"http://{address}/" in server.stderr
    assert "\x1b" not in server.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
@pytest.mark.parametrize("command", ["schema", "help keys"])
def test_a_reader_that_leaves_is_no_traceback(command: str, tmp_path: Path) -> None:
    line = f"{sys.executable} {PROGRAM} {command} | true"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
