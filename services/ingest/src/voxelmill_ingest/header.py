"""From the header of a DICOM object to an instance, or to the reason why it is none."""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from voxelmill_ingest import elements, tags
from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.characters import about_characters, patient_mark
from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.fragments import read_fragments
from voxelmill_ingest.modules import about_modules, orientation_of, position_of
from voxelmill_ingest.pixels import COMPRESSED, check_pixels
from voxelmill_ingest.ranges import MOST_READ, HeaderTooLongError, Window
from voxelmill_ingest.reasons import Reason, RefusedError, shown
from voxelmill_ingest.values import is_present, text, texts
from voxelmill_shared.events import ObjectKind

if TYPE_CHECKING:
    from voxelmill_ingest.elements import Elements
    from voxelmill_ingest.fragments import Fragments
    from voxelmill_ingest.ranges import Reading

_DICOMDIR = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_OTHER_KINDS: Final = {
    # The storage SOP classes (PS3.4 B.5) that hold no image of this pipeline, by the number that follows _STORAGE.
    "8": "an overlay",
    "9": "a waveform or curve",
    "10": "a lookup table",
    "11": "a presentation state",
    "30": "a parametric map",
    "66": "raw data, a registration, a segmentation or a tractography result",
    "67": "a real world value mapping",
    "68": "a surface scan",
    "78": "an ophthalmic measurement",
    "79": "an ophthalmic measurement",
    "80": "an ophthalmic visual field",
    "88": "a structured report or a key object selection",
    "90": "a content assessment",
    "91": "microscopy annotations",
    "104": "an encapsulated document",
    "129": "a curve",
    "131": "a structured display",
    "200": "a protocol",
    "201": "an inventory",
    "481": "a radiotherapy dose, structure set, plan or record",
}
_RT_IMAGES = frozenset({"481.1", "481.23"})
_SPECTRUM = f"{_STORAGE}4.2"
_UIDS = uuid.uuid5(uuid.NAMESPACE_URL, "https://voxelmill.org/uids")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}\Z")
_LEADING_ZERO = re.compile(r"(^|\.)0[0-9]")


def read_dicom(window: Window) -> Reading[Instance | Refusal]:
    """Read the header of a DICOM object and judge it.

    Reads as few bytes as will do: for an image up to its pixel element, for another kind up to group 0020. pydicom is
    asked where the header cannot be followed.
    """
    try:
        return (yield from _read_dicom(window))
    except HeaderTooLongError:
        detail = f"its elements take more than {MOST_READ >> 20} MiB, and the pixels have not begun"
        return Refusal(reason=Reason.INVALID_HEADER, detail=detail)


def _read_dicom(window: Window) -> Reading[Instance | Refusal]:
    begin = window.data
    warnings: list[str] = []
    try:
        found = yield from _walk(window)
        problem = found.cut
    except elements.InvalidDicomError as error:
        found, problem = elements.Elements(), str(error)
    if problem and _other_kind(_sop_class(found)) is None:
        # Imported here: pydicom costs 100 ms and 20 MB, and few processes ever meet an object that asks for it.
        from voxelmill_ingest.referee import second_opinion  # noqa: PLC0415 - see above

        again = Window(window.size, window.data if window.start == 0 else begin, window.read)
        opinion = yield from second_opinion(again, tags.WANTED)
        if opinion is not None:
            window, found = again, opinion
            warnings.append(Caution.UNUSUAL_ENCODING.about(f"pydicom read on where {problem}"))
        elif not found.cut:
            return Refusal(reason=Reason.INVALID_HEADER, detail=problem)
    fragments = None
    if found.pixels and found.pixels.length is None and found.transfer_syntax_uid in COMPRESSED:
        fragments = yield from read_fragments(window, found.pixels.offset)
    return judge(found, window.size, fragments, warnings)


def _walk(window: Window) -> Reading[Elements]:
    walker = yield from elements.open_data_set(window, tags.WANTED)
    found = walker.found
    if text(found, tags.MEDIA_STORAGE_SOP_CLASS_UID) != _DICOMDIR:
        yield from walker.run(stop_after=0x0020)
        if _other_kind(_sop_class(found)) is None:
            yield from walker.run()
    return found


