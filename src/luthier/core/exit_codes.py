"""Exit codes that mean something to whoever started the command."""

from __future__ import annotations

INTERRUPTED = 130
"""Ctrl-C ended the command at once (128 + SIGINT, as shells have it)."""
STOPPED = 75
"""A signal stopped the work, and it can go on (EX_TEMPFAIL of sysexits.h)."""
