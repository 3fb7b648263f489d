"""The names of settings, read off their fields: all, those that may change or differ, what a wrong
one meant.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from sppo.config.fields import Change
from sppo.config.run import RunConfig

ENVIRONMENT = "environment"
OTHER_VARIABLES = ("SPPO_CACHE", "SPPO_CRASH_POINT", "SPPO_CHAOS_DIR")


def fields() -> dict[str, FieldInfo]:
    """Every setting as section.setting."""
    return _fields(RunConfig)


def _fields(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= _fields(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def keys() -> list[str]:
    """The names of all settings."""
    return list(fields())


def sections() -> list[str]:
    return [key for key in RunConfig.model_fields if key not in keys()]


def tables() -> list[str]:
    """Settings with keys of the user's own."""
    return [key for key in keys() if isinstance(default(key), dict)]


def default(key: str) -> Any:
    """The default of a setting."""
    return fields()[key].get_default(call_default_factory=True, validated_data={})


def setting(key: str) -> str:
    """The setting to which a key belongs: a table such as task.params is one setting."""
    known = fields()
    while key not in known and "." in key:
        key = key.rpartition(".")[0]
    return key


def variable(key: str) -> str:
    return f"SPPO_{key.upper().replace('.', '__')}"


def variables() -> list[str]:
    return [*OTHER_VARIABLES, *map(variable, [*sections(), *keys()])]


def nearest_setting(wrong: str) -> str:
    return nearest(wrong, [*sections(), *keys()])


def nearest(wrong: str, known: list[str]) -> str:
    """What was probably meant, for the end of a message."""
    import difflib

    # Compared in lower case: `Learner` is nearer to `learner` than to anything else.
    names = {name.lower(): name for name in known}
    close = [
        names[name] for name in difflib.get_close_matches(wrong.lower(), names, n=2, cutoff=0.75)
    ]
    if close and close[0].lower() == wrong.lower():
        close = close[:1]
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return meant + ("" if meant else "; docs/configuration.md lists them all")


def _marked(*marks: Change) -> frozenset[str]:
    return frozenset(
        k for k, field in fields().items() if any(mark in field.metadata for mark in marks)
    )


RESUME_MAY_CHANGE = _marked(Change.FREE, Change.ON_RESUME)
"""Settings that a second `up` on the same run directory may change."""
ROLES_MAY_DIFFER = _marked(Change.FREE, Change.PER_ROLE)
"""Settings in which the roles of one run may differ."""
SECRETS = tuple(key for key, field in fields().items() if field.annotation is SecretStr)
"""Never shown, written down or taken from a command line."""
