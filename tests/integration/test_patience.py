"""Silence has a limit, over however many reads, and only where somebody waits for it."""

import asyncio

import pytest
from relay_process import SOON

import relay


class Scripted:
    """Says something after each of these pauses, then never again."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = list(pauses)

    async def read(self) -> bytes:
        await (asyncio.sleep(self.pauses.pop(0)) if self.pauses else asyncio.Event().wait())
        return b"x"


async def test_silence_ends_it() -> None:
    patience = relay.Patience(0.05, "went silent")
    with pytest.raises(relay.UpstreamError, match="went silent") as caught:
        async with asyncio.timeout(SOON), patience:
            await patience.read(Scripted())
    assert caught.value.failure.name == "timeout"
    assert patience.spent


async def test_many_short_pauses_are_no_silence() -> None:
    reply = Scripted(*[0.5] * 5)  # together longer than the limit, each far below it
    async with asyncio.timeout(SOON), relay.Patience(2, "went silent") as patience:
        for _ in range(5):
            assert await patience.read(reply) == b"x"
    assert not patience.spent


async def test_only_reading_counts() -> None:
    reply = Scripted(0, 0)
    async with asyncio.timeout(SOON), relay.Patience(1, "went silent") as patience:
        await patience.read(reply)
        await asyncio.sleep(1.5)  # a client that is slow to take what it was given
        await patience.read(reply)


async def test_a_shorter_limit_holds_at_once() -> None:
    patience = relay.Patience(60, "went silent")
    with pytest.raises(relay.UpstreamError):
        await shortened(patience)


async def shortened(patience: relay.Patience) -> None:
    async with asyncio.timeout(SOON), patience:
        await patience.read(Scripted(0))
        patience.shorten(0.05)
        await patience.read(Scripted())


async def test_another_timeout_stays_another() -> None:
    patience = relay.Patience(60, "went silent")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), patience:
            await patience.read(Scripted())
    assert not patience.spent


async def test_one_timer_serves_many_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counting(when: float, *args: object, **options: object) -> object:
        timers.append(when)
        return call_at(when, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counting)
    reply = Scripted()
    monkeypatch.setattr(reply, "read", _at_once)
    async with relay.Patience(60, "went silent") as patience:
        for _ in range(1000):
            await patience.read(reply)
    assert len(timers) == 1


async def _at_once() -> bytes:
    return b"x"
