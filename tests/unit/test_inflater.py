"""A body out of its content coding, in whatever pieces it comes."""

import gzip
import zlib

import pytest

import relay

TEXT = b"what was meant, " * 100


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


FORMS = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "zlib called gzip": ("gzip", zlib.compress(TEXT)),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "bare deflate": ("deflate", bare(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:700]) + gzip.compress(TEXT[700:])),
    "an empty member": ("gzip", gzip.compress(b"") + gzip.compress(TEXT)),
    "padding": ("gzip", gzip.compress(TEXT) + b"\0" * 512),
    "padding between": ("gzip", gzip.compress(TEXT) + b"\0\0" + gzip.compress(b"")),
    "none": ("identity", TEXT),
    "unknown": ("br", TEXT),
}


def inflated(coding: str, data: bytes, step: int) -> bytes:
    inflater = relay.Inflater(coding)
    plain = b"".join(inflater.feed(data[i : i + step]) for i in range(0, len(data), step))
    inflater.finish()
    return plain


@pytest.mark.parametrize("step", [1 << 20, 7, 2])
@pytest.mark.parametrize(("coding", "data"), FORMS.values(), ids=FORMS)
def test_a_body_is_read_in_any_pieces(coding: str, data: bytes, step: int) -> None:
    assert inflated(coding, data, step) == TEXT


BROKEN = {
    "garbage": ("gzip", b"not gzip at all"),
    "garbage after it": ("gzip", gzip.compress(TEXT) + b"garbage"),
    "garbage after deflate": ("deflate", zlib.compress(TEXT) + b"garbage"),
    "a wrong checksum": ("gzip", gzip.compress(TEXT)[:-8] + b"\1\2\3\4\5\6\7\0"),
    "no trailer": ("gzip", gzip.compress(TEXT)[:-8]),
    "half a trailer": ("gzip", gzip.compress(TEXT)[:-1]),
    "half of it": ("gzip", gzip.compress(TEXT)[:40]),
    "half a second member": ("gzip", gzip.compress(TEXT) + gzip.compress(TEXT)[:20]),
}


@pytest.mark.parametrize("step", [1 << 20, 1])
@pytest.mark.parametrize(("coding", "data"), BROKEN.values(), ids=BROKEN)
def test_what_is_not_whole_is_not_accepted(coding: str, data: bytes, step: int) -> None:
    with pytest.raises(relay.UpstreamError, match="broken content coding"):
        inflated(coding, data, step)


@pytest.mark.parametrize(("coding", "data"), BROKEN.values(), ids=BROKEN)
def test_toward_clients_it_is_their_fault(coding: str, data: bytes) -> None:
    with pytest.raises(relay.BadRequest, match="broken content coding"):
        relay.RequestInflater(coding).whole(data)


@pytest.mark.parametrize("most", [10_000, 999_999])
@pytest.mark.parametrize("members", [1, 2])
def test_a_block_that_becomes_too_much_is_stopped(most: int, members: int) -> None:
    data = b"".join(gzip.compress(b"\0" * (1_000_000 // members)) for _ in range(members))
    with pytest.raises(relay.UpstreamError, match="sent more than"):
        relay.Inflater("gzip", most).feed(data)
    with pytest.raises(relay.TooLarge):
        relay.RequestInflater("gzip", most).feed(data)


def test_what_is_just_within_the_limit_is_read() -> None:
    data = gzip.compress(b"\0" * 1_000_000)
    assert relay.Inflater("gzip", 1_000_000).whole(data) == b"\0" * 1_000_000


def test_an_empty_body_has_no_coding_to_break() -> None:
    assert relay.Inflater("gzip").whole(b"") == b""
