"""Read the graph of a `.pt2` file as data.

Archive -> Signature (the program's input and outputs), Program

No text of the file is evaluated, imported or compiled. Names are only keys of a dict while it is read, only the sizes
of the input are used, and `operators.py` looks up operators.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# (torch is an extra, and has no complete types)

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch

from model_store.errors import ModelRefused
from model_store.runtimes.torch.archive import Archive, refuse
from model_store.runtimes.torch.operators import operator_of
from model_store.runtimes.torch.program import Program, Slot, Step, refuse_writing
from model_store.runtimes.torch.tensors import DTYPES, load_tensors

SCHEMA_MAJOR = 8
"""Supported major version of torch.export's format."""
SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")
"""A free size that is not a function of others."""
SOURCES = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
STRIDED = 7
"""The only supported memory layout; the others are sparse."""
GRAD = "torch.ops.higher_order.wrap_with_set_grad_enabled"
AUTOCAST = "torch.ops.higher_order.wrap_with_autocast"
"""Inner graphs: code under `torch.no_grad()`, and under `torch.autocast`."""


@dataclass(frozen=True)
class Signature:
    """Input and outputs. `shape` has None for a free length; `most` is the largest batch, if the file states one."""

    image: str
    shape: tuple[int | None, ...]
    dtype: Any
    most: int | None
    outputs: list[str]


def read_program(archive: Archive, device: str) -> tuple[Signature, Program]:
    """Read a program. Raises ModelRefused, or KeyError, TypeError and similar for a graph of another form."""
    if archive.program["schema_version"]["major"] != SCHEMA_MAJOR:
        refuse(f"its format is {archive.program['schema_version']}; {SCHEMA_MAJOR} is supported")
    module = archive.program["graph_module"]
    graph, specs = module["graph"], module["signature"]
    stored = load_tensors(archive.tensors, device)
    numbered = torch.empty(0, device=device).device  # cuda:0, as reported by tensors on cuda
    reader, weights, images = _Reader(numbered), list[Any](), list[str]()
    for kind, spec in map(_kind_and_value, specs["input_specs"]):
        if kind in SOURCES:
            reader.define(spec["arg"]["name"])
            weights.append(stored[spec[SOURCES[kind]]])
        else:
            images.append(spec["arg"]["as_tensor"]["name"] if kind == "user_input" else kind)
    if len(images) != 1:
        raise ModelRefused(f"the program has the inputs {images}; one image is needed")
    reader.define(images[0])
    reader.fixed = reader.slots
    reader.read(graph)
    if any(kind != "user_output" for kind, _ in map(_kind_and_value, specs["output_specs"])):
        refuse_writing()
    outputs = [reader.scope[output["as_tensor"]["name"]] for output in graph["outputs"]]
    return (_signature(archive.program, images[0], len(outputs)), Program(weights, reader.steps, outputs, reader.slots))


