"""README's plugins, saved as they are printed there and run before fakes of their services."""

import contextlib
import json
import re
import shlex
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
import pytest
import talk
from fake_upstream import Answer, FakeUpstream, Seen, data, stream, whole
from relay_process import Start, run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TOKEN = "0f1e2d3c-token-of-the-ide"


def plugin(name: str) -> str:
    """The block behind the line that begins with its name."""
    found = re.search(rf"^`{name}\.py`,.*?^```python\n(.*?)^```$", README, re.S | re.M)
    assert found
    assert len(found[1].splitlines()) < 90
    return found[1]


def event(name: str, value: talk.JSON) -> bytes:
    return f"event: {name}\r\nid: 1\r\n".encode() + data(value).replace(b"\n\n", b"\r\n\r\n")


def add(text: str) -> bytes:
    return event("add", {"id": "a1", "text": text, "finish_reason": None, "model": "m"})


@pytest.fixture
def codegeex(tmp_path: Path, upstream: FakeUpstream) -> talk.JSON:
    (tmp_path / "codegeex.py").write_text(plugin("codegeex"))
    provider = {
        "preset": "codegeex",
        "api_key": TOKEN,
        "endpoints": {"regular": {"codegeex": f"{upstream.url}/prod"}},
    }
    return {"plugins": str(tmp_path / "codegeex.py"), "providers": {"codegeex": provider}}


def speaks_codegeex(seen: Seen) -> Answer:
    if seen.method == "GET":
        return whole(
            {"options": [{"id": "codegeex4", "name": "CodeGeeX4"}], "default": "codegeex4"}
        )
    if "stream=false" in seen.query:
        return whole({"code": 200, "data": {"text": "Hello, you."}})
    searched = event("processing", {"type": "keyword", "data": ["q"]})
    end = event("finish", {"id": "a1", "text": "Hello, you.", "finish_reason": "stop"})
    return stream([add("Hello, "), searched, add("you."), end])


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_codegeex_answers_every_client(
    codegeex: talk.JSON, upstream: FakeUpstream, relay: Start, path: str, streamed: bool
) -> None:
    upstream.script(speaks_codegeex)
    server = await relay(codegeex)
    turns = [("user", "One."), ("assistant", "Two."), ("user", "Three.")]
    said = [{"role": role, "content": text} for role, text in turns]
    body = {"model": "codegeex/codegeex4", "stream": streamed, "max_tokens": 50}
    body |= {"input": said} if path.endswith("responses") else {"messages": said}
    body |= {"instructions": "Be brief."} if path.endswith("responses") else {}
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post(path, json=body) as reply,
    ):
        text = await reply.text()
    assert reply.status == 200, text
    assert text.count("Hello, you.") or (text.count("Hello, ") and text.count("you."))
    if path.endswith("completions") and streamed:  # what `finish` repeats is not said twice
        pieces = re.findall(r'"content": ?"([^"]*)"', text)
        assert "".join(pieces) == "Hello, you."
        assert text.endswith("data: [DONE]\n\n")
    (seen,) = upstream.requests
    assert seen.path == "/prod/code/chatCodeSseV3/chat"
    assert seen.query == ("" if streamed else "stream=false")
    assert seen.headers["code-token"] == TOKEN
    assert "authorization" not in seen.headers
    sent = seen.json
    assert (sent["model"], sent["prompt"]) == ("codegeex4", "Three.")
    (past,) = sent["history"]
    assert past["query"].endswith("One.")
    assert past["answer"] == "Two."
    assert ("Be brief." in past["query"]) == path.endswith("responses")
    assert {"machineId", "talkId", "user_role", "locale"} <= sent.keys()


@pytest.mark.parametrize("breaks", [True, False])
async def test_an_answer_of_codegeex_without_its_finish_is_whole_unless_it_breaks_off(
    codegeex: talk.JSON, upstream: FakeUpstream, relay: Start, breaks: bool
) -> None:
    events = [add("Hello, "), add("you.")]
    answer = stream(events).but(cut_after=len(events[0]) + 9) if breaks else stream(events)
    upstream.script(answer)
    server = await relay(codegeex)
    body, text = talk.chat("codegeex/codegeex4", stream=True), ""
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post("/v1/chat/completions", json=body) as reply,
    ):
        with contextlib.suppress(aiohttp.ClientError):
            async for chunk in reply.content.iter_any():
                text += chunk.decode()
    assert "Hello, " in text
    assert ("[DONE]" in text) is ("error" not in text) is ('"finish_reason":"stop"' in text)
    assert ("[DONE]" in text) is not breaks


async def test_codegeex_says_what_it_cannot_do(
    codegeex: talk.JSON, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(speaks_codegeex)
    server = await relay(codegeex)
    body = talk.chat("codegeex/codegeex4", tools=[talk.CHAT_TOOL])
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post("/v1/chat/completions", json=body) as reply,
    ):
        assert reply.status == 200
        assert "tools" in reply.headers["x-relay-dropped"]
    assert "tools" not in upstream.requests[0].json


async def test_codegeex_refuses_a_dead_token(
    codegeex: talk.JSON, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(lambda seen: Answer(status=401))
    server = await relay(codegeex)
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post("/v1/chat/completions", json=talk.chat("codegeex/codegeex4")) as reply,
    ):
        assert reply.status == 502
        assert "refused relay's credential" in await reply.text()


