"""The YAML file, and everything wrong with it: where, what, and what was meant."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from typing import Any

import jsonschema
import pytest
import yaml
from unit.configs import plan_of, problems_of, reading

import relay

UP = "providers:\n  a: {api_format: openai, endpoint: http://a/v1}\n"


def provider(fields: str) -> str:
    return f"providers:\n  a: {{api_format: openai, endpoint: http://a/v1, {fields}}}\n"


SECONDS = "expected seconds, or a time like 500ms, 30s, 5m, 1h"
OPEN = " can be reached by others: give `keys`, listen on 127.0.0.1, or say `allow_anonymous: true`"

# Everything wrong with a file, all at once, in the order of the file
PROBLEMS: dict[str, tuple[str, list[str]]] = {
    # The file
    "empty": ("", ["1:1: providers: required; the file is empty"]),
    "only a comment": ("# nothing\n", ["1:1: providers: required; the file is empty"]),
    "null": ("~\n", ["1:1: providers: at least one is needed"]),
    "a list": (
        "- a\n",
        ["1:1: expected a mapping (listen, admin_key, allow_anonymous, ...), got a list"],
    ),
    "a word": (
        "hello\n",
        ["1:1: expected a mapping (listen, admin_key, allow_anonymous, ...), got a single value"],
    ),
    "a tab": (
        "providers:\n\ta: 1\n",
        [
            "2:1: not YAML: found character '\\t' that cannot start any token; indent with"
            " spaces, and quote what begins with a special character"
        ],
    ),
    "an open quote": (
        'providers: "x\n',
        [
            "2:1: not YAML: found unexpected end of stream, while scanning a quoted scalar"
            " from line 1 on"
        ],
    ),
    "two documents": (
        "a: 1\n---\nb: 2\n",
        ["2:1: not YAML: expected a single document in the stream, but found another document"],
    ),
    "two lines of two documents": (
        "providers: [a\nb: 2\n",
        [
            "2:2: not YAML: expected ',' or ']', but got ':', while parsing a flow sequence"
            " from line 1 on"
        ],
    ),
    "a reference without quotes": (
        "providers:\n  a: {preset: zai, api_key: ${K}}\n",
        [
            "2:30: not YAML: expected ',' or '}', but got '{'; within {...} a reference needs"
            ' quotes: "${NAME}"'
        ],
    ),
    "a mapping within a line": (
        "providers:\n  a: preset: zai\n",
        [
            "2:12: not YAML: mapping values are not allowed here; quote a value that holds ': ',"
            " and see whether the line is indented as it should be"
        ],
    ),
    "a character that is none": ("# one\n# \x00\n", ["2:3: not YAML: the character U+0000"]),
    "an unknown alias": (
        "providers:\n  a: *nope\n",
        ["2:6: not YAML: found undefined alias 'nope'"],
    ),
    "an alias in itself": (
        "providers: &p\n  a: *p\n",
        ["1:1: not YAML: an alias refers to a node that contains it"],
    ),
    "aliases of aliases": (
        "l0: &l0 [x, x]\n"
        + "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        ["1:1: not YAML: more than 100000 values, with what aliases repeat"],
    ),
    "no providers": ("listen: 127.0.0.1:1\n", ["1:1: providers: required"]),
    "no provider": ("providers: {}\n", ["1:1: providers: at least one is needed"]),
    # Keys
    "an unknown key": (
        UP + "listn: 127.0.0.1:1\n",
        ["3:1: listn: unknown key; did you mean 'listen'?"],
    ),
    "an unknown key, nothing near": (UP + "zzz: 1\n", ["3:1: zzz: unknown key"]),
    "an unknown key inside": (
        provider("endpont: x"),
        ["2:50: providers.a.endpont: unknown key; did you mean 'endpoint'?"],
    ),
    "a key twice": (
        UP + "default: a\ndefault: a\n",
        ["4:1: default: duplicate key, first in line 3"],
    ),
    "a key twice inside": (
        provider("weight: 1, weight: 2"),
        ["2:61: providers.a.weight: duplicate key, first in line 2"],
    ),
    "a flight recorder without a place": (
        UP + "record: {keep: much, kepe: 1MB}\n",
        [
            "3:1: record.directory: required",
            "3:10: record.keep: expected a size like 64MB or 64KB, got 'much'",
            "3:22: record.kepe: unknown key; did you mean 'keep'?",
        ],
    ),
    "more of coming versions": (
        provider("proxy: x, prices: {m: {inptu: 1, output: -1}}")
        + "keys: {k: {key: x, limits: {rpm: 0, rps: 1}}}\n"
        + "routing_rules: {x: {to: a, wait: soon, hedge_after: 0}}\n"
        + "state: redis:x\n",
        [
            "2:50: providers.a.proxy: expected direct, or a URL like http://host:port"
            " (http, https, socks5, socks5h)",
            "2:73: providers.a.prices.m.inptu: unknown key; did you mean 'input'?",
            "2:83: providers.a.prices.m.output: must be at least 0",
            "3:29: keys.k.limits.rpm: must be at least 1",
            "3:37: keys.k.limits.rps: unknown key; did you mean 'rpm'?",
            f"4:28: routing_rules.x.wait: {SECONDS}, got 'soon'",
            "4:40: routing_rules.x.hedge_after: must be more than 0",
            "5:1: state: expected memory, sqlite:PATH or redis://..., got 'redis:x'",
        ],
    ),
    "a flight recorder and a certificate of no name": (
        UP + "record: {directory: ''}\ntls: {certificate: x, key: ''}\n",
        ["3:10: record.directory: must not be empty", "4:23: tls.key: must not be empty"],
    ),
    "texts that are null, a list or a mapping": (
        UP + "record: {directory: }\ntls: {certificate: [x], key: {a: b}}\n",
        [
            "3:10: record.directory: must not be empty",
            "4:7: tls.certificate: expected text, got a list",
            "4:25: tls.key: expected text, got a mapping",
        ],
    ),
    "texts with a NUL": (
        UP + 'plugins: ["\\0"]\nrecord: {directory: "a\\0b"}\nstate: "sqlite:\\0"\n',
        [
            "3:11: plugins[0]: expected text, got a text with the character U+0000",
            "4:10: record.directory: expected text, got a text with the character U+0000",
            "5:1: state: expected memory, sqlite:PATH or redis://..., got a text with the character"
            " U+0000",
        ],
    ),
    "half a tls": (UP + "tls: {certificate: x}\n", ["3:1: tls.key: required"]),
    # Values
    "values of the wrong kind": (
        UP
        + "allow_anonymous: maybe\nserver: 3\ntimeouts: {connect: soon, idle: 0, total: -1}\n"
        + "log: {level: inof, format: [x]}\nkeys: [a]\nrouting_rules: []\ndefault: [a]\n"
        + "state: disk\n"
        + "timezone: Mars/Olympus\nadmin_key: [1]\n",
        [
            "3:1: allow_anonymous: expected true or false, got 'maybe'",
            "4:1: server: expected a mapping (max_body, max_header, body_timeout, ...),"
            " got a single value",
            f"5:12: timeouts.connect: {SECONDS}, got 'soon'",
            "5:27: timeouts.idle: must be more than 0",
            "5:36: timeouts.total: must not be negative",
            "6:7: log.level: unknown word 'inof'; did you mean 'info'?;"
            " one of debug, info, warning, error",
            "6:20: log.format: expected text | json, got a list",
            "7:1: keys: expected a mapping, got a list",
            "8:1: routing_rules: expected a mapping, got a list",
            "9:1: default: expected text, got a list",
            "10:1: state: expected memory, sqlite:PATH or redis://..., got 'disk'",
            "11:1: timezone: unknown time zone 'Mars/Olympus'",
            "12:1: admin_key: expected secret, got a list",
        ],
    ),
    "a provider's values": (
        "providers:\n  a:\n    api_format: openai\n    endpoint: http://a/v1\n    weight: -1\n"
        "    priority: high\n    active: maybe\n    stream_mode: sometimes\n    models: 3\n"
        "    headers: [a]\n    override: {set: 3, dro: [x]}\n"
        "    timeouts: {first_event: x, gate: 3}\n"
        "    paths: {opnai: /x}\n    billing_plans: {a: 1}\n    prefix: {a: 1}\n",
        [
            "5:5: providers.a.weight: must be at least 0",
            "6:5: providers.a.priority: expected a number, got 'high'",
            "7:5: providers.a.active: expected true or false, got 'maybe'",
            "8:5: providers.a.stream_mode: unknown word 'sometimes'; one of auto, always, never",
            "9:5: providers.a.models: expected list of names, or mapping to the provider's names,"
            " got '3'",
            "10:5: providers.a.headers: expected a mapping, got a list",
            "11:16: providers.a.override.set: expected a mapping, got a single value",
            "11:24: providers.a.override.dro: unknown key; did you mean 'drop'?",
            f"12:16: providers.a.timeouts.first_event: {SECONDS}, got 'x'",
            "12:32: providers.a.timeouts.gate: unknown key",
            "13:13: providers.a.paths.opnai: unknown dialect; did you mean 'openai'?",
            "14:5: providers.a.billing_plans: expected text, got a mapping",
            "15:5: providers.a.prefix: expected text, got a mapping",
        ],
    ),
    "sizes and times": (
        UP + "server: {max_body: 0, max_header: big, body_timeout: 1d, grace: 0s}\n",
        [
            "3:10: server.max_body: expected a size like 64MB or 64KB, got '0'",
            "3:23: server.max_header: expected a size like 64MB or 64KB, got 'big'",
            f"3:40: server.body_timeout: {SECONDS}, got '1d'",
            "3:58: server.grace: must be more than 0",
        ],
    ),
    "no number": (
        provider("weight: .nan, priority: .inf"),
        [
            "2:50: providers.a.weight: expected a number, got '.nan'",
            "2:64: providers.a.priority: expected a number, got '.inf'",
        ],
    ),
    # References and secrets
    "unset variables": (
        UP + "admin_key: ${NOPE}\nkeys: {k: {key: os.environ/NOPE2}}\n",
        [
            "3:1: admin_key: the environment variable NOPE is not set",
            "4:12: keys.k.key: the environment variable NOPE2 is not set",
        ],
    ),
    "a file that is not there": (
        UP + "admin_key: file:/nope\n",
        ["3:1: admin_key: cannot read file:/nope: No such file or directory"],
    ),
    "a secret of two lines": (
        UP + 'admin_key: "a\\nb"\n',
        ["3:1: admin_key: a secret must be one line of ASCII, without blanks around it"],
    ),
    "a secret with a blank at its end": (
        UP + "admin_key: 'ab '\n",
        ["3:1: admin_key: a secret must be one line of ASCII, without blanks around it"],
    ),
    "a header of two lines": (
        provider('headers: {x: "a\\nb"}'),
        ["2:60: providers.a.headers.x: a header must be one line"],
    ),
    # Keys of callers
    "keys": (
        UP
        + "keys:\n  a: {key: ''}\n  b: {key: 'sha256:12'}\n  c: {}\n  d: {key: x, expires: soon}\n"
        + "  e: {key: x}\n  f: 3\n  g: {key: 'sha256:"
        + "zz" * 32
        + "'}\n",
        [
            "4:7: keys.a.key: must not be empty; `relay key` makes one",
            "5:7: keys.b.key: expected sha256: and 64 hexadecimal digits",
            "6:3: keys.c.key: required",
            "7:15: keys.d.expires: expected a date like 2027-06-30, got 'soon'",
            "8:7: keys.e.key: is the key of 'd' too",
            "9:3: keys.f: expected a mapping (key, models, expires, ...), got a single value",
            "10:7: keys.g.key: expected sha256: and 64 hexadecimal digits",
        ],
    ),
    # Addresses
    "addresses": (
        UP
        + "listen: [0.0.0.0:1, ':1', nope, 'a:99999', 'unix:', '[::]:1', 192.168.1.2:80, '::1']\n",
        [
            "3:10: listen[0]: 0.0.0.0" + OPEN,
            "3:21: listen[1]: every interface" + OPEN,
            "3:27: listen[2]: expected host:port or unix:PATH, got 'nope'",
            "3:33: listen[3]: expected host:port or unix:PATH, got 'a:99999'",
            "3:44: listen[4]: unix: needs a path",
            "3:53: listen[5]: ::" + OPEN,
            "3:63: listen[6]: 192.168.1.2" + OPEN,
            "3:79: listen[7]: expected host:port or unix:PATH, got '::1'",
        ],
    ),
    "an endpoint that is this relay": (
        "listen: ['127.0.0.1:8000', ':9000']\nproviders:\n"
        "  a: {api_format: openai, endpoint: 'http://localhost:8000/v1'}\n"
        "  b: {api_format: openai, endpoint: 'http://127.0.0.1:9000'}\n"
        "  c: {api_format: openai, endpoint: 'http://10.0.0.1:8000'}\n"
        "  d: {preset: vllm}\nallow_anonymous: true\n",
        [
            "3:27: providers.a.endpoint: localhost:8000 is where this relay listens",
            "4:27: providers.b.endpoint: 127.0.0.1:9000 is where this relay listens",
            "6:3: providers.d: 127.0.0.1:8000 is where this relay listens",
        ],
    ),
    "far too deep": ("providers: " + "[" * 3000, ["1:1: nested too deeply"]),
    "far too deep in blocks": ("- " * 3000, ["1:1: nested too deeply"]),
    "no address": (UP + "listen: []\n", ["3:1: listen: at least one address is needed"]),
    # Rules
    "dead rules": (
        UP + "routing_rules: {x: b/m, y: [a, A/m, c]}\ndefault: aa/m\n",
        [
            "3:17: routing_rules.x: target 'b/m': no provider is called 'b'",
            "3:25: routing_rules.y: target 'c': no provider is called 'c'",
            "4:1: default: target 'aa/m': no provider is called 'aa'; did you mean 'a'?",
        ],
    ),
    "rules without a target": (
        UP + "routing_rules: {z: [], u: {to: []}, s: }\n",
        [
            "3:17: routing_rules.z: a rule needs at least one target",
            "3:24: routing_rules.u: a rule needs at least one target",
            "3:37: routing_rules.s: empty value",
        ],
    ),
    "a rule of both shapes": (
        UP + "routing_rules: {v: [a, {to: a}]}\n",
        ["3:17: routing_rules.v: a list is either all targets or all entries with `to`"],
    ),
    "entries that are never reached": (
        UP
        + "routing_rules:\n  w:\n  - {to: a}\n  - {to: a}\n  v:\n"
        + "  - {when: {tokens_over: 9}, to: a}\n"
        + "  - {when: {tokens_over: 10, tools: true}, to: a}\n",
        [
            "6:5: routing_rules.w[1]: never used: entry 1 takes all that this one would",
            "9:5: routing_rules.v[1]: never used: entry 1 takes all that this one would",
        ],
    ),
    "dead rules inside entries": (
        UP
        + "routing_rules:\n  w:\n  - {when: {key: bob}, to: [a, b/x]}\n  - {to: a}\n"
        + "  v: {when: {tokens_over: 20, tokens_under: 21}, to: a}\n",
        [
            "5:5: routing_rules.w[0]: target 'b/x': no provider is called 'b'",
            "5:5: routing_rules.w[0]: when.key 'bob': no key is called so",
            "7:3: routing_rules.v: never used: nothing is over 20 and under 21",
        ],
    ),
    "words of `when`": (
        UP
        + "routing_rules: {v: {when: {image: true, tokens_over: 0, tools: some, header: x},"
        + " to: a}}\n",
        [
            "3:28: routing_rules.v.when.image: unknown key; did you mean 'images'?",
            "3:41: routing_rules.v.when.tokens_over: must be at least 1",
            "3:57: routing_rules.v.when.tools: expected true or false, got 'some'",
            "3:70: routing_rules.v.when.header: expected a mapping, got a single value",
        ],
    ),
    # Providers
    "names": (
        "providers:\n  a: {api_format: openai, endpoint: http://a}\n"
        "  A: {api_format: openai, endpoint: http://a}\n"
        "  b/c: {api_format: openai, endpoint: http://a}\n  'd e': {api_format: openai, endpoint: http://a}\n",
        [
            "3:3: providers.A: another provider has this name but for its case",
            "4:3: providers.b/c: a provider's name cannot hold a slash, a comma or a space",
            "5:3: providers.d e: a provider's name cannot hold a slash, a comma or a space",
        ],
    ),
    "no endpoint": (
        "providers:\n  a: {api_format: openai}\n  b: {}\n  c:\n",
        [
            "2:3: providers.a: needs an `endpoint`, or a `preset` that has one",
            "3:3: providers.b: needs an `endpoint`, or a `preset` that has one",
            "4:3: providers.c: empty value",
        ],
    ),
    "URLs": (
        "providers:\n  a: {api_format: openai, endpoint: a/v1}\n  b: {api_format: openai, endpoint: 'ftp://b'}\n"
        "  c: {api_format: openai, endpoint: 'http://c:99999'}\n  d: {api_format: openai, endpoint: 'http://'}\n"
        "  e: {endpoint: http://b/v1}\n",
        [
            "2:27: providers.a.endpoint: expected a URL with http:// or https://, got 'a/v1'",
            "3:27: providers.b.endpoint: expected a URL with http:// or https://, got 'ftp://b'",
            "4:27: providers.c.endpoint: expected a URL with http:// or https://, got 'http://c:99999'",
            "5:27: providers.d.endpoint: expected a URL with http:// or https://, got 'http://'",
            "6:3: providers.e.api_format: required: say what this URL speaks, "
            + " or ".join(relay.DIALECTS),
        ],
    ),
    "what a URL may not hold": (
        "providers:\n  a: {api_format: openai, endpoint: 'http://u:hunter22@c'}\n"
        "  b: {api_format: openai, endpoint: 'http://c/v1#x'}\n",
        [
            "2:27: providers.a.endpoint: a URL is shown and logged: credentials go into `api_key`",
            "3:27: providers.b.endpoint: expected a URL with http:// or https://,"
            " got 'http://c/v1#x'",
        ],
    ),
    "what nothing would come of": (
        "providers:\n  a: {preset: deepseek, api_key: k, api_format: gemini}\n"
        "  b: {api_format: demo, endpoint: http://c}\n"
        "  c: {preset: ollama, prefix: /q/, headers: {a b: x, Content-Length: 3}}\n"
        "listen: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:1]\nrouting_rules: {x: {wait: 1}}\n",
        [
            "2:37: providers.a.api_format: preset deepseek does not speak gemini;"
            " it speaks openai, anthropic, responses",
            "3:7: providers.b.api_format: demo is embedded: it has no endpoint and nothing"
            " beside it",
            "4:23: providers.c.prefix: goes without the slash: 'q'",
            "4:46: providers.c.headers.a b: not a header's name",
            "4:54: providers.c.headers.Content-Length: is set by relay itself: it frames the"
            " request",
            "5:36: listen[2]: 127.0.0.1:1 is given twice",
            "6:17: routing_rules.x.to: required",
        ],
    ),
    "one key of two": (
        UP
        + "admin_key: sk-one\nkeys:\n  a: {key: sk-one}\n"
        + f"  b: {{key: 'sha256:{hashlib.sha256(b'sk-one').hexdigest()}'}}\n",
        ["3:1: admin_key: is the key of 'a' too", "6:7: keys.b.key: is the key of 'a' too"],
    ),
    "targets that are none": (
        UP + "routing_rules: {x: 'a,m', y: [a/m, 'a/*']}\n",
        [
            "3:17: routing_rules.x: target 'a,m': no provider is called 'a,m'; write 'a/m'",
            "3:27: routing_rules.y: target 'a/*': a target is one model; 'a' alone keeps the name"
            " that was asked for",
        ],
    ),
    "a path that is never used": (
        provider("paths: {anthropic: /x}"),
        ["2:58: providers.a.paths.anthropic: is not spoken here; openai is"],
    ),
    "references that are none": (
        "providers:\n  a: {preset: zai, api_key: $ZAI_API_KEY}\n"
        "  b: {preset: zai, api_key: '${ZAI_API_KEY'}\n  c: {preset: zai, api_key: '${2}'}\n"
        "  d: {preset: zai, api_key: '${A:-${2}}'}\n",
        [
            "2:20: providers.a.api_key: write ${ZAI_API_KEY} for that variable; a dollar is $$",
            *(
                f"{line}:20: providers.{name}.api_key: malformed reference: write ${{NAME}},"
                " ${NAME:-default}, or $$ for a dollar"
                for line, name in ((3, "b"), (4, "c"), (5, "d"))
            ),
        ],
    ),
    "a store that is none": (
        UP + "state: redis://:hunter22@h:port/0\n",
        ["3:1: state: expected redis://[USER:PASSWORD@]HOST:PORT/NUMBER"],
    ),
    "a key where its mapping should be": (
        UP + "keys: {alice: sk-hunter22}\n",
        [
            "3:8: keys.alice: expected a mapping (key, models, expires, ...), got a single value",
        ],
    ),
    "dialects": (
        "providers:\n  d: {api_format: openapi, endpoint: http://c}\n"
        "  e: {endpoint: {opnai: http://x, gemini: http://y}}\n",
        [
            "2:7: providers.d.api_format: unknown dialect 'openapi'; did you mean 'openai'?",
            "3:7: providers.e.endpoint: unknown dialect 'opnai'; did you mean 'openai'?",
        ],
    ),
    "presets": (
        "providers:\n  a: {preset: deepsek, api_key: x}\n  b: {preset: deepseek}\n"
        "  c: {preset: azure, api_key: x}\n",
        [
            "2:7: providers.a.preset: unknown preset 'deepsek'; did you mean 'deepseek'?",
            "3:3: providers.b.api_key: required by this preset, e.g. ${DEEPSEEK_API_KEY}",
            "4:3: providers.c: preset azure needs an `endpoint`: it differs per account",
        ],
    ),
    "billing plans": (
        "providers:\n  a: {preset: bigmodel, api_key: x, billing_plans: [codng]}\n"
        "  b: {api_format: openai, endpoints: {coding: http://a, regular: http://b}, api_key: x}\n"
        "  c: {preset: bigmodel, api_key: {regular: x}}\n"
        "  e: {api_format: openai, endpoint: http://a, endpoints: {x: http://b}}\n",
        [
            "2:37: providers.a.billing_plans: no endpoint for plan 'codng'; did you mean 'coding'?",
            "3:3: providers.b.billing_plans: say which of coding, regular to use, in order",
            "4:25: providers.c.api_key: no credential for plan 'coding'",
            "5:47: providers.e.endpoints: give either `endpoint` or `endpoints`",
        ],
    ),
    "a credential for no plan": (
        "providers:\n  d: {preset: bigmodel, api_key: {coding: x, regulr: y}}\n",
        ["2:46: providers.d.api_key.regulr: no plan is called 'regulr'; did you mean 'regular'?"],
    ),
    "models": (
        provider("models: {x: 'gpt-*', y: {name: z, context: -1, contxt: 3}}"),
        [
            "2:59: providers.a.models.x: 'gpt-*': a provider's name cannot be a glob",
            "2:84: providers.a.models.y.context: must be at least 1",
            "2:97: providers.a.models.y.contxt: unknown key; did you mean 'context'?",
        ],
    ),
    "texts where something else is expected": (
        provider("weight: '1', active: 'no', api_key: {command: ''}")
        + "keys: {k: {key: x, limits: {rpm: '8'}}}\n",
        [
            "2:50: providers.a.weight: expected a number, got '1' in quotes",
            "2:63: providers.a.active: expected true or false, got 'no' in quotes",
            "2:87: providers.a.api_key.command: expected a program and its arguments, got ''",
            "3:29: keys.k.limits.rpm: expected a whole number, got '8' in quotes",
        ],
    ),
    "YAML of other programs": (
        UP + "? [a, b]\n: c\nadmin_key: !vault x\ndefault: !!python/name:os.getpid a\n",
        [
            "3:3: a key must be text",
            "5:12: admin_key: unknown tag !vault",
            "6:10: default: unknown tag tag:yaml.org,2002:python/name:os.getpid",
        ],
    ),
    "nothing where something has to be": (
        "providers:\n  '': {api_format: demo}\n  a: {api_format: demo, models: [x, ~]}\n"
        "keys: {'': {key: x}}\nlisten: [~, 127.0.0.1:1]\nrouting_rules: {x: [a, ~]}\n",
        [
            "2:3: providers.: empty name",
            "3:37: providers.a.models[1]: empty value",
            "4:8: keys.: empty name",
            "5:10: listen[0]: empty value",
            "6:24: routing_rules.x[1]: empty value",
        ],
    ),
    "words of other programs": (
        UP
        + "model_list: []\nrouter: {}\n  \nlog_level: debug\n"
        + "routing_rules: {x: a, y: b/m}\n",
        [
            "3:1: model_list: unknown key; did you mean 'providers'?",
            "4:1: router: unknown key; did you mean 'routing_rules'?",
            "6:1: log_level: unknown key; did you mean 'log'?",
            "7:23: routing_rules.y: target 'b/m': no provider is called 'b'",
        ],
    ),
    "words of other programs in a provider": (
        "providers:\n  a: {type: openai, base_url: http://a, disabled: true, plans: coding}\n"
        "  b: {preset: kimi, api_key: x}\n  c: {api_format: claude, endpoint: http://a}\n",
        [
            "2:3: providers.a: needs an `endpoint`, or a `preset` that has one",
            "2:7: providers.a.type: unknown key; did you mean 'api_format'?",
            "2:21: providers.a.base_url: unknown key; did you mean 'endpoint'?",
            "2:41: providers.a.disabled: unknown key; did you mean 'active'?",
            "2:57: providers.a.plans: unknown key; did you mean 'billing_plans'?",
            "3:7: providers.b.preset: unknown preset 'kimi'; did you mean 'moonshot'?",
            "4:7: providers.c.api_format: unknown dialect 'claude'; did you mean 'anthropic'?",
        ],
    ),
    "hashes of keys": (
        UP + f"keys: {{a: {{key: 'sha256:{'ab' * 32}'}}, b: {{key: 'sha256: {'ab' * 32}'}},"
        " c: {key: 'SHA256:ab'}}\n",
        [
            "3:97: keys.b.key: expected sha256: and 64 hexadecimal digits",
            "3:183: keys.c.key: expected sha256: and 64 hexadecimal digits",
        ],
    ),
    "pages": (
        UP + "keys: {k: {key: x}}\ncors: {origins: [https://a, b, 'https://*.c']}\n",
        [
            "4:29: cors.origins[1]: expected an origin like https://app.example, got 'b'",
            "4:32: cors.origins[2]: expected an origin like https://app.example, got 'https://*.c'",
        ],
    ),
    "what would be asked at no address": (
        provider("paths: {openai: 'http://b/x'}")
        + "  b: {api_format: openai, endpoint: 'http://a/{deployment}/chat'}\n"
        "  c: {api_format: openai, endpoint: 'http://a', paths: {openai: '/{modle}'}}\n"
        "  d: {api_format: [openai, gemini], endpoint: {openai: 'http://a'}}\n"
        "  e: {preset: zai, api_key: x, billing_plans: [coding, coding]}\n",
        [
            "2:58: providers.a.paths.openai: expected what follows host and port, like /v2/chat,"
            " got 'http://b/x'",
            "3:27: providers.b.endpoint: only {model} is filled in,"
            " got 'http://a/{deployment}/chat'",
            "4:57: providers.c.paths.openai: only {model} is filled in, got '/{modle}'",
            "5:7: providers.d.api_format: no endpoint is given for gemini",
            "6:32: providers.e.billing_plans: coding is given twice",
        ],
    ),
    "an inactive provider": (
        "providers:\n  a: {preset: deepseek, api_key: '${NOPE}', active: false, wieght: 1}\n"
        "  c: {api_format: openai, endpoint: http://c}\n",
        ["2:60: providers.a.wieght: unknown key; did you mean 'weight'?"],
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_everything_wrong_is_said_with_its_place(name: str) -> None:
    text, problems = PROBLEMS[name]
    assert problems_of(text) == [f"config.yaml:{problem}" for problem in problems]


GOOD: dict[str, str] = {
    "an own endpoint": UP,
    "a preset and a key": "providers: {deepseek: {preset: deepseek, api_key: k}}\n",
    "an alias of a preset": "providers: {g: {preset: glm-coding, api_key: k}}\n",
    "the demo": "providers: {demo: {api_format: demo}}\n",
    "an inactive provider without its secrets": UP
    + "  b: {preset: deepseek, api_key: '${NOPE}', active: false}\n"
    + "  c: {preset: deepseek, api_key: 'file:/nope', active: no}\n",
    "a rule to an inactive provider": UP
    + "  b: {preset: deepseek, api_key: x, active: false}\nrouting_rules: {x: b/m}\n",
    "keys let others in": UP + "listen: 0.0.0.0:80\nkeys: {k: {key: secret}}\n",
    "on your own head": UP + "listen: 0.0.0.0:80\nallow_anonymous: true\n",
    "addresses": UP
    + "listen: [127.0.0.1:1, '[::1]:1', localhost:1, 127.0.0.2:1, 'unix:/run/x', '127.0.0.1:0']\n",
    "a merge key that is overridden": "providers:\n"
    "  a: &a {api_format: openai, endpoint: http://a, weight: 1}\n  b: {<<: *a, weight: 2}\n",
    "an anchor used twice": "providers:\n"
    "  a: &a {api_format: openai, endpoint: http://a}\n  b: *a\n",
    "a local server": "providers: {v: {preset: vllm, models: [x]}}\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_has_no_problem(name: str) -> None:
    assert problems_of(GOOD[name]) == []


needs_libyaml = pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML without libyaml")


@needs_libyaml
@pytest.mark.parametrize("name", PROBLEMS)
def test_without_libyaml_a_file_is_read_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# ünï 😀: \u4e2d\r\n" + PROBLEMS[name][0]
    problems = problems_of(text)
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert problems_of(text) == problems


@needs_libyaml
@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_read_by_libyaml(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own scanner takes ten times as long, and relay answers nobody meanwhile."""

    def scanned(scanner: object) -> None:
        raise AssertionError("PyYAML's own scanner reads the file")

    monkeypatch.setattr(yaml.scanner.Scanner, "fetch_more_tokens", scanned)
    assert problems_of(GOOD[name]) == []


