"""NIfTI-1 and NIfTI-2 files, plain or gzip, read with bounds: nothing is allocated that the header merely claims.

On disk the first index runs fastest, so the bytes are a C array of (third, second, first) index; with the first index
taken as the column and the third as the slice there is nothing to transpose.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError

from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.series import MAX_VOXELS
from voxelmill_shared.imaging.transform import Values, narrow
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.privacy import unquoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_MAX_TRAILING = 64 << 20
"""How many bytes after the last voxel are read on the way to the end."""

_PIECE = 16 << 20

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

_ISAL_ERROR = cast("type[Exception]", isal_zlib.error)  # its stub calls the class an instance
_BROKEN = (gzip.BadGzipFile, EOFError, zlib.error, _ISAL_ERROR, HeaderDataError, ValueError, OverflowError)
_GZIP = b"\x1f\x8b"
_HEADER_BYTES: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_LARGEST = float(np.finfo(np.float32).max)
_FARTHEST_MM = 1e6
"""A kilometre: nothing that lies further away, or is larger, was ever in a scanner."""
_NEAREST_MM = 1e-7
"""The least length of a voxel: a ten-thousandth of a micrometre."""
_RIGID = frozenset({1, 2})
"""Codes of spaces in which a voxel has the size that the scanner gave it."""
_SAME_SIZE = 0.01
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""The spatial part of xyzt_units: unknown (taken as mm), metre, mm, micrometre."""
_VECTORS = frozenset({1005, 1006, 1007, 1010, 2003, 2004})
"""Intent codes of voxels that are matrices, vectors or colours, one component after another (nifti1.h)."""


@dataclass(frozen=True, eq=False)
class NiftiArray:
    """One volume of a file as stored: `values` is (slices, rows, columns), before slope and intercept.

    `volumes` are how many the file holds along its fourth axis.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    slope: float
    intercept: float
    warnings: tuple[str, ...]
    volumes: int = 1


def read_nifti_volumes(path: Path) -> Iterator[Volume]:
    """Read the volumes of a NIfTI file: those along its fourth axis, times or echoes, or the only one.

    Each is read when it is asked for, and the file from its beginning. The parameters and errors are those of
    `read_nifti`.
    """
    array = read_array(path)
    yield _volume_of(array, 0)
    for number in range(1, array.volumes):
        yield _volume_of(read_array(path, number), number)


def read_nifti(path: Path) -> Volume:
    """Read a volume of any orientation from a NIfTI file, the first where there are several.

    Parameters
    ----------
    path
        A `.nii` or `.nii.gz`; what it is, is read from its bytes and not from its name.

    Returns
    -------
    Volume
        Without modality. int16 where all values are whole and fit, else float32. A warning says what else there is.

    Raises
    ------
    UnsupportedSeriesError
        If the file is broken, holds channels or no scalars, or does not say how it is oriented.
    """
    array = read_array(path)
    volume = _volume_of(array, 0)
    if array.volumes == 1:
        return volume
    others = f"another {array.volumes - 1} volumes" if array.volumes > 2 else "another volume"
    line = f"the file holds {others} of the same size along its fourth axis; this is the first, and the only one read"
    return replace(volume, warnings=(*volume.warnings, line))


def _volume_of(array: NiftiArray, number: int) -> Volume:
    values, warnings = _scaled(array)
    return Volume(
        voxels=values,
        affine=array.affine,
        instance_order=(0,) * len(values),
        frame_order=tuple(range(len(values))),
        warnings=(*array.warnings, *warnings),
        distinction=f"volume {number + 1} of {array.volumes}" if array.volumes > 1 else "",
    )


def _scaled(array: NiftiArray) -> tuple[Values, list[str]]:
    values, warnings = array.values, []
    if values.dtype.kind == "f":
        broken = ~np.isfinite(values)
        if broken.any():
            if broken.all():
                raise Unsupported.UNSUPPORTED_VALUES.error("no voxel is a finite number")
            lowest = values[~broken].min()
            values = np.where(broken, lowest, values)
            warnings.append(f"{int(broken.sum())} voxels were not finite and are {lowest:g} now, the lowest value")
    if array.slope != 1 or array.intercept != 0:
        return _rescaled(values, array.slope, array.intercept), warnings
    if values.dtype == np.float64:
        _check_range(float(values.min()), float(values.max()))
    return narrow(values), warnings


def _rescaled(values: NDArray[Any], slope: float, intercept: float) -> Values:
    """Apply slope and intercept in double precision, slice by slice: a volume of doubles would be twice the result."""
    scaled = np.empty(values.shape, np.float32)
    low, high, whole = math.inf, -math.inf, True
    for number, plane in enumerate(values):
        with np.errstate(over="ignore"):
            exact = plane * np.float64(slope) + intercept
        low, high = min(low, float(exact.min())), max(high, float(exact.max()))
        _check_range(low, high)
        whole = whole and bool(np.array_equal(exact, np.rint(exact)))
        scaled[number] = exact
    return scaled.astype(np.int16) if whole and low >= -32768 and high <= 32767 else scaled


def _check_range(low: float, high: float) -> None:
    if not max(-low, high) <= _LARGEST:
        raise Unsupported.UNSUPPORTED_VALUES.error("the values are beyond what 32-bit floats can hold")


def read_array(path: Path, number: int = 0) -> NiftiArray:
    """Read a stored array of a NIfTI file, the volume `number` from 0, and its LPS affine in millimetres.

    The same errors as `read_nifti`.
    """
    name = path.name
    try:
        with _open(path) as stream:
            header = _read_header(stream, name)
            shape, volumes, dtype = _check(header, name)
            offset = int(header["vox_offset"])
            size = math.prod(shape) * dtype.itemsize
            data = _read_exactly(stream, offset - header.sizeof_hdr, size, (number, volumes), name)
            slope, intercept = header.get_slope_inter()
    except _BROKEN as error:
        raise Unsupported.UNREADABLE_HEADER.error(f"{name}: it is no sound NIfTI file ({unquoted(error)})") from None
    affine, warnings = _affine(header, name)
    return NiftiArray(
        values=np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape[::-1]),
        affine=affine,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        warnings=tuple(warnings),
        volumes=volumes,
    )


def read_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Read where the voxels of a NIfTI file lie, and no voxel: slices, rows and columns, and the LPS affine in mm.

    The errors of `read_nifti` about its header.
    """
    name = path.name
    try:
        with _open(path) as stream:
            header = _read_header(stream, name)
            (columns, rows, slices), _, _ = _check(header, name)
    except _BROKEN as error:
        raise Unsupported.UNREADABLE_HEADER.error(f"{name}: it is no sound NIfTI file ({unquoted(error)})") from None
    return (slices, rows, columns), _affine(header, name)[0]


