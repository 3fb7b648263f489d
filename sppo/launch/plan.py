"""What `up` would start, for `--dry-run`: roles and devices, work in flight, memory of the broker."""

from __future__ import annotations

from pathlib import Path

from sppo.config import RunConfig, cpu_threads

BYTES_PER_TOKEN = 8
"""In a group's frame: a token id and its log-prob."""


def describe(config: RunConfig, run_dir: Path) -> list[str]:
    """Lines for a person. Looks at no device, loads no model."""
    learner, generator, scorer, sampling = config.learner, config.generator, config.scorer, config.sampling
    tickets = (learner.lookahead_steps + 1) * learner.groups_per_step
    group = sampling.completions * sampling.max_tokens * BYTES_PER_TOKEN
    device = {"auto": "a GPU each if the machine has one, else the CPU", "cuda": "a GPU each", "cpu": "the CPU"}
    where = device[learner.device]
    lines = [
        f"run directory     {run_dir}",
        f"model             {config.model.name}{'@' + config.model.revision if config.model.revision else ''}",
        f"task              {config.task.name}, {config.task.held_out} questions held out",
        f"learner           1 rank; it and the generators on {where}; {cpu_threads(learner.threads)} CPU threads",
        f"generators        {generator.replicas} × {generator.engine}, at most {generator.max_groups} groups at a time",
        f"scorer            {_scorer(config)}",
        f"objective         target {learner.target}, anchor {learner.anchor}, weight {learner.weight}, "
        f"{'preferences' if learner.needs_preferences else 'rewards or preferences'}",
        f"steps             {learner.steps}, each {learner.groups_per_step // learner.mini_batches} groups of "
        f"{sampling.completions} completions of at most {sampling.max_tokens} tokens",
        f"tickets in flight {tickets}: {learner.groups_per_step} in use and {learner.lookahead_steps} batches ahead",
        f"broker            {config.broker.url or 'embedded, a Unix socket'}; groups of at most {_size(group)}, "
        f"{_size(tickets * group)} in flight",
        f"broker memory     {_size(config.broker.max_bytes)} of groups, then generators are held back; from half of it "
        f"on groups move to {run_dir}/spool",
        f"checkpoints       every {learner.checkpoint_every} steps, the newest {learner.keep_checkpoints} are kept",
    ]
    if scorer.mode == "inline":
        lines.append("threads           the scorer shares the generators' processes")
    return lines


def _scorer(config: RunConfig) -> str:
    scorer = config.scorer
    if scorer.url:
        return f"your service at {scorer.url}"
    place = "inside each generator" if scorer.mode == "inline" else f"{scorer.replicas} service(s) of their own"
    return f"{scorer.name}, {place}"


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.1f} {unit}"
