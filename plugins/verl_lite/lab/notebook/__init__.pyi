from .calls import attack as attack, check as check, diff as diff, score as score
from .rewards import NotebookRewards as NotebookRewards, read_rewards as read_rewards
from .scores import Scores as Scores
from .sources import read_source as read_source
