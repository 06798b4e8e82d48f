"""The list of operators: what networks need is on it, what reaches beyond tensors is not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from model_store.errors import ModelRefused  # noqa: E402
from model_store.runtimes.torch_operators import NAMES, operator_of  # noqa: E402


@pytest.mark.parametrize("name", NAMES.split())
def test_every_name_is_an_operator(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    overloads = [o for o in packet.overloads() if not o.endswith(("out", "out_mode"))]
    allowed = 0
    for overload in overloads:
        try:
            operator_of(f"torch.ops.aten.{name}.{overload}", {})
            allowed += 1
        except ModelRefused:
            pass
    assert allowed


@pytest.mark.parametrize(
    "target",
    [
        *("add.Tensor", "add_.Tensor", "relu_.default", "silu_.default", "hardtanh_.default"),
        *(
            "clamp.default",
            "pow.Tensor_Scalar",
            "lerp.Tensor",
            "bitwise_and.Tensor",
            "copy_.default",
        ),
        *("masked_fill_.Scalar", "index_put_.default", "scatter_add_.default", "dropout_.default"),
    ],
)
def test_elementwise_operators_are_allowed_also_in_place(target: str) -> None:
    operator = operator_of(f"torch.ops.aten.{target}", {})
    assert operator.in_place == target.split(".")[0].endswith("_")


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.set_.source_Tensor",
        "torch.ops.aten.resize_.default",
        "torch.ops.aten.record_stream.default",
        "torch.ops.aten._print.default",
        "torch.ops.aten.add.out",
        "torch.ops.aten.aminmax.out",
        "torch.ops.aten.sort.values",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.randperm.default",
        "torch.ops.aten.normal_.default",
        "torch.ops.aten.native_dropout.default",
        "torch.ops.aten.rrelu.default",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.view.dtype",
        "torch.ops.aten.repeat_interleave.Tensor",
        "torch.ops.aten.repeat_interleave.self_Tensor",
        "torch.ops.aten.empty_strided.default",
        "torch.ops.aten.native_batch_norm.default",
        "torch.ops.aten._native_batch_norm_legit_no_training.default",
        "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default",
        "torch.ops.aten._embedding_bag.default",
        "torch.ops.aten.quantized_lstm.input",
        "torch.ops.aten.sparse_coo_tensor.indices",
        "torch.ops.aten.nothing_of_the_kind.default",
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.add",
        "torch.ops.aten.add.__call__",
        "torch.ops.aten.add.Tensor.__call__",
        "torch.ops.prims.copy_to.default",
        "torch.ops.import_module.default.default",
        "torch.ops.load_library.default.default",
        "torch.ops.higher_order.cond",
        "torch.ops.torchvision.roi_align.default",
        "torch.os.mkdir",
        "torch.load",
        "torch.hub.load",
        "math.__loader__",
        "_operator.call",
        "_operator.attrgetter",
        "_operator.lshift",
        "#extension:name",
        "",
        "torch.ops.aten.add.Tensor\n",
        "torch.ops.aten.\uff41dd.Tensor",
    ],
)
def test_what_reaches_beyond_its_tensors_is_refused(target: str) -> None:
    with pytest.raises(ModelRefused, match="it calls"):
        operator_of(target, {})