def _open(path: Path) -> BinaryIO:
    file = path.open("rb")
    if file.read(2) != _GZIP:
        file.seek(0)
        return file
    file.close()
    opened: Any = igzip.IGzipFile  # its functions carry no types
    stream: BinaryIO = opened(path, "rb")
    return stream


def _read_header(stream: BinaryIO, name: str) -> Any:
    start = stream.read(348)
    if len(start) < 348:
        raise Unsupported.UNREADABLE_HEADER.error(f"{name}: it has {len(start)} bytes, too few for a NIfTI header")
    kind = next(
        (
            _HEADER_BYTES[size]
            for order in ("little", "big")
            if (size := int.from_bytes(start[:4], order)) in _HEADER_BYTES
        ),
        None,
    )
    if kind is None:
        raise Unsupported.UNREADABLE_HEADER.error(f"{name}: it does not begin like a NIfTI file")
    start += stream.read(kind.sizeof_hdr - 348)
    header: Any = kind.from_fileobj(BytesIO(start))
    if bytes(header["magic"])[:3] not in {b"n+1", b"n+2"}:
        raise Unsupported.UNREADABLE_HEADER.error(f"{name}: it is no NIfTI file in one part (.nii)")
    return header


def _check(header: Any, name: str) -> tuple[tuple[int, int, int], int, np.dtype[Any]]:
    """Return columns, rows and slices of a volume, how many volumes there are, and the type of their voxels."""
    shape = tuple(int(n) for n in header.get_data_shape())
    if any(n < 1 for n in shape) or len(shape) < 3:
        raise Unsupported.TOO_FEW_SLICES.error(f"{name}: it is {' x '.join(map(str, shape))}, not a volume")
    volumes = math.prod(shape[3:])
    if math.prod(shape[4:]) > 1 or (volumes > 1 and int(header["intent_code"]) in _VECTORS):
        raise Unsupported.NOT_ONE_VOLUME.error(
            f"{name}: it is {' x '.join(map(str, shape))}: its voxels are channels or vectors and not single numbers"
        )
    columns, rows, slices = shape[:3]
    if min(columns, rows, slices) < 2:
        raise Unsupported.TOO_FEW_SLICES.error(f"{name}: it is {columns} x {rows} x {slices}, a single slice")
    if columns * rows * slices > MAX_VOXELS:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(f"{name}: {columns} x {rows} x {slices} are more voxels than are read")
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise Unsupported.UNSUPPORTED_VALUES.error(f"{name}: its voxels are {dtype}, which is no plain number")
    return (columns, rows, slices), volumes, dtype


