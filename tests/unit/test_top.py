"""What `relay top` shows in so much room."""

from typing import Any

import relay


def record(**more: Any) -> dict[str, Any]:
    known = {"id": "1", "code": "OK", "path": "/v1/messages", "client": "codex_cli_rs"}
    return known | {"key": "alice", "model": "m", "target": "first/m", "ms": 2000} | more


def shown(width: int, *records: dict[str, Any]) -> str:
    top = relay.Top()
    for each in records:
        top.take("request", each)
    lines = top.lines(width, 24)
    assert all(len(line) <= width for line in lines)
    return "\n".join(lines)


def test_the_client_is_the_first_to_go_where_room_is_short() -> None:
    assert "codex_cli_rs" in shown(200, record())
    narrow = shown(60, record(target="first/" + "m" * 20))
    assert "client" not in narrow
    assert "codex" not in narrow
    assert all(name in narrow for name in ("key", "alice", "target", "m" * 20))


def test_what_an_admin_was_refused_is_no_request() -> None:
    refused = record(code="BR", path="/admin/abandon", model=None, target=None)
    assert "BR" not in shown(200, record(), refused)
