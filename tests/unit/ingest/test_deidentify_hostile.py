"""Identifying values in every place where a file can hold bytes: none of them is in the copy."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.datadict import DicomDictionary
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from unit.ingest.hostile_dicom import IMAGE, SURNAME, explicit, file_with, item
from voxelmill_ingest.deidentify.codestreams import blank_comments
from voxelmill_ingest.deidentify.dataset import Cleaner
from voxelmill_ingest.deidentify.errors import NotDeidentifiableError
from voxelmill_ingest.deidentify.job import Copy, Job
from voxelmill_ingest.deidentify.keys import ProjectKeys
from voxelmill_ingest.deidentify.profile import Option
from voxelmill_ingest.deidentify.words import clean
from voxelmill_ingest.deidentify.work import deidentify

KEYS = ProjectKeys.derive("a key of 32 characters, or longer", "project")
ALL = frozenset(Option)
BASIC = frozenset({Option.PRIVATE})


def copy_of(source: Path, options: frozenset[Option] = ALL) -> bytes:
    target = source.with_suffix(".copy")
    result = deidentify(Job(source, "object", target, KEYS.secrets, options), lambda _: None)
    assert isinstance(result, Copy), result
    return target.read_bytes()


def assert_gone(body: bytes, *secrets: str) -> None:
    for secret in (SURNAME, *secrets):
        for encoding in ("utf-8", "utf-16-le", "latin-1"):
            assert secret.lower().encode(encoding) not in body.lower(), secret


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", [ALL, BASIC], ids=["all", "basic"])
@pytest.mark.parametrize("declared", ["UN", "known", "LO", "OB", "FD"])
def test_a_name_in_any_attribute_of_the_dictionary_is_gone(
    tmp_path: Path, options: frozenset[Option], declared: str
) -> None:
    """Every attribute that DICOM has, at the top and in a sequence, with a name for its value, whatever it is called."""
    value = f"{SURNAME}^Jane".encode().ljust(48)  # fits numbers of every length
    everything = {}
    for tag, (known, *_) in DicomDictionary.items():
        vr = known.split(" or ")[0]
        if tag >> 16 > 2 and tag not in IMAGE and tag != 0x00080005 and vr not in {"SQ", "NONE"} and tag < 0x7FE00000:
            everything[tag] = vr if declared == "known" else declared, value
    assert len(everything) > 3500
    nested = item(*(explicit(tag, *everything[tag]) for tag in sorted(everything)))
    source = file_with(tmp_path / "object", everything | {0x52009229: ("SQ", nested)})
    dataset = pydicom.dcmread(source)
    Cleaner(KEYS.secrets, options)(dataset)
    written = io.BytesIO()
    pydicom.dcmwrite(written, dataset)
    assert_gone(written.getvalue())
    assert dataset.PixelData == IMAGE[0x7FE00010][1]


@pytest.mark.parametrize("options", [ALL, BASIC], ids=["all", "basic"])
def test_what_lies_around_the_data_set_is_gone(tmp_path: Path, options: frozenset[Option]) -> None:
    """Preamble, file meta information, group lengths, bytes behind pixels, and elements behind them."""
    name = SURNAME.encode()
    body = copy_of(
        file_with(
            tmp_path / "object",
            {
                0x00080000: ("UL", struct.pack("<I", 100)),
                0x7FE00010: ("OW", bytes(range(32)) + name * 3),
                0xFFFAFFFA: ("SQ", item(explicit(0x04000120, "OB", name), explicit(0x04000115, "OB", name))),
                0xFFFCFFFC: ("OB", name),
            },
            preamble=(b"MM\0*" + name * 20)[:128],
            meta=explicit(0x00020012, "UI", b"1.2.3.99")
            + explicit(0x00020013, "SH", name)
            + explicit(0x00020016, "AE", name)
            + explicit(0x00020026, "UR", name)
            + explicit(0x00020100, "UI", b"1.2.3.98")
            + explicit(0x00020102, "OB", name),
        ),
        options,
    )
    assert_gone(body, "1.2.3.99", "1.2.3.98")
    copy = pydicom.dcmread(io.BytesIO(body))
    assert copy.PixelData == bytes(range(32))
    assert 0xFFFAFFFA not in copy
    assert 0x00080000 not in copy


@pytest.mark.parametrize("options", [ALL, BASIC], ids=["all", "basic"])
def test_private_elements_groups_of_repeating_kind_and_unknown_sequences_are_gone(
    tmp_path: Path, options: frozenset[Option]
) -> None:
    """Private blocks, at the top and in sequences; curves and overlays; sequences that only the dictionary knows."""
    name = SURNAME.encode()
    private = {
        0x00090010: ("LO", b"MAKER " + name),
        0x00091001: ("LO", name),
        0x00190010: ("LO", b"SIEMENS MR HEADER"),
        0x0019100C: ("IS", name),
        0x0019100E: ("FD", name * 3),
        0x00191027: ("FD", b"\0" * 48),
        0x00191050: ("SQ", item(explicit(0x00100010, "PN", name))),
        0x70530010: ("LO", b"Philips PET Private Group"),
        0x70531000: ("UN", b"2.7634E-4"),
        0x70531009: ("UN", name),
    }
    nested = item(*(explicit(tag, *private[tag]) for tag in sorted(private)))
    body = copy_of(
        file_with(
            tmp_path / "object",
            private
            | {
                0x00082112: ("UN", item(explicit(0x00100010, "PN", name), explicit(0x00104000, "LT", name))),
                0x00400555: ("UN", item(explicit(0x0040A160, "UT", name), explicit(0x0040A123, "PN", name))),
                0x00081084: ("SQ", nested),
                0x50000030: ("LO", name),
                0x50003000: ("OW", name),
                0x60000022: ("LO", name),
                0x60001500: ("LO", name),
                0x60003000: ("OW", name),
                0x60004000: ("LT", name),
                0x00200031: ("LO", name),
                0x00203100: ("CS", name),
                0x00880200: ("SQ", item(explicit(0x7FE00010, "OB", name))),
                0x04000561: ("SQ", item(explicit(0x04000564, "LO", name), explicit(0x04000550, "SQ", nested))),
            },
        ),
        options,
    )
    assert_gone(body)
    kept = {int(one.tag) for one in pydicom.dcmread(io.BytesIO(body)) if one.tag.is_private}
    assert kept == {0x00190010, 0x00191027, 0x70530010, 0x70531000}, "numbers of the safe list stay"


def test_safe_private_numbers_stay_where_the_file_does_not_say_what_they_are(tmp_path: Path) -> None:
    """Implicit VR: the table itself says of what kind a b value is."""
    dataset = pydicom.dcmread(file_with(tmp_path / "explicit"))
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "CS", SURNAME.upper())
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    (tmp_path / "object").write_bytes(buffer.getvalue())
    body = copy_of(tmp_path / "object")
    assert_gone(body)
    copy = pydicom.dcmread(io.BytesIO(body))
    assert copy[0x0019100C].value == 1000
    assert 0x0019100D not in copy


@pytest.mark.parametrize(
    ("name", "charset", "hidden"),
    [
        ("Müller^Jürgen", "ISO_IR 192", "kernel Müller"),
        ("Müller^Jürgen", "ISO_IR 192", "kernel MÜLLER"),
        ("Müller^Jürgen", "ISO_IR 100", "kernel MÜLLER"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO 2022 IR 87", "山田"),
        ("王^小东", "GB18030", "B31 王小东"),
        ("Иванов^Пётр", "ISO_IR 144", "B31 Иванов"),
        ("Li^Wu", "ISO_IR 100", "B30f Li Wu"),
        ("Zzyxwicz^Jane", "ISO_IR 100", "JaneZzyxwicz"),
        ("Zzyxwicz^Jane", "ISO_IR 100", "zzyxwicz_jane"),
    ],
)
def test_a_name_in_any_alphabet_is_found_where_none_belongs(
    tmp_path: Path, name: str, charset: str, hidden: str
) -> None:
    dataset = pydicom.dcmread(file_with(tmp_path / "object"))
    dataset.SpecificCharacterSet = charset if charset != "ISO 2022 IR 87" else ["", charset]
    dataset.PatientName, dataset.ReceiveCoilName = name, hidden
    dataset.SeriesDescription = f"CT {hidden}"
    dataset.save_as(tmp_path / "object")
    body = copy_of(tmp_path / "object")
    copy = pydicom.dcmread(io.BytesIO(body))
    assert copy.ReceiveCoilName == "REMOVED"
    assert copy.SeriesDescription in {"CT", "CT B31", "CT kernel", "REMOVED"} or not copy.SeriesDescription


@pytest.mark.parametrize("written", ["19510203", "1951-02-03", "03.02.1951", "02/03/1951", "born 1951_02_03"])
def test_a_date_of_the_object_is_found_however_it_is_written(tmp_path: Path, written: str) -> None:
    dataset = pydicom.dcmread(file_with(tmp_path / "object"))
    dataset.PatientBirthDate, dataset.SoftwareVersions = "19510203", f"VB20 {written}"
    dataset.StudyTime, dataset.KVP, dataset.SeriesNumber = "040506", "120", "4711"
    dataset.save_as(tmp_path / "object")
    copy = pydicom.dcmread(io.BytesIO(copy_of(tmp_path / "object")))
    assert copy.SoftwareVersions == "REMOVED"
    assert (copy.StudyTime, copy.KVP, copy.SeriesNumber) == ("040506", 120, 4711)


def test_an_image_type_loses_a_name_and_keeps_its_terms(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(file_with(tmp_path / "object"))
    dataset.PatientName = "Axial^Original"
    dataset.OtherPatientNames = SURNAME
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", SURNAME.upper()]
    dataset.save_as(tmp_path / "object")
    copy = pydicom.dcmread(io.BytesIO(copy_of(tmp_path / "object")))
    assert list(copy.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL", "REMOVED"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("CT 03.02.51 chest", "CT chest"),
        ("CT 03/02/51", "CT"),
        ("CT 3-2-51", "CT"),
        ("MRN 471 108 150 lung", "lung"),
        ("phone 030 123 45", ""),
        ("chest 3.0 B30", "chest 3.0 B30"),
        ("5mm 3mm", "5mm 3mm"),
        ("T1 1/2", "T1 1/2"),
        ("thorax 120 kV 3.0", "thorax 120 3.0"),
    ],
)
def test_numbers_side_by_side_count_as_one(text: str, left: str) -> None:
    assert clean(text) == left


def jpeg_with_comment(secret: bytes) -> bytes:
    """A JPEG of 4 x 4 grey pixels with a comment, Exif, and bytes behind its end."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(buffer, "JPEG", comment=secret)
    body = buffer.getvalue()
    exif = b"\xff\xe1" + struct.pack(">H", len(secret) + 8) + b"Exif\0\0" + secret
    return body[:2] + exif + body[2:] + secret


