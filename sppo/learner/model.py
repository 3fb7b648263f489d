"""The policy on the learner's side: float32 master weights, log-probs of completions, weights out.

What is trained is the whole model, or adapters beside it (`sppo.learner.adapters`), which then are
all that has master weights, is kept in snapshots and goes into checkpoints. Snapshots are copies of
the computing weights: the anchor of `objective.anchor = "iteration"`, the reference of a KL term,
the weights of an evaluation until parity was measured at them.

Shape suffixes: T completion tokens of a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sppo import families, models
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.families import Family
from sppo.kernels import Backend, Head, linear_logprob, pick_backend
from sppo.learner import adapters, attention, blocks, scan
from sppo.learner.adapters import Adapters
from sppo.learner.batching import MicroBatch
from sppo.learner.layers import decoder_layers, recompute
from sppo.learner.rounding import Rounding
from sppo.learner.rows import fill
from sppo.learner.skeleton import stored_buffers
from sppo.learner.stored import Tensors
from sppo.weights import names

Snapshot = Literal["anchor", "reference", "probe"]
_STORED = {"BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprobs:
    """How log-probs are computed from hidden states."""

    temperature: float
    sampling: float | None = None
    """Temperature of what engines report, where it is another."""
    kernels: Backend = "auto"
    fast: bool = False
    """Rounded logits, where Triton does not compute them."""

    @classmethod
    def of(cls, config: RunConfig, device: str) -> Logprobs:
        """As a run's settings say. Raises ConfigError for kernels that do not run on this
        device.
        """
        try:
            pick_backend(
                config.learner.kernels, torch.empty(0, dtype=torch.bfloat16, device=device)
            )
        except ValueError as error:
            raise ConfigError(f"learner.kernels: {error}; use 'auto' or 'torch'") from None
        return cls(
            temperature=config.policy_temperature,
            sampling=config.sampling.temperature,
            kernels=config.learner.kernels,
            fast=config.learner.fast_logits,
        )

    def sampled(self) -> Logprobs:
        """At the temperature of what engines report."""
        return self if self.sampling is None else replace(self, temperature=self.sampling)


class Policy:
    """A causal language model that computes in `compute` and is updated in float32.

    In bf16 gradients of each backward are added to `master[name].grad` in float32 as soon as they
    exist, so that micro-batches accumulate without rounding; `refresh()` writes the updated master
    weights back for computing. In float32 the master weights are the model's own.
    """

    def __init__(
        self, path: str, *, device: str, logprobs: Logprobs, compute: torch.dtype,
        recomputed: bool = False, adapted: Adapters | None = None,
        on_forward: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Load from a folder in Hugging Face format; `on_forward` is called after each micro-batch.
        With `recomputed` its layers are computed again in the backward pass; with `adapted` these
        adapters alone are trained.

        Raises ConfigError for a model of a family that is not computed exactly (`sppo.families`),
        and for adapters on layers that it has not.
        """
        from transformers import AutoModelForCausalLM

        attention.install()
        self.device = device
        self._path = path
        self.family = families.read(path)
        self._logprobs = logprobs
        self._on_forward = on_forward
        self.module: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=compute, attn_implementation=self.family.attention, trust_remote_code=False
        ).to(device)
        self.module.eval()  # dropout off: log-probs must be those of the policy
        check_head(self.module, path)
        scan.install(self.module)
        if recomputed:
            none = 'learner.recompute = "off"'
            recompute(decoder_layers(self.module, trunk(self.module), setting=none))
        self.base_dtype = stored_dtype(path)
        self._compute = compute
        self._snapshots: dict[Snapshot, dict[str, Tensor]] = {}
        self._adapted = adapted is not None
        if adapted:
            adapters.inject(self.module, adapted, path)
            for name, value in adapters.initial(self.module, adapted):
                self.module.get_parameter(name).data.copy_(value)
        self._own = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        if compute is torch.float32:
            self.master = self._own
        else:
            self.master = {
                name: nn.Parameter(p.detach().to(torch.float32, copy=True))
                for name, p in self._own.items()
            }
            for name, parameter in self._own.items():
                parameter.data = parameter.data.to(compute)
                parameter.register_post_accumulate_grad_hook(_adding_to(self.master[name]))

    def logprobs(
        self, batch: MicroBatch, *, entropy: bool = False, sampled: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs [T] of the completion tokens, float32, at the objective's temperature or at the
        one at which they were sampled, and the entropy if asked for.
        """
        check_rows(self.family, batch)
        how = self._logprobs.sampled() if sampled else self._logprobs
        found = completion_logprobs(self.module, batch, how, entropy=entropy)
        self._on_forward()
        return found

    @property
    def vocabulary(self) -> int:
        """Rows of the head: every token id lies below."""
        return int(self.module.get_output_embeddings().weight.shape[0])

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the master weights into the computing ones, where these are others."""
        for name, parameter in self._own.items():
            if parameter is not self.master[name]:
                parameter.copy_(self.master[name])

    def going_back(self, *, last: bool) -> None:
        """Before each backward pass; whether it is the last one of an optimizer step."""

    def weights(self, snapshot: Snapshot | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name, computing weights) as the model's files name and lay them out, tied ones once and
        adapters merged: what generators get.
        """
        return names.as_stored(self.module, self._merged(dict(self.kept(snapshot)), self._compute))

    def _merged(
        self, trained: dict[str, Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[str, Tensor]]:
        """The whole model in `dtype`, one weight at a time, with these values of what is
        trained.
        """
        return adapters.merged(self.module, lambda n, p: trained.get(n, p).detach(), dtype)

    def kept(self, snapshot: Snapshot | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name, computing weights) of what is trained, by the model's own parameters, as `keep`
        reads them from a checkpoint.
        """
        for name, parameter in self._own.items():
            yield name, parameter.detach() if snapshot is None else self._snapshots[snapshot][name]

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, float32 master weights), for a checkpoint."""
        for name, parameter in self.master.items():
            yield name, parameter.detach()

    def load(self, there: Tensors) -> None:
        """Take the master weights from a checkpoint."""
        for name, parameter in self.master.items():
            fill(parameter, there[name])
        self.refresh()

    def keep(self, snapshot: Snapshot, *, device: str, there: Tensors | None = None) -> None:
        """Remember the computing weights, or those of a checkpoint, under this name on `device`."""
        own = self.kept() if there is None else ((n, there[n][...]) for n in sorted(there.names()))
        self._snapshots[snapshot] = {k: v.to(device, self._compute, copy=True) for k, v in own}

    def drop(self, snapshot: Snapshot) -> None:
        """Forget a snapshot."""
        del self._snapshots[snapshot]

    @contextmanager
    def using(self, snapshot: Snapshot | None) -> Iterator[None]:
        """Compute with a snapshot, without gradients."""
        if snapshot is None:
            yield
            return
        with (
            torch.no_grad(),
            self._holding({k: v.to(self.device) for k, v in self._snapshots[snapshot].items()}),
        ):
            yield

    @contextmanager
    def _holding(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """Other weights in the place of those that are trained; these stay untouched meanwhile."""
        own = {name: parameter.data for name, parameter in self._own.items()}
        for name, parameter in self._own.items():
            parameter.data = weights[name]
        try:
            yield
        finally:
            for name, parameter in self._own.items():
                parameter.data = own[name]

    def export(self, folder: Path, dtype: torch.dtype) -> float | None:
        """Write the weights in `dtype` as a Hugging Face folder, but for its tokenizer; adapters
        merged, and by themselves in its folder `adapter`. They are put together in host memory.
        Returns the share of the training that rounding leaves (`Rounding.left`).
        """
        from transformers import GenerationConfig

        self.module.generation_config = (
            GenerationConfig()
        )  # written, it may be refused; the model's own file follows
        rounding = Rounding(self._path, dtype)
        trained = self._merged(dict(self.masters()), torch.float32)
        weights = {name: rounding.of(name, w) for name, w in trained}
        self.module.save_pretrained(str(folder), state_dict=weights | stored_buffers(self.module))
        self.module.config.dtype = dtype  # `save_pretrained` wrote that of the computing weights
        self.module.config.save_pretrained(str(folder))
        models.copy_generation_config(self._path, folder)
        if self._adapted:
            adapters.save(self.module, self.masters(), folder / adapters.FOLDER, self._path)
        return rounding.left


def _adding_to(master: nn.Parameter) -> Any:
    """A hook that adds a computing weight's gradient to its master weight's."""

    def add(parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad += gradient
        parameter.grad = None

    return add


def export_dtype(config: RunConfig, policy: Any) -> str:
    """What `model.export_dtype` comes to for a policy: a dtype of torch by its name."""
    asked = config.model.export_dtype
    return str(policy.base_dtype).removeprefix("torch.") if asked == "base" else asked


def stored_dtype(path: str) -> torch.dtype:
    """The dtype in which a Hugging Face folder holds its matrices; float32 where no file tells."""
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                if len(tensors.get_slice(name).get_shape()) > 1:
                    return _STORED.get(tensors.get_slice(name).get_dtype(), torch.float32)
    return torch.float32


def check_head(module: Any, path: str) -> None:
    """Raises ConfigError for a model whose log-probs are not those of a linear head, with a factor
    or a soft cap.
    """
    if not isinstance(module.get_output_embeddings(), nn.Linear):
        raise ConfigError(f"model.name: {path} has no linear language-model head")
    if _factor(module) != 1 and _softcap(module) is not None:
        raise ConfigError(
            f"model.name: {path} scales its logits and caps them; there is no order known for that"
        )


def _softcap(module: Any) -> float | None:
    return getattr(module.config.get_text_config(), "final_logit_softcapping", None)


def _factor(module: Any) -> float:
    """What the model multiplies its logits by, under the names that model families give it."""
    config = module.config.get_text_config()
    divided = getattr(config, "logits_scaling", None) or 1.0  # Granite
    times = [
        getattr(config, name, None) or 1.0
        for name in ("logit_scale", "lm_head_multiplier", "output_multiplier")
    ]
    return float(math.prod(times)) / float(divided)


def head_of(module: Any, temperature: float) -> Head:
    """The head that the model samples from at this temperature."""
    head = module.get_output_embeddings()
    return Head(
        weight_VH=head.weight,
        bias=head.bias,
        temperature=temperature,
        softcap=_softcap(module),
        factor=_factor(module),
    )


def _by_blocks(module: Any, options: Logprobs) -> bool:
    """Whether attention goes by FlexAttention; elsewhere by pieces."""
    return (
        module.device.type == "cuda"
        and options.kernels != "torch"
        and blocks.takes(module.config.get_text_config())
    )


def completion_logprobs(
    module: Any, batch: MicroBatch, options: Logprobs, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probs [T] of the completion tokens, and the entropy [T] if asked for, by a causal
    language model.
    """
    hidden_BLH = attention.hidden_states(trunk(module), batch, flex=_by_blocks(module, options))
    head = head_of(module, options.temperature)
    logprob_T, entropy_T, _ = linear_logprob(
        hidden_BLH.flatten(0, 1)[batch.select_T].to(head.weight_VH.dtype),  # float32 of a Mamba
        batch.target_T,
        head,
        return_entropy=entropy,
        fast=options.fast,
        backend=options.kernels,
    )
    return logprob_T, entropy_T


def check_rows(family: Family, batch: MicroBatch) -> None:
    """Raises ValueError for rows that the family's attention does not take (`families.settled`
    comes first).
    """
    taken = {"completion", family.rows(family.shares)}
    if batch.rows not in taken:
        raise ValueError(
            f"{family.name} takes rows of {' or '.join(sorted(taken))}, not {batch.rows}"
        )


def trunk(module: Any) -> Any:
    """The model without its head."""
    return module.model if module.base_model is module else module.base_model


def check_device(device: str, rank: int) -> str:
    """This rank's own device. Raises ConfigError if there are fewer GPUs than ranks."""
    if device == "cpu":
        return device
    if rank >= torch.cuda.device_count():
        raise ConfigError(
            f"learner.ranks: rank {rank} has no GPU; torch sees {torch.cuda.device_count()}"
        )
    return f"cuda:{rank}"
