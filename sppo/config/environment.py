"""Settings from the environment: `SPPO_<SECTION>__<SETTING>`, or a whole section as JSON."""

from __future__ import annotations

import os
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.sources import EnvSettingsSource

from sppo import strict_json
from sppo.config import renamed
from sppo.config.names import (
    ENVIRONMENT,
    OTHER_VARIABLES,
    keys,
    nearest,
    nearest_setting,
    sections,
    tables,
    variable,
    variables,
)
from sppo.config.run import RunConfig
from sppo.errors import ConfigError


class _FromEnvironment(RunConfig, BaseSettings):
    """What the environment may set, and how a variable is named: `SPPO_<SECTION>__<SETTING>`."""

    model_config = SettingsConfigDict(env_prefix="SPPO_", env_nested_delimiter="__")


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        """Sections, tables and lists from JSON that says each thing once. Raises ConfigError."""
        if _may_be_text(field.annotation) and not value.lstrip().startswith("["):
            return value
        try:
            found = strict_json.loads(value)
        except ValueError as error:
            said = next(
                v
                for v in os.environ
                if v.endswith(f"_{field_name.upper()}") and v.startswith("SPPO_")
            )
            raise ConfigError(
                f"{said} in the environment: {error}; sections, tables and lists are written as "
                f"JSON"
            ) from error
        if field_name in sections() and isinstance(found, dict):
            renamed.refuse([(ENVIRONMENT, {field_name: found})])
            # The source itself would match a key whatever its case.
            known = set(keys()) | {key.rpartition(".")[0] for key in keys()}
            for key in {f"{field_name}.{name}" for name in found} - known:
                raise ConfigError(
                    f"{key} (from {ENVIRONMENT}): no such setting{nearest_setting(key)}"
                )
        return found


def _may_be_text(kind: Any) -> bool:
    """Whether a setting is text or something else."""
    return get_origin(kind) in (Union, UnionType) and str in get_args(kind)


def read() -> dict[str, Any]:
    """What the environment sets. Raises ConfigError for a variable that names no setting."""
    _refuse_unknown()
    found = dict(_Environment(_FromEnvironment)())
    for section, name in (key.split(".") for key in tables()):
        if not isinstance(found.get(section, {}), dict) or not isinstance(
            found.get(section, {}).get(name, {}), dict
        ):
            continue  # what it is instead is said where everything is checked
        table = found.get(section, {}).get(name, {})
        table |= {key: _json_or_text(text) for key, text in table.items() if isinstance(text, str)}
    return found


def _refuse_unknown() -> None:
    ours = [v for v in os.environ if v.upper().startswith("SPPO_") and v not in OTHER_VARIABLES]
    old = {variable(key): key for key in renamed.RENAMED | renamed.REFUSED}
    renamed.refuse((f"{v} in the environment", {old[v]: os.environ[v]}) for v in ours if v in old)
    known = {variable(key) for key in [*sections(), *keys()]}
    within = tuple(f"{variable(key)}__" for key in tables())
    for wrong in ours:
        if wrong not in known and not wrong.startswith(within):
            raise ConfigError(
                f"{wrong} in the environment: no such setting{nearest(wrong, variables())}"
            )


def _json_or_text(text: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError:
        return text
