from .formats import BY_NAME as BY_NAME, FORMATS as FORMATS, CallFormat as CallFormat
from .reading import (
    Call as Call,
    call_of as call_of,
    calls_in as calls_in,
    read_calls as read_calls,
    split_calls as split_calls,
)
