"""The tokenizer: loaded with a plain answer where it can't be, and hashed by its content.

In: a model folder or hub name. Out: a fast tokenizer with a pad token. It refuses tokenizers that
want to run their own Python code, and those without offsets, which the loss mask is built on.
"""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from luthier.core.errors import ModelError
from luthier.core.hashing import hash_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)
"""A folder with none of these holds no tokenizer."""

PAD_TOKENS = (
    "<|finetune_right_pad_id|>",
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<PAD>",
    "<|padding|>",
    "<|PAD_TOKEN|>",
    "<|endoftext|>",
    "<unk>",
)
"""Tokens that may pad where the tokenizer names none, the best first."""


def load_tokenizer(
    model_name_or_path: str, revision: str = "main", trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load a model's fast tokenizer and see that it has a pad token.

    Args:
        model_name_or_path: A model folder in the Hugging Face layout, or a hub name.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Run Python code that the model brings.

    Raises:
        ModelError: There is no such folder or hub model, it has no tokenizer, the files are
            damaged, or the tokenizer is not one of the `tokenizers` library.
    """
    folder = _local_folder(model_name_or_path)
    if folder is not None:
        _check_folder(folder)
    offline = folder is None and not _hub_answers()
    _refuse_remote_code(model_name_or_path, revision, trust_remote_code, offline)
    tokenizer = _from_pretrained(model_name_or_path, revision, trust_remote_code, offline)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"its tokenizer ({type(tokenizer).__name__}) reports no character offsets, "
            "so no loss mask can be built",
            where=model_name_or_path,
            mend="Use a version of the model that carries a tokenizer.json.",
        )
    _choose_pad_token(tokenizer, model_name_or_path)
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the sha256 of all that decides which ids a text gets, in hex.

    Padding and truncation are left out: any call of the tokenizer may change them.
    """
    backend: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    backend.pop("padding", None)
    backend.pop("truncation", None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hash_json({"backend": backend, "special_tokens": special})


def _local_folder(name: str) -> Path | None:
    """Return the folder that a name means, or None if it can only be a hub name."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(
            f"model_name_or_path is a file: {name}",
            mend="Give the folder that holds config.json and tokenizer.json.",
        )
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(
            f"there is no model folder {name}",
            mend="Check model_name_or_path. A hub name has the form owner/name.",
        )
    return None


def _check_folder(folder: Path) -> None:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"the folder has no tokenizer: none of {', '.join(TOKENIZER_FILES[:3])}, ... is there",
            where=str(folder),
            mend="Copy the tokenizer files of the base model into it.",
        )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _check_json(folder / name)
    if (folder / "tokenizer.json").is_file():
        _check_backend(folder / "tokenizer.json")


def _check_json(path: Path) -> None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise _damaged(path, "not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise _damaged(path, f"not JSON: {error.msg}", error.lineno) from error
    except RecursionError as error:
        raise _damaged(path, "nested too deep") from error
    if not isinstance(value, dict):
        raise _damaged(path, "not a JSON object")


def _check_backend(path: Path) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception, and nothing narrower
        raise _damaged(path, f"not a tokenizer: {error}") from error


def _damaged(path: Path, why: str, line: int | None = None) -> ModelError:
    return ModelError(
        f"the tokenizer file is damaged ({why})",
        where=f"{path}:{line}" if line is not None else str(path),
        mend="Copy it again from the base model.",
    )


def _hub_answers() -> bool:
    """Ask whether the hub can be reached at all, before the library retries for 45 seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True  # the name may be known to the proxy alone
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _refuse_remote_code(name: str, revision: str, trusted: bool, offline: bool) -> None:
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    if trusted:
        return
    try:
        config = get_tokenizer_config(name, revision=revision, local_files_only=offline)
    except OSError as error:
        raise _not_loaded(name, offline, error) from error
    if config.get("auto_map"):
        raise ModelError(
            "its tokenizer wants to run Python code that comes with the model (auto_map)",
            where=name,
            mend="Read that code, and set trust_remote_code: true if you trust it.",
        )


def _from_pretrained(name: str, revision: str, trusted: bool, offline: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            os.path.expanduser(name),  # noqa: PTH111 (a hub name is not a path)
            revision=revision,
            trust_remote_code=trusted,
            local_files_only=offline,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _not_loaded(name, offline, error) from error


def _not_loaded(name: str, offline: bool, error: Exception) -> ModelError:
    if offline:
        return ModelError(
            f"there is no folder {name}, and the hub can't be reached to look there",
            mend="Check the path, or the network (HF_HUB_OFFLINE, HF_ENDPOINT, HTTPS_PROXY).",
        )
    first_line = str(error).strip().partition("\n")[0]
    return ModelError(
        f"its tokenizer can't be loaded ({type(error).__name__}: {first_line})",
        where=name,
        mend="Check the name and model_revision, and that the tokenizer files are whole.",
    )


def _choose_pad_token(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Give the tokenizer a pad token that is not eos where its vocabulary has one.

    Where only eos is left it is harmless: luthier's masks come from the structure of the
    template, never from a comparison with the pad id.
    """
    if tokenizer.pad_token is not None:
        return
    vocabulary = tokenizer.get_vocab()
    for token in PAD_TOKENS:
        if token in vocabulary and token != tokenizer.eos_token:
            tokenizer.pad_token = token
            return
    if tokenizer.eos_token is None:
        raise ModelError(
            "its tokenizer names neither a pad token nor an end token",
            where=name,
            mend='Add "eos_token" to the folder\'s tokenizer_config.json.',
        )
    tokenizer.pad_token = tokenizer.eos_token
