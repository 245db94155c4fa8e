"""How much is left: read from makers' answers and headers, forecast, and what a new one adds."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
from typing import Any

import pytest
from unit.configs import plan_of, problems_of
from unit.quotas import ANSWERS, DAY, FIVE_HOURS, HEADERS, HOUR, NOW, REFUSALS, WEEK

import relay
from relay import JSON, QUOTA_SOURCES, Quota, QuotaWindow


@pytest.mark.parametrize("name", ANSWERS)
def test_a_makers_answer_says_what_is_left(name: str) -> None:
    source, answer, expected = ANSWERS[name]
    assert relay.quota_in_answer(QUOTA_SOURCES[source], answer) == expected


@pytest.mark.parametrize("name", REFUSALS)
def test_an_answer_that_says_nothing_says_why(name: str) -> None:
    source, answer, why = REFUSALS[name]
    with pytest.raises(ValueError, match=why):
        relay.quota_in_answer(QUOTA_SOURCES[source], answer)


@pytest.mark.parametrize("name", HEADERS)
def test_headers_say_what_is_left(name: str) -> None:
    headers, windows = HEADERS[name]
    expected = Quota(windows, at=NOW) if windows else None
    assert relay.quota_in_headers(headers, NOW) == expected


def test_every_source_has_an_answer_here_and_belongs_to_a_preset() -> None:
    assert {source for source, _, _ in ANSWERS.values()} == {*QUOTA_SOURCES}
    used = {id(s) for preset in relay.PRESETS.values() for s in preset.quotas.values()}
    assert used == {id(source) for source in QUOTA_SOURCES.values()}


def sources(provider: dict[str, Any]) -> dict[str, str]:
    """Plan -> the name of what says how full it is."""
    plan = plan_of(json.dumps({"providers": {"p": provider | {"api_key": "k-12345678"}}}))
    names = {id(source): name for name, source in QUOTA_SOURCES.items()}
    return {b.name: names.get(id(b.source), "") for b in plan.providers["p"].plans}


def test_a_plan_knows_what_says_how_much_of_it_is_left() -> None:
    both = ["coding", "regular"]
    assert sources({"preset": "zai"}) == {"coding": "glm"}
    assert sources({"preset": "bigmodel", "billing_plans": both}) == {
        "coding": "glm",
        "regular": "",
    }
    own = {"coding": "https://gate.example/c/v4", "regular": "https://gate.example/r/v4"}
    mine = {"preset": "zai", "endpoints": own, "billing_plans": both}
    assert sources(mine) == {"coding": "glm", "regular": ""}
    alias = {"preset": "glm-coding", "endpoint": "https://gate.example/v4"}
    assert sources(alias) == {"regular": "glm"}
    assert sources({"preset": "deepseek"}) == {"regular": "deepseek"}
    assert sources({"api_format": "openai", "endpoint": "https://x.example/v1"}) == {"regular": ""}


JUNK = [1e308, -1e308, 5e-324, "1e308", "nan", "inf", 10**400, "9" * 5000, None, True, [], {}, ""]
TIMES = [*JUNK, 253402387139, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00"]


@pytest.mark.parametrize("used", JUNK)
@pytest.mark.parametrize("resets", TIMES)
def test_no_number_of_a_maker_breaks_what_is_known(used: Any, resets: Any) -> None:
    limit: JSON = {"type": "TOKENS_LIMIT", "unit": 3, "number": used, "percentage": used}
    limits = [limit | {"nextResetTime": resets}, {**limit, "number": 5, "nextResetTime": resets}]
    counts: JSON = {"limit": used, "used": used, "remaining": 1e308, "resetTime": resets}
    claude = "anthropic-ratelimit-unified-5h"
    codex = "x-codex-primary"
    headers = {
        f"{claude}-utilization": str(used),
        f"{claude}-reset": str(resets),
        f"{codex}-used-percent": str(used),
        f"{codex}-window-minutes": str(resets),
        f"{codex}-reset-after-seconds": str(used),
    }
    found = [relay.quota_in_headers(headers, NOW)]
    for name, answer in (("glm", {"data": {"limits": limits}}), ("kimi", {"usage": counts})):
        with contextlib.suppress(ValueError):
            found.append(relay.quota_in_answer(QUOTA_SOURCES[name], answer))
    for quota in filter(None, found):
        quotas, other = relay.Quotas(), relay.Quotas()
        quotas.note("p/regular/1", quota._replace(at=NOW))
        for record in quotas.collect():
            other.adopt(relay.loads(relay.dumps(record)))
        assert other.known == quotas.known
        for window in quota.windows:
            assert math.isfinite(window.used)
            datetime.datetime.fromtimestamp(window.resets, datetime.UTC)
            window.exhausted_at(NOW)


def test_new_names_of_windows_do_not_add_up() -> None:
    quotas = relay.Quotas()
    for number in range(200):
        windows = (QuotaWindow(f"7d m{number}", 0.5, NOW + DAY, 7 * DAY),)
        quotas.note("p/regular/1", Quota(windows, at=NOW + number))
    known = quotas.known["p/regular/1"].windows
    assert len(known) == 50
    assert known[0].name == "7d m199"


# ---- Time


def test_a_window_that_has_started_anew_is_empty() -> None:
    empty = FIVE_HOURS._replace(used=0.0, resets=0.0)
    quota = Quota((FIVE_HOURS, WEEK), at=NOW)
    assert quota.windows_at(NOW) == [FIVE_HOURS, WEEK]
    assert quota.windows_at(NOW + HOUR) == [empty, WEEK]
    # when it began is not known: at its longest it lasts for its length
    unknown = Quota((FIVE_HOURS._replace(resets=0.0),), at=NOW)
    assert unknown.windows_at(NOW + HOUR) == [*unknown.windows]
    assert unknown.windows_at(NOW + 5 * HOUR) == [empty]


FORECASTS = {
    # four of five hours are over, 42 % used: it lasts
    "it lasts": (FIVE_HOURS, None),
    # four hours for 90 %: the rest takes 26 minutes and 40 seconds
    "used up before the reset": (FIVE_HOURS._replace(used=0.9), NOW + 4 * HOUR / 9),
    "used up already": (FIVE_HOURS._replace(used=1.0), None),
    "unused": (FIVE_HOURS._replace(used=0.0), None),
    "no reset is known": (FIVE_HOURS._replace(used=0.9, resets=0.0), None),
    "no length is known": (FIVE_HOURS._replace(used=0.9, seconds=0.0), None),
    "it has only just begun": (QuotaWindow("5h", 0.5, NOW + 5 * HOUR - 60, 5 * HOUR), None),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_a_window_is_used_up_at_its_pace(name: str) -> None:
    window, expected = FORECASTS[name]
    end = window.exhausted_at(NOW)
    assert end == (None if expected is None else pytest.approx(expected))


def test_a_balance_is_used_up_at_its_pace_since_it_was_last_filled() -> None:
    first = Quota(balance=10.0, currency="CNY", at=NOW).after(Quota())
    assert first.exhausted_at() is None
    later = Quota(balance=7.5, currency="CNY", at=NOW + DAY).after(first)
    assert later.exhausted_at() == pytest.approx(NOW + 4 * DAY)
    filled = Quota(balance=100.0, currency="CNY", at=NOW + 2 * DAY).after(later)
    assert filled.exhausted_at() is None


def test_what_a_new_word_leaves_out_stays_until_it_starts_anew() -> None:
    both = Quota((FIVE_HOURS, WEEK), 5.0, "USD", NOW)
    fresh = FIVE_HOURS._replace(used=0.5)
    known = Quota((fresh,), at=NOW + 60).after(both)
    assert known.windows == (fresh, WEEK)
    assert (known.balance, known.currency, known.at) == (5.0, "USD", NOW + 60)
    assert Quota((fresh,), at=NOW + DAY).after(both).windows == (fresh,)


def test_asking_where_nobody_can_be_asked_is_a_warning() -> None:
    provider = {"api_format": "openai", "endpoint": "http://x/v1", "quota": {"every": "5m"}}
    plan = plan_of(json.dumps({"providers": {"p": provider | {"switch_below": 1, "api_key": "k"}}}))
    assert [warning.partition(": ")[2] for warning in plan.warnings] == [
        f"providers.p.{key}: of no use: none of its plans can be asked how much is left"
        for key in ("quota", "switch_below")
    ]
    known = {"preset": "deepseek", "api_key": "k", "quota": {"every": "5m"}, "switch_below": 1}
    assert plan_of(json.dumps({"providers": {"p": known}})).warnings == ()


BAD_SHARES = ["0%", "101%", "0.95", "95", "much", "-5%", "95 per cent"]


@pytest.mark.parametrize("share", BAD_SHARES)
def test_a_share_is_written_with_its_sign(share: str) -> None:
    provider = {"preset": "zai", "api_key": "k", "switch_at": share}
    (problem,) = problems_of(json.dumps({"providers": {"p": provider}}))
    assert "switch_at: " in problem


@pytest.mark.parametrize(("share", "value"), [("95%", 0.95), ("100 %", 1.0), ("99.5%", 0.995)])
def test_a_share_is_read(share: str, value: float) -> None:
    provider = {"preset": "zai", "api_key": "k", "switch_at": share}
    plan = plan_of(json.dumps({"providers": {"p": provider}}))
    assert plan.providers["p"].config.switch_at == pytest.approx(value)


# ---- Memory

LANES = plan_of(
    """
