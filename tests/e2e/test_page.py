"""The page in a real Chromium: what it shows after real traffic, and what it changes."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from aiohttp import ClientSession
from browser import Page, browser
from fake_upstream import FakeUpstream, chat_error, chat_stream, chat_whole
from relay_process import SECRET, RelayProcess, Start
from talk import ask, noon

ADMIN = f"{SECRET}-admin"
ALICE = {"x-api-key": f"{SECRET}-alice"}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
ROOMS = ("overview", "requests", "providers", "models", "keys", "usage", "configuration")
# As a person writes it: comments, flow and block style, a name that YAML takes for a boolean.
CONFIG = """\
# our relay
timezone: {zone}
admin_key: {admin}

keys:
  alice:      # the one at the desk
    key: {secret}-alice
    limits: {{rpm: 60, cost_per_day: 5}}
providers:
  first: {{api_format: openai, endpoint: {url}/a/v1, api_key: {secret}-1, models: [m, n]}}
  second:
    api_format: openai
    endpoint: {url}/b/v1
    api_key: {secret}-2   # paid by the team
    models: {{m: m, big: upstream-big}}
    prices: {{"*": {{input: 1, output: 4}}}}
  off: {{api_format: demo, active: false}}
routing_rules:
  m: [first/m, second/m]   # the cheap one first
