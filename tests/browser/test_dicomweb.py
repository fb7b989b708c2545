"""A viewer on another page, in a real Chromium, over dicomweb-client of JavaScript, which somebody else wrote.

Its browser asks before almost every request whether the gateway allows it (CORS): for the API key, and for quotation
marks in an Accept.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

from pydicom.uid import RLELossless

from browser.conftest import MODULES
from browser.stories import told
from conftest import missing
from integration.gateway_kit import opened, settings_for
from unit.gateway.dicomweb.catalogue_kit import catalogue, ct, encoded
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIBRARY = MODULES / "dicomweb-client" / "build"
OCTETS = 16 * 16 * 2
"""A frame of the slices here, in bytes."""


class Quiet(SimpleHTTPRequestHandler):
    """Gives files of a folder, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def another_page() -> Iterator[str]:
    """Serve the library's folder: the page of a viewer, with an origin of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(LIBRARY))) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def talk(chromium: str, folder: Path, page: str) -> dict[str, object]:
    """Let the page talk to a gateway that asks who calls; return what it saw."""
    settings = settings_for(folder, gateway_auth="on", gateway_cors_origins=[page])
    slices = [ct(number=number) for number in (2, 1)]
    packed = ct(study="1.2.9", series="1.2.9.1")
    packed.compress(RLELossless, generate_instance_uid=False)
    async with opened(settings) as gateway, serve(gateway, "127.0.0.1", 0) as port:
        uids, _ = [await catalogue(gateway, one) for one in slices]
        _, key = await gateway.keys.create("viewer", Role.UPLOADER, None, by="test")
        order = {
            "page": page,
            "gateway": f"http://127.0.0.1:{port}",
            "key": key,
            "chromium": chromium,
            "profile": str(folder / "profile"),
            "uids": uids,
            "compressed": await catalogue(gateway, packed),
            "file": base64.b64encode(encoded(ct(study="1.2.10", series="1.2.10.1"))).decode(),
        }
        seen = await told("dicomweb.mjs", order)
    expected = {
        "uids": uids,
        "files": [hashlib.sha256(encoded(one)).hexdigest() for one in reversed(slices)],
        "pixels": hashlib.sha256(slices[0].PixelData).hexdigest(),
    }
    return {**seen, "expected": expected}


async def test_a_viewer_on_another_page_searches_reads_and_stores(chromium, tmp_path):
    """Bytes and pixels are those that were stored; refusals can be read too; nothing else is refused."""
    if not LIBRARY.is_dir():
        missing("the page's modules are not there as its lock has them (make page)")
    with another_page() as page:
        seen = await talk(chromium, tmp_path, page)
    expected = seen["expected"]

    assert sorted(seen["studies"]) == ["1.2.3", "1.2.9"]
    assert (seen["nothing"], seen["series"], seen["instances"]) == ([], ["1.2.3.4"], [1, 2])
    assert expected["uids"][2] in seen["metadata"]
    assert seen["all"] == expected["files"]
    assert seen["one"] == expected["files"][1]
    assert seen["progress"]
    assert seen["frames"] == [expected["pixels"]] * 2
    assert seen["decoded"] == OCTETS
    assert 0 < seen["stored"] == seen["either"] != OCTETS
    assert seen["rendered"] == seen["thumbnail"] == [32, 32]
    assert len(seen["kept"]) == 1
    assert seen["refused"] == [[404, "Not found"]]
