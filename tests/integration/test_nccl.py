"""Weights over NCCL without a GPU: the code that runs on one, over a stand-in for the library
(`nccl_stub.c`) that vLLM loads by its own setting. As NCCL does, it waits for ever. And vLLM with
weights through shared memory, which loads them in the same way.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.config import RunConfig
from sppo.errors import TransferAborted, WeightsMixed
from sppo.generators.fake import FakeEngine
from sppo.transport.memory import MemoryBroker
from sppo.types import Completion, SamplingParams, Version
from sppo.weights import nccl
from sppo.weights.buckets import buckets
from sppo.weights.nccl import NcclSender
from sppo.weights.publisher import WeightPublisher
from sppo.weights.shared import SharedSender
from tests import families
from tests.makers import run_config
from tests.unit.weights.peers import Peer, same

CPU = torch.device("cpu")
BUCKET = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "these tests need a C compiler named cc or gcc"
    library = tmp_path_factory.mktemp("nccl") / "libnccl_stub.so"
    source = Path(__file__).with_name("nccl_stub.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_NCCL_SO_PATH", str(library))
        yield


def weights(seed: int, parts: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {f"layer.{i}": torch.randn(BUCKET // 4) for i in range(parts)} | {
        "norm": torch.randn(3).bfloat16(),
        "embed": torch.randn(BUCKET).bfloat16(),  # larger than a bucket: two pieces
    }


class Gpuless(FakeEngine):
    """An engine that receives as vLLM's worker does, and keeps the weights."""

    fault = ""

    async def join_group(self, join: dict[str, Any]) -> None:
        if self.fault == "does not join":
            await asyncio.sleep(2.0)
            self.fault = ""
            raise TransferAborted("transfer aborted: came too late")
        self.timeout_s = join["timeout_s"]
        self.group = await asyncio.to_thread(
            nccl.make_group, join["master_address"], join["master_port"],
            rank=join["rank_offset"], world_size=join["world_size"], device=CPU,
            timeout_s=join["timeout_s"],
        )  # fmt: skip

    async def load_weights(
        self, update: dict[str, Any], version: Version, moved: Callable[[], None] = print
    ) -> None:
        came: dict[str, Tensor] = {}
        for i, bucket in enumerate(buckets(**update, limit=BUCKET)):
            if self.fault == "slow":
                await asyncio.sleep(0.15)
            if self.fault == "falls silent" and i == 2:
                await asyncio.sleep(2.0)
                self.fault = ""
                self.group.destroy()
                raise TransferAborted("transfer aborted: was elsewhere")
            flat = await asyncio.to_thread(
                nccl.receive, self.group, bucket.nbytes, CPU, piece_bytes=BUCKET,
                timeout_s=self.timeout_s,
            )  # fmt: skip
            came |= bucket.unpack(flat)
            moved()
        self.weights, self.version = came, version


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def publisher(broker: MemoryBroker) -> Iterator[WeightPublisher]:
    sender = NcclSender("127.0.0.1", "cpu", bucket_bytes=BUCKET)
    made = WeightPublisher(broker.registry, broker.mailbox, sender, phase_timeout_s=1.0)
    yield made
    made.close()


