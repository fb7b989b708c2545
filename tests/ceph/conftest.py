"""Ceph, for tests that are run when they are asked for by name: `make test-ceph`, or `pytest tests/ceph`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.conftest import phantom, series  # noqa: F401 - fixtures
from servers.ceph import ceph  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.ceph import CephGateway

HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that did not name them: they need 0.5 GB of packages."""
    named = (config.invocation_params.dir / argument.split("::")[0] for argument in config.args)
    return None if any(path.resolve().is_relative_to(HERE) for path in named) else True


@pytest.fixture
def s3_environment(ceph: CephGateway, monkeypatch: pytest.MonkeyPatch) -> CephGateway:  # noqa: F811 - the fixture
    """Let everything in this process that speaks S3 find the gateway."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    return ceph


@pytest.fixture
def bucket(s3_environment: CephGateway) -> Iterator[str]:
    """Give the name of a fresh bucket of the gateway; it goes with the cluster, its topics before their broker does."""
    name = f"test.{uuid.uuid4().hex[:16]}"
    client = s3_environment.client()
    client.create_bucket(Bucket=name)
    try:
        yield name
    finally:
        # The gateway would go on trying to reach a broker that is gone.
        topics = s3_environment.client("sns")
        for topic in topics.list_topics().get("Topics", ()):
            topics.delete_topic(TopicArn=topic["TopicArn"])
        topics.close()
        client.close()
