"""What a client does not send back, because its own provider would not need it.

Nearly all chat clients send back the bare text of reasoning, or nothing, where makers want its
seal; relay keeps it for turns with tool calls.  Responses clients that have their answers stored
refer to these (Microsoft's Agent Framework), or to their items (Vercel's AI SDK); relay keeps both.
"""

import json

import fake_upstream as fake
import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream
from relay_process import RelayProcess, Start
from talk import CHAT_TOOL, CLIENT_KEY, JSON, RESPONSES_TOOL, Reply, ask, config, one, provider

CALL = ("toolu_1", "get_weather", '{"city": "Oslo"}')
THOUGHT = "The user wants the weather."
ASKED = {"role": "user", "content": "Weather in Oslo?"}
# Provider -> its answer, and what of it stands in the turn of the next request.
PROVIDERS: dict[str, tuple[Answer, JSON]] = {
    "anthropic": (
        fake.anthropic_whole("Let me look.", THOUGHT, [CALL]),
        {"type": "thinking", "thinking": THOUGHT, "signature": fake.SIGNATURE},
    ),
    "responses": (fake.responses_whole("Let me look.", THOUGHT, [CALL]), fake.ENCRYPTED),
    "gemini": (fake.gemini_whole("Let me look.", THOUGHT, [CALL]), fake.SIGNATURE),
}


def sealed(dialect: str, body: JSON) -> list[JSON]:
    """What a provider is sent of its own reasoning, turn by turn."""
    match dialect:
        case "anthropic":
            blocks = [b for m in body["messages"] for b in m["content"] if isinstance(b, dict)]
            return [block for block in blocks if "thinking" in block["type"]]
        case "responses":
            items = [item for item in body["input"] if item.get("type") == "reasoning"]
            return [item["encrypted_content"] for item in items]
        case _:
            parts = [part for turn in body["contents"] for part in turn["parts"]]
            return [p["thoughtSignature"] for p in parts if "thoughtSignature" in p]


