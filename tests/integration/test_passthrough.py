"""Equal dialects: bytes in, bytes out."""

import gzip
import json
import random

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    COMMENT,
    Answer,
    FakeUpstream,
    anthropic_stream,
    chat_error,
    chat_stream,
    chat_whole,
    dump,
    responses_stream,
    stream,
    whole,
)
from relay_process import Start
from talk import (
    ANTHROPIC,
    DIALECTS,
    JSON,
    UPSTREAM_KEY,
    ask,
    chat,
    config,
    dial,
    messages,
    one,
    provider,
)

# A body that no parser and writer would give back as it was.
ODD = (
    b'{ "zz_unknown" : [1.0, 1e2, -0.0, 12345678901234567890123],\r\n\t"messages":[{"role":"user",'
    b'"content":"caf\\u00e9 caf\xc3\xa9 \\/ \\ud83c\\udf0d"}] , "max_tokens":50,'
    b'"metadata":{"model":"nested","deep":[{"model":"deeper"}]},"model"  :  "m" ,'
    b'"note":"\\"model\\":\\"quoted\\"", "dup":1,"dup":2}\n'
)


def renamed(body: bytes, name: bytes = b'"n"') -> bytes:
    return body.replace(b'"model"  :  "m"', b'"model"  :  ' + name)


# ---- The request ---------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_request_goes_out_as_it_came(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Checklist 60, with test_a_stream_arrives_as_it_was_sent."""
    server = await relay(config(upstream, dialect=dialect))
    reply = await ask(http, server, dialect, raw=ODD)
    assert reply.status == 200
    assert upstream.requests[0].body == ODD
    assert reply.headers["x-relay-body"] == "verbatim"


