"""Finding plugins: each loaded alone, each failure named, fatal only for those who use it."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

from verl_lite.errors import PluginError
from verl_lite.plugins import API_VERSION, PluginStatus, RewardCatalog, Rollout, find_rewards

GOOD = """
from verl_lite.plugins import hookimpl, reward

@reward("{name}", isolate=False)
def score(rollout):
    \"\"\"Always 1.\"\"\"
    return 1.0

@hookimpl
def register_rewards(register):
    register(score)
"""
PREFIX = "from verl_lite.plugins import hookimpl, reward\n"
DECLARED = """
from verl_lite.plugins import reward, tool
from verl_lite.plugins.builtin import length_reward  # another module's: not this plugin's

@reward("alone")
def alone(rollout):
    return 1.0

alias = alone

@tool()
def clock() -> str:
    \"\"\"The time.\"\"\"
    return "12:00"

@reward("steady")
class Steady:
    def __init__(self, options): ...
    def __call__(self, rollout): return 0.5

class Steadier(Steady):  # declares nothing of its own
    pass
"""

Install = Callable[..., EntryPoint]


class FakeDistribution(Distribution):
    def __init__(self, name: str) -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write a plugin module and return its entry point, as if a distribution had brought it."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def make(name: str, source: str, distribution: str = "") -> EntryPoint:
        (tmp_path / f"{name}_module.py").write_text(source)
        entry_point = EntryPoint(name=name, value=f"{name}_module", group="verl_lite")
        return entry_point._for(FakeDistribution(distribution or f"dist-{name}"))  # type: ignore[attr-defined,no-any-return]

    yield make
    for module in set(sys.modules) - before:
        if module.endswith("_module"):
            del sys.modules[module]


def status(catalog: RewardCatalog, name: str) -> tuple[PluginStatus, str]:
    (plugin,) = [plugin for plugin in catalog.plugins if plugin.name == name]
    return plugin.status, plugin.message


def test_the_built_in_rewards_are_plugins_like_any_other() -> None:
    catalog = find_rewards()
    assert {"exact", "format", "length", "regex"} <= set(catalog.rewards)
    assert all(plugin.is_ok for plugin in catalog.plugins if plugin.distribution == "verl-lite")
    assert catalog.get("exact").distribution == "verl-lite"


def test_an_installed_plugin_is_found(install: Install) -> None:
    catalog = find_rewards(extra=[install("shine", GOOD.format(name="shine"))])
    definition = catalog.get("shine")
    assert definition.distribution == "dist-shine"
    assert definition.call(Rollout(completion="")) == 1.0
    assert status(catalog, "shine") == (PluginStatus.OK, "")
    environment = catalog.environment()["shine"]
    assert environment["version"] == "1.2"
    assert len(environment["content_hash"]) == 64


def test_a_module_without_hooks_registers_what_it_declares(install: Install) -> None:
    catalog = find_rewards(extra=[install("plain", DECLARED)])
    (plain,) = [plugin for plugin in catalog.plugins if plugin.name == "plain"]
    assert (plain.status, plain.rewards, plain.tools) == (PluginStatus.OK, ("alone", "steady"), ("clock",))
    assert catalog.get("alone").call(Rollout(completion="")) == 1.0
    assert catalog.get("length").distribution == "verl-lite"


def test_a_distribution_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "sun_rewards-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sun-rewards\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(
        "[verl_lite]\nsun = sun_rewards.plugin\nsun_again = sun_rewards.plugin\n"
    )
    package = tmp_path / "sun_rewards"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(GOOD.format(name="sun"))
    monkeypatch.syspath_prepend(tmp_path)
    catalog = find_rewards()
    assert catalog.get("sun").distribution == "sun-rewards"
    before = catalog.environment()["sun"]
    assert before["version"] == "2.5"
    (package / "__init__.py").write_text("# another file of the package counts too\n")
    assert catalog.environment()["sun"]["content_hash"] != before["content_hash"]


def test_the_content_hash_follows_the_code(install: Install) -> None:
    first = find_rewards(extra=[install("one", GOOD.format(name="x"))]).environment()["one"]["content_hash"]
    second = find_rewards(extra=[install("two", GOOD.format(name="y"))]).environment()["two"]["content_hash"]
    assert first != second


@pytest.mark.parametrize(
    ("source", "expected", "message"),
    [
        (
            "import no_such_package",
            PluginStatus.FAILED_IMPORT,
            "ModuleNotFoundError: No module named 'no_such",
        ),
        ("def broken(:", PluginStatus.FAILED_IMPORT, "SyntaxError"),
        ("raise SystemExit(3)", PluginStatus.FAILED_IMPORT, "SystemExit: 3"),
        ("1 / 0", PluginStatus.FAILED_IMPORT, "ZeroDivisionError: division by zero"),
        ("x = 1", PluginStatus.FAILED_SIGNATURE, "it has no hook"),
        (
            "def register_rewards(register): ...",
            PluginStatus.FAILED_SIGNATURE,
            "lacks the @hookimpl decorator",
        ),
        (
            PREFIX + "@hookimpl\ndef register_reward(register): ...",
            PluginStatus.FAILED_SIGNATURE,
            "unknown hook 'register_reward': did you mean 'register_rewards'?",
        ),
        (
            PREFIX + "@hookimpl\ndef register_rewards(registry): ...",
            PluginStatus.FAILED_SIGNATURE,
            "registry",
        ),
        (
            PREFIX + "@hookimpl\ndef register_rewards(register): ...",
            PluginStatus.FAILED_SIGNATURE,
            "registered nothing",
        ),
        (
            PREFIX + "@hookimpl\ndef register_rewards(register): register(print)",
            PluginStatus.FAILED_SIGNATURE,
            "is not a reward: decorate it with @reward('name')",
        ),
        (
            PREFIX + "@hookimpl\ndef register_rewards(register): raise OSError('no disk')",
            PluginStatus.FAILED_SIGNATURE,
            "OSError: no disk",
        ),
        (
            GOOD.format(name="twice") + "    register(score)\n",
            PluginStatus.FAILED_SIGNATURE,
            "registers the reward 'twice' twice",
        ),
        (
            f"VERL_LITE_API_VERSION = {API_VERSION + 1}\n" + GOOD.format(name="new"),
            PluginStatus.INCOMPATIBLE,
            f"written for version {API_VERSION + 1} of the reward contract, this is {API_VERSION}",
        ),
        (
            PREFIX + "@reward('bad')\ndef bad(rollout, options, extra): ...\n",
            PluginStatus.FAILED_IMPORT,
            "the signature is (rollout, options, extra), expected (rollout) or (rollout, options)",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_and_stops_no_other(
    install: Install, source: str, expected: PluginStatus, message: str
) -> None:
    catalog = find_rewards(extra=[install("sick", source), install("well", GOOD.format(name="well"))])
    assert status(catalog, "sick")[0] is expected
    assert message in status(catalog, "sick")[1]
    assert catalog.get("well").name == "well"
    with pytest.raises(PluginError) as caught:
        catalog.get("sick")
    assert str(caught.value).startswith(
        f"reward 'sick': plugin 'sick' of dist-sick 1.2 is not usable: {expected}"
    )


def test_a_name_claimed_twice_is_nobodys_and_names_both(install: Install) -> None:
    extra = [install("one", GOOD.format(name="same")), install("two", GOOD.format(name="same"))]
    catalog = find_rewards(extra=extra)
    with pytest.raises(PluginError) as caught:
        catalog.get("same")
    assert "dist-one (one_module) and dist-two (two_module)" in str(caught.value)


def test_a_plugin_cannot_take_a_built_in_name(install: Install) -> None:
    catalog = find_rewards(extra=[install("mine", GOOD.format(name="exact"))])
    with pytest.raises(PluginError, match=r"'exact' is registered twice, by verl-lite .* and dist-mine"):
        catalog.get("exact")


def test_plugins_can_be_switched_off(install: Install) -> None:
    catalog = find_rewards(load_plugins=False, extra=[install("shine", "raise RuntimeError('was imported')")])
    assert status(catalog, "shine") == (PluginStatus.DISABLED, "plugins were switched off (--no-plugins)")
    assert "exact" in catalog.rewards


@pytest.mark.parametrize(
    ("value", "loads"),
    [("", False), ("other", False), ("shine", True), ("other, shine", True), ("dist-shine", True)],
)
def test_the_environment_names_the_plugins_that_load(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str, loads: bool
) -> None:
    monkeypatch.setenv("VERL_LITE_LOAD_PLUGINS", value)
    catalog = find_rewards(extra=[install("shine", GOOD.format(name="shine"))])
    assert ("shine" in catalog.rewards) is loads
    assert "exact" in catalog.rewards
    if not loads:
        assert status(catalog, "shine") == (
            PluginStatus.DISABLED,
            f"not named in VERL_LITE_LOAD_PLUGINS={value!r}",
        )


def test_an_unknown_name_lists_what_there_is(install: Install) -> None:
    catalog = find_rewards(extra=[install("sick", "1 / 0")])
    with pytest.raises(PluginError) as caught:
        catalog.get("lenght")
    message = str(caught.value)
    assert message.startswith("there is no reward 'lenght': did you mean 'length'? There are: ")
    assert message.endswith("plugins that did not load: sick (failed (import))")


LOCAL = """
from pydantic import BaseModel
from verl_lite.plugins import reward

