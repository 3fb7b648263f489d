"""Damaged and forged frames: whatever comes over the wire decodes to a group or is a BadFrame,
nothing else.
"""

from __future__ import annotations

import random

import pytest
import xxhash

from sppo.errors import BadFrame
from sppo.transport import codec
from tests import makers
from tests.faults.rig import LONG

RUNS = 5_000_000 if LONG else 150_000


@pytest.mark.timeout(3600 if LONG else 120)
def test_mutated_frames_with_a_matching_checksum_are_groups_or_bad_frames() -> None:
    rng = random.Random(3)
    seeds = [
        codec.encode_group(makers.group(size=3)),
        codec.encode_group(makers.group(preferences=[[0.5, 1.0], [0.0, 0.5]])),
    ]
    bad = 0
    for _ in range(RUNS):
        frame = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            kind, at = rng.random(), rng.randrange(len(frame))
            if kind < 0.6:
                frame[at] = rng.randrange(256)
            elif kind < 0.8:
                del frame[at : at + rng.randint(1, 8)]
            else:
                frame[at:at] = rng.randbytes(rng.randint(1, 8))
        if len(frame) >= 16 and rng.random() < 0.9:  # a forger knows the checksum, too
            frame[8:16] = xxhash.xxh3_64_intdigest(bytes(frame[16:])).to_bytes(8, "little")
        try:
            codec.decode_group(bytes(frame))
        except BadFrame:
            bad += 1
    assert bad > RUNS // 2
