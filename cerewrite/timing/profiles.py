"""Times of training steps as a record: written on one machine, planned with on another."""

from __future__ import annotations

from dataclasses import replace

from cerewrite.errors import UsageError
from cerewrite.ir import Analysis, Profile, Region, RegionEstimate, RegionTimes, StepProfile

AGAIN = "run `cerewrite profile` on this model with this version, at the same --scope"


def step_profile(analysis: Analysis) -> StepProfile:
    """What was measured of an analysis's training steps.

    Args:
        analysis: made with ``step_batch``.

    Raises:
        UsageError: if no step was timed.
    """
    if not analysis.step:
        raise UsageError("no training step was timed", advice="analyse with step_batch=32")
    times = []
    for scope, estimate in _regions(analysis):
        region = estimate.region
        assert region.step is not None, "a timed analysis has times of every region"
        times.append(RegionTimes(scope, region.name, region.sizes, region.step))
    return StepProfile(analysis.model, analysis.fingerprint, analysis.step, tuple(times))


def with_step_profile(analysis: Analysis, profile: StepProfile) -> Analysis:
    """An analysis with the step times of a record.

    Args:
        analysis: of the model that the record is about.
        profile: the record, perhaps of another machine.

    Raises:
        UsageError: if the record is about another model, another version or other regions.
    """
    if profile.schema != 1:
        raise UsageError(
            f"the profile has schema {profile.schema}, this version reads 1", advice=AGAIN
        )
    if profile.fingerprint != analysis.fingerprint:
        raise UsageError(
            f"the profile is of {profile.model} ({profile.fingerprint}), not of this "
            f"{analysis.model} ({analysis.fingerprint})",
            advice=AGAIN,
        )
    known = {(one.scope, one.name): one for one in profile.regions}

    def times(scope: str, region: Region) -> Profile:
        found = known.get((scope, region.name))
        if found is None or found.sizes != region.sizes:
            raise UsageError(
                f"the profile has no times of region '{region.name}' of "
                f"{', '.join(map(str, region.sizes))} channels at scope '{scope}'",
                advice=AGAIN,
            )
        if len(found.profile.linear) != len(region.classes):
            raise UsageError(
                f"the profile's times of region '{region.name}' are of "
                f"{len(found.profile.linear)} classes, not {len(region.classes)}",
                advice=AGAIN,
            )
        return found.profile

    def timed(scope: str, items: tuple[RegionEstimate, ...]) -> tuple[RegionEstimate, ...]:
        return tuple(
            replace(one, region=replace(one.region, step=times(scope, one.region))) for one in items
        )

    scopes = tuple(
        replace(found, regions=timed(found.scope, found.regions)) for found in analysis.scopes
    )
    first = analysis.scopes[0].scope if analysis.scopes else analysis.scope
    regions = timed(first, analysis.regions)
    return replace(analysis, regions=regions, scopes=scopes, step=profile.step)


def _regions(analysis: Analysis) -> list[tuple[str, RegionEstimate]]:
    if not analysis.scopes:
        return [(analysis.scope, one) for one in analysis.regions]
    return [(found.scope, one) for found in analysis.scopes for one in found.regions]
