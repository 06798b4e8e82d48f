"""Describe what a check found, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

RESTORE = "restore it from the backup, with the other tables of the same backup"


@dataclass(frozen=True, slots=True)
class Finding:
    """A contradiction in one `subject`: the problem, and the action that ends it.

    `repair` ends it and loses nothing that cannot be made again; None if a person must decide.
    """

    check: str
    subject: str
    problem: str
    action: str
    repair: Callable[[], object] | None = field(default=None, repr=False, compare=False)
