"""Programs that keep state, are random, or access memory outside their tensors are rejected; sizes are bounded."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from model_store.errors import ModelRefused  # noqa: E402
from model_store.runtimes.torch.archive import read_archive  # noqa: E402
from model_store.runtimes.torch.graph import read_program  # noqa: E402
from model_store.runtimes.torch.session import TorchSession  # noqa: E402
from tests.model_store.runtimes.torch.torch_files import (  # noqa: E402
    SIDE_PX,
    TinyDetector,
    changed,
    exported,
    in_json,
    pictures,
    tiny,
)

Forward = Callable[[Any, Any], Any]


class Made(TinyDetector):
    """A detector that runs `forward` on the images first."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.own = forward
        self.register_buffer("seen", torch.zeros(4))
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, images: Any) -> Any:
        return super().forward(self.own(self, images))


def made(forward: Forward) -> bytes:
    return exported(Made(forward), batch=1)


def run_twice(weights: bytes) -> tuple[np.ndarray, np.ndarray]:
    session = TorchSession(weights, threads=1)
    first, second = (session.run(pictures(1))["output0"] for _ in range(2))
    return first, second


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, images: images + self.seen.add_(1).sum(),
        lambda self, images: images + self.seen[1:].add_(1).sum(),
        lambda self, images: images.div_(255),
        lambda self, images: torch.nn.functional.batch_norm(
            images, self.norm.running_mean, self.norm.running_var, training=True
        ),
    ],
    ids=["a buffer", "a slice of one", "images", "statistics"],
)
def test_what_a_run_would_leave_behind_is_refused(forward: Forward) -> None:
    with pytest.raises(ModelRefused, match="changes its own weights or its input|training mode"):
        run_twice(made(forward))


def test_statistics_of_the_moment_and_own_values_in_place_are_fine() -> None:
    def forward(self: Any, images: Any) -> Any:
        norm = torch.nn.functional.batch_norm(images, None, None, training=True)
        return torch.nn.functional.instance_norm(norm.clone().mul_(2).add_(1)).relu_()

    first, second = run_twice(made(forward))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, images: torch.rand_like(images),
        lambda self, images: images.clone().bernoulli_(),
        lambda self, images: torch.nn.functional.dropout(images, training=True),
        lambda self, images: torch.nn.functional.scaled_dot_product_attention(images, images, images, dropout_p=0.5),
    ],
    ids=["rand_like", "bernoulli", "dropout", "attention with dropout"],
)
def test_what_chance_decides_is_refused(forward: Forward) -> None:
    with pytest.raises(ModelRefused, match="it calls"):
        run_twice(made(forward))


def test_memory_that_nobody_wrote_is_zero() -> None:
    def forward(self: Any, images: Any) -> Any:
        return images * 0 + torch.empty_like(images) + torch.empty(1)

    expected = TorchSession(tiny(), threads=1).run(pictures(1) * 0)["output0"]
    first, second = run_twice(made(forward))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected, atol=1e-6)


def edited(weights: bytes, target: str, **arguments: Any) -> bytes:
    """Change the arguments of every call of the operator."""

    def edit(program: dict[str, Any]) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        calls = [node for node in nodes if target in node["target"]]
        assert calls
        for node in calls:
            kept = [entry for entry in node["inputs"] if entry["name"] not in arguments]
            more = [{"name": name, "arg": arg, "kind": 2} for name, arg in arguments.items()]
            node["inputs"] = kept + more

    return changed(weights, in_json("models/", edit))


def test_attention_over_fewer_values_than_keys_is_refused() -> None:
    def forward(self: Any, images: Any) -> Any:
        few = images[:, :, :2].contiguous()
        attended = torch.nn.functional.scaled_dot_product_attention(images, images, images)
        return attended + few.mean()

    weights = made(forward)
    run_twice(weights)
    short = edited(weights, "scaled_dot", value={"as_tensor": {"name": "contiguous"}})
    with pytest.raises(ModelRefused, match="different numbers of keys and values"):
        run_twice(short)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"interpolation_mode": {"as_int": 77}}, "interpolation_mode 77"),
        ({"padding_mode": {"as_int": -1}}, "padding_mode -1"),
        ({"padding_mode": {"as_operator": "torch.os.mkdir"}}, "an argument is"),
        ({"padding_mode": {"as_layout": 1}}, "an argument is"),
        ({"padding_mode": {"as_tensor": {"name": "nowhere"}}}, "KeyError"),
        ({"padding_mode": {}}, "ValueError"),
    ],
)
def test_arguments_that_no_export_has_are_refused(arguments: dict[str, Any], said: str) -> None:
    def forward(self: Any, images: Any) -> Any:
        places = images.permute(0, 2, 3, 1)[..., :2]
        return torch.nn.functional.grid_sample(images, places, align_corners=False)

    weights = made(forward)
    run_twice(weights)
    with pytest.raises(ModelRefused, match=said):
        run_twice(edited(weights, "grid_sampler", **arguments))


