"""Tuples, vectors and matrices: the same entries in the same places."""

from verl_lite.verifiers.math.answers.assignments import same_in_order, same_part, systems, unassigned
from verl_lite.verifiers.math.answers.real_sets import is_real_set
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, Unreadable, neg, node, num, substitute, symbols
from verl_lite.verifiers.math.reading.parser import ExpressionParser

_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix array smallmatrix".split())
_DETERMINANTS = frozenset(("vmatrix",))
_CONDITION_WORDS = frozenset(("if", "for", "when", "where"))
_OTHERWISE = frozenset(("otherwise", "else", "elsewhere"))
_CASES = frozenset("cases aligned align gathered split".split())


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
        return node("list", *(item for row in filled for item in _case(row)))
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
    if reference.head not in ("tuple", "row", "matrix", "interval", "mul", "div"):
        return None
    ours, matrix = as_vector(reference), as_matrix(reference)
    if ours is None and matrix is None:
        return None
    named = systems(response)
    if named is not None and ours is not None:
        in_order = sorted(named) if all(len(name.split("_")[0]) == 1 for name in named) else list(named)
        return same_in_order(comparer, ours, [named[name] for name in in_order])
    given = unassigned(response)
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


def as_matrix(tree: Expr) -> tuple[tuple[Expr, ...], ...] | None:
    """The rows of a matrix, also of plain [[1, 2], [3, 4]]; None for other trees."""
    if tree.head in ("mul", "div") and (scaled := _scaled_matrix(tree)) is not None:
        return scaled
    if tree.head == "matrix":
        return tuple(row.args for row in tree.args)
    if tree.head in ("row", "interval") and (tree.head == "row" or tree.value == "[]"):
        rows = [_plain_row(item) for item in tree.args]
        if all(row is not None for row in rows) and len({len(row) for row in rows if row is not None}) == 1:
            return tuple(row for row in rows if row is not None)
    return None


def _scaled_matrix(tree: Expr) -> tuple[tuple[Expr, ...], ...] | None:
    """2 M, M / 2 entry by entry."""
    left, right = tree.args
    if right.head == "matrix" and left.head != "matrix" and tree.head == "mul":
        return tuple(tuple(node("mul", left, entry) for entry in row.args) for row in right.args)
    if left.head == "matrix" and right.head != "matrix":
        return tuple(tuple(node(tree.head, entry, right) for entry in row.args) for row in left.args)
    return None


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
