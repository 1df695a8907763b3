"""How people ask for arithmetic, in English and Chinese."""

# ruff: noqa: E501, ISC004 - a phrase stands on one line
from __future__ import annotations

from typing import Final

from autoglm.model import Phrase

_CALCULATED_EN: Final = "{expression} = {output}."
_CALCULATED_ZH: Final = "{expression} = {output}。"

_ENGLISH: Final = (
    ("{expression:expression}", _CALCULATED_EN),
    ("(calculate|compute|evaluate|work out|solve|figure out) {expression:expression}", _CALCULATED_EN),
    ("[the] (result|value) of {expression:expression}", _CALCULATED_EN),
    ("add {a:number} (and|to|plus) {b:number} => expression={a} + {b}", "{a} plus {b} is {output}."),
    (
        "add [up] [the numbers|numbers] {numbers:numbers} [up|together] => expression=sum({numbers})",
        "The sum of {numbers} is {output}.",
    ),
    (
        "[the] (sum|total) of [the numbers|numbers] {numbers:numbers} => expression=sum({numbers})",
        "The sum of {numbers} is {output}.",
    ),
    ("(sum|total) [up] {numbers:numbers} [up] => expression=sum({numbers})", "The sum of {numbers} is {output}."),
    ("(subtract|take|deduct) {a:number} [away] from {b:number} => expression={b} - {a}", "{b} minus {a} is {output}."),
    (
        "[the] difference (between|of) {a:number} and {b:number} => expression=abs({a} - {b})",
        "The difference between {a} and {b} is {output}.",
    ),
    ("multiply {a:number} (by|with|and|times) {b:number} => expression={a} * {b}", "{a} times {b} is {output}."),
    ("multiply {numbers:numbers} [together] => expression=product({numbers})", "The product of {numbers} is {output}."),
    ("[the] product of {numbers:numbers} => expression=product({numbers})", "The product of {numbers} is {output}."),
    ("divide {a:number} by {b:number} => expression={a} / {b}", "{a} divided by {b} is {output}."),
    (
        "[the] remainder (of|when) [dividing] {a:number} [is] (divided by|over|by) {b:number} => expression={a} mod {b}",
        "{a} divided by {b} leaves {output}.",
    ),
    ("(increase|raise) {a:number} by {b:expression} => expression={a} + {b}", "{a} increased by {b} is {output}."),
    ("(decrease|reduce|lower) {a:number} by {b:expression} => expression={a} - {b}", "{a} reduced by {b} is {output}."),
    (
        "[take] {rate:number} off [of] {price:number} => expression={price} * (1 - {rate})",
        "{price} at {rate} off is {output}.",
    ),
    (
        "{a:number} is (what|which|how many) (percent|percentage|%) of {b:number} => expression={a} / {b} * 100",
        "{a} is {output}% of {b}.",
    ),
    (
        "(what|which|how many) (percent|percentage|%) of {b:number} is {a:number} => expression={a} / {b} * 100",
        "{a} is {output}% of {b}.",
    ),
    ("{a:number} as a percentage of {b:number} => expression={a} / {b} * 100", "{a} is {output}% of {b}."),
    (
        "[the] (average|mean) of {numbers:numbers} => expression=average({numbers})",
        "The average of {numbers} is {output}.",
    ),
    ("average {numbers:numbers} => expression=average({numbers})", "The average of {numbers} is {output}."),
    ("[the] median of {numbers:numbers} => expression=median({numbers})", "The median of {numbers} is {output}."),
    (
        "[the] (largest|biggest|greatest|highest|maximum|max|larger|bigger|greater|higher) [number] (of|among|in) {numbers:numbers} => expression=max({numbers})",
        "The largest of {numbers} is {output}.",
    ),
    (
        "[the] (smallest|lowest|least|minimum|min|smaller|lower) [number] (of|among|in) {numbers:numbers} => expression=min({numbers})",
        "The smallest of {numbers} is {output}.",
    ),
    (
        "[the] (greatest common divisor|greatest common factor|gcd) of {numbers:numbers} => expression=gcd({numbers})",
        "The greatest common divisor of {numbers} is {output}.",
    ),
    (
        "[the] (least common multiple|lowest common multiple|lcm) of {numbers:numbers} => expression=lcm({numbers})",
        "The least common multiple of {numbers} is {output}.",
    ),
    ("[take] [the] square root of {a:number} => expression=sqrt({a})", "The square root of {a} is {output}."),
    ("[take] [the] cube root of {a:number} => expression=cbrt({a})", "The cube root of {a} is {output}."),
    ("[the] square of {a:number} => expression=({a}) ^ 2", "{a} squared is {output}."),
    ("square {a:number} => expression=({a}) ^ 2", "{a} squared is {output}."),
    ("[the] cube of {a:number} => expression=({a}) ^ 3", "{a} cubed is {output}."),
    ("raise {a:number} to the power [of] {b:number} => expression=({a}) ^ {b}", "{a} to the power of {b} is {output}."),
    ("[the] factorial of {a:number} => expression=factorial({a})", "The factorial of {a} is {output}."),
    ("{a:number} factorial => expression=factorial({a})", "The factorial of {a} is {output}."),
    ("[the] absolute value of {a:number} => expression=abs({a})", "The absolute value of {a} is {output}."),
    ("[the] (half|one half) of {a:number} => expression={a} / 2", "Half of {a} is {output}."),
    ("half {a:number} => expression={a} / 2", "Half of {a} is {output}."),
    ("(double|twice|2 times) {a:number} => expression={a} * 2", "Twice {a} is {output}."),
    ("(triple|three times) {a:number} => expression={a} * 3", "Three times {a} is {output}."),
    (
        "round {a:number} to {places:integer} (decimal places|decimal place|decimals|decimal|places|digits) "
        "=> expression=round({a}, {places})",
        "{a} rounded to {places} decimal places is {output}.",
    ),
    (
        "round {a:number} [to the nearest (integer|whole number|whole)] => expression=round({a})",
        "{a} rounded to a whole number is {output}.",
    ),
    ("round {a:number} up => expression=ceil({a})", "{a} rounded up is {output}."),
    ("round {a:number} down => expression=floor({a})", "{a} rounded down is {output}."),
    ("(add|plus) {b:number} => expression={it:number} + {b}", "{it} + {b} = {output}."),
    ("(subtract|minus|take away|deduct) {b:number} => expression={it:number} - {b}", "{it} - {b} = {output}."),
    ("(multiply by|times) {b:number} => expression={it:number} * {b}", "{it} * {b} = {output}."),
    ("(divide by|divided by) {b:number} => expression={it:number} / {b}", "{it} / {b} = {output}."),
    (
        "[take|find|calculate|compute] [the] square root [of it] => expression=sqrt({it:number})",
        "The square root of {it} is {output}.",
    ),
    (
        "[take|find|calculate|compute] [the] cube root [of it] => expression=cbrt({it:number})",
        "The cube root of {it} is {output}.",
    ),
    (
        "(round|rounded) [it] [off] to {places:integer} (decimal places|decimal place|decimals|decimal|places|digits) "
        "=> expression=round({it:number}, {places})",
        "{it} rounded to {places} decimal places is {output}.",
    ),
)

