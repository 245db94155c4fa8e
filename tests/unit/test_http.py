"""A provider's reply, byte by byte: what is taken, what is refused."""

import pytest

import relay

LOST = "broke off its answer (socket hang up)"
OK = b"HTTP/1.1 200 OK\r\n"


def decoded(*blocks: bytes, closed: bool = False) -> tuple[relay.ReplyDecoder, bytes]:
    decoder = relay.ReplyDecoder()
    body = b"".join([decoder.feed(block) for block in blocks])
    if closed:
        decoder.eof()
    return decoder, body


TAKEN = {
    "a length": (b"Content-Length: 2\r\n\r\nhi", b"hi", True),
    "a length said twice alike": (
        b"Content-Length: 2, 2\r\nContent-Length: 2\r\n\r\nhi",
        b"hi",
        True,
    ),
    "nothing": (b"Content-Length: 0\r\n\r\n", b"", True),
    "chunks": (
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;a=b\r\n!\r\n0\r\n\r\n",
        b"hi!",
        True,
    ),
    "padded sizes": (b"Transfer-Encoding: chunked\r\n\r\n002  \r\nhi\r\n00\r\n\r\n", b"hi", True),
    "trailers": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n", b"hi", True),
    "a close": (b"\r\nhi", b"hi", False),
    "a close that was announced": (
        b"Content-Length: 2\r\nConnection: x, Close\r\n\r\nhi",
        b"hi",
        False,
    ),
    "lines that end in LF": (b"a: b\nContent-Length: 2\n\nhi", b"hi", True),
    "a value that goes on": (b"a: b\r\n c\r\nContent-Length:\r\n 2\r\n\r\nhi", b"hi", True),
}


@pytest.mark.parametrize(("rest", "said", "kept"), TAKEN.values(), ids=TAKEN)
def test_it_is_taken(rest: bytes, said: bytes, kept: bool) -> None:
    decoder, body = decoded(OK + rest, closed=not kept)
    assert (body, decoder.ended, decoder.reusable, decoder.fault) == (said, True, kept, "")


REFUSED = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "two lengths in a line": b"Content-Length: 2, 3\r\n\r\nhi",
    "an empty length": b"Content-Length:\r\n\r\nhi",
    "a signed length": b"Content-Length: +2\r\n\r\nhi",
    "a negative length": b"Content-Length: -2\r\n\r\nhi",
    "a hexadecimal length": b"Content-Length: 0x2\r\n\r\nhi",
    "a length in other digits": "Content-Length: \N{ARABIC-INDIC DIGIT TWO}\r\n\r\nhi".encode(),
    "a length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding beside chunks": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"Transfer-Encoding: identity\r\n\r\nhi",
    "almost chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a header without a colon": b"hello\r\n\r\n",
    "a header without a name": b": hello\r\n\r\n",
    "a fold before any header": b" a: b\r\n\r\n",
    "a bare CR": b"a: b\rTransfer-Encoding: chunked\r\n\r\n",
    "a NUL": b"a: b\0\r\n\r\n",
    "a size that is none": b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhi",
    "a size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n",
    "a size with a prefix": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n",
    "a size of too many digits": b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 16 + b"\r\nhi\r\n",
    "a size line that ends in LF": b"Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
    "an extension over two lines": b"Transfer-Encoding: chunked\r\n\r\n2;a\n;b\r\nhi\r\n0\r\n\r\n",
    "an extension without an end": b"Transfer-Encoding: chunked\r\n\r\n2;" + b"a" * 5000,
    "a chunk longer than it said": b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
    "trailers without an end": b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20_000,
    "too many headers": b"a: b\r\n" * 20_000,
    "a line without an end": b"a: " + b"b" * 70_000,
}


@pytest.mark.parametrize("rest", REFUSED.values(), ids=REFUSED)
def test_it_is_refused(rest: bytes) -> None:
    for blocks in ([OK + rest], [OK, rest], [OK + rest[:9], rest[9:]]):
        decoder, _ = decoded(*blocks)
        assert decoder.fault
        assert not decoder.ended
        assert not decoder.reusable


