"""What `voxelmill dlq` does: open the installation's broker and stores, and give answers as data."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from voxelmill_cli.engine import check_addresses, read_settings, state_settings
from voxelmill_cli.errors import EXIT_UNREACHABLE, CommandError
from voxelmill_shared import dead_letters
from voxelmill_shared.dead_letters import Letter, Selection
from voxelmill_shared.errors import BrokerUnavailableError, UnfitDependencyError, UnroutableError
from voxelmill_shared.settings import SharedSettings
from voxelmill_shared.transport.base import DeadLettersHeldError
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from voxelmill_shared.dead_letters import Order, Progress
    from voxelmill_shared.transport.base import Transport

_AGE = re.compile(r"(\d+)\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_since(text: str) -> datetime:
    """Read `2h` (ago), or a date or time in ISO 8601, which is this machine's if it names no zone.

    Raises
    ------
    CommandError
        If it is neither.
    """
    wrong = CommandError(f"--since {text}: write an age (30m, 2h, 7d) or a time (2026-01-31, 2026-01-31T12:00)")
    if age := _AGE.fullmatch(text.strip()):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        except OverflowError:
            raise wrong from None
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None


def read_selection(
    services: Sequence[str], error_classes: Sequence[str], series: Sequence[str], since: str | None
) -> Selection:
    """Make a selection of the options.

    Raises
    ------
    CommandError
        If a service has no queue, or `since` cannot be read.
    """
    known = {queue.consumer for queue in TOPOLOGY.queues}
    for service in services:
        if service not in known:
            raise CommandError(f"--service {service}: no service has that name; use {', '.join(sorted(known))}")
    return Selection(
        frozenset(services),
        frozenset(error_classes),
        frozenset(series),
        read_since(since) if since is not None else None,
    )


def settings_of(data: Path) -> SharedSettings:
    """Give the settings of the installation that the environment names, or of a folder of `voxelmill up`.

    Raises
    ------
    CommandError
        If there is none, or a setting is wrong.
    """
    found: dict[str, Any] = {"inbox_url": str(data / "inbox"), **state_settings(data)}
    found = {name: place for name, place in found.items() if f"VOXELMILL_{name.upper()}" not in os.environ}
    if "broker_url" in found and not (data / "broker.db").exists():
        raise CommandError(
            f"{data}: no installation there; name the folder of `voxelmill up` with --data, or set VOXELMILL_*_URL"
        )
    settings = read_settings(SharedSettings, found)
    check_addresses(settings)
    return settings


@asynccontextmanager
async def open_broker(settings: SharedSettings) -> AsyncIterator[Transport]:
    """Open the broker, and say in one line what goes wrong with the dead letters.

    Raises
    ------
    CommandError
        If another process has them in hand, or what stands on the broker is not of this version.
    """
    transport = open_transport(settings.broker_url)
    try:
        yield transport
    except UnroutableError as error:
        line = f"{error}: nobody would write down what is done here; start index (voxelmill-index, `voxelmill up`) once"
        raise CommandError(line, EXIT_UNREACHABLE) from None
    except (DeadLettersHeldError, UnfitDependencyError) as error:
        raise CommandError(str(error), EXIT_UNREACHABLE) from None
    finally:
        await transport.close()


async def list_letters(data: Path, selection: Selection) -> list[Letter]:
    """Look at the dead letters of an installation."""
    async with open_broker(settings_of(data)) as transport:
        return await dead_letters.look(transport, selection)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are to be replayed or dropped: handles that somebody typed, or a selection."""

    handles: tuple[str, ...]
    selection: Selection


async def find(data: Path, wanted: Wanted) -> list[Letter]:
    """Find the letters that are meant, each once.

    Raises
    ------
    NoSuchLetterError, AmbiguousHandleError
        If a handle names none, or several.
    """
    letters = await list_letters(data, wanted.selection)
    if not wanted.handles:
        return letters
    picked = [dead_letters.pick(letters, handle) for handle in wanted.handles]
    return list({letter.handle: letter for letter in picked}.values())


async def settle(data: Path, letters: Sequence[Letter], order: Order, *, drop: bool) -> Progress:
    """Replay letters, or drop them.

    Raises
    ------
    CommandError
        If the broker goes away: how far it came at least.
    """
    come = 0

    def told(progress: Progress) -> None:
        nonlocal come
        come = progress.done
        order.told(progress)

    async with open_broker(settings_of(data)) as transport:
        try:
            settled = dead_letters.drop if drop else dead_letters.replay
            return await settled(transport, letters, replace(order, told=told))
        except BrokerUnavailableError as error:
            verb = "dropped" if drop else "replayed"
            line = (
                f"{error}; at least {come} of {len(letters)} dead letters were {verb}, the others are where they were"
            )
            raise CommandError(f"{line}; start it again when the broker answers", EXIT_UNREACHABLE) from None


def as_document(letter: Letter) -> dict[str, Any]:
    """Give a letter as plain data."""
    reference = letter.object
    return {
        "handle": letter.handle,
        "queue": letter.queue,
        "service": letter.service,
        "dead_at": _iso(letter.dead_at),
        "error_class": letter.error_class,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "message_type": letter.message_type,
        "message_id": letter.message_id,
        "size": letter.size,
        "object": reference.address() if reference else None,
        "study_instance_uid": letter.study_instance_uid or None,
        "series_instance_uid": letter.series_instance_uid or None,
        "job": letter.job_id or None,
        "trace_id": letter.trace_id or None,
        "service_version": letter.service_version or None,
    }


def summary_document(letters: Sequence[Letter]) -> list[dict[str, Any]]:
    """Give the counts of letters, by queue and error class, as plain data."""
    return [
        {
            "queue": queue.queue,
            "count": queue.count,
            "oldest": _iso(queue.oldest),
            "by_error_class": dict(queue.by_error_class),
        }
        for queue in dead_letters.summarise(letters)
    ]


def short_handles(letters: Sequence[Letter]) -> dict[str, str]:
    """Give the shortest beginning of each handle that names no other, of at least eight characters."""
    for length in range(8, 64):
        beginnings = Counter(handle[:length] for handle in {letter.handle for letter in letters})
        if all(count == 1 for count in beginnings.values()):
            return {letter.handle: letter.handle[:length] for letter in letters}
    return {letter.handle: letter.handle for letter in letters}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
