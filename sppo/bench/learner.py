"""`sppo-cli bench learner`: one optimizer step on identical groups, by turns, each side in a
process of its own.

    sppo       the learner as a run has it: prompts shared in a row
    padded     the same with one padded row a completion (`learner.share_prompt = false`)
    trl        TRL's GRPOTrainer, weights in float32 and autocast, as `bench loop` sets it up
    matmul     the products of a step's useful FLOPs, bare: what this machine cannot go below

All with the run's model, number format, threads, optimizer; tokens are random. Memory is what a
process grows by, from before the model is loaded, at most.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sppo import compute, families, models
from sppo import config as settings
from sppo.bench import learner_side, loop
from sppo.bench.checks import Check, at_least, at_most, unjudged
from sppo.bench.learner_side import SIDES, Found, Job, Side
from sppo.config import RunConfig, cpu_threads
from sppo.errors import ConfigError, SppoError

TRL_BAR, MATMUL_BAR, PADDED_BAR = 3.0, 0.4, 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Groups of one optimizer step."""

    name: str
    groups: int
    completions: int
    prompt: int
    shortest: int
    longest: int
    micro_batch_tokens: int


SHAPES = (
    Shape(name="quickstart", groups=8, completions=8, prompt=41, shortest=4, longest=16,
          micro_batch_tokens=1024),
    Shape(name="long", groups=1, completions=8, prompt=512, shortest=256, longest=256,
          micro_batch_tokens=4096),
)  # fmt: skip
"""The quickstart's, with its prompts' length; and longer ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One shape."""

    shape: Shape
    step_s: dict[Side, float]
    """Median of all rounds."""
    peak_bytes: dict[Side, float]
    """Median of all rounds."""
    vs_trl: float
    """TRL's seconds by ours."""
    vs_padded: float
    """Of our own padded path."""
    of_matmul: float
    """The bare products' seconds by ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was found."""

    compute: str
    fast_compute: str
    threads: int
    model: str
    rows: list[Row]


def measure(
    overrides: Sequence[str], *, steps: int, rounds: int, say: Callable[[str], None]
) -> Measured:
    """Every shape. Raises ConfigError where TRL is missing, SppoError where a side fails."""
    loop.needs_trl()
    config = resolved(overrides)
    models.resolve(config.model)  # converted once, before anything is timed
    rows = []
    for shape in SHAPES:
        job = job_of(config, shape, steps)
        found: dict[Side, list[Found]] = {side: [] for side in SIDES}
        for number in range(1, rounds + 1):
            for side in SIDES:
                say(f"{shape.name}, round {number} of {rounds}: {side} ...")
                found[side].append(_apart(side, job))
        rows.append(row(shape, found))
    auto = config.model_copy(update={"compute": "auto"})
    return Measured(
        compute=config.compute, fast_compute=compute.resolve(auto, cuda=False),
        threads=cpu_threads(config.learner.threads), model=config.model.name, rows=rows,
    )  # fmt: skip


def checks(found: Measured) -> list[Check]:
    """Judged in the number format that the processor is fast in, for the default model."""
    short, long = found.rows
    made = [
        at_least("learner_vs_trl", short.vs_trl, TRL_BAR, "x TRL's optimizer step"),
        at_least("learner_of_matmul", short.of_matmul, MATMUL_BAR, "of the bare products' rate"),
        at_least("learner_vs_padded", long.vs_padded, PADDED_BAR, "x our own padded path"),
        *(
            at_most(f"memory_vs_trl_{r.shape.name}", r.peak_bytes["sppo"] / r.peak_bytes["trl"],
                    1.0, "x TRL's")
            for r in found.rows
        ),
    ]  # fmt: skip
    judged = found.compute == found.fast_compute and found.model == models.PACKAGED
    return made if judged else [unjudged(check) for check in made]


def table(found: Measured) -> list[str]:
    """For a person."""
    lines = [
        f"{found.model}, {found.compute}, {found.threads} threads",
        f"{'shape':11} {'side':8} {'seconds a step':>15} {'peak MiB':>9}",
    ]
    for r in found.rows:
        lines += [
            f"{r.shape.name:11} {side:8} {r.step_s[side]:15.3f} {r.peak_bytes[side] / 2**20:9.0f}"
            for side in SIDES
        ]
    return lines


def row(shape: Shape, found: dict[Side, list[Found]]) -> Row:
    """Medians of the rounds; ratios are those of pairs, round by round."""

    def middle(side: Side) -> list[float]:
        return [statistics.median(each.step_s) for each in found[side]]

    def ratio(side: Side) -> float:
        pairs = zip(middle(side), middle("sppo"), strict=True)
        return statistics.median(other / own for other, own in pairs)

    return Row(
        shape=shape,
        step_s={side: statistics.median(middle(side)) for side in SIDES},
        peak_bytes={
            side: statistics.median(each.peak_bytes for each in found[side]) for side in SIDES
        },
        vs_trl=ratio("trl"), vs_padded=ratio("padded"), of_matmul=ratio("matmul"),
    )  # fmt: skip


def resolved(overrides: Sequence[str]) -> RunConfig:
    """The quickstart preset on this machine's CPU, with `compute` decided."""
    config = settings.load("quickstart", [*overrides, "learner.device=cpu"])
    if config.learner.ranks != 1:
        raise ConfigError(f"learner.ranks = {config.learner.ranks}: `bench learner` has one; 1")
    return compute.decided(config, cuda=False)


def job_of(config: RunConfig, shape: Shape, steps: int) -> Job:
    """A shape's, with the run's other settings."""
    learner = config.learner.model_copy(
        update={
            "groups_per_step": shape.groups, "mini_batches": 1, "epochs": 1,
            "micro_batch_tokens": shape.micro_batch_tokens,
        }
    )  # fmt: skip
    sampling = config.sampling.model_copy(
        update={"completions": shape.completions, "max_tokens": shape.longest}
    )
    run = config.model_copy(update={"learner": learner, "sampling": sampling})
    vocabulary = families.read_config(models.resolve(config.model)).vocab_size
    return Job(
        config=settings.to_json(run), prompt=shape.prompt, shortest=shape.shortest,
        longest=shape.longest, vocabulary=vocabulary, steps=steps,
    )  # fmt: skip


def _apart(side: Side, job: Job) -> Found:
    with tempfile.TemporaryDirectory(prefix="sppo-bench-") as name:
        folder = Path(name)
        learner_side.write(job, folder)
        done = subprocess.run(
            [sys.executable, "-m", learner_side.__name__, side, name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-15:])
            raise SppoError(f"{side} ended with exit code {done.returncode}:\n{last}")
        return Found(**json.loads((folder / f"{side}.json").read_text(encoding="utf-8")))
