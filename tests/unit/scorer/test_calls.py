"""How a scorer is made and asked, what becomes of its answer, and of an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from sppo.scorer.calls import OptionError, Request, answer, explain, fits, load, make, plain


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
    assert str(bug["error"]).startswith("NameError: two lines (test_calls.py, line ")
    assert bug["final"]
    assert not told(RuntimeError("busy"))["final"]


class Made:
    def __init__(
        self,
        *,
        model: str,
        device: Literal["cpu", "cuda"] = "cpu",
        parts: list[float] | None = None,
    ) -> None:
        if model == "none":
            raise ValueError("there is no such model")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modle": "x"}, "scorer.options.modle: no such option of mine; did you mean model?"),
        (
            {"zzz": "x"},
            "scorer.options.zzz: no such option of mine; there are model, device, parts",
        ),
        ({}, "scorer.options.model: mine needs it"),
        ({"model": 3}, "scorer.options.model = 3: must be text"),
        ({"model": "x", "device": "tpu"}, "device = 'tpu': must be one of 'cpu', 'cuda'"),
        ({"model": "x", "parts": [1, "2"]}, "must be a list, each a number"),
        ({"model": "none"}, "scorer.options: mine: there is no such model"),
    ],
)
def test_an_option_that_does_not_fit_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        make("mine", Made, options)
    assert words in str(caught.value)


def test_options_that_fit_make_the_object() -> None:
    assert isinstance(make("mine", Made, {"model": "x", "parts": [1, 2.5]}), Made)


@pytest.mark.parametrize(
    ("value", "hint", "yes"),
    [
        (1, int, True), (True, int, False), (1, float, True), (1.5, int, False), (True, bool, True),
        ("a", str | None, True), ([1], list[str], False), ({"a": 1}, dict[str, int], True),
        ({"a": 1}, list[int], False), ("x", Path, True), ("x", Any, True),
    ],
)  # fmt: skip
def test_values_fit_types(value: Any, hint: Any, yes: bool) -> None:
    assert fits(value, hint) == yes


def one(request: Any) -> list[float]:
    return [float(len(request.messages))]


def three(question: str, completions: list[str], data: dict[str, Any]) -> list[float]:
    return [float(len(completions))]


def test_a_scorer_is_asked_in_the_form_that_it_wants() -> None:
    asked = Request.of(
        {
            "uid": "u",
            "question": "q",
            "completions": ["a"] * 5,
            "data": {},
            "messages": [["user", "q"]],
        }
    )
    assert asked.messages == (("user", "q"),)
    for name, reply in (("one", 1.0), ("three", 5.0)):
        loaded = load(name, f"{__name__}:{name}", {})
        assert loaded.call([asked]) == [[reply]]
        assert (loaded.batch, loaded.concurrent) == (1, False)


def two(question: str, completions: list[str]) -> list[float]:
    return []


class Silent:
    pass


def test_what_cannot_be_called_says_how_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"two takes 2 parameters; write it as score\(request\)"):
        load("two", f"{__name__}:two", {})
    with pytest.raises(TypeError, match="class Silent has no method score"):
        load("silent", f"{__name__}:Silent", {})
    with pytest.raises(OptionError, match=r"scorer\.options\.a: one is a function"):
        load("one", f"{__name__}:one", {"a": 1})


def test_an_answer_may_be_a_table_with_details() -> None:
    details = [{"n": 1}, {}]
    assert answer({"rewards": [1, 0], "details": details}) == {
        "rewards": [1.0, 0.0], "details": details,
    }  # fmt: skip
    assert answer({"rewards": [1, 0]}) == [1.0, 0.0]
    for bad in (
        {"rewards": [1], "preferences": [[0.5]]},
        {"scores": [1]},
        {"preferences": [1.0]},
        {"rewards": [1], "details": ["right"]},
        {"rewards": [1], "details": [{"x": object()}]},
    ):
        with pytest.raises(TypeError):
            answer(bad)
