"""The motion runtime detects contrasting blobs at their place, and nothing on a blank image."""

from functools import cache

import cv2
import numpy as np
import pytest

from model_store.config import MotionRuntime
from model_store.detector import LoadedDetector
from model_store.images.decode import Pixels
from model_store.load import load_detector
from model_store.names import parse_version
from model_store.runtimes.motion import MotionSession
from model_store.store import ModelStore
from tests.shared_data import MODELS

BLOB = (230, 170, 310, 230)  # x1, y1, x2, y2


@cache
def motion() -> LoadedDetector:
    return load_detector(ModelStore(str(MODELS)), parse_version("motion@1"))


def field(*boxes: tuple[int, int, int, int], ground: int = 200, blob: int = 60) -> Pixels:
    """Return an image of 480 x 640 in one grey, with an ellipse of another grey in each box."""
    image = np.full((480, 640, 3), ground, np.uint8)
    for x1, y1, x2, y2 in boxes:
        centre, axes = ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2)
        cv2.ellipse(image, centre, axes, 0, 0, 360, (blob,) * 3, -1)
    return image


@pytest.mark.parametrize("grey", [0, 128])
def test_nothing_is_found_on_a_flat_picture(grey: int) -> None:
    (found,) = motion().detect([field(ground=grey)])
    assert len(found) == 0


@pytest.mark.parametrize(("ground", "blob"), [(200, 140), (100, 150)])
@pytest.mark.parametrize("box", [BLOB, (400, 100, 560, 220)])
def test_a_blob_is_found_where_it_is(ground: int, blob: int, box: tuple[int, int, int, int]) -> None:
    (found,) = motion().detect([field(box, ground=ground, blob=blob)])
    assert len(found) == 1
    assert np.abs(found.boxes_xyxy[0] - box).max() <= 3
    assert found.class_ids.tolist() == [0]
    assert 0.1 < found.scores[0] <= 1


def test_more_blobs_than_the_list_holds_are_cut_to_the_strongest() -> None:
    session = MotionSession(MotionRuntime(max_blobs=2, background_sigma_px=12))
    image = field((40, 40, 100, 100), (300, 40, 360, 100), blob=100)
    image = np.minimum(image, field((40, 300, 100, 360), blob=20))
    tensor = image.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / np.float32(255)
    blobs = session.run(tensor)["blobs"]
    assert blobs.shape == (1, 2, 5)
    assert blobs[0, 0, 1] > 250
    assert (blobs[0, :, 4] > 0).all()
