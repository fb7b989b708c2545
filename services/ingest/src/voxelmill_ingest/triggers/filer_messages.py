"""The few messages of SeaweedFS's filer that we speak: package `filer_pb`, service `SeaweedFiler` of its filer.proto.

The numbers are those of the public `weed/pb/filer.proto`; what stands in a message and is not named here is passed
over. The messages are described here and not in a generated module (docs/adr/0017). The pool is our own, so that
another library in this process may know `filer_pb` too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "filer_pb"
SUBSCRIBE = f"/{PACKAGE}.SeaweedFiler/SubscribeMetadata"
"""Tells what is new and, before that, all since a moment. (`SubscribeLocalMetadata` tells one filer's own changes.)"""

_KINDS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "fixed32": FieldDescriptorProto.TYPE_FIXED32,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}

MESSAGES = {
    "SubscribeMetadataRequest": """
        client_name 1 string
        path_prefix 2 string
        since_ns 3 int64
        client_id 7 int32
        client_epoch 9 int32
        client_supports_batching 11 bool
        client_supports_idle_heartbeat 13 bool
    """,
    "SubscribeMetadataResponse": """
        directory 1 string
        event_notification 2 EventNotification
        ts_ns 3 int64
        events 4 *SubscribeMetadataResponse
    """,
    "EventNotification": """
        old_entry 1 Entry
        new_entry 2 Entry
        new_parent_path 4 string
    """,
    "Entry": """
        name 1 string
        is_directory 2 bool
        chunks 3 *FileChunk
        attributes 4 FuseAttributes
        extended 5 *Entry.ExtendedEntry
        content 9 bytes
    """,
    "Entry.ExtendedEntry": """
        key 1 string
        value 2 bytes
    """,
    "FileChunk": """
        file_id 1 string
        fid 7 FileId
    """,
    "FileId": """
        volume_id 1 uint32
        file_key 2 uint64
        cookie 3 fixed32
    """,
    "FuseAttributes": """
        file_size 1 uint64
        md5 14 bytes
    """,
}
"""The messages: for each field its name, its number and its kind, with `*` where it is repeated."""


def _describe() -> FileDescriptorProto:
    file = FileDescriptorProto(name="voxelmill/filer.proto", package=PACKAGE, syntax="proto3")
    described: dict[str, DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        parent, _, own_name = name.rpartition(".")
        message = (described[parent].nested_type if parent else file.message_type).add(name=own_name)
        message.options.map_entry = bool(parent)  # protobuf's way of writing a map
        described[name] = message
        for line in fields.strip().splitlines():
            field_name, number, kind = line.split()
            field = message.field.add(name=field_name, number=int(number))
            field.label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _KINDS:
                field.type = _KINDS[kind]
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{PACKAGE}.{kind}"
    return file


_pool = DescriptorPool()
_pool.Add(_describe())
SubscribeMetadataRequest: Any = GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.SubscribeMetadataRequest"))
SubscribeMetadataResponse: Any = GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.SubscribeMetadataResponse"))
