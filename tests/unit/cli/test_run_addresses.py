"""The addresses of a run, before anything is contacted."""

from __future__ import annotations

import pytest

from voxelmill_cli.errors import CommandError
from voxelmill_cli.run import RunRequest, find_places
from voxelmill_cli.storage.places import BucketAddress
from voxelmill_shared.plan import Plan


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        ("here", "s3://", "no bucket can have this name"),
        ("here", "s3:/bucket/x", "write s3://bucket"),
        ("s3:/bucket", "out", "write s3://bucket"),
        ("here", "gs://bucket/x", "an address is a folder"),
        ("s3://bkt/in", "s3://bkt/in/results", "overlaps the source"),
        ("s3://bkt/in", "s3://bkt", "overlaps the source"),
        ("s3://bkt/in/", "S3://bkt/in", "overlaps the source"),
        ("./here/", "here", "is the source itself"),
        (" ", "out", "the source is empty"),
        ("here", "", "the output is empty"),
    ],
)
def test_what_is_written_wrong_is_wrong_usage(source, destination, words):
    """Exit code 2, and what to write instead."""
    with pytest.raises(CommandError, match=words) as caught:
        find_places(RunRequest(source, destination, Plan()))
    assert caught.value.exit_code == 2


def test_neighbours_are_two_places(tmp_path, monkeypatch):
    """A run into a bucket works in a folder of its own here: the same one at every start, another for other places."""
    monkeypatch.chdir(tmp_path)
    one, again, other = (
        find_places(RunRequest("s3://bkt/in", destination, Plan()))
        for destination in ("s3://bkt/in2", "s3://bkt/in2", "s3://bkt/out")
    )
    assert one.bucket == BucketAddress("bkt", "in2")
    assert one.base == again.base != other.base
    assert one.base.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_written_as_an_address(tmp_path):
    """Percent-encoded, as addresses are."""
    places = find_places(RunRequest("s3://bkt/in", f"file://{tmp_path}/a%20b", Plan()))
    assert (places.base, places.bucket) == (tmp_path / "a b", None)
