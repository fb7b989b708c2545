"""The label map as a DICOM Segmentation (PS3.3 A.51), tied to the instances that it was made from.

LABELMAP (Supplement 243) with RLE: one frame for each slice, whatever the number of segments. BINARY for viewers that
do not know it yet: a frame for each slice and segment, and the data set deflated (PS3.5 A.5), which takes the bit
planes to about a thirtieth. Empty frames are left out of both.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from voxelmill_segment.equipment import SegType
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from voxelmill_segment.labels import Code, Segment
    from voxelmill_segment.segmenter import LabelMap
    from voxelmill_segment.task import SegmentTask
    from voxelmill_shared.imaging.volume import Volume

# The modules that a segmentation shares with its source (Patient, Study, Frame of Reference), and its geometry.
_SHARED = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize",
    "PatientWeight", "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod", "StudyInstanceUID",
    "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
    "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "PositionReferenceIndicator", "Manufacturer",
    "InstanceNumber", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime",
)  # fmt: skip
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "Manufacturer",
)  # fmt: skip
_SERIES_NUMBER = 9001
_FAMILIES = {  # CID 7162
    "threshold": DicomCode("123104", "DCM", "Morphological Operations"),
    "totalsegmentator": DicomCode("123110", "DCM", "Artificial Intelligence"),
}
_PARAMETERS = ("task", "resolution", "weights_digest")
"""Facts that say how the labels came about. The device is none: another one gives the same labels."""
_MOST_BETWEEN = 0.1
"""How much of a volume may lie between the instances, where slices were missing, for a segmentation to refer to it."""


class UnreferableError(Exception):
    """The label map's slices are not those of the instances, so a segmentation cannot refer to them."""


def write_dicom_seg(
    path: Path, label_map: LabelMap, volume: Volume, task: SegmentTask, model: str, kind: SegType = SegType.LABELMAP
) -> bool:
    """Write a label map as a DICOM Segmentation.

    A LABELMAP's segments have the numbers that they have in the label map; a BINARY's are numbered from 1 without gaps,
    as it demands (PS3.3 C.8.20.4), in the same order. Segment Label is the segment's name in both. Segments without
    voxels are left out. The positions of the frames are those of the source, so a tilted gantry (a sheared volume)
    comes out right. The same input gives the same bytes: UIDs are derived from the content, dates are those of the
    source. A segment's Tracking UID is derived from the series and the segment's name: it is that of the same structure
    in every segmentation of the series.

    Parameters
    ----------
    path
        The file to write.
    label_map
        The labels; their slices are those of the volume. Its facts are named as the algorithm's parameters.
    volume
        The volume that was segmented: it knows which file and frame each slice is from.
    task
        Names the files that the volume was read from, in the order in which they were given to the reader, and the
        UIDs that the segmentation refers to them by.
    model
        Name and revision of the model, `threshold 1`.
    kind
        The Segmentation Type.

    Returns
    -------
    bool
        False, and nothing is written, if there is no segment with voxels.

    Raises
    ------
    UnreferableError
        If the volume was resampled, or lies in several multi-frame instances.
    """
    real = [k for k, number in enumerate(volume.instance_order) if number >= 0]
    if len(volume.instance_order) - len(real) > _MOST_BETWEEN * len(volume.instance_order):
        raise UnreferableError("the volume was resampled, so its slices lie between those of the instances")
    present = sum((np.bincount(label_map.labels[k].ravel(), minlength=256) for k in real), np.zeros(256, np.int64))
    segments = [segment for segment in label_map.segments if present[segment.number]]
    if not segments:
        return False
    headers = _read_headers(task)
    content = _content(label_map, headers, model, kind)
    uid = _uid(f"instance {content}")
    images, frames = _arrange(label_map, volume, headers, uid)
    binary = kind is SegType.BINARY
    numbers = range(1, len(segments) + 1) if binary else [segment.number for segment in segments]
    if binary or set(np.flatnonzero(present)) - {0, *numbers}:
        renumber = np.zeros(256, np.uint8)
        for number, segment in zip(numbers, segments, strict=True):
            renumber[segment.number] = number
        frames = renumber[frames]
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues(kind.upper()),
        segment_descriptions=[
            _describe(number, segment, model, label_map.facts, task.series_instance_uid)
            for number, segment in zip(numbers, segments, strict=True)
        ],
        series_instance_uid=_uid(f"series {content}"),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="Voxelmill",
        manufacturer_model_name="Voxelmill",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=f"Automatic segmentation, {model}",
        transfer_syntax_uid=ExplicitVRLittleEndian if binary else RLELossless,
        omit_empty_frames=True,
    )
    seg.SeriesDescription = f"Segmentation, {model}"
    _make_repeatable(seg, images[0], uid)
    if binary:
        seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian  # pydicom deflates as it writes
    seg.save_as(path)
    return True


