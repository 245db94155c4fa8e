"""Silence has a limit, over however many reads, and only where somebody waits for it."""

import asyncio

import pytest
from relay_process import SOON

import relay


class Scripted(relay.Reply):
    """Says something after each of these pauses, then never again."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = list(pauses)

    async def read(self) -> bytes:
        await (asyncio.sleep(self.pauses.pop(0)) if self.pauses else asyncio.Event().wait())
        return b"x"

    def close(self) -> None: ...


async def one_from(reply: relay.Reply, silence: relay.IdleTimeout) -> list[bytes]:
    taken = list[bytes]()
    await silence.feed_to(reply, taken.append)
    return taken


async def test_silence_ends_it() -> None:
    silence = relay.IdleTimeout(0.05, "went silent")
    with pytest.raises(relay.UpstreamError, match="went silent") as caught:
        async with asyncio.timeout(SOON), silence:
            await one_from(Scripted(), silence)
    assert caught.value.failure.name == "timeout"
    assert silence.timeout.expired()


async def test_many_short_pauses_are_no_silence() -> None:
    reply = Scripted(*[0.5] * 5)  # together longer than the limit, each far below it
    async with asyncio.timeout(SOON), relay.IdleTimeout(2, "went silent") as silence:
        for _ in range(5):
            assert await one_from(reply, silence) == [b"x"]
    assert not silence.timeout.expired()


async def test_many_short_pauses_of_one_flow_are_no_silence() -> None:
    reply, taken = Scripted(*[0.5] * 5), list[bytes]()
    silence = relay.IdleTimeout(2, "went silent")

    def take(block: bytes) -> bool:
        silence.restart()
        taken.append(block)
        return True

    with pytest.raises(relay.UpstreamError, match="went silent"):
        async with asyncio.timeout(SOON), silence:
            await silence.feed_to(reply, take)
    assert taken == [b"x"] * 5


async def test_only_reading_counts() -> None:
    reply = Scripted(0, 0)
    async with asyncio.timeout(SOON), relay.IdleTimeout(1, "went silent") as silence:
        await one_from(reply, silence)
        await asyncio.sleep(1.5)  # a client that is slow to take what it was given
        await one_from(reply, silence)


async def test_a_shorter_limit_holds_at_once() -> None:
    silence = relay.IdleTimeout(60, "went silent")
    with pytest.raises(relay.UpstreamError):
        await shortened(silence)


async def shortened(silence: relay.IdleTimeout) -> None:
    async with asyncio.timeout(SOON), silence:
        await one_from(Scripted(0), silence)
        silence.shorten(0.05)
        await one_from(Scripted(), silence)


async def test_another_timeout_stays_another() -> None:
    silence = relay.IdleTimeout(60, "went silent")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), silence:
            await one_from(Scripted(), silence)
    assert not silence.timeout.expired()


async def test_one_timer_serves_many_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def counting(when: float, *args: object, **options: object) -> object:
        timers.append(when)
        return call_at(when, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counting)
    reply = Scripted()
    monkeypatch.setattr(reply, "read", _at_once)
    async with relay.IdleTimeout(60, "went silent") as silence:
        for _ in range(1000):
            await one_from(reply, silence)
    assert len(timers) == 1


async def _at_once() -> bytes:
    return b"x"
