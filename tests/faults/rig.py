"""A whole run on a small scale: embedded server, real learner on a tiny model, generators with a
deterministic engine, a real scorer service; each role a process of its own that may be killed at
any instant and is started again.

Only the engine is cheap. Weight syncs go over gloo, groups through the server, checkpoints to disk.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sppo import config as settings
from sppo.chaos.audit import Audit, examine
from sppo.config import BrokerConfig, RunConfig
from sppo.transport.redis_broker import RedisBroker, connect
from sppo.transport.server import EmbeddedServer
from sppo.types import Completion, SamplingParams
from tests import makers

LONG = os.environ.get("FAULTS") == "long"
RUN = "faults"
TOKEN = "a-token"

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.preload"])


def even(question: str, completions: Sequence[str], data: Any) -> list[float]:
    """Rewards even sums of tokens."""
    return [float(int(c) % 2 == 0) for c in completions]


def role_main(
    role: str,
    name: str,
    config: str,
    broker: dict[str, Any],
    run_dir: str,
    crash: str,
    options: Any,
) -> None:
    """What a role's process does."""
    import logging

    import torch

    from sppo import faults

    torch.set_num_threads(1)
    log = os.open(f"{run_dir}/logs/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, force=True, format="%(asctime)s %(name)s %(message)s"
    )
    faults.arm(crash)
    run = settings.with_secrets(
        settings.from_json(config), broker=BrokerConfig(**broker), scorer_token=TOKEN
    )
    client = connect(run.broker, RUN, wait=True)
    if role == "learner":
        from sppo.learner import assemble

        assemble.run(run, client, Path(run_dir))
    elif role == "scorer":
        from sppo.scorer import loop as scorer_loop

        scorer_loop.run(run, client.registry, name, threading.Event())
    else:
        asyncio.run(_generate(run, client, name, options))


async def _generate(run: RunConfig, client: RedisBroker, name: str, options: Any) -> None:
    from sppo.generators.fake import FakeEngine
    from sppo.generators.loop import Generator, make_scorer

    class Engine(FakeEngine):
        async def sample(
            self, prompt_ids: Sequence[int], sampling: SamplingParams, request_id: str
        ) -> list[Completion]:
            completions = await super().sample(prompt_ids, sampling, request_id)
            if request_id == options.get("poison"):
                completions[0] = replace(completions[0], token_ids=completions[0].token_ids + 10**6)
            return completions

    engine = Engine(token_s=options.get("token_s", 0.005))
    await Generator(run, client, engine, make_scorer(run, client.registry), name).run()


class Rig:
    """with Rig(tmp_path, model) as rig: rig.run(crash={"learner": "learner.step.taken"});
    rig.audit()

    Who dies is taken out of the registry, as `up` does. Without `buries` its registration lapses,
    as that of a role by hand, and the next generator of its name waits for that.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        *,
        generators: int = 1,
        options: Any = None,
        buries: bool = True,
        scorer: dict[str, Any] | None = None,
        completions: int = 2,
        **learner: Any,
    ) -> None:
        self.run_dir = folder / "run"
        (self.run_dir / "logs").mkdir(parents=True)
        questions = folder / "questions.jsonl"
        questions.write_text(
            "".join(
                json.dumps({"question": f"w{i} w{i + 1}", "answer": "1"}) + "\n" for i in range(60)
            )
        )
        base: dict[str, Any] = {
            "steps": 6, "groups_per_step": 2, "lr": 1e-3, "parity_threshold": 100.0,
            "checkpoint_every": 2,
            "device": "cpu", "threads": 1,
        }  # fmt: skip
        limits = {k: learner.pop(k) for k in ("max_groups", "max_bytes") if k in learner}
        self.config = makers.run_config(
            model={"name": model},
            task={"name": f"jsonl:{questions}", "held_out": 2},
            sampling={"completions": completions, "max_tokens": 4},
            **makers.sections(**base | learner),
            eval={"every_steps": 4},
            generator={"start_timeout_s": 60, "max_groups": 4},
            scorer=scorer or {"name": "tests.faults.rig:even"},
            broker={"lease_s": 1.5, "outage_s": 30, **limits},
            weights={"phase_timeout_s": 2},
        )
        self.server = EmbeddedServer(folder / "broker", max_bytes=64 << 20)
        self.options = options or {}
        self._buries = buries
        self.deaths: Counter[str] = Counter()
        self._names = ["scorer-0", *(f"generator-{i}" for i in range(generators)), "learner-0"]
        self._processes: dict[str, Any] = {}

    def __enter__(self) -> Rig:
        self.broker_config = self.server.start(self.config.broker)
        self.broker = connect(self.broker_config, RUN)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()
        self.broker.close()
        self.server.stop()

    def start(self, name: str, crash: str = "") -> None:
        role = name.rsplit("-", 1)[0]
        broker = self.server.credentials(self.broker_config, role)
        values = broker.model_dump(mode="json") | {"password": broker.password.get_secret_value()}
        arguments = (
            role,
            name,
            settings.to_json(self.config),
            values,
            str(self.run_dir),
            crash,
            self.options,
        )
        self._processes[name] = CONTEXT.Process(target=role_main, args=arguments, daemon=True)
        self._processes[name].start()

    def pid(self, name: str) -> int:
        return int(self._processes[name].pid)

    def run(self, crash: dict[str, str] | None = None, *, timeout_s: float = 90) -> None:
        """To the learner's end; whoever dies is started again, without its crash point."""
        for name in self._names:
            self.start(name, (crash or {}).get(name.rsplit("-", 1)[0], ""))
        deadline = time.monotonic() + timeout_s
        while self.step():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def step(self) -> bool:
        """Start the dead again; False once the learner has finished."""
        for name, process in list(self._processes.items()):
            if process.exitcode is None:
                continue
            if name == "learner-0" and process.exitcode == 0:
                return False
            assert process.exitcode == -9, f"{name} ended with {process.exitcode}\n{self.logs()}"
            self.deaths[name] += 1
            if self._buries:
                self.broker.registry.leave(name)
            self.start(name)
        return True

    def audit(self) -> Audit:
        return examine(self.run_dir, self.broker, finished=True)

    def logs(self) -> str:
        logs = sorted((self.run_dir / "logs").glob("*.log"))
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in logs)
