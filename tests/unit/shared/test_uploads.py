"""How the objects of uploads are named."""

from __future__ import annotations

import pytest

from voxelmill_shared.projects import project_of
from voxelmill_shared.storage.keys import check_key
from voxelmill_shared.uploads import SUFFIXES, upload_key, upload_of, upload_prefix

UPLOAD = "0123456789abcdef" * 2


@pytest.mark.parametrize("project", ["default", "trial-7"])
@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_a_key_says_whose_it_is_and_what_it_came_with(project: str, suffix: str) -> None:
    """Project and upload are read from it again, and every store can hold it."""
    key = upload_key(project, UPLOAD, 7, suffix)
    assert key.startswith(upload_prefix(project, UPLOAD))
    assert key.endswith(f"/000007{suffix}")
    check_key(key)
    assert (project_of(key), upload_of(key)) == (project, UPLOAD)


@pytest.mark.parametrize(
    "key",
    [
        "chest/1.dcm",
        f"uploads/{UPLOAD}",
        f"uploads/{UPLOAD}/1.dcm",
        f"uploads/{UPLOAD}/000001.png",
        f"uploads/{UPLOAD}/000001.dcm/x",
        f"x/uploads/{UPLOAD}/000001.dcm",
        f"uploads/{UPLOAD[1:]}/000001.dcm",
        f"uploads/{UPLOAD.upper()}/000001.dcm",
        f"uploads/{UPLOAD}/000001.dcm\n",
    ],
)
def test_what_came_in_another_way(key: str) -> None:
    """Any other key is no upload's."""
    assert upload_of(key) is None


@pytest.mark.parametrize(
    ("project", "upload_id", "number", "suffix"),
    [
        ("../x", UPLOAD, 0, ""),
        ("default", "../x", 0, ""),
        ("default", UPLOAD, 1_000_000, ""),
        ("default", UPLOAD, -1, ""),
        ("default", UPLOAD, 0, ".exe"),
        ("default", UPLOAD, 0, "/../x"),
    ],
)
def test_no_key_is_made_of_what_could_leave_its_place(project: str, upload_id: str, number: int, suffix: str) -> None:
    """Refused, whoever asks for it."""
    with pytest.raises(ValueError, match=r"project|upload|key"):
        upload_key(project, upload_id, number, suffix)
