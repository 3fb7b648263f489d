"""Everything that can be found wrong before anything starts: model, task, prompts, scorer, broker."""

from __future__ import annotations

from sppo.config import RunConfig
from sppo.errors import BrokerError, ConfigError
from sppo.tasks.questions import Questions
from sppo.transport.redis_broker import connect


def preflight(config: RunConfig) -> Questions:
    """Find every mistake that can be found before anything starts: model, task, prompts, scorer, broker.

    Returns the questions that the run will have. Raises ConfigError.
    """
    from sppo import models
    from sppo.scorer import rules
    from sppo.scorer.check import check_scorer
    from sppo.tasks import check, questions

    _check_reach(config)
    found = questions.load(config.task, config.seed)
    if config.broker.url:
        try:
            broker = connect(config.broker, config.name)
            broker.check_memory()
            broker.close()
        except BrokerError as error:
            raise ConfigError(str(error)) from error
    rules.check_answers("" if config.scorer.url else config.scorer.name, (*found.train, *found.held_out))
    check_scorer(config, found)
    path = models.resolve(config.model)
    check.check(config, found, models.load_tokenizer(path))
    return found


def _check_reach(config: RunConfig) -> None:
    """Raises ConfigError where roles on other machines of a cluster could not reach each other."""
    if not config.launch.ray_address:
        return
    if not config.broker.url:
        raise ConfigError(
            f"launch.ray_address = {config.launch.ray_address!r} with an empty broker.url: the embedded broker serves "
            "this machine alone; name a server that every machine reaches: SPPO_BROKER__URL=rediss://HOST:6379"
        )
