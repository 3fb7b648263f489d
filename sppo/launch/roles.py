"""What a role's process does: one function for every way of starting it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

from sppo.config import RunConfig
from sppo.transport.redis_broker import connect


def run_role(role: str, name: str, config: RunConfig, run_key: str, run_dir: Path) -> dict[str, Any]:
    """Be a learner, generator or scorer until the run ends; returns the learner's outcome, else an empty object.

    `config.broker` must name a running server, `run_key` the run's keys in it. Raises SppoError.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, force=True, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger(__name__).info("%s begins in process %d", name, os.getpid())
    # Threads that wait must not spin: on a small machine roles share cores. Read when OpenMP starts, so before torch.
    os.environ |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    broker = connect(config.broker, run_key, wait=True)
    try:
        if role == "learner":
            from sppo.learner import loop

            return loop.run(config, broker, run_dir)
        if role == "scorer":
            from sppo.scorer import loop as scorer_loop

            scorer_loop.run(config, broker, name)
            return {}
        assert role == "generator", f"no role {role!r}"
        asyncio.run(_generate(name, config, broker))
        return {}
    finally:
        broker.close()


async def _generate(name: str, config: RunConfig, broker: Any) -> None:
    from sppo import models
    from sppo.generators.loop import Generator, make_scorer
    from sppo.generators.vllm_engine import VllmEngine

    path, on_cpu = models.resolve(config.model), config.learner.device == "cpu"
    engine = VllmEngine(config, path, transport=config.weights.transport, on_cpu=on_cpu)
    await Generator(config, broker, engine, make_scorer(config, broker), name).run()


def redirect_output(path: Path) -> None:
    """Send everything this process and its children print to `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
