"""Other relays' files, after their documents, as configurations of this one: what is carried,
what is named, and that nothing is neither."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.configs import plan_of, problems_of

import relay

LITELLM = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://my-endpoint-europe.openai.azure.com/
      api_key: os.environ/AZURE_API_KEY_EU
      api_version: "2024-02-01"
      rpm: 6
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: sk-in-plain-text, timeout: 300,
                     stream_timeout: 60}
    model_info: {mode: chat, max_input_tokens: 128000, max_output_tokens: 16384,
                 input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-5, api_key: os.environ/ANTHROPIC_API_KEY}
  - model_name: vllm-models
    litellm_params: {model: openai/facebook/opt-125m, api_base: http://0.0.0.0:4000/v1,
                     api_key: none, temperature: 0.2}
  - model_name: deepseek
    litellm_params: {model: deepseek/deepseek-chat, weight: 2, order: 1}
  - model_name: bedrock
    litellm_params: {model: bedrock/anthropic.claude-v2, aws_region_name: us-east-1}
  - model_name: "openrouter/*"
    litellm_params: {model: "openrouter/*", api_key: os.environ/OPENROUTER_API_KEY}
litellm_settings:
  drop_params: true
  request_timeout: 600
  fallbacks: [{"claude": ["gpt-4o"]}]
  success_callback: ["langfuse"]
router_settings:
  routing_strategy: simple-shuffle
  model_group_alias: {gpt-4: gpt-4o}
  num_retries: 2
general_settings:
  master_key: sk-1234
  database_url: postgresql://user:pass@host/db
environment_variables:
  REDIS_PASSWORD: hunter2
"""

CCR = """
{
  // two hashes of the same key
  "APIKEY": "your-secret-key",
  "PROXY_URL": "http://127.0.0.1:7890",
  "LOG": true,
  "LOG_LEVEL": "warn",
  "HOST": "0.0.0.0",
  "API_TIMEOUT_MS": 600000,
  "NON_INTERACTIVE_MODE": false,
  "Providers": [
    {
      "name": "openrouter",
      "api_base_url": "https://openrouter.ai/api/v1/chat/completions",
      "api_key": "$OPENROUTER_API_KEY",
      "models": ["google/gemini-2.5-pro-preview", "anthropic/claude-sonnet-4"],
      "transformer": {"use": ["openrouter"]}
    },
    {
      "name": "DeepSeek",
      "api_base_url": "https://api.deepseek.com/chat/completions",
      "api_key": "sk-in-plain-text",
      "models": ["deepseek-chat", "deepseek-reasoner"],
      "transformer": {"use": ["deepseek"], "deepseek-chat": {"use": ["tooluse"]}}
    },
    {
      "name": "ollama",
      "api_base_url": "http://localhost:11434/v1/chat/completions",
      "api_key": "ollama",
      "models": ["qwen2.5-coder:latest"]
    },
    {
      "name": "gemini",
      "api_base_url": "https://generativelanguage.googleapis.com/v1beta/models/",
      "api_key": "${GEMINI_API_KEY}",
      "models": ["gemini-2.5-flash"],
      "transformer": {"use": ["gemini"]}
    },
    {
      "name": "modelscope",
      "api_base_url": "https://api-inference.modelscope.cn/v1/chat/completions",
      "api_key": "",
      "models": ["Qwen/Qwen3-Coder-480B-A35B-Instruct"],
      "transformer": {"use": [["maxtoken", {"max_tokens": 65536}], "enhancetool"]}
    },
    {
      "name": "mine",
      "api_base_url": "https://my.example.com/v1/messages",
      "api_key": "sk-",
      "models": ["m"],
      "transformer": {"use": ["Anthropic"]}
    }
  ],
  "Router": {
    "default": "DeepSeek,deepseek-chat",
    "background": "ollama,qwen2.5-coder:latest",
    "think": "deepseek,deepseek-reasoner",
    "longContext": "openrouter,google/gemini-2.5-pro-preview",
    "longContextThreshold": 60000,
    "webSearch": "gemini,gemini-2.5-flash"
  }
}
"""

OPENAI_COMPATIBLE = """
{
    "host": "0.0.0.0",
    "port": 8080,
    "proxy": "http://127.0.0.1:7890",
    "codegeex": [{"prefix": "codegeex", "token": "t-secret-1", "user_role": 1}],
    "qwen": [{"prefix": "qwen1", "token": "t-secret-2"},
             {"prefix": "qwen2", "token": "t-secret-3"}],
    "gemini_cli": [
        {"prefix": "gemini_cli", "project_id": "p",
         "token": {"access_token": "t-secret-4", "expires_in": 0}}
    ]
}
"""

