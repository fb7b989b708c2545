"""Exchanges, queues, rungs and dead-letter queues: the one description that every transport builds from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from voxelmill_shared.errors import UnfitDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENTS_EXCHANGE = "voxelmill.events"
DEAD_LETTER_EXCHANGE = "voxelmill.dlx"
DEFAULT_LADDER = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=5), timedelta(minutes=30))
DELIVERY_LIMIT = 20
"""How many consumers may die with one message in hand before it counts as their killer and goes to the dead letters."""


class TopologyMismatchError(UnfitDependencyError):
    """A queue or exchange exists on the broker with other arguments than ours; it must be emptied and deleted."""


def rung_name(wait: timedelta) -> str:
    """Name a rung: `5s`, `30s`, `5m`, `500ms`."""
    milliseconds = int(wait.total_seconds() * 1000)
    if milliseconds % 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds // 1000
    return f"{seconds // 60}m" if seconds % 60 == 0 and seconds else f"{seconds}s"


@dataclass(frozen=True, slots=True)
class ForeignExchange:
    """A durable exchange that others publish to, and what of it goes into a queue. `kind` is as they insist on it."""

    name: str
    kind: Literal["topic", "fanout", "direct"] = "topic"
    routing_key: str = "#"


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """One service's queue: its name (`segment.series-validated`) and the routing keys that it wants.

    `bindings` follow AMQP's topic rules: words between dots, `*` for one word, `#` for any number. `foreign` exchanges
    are declared and bound too; only RabbitMQ has any.
    """

    name: str
    bindings: tuple[str, ...]
    ladder: tuple[timedelta, ...] = DEFAULT_LADDER
    foreign: tuple[ForeignExchange, ...] = ()

    @property
    def consumer(self) -> str:
        """The service that takes from it: the first word of its name."""
        return self.name.partition(".")[0]

    @property
    def dead_letters(self) -> str:
        """The dead-letter queue."""
        return f"{self.name}.dlq"

    def rung(self, number: int) -> str:
        """The queue of a rung, from 0."""
        return f"{self.name}.retry.{rung_name(self.ladder[number])}"


@dataclass(frozen=True, slots=True)
class Topology:
    """All queues that must exist before anything is published."""

    queues: Sequence[QueueSpec] = field(default_factory=tuple)


INGEST = QueueSpec("ingest.object-uploaded", ("object.uploaded.v1", "upload.completed.v1", "job.requested.v1"))
THUMBNAIL = QueueSpec("thumbnail.series-validated", ("series.validated.v1",))
SEGMENT = QueueSpec("segment.series-validated", ("series.validated.v1",))
MESH = QueueSpec("mesh.series-segmented", ("series.segmented.v1",))
INDEX = QueueSpec(
    "index.all-events",
    (
        *("object.validated.v1", "object.rejected.v1", "series.*.v1", "stage.*.v1", "dead-letter.*.v1"),
        *("pseudonym.*.v1", "access.*.v1"),
    ),
)
INDEX_PROGRESS = QueueSpec("index.job-progressed", ("job.progressed.v1",))
"""Apart from the other events: progress is no fact that lasts, and it must not wait behind them."""
NOTIFICATIONS = QueueSpec("ingest.bucket-notifications", ())
"""What object stores say over AMQP, in their own words. The exchange that they publish to is a setting of ingest's."""
TOPOLOGY = Topology((INGEST, THUMBNAIL, SEGMENT, MESH, INDEX, INDEX_PROGRESS, NOTIFICATIONS))
"""Voxelmill's own. Every service declares all of it, so the order in which services start does not matter."""
