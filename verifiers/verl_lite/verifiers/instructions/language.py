"""What small libraries know of languages (extra `language`): which one a text is in, and syllables."""

from functools import cache

MISSING = "this needs the packages langdetect and syllapy: pip install 'verl-lite[language]'"


@cache
def _load() -> None:
    try:
        from langdetect import DetectorFactory
        from langdetect.detector_factory import init_factory
    except ImportError:
        raise RuntimeError(MISSING) from None
    DetectorFactory.seed = 0  # it samples: the same text must get the same answer
    init_factory()


def detect_language(text: str) -> str:
    """The ISO 639-1 code of the likeliest language; "" for a text without letters.

    Raises RuntimeError without langdetect. A text in capitals is read in small letters,
    which it knows better.
    """
    _load()
    from langdetect import detect
    from langdetect.lang_detect_exception import LangDetectException

    try:
        return str(detect(text.lower() if text.isupper() else text))
    except LangDetectException:
        return ""


def count_syllables(word: str) -> int:
    """Of an English word, by syllapy's dictionary and its rules. Raises RuntimeError without syllapy."""
    try:
        import syllapy
    except ImportError:
        raise RuntimeError(MISSING) from None
    return int(syllapy.count(word))
