"""From a URL to a transport."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.rabbit import RabbitTransport

if TYPE_CHECKING:
    from voxelmill_shared.transport.base import Transport


def open_transport(url: str) -> Transport:
    """Make the transport that a URL names. Nothing is opened or connected before the first call.

    Parameters
    ----------
    url
        `embedded:///absolute/path`, `embedded:relative/path` (to the working directory of now), or
        `amqp://user:password@host:port/vhost`, `amqps://…`.

    Raises
    ------
    ValueError
        If the URL is of no known kind.
    """
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        path = unquote(parts.path)
        if parts.netloc or not path or path.endswith("/"):
            raise ValueError(f"{url}: write embedded:///absolute/path or embedded:relative/path, naming a file")
        return EmbeddedTransport(Path(path))
    if parts.scheme in ("amqp", "amqps"):
        if not parts.hostname:
            raise ValueError(f"{parts.scheme}: the URL names no host; write {parts.scheme}://user:password@host/vhost")
        return RabbitTransport(url)
    raise ValueError(f"{parts.scheme or url}: unknown kind of broker; write embedded:///path or amqp://host/vhost")
