"""Check CSV files by the rules of Table Schema that Camtrap DP uses (https://specs.frictionlessdata.io/table-schema/)."""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parent / "camtrap-dp-1.0.2"
_TYPES = {"string": str, "number": float, "integer": int, "any": str}


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, strict=True))


def errors(folder: Path) -> list[str]:
    """Return what is wrong with the tables of a package; nothing for a valid one."""
    found: list[str] = []
    tables = {name: rows_of(folder / f"{name}.csv") for name in ("deployments", "media", "observations")}
    for name, rows in tables.items():
        schema = json.loads((SCHEMAS / f"{name}-table-schema.json").read_text())
        with (folder / f"{name}.csv").open() as file:
            if next(csv.reader(file)) != [field["name"] for field in schema["fields"]]:
                found.append(f"{name}: header")
        for field in schema["fields"]:
            values = [row[field["name"]] for row in rows]
            found += [f"{name}.{field['name']}: {why}" for value in values if (why := _wrong(value, field))]
            if field.get("constraints", {}).get("unique") and len(set(values)) < len(values):
                found.append(f"{name}.{field['name']}: not unique")
        for key in schema.get("foreignKeys", ()):
            other = {row[key["reference"]["fields"]] for row in tables[key["reference"]["resource"]]}
            own = {row[key["fields"]] for row in rows} - {""}
            found += [f"{name}.{key['fields']}: unknown {value}" for value in sorted(own - other)]
    return found


def _wrong(value: str, field: dict[str, Any]) -> str:
    rules = field.get("constraints", {})
    number: Any = None
    if value == "":
        return "required" if rules.get("required") else ""
    try:
        if field["type"] == "datetime":
            datetime.strptime(value, field["format"])
        elif field["type"] == "boolean":
            return "" if value in ("true", "false") else f"not a boolean: {value}"
        else:
            number = _TYPES[field["type"]](value)
    except ValueError:
        return f"not a {field['type']}: {value}"
    checks = {
        "enum": lambda rule: value in rule,
        "minimum": lambda rule: number >= rule,
        "maximum": lambda rule: number <= rule,
        "pattern": lambda rule: re.search(rule, value) is not None,
    }
    broken = [rule for rule in rules if rule in checks and not checks[rule](rules[rule])]
    return f"{', '.join(broken)}: {value}" if broken else ""
