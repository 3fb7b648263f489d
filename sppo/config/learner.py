"""[adapter], [optimizer] and [learner]: what is trained, how a step is taken, and what the learner
runs on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sppo.config.fields import (
    FREE,
    PER_ROLE,
    Coefficient,
    Count,
    Name,
    Positive,
    Processes,
    Scale,
    Seconds,
    Settings,
    Threads,
)


def _layers(value: Any) -> Any:
    """`all-linear`, or a tuple of names. Raises ValueError."""
    if value == "all-linear":
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be 'all-linear', or a list of names such as ['q_proj', 'v_proj']")
    return tuple(value)


class AdapterConfig(Settings):
    rank: Annotated[int, Field(ge=0, le=4096)] = 0
    """Rank of adapters (LoRA) that are trained in the place of the whole model, which stays as it
    is, in `compute`; 0 trains the whole model. docs/operations.md.
    """
    alpha: Scale = 32.0
    """What adapters add is multiplied by `alpha` / `rank`."""
    layers: Annotated[str | tuple[Name, ...], BeforeValidator(_layers)] = "all-linear"
    """Linear layers that get an adapter, by the ends of their names such as `q_proj`; `all-linear`:
    all but the head.
    """


class OptimizerConfig(Settings):
    name: Literal["adamw", "rmsprop"] = "adamw"
    """AdamW, or RMSprop with the second of `betas`."""
    lr: float = Field(1e-6, gt=0, le=1)
    """Peak learning rate."""
    warmup_steps: Count = 0
    """Optimizer steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After warm-up: constant, or down to 0 at the end of the run (of the iteration, with
    `restart`) in a line or half a cosine.
    """
    restart: bool = False
    """Begin each iteration (`objective.iteration_steps`) with fresh moments and a fresh
    schedule.
    """
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    """Decay of the running means of gradients and of their squares."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Weight decay: decoupled in AdamW, added to the gradient in RMSprop."""
    max_grad_norm: Scale = 1.0
    """Gradients are clipped to this global norm."""
    offload: Annotated[bool, FREE] = False
    """Keep the moments in host memory between steps: 8 bytes of a GPU's memory less for each
    trained parameter (4 with `rmsprop`), for as many to and fro over PCIe in each step.
    """
    max_skipped: Annotated[Positive, FREE] = 3
    """Optimizer steps in a row that may be skipped because they are not finite; then the run
    ends.
    """


