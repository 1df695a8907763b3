"""How people ask for the tools of time, in English and Chinese."""

# ruff: noqa: E501, ISC004, RUF001 - a phrase stands on one line; Chinese has its own commas
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from autoglm.model import Phrase

_UNIT_EN: Final = (
    "{unit:seconds|second|minutes|minute|hours|hour|days|day|weeks|week|months|month|quarters|quarter|years|year"
    "|business days|business day|working days|working day|weekdays}"
)
_UNIT_ZH: Final = "{unit:秒|分钟|个小时|小时|天|周|个星期|星期|个月|月|年|个工作日|工作日}"


def _phrases(english: Iterable[tuple[str, str]], chinese: Iterable[tuple[str, str]]) -> tuple[Phrase, ...]:
    return (
        *(Phrase(pattern.replace("UNIT", _UNIT_EN), answer, "en") for pattern, answer in english),
        *(Phrase(pattern.replace("UNIT", _UNIT_ZH), answer, "zh") for pattern, answer in chinese),
    )


_TIME_EN: Final = "It is {output.time} on {output.weekday}, {output.date} ({output.zone})."
_DATE_EN: Final = "It is {output.weekday}, {output.date} ({output.zone})."
_TIME_ZH: Final = "现在是 {output.date} {output.weekday_zh} {output.time}（{output.zone}）。"
_DATE_ZH: Final = "今天是 {output.date}，{output.weekday_zh}（{output.zone}）。"

NOW: Final = _phrases(
    (
        ("what time is it [right] [now] [(in|at) {zone:name}] [right] [now]", _TIME_EN),
        ("what time it is [right] [now] [(in|at) {zone:name}] [right] [now]", _TIME_EN),
        ("what [is] [the] [current] time [is it] (in|at) {zone:name} [right] [now]", _TIME_EN),
        ("[the] [current|local] time [right] [now] [(in|at) {zone:name}] [right] [now]", _TIME_EN),
        ("what time", _TIME_EN),
        ("what date is it [today|now] [(in|at) {zone:name}]", _DATE_EN),
        ("[the] [current] date [today|now] [(in|at) {zone:name}]", _DATE_EN),
        ("today's date [(in|at) {zone:name}]", _DATE_EN),
        ("what [is] today's date", _DATE_EN),
    ),
    (
        ("现在 [是] [{zone:name}] [当地] [的] [时间] [是] 几点 [了|钟]", _TIME_ZH),
        ("{zone:name} [当地] [现在|目前] [的] [时间] [是] 几点 [了|钟]", _TIME_ZH),
        ("几点 [了|钟了]", _TIME_ZH),
        ("[{zone:name}] (现在|当前|目前) [的] 时间", _TIME_ZH),
        ("(现在|当前|目前) {zone:name} [的] 时间", _TIME_ZH),
        ("[现在|当前] [的] 时间", _TIME_ZH),
        ("{zone:name} [的] 时间", _TIME_ZH),
        ("[{zone:name}] 今天 [是] (几号|几月几号|几月几日|多少号|什么日期)", _DATE_ZH),
        ("(今天|当前|现在) [的] 日期", _DATE_ZH),
    ),
)

_THERE_EN: Final = (
    "{time} in {from_zone} is {output.time} on {output.weekday}, {output.date}, in {to_zone}.[ Note: {output.note}.]"
)
_THERE_ZH: Final = "{from_zone} {time} 是 {to_zone} {output.date} {output.time}（{output.weekday_zh}）。"

_LEAD_EN: Final = "{to_zone} is {output.lead} {from_zone} now."
_LEAD_ZH: Final = "与{from_zone}相比，{to_zone}现在{output.lead_zh}。"

