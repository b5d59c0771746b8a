"""Settings of the corpus steps, and of the split: what each may be told.

They stand here and not beside each step so that a settings file is checked, and a typo answered,
before any library of the steps is loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from luthier.contracts.settings import Settings
from luthier.corpus.steps.pii_hits import KINDS, PiiKind
from luthier.corpus.text.measures import MIN_RUN
from luthier.corpus.text.scripts import TOLD_BY_SCRIPT


class RepairSettings(Settings):
    """Which kinds of damage are mended."""

    repair_encoding: bool = True
    """Mend text that was read in the wrong encoding (UTF-8 as Latin-1, as GBK, twice, ...)."""

    repair_controls: bool = True
    """Remove control characters and terminal codes; one kind of line end; broken LaTeX commands."""

    repair_invisible: bool = True
    """Remove zero-width and direction marks that the script of the text doesn't need."""

    repair_entities: bool = True
    """Decode leftover HTML entities: not in code, nor in rows that show or speak of HTML."""

    repair_accents: bool = True
    """Write a letter and its loose accent as one character. Width and punctuation stay."""


class SchemaSettings(Settings):
    """What is asked of the shape of a row."""

    schema_action: Literal["drop", "report"] = "drop"
    """Rows that break a rule leave, or are only counted."""

    schema_tool_calls: bool = True
    """Ask that `tools` and the calls of tools are JSON, with a name and arguments."""


Rule = Literal[
    "too_short",
    "too_long",
    "repeated_characters",
    "repeated_words",
    "repeated_lines",
    "symbols",
    "truncated",
    "refusal",
    "sensitive_word",
]


class QualitySettings(Settings):
    """The bounds of each rule. A rule whose bound is null isn't asked."""

    quality_min_answer_chars: int | None = Field(default=1, ge=1)
    """Drop rows with an answer of fewer characters, white space at its ends aside."""

    quality_min_text_chars: int | None = Field(default=20, ge=1)
    """Drop documents (plain text) of fewer characters."""

    quality_max_chars: int | None = Field(default=200_000, ge=1)
    """Drop rows with more characters than this, over all their texts."""

    quality_max_run: int | None = Field(default=100, ge=MIN_RUN)
    """Drop rows in which one character stands more often than this in a row. Rulers don't count."""

    quality_max_repeated_words: float | None = Field(default=0.5, gt=0, lt=1)
    """Drop rows where more than this share of five-word sequences repeats an earlier one."""

    quality_max_repeated_lines: float | None = Field(default=0.5, gt=0, lt=1)
    """Drop rows where more than this share of a text is lines that stood before, code aside."""

    quality_max_symbols: float | None = Field(default=0.6, gt=0, lt=1)
    """Drop rows where more than this share of characters is symbols, code aside."""

    quality_word_list: str | None = None
    """File of words, one a line: rows that have one in any text are dropped."""

    quality_report_only: tuple[Rule, ...] = ("truncated", "refusal")
    """Rules whose rows are counted and kept."""


class LanguageSettings(Settings):
    """Which languages are kept, and how they are told."""

    languages: tuple[str, ...] | None = None
    """Keep only rows in these, such as [zh, en]. Rows whose language can't be told stay."""

    language_detector: Literal["script", "lite"] = "script"
    """`script` tells zh, en, ja, ko by their letters; `lite` looks again, for 176 languages."""

    language_min_score: float = Field(default=0.5, ge=0, le=1)
    """Believe `lite` from this score on; below it, what the letters say."""

    @model_validator(mode="after")
    def _check(self) -> LanguageSettings:
        if self.languages is not None and not self.languages:
            raise ValueError("languages is empty: name a language, or leave it out to keep all")
        untold = sorted(set(self.languages or ()) - TOLD_BY_SCRIPT)
        if self.language_detector == "script" and untold:
            raise ValueError(
                f"languages has {', '.join(untold)}, which letters alone don't tell: "
                "set language_detector: lite"
            )
        return self


