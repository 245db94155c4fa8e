"""Memory and the store in step, when something comes between."""

import asyncio
import contextlib
from collections.abc import Sequence

import relay

CALLER = relay.Caller("alice", limits=relay.LimitConfig(concurrent=1))


class SharedStore(relay.MemoryStore):
    """A store that admits everybody, and notes whom it was asked about."""

    shares_limits = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.ended: list[str] = []

    async def sync(
        self,
        batch: relay.Batch,
        labels: Sequence[str],
        asked: Sequence[relay.Permit],
        running: Sequence[relay.Permit],
    ) -> relay.News:
        self.ended += [end.id for end in batch.ended]
        self.asked += [permit.id for permit in asked]
        return relay.News(judgements=[relay.Judgement(None) for _ in asked])


def keeper_of(store: relay.Store, limits: relay.Limits) -> relay.Keeper:
    notebook = relay.Notebook(relay.Health())
    return relay.Keeper(store, relay.Ledger(), limits, notebook, list, lambda *said: None)


async def test_who_left_before_being_asked_about_is_not_asked_about() -> None:
    """What has ended is told first: a permit that came behind its end would stay out."""
    store, limits = SharedStore(), relay.Limits()
    keeper = keeper_of(store, limits)
    permit = limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    waiting = asyncio.create_task(keeper.judged(permit))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    limits.settle(permit, relay.Spend(), 0.0)
    await keeper.sync()
    assert (store.ended, store.asked) == (["1"], [])


def test_a_store_that_is_down_for_long_costs_no_memory_without_end() -> None:
    limits = relay.Limits()
    for number in range(30_000):
        permit = limits.admit(f"{number}", CALLER, relay.Spend(), number, number)
        limits.settle(permit, relay.Spend(), number)
    _, ended = limits.collect()
    assert len(ended) == 10_000
    assert ended[-1].id == "29999"
    sticky = relay.Stickiness()
    for number in range(30_000):
        sticky.bind(f"{number}", "first/regular/1", number)
    assert len(sticky.collect()) == 10_000


class Garbled(SharedStore):
    """It answers, but not in words that this version knows."""

    async def sync(self, *asked: object) -> relay.News:
        raise ValueError("not enough values to unpack")


async def test_a_store_that_cannot_be_understood_is_one_that_is_down() -> None:
    """Who waits for its word is let in by what is known here; nobody waits for ever."""
    limits = relay.Limits()
    keeper = keeper_of(Garbled(), limits)
    permit = limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    waiting = asyncio.create_task(keeper.judged(permit))
    await asyncio.sleep(0)
    await keeper.sync()
    assert await waiting is None
    assert keeper.trouble