# How each kind of value is read


def value(
    text: str, env: dict[str, str] | None = None, secrets: dict[str, str] | None = None
) -> Any:
    """`admin_key`, a secret and so any text."""
    return plan_of(f"{UP}admin_key: {text}\n", env, secrets).config.admin_key


REFERENCES = [
    ("${A}", {"A": "x"}, "x"),
    ("pre-${A}-post", {"A": "x"}, "pre-x-post"),
    ("${A}${B}", {"A": "x", "B": "y"}, "xy"),
    ("${A:-d}", {}, "d"),
    ("${A:-d}", {"A": ""}, "d"),
    ("${A:-}", {}, ""),
    ("${A:-a b}", {}, "a b"),
    ("os.environ/A", {"A": "x"}, "x"),
    ("$$A", {"A": "x"}, "$A"),
    ("$${A}", {"A": "x"}, "${A}"),
    ("$a", {"a": "x"}, "$a"),
    ("A$A", {"A": "x"}, "A$A"),
    ("'5$'", {}, "5$"),
    ("${A}", {"A": "${B}", "B": "y"}, "${B}"),
    ("'${A}'", {"A": "yes"}, "yes"),
    ("12345", {}, "12345"),
    ("0123", {}, "0123"),
    ("1e5", {}, "1e5"),
    ("yes", {}, "yes"),
    ("2024-01-01", {}, "2024-01-01"),
    ("12:30:45", {}, "12:30:45"),
]


