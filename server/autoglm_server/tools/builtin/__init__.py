"""The tools that come with the server."""
