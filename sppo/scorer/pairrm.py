"""PairRM's published checkpoint: a DeBERTa-v2 encoder reads prompt and two candidates at once.

    [CLS] <|source|> prompt [SEP] [CLS] <|candidate1|> one [SEP] [CLS] <|candidate2|> other [SEP]

A head on the states of the prompt's and a candidate's mark gives that candidate's score; the
difference of both is the logit that the first is better. Sources: arXiv 2306.02561; model card of
`llm-blender/PairRM-hf`; LLM-Blender, `pair_ranker/pairrm.py`.

Shape suffixes: B ordered pairs, L tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Model
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel

from sppo.scorer import checkpoints
from sppo.scorer.checkpoints import Asked, Dtype

ARCHITECTURE = "DebertaV2PairRM"
SOURCE, FIRST, SECOND = "<|source|>", "<|candidate1|>", "<|candidate2|>"


class DebertaV2PairRM(DebertaV2PreTrainedModel):  # type: ignore[misc]
    """The published architecture, by its published names of weights."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pretrained_model = DebertaV2Model(config)
        size = config.hidden_size
        self.head_layer = nn.Sequential(
            nn.Dropout(config.drop_out),
            nn.Linear(2 * size, size),
            nn.Tanh(),
            nn.Dropout(config.drop_out),
            nn.Linear(size, config.n_tasks),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B] the logit that the first candidate is better."""
        states_BLH = self.pretrained_model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state

        def at(mark: int) -> Tensor:
            found_BH: Tensor = states_BLH[input_ids == mark]
            return found_BH

        source_BH = at(self.config.source_prefix_id)
        first, second = (
            self.head_layer(torch.cat([source_BH, at(mark)], -1))
            for mark in (self.config.cand1_prefix_id, self.config.cand2_prefix_id)
        )
        logit_B: Tensor = (first - second).mean(-1)
        return logit_B


class PairRM:
    """A loaded checkpoint."""

    temperature = 1.0
    """What logits are divided by."""

    def __init__(
        self, model: str, path: Path, device: str, dtype: Dtype, *, source: int, candidate: int
    ) -> None:
        """`source` and `candidate` are tokens at most. Raises ConfigError."""
        self._ranker = checkpoints.load(model, path, DebertaV2PairRM, device, dtype)
        self._tokenizer = checkpoints.tokenizer(model, path)
        config = self._ranker.config
        marks = {
            SOURCE: config.source_prefix_id,
            FIRST: config.cand1_prefix_id,
            SECOND: config.cand2_prefix_id,
        }
        for mark, wanted in marks.items():
            if self._tokenizer.convert_tokens_to_ids(mark) != wanted:
                raise checkpoints.refusal(model, f"its tokenizer does not know {mark} as {wanted}")
        self._marks = (*marks, *self._tokenizer.all_special_tokens)
        self._device, self._source, self._candidate = device, source, candidate

    def logits(self, asked: Sequence[tuple[Asked, str, str]], rows: int) -> list[float]:
        """That the first text is better than the second, as shown in this order."""
        encoded = [self._encode(*each) for each in asked]
        found = [0.0] * len(encoded)
        for at in checkpoints.chunks([len(ids) for ids in encoded], rows):
            inputs = self._tokenizer.pad(
                {"input_ids": [encoded[i] for i in at]}, return_tensors="pt"
            ).to(self._device)
            with torch.inference_mode():
                logit_B = self._ranker(inputs["input_ids"], inputs["attention_mask"])
            for i, value in zip(at, logit_B.float().tolist(), strict=True):
                found[i] = value
        return found

    def _encode(self, request: Asked, first: str, second: str) -> list[int]:
        """The prompt up to its limit; what it leaves of the whole is shared by both candidates."""
        ids = self._tokens(SOURCE, checkpoints.as_text(checkpoints.chat(request)), self._source)
        each = (self._source + 2 * self._candidate - len(ids)) // 2
        return ids + self._tokens(FIRST, first, each) + self._tokens(SECOND, second, each)

    def _tokens(self, mark: str, text: str, most: int) -> list[int]:
        """The mark and the text, whose own marks are blanked."""
        for each in self._marks:
            text = text.replace(each, " ")
        ids: list[int] = self._tokenizer.encode(mark + text, max_length=most, truncation=True)
        return ids
