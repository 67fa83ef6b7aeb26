"""Tuples, vectors and matrices: the same entries in the same places."""

from verl_lite.verifiers.math.answers.assignments import same_in_order, same_part, systems, unassigned
from verl_lite.verifiers.math.answers.real_sets import is_real_set
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import (
    Expr,
    Unreadable,
    is_value,
    neg,
    node,
    num,
    substitute,
    symbols,
)
from verl_lite.verifiers.math.reading.parser import ExpressionParser

_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix array smallmatrix".split())
_DETERMINANTS = frozenset(("vmatrix",))
_CONDITION_WORDS = frozenset(("if", "for", "when", "where"))
_OTHERWISE = frozenset(("otherwise", "else", "elsewhere"))
_CASES = frozenset("cases aligned align gathered split equation".split())
MAX_COMBINED = 5  # operations deep, of matrices
_PARAMETERS = frozenset(("s", "t", "u", "r", "k", "\\lambda", "\\mu", "lambda", "mu"))


def read_tuple(parser: ExpressionParser) -> Expr:
    r"""`\langle 1, 2 \rangle` read after its bracket."""
    items, _ = parser.items(("rangle",))
    return node("tuple", *items)


def read_environment(parser: ExpressionParser) -> Expr:
    r"""`\begin{...}` of matrices, of determinants, and of `cases` as a list of its lines."""
    name = _braced_word(parser)
    if name not in _MATRICES | _CASES | _DETERMINANTS:
        raise Unreadable(f"the environment {name}")
    if name == "array" and parser.at("{"):
        while not parser.accept("}"):
            if parser.is_done():
                raise Unreadable("an unfinished array")
            parser.take()
    rows: list[list[Expr]] = [[]]
    while not parser.at("end"):
        if parser.accept("\\\\"):
            rows.append([])
        elif not parser.accept("&"):
            rows[-1].append(_cell(parser) if name in _CASES else parser.item())
            if not parser.at("&", "\\\\", "end"):
                parser.expect(",", "&", "\\\\", "end")
    parser.take()
    if _braced_word(parser) != name:
        raise Unreadable("environments that do not match")
    filled = [row for row in rows if row]
    if not filled:
        raise Unreadable("an empty matrix")
    if name in _CASES:
        items = _without_otherwise([item for row in filled for item in _case(row)])
        return items[0] if len(items) == 1 else node("list", *items)
    if len({len(row) for row in filled}) != 1:
        raise Unreadable("a matrix with rows of different lengths")
    if name in _DETERMINANTS:
        return _determinant(filled)
    return node("matrix", *(node("row", *row) for row in filled))


def _cell(parser: ExpressionParser) -> Expr:
    """A cell of `cases`: a value, or a condition that may begin with "if" or be "otherwise"."""
    word = parser.peek().text.lower().strip(" ,")
    if parser.peek().kind in ("word", "text") and word in _CONDITION_WORDS:
        parser.take()
    if word in _OTHERWISE:
        parser.take()
        return Expr("sym", (), "otherwise")
    return parser.item()


def _case(row: list[Expr]) -> list[Expr]:
    """A value with its condition as a pair; the equations of a system one by one."""
    has_condition = len(row) == 2 and (is_real_set(row[1]) or row[1].head in ("rel", "sym"))
    return [node("tuple", *row)] if has_condition and row[0].head != "rel" else row


def _without_otherwise(items: list[Expr]) -> list[Expr]:
    """Cases of which the last is "otherwise": what the conditions of the others leave."""
    if len(items) < 2 or items[-1].head != "tuple" or items[-1].args[1] != Expr("sym", (), "otherwise"):
        return items
    met = [item.args[1] for item in items[:-1] if item.head == "tuple"]
    rest = node("minus", node("named", value="R"), met[0] if len(met) == 1 else node("or", *met))
    return [*items[:-1], node("tuple", items[-1].args[0], rest)] if met else items


def _determinant(rows: list[list[Expr]]) -> Expr:
    """Laplace's expansion along the first row, for up to four rows."""
    if len(rows) != len(rows[0]) or len(rows) > 4:
        raise Unreadable("a determinant of this shape")
    if len(rows) == 1:
        return rows[0][0]
    total: Expr = num(0)
    for column, entry in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        term = node("mul", entry, _determinant(minor))
        total = node("add", total, term if column % 2 == 0 else neg(term))
    return total


def _braced_word(parser: ExpressionParser) -> str:
    parser.expect("{")
    name = parser.take().text
    parser.accept("*")
    parser.expect("}")
    return name


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    if reference.head == "tuple" and is_real_set(response):
        return None
    if reference.head not in _COMBINED and reference.head not in ("tuple", "row", "matrix", "interval"):
        return None
    ours, matrix = as_vector(reference), as_matrix(reference)
    if ours is None and matrix is None:
        return None
    named = systems(response)
    if named is not None and ours is not None:
        in_order = sorted(named) if all(len(name.split("_")[0]) == 1 for name in named) else list(named)
        return same_in_order(comparer, ours, [named[name] for name in in_order])
    given = unassigned(response)
    if ours is not None and (names := _parameters(reference, given)) is not None:
        given = substitute(given, {names[1]: Expr("sym", (), names[0])})
    other_matrix = as_matrix(given)
    if matrix is not None and other_matrix is not None:
        shapes = [(len(rows), len(rows[0])) for rows in (matrix, other_matrix)]
        flat = [[entry for row in rows for entry in row] for rows in (matrix, other_matrix)]
        return shapes[0] == shapes[1] and same_in_order(comparer, *flat)
    theirs = given.args if given.head == "list" and given.value != "or" else as_vector(given)
    theirs = unit_vector_entries(given) if theirs is None else theirs
    return ours is not None and theirs is not None and same_in_order(comparer, ours, theirs)


