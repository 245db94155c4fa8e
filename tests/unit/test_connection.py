"""A client's connection: which silence on it is one."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

import relay

HEAD = b"POST / HTTP/1.1\r\nhost: relay\r\ncontent-length: 8\r\n\r\n"
LIMIT = 0.02  # seconds for the head of a request


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    body = await request.read()
    await asyncio.sleep(5 * LIMIT)  # an answer takes longer than a head may
    return web.Response(body=body)


def connection() -> tuple[asyncio.Protocol, Wire]:
    limits = relay.ServerConfig(body_timeout=LIMIT)
    listener = relay.Listener(answer, lambda: limits, lambda _: None, 1000)
    protocol, wire = listener(), Wire()
    protocol.connection_made(wire)
    return protocol, wire


@pytest.mark.parametrize("turns", range(6))
async def test_the_rest_of_a_body_is_not_the_beginning_of_a_head(turns: int) -> None:
    """Whenever it comes: even just before the request has got its task."""
    protocol, wire = connection()
    await asyncio.sleep(0)
    protocol.data_received(HEAD + b"1234")
    for _ in range(turns):
        await asyncio.sleep(0)
    protocol.data_received(b"5678")
    await asyncio.sleep(10 * LIMIT)
    protocol.connection_lost(None)
    assert wire.sent.startswith(b"HTTP/1.1 200 OK")
    assert wire.sent.endswith(b"12345678")


@pytest.mark.parametrize("before", [b"", HEAD + b"12345678"])
async def test_half_a_head_is_given_up(before: bytes) -> None:
    protocol, wire = connection()
    await asyncio.sleep(0)
    if before:
        protocol.data_received(before)
        await asyncio.sleep(10 * LIMIT)
        assert wire.sent.endswith(b"12345678")
    protocol.data_received(HEAD[:20])
    await asyncio.sleep(5 * LIMIT)
    assert b"408 Request Timeout" in wire.sent
