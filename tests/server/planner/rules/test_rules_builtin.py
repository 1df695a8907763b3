"""What people ask of the built-in tools, as steps: a table to be read, and to be added to with every request that was misread."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from autoglm.model import StepDraft, Tool
from autoglm_server.planner.planner import PlannerError, RoundView
from autoglm_server.planner.rules import RulesPlanner, check_phrases
from autoglm_server.tools.builtin import builtin_tools

Table: TypeAlias = list[tuple[str, list[str]]]
"""A request, and its steps: the tool, its arguments as JSON, and the steps it waits for without needing their outputs."""

ENGLISH: Table = [
    (
        "15% of 2480, then convert it from kilometers to miles and what time is it in Tokyo",
        [
            'math.calculate {"expression": "15% of 2480"}',
            'units.convert {"from_unit": "kilometers", "to_unit": "miles", "value": "${step1.result}"}',
            'time.now {"zone": "Tokyo"}',
        ],
    ),
    (
        "What is 2 + 2?",
        [
            'math.calculate {"expression": "2 + 2"}',
        ],
    ),
    (
        "what's 12 times 12 and what's 100 divided by 8",
        [
            'math.calculate {"expression": "12 * 12"}',
            'math.calculate {"expression": "100 / 8"}',
        ],
    ),
    (
        "Please calculate (3 + 4) * 12.5",
        [
            'math.calculate {"expression": "(3 + 4) * 12.5"}',
        ],
    ),
    (
        "add 3 and 4, then multiply it by 10",
        [
            'math.calculate {"expression": "3 + 4"}',
            'math.calculate {"expression": "${step1.result} * 10"}',
        ],
    ),
    (
        "What is the sum of 1, 2, 3 and 4?",
        [
            'math.calculate {"expression": "sum(1, 2, 3, 4)"}',
        ],
    ),
    (
        "average of 3, 5 and 10, then round it to 1 decimal place",
        [
            'math.calculate {"expression": "average(3, 5, 10)"}',
            'math.calculate {"expression": "round(${step1.result}, 1)"}',
        ],
    ),
    (
        "how many miles are 5 kilometers",
        [
            'units.convert {"from_unit": "kilometers", "to_unit": "miles", "value": 5}',
        ],
    ),
    (
        "convert 98.6 °F to °C",
        [
            'units.convert {"from_unit": "°F", "to_unit": "°C", "value": 98.6}',
        ],
    ),
    (
        "convert 10 km to miles, then to feet",
        [
            'units.convert {"from_unit": "km", "to_unit": "miles", "value": 10}',
            'units.convert {"from_unit": "${step1.unit}", "to_unit": "feet", "value": "${step1.result}"}',
        ],
    ),
    (
        "convert 5 kg to pounds; convert 3 feet to meters; 20 celsius in fahrenheit",
        [
            'units.convert {"from_unit": "kg", "to_unit": "pounds", "value": 5}',
            'units.convert {"from_unit": "feet", "to_unit": "meters", "value": 3}',
            'units.convert {"from_unit": "celsius", "to_unit": "fahrenheit", "value": 20}',
        ],
    ),
    (
        "what time is it",
        [
            "time.now {}",
        ],
    ),
    (
        "what time is it in New York, and what time is it in London",
        [
            'time.now {"zone": "New York"}',
            'time.now {"zone": "London"}',
        ],
    ),
    (
        "what is the date today",
        [
            "time.now {}",
        ],
    ),
    (
        "How many days are there between 2026-01-01 and 2026-12-25?",
        [
            'time.difference {"end": "2026-12-25", "start": "2026-01-01", "unit": "days"}',
        ],
    ),
    (
        "what day of the week is 2026-11-22",
        [
            'time.weekday {"date": "2026-11-22"}',
        ],
    ),
    (
        "add 30 days to 2026-11-22 and tell me what day of the week it is",
        [
            'time.add {"amount": 30, "date": "2026-11-22", "unit": "days"}',
            'time.weekday {"date": "${step1.result}"}',
        ],
    ),
    (
        "what date is 3 weeks after 2026-11-22",
        [
            'time.add {"amount": 3, "date": "2026-11-22", "unit": "weeks"}',
        ],
    ),
    (
        "convert 10:30 from Berlin to Tokyo",
        [
            'time.convert {"from_zone": "Berlin", "time": "10:30", "to_zone": "Tokyo"}',
        ],
    ),
    (
        'uppercase "hello, and then goodbye"',
        [
            'text.case {"case": "upper", "text": "hello, and then goodbye"}',
        ],
    ),
    (
        'uppercase "hello" and then reverse it',
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        'count the words in "the quick brown fox"',
        [
            'text.count {"text": "the quick brown fox", "what": "words"}',
        ],
    ),
    (
        "how many letters r are in strawberry",
        [
            'text.count {"ignore_case": true, "of": "r", "text": "strawberry", "what": "occurrences"}',
        ],
    ),
    (
        'how many words are in "one, two and three"',
        [
            'text.count {"text": "one, two and three", "what": "words"}',
        ],
    ),
    (
        'replace "a" with "b" in "banana"',
        [
            'text.replace {"new": "b", "old": "a", "text": "banana"}',
        ],
    ),
    (
        'extract the emails from "write to a@b.com and c@d.org"',
        [
            'text.extract {"text": "write to a@b.com and c@d.org", "what": "emails"}',
        ],
    ),
    (
        'sort the words of "pear apple fig"',
        [
            'text.sort {"text": "pear apple fig"}',
        ],
    ),
    (
        'join "a", "b" and "c" with "-"',
        [
            'text.join {"parts": ["a", "b", "c"], "separator": "-"}',
        ],
    ),
    (
        'write "hello, world" to notes.txt, then read the file notes.txt',
        [
            'files.write {"content": "hello, world", "path": "notes.txt"}',
            'files.read {"path": "notes.txt"} after step1',
        ],
    ),
    (
        "write hello into notes.txt and read notes.txt",
        [
            'files.write {"content": "hello", "path": "notes.txt"}',
            'files.read {"path": "notes.txt"} after step1',
        ],
    ),
    (
        'write "x" to a.txt and append "y" to a.txt and list the files',
        [
            'files.write {"content": "x", "path": "a.txt"}',
            'files.append {"content": "y", "path": "a.txt"} after step1',
            "files.list {}",
        ],
    ),
    (
        "read the file ./docs/a.md then count the words in it",
        [
            'files.read {"path": "./docs/a.md"}',
            'text.count {"text": "${step1.content}", "what": "words"}',
        ],
    ),
    (
        "list the files in docs",
        [
            'files.list {"path": "docs"}',
        ],
    ),
    (
        "what is 20% of 50 + 3",
        [
            'math.calculate {"expression": "20% of 50 + 3"}',
        ],
    ),
    (
        "sqrt(144) + 1",
        [
            'math.calculate {"expression": "sqrt(144) + 1"}',
        ],
    ),
    (
        "compute 2^10, divide it by 4, and add 6 to it",
        [
            'math.calculate {"expression": "2 ^ 10"}',
            'math.calculate {"expression": "${step1.result} / 4"}',
            'math.calculate {"expression": "6 + ${step2.result}"}',
        ],
    ),
    (
        "increase 200 by 15%",
        [
            'math.calculate {"expression": "200 + 15%"}',
        ],
    ),
    (
        "how much is 15 percent of 80",
        [
            'math.calculate {"expression": "15% of 80"}',
        ],
    ),
    (
        "Could you tell me what time it is in Paris, please?",
        [
            'time.now {"zone": "Paris"}',
        ],
    ),
    (
        "1. add 1 and 2",
        [
            'math.calculate {"expression": "1 + 2"}',
        ],
    ),
    (
        "convert 372 km to miles. Then convert it to feet. What time is it in Tokyo?",
        [
            'units.convert {"from_unit": "km", "to_unit": "miles", "value": 372}',
            'units.convert {"from_unit": "${step1.unit}", "to_unit": "feet", "value": "${step1.result}"}',
            'time.now {"zone": "Tokyo"}',
        ],
    ),
    (
        "divide 100 by 7 and round it to 2 decimal places, then add 1",
        [
            'math.calculate {"expression": "100 / 7"}',
            'math.calculate {"expression": "round(${step1.result}, 2)"}',
            'math.calculate {"expression": "${step2.result} + 1"}',
        ],
    ),
    (
        "convert 5 km to miles and 3 kg to pounds",
        [
            'units.convert {"from_unit": "km", "to_unit": "miles", "value": 5}',
            'units.convert {"from_unit": "kg", "to_unit": "pounds", "value": 3}',
        ],
    ),
    (
        "what is 5 km in miles?",
        [
            'units.convert {"from_unit": "km", "to_unit": "miles", "value": 5}',
        ],
    ),
    (
        "2+2, 3+3, then the first result plus the second result",
        [
            'math.calculate {"expression": "2 + 2"}',
            'math.calculate {"expression": "3 + 3"}',
            'math.calculate {"expression": "(${step1.result}) + (${step2.result})"}',
        ],
    ),
    (
        'convert "Hello World" to snake case',
        [
            'text.case {"case": "snake", "text": "Hello World"}',
        ],
    ),
    (
        "how many seconds are in 3 days",
        [
            'units.convert {"from_unit": "days", "to_unit": "seconds", "value": 3}',
        ],
    ),
    (
        "what's 3 miles in km, then multiply it by 2",
        [
            'units.convert {"from_unit": "miles", "to_unit": "km", "value": 3}',
            'math.calculate {"expression": "${step1.result} * 2"}',
        ],
    ),
    (
        'lowercase "ABC", uppercase "def" and count the characters in it',
        [
            'text.case {"case": "lower", "text": "ABC"}',
            'text.case {"case": "upper", "text": "def"}',
            'text.count {"text": "${step2.result}", "what": "characters"}',
        ],
    ),
    (
        "subtract 5 from 20 and multiply it by 3",
        [
            'math.calculate {"expression": "20 - 5"}',
            'math.calculate {"expression": "${step1.result} * 3"}',
        ],
    ),
    (
        "what is 10% of 200, 20% of 300 and 5 * 5",
        [
            'math.calculate {"expression": "10% of 200"}',
            'math.calculate {"expression": "20% of 300"}',
            'math.calculate {"expression": "5 * 5"}',
        ],
    ),
    (
        "how many hours are in 3 days, and how many minutes are there in 2 hours?",
        [
            'units.convert {"from_unit": "days", "to_unit": "hours", "value": 3}',
            'units.convert {"from_unit": "hours", "to_unit": "minutes", "value": 2}',
        ],
    ),
    (
        "convert 100 km/h to m/s",
        [
            'units.convert {"from_unit": "km/h", "to_unit": "m/s", "value": 100}',
        ],
    ),
    (
        "convert 2 square meters to square feet then double it",
        [
            'units.convert {"from_unit": "square meters", "to_unit": "square feet", "value": 2}',
            'math.calculate {"expression": "${step1.result} * 2"}',
        ],
    ),
    (
        "how much is 12.5 * 8, then round it to the nearest integer",
        [
            'math.calculate {"expression": "12.5 * 8"}',
            'math.calculate {"expression": "round(${step1.result})"}',
        ],
    ),
    (
        "what's the time in London right now?",
        [
            'time.now {"zone": "London"}',
        ],
    ),
    (
        "when it is 10:30 in Berlin, what time is it in Tokyo",
        [
            'time.convert {"from_zone": "Berlin", "time": "10:30", "to_zone": "Tokyo"}',
        ],
    ),
    (
        "what is the date 3 weeks after today",
        [
            'time.add {"amount": 3, "date": "2026-11-22", "unit": "weeks"}',
        ],
    ),
    (
        "how many days until 2026-12-25",
        [
            'time.difference {"end": "2026-12-25", "start": "today", "unit": "days"}',
        ],
    ),
    (
        'lowercase "A AND B", then count the characters in it',
        [
            'text.case {"case": "lower", "text": "A AND B"}',
            'text.count {"text": "${step1.result}", "what": "characters"}',
        ],
    ),
    (
        'extract all numbers from "I have 3 apples and 4 pears" and count the words in "a b c"',
        [
            'text.extract {"text": "I have 3 apples and 4 pears", "what": "numbers"}',
            'text.count {"text": "a b c", "what": "words"}',
        ],
    ),
    (
        "read the file a.txt; read the file b.txt; uppercase the first result",
        [
            'files.read {"path": "a.txt"}',
            'files.read {"path": "b.txt"}',
            'text.case {"case": "upper", "text": "${step1.content}"}',
        ],
    ),
    (
        'write "done" to log.txt after that append "again" to log.txt',
        [
            'files.write {"content": "done", "path": "log.txt"}',
            'files.append {"content": "again", "path": "log.txt"} after step1',
        ],
    ),
    (
        'save "a; b, c" to out.txt and tell me what time it is',
        [
            'files.write {"content": "a; b, c", "path": "out.txt"}',
            "time.now {}",
        ],
    ),
    (
        'get "items[0].name" from {"items": [{"name": "then, and"}]}, then uppercase it',
        [
            'json.query {"data": {"items": [{"name": "then, and"}]}, "query": "items[0].name"}',
            'text.case {"case": "upper", "text": "${step1.result}"}',
        ],
    ),
    (
        "add 1 and 2, then add 3, then add 4",
        [
            'math.calculate {"expression": "1 + 2"}',
            'math.calculate {"expression": "${step1.result} + 3"}',
            'math.calculate {"expression": "${step2.result} + 4"}',
        ],
    ),
    (
        "15% of 80; then 20% of it",
        [
            'math.calculate {"expression": "15% of 80"}',
            'math.calculate {"expression": "20% of (${step1.result})"}',
        ],
    ),
    (
        'replace "cat" with "dog" in "cat and cat", then reverse it',
        [
            'text.replace {"new": "dog", "old": "cat", "text": "cat and cat"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        "what day is 2026-12-25 and how many days are there between 2026-11-22 and 2026-12-25",
        [
            'time.weekday {"date": "2026-12-25"}',
            'time.difference {"end": "2026-12-25", "start": "2026-11-22", "unit": "days"}',
        ],
    ),
    (
        "1. convert 5 km to miles",
        [
            'units.convert {"from_unit": "km", "to_unit": "miles", "value": 5}',
        ],
    ),
]

CHINESE: Table = [
    ("3、9、4中最大的是多少", ['math.calculate {"expression": "max(3, 9, 4)"}']),
    ("3、5和10的平均数", ['math.calculate {"expression": "average(3, 5, 10)"}']),
    ("3和5的和", ['math.calculate {"expression": "sum(3, 5)"}']),
    (
        "2480的15%，然后把它从公里换算成英里，并且东京现在几点",
        [
            'math.calculate {"expression": "15% of 2480"}',
            'units.convert {"from_unit": "公里", "to_unit": "英里", "value": "${step1.result}"}',
            'time.now {"zone": "东京"}',
        ],
    ),
    (
        "计算2480的15%",
        [
            'math.calculate {"expression": "15% of 2480"}',
        ],
    ),
    (
        "计算 (3 + 4) * 12.5 等于多少？",
        [
            'math.calculate {"expression": "(3 + 4) * 12.5"}',
        ],
    ),
    (
        "请问 12 乘以 12 是多少",
        [
            'math.calculate {"expression": "12 * 12"}',
        ],
    ),
    (
        "3加5等于几",
        [
            'math.calculate {"expression": "3 + 5"}',
        ],
    ),
    (
        "三加五",
        [
            'math.calculate {"expression": "3 + 5"}',
        ],
    ),
    (
        "把5公里转换成英里",
        [
            'units.convert {"from_unit": "公里", "to_unit": "英里", "value": 5}',
        ],
    ),
    (
        "5公里是多少英里？",
        [
            'units.convert {"from_unit": "公里", "to_unit": "英里", "value": 5}',
        ],
    ),
    (
        "5公里等于多少米，再换算成英尺",
        [
            'units.convert {"from_unit": "公里", "to_unit": "米", "value": 5}',
            'units.convert {"from_unit": "${step1.unit}", "to_unit": "英尺", "value": "${step1.result}"}',
        ],
    ),
    (
        "把5公里换算成英里，然后把结果乘以2",
        [
            'units.convert {"from_unit": "公里", "to_unit": "英里", "value": 5}',
            'math.calculate {"expression": "${step1.result} * 2"}',
        ],
    ),
    (
        "100华氏度是多少摄氏度",
        [
            'units.convert {"from_unit": "华氏度", "to_unit": "摄氏度", "value": 100}',
        ],
    ),
    (
        "东京现在几点了？",
        [
            'time.now {"zone": "东京"}',
        ],
    ),
    (
        "现在几点",
        [
            "time.now {}",
        ],
    ),
    (
        "北京现在几点，伦敦现在几点",
        [
            'time.now {"zone": "北京"}',
            'time.now {"zone": "伦敦"}',
        ],
    ),
    (
        "今天是几号",
        [
            "time.now {}",
        ],
    ),
    (
        "今天星期几",
        [
            'time.weekday {"date": "2026-11-22"}',
        ],
    ),
    (
        "2026年11月22日是星期几",
        [
            'time.weekday {"date": "2026-11-22"}',
        ],
    ),
    (
        "2026-01-01到2026-12-25有多少天",
        [
            'time.difference {"end": "2026-12-25", "start": "2026-01-01", "unit": "天"}',
        ],
    ),
    (
        "2026-11-22之后30天是几号",
        [
            'time.add {"amount": 30, "date": "2026-11-22", "unit": "天"}',
        ],
    ),
    (
        "把“hello”转换成大写",
        [
            'text.case {"case": "upper", "text": "hello"}',
        ],
    ),
    (
        "把“hello”转成大写，然后反转它",
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        "统计“the quick brown fox”的单词数",
        [
            'text.count {"text": "the quick brown fox", "what": "words"}',
        ],
    ),
    (
        "“你好，世界”有多少个字",
        [
            'text.count {"text": "你好，世界", "what": "words"}',
        ],
    ),
    (
        "把“banana”里的“a”替换成“b”",
        [
            'text.replace {"new": "b", "old": "a", "text": "banana"}',
        ],
    ),
    (
        "从“联系 a@b.com”中提取邮箱",
        [
            'text.extract {"text": "联系 a@b.com", "what": "emails"}',
        ],
    ),
    (
        "把“你好，然后再见”写入 notes.txt，然后读取文件 notes.txt",
        [
            'files.write {"content": "你好，然后再见", "path": "notes.txt"}',
            'files.read {"path": "notes.txt"} after step1',
        ],
    ),
    (
        "列出文件",
        [
            "files.list {}",
        ],
    ),
    (
        "求3、5和10的平均值，保留1位小数",
        [
            'math.calculate {"expression": "average(3, 5, 10)"}',
            'math.calculate {"expression": "round(${step1.result}, 1)"}',
        ],
    ),
    (
        "帮我算一下 100 除以 7，再加上 6",
        [
            'math.calculate {"expression": "100 / 7"}',
            'math.calculate {"expression": "${step1.result} + 6"}',
        ],
    ),
    (
        "144的平方根",
        [
            'math.calculate {"expression": "sqrt(144)"}',
        ],
    ),
    (
        "2的10次方，然后除以4",
        [
            'math.calculate {"expression": "(2) ^ 10"}',
            'math.calculate {"expression": "${step1.result} / 4"}',
        ],
    ),
    (
        "10的阶乘是多少",
        [
            'math.calculate {"expression": "factorial(10)"}',
        ],
    ),
    (
        "2+2，3+3，第一步的结果加上第二步的结果",
        [
            'math.calculate {"expression": "2 + 2"}',
            'math.calculate {"expression": "3 + 3"}',
            'math.calculate {"expression": "(${step1.result}) + (${step2.result})"}',
        ],
    ),
    (
        "把200增加15%",
        [
            'math.calculate {"expression": "200 + 15%"}',
        ],
    ),
    (
        "计算百分之十五乘以八十",
        [
            'math.calculate {"expression": "15% * 80"}',
        ],
    ),
    (
        "下午3点半在北京是纽约的几点",
        [
            'time.convert {"from_zone": "北京", "time": "15:30", "to_zone": "纽约"}',
        ],
    ),
    (
        "北京时间10:30是东京的几点",
        [
            'time.convert {"from_zone": "北京", "time": "10:30", "to_zone": "东京"}',
        ],
    ),
    (
        "把100公里每小时换算成米每秒",
        [
            'units.convert {"from_unit": "公里每小时", "to_unit": "米每秒", "value": 100}',
        ],
    ),
    (
        "三天有多少小时，两小时有多少分钟",
        [
            'units.convert {"from_unit": "天", "to_unit": "小时", "value": 3}',
            'units.convert {"from_unit": "小时", "to_unit": "分钟", "value": 2}',
        ],
    ),
    (
        "100的20%是多少，然后乘以3",
        [
            'math.calculate {"expression": "20% of 100"}',
            'math.calculate {"expression": "${step1.result} * 3"}',
        ],
    ),
    (
        "纽约现在几点，并且把10英里转换成公里",
        [
            'time.now {"zone": "纽约"}',
            'units.convert {"from_unit": "英里", "to_unit": "公里", "value": 10}',
        ],
    ),
    (
        "把“A和B”转成小写，然后统计它的字符数",
        [
            'text.case {"case": "lower", "text": "A和B"}',
            'text.count {"text": "${step1.result}", "what": "characters"}',
        ],
    ),
    (
        "读取文件a.txt，然后把它转换成大写",
        [
            'files.read {"path": "a.txt"}',
            'text.case {"case": "upper", "text": "${step1.content}"}',
        ],
    ),
    (
        "把“完成”写入log.txt，接着把“再来”追加到log.txt",
        [
            'files.write {"content": "完成", "path": "log.txt"}',
            'files.append {"content": "再来", "path": "log.txt"} after step1',
        ],
    ),
    (
        "从“3个苹果和4个梨”中提取数字",
        [
            'text.extract {"text": "3个苹果和4个梨", "what": "numbers"}',
        ],
    ),
    (
        "2026年12月25日是星期几，2026-11-22到2026-12-25有多少天",
        [
            'time.weekday {"date": "2026-12-25"}',
            'time.difference {"end": "2026-12-25", "start": "2026-11-22", "unit": "天"}',
        ],
    ),
    (
        "3加4，再乘以2，最后减去1",
        [
            'math.calculate {"expression": "3 + 4"}',
            'math.calculate {"expression": "${step1.result} * 2"}',
            'math.calculate {"expression": "${step2.result} - 1"}',
        ],
    ),
    (
        "把3和4相加",
        [
            'math.calculate {"expression": "sum(3, 4)"}',
        ],
    ),
    (
        "求12和18的最大公约数",
        [
            'math.calculate {"expression": "gcd(12, 18)"}',
        ],
    ),
    (
        "现在几点；列出文件",
        [
            "time.now {}",
            "files.list {}",
        ],
    ),
]


SEVERAL: Table = [
    (
        f"2 + 3 and 4 + 5, then {what}",
        [
            'math.calculate {"expression": "2 + 3"}',
            'math.calculate {"expression": "4 + 5"}',
            f'math.calculate {{"expression": "{made}(${{step1.result}}, ${{step2.result}})"}}',
        ],
    )
    for what, made in (
        ("add them", "sum"),
        ("add both results together", "sum"),
        ("the sum of these two numbers", "sum"),
        ("multiply them", "product"),
        ("the average of the results", "average"),
        ("把它们相加", "sum"),
        ("求这两个结果的平均数", "average"),
        ("求两者的和", "sum"),
    )
] + [
    (
        'reverse "abc" and reverse "def", then join them with "-"',
        [
            'text.reverse {"text": "abc"}',
            'text.reverse {"text": "def"}',
            'text.join {"parts": ["${step1.result}", "${step2.result}"], "separator": "-"}',
        ],
    ),
    (
        "2+2, double it, and 3+3, then sum(them) + 1",
        [
            'math.calculate {"expression": "2 + 2"}',
            'math.calculate {"expression": "${step1.result} * 2"}',
            'math.calculate {"expression": "3 + 3"}',
            'math.calculate {"expression": "sum(${step2.result}, ${step3.result}) + 1"}',
        ],
    ),
    (
        'extract the numbers from "3 and 4", then add them',
        [
            'text.extract {"text": "3 and 4", "what": "numbers"}',
            'math.calculate {"expression": "sum(${step1.join(\', \', map(&to_string(to_number(@)), result))})"}',
        ],
    ),
    (
        "3 weeks after 2026-11-22, then add 3",
        [
            'time.add {"amount": 3, "date": "2026-11-22", "unit": "weeks"}',
            'math.calculate {"expression": "${step1.to_number(result)} + 3"}',
        ],
    ),
]
"""Words for several results, and results that are not what the next clause takes."""

NEWCOMERS: Table = [
    (
        "uppercase 'abc' and 'def'",
        [
            'text.case {"case": "upper", "text": "abc"}',
            'text.case {"case": "upper", "text": "def"}',
        ],
    ),
    (
        'write "x" to a.txt and b.txt',
        [
            'files.write {"content": "x", "path": "a.txt"}',
            'files.write {"content": "x", "path": "b.txt"}',
        ],
    ),
    (
        "what time is it in Berlin and in London",
        [
            'time.now {"zone": "Berlin"}',
            'time.now {"zone": "London"}',
        ],
    ),
    (
        "what time is it in Berlin and London",
        [
            'time.now {"zone": "Berlin"}',
            'time.now {"zone": "London"}',
        ],
    ),
    (
        "what time is it in Berlin, London and New York",
        [
            'time.now {"zone": "Berlin"}',
            'time.now {"zone": "London"}',
            'time.now {"zone": "New York"}',
        ],
    ),
    (
        "convert 5 miles to km and 10 miles to km",
        [
            'units.convert {"from_unit": "miles", "to_unit": "km", "value": 5}',
            'units.convert {"from_unit": "miles", "to_unit": "km", "value": 10}',
        ],
    ),
    (
        "convert 5 miles to km and feet",
        [
            'units.convert {"from_unit": "miles", "to_unit": "km", "value": 5}',
            'units.convert {"from_unit": "miles", "to_unit": "feet", "value": 5}',
        ],
    ),
    (
        "square root of 4 and 9",
        [
            'math.calculate {"expression": "sqrt(4)"}',
            'math.calculate {"expression": "sqrt(9)"}',
        ],
    ),
    (
        "东京和伦敦现在几点",
        [
            'time.now {"zone": "东京"}',
            'time.now {"zone": "伦敦"}',
        ],
    ),
    (
        "东京现在几点，伦敦呢",
        [
            'time.now {"zone": "东京"}',
            'time.now {"zone": "伦敦"}',
        ],
    ),
    (
        "把“hello”和“world”转成大写",
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.case {"case": "upper", "text": "world"}',
        ],
    ),
    (
        "请告诉我现在几点",
        [
            "time.now {}",
        ],
    ),
    (
        "请告诉我东京现在几点",
        [
            'time.now {"zone": "东京"}',
        ],
    ),
    (
        "告诉我时间",
        [
            "time.now {}",
        ],
    ),
    (
        "what time is it in Tokyo please",
        [
            'time.now {"zone": "Tokyo"}',
        ],
    ),
    (
        'count the words in "a b" and "c d e"',
        [
            'text.count {"text": "a b", "what": "words"}',
            'text.count {"text": "c d e", "what": "words"}',
        ],
    ),
    (
        "convert 10 km to miles, then convert it to feet and meters",
        [
            'units.convert {"from_unit": "km", "to_unit": "miles", "value": 10}',
            'units.convert {"from_unit": "${step1.unit}", "to_unit": "feet", "value": "${step1.result}"}',
            'units.convert {"from_unit": "${step1.unit}", "to_unit": "meters", "value": "${step1.result}"}',
        ],
    ),
    (
        "uppercase hello and goodbye",
        [
            'text.case {"case": "upper", "text": "hello and goodbye"}',
        ],
    ),
    (
        'reverse "abc" and "def", then join them',
        [
            'text.reverse {"text": "abc"}',
            'text.reverse {"text": "def"}',
            'text.join {"parts": ["${step1.result}", "${step2.result}"]}',
        ],
    ),
    (
        "read notes.txt",
        [
            'files.read {"path": "notes.txt"}',
        ],
    ),
    (
        "读取 nihao.txt",
        [
            'files.read {"path": "nihao.txt"}',
        ],
    ),
    (
        'write "hi there" to notes.txt, then read it',
        [
            'files.write {"content": "hi there", "path": "notes.txt"}',
            'files.read {"path": "${step1.path}"} after step1',
        ],
    ),
    (
        'get name from {"name": "Ann"}',
        [
            'json.query {"data": {"name": "Ann"}, "query": "name"}',
        ],
    ),
    (
        "count the letters in banana",
        [
            'text.count {"text": "banana", "what": "letters"}',
        ],
    ),
    (
        "count the words in to be or not to be",
        [
            'text.count {"text": "to be or not to be", "what": "words"}',
        ],
    ),
    (
        "list the files in the workspace",
        [
            "files.list {}",
        ],
    ),
    (
        "list the files here",
        [
            "files.list {}",
        ],
    ),
    (
        "list the files in the folder",
        [
            "files.list {}",
        ],
    ),
    (
        "list the files in docs",
        [
            'files.list {"path": "docs"}',
        ],
    ),
    (
        "square root of 2, rounded to 3 decimals",
        [
            'math.calculate {"expression": "sqrt(2)"}',
            'math.calculate {"expression": "round(${step1.result}, 3)"}',
        ],
    ),
    (
        "2+2, then take the square root",
        [
            'math.calculate {"expression": "2 + 2"}',
            'math.calculate {"expression": "sqrt(${step1.result})"}',
        ],
    ),
    (
        "what time is it in UTC+8",
        [
            'time.now {"zone": "UTC+8"}',
        ],
    ),
    (
        "what time is it in UTC+5:30",
        [
            'time.now {"zone": "UTC+5:30"}',
        ],
    ),
    (
        "what time is it in Asia/Tokyo",
        [
            'time.now {"zone": "Asia/Tokyo"}',
        ],
    ),
    (
        "what is the date tomorrow",
        [
            'time.weekday {"date": "2026-11-23"}',
        ],
    ),
    (
        "what is tomorrow's date",
        [
            'time.weekday {"date": "tomorrow"}',
        ],
    ),
    (
        'how many r\'s are in "strawberry"',
        [
            'text.count {"ignore_case": true, "of": "r", "text": "strawberry", "what": "occurrences"}',
        ],
    ),
    (
        "how many r's are in strawberry",
        [
            'text.count {"ignore_case": true, "of": "r", "text": "strawberry", "what": "occurrences"}',
        ],
    ),
    (
        "写“你好”到 nihao.txt",
        [
            'files.write {"content": "你好", "path": "nihao.txt"}',
        ],
    ),
    (
        "工作区里有哪些文件",
        [
            "files.list {}",
        ],
    ),
    (
        "明天是几号",
        [
            'time.weekday {"date": "2026-11-23"}',
        ],
    ),
    (
        "告诉我时间",
        [
            "time.now {}",
        ],
    ),
    (
        "what time",
        [
            "time.now {}",
        ],
    ),
    (
        "how many days until christmas",
        [
            'time.difference {"end": "Christmas", "start": "today", "unit": "days"}',
        ],
    ),
    (
        "five plus six",
        [
            'math.calculate {"expression": "5 + 6"}',
        ],
    ),
    (
        "twenty-one times two",
        [
            'math.calculate {"expression": "21 * 2"}',
        ],
    ),
    (
        "one hundred and five plus six",
        [
            'math.calculate {"expression": "105 + 6"}',
        ],
    ),
    (
        "add one hundred and five",
        [
            'math.calculate {"expression": "100 + 5"}',
        ],
    ),
    (
        "add two and three",
        [
            'math.calculate {"expression": "2 + 3"}',
        ],
    ),
    (
        "convert five miles to km",
        [
            'units.convert {"from_unit": "miles", "to_unit": "km", "value": 5}',
        ],
    ),
    (
        "what is fifteen percent of eighty",
        [
            'math.calculate {"expression": "15% of 80"}',
        ],
    ),
    (
        "three point five times two",
        [
            'math.calculate {"expression": "3.5 * 2"}',
        ],
    ),
    (
        "two million divided by four",
        [
            'math.calculate {"expression": "2000000 / 4"}',
        ],
    ),
    (
        "a hundred minus one",
        [
            'math.calculate {"expression": "100 - 1"}',
        ],
    ),
    (
        "the average of one, two and six",
        [
            'math.calculate {"expression": "average(1, 2, 6)"}',
        ],
    ),
    (
        "2+2, add one to it",
        [
            'math.calculate {"expression": "2 + 2"}',
            'math.calculate {"expression": "1 + ${step1.result}"}',
        ],
    ),
    (
        "根号2",
        [
            'math.calculate {"expression": "sqrt(2)"}',
        ],
    ),
    (
        "根号16加3",
        [
            'math.calculate {"expression": "sqrt(16) + 3"}',
        ],
    ),
    (
        "帮我算一下圆周率乘以 2 的平方",
        [
            'math.calculate {"expression": "pi * 2 ^ 2"}',
        ],
    ),
    (
        "square root of 16 plus 3",
        [
            'math.calculate {"expression": "sqrt(16) + 3"}',
        ],
    ),
    (
        "the square root of two, rounded to 3 decimals",
        [
            'math.calculate {"expression": "sqrt(2)"}',
            'math.calculate {"expression": "round(${step1.result}, 3)"}',
        ],
    ),
    (
        "sqrt(16) + square root of (4 + 5)",
        [
            'math.calculate {"expression": "sqrt(16) + sqrt(4 + 5)"}',
        ],
    ),
    (
        "how many days until friday",
        [
            'time.difference {"end": "2026-11-27", "start": "today", "unit": "days"}',
        ],
    ),
    (
        "离周五还有多少天",
        [
            'time.difference {"end": "2026-11-27", "start": "today", "unit": "天"}',
        ],
    ),
    (
        "what is the date on friday",
        [
            'time.weekday {"date": "2026-11-27"}',
        ],
    ),
    (
        "what day is friday",
        [
            'time.weekday {"date": "2026-11-27"}',
        ],
    ),
    (
        "12/4",
        [
            'math.calculate {"expression": "12 / 4"}',
        ],
    ),
    (
        'write "five" to a.txt',
        [
            'files.write {"content": "five", "path": "a.txt"}',
        ],
    ),
    (
        "count the words in one two three",
        [
            'text.count {"text": "one two three", "what": "words"}',
        ],
    ),
    (
        "请问东京和北京现在几点",
        [
            'time.now {"zone": "东京"}',
            'time.now {"zone": "北京"}',
        ],
    ),
    (
        "把 hello 和 world 转成大写",
        [
            'text.case {"case": "upper", "text": "hello 和 world"}',
        ],
    ),
    (
        "reverse hi and hello",
        [
            'text.reverse {"text": "hi and hello"}',
        ],
    ),
    (
        'uppercase "abc" and thank you',
        [
            'text.case {"case": "upper", "text": "abc"}',
        ],
    ),
    (
        "你好，现在几点，谢谢",
        [
            "time.now {}",
        ],
    ),
    (
        'uppercase "hello" and "world" and count the words in "a b"',
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.case {"case": "upper", "text": "world"}',
            'text.count {"text": "a b", "what": "words"}',
        ],
    ),
    (
        "read a.txt and b.txt, then join them",
        [
            'files.read {"path": "a.txt"}',
            'files.read {"path": "b.txt"}',
            'text.join {"parts": ["${step1.content}", "${step2.content}"]}',
        ],
    ),
    (
        'reverse "abc", "def" and "ghi", then join them with "-"',
        [
            'text.reverse {"text": "abc"}',
            'text.reverse {"text": "def"}',
            'text.reverse {"text": "ghi"}',
            'text.join {"parts": ["${step1.result}", "${step2.result}", "${step3.result}"], "separator": "-"}',
        ],
    ),
    (
        "how many days until 2026-12-25 and 2027-01-01",
        [
            'time.difference {"end": "2026-12-25", "start": "today", "unit": "days"}',
            'time.difference {"end": "2027-01-01", "start": "today", "unit": "days"}',
        ],
    ),
    (
        "add 30 days to 2026-11-22 and 2026-12-01",
        [
            'time.add {"amount": 30, "date": "2026-11-22", "unit": "days"}',
            'time.add {"amount": 30, "date": "2026-12-01", "unit": "days"}',
        ],
    ),
    (
        "2+2, what time is it, then add them",
        [
            'math.calculate {"expression": "2 + 2"}',
            "time.now {}",
            'math.calculate {"expression": "sum(${step1.result}, ${step2.to_number(result)})"}',
        ],
    ),
    (
        "把“hello”变成大写，再倒过来",
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        '把"hello"变成大写，然后反转',
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        "把“hello”反转并转成大写",
        [
            'text.reverse {"text": "hello"}',
            'text.case {"case": "upper", "text": "${step1.result}"}',
        ],
    ),
    (
        "uppercase 'hello', then reverse",
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        "uppercase 'hello', then reverse it",
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        "uppercase 'hello', then reverse the text",
        [
            'text.case {"case": "upper", "text": "hello"}',
            'text.reverse {"text": "${step1.result}"}',
        ],
    ),
    (
        "uppercase 'a b', reverse, then count the words",
        [
            'text.case {"case": "upper", "text": "a b"}',
            'text.reverse {"text": "${step1.result}"}',
            'text.count {"text": "${step2.result}", "what": "words"}',
        ],
    ),
    (
        'reverse "a b" and what is 2+2, then convert to snake case',
        [
            'text.reverse {"text": "a b"}',
            'math.calculate {"expression": "2 + 2"}',
            'text.case {"case": "snake", "text": "${step2.result}"}',
        ],
    ),
    (
        "read notes.txt, then extract the emails, then sort",
        [
            'files.read {"path": "notes.txt"}',
            'text.extract {"text": "${step1.content}", "what": "emails"}',
            'text.sort {"text": "${step2.join(\', \', map(&to_string(@), result))}"}',
        ],
    ),
    (
        "2+2, then save to sum.txt",
        [
            'math.calculate {"expression": "2 + 2"}',
            'files.write {"content": "${step1.result}", "path": "sum.txt"} after step1',
        ],
    ),
    (
        "读取 a.txt，然后把“猫”换成“狗”，再保存到 b.txt",
        [
            'files.read {"path": "a.txt"}',
            'text.replace {"new": "狗", "old": "猫", "text": "${step1.content}"}',
            'files.write {"content": "${step2.result}", "path": "b.txt"} after step1 step2',
        ],
    ),
    (
        "2+2 and 3+3, then join them",
        [
            'math.calculate {"expression": "2 + 2"}',
            'math.calculate {"expression": "3 + 3"}',
            'text.join {"parts": ["${step1.result}", "${step2.result}"]}',
        ],
    ),
    (
        "replace cat with dog in 'the cat sat'",
        [
            'text.replace {"new": "dog", "old": "cat", "text": "the cat sat"}',
        ],
    ),
    (
        "把“the cat sat”里的 cat 换成 dog",
        [
            'text.replace {"new": "dog", "old": "cat", "text": "the cat sat"}',
        ],
    ),
    (
        "create a file notes.txt with content hello",
        [
            'files.write {"content": "hello", "path": "notes.txt"}',
        ],
    ),
    (
        "create a file named notes.txt containing hello world and then read it",
        [
            'files.write {"content": "hello world", "path": "notes.txt"}',
            'files.read {"path": "${step1.path}"} after step1',
        ],
    ),
    (
        "新建文件 a.txt，内容为 你好",
        [
            'files.write {"content": "你好", "path": "a.txt"}',
        ],
    ),
    (
        "往 清单.txt 里写入 牛奶",
        [
            'files.write {"content": "牛奶", "path": "清单.txt"}',
        ],
    ),
    (
        "往清单.txt里追加“牛奶”",
        [
            'files.append {"content": "牛奶", "path": "清单.txt"}',
        ],
    ),
    (
        "读取清单.txt的内容",
        [
            'files.read {"path": "清单.txt"}',
        ],
    ),
    (
        "今天距离 2027 年 1 月 1 日还有多少天",
        [
            'time.difference {"end": "2027-01-01", "start": "today", "unit": "天"}',
        ],
    ),
    (
        "how many days until 2027-01-01",
        [
            'time.difference {"end": "2027-01-01", "start": "today", "unit": "days"}',
        ],
    ),
    (
        "how many more days are there until 2027-01-01",
        [
            'time.difference {"end": "2027-01-01", "start": "today", "unit": "days"}',
        ],
    ),
    (
        "北京和伦敦时差几个小时",
        [
            'time.convert {"from_zone": "北京", "time": "now", "to_zone": "伦敦"}',
        ],
    ),
    (
        "what is the time difference between Beijing and London",
        [
            'time.convert {"from_zone": "Beijing", "time": "now", "to_zone": "London"}',
        ],
    ),
    (
        "what's the time difference between New York and Tokyo, and what time is it in Paris",
        [
            'time.convert {"from_zone": "New York", "time": "now", "to_zone": "Tokyo"}',
            'time.now {"zone": "Paris"}',
        ],
    ),
    (
        "把 5 公里换算成英里，再转成大写",
        [
            'units.convert {"from_unit": "公里", "to_unit": "英里", "value": 5}',
            'text.case {"case": "upper", "text": "${step1.result}"}',
        ],
    ),
    (
        "把再见反转",
        [
            'text.reverse {"text": "再见"}',
        ],
    ),
    (
        "把与众不同反转，再转成大写",
        [
            'text.reverse {"text": "与众不同"}',
            'text.case {"case": "upper", "text": "${step1.result}"}',
        ],
    ),
]
"""What people who had not read the manual asked."""

REFUSED: list[tuple[str, str]] = [
    ("order me a pizza", "Could not read the request"),
    ("order pizza", "Could not read the request"),
    ("2+2, 3+3, then double them", "«them» means 2 results, and this takes one"),
    ("2+2, 3+3, then them + 1", "«them» means 2 results, and this takes one"),
    ('reverse "a" and reverse "b", then uppercase them', "«them» means 2 results, and this takes one"),
    ("2+2, 3+3, 4+4, then add both", "«both» are 2, but 3 results before it are not used yet"),
    ("2+2, then add them", "«them» is one result, and this takes several"),
    ("2+2, then the sum of it", "«it» is one result, and this takes several"),
    ("add them", "«them» refers to nothing"),
    ("2加2，3加3，然后反转它们", "“它们”指 2 个结果，而这里只能用一个"),
    ('uppercase "abc" def', 'uppercase "abc" def'),
    ('append "x" and "y" to f.txt', '«append "x"»'),
    ("what time is it in tokyo and sing me a song", "«sing me a song»"),
    ("what time is it in Tokyo and frobnicate", "«frobnicate»"),
    ("read the file a.txt and dance", "«dance»"),
    ("东京现在几点，唱首歌", "“唱首歌”"),
    ("add 3 and 4, then 5", "«5»"),
    ("read the news", "«read the news»"),
    ("Tom, what time is it in Tokyo", "«Tom»"),
    ("把“甲”和“乙”写入 a.txt", "没有读懂"),
    ("hello and what time is it", "«hello»"),
    ("2+2 and 3+3, multiply them and add them", "«them» is one result"),
    ("read a.txt, read b.txt, then count the words in them", "«them» means 2 results"),
    ("divide 10 by 2 and 5", "«5»"),
    ("20% of 50 and 80", "«80»"),
    ("把“甲”和“乙”写入 a.txt", "“把“甲””"),
    ('uppercase and reverse "hello"', "«uppercase»"),
    ('2+2, uppercase and reverse "hello"', 'goes with «reverse "hello"»'),
    ('2+2, then uppercase and reverse "hello"', 'goes with «reverse "hello"»'),
    ("算 2+2，然后大写并反转“abc”", "也可能与“反转“abc””有关"),
    ('convert "Hello World" to uppercase and lowercase', 'goes with «convert "Hello World" to uppercase»'),
    ('uppercase "a" and "b", then reverse', 'goes with «uppercase "a"»'),
    ("把“甲”和“乙”反转，然后大写", "也可能与"),
    ('write "x" to b.txt, then reverse', "is not one text or number"),
    ('extract the numbers from "a 3 b 1", then reverse', "is not one text or number"),
    ('write "x" to a.txt and save to b.txt', "is not one text or number"),
    ("把“a”转成大写，“b”转成小写，再反转", "也可能与“把“a”转成大写”有关"),
    ("uppercase then and now", "«uppercase»"),
    ("reverse", "«reverse»"),
    ("then save to a.txt", "«save to a.txt»"),
    ("“hello”弄成大写倒过来", "没有读懂"),
    ("5 feet 11 inches in cm", "«5 feet 11 inches in cm»"),
]
"""Requests that would have had a wrong answer, and what is said instead."""


@pytest.fixture(scope="module", params=["by name, as the catalog gives them", "the other way round"])
def builtin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Tool]:
    workspace: Path = tmp_path_factory.mktemp("workspace")
    tools = sorted((tool.spec for tool in builtin_tools(workspace)), key=lambda tool: tool.name)
    return tools if request.param.startswith("by name") else tools[::-1]


@pytest.mark.parametrize(("request_text", "steps"), [*ENGLISH, *CHINESE, *SEVERAL, *NEWCOMERS])
async def test_requests_of_the_built_in_tools(
    view: Callable[..., RoundView],
    builtin: list[Tool],
    request_text: str,
    steps: list[str],
) -> None:
    items = [item async for item in RulesPlanner().round(view(request_text, tools=builtin))]

    assert [_told(item) for item in items if isinstance(item, StepDraft)] == steps
    assert len(items) == len(steps)


@pytest.mark.parametrize(("request_text", "told"), REFUSED)
async def test_what_is_refused_rather_than_misread(
    view: Callable[..., RoundView], builtin: list[Tool], request_text: str, told: str
) -> None:
    with pytest.raises(PlannerError) as caught:
        _ = [item async for item in RulesPlanner().round(view(request_text, tools=builtin))]

    assert caught.value.failure.reason == "REQUEST_NOT_UNDERSTOOD"
    assert told in caught.value.failure.message


def test_their_phrases_keep_the_grammar(builtin: list[Tool]) -> None:
    assert [violation for tool in builtin for violation in check_phrases(tool)] == []


def _told(draft: StepDraft) -> str:
    after = ["after", *draft.depends_on] if draft.depends_on else []
    return " ".join([draft.tool, json.dumps(draft.arguments, ensure_ascii=False, sort_keys=True), *after])
