"""The built-in tools and the simulated user, asked as the engine asks them."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from verl_lite.errors import ConfigError, EnvironmentFailed, PluginError
from verl_lite.plugins.environments import EnvironmentConfig, Environments, ToolConfig
from verl_lite.plugins.testing import FakeChatServer

PROMPT = {"prompt": [{"role": "user", "content": "Hello?"}]}


def play(host: Environments, *trajectories: list[dict], tool: str = "") -> list[list[tuple[str, str]]]:
    """For each trajectory, all at the same time, (text, outcome) of its calls one after another."""

    async def one(calls):
        session = host.open(PROMPT, seed=0)
        await session.reset()
        found = []
        for arguments in calls:
            function = {"name": tool, "arguments": json.dumps(arguments)}
            call = {"id": "1", "type": "function", "function": function}
            step = await session.step({"role": "assistant", "content": "", "tool_calls": [call]})
            found.append((step.messages[0]["content"], step.outcomes[0]))
        await session.close()
        return found

    async def all_of_them():
        return await asyncio.gather(*map(one, trajectories))

    return asyncio.run(all_of_them())


def host_of(tool: str, **options: object) -> Environments:
    return Environments(EnvironmentConfig(workers=4), [ToolConfig(use=tool, options=options)])


@pytest.mark.parametrize(
    ("expression", "text", "outcome"),
    [
        ("48271 * 99377", "4797027167", "ok"),
        ("(12.5 + 3) * 4^2", "248", "ok"),
        ("1/3", "0.333333333333333", "ok"),
        ("-1/8", "-0.125", "ok"),
        ("2**10 =", "1024", "ok"),
        ("7 × 6 ÷ 2 − 1", "20", "ok"),
        ("1,000 + 1", "1001", "ok"),
        ("1/0", "has no value", "error"),
        ("9^9^9^9", "has no value", "error"),
        ("__import__('os')", "more than numbers", "error"),
        ("2 +", "has no value", "error"),
        ("", "has no value", "error"),
        ("1" * 2000, "at most 1000 characters", "error"),
    ],
)
def test_the_calculator(expression, text, outcome):
    with host_of("calculator") as host:
        ((found,),) = play(host, [{"expression": expression}], tool="calculator")
    assert found[1] == outcome
    assert text in found[0]


@pytest.fixture(scope="module")
def python():
    with host_of("python", timeout_s=1.0, interpreters=2, memory_mb=200) as host:
        yield host


def test_an_interpreter_keeps_variables_and_files_of_its_trajectory_alone(python):
    one = [{"code": "x = 40\nopen('a.txt', 'w').write('hi')"}, {"code": "print(open('a.txt').read())\nx + 2"}]
    other = [{"code": "import os\nos.listdir('.')"}, {"code": "x"}]
    first, second = play(python, one, other, tool="python")
    assert first == [("2\n", "ok"), ("hi\n42\n", "ok")]
    assert "a.txt" not in second[0][0]
    assert "NameError" in second[1][0]


@pytest.mark.parametrize(
    ("code", "outcome", "text", "is_kept"),
    [
        ("1/0", "error", 'File "<call 3>", line 1', True),
        ("def f(:", "error", "SyntaxError", True),
        ("while True: pass", "timeout", "no result within 1 s; variables and files are kept", True),
        ("print('x' * 50_000)", "truncated", "[40001 more bytes were cut]", True),
        ("import os\nos._exit(3)", "error", "(error: exit code 3); it lost", False),
        ("import os\nos.kill(os.getpid(), 11)", "error", "SIGSEGV", False),
        ("bytearray(10**9)", "error", "MemoryError", True),
        ("import os\nif os.fork() == 0: pass\n'parent'", "ok", "parent", True),
        ("import sys\nsys.exit(4)", "error", "SystemExit: 4", True),
        ("input()", "error", "EOFError", True),
        ("import socket\nsocket.create_connection(('1.1.1.1', 80), 1)", "error", "Error", True),
        (
            "import os\nfor n in range(3, 50):\n try: os.close(n)\n except OSError: pass",
            "error",
            "lost",
            False,
        ),
    ],
)
def test_code_that_misbehaves_is_told_and_the_next_call_works(python, code, outcome, text, is_kept):
    ((_, found, after),) = play(
        python, [{"code": "kept = 1"}, {"code": code}, {"code": "kept"}], tool="python"
    )
    assert found[1] == outcome
    assert text in found[0]
    # a process that the code left may still print
    assert after[0].endswith("1\n") if is_kept else "NameError" in after[0]


def test_more_trajectories_than_interpreters_wait_for_one(python):
    found = play(python, *[[{"code": f"n = {n}"}, {"code": "n"}] for n in range(6)], tool="python")
    assert [calls[1] for calls in found] == [(f"{n}\n", "ok") for n in range(6)]


def test_search(tmp_path: Path):
    pytest.importorskip("bm25s")
    rows = [
        ("Paris", "The capital of France."),
        ("Rome", "The capital of Italy."),
        ("Wine", "Made of grapes."),
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"title": title, "text": text}) + "\n" for title, text in rows))
    with host_of("search", corpus=str(corpus), results=2) as host:
        (found,) = play(host, [{"query": "capital of Italy"}, {"query": "zebra"}], tool="search")
    assert found[0][0].startswith("[1] Rome\nThe capital of Italy.")
    assert "Wine" not in found[0][0]
    assert found[1] == ("no document has any of these words", "ok")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no folder and no file"),
        ("", "has no documents"),
        ('{"body": 1}', "line 1: expected a JSON object"),
    ],
)
def test_a_corpus_that_cannot_be_searched_is_said(tmp_path: Path, content, why):
    pytest.importorskip("bm25s")
    corpus = tmp_path / "corpus.jsonl"
    if content is not None:
        corpus.write_text(content)
    with host_of("search", corpus=str(corpus)) as host, pytest.raises(EnvironmentFailed, match=why):
        play(host, [{"query": "x"}], tool="search")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table items (name text, price real)")
        connection.executemany("insert into items values (?, ?)", [("tea", 3.5), ("mug", 8.0), ("pot", None)])
    connection.close()
    return path


def test_sql_reads(database: Path, tmp_path: Path):
    queries = [
        "select name, price from items order by name",
        "select * from items where price > 100",
        "delete from items",
        f"attach '{tmp_path / 'other.db'}' as other",
        "select * from shelves",
        "select 1; select 2",
        "with recursive n(x) as (select 1 union all select x + 1 from n) select x from n",
    ]
    with host_of("sql", database=str(database), max_rows=3) as host:
        (found,) = play(host, [{"query": query} for query in queries], tool="sql")
    assert found[0] == ("name | price\nmug | 8.0\npot | NULL\ntea | 3.5", "ok")
    assert found[1] == ("name | price\n[no rows]", "ok")
    assert "readonly" in found[2][0]
    assert "not authorized" in found[3][0]
    assert "no such table" in found[4][0]
    assert "one statement" in found[5][0]
    assert found[6] == ("x\n1\n2\n3\n[more than 3 rows: the rest is not shown]", "ok")
    assert not (tmp_path / "other.db").exists()


def test_sql_writes_to_a_copy_of_each_trajectory(database: Path):
    count = {"query": "select count(*) from items"}
    with host_of("sql", database=str(database), mode="copy") as host:
        one, other = play(host, [{"query": "delete from items"}, count], [count], tool="sql")
    assert one == [("3 rows changed", "ok"), ("count(*)\n0", "ok")]
    assert other == [("count(*)\n3", "ok")]


def test_a_missing_database_is_said_before_any_call(tmp_path: Path):
    missing = str(tmp_path / "no.db")
    with host_of("sql", database=missing) as host, pytest.raises(EnvironmentFailed, match="there is no file"):
        play(host, [{"query": "select 1"}], tool="sql")


def converse(host: Environments, row: dict, *replies: str):
    async def all_of_them():
        session = host.open(row, seed=0)
        found = [await session.reset()]
        found += [await session.step({"role": "assistant", "content": reply}) for reply in replies]
        await session.close()
        return found

    return asyncio.run(all_of_them())


def user(server: FakeChatServer, **options: object) -> Environments:
    options = {"base_url": server.base_url, "model": "m", **options}
    return Environments(EnvironmentConfig(use="simulated_user", options=options, workers=2))


def test_a_simulated_user_opens_answers_and_ends():
    replies = ["A table for two.", 503, "At eight.", "Thanks! [END]"]
    with FakeChatServer(reply=replies) as server, user(server) as host:
        first, second, last = converse(host, {"goal": "a table"}, "When?", "Booked.")
    assert first == ({"role": "user", "content": "A table for two."},)
    assert second.messages == ({"role": "user", "content": "At eight."},)
    assert last.done
    assert last.messages == ({"role": "user", "content": "Thanks!"},)
    assert last.details == {"ended_by_user": True}
    roles = [message["role"] for message in server.requests[-1].messages]
    assert roles == ["system", "assistant", "user", "assistant", "user"]
    assert "Your goal: a table" in server.requests[0].messages[0]["content"]


def test_a_simulated_user_does_not_speak_before_a_prompt_of_the_user():
    with FakeChatServer(reply="[END]") as server, user(server) as host:
        first, last = converse(host, {**PROMPT, "goal": "g"}, "Bye.")
    assert first == tuple(PROMPT["prompt"])
    assert last.done
    assert not last.messages


@pytest.mark.parametrize(
    ("reply", "row", "why"),
    [(400, {"goal": "g"}, "answered 400"), ("hi", {}, "the row has no column 'goal'")],
)
def test_a_user_that_cannot_answer_is_an_error_of_the_trajectory(reply, row, why):
    with (
        FakeChatServer(reply=reply) as server,
        user(server) as host,
        pytest.raises(EnvironmentFailed, match=why),
    ):
        converse(host, row)


def test_a_user_s_options_are_checked_at_once():
    with pytest.raises(ConfigError, match="URL like"):
        Environments(EnvironmentConfig(use="simulated_user", options={"base_url": "host", "model": "m"}))
    with pytest.raises(PluginError, match="expected openenv"):
        Environments(EnvironmentConfig(use="openenv:localhost"))
