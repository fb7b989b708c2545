"""What AWS's library knows of the services' interfaces, without what no service of ours needs.

The library reads it from files: 11 MiB of objects for S3 alone. Most of that are texts for people, the regions of three
hundred other services, and ordered dictionaries, which take twice what plain ones do (and those keep their order too).
Without them an idle ingest has 9 MiB less.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from aiobotocore.session import get_session
from botocore.loaders import JSONFileLoader, Loader

SERVICES = frozenset({"s3", "sqs", "sts", "sso", "oidc", "portal.sso"})
"""Whose regions are known: those that we ask, and those that credentials may come from. For any other service the
library would take the usual form of an address, `SERVICE.REGION.amazonaws.com`."""


@cache
def descriptions() -> Loader:
    """Return what all sessions of this process share, read when it is first asked for."""
    more = get_session().get_config_variable("data_path")  # AWS_DATA_PATH: descriptions of a site's own
    found = [str(Path(path).expanduser()) for path in more.split(":")] if more else None
    return Loader(extra_search_paths=found, file_loader=_LeanFiles())


class _LeanFiles(JSONFileLoader):  # type: ignore[misc] # botocore has no types
    """Reads the library's files; see there."""

    def load_file(self, file_path: str) -> Any:
        """Return what is in a file, whose name is given without its ending; None if there is none."""
        for path, opened in ((Path(f"{file_path}.json"), Path.open), (Path(f"{file_path}.json.gz"), gzip.open)):
            if path.is_file():
                with opened(path, "rb") as file:
                    return json.loads(file.read(), object_hook=_lean)
        return None


def _lean(found: dict[str, Any]) -> dict[str, Any]:
    """Empty in one JSON object what nobody asks for."""
    if isinstance(found.get("documentation"), str):
        found["documentation"] = ""  # the library asks for the key
    if "regionRegex" in found and isinstance(services := found.get("services"), dict):  # a partition in endpoints.json
        found["services"] = {name: about for name, about in services.items() if name in SERVICES}
    return found
