"""`Sandbox`: runs untrusted programs; thread-safe."""

import ast
import os
import socket
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Self

from verl_lite.errors import SandboxError
from verl_lite.sandbox.backend import Backend, Request, RunFuture
from verl_lite.sandbox.bubblewrap import BubblewrapBackend, CommandBackend, UnsafeBackend
from verl_lite.sandbox.languages import why_missing
from verl_lite.sandbox.libraries import find_libraries, missing_modules
from verl_lite.sandbox.limits import Limits, Result, Status
from verl_lite.sandbox.native import LandlockBackend, NativeBackend
from verl_lite.sandbox.remote import RemoteBackend
from verl_lite.sandbox.served import SandboxServer, ServedBackend
from verl_lite.sandbox.session import SandboxSession

TOKEN_VARIABLE = "VERL_LITE_SANDBOX_TOKEN"
_DEFAULT_LIMITS = Limits()
_NO_FILES: Mapping[str, bytes] = {}


class UnsafeSandboxWarning(RuntimeWarning):
    """Programs run without isolation, with the rights of this process: `unsafe=True` was given."""


class Sandbox:
    """Runs each program in its own process, namespaces and file system.

    `workers` is how many programs run at once, by default one per core. `backend` is "auto" (native,
    or bubblewrap where that does not work), "native", "bubblewrap", "landlock" (without namespaces,
    which isolates less: see docs/sandbox.md) or the URL of a SandboxFusion service. `read_only_paths` are
    host folders that programs may read, such as a site-packages with numpy; each is added to Python's
    module path. `libraries` are packages of this environment that the native backend imports once, before
    any program ("numpy", or a set such as "science", see `LIBRARY_SETS`); their folder is readable too.
    `network_per_run` gives each run its own network
    namespace instead of one per worker. Where programs cannot be isolated, raises SandboxError naming
    what is missing; with `unsafe=True` it warns and runs them without isolation.

    >>> with Sandbox(workers=1) as sandbox:
    ...     sandbox.run_python("print(int(input()) + 1)", stdin="41").stdout
    b'42\\n'
    """

    def __init__(
        self,
        workers: int | None = None,
        backend: str = "auto",
        unsafe: bool = False,
        *,
        read_only_paths: Sequence[str] = (),
        libraries: Sequence[str] = (),
        network_per_run: bool = False,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: expected at least 1, or None for one per core")
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._modules, folders = find_libraries(libraries)
        self._paths = _checked_paths([*read_only_paths, *folders])
        self._network_per_run = network_per_run
        self._backend = self._choose(backend, unsafe)
        self._others: Backend | None = None
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._threads_pid = os.getpid()
        self._futures: set[RunFuture] = set()
        self._closed = False

    @property
    def backend(self) -> str:
        """What runs Python programs: native, bubblewrap, landlock, remote, served or unsafe."""
        return self._backend.name

    def run_python(
        self,
        source: str,
        *,
        stdin: bytes | str = b"",
        files: Mapping[str, bytes] = _NO_FILES,
        args: Sequence[str] = (),
        limits: Limits = _DEFAULT_LIMITS,
    ) -> Result:
        """Run `source` as `python main.py` would and wait for its end.

        `files` maps paths relative to the working directory to contents. Raises TypeError or
        ValueError for arguments that cannot be used, SandboxError when this Sandbox is closed. A
        fault of the sandbox during the run is a result with status `sandbox_error`.
        """
        return self._run(_request("python", source, stdin, files, args, limits))

    def submit_python(
        self,
        source: str,
        *,
        stdin: bytes | str = b"",
        files: Mapping[str, bytes] = _NO_FILES,
        args: Sequence[str] = (),
        limits: Limits = _DEFAULT_LIMITS,
    ) -> RunFuture:
        """Like `run_python`, but returns at once. Cancelling the future stops the run."""
        return self._submit(_request("python", source, stdin, files, args, limits))

    def run(
        self,
        language: str,
        source: str,
        *,
        stdin: bytes | str = b"",
        files: Mapping[str, bytes] = _NO_FILES,
        args: Sequence[str] = (),
        limits: Limits = _DEFAULT_LIMITS,
    ) -> Result:
        """Like `run_python` for a program in `language`: python, bash, c, cpp, go, java, javascript, rust or
        typescript. A program is compiled once, however often it is run.

        Raises SandboxError where the language's tools, or bubblewrap, are not installed.
        """
        return self._run(_request(language, source, stdin, files, args, limits))

    def open_python(self, source: str, *, limits: Limits = _DEFAULT_LIMITS) -> SandboxSession:
        """Start `source`, which answers requests on descriptor 0 (a socket), see SandboxSession.

        It occupies a worker until the session is closed, and waits while all are busy. `limits` are those
        of the whole session. Raises as `run_python` does, and SandboxError for a service.
        """
        if isinstance(self._backend, (RemoteBackend, ServedBackend)):
            raise SandboxError(
                f"the service at {self._backend.url} runs programs, and keeps none: use this machine"
            )
        ours, theirs = socket.socketpair()
        request = replace(_request("python", source, b"", _NO_FILES, (), limits), channel=theirs)
        try:
            future = self._submit(request)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        future.add_done_callback(lambda _: theirs.close())  # one that never started
        return SandboxSession(ours, future)

    def missing_modules(self, source: str) -> list[str]:
        """The modules that Python program `source` imports and this sandbox does not have.

        Read from the text: [] for a program that is no Python, and for a remote service, which is not known.
        """
        if isinstance(self._backend, (RemoteBackend, ServedBackend)):
            return []
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        imported: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.append(node.module)
        return missing_modules(imported, self._paths)

    def compile(
        self,
        language: str,
        source: str,
        *,
        files: Mapping[str, bytes] = _NO_FILES,
        limits: Limits = _DEFAULT_LIMITS,
    ) -> Result:
        """Compile `source` now, so that later runs of it start at once; the compiler's result.

        Runs compile too, once per program: this only says earlier whether it compiles. A language that is
        not compiled is `ok`. Raises as `run` does.
        """
        request = _request(language, source, b"", files, (), limits)
        backend = self._backend_for(language)
        return backend.compile(request) if isinstance(backend, CommandBackend) else Result(status=Status.OK)

    def close(self) -> None:
        """Kill every run and end the sandbox's processes. Runs in progress end as `killed`."""
        with self._lock:
            self._closed = True
            backends = [self._backend] + ([self._others] if self._others else [])
        for future in list(self._futures):
            future.cancel()
        for backend in backends:
            backend.close()
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, request: Request) -> Result:
        if self._closed:
            raise SandboxError("this Sandbox is closed: open another one")
        if request.cancel_token.cancelled:
            return Result(status=Status.KILLED, message="cancelled by the caller")
        return self._backend_for(request.language).run(request)

    def _submit(self, request: Request) -> RunFuture:
        with self._lock:
            if self._closed:
                raise SandboxError("this Sandbox is closed: open another one")
            if self._threads is None or self._threads_pid != os.getpid():  # threads do not survive a fork
                self._threads = ThreadPoolExecutor(self._num_workers, "verl-lite-sandbox")
                self._threads_pid = os.getpid()
        future = RunFuture()
        future.cancel_token = request.cancel_token
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        self._threads.submit(self._resolve, future, request)
        return future

    def _resolve(self, future: RunFuture, request: Request) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._run(request))
        except BaseException as error:  # noqa: BLE001 - the sandbox's edge: raised to the waiter
            future.set_exception(error)

    def _choose(self, backend: str, unsafe: bool) -> Backend:
        if backend.startswith(("verl+http://", "verl+https://")):
            return ServedBackend(backend, os.environ.get(TOKEN_VARIABLE, ""))
        if backend.startswith(("http://", "https://")):
            return RemoteBackend(backend)
        if backend not in ("auto", "native", "bubblewrap", "landlock"):
            raise SandboxError(
                f"backend={backend!r}: expected auto, native, bubblewrap, landlock, verl+http://HOST:PORT "
                "(verl-lite sandbox serve) or a SandboxFusion service's URL"
            )
        reasons = []
        for name in ("native", "bubblewrap") if backend == "auto" else (backend,):
            try:
                return self._local(name)
            except SandboxError as error:
                reasons.append(f"{name}: {error}")
        if not unsafe:
            raise SandboxError(
                "cannot isolate programs here: "
                + "; ".join(reasons)
                + ". See `verl-lite doctor`"
                + " (backend: landlock needs no namespaces, and isolates less)" * (backend != "landlock")
            )
        text = "running programs WITHOUT isolation, with the rights of this process: " + "; ".join(reasons)
        warnings.warn(text, UnsafeSandboxWarning, stacklevel=4)
        return UnsafeBackend()

    def _local(self, name: str) -> Backend:
        if name == "bubblewrap":
            return BubblewrapBackend(read_only_paths=self._paths)
        if name == "landlock" and self._network_per_run:
            raise SandboxError(
                "network_per_run needs network namespaces: leave it out with backend='landlock'"
            )
        return (LandlockBackend if name == "landlock" else NativeBackend)(
            self._num_workers,
            read_only_paths=self._paths,
            libraries=self._modules,
            network_per_run=self._network_per_run,
        )

    def _backend_for(self, language: str) -> Backend:
        if language in self._backend.languages:
            return self._backend
        # with a service chosen, nothing may run on this machine
        if isinstance(self._backend, (RemoteBackend, ServedBackend)):
            known = ", ".join(sorted(self._backend.languages))
            raise SandboxError(
                f"the service at {self._backend.url} does not run {language!r}: it runs {known}"
            )
        with self._lock:
            if self._others is None:
                self._others = self._local("bubblewrap")
        if language not in self._others.languages:
            known = ", ".join(sorted(self._backend.languages | self._others.languages))
            raise SandboxError(
                f"no tools for language {language!r} here ({why_missing(language)}): installed are {known}"
            )
        return self._others


