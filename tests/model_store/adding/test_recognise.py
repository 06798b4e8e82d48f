"""Labels, side and decoder are recognised in a weights file; its metadata are never evaluated."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.decoders.evidence import MAX_NAMES_CHARS
from model_store.errors import ModelRefused
from tests.fixtures_local import MODELS as SHIPPED
from tests.graphs import constant_graph
from tests.model_store.adding.recognised import recognised
from tests.model_store.tiny_graphs import SIDE_PX, averaging, of_one_size, passing_on, same_answer
from tests.shared_data import MODELS, photo


def refusal(weights: bytes, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ModelRefused) as refused:
        recognised(weights, overrides or {})
    return str(refused.value)


def named(names: str) -> bytes:
    return averaging(metadata={"names": names})


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (b"", ": it is empty"),
        (b"not onnx", ", or only a part of one"),
        (averaging()[:-20], ", or only a part of one"),
        (photo("cat"), " but a JPEG image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x80\x02}q", " but a pickle"),
    ],
)
def test_what_is_no_onnx_file_is_refused_in_plain_words(weights: bytes, what: str) -> None:
    said = refusal(weights)
    assert said.startswith("this is not an ONNX file")
    assert what in said
    assert "proto" not in said.lower()


@pytest.mark.parametrize("change", [{}, {"score_floor": 0.2}])
def test_the_whole_config_of_a_version_is_taken_as_it_is(change: dict[str, Any]) -> None:
    """It names no kind, as those of older releases."""
    shipped = SHIPPED / "ssdlite-coco" / "1"
    given = json.loads((shipped / "config.json").read_text()) | change
    assert "kind" not in given
    config = recognised((shipped / "model.onnx").read_bytes(), given)
    assert json.loads(config.model_dump_json())["labels"] == given["labels"]
    assert config.score_floor == given["score_floor"]


@pytest.mark.parametrize("names", ["{0: 'deer'}", '{"0": "deer"}', '["deer"]', "('deer',)"])
def test_names_are_a_python_literal(names: str) -> None:
    config = recognised(named(names), {})
    assert config.labels == ("deer",)
    assert config.decoder == "yolov8"
    assert config.preprocess.side_px == SIDE_PX


@pytest.mark.parametrize(
    "names",
    [
        "",
        "[]",
        "deer",
        "'deer'",
        "{'deer'}",
        "[1]",
        "{0: 'deer', 2: 'fox'}",
        "{1e999: 'deer'}",
        "{[]: 1}",
        "None",
        "(" * 10_000,
        "\0",
        "[__import__('os').system('touch {file}')]",
        "open('{file}', 'w')",
        "'deer' * 10**10",
        "['" + "a" * MAX_NAMES_CHARS + "']",
    ],
)
def test_other_names_are_refused_and_never_evaluated(names: str, tmp_path: Path) -> None:
    file = tmp_path / "evaluated"
    said = refusal(named(names.replace("{file}", str(file))))
    assert '{"labels": ["deer", …]}' in said
    assert len(said) < 1000
    assert not file.exists()


@pytest.mark.parametrize(
    ("outputs", "metadata", "words"),
    [
        ({"out": (21, 64, 64)}, {}, "out [1, 21, 64, 64] look like semantic segmentation"),
        ({"out": (21, 16, 16), "aux": (21, 16, 16)}, {"names": "['a']"}, "segmentation, depth or"),
        ({"output0": (56, 84)}, {"task": "pose"}, "this is a pose model"),
    ],
)
def test_a_model_of_another_task_is_refused_as_such_and_not_for_its_labels(
    outputs: dict[str, tuple[int, ...]], metadata: dict[str, str], words: str
) -> None:
    rows = {name: np.zeros((1, *shape), np.float32) for name, shape in outputs.items()}
    said = refusal(constant_graph(rows, SIDE_PX, metadata))
    assert words in said
    assert "config file" not in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"labels": 2}, 'labels: 2 is not a list of names: use {"labels": ["deer", …]}'),
        ({"labels": "deer"}, "labels: 'deer' is not a list of names"),
        ({"labels": ["deer", 7]}, "labels: ['deer', 7] is not a list of names"),
        ({"decoder": ["yolov8"]}, "decoder: ['yolov8'] is not a name: use"),
        ({"labels": []}, "labels: "),
        ({"decoder": ""}, "decoder: "),
        ({"preprocess": [1]}, "preprocess: "),
    ],
)
def test_an_override_of_another_kind_is_refused_by_name(overrides: dict[str, Any], said: str) -> None:
    assert said in refusal(named("['deer']"), overrides)


@pytest.mark.parametrize(
    "weights",
    [averaging(metadata={"names": "['deer']"}, written=1), same_answer([1, 5, 20], {"names": "['deer']"})],
    ids=["fails", "answers for one"],
)
def test_a_free_batch_with_another_one_written_inside_is_refused(weights: bytes) -> None:
    assert "a batch" in (said := refusal(weights))
    assert re.search(r"again, with .*fixed to 1", said)


def test_a_graph_that_does_not_run_at_the_guessed_size_is_refused_with_the_line_for_another() -> None:
    said = refusal(of_one_size())
    assert 'on one image of 640 x 640 px; for another size, add to the config file: {"preprocess": {"side_px"' in said
    assert "does not run" not in refusal(of_one_size(), {"preprocess": {"side_px": SIDE_PX}})


def test_overrides_win_field_by_field() -> None:
    metadata = {"names": "['deer']", "license": "MIT", "source": "here", "description": "small"}
    config = recognised(
        averaging(metadata=metadata), {"preprocess": {"resize": "stretch"}, "licence": "CC0", "labels": ["elk"]}
    )
    assert (config.preprocess.resize, config.preprocess.side_px) == ("stretch", SIDE_PX)
    assert (config.licence, config.source, config.description) == ("CC0", "here", "small")
    assert config.labels == ("elk",)


@pytest.mark.parametrize("shape", [[1, 5], [], None], ids=["two dimensions", "none", "unknown"])
def test_an_input_that_is_no_image_is_refused(shape: list[int] | None) -> None:
    assert "an image of rank 4" in refusal(passing_on(shape, {"names": "['deer']"}))


def test_the_shipped_weights_are_recognised() -> None:
    shipped = json.loads((MODELS / "ssdlite-coco" / "1" / "config.json").read_bytes())
    config = recognised((MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes(), {})
    assert list(config.labels) == shipped["labels"]
    assert (config.decoder, config.preprocess.side_px) == ("yolov8", 300)


def test_one_score_per_label_is_a_classifier_whatever_its_output_is_called() -> None:
    rows = {"features": np.array([[-1, 2]], np.float32)}
    graph = constant_graph(rows, SIDE_PX)
    assert recognised(graph, {}).kind == "embedder"
    assert recognised(graph, {"labels": ["deer", "fox"]}).kind == "classifier"
