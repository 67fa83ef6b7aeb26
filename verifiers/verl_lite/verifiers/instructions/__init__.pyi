from .language import detect_language as detect_language
from .verify import (
    INSTRUCTION_KINDS as INSTRUCTION_KINDS,
    InstructionResult as InstructionResult,
    verify_instructions as verify_instructions,
)
