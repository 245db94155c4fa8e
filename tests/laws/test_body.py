"""A body is edited in place, or with its order kept, or not at all."""

import json
import re
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from laws.strategies import idents, retargeted, values, words

import relay

models = words | st.sampled_from(("model", "gpt-5", 'a"b', "\\", "m\u00f6del", "\ud83d"))
names = (
    st.sampled_from(("model", "stream", "messages", "modelx", "Model", "x", 'a"model"')) | idents
)
inner = st.recursive(
    values | models,
    lambda value: (
        st.lists(value, max_size=3)
        | st.dictionaries(names, value, max_size=3)
        | st.builds(lambda model: {"model": model}, value)
    ),
    max_leaves=8,
)
spaces = st.sampled_from(("", " ", "\n", "\t", "\r\n", "  "))
escapes = st.sampled_from(("none", "ascii", "unicode", "all"))


def escaped(text: str, how: str) -> str:
    """A JSON string, with some of its characters written another way."""
    if how == "unicode":
        first = f"\\u{ord(text[0]):04x}" if text and ord(text[0]) < 0xD800 else ""
        return f'"{first}{json.dumps(text[1:])[1:-1]}"' if first else json.dumps(text)
    if how == "all":
        return '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 0xD800 else c for c in text) + '"'
    return json.dumps(text, ensure_ascii=how == "ascii")


@st.composite
def written(draw: Any, value: Any) -> str:
    """A value as JSON text in some hand: with spaces, with escapes, with keys twice."""
    gap = draw(spaces)
    if isinstance(value, str):
        return gap + escaped(value, draw(escapes)) + gap
    if isinstance(value, list):
        return f"{gap}[{','.join(draw(written(item)) for item in value) or gap}]{gap}"
    if isinstance(value, dict):
        items = [f"{draw(written(key))}:{draw(written(item))}" for key, item in value.items()]
        return f"{gap}{{{','.join(items) or gap}}}{gap}"
    return gap + json.dumps(value) + gap


@st.composite
def bodies(draw: Any) -> tuple[bytes, bool]:
    """A body with a model, and whether that key is written plainly and once."""
    pairs = [(k, v) for k, v in draw(st.dictionaries(names, inner, max_size=4)).items()]
    pairs = [(key, value) for key, value in pairs if key != "model"]
    keys = [escaped(key, draw(escapes)) for key, _ in pairs]
    values = [draw(written(value)) for _, value in pairs]
    texts = [f"{key}{draw(spaces)}:{value}" for key, value in zip(keys, values, strict=True)]
    hows = draw(st.lists(escapes, min_size=1, max_size=2))
    at = draw(st.integers(0, len(texts)))
    texts[at:at] = [f"{escaped('model', how)}:{draw(written(draw(models)))}" for how in hows]
    if draw(st.booleans()) and pairs:  # another key twice
        texts.append(f"{keys[0]}:{draw(written(draw(inner)))}")
    text = "{" + ",".join(texts) + "}"
    plain = len(hows) == 1 and hows[0] in ("none", "ascii")
    return draw(spaces).encode() + text.encode(errors="surrogatepass"), plain


@given(drawn=bodies(), model=models)
@settings(max_examples=settings.default.max_examples * 5)
def test_a_retargeted_body_says_the_same_but_for_the_model(
    drawn: tuple[bytes, bool], model: str
) -> None:
    raw, _ = drawn
    try:
        body = relay.Body(raw)
    except relay.BadRequest:
        return  # raw surrogates are no UTF-8
    assert relay.loads(retargeted(body, model)) == body.wire | {"model": model}


@given(drawn=bodies(), model=models)
@settings(max_examples=settings.default.max_examples * 5)
def test_where_the_model_stands_once_and_plainly_all_other_bytes_stay(
    drawn: tuple[bytes, bool], model: str
) -> None:
    raw, plain = drawn
    try:
        body = relay.Body(raw)
    except relay.BadRequest:
        return
    assume(plain)
    there = retargeted(body, model)
    head, tail = outside(raw, body.wire["model"])
    assert (there[: len(head)], there[len(there) - len(tail) :]) == (head, tail)
    assert relay.loads(there[len(head) : len(there) - len(tail)]) == model


def outside(raw: bytes, model: str) -> tuple[bytes, bytes]:
    """What stands before and behind the top-level model's string, by reading key after key."""
    decoder, text = json.JSONDecoder(), raw.decode(errors="surrogatepass")
    at = gap(text, text.index("{") + 1)
    while True:
        key, at = decoder.raw_decode(text, at)
        start = gap(text, text.index(":", at) + 1)
        value, at = decoder.raw_decode(text, start)
        if key == "model":
            assert value == model
            return raw_of(text[:start]), raw_of(text[at:])
        at = gap(text, text.index(",", at) + 1)


