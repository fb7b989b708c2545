"""The model `totalsegmentator` as the service knows it: a plan and a volume in, a label map out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_segment.equipment import Equipment
from voxelmill_segment.segmenter import LabelMap
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.codes import segment_of
from voxelmill_segment.totalsegmentator.home import prepare_home
from voxelmill_segment.totalsegmentator.tasks import Request, licence_number, resolve
from voxelmill_segment.totalsegmentator.weights import WeightsFolder
from voxelmill_shared.imaging.volume import looks_like_ct
from voxelmill_shared.plan import Resolution
from voxelmill_shared.work import DeviceMemoryError, NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from voxelmill_segment.totalsegmentator.predictor import Predictor
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.plan import Plan
    from voxelmill_shared.work import Report

_LOWER = {Resolution.NORMAL: Resolution.FAST, Resolution.FAST: Resolution.FASTEST}


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to compute a request. `warning` says what was given up for it; empty: nothing."""

    request: Request
    results_on_host: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class TotalSegmentatorSegmenter:
    """Label maps of TotalSegmentator, voxel for voxel, from networks that stay in memory.

    Parameters
    ----------
    equipment
        Weights, device and licences.
    """

    equipment: Equipment

    @property
    def name(self) -> str:
        """The model's name."""
        return "totalsegmentator"

    @property
    def revision(self) -> str:
        """The version of the library."""
        return library.VERSION

    def segment(self, volume: Volume, plan: Plan, report: Report) -> LabelMap:
        """Label the classes that the plan asks for.

        Raises
        ------
        NotApplicableError
            If the model has no meaning for this volume.
        NotEquippedError
            If the library, weights or the device are missing here.
        UnfitPlanError
            If no series can be worked on like this.
        DeviceMemoryError
            If the GPU has too little memory, whatever was tried.
        MemoryError
            If the machine has.
        WorkCancelledError
            If `report` raised it.
        """
        report("load")
        prepare_home(self.equipment.weights, license_number=licence_number(self.equipment.licences) or "")
        from voxelmill_segment.totalsegmentator.chain import Source  # noqa: PLC0415 - the home comes before torch

        request = self.resolve(volume, plan)
        folder = WeightsFolder(self.equipment.weights)
        digest = folder.agree(plan.weights_digest, request.all_networks)
        predictor = _predictor(self.equipment.weights, self.equipment.device)
        source = Source.of(volume)
        gpu = predictor.device.type != "cpu"
        for rung in ladder(request, plan, folder, gpu=gpu, licences=self.equipment.licences):
            predictor.results_on_host = rung.results_on_host
            labels: npt.NDArray[np.uint8] | None
            try:
                labels = _label(source, rung.request, predictor, report)
            except MemoryError as error:
                reason = str(error) or "no memory left"
                labels = None
            if labels is None:  # not before the error has gone, and what the work that it ended held with it
                predictor.forget_all()
                continue
            warnings = (rung.warning,) if rung.warning else ()
            if rung.request is not request:
                digest = folder.agree("", rung.request.all_networks)
            segments = tuple(segment_of(label, name) for label, name in sorted(rung.request.classes.items()))
            facts = {
                "task": rung.request.task,
                "resolution": str(rung.request.resolution),
                "weights_digest": digest,
                "device": str(predictor.device),
            }
            return LabelMap(np.ascontiguousarray(labels.T), volume.affine, segments, warnings, facts)
        if gpu:
            raise DeviceMemoryError(
                f"{predictor.device}: too little memory for a volume of {' x '.join(map(str, volume.voxels.shape))}"
                f" ({reason}); free the device, or ask for a lower resolution"
            )
        raise MemoryError(reason)

    def resolve(self, volume: Volume, plan: Plan) -> Request:
        """Say what a plan means for a volume.

        Raises
        ------
        NotApplicableError
            If it has no meaning: another modality, or fewer voxels than one of the model's grid.
        """
        modality = volume.modality
        if not modality and not plan.task and looks_like_ct(volume):
            modality = "CT"
        elif not modality and not plan.task:
            raise NotApplicableError(
                "the file names no modality and its values are not those of a CT: name the task, total_mr for MR"
            )
        request = resolve(plan, modality, self.equipment.licences)
        thin = min(n * step for n, step in zip(volume.voxels.shape[::-1], volume.spacing, strict=True))
        for network in (*request.networks, *request.rough, *request.refining):
            # Half of a step makes no sample: Python, and so the package, rounds it to the even 0.
            if network.spacing is not None and max(network.spacing) >= 1.999 * thin:
                raise NotApplicableError(
                    f"the volume is {thin:.3g} mm thin; the task {request.task} sees nothing of"
                    f" {max(network.spacing) / 2:g} mm and less"
                )
        return request


def ladder(request: Request, plan: Plan, folder: WeightsFolder, *, gpu: bool, licences: str = "") -> Iterator[Rung]:
    """Yield the ways to compute a request, each with less memory than the one before.

    First everything on the device; then the results in the machine's memory, which changes no label; then, where the
    plan names no resolution and the weights are there, the next lower resolution, which does. Tiles are never smaller
    than the network was trained for, and one is computed at a time: another size would be another label map.
    """
    yield Rung(request)
    where = "on the device" if gpu else "in the machine"
    yield Rung(
        request,
        results_on_host=True,
        warning=f"memory ran out {where}: computed again with no other network in memory"
        + (" and the results in the machine's; the labels are the same" if gpu else "; the labels are the same"),
    )
    lower = _LOWER.get(request.resolution)
    while plan.resolution is None and lower is not None and lower in library.resolutions(request.task):
        other = resolve(plan.model_copy(update={"resolution": lower, "task": request.task}), request.modality, licences)
        if not folder.missing(other.all_networks):
            yield Rung(
                other,
                results_on_host=True,
                warning=f"memory ran out {where}: computed at the resolution {lower} instead of {request.resolution}",
            )
        lower = _LOWER.get(lower)


def open_totalsegmentator() -> TotalSegmentatorSegmenter:
    """Return the model with what the environment says that this worker has.

    Raises
    ------
    NotInstalledError
        If the library is not there.
    """
    library.require()
    return TotalSegmentatorSegmenter(Equipment.of_environment())


def _label(source: object, request: Request, predictor: Predictor, report: Report) -> npt.NDArray[np.uint8]:
    from voxelmill_segment.totalsegmentator.chain import label_total  # noqa: PLC0415 - the home comes before torch
    from voxelmill_segment.totalsegmentator.others import label_other  # noqa: PLC0415 - as above

    label = label_total if request.task in {"total", "total_mr"} else label_other
    return label(source, request, predictor, report)  # type: ignore[arg-type] # its class is not imported at the top


@lru_cache(maxsize=1)
def _predictor(weights: Path, device: str) -> Predictor:
    """Return the one predictor of this process, with the networks that it has kept."""
    from voxelmill_segment.totalsegmentator.predictor import Predictor, choose_device  # noqa: PLC0415 - as above

    return Predictor(choose_device(device), weights)
