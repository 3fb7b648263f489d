"""Checks of a model's files before anything starts: the headers of its weights, not the weights.

Whatever a role would find at its start is found here: a family that is not exact, files that are
short or lack a part, a context that is too small, a vocabulary that does not fit, an export that
could not be written.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from sppo import compute, families, models
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.families import Family

_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
_RELATIVE = frozenset({"bloom", "falcon_mamba", "mamba", "mamba2", "mpt", "rwkv"})
"""No table of positions: any length."""
_UNSCALED = frozenset({"default", "llama3", "yarn", "longrope", "dynamic", "proportional"})
"""Kinds of rotary positions whose `max_position_embeddings` is the whole context."""


def check(config: RunConfig, path: str, tokenizer: Any) -> Family:
    """Everything about the model's folder. Raises ConfigError with what is wrong and the mend."""
    name = config.model.name
    found = families.read_config(path, name)
    if (quantised := getattr(found, "quantization_config", None)) is not None:
        method = (
            quantised.get("quant_method", "?")
            if isinstance(quantised, dict)
            else quantised.quant_method
        )
        raise ConfigError(
            f"model.name = {name!r} holds quantised weights ({method}), which cannot be trained; "
            "name the model that it was made from"
        )
    family = families.of(found, name)
    _check_engine(config, family)
    check_context(config, found)
    shapes = headers(path, name)
    module = _skeleton(found, family, name)
    check_weights(module, shapes, config)
    if config.adapter.rank:
        from sppo.learner import adapters

        adapters.chosen(module, config.adapter, name)
    check_vocabulary(module, tokenizer, models.stop_ids(path, tokenizer), name)
    _check_export(found, tokenizer, name)
    return family


def _check_engine(config: RunConfig, family: Family) -> None:
    """A cluster's engines are taken to be on GPUs. Raises ConfigError."""
    cuda = bool(config.launch.ray_address) or compute.here(config).learner.device == "cuda"
    families.check_engine(
        family,
        config.generator.engine,
        config.model.name,
        on_cpu=not cuda,
        number_format=compute.resolve(config, cuda=cuda),
    )


def context(found: Any) -> tuple[int, str] | None:
    """The most tokens that a configuration allows, and the name of that limit; None where there is
    none.
    """
    if found.model_type in _RELATIVE or getattr(found, "alibi", False):
        return None
    name = next((n for n in _LIMITS if isinstance(getattr(found, n, None), int)), None)
    if name is None:
        return None
    limit = int(getattr(found, name))
    for rope in _ropes(found):
        kind, original = (
            rope.get("rope_type", "default"),
            rope.get("original_max_position_embeddings"),
        )
        if (
            kind == "longrope"
        ):  # its factors change with the length of what is read, engines' with their settings
            original = original or getattr(found, "original_max_position_embeddings", None)
            return int(
                original or limit
            ), "original_max_position_embeddings of longrope, where its factors change"
        if kind not in _UNSCALED:
            limit = int(limit * float(rope.get("factor") or 1))
    return limit, name


def check_context(config: RunConfig, found: Any) -> None:
    """Raises ConfigError if prompts and completions can be longer than what the model reads."""
    prompt, answer = config.task.max_prompt_tokens, config.sampling.max_tokens
    limit = context(found)
    if limit is not None and prompt + answer > limit[0]:
        raise ConfigError(
            f"task.max_prompt_tokens = {prompt} and sampling.max_tokens = {answer} need "
            f"{prompt + answer} tokens; "
            f"model.name = {config.model.name!r} reads {limit[0]} ({limit[1]}): lower them"
        )


def _ropes(found: Any) -> list[dict[str, Any]]:
    """Parameters of rotary positions: one set, or one for each kind of layer."""
    given = getattr(found, "rope_parameters", None) or {}
    if "rope_type" in given:
        return [given]
    return [part for part in given.values() if isinstance(part, dict)]


