"""Allow a list of operators for `.pt2` files, with restricted arguments.

a name and arguments of the file -> Operator, or ModelRefused

Allowed are the operators of `torch.ops.aten` that torch tags as elementwise, and those of NAMES, which networks for
images consist of. In-place variants (`relu_`) are allowed, but no overload that writes to anything else. Arithmetic of
sizes is Python's, with bounds. So no operator reads or writes files, keeps state, draws random numbers or exposes
uninitialised memory: training modes and dropout are rejected, `empty` is filled with zeros.

torch checks few arguments of its inner kernels. Random calls on a CPU found some that read outside their tensors. These
are omitted (`native_batch_norm`, the kernels of attention, torchvision's `roi_align`) or guarded below. Not guaranteed:
the absence of such defects in the others, and bounded time and memory.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingImports=false, reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import contextlib
import importlib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from model_store.runtimes.torch.archive import refuse

NAME = re.compile(r"torch\.ops\.(aten|torchvision)\.(\w+)\.(\w+)", re.ASCII)

NAMES = """
    __and__ __or__ __xor__ _unsafe_view adjoint alias atleast_1d atleast_2d atleast_3d broadcast_tensors
    broadcast_to cat channel_shuffle chunk clone column_stack concat concatenate contiguous copy detach diag
    diag_embed diagonal dstack expand expand_as flatten flip fliplr flipud hstack lift_fresh lift_fresh_copy mT
    meshgrid moveaxis movedim narrow numpy_T permute pixel_shuffle pixel_unshuffle ravel repeat
    repeat_interleave reshape reshape_as roll rot90 select select_scatter slice slice_scatter split
    split_with_sizes squeeze stack swapaxes swapdims t tensor_split tile transpose unbind unflatten unfold
    unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze view view_as view_as_complex view_as_real vstack

    _to_copy arange empty empty_like eye fill full full_like linspace new_empty new_full new_ones new_zeros
    one_hot ones ones_like scalar_tensor to tril tril_indices triu triu_indices type_as zero zeros zeros_like

    argmax argmin argsort argwhere bucketize cummax cummin embedding gather index index_add index_copy
    index_fill index_put index_select isin kthvalue masked_fill masked_scatter masked_select msort nonzero
    nonzero_numpy scatter scatter_add scatter_reduce sort take take_along_dim topk where

    abs absolute all amax amin aminmax any count_nonzero cumprod cumsum diff divide floor_divide
    frobenius_norm gelu greater greater_equal hardswish isclose isreal less less_equal linalg_norm
    linalg_vector_norm log_sigmoid logcumsumexp logsumexp max mean median min multiply nanmean nansum negative
    norm not_equal prod real imag relu6 std std_mean subtract sum trace var var_mean

    _cdist_forward addbmm addmm addmv addr baddbmm bilinear bmm cdist cosine_similarity cross dot einsum inner
    kron linalg_cross linalg_matmul linalg_vecdot linear matmul mm mv outer pairwise_distance tensordot

    _adaptive_avg_pool2d _log_softmax _prelu_kernel _safe_softmax _softmax _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_max_pool2d affine_grid_generator alpha_dropout avg_pool1d avg_pool2d batch_norm
    col2im constant_pad_nd conv1d conv2d conv3d conv_transpose1d conv_transpose2d convolution dropout
    feature_alpha_dropout feature_dropout glu grid_sampler grid_sampler_2d group_norm im2col instance_norm
    layer_norm log_softmax max_pool1d max_pool2d max_pool2d_with_indices native_layer_norm pad prelu
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d rms_norm scaled_dot_product_attention
    softmax upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d

    _assert_async _assert_scalar _assert_tensor_metadata _is_all_true _is_any_true _local_scalar_dense item numel
    size sym_constrain_range sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride
