"""What coding tools are told: which model, which limits, which key, and how a shell reads it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tomllib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.configs import plan_of

import relay

BASE = "http://127.0.0.1:8484"
CLIENTS = [*relay.CLIENTS, "anything"]

LOCAL = "{api_format: openai, endpoint: http://local/v1, models: %s}"
MODELS = "{big: {name: Org/Big, context: 200000, output: 16000}, small: {context: 40000}}"
LISTED = plan_of(f"providers: {{local: {LOCAL % MODELS}}}")
CLAUDE = plan_of(
    f"providers: {{local: {LOCAL % MODELS}}}\nrouting_rules: {{'claude-*': local/big}}\n"
)
GLOBS = plan_of("providers: {deepseek: {preset: deepseek, api_key: k}}")
DEMO = plan_of("providers: {demo: {api_format: demo}}")


def offer(plan: relay.Plan, client: str, said: str = "") -> relay.Offer:
    return relay.offer(plan, relay.recipe_of(client), BASE, "the-key", said)


def setup(plan: relay.Plan, client: str, said: str = "") -> relay.Setup:
    return relay.recipe_of(client).setup(offer(plan, client, said))


def overrides(made: relay.Setup) -> dict[str, object]:
    """Codex's `-c` arguments, read as it reads them: TOML."""
    flags, pairs = made.args[::2], made.args[1::2]
    assert set(flags) == {"-c"}
    return tomllib.loads("\n".join(pairs))


# ---- Which model


def test_a_tool_whose_own_names_are_served_is_left_alone() -> None:
    made = offer(CLAUDE, "claude")
    assert (made.model, made.tiers) == ("", {})
    assert "ANTHROPIC_MODEL" not in setup(CLAUDE, "claude").env


def test_the_users_model_comes_first() -> None:
    made = offer(CLAUDE, "claude", "small")
    assert (made.model, made.tiers) == ("small", {})
    assert setup(CLAUDE, "claude", "small").env["ANTHROPIC_MODEL"] == "small"


def test_names_that_nobody_serves_become_one_that_is() -> None:
    env = setup(LISTED, "claude").env
    tiers = {f"ANTHROPIC_DEFAULT_{tier}_MODEL" for tier in ("OPUS", "SONNET", "HAIKU", "FABLE")}
    assert {env[name] for name in tiers} == {"big"}
    assert env["ANTHROPIC_MODEL"] == "big"


def test_a_provider_of_every_name_does_not_know_a_tools_own() -> None:
    """With a model said, the small calls go to it too; without one, nobody can know better."""
    every = plan_of("providers: {local: {api_format: openai, endpoint: http://local/v1}}")
    assert offer(every, "claude").tiers == {}
    assert set(offer(every, "claude", "mine").tiers.values()) == {"mine"}


@pytest.mark.parametrize("client", ["codex", "qwen", "opencode"])
def test_a_tool_without_names_gets_the_default(client: str) -> None:
    default = plan_of(f"providers: {{local: {LOCAL % MODELS}}}\ndefault: local/small\n")
    assert offer(default, client).model == "local/small"
    assert offer(LISTED, client).model == "big"
    assert offer(DEMO, client).model == "demo/demo"


@pytest.mark.parametrize("client", ["codex", "qwen", "opencode", "claude", "gemini"])
def test_where_no_name_is_known_one_is_asked_for(client: str) -> None:
    with pytest.raises(relay.ConfigError, match=r"--model NAME.*deepseek-\*"):
        offer(GLOBS, client)
    assert offer(GLOBS, client, "deepseek-chat").model == "deepseek-chat"


def test_a_model_that_nobody_serves_is_refused_with_a_suggestion() -> None:
    with pytest.raises(relay.ConfigError, match=r"--model bigg: .*near: big"):
        offer(LISTED, "codex", "bigg")


# ---- Limits


