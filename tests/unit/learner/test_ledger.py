"""Every ticket is counted once, across checkpoints."""

from __future__ import annotations

import pytest

from sppo.learner.ledger import Ledger


def test_the_ledger_counts_every_ticket_once() -> None:
    ledger = Ledger()
    uids = [f"train-{ledger.issue():09d}" for _ in range(6)]
    ledger.use([uids[0], uids[3]])
    ledger.give_up(uids[1])
    assert ledger.open() == [2, 4, 5]
    assert (ledger.outstanding, ledger.trained, ledger.dead) == (3, 2, 1)
    restored = Ledger.restore(ledger.state())
    assert restored.state() == ledger.state()
    assert [restored.settled(u) for u in uids] == [True, True, False, True, False, False]
    with pytest.raises(ValueError, match="settled before"):
        restored.use([uids[3]])
