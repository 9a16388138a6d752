"""Run the zoo: one process per model, a time and a memory limit each, resumable."""

from __future__ import annotations

import argparse
import fnmatch
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.zoo.catalogue import SOURCES, Entry, catalogue, is_large, stratified
from benchmarks.zoo.processes import Limits, context, work
from benchmarks.zoo.store import ROOT, Record, Store, code_version
from benchmarks.zoo.table import render

PARITY = 80
"""Converted models that are exported."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is left to do, write the table; the exit code says whether anything is wrong."""
    options = _options(arguments)
    store = Store(options.json, code_version())
    everything = catalogue()
    entries = [
        entry
        for entry in everything
        if any(fnmatch.fnmatch(entry.name, pattern) for pattern in options.only or ("*",))
        and entry.source in (options.source or (entry.source,))
    ]
    part = "onnx" if options.onnx else "models"
    if options.onnx:
        entries = _converted(entries, store)
    entries = stratified(entries, len(entries))  # a run that is stopped has seen every family
    left = [e for e in entries if is_left(store, part, e.name, options)]
    left.sort(key=is_large)
    if options.table:
        left = []
    print(f"{len(entries)} models, {len(left)} left to do, code {store.code}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    server = context()
    limits = Limits(options.limit * (3 if options.onnx else 1), options.memory)
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(work, server, e, limits, onnx=options.onnx) for e in left]
        for done, future in enumerate(as_completed(futures), 1):
            record = future.result()
            store.put(part, record)
            print(f"{done:4}/{len(left)} {_row(record)}", flush=True)
    options.table_file.write_text(render(store.parts, len(everything)), encoding="utf-8")
    wrong = [r["name"] for r in store.parts[part].values() if r["outcome"] in ("crashed", "failed")]
    print(f"{options.table_file} written; {len(wrong)} crashed or failed: {' '.join(wrong)}")
    return int(bool(wrong))


def is_left(store: Store, part: str, name: str, options: argparse.Namespace) -> bool:
    """Whether a model is to be done: unseen, or done by other code, or asked for again."""
    if not store.has(part, name, any_code=options.any_code):
        return True
    record = store.parts[part][name]
    texts = (record["outcome"], record.get("error", ""), *record.get("refusals", {}))
    again = any(fnmatch.fnmatch(text, pattern) for pattern in options.again for text in texts)
    return again and not store.has(part, name, any_code=False)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--source", action="append", choices=SOURCES)
    parser.add_argument("--only", action="append", help="glob of names, such as timm/resnet*")
    parser.add_argument("--onnx", action="store_true", help=f"export {PARITY} converted models")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--limit", type=float, default=90, help="processor seconds for one model")
    parser.add_argument("--memory", type=float, default=10, help="GB of address space for one")
    parser.add_argument("--any-code", action="store_true", help="keep records of other code")
    parser.add_argument(
        "--again", action="append", default=[], metavar="PATTERN",
        help="do those of other code again whose outcome, reason or refusal matches",
    )  # fmt: skip
    parser.add_argument("--table", action="store_true", help="write the table, run nothing")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "coverage.json")
    parser.add_argument("--table-file", type=Path, default=ROOT / "docs" / "COVERAGE.md")
    return parser.parse_args(arguments)


def _converted(entries: Sequence[Entry], store: Store) -> list[Entry]:
    """The models whose ONNX files are compared, spread over the families."""
    models = store.parts["models"]
    done = [e for e in entries if models.get(e.name, {}).get("outcome") == "converted"]
    return stratified(done, PARITY)


def _row(record: Record) -> str:
    ratio = ""
    if record["outcome"] == "converted":
        ratio = f"nu {record['nu_before']:.3g} -> {record['nu_after']:.3g}"
        if "parity" in record:
            ratio += f", parity {record['parity']:.1e}"
    text = ratio or record.get("error", "")[:150]
    return f"{record['name']:48} {record['outcome']:12} {record.get('wall', 0):6} s  {text}"


if __name__ == "__main__":
    raise SystemExit(main())
