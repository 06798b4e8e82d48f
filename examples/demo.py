"""Run the main workflow once with the commands of a user, as in `make demo`. Safe to repeat.

cluster up -> shipped models into the store -> sample archive -> ingest -> reprocess -> detections
The same archive in another home, without a cluster -> the same results
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from examples.sample_archive import build
from serve.cluster.head import read_state
from serve.settings import Settings

MODEL = "ssdlite-coco"
EXAMPLES = Path(__file__).parent
SEEN = f"""
    select camera_id as camera, label, count(*) as detections, count(distinct path) as images,
        round(max(score), 2) as best_score
    from detections where model_name = '{MODEL}' and score >= 0.4
    group by all order by camera, detections desc, label
"""


RESULTS = f"select media_sha256, status, detections from all_results where model_name = '{MODEL}' order by all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--port", type=int, default=8000, help="also: make demo PORT=8001")
    arguments = parser.parse_args()
    settings = Settings()
    for name in (MODEL, "motion"):
        resight("models", "pull", str(EXAMPLES / "models"), f"{name}@1")
        resight("models", "promote", f"{name}@1")
    resight("up", "--port", str(arguments.port))
    archive = settings.home_path / "sample-archive"
    made = ["python", "-m", "examples.sample_archive", str(archive), "--images", str(arguments.images)]
    print(f"\n$ {shlex.join(made)}")
    build(archive, arguments.images)
    resight("ingest", str(archive))
    report = json.loads(resight("reprocess", "--model", MODEL, "--format", "json", show=False))
    resight("sql", " ".join(SEEN.split()))
    compare_without_cluster(settings, archive)
    say_where_to_go(settings, report)


def compare_without_cluster(settings: Settings, archive: Path) -> None:
    """Process the archive in a home without a cluster. Exits with an error if a result differs."""
    other = settings.home_path / "without-cluster"
    print("\nThe same archive without a cluster, in a home of its own:")
    resight("models", "pull", str(EXAMPLES / "models"), f"{MODEL}@1", home=other)
    resight("reprocess", str(archive), "--model", MODEL, home=other)
    here, there = (resight("sql", RESULTS, "--format", "csv", show=False, home=h) for h in (other, None))
    if here != there:
        sys.exit("the results of the cluster and those without it differ")
    print(f"\nall {len(here.splitlines()) - 1} results are equal to those of the cluster")


def resight(*arguments: str, show: bool = True, home: Path | None = None) -> str:
    """Run one command as a user would; return its standard output, printed unless it is used here."""
    setting = f"RESIGHT_HOME={shlex.quote(str(home))} " if home else ""
    print(f"\n$ {setting}resight {shlex.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "resight", *arguments]
    environment = dict(os.environ)
    if home:  # tables and models of the other home may be elsewhere
        environment = {n: v for n, v in os.environ.items() if not n.startswith("RESIGHT_")}
        environment["RESIGHT_HOME"] = str(home)
    output = None if show else subprocess.PIPE
    done = subprocess.run(command, stdout=output, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def say_where_to_go(settings: Settings, report: dict[str, object]) -> None:
    state = read_state(settings)
    assert state is not None
    counts = report["counts"]
    assert isinstance(counts, dict)
    cat = EXAMPLES / "photos" / "cat.jpg"
    down = shlex.join([sys.executable, "-m", "resight", "down"])
    query = f"{state.endpoint}/v1/detect?model={MODEL}"
    curl = shlex.join(["curl", "--data-binary", f"@{cat}", query])
    inferred = counts["ok"] + counts["empty"] + counts["failed"]
    rate = f"{report['images_per_s']} img/s" if inferred else "nothing was left to do"
    print(
        f"""
accounting   {report["accounting"]}
inferences   {inferred} ({rate})
page         {state.endpoint}/ui/
endpoint     {state.endpoint}   docs: {state.endpoint}/docs
try          {curl}
state        export RESIGHT_HOME={shlex.quote(str(settings.home_path))}
stop         make down      (or, with that variable: {down})
"""
    )


if __name__ == "__main__":
    main()
