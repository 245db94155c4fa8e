"""Over any requests and clocks: what the ledger gives away is what was added, hour by hour."""

import datetime
import zoneinfo

from hypothesis import given
from hypothesis import strategies as st

import relay

BEGAN = 1_700_000_000
ZONES = (
    None,
    datetime.UTC,
    # an hour or half an hour is added or taken away, at two, at midnight, at a quarter to three
    *map(
        zoneinfo.ZoneInfo,
        ("Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "Pacific/Chatham"),
    ),
    *map(zoneinfo.ZoneInfo, ("Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns")),
)
# seconds: often little, and over years so that clocks are changed in between
waits = st.floats(0, 4000) | st.floats(-5000, 5000) | st.floats(0, 90 * relay.DAY)
whos = st.tuples(*(st.sampled_from(("", "a", "b")) for _ in range(3)))


@given(steps=st.lists(st.tuples(waits, st.sampled_from(ZONES)), max_size=60))
def test_a_clock_says_what_the_local_clocks_say(
    steps: list[tuple[float, datetime.tzinfo | None]],
) -> None:
    """Although each of them is read only once a quarter of an hour."""
    now = float(BEGAN)
    for wait, zone in steps:
        now += wait
        local, clock = datetime.datetime.fromtimestamp(now, zone), relay.clock_at(now, zone)
        assert clock.hour == int(now) - local.minute * 60 - local.second
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        assert clock.day == int(midnight.timestamp())
        assert clock.periods == (f"{local:%Y-%m-%d}", f"{local:%Y-%m}")


@given(zone=st.sampled_from(ZONES), day=st.integers(0, 1000), seconds=st.integers(0, 90_000))
def test_a_day_begins_once(zone: datetime.tzinfo | None, day: int, seconds: int) -> None:
    """Also where its first hour comes twice."""
    now = BEGAN + day * relay.DAY + seconds
    began = relay.clock_at(now, zone).day
    assert began <= now < began + 25 * relay.HOUR
    assert relay.clock_at(began, zone).periods == relay.clock_at(now, zone).periods
    assert relay.clock_at(began - 1, zone).periods != relay.clock_at(now, zone).periods


@given(
    steps=st.lists(st.tuples(st.floats(0, 4000), whos, st.booleans()), max_size=60),
    zone=st.sampled_from(ZONES),
)
def test_what_is_given_away_is_what_was_added(
    steps: list[tuple[float, tuple[str, str, str], bool]], zone: datetime.tzinfo | None
) -> None:
    """To its hour and to its day, whenever the store comes for it."""
    ledger, now = relay.Ledger(), float(BEGAN)
    added, given_away = dict[relay.Row, int](), dict[relay.Row, int]()

    def collect() -> None:
        for row, totals in ledger.collect()[0].items():
            given_away[row] = given_away.get(row, 0) + totals.requests

    for wait, who, comes in steps:
        now += wait
        ledger.totals(who, now, zone).requests += 1
        for span, start in zip((relay.HOUR, relay.DAY), relay.clock_at(now, zone)[:2], strict=True):
            row = relay.Row(span, start, *who)
            added[row] = added.get(row, 0) + 1
        if comes:
            collect()
    collect()
    assert given_away == added


def test_an_hour_has_so_many_rows_and_no_more() -> None:
    ledger = relay.Ledger()
    for number in range(3000):
        ledger.totals(("alice", "p", f"made-up-{number}"), BEGAN, None).requests += 1
        if number % 500 == 0:
            ledger.collect()  # the store comes and goes, and changes nothing of that
    ledger.totals(("alice", "p", "made-up-7"), BEGAN, None).requests += 1
    rows, _ = ledger.collect()
    hour = {row.model: totals.requests for row, totals in rows.items() if row.span == relay.HOUR}
    assert hour == {relay.OTHERS: 500 - 1, "made-up-7": 1}
