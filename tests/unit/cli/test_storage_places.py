"""Addresses that users type."""

from __future__ import annotations

import pytest

from voxelmill_cli.errors import CommandError
from voxelmill_cli.storage.places import BucketAddress, parse_address
from voxelmill_cli.storage.usage import kind_of


@pytest.mark.parametrize(
    ("address", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("S3://bucket/a/b/", "bucket", "a/b"),
        ("s3://my.bucket-1/é %41", "my.bucket-1", "é %41"),
    ],
)
def test_a_bucket_is_taken_as_it_is_written(address, bucket, prefix):
    """The scheme in either case, keys never decoded, slashes at the end without a meaning."""
    assert parse_address(address) == BucketAddress(bucket, prefix)


@pytest.mark.parametrize(("address", "path"), [("a/b", "a/b"), ("file:///a%20b", "/a b"), ("s3", "s3"), ("a:b", "a:b")])
def test_everything_without_a_scheme_is_a_path(address, path):
    """`file://` is percent-encoded."""
    assert str(parse_address(address)) == path


@pytest.mark.parametrize(
    "address",
    [
        "",
        "s3://",
        "s3:/bucket",
        "s3://a b/c",
        "s3:///key",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "gs://bucket/x",
        "file://host/path",
        "s3://bucket/" + "x" * 1023,
        "s3://bücket",
    ],
)
def test_an_address_that_is_written_wrong_is_refused(address):
    """With exit code 2 and what to write instead."""
    with pytest.raises(CommandError) as caught:
        parse_address(address)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        ("s3://bkt/a", "s3://bkt/a", True),
        ("s3://bkt/a", "s3://bkt/a/c", True),
        ("s3://bkt", "s3://bkt/a", True),
        ("s3://bkt", "s3://bkt", True),
        ("s3://bkt/a", "s3://bkt/ab", False),
        ("s3://bkt/a", "s3://other/a", False),
    ],
)
def test_places_overlap_by_whole_parts(one, other, overlaps):
    """`a` and `ab` are two places."""
    first, second = parse_address(one), parse_address(other)
    assert isinstance(first, BucketAddress)
    assert isinstance(second, BucketAddress)
    assert first.overlaps(second) is second.overlaps(first) is overlaps


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("1.2.3/r1/job/meshes/a.stl", ("1.2.3", "meshes")),
        ("any/prefix/1.2.3/r12/job/receipt.json", ("1.2.3", "records")),
        ("inbox/1.2.3/slice.dcm", ("inbox/", "")),
        ("loose.dcm", ("(no folder)", "")),
    ],
)
def test_an_object_counts_to_its_series_or_to_its_first_folder(key, group):
    """Results under any prefix."""
    assert kind_of(key) == group
