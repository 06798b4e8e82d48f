"""Programs of torch.export: the numbers of ONNX Runtime, and never a line of the file's own code."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from model_store.add import add_version  # noqa: E402
from model_store.detector import load_detector  # noqa: E402
from model_store.errors import ModelRefused  # noqa: E402
from model_store.images import decode  # noqa: E402
from model_store.names import version_id  # noqa: E402
from model_store.runtimes.torch import TorchSession  # noqa: E402
from model_store.runtimes.torch_archive import clean_archive  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from tests.fixtures_local import photo  # noqa: E402
from tests.model_store.recognised import recognised  # noqa: E402
from tests.model_store.test_detections import rows_of  # noqa: E402

SIDE_PX = 64
CELLS = (SIDE_PX // 8) ** 2


class TinyDetector(torch.nn.Module):
    """Boxes of 16 px at 8 x 8 cells, scored by colour: the layout of YOLOv8 with two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = torch.nn.Conv2d(3, 2, 8, stride=8)
        torch.nn.init.normal_(self.cell.weight, std=0.3)
        steps = torch.arange(SIDE_PX // 8) * 8.0 + 4
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        size = torch.full((CELLS,), 16.0)
        self.register_buffer("boxes", torch.stack([x.reshape(-1), y.reshape(-1), size, size]))

    def forward(self, images: Any) -> Any:
        scores = torch.sigmoid(self.cell(images)).flatten(2)
        return torch.cat([self.boxes.expand(images.shape[0], -1, -1), scores], 1)


class Dressed(torch.nn.Module):
    """The same numbers in another wrapping."""

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.wrap = TinyDetector(), wrap

    def forward(self, images: Any) -> Any:
        return self.wrap(self.inner(images))


def exported(
    module: Any = None, batch: int | None = None, metadata: dict[str, str] | None = None
) -> bytes:
    module = (module or TinyDetector()).eval()
    free = {0: torch.export.Dim("batch", min=1, max=4)}
    program = torch.export.export(
        module,
        (torch.zeros(batch or 2, 3, SIDE_PX, SIDE_PX),),
        dynamic_shapes=None if batch else (free,),
    )
    buffer = io.BytesIO()
    extra = {"metadata.json": json.dumps(metadata)} if metadata else {}
    torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, SIDE_PX, SIDE_PX), np.float32)


def reference(tensor: np.ndarray) -> np.ndarray:
    """The detector's arithmetic in float64, by hand."""
    cell = TinyDetector().cell
    weight = cell.weight.detach().numpy().astype(np.float64)
    bias = cell.bias.detach().numpy().astype(np.float64)
    cells = tensor.astype(np.float64).reshape(len(tensor), 3, 8, 8, 8, 8)
    logits = np.einsum("ncyixj,kcij->nkyx", cells, weight) + bias.reshape(1, 2, 1, 1)
    return (1 / (1 + np.exp(-logits))).reshape(len(tensor), 2, CELLS)


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("images", [1, 2, 5])
def test_the_numbers_are_those_of_plain_arithmetic(batch: int | None, images: int) -> None:
    """Also for batches over what the export allows (4), and for exports of one batch size."""
    tensor = pictures(images)
    (found,) = TorchSession(exported(batch=batch), threads=1).run(tensor).values()
    assert found.shape == (images, 6, CELLS)
    np.testing.assert_allclose(found[:, 4:], reference(tensor), atol=1e-5)


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda out: out, ["output0"]),
        (lambda out: (out, out + 1), ["output0", "output1"]),
        (lambda out: {"zebra": out, "aardvark": out + 1}, ["zebra", "aardvark"]),
    ],
    ids=["tensor", "tuple", "dict"],
)
def test_outputs_have_names(wrap: Callable[[Any], Any], names: list[str]) -> None:
    found = TorchSession(exported(Dressed(wrap)), threads=1).run(pictures(2))
    assert list(found) == names
    if len(names) == 2:
        first, second = found.values()
        np.testing.assert_allclose(second, first + 1)


def test_outputs_inside_outputs_are_refused() -> None:
    with pytest.raises(ModelRefused, match="a tensor, a list or a dict is needed"):
        TorchSession(exported(Dressed(lambda out: (out, (out,)))), threads=1)


def test_half_precision_goes_in_and_float32_comes_out() -> None:
    program = torch.export.export(TinyDetector().half().eval(), (torch.zeros(1, 3, 64, 64).half(),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (found,) = TorchSession(buffer.getvalue(), threads=1).run(pictures(1)).values()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 4:], reference(pictures(1)), atol=5e-3)


