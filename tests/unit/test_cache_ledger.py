"""Why a prompt cache was missed: which part of the prompt changed, and by whose doing."""

from __future__ import annotations

import timeit
from typing import Any

import pytest

import relay

T = 1_700_000_000.0
MARK = {"type": "ephemeral"}
LONG = "You are a careful programmer. " * 100
WAY = relay.SentAs("claude-x", "a/plan/1", "a/m", ("endpoint", "verbatim", ()))


def prompt(turns: int = 3, **changes: Any) -> relay.JSON:
    """A conversation at one of its turns, with the cache mark on the last, as clients do."""
    messages: list[relay.JSON] = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"turn {n}"}
        for n in range(turns)
    ]
    block = {"type": "text", "text": messages[-1]["content"], "cache_control": MARK}
    messages[-1] = messages[-1] | {"content": [block]}
    tools = [{"name": "Bash", "input_schema": {}}]
    whole = {"model": "claude-x", "system": LONG, "tools": tools, "messages": messages}
    return whole | {"max_tokens": 100} | changes


class Talk:
    """One conversation with a ledger; each turn says what was lost, or None."""

    def __init__(self) -> None:
        self.ledger = relay.CacheLedger()
        self.now = T

    def turn(
        self,
        body: relay.JSON,
        read: int = 20_000,
        write: int = 0,
        way: relay.SentAs = WAY,
        after: float = 10.0,
        identity: str = "s",
    ) -> relay.JSON | None:
        self.now += after
        question = self.ledger.begin(relay.dumps(body), way.target, self.now)
        if question is None:
            return None
        usage = relay.Usage(30_000, 10, read, write)
        return self.settled(question, usage, way, identity)

    def settled(
        self,
        question: relay.PendingPrompt | None,
        usage: relay.Usage | None,
        way: relay.SentAs = WAY,
        identity: str = "s",
    ) -> relay.JSON | None:
        assert question
        return self.ledger.finish(question, lambda: identity, usage, way, self.now)

    def begun(self) -> Talk:
        assert self.turn(prompt(1), read=0, write=20_000) is None
        assert self.turn(prompt(3)) is None
        assert self.turn(prompt(5)) is None
        return self


def test_a_conversation_that_goes_well_says_nothing() -> None:
    talk = Talk().begun()
    for turns in range(7, 41, 2):
        assert talk.turn(prompt(turns), read=20_000 + turns) is None
    assert talk.turn(prompt(20)) is None  # taken back: the beginning still stands
    assert talk.turn(prompt(43)) is None
    assert talk.ledger.causes == {}


def edited(turns: int, index: int) -> relay.JSON:
    body = prompt(turns)
    body["messages"][index] = body["messages"][index] | {"content": "another"}
    return body


CAUSES: dict[str, tuple[relay.JSON, relay.SentAs, float, str, str]] = {
    "system": (prompt(7, system=LONG.replace("careful", "hurried")), WAY, 10, "system", "client"),
    "tools": (prompt(7, tools=[]), WAY, 10, "tools", "client"),
    "tools and system": (prompt(7, tools=[], system="s" * 3000), WAY, 10, "tools", "client"),
    "message": (edited(7, 3), WAY, 10, "message 3", "client"),
    "the last that was known": (edited(7, 4), WAY, 10, "message 4", "client"),
    "the first": (edited(7, 0), WAY, 10, "message 0", "client"),
    "thinking": (prompt(7, thinking={"type": "enabled"}), WAY, 10, "parameters", "client"),
    "model": (prompt(7), WAY._replace(model="claude-y"), 10, "model", "client"),
    "target": (prompt(7), WAY._replace(target="b/m", credential="b/p/2"), 10, "target", "relay"),
    "credential": (prompt(7), WAY._replace(credential="a/plan/2"), 10, "credential", "relay"),
    "body": (prompt(7), WAY._replace(form=("endpoint", "edited", ())), 10, "body", "relay"),
    "time": (prompt(7), WAY, 400, "nothing", "time"),
    "the provider": (prompt(7), WAY, 10, "nothing", "provider"),
}


