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


def test_the_server_renders_and_listens_to_nobody_else(make_source: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    source = make_source("Llama", "chatml")
    template = source.folder / "chat_template.jinja"
    refusal = (
        "{% if messages[0]['role'] == 'user' %}{{ raise_exception('Only Be brief') }}{% endif %}"
    )
    template.write_text(refusal + template.read_text())
    write_gguf(source, "F32", path, lambda line: None)
    server = ChatServer(path)
    text = server.render([{"role": "system", "content": "Be brief."}])
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n"
    assert server.address.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError, match="can't render the chat template: .*Only Be brief"):
        server.render([{"role": "user", "content": "Hello"}])
    request = urllib.request.Request(f"{server.address}/apply-template", data=b"{}")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)