"""


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path / "chromium") as opened:
        await opened.size(1280, 900)
        yield opened


@pytest.fixture
async def server(upstream: FakeUpstream, relay: Start) -> RelayProcess:
    text = CONFIG.format(zone=noon(), admin=ADMIN, secret=SECRET, url=upstream.url)
    return await relay(text)


async def log_in(page: Page, server: RelayProcess, room: str = "overview") -> None:
    await page.open(f"{server.url}/#/{room}")
    await page.fill("#key", ADMIN)
    await page.click("#enter")
    await page.until("!document.getElementById('nav').hidden && !!document.querySelector('h1')")


async def go(page: Page, room: str) -> None:
    await page.run(f"location.hash = '#/{room}'")
    await page.until(f"room === {room.split('/')[0]!r} && !!document.querySelector('h1')")


async def press(page: Page, label: str, within: str = "body") -> None:
    """Click the button or link of a name, once it is there and can be clicked."""
    found = f"[...document.querySelectorAll('{within} button, {within} a')].findLast((each) =>"
    found += f" each.innerText.trim() === {label!r} && !each.disabled && each.checkVisibility())"
    await page.until(f"!!{found}")
    await page.run(f"{found}.click()")


async def save(page: Page) -> str:
    """Confirm the changes that a dialog shows; the diff."""
    await page.until("document.getElementById('dialog').open")
    shown = str(await page.run("document.querySelector('#dialog .diff').innerText"))
    await page.run("document.getElementById('notice').replaceChildren()")
    await press(page, "Save", "#dialog")
    await page.until("document.getElementById('notice').innerText.includes('Saved')")
    return shown


async def sees(page: Page, text: str, within: str = "main") -> None:
    await page.until(f"document.querySelector('{within}')?.innerText.includes({text!r})")


async def failed_and_answered(
    server: RelayProcess, upstream: FakeUpstream, http: ClientSession, error: str = "out of order"
) -> None:
    """A request that the second provider answers, because the first fails."""
    upstream.script(chat_error(503, error), path="/a/v1/chat/completions")
    upstream.script(chat_whole(text="here", usage=USAGE), path="/b/v1/chat/completions")
    agent = {"User-Agent": "claude-cli/2.1 (external)"}
    reply = await ask(http, server, headers=ALICE | agent)
    assert reply.headers["x-relay-provider"] == "second"


async def test_the_overview_says_what_happened_and_what_to_do(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    await failed_and_answered(server, upstream, http)
    await log_in(page, server)
    await sees(page, "first m: overloaded, until")
    await sees(page, "out of order")
    await sees(page, "relay tries again by itself.")
    await sees(page, "Budgets in money do not see first")
    tiles = "document.querySelector('.tiles').innerText"
    await page.until(f"/Requests today\\s+1\\s/.test({tiles})")
    shown = await page.run(tiles)
    assert re.search(r"Tokens in today\s+1000\s+yesterday by now 0", shown)
    assert re.search(r"Failed in 24 hours\s+0.0 %\s+0 of 1", shown)
    assert re.search(r"First event\s+\d+ ms\s+95 % within", shown)
    # every hour of the day is on the axis; one has a bar
    assert await page.run("document.querySelectorAll('.chart rect').length") >= 2
    before = await page.run("document.querySelectorAll('main button').length")
    await ask(http, server, headers=ALICE)
    await page.until(f"/Requests today\\s+2\\s/.test({tiles})")  # without a click
    assert await page.run("document.querySelectorAll('main button').length") == before

    # nothing secret, nothing from elsewhere, no complaint
    assert SECRET not in await page.run("document.documentElement.outerHTML")
    asked = {each.split("/", 3)[2] for each in page.asked if each.startswith("http")}
    assert asked == {server.url.partition("//")[2]}
    assert page.errors == []


async def test_a_plan_has_a_card_with_its_windows(page: Page, server: RelayProcess) -> None:
    await log_in(page, server)
    now = int(datetime.now().timestamp())
    window = {"name": "5h", "used": 0.96, "resets": now + 7200, "forecast": now + 600}
    known = {"asks": True, "balance": 12.5, "currency": "CNY", "forecast": None, "at": now}
    key = {"name": "glm/coding/1", "windows": [window], "error": "busy", **known}
    key["low"] = "5h at 96%, switch_at 95%"
    plan = {"name": "coding", "credentials": [key]}
    other = {"name": "second", "plans": [{"name": "two", "credentials": [key, {**key, "low": ""}]}]}
    plans = {"now": now, "providers": [{"name": "glm", "plans": [plan]}, other]}
    answered = f"path === 'plans' && !body ? {json.dumps(plans)} : asked(path, body)"
    await page.run(f"asked = ask; ask = async (path, body) => {answered}; renew()")
    card = "document.querySelector('.cards .card')"
    await page.until(f"!!{card}?.querySelector('.track i.bad')")
    shown = await page.run(f"{card}.innerText")
    low = "New conversations go elsewhere: 5h at 96%, switch_at 95%"
    failed = "The last look-up failed: busy"
    for expected in ("glm · coding\n", "5h: 96.0 %", "resets in 2 h", "12.5 CNY", low, failed):
        assert expected in shown
    assert "used up at" in shown
    # at its provider's page, too; keys of one plan are told apart
    await go(page, "providers/second")
    await sees(page, "second · two · 1")
    assert "glm" not in await page.run("document.querySelector('main').innerText")
    links = "[...document.querySelectorAll('.chip')].map((each) => each.innerText)"
    assert await page.run(links) == ["m", "big"]
    await go(page, "overview")
    await page.run("ask = asked")
    await press(page, "Look up now")  # asks relay, which knows of no such plan
    await page.until("!document.querySelector('.cards')?.innerText.includes('glm')")


async def test_requests_are_shown_live_and_one_in_full(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    await failed_and_answered(server, upstream, http)
    await log_in(page, server, "requests")
    await sees(page, "second/m")
    rows = "document.querySelectorAll('.rows + .rows a').length"
    gate = asyncio.Event()
    upstream.script(chat_stream(text=["a", "b"]).but(hold={3: gate}), path="/b/v1/chat/completions")
    running = asyncio.create_task(ask(http, server, headers=ALICE, stream=True))
    await sees(page, "Running", ".rows + .rows")
    gate.set()
    await running
    await page.until(
        f"{rows} === 2 && !document.querySelector('.rows + .rows').innerText.includes('Run')"
    )
    await ask(http, server, headers=ALICE, model="nope")
    await sees(page, "BR 404", ".rows + .rows")
    # filters act on what is there
    await page.fill("select[name=code]", "BR")
    await page.until(f"{rows} === 1")
    await page.fill("select[name=code]", "bad")
    await page.until(f"{rows} === 1")
    await page.fill("select[name=code]", "")
    await page.fill("input[name=text]", "claude-cli")
    await page.until(f"{rows} === 1")
    assert await page.run("document.querySelector('.rows + .rows a').innerText") != ""
    # one in full: at an address of its own
    await page.run("document.querySelector('.rows + .rows a').click()")
    await page.until(
        "location.hash.length > 20 && document.querySelectorAll('.track').length === 2"
    )
    detail = str(await page.run("document.querySelector('.split > :last-child').innerText"))
    for expected in (
        *("OK 200: answered to the end", "rule m", "overloaded 503", "ok 200", "first/m (regular"),
        *("second/m", "claude-cli", "alice", "1000", "0.0018", "/v1/chat/completions"),
    ):
        assert expected in detail
    at = datetime.fromisoformat(server.log()[-3]["time"])
    ended = server.lines()[0].id
    assert ended in detail
    assert at.astimezone(ZoneInfo(noon())).strftime("%H:") in detail  # the log's clock
    begin = "[...document.querySelectorAll('.track i')].map((e) => parseFloat(e.style.marginLeft))"
    first, second = await page.run(begin)
    assert first < second
    link = await page.run("location.href")
    await page.until(
        f"ask('usage').then((all) => all.recent.some((each) => each.id === '{ended}'))"
    )
    await page.open("about:blank")
    await page.open(link)
    await sees(page, "OK 200: answered to the end")
    await sees(page, "overloaded 503")  # of which the store has nothing


async def test_a_silent_attempt_is_given_up(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    never = asyncio.Event()
    upstream.script(chat_stream().but(delay=60), path="/a/v1/chat/completions")
    upstream.script(chat_stream(text="from b"), path="/b/v1/chat/completions")
    asking = asyncio.create_task(ask(http, server, headers=ALICE, stream=True))
    await log_in(page, server, "requests")
    await sees(page, "first/m", ".rows + .rows")
    await page.run("document.querySelector('.rows + .rows a').click()")
    await press(page, "Give up this attempt")
    assert (await asking).said.text == "from b"
    never.set()


async def test_a_provider_is_added_tested_pulled_and_removed_by_the_page_alone(
    page: Page, server: RelayProcess, upstream: FakeUpstream
) -> None:
    before = server.file.read_text()
    await log_in(page, server, "providers/+")
    own = "document.querySelector('.form select')"
    await page.until(f"!!{own}?.options.length")
    assert await page.run(f"[...{own}.options].some((each) => each.value === 'deepseek')")
    await page.run(f"{own}.value = ''; {own}.dispatchEvent(new Event('change'))")
    formats = "[...document.querySelectorAll('.form select')[2].options].map((each) => each.value)"
    assert await page.run(formats) == ["openai", "anthropic", "gemini", "responses"]
    assert await page.run("document.querySelectorAll('.form select')[2].value") == "openai"
    await page.fill("input[name=name]", "third")
    await page.fill("input[name=endpoint]", f"{upstream.url}/c/v1")
    await page.fill("input[name=secret]", f"{SECRET}-$3")
    await page.fill("input[name=prefix]", "c")
    await press(page, "Show what changes")
    shown = await save(page)
    assert SECRET not in shown  # never shown again, not even now
    assert "+    api_key: '[secret]'" in shown or "+    api_key: [secret]" in shown
    added = f"""\
  third:
    api_format: openai
    endpoint: {upstream.url}/c/v1
    api_key: {SECRET}-$$3
    prefix: c