"""
ALLOWED = {"torchvision.nms", *(f"aten.{name}" for name in NAMES.split())}
FORBIDDEN = {
    *("view.dtype", "repeat_interleave.Tensor", "repeat_interleave.self_Tensor"),
    *("lcm.default", "lcm_.default"),
}
"""The first creates a bool from any byte. The next two write past their end if the sum of the repeats exceeds 64 bits.
The last two divide the lowest integer by -1, a trap of the CPU.
"""

LIMITS: dict[str, tuple[Any, ...]] = {
    "train": (False,),
    "dropout_p": (0.0,),
    "interpolation_mode": (0, 1, 2),
    "padding_mode": (0, 1, 2),
    "scales": (None,),
    "scales_h": (None,),
    "scales_w": (None,),
}
"""Allowed values of arguments by name: torch checks neither that modes exist nor that scales fit sizes."""
LEARNING = ("training", "use_input_stats")
LEARNT = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class Operator:
    """A function, the names of its positional arguments, and True in `in_place` if it changes the first of them."""

    call: Callable[..., Any]
    places: tuple[str, ...]
    in_place: bool = False


def operator_of(target: str, arguments: Mapping[str, Any]) -> Operator:
    """Return the operator for a call. Raises ModelRefused if the operator or an argument is not allowed."""
    if target in ARITHMETIC:
        return Operator(_bounded(ARITHMETIC[target]), tuple(arguments))
    match = NAME.fullmatch(target)
    found = _overload(*match.groups()) if match else None
    if found is None:
        refuse(
            f"it calls {target[:100]}, which is not on the list of operators, or not installed (if "
            "it was exported with run_decompositions, leave that out)"
        )
    name, schema = target.split(".")[3], found._schema.arguments
    if unknown := arguments.keys() - {each.name for each in schema}:  # names become part of the program's code
        refuse(f"it calls {name} with the unknown arguments {sorted(unknown)}")
    for key, value in arguments.items():
        if value not in LIMITS.get(f"{name}.{key}", LIMITS.get(key, (value,))):
            refuse(f"it calls {name} with {key} {value}")
    trains = any(arguments.get(key, False) is not False for key in LEARNING)
    if trains and any(arguments.get(key) is not None for key in LEARNT):
        refuse(f"it calls {name} in training mode")
    places = tuple(each.name for each in schema if not each.kwarg_only)
    return Operator(GUARDS.get(name, lambda given: given)(found), places, bool(_written(found)))


def _overload(library: str, name: str, overload: str) -> Any:
    """Return the overload, or None if it is not allowed."""
    if library == "torchvision":
        with contextlib.suppress(ImportError):
            importlib.import_module("torchvision")
    packet: Any = getattr(getattr(torch.ops, library), name, None)
    if type(packet) is not type(torch.ops.aten.add) or overload not in packet.overloads():
        return None
    found = getattr(packet, overload)
    elementwise = torch.Tag.pointwise in found.tags
    random = torch.Tag.nondeterministic_seeded in found.tags
    listed = f"{library}.{name}" in ALLOWED or f"{library}.{name.removesuffix('_')}" in ALLOWED
    in_place = name.endswith("_") and _written(found) == [found._schema.arguments[0].name]
    allowed = (listed or (elementwise and not random)) and (in_place or not _written(found))
    return found if allowed and f"{name}.{overload}" not in FORBIDDEN else None


def _written(overload: Any) -> list[str]:
    arguments = overload._schema.arguments
    return [each.name for each in arguments if each.alias_info and each.alias_info.is_write]


def _zero_filled(empty: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **named: empty(*given, **named).zero_()


def _require_equal_keys_and_values(attention: Callable[..., Any]) -> Callable[..., Any]:
    """Require equal numbers of keys and values, which the CPU's kernel does not check."""

    def call(query: Any, key: Any, value: Any, *given: Any, **named: Any) -> Any:
        if key.shape[-2] != value.shape[-2]:
            refuse("it calls scaled_dot_product_attention with different numbers of keys and values")
        return attention(query, key, value, *given, **named)

    return call


def _guarded_division(division: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a / b as (a * s) / (b * s), s = -1 where b is -1: the lowest integer divided by -1 traps the CPU."""

    def call(dividend: Any, divisor: Any, *given: Any, **named: Any) -> Any:
        numbers = (dividend, divisor)
        if named.get("rounding_mode") is None or not all(map(_is_signed_integer, numbers)):
            return division(dividend, divisor, *given, **named)
        sign = (divisor == -1) * -2 + 1
        if isinstance(divisor, torch.Tensor):
            sign = sign.to(divisor.dtype)
        divisor = divisor * sign  # first, since an in-place division may divide a tensor by itself
        if division.__name__.partition(".")[0].endswith("_"):
            return division(dividend.mul_(sign), divisor, *given, **named)
        return division(dividend * sign, divisor, *given, **named)

    return call


def _is_signed_integer(number: Any) -> bool:
    if not isinstance(number, torch.Tensor):
        return isinstance(number, int)
    return not number.is_floating_point() and not number.is_complex() and number.dtype.is_signed


def _require_fractions(pool: Callable[..., Any]) -> Callable[..., Any]:
    """Require floats: a sum of integers may be the lowest one, and the given divisor -1, a trap of the CPU."""

    def call(images: Any, *given: Any, **named: Any) -> Any:
        if not images.is_floating_point():
            refuse("it calls avg_pool with integers")
        return pool(images, *given, **named)

    return call


def _require_short_range(arange: Callable[..., Any]) -> Callable[..., Any]:
    """Require bounds below MAX_BOUND, so that no difference is the lowest integer, which a step of -1 divides."""

    def call(*given: Any, **named: Any) -> Any:
        numbers = (*given, *(named[key] for key in named.keys() & {"start", "end", "step"}))
        if not all(abs(float(number)) < MAX_BOUND for number in numbers):
            refuse(f"it calls arange with {numbers}")
        return arange(*given, **named)

    return call


MAX_BOUND = 1 << 62
GUARDS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "empty": _zero_filled,
    "empty_like": _zero_filled,
    "new_empty": _zero_filled,
    "scaled_dot_product_attention": _require_equal_keys_and_values,
    "arange": _require_short_range,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _require_fractions),
    **dict.fromkeys(("div", "div_", "divide", "divide_"), _guarded_division),
}


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > 64:
        refuse(f"it raises a size to the power of {exponent}")
    return base**exponent


def _bounded(arithmetic: Callable[..., Any]) -> Callable[..., Any]:
    def call(*numbers: Any) -> Any:
        if not all(isinstance(number, int | float) for number in numbers):
            refuse("it computes sizes from values other than numbers")
        result = arithmetic(*numbers)
        if isinstance(result, int) and abs(result) >= 1 << 63:
            refuse("it computes a size of more than 64 bits")
        return result

    return call


ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "pos", "abs"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"),
        )
    },
    "_operator.pow": _power,
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    "torch.sym_float": float,
    "torch.sym_int": int,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
    "torch.sym_sqrt": math.sqrt,
    "torch.sym_ite": lambda condition, first, second: first if condition else second,
}
