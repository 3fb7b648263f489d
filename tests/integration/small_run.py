"""A whole run in one process, for tests of what looks on it: `... tests.integration.small_run DIR`.

A tiny model, a deterministic engine that takes its time, a broker in memory, and the files that a
run keeps. Ctrl-C or SIGTERM ends it as it would any learner.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path

from sppo.config import RunConfig
from sppo.generators.fake import VOCABULARY, FakeEngine
from sppo.generators.loop import Generator
from sppo.launch import roles
from sppo.launch import run_dir as run_dirs
from sppo.learner import assemble
from sppo.scorer.base import InlineScorer
from sppo.transport.memory import MemoryBroker
from tests import makers
from tests.unit import judges

TOKEN_S = 0.02


def configuration(folder: Path) -> RunConfig:
    model = makers.tiny_model(folder / "model", vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(model), vocabulary=VOCABULARY)
    task = folder / "questions.jsonl"
    lines = [json.dumps({"question": f"w{i} w{i + 1}", "answer": "1"}) + "\n" for i in range(60)]
    task.write_text("".join(lines), encoding="utf-8")
    learner = {
        "steps": 100_000, "groups_per_step": 2, "lr": 1e-3, "parity_threshold": 100.0,
        "checkpoint_every": 50_000, "device": "cpu", "threads": 1,
    }  # fmt: skip
    return makers.run_config(
        model={"name": model},
        task={"name": f"jsonl:{task}", "held_out": 4},
        sampling={"completions": 3, "max_tokens": 4},
        **makers.sections(**learner),
        eval={"every_steps": 50_000},
        scorer={"mode": "inline", "name": f"{judges.__name__}:judge"},
    )


def main(run_dir: Path) -> None:
    (run_dir.parent / "parts").mkdir()
    config = configuration(run_dir.parent / "parts")
    broker = MemoryBroker()
    engine, scorer = FakeEngine(token_s=TOKEN_S), InlineScorer(config.scorer.name)
    generator = Generator(config, broker, engine, scorer, "generator-0")
    with run_dirs.locked(run_dir):
        run_dirs.claim(run_dir, config)
        thread = threading.Thread(target=lambda: asyncio.run(generator.run()), daemon=True)
        thread.start()
        with roles.following(config, broker, run_dir):
            outcome = assemble.run(config, broker, run_dir)
            broker.registry.request_stop("workers", "the learner is done")
            thread.join(10)
        run_dirs.write_json(run_dir / "summary.json", outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
