"""A sandbox over HTTP, both ends: `serve` runs programs for others, `ServedBackend` has them run there.

`POST /v1/run` takes one JSON object and returns one; bytes travel as base64. `GET /v1/health` needs no
token. The server's own limits bound every request's. It answers 401 without the token, 400 for a request
that cannot be used, 413 for one that is too large, 503 when too many wait; a client tries again after 503
or a connection that failed before an answer, since a run has no effects outside its sandbox.
"""

import base64
import hmac
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from verl_lite.errors import SandboxError
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.languages import LANGUAGES
from verl_lite.sandbox.limits import Limits, Result, Status

_BYTES = ("stdout", "stderr", "reply")
_MAX_REQUEST_BYTES = 64 << 20
_TRIES, _FIRST_PAUSE_S = 8, 0.1
_HTTP_SLACK_S = 120.0  # waiting for a free worker there


def request_to_json(request: Request) -> dict[str, Any]:
    return {
        "language": request.language,
        "source": _text(request.source),
        "stdin": _text(request.stdin),
        "files": {name: _text(data) for name, data in request.files.items()},
        "args": request.args,
        "limits": asdict(request.limits),
    }


def request_from_json(body: Any, *, most: Limits) -> Request:
    """Raises ValueError or TypeError for what `request_to_json` does not give. No limit exceeds `most`."""
    if not isinstance(body, dict):
        raise TypeError(f"expected a JSON object, got {type(body).__name__}")
    limits = body.get("limits", {})
    given = Limits(**limits)
    within = {name: _least(getattr(given, name), bound) for name, bound in asdict(most).items()}
    if body["language"] not in LANGUAGES:
        raise ValueError(f"language: {body['language']!r}: known are {', '.join(LANGUAGES)}")
    files = {name: _data(text) for name, text in body.get("files", {}).items()}
    source, stdin = _data(body["source"]), _data(body.get("stdin", ""))
    return Request(
        body["language"], source, stdin, files, list(body.get("args", [])), replace(given, **within)
    )


def result_to_json(result: Result) -> dict[str, Any]:
    return {**asdict(result), **{name: _text(getattr(result, name)) for name in _BYTES}}


def result_from_json(answer: dict[str, Any]) -> Result:
    data = {name: _data(answer[name]) for name in _BYTES}
    return Result(**{**answer, **data, "status": Status(answer["status"])})


def _least(value: Any, bound: Any) -> Any:
    return value if bound is None else bound if value is None else min(value, bound)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _data(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class SandboxServer(ThreadingHTTPServer):
    """Runs programs for clients that know `token`, one thread per request; `max_waiting` bounds those."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self, address: tuple[str, int], run: Any, *, token: str, most: Limits, max_waiting: int
    ) -> None:
        self.run, self.token, self.most = run, token, most
        self.places = threading.BoundedSemaphore(max_waiting)
        super().__init__(address, _Handler)

    def handle_error(self, *_: Any) -> None:
        """A client that left: its run's result is nobody's."""


class _Handler(BaseHTTPRequestHandler):
    server: SandboxServer
    protocol_version = "HTTP/1.1"
    timeout = 300
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/v1/health":
            self._answer(200, {"status": "ok", "languages": sorted(LANGUAGES)})
        else:
            self._answer(404, {"error": f"{self.path}: expected /v1/run or /v1/health"})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not 0 < size <= _MAX_REQUEST_BYTES:
            return self._refuse(413, f"{size} bytes: expected 1 to {_MAX_REQUEST_BYTES}")
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            return self._refuse(401, "expected `Authorization: Bearer TOKEN` with the server's token")
        body = self.rfile.read(size)
        if self.path != "/v1/run":
            return self._answer(404, {"error": f"{self.path}: expected /v1/run or /v1/health"})
        if not self.server.places.acquire(blocking=False):
            return self._answer(503, {"error": "too many runs wait here: try again"})
        try:
            self._run(body)
        finally:
            self.server.places.release()

    def _run(self, body: bytes) -> None:
        try:
            request = request_from_json(json.loads(body), most=self.server.most)
            code, answer = 200, result_to_json(self.server.run(request))
        except SandboxError as error:
            code, answer = 400, {"error": str(error)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            code, answer = 400, {"error": f"{type(error).__name__}: {error}"}
        self._answer(code, answer)

    def _refuse(self, code: int, reason: str) -> None:
        """Without reading the body: the connection cannot be used again."""
        self.close_connection = True
        self._answer(code, {"error": reason})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silent: a training step makes thousands of requests."""


class ServedBackend:
    """Has each program run by the `verl-lite sandbox serve` at `url`, such as "verl+http://host:8090"."""

    name = "served"
    isolated = True
    languages = frozenset(LANGUAGES)

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._endpoint = url.removeprefix("verl+").rstrip("/") + "/v1/run"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def run(self, request: Request) -> Result:
        """Run one program; a server that cannot be reached is a `sandbox_error` result.

        Raises SandboxError when the server refuses the token or the request.
        """
        body = json.dumps(request_to_json(request)).encode()
        limits = request.limits
        timeout_s = limits.wall_s + limits.compile_wall_s + _HTTP_SLACK_S
        reason = ""
        for attempt in range(_TRIES):
            try:
                post = urllib.request.Request(self._endpoint, body, self._headers)
                with urllib.request.urlopen(post, timeout=timeout_s) as response:
                    return result_from_json(json.load(response))
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.read().decode(errors='replace')[:500]}"
                if error.code in (400, 401, 404, 413):
                    raise SandboxError(f"{self._endpoint}: {reason}") from error
            except (http.client.HTTPException, OSError, ValueError, KeyError, TypeError) as error:
                reason = repr(error)
            time.sleep(_FIRST_PAUSE_S * 2**attempt)
        return Result(status=Status.SANDBOX_ERROR, message=f"{self._endpoint}: {reason} ({_TRIES} tries)")

    def close(self) -> None:
        """Nothing to do: the server stops runs at their limits."""
