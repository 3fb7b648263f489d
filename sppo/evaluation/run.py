"""One evaluation from the outside: a target, its answers, what the scorer says of them.

find the target ── its run's settings ── held-out prompts ── answers ── scores ── figures
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sppo import compute, families, models
from sppo import config as settings
from sppo.config import RunConfig, ScorerConfig
from sppo.errors import ConfigError
from sppo.evaluation import answering, formats, judging, results, targets
from sppo.evaluation.judging import Item
from sppo.generators import engine as engines
from sppo.generators.loop import make_scorer
from sppo.scorer import rules
from sppo.scorer.base import check_options
from sppo.tasks import check, questions
from sppo.tasks.tickets import TicketFactory
from sppo.types import Answer, SamplingParams, Ticket

Tell = Callable[[str], None]
Done = Callable[[str, int, int], None]
Make = Callable[[RunConfig, str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for."""

    target: str
    task: str = ""
    """A preset or file whose [task], [sampling] and [scorer] to use, or a task's name; empty: those
    of the target's run.
    """
    n: int = 0
    """Held-out prompts; 0 takes all."""
    k: int = 1
    """Answers to each."""
    temperature: float | None = None
    """None: greedy for one answer, the run's for several."""
    against: str = ""
    scorer: str = ""
    engine: str = ""
    overrides: list[str] = field(default_factory=list)


def configure(plan: Plan) -> tuple[targets.Target, RunConfig]:
    """The target, and the settings of its evaluation. Raises ConfigError."""
    target = targets.find(plan.target)
    ours = str(target.run_dir / "config.toml") if target.run_dir else ""
    given = list(plan.overrides)
    if plan.engine:
        given.append(f"generator.engine={plan.engine}")
    is_file = plan.task in settings.presets() or plan.task.endswith(".toml")
    if plan.task and not is_file:
        given.append(f"task.name={plan.task}")
    if not plan.task and not ours:
        raise ConfigError(
            f"{plan.target} is no run, so say what to ask: --task with a preset "
            f"({', '.join(settings.presets())}), a TOML file, or a task.name"
        )
    config = settings.load(ours or (plan.task if is_file else ""), given)
    if ours and is_file:
        other = settings.load(plan.task, given)
        names = ("task", "sampling", "scorer")
        config = config.model_copy(update={name: getattr(other, name) for name in names})
    config = config.model_copy(update={"scorer": _scorer(plan, config.scorer)})
    return target, compute.decided(config, cuda=compute.engine_on_gpu(config))


def _scorer(plan: Plan, run: ScorerConfig) -> ScorerConfig:
    """The run's or another, in this process where it is no service of its own. Raises ConfigError
    for one that there is not, or whose options are wrong.
    """
    changes: dict[str, Any] = {"mode": "http" if run.url and not plan.scorer else "inline"}
    if plan.scorer:
        meant = any(key.startswith("scorer.options") for key in plan.overrides)
        options = run.options if meant or plan.scorer == run.name else {}
        changes |= {"name": plan.scorer, "url": "", "options": options}
    chosen = run.model_copy(update=changes)
    if not chosen.url:
        check_options(chosen.name, chosen.class_options)
    return chosen


def sampling(plan: Plan, config: RunConfig) -> SamplingParams:
    """How answers are drawn. Raises ConfigError for several that would be the same."""
    several = config.sampling.temperature if plan.k > 1 else 0.0
    temperature = several if plan.temperature is None else plan.temperature
    if temperature == 0 and plan.k > 1:
        raise ConfigError(f"--temperature 0: {plan.k} greedy answers (--k) would be the same")
    if not 0 <= temperature <= 1e3:
        raise ConfigError(f"--temperature {temperature:g}: must be within 0 and 1000")
    return SamplingParams(
        completions=plan.k,
        temperature=temperature,
        max_tokens=config.sampling.max_tokens,
        seed=config.seed,
    )