@pytest.mark.parametrize(("text", "env", "read"), REFERENCES)
def test_references_are_filled_in_and_texts_stay_texts(
    text: str, env: dict[str, str], read: str
) -> None:
    assert value(text, env) == read


def test_a_secret_may_stand_in_a_file() -> None:
    assert value("file:/run/k", secrets={"/run/k": "secret\n"}) == "secret"
    assert value("file:${D}/k", {"D": "/run"}, {"/run/k": "secret"}) == "secret"


def test_a_tag_makes_text_of_a_number() -> None:
    fields = plan_of(provider("override: {set: {a: !!str 5, b: 5, c: '5'}}")).providers["a"]
    assert fields.config.override.set == {"a": "5", "b": 5, "c": "5"}


def test_an_empty_credential_beside_others_is_none() -> None:
    plan = plan_of(provider("api_key: ['${ONE:-}', two, '${THREE:-}']")).providers["a"].plans[0]
    assert [credential.secret for credential in plan.credentials] == ["two"]


def test_a_reference_may_be_a_number_or_a_flag() -> None:
    text = provider("weight: '${W}', active: '${ON}'") + "server: {max_body: '${SIZE}'}\n"
    plan = plan_of(text, {"W": "3", "ON": "true", "SIZE": "2MB"})
    config = plan.config
    assert config.providers["a"].weight == 3
    assert config.providers["a"].active is True
    assert config.server.max_body == 2 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64 << 20),
        ("64 mb", 64 << 20),
        ("1g", 1 << 30),
        ("10KiB", 10 << 10),
        ("1000", 1000),
        ("5B", 5),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert plan_of(f"{UP}server: {{max_body: {text}}}\n").config.server.max_body == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0.5", 0.5), ("5s", 5), ("250ms", 0.25), ("2m", 120), ("1.5h", 5400), ("10 s", 10)],
)
def test_times(text: str, seconds: float) -> None:
    assert plan_of(f"{UP}timeouts: {{idle: {text}}}\n").config.timeouts.idle == pytest.approx(
        seconds
    )