async def first_turn(
    http: ClientSession, server: RelayProcess, stream: bool, **more: JSON
) -> list[JSON]:
    """The conversation after a turn with a call, as a client has it that keeps every field."""
    body = {"messages": [ASKED], "tools": [CHAT_TOOL], "stream": stream, **more}
    reply = await ask(http, server, "openai", **body)
    assert reply.status == 200, reply.body
    if stream:
        deltas = [e.json["choices"][0]["delta"] for e in reply.events[:-1] if e.json["choices"]]
        assert "".join(d.get("reasoning_content") or "" for d in deltas) == THOUGHT
        [call] = [call for d in deltas for call in d.get("tool_calls") or () if "id" in call]
        function = {"name": "get_weather", "arguments": CALL[2]}
        message = {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": THOUGHT,
            "tool_calls": [{"id": call["id"], "type": "function", "function": function}],
        }
    else:
        message = reply.json["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "7"}
    return [ASKED, message, result]


def but(turn: JSON, *names: str, **fields: JSON) -> JSON:
    return {name: value for name, value in turn.items() if name not in names} | fields


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", PROVIDERS)
async def test_seals_that_a_chat_client_drops_reach_their_maker(
    dialect: str, stream: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer, wanted = PROVIDERS[dialect]
    upstream.script(answer)
    server = await relay(one(upstream, dialect))
    asked, turn, result = await first_turn(http, server, stream, reasoning_effort="high")
    echoes = {
        "all": turn,
        "text": but(turn, "reasoning_details"),
        "nothing": but(turn, "reasoning_details", "reasoning_content"),
        "another text": but(turn, "reasoning_details", reasoning_content="I like Oslo."),
    }
    later = {"role": "user", "content": "And Rome?"}
    for name, echo in echoes.items():
        for tail in ([result], [result, {"role": "assistant", "content": "7."}, later]):
            await ask(
                http,
                server,
                messages=[asked, echo, *tail],
                tools=[CHAT_TOOL],
                stream=stream,
                reasoning_effort="high",
            )
            body = upstream.requests[-1].json
            if name == "another text":
                assert wanted not in sealed(dialect, body), name
            else:
                assert sealed(dialect, body) == [wanted], (name, body)


async def test_thoughts_come_first_in_their_turn(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Claude refuses a turn that thinks after it has begun to speak."""
    upstream.script(PROVIDERS["anthropic"][0])
    server = await relay(one(upstream, "anthropic"))
    asked, turn, result = await first_turn(http, server, False, reasoning_effort="high")
    bare = but(turn, "reasoning_details", "reasoning_content")
    twice = but(bare, tool_calls=[but(turn["tool_calls"][0], id="elsewhere")])
    messages = [asked, twice, but(result, tool_call_id="elsewhere"), asked, bare, result]
    await ask(http, server, messages=messages, tools=[CHAT_TOOL], reasoning_effort="high")
    turns = [m for m in upstream.requests[-1].json["messages"] if m["role"] == "assistant"]
    kinds = [[block["type"] for block in turn["content"]] for turn in turns]
    assert kinds == [["text", "tool_use"], ["thinking", "text", "tool_use"]]


async def test_other_callers_and_other_conversations_never_get_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(PROVIDERS["anthropic"][0])
    keys = {name: {"key": CLIENT_KEY + name} for name in ("alice", "bob")}
    server = await relay({**one(upstream, "anthropic"), "keys": keys})

    async def next_turn(caller: str, asked: JSON) -> list[JSON]:
        await ask(
            http,
            server,
            headers={"x-api-key": CLIENT_KEY + caller},
            messages=[asked, bare, result],
            tools=[CHAT_TOOL],
        )
        return sealed("anthropic", upstream.requests[-1].json)

    body = {"messages": [ASKED], "tools": [CHAT_TOOL]}
    reply = await ask(http, server, headers={"x-api-key": CLIENT_KEY + "alice"}, **body)
    turn = reply.json["choices"][0]["message"]
    bare = but(turn, "reasoning_details", "reasoning_content")
    result = {"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "7"}
    assert await next_turn("bob", ASKED) == []
    assert await next_turn("alice", {"role": "user", "content": "Weather in Rome?"}) == []
    assert len(await next_turn("alice", ASKED)) == 1


async def test_a_torn_answer_is_not_kept(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    spoken = fake.anthropic_stream("", THOUGHT, [CALL])
    upstream.script(spoken.but(cut_after=len(spoken.wire) - 150), PROVIDERS["anthropic"][0])
    server = await relay(one(upstream, "anthropic"))
    body = {"messages": [ASKED], "tools": [CHAT_TOOL], "stream": True}
    assert not (await ask(http, server, **body)).clean
    call = {"name": "get_weather", "arguments": CALL[2]}
    turn = {"role": "assistant", "tool_calls": [{"id": "toolu_1", "function": call}]}
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "7"}
    await ask(http, server, messages=[ASKED, turn, result], tools=[CHAT_TOOL])
    assert sealed("anthropic", upstream.requests[-1].json) == []


async def test_a_chat_provider_that_wants_its_reasoning_back_gets_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """DeepSeek and Kimi refuse a turn with calls that lacks it; this client sends calls alone."""
    upstream.script(fake.chat_whole("", THOUGHT, [CALL]))
    server = await relay(one(upstream, preset="deepseek", models=["m"]))
    asked = {"role": "user", "content": "Weather in Oslo?"}
    body = {"tools": [RESPONSES_TOOL], "reasoning": {"effort": "high"}}
    reply = await ask(http, server, "responses", input=[asked], **body)
    assert reply.status == 200, reply.body
    [call] = [item for item in reply.json["output"] if item["type"] == "function_call"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "7"}
    await ask(http, server, "responses", input=[asked, call, result], **body)
    [turn] = [m for m in upstream.requests[-1].json["messages"] if m["role"] == "assistant"]
    assert turn["reasoning_content"] == THOUGHT


async def test_passed_on_requests_stay_as_they_are(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Here a conversation goes on, without its reasoning, at a provider of the client's dialect."""
    upstream.script(PROVIDERS["anthropic"][0], path="/v1/messages")
    second = provider(upstream)
    providers = {"first": provider(upstream, "anthropic"), "second": second}
    server = await relay(config() | {"providers": providers, "routing_rules": {"m": "first"}})
    asked, turn, result = await first_turn(http, server, False)
    bare = but(turn, "reasoning_details", "reasoning_content")
    body = {"model": "second/m", "messages": [asked, bare, result], "tools": [CHAT_TOOL]}
    await ask(http, server, **body)
    assert upstream.requests[-1].json == body | {"model": "m"}


REFERRED = {"role": "user", "content": "And Rome?"}


def references(items: list[JSON]) -> list[JSON]:
    """As the AI SDK refers to an answer's items; the results of its calls come whole."""
    calls = [item["call_id"] for item in items if item["type"] == "function_call"]
    results = [{"type": "function_call_output", "call_id": id, "output": "7"} for id in calls]
    return [*({"type": "item_reference", "id": item["id"]} for item in items), *results]


async def items_of(
    http: ClientSession, server: RelayProcess, stream: bool = False, **more: JSON
) -> list[JSON]:
    """The items of an answer to ASKED."""
    body = {"input": [ASKED], "tools": [RESPONSES_TOOL], "stream": stream, **more}
    reply = await ask(http, server, "responses", **body)
    assert reply.status == 200, reply.body
    answer = reply.events[-1].json["response"] if stream else reply.json
    assert {"reasoning", "message", "function_call"} <= {item["type"] for item in answer["output"]}
    return answer["output"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
async def test_a_reference_means_its_item(
    dialect: str, stream: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(PROVIDERS[dialect][0])
    server = await relay(one(upstream, dialect))
    items = await items_of(http, server, stream)
    tail = references(items)
    sent = []
    for input in ([ASKED, *items, *tail[-1:], REFERRED], [ASKED, *tail, REFERRED]):
        reply = await ask(http, server, "responses", input=input, tools=[RESPONSES_TOOL])
        assert reply.status == 200, reply.body
        sent.append(upstream.requests[-1].json)
    assert sent[0] == sent[1]
    assert sealed(dialect, sent[1]) == [PROVIDERS[dialect][1]]


async def test_a_referring_conversation_moves_to_a_provider_of_its_own_dialect(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """And there what relay does not know is left to that provider, byte for byte."""
    upstream.script(PROVIDERS["anthropic"][0], path="/v1/messages")
    upstream.script(fake.responses_whole("Cold."), path="/v1/responses")
    providers = {
        "first": provider(upstream, "anthropic"),
        "second": provider(upstream, "responses"),
    }
    server = await relay(config() | {"providers": providers, "routing_rules": {"m": "first"}})
    items = await items_of(http, server)
    input = [ASKED, *references(items), REFERRED]
    await ask(http, server, "responses", model="second/m", input=input)
    sent = upstream.requests[-1].json["input"]
    kinds = [item.get("type") for item in sent]
    assert kinds == [None, "message", "function_call", "function_call_output", None]
    assert sent[1]["content"] == items[1]["content"]

    unknown = [ASKED, {"type": "item_reference", "id": "msg_of_openai"}, REFERRED]
    raw = fake.dump({"input": unknown, "model": "m", "store": True})
    route = {"m": "second"}
    server = await relay(config() | {"providers": providers, "routing_rules": route})
    reply = await ask(http, server, "responses", raw=raw)
    assert reply.headers["x-relay-body"] == "verbatim"
    assert upstream.requests[-1].body == raw


async def test_references_that_lead_nowhere(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Nobody gets another caller's items, and those of answers that must not be stored are not."""
    upstream.script(PROVIDERS["anthropic"][0])
    keys = {name: {"key": CLIENT_KEY + name} for name in ("alice", "bob")}
    server = await relay({**one(upstream, "anthropic"), "keys": keys})

    async def answered(caller: str, stored: bool) -> int:
        alice = {"x-api-key": CLIENT_KEY + "alice"}
        body = {"input": [ASKED], "tools": [RESPONSES_TOOL], "store": stored}
        first = await ask(http, server, "responses", headers=alice, **body)
        input = [ASKED, *references(first.json["output"])]
        headers = {"x-api-key": CLIENT_KEY + caller}
        reply = await ask(http, server, "responses", headers=headers, input=input)
        if reply.status != 200:
            id = first.json["output"][0]["id"]
            assert f'input[1]: item "{id}" not found' in reply.json["error"]["message"]
        return reply.status

    assert await answered("alice", True) == 200
    assert await answered("alice", False) == 400
    assert await answered("bob", True) == 400


async def test_a_conversation_goes_on_from_an_answer(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Link by link, with the instructions of the last request alone."""
    wholes = {text: json.loads(fake.chat_whole(text).wire) for text in ("One.", "Two.", "Three.")}
    upstream.script(*(fake.whole(whole | {"id": text}) for text, whole in wholes.items()))
    server = await relay(one(upstream))
    first = await ask(http, server, "responses", input="Count.", instructions="Old.")
    body = {"input": [REFERRED], "previous_response_id": first.json["id"]}
    second = await ask(http, server, "responses", **body)
    more = {"instructions": "New.", "previous_response_id": second.json["id"]}
    third = await ask(http, server, "responses", input="On.", stream=True, **more)
    assert third.status == 200, third.body
    sent = upstream.requests[-1].json["messages"]
    assert [(turn["role"], turn["content"]) for turn in sent] == [
        ("system", "New."),
        ("user", "Count."),
        ("assistant", "One."),
        ("user", "And Rome?"),
        ("assistant", "Two."),
        ("user", "On."),
    ]


async def test_an_answer_that_is_not_known_is_asked_for_in_vain(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Nobody gets another caller's, and an id that two answers have means neither."""
    upstream.script(fake.chat_whole("One."))
    keys = {name: {"key": CLIENT_KEY + name} for name in ("alice", "bob")}
    server = await relay({**one(upstream), "keys": keys})

    async def asked(caller: str, **more: JSON) -> Reply:
        headers = {"x-api-key": CLIENT_KEY + caller}
        return await ask(http, server, "responses", headers=headers, input="Hi.", **more)

    before = {"previous_response_id": (await asked("alice")).json["id"]}
    for caller, more in (("bob", before), ("alice", {"previous_response_id": "resp_x"})):
        reply = await asked(caller, **more)
        assert reply.status == 400
        found = reply.json["error"]["message"]
        assert found.startswith("previous_response_id: ")
        assert "not found" in found
    assert (await asked("alice", **before)).status == 200  # and this answer has the same id
    for _ in range(2):
        assert (await asked("alice", **before)).status == 400


async def test_a_known_answer_is_spelled_out_for_a_provider_of_the_same_dialect(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(fake.chat_whole("One."), path="/v1/chat/completions")
    upstream.script(fake.responses_whole("Two."), path="/v1/responses")
    providers = {"first": provider(upstream), "second": provider(upstream, "responses")}
    server = await relay(config() | {"providers": providers, "routing_rules": {"m": "first"}})
    first = await ask(http, server, "responses", input=[ASKED])
    body = {"model": "m", "input": [REFERRED], "previous_response_id": first.json["id"]}
    reply = await ask(http, server, "responses", **body | {"model": "second/m"})
    assert reply.headers["x-relay-body"] == "edited"
    sent = upstream.requests[-1].json
    assert "previous_response_id" not in sent
    assert sent["input"] == [ASKED, *first.json["output"], REFERRED]

    native = {"input": [REFERRED], "model": "second/m", "previous_response_id": "resp_of_openai"}
    await ask(http, server, "responses", **native)
    assert upstream.requests[-1].json == native | {"model": "m"}
