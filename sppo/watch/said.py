"""What has been said of each topic: once, and again only where it got worse or came back."""

from __future__ import annotations

from dataclasses import dataclass

WORSE = 1.5
"""How many times as bad as when it was last said is clearly worse."""
OVER = 10
"""Judgements in a row without a finding after which a topic is over."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a person should look at."""

    topic: str
    text: str
    badness: float = 1.0
    """Comparable within its topic; larger is worse."""


@dataclass(slots=True)
class _Told:
    badness: float
    fine: int = 0


class Said:
    """if said.is_news("mismatch", finding): warn(finding.topic, finding.text)"""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def is_news(self, topic: str, finding: Finding | None) -> bool:
        """Take in one judgement of this topic, None being that all is well."""
        told = self._told.get(topic)
        if finding is None:
            if told is not None:
                told.fine += 1
                if told.fine >= OVER:
                    del self._told[topic]
            return False
        if told is None:
            self._told[topic] = _Told(finding.badness)
            return True
        told.fine = 0
        if finding.badness < WORSE * told.badness:
            return False
        told.badness = finding.badness
        return True
