"""An installed environment of the package `verifiers`, as it is: `use: "verifiers:NAME"`.

It runs its own loop and asks a model behind an OpenAI-compatible endpoint. That endpoint is here: a local
server that holds each request until our sampler has answered. So single-turn, multi-turn and tool
environments run unchanged, in the worker process of their trajectory; the reward and metrics of their
rubric are the `details` of the last step.

    prompt and tools of the first request   what `reset` returns
    messages that a further request adds    what `step` returns
"""

import asyncio
import inspect
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial, wraps
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from verl_lite.errors import ConfigError, PluginError
from verl_lite.plugins.environments.contract import EnvironmentDefinition, Step, ToolSchema
from verl_lite.plugins.rollout import Message, content_text

MODEL = "verl-lite"
VERSIONS = "verifiers>=0.1.14,<0.4"  # that have classic environments with this `run_rollout`
_KEY_VARIABLE = "VERL_LITE_LOCAL_KEY"  # verifiers reads a key from the environment; the server takes any
_ROW_KEYS = ("prompt", "answer", "task", "info", "example_id")


class VerifiersOptions(BaseModel):
    """The arguments of the environment's `load_environment`."""

    model_config = ConfigDict(frozen=True, extra="allow")


class VerifiersEnvironment:
    """One rollout of an environment of verifiers."""

    def __init__(self, options: VerifiersOptions, row: Mapping[str, object], *, name: str) -> None:
        self._environment = load(name, json.dumps(options.model_dump(), sort_keys=True))
        self._row = row
        self._server = _ModelServer()
        self._known: list[dict[str, Any]] = []  # the messages that our model has seen or said
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.tools: Sequence[ToolSchema] = ()

    def reset(self) -> Sequence[Message]:
        self._thread.start()
        request = self._server.next_event()
        if not isinstance(request, _Request):
            raise RuntimeError(f"the environment ended before it asked the model: {request!r:.300}")
        self.tools = tuple(request.body.get("tools") or ())
        self._known = list(request.body["messages"])
        return [_ours(message) for message in self._known]

    def step(self, message: Message) -> Step:
        self._server.answer(message)
        event = self._server.next_event()
        if isinstance(event, BaseException):
            raise event
        if not isinstance(event, _Request):
            return Step(done=True, details=event)
        messages = event.body["messages"]
        before = len(self._known) + 1  # with the reply
        if len(messages) <= before or [m["role"] for m in messages[:before]] != [
            *(m["role"] for m in self._known),
            "assistant",
        ]:
            raise RuntimeError("the environment rewrites what the model saw: a trajectory cannot follow that")
        self._known = list(messages)
        return Step(messages=[_ours(item) for item in messages[before:]])

    def close(self) -> None:
        self._server.close()

    def _run(self) -> None:
        """The environment's own loop, on a thread; ends with an event that is no request."""
        FAILURES.set([])
        try:
            output = asyncio.run(self._rollout())
            rewards = {"reward": output.get("reward"), "metrics": dict(output.get("metrics") or {})}
            error = output.get("error") or "; ".join(FAILURES.get())
            self._server.events.put(RuntimeError(f"verifiers: {error!r:.500}") if error else rewards)
        except BaseException as error:  # noqa: BLE001 - raised in `step`
            self._server.events.put(error)

    async def _rollout(self) -> Mapping[str, Any]:
        from verifiers.types import ClientConfig

        os.environ.setdefault(_KEY_VARIABLE, "none")
        config = ClientConfig(
            api_base_url=self._server.base_url, api_key_var=_KEY_VARIABLE, max_retries=0, timeout=86_400.0
        )
        row = {key: self._row[key] for key in _ROW_KEYS if self._row.get(key) is not None}
        row.setdefault("answer", self._row.get("reference") or "")
        row.setdefault("example_id", 0)
        found = await self._environment.run_rollout(row, config, MODEL, {})
        return cast(Mapping[str, Any], found)


FAILURES: ContextVar[list[str]] = ContextVar("failures")  # of the reward functions of a rollout


