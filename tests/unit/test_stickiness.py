"""Which conversation a request belongs to, in every dialect."""

from __future__ import annotations

from typing import Any

import pytest

import relay

SESSION = "7f2c1d4e-0000-4000-8000-5b1c5c6d7e8f"
OLD_USER = f"user_9f86d081_account__session_{SESSION}"
NEW_USER = relay.dumps({"device_id": "d", "account_uuid": "a", "session_id": SESSION}).decode()

IDENTITIES: list[tuple[dict[str, str], relay.JSON, Any]] = [
    ({"x-claude-code-session-id": "s"}, {"metadata": {"user_id": "u"}}, "s"),
    ({"session-id": "s"}, {}, "s"),
    ({"session_id": "s"}, {}, "s"),
    ({}, {"metadata": {"user_id": "u"}}, "u"),
    ({}, {"prompt_cache_key": "k"}, "k"),
    ({"x-session-affinity": "a"}, {"prompt_cache_key": "k"}, "a"),
    ({}, {"metadata": {"user_id": NEW_USER}}, SESSION),
    ({}, {"metadata": {"user_id": OLD_USER}}, OLD_USER),
    ({}, {"metadata": {"user_id": "{odd"}}, "{odd"),
    ({}, {"metadata": {"user_id": "{}"}}, "{}"),
    ({"x-session-id": "x", "x-session-affinity": "y"}, {}, "x"),
    ({"session-id": "codex"}, {"prompt_cache_key": "k", "input": []}, "codex"),
    ({}, {"conversation": "c", "input": "a"}, "c"),
    ({}, {"conversation": {"id": "c"}, "input": "a"}, "c"),
    ({}, {"prompt_cache_key": 3, "conversation": []}, ""),
    ({}, {}, ""),
    ({}, {"messages": "odd", "metadata": 3}, ""),
]


@pytest.mark.parametrize(("headers", "body", "identity"), IDENTITIES)
def test_a_conversation_has_a_name(
    headers: dict[str, str], body: relay.JSON, identity: str
) -> None:
    assert relay.identity_of(headers, body) == identity


def test_without_a_name_it_is_known_by_how_it_began() -> None:
    first = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]}
    grown = {
        "messages": [
            *first["messages"],
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
    }
    other = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "z"}]}
    names = [relay.identity_of({}, body) for body in (first, grown, other)]
    assert names[0] == names[1] != names[2]
    assert names[0]


# The same conversation on its first and on a later turn, in each dialect.
BEGINNINGS: dict[str, tuple[relay.JSON, list[Any]]] = {
    "messages": (
        {"system": "s", "messages": [{"role": "user", "content": "a"}]},
        [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
    ),
    "input": (
        {
            "instructions": "s",
            "input": [
                {"type": "message", "role": "developer", "content": "d"},
                {"type": "message", "role": "user", "content": "a"},
            ],
        },
        [{"type": "function_call", "name": "f"}, {"type": "function_call_output", "output": "x"}],
    ),
    "contents": (
        {
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [{"role": "user", "parts": [{"text": "a"}]}],
        },
        [{"role": "model", "parts": [{"text": "b"}]}, {"role": "user", "parts": [{"text": "c"}]}],
    ),
}


@pytest.mark.parametrize("turns", BEGINNINGS)
def test_every_dialect_is_known_by_how_it_began(turns: str) -> None:
    body, more = BEGINNINGS[turns]
    first = relay.identity_of({}, body)
    assert first
    assert relay.identity_of({}, body | {turns: [*body[turns], *more]}) == first
    assert relay.identity_of({}, body | {turns: more + body[turns]}) != first
    told = next(iter(body))
    assert relay.identity_of({}, body | {told: "something else"}) != first


def test_contents_without_a_role_are_the_users() -> None:
    """Gemini's SDK says no role for a single text."""
    first = {"contents": [{"parts": [{"text": "a"}]}]}
    later = {"contents": [*first["contents"], {"role": "model", "parts": [{"text": "b"}]}]}
    assert relay.identity_of({}, first) == relay.identity_of({}, later) != ""


def test_a_plain_input_and_its_message_are_a_conversation_each() -> None:
    assert relay.identity_of({}, {"input": "hello"})
    assert relay.identity_of({}, {"input": "hello"}) != relay.identity_of({}, {"input": "hi"})


def test_cache_marks_that_move_on_change_no_name() -> None:
    """The mark stands on the last turn, and a text that carries it becomes a block."""
    mark = {"type": "ephemeral"}
    first = {
        "system": [{"type": "text", "text": "s", "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": mark}]}
        ],
    }
    later = {
        "system": [{"type": "text", "text": "s"}],
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    }
    assert relay.identity_of({}, first) == relay.identity_of({}, later)


@pytest.mark.parametrize("body", [{"messages": [3]}, {"input": [None]}, {"contents": [[]]}])
def test_nonsense_has_a_name_or_none_but_never_fails(body: relay.JSON) -> None:
    assert isinstance(relay.identity_of({}, body), str)
