"""What AWS's library knows in our processes: all of S3 and SQS, but for what nobody asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import create_loader

from voxelmill_shared.storage.s3_client import new_session
from voxelmill_shared.storage.s3_descriptions import SERVICES, descriptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _read_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    descriptions.cache_clear()
    yield
    descriptions.cache_clear()


def without_texts(found: Any) -> Any:
    """Leave out what is for people."""
    if isinstance(found, dict):
        return {name: "" if _is_text(name, value) else without_texts(value) for name, value in found.items()}
    return [without_texts(one) for one in found] if isinstance(found, list) else found


def _is_text(name: str, value: Any) -> bool:
    return name == "documentation" and isinstance(value, str)


@pytest.mark.parametrize("service", ["s3", "sqs"])
@pytest.mark.parametrize("kind", ["service-2", "endpoint-rule-set-1", "paginators-1"])
def test_an_interface_is_the_librarys_own(service: str, kind: str) -> None:
    """Every operation, shape and rule, without the texts."""
    ours, theirs = (loader.load_service_model(service, kind) for loader in (descriptions(), create_loader()))
    assert ours == without_texts(theirs)
    assert "<p>" not in json.dumps(ours)


def test_the_regions_of_what_is_asked_are_known() -> None:
    """As the library knows them; those of other services are not."""
    ours, theirs = (loader.load_data("endpoints")["partitions"] for loader in (descriptions(), create_loader()))
    for mine, partition in zip(ours, theirs, strict=True):
        assert mine["regions"] == without_texts(partition["regions"])
        assert mine["services"] == {name: partition["services"][name] for name in SERVICES & {*partition["services"]}}
    assert set(theirs[0]["services"]) >= SERVICES


@pytest.mark.parametrize(
    ("service", "region", "address"),
    [
        ("s3", "eu-central-1", "https://s3.eu-central-1.amazonaws.com"),
        ("s3", "cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("sqs", "us-east-1", "https://sqs.us-east-1.amazonaws.com"),
        ("sts", "us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
    ],
)
async def test_addresses(service: str, region: str, address: str) -> None:
    """A client asks the region's own server."""
    async with new_session().create_client(service, region_name=region) as client:
        assert client.meta.endpoint_url == address


def test_descriptions_of_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_DATA_PATH is looked into first, as with all tools of AWS."""
    folder = tmp_path / "s3" / "2006-03-01"
    folder.mkdir(parents=True)
    (folder / "waiters-2.json").write_text('{"version": 2, "waiters": {"Ours": {"documentation": "text"}}}')
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    assert descriptions().load_service_model("s3", "waiters-2")["waiters"] == {"Ours": {"documentation": ""}}