class PiiSettings(Settings):
    """Which personal data is looked for, and what becomes of it."""

    pii_action: Literal["redact", "mask", "drop", "report"] = "redact"
    """`redact` puts numbered placeholders, `mask` stars, `drop` takes the row out, `report` only
    counts, and names the kinds in the column `pii`."""

    pii_kinds: tuple[PiiKind, ...] = Field(default=KINDS, min_length=1)
    """The kinds that are looked for; by default all."""

    pii_phone_regions: tuple[str, ...] = ("CN", "US", "GB")
    """Countries whose phone numbers are found in national form. With +country code: all."""

    pii_private_ips: bool = True
    """Whether addresses of private networks (10.x, 192.168.x) count as personal data."""

    pii_allow: tuple[str, ...] = ()
    """Values that may stay, such as your support address; spacing and case don't matter."""

    @field_validator("pii_kinds", "pii_phone_regions")
    @classmethod
    def _no_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("one name stands twice: give each once")
        return value


class ExactSettings(Settings):
    """Which of several equal rows stays."""

    exact_source_priority: tuple[str, ...] = ()
    """Names of sources, the one whose rows are kept first; sources not named come after them."""


class NearSettings(Settings):
    """When two rows are near-duplicates, and which of them stays."""

    near_threshold: float = Field(default=0.6, gt=0, le=1)
    """Rows must share this much of their word pairs (Jaccard), and answers of few words as well."""

    near_scope_threshold: float = Field(default=0.4, gt=0, le=1)
    """Prompts, and answers, must share this much of theirs: in a short one an edit changes much."""

    near_group_floor: float = Field(default=0.45, gt=0, le=1)
    """Rows that are both alike to a third one are one group only if this much alike themselves."""

    near_template_share: float = Field(default=0.01, gt=0, le=1)
    """Word pairs that stand in more than this share of the rows are not compared."""

    near_template_min_rows: int = Field(default=20, ge=1)
    """In a small corpus: word pairs that stand in no more rows than this are always compared."""

    near_quality_column: str | None = None
    """Keep the row that is highest here, then the longest answer. Default: the longest answer."""

    @model_validator(mode="after")
    def _check(self) -> NearSettings:
        if max(self.near_group_floor, self.near_scope_threshold) > self.near_threshold:
            raise ValueError("near_group_floor and near_scope_threshold are at most near_threshold")
        return self


class SemanticSettings(Settings):
    """When two rows mean the same, and by which model."""

    semantic_model: str | None = None
    """Folder of a model2vec model, or its name on the hub, such as minishlab/potion-base-8M."""

    semantic_threshold: float = Field(default=0.92, gt=0, le=1)
    """Rows whose embeddings have at least this cosine mean the same."""

    semantic_scope: Literal["prompt", "answer", "both"] = "both"
    """What must mean the same: with `both`, the prompts, and the answers, each for itself."""


class DecontaminateSettings(Settings):
    """Which tests must not stand in the training data."""

    decontaminate_files: tuple[str, ...] = ()
    """Evaluation sets: json, jsonl, csv or parquet files. The validation file is always added."""

    decontaminate_threshold: float = Field(default=0.2, gt=0, le=1)
    """Drop a row that holds at least this share of the 8-word runs of one turn of a test row."""

    decontaminate_short_threshold: float = Field(default=0.6, gt=0, le=1)
    """The same for a turn of 8 to 23 words, if a turn of the row shares this much of the pairs."""


Weight = Annotated[float, Field(ge=0)]


class SampleSettings(Settings):
    """How many rows are drawn, and from where."""

    sample_weights: dict[str, Weight] = Field(default_factory=dict)
    """Share of each source in the mixture, such as {web: 3, own: 1}. Sources not named weigh 1."""

    sample_size: int | None = Field(default=None, ge=1)
    """Rows in all. The sources keep their shares; without sample_weights, those that they have."""

    sample_max_per_source: int | None = Field(default=None, ge=1)
    """At most this many rows of each source."""

    sample_max_per_category: int | None = Field(default=None, ge=1)
    """At most this many rows of each category. Rows without a category are not bounded."""

    sample_seed: int = 0
    """Another seed draws other rows."""


class GroupSettings(Settings):
    """When two rows are too much alike to stand on different sides of the split."""

    split_likeness: float = Field(default=0.4, gt=0, le=1)
    """Rows that share this much of their word pairs (Jaccard) stay on one side."""
