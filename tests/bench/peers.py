"""Who is measured: how each is started, and whether it is there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEAST = "the least in Python"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 1000000;
  client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
  uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; tcp_nodelay on;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer of-the-provider";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""
CADDY = """
{{
  admin off
  auto_https off
  persist_config off
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{upstream} {{
    flush_interval -1
    header_up Authorization "Bearer of-the-provider"
    transport http {{
      keepalive_idle_conns_per_host 2048
      compression off
    }}
  }}
}}
"""
LITELLM = """
model_list:
  - model_name: bench
    litellm_params:
      {{model: openai/provider-model, api_base: "http://127.0.0.1:{upstream}/v1", api_key: k}}
litellm_settings: {{use_chat_completions_url_for_anthropic_messages: true, num_retries: 0}}
router_settings: {{disable_cooldowns: true}}
"""


@dataclass(frozen=True)
class Place:
    """Where a peer finds what it needs."""

    directory: Path
    port: int
    upstream: int

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def fill(self, name: str, template: str) -> str:
        filled = template.format(dir=self.directory, port=self.port, upstream=self.upstream)
        return self.file(name, filled)


@dataclass(frozen=True)
class Peer:
    name: str
    command: Callable[[Place], list[str]] | None  # None: the provider itself
    pairs: frozenset[tuple[str, str]] = frozenset()  # client, provider; empty: equal ones
    env: dict[str, str] = field(default_factory=dict)

    def takes(self, client: str, provider: str) -> bool:
        return (client, provider) in self.pairs if self.pairs else client == provider


def relay_config(place: Place, dialects: tuple[str, ...]) -> str:
    """As a user has it: keys with limits, several providers, the log on."""
    url = f"http://127.0.0.1:{place.upstream}"
    providers = {
        name: {
            "api_format": name,
            "endpoint": url,
            "api_key": "of-the-provider",
            "models": {f"to-{name}": "provider-model"},
        }
        for name in dialects
    }
    limits = {"rpm": 10**9, "tpm": 10**12, "tokens_per_day": 10**15}  # out of reach
    keys = {"bench": {"key": KEY, "limits": limits}, "other": {"key": KEY[::-1]}}
    listen = f"127.0.0.1:{place.port}"
    return yaml.safe_dump({"listen": listen, "keys": keys, "providers": providers})


def relay_peer(
    name: str, program: Path, dialects: tuple[str, ...], uvloop: bool, nothing: Path
) -> Peer:
    """As it is installed: a module, whose bytecode Python keeps."""

    def command(place: Place) -> list[str]:
        config = place.file("config.yaml", relay_config(place, dialects))
        return [sys.executable, "-m", "relay", "-c", config]

    pairs = frozenset((client, provider) for client in dialects for provider in dialects)
    (nothing / "uvloop.py").write_text("raise ImportError\n")
    found = program.parent if uvloop else f"{nothing}:{program.parent}"
    env = {"PYTHONPATH": str(found), "PYTHONPYCACHEPREFIX": str(nothing / "bytecode")}
    env["PYTHONSAFEPATH"] = "1"  # else -m takes the module that lies where the bench is started
    return Peer(name, command, pairs, env | {"PYTHONDONTWRITEBYTECODE": ""})


def others(directory: Path) -> list[Peer]:
    """Those that are installed."""
    found = [Peer("nothing between", None)]
    if nginx := shutil.which("nginx"):
        found.append(Peer("nginx", lambda p: [nginx, "-c", p.fill("nginx.conf", NGINX)]))
    if caddy := beside("caddy"):
        run = [caddy, "run", "--adapter", "caddyfile", "--config"]
        found.append(Peer("caddy", lambda p: [*run, p.fill("Caddyfile", CADDY)]))
    if go := built_go(directory):
        found.append(Peer("Go ReverseProxy + JSON", lambda p: [go, str(p.port), url(p)]))
    also = " + uvloop" if find_spec("uvloop") else ""
    for name, file in ((LEAST, "least_peer.py"), ("aiohttp + orjson", "aiohttp_peer.py")):
        script = [sys.executable, str(HERE / file)]
        found.append(Peer(name + also, lambda p, s=script: [*s, str(p.port), url(p)]))
    if litellm := beside("litellm"):
        pairs = frozenset({("openai", "openai"), ("anthropic", "openai")})
        started = [litellm, "--host", "127.0.0.1", "--num_workers", "1"]
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}

        def command(place: Place) -> list[str]:
            config = place.fill("litellm.yaml", LITELLM)
            return [*started, "--port", str(place.port), "--config", config]

        found.append(Peer("LiteLLM", command, pairs, env | {"LITELLM_LOG": "ERROR"}))
    if vllm := beside("vllm-router"):  # in Rust; to servers of one model, so it leaves its name
        run = [vllm, "--policy", "round_robin", "--host", "127.0.0.1", "--log-level", "error"]

        def routed(place: Place) -> list[str]:
            ports = ["--port", str(place.port), "--prometheus-port", str(place.port - 9999)]
            return [*run, *ports, "--worker-urls", url(place)]

        found.append(Peer("vllm-router", routed))
    if smg := beside("smg"):  # in Rust
        served = [smg, "launch", "--host", "127.0.0.1", "--policy", "round_robin"]
        served += ["--log-level", "error", "--model-alias", "bench=provider-model"]

        def aliased(place: Place) -> list[str]:
            ports = ["--port", str(place.port), "--prometheus-port", str(place.port - 9998)]
            return [*served, *ports, "--worker-urls", url(place)]

        found.append(Peer("smg", aliased))
    if router := beside("ccr"):
        found.append(claude_code_router(router, directory))
    return found


def claude_code_router(program: str, directory: Path) -> Peer:
    home = directory / "claude-code-router"

    def command(place: Place) -> list[str]:
        provider = {"name": "up", "api_key": "k", "models": ["provider-model"]}
        provider["api_base_url"] = f"{url(place)}/v1/chat/completions"
        config = {"PORT": place.port, "HOST": "127.0.0.1", "LOG": False, "Providers": [provider]}
        config |= {"NON_INTERACTIVE_MODE": True, "Router": {"default": "up,provider-model"}}
        (home / ".claude-code-router").mkdir(parents=True, exist_ok=True)
        (home / ".claude-code-router" / "config.json").write_text(json.dumps(config))
        return [program, "start"]

    pairs = frozenset({("anthropic", "openai")})
    return Peer("claude-code-router", command, pairs, {"HOME": str(home)})


def url(place: Place) -> str:
    return f"http://127.0.0.1:{place.upstream}"


def beside(name: str) -> str | None:
    """A program of the environment this runs in, or of the system."""
    mine = Path(sys.executable).parent / name
    return str(mine) if mine.exists() else shutil.which(name)


def built_go(directory: Path) -> str | None:
    go = shutil.which("go") or next(iter(map(str, Path("/usr/lib").glob("go-*/bin/go"))), None)
    if not go:
        return None
    target = directory / "go-peer"
    build = [go, "build", "-o", str(target), str(HERE / "peer.go")]
    subprocess.run(build, check=True)
    return str(target)


def built(name: str, directory: Path) -> str:
    """A C program of this directory, compiled."""
    target = directory / name
    source = HERE / f"{name}.c"
    subprocess.run(["cc", "-O2", "-o", str(target), str(source)], check=True)
    return str(target)