CRS_MODELS = """
{
  "models": [
    {"name": "Qwen3-VL-235B", "endpoint": "http://192.168.1.100:8000",
     "deployment": "qwen3-vl-235b",
     "type": "vision", "mapping": "claude-3-opus-20240229"},
    {"name": "Qwen3-Coder-480B", "endpoint": "http://192.168.1.103:8000",
     "deployment": "qwen3-coder-480b", "type": "code", "mapping": "claude-3-opus-20240229"}
  ]
}
"""

CRS_ACCOUNT = """
{"success": true, "data": [
  {"name": "Kimi", "apiUrl": "https://api.moonshot.cn/anthropic", "apiKey": "sk-in-plain-text",
   "priority": "50",
   "supportedModels": "{\\"claude-sonnet-4-5\\": \\"kimi-k2\\"}", "isActive": "true",
   "userAgent": "claude-cli/1", "rateLimitDuration": "60", "dailyQuota": "0"},
  {"name": "Open", "apiUrl": "https://relay.example.com/v1/messages/", "apiKey": "x",
   "supportedModels": [], "isActive": false,
   "proxy": {"type": "socks5", "host": "h", "port": 1080, "username": "me@x",
             "password": "pa/ss-in-plain-text"}},
  {"name": "Local", "azureEndpoint": "http://192.168.1.100:8000", "deploymentName": "qwen3-32b",
   "apiKey": "sk-dummy", "supportedModels": ["claude-3-opus-20240229"], "priority": 10}
]}
"""

CRS_EXPORT = """
{"success": true, "data": {"exportedAt": "2026-07-23T08:00:00Z",
  "claudeAccounts": [{"kind": "claude-account", "name": "login", "platform": "claude",
    "authType": "oauth", "credentials": {"access_token": "sk-in-plain-text"}}],
  "claudeConsoleAccounts": [{"kind": "claude-console-account", "name": "GLM",
    "platform": "claude-console", "isActive": true, "schedulable": false, "priority": 10,
    "proxy": {"protocol": "http", "host": "10.0.0.1", "port": 3128, "username": "",
              "password": ""},
    "credentials": {"api_key": "sk-in-plain-text", "base_url": "https://claude.example.com/api",
                    "model_mapping": {"claude-opus-5-5": "glm-5.3"},
                    "user_agent": "claude-cli/1"}}],
  "openaiResponsesAccounts": [{"kind": "openai-responses-account", "name": "Codex",
    "platform": "openai-responses", "isActive": true, "schedulable": true, "priority": 60,
    "credentials": {"api_key": "sk-in-plain-text", "base_url": "https://codex.example.com/v1"}}]
}}
"""

CRS_TYPES = """
{"success": true, "data": [
  {"id": "1", "platform": "azure-openai", "name": "Low", "isActive": true, "schedulable": true,
   "azureEndpoint": "https://low.openai.azure.com", "apiVersion": "2024-10-21", "priority": 10,
   "deploymentName": "gpt-4o-eu", "supportedModels": ["gpt-4", "gpt-4o"]},
  {"id": "2", "platform": "azure-openai", "name": "High", "isActive": true, "schedulable": true,
   "azureEndpoint": "https://high.openai.azure.com/", "apiVersion": "2025-04-01-preview",
   "deploymentName": "gpt-5", "supportedModels": "[]", "priority": "90", "apiKey": "***"},
  {"id": "3", "platform": "openai", "name": "Chat", "baseUrl": "http://192.168.1.100:8000/v1",
   "apiKey": "sk-dummy", "supportedModels": {"gpt-4o": "qwen3-32b"}},
  {"id": "4", "platform": "openai-responses", "name": "R", "isActive": "true", "priority": "50",
   "baseApi": "https://codex.example.com", "providerEndpoint": "responses"},
  {"id": "5", "platform": "gemini-api", "name": "G", "apiKey": "sk-in-plain-text",
   "baseUrl": "https://generativelanguage.googleapis.com", "supportedModels": ["gemini-2.5-pro"]},
  {"id": "6", "platform": "ccr", "name": "C", "apiUrl": "https://api.moonshot.cn/anthropic"},
  {"id": "7", "platform": "bedrock", "type": "bedrock", "name": "B", "region": "eu-central-1",
   "defaultModel": "anthropic.claude-sonnet-5-5", "bearerToken": "sk-in-plain-text"}
]}
"""

VELOERA = """
{
  "providers": [
    {"name": "bigglm", "api_format": "openai",
     "endpoints": {"regular": "https://open.bigmodel.cn/api/paas/v4",
                   "coding": "https://open.bigmodel.cn/api/coding/paas/v4"},
     "billing_plans": ["coding", "regular"], "api_key": "sk-in-plain-text",
     "models": ["glm-4.6", "glm-4.5"], "priority": 10, "colour": "blue"},
    {"name": "My Own", "api_format": "openai", "endpoint": "http://192.168.1.100:8000/v1",
     "api_key": ["${ONE}", "sk-two-in-plain-text"], "models": {"claude-*": "qwen3-32b"},
     "headers": {"User-Agent": "x"}, "enabled": true}
  ],
  "routing_rules": {"glm-4.6": "bigglm", "gpt-*": ["bigglm/glm-4.6", "My-Own"]},
  "timeouts": {"idle": 60},
  "colour": "red"
}
"""

