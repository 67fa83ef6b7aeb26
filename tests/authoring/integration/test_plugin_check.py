"""`verl-lite plugins check`: a good reward passes, and every way to break the contract is found."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verl_lite.cli.app import app
from verl_lite.errors import ConfigError
from verl_lite.lab import make_golden, write_golden
from verl_lite.lab.authoring import PluginReport, check_plugin
from verl_lite.lab.check import Level

REWARDS = '''
import os, random, threading, time
from pydantic import BaseModel, Field
from verl_lite.plugins import Score, reward

class Options(BaseModel):
    power: float = Field(default=1.0, description="The exponent.")

@reward("good", options=Options)
def good(rollout, options):
    """1.0 for an even number of characters, else 0.5 to `power`."""
    return 1.0 if len(rollout.completion) % 2 == 0 else 0.5 ** options.power

@reward("good_batch", form="batch", max_batch=4)
def good_batch(rollouts):
    """The number of characters."""
    return [len(rollout.completion) for rollout in rollouts]

@reward("good_group", form="group")
async def good_group(rollouts):
    """1.0 for the shortest of the group."""
    shortest = min(len(rollout.completion) for rollout in rollouts)
    return [float(len(rollout.completion) == shortest) for rollout in rollouts]

class Bare(BaseModel):
    power: float = 1.0

@reward("fragile", options=Bare)
def fragile(rollout, options):
    return float(ord(rollout.completion[0]))

@reward("hashes")
def hashes(rollout):
    """Differs between processes: the hash of a text is salted."""
    return hash(rollout.completion) % 1000

@reward("counts", isolate=False)
def counts(rollout):
    """Differs with what came before."""
    SEEN.append(rollout)
    return len(SEEN)

SEEN = []

@reward("normalises", form="batch")
def normalises(rollouts):
    """Differs with what is in the batch."""
    longest = max(len(rollout.completion) for rollout in rollouts) or 1
    return [len(rollout.completion) / longest for rollout in rollouts]

@reward("slow", timeout_s=0.05)
def slow(rollout):
    """Hangs on every other rollout."""
    time.sleep(0.4 * (rollout.sample_index % 2))
    return 1.0

@reward("writes")
def writes(rollout):
    """Writes to its input."""
    rollout.columns["seen"] = True
    return 1.0

@reward("rolls")
def rolls(rollout):
    """Draws, reads the clock and throws both away."""
    random.random(), time.time(), random.Random(0).random()
    return 1.0

@reward("picky")
def picky(rollout):
    """Fails without a column."""
    return rollout.columns["tests"]

@reward("one_short", form="group")
def one_short(rollouts):
    """Forgets the last rollout of a group."""
    return [1.0] * (len(rollouts) - 1)

@reward("only_five", form="group")
def only_five(rollouts):
    """Knows groups of five only."""
    return [1.0] * 5

@reward("words")
def words(rollout):
    """Returns text."""
    return rollout.completion

def make_local():
    @reward("local")
    def local(rollout):
        """Not at the top level of its module, but found there by its name."""
        return 1.0
    return local

local = make_local()

class Locked:
    """Keeps a lock, which cannot be pickled."""
    def __init__(self):
        self.lock = threading.Lock()
    def __call__(self, rollout):
        return 1.0

locked = reward("locked")(Locked())

class Needs(BaseModel):
    word: str

@reward("needs", options=Needs)
def needs(rollout, options):
    """1.0 when the completion has the `word`."""
    return options.word in rollout.completion
'''

Check = Callable[..., PluginReport]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "rewards_to_check.py").write_text(REWARDS)
    return folder


@pytest.fixture
def check(folder: Path, tmp_path: Path) -> Check:
    def run(name: str, *, golden: Path | None = None) -> PluginReport:
        return check_plugin(f"{folder / 'rewards_to_check.py'}:{name}", golden=golden, folder=tmp_path)

    return run


def levels(report: PluginReport) -> dict[str, str]:
    """What is not fine."""
    return {finding.check: finding.level.value for finding in report.findings if finding.level != Level.OK}


def message(report: PluginReport, check: str) -> str:
    return next(finding.message for finding in report.findings if finding.check == check)


@pytest.mark.parametrize("name", ["good", "good_batch", "good_group"])
def test_good_rewards_of_every_form_pass(check: Check, name: str) -> None:
    report = check(name)
    assert levels(report) == {"golden": "warn"}
    assert not report.failed
    assert [finding.check for finding in report.findings] == [
        "docstring", "options", "golden", "pickling", "contract", "answers", "odd input",
        "determinism", "order", "batch size", "deadline", "purity",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected", "check_name", "text"),
    [
        ("hashes", {"determinism": "fail"}, "determinism", "sample-0: "),
        ("rolls", {"purity": "warn"}, "purity", "from run to run: random, time.time"),
        (
            "picky",
            {"answers": "warn", "odd input": "warn", "purity": "note"},
            "answers",
            "5 of 5 plain rollouts failed: error",
        ),
        (
            "fragile",
            {"docstring": "warn", "options": "warn", "odd input": "warn"},
            "odd input",
            "1 of 9 odd completions failed; nothing: error: IndexError",
        ),
        (
            "normalises",
            {"batch size": "fail"},
            "batch size",
            "when each is its own batch; sample-0: ",
        ),
        (
            "one_short",
            {"contract": "fail", "answers": "warn", "odd input": "warn"},
            "contract",
            "for 14 rollouts; sample-0: returned 4 answers for 5 rollouts: expected one for each, in order",
        ),
        (
            "only_five",
            {"contract": "fail", "odd input": "warn"},
            "contract",
            "for 9 rollouts; nothing: returned 5 answers for 9 rollouts",
        ),
        (
            "words",
            {"contract": "fail", "answers": "warn", "odd input": "warn"},
            "contract",
            "for 14 rollouts; sample-0: TypeError: a reward returned str ('4'): expected Score, float",
        ),
        ("locked", {"pickling": "fail", "purity": "note"}, "pickling", "at the top level of a module"),
    ],
)
def test_what_breaks_the_contract_is_found(
    check: Check, name: str, expected: dict[str, str], check_name: str, text: str
) -> None:
    report = check(name)
    assert levels(report) == {"golden": "warn"} | expected
    assert text in message(report, check_name)
    assert report.failed == ("fail" in expected.values())


def test_state_between_calls_is_found(check: Check) -> None:
    report = check("counts")
    assert levels(report) == {"golden": "warn", "determinism": "fail", "order": "fail"}
    assert "sample-0: 1, then 6" in message(report, "determinism")


def test_a_missed_deadline_fails(check: Check) -> None:
    report = check("slow")
    assert levels(report)["deadline"] == "fail"
    assert "2 rollouts ran out of time" in message(report, "deadline")


@pytest.fixture
def golden(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "rewards.yaml").write_text(
        f"rewards: {{word: {{use: '{folder / 'rewards_to_check.py'}:needs', options: {{word: cat}}}}}}\n"
    )
    rows = [{"completion": text} for text in ("a cat", "a dog", "cats")]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "needs.golden.json"
    write_golden(path, make_golden(path, tmp_path / "rewards.yaml", tmp_path / "rollouts.jsonl"))
    return path


def test_golden_files_below_the_folder_are_found(check: Check, golden: Path) -> None:
    report = check("needs")
    assert levels(report) == {}
    assert report.golden_files == (str(golden),)
    assert report.num_rollouts == 3
    assert message(report, "golden") == "3 rows are as pinned"


def test_moved_scores_fail(check: Check, golden: Path) -> None:
    data = json.loads(golden.read_text())
    data["rows"][1]["reward"] = 1.0
    golden.write_text(json.dumps(data))
    report = check("needs", golden=golden)
    assert levels(report) == {"golden": "fail"}
    assert "row 2 (row-2): reward was 1.0, is 0.0" in message(report, "golden")


def test_golden_rows_that_are_all_the_same_prove_nothing(check: Check, golden: Path) -> None:
    (golden.parent / "rollouts.jsonl").write_text('{"completion": "a cat"}\n')
    write_golden(
        golden, make_golden(golden, golden.parent / "rewards.yaml", golden.parent / "rollouts.jsonl")
    )
    assert (
        message(check("needs"), "golden")
        == "all 1 pinned rows have the reward 1.0: a constant would pass too"
    )


def test_a_golden_file_of_another_reward_is_refused(check: Check, golden: Path) -> None:
    with pytest.raises(ConfigError, match="its config does not use the reward 'good'"):
        check("good", golden=golden)


def test_options_that_must_be_given_need_a_golden_file(check: Check) -> None:
    with pytest.raises(ConfigError, match="reward 'needs' needs the options word"):
        check("needs")


def test_the_command_prints_a_table_and_ends_with_1(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["plugins", "check", f"{folder / 'rewards_to_check.py'}:writes"])
    assert done.exit_code == 1
    assert "fail  purity       it changes its input: columns\n" in done.stdout
    assert "  ok  determinism  scores are the same when they are scored again\n" in done.stdout
    assert done.stdout.endswith("\nfailed\n")


def test_json_is_for_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["plugins", "check", "exact", "--json"])
    data = json.loads(done.stdout)
    assert (done.exit_code, data["failed"], data["distribution"]) == (0, False, "verl-lite")
    deadline = next(finding for finding in data["findings"] if finding["check"] == "deadline")
    assert deadline["numbers"]["calls"] >= 15
