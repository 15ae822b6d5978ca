"""What the gateway counts of feedback; there only if it takes any."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class FeedbackMeasures:
    """Counters of one gateway.

    Args:
        registry: Where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.feedback = Counter(
            "gateway_feedback",
            "Feedback by what became of it: stored, replaced, or the code of its error",
            ["outcome"],
            registry=registry,
        )
        self.answers_lost = Counter(
            "gateway_feedback_answers_lost",
            "Captions that can get no feedback, since the database did not take them",
            registry=registry,
        )
        self.answers_waiting = Gauge(
            "gateway_feedback_answers_waiting",
            "Captions that are not in the database yet",
            registry=registry,
        )
        self.database_up = Gauge(
            "gateway_feedback_database_up",
            "1 if the database of feedback did what it was last asked, else 0",
            registry=registry,
        )
