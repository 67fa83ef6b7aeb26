"""The units we recognise, with pint's names for them; currencies, which pint does not have; conversion.

Units that are written alike need no conversion, so most comparisons never load pint. Pint only ever sees
names from our own table, never text of a response.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

Unit = tuple[tuple[str, int], ...]  # sorted (pint name or currency code, power) pairs

_ALIASES = {
    "meter": "m metre meters metres", "centimeter": "cm centimetre centimeters centimetres",
    "millimeter": "mm millimetre millimeters millimetres", "kilometer": "km kilometre kilometers kilometres kms",
    "decimeter": "dm decimetre decimeters", "micrometer": "um micrometers micron microns",
    "nanometer": "nm nanometers nanometre", "inch": "in inches ins", "foot": "ft feet", "yard": "yd yards yds",
    "mile": "mi miles", "light_year": "ly lightyear lightyears", "nautical_mile": "nmi",
    "gram": "g grams gm gms gramme grammes", "kilogram": "kg kilograms kgs kilo kilos", "milligram": "mg milligrams",
    "metric_ton": "tonne tonnes ton tons", "pound": "lb lbs pounds", "ounce": "oz ounces", "stone": "stones",
    "microgram": "ug mcg micrograms",
    "second": "s sec secs seconds", "minute": "min mins minutes", "hour": "h hr hrs hours",
    "day": "d days", "week": "wk weeks wks", "month": "months", "year": "yr yrs years", "decade": "decades",
    "century": "centuries", "millisecond": "ms milliseconds", "microsecond": "us microseconds",
    "nanosecond": "ns nanoseconds",
    "liter": "l L litre liters litres", "milliliter": "ml mL millilitre milliliters millilitres",
    "centiliter": "cl cL", "deciliter": "dl dL", "gallon": "gal gallons", "quart": "qt quarts", "pint": "pt pints",
    "cup": "cups", "tablespoon": "tbsp tablespoons", "teaspoon": "tsp teaspoons", "fluid_ounce": "floz",
    "hectare": "ha hectares", "acre": "acres", "are": "",
    "newton": "N newtons", "joule": "J joules", "kilojoule": "kJ kilojoules", "watt": "W watts",
    "kilowatt": "kW kilowatts", "kilowatt_hour": "kWh", "pascal": "Pa pascals", "kilopascal": "kPa", "bar": "bars",
    "atmosphere": "atm atmospheres", "volt": "V volts", "millivolt": "mV", "kilovolt": "kV", "ampere": "A amps amp amperes",
    "milliampere": "mA", "ohm": "ohms", "hertz": "Hz", "kilohertz": "kHz", "megahertz": "MHz", "gigahertz": "GHz",
    "coulomb": "C coulombs", "farad": "F farads", "tesla": "T", "mole": "mol moles", "calorie": "cal calories",
    "kilocalorie": "kcal", "electron_volt": "eV", "megaelectron_volt": "MeV", "kelvin": "K kelvins",
    "degree_Celsius": "celsius Celsius degC", "degree_Fahrenheit": "fahrenheit Fahrenheit degF",
    "knot": "knots", "mile/hour": "mph", "kilometer/hour": "kph kmh kmph", "byte": "bytes B", "kilobyte": "kB KB",
    "megabyte": "MB", "gigabyte": "GB", "terabyte": "TB", "bit": "bits", "megabit": "Mb Mbit megabits", "gigabit": "Gb Gbit gigabits", "kilobit": "kb kbit kilobits",
    "megabit/second": "Mbps", "gigabit/second": "Gbps", "kilobit/second": "kbps",
    "radian": "rad radians rads", "degree": "deg degs degrees", "steradian": "sr", "revolution": "rev revolutions",
    "candela": "cd", "lumen": "lm", "kilonewton": "kN", "millimole": "mmol", "megawatt": "MW", "megajoule": "MJ",
    "kiloohm": "kohm kohms", "megaohm": "Mohm Mohms", "microfarad": "uF", "nanofarad": "nF", "picofarad": "pF",
    "millihenry": "mH", "henry": "henries", "microcoulomb": "uC", "nanocoulomb": "nC", "millicoulomb": "mC",
    "microampere": "uA", "microvolt": "uV", "microwatt": "uW", "milliwatt": "mW", "gigawatt": "GW", "microjoule": "uJ",
    "kiloelectron_volt": "keV", "gigaelectron_volt": "GeV", "millitesla": "mT", "microtesla": "uT", "weber": "Wb webers",
    "hectopascal": "hPa", "megapascal": "MPa", "gigapascal": "GPa", "angstrom": "angstroms",
}  # fmt: skip
_UNITS = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases.split())}
# name -> (currency, how many make one unit of it); each currency is its own dimension
CURRENCIES = {
    "dollar": ("USD", 1), "dollars": ("USD", 1), "usd": ("USD", 1), "$": ("USD", 1), "us$": ("USD", 1), "bucks": ("USD", 1),
    "cent": ("USD", 100), "cents": ("USD", 100), "penny": ("USD", 100), "pennies": ("USD", 100),
    "euro": ("EUR", 1), "euros": ("EUR", 1), "eur": ("EUR", 1),
    "gbp": ("GBP", 1), "pounds sterling": ("GBP", 1), "pence": ("GBP", 100), "pound sterling": ("GBP", 1),
    "yen": ("JPY", 1), "jpy": ("JPY", 1), "yuan": ("CNY", 1), "rmb": ("CNY", 1), "cny": ("CNY", 1),
    "rupee": ("INR", 1), "rupees": ("INR", 1), "inr": ("INR", 1), "rs": ("INR", 1), "peso": ("MXN", 1), "pesos": ("MXN", 1),
    "won": ("KRW", 1), "francs": ("CHF", 1), "chf": ("CHF", 1),
}  # fmt: skip
CURRENCY_COMMANDS = {
    "dollar": "USD", "euro": "EUR", "pounds": "GBP", "yen": "JPY", "rupee": "INR", "cents": "USD",
}  # fmt: skip
MAGNITUDES = {
    "dozen": 12, "dozens": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "millions": 10**6, "billion": 10**9,
    "billions": 10**9, "trillion": 10**12,
}  # fmt: skip
ANGLES = frozenset(("degree", "radian"))


def unit_name(word: str) -> str | None:
    """Pint's name for a unit as people write it; None for other words.

    >>> unit_name("cm"), unit_name("Meters"), unit_name("apples")
    ('centimeter', 'meter', None)
    """
    word = word.rstrip(".")
    found = _UNITS.get(word)
    return found if found is not None or len(word) < 3 else _UNITS.get(word.lower())


def convert(value: Fraction, source: Unit, target: Unit) -> Fraction | None:
    """`value` from one unit to another; None where the dimensions differ."""
    if source == target:
        return value
    line = _money(source, target) or _conversion(source, target)
    return None if line is None else line[0] + value * line[1]


def _money(source: Unit, target: Unit) -> tuple[Fraction, Fraction] | None:
    """Cents to dollars and back, without pint."""
    if len(source) != 1 or len(target) != 1 or source[0][1] != 1 or target[0][1] != 1:
        return None
    names = source[0][0], target[0][0]
    for one, other, factor in ((*names, Fraction(1, 100)), (*names[::-1], Fraction(100))):
        if one == f"{other}_cent":
            return Fraction(0), factor
    return None


@lru_cache(maxsize=512)
def _conversion(source: Unit, target: Unit) -> tuple[Fraction, Fraction] | None:
    """(offset, factor) of the affine map from source to target (an offset only for temperatures)."""
    import pint

    registry = _registry()
    try:
        from_unit, to_unit = _pint_unit(source), _pint_unit(target)
        zero = registry.Quantity(Fraction(0), from_unit).to(to_unit).magnitude
        one = registry.Quantity(Fraction(1), from_unit).to(to_unit).magnitude
    except pint.PintError:
        return None
    offset, factor = (
        Fraction(x).limit_denominator(10**12) if isinstance(x, float) else Fraction(x)
        for x in (zero, one - zero)
    )
    return offset, factor


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    registry = pint.UnitRegistry(non_int_type=Fraction)
    for code in sorted({code for code, _ in CURRENCIES.values()}):
        registry.define(f"{code} = [currency_{code}]")
        registry.define(f"{code}_cent = 0.01 * {code}")
    return registry


def _pint_unit(unit: Unit) -> Any:
    result = _registry().Unit("")
    for name, power in unit:
        result = result * _registry().Unit(name) ** power
    return result
