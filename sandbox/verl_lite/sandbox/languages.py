"""How programs of each language are compiled and run, and where this machine has the tools for it."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from verl_lite.sandbox._rootfs import base_python


@dataclass(frozen=True, slots=True)
class Language:
    """`compile` and `run` are commands in the working directory; their words may hold `{main}`, the name of
    the main class, and `{memory_mb}`, the limit of a run. `tools` are programs on the PATH; where a command
    names one, its full path is used. `keep` are the files that a compilation makes, as shell patterns.
    `reserves_memory`: the runtime (`compiler_reserves_memory`: the compiler) maps far more address space
    than it uses, so RLIMIT_DATA applies instead of RLIMIT_AS. `own_threads` are those of the runtime.
    `compile_time_factor` multiplies `Limits.compile_wall_s`.
    """

    name: str
    tools: tuple[str, ...]
    file: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    reserves_memory: bool = False
    compiler_reserves_memory: bool = False
    own_threads: int = 0
    compile_time_factor: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def words(self, command: tuple[str, ...], source: bytes, memory_mb: int) -> list[str]:
        main = _main_class(source) if self.name == "java" else ""
        return [word.replace("{main}", main).replace("{memory_mb}", str(memory_mb)) for word in command]

    def file_of(self, source: bytes) -> str:
        """The name of the file that `source` is compiled from; Java's follows its public class."""
        return self.file.replace("{main}", _main_class(source) if self.name == "java" else "")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The tools of a language on this machine: their paths, and the folders outside /usr they need."""

    tools: Mapping[str, str]
    folders: tuple[str, ...]


class ToolchainMissing(Exception):
    """This machine cannot run the language; the message says why and what to do."""


_CLASS = re.compile(rb"^[^\S\n]*(public\s+)?(?:(?:final|abstract|strictfp)\s+)*class\s+(\w+)", re.MULTILINE)
_MAIN = re.compile(rb"\bstatic\s+(?:final\s+)?void\s+main\s*\(")
_C_FLAGS = ("-O2", "-o", "program")
# Types are removed, not checked: a reward runs programs, and checking takes seconds.
_STRIP_TYPES = (
    'const ts=require(process.argv[1]),fs=require("fs");const o={compilerOptions:{target:"es2022",'
    'module:"commonjs",esModuleInterop:true},reportDiagnostics:true};'
    'const r=ts.transpileModule(fs.readFileSync("main.ts","utf8"),o);'
    'for(const d of r.diagnostics)console.error(ts.flattenDiagnosticMessageText(d.messageText,"\\n"));'
    'fs.writeFileSync("main.js",r.outputText);process.exit(r.diagnostics.length?1:0)'
)
LANGUAGES = {
    language.name: language
    for language in (
        Language("python", (base_python(),), "main.py", (base_python(), "-s", "-S", "main.py")),
        Language("bash", ("bash",), "main.sh", ("bash", "main.sh")),
        Language("c", ("gcc",), "main.c", ("./program",), ("gcc", *_C_FLAGS, "main.c", "-lm"), ("program",)),
        Language(
            "cpp",
            ("g++",),
            "main.cpp",
            ("./program",),
            ("g++", "-std=c++17", *_C_FLAGS, "main.cpp"),
            ("program",),
        ),
        Language(
            "go",
            ("go",),
            "main.go",
            ("./program",),
            ("go", "build", "-o", "program", "main.go"),
            ("program",),
            reserves_memory=True,
            compiler_reserves_memory=True,
            own_threads=16,
            compile_time_factor=4,  # it compiles the standard library too, each time
            environment={"CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": "-p=2", "GOTOOLCHAIN": "local"},
        ),
        Language(
            "java",
            ("javac", "java"),
            "{main}.java",
            (
                *("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto"),
                *("-Xss64m", "-Xmx{memory_mb}m", "-cp", ".", "{main}"),
            ),
            ("javac", "-J-XX:+UseSerialGC", "-J-XX:-UsePerfData", "-encoding", "UTF-8", "{main}.java"),
            ("*.class",),
            reserves_memory=True,
            compiler_reserves_memory=True,
            own_threads=24,
        ),
        Language(
            "javascript", ("node",), "main.js", ("node", "main.js"), reserves_memory=True, own_threads=12
        ),
        Language(
            "rust",
            ("rustc", "cc"),
            "main.rs",
            ("./program",),
            ("rustc", "--edition=2021", "-O", "-C", "linker=cc", "-o", "program", "main.rs"),
            ("program",),
            compiler_reserves_memory=True,
        ),
        Language(
            "typescript",
            ("node", "tsc"),
            "main.ts",
            ("node", "main.js"),
            ("node", "-e", _STRIP_TYPES, "tsc"),
            ("main.js",),
            reserves_memory=True,
            compiler_reserves_memory=True,
            own_threads=12,
        ),
    )
}


def _main_class(source: bytes) -> str:
    """The class of a Java program that `java` starts: the public one, else the one around `main`."""
    classes = [(match.start(), match[2], match[1]) for match in _CLASS.finditer(source)]
    public = [name for _, name, is_public in classes if is_public]
    main = _MAIN.search(source)
    before = [name for at, name, _ in classes if main is not None and at < main.start()]
    names = public or before[:1] or [name for _, name, _ in classes] or [b"Main"]
    return names[0].decode()


@functools.cache
def find_toolchain(name: str) -> Toolchain:
    """The tools of language `name`. Raises ToolchainMissing."""
    tools, folders = {}, []
    for tool in LANGUAGES[name].tools:
        path = shutil.which(tool)
        if path is None:
            raise ToolchainMissing(f"no {tool} on the PATH")
        path = os.path.realpath(path)
        if os.path.basename(path) == "rustup":
            path = _behind_rustup(tool)
        folder = _installation(path)
        if folder:
            folders.append(folder)
            if os.geteuid() == 0 and not visible_to_others(folder):
                raise ToolchainMissing(
                    f"{path} cannot be read by the user that runs have: install {tool} below /usr, or open "
                    "the folders above it to others"
                )
        tools[tool] = _typescript(path) if tool == "tsc" else path
    return Toolchain(tools, tuple(dict.fromkeys(folders)))


def visible_to_others(path: str) -> bool:
    """Whether an unprivileged user can read `path`."""
    folders = [path]
    while folders[-1] != "/":
        folders.append(os.path.dirname(folders[-1]))
    return all(os.stat(folder).st_mode & 0o005 == 0o005 or os.path.isfile(folder) for folder in folders)


def _installation(path: str) -> str:
    """The folder to mount for the tool at `path`; "" below /usr, which always is."""
    if path.startswith(("/usr/", "/bin/", "/lib")) or path == base_python():
        return ""
    folder = os.path.dirname(path)
    return os.path.dirname(folder) if os.path.basename(folder) == "bin" else folder


def _behind_rustup(tool: str) -> str:
    """rustup's commands choose among several installations when they run, which needs its home folder."""
    try:
        found = subprocess.run([tool, "--print", "sysroot"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolchainMissing(f"{tool} is rustup's, and it has no toolchain: {error}") from error
    return os.path.join(found.stdout.strip(), "bin", tool)


def _typescript(tsc: str) -> str:
    library = os.path.join(os.path.dirname(os.path.dirname(tsc)), "lib", "typescript.js")
    if not os.path.exists(library):
        raise ToolchainMissing(f"no {library}: TypeScript 7 has none, `npm install typescript@5`")
    return library


def why_missing(name: str) -> str:
    """Why this machine cannot run language `name`."""
    if name not in LANGUAGES:
        return f"known are {', '.join(LANGUAGES)}"
    try:
        find_toolchain(name)
    except ToolchainMissing as error:
        return str(error)
    return f"{LANGUAGES[name].tools[0]} cannot be executed by the user that runs have"


def installed_languages() -> frozenset[str]:
    """The names of the languages whose tools this machine has."""
    found = []
    for name in LANGUAGES:
        try:
            find_toolchain(name)
            found.append(name)
        except ToolchainMissing:
            continue
    return frozenset(found)
