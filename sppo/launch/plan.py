"""What `up` would start, for `--dry-run`: roles and devices, work in flight, memory of the broker;
and what it takes (`sppo.plan`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sppo import compute
from sppo.config import RunConfig, cpu_threads
from sppo.launch import room

if TYPE_CHECKING:
    from sppo.plan.table import Plan

BANDWIDTH = 10e9
"""Bytes a second from the learner to generators, where nobody says."""


def describe(config: RunConfig, run_dir: Path) -> list[str]:
    """Lines for a person. Looks at no device, loads no model."""
    from sppo.plan import roles
    from sppo.plan.gpus import size

    learner, generator, scorer, sampling = (
        config.learner,
        config.generator,
        config.scorer,
        config.sampling,
    )
    objective, broker = config.objective, roles.broker(config)
    place = {"auto": "GPUs if there are any, else the CPU", "cuda": "GPUs", "cpu": "the CPU"}[
        learner.device
    ]
    on_gpus, counts = compute.placed(config, cuda=True), room.staff(config)
    gpus = sum(count * room.demand(role, on_gpus).gpus for role, count in counts.items())
    lines = [
        f"run directory     {run_dir}",
        f"model             "
        f"{config.model.name}{'@' + config.model.revision if config.model.revision else ''}",
        f"task              {_task(config)}",
        f"devices           {place}"
        + (f"; {gpus:g} GPU{'s' * (gpus != 1)} in all" if learner.device != "cpu" else ""),
        f"learner           {learner.ranks} rank(s), "
        f"{_each(learner.ranks, learner.cpus, 'rank')}; "
        f"{cpu_threads(learner.threads)} CPU threads in all",
        f"generators        {generator.replicas} × {generator.engine}; at most "
        f"{generator.max_groups} groups at once; "
        f"{_each(generator.devices, generator.cpus, 'generator')}",
        f"scorer            {_scorer(config)}",
        f"objective         target {objective.target}, anchor {objective.anchor}, "
        f"weight {objective.weight}, "
        f"{'preferences' if objective.needs_preferences else 'rewards or preferences'}",
        f"steps             {learner.steps}, each "
        f"{learner.groups_per_step // learner.mini_batches} groups of "
        f"{sampling.completions} completions of at most {sampling.max_tokens} tokens",
        f"tickets in flight {broker.tickets}: {learner.most_groups} in use and "
        f"{learner.lookahead_steps} batches ahead",
        f"broker            {config.broker.url or 'embedded, a Unix socket'}; groups of at most "
        f"{size(broker.group)}, "
        f"{size(broker.in_flight)} in flight",
        f"broker memory     {size(broker.limit)} of groups, then generators are held "
        f"back; from half of it "
        f"on groups move to {run_dir}/spool",
        f"checkpoints       every {learner.checkpoint_every} steps, the newest "
        f"{learner.keep_checkpoints} are kept",
    ]
    if scorer.mode == "inline":
        lines.append("scorer            runs beside each generator, on its machine")
    lines += [f"not on this disk  {what}" for what in _absent(config)]
    return lines + _judge(config)


def counted(
    config: RunConfig, *, gpu: str = "", bandwidth: float = BANDWIDTH, ranks_each: int = 0
) -> Plan:
    """What it takes in memory and on the network, with so many of the learner's ranks on each
    machine if they were placed; see `sppo.plan.table.made`. Raises ConfigError, also for a context
    that is too small.
    """
    from sppo.launch import model_check
    from sppo.plan import learner, machines, table

    model_check.check_context(config, learner.model(config)[0])
    with machines.placed(ranks_each):
        return table.made(config, gpu, bandwidth)


def placed(config: RunConfig, *, cuda: bool, machines: str = "") -> list[str]:
    """Lines for a person: where each role would go, on `machines` such as `2x8`, or on as few as
    hold the run where nobody has seen them. Raises ConfigError if it does not fit.
    """
    there, which, seats = _seats(config, cuda=cuda, machines=machines)
    many = f"{len(there)} machine{'s' * (len(there) > 1)}"
    lines = [f"placement         {many}{f' ({which})' if which else ''}"]
    for machine in there:
        parts = [
            f"{name} {_amount(seat.demand)}"
            for name, seat in seats.items()
            if machine in seat.machines
        ]
        if parts:
            lines.append(f"  {machine.words():30} {_runs(parts)}")
    anywhere = [name for name, seat in seats.items() if not seat.machines]
    return lines + ([f"  {'anywhere':30} {_runs(anywhere)}"] if anywhere else [])


def ranks_each(config: RunConfig, *, cuda: bool, machines: str = "") -> int:
    """How many of the learner's ranks `placed` puts on each of its machines."""
    at = _seats(config, cuda=cuda, machines=machines)[2]["learner-0"].machines
    return config.learner.ranks // max(1, len(at))


