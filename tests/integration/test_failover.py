"""What makes relay go on to the next target, what does not, and what it says when all failed."""

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    COMMENT,
    DONE,
    TEXT,
    Answer,
    FakeUpstream,
    anthropic_error,
    anthropic_start,
    anthropic_stream,
    chat_chunk,
    chat_error,
    chat_error_event,
    chat_stream,
    chat_whole,
    data,
    stream,
    whole,
)
from relay_process import SOON, Start, free_port
from talk import (
    DIALECTS,
    JSON,
    PAIRS,
    UPSTREAM_KEY,
    Reply,
    ask,
    config,
    each,
    eventually,
    one,
    provider,
    slug,
    table,
)

Upstreams = Callable[[int], Awaitable[list[FakeUpstream]]]

HTML = Answer(body=b"<html><body>Bad gateway</body></html>", content_type="text/html")
NEVER = Answer(delay=3600)
SHORT = {"first_event": 0.7, "total": 0.7}  # of one attempt: streams, whole answers
SILENT = ("too late", "silent")  # the faults that only a timeout ends
ROLE = chat_chunk({"role": "assistant", "content": ""})

# Before anything meaningful was said, these move a request on.  Asked whole or streamed.
FAULTS: dict[str, Answer] = {
    "500": chat_error(500, "no"),
    "502 as html": HTML.but(status=502),
    "503": chat_error(503, "busy"),
    "504": chat_error(504, "late"),
    "529": anthropic_error(529, "overloaded"),
    "408": chat_error(408, "timeout"),
    "429": chat_error(429, "slow down"),
    "401": chat_error(401, "bad key"),
    "402": chat_error(402, "pay first"),
    "403": chat_error(403, "not you"),
    "reset": Answer(reset=True),
    "not http": Answer(raw=b"hello\r\n\r\n"),
    "closed": Answer(raw=b""),
    "too late": NEVER,
    "html": HTML,
    "not json": Answer(body=b"certainly!"),
    "half json": chat_whole(text=TEXT).but(body=chat_whole(text=TEXT).wire[:40]),
    "empty": Answer(body=b""),
    "empty object": whole({}),
    "error in a 200": whole({"error": {"message": "quota", "code": 429}}),
    "error list in a 200": whole([{"error": {"message": "quota", "code": 429}}]),
    "cut": chat_whole(text=TEXT).but(cut_after=20),
    "base_resp": whole({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
}
STREAM_FAULTS: dict[str, Answer] = {
    "error first": stream([chat_error_event("overloaded")]),
    "error after the role": stream([ROLE, chat_error_event("overloaded"), DONE]),
    "anthropic error first": stream([anthropic_start(), b'event: error\ndata: {"type":"error",'
                                     b'"error":{"type":"overloaded_error","message":"x"}}\n\n']),
    "nothing": stream([]),
    "comments": stream([COMMENT] * 3),
    "done": stream([DONE]),
    "role, then nothing": stream([ROLE]),
    "usage only": stream([ROLE, data({"choices": [], "usage": {"prompt_tokens": 1}}), DONE]),
    "start, then nothing": anthropic_stream(finish="", done=False),
    "cut before content": stream([ROLE, chat_chunk({"content": "x"})], cut_after=len(ROLE)),
    "failing finish": chat_stream(finish="network_error"),
    "content filter of nothing": chat_stream(finish="error"),
    "silent": stream([ROLE], never_ends=True),
    "garbage": stream([b"data: {not json\n\n"]),
}  # fmt: skip


def hurried(config: JSON) -> JSON:
    """Not for all: how fast the others fail is not what is tested."""
    for name in map(slug, SILENT):
        if name in config["providers"]:
            config["providers"][name]["timeouts"] = SHORT
    return config


@pytest.mark.every_way
@pytest.mark.parametrize(
    ("streamed", "faults"),
    [(False, FAULTS), (True, FAULTS | STREAM_FAULTS)],
    ids=["whole", "streamed"],
)
async def test_a_fault_before_anything_was_said_moves_the_request_on(
    streamed: bool,
    faults: dict[str, Answer],
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    config = hurried(table(upstream, faults))
    config["providers"]["good"] = provider(upstream)
    config["routing_rules"] = {name: [name, "good"] for name in config["routing_rules"]}
    server = await relay(config)

    async def moves_on(name: str, _fault: Answer) -> None:
        reply = await ask(http, server, model=slug(name), stream=streamed)
        assert reply.said.text == TEXT
        assert reply.headers["x-relay-provider"] == "good"
        assert reply.headers["x-relay-attempts"] == "2"

    await each(faults, moves_on)
    # A kept connection that ends without a byte may have been stale: the request is said again.
    silent = sum(fault.reset or fault.raw is not None for fault in faults.values())
    assert 0 <= len(upstream.requests) - 2 * len(faults) <= silent
    await server.logged(len(faults))
    for line in server.lines():
        assert (line.code, line.provider, len(line.attempts)) == ("OK", "good", 2)
        assert str(line.model) in str(line.attempts[0])
        assert line.attempts[0]["outcome"] != line.attempts[1]["outcome"]


@pytest.mark.parametrize(("client", "bad_dialect"), PAIRS)
async def test_a_200_whose_first_event_is_an_error_fails_over(
    client: str, bad_dialect: str, upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    bad, good = await upstreams(2)
    bad.script(stream([DIALECTS[bad_dialect].error_event("overloaded")]))
    server = await relay(config(bad, good, dialect=bad_dialect))
    reply = await ask(http, server, client, stream=True)
    assert reply.said.text == TEXT
    assert b"overloaded" not in reply.body


@pytest.mark.every_way
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/v1",
        "http://no-such-host.invalid/v1",
        "https://127.0.0.1:{tls}/v1",
    ],
    ids=["refused", "dns", "tls"],
)
async def test_an_unreachable_provider_is_passed_over(
    address: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(address.format(tls=upstream.port), upstream))
    for streamed in (False, True):
        assert (await ask(http, server, stream=streamed)).said.text == TEXT


async def test_failover_crosses_dialects(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    bad, good = await upstreams(2)
    bad.script(anthropic_error(529, "overloaded"))
    providers = {"first": provider(bad, "anthropic"), "second": provider(good, "openai")}
    server = await relay({"providers": providers, "routing_rules": {"m": ["first", "second/n"]}})
    reply = await ask(http, server, "anthropic", stream=True)
    assert reply.said.text == TEXT
    assert reply.headers["x-relay-body"] == "translated"
    assert bad.requests[0].json["model"] == "m"
    assert good.requests[0].json["model"] == "n"


async def test_targets_are_tried_in_their_order(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second, third = await upstreams(3)
    first.script(chat_error(500, "no"))
    second.script(Answer(reset=True))
    server = await relay(config(first, second, third))
    reply = await ask(http, server)
    assert reply.headers["x-relay-provider"] == "third"
    line = await server.logged()
    tried = [str(attempt) for attempt in line.attempts]
    assert all(name in text for name, text in zip(("first", "second", "third"), tried, strict=True))


# ---- What does not move on -----------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("client", DIALECTS)
async def test_what_is_wrong_with_the_request_is_said_at_once_and_verbatim(
    client: str, status: int, upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    refusal = DIALECTS[client].error(status, "temperature: must be below 2")
    first.script(refusal)
    server = await relay(config(first, second, dialect=client))
    for streamed in (False, True):
        reply = await ask(http, server, client, stream=streamed)
        assert (reply.status, reply.body) == (status, refusal.wire)
    assert second.requests == []


async def test_a_refusals_headers_stand_once_in_whichever_case_they_came(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = chat_error(400, "no").wire
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json; charset=utf-8\r\n"
    upstream.script(Answer(raw=head + b"content-length: %d\r\n\r\n%b" % (len(body), body)))
    server = await relay(config(upstream))
    reply = await ask(http, server)
    assert (reply.status, reply.body) == (400, body)
    assert reply.headers.getall("Content-Type") == ["application/json; charset=utf-8"]


async def test_who_ran_out_of_time_is_told_who_was_asked(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(500, "boom"), Answer(delay=SOON))
    targets = config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1")
    server = await relay(targets | {"timeouts": {"total": 1}})
    reply = await ask(http, server)
    assert reply.status == 504
    assert "timeouts.total, 1 s; tried first/m: transient; second/m:" in reply.error["message"]


@pytest.mark.parametrize(("client", "provider_dialect"), PAIRS)
async def test_a_refusal_keeps_its_text_through_every_pair(
    client: str, provider_dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(DIALECTS[provider_dialect].error(400, "temperature: must be below 2"))
    server = await relay(config(upstream, dialect=provider_dialect))
    reply = await ask(http, server, client)
    assert reply.status == 400
    assert "temperature: must be below 2" in reply.error["message"]


async def test_an_overlong_prompt_is_said_in_the_words_claude_code_knows(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    text = "This model's maximum context length is 131072 tokens. However, you requested 140000."
    upstream.script(chat_error(400, text, code="context_length_exceeded"))
    server = await relay(config(upstream))
    reply = await ask(http, server, "anthropic")
    assert reply.status == 400
    assert "prompt is too long" in reply.error["message"]


async def test_a_prompt_too_long_everywhere_stays_a_400_so_that_clients_compact(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(anthropic_error(400, "prompt is too long: 200001 tokens > 200000 maximum"))
    second.script(anthropic_error(400, "prompt is too long: 200001 tokens > 100000 maximum"))
    server = await relay(config(first, second, dialect="anthropic"))
    for streamed in (False, True):
        reply = await ask(http, server, "anthropic", stream=streamed)
        assert reply.status == 400
        assert "prompt is too long: 200001 tokens > " in reply.error["message"]


async def test_after_content_there_is_no_second_try(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(stream([chat_chunk({"content": "x"}), chat_error_event("broken")]))
    server = await relay(config(first, second))
    await ask(http, server, stream=True)
    assert second.requests == []


# ---- The final word ------------------------------------------------------------------------

SINGLE: dict[str, tuple[Answer, int, int]] = {  # what it says -> for anthropic, for others
    "500": (chat_error(500, "no"), 502, 502),
    "reset": (Answer(reset=True), 502, 502),
    "html": (HTML, 502, 502),
    "empty": (Answer(), 502, 502),
    "401": (chat_error(401, "bad key"), 502, 502),
    "402": (chat_error(402, "pay first"), 502, 502),
    "429": (chat_error(429, "slow down"), 429, 429),
    "529": (anthropic_error(529, "overloaded"), 529, 503),
    "503": (chat_error(503, "overloaded"), 529, 503),
    "too late": (NEVER, 504, 504),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("client", DIALECTS)
async def test_one_failed_target_keeps_its_class_in_the_client_s_dialect(
    client: str, streamed: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answers = {name: answer for name, (answer, *_) in SINGLE.items()}
    server = await relay(hurried(table(upstream, answers)))

    async def keeps_its_class(name: str, expected: tuple[Answer, int, int]) -> None:
        reply = await ask(http, server, client, model=slug(name), stream=streamed)
        assert reply.status == expected[1 if client == "anthropic" else 2]
        assert slug(name) in reply.error["message"]

    await each(SINGLE, keeps_its_class)


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("status", [401, 402])
async def test_a_provider_s_refusal_of_the_key_is_explained_and_not_retried(
    status: int, client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(DIALECTS[client].error(status, f"Incorrect API key: {UPSTREAM_KEY}."))
    server = await relay(config(upstream, dialect=client))
    reply = await ask(http, server, client)
    assert reply.status == 502
    assert reply.headers["x-should-retry"] == "false"
    assert "Incorrect API key" in reply.error["message"]
    assert UPSTREAM_KEY not in str(reply)


async def test_when_all_failed_the_message_says_what_each_said(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second, third = await upstreams(3)
    first.script(chat_error(500, "the disk is full"))
    second.script(chat_error(429, "too many tokens"))
    third.script(Answer(reset=True))
    server = await relay(config(first, second, third))
    reply = await ask(http, server, "anthropic")
    assert reply.status == 503
    message = reply.error["message"]
    for part in ("first", "the disk is full", "second", "too many tokens", "third"):
        assert part in message
    assert (await server.logged()).code != "OK"


async def test_when_all_are_at_their_limits_the_soonest_is_named(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(429, "slow down", headers={"retry-after": "90"}))
    second.script(chat_error(429, "slow down", headers={"retry-after": "17"}))
    server = await relay(config(first, second))
    reply = await ask(http, server)
    assert reply.status == 429
    assert 8 <= int(reply.headers["retry-after"]) <= 17
    assert "x-should-retry" not in reply.headers


WAITS: dict[str, tuple[dict[str, str], range]] = {  # the provider's headers -> retry-after
    "none": ({}, range(1, 120)),
    "seconds": ({"retry-after": "17"}, range(8, 18)),
    "a fraction": ({"retry-after": "1.2"}, range(1, 3)),
    "milliseconds": ({"retry-after-ms": "17500"}, range(8, 19)),
    "nonsense": ({"retry-after": "soon"}, range(1, 120)),
    "negative": ({"retry-after": "-5"}, range(1, 120)),
}


@pytest.mark.parametrize("client", DIALECTS)
async def test_every_429_has_a_retry_after_in_whole_seconds(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    slow = {name: chat_error(429, "slow", headers=sent) for name, (sent, _) in WAITS.items()}
    server = await relay(table(upstream, slow))

    async def waits(name: str, expected: tuple[dict[str, str], range]) -> None:
        reply = await ask(http, server, client, model=slug(name))
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) in expected[1]

    await each(WAITS, waits)


async def test_a_wait_of_more_than_five_minutes_is_not_worth_a_retry(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(429, "slow down", headers={"retry-after": "900"}))
    server = await relay(config(upstream))
    reply = await ask(http, server)
    assert reply.headers["x-should-retry"] == "false"


async def test_an_insufficient_quota_is_an_empty_balance(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(429, "You exceeded your quota", code="insufficient_quota"))
    reply = await ask(http, await relay(config(upstream)))
    assert reply.status == 502
    assert reply.headers["x-should-retry"] == "false"


# ---- Cooling down --------------------------------------------------------------------------


async def served_by(reply: Reply) -> str:
    return f"{reply.headers['x-relay-provider']} {reply.headers['x-relay-attempts']}"


async def test_a_target_at_its_limit_is_skipped_until_then(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(429, "slow down", headers={"retry-after": "60"}))
    server = await relay(config(first, second))
    replies = [await ask(http, server) for _ in range(3)]
    assert [await served_by(reply) for reply in replies] == ["second 2", "second 1", "second 1"]
    assert len(first.requests) == 1


async def test_a_target_is_asked_again_after_its_wait(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(429, "slow", headers={"retry-after": "1"}), chat_whole(text="back"))
    server = await relay(config(first, second))
    assert (await ask(http, server)).headers["x-relay-provider"] == "second"

    async def is_back() -> bool:
        return (await ask(http, server)).headers["x-relay-provider"] == "first"

    await eventually(is_back)
    assert await is_back()


async def test_a_limit_the_provider_named_is_answered_without_asking_it_again(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(429, "slow down", headers={"retry-after": "60"}))
    server = await relay(config(upstream))
    for _ in range(2):
        reply = await ask(http, server, "anthropic")
        assert reply.status == 429
        assert 50 <= int(reply.headers["retry-after"]) <= 60
    assert len(upstream.requests) == 1
    await server.logged(2)
    assert server.lines()[1].code in ("CO", "RL")


async def test_a_lone_target_with_only_a_guessed_mark_is_tried_anyway(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(500, "hiccup"), chat_whole(text="better"))
    server = await relay(config(upstream))
    assert (await ask(http, server)).status == 502
    assert (await ask(http, server)).said.text == "better"


async def test_a_bad_request_marks_nothing(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(400, "no"), chat_whole(text="fine"))
    server = await relay(config(first, second))
    assert (await ask(http, server)).status == 400
    assert (await ask(http, server)).said.text == "fine"


# ---- Credentials ---------------------------------------------------------------------------


def by_key(answers: dict[str, Answer]) -> Callable[[JSON], Answer]:
    """What each key is answered."""
    return lambda seen: answers[seen.headers["authorization"].removeprefix("Bearer ")]


def keys_of(upstream: FakeUpstream) -> list[str]:
    return [seen.headers["authorization"].removeprefix("Bearer ") for seen in upstream.requests]


KEYS = ["sk-secret-one", "sk-secret-two"]


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_a_refused_credential_gives_way_to_the_next(
    status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    refusing: dict[str, Answer] = {}
    upstream.script(by_key(refusing))
    server = await relay(one(upstream, api_key=KEYS))
    refusing |= {KEYS[0]: chat_error(status, "no"), KEYS[1]: chat_whole(text="yes")}
    for number in range(6):
        reply = await ask(http, server, text=f"conversation {number}")
        assert reply.said.text == "yes"
    assert keys_of(upstream).count(KEYS[0]) <= 1


async def test_a_single_provider_whose_keys_are_all_refused_says_so(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(401, "bad key"))
    server = await relay(one(upstream, api_key=KEYS))
    reply = await ask(http, server)
    assert reply.status in (502, 503)
    assert reply.headers["x-should-retry"] == "false"
    assert sorted(keys_of(upstream)) == KEYS
    assert len((await server.logged()).attempts) == 2


async def test_credentials_share_the_work(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_key=KEYS))
    for number in range(20):
        await ask(http, server, text=f"conversation {number}")
    assert 3 <= keys_of(upstream).count(KEYS[0]) <= 17


async def test_a_conversation_stays_with_the_credential_that_served_it(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, "openai", api_key=KEYS, api_format=["openai", "anthropic"]))
    for session in ("one", "two", "three", "four"):
        upstream.requests.clear()
        for turn in range(4):
            headers = {"x-claude-code-session-id": session}
            await ask(http, server, "openai", headers=headers, text=f"{session} {turn}")
        assert len(set(keys_of(upstream))) == 1


async def test_a_conversation_moves_when_its_credential_fails(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, api_key=KEYS))
    session = {"x-claude-code-session-id": "one"}
    await ask(http, server, headers=session)
    (used,) = keys_of(upstream)
    (other,) = set(KEYS) - {used}
    upstream.script(by_key({used: chat_error(429, "slow"), other: chat_whole(text="yes")}))
    for _ in range(3):
        assert (await ask(http, server, headers=session)).said.text == "yes"
    assert keys_of(upstream) == [used, used, other, other, other]


async def test_an_overload_does_not_burn_every_key(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(503, "the model is overloaded"))
    both = config(first, second)
    both["providers"]["first"]["api_key"] = KEYS
    server = await relay(both)
    assert (await ask(http, server)).headers["x-relay-provider"] == "second"
    assert len(first.requests) == 1


async def test_a_free_port_is_refused(relay: Start, http: ClientSession) -> None:
    server = await relay(config(f"http://127.0.0.1:{free_port()}"))
    reply = await ask(http, server)
    assert reply.status == 502
    assert (await server.logged()).code == "UC"


@pytest.mark.every_way
async def test_a_whole_request_goes_on_from_a_provider_that_never_answers(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """`first_event` and `idle` together are how long the head of a whole answer may take."""
    config = table(upstream, {"mute": NEVER}, timeouts={"first_event": 0.4, "idle": 0.4})
    config["providers"]["good"] = provider(upstream)
    config["routing_rules"] = {"m": ["mute", "good"]}
    server = await relay(config)
    reply = await ask(http, server)
    assert reply.said.text == TEXT
    (first, _) = (await server.logged()).attempts
    assert first["outcome"] == "timeout"
    assert first["ms"] >= 800