def raw_of(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def gap(text: str, at: int) -> int:
    """Where the next token begins."""
    while text[at] in " \t\r\n":
        at += 1
    return at


@given(drawn=bodies())
def test_the_same_model_is_the_same_body(drawn: tuple[bytes, bool]) -> None:
    raw, plain = drawn
    try:
        body = relay.Body(raw)
    except relay.BadRequest:
        return
    same = retargeted(body, body.wire["model"])
    assert same is raw if plain else json.loads(same) == body.wire


# A body that nobody has read


@given(drawn=bodies(), model=models)
@settings(max_examples=settings.default.max_examples * 10)
def test_the_two_ends_of_a_body_tell_what_all_of_it_would(
    drawn: tuple[bytes, bool], model: str
) -> None:
    raw, plain = drawn
    with patch.object(relay, "LARGE", 0):
        unread = relay.Body(raw, unread=True)
    try:
        whole = relay.Body(raw)
    except relay.BadRequest as error:
        if isinstance(error.__cause__, ValueError):  # what is no JSON may stand in the middle
            return
        with pytest.raises(relay.BadRequest, match=re.escape(error.message)):
            unread.outline()
        return
    seen = unread.outline()
    assume(plain)
    assert seen["model"] == whole.wire["model"]
    mode = whole.wire.get("stream")
    assert seen.get("stream") == mode or isinstance(mode, dict | list)
    assert relay.loads(retargeted(unread, model)) == whole.wire | {"model": model}
    assert retargeted(unread, model) == retargeted(whole, model)


ENDS: list[tuple[str, bool]] = [
    ('{"model":"a","messages":[{"x":1}],"stream":true}', True),
    ('{"messages":[{"role":"user","content":"say \\"model\\":\\"b\\""}],"model":"a"}', True),
    (
        '{"model":"a","tools":[{"properties":{"model":{"type":"string"}},"required":["model"]}]}',
        True,
    ),
    ('{"max_tokens":1,"stream":true,"model":"a","x":{"y":[]}}', True),
    ('{ "model" : "a" , "x" : {} , "stream" : false }\n', True),
    ('{"model":"a","input":{"model":"haiku"}}', False),  # the arguments of a call
    ('{"model":"a","x":[],"model":"b"}', False),
    ('{"model":"a","x":[],"stream":true,"stream":false}', True),
    ('{"x":[],"y":{"model":"a"}}', False),
    ('{"y":{"model":"a"},"x":[],"z":1}', False),
    (
        '{"x":[],"model":"a","y":{},"z":"a text that is longer than all that stands before it"}',
        False,
    ),
    ('{"model":"a\\u0062","x":[]}', False),
]


@pytest.mark.parametrize(("text", "told"), ENDS)
def test_which_bodies_need_not_be_read(text: str, told: bool) -> None:
    with patch.object(relay, "LARGE", 0):
        body = relay.Body(text.encode(), unread=True)
    body.outline()
    assert body.unread is told


@pytest.mark.parametrize("text", ['{"model":"a","x":[]', '{"model":"a",', "nope", '["model":"a"]'])
def test_what_plainly_is_no_object_is_read_and_refused(text: str) -> None:
    with patch.object(relay, "LARGE", 0), pytest.raises(relay.BadRequest, match="not JSON"):
        relay.Body(text.encode(), unread=True).outline()


def test_a_body_is_read_where_a_mark_says_there_is_more_to_know() -> None:
    raw = b'{"model":"a","input":[{"type":"compaction_trigger"}]}'
    word = b'compaction_trigger"'
    for asked, unread in ((), True), ((word,), False):
        with patch.object(relay, "LARGE", 0):
            body = relay.Body(raw, unread=True, words=asked)
        assert body.outline(frozenset((word,)))["model"] == "a"
        assert body.unread is unread


# Edits

paths = st.lists(st.sampled_from(("a", "b", "model", "c")), min_size=1, max_size=3).map(".".join)
small = st.recursive(
    st.integers(-3, 3) | words,
    lambda value: st.dictionaries(st.sampled_from(("a", "b", "c", "model")), value, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(("a", "b", "c", "model", "d")), small, max_size=5)
edits = st.builds(
    relay.Edits,
    drop=st.lists(paths, max_size=2).map(tuple),
    rename=st.dictionaries(st.sampled_from(("a", "d")), st.just("z"), max_size=1),
    clamp=st.dictionaries(paths, st.just((-1.0, 1.0)), max_size=1),
    default=st.dictionaries(paths, small, max_size=1),
    set=st.dictionaries(paths, small, max_size=1),
)


@given(body=objects, edit=edits)
def test_edits_keep_the_order_of_the_keys(body: relay.JSON, edit: relay.Edits) -> None:
    assume(not overlapping(edit))  # what is dropped and set again comes last
    edit = relay.replace(edit, rename={})
    after = list(edit.applied(body))
    assert [key for key in after if key in body] == [key for key in body if key in after]


@given(body=objects, edit=edits)
def test_edits_never_touch_the_body_they_are_given(body: relay.JSON, edit: relay.Edits) -> None:
    before = json.dumps(body)
    edit.applied(body)
    assert json.dumps(body) == before


@given(body=objects, edit=edits)
def test_where_there_is_nothing_to_do_the_body_is_the_very_same(
    body: relay.JSON, edit: relay.Edits
) -> None:
    assume(not overlapping(edit))
    edited = edit.applied(body)
    assert (edited is body) is (json.dumps(edited) == json.dumps(body))
    assert edit.applied(edited) is edited


def overlapping(edit: relay.Edits) -> bool:
    """Do two edits concern one place, so that the order of the steps shows?"""
    touched = [*edit.drop, *edit.clamp, *edit.default, *edit.set, *edit.rename]
    touched += edit.rename.values()
    heads = [re.split(r"\.", path)[0] for path in touched]
    return len(set(heads)) < len(heads)
