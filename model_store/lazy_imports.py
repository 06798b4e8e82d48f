"""Import at first use, so that help and completion load no library, and a command loads only what it runs.

    with lazy_imports():
        from archive.views.query import query

The name is bound to a stand-in, which imports `archive.views.query` on a call or attribute access. This works for
modules, functions and classes; import constants, enumerations and exceptions as usual. Python 3.15 has a statement for
it (PEP 810).
"""

from __future__ import annotations

import builtins
import sys
from importlib import import_module
from typing import Any


class StandIn:
    """A module, or a name from a module, that is not imported yet."""

    def __init__(self, module: str, name: str | None = None) -> None:
        self._module, self._name = module, name

    def resolved(self) -> Any:
        """Import and return it. Raises ImportError."""
        module = import_module(self._module)
        if self._name is None:
            return module
        try:
            return getattr(module, self._name)
        except AttributeError:
            return import_module(f"{self._module}.{self._name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.resolved()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.resolved(), name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.resolved())


class _Names:
    """The module of a `from` import; its attributes are the names imported from it."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> StandIn:
        return StandIn(self._module, name)


class lazy_imports:  # noqa: N801 - it reads as a statement
    """Bind the names that the importing module imports in this block to stand-ins."""

    def __enter__(self) -> None:
        importer = sys._getframe(1).f_globals  # pyright: ignore[reportPrivateUsage]
        self._import = real = builtins.__import__

        def stand_in(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            if globals is not importer:  # another thread
                return real(name, globals, locals, fromlist, level)
            return _Names(name) if fromlist else StandIn(name)

        builtins.__import__ = stand_in

    def __exit__(self, *_: object) -> None:
        builtins.__import__ = self._import
