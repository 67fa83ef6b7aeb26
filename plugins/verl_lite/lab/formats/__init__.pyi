from .detect import (
    AUTO as AUTO,
    FORMATS as FORMATS,
    OWN as OWN,
    Format as Format,
    UnknownFormatError as UnknownFormatError,
    format_of as format_of,
)
from .table import DATA_SETS as DATA_SETS, DataSet as DataSet
