"""What is left of plans and balances: looked up, read from answers, and what follows from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream, anthropic_whole, chat_error, chat_whole, whole
from relay_process import SECRET, SOON, RelayProcess, Start, run, text_of
from talk import JSON, ask, eventually
from unit.quotas import ANSWERS, GLM_HOURS, glm

import relay as relay_module

ADMIN = f"{SECRET}-admin"
KEYED = {"Authorization": f"Bearer {ADMIN}"}
KEY = "sk-secret-one"
CODING, REGULAR = "/api/coding/paas/v4/chat/completions", "/api/paas/v4/chat/completions"
LIMITS = "/api/monitor/usage/quota/limit"


def full(percent: float, wait: float = 3600, **headers: str) -> Answer:
    """What GLM answers when so much of its five hours is used."""
    resets = int((time.time() + wait) * 1000)
    return whole(glm(GLM_HOURS | {"percentage": percent, "nextResetTime": resets}), headers=headers)


def bigglm(upstream: FakeUpstream, **extra: JSON) -> JSON:
    endpoints = {
        "coding": f"{upstream.url}/api/coding/paas/v4",
        "regular": f"{upstream.url}/api/paas/v4",
    }
    provider = {
        "preset": "bigmodel",
        "endpoints": endpoints,
        "api_format": "openai",
        "billing_plans": ["coding", "regular"],
        "api_key": KEY,
        "models": ["glm-4.6"],
    }
    return {"providers": {"bigglm": provider | extra}, "admin_key": ADMIN}


async def plans(http: ClientSession, server: RelayProcess, ask: bool = False) -> JSON:
    """What /admin/plans answers; with `ask` after asking the makers."""
    how, url = ("POST" if ask else "GET"), f"{server.url}/admin/plans"
    async with http.request(how, url, headers=KEYED, json={} if ask else None) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def credentials(report: JSON) -> list[JSON]:
    return [
        credential
        for provider in report["providers"]
        for plan in provider["plans"]
        for credential in plan["credentials"]
    ]


async def turn(http: ClientSession, server: RelayProcess, talk: str, n: int = 1) -> str:
    """One turn of a conversation; the credential that answered it."""
    await ask(http, server, model="glm-4.6", headers={"x-session-id": talk})
    line = await last_line(server, n)
    attempt = line["attempts"][-1]
    return f"{attempt['plan']}/{attempt['credential']}"


async def last_line(server: RelayProcess, count: int) -> dict[str, Any]:
    def lines() -> list[dict[str, Any]]:
        return [line for line in server.log() if "attempts" in line]

    await server.until(lambda: len(lines()) >= count)
    return lines()[count - 1]


def asked(upstream: FakeUpstream, path: str) -> int:
    return sum(seen.path == path for seen in upstream.requests)


# ---- Looked up ------------------------------------------------------------------------------

# preset: (its path, the source's name in ANSWERS, the currency)
MAKERS = {
    "bigmodel": (LIMITS, "glm", ""),
    "zai": (LIMITS, "glm", ""),
    "kimi-coding": ("/coding/v1/usages", "kimi", ""),
    "moonshot": ("/v1/users/me/balance", "moonshot", "CNY"),
    "moonshot-ai": ("/v1/users/me/balance", "moonshot", "USD"),
    "deepseek": ("/user/balance", "deepseek", "CNY"),
    "stepfun": ("/v1/accounts", "stepfun", "CNY"),
    "stepfun-intl": ("/v1/accounts", "stepfun", "USD"),
    "siliconflow": ("/v1/user/info", "siliconflow", "CNY"),
    "siliconflow-intl": ("/v1/user/info", "siliconflow", "USD"),
    "openrouter": ("/api/v1/key", "openrouter", "USD"),
}


def test_every_preset_that_has_a_source_is_here() -> None:
    presets = {name for name, preset in relay_module.PRESETS.items() if preset.quotas}
    assert presets == {*MAKERS}


async def test_every_maker_is_asked_as_it_wants(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers: JSON = {}
    for name, (path, source, _) in MAKERS.items():
        (plan,) = relay_module.PRESETS[name].quotas
        endpoints = {plan: {"openai": f"{upstream.url}/{name}/v1"}}
        providers[name] = {"preset": name, "endpoints": endpoints, "api_key": f"{KEY}-{name}"}
        upstream.script(whole(ANSWERS[source][1], headers={"Vary": "x"}), path=path)
    upstream.script(whole(ANSWERS["deepseek"][1]).but(compress="gzip"), path="/user/balance")
    server = await relay({"providers": providers, "admin_key": ADMIN})
    report = await plans(http, server, ask=True)
    assert [each["error"] for each in credentials(report)] == [""] * len(MAKERS)
    for provider in report["providers"]:
        path, source, currency = MAKERS[provider["name"]]
        (plan,) = provider["plans"]
        (credential,) = plan["credentials"]
        expected = ANSWERS[source][2]
        assert credential["asks"] is True
        assert credential["balance"] == expected.balance
        assert credential["currency"] == currency
        names = [window["name"] for window in credential["windows"]]
        assert names == [window.name for window in expected.windows]
    sent = {seen.headers["authorization"]: seen for seen in upstream.requests}
    for name, (path, source, _) in MAKERS.items():
        bearer = "" if source == "glm" else "Bearer "
        seen = sent[f"{bearer}{KEY}-{name}"]
        assert (seen.method, seen.path, seen.query) == ("GET", path, "")


async def test_a_team_is_asked_for_its_own_account(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), path=LIMITS)
    headers = {"bigmodel-organization": "org-1", "bigmodel-project": "proj-1"}
    server = await relay(bigglm(upstream, headers=headers))
    report = await plans(http, server, ask=True)
    assert credentials(report)[0]["windows"][0]["used"] == 0.42
    (seen,) = upstream.requests
    assert seen.query == "type=2"
    assert (seen.headers["bigmodel-organization"], seen.headers["bigmodel-project"]) == (
        "org-1",
        "proj-1",
    )


async def test_nobody_is_asked_unless_told_to_and_never_twice_in_a_moment(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), path=LIMITS)
    server = await relay(bigglm(upstream))
    assert credentials(await plans(http, server))[0]["at"] is None
    await turn(http, server, "a")
    assert asked(upstream, LIMITS) == 0
    for _ in range(3):
        report = await plans(http, server, ask=True)
    assert asked(upstream, LIMITS) == 1
    first, second = credentials(report)
    assert first["windows"][0]["used"] == 0.42
    assert abs(first["at"] - time.time()) < 60
    assert (second["asks"], second["at"], second["windows"]) == (False, None, [])


async def test_who_may_ask(upstream: FakeUpstream, relay: Start, http: ClientSession) -> None:
    """Who may look; and no page of another site, which could ask again and again."""
    upstream.script(full(42), path=LIMITS)
    settings = bigglm(upstream)
    keyed, bare = await relay(settings), await relay(settings | {"admin_key": ""})

    async def status(server: RelayProcess, **headers: str) -> int:
        url = f"{server.url}/admin/plans"
        async with http.post(url, json={}, headers=headers) as response:
            return response.status

    assert await status(keyed) == 401
    assert await status(keyed, **KEYED) == 200
    assert await status(bare) == 200
    assert await status(bare, Origin="https://evil.example") == 403
    assert await status(bare, Host="evil.example") == 403


async def test_with_every_it_is_asked_regularly(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), full(43), path=LIMITS)
    server = await relay(bigglm(upstream, quota={"every": "1s"}))

    async def twice() -> bool:
        (window,) = credentials(await plans(http, server))[0]["windows"]
        return bool(window["used"] == 0.43)

    await upstream.arrived(2)
    await eventually(twice)


@pytest.mark.parametrize("asks", ["BigGLM", "bigglm", "other", None])
async def test_a_provider_may_have_capitals(
    asks: str | None, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), path=LIMITS)
    settings = bigglm(upstream, quota={"every": "1s"} if asks is None else {})
    settings["providers"] = {"BigGLM": settings["providers"]["bigglm"]}
    server = await relay(settings)
    if asks is None:
        await upstream.arrived(1)
    else:
        url = f"{server.url}/admin/plans"
        async with http.post(url, headers=KEYED, json={"provider": asks}) as response:
            assert response.status == 200

    async def known() -> bool:
        (provider,) = (await plans(http, server))["providers"]
        assert provider["name"] == "BigGLM"
        windows = provider["plans"][0]["credentials"][0]["windows"]
        return [each["used"] for each in windows] == ([] if asks == "other" else [0.42])

    await eventually(known)


FAULTS: dict[str, tuple[Answer, str]] = {
    "a wrong key": (
        whole({"code": 401, "msg": "token expired or incorrect", "success": False}),
        "token expired or incorrect",
    ),
    "an error": (whole({"error": {"message": "no such thing"}}, status=404), "no such thing"),
    "a page": (Answer(status=502, body=b"<html>Bad gateway</html>"), "HTTP 502"),
    "no JSON": (Answer(body=b"hello"), ""),
    "a list": (whole([1, 2]), ""),
    "no answer": (Answer(reset=True), ""),
    "endless": (Answer(body=[b"x" * 70000] * 40), "MB"),
    "the key itself": (whole({"error": {"message": f"bad key {KEY}"}}, status=401), "[secret]"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_look_up_that_fails_says_why_and_marks_nothing(
    name: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer, why = FAULTS[name]
    upstream.script(answer, path=LIMITS)
    server = await relay(bigglm(upstream, quota={"every": "1h"}))
    line = "a quota cannot be looked up"
    await server.until(lambda: line in server.stderr)
    report = await plans(http, server)
    first = credentials(report)[0]
    assert first["error"]
    assert why in first["error"]
    assert KEY not in server.stderr + json.dumps(report)
    assert (first["cooling"], first["next"], first["windows"]) == (None, True, [])
    assert (await turn(http, server, "a")).startswith("coding/")


async def test_a_look_up_goes_by_the_providers_proxy(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """To which the whole address is sent; the host itself does not exist."""
    upstream.script(full(42), path=LIMITS)
    endpoints = {"coding": "http://glm.invalid/api/coding/paas/v4"}
    extra = {"endpoints": endpoints, "billing_plans": ["coding"], "proxy": upstream.url}
    server = await relay(bigglm(upstream, **extra))
    (credential,) = credentials(await plans(http, server, ask=True))
    assert (credential["error"], credential["windows"][0]["used"]) == ("", 0.42)
    (seen,) = upstream.requests
    assert seen.headers["host"] == "glm.invalid"


async def test_a_credential_that_a_program_prints_is_used(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), path=LIMITS)
    printed = {"command": f"echo {KEY}-printed", "ttl": "5m"}
    server = await relay(bigglm(upstream, billing_plans=["coding"], api_key=printed))
    (credential,) = credentials(await plans(http, server, ask=True))
    assert credential["error"] == ""
    assert upstream.requests[0].headers["authorization"] == f"{KEY}-printed"


# ---- Read from answers ----------------------------------------------------------------------


async def test_the_headers_of_answers_are_read(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    resets = str(int(time.time() + 3600))
    headers = {
        "anthropic-ratelimit-unified-5h-utilization": "0.42",
        "anthropic-ratelimit-unified-5h-reset": resets,
    }
    codex = {
        "x-codex-primary-used-percent": "77",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-after-seconds": "60",
    }
    upstream.script(anthropic_whole("Hi.").but(headers=headers), path="/v1/messages")
    upstream.script(chat_whole("Hi.").but(headers=codex), path="/chat/completions")
    url = upstream.url
    settings: JSON = {
        "providers": {
            "claude": {"api_format": "anthropic", "endpoint": url, "api_key": "k-one-1234"},
            "codex": {"api_format": "openai", "endpoint": url, "api_key": "k-two-1234"},
        },
        "admin_key": ADMIN,
    }
    server = await relay(settings)
    await ask(http, server, "anthropic", model="claude/m")
    await ask(http, server, model="codex/m")
    claude, chatgpt = credentials(await plans(http, server))
    assert claude["windows"][0]["used"] == 0.42
    assert claude["windows"][0]["resets"] == int(resets)
    assert chatgpt["windows"][0]["used"] == 0.77
    async with http.get(f"{server.url}/metrics", headers=KEYED) as response:
        text = await response.text()
    name = claude["name"].rpartition("/")[2]
    labels = f'{{provider="claude",plan="regular",credential="{name}",window="5h"}}'
    assert f"relay_plan_used{labels} 0.42" in text
    assert f"relay_plan_reset_time_seconds{labels} {resets}.0" in text
    del settings["providers"]["claude"]
    server.write(settings)
    await server.hup()
    async with http.get(f"{server.url}/metrics", headers=KEYED) as response:
        text = await response.text()
    assert re.findall(r'^relay_plan_used{provider="(.*?)"', text, re.MULTILINE) == ["codex"]
    assert [each["name"] for each in credentials(await plans(http, server))] == [chatgpt["name"]]


async def test_what_relay_counted_in_a_window_is_beside_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), path=LIMITS)
    server = await relay(bigglm(upstream))
    for number in range(3):
        await turn(http, server, "a", number + 1)

    async def counted() -> bool:
        first, second = credentials(await plans(http, server, ask=True))
        expected = {"requests": 3, "tokens": 3 * 1102}
        rest = {"requests": 0, "tokens": 0}
        counts = (first["counted"], first["windows"][0]["counted"], second["counted"])
        return counts == (expected, expected, rest)

    await eventually(counted)


# ---- Left before it is used up --------------------------------------------------------------


async def test_what_is_known_outlives_a_reload_and_a_restart(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    upstream.script(full(50), path=LIMITS)
    settings = bigglm(upstream) | {"state": f"sqlite:{tmp_path / 'state.db'}"}
    server = await relay(settings)
    await plans(http, server, ask=True)
    await server.hup()
    assert credentials(await plans(http, server))[0]["windows"][0]["used"] == 0.5
    assert await server.stop() == 0
    again = await relay(settings)
    assert credentials(await plans(http, again))[0]["windows"][0]["used"] == 0.5
    assert asked(upstream, LIMITS) == 1


@pytest.mark.parametrize("keys", [[KEY], [KEY, "sk-secret-two"]], ids=["plan", "credential"])
async def test_a_running_conversation_stays_and_a_new_one_goes_on(
    keys: list[str], upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    def limits(seen: Any) -> Answer:
        return full(96 if seen.headers["authorization"] == KEY and low else 10)

    low = False
    upstream.script(limits, path=LIMITS)
    keyed = {"coding": keys, "regular": "sk-secret-pay"}
    server = await relay(bigglm(upstream, switch_at="95%", quota={"every": "1s"}, api_key=keyed))
    await upstream.arrived(len(keys))
    count, running, first = 0, "", ""
    while not running:  # a conversation that runs on the first key
        count += 1
        first = await turn(http, server, f"talk-{count}", count)
        if upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}":
            running = f"talk-{count}"
    low = True

    async def known() -> bool:
        return bool(credentials(await plans(http, server))[0]["low"])

    await eventually(known)
    report = await plans(http, server)
    nexts = [each["name"] for each in credentials(report) if each["next"]]
    assert credentials(report)[0]["low"] == "5h at 96%, switch_at 95%"
    assert credentials(report)[0]["name"] not in nexts
    for number in range(5):
        count += 1
        where = await turn(http, server, f"new-{number}", count)
        assert f"bigglm/{where}" in nexts
        line = await last_line(server, count)
        switched = [each for each in line["switched"] or () if "5h at 96%, switch_at 95%" in each]
        assert switched
        assert len(line["attempts"]) == 1
    count += 1
    assert await turn(http, server, running, count) == first
    assert (await last_line(server, count))["switched"] is None


async def test_what_is_nearly_used_up_still_serves_if_nothing_else_does(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(99), path=LIMITS)
    upstream.script(chat_error(429, "slow down"), path=REGULAR)
    server = await relay(bigglm(upstream, switch_at="95%"))
    await plans(http, server, ask=True)
    assert (await turn(http, server, "a")).startswith("coding/")
    explained = await run("route", "glm-4.6", "-c", str(server.file), cwd=server.file.parent)
    assert re.search(
        r"1\. bigglm/glm-4\.6 \(coding\)\n.*\n"
        r" +the last for new conversations: 5h at 99%, switch_at 95%\n *2\. ",
        explained.stdout,
    )
    assert [each["plan"] for each in (await last_line(server, 1))["attempts"]] == [
        "regular",
        "coding",
    ]


async def test_without_switch_at_a_full_plan_is_used_to_its_end(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(99.9), path=LIMITS)
    server = await relay(bigglm(upstream))
    await plans(http, server, ask=True)
    assert (await turn(http, server, "a")).startswith("coding/")


async def test_a_low_balance_sends_new_conversations_to_the_next_target(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    purse = {"currency": "CNY", "total_balance": "0.90"}
    upstream.script(whole({"balance_infos": [purse]}), path="/user/balance")
    deepseek = {
        "preset": "deepseek",
        "endpoint": {"openai": f"{upstream.url}/v1"},
        "api_key": KEY,
        "models": ["m"],
        "switch_below": 1.00,
    }
    other = {"api_format": "openai", "endpoint": f"{upstream.url}/other/v1", "api_key": KEY}
    rules = {"glm-4.6": ["deepseek/m", "other/m"]}
    providers = {"deepseek": deepseek, "other": other}
    server = await relay({"providers": providers, "routing_rules": rules, "admin_key": ADMIN})
    await turn(http, server, "a", 1)
    assert upstream.requests[-1].path == "/v1/chat/completions"
    await plans(http, server, ask=True)
    await turn(http, server, "b", 2)
    assert upstream.requests[-1].path == "/other/v1/chat/completions"
    line = await last_line(server, 2)
    assert "balance 0.90 CNY, switch_below 1.00" in line["switched"][0]
    await turn(http, server, "a", 3)
    assert upstream.requests[-1].path == "/v1/chat/completions"


# ---- The command ----------------------------------------------------------------------------


async def test_relay_plans_asks_by_the_running_relay(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), path=LIMITS)
    server = await relay(bigglm(upstream))
    ran = await run("plans", "-c", str(server.file), cwd=server.file.parent)
    assert ran.status == 0, ran.output
    assert "42%" in ran.stdout
    report = await plans(http, server)
    assert credentials(report)[0]["windows"][0]["used"] == 0.42
    ran = await run("plans", "--json", "-c", str(server.file), cwd=server.file.parent)
    assert json.loads(ran.stdout)["providers"][0]["name"] == "bigglm"
    assert asked(upstream, LIMITS) == 1


async def test_relay_plans_asks_by_itself_where_none_runs(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(42), full(43), path=LIMITS)
    server = await relay(bigglm(upstream))
    await turn(http, server, "a")
    await plans(http, server, ask=True)
    assert await server.stop() == 0
    ran = await run("plans", "--json", "-c", str(server.file), cwd=server.file.parent)
    assert ran.status == 0, ran.output
    first = credentials(json.loads(ran.stdout))[0]
    assert first["windows"][0]["used"] == 0.43
    assert first["counted"] == {"requests": 1, "tokens": 1102}  # from the state file


async def test_relay_plans_needs_no_state_and_no_running_relay(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.script(full(42), path=LIMITS)
    file = tmp_path / "config.yaml"
    file.write_text(text_of(bigglm(upstream, api_key=[KEY, "sk-secret-two"]), "127.0.0.1:9"))
    ran = await run("plans", cwd=tmp_path)
    assert ran.status == 0, ran.output
    assert ran.stdout.count("42%") == 2
    assert os.listdir(tmp_path) == ["config.yaml"]


async def test_readme_shows_what_the_command_prints(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """But for names made of secrets, times, and what was counted."""
    now = time.time()

    def window(unit: int, number: int, percent: float, wait: float) -> JSON:
        times = {"unit": unit, "number": number, "nextResetTime": int((now + wait) * 1000)}
        return GLM_HOURS | times | {"percentage": percent}

    windows = window(3, 5, 96, 3600), window(6, 1, 40, 4 * 86400)
    upstream.script(whole(glm(*windows)), path=LIMITS)
    week = {"limit": "100", "used": "100", "resetTime": now + 2 * 86400}
    upstream.script(whole({"usage": week, "limits": []}), path="/usages")
    purse = {"currency": "CNY", "total_balance": "110.00"}
    upstream.script(whole({"balance_infos": [purse]}), path="/user/balance")
    spent = "You've reached your usage limit for this billing cycle."
    error = chat_error(403, spent).but(headers={"retry-after": str(2 * 86400)})
    upstream.script(error, path="/kimi/v1/chat/completions")
    settings = bigglm(upstream, switch_at="95%")
    for name, preset, plan in (
        ("kimi", "kimi-coding", "coding"),
        ("deepseek", "deepseek", "regular"),
    ):
        endpoints = {plan: {"openai": f"{upstream.url}/{name}/v1"}}
        settings["providers"][name] = {"preset": preset, "endpoints": endpoints, "api_key": KEY}
    server = await relay(settings)
    await ask(http, server, model="kimi/kimi-for-coding")
    ran = await run("plans", "-c", str(server.file), cwd=server.file.parent)
    assert ran.status == 0, ran.output
    (block,) = re.findall(r"```text\n\$ relay plans\n(.*?)```", README.read_text(), re.S)
    assert anonymous(ran.stdout) == anonymous(block)


README = Path(__file__).parents[2] / "README.md"


def anonymous(text: str) -> list[list[str]]:
    """The words of each line; names, times and counts are only what they are."""
    text = re.sub(r"\b[0-9a-f]{8}\b", "NAME", text)
    text = re.sub(r"(\d{4}-\d\d-\d\d )?\b\d\d:\d\d\b", "TIME", text)
    return [re.sub(r"\d+ +\d+$", "COUNTS", line).split() for line in text.splitlines()]


async def test_the_alert_rules_of_the_readme_are_sound(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    (rules,) = re.findall(r"```yml\n(groups:\n.*?)```", README.read_text(), re.S)
    (tmp_path / "rules.yaml").write_text(rules)
    command = [tool("promtool"), "check", "rules", str(tmp_path / "rules.yaml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SOON)  # noqa: ASYNC221
    assert ran.returncode == 0, ran.stdout + ran.stderr
    known = {family.base for family in relay_module.Metrics().families()}
    assert set(re.findall(r"relay_\w+", rules)) <= known


# ---- Conditions -----------------------------------------------------------------------------


async def test_rules_go_by_what_is_spent_and_relay_route_says_so(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(full(91), path=LIMITS)
    settings = bigglm(upstream)
    other = {"api_format": "openai", "endpoint": f"{upstream.url}/other/v1", "api_key": KEY}
    settings["providers"]["other"] = other
    settings["keys"] = {
        "alice": {"key": f"{SECRET}-alice", "limits": {"tokens_per_day": 100_000}},
        "bob": {"key": f"{SECRET}-bob"},
    }
    settings["routing_rules"] = {
        "glm-4.6": [{"when": {"plan_over": "90%"}, "to": "other/full"}],
        "by-budget": [{"when": {"budget_over": "3%"}, "to": "other/spent"}, {"to": "other/fresh"}],
    }
    server = await relay(settings)
    alice = {"x-api-key": f"{SECRET}-alice"}

    async def model(name: str) -> str:
        reply = await ask(http, server, model=name, headers=alice)
        assert reply.status == 200, reply.body
        return str(upstream.requests[-1].json["model"])

    async def route(name: str) -> str:
        options = ("--key", "alice", "-c", str(server.file))
        return (await run("route", name, *options, cwd=server.file.parent)).stdout

    assert await model("glm-4.6") == "glm-4.6"
    assert "plan_over: 90%; its plan: not known" in await route("glm-4.6")
    assert (await plans(http, server, ask=True))["budgets"] == {"alice": 0.01102}
    assert await model("glm-4.6") == "full"
    assert "not rule by-budget, entry 1: budget_over: 3%; its budget: 2%" in await route(
        "by-budget"
    )
    assert await model("by-budget") == "fresh"
    assert await model("by-budget") == "spent"
    assert "glm-4.6: rule glm-4.6" in await route("glm-4.6")
    upstream.script(full(50), path=LIMITS)
    await server.stop()
    said = await route("by-budget")
    assert "not rule by-budget, entry 1: budget_over: 3%; its budget: not known" in said


# ---- Money ----------------------------------------------------------------------------------


async def test_relay_usage_says_what_a_plans_tokens_would_have_cost(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    price = {"glm-4.6": {"input": 1000, "output": 2000, "cache_read": 100}}
    server = await relay(bigglm(upstream, prices=price))
    await turn(http, server, "a", 1)
    await turn(http, server, "b", 2)
    assert await server.stop() == 0
    ran = await run("usage", "--json", "-c", str(server.file), cwd=server.file.parent)
    report = json.loads(ran.stdout)
    (line,) = report["plans"]
    # twice 21 tokens read anew, 1,024 from the cache, 57 written
    worth = 2 * (21 * 1000 + 1024 * 100 + 57 * 2000) / 1e6
    assert line["worth"] == pytest.approx(worth)
    assert (line["plan"], line["requests"]) == ("bigglm/coding", 2)
    assert (line["tokens_in"], line["tokens_out"], line["cache_read"]) == (2090, 114, 2048)
    assert [day["cost"] for day in report["days"]] == [0.0]
    assert sum(day["requests"] for day in report["days"]) == 2
    ran = await run("usage", "-c", str(server.file), cwd=server.file.parent)
    table = ran.stdout.partition("plans:\n")[2].splitlines()
    assert table[0].split()[-1] == "worth"
    assert table[1].split()[1:3] == ["bigglm/coding", "2"]
    assert table[1].split()[-1] == f"{worth:.4f}"


async def test_a_plan_whose_prices_are_not_known_has_no_worth(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(bigglm(upstream))
    await turn(http, server, "a", 1)
    assert await server.stop() == 0
    ran = await run("usage", "--json", "-c", str(server.file), cwd=server.file.parent)
    assert [line["worth"] for line in json.loads(ran.stdout)["plans"]] == [None]
    ran = await run("usage", "-c", str(server.file), cwd=server.file.parent)
    assert ran.stdout.partition("plans:\n")[2].splitlines()[1].split()[-1] == "-"
