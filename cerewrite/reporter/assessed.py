"""What members say on labelled data, in tables."""

from __future__ import annotations

from cerewrite.ir.assessed import Assessment
from cerewrite.reporter.figures import count, number, percent
from cerewrite.reporter.section import Section, Share


def assessment_sections(found: Assessment) -> list[Section]:
    """Headline, disagreement, reliability, accuracy against coverage."""
    return [_headline(found), _dissent(found), _reliability(found), _coverage(found)]


def _headline(found: Assessment) -> Section:
    rows = (
        ("accuracy", percent(found.accuracy), percent(found.member_accuracy)),
        ("NLL", number(found.nll), number(found.member_nll)),
        ("ECE", number(found.ece), "-"),
    )
    return Section(
        title=f"{found.model}: {found.members} members on {count(found.examples)} examples",
        facts=(
            ("temperature", number(found.temperature)),
            ("mutual information", f"{number(found.mutual_information)} nats, mean"),
        ),
        columns=("", ">mean of members", ">one member"),
        rows=rows,
    )


def _dissent(found: Assessment) -> Section:
    largest = max(found.dissent)
    rows = tuple(
        (f"{number_} of {found.members}", Share(share, largest), percent(right) if share else "-")
        for number_, (share, right) in enumerate(
            zip(found.dissent, found.dissent_accuracy, strict=True)
        )
    )
    return Section(
        title="Members that disagree with the mean",
        columns=("members", "examples", ">accuracy"),
        rows=rows,
    )


def _reliability(found: Assessment) -> Section:
    total = max(found.examples, 1)
    largest = max(item.count for item in found.reliability) / total
    rows = tuple(
        (
            f"{item.low:.2f} to {item.high:.2f}",
            Share(item.count / total, largest),
            percent(item.confidence),
            percent(item.accuracy),
        )
        for item in found.reliability
        if item.count
    )
    return Section(
        title="Reliability",
        columns=("confidence", "examples", ">mean confidence", ">accuracy"),
        rows=rows,
    )


def _coverage(found: Assessment) -> Section:
    rows = tuple((percent(item.coverage), percent(item.accuracy)) for item in found.coverage)
    return Section(
        title="Accuracy of the most certain examples",
        columns=(">kept", ">accuracy"),
        rows=rows,
    )
