"""Read weights from disk, with external tensors only from the ONNX file's folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data, set_external_data

from model_store.errors import ModelRefused
from model_store.runtimes.onnx import OnnxSession
from model_store.runtimes.weights_file import read_weights
from tests.graphs import pooling


def split(folder: Path) -> Path:
    """Write model.onnx and model.onnx.data, like PyTorch's exporter."""
    model = onnx.load_model_from_string(pooling(6))
    convert_model_to_external_data(model, location="model.onnx.data", size_threshold=0)
    onnx.save(model, folder / "model.onnx")
    assert (folder / "model.onnx.data").stat().st_size >= 6 * 3 * 64 * 4
    return folder / "model.onnx"


def elsewhere(folder: Path, place: str) -> Path:
    path = split(folder)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    path.write_bytes(model.SerializeToString())
    return path


def test_tensors_beside_the_file_are_taken_into_it(tmp_path: Path) -> None:
    tensor = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    whole = OnnxSession(pooling(6), threads=1).run(tensor)
    found = OnnxSession(read_weights(split(tmp_path)), threads=1).run(tensor)
    assert (found["output0"] == whole["output0"]).all()


def test_a_file_without_any_is_itself(tmp_path: Path) -> None:
    for name, data in {"a.onnx": pooling(6), "b.onnx": b"no onnx", "c.pt2": b"PK\x03\x04.."}.items():
        (tmp_path / name).write_bytes(data)
        assert read_weights(tmp_path / name) == data


@pytest.mark.parametrize("record", ["best/data.pkl", "best/extra/data.pkl"])
def test_a_checkpoint_of_pytorch_is_refused_with_the_command_that_exports_it(tmp_path: Path, record: str) -> None:
    with zipfile.ZipFile(tmp_path / "best.pt", "w") as archive:
        archive.writestr(record, b"pickled")
    if record == "best/data.pkl":
        with pytest.raises(ModelRefused, match=r"best\.pt is a checkpoint .* 'yolo export model=best\.pt format=onnx'"):
            read_weights(tmp_path / "best.pt")
    else:
        assert read_weights(tmp_path / "best.pt").startswith(b"PK")


def test_a_graph_in_a_zip_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "deer.zip", "w") as archive:
        archive.writestr("best/deer.onnx", pooling(6))
    with pytest.raises(ModelRefused, match=r"deer\.zip is a ZIP file: unpack it, and add the \.onnx file"):
        read_weights(tmp_path / "deer.zip")


def test_data_that_were_not_copied_are_named(tmp_path: Path) -> None:
    path = split(tmp_path)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ModelRefused, match=r"refers to external data in model\.onnx\.data, which is not"):
        read_weights(path)


@pytest.mark.parametrize("place", ["a/../../secret", "link"])
def test_data_outside_the_folder_are_never_read(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 10_000)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelRefused, match="outside its own folder"):
        read_weights(elsewhere(folder, place))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("", "in a file without a name: export it again"),
        ("deer\0.data", r"with the invalid name 'deer\\x00\.data': export it again"),
        (".", r"refers to external data in \., which is a folder"),
        ("below/deer.data", "below/deer.data, which is not in the same folder; copy both"),
    ],
)
def test_odd_places_of_data_are_refused_in_plain_words(tmp_path: Path, place: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        read_weights(elsewhere(tmp_path, place))


def test_damaged_data_are_refused(tmp_path: Path) -> None:
    path = split(tmp_path)
    (tmp_path / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_weights(path)


def outside(place: str, kind: str) -> bytes:
    """Return a graph with one external tensor in the file `place`, in this kind of node."""
    tensor = numpy_helper.from_array(np.arange(4, dtype=np.float32), "values")
    set_external_data(tensor, place, 0, 16)
    tensor.ClearField("raw_data")
    node, functions, sparse = helper.make_node("Identity", ["images"], ["output0"]), [], []
    if kind == "function":
        constant = helper.make_node("Constant", [], ["out"], value=tensor)
        opsets = [helper.make_opsetid("", 17)]
        functions.append(helper.make_function("own", "Four", [], ["out"], [constant], opsets))
        node = helper.make_node("Four", [], ["output0"], domain="own")
    elif kind == "sparse":
        places = numpy_helper.from_array(np.arange(4), "places")
        sparse.append(helper.make_sparse_tensor(tensor, places, [4]))
        node = helper.make_node("Identity", ["values"], ["output0"])
    elif kind == "sparse attribute":
        places = numpy_helper.from_array(np.arange(4), "places")
        value = helper.make_sparse_tensor(tensor, places, [4])
        node = helper.make_node("Constant", [], ["output0"], sparse_value=value)
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    output = helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, None)
    weights = [tensor] if kind == "initializer" else []
    graph = helper.make_graph([node], "g", [images], [output], weights, sparse_initializer=sparse)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    return model.SerializeToString()


KINDS = ["initializer", "function", "sparse", "sparse attribute"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_of_the_file_comes_along(tmp_path: Path, kind: str) -> None:
    (tmp_path / "deer.onnx").write_bytes(outside("deer.data", kind))
    (tmp_path / "deer.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    found = read_weights(tmp_path / "deer.onnx")
    (tmp_path / "deer.data").unlink()
    assert b"deer.data" not in found
    assert np.arange(4, dtype=np.float32).tobytes() in found
    if kind in ("function", "sparse"):
        session = ort.InferenceSession(found, providers=["CPUExecutionProvider"])
        (values,) = session.run(None, {"images": np.zeros((1, 3, 8, 8), np.float32)})
        assert np.asarray(values).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_version_that_needs_more_files_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A file copied into the store by hand: nothing is read from the working folder."""
    (tmp_path / "deer.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelRefused, match=r"tensors in other files \('deer\.data'\).*run 'resight models add'"):
        OnnxSession(outside("deer.data", kind), threads=1)


def test_a_word_that_looks_like_it_is_no_tensor_elsewhere() -> None:
    model = onnx.load_model_from_string(pooling(6))
    model.graph.node[0].name = "head/location"
    OnnxSession(model.SerializeToString(), threads=1)
    with pytest.raises(ModelRefused, match="^this is not an ONNX file, or only a part of one"):
        OnnxSession(b"location, location", threads=1)
