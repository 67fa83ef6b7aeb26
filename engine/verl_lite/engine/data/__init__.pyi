from .arithmetic import arithmetic_rows as arithmetic_rows, worked_answer as worked_answer
from .messages import to_messages as to_messages, to_tools as to_tools
from .page import data_page as data_page, length_plot as length_plot
from .prompts import read_prompts as read_prompts, read_sources as read_sources, row_messages as row_messages
from .quality import (
    DataReport as DataReport,
    TextRow as TextRow,
    check_rows as check_rows,
    near_duplicates as near_duplicates,
    text_row as text_row,
)
from .rows import iterate_rows as iterate_rows, read_rows as read_rows
from .store import RowStore as RowStore
from .stream import (
    MixedStream as MixedStream,
    PromptSource as PromptSource,
    PromptStream as PromptStream,
    make_stream as make_stream,
)