def published(publisher: WeightPublisher, n: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    sent = weights(n)
    report = publisher.publish(Version(epoch="e", n=n), sent.items(), while_alone=lambda: None)
    return sent, report.failures


def test_the_stand_in_is_what_vllm_loads() -> None:
    from vllm.distributed.device_communicators.pynccl_wrapper import NCCLLibrary

    assert NCCLLibrary().ncclGetRawVersion() == 99900


def test_every_rank_has_the_bits_and_a_newcomer_joins(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    peers = [Peer(broker, "generator-0", Gpuless())]
    for n in range(2):
        sent, failures = published(publisher, n)
        assert failures == ()
        assert same(peers[0].engine.weights, sent)
    peers.append(Peer(broker, "generator-1", Gpuless()))
    sent, failures = published(publisher, 2)
    assert failures == ()
    for peer in peers:
        assert same(peer.engine.weights, sent)
        peer.stop()


def test_a_transfer_may_take_longer_than_the_deadline_of_a_bucket(
    broker: MemoryBroker, publisher: WeightPublisher
) -> None:
    engine = Gpuless()
    engine.fault = "slow"
    peer = Peer(broker, "generator-0", engine)
    started = time.monotonic()
    sent, failures = published(publisher, 0)
    assert time.monotonic() - started > 1.0
    assert failures == ()
    assert same(engine.weights, sent)
    peer.stop()


@pytest.mark.parametrize("fault", ["does not join", "falls silent"])
def test_a_peer_that_is_late_ends_nobody_and_comes_back(
    broker: MemoryBroker, publisher: WeightPublisher, fault: str
) -> None:
    # Given a standing group of three
    late = Gpuless()
    peers = [Peer(broker, "generator-0", Gpuless()), Peer(broker, "generator-1", late)]
    published(publisher, 0)
    if fault == "does not join":
        peers.append(Peer(broker, "generator-2", Gpuless()))
    # When one is late for a new group, or falls silent in the middle of a transfer
    late.fault = fault
    started = time.monotonic()
    sent, failures = published(publisher, 1)
    # Then it costs a deadline, and the others have the weights, each still in its first life
    assert len(failures) >= 1
    assert time.monotonic() - started < 8
    assert same(peers[0].engine.weights, sent)
    # and the late one is met again
    deadline = time.monotonic() + 5
    while late.fault and time.monotonic() < deadline:
        time.sleep(0.05)
    sent, _ = published(publisher, 2)
    for peer in peers:
        assert same(peer.engine.weights, sent)
        assert peer.error is None
        peer.stop()


def test_a_peer_that_is_lost_in_the_meeting_of_nccl_itself_is_left_behind() -> None:
    # Given a rank that comes to the store, and then never to NCCL
    from vllm.distributed.utils import StatelessProcessGroup

    sender = NcclSender("127.0.0.1", "cpu", bucket_bytes=BUCKET)
    update = sender.stage(weights(0).items())
    join = sender.open(2, 0.3)
    errors: list[str] = []

    def sends() -> None:
        try:
            sender.transfer(meet=True)()
        except TransferAborted as error:
            errors.append(str(error))

    sending = threading.Thread(target=sends)
    sending.start()
    meeting = StatelessProcessGroup.create("127.0.0.1", join["master_port"], 1, 2)
    meeting.store.set("here/1", b"1")
    # Then the sender gives up within the deadline, and its next group is a good one
    sending.join(5)
    assert "NCCL did not meet within 0.3 s" in errors[0]
    join = sender.open(2, 5.0)
    sending = threading.Thread(target=sender.transfer(meet=True))
    sending.start()
    engine = Gpuless()

    async def receives() -> None:
        await engine.join_group(join | {"rank_offset": 1})
        await engine.load_weights(update, Version(epoch="e", n=0))

    asyncio.run(receives())
    sending.join(5)
    assert same(engine.weights, weights(0))
    sender.close()


class Learner:
    """A policy with its end of a transfer."""

    def __init__(self, path: str, transport: str) -> None:
        self.policy = families.learner(path)
        kind: Any = {"nccl": NcclSender, "shared": SharedSender}[transport]
        self.sender = kind("127.0.0.1", "cpu", bucket_bytes=16 << 10)
        self.joined = False

    def disturb(self, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in self.policy.master.values():
            parameter.data.mul_(1 + 0.3 * torch.rand_like(parameter))
        self.policy.refresh()

    async def publish(self, engine: Any, n: int, *, pieces: int | None = None) -> None:
        """One sync; with `pieces`, only so many are sent, and nobody says so."""
        update = self.sender.stage(self.policy.weights())
        if meet := not self.joined:
            join = self.sender.open(2, 1.0 if pieces is None else 0.5)
        if pieces is not None:
            self.sender._staged = self.sender._staged[:pieces]
        sending = threading.Thread(target=self.sender.transfer(meet=meet))
        sending.start()
        self.joined = False
        if meet:
            await engine.join_group(join | {"rank_offset": 1})
        await engine.load_weights(update, Version(epoch="e", n=n))
        sending.join()
        self.joined = True


def small(path: str) -> RunConfig:
    return run_config(
        model={"name": path},
        task={"max_prompt_tokens": 64},
        sampling={"max_tokens": 24, "completions": 2},
        generator={"max_groups": 4, "threads": 1, "kv_cache_gib": 0.1},
        compute="float32",
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("transport", "reason"),
    [("nccl", "nothing moved for"), ("shared", r"transfer aborted.*[Tt]imed out")],
)
def test_vllm_lives_on_after_a_transfer_that_breaks_off(
    transport: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Real vLLM with its worker in a process of its own: one that breaks off before anything was
    loaded, and one after a part was. What comes through shared memory is loaded as it comes too.
    """
    from sppo.generators.vllm_engine import VllmEngine

    path = families.save("llama", tmp_path / "model")
    learner = Learner(path, transport)
    assert os.environ["VLLM_NCCL_SO_PATH"]
    prompt = families.group().prompt_ids[:8].tolist()
    greedy = SamplingParams(completions=1, temperature=0.0, max_tokens=8, seed=0)
    engine = VllmEngine(small(path), path, transport=transport, on_cpu=True)

    async def answer(label: str) -> Completion:
        return (await engine.sample(prompt, greedy, label))[0]

    async def work() -> dict[str, Completion]:
        await engine.start()
        try:
            await learner.publish(engine, 0)
            found = {"base": await answer("a")}
            # Nothing arrives of the next: the engine has what it had
            learner.disturb(1)
            await engine.pause()
            with pytest.raises(TransferAborted, match=reason) as caught:
                await learner.publish(engine, 1, pieces=0)
            assert not isinstance(caught.value, WeightsMixed)
            await engine.resume()
            found["after nothing"] = await answer("b")
            # Three buckets arrive and are loaded: the same process takes the whole next
            await engine.pause()
            with pytest.raises(WeightsMixed, match=reason):
                await learner.publish(engine, 1, pieces=3)
            await learner.publish(engine, 1)
            await engine.resume()
            found["new"] = await answer("c")
            return found
        finally:
            await engine.close()

    def gap(folder: str, made: Completion) -> float:
        return families.sampled_gap(families.load(folder), prompt, made)

    found = asyncio.run(work())
    learner.policy.export(exported := tmp_path / "exported", torch.float32)
    for name in ("base", "after nothing"):
        assert gap(path, found[name]) < 1e-3
    assert gap(str(exported), found["new"]) < 1e-3
    assert gap(path, found["new"]) > 0.1
    assert "weights go over gloo" not in caplog.text
