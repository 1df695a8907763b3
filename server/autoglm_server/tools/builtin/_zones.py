"""Time zones as people name them: IANA names, cities in English and Chinese, abbreviations, and offsets from UTC."""

# ruff: noqa: E501 - a table
from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, timedelta, timezone, tzinfo
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from autoglm.tool import ToolError
from autoglm_server.spelling import nearest

LENGTH_MAX: Final = 64
"""Characters of a zone's name."""

_PLACES: Final[Mapping[str, str]] = {
    "America/New_York": "nyc boston washington washington_dc philadelphia atlanta miami orlando et est edt eastern "
    "eastern_time 纽约 华盛顿 波士顿 迈阿密 费城 亚特兰大 美东 美国东部",
    "America/Chicago": "dallas houston austin san_antonio new_orleans minneapolis ct cdt central central_time 芝加哥 达拉斯 休斯顿 "
    "休斯敦",
    "America/Denver": "salt_lake_city mt mst mdt mountain mountain_time 丹佛",
    "America/Phoenix": "arizona 凤凰城",
    "America/Los_Angeles": "la san_francisco sf seattle san_diego san_jose las_vegas portland silicon_valley california pt pst pdt "
    "pacific pacific_time 洛杉矶 旧金山 三藩市 西雅图 圣地亚哥 拉斯维加斯 硅谷 加州 美西 美国西部",
    "America/Anchorage": "alaska 安克雷奇",
    "Pacific/Honolulu": "hawaii hst 夏威夷 檀香山",
    "America/Toronto": "montreal ottawa quebec 多伦多 蒙特利尔 渥太华",
    "America/Vancouver": "温哥华",
    "America/Mexico_City": "墨西哥城",
    "America/Sao_Paulo": "rio rio_de_janeiro são_paulo brasilia 圣保罗 里约热内卢 里约",
    "America/Argentina/Buenos_Aires": "buenos_aires argentina 布宜诺斯艾利斯",
    "America/Bogota": "bogotá colombia 波哥大",
    "America/Lima": "peru 利马",
    "Europe/London": "uk england britain great_britain united_kingdom scotland edinburgh manchester bst 伦敦 英国 爱丁堡 曼彻斯特",
    "Europe/Dublin": "ireland 都柏林 爱尔兰",
    "Europe/Lisbon": "portugal 里斯本",
    "Europe/Paris": "france lyon marseille nice 巴黎 法国 里昂 马赛",
    "Europe/Madrid": "spain barcelona valencia seville 马德里 西班牙 巴塞罗那",
    "Europe/Berlin": "germany munich frankfurt hamburg cologne stuttgart 柏林 德国 慕尼黑 法兰克福 汉堡",
    "Europe/Amsterdam": "netherlands holland rotterdam 阿姆斯特丹 荷兰 鹿特丹",
    "Europe/Brussels": "belgium 布鲁塞尔 比利时",
    "Europe/Zurich": "switzerland geneva basel bern 苏黎世 瑞士 日内瓦",
    "Europe/Vienna": "austria 维也纳 奥地利",
    "Europe/Rome": "italy milan naples florence venice 罗马 意大利 米兰 威尼斯",
    "Europe/Stockholm": "sweden 斯德哥尔摩 瑞典",
    "Europe/Oslo": "norway 奥斯陆 挪威",
    "Europe/Copenhagen": "denmark 哥本哈根 丹麦",
    "Europe/Helsinki": "finland 赫尔辛基 芬兰",
    "Europe/Warsaw": "poland krakow 华沙 波兰",
    "Europe/Prague": "czechia 布拉格 捷克",
    "Europe/Budapest": "hungary 布达佩斯 匈牙利",
    "Europe/Athens": "greece 雅典 希腊",
    "Europe/Istanbul": "turkey ankara 伊斯坦布尔 土耳其",
    "Europe/Kyiv": "kiev ukraine 基辅 乌克兰",
    "Europe/Moscow": "msk st_petersburg saint_petersburg 莫斯科 圣彼得堡",
    "Asia/Shanghai": "china beijing peking shenzhen guangzhou hangzhou chengdu nanjing wuhan tianjin xian xi'an suzhou 中国 北京 上海 "
    "深圳 广州 杭州 成都 南京 武汉 天津 西安 苏州 重庆 厦门 青岛 长沙",
    "Asia/Hong_Kong": "hkt 香港",
    "Asia/Macau": "macao 澳门",
    "Asia/Taipei": "taiwan 台北 台湾",
    "Asia/Tokyo": "japan osaka kyoto nagoya sapporo jst 东京 日本 大阪 京都 名古屋 札幌",
    "Asia/Seoul": "korea south_korea busan kst 首尔 韩国 釜山",
    "Asia/Singapore": "sgt 新加坡",
    "Asia/Kuala_Lumpur": "malaysia 吉隆坡 马来西亚",
    "Asia/Bangkok": "thailand phuket 曼谷 泰国",
    "Asia/Jakarta": "雅加达",
    "Asia/Manila": "philippines 马尼拉 菲律宾",
    "Asia/Ho_Chi_Minh": "vietnam hanoi saigon ho_chi_minh_city 胡志明市 河内 越南",
    "Asia/Kolkata": "india mumbai bombay delhi new_delhi bangalore bengaluru chennai hyderabad pune 印度 孟买 新德里 德里 班加罗尔 加尔各答",
    "Asia/Karachi": "pakistan lahore islamabad 卡拉奇 巴基斯坦",
    "Asia/Dhaka": "bangladesh 达卡 孟加拉国",
    "Asia/Kathmandu": "nepal 加德满都 尼泊尔",
    "Asia/Dubai": "uae abu_dhabi 迪拜 阿联酋 阿布扎比",
    "Asia/Riyadh": "saudi_arabia 利雅得",
    "Asia/Tehran": "iran 德黑兰 伊朗",
    "Asia/Jerusalem": "israel tel_aviv 耶路撒冷 以色列 特拉维夫",
    "Africa/Cairo": "egypt 开罗 埃及",
    "Africa/Johannesburg": "south_africa cape_town 约翰内斯堡 南非 开普敦",
    "Africa/Nairobi": "kenya 内罗毕 肯尼亚",
    "Africa/Lagos": "nigeria 拉各斯 尼日利亚",
    "Australia/Sydney": "canberra aest aedt 悉尼 堪培拉",
    "Australia/Melbourne": "墨尔本",
    "Australia/Brisbane": "布里斯班",
    "Australia/Perth": "珀斯",
    "Pacific/Auckland": "new_zealand wellington 奥克兰 新西兰 惠灵顿",
    "UTC": "gmt z zulu utc 世界时 协调世界时 格林威治 格林尼治",
}
_AMBIGUOUS: Final = MappingProxyType(
    {
        "cst": "Chicago or Shanghai",
        "ist": "Kolkata, Dublin or Jerusalem",
        "ast": "Halifax or Riyadh",
        "georgia": "Atlanta or Tbilisi",
    },
)
_OFFSET: Final = re.compile(r"(?:utc|gmt)?\s*([+-])\s*([0-9]{1,2})(?::?([0-9]{2}))?", re.IGNORECASE)
_ASIDE: Final = re.compile(r"(?:\s+(?:local\s+)?time|时间|时区|当地)$", re.IGNORECASE)


