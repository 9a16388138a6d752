"""From a spec to a traced model: loading, unwrapping, the tracing ladder, width classes."""
