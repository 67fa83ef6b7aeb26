from .engine_actor import EngineActor as EngineActor
from .engine_pool import EngineLost as EngineLost, EnginePool as EnginePool, PoolLimits as PoolLimits
from .gpu_transfer import (
    EngineClient as EngineClient,
    WeightSender as WeightSender,
    weight_source as weight_source,
)
from .launch import check_launch as check_launch, launched_rank as launched_rank
from .learner_group import LearnerGroup as LearnerGroup
from .nodes import (
    NodeReport as NodeReport,
    inspect_cluster as inspect_cluster,
    version_mismatches as version_mismatches,
    write_probe_file as write_probe_file,
)
from .rank_group import RankGroup as RankGroup
from .rank_worker import LearnerSpec as LearnerSpec
from .ray_engine import RayEngine as RayEngine
from .ray_ranks import (
    RankActor as RankActor,
    RayRanks as RayRanks,
    reserve_placement_group as reserve_placement_group,
)
from .ray_runtime import SLOW as SLOW, TERMINATED as TERMINATED, RayRuntime as RayRuntime
from .ray_sampler import RaySampler as RaySampler
from .resources import (
    ResourceRequest as ResourceRequest,
    check_capacity as check_capacity,
    engine_resources as engine_resources,
    resource_requests as resource_requests,
)
from .reward_actors import RewardActors as RewardActors
from .sequence_queue import (
    Batch as Batch,
    EngineLoad as EngineLoad,
    Job as Job,
    SequenceQueue as SequenceQueue,
)
from .torchrun_ranks import follow as follow, join as join
from .watchdog import descendants as descendants
from .weight_transfer import PackedWeights as PackedWeights, pack as pack, unpack as unpack
