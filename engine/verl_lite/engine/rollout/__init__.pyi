from .canary import Canary as Canary, canary_tokens as canary_tokens
from .requests import FinishedSequence as FinishedSequence, SequenceRequest as SequenceRequest
from .server_sampler import ServerSampler as ServerSampler
from .transformers_sampler import TransformersSampler as TransformersSampler
from .turns.sampler import TurnsSampler as TurnsSampler
from .vllm_cpu import PROVIDER as PROVIDER, use_kernels as use_kernels
from .vllm_engine import VllmEngine as VllmEngine
from .vllm_sampler import VllmSampler as VllmSampler
