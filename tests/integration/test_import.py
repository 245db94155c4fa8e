"""`relay import`, as a person in a shell has it."""

import asyncio
import json
import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest
import yaml
from fake_upstream import FakeUpstream
from relay_process import PROGRAM, Start, run
from talk import CLIENT_KEY, JSON, UPSTREAM_KEY

OLD = """
{
  "APIKEY": "literal-key-of-clients",
  "Providers": [
    {"name": "deepseek", "api_base_url": "https://api.deepseek.com/chat/completions",
     "api_key": "literal-key", "models": ["deepseek-chat"]}
  ],
  "Router": {"default": "deepseek,deepseek-chat", "webSearch": "deepseek,x"}
}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "old.json").write_text(OLD)
    return tmp_path


async def test_what_it_prints_is_a_configuration(home: Path) -> None:
    ran = await run("import", "old.json", cwd=home)
    assert ran.status == 0
    assert "literal" not in ran.output
    assert '#   Router.webSearch = "deepseek,x"' in ran.stdout
    (home / "config.yaml").write_text(ran.stdout)
    refused = await run("check", cwd=home)
    assert refused.status == 2
    assert "DEEPSEEK_API_KEY is not set" in refused.stderr
    keys = {"DEEPSEEK_API_KEY": "a", "RELAY_KEY_CCR": "b"}
    assert (await run("check", cwd=home, env=keys)).status == 0


async def test_it_writes_a_new_private_file_and_says_what_to_do(home: Path) -> None:
    ran = await run("import", "old.json", "--with-secrets", "-o", "config.yaml", cwd=home)
    assert ran.status == 0
    assert "Router.webSearch" in ran.stdout
    assert "literal-key" in (home / "config.yaml").read_text()
    assert os.stat(home / "config.yaml").st_mode & 0o777 == 0o600
    assert (await run("check", cwd=home)).status == 0


async def test_what_is_there_is_not_overwritten(home: Path) -> None:
    (home / "config.yaml").write_text("mine")
    ran = await run("import", "old.json", "-o", "config.yaml", cwd=home)
    assert (ran.status, (home / "config.yaml").read_text()) == (2, "mine")
    assert "config.yaml: File exists" in ran.stderr


async def test_nothing_carried_over_is_1_and_writes_nothing(home: Path) -> None:
    (home / "models.json").write_text('{"models": [{"name": "a", "endpoint": "nowhere"}]}')
    for args in ([], ["-o", "config.yaml"]):
        ran = await run("import", "models.json", *args, cwd=home)
        assert (ran.status, ran.stdout) == (1, "")
        assert ran.stderr.startswith("models.json: nothing of claude-relay-service's models could")
        assert '  models[0].endpoint = "nowhere"\n' in ran.stderr
    assert not (home / "config.yaml").exists()


@pytest.mark.parametrize("text", [None, "a: b", "{", "\udcff"])
async def test_a_file_that_is_none_is_2(text: str | None, home: Path) -> None:
    if text is not None:
        (home / "other").write_bytes(text.encode(errors="surrogateescape"))
    ran = await run("import", "other", cwd=home)
    assert ran.status == 2
    assert ran.stderr.startswith("other:1:1: not UTF-8: " if text == "\udcff" else "other: ")
    assert "Traceback" not in ran.stderr


# ---- What worked there works here: their documents' requests, with another host and key

OPENAI_COMPATIBLE: JSON = {
    "host": "0.0.0.0",
    "port": 8080,
    "codegeex": [{"token": "t1", "prefix": "codegeex1", "user_role": 1}, {"token": "t2"}],
    "qwen": [{"token": "t3", "prefix": "qwen1"}],
    "gemini_cli": [{"project_id": "p", "token": {}, "prefix": "gemini1"}],
}
VELOERA: JSON = {
    "providers": [
        {
            "name": "bigglm",
            "api_format": "openai",
            "endpoints": {"regular": "UPSTREAM/regular/v4", "coding": "UPSTREAM/coding/v4"},
            "billing_plans": ["coding", "regular"],
            "api_key": "literal",
            "models": ["glm-4.6", "glm-4.5"],
        }
    ],
    "routing_rules": {"glm-4.6": "bigglm"},
}
CRS_MODELS: JSON = {
    "models": [
        {
            "name": "Qwen3-Coder-480B",
            "endpoint": "UPSTREAM",
            "deployment": "qwen3-coder-480b",
            "type": "code",
            "mapping": "claude-3-opus-20240229",
        }
    ]
}
CRS_ACCOUNT: JSON = {
    "platform": "claude-console",
    "name": "console",
    "apiUrl": "UPSTREAM",
    "apiKey": "literal",
    "supportedModels": {"claude-sonnet-4-5": "theirs"},
    "isActive": True,
    "schedulable": True,
}
CRS_RESPONSES: JSON = {
    "platform": "openai-responses",
    "name": "codex",
    "baseApi": "UPSTREAM",
    "apiKey": "literal",
}
CRS_GEMINI: JSON = {
    "platform": "gemini-api",
    "name": "g",
    "baseUrl": "UPSTREAM",
    "apiKey": "literal",
    "supportedModels": ["gemini-2.5-pro"],
}
CRS_AZURE: JSON = {
    "platform": "openai",
    "name": "method 2",
    "baseUrl": "UPSTREAM/v1",
    "apiKey": "literal",
    "supportedModels": ["gpt-4o"],
    "deploymentName": "qwen3-32b",
}
CRS_CCR: JSON = {"data": {"ccrAccounts": [CRS_ACCOUNT | {"platform": "ccr", "name": "mirror"}]}}
CRS_DEPLOYMENT: JSON = {
    "platform": "azure-openai",
    "name": "eu",
    "azureEndpoint": "https://eu.openai.azure.com",
    "apiVersion": "2024-10-21",
    "deploymentName": "gpt-4o-eu",
    "apiKey": "literal",
    "supportedModels": ["gpt-4o"],
}
CRS_BEDROCK: JSON = {
    "platform": "bedrock",
    "name": "b",
    "region": "us-east-1",
    "bearerToken": "literal",
    "defaultModel": "anthropic.claude-sonnet-5-5",
}
VELOERA_NAMES: JSON = {
    "providers": {"big glm": {"base_url": "UPSTREAM/v1", "key": "literal", "models": ["glm-4.6"]}}
}
VELOERA_LISTS = VELOERA | {
    "routing_rules": [{"model": "fast", "provider": "bigglm", "target_model": "glm-4.5"}]
}
CCR: JSON = {
    "Providers": [
        {
            "name": "deepseek",
            "api_base_url": "UPSTREAM/chat/completions",
            "api_key": "literal",
            "models": ["deepseek-chat"],
        }
    ],
    "Router": {"default": "deepseek,deepseek-chat"},
}
LITELLM: JSON = {
    "model_list": [
        {
            "model_name": "gpt-3.5-turbo",
            "litellm_params": {
                "model": "openai/gpt-4o-mini",
                "api_base": "UPSTREAM/v1",
                "api_key": "literal",
            },
        }
    ],
    "general_settings": {"master_key": "sk-1234"},
}
CHAT = """curl -sf -X POST HOST/v1/chat/completions -H "Content-Type: application/json" \\
  -H "Authorization: Bearer KEY" -d '{"model": "MODEL", "messages": [{"role": "user",
  "content": "Hello"}]}'"""
