"""Chat over a WebSocket: a request in each text frame, an event of the answer in each one back."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable

import aiohttp
import fake_upstream as fake
import pytest
from aiohttp import ClientSession, WSCloseCode, WSMsgType
from fake_upstream import FakeUpstream
from relay_process import SOON, Start
from talk import CHAT_TOOL, CLIENT_KEY, JSON, chat, config, one

PATH = "/v1/chat/completions/ws"
KEYS = {"alice": {"key": CLIENT_KEY}}


async def frames(socket: aiohttp.ClientWebSocketResponse) -> list[str]:
    """The frames of one answer, to its [DONE] or its error."""
    received = list[str]()
    while not received or (received[-1] != "data: [DONE]" and received[-1].startswith("data: ")):
        received.append(await socket.receive_str(timeout=SOON))
    return received


def text_of(received: list[str]) -> str:
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in received[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
async def test_one_request_after_the_other_each_event_a_frame(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    make = {"openai": fake.chat_stream, "anthropic": fake.anthropic_stream}
    answer = make.get(dialect, fake.responses_stream)("Hello there, you. \N{SNOWMAN}")
    upstream.script(answer)
    server = await relay(one(upstream, dialect))
    async with http.ws_connect(server.url + PATH) as socket:
        for stream in (True, False, None):  # streamed whatever it says
            await socket.send_str(json.dumps(chat(stream=stream)))
            received = await frames(socket)
            assert received[-1] == "data: [DONE]"
            assert text_of(received) == "Hello there, you. \N{SNOWMAN}"
            assert len(received) > 4
            assert upstream.requests[-1].json["stream"] is True
    await server.logged(3)
    for line in (line for line in server.log() if "code" in line):
        assert (line["code"], line["status"], line["stream"]) == ("OK", 200, True)
        assert line["path"] == "/v1/chat/completions"


async def test_frames_queue_up(upstream: FakeUpstream, relay: Start, http: ClientSession) -> None:
    server = await relay(one(upstream))
    async with http.ws_connect(server.url + PATH) as socket:
        texts = [f"Question {number}" for number in range(5)]
        for text in texts:
            await socket.send_str(json.dumps(chat(text=text)))
        for _ in texts:
            assert (await frames(socket))[-1] == "data: [DONE]"
    assert [seen.json["messages"][0]["content"] for seen in upstream.requests] == texts


async def test_an_event_of_any_size_is_a_frame(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    texts = ["x" * size for size in (1, 200, 66_000)]
    upstream.script(fake.chat_stream(texts))
    server = await relay(one(upstream))
    async with http.ws_connect(server.url + PATH) as socket:
        await socket.send_str(json.dumps(chat()))
        assert text_of(await frames(socket)) == "".join(texts)


BAD: dict[str, str] = {
    "no JSON": "{",
    "no object": "[1]",
    "empty": "",
    "no model": json.dumps({"messages": []}),
    "unknown model": json.dumps(chat("nobody")),
}


async def test_errors_are_one_frame_and_the_socket_stays_open(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]))
    async with http.ws_connect(server.url + PATH) as socket:
        for name, body in BAD.items():
            await socket.send_str(body)
            [received] = await frames(socket)
            assert json.loads(received)["error"]["message"], name
        await socket.send_str(json.dumps(chat()))
        assert (await frames(socket))[-1] == "data: [DONE]"
    await server.logged(len(BAD) + 1)
    assert [line.status for line in server.lines()] == [400, 400, 400, 400, 404, 200]


async def test_a_frame_is_no_larger_than_a_body_may_be(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay({**one(upstream), "server": {"max_body": "1MB"}})
    async with http.ws_connect(server.url + PATH) as socket:
        await socket.send_str(json.dumps(chat(text="x" * 900_000)))
        assert (await frames(socket))[-1] == "data: [DONE]"
        await socket.send_str(json.dumps(chat(text="x" * 1_100_000)))
        assert (await socket.receive(timeout=SOON)).type == WSMsgType.CLOSE
        assert socket.close_code == WSCloseCode.MESSAGE_TOO_BIG
    assert len(upstream.requests) == 1


async def test_a_break_after_content_is_an_error_frame_without_an_end(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    spoken = fake.anthropic_stream("Hello there, you.")
    upstream.script(spoken.but(cut_after=len(spoken.wire) - 200), spoken)
    server = await relay(one(upstream, "anthropic"))
    async with http.ws_connect(server.url + PATH) as socket:
        await socket.send_str(json.dumps(chat()))
        *before, last = await frames(socket)
        assert "Hello" in text_of([*before, last])
        assert "error" in json.loads(last)
        assert "data: [DONE]" not in before
        await asyncio.sleep(0.1)
        await socket.send_str(json.dumps(chat(text="again")))
        await frames(socket)
    await server.logged(2)
    assert server.lines()[0].code == "UR"


async def test_it_fails_over_as_any_request(
    upstreams: Callable[[int], Awaitable[list[FakeUpstream]]], relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(fake.chat_error(503, "no"))
    server = await relay(config(first, second))
    async with http.ws_connect(server.url + PATH) as socket:
        await socket.send_str(json.dumps(chat(tools=[CHAT_TOOL])))
        assert (await frames(socket))[-1] == "data: [DONE]"
    await server.logged(1)
    assert [each["outcome"] for each in server.lines()[0].attempts] == ["overloaded", "ok"]


@pytest.mark.parametrize("waiting", [0, 5])
async def test_closing_cancels_the_provider(
    upstream: FakeUpstream, relay: Start, http: ClientSession, waiting: int
) -> None:
    upstream.script(fake.chat_stream("Hello there, you.").but(pause=5))
    server = await relay(one(upstream))
    async with http.ws_connect(server.url + PATH) as socket:
        for _ in range(1 + waiting):
            await socket.send_str(json.dumps(chat()))
        await socket.receive_str(timeout=SOON)
    await server.logged(1, within=2)
    assert server.lines()[0].code == "CD"
    await asyncio.wait_for(upstream.requests[0].left.wait(), 2)


async def test_keys_limits_and_what_is_no_socket(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    keys: JSON = {"alice": {"key": CLIENT_KEY, "limits": {"rpm": 1}}, "bob": {"key": "sk-bob-" * 4}}
    server = await relay({**one(upstream), "keys": keys, "log": {"level": "debug"}})
    for query, headers, status in (
        ("", {}, 401),
        ("?api_key=sk-wrong-0123456789", {}, 401),
        ("?api_key=" + "sk-bob-" * 4, {"Upgrade": ""}, 426),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.url + PATH + query, headers=headers)
        assert refused.value.status == status
    query = f"?api_key={CLIENT_KEY}"
    async with http.ws_connect(server.url + PATH + query, protocols=[CLIENT_KEY]) as socket:
        await socket.send_str(json.dumps(chat()))
        assert (await frames(socket))[-1] == "data: [DONE]"
        await socket.send_str(json.dumps(chat()))
        [limited] = await frames(socket)
        assert json.loads(limited)["error"]["code"] == "rate_limit_exceeded"
    bob = {"x-api-key": "sk-bob-" * 4}
    async with http.ws_connect(server.url + PATH + query, headers=bob) as socket:  # headers win
        await socket.send_str(json.dumps(chat()))
        assert (await frames(socket))[-1] == "data: [DONE]"
    await server.logged(6)
    assert [line.key for line in server.lines() if line.status == 200] == ["alice", "bob"]
    assert CLIENT_KEY not in server.stderr
    seen = upstream.requests[-1]
    assert "sk-bob" not in str(seen.headers) + seen.path
    assert not any(name.lower().startswith(("sec-websocket", "upgrade")) for name in seen.headers)


async def test_codex_probe_is_refused_with_an_ordinary_line(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Codex tries a WebSocket first, and goes on without one after a 426."""
    server = await relay(one(upstream))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(server.url + "/v1/responses")
    assert refused.value.status == 426
    await server.logged(1)
    [line] = [line for line in server.log() if "code" in line]
    assert (line["status"], line["level"]) == (426, "info")


