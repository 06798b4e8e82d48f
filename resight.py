"""The command line: `resight --help`. The commands are in `cli/`, one file a group."""

from cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
