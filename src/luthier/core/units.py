"""Numbers as people read them."""

from __future__ import annotations

KIB = 1024
MIB = 1024**2
GIB = 1024**3


def format_bytes(num_bytes: float) -> str:
    """Return a size with the unit that keeps it short, for example `1.5 GiB`."""
    if num_bytes < KIB:
        return f"{num_bytes:.0f} B"
    return _scaled(num_bytes, KIB, (" KiB", " MiB", " GiB", " TiB"))


def format_seconds(seconds: float) -> str:
    """Return a time span as people say it: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_count(count: float) -> str:
    """Return a count with a suffix once it is long: `999`, `12.3k`, `1.7M`, `8.0B`."""
    if count < 10_000:
        return f"{count:,.0f}"
    return _scaled(count, 1000, ("k", "M", "B", "T"))


def format_share(part: float, whole: float) -> str:
    """Return a share in per cent, and a dash where there is nothing to share."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _scaled(value: float, base: int, suffixes: tuple[str, ...]) -> str:
    # The next unit is taken where rounding would otherwise say "1000.0k".
    for suffix in suffixes[:-1]:
        value /= base
        if round(value, 1) < base:
            return f"{value:.1f}{suffix}"
    return f"{value / base:.1f}{suffixes[-1]}"
