"""The headers of instances: read by ranges, many at a time, and kept for the next one who asks."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.dicomweb.ahead import ahead
from voxelmill_gateway.problems import Problem
from voxelmill_gateway.task import Header, ReadHeaders
from voxelmill_shared.concurrency import each
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from voxelmill_gateway.dicomweb.instances import Instance
    from voxelmill_shared.child import ChildPool
    from voxelmill_shared.parts import Scratch
    from voxelmill_shared.storage.stores import Stores

_STEPS: Final = (32 << 10, 1 << 20, 16 << 20)
"""How much of an object is read for its header, and how much if that was not enough; then all of it is fetched. 95 of
100 headers take less than 7 KiB."""
_HELD: Final = 32 << 20
"""How many bytes of beginnings are in memory for one batch."""
_READS: Final = 16
_BATCH: Final = 64
"""How many headers a child is given at a time."""
_BATCHES_AHEAD: Final = 3


@dataclass(slots=True)
class Headers:
    """Reads headers, and remembers those read last.

    Parameters
    ----------
    stores, children, scratch
        Where objects lie, who reads them, and where one is put that must be fetched as a whole.
    limit
        How many bytes of metadata are kept.
    """

    stores: Stores
    children: ChildPool
    scratch: Scratch
    limit: int
    _kept: OrderedDict[str, Header] = field(default_factory=OrderedDict)
    _held: int = 0

    async def one(self, instance: Instance) -> Header:
        """Return an instance's header; the errors are those of `all`."""
        return self._known(instance) or (await self._read([instance]))[0]

    async def all(self, instances: Sequence[Instance]) -> AsyncGenerator[tuple[Instance, Header], None]:
        """Give the headers of instances in their order.

        Raises
        ------
        Problem
            410 or 409 if an object is gone or replaced, 422 if a header cannot be read.
        """
        batches = [instances[start : start + _BATCH] for start in range(0, len(instances), _BATCH)]

        async def headers_of(batch: Sequence[Instance]) -> list[Header]:
            known = [self._known(instance) for instance in batch]
            missing = [instance for instance, header in zip(batch, known, strict=True) if header is None]
            read = iter(await self._read(missing) if missing else ())
            return [header or next(read) for header in known]

        calls = [(1, lambda batch=batch: headers_of(batch)) for batch in batches]
        number = 0
        async with aclosing(ahead(calls, most=_BATCHES_AHEAD, weight=_BATCHES_AHEAD)) as read:
            async for headers in read:
                for header in headers:
                    yield instances[number], header
                    number += 1

    def _known(self, instance: Instance) -> Header | None:
        header = self._kept.get(instance.content)
        if header is not None:
            self._kept.move_to_end(instance.content)
        return header

    def _keep(self, instance: Instance, header: Header) -> None:
        if instance.content not in self._kept:
            self._held += len(header.metadata)
        self._kept[instance.content] = header
        while self._held > self.limit and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._held -= len(dropped.metadata)

    async def _read(self, instances: Sequence[Instance]) -> list[Header]:
        found: dict[str, Header] = {}
        left = list(instances)
        for length in _STEPS:
            at_a_time = max(1, _HELD // length)
            for start in range(0, len(left), at_a_time):
                found |= await self._heads(left[start : start + at_a_time], length)
            left = [one for one in left if one.content not in found]
        for one in left:
            with self.scratch.folder("header") as folder:
                found |= await self._parsed([one], [await one.fetch(self.stores, folder)])
        for one in instances:
            self._keep(one, found[one.content])
        return [found[one.content] for one in instances]

    async def _heads(self, instances: Sequence[Instance], length: int) -> dict[str, Header]:
        """Read the headers that end within so many bytes."""

        async def head(instance: Instance) -> bytes:
            return await instance.read(self.stores, 0, min(length, instance.size))

        return await self._parsed(instances, await each(head, instances, _READS))

    async def _parsed(self, instances: Sequence[Instance], sources: Sequence[bytes | Path]) -> dict[str, Header]:
        task = ReadHeaders(tuple(sources), tuple(instance.size for instance in instances))
        found: dict[str, Header] = {}
        for instance, header in zip(instances, await self.children.call(task), strict=True):
            if isinstance(header, UnsupportedSeriesError):
                raise unreadable(instance, header)
            if header is not None:
                found[instance.content] = header
        return found


def unreadable(instance: Instance, error: UnsupportedSeriesError) -> Problem:
    """Say that an instance cannot be read, decoded or drawn, and why."""
    return Problem(422, "Not readable", f"{instance.sop}: {error.reason}; ask for it as it is stored", code=error.code)
