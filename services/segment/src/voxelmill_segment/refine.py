"""From the working grid to the voxels: anatomy says what may be here, the voxel's own HU says what it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import edt
import fill_voids
import numpy as np
from numba import njit
from scipy import ndimage

from voxelmill_segment import labels as table
from voxelmill_segment.body import TISSUE_HU
from voxelmill_segment.bones import MARROW_HU
from voxelmill_segment.grid import AIR_HU, DENSEST_HU, in_slabs
from voxelmill_segment.morphology import bounding_box, large_components
from voxelmill_segment.tissue import FAT_HIGH_HU, FAT_LOW_HU

if TYPE_CHECKING:
    import numpy.typing as npt

    from voxelmill_segment.grid import Grid
    from voxelmill_segment.morphology import Mask, Spacing

SKIN_MM = 2.0
BONE_HU = 160.0
_LEAST_BONE_ML = 0.1
_SMOOTH_BELOW_MM = 1.6
_BRIGHT_EDGE_HU = 350.0
_EDGE_SHARE = 0.4
_SOFT_HU = 50
_LUMEN_EDGE_HU = -500

# numba takes plain numbers from its module, not the attributes of a table.
_LEFT, _RIGHT, _AIRWAYS = table.LUNG_LEFT.number, table.LUNG_RIGHT.number, table.AIRWAYS.number
_BONE, _SOFT = table.BONES.number, table.SOFT_TISSUE.number
_SUBCUTANEOUS, _TORSO_FAT = table.SUBCUTANEOUS_FAT.number, table.TORSO_FAT.number

_LEFT_NEAR, _RIGHT_NEAR, _BONE_NEAR, _BODY_NEAR, _BODY_SURE, _TORSO = 1, 2, 4, 8, 16, 32


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What was found on the working grid.

    Parameters
    ----------
    core
        uint8: the numbers of the lungs and the bones, 0 elsewhere.
    body, torso
        The body, and what its wall encloses.
    airways
        The airway lumen on `airway_grid`, which is finer.
    """

    grid: Grid
    core: npt.NDArray[np.uint8]
    body: Mask
    torso: Mask
    airways: Mask
    airway_grid: Grid


def refine(hu: npt.NDArray[np.int16], anatomy: Anatomy, air_hu: float, spacing: Spacing) -> Refined:
    """Label every voxel.

    A block of the working grid whose neighbours all agree gives its label to its voxels: vessels stay in the lung and
    marrow in the bone. In the others each voxel is lung below `air_hu`, if lung is near; bone, if bone is near, above a
    share of the brightest neighbour's HU (a bright cortex blurs further than a dim one); and else what tissue its HU
    says, averaged over 3x3 pixels where pixels are small, for noise would speckle it.

    Parameters
    ----------
    hu
        int16 (superior, posterior, left), C-contiguous.
    anatomy
        What was found on the working grid.
    air_hu
        The threshold of lung.
    spacing
        Millimetres between voxels.
    """
    hints, sure = _hints(anatomy)
    result = np.zeros(hu.shape, np.uint8)
    inside = np.zeros(hu.shape, np.bool_)
    reach = 1 if spacing[2] < _SMOOTH_BELOW_MM else 0
    # Where pixels are as large as a cortex is thick, a voxel that the working grid holds to be bone stays bone, however
    # fatty its marrow; where they are small, marrow comes back by `mend_bones`.
    marrow_hu = DENSEST_HU if reach else MARROW_HU
    blocks = (hints, sure, anatomy.core, anatomy.airways.view(np.uint8))
    factors = (anatomy.grid.factors, anatomy.airway_grid.factors)
    thresholds = (float(air_hu), BONE_HU, _BRIGHT_EDGE_HU, float(marrow_hu))
    in_slabs(lambda a, b: _label_voxels(hu, result, inside, blocks, factors, thresholds, reach, a, b), len(hu))
    return Refined(result, inside)


@dataclass(frozen=True, slots=True)
class Refined:
    """Labels without skin, and the body, voxel by voxel (superior, posterior, left)."""

    labels: npt.NDArray[np.uint8]
    body: Mask

    def mend_bones(self, core: npt.NDArray[np.uint8], spacing: Spacing) -> None:
        """Fill holes in bone that the working grid holds to be marrow, slice by slice, and drop specks of noise.

        Parameters
        ----------
        core
            The working grid's labels, spread over the voxels.
        spacing
            Millimetres between voxels.
        """
        bone = self.labels == table.BONES.number
        if not bone.any():
            return
        box = bounding_box(bone)
        cut, target, marrow = bone[box], self.labels[box], core[box] == table.BONES.number
        solid = large_components(cut, _LEAST_BONE_ML * 1000.0 / float(np.prod(spacing)), connectivity=26)
        target[cut & ~solid] = table.SOFT_TISSUE.number

        def fill(index: int) -> None:
            if not solid[index].any():
                return
            holes = fill_voids.fill(solid[index]) & ~solid[index]
            target[index][holes & marrow[index]] = table.BONES.number

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fill, range(len(solid))))

    def add_skin(self, spacing: Spacing) -> None:
        """Give the body's outermost 2 mm to the skin, measured within each slice."""

        def add(index: int) -> None:
            body = np.ascontiguousarray(self.body[index])
            if not body.any():
                return
            depth = edt.edt(body, anisotropy=spacing[1:], black_border=False, parallel=1)
            labels = self.labels[index]
            soft = (labels == 0) | (labels == table.SOFT_TISSUE.number) | (labels == table.SUBCUTANEOUS_FAT.number)
            labels[body & (depth <= max(SKIN_MM, spacing[2])) & soft] = table.SKIN.number

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(add, range(len(self.labels))))


