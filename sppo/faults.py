"""Crash points: labelled places where a process can be made to die, for tests of what survives.

    SPPO_CRASH_POINT=learner.step.taken      dies by SIGKILL when it first passes there
    SPPO_CRASH_POINT=learner.step.taken@3    the third time
    SPPO_CRASH_POINT=learner.step.taken!stop stands still there by SIGSTOP, as a process that hangs

Without the variable a point is one comparison.
"""

from __future__ import annotations

import os
import signal

from sppo.errors import ConfigError

VARIABLE = "SPPO_CRASH_POINT"

POINTS = (
    # learner: a life begins
    "learner.epoch.opened",
    "learner.reconcile.read",
    "learner.reconciled",
    # learner: tickets out, groups in
    "learner.admit.numbered",
    "learner.admit.issued",
    "learner.claimed",
    "learner.frame.fetched",
    "learner.frame.rejected",
    "learner.spool.written",
    "learner.spool.settled",
    "learner.again.settled",
    # learner: a step
    "learner.step.taken",
    "learner.used",
    "learner.recorded",
    # learner: a weight sync
    "learner.sync.announced",
    "learner.sync.sent",
    "learner.sync.applied",
    # learner: a checkpoint
    "checkpoint.begun",
    "checkpoint.written",
    "checkpoint.flushed",
    "checkpoint.renamed",
    "learner.settle.begun",
    "learner.settled",
    # generator
    "generator.leased",
    "generator.sampled",
    "generator.scored",
    "generator.push.stored",
    "generator.pushed",
    "generator.sync.paused",
    "generator.sync.joined",
    "generator.sync.applied",
    # scorer
    "scorer.received",
    "scorer.scored",
)

_label = ""
_left = 0
_signal = signal.SIGKILL


def arm(text: str) -> None:
    """Have this process die at `label`, `label@times`, or stop at `label!stop`; an empty text
    disarms.

    Raises ConfigError for an unknown label.
    """
    global _label, _left, _signal
    text, _, action = text.partition("!")
    label, _, count = text.partition("@")
    if (label and label not in POINTS) or not (count.isdigit() or not count):
        raise ConfigError(f"{VARIABLE}={text}: no such crash point; sppo/faults.py lists them")
    if action not in ("", "stop"):
        raise ConfigError(
            f"{VARIABLE}: {action!r} is not something to do; leave it out, or write !stop"
        )
    _label, _left = label, int(count or 1)
    _signal = signal.SIGSTOP if action else signal.SIGKILL


def point(label: str) -> None:
    """Die here if the environment says so."""
    global _left
    if label == _label:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), _signal)


arm(os.environ.get(VARIABLE, ""))