providers:
  p:
    api_format: openai
    endpoint: "http://x/v1"
    api_key: [one-secret, two-secret]
    switch_at: 90%
    switch_below: 1.00
"""
)
ONE, TWO = LANES.accounts()


def knowing(*quotas: Quota) -> relay.Quotas:
    """What is known of the first credential, and of the second."""
    memory = relay.Quotas()
    for lane, quota in zip((ONE, TWO), quotas, strict=False):
        memory.note(lane.credential.name, quota._replace(at=quota.at or NOW))
    return memory


def windows(used: float, name: str = "5h") -> Quota:
    return Quota((FIVE_HOURS._replace(name=name, used=used),))


LOW: dict[str, tuple[Quota, float, str]] = {
    "a window": (windows(0.9), 0, "5h at 90%, switch_at 90%"),
    "not yet": (windows(0.899), 0, ""),
    "it has started anew": (windows(0.95), HOUR, ""),
    "a window of some models": (windows(0.95, "5h sonnet"), 0, ""),
    "the fullest of several": (
        Quota((FIVE_HOURS, WEEK._replace(used=0.97))),
        0,
        "7d at 97%, switch_at 90%",
    ),
    "a balance": (Quota((), 0.99, "CNY"), 0, "balance 0.99 CNY, switch_below 1.00"),
    "a debt": (Quota((), -2.0, "USD"), 0, "balance -2.00 USD, switch_below 1.00"),
    "enough": (Quota((), 1.0, "CNY"), 0, ""),
    "a balance of the day before": (Quota((), 0.5, "CNY"), DAY, ""),
}


@pytest.mark.parametrize("name", LOW)
def test_what_is_low_says_why(name: str) -> None:
    quota, later, why = LOW[name]
    assert knowing(quota).low(ONE, NOW + later) == why


def test_a_plan_is_as_full_as_the_credential_that_has_most_left() -> None:
    assert knowing().used(ONE.plan, NOW) is None
    assert knowing(windows(0.9)).used(ONE.plan, NOW) == 0.9
    assert knowing(windows(0.9), windows(0.3)).used(ONE.plan, NOW) == 0.3
    assert knowing(windows(0.9, "7d sonnet")).used(ONE.plan, NOW) is None


def test_an_older_word_changes_nothing() -> None:
    memory = knowing(windows(0.5))
    memory.note(ONE.credential.name, windows(0.4)._replace(at=NOW - 1))
    assert memory.used(ONE.plan, NOW) == 0.5


def test_other_relays_hear_of_changes_and_not_of_every_request() -> None:
    memory = knowing(windows(0.5))
    assert len(memory.collect()) == 1
    memory.note(ONE.credential.name, windows(0.501)._replace(at=NOW + 1))
    assert memory.collect() == []
    memory.note(ONE.credential.name, windows(0.52)._replace(at=NOW + 2))
    (record,) = memory.collect()
    other = relay.Quotas()
    other.adopt(json.loads(json.dumps(record)))
    assert other.known == memory.known
    assert other.collect() == []


BROKEN: list[dict[str, Any]] = [
    {},
    {"windows": [["5h", "nan", 0, 0]]},
    {"windows": [["5h"]]},
    {"balance": "much"},
    {"earlier": [1]},
]


@pytest.mark.parametrize("change", BROKEN)
def test_a_word_of_another_version_is_left_aside(change: dict[str, Any]) -> None:
    health = relay.Health()
    health.quotas.note("p/q/r", windows(0.5)._replace(at=NOW))
    (note,) = relay.Notebook(health).collect(NOW)
    other = relay.Health()
    line = (note.line | change) if change else {}
    relay.Notebook(other).apply([note._replace(line=line)])
    assert not other.quotas.known
    relay.Notebook(other).apply([note])
    assert other.quotas.known == health.quotas.known
