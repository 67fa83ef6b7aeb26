from .detect import (
    AUTO as AUTO,
    FORMATS as FORMATS,
    OWN as OWN,
    Format as Format,
    converter_for as converter_for,
    detect_format as detect_format,
)
