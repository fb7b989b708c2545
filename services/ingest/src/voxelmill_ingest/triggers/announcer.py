"""From notifications to `object.uploaded`: the one place where every source ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_ingest.triggers.normaliser import normalise
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.metrics import NOTIFICATIONS
from voxelmill_shared.transport.base import Message
from voxelmill_shared.uploads import upload_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_ingest.backpressure import Backpressure
    from voxelmill_ingest.triggers.notification import Notification
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.transport.base import Transport


@dataclass(frozen=True, slots=True)
class Announcer:
    """Publishes what is new in the inbox.

    Parameters
    ----------
    inbox
        What lies outside of it is none of our business: a bucket tells of every object, results included.
    transport
        Where it is announced.
    producer
        The name that this process has in the envelopes of events.
    pressure
        What holds announcements back while ingest's queue is long; None: nothing does.
    """

    inbox: ObjectStore
    transport: Transport
    producer: str
    pressure: Backpressure | None = None

    def read(self, document: object, source: str) -> list[Notification]:
        """Read what a source was told (see `normaliser.load`), and count what tells of no upload.

        Raises
        ------
        UnknownNotificationError
            If it is of no shape that is known.
        """
        told = normalise(document)
        if not told:
            NOTIFICATIONS.labels(source, "ignored").inc()
        return told

    async def announce(self, notifications: Sequence[Notification], source: str) -> int:
        """Announce objects; when this returns the broker holds every announcement. Return how many there were.

        Parameters
        ----------
        notifications
            What a source was told.
        source
            The source's name in the metrics: `amqp`, `sqs`, `http`, `seaweedfs`.

        Raises
        ------
        BrokerUnavailableError
            If the broker did not confirm: the source must keep what it was told, and come again.
        QueueFullError
            If ingest's queue is as long as it may be: likewise.
        UnroutableError
            If somebody deleted ingest's queue: likewise.
        """
        messages = []
        uploading = 0
        for told in notifications:
            key = self.inbox.key_of(told.bucket, told.key)
            if key is None:
                continue
            if upload_of(key) is not None:
                # The gateway announces it when its upload is complete: it may still be aborted, and be gone then.
                uploading += 1
                continue
            reference = ObjectRef(
                bucket=self.inbox.bucket, key=key, etag=told.etag, size=told.size, version_id=told.version_id
            )
            envelope = Envelope.wrap(ObjectUploaded(object=reference, found_by="notification"), self.producer)
            messages.append(Message(envelope.encode(), envelope.routing_key, str(envelope.id)))
        if messages:
            if self.pressure is not None:
                await self.pressure.admit()
            await self.transport.publish(messages)
        NOTIFICATIONS.labels(source, "announced").inc(len(messages))
        NOTIFICATIONS.labels(source, "uploading").inc(uploading)
        NOTIFICATIONS.labels(source, "outside").inc(len(notifications) - len(messages) - uploading)
        return len(messages)
