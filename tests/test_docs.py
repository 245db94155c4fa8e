"""README.md and config.example.yaml keep up with relay.py.

What README says by rote is made from the code, between markers and below `$ relay` commands:

    python tests/test_docs.py --write
"""

import ast
import asyncio
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # for --write; pytest has them already

from relay_process import STARTED, RelayProcess, environment, free_port, served, spawn  # noqa: E402
from simulation import failover  # noqa: E402

import relay  # noqa: E402

README = ROOT / "README.md"
EXAMPLE = ROOT / "config.example.yaml"
DOCS = README.read_text()
SOURCE = (ROOT / "relay.py").read_text()
WRITE = ".venv/bin/python tests/test_docs.py --write"


# ---- The parts that are made


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def lines(items: Iterable[str], head: str = "") -> str:
    """A list as prose; no item that fits a line is broken."""
    joined = head + ", ".join(item.replace(" ", "\0") for item in items) + "."
    indent = "  " if head else ""
    filled = textwrap.fill(
        *(joined, 120), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return filled.replace("\0", " ")


def presets() -> str:
    """The names to write; what each speaks and claims is in `relay help presets`."""
    local = [code(name) for name, preset in relay.PRESETS.items() if not preset.key]
    known = {name: preset for name, preset in relay.PRESETS.items() if preset.key}
    bare = [name for name, preset in known.items() if not any(preset.plans.values())]
    with_plans = [n for n, preset in known.items() if preset.subscription or len(preset.plans) > 1]
    rest = [name for name in known if name not in (*bare, *with_plans)]
    rows = [
        (code(name), code(known[name].key), ", ".join(_plans(known[name])), ", ".join(_more(name)))
        for name in with_plans
    ]
    longer = [item for name in relay.PRESETS if name not in known for item in _more(name)]
    named = [
        ("Pay as you go only", [f"`{name}` (`{known[name].key}`)" for name in rest]),
        (
            "Your own resources in a cloud, with an `endpoint`",
            [f"`{n}` (`{known[n].key}`)" for n in bare],
        ),
        ("On your own machines, without a key", [*local, *longer]),
    ]
    lists = (lines(items, f"- **{head}**: ") for head, items in named)
    head = ("preset", "key", "plans, the first by default", "longer names")
    return "\n".join([table(head, rows), "", *lists])


def _plans(preset: relay.Preset) -> list[str]:
    first = next((plan for plan in preset.subscription), next(iter(preset.plans)))
    return sorted(preset.plans, key=lambda plan: plan != first)  # a stable sort


def _more(preset: str) -> list[str]:
    aliases = relay.PRESET_ALIASES.items()
    return [f"`{name}` ({plan})" for name, (host, plan) in aliases if host == preset]


FAILED_BECAUSE = {
    "plan_exhausted": "a plan's quota is used up",
    "plan_expired": "the plan is over",
    "balance_empty": "no money is left",
    "rate_limited": "too many requests or tokens at once",
    "overloaded": "the provider is busy",
    "auth": "the key was refused",
    "client_rejected": "the plan does not admit this client",
    "model_missing": "the provider does not know the model",
    "transient": "it failed, broke off or cannot be reached",
    "timeout": "it did not answer in time",
    "moderation": "it refuses the content",
    "too_long": "the model cannot read that much",
    "reasoning_refused": "it does not take reasoning of earlier turns; asked once more without it",
    "bad_request": "it does not accept the request",
    "disabled": "the admin left it out, until the next reload",
}


def failures() -> str:
    marked = {
        "credential": "the credential",
        "credential+model": "this model with this credential",
        "provider+model": "this model",
        "endpoint": "the address",
        "request": "nothing",
    }
    rows = [
        (
            code(row.name),
            FAILED_BECAUSE[row.name],
            marked[row.scope],
            _duration(row.cool) + _growing(row),
            "yes" if row.failover else "no",
            "yes" if row.opens_next_plan else "no",
            str(row.status),
        )
        for row in relay.FAILURES.values()
    ]
    head = (
        "failure",
        "because",
        "what cools down",
        "for",
        "next target",
        "next plan",
        "status for the client",
    )
    return table(head, rows)


def _growing(row: relay.FailureClass) -> str:
    return f", up to {_duration(row.grows_to)}" if row.cool and row.grows_to > row.cool else ""


def _duration(seconds: float) -> str:
    if seconds == 0:
        return ""
    size, unit = next((s, u) for s, u in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= s)
    return f"{seconds / size:g} {unit}"


def reference() -> str:
    """The keys by the mapping they are in; `relay help keys` has what each means."""
    inner: dict[str, list[str]] = {}
    meaning = {"": ""}
    for key, _, default, sentence in relay.reference():
        outer, _, name = key.rpartition(".")
        shown = default.removesuffix(".0")
        inner.setdefault(outer, []).append(code(name) + (f" ({shown})" if shown else ""))
        meaning[key] = sentence
    rows = [
        (code(outer) or "the file", ", ".join(names), meaning[outer.removesuffix(".*")])
        for outer, names in inner.items()
    ]
    return table(("in", "keys, with their defaults", "what for"), rows)


def commands() -> str:
    """Two commands to a row."""
    cells = [
        (code(" ".join(("relay", name, *_needed(command)))), _sentence(command.doc))
        for name, command in relay.COMMANDS.items()
    ]
    half = -(-len(cells) // 2)
    rows = [a + b for a, b in itertools.zip_longest(cells[:half], cells[half:], fillvalue=("", ""))]
    return table(("command", "what it does") * 2, rows)


def _needed(command: relay.Command) -> list[str]:
    """What must be given."""
    return [n.upper() for n, how in command.options.items() if n[0] != "-" and "nargs" not in how]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def metrics() -> str:
    """The names; `relay help metrics` has labels and meanings."""
    return lines(
        code(family.base + ("_total" if family.kind == "counter" else ""))
        for family in relay.Metrics().families()
    )


def simulation() -> str:
    return table(failover.HEAD, failover.rows())


PARTS: dict[str, Callable[[], str]] = {
    "simulation": simulation,
    "presets": presets,
    "failures": failures,
    "reference": reference,
    "commands": commands,
    "metrics": metrics,
}


def part(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name} -->\n)(.*?)(?=<!-- /{name} -->)", re.S)


# ---- Blocks


def blocks(language: str, text: str = DOCS) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def variables(text: str) -> dict[str, str]:
    """A value for each variable a configuration names."""
    names = re.findall(r"\$\{(\w+)\}|os\.environ/(\w+)", text)
    return {name: f"key-of-{name.lower()}" for pair in names for name in pair if name}


def checked(text: str) -> str:
    """What `relay check` says of a configuration; it must find nothing wrong."""
    said = printed("relay check", text)
    assert said.startswith("config.yaml: ok\n"), said
    return said


def configuration(block: str, text: str) -> str:
    """What `./config.yaml` holds for a console block: the YAML in front of it."""
    return blocks("yaml", text.partition(block)[0])[-1]


# ---- Commands and their output: a ```console block is run and read


def with_output(block: str, text: str = DOCS) -> str:
    """The block's commands, each followed by what it prints."""
    held = configuration(block, text)
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    return "\n\n".join(f"{line}\n{printed(line[2:], held)}" for line in commands) + "\n"


def printed(command: str, text: str) -> str:
    """What a command prints where `text` is ./config.yaml."""
    program = shlex.join([sys.executable, str(ROOT / "relay.py")])
    script = f'relay() {{ {program} "$@"; }}; {command}'
    with tempfile.TemporaryDirectory() as home:
        Path(home, "config.yaml").write_text(text)
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=home,
            env=environment(variables(text)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STARTED,
            check=False,
        )
    assert "Traceback" not in ran.stdout, ran.stdout
    return ran.stdout.rstrip()


def masked(text: str) -> str:
    """Without what is made anew each time."""
    return re.sub(r"rk-[\w-]{40,}|sha256:[0-9a-f]{64}", "...", text)


def rewritten(text: str) -> str:
    """README with the parts that are made, made anew; what is still true is left as it is."""
    for name, make in PARTS.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        text = before + mark + make() + "\n" + rest[rest.index(f"<!-- /{name} -->") :]
    for block in blocks("console", text):
        now = with_output(block, text)
        if masked(now) != masked(block):
            text = text.replace(f"```console\n{block}```", f"```console\n{now}```")
    return text


@pytest.mark.parametrize("name", PARTS)
def test_the_made_parts_are_current(name: str) -> None:
    found = part(name).findall(DOCS)
    assert len(found) == 1, f"README.md needs <!-- {name} --> and <!-- /{name} -->, once each"
    assert found[0] == PARTS[name]() + "\n", f"out of date; run {WRITE}"


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.splitlines()[0][2:])
def test_commands_print_what_readme_shows(block: str) -> None:
    assert masked(block) == masked(with_output(block)), f"out of date; run {WRITE}"


