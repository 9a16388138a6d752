"""Plain answers, worded by the intervals they rest on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from benchmarks.training.compare import (
    CHOICES,
    over_tasks,
    pairs,
    parameter_share,
    ratio,
    tally,
    written,
)
from benchmarks.training.correlate import MEASURES
from benchmarks.training.correlations import NAMES, WIDTH, Answers
from benchmarks.training.evidence import OUTCOMES, TITLES, Entry
from benchmarks.training.statistics import Interval, share
from benchmarks.training.tasks import OPTIMISERS
from cerewrite.planning.measures import DEFAULT

UNTRAINED = "none of its choices was trained"
MAIN = f"primal {DEFAULT}"
DUAL = f"dual {DEFAULT}"


def verdicts(entries: Sequence[Entry], answers: Answers) -> list[str]:
    """The lines of "In short"."""
    texts = [
        *(_effect(entries, outcome) for outcome in ("steps", "loss")),
        _accuracy(entries),
        _steadier(entries),
        *([_dual(entries)] if pairs(entries, DUAL) else []),
        *_order(answers),
        _given_width(answers),
        _choices(entries),
        *_default(entries, answers),
    ]
    return [line for text in texts for line in _bullet(text)]


def _bullet(text: str) -> list[str]:
    """A wrapped bullet, one level down if the text starts with a tab."""
    indent = "  " if text.startswith("\t") else ""
    return textwrap.wrap(
        text.strip(), 98, initial_indent=f"{indent}* ", subsequent_indent=f"{indent}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def word(sides: Sequence[int], better: str, worse: str) -> str:
    """What some intervals say together: every one, some, none, or against each other.

    Example:
        >>> word([-1, 0], "faster", "slower")
        'In part'
        >>> word([0, 0], "faster", "slower")
        'Not shown'
    """
    if all(side < 0 for side in sides):
        return f"Yes, {better}"
    if all(side > 0 for side in sides):
        return f"No, {worse}"
    if any(side < 0 for side in sides):
        return "Mixed" if any(side > 0 for side in sides) else "In part"
    return f"No, in part {worse}" if any(side > 0 for side in sides) else "Not shown"


def _by_optimiser(
    entries: Sequence[Entry], label: str, outcome: str, other: str = "baseline"
) -> dict[str, Interval]:
    found = {}
    for optimiser in OPTIMISERS:
        interval = over_tasks(pairs(entries, label, other, optimiser), outcome)
        if interval is not None:
            found[optimiser] = interval
    return found


def _ratios(found: dict[str, Interval]) -> str:
    return ", ".join(f"{ratio(interval)} with {NAMES[o]}" for o, interval in found.items())


def _effect(entries: Sequence[Entry], outcome: str) -> str:
    found = _by_optimiser(entries, MAIN, outcome)
    every = pairs(entries, MAIN)
    better, worse, open_ = tally(every, outcome)
    question, good, bad = {
        "steps": ("Faster at equal parameters?", "faster", "slower"),
        "loss": ("A lower training loss after the same steps?", "lower", "higher"),
    }[outcome]
    missed = sum(int((~e.reached).sum()) for p in every for e in (p.entry, p.other))
    runs = sum(e.reached.size for p in every for e in (p.entry, p.other))
    note = f" {missed} of {runs} runs did not reach the target." if outcome == "steps" else ""
    return (
        f"**{question} {word([i.side() for i in found.values()], good, bad)}.** The design of "
        f"least {DEFAULT}, against the baseline, {TITLES[outcome]}: {_ratios(found)} (geometric "
        f"means over tasks). Task by task and optimiser by optimiser: {good} in {better}, {bad} "
        f"in {worse}, undecided in {open_} of {len(every)}.{note}"
    )


def _accuracy(entries: Sequence[Entry]) -> str:
    found = _by_optimiser(entries, MAIN, "error")
    every = [p for p in pairs(entries, MAIN) if p.entry.task.loss != "mse"]
    better, worse, open_ = tally(every, "error")
    gains = ", ".join(
        f"{written(Interval(-i.value, -i.high, -i.low), 1, 100.0, '+')} points with {NAMES[o]}"
        for o, i in found.items()
    )
    return (
        f"**A better test accuracy? {word([i.side() for i in found.values()], 'better', 'worse')}"
        f".** {gains}; better in {better}, worse in {worse}, undecided in {open_} of {len(every)}."
    )


def _steadier(entries: Sequence[Entry]) -> str:
    spread = _by_optimiser(entries, MAIN, "spread")
    every = pairs(entries, MAIN)
    parts = []
    for phase, title in (("final", "at the chosen rate"), ("sweep", "over all rates tried")):
        both = []
        for entry in ("other", "entry"):
            counts = [getattr(pair, entry).failed(phase) for pair in every]
            total = share(sum(c[0] for c in counts), sum(c[1] for c in counts))
            both.append(f"{written(total, 0, 100.0)} %")
        parts.append(f"{both[0]} of the baselines' runs and {both[1]} of theirs fail {title}")
    return (
        "**Steadier between seeds? "
        f"{word([i.side() for i in spread.values()], 'steadier', 'less steady')}.** Spread of log "
        f"final loss over seeds, against the baseline's: {_ratios(spread)}. "
        f"{parts[0]}, {parts[1]}."
    )


def _dual(entries: Sequence[Entry]) -> str:
    steps, loss = (_by_optimiser(entries, DUAL, outcome) for outcome in ("steps", "loss"))
    left = parameter_share(pairs(entries, DUAL))
    narrow = [_by_optimiser(entries, DUAL, outcome, "narrow") for outcome in ("steps", "loss")]
    sides = [interval.side() for interval in (*steps.values(), *loss.values())]
    answer = "In part harder" if max(sides) > 0 else "Not shown to be harder"
    return (
        f"**Fewer parameters at the same {DEFAULT}: as easy to train? {answer}.** With "
        f"{left:.2f} of the baseline's parameters (geometric mean over tasks), against the whole "
        f"baseline: steps {_ratios(steps)}; final loss {_ratios(loss)}. Against one narrow member "
        f"of the same parameters: steps {_ratios(narrow[0])}; final loss {_ratios(narrow[1])}."
    )


def _order(answers: Answers) -> list[str]:
    lines = [
        "**Does a measure order designs of equal parameters as training does?** Mean rank "
        f"correlations inside baselines (+: the lower, the better). {_separated(answers)}"
    ]
    for (optimiser, outcome), row in answers.inside.items():
        names = (*MEASURES, WIDTH)
        cells = ", ".join(f"{name} {written(row[name], 2, 1.0, '+')}" for name in names)
        lines.append(f"\t{TITLES[outcome]}, {NAMES[optimiser]}: {cells}")
    return lines


def _separated(answers: Answers) -> str:
    """Which predictors differ in correlation by more than the interval."""
    names, found = (*MEASURES, WIDTH), []
    for first in names:
        for second in names:
            cases = _ahead(answers, first, second)
            if cases:
                found.append(f"{first} above {second} in {', '.join(cases)}")
    if not found:
        return "No two predictors are separated by the interval of their difference."
    return f"Separated by the interval of their difference: {'; '.join(found)}."


def _ahead(answers: Answers, first: str, second: str) -> list[str]:
    """Where ``first`` orders designs better than ``second``."""
    cases = []
    for (optimiser, outcome), row in answers.inside.items():
        sign = 1 if f"{first} - {second}" in row else -1
        name = f"{first} - {second}" if sign > 0 else f"{second} - {first}"
        if first != second and row[name].side() == sign:
            cases.append(f"{TITLES[outcome]} ({NAMES[optimiser]})")
    return cases


def _given_width(answers: Answers) -> str:
    known = [
        f"{name} {written(row[name], 2, 1.0, '+')} ({TITLES[outcome]}, {NAMES[optimiser]})"
        for (optimiser, outcome), row in answers.partial.items()
        for name in MEASURES
        if row[name].side()
    ]
    said = ", ".join(known) if known else "nothing that its interval separates from zero"
    return f"**Beyond total width,** inside baselines, the measures add: {said}."


def _choices(entries: Sequence[Entry]) -> str:
    texts = []
    for label in ("primal nu", "primal leading-order", "by hand 8", "by hand 32"):
        parts = [
            f"{TITLES[outcome]} {_ratios(_by_optimiser(entries, MAIN, outcome, label))}"
            for outcome in ("steps", "loss")
        ]
        texts.append(f"against {CHOICES[label]}: {', '.join(parts)}")
    return (
        f"**The choice of least {DEFAULT} against other choices** of the same parameters (below 1: "
        f"it is better): {'; '.join(texts)}."
    )


def _default(entries: Sequence[Entry], answers: Answers) -> list[str]:
    """Whether the default's choices, and its order of designs, are better than the others'."""
    lines, signs = [], []
    for other in (*(name for name in MEASURES if name != DEFAULT), WIDTH):
        won, lost = _ahead(answers, DEFAULT, other), _ahead(answers, other, DEFAULT)
        order = _said("it orders designs", won, lost)
        picks = ""
        if other in MEASURES:
            sides = {
                f"{TITLES[outcome]} ({NAMES[optimiser]})": interval.side()
                for outcome in OUTCOMES
                for optimiser, interval in _by_optimiser(
                    entries, MAIN, outcome, f"primal {other}"
                ).items()
            }
            good, bad = ([c for c, side in sides.items() if side == s] for s in (-1, 1))
            picks = f"{_said('its choices train', good, bad) if sides else UNTRAINED}; "
            won, lost = won + good, lost + bad
        lines.append(f"\tagainst {other}: {picks}{order}.")
        signs.append((bool(won), bool(lost)))
    return [f"**Is {DEFAULT} justified as the default? {_answer(signs)}**", *lines]


def _said(verb: str, good: Sequence[str], bad: Sequence[str]) -> str:
    """Where something is better and where worse, by intervals."""
    cases = (("better", good), ("worse", bad))
    parts = [f"{side} in {', '.join(where)}" for side, where in cases if where]
    return f"{verb} {' and '.join(parts) or 'neither better nor worse, by the intervals'}"


def _answer(signs: Sequence[tuple[bool, bool]]) -> str:
    """One sentence from (ahead, behind) of each rival."""
    ahead, behind = any(a for a, _ in signs), any(b for _, b in signs)
    if ahead and behind:
        return "Against some rivals, not against others."
    if behind:
        return "Not by this study."
    return "Yes, as far as its rivals go." if ahead else "This study does not tell."