@pytest.mark.parametrize("text", ["true", "yes", "on", "True"])
def test_flags_are_yamls(text: str) -> None:
    assert plan_of(f"{UP}allow_anonymous: {text}\n").config.allow_anonymous is True


EXPIRES = [
    ("2027-06-30", "2027-06-30T23:59:59+08:00", True),
    ("2027-06-30", "2027-07-01T00:00:01+08:00", False),
    ("'2027-06-30'", "2027-06-30T23:59:59+08:00", True),
    ("2027-06-30T12:00:00", "2027-06-30T11:59:59+08:00", True),
    ("'2027-06-30T12:00:00Z'", "2027-06-30T12:00:01Z", False),
    ("'2027-06-30T12:00:00Z'", "2027-06-30T11:59:59Z", True),
    ("2027-06-30T12:00:00", "2027-06-30T12:00:01+08:00", False),
    ("2027-06-30T12:00:00Z", "2027-06-30T19:59:59+08:00", True),
    ("2027-06-30T12:00:00Z", "2027-06-30T20:00:01+08:00", False),
]


@pytest.mark.parametrize(("expires", "moment", "good"), EXPIRES)
def test_a_key_is_good_to_the_end_of_its_last_day(expires: str, moment: str, good: bool) -> None:
    plan = plan_of(
        f"{UP}timezone: Asia/Shanghai\nkeys: {{k: {{key: secret, expires: {expires}}}}}\n"
    )
    now = datetime.datetime.fromisoformat(moment).timestamp()
    assert (plan.caller(["secret"], now) is not None) is good


