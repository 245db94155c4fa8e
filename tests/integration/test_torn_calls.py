"""A call that breaks off is never one that a client could run.

Clients run what looks finished: Codex a call at its `output_item.done`, Claude Code a block at its
`content_block_stop`, chat clients what is there when the stream ends well or when the arguments
are whole, Gemini's any call.  A provider of each dialect breaks off before a client of each
dialect: all that the client could run must be a beginning of what the provider had completed.

Every tenth byte instead of some: RELAY_TEST_EXAMPLES=1 pytest -k could_be_run, here.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

import aiohttp
import fake_upstream as fake
import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream, Seen, event, stream
from relay_process import RelayProcess, Start
from talk import JSON, UPSTREAM_KEY, Event, events_of

Call = tuple[str, str]  # its name, and the command or script it would run

EVERY = 10 if os.environ.get("RELAY_TEST_EXAMPLES") else 127  # bytes from one cut to the next
DIALECTS = ("anthropic", "gemini", "openai", "responses")
PAIRS = list(product(DIALECTS, DIALECTS))
SCRIPT = "rm -rf /tmp/a /tmp/build; echo 'do\\ne' \N{SNOWMAN}\n"
CALLS = [
    ("call_1", "run", json.dumps({"command": "rm -rf /tmp/a /tmp/build && echo done"})),
    ("call_2", "exec", json.dumps({"input": SCRIPT})),
]
PLAYS: Mapping[str, tuple[Callable[..., Answer], Callable[..., Answer]]] = {
    "anthropic": (fake.anthropic_stream, fake.anthropic_whole),
    "gemini": (fake.gemini_stream, fake.gemini_whole),
    "openai": (fake.chat_stream, fake.chat_whole),
    "responses": (fake.responses_stream, fake.responses_whole),
}
ERRORS: Mapping[str, bytes] = {
    "anthropic": fake.anthropic_error_event("overloaded"),
    "gemini": fake.gemini_error_event("overloaded"),
    "openai": fake.chat_error_event("overloaded"),
    "responses": fake.responses_error_event("overloaded"),
}


def custom_item(script: str, status: str) -> JSON:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "exec"}
    return item | {"input": script, "status": status}


def freeform() -> Answer:
    """The second call as Responses providers have it: a script, not JSON."""
    given = fake.responses_stream(text="I do.", calls=CALLS[:1]).chunks
    place = {"output_index": 2, "item_id": "ctc_1"}
    kind = "response.custom_tool_call_input"
    halves = SCRIPT[:20], SCRIPT[20:]
    told: list[JSON] = [
        {"type": "response.output_item.added", "item": custom_item("", "in_progress")} | place,
        *({"type": f"{kind}.delta", "delta": half} | place for half in halves),
        {"type": f"{kind}.done", "input": SCRIPT} | place,
        {"type": "response.output_item.done", "item": custom_item(SCRIPT, "completed")} | place,
    ]
    last = next(events_of(given[-1])).json
    last["response"]["output"].append(custom_item(SCRIPT, "completed"))
    numbered = enumerate([*told, last], len(given) - 1)
    return stream([*given[:-1], *(event(each | {"sequence_number": n}) for n, each in numbered)])


STREAMS = {
    name: freeform() if name == "responses" else streams(text="I do.", calls=CALLS)
    for name, (streams, _) in PLAYS.items()
}


# ---- What could be run ---------------------------------------------------------------------


def could_run(dialect: str, events: Sequence[JSON], ended: bool = False) -> list[Call]:
    """`ended`: what is there counts, if its arguments are whole."""
    return [(name, command(given)) for name, given in FINISHED[dialect](events, ended)]


def command(given: JSON) -> str:
    """What a call would run: of arguments that are no JSON, all of them."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return str(given)
    return str(
        given.get("command", given.get("input", given)) if isinstance(given, dict) else given
    )


def finished_blocks(events: Sequence[JSON], ended: bool) -> Iterator[tuple[str, JSON]]:
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for each in events:
        index = each.get("index")
        if each.get("type") == "content_block_start" and "name" in each["content_block"]:
            names[index], arguments[index] = each["content_block"]["name"], ""
        elif each.get("type") == "content_block_delta":
            arguments[index] = arguments.get(index, "") + each["delta"].get("partial_json", "")
        elif each.get("type") == "content_block_stop" and index in names:
            yield names.pop(index), arguments[index]
        elif each.get("type") == "message":
            yield from ((b["name"], b["input"]) for b in each["content"] if "input" in b)
    if ended:
        yield from ((name, arguments[n]) for n, name in names.items() if is_json(arguments[n]))


