from .agreement import (
    Agreement as Agreement,
    annotator_agreement as annotator_agreement,
    annotator_name as annotator_name,
)
from .by_judge import rank_by_judge as rank_by_judge
from .by_people import AnnotationPage as AnnotationPage, AnnotationStore as AnnotationStore
from .by_rewards import rank_by_rewards as rank_by_rewards
from .candidates import Candidates as Candidates, read_candidates as read_candidates
from .rows import (
    PairChoice as PairChoice,
    PreferenceRow as PreferenceRow,
    read_preferences as read_preferences,
    to_preference as to_preference,
    write_preferences as write_preferences,
)
