"""`use: http://host:port/name`: a reward of a reward server, or all of them combined without a name.

A server that fails is the outcome "error", never a value: also when no answer comes in time, because a
silent server says nothing about a completion. The scores it does give keep their outcomes.
"""

import asyncio
import functools
import os
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import Field

from verl_lite.errors import ConfigError, PluginError, RewardError
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import RewardDefinition
from verl_lite.plugins.records.schema import to_json
from verl_lite.plugins.records.turns import turn_rows
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

_BUSY = frozenset({429, 502, 503, 504})
_PROBE_TRIES = 3
_MAX_PAUSE_S = 30.0
_SHOWN_CHARS = 300
_WORST_FIRST = (ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT, ScoreOutcome.ABSTAIN)


class RemoteOptions(ConfigModel):
    """How a reward server is asked."""

    token_env: str = Field(default="", description="the environment variable with the server's token")
    retries: int = Field(
        default=4, ge=0, description="how often a request is sent again when the server is away or busy"
    )


class RemoteReward:
    """The reward `name` of the server at `base`; "" for the combined reward. Called with rollouts."""

    def __init__(self, base: str, name: str) -> None:
        self.base = base
        self.name = name
        self.url = f"{base}/score/{quote(name)}" if name else f"{base}/score"
        self.__doc__ = f"The reward {name or 'of all components'} of the server {base}."
        self.__module__ = __name__

    async def __call__(self, rollouts: Sequence[Rollout], options: RemoteOptions) -> list[Score]:
        import httpx

        rows = [_row(rollout) for rollout in rollouts]
        body = to_json({"rollouts": rows, "step": rollouts[0].policy_version}).encode(
            "utf-8", "surrogatepass"
        )
        # No connection outlives its call: a reward is not told when its event loop ends.
        headers = _headers(options.token_env)
        async with httpx.AsyncClient(timeout=None, headers=headers, verify=_certificates()) as client:
            for attempt in range(options.retries + 1):
                try:
                    answer = await client.post(self.url, content=body)
                except httpx.HTTPError as error:
                    problem, pause_s = f"no answer from {self.url}: {type(error).__name__}: {error}", 0.0
                else:
                    if answer.status_code not in _BUSY:
                        return self._scores(answer, rollouts)
                    problem, pause_s = _problem(self.url, answer), _retry_after_s(answer)
                if attempt < options.retries:
                    await asyncio.sleep(max(pause_s, 0.2 * 2**attempt * random.uniform(0.5, 1.0)))
        raise RewardError(f"{problem} ({options.retries + 1} tries)")

    def _scores(self, answer: Any, rollouts: Sequence[Rollout]) -> list[Score]:
        if answer.status_code != 200:
            raise RewardError(_problem(self.url, answer))
        try:
            given = answer.json()["scores"]
            name = self.name
            scores = [Score.of(item["components"][name]) if name else _combined_score(item) for item in given]
            ids = [item["id"] for item in given]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RewardError(
                f"{self.url} answered with no scores ({error}): {answer.text[:_SHOWN_CHARS]!r}"
            ) from None
        if ids != [rollout.id or f"row-{i}" for i, rollout in enumerate(rollouts, start=1)]:
            raise RewardError(f"{self.url} scored other rollouts than it was asked for: {ids!r:.300}")
        return scores


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The authorities that httpx trusts. It would read them again for each client, in 50 ms of CPU time."""
    import httpx

    return httpx.create_ssl_context()


def remote_reward(use: str) -> RewardDefinition:
    """The reward at `use`, an http(s) URL. Asks the server once whether it has it.

    Raises PluginError for a server that cannot be reached, refuses, or lacks the reward.
    """
    parts = urlsplit(use)
    base, name = f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise PluginError(f"use: {use}: expected http://HOST:PORT/NAME, or without the name for all rewards")
    found = _ask(use, f"{base}/rewards")
    described = found["rewards"].get(name) if name else found["all"]
    if described is None:
        raise PluginError(
            f"use: {use}: the server has no reward {name!r}; it has: {', '.join(found['rewards'])}"
        )
    return RewardDefinition(
        name=name.replace("/", "-") or "remote",
        call=RemoteReward(base, name),
        options_model=RemoteOptions,
        form="group" if described["compares_groups"] else "batch",
        timeout_s=float(described["deadlines_s"]) + 60.0,
        is_remote=True,
        cache=False,
        distribution=base,
    )


def _ask(use: str, url: str) -> Mapping[str, Any]:
    """The server's list of rewards, which needs no token."""
    import httpx

    for attempt in range(_PROBE_TRIES):
        try:
            answer = httpx.get(url, timeout=10.0)
            break
        except httpx.HTTPError as error:
            if attempt == _PROBE_TRIES - 1:
                raise PluginError(f"use: {use}: no answer from the reward server: {error}") from None
            time.sleep(0.3 * 2**attempt)
    try:
        found = answer.json() if answer.status_code == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"rewards", "all"} <= set(found):
        raise PluginError(
            f"use: {use}: {_problem(url, answer)}: expected a server of `verl-lite rewards serve`"
        )
    return found


def _headers(token_env: str) -> dict[str, str]:
    if not token_env:
        return {}
    token = os.environ.get(token_env, "").strip()
    if not token:
        raise ConfigError(f"the environment variable {token_env} (option token_env) is not set")
    return {"Authorization": f"Bearer {token}"}


def _row(rollout: Rollout) -> dict[str, Any]:
    """The rollout as a row of a record file. Log-probabilities and sampler settings stay here."""
    row = {
        name: getattr(rollout, name) for name in ("completion", "reference", "id", "group", "sample_index")
    }
    row |= {"finish_reason": rollout.finish_reason, "policy_version": rollout.policy_version}
    row |= {"prompt": [dict(message) for message in rollout.prompt], "columns": dict(rollout.columns)}
    row |= {"completion_ids": list(rollout.completion_ids), "prompt_ids": list(rollout.prompt_ids)}
    row |= turn_rows(rollout)
    return row


def _combined_score(item: Mapping[str, Any]) -> Score:
    """The combined reward; a dropped sample has the outcome of the component that dropped it."""
    parts: Mapping[str, Any] = item["components"]
    details = {"components": {name: part["value"] for name, part in parts.items()}}
    if any(part["steps"] for part in parts.values()):
        raise RewardError("the server's rewards give process rewards: use each of them by its name")
    if item["reward"] is not None:
        return Score(float(item["reward"]), details=details)
    outcomes = [ScoreOutcome(part["outcome"]) for part in parts.values()]
    worst = next((kind for kind in _WORST_FIRST if kind in outcomes), ScoreOutcome.ERROR)
    return Score.failed(worst, str(item["dropped_because"]), **details)


def _problem(url: str, answer: Any) -> str:
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = repr(answer.text[:_SHOWN_CHARS])
    return f"{url} answered {answer.status_code}: {message}"


def _retry_after_s(answer: Any) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), _MAX_PAUSE_S) if text.isdigit() else 0.0
