"""OpenTelemetry: a collector of the test's own, which decodes what the real SDK sends."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from fake_upstream import TEXT, FakeUpstream, chat_error, chat_stream
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from relay_process import RelayProcess, Start, free_port
from talk import ask, config

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SERVER, CLIENT = 2, 3  # kinds of spans
ERROR = 2  # a status of spans


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as a dict."""
    pairs: Iterator[KeyValue] = iter(attributes)
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in pairs}


class Collector:
    """An OTLP/HTTP receiver."""

    def __init__(self) -> None:
        self.url = ""
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.holding: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        if self.holding:
            await self.holding.wait()
        data = await request.read()
        if request.headers.get("content-encoding") == "gzip":
            data = gzip.decompress(data)
        kind: type[Message] = (
            ExportTraceServiceRequest
            if request.path == "/v1/traces"
            else ExportMetricsServiceRequest
        )
        assert request.content_type == "application/x-protobuf"
        message: Any = kind.FromString(data)
        for group in getattr(message, "resource_spans", ()):
            self.resources.append(plain(group.resource.attributes))
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        for group in getattr(message, "resource_metrics", ()):
            for scope in group.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}
        return web.Response(content_type="application/x-protobuf")

    def of_kind(self, kind: int) -> list[Any]:
        return sorted(
            (s for s in self.spans if s.kind == kind), key=lambda s: s.start_time_unix_nano
        )


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    application = web.Application()
    application.router.add_post("/v1/{kind}", made.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    if made.holding:
        made.holding.set()
    await runner.cleanup()


def told(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}


async def test_a_request_is_a_span_and_each_attempt_one_within_it(
    collector: Collector, upstreams: Callable[[int], Any], relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(503, "busy"))
    server = await relay(config(first, second), env=told(collector))
    reply = await ask(http, server, headers={"traceparent": PARENT})
    assert reply.said.text == TEXT
    assert await server.stop() == 0  # what was not sent yet is sent now

    (request,) = collector.of_kind(SERVER)
    failed, answered = collector.of_kind(CLIENT)
    _, trace, parent, _ = PARENT.split("-")
    assert {span.trace_id.hex() for span in collector.spans} == {trace}
    assert request.parent_span_id.hex() == parent
    assert {failed.parent_span_id, answered.parent_span_id} == {request.span_id}
    for upstream, span in ((first, failed), (second, answered)):
        carried = upstream.requests[0].headers["traceparent"].split("-")
        assert carried[1:3] == [trace, span.span_id.hex()]

    facts = plain(answered.attributes)
    line = server.lines()[0]
    assert facts["gen_ai.operation.name"] == "chat"
    assert facts["gen_ai.provider.name"] == "second"
    assert facts["gen_ai.request.model"] == "m"
    assert facts["gen_ai.usage.input_tokens"] == line.tokens_in
    assert facts["gen_ai.usage.output_tokens"] == line.tokens_out
    assert (facts["server.address"], facts["server.port"]) == ("127.0.0.1", second.port)
    assert answered.name == "chat m"
    assert answered.status.code != ERROR
    assert plain(failed.attributes)["error.type"] == "overloaded"
    assert plain(failed.attributes)["http.response.status_code"] == 503
    assert failed.status.code == ERROR
    facts = plain(request.attributes)
    assert (facts["relay.code"], facts["relay.request_id"]) == ("OK", line.id)
    assert request.start_time_unix_nano <= failed.start_time_unix_nano
    assert answered.end_time_unix_nano <= request.end_time_unix_nano
    (about,) = {tuple(sorted(r.items())) for r in collector.resources}
    assert dict(about)["service.name"] == "relay"


async def test_without_a_parent_a_trace_begins_here(
    collector: Collector, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_stream(text="Hello."))
    server = await relay(config(upstream), env=told(collector, OTEL_SERVICE_NAME="my-relay"))
    await ask(http, server, stream=True, headers={"traceparent": "nonsense"})
    await server.stop()
    (request,), (attempt,) = collector.of_kind(SERVER), collector.of_kind(CLIENT)
    assert request.parent_span_id == b""
    assert upstream.requests[0].headers["traceparent"].split("-")[2] == attempt.span_id.hex()
    assert collector.resources[0]["service.name"] == "my-relay"


async def test_a_failure_is_one_in_the_trace_too(
    collector: Collector, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(400, "no"))
    server = await relay(config(upstream), env=told(collector))
    await ask(http, server)
    await server.stop()
    (request,) = collector.of_kind(SERVER)
    assert request.status.code == ERROR
    assert plain(request.attributes)["error.type"] == server.lines()[0].code


async def test_the_metrics_are_those_of_prometheus(
    collector: Collector, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream), env=told(collector))
    await ask(http, server)
    await server.stop()
    line = server.lines()[0]
    (requests,) = collector.metrics["relay.requests"].sum.data_points
    assert collector.metrics["relay.requests"].sum.is_monotonic
    assert plain(requests.attributes)["code"] == "OK"
    usage = {
        plain(point.attributes)["gen_ai.token.type"]: point
        for point in collector.metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    assert usage["input"].sum == line.tokens_in
    assert list(usage["output"].explicit_bounds)[:4] == [1, 4, 16, 64]
    duration = collector.metrics["gen_ai.server.request.duration"]
    assert duration.unit == "s"
    assert plain(duration.histogram.data_points[0].attributes)["gen_ai.request.model"] == "m"
    (build,) = collector.metrics["relay.build.info"].gauge.data_points
    assert plain(build.attributes)["version"]


async def test_a_collector_that_hangs_holds_nobody_up(
    collector: Collector, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    collector.holding = asyncio.Event()
    quick = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "50"}
    quick["OTEL_EXPORTER_OTLP_TIMEOUT"] = "600"  # seconds: the SDK alone would wait as long
    server = await relay(config(upstream), env=told(collector, **quick))
    for _ in range(20):
        assert (await ask(http, server)).said.text == TEXT
    assert await server.stop() == 0


async def test_a_collector_that_is_not_there_is_said_in_the_log(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    server = await relay(config(upstream), env=env)
    assert (await ask(http, server)).said.text == TEXT
    assert await server.stop() == 0
    assert all(record is not None for record in server.log())
    assert len(server.log()) == server.stderr.count("\n")  # nothing but lines of JSON


@pytest.mark.parametrize("env", [{}, {"OTEL_SDK_DISABLED": "true"}], ids=["unset", "disabled"])
async def test_without_it_a_client_s_own_trace_passes_through(
    env: dict[str, str],
    collector: Collector,
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    server: RelayProcess = await relay(
        config(upstream), env={**env, **(told(collector) if env else {})}
    )
    await ask(http, server, headers={"traceparent": PARENT})
    assert upstream.requests[0].headers["traceparent"] == PARENT
    await server.stop()
    assert collector.spans == []
