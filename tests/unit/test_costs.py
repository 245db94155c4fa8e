"""What has to stay cheap, counted: calls, not time, so that a busy machine changes nothing.

A Python call takes about a tenth of a microsecond, with what it does.  Each bound is a little above
what is reached; who has a reason to go over one raises it, and says so.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from unit.configs import plan_of

import relay

LIMITS = "{rpm: 1000000, tpm: 1000000000, tokens_per_day: 1000000000}"
SECRET = "sk-alice-0123456789abcdef"


class Nobody(relay.Upstream):
    def __init__(self) -> None:
        """Who is not asked needs no connections."""


class Calls:
    """Of functions written in Python, and of those written in C."""

    python = 0
    c = 0


@contextmanager
def counted() -> Iterator[Calls]:
    calls = Calls()

    def note(_: FrameType, event: str, __: Any) -> None:
        calls.python += event == "call"
        calls.c += event == "c_call"

    gc.disable()  # it tells Hypothesis, in Python, of each collection
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        gc.enable()


def plan_with(keys: int) -> relay.Plan:
    others = "".join(f"  other-{n}: {{key: sk-other-{n:032}}}\n" for n in range(keys - 1))
    return plan_of(
        f"keys:\n  alice: {{key: {SECRET}, limits: {LIMITS}}}\n{others}"
        "providers:\n  p:\n"
        "    api_format: openai\n"
        "    endpoint: http://p.example/v1\n"
        "    api_key: k\n"
        "    models: {m: the-model}\n"
        "    prices: {the-model: {input: 1, output: 3}}\n"
        "log: {format: json}\n"
    )


class Shelf(relay.Sink):
    """Lines that wait for a thread there is not: what it does would be counted now and then."""

    def __init__(self) -> None:
        super().__init__(None)
        self._most = 1 << 20


def relay_of(plan: relay.Plan) -> relay.Relay:
    log = relay.Log(plan.config.log, plan.zone, Shelf())
    return relay.Relay(plan, Nobody(), log, 10.0, relay.SQLiteStore())


def answered(served: relay.Relay) -> relay.Exchange:
    """A request that is to be settled."""
    plan = served.plan
    exchange = relay.Conversation(plan, make_mocked_request("POST", "/v1/messages"), relay.CHAT)
    exchange.caller = plan.caller([SECRET], 0.0) or relay.Caller()
    exchange.peek = relay.Peek("m", False)
    exchange.route = relay.permitted("m", exchange.caller, plan)
    lane, _ = next(served.balance.lanes(exchange.route, "openai", exchange.id, time.time))
    attempt = exchange.current = relay.Attempt(lane)
    attempt.outcome, attempt.status, attempt.seconds = "ok", 200, 0.5
    exchange.attempts.append(attempt)
    exchange.likely_input, exchange.likely_output = 11, 64
    exchange.first_at, exchange.usage = exchange.began + 0.6, relay.Usage(input=11, output=7)
    exchange.status, exchange.code = 200, "OK"
    return exchange


async def calls_of_a_request(keys: int) -> Calls:
    """From its permit to the line in the log, the second time: what can be found once is."""
    served = relay_of(plan_with(keys))
    for exchange in (answered(served), answered(served)):
        with counted() as calls:
            await served.accounts.reserve(exchange)
            served.accounts.settle(exchange, served.log)
    return calls


async def test_a_request_is_accounted_for_with_few_calls() -> None:
    """Limits, ledger, metrics, feed and log: of some 90 microseconds this was 160 calls."""
    assert (await calls_of_a_request(keys=1)).python <= 82


async def test_it_costs_the_same_with_many_keys() -> None:
    one, many = await calls_of_a_request(keys=1), await calls_of_a_request(keys=500)
    assert (one.python, one.c) == (many.python, many.c)


@pytest.mark.parametrize(
    "cost",
    [
        lambda plan: plan.caller([SECRET], 0.0),
        lambda plan: plan.caller(["sk-nobody"], 0.0),
        lambda plan: plan.redacted("application/json"),
    ],
    ids=["a key", "no key", "no secret"],
)
def test_looking_up_costs_the_same_with_many_keys(cost: Callable[[relay.Plan], object]) -> None:
    spent = list[tuple[int, int]]()
    for plan in (plan_with(1), plan_with(500)):
        cost(plan)
        with counted() as calls:
            cost(plan)
        spent.append((calls.python, calls.c))
    assert spent[0] == spent[1]


def plan_with_names(count: int) -> relay.Plan:
    """As many providers, exact names and globs; what is asked for stands last."""
    row = "{api_format: openai, endpoint: http://p.example/v1, api_key: k, models: {%s: x}}"
    providers = "".join(f"  p-{n}: {row % f'm-{n}'}\n" for n in range(count))
    rules = "".join(f"  exact-{n}: p-{n}\n  glob-{n}-*: p-{n}/m-{n}\n" for n in range(count))
    last = f"  by-name: p-{count - 1}/m-{count - 1}\n  by-glob*: p-{count - 1}/m-{count - 1}\n"
    return plan_of(f"providers:\n{providers}routing_rules:\n{rules}{last}")


@pytest.mark.parametrize("name", ["by-name", "by-glob-of-all", "m-0", "p-0/anything"])
def test_routing_costs_the_same_with_many_names(name: str) -> None:
    """The second time: a name that a glob took is known from then on."""
    spent = list[tuple[int, int]]()
    for plan in (plan_with_names(1), plan_with_names(200)):
        plan.lookup(name, relay.Facts)
        with counted() as calls:
            assert plan.lookup(name, relay.Facts)
        spent.append((calls.python, calls.c))
    assert spent[0] == spent[1]


def test_a_name_that_nobody_serves_is_not_compared_with_all() -> None:
    """Letter by letter that is; the second time, for what the names are made of is kept."""
    spent = list[int]()
    for plan in (plan_with_names(50), plan_with_names(250)):
        plan.nearest("m-77x")
        with counted() as calls:
            assert plan.nearest("M-49x")[0] == "m-49"
        spent.append(calls.python)
    assert spent[1] <= spent[0] + 50


# Translation.  What each more turn, tool or delta adds is what counts: a coding agent sends
# hundreds of turns with every request, and an answer is thousands of deltas.

PAIRS = [
    pytest.param(client, provider, id=f"{client.name}-{provider.name}")
    for client in relay.DIALECTS.values()
    for provider in relay.DIALECTS.values()
    if client is not provider
]


def history(turns: int, tools: int) -> relay.Request:
    """A coding agent's: text and a call, and the call's result, over and over."""
    said = [relay.Message("user", (relay.Text("begin"),))]
    for number in range(turns):
        id, name = f"call_{number:06}", f"tool_{number % (tools or 1)}"
        call = relay.ToolCall(id, name, '{"path":"a.py","text":"} {"}')
        said.append(relay.Message("assistant", (relay.Text("I look at it"), call)))
        result = relay.ToolResult(id, (relay.Text("what stands in it \N{EM DASH} " * 50),))
        said.append(relay.Message("user", (result,)))
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    offered = tuple(relay.Tool(f"tool_{number}", "a tool", schema) for number in range(tools))
    return relay.Request(model="m", messages=tuple(said), tools=offered)


def calls_to_translate(
    client: relay.Dialect, provider: relay.Dialect, request: relay.Request
) -> int:
    """From the client's body to the provider's, as `Exchange` goes about it."""
    body = client.render_request(request, client.quirks(), "").body
    quirks = provider.quirks()
    with counted() as calls:
        read = client.parse_request(body)
        read = relay.replace(read, messages=relay.repaired(read.messages))
        relay.estimate(read)
        relay.dumps(provider.render_request(read, quirks, "").body)
    return calls.python


# Gemini's has to be walked for names in snake_case first, and its calls and results lie deeper.
TURN = {"anthropic": 84, "openai": 72, "responses": 74, "gemini": 103}


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_a_turn_is_translated_with_few_calls(
    client: relay.Dialect, provider: relay.Dialect
) -> None:
    """Of 130 to 190 calls a turn of two messages once took, half made again what was in order."""
    calls_to_translate(client, provider, history(1, 1))  # patterns are compiled once
    few, many, more = (
        calls_to_translate(client, provider, history(turns, 1)) for turns in (10, 60, 310)
    )
    assert (many - few) / 50 <= TURN[client.name]
    assert more - many == 5 * (many - few)  # and each as many as the one before


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_a_tool_is_translated_with_few_calls(
    client: relay.Dialect, provider: relay.Dialect
) -> None:
    """A schema that every provider takes is passed on as it is."""
    few, many = (calls_to_translate(client, provider, history(0, tools)) for tools in (1, 101))
    assert (many - few) / 100 <= 25


def calls_to_stream(client: relay.Dialect, provider: relay.Dialect, deltas: int) -> int:
    """An answer of so many deltas, each in a block of its own."""
    asked, usage = relay.AnswerContext("m", "an-id"), relay.Usage(input=11, output=deltas)
    texts = [relay.PartDelta(" word") for _ in range(deltas)]
    begin = [relay.Start("an-id", "m", usage), relay.PartStart(relay.Text())]
    events = [*begin, *texts, relay.PartEnd(), relay.Finish("stop", usage)]
    blocks = list(filter(None, map(provider.encoder(asked).encode, events)))
    pipe = relay.Streamed(relay.AnswerPath(provider, client, asked))
    with counted() as calls:
        for block in blocks:
            pipe.feed(block)
        pipe.eof()
    assert pipe.failure is None
    return calls.python


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_a_delta_is_translated_with_few_calls(
    client: relay.Dialect, provider: relay.Dialect
) -> None:
    """The event around it is rendered once, and what it does not hold is not asked for: 33 to 47
    calls it once took."""
    calls_to_stream(client, provider, 10)  # a class gets its __init__ with its first value
    few, many, more = (calls_to_stream(client, provider, deltas) for deltas in (10, 60, 310))
    assert (many - few) / 50 <= 26
    assert more - many <= 5 * (many - few)


# One of OpenAI's formats is put together by saying its stream, so that both are the same; one of
# Gemini's is read as a stream of one chunk.
WRITTEN = {"anthropic": 50, "openai": 90, "responses": 146, "gemini": 84}
READ = {"anthropic": 50, "openai": 50, "responses": 62, "gemini": 62}


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_a_whole_answer_is_translated_with_few_calls(
    client: relay.Dialect, provider: relay.Dialect
) -> None:
    asked, usage = relay.AnswerContext("m", "an-id"), relay.Usage(input=11, output=7)
    answer = relay.Response("an-id", "m", (relay.Text("a word"),), "stop", usage)
    data = relay.dumps(provider.render_response(answer, asked))
    for _ in range(2):  # a class gets its __init__ with its first value
        pipe = relay.Gathered(relay.AnswerPath(provider, client, asked))
        with counted() as calls:
            pipe.feed(data)
            pipe.eof()
    assert pipe.usage == usage
    assert calls.python <= WRITTEN[client.name] + READ[provider.name]


# A large body.  To search it, or to change the case of its letters, is a pass over all of it.


class Searched(bytes):
    """A body that may not be searched, or be copied in letters of another size."""

    def find(self, *words: Any) -> int:
        raise AssertionError("a pass over the body")

    rfind = count = index = lower = translate = __contains__ = find


@pytest.mark.parametrize("quirks", [relay.ChatQuirks(), relay.AnthropicQuirks(), None])
def test_a_large_body_is_passed_on_after_one_pass_over_it(
    quirks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds all that is asked: model, mode, keys in other spellings, what is to be taken out.
    Each search of its own was a pass, eight of them; and no copy is made of what is around the
    model."""
    dialect: relay.Dialect = relay.ANTHROPIC
    if not isinstance(quirks, relay.AnthropicQuirks):
        dialect = relay.CHAT if quirks else relay.RESPONSES
    passes = list[int]()
    pattern = relay._key_pattern(dialect.words)

    class Counted:
        def finditer(self, data: bytes) -> Any:
            passes.append(len(data))
            return pattern.finditer(data)

    monkeypatch.setattr(relay, "_key_pattern", lambda words: Counted())
    turn = {"role": "user", "content": 'say "model"? \\ \n ' * 2000}
    wire = {"model": "a", "max_tokens": 9, "messages": [turn] * 10, "stream": True}
    raw = Searched(relay.dumps(wire))
    body = relay.Body(raw, unread=True, words=dialect.words)
    assert body.outline(dialect.peek_markers) == {"model": "a", "stream": True}
    relay.likely_input(raw)
    relay.likely_output(body)
    assert dialect.is_clean(raw, body.words, quirks or relay.ResponsesQuirks())
    pieces, verbatim = body.outgoing("another")
    assert (body.unread, verbatim, passes) == (True, False, [len(raw)])
    assert isinstance(pieces, list)
    assert [piece.obj for piece in pieces if len(piece) > 99] == [raw]