MODELS: list[tuple[str, dict[str, str | None]]] = [
    ("[x, Y/z, 1.5, on]", {"x": "x", "Y/z": "Y/z", "1.5": "1.5", "on": "on"}),
    ("[gpt-*]", {"gpt-*": None}),
    ("{a: b}", {"a": "b"}),
    ("{a: {name: b, context: 10, output: 5}}", {"a": "b"}),
    ("{a: {context: 10}}", {"a": None}),
    ("{claude-*: qwen}", {"claude-*": "qwen"}),
    ("{a: }", {"a": None}),
    ("{}", {}),
    ("[]", {}),
]


@pytest.mark.parametrize(("text", "models"), MODELS)
def test_models_are_names_or_a_mapping(text: str, models: dict[str, str | None]) -> None:
    config = plan_of(provider(f"models: {text}")).config.providers["a"]
    assert {name: model.name for name, model in (config.models or {}).items()} == models


RULES = [
    ("a/m", ("a/m",)),
    ("[a/m, a]", ("a/m", "a")),
    ("{to: a}", ("a",)),
    ("{to: [a, a/m], balance: order}", ("a", "a/m")),
    ("[{to: [a, a/m]}]", ("a", "a/m")),
]


@pytest.mark.parametrize(("text", "to"), RULES)
def test_rules_in_every_shape(text: str, to: tuple[str, ...]) -> None:
    plan = plan_of(f"{UP}routing_rules: {{x: {text}}}\n")
    assert plan.config.routing_rules["x"][0].to == to