# ---- README names everything


HELP = {
    "keys": [key for key, *_ in relay.reference()],
    "presets": [*relay.PRESETS],
    "errors": [*relay.FAILURES],
    "metrics": [family.base for family in relay.Metrics().families()],
    "paths": [f"{method} {path}" for method, path in relay.ROUTES],
}


@pytest.mark.parametrize("topic", HELP)
def test_help_prints_the_tables_that_readme_leaves_to_it(topic: str) -> None:
    assert f"`relay help {topic}`" in DOCS
    rows = {
        re.split(r"  +", line)[0]: line for line in printed(f"relay help {topic}", "").split("\n")
    }
    assert [name for name in HELP[topic] if name not in rows] == []
    assert all(len(rows[name]) > len(name) for name in HELP[topic])


def test_every_key_has_a_meaning() -> None:
    assert [key for key, _, _, sentence in relay.reference() if len(sentence.split()) < 2] == []


def test_readme_names_every_preset_with_its_longer_names() -> None:
    names = [*relay.PRESETS, *relay.PRESET_ALIASES]
    assert [name for name in names if f"`{name}`" not in DOCS] == []


def test_readme_names_every_command_and_option() -> None:
    said = re.findall(r"`relay (\w+)", DOCS)
    assert [name for name in relay.COMMANDS if name not in said] == []
    options = re.findall(r"--?\w+", relay.parser().format_help())
    assert [option for option in set(options) - {"-h", "--config"} if option not in DOCS] == []


