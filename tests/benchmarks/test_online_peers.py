"""Folders of online peers: what each must say, and that other versions than Resight's have a reason."""

import json
import re
from pathlib import Path

import pytest
from packaging.version import Version

from benchmarks.peers.online.check import BOX_PX, SCORE, differences
from benchmarks.peers.peer import read_peer
from tests.lock import locked

ROOT = Path(__file__).resolve().parents[2]
ONLINE = ROOT / "benchmarks" / "peers" / "online"
FOLDERS = sorted(file.parent for file in ONLINE.glob("*/requirements.txt"))
PIN = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?==([0-9][0-9a-z.]*)")
GIVEN = {"PEER_PORT", "PEER_MODEL", "PEER_CORES"}
NEEDED = {"onnxruntime", "opencv-python-headless", "simplejpeg", "numpy"}
FRAMEWORK = {
    "bentoml": "bentoml",
    "control": "fastapi",
    "fastapi": "fastapi",
    "litserve": "litserve",
    "mlserver": "mlserver",
    "ray_serve_batch": "ray",
}
each_peer = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def pins(file: Path) -> dict[str, tuple[str, bool]]:
    """Package to version and whether the line before says why it is that one."""
    found: dict[str, tuple[str, bool]] = {}
    said = False
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            said = True
            continue
        pin = PIN.fullmatch(line)
        assert pin, f"{file}: {line!r} is no exact pin"
        found[pin[1].lower()] = (pin[2], said)
        said = False
    return found


def test_every_peer_is_known():
    assert {folder.name for folder in FOLDERS} == set(FRAMEWORK)


@each_peer
def test_pins_are_exact_and_whole_and_those_of_resight_unless_it_says_why(folder: Path):
    own, ours = pins(folder / "requirements.txt"), locked()
    assert own.keys() >= NEEDED
    differing = {
        name: version
        for name, (version, why) in own.items()
        if name in ours and Version(version) not in ours[name] and not why
    }
    assert not differing


@each_peer
def test_peer_toml_says_what_is_needed(folder: Path):
    peer = read_peer(folder)
    assert pins(folder / "requirements.txt")[FRAMEWORK[folder.name]][0] == peer.version
    names = [config.name for config in peer.configs]
    assert len(set(names)) == len(names)
    assert len(names) == 1 if folder.name == "control" else 2 <= len(names) <= 3


def test_v2_carries_the_bytes_and_brings_back_the_detections():
    mlserver = read_peer(ONLINE / "mlserver")
    path, headers, body = mlserver.request(b"\x00\xff\xd8")
    assert path == mlserver.path
    assert headers["content-type"] == "application/json"
    (tensor,) = json.loads(body)["inputs"]
    assert (tensor["datatype"], tensor["shape"], tensor["data"]) == ("BYTES", [1, 1], ["AP/Y"])
    answer = b'{"outputs":[{"name":"detections","data":["[{\\"label\\": \\"fox\\"}]"]}]}'
    assert mlserver.detections(answer) == [{"label": "fox"}]


def one(label: str = "fox", score: float = 0.5, left: float = 10.0) -> dict[str, object]:
    return {"label": label, "score": score, "box_xyxy_px": [left, 20.0, 30.0, 40.0]}


def test_what_agrees_and_what_does_not():
    assert differences([], []) == []
    near = one(score=0.5 + SCORE * 0.9, left=10 + BOX_PX * 0.9)
    assert differences([near, one("hare")], [one(), one("hare")]) == []
    assert "labels" in differences([one()], [one("hare")])[0]
    assert "labels" in differences([one()], [])[0]
    assert "score" in differences([one(score=0.5 + SCORE * 1.1)], [one()])[0]
    assert "10.55" in differences([one(left=10.0 + BOX_PX * 1.1)], [one()])[0]
