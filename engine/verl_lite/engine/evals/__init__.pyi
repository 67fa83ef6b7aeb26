from .compare import Comparison as Comparison, compare_results as compare_results
from .config import (
    EvalConfig as EvalConfig,
    load_eval_config as load_eval_config,
    training_config as training_config,
)
from .evaluate import (
    RESULTS as RESULTS,
    EvalResult as EvalResult,
    evaluate_model as evaluate_model,
    read_result as read_result,
)
from .measures import (
    Measure as Measure,
    PromptResult as PromptResult,
    majority_share as majority_share,
    measure_greedy as measure_greedy,
    measure_samples as measure_samples,
)
