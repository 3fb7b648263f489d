"""The numbers and names that settings are made of, and the base of every section."""

from __future__ import annotations

from typing import Annotated, Any

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
Name = Annotated[str, AfterValidator(_filled)]


class Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (
            int,
            float,
        ):
            raise ValueError("must be a number, not true or false")
        return value
