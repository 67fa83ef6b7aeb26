"""Rollout records: what was sampled and how it was scored, in Parquet or JSONL, versioned and streamed."""

from verl_lite.plugins.records.reader import (
    BadRow,
    Convert,
    Shard,
    check_record_file,
    first_row,
    own_records,
    read_records,
    shard_records,
)
from verl_lite.plugins.records.rows import to_record, to_scored
from verl_lite.plugins.records.schema import SCHEMA_VERSION, Record, StoredScore, arrow_schema, to_json
from verl_lite.plugins.records.writer import RecordWriter, join_record_files

__all__ = [
    "SCHEMA_VERSION",
    "BadRow",
    "Convert",
    "Record",
    "RecordWriter",
    "Shard",
    "StoredScore",
    "arrow_schema",
    "check_record_file",
    "first_row",
    "join_record_files",
    "own_records",
    "read_records",
    "shard_records",
    "to_json",
    "to_record",
    "to_scored",
]
