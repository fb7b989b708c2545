"""SeaweedFS's filer as a stream of changes, over gRPC. Importing this costs 20 MB: only who listens to a filer does."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from voxelmill_ingest.triggers.filer_entries import FilerEntry, uploaded
from voxelmill_ingest.triggers.filer_messages import SUBSCRIBE, SubscribeMetadataRequest, SubscribeMetadataResponse
from voxelmill_ingest.triggers.reach import SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from voxelmill_ingest.triggers.notification import Notification

SETTLE_SECONDS = 2.0
"""How long a subscription must stand to count as open. A filer of today shows at once that it is alive; older ones say
nothing until something changes."""
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),  # an entry lists the chunks of its file
    ("grpc.keepalive_time_ms", 75_000),  # the filer takes more than one in 60 s as an attack and hangs up
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_http_proxy", 0),  # a filer is a neighbour, never behind the proxy to the internet
    ("grpc.use_local_subchannel_pool", 1),  # a connection that failed elsewhere does not make this one wait
]


@dataclass(frozen=True, slots=True)
class Change:
    """One change in the filer's tree, and the object that it brought, if it brought one.

    `ts_ns` is the filer's time of it, in nanoseconds since 1970; 0 where the filer only shows that it is alive.
    """

    ts_ns: int
    notification: Notification | None


@dataclass(slots=True)
class FilerStream:
    """Subscriptions to one filer.

    Parameters
    ----------
    address
        `host:port` of the filer's gRPC.
    path_prefix
        Only changes of paths that begin with it are told.
    credentials
        For a filer that speaks TLS alone; without them nothing is encrypted.
    """

    address: str
    path_prefix: str
    credentials: grpc.ChannelCredentials | None = None
    _client_id: int = field(default_factory=lambda: 1 + secrets.randbelow(2**31 - 1))
    _epoch: int = 0

    async def changes(self, since_ns: int) -> AsyncGenerator[Change, None]:
        """Give every change from a moment on, that moment's included, and go on with what happens.

        Raises
        ------
        SourceUnavailableError
            If the filer cannot be reached, or when it ends the stream: it never ends otherwise.
        """
        # A filer that still holds the last subscription lets a later one of the same client replace it.
        self._epoch += 1
        request = SubscribeMetadataRequest(
            client_name="voxelmill",
            path_prefix=self.path_prefix,
            since_ns=since_ns - 1,  # older filers tell only what is later
            client_id=self._client_id,
            client_epoch=self._epoch,
            client_supports_batching=True,
            client_supports_idle_heartbeat=True,
        )
        async with self._channel() as channel:
            try:
                async for change in _read(channel, request):
                    yield change
            except grpc.aio.AioRpcError as error:
                raise SourceUnavailableError(f"{error.code().name}: {error.details()}") from None
        raise SourceUnavailableError("it ended the stream")

    def _channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, _OPTIONS)
        return grpc.aio.secure_channel(self.address, self.credentials, _OPTIONS)


async def _read(channel: grpc.aio.Channel, request: Any) -> AsyncGenerator[Change, None]:
    subscribe = channel.unary_stream(
        SUBSCRIBE,
        request_serializer=SubscribeMetadataRequest.SerializeToString,
        response_deserializer=SubscribeMetadataResponse.FromString,
    )
    call = subscribe(request)
    reading = asyncio.ensure_future(call.read())
    try:
        is_open = False
        while not (is_open or reading.done()):
            await asyncio.wait({reading}, timeout=SETTLE_SECONDS)
            is_open = channel.get_state() is grpc.ChannelConnectivity.READY
        if not reading.done():
            yield Change(0, None)
        response = await reading
        while response is not grpc.aio.EOF:
            for one in (response, *response.events):
                yield _change(one)
            response = await call.read()
    finally:
        reading.cancel()
        call.cancel()


def _change(response: Any) -> Change:
    """Read one message. A sign of life has a time of its own, which says nothing of what has been told."""
    if not response.HasField("event_notification"):
        return Change(0, None)
    event = response.event_notification
    old = _entry(response.directory, event.old_entry) if event.HasField("old_entry") else None
    new = _entry(event.new_parent_path, event.new_entry) if event.HasField("new_entry") else None
    return Change(response.ts_ns, uploaded(old, new))


def _entry(folder: str, entry: Any) -> FilerEntry:
    return FilerEntry.of(
        f"{folder}/{entry.name}",
        is_directory=entry.is_directory,
        size=entry.attributes.file_size or len(entry.content),
        md5=entry.attributes.md5,
        extended=entry.extended,
        data=(
            entry.content,
            *(
                (chunk.fid.volume_id, chunk.fid.file_key, chunk.fid.cookie) if chunk.HasField("fid") else chunk.file_id
                for chunk in entry.chunks
            ),
        ),
    )
