from .app import make_app as make_app
from .remote import (
    RemoteOptions as RemoteOptions,
    RemoteReward as RemoteReward,
    remote_reward as remote_reward,
)
from .server import serve_rewards as serve_rewards
from .service import RewardService as RewardService, ServingOptions as ServingOptions
from .shapes import SHAPES as SHAPES, Shape as Shape
