"""How people ask for the tools of text, in English and Chinese."""

# ruff: noqa: E501, RUF001 - a phrase stands on one line; Chinese has its own commas
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from autoglm.model import Phrase


def _phrases(english: Iterable[tuple[str, str]], chinese: Iterable[tuple[str, str]]) -> tuple[Phrase, ...]:
    return (
        *(Phrase(pattern, answer, "en") for pattern, answer in english),
        *(Phrase(pattern, answer, "zh") for pattern, answer in chinese),
    )


_HAS_EN: Final = "The text has {output} {what}."
_OF_EN: Final = '"{of}" occurs {output} times.'
_OF_ZH: Final = "“{of}”出现了 {output} 次。"
_RESULT_EN: Final = 'The result is "{output}".'
_RESULT_ZH: Final = "结果是“{output}”。"
_WHAT_EN: Final = "{what:words|characters|letters|lines|sentences}"

COUNT: Final = _phrases(
    (
        (f"how many {_WHAT_EN} (are there in|are in|does|has|in) {{text:quoted}} [have|contain]", _HAS_EN),
        (f"count [the] [number of] {_WHAT_EN} (in|of) [the] [text|sentence|phrase|string] {{text:quoted}}", _HAS_EN),
        (f"[the] number of {_WHAT_EN} (in|of) {{text:quoted}}", _HAS_EN),
        ("[the] word count of {text:quoted} => what=words", "The text has {output} words."),
        ("how long is [the] [text|word|string] {text:quoted} => what=characters", "The text has {output} characters."),
        (
            "[the] length of [the] [text|word|string] {text:quoted} => what=characters",
            "The text has {output} characters.",
        ),
        (
            "(how many times|how often) (does|do|is) {of:quoted} (occur|appear|show up|found|come up) in {text:quoted} => what=occurrences",
            _OF_EN,
        ),
        ("count [the] [occurrences of] {of:quoted} in {text:quoted} => what=occurrences", _OF_EN),
        (
            "how many [times] [the] [letter|letters|word] {of:quoted} [are|are there|is] in {text:quoted} => what=occurrences",
            _OF_EN,
        ),
        (
            "how many [times] [the] [letter|letters] {of:letter} (are|are there|is|is there|does|occur|appear) [there] in [the word] {text:quoted} => what=occurrences; ignore_case=true",
            '"{of}" occurs {output} times in "{text}".',
        ),
        (
            "how many [letter|letters] {of:letter} (are|are there|is|is there) in [the word] {text:word} => what=occurrences; ignore_case=true",
            '"{of}" occurs {output} times in "{text}".',
        ),
        (f"how many {_WHAT_EN} (are there in|are in) {{text:text}}", _HAS_EN),
        (f"count [the] [number of] {_WHAT_EN} (in|of) [the] [text|sentence|phrase|string|word] {{text:text}}", _HAS_EN),
        (f"count [the] [number of] {_WHAT_EN} => text={{it}}", _HAS_EN),
        (f"how many {_WHAT_EN} [are there] => text={{it}}", _HAS_EN),
        (
            "how many [letter|letters] {of:word} (are|are there) in [the word] {text:word} => what=occurrences; ignore_case=true",
            '"{of}" occurs {output} times in "{text}".',
        ),
    ),
    (
        (
            "{text:quoted} [里|中] [一共] (有多少个字|有多少字|有几个字|多少个字|多少字) => what=words",
            "共有 {output} 个字。",
        ),
        (
            "{text:quoted} [里|中] [一共] (有多少个字符|有几个字符|多少个字符) => what=characters",
            "共有 {output} 个字符。",
        ),
        (
            "{text:quoted} [里|中] [一共] (有多少个单词|有几个单词|有多少个词|多少个单词) => what=words",
            "共有 {output} 个单词。",
        ),
        ("{text:quoted} [里|中] [一共] (有多少行|有几行|多少行) => what=lines", "共有 {output} 行。"),
        (
            "(统计|计算|数|数一数) {text:quoted} [的|有] [多少] (字数|个字|单词数|词数) => what=words",
            "共有 {output} 个字。",
        ),
        ("(统计|计算|数|数一数) {text:quoted} 的 (字符数|长度) => what=characters", "共有 {output} 个字符。"),
        (
            "(统计|计算|数|数一数) [有多少|有|多少] (字数|个字|单词数|词数) => text={it}; what=words",
            "共有 {output} 个字。",
        ),
        ("[一共] (有多少个字|有多少字|有几个字) => text={it}; what=words", "共有 {output} 个字。"),
        ("(统计|计算|数|数一数) (字符数|长度) => text={it}; what=characters", "共有 {output} 个字符。"),
        ("{of:quoted} 在 {text:quoted} [里|中] 出现 [了] (多少次|几次) => what=occurrences", _OF_ZH),
        ("{text:quoted} [里|中] (有多少个|有几个) {of:quoted} => what=occurrences", _OF_ZH),
        ("(统计|数|数一数) {of:quoted} 在 {text:quoted} [里|中] [出现] 的次数 => what=occurrences", _OF_ZH),
    ),
)

