"""Errors: one tree, and what each of them tells a client."""

import inspect
import re
from collections.abc import Iterator

import pytest

import relay

SOURCE = inspect.getsource(relay)


def drawing() -> dict[str, tuple[str, str]]:
    """Class -> parent and status, as section 1 draws them."""
    section = SOURCE.split("# ==== 1. Errors")[1].split("class RelayError")[0]
    rows = re.findall(r"^#( {4,})([A-Z]\w+) *(\d{3}|-|\.\.\.)?", section, re.MULTILINE)
    above: list[tuple[int, str]] = []
    tree = {}
    for indent, name, status in rows:
        above = [step for step in above if step[0] < len(indent)]
        tree[name] = (above[-1][1] if above else "Exception", status)
        above.append((len(indent), name))
    return tree


def family(cls: type) -> Iterator[type]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


def test_the_drawing_is_the_class_tree() -> None:
    tree = {cls.__name__: cls.__bases__[0].__name__ for cls in family(relay.RelayError)}
    assert {name: parent for name, (parent, _) in drawing().items()} == tree


def test_the_drawing_says_the_status() -> None:
    for name, (_, status) in drawing().items():
        if status.isdigit():
            assert getattr(relay, name).status == int(status), name


@pytest.mark.parametrize("cls", [c for c in family(relay.RelayError) if c.status < 500])
def test_what_the_client_did_wrong_is_not_worth_trying_again(cls: type[relay.RelayError]) -> None:
    assert cls.retry is (cls in (relay.TooSlow, relay.LimitExceeded))


def test_a_config_error_says_all_its_problems() -> None:
    error = relay.ConfigError("a:1:1: x", "a:2:1: y")
    assert str(error) == "a:1:1: x\na:2:1: y"
    assert error.problems == ("a:1:1: x", "a:2:1: y")


def test_an_instance_may_say_more_than_its_class() -> None:
    error = relay.NoTarget("all", status=429, kind="rate_limit", retry=False, retry_after=3.0)
    assert (error.status, error.kind, error.retry, error.retry_after) == (
        429,
        "rate_limit",
        False,
        3,
    )
    assert (relay.NoTarget.status, relay.NoTarget("x").retry_after) == (503, None)


# The classes of an upstream's failure: PROVIDERS.md 0.2 and DESIGN.md 5

TOLD = {
    "plan_exhausted": (429, "rate_limit", True),
    "plan_expired": (502, "billing", False),
    "balance_empty": (502, "billing", False),
    "rate_limited": (429, "rate_limit", True),
    "overloaded": (503, "overloaded", True),
    "auth": (502, "upstream", False),
    "client_rejected": (502, "upstream", False),
    "model_missing": (502, "upstream", False),
    "transient": (502, "upstream", True),
    "timeout": (504, "timeout", True),
    "moderation": (400, "bad_request", False),
    "too_long": (400, "context_length", False),
    "reasoning_refused": (400, "bad_request", False),
    "bad_request": (400, "bad_request", False),
    "disabled": (503, "unavailable", True),
}


def test_every_class_is_told_as_the_contract_says() -> None:
    assert TOLD.keys() == relay.FAILURES.keys()
    for name, expected in TOLD.items():
        error = relay.UpstreamError(name, "x")
        assert (error.status, error.kind, error.retry) == expected, name


def test_only_a_plan_that_is_used_up_or_over_opens_the_next() -> None:
    opening = {name for name, row in relay.FAILURES.items() if row.opens_next_plan}
    assert opening == {"plan_exhausted", "plan_expired"}


def test_what_is_the_requests_own_fault_marks_nobody() -> None:
    unmarked = {name for name, row in relay.FAILURES.items() if row.scope == "request"}
    assert unmarked == {
        "client_rejected",
        "moderation",
        "too_long",
        "reasoning_refused",
        "bad_request",
        "disabled",
    }
    assert {name for name, row in relay.FAILURES.items() if row.cool == 0} == unmarked


def test_another_target_may_do_better_unless_the_request_is_wrong() -> None:
    staying = {name for name, row in relay.FAILURES.items() if not row.failover}
    assert staying == {"moderation", "bad_request"}


@pytest.mark.parametrize(
    ("status", "told"), [(400, 400), (413, 413), (422, 422), (500, 400), (0, 400)]
)
def test_a_wrong_request_keeps_the_providers_status(status: int, told: int) -> None:
    """DESIGN.md 5: 400, 413, 422 as they are."""
    for name in relay.OF_THE_REQUEST:
        assert relay.UpstreamError(name, "x", upstream_status=status).status == told


def test_a_scope_of_its_own_outranks_the_classs() -> None:
    error = relay.UpstreamError("plan_exhausted", "x", scope="credential+model")
    assert error.scope == "credential+model"
    assert relay.UpstreamError("plan_exhausted", "x").scope == "credential"


# In the dialects' words

KINDS = sorted({e.kind for e in family(relay.RelayError)} | {k for _, k, _ in TOLD.values()})


@pytest.mark.parametrize("kind", [*KINDS, "budget", "too_large", "context_length"])
@pytest.mark.parametrize("dialect", relay.DIALECTS)
def test_every_dialect_renders_every_kind(dialect: str, kind: str) -> None:
    spoken = relay.DIALECTS[dialect]
    wire = spoken.render_error(relay.RelayError("what happened", kind=kind), "req_1")
    assert "what happened" in relay.dumps(wire).decode()
    said = relay.failure_in(wire)
    assert said
    assert said.type
    error = relay.RelayError("what happened", kind=kind)
    event = spoken.encoder(relay.AnswerContext("", "req_1")).failed(error)
    assert event.endswith(b"\n\n")
    said = relay.loads(relay.SSEDecoder().feed(event)[0].data)
    assert said == wire or relay.failure_in(said["response"])


ANTHROPIC_TYPES = {
    "bad_request": "invalid_request_error",
    "auth": "authentication_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "timeout": "timeout_error",
    "overloaded": "overloaded_error",
    "server": "api_error",
    "upstream": "api_error",
}


@pytest.mark.parametrize(("kind", "type"), ANTHROPIC_TYPES.items())
def test_anthropic_knows_its_error_types(kind: str, type: str) -> None:
    wire = relay.ANTHROPIC.render_error(relay.RelayError("x", kind=kind), "req_1")
    assert wire == {
        "type": "error",
        "error": {"type": type, "message": "x"},
        "request_id": "req_1",
    }


CHAT_CODES = {
    "context_length": "context_length_exceeded",
    "auth": "invalid_api_key",
    "budget": "insufficient_quota",
    "model_not_found": "model_not_found",
    "rate_limit": "rate_limit_exceeded",
    "server": None,
}


@pytest.mark.parametrize(("kind", "code"), CHAT_CODES.items())
def test_chat_knows_its_error_codes(kind: str, code: str | None) -> None:
    error = relay.CHAT.render_error(relay.RelayError("x", kind=kind), "req_1")["error"]
    full = "Maximum context length exceeded, prompt is too long: x"
    message = full if kind == "context_length" else "x"
    assert (error["message"], error["code"], error["param"]) == (message, code, None)


def test_overload_is_a_529_to_anthropics_clients_and_a_503_to_others() -> None:
    busy = relay.UpstreamError("overloaded", "x")
    assert (relay.ANTHROPIC.status(busy), relay.CHAT.status(busy)) == (529, 503)
    down = relay.NoTarget("x")
    assert {d.status(down) for d in relay.DIALECTS.values()} == {503}
