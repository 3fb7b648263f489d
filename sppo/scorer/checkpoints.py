"""The model that a scorer holds: its files, what they say of it, and its conversations.

No model's own code is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sppo.errors import ConfigError

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "bfloat16", "float16"]
Chat = list[dict[str, str]]


class Asked(Protocol):
    """What is read of a group, see `sppo.types.ScoreRequest`."""

    @property
    def uid(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def completions(self) -> Sequence[str]: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def messages(self) -> Sequence[tuple[str, str]]: ...


def refusal(model: str, why: str) -> ConfigError:
    """The user's mistake in the name of a model."""
    return ConfigError(f"scorer.options.model = {model!r}: {why}")


def folder(model: str) -> Path:
    """A local folder in Hugging Face format, fetched from the hub if it is none. Raises
    ConfigError.
    """
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise refusal(model, "the folder holds no config.json (Hugging Face format)")
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise refusal(
            model,
            f"neither a local folder nor a model the hub serves ({type(error).__name__}); give a "
            "folder in Hugging Face format",
        ) from error


def architectures(path: Path) -> list[str]:
    """The classes that a checkpoint names in its config.json. Raises ConfigError if that is no
    JSON object.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return [str(name) for name in config.get("architectures") or []]
    except (ValueError, AttributeError, TypeError) as error:
        raise refusal(str(path), f"config.json cannot be read: {error}") from error


def weights(path: Path) -> set[str]:
    """The names of a checkpoint's weights, without loading any. Raises ConfigError for a file that
    is damaged.
    """
    from safetensors import SafetensorError, safe_open

    found: set[str] = set()
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(str(file), framework="numpy") as opened:
                found |= set(opened.keys())
        except (SafetensorError, OSError) as error:
            raise refusal(
                str(path), f"{file.name} cannot be read ({error}); fetch it anew"
            ) from None
    return found


def tensors(path: Path, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Those of a checkpoint's weights that are there."""
    from safetensors import safe_open

    found = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as weights:
            for name in set(names) & set(weights.keys()):
                found[name] = weights.get_tensor(name)
    return found


def load(model: str, path: Path, kind: Any, device: str, dtype: Dtype, **more: Any) -> Any:
    """The model of a class of transformers, all of whose weights are in the checkpoint, for use
    without gradients. Raises ConfigError.
    """
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"scorer.options.device = {device!r}: there is no such GPU here")
    try:
        loaded, told = kind.from_pretrained(
            str(path), dtype=getattr(torch, dtype), output_loading_info=True, **more
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise refusal(model, f"it cannot be loaded: {words}") from error
    if missing := sorted(told["missing_keys"]):
        raise refusal(model, f"the checkpoint lacks weights: {', '.join(missing[:3])}")
    try:
        return loaded.eval().requires_grad_(False).to(device)
    except RuntimeError as error:
        words = str(error).splitlines()[0]
        raise ConfigError(f"scorer.options.device = {device!r}: {words}") from error


def tokenizer(model: str, path: Path) -> Any:
    """That of the checkpoint. Raises ConfigError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise refusal(model, f"it has no tokenizer ({type(error).__name__})") from error


def chat(request: Asked) -> Chat:
    """The prompt as messages."""
    messages = request.messages or [("user", request.question)]
    return [{"role": role, "content": content} for role, content in messages]


def as_text(messages: Chat) -> str:
    """The prompt as one text, for models that know no chats: a single message as it is, several
    with their roles.
    """
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{each['role'].upper()}: {each['content']}" for each in messages)


def chunks(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Positions of at most so many rows for one forward, those of like length together."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), most):
        yield order[start : start + most]