_CASES_EN: Final = (
    ("(uppercase|upper case|all caps|capitals|capital letters)", "upper"),
    ("(lowercase|lower case|small letters)", "lower"),
    ("title case", "title"),
    ("(snake|snake_case|snake case)", "snake"),
    ("(kebab case|kebab-case)", "kebab"),
    ("(camel case|camelCase)", "camel"),
    ("(pascal case|PascalCase)", "pascal"),
)
_CASES_ZH: Final = (
    ("大写 [字母]", "upper"),
    ("小写 [字母]", "lower"),
    ("(标题格式|首字母大写)", "title"),
    ("(蛇形命名|下划线命名)", "snake"),
    ("(驼峰命名|驼峰)", "camel"),
)

CASE: Final = _phrases(
    (
        ("(uppercase|upcase|capitalise all of) {text:text} => case=upper", _RESULT_EN),
        ("(lowercase|downcase) {text:text} => case=lower", _RESULT_EN),
        *(
            (f"(convert|change|turn|make|put|write) {{text:text}} [in|into|to] {names} => case={case}", _RESULT_EN)
            for names, case in _CASES_EN
        ),
        ("(capitalize|capitalise) {text:text} => case=capitalize", _RESULT_EN),
        ("(title case|titlecase) {text:text} => case=title", _RESULT_EN),
        ("swap the case of {text:text} => case=swap", _RESULT_EN),
        ("(uppercase|upcase) => text={it}; case=upper", _RESULT_EN),
        ("(lowercase|downcase) => text={it}; case=lower", _RESULT_EN),
        ("(capitalize|capitalise) => text={it}; case=capitalize", _RESULT_EN),
        ("(title case|titlecase) => text={it}; case=title", _RESULT_EN),
        *(
            (f"(convert|change|turn|put|write) (in|into|to) {names} => text={{it}}; case={case}", _RESULT_EN)
            for names, case in _CASES_EN
        ),
    ),
    (
        *(
            (
                f"[把|将] {{text:text}} (转换成|转换为|转成|转为|变成|变为|改成|改为|换成) [全部] {names} => case={case}",
                _RESULT_ZH,
            )
            for names, case in _CASES_ZH
        ),
        ("(大写|转大写) {text:text} => case=upper", _RESULT_ZH),
        ("(小写|转小写) {text:text} => case=lower", _RESULT_ZH),
        ("(大写|转大写) => text={it}; case=upper", _RESULT_ZH),
        ("(小写|转小写) => text={it}; case=lower", _RESULT_ZH),
        *(
            (
                f"(转换成|转换为|转成|转为|变成|变为|改成|改为|换成) [全部] {names} => text={{it}}; case={case}",
                _RESULT_ZH,
            )
            for names, case in _CASES_ZH
        ),
    ),
)

