"""Read the graph of a `.pt2` file as data, and build the program that runs it.

Archive -> ImageInput, names of the outputs, Program: images (n, 3, h, w) -> outputs, in the file's order

No text of the file is evaluated or imported. Names are only keys of a dict while it is read, only the sizes of the
input are used, and `operators.py` looks up operators. torch.fx generates the program's code with its own names;
numbers and texts of the file are literals in it, and names of arguments are those of the operators. docs/decisions/0033
has the details.

A run must not write to weights or images, so that no result depends on earlier ones. A step that would do so is
rejected when the program is read or, if it writes through a view, when it is run.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from itertools import takewhile
from operator import getitem
from typing import Any, NoReturn

import numpy as np
import torch
from torch import fx

from model_store.errors import ModelRefused
from model_store.runtimes.inputs import ImageInput
from model_store.runtimes.torch.archive import Archive, Stored, refuse
from model_store.runtimes.torch.operators import operator_of

DTYPES: dict[int, Any] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""Types by their numbers in torch.export's schema."""
IMAGE_DTYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.uint8: np.uint8}
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


class Program:
    """A graph with its weights. `run` is thread-safe."""

    def __init__(self, graph: fx.Graph, weights: list[Any]) -> None:
        self._module = fx.GraphModule(torch.nn.Module(), graph)
        self._weights = weights
        self._kept = frozenset(map(_memory, weights))

    def run(self, images: Any) -> list[Any]:
        """Return the outputs for a batch of images."""
        kept = (self._kept | {_memory(images)}) - {0}  # 0: tensors without elements
        return self._module.forward(kept, images, *self._weights)


def read_program(archive: Archive, device: str) -> tuple[ImageInput, list[str], Program]:
    """Read a program: its input, the names of its outputs, and its steps.

    Raises ModelRefused, or KeyError, TypeError and similar for a graph of another form.
    """
    if archive.program["schema_version"]["major"] != SCHEMA_MAJOR:
        refuse(f"its format is {archive.program['schema_version']}; {SCHEMA_MAJOR} is supported")
    module = archive.program["graph_module"]
    graph, specs = module["graph"], module["signature"]
    stored = load_tensors(archive.tensors, device)
    numbered = torch.empty(0, device=device).device  # cuda:0, as reported by tensors on cuda
    reader, weights, others = _Reader(numbered), list[Any](), list[str]()
    for kind, spec in map(_kind_and_value, specs["input_specs"]):
        if kind in SOURCES:
            reader.define(spec["arg"]["name"], reader.graph.placeholder(f"weight_{len(weights)}"))
            weights.append(stored[spec[SOURCES[kind]]])
        else:
            others.append(spec["arg"]["as_tensor"]["name"] if kind == "user_input" else kind)
    if len(others) != 1:
        raise ModelRefused(f"the program has the inputs {others}; one image is needed")
    reader.define(others[0], reader.images)
    reader.read(graph)
    if any(kind != "user_output" for kind, _ in map(_kind_and_value, specs["output_specs"])):
        refuse_writing()
    outputs = [reader.scope[output["as_tensor"]["name"]] for output in graph["outputs"]]
    reader.graph.output(outputs)
    (call,) = [entry["signature"] for entry in module["module_call_graph"] if entry["fqn"] == ""]
    names = _names_in(json.loads(call["out_spec"])[1])
    if len(names) != len(outputs):
        refuse(f"it has {len(outputs)} outputs but {len(names)} names of outputs")
    return _image_input(archive.program, others[0]), names, Program(reader.graph, weights)


def refuse_writing() -> NoReturn:
    refuse("it changes its own weights or its input (was it exported in training mode?)")