VELOERA_LISTS = """
{"providers": [{"name": "glm",
   "endpoints": {"coding": "https://open.bigmodel.cn/api/coding/paas/v4",
                 "regular": "https://open.bigmodel.cn/api/paas/v4"},
   "billing_plans": ["coding", "regular"], "apiKey": "$GLM_KEY", "models": {"big": "glm-4.6"}}],
 "routing_rules": [{"model": "claude-*", "provider": "glm", "provider_model": "glm-4.6"},
                   {"pattern": "glm-*", "targets": ["glm"], "colour": "blue"}]}
"""

VTE = {
    "vte": {
        "providers": [
            {
                "name": "Deep Seek",
                "base_url": "https://api.deepseek.com/v1",
                "model_prefix": "ds",
                "api_keys": ["sk-in-plain-text", "sk-two-in-plain-text"],
                "models": {"deepseek-chat": "ds/deepseek-chat", "deepseek-reasoner": "thinker"},
                "extra_headers": '{"X-Team": "a$b"}',
            },
            {
                "name": "Vertex",
                "base_url": "",
                "provider_type": "vertex_express",
                "vertex_project": "my-project",
                "api_keys": ["sk-in-plain-text"],
                "models": {"google/gemini-2.5-pro": "google/gemini-2.5-pro"},
                "extra_headers": '{"X-Api-Key": "sk-in-plain-text"}',
                "is_active": 0,
            },
        ],
        "users": {"admin": "sk-in-plain-text-of-admin"},
        "settings": {"stream_mode": "force_stream", "max_retries": "3", "secret_key": "hunter2"},
    }
}

FILES = {
    "crs_export": CRS_EXPORT,
    "crs_types": CRS_TYPES,
    "veloera": VELOERA,
    "veloera_lists": VELOERA_LISTS,
    "vte": json.dumps(VTE),
    "litellm": LITELLM,
    "ccr": CCR,
    "openai_compatible": OPENAI_COMPATIBLE,
    "crs_models": CRS_MODELS,
    "crs_account": CRS_ACCOUNT,
}
SECRETS = ("in-plain-text", "sk-1234", "pass@", "hunter2", "your-secret-key", "t-secret")


def made(text: str, with_secrets: bool = False) -> Any:
    """What the configuration says, once it has been found in order."""
    out = relay.imported(text, with_secrets)
    checked(out)
    return yaml.safe_load(out)


def checked(out: str) -> None:
    assert problems_of(out, variables(out)) == []


def variables(out: str) -> dict[str, str]:
    return dict.fromkeys(re.findall(r"(?<!\$)\$\{(\w+)\}", out), "a-value")


@pytest.mark.parametrize("name", FILES)
def test_the_result_passes_check(name: str) -> None:
    checked(relay.imported(FILES[name]))
    checked(relay.imported(FILES[name], with_secrets=True))


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_in_it_unless_asked_for(name: str) -> None:
    out = relay.imported(FILES[name])
    assert [secret for secret in SECRETS if secret in out] == []


def test_a_literal_key_becomes_a_variable_or_is_carried_when_asked_for() -> None:
    out = relay.imported(LITELLM)
    assert "# Set OPENAI_API_KEY to the value of model_list[1].litellm_params.api_key." in out
    assert made(LITELLM)["providers"]["openai"]["api_key"] == "${OPENAI_API_KEY}"
    assert made(LITELLM, True)["providers"]["openai"]["api_key"] == "sk-in-plain-text"


# ---- Each of them


GPT_4O = {"name": "gpt-4o", "context": 128000, "output": 16384}


