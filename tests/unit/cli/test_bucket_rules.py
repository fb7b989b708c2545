"""What of others stands in a bucket's settings is kept, and what we want is recognised where it stands."""

from __future__ import annotations

import json

import pytest

from voxelmill_cli.bucket import rules
from voxelmill_cli.bucket.advice import gcs_notes, seaweedfs_notes
from voxelmill_cli.bucket.aws import default_queue
from voxelmill_cli.bucket.exchange import NotificationExchange, as_push_endpoint, check_broker, without_password
from voxelmill_cli.bucket.minio import default_arn, server_settings
from voxelmill_cli.bucket.steps import ConnectionPlan, Step, StepState, carry_out
from voxelmill_cli.bucket.target import BucketTarget, StoreKind, kind_by_headers, kind_by_host
from voxelmill_cli.errors import EXIT_UNREACHABLE, CommandError

THEIRS = {
    "Id": "theirs",
    "LambdaFunctionArn": "arn:aws:lambda:x:1:function:f",
    "Events": ["s3:ObjectCreated:Put"],
    "Filter": {
        "Key": {"FilterRules": [{"Name": "Prefix", "Value": "inbox/thumbs/"}, {"Name": "Suffix", "Value": ".png"}]}
    },
}


def entry(arn="arn:q", prefix="inbox/", encoded=False):
    return rules.notification("QueueArn", arn, prefix, encoded=encoded)


