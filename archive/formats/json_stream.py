"""Write the items of a JSON array one by one, a line each, so that no array is in memory."""

from __future__ import annotations

import json
from typing import IO, Any


def dump(file: IO[str], item: Any, first: bool) -> None:
    """Write an item of an array on a new line."""
    file.write("\n" if first else ",\n")
    file.write(json.dumps(item, ensure_ascii=False, allow_nan=False))
