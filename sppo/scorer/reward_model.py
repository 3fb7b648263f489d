"""`reward-model`: a sequence classifier of transformers gives each completion a reward.

    [scorer]
    name = "reward-model"
    options = { model = "a folder or hub id" }

docs/scorers/reward-model.md. Importing this module or making the object loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sppo.errors import ConfigError
from sppo.scorer import checkpoints
from sppo.scorer.checkpoints import Asked, Dtype, refusal

LONGEST = 2048
CLASSIFIER = "ForSequenceClassification"


class RewardModel:
    """One classifier, in the process that scores."""

    def __init__(
        self,
        *,
        model: str,
        label: int | str | None = None,
        max_length: int | None = None,
        truncate: Literal["left", "right"] = "left",
        batch: int = 8,
        rows: int = 32,
        device: str = "cpu",
        dtype: Dtype = "float32",
    ) -> None:
        """Raises ConfigError for a folder that holds no classifier, ValueError for other options.

        model: a folder in Hugging Face format, or a hub id.
        label: which output is the reward, by number or name; needed where there are several.
        max_length: tokens of a conversation; by default 2048, or as many as the model takes.
        truncate: the end of a longer one that is cut off.
        batch: groups that are scored together at most. rows: conversations in one forward.
        """
        for name, value in (("batch", batch), ("rows", rows), ("max_length", max_length or 1)):
            if value < 1:
                raise ValueError(f"scorer.options.{name} = {value} must be at least 1")
        if Path(model).is_dir():
            self._check(model, checkpoints.folder(model))
        self.batch = batch
        self._model, self._label, self._rows = model, label, rows
        self._max_length, self._truncate = max_length, truncate
        self._device, self._dtype = device, dtype

    def setup(self) -> None:
        """Load it. Raises ConfigError naming the option that is wrong."""
        from transformers import AutoModelForSequenceClassification

        path = checkpoints.folder(self._model)
        self._check(self._model, path)
        self._tokenizer = checkpoints.tokenizer(self._model, path)
        self._classifier = checkpoints.load(
            self._model, path, AutoModelForSequenceClassification, self._device, self._dtype
        )
        self._at = self._position(self._classifier.config)
        self._most = self._longest(self._classifier.config)
        self._tokenizer.truncation_side = self._truncate
        self._tokenizer.padding_side = "right"
        if self._tokenizer.pad_token_id is None or self._classifier.config.pad_token_id is None:
            self._rows = 1  # transformers reads the last token's output only where padding is known

    def score(self, requests: Any) -> Any:
        """Rewards and details of each group."""
        if not isinstance(requests, list):
            return self.score([requests])[0]
        rows = [self._encode(r, text) for r in requests for text in r.completions]
        values = self._forward([row for row, _ in rows])
        answers, start = [], 0
        for request in requests:
            stop = start + len(request.completions)
            details = [
                {"tokens": len(row["input_ids"]), "cut": cut} for row, cut in rows[start:stop]
            ]
            answers.append({"rewards": values[start:stop], "details": details})
            start = stop
        return answers

    def _check(self, model: str, path: Path) -> None:
        found = checkpoints.architectures(path)
        if not any(name.endswith(CLASSIFIER) for name in found):
            raise refusal(
                model,
                f"{', '.join(found) or 'it'} is no classifier; a reward model of transformers is "
                f"a ...{CLASSIFIER}",
            )

    def _position(self, config: Any) -> int:
        """Which output is the reward."""
        names = {int(i): str(name) for i, name in (config.id2label or {}).items()}
        there = f"it has {config.num_labels}: " + ", ".join(f"{i} ({n})" for i, n in names.items())
        if self._label is None:
            if config.num_labels == 1:
                return 0
            raise ConfigError(f"scorer.options.label: say which output is the reward; {there}")
        for i, name in names.items():
            if self._label in (i, name):
                return i
        raise ConfigError(f"scorer.options.label = {self._label!r}: no such output; {there}")

    def _longest(self, config: Any) -> int:
        """Tokens of a conversation."""
        positions = getattr(config, "max_position_embeddings", None) or LONGEST
        if not getattr(config, "position_biased_input", True):
            positions = max(positions, LONGEST)  # of DeBERTa: positions are relative
        if self._max_length is None:
            return int(min(LONGEST, positions, self._tokenizer.model_max_length))
        if self._max_length > positions:
            raise ConfigError(
                f"scorer.options.max_length = {self._max_length}: the model takes {positions} "
                "tokens"
            )
        return self._max_length

    def _encode(self, request: Asked, completion: str) -> tuple[dict[str, list[int]], bool]:
        """Tokens of the whole conversation, and whether some were cut off."""
        messages, tokenizer = checkpoints.chat(request), self._tokenizer
        texts, how = [checkpoints.as_text(messages), completion], "longest_first"
        given: dict[str, Any] = {}
        if tokenizer.chat_template:
            answer = {"role": "assistant", "content": completion}
            texts = [tokenizer.apply_chat_template([*messages, answer], tokenize=False)]
            given = {"add_special_tokens": False}  # the template has its own
        row = dict(tokenizer(*texts, **given))
        if len(row["input_ids"]) <= self._most:
            return row, False
        return dict(tokenizer(*texts, truncation=how, max_length=self._most, **given)), True

    def _forward(self, rows: list[dict[str, list[int]]]) -> list[float]:
        import torch

        values = [0.0] * len(rows)
        for at in checkpoints.chunks([len(row["input_ids"]) for row in rows], self._rows):
            names = rows[at[0]].keys()
            given = {name: [rows[i][name] for i in at] for name in names}
            if len(at) == 1:
                inputs = {name: torch.tensor(each) for name, each in given.items()}
            else:
                inputs = self._tokenizer.pad(given, return_tensors="pt")
            inputs = {name: each.to(self._device) for name, each in inputs.items()}
            with torch.inference_mode():
                found = self._classifier(**inputs).logits[:, self._at].float().tolist()
            for i, value in zip(at, found, strict=True):
                values[i] = value
        return values
