"""A history put in order; names, seals, media, and about how long it is."""

from __future__ import annotations

import base64
import re
import struct
from typing import Any

import pytest
from laws.strategies import ACCOUNT, PDF, PNG

import relay
from relay import Media, Message, Part, Reasoning, Seal, Text, ToolCall, ToolResult


def user(*parts: Part | str) -> Message:
    return Message("user", tuple(Text(p) if isinstance(p, str) else p for p in parts))


def assistant(*parts: Part | str) -> Message:
    return Message("assistant", user(*parts).parts)


def system(text: str) -> Message:
    return Message("system", (Text(text),))


def call(id: str) -> ToolCall:
    return ToolCall(id, "read", "{}")


def result(id: str, text: str = "ok") -> ToolResult:
    return ToolResult(id, (Text(text),))


def missing(id: str) -> ToolResult:
    return ToolResult(id, (Text("(no result was recorded for this call)"),), True)


def orphan(id: str, text: str = "ok") -> tuple[Text, Text]:
    return Text(f"[result of tool call {id}]"), Text(text)


# PROTOCOLS.md 3.3 no. 26-30 and 2.3.2
HISTORIES: dict[str, tuple[list[Message], list[Message]]] = {
    "nothing": ([], []),
    "in order": (
        [user("a"), assistant(call("1")), user(result("1"))],
        [user("a"), assistant(call("1")), user(result("1"))],
    ),
    "neighbours are merged": (
        [user("a"), user("b"), assistant("c"), assistant("d")],
        [user("a", "b"), assistant("c", "d")],
    ),
    "tool messages are one turn with what follows": (
        [assistant(call("1"), call("2")), user(result("1")), user(result("2")), user("next")],
        [assistant(call("1"), call("2")), user(result("1"), result("2"), "next")],
    ),
    "results come first and in the calls' order": (
        [assistant(call("1"), call("2")), user("text", result("2"), result("1"))],
        [assistant(call("1"), call("2")), user(result("1"), result("2"), "text")],
    ),
    "a missing result is made up": (
        [assistant(call("1"), call("2")), user(result("2"), "text")],
        [assistant(call("1"), call("2")), user(missing("1"), result("2"), "text")],
    ),
    "at the end too": (
        [user("a"), assistant(call("1"))],
        [user("a"), assistant(call("1")), user(missing("1"))],
    ),
    "an orphan becomes text": (
        [user(result("9"), "text")],
        [user(*orphan("9"), "text")],
    ),
    "a result that comes a turn late is an orphan": (
        [assistant(call("1")), user("no"), assistant("so"), user(result("1"))],
        [assistant(call("1")), user(missing("1"), "no"), assistant("so"), user(*orphan("1"))],
    ),
    "a second result of one call is an orphan": (
        [assistant(call("1")), user(result("1"), result("1", "again"))],
        [assistant(call("1")), user(result("1"), *orphan("1", "again"))],
    ),
    "one id in two turns": (
        [
            assistant(call("1")),
            user(result("1", "A")),
            assistant(call("1")),
            user(result("1", "B")),
        ],
        [
            assistant(call("1")),
            user(result("1", "A")),
            assistant(call("1_2")),
            user(result("1_2", "B")),
        ],
    ),
    "one id twice in a turn": (
        [assistant(call("1"), call("1")), user(result("1", "A"), result("1", "B"))],
        [assistant(call("1"), call("1_2")), user(result("1", "A"), result("1_2", "B"))],
    ),
    "an id that a new one would be is left to its call": (
        [
            assistant(call("1"), call("1_2")),
            user(result("1", "A"), result("1_2", "B")),
            assistant(call("1")),
            user(result("1", "C")),
        ],
        [
            assistant(call("1"), call("1_2")),
            user(result("1", "A"), result("1_2", "B")),
            assistant(call("1_3")),
            user(result("1_3", "C")),
        ],
    ),
    "an empty turn answers nothing, and so it is answered for": (
        [assistant(call("1")), Message("user", ())],
        [assistant(call("1")), user(missing("1"))],
    ),
    "a system message between calls and results moves behind them": (
        [assistant(call("1")), system("s"), user(result("1"), "text"), assistant("x")],
        [assistant(call("1")), user(result("1"), "text"), system("s"), assistant("x")],
    ),
    "a system message elsewhere stays": (
        [system("a"), user("b"), system("c"), assistant("d"), system("e"), user("f")],
        [system("a"), user("b"), system("c"), assistant("d"), system("e"), user("f")],
    ),
    "system messages are not merged": (
        [system("a"), system("b"), user("c")],
        [system("a"), system("b"), user("c")],
    ),
    "two assistant turns with calls": (
        [assistant(call("1")), assistant(call("2")), user(result("2"), result("1"))],
        [assistant(call("1"), call("2")), user(result("1"), result("2"))],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_put_in_order(name: str) -> None:
    history, ordered = HISTORIES[name]
    assert list(relay.repaired(history)) == ordered


# Names

CHAT_NAMES = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAMES = [
    ("read", "read"),
    ("mcp__server__read-file", "mcp__server__read-file"),
    ("a" * 64, "a" * 64),
]


@pytest.mark.parametrize(("name", "accepted"), NAMES)
def test_a_name_that_fits_stays(name: str, accepted: str) -> None:
    assert relay.accepted_name(name, CHAT_NAMES) == accepted


@pytest.mark.parametrize("name", ["a" * 65, "mcp.read", "read file", "", "\u8bfb", "a/b", "\ud83d"])
def test_a_name_that_does_not_fit_is_cleaned_and_marked(name: str) -> None:
    there = relay.accepted_name(name, CHAT_NAMES)
    assert CHAT_NAMES.fullmatch(there)
    assert there == relay.accepted_name(name, CHAT_NAMES)
    clean = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:40]
    assert there.startswith(clean)


@pytest.mark.parametrize("pattern", [r"[a-zA-Z0-9]{9}", r"[a-zA-Z_][a-zA-Z0-9_-]{2,63}"])
@pytest.mark.parametrize("name", ["x", "1a", "functions.write:0", "call_0123456789abcdef"])
def test_odd_patterns_are_met_too(pattern: str, name: str) -> None:
    """Mistral's ids and Moonshot's names."""
    assert re.fullmatch(pattern, relay.accepted_name(name, re.compile(pattern)))


def test_as_many_calls_as_there_are_may_share_an_id() -> None:
    """With work for each that does not grow: servers that count from 0 do so for hours."""
    history = [turn for _ in range(3000) for turn in (assistant(call("0")), user(result("0")))]
    turns = relay.repaired(history)
    new = ["0", *(f"0_{number}" for number in range(2, 3001))]
    assert [turn.parts for turn in turns[::2]] == [(call(id),) for id in new]
    assert [turn.parts for turn in turns[1::2]] == [(result(id),) for id in new]


# Seals: rly1.<field>.<account>.<base64url>

SEALS = [
    Seal("as", "EqAB+/==", ACCOUNT),
    Seal("ad", "x" * 5000, ACCOUNT),
    Seal("cr", "", ACCOUNT),
    Seal("cd", '[{"type":"reasoning.text","text":"\u6f22"}]', ACCOUNT),
]


@pytest.mark.parametrize("seal", SEALS, ids=lambda seal: seal.field)
def test_a_seal_survives_its_envelope(seal: Seal) -> None:
    text = relay.enveloped(seal)
    assert re.fullmatch(r"rly1\.[a-z]{2}\.[0-9a-f]{8}\.[A-Za-z0-9_-]*", text)
    assert relay.opened(text, "as") == seal


def test_no_seal_is_no_text() -> None:
    assert relay.enveloped(None) == ""


@pytest.mark.parametrize(
    "text", ["", "EqAB", "rly1.", "rly1.as.x.y", "rly2.as.0a1b2c3d.eA", "rly1.as"]
)
def test_what_is_no_envelope_came_from_a_direct_session(text: str) -> None:
    assert relay.opened(text, "as") == Seal("as", text)


@pytest.mark.parametrize("value", ["A", "AAAAA", "_____", "-"])
def test_a_damaged_envelope_does_not_raise(value: str) -> None:
    seal = relay.opened(f"rly1.as.{ACCOUNT}.{value}", "as")
    assert isinstance(seal.value, str)


def test_a_provider_that_objects_gets_no_reasoning() -> None:
    request = relay.Request(
        model="m", messages=(user("a"), assistant(Reasoning("Hm.", SEALS[0]), "b"))
    )
    assert relay.without_reasoning(request).messages == (user("a"), assistant("b"))


# Media

PIXEL = base64.b64decode(PNG)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480)
JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF"
    + b"\x00" * 9
    + b"\xff\xc0\x00\x11\x08"
    + b"\x01\xe0\x02\x80\x03"
)
BIG_PNG = PIXEL[:16] + struct.pack(">II", 3000, 2000)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (PIXEL, (1, 1)),
        (BIG_PNG, (3000, 2000)),
        (GIF, (640, 480)),
        (JPEG, (640, 480)),
        (b"RIFF....WEBP", (1024, 1024)),
        (b"", (1024, 1024)),
    ],
)
def test_the_size_of_a_picture_is_in_its_header(data: bytes, size: tuple[int, int]) -> None:
    assert relay.image_size(base64.b64encode(data).decode()) == size