"""
    place = before.index("routing_rules:")
    with_third = before[:place] + added + before[place:]
    assert server.file.read_text() == with_third

    await page.until("location.hash === '#/providers/third'")
    await press(page, "Pull models")
    await sees(page, "1 served, 0 listed")
    await page.run("document.querySelector('.ticks input').click()")
    await press(page, "Show what changes")
    await save(page)
    listed = "    models:\n      - upstream-model\n"
    assert yaml.safe_load(server.file.read_text())["providers"]["third"]["models"] == [
        "upstream-model"
    ], listed
    await press(page, "Test")
    await sees(page, "Whole answer")
    table = "document.querySelector('.list').innerText"
    assert re.search(r"openai\s+upstream-model\s+1 \d+ms\s+\d+ms\s+\d+ms", await page.run(table))
    assert upstream.requests[-1].headers["Authorization"] == f"Bearer {SECRET}-$3"

    await page.fill("input[name=priority]", "3")
    await press(page, "Change")
    await save(page)
    await press(page, "Disable in the file")
    await save(page)
    third = yaml.safe_load(server.file.read_text())["providers"]["third"]
    assert (third["priority"], third["active"]) == (3, False)
    await sees(page, "off in the file")
    await press(page, "Enable in the file")
    await save(page)
    await press(page, "Remove")
    await save(page)
    assert server.file.read_text() == before
    assert SECRET not in await page.run("document.documentElement.outerHTML")
    assert page.errors == []


async def test_a_provider_is_left_out_used_again_and_its_marks_cleared(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    await failed_and_answered(server, upstream, http)
    await log_in(page, server, "providers")
    await sees(page, "off in the file")  # `off`, which is no boolean
    assert "False" not in await page.run("document.querySelector('main').innerText")
    await go(page, "providers/first")
    await sees(page, "out of order")
    await press(page, "Clear")
    await page.until("!document.querySelector('main').innerText.includes('out of order')")
    await press(page, "Disable until reload")
    await sees(page, "off until the next reload")
    reply = await ask(http, server, headers=ALICE)
    assert (reply.headers["x-relay-provider"], reply.headers["x-relay-attempts"]) == ("second", "1")
    await press(page, "Use again")
    await sees(page, "Well")


async def test_the_targets_of_a_rule_are_put_in_another_order(
    page: Page, server: RelayProcess, http: ClientSession
) -> None:
    before = server.file.read_text()
    await log_in(page, server, "models")
    await sees(page, "upstream-big")
    await go(page, "models/m")
    await sees(page, "rule m")
    await page.click("button[aria-label='move second/m up']")
    await press(page, "Show what changes")
    shown = await save(page)
    assert "-  m: [first/m, second/m]   # the cheap one first" in shown
    after = server.file.read_text()
    assert after == before.replace("[first/m, second/m]", "[second/m, first/m]")
    assert (await ask(http, server, headers=ALICE)).headers["x-relay-provider"] == "second"
    # a name without a rule gets one
    await go(page, "models/big")
    await page.fill("input[name=target]", "first/n")
    await press(page, "Add")
    await press(page, "Show what changes")
    await save(page)
    rules = yaml.safe_load(server.file.read_text())["routing_rules"]
    assert rules["big"] == ["second/upstream-big", "first/n"]
    await go(page, "models")
    await page.fill("input[name=text]", "nope")  # a name that nobody listed
    await press(page, "nope")
    await sees(page, "Nowhere")


async def test_a_chat_goes_through_relay_as_a_key(
    page: Page, server: RelayProcess, upstream: FakeUpstream
) -> None:
    call = ("c1", "get_weather", '{"city": "Rome"}')
    text = ["It is <b>", "sunny</b>."]
    upstream.script(
        chat_stream(text=text, reasoning="Hm.", calls=[call], usage=USAGE),
        path="/a/v1/chat/completions",
    )
    await log_in(page, server, "models/m")
    await page.until("document.querySelector('#as')?.value === 'alice'")
    await page.fill("#message", "What's the <i>weather</i>?")
    await press(page, "As code")
    code = await page.run("[...document.querySelectorAll('pre')].map((e) => e.innerText)")
    assert "What'\\''s the" in code[-2]
    compile(code[-1], "snippet", "exec")
    await press(page, "Send")
    await sees(page, "It is <b>sunny</b>.")
    await sees(page, '{"city"')
    await sees(page, "x-relay-provider")
    assert "Hm." in await page.run("document.querySelector('main details').textContent")
    await page.until("/Tokens in\\s+1000/.test(document.querySelector('main').innerText)")
    await press(page, "As code")  # what was asked: an answer at the end would be refused by some
    code = await page.run("[...document.querySelectorAll('pre')].map((e) => e.innerText)")
    assert "weather" in code[-2]
    assert "assistant" not in code[-2]
    line = await server.logged()
    assert (line.key, line.model, line.code) == ("alice", "m", "OK")
    assert upstream.requests[-1].json["messages"][0]["content"] == "What's the <i>weather</i>?"
    names = {name.lower() for name in upstream.requests[-1].headers}
    assert names.isdisjoint({"cookie", "x-relay-page", "origin", "referer"})


async def test_a_record_is_shown_printed_and_sent_again(
    page: Page, relay: Start, upstream: FakeUpstream, http: ClientSession, tmp_path: Path
) -> None:
    text = CONFIG.format(zone=noon(), admin=ADMIN, secret=SECRET, url=upstream.url)
    server = await relay(text + f"record: {{directory: {tmp_path / 'ring'}, keep: 10MB}}\n")
    upstream.script(chat_whole(text="first answer"), path="/a/v1/chat/completions")
    await ask(http, server, headers=ALICE)
    async with asyncio.timeout(20):
        while not list(tmp_path.glob("ring/*.jsonl")):  # noqa: ASYNC110, ASYNC240  # a thread does
            await asyncio.sleep(0.05)
    await log_in(page, server, f"requests/{(await server.logged()).id}")
    await press(page, "Show it")
    await sees(page, "POST /v1/chat/completions")
    legs = "[...document.querySelectorAll('.split details')].map((each) => each.textContent)"
    shown = "\n".join(await page.run(legs))
    assert "first answer" in shown
    assert f"POST {upstream.url}/a/v1/chat/completions" in shown
    await press(page, "As curl")
    await sees(page, "curl", ".split .code pre")
    command = str(await page.run("document.querySelector('.split .code pre').innerText"))
    assert "Hi." in command
    assert "/v1/chat/completions" in command
    assert "${RELAY_KEY}" in command
    upstream.script(chat_whole(text="second answer"), path="/a/v1/chat/completions")
    before = len(upstream.requests)
    await press(page, "Send it again")
    await sees(page, "second answer", ".split .code pre")
    assert len(upstream.requests) == before + 1
    assert upstream.requests[-1].json == upstream.requests[-2].json
    assert SECRET not in await page.run("document.documentElement.outerHTML")
    assert page.errors == []


async def test_a_chat_is_stopped_and_goes_on(
    page: Page, server: RelayProcess, upstream: FakeUpstream
) -> None:
    gate = asyncio.Event()
    path = "/a/v1/chat/completions"
    upstream.script(chat_stream(text=["half ", "an answer"]).but(hold={2: gate}), path=path)
    await log_in(page, server, "models/m")
    await page.until("document.querySelector('#as')?.value === 'alice'")
    await page.fill("#message", "one")
    await press(page, "Send")
    await sees(page, "half", ".say + .say, .say ~ .say")
    await press(page, "Stop")
    line = await server.logged()
    assert (line.code, line.model) == ("CD", "m")
    gate.set()
    upstream.script(chat_stream(text="whole", usage=USAGE), path=path)
    await page.fill("#message", "two")
    await press(page, "Send")
    await sees(page, "whole")
    assert "an answer" not in await page.run("document.querySelector('main').innerText")
    assert await page.run("document.getElementById('notice').innerText") == ""
    assert page.errors == []


async def test_a_key_is_created_limited_and_removed(
    page: Page, server: RelayProcess, http: ClientSession
) -> None:
    before = server.file.read_text()
    await log_in(page, server, "keys/+")
    await page.fill("input[name=name]", "bob")
    assert "After this" not in await page.run("document.querySelector('main').innerText")
    await page.fill("input[name=models]", "m, big*")
    await page.fill("input[name=rpm]", "2")
    await press(page, "Show what changes")
    shown = await save(page)
    assert re.search(r"\+    key: sha256:[0-9a-f]{64}\n", shown)
    await page.until("document.getElementById('dialog').innerText.includes('rk-')")
    dialog = "document.getElementById('dialog').textContent"
    await page.until(f"{dialog}.includes('ANTHROPIC_AUTH_TOKEN=rk-')")
    secret = re.search(r"rk-[\w-]{43}", await page.run(dialog))
    assert secret
    assert secret[0] not in server.file.read_text()
    for block in ("Codex", "Gemini CLI", "Qwen Code", "opencode", "OpenAI SDK", server.url):
        assert block in await page.run(dialog)
    await press(page, "Close", "#dialog")
    bob = {"x-api-key": secret[0]}
    assert (await ask(http, server, headers=bob)).status == 200
    await go(page, "keys")
    await sees(page, "requests a minute: 1 / 2")
    assert secret[0] not in await page.run("document.documentElement.outerHTML")
    await go(page, "keys/bob")
    await page.until("document.querySelector('input[name=rpm]')?.value === '2'")
    await page.fill("input[name=rpm]", "")
    await page.fill("input[name=expires]", "2020-01-01")
    await press(page, "Show what changes")
    await save(page)
    entry = yaml.safe_load(server.file.read_text())["keys"]["bob"]
    assert entry.keys() == {"key", "models", "expires"}
    assert (await ask(http, server, headers=bob)).status == 401
    await go(page, "keys")
    await sees(page, "Expired")
    await go(page, "keys/bob")
    await press(page, "Remove")
    await save(page)
    assert server.file.read_text() == before


async def test_the_first_key_is_not_made_without_a_warning(page: Page, relay: Start) -> None:
    server = await relay({"admin_key": ADMIN, "providers": {"demo": {"api_format": "demo"}}})
    await log_in(page, server, "keys/+")
    await sees(page, "After this, every program needs a key.")


async def test_usage_has_a_full_axis_a_table_and_csv(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession, tmp_path: Path
) -> None:
    await failed_and_answered(server, upstream, http)
    await page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    await log_in(page, server, "usage")
    await sees(page, "second")
    axis = "document.querySelectorAll('.chart text').length"
    for step, least in (("hours", 6), ("days", 6), ("months", 6)):
        await page.run(
            f"(() => {{ const node = document.querySelectorAll('main select')[2];"
            f"node.value = {step!r}; node.dispatchEvent(new Event('change')) }})()"
        )
        await page.until(f"{axis} > {least} && document.querySelectorAll('.chart rect').length")
        bar = "document.querySelector('.chart rect').getBBox()"
        left, width = await page.run(f"(({{ x, width }}) => [x, width])({bar})")
        wide = await page.run("document.querySelector('.chart').viewBox.baseVal.width")
        assert left + width > wide - 3  # at the end of an axis whose beginning is empty
        assert width < wide / 11
    row = str(await page.run("document.querySelector('.list tbody').innerText"))
    assert row.split() == ["second", "1", "0", "1000", "0", "200", "0.0018"]
    await press(page, "CSV")
    file = tmp_path / "relay-months.csv"
    async with asyncio.timeout(20):
        while not file.exists():  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(0.05)
    head, line = file.read_text().splitlines()
    assert head.startswith("start,key,provider,model,requests,errors,tokens_in")
    assert line.split(",")[1:8] == ['"alice"', '"second"', '"m"', "1", "0", "1000", "0"]


async def test_the_file_is_edited_and_two_admins_do_not_overwrite_each_other(
    page: Page, server: RelayProcess, http: ClientSession
) -> None:
    before = server.file.read_text()
    await log_in(page, server, "configuration")
    await page.until("document.getElementById('file')?.value.includes('our relay')")
    count = "document.querySelector('.editor pre').innerText.trim().split('\\n').length"
    assert await page.run(count) == len(before.split("\n"))
    await page.fill("#file", before + "listn: 1\n")
    line = len(before.splitlines()) + 1
    await sees(page, f":{line}:1: listn: unknown key")
    note = "document.querySelector('.editor p')"
    assert (
        await page.run(f"{note}.innerText") == f"{line}: listn: unknown key; did you mean 'listen'?"
    )
    height = await page.run("document.querySelector('.editor pre').getBoundingClientRect().top")
    top = await page.run(f"{note}.getBoundingClientRect().top")
    assert abs(top - height - 8 - 20 * (line - 1)) < 3
    await page.fill("#file", before + "default: second/other\n")
    await sees(page, "No mistakes.")
    await press(page, "Show what changes")
    shown = await save(page)
    assert shown.splitlines()[-1] == "+default: second/other" or "+default: second/other" in shown
    await sees(page, "configuration 2", "footer")
    assert server.file.read_text() == before + "default: second/other\n"

    # somebody else was there meanwhile
    await page.fill("#file", before + "default: first/mine\n")
    server.file.write_text(before + "default: first/theirs\n")
    await press(page, "Show what changes")
    await sees(page, "somebody else", "#notice")
    assert server.file.read_text() == before + "default: first/theirs\n"
    await go(page, "providers/second")
    await page.until("state.tree.default === 'first/theirs'")  # the file as it is now
    await press(page, "Disable in the file")
    await page.until("document.getElementById('dialog').open")
    server.file.write_text(before + "default: first/again\n")
    await page.run("document.getElementById('notice').replaceChildren()")
    await press(page, "Save", "#dialog")
    await sees(page, "somebody else", "#notice")
    assert server.file.read_text() == before + "default: first/again\n"
    await press(page, "Log out", "footer")
    await page.until("document.getElementById('login')?.open")
    assert [error for error in page.errors if not re.search("status of (409|401)", error)] == []


async def test_without_the_store_of_usage_all_else_is_shown(
    page: Page, relay: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    store = tmp_path / "usage.db"
    first = {"api_format": "openai", "endpoint": upstream.url, "models": ["m"]}
    config = {"admin_key": ADMIN, "providers": {"first": first}, "state": f"sqlite:{store}"}
    server = await relay(config)
    for file in tmp_path.glob("usage.db*"):  # noqa: ASYNC240  # of the test's own folder
        file.write_bytes(b"this is no database any more" * 100)
    await log_in(page, server)
    await sees(page, "What needs attention")
    await go(page, "providers")
    await sees(page, "first")


async def test_a_wrong_key_is_refused(page: Page, server: RelayProcess) -> None:
    await page.open(server.url)
    await page.fill("#key", "wrong")
    await page.click("#enter")
    await page.until("document.getElementById('refused').innerText.includes('admin_key')")
    assert await page.run("document.getElementById('nav').hidden")


async def test_without_an_admin_key_a_sentence_says_how_to_get_one(
    page: Page, relay: Start, upstream: FakeUpstream
) -> None:
    first = {"api_format": "openai", "endpoint": upstream.url, "models": ["m"]}
    server = await relay({"providers": {"first": first}})
    for room in (*ROOMS, "providers/first", "models/m", "providers/+", "keys/+"):
        await page.open(f"{server.url}/#/{room}")
        await page.until("!!document.querySelector('h1')")
        await sees(page, "To change anything, give the file an admin_key: SECRET.")
        buttons = await page.run(
            "[...document.querySelectorAll('button')].filter((each) => each.checkVisibility())"
            ".map((each) => each.innerText)"
        )
        assert set(buttons) <= {"CSV", "Copy", "Look up now"}, room
    assert page.errors == []


async def test_script_in_any_name_or_error_does_nothing(
    page: Page, relay: Start, upstream: FakeUpstream, http: ClientSession
) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    entry = {"api_format": "openai", "api_key": f"{SECRET}-1", "models": [evil, "m"]}
    config = {
        "admin_key": ADMIN,
        "keys": {evil: {"key": f"{SECRET}-alice", "limits": {"rpm": 9}}},
        "providers": {"p": entry | {"endpoint": f"{upstream.url}/a/v1", "prefix": evil}},
        "routing_rules": {evil: [f"p/{evil}"]},
    }
    server = await relay(config)
    upstream.script(chat_error(503, evil))
    for model in (evil, "m", f"other {evil}"):
        await ask(http, server, headers=ALICE | {"User-Agent": evil}, model=model)
    await log_in(page, server)
    await page.run("window.alert = () => { window.hacked = true }")
    quoted = re.sub(r"[^\w]", lambda m: f"%{ord(m[0]):02X}", evil)
    id = server.lines()[0].id
    for room in (*ROOMS, "providers/p", f"models/{quoted}", f"keys/{quoted}", f"requests/{id}"):
        await go(page, room)
        await page.until("document.querySelector('main').innerText.length > 20")
        await asyncio.sleep(0.3)
        assert await page.run("document.querySelectorAll('img, main script').length") == 0
    await go(page, "requests")
    await sees(page, evil[:20])
    assert not await page.run("window.hacked")
    assert page.errors == []


@pytest.mark.parametrize(("language", "scheme"), [("en-US", "light"), ("zh-CN", "dark")])
async def test_every_room_fits_a_phone_and_is_accessible(
    language: str,
    scheme: str,
    page: Page,
    server: RelayProcess,
    upstream: FakeUpstream,
    http: ClientSession,
) -> None:
    await failed_and_answered(server, upstream, http)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    await page.send("Emulation.setEmulatedMedia", features=[feature])
    await page.send("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
    axe = axe_source()
    await log_in(page, server)
    request = server.lines()[0].id
    for room in (*ROOMS, "providers/first", "providers/+", "models/m", "keys/alice", "keys/+"):
        for width in (1280, 390):
            await page.size(width, 800)
            await go(page, room)
            await page.until("document.querySelector('main').innerText.length > 20")
            await asyncio.sleep(0.3)
            assert await page.run("document.documentElement.scrollWidth <= innerWidth"), room
            await check_access(page, axe, f"{room} {width}")
    await go(page, f"requests/{request}")
    await check_access(page, axe, "a request")
    await go(page, "requests")
    lines = "document.querySelector('.rows + .rows a').getBoundingClientRect().height"
    assert 40 < await page.run(lines) < 64  # two lines
    title = await page.run("document.title")
    assert title == ("Requests - relay" if language == "en-US" else "请求 - relay")
    ink, ground = await page.run(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    lightness = [sum(map(int, each[4:-1].split(","))) for each in (ink, ground)]
    assert (lightness[0] < lightness[1]) == (scheme == "light")
    assert page.errors == []


def axe_source() -> str:
    """axe-core, as .ci/clients installs it; "" where it is not."""
    folder = os.environ.get("RELAY_TEST_SDKS")
    file = Path(folder or "/nowhere") / "node_modules/axe-core/axe.min.js"
    if not file.exists():
        assert not os.environ.get("CI"), "axe-core is missing; .ci/clients installs it"
        return ""
    return file.read_text()


async def check_access(page: Page, axe: str, where: str) -> None:
    """No serious violation of WCAG 2.2 AA."""
    if not axe:
        return
    await page.run(f"void (window.axe ?? (() => {{ {axe} }})())")
    only = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}
    found = await page.run(f"axe.run(document, {json.dumps(only)}).then((r) => r.violations)")
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == [], where


async def test_it_is_used_by_the_keyboard(page: Page, server: RelayProcess) -> None:
    await log_in(page, server)

    async def key(name: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            await page.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                windowsVirtualKeyCode=code,
                text="\r" if name == "Enter" and kind == "keyDown" else "",
            )

    await page.run("document.activeElement.blur()")
    await page.run("document.getElementById('skip').focus()")
    await key("Tab", 9)
    await key("Tab", 9)
    assert await page.run("document.activeElement.innerText") == "Requests"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert await page.run(outline) == "solid"
    await key("Enter", 13)
    await page.until("room === 'requests' && document.activeElement.id === 'view'")


async def test_it_stays_smooth_under_many_requests(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="here", usage=USAGE))
    await log_in(page, server, "requests")
    await page.run(
        "window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach((each) =>"
        " { longest = Math.max(longest, each.duration) })).observe({ entryTypes: ['longtask'] })"
    )
    for _ in range(50):  # 500 a minute are 50 in 6 seconds
        await ask(http, server, headers=ALICE | {"x-api-key": f"{SECRET}-alice"})
    await page.until("document.querySelectorAll('.rows + .rows a').length >= 50")
    assert await page.run("longest") < 500


async def test_it_is_small_and_there_at_once(
    page: Page, server: RelayProcess, http: ClientSession
) -> None:
    for language in ("en", "zh-CN"):
        async with http.get(server.url, headers={"Accept-Language": language}) as response:
            assert len(await response.read()) <= 60 << 10
    await page.open(server.url)
    await page.until("document.getElementById('login')?.open")
    spent = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    spans: list[Any] = []
    for _ in range(5):
        await page.open(server.url)
        await page.until(f"{spent} > 0")
        spans.append(await page.run(spent))
    assert min(spans) < 200
