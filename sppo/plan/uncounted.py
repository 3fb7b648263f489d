"""What cannot be counted is told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from sppo.errors import ConfigError

BY_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
FAILURES = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Of a model's own code, which was not written to run without values."""


class UncountedError(ConfigError):
    """No plan can be made of this model; a run of it may be right."""


@contextmanager
def told(config: Any) -> Iterator[None]:
    """Around code of the model of a Transformers configuration. Raises UncountedError for its
    errors.
    """
    try:
        yield
    except ConfigError:
        raise
    except BY_VALUES as error:
        raise UncountedError(
            f"model.name: the layers of {config.model_type!r} choose shapes by values "
            f"({error.func}): their activations cannot be counted without running them"
        ) from error
    except FAILURES as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UncountedError(
            f"model.name: a {config.model_type!r} does not run without values, so it cannot be "
            f"counted ({type(error).__name__}: {reason})"
        ) from error
