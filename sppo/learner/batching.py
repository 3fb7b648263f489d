"""From groups to rows of tokens.

Shape suffixes: B rows, L tokens of a row, T completion tokens of a micro-batch, N its completions.

A row holds a prompt once, followed by completions of that prompt:

    tokens      p p p p | a a a | b b | c c c c
    positions   0 1 2 3 | 4 5 6 | 4 5 | 4 5 6 7

The attention mask lets a completion see the prompt and its own past, never its siblings, so every
completion gets exactly the log-probs it would get alone, while the prompt is computed once per
group instead of K times. With `share_prompt` off each row holds one completion. The last token of a
completion is only predicted, so it is not fed.

A group that is larger than a micro-batch is cut between completions; each part has the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppo.types import Completion, Group


class Part(NamedTuple):
    """Completions [start, stop) of one group."""

    group: int
    """Position in the batch."""
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Groups or parts of them, laid out for one forward and backward."""

    parts: tuple[Part, ...]
    """What is in it, in order."""
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
    """The completion tokens, in the order of parts and completions."""
    behavior_T: Tensor
    cu_seqlens: Tensor
    """[N + 1] offsets of the completions in T."""

    @property
    def padding(self) -> int:
        """Padding tokens, all at the ends of rows."""
        return int((self.positions_BL < 0).sum())


def row_tokens(group: Group, share_prompt: bool) -> list[int]:
    """Lengths of the rows that a group takes."""
    fed = [len(c.token_ids) - 1 for c in group.completions]
    prompt = len(group.prompt_ids)
    return [prompt + sum(fed)] if share_prompt else [prompt + n for n in fed]


def is_cut(group: Group, budget: int, share_prompt: bool) -> bool:
    """Whether a group does not fit in a micro-batch and can be cut."""
    rows = row_tokens(group, share_prompt)
    return len(group.completions) > 1 and len(rows) * max(rows) > budget


def plan(groups: Sequence[Group], budget: int, share_prompt: bool) -> list[list[Part]]:
    """What goes into each micro-batch: similar lengths together, at most `budget` tokens with
    padding.

    Only a single completion that is larger with its prompt exceeds it: it goes alone.
    """
    parts = [p for i, g in enumerate(groups) for p in _cut(i, g, budget, share_prompt)]
    rows = [row_tokens(_of(groups, part), share_prompt) for part in parts]
    order = sorted(range(len(parts)), key=lambda i: -max(rows[i]))
    batches: list[list[int]] = []
    count = 0
    for i in order:
        if batches and (count + len(rows[i])) * max(rows[batches[-1][0]]) <= budget:
            batches[-1].append(i)
            count += len(rows[i])
        else:
            batches.append([i])
            count = len(rows[i])
    return [[parts[i] for i in sorted(batch)] for batch in batches]


def _cut(i: int, group: Group, budget: int, share_prompt: bool) -> list[Part]:
    """The whole group if it fits, else as many neighbouring completions as fit, again and again."""
    if not is_cut(group, budget, share_prompt):
        return [Part(i, 0, len(group.completions))]
    prompt, parts, start, longest, total = len(group.prompt_ids), [], 0, 0, 0
    for k, completion in enumerate(group.completions):
        fed = len(completion.token_ids) - 1
        longest, total = max(longest, fed), total + fed
        size = prompt + total if share_prompt else (k - start + 1) * (prompt + longest)
        if size > budget and k > start:
            parts.append(Part(i, start, k))
            start, longest, total = k, fed, fed
    return [*parts, Part(i, start, len(group.completions))]


def _of(groups: Sequence[Group], part: Part) -> Group:
    return groups[part.group].only(range(part.start, part.stop))


def collate(
    groups: Sequence[Group], parts: Sequence[Part], *, share_prompt: bool, device: str
) -> MicroBatch:
    """Lay parts of these groups out as one micro-batch; without any, one token and no completion:
    what a rank feeds that has nothing left while others have.
    """
    if not parts:
        return _empty(device)
    members = [_of(groups, part) for part in parts]
    rows = [
        _Row(member.prompt_ids, fed)
        for member in members
        for fed in ([member.completions] if share_prompt else [(c,) for c in member.completions])
    ]
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
    completions = [c for member in members for c in member.completions]
    lengths = [len(c.token_ids) for c in completions]
    return MicroBatch(
        parts=tuple(parts),
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
    )


def _empty(device: str) -> MicroBatch:
    none, zero = (
        torch.zeros(0, dtype=torch.int64, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
    )
    return MicroBatch(
        parts=(),
        tokens_BL=zero[None],
        positions_BL=zero[None],
        segments_BL=zero[None],
        shared=False,
        select_T=none,
        target_T=none,
        behavior_T=none.float(),
        cu_seqlens=zero,
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
