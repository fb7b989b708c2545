"""Whatever a bucket's server says is read as it means it, and nothing that anybody can send does more than be refused."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unit.ingest.notification_bodies import (
    ETAG,
    SPELLED,
    TEST_EVENT,
    aws,
    ceph,
    eventbridge,
    gcs,
    lambda_sqs,
    minio,
    s3_record,
    seaweedfs,
    sns,
)
from voxelmill_ingest.triggers.normaliser import load, normalise, parse
from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Müller é.dcm") for form in ("NFC", "NFD"))
KEYS = [
    "a",
    "p1/a b.dcm",
    "p1/a+b.dcm",
    "p1/a%2Bb%20c%.dcm",
    "p1/%C3%A9 %zz.dcm",
    COMPOSED,
    DECOMPOSED,
    "p1/肺 🫁.dcm",
    'p1/quote".dcm',
    "p1/?a=b&c#d;e\\f.dcm",
    "x" * 1024,
    "é" * 512,
    "🫁" * 256,
]
KEYS_OF_S3 = ["a//b", "/a", "a/", "//", " a ", "+", "%", "a\tb", "a\nb"]
"""Keys that S3 has and a folder of SeaweedFS cannot have, or not so."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1024)
KEY = TEXT.filter(lambda key: len(key.encode()) <= 1024)


def spelled(source, key):
    """Give the body, as bytes, and through them what was read of it."""
    (told,) = parse(json.dumps(SPELLED[source](key)).encode())
    return told


@pytest.mark.parametrize("source", SPELLED)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_comes_out_as_it_was_put(source, key):
    """Spaces, `+`, `%`, accents in both forms, emoji and 1,024 bytes survive every source's spelling."""
    told = spelled(source, key)
    assert (told.bucket, told.key) == ("inbox", key)


@pytest.mark.parametrize("source", sorted(SPELLED.keys() - {"seaweedfs"}))
@pytest.mark.parametrize("key", KEYS_OF_S3)
def test_a_key_with_empty_parts_comes_out_as_it_was_put(source, key):
    """Slashes at the beginning, at the end and side by side are part of a key."""
    assert spelled(source, key).key == key


@pytest.mark.parametrize("source", sorted(SPELLED.keys() - {"seaweedfs"}))
@given(key=KEY)
@settings(max_examples=40, deadline=None)
def test_any_key_comes_out_as_it_was_put(source, key):
    """Any text of up to 1,024 bytes of UTF-8, through every source's spelling."""
    assert spelled(source, key).key == key


PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda part: part not in {".", "..", ".uploads"}
)


@given(parts=st.lists(PART, min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_path_of_seaweedfs_comes_out_as_it_was_put(parts):
    """SeaweedFS spells a key as a path; its parts are never empty."""
    assert spelled("seaweedfs", "/".join(parts)).key == "/".join(parts)


def test_two_forms_of_one_accent_are_two_keys():
    """NFC and NFD look alike and name two objects."""
    assert spelled("aws", COMPOSED).key != spelled("aws", DECOMPOSED).key


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (aws("k", versionId="v9"), "v9"),
        (aws("k", versionId="null"), None),
        (aws("k"), None),
        (minio("k"), None),
        (ceph("k"), None),
        (ceph("k", versionId="om5f01"), "om5f01"),
        (eventbridge("k"), "v1"),
        (gcs("k"), "1700"),
        (seaweedfs("k"), None),
    ],
)
def test_what_is_known_of_the_content_comes_along(body, version):
    """Size in bytes, the ETag as S3 writes it and the version, however they are spelled."""
    assert normalise(body) == [Notification("inbox", "k", ETAG, 7, version)]


