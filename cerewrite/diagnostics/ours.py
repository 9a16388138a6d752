"""The measures of the tangent kernel's diagonal that plans are made by."""

from __future__ import annotations

from cerewrite.analysis import analyze
from cerewrite.diagnostics.base import Diagnostic, NotApplicableError, Reading, register
from cerewrite.diagnostics.material import Material
from cerewrite.errors import AnalysisError
from cerewrite.ir import Analysis


@register
class KernelMeasures(Diagnostic):
    """nu, log-variance, sign-variance and leading order, in closed form."""

    name = "kernel-measures"
    title = "variances of the tangent kernel"
    formula = "nu = Var[K] / E[K]^2, Var[log K], Var[log K1], sum of kappa"
    source = "Littwin et al., Collegial Ensembles (2006.07678); docs/theory.md, sections 1 to 14"
    caveats = (
        "In closed form with rho = 1: `cerewrite analyze` measures the level.",
        "Of initialisation at each layer's own gain; the weights' values do not enter.",
    )
    needs = "structure"
    drawn = False

    def read(self, material: Material) -> Reading:
        """See `Diagnostic.read`."""
        found = closed_form(material)
        measures = found.measures
        return Reading(
            {
                "nu": measures.nu.value,
                "log-variance": measures.log_variance.value,
                "sign-variance": measures.sign_variance.value,
                "leading-order": measures.leading_order.value,
            },
            {"leading-order": {layer.name: layer.kappa for layer in found.layers}},
        )


def closed_form(material: Material) -> Analysis:
    """The closed form of the traced model.

    Raises:
        NotApplicableError: if it has no rule for the model.
    """
    try:
        return analyze(material.traced, material.model, estimator="analytic")
    except AnalysisError as error:
        raise NotApplicableError(error.message, advice=error.advice) from error
