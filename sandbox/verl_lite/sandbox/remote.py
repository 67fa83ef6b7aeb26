"""The backend for an existing service with SandboxFusion's HTTP API (`POST /run_code`).

Isolation is up to the service. Requests carry time and memory limits; the service sets the limits
that the API has no field for (processes, file size, open files). Output is text there, so bytes that
are not UTF-8 are lost, and there is no reply channel.
"""

import base64
import http.client
import json
import urllib.request
from typing import Any

from verl_lite.errors import SandboxError
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.limits import Result, Status

_LANGUAGES = {"python": "python", "bash": "bash", "cpp": "cpp", "javascript": "nodejs"}
_COMPILE_TIMEOUT_S = 30.0
_HTTP_SLACK_S = 30.0


class RemoteBackend:
    """Sends each run to the service at `url`, such as "http://sandbox:8080"."""

    name = "remote"
    isolated = True
    languages = frozenset(_LANGUAGES)

    def __init__(self, url: str) -> None:
        self.url = url
        self._endpoint = url.rstrip("/") + "/run_code"

    def run(self, request: Request) -> Result:
        """Run one program; an unreachable or failing service is a `sandbox_error` result.

        Raises SandboxError when `args` are given: the API has no field for them.
        """
        if request.args:
            raise SandboxError(f"args: the service at {self.url} takes no command-line arguments")
        body = json.dumps(_body(request)).encode()
        post = urllib.request.Request(self._endpoint, body, {"Content-Type": "application/json"})
        timeout_s = request.limits.wall_s + _COMPILE_TIMEOUT_S + _HTTP_SLACK_S
        try:
            with urllib.request.urlopen(post, timeout=timeout_s) as response:
                return _result(json.load(response), request)
        except (http.client.HTTPException, OSError, ValueError, KeyError, TypeError) as error:
            return Result(status=Status.SANDBOX_ERROR, message=f"{self._endpoint}: {error!r}")

    def close(self) -> None:
        """Nothing to do: the service itself stops runs at their time limit."""


def _body(request: Request) -> dict[str, object]:
    files = {name: base64.b64encode(data).decode() for name, data in request.files.items()}
    return {
        "code": request.source.decode("utf-8", "surrogatepass"),
        "language": _LANGUAGES[request.language],
        "stdin": request.stdin.decode("utf-8", "replace"),
        "files": files,
        "compile_timeout": _COMPILE_TIMEOUT_S,
        "run_timeout": request.limits.wall_s,
        "memory_limit_MB": request.limits.memory_mb,
        "fetch_files": [],
    }


def _result(answer: dict[str, Any], request: Request) -> Result:
    if answer["status"] == "SandboxError":
        return Result(status=Status.SANDBOX_ERROR, message=answer.get("message") or "the service's own error")
    compiled, ran = answer.get("compile_result"), answer.get("run_result")
    last = ran or compiled
    if last is None:
        raise ValueError("neither compile_result nor run_result in the answer")
    limit = request.limits.output_kb * 1024
    stdout = (last.get("stdout") or "").encode()
    stderr = (last.get("stderr") or "").encode()
    status, message = _status(last, compiled_only=ran is None)
    if max(len(stdout), len(stderr)) > limit:
        status, message = Status.OUTPUT_LIMIT, f"wrote more than output_kb={request.limits.output_kb} KiB"
    return Result(
        status=status,
        exit_code=last.get("return_code"),
        stdout=stdout[:limit],
        stderr=stderr[:limit],
        wall_s=float(last.get("execution_time") or 0.0),
        message=message,
    )


def _status(step: dict[str, Any], *, compiled_only: bool) -> tuple[Status, str]:
    if step["status"] == "TimeLimitExceeded":
        return Status.TIMEOUT, "ran longer than its time limit"
    if step["status"] == "Error":
        return Status.SANDBOX_ERROR, "the service could not execute the command"
    code = step.get("return_code")
    if compiled_only or code:
        return Status.ERROR, f"{'compiler' if compiled_only else 'program'}: exit code {code}"
    return Status.OK, ""