def square(self: Any, images: Any) -> Any:
    """Multiply by a size that is free."""
    return images.expand(images.shape[0], -1, -1, -1) * (images.shape[0] * images.shape[0])


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        ("_operator.mul", [1 << 62, 4], "more than 64 bits"),
        ("_operator.pow", [9, 387420489], "to the power"),
        ("_operator.pow", [9, 60], "more than 64 bits"),
        ("_operator.lshift", [1, 1 << 40], "not on the list"),
        ("_operator.mul", ["deer", 1 << 40], "values other than numbers"),
    ],
)
def test_sizes_are_bounded(target: str, arguments: list[Any], said: str) -> None:
    def edit(program: dict[str, Any]) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        (product,) = [node for node in nodes if node["target"] == "_operator.mul"]
        product["target"] = target
        for entry, argument in zip(product["inputs"], arguments, strict=True):
            entry["arg"] = {"as_string" if isinstance(argument, str) else "as_int": argument}

    weights = exported(Made(square))
    run_twice(weights)
    with pytest.raises(ModelRefused, match=said):
        run_twice(changed(weights, in_json("models/", edit)))


def test_mixed_precision_within_the_program_is_refused() -> None:
    def forward(self: Any, images: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.cell(images).mean() + images

    with pytest.raises(ModelRefused, match="autocast"):
        TorchSession(made(forward), threads=1)


def in_graph(edit: Callable[[dict[str, Any]], None]) -> bytes:
    return changed(tiny(), in_json("models/", lambda program: edit(program["graph_module"])))


def specs(module: dict[str, Any], side: str) -> list[Any]:
    return module["signature"][f"{side}_specs"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda module: specs(module, "output").append(
                {"buffer_mutation": {"arg": {"name": "cat"}, "buffer_name": "boxes"}}
            ),
            "changes its own weights",
        ),
        (lambda module: specs(module, "input").pop(), "has the inputs"),
        (lambda module: specs(module, "input").append({"token": {}}), "has the inputs"),
        (lambda module: module["graph"]["nodes"].append(module["graph"]["nodes"][-1]), "two values with the name cat"),
        (lambda module: module["graph"]["outputs"].append({"as_int": 1}), "KeyError"),
        (lambda module: module["graph"]["outputs"].clear(), "0 outputs but 1 names"),
        (lambda module: module["graph"]["tensor_values"]["images"].update(sizes=[{"as_int": 1 << 70}]), "a size is"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(edit: Callable[[dict[str, Any]], None], said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        TorchSession(in_graph(edit), threads=1)


def test_an_input_that_is_no_image_is_refused() -> None:
    program = torch.export.export(torch.nn.Linear(SIDE_PX, 2), (torch.zeros(1, SIDE_PX),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with pytest.raises(ModelRefused, match="an image of rank 4"):
        TorchSession(buffer.getvalue(), threads=1)


CODE = "'\"\"\"'\n__import__('os').mkdir('executed')\n#{}\\"
"""Text that would end a literal, a comment or a line, if it reached code."""


def named_by_code(value: Any, names: frozenset[str]) -> Any:
    """Append CODE to the names of all values of a graph; names of arguments are those of the operators."""
    if isinstance(value, dict):
        argument = {"name", "arg"} <= value.keys()
        return {
            key if key not in names else key + CODE: each if argument and key == "name" else named_by_code(each, names)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [named_by_code(each, names) for each in value]
    return value + CODE if value in names else value


def test_texts_of_a_file_are_only_literals_in_the_code_that_torch_makes() -> None:
    texts = [{"as_string": CODE}, {"as_int": CODE}, {"as_bool": CODE}]
    numbers = [{"as_float": "-Infinity"}, {"as_float": "NaN"}, {"as_int": -(10**40)}, {"as_floats": [-1e-9]}]

    def edit(program: dict[str, Any]) -> None:
        module = program["graph_module"]
        names = frozenset(module["graph"]["tensor_values"])
        module["graph"]["nodes"].append(
            {
                "target": "torch.ops.aten.gelu.default",
                "inputs": [
                    {"name": "self", "arg": {"as_tensor": {"name": "images"}}},
                    {"name": "approximate", "arg": {"as_optional_tensors": texts + numbers}},
                ],
                "outputs": [{"as_tensor": {"name": f"more{CODE}"}}],
                "metadata": {"stack_trace": CODE, CODE: CODE},
            }
        )
        for part in ("graph", "signature"):
            module[part] = named_by_code(module[part], names)

    archive = read_archive(changed(tiny(), in_json("models/", edit)))
    *_, program = read_program(archive, "cpu")
    nodes = list(ast.walk(ast.parse(program._module.code)))
    assert not [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom | ast.Lambda | ast.JoinedStr)]
    assert [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)] == [CODE] * 3
    names = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    called = {ast.unparse(n.func) for n in nodes if isinstance(n, ast.Call)}
    steps = r"sym_size_int|flatten_using_ints|(conv2d|sigmoid|expand|cat|gelu)_default"
    own = rf"self|kept|images|weight_\d|torch|inf|nan|{steps}"
    assert [name for name in names if not re.fullmatch(own, name)] == []
    assert [name for name in called if not re.fullmatch(r"torch\.ops\.aten\.\w+\.\w+", name)] == []
