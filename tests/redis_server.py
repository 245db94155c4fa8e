"""A real redis-server of the test's own: on a free port, killed and started again at will."""

import asyncio
import os
import signal
from pathlib import Path

from relay_process import STARTED, free_port


class RedisServer:
    """Keeps what it is told in a file, so that it survives its own death."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._home = home
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(
                self._program,
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--dir",
                str(self._home),
            ),
            *("--appendonly", "yes", "--save", "", "--appendfsync", "everysec"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(STARTED):
            while await self.command("PING") != b"+PONG\r\n":  # noqa: ASYNC110  # it says nothing
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Without a word."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        if self._process and self._process.returncode is None:
            await self._end(signal.SIGCONT)
            await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """It keeps its connections and says nothing any more."""
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGCONT)

    async def command(self, *words: str) -> bytes:
        """One command on a connection of its own, and the first bytes of the answer."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return b""
        try:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            writer.write(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return await reader.read(1 << 20)
        finally:
            writer.close()

    async def keys(self) -> dict[str, int]:
        """Every key and its time to live in seconds; -1 is for ever."""
        said = (await self.command("KEYS", "*")).decode().split("\r\n")
        names = [line for line in said if line.startswith("{")]
        return {name: int((await self.command("TTL", name))[1:]) for name in names}

    async def _end(self, by: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(by)
        if by is not signal.SIGCONT:
            await self._process.wait()