def test_null_removes_a_header_and_is_nothing_elsewhere() -> None:
    config = plan_of(provider("headers: {User-Agent: x, X-Y: null}, prefix: null, models: null"))
    entry = config.config.providers["a"]
    assert entry.headers == {"User-Agent": "x", "X-Y": None}
    assert (entry.prefix, entry.models) == ("", None)


def test_override_takes_any_json() -> None:
    text = provider(
        "override: {set: {a: {b: [1, 2.5, true, null, x]}}, default: {c: '${N}'}, drop: d}"
    )
    override = plan_of(text, {"N": "7"}).config.providers["a"].override
    assert override.set == {"a": {"b": [1, 2.5, True, None, "x"]}}
    assert override.default == {"c": 7}
    assert override.drop == ("d",)


def test_what_is_not_said_has_its_default() -> None:
    config = plan_of(UP).config
    assert config.listen == ("127.0.0.1:8484",)
    assert (config.server.max_body, config.server.max_header) == (64 << 20, 64 << 10)
    assert (config.server.body_timeout, config.server.grace) == (60, 30)
    assert dataclasses.asdict(config.timeouts) == {
        "connect": 10,
        "first_event": 120,
        "idle": 180,
        "total": 3600,
        "gate": 30,
    }
    assert (config.allow_anonymous, config.state, config.admin_key) == (False, "", "")
    entry = config.providers["a"]
    assert (entry.weight, entry.priority, entry.active, entry.stream_mode) == (1, 0, True, "")
    assert config.stream_mode == "auto"


