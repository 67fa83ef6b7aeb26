from .columns import infer_columns as infer_columns
from .reader import (
    BadRow as BadRow,
    Convert as Convert,
    Span as Span,
    check_record_file as check_record_file,
    own_records as own_records,
    read_records as read_records,
    read_rows as read_rows,
    spans_of as spans_of,
)
from .rows import to_record as to_record, to_scored as to_scored
from .schema import (
    SCHEMA_VERSION as SCHEMA_VERSION,
    Record as Record,
    StoredScore as StoredScore,
    arrow_schema as arrow_schema,
    to_json as to_json,
)
from .turns import turn_rows as turn_rows
from .writer import RecordWriter as RecordWriter, join_record_files as join_record_files
