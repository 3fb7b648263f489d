"""Rows that reasoning-gym makes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

from sppo.errors import ConfigError
from sppo.tasks.rows import Row, Tally

SEED = 7


def read(name: str, params: Mapping[str, Any], pool: int, tally: Tally) -> list[Row]:
    """The first `pool` entries of a dataset.

    Raises ConfigError for a dataset that there is not, or one that does not take `params`.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(f"{tally.setting} needs the package reasoning-gym")
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(name, size=pool, seed=SEED, **params)
    except ValueError as error:
        raise ConfigError(f"{tally.setting}: {error}") from error
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"{tally.setting}: task.params = {dict(params)}: {error}") from error
    # Through JSON: tuples and the like become plain types.
    plain = (json.loads(json.dumps(entry, default=str)) for entry in dataset)
    rows = [Row(where=f"{name}, entry {i}", columns=entry) for i, entry in enumerate(plain)]
    tally.rows = len(rows)
    return rows
