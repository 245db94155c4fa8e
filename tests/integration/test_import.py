"""`relay import`, as a person in a shell has it."""

import os
from pathlib import Path

import pytest
from relay_process import run

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
    assert ran.stderr.startswith("other: ")
    assert "Traceback" not in ran.stderr