async def test_a_very_large_body_is_translated_in_steps() -> None:
    """What others' streams wait for is the longest of them, not their sum."""
    served = relay_of(plan_with(1))
    wire = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi " * 300_000}],
    }
    request = make_mocked_request("POST", "/v1/messages")
    exchange = relay.Conversation(served.plan, request, relay.ANTHROPIC)
    exchange.body = relay.Body(relay.dumps(wire), unread=True)
    exchange.peek = relay.Peek("m", False)
    exchange.route = relay.permitted("m", relay.Caller(), served.plan)
    lane, _ = next(served.balance.lanes(exchange.route, "anthropic", exchange.id, time.time))
    assert len(exchange.body.raw) > relay.IN_STEPS
    seen = list[bool]()

    async def watch() -> None:
        while "parsed" not in exchange.__dict__:
            seen.append(exchange.body.unread)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await exchange.read_in_steps(lane)
    await watching
    assert set(seen) == {True, False}  # others had their turn before it was read, and after


# The wire.  A stream's block goes from the provider's socket to the client's in one callback.


class Wire(asyncio.Transport):
    """A connection whose other end takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.said = list[bytes]()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: Any) -> None:
        self.said.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None: ...
    def close(self) -> None: ...
    def resume_reading(self) -> None: ...


class OneLink(relay.Upstream):
    """A provider that is connected already."""

    def __init__(self) -> None:
        super().__init__()
        origin = relay.origin_of("http://p.example")
        self.link, self.wire = relay.Link(self, ("", origin)), Wire()
        self.link.connection_made(self.wire)
        self._links.add(self.link)

    async def _connect(self, proxy: str, origin: relay.Origin, seconds: float) -> relay.Link:
        return self.link


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def words(dialect: relay.Dialect, count: int) -> tuple[bytes, bytes, bytes]:
    """The beginning of a stream, a delta, and the end."""
    usage = relay.Usage(input=11, output=count)
    encode = dialect.encoder(relay.AnswerContext("m", "an-id")).encode
    begin = encode(relay.Start("an-id", "m", usage)) + encode(relay.PartStart(relay.Text()))
    begin += encode(relay.PartDelta("One"))
    delta, end = encode(relay.PartDelta(" more")), encode(relay.PartEnd())
    return begin, delta, end + encode(relay.Finish("stop", usage))


async def calls_to_pass(dialect: relay.Dialect, blocks: int, chunks: int) -> int:
    """So many blocks of so many chunks, from one wire to the other."""
    served, provider, client = relay_of(plan_with(1)), OneLink(), Wire()
    served.upstream = provider
    config = relay.ServerConfig()
    server = relay.Listener(
        lambda request: served.serve(relay.Conversation(served.plan, request, relay.CHAT)),
        lambda: config,
        served.log.fault,
        1000,
    )
    connection = server()
    connection.connection_made(client)
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    connection.data_received(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer %b\r\n"
        b"content-length: %d\r\n\r\n%b" % (SECRET.encode(), len(body), body)
    )
    await until(lambda: provider.wire.said)
    begin, delta, end = words(dialect, blocks * chunks)
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    provider.link.data_received(head + chunk(begin))
    await until(lambda: client.said)
    await asyncio.sleep(0)
    block, sent = chunk(delta) * chunks, len(client.said)
    with counted() as calls:
        for _ in range(blocks):
            provider.link.data_received(block)
    assert client.said[sent:] == [chunk(delta * chunks)] * blocks  # at once, without a task
    provider.link.data_received(chunk(end) + b"0\r\n\r\n")
    await until(lambda: client.said[-1].endswith(b"0\r\n\r\n"))
    connection.connection_lost(None)
    await served.upstream.close()
    return calls.python


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # nothing that could tell
            await asyncio.sleep(0)


async def test_a_block_is_passed_on_with_few_calls() -> None:
    """A task woken for each of them was 45 calls, and another turn of the event loop."""
    few, many = [await calls_to_pass(relay.CHAT, blocks, 1) for blocks in (10, 110)]
    assert (many - few) / 100 <= 10  # three of them are the wire of this test


async def test_chunks_that_come_together_cost_no_call_of_their_own() -> None:
    one, many = [await calls_to_pass(relay.CHAT, 10, chunks) for chunks in (1, 100)]
    assert one == many


async def test_what_comes_at_once_is_not_understood_to_its_end() -> None:
    """Of a stream that is here in one block only the first events and the last are parsed."""
    spent = list[int]()
    for count in (100, 100, 1000):  # the first makes what is made once
        begin, delta, end = words(relay.CHAT, count)
        pipe = relay.Streamed(
            relay.AnswerPath(relay.CHAT, relay.CHAT, relay.AnswerContext("m", "an-id"))
        )
        with counted() as calls:
            said = pipe.feed(begin + delta * count + end)
        assert (said, pipe.usage) == (begin + delta * count + end, relay.Usage(11, count))
        spent.append(calls.python)
    assert spent[1] == spent[2]


class Prompt(Wire):
    """Has the answer to all that is said."""

    link: relay.Link
    answer = b"HTTP/1.1 200 OK\r\na: b\r\nc: d\r\ncontent-length: 300\r\n\r\n" + b"x" * 300

    def write(self, data: Any) -> None:
        asyncio.get_running_loop().call_soon(self.link.data_received, self.answer)


async def calls_to_post(provider: OneLink) -> int:
    headers = {f"x-{number}": "a" for number in range(8)}
    with counted() as calls:
        reply = await provider.send("POST", "http://p.example/v1/x", headers, b"{}", 10.0)
        body = await relay.read_all(reply, 10.0)
    assert len(body) == 300
    return calls.python


async def test_a_post_is_said_and_its_answer_read_with_few_calls() -> None:
    """The lean leg alone, and the event loop's two turns: of some 40 microseconds it was 112."""
    provider, wire = OneLink(), Prompt()
    wire.link = provider.link
    provider.link.connection_made(wire)
    await calls_to_post(provider)
    assert await calls_to_post(provider) <= 80
    await provider.close()
