"""Where an answer stands."""

from __future__ import annotations

import pytest

from sppo.scorer.math.extract import answer_of, reference_of


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48/2 = <<48/2=24>>24\n#### 72", "72"),
        (r"Thus $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"So $\boxed 12$.", "12"),
        (" 42 ", "42"),
        (r"The roots are $\boxed{1}$ and $\boxed{2}$.", "1, 2"),
    ],
)
def test_the_reference_of_a_row(text: str, answer: str) -> None:
    assert reference_of(text) == answer


@pytest.mark.parametrize("text", ["", "  ", "The solution:\n#### ", r"\boxed{", r"\boxed{}"])
def test_a_row_without_a_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="holds no answer"):
        reference_of(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{3}, then \boxed{4}.", "4"),
        (r"Either $\boxed{3}$ or $\boxed{4}$.", "3, 4"),
        (r"\boxed{42}. Check: \boxed{4", "42"),
        (r"It is \boxed{42", None),
        (r"\boxed{x = \left\{ 2 \right.}", r"x = \left\{ 2 \right."),  # a printed brace
        (r"So $a = -8 \cdot 4 = -\boxed{32}$.", "-(32)"),
        (r"So $x - \boxed{32}$.", "32"),
        (r"$\boxed 12$", None),
        (r"$\boxed 7$", "7"),
        ("I add.\n#### 12", "12"),
        ("<answer> x = 2 </answer>", "x = 2"),
        ("The answer is $\\frac{1}{2}$. I used $3$ steps.", r"\frac{1}{2}"),
        ("The answer is therefore 35.", "35"),
        ("The answer is 42 dollars, since 40 are left.", "42 dollars"),
        ("Is the answer 5? No, the answer is 6.", "6"),
        ("**Answer:** B", "B"),
        ("The answers are $2$ and $3$.", "2, 3"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("The answer is that the volume of $ABCD$ is 120 cm.", "120 cm"),
        ("Final Answer: The largest $n$ whose $n^2$ is even is $34$.", "34"),
        ("The answer is: 5 is not a root", "5 is not a root"),
        ("The answer is " + "it is " * 2000 + "5.", "5"),
        ("Both sides by $6$: $5x=30$ and $x=6$.", "x=6"),
        ("So $x=2$ and $y=3$.", "x=2, y=3"),
        ("The final answer is: 18\n\nI hope it helps.", "18"),
        ("We get $a = 1$.\nHence $x^2+1$.", "x^2+1"),
        ("She has 12 apples.", "12"),
        ("I do not know.\nSorry.", None),
    ],
)
def test_the_answer_of_a_completion(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So 3 barrels cost 1 + 1 = 2", None),  # a step on the way
        ("It is $x = 12$", None),
        ("The answer is 12", None),  # of 120, perhaps
        ("#### 12", None),
        ("The answer is 12. To check this, we", "12"),
        ("#### 12\nTo check", "12"),
        ("\\boxed{12} and then", "12"),
        ("<answer>12</answer>", "12"),
    ],
)
def test_the_end_of_a_completion_that_was_cut_is_no_answer(text: str, answer: str | None) -> None:
    assert answer_of(text, cut=True) == answer
