from .fakes import FakeSampler as FakeSampler, SlowedLearner as SlowedLearner
from .families import Family as Family
from .zoo import (
    FAMILIES as FAMILIES,
    family_config as family_config,
    family_model as family_model,
    write_family as write_family,
)
