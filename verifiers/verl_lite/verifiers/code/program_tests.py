"""Puts test code of another language behind a program, as MultiPL-E has it: prompt, completion, tests."""

import re

_INCLUDE = re.compile(r"^#\s*include.*$", re.MULTILINE)


def joined(program: str, *, prompt: str, tests: str) -> str:
    """The source to compile and run: `program`, which may continue `prompt`, and then `tests`.

    The tests of languages with braces begin with the one that a completion leaves out; a program that
    has its own gets them without it.

    >>> joined("int f() { return 1; }", prompt="#include <a>\\nint f() {", tests="}\\nint main() {}")
    '#include <a>\\nint f() { return 1; }\\n\\nint main() {}'
    >>> joined("  return 1;\\n", prompt="#include <a>\\nint f() {\\n", tests="}\\nint main() {}")
    '#include <a>\\nint f() {\\n  return 1;\\n\\n}\\nint main() {}'
    """
    if not _is_whole(program, prompt):
        return f"{prompt}{program}\n{tests}"
    missing = [line for line in _INCLUDE.findall(prompt) if line not in program]
    head = "".join(f"{line}\n" for line in missing)
    if tests.lstrip().startswith("}") and program.count("{") <= program.count("}"):
        tests = tests.lstrip().removeprefix("}")
    return f"{head}{program}\n{tests}"


def _is_whole(program: str, prompt: str) -> bool:
    """Whether `program` has the function that the prompt ends in, rather than its body alone."""
    names = re.findall(r"(\w+)\s*\(", prompt.rstrip().rpartition("\n")[2])
    head, opened, _ = program.partition("{")
    return not names or bool(opened and re.search(rf"\b{re.escape(names[0])}\s*\(", head))
