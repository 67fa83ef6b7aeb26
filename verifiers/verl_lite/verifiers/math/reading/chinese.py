"""Answers in Chinese, and the one number of a sentence without blanks: 12平方米, 2或3, 一共有12个苹果。"""

import re

_HAN = re.compile("[\u4e00-\u9fff]")
_EAST_ASIAN = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_JOINTS = dict.fromkeys("和与且及", r"\text{ and }") | {"或": r"\text{ or }"}
_UNITS = {
    "元": "yuan", "米": "m", "厘米": "cm", "分米": "dm", "毫米": "mm", "千米": "km", "公里": "km",
    "平方米": "m^2", "平方厘米": "cm^2", "立方米": "m^3", "立方厘米": "cm^3", "克": "g", "千克": "kg",
    "公斤": "kg", "吨": "tons", "秒": "s", "分钟": "minutes", "小时": "hours", "天": "days",
    "度": "degrees", "升": "L", "毫升": "mL",
}  # fmt: skip
_COUNTED = re.compile(r"(?<=[0-9}$])\s*+(?:\\text\s*+\{\s*+)?+([\u4e00-\u9fff]{1,4})\s*+\}?(?=[$\s.。]*\Z)")
_TENS = {"百": "*10^2", "千": "*10^3", "万": "*10^4", "亿": "*10^8"}
_NO_COUNTER = re.compile("[以不对错非否左上多成折半之一二两三四五六七八九十百千万亿]")  # 5以上, 5不对, 3个半
_NUMBER = re.compile(
    r"(?:\$[^$]+\$|\\\([^()]*\\\)|(?<![0-9A-Za-z.\\])-?[0-9]+(?:\.[0-9]+)?(?![0-9A-Za-z\\{^/]))"
    "(?![百万亿半]|千(?![克米])|分之)"
)
_NOT_ONE = re.compile("或|可能|不是|不等|大于|小于|至少|至多|超过|不到|吗|[？?]")


def without_chinese(text: str) -> str:
    """5厘米 as 5 cm, 3个 as 3, 2或3 as 2 or 3, where the text has no other words.

    >>> without_chinese("12平方米"), without_chinese("3个"), without_chinese("和平")
    ('12 m^2', '3', '和平')
    """
    found = _HAN.findall(text)
    if found and all(char in _JOINTS for char in found) and re.search("[0-9A-Za-z]", text):
        return _HAN.sub(lambda match: _JOINTS[match[0]], text)
    counted = _COUNTED.search(text) if found else None
    if counted is None or len(found) != len(counted[1]):
        return text
    counter, tens = counted[1], ""
    if counter not in _UNITS and counter[0] in _TENS:
        counter, tens = counter[1:], _TENS[counter[0]]
    unit = _UNITS.get(counter, "")
    if not unit and _NO_COUNTER.search(counter):
        return text
    return text[: counted.start()] + tens + (f" {unit}" if unit else "") + text[counted.end() :]


def is_east_asian(text: str) -> bool:
    return not text.isascii() and _EAST_ASIAN.search(text) is not None


def only_number(sentence: str) -> str | None:
    """The one number or formula of a sentence in Chinese, Japanese or Korean that states it.

    None where it is not one, and of a sentence that hedges, denies, bounds or asks.

    >>> only_number("一共有12个苹果。"), only_number("the 12 apples")
    ('12', None)
    """
    is_plain = is_east_asian(sentence) and not _NOT_ONE.search(sentence)
    found = _NUMBER.findall(sentence) if is_plain else []
    return found[0].strip("$ ") if len(found) == 1 else None