async def test_stopping_ends_the_answer_and_closes_the_socket(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    hold = asyncio.Event()
    upstream.script(fake.chat_stream("Hello there, you.").but(hold={3: hold}))
    server = await relay({**one(upstream), "server": {"grace": 0.2}})
    async with (
        http.ws_connect(server.url + PATH) as idle,
        http.ws_connect(server.url + PATH) as socket,
    ):
        await socket.send_str(json.dumps(chat()))
        await socket.receive_str(timeout=SOON)
        stopping = asyncio.create_task(server.stop())
        received = await frames(socket)
        assert "shutting down" in json.loads(received[-1])["error"]["message"]
        for each in (idle, socket):
            assert (await each.receive(timeout=SOON)).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert await stopping == 0
    hold.set()


NODE = """
const socket = new WebSocket(process.argv[1]);
const body = {model: "m", messages: [{role: "user", content: "Hi."}]};
socket.onopen = () => socket.send(JSON.stringify(body));
let text = "";
socket.onmessage = ({data}) => {
  if (data === "data: [DONE]") { console.log(text); socket.close(); return; }
  text += JSON.parse(data.slice(6)).choices.map((c) => c.delta.content ?? "").join("");
};
socket.onerror = (e) => { console.log("error", e.message); process.exit(1); };
"""


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
async def test_the_socket_of_node_and_browsers(upstream: FakeUpstream, relay: Start) -> None:
    upstream.script(fake.chat_stream("Hello there, you."))
    server = await relay({**one(upstream), "keys": KEYS})
    url = f"{server.url.replace('http', 'ws')}{PATH}?api_key={CLIENT_KEY}"
    process = await asyncio.create_subprocess_exec(
        *("node", "--experimental-websocket", "-e", NODE, url), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), SOON)
    assert output.decode().strip() == "Hello there, you."