def finished_items(events: Sequence[JSON], ended: bool) -> Iterator[tuple[str, JSON]]:
    """By the event that says it first, of the three that may."""
    found: dict[str, tuple[str, JSON]] = {}
    names: dict[str, str] = {}
    arguments: dict[str, str] = {}
    for each in events:
        kind = each.get("type", "")
        if kind.endswith("arguments.delta"):
            arguments[each["item_id"]] = arguments.get(each["item_id"], "") + each["delta"]
        items = (each.get("response") or each).get("output") or []
        items = [each["item"]] if kind == "response.output_item.done" else items
        if kind == "response.output_item.added":
            names[each["item"].get("id")] = each["item"].get("name")
        if kind.endswith(("arguments.done", "input.done")):
            given = each.get("arguments", each.get("input"))
            found.setdefault(each["item_id"], (names[each["item_id"]], given))
        for item in items:
            if item["type"] in ("function_call", "custom_tool_call"):
                given = item.get("arguments", item.get("input"))
                found.setdefault(item["id"], (item["name"], given))
    whole = {item: (names[item], given) for item, given in arguments.items() if is_json(given)}
    yield from ((whole if ended else {}) | found).values()


def finished_functions(events: Sequence[JSON], ended: bool) -> Iterator[tuple[str, JSON]]:
    """What is whole is run by some clients at once, and the rest once the answer ended well.

    By `length`, OpenAI itself ends an answer whose last call is not whole.
    """
    calls: dict[int, list[str]] = {}
    for choice in (choice for each in events for choice in each.get("choices") or []):
        ended = ended or choice.get("finish_reason") not in (None, "length")
        message = choice.get("delta") or choice.get("message") or {}
        for number, part in enumerate(message.get("tool_calls") or []):
            call = calls.setdefault(part.get("index", number), ["", ""])
            call[0] += part["function"].get("name") or ""
            call[1] += part["function"].get("arguments") or ""
    yield from ((name, given) for name, given in calls.values() if ended or is_json(given))


def finished_parts(events: Sequence[JSON], ended: bool) -> Iterator[tuple[str, JSON]]:
    candidates = (candidate for each in events for candidate in each.get("candidates") or [])
    parts = (part for each in candidates for part in each.get("content", {}).get("parts", []))
    yield from (
        (part["functionCall"]["name"], part["functionCall"].get("args"))
        for part in parts
        if "functionCall" in part
    )


FINISHED: Mapping[str, Callable[[Sequence[JSON], bool], Iterator[tuple[str, JSON]]]] = {
    "anthropic": finished_blocks,
    "gemini": finished_parts,
    "openai": finished_functions,
    "responses": finished_items,
}


def is_json(text: str) -> bool:
    return parsed(text) is not None


def parsed(text: str) -> JSON:
    try:
        return json.loads(text)
    except ValueError:
        return None


def said(events: Iterable[Event]) -> list[JSON]:
    return [value for value in (parsed(event.data) for event in events) if isinstance(value, dict)]


def completed(provider: str, wire: bytes, client: str) -> list[Call]:
    """What was whole in a stream up to its cut, an event without its empty line included.

    A chat client that was given all fragments cannot know whether the provider ended the call.
    """
    events = said(events_of(wire.decode(errors="replace").encode()))
    return could_run(provider, events, ended=client == "openai" != provider)


# ---- The clients ---------------------------------------------------------------------------

FUNCTION = {"type": "object", "properties": {"command": {"type": "string"}}}
SCRIPTED = {"type": "object", "properties": {"input": {"type": "string"}}}
SCHEMAS = {"run": FUNCTION, "exec": SCRIPTED}


def anthropic_body() -> JSON:
    tools = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
    return {"max_tokens": 100, "messages": [{"role": "user", "content": "Do."}], "tools": tools}


def gemini_body() -> JSON:
    declared = [{"name": name, "parameters": schema} for name, schema in SCHEMAS.items()]
    asked = [{"role": "user", "parts": [{"text": "Do."}]}]
    return {"contents": asked, "tools": [{"functionDeclarations": declared}]}


def chat_body() -> JSON:
    functions = [{"name": name, "parameters": schema} for name, schema in SCHEMAS.items()]
    tools = [{"type": "function", "function": function} for function in functions]
    return {"messages": [{"role": "user", "content": "Do."}], "tools": tools}


def responses_body() -> JSON:
    """As Codex asks: the second tool takes a script, not JSON."""
    tools = [
        {"type": "function", "name": "run", "parameters": FUNCTION, "strict": False},
        {"type": "custom", "name": "exec", "description": "Runs a script."},
    ]
    return {"input": [{"role": "user", "content": "Do."}], "tools": tools}


BODIES: Mapping[str, tuple[str, Callable[[], JSON]]] = {
    "anthropic": ("/v1/messages", anthropic_body),
    "gemini": ("/v1beta/models/{model}:{method}", gemini_body),
    "openai": ("/v1/chat/completions", chat_body),
    "responses": ("/v1/responses", responses_body),
}
METHODS = {True: "streamGenerateContent?alt=sse", False: "generateContent"}


