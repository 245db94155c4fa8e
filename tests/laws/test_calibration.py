"""What relay estimates comes close to what providers count, however a model counts."""

import random

from hypothesis import given
from hypothesis import strategies as st

import relay

rates = st.floats(0.3, 2.5)


def conversations(chance: random.Random, rate: float) -> list[tuple[str, int, int]]:
    """Agents that take turns: conversation, estimated tokens, true ones.  Each prompt begins as the
    one before, and what is added is prose, code or data, which models count differently."""
    sizes = {name: chance.randrange(5_000, 40_000) for name in "abcdef"}
    true = {name: size * rate * chance.uniform(0.8, 1.2) for name, size in sizes.items()}
    turns = list[tuple[str, int, int]]()
    for _ in range(60):
        name = chance.choice("abcdef")
        added = chance.randrange(50, 4_000)
        sizes[name] += added
        true[name] += added * rate * chance.uniform(0.7, 1.3)
        turns.append((name, sizes[name], round(true[name])))
    return turns


@given(seed=st.integers(0, 2**32), rate=rates)
def test_after_twenty_requests_an_estimate_is_within_five_percent(seed: int, rate: float) -> None:
    calibration, known, errors = relay.Calibration(), set[str](), list[float]()
    for number, (name, estimated, true) in enumerate(conversations(random.Random(seed), rate)):
        if number >= 20 and name in known:
            guess = calibration.corrected("p/m", name, estimated)
            assert guess is not None
            errors.append(abs(guess / true - 1))
        known.add(name)
        calibration.learn("p/m", name, estimated, true)
    assert sum(errors) / len(errors) < 0.02
    assert sorted(errors)[len(errors) * 9 // 10] < 0.05


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("mn"), st.sampled_from("ab"), st.integers(-5, 10**9),
                  st.integers(-5, 10**8)),
        max_size=40,
    )
)  # fmt: skip
def test_whatever_is_learned_estimates_stay_bounded(steps: list[tuple[str, str, int, int]]) -> None:
    """And what a store brings back is what was learned."""
    calibration, other = relay.Calibration(), relay.Calibration()
    for model, conversation, estimated, true in steps:
        calibration.learn(model, conversation, estimated, true)
        for record in calibration.collect():
            other.adopt(relay.loads(relay.dumps(record)))
    for model in "mn":
        guess = calibration.corrected(model, "new", 1000)
        assert guess is None or 100 <= guess <= 10_000
        brought = other.corrected(model, "new", 1000)
        assert (brought is None) == (guess is None)
    assert calibration.corrected("unknown", "a", 1000) is None