CONVERT: Final = _phrases(
    (
        (
            "[convert|change] {time:time} (in|from) {from_zone:name} [time] (to|in|into) {to_zone:name} [time]",
            _THERE_EN,
        ),
        ("[convert|change] {time:time} {from_zone:name} [time] (to|in|into) {to_zone:name} [time]", _THERE_EN),
        ("what time is {time:time} [(in|from)] {from_zone:name} [time] in {to_zone:name} [time]", _THERE_EN),
        ("what time is it in {to_zone:name} (when|if) it is {time:time} in {from_zone:name}", _THERE_EN),
        ("(when|if) it is {time:time} in {from_zone:name} [,] what time is it in {to_zone:name}", _THERE_EN),
        (
            "[convert|change] {day:date} [at] {clock:time} (in|from) {from_zone:name} [time] (to|in|into) {to_zone:name} [time] "
            "=> time={day} {clock}",
            "That is {output.time} on {output.weekday}, {output.date}, in {to_zone}.",
        ),
        (
            "[the] time [zone] difference (between|from) {from_zone:name} (and|to) {to_zone:name} [in hours] => time=now",
            _LEAD_EN,
        ),
        (
            "[the] difference in time (between|from) {from_zone:name} (and|to) {to_zone:name} [in hours] => time=now",
            _LEAD_EN,
        ),
        ("how many hours (apart are|are|is) {from_zone:name} and {to_zone:name} [apart] => time=now", _LEAD_EN),
        (
            "how many hours (ahead of|behind) {from_zone:name} is {to_zone:name} => time=now",
            _LEAD_EN,
        ),
        (
            "how many hours is {to_zone:name} (ahead of|behind) {from_zone:name} => time=now",
            _LEAD_EN,
        ),
    ),
    (
        (
            "[把|将] {from_zone:name} [时间|的] {time:time} (转换成|换算成|转换为|换算为|转成|是|在|等于) {to_zone:name} [的] [几点|时间|什么时间]",
            _THERE_ZH,
        ),
        ("{time:time} 在 {from_zone:name} (是|等于) [在] {to_zone:name} [的] 几点", _THERE_ZH),
        ("[当] {from_zone:name} [时间] [是] {time:time} [时|的时候] {to_zone:name} [时间] [是] 几点", _THERE_ZH),
        (
            "[把|将] {from_zone:name} [时间|的] {day:date} {clock:time} (转换成|换算成|转换为|是|在) {to_zone:name} [的] [几点|时间] "
            "=> time={day} {clock}",
            "那是 {to_zone} {output.date} {output.time}（{output.weekday_zh}）。",
        ),
        (
            "{from_zone:name} (和|与|跟|同) {to_zone:name} [之间] [的] [现在] (时差|时间差|时间相差) [是|有|为] [多少|几] [个] [小时] "
            "=> time=now",
            _LEAD_ZH,
        ),
        ("{from_zone:name} (和|与|跟|同) {to_zone:name} (相差|差) (多少|几) [个] 小时 => time=now", _LEAD_ZH),
    ),
)

_FROM_EN: Final = "{amount} {unit} after {date} is {output.weekday}, {output}."
_AGO_EN: Final = "{amount} {unit} before {date} is {output.weekday}, {output}."
_FROM_ZH: Final = "{date} 之后 {amount} {unit} 是 {output}，{output.weekday_zh}。"
_AGO_ZH: Final = "{date} 之前 {amount} {unit} 是 {output}，{output.weekday_zh}。"

ADD: Final = _phrases(
    (
        ("add {amount:integer} UNIT to {date:date}", _FROM_EN),
        ("{date:date} plus {amount:integer} UNIT", _FROM_EN),
        ("[what] [date|day] [is] {amount:integer} UNIT (after|from|past) {date:date}", _FROM_EN),
        (
            "[what] (date|day) (is|will it be) [it] [in] {amount:integer} UNIT [from now|from today|later]",
            "It will be {output.weekday}, {output}.",
        ),
        (
            "[what] [is] [the] [date|day] {amount:integer} UNIT from (now|today)",
            "It will be {output.weekday}, {output}.",
        ),
        ("[what] [is] [the] date in {amount:integer} UNIT", "It will be {output.weekday}, {output}."),
        ("subtract {amount:integer} UNIT from {date:date} => direction=before", _AGO_EN),
        ("{date:date} minus {amount:integer} UNIT => direction=before", _AGO_EN),
        ("[what] [date|day] [is|was] {amount:integer} UNIT before {date:date} => direction=before", _AGO_EN),
        (
            "[what] [is|was] [the] [date|day] [was|was it] {amount:integer} UNIT ago => direction=before",
            "That was {output.weekday}, {output}.",
        ),
    ),
    (
        ("{date:date} [的] {amount:integer} UNIT (之后|以后|后) [是] [几号|哪天|哪一天|什么日期|几月几号]", _FROM_ZH),
        (
            "{date:date} [之后|往后|再过|加上|加|过] {amount:integer} UNIT [之后|以后|后] [是] [几号|哪天|哪一天|什么日期|几月几号]",
            _FROM_ZH,
        ),
        (
            "{amount:integer} UNIT (之后|以后|后) [是] (几号|哪天|哪一天|什么日期|几月几号|哪一年)",
            "那天是 {output}，{output.weekday_zh}。",
        ),
        (
            "[再] 过 {amount:integer} UNIT [是] (几号|哪天|哪一天|什么日期|几月几号)",
            "那天是 {output}，{output.weekday_zh}。",
        ),
        (
            "{date:date} (减去|减|往前) {amount:integer} UNIT [是] [几号|哪天|哪一天|什么日期] => direction=before",
            _AGO_ZH,
        ),
        (
            "{date:date} [的] {amount:integer} UNIT (之前|以前|前) [是] [几号|哪天|哪一天|什么日期] => direction=before",
            _AGO_ZH,
        ),
        (
            "{amount:integer} UNIT (之前|以前|前) [是] (几号|哪天|哪一天|什么日期|几月几号) => direction=before",
            "那天是 {output}，{output.weekday_zh}。",
        ),
    ),
)

