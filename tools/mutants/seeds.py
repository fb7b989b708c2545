"""The real files that mutants are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mutants.elements import fields, is_encapsulated
from mutants.mutant import Mutant

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from mutants.elements import Field

LARGEST = 140_000
"""Bytes of a file that is taken: large ones cost time and show nothing that small ones do not."""
_BESIDE = 3
"""How many sound slices stand beside a mutated one."""
_POSITION = 0x00200032
_SERIES = ("geometry/gap_ge_4slices", "mr_brain_ge_axial", "geometry/mr_4d_epi_24")


def _place(path: Path) -> tuple[list[float], str]:
    """Sort slices along the body, as nearly as their positions' z tells."""
    data = path.read_bytes()
    position = next((data[one.value : one.end] for one in fields(data) if one.tag == _POSITION and not one.depth), b"0")
    return [float(part) for part in position.strip(b"\0 ").split(b"\\")][::-1], path.name


@dataclass(frozen=True)
class Source:
    """A file, and the sound ones beside it where it is a slice of a series."""

    path: Path
    beside: tuple[Path, ...] = ()

    def mutant(self, data: bytes) -> Mutant:
        """Make a mutant of it."""
        return Mutant(data, "mutant.dcm", self.beside, self.path)


@dataclass(frozen=True)
class Seeds:
    """The files of a folder of test data, by what can be done to them.

    `folder` has a `MANIFEST.tsv`; `bomb_mib` is how much the largest bomb unpacks to.
    """

    folder: Path
    bomb_mib: int = 3_000

    def _in(self, *folders: str) -> list[Path]:
        found = [path for name in folders for path in sorted((self.folder / name).rglob("*")) if path.is_file()]
        return [path for path in found if 0 < path.stat().st_size <= LARGEST]

    @cached_property
    def single(self) -> list[Source]:
        """DICOM files of every kind, each by itself."""
        names = ("broken", "charsets", "color_mono1_lut", "enhanced", "nonimage", "transfer_syntaxes")
        return [Source(path) for path in (*self._in(*names), *self._in("dicomdir")[:5])]

    @cached_property
    def slices(self) -> list[Source]:
        """Slices of series, each with some of its neighbours."""
        found = []
        for name in _SERIES:
            paths = sorted(self._in(name), key=_place)
            for n, path in enumerate(paths):
                first = max(0, min(n - _BESIDE // 2, len(paths) - _BESIDE - 1))
                found.append(Source(path, tuple(one for one in paths[first : first + _BESIDE + 1] if one != path)))
        return found

    @cached_property
    def nifti(self) -> list[Path]:
        """NIfTI files, plain and compressed."""
        return [path for path in self._in("nifti") if path.name.endswith((".nii", ".nii.gz"))]

    @cached_property
    def _encapsulated(self) -> list[Source]:
        return [one for one in self.single if is_encapsulated(fields(one.path.read_bytes()))]

    @cached_property
    def _walked(self) -> list[Source]:
        return [one for one in (*self.single, *self.slices) if len(fields(one.path.read_bytes())) > 20]

    def any(self, rng: Random) -> Source:
        """Choose a DICOM file, a slice of a series as often as any other."""
        return rng.choice(rng.choice((self.single, self.slices)))

    def walked(self, rng: Random) -> tuple[Source, bytes, list[Field]]:
        """Choose a DICOM file whose elements are plain enough to be found."""
        source = rng.choice(self._walked)
        data = source.path.read_bytes()
        return source, data, fields(data)

    def slice_of(self, rng: Random) -> tuple[Source, bytes, list[Field]]:
        """Choose a slice of a series."""
        source = rng.choice(self.slices)
        data = source.path.read_bytes()
        return source, data, fields(data)

    def encapsulated(self, rng: Random) -> tuple[Source, bytes, list[Field]]:
        """Choose a file with compressed pixels."""
        source = rng.choice(self._encapsulated)
        data = source.path.read_bytes()
        return source, data, fields(data)
