"""The folder of a sweep: a valid page, a plot with points at their places, and facts that can be read again."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from model_store.adding.add import recognised
from model_store.errors import BadRequest
from model_store.storage import Folder
from serve.tune.report import advice, doubts, page, plot, read_report, rows, verdict, write_report
from serve.tune.results import MeasuredPoint, Photos, TuningResult
from tests.fixtures_local import MODELS
from tests.serve.tune.performance import NOW, SETUP, at, measured, result, shipped

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "link", "img", "wbr"}
CLOUD = (
    measured(NOW, 50, 40),
    measured(at(batch=4), 70, 80),
    measured(at(threads=2, workers=1), 90, 90),
    measured(at(batch=2), 55, 300),
    measured(at(jpeg_shrink=2), 80, 30),
    MeasuredPoint(point=at(batch=8), failed="ModelNotReady: <b>no</b> memory"),
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


def todo(facts: TuningResult, store: str = "/models") -> dict[str, str]:
    return advice(facts, shipped(), store, "/out")


def drawn(facts: TuningResult) -> ET.Element:
    return ET.fromstring(plot(rows(facts), facts.objective_p99_ms))


def test_the_page_is_whole_and_runs_nothing() -> None:
    photos = Photos(source="<script>x()</script>&", images=1, mean_bytes=1, mean_megapixels=1.0)
    text = page(result(CLOUD, photos=photos), ["take <this>"])
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.seen
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "&lt;script&gt;x()&lt;/script&gt;&amp;" in text
    assert "take &lt;this&gt;" in text
    assert "&lt;b&gt;no&lt;/b&gt; memory" in text
    assert tags.seen.count("tr") == 1 + len(CLOUD)
    assert "<th>jpeg_<wbr>shrink</th>" in text, "the header may have two lines"


def test_each_point_is_drawn_at_its_place() -> None:
    svg = drawn(result(CLOUD))
    circles = list(svg.iter(f"{SVG}circle"))
    assert len(circles) == 5, "not the failed one"
    places = {
        (c.findtext(f"{SVG}title") or "").split(", wait")[0] + c.attrib["class"]: (
            float(c.attrib["cx"]),
            float(c.attrib["cy"]),
        )
        for c in circles
    }
    now, four = places["batch 1current frontier"], places["batch 4applies frontier"]
    two, best = places["batch 2"], places["batch 1best frontier"]
    assert "batch 1another key" in places
    assert now[0] < four[0] < two[0], "slower is further right"
    assert four[1] < two[1] < now[1], "more is further up"
    assert two[0] - now[0] == pytest.approx((300 - 40) / (80 - 40) * (four[0] - now[0]), rel=0.02)
    line = next(svg.iter(f"{SVG}polyline")).attrib["points"].split()
    corners = [(float(x), float(y)) for x, y in (corner.split(",") for corner in line)]
    assert corners == [now, four, best], "no point of another key"


def test_labels_of_near_points_do_not_overlap() -> None:
    near = [measured(at(batch=batch), 50 + batch, 40 + batch) for batch in (1, 2, 4)]
    svg = drawn(result(near))
    labels = [t for t in svg.iter(f"{SVG}text") if "frontier" in (t.text or "")]
    heights = sorted(float(label.attrib["y"]) for label in labels)
    assert len(labels) == 3
    assert all(below - above >= 14 for above, below in itertools.pairwise(heights))


def test_the_advice_is_a_command_and_the_lines_to_write() -> None:
    lines = todo(result(CLOUD))
    assert "resight tune deer@3 --from /out --apply" in lines["apply"]
    assert "batch 4" in lines["apply"]
    assert "+40%" in lines["apply"]
    assert "serve/app.yaml, under args: threads: 2, workers: 1; then tune again" in lines["pool"]
    assert "+80%" in lines["pool"]
    small = todo(
        result(CLOUD, pool="small", best=at(replicas=2, workers=1)).model_copy(
            update={"points": (*CLOUD, measured(at(replicas=2, workers=1), 99, 9))}
        )
    )
    assert "under args, pools, small: workers: 1, replicas: 2;" in small["pool"]


@pytest.mark.parametrize("per_s", [40, 51])
def test_what_is_not_better_is_reported_and_not_advised(per_s: float) -> None:
    """Throughputs within 3 % count as equal."""
    facts = result([measured(NOW, 50, 40), measured(at(batch=2), 45, 40), measured(at(jpeg_shrink=2), per_s, 30)])
    assert verdict(facts).startswith("the current settings are the best")
    (words,) = todo(facts).values()
    assert words.startswith(f"jpeg_shrink 2 is not better here: {per_s / 50 - 1:+.0%} images/s")
    assert "models add" not in words


def test_scaled_decoding_without_a_point_to_compare_is_no_error() -> None:
    """The best point failed when it was measured again."""
    failed = MeasuredPoint(point=at(batch=4), failed="ModelNotReady: no memory")
    (words,) = todo(result([measured(NOW, 50, 40), failed, measured(at(batch=4, jpeg_shrink=2), 90, 30)])).values()
    assert words == "jpeg_shrink 2 could not be compared: ModelNotReady: no memory"


def test_a_slower_point_is_advised_only_if_the_current_one_misses_the_objective() -> None:
    facts = result([measured(NOW, 50, 140), measured(at(batch=2), 45, 40)])
    assert "batch 2" in verdict(facts)
    assert "(-10% images/s; now 50.0 images/s, p99 140 ms, over the objective of 100 ms)" in todo(facts)["apply"]


def test_a_missed_objective_names_the_nearest_point() -> None:
    facts = result(CLOUD, objective=20)
    assert facts.best is None
    assert "meets p99 20 ms" in verdict(facts)
    assert f"nearest is {NOW}: 50.0 images/s, p99 40 ms" in verdict(facts)
    once = measured(at(batch=2), 5, 30, rounds=1)
    assert f"nearest is {NOW}" in verdict(result([*CLOUD, once], objective=20)), "may be luck"


def test_doubts_are_reported() -> None:
    assert doubts(result(CLOUD[:1])) == []
    busy = SETUP.machine.model_copy(update={"others_frac": 0.3})
    one = measured(NOW, 9, 9).rounds[0].model_copy(update={"latencies_ms": (1.0, 2.0)})
    few = MeasuredPoint(point=NOW, rounds=(one,))
    lines = doubts(result([few, CLOUD[-1]], machine=busy, unsteady=0.4))
    for words in ("30%", "not steady", "2 requests", "no</b> memory"):
        assert any(words in line for line in lines), words
    assert len(lines) == 4
    for requests, words in (
        (1, "is of only 1 request:"),
        (99, "only 99 requests:"),
        (0, "no request of some points has"),
    ):
        rounds = (one.model_copy(update={"latencies_ms": (1.0,) * requests}),) * 3
        (line,) = doubts(result([MeasuredPoint(point=NOW, rounds=rounds)]))
        assert words in line, "each p99 is of one round"


def test_rows_mark_each_point() -> None:
    table = rows(result(CLOUD))
    assert [row["what"] for row in table] == [
        "current, frontier",
        "applies, frontier",
        "best, frontier",
        "",
        "another key",
        "failed",
    ]
    assert [row["meets"] for row in table] == [True, True, True, False, True, False]
    assert [row["p99_ms"] for row in table] == [40, 80, 90, 300, 30, None]
    assert list(table[0])[-7:] == ["images_per_s", "p50_ms", "p99_ms", "cpu_ms", "requests", "meets", "what"]


def test_the_folder_has_the_whole_report(tmp_path: Path) -> None:
    facts, out = result(CLOUD), str(tmp_path / "out")
    write_report(facts, shipped(), todo(facts).values(), Folder(out))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config-jpeg_shrink-2.json", "index.html", "tune.json"]
    assert read_report(out) == facts
    raw = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert len(raw["points"][0]["rounds"][0]["latencies_ms"]) == 200, "raw samples"


def test_a_folder_without_a_valid_report_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"has no tune.json"):
        read_report(str(tmp_path))
    (tmp_path / "tune.json").write_text('{"model": 1}')
    with pytest.raises(BadRequest, match="is not a valid report"):
        read_report(str(tmp_path))


def test_scaled_decoding_is_a_new_version_with_the_same_config(tmp_path: Path) -> None:
    facts, version = result(CLOUD), shipped()
    write_report(facts, version, [], Folder(str(tmp_path)))
    weights = (MODELS / "ssdlite-coco" / "1" / "model.onnx").read_bytes()
    written = json.loads((tmp_path / "config-jpeg_shrink-2.json").read_text())
    config = recognised(weights, written).config
    assert config.preprocess.jpeg_shrink == 2
    same = config.preprocess.model_copy(update={"jpeg_shrink": 1})
    assert config.model_copy(update={"preprocess": same}) == version.config
    words = todo(facts)["version"]
    assert "+60% images/s" in words
    assert "/models/ssdlite-coco/1/model.onnx --name ssdlite-coco" in words
    assert "--config /out/config-jpeg_shrink-2.json" in words
    assert "--probe /models/ssdlite-coco/1/probe/cat.jpg" in words
    assert "never applied" in words
