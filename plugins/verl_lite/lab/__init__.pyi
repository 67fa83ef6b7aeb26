from .attack import AttackReport as AttackReport, attack_rewards as attack_rewards
from .cache import (
    ScoreCache as ScoreCache,
    default_cache_path as default_cache_path,
    digest as digest,
    rollout_digest as rollout_digest,
)
from .check import (
    CheckOptions as CheckOptions,
    CheckReport as CheckReport,
    Finding as Finding,
    Level as Level,
    check_file as check_file,
)
from .diff import ComponentDiff as ComponentDiff, DiffReport as DiffReport, diff_groups as diff_groups
from .golden import (
    compare_golden as compare_golden,
    make_golden as make_golden,
    read_golden as read_golden,
    write_golden as write_golden,
)
from .reading import (
    Rollouts as Rollouts,
    Sources as Sources,
    group_records as group_records,
    open_rollouts as open_rollouts,
)
from .report import ReportOptions as ReportOptions, write_report as write_report
from .scoring import (
    ScoringOptions as ScoringOptions,
    open_scorer as open_scorer,
    primary_component as primary_component,
    score_file as score_file,
    score_groups as score_groups,
    without_breaker as without_breaker,
)
from .statistics import (
    CalibrationBin as CalibrationBin,
    Confusion as Confusion,
    calibration_bins as calibration_bins,
    calibration_error as calibration_error,
    cohen_kappa as cohen_kappa,
    group_advantages as group_advantages,
    mcnemar_exact as mcnemar_exact,
    mean_interval as mean_interval,
    pair_inversions as pair_inversions,
    pass_at_k as pass_at_k,
    quantile as quantile,
    wilson_interval as wilson_interval,
)
from .summary import Latencies as Latencies, ScoreSummary as ScoreSummary
