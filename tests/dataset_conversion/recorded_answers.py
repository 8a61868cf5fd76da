"""What upstream answered; see tests/recorded/make_conversion.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[1] / "recorded" / "conversion.json"


def recorded(topic: str) -> Any:
    return json.loads(_FILE.read_text(encoding="utf-8"))[topic]