async def test_codegeex_lists_its_models(
    codegeex: talk.JSON, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.script(speaks_codegeex)
    (tmp_path / "config.yaml").write_text(json.dumps(codegeex))
    ran = await run("check", "--live", "--yes", cwd=tmp_path)
    assert any(seen.path == "/prod/v3/chat/model" for seen in upstream.requests), ran.output
    assert re.search(r"codegeex4 +1 \S+ +\d+ms +\d+ms +no call", ran.output), ran.output


# ---- Code Assist


@pytest.fixture
def code_assist(tmp_path: Path, upstream: FakeUpstream) -> talk.JSON:
    (tmp_path / "code_assist.py").write_text(plugin("code_assist"))
    kept = {"access_token": "old", "refresh_token": "again", "expiry_date": 1000}
    (tmp_path / "creds.json").write_text(json.dumps(kept))
    command = f"{shlex.quote(sys.executable)} {tmp_path / 'code_assist.py'}"
    provider = {
        "preset": "code-assist",
        "api_key": {"command": command, "ttl": "50m"},
        "endpoints": {"regular": {"code_assist": upstream.url}},
        "models": ["gemini-2.5-pro"],
    }
    return {"plugins": str(tmp_path / "code_assist.py"), "providers": {"gemini_cli": provider}}


def environment(tmp_path: Path, upstream: FakeUpstream) -> dict[str, str]:
    return {
        "CODE_ASSIST_FILE": str(tmp_path / "creds.json"),
        "CODE_ASSIST_TOKEN_URL": f"{upstream.url}/token",
        "CODE_ASSIST_CLIENT_ID": "id-of-ours",
        "CODE_ASSIST_CLIENT_SECRET": "hush",
        "GOOGLE_CLOUD_PROJECT": "project-1",
    }


def speaks_code_assist(seen: Seen) -> Answer:
    if seen.path == "/token":
        return whole({"access_token": "fresh", "expires_in": 3599, "token_type": "Bearer"})
    answer = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello."}]}}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
    }
    answer["candidates"][0]["finishReason"] = "STOP"  # type: ignore[index]
    wrapped = {"response": answer, "traceId": "t1"}
    return stream([data(wrapped)]) if "stream" in seen.path else whole(wrapped)


@pytest.mark.parametrize("streamed", [True, False])
async def test_code_assist_answers_and_renews_its_token(
    code_assist: talk.JSON, upstream: FakeUpstream, relay: Start, tmp_path: Path, streamed: bool
) -> None:
    upstream.script(speaks_code_assist)
    server = await relay(code_assist, env=environment(tmp_path, upstream))
    body = talk.messages("gemini_cli/gemini-2.5-pro", stream=streamed, tools=[talk.ANTHROPIC_TOOL])
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post("/v1/messages", json=body) as reply,
    ):
        text = await reply.text()
    assert reply.status == 200, text
    assert "Hello." in text
    assert re.search(r'"output_tokens": ?2\b', text)
    renewed, asked = upstream.requests
    assert parse_qs(renewed.body.decode())["refresh_token"] == ["again"]
    method = "streamGenerateContent" if streamed else "generateContent"
    assert (asked.path, asked.query) == (f"/v1internal:{method}", "alt=sse" if streamed else "")
    assert asked.headers["authorization"] == "Bearer fresh"
    assert asked.json["model"] == "gemini-2.5-pro"
    assert asked.json["project"] == "project-1"
    assert asked.json["request"]["contents"]
    assert asked.json["request"]["tools"][0]["functionDeclarations"][0]["name"] == "get_weather"
    kept = json.loads((tmp_path / "creds.json").read_text())
    assert (kept["access_token"], kept["refresh_token"]) == ("fresh", "again")
    assert kept["expiry_date"] > time.time() * 1000


async def test_an_account_that_is_refused_is_a_matter_of_the_credential(
    code_assist: talk.JSON, upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "UNSUPPORTED_CLIENT"}
    error = {"code": 403, "message": "Not eligible.", "status": "PERMISSION_DENIED"}

    def refuse(seen: Seen) -> Answer:
        if seen.path == "/token":
            return speaks_code_assist(seen)
        return whole({"error": error | {"details": [detail]}}, status=403)

    upstream.script(refuse)
    server = await relay(code_assist, env=environment(tmp_path, upstream))
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.post("/v1/messages", json=talk.messages("gemini_cli/gemini-2.5-pro")) as reply,
    ):
        assert reply.status == 502
        assert "refused relay's credential" in await reply.text()


async def test_the_first_plugin_of_readme_is_a_preset(tmp_path: Path) -> None:
    block = next(b for b in re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M))
    (tmp_path / "house.py").write_text(block)
    provider = {"house": {"preset": "house", "api_key": "k", "models": ["house-1"]}}
    config = {"plugins": "house.py", "providers": provider}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    ran = await run("check", cwd=tmp_path)
    assert ran.status == 0, ran.output
    assert "https://llm.house.example/v1/chat/completions" in ran.output


async def test_an_import_names_the_plugin_to_save(tmp_path: Path) -> None:
    old = {"codegeex": [{"token": "t", "prefix": "c"}], "gemini_cli": [{"project_id": "p"}]}
    (tmp_path / "config.json").write_text(json.dumps(old))
    ran = await run("import", "config.json", cwd=tmp_path)
    assert ran.status == 0
    assert "save codegeex.py of README's Plugins" in ran.output.replace("\n# ", " ")
    assert "save code_assist.py of README's Plugins" in ran.output.replace("\n# ", " ")
