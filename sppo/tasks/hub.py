"""Data sets of the Hugging Face hub, and folders, read by the `datasets` library.

A folder is one that `save_to_disk` wrote, or one of data files (a clone of a data set's
repository). A data set of the hub is asked for once; where the hub does not answer, or
HF_HUB_OFFLINE is set, it is taken from this machine's caches, if it is there.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppo import hub_cache
from sppo.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

PROBE_S = 3.0
"""For the hub to say that it is there: `datasets` itself would ask for half a minute."""
DEFAULT_SPLIT = "train"


class _Failed(Exception):  # noqa: N818 - becomes a ConfigError with the setting
    """Why a data set cannot be read."""


def load(place: str, setting: str) -> pa.Table:
    """One split as a table. Raises ConfigError naming the setting, and the mend."""
    name, subset, split = parts(place)
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # it logs what it raises
    try:
        found = _from_folder(name, subset) if Path(name).is_dir() else _from_hub(name, subset)
        return _table(found, split)
    except _Failed as error:
        raise ConfigError(f"{setting}: {error}") from error


def absent(place: str) -> str:
    """What of a data set is not on this disk, and the mend; empty if something of it is there."""
    name, _, _ = parts(place)
    if Path(name).is_dir() or hub_cache.keeps("datasets", name) or _built(name):
        return ""
    if hub_cache.is_path(name):
        return f"no folder {name}; put it there, or name another"
    return (
        f"the data set {name}: it will be fetched from the hub, or before by hf download {name} "
        "--repo-type dataset"
    )


def parts(place: str) -> tuple[str, str, str]:
    """Name, subset and split of `<name>[:<subset>][:<split>]`; what is not said is empty."""
    if Path(place).is_dir():
        return place, "", ""
    name, *rest = place.split(":")
    if len(rest) > 2:
        name, rest = ":".join([name, *rest[:-2]]), rest[-2:]
    return name, rest[0] if len(rest) == 2 else "", rest[-1] if rest else ""


def _built(name: str) -> bool:
    """Whether `datasets` has built something of a data set: openai/MyData as openai___my_data."""
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or hub_cache.home() / "datasets")
    wanted = name.lower().replace("/", "").replace("_", "")
    return folder.is_dir() and any(
        entry.name.lower().replace("_", "") == wanted for entry in folder.iterdir()
    )


def _from_folder(name: str, subset: str) -> Any:
    import datasets

    saved = ("dataset_dict.json", "state.json")
    if any((Path(name) / file).is_file() for file in saved):
        if subset:
            raise _Failed(f"a saved data set has no subsets such as {subset!r}; leave it out")
        with _explained(name):
            return datasets.load_from_disk(name)
    with _explained(name):
        return datasets.load_dataset(name, subset or None, cache_dir=_cache_of(name))


def _cache_of(folder: str) -> str:
    """A cache for what `datasets` builds of a folder, for the files as they are now.

    Its own cache tells folders with a README.md apart by the folder's name and the card alone:
    other files under the same name would come as those that were built first.
    """
    import datasets

    seen = hashlib.sha256(str(Path(folder).resolve()).encode())
    for file in sorted(Path(folder).rglob("*")):
        about = file.stat()
        seen.update(f"{file} {about.st_size} {about.st_mtime_ns}".encode())
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "folders" / seen.hexdigest()[:16])


def _from_hub(name: str, subset: str) -> Any:
    import datasets

    if hub_cache.is_path(name):
        whose = "" if "/" in name else f"; a data set of the hub is written owner/{name}"
        raise _Failed(f"no folder {name}{whose}")
    if not _offline() and _hub_answers():
        with _explained(name):
            return datasets.load_dataset(name, subset or None)
    try:
        with _kept_offline(), _explained(name):
            return datasets.load_dataset(name, subset or None)
    except _Failed as error:
        if folder := _files_of(name):
            return _from_folder(folder, subset)
        if not isinstance(error.__cause__, ConnectionError):
            raise
    why = "HF_HUB_OFFLINE is set" if _offline() else f"{_endpoint()} does not answer"
    raise _Failed(
        f"the data set is not on this disk, and {why}; fetch it where there is a network (hf "
        f"download {name} --repo-type dataset), or name a folder or a file"
    )


def _files_of(name: str) -> str:
    """The folder of files that the hub's own tools fetched before; empty if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return ""


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _offline() -> bool:
    import datasets

    return bool(datasets.config.HF_HUB_OFFLINE)


def _hub_answers() -> bool:
    import httpx

    try:
        httpx.head(_endpoint(), timeout=PROBE_S)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def _kept_offline() -> Iterator[None]:
    """`datasets` looks into its cache alone."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the library raises, in one line."""
    try:
        yield
    except Exception as error:
        # It lets errors of a dozen libraries through, besides its own.
        raise _Failed(_words(name, error)) from error


def _words(name: str, error: Exception) -> str:
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    if isinstance(error, DatasetNotFoundError):
        return f"the hub has no data set {name}, or does not show it to you (hf auth login)"
    if isinstance(error, DataFilesNotFoundError):
        return f"{name} holds no data files that `datasets` knows (Parquet, JSON lines, CSV)"
    chain: list[BaseException] = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    if broken := next((e for e in chain if isinstance(e, UnicodeDecodeError)), None):
        return f"a file of {name} is not UTF-8 ({broken.reason}); save it as UTF-8"
    said = " ".join(str(error).split())
    if isinstance(error, ValueError) and "onfig" in said:  # which subsets there are
        return f"{said[:300]} Write the subset behind the name: hf:{name}:<subset>:<split>"
    kinds = ("CastError", "ArrowInvalid", "ArrowTypeError")
    if mixed := next((e for e in chain if type(e).__name__ in kinds), None):
        return (
            f"the files of {name} cannot be read together: {' '.join(str(mixed).split())[:300]}; "
            "give all rows the same columns and types, or name one file"
        )
    return f"`datasets` cannot read {name}: {type(error).__name__}: {said[:300]}"


def _table(found: Any, split: str) -> pa.Table:
    """A split of what was loaded: the one that is named, `train`, or the only one."""
    import datasets

    if isinstance(found, datasets.Dataset):
        if split:
            raise _Failed(f"holds one data set without splits; leave {split!r} out")
    else:
        splits = list(found)
        split = split or (DEFAULT_SPLIT if len(splits) > 1 else splits[0])
        if split not in splits:
            raise _Failed(f"no split {split!r}; there are {', '.join(splits)}")
        found = found[split]
    return found.with_format("arrow")[:]