def headers(path: str, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights in the folder's safetensors files, by name.

    Raises ConfigError for files that are missing, of another kind, cut short or damaged.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(path)
    one, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    listed: dict[str, str] = {}
    if one.is_file() or not index.is_file():
        files = [one]
    else:
        listed = _json(index, name).get("weight_map", {})
        files = [folder / file for file in sorted(set(listed.values()))]
    if not files or (files == [one] and not one.is_file()):
        kinds = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
        other = next((f.name for kind in kinds for f in sorted(folder.glob(kind))), "")
        raise ConfigError(
            f"model.name = {name!r}: the folder holds no "
            f"model.safetensors"
            + (f", but {other}" if other else "")
            + "; save the model with save_pretrained of Transformers"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            what = "is missing" if not file.is_file() else f"cannot be read ({error})"
            raise ConfigError(
                f"model.name = {name!r}: {file} {what}; fetch the model again"
            ) from error
    if lacking := sorted(set(listed) - set(shapes)):
        raise ConfigError(
            f"model.name = {name!r}: {index.name} lists {lacking[0]!r}, which no file holds; "
            "fetch the model again"
        )
    return shapes


def check_weights(module: Any, shapes: dict[str, tuple[int, ...]], config: RunConfig) -> None:
    """Raises ConfigError unless every parameter is in the files, with its shape: a missing one
    would be made up.
    """
    where = f"model.name = {config.model.name!r}"
    own = {name: tuple(p.shape) for name, p in module.state_dict(keep_vars=True).items()}
    required = {name for name, _ in module.named_parameters()}
    sources, converted = _sources(module, shapes)
    filled = set(sources)
    for left, right in (getattr(module, "all_tied_weights_keys", None) or {}).items():
        filled |= {left, right} if {left, right} & filled else set()
    if lacking := sorted(required - filled):
        raise ConfigError(
            f"{where}: its files lack {len(lacking)} weights of a {type(module).__name__}, "
            f"{lacking[0]!r} among them; fetch the model again"
        )
    for name in sorted(set(sources) & set(own)):
        given = [shapes[source] for source in sources[name]]
        short = (
            sum(map(math.prod, given)) < math.prod(own[name])
            if name in converted
            else given != [own[name]]
        )
        if short:
            raise ConfigError(
                f"{where}: {sources[name][0]!r} is {list(given[0])} in its files, and {name!r} is "
                f"{list(own[name])} by config.json; fetch the model "
                f"again"
            )
    if config.learner.ranks > 1 and (apart := sorted(required - set(shapes))):
        raise ConfigError(
            f"learner.ranks = {config.learner.ranks}: the files of {where} name {apart[0]!r} "
            "otherwise than Transformers does, which ranks do not read; use learner.ranks = "
            "1"
        )


def _sources(
    module: Any, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, list[str]], set[str]]:
    """What Transformers would fill each parameter from, by names in the files; and which parameters
    it converts.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping = get_model_conversion_mapping(module)
    renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
    converters = [m for m in mapping if isinstance(m, WeightConverter)]
    own, prefix = module.state_dict(), module.base_model_prefix
    converter_of = {pattern: c for c in converters for pattern in c.source_patterns}
    sources: dict[str, list[str]] = {}
    converted: set[str] = set()
    for key in shapes:
        name, pattern = rename_source_key(key, renamings, converters, prefix, own)
        if name not in own and key in own:
            name, pattern = key, None
        names = [name] if pattern is None else _targets(name, converter_of[pattern])
        for each in names:
            sources.setdefault(each, []).append(key)
        if pattern is not None:
            converted.update(names)
    return sources, converted


def _targets(name: str, converter: Any) -> list[str]:
    """All parameters that a converter makes, by the name of the first."""
    first, *others = converter.target_patterns
    return [name, *(name.replace(first, other) for other in others)]


def check_vocabulary(module: Any, tokenizer: Any, stop: tuple[int, ...], name: str) -> None:
    """Raises ConfigError for tokens that the model has no row for, and where nothing would end a
    completion.
    """
    where = f"model.name = {name!r}"
    rows = min(
        int(part.weight.shape[0])
        for part in (module.get_input_embeddings(), module.get_output_embeddings())
    )
    added = set(
        tokenizer.added_tokens_decoder
    )  # a family's tokenizer may know tokens of its larger members
    highest = max(set(tokenizer.get_vocab().values()) - added, default=0)
    if highest >= rows:
        raise ConfigError(
            f"{where}: its tokenizer knows tokens up to {highest}, the model has {rows} rows; "
            "the tokenizer is another model's"
        )
    if not stop:
        raise ConfigError(
            f"{where}: neither generation_config.json, config.json, tokenizer nor chat template "
            "names a token that ends a completion; give generation_config.json an "
            "eos_token_id"
        )
    if stop[-1] >= rows:
        raise ConfigError(
            f"{where}: eos_token_id {stop[-1]} is beyond the model's {rows} rows; mend the "
            "eos_token_id of its generation_config.json and config.json"
        )


def _skeleton(found: Any, family: Family, name: str) -> Any:
    from sppo.learner.model import check_head
    from sppo.learner.skeleton import skeleton

    try:
        module = skeleton(found, family)
    except (
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        KeyError,
        ZeroDivisionError,
    ) as error:
        raise ConfigError(
            f"model.name = {name!r}: Transformers cannot make a {family.name} of its config.json: "
            f"{_first_line(error)}"
        ) from error
    check_head(module, name)
    return module


def _check_export(found: Any, tokenizer: Any, name: str) -> None:
    """What the end of the run writes beside the weights. Raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except Exception as error:
            raise ConfigError(
                f"model.name = {name!r}: an export could not be written: {_first_line(error)}"
            ) from error


def _json(file: Path, name: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"model.name = {name!r}: {file} is not JSON: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
