"""The optimizer on the master weights: AdamW or RMSprop, its schedule, clipping by global norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sppo.config import OptimizerConfig, RunConfig
from sppo.errors import ConfigError
from sppo.learner import offload
from sppo.learner.ranks import Ranks, Solo
from sppo.learner.rows import fill, local, written_here
from sppo.learner.stored import Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What became of an optimizer step."""

    norm: float
    """Global gradient norm before clipping."""
    clipped: bool = False
    flaw: str = ""
    """Why it was not taken: weights and optimizer state are then untouched."""


def adamw(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Decoupled weight decay (arXiv 1711.05101)."""
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def rmsprop(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """As torch has it: no momentum, weight decay added to the gradient; α is the second beta."""
    return torch.optim.RMSprop(
        parameters, lr=config.lr, alpha=config.betas[1], weight_decay=config.weight_decay
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """An optimizer by its name."""

    make: Callable[[list[nn.Parameter], OptimizerConfig], torch.optim.Optimizer]
    moments: tuple[str, ...]
    """What it remembers of each parameter, in the parameter's shape."""


KINDS: Mapping[str, Kind] = {
    "adamw": Kind(adamw, ("exp_avg", "exp_avg_sq")),
    "rmsprop": Kind(rmsprop, ("square_avg",)),
}

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda left: 1.0,
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
}
"""Share of the peak rate by the share of the steps after warm-up that is left: 1 at the first of
them, above 0 at the last.
"""


class Optimizer:
    """One optimizer with its schedule; `step(n)` takes optimizer step n, counted from 1."""

    def __init__(
        self, config: RunConfig, master: Mapping[str, nn.Parameter], team: Ranks | None = None
    ) -> None:
        self._config = config.optimizer
        self._span = (
            config.objective.iteration_steps if config.optimizer.restart else config.learner.steps
        )
        """Steps of one schedule."""
        self._team = team or Solo()
        self._master = master
        self._kind = KINDS[self._config.name]
        self.inner = self._kind.make(list(master.values()), self._config)

    @property
    def moments(self) -> int:
        """Tensors that it remembers of each weight."""
        return len(self._kind.moments)

    def learning_rate(self, n: int) -> float:
        """Learning rate of step n: linear warm-up to the peak, then down by the schedule."""
        n = self._within(n)
        warmup = self._config.warmup_steps
        if n < warmup:
            return self._config.lr * n / warmup
        first = max(warmup, 1)  # at the peak
        left = max(self._span - n + 1, 1) / max(self._span - first + 1, 1)
        return self._config.lr * SCHEDULES[self._config.schedule](left)

    def _within(self, n: int) -> int:
        """The step's number, within its iteration where each begins anew."""
        return (n - 1) % self._span + 1 if self._config.restart else n

    def step(self, n: int) -> Update:
        """Clip and update; skipped where the norm is not finite, on every rank."""
        for parameter in self._master.values():
            if parameter.grad is None:  # no group had a signal: momentum still moves the weights
                parameter.grad = torch.zeros_like(parameter)
        norm = self._clip()
        if not math.isfinite(norm):  # the same on every rank
            return self.skip(n, f"the gradient norm is {norm}", norm)
        self._begin(n)
        if self._config.offload:
            offload.step(self.inner)
        else:
            self.inner.step()
        self.inner.zero_grad(set_to_none=True)
        return Update(norm=norm, clipped=norm > self._config.max_grad_norm)

    def skip(self, n: int, flaw: str, norm: float = 0.0) -> Update:
        """Leave step n out; its gradients are dropped."""
        self._begin(n)
        self.inner.zero_grad(set_to_none=True)
        return Update(norm=norm, flaw=flaw)

    def _begin(self, n: int) -> None:
        if self._config.restart and self._within(n) == 1:
            self.inner.state.clear()
        for group in self.inner.param_groups:
            group["lr"] = self.learning_rate(n)

    @torch.no_grad()
    def _clip(self) -> float:
        """Scale the gradients down to the largest norm; returns the norm of the whole model's
        before.
        """
        whole = [p.grad for p in self._master.values() if p.grad is not None]
        gradients = [local(g) for g in whole]
        norms = [
            torch.linalg.vector_norm(local(g))
            for g in whole
            if local(g).numel() and written_here(g, first=True)  # each row of the model once
        ]  # a rank may have no rows of a weight
        total = torch.stack(norms).square().sum() if norms else gradients[0].new_zeros(())
        norm = self._team.add(total).sqrt()
        for gradient in gradients:
            gradient.mul_((self._config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        return float(norm)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of the optimizer's memory: its moments, in shards where the weights are,
        and the count of steps.
        """
        for name, parameter in self._master.items():
            for key, value in self.inner.state.get(parameter, {}).items():
                yield f"{key}.{name}", value

    def load(self, there: Tensors) -> None:
        """Take the memory that `state` gave from a checkpoint, written by any number of ranks.
        Raises ConfigError for that of another optimizer.
        """
        for name, parameter in self._master.items():
            if f"step.{name}" not in there:
                continue
            if f"{self._kind.moments[0]}.{name}" not in there:
                raise ConfigError(
                    f"optimizer.name = {self._config.name!r}: {there.where} holds the moments of "
                    "another optimizer; set the one that the run began with"
                )
            state = {"step": there[f"step.{name}"][...].to(local(parameter).device)}
            for key in self._kind.moments:
                state[key] = torch.zeros_like(parameter)
                fill(state[key], there[f"{key}.{name}"])
            self.inner.state[parameter] = self._kept(state)

    def _kept(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The memory of one parameter where it is kept between steps."""
        return offload.parked(state) if self._config.offload else state
