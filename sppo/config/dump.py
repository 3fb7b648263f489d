"""A configuration on its way to other processes and to disk. Secrets travel apart."""

from __future__ import annotations

import json
from typing import Any

from pydantic import SecretStr

from sppo.config.broker import BrokerConfig
from sppo.config.names import ROLES_MAY_DIFFER, setting
from sppo.config.renamed import flatten
from sppo.config.run import RunConfig


def to_json(config: RunConfig) -> str:
    """The configuration without its secrets, which travel beside it (`with_secrets`)."""
    return config.model_dump_json(
        exclude={
            "broker": {"password"},
            "scorer": {"token": True, "judge": {"api_key"}},
            "metrics": {"token"},
        }
    )


def to_toml(config: RunConfig) -> str:
    """The resolved configuration as TOML, without secrets."""
    import tomli_w

    values = config.model_dump(mode="json")
    values["broker"].pop("password")
    values["scorer"].pop("token")
    values["metrics"].pop("token")
    values["scorer"]["judge"].pop("api_key")
    return tomli_w.dumps(values)


def with_secrets(
    config: RunConfig, *, broker: BrokerConfig, scorer_token: str, judge_key: str = ""
) -> RunConfig:
    """The configuration with the broker that was started, the scorer's token and the judge's key
    filled in.
    """
    judge = config.scorer.judge.model_copy(update={"api_key": SecretStr(judge_key)})
    scorer = config.scorer.model_copy(update={"token": SecretStr(scorer_token), "judge": judge})
    return config.model_copy(update={"broker": broker, "scorer": scorer})


def identity(config: RunConfig) -> dict[str, Any]:
    """The settings that every role of one run must share, by name."""
    values = flatten(json.loads(to_json(config)))
    return {key: value for key, value in values.items() if setting(key) not in ROLES_MAY_DIFFER}
