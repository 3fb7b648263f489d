"""The schema of a custom operation from the named tuples that hold its arguments.

torch hands an operation flat arguments. Each list of them is spelled once, as the fields of a named
tuple: `schema_of(Call)` declares the operation, and inside it `Call(*flat)` has names again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_type_hints

from torch import Tensor

_KINDS: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    float: "float",
    float | None: "float?",
    int: "SymInt",
    bool: "bool",
    str: "str",
}


def schema_of(*parts: type[Any], results: int, written: Collection[str] = ()) -> str:
    """The fields of all parts in their order, to so many tensors; `written` are overwritten."""
    fields = {name: _KINDS[kind] for part in parts for name, kind in get_type_hints(part).items()}
    for i, name in enumerate(written):
        fields[name] = f"Tensor(a{i}!)"
    given = ", ".join(f"{kind} {name}" for name, kind in fields.items())
    return f"({given}) -> ({', '.join(['Tensor'] * results)})"
