"""The page in Chinese: every text of its script has a translation, and every translation a text."""

import re

import relay

SCRIPT = relay.page("en")[0].decode().partition("<script>")[2]
CHINESE = relay.page("zh")[0].decode().partition("<script>")[2]
# What begins with a capital or has a blank and is no text: names, headers, code, drawings.
LITERAL = re.compile(r'"([#.]?)([^"\n]*)"')
NO_TEXT = re.compile(
    r"use strict|AbortError|[MZT]|M\d.*|Content-Type|X-Relay-Page|POST|HTTP |cache lost"
    r"|YOUR_KEY"
    r"|0 0 24 24|Authorization: .*|RELAY_KEY|Python|Anthropic( SDK)?|OpenAI( SDK)?|Claude Code"
    r"|Gemini CLI|Qwen Code|CSV|Shell|[OCABSFLRDUI][A-Z]| .*|.* | B|GET"
)


def texts(script: str) -> list[str]:
    literals = [m[2] for m in LITERAL.finditer(script)]
    return [text for text in literals if re.match("[A-Z]", text) or " " in text]


def test_every_text_is_translated() -> None:
    english, chinese = texts(SCRIPT), [m[2] for m in LITERAL.finditer(CHINESE)]
    left = {text for text in english if text in chinese and not NO_TEXT.fullmatch(text)}
    assert left == set()


def test_every_translation_is_of_a_text_and_keeps_its_places() -> None:
    pairs = [pair.split("|") for pair in re.split(r"\n|  ", relay._CHINESE.strip())]
    literals = {m[2] for m in LITERAL.finditer(SCRIPT)}
    assert [english for english, _ in pairs if english not in literals] == []
    assert [e for e, c in pairs if e.count("{}") != c.count("{}")] == []
    assert len({english for english, _ in pairs}) == len(pairs)


def test_the_texts_are_all_that_differs() -> None:
    assert LITERAL.sub("", SCRIPT) == LITERAL.sub("", CHINESE)
