"""One trajectory: its tool calls answered, its environment asked, its processes ended."""

import asyncio
import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

from verl_lite.errors import EnvironmentFailed
from verl_lite.plugins.environments.contract import StepResult, ToolSchema, schema_name
from verl_lite.plugins.environments.processes import Holder, Processes, on_thread, run_to_end
from verl_lite.plugins.environments.worker import Failed, Opening, ReadyTool, Reply, ToolAnswer
from verl_lite.plugins.rollout import Message, ToolCall
from verl_lite.workers import Answer

CLOSE_S = 2.0  # for an environment's own `close`
ValueT = TypeVar("ValueT")


class Session:
    """The EnvironmentSession of `Environments`. A process each for the environment and a stateful tool."""

    def __init__(
        self,
        processes: Processes,
        row: Mapping[str, object],
        seed: int,
        *,
        on_close: "Callable[[Session], None]",
    ) -> None:
        self._processes = processes
        self._on_close = on_close
        self._row = row
        self._seed = seed
        self._opening: Opening | None = None
        self._holders: dict[str, Holder] = {}  # by the tool's name; "" is the environment
        self._opened: dict[str, ReadyTool] = {}  # tools of this process
        self._locks: dict[str, asyncio.Lock] = {}
        self._steps = 0
        self._is_closed = False
        self._is_admitted = False
        self._admitting = asyncio.Lock()

    @property
    def tools(self) -> Sequence[ToolSchema]:
        """Complete after `reset`: an environment may add its own."""
        own = self._opening.tools if self._opening is not None else ()
        return [*self._processes.schemas, *own]

    async def reset(self) -> Sequence[Message]:
        await asyncio.wrap_future(on_thread(self._processes.wait_ready))
        if self._processes.binding.environment is None:
            return _prompt_of(self._row)
        self._opening = await self._ask_environment(("reset", dict(self._row), self._seed), Opening, "reset")
        clashing = [name for name in map(schema_name, self._opening.tools) if name in self._processes.tools]
        if clashing:
            raise self._failed("reset", f"it offers the tool {clashing[0]!r}, which `tools:` has too")
        return self._opening.messages

    async def step(self, message: Message) -> StepResult:
        self._steps += 1
        calls = message.get("tool_calls") or ()
        own = self._opening.own if self._opening is not None else frozenset()
        if calls and not own.intersection(map(_called_name, calls)):
            return await self._answer_calls(calls)
        if self._processes.binding.environment is None:
            return StepResult(done=True)
        began = time.perf_counter()
        reply = await self._ask_environment(("step", message), Reply, f"step {self._steps}")
        seconds = (time.perf_counter() - began) / max(len(reply.messages), 1)
        return StepResult(
            messages=reply.messages,
            done=reply.done,
            outcomes=reply.outcomes,
            seconds=(seconds,) * len(reply.messages),
            details=reply.details,
        )

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._on_close(self)
        endings = [self._ending(holder) for holder in self._holders.values()]
        endings += [partial(run_to_end, tool.close) for tool in self._opened.values()]
        await asyncio.gather(*(asyncio.wrap_future(on_thread(end)) for end in endings))
        self._leave()

    def kill(self) -> None:
        """End the processes at once, from any thread."""
        self._is_closed = True
        for holder in list(self._holders.values()):
            holder.close()
        self._leave()

    def _leave(self) -> None:
        if self._is_admitted:
            self._is_admitted = False
            self._processes.leave()

    def _ending(self, holder: Holder) -> Callable[[], None]:
        def end() -> None:
            holder.ask(pickle.dumps(("close",), 5), time.monotonic() + CLOSE_S)
            holder.close()

        return end

    # ---- tools

    async def _answer_calls(self, calls: Sequence[ToolCall]) -> StepResult:
        began = time.perf_counter()
        found = await asyncio.gather(*(self._timed(call, began) for call in calls))
        answers = [answer for answer, _ in found]
        messages = tuple(
            Message(
                role="tool",
                content=answer.text,
                tool_call_id=str(call.get("id") or ""),
                name=_called_name(call),
            )
            for call, answer in zip(calls, answers, strict=True)
        )
        return StepResult(
            messages=messages,
            outcomes=tuple(answer.outcome for answer in answers),
            seconds=tuple(seconds for _, seconds in found),
        )

    async def _timed(self, call: ToolCall, began: float) -> tuple[ToolAnswer, float]:
        answer = await self._call(_called_name(call), _arguments(call))
        return answer, time.perf_counter() - began

    async def _call(self, name: str, arguments: str | None) -> ToolAnswer:
        known = [schema_name(schema) for schema in self.tools]
        if arguments is None:
            return ToolAnswer("Error: a tool call needs a function with a name and arguments", "malformed")
        if name not in known:
            there = f"there are: {', '.join(known)}" if known else "there are none"
            return ToolAnswer(f"Error: there is no tool {name!r:.100}; {there}", "unknown_tool")
        tool = self._processes.tools.get(name)
        if tool is None:  # the environment's
            environment = self._processes.binding.environment
            assert environment is not None
            job = ("call_own", name, arguments)
            return await self._ask_environment(job, ToolAnswer, f"its tool {name}")
        if name in self._processes.here:
            return await self._call_here(name, arguments, tool.timeout_s)
        job = ("call", name, arguments)
        if not tool.has_state:
            answer = await self._processes.called(job, tool.timeout_s)
        else:
            answer = await self._ask_holder(name, job, tool.timeout_s)
        return _tool_answer(answer, tool.timeout_s, lost="; it lost its state" * tool.has_state)

    async def _call_here(self, name: str, arguments: str, timeout_s: float) -> ToolAnswer:
        """A tool of this process, on a thread with an event loop of its own: it may block."""
        async with self._lock(name):
            wait_s = None if self._processes.debug_inline else timeout_s
            asked = asyncio.wrap_future(on_thread(lambda: self._run_here(name, arguments)))
            done, _ = await asyncio.wait({asked}, timeout=wait_s)
            return asked.result() if done else _late(timeout_s)

    def _run_here(self, name: str, arguments: str) -> ToolAnswer:
        ready = self._processes.here[name]
        if ready.has_state:
            if name not in self._opened:
                self._opened[name] = ready.opened()
            ready = self._opened[name]
        return asyncio.run(ready.call(arguments))

    # ---- processes

    async def _ask_environment(self, job: tuple[object, ...], kind: type[ValueT], where: str) -> ValueT:
        environment = self._processes.binding.environment
        assert environment is not None
        answer = await self._ask_holder("", job, environment.timeout_s)
        if answer.status == "timeout":
            raise self._failed(where, f"no answer within {environment.timeout_s:g} s; it was stopped")
        if answer.status != "ok":
            raise self._failed(where, answer.why)
        reply = pickle.loads(answer.body[1:])
        if isinstance(reply, Failed):
            raise self._failed(where, reply.reason)
        return cast(ValueT, reply)

    def _failed(self, where: str, why: str) -> EnvironmentFailed:
        environment = self._processes.binding.environment
        assert environment is not None
        return EnvironmentFailed(f"environment {environment.name!r}: {where}: {why}")

    async def _ask_holder(self, name: str, job: tuple[object, ...], timeout_s: float) -> Answer:
        """A job for the process of the environment ("") or of a stateful tool, which starts when needed."""
        pickled = pickle.dumps(job, 5)
        async with self._lock(name):
            if self._is_closed:
                raise EnvironmentFailed("the session is closed")
            holder = self._holders.get(name)
            if holder is None:
                await self._admit()
                holder = self._holders[name] = await self._processes.asked(self._processes.lease)
            ask = holder.ask
            answer = await self._processes.asked(lambda: ask(pickled, time.monotonic() + timeout_s))
            if answer.status != "ok" and name:
                del self._holders[name]  # the next call starts another
            return answer

    async def _admit(self) -> None:
        async with self._admitting:
            if not self._is_admitted:
                await asyncio.wrap_future(on_thread(self._processes.admit))
                self._is_admitted = True

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def _prompt_of(row: Mapping[str, object]) -> Sequence[Message]:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    if not isinstance(prompt, Sequence) or not prompt:
        raise EnvironmentFailed("the row has no `prompt`, and there is no environment that makes one")
    return cast(Sequence[Message], prompt)


def _called_name(call: object) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    return str(function.get("name") or "") if isinstance(function, Mapping) else ""


def _arguments(call: object) -> str | None:
    """The arguments' JSON text; None where the call is none."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not function.get("name"):
        return None
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _tool_answer(answer: Answer, timeout_s: float, *, lost: str) -> ToolAnswer:
    if answer.status == "ok":
        return cast(ToolAnswer, pickle.loads(answer.body[1:]))
    if answer.status == "timeout":
        late = _late(timeout_s)
        return ToolAnswer(late.text + lost, late.outcome)
    if answer.status == "died":
        return ToolAnswer(f"Error: the tool {answer.why}{lost}", "error")
    raise EnvironmentFailed(answer.why)


def _late(timeout_s: float) -> ToolAnswer:
    return ToolAnswer(f"Error: no result within {timeout_s:g} s; the tool was stopped", "timeout")