def _seats(
    config: RunConfig, *, cuda: bool, machines: str
) -> tuple[list[room.Machine], str, dict[str, room.Seat]]:
    """Machines, how they come to be these, and who goes where on them."""
    config, counts = compute.placed(config, cuda=cuda), room.staff(config)
    if machines:
        there, which = room.parse(machines), "--machines"
    elif config.launch.ray_address:
        there = room.enough(config, counts)
        which = "as few as hold it; --machines names yours"
    else:
        total = sum(n * room.demand(role, config).gpus for role, n in counts.items())
        own = gpus_here() if cuda else 0
        there = [room.Machine(name="this machine", gpus=own or total, cpus=os.cpu_count() or 1)]
        which = "none of its GPUs is seen here" if cuda and not own else ""
    return there, which, room.seats(there, config, counts)


def gpus_here() -> int:
    """That torch sees on this machine."""
    import torch

    return torch.cuda.device_count()


def _amount(demand: room.Demand) -> str:
    parts = [f"{n:g} {unit}{'s' * (n != 1)}" for unit, n in demand.bundle().items()]
    return f"({', '.join(parts)})"


def _runs(names: Sequence[str]) -> str:
    """Names, with those that follow each other and ask for the same as one: `generator-0..7`."""
    told: list[list[str]] = []
    for name in names:
        head, _, amount = name.partition(" ")
        role = head.rpartition("-")[0]
        if told and told[-1][0] == role and told[-1][3] == amount:
            told[-1][2] = head.rpartition("-")[2]
        else:
            number = head.rpartition("-")[2]
            told.append([role, number, number, amount])
    return ", ".join(
        f"{role}-{first}{f'..{last}' if last != first else ''}{f' {each}' if each else ''}"
        for role, first, last, each in told
    )


def _task(config: RunConfig) -> str:
    held_out = config.task.held_out
    names = (
        [config.task.name]
        if isinstance(config.task.name, str)
        else [f"{source.weight:g} × {source.name}" for source in config.task.name]
    )
    aside = f"{held_out} questions" if isinstance(held_out, int) else f"all of {held_out}"
    return f"{' + '.join(names)}, {aside} held out"


def _absent(config: RunConfig) -> list[str]:
    """What a run would have to fetch, or does not find."""
    from sppo import models

    scorer = config.scorer.options.get("model", "")
    named = [config.model.name, *([scorer] if isinstance(scorer, str) and scorer else [])]
    missing = [*filter(None, map(models.absent, named)), *absent_data(config)]
    return list(dict.fromkeys(missing))


def absent_data(config: RunConfig) -> list[str]:
    """What of its data a run would have to fetch, or does not find."""
    from sppo.tasks import sources

    own = sources.held_out(config.task)
    named = [*sources.training(config.task), *([own] if own else [])]
    return [what for source in named if (what := sources.absent(source))]


def _each(gpus: float, cpus: float, unit: str) -> str:
    aside = f"{cpus:g} CPUs set aside" if cpus else "no CPUs set aside"
    if unit == "rank":
        return f"a GPU or a share of the cores each, {aside} for each"
    return f"{gpus:g} GPU(s) or the cores each, {aside}"


def _scorer(config: RunConfig) -> str:
    scorer = config.scorer
    if scorer.url:
        return f"your service at {scorer.url}"
    place = (
        "inside each generator"
        if scorer.mode == "inline"
        else f"{scorer.replicas} service(s) of their own"
    )
    return f"{scorer.name}, {place}"


def _judge(config: RunConfig) -> list[str]:
    """What a judge will be asked for, and what of it is still to be set."""
    from sppo.scorer.judge import cost

    scorer, learner = config.scorer, config.learner
    if scorer.name != "llm-judge" or scorer.url:
        return []
    if missing := scorer.judge.lacks():
        return [f"still to be set   {missing}"]
    each = cost.calls(scorer.judge, config.sampling.completions)
    a_step = each * (learner.groups_per_step // learner.mini_batches)
    most = scorer.judge.max_calls
    return [
        f"judge             {scorer.judge.model} at {scorer.judge.url}; {each} calls a group, "
        f"{a_step:,} a step, {a_step * learner.steps:,} in {learner.steps} steps"
        + (f"; it stops after {most:,}" if most else "")
    ]
