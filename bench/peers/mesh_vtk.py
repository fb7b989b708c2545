"""What both ways through VTK share: arrays to images, polygons to arrays, and the decimation that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fast_simplification
import numpy as np
from vtkmodules.util import numpy_support
from vtkmodules.vtkCommonDataModel import vtkImageData

if TYPE_CHECKING:
    from mesh_worker import Work


def image_of(voxels: Any, spacing: tuple[float, float, float], first: tuple[int, ...] = (0, 0, 0)) -> vtkImageData:
    """Return (slices, rows, columns) as an image; `first` is where its first voxel lies in the whole volume."""
    image = vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    image.SetSpacing(*spacing[::-1])
    image.SetOrigin(*(place * size for place, size in zip(first[::-1], spacing[::-1], strict=True)))
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels.ravel()))
    return image


def arrays_of(surface: Any) -> tuple[Any, Any]:
    """Return the vertices and faces of polygons that are all triangles."""
    vertices = numpy_support.vtk_to_numpy(surface.GetPoints().GetData())
    faces = numpy_support.vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vertices.astype(np.float32, copy=False), faces.astype(np.int32)


def decimated(work: Work, vertices: Any, faces: Any) -> tuple[Any, Any]:
    """Decimate with fast-simplification, which is quicker than VTK's own."""
    if (target := work.target(len(faces))) < len(faces):
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=target)
    return vertices, faces
