"""Configurations from text, with an environment and files of secrets of the test's own."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable, Mapping

import relay


def reading(
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    installed: Callable[[str], bool] = lambda module: True,
) -> relay.Reading:
    def read_secret(path: str) -> str:
        if path not in (secrets or {}):
            raise FileNotFoundError(2, "No such file or directory", path)
        return (secrets or {})[path]

    return relay.Reading("config.yaml", env or {}, read_secret, zone, installed)


def zone(name: str) -> datetime.tzinfo:
    return zoneinfo.ZoneInfo(name)


def problems_of(
    text: str, env: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
) -> list[str]:
    """Everything that is wrong with a file, as it is shown."""
    notes = reading(env, secrets)
    relay.compile_plan(relay.read_config(text, notes), notes)
    return notes.problems()


def plan_of(
    text: str, env: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
) -> relay.Plan:
    notes = reading(env, secrets)
    plan = relay.compile_plan(relay.read_config(text, notes), notes)
    assert notes.problems() == []
    return plan
