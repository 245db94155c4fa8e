"""The dashboard in a real Chromium: what it shows after real traffic, and what it does."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from aiohttp import ClientSession
from browser import Page, browser
from fake_upstream import FakeUpstream, chat_error, chat_stream, chat_whole
from relay_process import SECRET, RelayProcess, Start
from talk import ask, config, noon

ADMIN = f"{SECRET}-admin"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path / "chromium") as opened:
        yield opened


@pytest.fixture
async def server(upstream: FakeUpstream, relay: Start) -> RelayProcess:
    two = config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1")
    keys = {"alice": {"key": f"{SECRET}-alice"}}
    return await relay(two | {"admin_key": ADMIN, "keys": keys, "timezone": noon()})


async def log_in(page: Page, server: RelayProcess) -> None:
    await page.open(server.url)
    await page.fill("#key", ADMIN)
    await page.click("#login button")
    await page.until("!document.getElementById('main').hidden")


def text(selector: str) -> str:
    return f"document.querySelector({selector!r}).innerText"


async def test_it_shows_what_happened_and_what_happens(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    alice = {"x-api-key": f"{SECRET}-alice"}
    upstream.script(chat_error(503, "out of order"), path="/a/v1/chat/completions")
    upstream.script(chat_whole(text="here", usage=USAGE), path="/b/v1/chat/completions")
    await ask(http, server, headers=alice)
    await log_in(page, server)

    # what was there before
    await page.until(f"{text('#requests')}.includes('second/m')")
    await page.until(f"{text('#tiles')}.includes('1.0k') || {text('#tiles')}.includes('1000')")
    assert "alice" in await page.run(text("#requests"))
    assert "Python" in await page.run(text("#requests"))  # the client: aiohttp says so
    assert "overloaded at first/m" in await page.run(text("#failures"))
    assert "out of order" in await page.run(text("#providers"))
    assert await page.until("document.querySelectorAll('#chart rect').length >= 1")
    assert "second" in await page.run(text("#legend"))
    # the clock is the log's, not the browser's
    at = datetime.fromisoformat(server.log()[-1]["time"])
    ended = at.astimezone(ZoneInfo(noon())).strftime("%H:%M:%S")
    assert ended in await page.run(text("#requests"))

    # what comes
    before = await page.run("document.querySelectorAll('#requests tr').length")
    await ask(http, server, headers=alice)
    await page.until(f"document.querySelectorAll('#requests tr').length > {before}")
    await page.until(f"{text('#tiles')}.includes('2.0k') || {text('#tiles')}.includes('2000')")

    # the log, filtered
    await page.fill("#f-code", "ZZ")
    lines = await page.run("document.querySelectorAll('#log div').length")
    await ask(http, server, headers=alice)
    await page.until(f"document.querySelectorAll('#requests tr').length > {before + 1}")
    assert await page.run("document.querySelectorAll('#log div').length") == lines
    await page.fill("#f-code", "OK")  # acts on the lines that are there already
    assert await page.run("document.querySelectorAll('#log div').length") == 3
    await page.fill("#f-key", "nobody")
    assert await page.run("document.querySelectorAll('#log div').length") == 0
    await page.fill("#f-key", "")
    await page.fill("#f-code", "")

    # nothing secret, nothing from elsewhere, no complaint
    everything = await page.run("document.documentElement.outerHTML")
    assert SECRET not in everything
    assert {asked.split("/", 3)[2] for asked in page.asked if asked.startswith("http")} == {
        server.url.partition("//")[2]
    }
    assert page.errors == []


async def test_it_acts(
    page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    alice = {"x-api-key": f"{SECRET}-alice"}
    upstream.script(chat_error(401, "wrong key"), path="/a/v1/chat/completions")
    upstream.script(chat_stream(text=["a", "b"]), path="/b/v1/chat/completions")
    await ask(http, server, headers=alice, stream=True)
    await log_in(page, server)

    # a cooldown: until when, or that it is over
    await page.until(f"/, until (\\d+-\\d+-\\d+ )?\\d\\d:\\d\\d/.test({text('#providers')})")
    shown = await page.run(
        "(state.now = state.marks[0].until, providers(), tiles(), "
        f"[{text('#providers')}, {text('#tiles')}])"
    )
    assert "the next request probes" in shown[0]
    assert "0\ncooling down" in shown[1]

    # and cleared
    button = "[...document.querySelectorAll('#providers button')]"
    await page.until(f"{button}.some((each) => each.innerText === 'Clear')")
    await page.run(f"{button}.find((each) => each.innerText === 'Clear').click()")
    await page.until(f"!{text('#providers')}.includes('wrong key')")

    # a provider, left out
    await page.run(f"{button}.find((each) => each.innerText === 'Disable').click()")
    await page.until(f"{text('#providers')}.includes('Use again')")
    reply = await ask(http, server, headers=alice, stream=True)
    assert (reply.headers["x-relay-provider"], reply.headers["x-relay-attempts"]) == ("second", "1")

    # the file, changed wrongly and rightly
    await page.click("#edit")
    file = await page.until("document.querySelector('#file').value")
    await page.fill("#file", file + "\nlistn: 1\n")
    await page.click("#save")
    await page.until(f"{text('#wrong')}.includes('listn: unknown key')")
    await page.until(f"{text('#log')}.includes('BR')")
    assert "BR" not in await page.run(text("#requests"))  # no model was asked
    line = len(file.splitlines()) + 2
    assert f":{line}:1:" in await page.run(text("#wrong"))
    await page.fill("#file", file + "\ndefault: second/other\n")
    await page.click("#save")
    await page.until(f"{text('#saved')}.includes('default: changed')")
    assert server.file.read_text() == file + "\ndefault: second/other\n"
    await page.until(f"{text('#facts')}.includes('configuration 2')")
    assert (await ask(http, server, model="unheard-of", headers=alice, stream=True)).status == 200

    await page.click("#leave")
    await page.until("document.getElementById('login')?.open")
    assert "status of 400" in "".join(page.errors)  # of the wrong file, and nothing else
    assert len(page.errors) == 1


async def test_a_wrong_key_is_refused(page: Page, server: RelayProcess) -> None:
    await page.open(server.url)
    await page.fill("#key", "wrong")
    await page.click("#login button")
    await page.until(f"{text('#refused')}.includes('admin_key')")
    assert await page.run("document.getElementById('main').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone(
    scheme: str, page: Page, server: RelayProcess, upstream: FakeUpstream, http: ClientSession
) -> None:
    upstream.script(chat_error(401, "wrong key"), path="/a/v1/chat/completions")
    upstream.script(chat_whole(text="here", usage=USAGE), path="/b/v1/chat/completions")
    await ask(http, server, headers={"x-api-key": f"{SECRET}-alice"})
    feature = {"name": "prefers-color-scheme", "value": scheme}
    await page.send("Emulation.setEmulatedMedia", features=[feature])
    await page.size(1280, 740)
    await log_in(page, server)
    await page.until(f"{text('#requests')}.includes('second/m')")
    await page.until("!!document.querySelector('#chart text')")
    await page.size(360, 740)
    await page.until("document.querySelector('#chart svg').viewBox.baseVal.width < 360")
    assert await page.run("document.documentElement.scrollWidth <= innerWidth")
    # nothing is cut off, not even in what could be scrolled
    seen = "[...document.querySelectorAll('td, td button')].filter((each) => each.offsetWidth)"
    assert await page.run(f"{seen}.length > 10")
    assert await page.run(
        f"{seen}.every((each) => each.getBoundingClientRect().right <= innerWidth"
        " && each.scrollWidth <= each.clientWidth + 1)"
    )
    assert {"Test", "Disable", "Clear"} <= set(
        await page.run(
            "[...document.querySelectorAll('#providers button')].map((b) => b.innerText)"
        )
    )
    label = "getComputedStyle(document.querySelector('#providers .long'), '::before').content"
    assert await page.run(label) == '"health"'
    scale = "document.querySelector('#chart svg').getScreenCTM().a"
    size = "parseFloat(getComputedStyle(document.querySelector('#chart text')).fontSize)"
    assert await page.run(f"{scale} * {size}") >= 10
    ink, ground = await page.run(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    lightness = [sum(map(int, each[4:-1].split(","))) for each in (ink, ground)]
    assert (lightness[0] < lightness[1]) == (scheme == "light")
