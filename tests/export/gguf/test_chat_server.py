"""A chat is rendered by llama.cpp's server; equality with the template is tested in test_target."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from luthier.export.gguf.chat_server import ChatServer
from luthier.export.gguf.writer import write_gguf

pytest.importorskip("xllamacpp", reason="xllamacpp, which runs llama.cpp, is not installed")

REFUSAL = "{% if messages[0]['content'] == 'Why?' %}{{ raise_exception('No why.') }}{% endif %}"


def written(source: Any, path: Path, *, before: str = "", template: str | None = None) -> Path:
    """Write a file whose template is another, or begins with something."""
    own = source.folder / "chat_template.jinja"
    own.write_text(before + (template or own.read_text()))
    write_gguf(source, "F32", path, lambda line: None)
    return path


def test_the_server_renders_and_listens_to_nobody_else(make_source: Any, tmp_path: Path) -> None:
    path = written(make_source("Llama", "chatml"), tmp_path / "tiny.gguf", before=REFUSAL)
    server = ChatServer(path)
    text = server.render([{"role": "system", "content": "Be brief."}])
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(RuntimeError, match=r"can't render the chat template: .*No why\."):
        server.render([{"role": "user", "content": "Why?"}])
    assert server.address.startswith("http://127.0.0.1:")
    request = urllib.request.Request(f"{server.address}/apply-template", data=b"{}")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)


def test_a_template_that_llama_cpp_can_not_read_is_an_error(
    make_source: Any, tmp_path: Path
) -> None:
    source = make_source("Llama", "chatml")
    path = written(source, tmp_path / "tiny.gguf", template="{{ messages | no_such_filter }}")
    with pytest.raises(RuntimeError, match=r"llama\.cpp's server does not start"):
        ChatServer(path)
