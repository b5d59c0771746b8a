import pytest

from luthier.corpus.steps import pii_secrets as secrets
from luthier.corpus.steps.pii_hits import without_overlaps

FINDERS = {
    "api_key": secrets.api_keys,
    "password": secrets.passwords,
    "email": secrets.emails,
    "url_token": secrets.url_tokens,
}
MIXED = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3dF5hJ7kL9nP2qR4sT6uV8wX0yZabcd"
LETTERS = "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgHiJ"


def values(name, text):
    return [text[h.start : h.end] for h in without_overlaps(FINDERS[name](text))]


@pytest.mark.parametrize(
    "key",
    [
        f"sk-{MIXED[:48]}",
        f"sk-proj-{MIXED}",
        f"sk-ant-api03-{MIXED}",
        "AKIAIOSFODNN7EXAMPLE",
        f"ghp_{MIXED[:36]}",
        f"github_pat_{MIXED}",
        f"glpat-{MIXED[:20]}",
        f"xoxb-123456789012-{MIXED[:24]}",
        f"AIza{MIXED[:35]}",
        f"hf_{LETTERS[:34]}",
        f"sk_live_{MIXED[:24]}",
        f"rk_test_{MIXED[:24]}",
        f"npm_{MIXED[:36]}",
        f"SG.{MIXED[:22]}.{MIXED[:43]}",
        f"LTAI{MIXED[:20]}",
        f"123456789:AA{MIXED[:33]}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s5Rf3k_9dQ2",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
    ],
)
def test_keys_of_known_shape_in_both_languages(key):
    assert values("api_key", f"Use {key}") == [key]
    assert values("api_key", f"密钥是{key}，别外传") == [key]


@pytest.mark.parametrize(
    "text",
    ["api_key = '{}'", '"client_secret": "{}"', "Authorization: Bearer {}", "密钥：{}",
     "令牌是{}。", "aws_secret_access_key={}", "the access token is {}."],
)  # fmt: skip
def test_random_values_that_are_named_a_key(text):
    assert values("api_key", text.format(MIXED[:40])) == [MIXED[:40]]


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-is-a-library-of-estimators",
        "sk-your-key-goes-here-1234567890",
        "api_key: your_api_key_here_123",
        "token: abcdefghijklmnopqrstuvwxyz",
        "token = tokenizer.convert_ids_2_tokens",
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "PRIVATE KEY in capitals",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    ],
)
def test_no_keys(text):
    assert values("api_key", text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Password: hunter2", "hunter2"),
        ("my password is Tr0ub4dor&3 and", "Tr0ub4dor&3"),
        ("The password for the guest network is abc123.", "abc123"),
        ("I reset the password to *x9_Yz%w yesterday", "*x9_Yz%w"),
        ('{"password": "Zx9!kk"}', "Zx9!kk"),
        ("DB_PASSWORD=s3cret!\n", "s3cret!"),
        ("**Password:** `abc123`", "abc123"),
        ("pass: a1b2c3", "a1b2c3"),
        ("password=abc12&user=bob", "abc12"),
        ("密码：123456", "123456"),
        ("密码是Abc@1234，请", "Abc@1234"),
        ("登录密码为“Abc1234”。", "Abc1234"),
        ("WiFi密码 abc12345", "abc12345"),
        ("初始密码已重置为abc123，谢谢", "abc123"),
        ("口令：p@ssword", "p@ssword"),
        ("密码：1234-5678", "1234-5678"),
        ("Password: uxBcRUwj(3. Then", "uxBcRUwj(3"),
        ("Password: #t+15RskS). Then", "#t+15RskS)"),
        ("(password: abc123)", "abc123"),
        ("密码：(4hkKKt%r%。", "(4hkKKt%r%"),
    ],
)
def test_passwords(text, value):
    assert values("password", text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "Password: required",
        "The password is secret.",
        "password: must have 12 characters",
        "Password: 12345 characters at most",
        "password must be 8 characters",
        "password = getpass.getpass2()",
        "password = request.form['p1']",
        "password = user1.password",
        "password = hash(password1, salt)",
        "password: (optional1)",
        "password: ${DB_PASS1}",
        "password=%s",
        "password: {pw1}",
        "password: ********",
        "Password: ....12",
        "密码为6-16位字符",
        "密码：1234位",
        "密码是由8个字符组成",
        "密码学：原理",
        "the password: /etc/passwd1",
        "password: -!!-",
        "no words here 12345678",
    ],
)
def test_no_passwords(text):
    assert values("password", text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Write to a.b+c@sub.example.co.uk.", "a.b+c@sub.example.co.uk"),
        ("邮箱zhang_3@qq.com，谢谢", "zhang_3@qq.com"),
        ("发到123456@163.com即可", "123456@163.com"),
        ("x＠mail.com", "x＠mail.com"),
        ("<bob@acme.photography.museum>", "bob@acme.photography.museum"),
    ],
)
def test_emails(text, value):
    assert values("email", text) == [value]


@pytest.mark.parametrize(
    "text",
    ["logo@2x.png", "q@k.transpose(1)", "x@self.weight", "git@github.com:a/b.git", "lodash@4.17.21",
     "@app.route", "root@localhost", "me @ home.com", "a@b.to(device)"],
)  # fmt: skip
def test_no_emails(text):
    assert values("email", text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("https://a.io/x?page=2&access_token=a1b2c3d4e5f6.", "a1b2c3d4e5f6"),
        ("点击https://a.cn/x?token=a1b2c3d4e5f6，下载", "a1b2c3d4e5f6"),
        ("postgres://app:pw@db:5432/main", "app:pw"),
        ("https://s3/x?X-Amz-Signature=a1b2c3d4e5f6a7", "a1b2c3d4e5f6a7"),
        ("https://a.io/#id_token=a1b2c3d4e5f6", "a1b2c3d4e5f6"),
        ("https://a.io/?key=a1b2c3d4e5f6g7h8", "a1b2c3d4e5f6g7h8"),
        ("https://hooks.slack.com/services/T01234/B01234/a1b2c3d4", "T01234/B01234/a1b2c3d4"),
        ("https://a.io/?password=123456", "123456"),
    ],
)  # fmt: skip
def test_url_tokens(text, value):
    assert values("url_token", text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "https://a.io/x?page=123456&id=99887766",
        "https://a.io/?token=YOUR_TOKEN",
        "https://youtu.be/watch?v=dQw4w9WgXcQ12",
        "https://a.io/?key=short1",
        "postgres://user:****@db/main",
        "token=a1b2c3d4e5f6",
    ],
)
def test_no_url_tokens(text):
    assert values("url_token", text) == []
