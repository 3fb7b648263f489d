"""A general preference model: each answer is a vector, and a skew-symmetric product compares two.

    logit(i over j) = Σ_k λ_k (v_i[2k] v_j[2k + 1] − v_i[2k + 1] v_j[2k]) / τ

v is `value_head` of the last token's state, scaled to length 1; λ is the softmax of `prompt_head`
of the state at the prompt's end, or 1 where the checkpoint has no such head. Cycles can be
expressed. One forward for each completion serves every pair.

Source: arXiv 2410.02197 and the published example of `general-preference/GPM-Llama-3.1-8B`: a
causal language model with the weights `value_head.weight` [D, H] and, perhaps,
`prompt_head.weight` [D/2, H] beside it.

Shape suffixes: B conversations, L tokens, H hidden size, D size of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel

from sppo.scorer import checkpoints
from sppo.scorer.checkpoints import Asked, Dtype
from sppo.scorer.pairwise_model import VALUE

PROMPT = "prompt_head.weight"


class GeneralPreference:
    """A loaded checkpoint."""

    temperature = 0.1
    """τ, as published."""

    def __init__(
        self, model: str, path: Path, device: str, dtype: Dtype, *, max_tokens: int
    ) -> None:
        """Raises ConfigError."""
        heads = checkpoints.tensors(path, [VALUE, PROMPT])
        self._value_DH = heads[VALUE].float().to(device)
        if len(self._value_DH) % 2:
            raise checkpoints.refusal(model, f"{VALUE} has {len(self._value_DH)} rows: an odd size")
        self._prompt = heads[PROMPT].float().to(device) if PROMPT in heads else None
        self._model = checkpoints.load(model, path, AutoModel, device, dtype)
        self._tokenizer = checkpoints.tokenizer(model, path)
        if not self._tokenizer.chat_template:
            raise checkpoints.refusal(model, "its tokenizer has no chat template")
        self._device, self._most = device, max_tokens

    def logits(self, asked: Sequence[tuple[Asked, str, str]], rows: int) -> list[float]:
        """That the first text is better than the second. The order in which a pair is asked about
        makes no difference.
        """
        answers = {(id(r), text): (r, text) for r, *texts in asked for text in texts}
        encoded = [self._encode(request, text) for request, text in answers.values()]
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for at in checkpoints.chunks([len(ids) for ids, _ in encoded], rows):
            vector_BD, scale_BD = self._vectors([encoded[i] for i in at])
            found |= {i: (vector_BD[n], scale_BD[n]) for n, i in enumerate(at)}
        place = {key: i for i, key in enumerate(answers)}
        logits = []
        for request, first, second in asked:
            one_D, scale_K = found[place[id(request), first]]
            other_D, _ = found[place[id(request), second]]
            cross_K = one_D[0::2] * other_D[1::2] - one_D[1::2] * other_D[0::2]
            logits.append(float((scale_K * cross_K).sum()))
        return logits

    def _encode(self, request: Asked, completion: str) -> tuple[list[int], int]:
        """Tokens of the conversation, the last one the end of the sequence, and the position of the
        prompt's last.
        """
        prompt = checkpoints.chat(request)
        whole = [*prompt, {"role": "assistant", "content": completion}]
        ids, head = (
            self._tokenizer(self._tokenizer.apply_chat_template(chat, tokenize=False))["input_ids"]
            for chat in (whole, prompt)
        )
        ids = ids[: self._most]
        ids[-1] = self._tokenizer.eos_token_id
        return ids, min(len(head), len(ids)) - 1

    def _vectors(self, encoded: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
        """([B, D] vectors, [B, D/2] scales)."""
        longest = max(len(ids) for ids, _ in encoded)
        tokens_BL = torch.zeros(len(encoded), longest, dtype=torch.int64)
        there_BL = torch.zeros_like(tokens_BL)
        for n, (ids, _) in enumerate(encoded):
            tokens_BL[n, : len(ids)] = torch.tensor(ids)
            there_BL[n, : len(ids)] = 1
        with torch.inference_mode():
            states_BLH = self._model(
                input_ids=tokens_BL.to(self._device), attention_mask=there_BL.to(self._device)
            ).last_hidden_state.float()
            at_B = torch.arange(len(encoded), device=states_BLH.device)
            last_B = torch.tensor([len(ids) - 1 for ids, _ in encoded], device=at_B.device)
            vector_BD = normalize(states_BLH[at_B, last_B] @ self._value_DH.T, dim=-1)
            if self._prompt is None:
                return vector_BD, torch.ones_like(vector_BD[:, ::2])
            end_B = torch.tensor([end for _, end in encoded], device=at_B.device)
            return vector_BD, torch.softmax(states_BLH[at_B, end_B] @ self._prompt.T, -1)
