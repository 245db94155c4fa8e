"""A key's limits, as its clients meet them: the right refusal, in every dialect, in time."""

import asyncio
import re

import pytest
from aiohttp import ClientSession
from fake_upstream import CHAT_USAGE, HEAD, Answer, FakeUpstream, chat_error, chat_stream, stream
from relay_process import SECRET, RelayProcess, Start
from talk import DIALECTS, JSON, ask, config, dial, eventually, noon, one

ALICE = f"{SECRET}-of-alice"
BOB = f"{SECRET}-of-bob"
AS_ALICE = {"x-api-key": ALICE}
AS_BOB = {"x-api-key": BOB}
PRICES = {"m": {"input": 1000, "output": 2000, "cache_read": 100}}
# 21 fresh tokens at 1000, 1024 cached at 100, 57 written at 2000, a million each
COST = 0.2374
USED = CHAT_USAGE["prompt_tokens"] + CHAT_USAGE["completion_tokens"]


def limited(upstream: FakeUpstream, dialect: str = "openai", **limits: JSON) -> JSON:
    """Alice has limits, Bob has none."""
    keys = {"alice": {"key": ALICE, "limits": limits}, "bob": {"key": BOB}}
    return {**one(upstream, dialect, prices=PRICES), "keys": keys, "timezone": noon()}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_over_the_rate(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, dialect, rpm=2))
    for _ in range(2):
        assert (await ask(http, server, dialect, headers=AS_ALICE)).status == 200
    reply = await ask(http, server, dialect, headers=AS_ALICE)
    assert reply.status == 429
    assert "rate_limit" in reply.error["type"] or reply.error["code"] == "rate_limit_exceeded"
    assert "rpm 2" in reply.error["message"]
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert (await ask(http, server, dialect, headers=AS_BOB)).status == 200
    assert len(upstream.requests) == 3
    assert (await server.logged(3)).code == "RL"


async def test_a_limit_is_named_as_it_is_configured(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, tpm=12_345_678))
    reply = await ask(http, server, headers=AS_ALICE, max_tokens=12_345_678)
    assert reply.status == 429
    assert "tpm 12345678, and this request alone is more" in reply.error["message"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_spent_budget_is_a_402_that_nobody_retries(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, dialect, tokens_per_day=1000))
    assert (await ask(http, server, dialect, headers=AS_ALICE)).status == 200
    reply = await ask(http, server, dialect, headers=AS_ALICE)
    assert reply.status == 402
    word = "billing_error" if dialect == "anthropic" else "insufficient_quota"
    assert reply.error["type"] == word
    assert reply.headers["x-should-retry"] == "false"
    assert re.search(r"tokens_per_day 1000, and it is spent; .* midnight", reply.error["message"])
    assert (await ask(http, server, dialect, headers=AS_BOB)).status == 200
    assert (await server.logged(2)).code == "BG"


async def test_cost_is_counted_by_the_prices(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, cost_per_month=3 * COST))
    for _ in range(3):
        assert (await ask(http, server, headers=AS_ALICE, max_tokens=1)).status == 200
    assert (await ask(http, server, headers=AS_ALICE, max_tokens=1)).status == 402
    await server.logged(4)
    costs = [record["cost"] for record in server.log() if record.get("code") == "OK"]
    assert costs == [pytest.approx(COST)] * 3


