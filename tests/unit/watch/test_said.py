"""Once; again when clearly worse, or when it is back."""

from __future__ import annotations

from sppo.watch.said import OVER, Finding, Said


def finding(badness: float) -> Finding:
    return Finding("mismatch", "words", badness)


def test_said_once_until_clearly_worse() -> None:
    said = Said()
    told = [said.is_news("mismatch", finding(b)) for b in (1.0, 1.0, 1.4, 1.5, 1.5, 2.0, 2.25)]
    assert told == [True, False, False, True, False, False, True]


def test_said_again_when_it_comes_back_after_it_was_over() -> None:
    said = Said()
    assert said.is_news("mismatch", finding(1.0))
    for fine in (OVER - 1, OVER):
        assert not any(said.is_news("mismatch", None) for _ in range(fine))
        assert said.is_news("mismatch", finding(1.0)) == (fine == OVER)


def test_topics_do_not_know_each_other() -> None:
    said = Said()
    assert said.is_news("mismatch", finding(1.0))
    assert said.is_news("lengths", Finding("lengths", "words"))
