"""Stores whose notifications this command cannot set up: what to do instead, in words."""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING

from voxelmill_cli.bucket.steps import Step, StepState

if TYPE_CHECKING:
    from voxelmill_cli.bucket.target import BucketTarget

NOTIFICATIONS = "notifications"
POLLING_SECONDS = 60


def seaweedfs_step() -> Step:
    """Never ask SeaweedFS for it: it takes the request for one to create the bucket (4.48)."""
    return Step(NOTIFICATIONS, StepState.BY_HAND, "SeaweedFS has no request for it; see the two ways below")


def seaweedfs_notes(target: BucketTarget) -> list[str]:
    """Give the two ways."""
    return [
        "SeaweedFS tells of new objects in two ways; use one of them:",
        "  1. The filer's stream, which loses nothing: VOXELMILL_SEAWEEDFS_FILER=HOST:PORT, the filer's gRPC address",
        "     (its HTTP port + 10000). Ingest follows it from where it stopped. Nothing is to be set on SeaweedFS.",
        "  2. The webhook, which gives up after a few tries: set VOXELMILL_NOTIFICATION_TOKEN on ingest to a secret of",
        "     yours, put this into notification.toml of the filer, and restart it:",
        "       [notification.webhook]",
        "       enabled = true",
        '       endpoint = "http://INGEST-HOST:PORT/notifications"',
        '       bearer_token = "THE SAME SECRET"',
        f'       path_prefixes = ["/buckets/{target.bucket}/{target.prefix}"]',
        f"     and let ingest list the bucket too: VOXELMILL_RECONCILE_SECONDS={POLLING_SECONDS}",
    ]


def spaces_step() -> Step:
    """Spaces has none."""
    return Step(NOTIFICATIONS, StepState.LACKING, "ingest lists the bucket instead")


def gcs_steps(target: BucketTarget) -> list[Step]:
    """Give the steps that are the user's own."""
    return [
        Step("Pub/Sub topic and the bucket's notification", StepState.BY_HAND, f"of {target.objects}; commands below"),
        Step("Pub/Sub push subscription to ingest", StepState.BY_HAND, "command below"),
    ]


def gcs_notes(target: BucketTarget, abort_days: int) -> list[str]:
    """Give the commands. The push carries the token in its address: Pub/Sub sends no header of ours."""
    name = f"voxelmill-{target.bucket.replace('.', '-')}"
    prefix = f" --object-prefix={quote(target.prefix)}" if target.prefix else ""
    create = f"gcloud storage buckets notifications create gs://{target.bucket} --topic={name}"
    push = "--ack-deadline=60 --push-endpoint='https://INGEST-HOST/notifications?token=SECRET'"
    lines = [
        "Google Cloud Storage is set up with Google's own tool (needs rights on Storage and Pub/Sub):",
        f"  gcloud pubsub topics create {name}",
        f"  {create} --event-types=OBJECT_FINALIZE --payload-format=json{prefix}",
        f"  gcloud pubsub subscriptions create {name} --topic={name} {push}",
        "with SECRET the value of ingest's VOXELMILL_NOTIFICATION_TOKEN (letters and digits), and INGEST-HOST an",
        "address with TLS that Google can reach.",
    ]
    if abort_days:
        rule = {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": abort_days}}
        lines += [
            "Multipart uploads that nobody completes: a lifecycle file with",
            f"  {json.dumps({'rule': [rule]})}",
            f"  gcloud storage buckets update gs://{target.bucket} --lifecycle-file=FILE   (it replaces what stands)",
        ]
    return lines
