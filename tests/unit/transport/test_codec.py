"""Frames: what goes in comes out, and anything else is BadFrame."""

from __future__ import annotations

import struct
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from sppo.errors import BadFrame
from sppo.transport import codec
from sppo.types import Answer, Group
from tests import makers


def same(a: Group, b: Group) -> bool:
    arrays = [(a.prompt_ids, b.prompt_ids), (a.rewards, b.rewards), (a.preferences, b.preferences)]
    for x, y in zip(a.completions, b.completions, strict=True):
        arrays += [(x.token_ids, y.token_ids), (x.behavior_logprobs, y.behavior_logprobs)]
        if (x.spans, x.finish_reason) != (y.spans, y.finish_reason):
            return False
    names = (a.gid, a.uid, a.stream, a.generator) == (b.gid, b.uid, b.stream, b.generator)
    return names and all(x is y is None or np.array_equal(x, y) for x, y in arrays)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_group_survives_the_wire(size: int) -> None:
    group = makers.group(size=size)
    assert same(codec.decode_group(codec.encode_group(group)), group)


def test_preferences_survive_the_wire() -> None:
    group = makers.group(
        size=3, preferences=[[0.5, 1.0, 0.25], [0.0, 0.5, 0.75], [0.75, 0.25, 0.5]]
    )
    decoded = codec.decode_group(codec.encode_group(group))
    assert same(decoded, group)
    assert decoded.rewards is None


def test_what_the_scorer_said_survives_the_wire() -> None:
    group = replace(makers.group(size=2), details=({"verdict": "A", "p": 0.25}, {}))
    assert codec.decode_group(codec.encode_group(group)).details == group.details
    assert codec.decode_group(codec.encode_group(makers.group())).details is None
    short = replace(group, details=({},))
    with pytest.raises(BadFrame, match="details are not one map for each completion"):
        codec.decode_group(codec.encode_group(short))


def test_when_things_happened_survives_the_wire() -> None:
    times = (1.5, 2.5, 1e9)
    group = replace(makers.group(), times=times)
    assert codec.decode_group(codec.encode_group(group)).times == times
    assert codec.decode_group(codec.encode_group(makers.group())).times == ()
    ticket = replace(makers.ticket(), issued=3.25)
    assert codec.unpack_ticket(codec.pack_ticket(ticket)).issued == 3.25
    for wrong in ((-1.0,), (float("nan"),), (1e12,), (1.0,) * 17):
        with pytest.raises(BadFrame, match="times are none"):
            codec.decode_group(codec.encode_group(replace(group, times=wrong)))


def test_a_ticket_survives_the_wire() -> None:
    answer = Answer(token_ids=(5, 6), text="five six", finish_reason="length")
    for ticket in (
        makers.ticket(),
        makers.ticket("eval-0", paired=True),
        makers.ticket("eval-0", paired=True, against=answer),
    ):
        assert codec.unpack_ticket(codec.pack_ticket(ticket)) == ticket


def test_every_single_byte_flip_is_a_bad_frame() -> None:
    frame = codec.encode_group(makers.group())
    for i in range(len(frame)):
        broken = bytearray(frame)
        broken[i] ^= 0x41
        with pytest.raises(BadFrame):
            codec.decode_group(bytes(broken))


def reframe(header: object, payload: bytes) -> bytes:
    """A frame with a valid checksum around any header."""
    body = msgpack.packb(header)
    data = body + payload
    return struct.pack("<4sIQ", codec.MAGIC, len(body), xxhash.xxh3_64_intdigest(data)) + data


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [3, 3, 3]},
        {"sizes": [-1, 4, 3, 3]},
        {"lengths": [1, 1]},
        {"lengths": [3]},
        {"finish": ["stop", "sideways"]},
        {"spans": [[["e1:0", 0, 1]], [["e1:0", 1, 2]]]},
        {"spans": [[["e1:0", 0, 1]], []]},
        {"spans": [[["no label", 0, 1]], [["e1:0", 0, 2]]]},
        {"stream": "other"},
        {"uid": 7},
        {"gid": None},
    ],
)
def test_a_header_that_lies_is_a_bad_frame(change: dict[str, object]) -> None:
    frame = codec.encode_group(makers.group())
    _, length, _ = struct.unpack_from("<4sIQ", frame)
    header = msgpack.unpackb(frame[16 : 16 + length])
    with pytest.raises(BadFrame):
        codec.decode_group(reframe(header | change, frame[16 + length :]))


def test_a_log_prob_that_is_not_finite_is_a_bad_frame() -> None:
    group = makers.group()
    group.completions[0].behavior_logprobs[0] = np.nan
    with pytest.raises(BadFrame, match="not finite"):
        codec.decode_group(codec.encode_group(group))


NAN = float("nan")


def test_pairs_that_were_not_compared_come_back_to_the_bit() -> None:
    table = [[0.5, NAN, 0.25], [NAN, 0.5, 1.0], [0.75, 0.0, 0.5]]
    group = makers.group(size=3, preferences=table)
    found = codec.decode_group(codec.encode_group(group))
    assert found.preferences is not None
    assert group.preferences is not None
    assert found.preferences.tobytes() == group.preferences.tobytes()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([[0.5, NAN], [0.5, 0.5]], "one way round alone"),
        ([[NAN, 0.5], [0.5, 0.5]], "one way round alone"),
        ([[0.5, np.inf], [0.0, 0.5]], "not finite"),
    ],
)
def test_a_matrix_that_no_scorer_gives_is_a_bad_frame(table: list[list[float]], said: str) -> None:
    with pytest.raises(BadFrame, match=said):
        codec.decode_group(codec.encode_group(makers.group(preferences=table)))


def test_a_reward_that_is_not_a_number_is_a_bad_frame() -> None:
    group = replace(makers.group(), rewards=np.array([NAN, 0.0], np.float32))
    with pytest.raises(BadFrame, match="not finite"):
        codec.decode_group(codec.encode_group(group))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_only_ever_a_bad_frame(data: bytes) -> None:
    for decode in (codec.decode_group, codec.unpack_ticket):
        with pytest.raises(BadFrame):
            decode(data)


plain = st.none() | st.integers() | st.text(max_size=5)
nested = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)
)


@settings(max_examples=300, deadline=None)
@given(nested, st.binary(max_size=40))
def test_random_headers_are_only_ever_a_bad_frame(header: object, payload: bytes) -> None:
    try:
        frame = reframe(header, payload)
    except OverflowError:
        return  # msgpack itself cannot carry this integer
    with pytest.raises(BadFrame):
        codec.decode_group(frame)
