"""The least that Python can do: requests passed on between sockets, with another model and key.

python least_peer.py PORT UPSTREAM: no framework, no checks, no accounts, nobody is asked who he is,
and the model is replaced wherever it is found first.  It shows where the floor is, and is no proxy
that anybody should run.
"""

import asyncio
import contextlib
import re
import sys
from urllib.parse import urlsplit

PORT, UPSTREAM = int(sys.argv[1]), urlsplit(sys.argv[2])
MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
DROPPED = re.compile(rb"(?im)^(?:host|authorization|content-length|connection):.*\r\n")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
IDLE: "list[Provider]" = []


class Provider(asyncio.Protocol):
    """A connection to the provider: bytes of its answer go to the client as they are."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.client = transport, None

    def connection_lost(self, error: Exception | None) -> None:
        with contextlib.suppress(ValueError):
            IDLE.remove(self)

    def ask(self, client: "Client", pieces: list[bytes]) -> None:
        self.client, self.head, self.left = client, b"", -1
        self.transport.writelines(pieces)

    def data_received(self, data: bytes) -> None:
        self.client.transport.write(data)
        if self.left < 0:  # in the head
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self.head[: end + 2], self.head[end + 4 :]
            self.chunked, self.part = CHUNKED.search(head), b""
            self.left = 0 if self.chunked else int(LENGTH.search(head)[1])
        if self.chunked:
            self.skip_chunks(data)
        else:
            self.left -= len(data)
            if self.left == 0:
                self.end()

    def skip_chunks(self, data: bytes) -> None:
        """Only the end has to be found; `left` is of a chunk with the line's end after it."""
        data, at = self.part + data, 0
        self.part = b""
        while self.left <= len(data) - at:
            at, self.left = at + self.left, 0
            line = data.find(b"\r\n", at)
            if line < 0 or data.startswith(b"0\r\n", at):
                if data.startswith(b"0\r\n\r\n", at):
                    self.end()
                self.part = data[at:]
                return
            at, self.left = line + 2, int(data[at:line], 16) + 2
        self.left -= len(data) - at

    def end(self) -> None:
        IDLE.append(self)


class Client(asyncio.Protocol):
    """A client's connection: one request after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.head, self.parts, self.left = transport, b"", [], 0

    def data_received(self, data: bytes) -> None:
        if not self.left:
            data = self.head + data
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self.head = data
                return
            self.head, data = data[:end], data[end:]
            self.left = int(LENGTH.search(self.head)[1])
        self.parts.append(data)
        self.left -= len(data)
        if not self.left:
            body, self.parts = b"".join(self.parts), []
            start, end = MODEL.search(body).span(1)
            lines = b"Host: %b\r\nAuthorization: Bearer of-the-provider\r\n" % HOST
            lines += b"Content-Length: %d\r\n\r\n" % (len(body) - (end - start) + len(NAME))
            head, view = DROPPED.sub(b"", self.head)[:-2] + lines, memoryview(body)
            self.head = b""
            self.pieces = [head, view[:start], NAME, view[end:]]
            if IDLE:
                IDLE.pop().ask(self, self.pieces)
            else:
                self.connecting = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, provider = await loop.create_connection(Provider, UPSTREAM.hostname, UPSTREAM.port)
        provider.ask(self, self.pieces)


HOST, NAME = UPSTREAM.netloc.encode(), b"provider-model"


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Client, "127.0.0.1", PORT, backlog=4096)
    await server.serve_forever()


run = asyncio.run
with contextlib.suppress(ImportError):
    from uvloop import run
run(main())