@pytest.mark.parametrize("name", ["n", "a/much/longer:name-1.5", 'q"uo\\te', "名前"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_only_the_model_s_string_changes(
    dialect: str, name: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, dialect, models={"m": name}))
    reply = await ask(http, server, dialect, raw=ODD)
    assert reply.headers["x-relay-body"] == "edited"
    body = upstream.requests[0].body
    before, after = ODD.split(b'"m"')
    assert body.startswith(before)
    assert body.endswith(after)
    assert json.loads(body[len(before) : len(body) - len(after)]) == name
    assert int(upstream.requests[0].headers["content-length"]) == len(body)


@pytest.mark.parametrize("key", [b'"model"', b'"m\\u006fdel"', b'"\\u006dodel"'])
@pytest.mark.parametrize("value", [b'"m"', b'"\\u006d"'])
async def test_the_model_is_found_however_it_is_spelled(
    key: bytes, value: bytes, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = b'{"messages":[{"role":"user","content":"Hi."}],' + key + b":" + value + b"}"
    server = await relay(one(upstream, models={"m": "n"}))
    assert (await ask(http, server, raw=body)).status == 200
    assert upstream.requests[0].json["model"] == "n"
    assert upstream.requests[0].body.startswith(body[:46])


async def test_of_several_models_the_one_that_counts_is_the_one_replaced(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """JSON parsers take the last: no other name may reach the provider as the model."""
    body = b'{"model":"x","messages":[{"role":"user","content":"Hi."}],"model":"m"}'
    server = await relay(one(upstream, models={"m": "n", "x": "y"}))
    reply = await ask(http, server, raw=body)
    assert reply.headers["x-relay-model"] == "n"
    assert upstream.requests[0].json["model"] == "n"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_large_body_passes_whole(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    image = random.Random(1).randbytes(6_000_000).hex()
    body = dump(DIALECTS[dialect].body(text=image))
    server = await relay(config(upstream, dialect=dialect))
    assert (await ask(http, server, dialect, raw=body)).status == 200
    assert upstream.requests[0].body == body


@pytest.mark.every_way
async def test_a_chunked_request_passes(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        await wire.send(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        for part in (ODD[:20], ODD[20:]):
            await wire.send(b"%x\r\n%b\r\n" % (len(part), part))
        await wire.send(b"0\r\n\r\n")
        assert await wire.head() == 200
    assert upstream.requests[0].body == ODD


async def test_headers_of_the_client_reach_a_provider_of_its_dialect(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    betas = "claude-code-20250219,unheard-of-2031-01-01, spaced"
    headers = {
        "anthropic-beta": betas,
        "anthropic-version": "2026-10-21",
        "x-stainless-lang": "js",
        "x-app": "cli",
        "user-agent": "claude-cli/2.1.329 (external, sdk-cli)",
        "x-claude-code-session-id": "abc",
    }
    server = await relay(config(upstream, dialect="anthropic"))
    await ask(http, server, "anthropic", headers=headers)
    seen = upstream.requests[0].headers
    assert {name: seen[name] for name in headers} == headers


async def test_the_query_reaches_a_provider_of_the_same_dialect_as_it_came(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect="anthropic"))
    query = "beta=true&x=a%20b%2Fc+d&y=%E5%90%8D"
    await ask(http, server, "anthropic", path=f"/v1/messages?{query}")
    assert upstream.requests[0].query == query


async def test_headers_of_a_dialect_do_not_leak_into_another(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    headers = {"anthropic-beta": "claude-code-20250219", "anthropic-version": "2023-06-01"}
    server = await relay(config(upstream))
    await ask(http, server, "anthropic", headers=headers)
    sent = {name.lower() for name in upstream.requests[0].headers}
    assert not {name for name in sent if name.startswith("anthropic-")}


async def test_hop_by_hop_headers_end_here(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    headers = {
        "connection": "keep-alive, x-private",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "x-private": "1",
        "proxy-connection": "keep-alive",
        "upgrade": "h2c",
    }
    async with dial(server) as wire:
        await wire.post("openai", headers=headers)
        assert await wire.head() == 200
    sent = {name.lower() for name in upstream.requests[0].headers}
    assert not sent & {"keep-alive", "te", "x-private", "proxy-connection", "upgrade"}
    assert upstream.requests[0].headers["host"] == f"127.0.0.1:{upstream.port}"


# ---- The answer ----------------------------------------------------------------------------

ODD_STREAM = {
    "openai": stream(
        [
            COMMENT,
            b"retry: 10\nid: 7\n",
            b'data:{"choices" :[ {"index":0,"delta":{"content":"caf\\u00e9"},"x":1.0}]}\n\n',
            *chat_stream(text="More of it.").chunks,
        ]
    ),
    "anthropic": stream(
        [
            b": hello\r\n\r\n",
            *(chunk.replace(b"\n", b"\r\n") for chunk in anthropic_stream(text="a b c").chunks[:5]),
            b'event: new_kind\r\ndata: {"type":"new_kind"}\r\n\r\n',
            *(chunk.replace(b"\n", b"\r\n") for chunk in anthropic_stream(text="a b c").chunks[5:]),
        ]
    ),
    "responses": stream(
        [
            b": hello\r\n\r\n",
            *responses_stream(text="a b c").chunks[:5],
            b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
            *responses_stream(text="a b c").chunks[5:],
        ]
    ),
}


@pytest.mark.parametrize("drip", [None, 3])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_arrives_as_it_was_sent(
    drip: int | None, dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(ODD_STREAM[dialect].but(drip=drip))
    server = await relay(one(upstream, dialect, models={"m": "n"}))
    reply = await ask(http, server, dialect, stream=True)
    assert reply.body == ODD_STREAM[dialect].wire
    assert reply.clean


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_whole_answer_arrives_as_it_was_sent(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = json.dumps(json.loads(DIALECTS[dialect].whole(text="café").wire), indent=3).encode()
    upstream.script(Answer(body=body + b"\r\n"))
    server = await relay(one(upstream, dialect, models={"m": "n"}))
    assert (await ask(http, server, dialect)).body == body + b"\r\n"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_compressed_answer_stays_compressed_and_is_metered(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = DIALECTS[dialect].whole(text="Hello.")
    upstream.script(answer.but(compress="gzip"))
    server = await relay(config(upstream, dialect=dialect))
    reply = await ask(http, server, dialect, headers={"accept-encoding": "gzip, br"})
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.body == gzip.compress(answer.wire, mtime=0)
    line = await server.logged()
    assert (line.tokens_in, line.cache_read, line.tokens_out) == (1045, 1024, 57)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_compressed_unasked_arrives_readable(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = DIALECTS[dialect].stream(text="One two three.")
    upstream.script(answer.but(compress="gzip"))
    server = await relay(config(upstream, dialect=dialect))
    reply = await ask(http, server, dialect, stream=True, headers={"accept-encoding": "gzip"})
    packed = reply.headers.get("content-encoding") == "gzip"
    assert (gzip.decompress(reply.body) if packed else reply.body) == answer.wire


async def test_a_whole_answer_is_asked_for_in_codings_both_can_read(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server, headers={"accept-encoding": "gzip, x-unreadable"})
    codings = upstream.requests[0].headers["accept-encoding"]
    assert "gzip" in codings
    assert "x-unreadable" not in codings


async def test_a_client_that_reads_no_coding_gets_none(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server, headers={"accept-encoding": "identity"})
    assert "gzip" not in upstream.requests[0].headers.get("accept-encoding", "")


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_arrives_as_it_was_sent(
    status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    refusal = chat_error(status, "no", code="odd_code")
    upstream.script(refusal)
    server = await relay(config(upstream))
    reply = await ask(http, server)
    assert (reply.status, reply.body) == (status, refusal.wire)


async def test_a_refusal_keeps_the_provider_s_request_id(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(400, "no", headers={"x-request-id": "req-9"}))
    assert (await ask(http, await relay(config(upstream)))).headers["x-request-id"] == "req-9"


async def test_headers_of_the_provider_reach_the_client(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    told = {"request-id": "req_1", "anthropic-ratelimit-tokens-remaining": "5"}
    hop = {"keep-alive": "timeout=9", "proxy-authenticate": "Basic"}
    upstream.script(ANTHROPIC.whole(text="x").but(headers={**told, **hop}))
    server = await relay(config(upstream, dialect="anthropic"))
    headers = (await ask(http, server, "anthropic")).headers
    assert {name: headers[name] for name in told} == told
    assert "proxy-authenticate" not in headers
    assert headers.get("keep-alive") != "timeout=9"


async def test_a_provider_cannot_speak_for_relay(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(text="x").but(headers={"x-relay-provider": "someone"}))
    server = await relay(config(upstream))
    assert (await ask(http, server)).headers.getall("x-relay-provider") == ["first"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_usage_is_read_from_passing_streams(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(DIALECTS[dialect].stream(text="One two three.").but(drip=11))
    server = await relay(config(upstream, dialect=dialect))
    await ask(http, server, dialect, stream=True)
    line = await server.logged()
    assert (line.tokens_in, line.cache_read, line.tokens_out) == (1045, 1024, 57)


async def test_a_stream_without_usage_stays_without(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Nothing is asked for on the client's behalf, and nothing is added to its answer."""
    server = await relay(config(upstream))
    reply = await ask(http, server, stream=True)
    assert "stream_options" not in upstream.requests[0].json
    assert b"usage" not in reply.body


# ---- Edits ---------------------------------------------------------------------------------

BILLING = "x-anthropic-billing-header: cc_version=2.1.329.{}; cc_entrypoint=sdk-cli;"


def claude_code(suffix: str = "719") -> JSON:
    """The oddities of Claude Code's body, its attribution first."""
    cached = {"cache_control": {"type": "ephemeral"}}
    system = [
        {"type": "text", "text": BILLING.format(suffix)},
        {"type": "text", "text": "You are Claude Code.", **cached},
        {"type": "text", "text": "Be good.", **cached},
    ]
    return messages(system=system, thinking={"type": "adaptive"}, unknown={"model": "x"})


async def test_claude_code_s_attribution_ends_here(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = claude_code()
    server = await relay(config(upstream, dialect="anthropic"))
    reply = await ask(http, server, "anthropic", raw=dump(body))
    assert reply.headers["x-relay-body"] == "edited"
    body["system"] = body["system"][1:]
    sent = upstream.requests[0].json
    assert sent == body
    assert list(sent) == list(body)


async def test_without_attribution_requests_of_two_sessions_are_the_same_bytes(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    for dialect in DIALECTS:
        upstream.requests.clear()
        server = await relay(config(upstream, dialect=dialect))
        for suffix in ("719", "3a1"):
            await ask(http, server, "anthropic", raw=dump(claude_code(suffix)))
        first, second = upstream.requests
        assert first.body == second.body
        assert b"billing" not in first.body


async def test_safeguards_end_here(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = messages(
        safeguards=[{"type": "dangerous_tool_use", "classifier_context": {"home": "/"}}]
    )
    server = await relay(config(upstream, dialect="anthropic"))
    await ask(http, server, "anthropic", raw=dump(body))
    assert "safeguards" not in upstream.requests[0].json


async def test_an_override_keeps_the_order_of_keys(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    override = {"set": {"temperature": 0.7, "new": 1}, "drop": ["store"]}
    body = {"temperature": 1, **chat(), "store": True, "zz": {"b": 1, "a": 2}, "aa": 1}
    server = await relay(one(upstream, override=override))
    reply = await ask(http, server, raw=dump(body))
    assert reply.headers["x-relay-body"] == "edited"
    sent = upstream.requests[0].json
    assert list(sent) == ["temperature", "model", "messages", "zz", "aa", "new"]
    assert list(sent["zz"]) == ["b", "a"]


async def test_only_syntax_and_the_model_are_checked(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = b'{"model":"m","messages":"not a list","max_tokens":"many"}'
    upstream.script(chat_error(400, "messages: expected a list"))
    server = await relay(config(upstream))
    assert (await ask(http, server, raw=body)).status == 400
    assert upstream.requests[0].body == body


async def test_unknown_fields_of_an_answer_pass(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = {**json.loads(chat_whole(text="x").wire), "brand_new": {"a": [1, 2]}}
    upstream.script(whole(answer))
    server = await relay(config(upstream))
    assert (await ask(http, server)).json == answer


async def test_each_attempt_starts_from_the_client_s_bytes(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(500, "no"), chat_whole(text="yes"))
    providers = {
        "first": provider(upstream, models={"m": "one"}, override={"set": {"extra": 1}}),
        "second": provider(upstream, models={"m": "two"}),
    }
    server = await relay({"providers": providers, "routing_rules": {"m": ["first", "second"]}})
    assert (await ask(http, server, raw=ODD)).status == 200
    first, second = upstream.requests
    assert first.json["extra"] == 1
    assert second.body == renamed(ODD, b'"two"')
    assert second.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"


CUSTOM = {"type": "custom", "name": "apply_patch", "description": "Edits files."}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_knows_functions_only_serves_the_tools_of_responses(
    stream: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """The same dialect, and yet translated: Codex's freeform tools at vLLM and its like."""
    arguments = json.dumps({"input": "*** Begin Patch"})
    upstream.script(responses_stream(calls=[("call_1", "apply_patch", arguments)]))
    preset = {"preset": "vllm", "api_format": "responses", "endpoint": f"{upstream.url}/v1"}
    server = await relay({"providers": {"first": preset}})
    body = dump(DIALECTS["responses"].body(model="m", stream=stream) | {"tools": [CUSTOM]})
    reply = await ask(http, server, "responses", raw=body)
    assert reply.status == 200
    assert reply.headers["x-relay-body"] == "translated"
    (tool,) = upstream.requests[0].json["tools"]
    assert (tool["type"], tool["name"]) == ("function", "apply_patch")
    assert b'"custom_tool_call"' in reply.body
    assert b'"input":"*** Begin Patch"' in reply.body.replace(b'": "', b'":"')
    assert b"function_call" not in reply.body
