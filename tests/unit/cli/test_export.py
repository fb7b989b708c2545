"""Names of folders and files that a person sees."""

from __future__ import annotations

import pytest

from voxelmill_cli.export import flat_name, folder_names
from voxelmill_cli.sources import dataset_name


@pytest.mark.parametrize(
    ("artefact", "flat"),
    [
        ("meshes/lung_tissue.stl", "lungs_lung_tissue.stl"),
        ("meshes/lung_tissue.ply", "lungs_lung_tissue_colored.ply"),
        ("meshes/lung_tissue.obj", "lungs_lung_tissue.obj"),
        ("meshes/lung_tissue.mz3", "lungs_lung_tissue.mz3"),
        ("meshes/scene.glb", "scene.glb"),
        ("meshes/meshes.json", "meshes.json"),
        ("meshes/materials.mtl", "materials.mtl"),
        ("segmentation/labelmap.nii.gz", "labelmap.nii.gz"),
        ("thumbnails/axial.webp", "thumbnails/axial.webp"),
    ],
)
def test_artefacts_lie_flat_under_the_names_of_design(artefact, flat):
    """`lungs_lung_tissue.stl`, `lungs_lung_tissue_colored.ply` and the rest."""
    assert flat_name(artefact, "lungs") == flat


def test_one_series_has_the_name_of_its_data_set():
    """Signs that a file system or a shell dislikes become underscores."""
    assert folder_names({"1.2.3": "patient 1/ct: thin"}, "all") == {"1.2.3": "all_segmentation_patient_1_ct_thin"}


def test_series_of_one_name_have_folders_of_their_own():
    """However alike their UIDs end, and whatever the case of their names."""
    uids = ["1.2.840.111111111111", "1.3.840.111111111111", "1.2.840.222222222222"]
    names = folder_names(dict(zip(uids, ("CT", "ct", "CT"), strict=True)), "all")
    assert len({name.lower() for name in names.values()}) == 3


@pytest.mark.parametrize(
    ("file", "name"),
    [("chest.nii.gz", "chest"), ("study.ZIP", "study"), ("a.tar.gz", "a"), (".zip", ".zip"), ("1.2.3", "1.2.3")],
)
def test_a_file_names_its_data_set(file, name):
    """The endings that say what it is are left out."""
    assert dataset_name(file) == name