def _read_exactly(stream: BinaryIO, skip: int, size: int, which: tuple[int, int], name: str) -> bytearray:
    """Read the `size` bytes of a volume, by its number and of how many, and see that those of the others are there.

    In pieces, so that memory grows with what the file holds and not with what it claims.
    """
    if not 0 <= skip <= 1 << 30:
        raise Unsupported.UNREADABLE_HEADER.error(f"{name}: its data begin at an impossible place")
    while skip:
        piece = stream.read(min(skip, _PIECE))
        if not piece:
            break
        skip -= len(piece)
    number, volumes = which
    data, place, end = bytearray(), 0, size * volumes
    while place < end:
        wanted = number * size <= place < (number + 1) * size
        until = (number + 1) * size if wanted else (number * size if place < number * size else end)
        piece = stream.read(min(until - place, _PIECE))
        if not piece:
            raise Unsupported.TRUNCATED_PIXELS.error(
                f"{name}: it should hold {end:,} bytes of voxels and holds {place:,}"
            )
        if wanted:
            data += piece
        place += len(piece)
    for _ in range(_MAX_TRAILING >> 20):  # at its end, and only there, a gzip stream checks its checksum
        if not stream.read(1 << 20):
            break
    return data


def _affine(header: Any, name: str) -> tuple[NDArray[np.float64], list[str]]:
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise Unsupported.NO_GEOMETRY.error(
            f"{name}: neither qform nor sform is set, so left and right cannot be told apart"
        )
    try:
        affine = RAS_TO_LPS @ np.asarray(header.get_best_affine(), np.float64)
    except ValueError as error:  # quaternions that are none
        raise Unsupported.BAD_GEOMETRY.error(f"{name}: its orientation makes no sense ({unquoted(error)})") from None
    affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    if not np.isfinite(affine).all() or np.abs(affine).max() > _FARTHEST_MM:
        raise Unsupported.BAD_GEOMETRY.error(f"{name}: its affine makes no sense")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < _NEAREST_MM:
        raise Unsupported.BAD_GEOMETRY.error(f"{name}: its affine makes no sense")
    volume = abs(np.linalg.det(affine[:3, :3])) / np.prod(lengths)
    if volume < 0.1:
        raise Unsupported.BAD_GEOMETRY.error(f"{name}: two axes of its affine point the same way")
    warnings = ["the axes are not at right angles; the affine keeps the shear"] if volume < 0.9999 else []
    return affine, [*warnings, *_contradictions(header)]


def _contradictions(header: Any) -> list[str]:
    """Return in what the three descriptions of a voxel's place contradict each other, as a line for people.

    The sform is taken where there is one. In a scanner's space, or one aligned to it (codes 1 and 2), its columns are
    as long as pixdim says, and the qform of the same code is the same; in others (an atlas) they need not be.
    """
    code = int(header["sform_code"])
    if code not in _RIGID:
        return []
    sform = np.asarray(header.get_sform(), np.float64)
    sizes = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(lengths, sizes, rtol=_SAME_SIZE):
        one, other = (" x ".join(f"{size:.4g}" for size in three) for three in (lengths, sizes))
        return [f"by its sform a voxel is {one}, by its pixdim {other}; the sform is taken"]
    if int(header["qform_code"]) != code:
        return []
    try:
        qform = np.asarray(header.get_qform(), np.float64)
    except ValueError:  # quaternions that are none
        return ["its qform makes no sense; the sform is taken"]
    apart = float(np.abs((sform - qform)[:3] @ [*header.get_data_shape()[:3], 1]).max())
    if not apart <= lengths.max():
        return [f"its sform and its qform are up to {apart:.4g} apart at the last voxel; the sform is taken"]
    return []