_CHINESE: Final = (
    ("{expression:expression}", _CALCULATED_ZH),
    ("(计算|算|求|算算|算出|求出) [一下] {expression:expression} [的(值|结果)]", _CALCULATED_ZH),
    ("{expression:expression} (等于|得) [多少|几]", _CALCULATED_ZH),
    (
        "[计算|求] {numbers:numbers} (的和|的总和|之和|总和|和) => expression=sum({numbers})",
        "{numbers} 的和是 {output}。",
    ),
    ("把 {numbers:numbers} (加起来|相加|求和) => expression=sum({numbers})", "{numbers} 的和是 {output}。"),
    (
        "[计算|求] {a:number} (和|与|跟|、) {b:number} [的] (差|之差) => expression=abs({a} - {b})",
        "{a} 与 {b} 的差是 {output}。",
    ),
    ("[计算|求] {numbers:numbers} [的] (积|乘积|之积) => expression=product({numbers})", "{numbers} 的积是 {output}。"),
    ("把 {numbers:numbers} 相乘 => expression=product({numbers})", "{numbers} 的积是 {output}。"),
    (
        "[计算|求] {numbers:numbers} 的 (平均数|平均值|平均) => expression=average({numbers})",
        "{numbers} 的平均数是 {output}。",
    ),
    ("[计算|求] {numbers:numbers} 的中位数 => expression=median({numbers})", "{numbers} 的中位数是 {output}。"),
    (
        "[求] {numbers:numbers} [中|里|的] (最大的数|最大值|最大的) => expression=max({numbers})",
        "{numbers} 中最大的是 {output}。",
    ),
    (
        "[求] {numbers:numbers} [中|里|的] (最小的数|最小值|最小的) => expression=min({numbers})",
        "{numbers} 中最小的是 {output}。",
    ),
    ("把 {a:number} (乘以|乘上|乘) {b:number} => expression={a} * {b}", "{a} 乘以 {b} 等于 {output}。"),
    ("把 {a:number} 除以 {b:number} => expression={a} / {b}", "{a} 除以 {b} 等于 {output}。"),
    ("把 {a:number} (加上|加) {b:number} => expression={a} + {b}", "{a} 加上 {b} 等于 {output}。"),
    ("把 {a:number} (减去|减) {b:number} => expression={a} - {b}", "{a} 减去 {b} 等于 {output}。"),
    (
        "{a:number} (是|占) {b:number} 的 (百分之几|百分之多少|多少百分比|几分之几) => expression={a} / {b} * 100",
        "{a} 是 {b} 的 {output}%。",
    ),
    ("{a:number} (增加|增长|提高) {b:expression} => expression={a} + {b}", "{a} 增加 {b} 后是 {output}。"),
    ("{a:number} (减少|降低|下降) {b:expression} => expression={a} - {b}", "{a} 减少 {b} 后是 {output}。"),
    ("[计算|求] {a:number} (的平方根|开平方|开方) => expression=sqrt({a})", "{a} 的平方根是 {output}。"),
    ("[计算|求] {a:number} (的立方根|开立方) => expression=cbrt({a})", "{a} 的立方根是 {output}。"),
    ("[计算|求] {a:number} 的平方 => expression=({a}) ^ 2", "{a} 的平方是 {output}。"),
    ("[计算|求] {a:number} 的立方 => expression=({a}) ^ 3", "{a} 的立方是 {output}。"),
    ("[计算|求] {a:number} 的 {b:number} (次方|次幂) => expression=({a}) ^ {b}", "{a} 的 {b} 次方是 {output}。"),
    ("[计算|求] {a:number} 的阶乘 => expression=factorial({a})", "{a} 的阶乘是 {output}。"),
    ("[计算|求] {a:number} 的绝对值 => expression=abs({a})", "{a} 的绝对值是 {output}。"),
    ("[计算|求] {a:number} 的 (一半|二分之一) => expression={a} / 2", "{a} 的一半是 {output}。"),
    ("[计算|求] {a:number} 的 {b:number} 倍 => expression={a} * {b}", "{a} 的 {b} 倍是 {output}。"),
    ("[计算|求] {numbers:numbers} 的最大公约数 => expression=gcd({numbers})", "{numbers} 的最大公约数是 {output}。"),
    ("[计算|求] {numbers:numbers} 的最小公倍数 => expression=lcm({numbers})", "{numbers} 的最小公倍数是 {output}。"),
    (
        "[把] {a:number} (四舍五入到|四舍五入|保留) [小数点后] {places:integer} (位小数|位) => expression=round({a}, {places})",
        "{a} 保留 {places} 位小数是 {output}。",
    ),
    ("[把] {a:number} (四舍五入|取整) [到整数] => expression=round({a})", "{a} 四舍五入后是 {output}。"),
    ("(加上|加) {b:number} => expression={it:number} + {b}", "{it} + {b} = {output}。"),
    ("(减去|减) {b:number} => expression={it:number} - {b}", "{it} - {b} = {output}。"),
    ("(乘以|乘上|乘) {b:number} => expression={it:number} * {b}", "{it} * {b} = {output}。"),
    ("[取|求|再] (平方根|开平方|开方) => expression=sqrt({it:number})", "{it} 的平方根是 {output}。"),
    ("除以 {b:number} => expression={it:number} / {b}", "{it} / {b} = {output}。"),
    (
        "(保留|四舍五入到) [小数点后] {places:integer} (位小数|位) => expression=round({it:number}, {places})",
        "{it} 保留 {places} 位小数是 {output}。",
    ),
)

CALCULATE: Final = (
    *(Phrase(pattern, answer, "en") for pattern, answer in _ENGLISH),
    *(Phrase(pattern, answer, "zh") for pattern, answer in _CHINESE),
)
"""The phrases of ``math.calculate``."""