def test_a_pt2_file_is_added_recognised_and_loaded(tmp_path: Path) -> None:
    store, version = ModelStore(str(tmp_path)), version_id("deer", "1")
    weights = exported(metadata={"names": "{0: 'deer', 1: 'fox'}", "license": "MIT"})
    added = add_version(
        store, version, weights, {"score_floor": 0.5}, {"probe/cat.jpg": photo("cat")}
    )
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


def test_labels_may_come_from_the_config() -> None:
    config = recognised(exported(), {"labels": ["deer", "fox"]}, "torch")
    assert (config.runtime.kind, config.decoder) == ("torch", "yolov8")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def changed(weights: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """The archive with records changed, or taken out where `change` gives None."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(weights)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = change(name.partition("/")[2], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return buffer.getvalue()


def in_json(part: str, edit: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if part not in name:
            return data
        value = json.loads(data)
        edit(value)
        return json.dumps(value).encode()

    return change


def test_sample_inputs_are_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    evil = pickle.dumps(Evil(mark))
    hostile = changed(exported(), lambda name, data: evil if "sample_inputs" in name else data)
    (found,) = TorchSession(hostile, threads=1).run(pictures(1)).values()
    assert found.shape == (1, 6, CELLS)
    assert not mark.exists()


def test_the_text_of_guards_is_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"

    def guard(graph: dict[str, Any]) -> None:
        graph["guards_code"] = [f"__import__('os').mkdir({str(mark)!r})"]

    TorchSession(changed(exported(), in_json("models/", guard)), threads=1).run(pictures(1))
    assert not mark.exists()


def sizes(graph: dict[str, Any], expression: str) -> None:
    text = json.dumps(graph)
    assert "expr_str" in text
    for tensor in graph["graph_module"]["graph"]["tensor_values"].values():
        for size in tensor["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = expression


def retarget(graph: dict[str, Any], target: str) -> None:
    graph["graph_module"]["graph"]["nodes"][0]["target"] = target


def pickled(config: dict[str, Any]) -> None:
    for payload in config["config"].values():
        payload["use_pickle"] = True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_json("models/", lambda g: sizes(g, "__import__('os').system('x')")), "expression"),
        (in_json("models/", lambda g: sizes(g, "(lambda: Symbol('s0'))()")), "expression"),
        (in_json("models/", lambda g: sizes(g, "exit()")), "expression"),
        (in_json("models/", lambda g: sizes(g, "Symbol('__import__')")), "expression"),
        (in_json("models/", lambda g: sizes(g, "((")), "expression"),
        (in_json("models/", lambda g: retarget(g, "torch.hub.load")), "calls torch.hub.load"),
        (in_json("models/", lambda g: retarget(g, "torch.load")), "calls torch.load"),
        (in_json("weights_config", pickled), "asks for a pickle"),
        (lambda name, data: b"{" if "models/" in name else data, "is not JSON"),
        (lambda name, data: None if name == "archive_format" else data, "run code when"),
    ],
    ids=[
        "eval",
        "lambda",
        "builtin",
        "string",
        "no syntax",
        "hub",
        "load",
        "pickled weights",
        "damaged graph",
        "TorchScript",
    ],
)
def test_a_hostile_or_damaged_file_is_refused(
    change: Callable[[str, bytes], bytes | None], said: str
) -> None:
    with pytest.raises(ModelRefused, match=f"can be trusted: .*{said}"):
        TorchSession(changed(exported(), change), threads=1)


def with_record(name: str) -> bytes:
    buffer = io.BytesIO(exported())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", b"anything")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/aotinductor/model/code.so", "is compiled code"),
        ("data/constants/custom_obj_0", "is a pickled object"),
        ("data/constants/opaque_obj_0", "is a pickled object"),
        ("data/weights/model.pt", "is a pickle"),
        ("archive_format", "two records of one name"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_record_that_could_run_refuses_the_file(name: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        clean_archive(with_record(name))


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(ModelRefused, match="it is damaged"):
        clean_archive(b"PK\x03\x04 and then nothing")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/archive_format", "pt2" * 1000)
    with pytest.raises(ModelRefused, match="compressed"):
        clean_archive(buffer.getvalue())


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(TinyDetector().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ModelRefused, match=r"export the model with torch\.export\.save, or to ONNX"
    ):
        clean_archive((tmp_path / "weights.pt").read_bytes())
