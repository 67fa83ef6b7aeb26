"""Environments and tools for trajectories of several turns, as plugins like the rewards. No torch.

contract.py   what plugin authors write, and what the engine calls
config.py     the sections `environment:` and `tools:`
schema.py     a function as a JSON schema, and arguments checked against it
binding.py    what a config names, with its options
host.py       what a config names, ready to be asked; session.py is one trajectory of it
processes.py  worker processes and deadlines
worker.py     what runs in a worker process
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
