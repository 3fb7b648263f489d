"""Everything that can be found wrong before anything starts, in one place.

First what takes no time: the machine, the run directory. Then, in a process of its own that takes
its libraries with it, every row of the data, the broker, the scorer, and the model with all that it
takes part in: a bad row, and a judge that does not answer, are told before a model is fetched.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sppo import compute
from sppo.config import RunConfig
from sppo.config.objectives import READS
from sppo.errors import BrokerError, ConfigError
from sppo.launch import aside, machine, outside, reach, room
from sppo.launch import run_dir as run_dirs

if TYPE_CHECKING:
    from sppo.tasks.questions import Questions

Tell = Callable[[str], None]


def at_once(config: RunConfig, folder: Path, *, role: str) -> None:
    """What takes no time. Raises ConfigError."""
    outside.check(config)
    if role == "up" and not config.launch.ray_address:
        room.check_here(config)
    machine.check(config, role)
    machine.check_disk(config, folder)
    run_dirs.check_checkpoint(folder)


def thorough(config: RunConfig, folder: Path, tell: Tell, *, role: str, accept: bool) -> bool:
    """What takes seconds; `tell` shows what is found and what is being waited for.

    Returns whether the run begins anew, as nothing was trained on other data; `accept` lets it go
    on with other data. Raises ConfigError. A learner on its own needs the libraries anyway, so it
    is checked in its own process.
    """

    def checks() -> bool:
        from sppo.tasks import fingerprint

        settled = run_dirs.with_cache(folder, config)
        found = check(settled, tell, alone=role == "learner")
        tell(found.describe())
        trained = run_dirs.has_progress(folder)
        return fingerprint.settle(folder, found, trained=trained, accept=accept)

    return checks() if role == "learner" else aside.call(checks)


def check(config: RunConfig, tell: Tell, *, alone: bool = False) -> Questions:
    """Data, broker, model, task, prompts, scorer; returns the questions that the run will have.

    A learner `alone` is not judged by what generators and scorers have on machines of their own:
    neither vLLM nor a user's function is tried here. Raises ConfigError.
    """
    from sppo import models

    reach.check_broker(config)
    if not alone:
        _check_installed(config)
    found = rows(config)  # first: what is wrong with them is told within seconds
    _check_objective(config)
    elsewhere = bool(config.scorer.url) or config.scorer.name == "llm-judge"
    if elsewhere:  # it says within seconds what is wrong with it; vLLM would take them
        _check_scorer(config, found, tell, alone)
    with nullcontext(_unasked) if alone else _engine_check(config) as engine_takes:
        _check_broker(config)
        path = models.resolve(config.model, tell)
        engine_takes(path)
        if not elsewhere:
            _check_scorer(config, found, tell, alone)
        return _check_parts(config, path, found)


def rows(config: RunConfig) -> Questions:
    """All that can be said of data and scorer without a model. Raises ConfigError with the row."""
    from sppo.scorer import rules
    from sppo.tasks import questions

    _check_options(config)
    return questions.load(config.task, config.seed, rules.readable(config.scorer))


def _check_options(config: RunConfig) -> None:
    """A scorer of ours takes its options. Raises ConfigError; no model is loaded."""
    from sppo.scorer import base

    if not config.scorer.url:
        base.check_options(config.scorer.name, config.scorer.class_options)


def _check_objective(config: RunConfig) -> None:
    """A class of the user's own is made as the learner will make it. Raises ConfigError."""
    if config.objective.name in READS:
        return
    from sppo.learner import objectives

    objectives.make(config.objective)


def _check_scores(config: RunConfig, compared: bool) -> None:
    """A class of the user's own gets what it needs of the scorer. Raises ConfigError."""
    from sppo.learner import objectives

    made = objectives.make(config.objective)
    objectives.check_scores(made, config.objective, compared=compared)


def _check_broker(config: RunConfig) -> None:
    if not config.broker.url:
        return
    from sppo.transport.redis_broker import connect

    try:
        broker = connect(config.broker, config.name)
        broker.check_memory()
        broker.close()
    except BrokerError as error:
        raise ConfigError(str(error)) from error


def _check_scorer(config: RunConfig, found: Questions, tell: Tell, alone: bool) -> None:
    """The scorer answers, and with what the objective needs. Raises ConfigError."""
    from sppo.scorer import base
    from sppo.scorer.check import check_scorer

    rule = callable(base.SCORERS.get(config.scorer.name))
    if config.scorer.url or rule or not alone:
        compared = check_scorer(config, found, tell)
        if compared is not None and config.objective.name not in READS:
            _check_scores(config, compared)


def _check_parts(config: RunConfig, path: str, found: Questions) -> Questions:
    """All that needs the model; returns the questions whose prompts it can take."""
    from sppo import models
    from sppo.launch import model_check
    from sppo.tasks import check

    tokenizer = models.load_tokenizer(path)
    model_check.check(config, path, tokenizer)
    return check.prompts(config, found, tokenizer)


def _engines_elsewhere(config: RunConfig) -> bool:
    """Whether this machine's vLLM says nothing of the run's: a cluster's engines live on other
    machines.
    """
    return config.generator.engine != "vllm" or bool(config.launch.ray_address)


def _check_installed(config: RunConfig) -> None:
    if not _engines_elsewhere(config) and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "generator.engine = 'vllm': vLLM is not installed; install the extra `cpu` (on a GPU "
            "machine `vllm`), or use generator.engine = 'transformers'"
        )
    engine_names(config)


def engine_names(config: RunConfig) -> None:
    """Raises ConfigError for an argument of vLLM's engine that the vLLM of this machine has not."""
    if config.generator.engine == "vllm":
        from sppo.generators import vllm_check

        vllm_check.check_names(config.generator.vllm)


def _engine_check(config: RunConfig) -> AbstractContextManager[Callable[[str], None]]:
    """vLLM's own parser at work beside the other checks, as soon as it has the model's
    folder. Of a run on a cluster, if vLLM is here, it sees the arguments without the devices.
    """
    if config.generator.engine != "vllm" or importlib.util.find_spec("vllm") is None:
        return nullcontext(_unasked)
    from sppo.generators import vllm_check

    cluster = bool(config.launch.ray_address)
    decided = compute.decided(config, cuda=True) if cluster else compute.here(config)
    return vllm_check.beside(decided)


def _unasked(path: str) -> None:
    """No engine of this machine has anything to say of a model."""