def test_a_picture_that_is_no_base64_has_some_size() -> None:
    assert relay.image_size("!!!") == (1024, 1024)


@pytest.mark.parametrize(
    ("url", "media"),
    [
        ("https://a/b.png", Media("image", url="https://a/b.png")),
        (f"data:image/png;base64,{PNG}", Media("image", "image/png", PNG)),
        (f"data:image/jpg;base64,{PNG}", Media("image", "image/png", PNG)),
        ("data:image/jpg;base64,AAAA", Media("image", "image/jpeg", "AAAA")),
        (f"data:application/pdf;base64,{PDF}", Media("document", "application/pdf", PDF)),
        ("data:text/plain,a%20b", Media("text", "text/plain", "a b")),
        ("data:text/csv;base64,YSxi", Media("text", "text/plain", "a,b")),
        ("data:text/csv;base64,Pj4-Pz8_", Media("text", "text/plain", ">>>???")),
        ("data:,a", Media("text", "text/plain", "a")),
    ],
)
def test_a_url_is_media(url: str, media: Media) -> None:
    kind: Any = "image" if media.kind == "image" else "document"
    assert relay.media_from_url(url, kind=kind) == media


def test_a_url_is_made_of_media() -> None:
    assert relay.data_url(Media("image", "image/png", "AAAA")) == "data:image/png;base64,AAAA"
    assert relay.data_url(Media("image", url="https://a/b")) == "https://a/b"


