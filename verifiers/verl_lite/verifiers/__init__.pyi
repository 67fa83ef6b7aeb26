from .answer_marks import AnswerMark as AnswerMark, find_boxed as find_boxed, find_tagged as find_tagged
from .code import (
    CodeOptions as CodeOptions,
    CodeTest as CodeTest,
    load_tests as load_tests,
    verify_code as verify_code,
)
from .format import (
    FormatPattern as FormatPattern,
    FormatShape as FormatShape,
    format_problem as format_problem,
    verify_format as verify_format,
)
from .instructions import (
    INSTRUCTION_KINDS as INSTRUCTION_KINDS,
    InstructionResult as InstructionResult,
    detect_language as detect_language,
    verify_instructions as verify_instructions,
)
from .math import (
    MathOptions as MathOptions,
    is_text_reference as is_text_reference,
    verify_math as verify_math,
    verify_math_batch as verify_math_batch,
)
from .verdict import Outcome as Outcome, Verdict as Verdict
