"""`pairwise-model`: a model that compares two completions gives preferences.

    [scorer]
    name = "pairwise-model"
    options = { model = "a folder or hub id", compare = "circular", opponents = 2 }

PairRM's format, or a general preference model: docs/scorers/pairwise-model.md. Importing this
module or making the object loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sppo.scorer import checkpoints, comparisons
from sppo.scorer.checkpoints import Asked, Dtype
from sppo.scorer.comparisons import Compare, Pair

PAIRRM = "DebertaV2PairRM"
VALUE = "value_head.weight"
SIZES = ("opponents", "batch", "rows", "source_tokens", "candidate_tokens", "max_tokens")
Question = tuple[Asked, str, str]


class Ranker(Protocol):
    """A loaded model: logits that the first of two texts is better, as shown in this order."""

    temperature: float

    def logits(self, asked: Sequence[Question], rows: int) -> list[float]: ...


class PairwiseModel:
    """One model, in the process that scores."""

    def __init__(
        self,
        *,
        model: str,
        compare: Compare = "all",
        opponents: int = 1,
        reference: str = "answer",
        temperature: float | None = None,
        source_tokens: int = 1224,
        candidate_tokens: int = 412,
        max_tokens: int = 4096,
        batch: int = 4,
        rows: int = 16,
        device: str = "cpu",
        dtype: Dtype = "float32",
    ) -> None:
        """Raises ValueError for options that make no sense.

        model: a folder in Hugging Face format, or a hub id.
        compare, opponents: which pairs, docs/scorers/comparisons.md.
        reference: the column of the data that holds the text which `compare` = "reference", and a
            single completion, are compared with.
        temperature: what logits are divided by; by default 1 for PairRM, 0.1 for a general
            preference model, as published.
        source_tokens, candidate_tokens: of PairRM; a short prompt leaves its room to the
            candidates.
        max_tokens: of a general preference model, the whole conversation.
        batch: groups that are scored together at most. rows: sequences in one forward.
        """
        given = {name: value for name, value in locals().items() if name in SIZES}
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"scorer.options.{name} = {value} must be at least 1")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"scorer.options.temperature = {temperature} must be above 0")
        if Path(model).is_dir():
            _is_pairrm(model, checkpoints.folder(model))
        self.batch = batch
        self._model, self._device, self._dtype, self._rows = model, device, dtype, rows
        self._compare, self._opponents, self._reference = compare, opponents, reference
        self._temperature, self._sizes = temperature, given

    def setup(self) -> None:
        """Load it. Raises ConfigError naming the option that is wrong."""
        path = checkpoints.folder(self._model)
        where, sizes = (self._model, path, self._device, self._dtype), self._sizes
        self._ranker: Ranker
        if _is_pairrm(self._model, path):
            from sppo.scorer.pairrm import PairRM

            source, candidate = sizes["source_tokens"], sizes["candidate_tokens"]
            self._ranker = PairRM(*where, source=source, candidate=candidate)
        else:
            from sppo.scorer.general_preference import GeneralPreference

            self._ranker = GeneralPreference(*where, max_tokens=sizes["max_tokens"])
        self._tau = self._temperature or self._ranker.temperature

    def score(self, requests: Any) -> Any:
        """Preferences of each group, NaN where two were not compared; win rates against the
        reference as rewards.
        """
        if not isinstance(requests, list):
            return self.score([requests])[0]
        plans = [self._plan(request) for request in requests]
        asked = [
            (request, texts[i], texts[j])
            for request, (texts, pairs) in zip(requests, plans, strict=True)
            for i, j in pairs
        ]
        said = iter(self._ranker.logits(asked, self._rows))
        answers: list[Any] = []
        for request, (texts, pairs) in zip(requests, plans, strict=True):
            found = {pair: self._probability(next(said)) for pair in pairs}
            whole = comparisons.matrix(len(texts), found)
            k = len(request.completions)
            answers.append(whole[:k, k].tolist() if len(texts) > k else whole.tolist())
        return answers

    def _plan(self, request: Asked) -> tuple[list[str], tuple[Pair, ...]]:
        """The texts that are compared, a reference last, and the ordered pairs of them."""
        k, texts = len(request.completions), list(request.completions)
        if self._compare == "reference" or k == 1:
            pairs: tuple[Pair, ...] = tuple((i, k) for i in range(k))
            return [*texts, self._reference_of(request)], comparisons.both_orders(pairs)
        pairs = comparisons.pairs(self._compare, k, opponents=self._opponents, uid=request.uid)
        return texts, comparisons.both_orders(pairs)

    def _reference_of(self, request: Asked) -> str:
        found = request.data.get(self._reference)
        if isinstance(found, str) and found.strip():
            return found
        alone = len(request.completions) == 1 and self._compare != "reference"
        raise ValueError(
            f"scorer.options.reference = {self._reference!r}: the row has no text there to compare "
            + ("a single completion with; name another column, or set task.held_out = 0"
               if alone else "with; its columns are " + ", ".join(map(str, request.data)))
        )  # fmt: skip

    def _probability(self, logit: float) -> float:
        bounded = max(-700.0, min(700.0, logit / self._tau))
        return 1 / (1 + math.exp(-bounded))


def _is_pairrm(model: str, path: Path) -> bool:
    """Whether a checkpoint is a PairRM, or a general preference model. Raises ConfigError if it is
    neither.
    """
    if PAIRRM in checkpoints.architectures(path):
        return True
    if VALUE not in checkpoints.weights(path):
        raise checkpoints.refusal(
            model,
            f"it is neither a PairRM ({PAIRRM}) nor a general preference model, whose checkpoint "
            f"holds {VALUE}",
        )
    return False
