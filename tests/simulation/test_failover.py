"""The simulation keeps its promise, on a small scale."""

from __future__ import annotations

from simulation import failover


def test_conversations_keep_their_caches_and_sick_keys_are_left_alone() -> None:
    runs = {name: failover.run(plays, 150) for name, plays in failover.STRATEGIES.items()}
    ours, theirs = runs["relay"], runs["round robin, every key tried"]
    assert ours["turns"] == theirs["turns"] > 1000
    assert ours["later turns"] == theirs["later turns"]
    assert ours["hits"] > 0.95 * ours["later turns"]
    assert theirs["hits"] < 0.8 * theirs["later turns"]
    assert ours["wasted"] * 4 < theirs["wasted"]
    assert ours["errors"] < 1.5 * theirs["errors"] + 5  # all keys down at once, nobody hides
    assert ours["errors"] * 10 < runs["round robin, one try"]["errors"]


def test_the_same_afternoon_has_the_same_end() -> None:
    first, second = (failover.run(failover.Relay, 60) for _ in range(2))
    assert first == second
