"""A provider's reply means the same however it is cut, and what h11 takes it for."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import cuttings
from multidict import CIMultiDict

import relay

Seen = tuple[object, ...]

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive")
names = st.text(TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() not in FRAMING)
values = st.text("abc XYZ,;=\"'\t\xe9", max_size=20).map(str.strip)
fields = st.lists(st.tuples(names, values), max_size=5)
bodies = st.binary(max_size=200)


def read(blocks: list[bytes], closed: bool = True) -> Seen:
    decoder = relay.ReplyDecoder()
    body = b"".join([decoder.feed(block) for block in blocks])
    if closed:
        decoder.eof()
    head = decoder.head and (decoder.head.status, tuple(decoder.head.headers.items()))
    return head, body, decoder.started, decoder.ended, decoder.reusable, decoder.fault


def lines(status: int, said: list[tuple[str, str]]) -> bytes:
    head = [f"HTTP/1.1 {status} Fine", *(f"{name}: {value}" for name, value in said)]
    return "\r\n".join((*head, "", "")).encode()


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks, with extensions, sizes written in any way, and trailers."""
    out = []
    while body:
        size = draw(st.integers(1, len(body)))
        written = draw(st.sampled_from(("{:x}", "{:X}", "{:05x}"))).format(size)
        extension = draw(st.sampled_from(("", " ", ";a", ";a=b", ';a="b c"')))
        out.append(f"{written}{extension}\r\n".encode() + body[:size] + b"\r\n")
        body = body[size:]
    trailers = draw(st.sampled_from((b"", b"checksum: 12\r\n", b"a: b\r\nc: d\r\n")))
    return b"".join(out) + b"0\r\n" + trailers + b"\r\n"


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Well-formed ones in every framing, interim heads before them."""
    status, body = draw(st.sampled_from((200, 200, 204, 304, 400, 529))), draw(bodies)
    said = draw(fields)
    if draw(st.booleans()):
        said.append(("Connection", draw(st.sampled_from(("close", "keep-alive", "Close, x")))))
    interim = [
        lines(code, draw(fields)) for code in draw(st.sampled_from(((), (100,), (103, 102))))
    ]
    way = draw(st.sampled_from(("length", "chunks", "close")))
    if status in (204, 304):
        return b"".join(interim) + lines(status, said)
    if way == "length":
        said.append(("Content-Length", str(len(body))))
    if way == "chunks":
        said.append(("Transfer-Encoding", draw(st.sampled_from(("chunked", "Chunked")))))
        body = draw(chunked(body))
    return b"".join(interim) + lines(status, said) + body


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Almost well-formed: bytes taken out, put in, doubled."""
    data = bytearray(draw(replies()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        other = draw(st.sampled_from((b"\r", b"\n", b" ", b"\0", b":", b"0", b"f", b"\r\n", b",")))
        end = at + draw(st.integers(0, 3))
        data[at:end] = draw(st.sampled_from((other, b"", bytes(data[at:end]) * 2)))
    return bytes(data)


def by_h11(data: bytes) -> tuple[int, bytes] | None:
    """Status and body as h11 reads them; None if it refuses, or asks for more."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(data)
        connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body


anything = st.one_of(replies(), spoiled(), st.binary(max_size=300))


@given(data=st.data(), closed=st.booleans())
def test_a_reply_means_the_same_however_it_is_cut(data: st.DataObject, closed: bool) -> None:
    reply = data.draw(anything) + data.draw(st.sampled_from((b"", b"", b"HTTP/1.1 200 OK\r\n\r\n")))
    whole = read([reply], closed)
    assert read(data.draw(cuttings(reply)), closed) == whole
    assert read([reply[i : i + 1] for i in range(len(reply))], closed) == whole


@given(reply=replies())
def test_a_good_reply_is_read_as_h11_reads_it(reply: bytes) -> None:
    head, body, _, ended, _, fault = read([reply])
    assert (ended, fault) == (True, "")
    assert isinstance(head, tuple)
    assert (head[0], body) == by_h11(reply)


@given(reply=spoiled())
def test_what_both_can_read_they_read_alike(reply: bytes) -> None:
    """relay takes lines that end in LF, as h11 does; neither may take another body for it."""
    head, body, _, ended, _, fault = read([reply])
    theirs = by_h11(reply)
    assert ended != bool(fault)  # the connection is closed: it is one or the other
    if ended and theirs:
        assert isinstance(head, tuple)
        assert (head[0], body) == theirs


@given(reply=replies(), behind=st.binary(min_size=1, max_size=9))
def test_a_connection_is_kept_only_behind_a_clean_end(reply: bytes, behind: bytes) -> None:
    _, _, _, ended, kept, _ = read([reply], closed=False)
    assert ended or not kept
    assert not read([reply + behind])[4]
    assert not read([reply, behind])[4]


@given(reply=replies(), data=st.data())
def test_a_reply_that_breaks_off_has_no_end(reply: bytes, data: st.DataObject) -> None:
    by_close = b"ength:" not in reply and b"hunked" not in reply
    cut = reply[: data.draw(st.integers(0, len(reply) - 1))]
    head, _, _, ended, _, fault = read([cut])
    assert ended != bool(fault)
    if head is None or not (by_close or (isinstance(head, tuple) and head[0] in (204, 304))):
        assert fault


@given(headers=st.dictionaries(names, values, max_size=5), length=st.integers(0, 10**9))
def test_a_request_is_read_by_h11_as_it_was_said(headers: dict[str, str], length: int) -> None:
    headers = {name: value for name, value in headers.items() if name.lower() != "host"}
    text = relay.request_text("POST", "/v1/messages?a=b", "host:1", headers, length)
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(text)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (b"POST", b"/v1/messages?a=b")
    said = CIMultiDict((name.decode(), value.decode()) for name, value in event.headers)
    assert said.popone("Host") == "host:1"
    assert said.popone("Content-Length") == str(length)
    assert said == CIMultiDict((name.lower(), value) for name, value in headers.items())


@pytest.mark.parametrize("break_out", ["\r\n", "\n", "\r", "\0", "a\r\nTransfer-Encoding: chunked"])
@given(before=values, after=values)
def test_nothing_breaks_out_of_its_line(break_out: str, before: str, after: str) -> None:
    broken = before + break_out + after
    for target, headers in (("/", {"a": broken}), ("/", {broken: "a"}), ("/" + broken, {})):
        with pytest.raises(ValueError, match=r"."):
            relay.request_text("POST", target, "host", headers, 0)
