"""What a user would write in 45 lines: aiohttp, orjson, and uvloop where it is installed.

python aiohttp_peer.py PORT UPSTREAM: pass requests on, with another model and another key.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import orjson
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP = frozenset(
    "host connection keep-alive transfer-encoding content-length te upgrade accept-encoding".split()
)
SESSION = web.AppKey("session", ClientSession)
PORT, UPSTREAM = int(sys.argv[1]), sys.argv[2]


def end_to_end(headers: object) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP}


async def handle(request: web.Request) -> web.StreamResponse:
    body = orjson.loads(await request.read())
    body["model"] = "provider-model"
    headers = end_to_end(request.headers) | {"Authorization": "Bearer of-the-provider"}
    session, url = request.app[SESSION], UPSTREAM + request.path_qs
    async with session.post(url, data=orjson.dumps(body), headers=headers) as reply:
        answer = web.StreamResponse(status=reply.status, headers=end_to_end(reply.headers))
        if reply.content_length is not None:
            answer.content_length = reply.content_length
        await answer.prepare(request)
        async for block in reply.content.iter_any():
            await answer.write(block)
        await answer.write_eof()
        return answer


async def connected(app: web.Application) -> AsyncIterator[None]:
    timeout, connector = ClientTimeout(total=None), TCPConnector(limit=0, keepalive_timeout=60)
    app[SESSION] = ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
    yield
    await app[SESSION].close()


app = web.Application(client_max_size=64 << 20)
app.cleanup_ctx.append(connected)
app.router.add_route("*", "/{path:.*}", handle)
loop = asyncio.new_event_loop()
with contextlib.suppress(ImportError):
    import uvloop

    loop = uvloop.new_event_loop()
web.run_app(app, host="127.0.0.1", port=PORT, loop=loop, print=None, access_log=None, backlog=4096)
