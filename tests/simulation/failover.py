"""A thousand conversations over five keys of one plan, through an afternoon with outages.

    python tests/simulation/failover.py [CONVERSATIONS]

Prints how relay fares beside a plain round robin over the same keys: prompt caches that were
hit, errors that clients saw, attempts that came to nothing.  relay's side is its own code (Plan,
Balance, Health, Failures, Verdict) against a simulated clock; the provider's side is a table of
outages, told in the provider's own words.  Nothing is random but the conversations, and those
are the same for everybody.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # for the command; pytest has them already

from unit.configs import plan_of  # noqa: E402

import relay  # noqa: E402

START = datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp()
CONVERSATIONS = 1000
SPAN = 7200.0  # seconds in which they begin
TURNS = 12  # of a conversation, on average
PAUSE = 45.0  # seconds between an answer and the next turn, on average
THINKING = 3.0  # seconds to the first event of a good answer
REFUSING = 0.3  # seconds to an error
CACHE_LIFE = 300.0  # seconds since an account's cache was read last
PATIENCE = 10.0  # seconds until a client that was not told when to come back tries again

KEYS = ("key-1", "key-2", "key-3", "key-4", "key-5")
CONFIG = f"""
providers:
  glm: {{preset: zai, billing_plans: [coding], api_key: [{", ".join(KEYS)}]}}
"""


class Outage(NamedTuple):
    """From when to when a key fails (none: all of them), and what the provider says."""

    key: str
    begins: float
    ends: float
    status: int
    body: str
    retry_after: str = ""


CHINA = timezone(timedelta(hours=8))
RESET = datetime.fromtimestamp(START + 5400, CHINA).strftime("%Y-%m-%d %H:%M:%S")
OUTAGES = (
    *(  # one key is throttled for half a minute of every ten
        Outage("key-1", at, at + 30, 429, '{"error":{"code":"1302","message":"busy"}}', "30")
        for at in range(300, 9000, 600)
    ),
    Outage("key-2", 1800, 5400, 401, '{"error":{"code":"1000","message":"key disabled"}}'),
    Outage("key-3", 3000, 5400, 429, '{"error":{"code":"1308","message":'
           f'"Usage limit reached for 5 hour. Your limit will reset at {RESET}"}}}}'),
    Outage("", 4200, 4245, 529, '{"error":{"type":"overloaded_error","message":"overloaded"}}'),
    Outage("key-4", 6000, 6300, 500, '{"error":{"message":"internal error"}}'),
)  # fmt: skip


class Conversation(NamedTuple):
    name: str
    begins: float
    pauses: tuple[float, ...]  # before each turn


def conversations(count: int) -> list[Conversation]:
    chance = random.Random(1)

    def pauses() -> tuple[float, ...]:
        turns = 1 + int(chance.expovariate(1 / (TURNS - 1)))
        return (0.0, *(chance.expovariate(1 / PAUSE) for _ in range(turns - 1)))

    return [Conversation(f"c{n}", chance.uniform(0, SPAN), pauses()) for n in range(count)]


@dataclass
class World:
    """The clock, the provider, and what is counted."""

    now: float = START
    counts: Counter[str] = field(default_factory=Counter)
    warm: dict[tuple[str, str], float] = field(default_factory=dict)  # key, conversation -> last

    def ask(self, key: str) -> Outage | None:
        """One attempt: the outage that it meets."""
        at = self.now - START
        self.counts["attempts"] += 1
        met = (o for o in OUTAGES if o.key in ("", key) and o.begins <= at < o.ends)
        outage = next(met, None)
        self.counts["wasted"] += outage is not None
        return outage

    def answered(self, key: str, name: str, turn: int) -> None:
        last = self.warm.get((key, name))
        if turn:
            self.counts["later turns"] += 1
            self.counts["hits"] += last is not None and self.now - last < CACHE_LIFE
        self.warm[key, name] = self.now


# What takes its time yields the seconds that it waits, and then ends with a result.
Sending = Generator[float, None, float | None]
Attempting = Generator[float, None, relay.UpstreamError | None]


class Strategy:
    """Sends a turn, one request of a client."""

    def __init__(self, world: World) -> None:
        self.world = world

    def send(self, name: str, turn: int) -> Sending:
        """None: answered; else the seconds until its client should try again."""
        raise NotImplementedError


class RoundRobin(Strategy):
    """The next key for each request; after a failure the one behind it, once around."""

    tries = len(KEYS)
    turn = 0

    def send(self, name: str, turn: int) -> Sending:
        for _ in range(self.tries):
            key = KEYS[self.turn % len(KEYS)]
            self.turn += 1
            outage = self.world.ask(key)
            yield REFUSING if outage else THINKING
            if not outage:
                self.world.answered(key, name, turn)
                return None
        return PATIENCE


class OneTry(RoundRobin):
    tries = 1


class Relay(Strategy):
    """The order of lanes, the marks and the verdict of relay itself."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        plan = plan_of(CONFIG)
        route = plan.route("glm-4.6")
        assert route
        self.route = route
        self.health = relay.Health()
        self.balance = relay.Balance(self.health)

    def send(self, name: str, turn: int) -> Sending:
        failures = list[tuple[relay.Lane, relay.UpstreamError]]()
        skipped = list[tuple[relay.Lane, relay.Mark]]()
        for last_resort in (False, True):
            skipped.clear()
            lanes = self.balance.lanes(self.route, "openai", name, lambda: self.world.now)
            for lane, mark in lanes:
                if mark and not (last_resort and mark.worth_a_try):
                    skipped.append((lane, mark))
                    continue
                error = yield from self.attempt(lane, name, turn)
                if error is None:
                    return None
                failures.append((lane, error))
            if failures:
                break
        return relay.final_error(failures, skipped, self.world.now).retry_after or PATIENCE

    def attempt(self, lane: relay.Lane, name: str, turn: int) -> Attempting:
        """As `Relay.attempt` does: the probe is held while the attempt runs."""
        began, key = self.world.now, lane.credential.secret
        flight = self.balance.begin_attempt(lane, self.route)
        with self.health.attempting(lane, began):
            outage = self.world.ask(key)
            yield REFUSING if outage else THINKING
            flight.end()
            now = self.world.now
            if outage is None:
                self.health.succeeded(lane, name, now, began)
                self.world.answered(key, name, turn)
                return None
            error = classified(lane, outage, now)
            self.health.failed(lane, error, now, began, name)
            return error