def test_litellm() -> None:
    said = made(LITELLM)
    providers = said["providers"]
    assert providers["azure"] == {
        "preset": "azure",
        "endpoint": "https://my-endpoint-europe.openai.azure.com/",
        "api_key": "${AZURE_API_KEY_EU}",
        "models": {"gpt-4o": "gpt-4o-eu", "gpt-4": "gpt-4o-eu"},
    }
    assert providers["openai"] == {
        "preset": "openai",
        "api_key": "${OPENAI_API_KEY}",
        "timeouts": {"total": 300, "first_event": 60},
        "models": dict.fromkeys(("gpt-4o", "gpt-4"), GPT_4O),
        "prices": {"gpt-4o": {"input": 2.5, "output": 10}},
    }
    assert providers["openai-2"] == {
        "api_format": "openai",
        "endpoint": "http://0.0.0.0:4000/v1",
        "api_key": "${OPENAI_API_KEY_2}",
        "override": {"default": {"temperature": 0.2}},
        "models": {"vllm-models": "facebook/opt-125m"},
    }
    assert providers["deepseek"] == {
        "preset": "deepseek",
        "api_key": "${DEEPSEEK_API_KEY}",
        "weight": 2,
        "priority": -1,
        "models": {"deepseek": "deepseek-chat"},
    }
    assert "models" not in providers["openrouter"]
    assert said["keys"] == {"master": {"key": "${RELAY_KEY_MASTER}"}}
    assert said["timeouts"] == {"total": 600}
    assert "routing_rules" not in said
    out = relay.imported(LITELLM)
    for line in (
        "model_list[0].litellm_params.rpm = 6",
        'model_list[5].litellm_params.model = "bedrock/anthropic.claude-v2"',
        "litellm_settings.drop_params = true",
        "general_settings.database_url = ...",
        "environment_variables.REDIS_PASSWORD = ...",
    ):
        assert f"#   {line}\n" in out


def deployment(name: str, model: str, **params: Any) -> Any:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def ways(old: Any, name: str) -> list[dict[str, float]]:
    """Where the imported configuration leads a name: equals with their weights, step by step."""
    out = relay.imported(json.dumps(old))
    route = plan_of(out, variables(out)).route(name, relay.Facts())
    assert route
    return [{str(t): t.provider.config.weight for t in group} for group in route.groups]


@pytest.mark.parametrize("place", ["router_settings", "litellm_settings"])
def test_litellms_equals_stay_equals_before_their_fallbacks(place: str) -> None:
    equals = [
        deployment("m", "openai/big", weight=1),
        deployment("m", "anthropic/large", weight=9),
        deployment("m", "groq/late", order=2),
    ]
    spare = [deployment("fb", "openrouter/spare"), deployment("fb", "openai/small", weight=1)]
    routed = {"model_group_alias": {"al": "m"}}
    old: dict[str, Any] = {"model_list": [*equals, *spare], "router_settings": routed}
    steps = [{"openai/big": 1, "anthropic/large": 9}, {"groq/late": 1}]
    assert ways(old, "m") == ways(old, "al") == steps

    old |= {place: old.get(place, {}) | {"fallbacks": [{"m": ["fb", "last"]}]}}
    old["model_list"] += [deployment("last", "deepseek/end")]
    behind = [{"openrouter-fallback/spare": 1, "openai-fallback/small": 1}]
    assert ways(old, "m") == [*steps, *behind, {"deepseek-fallback/end": 1}]
    assert ways(old, "al") == steps
    assert ways(old, "fb") == [{"openrouter/spare": 1, "openai/small": 1}]
    assert "# openai-fallback is openai, where m falls back to fb." in relay.imported(
        json.dumps(old)
    )


def test_litellms_fallbacks_of_single_deployments_are_a_plain_rule() -> None:
    models = [deployment("a", "openai/x", order=2), deployment("a", "groq/y", order=1)]
    models += [deployment("b", "openrouter/z")]
    old = {"model_list": models, "router_settings": {"fallbacks": [{"a": ["b"]}]}}
    assert made(json.dumps(old))["routing_rules"] == {"a": ["groq/a", "openai/a", "openrouter/b"]}
    assert ways(old, "a") == [{"groq/y": 1}, {"openai/x": 1}, {"openrouter/z": 1}]


def test_litellms_address_may_be_a_variable() -> None:
    azure = deployment("m", "azure/d", api_base="os.environ/AZURE_API_BASE", api_key="os.environ/K")
    own = deployment("n", "openai/n", api_base="os.environ/OWN_BASE", api_key="os.environ/L")
    out = yaml.safe_load(relay.imported(json.dumps({"model_list": [azure, own]})))
    endpoints = {name: provider["endpoint"] for name, provider in out["providers"].items()}
    assert endpoints == {"azure": "${AZURE_API_BASE}", "openai": "${OWN_BASE}"}


def test_litellms_word_for_responses_is_no_part_of_the_model() -> None:
    old = {"model_list": [deployment("o3", "openai/responses/o3-pro", api_key="k")]}
    assert list(ways(old, "o3")[0]) == ["openai/o3-pro"]


def test_what_litellm_says_twice_or_of_nobody_is_named() -> None:
    routed = {"model_group_alias": {"a": "b", "c": "x"}, "fallbacks": [{"a": ["x"]}]}
    models = [deployment("a", "openai/x"), deployment("b", "openai/y")]
    out = relay.imported(json.dumps({"model_list": models, "router_settings": routed}))
    for line in (
        'model_group_alias.a = "b"',
        'model_group_alias.c = "x"',
        'fallbacks[0].a[0] = "x"',
    ):
        assert f"#   router_settings.{line}\n" in out


