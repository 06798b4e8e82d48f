"""Compare the results of torch.export programs with plain arithmetic and with PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from model_store.adding.add import add_version  # noqa: E402
from model_store.errors import ModelRefused  # noqa: E402
from model_store.images.decode import decode  # noqa: E402
from model_store.load import load_detector  # noqa: E402
from model_store.names import version_id  # noqa: E402
from model_store.runtimes.torch.archive import read_archive  # noqa: E402
from model_store.runtimes.torch.graph import read_program  # noqa: E402
from model_store.runtimes.torch.session import TorchSession  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from tests.fixtures_local import photo  # noqa: E402
from tests.model_store.runtimes.torch.torch_files import (  # noqa: E402
    CELLS,
    SIDE_PX,
    Dressed,
    RichDetector,
    TinyDetector,
    exported,
    pictures,
)
from tests.model_store.test_detections import rows_of  # noqa: E402


def reference(tensor: np.ndarray) -> np.ndarray:
    """Compute the detector's arithmetic in float64, by hand."""
    cell = TinyDetector().cell
    weight = cell.weight.detach().numpy().astype(np.float64)
    bias = cell.bias.detach().numpy().astype(np.float64)
    cells = tensor.astype(np.float64).reshape(len(tensor), 3, 8, 8, 8, 8)
    logits = np.einsum("ncyixj,kcij->nkyx", cells, weight) + bias.reshape(1, 2, 1, 1)
    return (1 / (1 + np.exp(-logits))).reshape(len(tensor), 2, CELLS)


@pytest.mark.parametrize(("batch", "images"), [(None, 5), (1, 2), (3, 5)])
def test_the_numbers_are_those_of_plain_arithmetic(batch: int | None, images: int) -> None:
    """Batches may exceed the export's limit (4) or its fixed batch size."""
    tensor = pictures(images)
    (found,) = TorchSession(exported(batch=batch), threads=1).run(tensor).values()
    assert found.shape == (images, 6, CELLS)
    np.testing.assert_allclose(found[:, 4:], reference(tensor), atol=1e-5)


@cache
def rich() -> bytes:
    return exported(RichDetector())


def test_what_detectors_are_made_of_runs_as_in_pytorch() -> None:
    module, tensor = RichDetector(), pictures(4)
    session = TorchSession(rich(), threads=1)
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(tensor))
    for _ in range(2):
        found = session.run(tensor)
        assert list(found) == ["boxes", "scores", "wild"]
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, atol=1e-5)


def test_everything_is_computed_on_the_one_device() -> None:
    """`meta` replaces a GPU: it takes only shapes, and no tensors of another device."""
    *_, program = read_program(read_archive(rich()), "meta")
    outputs = program.run(torch.empty(3, 3, SIDE_PX, SIDE_PX, device="meta"))
    assert {(str(out.device), out.shape[0]) for out in outputs} == {("meta", 3)}


def test_what_the_export_says_of_the_input_is_known() -> None:
    free = TorchSession(exported(), threads=1).input
    assert (free.name, free.shape, free.most) == ("images", (None, 3, SIDE_PX, SIDE_PX), 4)
    assert TorchSession(exported(batch=3), threads=1).input.fixed_batch == 3


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda out: (out, out + 1), ["output0", "output1"]),
        (lambda out: {"zebra": out, "aardvark": out + 1}, ["zebra", "aardvark"]),
    ],
    ids=["tuple", "dict"],
)
def test_outputs_have_names(wrap: Callable[[Any], Any], names: list[str]) -> None:
    found = TorchSession(exported(Dressed(wrap)), threads=1).run(pictures(2))
    assert list(found) == names
    first, second = found.values()
    np.testing.assert_allclose(second, first + 1)


def test_outputs_inside_outputs_are_refused() -> None:
    with pytest.raises(ModelRefused, match="a tensor, a list or a dict is needed"):
        TorchSession(exported(Dressed(lambda out: (out, (out,)))), threads=1)


def test_tensors_that_share_memory_are_one_record() -> None:
    class Tied(TinyDetector):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centres", self.boxes[:2], persistent=False)

        def forward(self, images: Any) -> Any:
            return super().forward(images)[:, :2] - self.centres

    (found,) = TorchSession(exported(Tied()), threads=1).run(pictures(2)).values()
    assert found.shape == (2, 2, CELLS)
    assert not found.any()


def test_a_pt2_file_is_added_recognised_and_loaded(tmp_path: Path) -> None:
    store, version = ModelStore(str(tmp_path)), version_id("deer", "1")
    weights = exported(metadata={"names": "{0: 'deer', 1: 'fox'}", "license": "MIT"})
    added = add_version(store, version, weights, {"score_floor": 0.5}, {"probe/cat.jpg": photo("cat")})
    assert added.config.runtime.kind == "torch"
    assert (added.config.decoder, added.config.labels) == ("yolov8", ("deer", "fox"))
    assert (added.config.preprocess.side_px, added.config.licence) == (SIDE_PX, "MIT")
    assert "model.pt2" in added.digests
    detector = load_detector(store, version)
    cat, moose = (decode(photo(name)).pixels for name in ("cat", "moose"))
    together = detector.detect([cat, moose, cat, cat, moose])
    assert len(together[0]) > 0
    for one, image in zip(together, [cat, moose, cat, cat, moose], strict=True):
        (alone,) = detector.detect([image])
        assert [r[1] for r in rows_of(one)] == [r[1] for r in rows_of(alone)]
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-6)


def test_half_precision_goes_in_and_float32_comes_out() -> None:
    program = torch.export.export(TinyDetector().half().eval(), (torch.zeros(1, 3, 64, 64).half(),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (found,) = TorchSession(buffer.getvalue(), threads=1).run(pictures(1)).values()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 4:], reference(pictures(1)), atol=5e-3)
