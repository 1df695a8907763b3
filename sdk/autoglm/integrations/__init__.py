"""Bridges to other frameworks. Each imports its framework when it is used; ``import autoglm`` imports none of them."""
