"""How answers are put together."""

from __future__ import annotations

from sppo.scorer.math import shapes


def test_elements_of_a_list() -> None:
    assert shapes.elements("1, 2 and 3") == ["1", "2", "3"]
    assert shapes.elements(r"\{1,(2,3)\}") == ["1", "(2,3)"]
    assert shapes.elements(r"\pm 3") == ["+ 3", "- 3"]
    assert shapes.elements("x = 1, x = 2") == ["1", "2"]
    assert shapes.elements("1,234") == ["1,234"]


def test_brackets_and_points() -> None:
    assert shapes.bracketed("(1, 2]") == ("(]", ["1", "2"])
    assert shapes.bracketed("(1, 2)(3, 4)") is None
    assert shapes.point("(x, y) = (1, 2)") == ["1", "2"] == shapes.point("y = 2, x = 1")
    assert shapes.point("x = 1, x = 2") is None


def test_inequalities_as_intervals() -> None:
    assert shapes.interval("3 > x") == shapes.Interval("()", "-\\infty", "3", "x")
    assert shapes.interval(r"2 \le x < 3") == shapes.Interval("[)", "2", "3", "x")
    assert shapes.interval("x^2 < 3") is None
    assert shapes.union(r"x<1 or x>2") == ["x<1", "x>2"]


def test_matrices_and_bases() -> None:
    text = r"\begin{pmatrix}1 & 2\newline 3 & 4\end{pmatrix}"
    assert shapes.matrix(text) == ("", [["1", "2"], ["3", "4"]])
    assert shapes.based("0101_{2}") == ("101", 2)
    assert shapes.based("101_{two}") == ("101", 2)
    assert shapes.based("x_2") is None


def test_units_and_sides() -> None:
    assert shapes.without_unit(r"12\pi cm^2") == r"12\pi"
    assert shapes.without_unit("2m") == "2m"
    assert shapes.without_letter("5 m", "m") == "5"
    assert shapes.sides("a = b = 3") == ["a", "b", "3"]
    assert shapes.sides(r"\sum_{k=1}^{3} k") == [r"\sum_{k=1}^{3} k"]
    assert shapes.is_name("f(x)")
    assert not shapes.is_name("2x")
