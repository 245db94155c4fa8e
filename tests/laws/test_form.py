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

    with pytest.raises(relay.BadRequest, match="twice"):
        feed()


def test_a_form_needs_a_boundary() -> None:
    with pytest.raises(relay.BadRequest, match="boundary"):
        relay.Form("multipart/form-data")
