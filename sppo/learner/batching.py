"""From groups to rows of tokens.

Shape suffixes: B rows, L tokens of a row, T completion tokens of a micro-batch, N its completions.

A row holds a prompt once, followed by completions of that prompt:

    tokens      p p p p | a a a | b b | c c c c
    positions   0 1 2 3 | 4 5 6 | 4 5 | 4 5 6 7

The attention mask lets a completion see the prompt and its own past, never its siblings, so every
completion gets exactly the log-probs it would get alone, while the prompt is computed once per
group instead of K times. With `share_prompt` off each row holds one completion. The last token of a
completion is only predicted, so it is not fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppo.types import Completion, Group


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Whole groups, laid out for one forward and backward."""

    groups: tuple[int, ...]
    """Positions of its groups in the batch, in order."""
    tokens_BL: Tensor
    positions_BL: Tensor
    segments_BL: Tensor
    """0 for the prompt, 1.. for the row's completions, -1 for padding: what each token may see
    (`masks`).
    """
    shared: bool
    """Whether a row may hold more than one completion; otherwise it is what the model is fed when
    it is alone.
    """
    select_T: Tensor
    """Index into the flattened [B·L] hidden states of the state that predicts each completion
    token.
    """
    target_T: Tensor
    """The completion tokens, in the order of groups and completions."""
    behavior_T: Tensor
    cu_seqlens: Tensor
    """[N + 1] offsets of the completions in T."""
    group_offsets: Tensor
    """[G + 1] offsets of the groups in N."""

    @property
    def padding(self) -> int:
        """Padding tokens, all at the ends of rows."""
        return int((self.positions_BL < 0).sum())


def row_tokens(group: Group, share_prompt: bool) -> list[int]:
    """Lengths of the rows that a group takes."""
    fed = [len(c.token_ids) - 1 for c in group.completions]
    prompt = len(group.prompt_ids)
    return [prompt + sum(fed)] if share_prompt else [prompt + n for n in fed]


def plan(groups: Sequence[Group], budget: int, share_prompt: bool) -> list[list[int]]:
    """Positions of groups for each micro-batch: similar lengths together, at most `budget` tokens
    with padding.

    A group is never split; one that is larger than the budget goes alone.
    """
    longest = [max(row_tokens(g, share_prompt)) for g in groups]
    rows = [len(row_tokens(g, share_prompt)) for g in groups]
    order = sorted(range(len(groups)), key=lambda i: -longest[i])
    batches: list[list[int]] = []
    count = 0
    for i in order:
        if batches and (count + rows[i]) * longest[batches[-1][0]] <= budget:
            batches[-1].append(i)
            count += rows[i]
        else:
            batches.append([i])
            count = rows[i]
    return [sorted(batch) for batch in batches]


def collate(
    groups: Sequence[Group], members: Sequence[int], *, share_prompt: bool, device: str
) -> MicroBatch:
    """Lay the groups at `members` out as one micro-batch."""
    rows: list[_Row] = []
    for i in members:
        group = groups[i]
        parts = [group.completions] if share_prompt else [(c,) for c in group.completions]
        rows += [_Row(group.prompt_ids, part) for part in parts]
    length = max(row.length for row in rows)
    tokens = np.zeros((len(rows), length), np.int64)
    positions = np.full((len(rows), length), -1, np.int64)
    segments = np.full((len(rows), length), -1, np.int64)
    select = []
    for b, row in enumerate(rows):
        tokens[b, : row.length], positions[b, : row.length], segments[b, : row.length] = (
            row.layout()
        )
        select += [b * length + at for at in row.predictors()]
    completions = [c for i in members for c in groups[i].completions]
    lengths = [len(c.token_ids) for c in completions]
    return MicroBatch(
        groups=tuple(members),
        tokens_BL=torch.from_numpy(tokens).to(device),
        positions_BL=torch.from_numpy(positions).to(device),
        segments_BL=torch.from_numpy(segments).to(device),
        shared=share_prompt,
        select_T=torch.tensor(select, device=device),
        target_T=torch.from_numpy(
            np.concatenate([c.token_ids for c in completions]).astype(np.int64)
        ).to(device),
        behavior_T=torch.from_numpy(np.concatenate([c.behavior_logprobs for c in completions])).to(
            device
        ),
        cu_seqlens=torch.tensor(np.concatenate([[0], np.cumsum(lengths)]), device=device),
        group_offsets=torch.tensor(
            np.concatenate([[0], np.cumsum([len(groups[i].completions) for i in members])]),
            device=device,
        ),
    )


def empty(device: str) -> MicroBatch:
    """One token and no completion: what a rank feeds that has nothing left while others have."""
    none, zero = (
        torch.zeros(0, dtype=torch.int64, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
    )
    return MicroBatch(
        groups=(),
        tokens_BL=zero[None],
        positions_BL=zero[None],
        segments_BL=zero[None],
        shared=False,
        select_T=none,
        target_T=none,
        behavior_T=none.float(),
        cu_seqlens=zero,
        group_offsets=zero,
    )


class _Row:
    """One prompt and some of its completions."""

    def __init__(self, prompt_ids: NDArray[np.int32], completions: Sequence[Completion]) -> None:
        self._prompt = prompt_ids
        self._fed = [c.token_ids[:-1] for c in completions]
        self.length = len(prompt_ids) + sum(len(f) for f in self._fed)

    def layout(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Tokens, positions, and segments: 0 for the prompt, 1.. for the completions."""
        prompt = len(self._prompt)
        parts = [np.arange(prompt), *[prompt + np.arange(len(f)) for f in self._fed]]
        segments = [np.full(len(p), s) for s, p in enumerate(parts)]
        return (
            np.concatenate([self._prompt, *self._fed]),
            np.concatenate(parts),
            np.concatenate(segments),
        )

    def predictors(self) -> list[int]:
        """Where in the row each completion token is predicted: the prompt's last token, then its
        own tokens.
        """
        last, at, found = len(self._prompt) - 1, len(self._prompt), []
        for fed in self._fed:
            found += [last, *range(at, at + len(fed))]
            at += len(fed)
        return found
