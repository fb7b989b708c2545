"""The gateway's page for operators lists its settings as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared.settings import SharedSettings

README = Path(__file__).parents[3] / "services" / "gateway" / "README.md"
OWN = {name for name in GatewaySettings.model_fields if name not in SharedSettings.model_fields} | {"port"}


def test_every_setting_stands_in_the_readme_with_its_default() -> None:
    """And no other; an empty default is `none`."""
    rows = README.read_text().partition("## Settings")[2]
    listed = {
        name.lower(): default
        for name, default in re.findall(r"^\| `VOXELMILL_(\w+)` \| `?(.*?)`? \|", rows, re.MULTILINE)
    }
    defaults = {name: GatewaySettings.model_fields[name].get_default(call_default_factory=True) for name in OWN}
    written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in defaults.items()}
    assert listed == {name: value or "none" for name, value in written.items()}


def test_the_settings_of_the_gateway_say_so() -> None:
    """Services share one environment: a name of its own begins with the service's."""
    assert all(name.startswith("gateway_") for name in OWN - {"port"})