# About how long it is

ENGLISH, CHINESE = "word " * 200, "\u6f22" * 200


@pytest.mark.parametrize(
    ("longer", "shorter"),
    [
        (user(ENGLISH), user("word")),
        (user(CHINESE), user("a" * 200)),
        (user("a", Media("image", "image/png", PNG)), user("a")),
        (
            user(Media("image", "image/png", base64.b64encode(BIG_PNG).decode())),
            user(Media("image", "image/png", PNG)),
        ),
        (user(Media("document", "application/pdf", PDF * 9000)), user(Media("document", "x", PDF))),
        (user(Media("text", "text/plain", ENGLISH)), user(Media("text", "text/plain", "x"))),
        (assistant(ToolCall("1", "n", ENGLISH)), assistant(ToolCall("1", "n", "{}"))),
        (assistant(Reasoning(ENGLISH)), assistant(Reasoning("x"))),
        (user(result("1", ENGLISH)), user(result("1", "x"))),
    ],
)
def test_more_of_anything_counts_more(longer: Message, shorter: Message) -> None:
    counts = [
        relay.estimate(relay.Request(model="m", messages=(message,)))
        for message in (shorter, longer)
    ]
    assert counts[0] < counts[1]


def test_tools_count_with_their_schemas() -> None:
    bare = relay.Request(model="m", messages=(user("a"),))
    tool = relay.Tool("t", "Reads.", {"type": "object", "properties": {"a": {"type": "string"}}})
    big = relay.replace(tool, schema={"description": ENGLISH})
    counts = [relay.estimate(relay.replace(bare, tools=t)) for t in ((), (tool,), (big,))]
    assert counts[0] + 8 < counts[1] < counts[2]


def test_a_big_picture_costs_no_more_than_the_makers_scale_it_to() -> None:
    huge = PIXEL[:16] + struct.pack(">II", 100_000, 100_000)
    message = user(Media("image", "image/png", base64.b64encode(huge).decode()))
    assert relay.estimate(relay.Request(model="m", messages=(message,))) < 5000


def test_what_was_made_of_a_schema_is_kept_unless_it_is_large() -> None:
    """Ten thousand different tools of a megabyte would fill the memory."""
    made: list[relay.JSON] = []

    def change(schema: relay.JSON) -> relay.JSON:
        made.append(schema)
        return {"of": schema}

    recalled = relay.cached(change)
    small: relay.JSON = {"enum": [2**70, 1, 1.0, True, "\ud83d"]}
    large = {"description": "x" * 10_000}
    for schema in (small, dict(small), large, dict(large)):
        assert relay.dumps(recalled(schema)) == relay.dumps({"of": schema})
    assert [relay.dumps(schema) for schema in made] == list(map(relay.dumps, (small, large, large)))
    assert recalled({"enum": [1.0]}) is not recalled({"enum": [1]})
