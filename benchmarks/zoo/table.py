"""``docs/COVERAGE.md`` from the records: totals, families, refusals, every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

Record = dict[str, Any]

OUTCOMES = {
    "converted": "split, and every check passed",
    "unchanged": "has regions; no design within the budget has a smaller nu",
    "declined": "no region to split, or a typed error that says why",
    "failed": "a rewrite, a check or an export failed: a fault of ours",
    "crashed": "an untyped error: a fault of ours",
    "not built": "the model itself could not be built or run here",
    "out of time": "stopped at the time limit",
    "out of memory": "stopped at the memory limit",
}

LOG = {"log_variance_before", "log_variance_after"}

INTRODUCTION = """\
# Coverage

What cerewrite does with the models of torchvision and timm, and with tiny configurations of Hugging
Face's transformers, whose tied read-outs are untied and whose caches are left out: random weights,
two small examples, the closed form (the jackknife where an operator has none), block scope (network
scope where that holds no region, and for transformers), objective primal at equal parameters *and*
equal FLOPs, members as wide as conversions make them by default. Written by `make zoo`; the figures
behind it are in [coverage.json](coverage.json).

nu and Var[log K] are the estimator's, at the gain of the weights as built (at gain nonzero where a
read-out of zeros lets no signal through, or a branch that starts at zero has no correction).
Membership is the largest relative error in float64 of "the ensemble equals its members, added";
the limit is 1e-10. A split keeps a region's signature, not its function.
"""


def render(parts: Mapping[str, Mapping[str, Record]], total: int | None = None) -> str:
    """The whole page.

    Args:
        parts: records by part and name.
        total: models of the whole zoo, if known.
    """
    models, exported = list(parts["models"].values()), parts["onnx"]
    lines = [INTRODUCTION, *_state(models, total)]
    for section in (_totals(models, exported), _refusals(models), _families(models),
                    _parity(exported), _models(models, exported)):  # fmt: skip
        lines += [*section, ""]
    return "\n".join(lines).rstrip() + "\n"


def _state(models: Sequence[Record], total: int | None) -> Iterator[str]:
    """How far the zoo is, and whether all records are of one version of the code."""
    if total is not None and len(models) < total:
        yield f"**{len(models)} of {total} models so far**: `make zoo` goes on from here."
        yield ""
    codes = Counter(r["code"] for r in models)
    if len(codes) > 1:
        counts = ", ".join(f"{code} ({count} models)" for code, count in codes.most_common())
        yield f"Records of several versions of the code: {counts}; `make zoo` makes old ones anew."
        yield ""
    narrow = sum("split" in r and "min_width" not in r for r in models)
    if narrow:
        yield f"Of the models with a plan, {narrow} were planned with members of any width."
        yield ""


def _totals(models: Sequence[Record], exported: Mapping[str, Record]) -> Iterator[str]:
    sources = _sources(models)
    yield "## Totals"
    yield ""
    yield f"| | {' | '.join(sources)} | |"
    yield f"| --- | {'---: | ' * len(sources)}--- |"
    yield _row("models", (sum(r["source"] == s for r in models) for s in sources), "")
    traced = [r for r in models if "rung" in r]
    yield _row("traced", (sum(r["source"] == s for r in traced) for s in sources), "")
    for frontend in sorted({r["rung"] for r in traced}):
        counts = (sum(r["source"] == s and r["rung"] == frontend for r in traced) for s in sources)
        yield _row(f"- by {frontend}", counts, "")
    for outcome, meaning in OUTCOMES.items():
        counts = [sum((r["source"], r["outcome"]) == (s, outcome) for r in models) for s in sources]
        yield _row(outcome, counts, meaning)
    done = [r for r in models if r["outcome"] == "converted"]
    if done:
        worst = max(r["membership"] for r in done)
        yield ""
        yield (f"Of the {len(done)} converted models membership holds on all (worst error "
               f"{worst:.1e}) and a gradient reaches every parameter of all.")  # fmt: skip
    yield from _estimators(models)
    if done:
        yield from _gains(done)


def _estimators(models: Sequence[Record]) -> Iterator[str]:
    """How many models each estimator has planned, and which the closed form has not."""
    planned = [r for r in models if "split" in r]
    measured = [r for r in planned if r.get("estimator", "analytic") != "analytic"]
    if planned:
        yield (f"Models with a plan: {len(planned) - len(measured)} by the closed form, "
               f"{len(measured)} by the jackknife, for want of a closed form.")  # fmt: skip
    if measured:
        names = ", ".join(f"{r['name']} ({r['no_closed_form'].partition(' in ')[0]})"
                          for r in measured)  # fmt: skip
        yield f"Those are: {names}."


def _gains(done: Sequence[Record]) -> Iterator[str]:
    """What the plans made smaller, over all converted models."""
    ratio = median(r["nu_after"] / r["nu_before"] for r in done)
    yield f"nu after over nu before, median: {ratio:.2f}."
    logs = [r["log_variance_after"] / r["log_variance_before"] for r in done if r.keys() >= LOG]
    if logs:
        smaller = sum(ratio < 1 for ratio in logs)
        yield (f"Var[log K], which plans make small: median {median(logs):.2f}, smaller on "
               f"{smaller} of {len(logs)}.")  # fmt: skip
    grown = [r["nu_before"] for r in done if r["nu_after"] > r["nu_before"]]
    if grown:
        least = min(grown)
        yield f"nu grows on {len(grown)}, where it was {least:.2g} or more: rare draws rule it."


def _sources(models: Sequence[Record]) -> list[str]:
    return sorted({r["source"] for r in models}, reverse=True)


def _row(name: str, counts: Any, meaning: str) -> str:
    return f"| {name} | {' | '.join(map(str, counts))} | {meaning} |"


def _refusals(models: Sequence[Record]) -> Iterator[str]:
    """Codes over all models, and by source those of models where nothing could be split."""
    sources = _sources(models)
    everywhere, alone = Counter[str](), Counter[tuple[str, str]]()
    for record in models:
        everywhere.update(record.get("refusals", {}).keys())
        if not record.get("regions") and "refusals" in record:
            alone.update((record["source"], code) for code in record["refusals"])
    yield "## Refusals"
    yield ""
    yield "Models in which a code occurs, and how many of every source have no region at all."
    yield ""
    yield f"| code | models | {' | '.join(sources)} |"
    yield f"| --- | {'---: | ' * (1 + len(sources))}".rstrip()
    for code, count in everywhere.most_common():
        counts = (count, *(alone[source, code] for source in sources))
        yield f"| {code} | {' | '.join(map(str, counts))} |"
    errors = [r for r in models if r["outcome"] not in ("converted", "unchanged")]
    errors = [r for r in errors if r.get("regions") != 0 or r["outcome"] != "declined"]
    if errors:
        yield ""
        yield "Models that stopped for another reason:"
        yield ""
        yield "| model | outcome | at | reason |"
        yield "| --- | --- | --- | --- |"
        for r in errors:
            yield f"| {r['name']} | {r['outcome']} | {r['stage']} | {_cell(r['error'])} |"


def _cell(text: str) -> str:
    short = text if len(text) <= 160 else text[:157] + "..."
    return short.replace("|", "\\|").replace("<", "\\<")


def _families(models: Sequence[Record]) -> Iterator[str]:
    families: dict[tuple[str, str], list[Record]] = {}
    for record in models:
        families.setdefault((record["source"], record["family"]), []).append(record)
    yield "## Families"
    yield ""
    yield ("Models with a region, of those that were traced. The last column counts the codes "
           "where there is none.")  # fmt: skip
    yield ""
    yield "| source | family | models | traced | with a region | converted | share | why not |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for (source, family), records in sorted(families.items()):
        traced = [r for r in records if "rung" in r]
        regions = sum(bool(r.get("regions")) for r in traced)
        converted = sum(r["outcome"] == "converted" for r in records)
        share = f"{regions / len(traced):.0%}" if traced else ""
        why = Counter[str]()
        for record in records:
            if not record.get("regions"):
                why.update(record.get("refusals", {}))
        codes = ", ".join(f"{code} {count}" for code, count in why.most_common(3))
        yield (f"| {source} | {family} | {len(records)} | {len(traced)} | {regions} | "
               f"{converted} | {share} | {codes} |")  # fmt: skip


def _parity(exported: Mapping[str, Record]) -> Iterator[str]:
    yield "## ONNX Runtime"
    yield ""
    tried = [r for r in exported.values() if r["stage"] == "export"]
    if not tried:
        yield "Not run yet: `python -m benchmarks.zoo --onnx`."
        return
    passed = [r for r in tried if "parity" in r]
    worst = max((r["parity"] for r in passed), default=0.0)
    batches = sorted({size for r in passed for size in r["batches"]})
    yield (f"{len(tried)} converted models, spread over the families, were exported; {len(passed)} "
           f"match PyTorch at batch sizes {', '.join(map(str, batches))}, worst relative error "
           f"{worst:.1e}.")  # fmt: skip
    rest = [r for r in tried if "parity" not in r]
    if rest:
        yield ""
        yield "| model | outcome | reason |"
        yield "| --- | --- | --- |"
        for r in rest:
            yield f"| {r['name']} | {r['outcome']} | {_cell(r['error'])} |"


def _models(models: Sequence[Record], exported: Mapping[str, Record]) -> Iterator[str]:
    yield "## Models"
    yield ""
    yield ("Parameters and FLOPs are ratios, after over before; seconds are those of tracing to "
           "verification on a shared machine.")  # fmt: skip
    yield ""
    yield ("| model | px | rung | layers | scope | regions | outcome | params | FLOPs "
           "| nu before | after | Var[log K] before | after "
           "| membership | gradients | ONNX | s | refusals |")  # fmt: skip
    left, right = "| --- ", "| ---: "
    yield f"{left}{right}{left}{right}{left}{right}{left}{right * 7}{left}{right * 2}{left}|"
    for r in models:
        codes = ", ".join(f"{code} {n}" for code, n in list(r.get("refusals", {}).items())[:4])
        parity = exported.get(r["name"], {}).get("parity")
        spent = sum(s for stage, s in r["seconds"].items() if stage != "load")
        cells = [r["name"], r.get("pixels") or "", r.get("rung", ""), r.get("layers", ""),
                 r.get("scope", ""), r.get("regions", ""), r["outcome"], *_figures(r),
                 "" if parity is None else f"{parity:.0e}", f"{spent:.1f}", codes]  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def _figures(r: Record) -> list[str]:
    if r["outcome"] != "converted":
        nu = r.get("nu_before")
        return ["", "", "" if nu is None else f"{nu:.3g}", *[""] * 5]
    ratios = [f"{r[f'{key}_after'] / r[f'{key}_before']:.3f}" for key in ("params", "flops")]
    keys = ("nu_before", "nu_after", *sorted(LOG, reverse=True))
    measures = [f"{r[key]:.3g}" if key in r else "" for key in keys]
    return [*ratios, *measures, f"{r['membership']:.0e}", "yes" if r["gradients"] else "NO"]
