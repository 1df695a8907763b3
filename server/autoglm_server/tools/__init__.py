"""Tools: the catalog, and one way to call."""
