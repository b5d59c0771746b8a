"""The README.md of an artifact: what it is, from what, by which settings, and how good.

In: facts, as `recipes` collects them. Out: Markdown with the front matter that model hubs read.
Nothing is claimed that is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_HEADINGS = {
    "base": "Base model / 基础模型",
    "data": "Data / 数据",
    "settings": "Settings / 训练设置",
    "metrics": "Metrics / 指标",
}


def model_card(facts: Mapping[str, Any], form: str) -> str:
    """Return the card.

    Args:
        facts: `name`, `base`, `licence`, and the mappings `data`, `settings`, `metrics`; each may
            be missing.
        form: The artifact's target and type.
    """
    base, licence = facts.get("base"), facts.get("licence")
    front = {"license": licence, "base_model": base, "library_name": "transformers"}
    lines = ["---"]
    # JSON is YAML: no name can break out of its line.
    lines += [f"{name}: {json.dumps(value)}" for name, value in front.items() if value]
    lines += ["tags:", "- luthier", "---", "", f"# {facts.get('name', 'model')} ({form})", ""]
    lines += ["Fine-tuned and exported with luthier; `export.json` holds hashes and the check.", ""]
    lines += [f"## {_HEADINGS['base']}", "", f"- {base or 'not known'}"]
    lines += [f"- licence / 许可证: {licence or 'not known: look it up at the base'}", ""]
    for part in ("data", "settings", "metrics"):
        lines += [f"## {_HEADINGS[part]}", "", *_list(facts.get(part) or {}), ""]
    return "\n".join(lines)


def _list(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return ["- not known"]
    return [f"- {name}: {_shown(value)}" for name, value in values.items()]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return " ".join(str(value).split())