class LearnerConfig(Settings):
    steps: Annotated[Positive, FREE] = 60
    """Optimizer steps since the base model at which the run ends."""
    groups_per_step: Positive = 8
    """Groups in one batch."""
    mini_batches: Positive = 1
    """Disjoint mini-batches per batch, one optimizer step each."""
    epochs: Positive = 1
    """Times that a batch is trained, in mini-batches drawn anew each time."""
    lookahead_steps: Count = 1
    """Batches of tickets in flight beyond the one in use; 0 is the synchronous schedule."""
    max_staleness: Count = 0
    """Optimizer steps after sampling at which a group is too old to be trained: its ticket is
    issued again; 0 trains groups of any age.
    """
    refill: Annotated[float, Field(ge=1, le=100)] = 1.0
    """A batch is filled up until it has `groups_per_step` groups whose scores differ, up to this
    many times so many groups; 1 takes what comes.
    """
    micro_batch_tokens: Annotated[Positive, FREE] = 4096
    """Tokens, padding included, in one forward and backward: one row of several groups, without
    padding where the family allows it (`docs/families.md`). A larger group is cut between its
    completions; only a single completion that is larger with its prompt exceeds it, and is told.
    """
    recompute: Annotated[Literal["auto", "on", "off"], FREE] = "auto"
    """Compute each layer again in the backward pass and keep only its input: a fraction of the
    memory of activations, for a third more work. `auto` does on a GPU.
    """
    share_prompt: bool = True
    """Run the prompt of a group once instead of once per completion; off by itself for families
    where that is not exact (`docs/families.md`).
    """
    device: Annotated[Literal["auto", "cpu", "cuda"], PER_ROLE] = "auto"
    """Where the learner runs."""
    kernels: Annotated[Literal["auto", "triton", "torch"], FREE] = "auto"
    """What computes log-probs and the loss: `triton`, plain `torch` in chunks of the vocabulary, or
    `auto`, which takes Triton on a GPU. Attention of packed rows is compiled there too (by
    FlexAttention), except with `torch`.
    """
    fast_logits: bool = False
    """Without Triton, round logits to bf16: faster, and each token's log-prob is off by 2e-3 to
    2e-2 nats. Nothing where `compute` comes to float32.
    """
    snapshot: Annotated[Literal["device", "host"], FREE] = "device"
    """Where snapshots (the anchor of `iteration`, the reference of `kl_coef`) lie: by the model, or
    in host memory.
    """
    ranks: Annotated[Processes, FREE] = 1
    """Processes that share the model by FSDP2: a GPU each, or a part of the CPU's threads; on
    one machine, or on several where none holds them all (docs/operations.md).
    """
    shard: Annotated[Literal["all", "machine"], FREE] = "all"
    """Ranks that share one copy of the model: `all`, or those of a `machine`, each machine with a
    copy. Then only sums of gradients cross the network between machines, once a step; a rank holds
    as many times more as there are machines. The same where all ranks are on one.
    """
    cpus: Annotated[Coefficient, FREE] = 0.0
    """CPUs that Ray sets aside for each rank; 0 sets none aside: roles share cores."""
    threads: Annotated[Threads, FREE] = 0
    """CPU threads; 0 takes every core (threads that wait do not spin, so roles may share cores)."""
    checkpoint_every: Annotated[Positive, PER_ROLE] = 20
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Annotated[Positive, FREE] = 2
    """Newest checkpoints that are kept."""
    keep_samples: Annotated[Count, FREE] = 1
    """Groups of each step and each evaluation that are kept in RUN/samples.jsonl, besides the one
    with the best completion, that with the worst and the most truncated one; 0 keeps none at all.
    """
    keep_groups: Annotated[Count, FREE] = 20
    """Steps whose groups are kept in RUN/groups, the newest ones, for `sppo-cli replay`; 0 keeps
    none. A token takes 8 bytes.
    """
    parity_threshold: Annotated[Coefficient, FREE] = 0.0
    """Largest mean |engine − learner| log-prob of a token in nats, at equal weights; 0 takes 0.1
    for bfloat16 and 0.01 for float32. Above it the first batch ends the run, a later one warns, and
    the third in a row ends it.
    """
    batch_timeout_s: Annotated[Seconds, FREE] = 600.0
    """Longest wait for the next group, of a batch or of an evaluation, before the run stops and
    says who was silent.
    """

    @model_validator(mode="after")
    def _fits(self) -> LearnerConfig:
        if self.groups_per_step % self.mini_batches:
            raise ValueError(
                f"mini_batches = {self.mini_batches} must divide groups_per_step = "
                f"{self.groups_per_step}"
            )
        if self.refill > 1 and self.most_groups == self.groups_per_step:
            raise ValueError(
                f"refill = {self.refill:g} adds no whole group to each of mini_batches = "
                f"{self.mini_batches} of groups_per_step = {self.groups_per_step}; raise it, or "
                "leave it at 1"
            )
        if self.refill > 1 and self.max_staleness:
            raise ValueError(
                f"refill = {self.refill:g} and max_staleness = {self.max_staleness} would issue "
                "tickets that no batch uses; set one of them"
            )
        if self.steps % self.steps_per_batch:
            raise ValueError(f"{self.per_batch} must divide steps = {self.steps}")
        if (self.kernels, self.device) == ("triton", "cpu"):
            raise ValueError(
                "kernels = 'triton' needs a GPU, not device = 'cpu'; use 'auto' or 'torch'"
            )
        return self

    @property
    def most_groups(self) -> int:
        """Groups of one batch at most, in whole mini-batches (`refill`)."""
        return int(self.groups_per_step * self.refill) // self.mini_batches * self.mini_batches

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps that one batch is trained for."""
        return self.mini_batches * self.epochs

    @property
    def per_batch(self) -> str:
        """The same in words."""
        times = f" x epochs = {self.epochs}" if self.epochs > 1 else ""
        return f"mini_batches = {self.mini_batches}{times}"
