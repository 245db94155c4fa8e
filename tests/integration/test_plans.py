"""Billing plans: the next opens only when the quota of the earlier is used up."""

from datetime import datetime, timedelta, timezone

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    Answer,
    FakeUpstream,
    chat_error,
    chat_whole,
    data,
    glm_error,
    stream,
)
from relay_process import RelayProcess, Start, run, text_of
from talk import JSON, ask, each, eventually, slug

CODING, REGULAR = "/api/coding/paas/v4/chat/completions", "/api/paas/v4/chat/completions"
ANTHROPIC = "/api/anthropic/v1/messages"
CHINA = timezone(timedelta(hours=8))
KEYS = ["sk-secret-one", "sk-secret-two"]


def used_up(code: str = "1308", wait: float = 3600, **rest: JSON) -> Answer:
    """GLM's words, with its time of reset."""
    reset = datetime.now(CHINA) + timedelta(seconds=wait)
    text = f"Usage limit reached for 5 hour. Your limit will reset at {reset:%Y-%m-%d %H:%M:%S}"
    return glm_error(code, text, **rest)


def glm(upstream: FakeUpstream, **extra: JSON) -> JSON:
    return {"providers": {"bigglm": account(upstream.url, **extra)}}


def account(url: str, **extra: JSON) -> JSON:
    endpoints = {
        "regular": f"{url}/api/paas/v4",
        "coding": {
            "openai": f"{url}/api/coding/paas/v4",
            "anthropic": f"{url}/api/anthropic",
        },
    }
    provider = {
        "preset": "bigmodel",
        "endpoints": endpoints,
        "billing_plans": ["coding", "regular"],
        "api_key": KEYS[0],
        "models": ["glm-4.6", "glm-4.5"],
    }
    return provider | extra


def plans(upstream: FakeUpstream) -> list[str]:
    """The paths asked since the last time."""
    paths = [seen.path for seen in upstream.requests]
    upstream.requests.clear()
    return paths


async def turn(http: ClientSession, server: RelayProcess, model: str = "glm-4.6") -> str:
    return (await ask(http, server, model=model)).said.text


# ---- Which endpoint ------------------------------------------------------------------------


