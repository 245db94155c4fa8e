"""What a client sees when all goes well: every pair of dialects, headers, lists, log lines."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    TEXT,
    Answer,
    FakeUpstream,
    anthropic_error,
    chat_error,
    chat_whole,
    responses_whole,
)
from relay_process import Start
from talk import (
    ANTHROPIC,
    DIALECTS,
    JSON,
    OPENAI,
    PAIRS,
    RESPONSES,
    UPSTREAM_KEY,
    Said,
    ask,
    chat,
    config,
    messages,
    one,
    provider,
)

WAYS = (False, True)  # whole, streamed
CALLS = [("call_1", "get_weather", '{"city":"Oslo"}'), ("call_2", "get_weather", '{"city":"Rome"}')]
FULL = Said(
    text="Checking both.",
    reasoning="Need the weather.",
    calls=(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})),
    finish="tool_calls",
    tokens_in=1045,
    cache_read=1024,
    tokens_out=57,
)

# ---- All pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_text_reaches_the_client_through_every_pair(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for streamed in WAYS:
        reply = await ask(http, server, client, stream=streamed)
        assert reply.streamed is streamed
        assert (reply.said.text, reply.said.finish) == (TEXT, "stop")


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_reasoning_text_calls_and_usage_mean_the_same_through_every_pair(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for streamed in WAYS:
        builder = DIALECTS[provider].stream if streamed else DIALECTS[provider].whole
        upstream.script(builder(text=FULL.text, reasoning=FULL.reasoning, calls=CALLS))
        asked = {"tools": [DIALECTS[client].tool], **streaming(client, streamed)}
        assert (await ask(http, server, client, **asked)).said == FULL


def streaming(client: str, streamed: bool) -> JSON:
    """The fields that ask for a stream, with usage, where that must be said."""
    usage = {"stream_options": {"include_usage": True}} if client == "openai" else {}
    return {"stream": True, **usage} if streamed else {"stream": False}


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_an_answer_cut_by_the_token_limit_says_so_through_every_pair(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    finish = DIALECTS[provider].cut
    server = await relay(config(upstream, dialect=provider))
    for streamed in WAYS:
        builder = DIALECTS[provider].stream if streamed else DIALECTS[provider].whole
        upstream.script(builder(text="Once upon", finish=finish))
        assert (await ask(http, server, client, stream=streamed)).said.finish == "length"


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_the_provider_is_asked_in_its_own_dialect(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    speaks = DIALECTS[provider]
    room: JSON = {DIALECTS[client].room: 77}
    await ask(http, server, client, text="What now?", **room)
    seen = upstream.requests[0]
    assert (seen.method, seen.path) == ("POST", speaks.path)
    assert seen.json["model"] == "m"
    assert seen.json[speaks.turns][-1]["role"] == "user"
    assert "What now?" in json.dumps(seen.json[speaks.turns][-1])
    assert seen.json[speaks.room] == 77
    assert seen.headers["content-type"].startswith("application/json")


async def test_a_provider_gets_its_key_as_its_dialect_wants_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_format=["openai", "anthropic"]))
    await ask(http, server, "openai")
    await ask(http, server, "anthropic")
    chat_request, anthropic_request = upstream.requests
    assert chat_request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert anthropic_request.headers["x-api-key"] == UPSTREAM_KEY
    assert anthropic_request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"  # some want this
    assert "anthropic-version" in anthropic_request.headers


async def test_an_empty_key_sends_no_credential(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_key=""))
    await ask(http, server)
    assert not {"authorization", "x-api-key", "api-key"} & {
        name.lower() for name in upstream.requests[0].headers
    }


async def test_a_tool_result_travels_from_anthropic_to_chat(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    used = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
    conversation = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "text", "text": "and now"}, result]},
    ]
    reply = await ask(http, server, "anthropic", messages=conversation, tools=[ANTHROPIC.tool])
    assert reply.said.text == TEXT
    said = upstream.requests[0].json["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "user"]
    assert said[2]["tool_call_id"] == said[1]["tool_calls"][0]["id"]
    assert "rain" in json.dumps(said[2]["content"])


async def test_tool_results_travel_from_chat_to_anthropic(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect="anthropic"))
    function = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    calls = [{"id": ident, "type": "function", "function": function} for ident in ("a", "b")]
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
    ]
    tools = [DIALECTS["openai"].tool]
    assert (await ask(http, server, messages=conversation, tools=tools)).said.text == TEXT
    body = upstream.requests[0].json
    assert "Be brief." in json.dumps(body["system"])
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    results = body["messages"][2]["content"]
    assert [block["type"] for block in results] == ["tool_result", "tool_result"]
    used = [block["id"] for block in body["messages"][1]["content"] if block["type"] == "tool_use"]
    assert [block["tool_use_id"] for block in results] == used
    assert body["max_tokens"] > 0


IMAGE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


async def test_an_image_in_a_tool_result_reaches_a_chat_provider_as_an_image(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    used = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}}
    seen = [{"type": "text", "text": "a plot"}, {"type": "image", "source": IMAGE}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": seen}
    conversation = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result]},
    ]
    server = await relay(config(upstream))
    await ask(http, server, "anthropic", messages=conversation, tools=[ANTHROPIC.tool])
    tool, user = upstream.requests[0].json["messages"][2:]
    assert (tool["role"], user["role"]) == ("tool", "user")
    assert "a plot" in json.dumps(tool)
    assert IMAGE["data"] not in json.dumps(tool)
    (image,) = (part for part in user["content"] if part["type"] == "image_url")
    assert image["image_url"]["url"] == f"data:image/png;base64,{IMAGE['data']}"


def tool_turn(said: list[JSON]) -> list[JSON]:
    """A conversation in which the assistant said this and a tool has answered."""
    used = next(block["id"] for block in said if block["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": used, "content": "rain"}
    return [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result]},
    ]


async def test_reasoning_goes_back_to_the_provider_that_needs_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(OPENAI.whole(reasoning="Need the weather.", calls=CALLS[:1]), OPENAI.whole("x"))
    deepseek = {"preset": "deepseek", "endpoint": f"{upstream.url}/v1", "api_key": UPSTREAM_KEY}
    server = await relay({"providers": {"first": deepseek}})
    asked: JSON = {"model": "deepseek-chat", "tools": [ANTHROPIC.tool]}
    said = (await ask(http, server, "anthropic", **asked)).json["content"]
    assert [block["type"] for block in said] == ["thinking", "tool_use"]
    await ask(http, server, "anthropic", messages=tool_turn(said), **asked)
    assistant = upstream.requests[1].json["messages"][1]
    assert assistant["reasoning_content"] == "Need the weather."


async def test_a_signature_of_another_maker_never_reaches_anthropic_s_dialect(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(OPENAI.whole(reasoning="Hm.", calls=CALLS[:1]), path=OPENAI.path)
    providers = {"chat": provider(upstream), "claude": provider(upstream, "anthropic")}
    server = await relay({"providers": providers})
    asked: JSON = {"tools": [ANTHROPIC.tool]}
    said = (await ask(http, server, "anthropic", model="chat/m", **asked)).json["content"]
    turn = {"messages": tool_turn(said), **asked}
    reply = await ask(http, server, "anthropic", model="claude/m", **turn)
    assert reply.said.text == TEXT
    signature = next(block["signature"] for block in said if block["type"] == "thinking")
    assert not signature or signature not in upstream.requests[1].body.decode()


async def test_who_may_not_be_told_what_was_thought_is_asked_again_without(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """OpenAI refuses summaries to organizations that are not verified; Gemini CLI asks for them."""
    refusal = chat_error(400, "Your organization must be verified to generate reasoning summaries.")
    upstream.script(refusal, responses_whole(text="Hello."), path=RESPONSES.path)
    server = await relay(one(upstream, "responses"))
    shown = {"thinking": {"type": "adaptive", "display": "updates"}}
    reply = await ask(http, server, "anthropic", **shown)
    assert reply.said.text == "Hello."
    first, second = (request.json for request in upstream.requests)
    assert first["reasoning"] == {"summary": "auto"}
    assert "reasoning" not in second


async def test_twenty_requests_at_once_are_all_answered(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect="anthropic"))
    asked = (ask(http, server, "openai", stream=bool(number % 2)) for number in range(20))
    replies = await asyncio.gather(*asked)
    assert {reply.said.text for reply in replies} == {TEXT}


# ---- Headers of the answer -----------------------------------------------------------------


async def test_the_answer_tells_what_happened(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models={"m": "provider-name"}))
    headers = (await ask(http, server)).headers
    assert headers["x-relay-provider"] == "first"
    assert headers["x-relay-model"] == "provider-name"
    assert headers["x-relay-attempts"] == "1"
    assert headers["x-relay-request-id"]
    assert "dur=" in headers["server-timing"]
    assert "x-relay-dropped" not in headers


async def test_every_request_has_its_own_id(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    replies = [await ask(http, server) for _ in range(3)]
    assert len({reply.headers["x-relay-request-id"] for reply in replies}) == 3


@pytest.mark.parametrize(
    ("client", "provider", "models", "happened"),
    [
        ("openai", "openai", {"m": "m"}, "verbatim"),
        ("anthropic", "anthropic", {"m": "m"}, "verbatim"),
        ("openai", "openai", {"m": "n"}, "edited"),
        ("anthropic", "anthropic", {"m": "n"}, "edited"),
        ("openai", "anthropic", {"m": "m"}, "translated"),
        ("anthropic", "openai", {"m": "m"}, "translated"),
    ],
)
async def test_the_body_header_names_the_way_taken(
    client: str,
    provider: str,
    models: dict[str, str],
    happened: str,
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    server = await relay(one(upstream, provider, models=models))
    assert (await ask(http, server, client)).headers["x-relay-body"] == happened
    streamed = await ask(http, server, client, stream=True)
    assert streamed.headers["x-relay-body"] == happened


async def test_what_the_provider_cannot_be_told_is_named(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect="anthropic"))
    reply = await ask(http, server, "openai", seed=7, logit_bias={"50256": -100})
    assert reply.said.text == TEXT
    assert "seed" in reply.headers["x-relay-dropped"]
    assert "logit_bias" in reply.headers["x-relay-dropped"]
    assert "seed" not in upstream.requests[0].json


async def test_what_is_dropped_is_named_in_order_and_within_a_header(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    unknown = {f"unknown_{number}": 1 for number in range(500)}
    reply = await ask(http, server, "anthropic", **unknown)
    said = reply.headers["x-relay-dropped"]
    names, _, more = said.rpartition(", and ")
    assert len(said) < 1000
    assert names.split(", ") == list(unknown)[: 500 - int(more.removesuffix(" more"))]
    await server.logged()
    (line,) = [
        record for record in server.log() if record.get("id") == reply.headers["x-relay-request-id"]
    ]
    assert line["dropped"] == list(unknown)


async def test_a_translated_stream_is_labelled_as_one(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    reply = await ask(http, server, "anthropic", stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in reply.headers


# ---- Counting and lists --------------------------------------------------------------------

COUNT = "/v1/messages/count_tokens"


@pytest.mark.parametrize("text", ["Hi.", "word " * 20_000])
async def test_tokens_are_counted_by_a_provider_that_can(
    upstream: FakeUpstream, relay: Start, http: ClientSession, text: str
) -> None:
    server = await relay(one(upstream, "anthropic", models={"m": "n"}))
    reply = await ask(http, server, "anthropic", path=COUNT, text=text)
    assert reply.status == 200
    assert upstream.requests[0].path == COUNT
    assert upstream.requests[0].json["model"] == "n"
    assert reply.json == {"input_tokens": max(1, len(upstream.requests[0].body) // 4)}
    headers = reply.headers
    assert (headers["x-relay-provider"], headers["x-relay-attempts"]) == ("first", "1")


async def test_an_estimate_after_a_failed_count_is_nobodys_but_relays(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(anthropic_error(500, "cannot count"), path="/count_tokens")
    server = await relay(one(upstream, "anthropic"))
    reply = await ask(http, server, "anthropic", path=COUNT)
    assert (reply.status, reply.headers["x-relay-estimated"]) == (200, "true")
    assert "x-relay-provider" not in reply.headers


async def test_tokens_are_estimated_where_the_provider_cannot_count(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    small, large, tools = [
        (await ask(http, server, "anthropic", path=COUNT, **body)).json["input_tokens"]
        for body in ({"text": "Hi."}, {"text": "word " * 2000}, {"tools": [ANTHROPIC.tool]})
    ]
    assert 0 < small < tools
    assert 1000 < large < 6000
    assert upstream.requests == []


async def test_an_estimate_says_that_it_is_one(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    reply = await ask(http, server, "anthropic", path=COUNT)
    assert "estimate" in (str(dict(reply.headers)) + reply.body.decode()).lower()


async def test_models_are_listed_in_both_shapes(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["alpha", "beta"]))
    async with http.get(f"{server.url}/v1/models") as response:
        openai = await response.json()
    version = {"anthropic-version": "2023-06-01"}
    async with http.get(f"{server.url}/v1/models?limit=1000", headers=version) as response:
        anthropic = await response.json()
    assert openai["object"] == "list"
    assert {model["id"] for model in openai["data"]} >= {"alpha", "beta"}
    assert {model["object"] for model in openai["data"]} == {"model"}
    assert {model["id"] for model in anthropic["data"]} >= {"alpha", "beta"}
    assert {model["type"] for model in anthropic["data"]} == {"model"}
    assert anthropic["has_more"] is False
    assert all({"display_name", "created_at"} <= model.keys() for model in anthropic["data"])


async def test_claude_codes_picker_is_given_names_that_it_shows(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models={"glm": {"name": "GLM", "context": 1_000_000}}))
    headers = {"anthropic-version": "2023-06-01", "User-Agent": "claude-code/2.1.329"}
    async with http.get(f"{server.url}/v1/models?limit=1000", headers=headers) as response:
        listed = (await response.json())["data"]
    assert [(model["id"], model["display_name"]) for model in listed] == [
        ("claude--glm", "glm"),
        ("claude--glm[1m]", "glm"),
    ]
    for model in listed:
        reply = await ask(http, server, "anthropic", model=model["id"])
        assert (reply.status, reply.headers["x-relay-model"]) == (200, "GLM")


async def test_one_model_can_be_asked_for(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["alpha"]))
    async with http.get(f"{server.url}/v1/models/alpha") as response:
        assert (await response.json())["id"] == "alpha"
    async with http.get(f"{server.url}/v1/models/omega") as response:
        assert response.status == 404


async def test_a_local_server_without_a_model_list_works_from_the_configured_names(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models={"local": "Org/Model-7B"}))
    async with http.get(f"{server.url}/v1/models") as response:
        assert "local" in {model["id"] for model in (await response.json())["data"]}
    assert (await ask(http, server, model="local")).said.text == TEXT
    assert [seen.path for seen in upstream.requests] == ["/v1/chat/completions"]


# ---- Probes --------------------------------------------------------------------------------


async def test_probes_are_answered_without_a_provider_or_a_key(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"keys": {"alice": {"key": "sk-secret-alice"}}})
    for probe in ("GET /healthz", "GET /readyz", "HEAD /", "HEAD /api/hello"):
        method, path = probe.split()
        async with http.request(method, server.url + path) as response:
            assert response.status == 200, probe
    assert upstream.requests == []


# ---- Log lines -----------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_request_is_one_line_with_tokens_and_timers(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for number, streamed in enumerate(WAYS, 1):
        builder = DIALECTS[provider].stream if streamed else DIALECTS[provider].whole
        upstream.script(builder(text="Hello."))
        began = time.monotonic()
        reply = await ask(http, server, client, stream=streamed)
        line = await server.logged(number)
        passed = (time.monotonic() - began) * 1000
        assert line.id == reply.headers["x-relay-request-id"]
        assert (line.model, line.provider, line.status, line.code) == ("m", "first", 200, "OK")
        assert (line.tokens_in, line.cache_read, line.tokens_out) == (1045, 1024, 57)
        assert len(line.attempts) == 1
        assert line.first_ms is not None
        assert 0 <= line.first_ms <= line.ms <= passed
        assert len(server.lines()) == number


async def test_a_line_names_the_caller_and_not_the_key(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"keys": {"alice": {"key": "sk-secret-alice"}}})
    await ask(http, server, headers={"x-api-key": "sk-secret-alice"})
    assert (await server.logged()).key == "alice"


async def test_a_refused_request_has_a_line_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server, raw=b"{")
    line = await server.logged()
    assert line.status == 400
    assert line.code != "OK"
    assert not line.attempts


# ---- The ways relay is run in ----------------------------------------------------------------


@pytest.mark.every_way
async def test_each_way_is_what_it_is_called(
    way: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """uvloop is a library in memory."""
    server = await relay(config(upstream))
    assert (await ask(http, server)).said.text == TEXT
    maps = await asyncio.to_thread(Path(f"/proc/{server.pid}/maps").read_text)
    assert ("/uvloop/" in maps) is (way == "uvloop")


# ---- What a provider's options change ------------------------------------------------------


@pytest.mark.parametrize("client", DIALECTS)
async def test_stream_mode_never_asks_for_whole_answers_and_streams_them(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, stream_mode="never"))
    reply = await ask(http, server, client, stream=True)
    assert not upstream.requests[0].json.get("stream")
    assert reply.streamed
    assert reply.said.text == TEXT


async def test_a_whole_answer_for_a_stream_may_not_fall_silent_either(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = chat_whole(text=TEXT).wire
    parts, never = (body[:20], body[20:]), asyncio.Event()
    upstream.script(Answer(body=parts, content_type="application/json", hold={1: never}))
    timeouts = {"first_event": "60s", "idle": "50ms"}
    server = await relay(one(upstream, stream_mode="never", timeouts=timeouts))
    reply = await ask(http, server, stream=True)
    assert reply.status == 504
    assert "said nothing within 0.05 s" in reply.error["message"]
    never.set()


async def test_stream_mode_of_all_is_what_a_provider_does_not_say(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = one(upstream)
    config["providers"]["second"] = config["providers"]["first"] | {"stream_mode": "auto"}
    server = await relay(config | {"stream_mode": "never"})
    for name in ("first", "second"):
        reply = await ask(http, server, "openai", stream=True, model=f"{name}/m")
        assert reply.streamed
    streams = [seen.json.get("stream", False) for seen in upstream.requests]
    assert streams == [False, True]


@pytest.mark.parametrize("client", DIALECTS)
async def test_stream_mode_always_asks_for_streams_and_gathers_them(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, stream_mode="always"))
    reply = await ask(http, server, client, stream=False)
    assert upstream.requests[0].json["stream"] is True
    assert not reply.streamed
    assert reply.said.text == TEXT


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_gathered_for_a_client_need_not_be_closed_behind_its_end(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(DIALECTS[dialect].stream(text=TEXT).but(never_ends=True))
    patient = {"stream_mode": "always", "timeouts": {"idle": "60s"}}
    server = await relay(one(upstream, dialect, **patient))
    reply = await ask(http, server, "openai", stream=False)
    assert (reply.status, reply.said.text) == (200, TEXT)


async def test_an_override_drops_defaults_and_sets_in_the_provider_s_body(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    override = {
        "set": {"temperature": 0.7, "extra.deep": 1},
        "default": {"top_p": 0.5, "max_tokens": 9},
        "drop": ["store"],
    }
    server = await relay(one(upstream, override=override))
    reply = await ask(http, server, store=True, temperature=0.1, max_tokens=5)
    assert reply.headers["x-relay-body"] == "edited"
    body = upstream.requests[0].json
    assert body == {
        **chat(temperature=0.7, max_tokens=5),
        "extra": {"deep": 1},
        "top_p": 0.5,
    }


async def test_an_override_acts_on_translated_bodies_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, override={"set": {"top_k": 40}}))
    await ask(http, server, "anthropic")
    assert upstream.requests[0].json["top_k"] == 40


async def test_configured_headers_have_the_last_word_and_null_removes(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    headers = {"User-Agent": "claude-relay-service/1.0.0", "X-Extra": "1", "Authorization": None}
    server = await relay(one(upstream, headers=headers))
    await ask(http, server, headers={"user-agent": "mine/1"})
    seen = upstream.requests[0].headers
    assert seen.getall("user-agent") == ["claude-relay-service/1.0.0"]
    assert seen["x-extra"] == "1"
    assert "authorization" not in seen


async def test_the_client_s_own_user_agent_passes(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server, headers={"user-agent": "mine/1"})
    assert upstream.requests[0].headers["user-agent"] == "mine/1"


async def test_a_provider_of_several_dialects_is_asked_in_the_client_s(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_format=list(DIALECTS)))
    for client in DIALECTS:
        assert (await ask(http, server, client)).headers["x-relay-body"] == "verbatim"
    assert [seen.path for seen in upstream.requests] == [
        dialect.path for dialect in DIALECTS.values()
    ]


async def test_both_ends_may_hold_many_turns(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect="anthropic"))
    turns = [
        {"role": role, "content": f"turn {number}"}
        for number in range(200)
        for role in ("user", "assistant")
    ]
    body = messages() | {"messages": [*turns, {"role": "user", "content": "last"}]}
    assert (await ask(http, server, messages=body["messages"])).said.text == TEXT
    assert len(upstream.requests[0].json["messages"]) == 401
