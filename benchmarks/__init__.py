"""What AutoGLM's speed is, beside what it could be at most: ``python -m benchmarks --list``. See docs/performance.md."""
