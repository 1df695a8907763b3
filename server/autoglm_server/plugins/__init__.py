"""Plugins: hook specifications and loading."""
