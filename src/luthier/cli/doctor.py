"""`luthier doctor`: the machine, the versions and what is available, for people and bug reports."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from luthier.cli.terminal import console
from luthier.core.units import format_bytes


def run(*, as_json: bool) -> None:
    """Show what is known about this machine. Nothing in it is secret."""
    facts = collect()
    if as_json:
        console.print_json(data=facts)
        return
    _show("machine", _machine_rows(facts))
    _show("computing", _computing_rows(facts))
    _show("packages", [(name, version) for name, version in facts["packages"].items()])
    _show("extras", [_extra_row(extra) for extra in facts["extras"]])
    if facts["environment"]:
        _show("environment", list(facts["environment"].items()))
    for warning in facts["warnings"]:
        line = f"{warning['setting']} {warning['asked']}: {warning['reason']}"
        console.print(Text(line, style="yellow"))


def collect() -> dict[str, Any]:
    """Collect all facts as plain JSON."""
    from luthier.recipes import machine, packages

    rates = machine.measure_matrix_rates()
    return {
        "machine": machine.machine_facts(),
        "disk": machine.disk(),
        "gflops": rates,
        "training": machine.training_type(rates),
        "packages": packages.package_versions(),
        "extras": packages.extras(),
        "environment": machine.environment(),
        "warnings": [notice.as_json() for notice in packages.security_notices()],
    }


def _show(title: str, rows: list[tuple[str, str | Text]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), title_justify="left")
    table.add_column(style="dim", min_width=16, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    console.print(Text(title, style="bold"))
    console.print(table)
    console.print()


def _machine_rows(facts: dict[str, Any]) -> list[tuple[str, str | Text]]:
    machine = facts["machine"]
    cpu, memory = machine["cpu"], machine["memory"]
    rows: list[tuple[str, str | Text]] = [
        ("system", machine["os"]),
        ("python", machine["python"]),
        ("cpu", f"{cpu['name']}, {cpu['cores']} cores ({cpu['architecture']})"),
        (
            "memory",
            f"{format_bytes(memory['total_bytes'])}, "
            f"{format_bytes(memory['available_bytes'])} available",
        ),
    ]
    for name, place in facts["disk"].items():
        rows.append((name, f"{format_bytes(place['free_bytes'])} free at {place['path']}"))
    return rows


def _computing_rows(facts: dict[str, Any]) -> list[tuple[str, str | Text]]:
    machine, training = facts["machine"], facts["training"]
    bf16 = machine["bf16"]
    if bf16["native"]:
        features = f" ({', '.join(bf16['features'])})" if bf16["features"] else ""
        native = Text(f"native{features}", style="green")
    else:
        native = Text("not in hardware")
    rows: list[tuple[str, str | Text]] = [
        ("device", bf16["device"]),
        ("torch", f"{machine['torch_build']}, {machine['cpu']['torch_threads']} threads"),
        ("bf16", native),
        ("matrix product", ", ".join(f"{n} {r:,.0f} GFLOP/s" for n, r in facts["gflops"].items())),
        ("training uses", f"{training['name']}: {training['reason']}"),
    ]
    return rows + [("gpu", _gpu_text(gpu)) for gpu in machine["gpus"]]


def _gpu_text(gpu: dict[str, Any]) -> str:
    parts = [gpu["name"], format_bytes(gpu["memory_bytes"])]
    if gpu.get("cuda"):
        parts += [f"CUDA {gpu['cuda']}", f"driver {gpu['driver'] or 'unknown'}"]
    return ", ".join(parts)


def _extra_row(extra: dict[str, Any]) -> tuple[str, str | Text]:
    if extra["installed"]:
        versions = ", ".join(f"{name} {version}" for name, version in extra["packages"].items())
        return extra["name"], Text(versions, style="green")
    return extra["name"], Text(f"not installed: {extra['install']}", style="dim")
