"""`verify_math`: extraction, comparison, and a verdict within the deadline, whatever the text."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from verl_lite.verifiers.math import pool
from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.choices import is_letter, read_choice
from verl_lite.verifiers.math.answers.collections import count_parts, share_of_parts
from verl_lite.verifiers.math.answers.computed import left_undone
from verl_lite.verifiers.math.answers.datetimes import read_datetime
from verl_lite.verifiers.math.answers.plain_numbers import compare_plain, plain_reference
from verl_lite.verifiers.math.answers.quantities import read_quantity
from verl_lite.verifiers.math.answers.words import read_word_class
from verl_lite.verifiers.math.compare import compare, fault, new_comparer
from verl_lite.verifiers.math.comparer import Ask, Decision, OutOfSteps, Undecided
from verl_lite.verifiers.math.expressions import Expr
from verl_lite.verifiers.math.options import MathOptions
from verl_lite.verifiers.math.pool import Reply
from verl_lite.verifiers.math.reading.extraction import extract, stated_behind
from verl_lite.verifiers.math.reading.normalise import with_decimal_points
from verl_lite.verifiers.math.reading.statements import Extraction, is_solution
from verl_lite.verifiers.verdict import Outcome, Verdict

MAX_REFERENCE_CHARS = 20_000
MAX_COMPARED_CHARS = 8000
FIRST_SLICE_S = 0.4
SHORT_SLICE_S = 0.1
START_S = 30.0  # for sympy's import in the first worker of a process, on a busy machine
DEFAULTS = MathOptions()


def verify_math(response: str, reference: str, *, options: MathOptions = DEFAULTS) -> Verdict:
    """Whether the answer in `response` is the answer `reference`.

    Text in, a Verdict out, for any text: hard questions are put to worker processes, and no call
    takes longer than `options.timeout_s` plus half a second. `matched_by` says what decided:
    "string", "number", "algebra" (exact normal forms), "symbolic" (sympy's proof), or the type
    ("units", "set", "vector", "interval", "relation", "choice", "boolean", "words", "time", "text").

    >>> verify_math(r"So the answer is $\\boxed{\\frac{2}{4}}$.", "1/2").outcome.value
    'correct'
    >>> verify_math("The answer is 5 cm", "5 m").outcome.value
    'wrong'
    """
    ask = partial(pool.ask, timeout_s=options.timeout_s)
    return _verify(response, reference, options, ask)


def verify_math_batch(pairs: Sequence[tuple[str, str]], *, options: MathOptions = DEFAULTS) -> list[Verdict]:
    """One verdict per (response, reference) pair, in order; equal pairs are decided once.

    Easy pairs are decided here, hard ones side by side in the worker processes. All pairs that run out of
    time together cost the batch one deadline.
    """
    found: dict[tuple[str, str], Verdict] = {}
    hard: list[tuple[str, str]] = []
    for pair in pairs:
        if pair not in found:
            try:
                found[pair] = _verify(*pair, options, _postpone)
            except _Postponed:
                found[pair] = _UNDECIDED
                hard.append(pair)
    if hard:
        _decide_hard(hard, found, options)
    return [found[pair] for pair in pairs]


def is_text_reference(reference: str) -> bool:
    """Whether a reference is words that rules can only compare as they are written.

    >>> is_text_reference("The vectors are collinear."), is_text_reference("2x+1"), is_text_reference("none")
    (True, False, False)
    """
    answer = read_answer(reference)
    if answer.read(fault) or answer.expr is not None:
        return False
    is_known = any(answer.read(read) for read in (read_datetime, read_word_class, read_choice, read_quantity))
    return not is_known


def warm_up(timeout_s: float = START_S) -> None:
    """Start the worker processes and wait for them: about two seconds of CPU, once per process.

    Optional: a batch waits by itself; a first single call that needs sympy may otherwise time out
    on a busy machine.
    """
    pool.wait_until_ready(timeout_s, pool.num_workers())


class _Postponed(Exception):
    """A question for the workers came up while only easy pairs are decided."""


def _postpone(question: str, *arguments: Expr | str) -> Reply:
    raise _Postponed


_UNDECIDED = Verdict(outcome=Outcome.TIMEOUT, reason="not decided before the deadline")


@dataclass
class _Window:
    """How long the hard pairs of a batch may spend on time-outs; shared by the threads that decide them."""

    timeout_s: float
    wasted_s: float = 0.0

    def slice_s(self) -> float:
        """The seconds for one pair; fewer once time-outs have used up half a deadline."""
        usual = FIRST_SLICE_S if self.wasted_s < self.timeout_s / 2 else SHORT_SLICE_S
        return min(usual, self.timeout_s)

    def note(self, verdict: Verdict) -> None:
        if verdict.outcome is Outcome.TIMEOUT:
            self.wasted_s += verdict.wall_s / pool.num_workers()


def _decide_hard(
    pairs: list[tuple[str, str]], found: dict[tuple[str, str], Verdict], options: MathOptions
) -> None:
    """A short slice for every pair; pairs that need more share what is left of one deadline."""
    pool.wait_until_ready(START_S, min(len(pairs), pool.num_workers()))
    window = _Window(options.timeout_s)

    def decide(pair: tuple[str, str], allowed_s: float | None = None) -> Verdict:
        ask = partial(pool.ask, timeout_s=window.slice_s() if allowed_s is None else allowed_s)
        response, reference = pair
        verdict = _verify(response, reference, options, ask)
        window.note(verdict)
        return verdict

    with ThreadPoolExecutor(pool.num_workers(), thread_name_prefix="verify-math") as threads:
        found.update(zip(pairs, threads.map(decide, pairs), strict=True))
        late = [pair for pair in pairs if found[pair].outcome is Outcome.TIMEOUT]
        rounds = -(-len(late) // pool.num_workers())
        share_s = (options.timeout_s - window.wasted_s) / max(1, rounds)
        if late and share_s > FIRST_SLICE_S:
            found.update(zip(late, threads.map(partial(decide, allowed_s=share_s), late), strict=True))


def _verify(response: str, reference: str, options: MathOptions, ask: Ask) -> Verdict:
    started = time.perf_counter()
    if options.decimal_comma:
        response, reference = with_decimal_points(response), with_decimal_points(reference)
    extraction = extract(response, mode=options.mode, read_unclosed=options.unclosed_thinking == "read")
    wanted = plain_reference(reference)
    if wanted is not None and extraction.answer is not None and not extraction.boxes:
        quick = compare_plain(wanted, extraction.answer, options.rel_tol, computed=options.computed)
        if quick is not None:
            return _verdict(quick, extraction.answer, started)
    expected = _read_reference(reference)
    if reason := expected.read(fault):
        return Verdict(outcome=Outcome.BAD_REFERENCE, reason=reason, wall_s=time.perf_counter() - started)
    if expected.may_need_proof:
        pool.start()
    if extraction.answer is None:
        decision = Decision(Outcome.UNPARSED, "", extraction.reason)
    else:
        decision = _decide(expected, extraction, options, ask)
    if decision.outcome is not Outcome.CORRECT and not extraction.boxes:
        whole = response if options.mode == "lenient" else ""
        if any(
            _is_same_text(text, reference) for text in (extraction.answer or "", extraction.marked, whole)
        ):
            decision = Decision(Outcome.CORRECT, "string")
    return _verdict(decision, extraction.answer, started)


def _is_same_text(text: str, reference: str) -> bool:
    """Whether a text is the reference itself, however that is read: a sentence, a whole solution."""
    if len(text) > min(MAX_COMPARED_CHARS, 3 * len(reference) + 40) or not text.strip():
        return False
    return read_answer(text).key == read_answer(reference).key


def _verdict(decision: Decision, answer: str | None, started: float) -> Verdict:
    return Verdict(
        outcome=decision.outcome,
        extracted=answer if answer is None or len(answer) <= 2000 else answer[:2000] + "...",
        matched_by=decision.matched_by,
        reason=decision.reason,
        credit=1.0 if decision.outcome is Outcome.CORRECT else decision.credit,
        wall_s=time.perf_counter() - started,
    )


def _decide(expected: Answer, extraction: Extraction, options: MathOptions, ask: Ask) -> Decision:
    answer = extraction.answer
    assert answer is not None
    text = answer.strip()
    if len(text) > MAX_COMPARED_CHARS:
        return _long(expected, text)
    comparer = new_comparer(options, ask)
    try:
        given = read_answer(", ".join(extraction.boxes) or _meant(expected, extraction, text))
        if options.computed and (undone := left_undone(expected, given)):
            return Decision(Outcome.WRONG, "", undone)
        decision = compare(comparer, expected, given)
        in_parts = options.partial and decision.outcome is Outcome.WRONG and not extraction.boxes
        if in_parts and expected.expr and given.expr:
            return decision._replace(credit=share_of_parts(comparer, expected.expr, given.expr))
        return decision
    except Undecided as stopped:
        outcome = Outcome.ERROR if stopped.status == "error" else Outcome.TIMEOUT
        return Decision(outcome, "", str(stopped))
    except OutOfSteps as stopped:
        return Decision(Outcome.UNPARSED, "", str(stopped))
    except RecursionError:  # the caller's own stack may leave little room
        return Decision(Outcome.UNPARSED, "", "the answer is nested too deeply")


def _meant(expected: Answer, extraction: Extraction, text: str) -> str:
    """The one answer, unless the reference asks for more: a letter behind it, yes or no, a value per box."""
    if extraction.behind and expected.read(is_letter) and read_choice(read_answer(text)) is None:
        return stated_behind(extraction) or text
    if extraction.marked and expected.read(read_word_class) in ("yes", "no"):
        return extraction.marked if read_answer(extraction.marked).read(read_word_class) else text
    parts = extraction.all_boxes
    if parts and expected.expr is not None and count_parts(expected.expr) == len(parts):
        return ", ".join(parts)
    return text


def _long(expected: Answer, text: str) -> Decision:
    """An answer beyond the size any comparison takes: equal as a string, or not read."""
    if len(expected.key) > MAX_COMPARED_CHARS and Answer(text).key == expected.key:
        return Decision(Outcome.CORRECT, "string")
    reason = f"the answer has {len(text)} characters, more than {MAX_COMPARED_CHARS}"
    return Decision(Outcome.UNPARSED, "", reason)


def _read_reference(reference: str) -> Answer:
    """The reference's answer; a whole solution is read like a response. Of several boxes all are meant."""
    if "boxed" in reference or "####" in reference:
        found = extract(reference, mode="strict", read_unclosed=True)
        return read_answer(", ".join(found.boxes or found.all_boxes) or found.answer or "")
    if is_solution(reference):
        stated = extract(reference, mode="lenient", read_unclosed=True).answer
        if stated is not None and read_answer(stated).expr is not None:
            return read_answer(stated)
    is_long = len(reference) > MAX_REFERENCE_CHARS
    return read_answer(reference[:MAX_REFERENCE_CHARS] + " ..." if is_long else reference)
