"""Answers and what was spent, in one file."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from sppo.errors import ConfigError, ScorerSpent
from sppo.scorer.judge.store import Store, Verdict, key

ANSWER = Verdict(value=0.25, words="B")


def test_answers_and_spending_outlive_a_process(tmp_path: Path) -> None:
    name = str(tmp_path / "new" / "judge.sqlite3")
    for round in (1, 2):
        store = Store(name)
        assert (store.find(b"one") is None) == (round == 1)
        store.reserve()
        store.keep(b"one", ANSWER, prompt_tokens=100, answer_tokens=2)
        store.keep(b"none", Verdict(value=math.nan, words="?"), prompt_tokens=0, answer_tokens=0)
        store.close()
    store = Store(name)
    assert store.find(b"one") == ANSWER
    assert store.find(b"none") is None  # it could not be read
    assert (store.spent().calls, store.spent().prompt_tokens, store.spent().answer_tokens) == (
        2, 200, 4,
    )  # fmt: skip
    assert store.spent().cost((1.0, 1000.0)) == pytest.approx((200 + 4000) / 1e6)
    store.close()


def test_a_limit_of_calls_holds_for_all_processes_together(tmp_path: Path) -> None:
    stores = [Store(str(tmp_path / "s"), max_calls=20) for _ in range(2)]
    made: list[int] = []
    said: list[str] = []

    def work(store: Store) -> None:
        try:
            while True:
                store.reserve()
                made.append(1)
        except ScorerSpent as spent:
            said.append(str(spent))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 20
    assert all("answered 20 calls, scorer.judge.max_calls, counted in" in words for words in said)
    assert len(said) == 2
    stores[0].give_back()  # one was not answered
    stores[1].reserve()


def test_a_limit_of_cost_is_known_from_what_answers_used() -> None:
    store = Store("", max_cost=0.5, prices=(1000.0, 0.0))
    store.reserve()
    store.keep(b"one", ANSWER, prompt_tokens=600, answer_tokens=1)
    with pytest.raises(ScorerSpent, match=r"has cost 0.6 of scorer.judge.max_cost = 0.5; raise it"):
        store.reserve()
    assert store.spent().calls == 1


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no database at all, but long enough to look like one" * 20)
    for name in ("x", "x/y", "."):
        with pytest.raises(ConfigError, match=r"scorer.judge.cache = '.*no SQLite file of ours"):
            Store(str(tmp_path / name))


def test_a_question_is_known_by_all_of_it() -> None:
    one = {"messages": [{"role": "user", "content": "é"}], "model": "m", "temperature": 0.0}
    assert key(one) == key(dict(reversed(one.items())))
    assert len({key(one), key(one | {"model": "n"}), key(one | {"sample": 1})}) == 3
