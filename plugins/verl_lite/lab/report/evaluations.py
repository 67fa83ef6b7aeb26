"""Read the folder of `verl-lite eval --out`: measures for the report, samples for the browser."""

import json
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.reading.run_folders import RESULTS


def evaluation_data(folder: Path) -> dict[str, Any]:
    """{name, model, datasets: {data set: [measure]}} of one evaluation. Raises DataError for other files."""
    path = folder / RESULTS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        datasets = {name: list(part["measures"]) for name, part in data["datasets"].items()}
        return {"name": folder.name, "model": str(data["model"]), "datasets": datasets}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no results of an evaluation: {error!r}") from None