def judge(
    found: Elements, size: int, fragments: Fragments | None = None, warnings: list[str] | None = None
) -> Instance | Refusal:
    """Decide what an object is.

    Parameters
    ----------
    found
        The elements of its header.
    size
        The object's, in bytes.
    fragments
        How its encapsulated pixels begin; none where they are not encapsulated.
    warnings
        What is known to be odd about it already.
    """
    try:
        return _instance(found, size, fragments, list(warnings or ()))
    except RefusedError as refused:
        identity = {
            "study_instance_uid": _valid_or_empty(found, tags.STUDY_INSTANCE_UID),
            "series_instance_uid": _valid_or_empty(found, tags.SERIES_INSTANCE_UID),
            "sop_instance_uid": _valid_or_empty(found, tags.SOP_INSTANCE_UID),
            "sop_class_uid": _valid_or_empty(found, tags.SOP_CLASS_UID),
            "modality": _modality(found),
        }
        return Refusal(reason=refused.reason, detail=refused.detail, **identity)


def _instance(found: Elements, size: int, fragments: Fragments | None, warnings: list[str]) -> Instance:
    sop_class = _sop_class(found)
    if _DICOMDIR in {sop_class, text(found, tags.MEDIA_STORAGE_SOP_CLASS_UID)} or is_present(found, tags.FILE_SET_ID):
        raise RefusedError(Reason.DICOMDIR, "the directory of a medium")
    if (kind := _other_kind(sop_class)) is not None:
        raise RefusedError(Reason.NOT_AN_IMAGE, f"{kind} (SOP Class {shown(sop_class, 64)})")
    if found.cut:
        raise RefusedError(Reason.TRUNCATED, found.cut)
    _uid(tags.SOP_CLASS_UID, Reason.MISSING_SOP_CLASS_UID, sop_class, warnings)
    sop_instance = text(found, tags.SOP_INSTANCE_UID) or text(found, tags.MEDIA_STORAGE_SOP_INSTANCE_UID)
    _uid(tags.SOP_INSTANCE_UID, Reason.MISSING_SOP_INSTANCE_UID, sop_instance, warnings)
    study, series = _study_and_series(found, warnings)
    if texts(found, tags.IMAGE_TYPE)[2:3] == ("LOCALIZER",):
        raise RefusedError(Reason.LOCALIZER, "Image Type value 3 is LOCALIZER")
    if found.pixels is None and not sop_class.startswith(_STORAGE):
        raise RefusedError(Reason.NOT_AN_IMAGE, f"neither pixels nor an image's SOP Class ({sop_class})")
    matrix = check_pixels(found, size, fragments, warnings)
    _about_encoding(found, sop_class, sop_instance, warnings)
    warnings += about_characters(found)
    frame_of_reference = _valid_or_empty(found, tags.FRAME_OF_REFERENCE_UID)
    warnings += about_modules(found, sop_class, frame_of_reference)
    return Instance(
        kind=ObjectKind.DICOM,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=sop_instance,
        sop_class_uid=sop_class,
        modality=_modality(found),
        transfer_syntax_uid=found.transfer_syntax_uid,
        instance_number=_instance_number(found, warnings),
        rows=matrix.rows,
        columns=matrix.columns,
        frames=matrix.frames,
        position=position_of(found, warnings),
        orientation=orientation_of(found, warnings),
        frame_of_reference_uid=frame_of_reference,
        patient_mark=patient_mark(found, series),
        warnings=tuple(warnings),
    )


def _about_encoding(found: Elements, sop_class: str, sop_instance: str, warnings: list[str]) -> None:
    syntax = found.transfer_syntax_uid
    if found.assumed_syntax:
        warnings.append(Caution.ASSUMED_TRANSFER_SYNTAX.about(f"no transfer syntax is given, read as {syntax}"))
    if found.contradicted_syntax:
        what = "explicit" if syntax == elements.IMPLICIT_LITTLE else "implicit"
        warnings.append(Caution.CONTRADICTED_TRANSFER_SYNTAX.about(f"the VRs are {what} in transfer syntax {syntax}"))
    for tag, taken, name in (
        (tags.MEDIA_STORAGE_SOP_CLASS_UID, sop_class, "Class"),
        (tags.MEDIA_STORAGE_SOP_INSTANCE_UID, sop_instance, "Instance"),
    ):
        if text(found, tag) not in {"", taken}:
            warnings.append(Caution.META_MISMATCH.about(f"the file meta information names another SOP {name}"))


