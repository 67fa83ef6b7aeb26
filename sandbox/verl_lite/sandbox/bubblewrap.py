"""The backend for other languages, and for Python where the native backend does not work: bubblewrap.

It isolates with the same namespaces and seccomp filter, without Landlock, and starts a cold
interpreter per run.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence

from verl_lite.errors import SandboxError
from verl_lite.sandbox import _rootfs, _seccomp
from verl_lite.sandbox._command_run import CommandRun, limited_command
from verl_lite.sandbox._program_files import memory_file, write_files
from verl_lite.sandbox._worker import clean_environment
from verl_lite.sandbox.backend import CancelToken, Request
from verl_lite.sandbox.languages import LANGUAGES, installed_languages
from verl_lite.sandbox.limits import Limits, Result, Status

_MB = 1 << 20
_FIRST_GIVEN_FD = 16  # files and the filter use descriptors above those of programs
_SYSTEM = ("/bin", "/lib", "/lib64", "/sbin", "/etc/alternatives", "/etc/ld.so.cache")
_UNUSED_UID = 999_999_999


class _CommandBackend:
    """Starts a command per run and keeps the runs in progress."""

    def __init__(self) -> None:
        self.languages = installed_languages()
        self._running: set[CommandRun] = set()

    def close(self) -> None:
        for run in list(self._running):
            run.stop()

    def _supervise(self, run: CommandRun, cancel_token: CancelToken) -> Result:
        self._running.add(run)
        try:
            cancel_token.attach(run.stop)
            return run.wait()
        except BaseException:  # the caller was interrupted: nothing of the run may continue
            run.stop()
            raise
        finally:
            cancel_token.detach()
            self._running.discard(run)


class BubblewrapBackend(_CommandBackend):
    """Starts `bwrap` per run."""

    name = "bubblewrap"
    isolated = True

    def __init__(self, *, read_only_paths: Sequence[str]) -> None:
        tools = ["bwrap", "prlimit", "sh"] + (["setpriv"] if os.geteuid() == 0 else [])
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if missing:
            raise SandboxError(
                f"not installed: {', '.join(missing)} (Debian: apt install bubblewrap util-linux)"
            )
        self._paths = [*_rootfs.python_paths(), *read_only_paths]
        if os.geteuid() == 0:  # the user we switch to must be able to read what is mounted
            self._paths = [path for path in self._paths if _visible_to_others(path)]
        self._filter = _seccomp.strict_filter()
        super().__init__()
        if not set(_rootfs.python_paths()) <= set(self._paths):
            self.languages -= {"python"}
        self._check()

    def run(self, request: Request) -> Result:
        language = LANGUAGES[request.language]
        contents = {**request.files, language.file: request.source}
        given = {
            memory_file(data): _FIRST_GIVEN_FD + i
            for i, data in enumerate([self._filter, *contents.values()])
        }
        numbers = dict(zip(contents, list(given.values())[1:], strict=True))
        command = self._command(request, numbers)
        return self._supervise(CommandRun(command, request, given), request.cancel_token)

    def _check(self) -> None:
        probe = Request("bash" if "bash" in self.languages else "python", b"", b"", {}, [], Limits())
        result = self.run(probe)
        if result.status is not Status.OK:
            reason = result.stderr.decode(errors="replace").strip() or result.message
            raise SandboxError(f"bubblewrap does not work here: {reason}")

    def _command(self, request: Request, files: dict[str, int]) -> list[str]:
        limits, work = request.limits, _rootfs.WORK_DIR
        other_user = ["--reuid", str(_UNUSED_UID), "--regid", str(_UNUSED_UID), "--clear-groups"]
        command = ["setpriv", *other_user] if os.geteuid() == 0 else []
        command += ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        command += ["--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--clearenv"]
        for name, value in clean_environment().items():
            command += ["--setenv", name, value]
        command += self._view()
        command += ["--size", str(limits.disk_mb * _MB), "--tmpfs", "/tmp", "--dir", work]
        for name, number in files.items():
            command += ["--file", str(number), f"{work}/{name}"]
        command += ["--remount-ro", "/", "--chdir", work, "--seccomp", str(_FIRST_GIVEN_FD), "--"]
        return command + limited_command(LANGUAGES[request.language], limits, request.args, extra_processes=3)

    def _view(self) -> list[str]:
        options = ["--ro-bind", "/usr", "/usr"]
        for path in _SYSTEM:
            if os.path.islink(path):
                options += ["--symlink", os.readlink(path), path]
            elif os.path.exists(path):
                options += ["--ro-bind", path, path]
        for path in self._paths:
            if not path.startswith("/usr/"):
                options += ["--ro-bind", path, path]
        return [*options, "--proc", "/proc", "--dev", "/dev"]


class UnsafeBackend(_CommandBackend):
    """No isolation, only the kernel's limits: for `unsafe=True` where nothing else works."""

    name = "unsafe"
    isolated = False

    def run(self, request: Request) -> Result:
        """Run one program in a temporary folder, with the rights of this process."""
        language = LANGUAGES[request.language]
        with tempfile.TemporaryDirectory(prefix="verl-lite-unsafe-") as folder:
            write_files({**request.files, language.file: request.source}, folder)
            limited = limited_command(language, request.limits, request.args, extra_processes=10_000)
            variables = [f"{k}={v}" for k, v in clean_environment().items() if k not in ("HOME", "PATH")]
            command = ["env", "-C", folder, f"HOME={folder}", *variables, *limited]
            return self._supervise(CommandRun(command, request, {}), request.cancel_token)


def _visible_to_others(path: str) -> bool:
    """Whether an unprivileged user can read `path`."""
    folders = [path]
    while folders[-1] != "/":
        folders.append(os.path.dirname(folders[-1]))
    return all(os.stat(folder).st_mode & 0o005 == 0o005 or os.path.isfile(folder) for folder in folders)
