"""From sources to a `RunConfig`, and what is said of a setting that is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr, ValidationError

from sppo.config import renamed, sources
from sppo.config.names import SECRETS, keys, nearest_setting, setting
from sppo.config.renamed import flatten
from sppo.config.run import RunConfig
from sppo.errors import ConfigError


def load(source: str, overrides: list[str] | None = None, *, environment: bool = True) -> RunConfig:
    """The configuration of a TOML file or preset, with the environment and `key=value` overrides
    applied.

    Raises ConfigError naming each wrong setting, its value and what is expected.
    """
    values: dict[str, Any] = {}
    layers = sources.layers(source, overrides, environment=environment)
    for _, layer in layers:
        sources.merge(values, layer)
    config = _validate(values, source, layers)
    broker = config.broker
    if (
        environment
        and broker.url.startswith("rediss://")
        and not broker.password.get_secret_value()
    ):
        raise ConfigError(
            f"broker.url = {broker.url!r}: such a server needs a password; set "
            f"SPPO_BROKER__PASSWORD"
        )
    return config


def origins(source: str, overrides: list[str] | None = None) -> dict[str, tuple[Any, str]]:
    """Each setting's value in force, secrets hidden, and where it came from. Raises ConfigError as
    `load`.
    """
    config = load(source, overrides)
    found = dict.fromkeys(keys(), "default")
    for origin, layer in sources.layers(source, overrides):
        for key in flatten(layer):
            found[setting(key)] = origin
    return {key: (_shown(config, key), origin) for key, origin in found.items()}


def _shown(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else "(not set)"
    return list(value) if isinstance(value, tuple) else value


def from_json(text: str) -> RunConfig:
    """Inverse of `to_json`, for roles in other processes. The environment is not read again."""
    return _validate(json.loads(text), "configuration of the run")


def _validate(
    values: dict[str, Any], source: str, layers: Sequence[tuple[str, dict[str, Any]]] = ()
) -> RunConfig:
    renamed.refuse(layers or [(source, values)])
    for key, value in flatten(values).items():
        if (
            isinstance(value, str)
            and not value.isascii()
            and value != value.encode(errors="replace").decode()
        ):
            shown = "" if key in SECRETS else f" = {value!r}"
            raise ConfigError(f"{key}{shown}: not UTF-8; check the terminal's locale")
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, source, layers) for e in error.errors())) from error


def _explain(error: Any, source: str, layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        origins = [name for name, layer in layers if where in flatten(layer) or where in layer]
        origin = origins[-1] if origins else source
        return f"{where} (from {origin}): no such setting{nearest_setting(where)}"
    message = error["msg"].removeprefix("Value error, ")
    credentials = where in ("broker.url", "scorer.url", "scorer.judge.url") and any(
        c in str(error["input"]) for c in "@?"
    )
    hidden = isinstance(error["input"], dict) or not where or where in SECRETS or credentials
    value = "" if hidden else f" = {error['input']!r:.200}"
    quote = ", in quotes" if error["type"] == "string_type" else ""
    return f"{where or source}{value}: {message}{quote}"
