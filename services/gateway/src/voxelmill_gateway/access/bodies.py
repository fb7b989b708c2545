"""How large a request may be, whether it says so or only goes on and on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from voxelmill_gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from voxelmill_gateway.access.settings import AccessSettings

_TITLE = "Content Too Large"
BODY_SECONDS: Final = 120.0
"""How long the body of a request may take that is no upload: 8 MiB at half a Mbit/s, and no stranger for ever."""

_CLOSE: Final = {"Connection": "close"}


def is_upload(method: str, path: str) -> bool:
    """Whether a request brings data that go into the store piece by piece, and are never held whole."""
    return (method == "PUT" and path.startswith("/uploads/")) or (
        method == "POST" and (path in {"/upload", "/dicomweb/studies"} or path.startswith("/dicomweb/studies/"))
    )


class BodySize:
    """Refuses a body that is too large: before it is read where it says so, else where it passes the bound."""

    def __init__(self, app: ASGIApp, settings: AccessSettings) -> None:
        self._app = app
        self._most = settings.gateway_body_bytes
        self._most_of_upload = settings.gateway_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = is_upload(scope["method"], scope["path"])
        most = self._most_of_upload if upload else self._most
        name = "VOXELMILL_GATEWAY_UPLOAD_BYTES" if upload else "VOXELMILL_GATEWAY_BODY_BYTES"
        detail = f"the body may have {most} bytes ({name}); send less at a time"
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > most:
            await Problem(413, _TITLE, detail).response()(scope, receive, send)
            return
        received, whole = 0, upload
        until = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal received, whole
            try:
                async with asyncio.timeout_at(None if whole else until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not come in time; send it again", _CLOSE) from None
            whole = whole or not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > most:
                # This kind passes through everything that reads bodies, and is answered as a problem document.
                raise HTTPException(413, detail)
            return message

        await self._app(scope, counted, send)
