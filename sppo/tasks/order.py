"""Which question a training ticket asks, by the ticket's index.

With one source: passes over it, each in an order of its own. With several, each block of `BLOCK`
tickets holds every source's share, in an order drawn for the block; within a source its prompts
come in passes of its own. So a share holds wherever a run stands, a small source is seen more often
than a large one of the same weight, and nothing but seed and index decides.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from sppo.errors import ConfigError
from sppo.tasks.question import Question, Questions

BLOCK = 1000


class Order:
    """The training order of one run.

    Raises ConfigError for a source that has no prompt, or less than one in a block.
    """

    def __init__(self, questions: Questions, seed: int) -> None:
        self._questions = questions.train
        self._seed = seed
        count = len(questions.weights)
        self._members: list[list[int]] = [[] for _ in range(count)]
        for position, question in enumerate(questions.train):
            self._members[question.origin].append(position)
        if [] in self._members:
            raise ConfigError(
                f"task.name[{self._members.index([])}]: none of its prompts is left to train: each "
                "is a duplicate of another source's, held out, or too long; leave the source out"
            )
        self._quota = quotas(questions.weights)
        self._passes: dict[int, tuple[int, list[int]]] = {}
        self._block: tuple[int, list[int]] = (-1, [])

    def position(self, index: int) -> int:
        """The place in `train` of the question of training ticket `index`."""
        if len(self._members) == 1:
            return self._in_pass(0, index)
        number, place = divmod(index, BLOCK)
        source = self._sources_of(number)[place]
        earlier = self._sources_of(number)[:place].count(source)
        return self._in_pass(source, number * self._quota[source] + earlier)

    def question(self, index: int) -> Question:
        """The question of training ticket `index`."""
        return self._questions[self.position(index)]

    def _in_pass(self, source: int, nth: int) -> int:
        """The place in `train` of the `nth` question that is asked of a source."""
        number, place = divmod(nth, len(self._members[source]))
        kept = self._passes.get(source, (-1, []))
        if kept[0] != number:
            of_source = f"{source}:" if len(self._members) > 1 else ""
            members = _shuffled(self._members[source], f"{self._seed}:{of_source}{number}")
            kept = self._passes[source] = (number, members)
        return kept[1][place]

    def _sources_of(self, number: int) -> list[int]:
        """The source of each ticket of a block."""
        if self._block[0] != number:
            slots = [source for source, quota in enumerate(self._quota) for _ in range(quota)]
            self._block = (number, _shuffled(slots, f"{self._seed}:block:{number}"))
        return self._block[1]


def quotas(weights: Sequence[float]) -> list[int]:
    """Tickets of each source in a block: the shares, rounded so that they fill it.

    Raises ConfigError where a source would have none.
    """
    shares = [weight * BLOCK / sum(weights) for weight in weights]
    found = [int(share) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda i: (found[i] - shares[i], i))
    for i in by_rest[: BLOCK - sum(found)]:
        found[i] += 1
    if 0 in found:
        i = found.index(0)
        raise ConfigError(
            f"task.name[{i}].weight = {weights[i]:g}: less than one prompt in {BLOCK}; raise it, "
            "or leave the source out"
        )
    return found


def _shuffled(items: Sequence[int], seed: str) -> list[int]:
    found = list(items)
    random.Random(seed).shuffle(found)
    return found
