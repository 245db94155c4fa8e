"""Whatever JSON comes, translation raises nothing but RelayError.

Junk stands at every path of one real request of each dialect, and the result is translated to
every dialect.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from laws.strategies import DIALECTS, dialects, requests_between

import relay

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
JUNK: list[Any] = [
    *(None, 5, -1, 1.5, True, "", "x", "null", "[1]", "\ud800", 10**30),
    *([], {}, [None], ["x"], [5], [[]], [{}], {"a": None}, {"type": 5}, {"type": "text"}),
]
SCHEMA: relay.JSON = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "minLength": 1, "description": "d", "enum": ["x"]},
        "b": {"$ref": "#/$defs/q", "title": "b"},
        "c": {"anyOf": [{"type": "null"}, {"type": "integer", "exclusiveMinimum": 1}]},
        "d": {"type": "array", "items": {"type": "object", "required": ["z"]}},
        "e": {"allOf": [{"$ref": "#/$defs/q"}, {"type": "object", "properties": {}}]},
    },
    "required": ["a"],
    "oneOf": [{"required": ["a"], "properties": {"k": {}}}],
    "$defs": {"q": {"type": "object", "properties": {"w": {"type": "number"}}}},
}
ENVELOPE = relay.enveloped(relay.Seal("gs", "c2ln", "0a1b2c3d", "Hm.", "0"))
REQUESTS: dict[str, relay.JSON] = {
    "anthropic": {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "data": "t"},
                        "title": "x",
                        "citations": {"enabled": True},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": ENVELOPE},
                    {"type": "redacted_thinking", "data": "s"},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {"q": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [{"type": "text", "text": "r"}],
                        "is_error": False,
                    },
                    {
                        "type": "search_result",
                        "title": "t",
                        "source": "s",
                        "content": [{"type": "text", "text": "f"}],
                    },
                    {"type": "tool_reference", "tool_name": "f"},
                ],
            },
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True},
            {"type": "bash_20250124", "name": "bash"},
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "metadata": {"user_id": '{"session_id":"x"}'},
        "stop_sequences": ["x"],
        "safeguards": {"a": "b"},
    },
    "openai": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s", "cache_control": {"type": "ephemeral"}},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": {"ttl": "1h"}},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a.pdf"}},
                    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                ],
            },
            {
                "role": "assistant",
                "content": "x",
                "reasoning_content": "t",
                "reasoning_details": [
                    {"type": "reasoning.encrypted", "data": ENVELOPE},
                    {"type": "reasoning.text", "text": "t", "signature": "s"},
                ],
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":1}{"b":2}'},
                    },
                    {"id": "b", "type": "custom", "custom": {"name": "g", "input": "x"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "ok"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "ok"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}},
            {"type": "custom", "custom": {"name": "g", "format": {"grammar": {"syntax": "lark"}}}},
        ],
        "functions": [{"name": "h", "parameters": SCHEMA}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "enabled": True},
        "thinking": {"type": "enabled"},
        "chat_template_kwargs": {"enable_thinking": True},
        "stop": ["x"],
        "stream_options": {"include_usage": True},
    },
    "responses": {
        "model": "m",
        "instructions": "i",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": "https://a/b.png", "detail": "low"},
                    {"type": "input_file", "file_data": "JVBERi0=", "filename": "a.pdf"},
                ],
            },
            {
                "type": "reasoning",
                "id": "rs",
                "summary": [{"type": "summary_text", "text": "t"}],
                "content": [{"type": "reasoning_text", "text": "t"}],
                "encrypted_content": ENVELOPE,
            },
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "ok"},
            {"type": "custom_tool_call", "call_id": "d", "name": "p", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text"}]},
            {"type": "local_shell_call", "call_id": "b", "action": {"command": ["ls"]}},
            {"type": "shell_call_output", "call_id": "b", "output": [{"stdout": "x"}]},
            {"type": "tool_search_call", "call_id": "c", "arguments": {"query": "q"}},
            {"type": "tool_search_output", "call_id": "c", "tools": [{"type": "custom"}]},
            {"type": "additional_tools", "tools": [{"type": "function", "name": "z"}]},
            {"type": "configuration_update", "reasoning": {"effort": "low"}},
            {"type": "compaction", "encrypted_content": "rly1.rc.00000000.eA"},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True},
            {
                "type": "namespace",
                "name": "n",
                "tools": [
                    {
                        "type": "custom",
                        "name": "p",
                        "description": None,
                        "format": {"type": "grammar", "definition": "x", "syntax": "lark"},
                    }
                ],
            },
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["a"],
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "a"},
                    {"inlineData": {"mimeType": "image/png", "data": PNG}},
                    {"fileData": {"mimeType": "audio/mp3", "fileUri": "https://a/b.mp3"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "t", "thought": True, "thoughtSignature": "c2ln"},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                    {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "x"},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "name": "f",
                            "response": {"output": "x"},
                            "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
                        }
                    }
                ],
            },
        ],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "responseSchema": SCHEMA,
            "responseMimeType": "application/json",
            "thinkingConfig": {"thinkingBudget": 5},
            "stopSequences": ["x"],
            "topK": 3,
        },
    },
}
MODELS = {
    "anthropic": ("claude-opus-4-1", "claude-opus-5"),
    "gemini": ("gemini-2.5-pro", "gemini-3-pro"),
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def bent(dialect: relay.Dialect) -> Iterator[tuple[relay.JSON, tuple[Any, ...], Any]]:
    whole = REQUESTS[dialect.name]
    for path in paths(whole):
        for junk in JUNK:
            body = copy.deepcopy(whole)
            at: Any = body
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = junk
            yield body, path, junk


@requests_between
def test_junk_at_any_place_is_translated_or_a_bad_request(
    client: relay.Dialect, upstream: relay.Dialect
) -> None:
    models = MODELS.get(upstream.name, ("gpt",))
    for body, path, junk in bent(client):
        try:
            request = client.parse_request(body)
            request = relay.replace(request, messages=relay.repaired(request.messages))
            relay.estimate(request)
            for model in models:
                named = relay.replace(request, model=model)
                relay.dumps(upstream.render_request(named, upstream.quirks(), "0a1b2c3d").body)
        except relay.RelayError:
            continue
        except Exception as error:
            raise AssertionError(f"{junk!r} at {path}") from error


@dialects
@pytest.mark.parametrize("strip", [False, True])
def test_junk_at_any_place_passes_on(dialect: relay.Dialect, strip: bool) -> None:
    known = [p.quirks[dialect.name] for p in relay.PRESETS.values() if dialect.name in p.quirks]
    every = {repr(quirks): quirks for quirks in (dialect.quirks(), *known)}
    for body, path, junk in bent(dialect):
        for quirks in every.values():
            try:
                dialect.cleaned(body, quirks, "0a1b2c3d", strip)
            except Exception as error:
                raise AssertionError(f"{junk!r} at {path}") from error


@pytest.mark.parametrize("levels", [150, 253, 254, 255, 900, 1030, 100_000])
@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_body_is_refused_before_it_is_too_deep(levels: int, open_: bytes, close: bytes) -> None:
    inner = open_ * (levels - 1) + (b"1" if open_ != b"[" else b"") + close * (levels - 1)
    raw = b'{"model":"m","messages":%b}' % inner
    if levels > relay.MOST_LEVELS:
        with pytest.raises(relay.BadRequest, match="254 levels"):
            relay.Body(raw)
        return
    wire = relay.Body(raw).wire
    for dialect in DIALECTS:
        for key in ("tools", "messages", "input", "contents"):
            with contextlib.suppress(relay.BadRequest):
                dialect.parse_request({"model": "m", key: [wire["messages"]]})