def test_comments_in_compressed_frames_are_blanked(tmp_path: Path) -> None:
    """In JPEG: of both frames, and what lies behind each; the pixels decode to the same."""
    frame = jpeg_with_comment(SURNAME.encode())
    for fragments in (1, 2):
        value = encapsulate([frame, frame], fragments_per_frame=fragments)
        cleaned = blank_comments(value)
        assert SURNAME.encode() in value
        assert_gone(cleaned)
        assert len(cleaned) == len(value)

        for before, after in zip(
            generate_frames(value, number_of_frames=2), generate_frames(cleaned, number_of_frames=2), strict=True
        ):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(before))), np.asarray(Image.open(io.BytesIO(after))))
    dataset = pydicom.dcmread(file_with(tmp_path / "object"))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.NumberOfFrames, dataset.PixelData = 7, 2, encapsulate([frame, frame])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(tmp_path / "object")
    body = copy_of(tmp_path / "object")
    assert_gone(body)
    assert pydicom.dcmread(io.BytesIO(body)).pixel_array.shape == (2, 4, 4)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_comments_of_other_codecs_are_blanked(syntax: str) -> None:
    """In JPEG 2000 behind the size, in JPEG-LS behind the start of the image."""
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    encode, decode, comment, place = {
        JPEG2000Lossless: (
            lambda: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0),
            imagecodecs.jpeg2k_decode,
            b"\xff\x64" + struct.pack(">HH", len(SURNAME) + 4, 1) + SURNAME.encode(),
            2 + 2 + 41,
        ),
        JPEGLSLossless: (
            lambda: imagecodecs.jpegls_encode(pixels),
            imagecodecs.jpegls_decode,
            b"\xff\xfe" + struct.pack(">H", len(SURNAME) + 2) + SURNAME.encode(),
            2,
        ),
    }[syntax]
    plain = encode()
    commented = plain[:place] + comment + plain[place:]
    assert np.array_equal(decode(commented), pixels)
    value = encapsulate([commented, commented])
    cleaned = blank_comments(value)
    assert_gone(cleaned)
    for frame in generate_frames(cleaned, number_of_frames=2):
        assert np.array_equal(decode(frame), pixels)