STREAMED = CHAT.replace('"messages"', '"stream": true, "messages"')
MESSAGES = """curl -sf -X POST HOST/v1/messages -H "content-type: application/json" \\
  -H "anthropic-version: 2023-06-01" -H "x-api-key: KEY" -d '{"model": "MODEL",
  "max_tokens": 1024, "messages": [{"role": "user", "content": "Hello"}]}'"""

IN_API, IN_CLAUDE = (MESSAGES.replace("HOST/", f"HOST/{pool}/") for pool in ("api", "claude"))
CODEX = """curl -sf HOST/openai/responses -H "content-type: application/json" \\
  -H "authorization: Bearer KEY" -d '{"model": "MODEL", "input": "Hello", "stream": true}'"""
AZURE = CHAT.replace("HOST/v1/", "HOST/azure/")
GEMINI = """curl -sf HOST/gemini/v1beta/models/MODEL:generateContent -H "x-goog-api-key: KEY" \\
  -d '{"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}'"""

DOCUMENTS: dict[str, tuple[JSON, str, str, str, str]] = {
    # a predecessor's file, the request of its document, the model in it -> dialect, model upstream
    "codegeex": (OPENAI_COMPATIBLE, STREAMED, "codegeex/codegeex4", "openai", "glm-4.7"),
    "qwen": (OPENAI_COMPATIBLE, CHAT, "qwen/qwen-turbo", "openai", "qwen-turbo"),
    "gemini": (OPENAI_COMPATIBLE, CHAT, "gemini_cli/gemini-pro", "gemini", "gemini-pro-latest"),
    "veloera": (VELOERA, CHAT, "glm-4.6", "openai", "glm-4.6"),
    "models": (CRS_MODELS, MESSAGES, "claude-3-opus-20240229", "openai", "qwen3-coder-480b"),
    "account": (CRS_ACCOUNT, IN_API, "claude-sonnet-4-5", "anthropic", "theirs"),
    "claude": (CRS_ACCOUNT, IN_CLAUDE, "claude-sonnet-4-5", "anthropic", "theirs"),
    "codex": (CRS_RESPONSES, CODEX, "gpt-6-sol", "responses", "gpt-6-sol"),
    "gemini api": (CRS_GEMINI, GEMINI, "gemini-2.5-pro", "gemini", "gemini-2.5-pro"),
    "method 2": (CRS_AZURE, CHAT, "gpt-4o", "openai", "qwen3-32b"),
    "ccr account": (CRS_CCR, IN_API, "claude-sonnet-4-5", "anthropic", "theirs"),
    "ccr alone": (CRS_CCR, IN_API, "ccr,claude-sonnet-4-5", "anthropic", "theirs"),
    "azure": (CRS_DEPLOYMENT, AZURE, "gpt-4o", "openai", "/openai/deployments/gpt-4o-eu/"),
    "bedrock": (CRS_BEDROCK, IN_CLAUDE, "claude-sonnet-4-5", "anthropic", "claude-sonnet-5-5"),
    "veloera names": (VELOERA_NAMES, CHAT, "glm-4.6", "openai", "glm-4.6"),
    "veloera rules": (VELOERA_LISTS, CHAT, "fast", "openai", "glm-4.5"),
    "ccr": (CCR, MESSAGES, "claude-sonnet-4-20250514", "openai", "deepseek-chat"),
    "litellm": (LITELLM, CHAT, "gpt-3.5-turbo", "openai", "gpt-4o-mini"),
    "vte": ({}, CHAT, "gpt-4", "openai", "gpt-4"),
    "vte prefix": ({}, CHAT, "gpt/gpt-4", "openai", "gpt-4"),
    "vte name": ({}, STREAMED, "five", "openai", "gpt-5"),
}
VTE = """
CREATE TABLE users (id INTEGER PRIMARY KEY, username TEXT, hashed_password TEXT, api_key TEXT,
  is_admin INTEGER DEFAULT 0, is_active INTEGER DEFAULT 1);
CREATE TABLE providers (id INTEGER PRIMARY KEY, name TEXT, base_url TEXT, api_key TEXT,
  model_prefix TEXT DEFAULT '', provider_type TEXT DEFAULT 'standard', vertex_project TEXT,
  vertex_location TEXT DEFAULT 'global', extra_headers TEXT, proxy_url TEXT,
  is_active INTEGER DEFAULT 1);
CREATE TABLE models (id INTEGER PRIMARY KEY, provider_id INTEGER, original_id TEXT,
  display_name TEXT, custom_name INTEGER DEFAULT 0, is_active INTEGER DEFAULT 1);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE provider_api_keys (id INTEGER PRIMARY KEY, provider_id INTEGER, api_key TEXT,
  name TEXT, is_active INTEGER DEFAULT 1);
INSERT INTO users (username, hashed_password, api_key) VALUES ('admin', 'x', 'literal-of-admin');
INSERT INTO providers (id, name, base_url, api_key, model_prefix)
  VALUES (1, 'main', 'UPSTREAM/v1', 'literal-1', 'gpt');
INSERT INTO provider_api_keys (provider_id, api_key, is_active)
  VALUES (1, 'literal-1', 1), (1, 'literal-2', 0);
INSERT INTO models (provider_id, original_id, display_name, is_active)
  VALUES (1, 'gpt-4', 'gpt/gpt-4', 1), (1, 'gpt-5', 'five', 1), (1, 'off', 'gpt/off', 0);
INSERT INTO settings VALUES ('stream_mode', 'auto'), ('secret_key', 'literal-secret');
"""


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_the_request_of_its_document_works_after_importing(
    name: str, home: Path, upstream: FakeUpstream, relay: Start
) -> None:
    old, curl, model, _, served = DOCUMENTS[name]
    file = home / "old"
    if old:
        file.write_text(json.dumps(old).replace("UPSTREAM", upstream.url))
    else:
        store = sqlite3.connect(file)
        store.executescript(VTE.replace("UPSTREAM", upstream.url))
        store.close()
    ran = await run("import", "old", cwd=home)
    assert ran.status == 0, ran.output
    assert "literal" not in ran.output
    config = yaml.safe_load(ran.stdout)
    config.pop("listen", None)  # a port of its own, which may be taken here
    for each in config["providers"].values():  # in place of what is not on this machine
        urls = each.get("endpoints") or {"": each.get("endpoint", "https:")}
        if any(url.startswith("https:") for url in urls.values()):
            each |= {"endpoint": upstream.url}
            each.pop("billing_plans", None)
    variables = set(re.findall(r"\$\{(\w+)\}", ran.stdout))
    env = {n: CLIENT_KEY if n.startswith("RELAY_KEY") else UPSTREAM_KEY for n in variables}
    server = await relay(config, env=env)
    command = curl.replace("HOST", server.url).replace("KEY", CLIENT_KEY).replace("MODEL", model)
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    answer, _ = await process.communicate()
    assert process.returncode == 0
    assert b"Hello" in answer
    (seen,) = upstream.requests
    assert served in (seen.path + seen.body.decode())


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="there are no such files here")
async def test_a_pipe_can_be_read(home: Path) -> None:
    command = f"echo '{{\"qwen\": [{{}}]}}' | {sys.executable} {PROGRAM} import /dev/stdin"
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, cwd=home
    )
    out, _ = await process.communicate()
    assert b"preset: dashscope" in out


