"""Put data, style and script into one HTML file that needs no network and never runs a rollout's text."""

import base64
import gzip
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

_SCRIPTS = (
    "uPlot.iife.min.js",
    "data.js",
    "charts.js",
    "timeline.js",
    "extremes.js",
    "browser.js",
    "main.js",
)
_STYLES = ("uPlot.min.css", "report.css")

# Only our own script may run, identified by its hash: no requests, no frames, no inline handlers.
_POLICY = (
    "default-src 'none'; script-src 'sha256-{}'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def write_report(data: Mapping[str, Any], path: str | Path) -> Path:
    """Write the report of `collect`'s data to `path`, atomically; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(_page(data), encoding="utf-8")
    os.replace(aside, path)
    return path


def _page(data: Mapping[str, Any]) -> str:
    text = json.dumps(_finite(data), ensure_ascii=True, separators=(",", ":"))
    payload = base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()
    scripts = "\n" + "\n".join(_asset(name) for name in _SCRIPTS) + "\n"
    digest = base64.b64encode(hashlib.sha256(scripts.encode()).digest()).decode()
    parts = {
        "title": html.escape(str(data["title"])),
        "policy": _POLICY.format(digest),
        "styles": "\n".join(_asset(name) for name in _STYLES),
        "scripts": scripts,
        "payload": payload,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files("verl_lite.lab.report").joinpath("assets", name).read_text(encoding="utf-8")


def _finite(value: Any) -> Any:
    """`value` with nan and infinities as None: JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