@pytest.mark.parametrize(("body", "way", "after", "changed", "by"), CAUSES.values(), ids=CAUSES)
def test_a_loss_says_what_changed_and_by_whose_doing(
    body: relay.JSON, way: relay.SentAs, after: float, changed: str, by: str
) -> None:
    talk = Talk().begun()
    assert talk.turn(body, read=500, way=way, after=after) == {
        "changed": changed,
        "by": by,
        "read": 500,
        "expected": 20_000,
        "idle": f"{after:.0f} s",
    }
    assert talk.ledger.causes == {f"{by}: {changed.split()[0]}": 1}


def test_after_a_loss_the_new_prompt_is_the_one_to_go_by() -> None:
    talk = Talk().begun()
    other = {"system": "another " * 500}
    assert talk.turn(prompt(7, **other), read=0, write=9000) is not None
    assert talk.turn(prompt(9, **other), read=9000) is None
    lost = talk.turn(prompt(11), read=0)
    assert lost
    assert (lost["changed"], lost["expected"]) == ("system", 9000)


@pytest.mark.parametrize("turns", ["messages", "input", "contents"])
def test_every_dialects_turns_are_known(turns: str) -> None:
    talk, system = Talk(), {"messages": "system", "input": "instructions"}.get(turns)
    head = {system or "systemInstruction": LONG, "model": "m"}

    def body(*said: str) -> relay.JSON:
        return head | {turns: [{"role": "user", "content": text} for text in said]}

    talk.turn(body("a", "b"), write=20_000, read=0)
    assert talk.turn(body("a", "b", "c")) is None
    lost = talk.turn(body("a", "b", "x", "y"), read=0)
    assert lost
    assert lost["changed"] == "message 2"


def test_what_moves_on_with_every_turn_is_no_change() -> None:
    talk = Talk().begun()
    body = prompt(7, max_tokens=5, stream=True, metadata={"user_id": "u"}, prompt_cache_key="k")
    lost = talk.turn(body, read=0)
    assert lost
    assert (lost["changed"], lost["by"]) == ("nothing", "provider")


def test_agents_of_one_session_are_told_apart() -> None:
    """A subagent has its parent's session and a prompt of its own."""
    talk = Talk().begun()
    other = prompt(1, system="agent " * 600)
    other["messages"][0] = {"role": "user", "content": "look for it"}
    assert talk.turn(other, read=0, write=5000) is None
    assert talk.turn(prompt(7)) is None
    later = other | {"messages": [*other["messages"], {"role": "assistant", "content": "ok"}]}
    assert talk.turn(later, read=5000) is None
    lost = talk.turn(later | {"tools": []}, read=0)
    assert lost
    assert (lost["changed"], lost["expected"]) == ("tools", 5000)


def test_who_caches_nothing_is_not_looked_at() -> None:
    talk, raw = Talk(), relay.dumps(prompt(7))
    for turns in range(1, 17, 2):
        talk.turn(prompt(turns), read=0)
    question = talk.ledger.begin(raw, WAY.target, T)
    assert question
    assert question.raw == b""
    elsewhere = talk.ledger.begin(raw, "b/m", T)
    assert elsewhere
    assert elsewhere.raw == raw
    assert talk.turn(prompt(17), read=20_000) is None  # it does after all: looked at from now on
    assert talk.turn(prompt(19)) is None
    lost = talk.turn(prompt(21, tools=[]), read=0)
    assert lost
    assert lost["changed"] == "tools"


def test_what_no_provider_caches_is_not_asked_about() -> None:
    talk, short = Talk(), relay.dumps(prompt(1, system="short"))
    assert talk.ledger.begin(short, WAY.target, T) is None
    assert talk.turn(prompt(1), identity="", write=20_000) is None
    assert talk.turn(prompt(3), identity="", read=0) is None  # nobody knows what was before
    assert talk.turn({"model": "m", "messages": [], "x": LONG}) is None


