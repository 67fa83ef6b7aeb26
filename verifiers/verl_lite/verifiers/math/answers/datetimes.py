"""Times of day and dates: 3:30 PM, 15:30, March 5 2024, 2024-03-05."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verl_lite.verifiers.math.answers.answer import Answer
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided

_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = "|".join(f"{name}|{name[:3]}\\.?" for name in _MONTHS) + "|sept\\.?"
_TIME = re.compile(
    r"(?:at\s+)?([0-9]{1,2})(?:\s*[:.]\s*([0-9]{2}))?(?:\s*:\s*([0-9]{2}))?\s*"
    r"(a\.?\s?m\.?|p\.?\s?m\.?|noon|midnight|o'clock)?(?:\s+in the (morning|afternoon|evening))?\Z",
    re.IGNORECASE,
)
_PADDED = re.compile(r":0[0-9]")
_DAY_FIRST = re.compile(
    rf"([0-9]{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTH}),?(?:\s+([0-9]{{4}}))?\Z", re.IGNORECASE
)
_MONTH_FIRST = re.compile(
    rf"({_MONTH})\s+([0-9]{{1,2}})(?:st|nd|rd|th)?,?(?:\s+([0-9]{{4}}))?\Z", re.IGNORECASE
)
_ISO = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})[-/]([0-9]{1,2})\Z")
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_TEXT = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Datetime:
    """A time (`kind` "time": hour, minute, second), a date ("date": year, month, day) or a "weekday".

    `is_explicit` is false where it may be something else: "3:30" may be a ratio, "3:30 PM" may not.
    `has_half` says that morning or afternoon is known. Year 0 is an unknown year.
    """

    kind: str
    parts: tuple[int, int, int]
    is_explicit: bool = True
    has_half: bool = True

    def same(self, other: Datetime) -> bool:
        """Whether they are equal. A year or half of the day that one side omits is taken from the other."""
        if self.kind != other.kind:
            return False
        if self.kind == "date":
            years = {self.parts[0], other.parts[0]} - {0}
            return self.parts[1:] == other.parts[1:] and len(years) <= 1
        if self.has_half == other.has_half:
            return self.parts == other.parts
        hours = (self.parts[0] % 12, other.parts[0] % 12)
        unknown = self if not self.has_half else other
        return hours[0] == hours[1] and self.parts[1:] == other.parts[1:] and unknown.parts[0] <= 12


def read_datetime(answer: Answer) -> Datetime | None:
    """The time or date an answer states; None if it states none."""
    cleaned = answer.text
    if not 3 <= len(cleaned) <= 60:
        return None
    text = " ".join(_TEXT.sub(r" \1 ", cleaned).split()).strip(" .") if "\\" in cleaned else cleaned.strip()
    if not text:
        return None
    text = re.sub(r"^(?:the|on)\s+(?:the\s+)?", "", text, flags=re.IGNORECASE)
    match = _TIME.match(text) if text[:1].isdigit() or text.startswith("at ") else None
    if match is not None and (match[2] or match[4] or match[5]):
        return _time(match)
    for pattern, day, month, year in ((_DAY_FIRST, 1, 2, 3), (_MONTH_FIRST, 2, 1, 3)):
        if (match := pattern.match(text)) is not None:
            number = next(i for i, name in enumerate(_MONTHS, 1) if name.startswith(match[month][:3].lower()))
            return _date(int(match[year] or 0), number, int(match[day]))
    if (match := _ISO.match(text)) is not None:
        return _date(int(match[1]), int(match[2]), int(match[3]))
    if text.lower() in _WEEKDAYS:
        return Datetime("weekday", (_WEEKDAYS.index(text.lower()), 0, 0))
    return None


def _date(year: int, month: int, day: int) -> Datetime | None:
    return Datetime("date", (year, month, day)) if 1 <= month <= 12 and 1 <= day <= 31 else None


def _time(match: re.Match[str]) -> Datetime | None:
    hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    half = (match[4] or match[5] or "").lower().replace(".", "").replace(" ", "")
    if "." in match[0].split(" ")[0] and not half:
        return None
    counts_to_12 = half in ("am", "pm", "morning", "afternoon", "evening")
    if hour > 23 or minute > 59 or second > 59 or (counts_to_12 and not 1 <= hour <= 12):
        return None
    if half in ("pm", "afternoon", "evening"):
        hour = hour % 12 + 12
    elif half in ("am", "morning", "midnight"):
        hour %= 12
    known = (bool(half) and half != "o'clock") or hour > 12 or match[1].startswith("0")
    return Datetime("time", (hour, minute, second), is_explicit=bool(half), has_half=known)


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """Only where one side can be nothing else: "3:30" may be a ratio, "3:00" and "3:30 PM" may not."""
    ours = reference.read(read_datetime)
    if ours is None:
        return None
    if not ours.is_explicit:
        theirs = response.read(read_datetime)
        is_time = theirs is not None and (
            theirs.is_explicit or _PADDED.search(reference.text + response.text)
        )
        return compare_read(reference, response) if is_time else None
    return compare_read(reference, response) or decided(False, "", "the answer is not a time or date")


def compare_read(reference: Answer, response: Answer) -> Decision | None:
    """The decision if both sides can be read as a time or date, else None."""
    ours, theirs = reference.read(read_datetime), response.read(read_datetime)
    if ours is None or theirs is None:
        return None
    return decided(ours.same(theirs), ours.kind, "another time or date")
