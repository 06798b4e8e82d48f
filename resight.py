"""Entry point of the `resight` command; checks first that no other module hides a package of Resight."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

INTERRUPTED = 130
"""Exit code at Ctrl-C: 128 + SIGINT, as in a shell."""
PACKAGES = ("archive", "batch", "cli", "model_store", "pages", "serve")


def require_own_packages() -> None:
    """Raise ImportError if another module, such as a `serve.py` in the current folder, hides a package of Resight.

    `python -m` searches the current folder first, and the packages have common names.
    """
    home = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = PathFinder.find_spec(name)
        path = Path(spec.origin).resolve() if spec and spec.origin else None
        if path is None or path.parent.parent != home:
            problem = f"is hidden by {path}" if path else "cannot be found"
            raise ImportError(
                f"the package '{name}' of Resight {problem}; start Python in another folder or with the option -P"
            )


def main() -> None:
    """Run the command line."""
    try:
        require_own_packages()
    except ImportError as error:
        sys.exit(f"resight: {error}")
    from model_store.process_exit import final_exit

    with final_exit():
        try:
            from cli.main import main as command_line
        except KeyboardInterrupt:
            print("interrupted: nothing was started", file=sys.stderr)
            sys.exit(INTERRUPTED)
        try:
            command_line()
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