@pytest.mark.parametrize("event", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
@pytest.mark.parametrize("make", [lambda event: aws("k", event=event), lambda event: minio("k", event=f"s3:{event}")])
def test_the_four_ways_to_upload_are_uploads(make, event):
    """Put, Post, Copy and the end of a multipart upload."""
    assert len(normalise(make(f"ObjectCreated:{event}"))) == 1


@pytest.mark.parametrize(
    "body",
    [
        TEST_EVENT,
        sns(TEST_EVENT),
        {"Records": []},
        *(
            aws("k", event=event)
            for event in (
                "ObjectRemoved:Delete",
                "ObjectRemoved:DeleteMarkerCreated",
                "ObjectTagging:Put",
                "ObjectRestore:Completed",
                "LifecycleTransition",
            )
        ),
        *(
            minio("k", event=f"s3:ObjectCreated:{action}")
            for action in ("PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold")
        ),
        minio("k", event="s3:ObjectAccessed:Get"),
        {"EventName": "s3:ObjectRemoved:Delete", "Key": "inbox/k"},
        eventbridge("k", kind="Object Deleted"),
        eventbridge("k", kind="Object Tags Added"),
        *(gcs("k", event=event) for event in ("OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE")),
        {"event_type": "delete", "key": "/buckets/inbox/k", "message": {"old_entry": {"name": "k"}}},
        seaweedfs(".uploads/0a1b/0001.part"),
    ],
)
def test_what_is_no_upload_is_ignored(body):
    """Deletions, tags, retention, restores and tests are sound, and tell of nothing to read."""
    assert normalise(body) == []


def test_every_record_of_a_body_is_read():
    """What is no upload among them is left out, and the order stays."""
    records = [
        s3_record("aws:s3", "a"),
        s3_record("aws:s3", "b", event="ObjectRemoved:Delete"),
        s3_record("ceph:s3", "c+d", version="2.2"),
    ]
    assert [told.key for told in normalise({"Records": records})] == ["a", "c+d"]
    bodies = {"Records": [*lambda_sqs(aws("a"))["Records"], *lambda_sqs(sns(aws("b")))["Records"]]}
    assert [told.key for told in normalise(bodies)] == ["a", "b"]


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.6", "2.99"])
def test_minor_versions_add_fields(version):
    """Any 2.x is read; what it adds is not looked at."""
    assert len(normalise(aws("k", version=version, newField={"x": 1}))) == 1


@pytest.mark.parametrize(
    ("stored", "size", "etag"),
    [
        ({"size": "7"}, 7, ETAG),
        ({"size": -1}, 0, ETAG),
        ({"size": 1e300}, 0, ETAG),
        ({"size": True}, 0, ETAG),
        ({"size": 2**64}, 0, ETAG),
        ({"size": "9" * 30}, 0, ETAG),
        ({"size": None}, 0, ETAG),
        ({"eTag": f'"{ETAG}"'}, 7, ETAG),
        ({"eTag": f"{ETAG}-2"}, 7, f"{ETAG}-2"),
        ({"eTag": 5}, 7, ""),
        ({"eTag": "x" * 2000}, 7, ""),
        ({"eTag": "a\nb"}, 7, ""),
    ],
)
def test_hints_that_make_no_sense_are_left_out(stored, size, etag):
    """Only bucket and key must be right: ingest looks at the object itself."""
    (told,) = normalise(aws("k", **stored))
    assert (told.key, told.size, told.etag) == ("k", size, etag)


def test_a_description_that_cannot_be_read_is_left_out():
    """Pub/Sub's attributes name the object; without its description there are no hints."""
    for data in ("", "%%%", "é", "bm8ganNvbg==", None, 5):
        assert normalise({**gcs("k"), "data": data}) == [Notification("inbox", "k", "", 0, "1700")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is no JSON: Expecting value (character 0)"),
        (b"{", "the body is no JSON"),
        (b"\xff\xfe\xfa", "the body is not UTF-8"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"a":' * 100_000, "the body is nested too deeply"),
        (b"9" * 10_000, "the body has a number of too many digits"),
        (b'{"size": NaN}', "the body has NaN or Infinity"),
        (b'{"size": -Infinity}', "the body has NaN or Infinity"),
        (b"[]", "the body is a list, not an object"),
        (b"null", "the body is missing, not an object"),
        (b'"text"', "the body is text, not an object"),
        (b"{}", "the body is no notification of a shape that is known here"),
        (b'{"Records": "x"}', "Records is text, not a list"),
        (b'{"Records": {}}', "Records is an object, not a list"),
        (b'{"Records": [1]}', "Records[0] is a number, not an object"),
        (b'{"Records": [{}]}', "Records[0].eventSource (missing) is none of aws:s3, minio:s3, rustfs:s3, ceph:s3"),
        (b'{"Records": [{"data": 1}]}', "Records[0].data is a number, not an object"),
        (b'{"Type": "Notification", "TopicArn": "t", "Message": 5}', "Message is a number, not text"),
        (b'{"Type": "Notification", "TopicArn": "t", "Message": "{"}', "Message: the body is no JSON"),
        (b'{"Type": "Something", "TopicArn": "t"}', "SNS message of the type 'Something'"),
    ],
)
def test_what_is_not_understood_is_refused_with_one_line(body, reason):
    """The line says what is wrong."""
    with pytest.raises(UnknownNotificationError) as refused:
        parse(body)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (aws("k", version="3.0"), "Records[0].eventVersion '3.0' is not 2.x"),
        (aws("k", version=2), "Records[0].eventVersion (a number) is not 2.x"),
        (
            {"Records": [s3_record("aws:s3", "k"), s3_record("oss:s3", "k")]},
            "Records[1].eventSource 'oss:s3' is none of",
        ),
        (
            {"Records": [s3_record("aws:s3", "%FF")]},
            "Records[0].s3.object.key is not UTF-8 once its URL encoding is undone",
        ),
        ({"Records": [s3_record("ceph:s3", "\ud83e")]}, "Records[0].s3.object.key is not Unicode text"),
        ({"Records": [s3_record("aws:s3", "")]}, "Records[0].s3.object.key is empty"),
        ({"Records": [s3_record("aws:s3", 5)]}, "Records[0].s3.object.key is a number, not text"),
        (aws("k", bucket=""), "Records[0].s3.bucket.name is empty"),
        ({"Records": [{**s3_record("aws:s3", "k"), "s3": []}]}, "Records[0].s3 is a list, not an object"),
        ({"Records": [{**s3_record("aws:s3", "k"), "eventName": None}]}, "Records[0].eventName is missing, not text"),
        (eventbridge("k", source="my.app"), "EventBridge's source 'my.app' is not 'aws.s3'"),
        (eventbridge("k", kind="AWS API Call via CloudTrail"), "an event of CloudTrail"),
        ({**gcs("k"), "attributes": {"eventType": "OBJECT_FINALIZE"}}, "attributes.bucketId is missing"),
        (
            {"event_type": "create", "key": "/buckets/b/k", "message": {"new_entry": 5}},
            "not a notification of SeaweedFS",
        ),
        ({"EventName": "s3:ObjectCreated:Put"}, "Key is missing, not text"),
        ({"EventName": "s3:ObjectCreated:Put", "Key": "inbox"}, "the key is empty"),
        (sns(sns(sns(sns(sns(aws("k")))))), "more than 4 envelopes"),
    ],
)
def test_a_part_that_is_wrong_is_named(document, reason):
    """A version, a source or a field that nobody knows here ends in the error, and so does a key that is none."""
    with pytest.raises(UnknownNotificationError) as refused:
        normalise(document)
    assert reason in str(refused.value)


