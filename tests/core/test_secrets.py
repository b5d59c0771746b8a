"""Secrets are found by the names of variables, by the shapes of keys, and in URLs."""

from __future__ import annotations

import json

import pytest

from luthier.core.secrets import HIDDEN, find_secret, redact, redact_json, secret_variables

MIXED = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3dF5h"
KEYS = (
    f"hf_{MIXED[:34]}",
    f"sk-{MIXED}",
    f"ghp_{MIXED[:36]}",
    f"github_pat_{MIXED}",
    "AKIAIOSFODNN7EXAMPLE",
    f"glpat-{MIXED[:20]}",
    f"xoxb-123456789012-{MIXED[:24]}",
)
FORTY_HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_known_shape_is_found_and_hidden(key: str):
    assert find_secret(f"see {key}!", {}) == "a key or token"
    assert redact(f"luthier train --x={key} --y 1", {}) == f"luthier train --x={HIDDEN} --y 1"


@pytest.mark.parametrize(
    "text",
    [
        "hf_models/tiny",
        "runs/sk-learn-experiments-with-alpaca-2024",
        "task-aB3dE5gH7jK9mN1pQ2rS4tU6",
        "https://example.org/a:b@c",
        "https://example.org:8080/x",
        "git@example.org:owner/name",
        FORTY_HEX,
        "sk-",
    ],
)
def test_what_only_looks_like_one_stays(text: str):
    assert find_secret(text, {}) is None
    assert redact(text, {}) == text


def test_the_password_of_a_url_is_hidden_and_the_rest_is_kept():
    url = "https://someone:pa55@proxy.example.org:3128/path"
    assert redact(f"by {url}", {}) == f"by https://{HIDDEN}@proxy.example.org:3128/path"
    assert find_secret([url], {}) == "a URL with a password"


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "hf_token", "MY_SECRET", "PGPASSWORD", "WANDB_API_KEY", "OPENAI_APIKEY"),
        *("AWS_SECRET_ACCESS_KEY", "GOOGLE_CREDENTIALS"),
    ],
)
def test_the_value_of_a_variable_that_is_named_so(name: str):
    variables = {name: FORTY_HEX, "OTHER": "nothing"}
    assert secret_variables(variables) == {FORTY_HEX: name}
    found = find_secret({"a": [1, f"x{FORTY_HEX}y"]}, variables)
    assert found == f"the value of the environment variable {name}"
    assert redact(f"x{FORTY_HEX}y", variables) == f"x{HIDDEN}y"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "threaded"),
        ("HF_TOKEN", "1234567"),
        ("HF_TOKEN", "       1       "),
        ("HF_TOKEN_PATH", "/etc/some/token"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/secrets/t"),
        ("HOME", "/home/someone"),
    ],
)
def test_other_variables_are_no_secrets(name: str, value: str):
    assert secret_variables({name: value}) == {}
    assert redact(f"x {value}", {name: value}) == f"x {value}"


def test_a_secret_inside_of_another_leaves_no_rest():
    variables = {"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-and-more", "C_TOKEN": " ijklmnop\n"}
    assert redact("abcdefgh-and-more abcdefgh ijklmnop", variables) == " ".join([HIDDEN] * 3)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUTHIER_TEST_TOKEN", "a value of a test")
    assert redact("is a value of a test.") == f"is {HIDDEN}."
    assert find_secret("a value of a test") is not None
    assert redact_json(["a value of a test"]) == [HIDDEN]


def test_a_json_value_is_hidden_in_all_its_depth():
    variables = {"MY_TOKEN": "s3cr3t-value"}
    value = {
        "s3cr3t-value": {"deep": ["s3cr3t-value", {"n": 1.5, "yes": True, "no": None}]},
        "tuple": ("as s3cr3t-value",),
    }
    hidden = redact_json(value, variables)
    assert hidden == {
        HIDDEN: {"deep": [HIDDEN, {"n": 1.5, "yes": True, "no": None}]},
        "tuple": [f"as {HIDDEN}"],
    }
    assert "s3cr3t" not in json.dumps(hidden)


def test_a_number_is_compared_as_it_is_written():
    variables = {"PIN_TOKEN": "12345678"}
    assert find_secret(12345678, variables) is not None
    assert find_secret({"seed": 42, "on": True, "off": None}, variables) is None
