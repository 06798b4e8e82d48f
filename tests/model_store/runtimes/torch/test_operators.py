"""The list of operators contains those of networks, and none with effects beyond tensors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from model_store.errors import ModelRefused  # noqa: E402
from model_store.runtimes.torch.operators import NAMES, operator_of  # noqa: E402


def is_allowed(target: str) -> bool:
    try:
        operator_of(target, {})
    except ModelRefused:
        return False
    return True


def test_every_name_is_an_operator() -> None:
    for name in NAMES.split():
        overloads = getattr(torch.ops.aten, name).overloads()
        assert any(is_allowed(f"torch.ops.aten.{name}.{overload}") for overload in overloads), name


@pytest.mark.parametrize(
    "target",
    [
        *("add.Tensor", "add_.Tensor", "relu_.default", "silu_.default", "hardtanh_.default"),
        *("masked_fill_.Scalar", "index_put_.default", "scatter_add_.default", "dropout_.default"),
    ],
)
def test_elementwise_operators_are_allowed_also_in_place(target: str) -> None:
    operator = operator_of(f"torch.ops.aten.{target}", {})
    assert operator.in_place == target.split(".")[0].endswith("_")


UNSAFE = """
    from_file.default set_.source_Storage resize_.default record_stream.default _print.default add.out rand.default
    normal_.default native_dropout.default rrelu.default as_strided.default view.dtype lcm.default lcm_.default
    repeat_interleave.Tensor repeat_interleave.self_Tensor empty_strided.default native_batch_norm.default
    _native_batch_norm_legit_no_training.default _scaled_dot_product_flash_attention_for_cpu.default
    _embedding_bag.default quantized_lstm.input nothing_of_the_kind.default __class__.default add.__call__
    add.Tensor.__call__
"""
OTHERS = [
    "torch.ops.aten.add",
    "torch.ops.prims.copy_to.default",
    "torch.ops.import_module.default.default",
    "torch.ops.higher_order.cond",
    "torch.ops.torchvision.roi_align.default",
    "torch.os.mkdir",
    "torch.load",
    "math.__loader__",
    "_operator.call",
    "_operator.attrgetter",
    "#extension:name",
    "",
    "torch.ops.aten.add.Tensor\n",
    "torch.ops.aten.\uff41dd.Tensor",
]


@pytest.mark.parametrize("target", [*(f"torch.ops.aten.{name}" for name in UNSAFE.split()), *OTHERS])
def test_what_reaches_beyond_its_tensors_is_refused(target: str) -> None:
    with pytest.raises(ModelRefused, match="it calls"):
        operator_of(target, {})


DIVIDE = """
import torch
from model_store.errors import ModelRefused
from model_store.runtimes.torch.operators import operator_of

for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
    least = torch.iinfo(dtype).min
    for mode in ("trunc", "floor"):
        for name in ("div", "divide", "div_", "divide_"):
            for overload, other in (("Tensor_mode", torch.full((40,), -1, dtype=dtype)), ("Scalar_mode", -1)):
                call = operator_of(f"torch.ops.aten.{name}.{overload}", {"rounding_mode": mode}).call
                given = torch.full((40,), least, dtype=dtype)
                quotient = call(given, other, rounding_mode=mode)
                assert quotient.dtype == dtype and (quotient == least).all(), (name, overload, dtype)
                assert (given is quotient) == name.endswith("_")
least = -(2**63)
sums = torch.zeros((1, 1, 2, 2), dtype=torch.int64)
sums[0, 0, 0, 0] = least
for name, given, named in (
    ("avg_pool2d.default", (sums, [2, 2], [2, 2], [0, 0], False, True, -1), {}),
    ("arange.start_step", (0, least, -1), {}),
    ("arange.start_step", (0, torch.tensor(least)), {"step": -1}),
    ("arange.start_step", (), {"start": 0, "end": least, "step": -1}),
    ("arange.start_step", (2**62 - 1, -(2**62) - 1, -1), {}),
):
    try:
        operator_of(f"torch.ops.aten.{name}", {}).call(*given, **named)
    except ModelRefused:
        continue
    raise AssertionError(name)
print("whole")
"""


def test_the_least_integer_divided_by_minus_1_ends_no_process() -> None:
    """Run in a separate process, which the trap would end."""
    done = subprocess.run([sys.executable, "-c", DIVIDE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


@pytest.mark.parametrize("mode", [None, "trunc", "floor"])
@pytest.mark.parametrize("name", ["div", "div_"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_all_other_quotients_are_those_of_torch(name: str, dtype: Any, mode: str | None) -> None:
    numbers = torch.tensor([-7, -2, -1, 1, 2, 7, 100]).to(dtype)
    a, b = (grid.reshape(-1) for grid in torch.meshgrid(numbers, numbers, indexing="ij"))
    if name == "div_" and mode is None and not dtype.is_floating_point:
        return  # torch refuses a fraction in place of an integer
    call = operator_of(f"torch.ops.aten.{name}.Tensor_mode", {"rounding_mode": mode}).call
    expected = torch.div(a, b, rounding_mode=mode)
    assert torch.equal(call(a.clone(), b.clone(), rounding_mode=mode), expected)


def test_a_tensor_may_be_divided_by_itself_in_place() -> None:
    call = operator_of("torch.ops.aten.div_.Tensor_mode", {"rounding_mode": "trunc"}).call
    numbers = torch.tensor([-1, 5, -(2**63)])
    assert call(numbers, numbers, rounding_mode="trunc").tolist() == [1, 1, 1]
