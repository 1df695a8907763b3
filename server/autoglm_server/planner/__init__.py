"""Planners: from a request to steps, and from results to an answer."""
