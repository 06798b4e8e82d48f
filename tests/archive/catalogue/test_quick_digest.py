"""The digest by which a run detects that a file has changed since it was catalogued."""

from __future__ import annotations

from archive.catalogue.quick_digest import quick_digest


def test_it_is_xxh3_of_64_bits_as_its_specification_says() -> None:
    assert quick_digest(b"") == 0x2D06800538D394C2  # the specification's value for no bytes and seed 0


def test_it_fits_a_signed_number_whatever_the_bytes() -> None:
    found = [quick_digest(bytes([i])) for i in range(256)]
    assert all(-(2**63) <= one < 2**63 for one in found)
    assert min(found) < 0 < max(found)
    assert len(set(found)) == 256