async def test_what_is_reserved_is_a_429_and_comes_back(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Alice's rest is reserved by a request under way; when that is over there is room again."""
    go = asyncio.Event()
    upstream.script(chat_stream("Hi.").but(hold={HEAD: go}), chat_stream("Hi."))
    server = await relay(limited(upstream, tokens_per_day=5000))
    async with dial(server) as wire:
        await wire.post("openai", AS_ALICE, max_tokens=5000)
        await upstream.arrived()
        reply = await ask(http, server, headers=AS_ALICE)
        assert (reply.status, "retry-after" in reply.headers) == (429, True)
        assert "reserved" in reply.error["message"]
        go.set()
        assert (await wire.reply()).status == 200
    await server.logged(2)
    assert (await ask(http, server, headers=AS_ALICE, stream=True)).status == 200


async def test_so_many_at_once(upstream: FakeUpstream, relay: Start, http: ClientSession) -> None:
    go = asyncio.Event()
    upstream.script(chat_stream("Hi.").but(hold={1: go}))
    server = await relay(limited(upstream, concurrent=2))
    async with dial(server) as first, dial(server) as second:
        for number, wire in enumerate((first, second), 1):
            await wire.post("openai", AS_ALICE)
            await upstream.arrived(number)
        reply = await ask(http, server, headers=AS_ALICE)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        go.set()
        assert [(await wire.reply()).status for wire in (first, second)] == [200, 200]
    await server.logged(3)
    assert (await ask(http, server, headers=AS_ALICE, stream=True)).status == 200


GIVES_BACK = {
    "a failure": chat_error(500, "down"),
    "a refusal": chat_error(400, "no"),
    "a break": chat_stream("One two three.").but(cut_after=300),
    "a reset": Answer(reset=True),
    "nothing": stream([]),
    "no JSON": Answer(body=b"<html>"),
}


@pytest.mark.parametrize("answer", GIVES_BACK.values(), ids=GIVES_BACK)
async def test_every_end_gives_the_permit_back(
    answer: Answer, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(limited(upstream, concurrent=1))
    for number in range(1, 4):
        upstream.script(answer)
        async with dial(server) as wire:
            await wire.post("openai", AS_ALICE)
            reply = await wire.reply()
        assert "concurrent" not in reply.body.decode()
        await server.logged(number)


async def test_who_hangs_up_gives_the_permit_back_and_pays(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """The provider had read it all; nobody knows how much it wrote, so relay says it guessed."""
    talks = stream(chat_stream("word " * 50, usage=None).chunks[:5], never_ends=True)
    upstream.script(talks, chat_stream("Hi."))
    server = await relay(limited(upstream, concurrent=1))
    async with dial(server) as wire:
        await wire.post("openai", AS_ALICE, text="x" * 3000)
        await wire.head()
        await wire.until(b"word")
    await server.logged()
    (record,) = [record for record in server.log() if "code" in record]
    assert (record["code"], record["estimated"]) == ("CD", True)
    assert 0.9 < record["cost"] < 1.5  # 1000 tokens at 1000 a million, and some words
    assert (await ask(http, server, headers=AS_ALICE, stream=True)).status == 200


async def test_failover_takes_one_permit(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(500, "down"), chat_stream("Hi."))
    keys = {"alice": {"key": ALICE, "limits": {"concurrent": 1, "rpm": 2}}}
    server = await relay({**config(upstream, upstream), "keys": keys})
    for left in (1, 0):
        reply = await ask(http, server, headers=AS_ALICE, stream=True)
        assert (reply.status, reply.headers["x-ratelimit-remaining-requests"]) == (200, str(left))


async def test_what_is_left_is_in_the_headers(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(
        chat_stream("Hi.").but(headers={"x-ratelimit-limit-requests": "9", "x-request-id": "1"})
    )
    server = await relay(limited(upstream, rpm=5, tpm=10000))
    reply = await ask(http, server, headers=AS_ALICE, stream=True, max_tokens=100)
    said = {k: v for k, v in reply.headers.items() if k.lower().startswith("x-ratelimit")}
    assert said["x-ratelimit-limit-requests"] == "5"
    assert said["x-ratelimit-remaining-requests"] == "4"
    assert said["x-ratelimit-limit-tokens"] == "10000"
    assert 9800 < int(said["x-ratelimit-remaining-tokens"]) < 9900  # the reservation
    assert re.fullmatch(r"6[01]s", said["x-ratelimit-reset-tokens"])
    assert reply.headers["x-request-id"] == "1"
    theirs = (await ask(http, server, headers=AS_BOB, stream=True)).headers
    assert theirs["x-ratelimit-limit-requests"] == "9"  # the provider's own, where relay has none


async def test_the_true_usage_takes_the_reservations_place(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_stream("Hi."))
    server = await relay(limited(upstream, tpm=10000))
    await ask(http, server, headers=AS_ALICE, stream=True, max_tokens=9000)
    reply = await ask(http, server, headers=AS_ALICE, stream=True, max_tokens=1)
    assert 10000 - USED - 60 < int(reply.headers["x-ratelimit-remaining-tokens"]) <= 10000 - USED


async def test_larger_than_the_rate_itself_is_refused_for_good(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, tpm=1000))
    reply = await ask(http, server, headers=AS_ALICE, max_tokens=2000)
    assert (reply.status, reply.headers["x-should-retry"]) == (429, "false")
    assert "alone is more" in reply.error["message"]


async def test_counting_and_lists_are_free(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, "anthropic", rpm=1, concurrent=1, tpm=100_000))
    for _ in range(3):
        counted = await ask(http, server, "anthropic", headers=AS_ALICE, path=COUNT)
        assert counted.status == 200
        async with http.get(f"{server.url}/v1/models", headers=AS_ALICE) as response:
            assert response.status == 200
    assert (await ask(http, server, "anthropic", headers=AS_ALICE)).status == 200


COUNT = "/v1/messages/count_tokens"


async def test_a_plan_paid_in_advance_costs_nothing_and_is_counted(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    provider = {
        "preset": "bigmodel",
        "endpoints": {plan: f"{upstream.url}/{plan}/v1" for plan in ("coding", "regular")},
        "billing_plans": ["coding", "regular"],
        "api_format": "openai",
        "api_key": f"{SECRET}-of-the-plan",
        "models": ["m", "n"],
        "prices": {"*": {"input": 1000}, "coding/n": {"input": 1000}},
    }
    keys = {"alice": {"key": ALICE, "limits": {"cost_per_day": 1.5, "tokens_per_day": 10_000}}}
    server = await relay({"providers": {"glm": provider}, "keys": keys})
    for model in ("m", "n"):
        assert (await ask(http, server, headers=AS_ALICE, model=model)).status == 200
    await server.logged(2)
    costs = [record["cost"] for record in server.log() if record.get("code") == "OK"]
    assert costs == [0.0, pytest.approx(1.045)]


async def test_limits_outlive_a_reload(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, tokens_per_day=1000, rpm=3))
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    server.write(limited(upstream, tokens_per_day=3000, rpm=3))
    await server.hup()
    assert (await ask(http, server, headers=AS_ALICE, max_tokens=1)).status == 200
    server.write(limited(upstream, tokens_per_day=2000, rpm=3))
    await server.hup()
    assert (await ask(http, server, headers=AS_ALICE)).status == 402


async def test_another_state_needs_a_restart(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(limited(upstream, rpm=1))
    server.write({**limited(upstream, rpm=1), "state": "memory"})
    assert "state needs a restart to change" in await server.hup()


async def spent_by(http: ClientSession, server: RelayProcess) -> int:
    async with http.get(f"{server.url}/admin/usage") as response:
        assert response.status == 200
        days = (await response.json())["days"]
    return sum(day["tokens_in"] + day["tokens_out"] for day in days)


async def test_a_budget_outlives_a_restart(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(limited(upstream, tokens_per_day=1000))
    assert (await ask(http, server, headers=AS_ALICE)).status == 200
    assert await server.stop() == 0
    state = server.file.parent / "relay.db"
    again = await relay({**limited(upstream, tokens_per_day=1000), "state": f"sqlite:{state}"})
    assert (await ask(http, again, headers=AS_ALICE)).status == 402
    assert await spent_by(http, again) == USED


async def test_two_relays_on_one_file_hold_one_budget(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: object
) -> None:
    settings = {**limited(upstream, tokens_per_day=4 * USED), "state": f"sqlite:{tmp_path}/s.db"}
    servers = [await relay(settings), await relay(settings)]
    for number in range(4):
        reply = await ask(http, servers[number % 2], headers=AS_ALICE, max_tokens=1)
        assert reply.status == 200

    async def all_refuse() -> bool:
        replies = [await ask(http, s, headers=AS_ALICE, max_tokens=1) for s in servers]
        return [reply.status for reply in replies] == [402, 402]

    await eventually(all_refuse)
