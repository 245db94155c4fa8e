"""A YAML file changed in place: what was intended is in it, and every other byte stays."""

import copy
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import relay

NAMES = st.sampled_from(["providers", "glm", "api_key", "models", "on", "123", "a b", "ü", "x:y"])
TEXTS = st.one_of(
    st.sampled_from(["", "plain", "${KEY}", "a: b", "# no", "yes", "5", "null", "- x", "[", "'q'"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\x85\ufeff"), max_size=12),
)
SCALARS = st.one_of(TEXTS, st.integers(-9, 9), st.booleans(), st.none(), st.just(1.5))
CONTENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
FILES = st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=5)


@st.composite
def written(draw: st.DrawFn, content: Any, indent: int = 0) -> tuple[bool, list[str]]:
    """Is it in one line, and the lines: any style, comments and empty lines in between."""
    quoted = draw(st.sampled_from([None, None, '"', "'"]))

    def inline(value: Any) -> str:
        style = quoted if isinstance(value, str) else None
        shown = yaml.safe_dump(
            [value], default_style=style, default_flow_style=True, width=10**6, allow_unicode=True
        )
        return shown.strip(" \n")[1:-1]

    def comment() -> str:
        return draw(st.sampled_from(["", "", "", "   # said of it", " # a: b - c"]))

    def between() -> list[str]:
        return draw(st.sampled_from([[], [], [""], [f"{' ' * indent}# above: it - 1"]]))

    flat = not isinstance(content, dict | list) or not content
    if flat or draw(st.integers(0, 4)) == 0:
        text = inline(content)
        if "\n" in text:  # a text of several lines
            text = yaml.safe_dump(
                [content], default_style='"', default_flow_style=True, width=10**6
            )
            text = text.strip()[1:-1]
        return True, [" " * indent + text + comment()]
    lines: list[str] = []
    pairs = content.items() if isinstance(content, dict) else ((None, item) for item in content)
    step = draw(st.sampled_from([2, 2, 4]))
    for key, value in pairs:
        lines += between()
        head = " " * indent + ("-" if key is None else f"{inline(key)}:")
        starts_here, inner = draw(written(value, indent + (2 if key is None else step)))
        if starts_here or (key is None and not re.match(r"\s*(#|$)", inner[0])):
            lines += [f"{head} {inner[0].lstrip(' ')}", *inner[1:]]
        else:
            lines += [head + comment(), *inner]
    return False, lines


def paths(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    return found + [deep for key, value in items for deep in paths(value, (*path, key))]


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = at(content, path[:-1])
    if value is relay.DELETE:
        del inner[path[-1]]
    elif isinstance(inner, list) and path[-1] == len(inner):
        inner.append(value)
    else:
        inner[path[-1]] = value
    return content


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Any]:
    content = draw(FILES)
    _, lines = draw(written(content))
    ending = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = ending.join(lines) + draw(st.sampled_from([ending, ""]))
    assert yaml.safe_load(text) == content
    return text, content


@given(cases(), st.data())
def test_the_text_holds_the_intended_change(case: tuple[str, Any], data: st.DataObject) -> None:
    text, content = case
    path = data.draw(st.sampled_from(paths(content)))
    inner = at(content, path)
    if isinstance(inner, dict):
        path = data.draw(st.sampled_from([path, (*path, "added")]))
    elif isinstance(inner, list):
        path = data.draw(st.sampled_from([path, (*path, len(inner))]))
    value = data.draw(st.one_of(CONTENTS, st.just(relay.DELETE)))
    if value is relay.DELETE and path not in paths(content):
        value = "new"
    after = relay.edited(text, [(path, value)])
    assert yaml.safe_load(after) == with_value(content, path, value)
    if "\r\n" in text:
        assert not re.search(r"(?<!\r)\n", after)


@given(cases(), st.data())
def test_an_equal_value_changes_no_byte(case: tuple[str, Any], data: st.DataObject) -> None:
    text, content = case
    path = data.draw(st.sampled_from(paths(content)))
    assert relay.edited(text, [(path, at(content, path))]) == text
    assert relay.edited(text, [((), content)]) == text


@given(cases(), st.data())
def test_a_scalar_changes_within_its_line(case: tuple[str, Any], data: st.DataObject) -> None:
    text, content = case
    scalars = [path for path in paths(content) if not isinstance(at(content, path), dict | list)]
    if not scalars:
        return
    path = data.draw(st.sampled_from(scalars))
    before, after = text.split("\n"), relay.edited(text, [(path, "other")]).split("\n")
    assert len(before) == len(after)
    changed = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert len(changed) <= 1
    for i in changed:
        assert before[i].partition(" #")[2] in after[i]


@given(cases(), st.data())
def test_what_is_added_can_be_removed_without_a_trace(
    case: tuple[str, Any], data: st.DataObject
) -> None:
    text, content = case
    inside = [path for path in ((), *paths(content)) if at(content, path)]
    path = data.draw(st.sampled_from([p for p in inside if isinstance(at(content, p), dict)]))
    value = data.draw(CONTENTS)
    added = relay.edited(text, [((*path, "added"), value)])
    removed = relay.edited(added, [((*path, "added"), relay.DELETE)])
    assert removed.rstrip() == text.rstrip()


@given(cases(), st.data())
def test_every_other_line_stays(case: tuple[str, Any], data: st.DataObject) -> None:
    """An entry that is deleted takes its lines; of the others none is lost, moved or changed."""
    text, content = case
    path = data.draw(st.sampled_from(paths(content)))
    if isinstance(at(content, path[:-1]), list):
        return
    before = text.splitlines()
    after = relay.edited(text, [(path, relay.DELETE)]).splitlines()
    pairs = zip(before, after, strict=False)
    start = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))
    tail = 0
    while tail < min(len(before), len(after)) - start and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    assert len(after) - start - tail <= 1  # one line at most is written anew


