"""Rollout records: what was sampled and how it was scored, in Parquet or JSONL, versioned and streamed."""

from verl_lite.plugins.records.reader import BadRow, Convert, Shard, own_records, read_records, shard_records
from verl_lite.plugins.records.rows import to_record, to_scored
from verl_lite.plugins.records.schema import SCHEMA_VERSION, Record, StoredScore, arrow_schema
from verl_lite.plugins.records.writer import RecordWriter

__all__ = [
    "SCHEMA_VERSION",
    "BadRow",
    "Convert",
    "Record",
    "RecordWriter",
    "Shard",
    "StoredScore",
    "arrow_schema",
    "own_records",
    "read_records",
    "shard_records",
    "to_record",
    "to_scored",
]
