"""Grade programs by running them: the tests' expected values never enter the program's process."""

from verl_lite.verifiers.code.extract import extract_program
from verl_lite.verifiers.code.row_formats import BadTests, LoadedTests, has_tests, load_tests
from verl_lite.verifiers.code.types import (
    AssertTest,
    CallTest,
    CodeOptions,
    CodeTest,
    ObjectTest,
    StdinTest,
    UnitTestFile,
)
from verl_lite.verifiers.code.verify import Submission, verify_code, verify_programs

__all__ = [
    "AssertTest",
    "BadTests",
    "CallTest",
    "CodeOptions",
    "CodeTest",
    "LoadedTests",
    "ObjectTest",
    "StdinTest",
    "Submission",
    "UnitTestFile",
    "extract_program",
    "has_tests",
    "load_tests",
    "verify_code",
    "verify_programs",
]