def test_readme_names_every_path() -> None:
    """Those that are served, and those that answer 501."""
    paths = [(method, path) for method, path in relay.ROUTES if not path.startswith("/admin")]
    paths += [("POST", p) for d in relay.DIALECTS.values() for p in getattr(d, "purposes", ())]
    served = set(re.findall(r"`(GET|POST|HEAD) (?:/v1(?:beta)?)?(/[^`]*)`", DOCS))
    assert [pair for pair in paths if pair not in served] == []
    assert [path for _, path in relay.ROUTES if path not in DOCS] == []
    later = DOCS.partition("\n## Not supported yet\n")[2].partition("\n## ")[0]
    words = re.findall(r"[a-z]{2,}", relay.LATER_PATHS.pattern)
    assert "models" in words
    forwarded = re.findall(r"[a-z]{5,}", relay._FORWARDED.pattern)
    assert [word for word in (*forwarded, "/p/PROVIDER/") if word not in DOCS] == []
    assert [word for word in words if f"/{word}" not in later] == []


def test_readme_explains_every_termination_code() -> None:
    """Strings of two capitals in the errors and from the verdict on; no pieces of f-strings."""
    errors_end, verdict = (
        1 + next(i for i, line in enumerate(SOURCE.splitlines()) if f". {title} ===" in line)
        for title in ("Vocabulary", "Verdict")
    )
    nodes = [
        node
        for node in ast.walk(ast.parse(SOURCE))
        if 0 < getattr(node, "lineno", 0) < errors_end or getattr(node, "lineno", 0) > verdict
    ]
    pieces = {
        id(piece) for node in nodes if isinstance(node, ast.JoinedStr) for piece in node.values
    }
    said = {n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in pieces}
    codes = {text for text in said if isinstance(text, str) and re.fullmatch("[A-Z]{2}", text)}
    assert {"OK", "CD", "UC", "UR", "IE"} <= codes
    assert set(re.findall(r"\| `([A-Z]{2})` \|", DOCS)) == codes


def test_readme_explains_every_header() -> None:
    sent = set(re.findall(r"x-relay-[a-z-]*[a-z]", SOURCE))
    assert sorted(sent - set(re.findall(r"^\| `(x-relay-[a-z-]+)` \|", DOCS, re.M))) == []


def test_readme_quotes_messages_as_relay_says_them() -> None:
    """The tables of messages, in both languages: each quoted piece is in a text of relay.py."""
    heads = ("### Five messages", "## Troubleshooting", "### 常见错误")
    sections = [DOCS.partition(f"\n{head}\n")[2] for head in heads]
    quoted = [
        message
        for section in sections
        for message in re.findall(r"^\| `(.+?)` \|", section.partition("\n## ")[0], re.M)
    ]
    texts = [
        node.value
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    pieces = [piece.strip() for message in quoted for piece in message.split("...")]
    assert len(quoted) > 30
    assert [piece for piece in pieces if not any(piece in text for text in texts)] == []


def test_links_within_readme_lead_somewhere() -> None:
    heads = re.findall(r"^#+ (.+)$", DOCS, re.M)
    anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", DOCS) if link not in anchors] == []
    files = re.findall(r"\]\((?!#|https?:)([^)]+)\)|`((?:tests|\.ci)/[\w./-]*)`", DOCS)
    assert [link or path for link, path in files if not (ROOT / (link or path)).exists()] == []


def test_changes_come_last() -> None:
    assert re.findall(r"^## (.+)$", DOCS, re.M)[-1] == "Changes"
    assert f"### {relay.__version__} (" in DOCS.rpartition("\n## Changes\n")[2]


# ---- Configurations


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.split("\n")[1].strip())
def test_readme_configurations_load(block: str) -> None:
    assert checked(block)


