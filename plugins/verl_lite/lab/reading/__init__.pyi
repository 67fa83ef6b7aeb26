from .data_rows import Row as Row, data_rows as data_rows
from .record_file import RecordFile as RecordFile, detect as detect
from .rollouts import (
    Piece as Piece,
    Rollouts as Rollouts,
    Sources as Sources,
    group_records as group_records,
    open_rollouts as open_rollouts,
    records_of_rows as records_of_rows,
)
