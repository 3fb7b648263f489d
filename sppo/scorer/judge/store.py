"""Answers that were paid for, by what was asked, and what was spent: one SQLite file for all
processes of a run.

What is asked for is counted before it is sent (`reserve`), so that several processes together keep
a limit of calls exactly; a limit of cost is passed by what is under way when it is reached.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError, ScorerError, ScorerSpent

PATIENCE_S = 30.0
"""For another process to be done with the file."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, value REAL, words TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
    one INTEGER PRIMARY KEY CHECK (one = 1), calls INTEGER, prompt_tokens INTEGER,
    answer_tokens INTEGER
);
INSERT OR IGNORE INTO spent VALUES (1, 0, 0, 0);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one answer of the judge says."""

    value: float
    """Probability that the first is better, or a rating; NaN if the answer cannot be read."""
    words: str
    """The answer's beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Since the file was made."""

    calls: int
    prompt_tokens: int
    answer_tokens: int

    def cost(self, prices: tuple[float, float]) -> float:
        """By prices for a million tokens, of prompts and of answers."""
        return (self.prompt_tokens * prices[0] + self.answer_tokens * prices[1]) / 1e6


class Store:
    """One connection, for any thread.

    store = Store("judge.sqlite3", max_calls=1000)      # "" keeps all in memory
    if (known := store.find(key)) is None:
        store.reserve()
        store.keep(key, verdict, prompt_tokens=300, answer_tokens=1)   # or store.give_back()
    store.close()
    """

    def __init__(
        self, name: str, *, max_calls: int = 0, max_cost: float = 0.0,
        prices: tuple[float, float] = (0.0, 0.0),
    ) -> None:  # fmt: skip
        """Raises ConfigError for a file that is no such store."""
        self._name = name
        self._max_calls, self._max_cost, self._prices = max_calls, max_cost, prices
        self._lock = threading.Lock()
        try:
            if name:
                Path(name).absolute().parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                name or ":memory:", timeout=PATIENCE_S, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"scorer.judge.cache = {name!r}: no SQLite file of ours can be kept there: {error}"
            ) from error

    def find(self, key: bytes) -> Verdict | None:
        """The verdict that was kept, if there is one. Raises ScorerError."""
        rows = self._do([("SELECT value, words FROM answers WHERE key = ?", (key,))])
        if not rows:
            return None
        value, words = rows[0]
        return Verdict(value=value, words=words)

    def reserve(self) -> None:
        """Count one call that is about to be made. Raises ScorerSpent where a limit is reached."""
        limit = self._max_calls or 1 << 62
        rows = self._do(
            [("UPDATE spent SET calls = calls + 1 WHERE calls < ? RETURNING calls", (limit,))]
        )
        if not rows:
            raise ScorerSpent(
                f"the judge has answered {self._max_calls} calls, scorer.judge.max_calls"
                f"{self._mend()}"
            )
        if self._max_cost and (cost := self.spent().cost(self._prices)) >= self._max_cost:
            self.give_back()
            raise ScorerSpent(
                f"the judge has cost {cost:.6g} of scorer.judge.max_cost = {self._max_cost:g}"
                f"{self._mend()}"
            )

    def give_back(self) -> None:
        """A call that was not answered is not counted."""
        self._do([("UPDATE spent SET calls = calls - 1", ())])

    def keep(self, key: bytes, verdict: Verdict, *, prompt_tokens: int, answer_tokens: int) -> None:
        """What a call has brought, and what it has used. An answer that cannot be read is asked for
        again: the judge may be mended. Raises ScorerError.
        """
        row = (key, verdict.value, verdict.words)
        answer = ("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
        self._do(
            [
                *([] if math.isnan(verdict.value) else [answer]),
                (
                    "UPDATE spent SET prompt_tokens = prompt_tokens + ?, "
                    "answer_tokens = answer_tokens + ?",
                    (prompt_tokens, answer_tokens),
                ),
            ]
        )

    def spent(self) -> Spent:
        """By all processes that have used this file."""
        ((calls, prompt_tokens, answer_tokens),) = self._do(
            [("SELECT calls, prompt_tokens, answer_tokens FROM spent", ())]
        )
        return Spent(calls=calls, prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _do(self, statements: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """All in one transaction; the rows of the last."""
        with self._lock:
            try:
                if len(statements) == 1:
                    return self._db.execute(*statements[0]).fetchall()
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    rows = [self._db.execute(*each).fetchall() for each in statements][-1]
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
                return rows
            except sqlite3.Error as error:
                raise ScorerError(f"scorer.judge.cache = {self._name!r}: {error}") from error

    def _mend(self) -> str:
        where = f", counted in {self._name}" if self._name else ""
        return f"{where}; raise it to go on from the checkpoint"


def key(question: Mapping[str, Any]) -> bytes:
    """Of all that an answer depends on: model, messages, parameters."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).digest()
