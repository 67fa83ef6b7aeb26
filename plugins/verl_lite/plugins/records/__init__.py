"""Rollout records: what was sampled and how it was scored, in Parquet or JSONL, versioned and streamed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
