"""Tables that cost many times their size are rejected; ordinary files are not."""

from __future__ import annotations

import pytest

from model_store.errors import ImageUnreadable
from model_store.images.header import require_bounded_tiff
from tests.hostile_bombs import UNDEFINED, tiff_of_tags

LONG8, SLONG8, IFD8, UNKNOWN = 16, 17, 18, 99


@pytest.mark.parametrize("kind", [UNDEFINED, LONG8, SLONG8, IFD8, UNKNOWN])
def test_tags_that_overlap_are_refused_whatever_their_type(kind: int) -> None:
    with pytest.raises(ImageUnreadable, match="they overlap"):
        require_bounded_tiff(tiff_of_tags(150, 4096, kind))


@pytest.mark.parametrize("kind", [UNDEFINED, LONG8, UNKNOWN])
def test_a_tag_of_any_type_is_taken(kind: int) -> None:
    require_bounded_tiff(tiff_of_tags(1, 4096, kind))
