"""[optimizer] and [learner]: how a step is taken, and what the learner runs on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sppo.config.fields import (
    Coefficient,
    Count,
    Positive,
    Processes,
    Scale,
    Seconds,
    Settings,
    Threads,
)


class OptimizerConfig(Settings):
    lr: float = Field(1e-6, gt=0, le=1)
    """Peak learning rate of AdamW."""
    warmup_steps: Count = 0
    """Optimizer steps of linear warm-up."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    """AdamW's betas."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """AdamW's decoupled weight decay."""
    max_grad_norm: Scale = 1.0
    """Gradients are clipped to this global norm."""


class LearnerConfig(Settings):
    steps: Positive = 60
    """Optimizer steps since the base model at which the run ends."""
    groups_per_step: Positive = 8
    """Groups in one batch."""
    mini_batches: Positive = 1
    """Disjoint mini-batches per batch, one optimizer step each."""
    lookahead_steps: Count = 1
    """Batches of tickets in flight beyond the one in use; 0 is the synchronous schedule."""
    micro_batch_tokens: Positive = 4096
    """Tokens, padding included, in one forward and backward; a single larger group goes alone."""
    share_prompt: bool = True
    """Run the prompt of a group once instead of once per completion; off by itself for families
    where that is not exact (`docs/families.md`).
    """
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner runs."""
    kernels: Literal["auto", "triton", "torch"] = "auto"
    """What computes log-probs and the loss: `triton`, plain `torch` in chunks of the vocabulary, or
    `auto`, which takes Triton on a GPU.
    """
    fast_logits: bool = False
    """Without Triton, round logits to bf16: faster, and each token's log-prob is off by 2e-3 to
    2e-2 nats. Nothing where `compute` comes to float32.
    """
    snapshot: Literal["device", "host"] = "device"
    """Where snapshots (the anchor of `iteration`, the reference of `kl_coef`) lie: by the model, or
    in host memory.
    """
    ranks: Processes = 1
    """Processes that share the model by FSDP2, all on one machine: a GPU each, or a part of the
    CPU's threads.
    """
    cpus: Coefficient = 0.0
    """CPUs that Ray sets aside for each rank; 0 sets none aside: roles share cores."""
    threads: Threads = 0
    """CPU threads; 0 takes every core (threads that wait do not spin, so roles may share cores)."""
    checkpoint_every: Positive = 20
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept."""
    parity_threshold: Coefficient = 0.0
    """Largest mean |engine − learner| log-prob of a token in nats, at equal weights; 0 takes 0.1
    for bfloat16 and 0.01 for float32. Above it the first batch ends the run, a later one warns, and
    the third in a row ends it.
    """
    batch_timeout_s: Seconds = 600.0
    """Longest wait for the groups of one batch before the run stops and says who was silent."""

    @model_validator(mode="after")
    def _fits(self) -> LearnerConfig:
        for name in ("groups_per_step", "steps"):
            if getattr(self, name) % self.mini_batches:
                raise ValueError(
                    f"mini_batches = {self.mini_batches} must divide {name} = {getattr(self, name)}"
                )
        if (self.kernels, self.device) == ("triton", "cpu"):
            raise ValueError(
                "kernels = 'triton' needs a GPU, not device = 'cpu'; use 'auto' or 'torch'"
            )
        return self
