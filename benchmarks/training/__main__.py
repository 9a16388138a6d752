"""Command line of the study."""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.jsonl")
DOCUMENT = ROOT / "docs" / "TRAINING.md"
GAINS = ROOT / "cerewrite" / "planning" / "gains.json"


def main() -> None:
    """Run the study, or write its document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="train what the results file does not hold yet")
    run.add_argument("--seeds", type=int, default=5, help="reported runs per design, at least 5")
    run.add_argument("--tasks", nargs="+", default=["*"], help="globs over the tasks' names")
    report = verbs.add_parser("report", help="write the document from the results file")
    report.add_argument("--document", type=Path, default=DOCUMENT)
    renew = verbs.add_parser("figures", help="measure the stored designs anew, training nothing")
    race = verbs.add_parser("race", help="race the tasks on real data, as far as not done yet")
    race.add_argument("--tasks", nargs="+", default=["*"], help="globs over the races' names")
    race.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's files")
    page = verbs.add_parser("race-report", help="write docs/RACE.md from the races' records")
    page.add_argument("--document", type=Path, default=DOCUMENT.with_name("RACE.md"))
    gains = verbs.add_parser("gains", help="write the table of expected gains of the package")
    for verb in (run, report, renew, gains):
        verb.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.verb == "race":
        _race(options)
        return
    if options.verb == "race-report":
        from benchmarks.training.race_report import document as race_document

        options.document.write_text(race_document(), encoding="utf-8")
        return
    from benchmarks.training.store import Store

    store = Store(options.results)
    if options.verb == "report":
        from benchmarks.training.report import document

        options.document.write_text(document(store), encoding="utf-8")
        return
    if options.verb == "gains":
        from benchmarks.training.gains import text

        GAINS.write_text(text(store), encoding="utf-8")
        return
    if options.verb == "figures":
        from benchmarks.training.study import refresh

        refresh(store)
        return
    import torch

    from benchmarks.training.study import run as start
    from benchmarks.training.tasks import TASKS

    torch.set_num_threads(1)
    wanted = [
        task for name, task in TASKS.items() if any(fnmatchcase(name, g) for g in options.tasks)
    ]
    start(wanted, options.seeds, store)


def _race(options: argparse.Namespace) -> None:
    import torch

    from benchmarks.training.races import FASHION, run, tasks

    torch.set_num_threads(1)
    found = tasks(options.fashion or FASHION).items()
    run([task for name, task in found if any(fnmatchcase(name, g) for g in options.tasks)])


if __name__ == "__main__":
    main()