_KINDS_EN: Final = (
    ("(emails|email addresses|e-mails|e-mail addresses|email)", "emails"),
    ("(urls|links|web addresses|url)", "urls"),
    ("numbers", "numbers"),
    ("dates", "dates"),
    ("hashtags", "hashtags"),
    ("mentions", "mentions"),
    ("words", "words"),
)
_KINDS_ZH: Final = (
    ("(邮箱地址|电子邮箱|电子邮件地址|电子邮件|邮箱|邮件地址)", "emails"),
    ("(网址|链接)", "urls"),
    ("(数字|数)", "numbers"),
    ("日期", "dates"),
    ("(话题标签|话题|标签)", "hashtags"),
    ("(单词|词)", "words"),
)

EXTRACT: Final = _phrases(
    (
        *(
            (
                f"(extract|find|get|list|show|pull out|pull) [all] [the] {names} (from|in|of) {{text:text}} => what={kind}",
                "Found {output.count}[: {output}].",
            )
            for names, kind in _KINDS_EN
        ),
        *(
            (
                f"(what|which) {names} (are|are there) in {{text:text}} => what={kind}",
                "Found {output.count}[: {output}].",
            )
            for names, kind in _KINDS_EN
        ),
        *(
            (
                f"(extract|find|get|list|show|pull out|pull) [all] [the] {names} => text={{it}}; what={kind}",
                "Found {output.count}[: {output}].",
            )
            for names, kind in _KINDS_EN
        ),
    ),
    (
        *(
            (
                f"[从|在] {{text:text}} [里|中|里面] (提取|找出|抽取|查找|提取出) [所有] [的] {names} => what={kind}",
                "找到 {output.count} 个[：{output}]。",
            )
            for names, kind in _KINDS_ZH
        ),
        *(
            (
                f"(提取|找出|抽取|查找|列出) {{text:text}} [里|中|里面] [的] [所有] [的] {names} => what={kind}",
                "找到 {output.count} 个[：{output}]。",
            )
            for names, kind in _KINDS_ZH
        ),
        *(
            (
                f"(提取|找出|抽取|查找|列出) [所有|其中] [的] {names} => text={{it}}; what={kind}",
                "找到 {output.count} 个[：{output}]。",
            )
            for names, kind in _KINDS_ZH
        ),
    ),
)

REPLACE: Final = _phrases(
    (
        ("replace [all] [the] {old:quoted} (with|by) {new:quoted} in {text:text}", _RESULT_EN),
        ("in {text:quoted} [,] replace [all] {old:quoted} (with|by) {new:quoted}", _RESULT_EN),
        ("(change|swap) [all] {old:quoted} (to|for|into) {new:quoted} in {text:text}", _RESULT_EN),
        ("replace [all] {old:word} (with|by) {new:word} in {text:quoted}", _RESULT_EN),
        ('(remove|delete) [all] {old:quoted} (from|in) {text:text} => new=""', _RESULT_EN),
        ("replace [all] [the] {old:quoted} (with|by) {new:quoted} => text={it}", _RESULT_EN),
        ('(remove|delete) [all] {old:quoted} => text={it}; new=""', _RESULT_EN),
    ),
    (
        (
            "[把|将] {text:quoted} [里|中|里面] [的] {old:quoted} (替换成|替换为|换成|改成|改为) {new:quoted}",
            _RESULT_ZH,
        ),
        (
            "[在] {text:quoted} [里|中|里面] [,] (用 {new:quoted} 替换|把) {old:quoted} [(替换成|换成|改成) {new:quoted}]",
            _RESULT_ZH,
        ),
        (
            "[把|将] {text:quoted} (里|中|里面) [的] {old:word} (替换成|替换为|换成|改成|改为) {new:word}",
            _RESULT_ZH,
        ),
        ('(删除|去掉|移除) {text:quoted} [里|中|里面] [的] {old:quoted} => new=""', _RESULT_ZH),
        ("[把|将] {old:quoted} (替换成|替换为|换成|改成|改为) {new:quoted} => text={it}", _RESULT_ZH),
        ('(删除|去掉|移除) [其中的|里面的] {old:quoted} => text={it}; new=""', _RESULT_ZH),
        ('[从] {text:quoted} [里|中|里面] (删除|去掉|移除) {old:quoted} => new=""', _RESULT_ZH),
    ),
)

