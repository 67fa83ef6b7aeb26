"""Preferences from rewards, a judge model and agreement between annotators."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import DataError, RewardError
from verl_lite.lab import cohen_kappa
from verl_lite.lab.preferences import (
    PreferenceRow,
    annotator_agreement,
    rank_by_judge,
    rank_by_rewards,
    read_candidates,
    read_preferences,
    to_preference,
    write_preferences,
)
from verl_lite.plugins import RewardsConfig, Scorer
from verl_lite.plugins.builtin import ComparisonJudge
from verl_lite.plugins.testing import FakeChatServer
from verl_lite.plugins.testing.chat_server import ChatRequest

Rows = list[dict[str, Any]]


@pytest.fixture
def records(tmp_path: Path) -> Callable[[dict[str, list[str]]], Path]:
    def write(completions: dict[str, list[str]]) -> Path:
        path = tmp_path / "rollouts.jsonl"
        rows = [
            {
                "group": group,
                "prompt": f"{group}?",
                "reference": "4",
                "completion": text,
                "id": f"{group}/{at}",
            }
            for group, texts in completions.items()
            for at, text in enumerate(texts)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_candidates_are_the_different_completions(records: Callable[..., Path]) -> None:
    path = records({"a": ["1", "2", "1", "3"], "b": ["same", "same"], "c": ["x", "y"]})
    found = list(read_candidates(path))
    assert [group.completions for group in found] == [["1", "2", "3"], ["x", "y"]]
    (two, _) = read_candidates(path, max_completions=2)
    assert len(two.completions) == 2
    assert two.id != found[0].id
    assert two.id == next(read_candidates(path, max_completions=2)).id
    with pytest.raises(DataError, match="no prompt has two different completions"):
        list(read_candidates(records({"b": ["same", "same"]})))


def test_rewards_rank_and_groups_of_ties_are_left_out(
    records: Callable[..., Path], rewards: Callable[..., RewardsConfig]
) -> None:
    path = records({"a": ["5", "4", "6"], "b": ["7", "8"]})
    config = rewards(correct={"use": "exact"})
    with Scorer(config, debug_inline=True) as scorer:
        (row,) = rank_by_rewards(read_candidates(path), scorer, annotator="exact")
    assert (list(row.ranks), list(row.scores)) == ([2, 1, 2], [0.0, 1.0, 0.0])
    assert (row.source, row.annotator) == ("rewards", "exact")
    assert row.columns == {"group": "a", "rollout_ids": ["a/0", "a/1", "a/2"], "reference": "4"}
    assert row.pairs() == [(1, 0), (1, 2)]


@pytest.fixture
def judge() -> Iterator[Callable[[Callable[[str, str], str]], FakeChatServer]]:
    """Starts judges that answer by `decide(first, second)`."""
    with ExitStack() as servers:

        def start(decide: Callable[[str, str], str]) -> FakeChatServer:
            return servers.enter_context(FakeChatServer(lambda request: decide(*shown(request))))

        yield start


def shown(request: ChatRequest) -> list[str]:
    parts = [request.text.split(f"<<<{name}-")[1].split("\n", 1)[1] for name in ("A", "B")]
    return [part.split(f"\n{name}-")[0] for part, name in zip(parts, ("A", "B"), strict=True)]


def verdict(better: str) -> str:
    return json.dumps({"better": better, "reason": "so"})


def longer(first: str, second: str) -> str:
    return verdict("tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B")


def test_a_judge_is_asked_both_ways_round_and_ranks(records: Callable[..., Path], judge: Any) -> None:
    server = judge(longer)
    report = rank_by_judge(
        read_candidates(records({"a": ["1", "333", "22", "4"]})),
        ComparisonJudge(base_url=server.base_url, model="long"),
    )
    (row,) = report.rows
    assert list(row.ranks) == [3, 1, 2, 3]
    assert list(row.scores) == [0.5, 3.0, 2.0, 0.5]
    assert (row.source, row.annotator) == ("judge", "long")
    assert (report.num_pairs, report.num_swayed) == (6, 0)
    assert len(server.requests) == 12


def test_a_judge_that_likes_a_place_has_no_opinion(records: Callable[..., Path], judge: Any) -> None:
    server = judge(lambda first, second: verdict("A"))
    report = rank_by_judge(
        read_candidates(records({"a": ["1", "2", "3"]})),
        ComparisonJudge(base_url=server.base_url, model="first"),
    )
    assert list(report.rows[0].ranks) == [1, 1, 1]
    assert (report.num_pairs, report.num_swayed) == (3, 3)


def test_a_judge_that_cannot_be_read_is_no_tie(records: Callable[..., Path], judge: Any) -> None:
    server = judge(lambda first, second: "A, I think")
    with pytest.raises(RewardError, match="the judge's answer cannot be read"):
        rank_by_judge(
            read_candidates(records({"a": ["1", "2"]})),
            ComparisonJudge(base_url=server.base_url, model="chatty"),
        )


def ranking(annotator: str, ranks: list[int], question: str = "q", order: str = "abc") -> PreferenceRow:
    return PreferenceRow(
        prompt=[{"role": "user", "content": question}],
        completions=list(order[: len(ranks)]),
        ranks=ranks,
        source="human",
        annotator=annotator,
    )


def test_agreement_by_hand() -> None:
    """ann: a>b a>c b>c and x>y; ben: a>b a>c b=c and y>x. Two of four; the categories of chance:
    ann better 4/4, so chance = ben's share of better = 2/4, and kappa = (0.5 - 0.5) / 0.5 = 0.
    """
    rows = [
        ranking("ann", [1, 2, 3]),
        ranking("ben", [2, 1, 2], order="bac"),
        ranking("ann", [1, 2], "other", "xy"),
        ranking("ben", [1, 2], "other", "yx"),
        ranking("cem", [1, 2], "nobody else", "xy"),
    ]
    (found,) = annotator_agreement(rows)
    assert (found.first, found.second, found.num_pairs) == ("human/ann", "human/ben", 4)
    assert found.agreed == 0.5
    assert found.kappa == 0.0


def test_kappa_of_categories_by_hand() -> None:
    """3 of 4 agree; chance = (2*1 + 1*2 + 1*1) / 16 = 5/16; kappa = (12/16 - 5/16) / (11/16) = 7/11."""
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("tie", "tie")]
    assert cohen_kappa(pairs) == pytest.approx(7 / 11)
    assert cohen_kappa([("a", "a")]) is None
    assert cohen_kappa([]) is None


def test_rows_survive_the_file_and_mistakes_have_a_line(tmp_path: Path) -> None:
    rows = [ranking("ann", [1, 2, 2]), ranking("ben", [2, 1])]
    path = tmp_path / "p.jsonl"
    write_preferences(path, rows)
    assert list(read_preferences(path)) == rows
    path.write_text(path.read_text() + '{"completions": ["a", "b"], "ranks": [0, 1], "prompt": "q"}\n')
    with pytest.raises(DataError, match=r"p.jsonl:3: expected 2 ranks from 1 up, got \[0, 1\]"):
        list(read_preferences(path))


def test_pairs_of_whole_conversations_need_no_prompt() -> None:
    start = [{"role": "user", "content": "hi"}]
    row = to_preference(
        {
            "chosen": [*start, {"role": "assistant", "content": "yes"}],
            "rejected": [*start, {"role": "assistant", "content": "no"}],
        }
    )
    assert (row.prompt, row.completions, row.ranks) == (start, ["yes", "no"], [1, 2])
    with pytest.raises(ValueError, match="differ before their last message"):
        to_preference(
            {"chosen": [*start, *start, {"role": "assistant"}], "rejected": [{"role": "assistant"}]}
        )
