"""What a scorer's process makes of a reply, and of an error."""

from __future__ import annotations

import pytest

from sppo.scorer.worker import explain, plain


class Scalar:
    """As an array without dimensions."""

    def tolist(self) -> float:
        return 2.5


def test_numbers_of_any_kind_become_floats() -> None:
    assert plain([1, True, Scalar()]) == [1.0, 1.0, 2.5]
    assert plain([[0.5, 1], [0, 0.5]]) == [[0.5, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize("reply", [["1"], [None], [10**400], 3, None])
def test_what_is_no_number_is_refused(reply: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        plain(reply)


def test_an_error_is_one_line_and_says_whether_it_would_come_again() -> None:
    def told(error: Exception) -> dict[str, object]:
        try:
            raise error
        except Exception as raised:  # noqa: BLE001 - any
            return explain(raised, __file__)

    bug = told(NameError("two\nlines"))
    assert str(bug["error"]).startswith("NameError: two lines (test_worker.py, line ")
    assert bug["final"]
    assert not told(RuntimeError("busy"))["final"]
