from .options import MathOptions as MathOptions
from .verify import (
    is_text_reference as is_text_reference,
    verify_math as verify_math,
    verify_math_batch as verify_math_batch,
    warm_up as warm_up,
)
