"""Make the controls of a form from the JSON schema of a pydantic model.

fields_of(SmallSizeConfig, values) -> the fields for `templates/form.html`; `static/actions.js` sends their values

Only pydantic validates. Schemas without an own control are edited as JSON, so that each new filter has a form.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

EMPTY_ROWS = 3
"""Empty rows of a mapping, for new entries; a row without a key is dropped."""
RADIOS = 4
"""Maximum number of choices that are shown as radio buttons."""
_BOUNDS = {
    "minimum": "min",
    "maximum": "max",
    "exclusiveMinimum": "min",
    "exclusiveMaximum": "max",
    "maxLength": "maxlength",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One control. `value` is text, a bool, (label, is checked) pairs, or (key, value) pairs, depending on `kind`.

    Kinds: number, text, switch, radio, select, labels, lines, rows, json.
    """

    name: str
    kind: str
    help: str
    value: Any
    is_optional: bool = False
    choices: tuple[str, ...] = ()
    bounds: Mapping[str, float | str] | None = None
    schema: str = ""


def fields_of(
    model: type[BaseModel], values: Mapping[str, Any] | None = None, labels: Sequence[str] = ()
) -> list[Field]:
    """Return the fields of a model without constants; `values` replace the defaults, `labels` are those in use."""
    fields = list[Field]()
    for name, (schema, is_optional) in _schemas(model).items():
        value, help_ = (values or {}).get(name, schema.get("default")), schema["description"]
        kind, more = _kind(name, schema), dict[str, Any]()
        if kind in ("number", "text"):
            whole = schema["type"] == "integer"
            limits = {html: schema[of] for of, html in _BOUNDS.items() if of in schema}
            more["bounds"] = limits | ({"step": 1 if whole else "any"} if kind == "number" else {})
        elif kind in ("radio", "select"):
            more["choices"] = tuple(map(str, schema["enum"]))
        elif kind == "json":
            shown = {of: schema[of] for of in schema if of not in ("default", "description")}
            shown = schema["examples"][0] if "examples" in schema else shown
            more["schema"] = json.dumps(shown, indent=1, ensure_ascii=False)
        fields.append(Field(name, kind, help_, _shown(kind, value, labels), is_optional, **more))
    return fields


def _schemas(model: type[BaseModel]) -> dict[str, tuple[dict[str, Any], bool]]:
    """Return the schema of each field and whether it may be empty: $ref resolved, null dropped, constants left out."""
    whole = model.model_json_schema()
    found: dict[str, tuple[dict[str, Any], bool]] = {}
    for name, schema in whole["properties"].items():
        parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
        is_optional = len(parts) < len(schema.get("anyOf", ()))
        outer = {of: schema[of] for of in schema if of != "anyOf"} if len(parts) == 1 else schema
        resolved = _resolved(outer | (parts[0] if len(parts) == 1 else {}), whole.get("$defs", {}))
        if "const" not in resolved:
            found[name] = ({"description": ""} | resolved, is_optional)
    return found


def _resolved(schema: Any, definitions: Mapping[str, Any], inside: Collection[str] = ()) -> Any:
    """Replace each $ref by its definition, except within itself."""
    if isinstance(schema, list):
        return [_resolved(part, definitions, inside) for part in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions and name not in inside:
        rest = {of: schema[of] for of in schema if of != "$ref"}
        return _resolved(definitions[name] | rest, definitions, (*inside, name))
    return {of: _resolved(part, definitions, inside) for of, part in schema.items()}


def _kind(name: str, schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "radio" if len(schema["enum"]) <= RADIOS else "select"
    match schema:
        case {"type": "boolean"}:
            return "switch"
        case {"type": "integer" | "number"}:
            return "number"
        case {"format": "path"}:  # sent as its content
            return "json"
        case {"type": "string"}:
            return "text"
        case {"type": "array", "items": {"type": "string"}}:
            return "labels" if name.endswith("labels") else "lines"
        case {"type": "object", "additionalProperties": {"type": "integer" | "number"}}:
            return "rows"
        case _:
            return "json"


def _shown(kind: str, value: Any, labels: Sequence[str]) -> Any:
    if value is None and kind in ("number", "text", "radio", "select", "json"):
        return ""
    if kind == "switch":
        return bool(value)
    if kind == "labels":
        chosen = list(dict.fromkeys(value or ()))
        return [(label, True) for label in chosen] + [(label, False) for label in labels if label not in chosen]
    if kind == "lines":
        return "\n".join(value or ())
    if kind == "rows":
        return [*(value or {}).items(), *[("", "")] * EMPTY_ROWS]
    if kind == "json":
        return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
    return str(value)
