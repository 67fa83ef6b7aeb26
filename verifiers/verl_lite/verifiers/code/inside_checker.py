"""Runs inside the sandbox, after the program has ended: the data set's checker of an output."""

import os

from verl_lite.verifiers.code.inside_program import read_request, send_reply


def main() -> None:
    request = read_request()
    namespace: dict[str, object] = {"__name__": "checker"}
    try:
        exec(compile(request["checker"], "<checker>", "exec"), namespace)
        check = namespace["check"]
    except BaseException as error:  # noqa: BLE001  whatever it raises, the checker is broken
        send_reply({"status": "not_ready", "message": f"{type(error).__name__}: {error}"})
        os._exit(0)
    try:
        answer = check(request["stdin"], request["output"], request["expected"])  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001  an output it cannot read is wrong; so is one it exits on
        send_reply(
            {"status": "failed", "message": f"the checker raised {type(error).__name__}: {error}"[:500]}
        )
    else:
        if type(answer) is bool:
            send_reply({"status": "passed" if answer else "failed", "message": ""})
        else:
            send_reply(
                {"status": "not_ready", "message": f"check() returned {type(answer).__name__}, not bool"}
            )
    os._exit(0)


if __name__ == "__main__":
    main()