def _read_headers(task: SegmentTask) -> list[Dataset]:
    """Read the headers of the source files, with the UIDs that ingest knows them by."""
    headers: list[Dataset] = []
    for path, instance, kind in zip(task.paths, task.sop_instance_uids, task.sop_class_uids, strict=True):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)  # some have no preamble
        header.StudyInstanceUID = task.study_instance_uid
        header.SeriesInstanceUID = task.series_instance_uid
        header.SOPInstanceUID = instance
        # Without a class a reference is of no use; what the models take for a CT is referred to as one.
        header.SOPClassUID = kind or header.get("SOPClassUID") or CTImageStorage
        for keyword in _TYPE_2:
            if keyword not in header:
                setattr(header, keyword, "")
        headers.append(header)
    return headers


def _arrange(
    label_map: LabelMap, volume: Volume, headers: Sequence[Dataset], uid: str
) -> tuple[list[Dataset], npt.NDArray[np.uint8]]:
    """Return the source images and the labels, frame by frame in the same order."""
    reference = volume.frame_of_reference_uid or _uid(f"frame of reference of {uid}")
    real = [k for k, number in enumerate(volume.instance_order) if number >= 0]  # the others were interpolated
    numbers = [volume.instance_order[k] for k in real]
    labels = label_map.labels if len(real) == len(label_map.labels) else label_map.labels[real]
    several = [number for number in set(numbers) if int(headers[number].get("NumberOfFrames") or 1) > 1]
    if several and len(set(numbers)) > 1:
        raise UnreferableError("the volume lies in several multi-frame instances")
    if several:
        header = headers[numbers[0]]
        header.FrameOfReferenceUID = reference
        frames = np.zeros((int(header.NumberOfFrames), *labels.shape[1:]), np.uint8)
        frames[[volume.frame_order[k] for k in real]] = labels
        return [header], frames
    first = headers[numbers[0]]
    # One volume has one orientation and one spacing: what differs in the last digits is rounding.
    shared = {name: first[name].value for name in ("ImageOrientationPatient", "PixelSpacing") if name in first}
    return [_source(headers[number], reference, shared) for number in numbers], labels


def _source(header: Dataset, frame_of_reference: str, shared: dict[str, Any]) -> Dataset:
    """Return what a segmentation needs of a source's header."""
    source = Dataset()
    for keyword in _SHARED:
        if keyword in header:
            source[keyword] = header[keyword]
    for keyword, value in shared.items():
        setattr(source, keyword, value)
    source.FrameOfReferenceUID = frame_of_reference
    return source


def _describe(
    number: int, segment: Segment, model: str, facts: dict[str, str], series_instance_uid: str
) -> hd.seg.SegmentDescription:
    name, _, revision = model.partition(" ")
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=_code(segment.category),
        segmented_property_type=_code(segment.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=name,
            version=revision,
            family=_FAMILIES.get(name, _FAMILIES["totalsegmentator"]),
            source="Voxelmill",
            parameters={one: facts[one] for one in _PARAMETERS if one in facts} or None,
        ),
        tracking_id=segment.name,
        tracking_uid=_uid(f"segment {segment.name} of series {series_instance_uid}"),
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )
    if segment.modifier is not None:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            hd.sr.CodedConcept.from_code(_code(segment.modifier))
        ]
    return description


def _code(code: Code) -> DicomCode:
    return DicomCode(code.value, code.scheme, code.meaning)


def _make_repeatable(seg: Dataset, source: Dataset, uid: str) -> None:
    """Replace what is random or of this moment: a job done again after a crash gives the same bytes."""
    date, time = _when(source)
    seg.ContentDate, seg.ContentTime = date, time
    seg.SeriesDate, seg.SeriesTime = date, time
    seg.InstanceCreationDate, seg.InstanceCreationTime = date, time
    for equipment in seg.ContributingEquipmentSequence:
        equipment.ContributionDateTime = date + time
    organization = _uid(f"dimension organization of {uid}")
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization


def _when(source: Dataset) -> tuple[str, str]:
    for kind in ("Content", "Acquisition", "Series", "Study"):
        date, time = source.get(f"{kind}Date"), source.get(f"{kind}Time")
        if date and time:
            return str(date), str(time)
    return "19000101", "000000"


def _content(label_map: LabelMap, headers: Sequence[Dataset], model: str, kind: SegType) -> str:
    """Return a digest of all that makes the segmentation what it is."""
    digest = hashlib.sha256(f"{kind}\n{model}\n{[segment.number for segment in label_map.segments]}\n".encode())
    for uid in sorted(str(header.SOPInstanceUID) for header in headers):
        digest.update(uid.encode())
    digest.update(np.ascontiguousarray(label_map.labels).data)
    return digest.hexdigest()


def _uid(text: str) -> str:
    """Return a UID of a UUID (PS3.5 B.2) that follows from a text."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"
