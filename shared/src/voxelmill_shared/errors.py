"""The errors that cross a boundary, one meaning each. Domain errors stand beside their domain."""

from __future__ import annotations

import errno

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when a disk, or a user's share of it, is full."""


class VoxelmillError(Exception):
    """Base of every error that Voxelmill raises on purpose."""


class TransientError(VoxelmillError):
    """A dependency failed in passing: the runtime answers with the retry ladder.

    `error_class` is the word that stands in the dead-letter queue and in the metrics.
    """

    error_class = "transient"


class StoreUnavailableError(TransientError):
    """The object store did not answer, or answered with a server error."""

    error_class = "store-unavailable"


class StoreFullError(StoreUnavailableError):
    """The object store has no room, or allows no more."""


class BrokerUnavailableError(TransientError):
    """The broker did not answer or closed the connection."""

    error_class = "broker-unavailable"


class DeliveryLostError(BrokerUnavailableError):
    """A message in hand is ours no more (its channel is lost, it was taken back): the broker delivers it again.

    No further settlement of this delivery can succeed, and what it took of the prefetch is free.
    """

    error_class = "delivery-lost"


class ObjectUnreadableError(TransientError):
    """An object cannot be read although the store answers: a right is missing, or the object is archived.

    Unlike a store that is away it can stay so for ever: attempts are spent on it.
    """

    error_class = "object-unreadable"


class ObjectDamagedError(ObjectUnreadableError):
    """What came of an object are not the bytes that its store says it has, twice."""

    error_class = "object-damaged"


class DatabaseUnavailableError(TransientError):
    """The database did not answer."""

    error_class = "database-unavailable"


class DiskFullError(TransientError):
    """A local disk has no room for the work: it waits until there is some."""

    error_class = "disk-full"


class DependencyAwayError(VoxelmillError):
    """A dependency is being waited for, and no messages are taken meanwhile. For `/readyz` alone."""


class UnfitDependencyError(VoxelmillError):
    """A dependency answers, but what stands on it is not what this version works with: somebody must mend it first."""


class MigrationError(UnfitDependencyError):
    """The tables cannot be brought up to date; the database is as it was before."""


class ObjectMissingError(VoxelmillError):
    """There is no object under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: no such object")
        self.key = key


class ObjectChangedError(VoxelmillError):
    """Under this key is another content than the one that was asked for."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: replaced by another content")
        self.key = key


class UnsafeKeyError(VoxelmillError):
    """A key that would leave its store, is empty, or cannot be stored faithfully."""


class UnroutableError(VoxelmillError):
    """A message was published that no queue wanted. It was not lost: publishing failed."""


class UndecodableMessageError(VoxelmillError):
    """A body that is no CloudEvents document of a type known here."""


class NotEquippedError(VoxelmillError):
    """This worker lacks what the job needs: a library, weights, a device.

    Nothing is wrong with the job: another worker may do it, or this one once it is equipped. The message waits without
    spending an attempt. The text is one line that says what is missing and how to bring it.
    """
