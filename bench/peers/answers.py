"""What a tool's adapter answers with, and the way in which its volumes come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def refused(reason: str) -> dict[str, Any]:
    """Answer that the tool gave no volume and said why."""
    return {"outcome": "refused", "reason": " ".join(reason.split())}


def crashed(error: BaseException) -> dict[str, Any]:
    """Answer that the tool failed in a way that tells its user nothing."""
    return {"outcome": "crash", "reason": f"{type(error).__name__}: {' '.join(str(error).split())}"}


class Volumes:
    """Volumes on their way back: voxels as (slices, rows, columns), affine from (column, row, slice) to LPS mm."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._found: list[dict[str, Any]] = []

    def add(self, voxels: NDArray[Any], affine: NDArray[np.float64], name: str = "", remarks: str = "") -> None:
        """Save one volume. Colour and vectors keep a fourth axis."""
        path = self._output / f"volume-{len(self._found)}.npy"
        np.save(path, np.ascontiguousarray(voxels))
        self._found.append(
            {
                "path": str(path),
                "affine": np.asarray(affine).tolist(),
                "name": name,
                "remarks": " ".join(remarks.split()),
            }
        )

    def add_nifti(self, path: Path, remarks: str = "") -> None:
        """Save the volume, or the several volumes, of a NIfTI file."""
        import nibabel as nib  # noqa: PLC0415 - only the tools that write NIfTI need it

        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
        affine = RAS_TO_LPS @ image.affine
        if data.dtype.names:  # colour
            data = np.stack([data[name] for name in data.dtype.names], axis=-1)
            self.add(np.moveaxis(data[:, :, :, ...].reshape(*data.shape[:3], -1), (0, 1, 2), (2, 1, 0)), affine)
            return
        data = data.reshape(*data.shape[:2], *(data.shape[2:3] or (1,)), -1)
        for n in range(data.shape[3]):
            self.add(data[..., n].transpose(2, 1, 0), affine, path.name, remarks)

    def answer(self, none: str) -> dict[str, Any]:
        """Answer with the volumes, or that there were none because of `none`."""
        return {"outcome": "volumes", "volumes": self._found} if self._found else refused(none)
