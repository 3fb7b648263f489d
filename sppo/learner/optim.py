"""AdamW on the master weights, linear warm-up, clipping by global norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sppo.config import LearnerConfig


class Optimizer:
    """One AdamW with its schedule; `step(n)` takes optimizer step n, counted from 1."""

    def __init__(self, config: LearnerConfig, master: dict[str, nn.Parameter]) -> None:
        self._config = config
        self._master = master
        self.adamw = torch.optim.AdamW(
            master.values(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )

    def learning_rate(self, n: int) -> float:
        """Learning rate of step n: linear warm-up, then constant."""
        warmup = self._config.warmup_steps
        return self._config.lr * min(1.0, n / warmup) if warmup else self._config.lr

    def step(self, n: int) -> tuple[float, bool]:
        """Clip and update. Returns the gradient norm before clipping and whether it was clipped.

        Raises FloatingPointError when the norm is not finite; weights and optimizer state are then untouched.
        """
        for parameter in self._master.values():
            if parameter.grad is None:  # no group had a signal: momentum still moves the weights
                parameter.grad = torch.zeros_like(parameter)
        norm = float(nn.utils.clip_grad_norm_(self._master.values(), self._config.max_grad_norm))
        if not torch.isfinite(torch.tensor(norm)):
            raise FloatingPointError(f"the gradient norm of step {n} is {norm}")
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate(n)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm, norm > self._config.max_grad_norm

    def state(self) -> Iterable[tuple[str, Tensor]]:
        """(name, tensor) of the optimizer's memory: first and second moments, and the count of steps."""
        for name, parameter in self._master.items():
            for key, value in self.adamw.state.get(parameter, {}).items():
                yield f"{key}.{name}", value

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        for name, parameter in self._master.items():
            found = {k: tensors[f"{k}.{name}"] for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}.{name}" in tensors}
            self.adamw.state[parameter] = {k: v.to(parameter.device) for k, v in found.items()}
