"""Put data, style and script into one HTML file that needs no network and never runs a rollout's text."""

import base64
import gzip
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from verl_lite.lab.report.columns import finite_tree
from verl_lite.lab.report.report_data import ReportData

_LIBRARIES = ("uPlot.iife.min.js", "marked.umd.js", "temml.min.js", "prism.min.js")
_SCRIPTS = (
    "dom.js", "data.js", "expression.js", "state.js", "text.js", "charts.js", "facets.js", "list.js",
    "conversation.js", "detail.js", "browser.js", "overview.js", "timeline.js", "training.js", "main.js",
)  # fmt: skip
_STYLES = ("vendor/uPlot.min.css", "vendor/temml.css", "report.css")

# Only our own script and style sheet, known by their hashes: no requests, no frames, no inline handlers.
_POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def write_report(data: ReportData, path: str | Path) -> Path:
    """Write the report of `collect`'s data to `path`, atomically; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(_page(data), encoding="utf-8")
    os.replace(aside, path)
    return path


def _page(data: ReportData) -> str:
    rest = {name: finite_tree(part) for name, part in data.items() if name not in ("columns", "blocks")}
    sizes = [block["size"] for block in data["blocks"]]
    libraries = "window.Prism = { manual: true };" + _assets([f"vendor/{name}" for name in _LIBRARIES])
    scripts = f'{libraries}(() => {{\n"use strict";{_assets(_SCRIPTS)}}})();\n'
    styles = _assets(_STYLES)
    parts = {
        "title": html.escape(data["title"]),
        "policy": _POLICY.format(script=_digest(scripts), style=_digest(styles)),
        "styles": styles,
        "scripts": scripts,
        "head": _packed({**rest, "columns": data["columns"], "blocks": sizes}),
        "blocks": "\n".join(
            f'<script type="application/octet-stream" class="block">{_packed(block)}</script>'
            for block in data["blocks"]
        ),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _packed(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _assets(names: Sequence[str]) -> str:
    return "\n" + "\n".join(_asset(name) for name in names) + "\n"


def _asset(name: str) -> str:
    return files("verl_lite.lab.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")