def test_the_example_loads() -> None:
    assert checked(EXAMPLE.read_text())


def test_the_example_names_every_key() -> None:
    parsed = yaml.safe_load(EXAMPLE.read_text())
    files = {"tls", "tls.certificate", "tls.key"}  # they would have to exist
    keys = {key for key, *_ in relay.reference()} - files
    assert [key for key in keys if not stands(key.split("."), parsed)] == []


def stands(path: list[str], node: Any) -> bool:
    """Is there such a key?  `*` is any, and so is an item of a list."""
    if not path:
        return True
    if isinstance(node, list):
        return any(stands(path, item) for item in node)
    if not isinstance(node, Mapping):
        return False
    inner = node.values() if path[0] == "*" else [node[path[0]]] if path[0] in node else []
    return any(stands(path[1:], value) for value in inner)


def test_the_example_has_the_order_of_the_reference() -> None:
    order = [key for key, *_ in relay.reference() if "." not in key]
    named = list(yaml.safe_load(EXAMPLE.read_text()))
    assert named == [key for key in order if key in named]


def test_the_example_has_no_key_of_somebody() -> None:
    """What is copied must not open a door: only hashes, variables and files."""
    keys = yaml.safe_load(EXAMPLE.read_text())["keys"].values()
    assert all(re.match(r"sha256:|\$\{", key["key"]) for key in keys)


# ---- Setting up


def test_two_commands_set_everything_up() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    installing = [line for line in lines if "pip install" in line]
    demo, tests, chinese = installing
    assert chinese == demo
    assert re.fullmatch(r"python3 -m venv .venv && .venv/bin/pip install .* --demo", demo)
    named = subprocess.run([ROOT / ".ci/test-command"], capture_output=True, text=True, check=True)
    assert named.stdout == f"{tests}\n"


def test_the_file_names_the_dependencies_of_the_project() -> None:
    """PEP 723: the block is what `uv run relay.py` goes by."""
    block = re.search(r"^# /// script\n((?:^#(?: .*)?\n)+?)^# ///$", SOURCE, re.M)
    assert block
    script = tomllib.loads(re.sub(r"^# ?", "", block[1], flags=re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert script["dependencies"] == project["dependencies"]
    assert script["requires-python"] == project["requires-python"]


def test_the_top_level_holds_what_it_should() -> None:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        ran = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    names = {name.partition("/")[0] for name in ran.stdout.split("\0") if (ROOT / name).is_file()}
    files = "relay.py config.example.yaml pyproject.toml README.md LICENSE .gitignore"
    assert names == {*files.split(), "tests", ".ci"}


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
async def test_the_curl_commands_work(tmp_path: Path) -> None:
    """Each as it stands, against the demo, but for the port."""
    commands = re.findall(r"^curl (?:.*\\\n)*.*$", "\n".join(blocks("sh")), re.M)
    port = free_port()
    process = await spawn("--demo", "--listen", f"127.0.0.1:{port}", cwd=tmp_path)
    server = await served(RelayProcess(f"http://127.0.0.1:{port}", tmp_path / "none", process))
    try:
        answers = {line: await shell(line.replace(":8484", f":{port}")) for line in commands}
    finally:
        await server.end()
    ends = {"/v1/messages": "event: message_stop\ndata:", "/v1/chat/completions": "data: [DONE]\n"}
    for path, end in ends.items():
        streamed = [answer for line, answer in answers.items() if path in line]
        assert streamed, f"README.md has no curl of {path}"
        assert all(end in answer and "delta" in answer for answer in streamed)
    assert all(answers.values())


async def shell(command: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("bash", "-c", command, stdout=pipe, stderr=pipe)
    out, err = await asyncio.wait_for(process.communicate(), STARTED)
    assert process.returncode == 0, err.decode()
    return out.decode()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {os.path.relpath(__file__)} --write")
    README.write_text(rewritten(DOCS))