# ---- As one would have written it

FILE = """\
# mine
server: {host: 127.0.0.1}   # local

providers:
  glm:        # my plan
    preset: glm
    api_key: ${GLM}   # secret

  local:
    endpoint: "http://x/v1"
    models:
      # the small one
      - m1   # fast
      # the large one
      - m2
keys: {}   # nobody yet
models:
  opus:
    - provider: glm   # first
      model: glm-5
    - {provider: local, model: m1}
note: |
  two
  lines

# the end
"""

BLOCK = {"preset": "deepseek", "api_key": "${D}", "models": ["a", "b"], "plans": [{"name": "p"}]}


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("providers", "glm", "api_key"), "file:/k", "${GLM} ", "file:/k "),
        (("providers", "local", "endpoint"), "http://y", '"http://x/v1"', '"http://y"'),
        (("server", "port"), 80, "127.0.0.1}", "127.0.0.1, port: 80}"),
        (("server", "host"), relay.DELETE, "{host: 127.0.0.1}", "{}"),
        (
            ("keys", "alice"),
            {"secret": "sha256:ab", "limits": {"rpm": 5}},
            "keys: {}   # nobody yet\n",
            "keys:   # nobody yet\n  alice:\n    secret: sha256:ab\n    limits:\n      rpm: 5\n",
        ),
        (
            ("providers", "new"),
            BLOCK,
            "      - m2\n",
            "      - m2\n\n  new:\n    preset: deepseek\n    api_key: ${D}\n    models: [a, b]\n"
            "    plans:\n      - name: p\n",
        ),
        (
            ("providers", "glm"),
            relay.DELETE,
            "  glm:        # my plan\n    preset: glm\n    api_key: ${GLM}   # secret\n\n",
            "",
        ),
        (
            ("models", "opus"),
            [{"provider": "local", "model": "m1"}, {"provider": "glm", "model": "glm-5"}],
            "    - provider: glm   # first\n      model: glm-5\n"
            "    - {provider: local, model: m1}\n",
            "    - {provider: local, model: m1}\n"
            "    - provider: glm   # first\n      model: glm-5\n",
        ),
        (
            ("providers", "local", "models"),
            ["m2", "m1"],
            "      - m1   # fast\n      # the large one\n      - m2\n",
            "      # the large one\n      - m2\n      - m1   # fast\n",
        ),
        (("models", "opus", 1, "model"), "m2", "model: m1}", "model: m2}"),
        (("models", "opus", 2), "x", "model: m1}\n", "model: m1}\n    - x\n"),
        (("note",), "one", "|\n  two\n  lines\n", "one\n"),
        (("log",), {"level": "debug"}, "  lines\n", "  lines\nlog:\n  level: debug\n"),
    ],
)
def test_as_one_would_have_written_it(path: Any, value: Any, old: str, new: str) -> None:
    assert FILE.count(old) == 1
    assert relay.edited(FILE, [(path, value)]) == FILE.replace(old, new)


def test_an_empty_file_and_json() -> None:
    change = [(("keys", "a"), {"secret": "s"})]
    assert relay.edited("", change) == "keys:\n  a:\n    secret: s\n"
    assert relay.edited("# mine", change) == "# mine\nkeys:\n  a:\n    secret: s\n"
    text = '{"keys": {}, "log": {"level": "info"}}\n'
    assert relay.edited(text, change) == text.replace("{},", '{"a": {"secret": "s"}},')


def test_a_merged_key_is_overridden_where_it_is_used() -> None:
    text = "a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  z: 3\n"
    assert relay.edited(text, [(("b", "x"), 5)]) == text + "  x: 5\n"


@pytest.mark.parametrize(
    ("text", "path", "value", "message"),
    [
        ("a: &q {x: 1}\nb: *q\n", ("a", "x"), 2, "a.x cannot be edited in place: other places"),
        ("a: &q {x: 1}\nb: *q\n", ("a",), relay.DELETE, "other places"),
        ("a: [", ("a",), 1, "cannot be edited"),
        ("a: 1\na: 2\n", ("a",), 1, "a key twice"),
        ("a: 1\n", ("a", "b"), 1, "'1' has no keys"),
        ("a: 1\n", ("b",), relay.DELETE, "nothing to delete"),
        ("a: [1]\n", ("a", 5), 1, "no item 5"),
        ("a: [1]\n", ("a", "x"), 1, "no item x"),
        ("a: 1\n---\nb: 1\n", ("a",), 1, "expected a single document"),
        ("a: &x [*x, 1]\n", ("a", 1), 2, "cannot be edited"),
        ("*x\n", ("b",), 1, "undefined alias"),
    ],
)
def test_what_cannot_be_edited_says_why(text: str, path: Any, value: Any, message: str) -> None:
    with pytest.raises(relay.EditError, match=re.escape(message)):
        relay.edited(text, [(path, value)])


def test_aliases_of_aliases_are_refused() -> None:
    """To compare what they repeat would take for ever."""
    levels = (f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    text = "l0: &l0 [x, x]\n" + "".join(levels)
    with pytest.raises(relay.EditError, match="more than 100000 values"):
        relay.edited(text, [(("log",), {"level": "info"})])
