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
    return config.model_dump_json(exclude={"broker": {"password"}, "scorer": {"token"}})


def to_toml(config: RunConfig) -> str:
    """The resolved configuration as TOML, without secrets."""
    import tomli_w

    values = config.model_dump(mode="json")
    values["broker"].pop("password")
    values["scorer"].pop("token")
    return tomli_w.dumps(values)


def with_secrets(config: RunConfig, *, broker: BrokerConfig, scorer_token: str) -> RunConfig:
    """The configuration with the broker that was started and the scorer's token filled in."""
    scorer = config.scorer.model_copy(update={"token": SecretStr(scorer_token)})
    return config.model_copy(update={"broker": broker, "scorer": scorer})


def identity(config: RunConfig) -> dict[str, Any]:
    """The settings that every role of one run must share, by name."""
    values = flatten(json.loads(to_json(config)))
    return {key: value for key, value in values.items() if setting(key) not in ROLES_MAY_DIFFER}
