"""Client of a running `vllm serve`: completions by token ids, prompt log-probabilities, new weights.

New weights go through a shared folder: `/collective_rpc` (with VLLM_SERVER_DEV_MODE=1) tells the server to
reload it.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.errors import ConfigError, TrainingError

RETRY_PAUSE_S = 1.0
SHORTEST_TRY_S = 1.0


class ServerClient:
    """Thread-safe. A failed request is repeated up to `retries` times.

    `timeout_s` limits all attempts together, so a hanging request is not repeated. Raises ConfigError if no
    server answers at `url`, TrainingError if it stops answering later.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str,
        timeout_s: float,
        retries: int,
        setting: str = "rollout.server.url",
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._retries = retries
        self._timeout_s = timeout_s
        key = os.environ.get(api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, limits=limits)
        try:
            answer = self._http.get("/v1/models")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            self._http.close()
            raise ConfigError(f"{setting}={url}: no vLLM server answers there ({error})") from None
        self._model = answer.json()["data"][0]["id"]

    def complete(self, request: SequenceRequest, *, version: int) -> FinishedSequence:
        """Sample one sequence."""
        settings = request.settings
        (choice,) = self._completion(
            prompt=list(request.prompt_ids),
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=settings.max_new_tokens,
            seed=settings.seed,
            ignore_eos=request.ignore_end,
            stop_token_ids=[] if request.ignore_end else list(request.end_ids),
            logprobs=0,
        )
        ids = choice["token_ids"]
        logprobs = [_number(value) for value in choice["logprobs"]["token_logprobs"]]
        if len(logprobs) != len(ids):
            raise TrainingError(f"{self.url} gave {len(logprobs)} log-probabilities for {len(ids)} tokens")
        if bad := [at for at, value in enumerate(logprobs) if not math.isfinite(value)]:
            raise TrainingError(
                f"{self.url} gives a log-probability of {logprobs[bad[0]]} at token {bad[0]} of completion "
                f"{request.id}: expected a finite number; does it compute in a dtype that holds its logits?"
            )
        return FinishedSequence(
            id=request.id,
            token_ids=ids,
            logprobs=logprobs,
            token_versions=[version] * len(ids),
            finish_reason=choice["finish_reason"] or "",
        )

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """log p(token t | tokens before t) for t >= 1."""
        ids = list(token_ids)
        (choice,) = self._completion(prompt=ids, max_tokens=1, temperature=0.0, prompt_logprobs=0)
        steps = choice["prompt_logprobs"][1:]
        found = [(step or {}).get(str(token)) for step, token in zip(steps, ids[1:], strict=True)]
        return [_number(entry and entry["logprob"]) for entry in found]

    def top_logprobs(self, token_ids: Sequence[int], k: int) -> list[list[tuple[int, float]]]:
        """For t >= 1 the `k` most probable tokens, with log p(token | tokens before t)."""
        (choice,) = self._completion(prompt=list(token_ids), max_tokens=1, temperature=0.0, prompt_logprobs=k)
        found = []
        for at, step in enumerate(choice["prompt_logprobs"][1:], 1):
            ranked = sorted((step or {}).items(), key=lambda item: item[1]["rank"])[:k]
            if len(ranked) < k:
                raise TrainingError(
                    f"{self.url} gave {len(ranked)} of {k} log-probabilities at token {at}: start it with "
                    f"--max-logprobs {k} or more"
                )
            found.append([(int(token), _number(entry["logprob"])) for token, entry in ranked])
        return found

    def tokenize(self, text: str) -> list[int]:
        """The server's token ids of plain text."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        ids: list[int] = self._post("/tokenize", body).json()["tokens"]
        return ids

    def gives_processed_logprobs(self, token_ids: Sequence[int]) -> bool:
        """Whether the server reports log-probabilities after temperature and top-k.

        If so, the sampled token has probability 1 at top-k 1.
        """
        (choice,) = self._completion(prompt=list(token_ids), max_tokens=1, top_k=1, logprobs=0)
        return bool(choice["logprobs"]["token_logprobs"][0] > -1e-6)

    def takes_weights(self) -> bool:
        """Whether the server has `/collective_rpc`: it refuses an empty call with 400 instead of 404."""
        return self._post("/collective_rpc", {}, fine=(400, 404, 405)).status_code == 400

    def reload(self, folder: str) -> None:
        """Make the server load the weights in `folder` and reset its caches."""
        call = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        self._post("/collective_rpc", call)
        # recomputes running requests, ours that were cancelled and others'
        answer = self._post("/reset_prefix_cache?reset_running_requests=true", {})
        if answer.content and not answer.json().get("success", True):
            raise TrainingError(f"{self.url} kept its prefix cache of the old weights")

    def close(self) -> None:
        self._http.close()

    def _completion(self, **fields: Any) -> list[dict[str, Any]]:
        body = {
            "model": self._model,
            "return_token_ids": True,
            # a server fills missing fields from the model's generation_config
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "min_p": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "temperature": 1.0,
        }
        choices: list[dict[str, Any]] = self._post("/v1/completions", body | fields).json()["choices"]
        return choices

    def _post(self, path: str, body: Mapping[str, Any], *, fine: Sequence[int] = ()) -> httpx.Response:
        until = time.monotonic() + self._timeout_s
        for attempt in range(self._retries + 1):
            left = max(until - time.monotonic(), SHORTEST_TRY_S)
            try:
                answer = self._http.post(path, json=body, timeout=left)
            except httpx.ReadTimeout:
                reason = f"no answer within {left:.0f} s"
                break
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success or answer.status_code in fine:
                    return answer
                reason = f"{answer.status_code}: {answer.text[:300]}"
                if answer.is_client_error:
                    break
            pause_s = RETRY_PAUSE_S * 2**attempt
            if attempt == self._retries or time.monotonic() + pause_s > until:
                break
            time.sleep(pause_s)
        raise TrainingError(f"{self.url}{path} failed {attempt + 1} times; the last time with {reason}")


def _number(value: float | None) -> float:
    """A log-probability of a JSON answer; nan where there is none (null)."""
    return math.nan if value is None else float(value)
