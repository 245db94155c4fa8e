"""Every pair of dialects in this process: a long request translated, a long stream passed."""

import time
import tracemalloc
from collections.abc import Iterator

import wire

import relay

DELTAS = 10_000


def pairs() -> Iterator[tuple[relay.Dialect, relay.Dialect]]:
    return ((c, p) for c in relay.DIALECTS.values() for p in relay.DIALECTS.values())


def row(client: relay.Dialect, provider: relay.Dialect) -> list[str]:
    request = min(request_us(client, provider) for _ in range(5))
    events = stream(provider)
    each = min(stream_us(client, provider, events) for _ in range(3)) / DELTAS
    peak = peak_mb(client, provider, events)
    return [f"{client.name} to {provider.name}", f"{request:,.0f}", f"{each:.2f}", f"{peak:.1f}"]


def request_us(client: relay.Dialect, provider: relay.Dialect) -> float:
    """Of the bytes that came, the bytes that go out."""
    data = wire.body(client, "agent", True)
    began = time.process_time_ns()
    body = relay.Body(data)
    if client is provider:
        if "model" in body.wire:
            body.outgoing("another")
    else:
        request = client.parse_request(body.exact)
        request = relay.replace(request, messages=relay.repaired(request.messages))
        quirks = getattr(provider, "quirks", relay.Quirks)()
        relay.dumps(provider.render_request(request, quirks, "").body)
    return (time.process_time_ns() - began) / 1000


def stream(provider: relay.Dialect) -> list[bytes]:
    """An answer of 10,000 deltas in the blocks a provider sends."""
    encoder = provider.encoder(relay.AnswerContext("bench", "bench"))
    usage = relay.Usage(input=11, output=DELTAS)
    texts = [relay.PartDelta(" word") for _ in range(DELTAS)]
    begin = [relay.Start("an-id", "bench", usage), relay.PartStart(relay.Text())]
    events = [*begin, *texts, relay.PartEnd(), relay.Finish("stop", usage)]
    return [said for said in map(encoder.encode, events) if said]


def pipe_of(client: relay.Dialect, provider: relay.Dialect) -> relay.Pipe:
    return relay.Streamed(relay.AnswerPath(provider, client, relay.AnswerContext("bench", "bench")))


def stream_us(client: relay.Dialect, provider: relay.Dialect, blocks: list[bytes]) -> float:
    pipe = pipe_of(client, provider)
    began = time.process_time_ns()
    for block in blocks:
        pipe.feed(block)
    pipe.eof()
    return (time.process_time_ns() - began) / 1000


def peak_mb(client: relay.Dialect, provider: relay.Dialect, blocks: list[bytes]) -> float:
    """What is allocated at once, at the most, while the stream passes."""
    tracemalloc.start()
    try:
        stream_us(client, provider, blocks)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