def test_limits_are_those_of_the_model_behind_the_name() -> None:
    made = offer(CLAUDE, "claude")
    assert (made.context, made.output) == (200_000, 16_000)
    env = setup(CLAUDE, "claude").env
    assert env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "200000"
    assert env["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] == "200000"
    assert env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "16000"
    assert env["API_TIMEOUT_MS"] == "3600000"


def test_a_window_that_claude_code_would_refuse_is_not_said() -> None:
    env = setup(CLAUDE, "claude", "small").env
    assert env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "40000"
    assert "CLAUDE_CODE_AUTO_COMPACT_WINDOW" not in env


def test_of_equals_the_least_counts() -> None:
    first, second = (LOCAL % f"{{m: {{context: {tokens}}}}}" for tokens in (9000, 8000))
    both = plan_of(f"providers: {{a: {first}, b: {second}}}")
    assert offer(both, "codex").context == 8000


def test_unknown_limits_are_not_said() -> None:
    plan = plan_of(f"providers: {{local: {LOCAL % '[m]'}}}")
    assert not [name for name in setup(plan, "claude").env if "TOKENS" in name]
    assert "model_context_window" not in overrides(setup(plan, "codex"))
    assert "limit" not in setup(plan, "opencode").env["OPENCODE_CONFIG_CONTENT"]


# ---- Each tool


def test_claude_gets_a_token_and_never_a_key_beside_it() -> None:
    env = setup(CLAUDE, "claude").env
    assert env["ANTHROPIC_BASE_URL"] == BASE
    assert env["ANTHROPIC_AUTH_TOKEN"] == "the-key"
    assert "ANTHROPIC_API_KEY" in relay.CLIENTS["claude"].clears


def test_codex_gets_a_provider_of_its_own_by_arguments() -> None:
    made = setup(LISTED, "codex", "big")
    said = overrides(made)
    assert said["model_provider"] == "relay"
    assert said["model"] == "big"
    assert said["model_context_window"] == 200_000
    assert said["model_providers"] == {
        "relay": {"name": "relay", "base_url": f"{BASE}/v1", "env_key": "RELAY_KEY"}
    }
    assert made.env == {"RELAY_KEY": "the-key"}


def test_gemini_gets_its_choice_of_authentication_by_a_file() -> None:
    made = setup(LISTED, "gemini")
    assert made.env["GOOGLE_GEMINI_BASE_URL"] == BASE
    assert made.env["GEMINI_MODEL"] == "big"
    assert made.file is not None
    assert made.file.content == {"security": {"auth": {"selectedType": "gemini-api-key"}}}


def test_qwen_gets_the_version_in_its_base() -> None:
    made = setup(LISTED, "qwen")
    assert made.env["OPENAI_BASE_URL"] == f"{BASE}/v1"
    assert made.env["OPENAI_MODEL"] == "big"
    assert made.args == ("--auth-type", "openai")


def test_opencode_gets_a_configuration_in_a_variable() -> None:
    said = json.loads(setup(LISTED, "opencode").env["OPENCODE_CONFIG_CONTENT"])
    assert said["model"] == said["small_model"] == "relay/big"
    provider = said["provider"]["relay"]
    assert provider["options"] == {"baseURL": f"{BASE}/v1", "apiKey": "the-key"}
    assert provider["models"] == {"big": {"limit": {"context": 200_000, "output": 16_000}}}


def test_anything_else_gets_what_sdks_look_at() -> None:
    env = setup(LISTED, "/usr/bin/python").env
    assert env["ANTHROPIC_BASE_URL"] == env["GOOGLE_GEMINI_BASE_URL"] == env["RELAY_URL"] == BASE
    assert env["OPENAI_BASE_URL"] == env["OPENAI_API_BASE"] == f"{BASE}/v1"
    keys = {value for name, value in env.items() if name.endswith("_KEY")}
    assert keys == {"the-key"}


def test_a_tool_is_known_wherever_it_is_installed() -> None:
    assert relay.recipe_of("/opt/bin/claude") is relay.CLIENTS["claude"]


# ---- The key


def keyed(**keys: str) -> relay.Plan:
    rows = "".join(f"  {name}: {{key: {key!r}}}\n" for name, key in keys.items())
    return plan_of(f"providers: {{local: {LOCAL % '[m]'}}}\nkeys:\n{rows}")


HASH = f"sha256:{hashlib.sha256(b'of-bob').hexdigest()}"
BOTH = keyed(alice="of-alice", bob=HASH)


@pytest.mark.parametrize(
    ("plan", "name", "held", "key"),
    [
        (LISTED, None, "", "relay"),
        (LISTED, None, "mine", "mine"),
        (keyed(alice="of-alice"), None, "", "of-alice"),
        (BOTH, "alice", "", "of-alice"),
        (BOTH, "alice", "of-bob", "of-alice"),
        (BOTH, None, "of-bob", "of-bob"),
        (BOTH, "bob", "of-bob", "of-bob"),
    ],
)
def test_the_key_is_one_that_opens(plan: relay.Plan, name: str | None, held: str, key: str) -> None:
    assert relay.client_key(plan, name, held, now=0) == key


@pytest.mark.parametrize(
    ("plan", "name", "held", "complaint"),
    [
        (BOTH, None, "", "--key NAME (alice, bob)"),
        (BOTH, "bob", "", "kept as a hash"),
        (BOTH, "carol", "", "there is no such key"),
        (LISTED, "alice", "", "there is no such key"),
        (BOTH, None, "of-nobody", "RELAY_KEY does not hold a key"),
        (BOTH, "bob", "of-alice", "RELAY_KEY does not hold the key of bob"),
    ],
)
def test_a_key_that_cannot_be_told_is_explained(
    plan: relay.Plan, name: str | None, held: str, complaint: str
) -> None:
    with pytest.raises(relay.ConfigError) as raised:
        relay.client_key(plan, name, held, now=0)
    assert complaint in str(raised.value.problems)


# ---- Where relay is


@pytest.mark.parametrize(
    ("listen", "base"),
    [
        (("127.0.0.1:8484",), "http://127.0.0.1:8484"),
        (("0.0.0.0:80",), "http://127.0.0.1:80"),  # what is read, not bound
        (("[::]:80",), "http://[::1]:80"),
        (("[::1]:80",), "http://[::1]:80"),
        ((":80",), "http://127.0.0.1:80"),
        (("relay.lan:80",), "http://relay.lan:80"),
        (("unix:/run/relay.sock", "127.0.0.1:1"), "http://127.0.0.1:1"),
        (("unix:/run/relay.sock",), ""),
    ],
)
def test_the_base_is_where_a_tool_finds_it(listen: tuple[str, ...], base: str) -> None:
    assert relay.base_of(listen) == base


# ---- The child's environment


def test_a_child_inherits_no_key_of_a_provider() -> None:
    plan = plan_of("providers: {local: {preset: deepseek, api_key: 'k-1234'}}")
    env = {
        "HOME": "/somewhere",
        "EMPTY": "",
        "DEEPSEEK_API_KEY": "another",
        "MY_OWN_NAME": "k-1234",
        "ANTHROPIC_API_KEY": "x",
        "CLAUDE_CODE_USE_BEDROCK": "1",
    }
    assert relay.cleaned_environment(env, plan) == {"HOME": "/somewhere", "EMPTY": ""}


def test_a_relay_next_door_is_not_asked_for_by_way_of_a_proxy() -> None:
    assert relay.no_proxy({}, BASE) == {}
    said = relay.no_proxy({"HTTPS_PROXY": "http://p", "no_proxy": "a.b"}, BASE)
    assert said == {"NO_PROXY": "a.b,127.0.0.1", "no_proxy": "a.b,127.0.0.1"}


# ---- On paper


def printed(form: str, made: relay.Setup, client: str = "codex") -> str:
    return "\n".join(relay.FORMATS[form](made, client)) + "\n"


def read_by_sh(text: str, program: str = "sh") -> Mapping[str, str]:
    """The environment after a shell has read a text."""
    ran = subprocess.run(
        [program, "-c", f"{text}\nexec env -0"],
        env={"ANTHROPIC_API_KEY": "old", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in ran.stdout.decode().split("\0") if line)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_shell_reads_what_is_meant(client: str) -> None:
    made = setup(LISTED, client, "big")
    env = read_by_sh(printed("sh", made, client))
    assert {name: env[name] for name in made.env} == made.env
    if client == "claude":
        assert "ANTHROPIC_API_KEY" not in env


ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=25)
@given(ANY_TEXT)
@pytest.mark.parametrize("program", ["sh", "fish"])
def test_a_shell_reads_any_value(program: str, value: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"no {program}")
    assert read_by_sh(printed(program, relay.Setup({"SAID": value})), program)["SAID"] == value


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
@pytest.mark.parametrize("client", CLIENTS)
def test_fish_reads_what_is_meant(client: str) -> None:
    made = setup(LISTED, client, "big")
    env = read_by_sh(printed("fish", made, client), "fish")
    assert {name: env[name] for name in made.env} == made.env


def test_a_shells_function_passes_the_arguments_on() -> None:
    made = setup(LISTED, "codex", "big")
    text = f'command() {{ printf "%s\\n" "$@"; }}\n{printed("sh", made)}\ncodex exec "a b"\n'
    ran = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["codex", *made.args, "exec", "a b"]


@pytest.mark.parametrize("form", ["sh", "fish", "powershell", "mise"])
def test_the_file_that_gemini_needs_is_a_comment(form: str) -> None:
    """Nothing of the user's is written, not even by a shell that reads this."""
    made = setup(LISTED, "gemini")
    assert made.file is not None
    (comment,) = (line for line in printed(form, made, "gemini").splitlines() if line[0] == "#")
    assert comment.endswith(f".gemini/settings.json: {json.dumps(made.file.content)}")


@pytest.mark.parametrize("client", CLIENTS)
def test_json_says_all_of_it(client: str) -> None:
    made = setup(LISTED, client, "big")
    said = json.loads(printed("json", made, client))
    assert (said["env"], tuple(said["args"])) == (made.env, made.args)
    assert (said["file"] is None) == (made.file is None)


@pytest.mark.parametrize("client", CLIENTS)
def test_mise_gets_toml(client: str) -> None:
    made = setup(LISTED, client, "big")
    said = tomllib.loads(printed("mise", made, client))["env"]
    assert {name: value for name, value in said.items() if value is not False} == made.env


def test_mise_asks_the_environment_for_the_key() -> None:
    """A project's file is for everybody; what is there already is not set to itself."""
    made = relay.recipe_of("codex").setup(
        relay.offer(LISTED, relay.recipe_of("codex"), BASE, "{{ env.RELAY_KEY }}")
    )
    assert tomllib.loads(printed("mise", made))["env"] == {}


def test_powershell_doubles_a_quote() -> None:
    assert "$env:A = 'it''s'" in printed("powershell", relay.Setup({"A": "it's"}))
