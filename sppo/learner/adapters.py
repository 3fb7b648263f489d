"""Adapters: a low-rank correction of each linear layer is trained, the model stays as it is.

    y = W x + (alpha / rank) · B A x        W [out, in] frozen, A [rank, in] random, B [out, rank] 0

The layers are those of `peft` (LoRA, arXiv 2106.09685), put into the model in place: its modules,
its head and its decoder layers are found as before. Generators get W + (alpha / rank) · B A under
the name of W, so they need not know.

With B = 0 the model is the base model: a snapshot of the first adapters is the reference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sppo import families
from sppo.config import AdapterConfig, RunConfig
from sppo.errors import ConfigError

NAME = "default"
"""The adapter's name, as peft has it in the names of its weights."""
FOLDER = "adapter"
"""Within an export."""
_BASE, _PARTS = ".base_layer.", (".lora_A.", ".lora_B.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """Which layers get one, and how they begin."""

    settings: AdapterConfig
    seed: int

    @classmethod
    def of(cls, config: RunConfig) -> Adapters | None:
        """As a run's settings say; None where the whole model is trained."""
        settings = config.adapter
        return cls(settings=settings, seed=config.seed) if settings.rank else None


def inject(module: Any, adapters: Adapters, where: str) -> None:
    """Put adapters into a model and freeze what is not theirs. They are float32, and on no device
    where the model is on none.

    Raises ConfigError as `chosen` does.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings = adapters.settings
    layers = chosen(module, settings, where)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=layers, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # It says that it transposes what GPT-2 stores transposed.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        inject_adapter_in_model(config, module)
    for name, p in module.named_parameters():
        p.requires_grad_(is_adapter(name))
        if is_adapter(name):
            p.data = p.data.float()


def initial(module: Any, adapters: Adapters) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 values on the CPU) with which adapters begin: the same for a seed, on any
    device and any number of ranks.
    """
    generator = torch.Generator().manual_seed(adapters.seed)
    for name, p in module.named_parameters():
        if is_adapter(name):
            value = torch.zeros(p.shape)
            if _PARTS[0] in name:
                nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)
            yield name, value


def is_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's."""
    return any(part in name for part in _PARTS)


def stored(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a model's files hold, by the names that they have there."""
    return {n.replace(_BASE, "."): p for n, p in parameters.items() if not is_adapter(n)}


@torch.no_grad()
def merged(
    module: Any, value: Callable[[str, Any], Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """(name, weight in `dtype`) under the names that they have without adapters, one at a time,
    each with its adapter added in float32. Without adapters: the parameters as they are.

    `value(name, parameter)` gives a parameter's whole tensor.
    """
    parameters = dict(module.named_parameters())
    for name, p in parameters.items():
        if is_adapter(name):
            continue
        weight, (layer, found, kind) = value(name, p), name.partition(_BASE)
        if found and kind == "weight":
            first, second = (f"{layer}{part}{NAME}.weight" for part in _PARTS)
            A, B = (
                value(n, parameters[n]).to(weight.device, torch.float32) for n in (first, second)
            )
            owner = module.get_submodule(layer)
            change = (B @ A).mul_(owner.scaling[NAME])
            weight = (change.T if owner.fan_in_fan_out else change).add_(weight)
        yield name.replace(_BASE, "."), weight.to(dtype)


def save(module: Any, values: Iterable[tuple[str, Tensor]], folder: Path, base: str) -> None:
    """Write adapters, by their names in `module`, as peft loads them beside the model `base`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{name.replace(f'.{NAME}.', '.')}": v.detach().cpu().contiguous()
        for name, v in values
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = module.peft_config[NAME]
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))


def chosen(module: Any, settings: AdapterConfig, where: str) -> list[str]:
    """Names of the layers that get one. The head gets none: it is not called, its weight is read.

    Raises ConfigError for layers that the model `where` has not, and for families whose layers are
    not what they seem.
    """
    from transformers.pytorch_utils import Conv1D

    family = module.config.model_type
    if family in families.UNADAPTED:
        raise ConfigError(
            f"adapter.rank = {settings.rank}: {where} is of the family {family!r}, some of whose "
            "linear layers are read and not called; set it to 0"
        )
    head = module.get_output_embeddings()
    linear = [
        name
        for name, layer in module.named_modules()
        # Not those of a class of their own, such as routers, which do something else too.
        if type(layer) in (nn.Linear, Conv1D) and layer is not head
    ]
    taken = _taken_for_experts(module, {name.rpartition(".")[2] for name in linear})
    linear = [name for name in linear if name.rpartition(".")[2] not in taken]
    if settings.layers == "all-linear" and linear:
        return linear
    there = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
    asked = [settings.layers] if isinstance(settings.layers, str) else settings.layers
    picked: list[str] = []
    for given in asked:
        found = [name for name in linear if name == given or name.endswith(f".{given}")]
        if not found:
            raise ConfigError(
                f"adapter.layers: {where} has no linear layer {given!r} below its head; it has "
                f"{there}"
            )
        picked += found
    return picked


def _taken_for_experts(module: Any, names: set[str]) -> set[str]:
    """Of these names of layers, those that peft takes for experts of a sparse mixture, which
    Transformers keeps as one tensor; a dense layer of that name is not found by it.
    """
    if not any(p.ndim == 3 for p in module.parameters()):
        return set()
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    found = set()
    for name in names:
        config = LoraConfig(target_modules=[name])
        try:
            convert_peft_config_for_transformers(config, module, conversions=None)
        except ValueError:  # it wants the others of the same tensor as well
            found.add(name)
        if config.target_modules != {name}:
            found.add(name)
    return found