async def test_relays_own_file_is_said_to_be_that(home: Path) -> None:
    (home / "config.yaml").write_text("providers: {zai: {preset: zai, api_key: $ZAI_API_KEY}}")
    ran = await run("import", "config.yaml", cwd=home)
    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        "config.yaml: this is relay's own configuration already: see relay check\n"
    )


async def test_vtes_first_databases_have_one_key_for_each_provider(home: Path) -> None:
    store = sqlite3.connect(home / "gateway.db")
    store.executescript(VTE.replace("UPSTREAM", "http://127.0.0.1:9"))
    store.execute("DROP TABLE provider_api_keys")
    store.execute("UPDATE providers SET api_key = 'literal-old'")
    store.commit()
    store.close()
    ran = await run("import", "gateway.db", "--with-secrets", cwd=home)
    assert ran.status == 0, ran.output
    assert yaml.safe_load(ran.stdout)["providers"]["main"]["api_key"] == "literal-old"


async def test_a_database_that_is_not_vtes_is_said_to_be_none(home: Path) -> None:
    store = sqlite3.connect(home / "other.db")
    store.execute("CREATE TABLE t (x)")
    store.commit()
    store.close()
    ran = await run("import", "other.db", cwd=home)
    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == "other.db: cannot be read: no such table: providers\n"
