"""AdamW on the master weights, linear warm-up, clipping by global norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sppo.config import OptimizerConfig
from sppo.learner.ranks import Ranks, Solo
from sppo.learner.rows import fill, local, whole


class Optimizer:
    """One AdamW with its schedule; `step(n)` takes optimizer step n, counted from 1."""

    def __init__(
        self, config: OptimizerConfig, master: dict[str, nn.Parameter], team: Ranks | None = None
    ) -> None:
        self._config = config
        self._team = team or Solo()
        self._master = master
        self.adamw = torch.optim.AdamW(
            master.values(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def learning_rate(self, n: int) -> float:
        """Learning rate of step n: linear warm-up, then constant."""
        warmup = self._config.warmup_steps
        return self._config.lr * min(1.0, n / warmup) if warmup else self._config.lr

    def step(self, n: int) -> tuple[float, bool]:
        """Clip and update. Returns the gradient norm before clipping and whether it was clipped.

        Raises FloatingPointError when the norm is not finite; weights and optimizer state are then
        untouched.
        """
        for parameter in self._master.values():
            if parameter.grad is None:  # no group had a signal: momentum still moves the weights
                parameter.grad = torch.zeros_like(parameter)
        norm = self._clip()
        if not math.isfinite(norm):  # the same on every rank
            raise FloatingPointError(f"the gradient norm of step {n} is {norm}")
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate(n)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm, norm > self._config.max_grad_norm

    @torch.no_grad()
    def _clip(self) -> float:
        """Scale the gradients down to the largest norm; returns the norm of the whole model's
        before.
        """
        gradients = [local(p.grad) for p in self._master.values() if p.grad is not None]
        norms = [
            torch.linalg.vector_norm(g) for g in gradients if g.numel()
        ]  # a rank may have no rows of a weight
        total = torch.stack(norms).square().sum() if norms else gradients[0].new_zeros(())
        norm = self._team.add(total).sqrt()
        for gradient in gradients:
            gradient.mul_((self._config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        return float(norm)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, whole tensor) of the optimizer's memory: both moments and the count of steps. Must
        be exhausted, by all ranks together.
        """
        for name, parameter in self._master.items():
            for key, value in self.adamw.state.get(parameter, {}).items():
                full = whole(value)
                yield (
                    f"{key}.{name}",
                    full.cpu() if self._team.rank == 0 else full[:0] if full.ndim else full,
                )

    def load(self, file: Path) -> None:
        """Take the memory that `state` gave from a checkpoint's file, written by any number of
        ranks.
        """
        with safe_open(file, "pt") as tensors:
            there = set(tensors.keys())
            for name, parameter in self._master.items():
                if f"step.{name}" not in there:
                    continue
                state = {"step": tensors.get_tensor(f"step.{name}").to(local(parameter).device)}
                for key in ("exp_avg", "exp_avg_sq"):
                    state[key] = torch.zeros_like(parameter)
                    fill(state[key], tensors.get_slice(f"{key}.{name}"), self._team)
                self.adamw.state[parameter] = state
