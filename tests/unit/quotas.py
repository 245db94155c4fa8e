"""What makers answer when they are asked how much is left, as they document it and as it was seen.

Times are around NOW; each row has the source's name, the answer, and what it says.
"""

from __future__ import annotations

from typing import Any

from relay import Quota, QuotaWindow

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86400.0
FIVE_HOURS = QuotaWindow("5h", 0.42, NOW + HOUR, 5 * HOUR)
WEEK = QuotaWindow("7d", 0.125, NOW + DAY, 7 * DAY)


def glm(*limits: dict[str, Any]) -> dict[str, Any]:
    data = {"limits": list(limits), "level": "pro"}
    return {"code": 200, "msg": "Operation successful", "data": data, "success": True}


GLM_HOURS = {
    "type": "TOKENS_LIMIT",
    "unit": 3,
    "number": 5,
    "percentage": 42,
    "nextResetTime": int(NOW + HOUR) * 1000,
}
GLM_WEEK = GLM_HOURS | {
    "unit": 6,
    "number": 1,
    "percentage": 12.5,
    "nextResetTime": int(NOW + DAY) * 1000,
}
GLM_SEARCHES = {
    "type": "TIME_LIMIT",
    "unit": 5,
    "number": 1,
    "usage": 4000,
    "currentValue": 100,
    "remaining": 3900,
    "percentage": 2.5,
    "usageDetails": [{"modelCode": "search-prime", "usage": 100}],
}
KIMI: dict[str, Any] = {
    "user": {"membership": {"level": "LEVEL_INTERMEDIATE"}},
    "usage": {
        "limit": "2048",
        "used": "256",
        "remaining": "1792",
        "resetTime": "2027-01-16T08:00:00.000000Z",
    },
    "limits": [
        {
            "window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"},
            "detail": {"limit": "100", "used": "42", "resetTime": "2027-01-15T09:00:00Z"},
        }
    ],
}


def kimi(**window: Any) -> dict[str, Any]:
    return {"limits": [{"type": "x", "window": window, "detail": KIMI["limits"][0]["detail"]}]}


MOONSHOT = {
    "code": 0,
    "data": {"available_balance": 49.58894, "voucher_balance": 46.58893, "cash_balance": 3.00001},
    "scode": "0x0",
    "status": True,
}
DEEPSEEK = {
    "is_available": True,
    "balance_infos": [
        {
            "currency": "CNY",
            "total_balance": "110.00",
            "granted_balance": "10.00",
            "topped_up_balance": "100.00",
        }
    ],
}
STEPFUN = {
    "object": "account",
    "type": "prepaid",
    "balance": 8.5,
    "total_cash_balance": 20.0,
    "total_voucher_balance": 1.0,
}
SILICONFLOW = {
    "code": 20000,
    "message": "OK",
    "status": True,
    "data": {"id": "u", "balance": "0.88", "chargeBalance": "88.00", "totalBalance": "88.88"},
}
OPENROUTER = {
    "data": {"label": "sk-or-...", "limit": 20, "usage": 7.5, "limit_remaining": 12.5},
}

