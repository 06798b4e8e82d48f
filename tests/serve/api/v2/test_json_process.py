"""Large JSON of /v2 is parsed and written in another process."""

from __future__ import annotations

import json
import operator
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from model_store.errors import BadRequest, Overloaded
from serve.api.v2.bodies import LARGE_BYTES, with_json
from serve.api.v2.codec import parse_json
from serve.api.v2.json_process import ROOT, JsonProcess
from serve.api.v2.tensors import json_outputs

NUMBERS = np.random.default_rng(5).random(60_000, np.float32)
TENSOR = {"name": "images", "shape": [60_000], "datatype": "FP32", "data": NUMBERS.tolist()}
LARGE = json.dumps({"inputs": [TENSOR]}).encode()


@pytest.fixture
def other() -> Iterator[JsonProcess]:
    process = JsonProcess()
    yield process
    process.stop()


async def test_large_json_is_handled_in_another_process_which_gets_no_ctrl_c(other: JsonProcess) -> None:
    assert await with_json(LARGE_BYTES, os.getpid) == os.getpid() != await with_json(len(LARGE), os.getpid)
    assert other.call(os.getpgrp) != os.getpgrp()
    header, data = other.call(parse_json, LARGE)
    assert header == parse_json(LARGE)[0]
    np.testing.assert_array_equal(data, NUMBERS)
    outputs = {"a": NUMBERS, "b": NUMBERS[:0].reshape(0, 4)}
    assert other.call(json_outputs, outputs) == json_outputs(outputs)


def test_errors_are_those_of_this_process(other: JsonProcess) -> None:
    with pytest.raises(BadRequest, match="the body is not JSON"):
        other.call(parse_json, b"x")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        other.call(operator.floordiv, 1, 0)
    assert other.call(operator.add, 1, 1) == 2


def test_a_process_that_ends_costs_one_call_and_is_started_again(other: JsonProcess) -> None:
    first = other.call(os.getpid)
    with pytest.raises(Overloaded, match="has ended: try again"):
        other.call(os.kill, first, signal.SIGKILL)
    assert other.call(os.getpid) != first


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, time; from serve.api.v2.json_process import JsonProcess; process = JsonProcess(); "
        "print(process.call(os.getpid), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        other = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    other.wait(30)