def serve_sandbox(
    sandbox: Sandbox,
    *,
    token: str,
    host: str = "127.0.0.1",
    port: int = 8090,
    most: Limits,
    max_waiting: int = 512,
) -> SandboxServer:
    """An HTTP server, listening, that runs programs of its clients in `sandbox`; start its `serve_forever`.

    No limit of a request exceeds `most`; more than `max_waiting` requests at once are told to try again.
    Raises ValueError for a token shorter than 16 characters.
    """
    if len(token) < 16:
        raise ValueError(
            f"token: {len(token)} characters: expected at least 16; it is all that protects this"
        )
    return SandboxServer((host, port), sandbox._run, token=token, most=most, max_waiting=max_waiting)


def _checked_paths(paths: Sequence[str]) -> list[str]:
    """The real paths of the folders to mount; a run's private /tmp would hide one below /tmp."""
    real = [os.path.realpath(path) for path in paths]
    for path in real:
        if not os.path.isdir(path):
            raise SandboxError(f"read_only_paths: {path!r} is not a folder")
        if path == "/" or path == "/tmp" or path.startswith(("/tmp/", "/proc", "/dev")):
            raise SandboxError(f"read_only_paths: {path!r}: /, /tmp, /proc and /dev cannot be mounted")
    return real


def _request(
    language: str,
    source: str,
    stdin: bytes | str,
    files: Mapping[str, bytes],
    args: Sequence[str],
    limits: Limits,
) -> Request:
    if not isinstance(source, str):
        raise TypeError(f"source: expected text, got {type(source).__name__}")
    if not isinstance(stdin, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"stdin: expected bytes or text, got {type(stdin).__name__}")
    if isinstance(args, str):
        raise TypeError(f"args: expected a list of arguments, got the text {args!r:.60}")
    # surrogatepass: a model's text may hold lone surrogates; Python then reports a syntax error
    given = stdin.encode("utf-8", "surrogatepass") if isinstance(stdin, str) else bytes(stdin)
    return Request(language, source.encode("utf-8", "surrogatepass"), given, dict(files), list(args), limits)
