"""How people ask for a conversion of units, in English and Chinese."""

# ruff: noqa: E501 - a phrase stands on one line
from __future__ import annotations

from typing import Final

from autoglm.model import Phrase

_ENGLISH: Final = (
    "(convert|change|turn|express) {value:number} [from] {from_unit:unit} (to|into|in|as) {to_unit:unit}",
    "(convert|change|turn|express) {value:number} from {from_unit:unit} (to|into) {to_unit:unit}",
    "{value:number} {from_unit:unit} (to|into|in|as) {to_unit:unit}",
    "how (many|much) {to_unit:unit} (is|are) [there] [in] {value:number} {from_unit:unit}",
    "how (many|much) {to_unit:unit} in (a|an) {from_unit:unit} => value=1",
    "how (many|much) {to_unit:unit} in {value:number} {from_unit:unit}",
    "how (many|much) {to_unit:unit} (is|are) [there] in (a|an) {from_unit:unit} => value=1",
    "how (many|much) {to_unit:unit} (does|do) {value:number} {from_unit:unit} (have|make|equal)",
    "{value:number} {from_unit:unit} (equals|is) how many {to_unit:unit}",
)
_ENGLISH_AGAIN: Final = (
    "(convert|change|turn) {value:number} (to|into) {to_unit:unit} => from_unit={value.unit}",
    "{value:number} (to|into|in) {to_unit:unit} => from_unit={value.unit}",
    "how (many|much) {to_unit:unit} (is|are) {value:number} => from_unit={value.unit}",
    "[convert|change|turn] (to|into) {to_unit:unit} => value={it}; from_unit={it.unit}",
)
_CHINESE: Final = (
    "[把|将] {value:number} {from_unit:unit} (转换成|转换为|转换到|换算成|换算为|换算到|转成|转为|化成|化为|换成|变成) {to_unit:unit}",
    "[把|将] {value:number} 从 {from_unit:unit} (转换成|转换为|转换到|换算成|换算为|转成|转为|换成|到) {to_unit:unit}",
    "{value:number} {from_unit:unit} (是|等于|合|有|相当于) (多少|几) [个] {to_unit:unit}",
    "{value:number} {from_unit:unit} (换算|转) {to_unit:unit}",
)
_CHINESE_AGAIN: Final = (
    "[把|将] {value:number} (转换成|转换为|换算成|换算为|转成|转为|换成) {to_unit:unit} => from_unit={value.unit}",
    "{value:number} (是|等于|合|相当于) (多少|几) {to_unit:unit} => from_unit={value.unit}",
    "(转换成|转换为|换算成|换算为|转成|转为|换成) {to_unit:unit} => value={it}; from_unit={it.unit}",
)

CONVERT: Final = (
    *(Phrase(pattern, "{value} {from_unit} is {output} {to_unit}.", "en") for pattern in _ENGLISH),
    *(Phrase(pattern, "That is {output} {to_unit}.", "en") for pattern in _ENGLISH_AGAIN),
    *(Phrase(pattern, "{value} {from_unit}等于 {output} {to_unit}。", "zh") for pattern in _CHINESE),
    *(Phrase(pattern, "等于 {output} {to_unit}。", "zh") for pattern in _CHINESE_AGAIN),
)
"""The phrases of ``units.convert``."""
