"""The providers that are played before real clients, and how to read what they were sent."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fake_upstream as fake
from fake_upstream import Answer, Seen
from talk import JSON


@dataclass(frozen=True)
class Provider:
    """A dialect as a provider has it.  To Gemini thoughts go back as signatures alone."""

    whole: Callable[..., Answer]
    stream: Callable[..., Answer]
    path: str
    turns: str  # what the conversation is called
    results: Callable[[JSON], dict[str, str]]  # of tools, by the id of their call
    seal: str  # what goes back to it of its reasoning

    def says(self, seen: Seen, **said: Any) -> Answer:
        """An answer, streamed if it was asked for so."""
        streams = "stream" in seen.path or seen.json.get("stream")
        return (self.stream if streams else self.whole)(**said)


def anthropic_results(body: JSON) -> dict[str, str]:
    spoken = [turn["content"] for turn in body["messages"] if isinstance(turn["content"], list)]
    results = [block for said in spoken for block in said if block["type"] == "tool_result"]
    return {block["tool_use_id"]: json.dumps(block["content"]) for block in results}


def chat_results(body: JSON) -> dict[str, str]:
    results = [turn for turn in body["messages"] if turn["role"] == "tool"]
    return {turn["tool_call_id"]: json.dumps(turn["content"]) for turn in results}


def responses_results(body: JSON) -> dict[str, str]:
    results = [item for item in body["input"] if item.get("type") == "function_call_output"]
    return {item["call_id"]: json.dumps(item["output"]) for item in results}


def gemini_results(body: JSON) -> dict[str, str]:
    parts = [part for turn in body["contents"] for part in turn["parts"]]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    return {result["id"]: json.dumps(result["response"]) for result in results}


PROVIDERS = {
    "anthropic": Provider(
        fake.anthropic_whole,
        fake.anthropic_stream,
        "/v1/messages",
        "messages",
        anthropic_results,
        fake.SIGNATURE,
    ),
    "gemini": Provider(
        fake.gemini_whole,
        fake.gemini_stream,
        "/v1beta/models/real-model:streamGenerateContent",
        "contents",
        gemini_results,
        fake.SIGNATURE,
    ),
    "openai": Provider(
        fake.chat_whole,
        fake.chat_stream,
        "/v1/chat/completions",
        "messages",
        chat_results,
        '"reasoning_content"',
    ),
    "responses": Provider(
        fake.responses_whole,
        fake.responses_stream,
        "/v1/responses",
        "input",
        responses_results,
        fake.ENCRYPTED,
    ),
}