@pytest.mark.parametrize(
    ("address", "bucket", "prefix"),
    [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/a b+é/c/", "b", "a b+é/c/"), ("S3://b/x%20y", "b", "x%20y/")],
)
def test_addresses_are_read_as_the_inbox_is(address, bucket, prefix):
    """The prefix ends with `/`, and is never decoded."""
    assert BucketTarget.parse(address) == BucketTarget(bucket, prefix)


@pytest.mark.parametrize("address", ["", "b", "s3://", "s3:///x", "file:///b", "s3://b/a//b", "s3://b/../x"])
def test_what_names_no_bucket_is_refused(address):
    """One line, exit code 2."""
    with pytest.raises(CommandError) as caught:
        BucketTarget.parse(address)
    assert caught.value.exit_code == 2


def test_the_server_is_told_by_its_host_or_its_headers():
    """A host that belongs to one service decides before any request; Ceph 16 has no `Server`."""
    assert kind_by_host("https://s3.eu-central-1.amazonaws.com") is StoreKind.AWS
    assert kind_by_host("https://fra1.digitaloceanspaces.com") is StoreKind.SPACES
    assert kind_by_host("https://storage.googleapis.com") is StoreKind.GCS
    assert kind_by_host("http://notamazonaws.com:9000") is None
    for headers, kind in (
        ({"Server": "AmazonS3"}, StoreKind.AWS),
        ({"server": "MinIO"}, StoreKind.MINIO),
        ({"server": "RustFS"}, StoreKind.RUSTFS),
        ({"server": "SeaweedFS 30GB 4.48"}, StoreKind.SEAWEEDFS),
        ({"x-rgw-object-count": "0"}, StoreKind.CEPH),
        ({"server": "Ceph Object Gateway (squid)"}, StoreKind.CEPH),
        ({"server": "nginx"}, None),
        ({}, None),
    ):
        assert kind_by_headers(headers) is kind


def test_a_prefix_is_form_encoded_for_aws_alone():
    """`/` stays; Ceph and MinIO compare with the key as it is."""

    def value(encoded):
        return entry(prefix="a b+é/c/", encoded=encoded)["Filter"]["Key"]["FilterRules"][0]["Value"]

    assert value(True) == "a+b%2B%C3%A9/c/"
    assert value(False) == "a b+é/c/"
    assert "Filter" not in entry(prefix="")


def test_other_notifications_are_kept_and_an_older_one_of_ours_goes():
    """Wherever it stood; EventBridge stays switched on."""
    old = rules.notification("TopicArn", "arn:old", "inbox/", encoded=False)
    elsewhere = entry(prefix="other/")
    standing = {
        "TopicConfigurations": [old],
        "QueueConfigurations": [elsewhere],
        "LambdaFunctionConfigurations": [THEIRS],
        "EventBridgeConfiguration": {},
    }
    merged = rules.with_notification(standing, "QueueConfigurations", entry())
    assert merged == {
        "QueueConfigurations": [elsewhere, entry()],
        "LambdaFunctionConfigurations": [THEIRS],
        "EventBridgeConfiguration": {},
    }
    assert rules.ours_elsewhere(standing, entry()) == "arn:old"
    assert rules.with_notification(merged, "QueueConfigurations", entry()) == merged


def test_what_somebody_set_up_by_hand_counts():
    """The same destination for all of ours, under any name; not with a suffix, nor for fewer events."""
    section = "QueueConfigurations"
    by_hand = {**entry(prefix=""), "Id": "hand"}
    assert rules.is_covered({section: [by_hand]}, section, entry())
    assert not rules.is_covered({section: [{**by_hand, "QueueArn": "arn:other"}]}, section, entry())
    assert not rules.is_covered({section: [{**by_hand, "Events": ["s3:ObjectCreated:Put"]}]}, section, entry())
    with_suffix = {**by_hand, "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".dcm"}]}}}
    assert not rules.is_covered({section: [with_suffix]}, section, entry())
    assert not rules.is_covered({section: [entry(prefix="inbox/deeper/")]}, section, entry())


def test_what_aws_would_not_have_beside_ours_is_found():
    """Prefixes of which one begins the other, whatever the suffix; not other events, nor our own entry."""
    assert rules.overlapping({"LambdaFunctionConfigurations": [THEIRS]}, entry()) == (
        "theirs",
        "inbox/thumbs/",
        THEIRS["LambdaFunctionArn"],
    )
    assert rules.overlapping({"LambdaFunctionConfigurations": [THEIRS]}, entry(prefix="out/")) is None
    removed = {**THEIRS, "Events": ["s3:ObjectRemoved:*"]}
    assert rules.overlapping({"LambdaFunctionConfigurations": [removed]}, entry()) is None
    assert rules.overlapping({"QueueConfigurations": [entry(arn="arn:old")]}, entry()) is None


def test_cors_rules_are_kept_and_one_that_allows_enough_will_do():
    """In any order of words; ours stands in front, because the first that fits decides."""
    wanted = rules.cors_rule(["https://b.example", "https://a.example"])
    theirs = {"ID": "theirs", "AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    assert not rules.has_cors([theirs], wanted)
    merged = rules.with_cors([{**wanted, "AllowedOrigins": ["https://old.example"]}, theirs], wanted)
    assert merged == [wanted, theirs]
    backwards = {name: value[::-1] if isinstance(value, list) else value for name, value in wanted.items()}
    assert rules.has_cors([{**backwards, "ID": "by hand"}], wanted)


def test_lifecycle_rules_are_kept_and_one_that_aborts_will_do():
    """A rule of others decides whatever its days; one for tags or another prefix, or switched off, does not."""
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 30}, "Status": "Enabled"}
    for standing in ({"Prefix": ""}, {"Filter": {}}, {"Filter": {"Prefix": "in"}}):
        assert rules.standing_abort([{"ID": "theirs", **abort, **standing}], "inbox/", 7) == ("theirs", 30)
    for standing in (
        {"Filter": {"Prefix": "out/"}},
        {"Filter": {"Tag": {"Key": "a", "Value": "b"}}},
        {"Filter": {}, "Status": "Disabled"},
    ):
        assert rules.standing_abort([{"ID": "theirs", **abort, **standing}], "inbox/", 7) is None
    ours = rules.abort_rule([], "inbox/", 7)
    assert rules.standing_abort([ours], "inbox/", 7) == (ours["ID"], 7)
    assert rules.standing_abort([ours], "inbox/", 3) is None
    other = rules.abort_rule([], "other/", 7)
    assert rules.with_abort([other, ours], rules.abort_rule([], "inbox/", 3)) == [
        other,
        {**ours, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}},
    ]


def test_a_lifecycle_rule_says_its_prefix_as_the_others_do():
    """AWS refuses a mixture of the old form and the new."""
    assert rules.abort_rule([{"Prefix": "a/"}], "inbox/", 7)["Prefix"] == "inbox/"
    assert rules.abort_rule([{"Filter": {"Prefix": "a/"}}], "inbox/", 7)["Filter"] == {"Prefix": "inbox/"}