def test_an_error_never_repeats_what_was_sent():
    """What is not understood could be anybody's data: a patient's name in a field must not reach a log."""
    name = "Doe^Jane 1970"
    for document in (
        aws("k", version=name),
        {"Records": [s3_record(name, "k")]},
        eventbridge("k", source=name),
        {"Type": name, "TopicArn": name},
        {name: name},
        {"event_type": "create", "key": name, "message": {"new_entry": {"name": name, "content": name}}},
    ):
        with pytest.raises(UnknownNotificationError) as refused:
            normalise(document)
        assert "Doe" not in str(refused.value)
    with pytest.raises(UnknownNotificationError) as refused:
        parse(f'{{"PatientName": {name}')
    assert "Doe" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
BODIES = [make("p1/k") for make in SPELLED.values()]


def places_in(document, path=()):
    """Every place of a document, as a path of keys and indices."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in inner:
        yield from places_in(value, (*path, name))


def replaced(document, path, value):
    """Give a copy of a document with another value in one place."""
    if not path:
        return value
    first, *rest = path
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[first] = replaced(document[first], rest, value)
    return copy


def read_or_refused(body):
    """Read a body as a source would; only one error may come, and what is told must fit an event."""
    try:
        told = parse(body)
    except UnknownNotificationError as error:
        reason = str(error)
    else:
        reason = "sound"
        told_fit_events(told)
    assert len(reason.splitlines()) == 1


def told_fit_events(told):
    """Hold what was told to what an event can carry."""
    for one in told:
        assert one.key.encode()
        assert one.bucket.encode()
        assert 0 <= one.size < 2**63


@given(data=st.data(), value=JSON)
@settings(max_examples=600, deadline=None)
def test_a_body_with_a_wrong_part_is_read_or_refused(data, value):
    """Any value in any place of any shape: numbers that are none, lone surrogates, wrong types."""
    body = data.draw(st.sampled_from(BODIES))
    path = data.draw(st.sampled_from(list(places_in(body))))
    read_or_refused(json.dumps(replaced(body, path, value)))


@given(body=st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example(b'{"Records":[{"eventSource":"\\ud800"}]}')
@example(b'{"size":1e999}')
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(body):
    """Nothing else than the one error comes of them."""
    read_or_refused(body)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_body_that_was_cut_or_damaged_is_read_or_refused(data):
    """A real body without its end, or with other bytes in it."""
    body = bytearray(json.dumps(data.draw(st.sampled_from(BODIES)), ensure_ascii=False).encode())
    del body[data.draw(st.integers(0, len(body))) :]
    for _ in range(min(3, len(body))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(body))


@pytest.mark.parametrize("depth", [10, 200, 900, 990, 5000])
def test_a_deep_value_in_a_sound_body_does_no_harm(depth):
    """However deep what nobody looks at is nested, the body is read or refused."""
    deep = "[" * depth + "]" * depth
    body = json.dumps(aws("k")).replace('"0A1B2C"', deep)
    read_or_refused(body)
    read_or_refused(json.dumps(seaweedfs("k")).replace('"mtime": 1', f'"mtime": {deep}'))


def test_numbers_beyond_all_bounds_are_infinite_and_no_size():
    """JSON has no bound for numbers."""
    document = load(json.dumps(aws("k")).replace('"size": 7', '"size": 1e999'))
    assert normalise(document)[0].size == 0
