"""What tokens cost, whose price it is, and what a request may come to at a glance."""

import base64
import json
from typing import cast

import pytest
from unit.configs import plan_of

import relay
from relay import MONEY, PriceConfig, Usage

PRICE = PriceConfig(input=0.5, output=2.0, cache_read=0.05, cache_write=0.6)

COSTS: dict[str, tuple[Usage, PriceConfig, float]] = {
    "a token of each": (Usage(input=3, output=1, cache_read=1, cache_write=1), PRICE, 3.15e-6),
    "a million": (Usage(input=10**6), PRICE, 0.5),
    "cached ones are not paid twice": (Usage(input=10**6, cache_read=10**6), PRICE, 0.05),
    "cached ones without a price": (
        Usage(input=100, cache_read=40, cache_write=10),
        PriceConfig(input=2.0),
        200e-6,
    ),
    "more cached than read": (Usage(input=5, cache_read=10), PRICE, 0.5e-6),
    "nothing": (Usage(), PRICE, 0.0),
    "absurd": (Usage(output=10**40), PriceConfig(output=1e300), 1e6),
}


@pytest.mark.parametrize(("usage", "price", "paid"), COSTS.values(), ids=COSTS)
def test_cost(usage: Usage, price: PriceConfig, paid: float) -> None:
    assert relay.cost(usage, price) == round(paid * MONEY)


def test_counts_that_no_provider_can_mean_are_known() -> None:
    """Whatever stands for a count in JSON: it is bounded, and what it was bounded from shows."""
    for value in (10**8, 10**18, int("9" * 400), 1e308, float("inf")):
        count = relay.whole_number(value)
        assert count == relay.MOST_TOKENS
        assert relay.is_absurd(Usage(cache_read=count))
    for value in (-1, -(10**400), float("nan"), None, "12", [], {}):
        assert relay.whole_number(value) == 0
    assert relay.is_absurd(Usage(input=-5))
    assert not relay.is_absurd(Usage(10_000_000, 65_536, 9_000_000))


PRICES = {
    "m": PriceConfig(input=1),
    "m-*": PriceConfig(input=2),
    "*": PriceConfig(input=3),
    "coding/n": PriceConfig(input=4),
    "org/x": PriceConfig(input=5),
}
# plan, is it free, are the general prices of others, model -> the price of its input
WHOSE: dict[tuple[str, bool, bool, str], float | None] = {
    ("regular", False, False, "m"): 1,
    ("regular", False, False, "m-1"): 2,
    ("regular", False, False, "other"): 3,
    ("regular", False, False, "org/x"): 5,
    ("coding", True, True, "m"): 0,
    ("coding", True, True, "n"): 4,
    ("coding", True, False, "m"): 1,
    ("coding", False, False, "n"): 4,
    ("coding", False, False, "m"): 1,
}


@pytest.mark.parametrize(("asked", "price"), WHOSE.items(), ids=str)
def test_whose_price(asked: tuple[str, bool, bool, str], price: float) -> None:
    *plan, model = asked
    found = relay.PriceList(PRICES, *plan).of(model)
    assert found is not None
    assert found.input == price


def test_what_nobody_priced_has_no_price() -> None:
    assert relay.PriceList({"m": PRICE}, "regular", False, False).of("other") is None
    assert relay.PriceList({}, "regular", True, False).of("other") == relay.FREE


@pytest.mark.parametrize(
    ("fields", "costs"),
    [
        ("preset: bigmodel, api_key: k", {"coding": 1}),
        (
            "preset: bigmodel, api_key: k, billing_plans: [coding, regular]",
            {"coding": 0, "regular": 1},
        ),
        ("preset: ollama", {"regular": 1}),
        ("api_format: demo", {"regular": 1}),
    ],
)
def test_prices_count_wherever_they_stand(fields: str, costs: dict[str, float]) -> None:
    plan = plan_of(f"providers:\n  p: {{{fields}, prices: {{m: {{input: 1}}}}}}\n")
    prices = {each.name: each.prices.of("m") for each in plan.providers["p"].plans}
    assert {name: price and price.input for name, price in prices.items()} == costs