def _hints(anatomy: Anatomy) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return, for each block, what is near as bits, and the label that all neighbours agree on."""
    core = anatomy.core
    hints = np.zeros(core.shape, np.uint8)
    near = {
        _LEFT_NEAR: core == table.LUNG_LEFT.number,
        _RIGHT_NEAR: core == table.LUNG_RIGHT.number,
        _BONE_NEAR: core == table.BONES.number,
        _BODY_NEAR: anatomy.body,
    }
    for bit, mask in near.items():
        hints |= ndimage.maximum_filter(mask.view(np.uint8), size=3) * np.uint8(bit)
    hints |= ndimage.minimum_filter(anatomy.body.view(np.uint8), size=3) * np.uint8(_BODY_SURE)
    hints |= anatomy.torso.view(np.uint8) * np.uint8(_TORSO)
    low, high = ndimage.minimum_filter(core, size=3), ndimage.maximum_filter(core, size=3)
    return hints, np.where(low == high, low, 0).astype(np.uint8)


@njit(cache=True, nogil=True)
def _label_voxels(  # noqa: C901, PLR0912 - one pass over the voxels: numba has no cheaper way to say it
    hu: npt.NDArray[np.int16],
    result: npt.NDArray[np.uint8],
    inside: Mask,
    blocks: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    factors: tuple[tuple[int, int, int], tuple[int, int, int]],
    thresholds: tuple[float, float, float, float],
    reach: int,
    first: int,
    last: int,
) -> None:
    hints, sure, core, airways = blocks
    (fz, fy, fx), (az, ay, ax) = factors
    air_hu, least_hu, most_hu, marrow_hu = thresholds
    height, width = hu.shape[1], hu.shape[2]
    for z in range(first, last):
        for y in range(height):
            for x in range(width):
                hint = hints[z // fz, y // fy, x // fx]
                if not hint & _BODY_NEAR:
                    continue
                total, count = 0, 0
                for j in range(max(0, y - reach), min(height, y + reach + 1)):
                    for i in range(max(0, x - reach), min(width, x + reach + 1)):
                        total += min(max(hu[z, j, i], AIR_HU), DENSEST_HU)
                        count += 1
                mean = total / count
                own = core[z // fz, y // fy, x // fx]
                agreed = sure[z // fz, y // fy, x // fx]
                if airways[z // az, y // ay, x // ax] and mean < _LUMEN_EDGE_HU:
                    inside[z, y, x] = True
                    result[z, y, x] = _AIRWAYS
                    continue
                if agreed:
                    inside[z, y, x] = True
                    result[z, y, x] = agreed
                    continue
                if mean < air_hu and hint & (_LEFT_NEAR | _RIGHT_NEAR):
                    inside[z, y, x] = True
                    if own in (_LEFT, _RIGHT):
                        result[z, y, x] = own
                    else:
                        result[z, y, x] = _LEFT if hint & _LEFT_NEAR else _RIGHT
                    continue
                if not hint & _BODY_SURE and mean < TISSUE_HU:
                    continue
                inside[z, y, x] = True
                edge = np.inf
                if hint & _BONE_NEAR and hu[z, y, x] > least_hu:
                    edge = least_hu
                    if reach:
                        brightest = 0
                        for k in range(max(0, z - 1), min(len(hu), z + 2)):
                            for j in range(max(0, y - 1), min(height, y + 2)):
                                for i in range(max(0, x - 1), min(width, x + 2)):
                                    brightest = max(brightest, hu[k, j, i])
                        edge = min(max(_SOFT_HU + _EDGE_SHARE * (brightest - _SOFT_HU), least_hu), most_hu)
                if hu[z, y, x] > edge or (hint & _BONE_NEAR and own == _BONE and hu[z, y, x] > marrow_hu):
                    result[z, y, x] = _BONE
                elif mean >= FAT_HIGH_HU:
                    result[z, y, x] = _SOFT
                elif mean > FAT_LOW_HU:
                    result[z, y, x] = _TORSO_FAT if hint & _TORSO else _SUBCUTANEOUS
