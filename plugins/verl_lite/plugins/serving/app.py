"""The server's routes: token, size limit, errors as JSON, and a table of shapes."""

import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from verl_lite.errors import ConfigError, DataError, VerlLiteError
from verl_lite.plugins.adapters.bridge import check_support, refuse_steps, reward_number
from verl_lite.plugins.composite import RewardsConfig
from verl_lite.plugins.score import ScoredRollout
from verl_lite.plugins.serving.service import BusyError, LateError, RewardService, ServingOptions
from verl_lite.plugins.serving.shapes import SHAPES, Shape, to_json

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


class RefusedError(VerlLiteError):
    """A request that is not scored, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# what a failed request is answered with; anything else is 500
_STATUS: dict[type[Exception], int] = {DataError: 400, ConfigError: 422, LateError: 504, BusyError: 503}


def make_app(config: RewardsConfig, options: ServingOptions | None = None) -> "Starlette":
    """The ASGI application that scores with `config`. Its rewards start and end with its lifespan.

    Raises ConfigError and PluginError for rewards that cannot run, and without starlette.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise ConfigError(
            "a reward server needs starlette and uvicorn: pip install 'verl-lite[serve]'"
        ) from None

    service = RewardService(config, options or ServingOptions())

    @asynccontextmanager
    async def lifespan(app: "Starlette") -> Any:
        try:
            async with service:
                yield
        except VerlLiteError as error:
            app.state.failure = error  # for whoever started the server
            raise

    gate = _Gate(service)
    routes = [
        Route(path, partial(gate.answer, path, partial(_score, service, shape)), methods=["POST"])
        for shape in SHAPES
        for path in (shape.path, *(() if shape.settings else (f"{shape.path}/{{name:path}}",)))
    ]
    routes += [
        Route("/health", partial(gate.answer, "/health", _health, is_open=True)),
        Route("/metrics", partial(gate.answer, "/metrics", partial(_metrics, service))),
        Route("/rewards", partial(gate.answer, "/rewards", partial(_rewards, service), is_open=True)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


class _Gate:
    """Around every handler: the token first, then the answer or the error as JSON; counted and timed."""

    def __init__(self, service: RewardService) -> None:
        self._service = service
        self._token = f"Bearer {service.options.token}".encode()

    async def answer(
        self,
        route: str,
        handler: "Callable[[Request], Awaitable[Any]]",
        request: "Request",
        *,
        is_open: bool = False,
    ) -> "Response":
        from starlette.responses import Response

        started = time.perf_counter()
        status, headers, content = 200, {}, ""
        try:
            if not is_open:
                self._check_token(request)
            answer = await handler(request)
            content = answer if isinstance(answer, str) else to_json(answer)
        except Exception as error:  # noqa: BLE001 - the border: one request's failure is its own answer
            status = _status_of(error)
            message = str(error) if isinstance(error, VerlLiteError) else f"{type(error).__name__}: {error}"
            content = json.dumps({"error": {"type": type(error).__name__, "message": message}})
            if isinstance(error, BusyError):
                headers["Retry-After"] = str(error.retry_after_s)
        self._service.metrics.add_request(route, status, time.perf_counter() - started)
        kind = "text/plain; version=0.0.4" if route == "/metrics" and status == 200 else "application/json"
        return Response(content, status_code=status, headers=headers, media_type=kind)

    def _check_token(self, request: "Request") -> None:
        given = request.headers.get("authorization", "").encode()
        if self._service.options.token and not hmac.compare_digest(given, self._token):
            raise RefusedError(
                401, "expected the header `Authorization: Bearer TOKEN` with the server's token"
            )


def _status_of(error: Exception) -> int:
    if isinstance(error, RefusedError):
        return error.status
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


async def _score(service: RewardService, shape: Shape, request: "Request") -> Any:
    body = await _body(request, service.options.max_request_mb)
    rollouts = shape.read(body)
    only = request.path_params.get("name", "")
    step = body.get("step", 0)
    if not isinstance(step, int) or isinstance(step, bool):
        raise DataError(f"'step' must be a whole number, got {step!r:.80}")
    if shape.settings is None:
        rows = await service.score(rollouts, step=step, only=only)
        return shape.write(body, [_only(row, only) for row in rows] if only else rows, ())
    settings = replace(shape.settings, dropped=service.options.dropped)
    check_support(service.config, list(service.components.values()), settings)
    rows = await service.score(rollouts)
    refuse_steps(rows, settings.peer)
    return shape.write(body, rows, [_number(row, settings) for row in rows])


def _only(row: ScoredRollout, name: str) -> ScoredRollout:
    """The row with that component alone, which makes no combined reward."""
    return replace(row, components={name: row.components[name]}, reward=None, dropped_because="")


def _number(row: ScoredRollout, settings: Any) -> float:
    """The row's reward. A sample without one is the client's to deal with, not a failure of the server."""
    if row.reward is None and settings.dropped is None:
        raise RefusedError(
            422,
            f"rollout {row.rollout.id!r} has no reward ({row.dropped_because}), and {settings.peer} needs a "
            "number: set on_error, on_timeout or on_abstain to zero under `scoring:`, or serve with "
            "--dropped NUMBER",
        )
    return reward_number(row, settings)


async def _body(request: "Request", max_mb: float) -> dict[str, Any]:
    limit = int(max_mb * 2**20)
    too_large = RefusedError(413, f"the request is larger than {max_mb:g} MiB: send fewer rollouts at a time")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > limit:
            raise too_large
    try:
        body = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise DataError(f"the body must be a JSON object, got {type(body).__name__}")
    return body


async def _health(request: "Request") -> Any:
    return {"status": "ok"}


async def _metrics(service: RewardService, request: "Request") -> str:
    return service.metrics.text()


async def _rewards(service: RewardService, request: "Request") -> Any:
    """What `use: http://...` asks first: the rewards, and whether each compares the samples of a prompt."""

    def described(only: str) -> dict[str, Any]:
        parts = service.needs_of(only)
        seconds = math.fsum(part.timeout_s for part in parts)
        groups = any(part.definition.form == "group" for part in parts)
        return {"compares_groups": groups, "deadlines_s": seconds}

    return {"all": described(""), "rewards": {name: described(name) for name in service.components}}
