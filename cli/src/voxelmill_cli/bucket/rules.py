"""Notification, CORS, lifecycle and policy documents: ours put among those of others, which are kept as they are.

All functions are pure. Documents have the form in which boto3 gives and takes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus

CREATED = "s3:ObjectCreated:*"
DESTINATIONS = {
    "QueueConfigurations": "QueueArn",
    "TopicConfigurations": "TopicArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}
"""The lists of a notification configuration, and the word by which each names where it sends."""
ABORT_RULE = "voxelmill-abort-multipart"
CORS_RULE = "voxelmill"
Document = Mapping[str, Any]


def notification_id(prefix: str) -> str:
    """Name our notification of a prefix: two installations that share a bucket do not take each other's."""
    return f"voxelmill-{hashlib.sha256(prefix.encode()).hexdigest()[:8]}"


def notification(word: str, arn: str, prefix: str, *, encoded: bool) -> dict[str, Any]:
    """Make the entry that tells of every new object.

    Parameters
    ----------
    word
        `QueueArn` or `TopicArn`.
    encoded
        Whether the server wants the prefix form-encoded, as AWS does ("Configuring event notifications using object
        key name filtering", Amazon S3 User Guide); others compare it as it is.
    """
    entry: dict[str, Any] = {"Id": notification_id(prefix), word: arn, "Events": [CREATED]}
    if prefix:
        value = quote_plus(prefix, safe="/!-_.*'()") if encoded else prefix
        entry["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": value}]}}
    return entry


def bare(answer: Document) -> dict[str, Any]:
    """Take an answer without boto3's own part."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def with_notification(configuration: Document, section: str, entry: Document) -> dict[str, Any]:
    """Put our entry into a configuration; an older one of ours goes, wherever it stands, all others stay."""
    merged = {
        name: [other for other in value if other.get("Id") != entry["Id"]] if name in DESTINATIONS else value
        for name, value in configuration.items()
    }
    merged[section] = [*merged.get(section, ()), dict(entry)]
    return {name: value for name, value in merged.items() if name not in DESTINATIONS or value}


def is_covered(configuration: Document, section: str, entry: Document) -> bool:
    """Whether a configuration tells the same destination of all that our entry would, under whatever name."""
    word = DESTINATIONS[section]
    wanted, _ = _affixes(entry)
    for other in configuration.get(section, ()):
        prefix, suffix = _affixes(other)
        if other[word] == entry[word] and CREATED in other["Events"] and wanted.startswith(prefix) and not suffix:
            return True
    return False


def overlapping(configuration: Document, entry: Document) -> tuple[str, str, str] | None:
    """Find an entry of others that AWS would not have beside ours: its id, prefix and destination."""
    wanted, _ = _affixes(entry)
    for section, word in DESTINATIONS.items():
        for other in configuration.get(section, ()):
            if other.get("Id") == entry["Id"] or not any(event.startswith(CREATED[:-1]) for event in other["Events"]):
                continue
            prefix, _ = _affixes(other)
            if prefix.startswith(wanted) or wanted.startswith(prefix):
                return str(other.get("Id", "")), prefix, str(other[word])
    return None


def ours_elsewhere(configuration: Document, entry: Document) -> str | None:
    """Give the destination of our own entry where it is another one than now."""
    for section, word in DESTINATIONS.items():
        for other in configuration.get(section, ()):
            if other.get("Id") == entry["Id"] and other[word] != entry.get(word):
                return str(other[word])
    return None


def _affixes(entry: Document) -> tuple[str, str]:
    """Return prefix and suffix of an entry's filter."""
    rules = entry.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    found = {str(rule["Name"]).lower(): str(rule.get("Value", "")) for rule in rules}
    return found.get("prefix", ""), found.get("suffix", "")