@lru_cache(maxsize=1)
def _cities() -> Mapping[str, str]:
    """Give the zone of each city: those that zones are called after, and the table's."""
    names: dict[str, str] = {}
    for zone in sorted(available_timezones(), key=lambda zone: (_is_old(zone), zone)):
        names.setdefault(zone.rsplit("/", 1)[-1].lower(), zone)

    names.update((zone.lower(), zone) for zone in available_timezones())
    names.update((place, zone) for zone, places in _PLACES.items() for place in places.split())
    return MappingProxyType(names)


def _is_old(zone: str) -> bool:
    return zone.split("/", 1)[0] not in {
        "Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific",
    }  # fmt: skip


def zone_of(name: str, field: str) -> tuple[tzinfo, str]:
    """Give the zone that ``name`` means, and its full name.

    Raises:
        ToolError: UNKNOWN_ZONE; names ``field``, the value and the nearest names.
    """
    plain = _ASIDE.sub("", name.strip().replace("−", "-")) if len(name) <= LENGTH_MAX else ""  # noqa: RUF001  # a minus sign
    key = "_".join(plain.lower().replace(",", " ").split())
    if key in _AMBIGUOUS:
        raise _unknown(f"{field} is {name!r}, which may mean {_AMBIGUOUS[key]}; write the city")

    # Before the names: there is a zone GMT-3, and by POSIX's rule it is three hours *ahead*.
    if match := _OFFSET.fullmatch(plain):
        return _fixed(match, name, field)

    if found := _cities().get(key):
        return (UTC, "UTC") if found == "UTC" else (ZoneInfo(found), found)

    near = nearest(key, (city for city in _cities() if "/" not in city))
    hint = f"did you mean {', '.join(city.replace('_', ' ').title() for city in near)}?" if near else ""
    remedy = hint or "write an IANA name such as Asia/Tokyo, a large city, or an offset such as UTC+09:00"
    raise _unknown(f"{field} is {name[:LENGTH_MAX]!r}, which is no time zone that is known; {remedy}")


def _fixed(match: re.Match[str], name: str, field: str) -> tuple[tzinfo, str]:
    hours, minutes = int(match[2]), int(match[3] or 0)
    if hours * 60 + minutes > 14 * 60 or minutes > 59:
        raise _unknown(f"{field} is {name!r}; an offset is at most 14:00, such as UTC+09:00")

    offset = timedelta(hours=hours, minutes=minutes) * (-1 if match[1] == "-" else 1)
    return timezone(offset), f"UTC{match[1]}{hours:02}:{minutes:02}"


def _unknown(message: str) -> ToolError:
    return ToolError(message, reason="UNKNOWN_ZONE")
