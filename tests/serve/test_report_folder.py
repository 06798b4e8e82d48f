"""A report is in a folder of its own, and work that fails leaves no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.errors import BadRequest
from serve.report_folder import RESERVED, require_empty, reserved, write_file


def test_a_folder_is_reserved_once_and_gone_without_a_report(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with reserved(str(out)) as folder:
        assert folder.names() == [RESERVED]
        with pytest.raises(BadRequest, match="not empty"), reserved(str(out)):
            pass
        assert folder.names() == [RESERVED], "the other reservation stays"
    assert not out.exists(), "no file was written"


def test_a_report_stays_and_is_not_written_over(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with reserved(out) as folder:
        write_file(folder, "samples/1.jpg", b"jpeg")
        write_file(folder, "index.html", "a\ud800b")
    assert {path.name for path in Path(out).iterdir()} == {"samples", "index.html"}
    assert (tmp_path / "out" / "index.html").read_text() == r"a\ud800b", "a name that is not UTF-8 is still written"
    with pytest.raises(BadRequest, match="not empty: use a new folder"):
        require_empty(out)
    with pytest.raises(BadRequest, match="not empty"), reserved(out):
        pass


def test_a_folder_that_exists_stays(tmp_path: Path) -> None:
    with reserved(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRequest, match="not empty"):
        require_empty(str(tmp_path / "file"))
