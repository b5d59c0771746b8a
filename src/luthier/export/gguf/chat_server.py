"""llama.cpp's own rendering of a chat: its server is started on this machine and asked.

xllamacpp has no call that renders a template, but its server answers `/apply-template` by the
template in the file. It listens on the loopback only, behind a key made for it.
"""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


class ChatServer:
    """llama.cpp's server over one file.

    Args:
        path: The GGUF file.

    Raises:
        RuntimeError: It does not start, for example because it can't read the chat template.
    """

    def __init__(self, path: Path) -> None:
        # It is compiled and comes without types.
        xllamacpp: Any = import_module("xllamacpp")
        self._key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [self._key]
        params.use_jinja = True
        params.n_ctx = 256
        params.n_parallel = 1
        params.warmup = False
        params.fit_params = False
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            # It tries the template on a chat of its own before it listens.
            raise RuntimeError(f"llama.cpp's server does not start: {error}") from error

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self._server.listening_address)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return a conversation as text, up to where an answer begins.

        Raises:
            RuntimeError: The template fails in llama.cpp's own renderer.
            OSError: The server is gone.
        """
        request = urllib.request.Request(
            f"{self.address}/apply-template",
            data=json.dumps({"messages": list(messages)}).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        # A proxy of the environment has no business with the loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return str(json.load(answer)["prompt"])
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            raise RuntimeError(f"llama.cpp can't render the chat template: {told}") from error
