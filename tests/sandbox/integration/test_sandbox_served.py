"""A sandbox over HTTP: nothing is lost under load, and only those with the token run anything."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Sandbox, Status, serve_sandbox

TOKEN = "a token of this test"


@pytest.fixture(scope="module")
def address(sandbox: Sandbox) -> Iterator[str]:
    most = Limits(wall_s=2.0, memory_mb=128)
    server = serve_sandbox(sandbox, token=TOKEN, port=0, most=most, max_waiting=8)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("VERL_LITE_SANDBOX_TOKEN", TOKEN)
    with Sandbox(backend=f"verl+{address}") as opened:
        yield opened


def test_a_run_there_is_a_run_here(client: Sandbox) -> None:
    program = "import os, sys\nos.write(3, b'\\xff')\nprint(input(), open('f', 'rb').read(), sys.argv[1:])"
    result = client.run_python(program, stdin="x", files={"f": b"\xfe"}, args=["a"])
    assert (result.status, result.stdout) == (Status.OK, b"x b'\\xfe' ['a']\n"), result
    assert result.reply == b"\xff"
    assert client.run_python("while True: pass").message == "ran longer than wall_s=2"  # the server's
    assert client.run_python("b'x' * (200 << 20)").status is Status.MEMORY


def test_nothing_is_lost_under_load(client: Sandbox) -> None:
    """Four times as many at once as may wait: the others are told to try again, and do."""
    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(lambda i: client.run_python(f"print({i})"), range(200)))
    assert [result.stdout for result in results] == [b"%d\n" % i for i in range(200)]


def test_who_has_no_token_runs_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_LITE_SANDBOX_TOKEN", "another one, as long")
    with Sandbox(backend=f"verl+{address}") as stranger, pytest.raises(SandboxError, match="401"):
        stranger.run_python("print(1)")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"language": "cobol", "source": ""}',
        b'{"language": "python", "source": "%"}',
        b'{"language": "python"}',
        b'{"language": "python", "source": "", "limits": {"walls": 1}}',
        b'{"language": "python", "source": "", "files": {"../x": ""}}',
    ],
)
def test_a_request_that_cannot_be_used(body: bytes, address: str) -> None:
    post = urllib.request.Request(f"{address}/v1/run", body, {"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(post)
    with caught.value as answer:
        assert answer.code == 400
        assert json.load(answer)["error"]


def test_a_short_token_protects_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        serve_sandbox(sandbox, token="short", most=Limits())