def test_a_queues_policy_lets_one_bucket_of_one_account_send():
    """The statements of others stay, a single one without a list too; ours comes once."""
    statement = rules.sending_statement("b", "111122223333", "aws", "arn:q")
    assert statement["Condition"] == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::b"},
        "StringEquals": {"aws:SourceAccount": "111122223333"},
    }
    theirs = {"Sid": "Theirs", "Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"}
    policy = rules.with_statement(json.dumps({"Version": "2012-10-17", "Statement": theirs}), statement)
    assert json.loads(policy)["Statement"] == [theirs, statement]
    assert rules.with_statement(policy, statement) is None
    assert json.loads(rules.with_statement(None, statement))["Statement"] == [statement]


def test_brokers_are_written_as_the_store_reads_them_and_passwords_are_not_shown():
    """Its library takes a `/` at the end for the virtual host without a name."""
    assert as_push_endpoint("amqp://u:p@h:5672/") == "amqp://u:p@h:5672"
    assert as_push_endpoint("amqp://u:p@h/vhost?heartbeat=10") == "amqp://u:p@h/vhost"
    assert without_password("amqp://u:p%40@h:5672/v") == "amqp://u:***@h:5672/v"
    assert without_password("amqp://h/v") == "amqp://h/v"
    for wrong in ("", "embedded:x.db", "http://h", "amqp://", "amqp://h:99999"):
        with pytest.raises(CommandError, match="--broker"):
            check_broker(wrong)
    with pytest.raises(CommandError, match="for events"):
        NotificationExchange("amqp://h", "voxelmill.events")


def test_names_are_those_that_the_stores_allow():
    """SQS knows no dots; RustFS has its targets in small letters, and tells nobody of one in capitals."""
    assert default_queue("scans.example.org") == "voxelmill-scans-example-org"
    assert default_arn(StoreKind.MINIO, "us-east-1") == "arn:minio:sqs::VOXELMILL:amqp"
    assert default_arn(StoreKind.RUSTFS, "us-east-1") == "arn:rustfs:sqs:us-east-1:voxelmill:amqp"
    exchange = NotificationExchange("amqp://u:p@h", "ex")
    minio = server_settings(StoreKind.MINIO, "amqp://u:p@h", exchange)
    assert minio["MINIO_NOTIFY_AMQP_URL_VOXELMILL"] == "amqp://u:***@h"
    assert minio["MINIO_NOTIFY_AMQP_EXCHANGE_TYPE_VOXELMILL"] == "topic"
    assert server_settings(StoreKind.RUSTFS, "amqp://h", exchange)["RUSTFS_NOTIFY_AMQP_EXCHANGE_VOXELMILL"] == "ex"


def test_the_ways_by_hand_name_the_bucket_and_the_prefix():
    """Quoted for the shell that they are put into."""
    target = BucketTarget("b.x", "a b/")
    assert any('"/buckets/b.x/a b/"' in line for line in seaweedfs_notes(target))
    commands = "\n".join(gcs_notes(target, 7))
    assert "gs://b.x --topic=voxelmill-b-x" in commands
    assert "--object-prefix='a b/'" in commands
    assert '"age": 7' in commands
    assert "lifecycle" not in "\n".join(gcs_notes(target, 0))


def test_a_plan_that_fails_half_way_says_what_is_done():
    """The steps before, the one that failed with its reason, those not begun; the exit code is the reason's."""

    def fail():
        raise CommandError("the broker is away", EXIT_UNREACHABLE)

    made = []
    steps = [
        Step("a", StepState.STANDS),
        Step("b", StepState.CREATE, act=lambda: made.append("b")),
        Step("c", StepState.CREATE, act=lambda: "c: this store has none"),
        Step("d", StepState.CREATE, act=fail),
        Step("e", StepState.CHANGE, act=lambda: made.append("e")),
    ]
    told = []
    with pytest.raises(CommandError) as caught:
        carry_out(ConnectionPlan(StoreKind.CEPH, steps, dict), told.append)
    assert made == ["b"]
    assert caught.value.exit_code == EXIT_UNREACHABLE
    assert str(caught.value).startswith(
        "step 4 failed: the broker is away; done before it: 2; not begun: 5; run it again"
    )
    assert told == ["2. b: done", "3. c: this store has none"]
