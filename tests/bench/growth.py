"""Does a request cost the same, however many are in flight, and however much is configured?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml
from measure import Bench, Running, Scenario
from peers import Peer, Place, relay_config

import relay

IN_FLIGHT = (1, 10, 100, 1000)
SIZES = (1, 50, 500)
REQUESTS = 2000

Config = dict[str, Any]


def with_keys(config: Config, count: int) -> Config:
    """Whose key is asked with stands last."""
    others = {f"key-{n}": {"key": f"sk-other-{n:032}"} for n in range(count - 1)}
    return config | {"keys": others | {"bench": config["keys"]["bench"]}}


def with_providers(config: Config, count: int) -> Config:
    row = config["providers"]["openai"]
    others = {f"p-{n}": row | {"models": {f"m-{n}": "provider-model"}} for n in range(count - 1)}
    return config | {"providers": others | {"openai": row}}


def with_rules(config: Config, count: int) -> Config:
    """Globs, of which the last is the one."""
    to = "openai/provider-model"
    others = {f"name-{n}-*": to for n in range(count - 1)}
    return config | {"routing_rules": others | {"to-open*": to}}


def with_exact_rules(config: Config, count: int) -> Config:
    to = "openai/provider-model"
    return config | {"routing_rules": {f"n-{n}": to for n in range(count - 1)} | {"to-openai": to}}


GROWING: dict[str, Callable[[Config, int], Config]] = {
    "keys": with_keys,
    "providers": with_providers,
    "rules, exact": with_exact_rules,
    "rules, globs": with_rules,
}


def peers(plain: Peer) -> dict[tuple[str, int], Peer]:
    """relay with each kind of configuration in each size; the smallest is the same of all."""
    found = {("", 1): plain}
    for what, grown in GROWING.items():
        for size in SIZES[1:]:
            name = f"{what} {size}"
            found[what, size] = replace(plain, name=name, command=started(plain, grown, size))
    return found


def started(
    plain: Peer, grown: Callable[[Config, int], Config], size: int
) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        assert plain.command
        config = yaml.safe_load(relay_config(place, tuple(relay.DIALECTS)))
        words = plain.command(place)
        place.file("config.yaml", yaml.safe_dump(grown(config, size), sort_keys=False))
        return words

    return command


def cpu(tools: Bench, one: Running, in_flight: int) -> float:
    """us a request."""
    count = max(REQUESTS, 20 * in_flight)  # so that the connections' beginnings do not show
    wanted = Scenario("growth", "tiny", False, in_flight, 30, count)
    return float(tools.measure(one, relay.CHAT, relay.CHAT, wanted)["cpu"])


def by_flight(tools: Bench, one: Running, rounds: int) -> list[list[str]]:
    """The least of all rounds: whatever else runs on the machine only adds."""
    found = [[cpu(tools, one, n) for n in IN_FLIGHT] for _ in range(rounds)]
    return [["CPU of a tiny request, us", *(f"{min(row):.0f}" for row in zip(*found, strict=True))]]


def by_size(tools: Bench, ones: dict[tuple[str, int], Running], rounds: int) -> list[list[str]]:
    least = dict.fromkeys(ones, float("inf"))
    for _ in range(rounds):
        for which, one in ones.items():
            least[which] = min(least[which], cpu(tools, one, 32))
    first = f"{least['', 1]:.0f}"
    return [[what, first, *(f"{least[what, size]:.0f}" for size in SIZES[1:])] for what in GROWING]
