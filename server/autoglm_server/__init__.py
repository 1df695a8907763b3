"""The AutoGLM server: plans requests, runs their steps, and streams every event while it happens."""