def test_claude_code_router() -> None:
    said = made(CCR)
    providers = said["providers"]
    assert providers["openrouter"]["preset"] == "openrouter"
    assert providers["openrouter"]["api_key"] == "${OPENROUTER_API_KEY}"
    assert providers["deepseek"]["preset"] == "deepseek"
    assert list(providers["deepseek"]["models"]) == ["deepseek-chat", "deepseek-reasoner"]
    assert providers["ollama"]["preset"] == "ollama"
    assert providers["gemini"]["preset"] == "gemini"
    (model,) = providers["modelscope"]["models"].values()
    assert model == {"output": 65536}
    assert providers["modelscope"]["api_key"] == "${MODELSCOPE_API_KEY}"
    assert providers["mine"]["api_format"] == "anthropic"
    assert said["default"] == "deepseek/deepseek-chat"
    assert said["routing_rules"]["claude-*haiku*"] == "ollama/qwen2.5-coder:latest"
    assert list(said["routing_rules"]) == ["claude-*haiku*", "claude-*"]
    assert said["routing_rules"]["claude-*"] == [
        {"when": {"tokens_over": 60000}, "to": "openrouter/google/gemini-2.5-pro-preview"},
        {"when": {"thinking": True}, "to": "deepseek/deepseek-reasoner"},
        {"to": "deepseek/deepseek-chat"},
    ]
    assert "proxy" not in providers["ollama"]
    assert providers["deepseek"]["proxy"] == "http://127.0.0.1:7890"
    assert said["keys"] == {"ccr": {"key": "${RELAY_KEY_CCR}"}}
    assert said["listen"] == "0.0.0.0:3456"
    assert said["timeouts"] == {"total": 600}
    assert said["log"] == {"level": "warning"}
    out = relay.imported(CCR)
    assert '#   Router.webSearch = "gemini,gemini-2.5-flash"\n' in out
    assert "#   LOG = true\n" in out


def test_without_keys_only_this_machine_is_served() -> None:
    said = made(OPENAI_COMPATIBLE)
    assert said["listen"] == "127.0.0.1:8080"
    assert 'host was "0.0.0.0"' in relay.imported(OPENAI_COMPATIBLE)


def test_openai_compatible() -> None:
    """Its prefixes are fixed, whatever the file says: codegeex/..., qwen/..., gemini_cli/..."""
    providers = made(OPENAI_COMPATIBLE)["providers"]
    assert {name: each["preset"] for name, each in providers.items()} == {
        "codegeex": "bigmodel",
        "qwen": "dashscope",
        "gemini_cli": "gemini",
    }
    out = relay.imported(OPENAI_COMPATIBLE)
    assert '#   qwen[0].prefix = "qwen1"\n' in out
    assert "# codegeex[0]: its token is of no use here" in out
    assert "# gemini_cli/gemini-pro is answered by gemini-pro-latest.\n" in out
    assert "#   gemini_cli[0].token.access_token = ...\n" in out


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("codegeex/codegeex4", "codegeex/glm-4.7"),
        ("codegeex/glm-5.3", "codegeex/glm-5.3"),
        ("qwen/qwen-turbo", "qwen/qwen-turbo"),
        ("gemini_cli/gemini-pro", "gemini_cli/gemini-pro-latest"),
        ("gemini_cli/gemini-2.5-pro", "gemini_cli/gemini-2.5-pro"),
        ("gemini-2.5-pro", "gemini_cli/gemini-2.5-pro"),
    ],
)
def test_names_of_openai_compatible_lead_where_they_did(name: str, target: str) -> None:
    assert ways(json.loads(OPENAI_COMPATIBLE), name) == [{target: 1}]


def test_each_kind_of_openai_compatible_keeps_its_own_prefix() -> None:
    """Also where two of them are answered by the same provider."""
    old = {"qwen": [{"token": "t-secret"}], "qwen_code": [{"path": "creds.json"}]}
    assert ways(old, "qwen_code/qwen3-coder-plus") == [{"qwen_code/qwen3-coder-plus": 1}]
    assert ways(old, "qwen/qwen-turbo") == [{"qwen/qwen-turbo": 1}]


def test_claude_relay_services_models() -> None:
    """Two models under one name are equals, as they were there."""
    providers = made(CRS_MODELS)["providers"]
    first, second = providers.values()
    assert first["endpoint"] == "http://192.168.1.100:8000"
    assert first["models"]["claude-3-opus-20240229"] == "qwen3-vl-235b"
    assert second["models"]["claude-3-opus-20240229"] == "qwen3-coder-480b"
    assert '#   models[0].type = "vision"\n' in relay.imported(CRS_MODELS)


