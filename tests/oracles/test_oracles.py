"""The oracles on numbers worked out by hand, and the hostile images on what they claim to be."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.hostile_images import also_acceptable, expectation, hostile_bodies
from tests.hostile_jpegs import upright_pixels
from tests.oracles.geometry import (
    BOX_BACK,
    PLACE,
    Geometry,
    fit_top_left,
    fit_top_left_box_back,
    letterbox,
    letterbox_box_back,
    resize_pixels,
    stretch,
    stretch_box_back,
)
from tests.oracles.nms import iou, nms
from tests.oracles.yolov8 import decode, detect, tensor

GEOMETRIES: tuple[Geometry, ...] = ("letterbox", "stretch", "fit_top_left")


def test_letterbox_of_a_500_x_700_image() -> None:
    # r = 640/700; 500 * r = 457.14 -> 457; (640 - 457) / 2 = 91.5 -> 91 left, 92 right.
    assert letterbox(500, 700, 640) == (457, 640, 91, 0, 640 / 700, 640 / 700)


def test_letterbox_rounds_half_to_even() -> None:
    # 5 * 0.5 = 2.5 -> 2, and 7 * 0.5 = 3.5 -> 4.
    assert letterbox(10, 5, 5)[:4] == (5, 2, 0, 1)
    assert letterbox(10, 7, 5)[:4] == (5, 4, 0, 0)


def test_letterbox_scales_up() -> None:
    assert letterbox(100, 50, 300) == (300, 150, 0, 75, 3.0, 3.0)


def test_letterbox_inverse_uses_the_integer_pad() -> None:
    # Pad 91 (not 91.5); the picture's left edge comes back to exactly 0.
    back = letterbox_box_back((91, 0, 91 + 320, 320), 500, 700, 640)
    assert back == pytest.approx((0, 0, 350, 350))


def test_letterbox_inverse_clips_to_the_image() -> None:
    assert letterbox_box_back((0, -9, 640, 999), 500, 700, 640) == (0, 0, 500, 700)


def test_stretch_inverse() -> None:
    assert stretch(600, 150, 300) == (300, 300, 0, 0, 0.5, 2.0)
    assert stretch_box_back((10, 20, 30, 40), 600, 150, 300) == (20, 10, 60, 20)


def test_fit_top_left_inverse() -> None:
    assert fit_top_left(800, 400, 200) == (200, 100, 0, 0, 0.25, 0.25)
    assert fit_top_left_box_back((10, 20, 30, 40), 800, 400, 200) == (40, 80, 120, 160)
    assert fit_top_left_box_back((0, 0, 200, 200), 800, 400, 200) == (0, 0, 800, 400)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_one_pixel_wide_images_keep_one_pixel(geometry: Geometry) -> None:
    placement = PLACE[geometry](1, 2000, 300)
    assert placement.new_w >= 1
    assert placement.new_h == 300


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(500, 700), (1024, 681), (13, 900), (640, 640)])
def test_a_box_placed_by_the_forward_scale_comes_back(geometry: Geometry, size: tuple[int, int]) -> None:
    w, h = size
    _, _, left, top, scale_x, scale_y = PLACE[geometry](w, h, 640)
    box = (w * 0.2, h * 0.1, w * 0.7, h * 0.9)
    x1, y1, x2, y2 = box
    there = (x1 * scale_x + left, y1 * scale_y + top, x2 * scale_x + left, y2 * scale_y + top)
    assert BOX_BACK[geometry](there, w, h, 640) == pytest.approx(box)


def test_pixels_are_placed_on_the_pad() -> None:
    white = np.full((50, 100, 3), 255, np.uint8)
    boxed = resize_pixels(white, "letterbox", side=100)
    assert boxed[:25].tolist() == np.full((25, 100, 3), 114).tolist()
    assert (boxed[25:75] == 255).all()
    assert (boxed[75:] == 114).all()
    cornered = resize_pixels(white, "fit_top_left", side=100, pad_value=0)
    assert (cornered[:50] == 255).all()
    assert (cornered[50:] == 0).all()
    assert (resize_pixels(white, "stretch", side=30) == 255).all()


def test_iou_by_hand() -> None:
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0
    assert iou((1, 1, 1, 5), (1, 1, 1, 5)) == 0.0


def test_inclusive_pixels_by_hand() -> None:
    # 0..1 is two pixels: areas 4 and 4, and the column 1 of two rows is shared.
    assert iou((0, 0, 1, 1), (1, 0, 2, 1), one_px=1.0) == pytest.approx(2 / 6)
    assert iou((0, 0, 1, 1), (2, 0, 3, 1), one_px=1.0) == 0.0  # next to each other
    assert iou((0, 0, 1, 1), (4, 0, 5, 1), one_px=1.0) == 0.0
    assert iou((3, 3, 3, 3), (3, 3, 3, 3), one_px=1.0) == 1.0  # one pixel
    assert iou((5, 0, 3, 9), (0, 0, 9, 9), one_px=1.0) == 0.0  # inverted
    # Half a pixel: 1.5 x 1.5 each, 0.5 x 1.5 shared.
    assert iou((0, 0, 1, 1), (1, 0, 2, 1), one_px=0.5) == pytest.approx(0.75 / 3.75)


def test_nms_of_inclusive_pixels() -> None:
    # Apart as rectangles; as pixels they share 2 of 6.
    boxes = [(0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 2.0, 1.0)]
    assert nms(boxes, [0.5, 0.9], [0, 0], threshold=0.3) == [1, 0]
    assert nms(boxes, [0.5, 0.9], [0, 0], threshold=0.3, one_px=1.0) == [1]
    assert nms(boxes, [0.5, 0.9], [0, 0], threshold=0.34, one_px=1.0) == [1, 0]
    assert nms(boxes, [0.5, 0.9], [0, 1], threshold=0.3, one_px=1.0) == [1, 0]


# The second overlaps the first by 8 of 10 columns: IoU 80/120 = 2/3. The third lies apart.
THREE = [(0.0, 0.0, 10.0, 10.0), (2.0, 0.0, 12.0, 10.0), (50.0, 50.0, 60.0, 60.0)]


def test_nms_of_three_boxes() -> None:
    assert nms(THREE, [0.5, 0.9, 0.7], [0, 0, 0], threshold=0.5) == [1, 2]
    assert nms(THREE, [0.5, 0.9, 0.7], [0, 0, 0], threshold=0.7) == [1, 2, 0]


def test_nms_threshold_is_strict() -> None:
    assert nms(THREE, [0.5, 0.9, 0.7], [0, 0, 0], threshold=80 / 120) == [1, 2, 0]


def test_nms_class_aware_or_not() -> None:
    assert nms(THREE, [0.5, 0.9, 0.7], [0, 1, 0], threshold=0.5) == [1, 2, 0]
    assert nms(THREE, [0.5, 0.9, 0.7], [0, 1, 0], threshold=0.5, class_aware=False) == [1, 2]


def test_nms_ties_keep_the_input_order_and_the_cut_comes_last() -> None:
    assert nms(THREE, [0.5, 0.5, 0.5], [0, 0, 0], threshold=0.5) == [0, 2]
    assert nms(THREE, [0.5, 0.5, 0.5], [0, 0, 0], threshold=0.5, max_detections=1) == [0]
    assert nms(THREE, [0.5, 0.5, 0.5], [0, 0, 0], threshold=0.5, max_detections=0) == []


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = [(0.0, 0.0, 10.0, 10.0), (4.0, 0.0, 14.0, 10.0), (8.0, 0.0, 18.0, 10.0)]
    assert nms(chain, [0.9, 0.8, 0.7], [0, 0, 0], threshold=0.4) == [0, 2]


class FakeSession:
    """Answers with three fixed anchors, two of them of one object; remembers what it was fed."""

    def get_inputs(self) -> list["FakeSession"]:
        return [self]

    name = "images"

    def run(self, _: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.fed = feeds["images"]
        anchors = [(10, 20, 8, 4, 0.5, 0.25), (10, 20, 8, 4, 0.75, 0.25), (30, 30, 10, 10, 0.125, 0.125)]
        return [np.asarray(anchors, np.float32).T[np.newaxis]]


def test_decode_ties_go_to_the_lowest_class_and_the_floor_is_left_out() -> None:
    (output,) = FakeSession().run(None, {"images": np.zeros(1)})
    boxes, scores, classes = decode(output, 0.124)
    assert boxes == [(6, 18, 14, 22), (6, 18, 14, 22), (25, 25, 35, 35)]
    assert scores == [0.5, 0.75, 0.125]
    assert classes == [0, 0, 0]
    assert len(decode(output, 0.125)[0]) == 2


def test_detect_end_to_end_on_a_fake_session() -> None:
    session = FakeSession()
    image = np.zeros((80, 20, 3), np.uint8)
    image[..., 0] = 255
    nms_options = {"iou": 0.5, "class_aware": True, "max_detections": 10}
    found = detect(session, image, side=40, geometry="stretch", score_floor=0.1, **nms_options)
    assert found == [(0, 0.75, 3, 36, 7, 44), (0, 0.125, 12.5, 50, 17.5, 70)]
    assert session.fed.shape == (1, 3, 40, 40)
    assert session.fed.dtype == np.float32
    assert session.fed.max(axis=(0, 2, 3)).tolist() == [1, 0, 0]


def test_tensor_is_rgb_planes() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (51, 102, 255)
    assert tensor(pixels)[0, :, 0, 1].tolist() == pytest.approx([0.2, 0.4, 1.0])


def test_hostile_bodies_are_the_same_each_time() -> None:
    bodies = hostile_bodies()
    assert bodies == hostile_bodies.__wrapped__()
    assert bodies.keys() == expectation.keys()
    assert also_acceptable.keys() <= expectation.keys()
    answers = {"ok", "note", "unreadable", "unsupported", "too_large"}
    assert set(expectation.values()) == answers
    assert all(also_acceptable[name] in answers - {expectation[name]} for name in also_acceptable)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_show_the_upright_picture(orientation: int) -> None:
    body = hostile_bodies()[f"jpeg_orientation_{orientation}"]
    with Image.open(io.BytesIO(body)) as image:
        turned = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    assert turned.shape == upright_pixels().shape
    assert np.abs(turned - upright_pixels()).mean() < 8