@lru_cache(maxsize=8)
def load(name: str, options: str) -> Any:
    """The environment, loaded once per process. Raises ConfigError where it is not installed."""
    try:
        found = import_module("verifiers").load_environment(name, **json.loads(options))
    except (ImportError, AttributeError, ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(f"environment verifiers:{name} cannot be loaded: {error}") from error
    for rubric in _rubrics_of(found):
        if getattr(rubric, "has_group_rewards", False) and not getattr(rubric, "rubrics", ()):
            raise ConfigError(
                f"environment verifiers:{name}: its rubric scores whole groups, and here every trajectory is "
                "scored alone: write that function as a group reward of `rewards:`"
            )
        rubric.funcs = [_watched(function) for function in rubric.funcs]
    return found


def _rubrics_of(environment: Any) -> Iterator[Any]:
    """Every rubric with functions: of the environment, of a group's rubrics, of a group's environments."""
    waiting = [environment.rubric]
    while waiting:
        rubric = waiting.pop()
        waiting += getattr(rubric, "rubrics", ())
        yield rubric
    for inner in getattr(environment, "envs", ()):
        yield from _rubrics_of(inner)


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The reward function; verifiers itself makes 0 of what it raises, so that is noted."""

    @wraps(function)
    async def call(*arguments: Any, **keywords: Any) -> float:
        try:
            result = function(*arguments, **keywords)
            return float(await result if inspect.isawaitable(result) else result)
        except Exception as error:
            FAILURES.get().append(f"reward function {function.__name__}: {type(error).__name__}: {error}")
            raise

    return call


def _prepare(options: VerifiersOptions, *, name: str) -> None:
    load(name, json.dumps(options.model_dump(), sort_keys=True))


class VerifiersCall:
    """Makes a VerifiersEnvironment; pickled by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prepare = partial(_prepare, name=name)

    def __call__(self, options: VerifiersOptions, row: Mapping[str, object]) -> VerifiersEnvironment:
        return VerifiersEnvironment(options, row, name=self.name)


def verifiers_environment(name: str) -> EnvironmentDefinition:
    """The environment `name` of verifiers. Raises PluginError where the package cannot run it."""
    try:
        package = import_module("verifiers")
    except ImportError:
        package = None
    if package is None or package.__file__ is None:  # a mere folder of that name
        raise PluginError(
            f"environment verifiers:{name} needs the package verifiers: pip install {VERSIONS!r}"
        )
    if getattr(package, "load_environment", None) is None:
        version = getattr(package, "__version__", "of this version")
        raise PluginError(
            f"environment verifiers:{name}: verifiers {version} has no classic environments, but task "
            "sets that programs play in a runtime of their own, which this bridge does not start: install "
            f"{VERSIONS!r}"
        )
    try:
        inspect.signature(package.Environment.run_rollout).bind(None, {}, None, MODEL, {})
    except TypeError:
        raise PluginError(
            f"environment verifiers:{name}: this version of verifiers is too old: install {VERSIONS!r}"
        ) from None
    return EnvironmentDefinition(
        name=f"verifiers:{name}",
        call=VerifiersCall(name),
        options_model=VerifiersOptions,
        timeout_s=300.0,
        distribution=name,
    )


def _ours(message: Mapping[str, Any]) -> Message:
    kept = {key: message[key] for key in ("tool_calls", "tool_call_id", "name") if message.get(key)}
    return cast(Message, {"role": message["role"], "content": content_text(message.get("content")), **kept})


class _Request:
    """A request that waits for its reply."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.reply: queue.Queue[Message | None] = queue.Queue()


class _ModelServer:
    """An OpenAI-compatible endpoint whose model is whoever calls `answer`."""

    def __init__(self) -> None:
        self.events: queue.Queue[_Request | Mapping[str, object] | BaseException] = queue.Queue()
        self._asked: _Request | None = None
        handler = type("Handler", (_Handler,), {"events": self.events})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def next_event(self) -> _Request | Mapping[str, object] | BaseException:
        event = self.events.get()
        self._asked = event if isinstance(event, _Request) else None
        return event

    def answer(self, message: Message) -> None:
        if self._asked is None:
            raise RuntimeError("the environment has ended")
        self._asked.reply.put(message)

    def close(self) -> None:
        if self._asked is not None:
            self._asked.reply.put(None)
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    events: "queue.Queue[_Request]"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = _Request(body)
        self.events.put(request)
        message = request.reply.get()
        if message is None:
            return
        calls = message.get("tool_calls")
        said = {
            "role": "assistant",
            "content": message["content"],
            "tool_calls": list(calls) if calls else None,
        }
        choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if calls else "stop"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        data = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [choice],
                "usage": usage,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: requests are no news."""
