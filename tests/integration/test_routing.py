"""Which target a name leads to, seen from outside."""

import pytest
from aiohttp import ClientSession
from fake_upstream import FakeUpstream
from relay_process import Start
from talk import JSON, ask, one, provider


async def asked(http: ClientSession, config: JSON, relay: Start, *names: str) -> list[str]:
    """The providers and models that the names lead to, as `provider/model`."""
    server = await relay(config)
    replies = [await ask(http, server, model=name) for name in names]
    return [
        f"{reply.headers['x-relay-provider']}/{reply.headers['x-relay-model']}"
        if reply.status == 200
        else str(reply.status)
        for reply in replies
    ]


@pytest.mark.parametrize("models", [None, {}], ids=["absent", "empty"])
async def test_a_provider_without_models_takes_every_name_unmapped(
    models: JSON, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    options = {} if models is None else {"models": models}
    names = ["anything", "Org/Model:7b", "UPPER"]
    got = await asked(http, one(upstream, **options), relay, *names)
    assert got == [f"first/{name}" for name in names]
    assert [seen.json["model"] for seen in upstream.requests] == names


async def test_names_are_mapped_exactly_by_glob_and_without_regard_to_case(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    models = {"claude-sonnet-4-5": "qwen-235b", "claude-*": "qwen-32b", "vl": {"name": "Qwen/VL"}}
    names = ["claude-sonnet-4-5", "Claude-Sonnet-4-5", "claude-haiku", "CLAUDE-opus", "vl"]
    got = await asked(http, one(upstream, models=models), relay, *names)
    expected = ["qwen-235b", "qwen-235b", "qwen-32b", "qwen-32b", "Qwen/VL"]
    assert got == [f"first/{name}" for name in expected]


async def test_only_star_and_question_mark_are_wildcards(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = one(upstream, models={"gpt-?": "one", "m[ab]": "two", "a.c": "three"})
    names = ["gpt-5", "gpt-55", "ma", "m[ab]", "abc", "a.c"]
    got = await asked(http, config, relay, *names)
    assert got == ["first/one", "404", "404", "first/two", "404", "first/three"]


async def test_a_provider_is_addressed_directly_with_a_slash_or_a_comma(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers = {
        "first": provider(upstream, models={"m": "one"}),
        "second": provider(upstream, models={"m": "two"}),
    }
    names = ["second/m", "second,m", "SECOND/M", "first/m"]
    got = await asked(http, {"providers": providers}, relay, *names)
    assert got == ["second/two", "second/two", "second/two", "first/one"]


async def test_a_long_context_suffix_is_removed_and_never_sent(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    got = await asked(http, one(upstream, models={"m": "n"}), relay, "m[1m]", "first/m[1m]")
    assert got == ["first/n", "first/n"]
    assert [seen.json["model"] for seen in upstream.requests] == ["n", "n"]


async def test_a_name_listed_with_its_suffix_wins(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = one(upstream, models={"m": "short", "m[1m]": "long"})
    assert await asked(http, config, relay, "m[1m]", "m") == ["first/long", "first/short"]


async def test_a_prefix_adds_names_and_removes_none(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = one(upstream, models={"m": "n"}, prefix="qwen")
    assert await asked(http, config, relay, "qwen/m", "m") == ["first/n", "first/n"]
    server = await relay(config)
    async with http.get(f"{server.url}/v1/models") as response:
        assert "qwen/m" in {model["id"] for model in (await response.json())["data"]}


async def test_a_rule_goes_before_models_and_an_exact_rule_before_a_glob(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = {
        "providers": {
            "first": provider(upstream, models=["glm-4.6", "glm-4.5"]),
            "second": provider(upstream, models={"big": "huge"}),
        },
        "routing_rules": {"glm-*": "second/big", "glm-4.6": "first", "other": "second/unlisted"},
    }
    names = ["glm-4.6", "glm-4.5", "other"]
    got = await asked(http, config, relay, *names)
    assert got == ["first/glm-4.6", "second/huge", "second/unlisted"]


async def test_globs_are_tried_in_the_order_of_the_file(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = one(upstream) | {
        "routing_rules": {"claude-haiku-*": "first/small", "claude-*": "first/large"}
    }
    got = await asked(http, config, relay, "claude-haiku-4", "claude-opus")
    assert got == ["first/small", "first/large"]


async def test_match_quality_goes_before_priority(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers = {
        "first": provider(upstream, models={"m-*": "glob"}, priority=100),
        "second": provider(upstream, models=["m-1"]),
        "third": provider(upstream, models=["m-2"], priority=1),
        "fourth": provider(upstream, models=["m-2"], priority=2),
    }
    got = await asked(http, {"providers": providers}, relay, "m-1", "m-2", "m-3")
    assert got == ["second/m-1", "fourth/m-2", "first/glob"]


async def test_equals_share_the_work_by_weight(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers = {
        "first": provider(upstream, models=["m"], weight=3),
        "second": provider(upstream, models=["m"]),
    }
    server = await relay({"providers": providers})
    served = [
        (await ask(http, server, text=f"conversation {number}")).headers["x-relay-provider"]
        for number in range(60)
    ]
    assert 30 <= served.count("first") <= 57
    assert served.count("second") >= 3


async def test_an_inactive_provider_is_never_asked(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers = {
        "first": provider(upstream, models=["m"], active=False, priority=9),
        "second": provider(upstream, models=["m"]),
    }
    assert await asked(http, {"providers": providers}, relay, "m") == ["second/m"]


async def test_names_that_nothing_matches_go_to_the_default(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    config = one(upstream, models=["m"]) | {"default": "first/m"}
    assert await asked(http, config, relay, "gpt-5.4-nano") == ["first/m"]


async def test_the_default_goes_before_providers_that_take_every_name(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers = {"first": provider(upstream), "second": provider(upstream, models=["m"])}
    config = {"providers": providers, "default": "second/m"}
    assert await asked(http, config, relay, "unheard-of") == ["second/m"]


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_an_unknown_model_is_a_404_with_the_closest_names(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["glm-4.6", "deepseek-chat"]))
    reply = await ask(http, server, client, model="glm-46")
    assert reply.status == 404
    assert "glm-4.6" in reply.error["message"]
    assert "deepseek" not in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert upstream.requests == []


async def test_a_preset_without_models_claims_its_own_names_only(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    providers = {
        "ds": {"preset": "deepseek", "endpoint": f"{upstream.url}/v1", "api_key": "sk-secret"}
    }
    got = await asked(http, {"providers": providers}, relay, "deepseek-chat", "glm-4.6")
    assert got == ["ds/deepseek-chat", "404"]


async def test_the_answer_s_model_is_what_the_provider_said(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models={"m": "n"}))
    assert (await ask(http, server)).json["model"] == "n"
