"""From a module to a `TracedModel`: the tracing ladder, then the width graph."""

from cerewrite.frontend.tracing.ladder import trace

__all__ = ["trace"]