def classified(lane: relay.Lane, outage: Outage, now: float) -> relay.UpstreamError:
    said = relay.error_in(outage.body.encode(), outage.status)
    headers = {"retry-after": outage.retry_after} if outage.retry_after else {}
    provider = lane.target.provider
    verdict = relay.classify_error(provider.rules, outage.status, said, headers, now, provider.zone)
    error = relay.UpstreamError(
        verdict.failure, verdict.message, retry_after=verdict.until, scope=verdict.scope
    )
    error.at = now
    return error


def client(world: World, strategy: Strategy, conversation: Conversation) -> Iterator[float]:
    """Turn after turn; what fails is tried again when the error says."""
    yield conversation.begins
    for turn, pause in enumerate(conversation.pauses):
        yield pause
        world.counts["turns"] += 1
        for attempt in itertools.count():
            wait = yield from strategy.send(conversation.name, turn)
            if wait is None:
                break
            world.counts["errors"] += attempt == 0  # how soon it comes again is its own affair
            yield min(max(1.0, wait), 60.0)


def run(strategy: Callable[[World], Strategy], count: int = CONVERSATIONS) -> Counter[str]:
    """All conversations beside one another, to their end."""
    world = World()
    plays = strategy(world)
    queue: list[tuple[float, int, Iterator[float]]] = [
        (START, n, client(world, plays, c)) for n, c in enumerate(conversations(count))
    ]
    heapq.heapify(queue)
    while queue:
        world.now, n, play = heapq.heappop(queue)
        wait = next(play, None)
        if wait is not None:
            heapq.heappush(queue, (world.now + wait, n, play))
    return world.counts


STRATEGIES: dict[str, Callable[[World], Strategy]] = {
    "relay": Relay,
    "round robin, one try": OneTry,
    "round robin, every key tried": RoundRobin,
}


def rows(count: int = CONVERSATIONS) -> list[tuple[str, ...]]:
    made = []
    for name, strategy in STRATEGIES.items():
        counts = run(strategy, count)
        hits = counts["hits"] / counts["later turns"]
        figures = (counts["turns"], f"{hits:.1%}", counts["errors"], counts["wasted"])
        made.append((name, *(str(figure) for figure in figures)))
    return made


HEAD = ("", "turns", "prompt caches hit", "turns that met an error", "wasted attempts")


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else CONVERSATIONS
    for row in (HEAD, *rows(count)):
        print(f"{row[0]:30}" + "".join(f"{cell:>24}" for cell in row[1:]))


if __name__ == "__main__":
    main()