_BETWEEN_EN: Final = "There are {output} {unit} from {start} to {end}."
_BETWEEN_ZH: Final = "从 {start} 到 {end} 有 {output} {unit}。"

DIFFERENCE: Final = _phrases(
    (
        ("[how many] UNIT [are there|is it] (between|from) {start:date} (and|to|until|till) {end:date}", _BETWEEN_EN),
        ("[the] [number of] UNIT (between|from) {start:date} (and|to|until|till) {end:date}", _BETWEEN_EN),
        (
            "how long is it (from|between) {start:date} (to|until|till|and) {end:date}",
            "It is {output} days from {start} to {end}.",
        ),
        (
            "[the] (difference|time) between {start:date} and {end:date} [in UNIT]",
            "It is {output} {output.unit} from {start} to {end}.",
        ),
        (
            "how many [more] UNIT [are|are there|is it|is there] [left|there|to go|remaining] (until|till|to|before) {end:date} => start=today",
            "There are {output} {unit} until {end}.",
        ),
        (
            "how many UNIT [are] [left|there] (until|till|to|before) {end:Christmas|New Year|Halloween} => start=today",
            "There are {output} {unit} until {end}.",
        ),
        ("how long [is it] (until|till) {end:date} => start=today", "It is {output} days until {end}."),
        (
            "how many UNIT [has it been|have passed] since {start:date} => end=today",
            "It has been {output} {unit} since {start}.",
        ),
        ("how long [has it been|is it] since {start:date} => end=today", "It has been {output} days since {start}."),
    ),
    (
        (
            "[从] {start:date} (到|至|和|与|距离|距|离) {end:date} [之间|中间] [一共|总共] [还] [有|是|相差|隔|相隔|差|剩|要] [多少|几] UNIT",
            _BETWEEN_ZH,
        ),
        (
            "[从] {start:date} (到|至|和|与) {end:date} [之间] (有多久|多久|相差多久|隔了多久)",
            "从 {start} 到 {end} 有 {output} 天。",
        ),
        (
            "[现在|今天] (距离|距|离|到) {end:date} [还] (有|剩|差) (多少|几) UNIT => start=today",
            "距离 {end} 还有 {output} {unit}。",
        ),
        (
            "[现在|今天] (距离|距|离|到) {end:圣诞节|元旦|国庆节|劳动节} [还] (有|剩|差) (多少|几) UNIT => start=today",
            "距离 {end} 还有 {output} {unit}。",
        ),
        (
            "[从] {start:date} (到现在|到今天|至今) [已经] [过了|有] (多少|几) UNIT => end=today",
            "从 {start} 到今天有 {output} {unit}。",
        ),
    ),
)

_WEEKDAY_EN: Final = "{date} is a {output}."
_WEEKDAY_ZH: Final = "{date} 是 {output.weekday_zh}。"

WEEKDAY: Final = _phrases(
    (
        ("(what|which) day [of the week] (is|was|will) [it] [be] [on] {date:date} [be|fall on]", _WEEKDAY_EN),
        ("(what|which) weekday (is|was) {date:date}", _WEEKDAY_EN),
        ("(what|which) (day of the week|weekday) {date:date} (is|was)", _WEEKDAY_EN),
        ("[the] (day of the week|weekday) [(of|for|on)] {date:date}", _WEEKDAY_EN),
        ("[the] date [of|on|for] {date:date}", "That is {output}, {output.date}."),
        ("(what|which) date (is|was|will be) [it] {date:date}", "That is {output}, {output.date}."),
        ("[the] date of {date:Christmas|New Year|Halloween}", "That is {output}, {output.date}."),
        ("tomorrow's date => date=tomorrow", "That is {output}, {output.date}."),
        ("yesterday's date => date=yesterday", "That is {output}, {output.date}."),
        ("what day (is it|is today) [today] => date=today", "Today is {output}, {output.date}."),
        ("(what|which) day of the week (is it|is today) => date=today", "Today is {output}, {output.date}."),
    ),
    (
        ("{date:date} (是|那天是) (星期几|周几|礼拜几)", _WEEKDAY_ZH),
        ("{date:date} (星期几|周几|礼拜几)", _WEEKDAY_ZH),
        ("{date:date} [是] (几号|几月几号|几月几日|多少号|什么日期)", "那天是 {output.date}，{output.weekday_zh}。"),
    ),
)
