"""Lineages of classes: taxa as tuples of names from coarse to fine, "mammalia;carnivora;…", and their labels."""

from __future__ import annotations

from collections import Counter

from batch.filters.contract import Rows

Taxon = tuple[str, ...]


def taxon_of(lineage: str) -> Taxon:
    """Return the names from coarse to fine, without empty ones at the end."""
    parts = [part.strip() for part in lineage.split(";")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def has_rank(taxon: Taxon, depth: int) -> bool:
    """Return whether a lineage has a name at this depth, from 1."""
    return len(taxon) >= depth and bool(taxon[depth - 1])


def labels_of_taxa(rows: Rows) -> dict[Taxon, str]:
    """Return the class of each taxon at which exactly one class's lineage ends."""
    ends = [taxon_of(text) for text in rows.class_lineage]
    count = Counter(ends)
    return {end: name for end, name in zip(ends, rows.classes, strict=True) if end and count[end] == 1}