@dataclass
class _Reader:
    device: Any
    scope: dict[str, Slot] = field(default_factory=dict[str, Slot])
    steps: list[Step] = field(default_factory=list[Step])
    slots: int = 0
    fixed: int = 0
    """Number of the first slots, which hold weights and images."""

    def define(self, name: str) -> Slot:
        if name in self.scope:
            refuse(f"it has two values with the name {name}")
        self.scope[name] = Slot(self.slots)
        self.slots += 1
        return self.scope[name]

    def read(self, graph: Mapping[str, Any]) -> None:
        for node in graph["nodes"]:
            if node["target"] in (GRAD, AUTOCAST):
                self._read_within(node)
                continue
            named = {i["name"]: self._argument(i["arg"]) for i in node["inputs"]}
            operator = operator_of(node["target"], named)
            placed = list(takewhile(named.__contains__, operator.places))
            arguments = [named.pop(name) for name in placed]
            if operator.in_place and arguments[0].index < self.fixed:
                refuse_writing()
            results = [self._result(output) for output in node["outputs"]]
            single = results[0] if len(results) == 1 else results or None
            self.steps.append(Step(operator, arguments, named, single))

    def _read_within(self, node: Mapping[str, Any]) -> None:
        """Read an inner graph in line: its inputs and outputs are values of the outer graph."""
        given = [_kind_and_value(entry["arg"]) for entry in node["inputs"]]
        at = [kind for kind, _ in given].index("as_graph")
        if node["target"] == AUTOCAST and given[2] != ("as_bool", False):
            refuse("it converts types by torch.autocast")
        graph, outer = given[at][1]["graph"], self.scope
        values = [outer[_name(entry["arg"])] for entry in node["inputs"][at + 1 :]]
        self.scope = dict(zip(map(_name, graph["inputs"]), values, strict=True))
        self.read(graph)
        inner, self.scope = self.scope, outer
        for output, source in zip(node["outputs"], graph["outputs"], strict=True):
            self.scope[_name(output)] = inner[_name(source)]

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        kind, value = _kind_and_value(argument)
        match kind:
            case "as_none":
                return None
            case "as_int" | "as_bool" | "as_string" | "as_ints" | "as_bools":
                return value
            case "as_float":
                return float(value)  # "Infinity" is a string in the file
            case "as_floats":
                return [float(number) for number in value]
            case "as_name":
                return self.scope[value]
            case "as_tensor":
                return self.scope[value["name"]]
            case "as_tensors":
                return [self.scope[tensor["name"]] for tensor in value]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool" | "as_optional_tensor":
                return self._argument(value)
            case "as_sym_ints" | "as_sym_floats" | "as_sym_bools" | "as_optional_tensors":
                return [self._argument(inner) for inner in value]
            case "as_scalar_type":
                return DTYPES[value]
            case "as_memory_format":
                return FORMATS[value]
            case "as_layout" if value == STRIDED:
                return torch.strided
            case "as_device":
                return self.device
            case _:
                return refuse(f"an argument is {str(argument)[:100]}")

    def _result(self, output: Mapping[str, Any]) -> Any:
        kind, value = _kind_and_value(output)
        match kind:
            case "as_none":
                return None
            case "as_tensor" | "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return self.define(_name(output))
            case "as_tensors":
                return [self.define(tensor["name"]) for tensor in value]
            case _:
                return refuse(f"a result is {str(output)[:100]}")


def _signature(program: Mapping[str, Any], image: str, outputs: int) -> Signature:
    module = program["graph_module"]
    meta = module["graph"]["tensor_values"][image]
    shape = tuple(None if "as_expr" in size else _length(size["as_int"]) for size in meta["sizes"])
    (call,) = [e["signature"] for e in module["module_call_graph"] if e["fqn"] == ""]
    names = _output_names(json.loads(call["out_spec"])[1])
    if len(names) != outputs:
        refuse(f"it has {outputs} outputs but {len(names)} names of outputs")
    most = _max_batch(meta["sizes"][0], program["range_constraints"]) if meta["sizes"] else None
    return Signature(image, shape, DTYPES[meta["dtype"]], most, names)


def _length(number: Any) -> int:
    return number if type(number) is int and 0 < number < 1 << 31 else refuse(f"a size is {number}")


def _max_batch(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> int | None:
    """Return the export's limit of a free batch, or None."""
    symbol = SYMBOL.fullmatch(size["as_expr"]["expr_str"]) if "as_expr" in size else None
    limit = ranges.get(symbol[1], {}).get("max_val") if symbol else None
    return limit if type(limit) is int and 0 < limit < 1 << 20 else None


def _output_names(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the outputs. Raises ModelRefused for nested outputs."""
    kind, parts = spec["type"], spec["children_spec"]
    if kind is None:
        return ["output0"]
    if all(part["type"] is None for part in parts):
        if kind in ("builtins.tuple", "builtins.list"):
            return [f"output{i}" for i in range(len(parts))]
        if kind in ("builtins.dict", "collections.OrderedDict"):
            names = [str(key) for key in json.loads(spec["context"])]
            "".join(names).encode()  # raises for a lone surrogate
            return list(dict.fromkeys(names))
    raise ModelRefused(f"the program returns {spec}; a tensor, a list or a dict is needed"[:500])


def _kind_and_value(union: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the kind and value of a union, an object with one field."""
    ((kind, value),) = union.items()
    return kind, value


def _name(argument: Mapping[str, Any]) -> str:
    """Return the name of a tensor or of a number."""
    value = _kind_and_value(argument)[1]
    return value["name"] if "name" in value else value["as_name"]
