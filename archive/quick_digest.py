"""Whether a file's bytes are still those that were catalogued, for a fiftieth of what sha256 takes.

XXH3 (64 bits; xxhash.com) finds changes and damage, not forgery: identity stays with media_sha256, and
this is only ever compared for a file whose sha256 was taken from the same bytes (docs/decisions/0019).
"""

from __future__ import annotations

import xxhash

_SIGN = 2**63


def quick_digest(data: bytes) -> int:
    """XXH3-64 as a signed number of 64 bits, which every table format can hold."""
    digest = xxhash.xxh3_64_intdigest(data)
    return digest - 2 * _SIGN if digest >= _SIGN else digest
