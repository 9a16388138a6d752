"""How notebooks show records: one file a record, each ending in its registration."""
