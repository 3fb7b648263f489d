"""Activations by running the learner's own forward and backward on tensors without memory.

Torch's fake tensors have shapes and no values, so a model of any size runs on any machine.
`Live` adds up what is alive. Attention of a GPU keeps its inputs, its result and a number for each
query and head, and never a matrix of scores: a stand-in that keeps just these takes its place.

Shape suffixes: B rows, L tokens of a row, T completion tokens, H hidden.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sppo import families
from sppo.kernels import linear_logprob
from sppo.learner import adapters
from sppo.learner.adapters import Adapters
from sppo.learner.batching import MicroBatch
from sppo.learner.layers import decoder_layers, recompute
from sppo.learner.model import Logprobs, completion_logprobs, head_of, trunk
from sppo.learner.skeleton import skeleton
from sppo.plan import routing, uncounted

STAND_IN = "sppo_plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes of one micro-batch beside weights and summed gradients."""

    kept: int
    """From forward to backward."""
    peak: int
    """The most at any time, the log-probs' own chunks left out."""
    layers: tuple[int, ...] = ()
    """Of what is kept, what each decoder layer that was run adds, but for the last one."""


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors that operations made and that are still there: now, and at most."""

    def __init__(self, known: Any) -> None:
        """`known` are tensors that do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: dict[int, Any] = {}
        for tensor in known:
            storage = tensor.untyped_storage()
            self._seen[storage._cdata] = storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def gone(_: Any) -> None:
            self.now -= nbytes
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.now += nbytes
        self.peak = max(self.peak, self.now)


def activations(
    config: Any, batch: MicroBatch, *, compute: torch.dtype, recomputed: bool, gpu: bool,
    adapted: Adapters | None = None,
) -> Activations:  # fmt: skip
    """Of one forward and backward of this micro-batch by a model of a Transformers configuration.

    `gpu` is for families that take our attention (`families.by_name`). Each weight's gradient
    counts until it is added to the sum. Raises UncountedError for a model whose layers look at
    values to choose shapes, or do not run without them.
    """
    with uncounted.told(config):
        module = _module(config, compute, gpu=gpu, recomputed=recomputed, adapted=adapted)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _materialise(module, compute)
            return _run(module, batch, gpu=gpu)


def flops(config: Any, batch: MicroBatch, *, recomputed: bool) -> int:
    """Floating-point operations of one forward and backward by torch's own counter, on a GPU, but
    for those of attention and of `linear_logprob`, which it does not see.
    """
    module = _module(config, torch.bfloat16, gpu=True, recomputed=recomputed)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialise(module, torch.bfloat16)
        with FlopCounterMode(display=False) as counter:
            logprob_T, _ = _forward(module, batch, gpu=True)
            logprob_T.sum().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def _module(
    config: Any, compute: torch.dtype, *, gpu: bool, recomputed: bool,
    adapted: Adapters | None = None,
) -> Any:  # fmt: skip
    family = families.of(config, str(getattr(config, "name_or_path", "")))
    attention: Any = _stand_in() if gpu else family.attention
    module = skeleton(config, replace(family, attention=attention), compute)
    trunk(module).warn_if_padding_and_no_attention_mask = lambda *_: None  # it looks at values
    if adapted:
        adapters.inject(module, adapted, family.name)
    layers = decoder_layers(module, trunk(module), setting="another model")
    routing.even(layers)
    if recomputed:
        recompute(layers)
    return module


def _materialise(module: Any, compute: torch.dtype) -> None:
    """Give it fake weights in the computing dtype, shared ones once."""
    fresh: dict[Any, nn.Parameter] = {}
    for part in module.modules():
        for name, p in list(part._parameters.items()):
            if p is None:
                continue
            if p not in fresh:
                made = torch.empty(p.shape, dtype=compute)
                fresh[p] = nn.Parameter(made, requires_grad=p.requires_grad)
                if p.requires_grad:
                    fresh[p].register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]
            part._parameters[name] = fresh[p]


def _run(module: Any, batch: MicroBatch, *, gpu: bool) -> Activations:
    reached: list[int] = []
    with Live([*module.parameters(), *module.buffers()]) as live:
        hooks = [
            layer.register_forward_pre_hook(lambda *_: reached.append(live.now))
            for layer in decoder_layers(module, trunk(module), setting="another model")
        ]
        logprob_T, entropy_T = _forward(module, batch, gpu=gpu)
        kept = live.now
        for hook in hooks:
            hook.remove()
        (logprob_T.sum() + entropy_T.sum()).backward()  # type: ignore[no-untyped-call]
    steps = tuple(after - before for before, after in pairwise(reached))
    return Activations(kept=kept, peak=live.peak, layers=steps)


def _forward(module: Any, batch: MicroBatch, *, gpu: bool) -> tuple[Tensor, Tensor]:
    if not gpu:
        how = Logprobs(temperature=1.0, kernels="torch")
        logprob_T, entropy_T = completion_logprobs(module, batch, how, entropy=True)
    else:
        hidden_BLH = trunk(module)(
            input_ids=batch.tokens_BL, position_ids=batch.positions_BL, use_cache=False
        ).last_hidden_state
        head = head_of(module, 1.0)
        logprob_T, entropy_T, _ = linear_logprob(
            hidden_BLH.flatten(0, 1)[batch.select_T].to(head.weight_VH.dtype), batch.target_T, head,
            return_entropy=True, backend="torch",
        )  # fmt: skip
    assert entropy_T is not None
    return logprob_T, entropy_T


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


class _Attention(torch.autograd.Function):
    """What fused attention keeps and gives, without its values."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, heads, L, head] to [B, L, heads, head]."""
        found = query.new_empty((*query.transpose(1, 2).shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, found, query.new_empty(query.shape[:3]).float())
        return found

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _found, sums = ctx.saved_tensors
        torch.empty_like(sums)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _stand_in() -> str:
    """Its name among Transformers' implementations of attention."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    def attend(_: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kw: Any) -> Any:
        return _Attention.apply(query, key, value), None  # type: ignore[no-untyped-call]

    AttentionInterface.register(STAND_IN, attend)
    AttentionMaskInterface.register(STAND_IN, lambda *args, **kwargs: None)
    return STAND_IN
