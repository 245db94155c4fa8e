"""A record says what passed, with no secret in it, however the bytes were cut."""

import base64
import itertools
import json
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import relay

# Of no letter that the format has in names of its own, and nothing that escapes could spell.
secrets = st.text('ABCDEFGH0123456789+/=_"\\éß', min_size=6, max_size=24).map("SK-".__add__)
junk = st.one_of(
    st.text(max_size=12).map(lambda text: text.encode()),
    st.binary(max_size=12),
    st.sampled_from((b"[secret]", b"data: ", b"\n\n", "é".encode()[:1], b'{"a":"')),
)
CARRIERS = ("Authorization", "x-api-key", "Cookie", "X-Team-Token", "x-goog-api-key", "API-KEY")
PLAIN = ("User-Agent", "x-note", "anthropic-ratelimit-tokens-remaining")


def forms(secret: str) -> list[str]:
    """The ways in which it may be quoted."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [secret, quote(secret, safe=""), encoded, json.dumps(secret)[1:-1]]


@st.composite
def bodies(draw: st.DrawFn, known: Sequence[str]) -> list[tuple[float, bytes]]:
    """Blocks with secrets in them, also across their borders and cut off at the end."""
    quoted = [form.encode() for secret in known for form in forms(secret)]
    pieces = st.lists(st.one_of(junk, st.sampled_from(quoted)), max_size=8)
    data = b"".join(draw(pieces))
    data = data[: len(data) - draw(st.integers(0, 6))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    blocks = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
    return [(float(at), block) for at, block in enumerate(blocks)]


@st.composite
def heads(draw: st.DrawFn, plan: str, caller: str) -> dict[str, object]:
    value = st.sampled_from((plan, f"Bearer {plan}", f"said {caller} twice: {caller}", "none"))
    carried = st.sampled_from((caller, f"Bearer {caller}", f"a=1; session={caller}", plan))
    headers = draw(st.lists(st.tuples(st.sampled_from(PLAIN), value), max_size=3))
    headers += draw(st.lists(st.tuples(st.sampled_from(CARRIERS), carried), min_size=1, max_size=3))
    value_of = quote(caller, safe="")
    paths = (
        f"/v1/messages?beta=true&key={value_of}",
        f"https://me:{value_of}@host/v1?api_key={value_of}",
    )
    return {"path": draw(st.sampled_from(paths)), "headers": headers}


@given(data=st.data(), ours=secrets, callers=secrets)
def test_no_secret_is_in_any_file(data: st.DataObject, ours: str, callers: str) -> None:
    assume(callers == callers.strip("=\\") and ours == ours.strip("=\\"))
    # what a caller sends as a key is a token: without what separates one from the next
    legs = {
        name: relay.Leg(0.0, data.draw(heads(ours, callers)), data.draw(bodies((ours, callers))))
        for name in ("request", "attempt 1", "answer 1", "response")
    }
    callers_whole = any(callers in value for leg in legs.values() for _, value in leg.headers)
    assume(callers_whole or any("key=" in str(leg.head["path"]) for leg in legs.values()))
    summary = {"id": "1", "error": f"refused: {ours} of {callers}", "attempts": [{"x": callers}]}
    file = b"".join(relay.record_lines(relay.Record(summary, legs), relay.Secrets([ours])))
    kept = relay.read_record(file)
    texts = [file, *(leg.body for leg in kept.legs.values())]
    texts += [json.dumps([leg.head for leg in kept.legs.values()], ensure_ascii=False).encode()]
    texts += [json.dumps(kept.summary, ensure_ascii=False).encode()]
    for secret in (ours, callers):
        for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
            assert not any(form.encode() in text for text in texts), form


@given(secret=secrets, before=junk, length=st.integers(8, 30))
def test_what_is_there_of_a_secret_that_was_cut_off_is_masked(
    secret: str, before: bytes, length: int
) -> None:
    """Of bytes, where any end is one of a buffer, also when less of it is there."""
    known = relay.Secrets([secret])
    part = secret[: min(length, len(secret) - 1)]
    said = before.decode(errors="replace") + part
    assert known.text(said).endswith(relay.MASK)
    for size in range(4, len(part) + 1):
        blocks = [(0.0, before), (1.0, part[:size].encode())]
        assert b"".join(block for _, block in known.blocks(blocks)).endswith(b"[secret]")


@given(secret=secrets, length=st.integers(1, 30))
def test_the_beginning_of_a_secret_may_be_a_name(secret: str, length: int) -> None:
    """Callers and providers may even be called like a secret; a model only like a part of it."""
    part = secret[: min(length, len(secret) - 1)]
    summary = {"id": "1", "key": secret, "provider": secret, "model": part, "target": part}
    head = {"target": part, "plan": secret, "preset": part}
    record = relay.Record(summary, {"attempt 1": relay.Leg(0.0, head)})
    kept = relay.read_record(b"".join(relay.record_lines(record, relay.Secrets([secret]))))
    assert kept.summary == summary
    assert kept.legs["attempt 1"].head | head == kept.legs["attempt 1"].head
    masked = relay.without_secrets({"model": secret}, relay.Secrets([secret]))
    assert masked == {"model": relay.MASK}


@st.composite
def exchanges(draw: st.DrawFn) -> relay.Record:
    times = st.lists(st.integers(0, 10_000), min_size=1, max_size=6).map(sorted)
    legs = {}
    for name in ("request", "attempt 1", "answer 1", "attempt 2", "answer 2", "response"):
        moments = [each / 8 for each in draw(times)]
        blocks = [(at, draw(junk)) for at in moments]
        head = {
            "status": draw(st.integers(100, 599)),
            "headers": [["a", draw(st.text(max_size=5))]],
        }
        legs[name] = relay.Leg(moments[0], head, blocks)
    return relay.Record({"id": "7", "time": 1.5}, legs, {"response": draw(st.integers(1, 99))})


@given(record=exchanges())
def test_what_is_written_is_read(record: relay.Record) -> None:
    file = b"".join(relay.record_lines(record, relay.Secrets(())))
    kept = relay.read_record(file)
    assert (kept.summary, kept.cut) == (record.summary, record.cut)
    for name, leg in record.legs.items():
        again = kept.legs[name]
        assert (again.at, again.head, again.body) == (leg.at, leg.head, leg.body)
        assert {at for at, _ in again.blocks} <= {at for at, _ in leg.blocks}
    moments = [json.loads(line)["at"] for line in file.splitlines()[1:-1]]
    assert moments == sorted(moments)


@given(texts=st.lists(st.text(min_size=1), min_size=1))
def test_blocks_of_whole_characters_stay_as_they_are(texts: list[str]) -> None:
    blocks = [(float(at), text.encode()) for at, text in enumerate(texts)]
    record = relay.Record({"id": "7"}, {"response": relay.Leg(0.0, {}, blocks)})
    kept = relay.read_record(b"".join(relay.record_lines(record, relay.Secrets(()))))
    assert kept.response.blocks == blocks


@given(record=exchanges(), cut=st.integers(0, 100_000), junk=st.binary(max_size=30))
def test_a_damaged_file_is_told_from_a_whole_one(
    record: relay.Record, cut: int, junk: bytes
) -> None:
    file = b"".join(relay.record_lines(record, relay.Secrets(())))
    for damaged in (file[: cut % len(file)], junk, junk + b"\n", file[1:], file + b"x"):
        with pytest.raises(ValueError, match="it "):
            relay.read_record(damaged)


@given(
    files=st.dictionaries(st.text(max_size=4), st.integers(0, 50), max_size=8),
    keep=st.integers(0, 200),
)
def test_the_oldest_go_and_no_more_than_must(files: dict[str, int], keep: int) -> None:
    gone = relay.surplus(files.items(), keep)
    stay = sorted(files.keys() - set(gone))
    assert sorted(files) == sorted(gone) + stay
    assert sum(files[name] for name in stay) <= keep
    if gone:
        assert sum(files[name] for name in stay) + files[max(gone)] > keep
