"""Finds what makes test code trust the program, by reading it: the tests alone decide, never the program.

Two kinds of tests trust it. Those that run its text (`eval(f(1))`, `pickle.loads(f(1))`, a shell) let it
act in their own process. Those that compare its objects (`Point(1) == Point(2)`, `f(1) == Color.RED`)
let it decide the comparison. A checker can do the first.
"""

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence

_BUILTINS = frozenset(dir(builtins))
_RUNS_TEXT = frozenset({"eval", "exec", "compile", "breakpoint", "__builtins__"})
_RUNNING_MODULES = frozenset(
    "pickle _pickle cPickle pickletools dill cloudpickle joblib marshal shelve runpy code codeop pty ctypes"
    " subprocess multiprocessing timeit doctest pdb bdb trace profile cProfile imp zipimport"
    " webbrowser".split()
)
_RUNNING_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "os": frozenset({"system", "popen", "posix_spawn", "posix_spawnp"}),
    "builtins": _RUNS_TEXT | {"__dict__"},
    "asyncio": frozenset({"create_subprocess_exec", "create_subprocess_shell"}),
    "typing": frozenset({"get_type_hints"}),
}
_RUNNING_PREFIXES = {"os": ("exec", "spawn")}
_LOADERS = frozenset(
    "reload spec_from_file_location spec_from_loader module_from_spec exec_module load_module"
    " SourceFileLoader SourcelessFileLoader ExtensionFileLoader source_to_code".split()
)
_GETTERS = frozenset({"getattr", "attrgetter", "methodcaller"})
_READS_PROGRAM = frozenset(
    "signature getsource getsourcelines getsourcefile getfullargspec getdoc getmembers getfile".split()
)
# Libraries whose objects tests use as data; results of any other library are objects to be trusted.
_PLAIN_LIBRARIES = frozenset("pytest _pytest numpy hypothesis parameterized typing_extensions".split())
_MODULE_USES = frozenset("hasattr getattr setattr delattr object".split())
_CONTAINERS = (
    ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.BoolOp, ast.Starred,
    ast.ListComp, ast.SetComp, ast.GeneratorExp,
)  # fmt: skip
_COMPARING = ("assertEqual", "assertNotEqual", "assertIn", "assertNotIn", "assertLess", "assertGreater",
              "assertListEqual", "assertTupleEqual", "assertSetEqual", "assertDictEqual", "assertCountEqual",
              "assertAlmostEqual", "assertSequenceEqual")  # fmt: skip


def without_data(tree: ast.Module) -> ast.Module:
    """`tree` with a constant in place of each literal list, tuple, set and dict: data means nothing here,
    and the tests of some data sets are mostly data.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                value[:] = [ast.Constant(None) if _is_data(item) else item for item in value]
                waiting += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST):
                if _is_data(value):
                    setattr(node, name, ast.Constant(None))
                else:
                    waiting.append(value)
    return tree


def _is_data(node: object) -> bool:
    """Whether `node` is a literal container of literals."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return all(_is_literal(item) for item in node.elts)
    return isinstance(node, ast.Dict) and all(_is_literal(item) for item in [*node.keys, *node.values])


def _is_literal(node: object) -> bool:
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.operand, ast.Constant)
    return isinstance(node, ast.Constant) or _is_data(node)


def runs_text(tree: ast.AST) -> str:
    """Why running `tree` may run text that the program chose; "" if it cannot."""
    modules = _modules_by_alias(tree)
    parents = _parents(tree)
    for node in ast.walk(tree):
        reason = _import_runs(node) or _name_runs(node, parents) or _attribute_runs(node, modules)
        if not reason and isinstance(node, ast.Call):
            reason = _call_runs(node)
        if reason:
            return reason
    return ""


def _parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def _modules_by_alias(tree: ast.AST) -> dict[str, str]:
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names = [(alias.asname, alias.name, alias.name.partition(".")[0]) for alias in imports]
    return {given or first: name if given else first for given, name, first in names}


def _import_runs(node: ast.AST) -> str:
    if isinstance(node, ast.Import):
        names = [alias.name.partition(".")[0] for alias in node.names]
        return next((f"imports {name}" for name in names if name in _RUNNING_MODULES), "")
    if not isinstance(node, ast.ImportFrom) or not node.module:
        return ""
    if node.module.partition(".")[0] in _RUNNING_MODULES:
        return f"imports {node.module}"
    names = [alias.name for alias in node.names]
    return next((f"imports {name} of {node.module}" for name in names if _runs(node.module, name)), "")


def _runs(module: str, name: str) -> bool:
    if name in _RUNNING_ATTRIBUTES.get(module, ()) or name.startswith(_RUNNING_PREFIXES.get(module, "\0")):
        return True
    return module.partition(".")[0] == "importlib" and name in _LOADERS


def _name_runs(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> str:
    """`eval` and its like, under any use but a direct call with constants."""
    if not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _RUNS_TEXT):
        return ""
    call = parents.get(node)
    if isinstance(call, ast.Call) and call.func is node:
        if all(isinstance(arg, ast.Constant) for arg in call.args) and not call.keywords:
            return ""
        return f"runs text with {node.id}()"
    return f"uses {node.id}"


def _attribute_runs(node: ast.AST, modules: Mapping[str, str]) -> str:
    if not isinstance(node, ast.Attribute):
        return ""
    if node.attr in _LOADERS:
        return f"loads code with {node.attr}"
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    module = modules.get(owner, "")
    return f"uses {module}.{node.attr}" if module and _runs(module, node.attr) else ""


