"""The hub: one answer in two spellings."""

import pytest
from laws.strategies import EFFORTS

import relay
from relay import (
    Failure,
    Finish,
    PartDelta,
    PartEnd,
    PartStart,
    Reasoning,
    Response,
    Seal,
    Start,
    Text,
    ToolCall,
    Usage,
)

SEAL = Seal("as", "EqAB", "0a1b2c3d")
ANSWER = Response(
    "id",
    "m",
    (Reasoning("Hm.", SEAL), Reasoning("", SEAL), Text("Hi"), ToolCall("c", "n", "{}"), Text("")),
    "tool_calls",
    Usage(9, 5, 3, 1, 2),
    "why",
)
STREAM = [
    Start("id", "m", Usage(9, 0, 3, 1, 0)),
    PartStart(Reasoning()),
    PartDelta("Hm."),
    PartEnd(SEAL),
    PartStart(Reasoning()),
    PartEnd(SEAL),
    PartStart(Text()),
    PartDelta("Hi"),
    PartEnd(),
    PartStart(ToolCall("c", "n")),
    PartDelta("{}"),
    PartEnd(),
    PartStart(Text()),
    PartEnd(),
    Finish("tool_calls", Usage(9, 5, 3, 1, 2), "why"),
]


def test_an_answer_is_spelled_as_a_stream() -> None:
    assert list(relay.unfold(ANSWER)) == STREAM


def test_a_stream_is_gathered_into_an_answer() -> None:
    assert relay.fold(STREAM) == ANSWER


def test_pieces_of_a_text_are_one_text() -> None:
    pieces = [PartStart(Text()), PartDelta("a"), PartDelta("b"), PartEnd(), Finish("stop")]
    assert relay.fold([Start(), *pieces]) == Response("", "", (Text("ab"),), "stop")


def test_a_stream_that_failed_folds_to_its_failure() -> None:
    failure = Failure("no", "1308")
    assert relay.fold([*STREAM[:4], failure]) is failure


@pytest.mark.parametrize("length", range(len(STREAM)))
def test_a_stream_without_an_end_folds_to_a_truncation(length: int) -> None:
    assert relay.fold(STREAM[:length]) == relay.TRUNCATED


LATEST = [
    (Usage(5, 1), Usage(0, 9), Usage(5, 9)),
    (Usage(5, 1, 3), Usage(7, 9), Usage(7, 9, 3)),
    (Usage(), Usage(1, 2, 3, 4, 5), Usage(1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(("old", "new", "both"), LATEST)
def test_later_counts_win_and_what_they_leave_out_stands(
    old: Usage, new: Usage, both: Usage
) -> None:
    assert relay.latest(old, new) == both


# Effort and budget: PROTOCOLS.md 2.2.3

WORDS = [
    (relay.Thinking(False), "none"),
    (relay.Thinking(False, "high"), "none"),
    (relay.Thinking(True), ""),
    (relay.Thinking(True, "max"), "max"),
    (relay.Thinking(True, "low", 30000), "low"),
    (relay.Thinking(True, "", 0), "none"),
    (relay.Thinking(True, "", 1024), "minimal"),
    (relay.Thinking(True, "", 1025), "low"),
    (relay.Thinking(True, "", 4096), "low"),
    (relay.Thinking(True, "", 10000), "medium"),
    (relay.Thinking(True, "", 12000), "medium"),
    (relay.Thinking(True, "", 16000), "high"),
    (relay.Thinking(True, "", 20000), "high"),
    (relay.Thinking(True, "", 28000), "xhigh"),
    (relay.Thinking(True, "", 31999), "max"),
]


@pytest.mark.parametrize(("thinking", "word"), WORDS)
def test_a_budget_is_an_effort_where_only_words_are_known(
    thinking: relay.Thinking, word: str
) -> None:
    assert thinking.level() == word


TOKENS = [("minimal", 1024), ("low", 2048), ("medium", 8192), ("high", 16384), ("xhigh", 24576)]


@pytest.mark.parametrize(("effort", "tokens"), [*TOKENS, ("max", 31999), ("", 8192)])
def test_an_effort_is_a_budget_where_only_numbers_are_known(effort: str, tokens: int) -> None:
    assert relay.Thinking(True, effort).tokens() == tokens
    assert relay.Thinking(True, effort, 5000).tokens() == 5000


@pytest.mark.parametrize("effort", EFFORTS[1:])
def test_effort_survives_the_way_over_a_budget(effort: str) -> None:
    budget = relay.Thinking(True, effort).tokens()
    assert relay.Thinking(True, "", budget).level() == effort


def test_values_are_values() -> None:
    """Equal content is equal; that nothing is changed, the type checker sees."""
    assert Text("a") == Text("a")
    assert len({Text("a"), Text("a"), Text("b")}) == 2
    with pytest.raises(AttributeError):
        ANSWER.more = ()  # type: ignore[attr-defined]
