"""The rules."""

from __future__ import annotations

from sppo.scorer import rules


def test_the_rules() -> None:
    texts = ["-3", " -3\n", "It is -3.", "3", "1 - 4 = -3", "none"]
    assert rules.exact_match("", texts, {"answer": "-3"}) == [1, 1, 0, 0, 0, 0]
    assert rules.last_number("", texts, {"answer": "-3"}) == [1, 1, 1, 0, 1, 0]
    assert rules.last_number("", ["1,234"], {"answer": "1234"}) == [1]


def test_closest_number_compares_and_rewards_an_evaluation() -> None:
    table = rules.closest_number("", ["-3", "5", "none", "5"], {"answer": "-3"})
    assert table == [[0.5, 1, 1, 1], [0, 0.5, 1, 0.5], [0, 0, 0.5, 0], [0, 0.5, 1, 0.5]]
    assert rules.closest_number("", ["-3"], {"answer": "-3"}) == [1]


def test_boxed_answers_with_nested_braces() -> None:
    texts = [
        r"so \boxed{\frac{1}{2}}",
        r"\boxed{1} then \boxed{ \frac{1} {2} }",
        r"\frac{1}{2}",
        r"\boxed{1",
    ]
    assert rules.boxed_answer("", texts, {"answer": r"\frac{1}{2}"}) == [1, 1, 0, 0]
    assert rules.boxed_answer("", texts, {"answer": r"We get \boxed{\frac{1}{2}}."}) == [1, 1, 0, 0]


def test_reasoning_gym_scores_its_own_entries() -> None:
    data = {"answer": "84", "metadata": {"source_dataset": "chain_sum"}}
    assert rules.reasoning_gym_score("", ["84", "85"], data)[0] == 1.0
    assert rules.reasoning_gym_score("", ["84", "85"], data)[1] < 1.0