def test_pixels_that_are_not_made_of_items_are_refused() -> None:
    """What lies beside fragments is nothing that can be cleaned."""
    with pytest.raises(ValueError, match="between the fragments"):
        blank_comments(encapsulate([b"\xff\xd8\xff\xd9"]) + SURNAME.encode())
    with pytest.raises(ValueError, match="longer than the element"):
        blank_comments(encapsulate([b"\xff\xd8\xff\xd9"])[:-2])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_nifti_volume_holds_no_byte_that_is_not_used(tmp_path: Path, kind: Any, compressed: bool) -> None:
    """Each byte of the header that no reader uses, what follows the voxels, and gzip's own name of the file."""
    name = SURNAME.encode()
    image = kind(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    body = bytearray(image.to_bytes())
    unused = [(4, 34), (140, 8)] if kind is nib.Nifti1Image else [(525, 15)]
    for start, length in unused:
        body[start : start + length] = (name * 5)[:length]
    body += name
    source = tmp_path / "object"
    if compressed:
        with source.open("wb") as file, gzip.GzipFile(f"{SURNAME}.nii", "wb", fileobj=file) as packed:
            packed.write(body)
    else:
        source.write_bytes(body)
    copy = copy_of(source)
    assert_gone(copy)
    assert_gone(gzip.decompress(copy) if compressed else copy)
    if compressed:
        copy = gzip.decompress(copy)
    assert np.array_equal(np.asarray(kind.from_bytes(copy).dataobj), np.asarray(image.dataobj))


def test_a_nifti_volume_that_is_cut_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    with gzip.open(tmp_path / "object", "wb") as file:
        file.write(image.to_bytes()[:-10])
    with pytest.raises(NotDeidentifiableError):
        copy_of(tmp_path / "object")


def test_a_full_disk_is_no_reason_to_refuse_an_object(tmp_path: Path) -> None:
    """The copy does not fit: the work is done again later, and the object is not called unreadable."""
    source = tmp_path / "source.dcm"
    file_with(source)
    with pytest.raises(OSError, match="No space left"):
        deidentify(Job(source, "object", Path("/dev/full"), KEYS.secrets, ALL), lambda _: None)
