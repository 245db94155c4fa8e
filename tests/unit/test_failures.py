"""What an upstream's failure is, and until when."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

import relay
from relay import ErrorRule, Failure

NOW = datetime.datetime(2026, 11, 20, 12, 0, 0, tzinfo=datetime.UTC).timestamp()  # a Friday


def verdict(
    *rules: ErrorRule, status: int = 429, said: Failure | str = "", **headers: str
) -> relay.Classified:
    failure = Failure(said) if isinstance(said, str) else said
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return relay.classify_error(rules, status, failure, named, NOW)


# When it ends: PROVIDERS.md 0.2, rule 4

RESETS: list[tuple[str, dict[str, str], str, float | None]] = [
    ("nobody says", {}, "Too many requests", None),
    # headers
    ("seconds", {"retry-after": "17"}, "", 17),
    ("no seconds", {"retry-after": "0"}, "", 0),
    ("parts of a second", {"retry-after": "1.5"}, "", 1.5),
    ("never negative", {"retry-after": "-5"}, "", 0),
    ("a date", {"retry-after": "Fri, 20 Nov 2026 12:01:30 GMT"}, "", 90),
    ("a date that is over", {"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}, "", 0),
    ("milliseconds", {"retry-after-ms": "16500"}, "", 16.5),
    ("milliseconds are more exact", {"retry-after": "17", "retry-after-ms": "16500"}, "", 16.5),
    ("junk in a header", {"retry-after": "soon"}, "", None),
    ("junk, and the text says it", {"retry-after": "soon"}, "try again in 3s", 3),
    ("a header before the text", {"retry-after": "9"}, "try again in 3s", 9),
    ("Anthropic's plan", {"anthropic-ratelimit-unified-reset": str(int(NOW) + 7200)}, "", 7200),
    ("junk there", {"anthropic-ratelimit-unified-reset": "x"}, "", None),
    (
        "the longest that is spent",
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        "",
        360,
    ),
    (
        "only what is spent",
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "20ms",
            "x-ratelimit-remaining-tokens": "5",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        "",
        0.02,
    ),
    (
        "a date (RFC 3339)",
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "2026-11-20T12:30:00Z",
        },
        "",
        1800,
    ),
    (
        "Anthropic's names",
        {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2026-11-20T12:01:00Z",
        },
        "",
        60,
    ),
    (
        "milliseconds since 1970 (OpenRouter)",
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW + 90) * 1000)},
        "",
        90,
    ),
    ("a date of RFC 3339 as retry-after", {"retry-after": "2026-11-20T12:00:45+00:00"}, "", 45),
    ("a date nobody can read", {"retry-after": "Fri, 20 Nov 2026 13:00:00 CET"}, "", None),
    ("nothing is spent", {"x-ratelimit-reset-requests": "1s"}, "", None),
    (
        "headers in any case",
        {"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "1m2.5s"},
        "",
        62.5,
    ),
    # dates in the text
    (
        "without a zone",
        {},
        "Usage limit reached for 5 hour. Your limit will reset at 2026-11-20 13:30:00",
        5400,
    ),
    (
        "Ark",
        {},
        "You have exceeded the 5-hour usage quota. It will reset at 2026-11-20 23:59:59 +0800 CST.",
        14399,
    ),
    (
        "MiniMax, and its number is no time",
        {},
        "usage limit exceeded, 5-hour usage limit reached for Token Plan Plus (3/3 used),"
        " resets at 2026-11-20T21:00:00+08:00 (2056)",
        3600,
    ),
    ("a bare number is never seconds", {}, "usage limit exceeded (2056)", None),
    ("UTC as a word", {}, "resets at 2026-11-20 12:00:30 UTC", 30),
    ("UTC", {}, "resets at 2026-11-20T12:00:30Z", 30),
    ("parts of a second in a date", {}, "until 2026-11-20T12:00:30.250Z", 30),
    ("another offset", {}, "resets at 2026-11-20T07:00:30-0500", 30),
    ("a date that is over", {}, "reset at 2026-11-20 08:00:00", 0),
    ("no date", {}, "reset at 2026-13-45 99:00:00", None),
    # spans in the text
    ("Google", {}, '{"details":[{"retryDelay":"43s"}]}', 43),
    ("Google, parts", {}, '"retryDelay": "34.07s"', 34.07),
    ("Google, milliseconds", {}, '"retryDelay":"900ms"', 0.9),
    ("Gemini CLI", {}, "Please retry in 5.5s.", 5.5),
    ("OpenAI", {}, "Rate limit reached. Please try again in 1m2.5s. Visit https://x", 62.5),
    ("Groq", {}, "Please try again in 7m12s.", 432),
    ("OpenAI, milliseconds", {}, "Please try again in 20ms.", 0.02),
    ("words", {}, "Please try again in 20 seconds.", 20),
    ("hours", {}, "limit resets in 2h30m", 9000),
    ("minutes in words", {}, "Please try again in 20 minutes.", 1200),
    ("an hour in words", {}, "Try again in 1 hour", 3600),
    ("an article", {}, "Retry after about an hour", 3600),
    ("hours and minutes", {}, "try again in 1 hour and 5 minutes", 3900),
    ("days", {}, "limit resets in 2 days, 3 hours", 183600),
    ("API Management", {}, "Quota will be replenished in 00:12:34.", 754),
    ("API Management, days", {}, "Quota will be replenished in 2.03:00:00.", 183600),
    ("not a model's name", {}, "retry with gpt-4 in 5 steps", None),
    # fields of the error
    ("a ChatGPT plan", {}, 'm{"resets_in_seconds":3600}', 3600),
    ("a ChatGPT plan's date", {}, f'm{{"resets_at":{int(NOW) + 90}}}', 90),
    ("OpenRouter", {}, f'm{{"metadata":{{"X-RateLimit-Reset":"{int(NOW + 90) * 1000}"}}}}', 90),
    ("other relays", {}, 'm{"resetAt":"2026-11-20T12:00:30Z"}', 30),
    ("a field before a header", {"retry-after": "7"}, 'm{"retry_after":30}', 30),
    ("a field in milliseconds", {}, 'm{"retry_after_ms":1500}', 1.5),
]


@pytest.mark.parametrize(
    ("headers", "text", "seconds"), [r[1:] for r in RESETS], ids=[r[0] for r in RESETS]
)
def test_until_when(headers: dict[str, str], text: str, seconds: float | None) -> None:
    rule = ErrorRule("rate_limited")
    until = relay.classify_error([rule], 429, Failure(text), headers, NOW).until
    assert until == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(("preset", "seconds"), [("bigmodel", 0), ("openai", 5400), ("", 5400)])
def test_a_date_without_a_zone_is_of_the_providers_place(preset: str, seconds: float) -> None:
    zone = relay.PRESETS[preset].zone if preset else datetime.UTC
    said = Failure("Your limit will reset at 2026-11-20 13:30:00")
    until = relay.classify_error([ErrorRule("rate_limited")], 429, said, {}, NOW, zone).until
    assert until == seconds
    if preset == "bigmodel":
        said = Failure("Your limit will reset at 2026-11-20 21:30:00")
        until = relay.classify_error([ErrorRule("rate_limited")], 429, said, {}, NOW, zone).until
        assert until == 5400


@pytest.mark.parametrize(
    ("reset", "now", "then"),
    [
        ("midnight+8", "2026-11-20T12:00:00+00:00", "2026-11-21T00:00:00+08:00"),
        ("midnight+8", "2026-11-20T15:59:59+00:00", "2026-11-21T00:00:00+08:00"),
        ("midnight+8", "2026-11-20T16:00:00+00:00", "2026-11-22T00:00:00+08:00"),
        ("monday+8", "2026-11-20T12:00:00+00:00", "2026-11-23T00:00:00+08:00"),
        ("monday+8", "2026-11-23T00:00:00+08:00", "2026-11-30T00:00:00+08:00"),
        ("monday+8", "2026-11-22T23:59:00+08:00", "2026-11-23T00:00:00+08:00"),
        ("month", "2026-11-20T12:00:00+00:00", "2026-12-01T00:00:00+08:00"),
        ("month", "2026-12-31T23:00:00+08:00", "2027-01-01T00:00:00+08:00"),
        ("month", "2027-01-31T10:00:00+08:00", "2027-02-01T00:00:00+08:00"),
    ],
)
def test_what_nobody_says_the_calendar_says(reset: str, now: str, then: str) -> None:
    moment, ends = (datetime.datetime.fromisoformat(text).timestamp() for text in (now, then))
    rule = ErrorRule("plan_exhausted", reset=reset)
    assert relay.classify_error([rule], 429, Failure("quota"), {}, moment).until == ends - moment
    said = relay.classify_error([rule], 429, Failure("quota"), {"retry-after": "7"}, moment)
    assert said.until == 7


def test_what_marks_nobody_has_no_end() -> None:
    assert verdict(ErrorRule("bad_request"), retry_after="17").until is None


# Which rule: all that a row says must hold, the first row decides

MATCHES: list[tuple[ErrorRule, int, Failure, bool]] = [
    (ErrorRule("auth"), 500, Failure("x"), True),
    (ErrorRule("auth", status=(401, 403)), 403, Failure("x"), True),
    (ErrorRule("auth", status=(401, 403)), 400, Failure("x"), False),
    (ErrorRule("auth", code=("1308", "1310")), 429, Failure("x", "1310"), True),
    (ErrorRule("auth", code=("1308",)), 429, Failure("x", "13080"), False),
    (ErrorRule("auth", code=("Throttling*",)), 429, Failure("x", "Throttling.RateQuota"), True),
    (ErrorRule("auth", code=("throttling*",)), 429, Failure("x", "Throttling"), True),
    (
        ErrorRule("auth", type=("overloaded_error",)),
        200,
        Failure("x", "", "overloaded_error"),
        True,
    ),
    (ErrorRule("auth", type=("overloaded_error",)), 200, Failure("x", "overloaded_error"), False),
    (
        ErrorRule("auth", pattern=r"usage limit for this (month|week)"),
        403,
        Failure("Usage limit for this WEEK"),
        True,
    ),
    (ErrorRule("auth", pattern="quota"), 403, Failure("x", extra='{"quotaId":"PerDay"}'), True),
    (ErrorRule("auth", status=(429,), code=("1",), pattern="p"), 429, Failure("p", "1"), True),
    (ErrorRule("auth", status=(429,), code=("1",), pattern="p"), 429, Failure("q", "1"), False),
    (ErrorRule("auth", status=(429,), code=("1",), pattern="p"), 429, Failure("p", "2"), False),
]


@pytest.mark.parametrize(("rule", "status", "said", "matches"), MATCHES)
def test_a_rule_matches_when_all_it_says_holds(
    rule: ErrorRule, status: int, said: Failure, matches: bool
) -> None:
    assert rule.matches(status, said) is matches


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        ErrorRule("balance_empty", code=("1113",), scope="credential+model"),
        ErrorRule("rate_limited", status=(429,)),
    )
    first = verdict(*rules, said=Failure("arrears", "1113"))
    assert (first.failure, first.scope) == ("balance_empty", "credential+model")
    second = verdict(*rules, said=Failure("slow down"))
    assert (second.failure, second.scope, second.message) == (
        "rate_limited",
        "credential",
        "slow down",
    )


@pytest.mark.parametrize(
    ("status", "failure"),
    [(500, "transient"), (599, "transient"), (200, "transient"), (418, "bad_request")],
)
def test_without_a_rule_the_status_decides(status: int, failure: str) -> None:
    assert verdict(status=status).failure == failure


def test_what_relay_knows_already_outranks_the_rules() -> None:
    said = Failure("silent", cause="timeout")
    assert verdict(ErrorRule("auth"), status=200, said=said).failure == "timeout"


def test_an_error_in_a_200_whose_code_is_a_status_counts_as_that() -> None:
    """OpenRouter."""
    rules = (ErrorRule("rate_limited", status=(429,)), ErrorRule("transient", status=(200,)))
    assert verdict(*rules, status=200, said=Failure("x", "429")).failure == "rate_limited"
    assert verdict(*rules, status=200, said=Failure("x", "1308")).failure == "transient"


# What an error body says, in any provider's shape

SAID: list[tuple[str, Any, Failure]] = [
    (
        "OpenAI",
        {"error": {"message": "m", "type": "t", "param": None, "code": "c"}},
        Failure("m", "c", "t"),
    ),
    (
        "Anthropic",
        {"type": "error", "error": {"type": "t", "message": "m"}, "request_id": "r"},
        Failure("m", "", "t"),
    ),
    ("GLM", {"error": {"code": "1113", "message": "m"}}, Failure("m", "1113")),
    (
        "GLM in brackets",
        {"type": "error", "error": {"type": "t", "message": "[1308][Usage limit][202611]"}},
        Failure("[1308][Usage limit][202611]", "", "t"),
    ),
    (
        "Google",
        {
            "error": {
                "code": 429,
                "message": "m",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"a": 1}],
            }
        },
        Failure("m", "429", "RESOURCE_EXHAUSTED", extra='{"details":[{"a":1}]}'),
    ),
    (
        "Google in a list",
        [{"error": {"code": 400, "message": "m", "status": "S"}}],
        Failure("m", "400", "S"),
    ),
    (
        "OpenRouter",
        {"error": {"code": 402, "message": "m", "metadata": {"raw": "r"}}},
        Failure("m", "402", extra='{"metadata":{"raw":"r"}}'),
    ),
    ("MiniMax", {"base_resp": {"status_code": 1008, "status_msg": "m"}}, Failure("m", "1008")),
    ("SiliconFlow", {"code": 20012, "message": "m", "data": None}, Failure("m", "20012")),
    (
        "Mistral",
        {"object": "error", "message": "m", "type": "t", "param": None, "code": None},
        Failure("m", "", "t"),
    ),
    ("FastAPI", {"detail": "m"}, Failure("m")),
    (
        "FastAPI, a list",
        {"detail": [{"loc": ["body"], "msg": "m"}]},
        Failure('[{"loc":["body"],"msg":"m"}]'),
    ),
    ("TGI", {"error": "m", "error_type": "t"}, Failure("m", "", "t")),
    (
        "when it ends: a ChatGPT plan",
        {"error": {"type": "t", "message": "m", "plan_type": "plus", "resets_in_seconds": 9}},
        Failure("m", "", "t", extra='{"resets_in_seconds":9}'),
    ),
    (
        "when it ends: other relays",
        {"error": "m", "resetAt": "2026-11-20T12:00:30Z"},
        Failure("m", extra='{"resetAt":"2026-11-20T12:00:30Z"}'),
    ),
    ("xAI", {"error": "m", "code": "c"}, Failure("m", "c")),
    (
        "Huawei",
        {"error_code": "ModelArts.81022", "error_msg": "m"},
        Failure("m", "ModelArts.81022"),
    ),
    (
        "DashScope",
        {"code": "Throttling.RateQuota", "message": "m", "request_id": "r"},
        Failure("m", "Throttling.RateQuota"),
    ),
    ("no message", {"error": {"code": "c"}}, Failure('{"code":"c"}', "c")),
]


@pytest.mark.parametrize(("body", "said"), [row[1:] for row in SAID], ids=[row[0] for row in SAID])
def test_every_shape_of_an_error_is_read(body: Any, said: Failure) -> None:
    assert relay.error_in(relay.dumps(body)) == said


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "nothing"),
        (b"upstream connect error\n or  disconnect", "upstream connect error or disconnect"),
        (b"<html><head><title>502 Bad Gateway</title></head>", "502 Bad Gateway"),
        (b"<!DOCTYPE html><html><body>x", "HTML"),
        (b"x " * 2500, "x x x"),
        (b"page " + b"x" * 5000, "page ..."),  # half a word may be half a credential
        (b"\xff\xfe", "\ufffd"),
    ],
)
def test_what_is_no_json_is_quoted_shortly(body: bytes, text: str) -> None:
    said = relay.error_in(body).message
    assert text in said
    assert len(said) <= 304


@pytest.mark.parametrize(
    "wire",
    [
        {"id": "x", "choices": []},
        {"type": "message", "content": []},
        {"error": None},
        {"base_resp": {"status_code": 0}},
        {"message": "hi"},
        {"code": 0, "message": "success", "choices": []},
        {},
    ],
)
def test_what_is_no_error_is_none(wire: relay.JSON) -> None:
    assert relay.failure_in(wire) is None


@pytest.mark.parametrize(
    "word", ["reset", "again in 1", "thinking", "quota ", "length is 1 tokens"]
)
def test_a_text_of_any_length_is_searched_at_both_its_ends(word: str) -> None:
    """A megabyte of a quoted prompt would take hours, during which nobody else is served."""
    long = f"{word}" * ((1 << 20) // len(word))
    rules = [r for preset in relay.PRESETS.values() for r in (*preset.errors, *relay.COMMON_ERRORS)]
    for text in (f"try again in 3s {long}", f"{long} try again in 3s"):
        assert verdict(*rules, said=text).until == 3
        assert verdict(*rules, status=500, said=text).until == 3
    assert verdict(*rules, said=long).until is None
