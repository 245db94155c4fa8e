"""By way of what a provider is reached."""

from __future__ import annotations

import pytest
from unit.configs import plan_of, problems_of, reading

import relay

HTTPS, HTTP = "https://api.example.com/v1", "http://api.example.com/v1"
BOTH = {"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://q:2"}


def provider(fields: str, url: str = HTTPS) -> str:
    return f'providers: {{a: {{api_format: openai, endpoint: "{url}", {fields}}}}}\n'


def proxy_of(fields: str, url: str = HTTPS, env: dict[str, str] | None = None) -> str:
    plan = plan_of(provider(fields, url), env)
    return plan.providers["a"].plans[0].endpoints["openai"].proxy


@pytest.mark.parametrize(
    ("fields", "proxy"),
    [
        ("", "http://p:1"),
        ("proxy: direct", ""),
        ("proxy: null", ""),
        ("proxy: ", ""),
        ('proxy: "socks5://127.0.0.1:1080"', "socks5://127.0.0.1:1080"),
        ('proxy: "https://u:p@proxy"', "https://u:p@proxy"),
    ],
)
def test_a_providers_own_proxy_outranks_the_environments(fields: str, proxy: str) -> None:
    assert proxy_of(fields, env=BOTH) == proxy


CASES: list[tuple[str, dict[str, str], str]] = [
    (HTTPS, {}, ""),
    (HTTPS, BOTH, "http://p:1"),
    (HTTP, BOTH, "http://q:2"),
    (HTTPS, {"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}, "http://lower:1"),
    (HTTPS, {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
    (HTTPS, {"HTTPS_PROXY": ""}, ""),
    (HTTPS, {"HTTP_PROXY": "http://q:2"}, ""),
    # Never for this machine
    ("http://127.0.0.1:8000/v1", BOTH, ""),
    ("http://localhost:8000/v1", BOTH, ""),
    ("http://[::1]:8000/v1", BOTH, ""),
    ("http://192.168.1.5:8000/v1", BOTH, "http://q:2"),
    # Nor for those excepted
    (HTTPS, BOTH | {"NO_PROXY": "*"}, ""),
    (HTTPS, BOTH | {"NO_PROXY": "other.com, api.example.com"}, ""),
    (HTTPS, BOTH | {"no_proxy": "example.com"}, ""),
    (HTTPS, BOTH | {"NO_PROXY": ".example.com"}, ""),
    (HTTPS, BOTH | {"NO_PROXY": "*.example.com"}, ""),
    (HTTPS, BOTH | {"NO_PROXY": "ample.com,"}, "http://p:1"),
    (HTTPS, BOTH | {"NO_PROXY": "api.example.com:443"}, ""),
    (HTTPS, BOTH | {"NO_PROXY": "api.example.com:8443"}, "http://p:1"),
    ("http://192.168.1.5:8000/v1", BOTH | {"NO_PROXY": "192.168.0.0/16"}, ""),
    ("http://192.168.1.5:8000/v1", BOTH | {"NO_PROXY": "192.168.1.5"}, ""),
    ("http://192.168.1.5:8000/v1", BOTH | {"NO_PROXY": "192.168.1.5:8000"}, ""),
    ("http://192.168.1.5:8000/v1", BOTH | {"NO_PROXY": "10.0.0.0/8"}, "http://q:2"),
]


@pytest.mark.parametrize(("url", "env", "proxy"), CASES)
def test_what_the_environment_says(url: str, env: dict[str, str], proxy: str) -> None:
    assert relay.proxy_of(url, env) == proxy


@pytest.mark.parametrize("url", ["ftp://p:1", "socks5://", "http://p:0", "http://p:99999", "p:1"])
def test_what_is_no_proxy_is_refused_and_not_quoted(url: str) -> None:
    problems = problems_of(provider(f'proxy: "{url}"'))
    assert len(problems) == 1
    assert "providers.a.proxy: expected direct, or a URL" in problems[0]
    assert url not in problems[0]


def test_a_proxy_of_the_environment_that_is_none_is_told() -> None:
    problems = problems_of(provider("weight: 1"), {"HTTPS_PROXY": "gopher://p:1"})
    assert [p.partition(" ")[2] for p in problems] == [
        "providers.a.proxy: the proxy in the environment is of no kind that relay knows"
    ]


def test_socks_without_its_package_is_an_error_that_says_what_to_do() -> None:
    notes = reading(installed=lambda module: module != "aiohttp_socks")
    text = provider('proxy: "socks5://p:1"')
    relay.compile_plan(relay.read_config(text, notes), notes)
    (problem,) = notes.problems()
    assert "providers.a.proxy: " in problem
    assert "pip install 'aiohttp-socks>=0.11'" in problem
    notes = reading(installed=lambda module: False)
    relay.compile_plan(relay.read_config(provider('proxy: "http://p:1"'), notes), notes)
    assert notes.problems() == []


def test_credentials_of_a_proxy_are_secrets() -> None:
    plan = plan_of(provider('proxy: "http://me:pa%24sword@proxy:3128"'))
    basic = relay.base64.b64encode(b"me:pa$sword").decode()
    for said in ("pa$sword", "pa%24sword", basic):
        assert said not in plan.redacted(f"no good: {said}")
    assert "sword" not in repr(plan)
    assert relay.shown_proxy("http://me:pa%24sword@proxy:3128") == "http://proxy:3128"