async def runs(
    http: ClientSession, server: RelayProcess, client: str, model: str, streamed: bool = True
) -> tuple[int, list[Call]]:
    """The status, and the calls that a client could run of what it gets of an answer."""
    path, body = BODIES[client]
    path = path.format(model=model, method=METHODS[streamed])
    asked = body() | ({} if client == "gemini" else {"model": model, "stream": streamed})
    received, ended = b"", True
    async with http.post(server.url + path, json=asked) as response:
        try:
            async for block in response.content.iter_any():
                received += block
        except aiohttp.ClientPayloadError:
            ended = False
    if response.content_type == "application/json":
        return response.status, could_run(client, [json.loads(received)])
    events = said(events_of(received))
    no_room = b'"length"' in received
    ended = ended and not no_room and not any("error" in each for each in events)
    return response.status, could_run(client, events, ended)


# ---- The providers -------------------------------------------------------------------------


def resets(provider: str, cut: int) -> Answer:
    return STREAMS[provider].but(cut_after=cut)


def ends(provider: str, cut: int) -> Answer:
    return stream([STREAMS[provider].wire[:cut]])


def errs(provider: str, cut: int) -> Answer:
    return stream([STREAMS[provider].wire[:cut], b"\n\n" + ERRORS[provider]])


def falls_silent(provider: str, cut: int) -> Answer:
    return ends(provider, cut).but(never_ends=True)


def runs_out_of_room(provider: str, cut: int) -> Answer:
    """Of its length, not of bytes; to Gemini a call is whole or not there."""
    speaks, _ = PLAYS[provider]
    return speaks(text="I do.", calls=[("call_1", "run", TORN)], finish=NO_ROOM[provider])


TORN = '{"command": "rm -rf /tmp/a'
NO_ROOM = {"anthropic": "max_tokens", "openai": "length", "responses": "max_output_tokens"}
BREAKS = {"resets": resets, "ends": ends, "errs": errs, "falls-silent": falls_silent}


def plays(seen: Seen) -> Answer:
    """The model's name says how: `openai.resets.250`."""
    named = re.search(rb"(\w+)\.([\w-]+)\.(\d+)", seen.path.encode() + b" " + seen.body)
    assert named
    provider, how, cut = named[1].decode(), named[2].decode(), int(named[3])
    return (runs_out_of_room if how == "no-room" else BREAKS[how])(provider, cut)


@pytest.fixture
async def server(relay: Start, upstream: FakeUpstream) -> RelayProcess:
    upstream.script(plays)
    common = {
        "endpoint": upstream.url,
        "api_key": UPSTREAM_KEY,
        "timeouts": {"first_event": 1, "idle": 1},
    }
    providers = {name: {"api_format": name, "models": [f"{name}.*"], **common} for name in DIALECTS}
    return await relay({"providers": providers})


def cuts(provider: str, every: int = EVERY) -> range:
    """From within the text before the first call to the end."""
    return range(STREAMS[provider].wire.index(b"I"), len(STREAMS[provider].wire) + 1, every)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("how", BREAKS)
async def test_what_could_be_run_is_what_was_completed(
    how: str, streamed: bool, server: RelayProcess, http: ClientSession
) -> None:
    every = EVERY * (4 if how == "falls-silent" else 1)  # a second of waiting each
    at_once = asyncio.Semaphore(64 if how == "falls-silent" else 8)
    wrong: list[str] = []

    async def breaks(client: str, provider: str, cut: int) -> None:
        async with at_once:
            status, run = await runs(http, server, client, f"{provider}.{how}.{cut}", streamed)
        done = completed(provider, STREAMS[provider].wire[:cut], client)
        if run != done[: len(run)] or 200 < status < 500:
            wrong.append(f"{client} before {provider} at {cut}: {status}, {run}, not {done}")

    await asyncio.gather(*(breaks(*pair, cut) for pair in PAIRS for cut in cuts(pair[1], every)))
    assert not wrong, "\n".join(sorted(wrong))


async def test_what_does_not_break_is_run(server: RelayProcess, http: ClientSession) -> None:
    expected = [(name, command(arguments)) for _, name, arguments in CALLS]
    for client, provider in PAIRS:
        whole = len(STREAMS[provider].wire)
        status, run = await runs(http, server, client, f"{provider}.ends.{whole}")
        assert (status, run) == (200, expected), (client, provider)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("provider", NO_ROOM)
async def test_a_call_for_whose_end_there_was_no_room_is_not_run(
    provider: str, streamed: bool, server: RelayProcess, http: ClientSession
) -> None:
    """Where the bytes are the provider's own, they say what it says."""
    for client in (name for name in DIALECTS if name != provider):
        status, run = await runs(http, server, client, f"{provider}.no-room.0", streamed)
        assert (status, run) == (200, []), client
