"""The folder of a sweep: a page that is whole, a plot that is where it should be, facts that come back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.add import recognised
from model_store.errors import BadRequest, StorageUnreachable
from model_store.names import version_id
from model_store.storage import Folder
from model_store.store import ModelStore, ModelVersion
from serve.settings import Settings
from serve.tune import shrunk
from serve.tune.facts import Measured, Photos
from serve.tune.page import page
from serve.tune.report import (
    RESERVED,
    default_out,
    read_report,
    require_empty,
    reserved,
    write_report,
)
from serve.tune.svg import plot, ticks
from serve.tune.words import advice, doubts, missed, pool_lines, rows, verdict
from tests.fixtures_local import MODELS
from tests.serve.tune.performance import NOW, at, measured, tuned

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "link", "img", "wbr"}
CLOUD = (
    measured(NOW, 50, 40),
    measured(at(batch=4), 70, 80),
    measured(at(threads=2, workers=1), 90, 90),
    measured(at(batch=2), 55, 300),
    measured(at(jpeg_shrink=2), 80, 30),
    Measured(point=at(batch=8), failed="ModelNotReady: <b>no</b> memory"),
)


class Tags(HTMLParser):
    """Every tag opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def version() -> ModelVersion:
    return ModelStore(str(MODELS)).describe(version_id("ssdlite-coco", "1"))


def test_the_page_is_whole_and_runs_nothing() -> None:
    photos = Photos(source="<script>x()</script>&", images=1, mean_bytes=1, mean_megapixels=1.0)
    text = page(tuned(CLOUD, photos=photos), ["take <this>"])
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.seen
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "&lt;script&gt;x()&lt;/script&gt;&amp;" in text
    assert "take &lt;this&gt;" in text
    assert "&lt;b&gt;no&lt;/b&gt; memory" in text
    assert tags.seen.count("tr") == 1 + len(CLOUD)
    assert '<th scope="col">jpeg_<wbr>shrink</th>' in text, (
        "the head of a table may be on two lines"
    )


def test_each_point_is_drawn_at_its_place() -> None:
    drawn = ET.fromstring(plot(tuned(CLOUD)))
    circles = {c.findtext(f"{SVG}title") or "": c for c in drawn.iter(f"{SVG}circle")}
    assert len(circles) == 5, "the failed one has no place"
    place = {
        words.split(":")[0]: (float(c.attrib["cx"]), float(c.attrib["cy"]))
        for words, c in circles.items()
    }
    now, four = place[NOW.words], place[at(batch=4).words]
    two = place[at(batch=2).words]
    assert now[0] < four[0] < two[0], "slower is further right"
    assert four[1] < two[1] < now[1], "more is further up"
    assert two[0] - now[0] == pytest.approx((300 - 40) / (80 - 40) * (four[0] - now[0]), rel=0.02)
    classes = [c.attrib["class"] for c in circles.values()]
    assert sorted(classes) == ["applies", "best", "current", "other", "shrunk"]
    line = next(drawn.iter(f"{SVG}polyline")).attrib["points"].split()
    corners = [(float(x), float(y)) for x, y in (corner.split(",") for corner in line)]
    assert corners == [now, four, place[at(threads=2, workers=1).words]], "no point of another key"


def test_the_objective_is_a_line_where_it_is_near() -> None:
    assert 'class="objective"' in plot(tuned(CLOUD, objective=100))
    assert 'class="objective"' not in plot(tuned([measured(NOW, 5, 4)], objective=10_000))


@pytest.mark.parametrize("points", [(), (Measured(point=at(batch=2), failed="x"),)])
def test_little_can_be_drawn_too(points: tuple[Measured, ...]) -> None:
    ET.fromstring(plot(tuned([measured(NOW, 0.01, 0.5), *points])))
    ET.fromstring(plot(tuned([Measured(point=NOW, failed="y")])))


