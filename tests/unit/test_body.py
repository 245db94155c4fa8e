"""A client's bytes: spliced, edited with the order kept, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from laws.strategies import ACCOUNT, retargeted

import relay

A, C = relay.ANTHROPIC, relay.CHAT


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"nope", b"[]", b'"x"', b"1", b"null", b"\xff", b"[" * 100_000]
)
def test_what_is_no_json_object_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(relay.BadRequest) as caught:
        relay.Body(raw)
    assert "body" in caught.value.message


SPLICED: list[tuple[str, str]] = [
    ('{"model":"a"}', '{"model":"b"}'),
    ('{ "model" : "a" , "x":1 }', '{ "model" : "b" , "x":1 }'),
    ('{"x":{"model":"a"},"model":"a"}', '{"x":{"model":"a"},"model":"b"}'),
    ('{"model":"a","x":{"model":"a"}}', '{"model":"b","x":{"model":"a"}}'),
    (
        '{"x":["model",{"model":"model"}],"model":"a"}',
        '{"x":["model",{"model":"model"}],"model":"b"}',
    ),
    ('{"model":"model","y":"model"}', '{"model":"b","y":"model"}'),
    (
        '{"x":"say \\"model\\": \\"a\\"","model":"a"}',
        '{"x":"say \\"model\\": \\"a\\"","model":"b"}',
    ),
    ('{"model":"a\\/b"}', '{"model":"b"}'),
    ('{"model":"\\u0061"}', '{"model":"b"}'),
    ('{"x":"\\u006dodel","model":"a"}', '{"x":"\\u006dodel","model":"b"}'),
    ('{"x":"\\\\u006dodel","model":"a"}', '{"x":"\\\\u006dodel","model":"b"}'),
    ('{\n\t"stream":\r\n true,"model":"a"\n}\n', '{\n\t"stream":\r\n true,"model":"b"\n}\n'),
    (
        '{"n":12345678901234567890,"f":1.0,"e":1E5,"model":"a"}',
        '{"n":12345678901234567890,"f":1.0,"e":1E5,"model":"b"}',
    ),
    ('{"x":"\u6f22 \U0001f680","model":"a"}', '{"x":"\u6f22 \U0001f680","model":"b"}'),
    ('{"x":1,"x":2,"model":"a"}', '{"x":1,"x":2,"model":"b"}'),
]


@pytest.mark.parametrize(("before", "after"), SPLICED)
def test_the_model_is_spliced_in_place(before: str, after: str) -> None:
    assert retargeted(relay.Body(before.encode()), "b").decode() == after


@pytest.mark.parametrize(
    "raw",
    [
        '{"\\u006dodel":"a","x":1}',
        '{"model":"a","model":"c","x":1}',
        '{"x":1,"model":"a","\\u006dodel":"c"}',
    ],
)
def test_where_its_place_is_not_certain_the_json_is_edited(raw: str) -> None:
    there = json.loads(retargeted(relay.Body(raw.encode()), "b"))
    assert there == json.loads(raw) | {"model": "b"}


@pytest.mark.parametrize("model", ["b", 'quo"te', "back\\slash", "\u6f22", "a/b:c", "\ud83d"])
def test_any_name_can_be_spliced(model: str) -> None:
    there = retargeted(relay.Body(b'{"model":"a","x":1}'), model)
    assert relay.loads(there) == {"model": model, "x": 1}


def test_the_same_model_costs_nothing() -> None:
    body = relay.Body(b'{"model":"a"}')
    assert body.outgoing("a")[0] is body.raw


def test_a_body_is_peeked_at_only_as_far_as_routing_needs() -> None:
    for dialect in (d for d in relay.DIALECTS.values() if d.names_model):
        assert dialect.peek({"model": "m", "stream": True, "messages": 3}, "") == ("m", True, "")
        assert dialect.peek({"model": "m", "stream": None}, "") == ("m", False, "")
    for wrong, said in (
        ({}, "model"),
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m", "stream": "yes"}, "stream"),
    ):
        with pytest.raises(relay.BadRequest) as caught:
            A.peek(wrong, "")
        assert caught.value.message.startswith(said)


# Edits: drop, rename, clamp, default and set, in this order

EDITS: list[tuple[str, relay.Edits, relay.JSON, relay.JSON]] = [
    ("drop", relay.Edits(drop=("store",)), {"a": 1, "store": 1, "b": 2}, {"a": 1, "b": 2}),
    ("drop inside", relay.Edits(drop=("a.b",)), {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
    ("drop through no object", relay.Edits(drop=("a.b",)), {"a": 3}, {"a": 3}),
    (
        "rename",
        relay.Edits(rename={"seed": "random_seed"}),
        {"seed": 1, "b": 2},
        {"random_seed": 1, "b": 2},
    ),
    ("clamp down", relay.Edits(clamp={"t": (0.01, 0.99)}), {"t": 1, "b": 2}, {"t": 0.99, "b": 2}),
    ("clamp up", relay.Edits(clamp={"t": (0.01, 0.99)}), {"t": 0}, {"t": 0.01}),
    ("clamp within", relay.Edits(clamp={"t": (0, 1)}), {"t": 0.5}, {"t": 0.5}),
    ("clamp nothing", relay.Edits(clamp={"t": (0, 1)}), {}, {}),
    ("clamp no number", relay.Edits(clamp={"t": (0, 1)}), {"t": "x"}, {"t": "x"}),
    ("default", relay.Edits(default={"m": 8}), {"a": 1}, {"a": 1, "m": 8}),
    ("default is there", relay.Edits(default={"m": 8}), {"m": 1}, {"m": 1}),
    ("default is null", relay.Edits(default={"m": 8}), {"m": None, "a": 1}, {"m": 8, "a": 1}),
    ("set", relay.Edits(set={"t": 0.7}), {"t": 1, "a": 1}, {"t": 0.7, "a": 1}),
    ("set inside", relay.Edits(set={"a.b": 2}), {"a": {"b": 1, "c": 3}}, {"a": {"b": 2, "c": 3}}),
    ("set makes the way", relay.Edits(set={"a.b.c": 2}), {}, {"a": {"b": {"c": 2}}}),
    ("set replaces what is no object", relay.Edits(set={"a.b": 2}), {"a": 3}, {"a": {"b": 2}}),
    ("drop before default", relay.Edits(drop=("a",), default={"a": 2}), {"a": 1}, {"a": 2}),
    ("default before set", relay.Edits(default={"a": 2}, set={"a": 3}), {}, {"a": 3}),
]


@pytest.mark.parametrize(
    ("edits", "before", "after"), [row[1:] for row in EDITS], ids=[r[0] for r in EDITS]
)
def test_edits(edits: relay.Edits, before: relay.JSON, after: relay.JSON) -> None:
    said = json.dumps(before)
    edited = edits.applied(before)
    assert json.dumps(edited) == json.dumps(after)
    assert json.dumps(before) == said
    assert (edited is before) is (before == after)


def test_what_is_equal_but_of_another_kind_is_set_all_the_same() -> None:
    edited = relay.Edits(set={"stream": True, "n": 1.0}).applied({"stream": 1, "n": 1})
    assert json.dumps(edited) == '{"stream": true, "n": 1.0}'


# What passes through to Anthropic's dialect: cleaned only where it must be

LINE = "x-anthropic-billing-header: cc_version=2.1.178; cc_entrypoint=cli; cch=00a1b;"
CLAUDE = {"type": "text", "text": "You are Claude Code."}


def cleaned(body: relay.JSON, strip: bool = False, **quirks: Any) -> relay.JSON:
    return A.cleaned(body, relay.AnthropicQuirks(**quirks), ACCOUNT, strip)


ATTRIBUTED: list[tuple[Any, Any]] = [
    ([{"type": "text", "text": LINE}, CLAUDE], [CLAUDE]),
    ([CLAUDE, {"type": "text", "text": LINE}], [CLAUDE]),
    (f"{LINE}\nYou are Claude Code.", "You are Claude Code."),
    ([CLAUDE], [CLAUDE]),
    ("You are Claude Code.", "You are Claude Code."),
    (f"Quoted: {LINE}", f"Quoted: {LINE}"),
]


@pytest.mark.parametrize(("system", "kept"), ATTRIBUTED)
def test_claude_codes_attribution_goes_to_anthropic_alone(system: Any, kept: Any) -> None:
    body = {"model": "m", "system": system, "messages": []}
    assert cleaned(body)["system"] == kept
    assert cleaned(body, native=True) is body


def test_safeguards_go_to_anthropic_alone() -> None:
    body = {"model": "m", "safeguards": {"user": "me"}, "messages": [], "x_unknown": 1}
    assert cleaned(body) == {"model": "m", "messages": [], "x_unknown": 1}
    assert cleaned(body, native=True) is body


def test_what_needs_no_cleaning_is_the_very_same() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    body = {
        "model": "m",
        "system": [CLAUDE],
        "messages": [{"role": "assistant", "content": [thought]}],
    }
    assert cleaned(body) is body
    assert cleaned(body, native=True, signed=True) is body
    assert cleaned({"model": "m", "messages": 3}, signed=True) == {"model": "m", "messages": 3}


def test_where_it_was_refused_all_reasoning_is_taken_out() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    said = {"type": "text", "text": "Hi"}
    messages = [{"role": "assistant", "content": [thought, said]}]
    body = cleaned({"model": "m", "messages": messages}, strip=True)
    assert body["messages"] == [{"role": "assistant", "content": [said]}]


def test_reasoning_of_another_chat_provider_does_not_reach_a_chat_provider() -> None:
    seal = relay.enveloped(relay.Seal("as", "EqAB", "99999999"))
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": seal, "index": 0}]
    message = {"role": "assistant", "content": "Hi", "reasoning_details": details}
    kept = C.cleaned({"model": "m", "messages": [message]}, relay.ChatQuirks(), ACCOUNT, False)
    assert seal not in json.dumps(kept)
    own = message | {
        "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "EqAB"}]
    }
    body = {"model": "m", "messages": [own]}
    assert C.cleaned(body, relay.ChatQuirks(), ACCOUNT, False) is body