# name: (source, answer, what it says)
ANSWERS: dict[str, tuple[str, dict[str, Any], Quota]] = {
    "glm": ("glm", glm(GLM_HOURS, GLM_WEEK, GLM_SEARCHES), Quota((FIVE_HOURS, WEEK))),
    "glm, percent as text": (
        "glm",
        glm(GLM_HOURS | {"percentage": "42%"}, GLM_WEEK | {"percentage": "12.5"}),
        Quota((FIVE_HOURS, WEEK)),
    ),
    "glm, seconds": (
        "glm",
        glm(GLM_HOURS | {"nextResetTime": int(NOW + HOUR)}),
        Quota((FIVE_HOURS,)),
    ),
    "glm, a reset that is no moment": (
        "glm",
        glm(GLM_HOURS | {"nextResetTime": 5}, GLM_WEEK | {"nextResetTime": "6m0s"}),
        Quota((FIVE_HOURS._replace(resets=0.0), WEEK._replace(resets=0.0))),
    ),
    "glm, a window that has not begun has no reset": (
        "glm",
        glm({k: v for k, v in GLM_HOURS.items() if k != "nextResetTime"} | {"percentage": 0}),
        Quota((QuotaWindow("5h", 0.0, 0.0, 5 * HOUR),)),
    ),
    "glm, counts and no percentage": (
        "glm",
        glm({**GLM_WEEK, "percentage": None, "usage": 800, "currentValue": 100, "remaining": 700}),
        Quota((WEEK,)),
    ),
    "glm, credits of a month": (
        "glm",
        glm({"type": "CREDIT_LIMIT", "unit": 5, "number": 1, "percentage": 50}),
        Quota((QuotaWindow("month", 0.5, 0.0, 30 * DAY),)),
    ),
    "glm, a unit that nobody knows": (
        "glm",
        glm(GLM_HOURS | {"unit": 9}),
        Quota((QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),)),
    ),
    "glm, a week needs no number": (
        "glm",
        glm({k: v for k, v in GLM_WEEK.items() if k != "number"}),
        Quota((WEEK,)),
    ),
    "glm, a number that is none": (
        "glm",
        glm(GLM_HOURS | {"number": "x"}, GLM_WEEK | {"number": None}),
        Quota(
            (
                QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),
                QuotaWindow("plan", 0.125, NOW + DAY, 0.0),
            )
        ),
    ),
    "glm, no unit, and one that begins as another": (
        "glm",
        glm({k: v for k, v in GLM_HOURS.items() if k != "unit"}, GLM_WEEK | {"unit": 300}),
        Quota(
            (
                QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),
                QuotaWindow("plan", 0.125, NOW + DAY, 0.0),
            )
        ),
    ),
    "glm, a limit of no type": (
        "glm",
        glm(GLM_HOURS, {k: v for k, v in GLM_WEEK.items() if k != "type"}),
        Quota((FIVE_HOURS,)),
    ),
    "kimi": ("kimi", KIMI, Quota((WEEK, FIVE_HOURS))),
    "kimi, a window of no number": (
        "kimi",
        kimi(timeUnit="TIME_UNIT_MINUTE"),
        Quota((QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),)),
    ),
    "kimi, a window of no unit": (
        "kimi",
        kimi(duration=300),
        Quota((QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),)),
    ),
    "kimi, a unit that nobody knows": (
        "kimi",
        kimi(duration=300, timeUnit=300),
        Quota((QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),)),
    ),
    "kimi, a month is no minute": (
        "kimi",
        kimi(duration=1, timeUnit="TIME_UNIT_MONTH"),
        Quota((QuotaWindow("plan", 0.42, NOW + HOUR, 0.0),)),
    ),
    "kimi, hours": (
        "kimi",
        kimi(duration=5, timeUnit="TIME_UNIT_HOUR"),
        Quota((FIVE_HOURS,)),
    ),
    "kimi, numbers and what remains": (
        "kimi",
        {"usage": {"limit": 2048, "remaining": 1792, "resetTime": NOW + DAY}, "limits": None},
        Quota((WEEK,)),
    ),
    "kimi, nanoseconds, and a zone": (
        "kimi",
        {"usage": KIMI["usage"] | {"resetTime": "2027-01-16T16:00:00.123456789+08:00"}},
        Quota((WEEK,)),
    ),
    "kimi, no week": ("kimi", {**KIMI, "usage": None}, Quota((FIVE_HOURS,))),
    "kimi, a limit of nothing is none": (
        "kimi",
        {**KIMI, "usage": {"limit": "0", "used": "0"}},
        Quota((FIVE_HOURS,)),
    ),
    "moonshot": ("moonshot", MOONSHOT, Quota(balance=49.58894)),
    "moonshot, in debt": (
        "moonshot",
        {"code": 0, "data": {"available_balance": -0.5}},
        Quota(balance=-0.5),
    ),
    "deepseek": ("deepseek", DEEPSEEK, Quota(balance=110.0, currency="CNY")),
    "deepseek, the purse that has something": (
        "deepseek",
        {
            "is_available": True,
            "balance_infos": [
                {"currency": "CNY", "total_balance": "0.00"},
                {"currency": "USD", "total_balance": "5.25"},
            ],
        },
        Quota(balance=5.25, currency="USD"),
    ),
    "stepfun": ("stepfun", STEPFUN, Quota(balance=8.5)),
    "stepfun, as text": ("stepfun", {**STEPFUN, "balance": "8.5"}, Quota(balance=8.5)),
    "siliconflow": ("siliconflow", SILICONFLOW, Quota(balance=88.88)),
    "openrouter": ("openrouter", OPENROUTER, Quota(balance=12.5)),
}

