"""How programs of each language are compiled and run."""

import shutil
from dataclasses import dataclass

from verl_lite.sandbox._rootfs import base_python


@dataclass(frozen=True, slots=True)
class Language:
    """`compile` and `run` are commands in the working directory. `reserves_memory`: the runtime maps
    far more address space than it uses, so RLIMIT_DATA applies instead of RLIMIT_AS.
    """

    name: str
    tool: str
    file: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    reserves_memory: bool = False


_C_FLAGS = ("-O2", "-o", "program")
LANGUAGES = {
    language.name: language
    for language in (
        Language("python", base_python(), "main.py", (base_python(), "-s", "-S", "main.py")),
        Language("bash", "bash", "main.sh", ("bash", "main.sh")),
        Language("c", "gcc", "main.c", ("./program",), ("gcc", *_C_FLAGS, "main.c", "-lm")),
        Language("cpp", "g++", "main.cpp", ("./program",), ("g++", "-std=c++17", *_C_FLAGS, "main.cpp")),
        Language("javascript", "node", "main.js", ("node", "main.js"), reserves_memory=True),
    )
}


def installed_languages() -> frozenset[str]:
    """The names of the languages whose compiler or interpreter is on the PATH."""
    return frozenset(name for name, language in LANGUAGES.items() if shutil.which(language.tool))
