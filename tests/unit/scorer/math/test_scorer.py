"""The `math` scorer as it is asked."""

from __future__ import annotations

import random
import resource
import time

import pytest

from sppo.scorer import calls
from sppo.scorer.math.scorer import Math
from sppo.types import ScoreRequest
from tests.unit.scorer.math.answers import ANSWERS, PHRASES

SOLUTION = "He sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72"
PIECES = [*r"{}()[]^_\$|,;=<!%+-*/ .017xei", "\\frac", "\\boxed{", "\\left", "\\\\", "####", "\n",
          "answer is ", "<answer>", "\\text{", "\ud83d", "\0", "٣", "½"]  # fmt: skip


def rewards(answer: object, *completions: str) -> list[float]:
    request = ScoreRequest(
        uid="1", question="", completions=completions, data={"answer": answer, "level": 3}
    )
    found: list[float] = Math().score(request)["rewards"]
    return found


def test_formats_of_gsm8k_and_math() -> None:
    assert rewards(SOLUTION, SOLUTION, "It is 72.", r"\boxed{73}", "") == [1, 0 + 1, 0, 0]
    assert rewards(r"So $\boxed{\frac12}$.", r"\boxed{0.5}", "The answer is 1/2.") == [1, 1]
    assert rewards(42, "42", "43") == [1, 0]
    assert rewards(0.5, "1/2") == [1]


def test_a_step_at_which_a_completion_was_cut_is_no_answer() -> None:
    request = ScoreRequest(
        uid="1", question="", completions=["So it is 7", "So it is 7", "\\boxed{7} So"],
        data={"answer": "7"}, finish_reasons=["stop", "length", "length"],
    )  # fmt: skip
    assert Math().score(request)["rewards"] == [1, 0, 1]


def test_details_say_what_was_read() -> None:
    request = ScoreRequest(
        uid="1", question="", completions=["It is 7.", "Hm.\n?"], data={"answer": "7"}
    )
    details = Math().score(request)["details"]
    assert details == [{"answer": "7"}, {"answer": None, "why": "no answer found"}]


@pytest.mark.parametrize(
    ("answer", "message"),
    [(None, "the answer is null"), ("", "holds no answer"), (["7"], "the answer is a list")],
)
def test_a_row_without_an_answer_is_named(answer: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewards(answer, "7")


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    request = ScoreRequest(uid="1", question="", completions=["7"], data={"solution": "7"})
    with pytest.raises(
        ValueError, match=r"no answer \(task.answer names its column\); it has solution"
    ):
        Math().score(request)


def test_an_option_that_is_wrong_is_named() -> None:
    with pytest.raises(calls.OptionError, match=r"scorer.options.deadline_s = 0"):
        calls.make("math", Math, {"deadline_s": 0.0})


def test_a_thousand_verdicts_take_less_than_five_seconds_of_one_core() -> None:
    pairs = [(gold, answer) for gold, right, wrong in ANSWERS for answer in right + wrong]
    texts = [(gold, phrase.format(answer)) for phrase in PHRASES[:3] for gold, answer in pairs]
    scorer = Math()
    scorer.setup()
    begun = used()
    for gold, text in texts[:1000]:
        scorer.score(ScoreRequest(uid="", question="", completions=[text], data={"answer": gold}))
    scorer.close()
    assert used() - begun < 5


def used() -> float:
    """Seconds that this process and those that it has ended have computed."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def test_nothing_that_a_model_writes_raises() -> None:
    rng = random.Random(3)
    scorer = Math(deadline_s=0.2)
    for _ in range(100):
        text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 30)))
        gold = rng.choice(ANSWERS)[0]
        request = ScoreRequest(uid="", question="", completions=[text], data={"answer": gold})
        assert scorer.score(request)["rewards"][0] in (0, 1)
    scorer.close()


@pytest.mark.parametrize(
    "text",
    ["10**10**10", "9^{9^{9^{9}}}", "100000000!", "{" * 50_000 + "}" * 50_000, "(" * 20_000],
)
def test_hostile_answers_are_wrong_at_once(text: str) -> None:
    begun = time.process_time()
    assert rewards("7", rf"\boxed{{{text}}}", r"\boxed{7}") in ([0, 1], [0.0, 1.0])
    assert time.process_time() - begun < 1