class _Reader:
    """Nodes of the program by their names in the file."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.graph, self.scope = fx.Graph(), dict[str, fx.Node]()
        self._kept, self.images = self.graph.placeholder("kept"), self.graph.placeholder("images")

    def define(self, name: str, node: fx.Node) -> None:
        if name in self.scope:
            refuse(f"it has two values with the name {name}")
        self.scope[name] = node

    def read(self, graph: Mapping[str, Any]) -> None:
        for node in graph["nodes"]:
            if node["target"] in (GRAD, AUTOCAST):
                self._read_within(node)
                continue
            named = {i["name"]: self._argument(i["arg"]) for i in node["inputs"]}
            operator = operator_of(node["target"], named)
            placed = list(takewhile(named.__contains__, operator.places))
            arguments, call = [named.pop(name) for name in placed], operator.call
            if operator.in_place:
                if arguments[0].op == "placeholder":
                    refuse_writing()
                arguments, call = [self._kept, *arguments], _without_writing_to_kept(call)
            made = self.graph.call_function(call, tuple(arguments), named)
            parts = [made] if len(node["outputs"]) == 1 else self._parts(made, len(node["outputs"]))
            for output, part in zip(node["outputs"], parts, strict=True):
                self._define_result(output, part)

    def _parts(self, node: fx.Node, count: int) -> list[fx.Node]:
        return [self.graph.call_function(getitem, (node, i)) for i in range(count)]

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
            case "as_int" | "as_bool" | "as_string" if isinstance(value, int | str):
                return value
            case "as_ints" | "as_bools" if all(isinstance(number, int) for number in value):
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
                return self._device
            case _:
                return refuse(f"an argument is {str(argument)[:100]}")

    def _define_result(self, output: Mapping[str, Any], node: fx.Node) -> None:
        kind, value = _kind_and_value(output)
        match kind:
            case "as_none":
                pass
            case "as_tensor" | "as_sym_int" | "as_sym_float" | "as_sym_bool":
                self.define(_name(output), node)
            case "as_tensors":
                for tensor, part in zip(value, self._parts(node, len(value)), strict=True):
                    self.define(tensor["name"], part)
            case _:
                refuse(f"a result is {str(output)[:100]}")


def _without_writing_to_kept(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator that rejects a first argument in memory of weights or images."""

    def in_place(kept: frozenset[int], tensor: Any, *given: Any, **named: Any) -> Any:
        if _memory(tensor) in kept:
            refuse_writing()
        return call(tensor, *given, **named)

    return in_place


def _memory(tensor: Any) -> int:
    """Return the address of a tensor's memory, equal for all tensors that share it."""
    return tensor.untyped_storage().data_ptr()


def _image_input(program: Mapping[str, Any], name: str) -> ImageInput:
    """Return the image input. Raises ModelRefused for other ranks and types."""
    meta = program["graph_module"]["graph"]["tensor_values"][name]
    sizes, dtype = meta["sizes"], DTYPES[meta["dtype"]]
    shape = tuple(None if "as_expr" in size else _length(size["as_int"]) for size in sizes)
    if len(shape) != 4 or dtype not in IMAGE_DTYPES:
        raise ModelRefused(
            f"the program's input is {dtype} {list(shape)}; an image of rank 4 "
            f"and type {', '.join(str(dtype).removeprefix('torch.') for dtype in IMAGE_DTYPES)} is needed"
        )
    return ImageInput(name, shape, IMAGE_DTYPES[dtype], most=_max_batch(sizes[0], program["range_constraints"]))


def _length(number: Any) -> int:
    return number if type(number) is int and 0 < number < 1 << 31 else refuse(f"a size is {number}")


def _max_batch(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> int | None:
    """Return the export's limit of a free batch, or None."""
    symbol = SYMBOL.fullmatch(size["as_expr"]["expr_str"]) if "as_expr" in size else None
    limit = ranges.get(symbol[1], {}).get("max_val") if symbol else None
    return limit if type(limit) is int and 0 < limit < 1 << 20 else None


def _names_in(spec: Mapping[str, Any]) -> list[str]:
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


def load_tensors(stored: Mapping[str, Stored], device: str) -> dict[str, Any]:
    """Return tensors by name; those that share bytes in the file also share memory, on the device too.

    Raises ModelRefused for a tensor that exceeds its bytes.
    """
    whole: dict[tuple[int, Any], Any] = {}
    loaded: dict[str, Any] = {}
    for name, tensor in stored.items():
        key = (id(tensor.data), tensor.meta["dtype"])
        if key not in whole:
            whole[key] = _whole(tensor.data, DTYPES[tensor.meta["dtype"]]).to(device, copy=True)
        loaded[name] = _part(name, whole[key], tensor.meta)
    return loaded


def _whole(data: bytes, dtype: Any) -> Any:
    if not data:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # bytes other than 0 and 1 are not valid as a C++ bool
        return torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _part(name: str, whole: Any, meta: Mapping[str, Any]) -> Any:
    sizes, strides = ([n["as_int"] for n in meta[key]] for key in ("sizes", "strides"))
    offset = meta["storage_offset"]["as_int"]
    if len(sizes) != len(strides) or not all(type(n) is int and 0 <= n < 1 << 48 for n in (*sizes, *strides, offset)):
        refuse(f"{name} has sizes {sizes}, strides {strides}, offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if math.prod(sizes) > len(whole) or (math.prod(sizes) and last >= len(whole)):
        refuse(f"{name} is larger than its record (if it was expanded: export it contiguous)")
    return whole.as_strided(sizes, strides, offset)
