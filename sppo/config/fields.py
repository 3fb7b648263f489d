"""What settings are made of: numbers with an end, what may change them, the base of a section."""

from __future__ import annotations

import math
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from sppo.limits import MAX_INT


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


# Every number has an end: beyond these an engine, a timer, a frame or a float32 would overflow,
# deep in a run.
Positive = Annotated[int, Field(gt=0, le=MAX_INT)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Processes = Annotated[int, Field(gt=0, le=1024)]
Threads = Annotated[int, Field(ge=0, le=4096)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
Coefficient = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
Table = dict[str, int | float | str | bool]
DeepTable = dict[str, Any]
Name = Annotated[str, AfterValidator(_filled)]


def plain_table(value: Any) -> Any:
    """A table of the user's own. Raises ValueError for an entry that is no plain value."""
    for key, given in value.items() if isinstance(value, dict) else ():
        if not isinstance(given, (int, float, str)) or (
            isinstance(given, float) and not math.isfinite(given)
        ):
            raise ValueError(
                f"{key} must be text, a finite number, true or false, not {given!r:.80}"
            )
    return value


def deep_table(value: Any, where: str = "") -> Any:
    """A table of the user's own that may hold lists and tables. Raises ValueError for an entry that
    is no plain value.
    """
    if isinstance(value, dict):
        for key, given in value.items():
            deep_table(given, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, given in enumerate(value):
            deep_table(given, f"{where}[{i}]")
    elif where:
        plain_table({where: value})
    return value


def http_url(value: str, *, secret: str) -> str:
    """An address without a slash at its end, or nothing. Raises ValueError for anything else;
    `secret` says where credentials belong.
    """
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    if "@" in value:
        raise ValueError(f"carries credentials; give {secret}")
    if value and not urlsplit(value).hostname:
        raise ValueError("names no host")
    urlsplit(value).port  # noqa: B018 - raises ValueError for one that is no number or too large
    return value.rstrip("/")


def _is_number(kind: Any) -> bool:
    """Whether a type is a number, or a choice with one in it."""
    if get_origin(kind) in (Annotated, Union):
        return any(_is_number(part) for part in get_args(kind))
    return kind in (int, float)


class Change(Enum):
    """Where a setting may be another than the run began with. Stands in its field's annotation; a
    setting without one is what is learned, and stays.
    """

    FREE = "on resume, and from role to role: it says how long or where"
    ON_RESUME = "on resume; roles that run together must agree"
    PER_ROLE = "from role to role: it is one role's own affair, or an address"


FREE, ON_RESUME, PER_ROLE = Change.FREE, Change.ON_RESUME, Change.PER_ROLE


class Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and _is_number(wanted):
            raise ValueError("must be a number, not true or false")
        return value
