"""What `relay docker` prints, and relay in a layout like that: process 1, another user, a root file
system that cannot be written."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from aiohttp import ClientSession
from relay_process import PROGRAM, free_port, run, text_of
from talk import eventually, one

import relay as program

USER = 10001


async def test_the_dockerfile_is_for_this_relay(tmp_path: Path) -> None:
    ran = await run("docker", cwd=tmp_path)
    assert ran.status == 0
    lines = ran.stdout.replace("\\\n", " ").splitlines()
    steps = [line.partition(" ")[::2] for line in lines if line and not line.startswith("#")]
    assert [text.split()[0] for step, text in steps if step == "FROM"] == ["python:3.13-slim"] * 2
    (user,) = (text for step, text in steps if step == "USER")
    assert user == f"{USER}:{USER}"
    installed = next(text for step, text in steps if "pip install" in text)
    header = PROGRAM.read_text().partition("# dependencies = ")[2].partition(",\n")[0] + "]"
    assert all(requirement in shlex.split(installed) for requirement in json.loads(header))
    for step, text in steps:
        if step in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):  # no shell is process 1
            assert json.loads(text[text.index("[") :])
    assert "PORT" not in ran.stdout
    assert f"relay:{program.__version__} " in ran.stdout


async def test_the_compose_file_fits_the_configuration(tmp_path: Path) -> None:
    config = {"listen": "0.0.0.0:9000", "server": {"grace": 60}, "allow_anonymous": True}
    (tmp_path / "config.yaml").write_text(
        text_of(config | one("http://127.0.0.1:1"), "127.0.0.1:1")
    )
    ran = await run("docker", "--compose", cwd=tmp_path)
    relay = yaml.safe_load(ran.stdout)["services"]["relay"]
    assert relay["ports"] == ["127.0.0.1:9000:9000"]
    assert relay["stop_grace_period"] == "70s"
    assert relay["read_only"] is True
    assert relay["volumes"] == ["./etc:/etc/relay", "state:/var/lib/relay"]
    example = "\n".join(re.findall(r"^#   (.*)$", ran.stdout, re.M))
    assert yaml.safe_load(example)["keys"] == {"me": {"key": "${RELAY_KEY_ME}"}}
    docker = await run("docker", cwd=tmp_path)
    assert "http://127.0.0.1:9000/healthz" in docker.stdout


def interpreter() -> str:
    """A Python like this one that the other user can start; "" if there is none."""
    if os.geteuid() or not (shutil.which("unshare") and shutil.which("setpriv")):
        return ""
    minor = f"python3.{sys.version_info.minor}"
    for each in (
        sys.executable,
        *(f"{folder}/{minor}" for folder in ("/usr/bin", "/usr/local/bin")),
    ):
        try:
            subprocess.run([each, "-c", "import ssl"], user=USER, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return each
    return ""


def hand_over(home: Path, *paths: Path) -> None:
    """Give these to the other user, and let it find them."""
    for path in paths:
        os.chown(path, USER, USER)
    for folder in (home, *[*home.parents][:3]):
        folder.chmod(0o755)


def child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


async def test_it_runs_as_process_1_where_only_its_folders_can_be_written(
    tmp_path: Path, http: ClientSession
) -> None:
    python = interpreter()
    if not python:
        pytest.skip("needs root, unshare, setpriv and a Python for everybody")
    port = free_port()
    etc, state = tmp_path / "etc", tmp_path / "state"
    for folder in (etc, state):
        folder.mkdir()
    shutil.copy(PROGRAM, tmp_path / "relay.py")

    def write(*models: str) -> None:
        providers = {"demo": {"api_format": "demo", "models": list(models)}}
        content = {"listen": f"127.0.0.1:{port}", "providers": providers}
        (etc / "config.yaml").write_text(yaml.safe_dump(content))

    write("one")
    hand_over(tmp_path, etc, state, etc / "config.yaml")
    libraries = ":".join((str(tmp_path), *site.getsitepackages()))
    given = f"PYTHONPATH={libraries} STATE_DIRECTORY={state} PYTHONDONTWRITEBYTECODE=1"
    script = "\n".join(
        (
            "set -e; mount --make-rprivate /; mount --bind / /",
            *(f"mount --bind {folder} {folder}" for folder in (etc, state)),
            "mount -o remount,ro,bind /",
            f"! touch {tmp_path}/x 2>/dev/null",
            f"exec setpriv --reuid {USER} --regid {USER} --clear-groups env -i {given}"
            f" {python} -P -m relay -c {etc}/config.yaml",
        )
    )
    unshare = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script)
    process = await asyncio.create_subprocess_exec(*unshare, stderr=asyncio.subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"

    async def models() -> list[str]:
        try:
            async with http.get(f"{url}/v1/models") as response:
                return [model["id"] for model in (await response.json())["data"]]
        except OSError:
            return []

    async def is_one() -> bool:
        return await models() == ["one"]

    async def is_two() -> bool:
        return await models() == ["one", "two"]

    try:
        await eventually(is_one)
        assert (state / "relay.db").stat().st_uid == USER
        child = child_of(process.pid)
        write("one", "two")  # as from outside, into a folder that is mounted
        os.kill(child, signal.SIGHUP)
        await eventually(is_two)
        os.kill(child, signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# ---- help


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("keys", "providers.*.api_key"),
        ("presets", "bigmodel "),
        ("errors", "plan_exhausted "),
        ("metrics", "relay_requests "),
        ("paths", "POST /v1/messages "),
    ],
)
async def test_help_explains(topic: str, line: str, tmp_path: Path) -> None:
    ran = await run("help", topic, cwd=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")
    assert any(each.startswith(line) for each in ran.stdout.splitlines())


@pytest.mark.parametrize("topic", ["keys", "presets", "errors", "metrics"])
async def test_help_fits_a_terminal(topic: str, tmp_path: Path) -> None:
    ran = await run("help", topic, cwd=tmp_path)
    assert max(map(len, ran.stdout.splitlines())) <= 100


@pytest.mark.parametrize("topic", [[], ["colours"], ["keys", "presets"]])
async def test_help_says_what_it_knows(topic: list[str], tmp_path: Path) -> None:
    ran = await run("help", *topic, cwd=tmp_path)
    assert (ran.status, ran.stdout) == (2, "")
    assert "keys | presets | errors | metrics | paths" in ran.stderr
