"""The scheduler: apply, decide, and the one loop."""
