"""The embedded provider: what it puts into arguments, and into answers that have to be JSON."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay

NAMES = st.sampled_from(["name", "reason", "cmd", "command", "count"])
LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": ["string", "null"]},
        {"type": "integer", "minimum": 7},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["flash", "pro"], "type": "string"},
        {"const": 3},
        {"type": "array", "items": {"type": "string"}},
        {"$ref": "#/$defs/leaf"},
        {},
    ]
)


def wider(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda properties, needed: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in needed],
            },
            st.dictionaries(NAMES, schemas),
            st.sets(NAMES),
        ),
        st.builds(
            lambda items, fewest: {"type": "array", "items": items, "minItems": fewest},
            schemas.filter(lambda items: items.get("type") != "string"),
            st.integers(0, 2),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(schemas, min_size=1)),
    )


@given(st.recursive(LEAVES, wider, max_leaves=8))
def test_an_example_fits_its_schema(schema: Any) -> None:
    whole = schema | {"$defs": {"leaf": {"type": "string"}}}
    jsonschema.validate(relay.example(whole), whole)


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert relay.example(node)["next"]["next"]
    assert relay.example({"$ref": "#"}) is None


@pytest.mark.parametrize("name", ["command", "cmd"])
def test_what_a_tool_would_run_does_no_harm(name: str) -> None:
    """Claude Code's Bash takes a text, other shells a list."""
    text = {"properties": {name: {"type": "string"}, "x": {}}, "required": [name]}
    words = {"properties": {name: {"type": "array", "items": {"type": "string"}}}}
    assert relay.example(text) == {name: "echo hello"}
    assert relay.example(words) == {name: ["echo", "hello"]}


CHOICE = {
    "type": "object",
    "properties": {"reasoning": {"type": "string"}, "model": {"enum": ["flash", "pro"]}},
    "required": ["reasoning", "model"],
}
SAID = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 99}
STRICT = {"type": "json_schema", "schema": CHOICE, "name": "choice"}
ASKED: dict[str, relay.JSON] = {
    "anthropic": SAID | {"output_config": {"format": STRICT}},
    "openai": SAID
    | {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": CHOICE}}},
    "responses": {"model": "m", "input": "hello", "text": {"format": STRICT}},
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": CHOICE},
    },
}


def answered(request: relay.Request) -> str:
    response = relay.demo_response(request, "0" * 16)
    return "".join(part.text for part in response.parts if isinstance(part, relay.Text))


@pytest.mark.parametrize("dialect", relay.DIALECTS)
def test_who_wants_json_gets_what_fits(dialect: str) -> None:
    request = relay.DIALECTS[dialect].parse_request(ASKED[dialect])
    assert json.loads(answered(request)) == {"reasoning": "relay", "model": "flash"}


def test_any_object_holds_the_words() -> None:
    asked = SAID | {"response_format": {"type": "json_object"}}
    said = json.loads(answered(relay.DIALECTS["openai"].parse_request(asked)))
    assert "Hello from relay" in said["answer"]
