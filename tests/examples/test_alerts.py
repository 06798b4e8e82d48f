"""The alert rules: they parse, ask only for metrics that exist, and say what to do.

Where Prometheus' own promtool is installed, it checks them too, with examples/alerts/resight.rules.test.yaml.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch.runs.metrics import NAMES
from model_store import errors
from model_store.errors import ResightError
from serve.api.problems import status_of
from serve.inference.engine import Engine
from serve.observability.metrics import merged
from serve.settings import DetectArgs
from tests.fixtures_local import MODELS, ROOT

ALERTS = ROOT / "examples" / "alerts"
FILE = ALERTS / "resight.rules.yaml"
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]
BY_NAME = {rule["alert"]: rule for rule in RULES}
OF_OTHERS = {"up", "node_textfile_mtime_seconds"}  # Prometheus itself, node_exporter
WORDS = {"and", "or", "unless", "on", "by", "ignoring", "group_left", "offset"}


def metric_names(expr: str) -> set[str]:
    """Identifiers outside of matchers, ranges and lists of labels that are no function and no word."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", re.sub(r'"[^"]*"', '""', expr))
    bare = re.sub(r"\b(by|on|ignoring|group_left) *\([^)]*\)", "", bare)
    found = re.findall(r"\b[a-zA-Z_][a-zA-Z0-9_]*\b(?! *\()", bare)
    return set(found) - WORDS


@pytest.fixture(scope="module")
def existing() -> set[str]:
    engine = Engine(DetectArgs(models=str(MODELS), workers=1))
    try:
        text = merged({"a": engine.exposition()}, {})
    finally:
        engine.stop()
    replicas = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert "resight_requests_total" in replicas
    return replicas | set(NAMES) | OF_OTHERS


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rule_asks_for_metrics_that_exist(name: str, existing: set[str]) -> None:
    asked = {re.sub(r"_bucket$", "", one) for one in metric_names(BY_NAME[name]["expr"])}
    assert asked
    assert asked <= existing


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rule_says_what_it_means_and_what_to_do(name: str) -> None:
    rule = BY_NAME[name]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert all(len(text) > 20 for text in rule["annotations"].values())
    assert not set(rule) - {"alert", "expr", "for", "labels", "annotations"}
    assert f"`{name}`" in (ROOT / "docs/reference" / "metrics.md").read_text()
    assert name in (ALERTS / "resight.rules.test.yaml").read_text()


def test_errors_that_are_not_the_client_s_and_no_others_raise_an_alarm() -> None:
    expr = BY_NAME["ResightErrors"]["expr"]
    (not_ours,) = re.findall(r'outcome!~"([^"]+)"', expr)
    assert re.fullmatch(not_ours, "ok")
    for name, kind in vars(errors).items():
        if not (isinstance(kind, type) and issubclass(kind, ResightError)):
            continue
        ours = status_of(kind("m")) >= 500 and kind is not errors.DeadlinePassed
        assert ours != bool(re.fullmatch(not_ours, name)), name
    assert not re.fullmatch(not_ours, "RuntimeError")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("what", [["check", "rules", FILE.name], ["test", "rules", "resight.rules.test.yaml"]])
def test_promtool_finds_no_fault(what: list[str]) -> None:
    promtool = Path(shutil.which("promtool") or "")
    done = subprocess.run([promtool, *what], cwd=ALERTS, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
