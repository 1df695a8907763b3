"""Names of units that people use and pint does not know, in English and Chinese, and names of money.

A name may stand for several units; the first that goes with the other unit of the conversion is meant.
"""

# ruff: noqa: E501, RUF001, SIM905 - tables, read best as lines of words
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_ENGLISH: Final[dict[str, str]] = {
    "c": "degC speed_of_light",
    "°c": "degC",
    "degree_celsius": "degC",
    "degrees_celsius": "degC",
    "degree_centigrade": "degC",
    "degrees_centigrade": "degC",
    "degree_c": "degC",
    "degrees_c": "degC",
    "centigrade": "degC",
    "f": "degF farad",
    "°f": "degF",
    "degree_fahrenheit": "degF",
    "degrees_fahrenheit": "degF",
    "degree_f": "degF",
    "degrees_f": "degF",
    "k": "kelvin",
    "°k": "kelvin",
    "degrees_kelvin": "kelvin",
    "°": "degree",
    '"': "inch",
    "″": "inch",
    "'": "foot",
    "′": "foot",
    "oz": "ounce fluid_ounce",
    "ounce": "ounce fluid_ounce",
    "ounces": "ounce fluid_ounce",
    "fl_oz": "fluid_ounce",
    "fl._oz": "fluid_ounce",
    "fl.oz": "fluid_ounce",
    "lb": "pound pound_force",
    "lbs": "pound pound_force",
    "cal": "calorie kilocalorie",
    "kg": "kilogram kilogram_force",
    "st": "stone",
    "metric_ton": "metric_ton",
    "metric_tons": "metric_ton",
    "short_ton": "short_ton",
    "short_tons": "short_ton",
    "long_ton": "long_ton",
    "long_tons": "long_ton",
    "us_gallon": "gallon",
    "us_gallons": "gallon",
    "uk_gallon": "imperial_gallon",
    "uk_gallons": "imperial_gallon",
    "cups": "cup",
    "sq": "square",
    "sqft": "foot^2",
    "sqm": "meter^2",
    "sqkm": "kilometer^2",
    "sqmi": "mile^2",
    "ha": "hectare",
    "cbm": "meter^3",
    "cfm": "foot^3/minute",
    "mpg": "mile/gallon",
    "kmh": "kilometer/hour",
    "kmph": "kilometer/hour",
    "kph": "kilometer/hour",
    "mph": "mile/hour",
    "mps": "meter/second",
    "fps": "foot/second",
    "kt": "knot",
    "kts": "knot",
    "decade": "10year",
    "decades": "10year",
    "millennia": "millennium",
    "hrs": "hour",
    "mins": "minute",
    "secs": "second",
    "wk": "week",
    "wks": "week",
    "yr": "year",
    "yrs": "year",
    "mo": "month",
    "kb": "kilobyte",
    "mb": "megabyte",
    "gb": "gigabyte",
    "tb": "terabyte",
    "pb": "petabyte",
    "kib": "kibibyte",
    "mib": "mebibyte",
    "gib": "gibibyte",
    "tib": "tebibyte",
    "bps": "bit/second",
    "kbps": "kilobit/second",
    "mbps": "megabit/second",
    "gbps": "gigabit/second",
    "tbps": "terabit/second",
    "kcal": "kilocalorie",
    "kcals": "kilocalorie",
    "dozen": "12count",
}
_CHINESE: Final[dict[str, str]] = {
    "公里": "kilometer", "千米": "kilometer", "米": "meter", "公尺": "meter", "分米": "decimeter", "厘米": "centimeter",
    "公分": "centimeter", "毫米": "millimeter", "微米": "micrometer", "纳米": "nanometer", "英里": "mile", "英尺": "foot",
    "呎": "foot", "英寸": "inch", "英吋": "inch", "寸": "inch", "码": "yard", "海里": "nautical_mile", "里": "500meter",
    "华里": "500meter", "光年": "light_year", "天文单位": "astronomical_unit",
    "吨": "metric_ton", "公吨": "metric_ton", "公斤": "kilogram", "千克": "kilogram", "斤": "500gram", "市斤": "500gram",
    "两": "50gram", "克": "gram", "毫克": "milligram", "微克": "microgram", "磅": "pound", "盎司": "ounce fluid_ounce",
    "克拉": "carat", "英石": "stone",
    "升": "liter", "公升": "liter", "毫升": "milliliter", "加仑": "gallon", "品脱": "pint", "夸脱": "quart", "杯": "cup",
    "立方": "meter^3", "立方米": "meter^3", "立方厘米": "centimeter^3", "液盎司": "fluid_ounce", "汤匙": "tablespoon",
    "茶匙": "teaspoon", "桶": "oil_barrel",
    "平方": "meter^2", "平方米": "meter^2", "平米": "meter^2", "平方公里": "kilometer^2", "公顷": "hectare", "英亩": "acre",
    "亩": "hectare/15",
    "年": "year", "个月": "month", "月": "month", "周": "week", "星期": "week", "天": "day", "日": "day", "小时": "hour",
    "个小时": "hour", "钟头": "hour", "分钟": "minute", "分": "minute", "秒": "second", "秒钟": "second", "毫秒": "millisecond",
    "微秒": "microsecond", "纳秒": "nanosecond", "世纪": "century",
    "摄氏度": "degC", "摄氏": "degC", "华氏度": "degF", "华氏": "degF", "开尔文": "kelvin", "开": "kelvin",
    "度": "degree degC", "弧度": "radian",
    "时速公里": "kilometer/hour", "迈": "mile/hour", "节": "knot", "马赫": "speed_of_sound",
    "焦耳": "joule", "焦": "joule", "千焦": "kilojoule", "卡路里": "calorie", "卡": "calorie", "千卡": "kilocalorie",
    "大卡": "kilocalorie", "度电": "kilowatt_hour", "千瓦时": "kilowatt_hour", "瓦": "watt", "瓦特": "watt", "千瓦": "kilowatt",
    "马力": "metric_horsepower", "牛": "newton", "牛顿": "newton", "帕": "pascal", "帕斯卡": "pascal", "千帕": "kilopascal",
    "兆帕": "megapascal", "大气压": "standard_atmosphere", "毫米汞柱": "millimeter_Hg", "赫兹": "hertz", "赫": "hertz",
    "伏": "volt", "伏特": "volt", "安": "ampere", "安培": "ampere", "欧姆": "ohm",
    "字节": "byte", "比特": "bit", "位": "bit", "千字节": "kilobyte", "兆字节": "megabyte", "兆": "megabyte",
    "吉字节": "gigabyte", "打": "12count",
}  # fmt: skip

ALIASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {name: tuple(units.split()) for name, units in (_ENGLISH | _CHINESE).items()},
)
"""By name in small letters, words joined by an underscore: units in the notation of :mod:`._unit_reader`."""

CASED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cal": "kilocalorie",
        "KB": "kilobyte",
        "Kb": "kilobit",
        "Mb": "megabit",
        "Gb": "gigabit",
        "Tb": "terabit",
        "kb": "kilobit",
    }
    | {"MBps": "megabyte/second", "GBps": "gigabyte/second", "KBps": "kilobyte/second"},
)
"""Names whose letters' case matters."""

MONEY: Final = frozenset(
    "$ € £ ¥ usd eur gbp jpy cny rmb hkd twd krw inr aud cad chf sgd nzd rub brl mxn sek nok dkk zar try thb "
    "dollar dollars us_dollar us_dollars euro euros yen yuan renminbi rupee rupees ruble rubles won franc francs peso pesos "
    "pound_sterling pounds_sterling sterling cent cents bitcoin bitcoins btc eth ethereum "
    "元 人民币 块 块钱 美元 美金 欧元 英镑 日元 日圆 港币 港元 台币 新台币 韩元 卢布 卢比 澳元 加元 瑞士法郎 新加坡元 比特币".split(),
)
"""Names of currencies, which have no fixed rate."""