# Reference and schema


def test_the_reference_names_every_key_with_a_sentence() -> None:
    rows = list(relay.reference())
    keys = [key for key, *_ in rows]
    assert len(keys) == len(set(keys))
    for key, _, _, doc in rows:
        assert doc.endswith("."), key
    for key in (
        "listen",
        "server.max_body",
        "keys.*.key",
        "providers.*.endpoint",
        "providers.*.models.*.context",
        "routing_rules.*.to",
        "providers.*.timeouts.idle",
    ):
        assert key in keys


def test_every_key_of_every_table_is_in_the_reference() -> None:
    keys = {key.rpartition(".")[2] for key, *_ in relay.reference()}
    for cls in (relay.Config, relay.ProviderConfig, relay.KeyConfig, relay.RuleConfig):
        assert {field.name for field in dataclasses.fields(cls)} <= keys


def as_json(text: str) -> Any:
    """A YAML file as an editor's schema check sees it."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(relay.json_schema())


@pytest.mark.parametrize("name", [n for n in GOOD if "merge" not in n])
def test_the_schema_admits_what_is_right(name: str) -> None:
    jsonschema.Draft202012Validator(relay.json_schema()).validate(as_json(GOOD[name]))


@pytest.mark.parametrize(
    "text",
    [
        UP + "listn: x\n",
        provider("endpont: x"),
        "listen: x\n",
        provider("weight: -1"),
        provider("active: maybe"),
        UP + "log: {level: loud}\n",
        UP + "keys: {k: {}}\n",
        UP + "tls: {certificate: x}\n",
        UP + "routing_rules: {x: {too: a}}\n",
    ],
)
def test_the_schema_refuses_what_is_wrong(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(relay.json_schema()).validate(as_json(text))


def test_a_broken_file_still_gives_a_config_to_go_on_with() -> None:
    """So that all problems are found in one go."""
    notes = reading()
    config = relay.read_config("providers: [\n", notes)
    assert config == relay.Config()
    assert len(notes.problems()) == 1


# errors: of a provider

ERRORS = """
providers:
  a:
    preset: deepseek
    api_key: k
    errors:
      - {status: [429, 503], pattern: "queue is full", class: overloaded}
      - {code: ["quota_*"], class: plan_exhausted, scope: credential+model, reset: midnight+8}
      - {status: 402, class: rate_limited}
