from .data import SFTData as SFTData, SFTSource as SFTSource, read_sft as read_sft
from .examples import (
    IGNORED as IGNORED,
    ExampleBuilder as ExampleBuilder,
    SFTExample as SFTExample,
    describe_example as describe_example,
)
from .faults import Fault as Fault, FaultKind as FaultKind
from .loss import as_sample as as_sample, token_factors as token_factors, trained_part as trained_part
from .responses import Conversation as Conversation, ResponseFinder as ResponseFinder
from .saved_rollouts import SavedRollout as SavedRollout, read_saved_rollouts as read_saved_rollouts
from .stream import SFTStream as SFTStream
from .training import SFTStep as SFTStep, backward as backward, train_sft as train_sft
from .validation import validation_loss as validation_loss
