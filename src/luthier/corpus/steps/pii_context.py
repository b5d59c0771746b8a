"""What the words around a number say: a phone, a card, or an order number that only looks like one.

In: a text and where a candidate stands in it. Out: "for", "against" or None. The nearest word
before the candidate decides; in a table it is the head of its column.
"""

from __future__ import annotations

import re
from typing import Literal

Verdict = Literal["for", "against"] | None

_WINDOW_CHARS = 36
_NEAR_CHARS = 14
_TABLE_LINES = 200
"""How far up the head of a table is looked for."""

_HEAD_CHARS = 24

_AGAINST = (
    r"(?<![a-z])(?:order|invoice|tracking|isbn|issn|sku|serial|part|model|ticket|ref|reference"
    r"|barcode|ean|upc|gtin|imei|doi|pmid|arxiv|timestamp|unix|epoch|population|version|build"
    r"|release|firmware|batch|lot|shipment|parcel|waybill|transaction|item|product|code|qq|seed"
    r"|revision|gdp|revenue|distance|total|sum|equals|approximately|digits|pi)s?(?![a-z])"
    r"|订单|单号|编号|序列|流水|条码|条形码|工号|学号|型号|快递|运单|发票|时间戳|人口|合同|书号|货号|批次"
    r"|交易|商品|版本|圆周率|总数|约等于|随机数|距离|账单|案号|专利|邮编|保单"
)
_CUES = {
    "phone": r"(?<![a-z])(?:phone|tel|telephone|mobile|cell|call|calling|text|sms|whatsapp|fax"
    r"|contact|dial|reach|hotline|helpline|ring)s?(?![a-z])"
    r"|电话|手机|联系方式|热线|致电|拨打|微信|传真|座机|来电|打给|短信",
    "card": r"(?<![a-z])(?:card|visa|mastercard|amex|unionpay|credit|debit|discover|jcb)s?(?![a-z])"
    r"|信用卡|卡号|银行卡|储蓄卡|借记卡|银联|账号|账户|收款",
    "cn_id": r"(?<![a-z])(?:id|identity|citizen)(?![a-z])|身份证|证件",
    "ip": r"(?<![a-z])(?:ip|ipv4|ipv6|host|server|address|ping|ssh|subnet|gateway|dns)(?![a-z])"
    r"|地址|服务器|主机|网关|登录|登陆",
}
_PATTERNS = {
    name: re.compile(rf"(?P<against>{_AGAINST})|(?P<for>{words})", re.IGNORECASE)
    for name, words in _CUES.items()
}
# A new sentence speaks of something else; `Tel.` and `No.` end none.
_SENTENCE_END = re.compile(
    r"[!?。！？；]|(?<=[a-z)]{2})(?<!no)(?<!tel)(?<!mob)(?<!ph)\.\s",
    re.IGNORECASE,
)
_SUM_BEFORE = re.compile(r"(?:(?<!\d{11})/|[=*^<>≈≥≤×÷$€£¥￥]\s*[\-−]?|#|[\d)]\s+[+\-−]\s)\s*\Z")
_SUM_AFTER = re.compile(
    r"\s*(?:/(?!\d{11})|[=*^×÷%]|[+\-−]\s*\d|[万亿元米吨]|(?:dollars?|meters?|metres?|people|users?|years?"
    r"|bytes?|bits?|seconds?|km|kg|ms|cm|ml)(?![a-z]))",
    re.IGNORECASE,
)
_URL = re.compile(
    r"[a-z][a-z0-9+.\-]*://[^\s<>\"'，。；、）】」》]*\Z|\bwww\.[^\s]*\Z", re.IGNORECASE
)


def verdict(text: str, start: int, family: str) -> Verdict:
    """Say what stands before a candidate.

    Args:
        text: The whole text.
        start: Index of the candidate's first character.
        family: `phone`, `card`, `cn_id` or `ip`: whose words speak for it.
    """
    pattern = _PATTERNS[family]
    line = text.rfind("\n", 0, start) + 1
    window = text[max(line, start - _WINDOW_CHARS) : start]
    sentence, last = 0, None
    for end in _SENTENCE_END.finditer(window):
        sentence = end.end()
    for found in pattern.finditer(window, sentence):
        # A Chinese word says more in less room: it speaks for what stands close behind it.
        if found[0].isascii() or len(window) - found.end() <= _NEAR_CHARS:
            last = found
    if last is None and line > 0:
        last = pattern.search(_column_head(text, line, start))
    if last is None:
        return None
    return "for" if last.lastgroup == "for" else "against"


def in_arithmetic(text: str, start: int, end: int) -> bool:
    """Say whether a candidate is an amount or a term: `= 13800000000`, `13800000000 km`."""
    before = text[max(0, start - 16) : start]
    return bool(_SUM_BEFORE.search(before) or _SUM_AFTER.match(text, end))


def in_url(text: str, start: int) -> bool:
    """Say whether a candidate stands inside a web address, where numbers name pages."""
    return _URL.search(text, max(0, start - 300), start) is not None


def _column_head(text: str, line: int, start: int) -> str:
    """Return the head of the column that a candidate stands in, "" outside a table."""
    before = text[line:start]
    mark = "|" if "|" in before else "\t" if "\t" in before else "," if "," in before else ""
    if not mark and text[line - 1 : line] != "\n":
        return ""
    end = text.find("\n", start)
    row = text[line : end if end >= 0 else len(text)]
    mark = mark or next((m for m in "|\t," if m in row), "")
    if not mark:
        return ""
    num_marks, column, head = row.count(mark), before.count(mark), ""
    for _ in range(_TABLE_LINES):
        if line == 0:
            break
        above = text.rfind("\n", 0, line - 1) + 1
        row = text[above : line - 1]
        if row.count(mark) != num_marks:
            break
        head, line = row, above
    cell = head.split(mark)[column] if head else ""
    # Two lines of prose can have equally many commas; the head of a column is short.
    return cell if len(cell) <= _HEAD_CHARS else ""
