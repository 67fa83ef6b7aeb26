"""Grades programs by running them in the sandbox, without showing them the expected values."""

from verl_lite.verifiers.code.asserts import NotReadable, read_test_code, split_asserts
from verl_lite.verifiers.code.compare import matches_text, matches_value
from verl_lite.verifiers.code.extract import extract_program
from verl_lite.verifiers.code.loading import has_tests, load_tests
from verl_lite.verifiers.code.row_formats import BadTests, LoadedTests
from verl_lite.verifiers.code.types import (
    AssertTest,
    CallTest,
    CodeOptions,
    CodeTest,
    ObjectTest,
    StdinTest,
    TestResult,
    UnitTestFile,
)
from verl_lite.verifiers.code.verify import Submission, verify_code, verify_programs
from verl_lite.verifiers.code.wire import NotPlainData, decode, encode

__all__ = [
    "AssertTest",
    "BadTests",
    "CallTest",
    "CodeOptions",
    "CodeTest",
    "LoadedTests",
    "NotPlainData",
    "NotReadable",
    "ObjectTest",
    "StdinTest",
    "Submission",
    "TestResult",
    "UnitTestFile",
    "decode",
    "encode",
    "extract_program",
    "has_tests",
    "load_tests",
    "matches_text",
    "matches_value",
    "read_test_code",
    "split_asserts",
    "verify_code",
    "verify_programs",
]