def tickets(plan: Plan, config: RunConfig, tokenizer: Any, tell: Tell) -> list[Ticket]:
    """The held-out prompts to ask. Raises ConfigError if there are fewer."""
    if not config.task.evaluates:
        raise ConfigError(
            f"task.held_out = {config.task.held_out}: no prompt is held out; "
            "--set task.held_out=200"
        )
    found = questions.load(config.task, config.seed, rules.readable(config.scorer))
    found = check.prompts(config, found, tokenizer)
    asked = TicketFactory(config, found, tokenizer).evaluation("eval", 0)
    if plan.n > len(asked):
        more = isinstance(config.task.held_out, int)
        mend = f", or --set task.held_out={plan.n}" if more else ""
        raise ConfigError(f"--n {plan.n}: {len(asked)} prompts are held out; lower it{mend}")
    tell(f"{plan.n or len(asked)} held-out prompts of {config.task.name}")
    return asked[: plan.n or None]


def run(
    plan: Plan, tell: Tell, done: Done, make: Make = engines.make
) -> tuple[dict[str, Any], list[Item]]:
    """Everything; `done` is told what is being done, how far it is, and of how much.

    Raises ConfigError for a wrong plan before a model is loaded, ScorerError if nothing is scored.
    """
    target, config = configure(plan)
    drawn = sampling(plan, config)
    other = _other(plan)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sppo-eval-")))
        folder = target.resolved(config, scratch)
        families.check_engine(
            families.read(folder, target.name), config.generator.engine, target.name,
            on_cpu=config.learner.device == "cpu", number_format=config.compute,
        )  # fmt: skip
        tokenizer = models.load_tokenizer(folder)
        asked = tickets(plan, config, tokenizer, tell)
        theirs: list[list[Answer]] = []
        if isinstance(other, Path):
            theirs = formats.read(other, asked, tokenizer)
        say = _Saying(tell, done, make)
        ours = say.answers(target.name, folder, config, asked, drawn)
        if other is not None and not isinstance(other, Path):
            against = _folder(other, config, scratch / "against")
            same = against == folder and drawn.temperature == 0
            theirs = ours if same else say.answers(plan.against, against, config, asked, drawn)
    items = [
        Item(ticket=ticket, ours=ours[i], theirs=theirs[i] if theirs else ())
        for i, ticket in enumerate(asked)
    ]
    none: Any = None  # no service of a run's is asked
    tell(f"scoring with {config.scorer.url or config.scorer.name}")
    judging.judge(items, make_scorer(config, none), lambda n: done("scored", n, len(items)))
    head = {
        "target": target.name, "task": config.task.name,
        "scorer": config.scorer.url or config.scorer.name,
        "k": plan.k, "temperature": drawn.temperature, "max_tokens": drawn.max_tokens,
    }  # fmt: skip
    found = head | results.figures(items, k=plan.k)
    if found["against"]:
        found["against"] = {"name": plan.against} | found["against"]
    return found, items


def _other(plan: Plan) -> targets.Target | Path | str | None:
    """What to compare with: a file of answers, another target, or `base`."""
    if not plan.against or plan.against == "base":
        return plan.against or None
    if Path(plan.against).is_file():
        return Path(plan.against)
    return targets.find(plan.against)


def _folder(other: targets.Target | str, config: RunConfig, scratch: Path) -> str:
    if isinstance(other, str):
        return models.resolve(config.model)
    if other.run_dir is None:
        return other.folder
    theirs = settings.load(str(other.run_dir / "config.toml"))
    return other.resolved(theirs.model_copy(update={"compute": config.compute}), scratch)


@dataclass(frozen=True, slots=True)
class _Saying:
    """Has a model answer, and says so."""

    tell: Tell
    done: Done
    make: Make

    def answers(
        self, name: str, folder: str, config: RunConfig, asked: Sequence[Ticket],
        drawn: SamplingParams,
    ) -> list[list[Answer]]:  # fmt: skip
        """With room in the engine for K at a time, however many the run samples."""
        self.tell(f"loading {name} into {config.generator.engine} ({config.compute})")
        room = config.sampling.model_copy(update={"completions": drawn.completions})
        config = config.model_copy(update={"sampling": room})
        return answering.answer(
            config, folder, asked, drawn, lambda n: self.done("answered", n, len(asked)), self.make
        )
