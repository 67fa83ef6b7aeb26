"""The lab from Python: `score`, `diff`, `check` and `attack` over files, rollouts, rows or tables.

    from verl_lite.lab import notebook as lab

    rewards = {"correct": "math", "short": lambda rollout: len(rollout.completion) < 80}
    scores = lab.score("rollouts.jsonl", rewards)
    scores.metrics["reward/mean"], scores.to_pandas()

pandas and polars are imported only by the methods that make their tables.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
