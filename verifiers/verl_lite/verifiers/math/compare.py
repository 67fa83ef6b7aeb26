"""The tables of answer types: the reference decides the type, and the type decides what is equal to it.

To add a type, write a file in answers/ and its row here. A type with LaTeX commands of its own lists them
in answers/grammar.py.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from verl_lite.verifiers.math.answers import (
    assignments,
    choices,
    collections,
    congruences,
    datetimes,
    forms,
    functions,
    quantities,
    ratios,
    real_sets,
    texts,
    trees,
    values,
    vectors,
    words,
)
from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.notations import in_other_notation
from verl_lite.verifiers.math.answers.readings import fits, read_simpler, same_rest
from verl_lite.verifiers.math.comparer import Ask, Comparer, Decision, TreeType
from verl_lite.verifiers.math.options import MathOptions
from verl_lite.verifiers.math.reading.normalise import string_key
from verl_lite.verifiers.verdict import Outcome

MAX_CHARS = 1000
_WORD = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([A-Za-z]+)\}")


class TextType(NamedTuple):
    """A type that is read from an answer's text.

    `read` returns something false for an answer of another type, `compare` None for such a reference.
    """

    read: Callable[[Answer], object]
    compare: Callable[[Comparer, Answer, Answer], Decision | None]


TEXT_TYPES = (
    TextType(datetimes.read_datetime, datetimes.compare),
    TextType(words.read_word_class, words.compare),
    TextType(choices.read_choice, choices.compare),
    TextType(quantities.read_quantity, quantities.compare),
    TextType(texts.read_text, texts.compare),
    TextType(trees.read_tree, trees.compare),
    TextType(forms.read_form, forms.compare),
)
# Types of trees, with what `matched_by` says ("value": the tier that decided).
TREE_TYPES: tuple[TreeType, ...] = (
    ("relation", functions.compare_family),
    ("value", values.compare),
    ("plus-minus", collections.compare_plus_minus),
    ("system", vectors.compare_system),
    ("vector", vectors.compare),
    ("interval", real_sets.compare),
    ("relation", ratios.compare),
    ("relation", assignments.compare_statement),
    ("relation", congruences.compare),
    ("relation", functions.compare),
    ("relation", assignments.compare),
    ("set", collections.compare),
)


def new_comparer(options: MathOptions, ask: Ask) -> Comparer:
    return Comparer(options, ask, compare_texts, TREE_TYPES)


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision:
    """The decision for a readable reference. Raises Undecided if a worker ran out of time."""
    if reference.key == response.key:
        return Decision(Outcome.CORRECT, "string")
    if not response.text:
        return Decision(Outcome.UNPARSED, "", "the answer is empty")
    decision = _by_type(comparer, reference, response)
    if decision.outcome is Outcome.CORRECT:
        return decision
    if reference.read(_bare_key) == response.read(_bare_key):
        return Decision(Outcome.CORRECT, "string")
    for ours, theirs in _simpler(reference, response):
        simpler = _by_type(comparer, ours, theirs)
        if simpler.outcome is Outcome.CORRECT:
            return simpler
    return decision


def _bare_key(answer: Answer) -> str:
    r"""The key without fonts around single words: \text{CO}_2 is CO_2."""
    has_fonts = len(answer.text) < MAX_CHARS and _WORD.search(answer.text)
    return string_key(_WORD.sub(r"\1", answer.text)) if has_fonts else answer.key


def _by_type(comparer: Comparer, reference: Answer, response: Answer) -> Decision:
    if reference.key == response.key:
        return Decision(Outcome.CORRECT, "string")
    for answer_type in TEXT_TYPES:
        decision = answer_type.compare(comparer, reference, response)
        if decision is not None:
            return decision
    return Decision(Outcome.WRONG, "", "another text")


def _simpler(reference: Answer, response: Answer) -> Iterator[tuple[Answer, Answer]]:
    """The pairs in which either side, or both, are read without what goes with the answer."""
    ours, theirs = reference.read(read_simpler), response.read(read_simpler)
    if theirs is not None and fits(theirs, reference, ours):
        yield reference, read_answer(theirs.core)
    if ours is not None and ours.kind != "letter" and fits(ours, response, theirs):
        yield read_answer(ours.core), response
    if ours is not None and theirs is not None and same_rest(ours, theirs):
        yield read_answer(ours.core), read_answer(theirs.core)
    if (rewritten := in_other_notation(reference, response)) is not None:
        yield rewritten


def compare_texts(comparer: Comparer, reference: str, response: str) -> Decision:
    """`compare` for a part of an answer, such as the text of a choice."""
    return compare(comparer, read_answer(reference), read_answer(response))


def fault(reference: Answer) -> str:
    """Why an answer cannot be a reference; "" if a type reads it."""
    if not reference.text:
        return "the reference is empty"
    if any(reference.read(one.read) for one in TEXT_TYPES):
        return ""
    return trees.fault(reference) or forms.fault(reference)
