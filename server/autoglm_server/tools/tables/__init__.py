"""SQL over the workspace's files. :mod:`call` is made in a worker process; nothing else here is imported by the server."""
