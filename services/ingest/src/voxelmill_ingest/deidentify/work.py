"""Reading an original and writing its de-identified copy. Runs in a child process: what it reads may be hostile.

Only what this module writes may leave the incoming bucket. No error that it raises quotes a value.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Final

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from voxelmill_ingest.deidentify.codestreams import blank_comments
from voxelmill_ingest.deidentify.dataset import Cleaner
from voxelmill_ingest.deidentify.errors import NotDeidentifiableError
from voxelmill_ingest.deidentify.job import Copy, Job
from voxelmill_ingest.deidentify.nifti import clean_nifti
from voxelmill_ingest.deidentify.risk import burned_in_risk
from voxelmill_ingest.findings import ArchiveFormat, Instance, Refusal
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.reasons import Reason
from voxelmill_shared.errors import NO_ROOM
from voxelmill_shared.events import ObjectKind, ObjectRef

if TYPE_CHECKING:
    from collections.abc import Callable

_DAMAGE: Final = (
    InvalidDicomError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom, gzip and zlib raise on bytes that they cannot read or write. Their texts may quote a value."""
_PIXEL_DATA: Final = 0x7FE00010
_PIXELS: Final = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)
"""Float, Double Float and Pixel Data."""
_IMPLEMENTATION: Final = UID("2.25.264177226414912413389064437519863713389")
"""Our Implementation Class UID (PS3.7 D.3.3.2)."""


def deidentify(job: Job, progress: Callable[[Any], None]) -> Copy | Refusal:  # noqa: ARG001 - the child's calling convention
    """Write a de-identified copy, or say why there is none.

    Raises
    ------
    NotDeidentifiableError
        If the original cannot be read to its end. Nothing that was written is then to be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        try:
            found = _inspect(job)
            if isinstance(found, Refusal):
                return found.nameless()
            if isinstance(found, ArchiveFormat):
                return Refusal(reason=Reason.ARCHIVE_NESTED_TOO_DEEP, detail=Reason.ARCHIVE_NESTED_TOO_DEEP.explanation)
            if found.kind is ObjectKind.NIFTI:
                return Copy(clean_nifti(job.source, job.target), {}, None)
            return _dicom(job)
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise  # the machine's fault: the object is not refused for it
            raise NotDeidentifiableError(f"its data set cannot be read to its end ({type(error).__name__})") from None


def _inspect(job: Job) -> Instance | Refusal | ArchiveFormat:
    size = job.source.stat().st_size
    reading = inspect(ObjectRef(bucket="", key=job.name, etag="", size=size))
    with job.source.open("rb") as file:
        try:
            wanted = next(reading)
            while True:
                file.seek(wanted.start)
                wanted = reading.send(file.read(wanted.length))
        except StopIteration as end:
            found: Instance | Refusal | ArchiveFormat = end.value
            return found


def _dicom(job: Job) -> Copy | Refusal:
    dataset = pydicom.dcmread(job.source, force=True)
    risk = burned_in_risk(dataset)
    if risk is not None:
        return Refusal(reason=Reason.BURNED_IN_TEXT_RISK, detail=f"{risk}: the pixels may show who the patient is")
    transfer_syntax = _transfer_syntax(dataset)
    media_uid = str(dataset.file_meta.get("MediaStorageSOPInstanceUID", ""))
    media_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if not any(tag in dataset for tag in _PIXELS):
        raise NotDeidentifiableError("its data set ends before its pixels")
    _clean_pixels(dataset, transfer_syntax)
    pixels = _digest(dataset)
    cleaner = Cleaner(job.secrets, job.options)
    cleaner(dataset)
    if not dataset.get("SOPInstanceUID"):
        dataset.SOPInstanceUID = cleaner.uid(media_uid)
    if not dataset.get("SOPClassUID"):
        dataset.SOPClassUID = media_class
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "VOXELMILL"
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    pydicom.dcmwrite(job.target, dataset, enforce_file_format=True)
    if _digest(dataset) != pixels:
        raise NotDeidentifiableError("its pixels changed while it was written")
    return Copy(".dcm", cleaner.uids, cleaner.patient)


def _transfer_syntax(dataset: pydicom.FileDataset) -> UID:
    """Return the transfer syntax; where the file does not say, the one that it was read in."""
    said = dataset.file_meta.get("TransferSyntaxUID")
    if said:
        return UID(said)
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _clean_pixels(dataset: pydicom.Dataset, transfer_syntax: UID) -> None:
    """Take away what lies in the pixels' element and is no pixel: comments of frames, bytes behind the last one."""
    if _PIXEL_DATA not in dataset:
        return
    element = dataset[_PIXEL_DATA]
    if transfer_syntax.is_encapsulated:
        element.value = blank_comments(element.value)
    elif (length := _pixel_bytes(dataset)) is not None and length < len(element.value):
        element.value = element.value[:length] + bytes(length % 2)


def _pixel_bytes(dataset: pydicom.Dataset) -> int | None:
    """Return how many bytes uncompressed pixels take (PS3.5 8.1.1), or None where chrominance is subsampled."""
    if str(dataset.get("PhotometricInterpretation", "")).strip() in {"YBR_FULL_422", "YBR_PARTIAL_422"}:
        return None
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples: int = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * frames
    return -(-samples * int(dataset.BitsAllocated) // 8)


def _digest(dataset: pydicom.Dataset) -> bytes:
    """Digest the pixels as they are encoded."""
    digest = hashlib.sha256()
    for tag in _PIXELS:
        if tag in dataset:
            value = dataset.get_item(tag).value
            digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.digest()