def _call_runs(node: ast.Call) -> str:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name in _GETTERS:
        asked = node.args[1:2] if name == "getattr" else node.args[:1]
        if not all(isinstance(arg, ast.Constant) for arg in asked):
            return f"{name}() with a name that is not written there"
        running = _RUNS_TEXT | {"system", "popen"}
        if any(isinstance(arg, ast.Constant) and arg.value in running for arg in asked):
            return f"{name}() of what runs text"
    if any(keyword.arg == "allow_pickle" for keyword in node.keywords):
        return "allows pickles"
    return ""


def why_together(parts: Sequence[ast.Module], names: set[str], module: str) -> str:
    """Why the tests must share the program's process; "" if they need not.

    `names` are those that the tests take from the program, which they import as `module`.
    """
    for part in parts:
        reason = runs_text(part) or _uses_library(part, module) or _Objects(part, names, module).reason()
        if reason:
            return reason
    return ""


def _uses_library(tree: ast.AST, module: str) -> str:
    known = sys.stdlib_module_names | _PLAIN_LIBRARIES | {module}
    for node in ast.walk(tree):
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported = [node.module]
        for name in imported:
            if name.partition(".")[0] not in known and name != module:
                return f"uses objects of the library {name}"
    return ""


class _Objects:
    """Looks for the program's objects where only the program could tell what they mean."""

    def __init__(self, tree: ast.Module, names: set[str], module: str) -> None:
        self._tree = tree
        self._aliases = module_aliases(tree, module)
        self._module = module
        self._parents = _parents(tree)
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == module]
        self._names = names | {alias.asname for node in imports for alias in node.names if alias.asname}
        self._classes = {name for name in self._names if looks_like_class(name)}
        self._class_of = self._variables()

    def reason(self) -> str:
        for node in ast.walk(self._tree):
            reason = self._module_reason(node) or self._function_reason(node) or self._compare_reason(node)
            if isinstance(node, ast.ClassDef) and any(self._name(base) in self._names for base in node.bases):
                reason = f"derives {node.name} from a class of the program"
            if reason:
                return reason
        return ""

    def _name(self, node: ast.AST | None) -> str:
        """The program's name that `node` is: `Stack`, `solution.Stack`; else ""."""
        if isinstance(node, ast.Name):
            return node.id if node.id in self._names else ""
        of_module = isinstance(node, ast.Attribute) and is_alias(node.value, self._aliases)
        return node.attr if of_module and isinstance(node, ast.Attribute) else ""

    def _module_reason(self, node: ast.AST) -> str:
        if not is_alias(node, self._aliases):
            return ""
        parent = self._parents.get(node)
        if isinstance(parent, ast.Attribute):
            return f"reads {self._module}.{parent.attr}" if parent.attr.startswith("__") else ""
        called = parent.func if isinstance(parent, ast.Call) else None
        used = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        return "" if used in _MODULE_USES else f"uses the module {self._module} itself"

    def _function_reason(self, node: ast.AST) -> str:
        name = self._name(node)
        parent = self._parents.get(node)
        if not name or name in self._classes:
            return ""
        if isinstance(parent, ast.Attribute) and parent.attr not in ("__name__", "__doc__"):
            return f"reads {name}.{parent.attr}"
        called = parent.func if isinstance(parent, ast.Call) and node in parent.args else None
        if getattr(called, "attr", getattr(called, "id", "")) in _READS_PROGRAM:
            return f"reads the source or the signature of {name}"
        return ""

    def _compare_reason(self, node: ast.AST) -> str:
        operands: list[ast.expr] = []
        if isinstance(node, ast.Compare) and not all(isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.BinOp) and bool(self._object(node.left)) != bool(self._object(node.right)):
            operands = [node.left, node.right]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _COMPARING:
            operands = node.args[:2]
        plain = any(isinstance(operand, ast.Constant) for operand in operands)
        for operand in operands:
            for found in self._objects_in(operand):
                if not (plain and isinstance(found, ast.Attribute)):
                    return f"compares objects of the class {self._object(found)}"
        return ""

    def _objects_in(self, node: ast.AST) -> Iterator[ast.AST]:
        """The program's objects in an operand, but for those that a call of the program is given."""
        if self._object(node):
            yield node
        elif isinstance(node, _CONTAINERS):
            for child in ast.iter_child_nodes(node):
                yield from self._objects_in(child)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _BUILTINS - self._names
            and not any(map(self._object, node.args))  # list(CountDown(3)) is its items
        ):
            for child in node.args:
                yield from self._objects_in(child)

    def _object(self, node: ast.AST) -> str:
        """The class whose object `node` is, as far as it is written there; else ""."""
        if isinstance(node, ast.Call):
            name = self._name(node.func)
            return name if name in self._classes else ""
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in self._class_of:
            return self._class_of[ast.unparse(node)]
        if isinstance(node, ast.Attribute):
            name = self._name(node.value)
            return name if name in self._classes else ""
        return ""

    def _variables(self) -> dict[str, str]:
        """The variables that hold an object of the program's classes, and which: `s = Stack()`."""
        found = {}
        for node in ast.walk(self._tree):
            if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
                continue
            name = self._name(node.value.func) if isinstance(node.value, ast.Call) else ""
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update({ast.unparse(target): name for target in targets if name in self._classes})
        return found


def looks_like_class(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def module_aliases(tree: ast.AST, module: str) -> set[str]:
    """The names under which a test file has the program itself: `import solution as s`."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == module
    }


def is_alias(node: ast.AST | None, aliases: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in aliases