async def test_the_first_plan_is_asked_natively(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(glm(upstream))
    for client in ("openai", "anthropic"):
        reply = await ask(http, server, client, model="glm-4.6")
        assert reply.said.text
        assert reply.headers["x-relay-body"] == "verbatim"
    assert plans(upstream) == [CODING, ANTHROPIC]


async def test_each_plan_is_asked_with_its_own_key(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(), path=CODING)
    server = await relay(glm(upstream, api_key={"coding": KEYS[0], "regular": KEYS[1]}))
    await turn(http, server)
    sent = [seen.headers["authorization"] for seen in upstream.requests]
    assert sent == [f"Bearer {key}" for key in KEYS]


# ---- What opens the next plan --------------------------------------------------------------


@pytest.mark.parametrize("code", ["1308", "1309", "1310"])
async def test_a_used_up_plan_opens_the_next_at_once_and_for_as_long_as_it_lasts(
    code: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(code), path=CODING)
    server = await relay(glm(upstream))
    assert await turn(http, server)
    assert plans(upstream) == [CODING, REGULAR]
    for _ in range(3):
        assert await turn(http, server)
    assert plans(upstream) == [REGULAR] * 3


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_it_is_seen_on_the_anthropic_endpoint_too(
    streamed: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(dialect="anthropic"), path=ANTHROPIC)
    server = await relay(glm(upstream))
    for _ in range(2):
        reply = await ask(http, server, "anthropic", model="glm-4.6", stream=streamed)
        assert reply.said.text
        assert reply.headers["x-relay-body"] == "translated"
    assert plans(upstream) == [ANTHROPIC, REGULAR, REGULAR]


async def test_it_is_seen_in_the_first_event_of_a_200(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(stream([data(used_up_body())]), path=CODING)
    server = await relay(glm(upstream))
    for _ in range(2):
        assert (await ask(http, server, model="glm-4.6", stream=True)).said.text
    assert plans(upstream) == [CODING, REGULAR, REGULAR]


def used_up_body() -> JSON:
    return {"error": {"code": "1308", "message": "Usage limit reached for 5 hour."}}


async def test_a_plan_used_up_in_one_dialect_is_used_up_in_the_other(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(), path=CODING)
    server = await relay(glm(upstream))
    await turn(http, server)
    assert (await ask(http, server, "anthropic", model="glm-4.6")).said.text
    assert plans(upstream) == [CODING, REGULAR, REGULAR]


async def test_the_first_plan_is_taken_again_after_its_reset(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(
        lambda _: used_up(wait=3), lambda _: chat_whole(text="coding again"), path=CODING
    )
    server = await relay(glm(upstream))
    assert await turn(http, server) != "coding again"

    async def is_back() -> bool:
        return await turn(http, server) == "coding again"

    await eventually(is_back)
    plans(upstream)
    assert await is_back()
    assert plans(upstream) == [CODING]


async def test_a_model_outside_the_plan_opens_the_next_for_that_model_only(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(
        lambda seen: (
            glm_error("1311", "The plan does not include the model")
            if seen.json["model"] == "glm-4.6"
            else chat_whole(text="in the plan")
        ),
        path=CODING,
    )
    server = await relay(glm(upstream))
    assert await turn(http, server, "glm-4.6")
    assert await turn(http, server, "glm-4.5") == "in the plan"
    assert await turn(http, server, "glm-4.6")
    assert plans(upstream) == [CODING, REGULAR, CODING, REGULAR]


async def test_every_credential_must_be_used_up_before_the_next_plan_opens(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    spent: set[str] = set()

    def coding(seen: JSON) -> Answer:
        key = seen.headers["authorization"].removeprefix("Bearer ")
        return used_up() if key in spent else chat_whole(text=f"plan of {key[-3:]}")

    upstream.script(coding, path=CODING)
    server = await relay(glm(upstream, api_key=KEYS))
    spent.add(KEYS[0])
    for number in range(20):  # enough that some begin with the first key
        reply = await ask(http, server, model="glm-4.6", text=f"conversation {number}")
        assert reply.said.text == "plan of two"
    assert REGULAR not in plans(upstream)
    spent.add(KEYS[1])
    await turn(http, server)
    assert plans(upstream) == [CODING, REGULAR]
    await turn(http, server)
    assert plans(upstream) == [REGULAR]


# ---- What does not -------------------------------------------------------------------------

CLOSED: dict[str, tuple[Answer, set[int]]] = {
    "1302": (glm_error("1302", "concurrency too high"), {429}),
    "1303": (glm_error("1303", "frequency too high"), {429}),
    "1305": (glm_error("1305", "traffic limit"), {429}),
    "1312": (glm_error("1312", "model overloaded"), {503, 529}),
    "1113": (glm_error("1113", "Insufficient balance or no resource package"), {502}),
    "1001": (glm_error("1001", "authentication failed"), {502, 503}),
    "429": (chat_error(429, "slow down"), {429}),
    "500": (chat_error(500, "no"), {502}),
    "503": (chat_error(503, "overloaded"), {503}),
    "reset": (Answer(reset=True), {502}),
    "too late": (Answer(delay=3600), {504}),
    "1210": (glm_error("1210", "bad parameter"), {400}),
}


async def test_other_failures_never_open_the_paid_plan(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    for name, (fault, _) in CLOSED.items():
        upstream.script(fault, path=f"/{slug(name)}{CODING}")
    accounts = {slug(name): account(f"{upstream.url}/{slug(name)}") for name in CLOSED}
    accounts["too-late"]["timeouts"] = {"total": 0.5}
    server = await relay({"providers": accounts})

    async def stays_closed(name: str, expected: tuple[Answer, set[int]]) -> None:
        for _ in range(3):
            reply = await ask(http, server, model=f"{slug(name)}/glm-4.6")
            assert reply.status in expected[1]

    await each(CLOSED, stays_closed)
    assert not [path for path in plans(upstream) if path.endswith(REGULAR)]


async def test_a_throttle_is_over_soon(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(glm_error("1302", "concurrency"), chat_whole(text="coding"), path=CODING)
    server = await relay(glm(upstream))
    assert (await ask(http, server, model="glm-4.6")).status == 429
    assert await turn(http, server) == "coding"
    assert plans(upstream) == [CODING, CODING]


async def test_without_billing_plans_the_subscription_is_all_there_is(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(), path=CODING)
    server = await relay(glm(upstream, billing_plans=["coding"]))
    for client in ("openai", "anthropic"):
        reply = await ask(http, server, client, model="glm-4.6", max_tokens=5)
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) > 3000
        assert reply.headers["x-should-retry"] == "false"
        assert "bigglm" in reply.error["message"]
    assert REGULAR not in plans(upstream)


# ---- What is seen of it --------------------------------------------------------------------


async def test_the_trail_names_plans_and_outcomes_and_no_key(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(), path=CODING)
    server = await relay(glm(upstream))
    reply = await ask(http, server, model="glm-4.6")
    assert reply.headers["x-relay-attempts"] == "2"
    first, second = (await server.logged()).attempts
    assert (first["plan"], second["plan"]) == ("coding", "regular")
    assert "exhausted" in str(first["outcome"])
    assert KEYS[0] not in server.stderr


async def test_when_both_plans_are_used_up_the_client_learns_when_to_come_back(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(wait=7200), path=CODING)
    upstream.script(used_up("1310", wait=3600), path=REGULAR)
    server = await relay(glm(upstream))
    reply = await ask(http, server, "openai", model="glm-4.6")
    assert reply.status == 429
    assert 3500 <= int(reply.headers["retry-after"]) <= 3600


async def test_a_reload_does_not_forget_that_a_plan_is_used_up(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(used_up(), path=CODING)
    server = await relay(glm(upstream))
    await turn(http, server)
    server.write(glm(upstream, models=["glm-4.6"]))
    await server.hup()
    plans(upstream)
    await turn(http, server)
    assert plans(upstream) == [REGULAR]


async def test_several_plans_without_an_order_are_a_config_error(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = glm(upstream)
    del config["providers"]["bigglm"]["billing_plans"]
    home = tmp_path_factory.mktemp("plans")
    (home / "config.yaml").write_text(text_of(config, "127.0.0.1:8484"))
    ran = await run("check", "-c", "config.yaml", cwd=home)
    assert ran.status == 2
    assert "billing_plans" in ran.output