class Options(BaseModel):
    most: int = 3

@reward("short", options=Options, isolate=False)
def short(rollout, options):
    return len(rollout.completion) <= options.most

def plain(rollout):
    return 0.5

number = 7
"""


def test_a_local_file_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(LOCAL)
    monkeypatch.chdir(tmp_path)
    catalog = find_rewards()
    assert catalog.get("./my_rewards.py:short").name == "short"
    assert catalog.get(f"{tmp_path}/my_rewards.py:short").call is catalog.get("my_rewards.py:short").call
    assert catalog.get("my_rewards.py:plain").name == "plain"  # a plain function gets the defaults
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    assert catalog.get("my_rewards:short").distribution == "my_rewards"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("./absent.py:f", "there is no file"),
        ("./my_rewards.py:shrt", "has no 'shrt': did you mean 'short'?"),
        ("./my_rewards.py:", "which reward? It has: ./my_rewards.py:short"),
        ("./my_rewards.py", "use: ./my_rewards.py: which reward? It has: ./my_rewards.py:short"),
        ("./plain.py", "which reward? It has: ./plain.py:f, ./plain.py:g"),
        ("trl:./my_rewards.py", "which reward? It has: trl:./my_rewards.py:short"),
        ("./empty.py", "the file has no functions"),
        ("./absent.py", "there is no file"),
        ("./my_rewards.py:number", "is not a reward"),
        ("./sick.py:f", "cannot be imported: ZeroDivisionError: division by zero"),
        ("./notes.txt:f", "is not a Python file"),
        ("no.such.module:f", "cannot be imported: ModuleNotFoundError"),
        (":f", "cannot be imported"),
    ],
)
def test_mistakes_in_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, message: str
) -> None:
    (tmp_path / "my_rewards.py").write_text(LOCAL)
    (tmp_path / "sick.py").write_text("1 / 0")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "plain.py").write_text("from json import loads\ndef g(r): ...\ndef f(r): ...\ndef _h(r): ...")
    (tmp_path / "empty.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError) as caught:
        RewardCatalog(rewards={}).get(use)
    assert message in str(caught.value)


GAME = """
from verl_lite.plugins import Step, environment, hookimpl, reward, tool

