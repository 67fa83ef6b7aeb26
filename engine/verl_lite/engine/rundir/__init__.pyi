from .checkpoint_files import (
    newest_whole as newest_whole,
    remove_leftovers as remove_leftovers,
    why_not_whole as why_not_whole,
    write_manifest as write_manifest,
)
from .checkpoints import (
    CheckpointWriter as CheckpointWriter,
    copy_of as copy_of,
    load_checkpoint as load_checkpoint,
    load_tensors as load_tensors,
    restore_random_states as restore_random_states,
)
from .diff import Difference as Difference, diff_runs as diff_runs
from .environment import (
    describe_environment as describe_environment,
    make_deterministic as make_deterministic,
)
from .fingerprints import changed_data as changed_data, fingerprint_rows as fingerprint_rows
from .folder import (
    FREE_FOR_MEMORY as FREE_FOR_MEMORY,
    FREE_TO_CHANGE as FREE_TO_CHANGE,
    choose_run_dir as choose_run_dir,
)
from .interrupt import StopRequested as StopRequested
from .lock import LOCK_FILE as LOCK_FILE, run_lock as run_lock
from .out_of_memory import ADVICE as ADVICE, clear_memory_errors as clear_memory_errors
from .seeds import derive_seed as derive_seed
