"""Words by which clients decide: some read neither status nor type, only an error's text.

pi 0.73 asks again, Continue 1.5 compacts or asks again, where these patterns match.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress

import fake_upstream as fake
import pytest
from aiohttp import ClientPayloadError, ClientSession
from fake_upstream import Answer, FakeUpstream, stream
from relay_process import Start
from talk import JSON, chat, messages, one

PI = re.compile(r"(?i)socket hang up|ended without|timed? out|timeout")
CONTINUE_AGAIN = re.compile(r"(?i)premature close|premature end|socket hang up|aborted")
CONTINUE_FULL = re.compile(r"(?i)maximum context length|context_length_exceeded")
CALL = ("call_1", "run", json.dumps({"command": "echo one; echo two; echo three"}))
CUT = b"echo o"


def broken(how: str) -> Answer:
    whole = fake.chat_stream(text="I will.", calls=[CALL])
    cut = whole.wire.index(CUT) + len(CUT)
    if how == "reset":
        return whole.but(cut_after=cut)
    return stream([whole.wire[:cut]], never_ends=how == "silence")


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", chat), ("/v1/messages", messages)]
)
@pytest.mark.parametrize("how", ["reset", "end", "silence"])
async def test_a_broken_stream_says_that_it_may_be_asked_again(
    how: str, path: str, body: Callable[..., JSON], relay: Start, upstream: FakeUpstream
) -> None:
    upstream.script(broken(how))
    server = await relay(one(upstream) | {"timeouts": {"idle": 1}})
    heard = bytearray()
    async with ClientSession() as session:
        with suppress(ClientPayloadError, OSError):  # it is cut off on purpose
            async with session.post(server.url + path, json=body(stream=True)) as answer:
                async for block in answer.content.iter_any():
                    heard += block
    last = heard.decode().rpartition("data: ")[2]
    message = json.loads(last)["error"]["message"]
    assert PI.search(message)
    assert CONTINUE_AGAIN.search(message)


@pytest.mark.parametrize(
    "text",
    [
        "prompt is too long: 213462 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
    ],
)
async def test_a_chat_client_is_told_in_openai_s_words_that_a_prompt_is_too_long(
    text: str, relay: Start, upstream: FakeUpstream
) -> None:
    upstream.script(fake.anthropic_error(400, text))
    server = await relay(one(upstream, "anthropic"))
    async with ClientSession() as session:
        answer = await session.post(server.url + "/v1/chat/completions", json=chat())
        error = (await answer.json())["error"]
    assert answer.status == 400
    assert error["code"] == "context_length_exceeded"
    assert CONTINUE_FULL.search(error["message"])
    assert "prompt is too long" in error["message"]  # Copilot CLI 1.0 compacts at it
    assert text in error["message"]  # pi and Copilot know the maker's words


@pytest.mark.parametrize(
    ("status", "text", "advice"),
    [
        (401, "the key has expired", "check api_key and the plan's URL"),
        (404, "The model `m` does not exist", "check `models`"),
    ],
)
async def test_a_client_that_asks_again_is_still_told_what_to_do(
    status: int, text: str, advice: str, relay: Start, upstream: FakeUpstream
) -> None:
    """Vercel's AI SDK asks three times and shows the last error alone."""
    upstream.script(fake.chat_error(status, text))
    server = await relay(one(upstream))
    messages = []
    async with ClientSession() as session:
        for _ in range(2):
            answer = await session.post(server.url + "/v1/chat/completions", json=chat())
            messages.append((await answer.json())["error"]["message"])
    assert text in messages[0]
    assert all(advice in message for message in messages)
    assert len(upstream.requests) == 1
