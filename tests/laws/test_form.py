"""The model of a multipart form, whatever the cutting of its bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay

KIND = 'multipart/form-data; boundary="a(b"'
MARK = b"--a(b"
HEAD = b'Content-Disposition: form-data; name="%s"\r\nContent-Type: text/plain\r\n\r\n'

# Nothing in a part holds the delimiter; all else may be there, and looks like it.
contents = st.lists(
    st.sampled_from((b"\r\n", b"--a(", b"--", b'name="model"', HEAD % b"model", b"\0", b"x")),
    max_size=6,
).map(b"".join)
names = st.sampled_from((b"file", b"prompt", b"models", b"xmodel"))
parts = st.lists(st.tuples(names, contents), max_size=4)
models = st.sampled_from((b"m", b"their/model-1", "möbius".encode(), b""))


def part(name: bytes, content: bytes) -> bytes:
    return MARK + b"\r\n" + HEAD % name + content + b"\r\n"


@given(before=parts, model=models, after=parts, cuts=st.lists(st.integers(0, 2000)))
def test_the_model_is_found_and_replaced_and_nothing_else(
    before: list[tuple[bytes, bytes]],
    model: bytes,
    after: list[tuple[bytes, bytes]],
    cuts: list[int],
) -> None:
    first = b"".join(part(*each) for each in before) + MARK + b"\r\n" + HEAD % b"model"
    rest = b"\r\n" + b"".join(part(*each) for each in after) + MARK + b"--\r\n"
    form, sent = relay.Form(KIND), b""
    whole = first + model + rest
    ends = sorted({*cuts, 0, len(whole)})
    for start, end in pairwise(ends):
        passing = form.span is not None
        form.feed(whole[start:end])
        sent += whole[start:end] if passing else b""
    assert form.model == model.decode()
    assert form.retargeted("other") + sent == first + b"other" + rest


@given(model=models, between=parts, cut=st.integers(0, 400))
def test_a_second_model_is_refused(
    model: bytes, between: list[tuple[bytes, bytes]], cut: int
) -> None:
    whole = part(b"model", model) + b"".join(part(*each) for each in between)
    whole += part(b"model", b"another") + MARK + b"--\r\n"
    form = relay.Form(KIND)

    def feed() -> None:
        form.feed(whole[:cut])
        form.feed(whole[cut:])

    with pytest.raises(relay.BadRequest, match="duplicate field"):
        feed()


def test_a_form_needs_a_boundary() -> None:
    with pytest.raises(relay.BadRequest, match="boundary"):
        relay.Form("multipart/form-data")


ODD_HEADS = {
    "spaces in the name": b'Content-Disposition: form-data; name=" model "\r\n\r\n',
    "spaces around the sign": b'Content-Disposition: form-data; name = "model"\r\n\r\n',
    "an extended name": b"Content-Disposition: form-data; name*=UTF-8''model\r\n\r\n",
    "two names": b'Content-Disposition: form-data; name="x"; name="model"\r\n\r\n',
    "a folded header": b'Content-Disposition: form-data;\r\n name="model"\r\n\r\n',
    "a bare LF": b'Content-Disposition: form-data; name="x"\nX: y\r\n\r\n',
    "a space before the colon": b'Content-Disposition : form-data; name="model"\r\n\r\n',
    "an escaped quote": b'Content-Disposition: form-data; name="x\\"; name=\\"model"\r\n\r\n',
    "capitals": b'Content-Disposition: form-data; name="Model"\r\n\r\n',
    "single quotes": b"Content-Disposition: form-data; name='model'\r\n\r\n",
    "a list": b'Content-Disposition: form-data; name="model[]"\r\n\r\n',
    "percent signs": b'Content-Disposition: form-data; name="mod%65l"\r\n\r\n',
    "two dispositions": HEAD.split(b"\r\n")[0] % b"x" + b"\r\n" + HEAD % b"model",
    "no name": b"Content-Type: text/plain\r\n\r\n",
    "an encoding": b"Content-Transfer-Encoding: base64\r\n" + HEAD % b"model",
}


@pytest.mark.parametrize("head", ODD_HEADS.values(), ids=ODD_HEADS)
@pytest.mark.parametrize("first", [True, False])
def test_a_part_that_parsers_may_call_differently_is_refused(head: bytes, first: bool) -> None:
    odd, plain = MARK + b"\r\n" + head + b"other\r\n", part(b"model", b"m")
    form = relay.Form(KIND)
    with pytest.raises(relay.BadRequest):
        form.feed((odd + plain if first else plain + odd) + MARK + b"--\r\n")


@pytest.mark.parametrize(
    "whole",
    [
        part(b"x", b"y\n" + MARK + b"\n" + HEAD % b"model"),  # a delimiter after a bare LF
        part(b"x", b"y") + MARK + b" \r\n" + HEAD % b"model" + b"m\r\n",
        b"preamble" + part(b"model", b"m"),
        part(b"model", b"m") + MARK + b"--\r\n" + part(b"model", b"other"),
        part(b"model", b"m\r\nn") + MARK + b"--\r\n",
        MARK + b"\r\n" + HEAD % b"model" + MARK + b"--\r\n",
    ],
)
def test_a_delimiter_that_not_all_parsers_see_is_refused(whole: bytes) -> None:
    def feed(size: int) -> None:
        form = relay.Form(KIND)
        for at in range(0, len(whole), size):
            form.feed(whole[at : at + size])

    for size in (1, 7, len(whole)):
        with pytest.raises(relay.BadRequest):
            feed(size)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary*=utf-8''a; boundary=b",
        'multipart/form-data; x="; boundary=a"; boundary=b',
        "multipart/form-data; boundary=",
    ],
)
def test_a_boundary_that_parsers_may_read_differently_is_refused(kind: str) -> None:
    with pytest.raises(relay.BadRequest, match="boundary"):
        relay.Form(kind)
