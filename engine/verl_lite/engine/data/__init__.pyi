from .arithmetic import arithmetic_rows as arithmetic_rows, worked_answer as worked_answer
from .messages import to_messages as to_messages, to_tools as to_tools
from .page import data_page as data_page, length_plot as length_plot
from .prompts import (
    PromptStream as PromptStream,
    read_prompts as read_prompts,
    read_rows as read_rows,
    row_messages as row_messages,
)
from .quality import (
    DataReport as DataReport,
    TextRow as TextRow,
    check_rows as check_rows,
    near_duplicates as near_duplicates,
    text_row as text_row,
)
