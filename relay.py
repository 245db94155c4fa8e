#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.11", "pyyaml>=6", "orjson>=3.9"]
# ///
"""One address for every LLM API: a reverse proxy that stays out of the way.

    python relay.py -c config.yaml     serve what the file says
    python relay.py --demo             serve an embedded provider: no key, no network
    python relay.py check              everything that is wrong with ./config.yaml

A request goes

    client -> admit -> route -> attempt, attempt, ... -> pump -> settle
              (who)    (where)  (failover)               (bytes) (usage, log)

The rule of this file: code refers only to what stands above it.  First come values
(sections 1-23: pure; no await, no clock, no socket), then memory (24-33: synchronous, told
the time), then I/O (34-65).  A name with a leading underscore stays within its section.

Where to begin
    to follow one request     Relay.handle, and from there upward
    to add a provider         a row of PRESETS; what is odd about it is data in that row
    to add a dialect          a section like Gemini's, and its name in DIALECTS
    to add a config key       a field in Configuration
    to explain an error       COMMON_ERRORS, or the provider's own rows beside it
    to count something        a family in Metrics, and a line in Accounts
    to add a command          a row of COMMANDS

Words
    dialect     a wire format, of clients and of providers; the hub holds what they all mean
    target      a model at a provider; a lane is one way to it: a plan, a key, an endpoint
    exchange    a client's request from accept to settle; an attempt is one try at one lane
    pipe        what turns a provider's bytes into the client's
    mark        why and until when a lane is cooling down
    seal        the opaque token by which a provider recognises its own reasoning
    permit      a caller's leave to go on, within the limits of its key

Contents
  Values: what a request says
     1. Errors                what can go wrong, and what it means
     2. Vocabulary            the hub: what all dialects mean
     3. Wire                  JSON text, checked access, server-sent events
     4. Conversation          a history put in order before it is translated
     5. Dialect               the shape of a wire format; the grammar of a stream
     6. Dialect: Anthropic Messages
     7. Dialect: OpenAI Chat Completions
     8. Dialect: OpenAI Responses
     9. Dialect: Gemini generateContent
  Values: the bytes it travels as
    10. Pipes                 upstream bytes to client bytes
    11. Body                  a client's bytes, edited in place or not at all
    12. HTTP                  a provider's reply: bytes in; head, body and end out
  Values: what a configuration makes of it
    13. Failures              what a provider's error means
    14. Presets               one row per known provider
    15. Reading               a YAML file, and everything wrong with it
    16. Configuration         the keys of the file, each with its kind and its sentence
    17. Prices                what tokens cost
    18. Conditions            what a rule may ask about a request
    19. Plan                  a configuration compiled to answer "where may this go?"
    20. Compiler              a configuration made a plan; mistakes that take two keys to see
  Values: other tools, other files
    21. Clients               what a coding tool must be told
    22. Import                another relay's file as a configuration of this one
    23. Records               what the flight recorder keeps, and how it is written
  Memory: where a request may go now
    24. Stickiness            which credential served a conversation last
    25. Health                who is cooling down, why, until when
    26. Balance               which of several equals goes first
  Memory: what is counted and told
    27. Ledger                what was used, by the hour and by the day
    28. Limits                who may ask now: rates, concurrency, budgets
    29. Cache ledger          why a prompt cache was missed
    30. Notes                 what relays tell one another about health
    31. Verdict               what a client is told when nothing worked
    32. Metrics               what is counted, in Prometheus's words
    33. Feed                  what happens, for those who watch
  I/O: what is written down
    34. Log                   one line per request
    35. State                 where usage and budgets outlive the process
    36. SQLite                the store in a file
    37. Redis                 the store that many machines share
    38. Keeper                memory and the store kept in step
  I/O: providers on one side, clients on the other
    39. Connections           HTTP/1.1 to providers on bare transports
    40. Upstream              one HTTP exchange with a provider
    41. Recorder              whole exchanges in a ring of files
    42. Demo                  the embedded provider
    43. Client                who asks; the body read, the answer written
    44. Telemetry             spans and metrics for an OpenTelemetry collector
  I/O: a request from beginning to end
    45. Exchange              one client request, and all that is known of it
    46. Preparation           how it goes out on a lane
    47. Accounts              what a request may take, and what it came to
    48. Failover              attempts, until a lane answers
    49. Relay                 from accept to settle
    50. Forwarding            what passes unread: embeddings, images, audio, /p/
  I/O: the process around it
    51. Page                  the dashboard
    52. Source                where a configuration comes from
    53. Admin                 what relay knows of itself, and what can be done to it
    54. Heap                  what the allocator keeps and what it gives back
    55. Operations            which path is whose; probes, lists, status
    56. Service manager       what systemd and relay tell one another
    57. Server                sockets, signals, reload, drain
    58. Units                 what systemd needs to run relay
    59. Grafana               a dashboard of the metrics
  I/O: the commands
    60. Console               a running relay, asked by a command
    61. Launch                a tool as relay's child
    62. Trial                 whether the configured providers answer as they should
    63. Watch                 the log and the running requests, in a terminal
    64. Replay                a record listed, sent again, compared, exported
    65. Command line          the commands as a table
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import bisect
import codecs
import collections
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import datetime
import difflib
import errno
import fcntl
import functools
import gc
import hashlib
import hmac
import importlib
import importlib.util
import ipaddress
import itertools
import json
import logging
import math
import operator
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import zlib
import zoneinfo
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
    Set,
)
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TextIO,
    TypeAlias,
    TypeVar,
    cast,
    dataclass_transform,
)

import aiohappyeyeballs
import aiohttp
import orjson
import yaml
import yarl
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy

__version__ = "0.1.0"

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T] | None = None, /, *, kw_only: bool = False) -> Any:
    """A dataclass that is frozen for the type checker, which sees every assignment there is.

    One that refused changes at run time too would set its fields through object.__setattr__:
    making a value would take three times as long, and making the class half as long again.
    """
    if cls is None:
        return functools.partial(frozen, kw_only=kw_only)
    cls.__doc__ = cls.__doc__ or cls.__name__  # else Python works out a signature to say here
    return dataclass(slots=True, unsafe_hash=True, kw_only=kw_only)(cls)


################################################################################
#                                    VALUES                                    #
#            pure: no await, no clock, no randomness, no file, no socket       #
################################################################################

# ==== 1. Errors ===============================================================
# Every way a request can end badly, as one tree.  The class says what the client is told
# and whether trying again is worth its while; nobody inspects message text to decide.
#
#     RelayError
#       ConfigError           -    many problems, each with a place; exit status 2
#       BadRequest          400    no other target will like it either
#       Unauthorized        401    no key, an unknown one, an expired one
#       BudgetSpent         402    a key's budget of the day or the month is used up
#       Forbidden           403    a known key, but not for this
#       UnknownModel        404    nothing is configured under that name
#       NotFound            404    no such path
#       TooSlow             408    the request did not arrive in time
#       TooLarge            413    the body is over server.max_body
#       UnknownCoding       415    the body is in a content coding that relay cannot read
#       NoWebSocket         426    a WebSocket was asked for where there is none
#       LimitExceeded       429    a key asks too often or too much at once
#       HeaderTooLarge      431    a header is over server.max_header
#       NotYet              501    understood, but not supported by this version
#       NoTarget            503    every target failed or is cooling down
#         ShuttingDown      503    it ran longer than server.grace allows
#       StateDown           503    the shared budgets are out of reach: state_fail_closed
#       UpstreamError       ...    one attempt failed; its failure class says the rest


class RelayError(Exception):
    """Base of all; each dialect renders `kind` in its own words.

    `retry_after` is in seconds; `retry` False tells clients that trying again is pointless.
    """

    status: int = 500
    kind: str = "server"
    retry: bool = True
    code: str = "IE"  # the log's termination code

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.kind = self.kind if kind is None else kind
        self.retry = self.retry if retry is None else retry
        self.retry_after = retry_after


class ConfigError(RelayError):
    """All that is wrong with a configuration, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class BadRequest(RelayError):
    status, kind, retry, code = 400, "bad_request", False, "BR"


class Unauthorized(RelayError):
    # Claude Code retries a 401 for minutes unless it is told not to.
    status, kind, retry, code = 401, "auth", False, "AU"


class BudgetSpent(RelayError):
    # Not a 429: every client tries those again, and a budget is not back in a minute.
    status, kind, retry, code = 402, "budget", False, "BG"


class Forbidden(RelayError):
    status, kind, retry, code = 403, "permission", False, "AU"


class UnknownModel(RelayError):
    status, kind, retry, code = 404, "model_not_found", False, "BR"


class NotFound(RelayError):
    status, kind, retry, code = 404, "not_found", False, "BR"


class TooSlow(RelayError):
    status, kind, code = 408, "timeout", "BR"


class TooLarge(RelayError):
    status, kind, retry, code = 413, "too_large", False, "BR"


class UnknownCoding(RelayError):
    status, kind, retry, code = 415, "bad_request", False, "BR"


class NoWebSocket(RelayError):
    status, kind, retry, code = 426, "bad_request", False, "BR"


class LimitExceeded(RelayError):
    status, kind, code = 429, "rate_limit", "RL"


class HeaderTooLarge(RelayError):
    status, kind, retry, code = 431, "bad_request", False, "BR"


class NotYet(RelayError):
    status, kind, retry, code = 501, "unimplemented", False, "BR"


class NoTarget(RelayError):
    status, kind, code = 503, "unavailable", "CO"


# What a provider's failure is.  `scope` is what gets marked, and `cool` for how many seconds if
# nobody says until when (0: no mark); `grows_to` is as far as repeated failures may double that.
# `failover` says whether another target may do better, and the rest what the client is told when
# no target did.


MARKED_SCOPES: Final = ("credential", "credential+model", "provider+model", "endpoint")
SCOPES: Final = (*MARKED_SCOPES, "request")  # what a request has done wrong marks nothing


@frozen
class FailureClass:
    name: str
    scope: str  # one of SCOPES
    cool: float
    failover: bool
    status: int
    kind: str
    retry: bool = True
    opens_next_plan: bool = False
    grows_to: float = 1800


FAILURES: Final[dict[str, FailureClass]] = {
    row.name: row
    for row in (
        # 20 min for a window of hours, up to 6 h for one of weeks: doubling finds out which it is
        FailureClass(
            "plan_exhausted",
            "credential",
            1200,
            True,
            429,
            "rate_limit",
            opens_next_plan=True,
            grows_to=21600,
        ),
        FailureClass(
            "plan_expired",
            "credential",
            21600,
            True,
            502,
            "billing",
            False,
            opens_next_plan=True,
            grows_to=21600,
        ),
        FailureClass("balance_empty", "credential", 1800, True, 502, "billing", False, False, 3600),
        FailureClass("rate_limited", "credential", 10, True, 429, "rate_limit"),
        FailureClass("overloaded", "provider+model", 10, True, 503, "overloaded"),
        FailureClass("auth", "credential", 900, True, 502, "upstream", False, False, 900),
        FailureClass("client_rejected", "request", 0, True, 502, "upstream", False),
        FailureClass("model_missing", "credential+model", 300, True, 502, "upstream", False),
        # of the model, while it answers at all; of the endpoint, where nobody does
        FailureClass("transient", "provider+model", 5, True, 502, "upstream"),
        FailureClass("timeout", "provider+model", 10, True, 504, "timeout"),
        FailureClass("moderation", "request", 0, False, 400, "bad_request", False),
        FailureClass("too_long", "request", 0, True, 400, "context_length", False),
        FailureClass("bad_request", "request", 0, False, 400, "bad_request", False),
        FailureClass("disabled", "request", 0, True, 503, "unavailable"),  # by an operator
    )
}
LIMITS: Final = frozenset({"plan_exhausted", "rate_limited"})
# Failures that are about the request, not the provider; the client has to be told of them.
OF_THE_REQUEST: Final = frozenset({"moderation", "too_long", "bad_request"})


class ShuttingDown(NoTarget):
    code = "DR"


class StateDown(RelayError):
    status, kind, code = 503, "unavailable", "SD"


class UpstreamError(RelayError):
    """One attempt failed.  `body` is what the upstream said, for clients of its own dialect."""

    code = "UE"

    def __init__(
        self,
        failure: str,
        message: str,
        *,
        upstream_status: int = 0,
        retry_after: float | None = None,
        scope: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        row = FAILURES[failure]
        super().__init__(
            message, status=row.status, kind=row.kind, retry=row.retry, retry_after=retry_after
        )
        if failure in OF_THE_REQUEST and upstream_status in (400, 413, 422):
            self.status = upstream_status
            self.kind = "too_large" if upstream_status == 413 else row.kind
        self.failure = row
        self.at = 0.0  # when it was said: `retry_after` counts from there
        self.scope = scope or row.scope
        self.upstream_status = upstream_status
        self.body = body
        self.headers = headers or {}


# ==== 2. Vocabulary ===========================================================
# What every dialect is translated to and from: the hub of the wheel.  A dialect knows its own
# wire format and these types, never another dialect.  Values only; the one idea is in `fold`
# and `unfold`: a whole response and its stream are two spellings of one thing.

JSON: TypeAlias = dict[str, Any]  # one wire object, as orjson.loads returns it

FinishReason = Literal[
    "stop", "length", "tool_calls", "content_filter", "stop_sequence", "context_length", "pause"
]
Role = Literal["system", "user", "assistant"]


@frozen
class Seal:
    """An opaque token by which the maker of a model recognises its own reasoning.

    `field` says where it was found: "as" Anthropic's signature, "ad" Anthropic's redacted data,
    "re" an item of OpenAI's Responses, "gs" Gemini's thoughtSignature, "cd" OpenRouter's
    reasoning_details, "cr" plain reasoning of a chat provider, which has no token, "tx" a thought
    whose maker gave it none.  `account` is the credential's that minted it; empty if it came from
    a session that did not pass here.  `text` is the thought itself, for a client that keeps the
    thought without showing it.
    """

    field: str
    value: str = ""
    account: str = ""
    text: str = ""


@frozen
class Text:
    text: str = ""


@frozen
class Reasoning:
    text: str = ""
    seal: Seal | None = None


@frozen
class ToolCall:
    id: str
    name: str
    text: str = ""  # the arguments, as the JSON text the model wrote


@frozen
class Media:
    """An image, a document or a sound: `data` (base64, or the text itself) or `url`."""

    kind: Literal["image", "document", "text", "audio"]
    mime: str = ""
    data: str = ""
    url: str = ""
    name: str = ""
    detail: str = ""  # how closely an image is to be looked at: low, high, original


@frozen
class ToolResult:
    call_id: str
    parts: tuple[Text | Media, ...] = ()
    is_error: bool = False


TEXT_OR_MEDIA: Final = (Text, Media)  # what a tool's result may hold
Part: TypeAlias = Text | Reasoning | ToolCall | Media | ToolResult
OutputPart: TypeAlias = Text | Reasoning | ToolCall


@frozen
class Message:
    """One turn.  The system prompt is the leading system messages; later ones keep their place."""

    role: Role
    parts: tuple[Part, ...]


@frozen
class Tool:
    name: str
    description: str = ""
    schema: JSON = field(default_factory=dict)
    strict: bool | None = None
    form: str = ""  # the client's dialect's own word for a kind that is no plain function


@frozen
class ToolChoice:
    mode: Literal["auto", "none", "required", "named"]
    names: tuple[str, ...] = ()  # the one for "named"; else the allowed subset, () for all


@frozen
class Thinking:
    """How much to reason: not at all, an effort, a token budget, or as the model decides."""

    on: bool
    effort: str = ""
    budget: int | None = None

    def word(self) -> str:
        """The effort, derived from the budget if only that was given; "" leaves it to the model."""
        if not self.on:
            return "none"
        if self.effort or self.budget is None:
            return self.effort
        steps = {
            0: "none",
            1024: "minimal",
            4096: "low",
            12000: "medium",
            20000: "high",
            28000: "xhigh",
        }
        return next((word for most, word in steps.items() if self.budget <= most), "max")

    def tokens(self) -> int:
        """The budget, derived from the effort if only that was given."""
        budgets = {"none": 0, "minimal": 1024, "low": 2048, "high": 16384, "xhigh": 24576}
        return self.budget or budgets.get(self.effort, 31999 if self.effort == "max" else 8192)


@frozen
class Format:
    """What an answer must look like: any JSON object, or one that fits a schema."""

    schema: JSON | None = None
    name: str = "output"
    strict: bool | None = None


@frozen
class Sampling:
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def given(self) -> dict[str, float]:
        """Those that were set."""
        said = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return {name: value for name, value in said if value is not None}


@frozen(kw_only=True)
class Request:
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_tokens: int | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    thinking: Thinking | None = None
    show_thoughts: bool | None = None  # are they to be seen?  None: the client did not say
    format: Format | None = None
    verbosity: str = ""  # how much to say of what was thought: low, medium or high
    service_tier: str = ""  # how soon and how dear: auto, default, flex, priority; OpenAI's words
    user: str = ""  # who the end user is, as the client says it; opaque
    session: str = ""  # the conversation's name for caches; opaque, too
    stream: bool = False
    include_usage: bool = True  # are the token counts wanted in a stream?
    dropped: tuple[str, ...] = ()  # what the client sent that cannot be expressed here


@frozen
class Usage:
    """Token counts.  `input` includes both cache counts, `output` includes reasoning."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


@frozen
class Response:
    id: str
    model: str
    parts: tuple[OutputPart, ...]
    finish: FinishReason
    usage: Usage = Usage()
    detail: str = ""  # which stop sequence, or why it was refused


# A stream is a sentence in this grammar.  Decoders may only say such sentences, so encoders
# need not defend against any other:
#
#     stream := Start part* (Finish | Failure)  |  Failure
#     part   := PartStart PartDelta* PartEnd


@frozen
class Start:
    id: str = ""
    model: str = ""
    usage: Usage = Usage()  # what is known of the input so far


@frozen
class PartStart:
    part: OutputPart  # its kind, id and name; its text is still empty


@frozen
class PartDelta:
    text: str


@frozen
class PartEnd:
    seal: Seal | None = None


@frozen
class Finish:
    reason: FinishReason
    usage: Usage = Usage()
    detail: str = ""


@frozen
class Failure:
    """The provider failed in mid-stream: in its own words, or by `cause` (a failure class)."""

    message: str
    code: str = ""
    type: str = ""
    cause: str = ""
    extra: str = ""  # what else it said, for rules to search: quota ids, limit sources


Event: TypeAlias = Start | PartStart | PartDelta | PartEnd | Finish | Failure

TRUNCATED: Final = Failure("closed the stream before its end", cause="transient")


def emptied(part: OutputPart) -> OutputPart:
    """The part as it starts: its kind, id and name, and no text yet."""
    return Reasoning() if isinstance(part, Reasoning) else replace(part, text="")


def unfold(response: Response) -> Iterator[Event]:
    """Spell a whole response as a stream."""
    yield Start(response.id, response.model, replace(response.usage, output=0, reasoning=0))
    for part in response.parts:
        yield PartStart(emptied(part))
        if part.text:
            yield PartDelta(part.text)
        yield PartEnd(part.seal if isinstance(part, Reasoning) else None)
    yield Finish(response.finish, response.usage, response.detail)


def fold(events: Iterable[Event]) -> Response | Failure:
    """Gather a stream into a whole response, or the failure it ended in."""
    start, parts, texts = Start(), list[OutputPart](), list[str]()
    for event in events:
        match event:
            case Start():
                start = event
            case PartStart(part):
                parts.append(part)
                texts = []
            case PartDelta(text):
                texts.append(text)
            case PartEnd(seal):
                parts[-1] = replace(parts[-1], text="".join(texts))
                if isinstance(parts[-1], Reasoning):
                    parts[-1] = replace(parts[-1], seal=seal)
            case Finish(reason, usage, detail):
                return Response(start.id, start.model, tuple(parts), reason, usage, detail)
            case Failure():
                return event
    return TRUNCATED


def latest(old: Usage, new: Usage) -> Usage:
    """The later counts win; a later report may leave out what an earlier one gave."""
    counts = (after or before for before, after in zip(_counts(old), _counts(new), strict=True))
    return Usage(*counts)


def _counts(usage: Usage) -> tuple[int, ...]:
    return (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)


# ==== 3. Wire =================================================================
# What every dialect needs to read and write its format: JSON text, checked access to a
# client's JSON, and server-sent events both ways.
#
# https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
# Lines end in CR, LF or CRLF and in nothing else: str.splitlines() would also cut at U+2028,
# which models do write.  Hence bytes throughout.


def loads(data: bytes | str) -> Any:
    """JSON text to values; ValueError if it is not JSON.

    orjson first.  The standard library reads what orjson refuses although clients send it: a
    lone surrogate (JavaScript clients cut strings in the middle of an emoji).
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data, parse_constant=_no_constant)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def json_values(data: bytes) -> list[Any]:
    """The JSON values in a row, usually just one; ValueError if one is cut off."""
    try:
        return [loads(data)]
    except ValueError:
        return list(_json_values(data.decode()))


def _json_values(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        yield value
        at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]  # it matches anything


_BLANKS: Final = re.compile(r"[ \t\r\n]*")


def dumps(value: object) -> bytes:
    """Values to compact JSON; the standard library writes lone surrogates and huge integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return json.dumps(value, separators=(",", ":")).encode()
        except RecursionError as error:
            raise BadRequest("the body is nested too deeply") from error


def loads_exactly(data: bytes) -> Any:
    """`loads`, but with integers of any size; orjson rounds those over 64 bits."""
    if has_long_number(data):
        with contextlib.suppress(RecursionError):
            return json.loads(data, parse_constant=_no_constant)
    return loads(data)


def has_long_number(data: bytes) -> bool:
    """Is there a run of digits that may need more than 64 bits?

    A run of nineteen digits puts at least four in a row into every fourth byte, and to look at
    every fourth byte is a quarter of the work.  Such places are looked at closely; if there are
    too many of them, all the bytes are.
    """
    few = data[::4].translate(_DIGITS_ONLY)
    at = len(few)
    for _ in range(_CLOSER):
        at = few.rfind(_MANY_DIGITS[:4], 0, at + 3)
        if at < 0:
            return False
        around = data[max(0, 4 * at - 6) : 4 * at + 19]
        if _MANY_DIGITS in around.translate(_DIGITS_ONLY):
            return True
    return data.translate(_DIGITS_ONLY).rfind(_MANY_DIGITS) >= 0


_CLOSER: Final = 64
_MANY_DIGITS: Final = b"0" * 19
_DIGITS_ONLY: Final = bytes(ord("0") if chr(code).isdigit() else 32 for code in range(128)) + bytes(
    128
)


def parse_object(text: str) -> JSON | None:
    """A JSON object in a string, such as a tool call's arguments; None if it is not one."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = loads_exactly(text.encode(errors="surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Wire:
    """A client's JSON object and its path, so that a complaint can point at a place.

    What no reader asked for is noted in `dropped`, once per kind of place: nothing a client
    sent is lost silently.
    """

    __slots__ = ("_index", "_key", "_parent", "data", "dropped")

    def __init__(
        self, data: object, parent: Wire | None = None, key: str = "", index: int | None = None
    ) -> None:
        self._parent = parent
        self._key = key
        self._index = index  # in the list under the key
        self.dropped: dict[str, None] = parent.dropped if parent else {}
        if not isinstance(data, dict):
            raise BadRequest(f"{self.path() or 'body'}: expected an object, got {shown(data)}")
        self.data: JSON = data

    def want(self, name: str, kind: type[T]) -> T | None:
        """The value under `name`, None if it is absent; BadRequest if it is of another kind."""
        value: Any = self.data.get(name)
        if value is None:
            return None
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:  # an integer is a number too
            return cast(T, value)
        raise BadRequest(f"{self.path(name)}: expected {_KINDS[kind]}, got {shown(value)}")

    def need(self, name: str, kind: type[T]) -> T:
        value: Any = self.data.get(name)
        if type(value) is kind:
            return value
        value = self.want(name, kind)
        if value is None:
            raise BadRequest(f"{self.path(name)}: required")
        return cast(T, value)

    def inner(self, name: str, known: frozenset[str] = frozenset()) -> Wire:
        """The object under `name`, or an empty one; what is not `known` in it is noted."""
        inner = Wire(self.data.get(name) or {}, self, name)
        if known:
            inner.rest(known)
        return inner

    def each(self, name: str, required: bool = False) -> Iterator[Wire]:
        """The objects in the list under `name`; none if it is not there."""
        items = self.need(name, list) if required else self.want(name, list) or ()
        for index, item in enumerate(items):
            yield Wire(item, self, name, index)

    def texts(self, name: str) -> tuple[str, ...]:
        """The strings under `name`; a single string counts as a list of one."""
        value = self.data.get(name)
        if isinstance(value, str):
            return (value,)
        items: list[object] = self.want(name, list) or []
        wrong = next((item for item in items if not isinstance(item, str)), None)
        if wrong is not None:
            raise BadRequest(f"{self.path(name)}: expected strings, got {shown(wrong)}")
        return tuple(str(item) for item in items)

    def rest(self, known: frozenset[str]) -> None:
        """Note all keys here except those `known`."""
        if known.issuperset(self.data):
            return
        for name in self.data.keys() - known:
            if self.data[name] is not None:
                self.drop(name)

    def drop(self, name: str = "") -> None:
        self.dropped[re.sub(r"\[\d+\]", "[]", self.path(name))] = None

    def path(self, name: str = "") -> str:
        above = self._parent.path() if self._parent else ""
        here = self._key if self._index is None else f"{self._key}[{self._index}]"
        return ".".join(filter(None, (above, here, name)))


_KINDS: Final[dict[object, str]] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def shown(value: object) -> str:
    """A value for an error message: short, and without a client's prose in full."""
    text = dumps(value).decode() if isinstance(value, str | int | float | bool | None) else ""
    return text if 0 < len(text) <= 60 else _KINDS.get(type(value), type(value).__name__)


# Copies of a JSON object with one place changed: the objects on the path to it are copied, the
# rest is shared, and if there is nothing to change the very same object is returned.


def found(body: object, path: Sequence[str]) -> object:
    for key in path:
        body = body.get(key) if isinstance(body, dict) else None
    return body


def with_value(body: JSON, path: Sequence[str], value: object) -> JSON:
    key, *rest = path
    inner = body.get(key)
    if rest:
        value = with_value(inner if isinstance(inner, dict) else {}, rest, value)
    return body | {key: value}


def without(body: JSON, path: Sequence[str]) -> JSON:
    key, *rest = path
    if key not in body or (rest and not isinstance(body[key], dict)):
        return body
    if not rest:
        return {name: value for name, value in body.items() if name != key}
    inner = without(body[key], rest)
    return body if inner is body[key] else body | {key: inner}


# Bytes held at most while the rest is awaited: of an event, of an answer.
MOST_HELD: Final = 64 << 20


@frozen
class ServerSentEvent:
    event: str
    data: bytes


class SSEDecoder:
    """Bytes in, whole events out; keeps what is left of an unfinished event."""

    def __init__(self) -> None:
        self._buffer = b""
        self._more: list[bytes] = []  # pieces of an unfinished line: joined once, at its end
        self._first = True
        self._halved = False  # was the last byte a CR whose LF, if it comes, must be ignored?
        self._size = 0

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """ValueError for an event that is larger than any event should be."""
        if self._halved and data:
            data, self._halved = data.removeprefix(b"\n"), False
        self._size += len(data)
        if self._size > MOST_HELD:
            raise ValueError(f"an event of more than {MOST_HELD >> 20} MB")
        if self._buffer:
            if b"\n" not in data and b"\r" not in data:
                self._more.append(data)
                return []
            data, self._more = b"".join((self._buffer, *self._more, data)), []
        if self._first and data:
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._buffer = data
                return []
            data, self._first = data.removeprefix(b"\xef\xbb\xbf"), False
        held = b""
        if b"\r" in data:
            # a final CR may be half a CRLF, but after a line's end it is a blank line either way
            blank = data.endswith((b"\r\r", b"\n\r"))
            held = b"\r" if data.endswith(b"\r") and not blank else b""
            self._halved = blank
            data = data.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = data.split(b"\n\n")
        self._buffer = rest + held
        self._size = len(self._buffer)
        return list(filter(None, map(_sse_event, blocks)))

    def eof(self) -> list[ServerSentEvent]:
        """An event that lacks only its blank line at the end of the stream counts as whole."""
        rest = b"".join((self._buffer, *self._more)).strip(b"\r\n")
        self._buffer, self._more = b"", []
        event = _sse_event(rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")) if rest else None
        return [event] if event else []


def _sse_event(block: bytes) -> ServerSentEvent | None:
    first, _, last = block.partition(b"\n")
    if not last and first.startswith(b"data:"):  # the usual events in one step each
        return ServerSentEvent("", first[5:].removeprefix(b" "))
    if first.startswith(b"event:") and last.startswith(b"data:") and b"\n" not in last:
        name = first[6:].removeprefix(b" ").decode(errors="replace")
        return ServerSentEvent(name, last[5:].removeprefix(b" "))
    name, lines = "", list[bytes]()
    for line in block.split(b"\n"):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"data":
            lines.append(value)
        elif key == b"event":
            name = value.decode(errors="replace")
    return ServerSentEvent(name, b"\n".join(lines)) if lines else None


def sse(data: JSON, event: str = "") -> bytes:
    """One event as bytes."""
    body = b"data: " + dumps(data) + b"\n\n"
    return b"event: " + event.encode() + b"\n" + body if event else body


def form_of(said: bytes) -> bytes:
    """JSON with holes, as a template for `%`: a %b for each `HOLE`.

    A long answer is thousands of deltas that differ in one text; the rest is rendered once.
    """
    return said.replace(b"%", b"%%").replace(dumps(HOLE), b"%b")


HOLE: Final = "\0relay\0"  # a string that occurs nowhere else


def holds_any(data: bytes, marks: Iterable[bytes]) -> bool:
    """Does it hold one of these?  Asked of every block of a stream, hence the quick way: rfind
    takes half as long as `in`, and a loop a third as long as any()."""
    for mark in marks:  # noqa: SIM110
        if data.rfind(mark) >= 0:
            return True
    return False


def sse_of(data: object, event: str) -> bytes:
    """Any value as one event."""
    return b"event: " + event.encode() + b"\ndata: " + dumps(data) + b"\n\n"


def whole_events(data: bytes) -> int:
    """Where the last complete event in these bytes ends."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    ends = [data.rfind(mark) + len(mark) for mark in _BLANK_LINES if mark in data]
    return max(ends, default=0)


_BLANK_LINES: Final = (b"\r\n\r\n", b"\n\n", b"\r\r")


# ==== 4. Conversation =========================================================
# A client's history, put in order before it is translated.  Pairing and merging are the same for
# every target, so they are done once, here, on the hub's own types.  Everything is a function of
# the conversation alone: request n stays a prefix of request n+1, and prefixes are what a
# provider's prompt cache knows a prompt by.


def repaired(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The same conversation in the one order that every dialect can express.

    1. Neighbouring turns of one role become one turn.
    2. The turn after tool calls begins with exactly one result per call, in the calls' order; a
       missing result is filled in as an error, a result without its call becomes text.
    3. A system message between calls and their results moves after the results.
    4. Every call has an id of its own: Anthropic refuses one that was there before, and some
       servers count from 0 in every answer.
    """
    turns: list[Message] = []
    owed: tuple[str, ...] = ()
    for turn in _turns(messages):
        if turn.role == "user":
            turns.append(_answered(turn, owed))
        elif owed:
            turns += [_answered(Message("user", ()), owed), turn]
        else:
            turns.append(turn)
        owed = tuple(p.id for p in turn.parts if isinstance(p, ToolCall))
    if owed:
        turns.append(_answered(Message("user", ()), owed))
    return _told_apart(turns)


def _turns(messages: Iterable[Message]) -> list[Message]:
    turns, held = list[Message](), list[Message]()
    for message in messages:
        last = turns[-1] if turns else None
        if message.role == "system" and last and _calls(last):
            held.append(message)
        elif last and last.role == message.role != "system":
            turns[-1] = Message(last.role, last.parts + message.parts)
        else:
            turns += [message, *held] if message.role == "user" else [*held, message]
            held = []
    return turns + held


def _told_apart(turns: Sequence[Message]) -> tuple[Message, ...]:
    """With new ids for calls whose id was there before, and for their results."""
    calls = [part.id for turn in turns for part in turn.parts if isinstance(part, ToolCall)]
    if len(set(calls)) == len(calls):
        return tuple(turns)
    seen, owed, apart = set[str](), list[str](), list[Message]()
    for turn in turns:
        results = iter(owed)  # which stand in the calls' order
        owed = []
        parts: list[Part] = []
        for part in turn.parts:
            if isinstance(part, ToolCall):
                owed.append(_new_id(part.id, seen))
                part = replace(part, id=owed[-1])
            elif isinstance(part, ToolResult):
                part = replace(part, call_id=next(results, part.call_id))
            parts.append(part)
        apart.append(Message(turn.role, tuple(parts)))
    return tuple(apart)


def _new_id(id: str, seen: set[str]) -> str:
    tries = itertools.chain((id,), (f"{id}_{number}" for number in itertools.count(2)))
    new = next(each for each in tries if each not in seen)
    seen.add(new)
    return new


def _calls(message: Message) -> bool:
    return any(isinstance(part, ToolCall) for part in message.parts)


def _answered(turn: Message, owed: Sequence[str]) -> Message:
    """A user turn whose results answer exactly the calls that are `owed` one."""
    ids = [part.call_id if isinstance(part, ToolResult) else None for part in turn.parts]
    if ids == [*owed, *(len(ids) - len(owed)) * [None]]:  # as it should be
        return turn
    results = [p for p in turn.parts if isinstance(p, ToolResult)]
    given: dict[str, list[ToolResult]] = {}
    for result in results:
        given.setdefault(result.call_id, []).append(result)
    missing = (ToolResult(id, (Text(_NO_RESULT),), True) for id in owed)
    first = [given[none.call_id].pop(0) if given.get(none.call_id) else none for none in missing]
    kept = {id(result) for result in first}
    rest = [part for part in turn.parts if id(part) not in kept]
    return Message("user", (*first, *(p for part in rest for p in _orphaned(part))))


_NO_RESULT: Final = "(no result was recorded for this call)"


def _orphaned(part: Part) -> tuple[Part, ...]:
    """A result whose call is gone (after a compaction, say) is still worth reading."""
    if not isinstance(part, ToolResult):
        return (part,)
    return (Text(f"[result of tool call {part.call_id}]"), *part.parts)


def leading(messages: Sequence[Message]) -> int:
    """How many system messages come first: the system prompt."""
    return next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))


def fitted(name: str, pattern: re.Pattern[str]) -> str:
    """`name` in a form that the target accepts.

    A name that has to change gets a hash of the whole, so two names that would become the same
    text stay distinct; and the result depends on nothing else, so it is the same on every turn.
    """
    if pattern.fullmatch(name):
        return name
    mark = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    clean = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:52] + "_" + mark
    # Moonshot's names do not begin with a digit; a pattern for nine characters is Mistral's
    tries = (clean, "t_" + clean, (mark + "0")[:9])
    return next((name for name in tries if pattern.fullmatch(name)), clean)


def suited(
    request: Request, names: re.Pattern[str], ids: re.Pattern[str]
) -> tuple[Request, dict[str, str]]:
    """The request with tool names and call ids that a target accepts, and how to map names back.

    Usually all of them fit, and the request is returned as it is.
    """
    choice = request.tool_choice
    said = [part for message in request.messages for part in message.parts]
    calls = [part for part in said if isinstance(part, ToolCall)]
    results = [part.call_id for part in said if isinstance(part, ToolResult)]
    offered = [tool.name for tool in request.tools] + [*(choice.names if choice else ())]
    name_of = _changed({*offered, *(call.name for call in calls)}, names)
    id_of = _changed({*results, *(call.id for call in calls)}, ids)
    if not name_of and not id_of:
        return request, {}

    def part_of(part: Part) -> Part:
        if isinstance(part, ToolCall):
            id, name = id_of.get(part.id, part.id), name_of.get(part.name, part.name)
            return ToolCall(id, name, part.text)
        if isinstance(part, ToolResult):
            return replace(part, call_id=id_of.get(part.call_id, part.call_id))
        return part

    chosen = tuple(name_of.get(name, name) for name in choice.names) if choice else ()
    fits = replace(
        request,
        tools=tuple(replace(t, name=name_of.get(t.name, t.name)) for t in request.tools),
        tool_choice=choice and replace(choice, names=chosen),
        messages=tuple(Message(m.role, tuple(map(part_of, m.parts))) for m in request.messages),
    )
    return fits, {there: name for name, there in name_of.items()}


def _changed(names: Iterable[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """The names that do not fit, and what they become."""
    return {name: fitted(name, pattern) for name in names if not pattern.fullmatch(name)}


def with_known_choice(request: Request) -> Request:
    """Without a tool choice that names a tool that is not offered, such as a server tool."""
    choice, names = request.tool_choice, {tool.name for tool in request.tools}
    if choice is None or (names and names.issuperset(choice.names)):
        return request
    dropped = (*request.dropped, "tool_choice") if choice.names else request.dropped
    return replace(request, tool_choice=None, dropped=dropped)


def offered(request: Request) -> tuple[Tool, ...]:
    """All tools, or the subset that the choice allows, for a target that cannot be told of one."""
    choice = request.tool_choice
    only = choice.names if choice and choice.mode != "named" else ()
    return tuple(tool for tool in request.tools if not only or tool.name in only)


# A seal of another dialect travels in the client's own opaque field, in an envelope that says
# whose it is.  A thought that the client does not show travels in it too: its maker wants it back.
#
#     rly1.<field>.<account>.<base64url of the value>[.<base64url of the thought>]
_ENVELOPE: Final = re.compile(
    r"rly1\.([a-z]{2})\.([0-9a-f]{8})\.([A-Za-z0-9_-]*)(?:\.([A-Za-z0-9_-]*))?"
)


def enveloped(seal: Seal | None) -> str:
    """A seal in the form in which a client of another dialect keeps it."""
    if seal is None:
        return ""
    thought = f".{_packed(seal.text)}" if seal.text else ""
    return f"rly1.{seal.field}.{seal.account or '0' * 8}.{_packed(seal.value)}{thought}"


def opened(text: str, field: str) -> Seal:
    """The seal a client sent back; without our envelope it is a `field` of a direct session."""
    if not (match := _ENVELOPE.fullmatch(text)):
        return Seal(field, text)
    return Seal(match[1], _unpacked(match[3]), match[2], _unpacked(match[4] or ""))


def _packed(text: str) -> str:
    data = text.encode(errors="surrogatepass")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpacked(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode(errors="replace")
    except ValueError:  # damaged: a seal that opens nothing
        return ""


def hidden(thought: Reasoning) -> Reasoning:
    """A thought for a client that does not show it: all of it in its seal."""
    if not thought.text:
        return thought
    return Reasoning("", replace(thought.seal or Seal("tx"), text=thought.text))


def recalled(text: str, seal: Seal | None) -> Reasoning:
    """A thought that a client sends back, shown or not."""
    if seal is None or not seal.text:
        return Reasoning(text, seal)
    return Reasoning(seal.text, replace(seal, text=""))


def without_reasoning(request: Request) -> Request:
    """For a provider that objects to reasoning it did not mint, or to telling its own.

    To an organization that is not verified OpenAI refuses summaries of what was thought.
    """
    messages = (
        Message(m.role, tuple(p for p in m.parts if not isinstance(p, Reasoning)))
        for m in request.messages
    )
    return replace(request, messages=tuple(messages), show_thoughts=None)


def estimate(request: Request) -> int:
    """About how many input tokens a request has, rounded up by a tenth.

    Rules of thumb, measured on code and prose with the makers' tokenizers' published rates:
    3.6 characters of ASCII or 1.1 wide characters (CJK, emoji) a token; pictures by their
    area; 4 tokens around every turn and 8 around every tool.  In UTF-8 a wide character has
    three bytes, so that 3.6 bytes a token are about right for a schema in any language.
    """
    parts = [part for message in request.messages for part in message.parts]
    results = [part for part in parts if isinstance(part, ToolResult)]
    parts += [part for result in results for part in result.parts]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    texts = [part.text for part in parts if isinstance(part, _TEXTS)]
    texts += [call.name for call in calls]
    texts += [text for tool in request.tools for text in (tool.name, tool.description)]
    count = 4.0 * len(request.messages) + 6 * len(results) + 8 * (len(calls) + len(request.tools))
    count += sum(map(_text_tokens, texts))
    count += sum(_media_tokens(part) for part in parts if isinstance(part, Media))
    count += len(dumps([tool.schema for tool in request.tools])) / 3.6
    return math.ceil(count * 1.1)


_TEXTS: Final = (Text, Reasoning, ToolCall)


def _text_tokens(text: str) -> float:
    if text.isascii():
        return len(text) / 3.6
    some = text[:: len(text) // _SAMPLE | 1]
    wide = (len(some.encode(errors="replace")) / len(some) - 1) / 2  # three bytes for most
    return len(text) * ((1 - min(wide, 1)) / 3.6 + wide / 1.1)


_SAMPLE: Final = 256  # characters by which a text that is longer is judged


def _media_tokens(media: Media) -> float:
    if media.kind == "text":
        return _text_tokens(media.data)
    if media.kind == "image":
        width, height = image_size(media.data)
        scale = min(1.0, 1568 / max(width, height, 1))  # Anthropic scales the longer edge down
        return max(85.0, width * scale * height * scale / 750)
    return max(1500.0, len(media.data) * 0.75 / 50)  # a page of PDF: 75 KB, 1,500 tokens


def image_size(data: str) -> tuple[int, int]:
    """Width and height from the header of a base64 picture; 1024 x 1024 if it does not say."""
    try:
        head = base64.b64decode(data[:4096] + "=" * (-len(data[:4096]) % 4))
    except ValueError:  # not base64, or not even ASCII
        return 1024, 1024
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(b"GIF8") and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if frame := re.search(rb"\xff[\xc0-\xc2]..\x08(..)(..)", head, re.DOTALL):  # JPEG SOF0-SOF2
        return int.from_bytes(frame[2], "big"), int.from_bytes(frame[1], "big")
    return 1024, 1024


# A picture's type by its first base64 characters; clients mislabel, and Anthropic checks.
_MAGIC: Final = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "JVBERi0": "application/pdf",
}


def mime_of(data: str, declared: str) -> str:
    """The media type of base64 data: as recognised, else as declared."""
    seen = next((mime for magic, mime in _MAGIC.items() if data.startswith(magic)), "")
    return seen or declared.lower().replace("image/jpg", "image/jpeg")


def media_from_url(url: str, name: str = "", kind: Literal["image", "document"] = "image") -> Media:
    """A web address or an RFC 2397 data URL as media."""
    if not url.startswith("data:"):
        return Media(kind, url=url, name=name)
    head, _, payload = url[5:].partition(",")
    mime, *options = head.split(";")
    data = payload
    if "base64" not in (option.strip().lower() for option in options):
        data = base64.b64encode(urllib.parse.unquote_to_bytes(payload)).decode()
    mime = mime_of(data, mime or "text/plain")
    if mime.startswith("text/"):
        return Media("text", "text/plain", base64_text(data), name=name)
    return Media("image" if mime.startswith("image/") else "document", mime, data, name=name)


def base64_text(data: str) -> str:
    """The text in base64, or the text itself if it is not encoded."""
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4)).decode(errors="replace")
    except ValueError:
        return data


def rooted(schema: JSON) -> JSON:
    """A tool's schema with a root that every provider accepts: an object."""
    properties = schema.get("properties")
    known = isinstance(properties, dict)
    if known and schema.get("type") == "object" and _SCHEMA_NOTES.isdisjoint(schema):
        return schema
    kept = {name: value for name, value in schema.items() if name not in _SCHEMA_NOTES}
    return kept | {"type": "object", "properties": properties if known else {}}


_SCHEMA_NOTES: Final = frozenset(("$schema", "$id", "$comment"))


def data_url(media: Media) -> str:
    return media.url or f"data:{media.mime};base64,{media.data}"


# ==== 5. Dialect ==============================================================
# The shape of a wire format, and the grammar of its streams.  A dialect is stateless; the
# coders it makes hold a stream's state.  Coders do no I/O: bytes in, events out, bytes out.
#
# Decoders are total: whatever the bytes, what comes out is a sentence of the grammar of
# section 2.  They make only the moves of `StreamDecoder`, which mend what providers do wrong:
#
#     move     a dialect means        and need not care whether
#     _start   the answer begins      that came twice, or never
#     _part    a part begins          the one before was closed; another call is still open
#     _delta   more of a part         the part waits for its turn, or is over
#     _more    the same               the part has begun
#     _close   a part is over         others wait for it
#     _end     the answer is whole    the finish reason contradicts the content
#     _fail    it broke               something is still open
#
# Tool calls may arrive interleaved, but clients accept one block at a time.  So one call is live
# and streams on; fragments of others wait, each in its own list, and follow whole when the live
# call ends: at its own end, at a part of another kind, or at the end of the answer.  A call that
# begins when the live one's arguments are complete JSON closes it, so that in the usual order,
# one call after the other, nothing has to wait.


@frozen(kw_only=True)
class Quirks:
    """What one platform wants differently, in any dialect; each dialect adds fields of its own.

    `drop`, `rename`, `fixed` and `clamp` act on every body of the dialect, one that passes
    through included; the rest says how a translated request is written.
    """

    drop: tuple[str, ...] = ()  # dotted paths it does not know
    rename: Mapping[str, str] = field(default_factory=dict)  # top-level names
    fixed: Mapping[str, Any] = field(default_factory=dict)  # always set to this
    clamp: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    efforts: Mapping[str, str] = field(default_factory=dict)  # its words for these; {}: the same
    tool_name: str = r"[a-zA-Z0-9_-]{1,64}"  # full match
    call_id: str = ""  # full match, too; "": the dialect's
    tool_strict: Literal["as_is", "drop", "false"] = "as_is"
    service_tiers: tuple[str, ...] = ()  # of the hub's words, those it sells
    count_tokens: bool = False  # serves the endpoint that counts a request's tokens


_NAME: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")


# What may be raised by reading something malformed.
UNREADABLE: Final = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    RelayError,
)


class Peek(NamedTuple):
    """What routing needs to know of a request.

    `variant` is the dialect's own word for a special kind of request: a stream as a JSON array,
    a compaction.  "" is the usual kind.
    """

    model: str
    stream: bool
    variant: str = ""


class Asked(NamedTuple):
    """What has to be known of a request to answer it."""

    model: str  # as the client said it
    id: str  # the request's own, where the provider gave the answer none
    tokens: int = 0  # about how long the prompt is
    now: int = 0  # seconds since the epoch
    usage: bool = True  # is a stream to end with token counts?
    variant: str = ""  # of `Peek`
    shown: bool = True  # is the client shown what was thought?
    stops: tuple[str, ...] = ()  # where relay has to end the text, for the provider does not
    echo: Mapping[str, Any] = {}  # what the answer repeats of the request
    forms: Mapping[str, str] = {}  # tool name -> `Tool.form`, of those that have one

    def counted(self, usage: Usage) -> Usage:
        """The provider's counts, with the estimate where it did not count the input."""
        return usage if usage.input else replace(usage, input=self.tokens)


class Rendered(NamedTuple):
    """A request in a target's dialect, and what that dialect cannot express."""

    body: JSON
    dropped: tuple[str, ...]
    stops: tuple[str, ...] = ()  # the stop sequences it does not take: relay cuts the answer there


def true_finish(finish: FinishReason, called: bool) -> FinishReason:
    """Length and filter are believed; otherwise the content decides, not what is claimed."""
    if finish in ("length", "content_filter", "context_length", "pause"):
        return finish
    if called:
        return "tool_calls"
    return "stop" if finish == "tool_calls" else finish


def sound(response: Response) -> Response:
    """A whole answer made fit to be rendered; TypeError if it holds what no answer can.

    Calls whose id is missing or a duplicate get one, and the finish reason is worked out.
    """
    id, model, detail = response.id, response.model, response.detail
    _only_text(id, model, detail)
    parts, seen = list[OutputPart](), set[str]()
    for part in response.parts:
        _only_text(part.text)
        if isinstance(part, ToolCall):
            _only_text(part.name)
            part = ToolCall(call_id(part.id, seen, id), part.name, part.text)
        parts.append(part)
    finish = true_finish(response.finish, bool(seen))
    return Response(id, model, tuple(parts), finish, response.usage, detail)


def _only_text(*values: object) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"expected text, got {shown(value)}")


def call_id(id: str, seen: set[str], answer: str) -> str:
    """A call's id, or one made for it; unique in the answer, and over the conversation."""
    if not id or id in seen:
        _only_text(id, answer)
        mark = hashlib.sha256(f"{answer}\0{len(seen)}".encode(errors="replace")).hexdigest()
        id = f"call_{mark[:12]}"
    seen.add(id)
    return id


class StreamDecoder(ABC):
    """A provider's bytes to events.  `feed` and `eof` never raise, whatever the bytes."""

    def __init__(self) -> None:
        self.ended = False
        self._sse = SSEDecoder()
        self._said: list[Event] = []  # what the moves have made since it was last taken
        self._begun = False
        self._live: _Live | None = None
        self._waiting: dict[object, _Live] = {}
        self._closed: set[object] = set()  # of those waiting, the ones whose end has come
        self._torn = b""  # an event's JSON that may continue in the next event
        self.acted = False  # did something begin that the hub cannot express?
        self._id = ""
        self._ids: set[str] = set()
        self._parts = self._calls = self._torn_calls = 0
        self._finish: FinishReason | None = None
        self._detail = ""
        self._usage = Usage()

    def feed(self, data: bytes) -> list[Event]:
        try:
            self._messages(self._sse.feed(data))
        except ValueError as error:
            if not self.ended:
                self._fail(Failure(f"sent {error}", cause="transient"))
        return self._taken()

    def eof(self, reason: Failure = TRUNCATED) -> list[Event]:
        """The bytes are over: a failure for this `reason`, unless a finish reason was seen."""
        self._messages(self._sse.eof())
        if not self.ended:
            self._end() if self._finish else self._fail(reason)
        return self._taken()

    @property
    def finishing(self) -> bool:
        """Has the answer given its finish reason, if perhaps not its last event?"""
        return self._finish is not None

    def _taken(self) -> list[Event]:
        said, self._said = self._said, []
        return said

    def _messages(self, messages: Iterable[ServerSentEvent]) -> None:
        for message in messages:
            if self.ended:
                return
            try:
                self._data(message.data)
            except UNREADABLE as error:
                self._fail(Failure(f"an unreadable event: {error}", cause="transient"))

    def _data(self, data: bytes) -> None:
        """One event; some servers cut an object in two, or put two into one event."""
        if data.strip() == b"[DONE]":  # clones send it in other dialects too
            self._done()
            return
        text, self._torn = self._torn + data, b""
        try:
            wires = json_values(text) if text else ()
        except ValueError:
            if len(text) > len(data):  # neither complete nor the rest of what came before
                raise
            if text.lstrip().startswith((b"{", b"[")):  # else no JSON at all: passed over
                self._torn = text
            return
        self._objects(wires)

    def _objects(self, wires: Sequence[Any]) -> None:
        for wire in wires:
            if isinstance(wire, dict):
                if not self.ended:
                    self._object(wire)
            elif isinstance(wire, list):  # Google's errors on some paths, without alt=sse all of it
                self._objects(wire)

    def _done(self) -> None:  # noqa: B027  # most dialects do nothing about it
        """[DONE] has come."""

    @abstractmethod
    def _object(self, wire: JSON) -> None:
        """Make the moves that one object of this format means; all that a dialect has to write."""

    # The moves.  A part is identified by a key of the dialect's choice (an index, a kind).

    def _start(self, id: str = "", model: str = "", usage: Usage | None = None) -> None:
        if not self._begun:
            _only_text(id, model)
            self._begun, self._id = True, id
            self._said.append(Start(id, model, usage or Usage()))

    def _part(self, key: object, part: OutputPart) -> None:
        """A part begins.  While a tool call's arguments still come, it waits for its turn."""
        if key in self._waiting or (self._live and self._live.key == key):
            return
        self._closed.discard(key)
        self._parts += 1
        if isinstance(part, ToolCall):
            _only_text(part.name)
            part = replace(part, id=call_id(part.id, self._ids, self._id))
        fresh, live = _Live(key, part), self._live
        if live and isinstance(live.part, ToolCall) and (self._waiting or not live.is_complete()):
            self._waiting[key] = fresh
            return
        self._close_all()
        self._begin(fresh)

    def _delta(self, key: object, text: str) -> None:
        """More of a part; what comes after the part was closed is dropped."""
        if type(text) is not str:
            _only_text(text)
        live = self._live
        if live and live.key == key:
            if isinstance(live.part, ToolCall):
                live.texts.append(text)
            if text:
                self._said.append(PartDelta(text))
        elif key in self._waiting:
            self._waiting[key].texts.append(text)

    def _more(self, key: object, part: OutputPart, text: str) -> None:
        """More of a part, which begins now if it is not the one that is open."""
        if not self._live or self._live.key != key:
            self._part(key, part)
        self._delta(key, text)

    def _close(self, key: object, seal: Seal | None = None) -> None:
        """A part is over: the next one waiting has its turn."""
        if key in self._waiting:
            self._closed.add(key)
        if not self._live or self._live.key != key:
            return
        if isinstance(self._live.part, ToolCall):
            whole = self._live.is_complete() or not any(self._live.texts)
            self._calls, self._torn_calls = self._calls + whole, self._torn_calls + (not whole)
        self._live = None
        self._said.append(PartEnd(seal))
        while self._waiting and not self._live:
            following = self._waiting.pop(next(iter(self._waiting)))
            self._begin(following)
            if following.key in self._closed:
                self._close(following.key)

    def _end(self, reason: FinishReason | None = None) -> None:
        if not (reason or self._finish or self._parts):
            self._fail(Failure("sent an empty answer", cause="transient"))
            return
        self._start()
        self._close_all()
        self.ended = True
        finish = true_finish(reason or self._finish or "stop", self._calls > 0)
        if finish == "stop" and self._torn_calls:  # a call was cut off: it must not be run
            finish = "length"
        self._said.append(Finish(finish, self._usage, self._detail))

    def _fail(self, failure: Failure) -> None:
        self._close_all()
        self.ended = True
        self._said.append(failure)

    def _begin(self, live: _Live) -> None:
        self._live = live
        self._start()
        self._said.append(PartStart(live.part))
        self._said += [PartDelta(text) for text in live.texts if text]

    def _close_all(self) -> None:
        while self._live:
            self._close(self._live.key, self._seal())

    def _seal(self) -> Seal | None:
        """The seal of the open part, which is closed because something else begins."""
        return None


class _Live:
    """A part that is open or waits to be; for a tool call, with its arguments so far."""

    __slots__ = ("key", "part", "texts")

    def __init__(self, key: object, part: OutputPart) -> None:
        self.key = key
        self.part = part
        self.texts: list[str] = []

    def is_complete(self) -> bool:
        try:
            values = json_values("".join(self.texts).encode(errors="surrogatepass"))
        except ValueError:
            return False
        return bool(values) and all(isinstance(value, dict) for value in values)


class StreamEncoder(Protocol):
    """Events to a client's bytes: every return value is whole wire events."""

    def encode(self, event: Event) -> bytes: ...

    def alive(self) -> bytes:
        """Bytes without meaning, for silence: they reset the client's idle timer."""


class Dialect(ABC):
    """One wire format.  The attributes are facts of the format; the methods are pure."""

    name: ClassVar[str]  # the word used in config
    path: ClassVar[str]  # to post to, relative to a base without a version segment
    versioned: ClassVar[str] = r"/v\d+[a-z0-9]*$"  # matches a base that has one
    list_path: ClassVar[str] = "/models"  # of the provider's list of models, relative to the base
    purposes: ClassVar[Mapping[str, str]]  # clients' paths, without version -> answer | count
    auth: ClassVar[str]  # how it carries a credential, a key of AUTH_STYLES
    call_id: ClassVar[str]  # what a tool call's id may be
    quirks: ClassVar[type[Quirks]]  # what platforms may want differently
    # Every stream event that a meter must read holds one of these.  A search for them is exact:
    # inside a JSON string the quotes would be escaped.
    marks: ClassVar[tuple[bytes, ...]]
    error_types: ClassVar[Mapping[str, str]]  # `RelayError.kind` -> this format's word
    headers: ClassVar[Mapping[str, str]] = {}  # a provider needs them; the client's win
    names_model: ClassVar[bool] = True  # does the body say which model is meant?
    forwards: ClassVar[bool] = False  # do its providers serve embeddings, images and such?
    turns: ClassVar[str]  # the key of the conversation's turns, oldest first
    output_limits: ClassVar[tuple[str, ...]]  # dotted paths of the limit on the answer's tokens
    uncounted: ClassVar[frozenset[str]] = frozenset()  # keys that the counting endpoint refuses
    tells_breaks: ClassVar[bool] = True  # can it tell of a break after content?
    telling: ClassVar[tuple[bytes, ...]] = ()  # without these in a body, `peek` needs scalars only
    converted: ClassVar[frozenset[str]] = frozenset()  # variants that no provider streams
    modes: ClassVar[frozenset[str]] = frozenset()  # query parameters that `address` sets itself

    @abstractmethod
    def claims(self, wire: JSON) -> bool:
        """Is this object, a whole answer or a stream event, in this format?"""

    @abstractmethod
    def is_answer(self, wire: JSON) -> bool:
        """Is this object, which is in this format, an answer and not a failure or empty?"""

    # Addresses

    def serves(self, path: str) -> str:
        """What a client's POST to this path (without version) asks for: answer, count, or ""."""
        return self.purposes.get(path, "")

    def address(self, url: str, model: str, stream: bool, variant: str = "") -> str:
        """The URL to ask a provider at, from its endpoint's, which may hold {model}."""
        return url.replace("{model}", urllib.parse.quote(model, safe=""))

    def counting(self, url: str) -> str:
        """The URL at which the provider of this one counts a request's tokens; "" if it cannot."""
        return ""

    # A request

    def peek(self, body: JSON, address: str) -> Peek:
        """Model and mode; BadRequest if there is no model.  `address`: raw path and query."""
        wire = Wire(body)
        model = wire.need("model", str)
        if not 0 < len(model) <= 256 or not _NAME.fullmatch(model):
            raise BadRequest("model: expected a name of up to 256 visible characters")
        return Peek(model, bool(wire.want("stream", bool)))

    def restreamed(self, body: JSON, stream: bool) -> JSON:
        """The body changed to ask for a stream, or for a whole answer."""
        return without(body, ["stream_options"]) | {"stream": stream}

    def echoed(self, body: JSON) -> JSON:
        """What an answer of this format repeats of the client's request."""
        return {}

    @abstractmethod
    def parse_request(self, body: JSON, variant: str = "") -> Request:
        """A client's request; BadRequest says what is wrong with it and where."""

    @abstractmethod
    def render_request(self, request: Request, quirks: Any, account: str) -> Rendered:
        """A repaired request in this format, for a provider with these quirks (of `quirks`)."""

    def cleaned(self, body: JSON, quirks: Any, account: str, strip: bool) -> JSON:
        """A client's body in this format without what this provider must not see.

        That is what the client means for the format's maker alone, and reasoning sealed by
        another account; with `strip`, all reasoning of earlier turns, for a provider that
        objected to it.  The very same object if there is nothing to take out.
        """
        return body

    def is_clean(self, raw: bytes, quirks: Any) -> bool:
        """Do the bytes alone show that `cleaned`, without `strip`, has nothing to take out?"""
        return False

    # An answer: whole, streamed, or an error

    @abstractmethod
    def parse_response(self, wire: JSON) -> Response:
        """A whole answer; raises one of UNREADABLE if it is malformed."""

    @abstractmethod
    def render_response(self, response: Response, asked: Asked) -> JSON: ...

    @abstractmethod
    def parse_usage(self, wire: JSON) -> Usage | None:
        """The token counts in a whole answer or in one stream event, if it has any."""

    def failure_in(self, wire: JSON) -> Failure | None:
        """The failure that an object of this format tells of, if it does."""
        return failure_in(wire) if wire.get("error") else None

    @abstractmethod
    def is_end(self, data: bytes) -> bool:
        """Does this event give the finish reason?  A break after it is no failure."""

    @abstractmethod
    def is_last(self, data: bytes) -> bool:
        """Is it the event after which nothing follows?"""

    @abstractmethod
    def render_error(self, error: RelayError, request_id: str) -> JSON: ...

    def error_event(self, error: RelayError, request_id: str, variant: str = "") -> bytes:
        """The error as the last event of a stream."""
        return sse(self.render_error(error, request_id))

    def stream_type(self, variant: str) -> str:
        return "text/event-stream"

    def passes(self, error: UpstreamError) -> bool:
        """May a provider's error in this format reach a client unchanged?"""
        return True

    def status(self, error: RelayError) -> int:
        return error.status

    @abstractmethod
    def decoder(self) -> StreamDecoder: ...

    @abstractmethod
    def encoder(self, asked: Asked) -> StreamEncoder: ...

    def render_count(self, tokens: int) -> JSON:
        """The answer to a client that asked for a count; of a dialect that serves it."""
        raise NotFound(f"{self.name} has no endpoint that counts tokens")

    def parse_count(self, wire: JSON) -> int:
        """A provider's count, in a dialect that has `counting`; raises one of UNREADABLE."""
        raise LookupError("no count")

    @abstractmethod
    def render_models(self, models: Sequence[Listed]) -> JSON: ...

    def render_model(self, model: Listed) -> JSON:
        """One entry of the list, asked for by itself."""
        return cast(JSON, self.render_models([model])["data"][0])


@frozen
class Listed:
    """An entry of the model list: a name that clients can use."""

    name: str
    context: int | None = None
    output: int | None = None
    title: str = ""  # what people are shown, if it is not the name


# Where a format cannot ask for "any JSON object", the prompt has to.
JSON_ONLY: Final = "Answer with one JSON object and nothing else."


def lost(request: Request, *names: str) -> list[str]:
    """Those of these fields that the client has set, for a format that cannot express them."""
    return [name for name in names if getattr(request, name)]


def whole_number(value: object) -> int:
    """A count as providers send it: 12, 12.0, null or absent."""
    return int(value) if isinstance(value, (int, float)) and 0 < value < math.inf else 0


def failure_in(wire: JSON) -> Failure | None:
    """The error an object carries, in any of the shapes providers use; None if it has none.

    {"error": {...}} (OpenAI, Anthropic, Gemini), {"error": "text"} (TGI, xAI), {"base_resp":
    {"status_code": 1008}} (MiniMax, in a 200), {"code": 20012, "message": ...} (SiliconFlow),
    {"object": "error", ...} (Mistral), {"detail": ...} (FastAPI).
    """
    error = wire.get("error")
    if isinstance(error, str) and error:
        code = wire.get("code") or wire.get("error_code")
        return Failure(error, word_of(code), word_of(wire.get("error_type")))
    if isinstance(error, dict):
        return _failure_object(error)
    base = wire.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return Failure(word_of(base.get("status_msg")), word_of(base["status_code"]))
    code, message = wire.get("code") or wire.get("error_code"), wire.get("message")
    message = message or wire.get("error_msg")
    if wire.get("object") == "error" or "error_code" in wire or (code and message):
        return Failure(word_of(message), word_of(code), word_of(wire.get("type")))
    if "detail" in wire:
        detail = wire["detail"]
        return Failure(detail if isinstance(detail, str) else dumps(detail).decode())
    return None


def _failure_object(error: JSON) -> Failure:
    kind = error.get("type") or error.get("status") or error.get("error_type")
    extra = {name: error[name] for name in ("details", "metadata") if error.get(name)}
    message = word_of(error.get("message")) or dumps(error).decode()
    code = error.get("code") or error.get("error_code")
    return Failure(
        message, word_of(code), word_of(kind), extra=dumps(extra).decode() if extra else ""
    )


def word_of(value: object) -> str:
    return "" if value is None else str(value)


def error_of(failure: Failure) -> UpstreamError:
    """A failure that no rule has classified yet, as an error to render."""
    return UpstreamError(failure.cause or "transient", failure.message)


# What OpenAI's two formats share: they are two ways into one API, with one kind of credential, one
# error object, one list of models, and the same names for the end user.


class OpenAIDialect(Dialect):
    auth = "bearer"
    forwards = True
    error_types: ClassVar = {
        "bad_request": "invalid_request_error",
        "context_length": "invalid_request_error",
        "auth": "invalid_request_error",
        "billing": "api_error",
        "budget": "insufficient_quota",
        "permission": "permission_error",
        "not_found": "invalid_request_error",
        "model_not_found": "invalid_request_error",
        "too_large": "invalid_request_error",
        "unimplemented": "invalid_request_error",
        "rate_limit": "rate_limit_error",
        "timeout": "timeout",
    }
    error_codes: ClassVar = {
        "context_length": "context_length_exceeded",
        "auth": "invalid_api_key",
        "budget": "insufficient_quota",
        "model_not_found": "model_not_found",
        "rate_limit": "rate_limit_exceeded",
    }

    def render_error(self, error: RelayError, request_id: str) -> JSON:
        kind = self.error_types.get(error.kind, "server_error")
        code = self.error_codes.get(error.kind)
        return {"error": {"message": error.message, "type": kind, "param": None, "code": code}}

    def render_models(self, models: Sequence[Listed]) -> JSON:
        data = [
            {"id": m.name, "object": "model", "created": 0, "owned_by": "relay"}
            | ({"context_length": m.context} if m.context else {})
            for m in models
        ]
        return {"object": "list", "data": data}


# A freeform (custom) tool as a function: Codex's apply_patch, whose input is a patch, not JSON.
FREEFORM: Final[JSON] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def freeform(description: str, format: Wire) -> str:
    """What a freeform tool is for, as a function's description: its input is not JSON."""
    grammar = format.want("definition", str)
    said = f"{description}\n\n`input` is the whole text, as it is: not JSON, not quoted."
    if grammar:
        said += f" It has to fit this grammar ({format.want('syntax', str)}):\n\n{grammar}"
    return said


def freely(input: str) -> str:
    """The input of a freeform tool's call as the arguments of the function that stands for it."""
    return dumps({"input": input}).decode()


class FreeText:
    """The text in {"input": "..."}, while the JSON around it comes in pieces."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._left = ""  # not read yet
        self._state: Literal["before", "inside", "behind"] = "before"

    def feed(self, piece: str) -> str:
        if self._state == "behind":
            return ""
        self._left += piece
        if self._state == "before":
            if head := _FREE_HEAD.match(self._left):
                self._state, self._left = "inside", self._left[head.end() :]
            elif len(self._left) > 64:  # something else: it is sent at the end
                self._state = "behind"
        return self._inside() if self._state == "inside" else ""

    def _inside(self) -> str:
        read = _FREE_TEXT.match(self._left)
        text = read[0] if read else ""
        self._left = self._left[len(text) :]
        if self._left.startswith('"') or len(self._left) > 12:  # the end, or not JSON
            self._state = "behind"
        return self._say(json.loads(f'"{text}"', strict=False))

    def rest(self, arguments: str) -> str:
        """What is missing at the end; a model may leave out the wrapper, or name it differently."""
        value, told = parse_object(arguments), self.text()
        texts = [v for v in (value or {}).values() if isinstance(v, str)]
        whole = value.get("input") if value else None
        if not isinstance(whole, str):
            whole = texts[0] if len(texts) == 1 else told or arguments
        return self._say(whole.removeprefix(told) if whole.startswith(told) else "")

    def text(self) -> str:
        return "".join(self._said)

    def _say(self, text: str) -> str:
        self._said.append(text)
        return text


_FREE_HEAD: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
# Up to the closing quote or half an escape; half a surrogate pair waits for the other half.
_FREE_TEXT: Final = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4}|(?=[^\\]|\\[^u])))*"
)


def detailed(image: Media, detail: str) -> Media:
    """An image with the client's word for how closely to look at it; `auto` is none."""
    return image if detail == "auto" else replace(image, detail=detail)


def openai_audio(media: Media) -> JSON:
    """A sound, with the name of its format: OpenAI knows wav and mp3."""
    kind = media.mime.partition(";")[0].removeprefix("audio/").removeprefix("x-")
    return {"data": media.data, "format": {"mpeg": "mp3", "wave": "wav"}.get(kind, kind)}


def openai_identity(request: Request, names: Iterable[str]) -> JSON:
    """Names of the user and of the conversation, hashed: their limits are 64 characters."""
    known = {
        "user": request.user,
        "safety_identifier": request.user,
        "prompt_cache_key": request.session,
    }
    said = {name: known[name].encode(errors="replace") for name in names if known[name]}
    return {name: hashlib.sha256(text).hexdigest()[:32] for name, text in said.items()}


# ==== 6. Dialect: Anthropic Messages ==========================================
# https://docs.anthropic.com/en/api/messages and the types of the anthropic SDK.
# Turns are lists of blocks in order; a tool's input is an object; thinking blocks carry a
# signature bound to the account that minted it; input tokens are counted without the cached
# ones.  A stream is
#
#     message_start
#     (content_block_start  content_block_delta*  content_block_stop)*     one at a time
#     message_delta         the stop reason, and the counts, which replace the earlier ones
#     message_stop
#
# with pings anywhere after the start, or an `error` event and nothing after it.  It needs its
# `event:` lines: the official SDK ignores frames without one, and Claude Code then repeats every
# request without streaming.  A tool's input comes in deltas only; a signature comes last.

_ANTHROPIC_FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
}
_ANTHROPIC_REASON: Final = (b'"stop_reason":"', b'"stop_reason": "')
_ANTHROPIC_STOP: Final[dict[FinishReason, str]] = {
    finish: stop for stop, finish in _ANTHROPIC_FINISH.items()
}
_ANTHROPIC_TIERS: Final = {"auto": "auto", "default": "standard_only"}
_TIER_OF_ANTHROPIC: Final = {word: tier for tier, word in _ANTHROPIC_TIERS.items()}
# Claude Code's first system block.  It differs from session to session (and once did from
# request to request), so every provider that hashes prefixes misses its cache because of it.
ATTRIBUTION: Final = "x-anthropic-billing-header:"
# The key under which a content_block_delta of each type carries its text, by kind of part.
_ANTHROPIC_DELTA: Final[dict[type, tuple[str, str]]] = {
    Text: ("text_delta", "text"),
    Reasoning: ("thinking_delta", "thinking"),
    ToolCall: ("input_json_delta", "partial_json"),
}
_ANTHROPIC_REQUEST: Final = frozenset(
    "model max_tokens messages system tools tool_choice thinking output_config output_format"
    " stop_sequences temperature top_p top_k stream metadata cache_control service_tier".split()
)
# cache_control only says where a prefix may be cached, which other providers find themselves.
_ANTHROPIC_BLOCK: Final = frozenset(
    "type text source title context citations transformations cache_control thinking signature"
    " data id name input caller tool_use_id content is_error tool_name".split()
)
_ANTHROPIC_TOOL: Final = frozenset(
    # the later ones say when and how a tool is loaded, which means nothing elsewhere (Claude Code)
    "name description input_schema type strict cache_control defer_loading input_examples"
    " eager_input_streaming allowed_callers".split()
)
# Tools that Anthropic defines and the client runs: their parameters, for models that were not
# trained on them.  Server tools have no counterpart elsewhere.
_ANTHROPIC_TYPED: Final[dict[str, JSON]] = {
    "bash": {"command": {"type": "string"}, "restart": {"type": "boolean"}},
    "text_editor": {
        "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
        "path": {"type": "string"},
        "file_text": {"type": "string"},
        "old_str": {"type": "string"},
        "new_str": {"type": "string"},
        "insert_line": {"type": "integer"},
        "insert_text": {"type": "string"},
        "view_range": {"type": "array", "items": {"type": "integer"}},
    },
    "memory": {
        "command": {"type": "string"},
        "path": {"type": "string"},
        "file_text": {"type": "string"},
        "old_str": {"type": "string"},
        "new_str": {"type": "string"},
        "insert_line": {"type": "integer"},
        "insert_text": {"type": "string"},
        "old_path": {"type": "string"},
        "new_path": {"type": "string"},
    },
}


@frozen
class _Claude:
    """What a generation of models accepts; anything more is answered with a 400."""

    adaptive: bool = False  # thinking: adaptive with an effort, instead of a budget; no prefill
    sampling: bool = True  # temperature and its like
    both: bool = True  # temperature together with top_p
    max_tokens: int = 32000  # the field is required; this is used if a client left it out
    system_in_place: bool = True  # takes role: system after the first user message


_CLAUDES: Final = (
    (re.compile(r"(opus-4-[789]|(opus|sonnet|haiku|fable)-[5-9])"), _Claude(True, False)),
    (re.compile(r"(opus|sonnet)-4-6"), _Claude(True, True, False)),
    (re.compile(r"(opus|sonnet|haiku)-4-[15]"), _Claude(both=False, system_in_place=False)),
    (re.compile(r"(opus|sonnet|haiku)-4"), _Claude(system_in_place=False)),
    (re.compile(r"claude-3-[57]|claude-3-opus"), _Claude(max_tokens=8192, system_in_place=False)),
    (re.compile(r"claude-3|claude-2"), _Claude(max_tokens=4096, system_in_place=False)),
)


@frozen(kw_only=True)
class AnthropicQuirks(Quirks):
    signed: bool = False  # checks the signatures of thinking blocks
    unsigned: bool = False  # wants earlier thinking back, even without a signature
    placeholder: str = ""  # goes where thinking is missing on a turn with tool calls
    native: bool = False  # Anthropic's own API: nothing that Claude Code sends is taken out


class AnthropicMessages(Dialect):
    name = "anthropic"
    quirks = AnthropicQuirks
    path = "/v1/messages"
    list_path = "/v1/models"
    purposes: ClassVar = {"/messages": "answer", "/messages/count_tokens": "count"}
    auth = "x-api-key"
    call_id = r"[a-zA-Z0-9_-]{1,128}"
    headers: ClassVar = {"anthropic-version": "2023-06-01"}
    turns = "messages"
    output_limits = ("max_tokens",)
    # "Extra inputs are not permitted", should an override set one of these
    uncounted = frozenset(("max_tokens", "stream", "metadata", "stop_sequences"))
    marks = (b'"usage":{', b'"usage": {', b'"message_stop"', b'"error"', *_ANTHROPIC_REASON)
    error_types: ClassVar = {
        "bad_request": "invalid_request_error",
        "context_length": "invalid_request_error",
        "auth": "authentication_error",
        "billing": "api_error",
        "budget": "billing_error",
        "permission": "permission_error",
        "not_found": "not_found_error",
        "model_not_found": "not_found_error",
        "too_large": "invalid_request_error",
        "unimplemented": "invalid_request_error",
        "rate_limit": "rate_limit_error",
        "overloaded": "overloaded_error",
        "timeout": "timeout_error",
    }

    def claims(self, wire: JSON) -> bool:
        kind = wire.get("type")
        return isinstance(kind, str) and kind.startswith(("message", "content_block_", "ping"))

    def is_answer(self, wire: JSON) -> bool:
        return wire.get("type") == "message" and isinstance(wire.get("content"), list)

    def parse_request(self, body: JSON, variant: str = "") -> Request:
        wire = Wire(body)
        wire.rest(_ANTHROPIC_REQUEST)
        _anthropic_refused(wire)
        messages = _anthropic_system(wire)
        messages += map(_anthropic_message, wire.each("messages", required=True))
        user = wire.inner("metadata").want("user_id", str) or ""
        choice, tier = wire.inner("tool_choice"), wire.want("service_tier", str) or ""
        disable_parallel = choice.want("disable_parallel_tool_use", bool)
        return Request(
            model=wire.want("model", str) or "",
            messages=tuple(messages),
            tools=tuple(tool for item in wire.each("tools") if (tool := _anthropic_tool(item))),
            tool_choice=_anthropic_choice(choice),
            parallel_tools=None if disable_parallel is None else not disable_parallel,
            max_tokens=wire.want("max_tokens", int),
            sampling=Sampling(
                temperature=wire.want("temperature", float),
                top_p=wire.want("top_p", float),
                top_k=wire.want("top_k", int),
            ),
            stop=wire.texts("stop_sequences"),
            thinking=_anthropic_thinking(wire),
            show_thoughts=_anthropic_display(wire),
            format=_anthropic_format(wire),
            service_tier=_TIER_OF_ANTHROPIC.get(tier, tier),
            user=user,
            session=_anthropic_session(user),
            stream=bool(wire.want("stream", bool)),
            dropped=tuple(wire.dropped),
        )

    def render_request(self, request: Request, quirks: AnthropicQuirks, account: str) -> Rendered:
        return _AnthropicWriter(request, quirks, account).render()

    def cleaned(self, body: JSON, quirks: AnthropicQuirks, account: str, strip: bool) -> JSON:
        body = body if quirks.native else _without_attribution(body)
        if not isinstance(body.get("messages"), list):
            return body
        body = _with_own_thoughts(body, account, quirks, strip)
        off = found(body, ("thinking", "type")) == "disabled"
        return body if off or not quirks.placeholder else _with_thoughts(body, quirks.placeholder)

    def is_clean(self, raw: bytes, quirks: AnthropicQuirks) -> bool:
        """Yes if it has no thinking block, and nothing that is meant for Anthropic alone."""
        marks = () if quirks.native else (ATTRIBUTION.encode(), b'"safeguards"')
        if quirks.placeholder or any(raw.rfind(mark) >= 0 for mark in marks):
            return False
        place = raw.rfind(b'thinking"')  # as a key a setting, as a value the type of a block
        while place >= 0 and raw.startswith(b'thinking":', place):
            place = raw.rfind(b'thinking"', 0, place)
        return place < 0

    def parse_response(self, wire: JSON) -> Response:
        blocks = (_anthropic_output(block) for block in wire["content"])
        return Response(
            id=word_of(wire.get("id")),
            model=word_of(wire.get("model")),
            parts=tuple(part for part in blocks if part),
            finish=_ANTHROPIC_FINISH.get(wire.get("stop_reason") or "", "stop"),
            usage=self.parse_usage(wire) or Usage(),
            detail=_anthropic_detail(wire),
        )

    def render_response(self, response: Response, asked: Asked) -> JSON:
        refused = response.finish == "content_filter" and response.detail
        details = {"type": "refusal", "category": None, "explanation": response.detail}
        return {
            "id": _anthropic_id(response.id or asked.id),
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": list(map(_anthropic_block, response.parts)),
            "stop_reason": _ANTHROPIC_STOP[response.finish],
            "stop_sequence": response.detail if response.finish == "stop_sequence" else None,
            "stop_details": details if refused else None,
            "container": None,
            "usage": _anthropic_usage(response.usage),
        }

    def parse_usage(self, wire: JSON) -> Usage | None:
        usage = (wire.get("message") or wire).get("usage")
        if not isinstance(usage, dict):
            return None
        read = whole_number(usage.get("cache_read_input_tokens"))
        write = whole_number(usage.get("cache_creation_input_tokens"))
        details = usage.get("output_tokens_details") or {}
        fresh = whole_number(usage.get("input_tokens"))
        return Usage(
            input=fresh + read + write,
            output=whole_number(usage.get("output_tokens")),
            cache_read=read,
            cache_write=write,
            reasoning=whole_number(details.get("thinking_tokens")),
        )

    def is_end(self, data: bytes) -> bool:
        return self.is_last(data) or any(mark in data for mark in _ANTHROPIC_REASON)

    def is_last(self, data: bytes) -> bool:
        return b'"message_stop"' in data

    def error_event(self, error: RelayError, request_id: str, variant: str = "") -> bytes:
        return sse(self.render_error(error, request_id), "error")

    def passes(self, error: UpstreamError) -> bool:
        said = error.body.decode(errors="replace")
        return error.kind != "context_length" or any(words in said for words in _TOO_LONG_WORDS)

    def status(self, error: RelayError) -> int:
        return 529 if error.kind == "overloaded" else error.status

    def render_error(self, error: RelayError, request_id: str) -> JSON:
        message = error.message
        if error.kind == "context_length":
            message = _prompt_too_long(message)
        kind = self.error_types.get(error.kind, "api_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": request_id,
        }

    def decoder(self) -> StreamDecoder:
        return _AnthropicDecoder()

    def encoder(self, asked: Asked) -> StreamEncoder:
        return _AnthropicEncoder(asked)

    def render_models(self, models: Sequence[Listed]) -> JSON:
        data = [
            {
                "type": "model",
                "id": model.name,
                "display_name": model.title or model.name,
                "created_at": "1970-01-01T00:00:00Z",
                "lifecycle": "active",
                "deprecated_at": None,
                "retires_at": None,
                "line": None,
                "max_input_tokens": model.context,
                "max_tokens": model.output,
                "capabilities": None,
            }
            for model in models
        ]
        return {
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": False,
        }

    def counting(self, url: str) -> str:
        path, _, query = url.partition("?")
        return f"{path}/count_tokens" + (f"?{query}" if query else "")

    def render_count(self, tokens: int) -> JSON:
        return {"input_tokens": tokens}

    def parse_count(self, wire: JSON) -> int:
        return operator.index(wire["input_tokens"])


# A client's request, read


def _anthropic_refused(wire: Wire) -> None:
    """What only Anthropic can do, and what to go on without would be wrong."""
    if wire.inner("thread").data.get("type") == "continue":
        raise BadRequest(
            "thread: kept by Anthropic, and this model is served by a provider that keeps nothing;"
            " send the whole conversation in `messages`"
        )
    if wire.data.get("compaction"):
        raise BadRequest("compaction: the provider that serves this model has none")


def _anthropic_system(wire: Wire) -> list[Message]:
    content = wire.data.get("system")
    if not content:
        return []
    texts = wire.texts("system") if isinstance(content, str) else _anthropic_texts(wire)
    parts = tuple(Text(text) for text in map(_unattributed, texts) if text)
    return [Message("system", parts)] if parts else []


def _anthropic_texts(wire: Wire) -> Iterator[str]:
    return (block.want("text", str) or "" for block in wire.each("system"))


def _anthropic_message(wire: Wire) -> Message:
    role = _ANTHROPIC_ROLES.get(wire.need("role", str))
    if role is None:
        said = shown(wire.data["role"])
        raise BadRequest(f"{wire.path('role')}: expected user, assistant or system, got {said}")
    wire.rest(_ANTHROPIC_MESSAGE)
    return Message(role, tuple(_anthropic_parts(wire)))


_ANTHROPIC_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}
_ANTHROPIC_MESSAGE: Final = frozenset(("role", "content"))


def _anthropic_parts(wire: Wire) -> list[Part]:
    if isinstance(content := wire.data.get("content"), str):
        return [Text(content)] if content else []
    parts: list[Part] = []
    for block in wire.each("content"):
        kind = block.need("type", str)
        read = _ANTHROPIC_PARTS.get(kind)
        if read is None:
            block.drop(kind)
            continue
        block.rest(_ANTHROPIC_BLOCK)
        parts += read(block)
    return parts


def _anthropic_text(wire: Wire) -> Iterable[Part]:
    text = wire.want("text", str)
    return (Text(text),) if text else ()


def _anthropic_thought(wire: Wire) -> Iterable[Part]:
    seal = opened(wire.want("signature", str) or "", "as")
    text = wire.want("thinking", str) or ""
    return (recalled(text, seal if seal.value or seal.account else None),)


def _anthropic_redacted(wire: Wire) -> Iterable[Part]:
    return (Reasoning("", opened(wire.need("data", str), "ad")),)


def _anthropic_call(wire: Wire) -> Iterable[Part]:
    arguments = dumps(wire.want("input", dict) or {}).decode()
    return (ToolCall(wire.need("id", str), wire.need("name", str), arguments),)


def _anthropic_result(wire: Wire) -> Iterable[Part]:
    parts = [part for part in _anthropic_parts(wire) if isinstance(part, TEXT_OR_MEDIA)]
    id, is_error = wire.need("tool_use_id", str), wire.want("is_error", bool)
    return (ToolResult(id, tuple(parts), bool(is_error)),)


def _anthropic_media(wire: Wire) -> Iterator[Part]:
    source = wire.inner("source")
    kind: Literal["image", "document"] = "image" if wire.data["type"] == "image" else "document"
    title = wire.want("title", str) or ""
    if context := wire.want("context", str):
        yield Text(context)
    match source.need("type", str):
        case "base64":
            data = source.need("data", str)
            mime = mime_of(data, source.want("media_type", str) or "application/pdf")
            yield Media(kind, mime, data, name=title)
        case "url":
            yield Media(kind, url=source.need("url", str), name=title)
        case "text":
            yield Media("text", "text/plain", source.need("data", str), name=title)
        case "content" if isinstance(source.data.get("content"), str):
            yield Media("text", "text/plain", source.data["content"], name=title)
        case "content":
            yield from _anthropic_parts(source)
        case other:  # a file_id is bound to the account that holds the file
            source.drop(other)


def _anthropic_search(wire: Wire) -> Iterator[Part]:
    texts = [block.want("text", str) or "" for block in wire.each("content")]
    yield Text("\n".join([wire.want("title", str) or "", wire.want("source", str) or "", *texts]))


def _anthropic_reference(wire: Wire) -> Iterator[Part]:
    yield Text(f"The tool {wire.need('tool_name', str)} is now available.")


_ANTHROPIC_PARTS: Final[dict[str, Callable[[Wire], Iterable[Part]]]] = {
    "text": _anthropic_text,
    "thinking": _anthropic_thought,
    "redacted_thinking": _anthropic_redacted,
    "tool_use": _anthropic_call,
    "tool_result": _anthropic_result,
    "image": _anthropic_media,
    "document": _anthropic_media,
    "search_result": _anthropic_search,
    "tool_reference": _anthropic_reference,
}


def _anthropic_tool(wire: Wire) -> Tool | None:
    kind, name = wire.want("type", str) or "custom", wire.need("name", str)
    description = wire.want("description", str) or ""
    if kind != "custom":
        typed = next((t for t in _ANTHROPIC_TYPED if re.fullmatch(rf"{t}_\d{{8}}", kind)), None)
        if typed:
            schema = {"type": "object", "properties": _ANTHROPIC_TYPED[typed]}
            return Tool(name, description, schema)
        wire.drop(kind)
        return None
    wire.rest(_ANTHROPIC_TOOL)
    if name == "DeferredToolPlaceholder":  # Claude Code's stand-in for tools that load later
        return None
    return Tool(name, description, wire.want("input_schema", dict) or {}, wire.want("strict", bool))


def _anthropic_choice(wire: Wire) -> ToolChoice | None:
    match wire.want("type", str):
        case None:
            return None
        case "tool":
            return ToolChoice("named", (wire.need("name", str),))
        case "any":
            return ToolChoice("required")
        case "none":
            return ToolChoice("none")
        case _:
            return ToolChoice("auto")


def _anthropic_thinking(wire: Wire) -> Thinking | None:
    config = wire.inner("thinking", frozenset(("type", "budget_tokens", "display")))
    kind = config.want("type", str)
    output = wire.inner("output_config", frozenset(("effort", "format")))
    effort = output.want("effort", str) or ""
    if kind == "disabled":
        return Thinking(False)
    if kind is None and not effort:
        return None
    return Thinking(True, effort, config.want("budget_tokens", int))


def _anthropic_display(wire: Wire) -> bool | None:
    """Are thoughts to be seen?  Who says nothing sees them.

    By default newer Claudes leave them out and older ones do not, and clients that know nothing
    of `display` (Qwen Code, Kimi) show what comes.  Claude Code asks for `updates` where it has
    somebody to show them to, and else for none.
    """
    return _ANTHROPIC_DISPLAYS.get(wire.inner("thinking").want("display", str) or "")


_ANTHROPIC_DISPLAYS: Final = {"summarized": True, "updates": True, "omitted": False}


def _anthropic_format(wire: Wire) -> Format | None:
    spec = wire.inner("output_config").inner("format")
    spec = spec if spec.data else wire.inner("output_format")
    return Format(spec.want("schema", dict)) if spec.data else None


def _anthropic_session(user: str) -> str:
    """Claude Code's user id is a JSON text with its session in it."""
    inner = parse_object(user) or {}
    found = inner.get("session_id")
    return found if isinstance(found, str) else user


# A request, written


class _AnthropicWriter:
    """One request on its way into this format."""

    def __init__(self, request: Request, quirks: AnthropicQuirks, account: str) -> None:
        self.request = request
        self.quirks = quirks
        self.account = account
        self.claude = next((c for p, c in _CLAUDES if p.search(request.model)), _Claude())
        self.dropped = [*request.dropped, *lost(request, "verbosity")]

    def render(self) -> Rendered:
        request = self.request
        body: JSON = {
            "model": request.model,
            "max_tokens": request.max_tokens or self.claude.max_tokens,
        }
        messages = list(request.messages)
        if messages and messages[-1].role == "assistant" and self._ends_with_the_user():
            self.dropped.append("prefill")
            messages.pop()
        lead = leading(messages)
        system = [part for m in messages[:lead] for part in m.parts]
        if blocks := self._blocks(system):
            body["system"] = blocks
        body["messages"] = self._messages(messages[lead:])
        if tools := [_anthropic_definition(tool, self.quirks) for tool in self._offered()]:
            body["tools"] = tools
        self._controls(body)
        if stops := [text for text in request.stop if text.strip()]:
            body["stop_sequences"] = stops
        if request.format:
            self._format(body, request.format)
        body |= self._hints()
        if self.quirks.signed and not self.quirks.native:
            _mark_prefixes(body)
        if request.stream:
            body["stream"] = True
        # those of white space only are refused
        return Rendered(
            body,
            tuple(dict.fromkeys(self.dropped)),
            tuple(text for text in request.stop if not text.strip()),
        )

    def _ends_with_the_user(self) -> bool:
        """Is the beginning of an answer refused?  By newer Claudes, and by all that think."""
        thinking = self.request.thinking
        return self.claude.adaptive or bool(thinking and thinking.on and self.quirks.signed)

    def _offered(self) -> Sequence[Tool]:
        """The tools, or stand-ins for those in the history where none are offered.

        Codex compacts without tools; some of Claude's platforms refuse calls without them.
        """
        tools = offered(self.request)
        if tools or not self.quirks.signed:
            return tools
        parts = (part for message in self.request.messages for part in message.parts)
        names = dict.fromkeys(part.name for part in parts if isinstance(part, ToolCall))
        return [Tool(name) for name in names]

    def _hints(self) -> JSON:
        """For whom, how soon, and what to keep: nothing that changes the answer."""
        request, tier, said = self.request, self.request.service_tier, JSON()
        if request.user:
            said["metadata"] = {"user_id": request.user}
        if tier in self.quirks.service_tiers:
            said["service_tier"] = _ANTHROPIC_TIERS[tier]
        else:
            self.dropped += lost(request, "service_tier")
        if self.quirks.native:
            # clients of other dialects expect caching without asking for it
            said["cache_control"] = {"type": "ephemeral"}
        return said

    def _messages(self, messages: Sequence[Message]) -> list[JSON]:
        said: list[JSON] = []
        off = self.request.thinking == Thinking(False)
        placeholder = "" if off else self.quirks.placeholder
        for index, message in enumerate(messages):
            role, content = message.role, self._blocks(message.parts)
            if role == "assistant" and placeholder:
                content = _with_placeholder(content, placeholder)
            if role == "system" and not self._may_stand(messages, index):
                role, content = "user", _reminder(content)
            if not content:
                continue
            if said and said[-1]["role"] == role != "system":
                said[-1]["content"] += content
            else:
                said.append({"role": role, "content": content})
        if not said or said[0]["role"] != "user":
            said.insert(0, {"role": "user", "content": [{"type": "text", "text": "."}]})
        return said

    def _may_stand(self, messages: Sequence[Message], index: int) -> bool:
        """Anthropic's rules for a system message in its place; clones do not take any there."""
        before = messages[index - 1].role if index else ""
        after = messages[index + 1].role if index + 1 < len(messages) else "assistant"
        knows = self.quirks.native and self.claude.system_in_place
        return knows and before == "user" and after == "assistant"

    def _blocks(self, parts: Iterable[Part]) -> list[JSON]:
        return [block for part in parts if (block := self._block(part))]

    def _block(self, part: Part) -> JSON | None:
        match part:
            case Text(text):
                return {"type": "text", "text": text} if text else None
            case Reasoning():
                return self._thought(part)
            case ToolCall():
                return _anthropic_block(part)
            case ToolResult(call_id, parts, is_error):
                content = self._blocks(parts)
                block = {"type": "tool_result", "tool_use_id": call_id, "content": content}
                return block | ({"is_error": True} if is_error else {})
            case Media():
                return self._media(part)

    def _thought(self, part: Reasoning) -> JSON | None:
        """A foreign signature is an error to Anthropic; clones want the thought without one."""
        seal = part.seal
        ours = seal and seal.field in ("as", "ad") and seal.account in ("", self.account)
        if seal and ours and seal.field == "ad":
            return {"type": "redacted_thinking", "data": seal.value}
        if seal and ours:
            return {"type": "thinking", "thinking": part.text, "signature": seal.value}
        if part.text and self.quirks.unsigned:
            return {"type": "thinking", "thinking": part.text, "signature": ""}
        return None

    def _media(self, media: Media) -> JSON | None:
        self.dropped += ["detail"] if media.detail else []
        if media.kind == "audio":
            self.dropped.append("audio")
            return None
        kind = "image" if media.kind == "image" else "document"
        source: JSON = {"type": "base64", "media_type": media.mime, "data": media.data}
        if media.url:
            source = {"type": "url", "url": media.url}
        if media.kind == "text":
            source = {"type": "text", "media_type": "text/plain", "data": media.data}
        title = {"title": media.name} if media.name and kind == "document" else {}
        return {"type": kind, "source": source} | title

    def _controls(self, body: JSON) -> None:
        """Thinking, tool choice and sampling, each of which limits the others."""
        request, choice = self.request, self.request.tool_choice
        thinking = request.thinking
        if thinking and thinking.on and not self.claude.adaptive and self._unthought():
            thinking = Thinking(False)
        if thinking:
            body |= self._thinking(thinking, body)
            self.dropped += [] if "thinking" in body else ["thinking"]
        on = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
        if "tools" in body:
            choice = choice if request.tools else ToolChoice("none")
            body |= _anthropic_tool_choice(choice, request.parallel_tools, forced=not on)
            if on and choice and choice.mode in ("required", "named"):
                self.dropped.append("tool_choice")
        refused = ["seed", "frequency_penalty", "presence_penalty"]
        said = request.sampling.given()
        if not self.claude.sampling or on:
            refused += ["temperature", "top_p", "top_k"]
        elif not self.claude.both and "temperature" in said:
            refused.append("top_p")
        self.dropped += [name for name in said if name in refused]
        kept = {name: value for name, value in said.items() if name not in refused}
        if "temperature" in kept:
            kept["temperature"] = min(kept["temperature"], 1.0)
        body |= kept

    def _unthought(self) -> bool:
        """Does the tool turn in progress lack the thinking that must come before its calls?

        "Expected thinking or redacted_thinking, but found tool_use", where that is checked.
        """
        turns = [m for m in self.request.messages if m.role == "assistant"]
        last = turns[-1].parts if turns else ()
        thought = any(isinstance(p, Reasoning) and self._thought(p) for p in last)
        return self.quirks.signed and any(isinstance(p, ToolCall) for p in last) and not thought

    def _display(self) -> JSON:
        """Whether to tell what was thought; unasked, only older models tell it."""
        show = self.request.show_thoughts
        if show is None and self.claude.sampling:
            return {}
        return {"display": "omitted" if show is False else "summarized"}

    def _thinking(self, thinking: Thinking, body: JSON) -> JSON:
        if self.claude.adaptive:
            effort = {"minimal": "low", "none": ""}.get(thinking.word(), thinking.word())
            config = {"output_config": {"effort": effort}} if effort else {}
            # the generation without sampling cannot switch thinking off either
            return (
                {"thinking": {"type": "adaptive"} | self._display()} | config if thinking.on else {}
            )
        if not thinking.on or thinking.word() == "none":
            return {"thinking": {"type": "disabled"}}
        budget = max(1024, min(thinking.tokens(), body["max_tokens"] - 1))
        spare = {"max_tokens": budget + 1024} if body["max_tokens"] <= budget else {}
        return {"thinking": {"type": "enabled", "budget_tokens": budget}} | spare

    def _format(self, body: JSON, format: Format) -> None:
        if format.schema is None:
            body["system"] = [*body.get("system", ()), {"type": "text", "text": JSON_ONLY}]
            return
        spec = {"type": "json_schema", "schema": _closed(_referable(format.schema))}
        body["output_config"] = body.get("output_config", {}) | {"format": spec}


def _mark_prefixes(body: JSON) -> None:
    """Ask Claude's other platforms to cache what comes again: the system, the last two user turns.

    Clients of other dialects expect caching without asking for it; Anthropic's own API has one
    word for it.
    """
    turns = [turn["content"] for turn in body["messages"] if turn["role"] == "user"]
    for blocks in [*filter(None, [body.get("system")]), *turns[-2:]]:
        blocks[-1] = blocks[-1] | {"cache_control": {"type": "ephemeral"}}


def _reminder(blocks: Iterable[JSON]) -> list[JSON]:
    """A system message for a provider without the role, in the form Claude Code itself uses."""
    text = "\n".join(block.get("text", "") for block in blocks)
    return [{"type": "text", "text": f"<system-reminder>\n{text}\n</system-reminder>"}]


def _anthropic_definition(tool: Tool, quirks: AnthropicQuirks) -> JSON:
    described = {"description": tool.description} if tool.description else {}
    schema, strict = _flat(_referable(rooted(tool.schema))), quirks.tool_strict == "as_is"
    if tool.strict and strict:  # then a schema is what structured output takes
        schema = _closed(schema)
    strictly = {"strict": True} if tool.strict and strict else {}
    return {"name": tool.name} | described | {"input_schema": schema} | strictly


def _referable(schema: JSON) -> JSON:
    """Anthropic finds what `$ref` refers to in `$defs` only."""
    if "definitions" not in schema or "$defs" in schema:
        return schema
    schema = loads(dumps(schema).replace(b"#/definitions/", b"#/$defs/"))
    schema["$defs"] = schema.pop("definitions")
    return schema


def _flat(schema: JSON) -> JSON:
    """A root without oneOf, anyOf and allOf, which Anthropic refuses: properties merged."""
    ways = [way for way in _SCHEMA_WAYS if isinstance(schema.get(way), list)]
    if not ways:
        return schema
    flat = {name: value for name, value in schema.items() if name not in ways}
    required = set(_names(schema))
    for way in ways:
        options = [option for option in schema[way] if isinstance(option, dict)]
        for option in options:
            more = option.get("properties")
            flat["properties"] = (more if isinstance(more, dict) else {}) | flat["properties"]
        needs = [set(_names(option)) for option in options] or [set()]
        required |= set.union(*needs) if way == "allOf" else set.intersection(*needs)
    return flat | ({"required": sorted(required)} if required else {})


_SCHEMA_WAYS: Final = ("oneOf", "anyOf", "allOf")


def _names(schema: JSON) -> Iterator[str]:
    required = schema.get("required")
    return (
        name for name in (required if isinstance(required, list) else ()) if isinstance(name, str)
    )


# What structured output does not support; the description says it instead.
_BOUNDS: Final = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength minItems"
    " maxItems".split()
)


def _closed(schema: Any) -> Any:
    """A schema as structured output takes it: closed objects, bounds in the description."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items() if name not in _BOUNDS}
    if schema.get("type") == "object":
        closed["additionalProperties"] = False
    bounds = [f"{name}: {shown(schema[name])}" for name in schema if name in _BOUNDS]
    if bounds and isinstance(schema.get("type"), str):
        closed["description"] = " ".join((schema.get("description", ""), *bounds)).strip()
    return closed


def _anthropic_tool_choice(choice: ToolChoice | None, parallel: bool | None, forced: bool) -> JSON:
    mode = choice.mode if choice else "auto"
    said: JSON = {"type": {"required": "any", "named": "tool"}.get(mode, mode)}
    if mode == "named" and choice:
        said["name"] = choice.names[0]
    if said["type"] in ("any", "tool") and not forced:  # thinking allows only auto and none
        said = {"type": "auto"}
    if parallel is False and mode != "none":
        said["disable_parallel_tool_use"] = True
    return {"tool_choice": said} if choice or parallel is False else {}


# A request that passes through, where it must be edited


def _unattributed(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(ATTRIBUTION) else text


def _without_attribution(body: JSON) -> JSON:
    """Without what Claude Code means for Anthropic alone: the billing line and `safeguards`.

    The line differs between sessions and so spoils every prefix cache (11 projects met it);
    `safeguards` holds the user's name, folders and permission rules.
    """
    system = body.get("system")
    if isinstance(system, str) and system.startswith(ATTRIBUTION):
        body = body | {"system": _unattributed(system)}
    elif isinstance(system, list) and any(map(_attributes, system)):
        cut = [b | {"text": _unattributed(b["text"])} if _attributes(b) else b for b in system]
        body = body | {"system": [b for b in cut if not isinstance(b, dict) or b.get("text") != ""]}
    return without(body, ["safeguards"])


def _attributes(block: object) -> bool:
    return isinstance(block, dict) and str(block.get("text", "")).startswith(ATTRIBUTION)


def _with_own_thoughts(body: JSON, account: str, quirks: AnthropicQuirks, strip: bool) -> JSON:
    """With thinking blocks as this provider knows them.

    An envelope of its own account is opened.  A block with another's is removed, because it is
    an error where signatures are checked; only a provider that wants thoughts back without a
    signature gets the thought.  With `strip` every thinking block is removed.
    """
    messages, changed = [], False
    for message in body.get("messages") or ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            known = (_own_thought(block, account, quirks, strip) for block in content)
            kept = [block for block in known if block is not None]
            if len(kept) != len(content) or any(map(operator.is_not, kept, content)):
                changed = True
                message = message | {"content": kept or [{"type": "text", "text": "(thinking)"}]}
        messages.append(message)
    return body | {"messages": messages} if changed else body


def _with_thoughts(body: JSON, placeholder: str) -> JSON:
    """With a thought before the calls of every turn; DeepSeek refuses turns without one."""
    messages = []
    for message in body.get("messages") or ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and message.get("role") == "assistant":
            thought = _with_placeholder(content, placeholder)
            message = message if thought is content else message | {"content": thought}
        messages.append(message)
    same = all(map(operator.is_, messages, body.get("messages") or ()))
    return body if same else body | {"messages": messages}


def _with_placeholder(content: list[Any], placeholder: str) -> list[Any]:
    kinds = {block.get("type") for block in content if isinstance(block, dict)}
    if not placeholder or "tool_use" not in kinds or "thinking" in kinds:
        return content
    return [{"type": "thinking", "thinking": placeholder, "signature": ""}, *content]


def _own_thought(block: Any, account: str, quirks: AnthropicQuirks, strip: bool) -> Any:
    kind = block.get("type") if isinstance(block, dict) else None
    slot = {"thinking": "signature", "redacted_thinking": "data"}.get(kind or "")
    if not slot:
        return block
    token = str(block.get(slot) or "")
    if strip or (quirks.signed and not token):
        return None
    if not token.startswith("rly1."):
        return block
    seal = opened(token, "as")
    thought = {"thinking": seal.text} if seal.text else {}  # which the client was not shown
    if seal.account == account and seal.field in ("as", "ad"):
        return block | thought | {slot: seal.value}
    told = quirks.unsigned and (block.get("thinking") or thought)
    return block | thought | {slot: ""} if told else None


# An answer, read and written


def _anthropic_output(block: JSON) -> OutputPart | None:
    match block.get("type"):
        case "text":
            return Text(block.get("text") or "")
        case "thinking":
            signature = word_of(block.get("signature"))
            return Reasoning(
                block.get("thinking") or "", Seal("as", signature) if signature else None
            )
        case "redacted_thinking":
            return Reasoning("", Seal("ad", word_of(block.get("data"))))
        case "tool_use":
            arguments = block.get("input") or {}
            return ToolCall(word_of(block.get("id")), block["name"], dumps(arguments).decode())
        case _:
            return None  # server tools, and block types yet to come


def _anthropic_block(part: OutputPart) -> JSON:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Reasoning(text, seal):
            if seal and seal.field == "ad" and not text:
                return {"type": "redacted_thinking", "data": _anthropic_token(seal)}
            return {"type": "thinking", "thinking": text, "signature": _anthropic_token(seal)}
        case ToolCall(id, name, text):
            arguments = parse_object(text) if text.strip() else {}
            arguments = {"_raw": text} if arguments is None else arguments
            return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def _anthropic_token(seal: Seal | None) -> str:
    """A seal for a client of this format: Anthropic's own as it is, another in an envelope."""
    own = seal and seal.field in ("as", "ad") and not seal.account
    return seal.value if seal and own else enveloped(seal)


def _anthropic_usage(usage: Usage) -> JSON:
    return {
        "input_tokens": max(0, usage.input - usage.cache_read - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def _anthropic_id(id: str) -> str:
    return id if id.startswith("msg_") else "msg_" + id.removeprefix("chatcmpl-")


def _anthropic_detail(wire: JSON) -> str:
    details = wire.get("stop_details")
    if isinstance(details, dict):
        return str(details.get("explanation") or details.get("category") or "")
    return str(wire.get("stop_sequence") or "")


# How providers say that a request does not fit, with the numbers.  There are two cases: a prompt
# that is too long has to be compacted; a prompt that fits, but not with the answer's max_tokens,
# has to ask for fewer.
_TOO_LONG_TEXTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # OpenAI, DeepSeek; vLLM in two spellings
        r"length is (?P<limit>\d+) tokens.*?\((?P<input>\d+) in the messages, (?P<output>\d+) in",
        r"length is (?P<limit>\d+).*?requested (?P<output>\d+) output.*?contains\D*(?P<input>\d+)",
        r"too large: (?P<output>\d+).*?length is (?P<limit>\d+) tokens.*?has (?P<input>\d+) input",
        r"length is (?P<limit>\d+) tokens.*?(request\w*|resulted|has|contains)\D*(?P<input>\d+)",
        # llama.cpp, Kimi, Gemini
        r"\((?P<input>\d+) tokens\) exceeds the available context size \((?P<limit>\d+)",
        r"token limit: (?P<limit>\d+) \(requested: (?P<input>\d+)",
        r"token count \((?P<input>\d+)\) exceeds .{0,60}?\((?P<limit>\d+)\)",
    )
)
# By these words Claude Code knows what to do; at any others it gives up.
_TOO_LONG_WORDS: Final = ("prompt is too long", "exceed context limit")


def _prompt_too_long(message: str) -> str:
    """In Anthropic's words, with the provider's numbers if it gave any."""
    if any(words in message for words in _TOO_LONG_WORDS):
        return message
    found = (pattern.search(message) for pattern in _TOO_LONG_TEXTS)
    if not (match := next((match for match in found if match), None)):
        return f"prompt is too long: {message}"
    asked, limit = int(match["input"]), int(match["limit"])
    output = match.groupdict().get("output")
    if output and asked <= limit:
        sum_ = f"{asked} + {output} > {limit}"
        return f"input length and `max_tokens` exceed context limit: {sum_} ({message})"
    counts = f"{asked} tokens > {limit} maximum ({message})" if asked > limit else message
    return f"prompt is too long: {counts}"


class _AnthropicDecoder(StreamDecoder):
    """message_start ... message_stop to events; the format is nearly the hub's own grammar."""

    def __init__(self) -> None:
        super().__init__()
        self._signature = Seal("as")
        self._input: JSON = {}  # clones put the whole input here, and send no deltas
        self._spoke = False

    def _object(self, wire: JSON) -> None:
        if wire.get("type") == "error" or "error" in wire:
            self._fail(failure_in(wire) or Failure(dumps(wire).decode()))
            return
        if usage := ANTHROPIC.parse_usage(wire):
            self._usage = latest(self._usage, usage)
        if handler := self._HANDLERS.get(wire.get("type")):  # else a ping, or something new
            handler(self, wire)

    def _message_start(self, wire: JSON) -> None:
        message = wire["message"]
        self._start(word_of(message.get("id")), word_of(message.get("model")), self._usage)

    def _block_start(self, wire: JSON) -> None:
        block = wire["content_block"]
        part = _anthropic_output(block)
        if part is None:  # a server tool at work, or something new
            self.acted = True
            return
        self._signature = part.seal if isinstance(part, Reasoning) and part.seal else Seal("as")
        self._input, self._spoke = block.get("input") or {}, False
        self._part(wire["index"], emptied(part))
        self._delta(wire["index"], "" if isinstance(part, ToolCall) else part.text)

    def _block_delta(self, wire: JSON) -> None:
        delta = wire["delta"]
        if signature := delta.get("signature"):
            self._signature = Seal("as", self._signature.value + word_of(signature))
        text = delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
        self._spoke |= bool(text)
        self._delta(wire["index"], text)

    def _block_stop(self, wire: JSON) -> None:
        if self._input and not self._spoke:
            self._delta(wire["index"], dumps(self._input).decode())
        self._input = {}
        self._close(wire["index"], self._seal())

    def _message_delta(self, wire: JSON) -> None:
        delta = wire.get("delta") or {}
        if reason := delta.get("stop_reason"):
            self._finish = _ANTHROPIC_FINISH.get(reason, "stop")
            self._detail = _anthropic_detail(delta)

    def _message_stop(self, wire: JSON) -> None:
        self._end()

    def _seal(self) -> Seal | None:
        sealed = self._live and isinstance(self._live.part, Reasoning) and self._signature.value
        return self._signature if sealed else None

    _HANDLERS: ClassVar[dict[object, Callable[[Any, JSON], None]]] = {
        "message_start": _message_start,
        "content_block_start": _block_start,
        "content_block_delta": _block_delta,
        "content_block_stop": _block_stop,
        "message_delta": _message_delta,
        "message_stop": _message_stop,
    }


_ANTHROPIC_MORE: Final = "content_block_delta"
_THOUGHT: Final[JSON] = {"type": "thinking", "thinking": "", "signature": ""}


class _AnthropicEncoder:
    """Events to message_start ... message_stop."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._index = -1
        self._part: OutputPart = Text()
        self._form = b""  # of the part's deltas
        self._opened = False  # has the part's start been sent?
        self._spoke = False
        self._started = False

    def encode(self, event: Event) -> bytes:
        match event:
            case PartDelta(text):
                self._spoke = True
                begin = b"" if self._opened else self._begin(_THOUGHT)
                return begin + self._form % dumps(text)
            case Start(id, _, usage):
                return self._start(id, usage)
            case PartStart(part):
                return self._open(part)
            case PartEnd(seal):
                return self._close(seal)
            case Finish():
                return self._finish(event)
            case Failure():
                return ANTHROPIC.error_event(error_of(event), self._asked.id)

    def alive(self) -> bytes:
        # Before message_start readers fail on a ping, but not on a comment.
        return self._event("ping") if self._started else b": keep-alive\n\n"

    def _start(self, id: str, usage: Usage) -> bytes:
        # Claude Code's context meter reads the input count here: an estimate if need be.
        known = usage if usage.input else Usage(input=self._asked.tokens)
        head = ANTHROPIC.render_response(Response(id, "", (), "stop", known), self._asked)
        self._started = True
        return self._event("message_start", message=head | {"stop_reason": None})

    def _open(self, part: OutputPart) -> bytes:
        self._index, self._part = self._index + 1, part
        self._spoke = self._opened = False
        kind, key = _ANTHROPIC_DELTA[type(part)]
        self._form = form_of(sse(self._delta({"type": kind, key: HOLE}), _ANTHROPIC_MORE))
        # thinking, or redacted?  Known once there is text, or at the end
        return b"" if isinstance(part, Reasoning) else self._begin(_anthropic_block(part))

    def _begin(self, block: JSON) -> bytes:
        self._opened = True
        return self._event("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: JSON) -> JSON:
        return {"type": _ANTHROPIC_MORE, "index": self._index, "delta": delta}

    def _close(self, seal: Seal | None) -> bytes:
        stop = self._event("content_block_stop", index=self._index)
        if isinstance(self._part, Reasoning):
            return self._sealed(seal) + stop
        if isinstance(self._part, ToolCall) and not self._spoke:
            return self._form % dumps("{}") + stop
        return stop

    def _sealed(self, seal: Seal | None) -> bytes:
        token = _anthropic_token(seal)
        if seal and seal.field == "ad" and not self._spoke:
            return self._begin({"type": "redacted_thinking", "data": token})
        begin = b"" if self._opened else self._begin(_THOUGHT)
        signed = self._delta({"type": "signature_delta", "signature": token})
        return begin + sse(signed, _ANTHROPIC_MORE)

    def _finish(self, finish: Finish) -> bytes:
        usage = self._asked.counted(finish.usage)
        whole = Response("", "", (), finish.reason, usage, finish.detail)
        last = ANTHROPIC.render_response(whole, self._asked)
        delta = {name: last[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
        said = self._event("message_delta", delta=delta, usage=last["usage"])
        return said + self._event("message_stop")

    def _event(self, type: str, **fields: Any) -> bytes:
        return sse({"type": type} | fields, type)


ANTHROPIC: Final = AnthropicMessages()


# ==== 7. Dialect: OpenAI Chat Completions =====================================
# https://platform.openai.com/docs/api-reference/chat and the types of the openai SDK.
# The most widely spoken format, and the loosest: every provider has its own fields for reasoning,
# which is not in the standard at all, and several break its streams in ways of their own.  A
# message has one text, one reasoning and its calls, in that order; where a part ends is not said.
# A stream is
#
#     chunk*            choices[0].delta: role, reasoning, content, fragments of tool_calls by index
#     finish chunk      choices[0].finish_reason
#     usage chunk       choices: [], and only if stream_options.include_usage asked for it
#     [DONE]            and nothing after it
#
# or an object with `error`.  What providers do to it: no [DONE]; a finish reason in every
# chunk, a wrong one, none; usage in the last choice; every call at index 0, or without an index;
# id and name repeated; arguments whole each time; content as a list; comments in between.

_CHAT_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # GLM
    "eos": "stop",
    "eos_token": "stop",
}
# A finish that means the inference failed: GLM, DeepSeek, OpenRouter.
_CHAT_BREAK: Final = frozenset(("network_error", "insufficient_system_resource", "error"))
_CHAT_STOP: Final[dict[FinishReason, str]] = {
    "stop_sequence": "stop",
    "pause": "stop",
    "context_length": "length",
}
_CHAT_REASON: Final = (b'"finish_reason":"', b'"finish_reason": "')
_CHAT_REQUEST: Final = frozenset(
    "model messages max_tokens max_completion_tokens temperature top_p top_k seed"
    " frequency_penalty presence_penalty stop stream stream_options n tools tool_choice"
    " parallel_tool_calls functions function_call response_format reasoning_effort reasoning"
    " thinking enable_thinking thinking_budget chat_template_kwargs verbosity service_tier"
    " user safety_identifier prompt_cache_key"
    " store".split()  # asks to store the answer, which no other provider need do
)
_CHAT_MESSAGE: Final = frozenset(
    "role content name refusal tool_calls tool_call_id reasoning_content reasoning"
    " reasoning_details annotations provider_specific_fields function_call prefix partial".split()
)


# What nearly every chat provider takes; few know top_k.
SAMPLING: Final = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")


@frozen(kw_only=True)
class ChatQuirks(Quirks):
    # How a body says how much to think: a key of REASONING_STYLES
    reasoning: str = "effort"
    # Which assistant turns carry their reasoning back, in which field, and what to put where
    # reasoning is missing on a turn with tool calls
    replay: Literal["never", "tool_turns", "always"] = "tool_turns"
    replay_field: str = "reasoning_content"
    placeholder: str = ""
    stream_usage: bool = True  # takes stream_options.include_usage
    json_schema: bool = True  # response_format json_schema; False: only json_object
    # What of these it takes, else it is auto; "allowed": a subset to choose from, else cut out
    tool_choice: tuple[str, ...] = ("auto", "none", "required", "named")
    max_tokens: str = "max_tokens"
    system_role: str = "system"
    system_in_place: bool = False  # takes a system message after the first user message
    identity: tuple[str, ...] = ()  # of user, safety_identifier, prompt_cache_key
    sampling: tuple[str, ...] = SAMPLING  # those it takes in a translated request
    verbosity: bool = False  # can be told how much to write
    tools_effort: str = ""  # the only reasoning_effort it takes together with tools
    prefill: str = ""  # the field that marks a last assistant message as one to continue


class OpenAIChat(OpenAIDialect):
    name = "openai"
    quirks = ChatQuirks
    path = "/chat/completions"
    purposes: ClassVar = {"/chat/completions": "answer"}
    turns = "messages"
    output_limits = ("max_tokens", "max_completion_tokens")
    call_id = r".{1,128}"
    marks = (b'"usage":{', b'"usage": {', b"[DONE]", b'"error"', *_CHAT_REASON)

    def claims(self, wire: JSON) -> bool:
        return "choices" in wire or str(wire.get("object", "")).startswith("chat.completion")

    def is_answer(self, wire: JSON) -> bool:
        first = (wire.get("choices") or [{}])[0]
        said = isinstance(first.get("message"), dict) and not self.failure_in(wire)
        return said and not (wire.get("base_resp") or {}).get("status_code")

    def parse_request(self, body: JSON, variant: str = "") -> Request:
        wire = Wire(body)
        wire.rest(_CHAT_REQUEST)
        if (wire.want("n", int) or 1) > 1:
            raise BadRequest("n: more than one answer cannot be asked of this provider")
        parallel = wire.want("parallel_tool_calls", bool)
        if wire.data.get("functions"):  # whose client can be told of one call only
            parallel = False
        user = wire.want("safety_identifier", str) or wire.want("user", str) or ""
        return Request(
            model=wire.want("model", str) or "",
            messages=tuple(map(_chat_message, wire.each("messages", required=True))),
            tools=_chat_tools(wire),
            tool_choice=_chat_choice(wire),
            parallel_tools=parallel,
            max_tokens=wire.want("max_completion_tokens", int) or wire.want("max_tokens", int),
            sampling=Sampling(
                temperature=wire.want("temperature", float),
                top_p=wire.want("top_p", float),
                top_k=wire.want("top_k", int),
                seed=wire.want("seed", int),
                frequency_penalty=wire.want("frequency_penalty", float),
                presence_penalty=wire.want("presence_penalty", float),
            ),
            stop=wire.texts("stop"),
            thinking=_chat_thinking(wire),
            # OpenRouter's word; there is no other, and who says nothing is told
            show_thoughts=False if wire.inner("reasoning").want("exclude", bool) else None,
            format=_chat_format(wire),
            verbosity=wire.want("verbosity", str) or "",
            service_tier=wire.want("service_tier", str) or "",
            user=user,
            session=wire.want("prompt_cache_key", str) or "",
            stream=bool(wire.want("stream", bool)),
            include_usage=bool(wire.inner("stream_options").want("include_usage", bool)),
            dropped=tuple(wire.dropped),
        )

    def render_request(self, request: Request, quirks: ChatQuirks, account: str) -> Rendered:
        return _ChatWriter(request, quirks, account).render()

    def cleaned(self, body: JSON, quirks: ChatQuirks, account: str, strip: bool) -> JSON:
        messages = body.get("messages")
        if not isinstance(messages, list):
            return body
        off = found(body, ("thinking", "type")) == "disabled"
        placeholder = "" if off else quirks.placeholder
        kept = [_chat_cleaned(message, strip, placeholder) for message in messages]
        same = all(new is old for new, old in zip(kept, messages, strict=True))
        return body if same else body | {"messages": kept}

    def is_clean(self, raw: bytes, quirks: ChatQuirks) -> bool:
        return not quirks.placeholder and raw.rfind(b'"reasoning_details"') < 0

    def parse_response(self, wire: JSON) -> Response:
        choice = wire["choices"][0]
        reason = choice.get("finish_reason") or "stop"
        message = choice["message"]
        parts = _chat_output(message)
        refusal = message.get("refusal") or ""
        finish = "content_filter" if refusal else _CHAT_FINISH.get(reason, "stop")
        return Response(
            id=word_of(wire.get("id")),
            model=word_of(wire.get("model")),
            parts=parts,
            finish=finish,
            usage=self.parse_usage(wire) or Usage(),
            detail=refusal,
        )

    def render_response(self, response: Response, asked: Asked) -> JSON:
        refused = response.finish == "content_filter" and response.detail
        message: JSON = {"role": "assistant", "content": None, "refusal": None}
        message |= _chat_said(response.parts, asked.forms)
        if refused:  # once only: a chat provider's refusal has come as text, too
            message["refusal"] = response.detail
            message["content"] = (
                None if message["content"] == response.detail else message["content"]
            )
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _chat_reason(response.finish, _LEGACY in message),
        }
        return {
            "id": _chat_id(response.id or asked.id),
            "object": "chat.completion",
            "created": asked.now,
            "model": asked.model,
            "choices": [choice],
            "usage": _chat_usage(response.usage),
        }

    def parse_usage(self, wire: JSON) -> Usage | None:
        usage = wire.get("usage")
        if not isinstance(usage, dict):  # Kimi puts it into the last choice
            choices = wire.get("choices") or [{}]
            usage = choices[0].get("usage") if isinstance(choices[0], dict) else None
        return _chat_counts(usage) if isinstance(usage, dict) else None

    def failure_in(self, wire: JSON) -> Failure | None:
        reasons = [c.get("finish_reason") for c in wire.get("choices") or () if c]
        if reasons and reasons[0] in _CHAT_BREAK:
            return _gave_up(reasons[0])
        return super().failure_in(wire)

    def is_end(self, data: bytes) -> bool:
        return self.is_last(data) or any(mark in data for mark in _CHAT_REASON)

    def is_last(self, data: bytes) -> bool:
        return data.strip() == b"[DONE]"

    def decoder(self) -> StreamDecoder:
        return _ChatDecoder()

    def encoder(self, asked: Asked) -> StreamEncoder:
        return _ChatEncoder(asked)


# A client's request, read


def _chat_message(wire: Wire) -> Message:
    read = _CHAT_ROLES.get(role := wire.need("role", str))
    if read is None:
        raise BadRequest(f"{wire.path('role')}: unknown role {shown(role)}")
    wire.rest(_CHAT_MESSAGE)
    return read(wire)


def _chat_system(wire: Wire) -> Message:
    return Message("system", _chat_parts(wire))


def _chat_user(wire: Wire) -> Message:
    return Message("user", _chat_parts(wire))


def _chat_tool_message(wire: Wire) -> Message:
    id = wire.want("tool_call_id", str) or wire.want("name", str) or ""
    parts = tuple(p for p in _chat_parts(wire) if isinstance(p, TEXT_OR_MEDIA))
    return Message("user", (ToolResult(id, parts),))


def _chat_assistant(wire: Wire) -> Message:
    parts: list[Part] = [recalled(part.text, part.seal) for part in _chat_thoughts(wire.data)]
    parts += _chat_parts(wire)
    if refusal := wire.want("refusal", str):
        parts.append(Text(refusal))
    for call in wire.each("tool_calls"):
        parts += _chat_called(call)
    if legacy := wire.inner("function_call").data:
        name = str(legacy.get("name", ""))
        parts.append(ToolCall(name, name, str(legacy.get("arguments", ""))))
    return Message("assistant", tuple(parts))


def _chat_called(wire: Wire) -> Iterator[ToolCall]:
    id = wire.need("id", str)
    if "custom" in wire.data:
        custom = wire.inner("custom")
        yield ToolCall(id, custom.need("name", str), freely(custom.want("input", str) or ""))
        return
    function = wire.inner("function")
    name, text = function.need("name", str), function.want("arguments", str) or ""
    for each, one in _chat_split(id, text):
        yield ToolCall(each, name, one)


def _chat_split(id: str, text: str) -> Iterator[tuple[str, str]]:
    """Arguments that are several objects in a row make as many calls, each with an id."""
    try:
        values = json_values(text.encode(errors="surrogatepass")) if _IN_A_ROW.search(text) else ()
    except ValueError:
        values = ()
    if len(values) < 2:
        yield id, text
        return
    for number, value in enumerate(values):
        yield f"{id}_{number + 1}" if number else id, dumps(value).decode()


_IN_A_ROW: Final = re.compile(r"\}\s*\{")

_CHAT_ROLES: Final[dict[str, Callable[[Wire], Message]]] = {
    "system": _chat_system,
    "developer": _chat_system,
    "user": _chat_user,
    "assistant": _chat_assistant,
    "tool": _chat_tool_message,
    "function": _chat_tool_message,
}


def _chat_parts(wire: Wire) -> tuple[Part, ...]:
    if isinstance(content := wire.data.get("content"), str):
        return (Text(content),) if content else ()
    return tuple(part for item in wire.each("content") for part in _chat_part(item))


def _chat_part(wire: Wire) -> Iterator[Part]:
    match kind := wire.want("type", str) or "text":
        case "text" | "refusal":
            if text := wire.want(kind, str):
                yield Text(text)
        case "image_url":
            image = wire.data.get("image_url")
            image = {"url": image} if isinstance(image, str) else image
            said = Wire(image, wire, "image_url")
            detail = said.want("detail", str) or "auto"
            yield detailed(media_from_url(said.need("url", str)), detail)
        case "file":
            file = wire.inner("file")
            name, data = file.want("filename", str) or "", file.want("file_data", str)
            if data is None:  # a file_id is bound to the account that holds the file
                file.drop("file_id")
                return
            data = data if data.startswith("data:") else "data:application/pdf;base64," + data
            yield media_from_url(data, name, "document")
        case "input_audio":
            audio = wire.inner("input_audio")
            mime = "audio/" + (audio.want("format", str) or "wav")
            yield Media("audio", mime, audio.need("data", str))
        case _:
            wire.drop(kind)


def _chat_tools(wire: Wire) -> tuple[Tool, ...]:
    tools = [_chat_tool(item.inner("function"), item) for item in wire.each("tools")]
    legacy = (_chat_tool(item, item) for item in wire.each("functions"))
    tools += [replace(tool, form=_LEGACY) for tool in legacy if tool]
    return tuple(tool for tool in tools if tool)


_LEGACY: Final = "function_call"  # before there were tools: one call, without an id


def _chat_tool(function: Wire, item: Wire) -> Tool | None:
    kind = item.want("type", str) or "function"
    if kind == "custom":
        return _chat_custom_tool(item.inner("custom"))
    if kind != "function":
        item.drop(kind)
        return None
    description = function.want("description", str) or ""
    schema = function.want("parameters", dict) or {}
    return Tool(function.need("name", str), description, schema, function.want("strict", bool))


def _chat_custom_tool(wire: Wire) -> Tool:
    said = freeform(wire.want("description", str) or "", wire.inner("format").inner("grammar"))
    return Tool(wire.need("name", str), said, FREEFORM, form="custom")


def _chat_choice(wire: Wire) -> ToolChoice | None:
    choice = wire.data.get("tool_choice", wire.data.get("function_call"))
    if choice is None:
        return None
    if isinstance(choice, str):
        return ToolChoice(_CHAT_MODES.get(choice, "auto"))
    said = Wire(choice, wire, "tool_choice")
    if said.data.get("type") == "allowed_tools":
        allowed = said.inner("allowed_tools")
        mode = _CHAT_MODES.get(allowed.want("mode", str) or "", "auto")
        return ToolChoice(mode, tuple(map(_chat_chosen, allowed.each("tools"))))
    return ToolChoice("named", (_chat_chosen(said),))


def _chat_chosen(wire: Wire) -> str:
    kind = next((kind for kind in ("function", "custom") if kind in wire.data), "")
    return (wire.inner(kind) if kind else wire).need("name", str)


_CHAT_MODES: Final[dict[str, Literal["auto", "none", "required"]]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
}


def _chat_thinking(wire: Wire) -> Thinking | None:
    """The standard's one field, or one of the vendors' switches."""
    inner, switch = wire.inner("reasoning"), wire.inner("thinking")
    effort = wire.want("reasoning_effort", str) or inner.want("effort", str) or ""
    budgets = ((wire, "thinking_budget"), (inner, "max_tokens"), (switch, "budget_tokens"))
    budget = next((n for at, name in budgets if (n := at.want(name, int)) is not None), None)
    template = wire.inner("chat_template_kwargs", frozenset(("enable_thinking",)))
    kind, enabled = switch.want("type", str), wire.want("enable_thinking", bool)
    for at, name in ((inner, "enabled"), (template, "enable_thinking")):
        enabled = at.want(name, bool) if enabled is None else enabled
    if kind == "disabled" or enabled is False or effort == "none" or budget == 0:
        return Thinking(False)
    said = effort or budget is not None or kind or enabled
    return Thinking(True, effort, budget) if said else None


def _chat_format(wire: Wire) -> Format | None:
    spec = wire.inner("response_format")
    match spec.want("type", str):
        case "json_object":
            return Format()
        case "json_schema":
            inner = spec.inner("json_schema")
            name = inner.want("name", str) or "output"
            return Format(inner.want("schema", dict) or {}, name, inner.want("strict", bool))
        case _:
            return None


# A request that passes through, where it must be edited


def _chat_cleaned(message: Any, strip: bool, placeholder: str) -> Any:
    """A message without details that carry our envelopes: no chat provider minted those.

    And with a placeholder on calls without the reasoning that DeepSeek and Kimi want back,
    because not every client keeps it.
    """
    if not isinstance(message, dict):
        return message
    if placeholder and message.get("tool_calls") and not message.get("reasoning_content"):
        message = message | {"reasoning_content": placeholder}
    details = message.get("reasoning_details")
    if not isinstance(details, list) or not details:
        return message
    ours = any(isinstance(d, dict) and _chat_token(d).startswith("rly1.") for d in details)
    return without(message, ["reasoning_details"]) if ours or strip else message


# A request, written


class _ChatWriter:
    """Renders one request in this format, for a provider with these quirks."""

    def __init__(self, request: Request, quirks: ChatQuirks, account: str) -> None:
        self.request = request
        self.quirks = quirks
        self.account = account
        self.dropped = list(request.dropped)

    def render(self) -> Rendered:
        request, quirks = self.request, self.quirks
        messages = self._messages() or [{"role": "user", "content": "."}]  # none at all is refused
        body: JSON = {"model": request.model, "messages": messages}
        if request.tools:
            body |= self._tools()
        if request.max_tokens is not None:
            body[quirks.max_tokens] = request.max_tokens
        self._sampling(body)
        if request.stop:
            body["stop"] = list(request.stop[:4])
        if request.thinking:
            said = REASONING_STYLES[quirks.reasoning](request.thinking, quirks)
            body |= said
            self.dropped += [] if said or not request.thinking.word() else ["thinking"]
        if request.tools and quirks.tools_effort:
            wanted = body.get("reasoning_effort", quirks.tools_effort)
            self.dropped += ["thinking"] if wanted != quirks.tools_effort else []
            body["reasoning_effort"] = quirks.tools_effort
        if request.format:
            self._format(body, request.format)
        body |= openai_identity(request, self.quirks.identity) | self._hints()
        if request.stream:
            body["stream"] = True
            if quirks.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return Rendered(body, tuple(dict.fromkeys(self.dropped)), request.stop[4:])

    def _messages(self) -> list[JSON]:
        said: list[JSON] = []
        for message in self._placed():
            if message.role == "assistant":
                said.append(self._assistant(message))
            elif message.role == "user":
                said += self._user(message)
            elif text := _chat_text(message.parts):
                said.append({"role": self.quirks.system_role, "content": text})
        if said and said[-1]["role"] == "assistant":
            self._prefill(said)
        return said

    def _prefill(self, said: list[JSON]) -> None:
        """The beginning of an answer: unless marked, it would be taken for a complete one."""
        if self.quirks.prefill:
            said[-1][self.quirks.prefill] = True
        else:
            self.dropped.append("prefill")
            said.pop()

    def _placed(self) -> Iterable[Message]:
        """System messages after the first user message, in the form this provider takes.

        Chat templates of several models (Qwen, Mistral) refuse a system message there; moving it
        to the front would change the prompt's beginning and cost the cache.
        """
        said = self.request.messages
        lead = leading(said)
        if self.quirks.system_in_place or all(m.role != "system" for m in said[lead:]):
            return said
        return repaired((*said[:lead], *map(_chat_placed, said[lead:])))

    def _user(self, message: Message) -> list[JSON]:
        """Tool messages first, then the rest, and what a tool message cannot hold."""
        said, rest = list[JSON](), list[Part]()
        for part in message.parts:
            if isinstance(part, ToolResult):
                said.append(_chat_tool_result(part))
                rest += _chat_shown(part)
            else:
                rest.append(part)
        if rest and (content := self._content(rest)):
            said.append({"role": "user", "content": content})
        return said

    def _content(self, parts: Sequence[Part]) -> str | list[JSON]:
        """One string if there is only text: some servers take nothing else."""
        texts = [part.text for part in parts if isinstance(part, Text)]
        if len(texts) == len(parts):
            return "\n\n".join(filter(None, texts))
        return [
            _chat_media(part) if isinstance(part, Media) else {"type": "text", "text": part.text}
            for part in parts
            if isinstance(part, TEXT_OR_MEDIA)
        ]

    def _assistant(self, message: Message) -> JSON:
        said: JSON = {"role": "assistant", "content": _chat_text(message.parts) or None}
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        said |= self._thoughts(message, bool(calls))
        if calls:
            said["tool_calls"] = list(map(_chat_call, calls))
        elif said["content"] is None:
            said["content"] = ""
        return said

    def _thoughts(self, message: Message, calls: bool) -> JSON:
        quirks = self.quirks
        if quirks.replay == "never" or (quirks.replay == "tool_turns" and not calls):
            return {}
        thoughts = [part for part in message.parts if isinstance(part, Reasoning)]
        text = "\n\n".join([part.text for part in thoughts if part.text])
        text = text or (quirks.placeholder if calls else "")
        if quirks.replay_field != "reasoning_details":
            return {quirks.replay_field: text} if text else {}
        own = [p.seal for p in thoughts if p.seal and p.seal.field == "cd"]
        details = [d for s in own if s.account in ("", self.account) for d in _chat_kept(s)]
        details = details or ([{"type": "reasoning.text", "text": text}] if text else [])
        return {"reasoning_details": details} if details else {}

    def _definition(self, tool: Tool) -> JSON:
        function: JSON = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        function["parameters"] = rooted(tool.schema)
        if self.quirks.tool_strict == "false":
            function["strict"] = False
        elif self.quirks.tool_strict == "as_is" and tool.strict is not None:
            function["strict"] = tool.strict
        return {"type": "function", "function": function}

    def _tools(self) -> JSON:
        """What may be called, and the choice among it as far as this provider lets one choose."""
        request, choice, known = self.request, self.request.tool_choice, self.quirks.tool_choice
        tools = request.tools if "allowed" in known else offered(request)
        said: JSON = {"tools": list(map(self._definition, tools))}
        if choice and choice.mode in known:
            said["tool_choice"] = _chat_choice_spec(choice, "allowed" in known)
        elif choice and choice.mode == "none":
            return {}
        elif choice:
            self.dropped.append("tool_choice")
        if request.parallel_tools is not None:
            said["parallel_tool_calls"] = request.parallel_tools
        return said

    def _hints(self) -> JSON:
        """How much to say, and how soon: OpenAI's words, of which others know few or none."""
        request, quirks = self.request, self.quirks
        said = {
            "verbosity": request.verbosity if quirks.verbosity else "",
            "service_tier": tier if (tier := request.service_tier) in quirks.service_tiers else "",
        }
        self.dropped += [name for name in lost(request, *said) if not said[name]]
        return {name: word for name, word in said.items() if word}

    def _sampling(self, body: JSON) -> None:
        for name, value in self.request.sampling.given().items():
            if name in self.quirks.sampling:
                body[name] = value
            else:
                self.dropped.append(name)

    def _format(self, body: JSON, format: Format) -> None:
        if format.schema is None:
            body["response_format"] = {"type": "json_object"}
        elif self.quirks.json_schema:
            strict = bool(format.strict)
            spec = {"name": format.name, "schema": format.schema, "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": spec}
        else:
            # GLM and DeepSeek know only json_object, and want the word JSON in the prompt
            text = f"{JSON_ONLY} It must fit this JSON Schema: {dumps(format.schema).decode()}"
            body["messages"].insert(0, {"role": self.quirks.system_role, "content": text})
            body["response_format"] = {"type": "json_object"}


def _chat_choice_spec(choice: ToolChoice, subset: bool) -> str | JSON:
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if choice.mode == "named":
        return named[0]
    allowed = {"mode": choice.mode, "tools": named}
    return {"type": "allowed_tools", "allowed_tools": allowed} if named and subset else choice.mode


def _effort_style(thinking: Thinking, quirks: ChatQuirks) -> JSON:
    word = quirks.efforts.get(thinking.word(), thinking.word())
    return {"reasoning_effort": word} if word else {}


def _thinking_style(thinking: Thinking, quirks: ChatQuirks) -> JSON:
    on = thinking.word() != "none"
    said: JSON = {"thinking": {"type": "enabled" if on else "disabled"}}
    return said | (_effort_style(thinking, quirks) if on and quirks.efforts else {})


def _enable_style(thinking: Thinking, quirks: ChatQuirks) -> JSON:
    on = thinking.word() != "none"
    budget = on and (thinking.budget is not None or thinking.effort)
    return {"enable_thinking": on} | ({"thinking_budget": thinking.tokens()} if budget else {})


def _object_style(thinking: Thinking, quirks: ChatQuirks) -> JSON:
    if thinking.budget is not None and not thinking.effort:
        return {"reasoning": {"max_tokens": thinking.budget}}
    word = quirks.efforts.get(thinking.word(), thinking.word())
    return {"reasoning": {"effort": word}} if word else {}


def _template_style(thinking: Thinking, quirks: ChatQuirks) -> JSON:
    return {"chat_template_kwargs": {"enable_thinking": thinking.word() != "none"}}


def _no_style(thinking: Thinking, quirks: ChatQuirks) -> JSON:
    return {}


REASONING_STYLES: Final[dict[str, Callable[[Thinking, ChatQuirks], JSON]]] = {
    "effort": _effort_style,
    "thinking": _thinking_style,
    "enable_thinking": _enable_style,
    "reasoning": _object_style,
    "template": _template_style,
    "none": _no_style,
}


def _chat_text(parts: Iterable[Part]) -> str:
    return "\n\n".join([part.text for part in parts if isinstance(part, Text) and part.text])


def _chat_placed(message: Message) -> Message:
    if message.role != "system":
        return message
    text = f"<system-reminder>\n{_chat_text(message.parts)}\n</system-reminder>"
    return Message("user", (Text(text),))


def _chat_media(media: Media) -> JSON:
    match media:
        case Media(kind="image", detail=detail):
            # `original` is young, and says no more than `high` to who does not know it
            known = {"detail": "low" if detail == "low" else "high"} if detail else {}
            return {"type": "image_url", "image_url": {"url": data_url(media)} | known}
        case Media(kind="audio"):
            return {"type": "input_audio", "input_audio": openai_audio(media)}
        case Media(kind="text", data=data, name=name):
            return {"type": "text", "text": f"[document {name}]\n{data}"}
        case Media(url=url) if url:
            return {"type": "text", "text": f"[document {url}]"}
        case Media(name=name):
            file = {"filename": name or "document.pdf", "file_data": data_url(media)}
            return {"type": "file", "file": file}


def _chat_call(call: ToolCall) -> JSON:
    function = {"name": call.name, "arguments": call.text or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _chat_custom_call(call: ToolCall) -> JSON:
    custom = {"name": call.name, "input": FreeText().rest(call.text)}
    return {"id": call.id, "type": "custom", "custom": custom}


def _chat_tool_result(result: ToolResult) -> JSON:
    text = _chat_text(result.parts)
    for part in result.parts:
        if isinstance(part, Media) and part.kind == "text":
            text += f"\n\n[document {part.name}]\n{part.data}"
    text = text or "(no output)"
    text = f"Error: {text}" if result.is_error else text
    return {"role": "tool", "tool_call_id": result.call_id, "content": text}


def _chat_shown(result: ToolResult) -> list[Part]:
    """Pictures and the like, for a message of their own."""
    media = [part for part in result.parts if isinstance(part, Media) and part.kind != "text"]
    if not media:
        return []
    return [Text(f"[{media[0].kind} output of tool call {result.call_id}]"), *media]


# An answer, read and written


def _chat_output(message: JSON) -> tuple[OutputPart, ...]:
    parts: list[OutputPart] = list(_chat_thoughts(message, "cr"))
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    for item in content if isinstance(content, list) else ():  # Mistral
        thought = item.get("thinking")
        if isinstance(thought, list):
            parts.append(Reasoning("".join(t.get("text", "") for t in thought), Seal("cr")))
        else:
            text += item.get("text") or ""
    if text := text or message.get("refusal") or "":
        parts.append(Text(text))
    legacy = message.get("function_call")  # before there were tools
    for call in message.get("tool_calls") or ([{"function": legacy}] if legacy else ()):
        function = call["function"]
        arguments = function.get("arguments") or ""
        arguments = arguments if isinstance(arguments, str) else dumps(arguments).decode()
        parts.append(ToolCall(word_of(call.get("id")), function["name"], arguments))
    return tuple(parts)


def _chat_thoughts(message: JSON, plain: str = "") -> Iterator[Reasoning]:
    """The reasoning in a message, in any provider's fields; `plain`: the seal for bare text."""
    details = message.get("reasoning_details")
    details = [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    if any(map(_chat_token, details)):
        yield from _chat_details(details)
    elif text := message.get("reasoning_content") or message.get("reasoning"):
        yield Reasoning(str(text), Seal(plain) if plain else None)
    elif text := "".join(map(_chat_detail_text, details)):
        yield Reasoning(text, Seal(plain) if plain else None)


def _chat_details(details: Sequence[JSON]) -> Iterator[Reasoning]:
    """reasoning_details: ours, one per sealed thought, or OpenRouter's, kept as they are."""
    tokens = list(map(_chat_token, details))
    if not any(token.startswith("rly1.") for token in tokens):
        text = "".join(map(_chat_detail_text, details))
        yield Reasoning(text, Seal("cd", dumps(list(details)).decode()))
        return
    for detail, token in zip(details, tokens, strict=True):
        yield Reasoning(str(detail.get("text") or ""), opened(token, "cd") if token else None)


def _chat_kept(seal: Seal) -> list[JSON]:
    """The details in a seal; a client may have sent anything instead."""
    try:
        details = loads(seal.value)
    except ValueError:
        return []
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _chat_token(detail: JSON) -> str:
    return str(detail.get("signature") or detail.get("data") or "")


def _chat_detail_text(detail: JSON) -> str:
    return str(detail.get("text") or detail.get("summary") or "")


def _chat_said(parts: Sequence[OutputPart], forms: Mapping[str, str]) -> JSON:
    """What a message says, for a client of this dialect."""
    said, texts, thoughts, calls = JSON(), list[str](), list[Reasoning](), list[JSON]()
    for part in parts:
        match part:
            case Text(text):
                texts.append(text)
            case Reasoning():
                thoughts.append(part)
            case ToolCall():
                free = forms.get(part.name) == "custom"
                calls.append(_chat_custom_call(part) if free else _chat_call(part))
    if texts:
        said["content"] = "".join(texts)
    if text := "".join(part.text for part in thoughts):
        said["reasoning_content"] = text
    if any(map(_chat_sealed, thoughts)):  # then all: readers of details read nothing else
        said["reasoning_details"] = [_chat_detail(i, p) for i, p in enumerate(thoughts)]
    if calls and _LEGACY in (forms.get(part.name) for part in parts if isinstance(part, ToolCall)):
        said[_LEGACY] = calls[0].get("function")
    elif calls:
        said["tool_calls"] = calls
    return said


def _chat_reason(finish: FinishReason, legacy: bool) -> str:
    said = _CHAT_STOP.get(finish, finish)
    return _LEGACY if legacy and said == "tool_calls" else said


def _chat_sealed(part: Reasoning) -> bool:
    """Does it need more than its plain text?  Only a chat provider's own does not."""
    return part.seal is None or part.seal.field != "cr" or bool(part.seal.text)


def _chat_detail(index: int, part: Reasoning) -> JSON:
    token = enveloped(part.seal) if part.seal else ""
    if part.text:
        signed = {"signature": token} if token else {}
        return {"type": "reasoning.text", "text": part.text, "index": index} | signed
    return {"type": "reasoning.encrypted", "data": token, "index": index}


def _chat_counts(usage: JSON) -> Usage:
    """Token counts in any spelling: OpenAI, DeepSeek, Kimi, and clones with Anthropic's names."""
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    read = whole_number(
        prompt.get("cached_tokens")
        or usage.get("prompt_cache_hit_tokens")
        or usage.get("cached_tokens")
        or usage.get("cache_read_input_tokens")
    )
    write = whole_number(
        prompt.get("cache_write_tokens") or usage.get("cache_creation_input_tokens")
    )
    total = whole_number(usage.get("prompt_tokens"))
    said = whole_number(usage.get("completion_tokens"))
    thought = whole_number(completion.get("reasoning_tokens"))
    apart = whole_number(usage.get("total_tokens")) == total + said + thought  # xAI
    return Usage(
        input=total if total >= read + write else total + read + write,  # counted without them
        output=said + thought if apart else max(said, thought),
        cache_read=read,
        cache_write=write,
        reasoning=thought,
    )


def _chat_usage(usage: Usage) -> JSON:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _chat_id(id: str) -> str:
    return id if id.startswith("chatcmpl-") else "chatcmpl-" + id.removeprefix("msg_")


def _gave_up(reason: str) -> Failure:
    return Failure(f"gave up: {reason}", cause="overloaded")


_CHAT_THOUGHTS: Final = frozenset(("reasoning_content", "reasoning", "reasoning_details"))
_CHAT_TEXT: Final = Text()


class _ChatDecoder(StreamDecoder):
    """chat.completion.chunk objects to events.

    Nothing says when a part ends, so a part is closed when another begins; and the finish
    reason waits for the usage that may follow it in a chunk of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[int, _Slot] = {}  # by the index providers give a call
        self._last: _Slot | None = None
        self._details: dict[object, JSON] = {}
        self._plain = False  # has reasoning come as plain text?

    def _done(self) -> None:
        if not self._finish and self._live and isinstance(self._live.part, ToolCall):
            self._finish = "tool_calls" if self._live.is_complete() else "length"
        self._end()

    def _object(self, wire: JSON) -> None:
        odd = wire.get("error") or "base_resp" in wire or "choices" not in wire
        if odd and (failure := failure_in(wire)):
            self._fail(failure)
            return
        if not self._begun and (id := wire.get("id")):  # Azure's first chunk has none yet
            self._start(word_of(id), word_of(wire.get("model")))
        if usage := CHAT.parse_usage(wire):
            self._usage = latest(self._usage, usage)
        for choice in wire.get("choices") or ():
            if not choice.get("index") and not self.ended:  # only the first answer is translated
                self._choice(choice)

    def _choice(self, choice: JSON) -> None:
        """A chunk may hold all kinds at once; they are taken in the order of a message."""
        delta = choice.get("delta") or choice.get("message") or {}
        if not delta.keys().isdisjoint(_CHAT_THOUGHTS):
            self._thought(delta)
        content = delta.get("content")
        if isinstance(content, list):  # Mistral
            self._list(content)
        elif content:
            self._more("text", _CHAT_TEXT, content)
        if refusal := delta.get("refusal"):
            self._finish, self._detail = "content_filter", self._detail + refusal
            self._more("text", Text(), refusal)
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if legacy := delta.get("function_call"):  # before there were tools
            self._call({"index": 0, "function": legacy})
        if reason := choice.get("finish_reason"):
            self._finished(reason)

    def _finished(self, reason: str) -> None:
        if reason in _CHAT_BREAK:
            self._fail(_gave_up(reason))
        elif self._finish != "content_filter":
            self._finish = _CHAT_FINISH.get(reason, "stop")

    def _thought(self, delta: JSON) -> None:
        """Plain text if there is any, because the details then only repeat it."""
        text = delta.get("reasoning_content") or delta.get("reasoning") or ""
        self._plain |= bool(text)
        details = delta.get("reasoning_details") or ()
        for detail in details:
            self._detailed(detail)
            if not self._plain:
                text += _chat_detail_text(detail)
        if text or details:
            self._more("reasoning", Reasoning(), text)

    def _detailed(self, detail: JSON) -> None:
        """OpenRouter sends its details in pieces: the same index and type is one detail."""
        key = (detail.get("index"), detail.get("type"))
        old = self._details.setdefault(key, {})
        for name, value in detail.items():
            if name in ("text", "summary", "data"):
                old.setdefault(name, []).append(word_of(value))
            elif value is not None:
                old[name] = value

    def _list(self, content: Sequence[JSON]) -> None:
        for item in content:
            if isinstance(thought := item.get("thinking"), list):
                thoughts = "".join(t.get("text", "") for t in thought)
                self._more("reasoning", Reasoning(), thoughts)
            elif text := item.get("text"):
                self._more("text", Text(), text)

    def _call(self, call: JSON) -> None:
        function = call.get("function") or {}
        id, name = word_of(call.get("id")), word_of(function.get("name"))
        said = function.get("arguments") or ""
        text = said if isinstance(said, str) else dumps(said).decode()
        slot = self._slot(call.get("index"), id, name)
        if slot is None:
            slot = self._last = _Slot()
            if isinstance(call.get("index"), int):
                self._slots[call["index"]] = slot
        news = slot.news(text, again=bool(id and id == slot.id) or bool(name and slot.name))
        slot.id = slot.id or id
        if slot.name:
            self._delta(slot, news)
        elif name:  # a call begins when its name is known
            slot.name = name
            self._part(slot, ToolCall(slot.id, name))
            self._delta(slot, slot.text())

    def _slot(self, index: object, id: str, name: str) -> _Slot | None:
        """The call a fragment belongs to; None when it begins a new one.

        Normally by its index.  Ollama and LiteLLM's bridge give every call index 0 and tell
        calls apart by id; vLLM repeats id and name in every fragment; some give no index, and
        some no id, so that a name after complete arguments is the next call's.
        """
        slot = self._slots.get(index) if isinstance(index, int) else self._last
        if slot is None or (id and slot.id and id != slot.id):
            return None
        next_one = name and slot.name and not id and parse_object(slot.text()) is not None
        return None if next_one else slot

    def _seal(self) -> Seal | None:
        if not self._live or not isinstance(self._live.part, Reasoning):
            return None
        details = [_joined(detail) for detail in self._details.values()]
        self._details = {}
        if not any(map(_chat_token, details)):
            return Seal("cr")
        return next((thought.seal for thought in _chat_details(details) if thought.seal), None)


def _joined(detail: JSON) -> JSON:
    pieces = ("text", "summary", "data")
    return {name: "".join(v) if name in pieces else v for name, v in detail.items()}


class _Slot:
    """A tool call being streamed, and its arguments so far."""

    __slots__ = ("id", "name", "pieces", "size")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.size = 0

    def text(self) -> str:
        return "".join(self.pieces)

    def news(self, text: str, again: bool) -> str:
        """What is new in a fragment.

        Servers that send id or name `again` in every fragment may also send all the arguments
        again every time.
        """
        if again and 1 < self.size <= len(text) and text.startswith(whole := self.text()):
            text = text[len(whole) :]
        self.pieces.append(text)
        self.size += len(text)
        return text


class _ChatEncoder:
    """Events to chat.completion.chunk objects and [DONE]."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._head: JSON = {
            "id": _chat_id(asked.id),
            "object": "chat.completion.chunk",
            "created": asked.now,
            "model": asked.model,
        }
        self._part: OutputPart = Text()
        self._form = b""  # of the part's deltas
        self._texts: list[str] = []
        self._free: FreeText | None = None  # of a call whose client takes the input as it is
        self._legacy = False  # was a call of the kind made that was before there were tools?
        self._calls = 0
        self._thoughts = 0

    def encode(self, event: Event) -> bytes:
        match event:
            case PartDelta(text):
                self._texts.append(text)
                text = self._free.feed(text) if self._free else text
                return self._form % dumps(text) if text else b""
            case Start(id):
                self._head["id"] = _chat_id(id or self._asked.id)
                return self._delta({"role": "assistant", "content": ""})
            case PartStart(part):
                return self._open(part)
            case PartEnd(seal):
                return self._close(seal)
            case Finish():
                return self._finish(event)
            case Failure():
                return CHAT.error_event(error_of(event), self._asked.id)

    def alive(self) -> bytes:
        return self._delta({})

    def _open(self, part: OutputPart) -> bytes:
        self._part, self._texts = part, []
        match part:
            case ToolCall(id, name):
                return self._called(id, name)
            case Reasoning():
                self._form = form_of(self._delta({"reasoning_content": HOLE}))
            case Text():
                self._form = form_of(self._delta({"content": HOLE}))
        return b""

    def _called(self, id: str, name: str) -> bytes:
        form = self._asked.forms.get(name)
        if form == _LEGACY:
            return self._called_so(_LEGACY, {"name": name, "arguments": ""}, {"arguments": HOLE})
        kind, slot = ("custom", "input") if form == "custom" else ("function", "arguments")
        self._free = FreeText() if form == "custom" else None
        call = {"index": self._calls, "id": id, "type": kind, kind: {"name": name, slot: ""}}
        more = {"index": self._calls, kind: {slot: HOLE}}
        self._calls += 1
        return self._called_so("tool_calls", [call], [more])

    def _called_so(self, key: str, call: object, more: object) -> bytes:
        self._legacy |= key == _LEGACY
        self._form = form_of(self._delta({key: more}))
        return self._delta({key: call})

    def _close(self, seal: Seal | None) -> bytes:
        if free := self._free:
            self._free = None
            rest = free.rest("".join(self._texts))
            return self._form % dumps(rest) if rest else b""
        if isinstance(self._part, ToolCall) and not self._texts:
            return self._form % dumps("{}")
        part = Reasoning("".join(self._texts), seal)
        if isinstance(self._part, Reasoning) and _chat_sealed(part):
            self._thoughts += 1
            return self._delta({"reasoning_details": [_chat_detail(self._thoughts - 1, part)]})
        return b""

    def _finish(self, finish: Finish) -> bytes:
        refused = finish.reason == "content_filter" and finish.detail
        said = "".join(self._texts) == finish.detail and isinstance(self._part, Text)
        delta = {"refusal": finish.detail} if refused and not said else {}
        last = self._delta(delta, _chat_reason(finish.reason, self._legacy))
        if self._asked.usage:
            last += sse(self._head | {"choices": [], "usage": _chat_usage(finish.usage)})
        return last + b"data: [DONE]\n\n"

    def _delta(self, delta: JSON, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse(self._head | {"choices": [choice]})


CHAT: Final = OpenAIChat()


# ==== 8. Dialect: OpenAI Responses ============================================
# https://platform.openai.com/docs/api-reference/responses and the types of the openai SDK.
# There are no turns: a conversation is a flat list of typed items, and so is an answer.  A tool's
# calls must come back as the kind of item that the tool was offered as, or Codex does not
# recognise them; in the hub every tool is a function, and `Tool.form` remembers the kind.
#
#     in the hub     an item here
#     Text           message            with parts: output_text, refusal, input_text, ...
#     Reasoning      reasoning          summary, and encrypted_content: the opaque slot
#     ToolCall       function_call      also custom_tool_call, local_shell_call, ... (`_Kind`)
#     ToolResult     ..._output         paired by call_id
#
# A stream is
#
#     response.created  response.in_progress
#     (output_item.added  (..._part.added  ....delta*  ....done)*  output_item.done)*
#     response.completed | response.incomplete | response.failed      the whole answer again
#
# each event numbered.  Codex acts on output_item.done and the last event only; opencode, Kimi
# and Cline on `added` and the deltas; Copilot on the `output` of the last event.  So all of them
# are sent, and the last event is assembled from those before it, as is a whole answer.

_RESPONSES_FINISH: Final[dict[str, FinishReason]] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
# Status, and why it is incomplete; every other finish is "completed".
_RESPONSES_CUT: Final[dict[FinishReason, str]] = {
    "length": "max_output_tokens",
    "context_length": "max_output_tokens",
    "content_filter": "content_filter",
}
_RESPONSES_LAST: Final = (
    b'"response.completed"',
    b'"response.incomplete"',
    b'"response.failed"',
)
# These refer to what the provider of an earlier answer keeps.
_RESPONSES_STATE: Final = ("previous_response_id", "conversation", "prompt", "background")
_SENT_ANYWAY: Final = ("reasoning.encrypted_content",)  # of what `include` may ask for
_RESPONSES_REQUEST: Final = frozenset(_RESPONSES_STATE) | frozenset(
    "model input instructions tools tool_choice parallel_tool_calls max_output_tokens temperature"
    " top_p reasoning text stream stream_options user safety_identifier prompt_cache_key"
    " service_tier"
    # `store` asks to keep the answer, which no other provider need do; the others say what OpenAI
    # is to cache or send back, and who the client is (Codex: its folders, its installation)
    " store include prompt_cache_options prompt_cache_retention client_metadata".split()
)
_RESPONSES_ITEM: Final = frozenset(
    # `phase` and `caller` mean something to OpenAI's models alone
    "type id role content status phase summary encrypted_content call_id name namespace arguments"
    " input output action operation execution tools caller environment reasoning text".split()
)
_RESPONSES_PART: Final = frozenset(
    "type text refusal annotations logprobs image_url detail file_id file_url file_data filename"
    " input_audio prompt_cache_breakpoint".split()
)
_RESPONSES_TOOL: Final = frozenset(
    "type name description parameters strict format tools execution defer_loading output_schema"
    " allowed_callers async environment".split()
)

_STRINGS: Final[JSON] = {"type": "array", "items": {"type": "string"}}


@frozen
class _Kind:
    """A kind of tool: the items of its calls, and for tools without a name their parameters."""

    item: str  # the type of a call; its result's has _output after it
    prefix: str  # of an item's id
    slot: str  # the field of a call that holds its arguments
    constant: JSON = field(default_factory=dict)  # always the same in the slot
    default: JSON = field(default_factory=dict)  # required in the slot
    purpose: str = ""
    schema: JSON = field(default_factory=dict)


_KINDS_OF_TOOL: Final[dict[str, _Kind]] = {
    "function": _Kind("function_call", "fc_", "arguments"),
    "custom": _Kind("custom_tool_call", "ctc_", "input"),
    "tool_search": _Kind("tool_search_call", "tsc_", "arguments"),
    "local_shell": _Kind(
        "local_shell_call",
        "lsh_",
        "action",
        constant={"type": "exec"},
        default={"command": [], "env": {}},
        purpose="Run a command on the user's machine.",
        schema={
            "type": "object",
            "properties": {
                "command": _STRINGS,
                "working_directory": {"type": "string"},
                "timeout_ms": {"type": "integer"},
            },
            "required": ["command"],
        },
    ),
    "shell": _Kind(
        "shell_call",
        "sh_",
        "action",
        default={"commands": []},
        purpose="Run shell commands, each in a shell of its own.",
        schema={
            "type": "object",
            "properties": {
                "commands": _STRINGS,
                "timeout_ms": {"type": "integer"},
                "max_output_length": {"type": "integer"},
            },
            "required": ["commands"],
        },
    ),
    "apply_patch": _Kind(
        "apply_patch_call",
        "apc_",
        "operation",
        default={"type": "update_file", "path": ""},
        purpose="Create, change or delete a file; `diff` is a unified diff without file headers.",
        schema={
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                "path": {"type": "string"},
                "diff": {"type": "string"},
            },
            "required": ["type", "path"],
        },
    ),
}
_NAMED: Final = ("function", "custom")  # of each other kind there is only one tool
_CALLS: Final = {kind.item: name for name, kind in _KINDS_OF_TOOL.items()}

# What a model is asked if a client wants its conversation compacted and the provider has no
# endpoint for that; and how the summary is introduced in the next request.
_HANDOVER: Final = (
    "Stop working now and write a handover. Somebody else goes on with this work and will see"
    " nothing of the conversation but your text. Be exact about: what the user asked for and"
    " ruled out, in the user's own words where they matter; what was done and decided, and why;"
    " how things stand: files, commands, results, errors; what is left to do, and what comes"
    " next. Answer with the handover alone and call no tool."
)
_HANDED_OVER: Final = "[The conversation up to here was compacted. What is known of it:]\n\n"


@frozen(kw_only=True)
class ResponsesQuirks(Quirks):
    # What of these it takes, else it is auto; "allowed": a subset to choose from, else cut out
    tool_choice: tuple[str, ...] = ("auto", "none", "required", "named", "allowed")
    sampling: tuple[str, ...] = ("temperature", "top_p")  # there are no more
    identity: tuple[str, ...] = ("prompt_cache_key",)  # of user, safety_identifier and this
    unsigned: bool = False  # wants earlier reasoning back, whoever made it
    placeholder: str = ""  # goes where reasoning is missing on a turn with tool calls


class OpenAIResponses(OpenAIDialect):
    name = "responses"
    quirks = ResponsesQuirks
    path = "/responses"
    purposes: ClassVar = {
        "/responses": "answer",
        "/responses/compact": "answer",
        "/responses/input_tokens": "count",
    }
    call_id = r".{1,64}"
    turns = "input"
    output_limits = ("max_output_tokens",)
    uncounted = frozenset(
        "stream stream_options store include max_output_tokens max_tool_calls temperature top_p"
        " top_logprobs metadata user safety_identifier prompt_cache_key prompt_cache_options"
        " prompt_cache_retention service_tier background client_metadata".split()
    )
    marks = (*_RESPONSES_LAST, b'"error"')
    telling = (b'"compaction_trigger"',)

    def claims(self, wire: JSON) -> bool:
        words = (wire.get("type"), wire.get("object"))
        return any(isinstance(w, str) and (w + ".").startswith("response.") for w in words)

    def is_answer(self, wire: JSON) -> bool:
        kind = str(wire.get("object", ""))
        said = kind.startswith("response") and isinstance(wire.get("output"), list)
        return said and not self.failure_in(wire)

    def address(self, url: str, model: str, stream: bool, variant: str = "") -> str:
        url = super().address(url, model, stream, variant)
        return _below(url, "compact") if variant == "compact" else url

    def counting(self, url: str) -> str:
        return _below(url, "input_tokens")

    def peek(self, body: JSON, address: str) -> Peek:
        peek = super().peek(body, address)
        if address.partition("?")[0].rstrip("/").endswith("/compact"):
            return peek._replace(variant="compact")
        items = body.get("input")
        last = items[-1] if isinstance(items, list) and items else None
        triggered = isinstance(last, dict) and last.get("type") == "compaction_trigger"
        return peek._replace(variant="trigger") if triggered else peek

    def echoed(self, body: JSON) -> JSON:
        said = {name: body[name] for name in _RESPONSES_ECHOED if body.get(name) is not None}
        for name in _RESPONSES_SETTINGS & said.keys():
            said[name] = _both(_RESPONSES_UNSAID[name], said[name])
        return said

    def parse_request(self, body: JSON, variant: str = "") -> Request:
        wire = Wire(_reconfigured(body))
        wire.rest(_RESPONSES_REQUEST)
        if any(each not in _SENT_ANYWAY for each in wire.want("include", list) or ()):
            wire.drop("include")
        _refuse_state(wire)
        messages = _responses_messages(wire)
        choice, format = _responses_choice(wire), _responses_format(wire)
        if variant:  # a compaction: the tools stay, for they are part of the prefix
            messages.append(Message("user", (Text(_HANDOVER),)))
            choice, format = ToolChoice("none"), None
        return Request(
            model=wire.want("model", str) or "",
            messages=tuple(messages),
            tools=_responses_tools(wire),
            tool_choice=choice,
            parallel_tools=wire.want("parallel_tool_calls", bool),
            max_tokens=wire.want("max_output_tokens", int),
            sampling=Sampling(
                temperature=wire.want("temperature", float), top_p=wire.want("top_p", float)
            ),
            thinking=_responses_thinking(wire),
            show_thoughts=_responses_summary(wire),
            format=format,
            verbosity=wire.inner("text", _RESPONSES_TEXT).want("verbosity", str) or "",
            service_tier=wire.want("service_tier", str) or "",
            user=wire.want("safety_identifier", str) or wire.want("user", str) or "",
            session=wire.want("prompt_cache_key", str) or "",
            stream=bool(wire.want("stream", bool)),
            dropped=tuple(wire.dropped),
        )

    def render_request(self, request: Request, quirks: ResponsesQuirks, account: str) -> Rendered:
        return _ResponsesWriter(request, quirks, account).render()

    def cleaned(self, body: JSON, quirks: ResponsesQuirks, account: str, strip: bool) -> JSON:
        items = body.get("input")
        if not isinstance(items, list):
            return body
        kept = [_responses_cleaned(item, quirks, account, strip) for item in items]
        if all(map(operator.is_, kept, items)):
            return body
        return body | {"input": [item for item in kept if item is not None]}

    def is_clean(self, raw: bytes, quirks: ResponsesQuirks) -> bool:
        return raw.rfind(b'"rly1.') < 0

    def parse_response(self, wire: JSON) -> Response:
        items = wire["output"]
        parts = tuple(part for item in items for part in _responses_output(item))
        refusal = "".join(_refusal_in(item) for item in items)
        called = any(isinstance(part, ToolCall) for part in parts)
        return Response(
            id=word_of(wire.get("id")),
            model=word_of(wire.get("model")),
            parts=parts,
            finish=true_finish("content_filter" if refusal else _responses_finish(wire), called),
            usage=self.parse_usage(wire) or Usage(),
            detail=refusal,
        )

    def render_response(self, response: Response, asked: Asked) -> JSON:
        encoder = self.encoder(asked)
        for event in unfold(response):
            encoder.encode(event)
        return encoder.answer

    def parse_usage(self, wire: JSON) -> Usage | None:
        usage = (wire.get("response") or wire).get("usage")
        if not isinstance(usage, dict):
            return None
        details = usage.get("input_tokens_details") or {}
        read = whole_number(details.get("cached_tokens"))
        write = whole_number(details.get("cache_write_tokens"))
        total = whole_number(usage.get("input_tokens"))
        thought = (usage.get("output_tokens_details") or {}).get("reasoning_tokens")
        return Usage(
            input=total if total >= read + write else total + read + write,  # counted without them
            output=whole_number(usage.get("output_tokens")),
            cache_read=read,
            cache_write=write,
            reasoning=whole_number(thought),
        )

    def failure_in(self, wire: JSON) -> Failure | None:
        kind = wire.get("type")
        if kind == "error" and not wire.get("error"):
            return Failure(word_of(wire.get("message")), word_of(wire.get("code")))
        failed = kind == "response.failed"
        answer = wire["response"] if failed else wire
        if failed or answer.get("status") in ("failed", "cancelled"):
            nothing = Failure("failed, and did not say why", cause="transient")
            return failure_in(answer) if answer.get("error") else nothing
        return super().failure_in(answer)

    def is_end(self, data: bytes) -> bool:
        return any(mark in data for mark in _RESPONSES_LAST)

    def is_last(self, data: bytes) -> bool:
        """Only if it is complete: it is the longest event of all, and may be cut off."""
        try:
            return self.is_end(data) and isinstance(loads(data), dict)
        except ValueError:
            return False

    def error_event(self, error: RelayError, request_id: str, variant: str = "") -> bytes:
        return _ResponsesEncoder(Asked("", request_id)).failed(error)

    def decoder(self) -> StreamDecoder:
        return _ResponsesDecoder()

    def encoder(self, asked: Asked) -> _ResponsesEncoder:
        return _CompactionEncoder(asked) if asked.variant else _ResponsesEncoder(asked)

    def render_count(self, tokens: int) -> JSON:
        return {"object": "response.input_tokens", "input_tokens": tokens}

    def parse_count(self, wire: JSON) -> int:
        return operator.index(wire["input_tokens"])


def _below(url: str, name: str) -> str:
    path, mark, query = url.partition("?")
    return f"{path}/{name}{mark}{query}"


# A client's request, read


_RESPONSES_TEXT: Final = frozenset(("format", "verbosity"))
_RESPONSES_REASONING: Final = frozenset(("effort", "summary", "generate_summary", "context"))


def _refuse_state(wire: Wire) -> None:
    """What another provider keeps is out of reach, and to go on without it would be wrong."""
    for name in _RESPONSES_STATE:
        if wire.data.get(name):
            raise BadRequest(
                f"{name}: kept by the provider that answered first, and this model is served by one"
                " that keeps nothing; send the whole conversation in `input`, with store: false"
            )


def _reconfigured(body: JSON) -> JSON:
    """The request as the items in it that change its settings leave it."""
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") == "configuration_update":
            for name in _RESPONSES_SETTINGS & item.keys():
                old, new = body.get(name), item[name]
                body = body | {name: _both(old, new)}
    return body


def _both(old: Any, new: Any) -> Any:
    return old | new if isinstance(old, dict) and isinstance(new, dict) else new


_RESPONSES_SETTINGS: Final = frozenset(("reasoning", "text"))
_RESPONSES_UNSAID: Final = {
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}},
}
# Not the instructions and the tools: Codex's are 60 KB, which a stream would hold three times.
_RESPONSES_ECHOED: Final = (
    "max_output_tokens metadata parallel_tool_calls prompt_cache_key reasoning safety_identifier"
    " temperature text tool_choice top_p truncation user"
).split()


def _responses_messages(wire: Wire) -> list[Message]:
    messages: list[Message] = []
    if instructions := wire.want("instructions", str):
        messages.append(Message("system", (Text(instructions),)))
    if isinstance(said := wire.data.get("input"), str):
        return [*messages, Message("user", (Text(said),))]
    for item in wire.each("input", required=True):
        kind = item.want("type", str) or "message"
        if read := _RESPONSES_ITEMS.get(kind):
            item.rest(_RESPONSES_ITEM)
            messages += read(item)
        else:
            item.drop(kind)
    return messages


def _responses_message(wire: Wire) -> Iterator[Message]:
    role = _RESPONSES_ROLES.get(said := wire.need("role", str))
    if role is None:
        raise BadRequest(f"{wire.path('role')}: unknown role {shown(said)}")
    if parts := _responses_parts(wire, "content"):
        yield Message(role, parts)


_RESPONSES_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


def _responses_parts(wire: Wire, name: str) -> tuple[Text | Media, ...]:
    if isinstance(content := wire.data.get(name), str):
        return (Text(content),) if content else ()
    parts: list[Text | Media] = []
    for part in wire.each(name):
        part.rest(_RESPONSES_PART)
        parts += _responses_part(part)
    return tuple(parts)


def _responses_part(wire: Wire) -> Iterator[Text | Media]:
    match kind := wire.need("type", str):
        case "input_text" | "output_text" | "text" | "refusal":
            if text := wire.want("refusal" if kind == "refusal" else "text", str):
                yield Text(text)
        case "input_image" if url := wire.want("image_url", str):
            yield detailed(media_from_url(url), wire.want("detail", str) or "auto")
        case "input_file" if data := wire.want("file_data", str):
            data = data if data.startswith("data:") else "data:application/pdf;base64," + data
            yield media_from_url(data, wire.want("filename", str) or "", "document")
        case "input_file" if url := wire.want("file_url", str):
            yield media_from_url(url, wire.want("filename", str) or "", "document")
        case "input_audio":
            audio = wire.inner("input_audio")
            mime = "audio/" + (audio.want("format", str) or "wav")
            yield Media("audio", mime, audio.need("data", str))
        case _:  # a file_id is bound to the account that holds the file
            wire.drop("file_id" if wire.data.get("file_id") else kind)


def _responses_thought(wire: Wire) -> Iterator[Message]:
    seal = opened(_responses_token(wire.data), "re")
    known = seal if seal.value.strip() or seal.text else None
    part = recalled(_thought_text(wire.data), known)
    if part != Reasoning():
        yield Message("assistant", (part,))


def _thought_text(item: JSON) -> str:
    """The summary, or the full reasoning if a provider shows that."""
    for name in ("summary", "content"):
        if texts := [text for part in item.get(name) or () if (text := part.get("text"))]:
            return "\n\n".join(texts)
    return ""


def _responses_token(item: JSON) -> str:
    """What a seal holds: the item's id, to which OpenAI ties it, and the encrypted content.

    An envelope holds both already.
    """
    token = word_of(item.get("encrypted_content"))
    return token if token.startswith("rly1.") else f"{word_of(item.get('id'))} {token}"


def _responses_call(wire: Wire) -> Iterator[Message]:
    if wire.data.get("call_id") is None and wire.data["type"] == "tool_search_call":
        return  # one that ran at the provider
    for name in ("call_id", "name", "namespace"):
        wire.want(name, str)
    yield Message("assistant", (_responses_called(wire.data),))


def _responses_called(item: JSON) -> ToolCall:
    """A call of any kind as a function call, which is what it is in the hub."""
    name = _CALLS[item["type"]]
    kind, said = _KINDS_OF_TOOL[name], item.get(_KINDS_OF_TOOL[name].slot)
    if name == "custom":
        text = freely(word_of(said))
    elif isinstance(said, dict):
        text = dumps({k: v for k, v in said.items() if k not in kind.constant}).decode()
    else:
        text = word_of(said)
    id = item.get("call_id") or item.get("id") or ""
    return ToolCall(word_of(id), _qualified(item.get("namespace"), item.get("name") or name), text)


def _qualified(namespace: str | None, name: str) -> str:
    """One name for a tool in a namespace; Codex's for MCP servers end in __ already."""
    mark = "" if not namespace or namespace.endswith("__") else "__"
    return f"{namespace or ''}{mark}{name}"


def _responses_result(wire: Wire) -> Iterator[Message]:
    output = wire.data.get("output")
    if isinstance(output, list) and wire.data["type"] == "shell_call_output":
        parts: tuple[Text | Media, ...] = (Text(dumps(output).decode()),)
    else:
        parts = _responses_parts(wire, "output")
    id = wire.want("call_id", str) or wire.need("id", str)
    yield Message("user", (ToolResult(id, parts, wire.data.get("status") == "failed"),))


def _responses_search(wire: Wire) -> Iterator[Message]:
    """Tools that a search has found; the list of tools says that they may now be called."""
    if id := wire.want("call_id", str):
        names = ", ".join(tool.name for tool in _offered_in(wire)) or "nothing"
        yield Message("user", (ToolResult(id, (Text(f"Found: {names}"),)),))


def _responses_compaction(wire: Wire) -> Iterator[Message]:
    """A summary that relay asked a model for; any other is encrypted."""
    seal = opened(wire.want("encrypted_content", str) or "", "")
    if seal.field == "rc":
        yield Message("user", (Text(_HANDED_OVER + seal.value),))
    else:
        wire.drop("compaction")


def _responses_nothing(wire: Wire) -> Iterator[Message]:
    return iter(())


def _responses_reference(wire: Wire) -> Iterator[Message]:
    raise BadRequest(
        f"{wire.path()}: refers to an item that another provider keeps; send the item itself"
    )


_RESPONSES_ITEMS: Final[dict[str, Callable[[Wire], Iterator[Message]]]] = {
    "message": _responses_message,
    "reasoning": _responses_thought,
    **dict.fromkeys(_CALLS, _responses_call),
    **dict.fromkeys((f"{item}_output" for item in _CALLS), _responses_result),
    "tool_search_output": _responses_search,
    "compaction": _responses_compaction,
    "compaction_summary": _responses_compaction,
    "compaction_trigger": _responses_nothing,  # `peek` has seen it
    "configuration_update": _responses_nothing,  # which stands among the settings
    "additional_tools": _responses_nothing,  # listed among the tools
    "item_reference": _responses_reference,
}


def _responses_tools(wire: Wire) -> tuple[Tool, ...]:
    """All tools offered, in the order of their first appearance: a prefix stays a prefix."""
    tools: dict[str, Tool] = {}
    for place in _responses_offers(wire):
        for tool in _offered_in(place):
            tools.setdefault(tool.name, tool)
    return tuple(tools.values())


def _responses_offers(wire: Wire) -> Iterator[Wire]:
    yield wire
    if not isinstance(wire.data.get("input"), str):
        for item in wire.each("input"):
            if item.data.get("type") in ("additional_tools", "tool_search_output"):
                yield item


def _offered_in(wire: Wire, namespace: str = "") -> Iterator[Tool]:
    for item in wire.each("tools"):
        kind = item.need("type", str)
        server = kind == "tool_search" and item.want("execution", str) != "client"
        if kind == "namespace":
            yield from _offered_in(item, item.need("name", str))
        elif kind not in _KINDS_OF_TOOL or server:  # runs at OpenAI
            item.drop(kind)
        else:
            item.rest(_RESPONSES_TOOL)
            yield _responses_tool(item, kind, namespace)


def _responses_tool(wire: Wire, kind: str, namespace: str) -> Tool:
    known = _KINDS_OF_TOOL[kind]
    name = wire.need("name", str) if kind in _NAMED else kind
    description = wire.want("description", str) or known.purpose
    schema = known.schema or wire.want("parameters", dict) or {}
    if kind == "custom":
        description, schema = freeform(description, wire.inner("format")), FREEFORM
    form = kind + (f"@{namespace}" if namespace else "")
    return Tool(
        _qualified(namespace, name),
        description,
        schema,
        wire.want("strict", bool) or None,  # anything but true is no wish
        "" if form == "function" else form,
    )


def _responses_choice(wire: Wire) -> ToolChoice | None:
    choice = wire.data.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str):
        return ToolChoice(_RESPONSES_MODES.get(choice, "auto"))
    said = Wire(choice, wire, "tool_choice")
    if said.need("type", str) == "allowed_tools":
        mode = _RESPONSES_MODES.get(said.want("mode", str) or "", "auto")
        return ToolChoice(mode, tuple(map(_chosen, said.each("tools"))))
    return ToolChoice("named", (_chosen(said),))


def _chosen(wire: Wire) -> str:
    name = wire.want("name", str) or wire.need("type", str)
    return _qualified(wire.want("namespace", str), name)


_RESPONSES_MODES: Final[dict[str, Literal["auto", "none", "required"]]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
}


def _responses_thinking(wire: Wire) -> Thinking | None:
    effort = wire.inner("reasoning", _RESPONSES_REASONING).want("effort", str)
    if effort == "none":
        return Thinking(False)
    return Thinking(True, effort) if effort else None


def _responses_summary(wire: Wire) -> bool | None:
    """Are thoughts to be seen?  Only who asks for a summary is given one.

    That is so where `reasoning` is said at all: Codex says how much to think and, where it shows
    it, `summary: auto`.  Qwen Code says nothing of reasoning and shows what comes.
    """
    reasoning = wire.inner("reasoning").data
    asked = reasoning.get("summary") or reasoning.get("generate_summary")
    return bool(asked) if reasoning else None


def _responses_format(wire: Wire) -> Format | None:
    spec = wire.inner("text").inner("format")
    match spec.want("type", str):
        case "json_object":
            return Format()
        case "json_schema":
            name = spec.want("name", str) or "output"
            return Format(spec.want("schema", dict) or {}, name, spec.want("strict", bool))
        case _:
            return None


# A request that passes through, where it must be edited


def _responses_cleaned(item: Any, quirks: ResponsesQuirks, account: str, strip: bool) -> Any:
    """An item as this provider knows it; None for one that it must not see.

    An envelope of its own account is opened; an item with another's is removed.  A summary that
    relay asked for becomes a message again.
    """
    kind = item.get("type") if isinstance(item, dict) else None
    token = str(item.get("encrypted_content") or "") if kind else ""
    if kind == "reasoning":
        if strip or not token.startswith("rly1."):
            return None if strip else item
        thought = recalled(_thought_text(item), opened(token, "re"))
        return _thought_item(thought.text, thought.seal, quirks, account)
    if kind in ("compaction", "compaction_summary") and token.startswith("rly1.rc."):
        return _said_item("user", [Text(_HANDED_OVER + opened(token, "").value)])
    return item


def _thought_item(
    text: str, seal: Seal | None, quirks: ResponsesQuirks, account: str
) -> JSON | None:
    """Reasoning for this provider: its own as it was, another's only if that is wanted."""
    ours = seal and seal.field == "re" and seal.account in ("", "0" * 8, account)
    id, _, token = seal.value.rpartition(" ") if seal and ours else ("", "", "")
    if token:
        summary = [{"type": "summary_text", "text": text}] if text else []
        named = {"id": id} if id else {}
        return {"type": "reasoning", **named, "summary": summary, "encrypted_content": token}
    if text and (id or quirks.unsigned):
        return _plain_thought(text, text, id)
    return None


def _plain_thought(text: str, origin: str, id: str = "") -> JSON:
    content = [{"type": "reasoning_text", "text": text}]
    id = id or _item_id("rs_", origin, 0)
    return {"type": "reasoning", "id": id, "summary": [], "content": content}


def _said_item(role: str, parts: Iterable[Text | Media]) -> JSON:
    return {"type": "message", "role": role, "content": list(map(_input_part, parts))}


def _input_part(part: Text | Media) -> JSON:
    match part:
        case Text(text):
            return {"type": "input_text", "text": text}
        case Media(kind="image"):
            detail = part.detail or "auto"
            return {"type": "input_image", "image_url": data_url(part), "detail": detail}
        case Media(kind="audio"):
            return {"type": "input_audio", "input_audio": openai_audio(part)}
        case Media(kind="text", data=data, name=name):
            return {"type": "input_text", "text": f"[document {name}]\n{data}"}
        case Media(url=url) if url:
            return {"type": "input_file", "file_url": url}
        case Media(name=name):
            file = {"filename": name or "document.pdf", "file_data": data_url(part)}
            return {"type": "input_file"} | file


# A request, written


class _ResponsesWriter:
    """One request on its way into this format, for a provider with these quirks."""

    def __init__(self, request: Request, quirks: ResponsesQuirks, account: str) -> None:
        self.request = request
        self.quirks = quirks
        self.account = account
        self.dropped = list(request.dropped)

    def render(self) -> Rendered:
        request = self.request
        messages = list(request.messages)
        if messages and messages[-1].role == "assistant":
            self.dropped.append("prefill")  # the model would answer after it, not continue it
            messages.pop()
        lead = leading(messages)
        body: JSON = {"model": request.model}
        if system := [p.text for m in messages[:lead] for p in m.parts if isinstance(p, Text)]:
            body["instructions"] = "\n\n".join(system)
        items = [item for m in messages[lead:] for item in self._items(m)]
        body["input"] = items or [_said_item("user", [Text(".")])]  # none at all is refused
        if request.tools:
            body |= self._tools()
        if request.max_tokens is not None:
            body["max_output_tokens"] = max(16, request.max_tokens)
        self._sampling(body)
        if reasoning := self._reasoning():
            body["reasoning"] = reasoning
        spec = {"format": _format_spec(request.format)} if request.format else {}
        if text := spec | ({"verbosity": request.verbosity} if request.verbosity else {}):
            body["text"] = text
        if request.service_tier in self.quirks.service_tiers:
            body["service_tier"] = request.service_tier
        else:
            self.dropped += lost(request, "service_tier")
        body |= openai_identity(request, self.quirks.identity)
        body |= {"store": False, "include": ["reasoning.encrypted_content"]}
        if request.stream:
            body["stream"] = True
        return Rendered(body, tuple(dict.fromkeys(self.dropped)), request.stop)

    def _reasoning(self) -> JSON:
        """How much to think, and whether to tell of it, which only those ask for who are shown."""
        thinking = self.request.thinking
        word = thinking.word() if thinking else ""
        effort = {"effort": self.quirks.efforts.get(word, word)} if word else {}
        told = self.request.show_thoughts and word != "none"
        return effort | ({"summary": "auto"} if told else {})

    def _items(self, message: Message) -> list[JSON]:
        match message.role:
            case "assistant":
                return self._assistant(message)
            case "user":
                return self._user(message)
            case _:
                texts = [part for part in message.parts if isinstance(part, Text)]
                return [_said_item("developer", texts)] if texts else []

    def _assistant(self, message: Message) -> list[JSON]:
        """Item by item; reasoning that is followed by nothing is refused."""
        items: list[JSON] = []
        for part in message.parts:
            match part:
                case Text(text) if text:
                    items.append({"type": "message", "role": "assistant", "content": text})
                case Reasoning(text, seal):
                    thought = _thought_item(text, seal, self.quirks, self.account)
                    items += [thought] if thought else []
                case ToolCall(id, name, text):
                    call = {"type": "function_call", "call_id": id, "name": name}
                    items.append(call | {"arguments": text or "{}"})
                case _:
                    pass
        while items and items[-1]["type"] == "reasoning":
            items.pop()
        if not self.quirks.placeholder:
            return items
        kinds = {item["type"] for item in items}
        if "function_call" not in kinds or "reasoning" in kinds:
            return items
        return [_plain_thought(self.quirks.placeholder, str(items)), *items]

    def _user(self, message: Message) -> list[JSON]:
        """The results first, as in every dialect, then the rest."""
        said = [part for part in message.parts if isinstance(part, TEXT_OR_MEDIA)]
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        return [
            *map(_result_item, results),
            *([_said_item("user", said)] if said else []),
        ]

    def _definition(self, tool: Tool) -> JSON:
        said: JSON = {"type": "function", "name": tool.name}
        if tool.description:
            said["description"] = tool.description
        said["parameters"] = rooted(tool.schema)
        if self.quirks.tool_strict != "drop":  # absent means "try", and schemas are rewritten
            said["strict"] = bool(tool.strict) and self.quirks.tool_strict == "as_is"
        return said

    def _tools(self) -> JSON:
        """What may be called, and the choice among it as far as this provider lets one choose."""
        request, choice, known = self.request, self.request.tool_choice, self.quirks.tool_choice
        tools = request.tools if "allowed" in known else offered(request)
        said: JSON = {"tools": list(map(self._definition, tools))}
        if choice and choice.mode in known:
            said["tool_choice"] = _choice_spec(choice, "allowed" in known)
        elif choice and choice.mode == "none":
            return {}
        elif choice:
            self.dropped.append("tool_choice")
        if request.parallel_tools is not None:
            said["parallel_tool_calls"] = request.parallel_tools
        return said

    def _sampling(self, body: JSON) -> None:
        for name, value in self.request.sampling.given().items():
            if name in self.quirks.sampling:
                body[name] = value
            else:
                self.dropped.append(name)


def _result_item(result: ToolResult) -> JSON:
    """One string if there is only text: servers other than OpenAI's may take nothing else."""
    said = list(result.parts)
    if result.is_error:  # for which there is no field
        said = [Text("Error:"), *said]
    texts = [part.text for part in said if isinstance(part, Text)]
    output: str | list[JSON] = (" " if result.is_error else "\n\n").join(texts) or "(no output)"
    if len(texts) < len(said):
        output = list(map(_input_part, said))
    return {"type": "function_call_output", "call_id": result.call_id, "output": output}


def _choice_spec(choice: ToolChoice, subset: bool) -> str | JSON:
    named = [{"type": "function", "name": name} for name in choice.names]
    if choice.mode == "named":
        return named[0]
    allowed = {"type": "allowed_tools", "mode": choice.mode, "tools": named}
    return allowed if named and subset else choice.mode


def _format_spec(format: Format) -> JSON:
    if format.schema is None:
        return {"type": "json_object"}
    spec = {"type": "json_schema", "name": format.name, "schema": format.schema}
    return spec | {"strict": bool(format.strict)}


# An answer, read


def _responses_output(item: JSON) -> Iterator[OutputPart]:
    match kind := item.get("type"):
        case "message":
            for part in item.get("content") or ():
                yield Text(part.get("text") or part.get("refusal") or "")
        case "reasoning":
            token = _responses_token(item)
            yield Reasoning(_thought_text(item), Seal("re", token) if token.strip() else None)
        case str() if kind in _CALLS:
            yield _responses_called(item)
        case _:
            pass  # a server tool at work, or something new


def _refusal_in(item: JSON) -> str:
    said = (item.get("content") or ()) if item.get("type") == "message" else ()
    return "".join(part.get("refusal") or "" for part in said)


def _responses_finish(answer: JSON) -> FinishReason:
    if answer.get("status") != "incomplete":
        return "stop"
    reason = (answer.get("incomplete_details") or {}).get("reason")
    return _RESPONSES_FINISH.get(reason or "", "length")


class _ResponsesDecoder(StreamDecoder):
    """response.created ... response.completed to events.

    What came in deltas is repeated in the events that end a part, an item and the answer; some
    servers leave out the deltas, and some the ends.  So a part is its deltas, and of each
    repetition only what is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._items: set[object] = set()  # those seen, by index or id
        self._told: dict[object, list[str]] = {}  # a part's text so far
        self._over: set[object] = set()
        self._place: dict[object, tuple[str, object]] = {}  # which part of an item's reasoning
        self._refusal = ""

    def _object(self, wire: JSON) -> None:
        if failure := RESPONSES.failure_in(wire):
            self._fail(failure)
        elif handler := self._HANDLERS.get(wire.get("type")):  # else nothing that is not known
            handler(self, wire)

    def _created(self, wire: JSON) -> None:
        answer = wire["response"]
        self._start(word_of(answer.get("id")), word_of(answer.get("model")))

    def _key(self, wire: JSON) -> object:
        item = wire.get("item") or {}
        key = wire.get("output_index")
        key = key if isinstance(key, int) else wire.get("item_id") or item.get("id")
        if key not in self._items:
            self._items |= {key, item.get("id") or key}
        return key

    def _item_added(self, wire: JSON) -> None:
        key, item = self._key(wire), wire["item"]
        if item.get("type") == "reasoning":
            self._say(key, Reasoning(), "")
        elif item.get("type") in _CALLS:
            self._say(key, replace(_responses_called(item), text=""), "")
        elif item.get("type") != "message":  # a message begins with its first text
            self.acted = True

    def _text_delta(self, wire: JSON) -> None:
        self._say((self._key(wire), wire.get("content_index") or 0), Text(), wire["delta"])

    def _refusal_delta(self, wire: JSON) -> None:
        self._refusal += wire["delta"]
        self._text_delta(wire)

    def _thought_delta(self, wire: JSON) -> None:
        """If both a summary and the full text come, only the first; its parts are set apart."""
        key, kind = self._key(wire), str(wire["type"])
        place = (kind, wire.get("summary_index", wire.get("content_index")))
        before = self._place.setdefault(key, place)
        if before[0] == kind:
            self._place[key] = place
            gap = "\n\n" if before != place and any(self._told.get(key, ())) else ""
            self._say(key, Reasoning(), gap + wire["delta"])

    def _arguments_delta(self, wire: JSON) -> None:
        key = self._key(wire)
        if key in self._told:  # else its name is not known yet, and comes with the whole call
            self._told[key].append(wire["delta"])
            self._delta(key, wire["delta"])

    def _item_done(self, wire: JSON) -> None:
        self._item_is(self._key(wire), wire["item"])

    def _item_is(self, key: object, item: JSON) -> None:
        """A complete item: what is missing of it is added, and it is closed."""
        self._refusal = self._refusal or _refusal_in(item)
        for place, part in enumerate(_responses_output(item)):
            at = (key, place) if isinstance(part, Text) else key
            if part.text or not isinstance(part, Text):
                self._say(at, emptied(part), self._news(at, part.text))
            self._over.add(at)
            self._close(at, part.seal if isinstance(part, Reasoning) else None)

    def _completed(self, wire: JSON) -> None:
        answer = wire["response"]
        self._start(word_of(answer.get("id")), word_of(answer.get("model")))
        for index, item in enumerate(answer.get("output") or ()):
            if self._items.isdisjoint((index, item.get("id") or index, None)):
                self._item_is(index, item)
        if usage := RESPONSES.parse_usage(wire):
            self._usage = latest(self._usage, usage)
        self._detail = self._refusal
        self._end("content_filter" if self._refusal else _responses_finish(answer))

    def _say(self, key: object, part: OutputPart, text: str) -> None:
        if key in self._over:
            return
        if key not in self._told:
            self._told[key] = []
            self._part(key, part)
        self._told[key].append(text)
        self._delta(key, text)

    def _news(self, key: object, text: str) -> str:
        told = "".join(self._told.get(key, ()))
        return text.removeprefix(told) if text.startswith(told) else ""

    _HANDLERS: ClassVar[dict[object, Callable[[Any, JSON], None]]] = {
        "response.created": _created,
        "response.in_progress": _created,
        "response.output_item.added": _item_added,
        "response.output_text.delta": _text_delta,
        "response.refusal.delta": _refusal_delta,
        "response.reasoning_summary_text.delta": _thought_delta,
        "response.reasoning_text.delta": _thought_delta,
        "response.function_call_arguments.delta": _arguments_delta,
        "response.output_item.done": _item_done,
        "response.completed": _completed,
        "response.incomplete": _completed,
    }


# An answer, written


class _Item:
    """An output item while it is being sent: its events, without their numbers."""

    def __init__(self, id: str, index: int) -> None:
        self.id = id
        self.texts: list[str] = []
        self._index = index

    def begin(self) -> list[JSON]:
        return []

    def head(self) -> list[JSON]:
        """Most items begin with their first text: one without any is not sent."""
        return []

    def news(self, text: str) -> str:
        """The part of more text that can be sent at once."""
        return text

    def delta(self, text: str) -> JSON:
        raise NotImplementedError

    def end(self, seal: Seal | None) -> list[JSON]:
        raise NotImplementedError

    def text(self) -> str:
        return "".join(self.texts)

    def _at(self, type: str, **fields: Any) -> JSON:
        place = {"item_id": self.id, "output_index": self._index}
        return {"type": f"response.{type}"} | place | fields

    def _item(self, step: Literal["added", "done"], item: JSON) -> JSON:
        return {
            "type": f"response.output_item.{step}",
            "output_index": self._index,
            "item": {"id": self.id} | item,
        }


class _SaidItem(_Item):
    """A message with one part, a text or a refusal."""

    def __init__(self, id: str, index: int, kind: str = "output_text") -> None:
        super().__init__(id, index)
        self._kind = kind
        self._more: JSON = {} if kind == "refusal" else {"logprobs": []}

    def head(self) -> list[JSON]:
        return [
            self._item("added", self._message("in_progress", [])),
            self._at("content_part.added", content_index=0, part=self._part("")),
        ]

    def delta(self, text: str) -> JSON:
        return self._at(f"{self._kind}.delta", content_index=0, delta=text, **self._more)

    def end(self, seal: Seal | None) -> list[JSON]:
        if not self.texts:
            return []
        name, text = "refusal" if self._kind == "refusal" else "text", self.text()
        return [
            self._at(f"{self._kind}.done", content_index=0, **{name: text}, **self._more),
            self._at("content_part.done", content_index=0, part=self._part(text)),
            self._item("done", self._message("completed", [self._part(text)])),
        ]

    def _part(self, text: str) -> JSON:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _message(self, status: str, content: list[JSON]) -> JSON:
        return {"type": "message", "role": "assistant", "status": status, "content": content}


class _ThoughtItem(_Item):
    """Reasoning, shown as a summary: Codex shows no other.

    The seal is always in an envelope, even an empty one: by it relay recognises the item as one
    that no provider knows by this id.
    """

    def head(self) -> list[JSON]:
        return [self._added(), self._at_part("part.added", part=_summary(""))]

    def delta(self, text: str) -> JSON:
        return self._at_part("text.delta", delta=text)

    def end(self, seal: Seal | None) -> list[JSON]:
        if not self.texts and not seal:
            return []
        text, said = self.text(), [self._added()]
        if self.texts:
            part = self._at_part("part.done", part=_summary(text))
            said = [self._at_part("text.done", text=text), part]
        summary = [_summary(text)] if text else []
        token = enveloped(seal or Seal("re"))
        item = {"type": "reasoning", "summary": summary, "encrypted_content": token}
        return [*said, self._item("done", item)]

    def _added(self) -> JSON:
        return self._item("added", {"type": "reasoning", "summary": []})

    def _at_part(self, type: str, **fields: Any) -> JSON:
        return self._at(f"reasoning_summary_{type}", summary_index=0, **fields)


def _summary(text: str) -> JSON:
    return {"type": "summary_text", "text": text}


class _CallItem(_Item):
    """A function call, or one of a freeform tool: both stream their arguments."""

    def __init__(self, id: str, index: int, head: JSON, kind: str) -> None:
        super().__init__(id, index)
        self._call, self._kind = head, kind
        self._free = FreeText() if kind == "custom" else None
        self._slot = _KINDS_OF_TOOL[kind].slot
        self._event = "custom_tool_call_input" if self._free else "function_call_arguments"

    def begin(self) -> list[JSON]:
        return [self._item("added", self._called("", "in_progress"))]

    def news(self, text: str) -> str:
        return self._free.feed(text) if self._free else text

    def delta(self, text: str) -> JSON:
        return self._at(f"{self._event}.delta", delta=text)

    def end(self, seal: Seal | None) -> list[JSON]:
        text, rest = self.text(), ""
        whole = parse_object(text or "{}") is not None
        if self._free:
            rest = self._free.rest(text)
            text = self._free.text()
        elif not text:
            text = rest = "{}"
        done = self._at(f"{self._event}.done", **{self._slot: text})
        item = self._called(text, "completed" if whole else "incomplete")
        return [*([self.delta(rest)] if rest else []), done, self._item("done", item)]

    def _called(self, text: str, status: str) -> JSON:
        return self._call | {self._slot: text, "status": status}


class _TypedCallItem(_CallItem):
    """A call whose arguments are an object: it is sent when they are complete."""

    def begin(self) -> list[JSON]:
        return []

    def news(self, text: str) -> str:
        return ""

    def end(self, seal: Seal | None) -> list[JSON]:
        kind, arguments = _KINDS_OF_TOOL[self._kind], parse_object(self.text() or "{}")
        status = "incomplete" if arguments is None else "completed"
        slot = kind.default | (arguments or {}) | kind.constant
        item = self._call | {self._slot: slot, "status": status}
        return [self._item("added", item | {"status": "in_progress"}), self._item("done", item)]


class _ResponsesEncoder:
    """Events to response.created ... response.completed; `answer` is the last one's, whole."""

    def __init__(self, asked: Asked) -> None:
        self.answer: JSON = {}
        self._asked = asked
        self._id = _responses_id(asked.id)
        self._number = 0
        self._started = False
        self._item = _Item("", 0)
        self._form = b""  # of the item's deltas
        self._output: list[JSON] = []
        self._text = ""  # of the last message

    def encode(self, event: Event) -> bytes:
        match event:
            case PartDelta(text):
                return self._more(text)
            case Start(id):
                return self._start(id)
            case PartStart(part):
                self._item = self._begun(part)
                self._form = form_of(self._numbered(self._item.delta(HOLE), HOLE))
                return self._say(self._item.begin())
            case PartEnd(seal):
                return self._say(self._item.end(seal))
            case Finish():
                return self._finish(event)
            case Failure():
                return self.failed(error_of(event), event.code)

    def alive(self) -> bytes:
        # Clients that do not know the event ignore it, and it resets Codex's timer, which a comment
        # does not.  Before response.created the official SDK takes no event, only a comment.
        return sse({"type": "keepalive"}) if self._started else b": keep-alive\n\n"

    def failed(self, error: RelayError, code: str = "") -> bytes:
        """The end of a stream that broke; the SDK raises at no other event."""
        known = OpenAIResponses.error_codes
        code = code if code in known.values() else known.get(error.kind, "server_error")
        message = error.message
        if error.retry_after and "try again in" not in message:  # where Codex reads it
            message += f" (try again in {math.ceil(error.retry_after)}s)"
        failure = {"code": code, "message": message}
        return self._last("failed", error=failure)

    def _more(self, text: str) -> bytes:
        item = self._item
        head = b"" if item.texts else self._say(item.head())
        item.texts.append(text)
        if not (news := item.news(text)):
            return head
        self._number += 1
        return head + self._form % (dumps(news), dumps(self._number - 1))

    def _start(self, id: str) -> bytes:
        self._id, self._started = _responses_id(id or self._asked.id), True
        head = self._answer("in_progress")
        steps = ("response.created", "response.in_progress")
        return self._say([{"type": step, "response": head} for step in steps])

    def _begun(self, part: OutputPart) -> _Item:
        index = len(self._output)
        match part:
            case Text():
                return _SaidItem(_item_id("msg_", self._id, index), index)
            case Reasoning():
                return _ThoughtItem(_item_id("rs_", self._id, index), index)
            case ToolCall():
                return self._called(part, index)

    def _called(self, call: ToolCall, index: int) -> _Item:
        name, _, namespace = self._asked.forms.get(call.name, "").partition("@")
        name = name if name in _KINDS_OF_TOOL else "function"
        kind = _KINDS_OF_TOOL[name]
        head: JSON = {"type": kind.item, "call_id": call.id}
        if name in _NAMED:
            head["name"] = call.name.removeprefix(_qualified(namespace, ""))
        if namespace:
            head["namespace"] = namespace
        if name == "tool_search":
            head["execution"] = "client"
        item = _CallItem if name in _NAMED else _TypedCallItem
        return item(_item_id(kind.prefix, self._id, index), index, head, name)

    def _finish(self, finish: Finish) -> bytes:
        said = b""
        if finish.reason == "content_filter" and finish.detail not in ("", self._text):
            index = len(self._output)
            refusal = _SaidItem(_item_id("msg_", self._id, index), index, "refusal")
            refusal.texts.append(finish.detail)
            whole = (*refusal.head(), refusal.delta(finish.detail), *refusal.end(None))
            said = self._say(whole)
        cut = _RESPONSES_CUT.get(finish.reason)
        usage = self._asked.counted(finish.usage)
        details = {"reason": cut} if cut else None
        status = "incomplete" if cut else "completed"
        return said + self._last(status, incomplete_details=details, usage=_responses_usage(usage))

    def _last(self, status: str, **fields: Any) -> bytes:
        self.answer = self._answer(status) | fields
        return self._say([{"type": f"response.{status}", "response": self.answer}])

    def _say(self, events: Iterable[JSON]) -> bytes:
        said = []
        for event in events:
            if event["type"] == "response.output_item.done":
                self._output.append(event["item"])
                self._text = self._item.text() if isinstance(self._item, _SaidItem) else ""
            said.append(self._numbered(event, self._number))
            self._number += 1
        return b"".join(said)

    def _numbered(self, event: JSON, number: int | str) -> bytes:
        return sse(event | {"sequence_number": number}, event["type"])

    def _answer(self, status: str) -> JSON:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._asked.now,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "model": self._asked.model,
            "output": list(self._output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
            "metadata": {},
            **_RESPONSES_UNSAID,
            **self._asked.echo,
        }


class _CompactionEncoder(_ResponsesEncoder):
    """A summary as the one item in which Codex expects it; only relay can read it."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._summary: list[str] = []

    def encode(self, event: Event) -> bytes:
        match event:
            case PartStart(part):
                self._item = self._begun(part)
            case PartDelta(text):
                self._summary += [text] if isinstance(self._item, _SaidItem) else []
            case PartEnd():
                pass
            case Finish():
                return (
                    self._compacted() + self._finish(event)
                    if self._summary
                    else self.failed(UpstreamError("transient", "the model wrote no summary"))
                )
            case _:
                return super().encode(event)
        return b""

    def _compacted(self) -> bytes:
        token = enveloped(Seal("rc", "".join(self._summary)))
        item = {"type": "compaction", "id": _item_id("cmp_", self._id, 0)}
        item["encrypted_content"] = token
        steps = ("response.output_item.added", "response.output_item.done")
        return self._say([{"type": step, "output_index": 0, "item": item} for step in steps])

    def _last(self, status: str, **fields: Any) -> bytes:
        said = super()._last(status, **fields)
        if self._asked.variant == "compact" and status != "failed":
            kept = ("id", "created_at", "output", "usage")
            kind = {"object": "response.compaction"}
            self.answer = kind | {name: self.answer[name] for name in kept}
        return said


def _responses_id(id: str) -> str:
    return id if id.startswith("resp_") else "resp_" + id


def _item_id(prefix: str, answer: str, index: int) -> str:
    """For an item without one: the same each time, and shorter than 64 characters."""
    mark = hashlib.sha256(f"{answer}\0{index}".encode(errors="replace")).hexdigest()
    return prefix + mark[:32]


def _responses_usage(usage: Usage) -> JSON:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


RESPONSES: Final = OpenAIResponses()


# ==== 9. Dialect: Gemini generateContent ======================================
# https://ai.google.dev/api/generate-content and the types of the google-genai SDK.
# The model's name and whether to stream are in the address, not in the body:
#
#     POST /v1beta/models/{model}:generateContent                 one answer
#          /v1beta/models/{model}:streamGenerateContent?alt=sse   chunks, as events
#          /v1beta/models/{model}:streamGenerateContent           chunks, as one JSON array
#          /v1beta/models/{model}:countTokens
#
# A turn is a list of parts, each identified by its one key.  A function call comes whole, with an
# object as its arguments; its result refers to it by name and order, as ids came late.  A stream is
#
#     chunk*        candidates[0].content.parts: what is new; usageMetadata: all so far
#     last chunk    candidates[0].finishReason, which is STOP for calls too
#
# and ends with the connection.  Google's own reader takes `data: ` lines and blank ones, and fails
# on anything else: a comment, an `event:`, a [DONE].
#
# A thoughtSignature seals the thinking before the part that carries it.  Gemini 3 signs the first
# call of every step and refuses a request in which one lacks its signature.  In the hub a seal
# belongs to a thought, so
#
#     wire   {thought: "hm"}    {text: "so"}    {functionCall, signature}    {text: "", signature}
#     hub    Reasoning("hm")    Text("so")      Reasoning(seal), ToolCall    Reasoning(seal)
#
# Another maker's thoughts reach a client of this dialect as thought parts, which many do not send
# back.  So their seals and texts ride on the next call, which every client returns with its
# signature; if no call follows, they ride on the last part of the answer.

_GEMINI_BLOCKED: Final = (
    "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII ESCALATION MODEL_ARMOR"
    " PUP_LIMITED_DISABLED NO_IMAGE IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION"
    " IMAGE_OTHER"
).split()
_GEMINI_FINISH: Final[dict[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(_GEMINI_BLOCKED, "content_filter"),
}
# A finish that means the inference failed; if nothing came before it, another target may do better.
_GEMINI_BREAK: Final = frozenset(
    "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MALFORMED_RESPONSE"
    " MISSING_THOUGHT_SIGNATURE OTHER".split()
)
_GEMINI_STOP: Final[dict[FinishReason, str]] = {
    "length": "MAX_TOKENS",
    "context_length": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_GEMINI_END: Final = (
    *(b'"finishReason":"', b'"finishReason": "'),
    *(b'"blockReason":"', b'"blockReason": "'),
)
_GEMINI_TIERS: Final = {"default": "standard", "flex": "flex", "priority": "priority"}
_TIER_OF_GEMINI: Final = {word: tier for tier, word in _GEMINI_TIERS.items()}
# What Google documents for calls by another model; Gemini CLI sends it if it has no signature.
_GEMINI_UNSIGNED: Final = "skip_thought_signature_validator"
_GEMINI_DUMMIES: Final = frozenset((_GEMINI_UNSIGNED, "context_engineering_is_the_way_to_go"))

_GEMINI_PURPOSES: Final = {
    "generateContent": "answer",
    "streamGenerateContent": "answer",
    "countTokens": "count",
}
# Also in Vertex's form, and with `models/` twice: SDKs put it before names that have it already.
_GEMINI_PATH: Final = re.compile(
    r"(?:/projects/[^/]+/locations/[^/]+)?(?:/publishers/[^/]+)?"
    r"/(?=(?:models|tunedModels)/)(?:models/)*(?P<model>(?!models/).+):(?P<method>[a-zA-Z]+)"
)
_GEMINI_REQUEST: Final = frozenset(
    "model contents systemInstruction tools toolConfig generationConfig cachedContent"
    " serviceTier".split()
)
_GEMINI_CONFIG: Final = frozenset(
    "temperature topP topK seed candidateCount maxOutputTokens stopSequences presencePenalty"
    " frequencyPenalty responseMimeType responseSchema responseJsonSchema thinkingConfig".split()
)
_GEMINI_PART: Final = frozenset(("thought", "thoughtSignature"))
_GEMINI_FUNCTION: Final = frozenset("name description parameters parametersJsonSchema".split())
# The values of these are not Google's, so that names in them are left as they are.
_GEMINI_OPAQUE: Final = frozenset(
    "args response parameters parametersJsonSchema responseSchema responseJsonSchema labels"
    " partMetadata".split()
)


@frozen
class _Gemini:
    """What a generation of models accepts; anything more is answered with a 400."""

    levels: tuple[str, ...] = ()  # thinkingLevel, the least first
    budget: tuple[int, int] | None = None  # thinkingBudget, least and most, if it takes that
    signed: bool = False  # every step's first call needs a signature
    ids: bool = False  # knows calls by id
    json_schema: bool = True  # takes JSON Schema, not only the subset of OpenAPI
    penalties: bool = True
    calls_and_json: bool = True  # takes tools together with a JSON format
    result_media: bool = False  # takes media inside a function's response


_GEMINI_LEVELS: Final = ("minimal", "low", "medium", "high", "xhigh")
_GEMINI_3: Final = _Gemini(_GEMINI_LEVELS[:4], None, True, True, penalties=False, result_media=True)
_GEMINI_2: Final = _Gemini(budget=(0, 24576), calls_and_json=False)
_GEMINI_1: Final = _Gemini(json_schema=False, calls_and_json=False)
_GEMINIS: Final = (
    (re.compile(r"gemini-3.*pro"), replace(_GEMINI_3, levels=_GEMINI_LEVELS[1:4])),
    (re.compile(r"gemini-3"), _GEMINI_3),
    (re.compile(r"gemini-4-argon"), replace(_GEMINI_3, levels=_GEMINI_LEVELS[1:4])),
    (re.compile(r"gemini-2\.5.*pro"), replace(_GEMINI_2, budget=(128, 32768))),
    (re.compile(r"gemini-2\.5"), _GEMINI_2),
    (re.compile(r"gemini-(1|2)|gemini-pro|gemma|learnlm"), _GEMINI_1),
)
_GEMINI_NEXT: Final = replace(_GEMINI_3, levels=_GEMINI_LEVELS, penalties=True)


@frozen(kw_only=True)
class GeminiQuirks(Quirks):
    tool_name: str = r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}"
    media_alone: bool = True  # takes a turn of media without text


class GeminiContent(Dialect):
    name = "gemini"
    quirks = GeminiQuirks
    path = "/v1beta/models/{model}:generateContent"
    list_path = "/v1beta/models"
    versioned = r"/v\d+[a-z0-9]*$|/publishers/[^/]+$"  # Vertex's version stands further left
    modes = frozenset(("alt", "$alt"))
    purposes: ClassVar = {f"/models/{{model}}:{m}": p for m, p in _GEMINI_PURPOSES.items()}
    auth = "x-goog-api-key"
    call_id = r".{1,128}"
    names_model = False
    turns = "contents"
    output_limits = ("generationConfig.maxOutputTokens",)
    converted = frozenset(("array",))
    tells_breaks = False  # its clients take an error object for the end of a whole answer
    marks = (b'"usageMetadata"', b'"error"', *_GEMINI_END)
    error_types: ClassVar = {
        "bad_request": "INVALID_ARGUMENT",
        "context_length": "INVALID_ARGUMENT",
        "too_large": "INVALID_ARGUMENT",
        "auth": "UNAUTHENTICATED",
        "billing": "FAILED_PRECONDITION",
        "budget": "RESOURCE_EXHAUSTED",
        "permission": "PERMISSION_DENIED",
        "not_found": "NOT_FOUND",
        "model_not_found": "NOT_FOUND",
        "rate_limit": "RESOURCE_EXHAUSTED",
        "overloaded": "UNAVAILABLE",
        "unavailable": "UNAVAILABLE",
        "upstream": "UNAVAILABLE",
        "timeout": "DEADLINE_EXCEEDED",
        "unimplemented": "UNIMPLEMENTED",
    }

    def claims(self, wire: JSON) -> bool:
        return not wire.keys().isdisjoint(("candidates", "promptFeedback", "usageMetadata"))

    def is_answer(self, wire: JSON) -> bool:
        first = (wire.get("candidates") or [{}])[0]
        said = (first.get("content") or {}).get("parts")
        return not wire.get("error") and bool(
            said or first.get("finishReason") in _GEMINI_FINISH or _gemini_block(wire)
        )

    # Addresses

    def serves(self, path: str) -> str:
        match = _GEMINI_PATH.fullmatch(path)
        return _GEMINI_PURPOSES.get(match["method"], "") if match else ""

    def peek(self, body: JSON, address: str) -> Peek:
        path, _, query = address.partition("?")
        match = _GEMINI_PATH.search(urllib.parse.unquote(path))
        if not match:
            raise NotFound(f"{path}: expected models/NAME:generateContent or its like")
        super().peek({"model": match["model"]}, address)
        stream = match["method"] == "streamGenerateContent"
        events = "sse" in urllib.parse.parse_qs(query).get("alt", ())
        return Peek(match["model"], stream, "array" if stream and not events else "")

    def address(self, url: str, model: str, stream: bool, variant: str = "") -> str:
        model = model.removeprefix("models/")
        if model.startswith("tunedModels/"):
            url = url.replace("models/{model}", "{model}")
        url = url.replace("{model}", urllib.parse.quote(model, safe="/"))
        path, _, query = url.partition("?")
        if stream:
            path = re.sub(r":generateContent$", ":streamGenerateContent", path)
            query = "&".join(filter(None, (query, "alt=sse")))
        return path + (f"?{query}" if query else "")

    def counting(self, url: str) -> str:
        return re.sub(r":generateContent(?=$|\?)", ":countTokens", url)

    # A request

    def restreamed(self, body: JSON, stream: bool) -> JSON:
        return body  # the address says it

    def parse_request(self, body: JSON, variant: str = "") -> Request:
        wire = Wire(_camelled(body))
        if "generateContentRequest" in wire.data:  # countTokens has both forms
            wire = wire.inner("generateContentRequest")
        wire.rest(_GEMINI_REQUEST)
        if wire.want("cachedContent", str):
            raise BadRequest("cachedContent: a prompt that Google keeps; nobody else can read it")
        config = wire.inner("generationConfig", _GEMINI_CONFIG)
        if (config.want("candidateCount", int) or 1) > 1:
            raise BadRequest("generationConfig.candidateCount: this provider gives one answer")
        top_k, tier = config.want("topK", float), (wire.want("serviceTier", str) or "").lower()
        return Request(
            model="",
            messages=(*_gemini_system(wire), *_GeminiHistory().read(wire)),
            tools=tuple(_gemini_tools(wire)),
            tool_choice=_gemini_choice(wire),
            max_tokens=config.want("maxOutputTokens", int),
            sampling=Sampling(
                temperature=config.want("temperature", float),
                top_p=config.want("topP", float),
                top_k=None if top_k is None else int(top_k),
                seed=config.want("seed", int),
                frequency_penalty=config.want("frequencyPenalty", float),
                presence_penalty=config.want("presencePenalty", float),
            ),
            stop=config.texts("stopSequences"),
            thinking=_gemini_thinking(config),
            # not unless they are asked for, as with Google
            show_thoughts=bool(config.inner("thinkingConfig").want("includeThoughts", bool)),
            format=_gemini_format(config),
            service_tier=_TIER_OF_GEMINI.get(tier, tier),
            dropped=tuple(wire.dropped),
        )

    def render_request(self, request: Request, quirks: GeminiQuirks, account: str) -> Rendered:
        return _GeminiWriter(request, quirks, account).render()

    def cleaned(self, body: JSON, quirks: GeminiQuirks, account: str, strip: bool) -> JSON:
        contents = body.get("contents")
        if not isinstance(contents, list):
            return body
        kept = [_gemini_cleaned(content, strip) for content in contents]
        if all(map(operator.is_, kept, contents)):
            return body
        return body | {"contents": [c for c in kept if not isinstance(c, dict) or c.get("parts")]}

    def is_clean(self, raw: bytes, quirks: GeminiQuirks) -> bool:
        return raw.rfind(b"hought_signature") < 0 and raw.rfind(b"houghtSignature") < 0

    # An answer

    def parse_response(self, wire: JSON) -> Response:
        answer = _GeminiDecoder().whole(wire)
        if isinstance(answer, Failure):
            raise ValueError(answer.message)
        return answer

    def render_response(self, response: Response, asked: Asked) -> JSON:
        speech = _GeminiSpeech()
        *events, finish = unfold(response)
        parts = [part for event in (*events, finish) for part in speech.parts(event)]
        chunk = _gemini_chunk(asked, response.id, parts)
        return _gemini_finished(chunk, cast(Finish, finish))

    def parse_usage(self, wire: JSON) -> Usage | None:
        usage = wire.get("usageMetadata")
        if not isinstance(usage, dict):
            return None
        prompt = whole_number(usage.get("promptTokenCount"))
        prompt += whole_number(usage.get("toolUsePromptTokenCount"))
        read = whole_number(usage.get("cachedContentTokenCount"))
        said = whole_number(usage.get("candidatesTokenCount"))
        thought = whole_number(usage.get("thoughtsTokenCount"))
        # Google counts thoughts apart; the total shows if somebody counts them as candidates
        apart = whole_number(usage.get("totalTokenCount")) != prompt + said
        return Usage(
            input=prompt if prompt >= read else prompt + read,
            output=said + thought if apart else max(said, thought),
            cache_read=read,
            reasoning=thought,
        )

    def is_end(self, data: bytes) -> bool:
        return self.is_last(data) or any(mark in data for mark in _GEMINI_END)

    def is_last(self, data: bytes) -> bool:
        return data.strip() == b"[DONE]"  # never Google's; some clones send it in any dialect

    def render_error(self, error: RelayError, request_id: str) -> JSON:
        status = self.error_types.get(error.kind, "INTERNAL")
        said: JSON = {"code": self.status(error), "message": error.message, "status": status}
        if error.retry_after is not None:
            kind = "type.googleapis.com/google.rpc.RetryInfo"
            said["details"] = [{"@type": kind, "retryDelay": f"{math.ceil(error.retry_after)}s"}]
        return {"error": said}

    def error_event(self, error: RelayError, request_id: str, variant: str = "") -> bytes:
        wire = self.render_error(error, request_id)
        return dumps([wire]) if variant == "array" else sse(wire)

    def stream_type(self, variant: str) -> str:
        return "application/json" if variant == "array" else super().stream_type(variant)

    def decoder(self) -> StreamDecoder:
        return _GeminiDecoder()

    def encoder(self, asked: Asked) -> StreamEncoder:
        return _GeminiEncoder(asked)

    def render_count(self, tokens: int) -> JSON:
        return {"totalTokens": tokens}

    def parse_count(self, wire: JSON) -> int:
        return operator.index(wire["totalTokens"])

    def render_models(self, models: Sequence[Listed]) -> JSON:
        return {"models": list(map(self.render_model, models))}

    def render_model(self, model: Listed) -> JSON:
        limits = {"inputTokenLimit": model.context, "outputTokenLimit": model.output}
        return {
            "name": f"models/{model.name}",
            "version": "1",
            "displayName": model.name,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        } | {name: limit for name, limit in limits.items() if limit}


def _gemini_block(wire: JSON) -> str:
    """Why the prompt was refused, if it was."""
    feedback = wire.get("promptFeedback")
    return word_of(feedback.get("blockReason")) if isinstance(feedback, dict) else ""


# A client's request, read


def _camelled(wire: JSON) -> JSON:
    """With Google's names in camelCase; the server takes snake_case as well, and SDKs send it."""
    said = {}
    for key, value in wire.items():
        name = _camel(key) if "_" in key else key
        if name in _GEMINI_OPAQUE:
            said[name] = value
        elif isinstance(value, dict):
            said[name] = _camelled(value)
        elif isinstance(value, list):
            said[name] = [_camelled(one) if isinstance(one, dict) else one for one in value]
        else:
            said[name] = value
    return said


@functools.lru_cache(maxsize=1024)
def _camel(name: str) -> str:
    return re.sub(r"(?<=[a-zA-Z0-9])_([a-z0-9])", lambda match: match[1].upper(), name)


def _gemini_system(wire: Wire) -> list[Message]:
    content = wire.data.get("systemInstruction")
    if isinstance(content, str):
        return [Message("system", (Text(content),))] if content else []
    texts = (part.want("text", str) for part in wire.inner("systemInstruction").each("parts"))
    parts = tuple(Text(text) for text in texts if text)
    return [Message("system", parts)] if parts else []


_GEMINI_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "function": "user",
    "model": "assistant",
    "system": "system",
}


class _GeminiHistory:
    """Reads contents as messages, and pairs every result with its call."""

    def __init__(self) -> None:
        self._owed: list[ToolCall] = []  # the latest turn's calls that have no result yet
        self._called = 0

    def read(self, wire: Wire) -> Iterator[Message]:
        """SDKs that stream keep every chunk as a content of its own: together they are a turn."""
        role: Role | None = None
        parts = list[Part]()
        for content in wire.each("contents", required=True):
            now = self._role(content)
            if role and now != role:
                yield Message(role, _without_echoes(parts))
                parts = []
            if now == "assistant" != role:
                self._owed = []
            role = now
            for part in content.each("parts"):
                self._read(part, parts)
        if role:
            yield Message(role, _without_echoes(parts))

    def _role(self, content: Wire) -> Role:
        content.rest(_GEMINI_TURN)
        said = content.want("role", str) or "user"
        if said not in _GEMINI_ROLES:
            raise BadRequest(f"{content.path('role')}: expected user or model, got {shown(said)}")
        return _GEMINI_ROLES[said]

    def _read(self, wire: Wire, parts: list[Part]) -> None:
        kind = next(filter(wire.data.__contains__, self._READERS), "")
        wire.rest(_GEMINI_PARTS[kind])
        signature = wire.want("thoughtSignature", str) or ""
        if signature and signature not in _GEMINI_DUMMIES:
            _sealed(parts, signature)
        if kind:
            parts += self._READERS[kind](self, wire)

    def _text(self, wire: Wire) -> Iterable[Part]:
        if text := wire.want("text", str):
            return (Reasoning(text) if wire.want("thought", bool) else Text(text),)
        return ()

    def _media(self, wire: Wire) -> Iterable[Part]:
        return _gemini_media(wire)

    def _call(self, wire: Wire) -> Iterable[Part]:
        """A call without an id gets one from its place, which is the same on every turn."""
        call = wire.inner("functionCall")
        self._called += 1
        id, name = call.want("id", str) or _gemini_call_id(self._called), call.need("name", str)
        said = ToolCall(id, name, dumps(call.want("args", dict) or {}).decode())
        self._owed.append(said)
        return (said,)

    def _result(self, wire: Wire) -> Iterable[Part]:
        result = wire.inner("functionResponse")
        id, name = result.want("id", str) or "", result.want("name", str) or ""
        call = next((call for call in self._owed if call.id == id), None)
        call = call or next((call for call in self._owed if call.name == name), None)
        if call:
            self._owed.remove(call)
        text, is_error = _gemini_output(result.want("response", dict) or {})
        said: list[Text | Media] = [Text(text)] if text else []
        for inner in result.each("parts"):
            said += _gemini_media(inner)
        return (ToolResult(call.id if call else id or name, tuple(said), is_error),)

    def _code(self, wire: Wire) -> Iterable[Part]:
        text = _gemini_code(wire.data)
        return (Text(text),) if text else ()

    _READERS: ClassVar[dict[str, Callable[[Any, Wire], Iterable[Part]]]] = {
        "text": _text,
        "inlineData": _media,
        "fileData": _media,
        "functionCall": _call,
        "functionResponse": _result,
        "executableCode": _code,
        "codeExecutionResult": _code,
    }


_GEMINI_TURN: Final = frozenset(("role", "parts"))
_GEMINI_PARTS: Final = {kind: _GEMINI_PART | {kind} for kind in ("", *_GeminiHistory._READERS)}


def _gemini_call_id(number: int) -> str:
    return "call_" + hashlib.sha256(str(number).encode()).hexdigest()[:12]


def _sealed(parts: list[Part], signature: str) -> None:
    """Add the thoughts that a part's signature stands for, which precede the part.

    Google's own seals the thought just before.  Ours carries the thoughts of another maker: those
    before the texts of this step, and those between the texts and this part.
    """
    carried = _gemini_carried(signature)
    if carried is None:
        seal = Seal("gs", signature)
        last = parts[-1] if parts else None
        if isinstance(last, Reasoning) and last.seal is None:
            parts[-1] = replace(last, seal=seal)
        else:
            parts.append(Reasoning("", seal))
        return
    ends = (i + 1 for i in reversed(range(len(parts))) if isinstance(parts[i], ToolCall))
    start, split = next(ends, 0), carried.index(None) if None in carried else 0
    parts[start:start] = [thought for thought in carried[:split] if thought]
    parts += [thought for thought in carried[split:] if thought]


def _without_echoes(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Without the thoughts the client was shown, if the same came back with their seals."""
    seals = [part.seal for part in parts if isinstance(part, Reasoning) and part.seal]
    if not seals or not any(seal.account for seal in seals):
        return tuple(parts)
    return tuple(p for p in parts if not (isinstance(p, Reasoning) and p.seal is None))


def _gemini_output(response: JSON) -> tuple[str, bool]:
    """A function's response as text; the SDK's own helper writes `result` for `output`."""
    for key in ("output", "result", "error"):
        if response.keys() == {key}:
            said = response[key]
            return said if isinstance(said, str) else dumps(said).decode(), key == "error"
    return dumps(response).decode(), response.get("error") is not None


def _gemini_media(wire: Wire) -> Iterator[Media]:
    inline, file = wire.inner("inlineData"), wire.inner("fileData")
    mime = (inline.want("mimeType", str) or file.want("mimeType", str) or "").lower()
    name = inline.want("displayName", str) or file.want("displayName", str) or ""
    url, data = file.want("fileUri", str) or "", inline.want("data", str) or ""
    mime = mime_of(data, mime) if data else mime
    if mime.startswith("video/"):
        wire.drop("video")
    elif mime.startswith("text/") and data:
        yield Media("text", "text/plain", base64_text(data), name=name)
    elif data or url:
        kind = _gemini_kind(mime or _mime_by_name(url))
        yield Media(kind, "" if url and mime == _mime_by_name(url) else mime, data, url, name)


def _gemini_kind(mime: str) -> Literal["image", "document", "audio"]:
    kinds: dict[str, Literal["image", "audio"]] = {"image": "image", "audio": "audio"}
    return kinds.get(mime.partition("/")[0], "document")


def _mime_by_name(url: str) -> str:
    """Google wants a media type with an address."""
    suffix = urllib.parse.urlsplit(url).path.rpartition(".")[2].lower()
    return _MIMES.get(suffix, "image/jpeg")


_MIMES: Final = {
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "pdf": "application/pdf",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "mp4": "video/mp4",
}


def _gemini_code(part: JSON) -> str:
    """Code that Google ran, and what came of it, as text."""
    code, result = part.get("executableCode"), part.get("codeExecutionResult")
    if isinstance(code, dict):
        return f"```{word_of(code.get('language')).lower()}\n{word_of(code.get('code'))}\n```\n"
    if isinstance(result, dict):
        return f"```\n{word_of(result.get('output'))}\n```\n"
    return ""


def _gemini_tools(wire: Wire) -> Iterator[Tool]:
    """One entry for all functions, or one for each; only Google has Google's own tools."""
    for entry in wire.each("tools"):
        entry.rest(frozenset(("functionDeclarations",)))
        for function in entry.each("functionDeclarations"):
            function.rest(_GEMINI_FUNCTION)
            schema = function.want("parametersJsonSchema", dict)
            if schema is None:
                schema = _json_schema(function.want("parameters", dict) or {})
            yield Tool(function.need("name", str), function.want("description", str) or "", schema)


def _gemini_choice(wire: Wire) -> ToolChoice | None:
    config = wire.inner("toolConfig", frozenset(("functionCallingConfig",)))
    calling = config.inner("functionCallingConfig")
    names = calling.texts("allowedFunctionNames")
    match (calling.want("mode", str) or "").upper():
        case "ANY" if len(names) == 1:
            return ToolChoice("named", names)
        case "ANY":
            return ToolChoice("required", names)
        case "NONE":
            return ToolChoice("none")
        case "AUTO" | "VALIDATED":
            return ToolChoice("auto", names)
        case _:
            return None


def _gemini_thinking(config: Wire) -> Thinking | None:
    thinking = config.inner("thinkingConfig")
    level, budget = thinking.want("thinkingLevel", str), thinking.want("thinkingBudget", int)
    if budget == 0:
        return Thinking(False)
    if level or budget is not None:  # a budget of -1 is up to the model
        known = (level or "").lower()
        known = known if known in _GEMINI_LEVELS else ""
        return Thinking(True, known, budget if budget and budget > 0 and not level else None)
    return Thinking(True) if thinking.want("includeThoughts", bool) else None


def _gemini_format(config: Wire) -> Format | None:
    schema = config.want("responseJsonSchema", dict)
    if schema is None and (subset := config.want("responseSchema", dict)) is not None:
        schema = _json_schema(subset)
    mime = config.want("responseMimeType", str) or ""
    if mime == "text/x.enum":  # a bare word; other formats can ask for objects only
        config.drop("responseMimeType")
        return None
    return Format(schema) if schema is not None or mime == "application/json" else None


# Schemas.  Google's own `Schema` is a subset of OpenAPI 3.0 with types in capitals; newer models
# take JSON Schema too, in another field.


def _json_schema(schema: Any) -> Any:
    """Google's subset as JSON Schema."""
    if not isinstance(schema, dict):
        return schema
    said = {_SCHEMA_NAMES.get(_camel(k), _camel(k)): v for k, v in schema.items()}
    said = _in_schema(said, _json_schema)
    nullable = said.pop("nullable", False)
    said.pop("propertyOrdering", None)
    for key in _SCHEMA_COUNTS & said.keys():  # 64-bit integers are strings in Google's JSON
        said[key] = int(said[key]) if str(said[key]).isdecimal() else said[key]
    if isinstance(ref := said.get("$ref"), str):
        said["$ref"] = ref.replace("#/defs/", "#/$defs/")
    if isinstance(kind := said.get("type"), str):
        said["type"] = [kind.lower(), "null"] if nullable else kind.lower()
    elif nullable and isinstance(said.get("anyOf"), list):
        said["anyOf"] = [*said["anyOf"], {"type": "null"}]
    return said


def _in_schema(schema: JSON, change: Callable[[Any], Any]) -> JSON:
    """A schema with every schema in it changed; a property named like a keyword is not one."""
    said = dict(schema)
    for key, value in schema.items():
        if key in _SCHEMA_MAPS and isinstance(value, dict):
            said[key] = {name: change(inner) for name, inner in value.items()}
        elif key in _SCHEMA_LISTS and isinstance(value, list):
            said[key] = list(map(change, value))
        elif key in _SCHEMA_INNER:
            said[key] = change(value)
    return said


_SCHEMA_NAMES: Final = {"defs": "$defs", "ref": "$ref", "example": "examples"}
_SCHEMA_MAPS: Final = frozenset(("properties", "$defs", "definitions"))
_SCHEMA_LISTS: Final = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_SCHEMA_INNER: Final = frozenset(("items", "additionalProperties"))
_SCHEMA_COUNTS: Final = frozenset(
    "minItems maxItems minLength maxLength minProperties maxProperties".split()
)
# Keywords of JSON Schema that Google does not know at any depth
_SCHEMA_UNKNOWN: Final = frozenset(
    "$schema $id $comment propertyNames patternProperties if then else not dependentRequired"
    " dependentSchemas dependencies unevaluatedItems unevaluatedProperties".split()
)

_SCHEMA_DEEP: Final = _SCHEMA_UNKNOWN | _SCHEMA_MAPS | _SCHEMA_LISTS | _SCHEMA_INNER


def _known_schema(schema: Any) -> Any:
    """JSON Schema as `parametersJsonSchema` takes it: all but a few keywords."""
    if not isinstance(schema, dict) or _SCHEMA_DEEP.isdisjoint(schema):
        return schema
    known = {key: value for key, value in schema.items() if key not in _SCHEMA_UNKNOWN}
    return _in_schema(known, _known_schema)


class _OpenAPI:
    """JSON Schema in the subset of OpenAPI that `parameters` and `responseSchema` take."""

    def __init__(self, root: JSON) -> None:
        self._root = root

    def of(self, schema: Any, within: tuple[str, ...] = ()) -> JSON:
        """`within`: the references on the way here; one that leads back becomes any object."""
        schema = schema if isinstance(schema, dict) else {}
        if isinstance(ref := schema.get("$ref"), str):
            target = found(self._root, ref.removeprefix("#/").split("/"))
            if ref in within or len(within) > _DEEPEST or not isinstance(target, dict):
                return {"type": "OBJECT"}
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self.of(target | beside, (*within, ref))
        schema = self._merged(schema)
        kinds, nullable = _kinds(schema)
        options, null = _options(schema)
        said: JSON = {key: schema[key] for key in _OPENAPI_KEPT if key in schema}
        if nullable or null or schema.get("nullable") is True:
            said["nullable"] = True
        if len(kinds) > 1:
            options = [schema | {"type": kind} for kind in kinds]
        if len(options) == 1 and not kinds:
            bare = {key: value for key, value in schema.items() if key not in _WAYS}
            return self.of(bare | options[0], within) | said
        if options:
            return said | {"anyOf": [self.of(option, within) for option in options]}
        return said | self._typed(schema, kinds[0] if kinds else _guessed(schema), within)

    def _merged(self, schema: JSON) -> JSON:
        """Without allOf: all of its properties and requirements in one."""
        if not isinstance(schema.get("allOf"), list):
            return schema
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            ref = part.get("$ref") if isinstance(part, dict) else None
            target = found(self._root, ref.removeprefix("#/").split("/")) if ref else part
            for key, value in target.items() if isinstance(target, dict) else ():
                old = merged.get(key)
                if isinstance(old, dict) and isinstance(value, dict):
                    merged[key] = old | value
                elif isinstance(old, list) and isinstance(value, list):
                    merged[key] = [*old, *(item for item in value if item not in old)]
                else:
                    merged.setdefault(key, value)
        return merged

    def _typed(self, schema: JSON, kind: str, within: tuple[str, ...]) -> JSON:
        said: JSON = {"type": kind.upper()}
        said |= {key: schema[key] for key in _OPENAPI_BOUNDS.get(kind, ()) if key in schema}
        if kind in ("integer", "number"):
            for key, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
                if isinstance(bound := schema.get(strict), int | float) and bound is not True:
                    said.setdefault(key, bound)
        if schema.get("format") in _OPENAPI_FORMATS.get(kind, ()):
            said["format"] = schema["format"]
        if kind == "string":
            enum = schema.get("enum", [schema["const"]] if "const" in schema else [])
            if enum and all(isinstance(word, str) and word for word in enum):
                said["enum"] = enum
        elif kind == "array":
            said["items"] = self.of(schema.get("items") or {"type": "string"}, within)
        elif kind == "object":
            said |= self._properties(schema, within)
        return said

    def _properties(self, schema: JSON, within: tuple[str, ...]) -> JSON:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            return {}
        said: JSON = {"properties": {n: self.of(p, within) for n, p in properties.items()}}
        required = schema.get("required")
        needed = [name for name in required or () if name in properties]
        return said | ({"required": needed} if needed else {})


_DEEPEST: Final = 16
_WAYS: Final = ("anyOf", "oneOf")
_OPENAPI_KEPT: Final = ("title", "description")
_OPENAPI_FORMATS: Final = {
    "string": ("enum", "date-time"),
    "integer": ("int32", "int64"),
    "number": ("float", "double"),
}
_OPENAPI_BOUNDS: Final = {
    "string": ("minLength", "maxLength", "pattern"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


def _kinds(schema: JSON) -> tuple[list[str], bool]:
    """The types of a schema, and whether null is among them."""
    said = schema.get("type")
    kinds = [kind for kind in (said if isinstance(said, list) else [said]) if isinstance(kind, str)]
    kinds = [kind.lower() for kind in kinds]
    return [kind for kind in kinds if kind != "null"], "null" in kinds


def _options(schema: JSON) -> tuple[list[JSON], bool]:
    """The schemas of which one must fit, and whether null is among them."""
    way = next((way for way in _WAYS if isinstance(schema.get(way), list)), None)
    options = [option for option in schema[way] if isinstance(option, dict)] if way else []
    return [o for o in options if o.get("type") != "null"], any(
        option.get("type") == "null" for option in options
    )


def _guessed(schema: JSON) -> str:
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


# A request, written


class _GeminiWriter:
    """One request on its way into this format."""

    def __init__(self, request: Request, quirks: GeminiQuirks, account: str) -> None:
        self.request = request
        self.quirks = quirks
        self.account = account
        self.dropped = [*request.dropped, *lost(request, "verbosity")]
        self.gemini = next((g for p, g in _GEMINIS if p.search(request.model)), _GEMINI_NEXT)
        self._names: dict[str, str] = {}  # of the functions called in the latest turn, by call id

    def render(self) -> Rendered:
        request = self.request
        messages = list(request.messages)
        if messages and messages[-1].role == "assistant":
            self.dropped.append("prefill")
            messages.pop()
        count = leading(messages)
        system = [p.text for m in messages[:count] for p in m.parts if isinstance(p, Text)]
        config = self._config(system)
        body: JSON = {"contents": self._contents(messages[count:])}
        if texts := [text for text in system if text]:
            body["systemInstruction"] = {"parts": [{"text": text} for text in texts]}
        if request.tools:
            body["tools"] = [{"functionDeclarations": self._functions()}]
            body |= self._choice()
        if config:
            body["generationConfig"] = config
        if (tier := request.service_tier) in self.quirks.service_tiers:
            body["serviceTier"] = _GEMINI_TIERS[tier]
        else:
            self.dropped += lost(request, "service_tier")
        return Rendered(body, tuple(dict.fromkeys(self.dropped)), request.stop[_MOST_STOPS:])

    def _contents(self, messages: Sequence[Message]) -> list[JSON]:
        said: list[JSON] = []
        for message in messages:
            role = "model" if message.role == "assistant" else "user"
            if not (parts := self._PARTS[message.role](self, message)):
                continue
            if said and said[-1]["role"] == role:
                said[-1]["parts"] += parts
            else:
                said.append({"role": role, "parts": parts})
        if not said or said[0]["role"] != "user":
            said.insert(0, {"role": "user", "parts": [{"text": "."}]})
        return said

    def _reminder(self, message: Message) -> list[JSON]:
        """A system message that is not at the front; there is no role for it."""
        text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
        return [{"text": f"<system-reminder>\n{text}\n</system-reminder>"}] if text else []

    def _user(self, message: Message) -> list[JSON]:
        """The results first, as many as calls and in their order; then the rest."""
        said, after = list[JSON](), list[JSON]()
        for part in message.parts:
            if isinstance(part, ToolResult):
                said.append(self._result(part, after))
            elif isinstance(part, Text) and part.text:
                after.append({"text": part.text})
            elif isinstance(part, Media):
                after += self._media(part)
        said += after
        alone = said and not any("text" in p or "functionResponse" in p for p in said)
        return [*said, {"text": " "}] if alone and not self.quirks.media_alone else said

    def _result(self, result: ToolResult, after: list[JSON]) -> JSON:
        texts = [part.text for part in result.parts if isinstance(part, Text)]
        media = [part for part in result.parts if isinstance(part, Media)]
        texts += [f"[document {m.name}]\n{m.data}" for m in media if m.kind == "text"]
        said: JSON = {"id": result.call_id} if self.gemini.ids else {}
        said["name"] = self._names.get(result.call_id, result.call_id)
        said["response"] = {"error" if result.is_error else "output": "\n\n".join(texts)}
        shown = [part for m in media if m.kind != "text" for part in self._media(m)]
        if shown and self.gemini.result_media:
            said["parts"] = shown
        elif shown:
            after += [{"text": f"[{media[0].kind} output of tool call {result.call_id}]"}, *shown]
        return {"functionResponse": said}

    def _assistant(self, message: Message) -> list[JSON]:
        """A thought goes back only as the signature of the part after it."""
        said = list[JSON]()
        signature = ""
        unsigned = self.gemini.signed  # is the first call of the step still to come?
        self._names = {p.id: p.name for p in message.parts if isinstance(p, ToolCall)}
        for part in message.parts:
            if isinstance(part, Reasoning):
                if signature and self._own(part):
                    said.append({"text": "", "thoughtSignature": signature})
                signature = self._own(part) or signature
                continue
            if isinstance(part, ToolCall):
                signature = signature or (_GEMINI_UNSIGNED if unsigned else "")
                unsigned = False
                wire = self._call(part)
            elif isinstance(part, Text) and part.text:
                wire = {"text": part.text}
            else:
                continue
            said.append(wire | ({"thoughtSignature": signature} if signature else {}))
            signature = ""
        return [*said, {"text": "", "thoughtSignature": signature}] if signature else said

    _PARTS: ClassVar[dict[Role, Callable[[Any, Message], list[JSON]]]] = {
        "system": _reminder,
        "user": _user,
        "assistant": _assistant,
    }

    def _own(self, part: Reasoning) -> str:
        seal = part.seal
        ours = seal and seal.field == "gs" and seal.account in ("", self.account)
        return seal.value if seal and ours else ""

    def _call(self, call: ToolCall) -> JSON:
        arguments = parse_object(call.text) if call.text.strip() else {}
        arguments = {"_raw": call.text} if arguments is None else arguments
        id = {"id": call.id} if self.gemini.ids else {}
        return {"functionCall": id | {"name": call.name, "args": arguments}}

    def _media(self, media: Media) -> list[JSON]:
        self.dropped += ["detail"] if media.detail else []
        if media.kind == "text":
            return [{"text": f"[document {media.name}]\n{media.data}"}]
        if media.url:
            mime = media.mime or _mime_by_name(media.url)
            return [{"fileData": {"mimeType": mime, "fileUri": media.url}}]
        return [{"inlineData": {"mimeType": media.mime, "data": media.data}}]

    def _functions(self) -> list[JSON]:
        tools = self.request.tools
        if len(tools) > _MOST_FUNCTIONS:
            self.dropped.append(f"tools[{_MOST_FUNCTIONS}:]")
        return [self._function(tool) for tool in tools[:_MOST_FUNCTIONS]]

    def _function(self, tool: Tool) -> JSON:
        said: JSON = {"name": tool.name}
        if tool.description:
            said["description"] = tool.description
        schema = rooted(tool.schema)
        if self.gemini.json_schema:
            return said | {"parametersJsonSchema": _known_schema(schema)}
        parameters = _OpenAPI(schema).of(schema)
        # an object without properties is refused; a function without parameters is not
        return said | ({"parameters": parameters} if "properties" in parameters else {})

    def _choice(self) -> JSON:
        choice = self.request.tool_choice
        if self.request.parallel_tools is False:
            self.dropped.append("parallel_tool_calls")
        if choice is None:
            return {}
        names = list(choice.names)
        mode = {"none": "NONE", "required": "ANY", "named": "ANY"}.get(choice.mode, "AUTO")
        if names:
            mode = "VALIDATED" if mode == "AUTO" else mode
        config = {"mode": mode} | ({"allowedFunctionNames": names} if names else {})
        return {"toolConfig": {"functionCallingConfig": config}}

    def _config(self, system: list[str]) -> JSON:
        request, sampling = self.request, self.request.sampling
        config: JSON = {
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "topK": sampling.top_k,
            "seed": sampling.seed,
            "frequencyPenalty": sampling.frequency_penalty,
            "presencePenalty": sampling.presence_penalty,
            "maxOutputTokens": request.max_tokens,
            "stopSequences": list(request.stop[:_MOST_STOPS]) or None,
            "thinkingConfig": self._thinking(request.thinking),
        }
        if not self.gemini.penalties:
            for wire, name in _PENALTIES.items():
                self.dropped += [] if config.pop(wire) is None else [name]
        if request.format:
            config |= self._format(request.format, system)
        return {name: value for name, value in config.items() if value is not None}

    def _thinking(self, thinking: Thinking | None) -> JSON | None:
        """A level or a budget, by the model's generation; never both, never more than it takes."""
        show, thinks = self.request.show_thoughts, self.gemini.levels or self.gemini.budget
        if thinking is None:
            return {"includeThoughts": True} if show and thinks else None
        word = self.quirks.efforts.get(thinking.word(), thinking.word())
        on = {"includeThoughts": word != "none" and show is not False}
        if self.gemini.levels:
            level = _level(word, self.gemini.levels)
            return on | ({"thinkingLevel": level.upper()} if level else {})
        if not self.gemini.budget:
            self.dropped += ["thinking"] if word != "none" else []
            return None
        least, most = self.gemini.budget
        wanted = thinking.budget if thinking.budget else _GEMINI_BUDGETS.get(word, most)
        return on | {"thinkingBudget": wanted if wanted < 0 else max(least, min(wanted, most))}

    def _format(self, format: Format, system: list[str]) -> JSON:
        if self.request.tools and not self.gemini.calls_and_json:
            # 400 "Function calling with a response mime type: 'application/json' is unsupported"
            fits = f" It must fit this JSON Schema: {dumps(format.schema).decode()}"
            system.append(JSON_ONLY + (fits if format.schema else ""))
            return {}
        said: JSON = {"responseMimeType": "application/json"}
        if format.schema is None:
            return said
        if self.gemini.json_schema:
            return said | {"responseJsonSchema": _known_schema(format.schema)}
        return said | {"responseSchema": _OpenAPI(format.schema).of(format.schema)}


_MOST_FUNCTIONS: Final = 512
_MOST_STOPS: Final = 5
_PENALTIES: Final = {
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
}
# "": on, and left to the model; above `high`: as much as the model takes
_GEMINI_BUDGETS: Final = {
    "": -1,
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
}


def _level(word: str, levels: Sequence[str]) -> str:
    """The highest level not above the effort, else the lowest; "" if no effort is given."""
    if not word:
        return ""
    ladder = ("none", *_GEMINI_LEVELS, "max")
    rank = ladder.index(word) if word in ladder else ladder.index("high")
    return next((level for level in reversed(levels) if ladder.index(level) <= rank), levels[0])


# A request that passes through, where it must be edited


def _gemini_cleaned(content: Any, strip: bool) -> Any:
    """A content without signatures that are recognisably not this provider's."""
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return content
    kept = [_gemini_resigned(part, strip) for part in parts]
    same = all(map(operator.is_, kept, parts))
    return content if same else content | {"parts": [part for part in kept if part is not None]}


def _gemini_resigned(part: Any, strip: bool) -> Any:
    """A call gets the word that replaces a signature; an empty text is removed with its own."""
    slot = next((slot for slot in _GEMINI_SLOTS if isinstance(part, dict) and part.get(slot)), "")
    if not slot or not (strip or _gemini_carried(word_of(part[slot])) is not None):
        return part
    if "functionCall" in part or "function_call" in part:
        return part if part[slot] == _GEMINI_UNSIGNED else part | {slot: _GEMINI_UNSIGNED}
    bare = {key: value for key, value in part.items() if key != slot}
    return bare if bare != {"text": ""} else None


_GEMINI_SLOTS: Final = ("thoughtSignature", "thought_signature")


# A signature of ours: the thoughts before the part that carries it, an envelope for each, and
# `text` where the texts were.  SDKs decode signatures to bytes, hence base64 around it.


def _gemini_token(carried: Iterable[Reasoning | None]) -> str:
    seals = (thought and hidden(thought).seal for thought in carried)
    words = [enveloped(seal) if seal else "text" for seal in seals]
    return base64.b64encode(" ".join(words).encode()).decode()


def _gemini_carried(signature: str) -> list[Reasoning | None] | None:
    """What a signature of ours says; None if it is not ours."""
    try:  # Python's SDK answers in the URL-safe alphabet
        data = base64.b64decode(signature + "=" * (-len(signature) % 4), altchars=b"-_")
    except ValueError:
        return None
    if not data.startswith(b"rly1."):
        return None
    words = data.decode(errors="replace").split()
    seals = (None if word == "text" else opened(word, "") for word in words)
    return [recalled("", seal) if seal else None for seal in seals if not seal or seal.field]


# An answer, read and written


def _gemini_id(wire: JSON) -> str:
    """The answer's id; calls without one are named after it, so it has to be unique."""
    said = word_of(wire.get("responseId"))
    return said or hashlib.sha256(dumps(wire)).hexdigest()[:24]


class _GeminiDecoder(StreamDecoder):
    """Chunks to events.  A part ends when one of another kind begins; nothing else says so."""

    def __init__(self) -> None:
        super().__init__()
        self._key: tuple[str, int] = ("", 0)  # the kind of the latest part, and its number

    def whole(self, wire: JSON) -> Response | Failure:
        """A whole answer is a stream of one chunk, which may lack its finish reason."""
        self._object(wire)
        if self._parts and not self._finish:
            self._finish = "stop"
        return fold(self.eof())

    def _object(self, wire: JSON) -> None:
        if failure := GEMINI.failure_in(wire):
            self._fail(failure)
            return
        candidates = wire.get("candidates") or ()
        if not self._begun and (candidates or wire.get("responseId")):  # else a sign of life
            self._start(_gemini_id(wire), word_of(wire.get("modelVersion")))
        if usage := GEMINI.parse_usage(wire):
            self._usage = latest(self._usage, usage)
        for candidate in candidates:
            if not candidate.get("index"):  # only the first answer is translated
                self._candidate(candidate)
        if (reason := _gemini_block(wire)) and not candidates:
            feedback = wire["promptFeedback"]
            self._finish = "content_filter"
            self._detail = word_of(feedback.get("blockReasonMessage")) or reason

    def _candidate(self, candidate: JSON) -> None:
        for part in (candidate.get("content") or {}).get("parts") or ():
            self._said_part(part)
        if not (said := candidate.get("finishReason")):
            return
        reason, message = word_of(said), word_of(candidate.get("finishMessage"))
        if reason in _GEMINI_BREAK:
            self._broke(f"ended with {reason}" + (f": {message}" if message else ""))
        elif reason != "FINISH_REASON_UNSPECIFIED":
            self._finish = _GEMINI_FINISH.get(reason, "stop")
            if self._finish == "content_filter":
                self._detail = message or reason.removeprefix("SAFETY")

    def _broke(self, message: str) -> None:
        """A failure, or after content an ordinary end with a note of why."""
        if not self._parts:
            self._fail(Failure(message, cause="transient"))
            return
        self._say("text", f"\n\n[The model {message}]")
        self._finish = "stop"

    def _said_part(self, part: JSON) -> None:
        thought, signature = part.get("thought") is True, part.get("thoughtSignature")
        if signature and not thought:
            self._seal_with(Seal("gs", word_of(signature)))
        if isinstance(call := part.get("functionCall"), dict):
            self._call(call)
        elif text := _gemini_text(part):
            self._say("thought" if thought else "text", text)
        else:  # a tool of Google's own at work, or something new
            self.acted |= not part.keys() <= _GEMINI_PART | {"text"}
        if signature and thought:
            self._seal_with(Seal("gs", word_of(signature)))

    def _seal_with(self, seal: Seal) -> None:
        """A signature belongs to the thought before its part; if there is none, to an empty one."""
        if not self._live or self._key[0] != "thought":
            self._fresh("thought", Reasoning())
        self._close(self._key, seal)

    def _say(self, kind: str, text: str) -> None:
        if not self._live or self._key[0] != kind:
            self._fresh(kind, Reasoning() if kind == "thought" else Text())
        self._delta(self._key, text)

    def _call(self, call: JSON) -> None:
        self._fresh("call", ToolCall(word_of(call.get("id")), call["name"]))
        self._delta(self._key, dumps(dict(call.get("args") or {})).decode())
        self._close(self._key)

    def _fresh(self, kind: str, part: OutputPart) -> None:
        self._key = (kind, self._key[1] + 1)
        self._part(self._key, part)


def _gemini_text(part: JSON) -> str:
    """A part as text.  Media, which other dialects' answers cannot hold, becomes a note."""
    text = part.get("text")
    if text or "text" in part:
        return text or ""
    for kind in ("inlineData", "fileData"):
        if isinstance(media := part.get(kind), dict):
            where = word_of(media.get("fileUri"))
            return f"[{word_of(media.get('mimeType')) or 'media'} {where}]".replace(" ]", "]")
    return _gemini_code(part)


class _GeminiSpeech:
    """Events to parts.  A call is sent when it is complete: readers take no fragments."""

    def __init__(self) -> None:
        self._part: OutputPart = Text()
        self._texts: list[str] = []
        self._own = ""  # Google's own signature, for the part that comes next
        self._carried: list[Reasoning | None] = []  # other makers' thoughts, for the next call
        self._torn: list[ToolCall] = []

    def parts(self, event: Event) -> list[JSON]:
        match event:
            case PartDelta(text):
                return self._said(text)
            case PartStart(part):
                return self._begun(part)
            case PartEnd(seal):
                return self._ended(seal)
            case Finish(reason):
                return self._finished(reason)
            case _:
                return []

    def _begun(self, part: OutputPart) -> list[JSON]:
        self._part, self._texts = part, []
        if isinstance(part, Text) and self._carried and self._carried[-1]:
            self._carried.append(None)
        # a signature belongs to one part: a second thought needs a part of its own
        return self._silence() if isinstance(part, Reasoning) and self._own else []

    def _said(self, text: str) -> list[JSON]:
        if isinstance(self._part, Text):
            return [{"text": text, **self._signature()} if self._own else {"text": text}]
        self._texts.append(text)
        return [{"text": text, "thought": True}] if isinstance(self._part, Reasoning) else []

    def _ended(self, seal: Seal | None) -> list[JSON]:
        text = "".join(self._texts)
        if isinstance(self._part, ToolCall):
            return self._called(replace(self._part, text=text))
        if seal and seal.field == "gs" and not seal.account:
            self._own = seal.value
        elif seal:
            self._carried.append(Reasoning(text, seal))
        return []

    def _called(self, call: ToolCall) -> list[JSON]:
        """Arguments that are several objects in a row make as many calls (LiteLLM#20543)."""
        try:
            values = json_values(call.text.encode(errors="surrogatepass")) if call.text else [{}]
        except ValueError:
            values = []
        if not values or not all(isinstance(value, dict) for value in values):
            self._torn.append(call)
            return []
        return [self._call(call, value, number) for number, value in enumerate(values)]

    def _call(self, call: ToolCall, arguments: JSON, number: int = 0) -> JSON:
        id = f"{call.id}_{number + 1}" if number else call.id
        said = {"id": id, "name": call.name, "args": arguments}
        return {"functionCall": said} | self._signature(True)

    def _finished(self, reason: FinishReason) -> list[JSON]:
        """A call that was cut off is not sent, or it would be run; one that is wrong is sent."""
        wrong = [] if reason in ("length", "content_filter") else self._torn
        said = [self._call(call, {"_raw": call.text}) for call in wrong]
        return said + self._silence() if self._own or self._carried else said

    def _silence(self) -> list[JSON]:
        return [{"text": ""} | self._signature(True)]

    def _signature(self, last: bool = False) -> JSON:
        """Google's own goes on the next part, ours on a part that every client sends back."""
        signature, self._own = self._own, ""
        if last and not signature and any(self._carried):
            signature, self._carried = _gemini_token(self._carried), []
        return {"thoughtSignature": signature} if signature else {}


def _gemini_chunk(asked: Asked, id: str, parts: list[JSON] | str) -> JSON:
    content = {"role": "model", "parts": parts or [{"text": ""}]}  # readers look at the first
    return {
        "candidates": [{"content": content, "index": 0}],
        "modelVersion": asked.model,
        "responseId": id or asked.id,
    }


def _gemini_finished(chunk: JSON, finish: Finish) -> JSON:
    """The chunk as the last one: how the answer ended, and the counts of all of it."""
    candidate = chunk["candidates"][0] | {"finishReason": _GEMINI_STOP.get(finish.reason, "STOP")}
    if finish.detail and finish.reason == "content_filter":
        candidate["finishMessage"] = finish.detail
    return chunk | {"candidates": [candidate], "usageMetadata": _gemini_usage(finish.usage)}


def _gemini_usage(usage: Usage) -> JSON:
    counts = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(0, usage.output - usage.reasoning),
        "totalTokenCount": usage.input + usage.output,
    }
    seldom = {
        "cachedContentTokenCount": usage.cache_read,
        "thoughtsTokenCount": usage.reasoning,
    }
    return counts | {name: count for name, count in seldom.items() if count}


class _GeminiEncoder:
    """Events to chunks: as server-sent events, or as the elements of one JSON array."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._speech = _GeminiSpeech()
        self._array = asked.variant == "array"
        self._opened = False
        self._id = asked.id
        self._form = self._chunk_form()

    def encode(self, event: Event) -> bytes:
        if isinstance(event, Start):
            self._id = event.id or self._asked.id
            self._form = self._chunk_form()
        parts = self._speech.parts(event)
        if isinstance(event, Finish):
            usage = self._asked.counted(event.usage)
            chunk = _gemini_chunk(self._asked, self._id, parts)
            last = dumps(_gemini_finished(chunk, replace(event, usage=usage)))
            return self._frame(last) + (b"]" if self._array else b"")
        # After a break nothing is sent: Gemini CLI takes an answer that ends in an error event for
        # a complete one.  It sees the connection close without its last chunk.
        return self._frame(self._form % dumps(parts)) if parts else b""

    def alive(self) -> bytes:
        if self._array:
            return b"\n"
        return self._frame(self._form % dumps([{"text": ""}]))

    def _chunk_form(self) -> bytes:
        return form_of(dumps(_gemini_chunk(self._asked, self._id, HOLE)))

    def _frame(self, chunk: bytes) -> bytes:
        if not self._array:
            return b"data: " + chunk + b"\n\n"
        before, self._opened = b",\r\n" if self._opened else b"[", True
        return before + chunk


GEMINI: Final = GeminiContent()


# ==== 10. Pipes ===============================================================
# What is between the provider's bytes and the client's.  Equal dialects are piped through
# untouched, and only a meter reads along; unequal ones meet in the hub.  What is needed is seen
# from what the provider sends, not from what it was asked or declares: servers send JSON in reply
# to a streaming request, SSE to one for a whole answer, and one dialect on another's path.
#
#     the provider sends      to a client that wants a stream     ... a whole answer
#     SSE, client's dialect   Passthrough: the bytes              Gathered: fold, render
#     SSE, another dialect    Translation: decode, encode         Gathered: fold, render
#     JSON, client's dialect  Translation: unfold, encode         Gathered: the bytes
#     JSON, another dialect   Translation: unfold, encode         Gathered: parse, render
#     an error, a web page    a failure, and the next target      a failure, and the next target

DIALECTS: Final[dict[str, Dialect]] = {d.name: d for d in (ANTHROPIC, CHAT, RESPONSES, GEMINI)}

BodyNote = Literal["verbatim", "edited", "translated"]


@frozen
class Passage:
    """From whom to whom an answer goes, and what has to be restored on the way."""

    upstream: Dialect  # what was spoken to the provider
    client: Dialect
    asked: Asked
    names: Mapping[str, str] = field(default_factory=dict)  # tool names -> as the client knows them
    account: str = ""  # whose the seals are
    provider: str = "the provider"  # for error messages
    redacted: Callable[[str], str] = str  # takes secrets out of what a provider says


# Some providers keep the connection open after the last event.  After the end mark nothing
# follows; after a finish reason come the usage and the end mark, if there is one.
_AFTER_END, _AFTER_FINISH = 1.0, 5.0  # seconds


class Pipe(ABC):
    """Bytes in, bytes out.  `feed` and `eof` never raise; `failure` says what went wrong.

    `begun`: the provider has sent something that cannot be taken back.  Until then nothing
    that `feed` returned may reach the client, so that another target can be tried.
    """

    def __init__(self) -> None:
        self.begun = False
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.translated = True
        self.rest = math.inf  # seconds to wait for more; finite once an end has come

    @abstractmethod
    def feed(self, data: bytes) -> bytes: ...

    @abstractmethod
    def eof(self, reason: Failure = TRUNCATED) -> bytes:
        """The provider's bytes are over: a failure for this `reason`, unless they were complete."""

    def alive(self) -> bytes:
        """A keep-alive in the client's dialect; it may go between any two outputs of `feed`."""
        return b""

    @property
    def chosen(self) -> Pipe:
        """The pipe to go on with: this one, unless it only had to find out which."""
        return self

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case PartDelta() | PartStart(ToolCall() | Reasoning()) | PartEnd(Seal()):
                    self.begun = True
                case Finish(_, usage):
                    self.begun = True
                    self.usage = latest(self.usage or Usage(), usage)
                case Failure():
                    self.failure = event
                case _:
                    pass


class Passthrough(Pipe):
    """Same dialect on both sides: complete events pass as they came."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self.translated = False
        self._passage = passage
        self._dialect = passage.client
        self._marks = passage.client.marks
        self._encoder = passage.client.encoder(passage.asked)
        self._probe: StreamDecoder | None = passage.client.decoder()  # until it has begun
        self._held: list[bytes] = []  # the pieces of an incomplete event
        self._size = 0
        self._ended = False
        self._started = False

    def feed(self, data: bytes) -> bytes:
        if self._held or not data.endswith(b"\n\n"):
            if self._size + len(data) > MOST_HELD:
                return self._endless()
            data = self._whole(data)
        if self._probe and data:
            self._look(data)
        self._started |= bool(data)
        return self._read(data) if holds_any(data, self._marks) else data

    def _whole(self, data: bytes) -> bytes:
        """The complete events in what was held and these bytes; the rest is held."""
        self._held.append(data)
        self._size += len(data)
        if b"\n" not in data and b"\r" not in data:
            return b""
        data = b"".join(self._held)
        cut = whole_events(data)
        self._held = [data[cut:]] if cut < len(data) else []
        self._size = len(data) - cut
        return data[:cut]

    def _endless(self) -> bytes:
        self._held = []
        self.failure = Failure("sent an event without an end", cause="transient")
        return self._encoder.encode(told(self.failure, self._passage))

    def eof(self, reason: Failure = TRUNCATED) -> bytes:
        """A last event may lack its blank line; half an event is dropped before the error."""
        held, self._held = b"".join(self._held), []
        if held:
            self._look(held + b"\n\n")
        if probe := self._probe:  # the end of the bytes may be all that completes the answer
            self._note_first(probe, (e for e in probe.eof() if not isinstance(e, Failure)))
        said = self._read(held + b"\n\n").removesuffix(b"\n\n") if held else b""
        if (self._ended and self.begun) or self.failure:
            return said if _is_whole(said) else b""
        self.failure = reason
        error = self._encoder.encode(told(reason, self._passage))
        return (said + b"\n\n" if said and _is_whole(said) else b"") + error

    def alive(self) -> bytes:
        # the start went past the encoder; tell it of one, so that it may ping
        if self._started:
            self._encoder.encode(Start())
            self._started = False
        return self._encoder.alive()

    def _look(self, data: bytes) -> None:
        """Has the answer begun, or failed before that?  What comes later is for the meter."""
        for piece in _pieces(data):
            if not (probe := self._probe):
                return
            self._note_first(probe, probe.feed(piece))

    def _note_first(self, probe: StreamDecoder, events: Iterable[Event]) -> None:
        for event in events:
            self._note([event])
            if self.begun:
                break
        self.begun |= probe.acted
        if self.begun:
            self._probe = None

    def _read(self, data: bytes) -> bytes:
        """The meter: JSON is parsed only in events that hold one of the dialect's marks."""
        decoder = SSEDecoder()
        for event in decoder.feed(self._marked(data)) + decoder.eof():
            if not holds_any(event.data, self._marks):
                continue  # of many events in a block only a few have to be read
            if self._dialect.is_last(event.data):
                self._ended, self.rest = True, _AFTER_END
            try:
                wire = loads(event.data)
                if self._dialect.is_end(event.data):
                    self._ended, self.rest = True, min(self.rest, _AFTER_FINISH)
                usage = self._dialect.parse_usage(wire)
                failed = self._dialect.failure_in(wire)
            except UNREADABLE:
                continue
            if usage:
                self.usage = latest(self.usage or Usage(), usage)
            if failed:  # only here might a provider quote a credential
                self.failure = self.failure or failed
                data = self._passage.redacted(data.decode(errors="surrogateescape")).encode(
                    errors="surrogateescape"
                )
        return data

    def _marked(self, data: bytes) -> bytes:
        """From the event that holds the first mark: usually a stream's last few."""
        first = len(data)
        for mark in self._marks:  # backwards, which takes half the time
            while (at := data.rfind(mark, 0, first)) >= 0:
                first = at
        return data[whole_events(data[:first]) :]


def _pieces(data: bytes, size: int = 1024) -> Iterator[bytes]:
    """A little at a time, because of a large block only the beginning may be needed."""
    return (data[at : at + size] for at in range(0, len(data), size))


def _is_whole(event: bytes) -> bool:
    """Does an event that lacks its blank line lack nothing else?"""
    try:
        parts = [part.data for part in SSEDecoder().feed(event + b"\n\n")]
        return all(part == b"[DONE]" or loads(part) is not None for part in parts)
    except ValueError:
        return False


class _Veil:
    """Takes the thoughts out of a stream that the client does not want to see.

    Nothing of them is lost: each rides in the seal at its end.
    """

    def __init__(self) -> None:
        self._texts: list[str] | None = None  # of the thought that is open

    def over(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            match event:
                case PartStart(Reasoning()):
                    self._texts = []
                    yield event
                case PartDelta(text) if self._texts is not None:
                    self._texts.append(text)
                case PartEnd(seal) if self._texts is not None:
                    yield PartEnd(hidden(Reasoning("".join(self._texts), seal)).seal)
                    self._texts = None
                case _:
                    yield event


class _Stops:
    """Ends the text at a stop sequence, for a provider that does not.

    The rest of the answer is read, for its counts, and not passed on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._any = re.compile("|".join(map(re.escape, stops)))
        self._held = ""  # the end of the text, with which a stop may begin
        self._open = False  # is a text open?
        self._called = False
        self._found = ""

    def over(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if not self._found:
                yield from self._passed(event)
            elif isinstance(event, Finish):
                reason = true_finish("stop_sequence", self._called)
                yield Finish(reason, event.usage, self._found)
            elif isinstance(event, Failure):  # behind all that the client wanted
                yield Finish(true_finish("stop_sequence", self._called), detail=self._found)

    def _passed(self, event: Event) -> Iterator[Event]:
        match event:
            case PartStart(part):
                self._open = isinstance(part, Text)
                self._called |= isinstance(part, ToolCall)
            case PartDelta(text) if self._open:
                yield from self._cut(self._held + text)
                return
            case PartEnd() if self._held:
                yield PartDelta(self._held)
                self._held = ""
            case _:
                pass
        yield event

    def _cut(self, text: str) -> Iterator[Event]:
        match = self._any.search(text)
        end = match.start() if match else len(text) - self._doubtful(text)
        self._held = "" if match else text[end:]
        if end:
            yield PartDelta(text[:end])
        if match:
            self._found = match[0]
            yield PartEnd()

    def _doubtful(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop."""
        most = min(max(map(len, self._stops)) - 1, len(text))
        ends = (n for n in range(most, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops))
        return next(ends, 0)


def _filters(asked: Asked) -> tuple[_Veil | _Stops, ...]:
    """What stands between the provider's events and the client's; mostly nothing."""
    veils, stops = () if asked.shown else (_Veil(),), tuple(filter(None, asked.stops))
    return (*veils, _Stops(stops)) if stops else veils


def _filtered(events: Iterable[Event], filters: Iterable[_Veil | _Stops]) -> Iterable[Event]:
    for each in filters:
        events = each.over(events)
    return events


class Translation(Pipe):
    """Different dialects, or different modes: bytes to events to bytes."""

    def __init__(self, passage: Passage, decoder: StreamDecoder | WholeDecoder) -> None:
        super().__init__()
        self._passage = passage
        self._decoder = decoder
        self._encoder = passage.client.encoder(passage.asked)
        self._filters = _filters(passage.asked)

    def feed(self, data: bytes) -> bytes:
        return self._say(self._decoder.feed(data))

    def eof(self, reason: Failure = TRUNCATED) -> bytes:
        return self._say(self._decoder.eof(reason))

    def alive(self) -> bytes:
        return self._encoder.alive()

    def _say(self, events: Iterable[Event]) -> bytes:
        said = []
        for event in _filtered(events, self._filters) if self._filters else events:
            if isinstance(event, PartDelta):  # nearly all of a stream, with nothing to restore
                self.begun = True
            else:
                event = self._put_back(event)
            said.append(self._encoder.encode(event))
        if self._decoder.ended:
            self.rest = _AFTER_END
        elif self._decoder.finishing:
            self.rest = _AFTER_FINISH
        return b"".join(said)

    def _put_back(self, event: Event) -> Event:
        """The event for the client; a failure is noted as the provider gave it, to be judged."""
        event = returned(event, self._passage)
        self._note([event])
        return told(event, self._passage) if isinstance(event, Failure) else event


def told(failure: Failure, passage: Passage) -> Failure:
    """A failure as the client is told it: with the provider's name, without the credential."""
    message = passage.redacted(failure.message[:1000])
    return replace(failure, message=f"{passage.provider}: {message}")


def returned(event: Event, passage: Passage) -> Event:
    """An event with the client's own tool names, and seals that say whose they are."""
    match event:
        case Failure(message=message):
            return replace(event, message=passage.redacted(message))
        case PartStart(part):
            return PartStart(returned_part(part, passage))
        case PartEnd(Seal() as seal):
            return PartEnd(_owned(seal, passage))
        case _:
            return event


def returned_part(part: OutputPart, passage: Passage) -> OutputPart:
    match part:
        case ToolCall(id, name, text) if name in passage.names:
            return ToolCall(id, passage.names[name], text)
        case Reasoning():
            return replace(part, seal=part.seal and _owned(part.seal, passage))
        case _:
            return part


def _owned(seal: Seal, passage: Passage) -> Seal:
    if passage.upstream is passage.client:
        return seal
    return replace(seal, account=passage.account)


class WholeDecoder:
    """A provider's whole answer as a stream of events."""

    def __init__(self, expected: Dialect) -> None:
        self._expected = expected
        self._data: list[bytes] = []
        self._size = 0
        self.ended = self.finishing = False

    def feed(self, data: bytes) -> list[Event]:
        self._data.append(data)
        self._size += len(data)
        if self._size <= MOST_HELD or self.ended:
            return []
        self.ended = True
        self._data.clear()
        return [Failure(f"sent more than {MOST_HELD >> 20} MB", cause="transient")]

    def eof(self, reason: Failure = TRUNCATED) -> list[Event]:
        if self.ended:
            return []
        self.ended = True
        answer = whole_answer(b"".join(self._data), self._expected)
        return [answer] if isinstance(answer, Failure) else list(unfold(answer[1]))


def whole_answer(data: bytes, expected: Dialect) -> tuple[Dialect, Response] | Failure:
    """A whole JSON answer, in whatever dialect it turns out to be, or a failure."""
    try:
        wire = loads(data)
        wire = wire[0] if isinstance(wire, list) and wire else wire  # Google wraps errors in a list
        dialect = recognised(wire, expected)
        if failure := _failure_instead(wire, dialect):
            return failure
        return dialect, sound(dialect.parse_response(wire))
    except UNREADABLE as error:
        return Failure(f"an unreadable answer ({error}): {snippet(data)}", cause="transient")


def _failure_instead(wire: JSON, dialect: Dialect) -> Failure | None:
    if dialect.claims(wire) and not (wire.get("base_resp") or {}).get("status_code"):
        return dialect.failure_in(wire)
    return failure_in(wire) or Failure(
        f"not an answer of this kind: {snippet(dumps(wire))}", cause="transient"
    )


def recognised(wire: JSON, expected: Dialect) -> Dialect:
    """The dialect an object is in: some servers answer in another than their path's."""
    if expected.claims(wire):
        return expected
    return next((d for d in DIALECTS.values() if d.claims(wire)), expected)


def snippet(data: bytes) -> str:
    """The beginning of what a provider sent, fit for one line of an error message."""
    text = data.decode(errors="replace")[:2000]
    if "<html" in text[:500].lower() or text.lstrip().startswith("<"):
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        return f"an HTML page, {_cut(title[1], 100)!r}" if title else "an HTML page"
    return _cut(text, 300) or "nothing"


def _cut(text: str, most: int) -> str:
    """Whole words only: half a credential would not be recognised as one, and so be shown."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most].rpartition(" ")[0] + " ..."


class Gathered(Pipe):
    """For a client that wants a whole answer: everything comes out of `eof`."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self._passage = passage
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._data.append(data)
        return b""

    def eof(self, reason: Failure = TRUNCATED) -> bytes:
        data, passage = b"".join(self._data), self._passage
        self.begun = True
        if looks_like(data) != "json":
            return self._respond(_folded(data, passage))
        if self._passes(data):
            return data
        answer = whole_answer(data, passage.upstream)
        if isinstance(answer, Failure):
            return self._respond(answer)
        said = _filtered_answer(answer[1], passage.asked)
        parts = tuple([returned_part(part, passage) for part in said.parts])
        return self._respond(
            Response(said.id, said.model, parts, said.finish, said.usage, said.detail)
        )

    def _passes(self, data: bytes) -> bool:
        """Is it an answer in the client's own dialect?  Then it need not be parsed into the hub."""
        client = self._passage.client
        try:
            wire = loads(data)
            passes = not self._passage.names and client.claims(wire) and client.is_answer(wire)
            self.usage = client.parse_usage(wire) if passes else None
        except UNREADABLE:
            return False
        self.translated = not passes
        return passes

    def _respond(self, answer: Response | Failure) -> bytes:
        if isinstance(answer, Failure):
            self.failure = answer
            return b""
        self.usage = answer.usage
        return dumps(self._passage.client.render_response(answer, self._passage.asked))


def _folded(data: bytes, passage: Passage) -> Response | Failure:
    """A stream that came where a whole answer was wanted."""
    if looks_like(data) != "sse":
        return Failure(f"not an answer: {snippet(data)}", cause="transient")
    dialect = first_dialect(data + b"\n\n", passage.upstream) or passage.upstream
    decoder = dialect.decoder()
    events = _filtered(decoder.feed(data) + decoder.eof(), _filters(passage.asked))
    return fold(returned(event, passage) for event in events)


def _filtered_answer(answer: Response, asked: Asked) -> Response:
    filters = _filters(asked)
    return cast(Response, fold(_filtered(unfold(answer), filters))) if filters else answer


def looks_like(data: bytes) -> Literal["json", "sse", "other", ""]:
    """The kind of answer that begins with these bytes, whatever its content type says."""
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:8]
    if not start:
        return ""
    if start[:1] in b"{[":
        return "json"
    words = (b"data:", b"event:", b"id:", b"retry:", b":")
    if any(start.startswith(word) or word.startswith(start) for word in words):
        return "sse"
    return "other"


def first_dialect(data: bytes, expected: Dialect) -> Dialect | None:
    """The dialect of a stream, by its first JSON event; None if none has come yet."""
    decoder = SSEDecoder()
    for event in itertools.chain.from_iterable(map(decoder.feed, _pieces(data))):
        try:
            wire = loads(event.data)
        except ValueError:
            return expected
        if isinstance(wire, dict):
            return recognised(wire, expected)
    return None


_MOST_PREAMBLE: Final = 1 << 20  # comments, before a stream says what dialect it is in


class Streamed(Pipe):
    """For a client that wants a stream: holds the first bytes until they show what they are."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self._passage = passage
        self._way: Pipe | None = None
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        if self._way is None:
            self._buffer += data
            self._way = self._recognise()
            data, self._buffer = (self._buffer, b"") if self._way else (b"", self._buffer)
        return self._through(self._way.feed(data)) if self._way else b""

    def eof(self, reason: Failure = TRUNCATED) -> bytes:
        if self._way is None and not self._buffer.strip():
            self.failure = Failure("sent an empty answer", cause="transient")
            return b""
        if self._way is None:
            data, self._buffer = self._buffer, self._buffer + b"\n\n"
            self._way = self._recognise() or self._choose(self._passage.upstream)
            return self._through(self._way.feed(data) + self._way.eof(reason))
        return self._through(self._way.eof(reason))

    def alive(self) -> bytes:
        return self._way.alive() if self._way else b""

    @property
    def chosen(self) -> Pipe:
        return self._way or self

    def _recognise(self) -> Pipe | None:
        if len(self._buffer) > _MOST_PREAMBLE:
            return self._choose(self._passage.upstream)
        match looks_like(self._buffer):
            case "json":
                return Translation(self._passage, WholeDecoder(self._passage.upstream))
            case "other":
                return _Unreadable(self._buffer)
            case "sse":
                dialect = first_dialect(self._buffer, self._passage.upstream)
                return self._choose(dialect) if dialect else None
            case _:
                return None

    def _choose(self, dialect: Dialect) -> Pipe:
        passage = self._passage
        as_it_is = passage.asked.variant not in dialect.converted and not passage.names
        if dialect is passage.client and as_it_is:
            return Passthrough(self._passage)
        return Translation(self._passage, dialect.decoder())

    def _through(self, out: bytes) -> bytes:
        if way := self._way:
            self.begun, self.failure, self.usage = way.begun, way.failure, way.usage
            self.rest = way.rest
            self.translated = way.translated
        return out


class _Unreadable(Pipe):
    """A web page, or worse: not an answer at all."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.failure = Failure(f"not an answer: {snippet(data)}", cause="transient")

    def feed(self, data: bytes) -> bytes:
        return b""

    def eof(self, reason: Failure = TRUNCATED) -> bytes:
        return b""


# ==== 11. Body ================================================================
# A client's request as bytes.  To a provider of the same dialect it goes as it came, except for
# the model's JSON string, which is replaced in place: prompt caches compare bytes.  What must be
# edited keeps the order of its keys.


class Body:
    """A request body and, decoded once, its content.

    A large one may stay unread: its two ends usually tell the model and the mode, and the rest is
    decoded only if somebody asks for it.  Until then it is not known to be JSON.
    """

    def __init__(self, raw: bytes, unread: bool = False) -> None:
        self.raw = raw
        self._model_at = -1  # where the key "model" is, as seen from the ends
        if not unread or len(raw) < _LARGE:
            self.wire = _decoded(raw)

    @functools.cached_property
    def wire(self) -> JSON:
        return _decoded(self.raw)

    @property
    def unread(self) -> bool:
        return "wire" not in self.__dict__

    def read(self) -> JSON:
        """All of it; BadRequest if it is not JSON."""
        return self.wire

    @functools.cached_property
    def exact(self) -> JSON:
        """The content for writing it again: with integers of any size."""
        exact = loads_exactly(self.raw) if has_long_number(self.raw) else self.wire
        return exact if isinstance(exact, dict) else self.wire

    def outline(self, marks: Iterable[bytes] = ()) -> JSON:
        """Model and mode of an unread body; all of it if its ends leave a doubt, or if it holds one
        of the `marks`, which say that there is more to know."""
        if not self.unread or any(self.raw.rfind(mark) >= 0 for mark in marks):
            return self.wire
        ends = _by_its_ends(self.raw)
        if ends is None:
            return self.wire
        said, self._model_at = ends
        return said

    def retargeted(self, model: str) -> bytes:
        """The same bytes with another model; re-rendered JSON if its place is not certain."""
        span = self._span()
        if span is None:
            return dumps(self.exact | {"model": model})
        if loads(self.raw[slice(*span)]) == model:
            return self.raw
        return b"".join((self.raw[: span[0]], dumps(model), self.raw[span[1] :]))

    def _span(self) -> tuple[int, int] | None:
        if not self.unread:
            return _modelspan(self.raw, self.wire)
        match = _MODEL_VALUE.match(self.raw, self._model_at) if self._model_at >= 0 else None
        return match.span(1) if match else _modelspan(self.raw, self.wire)


def _decoded(raw: bytes) -> JSON:
    if not raw:
        raise BadRequest("the body is empty; expected JSON")
    try:
        wire = loads(raw)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(wire, dict):
        raise BadRequest(f"body: expected an object, got {shown(wire)}")
    if [key for key in wire if len(key) == 5 and key != "model" and key.lower() == "model"]:
        # servers that ignore the case of names would read another model than relay did
        raise BadRequest("model: stands here in another spelling too")
    return wire


_LARGE: Final = 1 << 15  # bytes; to decode fewer costs no more than to search them
# The scalar members at the very beginning.
_SCALARS_FIRST: Final = re.compile(
    rb"""[ \t\r\n]*\{ (?: [ \t\r\n]* "[A-Za-z_]{1,40}" [ \t\r\n]* : [ \t\r\n]*
    (?: "[^"\\\x00-\x1f]{0,256}" | -?[0-9][0-9.eE+-]{0,30} | true | false | null )
    [ \t\r\n]* , )*""",
    re.VERBOSE,
)
_SCALAR: Final = re.compile(rb'"[a-z]+"[ \t\r\n]*:[ \t\r\n]*[^\[{ \t\r\n]')


def _by_its_ends(raw: bytes) -> tuple[JSON, int] | None:
    """Model and mode by the two ends of a body, and where the model's key is; None if the ends
    leave a doubt.

    A key is at the top level if it is one of the scalar members at the beginning, or if all from
    it to the end is the rest of one object.  The last occurrence with a scalar counts: one with
    an object, as in the schema of a tool, is neither mode nor model.  "model" must occur once.
    """
    head = _SCALARS_FIRST.match(raw)
    if not head or not raw[-64:].rstrip().endswith(b"}"):
        return None
    said: JSON = {}
    places = {name: _last_scalar(raw, f'"{name}"'.encode(), len(raw)) for name in _OUTLINED}
    for name, place in places.items():
        try:
            said |= _member(raw, place, head.end(), name) if place >= 0 else {}
        except (ValueError, KeyError):
            return None
    place = places["model"]
    if place < 0 or _last_scalar(raw, b'"model"', place) >= 0:
        return None
    return said, place


_OUTLINED: Final = ("model", "stream")


def _last_scalar(raw: bytes, key: bytes, end: int) -> int:
    """The last place before `end` where a key has a scalar; -1 if there is none."""
    place = raw.rfind(key, 0, end)
    while place >= 0 and not _SCALAR.match(raw, place):
        place = raw.rfind(key, 0, place)
    return place


def _member(raw: bytes, place: int, head: int, name: str) -> JSON:
    """The top-level member at a place; ValueError if it is not one, or is too costly to read."""
    if place < head:
        rest = raw[place:head].rstrip(b", \t\r\n") + b"}"
    elif place > len(raw) // 2:
        rest = raw[place:]
    else:
        raise ValueError("in the middle")
    return {name: loads(b"{" + rest)[name]}


_MODEL_VALUE: Final = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')


_DEPTH: Final = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],]')


def _modelspan(raw: bytes, wire: JSON) -> tuple[int, int] | None:
    """Where the model's string is, exactly or not at all.

    In valid JSON the bytes `"model"` are always a whole string token, because a quote inside a
    string is escaped.  If the values of the other keys hold all but one of these tokens, that
    one is the only top-level key, and counting tells which it is.  If keys occur twice the count
    comes out wrong, and every token is looked at.
    """
    # rfind where `in` or count would do: on JSON it takes a third of the time
    if raw.rfind(b"\\u006") >= 0:  # m, o, d, e and l are all \u006x: one may be written so
        return _model_walked(raw)
    place = 0
    if raw.find(b'"model"') != raw.rfind(b'"model"'):
        count = raw.count(b'"model"')
        inside = {k: dumps([k, v]).count(b'"model"') for k, v in wire.items() if k != "model"}
        if sum(inside.values()) + 1 + (wire["model"] == "model") != count:
            return _model_walked(raw)
        place = sum(inside[key] for key in _before(wire, "model"))
    start = -1
    for _ in range(place + 1):
        start = raw.find(b'"model"', start + 1)
    match = _MODEL_VALUE.match(raw, start)
    return match.span(1) if match and loads(match[1]) == wire["model"] else None


def _model_walked(raw: bytes) -> tuple[int, int] | None:
    """The same by walking all tokens, which takes ten times as long."""
    depth, key, spans = 0, b"", list[tuple[int, int]]()
    for token in _TOKEN.finditer(raw):
        step = _DEPTH.get(token[0], 0)
        depth += step
        if step or depth != 1:
            continue
        if token[0] == b",":
            key = b""
        elif not key:
            key = token[0]
        elif loads(key) == "model":
            spans.append(token.span())
    return spans[0] if len(spans) == 1 else None


def _before(wire: JSON, name: str) -> list[str]:
    keys = list(wire)
    return keys[: keys.index(name)]


class Form:
    """A multipart form (RFC 7578) while it arrives, read for its `model` field only.

    A part begins after a delimiter line, which by definition occurs nowhere else, so the field
    is found exactly.  A second one is refused: servers differ in which they read.
    """

    def __init__(self, content_type: str) -> None:
        found_at = _BOUNDARY.search(content_type)
        if not found_at:
            raise BadRequest("Content-Type: a form needs its boundary")
        mark = re.escape(b"--" + (found_at[1] or found_at[2]).encode(errors="replace"))
        head = rb"(?:\A|\r\n)" + mark + rb"[ \t]*\r\n(?:[^\r\n]+\r\n)*?"
        name = (
            rb"content-disposition:[^\r\n]*;[ \t]*name=(?:\"model\"|model(?=[;\r \t]))[^\r\n]*\r\n"
        )
        tail = rb"(?:[^\r\n]+\r\n)*\r\n"
        self._header = re.compile(head + name + tail, re.IGNORECASE)
        self._value = re.compile(rb"([^\r\n]{0,1024})\r\n" + mark)
        self._seen = b""  # the last bytes, in which a header may have begun
        self.data = bytearray()  # held back: everything until the model is known
        self.span: tuple[int, int] | None = None  # where the model is in `data`

    def feed(self, block: bytes) -> None:
        """More of the form; BadRequest if it has two `model` fields."""
        if self.span:
            self._seen = self._seen[-_MOST_PART_HEADER:] + block
            if self._header.search(self._seen):
                raise BadRequest("model: stands twice in the form")
            return
        start = max(0, len(self.data) - _MOST_PART_HEADER)
        self.data += block
        header = self._header.search(self.data, start)
        value = self._value.match(self.data, header.end()) if header else None
        if value:
            self.span = value.span(1)
            self.feed(bytes(self.data[value.end(1) :]))

    @property
    def model(self) -> str:
        """What it says, or "" while it has not."""
        start, end = self.span or (0, 0)
        return self.data[start:end].decode(errors="replace")

    def retargeted(self, model: str) -> bytes:
        """What was held back, with another model."""
        start, end = self.span or (0, 0)
        said = model.encode() if self.span else b""
        return bytes(self.data[:start]) + said + bytes(self.data[end:])


_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_MOST_PART_HEADER: Final = 4096  # bytes of a delimiter and the headers after it


@frozen
class Edits:
    """What a provider's quirks, or a user's override, change in a body; in this order."""

    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    clamp: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)

    def taken(self, body: JSON) -> tuple[str, ...]:
        """The paths that `applied` removes from a body."""
        return tuple(path for path in self.drop if found(body, path.split(".")) is not None)

    def applied(self, body: JSON) -> JSON:
        """The edited body; the very same object if there is nothing to edit."""
        for path in self.drop:
            body = without(body, path.split("."))
        if any(old in body for old in self.rename):
            body = {self.rename.get(key, key): value for key, value in body.items()}
        for path, (low, high) in self.clamp.items():
            value = found(body, path.split("."))
            if isinstance(value, int | float) and not low <= value <= high:
                body = with_value(body, path.split("."), min(max(value, low), high))
        for path, value in self.default.items():
            if found(body, path.split(".")) is None:
                body = with_value(body, path.split("."), value)
        for path, value in self.set.items():
            old = found(body, path.split("."))
            if old != value or type(old) is not type(value):  # 1 is not true
                body = with_value(body, path.split("."), value)
        return body


# ==== 12. HTTP ================================================================
# What a provider sends on a connection, read as RFC 9112 says: bytes in; a head, the bytes of a
# body, and an end out.  There is no socket here, so tests can cut the bytes wherever they like.
#
#     status line, fields            -> `head`; 1xx come before it and are skipped
#     a body of a known length       ends by count
#     a body in chunks               ends with an empty chunk; extensions and trailers are skipped
#     anything else                  ends with the connection
#
# How long a body is must be beyond doubt, else the rest of one answer would be read as the
# beginning of the next (response splitting).  Two different lengths, a length together with chunks,
# a coding other than `chunked` alone, a space before a colon and a bare CR are each a `fault`.
# What old servers do and nobody can misread is accepted: lines that end in LF, folded values.

_MOST_HEAD: Final = 1 << 16  # bytes; of interim heads and trailers likewise.  nginx: 32 KB
_MOST_CHUNK_LINE: Final = 1 << 12  # a chunk's size and its extensions
_MOST_INTERIM: Final = 16  # 102 and 103 may come repeatedly

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\0]*)?")
_FIELD: Final = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)$", re.MULTILINE)
_FOLD: Final = re.compile(rb"\n[ \t]+")
_LENGTH: Final = re.compile(r"\d{1,15}", re.ASCII)
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_HINT: Final = re.compile(r"\btimeout\s*=\s*(\d{1,6})\b", re.IGNORECASE)


class Head(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    version: int  # the minor one: HTTP/1.0 closes unless it says otherwise


class ReplyDecoder:
    """One reply.  Total: whatever the bytes, `feed` and `eof` never raise; `fault` says what is
    wrong.

    `kept`, at the end: the connection may carry another request.
    """

    __slots__ = ("_held", "_interim", "_left", "_read", "begun", "ended", "fault", "head", "kept")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.begun = self.ended = self.kept = False
        self.fault = ""
        self._read: Callable[[bytes], bytes] = self._in_head
        self._held = bytearray()  # of a head, a chunk's line or the trailers
        self._left = 0  # bytes of the body, or of a chunk and the line's end after it
        self._interim = 0

    def feed(self, data: bytes) -> bytes:
        """The part of the body that is in these bytes."""
        if not data:
            return b""
        self.begun = True
        return self._read(data)

    def eof(self) -> None:
        """The connection ended: with it the reply, or the reply is incomplete."""
        if self._read == self._until_close:
            self.ended = True
        elif not (self.ended or self.fault):
            self._fail("broke off its answer" if self.head else "closed without an answer")

    @property
    def patience(self) -> float:
        """Seconds for which the server promises to keep an idle connection."""
        hint = _HINT.search(self.head.headers.get("Keep-Alive", "")) if self.head else None
        return float(hint[1]) if hint else math.inf

    def _fail(self, fault: str) -> bytes:
        self.fault, self.kept, self._read = fault, False, self._ignored
        return b""

    def _ignored(self, data: bytes) -> bytes:
        self.kept = False  # bytes after the end belong to nothing
        return b""

    def _end(self, rest: bytes | bytearray) -> None:
        self.ended, self._read = True, self._ignored
        self.kept = self.kept and not rest

    def _in_head(self, data: bytes) -> bytes:
        before = len(self._held)
        self._held += data
        held = self._held if before else data  # usually all of it comes at once
        if held[:7] != b"HTTP/1."[: len(held)]:
            return self._fail("does not answer in HTTP")
        end = _HEAD_END.search(held, max(0, before - 2))
        if (end.end() if end else len(held)) > _MOST_HEAD:
            return self._fail("sent a head that is too large")
        if not end:
            return b""
        text, rest = bytes(held[: end.start()]), bytes(held[end.end() :])
        self._held.clear()
        return self._headed(_head(text.removesuffix(b"\r")), rest)

    def _headed(self, head: Head | str, rest: bytes) -> bytes:
        if isinstance(head, str):
            return self._fail(head)
        if head.status >= 200:
            return self._begin_body(head, rest)
        self._interim += 1
        if head.status == 101 or self._interim > _MOST_INTERIM:
            return self._fail("sent an interim answer that nobody asked for")
        return self._in_head(rest) if rest else b""

    def _begin_body(self, head: Head, rest: bytes) -> bytes:
        length = _body_length(head)
        if isinstance(length, str):
            return self._fail(length)
        self.head, self.kept = head, _keeps(head) and length != _BY_CLOSE
        self._left = max(0, length)
        if not length:
            self._end(rest)
            return b""
        if length == _IN_CHUNKS:
            self._read = self._in_chunks
        else:
            self._read = self._until_close if length == _BY_CLOSE else self._of_length
        return self._read(rest) if rest else b""

    def _until_close(self, data: bytes) -> bytes:
        return data

    def _of_length(self, data: bytes) -> bytes:
        body = data[: self._left]
        self._left -= len(body)
        if not self._left:
            self._end(data[len(body) :])
        return body

    def _in_chunks(self, data: bytes) -> bytes:
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        parts = list[bytes]()
        at = self._of_chunk(data, 0, parts) if self._left else 0
        while at < len(data):
            line = _CHUNK_LINE.match(data, at)
            start = line.end() if line else at
            end = start + int(line[1], 16) if line else at
            if end > start and data[end : end + 2] == b"\r\n" and start - at <= _MOST_CHUNK_LINE:
                parts.append(data[start:end])  # the usual case: all of it is here
                at = end + 2
            elif self._chunk_line(data, at, line):
                at = self._of_chunk(data, start, parts)
            else:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _of_chunk(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Take what is here of a chunk and of the line's end after it; the place after that."""
        body = data[at : at + max(0, self._left - 2)]
        parts.append(body)
        at, self._left = at + len(body), self._left - len(body)
        if self._left <= 2:
            ending = data[at : at + self._left]
            if not b"\r\n"[-self._left :].startswith(ending):
                self._fail("sent a chunk that is longer than it said")
                return len(data)
            at, self._left = at + len(ending), self._left - len(ending)
        return at

    def _chunk_line(self, data: bytes, at: int, line: re.Match[bytes] | None) -> bool:
        """Does a chunk begin here?  If not, all of the bytes have been dealt with."""
        if (line.end() if line else len(data)) - at > _MOST_CHUNK_LINE:
            # not the line of a chunk, or far too long for one
            self._fail("sent a broken chunk")
        elif not line and data.find(b"\n", at) >= 0:
            self._fail("sent a broken chunk")
        elif not line:
            self._held += data[at:]
        elif size := int(line[1], 16):
            self._left = size + 2
            return True
        else:
            self._read = self._in_trailers
            self._held += b"\n"  # so that a blank line ends them, even if there are none
            self._in_trailers(data[line.end() :])
        return False

    def _in_trailers(self, data: bytes) -> bytes:
        """Nobody here reads them."""
        before = len(self._held)
        self._held += data
        end = _HEAD_END.search(self._held, max(0, before - 3))
        if (end.end() if end else len(self._held)) > _MOST_HEAD:
            self._fail("sent trailers that are too large")
        elif end:
            self._end(self._held[end.end() :])
            self._held.clear()
        return b""


_BY_CLOSE, _IN_CHUNKS = -1, -2


def _head(text: bytes) -> Head | str:
    """A head, given without its blank line; or what is wrong with it."""
    text = text.replace(b"\r\n", b"\n")
    if b"\r" in text or b"\0" in text:
        return "sent a bare CR or NUL in its head"
    first, newline, rest = text.partition(b"\n")
    said = _STATUS_LINE.fullmatch(first)
    if not said or rest.startswith((b" ", b"\t")):
        return "does not answer in HTTP"
    if b"\n " in rest or b"\n\t" in rest:
        rest = _FOLD.sub(b" ", rest)
    fields = _FIELD.findall(rest.decode(errors="surrogateescape"))
    if len(fields) != rest.count(b"\n") + len(newline):
        return "sent a header that is none"
    headers = CIMultiDict([(name, value.rstrip(" \t")) for name, value in fields])
    return Head(int(said[2]), CIMultiDictProxy(headers), int(said[1]))


def _body_length(head: Head) -> int | str:
    """How many bytes, or how else the end is known; or why it is not known."""
    said = head.headers.getall("Content-Length", ())
    codings = head.headers.getall("Transfer-Encoding", ())
    if head.status in (204, 304):
        return 0
    if not codings and not said:
        return _BY_CLOSE
    if len(codings) == 1 and not said and head.version == 1:
        return _IN_CHUNKS if codings[0].strip().lower() == "chunked" else _IN_DOUBT
    lengths = {length.strip() for line in said for length in line.split(",")}
    if codings or len(lengths) > 1 or not _LENGTH.fullmatch(min(lengths)):
        return _IN_DOUBT
    return int(min(lengths))


_IN_DOUBT: Final = "leaves in doubt how long its answer is"


def _keeps(head: Head) -> bool:
    said = head.headers.getall("Connection", ())
    words = {word.strip().lower() for word in ",".join(said).split(",")} if said else ()
    return "close" not in words and (head.version == 1 or "keep-alive" in words)


class Address(NamedTuple):
    """Where a request goes."""

    origin: str  # scheme, host and port: requests with the same may share a connection
    host: str  # and port
    target: str  # goes into the request's first line
    plain: bool  # has neither user and password nor a name that needs encoding as ASCII


@functools.lru_cache(maxsize=512)
def address_of(url: str) -> Address:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("#")[0].partition("/")
    plain = "@" not in host and url.isascii()
    return Address(f"{scheme}://{host}", host, slash + path or "/", plain)


def request_text(target: str, host: str, headers: Mapping[str, str], length: int) -> bytes:
    """The head of a POST; ValueError for a header or address that would break out of its line."""
    lines = (*map(": ".join, headers.items()), f"Content-Length: {length}", "", "")
    fields = "\r\n".join(lines)
    named = "\nhost:" in f"\n{fields}".lower()  # in the user's own headers
    first = f"POST {target} HTTP/1.1\r\n"
    text = first + fields if named else f"{first}Host: {host}\r\n{fields}"
    ends = len(headers) + (3 if named else 4)
    if text.count("\r") != ends or text.count("\n") != ends or "\0" in text:
        raise ValueError("a header holds a line's end")
    if not _TARGET.fullmatch(target):
        raise ValueError("an address that is none")
    return text.encode(errors="surrogateescape")


_TARGET: Final = re.compile(r"/[!-~]*")


# ==== 13. Failures ============================================================
# What a provider's error means.  The body is looked at before the status: a 429 means five
# different things, a 403 is an empty plan at one provider and a wrong key at another, a 400 can
# be a debt, and an error can hide in a 200.  The tables are in Presets; here is how they are read:
#
#     1. What did it say?   `said_in`   code, type, message, in whatever shape they come
#     2. What does it mean? `judged`    the first rule that matches: the preset's, then common ones
#     3. Until when?        `_until`    retry-after-ms, retry-after, a date or a delay in the text,
#                                       rate-limit headers, the rule's calendar; if nothing says,
#                                       `Health` guesses


@frozen
class ErrorRule:
    """One row: what a failure looks like, and its class.  Every condition given must hold."""

    failure: str  # a key of FAILURES
    status: tuple[int, ...] = ()
    code: tuple[str, ...] = ()  # error.code, or a leading [1308] of the message; x* is a prefix
    type: tuple[str, ...] = ()
    pattern: str = ""  # a regular expression searched in the message
    scope: str = ""  # instead of the class's own
    reset: str = ""  # when it ends if nothing else says, one of RESETS

    def matches(self, status: int, said: Failure) -> bool:
        return (
            (not self.status or status in self.status)
            and (not self.code or _is_one_of(said.code, self.code))
            and (not self.type or _is_one_of(said.type, self.type))
            and (not self.pattern or bool(_searched(self.pattern, said.message + said.extra)))
        )


RESETS: Final = ("midnight+8", "monday+8", "month")  # in China, where these plans are sold


def _is_one_of(word: str, words: Sequence[str]) -> bool:
    word = word.lower()
    return any(
        word.startswith(w[:-1].lower()) if w.endswith("*") else word == w.lower() for w in words
    )


def _searched(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(pattern, text, re.IGNORECASE)  # re keeps the compiled ones


def said_in(body: bytes, status: int = 0) -> Failure:
    """What an error body says, in any provider's shape; GLM's `[1308][text][id]` included."""
    try:
        wire = loads(body)
        wire = wire[0] if isinstance(wire, list) and wire else wire
        said = failure_in(wire) if isinstance(wire, dict) else None
    except ValueError:
        said = None
    said = said or Failure(f"HTTP {status}, {snippet(body)}" if status else snippet(body))
    bracket = re.match(r"\[(\w+)\]\[?", said.message)
    return replace(said, code=bracket[1]) if bracket else said


_MOST_SAID: Final = 1000  # characters of a provider's words; FastAPI quotes the whole prompt


@frozen
class Verdict:
    """A failure, classified: `until` is in seconds from now, None if nothing says."""

    failure: str
    message: str
    scope: str
    until: float | None


def judged(
    rules: Iterable[ErrorRule],
    status: int,
    said: Failure,
    headers: Mapping[str, str],
    now: float,
) -> Verdict:
    """The first rule that matches decides."""
    if status == 200 and re.fullmatch(r"[45]\d\d", said.code):  # OpenRouter's code is a status
        status = int(said.code)
    rule = next((rule for rule in rules if rule.matches(status, said)), None)
    fallback = "transient" if status >= 500 or status < 400 else "bad_request"
    failure = said.cause or (rule.failure if rule else fallback)
    scope = rule.scope if rule else ""
    until = None
    if FAILURES[failure].scope != "request":
        until = _until(headers, said.message + said.extra, rule.reset if rule else "", now)
    return Verdict(failure, said.message[:_MOST_SAID], scope or FAILURES[failure].scope, until)


def _until(headers: Mapping[str, str], text: str, reset: str, now: float) -> float | None:
    """Seconds until a limit ends, from the first source that says; never negative."""
    sources = (
        _milliseconds(headers.get("retry-after-ms")),
        _retry_after(headers.get("retry-after"), now),
        _date_in(text, now),
        _header_reset(headers, now),
        _calendar(reset, now),
    )
    seconds = next((value for value in sources if value is not None), None)
    if seconds is None or not math.isfinite(seconds):
        return None
    return min(max(0.0, seconds), 35 * 86400.0)  # no window is longer than a month


def _milliseconds(value: str | None) -> float | None:
    with contextlib.suppress(ValueError, TypeError):
        return float(value or "") / 1000
    return None


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds, or an HTTP date (RFC 9110 10.2.3)."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(ValueError):
        date = datetime.datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT")
        return date.replace(tzinfo=datetime.UTC).timestamp() - now
    return None


# 2026-08-03 23:59:59 +0800 CST (Ark), 2026-06-06T05:00:00+08:00 (MiniMax); without a zone it is
# China's (GLM).  A bare number in brackets is never seconds: MiniMax's texts end with (2056).
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?")
_CHINA: Final = datetime.timezone(datetime.timedelta(hours=8))
# "retryDelay": "43s" (Google), "try again in 1m2.5s" (OpenAI, Groq)
_DELAY: Final = re.compile(
    r"(?:retryDelay\W+|(?:again|retry|reset\w*) (?:in|after) )"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|h|m|s)(?![a-z])\s*)+|\d+(?= seconds))"
)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _date_in(text: str, now: float) -> float | None:
    if match := _DATE.search(text):
        zone = (match[3] or "+08:00").replace("Z", "+00:00")
        with contextlib.suppress(ValueError):
            return datetime.datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp() - now
    if match := _DELAY.search(text):
        return _duration(match[1])
    return None


def _duration(text: str) -> float | None:
    """6m0s, 1.5s, 20ms, 17."""
    steps = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?", text)
    return sum(float(n) * _UNITS[unit or "s"] for n, unit in steps) if steps else None


def _header_reset(headers: Mapping[str, str], now: float) -> float | None:
    """anthropic-ratelimit-unified-reset (epoch), or the longest of x-ratelimit-reset-*."""
    if value := headers.get("anthropic-ratelimit-unified-reset"):
        with contextlib.suppress(ValueError):
            return float(value) - now
    spent = {
        name.lower().replace("remaining", "reset")
        for name, left in headers.items()
        if name.lower().startswith("x-ratelimit-remaining-") and left.strip() == "0"
    }
    waits = [
        wait
        for name, value in headers.items()
        if name.lower() in spent and (wait := _duration(value)) is not None
    ]
    return max(waits, default=None)


def _calendar(reset: str, now: float) -> float | None:
    """The next midnight, Monday or month, in China."""
    if not reset:
        return None
    today = datetime.datetime.fromtimestamp(now, _CHINA)
    midnight = today.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"midnight+8": 1, "monday+8": 7 - today.weekday()}.get(reset)
    if days is None:
        then = (midnight.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
    else:
        then = midnight + datetime.timedelta(days=days)
    return then.timestamp() - now


# ==== 14. Presets =============================================================
# One row per place where one can have an account: its addresses, what it wants differently, how
# it fails (from the makers' documents and public issues, named where a row is odd).  To add a
# provider is to add a row; whatever is odd about it is data in that row.  Base URLs are exact:
# nothing is guessed about where a version belongs.


@frozen(kw_only=True)
class Preset:
    key: str = ""  # the environment variable of its credential
    plans: Mapping[str, Mapping[str, str]]  # plan -> dialect -> base URL, the best dialect first
    subscription: tuple[str, ...] = ()  # the plans that are paid in advance
    globs: tuple[str, ...] = ()  # the names it serves if `models` is not given
    auth: Mapping[str, str] = field(default_factory=dict)  # dialect -> a key of AUTH_STYLES
    quirks: Mapping[str, Quirks] = field(default_factory=dict)
    errors: tuple[ErrorRule, ...] = ()  # before the common ones
    paths: Mapping[str, str] = field(default_factory=dict)  # like `paths` in a configuration
    local: bool = False  # a server of one's own, which needs no key


# The formatter would give every value of these tables a line of its own.
# fmt: off

# What a failure means at any provider: read from the top, after the provider's own rows, bodies
# before statuses.  `pattern` sees the message followed by the JSON text of error.details and
# error.metadata (Google's quota ids, OpenRouter's limit_source).  `type` is also Google's
# error.status and TGI's error_type, `code` also Huawei's error_code and MiniMax's
# base_resp.status_code.  An error inside a 200 whose code is an HTTP status counts as that status.

_TOO_LONG: Final = "|".join((
    r"maximum (context|prompt|input|model) length",  # OpenAI, vLLM, DeepSeek, Mistral; xAI; Huawei
    r"(model's|than the) context length|context length of only",     # SGLang, LM Studio
    r"exceeds? (the |its )?(available )?context",    # OpenAI, llama.cpp, Ollama, Anthropic
    r"context window exceeds",                       # MiniMax
    r"(prompt|input) (is )?too long",                # Anthropic, Fireworks, Ollama
    r"input token count.{0,30}(exceeds|only supports)",          # Gemini, Vertex
    r"exceeded model token limit|message size.{0,30}exceeds",    # Kimi: tokens, bytes
    r"range of input length should be",              # DashScope
    r"exceed max message tokens|exceeds the maximum length",     # Ark
    r"prompt_tokens.{0,30}must be less than",        # SiliconFlow
    r"`inputs` (tokens \+|must have less than)",     # TGI
    r"reduce the length of the messages|request too large for",      # OpenAI, Groq
    r"required for long context requests",           # Anthropic 429: "Extra usage is ..."
))

_NO_MODEL: Final = "|".join((
    r"\bmodels?[:/]? ?\S{0,80}? (does not exist|not exist|(is )?not (found|supported|available))",
    r"(unknown|invalid|no such) model\b|not a valid model|not found the model",     # GLM; Kimi
    r"(access to|activated) (the |this )?model\b",   # OpenAI 403; Ark
))

# A limit and a span of time in one clause mean a plan's window.  Not "requests per hour" or "rate
# limit for this period", which are rates, nor "retry in an hour" after a comma or a full stop.
_WINDOW: Final = "|".join((
    r"((?<!per )hour|week|month|period|cycle)[^.,;]{0,30}(quota|limit)",
    r"(quota|(?<!rate )limit)[^.,;]{0,30}((?<!per )hour|week|month|period|cycle)",
    r"(小时|周|月)\S{0,10}(额度|限额|上限)",
))

COMMON_ERRORS: Final[tuple[ErrorRule, ...]] = (
    # The request
    ErrorRule("too_long", code=("context_length_exceeded",                   # OpenAI and its kin
                                "tokens_too_long", "characters_too_long")),  # Qianfan
    ErrorRule("too_long", type=("exceed_context_size_error", "request_too_large")),
    ErrorRule("too_long", pattern=_TOO_LONG),
    ErrorRule("moderation", code=("content_filter", "content_policy_violation", "invalid_prompt",
                                  "moderation_blocked", "data_inspection_failed")),
    ErrorRule("moderation", type=("content_filter",)),
    ErrorRule("moderation", status=(200, 400), pattern=r"content exists risk|"   # DeepSeek
              r"content management policy|blocked by content filter"),           # Azure; Anthropic
    ErrorRule("client_rejected", type=("client_validation_error",)),             # other relays
    ErrorRule("client_rejected", pattern=r"client (is )?not (allowed|authorized)|"
              r"only (available for coding agents|accepts requests from claude code)"),
    # Quotas paid in advance, and spending limits
    ErrorRule("plan_exhausted", reset="month",                               # OpenAI
              code=("organization_spend_limit_exceeded", "project_spend_limit_exceeded",
                    "organization_usage_limit_exceeded")),
    ErrorRule("plan_exhausted", reset="month",                               # Anthropic, 400 or 429
              pattern=r"enforced_spend_limit_reached|reached your specified api usage limits"),
    ErrorRule("plan_exhausted", type=("usage_limit_reached",)),              # a ChatGPT plan
    # Google says "You exceeded your current quota" to all of these; the details tell (Gemini CLI)
    ErrorRule("overloaded", status=(200, 429, 499, 503),
              pattern=r"MODEL_CAPACITY_EX|exhausted your capacity"),
    ErrorRule("plan_exhausted", type=("RESOURCE_EXHAUSTED",), scope="credential+model",
              pattern=r"PerDay|per_day|daily|\blimit: 0\b|\bQUOTA_EXHAUSTED|INSUFFICIENT_G1_"),
    ErrorRule("rate_limited", type=("RESOURCE_EXHAUSTED",)),
    # Money
    ErrorRule("balance_empty", code=("credit_balance_exhausted", "insufficient_quota",   # OpenAI
                                     "billing_not_active", "billing_hard_limit_reached",
                                     "insufficient_balance", "insufficient_user_quota")),  # one-api
    ErrorRule("balance_empty", type=("insufficient_quota", "insufficient_balance",
                                     "billing_error")),
    ErrorRule("balance_empty", pattern=r"insufficient (account )?(balance|funds|credit)|"
              r"out of credits|credit balance is too low|余额不足|欠费"),    # Anthropic, 400
    ErrorRule("plan_exhausted", status=(200, 429), pattern=_WINDOW),
    # The provider is busy
    ErrorRule("overloaded", code=("server_is_overloaded", "capacity_exceeded", "model_overloaded")),
    ErrorRule("overloaded", type=("overloaded_error", "overloaded", "UNAVAILABLE",
                                  "unavailable_error", "service_unavailable_error")),
    ErrorRule("overloaded", status=(200, 429, 500, 502, 503),      # Mistral: 429 "Service tier ..."
              pattern=r"overloaded|over capacity|capacity exceeded|no capacity|server is busy"),
    # The credential, the rate, the model
    ErrorRule("auth", code=("invalid_api_key", "account_deactivated")),
    ErrorRule("auth", type=("authentication_error", "permission_error", "UNAUTHENTICATED",
                            "FAILED_PRECONDITION")),               # Gemini: not from this country
    ErrorRule("auth", pattern=r"api[ _-]?key (is )?(not valid|invalid|expired)|API_KEY_INVALID|"
              r"(invalid|incorrect) api[ _-]?key|VALIDATION_REQUIRED|"      # Gemini: with a 400
              r"organization has been disabled|user location is not supported"),
    ErrorRule("rate_limited", code=("rate_limit_exceeded", "slow_down", "too_many_requests")),
    ErrorRule("rate_limited", type=("rate_limit_error", "rate_limited")),
    ErrorRule("model_missing", code=("model_not_found", "model_decommissioned", "invalid_model",
                                     "DeploymentNotFound")),                # OpenAI, Groq, Azure
    ErrorRule("model_missing", status=(200, 400, 403, 404, 410, 422), pattern=_NO_MODEL),
    ErrorRule("model_missing", status=(404,), pattern=r"\bmodel\b"),
    # Nothing but the status
    ErrorRule("auth", status=(401, 403)),
    ErrorRule("balance_empty", status=(402,)),
    ErrorRule("transient", status=(404, 405)),       # a wrong path is the endpoint's fault
    ErrorRule("transient", status=(408, 409, 424, 425, 499, 500, 502, 504)),
    ErrorRule("too_long", status=(413,)),
    ErrorRule("rate_limited", status=(429,)),
    ErrorRule("overloaded", status=(498, 503, 529)),                        # Groq's flex; Anthropic
    ErrorRule("bad_request", status=(400, 422)),
    ErrorRule("bad_request", status=(200,), type=("invalid_request_error", "INVALID_ARGUMENT")),
    ErrorRule("transient", status=(200,)),           # it had accepted the request: its own failure
)

# What a failure means, at one provider.

_GLM_ERRORS: Final[tuple[ErrorRule, ...]] = (    # docs.bigmodel.cn/cn/api/api-code
    ErrorRule("plan_exhausted", code=("1308", "1310")),  # 5 hours; week or month: date in the text
    ErrorRule("plan_exhausted", code=("1311",), scope="credential+model"),       # not in this plan
    ErrorRule("plan_exhausted", code=("1304",), reset="midnight+8"),             # calls of the day
    ErrorRule("plan_expired", code=("1309",)),
    ErrorRule("balance_empty", code=("1113",)),      # HTTP 429; also a key at another plan's base
    ErrorRule("rate_limited", code=("1302", "1303", "1305")),
    ErrorRule("overloaded", code=("1312",)),
    ErrorRule("client_rejected", code=("1313",)),            # fair use: a person must look
    ErrorRule("auth", code=("1000", "1001", "1002", "1003", "1004",
                            "1110", "1111", "1112", "1120", "1121", "1220")),
    ErrorRule("model_missing", code=("1211", "1212", "1221", "1222")),
    ErrorRule("too_long", code=("1261",)),
    ErrorRule("moderation", code=("1300", "1301")),
    ErrorRule("bad_request", code=("1210", "1213", "1214", "1215")),
    ErrorRule("transient", code=("500", "1230", "1231", "1234")),
    ErrorRule("auth", status=(434,)),                        # no permission
    ErrorRule("bad_request", status=(435,)),                 # a file
)

_KIMI_ERRORS: Final[tuple[ErrorRule, ...]] = (   # kimi.com/code/docs, platform.kimi.ai
    ErrorRule("plan_expired", status=(402,), pattern=r"membership"),
    ErrorRule("plan_exhausted", status=(200, 403, 429),      # the week says it with a 403
              pattern=r"usage limit for this (billing cycle|period)|(weekly|monthly) usage limit"),
    ErrorRule("client_rejected", type=("access_terminated_error",)),
    ErrorRule("client_rejected", status=(403,), pattern=r"coding agents|access terminated"),
    ErrorRule("balance_empty", type=("exceeded_current_quota_error",)),
    ErrorRule("overloaded", type=("engine_overloaded_error",)),
    ErrorRule("rate_limited", type=("rate_limit_reached_error",)),
    ErrorRule("moderation", status=(400,), pattern=r"high risk"),
    ErrorRule("too_long", status=(400,), pattern=r"token limit|message size"),
)

_MOONSHOT_ERRORS: Final[tuple[ErrorRule, ...]] = (
    *_KIMI_ERRORS,
    ErrorRule("auth", type=("permission_denied_error",)),
    ErrorRule("balance_empty", status=(403,)),               # kimi.com/help: an empty account
)

_DASHSCOPE_ERRORS: Final[tuple[ErrorRule, ...]] = (      # Model Studio: error codes, plan FAQs
    ErrorRule("plan_exhausted", pattern=r"week allocated quota exceeded", reset="monday+8"),
    ErrorRule("plan_exhausted", pattern=r"month allocated quota exceeded", reset="month"),
    ErrorRule("plan_exhausted", pattern=r"hour allocated quota exceeded|calls are blocked"),
    ErrorRule("balance_empty", code=("AllocationQuota.FreeTierOnly",), scope="credential+model"),
    ErrorRule("balance_empty", pattern=r"free allocated quota exceeded", scope="credential+model"),
    # After the windows: the same words without a span are tokens per minute, not money.
    ErrorRule("rate_limited", code=("Throttling*", "insufficient_quota", "limit_requests")),
    ErrorRule("rate_limited", type=("insufficient_quota",)),
    ErrorRule("rate_limited", pattern=r"allocated quota exceeded|exceeded your current quota"),
    ErrorRule("balance_empty", code=("Arrearage",)),         # HTTP 400
    ErrorRule("moderation", code=("DataInspection*",)),
)

_MINIMAX_ERRORS: Final[tuple[ErrorRule, ...]] = (        # platform.minimax.io; often in a 200
    ErrorRule("plan_exhausted", code=("2056",)),
    ErrorRule("plan_exhausted", pattern=r"usage limit exceeded|\(2056\)"),   # the same, a 429
    ErrorRule("balance_empty", code=("1008",)),
    ErrorRule("rate_limited", code=("1002", "1039")),        # requests; tokens per minute
    ErrorRule("auth", code=("1004", "2049")),
    ErrorRule("moderation", code=("1026", "1027")),
    ErrorRule("too_long", code=("2013",), pattern=r"context window"),
    ErrorRule("bad_request", code=("2013",)),
    ErrorRule("transient", code=("1000", "1001", "1024", "1033")),
)

_ARK_ERRORS: Final[tuple[ErrorRule, ...]] = (            # volcengine.com/docs/82379/1299023
    ErrorRule("plan_exhausted", code=("AccountQuotaExceeded",)),             # also in mid-stream
    ErrorRule("balance_empty", code=("AccountOverdueError",)),               # HTTP 403
    ErrorRule("auth", code=("AuthenticationError", "AccessDenied")),
    ErrorRule("model_missing", code=("InvalidEndpoint*", "ModelNotOpen")),   # ...OrModel.NotFound
    ErrorRule("overloaded", code=("ServerOverloaded",)),                     # HTTP 429
    ErrorRule("rate_limited", code=("RateLimitExceeded*",)),
    ErrorRule("moderation", code=("InputTextRisk*", "InputImageRisk*", "OutputTextRisk*",
                                  "OutputImageRisk*", "SensitiveContentDetected*")),
)

_SILICONFLOW_ERRORS: Final[tuple[ErrorRule, ...]] = (    # flat: {"code": 20012, "message": ...}
    ErrorRule("model_missing", code=("20012",)),
    ErrorRule("balance_empty", code=("30001",)),             # unconfirmed
    ErrorRule("overloaded", status=(503, 504)),
)

_OPENROUTER_ERRORS: Final[tuple[ErrorRule, ...]] = (     # openrouter.ai/docs errors, limits
    ErrorRule("rate_limited", status=(402,), pattern=r"in_flight_budget"),   # has a Retry-After
    ErrorRule("overloaded", status=(402,), scope="provider+model",           # the provider it asked
              pattern=r"\braw\b"),
    ErrorRule("overloaded", status=(429,), scope="provider+model",
              pattern=r"rate-limited upstream"),
    ErrorRule("balance_empty", status=(403,), pattern=r"key limit exceeded"),    # Roo-Code#515
    ErrorRule("moderation", status=(403,)),
    ErrorRule("bad_request", status=(404,), pattern=r"no endpoints found that support"),
    ErrorRule("model_missing", status=(404,), pattern=r"no endpoints found"),
)

_XAI_ERRORS: Final[tuple[ErrorRule, ...]] = (            # continue#10373, hermes-agent#26847
    ErrorRule("balance_empty", code=("personal-team-blocked*",)),
    ErrorRule("balance_empty", status=(403, 429), pattern=r"used all available credits|"
              r"spending-limit|run out of credits|doesn't have any credits"),
)

_GROQ_ERRORS: Final[tuple[ErrorRule, ...]] = (           # the model wrote a bad call: draw again
    ErrorRule("transient", status=(400, 422), scope="request",
              pattern=r"failed_generation|failed to (call|generate)"),
)

_HUAWEI_ERRORS: Final[tuple[ErrorRule, ...]] = (         # huaweicloud.com tokenplan-maas-0013
    ErrorRule("plan_exhausted", code=("ModelArts.81022",)),  # HTTP 403, as the next three
    ErrorRule("plan_expired", code=("ModelArts.81019",)),
    ErrorRule("balance_empty", code=("ModelArts.81021",)),   # frozen: "check for arrears"
    ErrorRule("client_rejected", code=("ModelArts.81023",)),             # a person must look
    ErrorRule("rate_limited", code=("ModelArts.81101", "ModelArts.81103")),
    ErrorRule("balance_empty", code=("ModelArts.81005",), scope="credential+model"),  # free quota
    ErrorRule("model_missing", code=("ModelArts.81004", "ModelArts.81009")),
    ErrorRule("moderation", code=("ModelArts.81011", "ModelArts.81013")),
)

_LOCAL_ERRORS: Final[tuple[ErrorRule, ...]] = (          # no quota, only a queue
    ErrorRule("overloaded", status=(429, 503)),
)

_FASTCHAT_ERRORS: Final[tuple[ErrorRule, ...]] = (       # fastchat/constants.py; HTTP 400 for all
    ErrorRule("auth", code=("4010*",)),
    ErrorRule("model_missing", code=("40301",)),
    ErrorRule("too_long", code=("40303",)),
    ErrorRule("overloaded", code=("4290*",)),
    ErrorRule("transient", code=("5000*",)),
    *_LOCAL_ERRORS,
)

# What a platform wants differently.  By platform, not by model: at another host the same model
# takes other fields.  An edited body is no longer the client's, byte for byte, so a row holds only
# what the platform refuses or misreads.

_LOW_MEDIUM_HIGH: Final = {"none": "low", "minimal": "low", "low": "low", "medium": "medium",
                           "high": "high", "xhigh": "high", "max": "high"}
_LOW_HIGH_MAX: Final = {"minimal": "low", "low": "low", "medium": "high",   # none is said otherwise
                        "high": "high", "xhigh": "max", "max": "max"}

_GLM_QUIRKS: Final = {"openai": ChatQuirks(
    drop=("store", "parallel_tool_calls", "service_tier", "logit_bias"),     # 1210 for the unknown
    clamp={"temperature": (0.01, 0.99), "top_p": (0.01, 0.99)},  # open interval, as z-ai-sdk does
    reasoning="thinking", efforts=_LOW_HIGH_MAX,                 # older than glm-5.2: ignored
    replay="always",                                             # preserved thinking, docs.z.ai
    json_schema=False, tool_choice=("auto",), tool_strict="drop"),
    "anthropic": AnthropicQuirks(unsigned=True)}

_DEEPSEEK_EFFORTS: Final = _LOW_HIGH_MAX | {"xhigh": "high"}
_DEEPSEEK_QUIRKS: Final = {
    "openai": ChatQuirks(
        reasoning="thinking", efforts=_DEEPSEEK_EFFORTS,     # disabled together with an effort: 400
        placeholder=" ", json_schema=False, system_in_place=True,    # a tool turn without it: 400
        tool_choice=("auto", "none"),                        # when thinking, DeepSeek-V3#1376
        tool_strict="drop"),                                 # known to /beta only
    "anthropic": AnthropicQuirks(placeholder=" ", unsigned=True),
    "responses": ResponsesQuirks(
        efforts={"none": "none"} | _DEEPSEEK_EFFORTS, tool_choice=("auto", "none"),
        placeholder=" ", unsigned=True)}

_KIMI_TOOL: Final = r"[a-zA-Z_][a-zA-Z0-9_-]{2,63}"          # three characters at least
_KIMI_EFFORTS: Final = {"none": "low"} | _LOW_HIGH_MAX       # K3 cannot be off; K2 ignores efforts
_KIMI_QUIRKS: Final = {
    "openai": ChatQuirks(                                    # 400 "invalid temperature: only 1 ..."
        drop=("temperature", "top_p", "n", "presence_penalty", "frequency_penalty"),
        efforts=_KIMI_EFFORTS, placeholder=" ", tool_choice=("auto", "none"),
        max_tokens="max_completion_tokens", tool_name=_KIMI_TOOL, prefill="partial",
        tool_strict="false"),                                # true unless said: CLIs' schemas fail
    "anthropic": AnthropicQuirks(drop=("temperature", "top_p"), placeholder=" ", unsigned=True,
                        tool_name=_KIMI_TOOL),
    "responses": ResponsesQuirks(
        drop=("temperature", "top_p"), efforts=_KIMI_EFFORTS, placeholder=" ", unsigned=True,
        tool_choice=("auto", "none"), tool_name=_KIMI_TOOL, tool_strict="false")}

_VERTEX_QUIRKS: Final = {"gemini": GeminiQuirks(         # `store` is not of Vertex (python-genai)
    drop=("store",), media_alone=False, count_tokens=True)}

_DASHSCOPE_QUIRKS: Final = {"openai": ChatQuirks(
    reasoning="enable_thinking", tool_choice=("auto", "none"),   # when thinking, eino#994
    tool_strict="drop")}

_MINIMAX_QUIRKS: Final = {
    "openai": ChatQuirks(
        fixed={"reasoning_split": True},                     # else <think> stands inside content
        reasoning="none", replay="always", replay_field="reasoning_details",
        clamp={"temperature": (0.01, 1.0)},                  # (0, 1]
        tool_choice=("auto", "none"), tool_strict="drop"),
    "anthropic": AnthropicQuirks(clamp={"temperature": (0.01, 1.0)}, unsigned=True)}

_STEPFUN_QUIRKS: Final = {"openai": ChatQuirks(
    efforts=_LOW_MEDIUM_HIGH, replay_field="reasoning", tool_strict="drop")}

_ARK_QUIRKS: Final = {"openai": ChatQuirks(      # its plans document efforts, not thinking: {type}
    efforts=_LOW_MEDIUM_HIGH, tool_strict="drop")}

_SILICONFLOW_QUIRKS: Final = {"openai": ChatQuirks(
    reasoning="enable_thinking", clamp={"thinking_budget": (128, 32768)}, tool_strict="drop")}

_MIMO_QUIRKS: Final = {
    "openai": ChatQuirks(reasoning="thinking", replay="always", placeholder=" ",     # missing: 400
                     json_schema=False, tool_strict="drop"),
    "anthropic": AnthropicQuirks(placeholder=" ", unsigned=True)}

_OPENAI_TIERS: Final = ("auto", "default", "flex", "priority", "scale", "fast")
_OPENAI_QUIRKS: Final = {"openai": ChatQuirks(
    replay="never", max_tokens="max_completion_tokens",
    system_role="developer", system_in_place=True,
    sampling=(),                                 # its reasoning models refuse every one of them
    tools_effort="none",                         # what gpt-5.4 and later want here beside tools
    tool_choice=("auto", "none", "required", "named", "allowed"),
    verbosity=True, service_tiers=_OPENAI_TIERS,
    identity=("safety_identifier", "prompt_cache_key")),
    "responses": ResponsesQuirks(
        service_tiers=_OPENAI_TIERS, sampling=(),
        identity=("safety_identifier", "prompt_cache_key"), count_tokens=True)}

_OPENROUTER_QUIRKS: Final = {
    "openai": ChatQuirks(
        reasoning="reasoning", replay_field="reasoning_details",
        efforts={"none": "none", "minimal": "minimal", "low": "low", "medium": "medium",
                 "high": "high", "xhigh": "xhigh", "max": "xhigh"}),     # max: 400, openclaw#77350
    "anthropic": AnthropicQuirks(signed=True)}                           # of Claude, checked

_GROQ_QUIRKS: Final = {"openai": ChatQuirks(         # refuses messages.*.reasoning_content
    efforts=_LOW_MEDIUM_HIGH, replay="never")}

_MISTRAL_QUIRKS: Final = {"openai": ChatQuirks(      # 422 extra_forbidden for what it does not know
    drop=("store", "service_tier", "logit_bias", "user", "metadata", "prompt_cache_key"),
    rename={"seed": "random_seed"}, clamp={"temperature": (0.0, 1.0)},
    efforts={"none": "none", "minimal": "none", "low": "high", "medium": "high",
             "high": "high", "xhigh": "high", "max": "high"},
    call_id=r"[a-zA-Z0-9]{9}", replay="never",
    stream_usage=False)}                         # the last chunk has usage unasked

_XAI_QUIRKS: Final = {
    "openai": ChatQuirks(efforts=_LOW_MEDIUM_HIGH,   # grok-4.5: no more than high, never off
                     drop=("presence_penalty", "frequency_penalty", "stop")),  # 400 when reasoning
    "responses": ResponsesQuirks(efforts=_LOW_MEDIUM_HIGH)}

_SILENT: Final = {"openai": ChatQuirks(reasoning="none", tool_strict="drop")}   # no switch known
_SWITCHED: Final = {"openai": ChatQuirks(reasoning="enable_thinking")}
_TEMPLATED: Final = {"openai": ChatQuirks(reasoning="template")}

_BEARER: Final = {"anthropic": "bearer"}     # as ANTHROPIC_AUTH_TOKEN; both headers may be a 401


def _bases(dialects: str, base: str, anthropic: str = "") -> dict[str, str]:
    """A plan's bases, best first: C chat, R Responses at `base`, A Anthropic on the same host."""
    origin = "/".join(base.split("/")[:3])
    at = {"C": ("openai", base), "R": ("responses", base), "A": ("anthropic", origin + anthropic)}
    return dict(at[letter] for letter in dialects)


# The first plan is the default; within a plan, the first dialect serves clients of dialects that
# it does not have.  If `plans` holds no base, `endpoint` must be given.
PRESETS: Final[dict[str, Preset]] = {
    # Makers of models
    "bigmodel": Preset(
        key="BIGMODEL_API_KEY", subscription=("coding",), globs=("glm-*",), auth=_BEARER,
        plans={"coding": _bases("CA", "https://open.bigmodel.cn/api/coding/paas/v4",
                                "/api/anthropic"),
               "regular": _bases("C", "https://open.bigmodel.cn/api/paas/v4")},
        quirks=_GLM_QUIRKS, errors=_GLM_ERRORS),
    "zai": Preset(                           # international; another account
        key="ZAI_API_KEY", subscription=("coding",), globs=("glm-*",), auth=_BEARER,
        plans={"coding": _bases("CA", "https://api.z.ai/api/coding/paas/v4", "/api/anthropic")
                         | _bases("R", "https://api.z.ai/api/v1"),
               "regular": _bases("C", "https://api.z.ai/api/paas/v4")},
        quirks=_GLM_QUIRKS, errors=_GLM_ERRORS),
    "deepseek": Preset(                      # /v1 is its alias for the bare host
        key="DEEPSEEK_API_KEY", globs=("deepseek-*",), quirks=_DEEPSEEK_QUIRKS,
        plans={"regular": _bases("CAR", "https://api.deepseek.com/v1", "/anthropic")}),
    "moonshot": Preset(
        key="MOONSHOT_API_KEY", globs=("kimi-k*", "moonshot-*"), auth=_BEARER,
        plans={"regular": _bases("CAR", "https://api.moonshot.cn/v1", "/anthropic")},
        quirks=_KIMI_QUIRKS, errors=_MOONSHOT_ERRORS),
    "moonshot-ai": Preset(                   # international; another account
        key="MOONSHOT_AI_API_KEY", globs=("kimi-k*", "moonshot-*"), auth=_BEARER,
        plans={"regular": _bases("CAR", "https://api.moonshot.ai/v1", "/anthropic")},
        quirks=_KIMI_QUIRKS, errors=_MOONSHOT_ERRORS),
    "kimi-coding": Preset(                   # admits coding agents only, by the client's user agent
        key="KIMI_API_KEY", subscription=("coding",), globs=("kimi-for-coding*", "k3*"),
        plans={"coding": _bases("CA", "https://api.kimi.com/coding/v1", "/coding")},
        auth=_BEARER, quirks=_KIMI_QUIRKS, errors=_KIMI_ERRORS),
    "dashscope": Preset(                     # keys are bound to region and plan
        key="DASHSCOPE_API_KEY", subscription=("coding", "token"), globs=("qwen*",), auth=_BEARER,
        plans={"coding": _bases("CA", "https://coding.dashscope.aliyuncs.com/v1",
                                "/apps/anthropic"),
               "token": _bases(
                   "CAR", "https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
                   "/apps/anthropic"),
               "regular": _bases("CAR", "https://dashscope.aliyuncs.com/compatible-mode/v1",
                                 "/apps/anthropic")},
        quirks=_DASHSCOPE_QUIRKS, errors=_DASHSCOPE_ERRORS),
    "dashscope-intl": Preset(
        key="DASHSCOPE_INTL_API_KEY", subscription=("coding", "token"), globs=("qwen*",),
        plans={"coding": _bases("CA", "https://coding-intl.dashscope.aliyuncs.com/v1",
                                "/apps/anthropic"),
               "token": _bases(
                   "CAR", "https://token-plan.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1",
                   "/apps/anthropic"),
               "regular": _bases("CAR", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
                                 "/apps/anthropic")},
        auth=_BEARER, quirks=_DASHSCOPE_QUIRKS, errors=_DASHSCOPE_ERRORS),
    "minimax": Preset(                       # one address; the plan's keys begin with sk-cp-
        key="MINIMAX_API_KEY", subscription=("plan",), globs=("MiniMax-*",), auth=_BEARER,
        plans=dict.fromkeys(("plan", "regular"),
                            _bases("CAR", "https://api.minimax.io/v1", "/anthropic")),
        quirks=_MINIMAX_QUIRKS, errors=_MINIMAX_ERRORS),
    "minimax-cn": Preset(
        key="MINIMAX_CN_API_KEY", subscription=("plan",), globs=("MiniMax-*",), auth=_BEARER,
        plans=dict.fromkeys(("plan", "regular"),
                            _bases("CAR", "https://api.minimaxi.com/v1", "/anthropic")),
        quirks=_MINIMAX_QUIRKS, errors=_MINIMAX_ERRORS),
    "stepfun": Preset(
        key="STEPFUN_API_KEY", subscription=("plan",), globs=("step-*",), auth=_BEARER,
        plans={"plan": _bases("CA", "https://api.stepfun.com/step_plan/v1", "/step_plan"),
               "regular": _bases("C", "https://api.stepfun.com/v1")},
        quirks=_STEPFUN_QUIRKS),
    "stepfun-intl": Preset(
        key="STEPFUN_INTL_API_KEY", subscription=("plan",), globs=("step-*",), auth=_BEARER,
        plans={"plan": _bases("CA", "https://api.stepfun.ai/step_plan/v1", "/step_plan"),
               "regular": _bases("C", "https://api.stepfun.ai/v1")},
        quirks=_STEPFUN_QUIRKS),
    "ark": Preset(                           # Volcengine; regular is billed apart from the plans
        key="ARK_API_KEY", subscription=("coding", "agent"), auth=_BEARER,
        globs=("doubao-*", "ark-code-*", "ep-*"),
        plans={"coding": _bases("CAR", "https://ark.cn-beijing.volces.com/api/coding/v3",
                                "/api/coding"),
               "agent": _bases("CAR", "https://ark.cn-beijing.volces.com/api/plan/v3", "/api/plan"),
               "regular": _bases("CAR", "https://ark.cn-beijing.volces.com/api/v3",
                                 "/api/compatible")},
        quirks=_ARK_QUIRKS, errors=_ARK_ERRORS),
    "byteplus": Preset(                      # Ark, international
        key="BYTEPLUS_API_KEY", subscription=("coding",), auth=_BEARER,
        globs=("seed-*", "doubao-*", "ark-code-*", "ep-*"),
        plans={"coding": _bases("CA", "https://ark.ap-southeast.bytepluses.com/api/coding/v3",
                                "/api/coding"),
               "regular": _bases("C", "https://ark.ap-southeast.bytepluses.com/api/v3")},
        quirks=_ARK_QUIRKS, errors=_ARK_ERRORS),
    "mimo": Preset(                          # the plan's keys begin with tp-, one region each
        key="MIMO_API_KEY", subscription=("plan", "plan-sgp", "plan-ams"), globs=("mimo-*",),
        plans={"plan": _bases("CAR", "https://token-plan-cn.xiaomimimo.com/v1", "/anthropic"),
               "plan-sgp": _bases("CAR", "https://token-plan-sgp.xiaomimimo.com/v1", "/anthropic"),
               "plan-ams": _bases("CAR", "https://token-plan-ams.xiaomimimo.com/v1", "/anthropic"),
               "regular": _bases("CAR", "https://api.xiaomimimo.com/v1", "/anthropic")},
        auth=_BEARER, quirks=_MIMO_QUIRKS),
    "openai": Preset(                        # Responses first: gpt-6 calls tools nowhere else
        key="OPENAI_API_KEY", globs=("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "codex-*"),
        plans={"regular": _bases("RC", "https://api.openai.com/v1")}, quirks=_OPENAI_QUIRKS),
    "anthropic": Preset(
        key="ANTHROPIC_API_KEY", globs=("claude-*",),
        plans={"regular": {"anthropic": "https://api.anthropic.com"}},
        quirks={"anthropic": AnthropicQuirks(signed=True, native=True, count_tokens=True,
                                    service_tiers=("auto", "default"),
                                    tool_name=r"[a-zA-Z0-9_-]{1,128}")}),
    "gemini": Preset(                        # AI Studio; its own dialect keeps signatures whole
        key="GEMINI_API_KEY", globs=("gemini-*", "gemma-*"),
        plans={"regular": {"gemini": "https://generativelanguage.googleapis.com",
                           "openai": "https://generativelanguage.googleapis.com/v1beta/openai"}},
        quirks={"openai": ChatQuirks(replay="never"), "gemini": GeminiQuirks(
            count_tokens=True, service_tiers=("default", "flex", "priority"))}),
    "mistral": Preset(
        key="MISTRAL_API_KEY", quirks=_MISTRAL_QUIRKS,
        globs=("mistral-*", "codestral-*", "devstral-*", "magistral-*", "ministral-*", "pixtral-*"),
        plans={"regular": _bases("C", "https://api.mistral.ai/v1")}),
    "xai": Preset(
        key="XAI_API_KEY", globs=("grok-*",), quirks=_XAI_QUIRKS, errors=_XAI_ERRORS,
        plans={"regular": _bases("RC", "https://api.x.ai/v1")}),

    # Clouds and resellers.  Most of their names are maker/model, hence the glob "*/*".
    # vertex wants `endpoints`, gemini: https://HOST/v1/projects/P/locations/L/publishers/google,
    # openai: https://HOST/v1beta1/projects/P/locations/L/endpoints/openapi, and google/NAME.
    "vertex": Preset(
        key="VERTEX_ACCESS_TOKEN", globs=("gemini-*",), plans={"regular": {}},   # good for an hour
        auth={"gemini": "bearer", "openai": "bearer"},
        quirks=_VERTEX_QUIRKS | {"openai": ChatQuirks(replay="never")}),
    "vertex-express": Preset(                # a key in the query instead of a project
        key="VERTEX_API_KEY", globs=("gemini-*",),
        plans={"regular": {"gemini": "https://aiplatform.googleapis.com"}},
        paths={"gemini": "/v1/publishers/google/models/{model}:generateContent"},
        auth={"gemini": "query:key", "openai": "query:key"}, quirks=_VERTEX_QUIRKS),
    "azure": Preset(                         # endpoint: https://RESOURCE.services.ai.azure.com
        key="AZURE_OPENAI_API_KEY", plans={"regular": {}},   # models are called as deployed
        auth={"openai": "api-key", "responses": "api-key", "anthropic": "api-key"},
        paths={"openai": "/openai/v1/chat/completions", "responses": "/openai/v1/responses",
               "anthropic": "/anthropic/v1/messages"},
        quirks=_OPENAI_QUIRKS | {"anthropic": AnthropicQuirks(signed=True)}),
    "azure-deployments": Preset(             # classic: endpoint: https://RESOURCE.openai.azure.com
        key="AZURE_OPENAI_API_KEY", plans={"regular": {}},   # `paths` for another api-version
        auth={"openai": "api-key", "responses": "api-key"},
        paths={"openai": "/openai/deployments/{model}/chat/completions?api-version=2024-10-21",
               "responses": "/openai/responses?api-version=2025-04-01-preview"},
        quirks=_OPENAI_QUIRKS),
    "openrouter": Preset(
        key="OPENROUTER_API_KEY", globs=("*/*",), auth=_BEARER,
        plans={"regular": _bases("CAR", "https://openrouter.ai/api/v1", "/api")},
        quirks=_OPENROUTER_QUIRKS, errors=_OPENROUTER_ERRORS),
    "groq": Preset(
        key="GROQ_API_KEY", quirks=_GROQ_QUIRKS, errors=_GROQ_ERRORS,
        globs=("llama-*", "meta-llama/*", "openai/gpt-oss-*", "qwen/*", "moonshotai/*", "groq/*"),
        plans={"regular": _bases("CR", "https://api.groq.com/openai/v1")}),
    "siliconflow": Preset(
        key="SILICONFLOW_API_KEY", globs=("*/*",), auth=_BEARER,
        plans={"regular": _bases("CA", "https://api.siliconflow.cn/v1")},
        quirks=_SILICONFLOW_QUIRKS, errors=_SILICONFLOW_ERRORS),
    "siliconflow-intl": Preset(
        key="SILICONFLOW_INTL_API_KEY", globs=("*/*",), auth=_BEARER,
        plans={"regular": _bases("CA", "https://api.siliconflow.com/v1")},
        quirks=_SILICONFLOW_QUIRKS, errors=_SILICONFLOW_ERRORS),
    "tencent": Preset(                       # token: cloud.tencent.com/developer/article/2767736
        key="TENCENT_API_KEY", subscription=("coding", "token"), globs=("tc-code-*", "hunyuan-*"),
        plans={"coding": _bases("CA", "https://api.lkeap.cloud.tencent.com/coding/v3",
                                "/coding/anthropic"),
               "token": _bases("CA", "https://tokenhub.tencentmaas.com/plan/v3", "/plan/anthropic"),
               "regular": _bases("C", "https://tokenhub.tencentmaas.com/v1")},
        auth=_BEARER, quirks=_SILENT),
    "qianfan": Preset(                       # Baidu; bases as in cc-switch
        key="QIANFAN_API_KEY", subscription=("coding", "token"), globs=("qianfan-*", "ernie-*"),
        plans={"coding": _bases("CA", "https://qianfan.baidubce.com/v2/coding",
                                "/anthropic/coding"),
               "token": _bases("CA", "https://qianfan.baidubce.com/v2/tokenplan/personal",
                               "/anthropic/tokenplan/personal"),
               "regular": _bases("C", "https://qianfan.baidubce.com/v2")},
        auth=_BEARER, quirks=_SILENT),
    "huawei": Preset(                        # huaweicloud.com tokenplan-maas, model-call-060
        key="MAAS_API_KEY", subscription=("token",), globs=("openpangu-*", "pangu-*"), auth=_BEARER,
        plans={"token": _bases("CA", "https://api.modelarts-maas.com/plan/v2", "/plan/anthropic"),
               "regular": _bases("CA", "https://api.modelarts-maas.com/v2", "/anthropic")},
        quirks=_SILENT, errors=_HUAWEI_ERRORS),
    "modelscope": Preset(
        key="MODELSCOPE_API_KEY", globs=("*/*",), auth=_BEARER, quirks=_SWITCHED,
        plans={"regular": _bases("CA", "https://api-inference.modelscope.cn/v1")}),
    "novita": Preset(
        key="NOVITA_API_KEY", globs=("*/*",), auth=_BEARER, quirks=_SWITCHED,
        plans={"regular": _bases("CA", "https://api.novita.ai/openai/v1", "/anthropic")}),
    "fireworks": Preset(
        key="FIREWORKS_API_KEY", globs=("accounts/*",),
        plans={"regular": _bases("C", "https://api.fireworks.ai/inference/v1")}),
    "nvidia": Preset(
        key="NVIDIA_API_KEY", globs=("*/*",), quirks=_TEMPLATED,
        plans={"regular": _bases("C", "https://integrate.api.nvidia.com/v1")}),

    # Servers of one's own, at their default ports
    "vllm": Preset(                          # --api-key reads Authorization only
        local=True, auth=_BEARER, errors=_LOCAL_ERRORS,
        plans={"regular": _bases("CAR", "http://127.0.0.1:8000/v1")},
        quirks={"openai": ChatQuirks(reasoning="template", replay_field="reasoning"),   # renamed
                "anthropic": AnthropicQuirks(count_tokens=True)}),
    "sglang": Preset(
        local=True, auth=_BEARER, errors=_LOCAL_ERRORS,
        plans={"regular": _bases("CA", "http://127.0.0.1:30000/v1")},
        quirks=_TEMPLATED | {"anthropic": AnthropicQuirks(count_tokens=True)}),
    "ollama": Preset(
        local=True, auth=_BEARER, errors=_LOCAL_ERRORS,
        plans={"regular": _bases("CAR", "http://127.0.0.1:11434/v1")},
        quirks={"openai": ChatQuirks(replay_field="reasoning", efforts={
            "none": "none", "minimal": "low", "low": "low", "medium": "medium",
            "high": "high", "xhigh": "max", "max": "max"})}),
    "llamacpp": Preset(
        local=True, auth=_BEARER, errors=_LOCAL_ERRORS,
        plans={"regular": _bases("CAR", "http://127.0.0.1:8080/v1")},
        quirks={"openai": ChatQuirks(reasoning="template",   # a named choice silently becomes auto
                                     tool_choice=("auto", "none", "required")),
                "anthropic": AnthropicQuirks(count_tokens=True)}),
    "lmstudio": Preset(
        local=True, auth=_BEARER, errors=_LOCAL_ERRORS,
        plans={"regular": _bases("CAR", "http://127.0.0.1:1234/v1")},
        quirks={"openai": ChatQuirks(reasoning="none")}),
    "tgi": Preset(                           # no port of its own: as its documents publish it
        local=True, errors=_LOCAL_ERRORS,
        plans={"regular": _bases("C", "http://127.0.0.1:8080/v1")},
        quirks={"openai": ChatQuirks(reasoning="none", replay="never")}),
    "fastchat": Preset(
        local=True, errors=_FASTCHAT_ERRORS,
        plans={"regular": _bases("C", "http://127.0.0.1:8000/v1")},
        quirks={"openai": ChatQuirks(drop=("tools", "tool_choice", "response_format"),
                                     reasoning="none", replay="never", stream_usage=False,
                                     json_schema=False)}),
}

# Longer names, which choose a plan too.
PRESET_ALIASES: Final[dict[str, tuple[str, str]]] = {
    "glm": ("bigmodel", "regular"),             "glm-coding": ("bigmodel", "coding"),
    "zai-coding": ("zai", "coding"),
    "dashscope-coding": ("dashscope", "coding"),
    "dashscope-token-plan": ("dashscope", "token"),
    "dashscope-intl-coding": ("dashscope-intl", "coding"),
    "dashscope-intl-token-plan": ("dashscope-intl", "token"),
    "minimax-plan": ("minimax", "plan"),        "minimax-cn-plan": ("minimax-cn", "plan"),
    "step-plan": ("stepfun", "plan"),           "step-plan-intl": ("stepfun-intl", "plan"),
    "ark-coding": ("ark", "coding"),            "ark-agent": ("ark", "agent"),
    "byteplus-coding": ("byteplus", "coding"),
    "mimo-plan": ("mimo", "plan"),
    "mimo-plan-sgp": ("mimo", "plan-sgp"),      "mimo-plan-ams": ("mimo", "plan-ams"),
    "tencent-coding": ("tencent", "coding"),    "tencent-token-plan": ("tencent", "token"),
    "qianfan-coding": ("qianfan", "coding"),    "qianfan-token-plan": ("qianfan", "token"),
    "huawei-token-plan": ("huawei", "token"),
}

# fmt: on


# ==== 15. Reading =============================================================
# How a YAML file is read into dataclasses.  A field is a key: its kind (how it is read, its
# schema), its sentence in the reference, its default.  Reading never stops at the first mistake:
# what is wrong is noted with its place in the file, and reading goes on.  The environment and
# files of secrets are handed in, so the section stays pure.

_VARIABLE: Final = re.compile(r"\$\$|\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}|(\$\{)")
_RESOLVER: Final = yaml.resolver.Resolver()


class Reading:
    """One file being read: what is wrong with it so far, and the place of everything in it."""

    def __init__(
        self,
        file: str,
        env: Mapping[str, str],
        read_secret: Callable[[str], str],
        zone: Callable[[str], datetime.tzinfo],
        installed: Callable[[str], bool] = lambda module: True,
    ) -> None:
        self.file = file
        self.env = env
        self.read_secret = read_secret
        self.zone = zone
        self.lenient = False  # inside an inactive provider unset variables are fine
        self.installed = installed
        self._problems: dict[tuple[int, int, str], None] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def wrong(self, path: str, text: str, mark: yaml.Mark | None = None) -> None:
        """Note a problem at the place of a path, or of the nearest path above it."""
        line, column = (mark.line + 1, mark.column + 1) if mark else self.place(path)
        self._problems[line, column, f"{path}: {text}" if path else text] = None

    def complained(self, path: str) -> bool:
        return any(text.startswith(f"{path}: ") for _, _, text in self._problems)

    def complained_below(self, path: str) -> bool:
        return any(text.startswith((f"{path}.", f"{path}[")) for _, _, text in self._problems)

    def place(self, path: str) -> tuple[int, int]:
        while path and path not in self._places:
            path = re.sub(r"(\.[^.\[]*|\[\d+\]|^[^.\[]*)$", "", path)
        return self._places.get(path, (1, 1))

    def stands(self, path: str, mark: yaml.Mark) -> None:
        self._places[path] = (mark.line + 1, mark.column + 1)

    def problems(self) -> list[str]:
        return [f"{self.file}:{line}:{col}: {text}" for line, col, text in sorted(self._problems)]


class Wrong(Exception):
    """A value that is not of its kind."""


class Site:
    """A node of the YAML file, and its path."""

    def __init__(self, node: yaml.Node, path: str, reading: Reading) -> None:
        self.node = node
        self.path = path
        self.reading = reading
        reading.stands(path, node.start_mark)

    def is_null(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag.endswith(":null")

    def text(self) -> str:
        """A scalar's text with its references filled in, even if YAML takes it for a number."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise Wrong(f"expected {{kind}}, got {self.shape()}")
        return self._expanded(self.node.value)

    def scalar(self) -> object:
        """A scalar's value in YAML, once its references are filled in."""
        text = self.text()
        plain = isinstance(self.node, yaml.ScalarNode) and self.node.style not in ("'", '"')
        implicit = (plain or "$" in self.node.value, False)
        tag = _RESOLVER.resolve(yaml.ScalarNode, text, implicit)  # type: ignore[no-untyped-call]
        return _constructed(yaml.ScalarNode(tag, text))

    def items(self) -> list[Site]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise Wrong(f"expected {{kind}}, got {self.shape()}")
        return [
            Site(item, f"{self.path}[{i}]", self.reading) for i, item in enumerate(self.node.value)
        ]

    def pairs(self, keys: Iterable[str] = ()) -> dict[str, Site]:
        """The pairs of a mapping; `keys` are examples, for the message if it is not a mapping.

        That does not quote what stands here instead: where a key's mapping is left out, it is
        the key.
        """
        if not isinstance(self.node, yaml.MappingNode):
            some = [*itertools.islice(keys, 3), "..."]
            like = f" ({', '.join(some)})" if len(some) > 1 else ""
            got = self.shape() if isinstance(self.node, yaml.SequenceNode) else "a single value"
            raise Wrong(f"expected a mapping{like}, got {got}")
        pairs, own = dict[str, Site](), dict[str, int]()
        span = range(self.node.start_mark.index, self.node.end_mark.index)
        for key, value in self.node.value:
            name = str(key.value)
            where = f"{self.path}.{name}" if self.path else name
            if key.start_mark.index not in span:
                pass  # merged in from elsewhere; a key that is written here wins
            elif name not in own:
                own[name] = key.start_mark.line + 1
            else:
                first = f"stands here twice, first in line {own[name]}"
                self.reading.wrong(where, first, key.start_mark)
            pairs[name] = Site(value, where, self.reading)
            self.reading.stands(where, key.start_mark)
        return pairs

    def shape(self) -> str:
        if self.is_null():
            return "null"
        if isinstance(self.node, yaml.ScalarNode):
            return f"{self.node.value!r:.40}"
        return "a mapping" if isinstance(self.node, yaml.MappingNode) else "a list"

    def _expanded(self, text: str) -> str:
        if text.startswith("os.environ/"):  # LiteLLM's spelling
            return self._variable(text.removeprefix("os.environ/"), None)
        return _VARIABLE.sub(self._meant, text)

    def _meant(self, match: re.Match[str]) -> str:
        if match[3]:
            known = "${NAME}, ${NAME:-default}, or $$ for a dollar"
            self.reading.wrong(self.path, f"a reference that is none: write {known}")
        return self._variable(match[1], match[2]) if match[1] else "$"

    def _variable(self, name: str, default: str | None) -> str:
        value = self.reading.env.get(name)
        if not value and default is not None:
            value = default
        if value is None and not self.reading.lenient:
            self.reading.wrong(self.path, f"the environment variable {name} is not set")
        return value or ""


def _constructed(node: yaml.Node) -> object:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise Wrong(f"expected {{kind}}, got {node.value!r:.40}") from error


@frozen
class Kind:
    """A kind of value: its name in the reference, how it is read, its JSON Schema."""

    name: str
    read: Callable[[Site], Any]
    schema: JSON
    null: Any = None  # what an empty value means; None: as if the key were absent

    def __call__(self, site: Site) -> Any:
        """The value, or None with the problem noted."""
        if site.is_null():
            return self.null
        try:
            return self.read(site)
        except Wrong as wrong:
            site.reading.wrong(site.path, str(wrong).replace("{kind}", self.name))
            return None


def _flag(site: Site) -> bool:
    value = site.scalar()
    if not isinstance(value, bool):
        raise Wrong(f"expected {{kind}}, got {site.shape()}")
    return value


def _number(least: float, whole: bool = False) -> Callable[[Site], Any]:
    def read(site: Site) -> float:
        value = site.scalar()
        good = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, good):
            raise Wrong(f"expected {{kind}}, got {site.shape()}")
        if not math.isfinite(value):
            raise Wrong(f"expected {{kind}}, got {site.shape()}")
        if value < least:
            raise Wrong(f"must be at least {least:g}")
        return value

    return read


def _pause(site: Site) -> float:
    text = site.text()
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(ms|s|m|h)?", text)
    if not match:
        raise Wrong(f"expected {{kind}}, or a time like 500ms, 30s, 5m, 1h, got {site.shape()}")
    if match[1].startswith("-"):
        raise Wrong("must not be negative")
    return float(match[1]) * {"ms": 0.001, "m": 60, "h": 3600}.get(match[2] or "", 1)


def _seconds(site: Site) -> float:
    value = _pause(site)
    if value <= 0:
        raise Wrong("must be more than 0")
    return value


def _size(site: Site) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMG]?)i?B?", site.text(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise Wrong(f"expected {{kind}}, got {site.shape()}")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def size_text(size: int) -> str:
    """As `_size` reads it."""
    steps = ((30, "GB"), (20, "MB"), (10, "KB"), (0, " bytes"))
    return next(f"{size >> bits}{unit}" for bits, unit in steps if not size & ((1 << bits) - 1))


def _date(site: Site) -> datetime.datetime:
    value = site.scalar()
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, str):  # in quotes, as a JSON file has it
        with contextlib.suppress(ValueError):
            value = datetime.date.fromisoformat(value)
    if isinstance(value, datetime.date):  # valid to the end of that day
        return datetime.datetime.combine(value, datetime.time.max)
    raise Wrong(f"expected {{kind}}, got {site.shape()}")


_SHELLS: Final = re.compile(r"\$[A-Z_][A-Z0-9_]*")  # what only a shell takes for a variable


def _secret(site: Site) -> str:
    """A secret, or the content of the file it names; it has to fit into a header."""
    text = site.text()
    if isinstance(site.node, yaml.ScalarNode) and _SHELLS.fullmatch(site.node.value):
        raise Wrong(f"write ${{{site.node.value[1:]}}} for that variable; a dollar is $$")
    if text.startswith("file:"):
        try:
            text = site.reading.read_secret(text.removeprefix("file:")).strip()
        except (OSError, UnicodeDecodeError) as error:
            if site.reading.lenient:
                return ""
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise Wrong(f"cannot read {text}: {reason}") from error
    if not re.fullmatch(r"[!-~ ]*", text):
        raise Wrong("a secret must be one line of ASCII")
    return text


def _proxy(site: Site) -> str:
    """A proxy's URL, or `direct`; it may hold a password, so complaints do not quote it."""
    text = _secret(site)
    if text != DIRECT and not is_proxy(text):
        schemes = ", ".join(PROXY_SCHEMES)
        raise Wrong(f"expected {DIRECT}, or a URL like http://host:port ({schemes})")
    return text


def is_proxy(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or too large
        return False


def _header(site: Site) -> str:
    text = site.text()
    if not re.fullmatch(r"[^\x00-\x08\x0a-\x1f\x7f]*", text):
        raise Wrong("a header must be one line")
    return text


def _json(site: Site) -> Any:
    if isinstance(site.node, yaml.MappingNode):
        return {name: _json(inner) for name, inner in site.pairs().items()}
    if isinstance(site.node, yaml.SequenceNode):
        return [_json(inner) for inner in site.items()]
    return site.scalar()


# Names of headers and of parameters of a query whose values are secrets.
CARRYING: Final = re.compile(
    r"authori[sz]ation|cookie|secret|pass(w|$)|credential|api-?_?key|(^|[-_])(auth|key|token|sig)$",
    re.IGNORECASE,
)
PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
DIRECT: Final = "direct"  # no proxy, whatever the environment says
TEXT: Final = Kind("text", Site.text, {"type": ["string", "number"]})
NAMES_SCHEMA: Final = {"type": "string"}
HEADER: Final = Kind("text", _header, {"type": ["string", "number", "null"]})
SECRET: Final = Kind("secret", _secret, NAMES_SCHEMA)
PROXY: Final = Kind("secret URL, or direct", _proxy, {"type": ["string", "null"]}, DIRECT)
FLAG: Final = Kind("true or false", _flag, {"type": "boolean"})
COUNT: Final = Kind("a whole number", _number(1, whole=True), {"type": "integer", "minimum": 1})
NUMBER: Final = Kind("a number", _number(-math.inf), {"type": "number"})
WEIGHT: Final = Kind("a number", _number(0), {"type": "number", "minimum": 0})
SECONDS: Final = Kind("seconds", _seconds, {"type": ["number", "string"]})
PAUSE: Final = Kind("seconds", _pause, {"type": ["number", "string"]})  # or none at all
SIZE: Final = Kind("a size like 64MB or 64KB", _size, {"type": ["integer", "string"]})
DATE: Final = Kind("a date like 2027-06-30", _date, {"type": "string"})
ANYTHING: Final = Kind("any value", _json, {})


def word(*words: str, later: str = "") -> Kind:
    """One of some words; those that match `later` are for a coming version."""

    def read(site: Site) -> str:
        text = site.text()
        if later and re.fullmatch(later, text):
            raise Wrong(f"{text!r} is not supported yet")
        if text not in words:
            raise Wrong(f"unknown word {text!r}{meant(text, words)}; one of {', '.join(words)}")
        return text

    return Kind(" | ".join(words), read, {"enum": list(words)})


def many(kind: Kind) -> Kind:
    """A list; a single value counts as a list of one."""

    def read(site: Site) -> tuple[Any, ...]:
        sites = site.items() if isinstance(site.node, yaml.SequenceNode) else [site]
        return tuple(value for value in map(kind, sites) if value is not None)

    listed = {"type": "array", "items": kind.schema}
    return Kind(f"{kind.name}, or a list", read, {"anyOf": [kind.schema, listed]})


def mapping(kind: Kind, nullable: bool = False) -> Kind:
    def read(site: Site) -> dict[str, Any]:
        values = {}
        for name, inner in site.pairs().items():
            if inner.is_null() and not nullable:
                site.reading.wrong(inner.path, "nothing stands here")
            elif (value := kind(inner)) is not None or nullable:
                values[name] = value
        return values

    schema = {"type": "object", "additionalProperties": kind.schema}
    return Kind(f"mapping of {kind.name}", read, schema)


def either(scalar: Kind, mapped: Kind) -> Kind:
    """One kind for a mapping, another for everything else."""

    def read(site: Site) -> Any:
        return (mapped if isinstance(site.node, yaml.MappingNode) else scalar)(site)

    name = f"{scalar.name}, or {mapped.name}"
    return Kind(name, read, {"anyOf": [scalar.schema, mapped.schema]})


def table(cls: type, name: str = "") -> Kind:
    """A mapping with the keys of a dataclass."""
    read = functools.partial(read_table, cls)
    return Kind(name or "mapping", read, {"$ref": f"#/$defs/{cls.__name__}"})


def option(kind: Kind, doc: str, default: Any = None, *, required: bool = False) -> Any:
    """Declare a key: its kind, its sentence in the reference, its default."""
    metadata = {"kind": kind, "doc": doc, "required": required}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata, repr="secret" not in kind.name)


def read_table(cls: Any, site: Site) -> Any:
    known = {key_of(f): f for f in dataclasses.fields(cls) if "kind" in f.metadata}
    pairs, values = site.pairs(known), dict[str, Any]()
    for name, inner in pairs.items():
        if name not in known:
            site.reading.wrong(inner.path, f"unknown key{meant(name, known)}")
        elif (value := known[name].metadata["kind"](inner)) is not None:
            values[known[name].name] = value
    for name, spec in known.items():
        if spec.metadata["required"] and name not in pairs:
            site.reading.wrong(f"{site.path}.{name}" if site.path else name, "required")
    return cls(**values)


def key_of(spec: dataclasses.Field[Any]) -> str:
    """The key in the file; `class` cannot be the name of a field."""
    return spec.name.removesuffix("_")


def meant(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'endpoint'?" if something similar is known."""
    by_lower = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


# ==== 16. Configuration =======================================================
# The keys, table by table: a field for each, with its kind, its sentence in the reference and its
# default.  A key is added here and nowhere else: the loader, the README's table and the JSON
# Schema are made from these fields.


@frozen(kw_only=True)
class ServerConfig:
    max_body: int = option(SIZE, "The largest request taken; a larger one is a 413.", 64 << 20)
    max_header: int = option(SIZE, "The longest header taken; a longer one is a 431.", 64 << 10)
    body_timeout: float = option(SECONDS, "For a whole request to arrive, else 408.", 60.0)
    grace: float = option(SECONDS, "How long running streams may go on at shutdown.", 30.0)
    drain_delay: float = option(
        PAUSE, "How long /readyz says 503 at shutdown before connections are refused.", 0.0
    )


@frozen(kw_only=True)
class TLSConfig:
    certificate: str = option(TEXT, "The PEM file, intermediates included.", "", required=True)
    key: str = option(TEXT, "The PEM file of its key, without a passphrase.", "", required=True)


@frozen(kw_only=True)
class TimeoutConfig:
    connect: float = option(SECONDS, "To open a connection to a provider.", 10.0)
    first_event: float = option(
        SECONDS, "Until a stream says something meaningful; with `idle`, a whole answer.", 120.0
    )
    idle: float = option(SECONDS, "The longest silence within an answer.", 180.0)
    total: float = option(SECONDS, "A client's whole request, all attempts together.", 3600.0)
    gate: float = option(
        SECONDS, "Until a stream's head is sent although nothing meaningful has come.", 30.0
    )

    @property
    def whole(self) -> float:
        """Until the head of a whole answer comes, which most providers send with the body.

        As long as a stream may be silent before its first event and once after it: an answer of
        15,000 tokens is no failure, and of the ten minutes that SDKs wait by default, half is left
        for another target.
        """
        return self.first_event + self.idle


@frozen(kw_only=True)
class AttemptTimeouts:
    connect: float | None = option(SECONDS, "As in `timeouts`, for this provider.")
    first_event: float | None = option(SECONDS, "As in `timeouts`, for this provider.")
    idle: float | None = option(SECONDS, "As in `timeouts`, for this provider.")
    total: float | None = option(SECONDS, "One attempt at this provider.")


@frozen(kw_only=True)
class LogConfig:
    format: str | None = option(
        word("text", "json"), "How to write; text on a terminal and json otherwise by default."
    )
    level: str = option(word("debug", "info", "warning", "error"), "What to write.", "info")


@frozen(kw_only=True)
class RecordConfig:
    directory: str = option(
        TEXT, "The directory; a relative one is beside this file.", "", required=True
    )
    keep: int = option(SIZE, "Their total size; beyond it the oldest are deleted.", 200 << 20)


@frozen(kw_only=True)
class LimitConfig:
    rpm: int | None = option(COUNT, "Requests in any minute.")
    tpm: int | None = option(COUNT, "Tokens in any minute, in and out, cached ones too.")
    concurrent: int | None = option(COUNT, "Requests at once.")
    tokens_per_day: int | None = option(COUNT, "Tokens in a day, counted like those of `tpm`.")
    tokens_per_month: int | None = option(COUNT, "Tokens in a calendar month.")
    cost_per_day: float | None = option(WEIGHT, "What a day may cost, in the money of `prices`.")
    cost_per_month: float | None = option(WEIGHT, "What a calendar month may cost.")


@frozen(kw_only=True)
class KeyConfig:
    key: str = option(SECRET, "The secret, or `sha256:` and its hash.", "", required=True)
    models: tuple[str, ...] | None = option(
        many(TEXT), "Names and globs this key may use, as clients say them; all by default."
    )
    expires: datetime.datetime | None = option(DATE, "The last day on which it is valid.")
    limits: LimitConfig | None = option(table(LimitConfig), "Rates and budgets; none by default.")
    timezone: str | None = option(
        TEXT, "The time zone of its budgets' days and months; else `timezone`."
    )
    raw: bool = option(FLAG, "May ask providers anything, under `/p/PROVIDER/`.", False)


@frozen(kw_only=True)
class ModelConfig:
    name: str | None = option(TEXT, "What the provider calls it; the same by default.")
    context: int | None = option(COUNT, "Tokens it can read.")
    output: int | None = option(COUNT, "Tokens it can write.")


@frozen(kw_only=True)
class OverrideConfig:
    set: dict[str, Any] = option(mapping(ANYTHING), "Fields that get this value.", {})
    default: dict[str, Any] = option(mapping(ANYTHING), "Fields that get it when absent.", {})
    drop: tuple[str, ...] = option(many(TEXT), "Fields that are taken out.", ())


@frozen(kw_only=True)
class PriceConfig:
    input: float = option(WEIGHT, "A million tokens that are read.", 0.0)
    output: float = option(WEIGHT, "A million tokens that are written.", 0.0)
    cache_read: float | None = option(WEIGHT, "Read from the prompt cache; else as `input`.")
    cache_write: float | None = option(WEIGHT, "Written to the prompt cache; else as `input`.")


def _pattern(site: Site) -> str:
    text = site.text()
    try:
        re.compile(text)
    except re.error as error:
        raise Wrong(f"expected {{kind}}: {error}") from error
    return text


@frozen(kw_only=True)
class ErrorConfig:
    status: tuple[int, ...] = option(many(COUNT), "HTTP statuses; any by default.", ())
    code: tuple[str, ...] = option(many(TEXT), "The error's code; `x*` is a prefix.", ())
    type: tuple[str, ...] = option(many(TEXT), "The error's type; `x*` is a prefix.", ())
    pattern: str = option(
        Kind("a regular expression", _pattern, NAMES_SCHEMA), "Searched in the message.", ""
    )
    class_: str = option(word(*FAILURES), "What it means.", "bad_request", required=True)
    scope: str = option(word(*SCOPES), "What cools down, instead of the class's own.", "")
    reset: str = option(word(*RESETS), "When it ends if the provider does not say.", "")


def _error_rule(site: Site) -> ErrorRule | None:
    """One row of `errors`, as the presets have them."""
    row: ErrorConfig = read_table(ErrorConfig, site)
    if not (row.status or row.code or row.type or row.pattern):
        site.reading.wrong(site.path, "needs a status, code, type or pattern to go by")
    return ErrorRule(row.class_, row.status, row.code, row.type, row.pattern, row.scope, row.reset)


ERROR_RULE: Final = Kind("mapping", _error_rule, {"$ref": "#/$defs/ErrorConfig"})


def _models(site: Site) -> dict[str, ModelConfig]:
    """A list of names, or a mapping from clients' names to the provider's."""
    if isinstance(site.node, yaml.SequenceNode):
        names = [name for name in map(TEXT, site.items()) if name]
        return {name: ModelConfig(name=None if is_glob(name) else name) for name in names}
    if not isinstance(site.node, yaml.MappingNode):
        raise Wrong(f"expected {{kind}}, got {site.shape()}")
    kind = either(TEXT, table(ModelConfig))
    read = ((name, kind(inner)) for name, inner in site.pairs().items())
    return {
        name: value if isinstance(value, ModelConfig) else ModelConfig(name=value)
        for name, value in read
    }


def is_glob(name: str) -> bool:
    return "*" in name or "?" in name


@functools.lru_cache(maxsize=4096)
def _glob_pattern(glob: str) -> re.Pattern[str]:
    text = re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def glob_matches(glob: str, name: str) -> bool:
    """Only * and ? are wildcards; case does not matter."""
    return _glob_pattern(glob).fullmatch(name) is not None


def any_of(words: Collection[str]) -> str:
    """A regular expression for these words that takes as long for hundreds as for a few, because
    it branches character by character."""
    if "" in words:
        return ""
    begun = itertools.groupby(sorted(words), key=operator.itemgetter(0))
    ways = (re.escape(first) + any_of({word[1:] for word in group}) for first, group in begun)
    return f"(?:{'|'.join(ways)})"


def named(name: str, kind: Kind) -> Kind:
    """The same kind under a name that reads better in the reference."""
    return replace(kind, name=name)


_ENDPOINT: Final = named("URL, or one per dialect", either(TEXT, mapping(TEXT)))
_API_KEYS: Final = named(
    "secret, list of secrets, or either per plan", either(many(SECRET), mapping(many(SECRET)))
)
MODELS: Final = Kind(
    "list of names, or mapping to the provider's names",
    _models,
    {"anyOf": [{"type": "array", "items": TEXT.schema}, {"type": "object"}]},
)


@frozen(kw_only=True)
class ProviderConfig:
    preset: str | None = option(TEXT, "A known provider; `api_key` is then all it needs.")
    api_format: tuple[str, ...] = option(
        many(TEXT), "What it speaks: a dialect or several, or demo.", ()
    )
    endpoint: str | dict[str, str] | None = option(
        _ENDPOINT, "Its base URL in any shape, or one per dialect."
    )
    endpoints: dict[str, Any] = option(mapping(_ENDPOINT), "The same per billing plan.", {})
    billing_plans: tuple[str, ...] = option(
        many(TEXT), "Plans in order; the next opens only when one's quota is used up.", ()
    )
    api_key: Any = option(_API_KEYS, "One credential, a list (balanced), or either per plan.")
    models: dict[str, ModelConfig] | None = option(
        MODELS, "What it serves; left out: the preset's names, or every name."
    )
    prefix: str = option(TEXT, "Names can also be used with this in front.", "")
    priority: float = option(NUMBER, "Higher is preferred among providers of a name.", 0)
    weight: float = option(WEIGHT, "The share among providers of equal priority.", 1)
    active: bool = option(FLAG, "Whether it is used at all.", True)
    stream_mode: str = option(
        word("auto", "always", "never"), "Whether it is asked to stream.", "auto"
    )
    headers: dict[str, str | None] = option(
        mapping(HEADER, nullable=True), "Headers to set for it; null removes one.", {}
    )
    override: OverrideConfig = option(
        table(OverrideConfig), "Changes to bodies in its dialect.", OverrideConfig()
    )
    paths: dict[str, str] = option(
        mapping(TEXT), "Per dialect: everything after host and port; may hold {model}.", {}
    )
    timeouts: AttemptTimeouts = option(
        table(AttemptTimeouts), "Limits on waiting for it.", AttemptTimeouts()
    )
    errors: tuple[ErrorRule, ...] = option(
        many(ERROR_RULE), "What its errors mean; read before the preset's, the first counts.", ()
    )
    proxy: str | None = option(
        PROXY, "The proxy for it: http, https or socks5; by default the environment's."
    )
    prices: dict[str, PriceConfig] = option(
        mapping(table(PriceConfig)),
        "By the provider's model names, globs too; `PLAN/NAME` for one billing plan.",
        {},
    )


def _provider(site: Site) -> ProviderConfig:
    """Inactive ones are read too, but their variables need not be set."""
    pairs = site.pairs()
    outer = site.reading.lenient
    site.reading.lenient = "active" in pairs and FLAG(pairs["active"]) is False
    try:
        config: ProviderConfig = read_table(ProviderConfig, site)
    finally:
        site.reading.lenient = outer
    return config


@frozen(kw_only=True)
class WhenConfig:
    """All conditions given must hold."""

    tokens_over: int | None = option(COUNT, "The prompt is longer than so many tokens, roughly.")
    tokens_under: int | None = option(COUNT, "It is shorter.")
    images: bool | None = option(FLAG, "There are pictures in it.")
    documents: bool | None = option(FLAG, "There are documents in it.")
    thinking: bool | None = option(FLAG, "Reasoning is asked for.")
    tools: bool | None = option(FLAG, "Tools are offered.")
    background: bool | None = option(FLAG, "A small call of the client's own, as for titles.")
    subagent: bool | None = option(FLAG, "A subagent's call.")
    header: dict[str, str] | None = option(mapping(TEXT), "Headers, and globs they match.")
    key: tuple[str, ...] | None = option(many(TEXT), "Who asks: names in `keys`, or globs.")


BALANCES: Final = ("order", "round_robin", "weighted", "least_busy", "least_latency")


@frozen(kw_only=True)
class RuleConfig:
    to: tuple[str, ...] = option(many(TEXT), "Targets in order.", (), required=True)
    balance: str = option(word(*BALANCES), "Which of them goes first.", "order")
    when: WhenConfig = option(table(WhenConfig), "Conditions on the request.", WhenConfig())
    wait: float | None = option(SECONDS, "How long to hold a request while all are cooling down.")
    hedge_after: float | None = option(
        SECONDS, "When to ask the next one as well, if a stream has not begun."
    )


def _rule(site: Site) -> tuple[RuleConfig, ...]:
    """A target, targets in failover order, or entries with `to`."""
    entry = table(RuleConfig, "mapping with `to`")
    if not isinstance(site.node, yaml.SequenceNode):
        rule = (
            entry(site)
            if isinstance(site.node, yaml.MappingNode)
            else RuleConfig(to=(site.text(),))
        )
        return (rule,) if rule else ()
    shapes = {isinstance(item.node, yaml.MappingNode) for item in site.items()}
    if shapes == {True, False}:
        raise Wrong("a list is either all targets or all entries with `to`")
    if shapes == {True}:
        return tuple(rule for rule in map(entry, site.items()) if rule)
    return (RuleConfig(to=many(TEXT)(site) or ()),)


def _state(site: Site) -> str:
    text = site.text()
    if not re.fullmatch(r"memory|sqlite:.+|rediss?://.+", text):
        raise Wrong(f"expected {{kind}}, got {site.shape()}")
    if text.startswith("redis") and not _is_redis(text):
        raise Wrong("expected redis://[USER:PASSWORD@]HOST:PORT/NUMBER")
    if text.startswith("redis") and not site.reading.installed("redis"):
        raise Wrong("Redis needs one more package: pip install 'redis>=5'")
    return text


def _is_redis(text: str) -> bool:
    """A URL that names a server; it may hold a password, so it is not quoted back."""
    try:
        parts = urllib.parse.urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and bool(_DATABASE.fullmatch(parts.path))
    except ValueError:  # a port that is no number, or too large
        return False


_DATABASE: Final = re.compile(r"/?\d*")
STATE: Final = Kind("memory, sqlite:PATH or redis://...", _state, NAMES_SCHEMA)
PROVIDER: Final = Kind("mapping", _provider, {"$ref": "#/$defs/ProviderConfig"})
RULE: Final = Kind(
    "a target, a list of targets, or a mapping with `to`",
    _rule,
    {"anyOf": [{"type": ["string", "array"]}, {"$ref": "#/$defs/RuleConfig"}]},
)


@frozen(kw_only=True)
class Config:
    listen: tuple[str, ...] = option(
        many(TEXT), "host:port or unix:PATH to listen on.", ("127.0.0.1:8484",)
    )
    admin_key: str = option(SECRET, "Guards /admin; without one it is loopback only.", "")
    allow_anonymous: bool = option(
        FLAG, "Listen beyond loopback without keys, at your own risk.", False
    )
    server: ServerConfig = option(table(ServerConfig), "Limits toward clients.", ServerConfig())
    timeouts: TimeoutConfig = option(table(TimeoutConfig), "Limits on waiting.", TimeoutConfig())
    timezone: str | None = option(
        TEXT, "For budgets, tables and times that are shown; the machine's by default."
    )
    tls: TLSConfig | None = option(table(TLSConfig), "Serve HTTPS at TCP addresses.")
    keys: dict[str, KeyConfig] = option(
        mapping(table(KeyConfig)), "Who may call; without any, loopback callers only.", {}
    )
    providers: dict[str, ProviderConfig] = option(
        mapping(PROVIDER), "Who answers, by a name of your choice.", {}, required=True
    )
    routing_rules: dict[str, tuple[RuleConfig, ...]] = option(
        mapping(RULE), "Where names and globs go; looked up first.", {}
    )
    default: str | None = option(TEXT, "The target of names that nothing else matches.")
    state: str = option(
        STATE,
        "Where usage, budgets and cooldowns are kept; a file beside this one by default.",
        "",
    )
    state_fail_closed: bool = option(
        FLAG, "Refuse keys with budgets while Redis is down, rather than count alone.", False
    )
    log: LogConfig = option(table(LogConfig), "What is written, and how.", LogConfig())
    record: RecordConfig | None = option(
        table(RecordConfig), "The flight recorder: whole exchanges in files; off by default."
    )
    plugins: tuple[str, ...] = option(
        many(TEXT), "Python files that register presets and dialects; their code is run.", ()
    )


def read_config(text: str, reading: Reading) -> Config:
    """The file's content as a Config; problems are noted in `reading`."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _flatten(loader, node, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reading.wrong("", f"not YAML: {_trouble(error, text)}", mark)
        return Config()
    except yaml.reader.ReaderError as error:
        mark = _mark(text, error.position)
        reading.wrong("", f"not YAML: the character U+{ord(text[mark.index]):04X}", mark)
        return Config()
    except (yaml.YAMLError, ValueError) as error:
        reading.wrong("", f"not YAML: {error}")
        return Config()
    if node is None:
        reading.wrong("providers", "required; the file is empty")
        return Config()
    config = table(Config)(Site(node, "", reading))
    return config if isinstance(config, Config) else Config()


# The usual mistake behind what YAML complains of.
_OFTEN: Final = {
    "mapping values are not allowed here": "; quote a value that holds ': ', and see whether the"
    " line is indented as it should be",
    "cannot start any token": "; indent with spaces, and quote what begins with a special"
    " character",
}


def _trouble(error: yaml.MarkedYAMLError, text: str) -> str:
    """YAML's complaint, where what it was reading begins, and what may help."""
    said, at, began = error.problem or "", error.problem_mark, error.context_mark
    if said.startswith("but "):
        said = f"{error.context}, {said}"
    elif at and began and began.line != at.line:
        said += f", {error.context} from line {began.line + 1} on"
    line = text.splitlines()[at.line] if at and at.line < len(text.splitlines()) else ""
    if "${" in line and "'{'" in said:
        return f'{said}; within {{...}} a reference needs quotes: "${{NAME}}"'
    return said + next((hint for words, hint in _OFTEN.items() if words in said), "")


def _mark(text: str, index: int) -> yaml.Mark:
    """Where the character stands that was read as the `index`-th."""
    before = text[:index]
    column = index - (before.rfind("\n") + 1)
    return yaml.Mark("", index, before.count("\n"), column, None, 0)


def _flatten(loader: yaml.SafeLoader, node: yaml.Node | None, above: set[int]) -> None:
    """Resolve merge keys (<<) everywhere; an anchor inside itself is no configuration."""
    if id(node) in above:
        raise ValueError("an alias refers to a node that contains it")
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        for _, value in node.value:
            _flatten(loader, value, above | {id(node)})
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _flatten(loader, value, above | {id(node)})


_TABLES: Final = (
    ServerConfig,
    TLSConfig,
    TimeoutConfig,
    LimitConfig,
    KeyConfig,
    ModelConfig,
    PriceConfig,
    OverrideConfig,
    AttemptTimeouts,
    ErrorConfig,
    ProviderConfig,
    WhenConfig,
    RuleConfig,
    LogConfig,
    RecordConfig,
    Config,
)


def reference(cls: Any = Config, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, kind, default, sentence) of every key; the README's table is this."""
    for spec in dataclasses.fields(cls):
        where = f"{path}.{key_of(spec)}" if path else key_of(spec)
        kind: Kind = spec.metadata["kind"]
        default = "required" if spec.metadata["required"] else _default(spec)
        inner = next((c for c in _TABLES if _refers(kind.schema, c)), None)
        yield where, "mapping" if inner else kind.name, default, spec.metadata["doc"]
        if inner:
            named = "additionalProperties" in kind.schema
            yield from reference(inner, where + (".*" if named else ""))
        if spec.name == "models" and cls is ProviderConfig:
            yield from reference(ModelConfig, where + ".*")


def _refers(schema: JSON, cls: type) -> bool:
    return f'"#/$defs/{cls.__name__}"' in dumps(schema).decode()


def _default(spec: dataclasses.Field[Any]) -> str:
    value = spec.default
    if value is dataclasses.MISSING or value in (None, (), "") or dataclasses.is_dataclass(value):
        return ""
    if spec.metadata["kind"] is SIZE:
        return size_text(value)
    return ", ".join(value) if isinstance(value, tuple) else dumps(value).decode().strip('"')


def json_schema() -> JSON:
    """The file's JSON Schema, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "relay configuration",
        **_table_schema(Config),
        "$defs": {cls.__name__: _table_schema(cls) for cls in _TABLES if cls is not Config},
    }


def _table_schema(cls: Any) -> JSON:
    specs = dataclasses.fields(cls)
    required = [key_of(spec) for spec in specs if spec.metadata["required"]]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key_of(spec): {"description": spec.metadata["doc"], **spec.metadata["kind"].schema}
            for spec in specs
        },
    } | ({"required": required} if required else {})


# ==== 17. Prices ==============================================================
# What tokens cost.  Money is a whole number of billionths of the unit of `prices`, so that sums
# are exact in whatever order they are added.  What is not paid by the token costs nothing, though
# it is counted: a plan paid in advance, a server of one's own.
#
#     prices: glm-4.6         what tokens cost where they are paid for; globs too, in file order
#             coding/glm-*    the same for one billing plan, even one paid in advance
#
# A request's usage is known at its end, but budgets need a number at its beginning.  The guess
# errs on the high side, because what is reserved must cover what is then spent.

MONEY: Final = 10**9  # billionths in one
FREE: Final = PriceConfig()
# Limits for one request: whatever a provider reports, sums stay within 64 bits.
_MOST_COST: Final = 10**6 * MONEY
_MOST_TOKENS: Final = 10**9


def cost(usage: Usage, price: PriceConfig) -> int:
    """Billionths.  Prices are for a million tokens, so a token is a thousand times the price."""
    read = price.input if price.cache_read is None else price.cache_read
    write = price.input if price.cache_write is None else price.cache_write
    fresh = max(0, usage.input - usage.cache_read - usage.cache_write)
    paid = fresh * price.input + usage.cache_read * read + usage.cache_write * write
    return round(min((paid + usage.output * price.output) * (MONEY // 10**6), _MOST_COST))


def sane(usage: Usage) -> Usage:
    """The counts, cut to what a provider can possibly mean."""
    counts = (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)
    if min(counts) >= 0 and max(counts) <= _MOST_TOKENS:
        return usage
    return Usage(*(min(max(0, count), _MOST_TOKENS) for count in counts))


class PriceList:
    """What models cost on one plan: by the plan's own prices, else the general ones, else None."""

    def __init__(self, prices: Mapping[str, PriceConfig], plan: str, free: bool) -> None:
        own = f"{plan}/"
        said = {n.removeprefix(own): price for n, price in prices.items() if n.startswith(own)}
        self._lists = (said,) if free else (said, prices)
        self._else = FREE if free else None

    def of(self, model: str) -> PriceConfig | None:
        found = (_matching(prices, model) for prices in self._lists)
        return next(filter(None, found), self._else)


def _matching(prices: Mapping[str, PriceConfig], model: str) -> PriceConfig | None:
    exact = prices.get(model)
    globs = (price for name, price in prices.items() if glob_matches(name, model))
    return exact or next(globs, None)


# Base64 in a body: a picture, a page, a sound.  Text soon has a blank or a comma, so a look at a
# few bytes every now and then finds every blob that matters.
_BLOB: Final = re.compile(rb"[\",][A-Za-z0-9+/=_-]{4096,}\"")
_LEAST_BLOB: Final = 8192  # bytes; shorter ones cost about as much as text
_DENSE: Final = re.compile(rb"[A-Za-z0-9+/=_-]{100}")
# How the dialects say how long an answer may be, and how long one is when nobody says.
_OUTPUT_WORDS: Final = (
    ("max_tokens",),
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("generationConfig", "maxOutputTokens"),
)
_OUTPUT_SAID: Final = re.compile(
    rb'"(?:max_(?:completion_|output_)?tokens|maxOutputTokens)"[ \t\r\n]*:[ \t\r\n]*(\d{1,9})'
)
_USUAL_OUTPUT: Final = 4096


def likely_input(raw: bytes) -> int:
    """About the most tokens that a body can be, at a glance: one for three bytes, for prose of
    any script in JSON; for a picture the most that one costs; 1,500 for a page of 75 KB.
    """
    if len(raw) < _LEAST_BLOB:
        return len(raw) // 3
    dense = any(_DENSE.match(raw, at) for at in range(0, len(raw), _LEAST_BLOB))
    blobs = _BLOB.findall(raw) if dense else []
    media = sum(max(3300, len(blob) // 66) for blob in blobs)
    return (len(raw) - sum(map(len, blobs))) // 3 + media


def likely_output(body: Body) -> int:
    """How many tokens the answer may have; an unread body is asked only at its two ends."""
    if body.unread:
        match = _OUTPUT_SAID.search(body.raw[:4096] + body.raw[-4096:])
        return int(match[1]) if match else _USUAL_OUTPUT
    said = (found(body.wire, path) for path in _OUTPUT_WORDS)
    return next((most for most in said if isinstance(most, int) and most > 0), _USUAL_OUTPUT)


# ==== 18. Conditions ==========================================================
# What a rule may ask about a request: the words of `when`.  A row says what to look for and
# whether it is what was wanted, so one table decides, explains, and finds the entries that can
# never be reached.  Cheap words come first; the request is parsed and its tokens are counted only
# if a rule asks.  A body that cannot be parsed may still pass through: it meets no condition.

# What clients call of their own accord: Claude Code's small fast model and opencode's, Gemini
# CLI's classifier.
_SMALL_MODELS: Final = ("*haiku*", "*flash-lite*", "*-nano", "*-nano-*")
_SUBAGENT_HEADERS: Final = ("x-claude-code-agent-id", "x-claude-code-parent-agent-id")
_SUBAGENT_LINE: Final = "cc_is_subagent=true"  # in Claude Code's billing line


@frozen(kw_only=True)
class Facts:
    """What a rule may know of a request; the costly facts are worked out when asked for."""

    model: str = ""
    key: str = ""  # the caller's name
    headers: Mapping[str, str] = field(default_factory=dict)  # in any case
    body: JSON = field(default_factory=dict)
    parse: Callable[[], Request] = lambda: Request(model="", messages=())
    count: Callable[[], int] = lambda: 0  # about how many tokens it has


@frozen
class Condition:
    """A word of `when`."""

    found: Callable[[Facts, Any], Any]  # (facts, wanted): what the request has
    holds: Callable[[Any, Any], bool] = operator.eq  # (found, wanted)
    # (earlier, later): does the earlier condition hold whenever the later one does?
    covers: Callable[[Any, Any], bool] = operator.eq


def _is_background(facts: Facts) -> bool:
    """As Claude Code says itself, else by the model; the large one is asked for titles, too."""
    if said := facts.headers.get("x-claude-code-request-class"):
        return said == "auxiliary"
    if any(glob_matches(glob, facts.model) for glob in _SMALL_MODELS):
        return True
    return not _has_tools(facts) and _wants_title(facts.parse())


def _wants_title(request: Request) -> bool:
    schema = (request.format.schema if request.format else None) or {}
    properties = schema.get("properties")
    return isinstance(properties, dict) and properties.keys() == {"title"}


def _is_subagent(facts: Facts) -> bool:
    system = facts.body.get("system")
    first = system[0] if isinstance(system, list) and system else None
    text = first.get("text") if isinstance(first, dict) else system
    line = text.partition("\n")[0] if isinstance(text, str) else ""
    return _SUBAGENT_LINE in line or any(facts.headers.get(name) for name in _SUBAGENT_HEADERS)


def _has_tools(facts: Facts) -> bool:
    """Every dialect has the name; `functions` is what Chat Completions once called them."""
    return bool(facts.body.get("tools") or facts.body.get("functions"))


def _thinks(facts: Facts) -> bool:
    thinking = facts.parse().thinking
    return thinking is not None and thinking.word() != "none"


def _has_media(*kinds: str) -> Callable[[Facts, object], bool]:
    def found(facts: Facts, _: object) -> bool:
        parts = [part for message in facts.parse().messages for part in message.parts]
        inner = [p for part in parts if isinstance(part, ToolResult) for p in part.parts]
        return any(isinstance(p, Media) and p.kind in kinds for p in (*parts, *inner))

    return found


def _header_values(facts: Facts, wanted: Mapping[str, str]) -> dict[str, str | None]:
    return {name: facts.headers.get(name) for name in wanted}


def _headers_match(found: Mapping[str, str | None], wanted: Mapping[str, str]) -> bool:
    values = [(glob, found[name]) for name, glob in wanted.items()]
    return all(value is not None and glob_matches(glob, value) for glob, value in values)


def _is_named(name: str, globs: Sequence[str]) -> bool:
    return any(glob_matches(glob, name) for glob in globs)


CONDITIONS: Final[dict[str, Condition]] = {
    "key": Condition(lambda facts, _: facts.key, _is_named),
    "header": Condition(_header_values, _headers_match),
    "tools": Condition(lambda facts, _: _has_tools(facts)),
    "subagent": Condition(lambda facts, _: _is_subagent(facts)),
    "background": Condition(lambda facts, _: _is_background(facts)),
    "thinking": Condition(lambda facts, _: _thinks(facts)),
    "images": Condition(_has_media("image")),
    "documents": Condition(_has_media("document", "text")),
    "tokens_over": Condition(lambda facts, _: facts.count(), operator.gt, operator.le),
    "tokens_under": Condition(lambda facts, _: facts.count(), operator.lt, operator.ge),
}


def conditions(when: WhenConfig) -> Mapping[str, Any]:
    """The conditions given, and what they want; the cheap ones first."""
    said = ((word, getattr(when, word)) for word in CONDITIONS)
    return {word: wanted for word, wanted in said if wanted is not None}


def unmet(when: WhenConfig, facts: Facts) -> str:
    """The first condition that does not hold, and what the request has; "" if all hold."""
    for name, wanted in conditions(when).items():
        row = CONDITIONS[name]
        try:
            found = row.found(facts, wanted)
        except BadRequest as error:
            return f"{name}: the request cannot be read: {error.message}"
        if not row.holds(found, wanted):
            return f"{name}: {_said_of(wanted)}; the request: {_said_of(found)}"
    return ""


def _said_of(value: Any) -> str:
    return dumps(value).decode()


def covers(earlier: WhenConfig, later: WhenConfig) -> bool:
    """Does the earlier entry take everything that the later one would?"""
    wanted = conditions(later)
    return all(
        name in wanted and CONDITIONS[name].covers(value, wanted[name])
        for name, value in conditions(earlier).items()
    )


# ==== 19. Plan ================================================================
# A configuration compiled to answer "where may this go?".  Frozen: a reload builds another and
# swaps it whole, and a request keeps the one it began with.
#
#     name -> Route        the client's model name, looked up: rules, provider/model, models,
#                          default, providers that take every name
#          -> Target       a model at a provider; groups in failover order, equals in a group
#          -> BillingPlan  a subscription first, pay as you go once it is used up
#          -> Credential   one of several keys, the same for a conversation every time
#          -> Lane         all of these and an endpoint: what one attempt goes to


def supported() -> frozenset[str]:
    """What `api_format` may say; plugins add to it."""
    return frozenset((*DIALECTS, "demo"))


LOOPBACK_NAMES: Final = frozenset(("localhost", "localhost.localdomain", "ip6-localhost"))

# How a credential is sent: the header, and what precedes the key in it; None means that the name
# is a query parameter's.
AUTH_STYLES: Final[dict[str, tuple[str, str | None]]] = {
    "query:key": ("key", None),
    "bearer": ("Authorization", "Bearer "),
    "x-api-key": ("x-api-key", ""),
    "api-key": ("api-key", ""),
    "x-goog-api-key": ("x-goog-api-key", ""),
}


@dataclass(frozen=True)
class Endpoint:
    """Where one dialect of one plan is served."""

    dialect: Dialect
    url: str  # to post to; may hold {model}
    auth: str
    quirks: Quirks
    edits: tuple[Edits, ...]  # the quirks', then the user's, for a body in this dialect
    demo: bool = False
    proxy: str = field(default="", repr=False)  # a URL; "" for none

    @functools.cached_property
    def edits_nothing(self) -> bool:
        return all(edits == Edits() for edits in self.edits)

    def edited(self, body: JSON) -> tuple[JSON, tuple[str, ...]]:
        """The body as the quirks and then the user want it, and the paths taken out of it."""
        if self.edits_nothing:
            return body, ()
        taken: tuple[str, ...] = ()
        for edits in self.edits:
            taken += edits.taken(body)
            body = edits.applied(body)
        return body, taken

    @functools.cached_property
    def base(self) -> str:
        """The host and port: what shares them fails together."""
        return urllib.parse.urlsplit(self.url).netloc

    def beside(self, path: str) -> str:
        """The URL of another path on the same base: the URL up to the dialect's own path."""
        url, _, query = self.url.partition("?")
        short = re.sub(r"^/v\d+[a-z0-9]*", "", self.dialect.path)
        for own in (self.dialect.path, short):
            if url.endswith(own):
                return url.removesuffix(own) + path + (f"?{query}" if query else "")
        origin = "/".join(url.split("/")[:3])  # a path of its own: nothing is known below it
        return origin + path


@frozen
class Credential:
    """A key at a provider.  The name is stable, reveals nothing, and changes with the key."""

    name: str
    secret: str = field(repr=False)
    account: str  # eight hex digits, for seals


@frozen
class BillingPlan:
    name: str
    credentials: tuple[Credential, ...]
    endpoints: Mapping[str, Endpoint]  # dialect -> endpoint, the preferred one first
    free: bool  # not paid by the token: a subscription, or a server of one's own
    prices: PriceList = field(compare=False)

    def endpoint(self, dialect: str) -> Endpoint:
        return self.endpoints.get(dialect) or next(iter(self.endpoints.values()))


@frozen(kw_only=True)
class Provider:
    name: str
    config: ProviderConfig
    plans: tuple[BillingPlan, ...]
    rules: tuple[ErrorRule, ...]
    timeouts: TimeoutConfig
    attempt_total: float
    claims: tuple[str, ...] | None  # globs its preset says it serves; None: listed models only

    def match(self, name: str) -> tuple[int, str, ModelConfig] | None:
        """(rank, the provider's name, limits); rank 0: exact, 1: but for case, 2: by a glob."""
        models = self.config.models or {}
        if name in models and not is_glob(name):
            return 0, models[name].name or name, models[name]
        lower = name.lower()
        for known, model in models.items():
            if known.lower() == lower and not is_glob(known):
                return 1, model.name or known, model
        for known, model in models.items():
            if is_glob(known) and glob_matches(known, name):
                return 2, model.name or name, model
        claimed = self.config.models is None and any(
            glob_matches(glob, name) for glob in self.claims or ()
        )
        return (2, name, ModelConfig()) if claimed else None

    @property
    def accepts_all(self) -> bool:
        return not self.config.models and (self.config.models is not None or not self.claims)


@dataclass(frozen=True)
class Target:
    """A model at a provider."""

    provider: Provider
    model: str
    output: int | None = None  # tokens it can write, where `models` says so

    def lanes(self, dialect: str) -> tuple[tuple[Lane, ...], ...]:
        """All lanes to it for a client of this dialect, plan by plan."""
        if dialect not in self._lanes:
            self._lanes[dialect] = tuple(
                tuple(Lane(self, plan, key, plan.endpoint(dialect)) for key in plan.credentials)
                for plan in self.provider.plans
            )
        return self._lanes[dialect]

    @functools.cached_property
    def _lanes(self) -> dict[str, tuple[tuple[Lane, ...], ...]]:
        return {}

    @functools.cached_property
    def name(self) -> str:
        """As the log and messages say it; /p/ asks a provider for no model."""
        return f"{self.provider.name}/{self.model}" if self.model else self.provider.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Lane:
    """One way to a target, and whatever is the same for every request that takes it."""

    target: Target
    plan: BillingPlan
    credential: Credential
    endpoint: Endpoint

    @functools.cached_property
    def _keys(self) -> Mapping[str, str]:
        provider, model = self.target.provider.name, self.target.model
        return {
            "credential": self.credential.name,
            "credential+model": self.name,
            "provider+model": f"{provider} {model}",
            "endpoint": f"{provider} {self.endpoint.base}",
        }

    @functools.cached_property
    def name(self) -> str:
        """Stable and unique."""
        return f"{self.credential.name} {self.target.model}"

    @functools.cached_property
    def price(self) -> PriceConfig | None:
        return self.plan.prices.of(self.target.model)

    @functools.cached_property
    def record(self) -> JSON:
        """How the log names it."""
        credential = self.credential.name.rpartition("/")[2]
        return {"target": self.target.name, "plan": self.plan.name, "credential": credential}

    @functools.cached_property
    def about(self) -> Mapping[str, str]:
        """The headers in which relay says where an answer comes from."""
        provider, model = self.target.provider.name, self.target.model
        said = {"x-relay-provider": header_text(provider)}
        return said | ({"x-relay-model": header_text(model)} if model else {})

    def key(self, scope: str) -> str:
        """The stable name of what a failure of this scope marks."""
        return self._keys[scope]

    def owner(self, scope: str) -> str:
        """What in the configuration a mark of this scope belongs to, and disappears with."""
        provider = self.target.provider.name
        whose = self.credential.name if scope.startswith("credential") else provider
        return self.key(scope) if scope == "endpoint" else whose

    def address(self, stream: bool, variant: str = "") -> str:
        """The URL to ask it at."""
        how = (stream, variant)
        if how not in self._addresses:
            endpoint, model = self.endpoint, self.target.model
            self._addresses[how] = endpoint.dialect.address(endpoint.url, model, stream, variant)
        return self._addresses[how]

    @functools.cached_property
    def _addresses(self) -> dict[tuple[bool, str], str]:
        return {}

    def authorized(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The URL and headers with the credential added, and the user's headers on top; names of
        `headers` are in lower case."""
        query, carrying = self._authority
        overridden = self._overridden
        said = {**headers, **carrying}
        if overridden:
            said = {name: value for name, value in said.items() if name.lower() not in overridden}
            said |= {n: v for n, v in self.target.provider.config.headers.items() if v is not None}
        return (f"{url}{'&' if '?' in url else '?'}{query}" if query else url), said

    @functools.cached_property
    def _authority(self) -> tuple[str, Mapping[str, str]]:
        """What carries the secret: a query, or a header."""
        name, before = AUTH_STYLES[self.endpoint.auth]
        secret = self.credential.secret
        if not secret:
            return "", {}
        if before is None:
            return f"{name}={urllib.parse.quote(secret)}", {}
        return "", {name: before + secret}

    @functools.cached_property
    def _overridden(self) -> frozenset[str]:
        """The names of the user's headers, which win; null removes one."""
        return frozenset(name.lower() for name in self.target.provider.config.headers)

    def __str__(self) -> str:
        several = len(self.plan.credentials) > 1
        credential = f"#{self.plan.credentials.index(self.credential) + 1}" if several else ""
        plan = f" ({self.plan.name})" if len(self.target.provider.plans) > 1 else ""
        return f"{self.target}{plan}{credential}"


def header_text(text: str) -> str:
    """A text that may come from a client, as a header's value: visible ASCII, one line."""
    return re.sub(r"[^ -~]", "?", text)[:1000]


@dataclass(frozen=True)
class Route:
    """Where a name goes: groups in failover order, equals within a group."""

    name: str
    why: str
    groups: tuple[tuple[Target, ...], ...]
    balance: str = "weighted"  # how equals are put in order
    wait: float = 0.0  # seconds to hold a request while all are cooling down
    hedge_after: float = math.inf  # seconds until a second one is asked as well

    def targets(self) -> list[Target]:
        return [target for group in self.groups for target in group]

    @functools.cached_property
    def room(self) -> float:
        """The most tokens that an answer can have at any of its targets."""
        return max((target.output or math.inf for target in self.targets()), default=math.inf)

    @functools.cached_property
    def prices(self) -> tuple[PriceConfig, ...]:
        """All the prices by which it may have to be paid."""
        ways = ((target, plan) for target in self.targets() for plan in target.provider.plans)
        return tuple(filter(None, (plan.prices.of(target.model) for target, plan in ways)))

    @functools.cached_property
    def is_single(self) -> bool:
        """Is there only one lane, whichever conversation asks?"""
        plans = [plan for target in self.targets() for plan in target.provider.plans]
        return sum(len(plan.credentials) for plan in plans) < 2


def has_price(limits: LimitConfig) -> bool:
    return limits.cost_per_day is not None or limits.cost_per_month is not None


def ranked(
    items: Sequence[T], identity: str, name: Callable[[T], str], weight: Callable[[T], float]
) -> list[T]:
    """Weighted rendezvous hashing: over all conversations, shares by weight; for each one, the
    same order every time, without a table.  Caches belong to an account, so a conversation must
    not wander; when an item is removed, only its own conversations move.
    """
    if len(items) < 2:
        return list(items)

    def score(item: T) -> float:
        digest = hashlib.sha256(f"{identity}\0{name(item)}".encode(errors="replace")).digest()
        uniform = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
        return -math.log(uniform) / max(weight(item), 1e-9)

    return sorted(items, key=score)


@frozen
class Caller:
    """Who sends a request: a key of the configuration, or somebody on this machine without one."""

    name: str = ""
    models: tuple[str, ...] | None = None
    raw: bool = True  # may use /p/
    limits: LimitConfig | None = None
    zone: datetime.tzinfo | None = None  # whose days and months its budgets go by

    @property
    def is_bound(self) -> bool:
        """Does the model decide whether its request is allowed?"""
        return self.models is not None or (self.limits is not None and has_price(self.limits))

    def may_use(self, name: str) -> bool:
        return self.models is None or any(glob_matches(glob, name) for glob in self.models)


@frozen
class Key:
    """A key, which is looked up by its hash; what is found is compared in constant time.  Nobody
    can choose hashes, so the time of a look-up reveals nothing about the keys there are, and is
    the same for one and for hundreds."""

    caller: Caller
    digest: bytes
    expires: float | None  # seconds since the epoch


# Claude Code's model picker shows only names that begin with claude or anthropic, and takes a [1m]
# after one to mean a context of a million tokens.
PICKED: Final = ("claude", "anthropic")
ALIAS: Final = "claude--"
LONG_CONTEXT: Final = "[1m]"

_MOST_NAMES: Final = 1000  # whose routes a plan remembers
_MOST_COMPARED: Final = 50  # names, letter by letter, with one that nobody serves


def _pairs(word: str) -> int:
    """The pairs of letters in a word, each a bit of 256; first and last stand beside a blank."""
    pairs = 0
    for first, second in zip(f" {word}", f"{word} ", strict=True):
        pairs |= 1 << (31 * ord(first) + ord(second)) % 256
    return pairs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that requests need of a configuration."""

    config: Config
    providers: Mapping[str, Provider]  # by lower-case name
    keys: tuple[Key, ...]
    admin: bytes  # digest of the admin key; b"" without one
    secrets: tuple[str, ...] = field(repr=False)  # what must never be shown
    zone: datetime.tzinfo | None  # of times that are shown; None is the machine's

    def route(self, said: str, facts: Facts | None = None) -> Route | None:
        """Where a model name goes, by the first of five steps that knows; None if nowhere.

        Without facts, as for an empty request.
        """
        name = self.bare(said)
        by_rule = functools.partial(self._by_rule, facts=facts or Facts(model=name))
        steps = (by_rule, self._by_address, self._by_models, self._by_default, self._by_all)
        return next((route for step in steps if (route := step(name)) and route.groups), None)

    def lookup(self, said: str, facts: Callable[[], Facts]) -> Route | None:
        """The same, remembered for names about which no rule asks anything but the name."""
        if said in self._remembered:
            return self._remembered[said]
        name = self.bare(said)
        if any(conditions(rule.when) for _, rule in self.entries(name)):
            return self.route(said, facts())
        if len(self._remembered) >= _MOST_NAMES:  # clients make names up
            self._remembered.clear()
        self._remembered[said] = self.route(said)
        return self._remembered[said]

    @functools.cached_property
    def _remembered(self) -> dict[str, Route | None]:
        return {}

    def entries(self, name: str) -> Iterator[tuple[str, RuleConfig]]:
        """The entries of rules that may decide on a name, and how to call them: those of the exact
        name, then of globs in file order, up to the first without conditions."""
        rules, lower = self.config.routing_rules, name.lower()
        exact = name if name in rules else next((r for r in rules if r.lower() == lower), None)
        globs = [rule for rule in rules if is_glob(rule) and glob_matches(rule, name)]
        for found in dict.fromkeys([exact, *globs] if exact else globs):
            for index, rule in enumerate(rules[found], 1):
                several = f", entry {index}" if len(rules[found]) > 1 else ""
                yield f"rule {found}{several}", rule
                if not conditions(rule.when):
                    return

    def bare(self, said: str) -> str:
        """Without Claude Code's [1m] at the end or its picker's alias at the beginning.

        A name that is listed exactly so is left alone.
        """
        if said in self.listed:
            return said
        bare = re.sub(r"\[[^\[\]]*\]$", "", said) or said
        return bare.removeprefix(ALIAS) or bare

    @functools.cached_property
    def listed(self) -> dict[str, Listed]:
        """Every name a client can use, with its limits if they are known."""
        rules = self.config.routing_rules
        listed = {name: self._limits(name, name) for name in rules if not is_glob(name)}
        for provider in self.providers.values():
            prefix = provider.config.prefix
            for name, model in (provider.config.models or {}).items():
                if is_glob(name):
                    continue
                names = [name, f"{prefix}/{name}"] if prefix else [name]
                for known in names:
                    listed[known] = Listed(known, model.context, model.output)
        targets = [to for entries in rules.values() for entry in entries for to in entry.to]
        for target in (*targets, self.config.default or ""):
            if "/" in target:  # a name too: it addresses a provider directly
                listed.setdefault(target, self._limits(target, target))
        return listed

    @functools.cached_property
    def picked(self) -> dict[str, Listed]:
        """The same for Claude Code's picker: names it would not show get an alias.

        Models that hold a million tokens appear once more, in the notation that makes it use them.
        """
        shown = {
            name: model
            if name.lower().startswith(PICKED)
            else replace(model, name=ALIAS + name, title=name)
            for name, model in self.listed.items()
        }
        long = {
            name + LONG_CONTEXT: replace(model, name=model.name + LONG_CONTEXT)
            for name, model in shown.items()
            if (model.context or 0) >= 1_000_000 and name + LONG_CONTEXT not in shown
        }
        return shown | long

    def _limits(self, name: str, said: str) -> Listed:
        """A name with the limits of the first model it leads to."""
        rules = self.config.routing_rules.get(name, ())
        to = next((to for entry in rules for to in entry.to), name)
        head, _, model = to.partition("/")
        provider = self.providers.get(head.lower())
        known = provider.match(model or said) if provider else None
        limits = known[2] if known else ModelConfig()
        return Listed(name, limits.context, limits.output)

    def nearest(self, name: str) -> list[str]:
        """Names that may have been meant.

        To compare all of them letter by letter would take milliseconds where there are hundreds,
        so it is done for those that have most pairs of letters in common with what was said.
        """
        said, known = _pairs(name.lower()), self._spelled
        alike = [
            ((said & pairs).bit_count() / (said | pairs).bit_count(), word)
            for word, (_, pairs) in known.items()
        ]
        likely = [word for _, word in sorted(alike, reverse=True)[:_MOST_COMPARED]]
        near = difflib.get_close_matches(name.lower(), likely, 3, 0.5)
        return [known[word][0] for word in near]

    @functools.cached_property
    def _spelled(self) -> dict[str, tuple[str, int]]:
        """The names in lower case: as they are listed, and their pairs of letters."""
        return {name.lower(): (name, _pairs(name.lower())) for name in self.listed}

    def caller(self, offered: Sequence[str], now: float) -> Caller | None:
        """The caller whose key is the first valid one."""
        for credential in offered:
            digest = hashlib.sha256(credential.encode(errors="replace")).digest()
            for key in self._by_digest.get(digest, ()):
                if not hmac.compare_digest(key.digest, digest):
                    continue
                if key.expires is None or now < key.expires:
                    return key.caller
        return None

    @functools.cached_property
    def _by_digest(self) -> dict[bytes, list[Key]]:
        known: dict[bytes, list[Key]] = {}
        for key in self.keys:
            known.setdefault(key.digest, []).append(key)
        return known

    def redacted(self, text: str) -> str:
        if not text or not self._beginnings.search(text):
            return text
        for secret in self.secrets:
            if secret[:4] not in text:
                continue
            text = text.replace(secret, "[secret]")
            for length in range(len(secret) - 1, 3, -1):  # a secret cut off at the end
                if text.endswith(secret[:length]):
                    text = text[:-length] + "[secret]"
        return text

    @functools.cached_property
    def _beginnings(self) -> re.Pattern[str]:
        """What secrets begin with: nearly every text is cleared by one search, however many keys
        there are."""
        begin = {secret[:4] for secret in self.secrets}
        return re.compile(any_of(begin) if begin else "(?!)")

    # The five steps

    def _by_rule(self, name: str, facts: Facts) -> Route | None:
        entries = ((why, rule) for why, rule in self.entries(name) if not unmet(rule.when, facts))
        return next((self._ruled(name, why, rule) for why, rule in entries), None)

    def _ruled(self, name: str, why: str, rule: RuleConfig) -> Route:
        targets = tuple(t for to in rule.to if (t := self._target(to, name)))
        groups = tuple((t,) for t in targets) if rule.balance == "order" else (targets,)
        balance = "weighted" if rule.balance == "order" else rule.balance
        wait, hedge_after = rule.wait or 0.0, rule.hedge_after or math.inf
        return Route(name, why, groups if targets else (), balance, wait, hedge_after)

    def _by_address(self, name: str) -> Route | None:
        head, model = addressed(name)
        target = self._target(f"{head}/{model}", model) if model else None
        return Route(name, "addressed directly", ((target,),)) if target else None

    def _by_models(self, name: str) -> Route | None:
        ranks: dict[tuple[int, float], list[Target]] = {}
        for provider in self.providers.values():
            prefix = f"{provider.config.prefix}/".lower()
            plain = name[len(prefix) :] if prefix != "/" and name.lower().startswith(prefix) else ""
            if found := (plain and provider.match(plain)) or provider.match(name):
                rank = (found[0], -provider.config.priority)
                ranks.setdefault(rank, []).append(Target(provider, found[1], found[2].output))
        groups = tuple(tuple(ranks[rank]) for rank in sorted(ranks))
        return Route(name, "listed in models", groups)

    def _by_default(self, name: str) -> Route | None:
        target = self._target(self.config.default, name) if self.config.default else None
        return Route(name, "default", ((target,),)) if target else None

    def _by_all(self, name: str) -> Route | None:
        ranks: dict[float, list[Target]] = {}
        for provider in self.providers.values():
            if provider.accepts_all:
                ranks.setdefault(-provider.config.priority, []).append(Target(provider, name))
        groups = tuple(tuple(ranks[rank]) for rank in sorted(ranks))
        return Route(name, "provider that accepts every name", groups)

    def _target(self, to: str, said: str) -> Target | None:
        """`provider/NAME`, or a bare provider for the name the client said."""
        head, _, model = to.partition("/")
        provider = self.providers.get(head.lower())
        if provider is None:
            return None
        name = model or said
        found = provider.match(name)
        return Target(provider, found[1], found[2].output) if found else Target(provider, name)


def unpriced(plan: Plan) -> list[str]:
    """If budgets are in money: the providers that cost some but have no `prices`."""
    words = ("cost_per_day", "cost_per_month")
    limits = [key.caller.limits for key in plan.keys]
    if not any(getattr(each, word, None) is not None for each in limits for word in words):
        return []
    providers = plan.providers.values()
    paid = [p for p in providers if not p.config.prices and not all(b.free for b in p.plans)]
    return [provider.name for provider in paid]


def addressed(name: str) -> tuple[str, str]:
    """`provider/model` or `provider,model`; the model is "" if it is neither."""
    head, *rest = re.split(r"[/,]", name, maxsplit=1)
    return head, rest[0] if rest else ""


# ==== 20. Compiler ============================================================
# From a configuration to a plan: addresses joined, presets and aliases filled in, credentials
# named.  Here every mistake is found that needs more than one key to be seen; like those of
# reading it is noted with its place, and compiling goes on.


def compile_plan(config: Config, reading: Reading) -> Plan:
    """The plan; mistakes are noted in `reading`, and if there are any the plan is of no use."""
    providers: dict[str, Provider] = {}
    for name, entry in config.providers.items():
        path = f"providers.{name}"
        if name.lower() in providers:
            reading.wrong(path, "another provider has this name but for its case")
        if re.search(r"[/,\s]", name):
            reading.wrong(path, "a provider's name cannot hold a slash, a comma or a space")
        compiled = _Compiler(config, name, entry, reading).provider()
        if compiled and entry.active:
            providers[name.lower()] = compiled
    if config.providers == {} and not reading.problems():
        reading.wrong("providers", "at least one is needed")
    zone = _zone("timezone", config.timezone, reading)
    _check_rules(config, reading)
    _check_listen(config, reading)
    credentials = [c for p in providers.values() for plan in p.plans for c in plan.credentials]
    by_key: dict[str, str] = {}
    for name, key in config.keys.items():
        if key.key and (other := by_key.setdefault(key.key, name)) != name:
            reading.wrong(f"keys.{name}.key", f"is the key of {other!r} too")
    shown = [c.secret for c in credentials] + [config.admin_key, _password(config, reading)]
    plans = [plan for p in providers.values() for plan in p.plans]
    shown += [s for b in plans for e in b.endpoints.values() for s in _in_proxy(e.proxy)]
    shown += [s for p in providers.values() for s in _in_headers(p.config.headers)]
    shown += [s for b in plans for e in b.endpoints.values() for s in _in_query(e.url)]
    shown += [key.key for key in config.keys.values() if not key.key.startswith("sha256:")]
    return Plan(
        config=config,
        providers=providers,
        keys=tuple(_key(name, entry, zone, reading) for name, entry in config.keys.items()),
        admin=hashlib.sha256(config.admin_key.encode()).digest() if config.admin_key else b"",
        secrets=tuple(sorted({f for s in shown for f in _forms(s)}, key=len, reverse=True)),
        zone=zone,
    )


def _password(config: Config, reading: Reading) -> str:
    """Redis's password, from the URL."""
    try:
        return urllib.parse.unquote(urllib.parse.urlsplit(config.state).password or "")
    except ValueError as error:
        reading.wrong("state", f"not a URL: {error}")
        return ""


def _forms(secret: str) -> Iterator[str]:
    """A secret as others may quote it; to mask a very short one would mask ordinary words."""
    if len(secret) > 3:
        yield secret
        yield urllib.parse.quote(secret, safe="")
        yield base64.b64encode(secret.encode()).decode().rstrip("=")


def _key(name: str, entry: KeyConfig, zone: datetime.tzinfo | None, reading: Reading) -> Key:
    path = f"keys.{name}.key"
    digest = hashlib.sha256(entry.key.encode()).digest()
    if entry.key.startswith("sha256:"):
        try:
            digest = bytes.fromhex(entry.key.removeprefix("sha256:"))
        except ValueError:
            digest = b""
        if len(digest) != 32:
            reading.wrong(path, "expected sha256: and 64 hexadecimal digits")
    elif not entry.key and not reading.complained(path):
        reading.wrong(path, "must not be empty; `relay key` makes one")
    own = _zone(f"keys.{name}.timezone", entry.timezone, reading) or zone
    expires = entry.expires and entry.expires.replace(tzinfo=entry.expires.tzinfo or own)
    caller = Caller(name, entry.models, entry.raw, entry.limits, own)
    return Key(caller, digest, expires.timestamp() if expires else None)


def _zone(path: str, name: str | None, reading: Reading) -> datetime.tzinfo | None:
    try:
        return reading.zone(name) if name else None
    except (KeyError, ValueError, OSError):  # unknown; not a name at all; a folder of names
        reading.wrong(path, f"unknown time zone {name!r}")
        return None


def _check_rules(config: Config, reading: Reading) -> None:
    for name, rules in config.routing_rules.items():
        path = f"routing_rules.{name}"
        if not any(rule.to for rule in rules) and not reading.complained_below(path):
            reading.wrong(path, "a rule needs at least one target")
        for index, rule in enumerate(rules):
            place = f"{path}[{index}]" if len(rules) > 1 else path
            for target in rule.to:
                _check_target(place, target, config, reading)
            for text in _dead(rule, rules[:index], config):
                reading.wrong(place, text)
    if config.default:
        _check_target("default", config.default, config, reading)


def _check_target(path: str, target: str, config: Config, reading: Reading) -> None:
    head = target.partition("/")[0]
    if head.lower() not in {name.lower() for name in config.providers}:
        hint = meant(head, config.providers)
        reading.wrong(path, f"target {target!r}: no provider is called {head!r}{hint}")


def _dead(rule: RuleConfig, before: Sequence[RuleConfig], config: Config) -> Iterator[str]:
    """Why an entry of a rule can never be used."""
    when = rule.when
    if number := next((n for n, b in enumerate(before, 1) if covers(b.when, when)), 0):
        yield f"never used: entry {number} takes all that this one would"
    if when.tokens_over and when.tokens_under and when.tokens_over + 1 >= when.tokens_under:
        yield f"never used: nothing is over {when.tokens_over} and under {when.tokens_under}"
    for glob in when.key or ():
        if not any(glob_matches(glob, name) for name in config.keys):
            yield f"when.key {glob!r}: no key is called so{meant(glob, config.keys)}"


def _check_listen(config: Config, reading: Reading) -> None:
    if not config.listen:
        reading.wrong("listen", "at least one address is needed")
    for index, listen in enumerate(config.listen):
        path = f"listen[{index}]"
        if listen in config.listen[:index]:
            reading.wrong(path, f"{listen} stands here twice")
        if listen.startswith("unix:"):
            if not listen.removeprefix("unix:"):
                reading.wrong(path, "unix: needs a path")
            continue
        try:
            host, _ = host_and_port(listen)
        except ValueError as error:
            reading.wrong(path, str(error))
            continue
        if not is_loopback(host) and not config.keys and not config.allow_anonymous:
            reading.wrong(
                path,
                f"{host or 'every interface'} can be reached by others: give `keys`, listen on "
                "127.0.0.1, or say `allow_anonymous: true`",
            )


def host_and_port(listen: str) -> tuple[str, int]:
    """`127.0.0.1:8484`, `[::1]:8484`, `:8484` or a bare port."""
    host, _, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):
        raise ValueError(f"expected host:port or unix:PATH, got {listen!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Is this name or address one that only this machine can reach?"""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower() in LOOPBACK_NAMES
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class _Compiler:
    """One provider on its way from the file to the plan."""

    def __init__(self, config: Config, name: str, entry: ProviderConfig, reading: Reading) -> None:
        self.config = config
        self.name = name
        self.entry = entry
        self.reading = reading
        self.path = f"providers.{name}"
        self.offered: dict[str, dict[str, str]] = {}  # plan -> dialect -> URL
        self.preset, self.alias_plan = self._preset()

    def provider(self) -> Provider | None:
        entry, preset = self.entry, self.preset
        if entry.preset and preset is None:
            return None
        self._check_names()
        plans = [self._plan(name, urls) for name, urls in self._plans().items()]
        limits = {k: v for k, v in dataclasses.asdict(entry.timeouts).items() if v is not None}
        total = limits.pop("total", self.config.timeouts.total)
        return Provider(
            name=self.name,
            config=entry,
            plans=tuple(plan for plan in plans if plan),
            rules=(*entry.errors, *(preset.errors if preset else ()), *COMMON_ERRORS),
            timeouts=replace(self.config.timeouts, **limits),
            attempt_total=total,
            claims=preset.globs if preset and preset.globs else None,
        )

    def wrong(self, key: str, text: str) -> None:
        self.reading.wrong(f"{self.path}.{key}" if key else self.path, text)

    def _preset(self) -> tuple[Preset | None, str]:
        name = self.entry.preset
        if not name:
            return None, ""
        preset_name, plan = PRESET_ALIASES.get(name, (name, ""))
        if preset_name not in PRESETS:
            self.wrong(
                "preset", f"unknown preset {name!r}{meant(name, (*PRESETS, *PRESET_ALIASES))}"
            )
        return PRESETS.get(preset_name), plan

    def _plans(self) -> dict[str, dict[str, str]]:
        """Plan -> dialect -> URL, of the plans that are used, in order."""
        entry = self.entry
        if entry.endpoint and entry.endpoints:
            self.wrong("endpoints", "give either `endpoint` or `endpoints`")
        if "demo" in entry.api_format and (entry.endpoint or entry.endpoints):
            self.wrong("api_format", "demo is embedded: it has no endpoint and nothing beside it")
        offered = self.offered = self._own_plans() or self._preset_plans()
        wanted = entry.billing_plans or self._default_plans(offered)
        for plan in wanted:
            if plan not in offered:
                self.wrong("billing_plans", f"no endpoint for plan {plan!r}{meant(plan, offered)}")
        return {plan: offered[plan] for plan in wanted if plan in offered}

    def _own_plans(self) -> dict[str, dict[str, str]]:
        entry = self.entry
        if entry.endpoint:
            return {"regular": self._urls("endpoint", entry.endpoint)}
        if entry.endpoints and all(name in supported() for name in entry.endpoints):
            return {"regular": self._urls("endpoints", entry.endpoints)}
        return {
            plan: self._urls(f"endpoints.{plan}", urls) for plan, urls in entry.endpoints.items()
        }

    def _preset_plans(self) -> dict[str, dict[str, str]]:
        if self.entry.api_format == ("demo",):
            return {"regular": dict.fromkeys(DIALECTS, "http://demo.invalid")}
        if self.preset is None:
            self.wrong("", "needs an `endpoint`, or a `preset` that has one")
            return {}
        plans = {plan: dict(urls) for plan, urls in self.preset.plans.items()}
        if not any(plans.values()):
            self.wrong(
                "", f"preset {self.entry.preset} needs an `endpoint`: it differs per account"
            )
        spoken = set(self.entry.api_format or DIALECTS)
        for dialect in spoken - {dialect for urls in plans.values() for dialect in urls}:
            if self.entry.api_format and dialect in DIALECTS:
                known = ", ".join(dict.fromkeys(d for urls in plans.values() for d in urls))
                text = f"preset {self.entry.preset} does not speak {dialect}; it speaks {known}"
                self.wrong("api_format", text)
        return {
            plan: {
                dialect: self._joined(dialect, url, exact=True)
                for dialect, url in urls.items()
                if dialect in DIALECTS and dialect in spoken
            }
            for plan, urls in plans.items()
        }

    def _default_plans(self, offered: Mapping[str, object]) -> tuple[str, ...]:
        if self.alias_plan in offered:
            return (self.alias_plan,)
        subscriptions = self.preset.subscription if self.preset else ()
        own = bool(self.entry.endpoints)
        if len(offered) > 1 and own:
            names = ", ".join(offered)
            self.wrong("billing_plans", f"say which of {names} to use, in order")
        return next(((s,) for s in subscriptions if s in offered), tuple(offered)[:1])

    def _urls(self, key: str, said: str | Mapping[str, str]) -> dict[str, str]:
        """Dialect -> URL to post to, of one `endpoint`."""
        if isinstance(said, str):
            said = dict.fromkeys(self._formats(key, said), said)
        urls: dict[str, str] = {}
        for dialect, url in said.items():
            if dialect not in supported():
                if dialect not in self.entry.api_format:  # else it is said there
                    self.wrong(key, f"unknown dialect {dialect!r}{meant(dialect, supported())}")
            elif _credentials_in(url):
                self.wrong(key, "a URL is shown and logged: credentials go into `api_key`")
            elif not _is_url(url):
                self.wrong(key, f"expected a URL with http:// or https://, got {url!r:.80}")
            else:
                urls[dialect] = self._joined(dialect, url)
        return urls

    def _formats(self, key: str, url: str) -> tuple[str, ...]:
        """What a plain URL speaks: `api_format`, else by its path, else the preset's first."""
        if self.entry.api_format:
            return self.entry.api_format
        path = urllib.parse.urlsplit(url).path.rstrip("/")
        for dialect in DIALECTS.values():
            if path.endswith("/" + dialect.path.rpartition("/")[2]):
                return (dialect.name,)
        if "anthropic" in path.split("/"):
            return ("anthropic",)
        known = [d for plan in (self.preset.plans if self.preset else {}).values() for d in plan]
        known = [d for d in (*known, *(self.preset.auth if self.preset else ())) if d in DIALECTS]
        if not known:
            self.wrong("api_format", f"required: say what this URL speaks, {' or '.join(DIALECTS)}")
        return tuple(known[:1])

    def _joined(self, dialect: str, base: str, exact: bool = False) -> str:
        parts = urllib.parse.urlsplit(base)
        path = self.entry.paths.get(dialect)
        if self.preset and parts.path in ("", "/"):  # a URL with a path is complete
            path = path or self.preset.paths.get(dialect)
        if path:
            return f"{parts.scheme}://{parts.netloc}/{path.lstrip('/')}"
        return joined(DIALECTS[dialect], base, exact) if dialect in DIALECTS else base

    def _plan(self, name: str, urls: Mapping[str, str]) -> BillingPlan | None:
        endpoints = {d: self._endpoint(d, url) for d, url in urls.items() if d in DIALECTS}
        credentials = self._credentials(name)
        if not endpoints and not self.reading.problems():
            self.wrong("", f"plan {name} speaks no dialect that relay knows")
        if not endpoints:
            return None
        prices = PriceList(self.entry.prices, name, free := self._is_free(name))
        return BillingPlan(name, credentials, endpoints, free, prices)

    def _is_free(self, plan: str) -> bool:
        preset = self.preset
        own = "demo" in self.entry.api_format or (preset is not None and preset.local)
        return own or (preset is not None and plan in preset.subscription)

    def _endpoint(self, dialect: str, url: str) -> Endpoint:
        preset, override = self.preset, self.entry.override
        quirks = (preset.quirks.get(dialect) if preset else None) or DIALECTS[dialect].quirks()
        auth = (preset.auth.get(dialect) if preset else None) or DIALECTS[dialect].auth
        edits = (
            Edits(quirks.drop, quirks.rename, quirks.clamp, set=quirks.fixed),
            Edits(override.drop, default=override.default, set=override.set),
        )
        demo = "demo" in self.entry.api_format
        return Endpoint(DIALECTS[dialect], url, auth, quirks, edits, demo, self._proxy(url))

    def _proxy(self, url: str) -> str:
        """The way to a URL: the provider's own proxy, else what the environment says."""
        said = self.entry.proxy
        proxy = proxy_of(url, self.reading.env) if said is None else "" if said == DIRECT else said
        if proxy and not is_proxy(proxy):
            self.wrong("proxy", "the proxy in the environment is none that relay knows")
            return ""
        if proxy.startswith("socks") and not self.reading.installed("aiohttp_socks"):
            self.wrong("proxy", "SOCKS needs one more package: pip install 'aiohttp-socks>=0.9'")
        return proxy

    def _credentials(self, plan: str) -> tuple[Credential, ...]:
        said = self.entry.api_key
        if isinstance(said, dict):
            for other in said:
                if other not in self.offered:
                    hint = meant(other, self.offered)
                    self.wrong(f"api_key.{other}", f"no plan is called {other!r}{hint}")
            if plan not in said:
                self.wrong("api_key", f"no credential for plan {plan!r}")
            said = said.get(plan, ())
        preset = self.preset
        if said is None and preset and preset.key and not preset.local and self.entry.active:
            self.wrong("api_key", f"required by this preset, e.g. ${{{preset.key}}}")
        secrets = tuple(dict.fromkeys(said or ("",)))
        return tuple(self._credential(plan, secret) for secret in secrets)

    def _credential(self, plan: str, secret: str) -> Credential:
        mark = hashlib.sha256(f"{self.name}\0{secret}".encode()).hexdigest()[:8]
        return Credential(f"{self.name}/{plan}/{mark}", secret, mark)

    def _check_names(self) -> None:
        entry = self.entry
        for dialect in entry.api_format:
            if dialect not in supported():
                self.wrong(
                    "api_format", f"unknown dialect {dialect!r}{meant(dialect, supported())}"
                )
        for name, model in (entry.models or {}).items():
            if model.name and is_glob(model.name):
                self.wrong(f"models.{name}", f"{model.name!r}: a provider's name cannot be a glob")
        for dialect in entry.paths:
            if dialect not in DIALECTS:
                self.wrong(f"paths.{dialect}", f"unknown dialect{meant(dialect, DIALECTS)}")
        if entry.prefix.strip("/") != entry.prefix:
            self.wrong("prefix", f"goes without the slash: {entry.prefix.strip('/')!r}")
        self._check_headers()

    def _check_headers(self) -> None:
        for header in self.entry.headers:
            if not _HEADER_NAME.fullmatch(header):
                self.wrong(f"headers.{header}", "not a header's name")
            elif header.lower() in _FRAMING:
                self.wrong(f"headers.{header}", "is relay's own to say: it frames the request")


_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 5.6.2
# With these somebody else's word the provider would read another request than was sent.
_FRAMING: Final = frozenset(("content-length", "transfer-encoding", "connection", "te", "trailer"))


def proxy_of(url: str, env: Mapping[str, str]) -> str:
    """HTTPS_PROXY's or HTTP_PROXY's word on a URL; none for this machine or NO_PROXY."""
    parts = urllib.parse.urlsplit(url)
    name, host = f"{parts.scheme}_proxy", parts.hostname or ""
    proxy = env.get(name) or env.get(name.upper()) or ""
    if not proxy or is_loopback(host):
        return ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    unproxied = (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",")
    if any(_is_meant(entry.strip().lower(), host, port) for entry in unproxied):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_meant(entry: str, host: str, port: int) -> bool:
    """By an entry of NO_PROXY: `*`, a domain and all below it, an address, a network, one port?"""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    if match := re.fullmatch(r"(.+):(\d+)", entry):
        return int(match[2]) == port and _is_meant(match[1], host, port)
    domain = entry.removeprefix("*").lstrip(".")
    return entry == "*" or bool(domain and (host == domain or host.endswith(f".{domain}")))


def shown_proxy(proxy: str) -> str:
    """A proxy's URL without the credentials it may hold."""
    parts = urllib.parse.urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _in_proxy(proxy: str) -> Iterator[str]:
    """The secrets in a proxy's URL, as others may quote them."""
    parts = urllib.parse.urlsplit(proxy)
    if parts.password:
        password = urllib.parse.unquote(parts.password)
        yield from (parts.password, password)
        yield f"{urllib.parse.unquote(parts.username or '')}:{password}"


def _in_headers(headers: Mapping[str, str | None]) -> Iterator[str]:
    """The secrets that headers of the configuration carry, without a word such as Bearer."""
    for name, value in headers.items():
        if value and CARRYING.search(name):
            yield from (value, value.rpartition(" ")[2])


def _in_query(url: str) -> Iterator[str]:
    """The secrets in a URL's query."""
    query = urllib.parse.urlsplit(url).query
    yield from (value for name, value in urllib.parse.parse_qsl(query) if CARRYING.search(name))


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or too large
        return False
    return whole and not re.search(r"[\s\x00-\x1f#]", text)


def _credentials_in(url: str) -> bool:
    """Does it say who asks, as in https://user:password@host?"""
    return "@" in url.partition("://")[2].partition("/")[0]


def joined(dialect: Dialect, base: str, exact: bool = False) -> str:
    """A base URL in any shape, joined with the dialect's path.

    A base that ends in the path, or in its last part, is used as it is; a version segment is
    never doubled; a bare host gets the version first, unless the base is a preset's, and `exact`.
    """
    url, _, query = base.partition("?")
    url, tail = url.rstrip("/"), f"?{query}" if query else ""
    last = re.sub(r"^/v\d+[a-z0-9]*", "", dialect.path)  # /messages, /chat/completions
    if url.endswith(last):
        return url + tail
    bare = urllib.parse.urlsplit(url).path == ""
    versioned = bool(re.search(dialect.versioned, url))
    if dialect.path != last:  # the version is part of the path
        return url + (last if versioned and not exact else dialect.path) + tail
    return url + ("/v1" if bare and not exact else "") + last + tail


# What changed between two configurations, for the receipt of a reload


def changes(old: Config, new: Config) -> list[str]:
    """Lines like "provider glm: changed (models, priority)"; a secret only by its key's name."""
    lines: list[str] = []
    for title, name in (("provider", "providers"), ("key", "keys"), ("rule", "routing_rules")):
        before, after = getattr(old, name), getattr(new, name)
        lines += [f"{title} {key}: added" for key in after if key not in before]
        lines += [f"{title} {key}: removed" for key in before if key not in after]
        for key in before.keys() & after.keys():
            if before[key] != after[key]:
                lines.append(f"{title} {key}: changed{_fields(before[key], after[key])}")
    rest = {spec.name for spec in dataclasses.fields(Config)}
    rest -= {"providers", "keys", "routing_rules"}
    lines += [
        f"{name}: changed{_fields(getattr(old, name), getattr(new, name))}"
        for name in rest
        if getattr(old, name) != getattr(new, name)
    ]
    return sorted(lines)


def _fields(old: Any, new: Any) -> str:
    if not dataclasses.is_dataclass(old) or new is None:
        return ""
    names = [
        f.name for f in dataclasses.fields(old) if getattr(old, f.name) != getattr(new, f.name)
    ]
    return f" ({', '.join(names)})"


# ==== 21. Clients =============================================================
# What a coding tool must be told to talk to this relay: one row per tool, and from it the
# environment, arguments and, if nothing else will do, a private file.  Model names and limits come
# from the plan, so that a tool compacts in time for a model smaller than its own.  Variables that
# a shell may have inherited and that would lead the tool elsewhere are listed, to be unset.


@frozen(kw_only=True)
class Offer:
    """What a tool can be told of this relay."""

    base: str  # no path: http://127.0.0.1:8484
    key: str = field(repr=False)
    model: str = ""  # "": the tool's own names are served
    tiers: Mapping[str, str] = field(default_factory=dict)  # those of its names that are not
    context: int | None = None  # tokens, of the model it will mostly talk to
    output: int | None = None
    total: float = 3600.0  # seconds a request may take


class Settings(NamedTuple):
    """What a tool takes only from a file: below home, or below the folder a variable names.

    As a child of relay, a tool gets a home of its own, with this file and with links to all else
    in the user's.
    """

    variable: str
    path: str
    content: JSON


@frozen
class Setup:
    """What a tool gets."""

    env: Mapping[str, str]
    args: tuple[str, ...] = ()  # before the user's own
    file: Settings | None = None


@frozen(kw_only=True)
class Recipe:
    """One tool: how it is set up, and which variables would lead it elsewhere."""

    setup: Callable[[Offer], Setup]
    package: str = ""  # where npm has it
    clears: tuple[str, ...] = ()
    tiers: Mapping[str, str] = field(default_factory=dict)  # the models it asks for by default
    needs_model: bool = True  # it asks for no model that a plan might serve


def _known(**values: object) -> dict[str, str]:
    """Only the values that are known."""
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


# Claude Code 2.1 refuses a smaller one with a warning.
_LEAST_COMPACT_WINDOW: Final = 100_000


def _claude(offer: Offer) -> Setup:
    """Only a token: with ANTHROPIC_API_KEY as well, both would be sent, and a login ignored.

    MAX_CONTEXT_TOKENS counts for names Claude Code does not know, AUTO_COMPACT_WINDOW for all.
    """
    window = offer.context if (offer.context or 0) >= _LEAST_COMPACT_WINDOW else None
    tiers = {f"ANTHROPIC_DEFAULT_{tier}_MODEL": name for tier, name in offer.tiers.items()}
    return Setup(
        _known(
            ANTHROPIC_BASE_URL=offer.base,
            ANTHROPIC_AUTH_TOKEN=offer.key,
            ANTHROPIC_MODEL=offer.model,
            **tiers,
            CLAUDE_CODE_MAX_CONTEXT_TOKENS=offer.context,
            CLAUDE_CODE_AUTO_COMPACT_WINDOW=window,
            CLAUDE_CODE_MAX_OUTPUT_TOKENS=offer.output,
            API_TIMEOUT_MS=round(offer.total * 1000),
        )
    )


def _codex(offer: Offer) -> Setup:
    """OPENAI_BASE_URL is ignored; with a provider of its own Codex uses plain HTTP and needs no
    login.  Offline, its analytics would delay the end of `codex exec`."""
    url, key = json.dumps(f"{offer.base}/v1"), '"RELAY_KEY"'  # JSON's strings are TOML's
    said = {
        "model_provider": '"relay"',
        "model_providers.relay": f'{{name="relay",base_url={url},env_key={key}}}',
        "model": json.dumps(offer.model),
        "model_context_window": offer.context,
        "analytics.enabled": "false",
    }
    pairs = [f"{name}={value}" for name, value in said.items() if value is not None]
    return Setup({"RELAY_KEY": offer.key}, tuple(arg for pair in pairs for arg in ("-c", pair)))


def _gemini(offer: Offer) -> Setup:
    """A base URL in the environment makes Gemini CLI choose "gateway", which it then refuses;
    only its settings can choose otherwise, and the system's count only if root owns them."""
    return Setup(
        _known(
            GOOGLE_GEMINI_BASE_URL=offer.base, GEMINI_API_KEY=offer.key, GEMINI_MODEL=offer.model
        ),
        file=Settings(
            "GEMINI_CLI_HOME",
            ".gemini/settings.json",
            {"security": {"auth": {"selectedType": "gemini-api-key"}}},
        ),
    )


def _qwen(offer: Offer) -> Setup:
    return Setup(
        _known(
            OPENAI_BASE_URL=f"{offer.base}/v1",
            OPENAI_API_KEY=offer.key,
            OPENAI_MODEL=offer.model,
            QWEN_CODE_MAX_OUTPUT_TOKENS=offer.output,
        ),
        ("--auth-type", "openai"),
    )


def _opencode(offer: Offer) -> Setup:
    """Its configuration fits into a variable.  Limits count only as a pair; titles are made by
    a small model that opencode chooses unless one is named."""
    limits = {"context": offer.context, "output": offer.output or 32_000}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "relay",
        "options": {"baseURL": f"{offer.base}/v1", "apiKey": offer.key},
        "models": {offer.model: {"limit": limits} if offer.context else {}},
    }
    model = f"relay/{offer.model}"
    content = {"model": model, "small_model": model, "provider": {"relay": provider}}
    return Setup({"OPENCODE_CONFIG_CONTENT": json.dumps(content)})


def _anything(offer: Offer) -> Setup:
    """The variables that SDKs read, and relay's own for scripts."""
    return Setup(
        _known(
            RELAY_URL=offer.base,
            RELAY_KEY=offer.key,
            RELAY_MODEL=offer.model,
            ANTHROPIC_BASE_URL=offer.base,
            ANTHROPIC_API_KEY=offer.key,
            OPENAI_BASE_URL=f"{offer.base}/v1",
            OPENAI_API_BASE=f"{offer.base}/v1",
            OPENAI_API_KEY=offer.key,
            GOOGLE_GEMINI_BASE_URL=offer.base,
            GEMINI_API_KEY=offer.key,
        )
    )


_ANTHROPIC_VARIABLES: Final = (
    "ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL ANTHROPIC_CUSTOM_HEADERS"
    " CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CODE_USE_BEDROCK CLAUDE_CODE_USE_VERTEX"
    " CLAUDE_CODE_USE_FOUNDRY CLAUDE_CODE_USE_MANTLE CLAUDE_CODE_USE_ANTHROPIC_AWS"
    " AWS_BEARER_TOKEN_BEDROCK"
).split()
_OPENAI_VARIABLES: Final = (
    "OPENAI_API_KEY OPENAI_BASE_URL OPENAI_API_BASE OPENAI_ORG_ID OPENAI_PROJECT_ID CODEX_API_KEY"
    " AZURE_OPENAI_API_KEY"
).split()
_GOOGLE_VARIABLES: Final = (
    "GEMINI_API_KEY GOOGLE_API_KEY GOOGLE_GEMINI_BASE_URL GOOGLE_VERTEX_BASE_URL"
    " GOOGLE_GENAI_USE_VERTEXAI GOOGLE_GENAI_USE_GCA GEMINI_API_KEY_AUTH_MECHANISM"
    " GEMINI_CLI_CUSTOM_HEADERS"
).split()

CLIENTS: Final[dict[str, Recipe]] = {
    "claude": Recipe(
        setup=_claude,
        package="@anthropic-ai/claude-code",
        clears=tuple(_ANTHROPIC_VARIABLES),
        tiers={
            "OPUS": "claude-opus-5-5",
            "SONNET": "claude-sonnet-5-5",
            "HAIKU": "claude-haiku-5-5",
            "FABLE": "claude-fable-5-2",
        },
        needs_model=False,
    ),
    "codex": Recipe(setup=_codex, package="@openai/codex"),
    "gemini": Recipe(
        setup=_gemini,
        package="@google/gemini-cli",
        clears=tuple(_GOOGLE_VARIABLES),
        tiers={"flash": "gemini-3.8-flash", "lite": "gemini-3.5-flash-lite"},
        needs_model=False,
    ),
    "qwen": Recipe(setup=_qwen, package="@qwen-code/qwen-code"),
    "opencode": Recipe(setup=_opencode, package="opencode-ai"),
}
_ANY_CLIENT: Final = Recipe(
    setup=_anything,
    clears=(*_ANTHROPIC_VARIABLES, *_OPENAI_VARIABLES, *_GOOGLE_VARIABLES),
    needs_model=False,
)


def recipe_of(command: str) -> Recipe:
    """A tool's recipe by its command, with or without a path; a general one for others."""
    return CLIENTS.get(command.rpartition("/")[2], _ANY_CLIENT)


def offer(plan: Plan, recipe: Recipe, base: str, key: str, said: str = "") -> Offer:
    """What a plan has for a tool; `said` is the model that the user wants.

    A tool that asks for names that the plan serves is left alone.  Otherwise it gets the user's
    model, or the first that the plan names.
    """
    if said and plan.route(said) is None:
        near = plan.nearest(said)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise ConfigError([f"--model {said}: no provider serves it{hint}"])
    model = said
    unserved = {tier: name for tier, name in recipe.tiers.items() if not _mapped(plan, name)}
    if not model and (recipe.needs_model or any(not plan.route(n) for n in unserved.values())):
        model = _first_model(plan)
    context, output = _limits(plan, model or next(iter(recipe.tiers.values()), ""))
    return Offer(
        base=base,
        key=key,
        model=model,
        tiers=dict.fromkeys(unserved, model) if model else {},
        context=context,
        output=output,
        total=plan.config.timeouts.total,
    )


def _mapped(plan: Plan, name: str) -> bool:
    """Does the configuration say where this name goes?  A provider of every name does not."""
    route = plan.route(name)
    targets = route.targets() if route else []
    return any(not t.provider.accepts_all or t.model != name for t in targets)


def _first_model(plan: Plan) -> str:
    """The default, else what is listed first; the demo answers to anything."""
    default = plan.config.default or ""
    names = [default] if "/" in default else list(plan.listed)
    demo = [
        f"{p.name}/demo"
        for p in plan.providers.values()
        if any(endpoint.demo for billing in p.plans for endpoint in billing.endpoints.values())
    ]
    if not (names or demo):
        globs = [glob for p in plan.providers.values() for glob in p.claims or ("any name",)]
        raise ConfigError([f"which model? say --model NAME; served: {', '.join(globs)}"])
    return (names or demo)[0]


def _limits(plan: Plan, name: str) -> tuple[int | None, int | None]:
    """What a model can read and write, as `models` says; the least, if there are several."""
    route = plan.route(name) if name else None
    found = [
        model
        for target in (route.groups[0] if route else ())
        for known, model in (target.provider.config.models or {}).items()
        if (model.name or known) == target.model
    ]
    contexts = [model.context for model in found if model.context]
    outputs = [model.output for model in found if model.output]
    return min(contexts, default=None), min(outputs, default=None)


def client_key(plan: Plan, name: str | None, held: str, now: float) -> str:
    """The key a tool shall send: that of a name in `keys`, else the one `held` in RELAY_KEY.
    Without `keys` any will do."""
    keys = plan.config.keys
    if name and name not in keys:
        raise ConfigError([f"--key {name}: there is no such key{meant(name, keys)}"])
    if not keys:
        return held or "relay"
    wanted = [name] if name else list(keys)
    plain = [keys[each].key for each in wanted if not keys[each].key.startswith("sha256:")]
    if held and (caller := plan.caller([held], now)) and (not name or caller.name == name):
        return held
    if held and not (name and plain):
        raise ConfigError([f"RELAY_KEY does not hold {f'the key of {name}' if name else 'a key'}"])
    if len(wanted) > 1:
        raise ConfigError([f"whose key? say --key NAME ({', '.join(keys)}), or set RELAY_KEY"])
    if not plain:
        raise ConfigError(
            [f"the key of {wanted[0]} is kept as a hash, so relay cannot tell it: set RELAY_KEY"]
        )
    return plain[0]


def base_of(listen: Iterable[str], scheme: str = "http") -> str:
    """Where a tool on this machine finds relay: on loopback, if it listens everywhere; "" if it
    listens only on sockets of the file system."""
    for address in listen:
        if not address.startswith("unix:"):
            host, port = host_and_port(address)
            with contextlib.suppress(ValueError):  # a name
                if not host or ipaddress.ip_address(host).is_unspecified:
                    host = "::1" if ":" in host else "127.0.0.1"
            return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    return ""


def cleaned_environment(env: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """A child's environment: without what leads the tool elsewhere, and without providers' keys,
    whether by their usual names or by their values."""
    secrets = {c.secret for p in plan.providers.values() for b in p.plans for c in b.credentials}
    gone = {*_ANY_CLIENT.clears, *(preset.key for preset in PRESETS.values())}
    return {
        name: value
        for name, value in env.items()
        if name not in gone and (not value or value not in secrets)
    }


def unproxied(env: Mapping[str, str], base: str) -> dict[str, str]:
    """Variables that keep a tool from going through a proxy to a relay on the same machine."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in env):
        return {}
    host = urllib.parse.urlsplit(base).hostname or ""
    said = env.get("NO_PROXY") or env.get("no_proxy") or ""
    hosts = ",".join(filter(None, (said, host)))
    return {"NO_PROXY": hosts, "no_proxy": hosts}


# A setup as text, for shells and for mise.  Nothing is written: if a tool needs a file, the text
# says what must be in it.


def _cleared(setup: Setup, recipe: Recipe) -> list[str]:
    return [name for name in recipe.clears if name not in setup.env]


def _file_needed(setup: Setup, where: str) -> Iterator[str]:
    if setup.file:
        yield f"# and in {where}{setup.file.path}: {json.dumps(setup.file.content)}"


def _sh(setup: Setup, recipe: Recipe, command: str) -> Iterator[str]:
    if cleared := _cleared(setup, recipe):
        yield f"unset {' '.join(cleared)}"
    yield from (f"export {name}={shlex.quote(value)}" for name, value in setup.env.items())
    yield from _file_needed(setup, "~/")
    if setup.args:
        yield f'{command}() {{ command {command} {shlex.join(setup.args)} "$@"; }}'


def _fish(setup: Setup, recipe: Recipe, command: str) -> Iterator[str]:
    if cleared := _cleared(setup, recipe):
        yield f"set -e {' '.join(cleared)}"
    yield from (f"set -gx {name} {_fish_quoted(value)}" for name, value in setup.env.items())
    yield from _file_needed(setup, "~/")
    if setup.args:
        args = " ".join(map(_fish_quoted, setup.args))
        yield f"function {command}; command {command} {args} $argv; end"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _powershell(setup: Setup, recipe: Recipe, command: str) -> Iterator[str]:
    if cleared := _cleared(setup, recipe):
        yield f"Remove-Item {', '.join(f'Env:{name}' for name in cleared)} -ErrorAction Ignore"
    yield from (f"$env:{name} = {_powershell_quoted(v)}" for name, v in setup.env.items())
    yield from _file_needed(setup, "~/")
    if setup.args:
        args = " ".join(map(_powershell_quoted, setup.args))
        found = f"(Get-Command -CommandType Application {command})[0]"
        yield f"function {command} {{ & {found} {args} @args }}"


def _powershell_quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _json_setup(setup: Setup, recipe: Recipe, command: str) -> Iterator[str]:
    file = setup.file and {"path": f"~/{setup.file.path}", "content": setup.file.content}
    said = {"env": setup.env, "unset": _cleared(setup, recipe), "args": setup.args, "file": file}
    yield json.dumps(said, indent=2)


def _mise(setup: Setup, recipe: Recipe, command: str) -> Iterator[str]:
    """A project's file is shared, so a key comes from the environment; false unsets."""
    yield "[env]"
    yield from (f"{name} = false" for name in _cleared(setup, recipe))
    for name, value in setup.env.items():
        if value != f"{{{{ env.{name} }}}}":  # a variable set from itself is there already
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"
    yield from _file_needed(setup, "the project's ")
    if setup.args:
        yield f"# {command} takes the rest as arguments: {shlex.join(setup.args)}"


FORMATS: Final[dict[str, Callable[[Setup, Recipe, str], Iterator[str]]]] = {
    "sh": _sh,
    "fish": _fish,
    "powershell": _powershell,
    "json": _json_setup,
    "mise": _mise,
}


# ==== 22. Import ==============================================================
# Another relay's file as a configuration of this one.  Never silently lossy: the old file is
# emptied value by value, and whatever is left in it at the end is named in a comment.  Keys in
# plain text become variables, unless the user wants them carried over.
#
#     old file -> leaves -+- taken by its reader -> configuration
#                         `- left                -> "# not carried over: PATH = VALUE"

Path_: TypeAlias = tuple[str | int, ...]
_SECRET_NAME: Final = re.compile(r"(?i)key|token|secret|password|credential|auth|cookie|database")
_REFERENCE: Final = re.compile(r"os\.environ/(\w+)|\$\{?([A-Za-z_]\w*)\}?")


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every scalar and every empty container, with its path."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*path, str(name)))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    else:
        yield path, value


def path_text(path: Path_) -> str:
    """model_list[0].litellm_params.model; names other than plain words in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part, re.ASCII):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


class Old:
    """A file being emptied."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._left = dict(leaves(root))
        self.notes: list[str] = []  # on what was carried over in another form

    def look(self, *path: str | int) -> Any:
        """The value at a path, left there; None if there is none."""
        value = self.root
        for part in path:
            if isinstance(value, dict) and isinstance(part, str):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def take(self, *path: str | int) -> Any:
        """The value at a path, which with all below it now counts as carried over."""
        value = self.look(*path)
        for known in [known for known in self._left if known[: len(path)] == path]:
            del self._left[known]
        return value

    def text(self, *path: str | int) -> str:
        """A scalar's text, carried over; "" and left there if it is not a scalar."""
        value = self.look(*path)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return ""
        return str(self.take(*path)).strip()

    def number(self, *path: str | int) -> float | None:
        """A positive number, carried over; None and left there if it is anything else."""
        value = self.look(*path)
        with contextlib.suppress(TypeError, ValueError):
            number = float(value)
            if not isinstance(value, bool) and 0 < number < math.inf:
                self.take(*path)
                return int(number) if number == int(number) else number
        return None

    def whole(self, *path: str | int) -> int | None:
        """A positive whole number, carried over; None and left there if it is anything else."""
        value = self.look(*path)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            return None
        self.take(*path)
        return value

    def flag(self, *path: str | int) -> bool | None:
        said = {True: True, False: False, "true": True, "false": False}
        value = self.look(*path)
        if not isinstance(value, bool | str) or value not in said:
            return None
        self.take(*path)
        return said[value]

    def rows(self, *path: str | int) -> list[Path_]:
        """The paths of a list's mappings."""
        value = self.look(*path)
        items = value if isinstance(value, list) else []
        return [(*path, i) for i, item in enumerate(items) if isinstance(item, dict)]

    def left(self) -> Iterator[str]:
        """What was not carried over, a line each; without the values of secrets."""
        for path, value in self._left.items():
            shown = json.dumps(value, default=str)
            hidden = any(isinstance(part, str) and _SECRET_NAME.search(part) for part in path)
            if (hidden and value not in ("", None)) or re.search(r"://[^/\s]*@", shown):
                shown = "..."
            shown = shown if len(shown) < 80 else f"{shown[:76]} ..."
            yield f"{path_text(path) or 'the file'} = {shown}"


class Draft:
    """A configuration being written."""

    def __init__(self, old: Old, with_secrets: bool) -> None:
        self.old = old
        self.providers: dict[str, JSON] = {}
        self.rules: JSON = {}
        self.top: JSON = {}
        self.keys: JSON = {}
        self.variables: dict[str, tuple[str, str]] = {}  # to set -> the secret, and its path
        self._with_secrets = with_secrets

    def secret(self, variable: str, *path: str | int) -> str:
        """A secret as a reference: the one that was there, or one to a variable of this name."""
        said = self.old.text(*path)
        if not said:
            return ""
        if reference := _REFERENCE.fullmatch(said):
            return f"${{{reference[1] or reference[2]}}}"
        if self._with_secrets and re.fullmatch(r"[!-~ ]+", said):
            return said.replace("$", "$$")
        plain = re.sub(r"\W+", "_", variable.upper(), flags=re.ASCII).strip("_")
        plain = f"K_{plain}" if plain[0].isdigit() else plain
        names = itertools.chain((plain,), (f"{plain}_{number}" for number in itertools.count(2)))
        name = next(n for n in names if self.variables.get(n, (said,))[0] == said)
        self.variables.setdefault(name, (said, path_text(path)))
        return f"${{{name}}}"

    def provider(self, name: str, settings: JSON, models: JSON) -> str:
        """Add models to the provider with these settings, or make it; its name."""
        for known, provider in self.providers.items():
            listed = provider.get("models") or {}
            same = {k: v for k, v in provider.items() if k != "models"} == settings
            if same and bool(listed) == bool(models) and not (listed.keys() & models.keys()):
                provider.get("models", {}).update(models)
                return known
        slug = re.sub(r"[^\w.-]+", "-", name.lower(), flags=re.ASCII).strip("-.") or "provider"
        unique = slug
        for number in itertools.count(2):
            if unique not in self.providers:
                break
            unique = f"{slug}-{number}"
        self.providers[unique] = settings | ({"models": dict(models)} if models else {})
        return unique

    def targets(self, name: str) -> list[str]:
        """Every provider that lists a name, as targets."""
        return [
            f"{p}/{name}" for p, said in self.providers.items() if name in said.get("models", {})
        ]

    def yaml(self, title: str) -> str:
        said = dict(self.top)
        if self.keys:
            said["keys"] = self.keys
        said["providers"] = self.providers
        if self.rules:
            said["routing_rules"] = self.rules
        if default := said.pop("default", None):
            said["default"] = default
        head = [f"# Made by `relay import` from {title}. `relay check` says whether all is well."]
        head += [f"# Set {n} to what stands at {at}." for n, (_, at) in self.variables.items()]
        head += [f"# {note}" for note in self.old.notes]
        left = [f"#   {line}" for line in self.old.left()]
        head += ["# Not carried over:", *left] if left else []
        body = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100)
        return "\n".join(head) + "\n\n" + body


def _endpoint_settings(url: str, dialect: str) -> JSON:
    """A preset if the URL is one of its bases, with the plan if it is not the usual one."""
    wanted = _plain_base(url)
    for name, preset in PRESETS.items():
        for plan, bases in preset.plans.items():
            if any(_plain_base(base) == wanted for base in bases.values()):
                usual = (preset.subscription or tuple(preset.plans))[0]
                return {"preset": name} | ({} if plan == usual else {"billing_plans": [plan]})
    return {"api_format": dialect, "endpoint": url}


def _plain_base(url: str) -> str:
    """Without what different relays put after it."""
    url = url.lower().replace("://localhost", "://127.0.0.1").split("?")[0].rstrip("/")
    for ending in ("/chat/completions", "/messages", "/responses", "/models", "/v1", "/v1beta"):
        url = url.removesuffix(ending)
    return url


def _is_base(url: str) -> bool:
    return re.fullmatch(r"https?://[\w.\[\]:-]+(/[^\s?#]*)?", url, re.ASCII) is not None


def _listen(draft: Draft, host_key: str, port_key: str, otherwise: int) -> None:
    """Loopback unless there are keys: relay would refuse to listen on more.  What is not a host
    or a port is left."""
    old = draft.old
    host, port = old.look(host_key), old.look(port_key)
    good_host = isinstance(host, str) and re.fullmatch(r"[\w.-]+", host, re.ASCII)
    good_port = isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536
    if good_host:
        old.take(host_key)
        if host not in ("127.0.0.1", "localhost") and not draft.keys:
            old.notes.append(
                f"host was {json.dumps(host)}: without `keys` only this machine is served."
            )
            host = "127.0.0.1"
    if good_port:
        old.take(port_key)
    if good_host or good_port:
        shown = port if good_port else otherwise
        draft.top["listen"] = f"{host if good_host else '127.0.0.1'}:{shown}"


def _proxied(draft: Draft, name: str) -> None:
    """One proxy for all there; here one per provider, except for those on this machine."""
    url = draft.old.look(name)
    if not (isinstance(url, str) and _is_base(url)):
        return
    for provider in draft.providers.values():
        preset = PRESETS.get(provider.get("preset", ""))
        if not (preset and preset.local):
            provider["proxy"] = url
            draft.old.take(name)


# LiteLLM: model_list, where `model` begins with a maker's name.  A maker that is not in this table
# needs an api_base.

_LITELLM_MAKERS: Final[dict[str, JSON]] = {
    name: {"preset": preset} | ({"billing_plans": [plan]} if plan else {})
    for name, preset, plan in (
        ("openai", "openai", ""), ("anthropic", "anthropic", ""), ("gemini", "gemini", ""),
        ("deepseek", "deepseek", ""), ("openrouter", "openrouter", ""), ("groq", "groq", ""),
        ("mistral", "mistral", ""), ("xai", "xai", ""), ("moonshot", "moonshot-ai", ""),
        ("dashscope", "dashscope-intl", "regular"), ("zai", "zai", "regular"),
        ("minimax", "minimax", "regular"), ("novita", "novita", ""),
        ("fireworks_ai", "fireworks", ""), ("nvidia_nim", "nvidia", ""),
        ("volcengine", "ark", "regular"), ("ollama", "ollama", ""), ("ollama_chat", "ollama", ""),
        ("azure", "azure", ""), ("azure_ai", "azure", ""), ("lm_studio", "lmstudio", ""),
        ("hosted_vllm", "vllm", ""),
    )
}  # fmt: skip
_LITELLM_DEFAULTS: Final = ("temperature", "top_p", "max_tokens", "presence_penalty", "seed")


def _litellm(old: Old, draft: Draft) -> None:
    for row in old.rows("model_list"):
        _litellm_deployment(old, draft, row)
    if key := draft.secret("RELAY_KEY_MASTER", "general_settings", "master_key"):
        draft.keys["master"] = {"key": key}
    for place in (("router_settings",), ("litellm_settings",)):
        _litellm_fallbacks(old, draft, (*place, "fallbacks"))
    aliases = old.look("router_settings", "model_group_alias")
    for alias, group in (aliases if isinstance(aliases, dict) else {}).items():
        if isinstance(group, str) and (targets := draft.targets(group)):
            old.take("router_settings", "model_group_alias", alias)
            draft.rules.setdefault(str(alias), targets)
    for path in (("litellm_settings", "request_timeout"), ("router_settings", "timeout")):
        if seconds := old.number(*path):
            draft.top["timeouts"] = {"total": seconds}


def _litellm_deployment(old: Old, draft: Draft, row: Path_) -> None:
    """One entry; entries that differ only in their model become one provider."""
    params = (*row, "litellm_params")
    said, name = old.look(*params, "model"), old.look(*row, "model_name")
    if not (isinstance(said, str) and isinstance(name, str) and said and name):
        return
    maker, _, model = said.partition("/")
    if not model or maker not in _LITELLM_MAKERS:
        maker, model = "openai", said
    base_name = "api_base" if old.look(*params, "api_base") else "base_url"
    url = str(old.look(*params, base_name) or "")
    unknown = "/" in said and said.partition("/")[0] not in _LITELLM_MAKERS
    homeless = not any(PRESETS[_LITELLM_MAKERS[maker]["preset"]].plans.values())
    if not url and (unknown or homeless):
        return  # its address is not known: all of it is named as left
    if (url and not _is_base(url)) or (is_glob(model) and model != "*"):
        return
    old.take(*params, "model"), old.take(*row, "model_name"), old.take(*params, base_name)
    settings = _litellm_endpoint(maker, url)
    settings |= _litellm_settings(old, draft, params, settings, maker)
    if name == f"{maker}/*" or model == "*" != name:
        old.notes.append(f"{path_text(row)}: {json.dumps(name)} is said as {maker}/MODEL.")
        draft.provider(maker, settings, {})
        return
    limits = {
        "name": None if model == "*" else model,
        "context": old.whole(*row, "model_info", "max_input_tokens"),
        "output": old.whole(*row, "model_info", "max_output_tokens"),
    }
    known = {k: v for k, v in limits.items() if v is not None}
    provider = draft.provider(maker, settings, {name: model if set(known) == {"name"} else known})
    _litellm_prices(old, draft.providers[provider], row, model)


def _litellm_prices(old: Old, provider: JSON, row: Path_, model: str) -> None:
    """Per token there, per million here."""
    prices = {}
    for ours, theirs in (
        ("input", "input_cost_per_token"),
        ("output", "output_cost_per_token"),
        ("cache_read", "cache_read_input_token_cost"),
        ("cache_write", "cache_creation_input_token_cost"),
    ):
        place = next((p for p in ("model_info", "litellm_params") if old.look(*row, p, theirs)), "")
        if place and (price := old.number(*row, place, theirs)):
            prices[ours] = round(price * 1e6, 6)
    if prices:
        provider.setdefault("prices", {})[model] = prices


def _litellm_endpoint(maker: str, url: str) -> JSON:
    if maker in ("azure", "azure_ai") and url:
        return {"preset": "azure", "endpoint": url}
    if url and maker in ("openai", "anthropic"):
        return _endpoint_settings(url, maker)
    settings = dict(_LITELLM_MAKERS[maker])
    return {"preset": settings["preset"], "endpoint": url} if url else settings


def _litellm_settings(old: Old, draft: Draft, params: Path_, settings: JSON, maker: str) -> JSON:
    """What else an entry says about its provider."""
    more: JSON = {}
    preset = PRESETS.get(settings.get("preset", ""))
    variable = (preset.key if preset else "") or f"{maker}_API_KEY"
    if key := draft.secret(variable, *params, "api_key"):
        more["api_key"] = key
    elif preset and preset.key and not preset.local:
        more["api_key"] = f"${{{preset.key}}}"  # LiteLLM looks there by itself
    if (weight := old.number(*params, "weight")) is not None:
        more["weight"] = weight
    if (order := old.number(*params, "order")) is not None:
        more["priority"] = -order  # there the lowest is preferred
    waits = {"total": "timeout", "first_event": "stream_timeout"}
    timeouts = {ours: old.number(*params, theirs) for ours, theirs in waits.items()}
    if known := {name: value for name, value in timeouts.items() if value is not None}:
        more["timeouts"] = known
    fields = {name: old.number(*params, name) for name in _LITELLM_DEFAULTS}
    if defaults := {name: value for name, value in fields.items() if value is not None}:
        more["override"] = {"default": defaults}
    return more


def _litellm_fallbacks(old: Old, draft: Draft, path: Path_) -> None:
    """[{"a": ["b", "c"]}]: after all that serves a, what serves b, then c."""
    for row in old.rows(*path):
        for name, others in list(old.look(*row).items()):
            groups = [name, *others] if isinstance(others, list) else []
            listed = [draft.targets(group) for group in groups if isinstance(group, str)]
            if groups and len(listed) == len(groups) and all(listed):
                old.take(*row, name)
                draft.rules[name] = [target for targets in listed for target in targets]


# claude-code-router 2: Providers, and a Router that names "provider,model" by kind of request.

_CCR_LEVELS: Final = {
    "fatal": "error",
    "error": "error",
    "warn": "warning",
    "info": "info",
    "debug": "debug",
    "trace": "debug",
}


def _ccr(old: Old, draft: Draft) -> None:
    names = dict(filter(None, (_ccr_provider(old, draft, row) for row in old.rows("Providers"))))
    if key := draft.secret("RELAY_KEY_CCR", "APIKEY"):
        draft.keys["ccr"] = {"key": key}
    _ccr_router(old, draft, names)
    if (milliseconds := old.number("API_TIMEOUT_MS")) is not None:
        draft.top["timeouts"] = {"total": milliseconds / 1000}
    level = old.look("LOG_LEVEL")
    if isinstance(level, str) and level in _CCR_LEVELS:
        draft.top["log"] = {"level": _CCR_LEVELS[old.text("LOG_LEVEL")]}
    _proxied(draft, "PROXY_URL")
    _listen(draft, "HOST", "PORT", 3456)


def _ccr_provider(old: Old, draft: Draft, row: Path_) -> tuple[str, str] | None:
    name, url, models = (old.look(*row, each) for each in ("name", "api_base_url", "models"))
    if not (isinstance(name, str) and name and isinstance(url, str) and _is_base(url)):
        return None
    old.take(*row, "name"), old.take(*row, "api_base_url")
    used = [use for _, use in leaves(old.look(*row, "transformer", "use"))]
    settings = _endpoint_settings(url, "anthropic" if "Anthropic" in used else "openai")
    if key := draft.secret(f"{name}_API_KEY", *row, "api_key"):
        settings["api_key"] = key
    elif settings.get("preset") and not PRESETS[settings["preset"]].local:
        settings["api_key"] = f"${{{PRESETS[settings['preset']].key}}}"
    good = {
        i: model
        for i, model in enumerate(models if isinstance(models, list) else [])
        if isinstance(model, str) and model and not is_glob(model)
    }
    limit = _ccr_limit(old, (*row, "transformer", "use")) if good else None
    listed: JSON = {}
    for i, model in good.items():
        output = _ccr_limit(old, (*row, "transformer", model, "use")) or limit
        listed[model] = {"output": output} if output else model
        old.take(*row, "models", i)
    return name.lower(), draft.provider(name, settings, listed)


def _ccr_limit(old: Old, path: Path_) -> int | None:
    """The limit of the transformer `maxtoken`: ["maxtoken", {"max_tokens": N}]."""
    uses = old.look(*path)
    for i, use in enumerate(uses if isinstance(uses, list) else ()):
        named = isinstance(use, list) and use[:1] == ["maxtoken"]
        if named and (number := old.whole(*path, i, 1, "max_tokens")):
            old.take(*path, i, 0)
            return number
    return None


def _ccr_router(old: Old, draft: Draft, names: Mapping[str, str]) -> None:
    """Its kinds of request as rules for the names Claude Code asks for."""

    def target(kind: str) -> str:
        said = old.look("Router", kind)
        head, _, model = said.partition(",") if isinstance(said, str) else ("", "", "")
        provider = names.get(head.strip().lower())
        return f"{provider}/{model.strip()}" if provider and model.strip() else ""

    if background := target("background"):
        old.take("Router", "background")
        draft.rules["claude-*haiku*"] = background
    entries: list[JSON] = []
    threshold = old.look("Router", "longContextThreshold")
    tokens = int(threshold) if isinstance(threshold, int) and threshold > 0 else 60_000
    kinds = (
        ("image", {"images": True}),
        ("longContext", {"tokens_over": tokens}),
        ("think", {"thinking": True}),
    )
    for kind, when in kinds:
        if to := target(kind):
            old.take("Router", kind)
            entries.append({"when": when, "to": to})
            if kind == "longContext" and threshold == tokens:
                old.take("Router", "longContextThreshold")
    if default := target("default"):
        old.take("Router", "default")
        draft.rules["claude-*"] = [*entries, {"to": default}] if entries else default
        draft.top["default"] = default
    elif entries:
        draft.rules["claude-*"] = entries


# OpenAICompatible: arrays of accounts.  It uses the CodeGeeX plugin, chat.qwen.ai and Gemini CLI's
# login, which relay does not: the makers' own APIs take their place, under the same prefix.

_STAND_INS: Final = {
    "codegeex": "bigmodel",
    "qwen": "dashscope",
    "qwen_code": "dashscope",
    "gemini_cli": "gemini",
}


def _openai_compatible(old: Old, draft: Draft) -> None:
    for kind, preset in _STAND_INS.items():
        for row in old.rows(kind):
            key = f"${{{PRESETS[preset].key}}}"
            settings: JSON = {"preset": preset, "api_key": key}
            if prefix := old.text(*row, "prefix"):
                settings["prefix"] = prefix
            draft.provider(prefix or kind, settings, {})
            draft.old.notes.append(
                f"{path_text(row)}: its token is of no use here; a key of {preset} in "
                f"{PRESETS[preset].key} stands in for it."
            )
    _proxied(draft, "proxy")
    _listen(draft, "host", "port", 8080)


# claude-relay-service: a list of self-hosted models, or accounts as its API returns them.


def _crs_models(old: Old, draft: Draft) -> None:
    for row in old.rows("models"):
        url, model = old.look(*row, "endpoint"), old.look(*row, "deployment")
        if not (isinstance(url, str) and _is_base(url)) or not isinstance(model, str) or not model:
            continue
        if is_glob(model):
            continue
        old.take(*row, "endpoint"), old.take(*row, "deployment")
        said = [old.text(*row, "mapping"), old.text(*row, "name"), model]
        models = {name: model for name in said if name}
        draft.provider(said[1] or model, _endpoint_settings(url, "openai"), models)


def _crs_accounts(old: Old, draft: Draft) -> None:
    root = old.root
    inside = next((k for k in ("data", "accounts") if isinstance(old.look(k), list)), None)
    rows = old.rows(inside) if inside else old.rows() if isinstance(root, list) else [()]
    for row in rows:
        _crs_account(old, draft, row)


def _crs_account(old: Old, draft: Draft, row: Path_) -> None:
    """An account speaks Anthropic at apiUrl, or OpenAI at an azureEndpoint of one's own."""
    field_, dialect = (
        ("azureEndpoint", "openai") if old.look(*row, "azureEndpoint") else ("apiUrl", "anthropic")
    )
    url = old.look(*row, field_)
    if not (isinstance(url, str) and _is_base(url)):
        return
    old.take(*row, field_)
    name = old.text(*row, "name") or "account"
    settings = _endpoint_settings(url, dialect)
    if key := draft.secret(f"{name}_API_KEY", *row, "apiKey"):
        settings["api_key"] = key
    elif "preset" in settings and not PRESETS[settings["preset"]].local:
        settings["api_key"] = f"${{{PRESETS[settings['preset']].key}}}"
    if (priority := old.number(*row, "priority")) is not None:
        settings["priority"] = 100 - priority  # there the lowest is preferred
    if (active := old.flag(*row, "isActive")) is False:
        settings["active"] = active
    if agent := old.text(*row, "userAgent"):
        settings["headers"] = {"User-Agent": agent.replace("$", "$$")}
    draft.provider(name, settings, _crs_supported(old, row))


def _crs_supported(old: Old, row: Path_) -> JSON:
    """A list of names, or a mapping to other names; its store keeps it as JSON text."""
    said = old.look(*row, "supportedModels")
    deployment = old.look(*row, "deploymentName")
    deployment = deployment if isinstance(deployment, str) and not is_glob(deployment) else ""
    if isinstance(said, str):
        with contextlib.suppress(ValueError):
            said = json.loads(said)
    pairs = {name: name for name in said} if _all_text(said) else said
    good = isinstance(pairs, dict) and all(map(_all_text, ([*pairs], [*pairs.values()])))
    if not good or any(is_glob(name) for name in pairs.values()):
        return {}
    old.take(*row, "supportedModels")
    if deployment:
        old.take(*row, "deploymentName")
        return dict.fromkeys((*pairs, deployment), deployment)
    return dict(pairs)


def _all_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


class Predecessor(NamedTuple):
    title: str
    marks: frozenset[str]  # a file with one of these keys at its top is of this kind
    read: Callable[[Old, Draft], None]


PREDECESSORS: Final = (
    Predecessor(
        "a LiteLLM configuration",
        frozenset(("model_list", "litellm_settings", "router_settings")),
        _litellm,
    ),
    Predecessor("a claude-code-router configuration", frozenset(("Providers", "Router")), _ccr),
    Predecessor("an OpenAICompatible configuration", frozenset(_STAND_INS), _openai_compatible),
    Predecessor("claude-relay-service's models", frozenset(("models",)), _crs_models),
    Predecessor(
        "a claude-relay-service account",
        frozenset(("apiUrl", "supportedModels", "azureEndpoint", "data", "accounts")),
        _crs_accounts,
    ),
)


def imported(text: str, with_secrets: bool = False) -> str:
    """Another relay's file as YAML for this one, with comments on what was not carried over."""
    try:
        root = _parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"neither YAML nor JSON: {error}"]) from error
    first = root[0] if isinstance(root, list) and root else root
    marks = set(first) if isinstance(first, dict) else set()
    found = next((each for each in PREDECESSORS if marks & each.marks), None)
    if found is None:
        titles = "; ".join(each.title for each in PREDECESSORS)
        raise ConfigError([f"this is none of the files relay can read: {titles}"])
    draft = Draft(Old(root), with_secrets)
    found.read(draft.old, draft)
    return draft.yaml(found.title)


def _parsed(text: str) -> Any:
    """JSON, since YAML reads some of its numbers as words; else YAML."""
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return yaml.safe_load(_without_comments(text))


def _without_comments(text: str) -> str:
    """JSON with comments, as claude-code-router takes it, is YAML once they are gone."""
    if not text.lstrip().startswith(("{", "[", "//", "/*")):
        return text
    pattern = r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/'
    plain = re.sub(pattern, lambda m: m[1] or " ", text, flags=re.DOTALL)
    return plain.replace("\t", " ")  # YAML allows no tabs there


# ==== 23. Records =============================================================
# What the flight recorder keeps of an exchange: a file of JSON lines, in the order in which things
# happened, for any tool to read.  An exchange has legs, each with a head and the bytes after it:
#
#     request      what the client asked       attempt 1, 2, ...   what a provider was asked
#     response     what the client was told    answer 1, 2, ...    what it said to that
#
#     kind record     version, id, time, and all that the log's line says
#     kind head       of: which leg; at; method and path, or url, or status; headers
#     kind data       of, at; text, or base64 where the bytes are no text
#     kind end        cut: for each leg how many bytes there was no room for; a file without this
#                     line is incomplete
#
# `at` is in milliseconds since the request came.  A line of data is a block as it came, with two
# exceptions: what was compressed is plain here, and a character or a secret that was split between
# two blocks is whole in one of them.  Secrets are recognised by their values: those of the
# configuration, and those that headers and queries carry under names like `authorization`.  Each
# is replaced by [secret].

RECORD_VERSION: Final = 1
MASK: Final = "[secret]"
REQUEST: Final = "request"
RESPONSE: Final = "response"
RECORD_NAME: Final = re.compile(r"\d{8}T\d{9}Z-([0-9a-f]+)\.jsonl")
_SHORTEST: Final = 8  # characters of a secret in a header; without `keys`, callers send any word

Blocks: TypeAlias = list[tuple[float, bytes]]


@dataclass(slots=True)
class Leg:
    """One direction of one exchange: its head, and the bytes, each block with its time."""

    at: float
    head: JSON
    blocks: Blocks = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(block for _, block in self.blocks)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.head.get("headers", ())]


@dataclass(slots=True)
class Record:
    """An exchange as it is kept."""

    summary: JSON
    legs: dict[str, Leg]
    cut: dict[str, int] = field(default_factory=dict)  # bytes, by leg

    @property
    def id(self) -> str:
        return str(self.summary["id"])

    @property
    def request(self) -> Leg:
        return self.legs.get(REQUEST) or Leg(0.0, {})

    @property
    def response(self) -> Leg:
        return self.legs.get(RESPONSE) or Leg(0.0, {})

    def numbered(self, what: str) -> list[Leg]:
        """The attempts, or the answers, in the order of their numbers."""
        names = sorted(
            (n for n in self.legs if n.startswith(f"{what} ")), key=lambda n: (len(n), n)
        )
        return [self.legs[name] for name in names]


def record_name(time: float, id: str) -> str:
    """A file's name; sorted by name, files are in the order of time."""
    moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z-{id}.jsonl"


def surplus(files: Iterable[tuple[str, int]], keep: int) -> list[str]:
    """The oldest of these (name, size), as many as must go so that at most `keep` bytes stay."""
    gone, size = list[str](), 0
    for name, length in sorted(files, reverse=True):
        size += length
        if size > keep:
            gone.append(name)
    return gone


def record_lines(record: Record, masker: Masker) -> Iterator[bytes]:
    """The lines of a file, without a secret."""
    head = {"kind": "record", "version": RECORD_VERSION}
    yield _line(masker.value(head | record.summary))
    timed = [entry for name, leg in record.legs.items() for entry in _leg_lines(name, leg, masker)]
    for _, line in sorted(timed, key=operator.itemgetter(0)):  # stable: heads before their bytes
        yield line
    yield _line({"kind": "end", "cut": record.cut})


def _line(value: JSON) -> bytes:
    return dumps(value) + b"\n"


def _leg_lines(name: str, leg: Leg, masker: Masker) -> Iterator[tuple[float, bytes]]:
    at = round(leg.at, 3)
    yield at, _line({"kind": "head", "of": name, "at": at} | masker.head(leg.head))
    for moment, said in _lines_of(masker.blocks(leg.blocks)):
        at = round(moment, 3)
        yield at, _line({"kind": "data", "of": name, "at": at} | said)


def _lines_of(blocks: Blocks) -> Iterator[tuple[float, JSON]]:
    """Blocks as text, each of whole characters; all as base64 if they are not text."""
    decoder, said = codecs.getincrementaldecoder("utf-8")(), list[tuple[float, JSON]]()
    try:
        for at, block in blocks:
            if text := decoder.decode(block):
                said.append((at, {"text": text}))
    except UnicodeDecodeError:
        yield from ((at, _base64_of(block)) for at, block in blocks if block)
        return
    yield from said
    if torn := decoder.getstate()[0]:
        yield blocks[-1][0], _base64_of(torn)


def _base64_of(data: bytes) -> JSON:
    return {"base64": base64.b64encode(data).decode()}


def read_record(data: bytes) -> Record:
    """A file's record; ValueError says how it is damaged."""
    lines = data.splitlines() if data.endswith(b"\n") else []
    try:
        wires = [loads(line) for line in lines]
        summary = record_summary(wires[0])
        if wires[-1]["kind"] != "end":
            raise ValueError("it has no end")
        record = Record(summary, {}, wires[-1]["cut"])
        for wire in wires[1:-1]:
            _take(record, wire)
    except UNREADABLE as error:
        raise ValueError("it is not whole") from error
    return record


def record_summary(wire: Any) -> JSON:
    """What a file's first line says; ValueError if it is not a record of this version."""
    if not isinstance(wire, dict) or wire.get("version") != RECORD_VERSION or "id" not in wire:
        raise ValueError("it is no record of this version")
    return {name: value for name, value in wire.items() if name not in ("kind", "version")}


def _take(record: Record, wire: JSON) -> None:
    if wire["kind"] == "head":
        head = {name: value for name, value in wire.items() if name not in ("kind", "of", "at")}
        record.legs[wire["of"]] = Leg(wire["at"], head)
    elif wire["kind"] == "data":
        data = wire["text"].encode() if "text" in wire else base64.b64decode(wire["base64"])
        record.legs[wire["of"]].blocks.append((wire["at"], data))


class Masker:
    """Replaces secrets by [secret], in every form in which they are written."""

    def __init__(self, secrets: Iterable[str], legs: Iterable[Leg] = ()) -> None:
        """`secrets`: the configuration's; those in the legs' headers and queries are added."""
        carried = [value for leg in legs for value in _carried(leg)]
        forms = {form for secret in (*secrets, *carried) for form in _written(secret)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._secrets = [form.encode(errors="surrogateescape") for form in ordered]

    def bytes_of(self, data: bytes) -> bytes:
        return _between(data, 0, len(data), self._spans(data))

    def text(self, text: str) -> str:
        data = text.encode(errors="surrogateescape")
        return self.bytes_of(data).decode(errors="replace")

    def value(self, value: Any) -> Any:
        """A JSON value without secrets in its strings."""
        if isinstance(value, dict):
            return {name: self.value(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return self.text(value) if isinstance(value, str) else value

    def head(self, head: JSON) -> JSON:
        """A head without what its headers and its address carry."""
        plain = {name: value for name, value in head.items() if name != "headers"}
        plain |= {name: _unkeyed(plain[name]) for name in ("url", "path") if name in plain}
        headers = [(name, _uncarried(name, value)) for name, value in head.get("headers", ())]
        masked: JSON = self.value(plain | {"headers": headers})
        return masked

    def blocks(self, blocks: Blocks) -> Blocks:
        """The same blocks without secrets; one that ends within a secret ends after it."""
        data = b"".join(block for _, block in blocks)
        spans = self._spans(data)
        begins = [begin for begin, _ in spans]
        masked, start, size = Blocks(), 0, 0
        for at, block in blocks:
            size += len(block)
            last = bisect.bisect_left(begins, size) - 1
            end = max(size, spans[last][1]) if last >= 0 else size
            masked.append((at, _between(data, start, end, spans)))
            start = max(start, end)
        return masked

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets are, in order, including one that is cut off at the end.

        By `find`, secret by secret: one pattern for all of them would block the process while it
        searches megabytes.
        """
        places = [place for secret in self._secrets for place in _places(data, secret)]
        merged = list[tuple[int, int]]()
        for begin, end in sorted(places):
            if merged and begin < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged


def _places(data: bytes, secret: bytes) -> Iterator[tuple[int, int]]:
    start = data.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = data.find(secret, start + 1)
    for length in range(len(secret) - 1, 3, -1):
        if data.endswith(secret[:length]):
            yield len(data) - length, len(data)
            return


def _between(data: bytes, start: int, end: int, spans: Sequence[tuple[int, int]]) -> bytes:
    """The bytes from one place to another, with each span in between masked."""
    pieces = list[bytes]()
    for begin, stop in spans[bisect.bisect_left(spans, (start, 0)) :]:
        if begin >= end:
            break
        pieces += [data[start:begin], MASK.encode()]
        start = stop
    return b"".join((*pieces, data[start:end]))


def _written(secret: str) -> Iterator[str]:
    """A secret, and as JSON has it."""
    yield secret
    for text in (dumps(secret.encode(errors="replace").decode()).decode(), json.dumps(secret)):
        yield text[1:-1]


def _carried(leg: Leg) -> Iterator[str]:
    """The values that a head carries under a secret's name."""
    for name, value in leg.headers:
        if CARRYING.search(name):
            yield from _tokens(value)
    for place in (leg.head.get("url", ""), leg.head.get("path", "")):
        for item in place.partition("?")[2].split("&"):
            name, _, value = item.partition("=")
            if CARRYING.search(urllib.parse.unquote_plus(name)):
                yield from _tokens(value)
                yield from _tokens(urllib.parse.unquote_plus(value))


def _tokens(value: str) -> Iterator[str]:
    """A value, its words (Bearer KEY), and their own values (name=KEY; name=KEY)."""
    words = re.split(r"[\s;,]+", value)
    for text in (value, *words, *(word.partition("=")[2] for word in words)):
        if len(text) >= _SHORTEST:
            yield text
            yield urllib.parse.quote(text, safe="")


def _uncarried(name: str, value: str) -> str:
    """A header's value; if it carries a secret, only the scheme before it."""
    if not CARRYING.search(name) or value == "":
        return value
    scheme = re.match(r"(Bearer|Basic)\s+", value, re.IGNORECASE)
    return (scheme[0] if scheme else "") + MASK


def _unkeyed(address: str) -> str:
    """An address without user and password, and without values under a secret's name."""
    address = re.sub(r"(?<=//)[^/?#@]*@", "", address, count=1)
    place, mark, query = address.partition("?")
    items = [item.partition("=") for item in query.split("&")]
    named = ((n, eq, CARRYING.search(urllib.parse.unquote_plus(n))) for n, eq, _ in items)
    said = [
        n + eq + (MASK if secret else value)
        for (n, eq, secret), (_, _, value) in zip(named, items, strict=True)
    ]
    return place + mark + "&".join(said)


################################################################################
#                                    MEMORY                                    #
#        synchronous and told the time; nothing here awaits, so nothing can    #
#        interleave, which is why there are no locks                           #
################################################################################

# ==== 24. Stickiness ==========================================================
# Which credential served a conversation last.  Prompt caches and sealed reasoning belong to an
# account, so a conversation that wanders pays for its prompt again and loses its thoughts.
#
#     bound       by a success only, one credential for each plan of each provider: a conversation
#                 that moves away for an hour and comes back still finds the cache it left
#     released    when that very credential fails, when its key leaves the configuration, after
#                 a day without a success, or when newer conversations need the room
#
# It only chooses among equals; it never outranks an earlier target or plan.

_MOST_BOUND: Final = 10_000  # conversations
_TOLD_EVERY: Final = 3600.0  # seconds before other relays are told the same again
_BOUND_FOR: Final = 86400.0  # seconds; caches live an hour at most, sealed reasoning longer
_MOST_POOLS: Final = 4  # plans of providers for which one conversation has a credential
# What clients call a conversation in their headers: Claude Code, Codex, others, opencode.
_SESSION_HEADERS: Final = (
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "x-session-id",
    "x-session-affinity",
)
# How a request begins, in each dialect: the system prompt, and the turns.
_BEGINNINGS: Final = (
    ("system", "messages"),
    ("instructions", "input"),
    ("systemInstruction", "contents"),
    ("system_instruction", "contents"),
)


def session_of(headers: Mapping[str, str]) -> str:
    """The client's name for the conversation, from a header; "" if there is none."""
    return next(filter(None, (headers.get(name) for name in _SESSION_HEADERS)), "")


def identity_of(headers: Mapping[str, str], body: JSON) -> str:
    """A conversation's name, the same on every turn; "" if there is none.

    First what clients send for this purpose, then names in the body, then how it began.
    """
    conversation = body.get("conversation")
    inner = conversation.get("id") if isinstance(conversation, dict) else conversation
    said = (session_of(headers), _session_in(body), body.get("prompt_cache_key"), inner)
    name = next((value for value in said if isinstance(value, str) and value), "")
    return name or next(filter(None, (_begun_with(body, *keys) for keys in _BEGINNINGS)), "")


def _session_in(body: JSON) -> object:
    """Claude Code's metadata.user_id: JSON with a session_id, before that ..._session_UUID."""
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if isinstance(user, str) and user.startswith("{"):
        with contextlib.suppress(ValueError):
            return loads(user).get("session_id") or user
    return user


def _begun_with(body: JSON, system: str, turns: str) -> str:
    """A hash of all up to the first user turn, beyond which the first request has nothing."""
    said = body.get(turns)
    if isinstance(said, str) and turns == "input":
        said = [{"role": "user", "content": said}]
    first: list[Any] = []
    for turn in said if isinstance(said, list) else ():
        first.append(turn)
        if isinstance(turn, dict) and turn.get("role", "user") == "user":
            break
    told = unmarked([body.get(system), first])
    return hashlib.sha256(dumps(told)).hexdigest() if first else ""


def unmarked(value: Any) -> Any:
    """Without cache marks, which move from turn to turn; and with text always as a block, which is
    what a client turns it into to attach a mark."""
    if isinstance(value, list):
        return [unmarked(item) for item in value]
    if not isinstance(value, dict):
        return value
    bare = {key: unmarked(item) for key, item in value.items() if key != "cache_control"}
    if "role" in bare and isinstance(bare.get("content"), str):
        bare["content"] = [{"type": "text", "text": bare["content"]}]
    return bare


@dataclass(slots=True)
class _Bound:
    credentials: dict[str, str]  # provider/plan -> credential, the latest last
    until: float
    told: float = 0.0  # the `until` that other relays know


def finite(value: object) -> float:
    """A moment out of what another relay has noted; ValueError or TypeError if it is none."""
    moment = float(cast(float, value))
    if not math.isfinite(moment):
        raise ValueError(f"{moment} is no moment")
    return moment


class Stickiness:
    """Conversation -> credentials.  Bounded; the longest unused goes first."""

    def __init__(self) -> None:
        self.counts = {"hit": 0, "miss": 0, "repin": 0}
        self._bound: dict[str, _Bound] = {}
        self._untold: dict[str, None] = {}  # bound since `collect`, or again after an hour

    def bound(self, identity: str, now: float) -> list[str]:
        """The credentials that served a conversation, the latest first."""
        entry = self._bound.get(identity)
        return [*entry.credentials.values()][::-1] if entry and entry.until > now else []

    def bind(self, identity: str, credential: str, now: float) -> str:
        """After a success.  `hit`: this one served it before; `repin`: others did; `miss`: none."""
        entry = self._bound.pop(identity, None)
        known = entry is not None and entry.until > now
        kept = entry.credentials if entry and known else {}
        word = "miss" if not known else "hit" if credential in kept.values() else "repin"
        self.counts[word] += 1
        kept.pop(_pool(credential), None)
        kept[_pool(credential)] = credential
        if len(kept) > _MOST_POOLS:
            del kept[next(iter(kept))]
        told = entry.told if entry else 0.0
        self._bound[identity] = _Bound(kept, now + _BOUND_FOR, told)
        if word != "hit" or told < now + _BOUND_FOR - _TOLD_EVERY:
            self._untold[identity] = None
        if len(self._bound) > _MOST_BOUND:
            gone = next(iter(self._bound))
            del self._bound[gone]
            self._untold.pop(gone, None)
        return word

    def drop(self, identity: str, credential: str) -> None:
        """This credential failed the conversation; those at other plans stay bound."""
        entry = self._bound.get(identity)
        if entry and entry.credentials.get(_pool(credential)) == credential:
            del entry.credentials[_pool(credential)]

    def keep(self, credentials: Collection[str]) -> None:
        """After a reload: release what is bound to keys that are gone."""
        for identity, entry in list(self._bound.items()):
            kept = {pool: name for pool, name in entry.credentials.items() if name in credentials}
            entry.credentials = kept
            if not kept:
                del self._bound[identity]

    def tally(self, now: float) -> dict[str, int]:
        """Credential -> the number of conversations it served last."""
        tally: dict[str, int] = {}
        for identity in self._bound:
            for name in self.bound(identity, now)[:1]:
                tally[name] = tally.get(name, 0) + 1
        return tally

    def exported(self) -> list[JSON]:
        """All of it, the longest unused first, to store or to tell another relay."""
        return [_bond(identity, entry) for identity, entry in self._bound.items()]

    def collect(self) -> list[JSON]:
        """What is new since the last call, in the form of `exported`."""
        untold = [(name, self._bound[name]) for name in self._untold if name in self._bound]
        self._untold = {}
        for _, entry in untold:
            entry.told = entry.until
        return [_bond(identity, entry) for identity, entry in untold]

    def adopt(self, entries: Iterable[JSON]) -> None:
        """Take what `exported` gave, here or elsewhere; the later of two wins."""
        for entry in entries:
            identity, until = str(entry["identity"]), finite(entry["until"])
            known = self._bound.get(identity)
            if known is None or known.until < until:
                self._bound.pop(identity, None)
                credentials = {str(pool): str(name) for pool, name in entry["credentials"].items()}
                self._bound[identity] = _Bound(credentials, until, until)
        while len(self._bound) > _MOST_BOUND:
            del self._bound[next(iter(self._bound))]


def _bond(identity: str, entry: _Bound) -> JSON:
    return {
        "identity": identity,
        "credentials": dict(entry.credentials),
        "until": entry.until,
    }


def _pool(credential: str) -> str:
    """provider/plan: within it, credentials can replace one another."""
    return credential.rpartition("/")[0]


# ==== 25. Health ==============================================================
# Who is cooling down, why, and until when.  A cooldown is a prediction, not a verdict: short
# marks end within half an hour, a plan's when it resets.  Marks are keyed by stable names, so
# they outlive a reload; a changed key has another name, and so starts with a clean slate.
#
#     failed ---> cooling ---> due ---> probing ---> gone, after a success
#                 (skipped)    (end     (one request, the others skip it)
#                               is past)     |
#                    ^-----------------------'  after a failure: a guess doubles
#
# The scope of a failure's class is what it marks: a wrong key or a spent plan marks the
# credential, overload the model at that provider, a broken connection the endpoint, a bad request
# nothing.  Plans have marks of their own, so that throttling neither hides nor shortens a spent
# plan.  A mark that relay guessed, or whose announced end is past, never keeps the last lane from
# being tried.  A success clears the marks of its lane that are older than the attempt, and any
# short guess; it says nothing about what was announced while it was under way.

SHORTEST, LONGEST = 1.0, 1800.0  # seconds, of a short mark
LONGEST_PLAN: Final = 35 * 86400.0
_MOST_MARKS: Final = 1000  # clients make up model names, and each that fails is a mark
_STALE: Final = 86400.0  # seconds after its end, when a mark says nothing any more
_SKEW: Final = 60.0  # seconds by which the clocks of relays that share marks may differ
_BY_HAND: Final = 60.0  # seconds after which to ask again for a provider that is disabled
_MOST_SAID_OF: Final = 200  # characters of a provider's message


class Place(NamedTuple):
    """What is marked.  A plan's mark and a short one can exist side by side."""

    scope: str
    name: str
    of_plan: bool


@dataclass(slots=True)
class Mark:
    failure: str
    since: float
    until: float
    guessed: bool  # nobody said until when
    times: int = 1  # incidents in a row
    said: str = ""  # the provider's message
    owner: str = ""  # the credential, provider or address with which the mark disappears
    probing: bool = False  # its end is past, and one request is finding out

    def stands(self, now: float) -> bool:
        return self.probing or (self.until > now and not self.is_ahead(now))

    def is_ahead(self, now: float) -> bool:
        """Was it made later than now?  Then the clock was set back, and nobody knows when it ends:
        it is due, rather than standing for as long again as the clock was wrong."""
        return self.since > now + _SKEW

    @property
    def worth_a_try(self) -> bool:
        """A short mark that may be wrong by now; it must not block the last lane."""
        row = FAILURES[self.failure]
        return (self.guessed or self.probing) and row.retry and not row.opens_next_plan


class Probe:
    """A block in which one attempt finds out whether these marks are over."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._marks = marks

    def __enter__(self) -> None:
        for mark in self._marks:
            mark.probing = True

    def __exit__(self, *raised: object) -> None:
        for mark in self._marks:
            mark.probing = False


_NO_PROBE: Final = Probe(())


class Health:
    """All marks, and which conversation is bound to which credential.

    Never reads the clock: `now` is an argument, and `began` is when the attempt began.
    """

    def __init__(self) -> None:
        self.marks: dict[Place, Mark] = {}
        self.disabled: set[str] = set()  # providers that an operator has taken out
        self.sticky = Stickiness()

    # An attempt

    def attempting(self, lane: Lane, now: float) -> Probe:
        """While an attempt runs, it is the probe of the marks on its lane that are due; however it
        ends, even cancelled or by a bug, the next one may probe."""
        due = [mark for mark in self._on(lane).values() if not mark.stands(now)]
        return Probe(due) if due else _NO_PROBE

    def failed(
        self,
        lane: Lane,
        error: UpstreamError,
        now: float,
        began: float | None = None,
        identity: str = "",
    ) -> None:
        """Mark what the failure is about; a failure of the request's own marks nothing.

        Attempts that were under way together fail together: that is one incident.  Only a
        failure of an attempt that began after the mark was made counts as another.
        """
        if error.failure.cool == 0 or error.scope == "request":
            return
        if error.scope.startswith("credential"):
            self.sticky.drop(identity, lane.credential.name)
        place = Place(error.scope, lane.key(error.scope), error.failure.opens_next_plan)
        before, began = self.marks.get(place), now if began is None else began
        before = None if before and before.is_ahead(now) else before
        mark = _marked(error, before, now, began)
        mark.owner = lane.owner(error.scope)
        firm = before and (not before.guessed or began <= before.since)
        if before and firm and before.until > max(now, mark.until):
            return  # what was announced to last longer still holds
        self.marks[place] = mark
        if len(self.marks) > _MOST_MARKS:
            self.forget(now)

    def succeeded(
        self, lane: Lane, identity: str = "", now: float = 0.0, began: float | None = None
    ) -> str | None:
        """Clear the marks on the lane, and bind the conversation to its credential; see `bind`."""
        for place, mark in self._on(lane).items():
            older = began is None or mark.since < began or mark.is_ahead(began)
            if older or (mark.guessed and not place.of_plan):
                del self.marks[place]
        return self.sticky.bind(identity, lane.credential.name, now) if identity else None

    # Asking about a lane

    def cooling(self, lane: Lane, now: float) -> Mark | None:
        """The mark that keeps a lane from being used, the firmest and longest of several."""
        if lane.target.provider.name in self.disabled:
            return Mark("disabled", now, now + _BY_HAND, False)
        if not self.marks:
            return None
        marks = [mark for mark in self._on(lane).values() if mark.stands(now)]
        return max(marks, key=lambda mark: (not mark.worth_a_try, mark.until), default=None)

    def exhausted(self, lane: Lane, now: float) -> bool:
        """Is the lane's plan used up or expired, so that the next plan may open?

        It counts as used up while a probe finds out whether it still is.
        """
        return any(place.of_plan and mark.stands(now) for place, mark in self._on(lane).items())

    def _on(self, lane: Lane) -> dict[Place, Mark]:
        """The marks on a lane."""
        if not self.marks:
            return {}
        names = [(scope, lane.key(scope)) for scope in MARKED_SCOPES]
        places = (Place(*name, of_plan) for name in names for of_plan in (False, True))
        return {place: mark for place in places if (mark := self.marks.get(place))}

    # Looking after the marks

    def listed(self, now: float) -> list[JSON]:
        """Every mark, with times since the epoch; a `next_probe` of None is under way."""
        self.forget(now)
        bound = self.sticky.tally(now)
        return [
            {
                "scope": place.scope,
                "name": place.name,
                "cause": mark.failure,
                "said": mark.said,
                "since": round(mark.since),
                "until": round(mark.until),
                "guessed": mark.guessed,
                "next_probe": None if mark.probing else round(max(mark.until, now)),
                "times": mark.times,
                "bound": bound.get(mark.owner, 0),
            }
            for place, mark in sorted(self.marks.items(), key=lambda item: item[1].since)
        ]

    def clear(self, name: str = "") -> list[str]:
        """Take marks away: all, those of a name, or all of a credential or provider."""
        hit = [
            place
            for place, mark in self.marks.items()
            if not name or name in (place.name, mark.owner, re.split("[/ ]", mark.owner)[0])
        ]
        for place in hit:
            del self.marks[place]
        return [place.name for place in hit]

    def keep(self, plan: Plan) -> list[str]:
        """After a reload: remove marks and bonds of what is gone; the names of those marks."""
        self.disabled.clear()
        credentials, owners = set[str](), set[str]()
        for provider in plan.providers.values():
            owners.add(provider.name)
            for billing in provider.plans:
                credentials |= {credential.name for credential in billing.credentials}
                bases = (endpoint.base for endpoint in billing.endpoints.values())
                owners |= {f"{provider.name} {base}" for base in bases}
        self.sticky.keep(credentials)
        gone = [p for p, mark in self.marks.items() if mark.owner not in owners | credentials]
        for place in gone:
            del self.marks[place]
        return [place.name for place in gone]

    def exported(self) -> list[JSON]:
        """Every mark, to store or to tell another relay."""
        return [
            place._asdict() | dataclasses.asdict(mark) | {"probing": False}
            for place, mark in self.marks.items()
        ]

    def adopt(self, entries: Iterable[JSON]) -> None:
        """Take what `exported` gave, here or elsewhere; the later of two marks at a place wins."""
        for entry in entries:
            place = Place(str(entry["scope"]), str(entry["name"]), bool(entry["of_plan"]))
            mark = _adopted(entry)
            known = self.marks.get(place)
            if known is None or known.since < mark.since:
                self.marks[place] = mark

    def discard(self, place: Place, moment: float) -> None:
        """Another relay removed this mark at that moment; one made later stays."""
        mark = self.marks.get(place)
        if mark and mark.since <= moment:
            del self.marks[place]

    def forget(self, now: float) -> None:
        """Drop marks that ended long ago, and more if there are too many."""
        for place, mark in list(self.marks.items()):
            patience = 0.0 if len(self.marks) > _MOST_MARKS else _STALE
            if mark.until < now - patience and not mark.probing:
                del self.marks[place]
        if excess := len(self.marks) - _MOST_MARKS:
            order = sorted(
                self.marks.items(), key=lambda item: (not item[1].guessed, item[1].since)
            )
            for place, _ in order[: max(0, excess)]:  # guesses first, the oldest first
                del self.marks[place]


def _adopted(entry: JSON) -> Mark:
    """A mark as `exported` has it.  A relay of another version may have other words for what is
    wrong, and no mark is better than one that nobody here understands."""
    return Mark(
        FAILURES[entry["failure"]].name,
        finite(entry["since"]),
        finite(entry["until"]),
        bool(entry["guessed"]),
        int(entry.get("times", 1)),
        str(entry.get("said", "")),
        str(entry.get("owner", "")),
    )


def _marked(error: UpstreamError, before: Mark | None, now: float, began: float) -> Mark:
    """The mark of a failure, given the one it replaces."""
    row, said, times = error.failure, error.retry_after, 1
    if before and before.failure == row.name and now < before.until + LONGEST:
        times = before.times + (before.since < began)
    most = LONGEST_PLAN if row.opens_next_plan or row.name == "balance_empty" else LONGEST
    guess = min(row.cool * 2 ** min(times - 1, 16), row.grows_to)
    seconds = guess if said is None else min(max(said, SHORTEST), most)
    words = error.message[:_MOST_SAID_OF]
    return Mark(row.name, now, now + seconds, said is None, times, words)


# ==== 26. Balance =============================================================
# Which of several equals goes first.  A conversation stays with what served it last, because
# caches and sealed reasoning belong to an account; for new ones the route's mode decides, first
# among targets of one rank, then among the credentials of a target's plan:
#
#     weighted         by the conversation's name (`ranked`): shares by weight, without a table
#     round_robin      the one that has waited longest for its turn
#     least_busy       the one with the fewest attempts under way
#     least_latency    the faster of two that the conversation's name picks: to choose the fastest
#                      of all would send everybody there at once
#
# What is remembered is keyed by stable names and bounded.  Ties are broken by `ranked`, so the
# same history and the same request give the same order.

FADING: Final = 60.0  # seconds after which a time to first event counts half
_LATEST: Final = 0.3  # the share of the latest time in the mean
_MOST_REMEMBERED: Final = 10_000  # clients make up model names, and each is a lane


class Flight:
    """An attempt under way: its lane counts as busy until `end`, which may be called twice."""

    def __init__(self, busy: dict[str, int], name: str) -> None:
        self._busy = busy
        self._name = name
        busy[name] = busy.get(name, 0) + 1

    def end(self) -> None:
        name, self._name = self._name, ""
        if name and self._busy[name] > 1:
            self._busy[name] -= 1
        elif name:
            del self._busy[name]


@frozen
class _Equal:
    """One of several of the same rank: a target, or one credential's lane at it."""

    place: int  # its index among them
    name: str
    weight: float
    bound: int  # 0 if it served the conversation last, 1 for the one before; the rest are last
    lanes: tuple[Lane, ...]  # its lanes that are open and not cooling down


class Balance:
    """The order of lanes; which are busy, whose turn it was, how soon each answered."""

    def __init__(self, health: Health) -> None:
        self.busy: dict[str, int] = {}  # lane -> attempts under way
        self._health = health
        self._turns: dict[str, int] = {}  # rule and item -> its last turn, the latest last
        self._turn = 0
        self._soon: dict[str, tuple[float, float]] = {}  # lane -> seconds, and when seen

    def lanes(
        self, route: Route, dialect: str, identity: str, now: Callable[[], float]
    ) -> Iterator[tuple[Lane, Mark | None]]:
        """All lanes in order, each with the mark that keeps it from being used now, if any.

        Marks are looked up at each step, so a plan that runs out in the middle of a request
        opens the next at once.
        """
        for group in route.groups:
            for target in self._targets(group, route, dialect, identity, now):
                for lanes in self._plans(target, dialect, now):
                    for lane in self._credentials(lanes, route, identity, now()):
                        yield lane, self._health.cooling(lane, now())

    def began(self, lane: Lane, route: Route) -> Flight:
        """An attempt begins: the lane is busy, and has had its turn."""
        if route.balance == "round_robin":
            self._turn += 1
            for name in (str(lane.target), lane.name):
                _remember(self._turns, f"{route.why}\0{name}", self._turn)
        return Flight(self.busy, lane.name)

    def answered(self, lane: Lane, seconds: float, now: float) -> None:
        """Note how long its first event took; the latest times count most."""
        mean, _ = self._soon.get(lane.name, (seconds, now))
        _remember(self._soon, lane.name, (mean + _LATEST * (seconds - mean), now))

    def seconds(self, lane: Lane, now: float) -> float:
        """The expected time to first event.  It fades, so that a slow lane is asked again."""
        mean, seen = self._soon.get(lane.name, (0.0, now))
        return float(mean * 2 ** (-abs(now - seen) / FADING))  # clocks are set back, too

    def _plans(
        self, target: Target, dialect: str, now: Callable[[], float]
    ) -> Iterator[Sequence[Lane]]:
        """A target's lanes, plan by plan: the next plan opens only when every credential of the
        one before is marked as used up."""
        for lanes in target.lanes(dialect):
            yield lanes
            if not all(self._health.exhausted(lane, now()) for lane in lanes):
                return

    def _targets(
        self,
        group: Sequence[Target],
        route: Route,
        dialect: str,
        identity: str,
        now: Callable[[], float],
    ) -> Sequence[Target]:
        if len(group) < 2:
            return group
        bound, equals = self._health.sticky.bound(identity, now()), list[_Equal]()
        providers = [name.partition("/")[0] for name in bound]
        for place, target in enumerate(group):
            *_, opened = self._plans(target, dialect, now)
            free = tuple(lane for lane in opened if not self._health.cooling(lane, now()))
            provider = target.provider
            rank = _rank(providers, provider.name)
            equals.append(_Equal(place, str(target), provider.config.weight, rank, free))
        return [group[place] for place in self._order(equals, route, identity, now())]

    def _credentials(
        self, lanes: Sequence[Lane], route: Route, identity: str, now: float
    ) -> Sequence[Lane]:
        if len(lanes) < 2:
            return lanes
        bound, equals = self._health.sticky.bound(identity, now), list[_Equal]()
        for place, lane in enumerate(lanes):
            free = () if self._health.cooling(lane, now) else (lane,)
            rank = _rank(bound, lane.credential.name)
            equals.append(_Equal(place, lane.name, 1.0, rank, free))
        return [lanes[place] for place in self._order(equals, route, identity, now)]

    def _order(
        self, equals: Sequence[_Equal], route: Route, identity: str, now: float
    ) -> list[int]:
        """Their indexes: those the conversation is bound to, then by the route's mode."""
        order = ranked(equals, identity, lambda equal: equal.name, lambda equal: equal.weight)
        order = _MODES[route.balance](self, order, route, now)
        return [equal.place for equal in sorted(order, key=lambda equal: equal.bound)]

    # The modes: each reorders what `ranked` has put in order

    def _weighted(self, equals: list[_Equal], route: Route, now: float) -> list[_Equal]:
        return equals

    def _round_robin(self, equals: list[_Equal], route: Route, now: float) -> list[_Equal]:
        def turn(equal: _Equal) -> tuple[int, int]:
            return self._turns.get(f"{route.why}\0{equal.name}", 0), equal.place

        return sorted(equals, key=turn)

    def _least_busy(self, equals: list[_Equal], route: Route, now: float) -> list[_Equal]:
        def attempts(equal: _Equal) -> float:
            return min((self.busy.get(lane.name, 0) for lane in equal.lanes), default=math.inf)

        return sorted(equals, key=attempts)

    def _least_latency(self, equals: list[_Equal], route: Route, now: float) -> list[_Equal]:
        def seconds(equal: _Equal) -> float:
            return min(self.seconds(lane, now) for lane in equal.lanes)

        free = [equal for equal in equals if equal.lanes]
        cooling = [equal for equal in equals if not equal.lanes]
        return sorted(free[:2], key=seconds) + free[2:] + cooling


def _rank(bound: Sequence[str], name: str) -> int:
    return bound.index(name) if name in bound else len(bound)


_MODES: Final = {
    "weighted": Balance._weighted,
    "round_robin": Balance._round_robin,
    "least_busy": Balance._least_busy,
    "least_latency": Balance._least_latency,
}


def _remember(memory: dict[str, T], name: str, value: T) -> None:
    """Set a value, the latest last; the oldest is dropped when there are too many."""
    memory.pop(name, None)
    memory[name] = value
    if len(memory) > _MOST_REMEMBERED:
        del memory[next(iter(memory))]


# ==== 27. Ledger ==============================================================
# What was used: totals of every hour and every day, per key, provider and model; and the latest
# requests.  Memory holds only what was added since the store took the last batch.
#
#     a request --> its key, provider and model in this hour --batch--> a row of the hour
#                                                                       a row of the day
#
# A request is added once, but counts in two rows of the store, so that old hours can be deleted
# and days need not be summed up.  Hours are those of the local clock, because a day has to consist
# of whole hours even where the clock is half an hour off UTC.

HOUR, DAY = 3600, 86400  # the two spans
OTHERS: Final = "(others)"
_MOST_ROWS: Final = 1000  # an hour; clients make up model names
_MOST_RECENT: Final = 200
# The fields of a request's log line that the store remembers.
_REMEMBERED: Final = (
    *("time", "id", "code", "status", "key", "model", "target", "tokens_in", "tokens_out"),
    *("cache_read", "cache_write", "cost", "estimated", "ms", "first_ms"),
)


class Row(NamedTuple):
    """What totals are kept for: a line of the tables."""

    span: int  # HOUR or DAY
    start: int  # seconds since the epoch
    key: str
    provider: str
    model: str


@dataclass(slots=True)
class Totals:
    """Counts of requests; tokens as in `Usage`; cost in billionths."""

    requests: int = 0
    errors: int = 0
    estimated: int = 0  # requests whose tokens the provider did not report, or not to the end
    tokens_in: int = 0
    tokens_out: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost: int = 0

    def add(self, other: Totals) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def counts(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in COUNTS)


COUNTS: Final = tuple(spec.name for spec in dataclasses.fields(Totals))


@dataclass(slots=True)
class Spend:
    """What a key has spent in a period, or what a request may come to."""

    tokens: int = 0
    cost: int = 0  # billionths

    def add(self, other: Spend, sign: int = 1) -> None:
        self.tokens += sign * other.tokens
        self.cost += sign * other.cost


Spent: TypeAlias = dict[tuple[str, str], Spend]  # (key, period) -> spend


ROW_NAMES: Final = ("key", "provider", "model")


def span_starts(now: float, zone: datetime.tzinfo | None) -> tuple[int, int]:
    """When the hour and the day began, by the local clock."""
    local = datetime.datetime.fromtimestamp(now, zone)
    hour = int(now) - local.minute * 60 - local.second
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return hour, int(midnight.timestamp())


def periods(now: float, zone: datetime.tzinfo | None) -> tuple[str, str]:
    """The day and the month, which budgets are kept for: ("2027-06-30", "2027-06")."""
    day = datetime.datetime.fromtimestamp(now, zone).date().isoformat()
    return day, day[:7]


class Clock(NamedTuple):
    """What is the same for an hour of a local clock."""

    hour: int  # when it and its day began
    day: int
    periods: tuple[str, str]


class Calendar:
    """The clocks of all zones that are asked for, each read once an hour: to work out what day it
    is would take as long as everything else that is counted of a request."""

    def __init__(self) -> None:
        self._clocks: dict[datetime.tzinfo | None, Clock] = {}

    def at(self, now: float, zone: datetime.tzinfo | None) -> Clock:
        clock = self._clocks.get(zone)
        if clock is None or not 0 <= now - clock.hour < HOUR:
            clock = Clock(*span_starts(now, zone), periods(now, zone))
            self._clocks[zone] = clock
        return clock


def summed(
    rows: Mapping[Row, Totals], by: Sequence[str]
) -> dict[tuple[int, tuple[str, ...]], Totals]:
    """Totals per start and per key, provider, model, or those of them in `by`; sorted."""
    sums: dict[tuple[int, tuple[str, ...]], Totals] = {}
    for row, totals in sorted(rows.items()):
        who = tuple(getattr(row, name) for name in by)
        sums.setdefault((row.start, who), Totals()).add(totals)
    return dict(sorted(sums.items()))


Who: TypeAlias = tuple[str, str, str]  # key, provider, model


class Ledger:
    """What was used since the last batch, and the latest requests."""

    def __init__(self) -> None:
        self._fresh: collections.deque[JSON] = collections.deque(maxlen=_MOST_RECENT)
        self._calendar = Calendar()
        self._clock = Clock(0, 0, ("", ""))
        self._known: set[Who] = set()  # those with totals in this hour
        self._sums: dict[Who, Totals] = {}  # since the last batch, in this hour
        self._rows: dict[Row, Totals] = {}  # since the last batch, in hours that are over

    def totals(self, who: Who, now: float, zone: datetime.tzinfo | None) -> Totals:
        """The totals to add a request to, now."""
        clock = self._calendar.at(now, zone)
        if clock is not self._clock:
            self._close()
            self._clock, self._known = clock, set()
        return self._sums.get(who) or self._begun(who)

    def remember(self, record: JSON) -> None:
        """Keep a request among the latest; the record must not change any more."""
        self._fresh.append(record)

    def collect(self) -> tuple[dict[Row, Totals], list[JSON]]:
        """What was added since the last call; from now on it is the store's."""
        self._close()
        rows, self._rows = self._rows, {}
        lines = [{name: record[name] for name in _REMEMBERED} for record in self._fresh]
        self._fresh.clear()
        return rows, lines

    def _begun(self, who: Who) -> Totals:
        if who not in self._known and len(self._known) >= _MOST_ROWS:
            who = (who[0], who[1], OTHERS)
        self._known.add(who)
        return self._sums.setdefault(who, Totals())

    def _close(self) -> None:
        """The sums as rows."""
        for who, totals in self._sums.items():
            for row in (Row(HOUR, self._clock.hour, *who), Row(DAY, self._clock.day, *who)):
                self._rows.setdefault(row, Totals()).add(totals)
        self._sums.clear()


# ==== 28. Limits ==============================================================
# Who may send a request now.  A permit is taken at admission, for what the request may come to, and
# given back once, at its end, for what it came to.
#
#     rates         any minute holds at most rpm requests and tpm tokens
#     concurrent    so many permits may be out
#     budgets       a request is admitted while what is spent and reserved is below the limit; so
#                   only the request admitted last can exceed it
#
# A minute is counted in slots of a second, of which it can touch 61: so no minute, wherever it
# begins, holds more than the limit, and a key costs a few dozen numbers at any rate.
#
# A budget that is spent gives a 402, because clients repeat a request that got a 429; if only
# requests under way have reserved it, that is a 429, because it may be free in a moment.

_MINUTE: Final = 61
_MOST_ENDED: Final = 10_000  # while the store is down; there, the rest ends when its lease does
# Of each budget: its key in `limits`, what it counts, and in which period (0 day, 1 month).
BUDGETS: Final = (
    ("cost_per_day", "cost", 0),
    ("cost_per_month", "cost", 1),
    ("tokens_per_day", "tokens", 0),
    ("tokens_per_month", "tokens", 1),
)


class Refusal(NamedTuple):
    """The limit that refuses a request: its key in `limits`, and when to try again."""

    word: str
    wait: float  # seconds; 0: a budget that is spent; infinite: the request exceeds the limit

    def error(self, caller: Caller, now: float) -> RelayError:
        most = getattr(caller.limits, self.word)
        said = f"key {caller.name!r} has {self.word} {most:g}"
        if self.word == "concurrent":
            return LimitExceeded(f"{said}, and as many requests are under way", retry_after=1)
        if self.wait == math.inf:
            message = f"{said}, and this request alone is more"
            return LimitExceeded(message, retry=False, retry_after=60)
        if self.word in ("rpm", "tpm"):
            message = f"{said}; try again in {math.ceil(self.wait)} s"
            return LimitExceeded(message, retry_after=self.wait)
        if self.wait:
            message = f"{said}, and requests under way have reserved the rest"
            return LimitExceeded(message, retry_after=self.wait)
        return BudgetSpent(
            f"{said}, and it is spent; it begins anew {_anew(self.word, caller, now)}"
        )


def _anew(word: str, caller: Caller, now: float) -> str:
    local = datetime.datetime.fromtimestamp(now, caller.zone)
    month = word.endswith("month")
    then = local.replace(day=1) + datetime.timedelta(days=32) if month else local
    return f"on {then:%Y-%m}-01" if month else f"after {then:%Y-%m-%d}, at midnight"


class Window:
    """The last minute, in slots of a second: what was counted in each."""

    def __init__(self) -> None:
        self.slots: dict[int, list[int]] = {}  # second -> [requests, tokens], the oldest first
        self.sums = [0, 0]

    def age(self, now: float) -> None:
        """Drop the seconds that are no longer in any minute."""
        while self.slots and (first := next(iter(self.slots))) + _MINUTE <= now:
            requests, tokens = self.slots.pop(first)
            self.sums[0] -= requests
            self.sums[1] -= tokens

    def add(self, second: int, requests: int, tokens: int) -> None:
        slot = self.slots.get(second) or self.slots.setdefault(second, [0, 0])
        slot[0] += requests
        slot[1] += tokens
        self.sums[0] += requests
        self.sums[1] += tokens

    def wait(self, index: int, amount: int, most: int, now: float) -> float:
        """Seconds until this much more fits under the limit; 0 if it does now."""
        excess = self.sums[index] + amount - most
        if excess <= 0:
            return 0.0
        for second, slot in self.slots.items():
            excess -= slot[index]
            if excess <= 0:
                return second + _MINUTE - now
        return math.inf  # it alone exceeds the limit


class Budget(NamedTuple):
    """A budget of a key: a row of `BUDGETS` and its limit."""

    word: str
    what: str
    period: int
    most: int


class Rate(NamedTuple):
    word: str
    what: int  # which of a window's sums: 0 requests, 1 tokens
    most: int
    header: str  # says how much is left


def budget(limits: LimitConfig, word: str) -> int | None:
    """A budget in the unit that is counted: tokens, or billionths."""
    most: float | None = getattr(limits, word)
    if most is None:
        return None
    return round(most * MONEY) if word.startswith("cost") else int(most)


def budgets(limits: LimitConfig) -> tuple[Budget, ...]:
    """All budgets of a key, in the order in which they are checked."""
    return tuple(
        Budget(word, what, period, most)
        for word, what, period in BUDGETS
        if (most := budget(limits, word)) is not None
    )


class Terms:
    """A key's limits, prepared once for checking every request against them."""

    def __init__(self, limits: LimitConfig | None) -> None:
        self.limits = limits
        self.concurrent = limits.concurrent if limits else None
        self.budgets = budgets(limits) if limits else ()
        self.rates: list[Rate] = []
        self._headers: dict[str, str] = {}
        # headers that OpenAI's clients know
        for what, (word, name) in enumerate((("rpm", "requests"), ("tpm", "tokens"))):
            if (most := getattr(limits, word, None)) is not None:
                left = f"x-ratelimit-remaining-{name}"
                self.rates.append(Rate(word, what, most, left))
                self._headers[f"x-ratelimit-limit-{name}"] = str(most)
                self._headers[left] = str(most)
                self._headers[f"x-ratelimit-reset-{name}"] = f"{_MINUTE}s"  # until all is back

    def headers(self, *used: int) -> dict[str, str]:
        """What is left of the minute after so many requests and tokens."""
        headers = self._headers.copy()
        for _, what, most, header in self.rates:
            headers[header] = str(max(0, most - used[what]))
        return headers


_NO_TERMS: Final = Terms(None)


@dataclass(slots=True)
class _Account:
    """What is known of a key."""

    name: str
    terms: Terms = _NO_TERMS
    out: dict[str, Permit] = field(default_factory=dict)  # permits of requests under way
    reserved: Spend = field(default_factory=Spend)
    # by period: as the store has it, and what is not stored yet
    spent: dict[str, Spend] = field(default_factory=lambda: collections.defaultdict(Spend))
    window: Window = field(default_factory=Window)


@dataclass(slots=True, eq=False)
class Permit:
    """One request under way."""

    id: str
    caller: Caller
    account: _Account
    reserved: Spend
    second: int  # the slot it was counted in
    open: bool = True
    headers: dict[str, str] = field(default_factory=dict)


class Ended(NamedTuple):
    """A permit that was given back, as told to a shared store."""

    key: str
    id: str
    tokens: int


class Limits:
    """What every key has spent and reserved.

    It is told two times: `now` never goes back (for rates), `wall` is the calendar's (budgets).
    """

    def __init__(self, shared: bool = True) -> None:
        """`shared`: note what ended, for a store that judges permits."""
        self._shared = shared
        self._accounts: dict[str, _Account] = {}
        self._calendar = Calendar()
        self._unwritten: Spent = collections.defaultdict(Spend)
        self._ended: collections.deque[Ended] = collections.deque(maxlen=_MOST_ENDED)

    def admit(self, id: str, caller: Caller, asked: Spend, now: float, wall: float) -> Permit:
        """A permit, to be given back by `settle`; LimitExceeded or BudgetSpent."""
        account = self._account(caller.name)
        if account.terms.limits is not caller.limits:
            account.terms = Terms(caller.limits)
        account.window.age(now)
        if refusal := self._refusal(account, caller.zone, asked, now, wall):
            raise refusal.error(caller, wall)
        permit = account.out[id] = Permit(id, caller, account, asked, int(now))
        account.reserved.add(asked)
        account.window.add(permit.second, 1, asked.tokens)
        permit.headers = account.terms.headers(*account.window.sums)
        return permit

    def _account(self, name: str) -> _Account:
        return self._accounts.get(name) or self._accounts.setdefault(name, _Account(name))

    def _refusal(
        self,
        account: _Account,
        zone: datetime.tzinfo | None,
        asked: Spend,
        now: float,
        wall: float,
    ) -> Refusal | None:
        terms = account.terms
        for word, what, period, most in terms.budgets:
            known = account.spent.get(self._calendar.at(wall, zone).periods[period])
            spent: int = getattr(known, what) if known else 0
            if spent + getattr(account.reserved, what) >= most:
                return Refusal(word, 0.0 if spent >= most else 2.0)
        if terms.concurrent is not None and len(account.out) >= terms.concurrent:
            return Refusal("concurrent", 1.0)
        for word, which, most, _ in terms.rates:
            amount = asked.tokens if which else 1
            if wait := account.window.wait(which, amount, most, now):
                return Refusal(word, wait)
        return None

    def settle(self, permit: Permit, spend: Spend, wall: float) -> None:
        """Give a permit back, for what the request came to; a second call changes nothing."""
        if not permit.open:
            return
        account = permit.account
        self._close(permit, 0, spend.tokens)
        if not account.name:
            return  # a caller without a key has no budget
        labels = self._calendar.at(wall, permit.caller.zone).periods
        for label in labels:
            account.spent[label].add(spend)
            self._unwritten[account.name, label].add(spend)
        if len(account.spent) > len(labels):  # some are over
            for label in account.spent.keys() - set(labels):
                del account.spent[label]

    def withdraw(self, permit: Permit) -> None:
        """Take a permit back as if it had never been: the shared store refused the request."""
        if permit.open:
            self._close(permit, -1, 0)

    def _close(self, permit: Permit, requests: int, tokens: int) -> None:
        permit.open = False
        account, asked = permit.account, permit.reserved
        del account.out[permit.id]
        account.reserved.add(asked, sign=-1)
        if permit.second in account.window.slots:
            account.window.add(permit.second, requests, tokens - asked.tokens)
        if self._shared and permit.caller.limits:
            self._ended.append(Ended(account.name, permit.id, tokens))

    def collect(self) -> tuple[Spent, list[Ended]]:
        """What was spent and what ended since the last call; from now on it is the store's."""
        unwritten, ended = self._unwritten, list(self._ended)
        self._unwritten = collections.defaultdict(Spend)
        self._ended.clear()
        return unwritten, ended

    def running(self) -> list[Permit]:
        """The permits that are out, of keys with limits."""
        accounts = self._accounts.values()
        return [p for account in accounts for p in account.out.values() if p.caller.limits]

    def learn(self, stored: Spent) -> None:
        """Take what all relays have spent, by the store; what it has not got yet comes on top.

        Spending only grows, so a lower number is an older one.
        """
        for (name, label), spend in stored.items():
            ours = self._unwritten.get((name, label), Spend())
            known = self._account(name).spent[label]
            known.tokens = max(known.tokens, spend.tokens + ours.tokens)
            known.cost = max(known.cost, spend.cost + ours.cost)

    def keep(self, names: Iterable[str]) -> None:
        """Let go of keys that are no more, but for what they have spent and have under way: the
        next reload may bring them back, and they are no richer then."""
        for name in self._accounts.keys() - set(names):
            account = self._accounts[name]
            if not account.out and not account.spent:
                del self._accounts[name]


# ==== 29. Cache ledger ========================================================
# Why a prompt cache was missed.  For a conversation, a provider should read from its cache at least
# what it read and wrote the time before.  If that number collapses, a part of the prompt has
# changed, the conversation was moved, or it waited too long, and each of these costs real money.
# Each conversation's last prompt is kept, as the bytes it came in:
#
#     while all is well      nobody looks into them; the next prompt takes their place
#     at a collapse          both are parsed, and the first difference is what changed
#
# So a conversation that goes well costs nothing, however long it is.  Several agents may talk in
# one session; if in doubt, a thread is recognised by its first turns.

_MOST_CONVERSATIONS: Final = 10_000
_MOST_THREADS: Final = 4  # of a session
_MOST_KEPT: Final = 32 << 20  # bytes of prompts
_LEAST_PROMPT: Final = 2048  # bytes; no provider caches less than a thousand tokens
_LEAST_CACHED: Final = 1024  # tokens
_COLD: Final = 8  # answers of a target that mention no cache, after which none is expected
_CACHE_LIFE: Final = 300.0  # seconds; Anthropic's default, and about what others promise
_KEPT_FOR: Final = 3600.0  # seconds; no cache that reports its reads lives longer
_TURNS: Final = ("messages", "input", "contents")
_SYSTEM: Final = ("system", "instructions", "systemInstruction", "system_instruction")
# Keys that are not part of the prompt, and may differ from turn to turn.
_NOT_OF_THE_PROMPT: Final = frozenset(
    "model stream stream_options metadata user store client_metadata max_tokens"
    " max_completion_tokens max_output_tokens prompt_cache_key safety_identifier".split()
)


class Way(NamedTuple):
    """How a prompt went out."""

    asked: str  # the model as the client said it
    credential: str
    target: str
    said: object  # endpoint with its edits, the body's note, what was dropped


@dataclass(slots=True)
class _Thread:
    raw: bytes  # its last prompt
    way: Way
    at: float  # of the last answer
    cached: int  # tokens that the next prompt should find


@dataclass(slots=True)
class Question:
    """A prompt that is being answered."""

    raw: bytes  # b"" if there was no room for it, or if no cache is expected
    at: float


class CacheLedger:
    """Each thread's last prompt, and how much of it should be in a cache.  Bounded."""

    def __init__(self) -> None:
        self.causes: dict[str, int] = {}  # "client: system" -> collapses
        self._conversations: dict[str, list[_Thread]] = {}  # the longest unused first
        self._cold: dict[str, int] = {}  # target -> answers in a row that mention no cache
        self._kept = 0  # bytes

    def asked(self, raw: bytes, target: str, now: float) -> Question | None:
        """Note a prompt before it leaves memory; None if no cache can be in play."""
        if len(raw) < _LEAST_PROMPT:
            return None
        if self._cold.get(target, 0) >= _COLD or not self._make_room(len(raw)):
            raw = b""
        self._kept += len(raw)
        return Question(raw, now)

    def settled(
        self,
        question: Question,
        identity: Callable[[], str],
        usage: Usage | None,
        way: Way,
        now: float,
    ) -> JSON | None:
        """The answer is over: what was lost, and because of whom; None if all is well."""
        raw, question.raw = question.raw, b""
        self._kept -= len(raw)
        if usage is None or not usage.input:  # it broke off before anything was counted
            return None
        known = usage.cache_read + usage.cache_write
        self._cold[way.target] = 0 if known else self._cold.get(way.target, 0) + 1
        if len(self._cold) > _MOST_CONVERSATIONS:  # clients make up model names
            self._cold.clear()
        if not raw or not (name := identity()):
            return None
        latest = _Thread(raw, way, now, known)
        threads = self._conversations.pop(name, [])
        self._conversations[name] = threads
        thread = _nearest(threads, raw)
        lost = None
        if thread and thread.cached >= max(_LEAST_CACHED, 2 * usage.cache_read + 1):
            thread, lost = self._looked_into(threads, latest, question.at, usage)
        if thread:
            threads.remove(thread)
            self._kept -= len(thread.raw)
        self._keep(threads, latest)
        return lost

    def _looked_into(
        self, threads: Sequence[_Thread], latest: _Thread, asked: float, usage: Usage
    ) -> tuple[_Thread | None, JSON | None]:
        """The known thread that this prompt goes on with, and what it has lost; either None."""
        prompt = _prompt(latest.raw)
        for thread in reversed(threads):
            before = _prompt(thread.raw)
            if not before.goes_on_in(prompt):
                continue
            if thread.cached < max(_LEAST_CACHED, 2 * usage.cache_read + 1):
                return thread, None
            idle = max(0.0, asked - thread.at)
            by, changed = _cause(before, prompt, thread.way, latest.way, idle)
            cause = f"{by}: {changed.partition(' ')[0]}"
            self.causes[cause] = self.causes.get(cause, 0) + 1
            told = {"read": usage.cache_read, "expected": thread.cached, "idle": f"{idle:.0f} s"}
            return thread, {"changed": changed, "by": by} | told
        return None, None

    def _keep(self, threads: list[_Thread], latest: _Thread) -> None:
        self._kept += len(latest.raw)  # its room was reserved until now
        threads.append(latest)
        while len(threads) > _MOST_THREADS:
            self._kept -= len(threads.pop(0).raw)
        oldest = next(iter(self._conversations))
        too_many = len(self._conversations) > _MOST_CONVERSATIONS
        while too_many or self._conversations[oldest][-1].at < latest.at - _KEPT_FOR:
            self._forget(oldest)
            oldest, too_many = next(iter(self._conversations)), False

    def _make_room(self, size: int) -> bool:
        """Drop the prompts of conversations unused for longest, until there is room."""
        while self._kept + size > _MOST_KEPT and len(self._conversations) > 1:
            self._forget(next(iter(self._conversations)))
        return self._kept + size <= _MOST_KEPT

    def _forget(self, name: str) -> None:
        self._kept -= sum(len(thread.raw) for thread in self._conversations.pop(name))


def _nearest(threads: Sequence[_Thread], raw: bytes) -> _Thread | None:
    """The thread whose prompt begins most like this one, the latest of several."""
    if len(threads) < 2:
        return threads[0] if threads else None
    sizes = [256 << power for power in range(9)]

    def alike(thread: _Thread) -> int:
        return bisect.bisect(sizes, 0, key=lambda size: thread.raw[:size] != raw[:size])

    return max(reversed(threads), key=alike)


class _Prompt(NamedTuple):
    """Hashes of what was said."""

    turns: list[int]
    parts: dict[str, int]  # tools, system, parameters

    def goes_on_in(self, other: _Prompt) -> bool:
        """Is it the same thread?  Its second turn is a model's, and hardly ever repeated; if there
        is only a first turn, that has to do."""
        if len(self.turns) > 1 and len(other.turns) > 1 and self.turns[1] == other.turns[1]:
            return True
        short = len(self.turns) == 1 or len(other.turns) == 1
        return short and self.turns[:1] == other.turns[:1]


def _prompt(raw: bytes) -> _Prompt:
    try:
        wire = loads(raw)
    except ValueError:  # no provider would have answered that
        return _Prompt([], {})
    return _Prompt(_fingerprints(_said_in(wire)), _parts(wire))


def _cause(before: _Prompt, after: _Prompt, way: Way, new_way: Way, idle: float) -> tuple[str, str]:
    """Who changed what, by the first sufficient cause: caches belong to a model and an account,
    and match the prompt's beginning, where tools and system come first."""
    steps = (
        ("client", "model", new_way.asked != way.asked),
        ("relay", "target", new_way.target != way.target),
        ("relay", "credential", new_way.credential != way.credential),
        *(("client", name, after.parts[name] != before.parts.get(name)) for name in after.parts),
        *(
            ("client", f"message {index}", new != old)
            for index, (new, old) in enumerate(zip(after.turns, before.turns, strict=False))
        ),
        ("relay", "body", new_way.said != way.said),
        ("time", "nothing", idle > _CACHE_LIFE),
    )
    return next(((by, what) for by, what, holds in steps if holds), ("provider", "nothing"))


def _said_in(wire: JSON) -> list[Any]:
    found = (wire.get(name) for name in _TURNS)
    return next((turns for turns in found if isinstance(turns, list)), [])


def _parts(wire: JSON) -> dict[str, int]:
    rest = wire.keys() - {"tools", *_SYSTEM, *_TURNS} - _NOT_OF_THE_PROMPT
    return {
        "tools": _fingerprint(wire.get("tools")),
        "system": _fingerprint([wire.get(name) for name in _SYSTEM]),
        "parameters": _fingerprint({name: wire[name] for name in sorted(rest)}),
    }


def _fingerprints(values: Iterable[Any]) -> list[int]:
    return [_fingerprint(value) for value in values]


def _fingerprint(value: Any) -> int:
    """Equal for what is equal to a cache.  Python's own hash is keyed with a secret of this
    process, and three times as fast as a cryptographic one."""
    return hash(dumps(unmarked(value)))


# ==== 30. Notes ===============================================================
# What relays that share a store tell one another about health: every mark that came, changed or
# went, and every conversation that was bound to a credential.  A note has a name; the latest of
# that name holds.  A relay that starts reads them all, so a restart forgets no cooldown.

_MARK, _BOND = "mark", "bond"


class Note(NamedTuple):
    kind: str
    name: str
    line: JSON  # in the form of `exported`; {"gone": when} for a mark that was removed
    until: float  # when it may be forgotten


class Notebook:
    """What other relays have been told about health."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._told: dict[str, JSON] = {}  # marks, as other relays know them

    def collect(self, now: float) -> list[Note]:
        """What is new since the last time."""
        marks = {_place_name(entry): entry for entry in self._health.exported()}
        gone = self._told.keys() - marks.keys()
        notes = [
            Note(_MARK, name, entry, entry["until"] + DAY)
            for name, entry in marks.items()
            if self._told.get(name) != entry
        ]
        notes += [Note(_MARK, name, {"gone": now}, now + DAY) for name in gone]
        self._told = marks
        bonds = self._health.sticky.collect()
        return notes + [Note(_BOND, _bond_name(bond), bond, bond["until"]) for bond in bonds]

    def learn(self, notes: Iterable[Note]) -> None:
        """Take what others tell; a relay of another version may do so in a form unknown here."""
        for note in notes:
            with contextlib.suppress(*UNREADABLE):
                self._hear(note)

    def _hear(self, note: Note) -> None:
        if note.kind == _BOND:
            self._health.sticky.adopt([note.line])
        elif "gone" in note.line:
            self._told.pop(note.name, None)
            self._health.discard(Place(*loads(note.name)), note.line["gone"])
        else:
            self._health.adopt([note.line])
            self._told[note.name] = note.line

    def repeat(self) -> None:
        """The store may have lost what it was told: tell all marks again."""
        self._told = {}


def _place_name(entry: JSON) -> str:
    return dumps([entry[name] for name in Place._fields]).decode()


def _bond_name(bond: JSON) -> str:
    """Hashed, because clients choose a conversation's name, of any length."""
    return hashlib.sha256(dumps(bond["identity"])).hexdigest()


# ==== 31. Verdict =============================================================
# What a client is told when no target is left.  If one target failed, its class decides: a limit
# gives a 429, overload a 529 or 503, a timeout a 504.  A provider's 401 becomes a 502: clients log
# out on a 401, and it was relay's credential that was refused.  Several failed targets give a 429
# with the soonest end if all failures are limits, else a 503.  A mistake in the request itself
# outranks the rest, because clients act on its text: Claude Code compacts the conversation on
# "prompt is too long".


Failed: TypeAlias = tuple[Lane, UpstreamError]  # was tried
Skipped: TypeAlias = tuple[Lane, Mark]  # was not


def concluded(failures: Sequence[Failed], skipped: Sequence[Skipped], now: float) -> RelayError:
    """The one error for all that was tried and all that was skipped."""
    if not failures:
        return _all_cooling(skipped, now)
    own = [(lane, error) for lane, error in failures if error.failure.name in OF_THE_REQUEST]
    hopeful = [(lane, error) for lane, error in failures if error.retry]
    _, last = (own or hopeful or failures)[-1]
    told = "; ".join(f"{lane}{_advice(error)}: {error.message}" for lane, error in failures)
    if skipped:
        told += "; not tried: " + _resting(skipped, now)
    waits = _waits(failures, skipped, now)
    if own or len({str(lane.target) for lane, _ in failures}) == 1:
        return UpstreamError(
            last.failure.name,
            told,
            upstream_status=last.upstream_status,
            retry_after=min(waits, default=None),
            body=last.body if own else b"",
            headers=last.headers,
        )
    limits = all(error.failure.name in LIMITS for _, error in failures)
    return NoTarget(
        f"all {len(failures)} attempts failed: {told}",
        status=429 if limits else 503,
        kind="rate_limit" if limits else "unavailable",
        retry=any(error.retry for _, error in failures),
        retry_after=min(waits, default=None),
    )


def _waits(
    failures: Sequence[Failed],
    skipped: Sequence[Skipped],
    now: float,
) -> list[float]:
    """Seconds from now until each target may be asked again, if any of them said.

    By the time the last target has failed, part of the time that the first one gave is over.
    """
    spans = [
        (error.failure.cool if error.retry_after is None else error.retry_after)
        - (now - error.at if error.at else 0.0)
        for _, error in failures
        if error.retry_after is not None or error.failure.cool
    ]
    known = any(error.retry_after is not None for _, error in failures)
    spans = spans if known else []
    return [max(0.0, span) for span in (*spans, *(mark.until - now for _, mark in skipped))]


# A failure class in words, and what to do if the operator can do something.
_ADVICE: Final = {
    "auth": " refused relay's credential; check api_key and the plan's URL",
    "balance_empty": " has no balance left",
    "plan_exhausted": " has used up its plan",
    "plan_expired": " has a plan that is over",
    "model_missing": " does not know this model; check `models`",
    "client_rejected": " does not admit this client",
    "rate_limited": " limits the rate",
    "overloaded": " is overloaded",
}


def _advice(error: UpstreamError) -> str:
    if error.failure.name == "transient" and error.upstream_status >= 500:
        return f" failed with HTTP {error.upstream_status}"
    return _ADVICE.get(error.failure.name, "")


def _all_cooling(skipped: Sequence[Skipped], now: float) -> RelayError:
    rows = {mark.failure: FAILURES[mark.failure] for _, mark in skipped}
    limits = rows.keys() <= LIMITS
    row = next(iter(rows.values())) if len(rows) == 1 else None
    off = rows.keys() == {"disabled"}
    told = "every target is left out:" if off else "every target is cooling down:"
    return NoTarget(
        f"{told} {_resting(skipped, now)}",
        status=row.status if row else 429 if limits else 503,
        kind=row.kind if row else "rate_limit" if limits else "unavailable",
        retry=any(row.retry for row in rows.values()),
        retry_after=min(_waits((), skipped, now), default=None),
    )


def _resting(skipped: Sequence[Skipped], now: float) -> str:
    """Which lanes are not tried, why, and for how long."""
    return "; ".join(f"{lane}: {_rest(mark, now)}" for lane, mark in skipped)


def _rest(mark: Mark, now: float) -> str:
    if mark.failure == "disabled":
        return "left out by the admin until the next reload"
    end = "being probed" if mark.probing else f"for {span(mark.until - now)} more"
    return f"{mark.failure.replace('_', ' ')}, {end}"


def span(seconds: float) -> str:
    steps = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size, unit = next((step for step in steps if seconds >= 2 * step[0]), (1, "s"))
    return f"{max(1, round(seconds / size))} {unit}"


def error_headers(error: RelayError) -> dict[str, str]:
    """retry-after in whole seconds, which Codex needs on every 429; and whether to retry at all."""
    headers: dict[str, str] = {}
    wait = error.retry_after
    if error.status == 429 and wait is None:
        wait = 5.0
    if wait is not None and error.status in (429, 502, 503, 504):
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    if not error.retry or (wait is not None and wait > 300):
        headers["x-should-retry"] = "false"
    return headers


def termination(error: RelayError) -> str:
    """Two letters for the log, after HAProxy's habit; the README lists them."""
    if error.status == 429:
        return "RL"
    if isinstance(error, UpstreamError) and error.failure.name == "timeout":
        return "UT"
    if isinstance(error, UpstreamError) and error.failure.name == "transient":
        return "UE" if error.upstream_status else "UC"
    return error.code


# ==== 32. Metrics =============================================================
# Numbers of what happened, declared once and told twice: here in Prometheus's words, and in
# OpenTelemetry's if a collector is configured.  Names are OpenTelemetry's; Prometheus's follow
# from them by its rules: dots become underscores, the unit a suffix, and a counter ends in _total.
#
#     family    relay.requests {provider, code}      one name, one sentence, label names
#     series    provider="glm", code="OK" -> 17      one number for each set of label values
#     tally     of requests that are alike           their series in all families, looked up once
#
# Label values have to be few, because every series is kept for ever: beyond some number a new value
# counts as "other".  No conversation, no request and no client's own text is ever a label.

OTHER: Final = "other"
_MOST_VALUES: Final = 100  # of one label; more than providers or keys a team has
_MOST_SERIES: Final = 2000  # of one family
_MOST_TALLIES: Final = 2000  # remembered look-ups; they hold no numbers of their own
_UNIT_SUFFIXES: Final = {"s": "_seconds", "By": "_bytes"}  # {token} and the like name no unit

_SECONDS: Final = (
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    20,
    40,
    80,
    160,
    320,
    640,
    1280,
)  # an agent's turn
_OVERHEAD: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_TOKENS: Final = tuple(4**power for power in range(14))  # as the GenAI conventions have them


class Series:
    """The number of one set of label values."""

    __slots__ = ("_family", "_labels", "number")

    def __init__(self, family: Family[Any], said: tuple[str, ...]) -> None:
        self.number: float = 0
        self._family = family
        pairs = zip(family.labels, said, strict=True)
        self._labels = {name: value for name, value in pairs if value}

    def add(self, amount: float) -> None:
        self.number += amount
        if mirror := self._family.mirror:
            mirror(amount, self._labels)

    def set(self, state: float) -> None:
        self.number = state
        if mirror := self._family.mirror:
            mirror(state, self._labels)


class Spread(Series):
    """The distribution of the numbers of one set of label values; `number` is their sum."""

    __slots__ = ("bounds", "counts")

    def __init__(
        self, family: Family[Any], said: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        super().__init__(family, said)
        self.number = 0.0
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last counts those beyond all bounds

    def observe(self, number: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, number)] += 1
        self.number += number
        if mirror := self._family.mirror:
            mirror(number, self._labels)


S = TypeVar("S", bound=Series)


class Family(Generic[S]):
    """One metric and all its series."""

    kind: ClassVar[Literal["counter", "gauge", "histogram"]]

    def __init__(self, name: str, unit: str, doc: str, labels: str = "") -> None:
        """`labels`: names separated by spaces; a label with an empty value is left out."""
        self.name = name
        self.unit = unit
        self.doc = doc
        self.labels = tuple(labels.split())
        self.base = _prometheus(name) + _UNIT_SUFFIXES.get(unit, "")
        # Told of each number, too: the number, and the labels that are not empty.
        self.mirror: Callable[[float, Mapping[str, str]], None] | None = None
        self.series: dict[tuple[str, ...], S] = {}
        self._values = tuple(set[str]() for _ in self.labels)

    def of(self, *said: str) -> S:
        """The series of these label values, or of "other" if there are too many.  It never
        changes, so callers may keep it."""
        return self.series.get(said) or self._found(said)

    def lines(self, openmetrics: bool) -> Iterator[str]:
        """The family as text; OpenMetrics names a counter's family without its suffix."""
        suffix = "_total" if self.kind == "counter" else ""
        name = self.base + ("" if openmetrics else suffix)
        yield f"# HELP {name} {self.doc}"
        yield f"# TYPE {name} {self.kind}"
        for suffix, labels, value in self.samples():
            inner = ",".join(f'{name}="{_escaped(said)}"' for name, said in labels if said)
            yield f"{self.base}{suffix}{f'{{{inner}}}' if inner else ''} {_number_text(value)}"

    def samples(self) -> Iterator[tuple[str, list[tuple[str, str]], float]]:
        """(suffix, labels, number) of all its series."""
        raise NotImplementedError

    def _found(self, said: tuple[str, ...]) -> S:
        kept = tuple(self._kept(*pair) for pair in zip(self._values, said, strict=True))
        if kept not in self.series and len(self.series) >= _MOST_SERIES:
            kept = (OTHER,) * len(kept)
        return self.series.get(kept) or self.series.setdefault(kept, self._begun(kept))

    def _begun(self, said: tuple[str, ...]) -> S:
        raise NotImplementedError

    @staticmethod
    def _kept(values: set[str], said: str) -> str:
        said = "".join(char if char.isprintable() else "?" for char in said[:100])
        if len(values) < _MOST_VALUES:
            values.add(said)
        return said if said in values else OTHER

    def _named(self, said: tuple[str, ...]) -> list[tuple[str, str]]:
        return list(zip(map(_prometheus, self.labels), said, strict=True))


class Counter(Family[Series]):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, unit: str, doc: str, labels: str = "") -> None:
        super().__init__(name, unit, doc, labels)
        if not labels:
            self.of()  # so that 0 is shown, too

    def add(self, amount: float, *said: str) -> None:
        self.of(*said).add(amount)

    def reach(self, total: float) -> None:
        """Set a total that is counted elsewhere."""
        self.add(total - self.of().number)

    def samples(self) -> Iterator[tuple[str, list[tuple[str, str]], float]]:
        for said, series in self.series.items():
            yield "_total", self._named(said), series.number

    def _begun(self, said: tuple[str, ...]) -> Series:
        return Series(self, said)


class Gauge(Family[Series]):
    """A number that goes up and down."""

    kind = "gauge"

    def set(self, state: float, *said: str) -> None:
        self.of(*said).set(state)

    def set_all(self, states: Mapping[str, float]) -> None:
        """Set states by the value of the only label; values not named become 0."""
        for value in {*states, *(said[0] for said in self.series)}:
            self.set(states.get(value, 0), value)

    def samples(self) -> Iterator[tuple[str, list[tuple[str, str]], float]]:
        for said, series in self.series.items():
            yield "", self._named(said), series.number

    def _begun(self, said: tuple[str, ...]) -> Series:
        return Series(self, said)


class Histogram(Family[Spread]):
    """A distribution: how many numbers were at most as large as each bound."""

    kind = "histogram"

    def __init__(
        self, name: str, unit: str, doc: str, labels: str, bounds: tuple[float, ...]
    ) -> None:
        super().__init__(name, unit, doc, labels)
        self.bounds = bounds

    def observe(self, number: float, *said: str) -> None:
        self.of(*said).observe(number)

    def samples(self) -> Iterator[tuple[str, list[tuple[str, str]], float]]:
        for said, spread in self.series.items():
            named = self._named(said)
            running = itertools.accumulate(spread.counts)
            for bound, count in zip((*self.bounds, math.inf), running, strict=True):
                yield "_bucket", [*named, ("le", _number_text(float(bound)))], count
            yield "_sum", named, spread.number
            yield "_count", named, sum(spread.counts)

    def _begun(self, said: tuple[str, ...]) -> Spread:
        return Spread(self, said, self.bounds)


_MODEL: Final = "gen_ai.operation.name gen_ai.provider.name gen_ai.request.model"


class Vitals:
    """States rather than counts, brought up to date when somebody asks."""

    def __init__(self) -> None:
        self.build = Gauge("relay.build.info", "", "1, with the version as a label.", "version")
        self.ready = Gauge("relay.ready", "", "1 while /readyz answers 200.")
        self.running = Gauge("relay.inflight", "", "Requests that are being served.")
        self.cooling = Gauge("relay.cooldowns", "", "What is cooling down, by cause.", "cause")
        self.generation = Gauge("relay.config.generation", "", "Configurations taken so far.")
        self.reloads = Counter("relay.reload", "", "Reloads by their outcome.", "result")
        self.reloaded = Gauge("relay.config.reload.success", "", "1 if the last reload was taken.")
        self.state = Gauge("relay.state.up", "", "1 while the state store works.")
        self.lost_lines = Counter("relay.log.lines.lost", "", "Log lines that nobody read in time.")
        self.began = Gauge("process.start.time", "s", "When the process began, since 1970.")
        self.processor = Counter("process.cpu", "s", "Processor time used.")
        self.memory = Gauge("process.resident.memory", "By", "Memory in use.")
        self.descriptors = Gauge("process.open.fds", "", "File descriptors in use.")


class Metrics:
    """What is counted of each request, once, at its end.  The names `gen_ai.*` are from the GenAI
    semantic conventions: relay is a server to its clients, and to providers a client that uses
    tokens."""

    def __init__(self) -> None:
        self.requests = Counter(
            "relay.requests",
            "",
            "Requests by how they ended; the README explains the codes.",
            "operation dialect provider status code",
        )
        self.callers = Counter("relay.key.requests", "", "Requests by relay's keys.", "key code")
        self.caller_tokens = Counter(
            "relay.key.tokens", "", "Tokens by relay's keys.", "key gen_ai.token.type"
        )
        self.duration = Histogram(
            "gen_ai.server.request.duration",
            "s",
            "From a request to the last byte of its answer.",
            f"{_MODEL} error.type",
            _SECONDS,
        )
        self.first_token = Histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "From a request to the first meaningful event of its answer.",
            _MODEL,
            _SECONDS,
        )
        self.tokens = Histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a request as its provider counts them; input includes what was cached.",
            f"{_MODEL} gen_ai.token.type",
            _TOKENS,
        )
        self.cache = Counter(
            "relay.cache.tokens",
            "",
            "Input tokens by what the provider's prompt cache did with them.",
            "provider model kind",
        )
        self.overhead = Histogram(
            "relay.overhead",
            "s",
            "Until an answer began, less the time that was spent on attempts.",
            "",
            _OVERHEAD,
        )
        self.attempts = Histogram(
            "relay.attempt.duration",
            "s",
            "An attempt at a provider, until its first meaningful event or its failure.",
            "provider outcome",
            _SECONDS,
        )
        self.vitals = Vitals()
        self._tallies: dict[tuple[str, ...], Tally] = {}

    def tally(self, *alike: str) -> Tally:
        """For requests with the same operation, dialect, provider, model, key, status and code."""
        return self._tallies.get(alike) or self._found(alike)

    def _found(self, alike: tuple[str, ...]) -> Tally:
        if len(self._tallies) >= _MOST_TALLIES:
            self._tallies.clear()  # those still in use are looked up again
        return self._tallies.setdefault(alike, Tally(self, *alike))

    def families(self) -> list[Family[Any]]:
        everything = (*vars(self).values(), *vars(self.vitals).values())
        return [value for value in everything if isinstance(value, Family)]

    def exposition(self, openmetrics: bool = False) -> str:
        """All of it in Prometheus's text format 0.0.4, or as OpenMetrics 1.0."""
        lines = [line for family in self.families() for line in family.lines(openmetrics)]
        return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""])


class Tally:
    """The series in which requests that are alike are counted; some are looked up only when there
    is something to count, because from then on a series is shown."""

    def __init__(
        self,
        metrics: Metrics,
        operation: str,
        dialect: str,
        provider: str,
        model: str,
        key: str,
        status: str,
        code: str,
    ) -> None:
        self._metrics = metrics
        self._asked = (operation, provider, model)
        self._key = key
        self.requests = metrics.requests.of(operation, dialect, provider, status, code)
        self.callers = metrics.callers.of(key, code)
        self.duration = metrics.duration.of(*self._asked, "" if code == "OK" else code)

    @functools.cached_property
    def first_token(self) -> Spread:
        return self._metrics.first_token.of(*self._asked)

    @functools.cached_property
    def tokens(self) -> TokenTally:
        return TokenTally(self._metrics, self._asked, self._key)


class TokenTally:
    """The series in which their tokens are counted."""

    def __init__(self, metrics: Metrics, asked: tuple[str, str, str], key: str) -> None:
        kinds = ("input", "output")
        self._read, self._written = (metrics.tokens.of(*asked, kind) for kind in kinds)
        self._key_read, self._key_written = (metrics.caller_tokens.of(key, kind) for kind in kinds)
        self._cached, self._stored, self._fresh = (
            metrics.cache.of(*asked[1:], kind) for kind in ("read", "write", "fresh")
        )

    def count(self, usage: Usage) -> None:
        self._read.observe(usage.input)
        self._written.observe(usage.output)
        self._key_read.add(usage.input)
        self._key_written.add(usage.output)
        self._cached.add(usage.cache_read)
        self._stored.add(usage.cache_write)
        self._fresh.add(max(0, usage.input - usage.cache_read - usage.cache_write))


def _prometheus(name: str) -> str:
    return name.replace(".", "_")


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"")


def _number_text(number: float) -> str:
    if number == math.inf:
        return "+Inf"
    return repr(number)


# ==== 33. Feed ================================================================
# What happens, for those who watch it happen: the page, `relay top`, `relay logs`.  The last
# moments are kept, each with a number; a watcher reads on from the last number it has seen.  So
# one ring serves any number of watchers, and a slow one misses the oldest moments, nothing else.

_MOST_MOMENTS: Final = 500


class Moment(NamedTuple):
    number: int
    kind: str  # request | event
    data: JSON


class Feed:
    """The last moments, and the watchers that the next one wakes."""

    def __init__(self) -> None:
        self._moments = collections.deque[tuple[int, str, JSON]](maxlen=_MOST_MOMENTS)
        self._watchers: set[Callable[[], None]] = set()
        self._number = 0

    def say(self, kind: str, data: JSON) -> None:
        """Note that something happened; its data must not change any more."""
        self._number += 1
        self._moments.append((self._number, kind, data))
        for wake in self._watchers:
            wake()

    def since(self, number: int) -> list[Moment]:
        """The moments after this number; all of them if it is from an earlier process."""
        if number > self._number:
            number = 0
        return [Moment(*moment) for moment in self._moments if moment[0] > number]

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake`, which must not wait, at each moment; the result ends that."""
        self._watchers.add(wake)
        return lambda: self._watchers.discard(wake)


################################################################################
#                                     I/O                                      #
################################################################################

# ==== 34. Log =================================================================
# One line per request, written when it is over, and a few events in between.  Text for people
# on a terminal, JSON otherwise.  Secrets were removed where the text was made; headers and bodies
# never come here.  A thread does the writing: a pipe that nobody reads blocks that thread and
# nothing else; lines that then find no room are counted, and the count is logged later.
#
#     event loop  --put-->  at most 4 MB of lines  --thread-->  stderr
#
# The first line after a silence is written at once.  Then the thread rests for a moment, in which
# lines only gather: to wake it for each of them would cost a busy relay more than the lines do,
# because a thread that wakes wants the interpreter's lock.

_LEVELS: Final = ("debug", "info", "warning", "error")
_MOST_UNWRITTEN: Final = 4 << 20  # bytes of lines that may wait: some 10,000 requests
_REST: Final = 0.02  # seconds between two writes


class Sink:
    """A stream to which a thread of its own writes lines in order."""

    def __init__(self, stream: TextIO | None, most: int = _MOST_UNWRITTEN) -> None:
        """`stream` is None where stderr was closed: descriptor 2 may be a client's socket then."""
        self.terminal = stream is not None and stream.isatty()
        self.dropped = 0  # lines that nobody will ever see
        self._most = most if stream is not None else 0
        self._waiting: list[bytes] = []
        self._size = 0  # bytes not written yet, including those the thread has taken
        self._untold = 0  # lines dropped since the count was last logged
        self._idle = False  # must a line wake the thread?
        self._hurry = 0  # how many wait for everything to be written
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        if stream is not None:
            # Straight to the descriptor: at exit Python waits for the lock of its own stream,
            # which a thread stuck in a write would hold.
            arguments = (stream.fileno(),)
            threading.Thread(target=self._run, args=arguments, name="log", daemon=True).start()

    def put(self, line: bytes, lost: Callable[[int], bytes]) -> None:
        """Take a line if there is room; `lost` makes a line of the number of those dropped."""
        with self._lock:
            data = line + b"\n"
            if self._untold:
                data = lost(self._untold) + b"\n" + data
            if self._size + len(data) > self._most:
                self._drop(1)
                return
            self._waiting.append(data)
            self._size += len(data)
            self._untold = 0
            if self._idle:
                self._idle = False  # it is woken once, however long that takes
                self._changed.notify_all()

    @property
    def losing(self) -> bool:
        """Have lines been dropped and not yet been reported?"""
        return self._untold > 0

    def flush(self, within: float) -> bool:
        """Wait until all is written, but not for ever; is it?"""
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._size == 0, within)
            finally:
                self._hurry -= 1

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._untold += lines

    def _run(self, descriptor: int) -> None:
        while True:
            data = self._taken()
            while data:
                data = data[self._write(descriptor, data) :]
            with self._changed:
                self._changed.wait_for(lambda: self._hurry > 0, _REST)

    def _taken(self) -> bytes:
        """All lines waiting, as soon as there is one."""
        with self._changed:
            self._idle = not self._waiting
            self._changed.wait_for(lambda: self._waiting)
            data = b"".join(self._waiting)
            self._waiting.clear()
            return data

    def _write(self, descriptor: int, data: bytes) -> int:
        """How many bytes are done with: written, or given up because they cannot be."""
        written = 0
        try:
            written = os.write(descriptor, data[: 1 << 16])
        except BlockingIOError:  # whoever shares the terminal or pipe set this mode, as node does
            select.select((), (descriptor,), ())
        except OSError:  # a full disk, a reader that is gone: service must go on
            written = len(data)
            with self._lock:
                self._drop(data.count(b"\n"))
        with self._changed:
            self._size -= written
            self._changed.notify_all()
        return written


class Log:
    """Writes what happens, in lines; `zone` is for times in text, JSON has UTC."""

    def __init__(
        self, config: LogConfig, zone: datetime.tzinfo | None, sink: Sink, feed: Feed | None = None
    ) -> None:
        self.feed = feed or Feed()
        self.text = (config.format or ("text" if sink.terminal else "json")) == "text"
        self.sink = sink
        self._shown = _LEVELS[_LEVELS.index(config.level) :]
        self._zone = zone
        self._second = (-1, "")  # the last one that was formatted, and its text

    def event(self, level: str, message: str, **fields: Any) -> None:
        record = _event(level, message, fields)
        if level != "debug":
            self.feed.say("event", record)
        self._write("event", record)

    def request(self, record: JSON) -> None:
        """The line of a request."""
        self.feed.say("request", record)
        self._write("request", record)

    def fault(self, error: BaseException) -> None:
        """An unexpected exception: where it happened, but no values, which may be secret."""
        where = [f"{f.name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        self.event("error", "internal error", type=type(error).__name__, where=where[-6:])

    def _write(self, kind: str, record: JSON) -> None:
        if record["level"] in self._shown:
            self.sink.put(self._line(kind, record), self._lost)

    def _line(self, kind: str, record: JSON) -> bytes:
        if self.text:
            return moment_text(kind, record, self._zone).encode(errors="replace")
        return dumps(record | {"time": self._stamp(record["time"])})

    def _stamp(self, now: float) -> str:
        """2027-06-30T23:59:59.123+00:00"""
        whole, rest = divmod(int(now * 1000), 1000)
        second = self._second  # read once: other threads log, too
        if second[0] != whole:
            moment = datetime.datetime.fromtimestamp(whole, datetime.UTC)
            second = self._second = (whole, f"{moment:%Y-%m-%dT%H:%M:%S}")
        return f"{second[1]}.{rest:03}+00:00"

    def _lost(self, count: int) -> bytes:
        said = _event("warning", "log lines were lost: nobody read", {"lines": count})
        return self._line("event", said)


def _event(level: str, message: str, fields: JSON) -> JSON:
    return {"time": time.time(), "level": level, "message": message} | fields


def moment_text(kind: str, data: JSON, zone: datetime.tzinfo | None) -> str:
    """A moment of the feed in the form in which the log writes it on a terminal."""
    clock = datetime.datetime.fromtimestamp(data["time"], zone).strftime("%H:%M:%S")
    if kind == "request":
        return f"{clock} {_request_text(data)}"
    known = ("time", "level", "message")
    fields = {name: value for name, value in data.items() if name not in known}
    return f"{clock} {_event_text(data['level'], data['message'], fields)}"


def _event_text(level: str, message: str, fields: JSON) -> str:
    said = "  ".join(f"{name}={printable(value)}" for name, value in fields.items())
    return f"{level:7} {message}  {said}".rstrip()


def printable(value: object) -> str:
    """On one line and without escape codes, whoever wrote it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", text)


def _request_text(record: JSON) -> str:
    """OK 200  alice  claude-x -> glm/glm-4.6  1.20s first 0.40s  in 1200 (900 cached) out 80"""
    seconds = [f"{(record['ms'] or 0) / 1000:.2f}s"]
    if record["first_ms"] is not None:
        seconds.append(f"first {record['first_ms'] / 1000:.2f}s")
    if record["held_ms"] is not None:
        seconds.append(f"held {record['held_ms'] / 1000:.2f}s")
    tokens = ""
    if record["tokens_in"] is not None:
        cached = f" ({record['cache_read']} cached)" if record["cache_read"] else ""
        tokens = f"in {record['tokens_in']}{cached} out {record['tokens_out']}"
    paid = f"cost {record['cost']:.4f}" if record["cost"] else ""
    tries = [f"{t['target']} {t['plan']} {t['outcome']} {t['ms']}ms" for t in record["attempts"]]
    steps = (
        f"{record['code']:2} {record['status'] or '-'}",
        record["key"] or "",
        f"{record['model'] or '-'} -> {record['target'] or '-'}",
        " ".join(seconds),
        tokens,
        paid + (" (estimated)" if paid and record["estimated"] else ""),
        record["body"] or "",
        "; ".join(tries) if len(tries) != 1 or tries[0].split()[-2] != "ok" else "",
        record["error"] or "",
        record["id"],
    )
    return "  ".join(printable(step) for step in steps if step)


# ==== 35. State ===============================================================
# Where usage, budgets, limits and cooldowns outlive the process: nowhere, in a SQLite file that
# several processes may share, or in a Redis that any number of machines may share.  What gathers
# in memory goes to the store as a batch; what other relays put there comes back as news.  A batch
# that could not be stored is kept and tried again, so nothing is lost or counted twice.
#
#     store    batches           shared with      rates, concurrency    after a kill -9
#     memory   every second      nobody           here                  all is gone
#     SQLite   every second      this machine     here; budgets there   a second is missing
#     Redis    as things happen  everybody        there                 what was not yet sent

KEPT: Final = {HOUR: 35 * DAY, DAY: 800 * DAY}  # for how long the store keeps a span's rows
MOST_ROWS_STORED: Final = 500_000
MOST_RECENT_STORED: Final = 1000  # requests
MOST_NOTES_STORED: Final = 20_000


@dataclass(slots=True, kw_only=True)
class Batch:
    """What memory gathered since the last batch."""

    usage: dict[Row, Totals] = field(default_factory=dict)
    recent: list[JSON] = field(default_factory=list)
    spent: Spent = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    number: int = 0  # among this relay's batches, once it has been sent

    def __bool__(self) -> bool:
        return bool(self.usage or self.spent or self.ended or self.notes)


class Judgement(NamedTuple):
    """A shared store's answer to a permit: a refusal, or how much of the minute is used."""

    refusal: Refusal | None
    requests: int = 0
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class News:
    """What the store has that is new here, including our own batch."""

    spent: Spent = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)  # one per permit asked about


class StateTrouble(Exception):
    """The store cannot be used at the moment."""


class Store(Protocol):
    """What the keeper needs of a store."""

    shares_limits: bool  # does it judge every permit?

    async def open(self, to_read: bool = False) -> None:
        """ConfigError if it can never be used."""

    async def sync(
        self,
        batch: Batch,
        labels: Sequence[str],
        asked: Sequence[Permit],
        running: Sequence[Permit],
    ) -> News:
        """Store a batch, all of it or nothing (StateTrouble), and say what is new.

        `labels` are today's periods, `asked` permits to be judged, and `running` permits that are
        out, in case the store has forgotten them.
        """

    async def usage(self, span: int, since: float) -> dict[Row, Totals]: ...

    async def recent(self) -> list[JSON]:
        """The latest requests, the latest last."""

    async def close(self) -> None: ...


class MemoryStore:
    """Keeps everything until the process ends."""

    shares_limits = False

    def __init__(self) -> None:
        self._usage: dict[Row, Totals] = {}
        self._recent: collections.deque[JSON] = collections.deque(maxlen=MOST_RECENT_STORED)

    async def open(self, to_read: bool = False) -> None:
        return

    async def sync(
        self,
        batch: Batch,
        labels: Sequence[str],
        asked: Sequence[Permit],
        running: Sequence[Permit],
    ) -> News:
        for row, totals in batch.usage.items():
            self._usage.setdefault(row, Totals()).add(totals)
        self._recent.extend(batch.recent)
        if len(self._usage) > MOST_ROWS_STORED // 10:
            oldest = sorted(self._usage, key=lambda row: row.start)
            for row in oldest[: MOST_ROWS_STORED // 20]:
                del self._usage[row]
        return News()

    async def usage(self, span: int, since: float) -> dict[Row, Totals]:
        rows = self._usage.items()
        return {row: totals for row, totals in rows if row.span == span and row.start >= since}

    async def recent(self) -> list[JSON]:
        return list(self._recent)

    async def close(self) -> None:
        return


# ==== 36. SQLite ==============================================================
# The store in a file.  One thread of its own reads and writes it, so that nothing waits for the
# disk.  Several processes may have it open: counts are added to those in the file, and a process
# that sees that another wrote reads the sums again.

_SCHEMA_VERSION: Final = 1
_APPLICATION: Final = 0x72656C79  # "rely", which marks the file as ours
_SCHEMA: Final = f"""
CREATE TABLE usage (
    span INTEGER, start INTEGER, key TEXT, provider TEXT, model TEXT,
    {", ".join(f"{name} INTEGER NOT NULL" for name in COUNTS)},
    PRIMARY KEY (span, start, key, provider, model)
) WITHOUT ROWID;
CREATE TABLE spent (
    key TEXT, period TEXT, tokens INTEGER NOT NULL, cost INTEGER NOT NULL,
    PRIMARY KEY (key, period)
) WITHOUT ROWID;
CREATE TABLE recent (id INTEGER PRIMARY KEY, line TEXT NOT NULL);
CREATE TABLE notes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, name TEXT, line TEXT NOT NULL,
    until REAL NOT NULL, by TEXT NOT NULL, UNIQUE (kind, name)
);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_SCHEMA_VERSION};
"""
_ADD_USAGE: Final = (
    f"INSERT INTO usage VALUES ({', '.join('?' * (5 + len(COUNTS)))})"  # noqa: S608  # no data
    " ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)
)
_ADD_SPENT: Final = (
    "INSERT INTO spent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
    " tokens = tokens + excluded.tokens, cost = cost + excluded.cost"
)


_ADD_NOTE: Final = (
    "INSERT OR REPLACE INTO notes (kind, name, line, until, by) VALUES (?, ?, ?, ?, ?)"
)


class SQLiteFile:
    """The file, as one thread sees it; every method may block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data: sqlite3.Connection
        self._me = secrets.token_hex(8)
        self._seen: tuple[int, Sequence[str]] = (-1, ())  # data_version and labels, when last read
        self._heard = 0  # the last note
        self._trimmed = 0.0
        self._opened = (0, 0)  # which file that is, whatever it is called by now

    def open(self) -> None:
        """Open the file, made if there is none; ConfigError if it cannot be used."""
        with self._explained():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            opened = self._identity()
            self._data = sqlite3.connect(self.path, timeout=5, isolation_level=None)
            self._claim()
            self._go_wal()
            self._opened = opened

    def look(self) -> None:
        """Open the file as it is, for reading only."""
        with self._explained():
            os.close(os.open(self.path, os.O_RDONLY))
            self._data = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", timeout=5, uri=True)
            self._check()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError([f"state: cannot open {self.path}: {error.strerror}"]) from error
        except sqlite3.Error as error:
            message = f"state: {self.path} cannot be used: {error}; move it away to begin anew"
            raise ConfigError([message]) from error

    def _claim(self) -> None:
        """Make the tables if there are none, else check that they are ours and undamaged."""
        with self._writing():
            if self._number("schema_version"):
                self._check()
                (said,) = self._data.execute("PRAGMA quick_check(1)").fetchone()
                if said != "ok":
                    raise sqlite3.DatabaseError(f"it is damaged ({said})")
            else:
                for statement in _SCHEMA.split(";"):
                    self._data.execute(statement)

    def _check(self) -> None:
        if self._number("application_id") != _APPLICATION:
            raise sqlite3.DatabaseError("it is the database of another program")
        if (version := self._number("user_version")) != _SCHEMA_VERSION:
            known = f"it has schema {version}, this relay knows {_SCHEMA_VERSION}"
            raise sqlite3.DatabaseError(known)

    def _go_wal(self) -> None:
        """Then readers and the writer do not wait for one another; NORMAL syncs at checkpoints.

        The switch needs the file to itself, and fails at once if another process has it open.
        """
        for left in range(40, -1, -1):
            try:
                self._data.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if not left:
                    raise
                time.sleep(0.05)
        self._data.execute("PRAGMA synchronous = NORMAL")

    def _number(self, pragma: str) -> int:
        return int(self._data.execute(f"PRAGMA {pragma}").fetchone()[0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        self._data.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._data.execute("COMMIT")
        finally:
            if self._data.in_transaction:
                self._data.execute("ROLLBACK")

    def sync(self, batch: Batch, labels: Sequence[str], now: float) -> News:
        heard = self._heard
        try:
            self._find()
            if not batch:
                return self._news(labels, now)
            with self._writing():
                self._add(batch)
                self._trim(now)
                # before the end: what is stored, and then is not understood, would come again
                return self._news(labels, now)
        except (sqlite3.Error, OSError, ValueError, OverflowError, ConfigError) as error:
            self._seen, self._heard = (-1, ()), heard
            raise StateTrouble(f"{self.path}: {error}") from error

    def _find(self) -> None:
        """If the file is moved away while relay runs, make a new one: that is what was meant."""
        if self._identity() != self._opened:
            self._data.close()
            self._opened, self._heard = (0, 0), 0  # until it is
            self.open()
            raise StateTrouble(f"{self.path} was moved or replaced; it is opened anew")

    def _identity(self) -> tuple[int, int]:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return -1, -1
        return there.st_dev, there.st_ino

    def _news(self, labels: Sequence[str], now: float) -> News:
        # another number than last time: another process wrote
        seen = (self._number("data_version"), labels)
        if seen == self._seen:
            return News()
        news = News(spent=self._spent(labels), notes=self._notes(now))
        self._seen = seen
        return news

    def _add(self, batch: Batch) -> None:
        self._data.executemany(
            _ADD_USAGE, [(*row, *totals.counts()) for row, totals in batch.usage.items()]
        )
        self._data.executemany(
            _ADD_SPENT,
            [(*who, spend.tokens, spend.cost) for who, spend in batch.spent.items()],
        )
        lines = [(dumps(line).decode(),) for line in batch.recent]
        self._data.executemany("INSERT INTO recent (line) VALUES (?)", lines)
        notes = [
            (note.kind, note.name, dumps(note.line).decode(), note.until, self._me)
            for note in batch.notes
        ]
        self._data.executemany(_ADD_NOTE, notes)

    def _trim(self, now: float) -> None:
        """Delete what is too old or too much, so that the file stays bounded."""
        if abs(now - self._trimmed) < 600:  # clocks are set back, too
            return
        self._trimmed = now
        for span, kept in KEPT.items():
            self._data.execute("DELETE FROM usage WHERE span = ? AND start < ?", (span, now - kept))
        oldest = "SELECT start FROM usage ORDER BY start DESC LIMIT 1 OFFSET ?"
        self._data.execute(f"DELETE FROM usage WHERE start <= ({oldest})", (MOST_ROWS_STORED,))  # noqa: S608
        last = "SELECT max(id) FROM recent"
        self._data.execute(f"DELETE FROM recent WHERE id <= ({last}) - ?", (MOST_RECENT_STORED,))  # noqa: S608
        last = "SELECT max(seq) FROM notes"
        query = f"DELETE FROM notes WHERE until < ? OR seq <= ({last}) - ?"  # noqa: S608
        self._data.execute(query, (now, MOST_NOTES_STORED))
        gone = datetime.datetime.fromtimestamp(now - 70 * DAY).strftime("%Y-%m")
        self._data.execute("DELETE FROM spent WHERE period < ?", (gone,))

    def _spent(self, labels: Sequence[str]) -> Spent:
        marks = ", ".join("?" * len(labels))
        rows = self._data.execute(f"SELECT * FROM spent WHERE period IN ({marks})", labels)  # noqa: S608
        return {(key, label): Spend(tokens, cost) for key, label, tokens, cost in rows}

    def _notes(self, now: float) -> list[Note]:
        """What others have noted since the last call."""
        query = (
            "SELECT seq, kind, name, line, until FROM notes"
            " WHERE seq > ? AND until > ? AND by != ? ORDER BY seq"
        )
        notes = []
        for seq, kind, name, line, until in self._data.execute(query, (self._heard, now, self._me)):
            self._heard = seq
            with contextlib.suppress(ValueError):  # of another version
                notes.append(Note(kind, name, loads(line), until))
        return notes

    def usage(self, span: int, since: float) -> dict[Row, Totals]:
        query = "SELECT * FROM usage WHERE span = ? AND start >= ?"
        return {
            Row(*line[:5]): Totals(*line[5:]) for line in self._data.execute(query, (span, since))
        }

    def recent(self) -> list[JSON]:
        query = "SELECT line FROM recent ORDER BY id DESC LIMIT ?"
        return [loads(line) for (line,) in self._data.execute(query, (MOST_RECENT_STORED,))][::-1]

    def close(self) -> None:
        self._data.close()


class SQLiteStore:
    """The file with a thread of its own, so that nothing waits for the disk."""

    shares_limits = False

    def __init__(self, path: Path) -> None:
        self._file = SQLiteFile(path)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "state")

    async def open(self, to_read: bool = False) -> None:
        await self._call(self._file.look if to_read else self._file.open)

    async def sync(
        self,
        batch: Batch,
        labels: Sequence[str],
        asked: Sequence[Permit],
        running: Sequence[Permit],
    ) -> News:
        return await self._call(self._file.sync, batch, labels, time.time())

    async def usage(self, span: int, since: float) -> dict[Row, Totals]:
        return await self._call(self._file.usage, span, since)

    async def recent(self) -> list[JSON]:
        return await self._call(self._file.recent)

    async def close(self) -> None:
        await self._call(self._file.close)
        self._thread.shutdown(wait=False)

    async def _call(self, function: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        except sqlite3.Error as error:
            raise StateTrouble(f"{self._file.path}: {error}") from error


# ==== 37. Redis ===============================================================
# The store that any number of relays share.  One connection, one exchange at a time: what gathered
# meanwhile goes together and in order, first what has ended, then the permits that are asked for.
# A script in Redis judges every permit, by the rules of section `Limits`, so that two relays cannot
# both give away the last one.
#
#     last:RELAY             the number of its latest batch: a batch that comes twice counts once
#     spent:KEY:PERIOD       tokens and cost of a key
#     out:KEY, lease:KEY     permits: what they reserve, and until when they are believed
#     minute:KEY             requests and tokens, second by second
#     usage:SPAN:START       totals; `starts:SPAN` lists the starts
#     recent, notes:...      the latest requests; what relays tell one another about health
#
# A relay renews the permits it holds; those of a relay that died expire.  A Redis that comes back
# with less than it had acknowledged is sent the last seconds again.

_PATIENCE: Final = 0.5  # seconds a client may have to wait for Redis, once; then it is down
_RECONNECTING: Final = 3.0  # seconds to reach it, while nobody waits
_LEASE: Final = 30  # seconds a permit counts without word from its relay
_RESENT: Final = 5.0  # seconds of batches that are sent again after a break

# KEYS: the prefix.  ARGV: key, permit, tokens, cost, day, month, lease, rpm, tpm, concurrent,
# cost_per_day, cost_per_month, tokens_per_day, tokens_per_month; -1 is no limit.
_ADMIT: Final = """
local function at(kind) return KEYS[1] .. ':' .. kind .. ':' .. ARGV[1] end
local out, lease, minute = at('out'), at('lease'), at('minute')
local id, tokens, cost = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second + tonumber(time[2]) / 1000000

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', lease, '-inf', now)) do
  redis.call('ZREM', lease, gone)
  redis.call('HDEL', out, gone)
end
local running, reserved = 0, {tokens = 0, cost = 0}
for _, permit in ipairs(redis.call('HVALS', out)) do
  local t, c = permit:match('^(%d+):(%d+)')
  running = running + 1
  reserved.tokens = reserved.tokens + tonumber(t)
  reserved.cost = reserved.cost + tonumber(c)
end
local spent = {}
for index = 1, 2 do
  local both = redis.call('HMGET', at('spent') .. ':' .. ARGV[4 + index], 'tokens', 'cost')
  spent[index] = {tokens = tonumber(both[1] or 0), cost = tonumber(both[2] or 0)}
end
local slots, used = {}, {r = 0, t = 0}
local counted = redis.call('HGETALL', minute)
for index = 1, #counted, 2 do
  local began, kind = counted[index]:match('^(%d+):(.)')
  began = tonumber(began)
  if began + 61 <= now then
    redis.call('HDEL', minute, counted[index])
  else
    local amount = tonumber(counted[index + 1])
    slots[#slots + 1] = {began, kind, amount}
    used[kind] = used[kind] + amount
  end
end
table.sort(slots, function(a, b) return a[1] < b[1] end)

local function verdict(word, wait)
  local function text(number) return string.format('%.0f', number) end
  return {word, text(wait * 1000), text(used.r), text(used.t), text(spent[1].tokens),
          text(spent[1].cost), text(spent[2].tokens), text(spent[2].cost)}
end
local budgets = {{'cost_per_day', 'cost', 1, 11}, {'cost_per_month', 'cost', 2, 12},
                 {'tokens_per_day', 'tokens', 1, 13}, {'tokens_per_month', 'tokens', 2, 14}}
for _, budget in ipairs(budgets) do
  local word, what, period, most = budget[1], budget[2], budget[3], tonumber(ARGV[budget[4]])
  local gone = spent[period][what]
  if most >= 0 and gone + reserved[what] >= most then
    return verdict(word, gone >= most and 0 or 2)
  end
end
local concurrent = tonumber(ARGV[10])
if concurrent >= 0 and running >= concurrent then return verdict('concurrent', 1) end
for _, rate in ipairs({{'rpm', 'r', 1, 8}, {'tpm', 't', tokens, 9}}) do
  local most = tonumber(ARGV[rate[4]])
  local excess = used[rate[2]] + rate[3] - most
  if most >= 0 and excess > 0 then
    for _, slot in ipairs(slots) do
      if slot[2] == rate[2] then excess = excess - slot[3] end
      if excess <= 0 then return verdict(rate[1], slot[1] + 61 - now) end
    end
  end
end
redis.call('HINCRBY', minute, second .. ':r', 1)
redis.call('HINCRBY', minute, second .. ':t', ARGV[3])
used = {r = used.r + 1, t = used.t + tokens}
redis.call('EXPIRE', minute, 120)
redis.call('HSET', out, id, ARGV[3] .. ':' .. ARGV[4] .. ':' .. second)
redis.call('ZADD', lease, now + tonumber(ARGV[7]), id)
redis.call('EXPIRE', out, 3600)
redis.call('EXPIRE', lease, 3600)
return verdict('', 0)
"""

# KEYS: the prefix.  ARGV: relay, the batch as JSON ('' for none), the last note that is known,
# lease, most recent, most notes.  Answers the number of the last note, and the notes in between.
_STORE: Final = """
local function at(...) return table.concat({KEYS[1], ...}, ':') end
local function add(key, field, amount, ttl)
  redis.call('HINCRBY', key, field, string.format('%.0f', amount))
  redis.call('EXPIRE', key, ttl)
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local day, me = 86400, ARGV[1]
local batch = ARGV[2] ~= '' and cjson.decode(ARGV[2]) or {number = 0, running = {}}

if batch.number > tonumber(redis.call('GET', at('last', me)) or 0) then
  redis.call('SET', at('last', me), string.format('%.0f', batch.number), 'EX', 35 * day)
  for _, row in ipairs(batch.usage) do
    local span, start, who, ttl, counts = row[1], row[2], row[3], row[4], row[5]
    local key = at('usage', span, start)
    for name, amount in pairs(counts) do add(key, who .. ' ' .. name, amount, ttl) end
    redis.call('ZADD', at('starts', span), start, start)
    redis.call('ZREMRANGEBYSCORE', at('starts', span), '-inf', now - ttl)
    redis.call('EXPIRE', at('starts', span), ttl)
  end
  for _, spend in ipairs(batch.spent) do
    local key = at('spent', spend[1], spend[2])
    add(key, 'tokens', spend[3], 70 * day)
    add(key, 'cost', spend[4], 70 * day)
  end
  for _, line in ipairs(batch.recent) do redis.call('LPUSH', at('recent'), line) end
  redis.call('LTRIM', at('recent'), 0, tonumber(ARGV[5]) - 1)
  redis.call('EXPIRE', at('recent'), 35 * day)
  for _, permit in ipairs(batch.ended) do
    local out, minute = at('out', permit[1]), at('minute', permit[1])
    local asked, second = (redis.call('HGET', out, permit[2]) or ''):match('^(%d+):%d+:(%d+)')
    if asked and redis.call('HEXISTS', minute, second .. ':t') == 1 then
      local more = string.format('%.0f', permit[3] - tonumber(asked))
      redis.call('HINCRBY', minute, second .. ':t', more)
    end
    redis.call('HDEL', out, permit[2])
    redis.call('ZREM', at('lease', permit[1]), permit[2])
  end
  for _, note in ipairs(batch.notes) do
    local number = redis.call('INCR', at('notes', 'count'))
    redis.call('HSET', at('notes', 'lines'), note[1], note[2])
    redis.call('ZADD', at('notes', 'order'), number, note[1])
    redis.call('ZADD', at('notes', 'until'), note[3], note[1])
  end
end

for _, permit in ipairs(batch.running) do
  redis.call('HSETNX', at('out', permit[1]), permit[2], permit[3])
  redis.call('ZADD', at('lease', permit[1]), now + tonumber(ARGV[4]), permit[2])
  redis.call('EXPIRE', at('out', permit[1]), 3600)
  redis.call('EXPIRE', at('lease', permit[1]), 3600)
end

local old = redis.call('ZRANGEBYSCORE', at('notes', 'until'), '-inf', now, 'LIMIT', 0, 100)
if redis.call('ZCARD', at('notes', 'order')) > tonumber(ARGV[6]) then
  old[#old + 1] = redis.call('ZRANGE', at('notes', 'order'), 0, 0)[1]
end
for _, name in ipairs(old) do
  redis.call('HDEL', at('notes', 'lines'), name)
  redis.call('ZREM', at('notes', 'order'), name)
  redis.call('ZREM', at('notes', 'until'), name)
end
local lines, last = {}, tonumber(redis.call('GET', at('notes', 'count')) or 0)
local seen = tonumber(ARGV[3])
if last ~= seen then
  if last < seen then seen = 0 end
  for _, kind in ipairs({'lines', 'order', 'until', 'count'}) do
    redis.call('EXPIRE', at('notes', kind), 36 * day)
  end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', at('notes', 'order'), '(' .. seen, last)) do
    lines[#lines + 1] = redis.call('HGET', at('notes', 'lines'), name)
  end
end
return {string.format('%.0f', last), lines}
"""


class RedisStore:
    """Redis, through its official client, which is an optional dependency."""

    shares_limits = True

    def __init__(self, url: str) -> None:
        """`?prefix=` in the URL is for us: what the names of all keys begin with."""
        parts = urllib.parse.urlsplit(url)
        query = dict(urllib.parse.parse_qsl(parts.query))
        # braces: in a cluster they keep all keys in one slot, which the scripts need
        self._root = f"{{{query.pop('prefix', 'relay')}}}"
        self._url = parts._replace(query=urllib.parse.urlencode(query)).geturl()
        self._me = secrets.token_hex(8)
        self._client: Any = None
        self._scripts: tuple[str, str] | None = None  # once it is reached, and until it breaks
        self._number = 0  # of the last batch
        self._stored: collections.deque[tuple[float, Batch]] = collections.deque()
        self._heard = 0  # the last note

    async def open(self, to_read: bool = False) -> None:
        from redis import asyncio as client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        patience = _RECONNECTING if to_read else _PATIENCE
        try:
            self._client = client.Redis.from_url(
                self._url,
                decode_responses=True,
                socket_connect_timeout=patience,
                socket_timeout=patience,
                retry=Retry(NoBackoff(), 0),  # whoever waits is a client of ours
            )
        except (ValueError, TypeError) as error:
            raise ConfigError([f"state: not a Redis URL: {error}"]) from error

    async def sync(
        self,
        batch: Batch,
        labels: Sequence[str],
        asked: Sequence[Permit],
        running: Sequence[Permit],
    ) -> News:
        if batch and not batch.number:
            self._number += 1
            batch.number = self._number
        async with self._watched(_PATIENCE if self._scripts else _RECONNECTING):
            if self._scripts is None:
                self._scripts = await self._reached()
            store, admit = self._scripts
            pipeline = self._client.pipeline(transaction=False)
            pipeline.evalsha(store, 1, self._root, *self._store_arguments(batch, running))
            # once: by the time Redis answers it may be the next day, with nothing spent in it
            days = [periods(time.time(), permit.caller.zone) for permit in asked]
            for permit, today in zip(asked, days, strict=True):
                pipeline.evalsha(admit, 1, self._root, *_admit_arguments(permit, today))
            said, *judged = await pipeline.execute()
        self._remember(batch)
        news = self._news(said)
        for permit, today, words in zip(asked, days, judged, strict=True):
            self._judged(news, permit, today, words)
        return news

    @contextlib.asynccontextmanager
    async def _watched(self, patience: float) -> AsyncIterator[None]:
        """Whatever goes wrong becomes StateTrouble, and the connection is then checked afresh."""
        from redis.exceptions import RedisError

        fine = False
        try:
            async with asyncio.timeout(patience):
                yield
            fine = True
        except TimeoutError as error:
            raise StateTrouble(f"Redis did not answer within {patience:g} s") from error
        except (RedisError, OSError) as error:
            raise StateTrouble(f"Redis: {error}") from error
        finally:
            if not fine:
                self._scripts = None

    async def _reached(self) -> tuple[str, str]:
        """The scripts' names, once Redis knows them and has all that it had acknowledged."""
        store = await self._client.script_load(_STORE)
        admit = await self._client.script_load(_ADMIT)
        last = int(await self._client.get(f"{self._root}:last:{self._me}") or 0)
        missing = [batch for _, batch in self._stored if batch.number > last]
        pipeline = self._client.pipeline(transaction=False)
        for batch in missing:
            pipeline.evalsha(store, 1, self._root, *self._store_arguments(batch, ()))
        await pipeline.execute()
        return store, admit

    def _store_arguments(self, batch: Batch, running: Sequence[Permit]) -> list[object]:
        body = _batch_text(batch, running, self._me) if batch or running else ""
        return [self._me, body, self._heard, _LEASE, MOST_RECENT_STORED, MOST_NOTES_STORED]

    def _remember(self, batch: Batch) -> None:
        now = time.monotonic()
        if batch:
            self._stored.append((now, batch))
        while self._stored and self._stored[0][0] < now - _RESENT:
            self._stored.popleft()

    def _news(self, said: Any) -> News:
        self._heard = int(said[0])
        news = News()
        for line in said[1]:
            with contextlib.suppress(ValueError, TypeError, LookupError):  # of another version
                by, *note = loads(line)
                news.notes += [Note(*note)] if by != self._me else []
        return news

    @staticmethod
    def _judged(news: News, permit: Permit, labels: tuple[str, str], words: Sequence[str]) -> None:
        """What the script said to a permit."""
        word, wait, *counts = words
        requests, tokens, *spent = map(int, counts)
        refusal = Refusal(word, int(wait) / 1000) if word else None
        news.judgements.append(Judgement(refusal, requests, tokens))
        for label, at in zip(labels, (0, 2), strict=True):
            news.spent[permit.caller.name, label] = Spend(*spent[at : at + 2])

    async def usage(self, span: int, since: float) -> dict[Row, Totals]:
        found: dict[Row, Totals] = {}
        async with self._watched(_RECONNECTING):
            starts = await self._client.zrangebyscore(f"{self._root}:starts:{span}", since, "+inf")
            pipeline = self._client.pipeline(transaction=False)
            for start in starts:
                pipeline.hgetall(f"{self._root}:usage:{span}:{start}")
            for start, fields in zip(starts, await pipeline.execute(), strict=True):
                for name, amount in fields.items():
                    who, _, count = name.rpartition(" ")
                    totals = found.setdefault(Row(span, int(start), *loads(who)), Totals())
                    if count in COUNTS:
                        setattr(totals, count, int(amount))
        return found

    async def recent(self) -> list[JSON]:
        async with self._watched(_RECONNECTING):
            lines = await self._client.lrange(f"{self._root}:recent", 0, MOST_RECENT_STORED)
        return [loads(line) for line in reversed(lines)]

    async def close(self) -> None:
        await self._client.aclose()


def _batch_text(batch: Batch, running: Sequence[Permit], by: str) -> str:
    """A batch as the script reads it."""
    notes = [
        (f"{note.kind} {note.name}", dumps((by, *note)).decode(), note.until)
        for note in batch.notes
    ]
    usage = [
        (
            row.span,
            row.start,
            dumps(row[2:]).decode(),
            KEPT[row.span] + DAY,
            {name: count for name, count in zip(COUNTS, totals.counts(), strict=True) if count},
        )
        for row, totals in batch.usage.items()
    ]
    body = {
        "number": batch.number,
        "usage": usage,
        "recent": [dumps(line).decode() for line in batch.recent],
        "spent": [(*who, spend.tokens, spend.cost) for who, spend in batch.spent.items()],
        "ended": batch.ended,
        "notes": notes,
        "running": [_running(permit) for permit in running],
    }
    return dumps(body).decode()


def _running(permit: Permit) -> tuple[str, str, str]:
    asked = permit.reserved
    return permit.caller.name, permit.id, f"{asked.tokens}:{asked.cost}:0"


def _admit_arguments(permit: Permit, labels: tuple[str, str]) -> list[object]:
    limits, asked = permit.caller.limits or LimitConfig(), permit.reserved
    rates = (limits.rpm, limits.tpm, limits.concurrent)
    most = [-1 if rate is None else rate for rate in rates]
    for word, *_ in BUDGETS:
        amount = budget(limits, word)
        most.append(-1 if amount is None else amount)
    return [permit.caller.name, permit.id, asked.tokens, asked.cost, *labels, _LEASE, *most]


# ==== 38. Keeper ==============================================================
# Takes what memory gathered to the store, and brings back what others did.  One exchange at a
# time: every second, and if limits are shared, as soon as a permit is asked for or given back.
# While the store is down nobody waits for it: each relay decides by what it knows itself.

_EVERY: Final = 1.0  # seconds between two exchanges when nothing happens
_RENEWED: Final = 10.0  # seconds between two reminders of the permits that are out
_LONGEST_PAUSE: Final = 15.0  # seconds between two tries to reach a store that is down


def store_of(state: str) -> Store:
    """The store that `state` names."""
    kind, _, where = state.partition(":")
    if kind in ("redis", "rediss"):
        return RedisStore(state)
    return SQLiteStore(Path(where)) if kind == "sqlite" else MemoryStore()


async def usage_report(
    store: Store, days: int, now: float, zone: datetime.tzinfo | None, by: Sequence[str] = ROW_NAMES
) -> JSON:
    """What was used in the last days, and in the hours of the last one, as JSON."""
    _, today = span_starts(now, zone)
    spans = {
        "days": await store.usage(DAY, today - (days - 1) * DAY - HOUR),  # an hour: summer time
        "hours": await store.usage(HOUR, now - DAY),
    }
    return {name: _records(summed(rows, by), by, zone) for name, rows in spans.items()}


def _records(
    sums: Mapping[tuple[int, tuple[str, ...]], Totals],
    by: Sequence[str],
    zone: datetime.tzinfo | None,
) -> list[JSON]:
    records: list[JSON] = []
    for (start, who), totals in sums.items():
        when = datetime.datetime.fromtimestamp(start, zone).astimezone(zone).isoformat()
        counts = dict(zip(COUNTS, totals.counts(), strict=True)) | {"cost": totals.cost / MONEY}
        records.append({"start": when, **dict(zip(by, who, strict=True)), **counts})
    return records


class Keeper:
    """Keeps memory and the store in step."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        limits: Limits,
        notebook: Notebook,
        callers: Callable[[], Iterable[Caller]],
        log: Callable[[], Log],
    ) -> None:
        self.store = store
        self.trouble = ""  # why the store cannot be used just now
        self._ledger = ledger
        self._limits = limits
        self._notebook = notebook
        self._callers = callers
        self._log = log
        self._unstored: Batch | None = None
        self._asked: dict[Permit, asyncio.Future[Judgement | None]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        # in time that is never set back: when notes were gathered, permits renewed, trouble seen
        self._noted = self._renewed = self._since = -math.inf
        self._pause = _EVERY

    async def start(self) -> None:
        """Open the store and read what was spent, before anybody is admitted."""
        await self.store.open()
        await self.sync()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """The last batch; an exchange under way is waited for, or it would be stored twice."""
        self._stopping = True
        self._wake.set()
        if self._task:
            await self._task
            self._noted = -math.inf
            await self.sync()
            if self.trouble:
                lost = "what was used since the state store went down is lost"
                self._log().event("error", lost)
            await self.store.close()

    def wake(self) -> None:
        """Something ended that other relays may be waiting for."""
        if self.store.shares_limits and not self.trouble:
            self._wake.set()

    async def judged(self, permit: Permit) -> Judgement | None:
        """The shared store's judgement of a permit; None if it cannot be asked."""
        if self.trouble or self._stopping:
            return None
        answer: asyncio.Future[Judgement | None] = asyncio.get_running_loop().create_future()
        self._asked[permit] = answer
        self._wake.set()
        try:
            return await answer
        finally:  # if the client is gone: the store must not hear of it after its end
            self._asked.pop(permit, None)

    async def _run(self) -> None:
        while not self._stopping:
            pause = self._pause if self.trouble else _EVERY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            await self.sync()

    async def sync(self) -> None:
        """One exchange, after which nobody waits who asked before it.

        Whatever goes wrong is the store's trouble for now: were this to end, nothing would be
        written any more, and whoever asks would wait for ever.
        """
        asked = {permit: answer for permit, answer in self._asked.items() if not answer.done()}
        self._asked = {}
        answers: Sequence[Judgement | None]
        try:
            answers = await self._exchanged(list(asked))
            self._up()
        except Exception as error:  # noqa: BLE001  # of a store, its client and what it holds: any
            self._down(error)
            asked |= self._asked
            self._asked = {}
            answers = [None] * len(asked)
        for waiting, judgement in zip(asked.values(), answers, strict=True):
            if not waiting.done():  # else its client is gone
                waiting.set_result(judgement)

    async def _exchanged(self, asked: Sequence[Permit]) -> Sequence[Judgement]:
        """A batch there, news back; one that could not be stored goes first next time."""
        now, wall = time.monotonic(), time.time()
        batch = self._unstored = self._unstored or self._gathered(now, wall)
        zones = {caller.zone for caller in self._callers()}
        labels = sorted({label for zone in zones for label in periods(wall, zone)})
        due = self.store.shares_limits and now >= self._renewed + _RENEWED
        running = self._limits.running() if due else ()
        running = [permit for permit in running if permit not in asked]
        news = await self.store.sync(batch, labels, asked, running)
        self._unstored = None
        self._renewed = now if due else self._renewed
        self._limits.learn(news.spent)
        self._notebook.learn(news.notes)
        if len(news.judgements) != len(asked):
            raise StateTrouble(f"it judged {len(news.judgements)} of {len(asked)} permits")
        return news.judgements

    def _gathered(self, now: float, wall: float) -> Batch:
        batch = Batch()
        if now >= self._noted + _EVERY:
            batch.notes = self._notebook.collect(wall)
            self._noted = now
        batch.usage, batch.recent = self._ledger.collect()
        batch.spent, batch.ended = self._limits.collect()
        return batch

    def _down(self, error: Exception) -> None:
        """Say when the store goes, once, and leave it alone for longer each time."""
        trouble = str(error) or type(error).__name__
        if not self.trouble:
            log = self._log()
            log.event("error", f"the state store is down, relay goes on alone: {trouble}")
            if not isinstance(error, StateTrouble):
                log.fault(error)
        calm = time.monotonic() > self._since + 60
        self._pause = _EVERY if calm else min(2 * self._pause, _LONGEST_PAUSE)
        self._since, self.trouble = time.monotonic(), trouble

    def _up(self) -> None:
        if self.trouble:
            self._log().event("info", "the state store is back, and has what it missed")
            self._notebook.repeat()
            self._renewed = -math.inf
        self.trouble = ""


# ==== 39. Connections =========================================================
# HTTP/1.1 to providers on bare asyncio transports: what a general client does for a request costs
# three times as much as the bytes do.  One class for each lifetime: a `Link` lives as long as its
# socket, a `LinkReply` as long as one answer, `Connections` as long as the process.
#
#     post     on the freshest idle link, or a new one (names cached, happy eyeballs, TLS verified)
#     head     is awaited; what arrives is decoded even before all of the request's body is sent
#     read     blocks as they come; a slow client stops the reading, not only the writing
#     end      by count or by chunk: the link is idle again at once.  By a close, a fault, bytes
#              after the end, an unsent body, or a reader who left: only this link is closed
#
# A link that the provider closes while a request is on its way cannot be told from one that was
# closed before.  So a request is sent again only if it went out on a link that had served one
# before, and if no byte of an answer came; and then on a new link, once.  A provider that is
# silent for long and then closes has read the request, and may have worked on it: that is a
# failure.

_MOST_UNREAD: Final = 1 << 16  # bytes of an answer that may wait for their reader; then it pauses
_MOST_IDLE: Final = 60.0  # seconds
_SHORT_BODY: Final = 1 << 16  # up to here one copy is cheaper than another system call
_CLOSED_BEFORE: Final = 5.0  # seconds within which a link that was closed before shows it
_NAMES_KEPT: Final = 10.0  # seconds for which an address is not looked up again
_EYEBALLS: Final = 0.25  # seconds before the next address is tried beside one (RFC 8305)


class LinkReply:
    """A provider's answer on a link; a `Reply` once its head is here."""

    __slots__ = (
        "_blocks",
        "_decoder",
        "_error",
        "_link",
        "_taker",
        "_unread",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, link: Link) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._link: Link | None = link
        self._decoder = ReplyDecoder()
        self._blocks: list[bytes] = []  # that came while nobody took any
        self._unread = 0
        self._taker: Callable[[bytes], object] | None = None
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[bool] | None = None

    @property
    def begun(self) -> bool:
        """Has the provider sent anything at all?"""
        return self._decoder.begun

    @property
    def ended(self) -> bool:
        return self._decoder.ended

    async def begin(self) -> None:
        """Wait for the head."""
        while not (head := self._decoder.head):
            if self._error:
                raise self._error
            await self._more()
        self.status, self.headers = head.status, head.headers

    async def pour(self, take: Callable[[bytes], object]) -> bool:
        while True:
            if self._blocks:
                if not take(self._kept()):
                    return True
            elif self._decoder.ended:
                return False
            elif self._error:
                raise self._error
            elif await self._more(take):
                return True

    async def read(self) -> bytes:
        blocks = list[bytes]()
        await self.pour(blocks.append)  # append returns None: one block is enough
        return b"".join(blocks)

    def _kept(self) -> bytes:
        blocks, self._blocks, self._unread = self._blocks, [], 0
        if self._link:
            self._link.resume()
        return b"".join(blocks)

    def close(self) -> None:
        """What is still to come is not wanted."""
        link, self._link = self._link, None
        self._blocks.clear()
        if link:
            link.close()

    async def _more(self, take: Callable[[bytes], object] | None = None) -> bool:
        """Wait for an event that `take` does not deal with; has `take` had enough?"""
        self._taker, self._waiter = take, asyncio.get_running_loop().create_future()
        if self._link:
            self._link.resume()
        try:
            return await self._waiter
        finally:
            self._taker = self._waiter = None

    # Called by the link

    def take(self, data: bytes) -> None:
        decoder = self._decoder
        block = decoder.feed(data)
        if self._taker is None:
            self._keep(block)
        elif block:
            self._hand(block, self._taker)
        if decoder.ended or decoder.fault:
            self._over()
            self._wake(False)

    def _hand(self, block: bytes, taker: Callable[[bytes], object]) -> None:
        try:
            more = taker(block)
        except RelayError as error:  # a content coding that is broken, for one
            self._error, more = error, None
        if not more:
            self._taker = None
            if self._link and len(block) > _MOST_UNREAD:
                self._link.pause()  # else as much again would be held for a slow client
            self._wake(self._error is None)

    def _keep(self, block: bytes) -> None:
        if block:
            self._blocks.append(block)
            self._unread += len(block)
        if self._unread > _MOST_UNREAD and self._link:
            self._link.pause()
        self._wake(False)

    def lost(self, error: Exception | None) -> None:
        """The connection is gone: this may be the answer's end, a break, or nothing new."""
        if self._link:
            said = getattr(error, "strerror", None) or str(error or "")
            if error:
                self._error = UpstreamError("transient", f"broke off its answer ({said})")
            if error and not isinstance(error, OSError):
                self._error = error  # a bug of ours, in what is called with the bytes
            elif not self._decoder.begun:
                message = "closed the connection without an answer"
                self._error = UpstreamError("transient", message, scope="endpoint")
            if not error:
                self._decoder.eof()
            self._over()
        self._wake(False)

    def _over(self) -> None:
        """No more bytes are taken; the link is released if all went well."""
        link, self._link = self._link, None
        if self._decoder.fault:
            self._error = self._error or UpstreamError("transient", self._decoder.fault)
        if link and self._decoder.kept:
            link.release(self._decoder.patience)
        elif link:
            link.close()

    def _wake(self, enough: bool) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(enough)


class Link(asyncio.Protocol):
    """One connection to a provider: a request goes out, its answer comes in, then the next."""

    def __init__(self, connections: Connections, origin: str) -> None:
        self.origin = origin
        self.served = 0  # requests
        self.until = 0.0  # when an idle link is too old, in the event loop's time
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._reply: LinkReply | None = None
        self._paused = False

    def ask(self, head: bytes, body: bytes) -> LinkReply:
        reply = self._reply = LinkReply(self)
        self.served += 1
        if self._transport is None:
            reply.lost(None)
        elif len(body) <= _SHORT_BODY:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return reply

    def pause(self) -> None:
        if self._transport and not self._paused:
            self._transport.pause_reading()
            self._paused = True

    def resume(self) -> None:
        if self._transport and self._paused:
            self._transport.resume_reading()
            self._paused = False

    def release(self, patience: float) -> None:
        """The answer is complete; may another request follow?  Not after an unsent body."""
        self._reply = None
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            self.close()
            return
        self.resume()
        self._connections.keep(self, min(_MOST_IDLE, patience - 1))

    def close(self) -> None:
        """At once, even if something is still to be sent."""
        transport, self._transport, self._reply = self._transport, None, None
        if transport:
            transport.abort()
        self._connections.forget(self)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._reply:
            self._reply.take(data)
        else:  # unasked: it must not be taken for the answer to the next request
            self.close()

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        reply, self._reply = self._reply, None
        if reply:
            reply.lost(exc)
        self.close()


class Connections:
    """The links to all providers: keeps idle ones by origin, and makes new ones."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._idle: dict[str, list[Link]] = {}
        self._names: dict[tuple[str, int], tuple[float, asyncio.Future[list[Any]]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, patience: float
    ) -> LinkReply:
        """The reply, once its head is here; else UpstreamError, OSError or ValueError."""
        place = address_of(url)
        head = request_text(place.target, place.host, headers, len(body))
        if link := self._freshest(place.origin):
            try:
                return await self._ask(link, head, body)
            except _Stale:
                pass
        link = await self._opened(place.origin, patience)
        return await self._ask(link, head, body)

    @staticmethod
    async def _ask(link: Link, head: bytes, body: bytes) -> LinkReply:
        reply, asked = link.ask(head, body), time.monotonic()
        try:
            await reply.begin()
        except UpstreamError as error:
            at_once = time.monotonic() < asked + _CLOSED_BEFORE
            if link.served > 1 and not reply.begun and at_once:
                raise _Stale from error
            raise
        finally:
            if not reply.status:  # it failed, or nobody waits any longer
                reply.close()
        return reply

    def keep(self, link: Link, seconds: float) -> None:
        if seconds <= 0:
            link.close()
            return
        loop = asyncio.get_running_loop()
        link.until = loop.time() + seconds
        self._idle.setdefault(link.origin, []).append(link)
        if not self._sweeping:
            self._sweeping = loop.call_later(_MOST_IDLE / 4, self._sweep)

    def forget(self, link: Link) -> None:
        self._links.discard(link)
        idle = self._idle.get(link.origin, [])
        if link in idle:
            idle.remove(link)

    async def close(self) -> None:
        if self._sweeping:
            self._sweeping.cancel()
        for link in list(self._links):
            link.connection_lost(None)
        await asyncio.sleep(0)  # for the transports' own last callbacks

    def _freshest(self, origin: str) -> Link | None:
        idle, now = self._idle.get(origin, []), asyncio.get_running_loop().time()
        while idle:
            link = idle.pop()
            if link.usable and link.until > now:
                return link
            link.close()
        return None

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        loop = asyncio.get_running_loop()
        for link in [link for idle in self._idle.values() for link in idle]:
            if link.until <= loop.time():
                link.close()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        self._sweeping = loop.call_later(_MOST_IDLE / 4, self._sweep) if self._idle else None

    async def _opened(self, origin: str, patience: float) -> Link:
        parts = urllib.parse.urlsplit(origin)
        secure, host = parts.scheme == "https", parts.hostname or ""
        try:
            async with asyncio.timeout(patience):
                addresses = await self._addresses(host, parts.port or (443 if secure else 80))
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_EYEBALLS, interleave=1
                )
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: Link(self, origin),
                    sock=sock,
                    ssl=self._tls if secure else None,
                    server_hostname=host if secure else None,
                )
        except TimeoutError:
            message = "could not be connected to in time"
            raise UpstreamError("timeout", message, scope="endpoint") from None
        self._links.add(link)
        return link

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made when first needed: to read the system's certificates takes a while."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def _addresses(self, host: str, port: int) -> list[Any]:
        """Looked up once for all who ask at the same time, and kept for a while."""
        loop = asyncio.get_running_loop()
        until, found = self._names.get((host, port), (0.0, None))
        if found is None or until < loop.time():
            lookup = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            found = asyncio.ensure_future(lookup)
            self._names[host, port] = (loop.time() + _NAMES_KEPT, found)
            found.add_done_callback(functools.partial(self._looked_up, host, port))
        return await asyncio.shield(found)

    def _looked_up(self, host: str, port: int, found: asyncio.Future[list[Any]]) -> None:
        if found.cancelled() or found.exception():
            self._names.pop((host, port), None)


class _Stale(Exception):
    """A kept link that turned out to be closed."""


# ==== 40. Upstream ============================================================
# One HTTP exchange with a provider.  Foreign exceptions become ours here and nowhere else: silence
# is an UpstreamError just as a refusal is.  Answers are read in the blocks and in the content
# coding in which they come; whoever must understand them inflates them.


@frozen
class Outgoing:
    """A request in the form in which it goes out on one lane."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    stream: bool
    passage: Passage
    note: BodyNote
    dropped: tuple[str, ...] = ()
    proxy: str = field(default="", repr=False)  # to go through; "" for none


class Reply(Protocol):
    """A provider's answer whose head is here.  `read` gives b"" at the end; it and `pour` raise
    UpstreamError when the connection breaks; `close` may be called at any time."""

    status: int
    headers: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Is all the rest here, so that one `read` returns it?"""

    async def read(self) -> bytes: ...

    async def pour(self, take: Callable[[bytes], object]) -> bool:
        """Hand block after block to `take`, if possible in the socket's own callback, so that no
        task has to wake for them.  False at the end; True once `take` has had enough, which it says
        by a false result.  A RelayError that `take` raises comes out here."""

    def close(self) -> None: ...


class Pulled(ABC):
    """A reply that has to be asked for every block."""

    ended = False  # it cannot tell

    @abstractmethod
    async def read(self) -> bytes: ...

    async def pour(self, take: Callable[[bytes], object]) -> bool:
        while block := await self.read():
            if not take(block):
                return True
        return False


class HTTPReply(Pulled):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except TimeoutError as error:
            raise UpstreamError("timeout", "went silent in the middle of its answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(
                "transient", f"broke off its answer ({system_words(error)})"
            ) from error

    def close(self) -> None:
        self._response.close()


# A request's body: all of it, or still on its way, or none.
Payload: TypeAlias = bytes | AsyncIterator[bytes] | None


class Upstream:
    """Connections to providers."""

    def __init__(self, lean: bool = True) -> None:
        """`lean`: use `Connections` where they suffice; if not `lean`, aiohttp's client for all."""
        self._lean = lean
        self._connections = Connections()
        self._pools = {"": Pool()}

    async def post(self, outgoing: Outgoing, timeouts: TimeoutConfig) -> Reply:
        """The reply's head; UpstreamError if there is none."""
        url, headers, body = outgoing.url, outgoing.headers, outgoing.body
        if outgoing.proxy or not (self._lean and address_of(url).plain):
            return await self.send("POST", url, headers, body, timeouts, outgoing.proxy)
        try:
            return await self._connections.post(url, headers, body, timeouts.connect)
        except (OSError, ValueError) as error:
            raise _unreachable(error) from error

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Payload,
        timeouts: TimeoutConfig,
        proxy: str = "",
    ) -> Reply:
        """Any request at all, even with a body still arriving; UpstreamError without an answer."""
        if proxy not in self._pools:
            self._pools[proxy] = Pool(proxy)
        return await self._pools[proxy].sent(method, url, headers, body, timeouts)

    async def close(self) -> None:
        await self._connections.close()
        for pool in self._pools.values():
            await pool.close()


class Pool:
    """Connections by aiohttp's client: direct, or through a proxy, which then resolves names.

    There is no limit to their number: with aiohttp's own of 100 the 101st open stream would wait
    for minutes.
    """

    def __init__(self, proxy: str = "") -> None:
        self._shown = shown_proxy(proxy)
        self._url: yarl.URL | None = None  # of an HTTP proxy, which aiohttp's client knows
        self._foreign: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError, ValueError)
        make: Callable[..., aiohttp.TCPConnector] = aiohttp.TCPConnector
        if proxy.startswith("socks"):
            socks = importlib.import_module("aiohttp_socks")
            # socks5h is curl's word for what is done here in any case: the proxy resolves the name
            url = proxy.replace("socks5h:", "socks5:", 1)
            make = functools.partial(socks.ProxyConnector.from_url, url, rdns=True)
            self._foreign += (socks.ProxyError, socks.ProxyConnectionError, socks.ProxyTimeoutError)
        elif proxy:
            self._url = yarl.URL(proxy)
        self._kept = _session(make(limit=0, keepalive_timeout=60))
        self._fresh = _session(make(limit=0, force_close=True))

    async def sent(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Payload,
        timeouts: TimeoutConfig,
    ) -> Reply:
        """The reply's head.  If a kept connection was just being closed, the request never arrived;
        other kept ones may be just as stale, so the second try makes a new one."""
        request = functools.partial(self._reply, method, url, headers, body, timeouts)
        reused: dict[str, bool] = {}
        try:
            return await request(self._kept, reused)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            again = reused and not isinstance(error, aiohttp.ClientConnectorError)
            if not again or isinstance(body, AsyncIterator):
                raise self._unreachable(error) from error
        except self._foreign as error:
            raise self._unreachable(error) from error
        try:
            return await request(self._fresh, {})
        except self._foreign as error:
            raise self._unreachable(error) from error

    async def _reply(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Payload,
        timeouts: TimeoutConfig,
        session: aiohttp.ClientSession,
        reused: dict[str, bool],
    ) -> Reply:
        response = await session.request(
            method,
            yarl.URL(url, encoded=True),
            data=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
            allow_redirects=False,
            trace_request_ctx=reused,
            proxy=self._url,
        )
        if (
            self._url and response.status == 407
        ):  # to plain HTTP a proxy answers in the provider's place
            response.close()
            raise UpstreamError("transient", self._refusal(407), scope="endpoint")
        return HTTPReply(response)

    def _unreachable(self, error: Exception) -> UpstreamError:
        """A proxy that is down or refuses counts like a provider that is down."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return UpstreamError("transient", self._refusal(error.status), scope="endpoint")
        if type(error).__module__.startswith("aiohttp_socks") or isinstance(
            error, aiohttp.ClientProxyConnectionError
        ):
            message = f"cannot be reached through its proxy {self._shown} ({system_words(error)})"
            return UpstreamError("transient", message, scope="endpoint")
        return _unreachable(error)

    def _refusal(self, status: int) -> str:
        why = "wants other credentials" if status == 407 else "refuses"
        return f"cannot be reached: its proxy {self._shown} {why} ({status})"

    async def close(self) -> None:
        await self._kept.close()
        await self._fresh.close()


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        trace_configs=[trace],
        read_bufsize=1 << 15,  # what a stalled client may pile up, a few times over
    )


def _unreachable(error: BaseException) -> UpstreamError:
    """A foreign exception as ours."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamError("timeout", "could not be connected to in time", scope="endpoint")
    if isinstance(error, TimeoutError):
        return UpstreamError("timeout", "did not answer in time")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        message = "closed the connection without an answer"
        return UpstreamError("transient", message, scope="endpoint")
    if isinstance(error, aiohttp.ClientResponseError):  # its text quotes URL and bytes
        return UpstreamError("transient", "does not answer in HTTP")
    return UpstreamError(
        "transient", f"cannot be reached ({system_words(error)})", scope="endpoint"
    )


async def _note_reuse(session: object, context: Any, params: object) -> None:
    context.trace_request_ctx["reused"] = True


def system_words(error: BaseException) -> str:
    """The system's own words: aiohttp's quote internals, asyncio's an address and no reason."""
    inner: Any = getattr(error, "os_error", error)
    said: str = getattr(inner, "strerror", None) or str(inner) or type(error).__name__
    return os.strerror(inner.errno) if said.startswith("Connect call failed") else said


class Patience:
    """A limit to a provider's silence, over many blocks, with one timer and not one per block.

    `async with` it raises UpstreamError when `pour` has gone longer than that without a `stir`,
    which `take` is to call.
    """

    def __init__(self, seconds: float, message: str) -> None:
        self.seconds = seconds
        self.since: float | None = None  # when the present silence began; None outside `pour`
        self._message = message
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look)

    async def __aenter__(self) -> Patience:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        self._timer.cancel()
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError:
            raise UpstreamError("timeout", self._message) from None

    def stir(self) -> None:
        """The silence begins now."""
        self.since = time.monotonic()

    async def pour(self, reply: Pourable, take: Callable[[bytes], object]) -> bool:
        self.stir()
        more = await reply.pour(take)
        self.since = None
        return more

    def shorten(self, seconds: float) -> None:
        if seconds < self.seconds:
            self.seconds = seconds
            self._timer.cancel()
            self._look()

    @property
    def spent(self) -> bool:
        return self._timeout.expired()

    def _look(self) -> None:
        silent = 0.0 if self.since is None else time.monotonic() - self.since
        if silent < self.seconds:
            self._timer = self._loop.call_later(self.seconds - silent, self._look)
        else:
            self._timeout.reschedule(self._loop.time())


class Pourable(Protocol):
    def pour(self, take: Callable[[bytes], object]) -> Awaitable[bool]: ...


async def read_all(reply: Reply, idle: float, most: int = MOST_HELD) -> bytes:
    """A whole answer; UpstreamError if it stops, or is longer than any answer should be."""
    if reply.ended:  # as most short ones are: no timer is needed
        return await reply.read()
    patience = Patience(idle, "went silent in the middle of its answer")
    body = bytearray()

    def take(block: bytes) -> bool:
        patience.stir()
        body.extend(block)
        return len(body) <= most

    async with patience:
        if await patience.pour(reply, take):
            raise UpstreamError("transient", f"sent more than {most >> 20} MB")
    return bytes(body)


class Inflater:
    """Decodes a body's content coding; bytes in a coding that we cannot read stay as they are.

    `most` bounds what one block may become: half a megabyte can inflate to half a gigabyte.
    """

    def __init__(self, coding: str, most: int = MOST_HELD) -> None:
        coding = coding.strip().lower()
        self.active = coding in ("gzip", "deflate", "x-gzip")
        self._members = coding != "deflate"  # RFC 1952 2.2: gzip files may follow one another
        self._bare = coding == "deflate"  # zlib by RFC 9110 8.4.1.2, bare deflate at some servers
        self._window = 47 if self._members else 15  # 47: gzip or zlib
        self._stream: Any = None
        self._most = most

    def feed(self, data: bytes) -> bytes:
        if not self.active:
            return data
        plain = b""
        while data := self._of_a_member(data):
            try:
                plain += self._stream.decompress(data, self._most + 1 - len(plain))
            except zlib.error as error:
                if not self._bare:
                    raise self.broken(str(error)) from error
                self._bare, self._stream = False, zlib.decompressobj(-15)
                continue
            self._bare = False
            if len(plain) > self._most:
                raise self.too_much()
            data = self._stream.unused_data
        return plain

    def _of_a_member(self, data: bytes) -> bytes:
        """The bytes to read next: of the present member, or of one that begins here."""
        if self._stream is not None and self._stream.eof:
            data = data.lstrip(b"\0")  # as gzip(1) pads files on tapes
            if data and not self._members:
                raise self.broken("bytes follow its end")
        if data and (self._stream is None or self._stream.eof):
            self._stream = zlib.decompressobj(self._window)
        return data

    def finish(self) -> None:
        """The body is over; if the coding is not, the body is incomplete."""
        if self._stream is not None and not self._stream.eof:
            raise self.broken("it ends early")

    def whole(self, data: bytes) -> bytes:
        """A body that is all here."""
        plain = self.feed(data)
        self.finish()
        return plain

    def too_much(self) -> RelayError:
        return UpstreamError("transient", f"sent more than {self._most >> 20} MB")

    def broken(self, why: str) -> RelayError:
        return UpstreamError("transient", f"sent a broken content coding: {why}")


# ==== 41. Recorder ============================================================
# The flight recorder: a file for every exchange, until there are too many bytes of them; then the
# oldest are deleted.  While an exchange runs, its tape holds references to the bytes that pass, not
# copies; when it is over, a thread removes the secrets and writes the file.  A disk that is slow,
# full or gone costs records, which are counted, and nothing else.
#
#     exchange --Tape--> settle --at most 64 MB of bytes--> thread --Ring--> directory, 0700
#
# Several processes may share a directory.  Its file `.ring` says how many bytes of records there
# are; a process that writes locks it.  If the number is wrong because a process was killed between
# two steps, it stays so until another process starts or files have to be deleted: then they are
# counted.

_MOST_TAPED: Final = 64 << 20  # bytes of all tapes that run or wait to be written, together
_MOST_OF_ONE: Final = 32 << 20  # bytes of one exchange; a request may be that long
_BLOCK_COST: Final = 128  # bytes of memory for a block or a head, besides its own
_LEDGER: Final = ".ring"
_LEDGER_ROOM: Final = 32  # bytes
_LONGEST_END: Final = 4096  # bytes of a record's last line
_SAID_EVERY: Final = 60.0  # seconds between two log lines about what is lost


class Ring:
    """A directory of records whose size is bounded."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._counted = False  # by this process, at least once

    def open(self) -> None:
        """Make the directory; ConfigError if it cannot be made or others can read it."""
        try:
            self.directory.mkdir(0o700, parents=True, exist_ok=True)
            mode = self.directory.stat().st_mode
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError([f"record.directory: {self.directory}: {reason}"]) from error
        if mode & 0o077:
            message = f"{self.directory} is open to others; chmod 700 it, or name another"
            raise ConfigError([f"record.directory: {message}"])

    def put(self, name: str, data: bytes) -> None:
        """Make room for a record and write it; OSError if that is not possible."""
        room = self.keep - _LEDGER_ROOM
        if len(data) > room:
            raise OSError(errno.EFBIG, "a record is longer than record.keep")
        with self._ledger() as ledger:
            total = self._total(ledger)
            if total is None or total + len(data) > room:
                total = self._make_room(room, len(data))
            fresh = self.directory / f".{name}.part"
            try:
                with open(
                    os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
                ) as file:
                    file.write(data)
                fresh.rename(self.directory / name)
            except OSError:
                fresh.unlink(missing_ok=True)
                raise
            os.pwrite(ledger, f"{total + len(data):<{_LEDGER_ROOM - 1}}\n".encode(), 0)
            self._counted = True

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.directory / _LEDGER, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _total(self, ledger: int) -> int | None:
        """The bytes of all records; None if they have to be counted."""
        said = os.read(ledger, _LEDGER_ROOM).strip()
        return int(said) if self._counted and said.isdigit() else None

    def _make_room(self, room: int, wanted: int) -> int:
        """Delete the oldest if there are too many; the number of bytes that stay.

        Rather more than necessary, so that not every record makes all be counted again.
        """
        for torn in self.directory.glob(".*.part"):  # nobody else writes now
            torn.unlink(missing_ok=True)
        files = dict(self._files())
        if sum(files.values()) + wanted > room:
            for name in surplus(files.items(), min(room - wanted, room * 7 // 8)):
                (self.directory / name).unlink(missing_ok=True)
                del files[name]
        return sum(files.values())

    def _files(self) -> Iterator[tuple[str, int]]:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if RECORD_NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name, entry.stat(follow_symlinks=False).st_size

    # Reading

    def names(self) -> list[str]:
        """The files' names, the newest first."""
        try:
            return sorted((name for name, _ in self._files()), reverse=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RelayError(f"{self.directory}: {reason}") from error

    def summaries(self) -> Iterator[tuple[str, JSON | None, str]]:
        """(name, the record's first line or None, what is wrong with it), the newest first."""
        for name in self.names():
            try:
                yield name, self._summary(name), ""
            except (OSError, ValueError) as error:
                yield name, None, getattr(error, "strerror", None) or str(error)

    def _summary(self, name: str) -> JSON:
        with self._reading(name) as file:
            first = file.readline()
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LONGEST_END))
            if not re.search(rb'\n\{"kind":"end","cut":\{[^{}]*\}\}\n\Z', file.read()):
                raise ValueError("it is not whole")
        return record_summary(loads(first))

    def read(self, said: str) -> Record:
        """The record with this id, or with one that begins so, or the `last`."""
        names = self.names()
        if said == "last":
            fitting = names[:1]
        else:
            fitting = [n for n in names if said and n.partition("-")[2].startswith(said)]
        if len(fitting) != 1:
            few = "several records begin" if fitting else "no record begins"
            raise RelayError("there is no record" if said == "last" else f"{few} with {said!r}")
        try:
            with self._reading(fitting[0]) as file:
                return read_record(file.read())
        except (OSError, ValueError) as error:
            raise RelayError(f"{self.directory / fitting[0]}: cannot be read: {error}") from error

    def _reading(self, name: str) -> BinaryIO:
        """A file of the ring, opened; anything but a plain file, such as a pipe, is refused."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        file = open(os.open(self.directory / name, flags), "rb")  # noqa: SIM115  # the caller's
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise ValueError("it is not a file")
        return file


class Recorder:
    """Takes tapes and has them written; never waits for the disk."""

    def __init__(self, ring: Ring, most: int = _MOST_TAPED) -> None:
        self.ring = ring
        self.most_of_one = min(_MOST_OF_ONE, ring.keep // 8)
        self.taped = 0  # bytes that tapes have taken in all; changed by the event loop only
        self.released = 0  # bytes of them that are free again; changed by the thread only
        self.lost = 0
        self._most = most
        self._why = ""
        self._unsaid = 0
        self._said_at = -math.inf
        self._waiting: collections.deque[Tape] = collections.deque()
        self._unwritten = 0
        self._closing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="recorder", daemon=True).start()

    @property
    def room(self) -> int:
        """Bytes that tapes may still take."""
        return self._most - (self.taped - self.released)

    def tape(
        self, secrets: Sequence[str], request: web.BaseRequest, began: float, now: float
    ) -> Tape | None:
        """A tape for an exchange; None if there is no room, and then one record is lost."""
        if self.room < _BLOCK_COST:
            self._lose("what was recorded before is not written yet")
            return None
        tape = Tape(self, secrets, began, now)
        head = {"method": request.method, "path": request.raw_path}
        tape.head(REQUEST, head, request.headers)
        return tape

    def take(self, tape: Tape) -> None:
        """An exchange is over."""
        with self._changed:
            self._waiting.append(tape)
            self._unwritten += 1
            self._changed.notify_all()

    def news(self, now: float) -> tuple[int, str] | None:
        """How many records were lost since the last report, and why; None if it is too soon."""
        with self._changed:
            if not self._unsaid or now - self._said_at < _SAID_EVERY:
                return None
            count, self._unsaid, self._said_at = self._unsaid, 0, now
            return count, self._why

    def flush(self, within: float) -> bool:
        """Wait until all is written, but not for ever; is it?"""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unwritten, within)

    def close(self) -> None:
        """End the thread once all that waits is written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _lose(self, why: str) -> None:
        with self._changed:
            self.lost += 1
            self._unsaid += 1
            self._why = why

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                tape = self._waiting.popleft()
            self._write(tape)
            self.released += tape.held
            with self._changed:
                self._unwritten -= 1
                self._changed.notify_all()

    def _write(self, tape: Tape) -> None:
        record = tape.record()
        masker = Masker(tape.secrets, record.legs.values())
        try:
            data = b"".join(record_lines(record, masker))
            self.ring.put(record_name(tape.time, record.id), data)
        except OSError as error:
            self._lose(error.strerror or str(error))


class Tape:
    """What is kept of one exchange while it runs."""

    def __init__(
        self, recorder: Recorder, secrets: Sequence[str], began: float, now: float
    ) -> None:
        self.secrets = secrets
        self.time = now
        self.summary: JSON = {}
        self.held = 0  # bytes
        self._recorder = recorder
        self._began = began
        self._legs: dict[str, Leg] = {}
        self._codings: dict[str, str] = {}  # of the legs whose bytes are compressed
        self._attempts = 0
        self._cut: collections.Counter[str] = collections.Counter()

    # What passes

    def head(self, leg: str, head: JSON, headers: Mapping[str, str]) -> None:
        pairs = [(name, value) for name, value in headers.items()]
        self._legs[leg] = Leg(self._now(), head | {"headers": pairs})
        self._hold(_BLOCK_COST)

    def data(self, leg: str, data: bytes) -> None:
        """Keep as many bytes of a leg as there is room for; after a cut, everything is cut."""
        room = min(self._recorder.most_of_one - self.held, self._recorder.room) - _BLOCK_COST
        kept = b"" if self._cut else data[: max(0, room)]
        if kept is not data:
            self._cut[leg] += len(data) - len(kept)
        if kept:
            self._hold(len(kept) + _BLOCK_COST)
            self._legs[leg].blocks.append((self._now(), kept))

    def coded(self, leg: str, coding: str) -> None:
        """The leg's bytes are in this content coding."""
        self._codings[leg] = coding

    async def flowing(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A client's body on its way to a provider."""
        async for block in blocks:
            self.data(REQUEST, block)
            yield block

    async def attempt(
        self,
        lane: Lane,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | object,
        sent: Awaitable[Reply],
    ) -> Reply:
        """The reply, once it is there; a body that flows through is kept only as the client's."""
        self._attempts += 1
        number, target = self._attempts, str(lane.target)
        head: JSON = {"target": target, "plan": lane.plan.name, "method": method, "url": url}
        head["preset"] = lane.target.provider.config.preset
        self.head(f"attempt {number}", head, headers)
        if isinstance(body, bytes):
            self.data(f"attempt {number}", body)
        reply = await sent
        leg = f"answer {number}"
        self.head(leg, {"status": reply.status}, reply.headers)
        self.coded(leg, reply.headers.get("Content-Encoding", ""))
        return TapedReply(reply, self, leg)

    def whole(self, response: web.Response) -> None:
        """An answer that is not streamed."""
        self.head(RESPONSE, {"status": response.status}, response.headers)
        self.coded(RESPONSE, response.headers.get("Content-Encoding", ""))
        self.data(RESPONSE, response.body if isinstance(response.body, bytes) else b"")

    # What is kept of it

    def record(self) -> Record:
        legs = {name: replace(leg, blocks=self._inflated(name)) for name, leg in self._legs.items()}
        return Record(self.summary | {"time": self.time}, legs, dict(+self._cut))

    def _inflated(self, name: str) -> Blocks:
        """A leg's bytes with the content coding removed: a secret in it would not be seen.

        What cannot be decoded is left out for the same reason, and counted as cut.
        """
        blocks, coding = self._legs[name].blocks, self._codings.get(name, "").strip().lower()
        if coding in ("", "identity"):
            return blocks
        inflater, plain = Inflater(coding, self._recorder.most_of_one), Blocks()
        for at, block in blocks:
            try:
                plain.append((at, inflater.feed(block) if inflater.active else b""))
            except RelayError:
                inflater.active = False
            self._cut[name] += 0 if inflater.active else len(block)
        return [(at, block) for at, block in plain if block]

    def _now(self) -> float:
        return (time.monotonic() - self._began) * 1000

    def _hold(self, size: int) -> None:
        self.held += size
        self._recorder.taped += size


class TapedReply:
    """A reply whose bytes are kept as they are read."""

    def __init__(self, reply: Reply, tape: Tape, leg: str) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._tape = tape
        self._leg = leg

    @property
    def ended(self) -> bool:
        return self._reply.ended

    async def read(self) -> bytes:
        if data := await self._reply.read():
            self._tape.data(self._leg, data)
        return data

    async def pour(self, take: Callable[[bytes], object]) -> bool:
        def taped(data: bytes) -> object:
            self._tape.data(self._leg, data)
            return take(data)

        return await self._reply.pour(taped)

    def close(self) -> None:
        self._reply.close()


# ==== 42. Demo ================================================================
# The embedded provider: no key, no network, always the same answer to the same request.  It calls
# a tool if the user's text asks for one, so that all of an agent's loop can be seen.


def demo_response(request: Request, id: str) -> Response:
    thought = Reasoning("The user is trying relay out.", Seal("cr"))
    asked, results = _demo_asked(request)
    tool = None if results else _demo_tool(request.tools, asked)
    if tool:
        call = ToolCall(f"call_{id[:12]}", tool.name, dumps(_example(tool.schema)).decode())
        usage = _demo_usage(request, call.text)
        return Response(id, request.model, (thought, call), "tool_calls", usage)
    text = (
        f"Hello from relay {__version__}. You asked for the model {request.model!r} and said: "
        f"{asked[-200:].strip() or 'nothing'!r}. This answer comes from the embedded demo "
        "provider; put a real one into config.yaml and it will answer instead."
    )
    if results:
        text = f"The tool answered: {' '.join(results)[:500] or 'nothing'}"
    usage = _demo_usage(request, text)
    return Response(id, request.model, (thought, Text(text)), "stop", usage)


def _demo_asked(request: Request) -> tuple[str, list[str]]:
    """The user's last text, without what clients add to it, and any tool results."""
    turns = [message for message in request.messages if message.role == "user"]
    parts = turns[-1].parts if turns else ()
    results = [p for p in parts if isinstance(p, ToolResult)]
    texts = [p.text for p in parts if isinstance(p, Text) and not p.text.startswith("<system-")]
    answered = [p.text for r in results for p in r.parts if isinstance(p, Text)]
    return texts[-1] if texts else "", answered or ["nothing"] * bool(results)


def _demo_tool(tools: Sequence[Tool], asked: str) -> Tool | None:
    """A tool that the text names, or the first one if it mentions tools."""
    words = {word.lower() for word in re.findall(r"[\w-]+", asked)}
    named = next((tool for tool in tools if tool.name.lower() in words), None)
    return named or (tools[0] if tools and words & {"tool", "tools"} else None)


def _demo_usage(request: Request, text: str) -> Usage:
    return Usage(input=estimate(request), output=8 + len(text) // 4, reasoning=8)


def _example(schema: JSON) -> Any:
    """A value that fits a JSON Schema, if the schema is simple."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object" or "properties" in schema:
        needed = schema.get("required") or list(schema.get("properties") or ())[:1]
        properties = schema.get("properties") or {}
        return {name: _example(properties.get(name, {"type": "string"})) for name in needed}
    simple = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "null": None}
    return simple.get(kind, "relay") if isinstance(kind, str) else "relay"


class DemoReply(Pulled):
    """The demo provider's answer, streamed at a pace that can be watched."""

    status = 200

    def __init__(self, outgoing: Outgoing, pause: float = 0.02) -> None:
        dialect = outgoing.passage.upstream
        request = dialect.parse_request(loads(outgoing.body))
        # Gemini has the model in the URL.
        request = replace(request, model=request.model or outgoing.passage.asked.model)
        id = hashlib.sha256(outgoing.body).hexdigest()[:16]
        asked = Asked(request.model, id, 0, outgoing.passage.asked.now, request.include_usage)
        response = demo_response(request, id)
        kind = "text/event-stream" if outgoing.stream else "application/json"
        self.headers: Mapping[str, str] = {"Content-Type": kind}
        self._pause = pause
        self._blocks = iter([dumps(dialect.render_response(response, asked))])
        if outgoing.stream:
            encoder = dialect.encoder(asked)
            self._blocks = filter(None, map(encoder.encode, _in_words(unfold(response))))

    async def read(self) -> bytes:
        await asyncio.sleep(self._pause)
        return next(self._blocks, b"")

    def close(self) -> None:
        self._blocks = iter(())


async def demo(outgoing: Outgoing) -> Reply:
    return DemoReply(outgoing)


def _in_words(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, PartDelta):
            yield from map(PartDelta, re.findall(r"\s*\S+\s*$|\s*\S+", event.text))
        else:
            yield event


# ==== 43. Client ==============================================================
# The client's side of an exchange: who asks, the body as it is read, the answer as it is
# written.


def authenticated(request: web.BaseRequest, plan: Plan) -> Caller:
    """Who asks.  Any of the key headers will do, on any path; the first valid key decides."""
    if not plan.keys:
        if not plan.config.allow_anonymous:
            require_loopback(request)
        return Caller()
    offered = offered_keys(request)
    if not offered:
        raise Unauthorized("no API key; send one of relay's `keys` as a Bearer token or x-api-key")
    caller = plan.caller(offered, time.time())
    if caller is None:
        raise Unauthorized("this API key is not one of relay's `keys`, or it has expired")
    return caller


_KEY_HEADERS: Final = ("x-api-key", "api-key", "x-goog-api-key")


def offered_keys(request: web.BaseRequest) -> list[str]:
    headers, offered = request.headers, list[str]()
    for value in headers.getall("Authorization", ()):
        if value[:7].lower() == "bearer ":
            offered.append(value[7:].strip())
    offered += [headers[name] for name in _KEY_HEADERS if name in headers]
    if "?" in request.raw_path:
        offered.append(request.query.get("key", ""))
    return [key for key in offered if key]


def require_loopback(request: web.BaseRequest, lacking: str = "`keys`") -> None:
    """Without keys, only this machine is answered, and no other site's page (DNS rebinding)."""
    why = f"relay has no {lacking}, so"
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if isinstance(peer, tuple) and not is_loopback(str(peer[0])):
        raise Forbidden(f"{why} it answers this machine only")
    host = request.headers.get("Host", "")
    name = re.sub(r":\d+$", "", host).strip("[]")
    if isinstance(peer, tuple) and not is_loopback(name):
        raise Forbidden(f"{why} it answers to localhost only, not {host[:60]!r}")
    origin = request.headers.get("Origin", "")
    foreign = origin.startswith(("http://", "https://")) and not is_loopback(
        urllib.parse.urlsplit(origin).hostname or ""
    )
    if foreign or origin == "null" or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Forbidden(f"{why} it answers no page of another site")


def permitted(model: str, caller: Caller, plan: Plan, facts: Callable[[], Facts] = Facts) -> Route:
    """The route of a model name that this caller may use."""
    if caller.models is not None:
        _require_allowed(model, caller, plan)
    if route := plan.lookup(model, facts):
        return route
    bare = plan.bare(model)
    near = plan.nearest(bare)
    hint = f"did you mean {' or '.join(map(repr, near))}?"
    if not near:  # a client with names of its own, such as Claude Code
        family = re.split(r"[-.:/]", bare, maxsplit=1)[0]
        hint = f"routing_rules: {{{family}*: PROVIDER/MODEL}} would send it somewhere"
    raise UnknownModel(f"no provider serves model {model!r}; {hint}")


def _require_allowed(model: str, caller: Caller, plan: Plan) -> None:
    bare = plan.bare(model)
    if model not in plan.listed:  # a name that only its alias makes claude-* must not match that
        model = model.removeprefix(ALIAS)
    head, rest = addressed(bare)
    plain = rest if rest and head.lower() in plan.providers else bare
    if not any(caller.may_use(name) for name in (model, bare, plain)):
        raise Forbidden(f"key {caller.name!r} may not use model {model!r}")


def too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is over server.max_body, {size_text(most)}")


class RequestInflater(Inflater):
    """The same for requests: what is wrong with a body is the client's fault here."""

    def too_much(self) -> RelayError:
        return too_large(self._most)

    def broken(self, why: str) -> RelayError:
        return BadRequest(f"the body cannot be read: a broken content coding: {why}")


async def expected(request: web.BaseRequest) -> None:
    """Tell a client that asks first whether to send its body that it may (RFC 9110 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def read_body(request: web.BaseRequest, limits: ServerConfig) -> bytes:
    """The whole body, within the limits of size and time."""
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    inflater = RequestInflater(coding, limits.max_body)
    if (request.content_length or 0) > limits.max_body:
        raise inflater.too_much()
    if not inflater.active and coding != "identity":
        raise UnknownCoding(f"Content-Encoding {coding[:20]!r} cannot be read; send gzip or none")
    if "Expect" in request.headers:
        await expected(request)
    blocks, size = list[bytes](), 0
    try:
        if request.content.is_eof() and not inflater.active:  # all of it came with the head
            body = request.content.read_nowait()
            if len(body) > limits.max_body:  # in chunks, so that no length was said
                raise inflater.too_much()
            return body
        async with asyncio.timeout(limits.body_timeout):
            while block := await request.content.readany():
                blocks.append(inflater.feed(block))
                if (size := size + len(blocks[-1])) > limits.max_body:
                    raise inflater.too_much()
        inflater.finish()
    except TimeoutError:
        message = f"the request was not here within server.body_timeout, {limits.body_timeout:g} s"
        raise TooSlow(message) from None
    except (web.RequestPayloadError, ValueError) as error:
        raise BadRequest(f"the body cannot be read: {error}") from error
    return b"".join(blocks)


_MOST_UNSENT: Final = 1 << 16  # bytes; asyncio's own limit, above which `drain` waits


class ClientResponse(web.StreamResponse):
    """An answer that can be broken off: closed without its final chunk."""

    aborted = False
    _out: AbstractStreamWriter | None = None
    _wire: asyncio.Transport | None = None  # once the head is out
    _framed = False  # in chunks, as HTTP/1.1 has it and HTTP/1.0 does not

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._out = await super().prepare(request)
        self._wire = request.transport
        self._framed = "Transfer-Encoding" in self.headers
        return self._out

    async def open(self, request: web.BaseRequest, data: bytes) -> None:
        """Send the head and the first bytes in one system call."""
        self._send_headers_immediately = False  # as aiohttp sets it for answers sent whole
        await self.prepare(request)
        await self.write(data)

    def send(self, data: bytes) -> bool:
        """Send bytes of a stream now; False: the client is slow or gone, see `room`.

        Like `write`, but without a step of a task.  A stream has neither length nor coding, and
        is never the answer to a HEAD.
        """
        wire = self._wire
        if wire is None or wire.is_closing():
            return False
        wire.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)
        return wire.get_write_buffer_size() <= _MOST_UNSENT

    async def room(self) -> None:
        """Wait until the client has taken most of what was sent; ConnectionError if it is gone."""
        if self._wire is None or self._wire.is_closing():
            raise ConnectionResetError("the client is gone")
        if self._out:
            await self._out.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        if self.aborted:  # aiohttp then closes the connection, without the final chunk
            raise ConnectionResetError("the answer was broken off")
        await super().write_eof(data)


class TapedResponse(ClientResponse):
    """An answer whose bytes are kept on tape as they are written."""

    def __init__(self, tape: Tape, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._tape = tape

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        known = self.prepared  # aiohttp calls again when the handler is done
        writer = await super().prepare(request)
        if not known:
            self._tape.head(RESPONSE, {"status": self.status}, self.headers)
            self._tape.coded(RESPONSE, self.headers.get("Content-Encoding", ""))
        return writer

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await super().write(data)
        self._tape.data(RESPONSE, bytes(data))

    def send(self, data: bytes) -> bool:
        self._tape.data(RESPONSE, data)
        return super().send(data)


def client_response(tape: Tape | None, status: int, headers: Mapping[str, str]) -> ClientResponse:
    if tape is None:
        return ClientResponse(status=status, headers=headers)
    return TapedResponse(tape, status, headers)


class Downstream:
    """The client's side of a stream: the head, the bytes, and keep-alives during silence.

    Writes are complete events, so a keep-alive may go between any two of them.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        id: str,
        interval: float,
        gate: float,
        tape: Tape | None = None,
    ) -> None:
        """`gate`: seconds after which the head is sent in any case."""
        self.response: ClientResponse | None = None
        self._tape = tape
        self.alive: Callable[[], bytes] = lambda: b": keep-alive\n\n"
        self.kind = "text/event-stream"
        self._request = request
        self._id = id
        self._interval = interval
        self.last = time.monotonic()  # when something was sent
        self.sent = 0  # bytes
        self._beating: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(gate, self._begin_beating)

    async def begin(self, headers: Mapping[str, str], data: bytes = b"") -> ClientResponse:
        """Send the head, unless it went out early, and the first bytes."""
        if self.response:
            await self.write(data)
            return self.response
        self.response = client_response(self._tape, 200, headers)
        if not self._beating:
            self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._interval, self._begin_beating)
        self.last, self.sent = time.monotonic(), len(data)
        await self.response.open(self._request, data)
        return self.response

    def send(self, data: bytes) -> bool:
        """Send complete events now; False: no more of them before there is `room`."""
        self.last = time.monotonic()
        self.sent += len(data)
        return self.response is not None and self.response.send(data)

    async def room(self) -> None:
        if self.response:
            await self.response.room()

    async def write(self, data: bytes) -> None:
        if data and not self.send(data):
            await self.room()

    async def end(self, broken: bool) -> None:
        self.stop()
        if self.response:
            self.response.aborted = broken
            if not broken:
                await self.response.write_eof()

    def stop(self) -> None:
        self._timer.cancel()
        if self._beating:
            self._beating.cancel()

    def _begin_beating(self) -> None:
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    async def _beat(self) -> None:
        """Send the head and keep-alives, so that clients waiting for either do not give up."""
        with contextlib.suppress(ConnectionError):
            head = {"Content-Type": self.kind, "Cache-Control": "no-cache"}
            await self.begin(head | {"x-relay-request-id": self._id})
            while True:
                silence = time.monotonic() - self.last
                if silence >= self._interval:
                    await self.write(self.alive())
                    silence = 0.0
                await asyncio.sleep(self._interval - silence)


# ==== 44. Telemetry ===========================================================
# What happens, as told to an OpenTelemetry collector by the SDK, if the `otel` extra is installed
# and OTEL_EXPORTER_OTLP_ENDPOINT names one; the SDK reads its other variables itself.  A request is
# a span, each attempt a span within it, in the trace that the client's `traceparent` names; the
# provider is given the attempt's.  The metrics are those of /metrics.
#
#     client's span  >  request (server)  >  attempt (client)  >  provider's span
#
# The event loop only appends to the SDK's queues; the SDK's threads send, and what they cannot
# send in time is dropped.

_OTLP: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_INSTRUMENTS: Final = {"counter": "add", "gauge": "set", "histogram": "record"}


class Trace:
    """The spans of one request.  This base class makes none: nobody listens."""

    def carried(self, lane: Lane) -> dict[str, str]:
        """The headers that make a provider's spans children of the attempt's."""
        return {}

    def attempt(self, lane: Lane, operation: str) -> None:
        """An attempt begins."""

    def attempted(self, lane: Lane, **facts: Any) -> None:
        """The attempt is over, if one is under way."""

    def end(self, name: str, **facts: Any) -> None:
        """The request is over.  In names of facts `__` is a dot; None and "" are left out."""


NO_TRACE: Final = Trace()


class Telemetry:
    """Where requests are reported.  This base class reports nowhere."""

    active = False

    def trace(self, headers: Mapping[str, str]) -> Trace:
        return NO_TRACE

    def mirror(self, metrics: Metrics) -> None:
        """Report every number from now on."""

    def stop(self, within: float) -> None:
        """Send what is left, but do not wait for long."""


class OpenTelemetry(Telemetry):
    """The SDK, with the exporters of the extra.  ImportError if it is not installed."""

    active = True

    def __init__(self, env: Mapping[str, str], log: Log) -> None:
        load = importlib.import_module
        named = "OTEL_SERVICE_NAME" in env or "service.name" in env.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        about = {"service.version": __version__, "service.instance.id": secrets.token_hex(8)}
        resources = load("opentelemetry.sdk.resources")
        resource = resources.Resource.create(about | ({} if named else {"service.name": "relay"}))
        tracing, metering = load("opentelemetry.sdk.trace"), load("opentelemetry.sdk.metrics")
        spans = load("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
        numbers = load("opentelemetry.exporter.otlp.proto.http.metric_exporter")
        self.api = load("opentelemetry.trace")
        self.context = load("opentelemetry.trace.propagation.tracecontext")
        # The SDK's exit hooks would wait for a collector that is gone; `stop` does not.
        self._spans = tracing.TracerProvider(resource=resource, shutdown_on_exit=False)
        batches = load("opentelemetry.sdk.trace.export").BatchSpanProcessor(spans)
        self._spans.add_span_processor(batches)
        reader = load("opentelemetry.sdk.metrics.export").PeriodicExportingMetricReader(
            numbers.OTLPMetricExporter()
        )
        self._meters = metering.MeterProvider(
            metric_readers=[reader], resource=resource, shutdown_on_exit=False
        )
        self.tracer = self._spans.get_tracer("relay", __version__)
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [_ToLog(log)], False

    def trace(self, headers: Mapping[str, str]) -> Trace:
        return _SpanTrace(self, headers)

    def mirror(self, metrics: Metrics) -> None:
        meter = self._meters.get_meter("relay", __version__)
        for family in metrics.families():
            make = getattr(meter, f"create_{family.kind}")
            more: JSON = {}
            if isinstance(family, Histogram):
                more = {"explicit_bucket_boundaries_advisory": list(family.bounds)}
            made = make(family.name, unit=family.unit, description=family.doc, **more)
            family.mirror = getattr(made, _INSTRUMENTS[family.kind])

    def stop(self, within: float) -> None:
        """In a thread that is abandoned if the collector does not answer."""
        ending = threading.Thread(target=self._shut_down, name="telemetry", daemon=True)
        ending.start()
        ending.join(within)

    def _shut_down(self) -> None:
        self._spans.shutdown()
        self._meters.shutdown()


class _ToLog(logging.Handler):
    """The SDK's complaints as lines of our log; they come from its threads."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.event("warning", "telemetry", said=record.getMessage()[:300])


class _SpanTrace(Trace):
    """The spans of one request, in the SDK's hands."""

    def __init__(self, telemetry: OpenTelemetry, headers: Mapping[str, str]) -> None:
        self._telemetry = telemetry
        self._carrier = telemetry.context.TraceContextTextMapPropagator()
        known = ("traceparent", "tracestate")
        said = {name: headers[name] for name in known if name in headers}
        kind = telemetry.api.SpanKind.SERVER
        above = self._carrier.extract(said)
        self._request = telemetry.tracer.start_span("request", context=above, kind=kind)
        self._attempts: dict[int, Any] = {}  # by id of the lane; two, if a request is hedged

    def carried(self, lane: Lane) -> dict[str, str]:
        headers: dict[str, str] = {}
        if span := self._attempts.get(id(lane)):
            self._carrier.inject(headers, self._telemetry.api.set_span_in_context(span))
        return headers

    def attempt(self, lane: Lane, operation: str) -> None:
        parts, api = urllib.parse.urlsplit(lane.endpoint.url), self._telemetry.api
        span = self._attempts[id(lane)] = self._telemetry.tracer.start_span(
            f"{operation} {lane.target.model}",
            context=api.set_span_in_context(self._request),
            kind=api.SpanKind.CLIENT,
        )
        self._note(
            span,
            gen_ai__operation__name=operation,
            gen_ai__provider__name=lane.target.provider.name,
            gen_ai__request__model=lane.target.model,
            server__address=parts.hostname,
            server__port=parts.port,
            relay__plan=lane.plan.name,
        )

    def attempted(self, lane: Lane, **facts: Any) -> None:
        if span := self._attempts.pop(id(lane), None):
            self._close(span, facts)

    def end(self, name: str, **facts: Any) -> None:
        for span in self._attempts.values():
            self._close(span, {"error__type": facts.get("error__type")})
        self._request.update_name(name)
        self._close(self._request, facts)

    def _close(self, span: Any, facts: JSON) -> None:
        self._note(span, **facts)
        if facts.get("error__type"):
            span.set_status(self._telemetry.api.StatusCode.ERROR)
        span.end()

    @staticmethod
    def _note(span: Any, **facts: Any) -> None:
        for name, value in facts.items():
            if value not in (None, ""):
                span.set_attribute(name.replace("__", "."), value)


def telemetry_of(env: Mapping[str, str], log: Log) -> Telemetry:
    """The telemetry that the environment asks for; none by default."""
    if not env.get(_OTLP) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Telemetry()
    try:
        return OpenTelemetry(env, log)
    except ImportError:
        install = "pip install 'llm-api-relay[otel]'"
        log.event("warning", f"{_OTLP} is set, but the SDK is missing", install=install)
        return Telemetry()


# ==== 45. Exchange ============================================================
# One client request and all that is known of it so far: what was asked, its attempts, what came of
# it, and what that costs.


@frozen
class Tried:
    """One attempt, for the log and for what the client is told."""

    lane: Lane
    outcome: str  # "ok" or a failure class
    status: int
    seconds: float

    @property
    def ms(self) -> int:
        return round(self.seconds * 1000)

    def record(self) -> JSON:
        said = {"outcome": self.outcome, "status": self.status, "ms": self.ms}
        return self.lane.record | said


_READ: Final = frozenset(("ok", "outrun", "cancelled"))  # outcomes after which a prompt was read


class Charge(NamedTuple):
    """What a provider will want to be paid for, as far as relay knows."""

    lane: Lane | None  # None: nobody was asked
    usage: Usage
    estimated: bool
    cost: int | None  # billionths; None: no price is known

    @classmethod
    def of(cls, lane: Lane | None, usage: Usage, estimated: bool) -> Charge:
        price = lane.price if lane else None
        return cls(lane, usage, estimated, cost(usage, price) if price else None)


# What an exchange begins with; shared, because no exchange changes them.
_NO_BODY: Final = Body(b"{}")
_NOBODY: Final = Caller()
_NO_PEEK: Final = Peek("", False)
_NO_ROUTE: Final = Route("", "", ())
_NO_USAGE: Final = Usage()


class Exchange:
    """One client request and all that is known of it so far; dies in `settle`."""

    def __init__(
        self, plan: Plan, request: web.BaseRequest, dialect: Dialect, operation: str = "chat"
    ) -> None:
        # What was asked
        self.operation = operation  # as the GenAI conventions call it
        self.plan = plan
        self.request = request
        self.dialect = dialect
        self.id = os.urandom(8).hex()
        self.began = time.monotonic()
        self.deadline = math.inf  # by when all has to be over, in the event loop's time
        self.caller = _NOBODY
        self.body = _NO_BODY
        self.peek = _NO_PEEK
        self.route = _NO_ROUTE
        # What it runs with
        self.task = asyncio.current_task()
        self.expelled = False  # cancelled by us at shutdown, not by the client
        self.permit: Permit | None = None
        self.trace = NO_TRACE
        self.tape: Tape | None = None  # of the flight recorder
        self.downstream: Downstream | None = None  # of a stream
        # Its attempts: hedged ones run beside one another, and all of them write here
        self.waiting: list[tuple[Lane, asyncio.Timeout]] = []  # have not answered yet
        self.tried: list[Tried] = []  # are over, in the order in which they ended
        self.hedged = False  # a second attempt was made beside the first
        self.held = 0.0  # seconds in which all were cooling down
        self.first: float | None = None  # when the first meaningful event came
        self.sticky: str | None = None  # hit | miss | repin
        # Of the attempt that answers; until one does, of the one that was sent last (see `went`)
        self.lane: Lane | None = None
        self.note: BodyNote | None = None
        self.dropped: tuple[str, ...] = ()
        # What came of it
        self.question: Question | None = None  # to the cache ledger
        self.likely = 0  # about how many tokens were sent, and how many came back
        self.heard = 0
        self.usage: Usage | None = None  # as the provider counts
        self.status = 0
        self.code = "CD"  # the termination code: the client left, unless something sets another
        self.error = ""

    @functools.cached_property
    def identity(self) -> str:
        """A short name for the conversation, different for each caller; "" if it has none."""
        headers = self.request.headers
        said = session_of(headers) or identity_of(headers, self.body.wire)
        whole = f"{self.caller.name}\0{said}".encode(errors="replace")
        return hashlib.sha256(whole).hexdigest()[:32] if said else ""

    @property
    def bound(self) -> str:
        """The same, but "" if there is only one lane, so that nothing can be bound."""
        return "" if self.route.is_single else self.identity

    @functools.cached_property
    def parsed(self) -> Request:
        """The whole request in the hub's types, put in order."""
        request = self.dialect.parse_request(self.body.exact, self.peek.variant)
        model, stream = self.peek.model, self.peek.stream  # not every body says these
        messages = repaired(request.messages)
        request = replace(request, model=model, stream=stream, messages=messages)
        return with_known_choice(request)

    @functools.cached_property
    def tokens(self) -> int:
        return estimate(self.parsed)

    def facts(self) -> Facts:
        """What a rule may ask."""
        return Facts(
            model=self.peek.model,
            key=self.caller.name,
            headers=self.request.headers,
            body=self.body.wire,
            parse=lambda: self.parsed,
            count=lambda: self.tokens,
        )

    def went(self, lane: Lane, note: BodyNote | None, dropped: tuple[str, ...]) -> None:
        """Note where it is sent now, and at last where the answer comes from."""
        self.lane, self.note, self.dropped = lane, note, dropped

    @property
    def may_hedge(self) -> bool:
        """May a second attempt be made beside the first?  Only for streams: how long a whole answer
        takes says nothing about its provider."""
        return self.route.hedge_after < math.inf and self.peek.stream and not self.hedged

    def release(self) -> None:
        """The answer has begun, so the request is not needed again: free its memory."""
        self.body = _NO_BODY
        self.__dict__.pop("parsed", None)

    def reservation(self, sent: int, wanted: int) -> Spend:
        """What the request may come to, at the most expensive of its possible targets."""
        wanted, prices = int(min(wanted, self.route.room)), self.route.prices
        if not prices:
            return Spend(sent + wanted)
        usage = Usage(input=sent, output=wanted)
        return Spend(sent + wanted, max(cost(usage, price) for price in prices))

    def used(self) -> tuple[Usage, bool]:
        """The tokens used, and whether they had to be estimated.

        They are estimated if the provider never reported them, or not to the end.  If the client
        gave up, the provider has read the prompt all the same; a failed attempt is free.
        """
        told = sane(self.usage) if self.usage else _NO_USAGE
        if self.code == "OK" and (told.input or told.output):
            return told, False
        if self.first is not None:
            sent = told.input or self.likely
            guess = replace(told, input=sent, output=max(told.output, self.heard))
            return guess, guess != _NO_USAGE
        if self.tried and self.tried[-1].outcome == "cancelled":
            return Usage(input=self.likely), self.likely > 0
        return _NO_USAGE, False

    def charges(self) -> list[Charge]:
        """What each provider that read the request will charge for, the one that counts first.

        A provider that was asked beside it and called off has read the same prompt.
        """
        usage, estimated = self.used()
        charges = [Charge.of(self.lane, usage, estimated)]
        if self.hedged:
            read = Usage(input=usage.input or self.likely)
            others = [t.lane for t in self.tried if t.outcome in _READ and t.lane is not self.lane]
            charges += [Charge.of(lane, read, True) for lane in others]
        return charges

    def since(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.began) * 1000)

    def abandon(self) -> bool:
        """Give up the attempts that have not answered yet; False if there are none."""
        for _, clock in self.waiting:
            clock.reschedule(asyncio.get_running_loop().time())
        return bool(self.waiting)

    def glance(self, now: float) -> JSON:
        """What watchers see of it while it runs; times in milliseconds."""
        lanes = [lane for lane, _ in self.waiting] or ([self.lane] if self.lane else [])
        last = self.downstream.last if self.downstream and self.first else self.began
        return {
            "id": self.id,
            "key": self.caller.name or None,
            "model": self.peek.model or None,
            "target": " or ".join(map(str, lanes)) or None,
            "provider": lanes[0].target.provider.name if lanes else None,
            "stream": self.peek.stream,
            "begun": self.first is not None,
            "attempts": [tried.record() for tried in self.tried],
            "ms": self.since(now),
            "first_ms": self.since(self.first),
            "silent_ms": round((now - last) * 1000),
            "sent": self.downstream.sent if self.downstream else 0,
        }

    def answer_headers(self) -> dict[str, str]:
        """What relay says about itself in an answer."""
        headers = {"x-relay-request-id": self.id, "x-relay-attempts": str(len(self.tried))}
        if self.lane:
            headers |= self.lane.about
        if self.note:
            headers["x-relay-body"] = self.note
        if self.dropped:
            headers["x-relay-dropped"] = header_text(", ".join(self.dropped))
        if self.permit:
            headers |= self.permit.headers
        upstream = sum(map(operator.attrgetter("ms"), self.tried))
        held = round(self.held * 1000)
        relay = max(0, round((time.monotonic() - self.began) * 1000) - upstream - held)
        timing = f"relay;dur={relay}, upstream;dur={upstream}"
        headers["server-timing"] = timing + (f", held;dur={held}" if held else "")
        return headers


# ==== 46. Preparation =========================================================
# How a request goes out on a lane: as the bytes that came if the dialect is the same, edited only
# where something has to be, else through the hub.

# What concerns one connection only (RFC 9110 7.6.1), what relay sets itself, the client's own
# credentials, and what would tell the provider about the client's network.  The last two names:
# with relay's key, a caller's organization is a 401, which would mark the key for everybody.
_NOT_FORWARDED: Final = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer"
    " trailers transfer-encoding upgrade expect host content-length content-encoding"
    " accept-encoding authorization x-api-key api-key x-goog-api-key cookie forwarded"
    " x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-real-ip via"
    " cf-connecting-ip true-client-ip x-client-ip x-forwarded-prefix origin referer"
    " sec-fetch-site sec-fetch-mode sec-fetch-dest openai-organization openai-project".split()
)
_READABLE: Final = ("gzip", "deflate", "identity")
# What `stream_mode` makes of the client's wish.
_STREAMS: Final = {"always": True, "never": False}


class Prepared(NamedTuple):
    """A request's body for one lane, and what became of the client's."""

    body: bytes
    note: BodyNote
    names: Mapping[str, str] = {}  # tool names that had to change -> what they were
    dropped: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()  # of `Rendered`


class Preparation:
    """One request made ready for one lane."""

    def __init__(self, exchange: Exchange, lane: Lane, strip: bool = False) -> None:
        """`strip`: without the reasoning that the provider objected to."""
        self.exchange = exchange
        self.lane = lane
        self.strip = strip
        self.upstream = lane.endpoint.dialect
        self.same = self.upstream is exchange.dialect
        mode = lane.target.provider.config.stream_mode
        self.stream = _STREAMS.get(mode, exchange.peek.stream)

    def outgoing(self, counting: bool = False) -> Outgoing:
        """The request as it is sent; `counting`: to the endpoint that counts its tokens."""
        exchange, lane, dialect, stream = self.exchange, self.lane, self.upstream, self.stream
        prepared = self._forwarded() if self.same else self._translated()
        client = request_headers(exchange.request.headers, stream, self.same)
        url = lane.address(stream, exchange.peek.variant if self.same else "")
        if counting:
            prepared = self._uncounted(prepared)
            url = dialect.address(dialect.counting(lane.endpoint.url), lane.target.model, stream)
        if self.same and "?" in exchange.request.raw_path:
            query = exchange.request.raw_path.partition("?")[2]
            url = with_query(url, query, {"key", *dialect.modes})
        headers = {**dialect.headers, **client, **exchange.trace.carried(lane)}
        url, headers = lane.authorized(url, headers)
        return Outgoing(
            url=url,
            headers=headers,
            body=prepared.body,
            stream=stream,
            passage=self._passage(prepared),
            note=prepared.note,
            dropped=prepared.dropped,
            proxy=lane.endpoint.proxy,
        )

    def _passage(self, prepared: Prepared) -> Passage:
        """The way back: what is needed of the request to pass its answer on."""
        exchange, lane, same = self.exchange, self.lane, self.same
        asked = Asked(
            model=exchange.peek.model,
            id=exchange.id,
            tokens=0 if same else exchange.tokens,
            now=int(time.time()),
            usage=same or exchange.parsed.include_usage,
            variant=exchange.peek.variant,
            shown=same or exchange.parsed.show_thoughts is not False,
            stops=prepared.stops,
            echo={} if same else exchange.dialect.echoed(exchange.body.wire),
            forms={} if same else {t.name: t.form for t in exchange.parsed.tools if t.form},
        )
        return Passage(
            upstream=self.upstream,
            client=exchange.dialect,
            asked=asked,
            names=prepared.names,
            account=lane.credential.account,
            provider=lane.target.name,
            redacted=exchange.plan.redacted,
        )

    def _forwarded(self) -> Prepared:
        """The same dialect: the client's bytes, edited only if something has to be."""
        body, named, model = self.exchange.body, self.upstream.names_model, self.lane.target.model
        if not self._is_as_wanted():
            edited, taken = self._edited(body.wire)
            if edited is not body.wire:
                if body.exact is not body.wire:
                    edited, taken = self._edited(body.exact)
                return Prepared(
                    dumps(edited | ({"model": model} if named else {})), "edited", {}, taken
                )
        data = body.retargeted(model) if named else body.raw
        return Prepared(data, "verbatim" if data is body.raw else "edited")

    def _is_as_wanted(self) -> bool:
        """Do the bytes alone show that nothing has to be edited?"""
        endpoint, exchange = self.lane.endpoint, self.exchange
        asks = self.strip or self.stream is not exchange.peek.stream or self.lane.target.output
        leaves = not asks and endpoint.edits_nothing
        return leaves and self.upstream.is_clean(exchange.body.raw, endpoint.quirks)

    def _edited(self, body: JSON) -> tuple[JSON, tuple[str, ...]]:
        """The edited body, and what was taken out; the very same object if nothing changed."""
        endpoint, account = self.lane.endpoint, self.lane.credential.account
        body = self.upstream.cleaned(body, endpoint.quirks, account, self.strip)
        if self.stream is not self.exchange.peek.stream:
            body = self.upstream.restreamed(body, self.stream)
        body = _within(body, self.lane.target.output, self.upstream.output_limits)
        body, taken = endpoint.edited(body)
        return body, taken + (("thinking",) if self.strip else ())

    def _uncounted(self, prepared: Prepared) -> Prepared:
        """Without keys that edits have set but the counting endpoint refuses."""
        body, client = loads_exactly(prepared.body), self.exchange.body.wire
        refused = self.upstream.uncounted - client.keys()
        if refused.isdisjoint(body):
            return prepared
        return prepared._replace(body=dumps({k: v for k, v in body.items() if k not in refused}))

    def _translated(self) -> Prepared:
        """Another dialect: the same request, in the form that this provider takes."""
        lane, endpoint, quirks = self.lane, self.lane.endpoint, self.lane.endpoint.quirks
        request = replace(self.exchange.parsed, model=lane.target.model, stream=self.stream)
        if request.max_tokens and lane.target.output:
            request = replace(request, max_tokens=min(request.max_tokens, lane.target.output))
        request = without_reasoning(request) if self.strip else request
        ids = re.compile(quirks.call_id or self.upstream.call_id)
        request, names = suited(request, re.compile(quirks.tool_name), ids)
        rendered = self.upstream.render_request(request, quirks, lane.credential.account)
        body, taken = endpoint.edited(rendered.body)
        dropped = tuple(dict.fromkeys((*rendered.dropped, *taken)))
        return Prepared(dumps(body), "translated", names, dropped, rendered.stops)


def _within(body: JSON, output: int | None, limits: Iterable[str]) -> JSON:
    """With max_tokens cut to what the model can write; Claude Code always asks for 32,000."""
    for path in limits if output else ():
        asked = found(body, path.split("."))
        if isinstance(asked, int) and output and asked > output:
            body = with_value(body, path.split("."), output)
    return body


def with_query(url: str, query: str, taken: Set[str]) -> str:
    """The URL with the client's query after its own, without the parameters in `taken`."""
    names = ((item, urllib.parse.unquote_plus(item.partition("=")[0])) for item in query.split("&"))
    kept = [item for item, name in names if item and name.lower() not in taken]
    return url + ("&" if "?" in url else "?") + "&".join(kept) if kept else url


# The client's headers that reach a provider of another dialect.
_SAID_ANYWHERE: Final = frozenset(("user-agent", "accept-language", "traceparent", "tracestate"))


def request_headers(client: CIMultiDictProxy[str], stream: bool, same: bool) -> dict[str, str]:
    """The client's headers that go to a provider: in the same dialect nearly all, else a few.

    A stream is requested without a content coding, because it has to be read as it passes; a
    whole answer in the codings that the client accepts and relay can read.
    """
    kept: dict[str, str] = {}
    for said, value in client.items():
        name = _forwarded_name(said)
        if name and (same or name in _SAID_ANYWHERE):
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    if "Connection" in client:
        for named in ",".join(client.getall("Connection")).lower().split(","):
            kept.pop(named.strip(), None)
    kept.setdefault("user-agent", f"relay/{__version__}")
    kept["content-type"] = "application/json"
    offered = "" if stream else client.get("Accept-Encoding", "")
    kept["accept-encoding"] = _readable(offered) or "identity"
    return kept


@functools.lru_cache(1000)
def _forwarded_name(said: str) -> str:
    """The name under which a header is forwarded; "" if it is not."""
    name = said.lower()
    return "" if name in _NOT_FORWARDED or name.startswith("x-relay-") else name


@functools.lru_cache(100)
def _readable(offered: str) -> str:
    codings = (coding.strip() for coding in offered.split(","))
    return ", ".join(c for c in codings if c.partition(";")[0].strip() in _READABLE)


# ==== 47. Accounts ============================================================
# What a request may take, and what it came to.  Every request passes here twice:
#
#     reserve    before its first attempt: a permit within the limits of its key
#     settle     at its end, whatever that was: the permit back, and the request entered in the
#                ledger, the metrics, the trace, the cache ledger and the log
#
# Settling never waits, so nothing can prevent or repeat it.

_MOST_MODELS: Final = 1000  # whose names are remembered; a bound for memory


class Accounts:
    """Limits, ledger, cache ledger and metrics, and the store that keeps them."""

    def __init__(
        self,
        store: Store,
        notebook: Notebook,
        callers: Callable[[], Iterable[Caller]],
        log: Callable[[], Log],
    ) -> None:
        self.limits = Limits(store.shares_limits)
        self.ledger = Ledger()
        self.caches = CacheLedger()
        self.metrics = Metrics()
        self.keeper = Keeper(store, self.ledger, self.limits, notebook, callers, log)
        self._answered: set[str] = set()  # models that somebody has answered as

    async def reserve(self, exchange: Exchange, sent: int, wanted: int) -> None:
        """Take a permit within the caller's limits, for about so many tokens; `settle` gives it
        back, whatever happens in between.  Only a store that shares limits makes anybody wait."""
        exchange.likely, caller = sent, exchange.caller
        asked = exchange.reservation(sent, wanted) if caller.limits else Spend()
        now, wall = time.monotonic(), time.time()
        permit = exchange.permit = self.limits.admit(exchange.id, caller, asked, now, wall)
        if caller.limits is None or not self.keeper.store.shares_limits:
            return
        judged = await self.keeper.judged(permit)
        if judged and not judged.refusal:
            permit.headers = permit.account.terms.headers(judged.requests, judged.tokens)
            return
        closed = exchange.plan.config.state_fail_closed and permit.account.terms.budgets
        if judged is None and not closed:
            return
        self.limits.withdraw(permit)
        exchange.permit = None
        if judged and judged.refusal:
            raise judged.refusal.error(caller, time.time())
        raise StateDown("budgets cannot be looked up: the shared state is down", retry_after=10)

    def settle(self, exchange: Exchange, log: Log) -> None:
        """The end, however it came: the permit back, counted, and one log line.

        Synchronous, so that nothing can prevent it.
        """
        now, wall = time.monotonic(), time.time()
        charges = exchange.charges()
        spend, priced, estimated = Spend(), False, False
        for charge in charges:
            spend.tokens += charge.usage.input + charge.usage.output
            spend.cost += charge.cost or 0
            priced = priced or charge.cost is not None
            estimated = estimated or charge.estimated
        if permit := exchange.permit:  # first of all, so that nothing can keep it from coming back
            self.limits.settle(permit, spend, wall)
            self.keeper.wake()
        self._measure(exchange, now)
        self._explain(exchange, wall, log)
        record = self._record(exchange, now, wall)
        if permit:
            record["cost"] = spend.cost / MONEY if priced else None
            record["estimated"] = estimated
            self._enter(exchange, record, charges)
        if exchange.tape:
            exchange.tape.summary = record
        log.request(record)

    def _enter(self, exchange: Exchange, record: JSON, charges: Sequence[Charge]) -> None:
        """Add the request to the ledger, and what other providers than its own will charge."""
        for charge in charges:
            target, usage = charge.lane.target if charge.lane else None, charge.usage
            provider, model = (target.provider.name, target.model) if target else ("", "")
            who = (exchange.caller.name, provider, model)
            totals = self.ledger.totals(who, record["time"], exchange.plan.zone)
            if charge is charges[0]:
                totals.requests += 1
                totals.errors += record["level"] != "info"
            totals.estimated += charge.estimated
            totals.tokens_in += usage.input
            totals.tokens_out += usage.output
            totals.cache_read += usage.cache_read
            totals.cache_write += usage.cache_write
            totals.cost += charge.cost or 0
        self.ledger.remember(record)

    @staticmethod
    def _record(exchange: Exchange, now: float, wall: float) -> JSON:
        """What the log says of a request; a warning if something went wrong."""
        lane, usage, code = exchange.lane, exchange.usage, exchange.code
        return {
            "time": wall,
            "level": "info" if code in ("OK", "CD") else "warning",
            "id": exchange.id,
            "code": code,
            "status": exchange.status,
            "path": exchange.request.path,
            "key": exchange.caller.name or None,
            "model": exchange.peek.model or None,
            "provider": lane.target.provider.name if lane else None,
            "target": lane.target.name if lane else None,
            "body": exchange.note,
            "stream": exchange.peek.stream,
            "attempts": [tried.record() for tried in exchange.tried],
            "tokens_in": usage.input if usage else None,
            "tokens_out": usage.output if usage else None,
            "cache_read": usage.cache_read if usage else None,
            "cache_write": usage.cache_write if usage else None,
            "cost": None,
            "estimated": False,
            "ms": exchange.since(now),
            "first_ms": exchange.since(exchange.first),
            "held_ms": round(exchange.held * 1000) or None,
            "sticky": exchange.sticky,
            "dropped": list(exchange.dropped) or None,
            "error": exchange.plan.redacted(exchange.error) or None,
        }

    def _explain(self, exchange: Exchange, wall: float, log: Log) -> None:
        """Give a lost cache a line of its own: which part of the prompt changed, and by whom."""
        lane, question = exchange.lane, exchange.question
        if not (lane and question):
            return
        said = (lane.endpoint, exchange.note, exchange.dropped)
        way = Way(exchange.peek.model, lane.credential.name, str(lane.target), said)
        if question.raw:  # restored, because the conversation's name may come from it
            exchange.body = Body(question.raw, unread=True)
        lost = self.caches.settled(question, lambda: exchange.identity, exchange.usage, way, wall)
        if lost:
            known = {"id": exchange.id, "key": exchange.caller.name, "target": way.target}
            conversation = {"conversation": exchange.identity[:8]}
            log.event("info", "cache lost", **known, **conversation, **lost)

    def _measure(self, exchange: Exchange, now: float) -> None:
        """Count the request in the metrics; nothing is counted while it runs."""
        metrics, tally = self.metrics, self._tally(exchange)
        tally.requests.add(1)
        tally.callers.add(1)
        tally.duration.observe(now - exchange.began)
        spent = exchange.held
        for tried in exchange.tried:
            spent += tried.seconds
            series = metrics.attempts.of(tried.lane.target.provider.name, tried.outcome)
            series.observe(tried.seconds)
        if exchange.first is not None:
            first = exchange.first - exchange.began
            tally.first_token.observe(first)
            metrics.overhead.of().observe(max(0.0, first - spent))
        if exchange.usage:
            tally.tokens.count(exchange.usage)
        if exchange.trace is not NO_TRACE:
            self._end_trace(exchange, exchange.usage)

    def _tally(self, exchange: Exchange) -> Tally:
        return self.metrics.tally(
            exchange.operation,
            exchange.dialect.name,
            exchange.lane.target.provider.name if exchange.lane else "",
            self._model_label(exchange),
            exchange.caller.name,
            str(exchange.status or ""),
            exchange.code,
        )

    @staticmethod
    def _end_trace(exchange: Exchange, usage: Usage | None) -> None:
        """Token counts go on the attempt's span only, so that nobody adds them up twice."""
        failed = None if exchange.code == "OK" else exchange.code
        if exchange.lane:
            exchange.trace.attempted(
                exchange.lane,
                gen_ai__usage__input_tokens=usage.input if usage else None,
                gen_ai__usage__output_tokens=usage.output if usage else None,
                http__response__status_code=200 if usage else None,
                error__type=failed,
            )
        exchange.trace.end(
            f"{exchange.operation} {exchange.peek.model}".strip(),
            http__request__method=exchange.request.method,
            url__path=exchange.request.path,
            http__response__status_code=exchange.status or None,
            error__type=failed,
            relay__request_id=exchange.id,
            relay__code=exchange.code,
            relay__attempts=len(exchange.tried),
        )

    def _model_label(self, exchange: Exchange) -> str:
        """The provider's name for the model, once it has answered under it: clients invent names,
        and a provider without `models` is asked for every one."""
        model = exchange.lane.target.model if exchange.lane else ""
        if not model:
            return ""
        if model in self._answered:
            return model
        if exchange.first is None or len(self._answered) >= _MOST_MODELS:
            return OTHER
        self._answered.add(model)
        return model


# ==== 48. Failover ============================================================
# Attempts at a request, until a lane answers.  Nothing of it reaches the client before the first
# meaningful event, so trying another lane is free.  From the outside in:
#
#     attempts          passes over the lanes until one answers: skipping, waiting, at last trying
#                       even those that are marked
#     _pass             one pass, lane by lane; `_hedged` tries two beside one another
#     _tried            one lane, and again without the reasoning it objects to
#     attempt           one try: prepared and sent
#     tracked           its outcome told to health, the trace and the log
#     _begun_in_time    its limits of time
#     _begun            the reply's status, and its first event: an answer, or an error

_SEAL_TROUBLE: Final = re.compile(
    r"signature|encrypted_content|redacted_thinking|expected `?thinking|thinking.{0,40}block"
    # of a platform that does not know it; to an organization that is not verified
    r"|thinking\S*\.display|reasoning[. ]summar",
    re.IGNORECASE,
)
_HEADER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# The provider's headers that a translated answer keeps, and those that no answer does.
_ANSWER_KEPT: Final = frozenset(("request-id", "x-request-id"))
_ANSWER_DROPPED: Final = frozenset(
    "connection keep-alive proxy-authenticate te trailer transfer-encoding upgrade date server"
    " content-length set-cookie alt-svc strict-transport-security".split()
)


@dataclass(slots=True)
class Answer:
    """An answer that has begun: the attempt succeeded, and the rest of its bytes may still come."""

    lane: Lane
    reply: Reply
    pipe: Pipe
    head: bytes  # for the client, from what was read so far
    inflater: Inflater
    deadline: float  # of the attempt, in the event loop's time
    raw: bytes = b""  # a whole answer, in its content coding
    note: BodyNote | None = None
    dropped: tuple[str, ...] = ()  # of the request
    flight: Flight | None = None  # the lane is busy until the answer is over

    @property
    def status(self) -> int:
        return self.reply.status

    def heard(self) -> int:
        """About how many tokens came so far: one per event, or per four bytes of a whole answer."""
        return len(self.raw) // 4 or self.head.count(b"data:")

    def pour(self, take: Callable[[bytes], object]) -> Awaitable[bool]:
        """Pour the reply's bytes, inflated."""
        if not self.inflater.active:
            return self.reply.pour(take)

        def inflated(data: bytes) -> object:
            plain = self.inflater.feed(data)
            return take(plain) if plain else True

        return self.reply.pour(inflated)

    async def begin(self) -> None:
        """Read up to the first thing that cannot be taken back, a failure, or the end."""
        pipe = self.pipe

        def take(data: bytes) -> bool:
            self.head += pipe.feed(data)
            if len(self.head) > MOST_HELD:
                pipe.failure = Failure("says nothing, at length", cause="transient")
            return not (pipe.begun or pipe.failure)

        if not await self.pour(take):
            self.head += pipe.eof()
        self.pipe = pipe.chosen

    def close(self) -> None:
        self.reply.close()
        if self.flight:
            self.flight.end()


def answer_headers(exchange: Exchange, reply: Reply, verbatim: bool) -> CIMultiDict[str]:
    """The provider's headers for the client: nearly all if its bytes pass `verbatim`."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in reply.headers.items():
        if _passes(name, verbatim):
            headers.add(name, value)
    said = " ".join(headers.values())
    if _HEADER_VALUE.fullmatch(said) and exchange.plan.redacted(said) == said:
        return headers
    fine = ((n, v) for n, v in headers.items() if _HEADER_VALUE.fullmatch(v))
    return CIMultiDict((name, exchange.plan.redacted(value)) for name, value in fine)


@functools.lru_cache(1000)
def _passes(name: str, verbatim: bool) -> bool:
    name = name.lower()
    if name in _ANSWER_KEPT:
        return True
    own = name.startswith(("x-relay-", "access-control-"))
    return verbatim and name not in _ANSWER_DROPPED and not own


_GLANCE: Final = 0.1  # seconds between two looks at whether a lane is back


def patience(exchange: Exchange) -> float:
    """How long a request may be held: as its rule says, but less than its client waits.

    The makers' SDKs say in a header how many seconds they wait.
    """
    if not exchange.route.wait:
        return 0.0
    said = exchange.request.headers.get("x-stainless-timeout", "")
    limit = float(said) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", said) else math.inf
    return min(exchange.route.wait, 0.9 * limit, 0.9 * exchange.plan.config.timeouts.total)


async def _first_of(tasks: Iterable[asyncio.Task[Answer | None]]) -> Answer | None:
    """The first answer of these; None if there is none.  An exception is raised only at the end:
    if one dialect cannot express the request, the other may answer it all the same."""
    waiting, faults = set(tasks), list[BaseException]()
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        faults += filter(None, (task.exception() for task in done))
        fine = (task.result() for task in done if not task.exception())
        if answer := next(filter(None, fine), None):
            return answer
    for fault in faults:
        raise fault
    return None


async def _call_off(tasks: Sequence[asyncio.Task[Answer | None]], kept: Answer | None) -> None:
    """Cancel what runs, and close every answer but `kept`, even one that comes just now."""

    def close(task: asyncio.Task[Answer | None]) -> None:
        answer = None if task.cancelled() or task.exception() else task.result()
        if answer and answer is not kept:
            answer.close()

    for task in tasks:
        task.add_done_callback(close)
        task.cancel()
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:  # the client left just now, so nobody will take the answer
        if kept:
            kept.close()
        raise


class Answered(Protocol):
    @property
    def status(self) -> int: ...


A = TypeVar("A", bound=Answered)


class Failover:
    """Tries the lanes of a request.  Health and balance say which, and learn how it went."""

    def __init__(self, health: Health, upstream: Upstream) -> None:
        self.health = health
        self.balance = Balance(health)
        self.upstream = upstream

    async def attempts(self, exchange: Exchange) -> Answer:
        """The first good answer.  Nothing has reached the client yet, so another try is free.

        Lanes that are cooling down are skipped.  If that leaves none, a rule may let the request
        wait until one is back; at last, lanes with a short mark that relay only guessed are tried
        all the same.
        """
        failures, skipped = list[Failed](), list[Skipped]()
        until = time.monotonic() + patience(exchange)
        answer = await self._pass(exchange, False, failures, skipped)
        while answer is None and await self._is_back(exchange, until, failures):
            skipped.clear()
            answer = await self._pass(exchange, False, failures, skipped)
        if answer is None and not failures:
            skipped.clear()
            answer = await self._pass(exchange, True, failures, skipped)
        if answer is None:
            raise concluded(failures, skipped, time.time())
        return answer

    async def _pass(
        self,
        exchange: Exchange,
        desperate: bool,
        failures: list[Failed],
        skipped: list[Skipped],
    ) -> Answer | None:
        """One pass over the lanes; failures and skipped lanes are added to the lists."""
        lanes = self._open(exchange, desperate, failures, skipped)
        for lane in lanes:
            if exchange.may_hedge:
                answer = await self._hedged(exchange, lane, lanes, failures)
            else:
                answer = await self._tried(exchange, lane, failures)
            if answer:
                return answer
            if any(not error.failure.failover for _, error in failures):
                return None
        return None

    def _open(
        self,
        exchange: Exchange,
        desperate: bool,
        failures: Sequence[Failed],
        skipped: list[Skipped],
    ) -> Iterator[Lane]:
        """The lanes that are worth trying now."""
        for lane, mark in self.lanes(exchange):
            if mark and not (desperate and mark.worth_a_try):
                skipped.append((lane, mark))
            elif not self._is_hopeless(lane, failures):
                yield lane

    async def _hedged(
        self,
        exchange: Exchange,
        lane: Lane,
        others: Iterator[Lane],
        failures: list[Failed],
    ) -> Answer | None:
        """One attempt; if it is slow to begin, the next one beside it."""
        route = exchange.route
        with contextlib.ExitStack() as probes:

            def begun(lane: Lane) -> asyncio.Task[Answer | None]:
                # the task starts a moment later, and until then no other request may probe
                probes.enter_context(self.health.attempting(lane, time.time()))
                return asyncio.create_task(self._tried(exchange, lane, failures))

            tasks, answer = [begun(lane)], None
            try:
                await asyncio.wait(tasks, timeout=route.hedge_after)
                if not tasks[0].done() and (other := next(others, None)):
                    exchange.hedged = True
                    tasks.append(begun(other))
                answer = await _first_of(tasks)
                return answer
            finally:
                await _call_off(tasks, answer)

    async def _tried(self, exchange: Exchange, lane: Lane, failures: list[Failed]) -> Answer | None:
        """One attempt, and if the provider objects to the reasoning, another without it; a failure
        is added to the list."""
        for strip in (False, True):
            try:
                return await self.attempt(exchange, lane, strip)
            except UpstreamError as error:
                objects = error.failure.name == "bad_request" and _SEAL_TROUBLE.search(
                    error.message
                )
                if strip or not objects:
                    failures.append((lane, error))
                    break
        return None

    async def _is_back(self, exchange: Exchange, until: float, failures: list[Failed]) -> bool:
        """Hold the request until a lane is available again; False if none is in time.

        It polls, because a mark may end with time, by the success of another request, by a command,
        or at another relay.  It does not wait for what cannot get better.
        """
        own = [(lane, error) for lane, error in failures if error.scope == "request"]
        if any(not error.failure.failover for _, error in own):
            return False
        began = time.monotonic()
        try:
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(left, _GLANCE))
                lanes = self.lanes(exchange)
                marks = [mark for lane, mark in lanes if not self._is_hopeless(lane, own)]
                if not all(marks):
                    failures[:] = own
                    return True
                if not marks:
                    return False
            return False
        finally:
            exchange.held += time.monotonic() - began

    def lanes(self, exchange: Exchange) -> Iterator[tuple[Lane, Mark | None]]:
        identity = exchange.bound or exchange.id
        return self.balance.lanes(exchange.route, exchange.dialect.name, identity, time.time)

    @staticmethod
    def _is_hopeless(lane: Lane, failures: Sequence[Failed]) -> bool:
        """A lane that failed; or whose model has said that the request is too long for it."""
        return bool(failures) and any(
            failed == lane or (error.failure.name == "too_long" and failed.target == lane.target)
            for failed, error in failures
        )

    def attempt(self, exchange: Exchange, lane: Lane, strip: bool) -> Awaitable[Answer]:
        """One lane.  It counts as answered once its first meaningful event is in."""
        exchange.trace.attempt(lane, exchange.operation)  # first: its headers go out, too
        outgoing = Preparation(
            exchange, lane, strip
        ).outgoing()  # BadRequest if this dialect cannot express it
        exchange.went(lane, outgoing.note, outgoing.dropped)
        flight = self.balance.began(lane, exchange.route)
        answering = self._begun_in_time(exchange, lane, outgoing, flight)
        return self.tracked(exchange, lane, flight, answering, exchange.bound)

    async def tracked(
        self,
        exchange: Exchange,
        lane: Lane,
        flight: Flight,
        answering: Awaitable[A],
        identity: str = "",
    ) -> A:
        """An attempt under way: health, the trace and the log learn how it ends.

        After an answer the lane stays busy until whoever passes the answer on ends its flight.
        """
        began, moment = time.monotonic(), time.time()
        outcome, status = "cancelled", 0
        try:
            with self.health.attempting(lane, moment):
                answer = await answering
            outcome, status = "ok", answer.status
            exchange.sticky = self.health.succeeded(lane, identity, time.time(), moment)
            exchange.first = exchange.first or time.monotonic()
            if exchange.peek.stream:  # how long a whole answer takes depends on its length
                self.balance.answered(lane, time.monotonic() - began, time.time())
            return answer
        except UpstreamError as error:
            outcome, status, error.at = error.failure.name, error.upstream_status, time.time()
            exchange.body.read()  # a body that is not JSON is no fault of the provider
            self.health.failed(lane, error, error.at, moment, identity)
            raise
        finally:
            seconds = time.monotonic() - began
            if outcome != "ok":
                outcome = self._ended(exchange, lane, flight, outcome, status, seconds)
            exchange.tried.append(Tried(lane, outcome, status, seconds))

    def _ended(
        self,
        exchange: Exchange,
        lane: Lane,
        flight: Flight,
        outcome: str,
        status: int,
        seconds: float,
    ) -> str:
        """After an attempt without an answer: the name of its outcome."""
        flight.end()
        if outcome == "cancelled" and exchange.first is not None:
            outcome = "outrun"  # by the attempt beside it
            self.balance.answered(lane, seconds, time.time())
        exchange.trace.attempted(
            lane, error__type=outcome, http__response__status_code=status or None
        )
        return outcome

    async def _begun_in_time(
        self, exchange: Exchange, lane: Lane, outgoing: Outgoing, flight: Flight
    ) -> Answer:
        """The beginning of an answer: its head, and the first event of a stream, soon enough; and
        all within the time of the attempt and of the request, unless somebody abandons it."""
        loop, provider = asyncio.get_running_loop(), lane.target.provider
        limits = provider.timeouts
        silence = limits.first_event if outgoing.stream else limits.whole
        deadline = min(loop.time() + provider.attempt_total, exchange.deadline)
        until = min(loop.time() + silence, deadline)
        clock = asyncio.timeout_at(until)
        waiting = (lane, clock)
        exchange.waiting.append(waiting)
        try:
            async with clock:
                reply = await self.sent(exchange, lane, outgoing)
                try:
                    if not (outgoing.stream and exchange.peek.stream):  # now its length counts
                        until = deadline
                        clock.reschedule(until)
                    answer = await self._begun(exchange, lane, outgoing, reply)
                except BaseException:  # cancelled or failed: a half-read reply is useless
                    reply.close()
                    raise
        except TimeoutError:
            if loop.time() >= exchange.deadline:
                raise  # not this provider's fault
            why = f"said nothing within {silence:g} s"
            if until == deadline:
                why = f"no answer within {provider.attempt_total:g} s"
            if loop.time() < until:
                why = "was given up by hand"
            raise UpstreamError("timeout", why) from None
        finally:
            exchange.waiting.remove(waiting)
        answer.deadline, answer.flight = deadline, flight
        return answer

    def sent(self, exchange: Exchange, lane: Lane, outgoing: Outgoing) -> Awaitable[Reply]:
        timeouts = lane.target.provider.timeouts
        reply = demo(outgoing) if lane.endpoint.demo else self.upstream.post(outgoing, timeouts)
        if exchange.tape is None:
            return reply
        url, headers, body = outgoing.url, outgoing.headers, outgoing.body
        return exchange.tape.attempt(lane, "POST", url, headers, body, reply)

    async def words(self, exchange: Exchange, reply: Reply) -> bytes:
        """The body of an answer with an error status, inflated and without secrets."""
        with contextlib.suppress(UpstreamError, TimeoutError):  # else the status says enough
            async with asyncio.timeout(5):
                raw = await read_all(reply, 5, 1 << 20)
            plain = Inflater(reply.headers.get("Content-Encoding", ""), 1 << 20).feed(raw)
            text = exchange.plan.redacted(plain.decode(errors="surrogateescape"))
            return text.encode(errors="surrogateescape")
        return b""

    async def error(
        self, exchange: Exchange, lane: Lane, reply: Reply, url: str = ""
    ) -> UpstreamError:
        """The error that an answer with an error status means; `url` if not the lane's own."""
        body = await self.words(exchange, reply)
        return self.classified(
            exchange,
            lane,
            said_in(body, reply.status),
            reply,
            body if lane.endpoint.dialect is exchange.dialect else b"",
            url,
        )

    def classified(
        self,
        exchange: Exchange,
        lane: Lane,
        said: Failure,
        reply: Reply,
        body: bytes = b"",
        url: str = "",
    ) -> UpstreamError:
        """A failure as an error that knows its class: what to mark, and whether to try on."""
        verdict = judged(lane.target.provider.rules, reply.status, said, reply.headers, time.time())
        message = exchange.plan.redacted(verdict.message)
        if reply.status in (301, 302, 303, 307, 308, 404, 405) and verdict.failure == "transient":
            path = urllib.parse.urlsplit(url or lane.endpoint.url).path
            message = f"serves nothing at {path} ({message}); check `endpoint`"
        return UpstreamError(
            verdict.failure,
            message,
            upstream_status=reply.status,
            retry_after=verdict.until,
            scope=verdict.scope,
            body=exchange.plan.redacted(body.decode(errors="replace")).encode() if body else b"",
            headers={
                name: exchange.plan.redacted(value)
                for name, value in reply.headers.items()
                if name.lower() in (*_ANSWER_KEPT, "content-type")
                and _HEADER_VALUE.fullmatch(value)
            },
        )

    async def _begun(
        self, exchange: Exchange, lane: Lane, outgoing: Outgoing, reply: Reply
    ) -> Answer:
        if reply.status != 200:
            raise await self.error(exchange, lane, reply)
        make = Streamed if exchange.peek.stream else Gathered
        inflater = Inflater(reply.headers.get("Content-Encoding", ""))
        answer = Answer(lane, reply, make(outgoing.passage), b"", inflater, math.inf)
        answer.note, answer.dropped = outgoing.note, outgoing.dropped
        pipe = answer.pipe
        if isinstance(pipe, Gathered):
            answer.raw = await read_all(reply, lane.target.provider.timeouts.idle)
            pipe.feed(inflater.whole(answer.raw))
            answer.head = pipe.eof()
        else:
            await answer.begin()
        if pipe.failure and not (pipe.begun and exchange.peek.stream):
            raise self.classified(exchange, lane, pipe.failure, reply)
        if not pipe.begun:
            nothing = Failure("ended without an answer", cause="transient")
            raise self.classified(exchange, lane, nothing, reply)
        return answer


# ==== 49. Relay ===============================================================
# One request from accept to settle.  Start at `Relay.handle`.  After the first meaningful event a
# break is reported in the client's own dialect and the connection is closed without a proper end,
# because clients run truncated commands if they see one.
#
#     0 s        the request is here: who asks, for what, where it may go
#     ...        attempts, one lane after the other; nothing is sent to the client
#     gate       (30 s) the head is sent in any case, because clients give up without one, and
#                keep-alives after it; attempts continue, and a failure is told in the stream
#     first      the first meaningful event: text, reasoning, a call, a regular finish.  Now the
#                lane is settled, and what was held flows
#     last       the dialect's own end; or its error event and a connection cut short
#     settle     one log line, whatever happened


Answering: TypeAlias = Awaitable[web.StreamResponse]


class Relay:
    """Serves requests by the current plan, and holds what outlives it: health, accounts."""

    def __init__(
        self, plan: Plan, upstream: Upstream, log: Log, keepalive: float, store: Store
    ) -> None:
        self.plan = plan
        self.log = log
        self.health = Health()
        self.failover = Failover(self.health, upstream)
        self.accounts = Accounts(
            store,
            Notebook(self.health),
            lambda: [key.caller for key in self.plan.keys],
            lambda: self.log,
        )
        self.keepalive = keepalive
        self.telemetry = Telemetry()
        self.recorder: Recorder | None = None
        self.running: set[Exchange] = set()

    def handle(self, request: web.BaseRequest, dialect: Dialect) -> Answering:
        """Serve a request that a model is to answer."""
        return self.framed(Exchange(self.plan, request, dialect), self._serve)

    def count(self, request: web.BaseRequest, dialect: Dialect) -> Answering:
        """Serve a request whose tokens are to be counted."""
        return self.framed(Exchange(self.plan, request, dialect, "count_tokens"), self._count)

    def framed(self, exchange: Exchange, serve: Callable[[Exchange], Answering]) -> Answering:
        """From accept to settle, and on tape if it is to be recorded."""
        framed = self._taped if self.recorder else self._settled
        return framed(exchange, serve)

    async def _taped(
        self, exchange: Exchange, serve: Callable[[Exchange], Answering]
    ) -> web.StreamResponse:
        recorder, now = cast(Recorder, self.recorder), time.time()
        exchange.tape = recorder.tape(exchange.plan.secrets, exchange.request, exchange.began, now)
        try:
            response = await self._settled(exchange, serve)
            if exchange.tape and isinstance(response, web.Response):
                exchange.tape.whole(response)
            return response
        finally:
            if exchange.tape:
                recorder.take(exchange.tape)
            if lost := recorder.news(time.monotonic()):
                self.log.event("warning", "records were lost", records=lost[0], reason=lost[1])

    async def _settled(
        self, exchange: Exchange, serve: Callable[[Exchange], Answering]
    ) -> web.StreamResponse:
        """From accept to settle, whatever happens in between."""
        self.running.add(exchange)
        exchange.trace = self.telemetry.trace(exchange.request.headers)
        try:
            return await serve(exchange)
        except RelayError as error:
            return await self._fail(exchange, error)
        except asyncio.CancelledError:
            if not exchange.expelled:  # the client is gone
                raise
            return await self._fail(exchange, ShuttingDown("relay is shutting down"))
        except ConnectionError:  # the client is gone, too
            raise
        except Exception as error:  # noqa: BLE001  # the boundary: a bug of ours is a 500
            self.log.fault(error)
            fault = RelayError("internal error; relay's log has the details")
            return await self._fail(exchange, fault)
        finally:
            self.running.discard(exchange)
            if exchange.downstream:
                exchange.downstream.stop()
            self.accounts.settle(exchange, self.log)

    async def _serve(self, exchange: Exchange) -> web.StreamResponse:
        await self.admit(exchange)
        body, limits = exchange.body, exchange.plan.config.timeouts
        wanted = likely_output(body) if exchange.caller.limits else 0
        await self.accounts.reserve(exchange, likely_input(body.raw), wanted)
        exchange.deadline = asyncio.get_running_loop().time() + limits.total
        if exchange.peek.stream:
            exchange.downstream = self._downstream(exchange)
        try:
            answer = await self.failover.attempts(exchange)
            try:
                return await self._answer(exchange, answer)
            finally:
                answer.close()
        except TimeoutError:
            tried = "; ".join(f"{each.lane}: {each.outcome}" for each in exchange.tried)
            message = (
                f"not finished within timeouts.total, {limits.total:g} s; tried {tried or 'nobody'}"
            )
            raise UpstreamError("timeout", message) from None

    def _downstream(self, exchange: Exchange) -> Downstream:
        gate = exchange.plan.config.timeouts.gate
        downstream = Downstream(exchange.request, exchange.id, self.keepalive, gate, exchange.tape)
        # before the first event there is no pipe yet that could make a keep-alive
        asked = Asked(exchange.peek.model, exchange.id, variant=exchange.peek.variant)
        downstream.alive = exchange.dialect.encoder(asked).alive
        downstream.kind = exchange.dialect.stream_type(asked.variant)
        return downstream

    async def drain(self, hurry: asyncio.Event, grace: float) -> None:
        """Let requests finish within the grace period, unless told to hurry; then end the rest."""
        hurried = asyncio.create_task(hurry.wait())
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(hurried.cancel)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    while (tasks := self._tasks()) and not hurry.is_set():
                        await asyncio.wait({*tasks, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for exchange in self.running:
            exchange.expelled = True
        for task in self._tasks():
            task.cancel()
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=1)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return {exchange.task for exchange in self.running if exchange.task}

    async def admit(self, exchange: Exchange) -> None:
        """Who asks, for what, and where it may go; any mistake of the client's is raised here."""
        request, plan = exchange.request, exchange.plan
        exchange.caller = authenticated(request, plan)
        raw = await read_body(request, plan.config.server)
        if exchange.tape:
            exchange.tape.data(REQUEST, raw)
        exchange.body = body = Body(raw, unread=not exchange.caller.is_bound)
        dialect = exchange.dialect
        seen = body.outline(dialect.telling) if dialect.names_model else {}
        exchange.peek = dialect.peek(seen, request.raw_path)
        exchange.route = permitted(exchange.peek.model, exchange.caller, plan, exchange.facts)

    # The answer

    async def _answer(self, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        exchange.went(answer.lane, answer.note, answer.dropped)
        exchange.heard = answer.heard()
        target = answer.lane.target.name
        exchange.question = self.accounts.caches.asked(exchange.body.raw, target, time.time())
        exchange.release()
        if answer.pipe.translated:
            exchange.note = "translated"
        if exchange.dropped:
            self.log.event(
                "debug", "dropped in translation", id=exchange.id, fields=list(exchange.dropped)
            )
        if exchange.downstream:
            return await self.pump(exchange, answer, exchange.downstream)
        return self._whole(exchange, answer)

    def _whole(self, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        exchange.usage = answer.pipe.usage
        exchange.status, exchange.code = 200, "OK"
        headers = self._headers(exchange, answer)
        body = answer.head if answer.pipe.translated else answer.raw
        headers.setdefault("Content-Type", "application/json")
        return web.Response(body=body, headers=headers)

    def _headers(self, exchange: Exchange, answer: Answer) -> CIMultiDict[str]:
        """The provider's headers, as far as they apply, and relay's own."""
        headers = answer_headers(exchange, answer.reply, verbatim=not answer.pipe.translated)
        if exchange.peek.stream:
            kind = headers.get("Content-Type", "")
            wanted = exchange.dialect.stream_type(exchange.peek.variant)
            if not kind.startswith(wanted):
                headers["Content-Type"] = wanted
            headers.setdefault("Cache-Control", "no-cache")
            headers["X-Accel-Buffering"] = "no"  # else nginx in front buffers the chunks
            if answer.inflater.active:
                headers.pop("Content-Encoding", None)
        headers.update(exchange.answer_headers())
        return headers

    async def pump(
        self, exchange: Exchange, answer: Answer, downstream: Downstream
    ) -> web.StreamResponse:
        """Provider to client, block by block; a break ends in the client's own error event."""
        pipe = answer.pipe
        exchange.status = 200
        try:
            headers, head, answer.head = self._headers(exchange, answer), answer.head, b""
            downstream.alive = pipe.alive
            response = await downstream.begin(headers, head)
            code, reason = await self._flow(exchange, answer, downstream)
            await downstream.write(pipe.eof(reason))
            exchange.code = code if pipe.failure else "OK"
            if pipe.failure:
                if code == "OK":
                    exchange.code = "UR" if pipe.failure.cause else "UE"
                self._broke(exchange, answer, pipe.failure)
            await downstream.end(broken=pipe.failure is not None)
        finally:
            exchange.usage = pipe.usage
        return response

    async def _flow(
        self, exchange: Exchange, answer: Answer, downstream: Downstream
    ) -> tuple[str, Failure]:
        """Pass the provider's bytes on to their end; how they ended: a code, and a reason."""
        pipe, provider = answer.pipe, answer.lane.target.provider
        idle = provider.timeouts.idle
        patience = Patience(min(idle, pipe.rest), f"went silent for {idle:g} s")

        def take(data: bytes) -> bool:
            """Pass on a block; may more come, with nothing else to do first?"""
            patience.stir()
            exchange.heard += data.count(b"data:")
            out = pipe.feed(data)
            room = downstream.send(out) if out else True
            return room and pipe.rest == math.inf and not pipe.failure

        try:
            async with asyncio.timeout_at(answer.deadline), patience:
                while not pipe.failure and await patience.pour(answer, take):
                    if pipe.rest < math.inf:
                        patience.shorten(pipe.rest)
                        downstream.stop()  # no keep-alive may come after the end
                    await downstream.room()
            return "OK", TRUNCATED
        except TimeoutError:
            if asyncio.get_running_loop().time() >= exchange.deadline:
                raise
            limit = provider.attempt_total
            return "UT", Failure(f"not finished within {limit:g} s", cause="timeout")
        except UpstreamError as error:
            if patience.spent and pipe.rest < math.inf:  # silence after the answer's end
                return "OK", TRUNCATED
            code = "UI" if error.failure.name == "timeout" else "UR"
            return code, Failure(error.message, cause=error.failure.name)

    def _broke(self, exchange: Exchange, answer: Answer, failure: Failure) -> None:
        """A break after content is the provider's failure, too, and marked for later requests."""
        error = self.failover.classified(exchange, answer.lane, failure, answer.reply)
        exchange.error = error.message
        self.health.failed(answer.lane, error, time.time(), identity=exchange.bound)

    async def _fail(self, exchange: Exchange, error: RelayError) -> web.StreamResponse:
        """Report a failure: by the status, or in the stream if the head has been sent."""
        downstream = exchange.downstream
        if downstream is None or downstream.response is None:
            if downstream:
                downstream.stop()
            return self.refuse(exchange, error)
        exchange.status, exchange.error = 200, error.message
        exchange.code = termination(error)
        dialect, variant = exchange.dialect, exchange.peek.variant
        if dialect.tells_breaks or exchange.first is None:
            await downstream.write(dialect.error_event(error, exchange.id, variant))
        await downstream.end(broken=True)
        return downstream.response

    def refuse(self, exchange: Exchange, error: RelayError) -> web.StreamResponse:
        """An error in the client's dialect; the provider's own body if it is in that dialect."""
        exchange.error, exchange.code = error.message, termination(error)
        headers = CIMultiDict(exchange.answer_headers() | error_headers(error))
        headers["Content-Type"] = "application/json"
        if isinstance(error, UpstreamError) and error.body and exchange.dialect.passes(error):
            exchange.status, body = error.upstream_status, error.body
            headers.update(error.headers)  # whichever case its names are in
        else:
            exchange.status = exchange.dialect.status(error)
            body = dumps(exchange.dialect.render_error(error, exchange.id))
        response = web.Response(body=body, status=exchange.status, headers=headers)
        if not exchange.request.content.is_eof():  # nobody waits for the rest of the request
            response.force_close()
        return response

    # Counting tokens

    async def _count(self, exchange: Exchange) -> web.StreamResponse:
        """The provider's own count if it has an endpoint for that, else a marked estimate."""
        await self.admit(exchange)
        exchange.status, exchange.code = 200, "OK"
        lane = next((lane for lane, mark in self.failover.lanes(exchange) if not mark), None)
        tokens = await self._counted(exchange, lane) if lane else None
        headers = exchange.answer_headers() | {"Content-Type": "application/json"}
        if tokens is None:
            tokens = exchange.tokens
            headers["x-relay-estimated"] = "true"
        body = dumps(exchange.dialect.render_count(tokens))
        return web.Response(body=body, headers=headers)

    async def _counted(self, exchange: Exchange, lane: Lane) -> int | None:
        """The count by a provider of the client's dialect; None if it gives none."""
        endpoint = lane.endpoint
        dialect, url = endpoint.dialect, endpoint.dialect.counting(endpoint.url)
        if dialect is not exchange.dialect or endpoint.demo or not url:
            return None
        if not endpoint.quirks.count_tokens and lane.target.provider.config.preset:
            return None
        outgoing, began = Preparation(exchange, lane).outgoing(counting=True), time.monotonic()
        try:
            async with asyncio.timeout(lane.target.provider.timeouts.connect + 10):
                reply = await self.failover.sent(exchange, lane, outgoing)
                try:
                    body = await read_all(reply, 10, 1 << 20)
                finally:
                    reply.close()
            plain = Inflater(reply.headers.get("Content-Encoding", "")).whole(body)
            counted = dialect.parse_count(loads(plain)) if reply.status == 200 else None
        except (TimeoutError, *UNREADABLE):
            return None
        if counted is not None:  # else the estimate is nobody's but relay's
            exchange.lane, exchange.note = lane, outgoing.note
            exchange.tried.append(Tried(lane, "ok", reply.status, time.monotonic() - began))
        return counted


# ==== 50. Forwarding ==========================================================
# What relay passes on without understanding it: embeddings, images, audio, rerank, moderations and
# old completions go where the name in their `model` field goes, by the routes of any request;
# /p/PROVIDER/... goes to that provider as it is.  Only the model's name is read; once it is known,
# bytes flow both ways as they come, so that no long recording or film has to fit into memory.
#
#     JSON          read whole, the model replaced in place; every target may be tried
#     a form        read up to its model field; targets may be tried until more has been sent
#     /p/...        not read at all; one target

# The paths that are forwarded, and the model that is meant if none is given.
_FORWARDED: Final = re.compile(
    r"/(?:(?:images|audio)/[a-z/_-]+|embeddings|rerank|moderations|completions)"
)
_UNSAID_MODELS: Final = {"/moderations": "omni-moderation-latest"}
_CLIMBING: Final = re.compile(r"(^|[/\\])(\.|%2e){1,2}([/\\]|$)|\\|%2f|%5c", re.IGNORECASE)


def forwards(path: str) -> bool:
    """Is this path, without a version, one whose requests go to the provider of their model?"""
    return _FORWARDED.fullmatch(path) is not None


class Upload:
    """A request's body on its way through: what had to be read of it, and the rest."""

    def __init__(
        self, request: web.BaseRequest, limits: ServerConfig, tape: Tape | None = None
    ) -> None:
        self.form: Form | None = None
        self._tape = tape
        self.body: Body | None = None
        self.whole = False  # has all of it been read?
        self._request = request
        self._limits = limits
        self._size = 0
        self._sending = False

    async def begin(self) -> None:
        """Read until the model is known; RelayError if the body cannot be read."""
        kind = self._request.headers.get("Content-Type", "")
        if not kind.lower().startswith("multipart/form-data"):
            raw = await read_body(self._request, self._limits)
            if self._tape:
                self._tape.data(REQUEST, raw)
            self.body, self.whole = Body(raw), True
            return
        self.form = Form(kind)
        if self._tape:
            self._tape.coded(REQUEST, self._request.headers.get("Content-Encoding", ""))
        await expected(self._request)
        while not self.form.span and (block := await self._next()):
            self.form.feed(block)

    @property
    def model(self) -> str:
        if self.form:
            return self.form.model
        said = Wire(self.body.wire if self.body else {})
        return said.want("model", str) or ""

    @property
    def again(self) -> bool:
        """Can it be sent again?"""
        return self.whole or not self._sending

    def outgoing(self, model: str) -> bytes | AsyncIterator[bytes]:
        """The body for a provider, with its name for the model."""
        if self.body:
            unsaid = "model" not in self.body.wire
            return self.body.raw if unsaid else self.body.retargeted(model)
        head = self.form.retargeted(model) if self.form else b""
        return head if self.whole else self._flow(head)

    async def _flow(self, head: bytes) -> AsyncIterator[bytes]:
        yield head
        self._sending = True
        while block := await self._next():
            if self.form:
                self.form.feed(block)
            yield block

    async def _next(self) -> bytes:
        """The next block of a form; b"" at its end."""
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                block = await self._request.content.readany()
        except TimeoutError:
            message = f"nothing more of the request came in {self._limits.body_timeout:g} s"
            raise TooSlow(message) from None
        self._size += len(block)
        if self._size > self._limits.max_body:
            raise too_large(self._limits.max_body)
        self.whole = self.whole or not block
        if self._tape:
            self._tape.data(REQUEST, block)
        return block


class Sending:
    """A body on its way to a provider.

    While it moves, no answer is expected.  If reading it fails, that is the client's fault, though
    what shows is a broken connection to the provider; `fault` remembers the real cause.
    """

    def __init__(self, body: Payload) -> None:
        self.body = body
        self.fault: RelayError | None = None
        self.size = 0  # of what went as it came, so far

    def blocks(self, patience: Patience) -> Payload:
        patience.stir()
        whole = self.body is None or isinstance(self.body, bytes)
        return self.body if whole else self._flow(cast(AsyncIterator[bytes], self.body), patience)

    async def _flow(self, body: AsyncIterator[bytes], patience: Patience) -> AsyncIterator[bytes]:
        try:
            async for block in body:
                patience.stir()
                self.size += len(block)
                yield block
        except RelayError as error:
            self.fault = error
            raise
        except (web.RequestPayloadError, ValueError) as error:
            self.fault = BadRequest(f"the body cannot be read: {error}")
            raise self.fault from error


class Forwarding:
    """Serves what no dialect covers."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def by_model(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """To the provider of the request's model."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            return await self._routed(exchange, path)

        operation = path.split("/")[1]
        return await self.relay.framed(Exchange(self.relay.plan, request, CHAT, operation), serve)

    async def raw(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        """`rest` is PROVIDER/PATH as the client wrote it, with its query."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            return await self._raw(exchange, rest)

        return await self.relay.framed(Exchange(self.relay.plan, request, CHAT, "raw"), serve)

    async def _routed(self, exchange: Exchange, path: str) -> web.StreamResponse:
        plan, request = exchange.plan, exchange.request
        exchange.caller = authenticated(request, plan)
        upload = Upload(request, plan.config.server, exchange.tape)
        await upload.begin()
        model = upload.model or _UNSAID_MODELS.get(path, "")
        exchange.peek = CHAT.peek({"model": model or None}, "")
        exchange.route = permitted(model, exchange.caller, plan, exchange.facts)
        sent = likely_input(upload.body.raw) if upload.body else 0
        wanted = likely_output(upload.body) if upload.body and path == "/completions" else 0
        await self.relay.accounts.reserve(exchange, sent, wanted)
        failures, skipped = list[Failed](), list[Skipped]()
        for lane, mark in self.relay.failover.lanes(exchange):
            if not lane.endpoint.dialect.forwards or lane.endpoint.demo:
                continue  # its base is another API's, which has none of these paths
            if mark or not upload.again:
                skipped += [(lane, mark)] if mark else []
                continue
            try:
                return await self._attempt(exchange, lane, path, upload)
            except UpstreamError as error:
                failures.append((lane, error))
                if not error.failure.failover:
                    break
        if failures or skipped:
            raise concluded(failures, skipped, time.time())
        raise NotFound(f"no provider of model {model!r} serves {path}: none speaks OpenAI's API")

    async def _attempt(
        self, exchange: Exchange, lane: Lane, path: str, upload: Upload
    ) -> web.StreamResponse:
        exchange.lane, sending = lane, Sending(upload.outgoing(lane.target.model))
        same = upload.body is not None and sending.body == upload.body.raw
        exchange.note = "verbatim" if same else "edited"
        name = urllib.parse.quote(lane.target.model, safe="")
        url = lane.endpoint.beside(path).replace("{model}", name)
        flight = self.relay.failover.balance.began(lane, exchange.route)
        try:
            answering = self._good(exchange, lane, url, sending)
            reply = await self.relay.failover.tracked(exchange, lane, flight, answering)
            return await self._passed(exchange, lane, reply, sending)
        finally:
            flight.end()

    async def _good(self, exchange: Exchange, lane: Lane, url: str, sending: Sending) -> Reply:
        """The head of a good answer; UpstreamError if the provider says no."""
        reply = await self._sent(exchange, lane, url, sending)
        if 200 <= reply.status < 300:
            return reply
        try:
            error = await self.relay.failover.error(exchange, lane, reply, url)
        finally:
            reply.close()
        if _is_of_the_path(error):
            error.scope = "request"
        raise error

    async def _raw(self, exchange: Exchange, rest: str) -> web.StreamResponse:
        plan, request = exchange.plan, exchange.request
        exchange.caller = authenticated(request, plan)
        if not exchange.caller.raw:
            raise Forbidden(f"key {exchange.caller.name!r} may not use /p/; it needs `raw: true`")
        name, _, path = rest.partition("?")[0].partition("/")
        if _CLIMBING.search(path):
            raise BadRequest("the path may not climb out of the provider's own")
        provider = plan.providers.get(urllib.parse.unquote(name).lower())
        if provider is None:
            raise NotFound(f"no provider is called {name!r}; there are {', '.join(plan.providers)}")
        exchange.identity = f"{exchange.caller.name}\0{provider.name}"
        exchange.route = Route(name, "addressed directly", ((Target(provider, ""),),))
        lane = self._any(exchange)
        if lane.endpoint.demo:
            raise NotFound("the demo provider has nothing below /p/")
        await self.relay.accounts.reserve(exchange, 0, 0)
        exchange.lane, exchange.note = lane, "verbatim"
        body: AsyncIterator[bytes] | None = None
        if request.body_exists:
            body = request.content.iter_any()
            if exchange.tape:
                exchange.tape.coded(REQUEST, request.headers.get("Content-Encoding", ""))
                body = exchange.tape.flowing(body)
        sending = Sending(body)
        await expected(request)
        began, flight = time.monotonic(), self.relay.failover.balance.began(lane, exchange.route)
        try:
            url = lane.endpoint.beside(f"/{path}")
            reply = await self._sent(exchange, lane, url, sending)
            refused = reply.status == 401  # relay's credential, so not the client's 401
            outcome = "auth" if refused else "ok"
            exchange.tried.append(Tried(lane, outcome, reply.status, time.monotonic() - began))
            if refused:
                error = await self.relay.failover.error(exchange, lane, reply, url)
                reply.close()
                raise concluded([(lane, error)], [], time.time())
            if reply.status >= 400:
                return await self._quoted(exchange, reply)
            return await self._passed(exchange, lane, reply, sending)
        finally:
            flight.end()

    async def _quoted(self, exchange: Exchange, reply: Reply) -> web.StreamResponse:
        """A refusal as it came, but for secrets: some providers quote the key they refuse."""
        body = await self.relay.failover.words(exchange, reply)
        reply.close()
        headers = answer_headers(exchange, reply, verbatim=True)
        headers.update(exchange.answer_headers())
        if Inflater(reply.headers.get("Content-Encoding", "")).active:  # it is plain now
            headers.popall("Content-Encoding", None)
        exchange.status, exchange.code, exchange.first = reply.status, "OK", time.monotonic()
        return web.Response(body=body, status=reply.status, headers=headers)

    def _any(self, exchange: Exchange) -> Lane:
        """The first lane without a mark; else the first of all, unless it was disabled."""
        lanes = list(self.relay.failover.lanes(exchange))
        lane, mark = next(((lane, mark) for lane, mark in lanes if not mark), lanes[0])
        if mark and mark.failure == "disabled":
            raise concluded([], [(lane, mark)], time.time())
        return lane

    async def _sent(self, exchange: Exchange, lane: Lane, url: str, sending: Sending) -> Reply:
        """The request as the client wrote it, with the provider's credential for relay's."""
        request, limits = exchange.request, lane.target.provider.timeouts
        headers = request_headers(request.headers, stream=False, same=True)
        del headers["content-type"]
        kept = ["Content-Type"]
        read = isinstance(sending.body, bytes)  # and so its content coding was removed
        kept += [] if read else ["Content-Encoding"]
        headers |= {name.lower(): request.headers[name] for name in kept if name in request.headers}
        url = with_query(url, request.raw_path.partition("?")[2], {"key"})
        url, headers = lane.authorized(url, headers)
        send, proxy = self.relay.failover.upstream.send, lane.endpoint.proxy
        try:
            async with Patience(limits.idle, f"no answer within {limits.idle:g} s") as patience:
                body = sending.blocks(patience)
                reply = send(request.method, url, headers, body, limits, proxy)
                if exchange.tape is None:
                    return await reply
                return await exchange.tape.attempt(lane, request.method, url, headers, body, reply)
        except UpstreamError as error:
            raise sending.fault or error from None

    async def _passed(
        self, exchange: Exchange, lane: Lane, reply: Reply, sending: Sending
    ) -> web.StreamResponse:
        """Pass the answer on as it comes; after a break the connection closes without an end."""
        exchange.status, exchange.first = reply.status, time.monotonic()
        headers = answer_headers(exchange, reply, verbatim=True)
        headers.update(exchange.answer_headers())
        response = client_response(exchange.tape, reply.status, headers)
        meter, idle = Meter(exchange, reply), lane.target.provider.timeouts.idle
        try:
            await response.prepare(exchange.request)
            while block := await _soon(reply.read(), idle):
                meter.feed(block)  # first: it counts also if the client is gone
                await response.write(block)
            await response.write_eof()
            exchange.code = "OK"
        except UpstreamError as error:
            reason = sending.fault or error
            exchange.code, exchange.error = termination(reason), reason.message
            if reason is error:
                self.relay.health.failed(lane, error, time.time())
            response.aborted = True
        finally:
            reply.close()
            if meter.streams and "json" in exchange.request.content_type:
                exchange.likely = exchange.likely or sending.size // 3  # as `likely_input`
        return response


def _is_of_the_path(error: UpstreamError) -> bool:
    """Is only this not to be had there?  That says nothing of conversations with the model."""
    return error.failure.name == "model_missing" or error.upstream_status in (404, 405, 501)


async def _soon(read: Awaitable[bytes], idle: float) -> bytes:
    try:
        async with asyncio.timeout(idle):
            return await read
    except TimeoutError:
        raise UpstreamError("timeout", f"went silent for {idle:g} s") from None


class Meter:
    """The token counts in an answer that is not read: every `usage` that passes, of any API.

    Streams report them more than once, growing or in parts: the latest of each counts.
    """

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        kind = reply.headers.get("Content-Type", "").lower()
        self._exchange = exchange
        self.streams = kind.startswith("text/event-stream")
        # only a POST uses tokens; a GET may show what was counted before
        self._reads = exchange.request.method == "POST" and (self.streams or "json" in kind)
        self._inflater = Inflater(reply.headers.get("Content-Encoding", ""))
        self._tail = b""

    def feed(self, block: bytes) -> None:
        if not self._reads:
            return
        try:
            plain = self._inflater.feed(block)
        except UpstreamError:  # a broken coding, which passes to the client as it is
            self._reads = False
            return
        self._exchange.heard += plain.count(b"data:") if self.streams else 0
        text, end = self._tail + plain, 0
        for said in _USAGE.finditer(text):
            end = said.end()
            self._take(said[1])
        self._tail = text[max(end, len(text) - _LONGEST_USAGE) :]

    def _take(self, said: bytes) -> None:
        with contextlib.suppress(*UNREADABLE):
            usage, known = _usage_in(loads(said)), self._exchange.usage or _NOTHING
            if usage != _NOTHING:
                self._exchange.usage = latest(known, usage)


_LONGEST_USAGE: Final = 2048  # bytes
_NOTHING: Final = Usage()
# SiliconFlow's reranking counts `tokens`.
_USAGE: Final = re.compile(
    rb'"(?:usage|usageMetadata|tokens)":\s*(\{(?:[^{}]|\{[^{}]*\}){0,2048}\})'
)
# Whose words they are: the first of these that is there decides.
_COUNTERS: Final[tuple[tuple[str, str, Dialect], ...]] = (
    ("totalTokenCount", "usageMetadata", GEMINI),
    ("cache_read_input_tokens", "usage", ANTHROPIC),
    ("cache_creation_input_tokens", "usage", ANTHROPIC),
    ("input_tokens", "usage", RESPONSES),
    ("output_tokens", "usage", RESPONSES),
    ("prompt_tokens", "usage", CHAT),
)


def _usage_in(said: JSON) -> Usage:
    """Embeddings and reranking may report the sum alone, which is what was read."""
    for word, name, dialect in _COUNTERS:
        usage = dialect.parse_usage({name: said}) if word in said else None
        if usage and usage != _NOTHING:
            return usage
    return Usage(input=whole_number(said.get("total_tokens")))


# ==== 51. Page ================================================================
# The dashboard: one page without any asset from elsewhere, and a policy that lets it load none.  It
# asks /admin for everything it shows, so that the page itself may be seen by anybody.

_STYLE: Final = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #667085; --line: #e2e6ec;
  --accent: #2f6fde; --good: #1a8a55; --warn: #b06f00; --bad: #c93a3a;
  --c0: #2f6fde; --c1: #e08a1e; --c2: #2a9d6f; --c3: #b455c9; --c4: #d64b5f; --c5: #1f9fb5;
  --c6: #8a7a2e; --c7: #7a85a0; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12151b; --card: #1a1f28; --ink: #e6e9ef; --soft: #98a2b3; --line: #2b323e;
  --accent: #6ea3ff; --good: #4cc38a; --warn: #e2a336; --bad: #f2777a;
  --c0: #6ea3ff; --c1: #f0a94e; --c2: #5cc79b; --c3: #cf8be0; --c4: #ef7d8c; --c5: #5cc4d6;
  --c6: #c2b15c; --c7: #98a2b8; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 14px/1.5 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline;
  padding: .75rem 1rem; background: var(--card); border-bottom: 1px solid var(--line) }
h1 { font-size: 1.1rem; margin: 0 } h2 { font-size: 1rem; margin: 0 0 .5rem }
header .facts { color: var(--soft); flex: 1 }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; display: grid; gap: 1rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1rem; min-width: 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; white-space: nowrap }
th { text-align: left; font-weight: 500; color: var(--soft); padding: .25rem .6rem .25rem 0 }
td button + button { margin-left: .35rem }
td { padding: .25rem .6rem .25rem 0; border-top: 1px solid var(--line); vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums }
.long { white-space: normal; min-width: 12rem; overflow-wrap: anywhere }
.soft { color: var(--soft) } .good { color: var(--good) } .warn { color: var(--warn) }
.bad { color: var(--bad) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .75rem }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-bottom: .5rem }
button, select, input { font: inherit; color: inherit; vertical-align: middle;
  background: var(--page); padding: .3rem .6rem; border: 1px solid var(--line); border-radius: 6px;
  min-height: 2.1rem; max-width: 100% }
button { cursor: pointer } button:disabled { opacity: .5; cursor: default }
button.main { background: var(--accent); border-color: var(--accent); color: #fff }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px }
textarea { width: 100%; min-height: 24rem; font: 13px/1.45 ui-monospace, monospace; tab-size: 2;
  color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: 6px;
  padding: .6rem; white-space: pre; overflow: auto }
pre { margin: .5rem 0 0; font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere }
svg { width: 100%; height: 176px; display: block }
svg text { fill: var(--soft); font-size: 11px }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin-top: .5rem }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px;
  margin-right: .35rem }
.f0 { fill: var(--c0); background: var(--c0) } .f1 { fill: var(--c1); background: var(--c1) }
.f2 { fill: var(--c2); background: var(--c2) } .f3 { fill: var(--c3); background: var(--c3) }
.f4 { fill: var(--c4); background: var(--c4) } .f5 { fill: var(--c5); background: var(--c5) }
.f6 { fill: var(--c6); background: var(--c6) } .f7 { fill: var(--c7); background: var(--c7) }
#log { max-height: 22rem; overflow: auto; font: 12.5px/1.5 ui-monospace, monospace }
#log div { border-top: 1px solid var(--line); padding: .1rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere }
dialog { border: 1px solid var(--line); border-radius: 10px; background: var(--card);
  color: inherit; width: min(24rem, 92vw) }
[hidden] { display: none !important }
"""

_BODY: Final = """
<header><h1>relay</h1><span class="facts" id="facts" role="status">connecting</span>
<button id="reload" hidden>Reload</button><button id="leave" hidden>Log out</button></header>
<main id="main" hidden>
<section><div class="tiles" id="tiles"></div></section>
<section aria-labelledby="h-run"><h2 id="h-run">Requests</h2><div class="wide"><table>
<thead><tr><th>state<th>key<th>model<th>target<th class="n">first<th class="n">time
<th class="n">in<th class="n">cached<th class="n">out
<th class="n">tok/s<th class="n">cost<th>attempts</tr></thead>
<tbody id="requests"></tbody></table></div></section>
<section aria-labelledby="h-prov"><h2 id="h-prov">Providers</h2><div class="wide"><table>
<thead><tr><th>provider<th>plan<th>credential<th>speaks<th>health<th></tr></thead>
<tbody id="providers"></tbody></table></div><pre id="tested" hidden></pre></section>
<section aria-labelledby="h-use"><h2 id="h-use">Usage</h2><div class="bar">
<select id="what" aria-label="measure"><option value="tokens">tokens
<option value="requests">requests<option value="cost">cost
<option value="cached">cached input<option value="errors">errors
</select>
<select id="by" aria-label="split by"><option>provider<option>key<option>model</select>
<select id="step" aria-label="step"><option value="hours">per hour
<option value="days">per day</select>
</div><div id="chart"></div><div class="legend" id="legend"></div></section>
<section aria-labelledby="h-err"><h2 id="h-err">Failures</h2><div id="failures" class="soft">none
yet</div></section>
<section aria-labelledby="h-log"><h2 id="h-log">Log</h2><div class="bar">
<input id="f-key" placeholder="key" aria-label="key" size="10">
<input id="f-provider" placeholder="provider" aria-label="provider" size="10">
<input id="f-code" placeholder="code" aria-label="termination code" size="5">
<label><input type="checkbox" id="pause"> pause</label></div><div id="log"></div></section>
<section aria-labelledby="h-conf"><h2 id="h-conf">Configuration</h2>
<div class="bar"><button id="edit">Edit the file</button>
<button id="save" class="main" hidden>Check and save</button>
<button id="cancel" hidden>Cancel</button> <span id="saved" class="soft"></span></div>
<pre id="wrong" class="bad" role="alert" hidden></pre>
<textarea id="file" spellcheck="false" aria-label="configuration file" hidden></textarea>
<pre id="config"></pre></section>
</main>
<dialog id="login"><form method="dialog"><h2>Admin key</h2>
<p class="soft">relay is guarded by its <code>admin_key</code>.</p>
<input id="key" type="password" autocomplete="current-password" aria-label="admin key" required>
<p id="refused" class="bad" role="alert"></p><button class="main" value="in">Log in</button>
</form></dialog>
"""

_SCRIPT: Final = r"""
"use strict";
const $ = (id) => document.getElementById(id);
const state = { may: false, marks: [], running: [], recent: [], usage: null, failures: {} };
const text = (tag, said, css) => {
  const node = document.createElement(tag);
  node.textContent = said ?? "";
  if (css) node.className = css;
  return node;
};
const row = (...cells) => {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
};
const button = (said, act) => {
  const node = text("button", said);
  node.disabled = !state.may;
  node.onclick = async () => {
    node.disabled = true;
    try { await act(); } catch (error) { alert(error.message); }
    node.disabled = !state.may;
  };
  return node;
};
const count = (n) => n == null ? "" : n < 10000 ? String(n)
  : n < 1e6 ? (n / 1e3).toFixed(n < 1e5 ? 1 : 0) + "k" : (n / 1e6).toFixed(1) + "M";
const span = (ms) => ms == null ? "" : ms < 1000 ? Math.round(ms) + " ms"
  : ms < 1e5 ? (ms / 1e3).toFixed(1) + " s" : Math.round(ms / 6e4) + " min";
const clock = (at) => new Date(at * 1000).toLocaleTimeString();

async function ask(path, body) {
  const headers = { "Content-Type": "application/json", "X-Relay-Page": "1" };
  const post = { method: "POST", body: JSON.stringify(body) };
  const reply = await fetch("admin/" + path, { headers, ...(body === undefined ? {} : post) });
  const said = await reply.json().catch(() => ({}));
  if (reply.status === 401 && path !== "login") login();
  if (!reply.ok) throw new Error(said.error?.message ?? "HTTP " + reply.status);
  return said;
}

function login() { $("main").hidden = true; if (!$("login").open) $("login").showModal(); }
$("login").addEventListener("close", async () => {
  try {
    await ask("login", { key: $("key").value });
    $("refused").textContent = "";
    $("key").value = "";
    start();
  } catch (error) { $("refused").textContent = error.message; login(); }
});
$("login").addEventListener("cancel", (event) => event.preventDefault());
$("leave").onclick = async () => { await ask("logout", {}); location.reload(); };
$("reload").onclick = async () => {
  try { $("saved").textContent = (await ask("reload", {})).said; await refresh(); }
  catch (error) { alert(error.message); }
};

async function refresh() {
  const [status, health, usage] = await Promise.all(
    [ask("status"), ask("health"), ask("usage?days=14")]);
  Object.assign(state, { status, marks: health.marks, usage, may: status.may });
  $("facts").textContent = `${status.version} · plan ${status.generation} · `
    + `${status.last_reload || "started " + clock(status.started)}`;
  $("reload").hidden = !state.may; $("leave").hidden = !status.session;
  $("edit").disabled = !state.may || !status.file;
  $("main").hidden = false;
  tiles(); providers(); chart();
}

function tiles() {
  const day = { requests: 0, tokens_in: 0, tokens_out: 0, cache_read: 0, cost: 0 };
  for (const each of state.usage.days) if (each.start === state.usage.today)
    for (const name of Object.keys(day)) day[name] += each[name];
  const input = day.tokens_in;
  const share = input ? Math.round(100 * day.cache_read / input) + " %" : "-";
  const facts = [["running", state.running.length], ["requests today", count(day.requests)],
    ["tokens in today", count(input)], ["tokens out today", count(day.tokens_out)],
    ["cached input", share], ["cost today", day.cost.toFixed(2)],
    ["cooling down", state.marks.length]];
  $("tiles").replaceChildren(...facts.map(([name, value]) => {
    const tile = text("div", "", "tile");
    tile.append(text("b", value), text("span", name, "soft"));
    return tile;
  }));
}

function providers() {
  const rows = [];
  for (const provider of state.status.providers) for (const plan of provider.plans)
    plan.credentials.forEach((credential, index) => {
      const below = (mark, name) => mark.name === name || mark.name.startsWith(name + " ");
      const marks = state.marks.filter((mark) => below(mark, provider.name)
        || below(mark, credential));
      const health = text("td", marks.length ? "" : provider.disabled ? "off" : "well",
        provider.disabled ? "warn" : marks.length ? "long" : "good");
      for (const mark of marks) health.append(text("div",
        `${mark.cause.replaceAll("_", " ")} (${mark.name}) until ${clock(mark.until)}: ${mark.said}`
        + (mark.next_probe ? "" : ", a probe is under way"), "bad"));
      const acts = document.createElement("td");
      if (!index && plan === provider.plans[0]) acts.append(
        button("Test", async () => {
          $("tested").hidden = false; $("tested").textContent = `testing ${provider.name} ...`;
          $("tested").textContent = (await ask("test", { provider: provider.name })).said;
        }),
        button(provider.disabled ? "Use again" : "Disable", async () => {
          await ask("disable", { provider: provider.name, disabled: !provider.disabled });
          await refresh();
        }));
      if (marks.length) acts.append(button("Clear", async () => {
        for (const mark of marks) await ask("health/clear", { name: mark.name });
        await refresh();
      }));
      rows.push(row(text("td", index ? "" : provider.name), text("td", index ? "" : plan.name),
        text("td", credential.split("/").pop()), text("td", plan.speaks.join(", ")), health, acts));
    });
  $("providers").replaceChildren(...rows);
}

const requestRow = (request, running) => {
  const bad = !running && !["OK", "CD"].includes(request.code);
  const quiet = running && request.silent_ms > 15000;
  const said = !running ? `${request.code} ${request.status || ""}`
    : quiet ? `silent ${span(request.silent_ms)}` : "running";
  const first = text("td", said, running ? "warn" : bad ? "bad" : "good");
  if (running && !request.begun && request.target)
    first.append(" ", button("Abandon", () => ask("abandon", { id: request.id })));
  const writing = request.ms - (request.first_ms ?? request.ms);
  const speed = request.tokens_out && writing >= 100
    ? Math.round(1000 * request.tokens_out / writing) : null;
  const tries = (request.attempts ?? []).map((each) => `${each.target} ${each.outcome}`);
  const tr = row(first, text("td", request.key), text("td", request.model),
    text("td", request.target),
    text("td", span(request.first_ms), "n"), text("td", span(request.ms), "n"),
    text("td", count(request.tokens_in), "n"), text("td", count(request.cache_read), "n"),
    text("td", count(request.tokens_out), "n"), text("td", speed ?? "", "n"),
    text("td", request.cost ? request.cost.toFixed(4) : "", "n"),
    text("td", request.error && bad ? request.error : tries.join("; "), "long soft"));
  tr.dataset.id = request.id;
  return tr;
};
function requests() {
  $("requests").replaceChildren(...state.running.map((each) => requestRow(each, true)),
    ...state.recent.slice(-30).reverse().map((each) => requestRow(each, false)));
}

function chart() {
  const [what, by, step] = [$("what").value, $("by").value, $("step").value];
  const measure = { tokens: (r) => r.tokens_in + r.tokens_out, requests: (r) => r.requests,
    cost: (r) => r.cost, cached: (r) => r.cache_read, errors: (r) => r.errors }[what];
  const sums = new Map(), names = new Map();
  for (const each of state.usage[step] ?? []) {
    const name = each[by] || "-", value = measure(each);
    if (!sums.has(each.start)) sums.set(each.start, new Map());
    sums.get(each.start).set(name, (sums.get(each.start).get(name) ?? 0) + value);
    names.set(name, (names.get(name) ?? 0) + value);
  }
  const order = [...names].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const shown = order.slice(0, 7), starts = [...sums.keys()].sort();
  const most = Math.max(1e-9, ...[...sums.values()].map(
    (bar) => [...bar.values()].reduce((a, b) => a + b, 0)));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const draw = (tag, fields, said) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(fields)) node.setAttribute(name, value);
    if (said !== undefined) node.textContent = said;
    svg.append(node); return node;
  };
  const [wide, high, left, foot] = [Math.max($("chart").clientWidth, 240), 176, 44, 20];
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${what} by ${by}, ${step}`);
  const width = (wide - left) / Math.max(starts.length, 12);
  const say = what === "cost" ? (n) => n.toFixed(2) : (n) => count(Math.round(n));
  for (const part of [0, .5, 1]) draw("text", { x: 0, y: 12 + (high - foot - 12) * (1 - part) },
    say(most * part));
  starts.forEach((start, index) => {
    let y = high - foot;
    for (const [name, value] of sums.get(start)) {
      const height = (high - foot - 6) * value / most, at = shown.indexOf(name);
      y -= height;
      const bar = draw("rect", { x: left + index * width + 1, y, width: Math.max(width - 2, 1),
        height, class: "f" + (at < 0 ? 7 : at) });
      const tip = document.createElementNS("http://www.w3.org/2000/svg", "title");
      tip.textContent = `${start.replace("T", " ").slice(0, 16)}  ${name}: ${say(value)}`;
      bar.append(tip);
    }
    if (index % Math.ceil(starts.length / 8) === 0) draw("text", { x: left + index * width,
      y: high - 5 }, step === "hours" ? start.slice(11, 16) : start.slice(5, 10));
  });
  $("chart").replaceChildren(starts.length ? svg : text("p", "nothing was used yet", "soft"));
  $("legend").replaceChildren(...shown.map((name, index) => {
    const entry = text("span", "");
    entry.append(text("i", "", "f" + index), `${name} ${say(names.get(name))}`);
    return entry;
  }));
}
for (const id of ["what", "by", "step"]) $(id).onchange = chart;

function failed(record) {
  for (const each of record.attempts ?? []) if (!["ok", "cancelled"].includes(each.outcome)) {
    const name = `${each.outcome} at ${each.target}`;
    state.failures[name] = (state.failures[name] ?? 0) + 1;
  }
  const list = Object.entries(state.failures).sort((a, b) => b[1] - a[1]);
  if (list.length) $("failures").replaceChildren(...list.slice(0, 12).map(
    ([name, times]) => text("div", `${times} x ${name}`)));
}

function logged(kind, said) {
  const passes = (id, value) => !$(id).value || String(value ?? "").includes($(id).value);
  if ($("pause").checked || !passes("f-key", said.key) || !passes("f-provider", said.provider)
    || !passes("f-code", said.code)) return;
  const line = text("div", said.line, ["warning", "error"].includes(said.level) ? "bad" : "");
  $("log").prepend(line);
  while ($("log").childElementCount > 300) $("log").lastChild.remove();
}

let source, timer;
function watch() {
  source?.close();
  source = new EventSource("admin/events?since=0");
  source.addEventListener("request", (event) => {
    const record = JSON.parse(event.data);
    state.recent.push(record); state.recent.splice(0, state.recent.length - 200);
    failed(record); logged("request", record); requests();
    clearTimeout(timer); timer = setTimeout(() => refresh().catch(() => {}), 400);
  });
  source.addEventListener("event", (event) => logged("event", JSON.parse(event.data)));
  source.addEventListener("running", (event) => {
    state.running = JSON.parse(event.data); requests(); if (state.usage) tiles();
  });
  source.onerror = () => { $("facts").textContent = "relay does not answer; trying again"; };
  source.onopen = () => refresh().catch(() => {});
}

async function config() { $("config").textContent = (await ask("config")).text; }
function editing(on) {
  for (const id of ["file", "save", "cancel"]) $(id).hidden = !on;
  $("config").hidden = on; $("edit").hidden = on; $("wrong").hidden = true;
}
$("edit").onclick = async () => {
  try {
    const file = await ask("file");
    $("file").value = file.text;
    state.digest = file.digest;
    editing(true);
  } catch (error) { alert(error.message); }
};
$("cancel").onclick = () => editing(false);
$("save").onclick = async () => {
  try {
    const changed = { text: $("file").value, digest: state.digest };
    $("saved").textContent = (await ask("file", changed)).said;
    editing(false); await refresh(); await config();
  } catch (error) { $("wrong").textContent = error.message; $("wrong").hidden = false; }
};

async function start() {
  try {
    if ((await ask("login")).needed) { login(); return; }
    await refresh(); await config(); watch(); } catch (error) {
    if (!$("login").open) $("facts").textContent = error.message;
  }
}
setInterval(() => { if (!$("main").hidden) refresh().catch(() => {}); }, 15000);
start();
"""

PAGE: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>relay</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{_STYLE}</style></head>
<body>{_BODY}<script>{_SCRIPT}</script></body></html>
""".encode()


def _hashed(text: str) -> str:
    """An inline text as a content security policy names it (CSP 3, 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


PAGE_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src '{_hashed(_STYLE)}'; script-src '{_hashed(_SCRIPT)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


# ==== 52. Source ==============================================================
# Where a configuration comes from, and how one becomes a plan.


class Certificate:
    """The TLS of TCP connections; `take` gives new ones another certificate."""

    def __init__(self, config: TLSConfig) -> None:
        """OSError says which of the files is wrong."""
        self.context = _tls_context(config)
        self._current = self.context
        # Called in every handshake before a certificate is sent, even without a server name.
        self.context.sni_callback = self._choose

    def take(self, newer: Certificate) -> None:
        self._current = newer._current

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: object) -> None:
        connection.context = self._current


def _tls_context(config: TLSConfig) -> ssl.SSLContext:
    """Certificate and key, or an OSError that says what is wrong with them."""
    for file in (config.certificate, config.key):
        try:
            text = Path(file).read_text(errors="replace")
        except OSError as error:
            raise OSError(f"cannot read {file}: {error.strerror}") from error
        if "-----BEGIN" not in text:
            raise OSError(f"{file} is not a PEM file")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a passphrase OpenSSL would ask for one at the terminal.
        context.load_cert_chain(config.certificate, config.key, password="")
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise OSError(f"{config.certificate} and {config.key}: {reason}") from error
    return context


def text_of(path: Path) -> str:
    """A configuration file's text, UTF-8 whatever the locale; ConfigError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        found = f"the byte 0x{data[error.start]:02X}"
        raise ConfigError([f"{path}:{line}:{column}: not UTF-8: {found}"]) from error


class Source(NamedTuple):
    """Where the configuration comes from: a file, or text made here; and what overrides it."""

    path: Path | None
    text: str
    listen: tuple[str, ...] = ()
    reuse_port: bool = False

    def again(self) -> Source:
        """The file as it is now."""
        return self._replace(text=text_of(self.path)) if self.path else self

    def save(self) -> None:
        """Replace the file atomically by the text; the old one stays beside it as .bak."""
        if self.path is None:
            raise BadRequest("this relay was started without a configuration file")
        path = self.path.resolve()  # a link stays one
        mode = path.stat().st_mode & 0o777
        fresh = path.with_name(f".{path.name}.new")
        backup = path.with_name(f"{path.name}.bak")
        for file, data in ((backup, path.read_bytes()), (fresh, self.text.encode())):
            file.unlink(missing_ok=True)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
                target.write(data)
                os.fsync(target.fileno())
        fresh.replace(path)


def plugged(name: str, beside: Path | None) -> str:
    """Run a plugin's file, which registers what it has; what is wrong with it, or "".

    In it, `import relay` is this very module: `relay.PRESETS["mine"] = relay.Preset(...)`, or a
    `relay.Dialect` of its own in `relay.DIALECTS`.  A reload runs it again.
    """
    path = (beside.absolute().parent if beside else Path.cwd()) / name
    sys.modules.setdefault("relay", sys.modules[__name__])
    try:
        text = path.read_bytes()
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    try:
        code = compile(text, str(path), "exec")
        exec(code, {"__name__": path.stem, "__file__": str(path)})  # noqa: S102  # what it is for
    except Exception as error:  # noqa: BLE001  # of somebody else's code: any
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
        return f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}"
    return ""


def load(source: Source) -> Plan:
    """A configuration as a plan; ConfigError with everything that is wrong with it."""
    name = str(source.path or "config")
    reading = Reading(
        name,
        os.environ,
        lambda file: Path(file).read_text(),
        zoneinfo.ZoneInfo,
        lambda module: importlib.util.find_spec(module) is not None,
    )
    config = read_config(source.text, reading)
    if source.listen:
        config = replace(config, listen=source.listen)
    for plugin in config.plugins:
        if fault := plugged(plugin, source.path):
            reading.wrong("plugins", fault)
    plan = compile_plan(config, reading)
    if config.tls and config.tls.certificate and config.tls.key:
        try:
            Certificate(config.tls)
        except (OSError, ValueError) as error:
            reading.wrong("tls", str(error))
    if problems := reading.problems():
        raise ConfigError(problems)
    return plan


# ==== 53. Admin ===============================================================
# What relay knows about itself, as JSON below /admin, and the few things that can be done to it.
# The admin key allows both, in a header or, in a browser, as the cookie that /admin/login gives in
# exchange.  Without an `admin_key`, this machine may look, and nobody may act.
#
#     GET    status  health  usage  config  file  events (a stream of log lines and of running
#            requests)
#     POST   login  logout  reload  file  health/clear  disable  abandon  test

_COOKIE: Final = "relay_session"
_SESSION: Final = 12 * 3600.0  # seconds
_MOST_SESSIONS: Final = 100
_MOST_REFUSED: Final = 5  # wrong keys a minute, from anywhere
_OPEN: Final = frozenset(("login", "logout"))
_TICK: Final = 1.0  # seconds between two reports of the running requests


class Sessions:
    """Who has logged in at the page, and how often somebody failed to."""

    def __init__(self) -> None:
        self._ends: dict[bytes, float] = {}  # digest of the cookie -> when it is over
        self._refused: collections.deque[float] = collections.deque(maxlen=_MOST_REFUSED)

    def check(self, now: float) -> None:
        """LimitExceeded if too many wrong keys came in the last minute."""
        if len(self._refused) == _MOST_REFUSED and (wait := self._refused[0] + 60 - now) > 0:
            raise LimitExceeded("too many wrong keys; wait a minute", retry_after=wait)

    def refuse(self, now: float) -> None:
        self._refused.append(now)

    def begin(self, token: str, now: float) -> None:
        """Let a token hold from now on, for a while."""
        self._ends = {mark: end for mark, end in self._ends.items() if end > now}
        while len(self._ends) >= _MOST_SESSIONS:
            del self._ends[next(iter(self._ends))]
        self._ends[_digest(token)] = now + _SESSION

    def holds(self, token: str, now: float) -> bool:
        return self._ends.get(_digest(token), 0.0) > now

    def end(self, token: str) -> None:
        self._ends.pop(_digest(token), None)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


class Steward(Protocol):
    """What holds the configuration and can reload it."""

    source: Source

    def reload(self) -> None: ...


class Admin:
    """Answers requests below /admin."""

    def __init__(self, relay: Relay, steward: Steward) -> None:
        self.relay = relay
        self.steward = steward
        self.generation = 1
        self.started = time.time()
        self.last_reload = ""
        self.closing = False
        self.sessions = Sessions()

    async def handle(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """`path` is what follows /admin/."""
        act = _ADMIN.get((request.method, path))
        if act is None:
            raise NotFound(f"{request.method} {request.path}: no such thing in /admin")
        if path not in _OPEN:
            self.require(request, write=request.method == "POST" or path == "file")
        answer = await act(self, request)
        if isinstance(answer, web.StreamResponse):
            return answer
        return web.Response(body=dumps(answer), headers={"Content-Type": "application/json"})

    # Permission

    def require(self, request: web.BaseRequest, write: bool = False) -> None:
        """The admin key.  If none is configured: only this machine, directly, no other site's page,
        and only to look, because any program here could ask.
        """
        if not self.relay.plan.admin:
            if write:
                raise Forbidden("without an `admin_key` /admin only shows, it changes nothing")
            require_direct(request)
        elif not (self._has_key(request) or self._has_session(request, write)):
            raise Unauthorized("the admin key is needed here")

    def _has_key(self, request: web.BaseRequest) -> bool:
        return any(self._is_key(key) for key in offered_keys(request))

    def _is_key(self, key: str) -> bool:
        return hmac.compare_digest(_digest(key), self.relay.plan.admin)

    def _has_session(self, request: web.BaseRequest, write: bool) -> bool:
        """The page's cookie; to act, the page itself must have sent it, not another site's."""
        token = request.cookies.get(_COOKIE, "")
        own = "X-Relay-Page" in request.headers  # a header that other sites may not send
        return (own or not write) and self.sessions.holds(self._bound(token), time.time())

    def _bound(self, token: str) -> str:
        """A cookie with the admin key it was given for: a new key logs everybody out."""
        return token + self.relay.plan.admin.hex()

    async def entrance(self, request: web.BaseRequest) -> JSON:
        """Whether the key is needed first; the page asks, to avoid running into a 401."""
        try:
            self.require(request)
        except Unauthorized:
            return {"needed": True}
        return {"needed": False}

    async def login(self, request: web.BaseRequest) -> web.StreamResponse:
        key = Wire(await self._body(request)).need("key", str)
        now = time.time()
        self.sessions.check(now)
        if not self.relay.plan.admin:
            raise Forbidden("relay has no `admin_key`, so there is nothing to log in to")
        if not self._is_key(key):
            self.sessions.refuse(now)
            raise Unauthorized("this is not the `admin_key`")
        token = secrets.token_urlsafe(32)
        self.sessions.begin(self._bound(token), now)
        response = web.Response(body=b"{}", headers={"Content-Type": "application/json"})
        response.set_cookie(
            *(_COOKIE, token),
            max_age=int(_SESSION),
            path="/admin",
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def logout(self, request: web.BaseRequest) -> web.StreamResponse:
        self.sessions.end(self._bound(request.cookies.get(_COOKIE, "")))
        response = web.Response(body=b"{}", headers={"Content-Type": "application/json"})
        response.del_cookie(_COOKIE, path="/admin")
        return response

    async def _body(self, request: web.BaseRequest) -> JSON:
        return Body(await read_body(request, self.relay.plan.config.server) or b"{}").wire

    # What there is to see

    async def status(self, request: web.BaseRequest) -> JSON:
        """What is configured, what is cooling down, how the last reload went; without secrets."""
        plan, now, health = self.relay.plan, time.time(), self.relay.health
        cooling = {
            place.name: {"cause": mark.failure, "seconds": round(mark.until - now)}
            for place, mark in health.marks.items()
            if mark.until > now
        }
        return {
            "version": __version__,
            "generation": self.generation,
            "started": round(self.started),
            "uptime": round(now - self.started),
            "running": len(self.relay.running),
            "providers": [self._provider(provider) for provider in plan.providers.values()],
            "cooling": cooling,
            "busy": self.relay.failover.balance.busy,
            "state": self.relay.accounts.keeper.trouble or "ok",
            "last_reload": self.last_reload or None,
            "file": str(self.steward.source.path or "") or None,
            "may": bool(plan.admin),
            "session": self._has_session(request, write=False),
        }

    def _provider(self, provider: Provider) -> JSON:
        plans = [
            {
                "name": billing.name,
                "speaks": list(billing.endpoints),
                "credentials": [credential.name for credential in billing.credentials],
            }
            for billing in provider.plans
        ]
        off = provider.name in self.relay.health.disabled
        return {"name": provider.name, "disabled": off, "plans": plans}

    async def health(self, request: web.BaseRequest) -> JSON:
        """What is cooling down, why, until when; and how well conversations stay in place."""
        health, now = self.relay.health, time.time()
        return {
            "now": round(now),
            "marks": health.listed(now),
            "sticky": health.sticky.counts,
            "cache_lost": self.relay.accounts.caches.causes,
        }

    async def usage(self, request: web.BaseRequest) -> JSON:
        """The days and the last hours of the store, and the latest requests."""
        days = request.query.get("days", "7")
        if not re.fullmatch(r"\d{1,3}", days):
            raise BadRequest("days: expected a whole number")
        store, zone, now = self.relay.accounts.keeper.store, self.relay.plan.zone, time.time()
        try:
            report = await usage_report(store, int(days), now, zone)
            recent = await store.recent()
        except StateTrouble as error:
            raise StateDown(f"the state store is down: {error}") from error
        today = datetime.datetime.fromtimestamp(span_starts(now, zone)[1], zone).astimezone(zone)
        return report | {"today": today.isoformat(), "recent": recent}

    async def config(self, request: web.BaseRequest) -> JSON:
        """The configuration in force, with secrets masked."""
        shown = _shown_config(self.relay.plan.config)
        text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)
        return {"text": self.relay.plan.redacted(text)}

    async def file(self, request: web.BaseRequest) -> JSON:
        """The file itself, for those who may change it."""
        text = self.steward.source.again().text
        return {"text": text, "digest": _digest(text).hex()}

    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        """The moments of the feed after a number, and once a second the running requests."""
        number = request.headers.get("Last-Event-ID", request.query.get("since", "0"))
        at = int(number) if number.isascii() and number.isdigit() else 0
        feed, woken = self.relay.log.feed, asyncio.Event()
        head = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=head | {"X-Accel-Buffering": "no"})
        leave = feed.watch(woken.set)
        try:
            await response.prepare(request)
            while not self.closing:
                woken.clear()
                moments = feed.since(at)
                at = moments[-1].number if moments else at
                await response.write(b"".join(map(self._moment, moments)) + self._running())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await woken.wait()
                        await asyncio.sleep(0.1)  # so that a busy relay sends several at once
        finally:
            leave()
        return response

    def _moment(self, moment: Moment) -> bytes:
        line = moment_text(moment.kind, moment.data, self.relay.plan.zone)
        said = sse(moment.data | {"line": line}, moment.kind)
        return b"id: %d\n" % moment.number + said

    def _running(self) -> bytes:
        now = time.monotonic()
        return sse_of([exchange.glance(now) for exchange in self.relay.running], "running")

    # What it can be told to do

    async def reload(self, request: web.BaseRequest) -> JSON:
        self.steward.reload()
        if self.last_reload.startswith("failed: "):
            raise BadRequest(self.last_reload.removeprefix("failed: "))
        return {"said": self.last_reload, "generation": self.generation}

    async def save(self, request: web.BaseRequest) -> JSON:
        """Replace the file's text: checked first, and nothing changes if anything is wrong."""
        asked = Wire(await self._body(request))
        source = self.steward.source.again()
        if (known := asked.want("digest", str)) and known != _digest(source.text).hex():
            raise BadRequest("the file was changed by somebody else meanwhile; look at it again")
        source = source._replace(text=asked.need("text", str))
        try:
            load(source)
        except ConfigError as error:
            raise BadRequest(error.message) from error
        await asyncio.to_thread(source.save)
        self.relay.log.event("info", "the configuration file was changed from the page")
        return await self.reload(request)

    async def clear(self, request: web.BaseRequest) -> JSON:
        """Remove marks: `{"name": NAME}` of a mark or a provider, or `{"all": true}`."""
        asked = Wire(await self._body(request))
        everything, name = asked.want("all", bool), asked.want("name", str)
        if bool(everything) == bool(name):
            raise BadRequest("say which marks: a `name`, or `all`: true")
        cleared = self.relay.health.clear(name or "")
        self.relay.log.event("info", "marks cleared", names=cleared or ["none"])
        return {"cleared": cleared}

    async def disable(self, request: web.BaseRequest) -> JSON:
        """Take a provider out of use until the next reload, or put it back."""
        asked = Wire(await self._body(request))
        name, off = asked.need("provider", str), asked.want("disabled", bool)
        provider = self.relay.plan.providers.get(name.lower())
        if provider is None:
            raise NotFound(f"no provider is called {name!r}")
        name, disabled = provider.name, self.relay.health.disabled
        (disabled.discard if off is False else disabled.add)(name)
        said = "used again" if off is False else "left out until the next reload"
        self.relay.log.event("warning", f"provider {said}", provider=name)
        return {"said": said, "disabled": sorted(disabled)}

    async def abandon(self, request: web.BaseRequest) -> JSON:
        """Give up a silent attempt, so that the next target is tried."""
        id = Wire(await self._body(request)).need("id", str)
        exchange = next((each for each in self.relay.running if each.id == id), None)
        if exchange is None:
            raise NotFound(f"no request {id!r} is running")
        if not exchange.abandon():
            raise BadRequest("it has begun to answer, or is not waiting for a provider just now")
        return {"said": "given up"}

    async def test(self, request: web.BaseRequest) -> JSON:
        """Send a few small requests to a provider, as `relay check --live` does."""
        name = Wire(await self._body(request)).need("provider", str)
        if self.steward.source.path is None or name.lower() not in self.relay.plan.providers:
            raise NotFound(f"no provider of the configuration file is called {name!r}")
        file = str(self.steward.source.path)
        command = (sys.executable, __file__, "check", "-c", file, "--live", "--yes")
        # in a process of its own, which serves on a port of its own
        child = await asyncio.create_subprocess_exec(
            *(*command, "--provider", name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
        return {"said": self.relay.plan.redacted(said.decode()), "well": child.returncode == 0}


_ADMIN: Final[dict[tuple[str, str], Callable[[Admin, web.BaseRequest], Awaitable[Any]]]] = {
    ("GET", ""): Admin.status,
    ("GET", "status"): Admin.status,
    ("GET", "health"): Admin.health,
    ("GET", "usage"): Admin.usage,
    ("GET", "config"): Admin.config,
    ("GET", "file"): Admin.file,
    ("GET", "events"): Admin.events,
    ("GET", "login"): Admin.entrance,
    ("POST", "login"): Admin.login,
    ("POST", "logout"): Admin.logout,
    ("POST", "reload"): Admin.reload,
    ("POST", "file"): Admin.save,
    ("POST", "health/clear"): Admin.clear,
    ("POST", "disable"): Admin.disable,
    ("POST", "abandon"): Admin.abandon,
    ("POST", "test"): Admin.test,
}
ADMIN_PATHS: Final = tuple((method, f"/admin/{path}".rstrip("/")) for method, path in _ADMIN)


def require_direct(request: web.BaseRequest) -> None:
    """Only this machine, and not through a proxy."""
    require_loopback(request, "`admin_key`")
    if any(name.lower().startswith(("forwarded", "x-forwarded-")) for name in request.headers):
        raise Forbidden("without an `admin_key` this is not answered through a proxy")


# Keys of the configuration whose values are never shown.
_HIDDEN: Final = frozenset(("key", "api_key", "admin_key"))


def _shown_config(value: Any, name: str = "") -> Any:
    """A configuration as plain values, without defaults, and with secrets hidden."""
    if name in _HIDDEN and value:
        return "[secret]"
    if dataclasses.is_dataclass(value):
        fields = ((spec, getattr(value, spec.name)) for spec in dataclasses.fields(value))
        said = {spec.name: each for spec, each in fields if each != spec.default}
        empty: tuple[object, ...] = (None, (), {})
        return {key: _shown_config(v, key) for key, v in said.items() if v not in empty}
    if isinstance(value, Mapping):
        # "key" is a limit's or a condition's name here, not a secret's
        return {str(key): _shown_config(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown_config(each) for each in value]
    plain = isinstance(value, int | float | bool) or value is None
    return value if plain else re.sub(r"//[^/@\s]+@", "//[secret]@", str(value))


# ==== 54. Heap ================================================================
# A coding agent's requests are large and alike, and memory that one has freed the next will need.
# By default glibc gets every block over 128 KB from the system and gives it back at once, so that
# each copy gets new pages.  Here it is told to keep them; after a burst, idle memory is given back.

_KEPT: Final = {-3: 4 << 20, -1: 64 << 20, -2: 1 << 20}  # M_MMAP_THRESHOLD, M_TRIM_..., M_TOP_PAD
_SLACK: Final = 32 << 20  # bytes more than after the last time: not worth a pause yet
_OF_ONE: Final = 1 << 20  # bytes that a request may need while it runs
# A parsed request is a tree of thousands of objects, which reference counting frees.  To search
# them for cycles after every 700, as Python does, is a tenth of the cost of a large request.
_OBJECTS: Final = 50_000


class Heap:
    """The process's memory."""

    def __init__(self) -> None:
        self._low = 0  # bytes that remained after the last time
        self._libc = _glibc()
        if self._libc:
            for parameter, size in _KEPT.items():
                self._libc.mallopt(parameter, size)

    def settle(self) -> None:
        """To be called once everything permanent has been made.

        From now on the collector ignores it.  It does not run now either: the few hundred KB in
        cycles are not worth a tenth of the start-up time.  If Python had to compile this file, 40
        MB are free.
        """
        gc.freeze()
        gc.set_threshold(_OBJECTS)
        self.give_back(0)

    def give_back(self, running: int) -> None:
        """Give free memory back if there is much: 10 ms for 100 MB, 10 us if there is none."""
        now = resident()
        if self._libc and now > self._low + _SLACK + running * _OF_ONE:
            self._libc.malloc_trim(0)
            now = self._low = resident()
        self._low = min(self._low, now)


def _glibc() -> ctypes.CDLL | None:
    """None if the C library is another one, or cannot be loaded."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if hasattr(libc, "malloc_trim") else None


def resident() -> int:
    """Bytes of this process in memory; 0 where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# ==== 55. Operations ==========================================================
# Which handler serves which path, and the handlers of what is not a model's answer: probes, lists,
# status.  No probe ever calls a provider.

Handler: TypeAlias = Callable[["Operations", web.BaseRequest], Answering]

# The paths of clients, without the version segments in front: a base URL that already ends in
# /v1 makes a client ask for /v1/v1/messages, one without it for /chat/completions, one with a
# slash at its end for //v1/messages.
_VERSIONS: Final = re.compile(r"^(/v1(?:beta1?|alpha)?)+(?=/|$)")
_SLASHES: Final = re.compile(r"//+")
_LATER_PATHS: Final = re.compile(r"/models/[^/]+:\w+")
_EXPOSITIONS: Final = {
    False: "text/plain; version=0.0.4; charset=utf-8",
    True: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}


class Operations:
    """Finds the handler of a path."""

    def __init__(self, relay: Relay, admin: Admin) -> None:
        self.relay = relay
        self.admin = admin
        self.forwarding = Forwarding(relay)
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._begun(request)
        except RelayError as error:  # before it was a request like any: logged as one all the same
            exchange = Exchange(self.relay.plan, request, _list_dialect(request), "other")
            return await self.relay.framed(exchange, functools.partial(_raised, error))

    def _begun(self, request: web.BaseRequest) -> Answering:
        path = unversioned(request.path)
        if request.method == "POST" and (asked := asked_at(path)):
            dialect, purpose = asked
            serve = self.relay.handle if purpose == "answer" else self.relay.count
            return serve(request, dialect)
        if handler := _HANDLERS.get((request.method, path)):
            return handler(self, request)
        if request.method == "POST" and forwards(path):
            return self.forwarding.by_model(request, path)
        if path == "/admin" or path.startswith("/admin/"):
            return self.admin.handle(request, path.removeprefix("/admin").lstrip("/"))
        if request.path.startswith("/p/"):
            return self.forwarding.raw(request, request.raw_path.removeprefix("/p/"))
        return self._other(request, path)

    async def _other(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and path.startswith("/models/"):
            return self._one_model(request, urllib.parse.unquote(path.removeprefix("/models/")))
        if (path, request.method) == ("/responses", "GET"):
            # Codex tries a WebSocket first; after this error it falls back at once, else in 6 s
            raise NoWebSocket("no WebSocket here; send POST /v1/responses instead")
        if asked_at(path) or forwards(path) or any(known == path for _, known in _HANDLERS):
            raise NotFound(f"{request.method} is not a method of {request.path}")
        if _LATER_PATHS.fullmatch(path):
            raise NotYet(f"{request.method} {request.path}: not supported yet")
        raise NotFound(f"no such path: {request.path}; see the README for those relay serves")

    async def models(self, request: web.BaseRequest) -> web.StreamResponse:
        """The list of models, in the dialect that the headers suggest."""
        body = _list_dialect(request).render_models(self._visible(request))
        return web.json_response(body, dumps=_json_text)

    def _one_model(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        found = next((m for m in self._visible(request) if m.name == name), None)
        if found is None:
            raise UnknownModel(f"model {name!r} is not in the list")
        return web.json_response(_list_dialect(request).render_model(found), dumps=_json_text)

    def _visible(self, request: web.BaseRequest) -> list[Listed]:
        plan = self.relay.plan
        caller = authenticated(request, plan)
        picker = request.headers.get("User-Agent", "").startswith("claude-")
        names = plan.picked if picker else plan.listed
        return [model for name, model in names.items() if caller.may_use(name)]

    async def alive(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"status": "ok", "version": __version__})

    async def ready(self, request: web.BaseRequest) -> web.StreamResponse:
        """503 while draining, or while there is no provider."""
        if self.draining:
            return web.json_response({"status": "draining"}, status=503)
        if not self.relay.plan.providers:
            return web.json_response({"status": "no active provider"}, status=503)
        ready = {
            "status": "ready",
            "generation": self.admin.generation,
            "degraded": self.degraded(),
        }
        return web.json_response(ready)

    def degraded(self) -> list[str]:
        """What is wrong although relay serves; anybody may read it, so it holds no names."""
        causes = self._cooling()
        cooling = ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items()))
        states = {
            "the last reload failed": self.admin.last_reload.startswith("failed"),
            f"cooling down: {cooling}": bool(causes),
            "log lines are lost": self.relay.log.sink.losing,
            "the state store is down": bool(self.relay.accounts.keeper.trouble),
        }
        return [words for words, holds in states.items() if holds]

    def _cooling(self) -> collections.Counter[str]:
        now, marks = time.time(), self.relay.health.marks.values()
        return collections.Counter(mark.failure for mark in marks if mark.until > now)

    async def metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """All metrics, for this machine or with the admin key."""
        self._require_admin_or_loopback(request)
        self.refresh()
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        body = self.relay.accounts.metrics.exposition(openmetrics).encode()
        return web.Response(body=body, headers={"Content-Type": _EXPOSITIONS[openmetrics]})

    def refresh(self) -> None:
        """Bring the metrics that are states up to date."""
        vitals, plan = self.relay.accounts.metrics.vitals, self.relay.plan
        vitals.build.set(1, __version__)
        vitals.ready.set(0 if self.draining or not plan.providers else 1)
        vitals.running.set(len(self.relay.running))
        vitals.cooling.set_all(self._cooling())
        vitals.generation.set(self.admin.generation)
        vitals.reloaded.set(0 if self.admin.last_reload.startswith("failed") else 1)
        vitals.state.set(0 if self.relay.accounts.keeper.trouble else 1)
        vitals.lost_lines.reach(self.relay.log.sink.dropped)
        vitals.began.set(self.admin.started)
        vitals.processor.reach(time.process_time())
        with contextlib.suppress(OSError):  # where there is no /proc
            vitals.memory.set(resident())
            vitals.descriptors.set(len(os.listdir("/proc/self/fd")))

    async def hello(self, request: web.BaseRequest) -> web.StreamResponse:
        """Claude Code checks here whether anybody answers."""
        return web.Response(text=f"relay {__version__}\n")

    async def root(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=PAGE, headers=PAGE_HEADERS)

    def _require_admin_or_loopback(self, request: web.BaseRequest) -> None:
        try:
            self.admin.require(request)
        except Unauthorized:
            try:
                require_direct(request)
            except Forbidden:
                raise Unauthorized("this is for the same machine, or for the admin key") from None


_HANDLERS: Final[dict[tuple[str, str], Handler]] = {
    ("GET", "/models"): Operations.models,
    ("HEAD", "/models"): Operations.models,
    ("GET", "/healthz"): Operations.alive,
    ("HEAD", "/healthz"): Operations.alive,
    ("GET", "/readyz"): Operations.ready,
    ("HEAD", "/readyz"): Operations.ready,
    ("GET", "/metrics"): Operations.metrics,
    ("GET", "/"): Operations.root,
    ("HEAD", "/"): Operations.root,
    ("GET", "/api/hello"): Operations.hello,
    ("HEAD", "/api/hello"): Operations.hello,
}


@functools.lru_cache(1000)
def unversioned(path: str) -> str:
    """A path without version, and without the slashes that are too many."""
    return _VERSIONS.sub("", _SLASHES.sub("/", path).rstrip("/")) or "/"


@functools.lru_cache(1000)
def asked_at(path: str) -> tuple[Dialect, str] | None:
    """The dialect of a path, and what is asked for there: answer or count."""
    claims = ((dialect, dialect.serves(path)) for dialect in DIALECTS.values())
    return next((claim for claim in claims if claim[1]), None)


def _json_text(value: object) -> str:
    return dumps(value).decode()


def _list_dialect(request: web.BaseRequest) -> Dialect:
    """The dialect for a list: by headers that only its clients send, or by Google's version."""
    if "anthropic-version" in request.headers:
        return ANTHROPIC
    google = request.path.startswith("/v1beta") or any(
        name in request.headers for name in ("x-goog-api-key", "x-goog-api-client")
    )
    return GEMINI if google else CHAT


async def _raised(error: RelayError, exchange: Exchange) -> web.StreamResponse:
    raise error


def refused(request: web.BaseRequest, error: RelayError) -> web.Response:
    """What could not even be parsed: an error in nobody's dialect."""
    dialect = _list_dialect(request)
    id = secrets.token_hex(8)
    headers = error_headers(error) | {"x-relay-request-id": id, "Content-Type": "application/json"}
    body = dumps(dialect.render_error(error, id))
    return web.Response(body=body, status=dialect.status(error), headers=headers)


# ==== 56. Service manager =====================================================
# What systemd and relay tell one another, through the environment and a socket; without systemd
# none of it happens.  See sd_notify(3), sd_listen_fds(3) and systemd.service(5).
#
#     LISTEN_FDS      descriptors from 3 on are sockets that already listen, and go on listening
#                     while relay is restarted, so that no client is refused
#     NOTIFY_SOCKET   where relay says READY, RELOADING, STOPPING, and what `systemctl status`
#                     shows
#     WATCHDOG_USEC   how often it has to say that it is alive; the event loop does, so that a
#                     process whose loop hangs is restarted

_FIRST_PASSED: Final = 3  # SD_LISTEN_FDS_START
BACKLOG: Final = 4096  # connections that may wait while a restart or a busy moment lasts
_NOTIFY_PATIENCE: Final = 1.0  # seconds to wait, at most, with a message that must not get lost


class Passed(NamedTuple):
    """A listening socket that was passed to this process, and its name."""

    name: str
    socket: socket.socket


class Supervisor:
    """The service manager that started relay, if the environment names one.

    Its variables are taken out of the environment, so that no child takes them for its own.
    """

    def __init__(self, env: MutableMapping[str, str], pid: int) -> None:
        said = {name: env.pop(name, "") for name in _AGREED}
        address = said["NOTIFY_SOCKET"]
        self._address = re.sub("^@", "\0", address)  # an abstract one
        mine = said["WATCHDOG_PID"] in ("", str(pid))
        self.watchdog = int(said["WATCHDOG_USEC"] or 0) / 1e6 if mine else 0.0  # seconds; 0: none
        self.passed: tuple[Passed, ...] = ()
        if said["LISTEN_PID"] == str(pid):
            names = said["LISTEN_FDNAMES"].split(":")
            pairs = itertools.zip_longest(range(int(said["LISTEN_FDS"] or 0)), names)
            self.passed = tuple(
                _taken(_FIRST_PASSED + n, name or "") for n, name in pairs if n is not None
            )

    def say(self, patience: float = _NOTIFY_PATIENCE, **states: object) -> None:
        """One message: READY=1, STATUS="..." and so on."""
        if not self._address:
            return
        lines = (f"{name}={_one_line(value)}" for name, value in states.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(patience)
            out.sendto("\n".join(lines).encode(errors="replace"), self._address)

    async def watch(self) -> None:
        """Say that the event loop is alive, twice as often as required."""
        while self.watchdog:
            self.say(0, WATCHDOG=1)
            await asyncio.sleep(self.watchdog / 2)


_AGREED: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


def _one_line(value: object) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", str(value))[:500]


def _taken(descriptor: int, name: str) -> Passed:
    """A descriptor as the socket it has to be."""
    with contextlib.suppress(OSError):
        taken = socket.socket(fileno=descriptor)
        taken.set_inheritable(False)
        if taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return Passed(name, taken)
    text = f"descriptor {descriptor} ({name or 'unnamed'}) was passed, but does not listen"
    raise ConfigError([text])


# ==== 57. Server ==============================================================
# Four verbs in a row: start, run, drain, stop.  SIGHUP builds another plan and swaps it in with one
# assignment, or says everything that is wrong and changes nothing.  At SIGTERM and SIGINT relay
# stops accepting, lets streams finish within the grace period, and ends the rest with an error in
# the client's dialect; a second signal skips the wait.


def state_place(state: str, source: Source, env: Mapping[str, str]) -> str:
    """`state` with an absolute path; if it is not given, a file in $STATE_DIRECTORY, else beside
    the configuration, if relay may write there.
    """
    folder = _folder(source, env)
    kind, _, where = state.partition(":")
    if kind == "sqlite":
        return f"sqlite:{(folder or Path.cwd()) / where}"
    if state or folder is None or not os.access(folder, os.W_OK):
        return state or "memory"
    return f"sqlite:{folder / 'relay.db'}"


def _folder(source: Source, env: Mapping[str, str]) -> Path | None:
    """The folder of files with a relative path."""
    home = env.get("STATE_DIRECTORY", "").partition(":")[0]
    beside = source.path.absolute().parent if source.path else None
    return Path(home) if home else beside


def records_place(record: RecordConfig, source: Source, env: Mapping[str, str]) -> Path:
    """`record.directory` with an absolute path."""
    return (_folder(source, env) or Path.cwd()) / record.directory


class Connection(RequestHandler):
    """A client's connection: aiohttp's, with limits on slowness and errors in JSON."""

    __slots__ = ("_limit", "_patience")

    def __init__(self, *args: Any, limit: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._patience:
            self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._patience and self._request_count > before:
            self._patience.cancel()
            self._patience = None
        elif not self._patience and self._current_request is None and not self._messages:
            self._wait()  # the beginning of another head

    def _wait(self) -> None:
        self._patience = asyncio.get_running_loop().call_later(self._limit, self._give_up)

    def _give_up(self) -> None:
        """Close: the head of a request has not come in time."""
        self._patience = None
        if self.transport:
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.force_close()

    def retire(self) -> None:
        (self.force_close if self._current_request is None else self.close)()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot even be parsed, in our words: aiohttp's would quote the line."""
        error: RelayError = BadRequest("this is not an HTTP request that relay understands")
        if isinstance(exc, LineTooLong):
            error = HeaderTooLarge("a line of the request's head is over server.max_header")
        elif status >= 500:
            error = RelayError("internal error")
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        response = refused(request, error)
        response.force_close()
        return response


class Listener(web.Server):
    """Makes a Connection for every client, with the limits in force at that moment."""

    def __init__(self, handler: Any, limits: Callable[[], ServerConfig]) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._limits = limits

    def __call__(self) -> RequestHandler:
        limits = self._limits()
        return Connection(
            self,
            loop=self._loop,
            limit=limits.body_timeout,
            access_log=None,
            auto_decompress=False,  # `read_body` does, within its limits
            logger=_silent(),
            max_line_size=limits.max_header,
            max_field_size=limits.max_header,
            keepalive_timeout=900.0,
        )

    def retire(self) -> None:
        """Close idle connections now, and the others after their answer."""
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.retire()


def _silent() -> logging.Logger:
    """aiohttp's own log would mix with the lines of JSON; what matters is in ours."""
    logger = logging.getLogger("relay.http")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_REFRESH: Final = 15.0  # seconds between updates; collectors are sent metrics once a minute


class Server:
    """A running relay: sockets, signals, the current plan."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        log: Log,
        supervisor: Supervisor | None = None,
        heap: Heap | None = None,
    ) -> None:
        self.source = source
        self.log = log
        self.supervisor = supervisor or Supervisor({}, 0)
        self.heap = heap or Heap()
        self._certificate = Certificate(plan.config.tls) if plan.config.tls else None
        self._files: list[str] = []  # unix sockets to remove at the end
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        recorder = self._recorder(plan.config.record)  # first of all, for its directory may be none
        keepalive = float(os.environ.get("RELAY_KEEPALIVE", "10"))
        upstream = Upstream(lean=os.environ.get("RELAY_UPSTREAM") != "aiohttp")
        self.relay = Relay(plan, upstream, log, keepalive, self._store(plan.config.state))
        self.relay.telemetry = telemetry_of(os.environ, log)
        self.relay.telemetry.mirror(self.relay.accounts.metrics)
        self.admin = Admin(self.relay, self)
        self.relay.recorder = recorder
        self.operations = Operations(self.relay, self.admin)
        self._server = Listener(self.operations.handle, lambda: self.relay.plan.config.server)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=1.0)

    def _store(self, state: str) -> Store:
        place = state_place(state, self.source, os.environ)
        if place == "memory" and self.source.path and not state:
            folder = self.source.path.absolute().parent
            self.log.event("warning", f"state: {folder} cannot be written; usage is not kept")
        return store_of(place)

    def _recorder(self, record: RecordConfig | None) -> Recorder | None:
        """A recorder for this configuration; ConfigError if its directory is of no use."""
        if record is None:
            return None
        ring = Ring(records_place(record, self.source, os.environ), record.keep)
        ring.open()
        return Recorder(ring)

    @property
    def base(self) -> str:
        """Where it listens, with the actual port if the system was to choose one."""
        host, port, *_ = self._runner.addresses[0]
        return f"http://{host}:{port}"

    async def serve(self) -> None:
        """From start to stop."""
        again = (self.supervisor.watch(), self._refresh(), self._tidy())
        ticking = [asyncio.create_task(task) for task in again]
        try:
            await self.start()
            await self._stopping.wait()
            await self.drain()
        finally:
            for task in ticking:
                task.cancel()
            await self.stop()

    async def _refresh(self) -> None:
        """/metrics updates states when it is asked; a collector never asks."""
        while self.relay.telemetry.active:
            self.operations.refresh()
            await asyncio.sleep(_REFRESH)

    async def _tidy(self) -> None:
        """Give back the memory that a burst has needed, once it is over."""
        while True:
            await asyncio.sleep(_REFRESH)
            self.heap.give_back(len(self.relay.running))

    async def start(self) -> None:
        await self.relay.accounts.keeper.start()
        await self._runner.setup()
        passed, listening = self.supervisor.passed, list[str]()
        for name, passed_socket in passed:
            listening.append(f"{_address(passed_socket)} ({name or 'passed'})")
            await self._serve_at(passed_socket)
        # Passed sockets replace the file's `listen`; --listen is served as well.
        for listen in self.relay.plan.config.listen if self.source.listen or not passed else ():
            listening.append(listen)
            await self._listen(listen)
        loop = asyncio.get_running_loop()
        for number, act in self._signals().items():
            loop.add_signal_handler(number, act)
        names = ", ".join(self.relay.plan.providers) or "none"
        self.log.event(
            "info", f"relay {__version__} is ready", listen=", ".join(listening), providers=names
        )
        self._warn()
        self._say_ready()

    async def _listen(self, listen: str) -> None:
        try:
            if listen.startswith("unix:"):
                socket_path = listen.removeprefix("unix:")
                _remove_stale_socket(socket_path)
                await web.UnixSite(self._runner, socket_path, backlog=BACKLOG).start()
                self._files.append(socket_path)
                os.chmod(socket_path, 0o660)
            else:
                host, port = host_and_port(listen)
                site = web.TCPSite(
                    self._runner,
                    host or None,
                    port,
                    ssl_context=self._certificate.context if self._certificate else None,
                    backlog=BACKLOG,
                    reuse_port=self.source.reuse_port or None,
                )
                await site.start()
        except (OSError, ValueError) as error:  # ValueError: a system without SO_REUSEPORT
            number = getattr(error, "errno", None) or 0  # below 0 it is the resolver's
            # asyncio's own words repeat the address
            reason = os.strerror(number).lower() if number > 0 else system_words(error)
            more = "; --listen takes another" if number == errno.EADDRINUSE else ""
            raise ConfigError([f"cannot listen on {listen}: {reason}{more}"]) from error

    async def _serve_at(self, passed: socket.socket) -> None:
        certificate = None if passed.family == socket.AF_UNIX else self._certificate
        context = certificate.context if certificate else None
        site = web.SockSite(self._runner, passed, ssl_context=context, backlog=BACKLOG)
        await site.start()

    def _say_ready(self) -> None:
        """Tell systemd that relay serves, and what `systemctl status` is to show."""
        config, outcome = self.relay.plan.config, self.admin.last_reload
        status = f"serving {len(self.relay.plan.providers)} of {len(config.providers)} providers"
        generation = self.admin.generation
        if outcome.startswith("failed"):
            status += f"; RELOAD {outcome}"
        elif outcome:
            status += f"; configuration {generation} taken: {outcome}"
        self.supervisor.say(READY=1, STATUS=status)

    def reload(self) -> None:
        """Read, check, swap, say what changed; a bad file changes nothing."""
        if self._stopping.is_set():
            return  # a READY now would contradict the STOPPING that was sent
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.supervisor.say(RELOADING=1, MONOTONIC_USEC=now)
        if self.source.path:
            self._reload(self.source.path)
        else:
            self.log.event("warning", "there is no configuration file to reload")
        self._say_ready()  # in any case: systemd waits for it

    def _reload(self, path: Path) -> None:
        old = self.relay.plan.config
        try:
            plan = load(self.source.again())
            for name in ("listen", "state"):
                if getattr(old, name) != getattr(plan.config, name):
                    raise ConfigError([f"{path}: {name} needs a restart to change"])
            if (old.tls is None) != (plan.config.tls is None):
                raise ConfigError([f"{path}: tls needs a restart to be switched on or off"])
            if self._certificate and plan.config.tls:
                self._certificate.take(Certificate(plan.config.tls))
            recorder = self.relay.recorder
            if old.record != plan.config.record:
                recorder = self._recorder(plan.config.record)
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            problems = list(error.problems) if isinstance(error, ConfigError) else [str(error)]
            self.admin.last_reload = "failed: " + "; ".join(problems)
            self.relay.accounts.metrics.vitals.reloads.add(1, "refused")
            self.log.event("error", "reload failed, nothing changed", problems=problems)
            return
        self.relay.plan = plan
        if self.relay.recorder and self.relay.recorder is not recorder:
            self.relay.recorder.close()
        self.relay.recorder = recorder
        forgotten = self.relay.health.keep(plan)
        self.log = self.relay.log = Log(plan.config.log, plan.zone, self.log.sink, self.log.feed)
        self.admin.generation += 1
        self.relay.accounts.limits.keep(("", *plan.config.keys))
        changed = changes(old, plan.config)
        changed += [f"mark on {name}: forgotten" for name in forgotten]
        self.admin.last_reload = "; ".join(changed) or "nothing changed"
        self.relay.accounts.metrics.vitals.reloads.add(1, "taken")
        self.log.event(
            "info", "reloaded", generation=self.admin.generation, changes=changed or ["none"]
        )
        self._warn()

    def _warn(self) -> None:
        if names := unpriced(self.relay.plan):
            message = "budgets in money do not see these providers: they have no `prices`"
            self.log.event("warning", message, providers=", ".join(names))

    async def drain(self) -> None:
        """Accept no new connections; running requests may finish within the grace period.

        Before that, balancers that poll /readyz get some time to see it fail.
        """
        self.operations.draining = self.admin.closing = True
        limits = self.relay.plan.config.server
        running, grace = len(self.relay.running), limits.grace
        self.log.event("info", "stopping", running=running, grace=f"{grace:g} s")
        longest = round((limits.drain_delay + grace + 10) * 1e6)
        status = f"finishing {running} requests"
        self.supervisor.say(STOPPING=1, STATUS=status, EXTEND_TIMEOUT_USEC=longest)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), limits.drain_delay)
        for site in self._runner.sites:
            await site.stop()
        self._server.retire()
        await self.relay.drain(self._hurry, grace)
        await self._runner.cleanup()

    async def stop(self) -> None:
        await self.relay.failover.upstream.close()
        await self.relay.accounts.keeper.stop()
        if recorder := self.relay.recorder:
            recorder.close()
            await asyncio.to_thread(recorder.flush, 2)  # seconds; a stuck disk is not waited for
        for file in self._files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
        self.relay.telemetry.stop(within=3)  # seconds
        self.log.event("info", "stopped")
        _deafen(self._signals())

    def _signals(self) -> dict[signal.Signals, Callable[[], None]]:
        stop = self._stop
        return {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: self.reload}

    def _stop(self) -> None:
        (self._hurry if self._stopping.is_set() else self._stopping).set()


def _address(listening: socket.socket) -> str:
    """Where it listens, as `listen` writes it."""
    name = listening.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _deafen(signals: Iterable[signal.Signals]) -> None:
    """Ignore further signals, so that the exit status stays 0.

    Closing the loop would restore their default, which is to end with status -15; they are
    blocked between the removal of its handlers and the setting of ours.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in signals:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remove_stale_socket(path: str) -> None:
    """Remove a socket file on which nobody listens any more."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()


# ==== 58. Units ===============================================================
# What `relay systemd` prints: a socket that systemd keeps open, and a service that may do nothing
# but read its configuration, keep its state and use the network.  For several processes the service
# is a template; all instances share the one socket, so that an idle one accepts, and while one
# restarts the others serve.

_SOCKET_UNIT: Final = """\
# {folder}/relay.socket
[Unit]
Description=Where relay listens

[Socket]
{streams}
SocketMode=0660
NoDelay=yes
Backlog={backlog}
{service}
[Install]
WantedBy=sockets.target
"""

_SERVICE_UNIT: Final = """\
# {folder}/{name}
[Unit]
Description=relay, one address for every LLM API{instance}
Wants=network-online.target
After=network-online.target relay.socket
Requires=relay.socket

[Service]
{type}
ExecStart={command}
Sockets=relay.socket
# A configuration that is wrong does not get better by being read again.
Restart=on-failure
RestartPreventExitStatus=2
WatchdogSec=30
# server.drain_delay and server.grace, and a moment for the rest.
TimeoutStopSec={stop}

# Who it is, and what it owns: /var/lib/relay, for `state`.
DynamicUser=yes
User=relay
StateDirectory=relay
StateDirectoryMode=0700
ConfigurationDirectory=relay
UMask=0077
# Variables such as ZAI_API_KEY=..., readable by root alone.
EnvironmentFile=-/etc/relay/environment
# Or a file for each secret; the configuration then says file:${{CREDENTIALS_DIRECTORY}}/NAME.
{credentials}

# What it may do besides using the network: nothing.
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
# Name look-ups ask for the machine's own addresses by netlink.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""

_UNITS_FOLDER: Final = "/etc/systemd/system"
# Since systemd 253 a reload is a signal and a reply; before that it is a command, which is over as
# soon as the signal is sent.
_NOTIFY_RELOAD_SINCE: Final = 253
_NOTIFY_RELOAD: Final = "Type=notify-reload"
_NOTIFY_ONLY: Final = "Type=notify\nExecReload=/bin/kill -HUP $MAINPID"
_CREDENTIAL: Final = re.compile(
    r"file:(?:\$\{CREDENTIALS_DIRECTORY\}|/run/credentials/[^/\s]+)/([\w.-]+)"
)


def systemd_units(
    config: Config, text: str, program: Sequence[str], version: int, several: bool
) -> dict[str, str]:
    """The units by file name; `text` is the configuration's, `program` the command to start."""
    name = "relay@.service" if several else "relay.service"
    own = ["--listen", "127.0.0.1:1848%i"] if several else []  # for the metrics of each
    command = [*program, "-c", "/etc/relay/config.yaml", *own]
    named = sorted(set(_CREDENTIAL.findall(text)))
    credentials = [f"LoadCredential={name}:/etc/relay/credentials/{name}" for name in named]
    limits = config.server
    service = _SERVICE_UNIT.format(
        folder=_UNITS_FOLDER,
        name=name,
        instance=" (process %i)" if several else "",
        type=_NOTIFY_RELOAD if version >= _NOTIFY_RELOAD_SINCE else _NOTIFY_ONLY,
        command=" ".join(map(_unit_word, command)),
        stop=math.ceil(limits.drain_delay + limits.grace + 10),
        credentials="\n".join(credentials) or "#LoadCredential=zai:/etc/relay/credentials/zai",
        home="read-only" if re.match(r"/(home|root)/", " ".join(program)) else "yes",
    )
    sockets = _SOCKET_UNIT.format(
        folder=_UNITS_FOLDER,
        streams="\n".join(f"ListenStream={s}" for on in config.listen for s in _streams(on)),
        backlog=BACKLOG,
        service="Service=relay@1.service\n" if several else "",
    )
    return {"relay.socket": sockets, name: service}


def _unit_word(word: str) -> str:
    """A word of a command in systemd's syntax, where %, $ and quotes are special."""
    word = word.replace("$", "$$") if "%i" in word else word.replace("$", "$$").replace("%", "%%")
    return f'"{word}"' if re.search(r"[\s;]", word) else word


def _streams(listen: str) -> tuple[str, ...]:
    """An address in systemd's form: no host names, and a bare port for all interfaces."""
    if listen.startswith("unix:"):
        return (listen.removeprefix("unix:"),)
    host, port = host_and_port(listen)
    if host.lower() in LOOPBACK_NAMES:
        return (f"127.0.0.1:{port}", f"[::1]:{port}")
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else str(port),)


# ==== 59. Grafana =============================================================
# A dashboard of the metrics, ready for import: a row of this table is a panel.  A test checks that
# the names in its queries exist, and that Prometheus's own tool can parse them.


class Panel(NamedTuple):
    """One panel: its title, Grafana's word for the unit, and queries with their legends."""

    title: str
    unit: str
    queries: Mapping[str, str]


def _per_second(name: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({name}{{{_SELECTED}{where}}}[$__rate_interval]))"


def _quantiles(name: str) -> dict[str, str]:
    """The median and the 95th percentile."""
    rates = _per_second(f"{name}_bucket", "le")
    return {f"histogram_quantile({q}, {rates})": f"p{q * 100:g}" for q in (0.5, 0.95)}


_SELECTED: Final = 'instance=~"$instance"'
_CACHE: Final = "relay_cache_tokens_total"
_USED: Final = "gen_ai_client_token_usage_sum"
PANELS: Final = (
    Panel("Ready", "bool_yes_no", {f"min(relay_ready{{{_SELECTED}}})": ""}),
    Panel(
        "Last reload taken", "bool_yes_no", {f"min(relay_config_reload_success{{{_SELECTED}}})": ""}
    ),
    Panel("In flight", "short", {f"sum(relay_inflight{{{_SELECTED}}})": ""}),
    Panel("Log lines lost", "short", {f"sum(relay_log_lines_lost_total{{{_SELECTED}}})": ""}),
    Panel("Requests by code", "reqps", {_per_second("relay_requests_total", "code"): "{{code}}"}),
    Panel(
        "Requests by provider",
        "reqps",
        {_per_second("relay_requests_total", "provider"): "{{provider}}"},
    ),
    Panel("Until the first token", "s", _quantiles("gen_ai_server_time_to_first_token_seconds")),
    Panel("Until the last", "s", _quantiles("gen_ai_server_request_duration_seconds")),
    Panel(
        "Tokens by model",
        "short",
        {
            _per_second(_USED, "gen_ai_request_model, gen_ai_token_type"): (
                "{{gen_ai_request_model}} {{gen_ai_token_type}}"
            )
        },
    ),
    Panel(
        "Share of input read from a cache",
        "percentunit",
        {
            _per_second(_CACHE, "provider", ',kind="read"')
            + " / "
            + _per_second(_CACHE, "provider"): "{{provider}}"
        },
    ),
    Panel(
        "Failed attempts",
        "ops",
        {
            _per_second(
                "relay_attempt_duration_seconds_count", "provider, outcome", ',outcome!="ok"'
            ): "{{provider}} {{outcome}}"
        },
    ),
    Panel(
        "Cooling down", "short", {f"sum by (cause) (relay_cooldowns{{{_SELECTED}}})": "{{cause}}"}
    ),
    Panel("Requests by key", "reqps", {_per_second("relay_key_requests_total", "key"): "{{key}}"}),
    Panel("Tokens by key", "short", {_per_second("relay_key_tokens_total", "key"): "{{key}}"}),
    Panel("relay's own share of the wait", "s", _quantiles("relay_overhead_seconds")),
    Panel(
        "Memory",
        "bytes",
        {f"process_resident_memory_bytes{{{_SELECTED}}}": "{{instance}}"},
    ),
)
_STATS: Final = 4  # so many of the first panels are single numbers, in one row


def grafana_dashboard() -> JSON:
    """The dashboard as Grafana imports it."""
    source = {"type": "prometheus", "uid": "${source}"}
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "type": "query",
            "datasource": source,
            "query": "label_values(relay_build_info, instance)",
            "refresh": 2,  # when the time range changes
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
        },
    ]
    return {
        "title": "relay",
        "uid": "relay",
        "tags": ["llm"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_panel(place, panel, source) for place, panel in enumerate(PANELS)],
    }


def _panel(place: int, panel: Panel, source: JSON) -> JSON:
    """The grid is 24 wide: a row of single numbers, then two panels to a row."""
    row, column = divmod(place - _STATS, 2)
    where = {"x": column * 12, "y": 4 + row * 8, "w": 12, "h": 8}
    if stat := place < _STATS:
        where = {"x": place * 6, "y": 0, "w": 6, "h": 4}
    targets = [
        {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": source}
        for i, (query, legend) in enumerate(panel.queries.items())
    ]
    return {
        "id": place + 1,
        "type": "stat" if stat else "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": where,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


# ==== 60. Console =============================================================
# A running relay, asked by a command: at the address it listens on and with the admin key, both
# from the file it was started with.  The command does not need the providers' keys in its
# environment, nor a file without mistakes: these may be newer than the running relay.


class Console:
    """The /admin of one relay.  A refusal becomes a RelayError with its message."""

    def __init__(self, listen: str, key: str, tls: TLSConfig | None = None) -> None:
        self.listen = listen
        self._key = key
        self._tls = tls
        self._socket = listen.removeprefix("unix:") if listen.startswith("unix:") else ""

    def get(self, path: str) -> JSON:
        return asyncio.run(self.ask("GET", path))

    def post(self, path: str, body: JSON) -> JSON:
        return asyncio.run(self.ask("POST", path, body))

    async def ask(self, method: str, path: str, body: JSON | None = None) -> JSON:
        """Ask once; the answer."""
        async with self.session() as session:
            try:
                reply = await session.request(method, path, data=body and dumps(body))
                said = await reply.read()
            except (aiohttp.ClientError, OSError) as error:
                raise self.silent(error) from error
        if reply.status != 200:
            raise RelayError(said_in(said, reply.status).message)
        answer: JSON = loads(said)
        return answer

    def silent(self, error: BaseException) -> RelayError:
        """Nobody is there, and what to do about it."""
        reason, hint = system_words(error), "start it, or say which with -c or --listen"
        return RelayError(f"no relay answers at {self.listen} ({reason}): {hint}")

    def session(self) -> aiohttp.ClientSession:
        """For watching a stream, or asking several times."""
        return aiohttp.ClientSession(
            self._base(),
            connector=self._connector(),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30),
        )

    def _connector(self) -> aiohttp.BaseConnector:
        """Trusts exactly the certificate that relay serves with, whatever names it holds."""
        if self._socket:
            return aiohttp.UnixConnector(self._socket)
        if self._tls is None:
            return aiohttp.TCPConnector()
        context = ssl.create_default_context(cafile=self._tls.certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return aiohttp.TCPConnector(ssl=context)

    def _base(self) -> str:
        """For a socket of the file system any name will do."""
        return base_of([self.listen], "https" if self._tls else "http") or "http://localhost"


def lenient_config(source: Source) -> Config:
    """A configuration whose mistakes do not matter now."""
    file = str(source.path or "config")
    reading = Reading(file, os.environ, lambda name: Path(name).read_text(), zoneinfo.ZoneInfo)
    reading.lenient = True
    return read_config(source.text, reading)


def console_of(source: Source) -> Console:
    """The relay that a configuration describes; mistakes elsewhere in it do not matter here."""
    file, config = str(source.path or "config"), lenient_config(source)
    listen = (source.listen or config.listen or Config().listen)[0]
    try:
        console = Console(listen, config.admin_key, config.tls)
        console._base()
    except ValueError as error:
        raise ConfigError([f"{file}: listen: {error}"]) from error
    return console


# ==== 61. Launch ==============================================================
# A tool as relay's child.  It gets the terminal: both stay in one process group, so what is typed
# reaches it, including Ctrl-C and Ctrl-Z; a signal sent to relay alone is passed on.  If no relay
# serves at the configured address, this one does for as long as the child lives.
#
#     configured address answers? -- yes --> child
#             | no
#             v
#     serve on a free port --> child --> stop serving --> its exit status

_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_TYPED: Final = (signal.SIGINT, signal.SIGQUIT)  # a terminal sends these to its whole group


async def launch(
    command: Sequence[str], setup: Setup, env: Mapping[str, str], hint: str = ""
) -> int:
    """Run a tool to its end; its exit status, or 128 plus the number of a signal that ended it."""
    early: list[signal.Signals] = []  # that came before there was a child
    heed: Callable[[signal.Signals], None] = early.append
    loop = asyncio.get_running_loop()
    for number in _PASSED_ON:  # once: a handler that is replaced may still be due to run
        loop.add_signal_handler(number, lambda signal_number: heed(signal_number), number)
    with _private(setup.file, env) as given:
        try:
            child = await asyncio.create_subprocess_exec(
                command[0], *setup.args, *command[1:], env={**env, **setup.env, **given}
            )
        except OSError as error:
            print(f"relay: {command[0]}: {error.strerror}{hint}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126
        heed = functools.partial(_pass_on, child)
        for number in early:
            heed(number)
        status = await child.wait()
    return status if status >= 0 else 128 - status


def _pass_on(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Pass a signal on, unless the terminal has sent it to both: tools take a second Ctrl-C for
    more than the first."""
    if not (number in _TYPED and _in_front()):
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)


def _in_front() -> bool:
    """Is this process group in the foreground of its terminal?"""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


@contextlib.contextmanager
def _private(file: Settings | None, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A temporary home for the tool: the user's settings overlaid with ours, links to the rest."""
    users = Path(env.get(file.variable) or Path.home()) / file.path if file else Path()
    content = _user_settings(users) if file else {}
    if file is None or _over(content, file.content) == content:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:  # made with mode 0700
        path = Path(folder, file.path)
        path.parent.mkdir(0o700)
        for entry in users.parent.iterdir() if users.parent.is_dir() else ():
            (path.parent / entry.name).symlink_to(entry.absolute())
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(json.dumps(_over(content, file.content)))
        yield {file.variable: folder}


def _user_settings(path: Path) -> JSON:
    try:
        settings = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: cannot be read, so it cannot be kept: {error}"]) from error
    return settings if isinstance(settings, dict) else {}


def _over(below: JSON, above: JSON) -> JSON:
    """Two nested objects merged; where both have a value, the one above wins."""
    both = {
        name: _over(below[name], value)
        for name, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(name), dict)
    }
    return {**below, **above, **both}


async def is_served(base: str) -> bool:
    """Does a relay answer at this address?"""
    if not base:
        return False
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(f"{base}/healthz", allow_redirects=False) as response,
        ):
            said = loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, *UNREADABLE):
        return False
    return isinstance(said, dict) and {"status", "version"} <= said.keys()


@contextlib.asynccontextmanager
async def serving(plan: Plan, source: Source, log: Log) -> AsyncIterator[str]:
    """Serve on a free port of this machine for the time of the block; the address."""
    limits = replace(plan.config.server, grace=0)  # at the end no client is left
    config = replace(plan.config, listen=("127.0.0.1:0",), server=limits, tls=None)
    server = Server(replace(plan, config=config), source, log)
    try:
        await server.start()
        yield server.base
        await server.drain()
    finally:
        await server.stop()


# ==== 62. Trial ===============================================================
# Does it work with the configured providers?  `relay check --live` asks every provider, with every
# plan, credential and dialect, through a relay of its own on this machine, so that the whole path
# of a client's request is tried.  These are a few small requests each, whose cost is announced
# first.
#
#     list    the names the provider serves             tool    one call of a tool that is offered
#     whole   a tiny answer                             tools   two calls at once
#     stream  the same, streamed                        count   the tokens of a request

_TRIAL_TOKENS: Final = 300  # of an answer: room for a model that thinks first
_TRIAL_SECONDS: Final = 90.0
_CITY: Final = Tool(
    "get_weather",
    "Tells the weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_WEATHER: Final = "What is the weather in {}?  Call the tool; for several cities all at once."


class Ask(NamedTuple):
    """One of the requests that are tried."""

    name: str
    text: str = "Say OK."
    stream: bool = False
    tools: tuple[Tool, ...] = ()
    calls: int = 0  # that the answer should hold


ASKS: Final = (
    Ask("whole"),
    Ask("stream", stream=True),
    Ask("tool", _WEATHER.format("Paris"), True, (_CITY,), 1),
    Ask("tools", _WEATHER.format("Paris, and in Rome"), True, (_CITY,), 2),
)


@dataclass(slots=True)
class Trial:
    """One way to a provider, and the results of trying it."""

    provider: str
    plan: str
    credential: str
    dialect: Dialect
    model: str
    cells: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # faults in what many do not offer

    @property
    def row(self) -> tuple[str, ...]:
        names = ("list", *(ask.name for ask in ASKS), "count")
        cells = (self.cells.get(name, "-") for name in names)
        return (self.provider, self.plan, self.credential, self.dialect.name, self.model, *cells)


TRIAL_HEAD: Final = (
    *("provider", "plan", "credential", "dialect", "model"),
    *("list", *(ask.name for ask in ASKS), "count"),
)


class Access(NamedTuple):
    """What is tried: one credential of one plan."""

    provider: Provider
    billing: BillingPlan
    credential: Credential

    @property
    def mark(self) -> str:
        return self.credential.name.rpartition("/")[2]


def accesses(plan: Plan, only: str) -> list[Access]:
    """Every credential of every plan; `only` is a provider's name, "" for all."""
    held = [
        Access(provider, billing, credential)
        for provider in plan.providers.values()
        for billing in provider.plans
        for credential in billing.credentials
        if only.lower() in ("", provider.name.lower())
    ]
    if not held:
        raise ConfigError([f"no provider is called {only!r}{meant(only, plan.providers)}"])
    return held


def expected_cost(chosen: Sequence[Access]) -> str:
    """What trying these may cost, in words."""
    rows = sum(len(access.billing.endpoints) for access in chosen)
    names = ", ".join(dict.fromkeys(access.provider.name for access in chosen))
    asks, tokens = rows * len(ASKS), rows * (len(ASKS) * _TRIAL_TOKENS)
    return f"{asks} small requests, at most {tokens} tokens out and about as few in, to {names}"


def alone(plan: Plan, access: Access) -> Plan:
    """A plan with only this access, in which callers need no key."""
    name = access.provider.name
    billing = replace(access.billing, credentials=(access.credential,))
    config = replace(plan.config, keys={}, routing_rules={}, default=None, state="memory")
    provider = replace(access.provider, plans=(billing,))
    return replace(plan, config=config, providers={name.lower(): provider}, keys=(), admin=b"")


def tried_model(plan: Plan, provider: Provider, served: Sequence[str]) -> str:
    """A model to try: the first that is configured, else the first it serves and claims."""
    listed = [name for name in provider.config.models or () if not is_glob(name)]
    targets = [
        to.partition("/")[2]
        for entries in plan.config.routing_rules.values()
        for entry in entries
        for to in entry.to
        if to.lower().startswith(f"{provider.name.lower()}/")
    ]
    claimed = [name for name in served if provider.match(name) or provider.accepts_all]
    return next(iter((*listed, *targets, *claimed)), "")


async def tried(plan: Plan, access: Access, log: Log) -> list[Trial]:
    """Try everything with one access, dialect by dialect."""
    single = alone(plan, access)
    async with (
        serving(single, Source(None, ""), log) as base,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TRIAL_SECONDS)) as session,
    ):
        trials: list[Trial] = []
        for dialect in (endpoint.dialect for endpoint in access.billing.endpoints.values()):
            trial = Trial(access.provider.name, access.billing.name, access.mark, dialect, "")
            served = await _listed(session, base, trial)
            trial.model = tried_model(plan, access.provider, served)
            trials.append(trial)
            if not trial.model:
                trial.faults["whole"] = "no model is known to try; name one in `models`"
                continue
            for ask in ASKS:
                await _asked(session, base, trial, ask)
            await _counted_live(session, base, trial)
        return trials


async def fetched(plan: Plan, access: Access, log: Log) -> tuple[list[str], str]:
    """The models a provider lists, in the first dialect with a list; or what went wrong."""
    fault = ""
    async with (
        serving(alone(plan, access), Source(None, ""), log) as base,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TRIAL_SECONDS)) as session,
    ):
        for endpoint in access.billing.endpoints.values():
            trial = Trial(access.provider.name, "", "", endpoint.dialect, "")
            if names := await _listed(session, base, trial):
                return sorted(names), ""
            fault = fault or trial.notes["list"]
    return [], fault


async def _listed(session: aiohttp.ClientSession, base: str, trial: Trial) -> list[str]:
    """The models that the provider itself lists."""
    url = f"{base}/p/{trial.provider}{trial.dialect.list_path}"
    began = time.monotonic()
    try:
        async with session.get(url, headers=dict(trial.dialect.headers)) as reply:
            said = await reply.read()
            names = served_names(loads(said)) if reply.status == 200 else []
            fault = said_in(said, reply.status).message if reply.status != 200 else "an empty list"
    except (aiohttp.ClientError, TimeoutError, *UNREADABLE) as error:
        names, fault = [], str(error) or type(error).__name__
    trial.cells["list"] = str(len(names)) if names else "none"
    if not names:
        trial.notes["list"] = f"no list ({fault}); names can be given in `models`"
    trial.cells["list"] += f" {_since(began)}" if names else ""
    return names


def served_names(wire: JSON) -> list[str]:
    """The names in a list of any dialect."""
    entries = wire.get("data") or wire.get("models") or []
    names = (entry.get("id") or entry.get("name") or "" for entry in entries)
    return [str(name).removeprefix("models/") for name in names if name]


def _since(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f}ms"


async def _asked(session: aiohttp.ClientSession, base: str, trial: Trial, ask: Ask) -> None:
    dialect, name = trial.dialect, f"{trial.provider}/{trial.model}"
    request = Request(
        model=name,
        messages=(Message("user", (Text(ask.text),)),),
        tools=ask.tools,
        max_tokens=_TRIAL_TOKENS,
        stream=ask.stream,
    )
    body = dumps(dialect.render_request(request, dialect.quirks(), "").body)
    url, began = dialect.address(base + dialect.path, name, ask.stream), time.monotonic()
    try:
        headers = {**dialect.headers, "Content-Type": "application/json"}
        async with session.post(url, data=body, headers=headers) as reply:
            said = await reply.read()
        answer = _understood(dialect, said, ask.stream) if reply.status == 200 else said_in(said)
    except (aiohttp.ClientError, TimeoutError, *UNREADABLE) as error:
        answer = Failure(str(error) or type(error).__name__)
    if isinstance(answer, Failure):
        trial.cells[ask.name], trial.faults[ask.name] = "FAILED", answer.message
        return
    calls = sum(isinstance(part, ToolCall) for part in answer.parts)
    trial.cells[ask.name] = f"{calls} in {_since(began)}" if ask.calls else _since(began)
    if calls < min(ask.calls, 1):
        trial.cells[ask.name] = "no call"
        trial.faults[ask.name] = "answered without calling the tool; the model may know none"


def _understood(dialect: Dialect, said: bytes, stream: bool) -> Response | Failure:
    if not stream:
        return sound(dialect.parse_response(loads(said)))
    decoder = dialect.decoder()
    return fold(decoder.feed(said) + decoder.eof())


async def _counted_live(session: aiohttp.ClientSession, base: str, trial: Trial) -> None:
    dialect, name = trial.dialect, f"{trial.provider}/{trial.model}"
    where = dialect.counting(base + dialect.path)
    if not where:
        return
    request = Request(model=name, messages=(Message("user", (Text("Count me."),)),))
    body = dialect.render_request(request, dialect.quirks(), "").body
    body = {key: value for key, value in body.items() if key not in dialect.uncounted}
    url = dialect.address(where, name, stream=False)
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, *UNREADABLE):
        headers = {**dialect.headers, "Content-Type": "application/json"}
        async with session.post(url, data=dumps(body), headers=headers) as reply:
            count = dialect.parse_count(loads(await reply.read()))
            about = "about " if "x-relay-estimated" in reply.headers else ""
            trial.cells["count"] = f"{about}{count}"


def matrix(trials: Sequence[Trial]) -> list[str]:
    """The table, and below it what went wrong and where."""
    lines = aligned([TRIAL_HEAD, *(trial.row for trial in trials)])
    faults = [
        f"{trial.provider} ({trial.plan}, {trial.credential}) {trial.dialect.name} {name}: {fault}"
        for trial in trials
        for name, fault in (trial.faults | trial.notes).items()
    ]
    return [*lines, "", *faults] if faults else lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


# ==== 63. Watch ===============================================================
# `relay logs` and `relay top`: log lines and running requests, from the events of a running relay.
# What the screen shows is computed from values alone; only `_Screen` knows the terminal.


async def watched(console: Console) -> AsyncIterator[tuple[str, Any]]:
    """(kind, data) of every event, the last 500 first; ends when the relay does."""
    decoder, begun = SSEDecoder(), False
    async with console.session() as session:
        try:
            reply = await session.get("/admin/events?since=0")
            begun = True
            if reply.status != 200:
                raise RelayError(said_in(await reply.read(), reply.status).message)
            async for block in reply.content.iter_any():
                for event in decoder.feed(block):
                    yield event.event, loads(event.data)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if not begun:
                raise console.silent(error) from error
            raise RelayError(f"no relay answers at {console.listen} any more") from error


async def follow(console: Console, wanted: Mapping[str, str], on: bool) -> None:
    """Print the log lines whose fields match `wanted`; with `on`, future ones as well."""
    async for kind, data in watched(console):
        if kind == "running":
            if not on:
                return
        elif all(glob_matches(glob, str(data.get(name) or "")) for name, glob in wanted.items()):
            print(data["line"], flush=True)


SORTS: Final[dict[str, Callable[[JSON], Any]]] = {
    "time": lambda request: -request["ms"],
    "silence": lambda request: -request.get("silent_ms", 0),
    "tokens": lambda request: -(request.get("tokens_out") or 0),
    "model": lambda request: request["model"] or "",
}
_TOP_KEYS: Final = "q quit   s sort   j/k choose   a abandon   p pause"


@dataclass(slots=True)
class Top:
    """The state of `relay top`."""

    running: list[JSON] = field(default_factory=list)
    recent: list[JSON] = field(default_factory=list)
    marks: list[JSON] = field(default_factory=list)
    sort: str = "time"
    chosen: str = ""  # the id of a running request
    paused: bool = False
    said: str = ""

    def take(self, kind: str, data: Any) -> None:
        if kind == "request":
            self.recent = [*self.recent[-99:], data]
        elif kind == "running" and not self.paused:
            self.running = sorted(data, key=SORTS[self.sort])
            if self.chosen not in (request["id"] for request in self.running):
                self.chosen = self.running[0]["id"] if self.running else ""

    def choose(self, step: int) -> None:
        ids = [request["id"] for request in self.running]
        if ids:
            at = ids.index(self.chosen) if self.chosen in ids else 0
            self.chosen = ids[max(0, min(len(ids) - 1, at + step))]

    def lines(self, width: int, height: int) -> list[str]:
        """The screen, in so many columns and lines."""
        said = f"relay top   {len(self.running)} running   sorted by {self.sort}"
        said += "   paused" if self.paused else ""
        lines = [said + (f"   {self.said}" if self.said else ""), ""]
        rows = [_TOP_HEAD, *(_top_row(r, r["id"] == self.chosen) for r in self.running)]
        room = max(0, height - len(lines) - len(rows) - len(self.marks) - 4)
        finished = self.recent[-room:][::-1] if room else []
        rows += [_top_row(record, False) for record in finished]
        lines += aligned(rows)
        lines += [""] + [f"cooling: {m['name']}, {m['cause']}: {m['said']}" for m in self.marks]
        lines = [*lines[: height - 1], *[""] * (height - 1 - len(lines)), _TOP_KEYS]
        return [printable(line)[:width] for line in lines]


_TOP_HEAD: Final = (
    *(" ", "state", "key", "model", "target", "first", "time", "silent", "in", "cached", "out"),
    *("tok/s", "cost"),
)


def _top_row(request: JSON, chosen: bool) -> tuple[str, ...]:
    """The row of a running or a finished request."""
    runs = "begun" in request
    state = ("answers" if request["begun"] else "waits") if runs else request["code"]
    first, total = request.get("first_ms"), request["ms"]
    out, read = request.get("tokens_out"), request.get("cache_read")
    into, cost = request.get("tokens_in"), request.get("cost")
    writing = (total - first) / 1000 if out and first is not None else 0
    return (
        ">" if chosen else " ",
        state,
        request.get("key") or "-",
        (request["model"] or "-")[:28],
        (request["target"] or "-")[:36],
        "" if first is None else f"{first / 1000:.1f}s",
        f"{total / 1000:.1f}s",
        f"{request['silent_ms'] / 1000:.0f}s" if runs else "",
        "" if into is None else str(into),
        f"{100 * read / into:.0f}%" if into and read else "",
        "" if out is None else str(out),
        f"{out / writing:.0f}" if out and writing >= 0.1 else "",
        f"{cost:.4f}" if cost else "",
    )


class _Screen:
    """The terminal's alternate screen, without line editing; restored afterwards."""

    def __enter__(self) -> _Screen:
        import termios  # not everywhere, and needed nowhere else
        import tty

        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def draw(self, top: Top) -> None:
        lines = top.lines(*shutil.get_terminal_size())
        sys.stdout.write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")
        sys.stdout.flush()


async def show_top(console: Console) -> None:
    """The live table, until q."""
    top, keys = Top(), asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    async def events() -> None:
        async for kind, data in watched(console):
            top.take(kind, data)
            if kind == "running":
                top.marks = (await console.ask("GET", "/admin/health"))["marks"]
                screen.draw(top)

    with _Screen() as screen:
        loop.add_reader(sys.stdin, lambda: keys.put_nowait(os.read(sys.stdin.fileno(), 1).decode()))
        watching = asyncio.create_task(events())
        watching.add_done_callback(lambda _: keys.put_nowait("q"))
        try:
            while (key := await keys.get()) not in ("q", "\x04", ""):
                await _press(top, key, console)
                screen.draw(top)
        finally:
            loop.remove_reader(sys.stdin)
            watching.cancel()
    if watching.done() and not watching.cancelled():
        watching.result()


async def _press(top: Top, key: str, console: Console) -> None:
    if key == "s":
        names = list(SORTS)
        top.sort = names[(names.index(top.sort) + 1) % len(names)]
        top.running.sort(key=SORTS[top.sort])
    elif key in ("j", "k"):
        top.choose(1 if key == "j" else -1)
    elif key == "p":
        top.paused = not top.paused
    elif key == "a" and top.chosen:
        try:
            top.said = (await console.ask("POST", "/admin/abandon", {"id": top.chosen}))["said"]
        except RelayError as error:
            top.said = error.message


# ==== 64. Replay ==============================================================
# What can be done with a record: list, send again, compare, turn into a shell command.  A request
# is sent again to a temporary relay with the present configuration, so that everything is real:
# rules, failover, translation; its answer becomes a record, too, and is compared like any other.


def ring_of(source: Source) -> Ring:
    """The records of a configuration; mistakes elsewhere in it do not matter here."""
    config = lenient_config(source)
    if config.record is None:
        raise RelayError("nothing is recorded: the configuration has no `record`")
    return Ring(records_place(config.record, source, os.environ), config.record.keep)


def listed_records(ring: Ring, most: int) -> Iterator[str]:
    """A line each, the newest first."""
    for name, summary, wrong in itertools.islice(ring.summaries(), most):
        if summary is None:
            yield f"{ring.directory / name}: skipped: {wrong}"
            continue
        moment = datetime.datetime.fromtimestamp(summary["time"])
        ways = f"{summary.get('model') or '-'} -> {summary.get('target') or '-'}"
        code = f"{summary.get('code') or '-':2} {summary.get('status') or '-'}"
        yield f"{summary['id']}  {moment:%Y-%m-%d %H:%M:%S}  {code}  {ways}"


# What an answer says


def dialect_of(record: Record) -> Dialect | None:
    """The client's dialect; None for what relay passed on without understanding it."""
    path = str(record.request.head.get("path", "")).partition("?")[0]
    asked = asked_at(unversioned(path))
    return asked[0] if asked and asked[1] == "answer" else None


def spoken(record: Record) -> Response | Failure | None:
    """What the client was told; None if that is not in a dialect."""
    dialect, data = dialect_of(record), record.response.body
    if dialect is None or not data:
        return None
    if looks_like(data) == "json" and not data.lstrip().startswith(b"["):
        answer = whole_answer(data, dialect)
        return answer if isinstance(answer, Failure) else answer[1]
    if looks_like(data) == "json":  # Gemini's stream as one array
        with contextlib.suppress(*UNREADABLE):
            data = b"".join(sse(item) for item in loads(data))
    decoder = dialect.decoder()
    return fold(decoder.feed(data) + decoder.eof())


def _text_of(answer: Response | Failure | None, data: bytes) -> str:
    if isinstance(answer, Response):
        return "".join(part.text for part in answer.parts if isinstance(part, Text))
    return answer.message if answer else data.decode(errors="replace")


def answer_text(record: Record) -> str:
    """An answer for people to read: its text, and its calls."""
    answer = spoken(record)
    calls = _calls_of(answer)
    return _text_of(answer, record.response.body) + (f"\n[{calls}]" if calls else "")


def _calls_of(answer: Response | Failure | None) -> str:
    parts = answer.parts if isinstance(answer, Response) else ()
    return ", ".join(f"{p.name}({p.text})" for p in parts if isinstance(p, ToolCall))


# Comparing


def differences(one: Record, other: Record) -> Iterator[str]:
    """What differs between two requests and between their answers."""
    yield from _request_differences(one, other)
    yield from answer_table(one, other)


def _request_differences(one: Record, other: Record) -> Iterator[str]:
    heads = one.request.head, other.request.head
    for name in ("method", "path"):
        if heads[0].get(name) != heads[1].get(name):
            yield f"{name}: {heads[0].get(name)} | {heads[1].get(name)}"
    said = [{n.lower(): v for n, v in leg.headers} for leg in (one.request, other.request)]
    for name in sorted((said[0].keys() | said[1].keys()) - _CONNECTION):
        if (a := said[0].get(name, ABSENT)) != (b := said[1].get(name, ABSENT)):
            yield f"header {name}: {_short(a)} | {_short(b)}"
    bodies = one.request.body, other.request.body
    if bodies[0] == bodies[1]:
        yield f"body: the same {len(bodies[0])} bytes"
        return
    try:
        lines = list(_unlike("", loads(bodies[0]), loads(bodies[1])))
    except ValueError:
        lines = [f"{len(bodies[0])} bytes | {len(bodies[1])} bytes, and not JSON"]
    yield from (f"body{line}" for line in lines[:_MOST_DIFFERENCES] or [": written differently"])
    if len(lines) > _MOST_DIFFERENCES:
        yield f"body: {len(lines) - _MOST_DIFFERENCES} more"


def _unlike(path: str, one: Any, other: Any) -> Iterator[str]:
    """Where two JSON values differ, down to where their shapes do."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            yield from _unlike(f"{path}.{name}", one.get(name, ABSENT), other.get(name, ABSENT))
    elif isinstance(one, list) and isinstance(other, list):
        pairs = itertools.zip_longest(one, other, fillvalue=ABSENT)
        for index, (a, b) in enumerate(pairs):
            yield from _unlike(f"{path}[{index}]", a, b)
    elif one != other or type(one) is not type(other):
        yield f"{path}: {_differing(one, other)}"


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _differing(one: Any, other: Any) -> str:
    """Two values side by side; of long texts only what follows a common beginning."""
    if isinstance(one, str) and isinstance(other, str):
        same = _alike(one, other)
        if same > _SHOWN // 2:
            return (
                f"alike for {same} characters, then {_short(one[same:])} | {_short(other[same:])}"
            )
    return f"{_short(one)} | {_short(other)}"


def _short(value: Any) -> str:
    if value is None or value is ABSENT:
        return "-" if value is ABSENT else "null"
    text = value if isinstance(value, str) else dumps(value).decode()
    line = " ".join(text.split())
    return repr(line) if len(line) <= _SHOWN else f"{line[:_SHOWN]!r} ... ({len(text)} characters)"


ABSENT: Final = object()  # unlike any value that JSON has
_SHOWN: Final = 60  # characters of a value
_MOST_DIFFERENCES: Final = 20


def answer_table(one: Record, other: Record) -> Iterator[str]:
    """The two answers side by side, a line for each thing they may differ in."""
    rows = [("", one.id, other.id), *_answer_rows(one, other)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, a, b in rows:
        yield f"{name:{widths[0]}}  {a:{widths[1]}}  {b}".rstrip()
    for name, a, b in _wordings(one, other):
        if a != b:
            yield f"{name}: {_differing(a, b)}"


def _answer_rows(one: Record, other: Record) -> Iterator[tuple[str, str, str]]:
    records = one, other
    for name, value in _FACTS.items():
        a, b = (value(record.summary) for record in records)
        yield name, a, b
    for name, said, again in _wordings(one, other):
        lengths = [f"{len(text)} characters" if text else "none" for text in (said, again)]
        yield name, lengths[0], "the same" if said == again else lengths[1]


def _wordings(one: Record, other: Record) -> Iterator[tuple[str, str, str]]:
    """What was said in the two answers."""
    a, b = spoken(one), spoken(other)
    yield "text", _text_of(a, one.response.body), _text_of(b, other.response.body)
    yield "calls", _calls_of(a), _calls_of(b)


def _seconds_of(field: str, summary: JSON) -> str:
    spent = summary.get(field)
    return "-" if spent is None else f"{spent / 1000:.2f} s"


def _usage_of(summary: JSON) -> str:
    if summary.get("tokens_in") is None:
        return "-"
    cached = f" ({summary['cache_read']} cached)" if summary.get("cache_read") else ""
    return f"in {summary['tokens_in']}{cached} out {summary['tokens_out']}"


_FACTS: Final[dict[str, Callable[[JSON], str]]] = {
    "status": lambda summary: f"{summary.get('status') or '-'} {summary.get('code') or ''}".strip(),
    "target": lambda summary: str(summary.get("target") or "-"),
    "attempts": lambda summary: str(len(summary.get("attempts") or ())),
    "usage": _usage_of,
    "first": functools.partial(_seconds_of, "first_ms"),
    "total": functools.partial(_seconds_of, "ms"),
}


def whole_leg(record: Record, name: str) -> Leg:
    """A leg that can be sent again; RelayError if it is missing or incomplete."""
    if name not in record.legs:
        count = len(record.numbered("attempt"))
        raise RelayError(f"record {record.id} has no {name}; of attempts it has {count}")
    if missing := record.cut.get(name):
        raise RelayError(f"record {record.id} is not whole: its {name} lacks {missing} bytes")
    return record.legs[name]


# Sending again

# Headers that belong to the client's own connection, or are set anew.
_CONNECTION: Final = frozenset(
    "host connection content-length content-encoding transfer-encoding expect keep-alive te"
    " upgrade authorization x-api-key api-key x-goog-api-key cookie".split()
)


async def replay(record: Record, plan: Plan, source: Source, ring: Ring, log: Log) -> Record:
    """Send a request again and record that; the new record, which is in the ring."""
    keep = RecordConfig(directory=str(ring.directory.absolute()), keep=ring.keep)
    plan = replace(plan, config=replace(plan.config, record=keep))
    key = secrets.token_urlsafe(24)
    if plan.keys:  # the caller's key was not recorded, but its name, which rules may ask for
        caller = Caller(record.summary.get("key") or "", raw=True)
        digest = hashlib.sha256(key.encode()).digest()
        plan = replace(plan, keys=(Key(caller, digest, None),))
    async with serving(plan, source, log) as base:
        id = await _sent_again(record, base, key)
    return ring.read(id)


def redirected(plan: Plan, record: Record, to: str) -> Plan:
    """A plan in which the record's model goes to one target; ConfigError if there is none."""
    model = plan.bare(record.summary.get("model") or "")
    rules = {model: (RuleConfig(to=(to,)),)}
    others = {n: r for n, r in plan.config.routing_rules.items() if n.lower() != model.lower()}
    plan = replace(plan, config=replace(plan.config, routing_rules=rules | others))
    route = plan.route(model)
    if not model or route is None or not route.why.startswith("rule "):
        raise ConfigError([f"--to {to}: there is no such provider"])
    return plan


async def _sent_again(record: Record, base: str, key: str) -> str:
    """Send it and read the answer to its end; the new record's id."""
    leg = whole_leg(record, REQUEST)
    headers = CIMultiDict(
        (name, value)
        for name, value in leg.headers
        if name.lower() not in _CONNECTION and MASK not in value
    )
    headers["Authorization"] = f"Bearer {key}"
    address = yarl.URL(base + _unmasked_path(leg.head["path"]), encoded=True)
    quiet = frozenset(("User-Agent", "Content-Type", "Accept", "Accept-Encoding"))
    connector, timeout = aiohttp.TCPConnector(limit=1), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, skip_auto_headers=quiet
    ) as session:
        method = leg.head["method"]
        async with session.request(method, address, headers=headers, data=leg.body) as reply:
            with contextlib.suppress(aiohttp.ClientPayloadError):  # that it broke off is recorded
                await reply.read()
        # On the same connection, so it is answered only after this exchange was settled.
        await (await session.get(f"{base}/healthz")).read()
    return reply.headers["x-relay-request-id"]


def _unmasked_path(path: str) -> str:
    place, _, query = path.partition("?")
    items = [item for item in query.split("&") if item and MASK not in item]
    return place + ("?" + "&".join(items) if items else "")


# A command for a shell


def as_curl(record: Record, attempt: int | None, base: str) -> str:
    """The client's request, or an attempt's, with a variable for the credential."""
    leg = whole_leg(record, REQUEST if attempt is None else f"attempt {attempt}")
    variable = "RELAY_KEY" if attempt is None else _variable_of(leg)
    address = leg.head["url"] if "url" in leg.head else base + leg.head["path"]
    command = ["curl -sS --no-buffer", f"-X {leg.head['method']}", _quoted(address, variable)]
    command += [
        f"-H {_quoted(f'{name}: {value}', variable)}"
        for name, value in leg.headers
        if name.lower() not in _CONNECTION | {"accept-encoding"}  # curl would print what it gets
        or (MASK in value and name.lower() != "cookie")
    ]
    body = leg.body
    if not body and attempt is not None:  # it flowed through: the client's own bytes
        body = whole_leg(record, REQUEST).body
    if not body:
        return " \\\n  ".join(command)
    return _poured(body) + " | " + " \\\n  ".join([*command, "--data-binary @-"])


def _variable_of(leg: Leg) -> str:
    """The variable of an attempt's credential: its preset's, or one named after the provider."""
    preset = PRESETS.get(str(leg.head.get("preset") or ""))
    if preset and preset.key:
        return preset.key
    provider = str(leg.head.get("target", "")).partition("/")[0]
    return re.sub(r"\W", "_", provider).upper() + "_API_KEY"


def _quoted(text: str, variable: str) -> str:
    """Quoted for a POSIX shell; what was masked becomes the variable."""
    if MASK not in text:
        return shlex.quote(text)
    pieces = (re.sub(r'([\\"$`])', r"\\\1", piece) for piece in text.split(MASK))
    return '"' + ("${" + variable + "}").join(pieces) + '"'


def _poured(body: bytes) -> str:
    """A command that writes exactly these bytes.  printf is built into the shell, so that the
    kernel's limit of 128 KB on arguments does not apply."""
    text = body.decode(errors="replace")
    if text.encode() == body and "\0" not in text:
        return f"printf %s {shlex.quote(text)}"
    return f"printf %s {base64.b64encode(body).decode()} | base64 -d"


# ==== 65. Command line ========================================================
# From arguments to a running server, or to an answer in print.

DEMO_CONFIG: Final = """\
providers:
  demo: {api_format: demo, models: [demo, "*"]}
"""


def find_config(args: argparse.Namespace) -> Source:
    """The file to read and its text: -c, ./config.yaml, or made from keys in the environment."""
    overrides = tuple(args.listen or ()), args.reuse_port
    if args.demo:
        return Source(None, DEMO_CONFIG, *overrides)
    path = Path(args.config or "config.yaml")
    if args.config or path.exists():
        return Source(path, text_of(path), *overrides)
    text = config_from(os.environ)
    if not text:
        raise ConfigError(
            [
                "no configuration: give -c FILE, put a config.yaml here, set a provider's key in "
                "the environment (such as ZAI_API_KEY), or try --demo"
            ]
        )
    return Source(None, text, *overrides)


def config_from(env: Mapping[str, str]) -> str:
    """A configuration of every preset whose credential is in the environment; "" if none is."""
    rows = [
        f'  {name}: {{preset: {name}, api_key: "${{{preset.key}}}"}}\n'
        for name, preset in PRESETS.items()
        if preset.key and env.get(preset.key) and any(_spoken(preset))
    ]
    return "providers:\n" + "".join(rows) if rows else ""


def _spoken(preset: Preset) -> Iterator[str]:
    return (d for plan in preset.plans.values() for d in plan if d in DIALECTS)


def command_serve(args: argparse.Namespace) -> int:
    supervisor = Supervisor(os.environ, os.getpid())
    source = find_config(args)
    heap = Heap()
    plan = load(source)
    heap.settle()
    if source.path is None and not args.demo:
        print(f"# from the environment\n{source.text}", file=sys.stderr, flush=True)
    log = Log(plan.config.log, plan.zone, Sink(sys.stderr))
    try:
        runner = asyncio.Runner(loop_factory=_loop_factory())
        with contextlib.suppress(KeyboardInterrupt), runner:
            runner.run(_serve(plan, source, log, supervisor, heap))
    finally:
        log.sink.flush(within=2)  # seconds; a stuck reader is not waited for
    return 0


def command_demo(args: argparse.Namespace) -> int:
    args.demo = True
    return command_serve(args)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (`pip install llm-api-relay[speed]`), else Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return cast(Callable[[], asyncio.AbstractEventLoop], uvloop.new_event_loop)


async def _serve(plan: Plan, source: Source, log: Log, supervisor: Supervisor, heap: Heap) -> None:
    await Server(plan, source, log, supervisor, heap).serve()


def command_check(args: argparse.Namespace) -> int:
    source = find_config(args)
    plan = load(source)
    print(f"{source.path or ('the demo' if args.demo else 'the environment')}: ok")
    for provider in plan.providers.values():
        for billing in provider.plans:
            for dialect, endpoint in billing.endpoints.items():
                way = f", by way of {shown_proxy(endpoint.proxy)}" if endpoint.proxy else ""
                url = plan.redacted(endpoint.url)
                print(f"  {provider.name} ({billing.name}) {dialect}: {url}{way}")
    for name in unpriced(plan):
        print(f"  {name}: no `prices`, so budgets in money do not see what it serves")
    return _check_live(plan, args) if args.live else 0


def _check_live(plan: Plan, args: argparse.Namespace) -> int:
    """Try it, after announcing the cost; 1 if anything went wrong."""
    chosen = accesses(plan, args.provider)
    print(f"to be sent: {expected_cost(chosen)}", flush=True)
    if not args.yes:
        if not sys.stdin.isatty():
            print("not sent: say --yes where nobody can be asked", file=sys.stderr)
            return 2
        if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    trials = asyncio.run(_all_tried(plan, chosen))
    print(plan.redacted("\n".join(matrix(trials))))
    return 1 if any(trial.faults for trial in trials) else 0


async def _all_tried(plan: Plan, chosen: Sequence[Access]) -> list[Trial]:
    """One after the other, so that none is throttled because of another."""
    log = Log(plan.config.log, plan.zone, Sink(None))
    return [trial for access in chosen for trial in await tried(plan, access, log)]


def command_route(args: argparse.Namespace) -> int:
    """Where a request goes and why, with all its ways in the order in which they are tried."""
    plan = load(find_config(args))
    facts = _facts(args, plan)
    name = plan.bare(args.model)
    if not next(
        (key.caller.may_use(name) for key in plan.keys if key.caller.name == args.key), True
    ):
        print(f"{args.model}: key {args.key!r} may not use it")
        return 1
    route = plan.route(args.model, facts)
    said = route.why if route else "no provider serves it"
    near = [] if route else plan.nearest(args.model)
    print(f"{args.model}: {said}" + (f"; near: {', '.join(near)}" if near else ""))
    if name != args.model:
        print(f"  looked up as {name}")
    for why, rule in plan.entries(name):
        if not (reason := unmet(rule.when, facts)):
            break
        print(f"  not {why}: {reason}")
    if route:
        identity = f"{args.key}\0{identity_of(facts.headers, facts.body)}"
        _print_ways(route, args.dialect, identity)
    return 0 if route else 1


def _facts(args: argparse.Namespace, plan: Plan) -> Facts:
    """The request that --request, --header and --key describe."""
    headers: CIMultiDict[str] = CIMultiDict()
    for header in args.header:
        name, _, value = header.partition(":")
        headers[name.strip()] = value.strip()
    known = [key.caller.name for key in plan.keys]
    if args.key and args.key not in known:
        raise ConfigError([f"no key is called {args.key!r}{meant(args.key, known)}"])
    facts = Facts(model=plan.bare(args.model), key=args.key, headers=headers)
    if args.request is None:
        return facts
    try:
        body = Body(Path(args.request).read_bytes()).wire
    except (OSError, BadRequest) as error:
        raise ConfigError([f"{args.request}: {system_words(error)}"]) from error
    parse = functools.partial(DIALECTS[args.dialect].parse_request, body)
    return replace(facts, body=body, parse=parse, count=lambda: estimate(parse()))


def _print_ways(route: Route, dialect: str, identity: str) -> None:
    """The targets in the order they have when nothing is cooling down or busy."""
    lanes = Balance(Health()).lanes(route, dialect, identity, lambda: 0.0)
    order = [str(lane.target) for lane, _ in lanes]
    number = 0
    for group in route.groups:
        share = f" (one of equals, {route.balance})" if len(group) > 1 else ""
        for target in sorted(group, key=lambda target: order.index(str(target))):
            for billing in target.provider.plans:
                endpoint, number = billing.endpoint(dialect), number + 1
                first = billing is target.provider.plans[0]
                later = "" if first else ", once the plan before is used up"
                print(f"  {number}. {target} ({billing.name}){share}{later}")
                count = len(billing.credentials)
                keys = f", {count} credentials" if count > 1 else ""
                same = "passes through" if endpoint.dialect.name == dialect else "translated to"
                url = endpoint.dialect.address(endpoint.url, target.model, stream=True)
                print(f"     {same} {endpoint.dialect.name}: {url}{keys}")


def command_models(args: argparse.Namespace) -> int:
    plan = load(find_config(args))
    if args.fetch:
        return asyncio.run(_fetch(plan, args.provider))
    for name in plan.listed:
        route = plan.route(name)
        targets = [str(target) for group in route.groups for target in group] if route else []
        targets += [to for _, rule in plan.entries(name) if conditions(rule.when) for to in rule.to]
        print(f"{name}  ->  {', '.join(dict.fromkeys(targets)) or 'nowhere'}")
    for glob, rules in plan.config.routing_rules.items():
        if is_glob(glob):
            print(f"{glob}  ->  {', '.join(dict.fromkeys(to for r in rules for to in r.to))}")
    for provider in plan.providers.values():
        globs = [name for name in provider.config.models or () if is_glob(name)]
        if provider.config.models is None:
            globs += provider.claims or ()
        for glob in ["*"] if provider.accepts_all else globs:
            print(f"{glob}  ->  {provider.name}")
    return 0


async def _fetch(plan: Plan, only: str) -> int:
    """What the providers list, in the form of `models`; 1 if none lists anything."""
    log, told = Log(plan.config.log, plan.zone, Sink(None)), 0
    first = {access.provider.name: access for access in reversed(accesses(plan, only))}
    for access in first.values():
        names, fault = await fetched(plan, access, log)
        known = access.provider.config.models or {}
        fresh = [name for name in names if name not in known]
        told += bool(names)
        counts = f"{len(names)} served, {len(fresh)} not yet here"
        print(f"{access.provider.name}:  # {plan.redacted(fault) or counts}")
        if fresh:
            print("  models:")
            print("\n".join(f"    {dumps(name).decode()}:" for name in fresh))
    return 0 if told else 1


def command_env(args: argparse.Namespace) -> int:
    """A tool's settings, for a shell to read or for a file."""
    plan = load(find_config(args))
    base = base_of(plan.config.listen, "https" if plan.config.tls else "http")
    if not base:
        raise ConfigError(["relay listens on sockets of the file system only; tools need a port"])
    key = "{{ env.RELAY_KEY }}"
    if args.format != "mise" or not plan.config.keys:
        key = client_key(plan, args.key, os.environ.get("RELAY_KEY", ""), time.time())
    recipe, name = recipe_of(args.client), args.client.rpartition("/")[2]
    setup = recipe.setup(offer(plan, recipe, base, key, args.model))
    print("\n".join(FORMATS[args.format](setup, recipe, name)))
    return 0


def command_run(args: argparse.Namespace) -> int:
    source = find_config(args)
    plan = load(source)
    with contextlib.ExitStack() as stack:
        try:  # not stderr: the screen is the tool's
            stream = stack.enter_context(Path(args.log or os.devnull).open("a"))
        except OSError as error:
            raise ConfigError([f"--log {args.log}: {error.strerror}"]) from error
        log = Log(plan.config.log, plan.zone, Sink(stream))
        try:
            return asyncio.run(_run(plan, source, args, log))
        finally:
            log.sink.flush(within=2)


async def _run(plan: Plan, source: Source, args: argparse.Namespace, log: Log) -> int:
    """Run the tool with a relay that serves already, or with one of its own."""
    key = client_key(plan, args.key, os.environ.get("RELAY_KEY", ""), time.time())
    recipe = recipe_of(args.client)
    offer(plan, recipe, "", key, args.model)  # mistakes are reported before anything starts
    async with contextlib.AsyncExitStack() as stack:
        base = base_of(plan.config.listen, "https" if plan.config.tls else "http")
        if args.demo or not await is_served(base):
            base = await stack.enter_async_context(serving(plan, source, log))
        setup = recipe.setup(offer(plan, recipe, base, key, args.model))
        env = cleaned_environment(os.environ, plan)
        hint = f"; npm install -g {recipe.package} installs it" if recipe.package else ""
        return await launch([args.client, *args.args], setup, env | unproxied(env, base), hint)


def command_import(args: argparse.Namespace) -> int:
    """Another relay's file; the result is checked as it would be at start."""
    try:
        text = imported(Path(args.file).read_text(), args.with_secrets)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{args.file}: cannot be read: {system_words(error)}"]) from error
    except ConfigError as error:
        raise ConfigError([f"{args.file}: {problem}" for problem in error.problems]) from error
    if args.output is None:
        print(text, end="")
        return 0
    try:
        descriptor = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError([f"{args.output}: {error.strerror}"]) from error
    with open(descriptor, "w") as file:
        file.write(text)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    print("\n".join((f"{args.output} is written.", *comments[1:])))
    return 0


_TOOL_OPTIONS: Final[dict[str, JSON]] = {
    "--model": {"metavar": "NAME", "default": "", "help": "the model to start with"},
    "--key": {"metavar": "NAME", "help": "whose key from `keys` it sends"},
}
_ENV_OPTIONS: Final = _TOOL_OPTIONS | {"--format": {"choices": tuple(FORMATS), "default": "sh"}}
_RUN_OPTIONS: Final = _TOOL_OPTIONS | {
    "--log": {"metavar": "FILE", "help": "where a relay of its own writes its log"},
    "args": {"nargs": argparse.REMAINDER, "help": "the tool's own arguments"},
}


def command_logs(args: argparse.Namespace) -> int:
    """The last log lines of the running relay, and with -f those to come."""
    wanted = {name: said for name in ("key", "provider", "code") if (said := getattr(args, name))}
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(follow(console_of(find_config(args)), wanted, args.follow))
    return 0


def command_top(args: argparse.Namespace) -> int:
    """The live table; without a terminal, what it would show now."""
    console = console_of(find_config(args))
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdin.isatty() and sys.stdout.isatty():
            asyncio.run(show_top(console))
        else:
            print("\n".join(asyncio.run(_once(console))))
    return 0


async def _once(console: Console) -> list[str]:
    top = Top()
    async for kind, data in watched(console):
        top.take(kind, data)
        if kind == "running":
            break
    top.marks = (await console.ask("GET", "/admin/health"))["marks"]
    lines = [line for line in top.lines(200, 60) if line]
    return lines[:-1]  # nobody can press a key here


def command_records(args: argparse.Namespace) -> int:
    lines = list(listed_records(ring_of(find_config(args)), args.number))
    print("\n".join(lines) or "no record yet")
    return 0


def command_replay(args: argparse.Namespace) -> int:
    """Send a recorded request again; the answer, and how it differs."""
    source = find_config(args)
    plan, ring = load(source), ring_of(source)
    before = ring.read(args.id)
    plan = redirected(plan, before, args.to) if args.to else plan
    with contextlib.ExitStack() as stack:
        quiet = Log(plan.config.log, plan.zone, Sink(None))
        if not args.save:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-"))
            ring = Ring(Path(folder), max(ring.keep, 1 << 30))
        after = asyncio.run(replay(before, plan, source, ring, quiet))
    print("\n".join((answer_text(after), "", *answer_table(before, after))))
    return 0 if after.summary["code"] == "OK" else 1


def command_diff(args: argparse.Namespace) -> int:
    ring = ring_of(find_config(args))
    print("\n".join(differences(ring.read(args.id), ring.read(args.other))))
    return 0


def command_export(args: argparse.Namespace) -> int:
    """A record's request in another form; so far only as a shell command."""
    source = find_config(args)
    record = ring_of(source).read(args.id)
    config = lenient_config(source)
    scheme = "https" if config.tls else "http"
    base = base_of(source.listen or config.listen, scheme) or f"{scheme}://localhost"
    print(as_curl(record, args.attempt, base))
    return 0


def command_key(args: argparse.Namespace) -> int:
    """A new key and its hash, which is all that the file needs."""
    key = "rk-" + secrets.token_urlsafe(32)
    print(f"key:    {key}\nconfig: sha256:{hashlib.sha256(key.encode()).hexdigest()}")
    return 0


def command_grafana(args: argparse.Namespace) -> int:
    print(json.dumps(grafana_dashboard(), indent=2))
    return 0


def command_usage(args: argparse.Namespace) -> int:
    """Tables of days and of the last hours, read from where relay keeps them."""
    source = find_config(args)
    plan = load(source)
    place = state_place(plan.config.state, source, os.environ)
    if place == "memory":
        raise RelayError("state is memory: usage ends with relay; while it runs, see /admin/usage")
    by = tuple(args.by.split(","))
    if wrong := [name for name in by if name not in ROW_NAMES]:
        known = f"one of {', '.join(ROW_NAMES)}, or several with commas"
        raise ConfigError([f"--by {wrong[0]}: {known}"])
    try:
        report = asyncio.run(_usage(store_of(place), args.days, plan.zone, by))
    except StateTrouble as error:
        raise RelayError(str(error)) from error
    if args.json:
        print(json.dumps(report, indent=2))
        return 0
    for name, digits in (("days", 10), ("hours", 16)):
        print(f"{name}:" if report[name] else f"{name}: nothing was used")
        print("\n".join(_usage_table(report[name], by, digits)))
    return 0


async def _usage(store: Store, days: int, zone: datetime.tzinfo | None, by: Sequence[str]) -> JSON:
    await store.open(to_read=True)
    try:
        return await usage_report(store, days, time.time(), zone, by)
    finally:
        await store.close()


_USAGE_COLUMNS: Final = (
    *("requests", "errors", "tokens_in", "tokens_out", "cache_read", "cache_write", "cost"),
)


def _usage_table(records: Sequence[JSON], by: Sequence[str], digits: int) -> list[str]:
    """Text columns, names to the left and numbers to the right; the last line is the sum."""
    if not records:
        return []
    sums = {name: sum(record[name] for record in records) for name in _USAGE_COLUMNS}
    lines = [["from", *by, *_USAGE_COLUMNS]]
    for record in (*records, {"start": "all", **dict.fromkeys(by, " "), **sums}):
        names = [record["start"][:digits].replace("T", " "), *(record[n] or "-" for n in by)]
        counts = [str(record[name]) for name in _USAGE_COLUMNS[:-1]]
        lines.append([*names, *counts, f"{record['cost']:.4f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = 1 + len(by)
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def command_systemd(args: argparse.Namespace) -> int:
    """The units, for the configuration at hand, or for the usual one if there is none."""
    try:
        source = find_config(args)
    except ConfigError:
        if args.config:
            raise
        source = Source(None, "", tuple(args.listen or ()))
    config = read_config(source.text, Reading("", _Anything(), str, zoneinfo.ZoneInfo))
    config = replace(config, listen=source.listen or config.listen)
    program = (sys.executable, str(Path(__file__).resolve()))
    version = args.systemd or _systemd_version()
    units = systemd_units(config, source.text, program, version, args.instances)
    if not args.output:
        print("\n".join(units.values()), end="")
    for name, text in units.items() if args.output else ():
        try:
            Path(args.output, name).write_text(text)
        except OSError as error:
            raise ConfigError([f"{args.output}/{name}: {error.strerror}"]) from error
        print(f"{args.output}/{name}")
    return 0


class _Anything(dict[str, str]):
    """An environment in which every variable is set: the service's is not the shell's."""

    def get(self, name: str, default: Any = None) -> Any:
        return default or "-"


def _systemd_version() -> int:
    """This machine's; a recent one if it has none, because the units are for another machine."""
    program = shutil.which("systemctl")
    if program is None:
        return 255
    command = (program, "--version")
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    found = re.match(r"systemd (\d+)", said.stdout)
    return int(found[1]) if found else 255


_SYSTEMD_OPTIONS: Final[Mapping[str, JSON]] = {
    "--instances": {"action": "store_true", "help": "a template for several processes"},
    "--output": {"metavar": "FOLDER", "help": "write the files there, do not print"},
    "--systemd": {"metavar": "VERSION", "type": int, "help": "systemd's; default: this machine's"},
}


def command_schema(args: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return 0


def command_health(args: argparse.Namespace) -> int:
    """What is cooling down at the running relay; or with --clear, remove marks."""
    console = console_of(find_config(args))
    if args.clear:
        which = {"all": True} if args.clear == "all" else {"name": args.clear}
        cleared = console.post("/admin/health/clear", which)["cleared"]
        print("\n".join(f"cleared {name}" for name in cleared) or f"no mark on {args.clear}")
        return 0 if cleared else 1
    said = console.get("/admin/health")
    for mark in said["marks"]:
        print(_mark_text(mark, said["now"]))
    if not said["marks"]:
        print("nothing cools down")
    print("conversations: " + ", ".join(f"{n} {word}" for word, n in said["sticky"].items()))
    return 0


def _mark_text(mark: JSON, now: int) -> str:
    """glm/coding/1f3a (credential): plan exhausted for 3 min, until 14:05:00 (in 2 h)"""
    until, probe = mark["until"], mark["next_probe"]
    when = "being probed" if probe is None else "the next request probes"
    if until > now:
        end = datetime.datetime.fromtimestamp(until)
        form = "%H:%M:%S" if until - now < 86400 else "%Y-%m-%d %H:%M"
        guess = ", guessed" if mark["guessed"] else ""
        when = f"until {end.strftime(form)} (in {span(until - now)}{guess})"
    cause = mark["cause"].replace("_", " ")
    head = f"{mark['name']} ({mark['scope']}): {cause} for {span(now - mark['since'])}, {when}"
    more = f", {mark['times']} in a row" if mark["times"] > 1 else ""
    more += f", {mark['bound']} conversations" if mark["bound"] else ""
    return f"{head}{more}\n    {mark['said']}".rstrip()


@frozen
class Command:
    run: Callable[[argparse.Namespace], int]
    doc: str
    argument: str = ""
    options: Mapping[str, JSON] = field(default_factory=dict)  # as add_argument takes them


COMMANDS: Final[dict[str, Command]] = {
    "serve": Command(command_serve, "serve what the configuration says (the default)"),
    "check": Command(
        command_check,
        "report everything that is wrong with a configuration",
        options={
            "--live": {"action": "store_true", "help": "try every provider, too"},
            "--provider": {"metavar": "NAME", "default": "", "help": "try only this one"},
            "--yes": {"action": "store_true", "help": "do not ask before"},
        },
    ),
    "route": Command(
        command_route,
        "explain where a model name goes and why",
        "model",
        {
            "--dialect": {"choices": tuple(DIALECTS), "default": "anthropic"},
            "--request": {"metavar": "FILE", "help": "its body, in that dialect"},
            "--header": {"metavar": "'NAME: VALUE'", "action": "append", "default": []},
            "--key": {"metavar": "NAME", "default": "", "help": "who asks"},
        },
    ),
    "models": Command(
        command_models,
        "list the names that can be used",
        options={
            "--fetch": {"action": "store_true", "help": "ask the providers what they serve"},
            "--provider": {"metavar": "NAME", "default": "", "help": "ask only this one"},
        },
    ),
    "health": Command(
        command_health,
        "list what is cooling down at the running relay, or clear it",
        options={"--clear": {"metavar": "NAME", "help": "a mark, credential, provider, or all"}},
    ),
    "env": Command(
        command_env, "print what a coding tool needs to use relay", "client", _ENV_OPTIONS
    ),
    "run": Command(command_run, "run a coding tool through relay", "client", _RUN_OPTIONS),
    "top": Command(command_top, "show the running requests, live"),
    "logs": Command(
        command_logs,
        "show the log of the running relay",
        options={
            "--follow": {"action": "store_true", "help": "keep showing new lines"},
            "--key": {"metavar": "GLOB", "help": "only of this key"},
            "--provider": {"metavar": "GLOB", "help": "only of this provider"},
            "--code": {"metavar": "GLOB", "help": "only with this termination code"},
        },
    ),
    "import": Command(
        command_import,
        "turn another relay's file into a configuration",
        "file",
        {
            "-o": {"dest": "output", "metavar": "FILE", "help": "a new file to write it to"},
            "--with-secrets": {"action": "store_true", "help": "carry keys over in plain text"},
        },
    ),
    "records": Command(
        command_records,
        "list what the flight recorder has kept",
        options={"--number": {"type": int, "default": 20, "help": "how many, the newest first"}},
    ),
    "replay": Command(
        command_replay,
        "send a recorded request again and compare the answers",
        "id",
        {
            "--to": {"metavar": "PROVIDER/MODEL", "help": "to this target, whatever the rules say"},
            "--save": {"action": "store_true", "help": "record what is answered, too"},
        },
    ),
    "diff": Command(
        command_diff,
        "show how two recorded exchanges differ",
        "id",
        {"other": {"help": "the id it is compared with"}},
    ),
    "export": Command(
        command_export,
        "print a recorded request as a command",
        "id",
        {
            "--curl": {"action": "store_true", "required": True, "help": "for a shell"},
            "--attempt": {"type": int, "metavar": "N", "help": "what a provider was sent instead"},
        },
    ),
    "key": Command(command_key, "make a key for a client"),
    "systemd": Command(
        command_systemd, "print units for systemd, hardened", options=_SYSTEMD_OPTIONS
    ),
    "grafana": Command(command_grafana, "print a Grafana dashboard of relay's metrics"),
    "usage": Command(
        command_usage,
        "show what was used, by day and by hour",
        options={
            "--by": {"metavar": "NAMES", "default": "key,model", "help": "of key,provider,model"},
            "--days": {"type": int, "default": 7, "help": "how many of them"},
            "--json": {"action": "store_true", "help": "for programs"},
        },
    ),
    "schema": Command(command_schema, "print the configuration's JSON Schema, for editors"),
    "demo": Command(command_demo, "serve an embedded provider: no key, no network"),
}


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """For these arguments: a command that is not among them gets its line, but no options."""
    top = argparse.ArgumentParser(prog="relay", description="One address for every LLM API.")
    _add_options(top, config=None, demo=False, listen=None, reuse_port=False)
    top.add_argument("--version", action="version", version=f"relay {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.doc, description=command.doc)
        if name not in argv:
            continue
        _add_options(sub)
        if command.argument:
            sub.add_argument(command.argument)
        for option_name, how in command.options.items():
            sub.add_argument(option_name, **how)
    return top


_COMMON_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "-c, --config": {"metavar": "FILE", "help": "the configuration; ./config.yaml by default"},
    "--demo": {"action": "store_true", "help": "a built-in provider instead: no key, no network"},
    "--listen": {
        "metavar": "ADDRESS",
        "action": "append",
        "help": "instead of the configuration's; may be given more than once",
    },
    "--reuse-port": {"action": "store_true", "help": "let other processes listen there too"},
}


def _add_options(target: argparse.ArgumentParser, **defaults: Any) -> None:
    """The options that may come before a command or after it."""
    absent = argparse.SUPPRESS  # so that a command does not undo what came before it
    for name, how in _COMMON_OPTIONS.items():
        dest = name.rpartition("--")[2].replace("-", "_")
        target.add_argument(*name.split(", "), default=defaults.get(dest, absent), **how)


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 1: no answer; 2: the configuration or the arguments are wrong."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser(argv).parse_args(argv)
    try:
        return COMMANDS[args.command or "serve"].run(args)
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    except RelayError as error:
        print(error.message, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `relay models | head`
        return 0


if __name__ == "__main__":
    sys.exit(main())