# Answers that say nothing: (source, answer, a word of the complaint)
REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "glm, a wrong key with status 200": (
        "glm",
        {"code": 401, "msg": "token expired or incorrect", "success": False},
        "token expired",
    ),
    "glm, no windows": ("glm", glm(), "no limit"),
    "glm, only searches": ("glm", glm(GLM_SEARCHES), "no limit"),
    "kimi, an error": ("kimi", {"error": {"message": "Invalid key", "type": "x"}}, "Invalid key"),
    "deepseek, no purse": ("deepseek", {"is_available": False, "balance_infos": []}, "no balance"),
    "openrouter, a key without a limit": (
        "openrouter",
        {"data": {"limit": None, "limit_remaining": None}},
        "no limit",
    ),
}

CLAUDE = {
    "anthropic-ratelimit-unified-status": "allowed",
    "anthropic-ratelimit-unified-5h-status": "allowed",
    "anthropic-ratelimit-unified-5h-utilization": "0.42",
    "anthropic-ratelimit-unified-5h-reset": str(int(NOW + HOUR)),
    "anthropic-ratelimit-unified-7d-utilization": "0.125",
    "anthropic-ratelimit-unified-7d-reset": str(int(NOW + DAY)),
    "anthropic-ratelimit-unified-reset": str(int(NOW + HOUR)),
    "anthropic-ratelimit-unified-representative-claim": "five_hour",
    "anthropic-ratelimit-unified-overage-utilization": "0.9",
}
CODEX = {
    "x-codex-primary-used-percent": "42",
    "x-codex-primary-window-minutes": "300",
    "x-codex-primary-reset-after-seconds": "3600",
    "x-codex-secondary-used-percent": "12.5",
    "x-codex-secondary-window-minutes": "10080",
    "x-codex-secondary-reset-at": str(int(NOW + DAY)),
    "x-codex-primary-over-secondary-limit-percent": "0",
}
HEADERS: dict[str, tuple[dict[str, str], tuple[QuotaWindow, ...]]] = {
    "claude": (CLAUDE, (FIVE_HOURS, WEEK)),
    "claude, capitals": ({k.title(): v for k, v in CLAUDE.items()}, (FIVE_HOURS, WEEK)),
    "claude, a window of some models": (
        {
            "anthropic-ratelimit-unified-7d-sonnet-utilization": "0.02",
            "anthropic-ratelimit-unified-7d_oi-utilization": "1.5",
        },
        (
            QuotaWindow("7d sonnet", 0.02, 0.0, 7 * DAY),
            QuotaWindow("7d oi", 1.5, 0.0, 7 * DAY),
        ),
    ),
    "codex": (CODEX, (FIVE_HOURS, WEEK)),
    "codex, a model of its own": (
        {
            "x-codex-bengalfox-primary-used-percent": "42",
            "x-codex-bengalfox-primary-window-minutes": "300",
            "x-codex-bengalfox-primary-reset-at": str(int(NOW + HOUR)),
        },
        (FIVE_HOURS._replace(name="5h bengalfox"),),
    ),
    "codex, no second window": (
        {
            **{k: v for k, v in CODEX.items() if "-primary-" in k},
            "x-codex-secondary-used-percent": "0",
            "x-codex-secondary-window-minutes": "0",
        },
        (FIVE_HOURS,),
    ),
    "neither": ({"x-ratelimit-remaining-requests": "3"}, ()),
    "not a number": ({"anthropic-ratelimit-unified-5h-utilization": "much"}, ()),
}
