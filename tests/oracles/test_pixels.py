"""The way from pixels to rows, on a network whose answer is known and numbers worked out by hand."""

from __future__ import annotations

import numpy as np

from tests.oracles.pixels import Recipe, detect, tensor

# Two anchors of YOLOX, decoded, of one object and of another class; the third is at the floor.
OBJECTS = [(20, 10, 20, 20, 1.0, 0.75, 0.25), (22, 10, 20, 20, 0.5, 0.25, 1.0), (5, 5, 2, 2, 0.5, 0.25, 0.0)]


class Known:
    """Answers with OBJECTS, whatever it is fed, and remembers that."""

    name = "images"

    def get_inputs(self) -> list[Known]:
        return [self]

    def get_outputs(self) -> list[Output]:
        return [Output()]

    def run(self, _: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.fed = feeds["images"]
        return [np.array([OBJECTS], np.float32)]


class Output:
    name = "output0"


def test_rows_are_in_px_of_the_image_and_clipped_to_it() -> None:
    recipe = Recipe("yolox", 40, 2, "fit_top_left", 0.5, one_px=1.0, pad_value=0, class_aware=False)
    session, image = Known(), np.full((20, 80, 3), 255, np.uint8)
    found = detect(session, image, recipe, 0.125)
    # ratio 1/2: (10, 0, 30, 20) becomes (20, 0, 60, 40), of which the picture has 20 rows
    assert found == [(0, 0.75, (20, 0, 60, 20)), (0, 0.125, (8, 8, 12, 12))]
    aware = detect(session, image, recipe._replace(class_aware=True), 0.125)
    assert [row.class_id for row in aware] == [0, 1, 0]
    assert session.fed.shape == (1, 3, 40, 40)
    assert session.fed[0, :, 9, 39].tolist() == [1, 1, 1]
    assert session.fed[0, :, 10, 39].tolist() == [0, 0, 0]


def test_planes_come_in_the_order_and_scale_of_the_recipe() -> None:
    image = np.full((4, 4, 3), (51, 102, 255), np.uint8)
    recipe = Recipe("yolox", 4, 2, "stretch", 0.5)
    np.testing.assert_allclose(tensor(image, recipe)[0, :, 0, 0], [0.2, 0.4, 1.0], rtol=1e-6)
    turned = recipe._replace(bgr=True, scale=1.0)
    assert tensor(image, turned)[0, :, 0, 0].tolist() == [255, 102, 51]
