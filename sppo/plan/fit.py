"""What does not fit, and the setting that mends it: found by planning again with the change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.plan import learner, machines, roles
from sppo.plan.gpus import GIB, Gpu, size

MOST_RANKS = 64
ADAPTER_RANK = 32
"""Of adapters that are named as a way out."""
DEADLINE_SHARE = 0.6
"""Of `weights.phase_timeout_s`, after which a rank gives up (`sppo.weights.publisher`)."""

Change = tuple[str, Any]
"""A setting and the value that mends."""


def learner_on(config: RunConfig, gpu: Gpu) -> str:
    """Why the learner does not fit on such GPUs, and the mend, in one line; empty if it does."""
    found = learner.rank(config, gpu=True)
    if found.peak <= gpu.usable:
        return ""
    changes, fewer = _mend(config, gpu), ("adapter.rank", ADAPTER_RANK)
    name, _ = changes[0] if changes else ("learner.ranks", 0)
    words = (
        f"{name} = {_shown(_value(config, name))}: a rank of the learner takes "
        f"{size(found.peak)}, a GPU ({gpu.name}) has {size(gpu.usable)} to fill"
    )
    mends = [" and ".join(f"{name} = {_shown(value)}" for name, value in changes)]
    if not config.adapter.rank and _fits(with_change(config, fewer), gpu):
        mends.append(f"{fewer[0]} = {fewer[1]}")
    if mends := [mend for mend in mends if mend]:
        return f"{words}; set {', or '.join(mends)}"
    return f"{words}; no setting brings it down: choose a smaller model or a larger GPU"


def generator_on(config: RunConfig, gpu: Gpu | None) -> str:
    """The same of a generator."""
    found, tried = roles.generator(config, gpu), config.generator
    if found.cached_tokens >= found.longest or not found.wanted_tokens:
        return ""
    has = (
        f"its cache holds {found.cached_tokens:,} tokens, and a prompt with its completion takes "
        f"{found.longest:,}"
    )
    if gpu is None or config.launch.share_gpu:
        each = max(1, found.cache // max(found.cached_tokens, 1))
        least = found.longest * each / GIB
        return (
            f"generator.kv_cache_gib = {tried.kv_cache_gib:g}: {has}; set it to "
            f"{max(0.01, -(-least * 100 // 1) / 100):g}"
        )
    for parts in _doubled(tried.tensor_parallel, MOST_RANKS):
        changed = with_change(config, ("generator.tensor_parallel", parts))
        more = roles.generator(changed, gpu)
        if more.cached_tokens >= more.longest:
            return (
                f"generator.tensor_parallel = {tried.tensor_parallel}: {has}; "
                f"set generator.tensor_parallel = {parts}"
            )
    return f"sampling.max_tokens = {config.sampling.max_tokens}: {has}; lower it"


def turns_on(config: RunConfig, gpu: Gpu) -> str:
    """The same of the engines' turn on a GPU that the learner has for itself in between."""
    over = roles.sampling(config, gpu) - gpu.usable
    if over <= 0:
        return ""
    cache = config.generator.kv_cache_gib
    less = int((cache - over / config.generator.replicas / GIB) * 10) / 10
    words = (
        f"generator.kv_cache_gib = {cache:g}: in their turn engines take "
        f"{size(roles.sampling(config, gpu))} with what the learner keeps, a GPU ({gpu.name}) has "
        f"{size(gpu.usable)} to fill"
    )
    if less > 0:
        return f"{words}; set generator.kv_cache_gib = {less:g}"
    return f"{words}; train adapters (adapter.rank), or choose a smaller model or a larger GPU"


def sync_in_time(config: RunConfig, *, gpu: bool, bandwidth: float) -> str:
    """The same of a weight sync."""
    found = roles.sync(config, gpu=gpu, bandwidth=bandwidth)
    if found.seconds <= DEADLINE_SHARE * found.deadline:
        return ""
    return (
        f"weights.phase_timeout_s = {found.deadline:g}: a sync of {found.nbytes / 1e9:.1f} GB "
        f"takes {found.seconds:.0f} s at {bandwidth / 1e9:g} GB/s and is given up after "
        f"{DEADLINE_SHARE * found.deadline:.0f} s; set it to "
        f"{int(found.seconds / DEADLINE_SHARE * 1.5) + 1}"
    )


def _mend(config: RunConfig, gpu: Gpu) -> list[Change]:
    """One change if one is enough, else several; none if nothing is."""
    for change in _single(config):
        if _fits(with_change(config, change), gpu):
            return [change]
    together: list[Change] = []
    for change in _cheap(config):
        together.append(change)
        config = with_change(config, change)
    for ranks in _more_ranks(config):
        change = ("learner.ranks", ranks)
        if _fits(with_change(config, change), gpu):
            return [*together, change]
    return []


def _fits(config: RunConfig, gpu: Gpu) -> bool:
    """Whether a changed configuration mends; one that is refused does not."""
    try:
        return learner.rank(config, gpu=True).peak <= gpu.usable
    except ConfigError:
        return False


def _single(config: RunConfig) -> Iterator[Change]:
    yield from _cheap(config)
    if machines.sharing(config) < config.learner.ranks:
        yield "learner.shard", "all"
    for ranks in _more_ranks(config):
        yield "learner.ranks", ranks


def _cheap(config: RunConfig) -> Iterator[Change]:
    """What costs time and no GPU."""
    found = learner.rank(config, gpu=True)
    if not found.recomputed:
        yield "learner.recompute", "on"
    if config.learner.snapshot == "device" and learner.snapshots(config):
        yield "learner.snapshot", "host"
    if found.tokens > found.layout.alone:
        yield "learner.micro_batch_tokens", found.layout.alone
    if not config.optimizer.offload:
        yield "optimizer.offload", True


def _more_ranks(config: RunConfig) -> Iterator[int]:
    return iter(()) if config.launch.share_gpu else _doubled(config.learner.ranks, MOST_RANKS)


def _doubled(count: int, most: int) -> Iterator[int]:
    while (count := 2 * count) <= most:
        yield count


def with_change(config: RunConfig, change: Change) -> RunConfig:
    """The configuration with one setting changed."""
    section, _, name = change[0].partition(".")
    part = getattr(config, section).model_copy(update={name: change[1]})
    return config.model_copy(update={section: part})


def _value(config: RunConfig, setting: str) -> Any:
    section, _, name = setting.partition(".")
    return getattr(getattr(config, section), name)


def _shown(value: Any) -> str:
    """As --set takes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
