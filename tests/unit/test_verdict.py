"""What a client is told when nothing worked: DESIGN.md 5."""

from __future__ import annotations

import pytest
from unit.configs import plan_of

import relay

NOW = 1_700_000_000.0
PLAN = plan_of(
    """
providers:
  one: {api_format: openai, endpoint: "http://one/v1", api_key: [k1, k2]}
  two: {api_format: anthropic, endpoint: "http://two", api_key: k3}
default: one/m
"""
)


def lane(name: str = "one", key: int = 0) -> relay.Lane:
    provider = PLAN.providers[name]
    billing = provider.plans[0]
    endpoint = billing.endpoint("openai")
    return relay.Lane(relay.Target(provider, "m"), billing, billing.credentials[key], endpoint)


def failed(name: str, after: float | None = None, **more: object) -> relay.UpstreamError:
    return relay.UpstreamError(name, f"said {name}", retry_after=after, **more)  # type: ignore[arg-type]


def mark(name: str, until: float) -> relay.Mark:
    return relay.Mark(failure=name, since=NOW - 5, until=until, guessed=True)


def verdict(*failures: tuple[relay.Lane, relay.UpstreamError]) -> relay.RelayError:
    return relay.final_error(list(failures), [], NOW)


@pytest.mark.parametrize("name", relay.FAILURES)
def test_one_failed_target_keeps_its_class(name: str) -> None:
    error = verdict((lane(), failed(name, 60.0)))
    row = relay.FAILURES[name]
    assert (error.status, error.kind, error.retry) == (row.status, row.kind, row.retry)
    assert "one/m" in error.message
    assert f"said {name}" in error.message


def test_all_limits_are_a_429_with_the_soonest_end() -> None:
    error = verdict(
        (lane("one"), failed("rate_limited", 40.0)), (lane("two"), failed("plan_exhausted", 7200.0))
    )
    assert error.status == 429
    assert relay.error_headers(error)["retry-after"] == "40"
    assert "one/m" in error.message
    assert "two/m" in error.message


def test_limits_and_others_are_a_503() -> None:
    error = verdict((lane("one"), failed("rate_limited", 40.0)), (lane("two"), failed("transient")))
    assert error.status == 503
    assert {dialect.status(error) for dialect in relay.DIALECTS.values()} == {503}


@pytest.mark.parametrize("name", sorted(relay.OF_THE_REQUEST))
def test_what_the_request_did_wrong_outranks_the_rest(name: str) -> None:
    body = b'{"error":{"message":"as it was said"}}'
    own = failed(name, upstream_status=400, body=body, headers={"x": "y"})
    for order in ((lane("one"), own), (lane("two"), failed("transient"))):
        error = verdict(order, (lane("one"), own))
        assert isinstance(error, relay.UpstreamError)
        assert (error.status, error.failure.name, error.body) == (400, name, body)


def test_a_body_is_kept_only_if_it_speaks_of_the_request() -> None:
    """A provider's 401 or 500 in its own words would be taken for relay's."""
    error = verdict((lane(), failed("auth", upstream_status=401, body=b'{"error":{}}')))
    assert isinstance(error, relay.UpstreamError)
    assert (error.status, error.body) == (502, b"")


def test_every_target_cooling_says_who_and_why_and_when() -> None:
    marks = [
        (lane("one"), mark("rate_limited", NOW + 12)),
        (lane("two"), mark("plan_exhausted", NOW + 90_000)),
    ]
    error = relay.final_error([], marks, NOW)
    assert error.status == 429
    assert relay.error_headers(error)["retry-after"] == "12"
    assert "one/m" in error.message
    assert "plan exhausted" in error.message
    mixed = [*marks, (lane("two"), mark("transient", NOW + 5))]
    assert relay.final_error([], mixed, NOW).status == 503


def test_nothing_left_that_could_recover_is_not_worth_trying_again() -> None:
    marks = [(lane("one"), mark("auth", NOW + 900))]
    error = relay.final_error([], marks, NOW)
    assert error.status == 502
    assert relay.error_headers(error)["x-should-retry"] == "false"


