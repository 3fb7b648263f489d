"""What the run's own records and the outcomes of the faults come to, as checks with bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sppo.chaos import audit as audits
from sppo.chaos.audit import Audit
from sppo.chaos.hurt import RECOVERY_WAIT_S
from sppo.chaos.plan import Outcome
from sppo.config import RunConfig
from sppo.launch import run_dir as run_dirs

RECOVERY_BAR_S = 30.0
SYNC_ALLOWANCE_S = 20.0


def report(
    run_dir: Path, events: Sequence[dict[str, Any]], outcomes: Sequence[Outcome],
    *, planned: int, config: RunConfig,
) -> dict[str, Any]:  # fmt: skip
    """All that is known of a run that has ended, with its embedded broker started once more."""
    left = audits.orphans(run_dir)
    found = audits.audit(run_dir)
    summary = run_dirs.read_json(run_dir / "summary.json") or {}
    hung = hung_syncs(events, config.weights.phase_timeout_s)
    hung += hung_learners(events, outcomes, config.hang_timeout_s)
    untouched = int(planned > 0 and not outcomes)
    return {
        "run_dir": str(run_dir),
        "finished": summary.get("finished", False),
        "held_out_accuracy": summary.get("held_out_accuracy"),
        "restarts": summary.get("restarts"),
        "faults": [asdict(o) for o in outcomes],
        "audit": asdict(found) | {"orphans": left},
        "hung_syncs": hung,
        "checks": [
            *checks(found, outcomes, len(hung), left),
            _check("run_unfinished", int(not summary.get("finished")), "runs", 0),
            _check("plan_untouched", untouched, "faults", 0),
        ],
    }


def hung_syncs(events: Sequence[dict[str, Any]], phase_timeout_s: float) -> list[dict[str, Any]]:
    """Weight syncs that took longer than their deadlines allow.

    A sync may wait for one deadline per failure it reports, for its own phases, and for a generator
    to be there at all; a broker that is away meanwhile may add its restart.
    """
    return [
        e
        for e in events
        if e["kind"] == "sync"
        and e["ready_s"] + e["transfer_s"] - e["alone_s"]
        > (len(e["failures"]) + 2) * phase_timeout_s + SYNC_ALLOWANCE_S
    ]


def hung_learners(
    events: Sequence[dict[str, Any]], outcomes: Sequence[Outcome], hang_timeout_s: float
) -> list[dict[str, Any]]:
    """Restarts of a learner that stood still though no fault had made it: a sync that hangs would
    end so.
    """
    faults = [o for o in outcomes if o.fault.role == "learner-0" and o.fault.kind != "kill"]
    explained = [
        (o.began, o.began + o.fault.seconds + RECOVERY_BAR_S + hang_timeout_s) for o in faults
    ]
    return [
        e
        for e in events
        if e["kind"] == "restart"
        and e["role"] == "learner-0"
        and "had hung" in e["text"]
        and not any(begin <= e["time"] <= end for begin, end in explained)
    ]


def checks(
    found: Audit, outcomes: Sequence[Outcome], hung: int, left: Sequence[str]
) -> list[dict[str, Any]]:
    """The answers that a machine reads."""
    times = [
        RECOVERY_WAIT_S if o.recovery_s is None else o.recovery_s
        for o in outcomes
        if not o.run_ended
    ]
    remains = len(left) + len(found.leftovers)
    return [
        _check("tickets_lost", len(found.lost), "tickets", 0),
        _check("tickets_trained_twice", len(found.twice), "tickets", 0),
        _check("tickets_dead_unexplained", len(found.dead_unexplained), "tickets", 0),
        _check("syncs_hung", hung, "syncs", 0),
        _check("max_recovery_s", max(times, default=0.0), "s", RECOVERY_BAR_S),
        _check("orphans", remains, "processes, shared memory, what the broker holds", 0),
    ]


def line(outcome: Outcome) -> str:
    """One outcome, in words."""
    fault = outcome.fault
    lasting = f" for {fault.seconds:.1f} s" if fault.seconds else ""
    what = f"{fault.at_s:6.0f} s  {fault.kind} {fault.role}{lasting}: "
    if outcome.run_ended:
        return what + "the run ended before that could show"
    if outcome.recovery_s is None:
        return what + f"not working again after {RECOVERY_WAIT_S:.0f} s"
    if not outcome.restarted:
        return what + f"went on {outcome.recovery_s:.1f} s after it was over"
    start_s = outcome.engine_start_s
    engine = f" and {start_s:.1f} s of the engine's own start" if start_s else ""
    return what + f"started again, working after {outcome.recovery_s:.1f} s{engine}"


def _check(name: str, value: float, unit: str, bar: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "ok": value <= bar}
