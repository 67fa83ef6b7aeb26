"""The backend for other languages, and for Python where the native backend does not work: bubblewrap.

It isolates with the same namespaces and seccomp filter, without Landlock, and starts a cold
interpreter per run.
"""

import glob
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verl_lite.errors import SandboxError
from verl_lite.sandbox import _rootfs, _seccomp
from verl_lite.sandbox._command_run import Command, CommandRun
from verl_lite.sandbox._compiled_programs import Compiled, CompiledPrograms, compiled, compiler_limits
from verl_lite.sandbox._memory_file import memory_file
from verl_lite.sandbox._program_files import write_files
from verl_lite.sandbox._worker import clean_environment
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.languages import (
    LANGUAGES,
    Toolchain,
    find_toolchain,
    installed_languages,
    visible_to_others,
)
from verl_lite.sandbox.limits import REPLY_FD, Limits, Result, Status

_MB = 1 << 20
_FIRST_GIVEN_FD = 16  # files and the filter use descriptors above those of programs
_SYSTEM = (
    *("/bin", "/lib", "/lib64", "/sbin", "/etc/alternatives", "/etc/ld.so.cache"),
    *sorted(glob.glob("/etc/java-*-openjdk")),  # Debian keeps a part of Java there
)
_UNUSED_UID = 999_999_999
_LAUNCHERS = 1  # bubblewrap's init, which the kernel counts with the run's processes


class CommandBackend:
    """Compiles a program once, starts a command per run, and keeps the runs in progress."""

    tmp = "/tmp"  # where the meter finds their files

    def __init__(self) -> None:
        self.languages = installed_languages()
        self._running: set[CommandRun] = set()
        self._programs = CompiledPrograms(self._compile)

    def run(self, request: Request) -> Result:
        language = LANGUAGES[request.language]
        files = {**request.files, language.file_of(request.source): request.source}
        made: Mapping[str, bytes] = {}
        if language.compile:
            program = self._programs.get(request)
            if program.result.status is not Status.OK:
                return program.result
            made = program.files
        command = Command(
            words=[*self._words(language.run, request), *request.args],
            limits=request.limits,
            reserves_memory=language.reserves_memory,
            extra_processes=language.own_threads,
            made=list(made),
        )
        return self._start(command, request, {**files, **made}, request.stdin_descriptor())

    def compile(self, request: Request) -> Result:
        """Compile a program, or do nothing for a language that is not compiled."""
        if not LANGUAGES[request.language].compile:
            return Result(status=Status.OK)
        return self._programs.get(request).result

    def close(self) -> None:
        for run in list(self._running):
            run.stop()

    def _compile(self, request: Request) -> Compiled:
        language = LANGUAGES[request.language]
        limits = compiler_limits(request.limits, time_factor=language.compile_time_factor)
        compiler = shlex.join(self._words(language.compile, request))
        keep = f"tar -cf - {' '.join(language.keep)} >&{REPLY_FD}"
        command = Command(
            words=["sh", "-c", f"{compiler} >&2 && {keep}"],
            limits=limits,
            reserves_memory=language.compiler_reserves_memory,
            extra_processes=language.own_threads,
        )
        files = {**request.files, language.file_of(request.source): request.source}
        return compiled(self._start(command, request, files, memory_file(b"")), request.limits)

    def _words(self, command: Sequence[str], request: Request) -> list[str]:
        tools = find_toolchain(request.language).tools
        words = LANGUAGES[request.language].words(tuple(command), request.source, request.limits.memory_mb)
        return [tools.get(word, word) for word in words]

    def _start(self, command: Command, request: Request, files: Mapping[str, bytes], stdin: int) -> Result:
        raise NotImplementedError

    def _supervise(self, run: CommandRun, request: Request) -> Result:
        self._running.add(run)
        try:
            request.cancel_token.attach(run.stop)
            return run.wait()
        except BaseException:  # the caller was interrupted: nothing of the run may continue
            run.stop()
            raise
        finally:
            request.cancel_token.detach()
            self._running.discard(run)