def test_which_plans_are_free() -> None:
    plan = plan_of(
        "providers:\n"
        "  glm: {preset: bigmodel, billing_plans: [coding, regular], api_key: k}\n"
        "  home: {preset: ollama}\n"
        "  demo: {api_format: demo}\n"
        "  api: {api_format: openai, endpoint: 'http://x/v1'}\n"
    )
    free = {f"{p.name} {b.name}": b.free for p in plan.providers.values() for b in p.plans}
    assert free == {
        "glm coding": True,
        "glm regular": False,
        "home regular": True,
        "demo regular": True,
        "api regular": False,
    }


def body(text: str) -> bytes:
    return json.dumps(
        {"messages": [{"role": "user", "content": text}]}, ensure_ascii=False
    ).encode()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("The quick brown fox. " * 2000, 9_000), ("敏捷的棕色狐狸。" * 2000, 14_500)],
    ids=["ascii", "wide"],
)
def test_a_glance_is_not_below_the_truth_nor_far_above(text: str, tokens: int) -> None:
    assert tokens <= relay.likely_input(body(text)) <= 2 * tokens


@pytest.mark.parametrize("form", ["%s", "data:image/png;base64,%s"])
def test_a_picture_is_no_prose(form: str) -> None:
    picture = base64.b64encode(bytes(range(256)) * 400).decode()
    likely = relay.likely_input(body(form % picture))
    assert 1500 <= likely <= 4000


ROOMS = {
    '{"max_tokens": 7}': 7,
    '{"max_completion_tokens": 8}': 8,
    '{"max_output_tokens": 9}': 9,
    '{"generationConfig": {"maxOutputTokens": 10}}': 10,
    '{"max_tokens": null}': 4096,
    '{"max_tokens": -1}': 4096,
    '{"generationConfig": []}': 4096,
    "{}": 4096,
}


@pytest.mark.parametrize(("said", "room"), ROOMS.items())
def test_how_long_an_answer_may_be(said: str, room: int) -> None:
    assert relay.likely_output(relay.Body(said.encode())) == room


UNPRICED = """
keys: {a: {key: k, limits: {%s}}}
providers:
  glm: {preset: bigmodel, api_key: k}
  api: {api_format: openai, endpoint: "http://x/v1"}
  told: {api_format: openai, endpoint: "http://y/v1", prices: {"*": {input: 1}}}
  half:
    api_format: openai
    endpoint: "http://z/v1"
    models: {m: real-m, n: real-n, "o-*": real-n, "p-*": null}
    prices: {real-m: {input: 1}}
"""


@pytest.mark.parametrize(
    ("limits", "names"),
    [("rpm: 1, tokens_per_day: 1", []), ("cost_per_month: 0", ["api", "half/real-n"])],
)
def test_budgets_that_cannot_see_are_named(limits: str, names: list[str]) -> None:
    assert relay.unpriced(plan_of(UNPRICED % limits)) == names


class Stored:
    """A store that holds these rows."""

    def __init__(self, rows: dict[tuple[str, str], tuple[int, float]]) -> None:
        self.rows = rows

    def usage(self, span: int, since: float) -> dict[relay.Row, relay.Totals]:
        return {
            relay.Row(span, 1_700_006_400, "", *who): relay.Totals(
                requests=1, tokens_in=tokens, cost=round(cost * MONEY)
            )
            for who, (tokens, cost) in self.rows.items()
        }


def test_what_has_no_price_has_no_known_cost() -> None:
    rows = {
        ("", ""): (0, 0.0),  # no provider was asked
        ("glm", "glm-4.6"): (5, 0.0),  # a plan that is paid in advance
        ("api", "m"): (5, 0.0),
        ("half", "real-m"): (0, 0.0),
        ("half", "real-n"): (5, 0.0),
        ("gone", "x"): (5, 0.25),
    }
    plan = plan_of(UNPRICED % "rpm: 1")
    store = cast(relay.Store, Stored(rows))
    report = relay.usage_report(store, plan, 1, 1_700_006_400.0, ("provider", "model"))
    costs = {(line["provider"], line["model"]): line["cost"] for line in report["days"]}
    assert costs == {
        ("", ""): 0.0,
        ("glm", "glm-4.6"): 0.0,
        ("api", "m"): None,
        ("half", "real-m"): 0.0,
        ("half", "real-n"): None,
        ("gone", "x"): 0.25,
    }
    (total,) = relay.usage_report(store, plan, 1, 1_700_006_400.0, ())["hours"]
    assert total["cost"] == 0.25