@pytest.mark.parametrize(
    "start",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"<html>",
        b"\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17,
    ],
)
def test_what_is_no_answer_is_noticed_at_once(start: bytes) -> None:
    assert decoded(start)[0].fault


def test_what_was_for_one_connection_only_is_left_out() -> None:
    """What says how to read the body stays, whatever `Connection` names (RFC 9110 7.6.1)."""
    fields = b"Connection: X-A, content-type\r\nX-a: 1\r\nX-A: 2\r\nContent-Type: x/y\r\nX-B: 3\r\n"
    decoder, _ = decoded(OK + fields + b"connection: Content-Length\r\nContent-Length: 0\r\n\r\n")
    assert decoder.head is not None
    left = {name.lower() for name in decoder.head.headers}
    assert left == {"connection", "content-type", "content-length", "x-b"}


def test_interim_heads_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    decoder, body = decoded(interim + OK + b"Content-Length: 2\r\n\r\nhi")
    assert decoder.head is not None
    assert (decoder.head.status, body, decoder.reusable) == (200, b"hi", True)
    assert "link" not in decoder.head.headers


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_statuses_have_no_body(status: bytes) -> None:
    decoder, body = decoded(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n")
    assert (body, decoder.ended, decoder.reusable) == (b"", True, True)


@pytest.mark.parametrize(("said", "kept"), [(b"", False), (b"Connection: Keep-Alive\r\n", True)])
def test_an_old_server_closes_unless_it_says_otherwise(said: bytes, kept: bool) -> None:
    decoder, _ = decoded(b"HTTP/1.0 200 OK\r\n" + said + b"Content-Length: 2\r\n\r\nhi")
    assert (decoder.ended, decoder.reusable) == (True, kept)


def test_an_old_server_does_not_know_chunks() -> None:
    assert decoded(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")[0].fault


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        (b"Content-Length: 3\r\n\r\nhi", LOST),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", LOST),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", LOST),
        (b"Content-Le", "closed without an answer"),
    ],
)
def test_a_close_before_the_end_is_a_fault(rest: bytes, fault: str) -> None:
    assert decoded(OK + rest, closed=True)[0].fault == fault


def test_what_was_said_before_a_fault_counts() -> None:
    decoder, body = decoded(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n")
    assert (body, bool(decoder.fault)) == (b"hi", True)


def test_a_server_says_how_long_it_waits() -> None:
    decoder, _ = decoded(OK + b"Keep-Alive: max=5, timeout=7\r\nContent-Length: 0\r\n\r\n")
    assert decoder.keepalive == 7


def test_a_long_reply_is_no_square_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a head that comes byte by byte only the new part is searched for its end."""
    searched: list[int] = []

    class Counting:
        @staticmethod
        def search(data: bytes, start: int) -> None:
            searched.append(len(data) - start)

    monkeypatch.setattr(relay.ReplyDecoder, "_HEAD_END", Counting)
    decoder = relay.ReplyDecoder()
    for byte in OK + b"a" * 10_000:
        decoder.feed(bytes((byte,)))
    assert sum(searched) < 5 * 11_000


ADDRESSES = {
    "http://h/v1/x?a=b#c": ("http", "h", 80, "h", "", "/v1/x?a=b"),
    "https://h:8443/%2e%2E": ("https", "h", 8443, "h:8443", "", "/%2e%2E"),
    "http://[::1]:1": ("http", "::1", 1, "[::1]:1", "", "/"),
    "http://h?a=b": ("http", "h", 80, "h", "", "/?a=b"),
    "http://me:p%40ss@h/": ("http", "h", 80, "h", "Basic bWU6cEBzcw==", "/"),
    "http://b\xfccher.test/\xfc": (
        "http",
        "xn--bcher-kva.test",
        80,
        "xn--bcher-kva.test",
        "",
        "/%C3%BC",
    ),
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_is_taken_apart(url: str) -> None:
    origin, target = relay.origin_and_target(url)
    scheme = "https" if origin.secure else "http"
    assert (scheme, *origin[1:], target) == ADDRESSES[url]


@pytest.mark.parametrize("url", ["http://", "http://h:99999/", "h", "http://h/a b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        relay.origin_and_target(url)
