"""The policy in shards (FSDP2): every rank keeps its rows of each float32 master weight, gradient
and moment, and of each frozen weight where adapters are trained. Over all ranks, or over those of a
machine (`sppo.learner.mesh`).

Whole weights exist in the computing dtype, for one decoder layer at a time and, from forward to
backward, for the root (embedding, last norm, head). Every method is called by all ranks at the same
point of the same order (`sppo.learner.orders`).

Shape suffixes: T completion tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard

from sppo import families, models
from sppo.errors import ConfigError
from sppo.learner import adapters
from sppo.learner.adapters import Adapters
from sppo.learner.batching import MicroBatch
from sppo.learner.layers import decoder_layers, recompute
from sppo.learner.model import (
    Logprobs,
    Snapshot,
    check_head,
    check_rows,
    completion_logprobs,
    stored_dtype,
    trunk,
)  # fmt: skip
from sppo.learner.ranks import Ranks
from sppo.learner.rounding import Rounding
from sppo.learner.rows import fill, local, rows, whole
from sppo.learner.skeleton import skeleton, stored_buffers
from sppo.learner.stored import Tensors


class ShardedPolicy:
    """See `sppo.learner.model.Policy`; every rank has one."""

    def __init__(
        self, path: str, team: Ranks, *, device: str, logprobs: Logprobs, compute: torch.dtype,
        recomputed: bool = False, adapted: Adapters | None = None,
        on_forward: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Each rank reads its own rows of the weights; no rank holds the whole model.

        Raises ConfigError for a model without a linear head or without a list of decoder layers,
        and for adapters on layers that it has not.
        """
        self.device = device
        self._path = path
        self.base_dtype = stored_dtype(path)
        self._team = team
        self._compute = compute
        self._on_forward = on_forward
        self.family = families.read(path)
        self._module = skeleton(families.read_config(path), self.family, compute)
        check_head(self._module, path)
        if adapted:
            adapters.inject(self._module, adapted, path)
            for p in self._module.parameters():
                p.data = p.data if p.requires_grad else p.data.to(compute)
        self._scorer: Any = _Scorer(self._module, logprobs)
        dtypes = MixedPrecisionPolicy(
            param_dtype=None if compute is torch.float32 else compute, reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )  # fmt: skip
        layers = decoder_layers(self._module, trunk(self._module), setting="learner.ranks = 1")
        if recomputed:
            recompute(layers)
        for layer in layers:
            fully_shard(layer, mesh=team.mesh, mp_policy=dtypes)
            layer.register_forward_pre_hook(lambda *_: team.where.come(), prepend=True)
        # The root stays whole from forward to backward: the head's product keeps a reference to its
        # weight.
        fully_shard(self._scorer, mesh=team.mesh, mp_policy=dtypes, reshard_after_forward=False)
        for part in _parts(self._scorer):
            # A sum over ranks: the loss is normalised over the whole batch.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
        _materialise(self._scorer, team, device)
        parameters: dict[str, Any] = dict(self._module.named_parameters())
        self.master = {name: p for name, p in parameters.items() if p.requires_grad}
        """The shards of what is trained by Hugging Face's name, float32; tied ones once."""
        self._snapshots: dict[Snapshot, dict[str, Tensor]] = {}
        self._buffers = stored_buffers(self._module)
        files = sorted(Path(path).glob("*.safetensors"))
        _read(files, adapters.stored(parameters), self._buffers)
        self._adapted = adapted is not None
        for name, value in adapters.initial(self._module, adapted) if adapted else ():
            fill(self.master[name], value)

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return int(self._module.get_output_embeddings().weight.shape[0])

    def logprobs(
        self, batch: MicroBatch, *, entropy: bool = False, sampled: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See `Policy.logprobs`. Every rank calls it equally often, with gradients or without."""
        check_rows(self.family, batch)
        found: tuple[Tensor, Tensor | None] = self._scorer(batch, entropy, sampled)
        self._on_forward()
        return found

    def refresh(self) -> None:
        """Have the next forward fetch the weights anew. One without backward leaves the root's old
        ones in place.
        """
        for part in _parts(self._scorer):
            part.reshard()

    def going_back(self, *, last: bool) -> None:
        """See `Policy.going_back`. Over machines the sum of a step is sent, with the last."""
        self._scorer.set_requires_all_reduce(last)

    @contextmanager
    def using(self, snapshot: Snapshot | None) -> Iterator[None]:
        """See `Policy.using`."""
        if snapshot is None:
            yield
            return
        with torch.no_grad():
            own = {name: local(p).clone() for name, p in self.master.items()}
            self._put(self._snapshots[snapshot])
            try:
                yield
            finally:
                self._put(own)

    def _put(self, shards: dict[str, Tensor]) -> None:
        for name, p in self.master.items():
            local(p).copy_(shards[name])
        self.refresh()

    @torch.no_grad()
    def keep(self, snapshot: Snapshot, *, device: str, there: Tensors | None = None) -> None:
        """See `Policy.keep`."""
        place = "cpu" if device == "cpu" else self.device
        kept = {
            n: local(p).to(device=place, dtype=self._compute, copy=True)
            for n, p in self.master.items()
        }
        if there is not None:
            for name, p in self.master.items():
                kept[name].copy_(there[name][rows(p)])
        self._snapshots[snapshot] = kept

    def drop(self, snapshot: Snapshot) -> None:
        """See `Policy.drop`."""
        del self._snapshots[snapshot]

    def weights(self, snapshot: Snapshot | None = None) -> Iterator[tuple[str, Tensor]]:
        """See `Policy.weights`; one whole weight at a time, and named as in the files, or the model
        was refused. Must be exhausted.
        """
        return adapters.merged(
            self._module, lambda name, p: whole(self._computing(name, p, snapshot)), self._compute
        )

    @torch.no_grad()
    def kept(self, snapshot: Snapshot | None = None) -> Iterator[tuple[str, Tensor]]:
        """See `Policy.kept`, in shards."""
        for name, p in self.master.items():
            yield name, self._computing(name, p, snapshot)

    def _computing(self, name: str, p: Any, snapshot: Snapshot | None) -> Tensor:
        """A weight in the computing dtype, in shards."""
        kept = {} if snapshot is None else self._snapshots[snapshot]
        shard = kept.get(name, local(p).detach()).to(self.device, self._compute)
        return _like(p, shard, self._team)

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        """See `Policy.masters`, in shards."""
        for name, p in self.master.items():
            yield name, p.detach()

    @torch.no_grad()
    def load(self, there: Tensors) -> None:
        """See `Policy.load`; written by any number of ranks."""
        for name, p in self.master.items():
            fill(p, there[name])
        self.refresh()

    def export(self, folder: Path, dtype: torch.dtype) -> float | None:
        """See `Policy.export`; rank 0 writes."""
        first, rounding = self._team.rank == 0, Rounding(self._path, dtype)
        made = adapters.merged(self._module, lambda _, p: whole(p.detach()), torch.float32)
        tensors = dict[str, Tensor]()
        for name, weight in made:  # made by all ranks together, and kept by rank 0 alone
            if first:
                tensors[name] = rounding.of(name, weight).contiguous()
        tensors |= {name: buffer.cpu().contiguous() for name, buffer in self._buffers.items()}
        trained = [(n, whole(p).cpu()) for n, p in self.masters()] if self._adapted else []
        if not first:
            return None
        if self._adapted:
            adapters.save(self._module, trained, folder / adapters.FOLDER, self._path)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        self._module.config.dtype = dtype
        self._module.config.save_pretrained(str(folder))
        models.copy_generation_config(self._path, folder)
        return rounding.left


class _Scorer(nn.Module):
    """What FSDP2 wraps: inside `forward` the weights are whole."""

    def __init__(self, model: Any, logprobs: Logprobs) -> None:
        super().__init__()
        self._model = model
        self._logprobs = logprobs

    def forward(
        self, batch: MicroBatch, entropy: bool, sampled: bool
    ) -> tuple[Tensor, Tensor | None]:
        how = self._logprobs.sampled() if sampled else self._logprobs
        return completion_logprobs(self._model, batch, how, entropy=entropy)


def _read(files: list[Path], into: dict[str, Any], buffers: dict[str, Tensor]) -> None:
    """Parameters, which the files must hold, and buffers, which they may."""
    missing, wanted = set(into), into | buffers
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in wanted.keys() & set(tensors.keys()):
                fill(wanted[name], tensors.get_slice(name))
                missing.discard(name)
    if missing:
        raise ConfigError(
            f"model.name: {files[0].parent if files else 'the folder'} holds no "
            f"{sorted(missing)[0]!r}; a model whose files name their weights otherwise than "
            "Transformers does needs learner.ranks = 1"
        )


def _parts(scorer: nn.Module) -> Iterator[Any]:
    return (m for m in scorer.modules() if isinstance(m, FSDPModule))


def _like(p: Any, shard: Tensor, team: Ranks) -> Tensor:
    rows = (*(Replicate() for _ in range(team.mesh.ndim - 1)), Shard(0))
    made: Tensor = DTensor.from_local(
        shard, team.mesh, rows, run_check=False, shape=p.shape, stride=p.stride()
    )
    return made


def _materialise(scorer: nn.Module, team: Ranks, device: str) -> None:
    """Give every shard memory. Not by `to_empty`, which unties tied weights and blanks the rotary
    frequencies.
    """
    fresh: dict[Any, nn.Parameter] = {}
    for module in scorer.modules():
        for name, p in list(module._parameters.items()):
            if p is not None and p not in fresh:
                shard = torch.zeros(local(p).shape, dtype=p.dtype, device=device)
                fresh[p] = nn.Parameter(_like(p, shard, team), requires_grad=p.requires_grad)
            if p is not None:
                setattr(module, name, fresh[p])
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    for part in _parts(scorer):
        for group in part._get_fsdp_state()._fsdp_param_groups:
            for fsdp_param in group.fsdp_params:
                fsdp_param.reset_sharded_param()  # it pads shards that are not of equal size
