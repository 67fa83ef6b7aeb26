"""A fake chat server, for rewards that ask a model over HTTP."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from verl_lite.plugins.rollout import Message

Reply = str | int


@dataclass(frozen=True, slots=True)
class ChatRequest:
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def messages(self) -> list[Message]:
        return list(self.body["messages"])

    @property
    def text(self) -> str:
        """The contents of all messages, one per line."""
        return "\n".join(str(message["content"]) for message in self.messages)


class FakeChatServer:
    """A local OpenAI-compatible server (`POST /chat/completions` below `base_url`). A context manager.

    `reply` is a text, or an int for an HTTP error of that status. A sequence of these is used item by
    item, the last one from then on; a function is called with the ChatRequest. `requests` are the
    received requests, in order.

    >>> with FakeChatServer(reply=[503, "score: 4"]) as server:     # doctest: +SKIP
    ...     judge(base_url=server.base_url)                         # retries once
    ...     assert len(server.requests) == 2
    """

    def __init__(self, reply: Reply | Sequence[Reply] | Callable[[ChatRequest], Reply]) -> None:
        self.requests: list[ChatRequest] = []
        self._reply = reply
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def base_url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/v1"

    def __enter__(self) -> "FakeChatServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next_reply(self, request: ChatRequest) -> Reply:
        with self._lock:
            self.requests.append(request)
            count = len(self.requests)
        if callable(self._reply):
            return self._reply(request)
        if isinstance(self._reply, (str, int)):
            return self._reply
        return self._reply[min(count, len(self._reply)) - 1]

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.rstrip("/") != "/v1/chat/completions":
                    self._send(404, {"error": {"message": f"no such path: {self.path}"}})
                    return
                reply = fake._next_reply(ChatRequest(body, dict(self.headers)))
                if isinstance(reply, int):
                    self._send(reply, {"error": {"message": f"the test wants status {reply}"}})
                else:
                    self._send(200, _completion(str(body.get("model", "")), reply))

            def _send(self, status: int, data: Mapping[str, object]) -> None:
                payload = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                """No output: tests look at `requests`."""

        return Handler


def _completion(model: str, text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
