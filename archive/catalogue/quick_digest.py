"""Compute a fast digest (XXH3) that detects changed files, in a fiftieth of the time of sha256.

XXH3 (64 bits; xxhash.com) detects changes and damage, but not forgery. Identity is media_sha256; this digest is only
compared with that of a row for which both were computed from the same bytes (docs/decisions/0019).
"""

from __future__ import annotations

import xxhash

_SIGN = 2**63


def quick_digest(data: bytes) -> int:
    """Return XXH3-64 as a signed 64-bit integer, which every table format supports."""
    digest = xxhash.xxh3_64_intdigest(data)
    return digest - 2 * _SIGN if digest >= _SIGN else digest
