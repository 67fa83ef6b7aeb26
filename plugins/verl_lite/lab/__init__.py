"""The offline tools over rollout records: score, diff, check, attack, report. No torch.

Names are imported when they are first used; the other rooms are `authoring`, `formats` and `preferences`.
"""

from typing import TYPE_CHECKING

from verl_lite.lazy import lazy_exports

if TYPE_CHECKING:
    from verl_lite.lab.attack import AttackReport, attack_rewards
    from verl_lite.lab.cache import ScoreCache, default_cache_path, digest, rollout_digest
    from verl_lite.lab.check import CheckOptions, CheckReport, Finding, Level, check_file
    from verl_lite.lab.diff import ComponentDiff, DiffReport, diff_records
    from verl_lite.lab.golden import compare_golden, make_golden, read_golden, write_golden
    from verl_lite.lab.report import ReportOptions, write_report
    from verl_lite.lab.scoring import (
        ScoringOptions,
        open_scorer,
        primary_component,
        score_file,
        score_records,
        without_breaker,
    )
    from verl_lite.lab.statistics import (
        CalibrationBin,
        Confusion,
        calibration_bins,
        calibration_error,
        cohen_kappa,
        group_advantages,
        mcnemar_exact,
        mean_interval,
        pair_inversions,
        pass_at_k,
        quantile,
        wilson_interval,
    )
    from verl_lite.lab.summary import Latencies, ScoreSummary
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".attack": ("AttackReport", "attack_rewards"),
            ".cache": ("ScoreCache", "default_cache_path", "digest", "rollout_digest"),
            ".check": ("CheckOptions", "CheckReport", "Finding", "Level", "check_file"),
            ".diff": ("ComponentDiff", "DiffReport", "diff_records"),
            ".golden": ("compare_golden", "make_golden", "read_golden", "write_golden"),
            ".report": ("ReportOptions", "write_report"),
            ".scoring": (
                "ScoringOptions",
                "open_scorer",
                "primary_component",
                "score_file",
                "score_records",
                "without_breaker",
            ),
            ".statistics": (
                "CalibrationBin",
                "Confusion",
                "calibration_bins",
                "calibration_error",
                "cohen_kappa",
                "group_advantages",
                "mcnemar_exact",
                "mean_interval",
                "pair_inversions",
                "pass_at_k",
                "quantile",
                "wilson_interval",
            ),
            ".summary": ("Latencies", "ScoreSummary"),
        },
    )

__all__ = [
    "AttackReport",
    "CalibrationBin",
    "CheckOptions",
    "CheckReport",
    "ComponentDiff",
    "Confusion",
    "DiffReport",
    "Finding",
    "Latencies",
    "Level",
    "ReportOptions",
    "ScoreCache",
    "ScoreSummary",
    "ScoringOptions",
    "attack_rewards",
    "calibration_bins",
    "calibration_error",
    "check_file",
    "cohen_kappa",
    "compare_golden",
    "default_cache_path",
    "diff_records",
    "digest",
    "group_advantages",
    "make_golden",
    "mcnemar_exact",
    "mean_interval",
    "open_scorer",
    "pair_inversions",
    "pass_at_k",
    "primary_component",
    "quantile",
    "read_golden",
    "rollout_digest",
    "score_file",
    "score_records",
    "wilson_interval",
    "without_breaker",
    "write_golden",
    "write_report",
]
