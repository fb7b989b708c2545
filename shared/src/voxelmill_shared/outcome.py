"""What a handler answers. The runtime, and only the runtime, turns an answer into messages and acknowledgements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from voxelmill_shared.events.envelope import Event


@dataclass(frozen=True, slots=True)
class Done:
    """The work is finished (or was finished before); publish `events`, then acknowledge."""

    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """Something passing stood in the way; try again on the next rung of the ladder.

    `spends_attempt` is false for a wait on capacity or on a stopped dependency (DESIGN: guarantee 5): the message
    waits on the first rung and its attempt number stays.
    """

    reason: str
    error_class: str = "transient"
    spends_attempt: bool = True


@dataclass(frozen=True, slots=True)
class Reject:
    """This message can never succeed; put it into the dead-letter queue with its reason."""

    reason: str
    error_class: str = "rejected"


Outcome: TypeAlias = Done | Retry | Reject
