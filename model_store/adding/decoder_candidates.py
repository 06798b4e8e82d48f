"""Find the decoders that fit the outputs of a graph: evidence, number of classes -> names of decoders.

The names of the outputs decide if they are those of a format; else each decoder's rule compares shapes and metadata.
"""

from __future__ import annotations

from model_store.decoders import DECODERS
from model_store.decoders.evidence import Evidence


def candidates(evidence: Evidence, classes: int) -> list[str]:
    """Return the decoders that fit; the user must decide unless there is exactly one."""
    given = set(evidence.outputs)
    names = max((d.names for d in DECODERS.values() if d.names <= given), key=len)
    ranks = tuple(sorted(out.ndim for out in evidence.outputs.values()))
    return [
        name
        for name, decoder in DECODERS.items()
        if decoder.fits
        and decoder.names == names
        and (names or decoder.ranks == ranks)
        and decoder.fits(evidence, classes)
    ]


def possible(evidence: Evidence) -> list[str]:
    """Return the decoders for this number of outputs, or those for one output if there are none."""
    by_count: dict[int, list[str]] = {}
    for name, decoder in DECODERS.items():
        if decoder.fits:
            by_count.setdefault(len(decoder.names or decoder.ranks), []).append(name)
    return sorted(by_count.get(len(evidence.outputs), by_count[1]))
