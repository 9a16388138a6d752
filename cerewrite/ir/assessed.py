"""What a classifier's members say on labelled data: loss, calibration, disagreement, coverage."""

from __future__ import annotations

from dataclasses import dataclass

from cerewrite.ir.results import SCHEMA


@dataclass(frozen=True, slots=True)
class Bin:
    """Examples of similar confidence.

    Attributes:
        low, high: confidences that it holds, above ``low`` and up to ``high``.
        count: examples in it.
        confidence: their mean confidence; 0 without examples.
        accuracy: share of them that is classified rightly; 0 without examples.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is left when the least certain examples are set aside.

    Attributes:
        coverage: share of the examples that is kept, 0 to 1.
        accuracy: share of these that is classified rightly.
    """

    coverage: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Assessment:
    """What `cerewrite.assess` returns; losses in nats, shares from 0 to 1.

    Attributes:
        model: class name of the model.
        examples: how many were looked at.
        members: how many the model has.
        temperature: by which logits were divided.
        accuracy: of the model.
        nll: mean negative log-likelihood of the model's probabilities.
        ece: expected calibration error over the bins.
        member_accuracy: mean accuracy of the members, each alone.
        member_nll: mean negative log-likelihood of the members, each alone.
        mutual_information: mean over the examples, of class and member.
        dissent: by number of members whose class is not the model's, 0 to all, the share of
            examples.
        dissent_accuracy: accuracy of the model on these examples; 0 without any.
        reliability: bins of equal width by confidence.
        coverage: accuracy as less certain examples are set aside, by entropy.
        schema: version of this record.
    """

    model: str
    examples: int
    members: int
    temperature: float
    accuracy: float
    nll: float
    ece: float
    member_accuracy: float
    member_nll: float
    mutual_information: float
    dissent: tuple[float, ...]
    dissent_accuracy: tuple[float, ...]
    reliability: tuple[Bin, ...]
    coverage: tuple[Coverage, ...]
    schema: int = SCHEMA