@environment("{name}")
class Game:
    def __init__(self, options, row):
        pass
    async def reset(self):
        return []
    async def step(self, message):
        return Step(done=True)

@tool("{name}")
def helps(word: str) -> str:
    return word

@reward("{name}", isolate=False)
def score(rollout):
    return 1.0

@hookimpl
def register_environments(register):
    register(Game)
    register(helps)

@hookimpl
def register_rewards(register):
    register(score)
"""


def test_a_plugin_may_have_a_reward_an_environment_and_a_tool_of_one_name(install: Install) -> None:
    catalog = find_rewards(extra=[install("chess", GAME.format(name="chess"))])
    (plugin,) = [plugin for plugin in catalog.plugins if plugin.name == "chess"]
    assert (plugin.rewards, plugin.environments, plugin.tools) == (("chess",), ("chess",), ("chess",))
    assert catalog.environments["chess"].distribution == "dist-chess"
    assert catalog.tools["chess"].kind == "tool"
    assert catalog.get("chess").kind == "reward"


def test_two_environments_of_one_name_are_both_refused_by_name(install: Install) -> None:
    one, other = (install(name, GAME.format(name="chess")) for name in ("one", "other"))
    catalog = find_rewards(extra=[one, other])
    assert "chess" not in catalog.environments
    for kind in ("environment", "tool", "reward"):
        assert catalog.clashes[f"{kind} chess"] == ("dist-one (one_module)", "dist-other (other_module)")
    with pytest.raises(PluginError, match="environment 'chess' is registered twice, by dist-one"):
        catalog.registered(catalog.environments, "environment", "chess")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@hookimpl\ndef register_environment(register): pass", "did you mean 'register_environments'?"),
        ("def register_environments(register): pass", "register_environments lacks the @hookimpl decorator"),
        ("@hookimpl\ndef register_environments(register): pass", "register_environments registered nothing"),
        ("@hookimpl\ndef register_environments(register): register(print)", "is no environment and no tool"),
        (
            "from verl_lite.plugins import environment\n@environment('x')\nclass X:\n  step = print",
            "environment 'x': the class has no reset",
        ),
        (
            "from verl_lite.plugins import tool\n@tool('a tool')\ndef x(): ...",
            "tool 'a tool': a name is letters",
        ),
        (
            "from verl_lite.plugins import tool\n@tool(timeout_s=0)\ndef x(): ...",
            "timeout_s=0; expected seconds above 0",
        ),
    ],
)
def test_a_wrong_environment_plugin_says_what_is_wrong(install: Install, source: str, message: str) -> None:
    catalog = find_rewards(extra=[install("wrong", PREFIX + source)])
    state, why = status(catalog, "wrong")
    assert state in (PluginStatus.FAILED_SIGNATURE, PluginStatus.FAILED_IMPORT)
    assert message in why