def test_who_a_prompt_is_of_is_asked_only_where_caches_are() -> None:
    """It may have to be read out of the prompt, which costs more than all the rest."""
    ledger, usage, names = relay.CacheLedger(), relay.Usage(9000, 9), list[str]()

    def name() -> str:
        names.append("s")
        return names[-1]

    for _ in range(40):
        question = ledger.begin(relay.dumps(prompt(3)), WAY.target, T)
        assert question
        ledger.finish(question, name, usage, WAY, T)
    assert len(names) < 10


def test_an_answer_that_broke_off_uncounted_says_nothing() -> None:
    talk = Talk().begun()
    for usage in (None, relay.Usage()):
        question = talk.ledger.begin(relay.dumps(prompt(7)), WAY.target, T)
        assert talk.settled(question, usage) is None
    assert talk.turn(prompt(7)) is None


def test_questions_beside_one_another_confuse_nobody() -> None:
    talk = Talk().begun()
    raw = relay.dumps(prompt(7))
    for question in [talk.ledger.begin(raw, WAY.target, T) for _ in range(3)]:
        assert talk.settled(question, relay.Usage(9, 9, 20_000)) is None
    assert talk.turn(prompt(9)) is None
    lost = talk.turn(edited(11, 8), read=0)
    assert lost
    assert lost["changed"] == "message 8"


def test_the_prompts_that_are_kept_are_bounded() -> None:
    """Those of the longest unused conversations go first; of one that is gone nothing is said."""
    talk = Talk()
    big = prompt(3, system="x" * (9 << 20))
    for n in range(5):
        assert talk.turn(big, read=0, write=9000, identity=f"s{n}") is None
        assert talk.ledger._kept <= 32 << 20
    assert talk.turn(big, read=0, identity="s0") is None
    lost = talk.turn(big, read=0, identity="s4")
    assert lost
    assert (lost["changed"], lost["by"]) == ("nothing", "provider")


def test_what_is_being_answered_counts_too() -> None:
    ledger, raw = relay.CacheLedger(), relay.dumps(prompt(3, system="x" * (9 << 20)))
    questions = [ledger.begin(raw, WAY.target, T) for _ in range(5)]
    assert [bool(question and question.raw) for question in questions] == [True] * 3 + [False] * 2
    for question in questions:
        assert question
        ledger.finish(question, lambda: "s", None, WAY, T)
    assert ledger._kept == 0


def test_a_prompt_is_forgotten_after_an_hour() -> None:
    talk = Talk()
    for n in range(5):
        talk.turn(prompt(3), read=0, write=20_000, identity=f"s{n}", after=1000)
    assert list(talk.ledger._conversations) == ["s1", "s2", "s3", "s4"]
    assert talk.ledger._kept == 4 * len(relay.dumps(prompt(3)))


def test_conversations_and_their_threads_are_bounded() -> None:
    talk = Talk()
    for n in range(10_500):
        talk.turn(prompt(1), read=0, write=20_000, identity=f"s{n}")
    assert len(talk.ledger._conversations) <= 10_000
    for n in range(20):
        other = prompt(1)
        other["messages"][0] = {"role": "user", "content": f"agent {n}"}
        talk.turn(other, read=0, write=20_000)
    assert len(talk.ledger._conversations["s"]) <= 4
    assert talk.ledger._kept == sum(
        len(thread.raw) for threads in talk.ledger._conversations.values() for thread in threads
    )


if __name__ == "__main__":  # what it costs: python tests/unit/test_cache_ledger.py
    texts = {"system": LONG * 5, "tools": [{"name": f"t{n}", "d": LONG} for n in range(16)]}
    body = prompt(101, **texts)
    for message in body["messages"]:
        message["content"] = LONG[:1900]
    talk = Talk()
    talk.turn(body, read=0, write=20_000)
    body["messages"] += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    raw = relay.dumps(body)

    def once() -> None:
        question = talk.ledger.begin(raw, WAY.target, T)
        talk.settled(question, relay.Usage(9000, 9, 20_000))

    print(f"{len(raw) >> 10} KB: {min(timeit.repeat(once, number=100, repeat=5)) * 1e4:.1f} us")
