from .fakes import FakeSampler as FakeSampler, SlowedLearner as SlowedLearner
from .zoo import (
    FAMILIES as FAMILIES,
    Family as Family,
    family_config as family_config,
    family_model as family_model,
    write_family as write_family,
)
