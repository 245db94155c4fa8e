"""The memory of reasoning: bounded, private to a conversation, and put back once at its turn."""

from hypothesis import given
from hypothesis import strategies as st

import relay

IDS = st.sampled_from(["a", "b", "c", "d"])
TEXTS = st.text(max_size=8)
SEALS = st.builds(relay.Seal, st.just("as"), st.text(min_size=1, max_size=8))
THOUGHTS = st.builds(relay.Reasoning, TEXTS, SEALS)
ANSWERS = st.lists(THOUGHTS | st.builds(relay.ToolCall, IDS, st.just("f")), max_size=5)
PARTS = st.builds(relay.Text, TEXTS) | st.builds(relay.ToolCall, IDS, st.just("f")) | THOUGHTS
MESSAGES = st.lists(
    st.builds(
        relay.Message,
        st.just("assistant"),
        st.lists(PARTS, max_size=4).map(tuple),
    ),
    max_size=5,
)
ONCE = [relay.ToolCall("a", "f"), relay.ToolCall("b", "f")]


@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), ANSWERS), max_size=30))
def test_it_is_bounded_and_knows_its_size(
    answers: list[tuple[str, list[relay.OutputPart]]],
) -> None:
    memory = relay.Thoughts()
    memory.MOST, memory.MOST_SIZE = 3, 20  # type: ignore[misc]
    for identity, parts in answers:
        memory.keep(identity, parts)
        turns = [turn for turn, _ in memory._values.values()]
        assert len(turns) <= 3
        length = sum(len(t.text) + len(t.seal.value) for turn in turns for t in turn if t.seal)
        assert memory.size == length <= 20


@given(ANSWERS, MESSAGES)
def test_only_turns_with_known_calls_and_no_sealed_thought_change(
    parts: list[relay.OutputPart], messages: list[relay.Message]
) -> None:
    memory = relay.Thoughts()
    memory.keep("x", parts)
    assert memory.restored("y", messages) == tuple(messages)
    known = {part.id for part in parts if isinstance(part, relay.ToolCall)}
    for before, after in zip(messages, memory.restored("x", messages), strict=True):
        thoughts = [part for part in before.parts if isinstance(part, relay.Reasoning)]
        others = [part for part in before.parts if not isinstance(part, relay.Reasoning)]
        calls = {part.id for part in before.parts if isinstance(part, relay.ToolCall)}
        assert [p for p in after.parts if not isinstance(p, relay.Reasoning)] == others
        if thoughts or not calls & known:
            assert after == before


@given(st.lists(THOUGHTS, min_size=1, max_size=3), TEXTS)
def test_a_turn_gets_back_what_was_thought_in_it(
    thoughts: list[relay.Reasoning], text: str
) -> None:
    memory = relay.Thoughts()
    memory.keep("x", [*thoughts, *ONCE])
    turn = relay.Message("assistant", (relay.Text(text), *ONCE))
    for _ in range(2):
        [after] = memory.restored("x", [turn])
        assert after.parts == (*thoughts, *turn.parts)
    bare = "".join(thought.text for thought in thoughts)
    echo = relay.Message("assistant", (relay.Reasoning(bare), *turn.parts))
    assert memory.restored("x", [echo]) == (after,)
    memory.keep("x", ONCE)  # the same ids in a later answer, which says nothing of the kind
    assert memory.restored("x", [turn]) == (turn,)


def test_what_was_used_longest_ago_goes_first() -> None:
    memory = relay.Thoughts()
    memory.MOST = 2  # type: ignore[misc]
    first, second, third = (relay.ToolCall(id, "f") for id in "abc")
    thought = relay.Reasoning("hm", relay.Seal("as", "s"))
    memory.keep("x", [thought, first])
    memory.keep("x", [thought, second])
    memory.restored("x", [relay.Message("assistant", (first,))])
    memory.keep("x", [thought, third])
    turns = memory.restored("x", [relay.Message("assistant", (c,)) for c in (first, second, third)])
    assert [len(turn.parts) for turn in turns] == [2, 1, 2]