def test_claude_relay_service_accounts() -> None:
    providers = made(CRS_ACCOUNT)["providers"]
    assert providers["kimi"]["preset"] == "moonshot"
    assert providers["kimi"]["models"] == {"claude-sonnet-4-5": "kimi-k2"}
    assert providers["kimi"]["headers"] == {"User-Agent": "claude-cli/1"}
    assert providers["open"]["endpoint"] == "https://relay.example.com/v1/messages/"
    assert providers["open"]["active"] is False
    assert "models" not in providers["open"]
    assert providers["local"]["models"] == dict.fromkeys(
        ("claude-3-opus-20240229", "qwen3-32b"), "qwen3-32b"
    )
    assert (providers["kimi"]["priority"], providers["local"]["priority"]) == (50, 10)
    assert "# priority: the lowest comes first there" in relay.imported(CRS_ACCOUNT)


def test_every_type_of_account_of_claude_relay_service() -> None:
    providers = made(CRS_TYPES)["providers"]
    azure = "/openai/deployments/{model}/chat/completions?api-version="
    assert providers["low"] == {
        "preset": "azure-deployments",
        "endpoint": "https://low.openai.azure.com",
        "paths": {"openai": f"{azure}2024-10-21"},
        "api_key": "${LOW_API_KEY}",
        "priority": 10,
        "models": dict.fromkeys(("gpt-4", "gpt-4o", "gpt-4o-eu"), "gpt-4o-eu"),
    }
    assert providers["high"]["models"] == {"gpt-5": "gpt-5"}
    assert providers["high"]["priority"] == 90  # of Azure accounts the highest is first
    assert providers["chat"] == {
        "api_format": "openai",
        "endpoint": "http://192.168.1.100:8000/v1",
        "api_key": "${CHAT_API_KEY}",
        "models": {"gpt-4o": "qwen3-32b"},
    }
    assert providers["r"] == {
        "api_format": "responses",
        "endpoint": "https://codex.example.com",
        "api_key": "${R_API_KEY}",
        "priority": 50,
    }
    assert providers["g"]["preset"] == "gemini"
    assert providers["c"] == {"preset": "moonshot", "api_key": "${C_API_KEY}"}
    assert providers["b"] == {
        "api_format": "anthropic",
        "endpoint": "https://bedrock-mantle.eu-central-1.api.aws/anthropic",
        "api_key": "${B_API_KEY}",
        "models": dict.fromkeys(("claude-*", "anthropic.claude-sonnet-5-5"), BEDROCK),
    }
    out = relay.imported(CRS_TYPES)
    assert "# Set R_API_KEY to the value of data[3].apiKey, which is not in the file.\n" in out
    assert "***" not in relay.imported(CRS_TYPES, with_secrets=True)


BEDROCK = "anthropic.claude-sonnet-5-5"


def test_claude_relay_services_export() -> None:
    providers = made(CRS_EXPORT)["providers"]
    assert list(providers) == ["glm", "codex"]
    assert providers["glm"] == {
        "api_format": "anthropic",
        "endpoint": "https://claude.example.com/api",
        "api_key": "${GLM_API_KEY}",
        "priority": 90,
        "active": False,
        "headers": {"User-Agent": "claude-cli/1"},
        "proxy": "http://10.0.0.1:3128",
        "models": {"claude-opus-5-5": "glm-5.3"},
    }
    assert providers["codex"]["api_format"] == "responses"
    out = relay.imported(CRS_EXPORT)
    assert "#   data.claudeAccounts[0].credentials.access_token = ...\n" in out


@pytest.mark.parametrize(
    "flags", [{"schedulable": False}, {"schedulable": "false"}, {"isActive": False}]
)
def test_an_account_that_was_not_used_is_inactive(flags: Any) -> None:
    usual = {"apiUrl": "https://a.example", "name": "a", "isActive": True, "schedulable": True}
    assert "active" not in made(json.dumps(usual))["providers"]["a"]
    assert made(json.dumps(usual | flags))["providers"]["a"]["active"] is False


# ---- Veloera and VTE


def test_veloera() -> None:
    said = made(VELOERA)
    assert said["providers"]["bigglm"] == {
        "preset": "bigmodel",  # for what its errors mean
        "api_format": "openai",
        "endpoints": {
            "regular": "https://open.bigmodel.cn/api/paas/v4",
            "coding": "https://open.bigmodel.cn/api/coding/paas/v4",
        },
        "billing_plans": ["coding", "regular"],
        "api_key": "${BIGGLM_API_KEY}",
        "models": ["glm-4.6", "glm-4.5"],
        "priority": 10,
    }
    own = said["providers"]["My-Own"]
    assert own["api_key"] == ["${ONE}", "${MY_OWN_API_KEY}"]
    assert own["active"] is True
    assert said["routing_rules"] == {"glm-4.6": "bigglm", "gpt-*": ["bigglm/glm-4.6", "My-Own"]}
    assert said["timeouts"] == {"idle": 60}
    out = relay.imported(VELOERA)
    assert '#   providers[0].colour = "blue"\n#   colour = "red"\n' in out


