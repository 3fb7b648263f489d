"""`sppo-cli bench sync`: one weight sync of a real model by phase, against a copy of the same bytes
in memory.

The learner's end is here: a model's weights, `WeightPublisher`, gloo on loopback, a real broker.
The other end is a process of its own, first with an engine that only keeps what it receives, then
with vLLM, which also reloads. The bars hold for the first; what the second takes longer is stated
as the engine's own share. Both engines are idle: what a step in progress adds before the pause is
not in these figures.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppo import config as settings
from sppo import marks, models
from sppo.bench.checks import Check, at_most
from sppo.config import BrokerConfig
from sppo.errors import BrokerError
from sppo.generators.engine import Engine
from sppo.generators.fake import FakeEngine
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer
from sppo.types import Member, Version
from sppo.weights.gloo import GlooSender
from sppo.weights.publisher import SyncReport, WeightPublisher
from sppo.weights.receiver import WeightReceiver

RUN = "bench"
NAME = "generator-0"
START_TIMEOUT_S = 300.0
PHASE_TIMEOUT_S = 60.0
SYNC_BAR_S = 0.3
"""Of the default model, 269 MB, beside what the engine's own reload takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Mean seconds of each phase with one engine."""

    engine: str
    stage_s: float
    ready_s: float
    transfer_s: float
    total_s: float
    pause_s: float
    """From the engine's pause to its resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One model's syncs."""

    model: str
    nbytes: int
    syncs: int
    memcpy_s: float
    engines: list[Phases]
    reload_s: float | None
    """What vLLM takes longer than an engine that keeps the bytes."""


def measure(name: str, syncs: int, *, with_vllm: bool, say: Callable[[str], None]) -> Measured:
    """Publish `syncs` times to each engine, after one that is not counted."""
    from transformers import AutoModelForCausalLM

    say(f"loading {name} ...")
    path = models.resolve(settings.ModelConfig(name=name))
    module = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, trust_remote_code=False
    )
    weights = {k: p.detach() for k, p in module.named_parameters()}
    nbytes = sum(w.numel() * w.element_size() for w in weights.values())
    engines = [_with_engine("keeps the bytes", path, weights, syncs, say)]
    if with_vllm:
        engines.append(_with_engine("vLLM", path, weights, syncs, say))
    return Measured(
        model=name,
        nbytes=nbytes,
        syncs=syncs,
        memcpy_s=_memcpy_s(nbytes),
        engines=engines,
        reload_s=engines[1].transfer_s - engines[0].transfer_s if with_vllm else None,
    )


def checks(found: Measured) -> list[Check]:
    """The transport's own cost; the engine's reload is stated beside it."""
    plain = found.engines[0]
    gb = found.nbytes / 1e9
    return [
        at_most("sync_seconds_per_gb", plain.total_s / gb, SYNC_BAR_S / 0.269, "s/GB"),
        at_most("pause_ms", plain.pause_s * 1e3, SYNC_BAR_S * 1e3 * max(1.0, gb / 0.269), "ms"),
    ]


def _memcpy_s(nbytes: int) -> float:
    source, sink = torch.ones(nbytes, dtype=torch.uint8), torch.zeros(nbytes, dtype=torch.uint8)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        sink.copy_(source)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _with_engine(
    engine: str, path: str, weights: dict[str, Tensor], syncs: int, say: Callable[[str], None]
) -> Phases:
    say(f"{engine}: starting ...")
    folder = Path(tempfile.mkdtemp(prefix="sppo-bench-"))
    server = EmbeddedServer(folder / "broker", max_bytes=64 << 20)
    config = server.start(BrokerConfig())
    broker = connect(config, RUN)
    context = multiprocessing.get_context("spawn")
    pauses: Any = context.Queue()
    values = config.model_dump(mode="json") | {"password": config.password.get_secret_value()}
    process = context.Process(
        target=_follow, args=(engine, path, values, pauses, marks.mark(folder, NAME))
    )
    process.start()
    publisher = WeightPublisher(
        broker.registry, broker.mailbox, GlooSender("127.0.0.1"), phase_timeout_s=PHASE_TIMEOUT_S
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not broker.registry.members():
            if time.monotonic() > deadline or not process.is_alive():
                raise BrokerError(f"the process of {engine} did not come up")
            time.sleep(0.1)
        reports: list[SyncReport] = []
        waits: list[float] = []
        for n in range(syncs + 1):
            reports.append(publisher.publish(Version(epoch="bench", n=n), weights.items()))
            waits.append(pauses.get(timeout=PHASE_TIMEOUT_S))
    finally:
        broker.registry.request_stop("workers", "measured")
        process.join(30)
        process.kill()
        publisher.close()
        broker.close()
        server.stop()
        marks.remove_shared_memory(marks.mark(folder, NAME))
        shutil.rmtree(folder, ignore_errors=True)
    counted = reports[1:]  # the first one meets and warms up
    return Phases(
        engine=engine,
        stage_s=statistics.mean(r.stage_s for r in counted),
        ready_s=statistics.mean(r.ready_s for r in counted),
        transfer_s=statistics.mean(r.transfer_s for r in counted),
        total_s=statistics.mean(r.total_s for r in counted),
        pause_s=statistics.mean(waits[1:]),
    )


def _follow(engine: str, path: str, values: dict[str, Any], pauses: Any, mark: str) -> None:
    """The other end, in a process of its own."""
    os.environ[marks.VARIABLE] = mark
    asyncio.run(_receive(_timed(engine, path, pauses), BrokerConfig(**values)))


def _timed(name: str, path: str, pauses: Any) -> Engine:
    """The engine, with its `pause` and `resume` reporting how long it stood still."""
    engine: Any = FakeEngine()
    if name == "vLLM":
        from sppo.generators.vllm_engine import VllmEngine

        run = settings.load("quickstart")
        engine = VllmEngine(run, path, transport="gloo", on_cpu=True)
    pause, resume = engine.pause, engine.resume
    paused_at = [0.0]

    async def timed_pause() -> None:
        await pause()
        paused_at[0] = time.monotonic()

    async def timed_resume() -> None:
        await resume()
        pauses.put(time.monotonic() - paused_at[0])

    engine.pause, engine.resume = timed_pause, timed_resume
    found: Engine = engine
    return found


async def _receive(engine: Engine, config: BrokerConfig) -> None:
    broker = connect(config, RUN)
    await engine.start()
    receiver = WeightReceiver(broker.mailbox, engine, NAME, phase_timeout_s=PHASE_TIMEOUT_S)
    following = asyncio.create_task(receiver.run())
    life, started = secrets.token_hex(4), time.monotonic()
    while not await asyncio.to_thread(broker.registry.stop_reason, "workers"):
        member = Member(
            name=NAME, role="generator", life=life, applied=str(receiver.applied or ""),
            world_size=engine.world_size, ready_s=time.monotonic() - started + 0.001,
        )  # fmt: skip
        await asyncio.to_thread(broker.registry.heartbeat, member, 30.0)
        await asyncio.sleep(0.5)
    following.cancel()
    await engine.close()
