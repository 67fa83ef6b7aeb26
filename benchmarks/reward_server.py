"""What a reward costs over HTTP, beside the same reward in this process: throughput, and p99 under load.

    python benchmarks/reward_server.py [--rollouts 20000] [--per-request 64] [--clients 32]

One run scores the same rollouts three times with the same config: in this process; by a server in another
process, with `--per-request` rollouts per request and `--clients` requests at a time; and by the server with
one rollout per request, as trainers that score sample by sample send them.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from verl_lite.plugins import Rollout, Scorer, load_rewards_config

CONFIG = """
rewards:
  correct: {use: exact, options: {answer_tag: answer}}
  shape: {use: format, weight: 0.2, options: {pattern: think_answer}}
  brevity: {use: length, weight: 0.1, options: {unit: words, target: 50}}
"""
WORDS = "so the sum of these two numbers is what we need and then half of it remains " * 8


def make_rollouts(count: int) -> list[Rollout]:
    return [
        Rollout(
            completion=f"<think>{WORDS}</think><answer>{number % 7}</answer>",
            prompt=({"role": "user", "content": f"What is {number} modulo 7?"},),
            reference=str(number % 5),
            id=f"r{number}",
            group=f"g{number // 8}",
        )
        for number in range(count)
    ]


def rows_of(rollouts: list[Rollout]) -> list[dict[str, object]]:
    return [
        {
            "id": r.id,
            "group": r.group,
            "prompt": list(r.prompt),
            "completion": r.completion,
            "reference": r.reference,
        }
        for r in rollouts
    ]


class Connection:
    """A kept-alive HTTP/1.1 connection: as little as a client can cost, since it shares the cores."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)

    async def post(self, path: str, body: bytes) -> bytes:
        if not hasattr(self, "_writer"):
            self._reader, self._writer = await asyncio.open_connection(
                self._address.hostname, self._address.port, limit=1 << 24
            )
        head = f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert answer.startswith("http/1.1 200 "), answer
        return await self._reader.readexactly(int(answer.split("content-length: ")[1].split("\r")[0]))

    def close(self) -> None:
        self._writer.close()


async def ask_all(
    url: str, rollouts: list[Rollout], *, per_request: int, clients: int
) -> tuple[float, list[float]]:
    """Seconds in all, and of each request. Every rollout must come back once."""
    rows = rows_of(rollouts)
    requests = [rows[at : at + per_request] for at in range(0, len(rows), per_request)]
    waiting = iter(requests)
    latencies: list[float] = []
    answers: list[bytes] = []

    async def client_loop() -> None:
        connection = Connection(url)
        for request in waiting:
            started = time.perf_counter()
            answers.append(await connection.post("/score", json.dumps({"rollouts": request}).encode()))
            latencies.append(time.perf_counter() - started)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client_loop() for _ in range(min(clients, len(requests)))))
    seconds = time.perf_counter() - started
    seen = [score["id"] for answer in answers for score in json.loads(answer)["scores"]]
    assert sorted(seen) == sorted(r.id for r in rollouts), "rollouts were lost or doubled"
    return seconds, sorted(latencies)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rollouts", type=int, default=20_000)
    parser.add_argument("--per-request", type=int, default=64)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    rollouts = make_rollouts(options.rollouts)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rewards.yaml"
        config.write_text(CONFIG)
        with Scorer(load_rewards_config(config)) as scorer:
            scorer.score_rows(rollouts[:1000])
            started = time.perf_counter()
            scorer.score_rows(rollouts)
            inside_s = time.perf_counter() - started
        print(f"in this process: {options.rollouts / inside_s:,.0f} rollouts/s ({os.cpu_count()} cores)")
        command = [
            sys.executable,
            "-m",
            "verl_lite.cli",
            "rewards",
            "serve",
            "-c",
            str(config),
            "--port",
            "0",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            for per_request, count in ((options.per_request, options.rollouts), (1, options.rollouts // 10)):
                asyncio.run(ask_all(url, rollouts[:256], per_request=per_request, clients=options.clients))
                before_s = cpu_s(process.pid)
                seconds, latencies = asyncio.run(
                    ask_all(url, rollouts[:count], per_request=per_request, clients=options.clients)
                )
                rate, share = count / seconds, count / seconds * inside_s / options.rollouts
                p50, p99 = (latencies[int(len(latencies) * part)] * 1e3 for part in (0.5, 0.99))
                print(
                    f"server, {per_request} per request, {options.clients} clients: {rate:,.0f} rollouts/s "
                    f"({share:.2f} of in-process), {len(latencies) / seconds:,.0f} requests/s; "
                    f"request p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
                    f"server CPU {(cpu_s(process.pid) - before_s) / len(latencies) * 1e3:.2f} ms per request"
                )
            process.terminate()


if __name__ == "__main__":
    main()
