from .asserts import (
    NotReadable as NotReadable,
    read_test_code as read_test_code,
    split_asserts as split_asserts,
)
from .compare import matches_text as matches_text, matches_value as matches_value
from .extract import extract_program as extract_program
from .loading import has_tests as has_tests, load_tests as load_tests
from .row_values import BadTests as BadTests, LoadedTests as LoadedTests
from .types import (
    AssertTest as AssertTest,
    CallTest as CallTest,
    CodeOptions as CodeOptions,
    CodeTest as CodeTest,
    ObjectTest as ObjectTest,
    ProgramTest as ProgramTest,
    StdinTest as StdinTest,
    TestResult as TestResult,
    UnitTestFile as UnitTestFile,
)
from .verify import Submission as Submission, verify_code as verify_code, verify_programs as verify_programs
from .wire import NotPlainData as NotPlainData, decode as decode, encode as encode
