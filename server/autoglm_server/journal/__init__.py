"""The journal: the append-only store of events, and following it."""
