"""What is odd about a series as a whole: warnings of its instances, counted, and what they contradict each other in.

Pure decisions. A series is not refused for any of it: what makes a volume impossible, the later stages refuse with a
reason of their own, and pictures are made all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_ingest.cautions import Caution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_ingest.findings import Instance


def series_warnings(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Return the warnings about a series, first those about the whole of it.

    Parameters
    ----------
    instances
        What the headers of its instances say, in the order of the manifest.
    """
    return (*_contradictions(instances), *_counted(instances))


def _contradictions(instances: Sequence[Instance]) -> list[str]:
    said = []
    for caution, what, values in (
        (Caution.SEVERAL_PATIENTS, "patients", {one.patient_mark for one in instances}),
        (Caution.SEVERAL_FRAMES_OF_REFERENCE, "frames of reference", {one.frame_of_reference_uid for one in instances}),
        (Caution.SEVERAL_MODALITIES, "modalities", {one.modality for one in instances}),
    ):
        values.discard("")
        if len(values) > 1:
            said.append(caution.about(f"{len(values)} {what} in {len(instances)} instances"))
    return said


def _counted(instances: Sequence[Instance]) -> list[str]:
    """Return each kind of warning once, with how many instances have it and what it says of the first."""
    found: dict[str, list[str]] = {}
    for instance in instances:
        for code, said in {warning.partition(":")[0]: warning for warning in reversed(instance.warnings)}.items():
            found.setdefault(code, []).append(said)
    total = len(instances)
    return [
        said[0]
        if total == 1
        else f"{said[0]} ({'all ' if len(said) == total else f'{len(said)} of '}{total} instances)"
        for said in found.values()
    ]
