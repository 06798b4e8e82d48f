"""Test the time of a run by stage, and its bottleneck."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batch.runs.progress import COMMIT_BOUND_FRAC, EXTRA, TimeByStage, bottleneck
from tests.fixtures_local import result_rows


def rows(*nodes: str | None, waited_ms: float = 0.0, **times_ms: float) -> pa.Table:
    """Return an image for each node, each with the same times."""
    times = {f"{name}_ms": value for name, value in times_ms.items()}
    table = result_rows([str(i) for i in range(len(nodes))], **times)
    extra = {"replaces": [False] * len(nodes), "waited_ms": [waited_ms] * len(nodes), "node": list(nodes)}
    for field in EXTRA:
        table = table.append_column(field, pa.array(extra[field.name], field.type))
    return table


def report(*tables: pa.Table, wall_s: float = 10.0, commit_s: float = 0.0) -> dict[str, Any]:
    stages = TimeByStage()
    for table in tables:
        stages.add(table)
    return stages.report(wall_s, commit_s, 3)


def test_a_run_for_nothing_has_no_bottleneck() -> None:
    nothing = report()
    assert nothing.pop("images_by_node") == {}
    assert nothing.pop("bottleneck") is None
    assert nothing.pop("threads") == 3
    assert nothing.pop("wall_s") == 10.0
    assert set(nothing) == {"read_s", "decode_s", "queue_s", "inference_s", "commit_s"}
    assert set(nothing.values()) == {0.0}


def test_times_are_sums_over_all_images_in_seconds() -> None:
    one = rows("a", "b", read=100, decode=200)
    two = rows("a", read=1000, decode=4000)
    found = report(one, two, commit_s=0.25)
    assert found["read_s"] == pytest.approx(1.2)
    assert found["decode_s"] == pytest.approx(4.4)
    assert (found["queue_s"], found["inference_s"]) == (0.0, 0.0)
    assert (found["commit_s"], found["wall_s"], found["threads"]) == (0.25, 10.0, 3)
    assert found["images_by_node"] == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("queue", "inference", "postprocess", "queue_s", "inference_s"),
    [
        (0, 80, 20, 0.0, 2.0),
        (100, 80, 20, 1.0, 1.0),
        (300, 80, 20, 1.5, 0.5),
        (5, 0, 0, 2.0, 0.0),
        (0, 0, 0, 0.0, 2.0),  # no replica has reported its times
    ],
)
def test_the_wait_for_a_replica_is_shared_out_as_replicas_measured_it(
    queue: float, inference: float, postprocess: float, queue_s: float, inference_s: float
) -> None:
    found = report(rows("a", waited_ms=2000, queue=queue, inference=inference, postprocess=postprocess))
    assert found["queue_s"] == pytest.approx(queue_s)
    assert found["inference_s"] == pytest.approx(inference_s)


def seconds(**given: float) -> dict[str, float]:
    names = ("read_s", "decode_s", "queue_s", "inference_s", "commit_s")
    return dict.fromkeys(names, 0.0) | given


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"read_s": 3, "decode_s": 2}, "read"),
        ({"read_s": 3, "decode_s": 3.1}, "decode"),
        ({"decode_s": 3, "inference_s": 2, "queue_s": 0.9}, "decode"),
        ({"decode_s": 3, "inference_s": 2, "queue_s": 1.1}, "inference"),
        ({"decode_s": 3, "queue_s": 3.1}, "inference"),
        ({"read_s": 30, "commit_s": 10 * COMMIT_BOUND_FRAC}, "read"),  # at the limit, not over it
        ({"read_s": 30, "commit_s": 10 * COMMIT_BOUND_FRAC + 0.01}, "commit"),
        ({"commit_s": 9.0}, "commit"),
        ({"commit_s": 0.1}, None),
        ({}, None),
    ],
)
def test_the_bottleneck(given: dict[str, float], name: str | None) -> None:
    assert bottleneck(seconds(**given), 10.0) == name
