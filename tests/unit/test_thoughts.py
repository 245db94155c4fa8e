"""Who is shown what was thought, and how providers are asked to tell it; PROTOCOLS.md 2.2.3."""

from __future__ import annotations

import pytest
from laws.strategies import ACCOUNT, carried, piped
from unit.wires import (
    A,
    C,
    G,
    R,
    anthropic,
    assistant,
    blocks_of,
    calls,
    chat,
    chat_stream,
    fragment,
    responses,
    result,
    use,
    user,
)

import relay

ANTHROPIC_SAYS: list[tuple[relay.JSON, bool | None]] = [
    ({}, None),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),  # Qwen Code
    ({"thinking": {"type": "adaptive", "display": "omitted"}}, False),  # Claude Code, -p
    ({"thinking": {"type": "adaptive", "display": "updates"}}, True),  # Claude Code
    ({"thinking": {"type": "adaptive", "display": "summarized"}}, True),  # pi
    ({"thinking": {"type": "adaptive", "display": "next year's"}}, None),
]
RESPONSES_SAY: list[tuple[relay.JSON, bool | None]] = [
    ({}, None),  # Qwen Code
    ({"reasoning": {"effort": "medium"}}, False),  # Codex, of a model it knows
    ({"reasoning": {"effort": "medium", "summary": None}}, False),
    ({"reasoning": {"summary": "auto"}}, True),  # Codex, of any other
    ({"reasoning": {"effort": "low", "generate_summary": "concise"}}, True),
]
GEMINI_SAYS: list[tuple[relay.JSON, bool | None]] = [
    ({}, False),
    ({"thinkingConfig": {"thinkingLevel": "HIGH"}}, False),
    ({"thinkingConfig": {"includeThoughts": False}}, False),
    ({"thinkingConfig": {"includeThoughts": True}}, True),  # Gemini CLI
    ({"thinking_config": {"include_thoughts": True}}, True),
]
CHAT_SAYS: list[tuple[relay.JSON, bool | None]] = [
    ({}, None),
    ({"reasoning_effort": "high"}, None),
    ({"reasoning": {"effort": "high", "exclude": True}}, False),
    ({"reasoning": {"exclude": False}}, None),
]


def test_who_is_shown_what_was_thought() -> None:
    for said, shown in ANTHROPIC_SAYS:
        assert A.parse_request(anthropic(**said)).show_thoughts is shown, said
    for said, shown in RESPONSES_SAY:
        assert (
            R.parse_request(responses({"role": "user", "content": "Hi"}, **said)).show_thoughts
            is shown
        ), said
    for said, shown in CHAT_SAYS:
        assert C.parse_request(chat(**said)).show_thoughts is shown, said
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    for said, shown in GEMINI_SAYS:
        body = {"contents": contents, "generationConfig": said}
        assert G.parse_request(body).show_thoughts is shown, said


@pytest.mark.parametrize(
    ("shown", "claude", "openai", "gemini"),
    [
        (None, "summarized", None, True),
        (True, "summarized", "auto", True),
        (False, "omitted", None, False),
    ],
)
def test_providers_are_asked_in_their_words(
    shown: bool | None, claude: str, openai: str | None, gemini: bool
) -> None:
    """OpenAI refuses summaries to some, so that who does not ask for them does not get them."""
    request = relay.Request(
        model="claude-opus-4-8",
        messages=(relay.Message("user", (relay.Text("Hi"),)),),
        thinking=relay.Thinking(True, "high"),
        show_thoughts=shown,
    )
    body = A.render_request(request, A.quirks(), ACCOUNT).body
    assert body["thinking"] == {"type": "adaptive", "display": claude}
    body = R.render_request(request, R.quirks(), ACCOUNT).body
    assert body["reasoning"].get("summary") == openai
    body = G.render_request(request, G.quirks(), ACCOUNT).body
    assert body["generationConfig"]["thinkingConfig"]["includeThoughts"] is gemini


def test_a_summary_alone_is_asked_for_too() -> None:
    """Codex says no more than that of models it does not know, Gemini CLI no more than its own."""
    asked = responses({"role": "user", "content": "Hi"}, reasoning={"summary": "auto"})
    assert carried(asked, R, G).body["generationConfig"] == {
        "thinkingConfig": {"includeThoughts": True}
    }
    old = relay.replace(R.parse_request(asked), model="gemini-1.5-pro")
    assert "generationConfig" not in G.render_request(old, G.quirks(), ACCOUNT).body
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    config = {"thinkingConfig": {"includeThoughts": True}}
    body = carried({"contents": contents, "generationConfig": config}, G, R).body
    assert body["reasoning"] == {"summary": "auto"}


def test_who_is_asked_to_tell_its_thoughts_has_some() -> None:
    """Unless a budget would have to be made up for it, as older Claudes want one."""
    asked = responses({"role": "user", "content": "Hi"}, reasoning={"summary": "auto"})
    request = R.parse_request(asked)

    def thinking(model: str) -> relay.JSON | None:
        body = A.render_request(relay.replace(request, model=model), A.quirks(), ACCOUNT).body
        found: relay.JSON | None = body.get("thinking")
        return found

    assert thinking("claude-opus-5") == {"type": "adaptive", "display": "summarized"}
    assert thinking("claude-sonnet-4-5") is None


def test_who_may_not_summarize_is_asked_without() -> None:
    request = R.parse_request(
        responses({"role": "user", "content": "Hi"}, reasoning={"effort": "low", "summary": "auto"})
    )
    again = relay.without_reasoning(request)
    assert R.render_request(again, R.quirks(), ACCOUNT).body["reasoning"] == {"effort": "low"}


@pytest.mark.parametrize("model", ["claude-opus-4-8", "claude-sonnet-4-6"])
@pytest.mark.parametrize("shown", [None, True, False])
def test_a_platform_that_does_not_know_display_is_asked_without(
    model: str, shown: bool | None
) -> None:
    request = relay.Request(
        model=model,
        messages=(relay.Message("user", (relay.Text("Hi"),)),),
        thinking=relay.Thinking(True, "high"),
        show_thoughts=shown,
    )
    again = relay.without_reasoning(request)
    assert A.render_request(again, A.quirks(), ACCOUNT).body["thinking"] == {"type": "adaptive"}


def test_a_thought_that_was_not_shown_goes_back_to_its_maker() -> None:
    """DeepSeek wants it on every tool turn, whatever the client shows; by each of its formats."""
    thought = {"reasoning_content": "Need to look."}
    made = chat_stream(thought, calls(fragment(0, "{}", "a", "read")), finish="tool_calls")
    asked = relay.AnswerContext("m", "req_1", shown=False)
    between = relay.AnswerPath(C, A, asked, account=ACCOUNT)
    out = piped(relay.Streamed(between), [made])
    block, used = blocks_of(out)
    assert (block["type"], block["thinking"], used["type"]) == ("thinking", "", "tool_use")
    assert b"Need to look" not in out
    back = [user("Go"), assistant(block, use("a")), user(result("a"))]
    deepseek = relay.PRESETS["deepseek"].quirks
    there = carried(anthropic(*back), A, C, deepseek["openai"]).body
    assert there["messages"][1]["reasoning_content"] == "Need to look."
    same = A.cleaned(anthropic(*back), deepseek["anthropic"], ACCOUNT, False)
    assert same["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "Need to look.",
        "signature": "",
    }
