"""Which names a test takes from the program."""

from __future__ import annotations

import pytest

from sppo.scorer.code.judge import asked, modules_of


@pytest.mark.parametrize(
    ("test", "names"),
    [
        ("assert f(1) == 2", ["f"]),
        ("assert set(f(1)) == set([2])", ["f"]),
        ("assert sum(1, 2) == 3", ["sum"]),
        ("assert len(sorted(x)) == 3", ["x"]),
        ("def check(candidate):\n    assert abs(candidate(1)) < 1", []),
        ("x = f(1)\nassert all(y > 0 for y in x)", ["f"]),
        ("import math\nassert math.isclose(f(1), 2)", ["f"]),
    ],
)
def test_names(test: str, names: list[str]) -> None:
    assert asked(test) == names


def test_modules_of_the_standard_library_are_not_the_programs() -> None:
    assert modules_of("assert math.isclose(f(1), 2)") == {"math"}
    assert modules_of("assert queue(1) == x.y") == set()
