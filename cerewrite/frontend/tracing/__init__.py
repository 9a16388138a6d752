"""From a module to a `TracedModel`: the tracing ladder, then the width graph."""

from cerewrite.frontend.tracing.ladder import record_ops, trace

__all__ = ["record_ops", "trace"]
