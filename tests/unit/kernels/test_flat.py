"""The schema that torch is given for arguments named once."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sppo.kernels.flat import schema_of


class Given(NamedTuple):
    first: Tensor
    maybe: Tensor | None
    number: float
    perhaps: float | None


class More(NamedTuple):
    count: int
    switch: bool
    name: str
    into: Tensor


class Unknown(NamedTuple):
    what: complex


def test_fields_of_all_parts_in_their_order() -> None:
    assert schema_of(Given, More, results=2) == (
        "(Tensor first, Tensor? maybe, float number, float? perhaps, SymInt count, bool switch, "
        "str name, Tensor into) -> (Tensor, Tensor)"
    )


def test_what_is_written_is_marked() -> None:
    assert schema_of(More, results=0, written=["into"]).endswith("Tensor(a0!) into) -> ()")


def test_torch_reads_it() -> None:
    torch._C.parse_schema("sppo::anything" + schema_of(Given, More, results=1, written=["into"]))


def test_a_kind_that_no_operation_takes_is_an_error() -> None:
    with pytest.raises(KeyError, match="complex"):
        schema_of(Unknown, results=1)
