"""Numbers in completions: exact, and no reward where the text leaves room for another reading."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from sppo.config import ScorerConfig
from sppo.scorer.numbers import box, number, stated
from sppo.scorer.rules import boxed_answer, closest_number, exact_match, last_number, readable

RIGHT = [
    ("She needs 5 more apples.", "5"), ("He ran 5 times.", "5"), ("13 - 77 is -64.", "-64"),
    ("2^{10} = 1,024", "1024"),
    ("1,234", "1234"), ("$1,234.50", "1234.5"), ("That makes $18.", "18"), ("42%", "42"),
    ("50%", "50%"),
    ("€5", "5"),
    ("5€", "5"), (r"\$5", "5"), (r"5\%", "5"), ("-$5", "-5"), ("$-5", "-5"), ("\u22125", "-5"),
    ("–5", "-5"),
    ("+5", "5"),
    (".5", "0.5"), ("5.0", "5"), ("-0", "0"), ("007", "7"), ("0.1", 0.1), ("42", 42), ("42", 42.0),
    ("1e22", 1e22),
    ("1e3", "1000"), ("1.5e-3", "0.0015"), ("10^3", "1000"), ("so 1.5 × 10^3 m", "1500"),
    (r"1.5\times 10^{3}", "1500"),
    ("1500", r"1.5\times 10^3"), ("1/2", "0.5"), ("2/4", "1/2"), ("2 1/2", "2.5"), ("2½", "2.5"),
    ("½", "1/2"),
    (r"It is $\frac{1}{2}$.", "0.5"), (r"2\frac{1}{2}", "5/2"), (r"-\frac12", "-1/2"),
    ("0.5", r"\frac{1}{2}"),
    ("5 million", "5000000"), ("5 dozen", "5"), ("12 apples", "12"), (r"5\text{ m}^2", "5"),
    ("48^\\circ", "48"),
    ("1\u202f000", "1000"), ("1{,}000", "1000"), ("1'000", "1000"), ("４２", "42"), ("٤٢", "42"),
    ("答案是42。", "42"),
    ("**42**", "42"), ("`42`", "42"), ("(42)", "42"), (r"\(42\)", "42"), ("$42$", "42"),
    ("42 🎉", "42"),
    ("“42”", "42"),
    ('{"answer": 42}', "42"), ("<answer>42</answer>", "42"), ("Answer:42", "42"), ("x=42", "42"),
    ("10-2=8", "8"),
    ("5 + 3 = 8", "8"), ("#### 42", "42"), ("The answer is:\n\n42", "42"), (r"\boxed{42}", "42"),
    (r"\fbox {42}", "42"),
    ("48/2 = <<48/2=24>>24 clips", "24"), ("The answer is that she has 7. It took 3 steps.", "7"),
    (r"\boxed{42}. Check: \boxed{4", "42"), ("#### 7\n\nQuestion 2", "7"),
    ("123456789012345678", "123456789012345678"),
]  # fmt: skip

WRONG = [
    ("5 apples + 3 pears", "3"), ("= - 64", "64"), ("5 over 2", "5"), ("2 hundredths", "2"),
    ("123456789012345679", "123456789012345678"), ("0.30000000000000004", "0.3"), ("5", "-5"),
    ("-5", "5"),
    ("5", ".5"),
    ("3/2", "1/2"), ("3/2", "2"), ("2 1/2", "1/2"), ("2½", "1/2"), (r"\frac{1}{2}", "2"),
    ("5/0", "0"),
    ("7 / 2", "2"),
    ("10^3", "3"), ("10**3", "3"), ("5^2", "5"), ("5²", "5"), ("1e3", "3"), ("1e400", "1"),
    ("5!", "5"), ("√2", "2"),
    (r"2\sqrt{3}", "3"), ("2x", "2"), ("3i", "3"), ("2π", "2"), ("2 pi", "2"), ("5 squared", "5"),
    ("2 thirds", "2"),
    ("log 5", "5"), ("|-5|", "-5"), ("5k", "5"), ("$5M", "5"), ("5 million", "5"), ("5万", "5"),
    ("2nd", "2"),
    ("A1", "1"),
    ("3:30", "30"), ("12/15/2024", "2024"), ("1.2.3", "3"), ("1.000,5", "5"), ("3,5", "5"),
    ("3,4", "34"),
    ("12,34", "34"), ("0,343", "343"),
    ("1 000", "0"), ("1_000", "1"), ("(2, 3)", "3"), ("2 or 3", "3"), ("2 and 3", "3"),
    ("5-8", "8"),
    ("10 - 2", "2"),
    ("2*5", "5"), ("2 × 5", "5"), ("- 5", "5"), ("--5", "5"), ("+-5", "5"), ("minus 5", "5"),
    ("<5", "5"),
    ("≥ 5", "5"),
    ("±5", "5"), ("x ≠ 5", "5"), ("The answer is not 5", "5"),
    ("The answer is 18. I used 3 steps.", "3"),
    ("The answer is twelve. I used 3 steps.", "3"), ("#### 7\nin 3 steps", "3"),
    (r"\boxed{42", "42"),
    (r"$\boxed 12$", "12"),
    (r"\boxed{3}, not 4", "4"), (r"\boxed{3,4}", "4"), ("50%", "0.5"), ("none", "0"), ("nan", "0"),
    ("", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "answer"), RIGHT)
def test_a_right_number_is_paid_however_it_is_written(completion: str, answer: str | float) -> None:
    assert last_number("", [completion], {"answer": answer}) == [1.0]


@pytest.mark.parametrize(("completion", "answer"), WRONG)
def test_a_wrong_or_doubtful_number_is_not_paid(completion: str, answer: str) -> None:
    assert last_number("", [completion], {"answer": answer}) == [0.0]


def test_worked_solutions_in_the_form_of_gsm8k_are_answers() -> None:
    gold = (
        "He sold 500 * 4 = $<<500*4=2000>>2,000.\nIn 2 years: 2 * 2,000 = "
        "<<2*2000=4000>>4,000\n#### 4,000"
    )
    completions = [gold, "He has $4,000.", "4000", "#### 4,000.", "4", "2,000", "#### 400"]
    assert last_number("", completions, {"answer": gold}) == [1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("answer", [None, True, ["1"], {"a": 1}, "none", "", "2, 3"])
def test_an_answer_that_holds_no_number_is_an_error_and_not_a_zero(answer: object) -> None:
    with pytest.raises(ValueError, match="answer"):
        last_number("", ["1"], {"answer": answer})


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        (r"\boxed{1,000}", "1000", 1),
        (r"\boxed{1 000}", "1000", 0),
        (r"\boxed{1 2}", "12", 0),
        (r"\boxed{0.50}", "1/2", 1),
        (r"\boxed{\dfrac{a}{b}}", r"\frac{a} {b}", 1),
        (r"\boxed{x + 1}", "x+1", 1),
        (r"\boxed{x=3}", "3", 1),
        (r"\boxed{2x}", "2", 0),
        (r"\boxed{(2, 3)}", "(2,3)", 1),
        (r"\boxed{[2, 3]}", "(2,3)", 0),
        (r"\boxed{3,4}", "34", 0),
        (r"First \boxed{3}, then \boxed{4}.", "3", 0),
        (r"\boxed{3} or rather \boxed{4}", r"so \boxed{4}", 1),
        (r"\boxed{42", "42", 0),
        (r"\boxed{72}", "48 + 24 = 72\n#### 72", 1),
        ("72", "72", 0),
        ("I do not know.", "", 0),
        (r"\boxed{}", "", 0),
        (r"\boxed{ }", r"\boxed{ }", 0),
    ],
)
def test_boxes_are_equal_as_numbers_or_as_text(completion: str, answer: str, reward: int) -> None:
    assert boxed_answer("", [completion], {"answer": answer}) == [reward]


def test_an_empty_answer_is_matched_by_nothing() -> None:
    assert exact_match("", ["", " ", "a"], {"answer": " "}) == [0, 0, 0]
    assert exact_match("", [" a ", "A"], {"answer": "a"}) == [1, 0]
    with pytest.raises(ValueError, match="null"):
        exact_match("", ["None"], {"answer": None})


def test_distances_are_exact_too() -> None:
    answer = "123456789012345678"
    assert closest_number("", ["123456789012345677", answer], {"answer": answer}) == [
        [0.5, 0.0],
        [1.0, 0.5],
    ]


@pytest.mark.parametrize(
    "text",
    ["1," * 50_000, "9" * 100_000, r"\boxed{" * 14_000 + "7", "(" * 50_000 + "7" + ")" * 50_000,
     r"\frac{1}{" * 20_000,
     "answer is "
     "" * 10_000, "<<" * 50_000, "{" * 50_000 + "}" * 50_000, "7" + "\n" * 100_000, "日1" * 50_000],
)  # fmt: skip
def test_hostile_text_is_read_quickly(text: str) -> None:
    began = time.process_time()
    stated(text)
    number(text)
    box(text)
    assert time.process_time() - began < 1


def test_a_number_is_the_whole_text_or_none() -> None:
    assert number("2 1/2 cups") == Fraction(5, 2)
    assert number("2 and 3") is None
    assert number("7" * 201) is None


def test_an_answer_that_a_rule_cannot_read_is_told_with_the_rule() -> None:
    read = readable(ScorerConfig(name="last-number"))
    assert read is not None
    read({"answer": "5"})
    with pytest.raises(ValueError, match=r"'last-number': the answer '2 or 3' holds no number"):
        read({"answer": "2 or 3"})
    with pytest.raises(
        ValueError, match=r"'last-number' needs an answer, .*task\.answer.*; there are question, y"
    ):
        read({"question": "q", "y": 1})
    text = readable(ScorerConfig(name="exact-match"))
    assert text is not None
    with pytest.raises(ValueError, match=r"'exact-match': the answer is null"):
        text({"answer": None})


def test_a_scorer_that_is_no_rule_reads_what_it_likes() -> None:
    assert readable(ScorerConfig(name="mine:score")) is None
    assert readable(ScorerConfig(name="last-number", url="http://127.0.0.1:1")) is None