HEADERS: list[tuple[relay.RelayError, dict[str, str]]] = [
    (relay.RelayError("x", status=429), {"retry-after": "5"}),
    (relay.RelayError("x", status=429, retry_after=0.2), {"retry-after": "1"}),
    (relay.RelayError("x", status=429, retry_after=16.5), {"retry-after": "17"}),
    (relay.RelayError("x", status=429, retry_after=300), {"retry-after": "300"}),
    (
        relay.RelayError("x", status=429, retry_after=301),
        {"retry-after": "301", "x-should-retry": "false"},
    ),
    (relay.RelayError("x", status=503, retry_after=9), {"retry-after": "9"}),
    (relay.RelayError("x", status=503), {}),
    (relay.UnknownModel("x"), {"x-should-retry": "false"}),
    (relay.Unauthorized("x"), {"x-should-retry": "false"}),
    (relay.BadRequest("x"), {"x-should-retry": "false"}),
    (relay.UpstreamError("auth", "x"), {"x-should-retry": "false"}),
    (relay.UpstreamError("transient", "x"), {}),
]


@pytest.mark.parametrize(("error", "headers"), HEADERS, ids=lambda v: str(v)[:40])
def test_headers_say_when_to_try_again_and_whether(
    error: relay.RelayError, headers: dict[str, str]
) -> None:
    assert relay.error_headers(error) == headers


TERMINATIONS = [
    (relay.UpstreamError("timeout", "x"), "UT"),
    (relay.UpstreamError("rate_limited", "x"), "RL"),
    (relay.UpstreamError("transient", "x"), "UC"),
    (relay.UpstreamError("auth", "x"), "UE"),
    (relay.NoTarget("x"), "CO"),
    (relay.NoTarget("x", status=429), "RL"),
    (relay.Unauthorized("x"), "AU"),
    (relay.BadRequest("x"), "BR"),
    (relay.UnknownModel("x"), "BR"),
    (relay.RelayError("x"), "IE"),
]


@pytest.mark.parametrize(("error", "code"), TERMINATIONS, ids=lambda v: type(v).__name__)
def test_every_end_has_its_two_letters(error: relay.RelayError, code: str) -> None:
    assert relay.termination(error) == code


def test_the_soonest_end_is_told_although_a_later_answer_came_long_after() -> None:
    """The first said "in 40 s", half a minute before the second said "in 25 s"."""
    first, second = failed("rate_limited", 40.0), failed("rate_limited", 25.0)
    first.at, second.at = NOW - 30, NOW
    for pair in ((first, second), (second, first)):
        error = verdict((lane("one"), pair[0]), (lane("two"), pair[1]))
        assert error.retry_after == pytest.approx(10)
    late = failed("rate_limited", 5.0)
    late.at = NOW - 60  # that moment is past: at once, which is told as the shortest there is
    error = verdict((lane("one"), late), (lane("two"), second))
    assert error.retry_after == 0
    assert relay.error_headers(error)["retry-after"] == "1"


def test_an_end_at_once_is_an_end() -> None:
    error = verdict((lane(), failed("rate_limited", 0.0)))
    assert error.retry_after == 0
    assert relay.error_headers(error)["retry-after"] == "1"


def test_who_is_being_probed_may_be_back_at_once() -> None:
    probed = relay.Mark("auth", NOW - 900, NOW - 1, True, probing=True)
    later = relay.Mark("auth", NOW, NOW + 900, True)
    error = relay.final_error([], [(lane(), later), (lane("two"), probed)], NOW)
    assert error.retry_after == 0
    assert "two/m: auth, being probed" in error.message


def test_each_target_that_failed_is_said_what_for() -> None:
    error = verdict(
        (lane("one"), failed("auth", upstream_status=401)),
        (lane("two"), failed("transient", upstream_status=500)),
    )
    assert "one/m#1 refused relay's credential; check api_key" in error.message
    assert "two/m failed with HTTP 500: said transient" in error.message
    plain = relay.error_in(b"no upstream", 502).message
    error = verdict((lane(), relay.UpstreamError("transient", plain, upstream_status=502)))
    assert error.message == "one/m#1 failed: HTTP 502, no upstream"
