"""Whatever a label's value is, the text can be read, and says what was counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

import relay

VALUES = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "a\\n", "{}", "\ud800", "é\u2028"]
)
SAID = st.lists(st.tuples(VALUES, VALUES), max_size=20)


@pytest.mark.parametrize(("parse", "is_openmetrics"), [(prometheus, False), (openmetrics, True)])
@given(said=SAID)
def test_every_count_can_be_read_back(
    parse: object, is_openmetrics: bool, said: list[tuple[str, str]]
) -> None:
    metrics = relay.Metrics()
    for key, code in said:
        metrics.callers.add(1, key, code)
    families = {f.name: f for f in parse(metrics.exposition(is_openmetrics))}  # type: ignore[operator]
    read = Counter[tuple[str, str]]()
    for sample in families["relay_key_requests"].samples:
        read[sample.labels.get("key", ""), sample.labels.get("code", "")] += int(sample.value)
    assert sum(read.values()) == len(said)
    plain = Counter(pair for pair in said if "".join(pair).isprintable())
    assert all(read[pair] >= count for pair, count in plain.items())


@given(numbers=st.lists(st.floats(0, 1e9), max_size=50))
def test_a_histogram_counts_each_number_once(numbers: list[float]) -> None:
    histogram = relay.Metric("histogram", "relay.overhead", "s", "Waited.", "", (0.5, 2, 100))
    for number in numbers:
        histogram.add(number)
    text = "\n".join([*histogram.lines(openmetrics=True), "# EOF", ""])
    (family,) = openmetrics(text)
    counts = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    expected = {le: sum(n <= float(le) for n in numbers) for le in ("0.5", "2.0", "100.0", "+Inf")}
    assert counts == (expected if numbers else {})
