"""The command line, `resight --help`: the commands are in `cli/`. And the check that our packages are ours."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 130
"""128 + SIGINT, as a shell reports Ctrl-C."""
PACKAGES = ("archive", "batch", "cli", "model_store", "serve")


def require_own_packages() -> None:
    """Raise ImportError where another module hides one of our packages: a `serve.py` in the current folder, say.

    Python looks into the current folder first when it runs `python -m`, and our packages have common names.
    """
    home = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = PathFinder.find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or found.parent.parent != home:
            raise ImportError(
                f"the module '{name}' of Resight is hidden by {found or 'nothing that can be found'}; "
                "start Python in another folder, or with the option -P"
            )


def main() -> None:
    """Run the command line."""
    try:
        require_own_packages()
    except ImportError as error:
        sys.exit(f"resight: {error}")
    try:
        from cli.main import main as command_line
    except KeyboardInterrupt:
        print("interrupted: nothing was started", file=sys.stderr)
        _end_now()
    try:
        command_line()
    except KeyboardInterrupt:
        _end_now()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end_now()
        raise


def _end_now() -> NoReturn:
    """End with INTERRUPTED, without unloading modules: on a busy machine that takes seconds."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
