from .diagnosis import (
    Advice as Advice,
    Diagnosis as Diagnosis,
    diagnose as diagnose,
    recommend as recommend,
    summarise as summarise,
)
from .export import export_policy as export_policy
from .pipeline import PipelineConfig as PipelineConfig, run_pipeline as run_pipeline
from .sampling import Sampled as Sampled, write_rollouts as write_rollouts
