"""Measure the `pii` step on planted rows: recall and precision by kind and language, and rows/s.

    python benchmarks/corpus_pii.py [--rows 300] [--seed 7] [--misses] [FILE ...]

Every value is invented from the seed, with check digits that this file works out itself. Each row
has ordinary sentences, one planted value, and one hard negative: order numbers, ISBNs, dates, sums,
versions, hashes, coordinates, tables of numbers, 18 digits that are no identity. A value counts as
found where a hit of its kind covers all of it; any other hit is false, in the row of its own kind.
With FILEs (json or jsonl) it lists every hit in them instead, in its sentence, to be read by eye.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import random
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from luthier.corpus.steps.pii import Pii
from luthier.corpus.steps.pii_hits import KINDS
from luthier.recipes.machine import cpu_name

Make = Callable[[random.Random], str]
LOWER, UPPER, DIGIT = string.ascii_lowercase, string.ascii_uppercase, string.digits
ALNUM = LOWER + UPPER + DIGIT


def chars(rng: random.Random, alphabet: str, count: int) -> str:
    """Draw `count` characters."""
    return "".join(rng.choice(alphabet) for _ in range(count))


def with_luhn(body: str) -> str:
    """Append the Luhn check digit."""
    total = 0
    for place, char in enumerate(reversed(body)):
        value = int(char) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def grouped(rng: random.Random, digits: str, sizes: list[int]) -> str:
    """Write digits in one run, or in groups with spaces or dashes."""
    mark = rng.choice(["", " ", " ", "-"])
    parts, at = [], 0
    for size in sizes:
        parts.append(digits[at : at + size])
        at += size
    return mark.join(part for part in [*parts, digits[at:]] if part)


def email(rng: random.Random) -> str:
    """Invent an address."""
    first = rng.choice(["wei.zhang", "lena", "j.okafor", "li_na", "omar99", "tom+news", "qiang-8"])
    user = rng.choice([first, first + chars(rng, DIGIT, 3), chars(rng, DIGIT, 9), first.title()])
    host = rng.choice(["qq", "163", "gmail", "mail.acme-tools", "uni-mainz", "x.corp", "outlook"])
    return f"{user}@{host}.{rng.choice(['com', 'cn', 'com.cn', 'de', 'org', 'edu', 'io', 'co.uk'])}"


def phone(rng: random.Random) -> str:
    """Invent a number: Chinese mobile and landline, American, or of another country."""
    d = lambda count: chars(rng, DIGIT, count)  # noqa: E731
    head = rng.choice(
        [
            "130",
            "135",
            "138",
            "139",
            "150",
            "152",
            "158",
            "176",
            "177",
            "182",
            "186",
            "188",
            "189",
            "199",
        ]
    )
    area = rng.choice(["212", "415", "310", "617", "206", "512", "303", "404", "702", "919"])
    local = f"{rng.randint(2, 9)}{rng.randint(20, 99)}"
    return rng.choice(
        [
            head + d(8),
            f"{head} {d(4)} {d(4)}",
            f"{head}-{d(4)}-{d(4)}",
            f"+86 {head}{d(8)}",
            f"+86-{head}-{d(4)}-{d(4)}",
            f"{rng.choice(['010', '021', '020'])}-{rng.choice('568')}{d(7)}",
            f"({area}) {local}-{d(4)}",
            f"{area}-{local}-{d(4)}",
            f"+1 {area} {local} {d(4)}",
            f"+44 20 7{rng.randint(100, 999)} {d(4)}",
            f"+49 30 {rng.randint(2, 9)}{d(6)}",
            f"+33 6 {rng.randint(10, 36)} {d(2)} {d(2)} {d(2)}",
            f"+91 98{d(3)} {d(5)}",
            f"+81 90-{rng.randint(2, 9)}{d(3)}-{d(4)}",
        ]
    )


def ip(rng: random.Random) -> str:
    """Invent an address of a machine."""
    if rng.random() < 0.3:
        words = [f"{rng.randint(1, 65535):x}" for _ in range(6)]
        full = f"24{rng.randint(0, 9)}e:" + ":".join(words) + f":{rng.randint(1, 65535):x}"
        return rng.choice([full, f"2a01:4f8:{words[0]}:{words[1]}::{rng.randint(1, 9)}"])
    first = rng.choice([23, 36, 47, 58, 81, 103, 114, 139, 172, 185, 192, 203, 219])
    return f"{first}." + ".".join(str(rng.randint(2, 253)) for _ in range(3))


def url_token(rng: random.Random) -> str:
    """Invent a URL whose secret part stands between two characters of code 1."""
    secret, site = chars(rng, ALNUM, 28) + "7a", rng.choice(["api.acme.io", "files.blau.cn"])
    return rng.choice(
        [
            f"https://{site}/v2/rows?page=2&access_token=\1{secret}\1",
            f"https://{site}/get?token=\1{secret}\1&lang=zh",
            f"postgres://\1app:{chars(rng, ALNUM, 12)}\1@db.{site}:5432/main",
            f"https://\1deploy:{chars(rng, ALNUM, 14)}\1@git.{site}/team/repo.git",
            f"https://{site}/a.csv?X-Amz-Date=20240501T000000Z&X-Amz-Signature=\1{secret}\1",
            f"https://hooks.slack.com/services/\1T{chars(rng, UPPER, 8)}/B0{secret}\1",
            f"https://{site}/login#id_token=\1{secret}\1",
        ]
    )


def credit_card(rng: random.Random) -> str:
    """Invent a card of an international issuer."""
    kind = rng.choice(["visa", "mc", "amex", "discover", "jcb"])
    if kind == "amex":
        return grouped(rng, with_luhn("37" + chars(rng, DIGIT, 12)), [4, 6])
    start = {"visa": "4", "mc": "53", "discover": "6011", "jcb": "3530"}[kind]
    return grouped(rng, with_luhn(start + chars(rng, DIGIT, 15 - len(start))), [4, 4, 4])


def bank_card(rng: random.Random) -> str:
    """Invent a Chinese bank card of 16 or 19 digits."""
    start, size = rng.choice([("622202", 19), ("621700", 19), ("622848", 19), ("625965", 16)])
    return grouped(rng, with_luhn(start + chars(rng, DIGIT, size - 7)), [4, 4, 4, 4])


def cn_id(rng: random.Random) -> str:
    """Invent a Chinese identity number with its check character."""
    place = rng.choice(
        ["110105", "310115", "440305", "510107", "330106", "420111", "610113", "210202", "650102"]
    )
    day = f"{rng.randint(1940, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    body = place + day + chars(rng, DIGIT, 3)
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
    check = "10X98765432"[sum(w * int(c) for w, c in zip(weights, body, strict=True)) % 11]
    number = body + check
    return rng.choice([number, number, number.lower(), f"{body[:6]} {body[6:14]} {number[14:]}"])


def iban(rng: random.Random) -> str:
    """Invent an IBAN of a country whose account numbers are digits or letters."""
    country, letters, size = rng.choice(
        [("DE", 0, 18), ("GB", 4, 14), ("NL", 4, 10), ("AT", 0, 16), ("CH", 0, 17), ("PL", 0, 24)]
    )
    bban = chars(rng, UPPER, letters) + chars(rng, DIGIT, size)
    number = "".join(str(int(c, 36)) for c in bban + country + "00")
    whole = f"{country}{98 - int(number) % 97:02}{bban}"
    if rng.random() < 0.5:
        return whole
    return " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))


def api_key(rng: random.Random) -> str:
    """Invent a key of a known issuer, a web token or a private key."""
    r = lambda count, alphabet=ALNUM: chars(rng, alphabet, count)  # noqa: E731
    part = lambda data: base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")  # noqa: E731
    token = f"{part({'alg': 'HS256'})}.{part({'sub': r(9)})}.{r(43)}"
    body = "\n".join(r(64) for _ in range(3))
    block = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    return rng.choice(
        [
            f"sk-{r(48)}",
            f"sk-proj-{r(60)}",
            f"sk-ant-api03-{r(70)}",
            f"AKIA{r(16, UPPER + '234567')}",
            f"ghp_{r(36)}",
            f"github_pat_{r(22)}_{r(59)}",
            f"xoxb-{r(12, DIGIT)}-{r(12, DIGIT)}-{r(24)}",
            f"AIza{r(35)}",
            f"hf_{r(34, LOWER + UPPER)}",
            f"sk_live_{r(24)}",
            token,
            block,
        ]
    )


def password(rng: random.Random) -> str:
    """Invent a password as people choose them, or as a generator does."""
    name = rng.choice(["Sommer", "tiger", "Beijing", "woaini", "Passw0rd", "dragon"])
    return rng.choice(
        [
            f"{name}{rng.randint(10, 2024)}",
            f"{name}@{rng.randint(1, 999)}",
            chars(rng, ALNUM + "#%&*+!?_-", 11) + "4x",
            f"{name}!{chars(rng, DIGIT, 3)}Q",
            chars(rng, DIGIT, 6),
            f"{chars(rng, LOWER, 4)}#{chars(rng, LOWER, 4)}",
        ]
    )


MAKERS: dict[str, Make] = {
    "url_token": url_token,
    "api_key": api_key,
    "password": password,
    "email": email,
    "cn_id": cn_id,
    "iban": iban,
    "credit_card": credit_card,
    "bank_card": bank_card,
    "ip": ip,
    "phone": phone,
}
PLAIN = {
    "en": [
        "Thanks, {} is the one I meant.",
        "Please use {} from now on.",
        "({})",
        "He wrote {} on a slip of paper and left.",
        "Customer record: {}",
        "Old entry {}, to be deleted after the audit.",
        '{{"value": "{}", "seen": true}}',
        "- {}",
    ],
    "zh": [
        "请记录{}，谢谢。",
        "我这边的是{}。",
        "客户资料（{}）已更新",
        "旧的{}不要再用了！",
        "请核对：{}",
        "他把{}写在纸条上就走了。",
        "1、{}；",
        "备注「{}」",
    ],
}
SAID = {
    ("phone", "en"): ["Call me at {}.", "Our phone is {}, ask for Li.", "Fax: {}", "Mobile {}"],
    ("phone", "zh"): ["手机号{}，随时联系。", "电话：{}", "请拨打{}预约", "微信同号{}"],
    ("ip", "en"): ["The login came from {}.", "Ping {} twice.", "Host {}: timed out"],
    ("ip", "zh"): ["登录IP为{}。", "服务器{}宕机了", "从{}发来的请求"],
    ("email", "en"): ["Write to {}.", "Cc: <{}>", "Her mail, {}, bounced."],
    ("email", "zh"): ["邮箱{}，请发送简历", "发到{}即可。", "联系{}或来电"],
    ("cn_id", "en"): ["ID card {} was scanned.", "Chinese ID number: {}"],
    ("cn_id", "zh"): ["身份证号{}，已核验。", "证件号码：{}", "公民身份号码{}"],
    ("credit_card", "en"): ["Charge my card {} today.", "Visa {} was declined."],
    ("credit_card", "zh"): ["信用卡号{}已过期。", "用信用卡{}支付"],
    ("bank_card", "en"): ["Transfer it to bank card {}.", "Salary goes to {}."],
    ("bank_card", "zh"): ["请打到银行卡{}。", "卡号：{}，开户行工行", "收款账号{}"],
    ("iban", "en"): ["IBAN {} BIC COBADEFFXXX", "Wire it to {}, please."],
    ("iban", "zh"): ["欧洲账户{}，请汇款", "IBAN：{}"],
    ("api_key", "en"): ["export KEY={}", "My key is {}.", "Authorization: Bearer {}"],
    ("api_key", "zh"): ["密钥是{}，别外传", "接口令牌：{}", "把{}填进配置"],
    ("url_token", "en"): ["Open {} to see it.", "curl {} -o out.json"],
    ("url_token", "zh"): ["点击 {} 下载", "地址：{}，一小时内有效"],
}
# A password has no shape of its own: only words that name it tell it from any other word.
PASSWORD_SAID = {
    "en": [
        "Password: {}",
        "My password is {} and it never changes.",
        "password = '{}'",
        'config: {{"user": "root", "password": "{}"}}',
        "DB_PASSWORD={}",
        "I reset the password to {} yesterday.",
        "The password for the guest network is {}.",
        "pwd: {}, login: admin",
    ],
    "zh": [
        "密码：{}",
        "密码是{}，请尽快修改。",
        "登录密码为{}。",
        "账号admin，密码{}",
        "WiFi密码: {}",
        "初始密码已重置为{}，谢谢",
        "我的口令是“{}”。",
        "password：{}（测试环境）",
    ],
}
FILLER = {
    "en": [
        "The committee met in the spring to talk about the new bridge and its cost.",
        "Most readers find that the second chapter is the easier one to begin with.",
        "Stir the sauce slowly, and add salt only when the onions have turned soft.",
        "A good answer names its reasons before it names the conclusion.",
        "In 2019 the city counted 48,300 cyclists on one day, 12.5% more than before.",
        "Trains leave every 20 minutes from platform 4 and arrive before 9:30.",
    ],
    "zh": [
        "春天的时候，委员会讨论了新桥的设计和造价问题。",
        "大多数读者认为从第二章开始阅读会更容易一些。",
        "小火慢炖，等洋葱变软以后再放盐调味。",
        "一个好的回答会先说明理由，然后给出结论。",
        "2019年，全市一天之内统计到48300名骑行者，比上年增长12.5%。",
        "列车每20分钟一班，从4号站台出发，9:30之前到达。",
    ],
}


def negative(rng: random.Random, language: str) -> str:
    """Invent a sentence with a number or word that only looks like personal data."""
    d = lambda count: chars(rng, DIGIT, count)  # noqa: E731
    number = rng.randint(10**10, 10**11)
    table = "\n".join(f"| {d(4)} | 1{rng.randint(30, 89)}{d(8)} | {d(2)}.{d(2)} |" for _ in "ab")
    isbn = f"978-{rng.randint(0, 7)}-{d(3)}-{d(5)}-{d(1)}"
    sha, when = chars(rng, DIGIT + "abcdef", 40), f"20{d(2)}-0{rng.randint(1, 9)}-1{d(1)}"
    version = f"{d(1)}.{rng.randint(1, 40)}.{rng.randint(0, 99)}.{rng.randint(0, 250)}"
    both = [
        f"{number} * 3 = {number * 3}",
        f"#### {d(11)}\n<<{d(4)}-{d(3)}={d(4)}>>",
        f"commit {sha}",
        f"{when} 12:30:45.123456",
        f"(39.{d(7)}, 116.{d(7)})",
        f"std::vector<int> a::b(C::D); x = y @ w.T + q@k.transpose(1)  # {d(3)}",
        f"550e8400-e29b-41d4-a716-{d(12)}",
        "logo@2x.png, @media (max-width: 600px), lodash@4.17.21",
        f"https://item.example.net/1{rng.randint(30, 89)}{d(8)}.html?page={d(6)}&lang=en",
        "password = getpass.getpass()\nif password != os.environ['PASSWORD']: raise ValueError",
        f"[{d(2)}.{d(3)}, {d(2)}.{d(3)}, -{d(1)}.{d(9)}]",
        "127.0.0.1:8080, mask 255.255.255.0",
        "token_ids = tokenizer(text, return_tensors='pt')['input_ids']",
        f"aspect 1920x1080, ISO 8601, {d(3)}-{d(2)}-{d(2)}",
        "postgres://user:****@db/main?sslmode=require",
    ]
    english = [
        f"Order number 4{d(15)} was shipped; tracking 62{d(14)}.",
        f"ISBN {isbn}, pages 100-2000.",
        f"Version {version} fixes it; so does v{version}.",
        f"| qty | order | price |\n|---|---|---|\n{table}",
        "Password: must have at least 12 characters, one digit and one symbol.",
        "The password is required. Never write your password: it is a secret.",
        f"The population was {number}, and light takes {d(11)} years.",
        f"Serial no. {rng.randint(100000, 999999)}{d(12)}, part 415-{d(3)}-{d(2)}.",
        f"Invoice 1{d(17)} of the {when}",
        f"The API key: your_api_key_here_{d(2)} (see the docs), token: YOUR_TOKEN",
        f"The score was {d(3)}-{d(3)} in {d(4)}-{d(4)}.",
    ]
    chinese = [
        f"订单号4{d(15)}，快递单号62{d(14)}已发出。",
        f"书号ISBN {isbn}，共320页。",
        f"版本{version}已发布，固件v{version}待测。",
        f"| 数量 | 订单号 | 价格 |\n|---|---|---|\n{table}",
        "密码：由8-16位字母和数字组成，不能包含空格。",
        "密码长度不能少于8位，密码是12位以上更安全，请勿泄露密码。",
        f"人口约{number}人，总额为1{d(10)}元。",
        f"流水号{rng.randint(100000, 999999)}{d(12)}，合同编号1{d(10)}。",
        f"18位编号9{d(17)}不是证件。",
        f"距离是{d(11)}千米，时间戳17{d(11)}",
        f"比分{d(3)}-{d(3)}，赛季{d(4)}-{d(4)}。",
    ]
    return rng.choice(both + (english if language == "en" else chinese))


def planted_rows(
    rng: random.Random, kind: str, language: str, count: int
) -> Iterator[dict[str, Any]]:
    """Yield texts with one value each, and where it stands."""
    shapes = PASSWORD_SAID[language] if kind == "password" else PLAIN[language]
    shapes = shapes + SAID.get((kind, language), []) * 2
    for _ in range(count):
        value = MAKERS[kind](rng)
        secret = value.split("\1")[1] if "\1" in value else value
        value = value.replace("\1", "")
        said = rng.choice(shapes).format(value)
        before, after = rng.choices(FILLER[language], k=2)
        parts = [before, said, after, negative(rng, language)]
        text = rng.choice([" ", "\n"]).join(parts)
        start = text.index(said) + said.index(value) + value.index(secret)
        yield {"text": text, "start": start, "end": start + len(secret), "value": secret}


def measure(step: Pii, rows: int, seed: int, show_misses: bool) -> None:
    """Print the table of kinds and languages."""
    planted, found, right, false = Counter(), Counter(), Counter(), Counter()
    for language in ("en", "zh"):
        for kind in KINDS:
            rng = random.Random(f"{seed} {kind} {language}")
            for row in planted_rows(rng, kind, language, rows):
                planted[kind, language] += 1
                for hit in step.find(row["text"]):
                    covers = hit.start < row["end"] and hit.end > row["start"]
                    if covers and hit.kind == kind:
                        right[kind, language] += 1
                        found[kind, language] += hit.start <= row["start"] and hit.end >= row["end"]
                    else:
                        false[hit.kind, language] += 1
                        if show_misses:
                            print("FALSE", hit.kind, shown(row["text"], hit.start, hit.end))
                if show_misses and not is_found(step, row, kind):
                    print("MISS", kind, shown(row["text"], row["start"], row["end"]))
    print("| kind | language | planted | found | false | recall | precision |")
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for language in ("en", "zh"):
            at = kind, language
            hits = right[at] + false[at]
            precision = right[at] / hits if hits else 1.0
            print(
                f"| {kind} | {language} | {planted[at]} | {found[at]} | {false[at]} "
                f"| {found[at] / planted[at]:.3f} | {precision:.3f} |"
            )
    hits = right.total() + false.total()
    print(
        f"| all | both | {planted.total()} | {found.total()} | {false.total()} "
        f"| {found.total() / planted.total():.4f} | {right.total() / hits:.4f} |"
    )


def is_found(step: Pii, row: dict[str, Any], kind: str) -> bool:
    """Say whether a hit of the kind covers the planted value."""
    hits = step.find(row["text"])
    return any(h.kind == kind and h.start <= row["start"] and h.end >= row["end"] for h in hits)


def speed(step: Pii, seed: int, count: int = 8000) -> None:
    """Print rows/s of the whole step on ordinary rows of 200 tokens, 2 % with a planted value."""
    rng = random.Random(seed)
    rows: list[str] = []
    for _ in range(count):
        language = rng.choice(["en", "zh"])
        sentences = rng.choices(FILLER[language], k=rng.randint(6, 18))
        if rng.random() < 0.02:
            sentences.append(next(planted_rows(rng, rng.choice(KINDS), language, 1))["text"])
        rows.append(("" if language == "zh" else " ").join(sentences))
    ask = [{"role": "user", "content": row[:60], "weight": 1.0} for row in rows]
    say = [{"role": "assistant", "content": row[60:], "weight": 1.0} for row in rows]
    columns: dict[str, list[Any]] = {
        "id": [str(i) for i in range(count)],
        "messages": [list(pair) for pair in zip(ask, say, strict=True)],
        **{name: [None] * count for name in ("text", "chosen", "rejected")},
    }
    started = time.process_time()
    result = step(columns)
    seconds = time.process_time() - started
    num_chars = sum(map(len, rows)) / count
    print(
        f"\n{count} ordinary rows, {num_chars:.0f} characters each: {count / seconds:.0f} rows/s "
        f"of one core, {result.counts.total()} replaced"
    )


def list_hits(step: Pii, path: Path) -> None:
    """Print each hit in a file of JSON, in its sentence."""
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else None
    rows = json.loads(text) if rows is None else rows
    counts: Counter[str] = Counter()
    started = time.process_time()
    found = [
        (i, s, hit) for i, row in enumerate(rows) for s in strings(row) for hit in step.find(s)
    ]
    seconds = time.process_time() - started
    for index, string_, hit in found:
        counts[hit.kind] += 1
        print(f"{path.name} row {index}: {hit.kind}: {shown(string_, hit.start, hit.end)}")
    print(f"{path.name}: {len(rows)} rows, {len(rows) / seconds:.0f} rows/s, hits {dict(counts)}\n")


def strings(value: Any) -> Iterator[str]:
    """Yield all strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def shown(text: str, start: int, end: int) -> str:
    """Return a hit in its surroundings, on one line."""
    return f"{text[max(0, start - 45) : start]!r}[[{text[start:end]!r}]]{text[end : end + 20]!r}"


def main() -> None:
    """Measure, or list the hits of files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=300, help="rows of each kind and language")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--misses", action="store_true", help="print what was missed or false")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    step = Pii()
    for path in options.files:
        list_hits(step, path)
    if not options.files:
        print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
        measure(step, options.rows, options.seed, options.misses)
        speed(step, options.seed)


if __name__ == "__main__":
    main()
