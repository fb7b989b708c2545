"""Feed files that claim much and hold little to whatever reads them; print what each said and how the process grew.

usage: decompression_cases.py FOLDER
"""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from mutants.bombs import deflated, gzipped
from unit.shared.imaging_files import image
from voxelmill_ingest.findings import ArchiveFormat
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.ranges import drive
from voxelmill_ingest.unpack import Bounds, UnpackJob, unpack
from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.events import ObjectKind, ObjectRef
from voxelmill_shared.imaging import read_frames
from voxelmill_shared.imaging.nifti import read_array
from voxelmill_shared.imaging.opening import open_image
from voxelmill_thumbnail.task import ThumbnailTask
from voxelmill_thumbnail.work import make_thumbnails

if TYPE_CHECKING:
    from collections.abc import Callable

HUGE = {"Rows": 65535, "Columns": 65535, "NumberOfFrames": 10000}


def saved(dataset: pydicom.Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def plain(path: Path) -> Path:
    dataset = image(np.zeros((4, 8), np.uint16), **HUGE)
    dataset.PixelData = bytes(64)
    return saved(dataset, path)


def stream(width: int, height: int) -> bytes:
    """Begin a JPEG 2000 codestream: SOC and SIZ (ISO/IEC 15444-1 A.5.1)."""
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, width, height, 0, 0, width, height, 0, 0, 1, 15, 1, 1)
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


def jpeg(width: int, height: int) -> bytes:
    """Begin a baseline JPEG: SOI and SOF0 (ISO/IEC 10918-1 B.2.2)."""
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0) + b"\xff\xd9"


def encapsulated(path: Path, syntax: str, frame: bytes, bits: np.dtype[Any], **elements: Any) -> Path:
    dataset = image(np.zeros((16, 16), bits), **elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return saved(dataset, path)


def inflating(path: Path, mib: int) -> Path:
    """Write a deflated data set whose pixels are zeros without end."""
    dataset = image(np.zeros((4, 8), np.uint16))
    dataset.PixelData = b""
    whole = saved(dataset, path).read_bytes()
    body = whole[whole.index(b"\x08\x00\x16\x00UI") :]
    head = pydicom.dcmread(path, stop_before_pixels=True).file_meta
    head.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.write(bytes(128) + b"DICM")
    pydicom.filewriter.write_file_meta_info(buffer, head)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, min(mib << 20, 0xFFFFFFFE))
    body = body[: body.index(struct.pack("<HH", 0x7FE0, 0x10))]
    path.write_bytes(buffer.getvalue() + deflated(body + pixels, mib))
    return path


def nifti(path: Path, *shape: int, packed: bool = False) -> Path:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"][:4] = [3, *shape]
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", 352, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    body = header.binaryblock + bytes(4)
    path.write_bytes(gzip.compress(body) if packed else body)
    return path


def looked_at(path: Path) -> str:
    """Do what ingest does with an object; return its reason."""
    body = path.read_bytes()

    async def read(start: int, length: int) -> bytes:
        return body[start : start + length]

    reference = ObjectRef(bucket="inbox", key=path.name, etag="e", size=len(body))
    return str(getattr(asyncio.run(drive(inspect(reference), read)), "reason", "taken"))


def thumbnails(path: Path) -> None:
    output = path.with_suffix(".out")
    make_thumbnails(ThumbnailTask(paths=(path,), kind=ObjectKind.DICOM, modality="CT", output=output), lambda _: None)


def bomb(path: Path) -> Path:
    """Write a zip whose member is 2 GiB of zeros and says so."""
    mib = 2048
    packed = gzipped(b"", mib)
    body, (crc, size) = packed[10:-8], struct.unpack("<2L", packed[-8:])
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(body), size, 1, 0) + b"x"
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, len(body), size, 1, 0, 0, 0, 0, 0, 0) + b"x"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local) + len(body), 0)
    path.write_bytes(local + body + entry + end)
    return path


def liar(path: Path) -> Path:
    """Write a zip whose member claims 2 GiB and has none."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"")
    claim = struct.pack("<I", 2 << 30)
    body = bytearray(path.read_bytes())
    entry = body.index(b"PK\1\2")
    body[22:26] = body[18:22] = claim
    body[entry + 24 : entry + 28] = body[entry + 20 : entry + 24] = claim
    path.write_bytes(body)
    return path


def unpacked(path: Path) -> str:
    target = path.with_suffix(".members")
    target.mkdir()
    contents = unpack(UnpackJob(path, ArchiveFormat.ZIP, target, Bounds(total_bytes=32 << 20)), lambda _: None)
    return str(contents.refused[0].reason) if contents.refused else "taken"


def cases(folder: Path) -> dict[str, Callable[[], object]]:
    huge = plain(folder / "huge.dcm")
    j2k = encapsulated(folder / "j2k.dcm", JPEG2000Lossless, stream(65535, 65535), np.dtype(np.uint16), **HUGE)
    lie = encapsulated(folder / "lie.dcm", JPEG2000Lossless, stream(0xFFFFFFFF, 0xFFFFFFFF), np.dtype(np.uint16))
    small = encapsulated(folder / "small.dcm", JPEGBaseline8Bit, jpeg(65535, 65535), np.dtype(np.uint8))
    volume = nifti(folder / "volume.nii", 32767, 32767, 32767)
    packed = nifti(folder / "packed.nii.gz", 512, 512, 512, packed=True)
    inflates = inflating(folder / "inflates.dcm", 8192)
    archive, liars = bomb(folder / "bomb.zip"), liar(folder / "liar.zip")
    return {
        "ingest: 65535 x 65535 x 10000 frames in 64 bytes": lambda: looked_at(huge),
        "ingest: the same as JPEG 2000": lambda: looked_at(j2k),
        "ingest: a NIfTI header of 32767 voxels in each direction": lambda: looked_at(volume),
        "image: 65535 x 65535 x 10000 frames in 64 bytes": lambda: open_image(huge),
        "image: the same as JPEG 2000": lambda: open_image(j2k),
        "image: a JPEG 2000 stream of 4294967295 squared in a small image": lambda: read_frames(lie),
        "image: a JPEG stream of 65535 squared in a small image": lambda: read_frames(small),
        "image: a deflated data set that inflates to 8 GiB": lambda: open_image(inflates),
        "series: 65535 x 65535 x 10000 frames in 64 bytes": lambda: read_frames(huge),
        "nifti: a header of 32767 voxels in each direction": lambda: read_array(volume),
        "nifti: gzip of a header alone that claims 256 MiB": lambda: read_array(packed),
        "thumbnail: 65535 x 65535 x 10000 frames in 64 bytes": lambda: thumbnails(huge),
        "zip: a member that inflates to 2 GiB": lambda: unpacked(archive),
        "zip: a member that claims to have 2 GiB and has none": lambda: unpacked(liars),
        "an allocation of 256 MiB": lambda: str(len(np.ones(256 << 20, np.uint8))),
    }


def peak_mib() -> int:
    """Return the most memory that this process has had since it was last forgotten (proc(5), VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def forget_peak() -> None:
    """Make the peak what is in use now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    for name, run in cases(Path(sys.argv[1])).items():
        forget_peak()
        before = peak_mib()
        try:
            answer = run()
        except VoxelmillError as error:
            answer = getattr(error, "code", None) or str(getattr(error, "reason", type(error).__name__))
        print(json.dumps({"case": name, "answer": str(answer), "mib": peak_mib() - before}))


if __name__ == "__main__":
    main()
