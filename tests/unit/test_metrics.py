"""Metrics: what is counted, under how many names, and how it reads."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

import relay

Tool = Callable[[str], str]


def text_of(family: relay.Metric, is_openmetrics: bool = False) -> str:
    return "\n".join(family.lines(is_openmetrics))


def filled() -> relay.Metrics:
    """Metrics of which every family has a series."""
    metrics = relay.Metrics()
    for family in metrics.families():
        said = [f"value of {name}" for name in family.labels]
        if family.kind == "gauge":
            family.set(1.5, *said)
        for number in {"counter": (3,), "histogram": (0, 0.3, 7, 1e9)}.get(family.kind, ()):
            family.add(number, *said)
    return metrics


def test_a_counter_reads_so() -> None:
    requests = relay.Metric("counter", "relay.requests", "", "Requests.", "provider code")
    requests.add(1, "glm", "OK")
    requests.add(2, "glm", "OK")
    requests.add(1, "", "RL")
    assert text_of(requests).splitlines() == [
        "# HELP relay_requests_total Requests.",
        "# TYPE relay_requests_total counter",
        'relay_requests_total{provider="glm",code="OK"} 3',
        'relay_requests_total{code="RL"} 1',
    ]
    assert text_of(requests, True).startswith("# HELP relay_requests Requests.\n")


def test_a_gauge_reads_so_and_forgets_nothing() -> None:
    cooling = relay.Metric("gauge", "relay.cooldowns", "", "Marks.", "cause")
    cooling.set_all({"timeout": 2})
    cooling.set_all({"auth": 1})
    assert text_of(cooling).splitlines()[2:] == [
        'relay_cooldowns{cause="timeout"} 0',
        'relay_cooldowns{cause="auth"} 1',
    ]


def test_a_histogram_reads_so() -> None:
    seconds = relay.Metric("histogram", "relay.overhead", "s", "Waited.", "", (0.5, 2))
    for number in (0.5, 0.6, 1, 99):
        seconds.add(number)
    assert text_of(seconds).splitlines() == [
        "# HELP relay_overhead_seconds Waited.",
        "# TYPE relay_overhead_seconds histogram",
        'relay_overhead_seconds_bucket{le="0.5"} 1',
        'relay_overhead_seconds_bucket{le="2.0"} 3',
        'relay_overhead_seconds_bucket{le="+Inf"} 4',
        "relay_overhead_seconds_sum 101.1",
        "relay_overhead_seconds_count 4",
    ]


def test_too_many_values_of_a_label_are_other() -> None:
    requests = relay.Metric("counter", "relay.requests", "", "Requests.", "provider code")
    for number in range(1000):
        requests.add(1, f"provider {number}", "OK")
    assert len(requests.series) == 101
    assert requests.of("provider 7", "OK").number == 1
    assert requests.of(relay.OTHER, "OK").number == 900
    requests.add(1, "provider 7", "RL")  # known, and stays so
    assert requests.of("provider 7", "RL").number == 1


def test_too_many_series_are_other_altogether() -> None:
    requests = relay.Metric("counter", "relay.requests", "", "Requests.", "a b")
    for number in range(10_000):
        requests.add(1, str(number % 100), str(number // 100))
    assert len(requests.series) == 2001
    assert sum(each.number for each in requests.series.values()) == 10_000


def test_what_is_told_to_others_is_what_is_counted() -> None:
    told: list[tuple[float, dict[str, str]]] = []
    requests = relay.Metric(
        "counter", "relay.requests", "", "Requests.", "gen_ai.provider.name code"
    )
    requests.mirror = lambda number, labels: told.append((number, dict(labels)))
    requests.add(2, "glm", "")
    assert told == [(2, {"gen_ai.provider.name": "glm"})]


def test_names_are_those_of_the_conventions() -> None:
    """An alert or a dashboard of somebody's stands on each of them."""
    names = {family.base for family in relay.Metrics().families()}
    assert {
        "gen_ai_client_token_usage",
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
        "relay_requests",
        "relay_inflight",
        "relay_overhead_seconds",
        "relay_config_generation",
        "relay_reload",
        "process_resident_memory_bytes",
    } <= names
    assert all(re.fullmatch(r"(relay|gen_ai|process)_[a-z_]+", name) for name in names)


@pytest.mark.parametrize("parse", [prometheus, openmetrics])
def test_the_official_parser_reads_every_family(parse: Callable[[str], object]) -> None:
    metrics = filled()
    text = metrics.exposition(parse is openmetrics)
    read = {family.name: family for family in parse(text)}
    assert list(read) == [family.base for family in metrics.families()]
    assert [read[f.base].type for f in metrics.families()] == [f.kind for f in metrics.families()]
    counts = {
        sample.labels["le"]: sample.value
        for sample in read["relay_overhead_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert (counts["0.25"], counts["+Inf"]) == (1, 4)
    assert list(counts.values()) == sorted(counts.values())


def test_promtool_finds_nothing_to_complain_of(tool: Tool) -> None:
    command = [tool("promtool"), "check", "metrics"]
    ran = subprocess.run(command, input=filled().exposition(), text=True, capture_output=True)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


# ---- The dashboard


def expressions() -> list[str]:
    panels = relay.grafana_dashboard()["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_dashboard_asks_only_for_what_exists() -> None:
    families = relay.Metrics().families()
    known = {
        name
        for family in prometheus(filled().exposition())
        for name in (sample.name for sample in family.samples)
    }
    labels = {name.replace(".", "_") for family in families for name in family.labels}
    asked = {name for text in expressions() for name in re.findall(r"(\w+)\{", text)}
    assert len(asked) > 10
    assert asked <= known
    by = {name for text in expressions() for name in re.findall(r"by \(([^)]+)\)", text)}
    assert {label for names in by for label in names.split(", ")} <= labels | {"le"}
    matched = {name for text in expressions() for name in re.findall(r'(\w+)!?=~?"', text)}
    assert matched <= labels | {"instance"}
    legends = re.findall(r"\{\{(\w+)\}\}", json.dumps(relay.grafana_dashboard()))
    assert set(legends) <= labels | {"instance"}


def test_prometheus_can_read_the_queries(tool: Tool, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    command = [tool("promtool"), "check", "rules", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules)} rules found" in ran.stdout


def test_panels_do_not_cover_one_another() -> None:
    covered = [
        (x, y)
        for panel in relay.grafana_dashboard()["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(covered) == len(set(covered))
    assert max(x for x, _ in covered) == 23
    assert math.prod((24, max(y for _, y in covered) + 1)) == len(covered)
