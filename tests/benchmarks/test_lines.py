"""lines: what is counted, and what is not."""

from pathlib import Path

from benchmarks.peers.lines import lines, lines_of

PYTHON = '''"""A module's docstring,
of two lines."""

import os  # a comment behind code does not hide it

# a comment


class Model:
    """What it is."""

    def run(self):
        "One more docstring."
        words = """a value,

        not a docstring"""
        return (
            words,
            os.name,
        )


def one_line(): "a docstring behind its def"
'''


def test_python_counts_code_and_values_but_no_docstrings():
    # import, class, def, the value's three lines, return's four, the last def
    assert lines(PYTHON, ".py") == 11


def test_a_folder_leaves_out_what_the_harness_alone_reads(tmp_path: Path):
    (tmp_path / "run.py").write_text("a = 1\nb = 2\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "settings.json").write_text('{"a": 1}\n')
    for name in ("peer.toml", "request.py", "prepare.py", "requirements.txt", "README.md"):
        (tmp_path / name).write_text("c = 3\n")
    assert lines_of(tmp_path) == 3
    assert lines_of(tmp_path / "run.py") == 2
