"""Whether a file is what an ETag names."""

from __future__ import annotations

import hashlib

import pytest

from voxelmill_cli.storage.content import has_content

MIB = 1 << 20


def md5(body):
    return hashlib.md5(body, usedforsecurity=False)


def etag_in_parts(body: bytes, part: int) -> str:
    """As S3 computes it (Amazon S3 User Guide, "Checking object integrity")."""
    md5s = [md5(body[start : start + part]).digest() for start in range(0, len(body), part)] or [md5(b"").digest()]
    return f"{md5(b''.join(md5s)).hexdigest()}-{len(md5s)}"


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 8 * MIB + 1, 16 * MIB, 16 * MIB + 1, 20 * MIB])
def test_a_file_is_known_by_every_usual_way_of_putting_it(tmp_path, size):
    """In one piece, in parts of 5, 8 and 16 MiB, in one part."""
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]
    path = tmp_path / "file"
    path.write_bytes(body)
    etags = [md5(body).hexdigest(), *(etag_in_parts(body, part * MIB) for part in (5, 8, 16, 64))]
    assert [has_content(path, size, etag) for etag in etags] == [True] * 5
    for etag in etags:
        assert not has_content(path, size + 1, etag)
        if size:
            path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
            assert not has_content(path, size, etag)
            path.write_bytes(body)


@pytest.mark.parametrize("etag", ["", "-", "x-²", "-1", "abc", "x-0", "x-99999999", f"{'0' * 32}-1"])
def test_an_etag_of_another_kind_is_no_proof(tmp_path, etag):
    """As of a server that encrypts with keys of its own."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert not has_content(path, 7, etag)