default: a/m
"""

JUDGED: list[tuple[int, relay.JSON, str, str]] = [
    (429, {"message": "The queue is FULL."}, "overloaded", "provider+model"),
    (429, {"message": "too many"}, "rate_limited", "credential"),
    (500, {"message": "queue is full"}, "transient", "provider+model"),
    (400, {"code": "quota_used", "message": ""}, "plan_exhausted", "credential+model"),
    (402, {"message": "Insufficient Balance"}, "rate_limited", "credential"),
    (401, {"message": "no"}, "auth", "credential"),
]


@pytest.mark.parametrize(("status", "said", "failure", "scope"), JUDGED)
def test_errors_of_a_provider_come_before_the_presets(
    status: int, said: relay.JSON, failure: str, scope: str
) -> None:
    rules = plan_of(ERRORS).providers["a"].rules
    body = relay.dumps({"error": said})
    verdict = relay.classify_error(rules, status, relay.error_in(body), {}, now=1_800_000_000)
    assert (verdict.failure, verdict.scope) == (failure, scope)
    if failure == "plan_exhausted":
        assert verdict.until is not None
        assert verdict.until <= 86400


WRONG_ERRORS = [
    ("{status: 429}", "class: required"),
    ("{class: overloaded}", "needs a status, code, type or pattern to go by"),
    ("{status: 429, class: overload}", "did you mean 'overloaded'?"),
    ("{status: 429, class: overloaded, scope: provider}", "did you mean 'provider+model'?"),
    ("{status: x, class: overloaded}", "expected a whole number"),
    ("{pattern: '(', class: overloaded}", "expected a regular expression"),
    ("{code: a, class: plan_exhausted, reset: monday}", "did you mean 'monday+8'?"),
    ("{code: a, clas: plan_exhausted}", "unknown key; did you mean 'class'?"),
    ("overloaded", "expected a mapping (status, code, type, ...), got a single value"),
]


@pytest.mark.parametrize(("row", "said"), WRONG_ERRORS)
def test_a_wrong_row_of_errors_is_explained(row: str, said: str) -> None:
    problems = problems_of(f"providers: {{a: {{preset: deepseek, api_key: k, errors: [{row}]}}}}")
    assert [problem for problem in problems if said in problem], problems
    assert all("providers.a.errors" in problem for problem in problems)


def test_the_receipt_names_what_changed_in_a_table() -> None:
    before, after = (
        plan_of(f"{top}\nproviders: {{a: {{preset: deepseek, api_key: k}}}}").config
        for top in ("timeouts: {idle: 5}", "timeouts: {idle: 6}\ndefault: a/m")
    )
    assert relay.changes(before, after) == ["default: changed", "timeouts: changed (idle)"]


def test_a_whole_answer_may_be_silent_for_as_long_as_a_stream_before_and_within() -> None:
    assert relay.TimeoutConfig().whole == 300


def test_a_presets_dialects_can_be_fewer() -> None:
    plan = plan_of("providers: {d: {preset: deepseek, api_key: k, api_format: [openai]}}")
    assert [list(billing.endpoints) for billing in plan.providers["d"].plans] == [["openai"]]


def test_what_headers_and_queries_carry_is_secret() -> None:
    plan = plan_of(
        "providers: {a: {api_format: openai, endpoint: 'http://a/v1?api-key=in-query&v=2026',"
        " headers: {Authorization: Bearer in-header, X-Team: research, X-Auth: none}}}"
    )
    said = "in-query in-header Bearer in-header research 2026 none"
    assert plan.redacted(said) == "[secret] [secret] [secret] research 2026 none"