def test_veloera_with_a_list_of_rules() -> None:
    said = made(VELOERA_LISTS)
    assert said["providers"]["glm"] == {
        "preset": "bigmodel",
        "endpoints": {
            "coding": "https://open.bigmodel.cn/api/coding/paas/v4",
            "regular": "https://open.bigmodel.cn/api/paas/v4",
        },
        "billing_plans": ["coding", "regular"],
        "api_key": "${GLM_KEY}",
        "models": {"big": "glm-4.6"},
    }
    assert '#   routing_rules[1].colour = "blue"\n' in relay.imported(VELOERA_LISTS)
    assert said["routing_rules"] == {"claude-*": "glm/glm-4.6", "glm-*": ["glm"]}


def test_veloera_with_providers_by_name() -> None:
    provider = {"base_url": "http://127.0.0.1:8000/v1", "models": ["m"]}
    said = made(json.dumps({"providers": {"one": provider, "two": provider | {"enabled": False}}}))
    assert list(said["providers"]) == ["one", "two"]
    assert said["providers"]["two"]["active"] is False


@pytest.mark.parametrize("count", [1, 2])
def test_relays_own_configuration_is_said_to_be_one(count: int) -> None:
    own = {"providers": {f"p{i}": {"preset": "zai", "api_key": "sk"} for i in range(count)}}
    with pytest.raises(relay.ConfigError, match="relay's own configuration already"):
        relay.imported(json.dumps(own))


def test_vte() -> None:
    said = made(json.dumps(VTE))
    assert said["keys"] == {"admin": {"key": "${RELAY_KEY_ADMIN}"}}
    assert said["providers"]["deep-seek"] == {
        "preset": "deepseek",
        "api_key": ["${DEEP_SEEK_API_KEY}", "${DEEP_SEEK_API_KEY_2}"],
        "stream_mode": "always",
        "prefix": "ds",
        "headers": {"X-Team": "a$$b"},
        "models": {
            "deepseek-chat": "deepseek-chat",
            "deepseek-reasoner": "deepseek-reasoner",
            "thinker": "deepseek-reasoner",
        },
    }
    vertex = said["providers"]["vertex"]
    assert (vertex["preset"], vertex["active"]) == ("vertex-express", False)
    assert vertex["models"] == {"google/gemini-2.5-pro": "gemini-2.5-pro"}
    out = relay.imported(json.dumps(VTE))
    assert '#   vte.settings.max_retries = "3"\n' in out
    assert "#   vte.settings.secret_key = ...\n" in out


def test_claude_relay_service_proxies() -> None:
    out = relay.imported(CRS_ACCOUNT)
    assert yaml.safe_load(out)["providers"]["open"]["proxy"] == (
        "socks5://me%40x:${OPEN_PROXY_PASSWORD}@h:1080"
    )
    assert "# Set OPEN_PROXY_PASSWORD to the value of data[1].proxy.password.\n" in out
    assert "# ${OPEN_PROXY_PASSWORD} is part of a URL: percent-encode it.\n" in out
    proxy = made(CRS_ACCOUNT, True)["providers"]["open"]["proxy"]
    assert proxy == "socks5://me%40x:pa%2Fss-in-plain-text@h:1080"


@pytest.mark.parametrize(
    ("proxy", "url"),
    [
        ({"type": "http", "host": "10.0.0.1", "port": "3128"}, "http://10.0.0.1:3128"),
        (
            {"type": "https", "host": "p.example", "port": 1, "username": "u"},
            "https://u@p.example:1",
        ),
        ({"type": "socks5", "host": "h", "port": 1, "password": "$P"}, "socks5://:${P}@h:1"),
        ({"type": "socks4", "host": "h", "port": 1}, None),
        ({"type": "http", "host": "h", "port": 0}, None),
        ({"type": "http", "host": "h@x", "port": 1}, None),
        ({"type": "http", "host": "h"}, None),
        ('{"type": "http", "password": "in-plain-text"}', None),
        (None, None),
    ],
)
def test_a_claude_relay_service_proxy_is_carried_or_named(proxy: Any, url: str | None) -> None:
    account = {"name": "a", "apiUrl": "https://api.example.com", "proxy": proxy}
    out = relay.imported(json.dumps(account))
    checked(out)
    assert yaml.safe_load(out)["providers"]["a"].get("proxy") == url
    assert ("#   proxy" in out) == (url is None)
    assert "in-plain-text" not in out


