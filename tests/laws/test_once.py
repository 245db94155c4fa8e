"""Whatever stands anywhere in a Responses stream reaches the client once.

A text stands in deltas, in the event that ends its part, in the item's end and in the last event:
servers leave out any of these, count items and parts in their own ways, and change ids.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from laws.strategies import DIALECTS, folded, passage, piped

import relay

KINDS = ("message", "refusal", "summary", "reasoning", "call", "custom")


@st.composite
def things(draw: Any) -> list[tuple[str, str]]:
    """What an answer says: kinds and texts, no two alike."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    return [(kind, f"{number} {kind}.") for number, kind in enumerate(kinds)]


def item_of(kind: str, text: str, number: int, id: str) -> relay.JSON:
    head: relay.JSON = {"id": id} if id else {}
    match kind:
        case "message" | "refusal":
            field = "text" if kind == "message" else "refusal"
            part = {"type": "output_text" if kind == "message" else kind, field: text}
            content = [part] if text else []
            return head | {"type": "message", "role": "assistant", "content": content}
        case "summary":
            summary = [{"type": "summary_text", "text": text}] if text else []
            return head | {"type": "reasoning", "summary": summary}
        case "reasoning":
            content = [{"type": "reasoning_text", "text": text}] if text else []
            return head | {"type": "reasoning", "summary": [], "content": content}
        case "call":
            arguments = relay.dumps({"a": text}).decode() if text else ""
            call = {"type": "function_call", "name": "read", "arguments": arguments}
            return head | call | {"call_id": f"call_a{number}"}
        case _:
            call = {"type": "custom_tool_call", "name": "exec", "input": text}
            return head | call | {"call_id": f"call_a{number}"}


EVENTS = {
    "message": ("output_text", "text", "content_index"),
    "refusal": ("refusal", "refusal", "content_index"),
    "summary": ("reasoning_summary_text", "text", "summary_index"),
    "reasoning": ("reasoning_text", "text", "content_index"),
    "call": ("function_call_arguments", "arguments", ""),
    "custom": ("custom_tool_call_input", "input", ""),
}


@st.composite
def tellings(draw: Any, said: list[tuple[str, str]]) -> bytes:
    """A stream in which each thing stands in some of its places, as one kind of server counts."""
    shift = draw(st.sampled_from((0, 0, 1)))  # of the items' numbers in the last event
    over_items = draw(st.booleans())  # are parts counted over all items?
    ids = draw(st.sampled_from(("same", "new", "none")))
    numbered = ids != "same" or draw(st.booleans())
    wires: list[relay.JSON] = [{"type": "response.created", "response": {"id": "r", "model": "m"}}]
    output, fresh = [], iter(range(1000))

    def id(number: int) -> str:
        return {"same": f"i{number}", "new": f"n{next(fresh)}", "none": ""}[ids]

    for number, (kind, text) in enumerate(said):
        name, field, index = EVENTS[kind]
        whole = relay.dumps({"a": text}).decode() if kind == "call" else text
        place: relay.JSON = {"output_index": number} if numbered else {}
        part = {index: number if over_items else 0} if index else {}
        deltas, done = draw(st.booleans()), draw(st.booleans())
        ended, last = draw(st.booleans()), draw(st.booleans())
        if not (deltas or done or ended or last):
            last = True
        added = {
            "type": "response.output_item.added",
            "item": item_of(kind, "", number, id(number)),
        }
        wires += [added | place] if draw(st.booleans()) or kind in ("call", "custom") else []
        if deltas and kind != "custom":  # of which deltas are for display alone
            for at in range(0, len(whole), 4):
                delta = {"type": f"response.{name}.delta", "delta": whole[at : at + 4]}
                wires.append(delta | place | part | {"item_id": id(number)})
        if done or (deltas and kind == "custom"):
            told = {"type": f"response.{name}.done", field: whole}
            wires.append(told | place | part | {"item_id": id(number)})
        if ended or draw(st.booleans()):
            item = item_of(kind, text if ended else "", number, id(number))
            item |= {"arguments": "{}"} if kind == "call" and not ended else {}
            wires.append({"type": "response.output_item.done", "item": item} | place)
        if last:
            output.append(item_of(kind, text, number, id(number)))
    answer = {"id": "r", "status": "completed", "output": [{"type": "x_call"}] * shift + output}
    wires.append({"type": "response.completed", "response": answer})
    return b"".join(b"data: " + relay.dumps(wire) + b"\n\n" for wire in wires)


@given(data=st.data())
@settings(max_examples=settings.default.max_examples * 4)
def test_what_stands_anywhere_is_told_once(data: st.DataObject) -> None:
    said = data.draw(things())
    wire = data.draw(tellings(said))
    read = folded(relay.RESPONSES, wire)
    assert isinstance(read, relay.Response)
    told = "".join(part.text for part in read.parts)  # two messages may be one text
    words = {"call": lambda text: {"a": text}, "custom": lambda text: {"input": text}}
    plain = [relay.dumps(words[k](t)).decode() if k in words else t for k, t in said]
    assert [told.count(text) for text in plain] == [1] * len(plain), wire.decode()
    assert len(told.replace("\n\n", "")) == len("".join(plain)), wire.decode()
    refusals = "".join(text for kind, text in said if kind == "refusal")
    assert (read.finish == "content_filter") is bool(refusals)


@given(data=st.data())
def test_a_whole_answer_says_what_its_stream_says(data: st.DataObject) -> None:
    said = data.draw(things())
    output = [item_of(kind, text, n, f"i{n}") for n, (kind, text) in enumerate(said)]
    whole = {"id": "r", "object": "response", "status": "completed", "output": output}
    events = [{"type": "response.completed", "response": whole}]
    for index, item in enumerate(reversed(output)):
        place = {"output_index": len(output) - 1 - index}
        events.insert(0, {"type": "response.output_item.done", "item": item} | place)
    events.insert(0, {"type": "response.created", "response": {"id": "r"}})
    stream = b"".join(b"data: " + relay.dumps(event) + b"\n\n" for event in events)
    for client in DIALECTS:
        streamed = piped(relay.Gathered(passage(relay.RESPONSES, client)), [stream])
        way = passage(relay.RESPONSES, client, names={"x": "y"})
        assert streamed == piped(relay.Gathered(way), [relay.dumps(whole)])
