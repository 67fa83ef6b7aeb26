"""Runs inside the sandbox, after the program has ended: the data set's checker of an output.

It defines `check(stdin, output, expected) -> bool`, or is a script that is given the paths of three
files (input, expected output, the program's output) and prints its points, of which 1 is full marks.
"""

import contextlib
import io
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from verl_lite.verifiers.code.inside_program import read_request, send_reply


def _function(source: str) -> Callable[[str, str, str], Any]:
    namespace: dict[str, Any] = {"__name__": "checker"}
    exec(compile(source, "<checker>", "exec"), namespace)
    check: Callable[[str, str, str], Any] = namespace["check"]
    return check


def _script(source: str) -> Callable[[str, str, str], Any]:
    code = compile(source, "<checker>", "exec")

    def check(stdin: str, output: str, expected: str) -> bool:
        paths = []
        for name, text in (("input", stdin), ("expected", expected), ("output", output)):
            paths.append(f"{name}.txt")
            with open(paths[-1], "w", encoding="utf-8", errors="surrogatepass") as file:
                file.write(text)
        sys.argv[1:] = paths
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            exec(code, main.__dict__)
        return float((printed.getvalue().split() or ["0"])[0]) == 1

    return check


def main() -> None:
    request = read_request()
    try:
        check = (_script if "argv" in request["checker"] else _function)(request["checker"])
    except BaseException as error:  # noqa: BLE001  whatever it raises, the checker is broken
        send_reply({"status": "not_ready", "message": f"{type(error).__name__}: {error}"})
        os._exit(0)
    try:
        answer = check(request["stdin"], request["output"], request["expected"])
    except BaseException as error:  # noqa: BLE001  an output it cannot read is wrong; so is one it exits on
        status, message = "failed", f"the checker raised {type(error).__name__}: {error}"[:500]
    else:
        status, message = "passed" if answer else "failed", ""
        if type(answer) is not bool:
            status, message = "not_ready", f"check() returned {type(answer).__name__}, not bool"
    send_reply({"status": status, "message": message})
    os._exit(0)


if __name__ == "__main__":
    main()
