"""How people ask for the tools of text, in English and Chinese."""

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
_HAS_ZH: Final = "共有 {output} 个{what}。"
_OF_EN: Final = '"{of}" occurs {output} times.'
_OF_ZH: Final = "“{of}”出现了 {output} 次。"
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
        ("{of:quoted} 在 {text:quoted} [里|中] 出现 [了] (多少次|几次) => what=occurrences", _OF_ZH),
        ("{text:quoted} [里|中] (有多少个|有几个) {of:quoted} => what=occurrences", _OF_ZH),
        ("(统计|数|数一数) {of:quoted} 在 {text:quoted} [里|中] [出现] 的次数 => what=occurrences", _OF_ZH),
    ),
)

CASE: Final = _phrases(
    (
        ("(uppercase|upcase|capitalise all of) {text:text} => case=upper", "{output}"),
        ("(lowercase|downcase) {text:text} => case=lower", "{output}"),
        (
            "(convert|change|turn|make|put|write) {text:text} [in|into|to] (uppercase|upper case|all caps|capitals|capital letters) => case=upper",
            "{output}",
        ),
        (
            "(convert|change|turn|make|put|write) {text:text} [in|into|to] (lowercase|lower case|small letters) => case=lower",
            "{output}",
        ),
        ("(convert|change|turn|make|put|write) {text:text} [in|into|to] title case => case=title", "{output}"),
        (
            "(convert|change|turn|make|put|write) {text:text} [in|into|to] (snake|snake_case|snake case) => case=snake",
            "{output}",
        ),
        (
            "(convert|change|turn|make|put|write) {text:text} [in|into|to] (kebab case|kebab-case) => case=kebab",
            "{output}",
        ),
        (
            "(convert|change|turn|make|put|write) {text:text} [in|into|to] (camel case|camelCase) => case=camel",
            "{output}",
        ),
        (
            "(convert|change|turn|make|put|write) {text:text} [in|into|to] (pascal case|PascalCase) => case=pascal",
            "{output}",
        ),
        ("(capitalize|capitalise) {text:text} => case=capitalize", "{output}"),
        ("(title case|titlecase) {text:text} => case=title", "{output}"),
        ("swap the case of {text:text} => case=swap", "{output}"),
    ),
    (
        (
            "[把|将] {text:text} (转换成|转换为|转成|转为|变成|改成|改为|换成) [全部] 大写 [字母] => case=upper",
            "{output}",
        ),
        (
            "[把|将] {text:text} (转换成|转换为|转成|转为|变成|改成|改为|换成) [全部] 小写 [字母] => case=lower",
            "{output}",
        ),
        (
            "[把|将] {text:text} (转换成|转换为|转成|转为|变成|改成|改为|换成) (标题格式|首字母大写) => case=title",
            "{output}",
        ),
        (
            "[把|将] {text:text} (转换成|转换为|转成|转为|变成|改成|改为|换成) (蛇形命名|下划线命名) => case=snake",
            "{output}",
        ),
        ("[把|将] {text:text} (转换成|转换为|转成|转为|变成|改成|改为|换成) (驼峰命名|驼峰) => case=camel", "{output}"),
        ("(大写|转大写) {text:text} => case=upper", "{output}"),
        ("(小写|转小写) {text:text} => case=lower", "{output}"),
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
    ),
    (
        *(
            (
                f"[从|在] {{text:text}} [里|中|里面] (提取|找出|抽取|查找|提取出) [所有] [的] {names} => what={kind}",
                "找到 {output.count} 个[：{output}]。",
            )  # noqa: RUF001  # Chinese
            for names, kind in _KINDS_ZH
        ),
        *(
            (
                f"(提取|找出|抽取|查找|列出) {{text:text}} [里|中|里面] [的] [所有] [的] {names} => what={kind}",
                "找到 {output.count} 个[：{output}]。",
            )  # noqa: RUF001  # Chinese
            for names, kind in _KINDS_ZH
        ),
    ),
)

REPLACE: Final = _phrases(
    (
        ("replace [all] [the] {old:quoted} (with|by) {new:quoted} in {text:text}", "{output}"),
        ("in {text:quoted} [,] replace [all] {old:quoted} (with|by) {new:quoted}", "{output}"),
        ("(change|swap) [all] {old:quoted} (to|for|into) {new:quoted} in {text:text}", "{output}"),
        ('(remove|delete) [all] {old:quoted} (from|in) {text:text} => new=""', "{output}"),
    ),
    (
        (
            "[把|将] {text:quoted} [里|中|里面] [的] {old:quoted} (替换成|替换为|换成|改成|改为) {new:quoted}",
            "{output}",
        ),
        (
            "[在] {text:quoted} [里|中|里面] [,] (用 {new:quoted} 替换|把) {old:quoted} [(替换成|换成|改成) {new:quoted}]",
            "{output}",
        ),
        ('(删除|去掉|移除) {text:quoted} [里|中|里面] [的] {old:quoted} => new=""', "{output}"),
        ('[从] {text:quoted} [里|中|里面] (删除|去掉|移除) {old:quoted} => new=""', "{output}"),
    ),
)

REVERSE: Final = _phrases(
    (
        ("reverse [the] [text|word|string|letters of] {text:text}", "{output}"),
        ("(spell|write|say) {text:text} (backwards|backward|in reverse)", "{output}"),
        ("reverse the (words|word order) (in|of) {text:text} => by=words", "{output}"),
        ("reverse the (lines|line order) (in|of) {text:text} => by=lines", "{output}"),
    ),
    (
        ("[把|将] {text:text} (反转|倒过来|倒序|颠倒|反过来) [写]", "{output}"),
        ("(反转|倒写|颠倒) {text:text}", "{output}"),
    ),
)

SORT: Final = _phrases(
    (
        (
            "(sort|order|alphabetize|alphabetise) [the] [list|lines|words|numbers] [of|in] {text:text} [alphabetically|in alphabetical order|in ascending order|ascending]",
            "{output}",
        ),
        (
            "(sort|order) [the] [list|lines|words|numbers] [of|in] {text:text} (descending|in descending order|in reverse order|from largest to smallest) => descending=true",
            "{output}",
        ),
    ),
    (
        ("[把|将|给] {text:text} (排序|排列|升序排列|从小到大排序|从小到大排列|按升序排列)", "{output}"),
        ("[把|将|给] {text:text} (降序排列|从大到小排序|从大到小排列|按降序排列) => descending=true", "{output}"),
    ),
)

JOIN: Final = _phrases(
    (
        ('(join|concatenate|combine) {a:quoted} (and|with) {b:quoted} => parts=["{a}", "{b}"]', "{output}"),
        (
            '(join|concatenate|combine) {a:quoted} (and|with) {b:quoted} (using|separated by|with) {separator:quoted} => parts=["{a}", "{b}"]',
            "{output}",
        ),
    ),
    (('[把|将] {a:quoted} (和|与) {b:quoted} (拼接|连接|合并) [起来|在一起] => parts=["{a}", "{b}"]', "{output}"),),
)