@given(st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_reach_the_end(most: float) -> None:
    found = ticks(most)
    step = found[1]
    assert 3 <= len(found) <= 8
    assert found[0] == 0
    assert found[-1] <= most * 1.0001 < found[-1] + step * 1.001
    assert f"{step:.0e}"[0] in "125"


def test_the_advice_is_a_command_and_the_lines_to_set() -> None:
    batch, pool = advice(tuned(CLOUD), "/out")
    assert "resight tune deer@3 --from /out --apply" in batch
    assert "batch 4" in batch
    assert "+40%" in batch
    assert "serve/app.yaml, under args: threads: 2, workers: 1; then tune again" in pool
    assert "+80%" in pool


def test_what_is_best_already_needs_no_advice() -> None:
    facts = tuned(CLOUD[:1])
    assert advice(facts, "/out") == []
    assert "current settings are the best" in verdict(facts)


def test_only_what_differs_is_to_be_set() -> None:
    assert pool_lines(at(replicas=2, workers=1), NOW) == "workers: 1, replicas: 2"
    assert pool_lines(NOW, NOW) == ""


def test_a_missed_objective_names_the_nearest_point() -> None:
    facts = tuned(CLOUD, objective=20)
    assert facts.best is None
    words = missed(facts)
    assert words == verdict(facts)
    assert "meets p99 20 ms" in words
    assert f"nearest is {NOW.words}: 50.0 images/s, p99 40 ms" in words


def test_doubts_are_said() -> None:
    assert doubts(tuned(CLOUD[:1])) == []
    busy = tuned(CLOUD).machine.model_copy(update={"others_frac": 0.3})
    few = Measured(point=NOW, rounds=measured(NOW, 9, 9).rounds[:1])
    few = few.model_copy(
        update={"rounds": (few.rounds[0].model_copy(update={"latencies_ms": (1.0, 2.0)}),)}
    )
    said = doubts(tuned([few, CLOUD[-1]], machine=busy, unsteady=0.4))
    assert [any(word in one for one in said) for word in ("30%", "not steady", "2 requests")] == [
        True
    ] * 3
    assert any("no</b> memory" in one for one in said)


def test_rows_say_what_each_point_is() -> None:
    what = {row["batch"]: row["what"] for row in rows(tuned(CLOUD)) if row["threads"] == 1}
    assert what[8] == "failed"
    assert what[4] == "applies, frontier"
    found = [row["what"] for row in rows(tuned(CLOUD))]
    assert found[0] == "current, frontier"
    assert found[2] == "best, frontier"
    assert found[4] == "another key"
    assert [row["meets"] for row in rows(tuned(CLOUD))] == [True, True, True, False, True, False]


def test_the_folder_holds_all_of_it(tmp_path: Path) -> None:
    facts, out = tuned(CLOUD), str(tmp_path / "out")
    with reserved(out) as folder:
        todo = write_report(facts, version(), str(MODELS), folder)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config-jpeg_shrink-2.json", "index.html", "tune.json"]
    assert read_report(out) == facts
    raw = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert len(raw["points"][0]["rounds"][0]["latencies_ms"]) == 200, "raw samples are kept"
    assert len(todo) == 3
    with pytest.raises(BadRequest, match="not empty"):
        require_empty(out)


def test_the_folder_is_kept_for_one_sweep_while_it_measures(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with reserved(str(out)) as folder:
        assert folder.names() == [RESERVED]
        with pytest.raises(BadRequest, match="not empty"), reserved(str(out)):
            pass
        assert folder.names() == [RESERVED], "the other one's is not given back"
    assert not out.exists(), "nothing was measured: as it was"


def test_of_two_sweeps_that_find_it_empty_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.tune.report.require_empty", lambda out: Folder(out))
    with (
        reserved(str(tmp_path / "out")),
        pytest.raises(BadRequest, match="another sweep's"),
        reserved(str(tmp_path / "out")),
    ):
        pass


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), reserved(str(tmp_path)):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StorageUnreachable, match="cannot write"),
        reserved(str(tmp_path / "file" / "out")),
    ):
        pytest.fail("it would be measured")


def test_a_disk_that_is_full_in_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with reserved(str(tmp_path / "out")) as folder:
        monkeypatch.setattr(Folder, "write", full)
        with pytest.raises(StorageUnreachable, match=r"tune\.json: .*No space left"):
            write_report(tuned(CLOUD[:1]), version(), str(MODELS), folder)


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"has no tune.json"):
        read_report(str(tmp_path))
    (tmp_path / "tune.json").write_text('{"model": 1}')
    with pytest.raises(BadRequest, match="no report of this"):
        read_report(str(tmp_path))


def test_a_report_has_a_place_of_its_own(tmp_path: Path) -> None:
    out = default_out(Settings(home=str(tmp_path)), "deer@3", "2026-11-22T08:00:00+00:00")
    assert out == str(tmp_path / "tune" / "deer@3-20261122T080000Z")


def test_scaled_decoding_is_a_new_version_of_the_same_config() -> None:
    facts, known = tuned(CLOUD), version()
    weights = (MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes()
    config = recognised(weights, json.loads(shrunk.config_of(facts, known))).config
    assert config.preprocess.jpeg_shrink == 2
    same = config.preprocess.model_copy(update={"jpeg_shrink": 1})
    assert config.model_copy(update={"preprocess": same}) == known.config
    words = shrunk.words(facts, known, "/models", "/out") or ""
    assert "+60% images/s" in words
    assert "/models/ssdlite-coco/1/model.onnx --name ssdlite-coco" in words
    assert "--config /out/config-jpeg_shrink-2.json" in words
    assert "--probe /models/ssdlite-coco/1/probe/cat.jpg" in words
    assert "never applied" in words


def test_without_scaled_decoding_nothing_is_said_of_it() -> None:
    facts = tuned(CLOUD[:2])
    assert shrunk.config_name(facts) is None
    assert shrunk.words(facts, version(), "/models", "/out") is None