class BubblewrapBackend(CommandBackend):
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
            self._paths = [path for path in self._paths if visible_to_others(path)]
        self._filter = _seccomp.strict_filter()
        super().__init__()
        if not set(_rootfs.python_paths()) <= set(self._paths):
            self.languages -= {"python"}
        self._check()

    def _start(self, command: Command, request: Request, files: Mapping[str, bytes], stdin: int) -> Result:
        contents = [self._filter, *files.values()]
        given = {memory_file(data): _FIRST_GIVEN_FD + i for i, data in enumerate(contents)}
        numbers = dict(zip(files, list(given.values())[1:], strict=True))
        words = self._command(command, request.language, numbers)
        run = CommandRun(words, limits=command.limits, stdin=stdin, given=given, tmp=self.tmp)
        return self._supervise(run, request)

    def _check(self) -> None:
        probe = Request("bash" if "bash" in self.languages else "python", b"", b"", {}, [], Limits())
        result = self.run(probe)
        if result.status is not Status.OK:
            reason = result.stderr.decode(errors="replace").strip() or result.message
            raise SandboxError(f"bubblewrap does not work here: {reason}")

    def _command(self, command: Command, language: str, files: Mapping[str, int]) -> list[str]:
        work = _rootfs.WORK_DIR
        other_user = ["--reuid", str(_UNUSED_UID), "--regid", str(_UNUSED_UID), "--clear-groups"]
        words = [_full_path("setpriv"), *other_user] if os.geteuid() == 0 else []
        words += [_full_path("bwrap"), "--unshare-all", "--die-with-parent", "--new-session"]
        words += ["--cap-drop", "ALL"]
        words += ["--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--clearenv"]
        for name, value in {**clean_environment(), **LANGUAGES[language].environment}.items():
            words += ["--setenv", name, value]
        words += self._view(find_toolchain(language))
        words += ["--size", str(command.limits.disk_mb * _MB), "--tmpfs", "/tmp", "--dir", work]
        words += ["--dir", "/tmp/.shm"]
        for name, number in files.items():
            words += ["--file", str(number), f"{work}/{name}"]
        words += ["--remount-ro", "/", "--chdir", work, "--seccomp", str(_FIRST_GIVEN_FD), "--"]
        return words + replace(command, extra_processes=command.extra_processes + _LAUNCHERS).shell_command()

    def _view(self, toolchain: Toolchain) -> list[str]:
        options = ["--ro-bind", "/usr", "/usr"]
        for path in _SYSTEM:
            if os.path.islink(path):
                options += ["--symlink", os.readlink(path), path]
            elif os.path.exists(path):
                options += ["--ro-bind", path, path]
        for path in [*self._paths, *toolchain.folders]:
            if not path.startswith("/usr/"):
                options += ["--ro-bind", path, path]
        options += ["--proc", "/proc"]
        # Not --dev: that is a file system of its own, which a run could fill.
        for name, device in _rootfs.DEVICES.items():
            options += ["--dev-bind", f"/dev/{device}", f"/dev/{name}"]
        for name, target in _rootfs.DEVICE_LINKS.items():
            options += ["--symlink", target, f"/dev/{name}"]
        return options


def _full_path(tool: str) -> str:
    return shutil.which(tool) or tool


class UnsafeBackend(CommandBackend):
    """No isolation, only the kernel's limits: for `unsafe=True` where nothing else works."""

    name = "unsafe"
    isolated = False

    def _start(self, command: Command, request: Request, files: Mapping[str, bytes], stdin: int) -> Result:
        with tempfile.TemporaryDirectory(prefix="verl-lite-unsafe-") as folder:
            write_files(files, folder)
            limited = replace(command, extra_processes=10_000).shell_command()
            environment = {**clean_environment(), **LANGUAGES[request.language].environment}
            variables = [f"{k}={v}" for k, v in environment.items() if k not in ("HOME", "PATH")]
            words = ["env", "-C", folder, f"HOME={folder}", *variables, *limited]
            run = CommandRun(words, limits=command.limits, stdin=stdin, given={}, tmp=folder)
            return self._supervise(run, request)