def cors_rule(origins: Sequence[str]) -> dict[str, Any]:
    """Make the rule by which browsers may upload to presigned URLs, in parts too: those need the ETag."""
    return {
        "ID": CORS_RULE,
        "AllowedOrigins": sorted(origins),
        "AllowedMethods": ["GET", "HEAD", "POST", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag", "x-amz-version-id"],
        "MaxAgeSeconds": 3600,
    }


def has_cors(rules: Sequence[Document], wanted: Document) -> bool:
    """Whether a rule stands that allows all that ours would, whatever its name and the order of its words."""
    lists = ("AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposeHeaders")
    return any(all(set(wanted[name]) <= set(rule.get(name, ())) for name in lists) for rule in rules)


def with_cors(rules: Sequence[Document], wanted: Document) -> list[dict[str, Any]]:
    """Put our rule in front: servers take the first one that fits a request. An older one of ours goes."""
    return [dict(wanted), *(dict(rule) for rule in rules if rule.get("ID") != CORS_RULE)]


def abort_rule(rules: Sequence[Document], prefix: str, days: int) -> dict[str, Any]:
    """Make the rule that aborts multipart uploads which nobody completes.

    AWS takes no mixture of the two ways to say the prefix, so ours follows the rules that stand.
    """
    where: dict[str, Any] = {"Filter": {"Prefix": prefix}}
    if any("Prefix" in rule for rule in rules):
        where = {"Prefix": prefix}
    return {
        "ID": _abort_id(prefix),
        **where,
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }


def standing_abort(rules: Sequence[Document], prefix: str, days: int) -> tuple[str, int] | None:
    """Find the rule that aborts such uploads already: its id and its days.

    A rule of others counts whatever its days are: they have decided. Ours counts if its days are those that are asked
    for.
    """
    for rule in rules:
        after = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        if after is None or rule.get("Status") != "Enabled" or not _reaches(rule, prefix):
            continue
        if rule.get("ID") != _abort_id(prefix) or after == days:
            return str(rule.get("ID", "")), int(after)
    return None


def with_abort(rules: Sequence[Document], wanted: Document) -> list[dict[str, Any]]:
    """Put our rule among those that stand; an older one of ours goes."""
    return [*(dict(rule) for rule in rules if rule.get("ID") != wanted["ID"]), dict(wanted)]


def _abort_id(prefix: str) -> str:
    return f"{ABORT_RULE}-{hashlib.sha256(prefix.encode()).hexdigest()[:8]}" if prefix else ABORT_RULE


def _reaches(rule: Document, prefix: str) -> bool:
    """Whether a rule is for everything under a prefix; one that asks for tags or sizes too is not."""
    condition = rule.get("Filter", {})
    return set(condition) <= {"Prefix"} and prefix.startswith(rule.get("Prefix", condition.get("Prefix", "")))


def sending_statement(bucket: str, account: str, partition: str, queue_arn: str) -> dict[str, Any]:
    """Make the statement by which this bucket of this account, and nobody else's, may send to a queue.

    Source: Amazon S3 User Guide, "Granting permissions to publish event notification messages to a destination".
    """
    return {
        "Sid": f"Voxelmill{hashlib.sha256(bucket.encode()).hexdigest()[:16]}",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {
            "ArnEquals": {"aws:SourceArn": f"arn:{partition}:s3:::{bucket}"},
            "StringEquals": {"aws:SourceAccount": account},
        },
    }


def with_statement(policy: str | None, statement: Document) -> str | None:
    """Put our statement into a queue's policy. None: it stands there already.

    Raises
    ------
    ValueError
        If the policy is no JSON document.
    """
    document: dict[str, Any] = json.loads(policy) if policy else {"Version": "2012-10-17", "Statement": []}
    statements = document.get("Statement", [])
    if isinstance(statements, Mapping):  # IAM takes a single one without a list
        statements = [statements]
    if dict(statement) in statements:
        return None
    kept = [other for other in statements if other.get("Sid") != statement["Sid"]]
    return json.dumps({**document, "Statement": [*kept, dict(statement)]})