def compare_system(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """x = 1, y = 2: the same names, or the values alone in the same order."""
    named, other_named = systems(reference), systems(response)
    if named is None:
        return None
    if other_named is not None:
        return set(named) == set(other_named) and all(
            same_part(comparer, named[name], other_named[name]) for name in named
        )
    is_list = response.head in ("list", "tuple") and response.value != "or"
    given = response.args if is_list else as_vector(response) or ()
    return same_in_order(comparer, list(named.values()), given)


def _parameters(reference: Expr, response: Expr) -> tuple[str, str] | None:
    """The one parameter of each side where they only have other names: (t, 2t) and (s, 2s)."""
    ours, theirs = symbols(reference), symbols(response)
    if len(ours) != 1 or len(theirs) != 1 or not ours | theirs <= _PARAMETERS:
        return None
    return next(iter(ours)), next(iter(theirs))


def unit_vector_entries(tree: Expr) -> tuple[Expr, ...] | None:
    """(a, b, c) of a i + b j + c k; None for an expression without the vectors j or k."""
    names = symbols(tree)
    if not names or not names <= {"j", "k"}:
        return None
    zero = {"i": num(0), "j": num(0), "k": num(0)}
    letters = _with_letter_i(tree)
    axes = "ijk" if "k" in names else "ij"
    return tuple(substitute(letters, zero | {axis: num(1)}) for axis in axes)


def _with_letter_i(tree: Expr) -> Expr:
    if tree == Expr("const", (), "i"):
        return Expr("sym", (), "i")
    return Expr(tree.head, tuple(map(_with_letter_i, tree.args)), tree.value, tree.places)


def as_matrix(tree: Expr, depth: int = MAX_COMBINED) -> tuple[tuple[Expr, ...], ...] | None:
    """The rows of a matrix, also of plain [[1, 2], [3, 4]]; None for other trees."""
    if tree.head in _COMBINED:
        return _combined(tree, depth - 1) if depth else None
    if tree.head == "matrix":
        return tuple(row.args for row in tree.args)
    if tree.head in ("row", "interval") and (tree.head == "row" or tree.value == "[]"):
        rows = [_plain_row(item) for item in tree.args]
        if all(row is not None for row in rows) and len({len(row) for row in rows if row is not None}) == 1:
            return tuple(row for row in rows if row is not None)
    return None


_COMBINED = frozenset(("mul", "div", "add", "neg", "pow"))
_TRANSPOSED = Expr("sym", (), "T")


def _combined(tree: Expr, depth: int) -> tuple[tuple[Expr, ...], ...] | None:
    """2 M, M / 2, -M, M + N entry by entry, and M^T. A tuple counts as a column."""
    sides = [_rows(arg, depth) for arg in tree.args]
    left, right = sides[0], sides[-1]
    if tree.head == "pow" and left and tree.args[1] == _TRANSPOSED:
        return tuple(zip(*_turned(tree.args[0], left), strict=True))
    if tree.head == "neg" and left:
        return tuple(tuple(map(neg, row)) for row in left)
    if tree.head == "add" and left and right and [*map(len, left)] == [*map(len, right)]:
        pairs = zip(left, right, strict=True)
        return tuple(tuple(node("add", a, b) for a, b in zip(*rows, strict=True)) for rows in pairs)
    if tree.head == "mul" and right and left is None and is_value(tree.args[0]):
        return tuple(tuple(node("mul", tree.args[0], entry) for entry in row) for row in right)
    if tree.head in ("mul", "div") and left and right is None and is_value(tree.args[1]):
        return tuple(tuple(node(tree.head, entry, tree.args[1]) for entry in row) for row in left)
    return None


def _rows(tree: Expr, depth: int) -> tuple[tuple[Expr, ...], ...] | None:
    return tuple((entry,) for entry in tree.args) if tree.head == "tuple" else as_matrix(tree, depth)


def _turned(tree: Expr, rows: tuple[tuple[Expr, ...], ...]) -> tuple[tuple[Expr, ...], ...]:
    """The rows that are transposed: (1, 2, 3)^T is a column, so (1, 2, 3) is taken for a row."""
    return (tree.args,) if tree.head in ("tuple", "row") and as_matrix(tree) is None else rows


def _plain_row(tree: Expr) -> tuple[Expr, ...] | None:
    if tree.head in ("row", "tuple") or (tree.head == "interval" and tree.value == "[]"):
        return tree.args
    return None


def as_vector(tree: Expr) -> tuple[Expr, ...] | None:
    """The entries of a tuple or of a matrix of one column or one row."""
    if tree.head == "tuple":
        return tree.args
    if tree.head == "row" and as_matrix(tree) is None:
        return tree.args
    rows = as_matrix(tree)
    if rows is None:
        return None
    if all(len(row) == 1 for row in rows):
        return tuple(row[0] for row in rows)
    return rows[0] if len(rows) == 1 else None
