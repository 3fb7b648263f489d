"""Distinct questions, split once into training and held-out by a hash of their text.

Procedural datasets repeat questions, and their seeds overlap (entry i of seed s is entry i + 1 of seed s − 1), so two
seeds do not make a split. The hash does: a question is on the same side in every run, whatever the seed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo.config import TaskConfig
from sppo.errors import ConfigError

HELD_OUT_SHARE = 5  # one question in five may be held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One prompt before the chat template."""

    source: str
    """The question as the data set has it: what is distinct, and what the split hashes."""
    text: str
    """The user message."""
    data: Mapping[str, Any]
    """For the scorer: `answer`, and what the source adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The two sides of the split; no text stands on both."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]

    def training_order(self, seed: int, number: int) -> list[int]:
        """Positions in `train` for pass `number`: every question once, in an order of that pass."""
        order = list(range(len(self.train)))
        random.Random(f"{seed}:{number}").shuffle(order)
        return order


def is_held_out(text: str) -> bool:
    """Which side a question's text belongs to."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0


def load(config: TaskConfig, seed: int) -> Questions:
    """The questions of a task. Raises ConfigError for an unknown task, a bad file or too few questions."""
    kind, _, name = config.name.partition(":")
    if kind == "reasoning-gym" and name:
        entries = _reasoning_gym(name, config)
    elif kind == "jsonl" and name:
        entries = _jsonl(Path(name))
    else:
        raise ConfigError(f"task.name = {config.name!r}: write it as reasoning-gym:<dataset> or jsonl:<file>")
    distinct: dict[str, Question] = {}
    for entry in entries:
        source = str(entry["question"])
        if source not in distinct:
            distinct[source] = Question(source=source, text=_prompt(config, entry), data=_data(config.name, entry))
    return split(distinct.values(), held_out=config.held_out, seed=seed, name=config.name)


def split(questions: Iterable[Question], *, held_out: int, seed: int, name: str) -> Questions:
    """Split distinct questions by the hash of their text. Raises ConfigError if either side is too small."""
    sides: dict[bool, list[Question]] = {True: [], False: []}
    for question in questions:
        sides[is_held_out(question.source)].append(question)
    if not held_out:  # nothing to keep apart
        sides = {True: [], False: [*sides[False], *sides[True]]}
    if len(sides[True]) < held_out or not sides[False]:
        raise ConfigError(
            f"task.held_out = {held_out}: {name} has {len(sides[True])} distinct questions on the held-out side "
            f"and {len(sides[False])} for training; lower it, or raise task.pool"
        )
    # The held-out choice must not depend on the run's seed: accuracies of two seeds are compared.
    chosen = sorted(sides[True], key=lambda q: hashlib.sha256(q.source.encode()).digest())[:held_out]
    return Questions(train=tuple(sides[False]), held_out=tuple(chosen))


def _prompt(config: TaskConfig, entry: Mapping[str, Any]) -> str:
    fields = {**entry.get("metadata", {}), **{k: v for k, v in entry.items() if k != "metadata"}}
    try:
        return config.prompt.format_map(fields)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"task.prompt = {config.prompt!r}: {error} is not a field of this task; it has {', '.join(sorted(fields))}"
        ) from error


def _data(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    # Through JSON: tuples and the like become plain types that msgpack and an HTTP scorer can carry.
    data: dict[str, Any] = json.loads(json.dumps({**entry, "task": name}, default=str))
    return data


def _reasoning_gym(name: str, config: TaskConfig) -> list[dict[str, Any]]:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(f"task.name = {config.name!r} needs the package reasoning-gym")
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(name, size=config.pool, seed=7, **config.params)
    except ValueError as error:
        raise ConfigError(f"task.name = {config.name!r}: {error}") from error
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"task.params = {config.params}: {error}") from error
    return list(dataset)


def _jsonl(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ConfigError(
            f'task.name = \'jsonl:{path}\': no such file; it is to hold {{"question": ..., "answer": ...}} on each line'
        )
    entries = []
    for number, line in enumerate(path.read_text().split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(entry, dict) or not {"question", "answer"} <= entry.keys():
            raise ConfigError(f"{path}:{number}: needs the fields question and answer")
        entries.append(entry)
    return entries
