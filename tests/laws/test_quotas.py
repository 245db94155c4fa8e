"""Whatever a maker answers, it is read or refused; what is known of a quota never grows wild."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from unit.quotas import ANSWERS, CLAUDE, CODEX, NOW

import relay
from relay import QUOTA_SOURCES, Quota, QuotaWindow

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["42%", "1e400", "-1", "2027-01-16T08:00:00Z", "TOKENS_LIMIT"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
windows = st.builds(
    QuotaWindow,
    st.sampled_from(["5h", "7d", "7d sonnet"]),
    st.floats(0, 2),
    st.sampled_from([0.0, NOW - 60, NOW + 60, NOW + 86400]),
    st.sampled_from([0.0, 18000.0, 604800.0]),
)
quotas = st.builds(
    Quota,
    st.lists(windows, max_size=3, unique_by=lambda window: window.name).map(tuple),
    st.none() | st.floats(-10, 1000),
    st.sampled_from(["", "CNY"]),
    st.floats(NOW - 1e5, NOW + 1e5),
)


def is_sound(quota: Quota) -> bool:
    numbers = [n for w in quota.windows for n in (w.used, w.resets, w.seconds)]
    return all(map(math.isfinite, [*numbers, quota.balance or 0.0]))


@st.composite
def bent(draw: st.DrawFn) -> tuple[str, Any]:
    """A real answer in which some values are others."""
    source, answer, _ = ANSWERS[draw(st.sampled_from([*ANSWERS]))]

    def walk(value: Any) -> Any:
        if draw(st.integers(0, 7)) == 0:
            return draw(values)
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    return source, walk(answer)


@given(bent())
def test_any_answer_is_read_or_refused(case: tuple[str, Any]) -> None:
    source, answer = case
    try:
        quota = relay.quota_in_answer(QUOTA_SOURCES[source], answer)
    except relay.UNREADABLE:
        return
    assert quota.windows or quota.balance is not None
    assert is_sound(quota)


@given(st.dictionaries(st.sampled_from([*CLAUDE, *CODEX]), scalars.map(str)))
def test_any_headers_are_read(headers: dict[str, str]) -> None:
    quota = relay.quota_in_headers(headers, NOW)
    assert quota is None or (quota.windows and is_sound(quota))


@given(st.lists(quotas, min_size=1, max_size=5))
def test_what_is_known_has_each_window_once_and_the_latest_word(words: list[Quota]) -> None:
    known = Quota()
    for quota in words:
        known = quota.after(known)
    names = [window.name for window in known.windows]
    assert len(names) == len(set(names))
    assert {*words[-1].windows} <= {*known.windows}
    balances = [quota.balance for quota in words if quota.balance is not None]
    assert known.balance == (balances[-1] if balances else None)
    assert known.at == words[-1].at
    if known.balance is not None:
        assert known.earlier[0] >= known.balance


@given(windows, st.floats(NOW - 1e6, NOW + 1e6))
def test_a_forecast_is_ahead_and_before_the_reset(window: QuotaWindow, at: float) -> None:
    end = window.exhausted_at(at)
    if end is not None:
        assert at <= end + 1e-3
        assert end < window.resets


def test_a_reader_is_named_in_words_that_people_know() -> None:
    assert all(source.path.startswith("/") for source in QUOTA_SOURCES.values())
    assert all(source.auth in relay.AUTH_STYLES for source in QUOTA_SOURCES.values())
