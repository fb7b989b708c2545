"""The three phases of a series in children: while a device computes one, the next is read and the last is written.

How many series are in hand is the broker's prefetch (`service`); here each takes its turns. A child is taken for one
phase alone, first come first served, so no series waits for another's reading or writing to be computed.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from voxelmill_segment.task import LABELS, Admission, Completion, Computation, Preparation
from voxelmill_shared.plan import ModelName
from voxelmill_shared.work import NotApplicableError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from voxelmill_segment.task import Computed, Prepared, SegmentTask, Shape
    from voxelmill_shared.child import ChildPool
    from voxelmill_shared.events import ObjectKind
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.work import Report, WorkResult


class Pipeline:
    """The children of the service. A context manager: leaving it ends them.

    Parameters
    ----------
    helpers
        Children that read and write (`work.act`).
    devices
        Children that compute, one for each device. They may be the helpers themselves: then a series is in one child
        at a time, and nothing overlaps.
    on_gpu
        Whether the devices are GPUs. The model `threshold` has no use for one: it is then computed by a helper.
    temporary
        Makes the folder of the children's temporary files, and removes it after them: they are killed in the end, and
        leave there what they have made.
    """

    def __init__(
        self,
        helpers: ChildPool,
        devices: ChildPool,
        temporary: AbstractContextManager[object] | None = None,
        *,
        on_gpu: bool = False,
    ) -> None:
        self._helpers = helpers
        self._devices = devices
        self._on_gpu = on_gpu
        self._temporary = temporary or nullcontext()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self._temporary)
        for pool in dict.fromkeys((self._helpers, self._devices)):
            await self._stack.enter_async_context(pool)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def admit(self, plan: Plan, kind: ObjectKind, modality: str) -> None:
        """Return if this worker can do what a plan asks for; what cannot be done is refused before it is fetched.

        Raises
        ------
        NotApplicableError, NotEquippedError, UnfitPlanError
            See `work.admit`.
        """
        await self._helpers.call(Admission(plan, kind, modality))

    async def segment(self, task: SegmentTask, report: Report) -> tuple[WorkResult, float]:
        """Read, compute and write a series.

        Returns
        -------
        tuple
            What came of it, and the seconds that children worked on it: waiting for a child is not work.

        Raises
        ------
        NotApplicableError
            If the model has no meaning for any volume of the series; the reason is that for the largest.
        VoxelmillError
            See `work` and `device`.
        """
        turn = _Turns(report)
        devices = self._helpers if self._on_gpu and task.plan.model is ModelName.THRESHOLD else self._devices
        refused: tuple[Shape, ...] = ()
        refusal: NotApplicableError | None = None
        while True:
            prepared: Prepared | None = await turn.take(self._helpers, Preparation(task, refused))
            if prepared is None:
                raise refusal or NotApplicableError("the series holds no volume")
            request = Computation(prepared.volume, task.plan, task.output / LABELS)
            try:
                computed: Computed = await turn.take(devices, request)
            except NotApplicableError as error:
                refused, refusal = (*refused, prepared.volume.shape), refusal or error
                continue
            result: WorkResult = await turn.take(self._helpers, Completion(task, prepared, computed))
            return result, turn.seconds


@dataclass(slots=True)
class _Turns:
    """Calls of one series, and how long they took together."""

    report: Report
    seconds: float = 0.0

    async def take(self, pool: ChildPool, request: Any) -> Any:
        async with pool.child() as child:
            started = time.monotonic()
            try:
                return await child.call(request, self.report)
            finally:
                self.seconds += time.monotonic() - started
