"""A real Chromium, driven over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from relay_process import STARTED

CHROMIUM = os.environ.get("RELAY_TEST_CHROMIUM") or shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update --remote-debugging-port=0"
).split()


def required() -> str:
    """Chromium's path; without it the test is skipped, but never where everything is installed."""
    if CHROMIUM:
        return CHROMIUM
    if os.environ.get("CI"):
        pytest.fail("chromium is missing; .ci/tools installs it")
    pytest.skip("chromium is not installed (apt-get install chromium)")


class Page:
    """One tab: what it logs and whom it asks is kept from the start."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.send(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()

    async def send(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(STARTED):
            return await answer

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said.get("result", said.get("error")))
            elif said["method"] == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded":
                entry = said["params"]["entry"]
                if entry["level"] == "error":
                    self.errors.append(f"{entry['text']} {entry.get('url', '')}")

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise's, once it is there."""
        said = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression holds, and return what it is."""
        async with asyncio.timeout(STARTED):
            while not (value := await self.run(script)):  # noqa: ASYNC110  # it is another process
                await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        await self.until(f"!!document.querySelector({selector!r})?.checkVisibility()")
        await self.run(f"document.querySelector({selector!r}).click()")

    async def fill(self, selector: str, text: str) -> None:
        script = f"document.querySelector({selector!r})"
        await self.until(f"!!{script}?.checkVisibility()")
        await self.run(
            f"(() => {{ const node = {script}; node.value = {text!r};"
            "for (const kind of ['input', 'change'])"
            " node.dispatchEvent(new Event(kind, { bubbles: true })) })()"
        )

    async def size(self, width: int, height: int) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def picture(self) -> bytes:
        said = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(said["data"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A Chromium with a profile of its own, gone when the test is."""
    process = await asyncio.create_subprocess_exec(
        *(required(), *FLAGS, f"--user-data-dir={folder}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port_file = folder / "DevToolsActivePort"
        async with asyncio.timeout(STARTED):
            while not (port_file.exists() and port_file.read_text().strip()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tabs = await response.json(content_type=None)
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(url, max_msg_size=0) as socket, Page(socket) as page:
                yield page
    finally:
        process.terminate()
        await process.wait()
