"""Rewards over HTTP: a server for the rewards of a config, and `use: http://host:port/name` for its client.

server.py   starts and ends it; needs the extra `serve` (starlette and uvicorn)
app.py      routes, token, limits, errors
shapes.py   what each trainer sends and gets: our own shape, OpenRLHF's, verl's
service.py  the bounded queue and the merged batches
remote.py   a reward that asks a server; needs nothing but the core
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
