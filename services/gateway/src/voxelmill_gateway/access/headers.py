"""The headers of every answer that keep a browser from doing more with it than we meant."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders

from voxelmill_shared.errors import TransientError
from voxelmill_shared.storage.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from voxelmill_gateway.settings import GatewaySettings
    from voxelmill_shared.storage.stores import Stores

DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For what is no page: opened by itself it loads and runs nothing."""
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_A_SECOND: Final = timedelta(seconds=1)
_RUNS: Final = ("text/html", "text/javascript", "application/javascript")
"""What has a policy of its own in a browser: pages, and the scripts that workers are made of (CSP 3, 4.2.1)."""


class BucketOrigins:
    """Where browsers reach the buckets that uploads go to and results come from: the origins of signed addresses.

    Parameters
    ----------
    stores
        The installation's.
    settings
        Whether browsers are sent there at all.
    """

    def __init__(self, stores: Stores, settings: GatewaySettings) -> None:
        used = ((stores.inbox, settings.gateway_upload_direct), (stores.results, settings.gateway_redirect))
        self._stores = [store for store, direct in used if direct and isinstance(store, S3Store)]
        self._known: tuple[str, ...] | None = None

    async def __call__(self) -> tuple[str, ...]:
        """Return them; none while the store cannot say, which it can without being contacted."""
        if self._known is None:
            try:
                addresses = [urlsplit(await store.presign("x", _A_SECOND)) for store in self._stores]
            except TransientError:
                return ()
            self._known = tuple(sorted({f"{address.scheme}://{address.netloc}" for address in addresses}))
        return self._known


def page_policy(origins: Iterable[str]) -> str:
    """Return the policy of the page (Content Security Policy Level 3).

    Scripts and styles are our own files. WebAssembly may be compiled; volumes and meshes are read from blobs, and small
    workers are made of them. Nothing else is loaded, framed or sent to.

    Parameters
    ----------
    origins
        Where else pictures and files may come from, and uploads go to.
    """
    others = "".join(f" {origin}" for origin in origins)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "style-src 'self'",
            f"img-src 'self' blob: data:{others}",
            f"connect-src 'self' blob: data:{others}",
            "worker-src 'self' blob:",
            "font-src 'self' data:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


class SecurityHeaders:
    """Adds them, and says of what no route speaks of that nobody may keep it without asking again."""

    def __init__(self, app: ASGIApp, buckets: BucketOrigins) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; change the head of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                runs = headers.get("content-type", "").startswith(_RUNS)
                policy = page_policy(await self._buckets()) if runs else DATA_POLICY
                headers["Content-Security-Policy"] = policy
                headers.setdefault("Cache-Control", "private, no-cache")
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        await self._app(scope, receive, with_headers)