def test_where_nothing_can_be_carried_over_that_is_said() -> None:
    models = {"models": [{"name": "a", "endpoint": "ftp://x", "apiKey": "sk-in-plain-text"}]}
    with pytest.raises(relay.RelayError) as caught:
        relay.imported(json.dumps(models))
    assert not isinstance(caught.value, relay.ConfigError)
    assert caught.value.message == (
        "nothing of claude-relay-service's models could be carried over:\n"
        '  models[0].name = "a"\n'
        '  models[0].endpoint = "ftp://x"\n'
        "  models[0].apiKey = ..."
    )


RECURSIVE = (
    "model_list: &x [*x]",
    "model_list: &x {a: *x}",
    "\n".join(
        ["model_list:", "  - &a0 [x]", *(f"  - &a{n} [{f'*a{n - 1},' * 9}]" for n in range(1, 9))]
    ),
)


@pytest.mark.parametrize("text", RECURSIVE)
def test_a_file_that_refers_to_itself_is_said_to(text: str) -> None:
    with pytest.raises(relay.ConfigError) as caught:
        relay.imported(text)
    assert "refers to itself" in str(caught.value.problems) or "values" in str(
        caught.value.problems
    )


@pytest.mark.parametrize("text", ["{", "[]", "", "a: b", "- 1", '{"x": 1}', "\0"])
def test_what_is_none_of_them_is_said_to_be_none(text: str) -> None:
    with pytest.raises(relay.ConfigError):
        relay.imported(text)


# ---- Nothing is lost

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["https://a.example/v1", "openai/m", "p,m", "os.environ/KEY", "*", "a/*"]),
)
NAMES = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def known_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {*map(str, value)}.union(*map(known_keys, value.values()))
    return set().union(*map(known_keys, value)) if isinstance(value, list) else set()


def mutated(value: Any, draw: Any) -> Any:
    """A file of the documented shape with values of any kind in it, and keys nobody knows."""
    if draw(st.integers(0, 19)) == 0:
        return draw(VALUES)
    if isinstance(value, dict):
        changed = {name: mutated(inner, draw) for name, inner in value.items()}
        return changed | draw(st.dictionaries(NAMES, VALUES, max_size=1))
    if isinstance(value, list):
        return [mutated(inner, draw) for inner in value]
    return value


def without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*//.*$", "", text)


@st.composite
def files(draw: Any) -> Any:
    # Veloera's words are relay's: what is wrong there is carried over, and `check` says so.  VTE's
    # are relay's own query.
    written = sorted(FILES.keys() - {"veloera", "veloera_lists", "vte"})
    text = draw(st.sampled_from(written))
    root = yaml.safe_load(without_comments(FILES[text]))
    return {name: mutated(inner, draw) for name, inner in root.items()} | draw(
        st.dictionaries(NAMES, VALUES, max_size=2)
    )


@settings(deadline=None, max_examples=60)
@given(files())
def test_every_value_is_carried_or_named(root: Any) -> None:
    """Taken by its reader, or in a comment with the path to it; and what comes of it loads.
    Where nothing in the file is a provider, there is no configuration to lose it in."""
    text = json.dumps(root)
    read = json.loads(text)
    try:
        out = relay.imported(text)
    except relay.ConfigError:
        raise
    except relay.RelayError:
        return
    comments = [line for line in out.splitlines() if line.startswith("#   ")]
    config = yaml.safe_load(out)
    carried = json.dumps(config)
    for path, value in relay.leaves(read):
        said = f"#   {relay.path_text(path) or 'the file'} = "
        named = any(line.startswith(said) for line in comments)
        named |= f" to the value of {relay.path_text(path)}." in out
        named |= path in (("host",), ("HOST",)) and "# host was " in out
        named |= f"# {relay.path_text(path[:-1])}: {json.dumps(value)} is called " in out
        assert named or stands(value, carried), (path, value)
    checked(out)


def stands(value: Any, carried: str) -> bool:
    """A value that was taken is in the configuration, as it was or as its unit became."""
    if isinstance(value, bool | None | dict | list) or value == "":
        return True
    if isinstance(value, int | float):
        forms = {value, value / 1000, -value, 100 - value, round(value * 1e6, 6)}
        return any(f"{form:g}" in carried or str(form) in carried for form in forms)
    value = {"maxtoken": "output", "fatal": "error", "trace": "debug"}.get(value, value)
    value = value.replace("os.environ/", "").strip()
    if value in ("true", "false") or re.fullmatch(r"[0-9]+", value):  # as a store keeps them
        return stands(json.loads(value.lstrip("0") or "0"), carried)
    if (preset := relay._endpoint_settings(value, "").get("preset")) and preset in carried:
        return True
    if urllib.parse.quote(value, safe="") in carried:  # in a proxy's URL
        return True
    slug = re.sub(r"[^\w.-]+", "-", value.lower(), flags=re.ASCII).strip("-.")
    words = [json.dumps(word)[1:-1].lower() for word in re.split(r"[/,:${}\"\s]", value) if word]
    return slug in carried or all(word in carried.lower() for word in words)
