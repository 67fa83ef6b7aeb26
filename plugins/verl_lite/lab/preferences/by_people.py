"""Preferences from people: a small web page on this machine; each judgement is saved, and work resumes.

It listens on 127.0.0.1 only. Every request must carry the token printed at the start and name this
machine as its host, so that no other page in the browser can reach it.
"""

import base64
import hashlib
import hmac
import json
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

from verl_lite.errors import ConfigError
from verl_lite.lab.preferences.candidates import Candidates
from verl_lite.lab.preferences.rows import PreferenceRow, read_preferences, write_preferences

MAX_BODY_BYTES = 64 * 1024


def _lock_now(file: Any) -> None:
    """Lock a file for this process; raises OSError where another has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class AnnotationStore:
    """One annotator's judgements of `candidates`, in `path`; it keeps other annotators' rows there.

    Raises ConfigError while another page writes to the file.
    """

    def __init__(self, path: Path, candidates: Sequence[Candidates], *, annotator: str) -> None:
        self._path = path
        self._candidates = {group.id: group for group in candidates}
        self._annotator = annotator
        self._guard = Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_name(f".{path.name}.lock").open("w")
        try:
            _lock_now(self._lock)
        except OSError:
            self._lock.close()
            raise ConfigError(
                f"{path} is being written by another page: close it, or name another file"
            ) from None
        self._rows = list(read_preferences(path)) if path.exists() else []

    def close(self) -> None:
        self._lock.close()

    def _is_mine(self, row: PreferenceRow) -> bool:
        return row.source == "human" and row.annotator == self._annotator

    @property
    def judged(self) -> list[str]:
        """The ids this annotator has judged, in the order of judging."""
        return [row.id for row in self._rows if self._is_mine(row) and row.id in self._candidates]

    def state(self, wanted: str | None = None) -> dict[str, Any]:
        """What the page shows: the completions, shuffled, and the progress."""
        judged = self.judged
        open_ids = [identity for identity in self._candidates if identity not in set(judged)]
        shown = wanted if wanted in self._candidates else next(iter(open_ids), None)
        state: dict[str, Any] = {
            "annotator": self._annotator,
            "judged": len(judged),
            "total": len(self._candidates),
            "previous": judged[-1] if judged else None,
        }
        if shown is not None:
            group = self._candidates[shown]
            state["item"] = {
                "id": shown,
                "prompt": [
                    {"role": m.get("role", ""), "content": str(m.get("content", ""))} for m in group.prompt
                ],
                "completions": [group.completions[index] for index in self._order(shown)],
            }
        return state

    def _order(self, identity: str) -> list[int]:
        """The order on the page, shuffled per annotator, so that no position is favoured."""
        order = list(range(len(self._candidates[identity].completions)))
        random.Random(f"{self._annotator}:{identity}").shuffle(order)
        return order

    def save(self, identity: str, shown_ranks: Sequence[int]) -> None:
        """Save a judgement given in the page's order; a second one of the same item replaces the first.

        Raises ValueError for an unknown item or ranks that do not rank it.
        """
        group = self._candidates.get(identity)
        if group is None:
            raise ValueError(f"there is no item {identity!r}")
        if sorted(set(shown_ranks)) != list(range(1, len(set(shown_ranks)) + 1)):
            raise ValueError(f"expected ranks 1, 2, ... without gaps, got {list(shown_ranks)}")
        order = self._order(identity)
        ranks = dict(zip(order, shown_ranks, strict=True))
        row = group.ranked(
            [ranks[index] for index in range(len(order))], source="human", annotator=self._annotator
        )
        row = replace(row, columns={**row.columns, "shown_order": order})
        with self._guard:
            others = [old for old in self._rows if not (self._is_mine(old) and old.id == identity)]
            self._rows = [*others, row]
            write_preferences(self._path, self._rows)


class AnnotationPage:
    """Serves the page while open; `url` holds the token. `port` 0 picks a free one."""

    def __init__(self, store: AnnotationStore, *, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self._server = _Server(port, store, self.token)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/#{self.token}"

    def serve(self) -> None:
        """Answer requests until `stop` or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        self._server.shutdown()

    def __enter__(self) -> "AnnotationPage":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, store: AnnotationStore, token: str) -> None:
        self.store = store
        self.token = token
        self.page, self.policy = _page()
        super().__init__(("127.0.0.1", port), _Handler)


def _page() -> tuple[bytes, str]:
    """The page and a policy that allows only its own script."""
    assets = files("verl_lite.lab.preferences").joinpath("assets")
    script = assets.joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = assets.joinpath("page.html").read_text(encoding="utf-8")
    return html.replace("{{script}}", script).encode(), policy


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if not self._is_this_host():
            return
        if self.path == "/":  # holds no data: the token comes with the script's own requests
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif self.path == "/state" and self._is_allowed():
            self._json(self.server.store.state(self.headers.get("X-Item")))
        elif self.path != "/state":
            self._answer(HTTPStatus.NOT_FOUND, b"not found", "text/plain")

    def do_POST(self) -> None:
        if not self._is_this_host() or not self._is_allowed():
            return
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/judge" or not 0 < length <= MAX_BODY_BYTES:
            self._answer(HTTPStatus.BAD_REQUEST, b"expected a judgement", "text/plain")
            return
        try:
            judgement: Mapping[str, Any] = json.loads(self.rfile.read(length))
            self.server.store.save(str(judgement["id"]), [int(rank) for rank in judgement["ranks"]])
        except (ValueError, TypeError, KeyError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain")
        else:
            self._json(self.server.store.state())

    def _is_this_host(self) -> bool:
        port = self.server.server_port
        if self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return True
        self._answer(HTTPStatus.FORBIDDEN, b"unknown host", "text/plain")
        return False

    def _is_allowed(self) -> bool:
        token = self.headers.get("X-Token") or ""
        if hmac.compare_digest(token.encode(), self.server.token.encode()):
            return True
        self._answer(HTTPStatus.FORBIDDEN, b"the token is missing or wrong", "text/plain")
        return False

    def _json(self, data: Mapping[str, object]) -> None:
        self._answer(HTTPStatus.OK, json.dumps(data).encode(), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No output: a request is not worth a line on the terminal."""
