"""What both ends do around NCCL's calls, with a group that keeps what it is given. NCCL's own
meeting, and vLLM: tests/integration/test_nccl.py.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.errors import TransferAborted
from sppo.weights import nccl
from sppo.weights.buckets import buckets
from tests.unit.weights.peers import same, weights

CPU = torch.device("cpu")


class Group:
    """Rank 0's broadcasts in a list, from which those of other ranks take them; `fault` is what the
    call raises, or waits for.
    """

    def __init__(self, fault: str = "") -> None:
        self.sent: list[Tensor] = []
        self.fault = fault
        self.aborted = threading.Event()

    def broadcast(self, piece: Tensor, src: int, *, stream: Any) -> None:
        assert (src, stream.cuda_stream) == (0, None)
        if self.fault == "silence":
            assert self.aborted.wait(5)
            return  # as on a GPU: the call comes back, with bytes that mean nothing
        if self.fault:
            raise RuntimeError(self.fault)
        piece.copy_(self.sent.pop(0))

    def destroy(self) -> None:
        self.aborted.set()


class Sending(Group):
    def broadcast(self, piece: Tensor, src: int, *, stream: Any) -> None:
        self.sent.append(piece.clone())


def test_what_is_sent_in_pieces_comes_back_in_buckets() -> None:
    sender = nccl.NcclSender("127.0.0.1", "cpu", bucket_bytes=256)
    sent = weights(0)
    update = sender.stage(sent.items())
    group, moves = Sending(), []
    nccl.send(
        group, sender._staged, CPU, piece_bytes=256, moved=lambda: moves.append(len(group.sent))
    )
    assert max(piece.numel() for piece in group.sent) == 256  # the embedding has 66,000 bytes
    # At each that has left its buffer, the last ones among them
    assert len(moves) == len(group.sent) + nccl.BUFFERS
    other = Group()
    other.sent = group.sent
    came: dict[str, Tensor] = {}
    for bucket in buckets(**update, limit=256):
        flat = nccl.receive(other, bucket.nbytes, CPU, piece_bytes=256, timeout_s=5)
        came |= bucket.unpack(flat)
    assert same(came, sent)


def test_nothing_is_sent_by_a_group_that_was_left() -> None:
    group, sender = Sending(), nccl.NcclSender("127.0.0.1", "cpu")
    sender.stage(weights(0).items())
    sender._group = group

    def leave() -> None:
        if group.sent:
            sender._group = None  # as `close` does, before it aborts

    with pytest.raises(RuntimeError, match="the group was left"):
        sender.transfer(meet=False, moved=leave)()
    assert len(group.sent) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [("silence", "nothing moved for 0.1 s"), ("NCCL error: remote process exited", "NCCL error")],
)
def test_a_piece_that_does_not_come_aborts_the_group(fault: str, said: str) -> None:
    group = Group(fault)
    with pytest.raises(TransferAborted, match=said):
        nccl.receive(group, 64, CPU, piece_bytes=32, timeout_s=0.1)
    assert group.aborted.is_set()


def test_a_device_that_fails_is_no_late_peer() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access") as caught:
        nccl.receive(
            Group("CUDA error: an illegal memory access"), 64, CPU, piece_bytes=32, timeout_s=5
        )
    assert not isinstance(caught.value, TransferAborted)