def _instance_number(found: Elements, warnings: list[str]) -> int | None:
    number = text(found, tags.INSTANCE_NUMBER)
    if _INTEGER.match(number):
        return int(number)
    if number:
        warnings.append(Caution.INVALID_INSTANCE_NUMBER.about("Instance Number is no number"))
    return None


def _other_kind(sop_class: str) -> str | None:
    """Name the kind of a SOP class that holds no image of this pipeline."""
    if not sop_class.startswith(_STORAGE):
        return None
    if sop_class == _SPECTRUM:
        return "a spectrum"
    rest = sop_class.removeprefix(_STORAGE)
    return None if rest in _RT_IMAGES else _OTHER_KINDS.get(rest.split(".")[0])


def _modality(found: Elements) -> str:
    return shown(text(found, tags.MODALITY), 16)


def _sop_class(found: Elements) -> str:
    return text(found, tags.SOP_CLASS_UID) or text(found, tags.MEDIA_STORAGE_SOP_CLASS_UID)


def _study_and_series(found: Elements, warnings: list[str]) -> tuple[str, str]:
    """Return the UIDs of study and series; make them where de-identification has blanked them.

    The Frame of Reference UID is globally unique and shared by all instances of a series (PS3.3 C.7.4.1), so with the
    series' number, date and time it tells series apart as well as the lost UID did. Without it nothing can.
    """
    study, series = text(found, tags.STUDY_INSTANCE_UID), text(found, tags.SERIES_INSTANCE_UID)
    frame_of_reference = text(found, tags.FRAME_OF_REFERENCE_UID)
    if not study and (series or frame_of_reference):
        study = content_uid("study", series or frame_of_reference)
        warnings.append(Caution.MADE_STUDY_INSTANCE_UID.about("no Study Instance UID, one was made"))
    if not series and frame_of_reference:
        parts = [text(found, tag) for tag in (tags.MODALITY, tags.SERIES_NUMBER, tags.SERIES_DATE, tags.SERIES_TIME)]
        series = content_uid("series", study, frame_of_reference, *parts)
        warnings.append(Caution.MADE_SERIES_INSTANCE_UID.about("made from the Frame of Reference"))
    _uid(tags.STUDY_INSTANCE_UID, Reason.MISSING_STUDY_INSTANCE_UID, study, warnings)
    _uid(tags.SERIES_INSTANCE_UID, Reason.MISSING_SERIES_INSTANCE_UID, series, warnings)
    return study, series


def content_uid(*parts: str) -> str:
    """Return a UID made from a UUID (PS3.5 B.2) that the same parts always give."""
    return f"2.25.{uuid.uuid5(_UIDS, chr(10).join(parts)).int}"


def _uid(tag: int, if_missing: Reason, uid: str, warnings: list[str]) -> None:
    """Refuse an object whose UID is missing or malformed."""
    if not uid:
        raise RefusedError(if_missing, if_missing.explanation.rstrip("."))
    if not _is_uid(uid):
        # Not the value: what writes names instead of UIDs may write a patient's.
        what = f"has {len(uid)} characters" if _UID.match(uid) else "is not made of digits between dots"
        raise RefusedError(Reason.INVALID_UID, f"{elements.name(tag)} {what}")
    if (".0" in uid or uid[0] == "0") and _LEADING_ZERO.search(uid):
        warnings.append(Caution.UID_LEADING_ZERO.about(f"{elements.name(tag)} is {uid}"))


@lru_cache(maxsize=512)
def _is_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5 9.1), but for zeros that a component begins with."""
    return len(text) <= 64 and _UID.match(text) is not None


def _valid_or_empty(found: Elements, tag: int) -> str:
    uid = text(found, tag)
    return uid if _is_uid(uid) else ""