REVERSE: Final = _phrases(
    (
        ("reverse [the] [text|word|string|letters of] {text:text}", _RESULT_EN),
        ("(spell|write|say) {text:text} (backwards|backward|in reverse)", _RESULT_EN),
        ("reverse the (words|word order) (in|of) {text:text} => by=words", _RESULT_EN),
        ("reverse the (lines|line order) (in|of) {text:text} => by=lines", _RESULT_EN),
        ("reverse [the (text|word|string|letters)] => text={it}", _RESULT_EN),
        ("(spell|write|say) (backwards|backward|in reverse) => text={it}", _RESULT_EN),
        ("reverse the (words|word order) => text={it}; by=words", _RESULT_EN),
        ("reverse the (lines|line order) => text={it}; by=lines", _RESULT_EN),
    ),
    (
        ("[把|将] {text:text} (反转|倒过来|倒序|颠倒|反过来) [写]", _RESULT_ZH),
        ("(反转|倒写|颠倒) {text:text}", _RESULT_ZH),
        ("(反转|倒过来|倒序|颠倒|反过来|倒写) [写|过来] => text={it}", _RESULT_ZH),
    ),
)

SORT: Final = _phrases(
    (
        (
            "(sort|alphabetize|alphabetise) [the] [list|lines|words|numbers] [of|in] {text:text} [alphabetically|in alphabetical order|in ascending order|ascending]",
            _RESULT_EN,
        ),
        # Said alone, to order something is to buy it.
        ("order [the] (list|lines|words|numbers) [of|in] {text:text} [alphabetically|ascending]", _RESULT_EN),
        ("order {text:text} (alphabetically|in alphabetical order|in ascending order|ascending)", _RESULT_EN),
        (
            "(sort|order) [the] [list|lines|words|numbers] [of|in] {text:text} (descending|in descending order|in reverse order|from largest to smallest) => descending=true",
            _RESULT_EN,
        ),
        (
            "(sort|alphabetize|alphabetise) [alphabetically|in alphabetical order|in ascending order|ascending] => text={it:texts}",
            _RESULT_EN,
        ),
        (
            "sort (descending|in descending order|in reverse order|from largest to smallest) => text={it:texts}; descending=true",
            _RESULT_EN,
        ),
    ),
    (
        ("[把|将|给] {text:text} (排序|排列|升序排列|从小到大排序|从小到大排列|按升序排列)", _RESULT_ZH),
        ("[把|将|给] {text:text} (降序排列|从大到小排序|从大到小排列|按降序排列) => descending=true", _RESULT_ZH),
        ("(排序|升序排列|从小到大排序|从小到大排列|按升序排列) => text={it:texts}", _RESULT_ZH),
        ("(降序排列|从大到小排序|从大到小排列|按降序排列) => text={it:texts}; descending=true", _RESULT_ZH),
    ),
)

JOIN: Final = _phrases(
    (
        ("(join|concatenate|combine) {parts:json} [together] [(with|by|using) {separator:quoted}]", _RESULT_EN),
        ("(join|concatenate|combine) {parts:json} separated by {separator:quoted}", _RESULT_EN),
        ("(join|concatenate|combine) {parts:texts} [(with|by|using|separated by) {separator:quoted}]", _RESULT_EN),
    ),
    (
        ("[用 {separator:quoted}] (拼接|连接|合并) {parts:json}", _RESULT_ZH),
        ("[把|将] {parts:json} [用 {separator:quoted}] (拼接|连接|合并) [起来|在一起]", _RESULT_ZH),
        ("[把|将] {parts:texts} [用 {separator:quoted}] (拼接|连接|合并) [起来|在一起]", _RESULT_ZH),
    ),
)
