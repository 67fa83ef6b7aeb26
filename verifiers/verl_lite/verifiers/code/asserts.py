"""Reads test code: which asserts are plain calls, which need their own process, which trust the program.

The tests alone decide this, never the program, so no program can choose to be trusted.
"""

import ast
import builtins
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from verl_lite.verifiers.code.trust import (
    is_alias,
    looks_like_class,
    module_aliases,
    why_together,
    without_data,
)
from verl_lite.verifiers.code.types import AssertTest, CallTest, CodeTest, UnitTestFile

_BUILTINS = frozenset(dir(builtins))


class NotReadable(ValueError):
    """Test code that is not Python, or that never calls the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCode:
    """Test code ready to run: in its own process, or together with the program (and why)."""

    source: str
    setup: str
    names: tuple[str, ...]
    module: str
    collect: bool
    mode: Literal["separate", "together"]
    trusts_because: str = ""

    __test__ = False  # pytest: no test class


def split_asserts(test: AssertTest) -> list[CodeTest]:
    """`test` as one test per assert: `assert f(1) == 2` becomes a CallTest, others stay AssertTests.

    Source with other statements is returned unsplit. Raises NotReadable for source that is not Python
    or asserts nothing.
    """
    tree = _parse(test.source)
    statements = tree.body
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise NotReadable(f"the test asserts nothing: {test.source!r:.80}")
    if not all(isinstance(node, ast.Assert) for node in statements):
        return [test]
    split: list[CodeTest] = []
    for node in statements:
        source = ast.unparse(node)
        call = _as_call_test(node, test, source) if isinstance(node, ast.Assert) else None
        split.append(call or AssertTest(source=source, setup=test.setup, names=test.names))
    return split


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotReadable(f"the test is not Python: {error} in {source!r:.80}") from None


def _as_call_test(node: ast.Assert, test: AssertTest, source: str) -> CallTest | None:
    """`assert f(literals) == literal` (or `is None/True/False`), either way round; else None."""
    compare = node.test
    if not isinstance(compare, ast.Compare) or len(compare.ops) != 1:
        return None
    left, right = compare.left, compare.comparators[0]
    if isinstance(compare.ops[0], ast.Is):
        if not (isinstance(right, ast.Constant) and right.value in (None, True, False)):
            return None
        if type(right.value) not in (bool, type(None)):
            return None
    elif not isinstance(compare.ops[0], ast.Eq):
        return None
    for call, value in ((left, right), (right, left)):
        path = _called_path(call, test.names)
        if path is None or not isinstance(call, ast.Call) or path in _BUILTINS:
            continue
        if test.names and path not in test.names:
            continue
        if any(keyword.arg is None for keyword in call.keywords):
            continue
        try:
            args = tuple(map(ast.literal_eval, call.args))  # refuses a starred argument
            kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
            expected = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        return CallTest(
            function=path, args=args, kwargs=kwargs, expected=expected, rules="python", source=source,
        )  # fmt: skip
    return None


def _called_path(node: ast.expr, functions: Sequence[str]) -> str | None:
    """ "f" for `f(...)`, "Solution.f" for `Solution().f(...)`; else None.

    A capitalised name is a class, unless it is one of `functions`.
    """
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        name = node.func.id
        return name if name in functions or not looks_like_class(name) else None
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
        maker = node.func.value
        if isinstance(maker.func, ast.Name) and not maker.args and not maker.keywords:
            return f"{maker.func.id}.{node.func.attr}" if looks_like_class(maker.func.id) else None
    return None


@functools.lru_cache(maxsize=64)  # the samples of a prompt share their tests
def read_test_code(test: AssertTest | UnitTestFile, prelude: str = "") -> TestCode:
    """How to run `test`. Raises NotReadable for tests that cannot be used."""
    tree, setup_tree = without_data(_parse(test.source)), without_data(_parse(test.setup))
    if isinstance(test, AssertTest):
        module = "solution"
        names = set(test.names) or _names_of_program(tree, setup_tree, _parse(prelude))
    else:
        module = test.module
        names = _imported_from_program(tree, module)
    if not names:
        raise NotReadable(f"the test calls nothing of the program: {test.source!r:.120}")
    reason = why_together((tree, setup_tree), names, module)
    return TestCode(
        source=test.source,
        setup=test.setup,
        names=tuple(sorted(names)),
        module=module,
        collect=isinstance(test, UnitTestFile),
        mode="together" if reason else "separate",
        trusts_because=reason,
    )


def _names_of_program(tree: ast.Module, setup: ast.Module, prelude: ast.Module) -> set[str]:
    """What the asserts read and nothing else defines; if that is nothing, the builtins they call.

    A program may define a function with a builtin's name: `assert sum(1, 2) == 3`.
    """
    known = _defined_names(tree) | _defined_names(setup) | _defined_names(prelude)
    names = (_read_names(tree) | _read_names(setup)) - known
    if names - _BUILTINS:
        return names - _BUILTINS
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    called = {func.id for func in calls if isinstance(func, ast.Name)} & names
    return {name for name in called if not hasattr(builtins, name) or name.islower()}


def _read_names(tree: ast.AST) -> set[str]:
    return {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _defined_names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _imported_from_program(tree: ast.AST, module: str) -> set[str]:
    """The names a test file takes from the program: `from solution import f`, or `solution.f`."""
    names: set[str] = set()
    aliases = module_aliases(tree, module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == module:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and is_alias(node.value, aliases):
            names.add(node.attr)
    if "*" in names or not names:
        names |= _read_names(tree) - _defined_names(tree) - _BUILTINS
    return names - {"*"}
