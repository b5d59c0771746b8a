"""The screen of a training run: a calm progress line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.text import Text

from luthier.cli.corpus_tables import print_outcome
from luthier.core.units import format_bytes, format_count, format_seconds, format_share

if TYPE_CHECKING:
    import torch

    from luthier.contracts.notice import Notice
    from luthier.contracts.training import Progress as RunProgress
    from luthier.contracts.training import SampleRecord, StepRecord
    from luthier.dataset.prepare import Prepared
    from luthier.engine.precision import Precision
    from luthier.models.adapters import ParameterCount
    from luthier.recipes.corpus import PreparedCorpus


class TrainScreen:
    """Draws a run; implements `Screen`. A context: leaving it takes the progress line away."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._status: Status | None = None
        self._latest: dict[str, float] = {}

    def __enter__(self) -> TrainScreen:
        """Nothing is drawn before there is something to draw."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the progress line away, so that an error stands alone."""
        self._close()

    def say(self, line: str) -> None:
        """Print what is being done, in grey."""
        self._console.print(Text(line, style="dim"), soft_wrap=True)

    def working(self, what: str, done: int, total: int) -> None:
        """Show a passing line for work that can be counted, until it is done."""
        if not self._console.is_terminal:
            return
        if done == total and total:
            self._close()
            return
        if self._status is None:
            self._status = self._console.status("", spinner="dots")
            self._status.start()
        counted = f" {done:,} of {total:,}" if total > 1 else ""
        if not total and done:
            counted = f" {done:,}"
        self._status.update(f"[dim]{escape(what)}{counted}[/]")

    def notice(self, notice: Notice) -> None:
        """Print a substitution or warning in one line."""
        self._console.print(Text.assemble(("note  ", "yellow"), str(notice)), soft_wrap=True)

    def signalled(self, signal_name: str) -> None:
        """Say that a signal arrived and what happens now."""
        if signal_name == "SIGUSR1":
            self.say("SIGUSR1: writing a checkpoint after this step, and going on.")
            return
        self.say(
            f"{signal_name}: writing a checkpoint after this micro-batch. Once more stops at once."
        )

    def corpus(self, corpus: PreparedCorpus) -> None:
        """Print what the corpus steps left, and where the data card is."""
        self._close()
        print_outcome(self._console, corpus.manifest)
        self.say(f"The data card: {corpus.folder / 'data.html'}")

    def data(self, prepared: Prepared) -> None:
        """Print the counts of the prepared data in a few lines."""
        self._close()
        splits = prepared.manifest["splits"]
        for name, split in splits.items():
            share = format_share(split["supervised_tokens"], split["tokens"])
            taught = f"{share} of them taught" if split["supervised_tokens"] else "prompts alone"
            self._console.print(
                f"[bold]{name:5}[/] {split['rows']:,} rows, "
                f"{format_count(split['tokens'])} tokens, {taught}, "
                f"longest {split['max_length']:,}"
            )
        counts = prepared.manifest["counts"]
        if counts["dropped"]:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts["dropped"].items())
            self._console.print(
                f"[yellow]left out[/] {sum(counts['dropped'].values()):,} rows: {reasons} "
                f"({escape(str(prepared.folder / 'rejected.jsonl'))})",
                soft_wrap=True,
            )
        if counts["truncated_rows"]:
            self._console.print(
                f"[yellow]cut[/] {counts['truncated_rows']:,} rows over cutoff_len by "
                f"{format_count(counts['truncated_tokens'])} tokens"
            )

    def model(self, parameters: ParameterCount, device: torch.device, precision: Precision) -> None:
        """Print what is trained, where, and how."""
        share = format_share(parameters.trained, parameters.total)
        self._console.print(
            f"[bold]model[/] {format_count(parameters.total)} parameters, "
            f"{format_count(parameters.trained)} of them trained ({share}), "
            f"{precision.name} on {device}"
        )

    def on_start(self, progress: RunProgress) -> None:
        """Open the progress line."""
        if progress.step:
            self.say(f"Going on after step {progress.step}")
        if not self._console.is_terminal:
            return
        self._bar = _TrainProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
            TimeElapsedColumn(),
            _Remaining(),
            console=self._console,
            transient=True,
            refresh_per_second=4,
            # Steps may take minutes: the mean is over the last hour, not the last half minute.
            speed_estimate_period=3600,
        )
        self._bar.add_task("train", total=progress.num_steps, completed=progress.step, metrics="")
        self._bar.start()

    def on_step(self, record: StepRecord) -> None:
        """Move the progress line on."""
        self._latest.update(record.metrics)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                completed=record.step,
                metrics=_short(self._latest),
                description=f"epoch {record.epoch:.2f}",
            )

    def on_log(self, record: StepRecord) -> None:
        """Print a line of the log where there is no progress line."""
        self._latest.update(record.metrics)
        if self._bar is None:
            self._console.print(
                f"step {record.step:5}  epoch {record.epoch:5.2f}  {_long(record.metrics)}"
            )

    def on_evaluation(self, record: StepRecord) -> None:
        """Print the validation metrics; they stay on the screen."""
        metrics = record.metrics
        self._console.print(
            f"step {record.step:5}  epoch {record.epoch:5.2f}  "
            f"[green]validation loss {metrics['eval_loss']:.4f}[/]  "
            f"{_measured(metrics)}  ({format_seconds(metrics['eval_seconds'])})"
        )

    def on_samples(self, record: SampleRecord) -> None:
        """Print what the model says now to the fixed prompts."""
        for sample in record.samples:
            prompt, answer = (_one_line(text) for text in (sample.prompt, sample.answer))
            cut = "" if sample.finish_reason == "stop" else " …"
            line = Text(f"step {record.step:5}  ")
            line.append(prompt, style="dim").append(" → ").append(answer, style="cyan").append(cut)
            self._console.print(line, no_wrap=True, overflow="ellipsis", soft_wrap=False)

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """Say where the checkpoint lies."""
        self.say(f"step {step:5}  checkpoint {path}")

    def on_end(self, progress: RunProgress) -> None:
        """Close the progress line."""
        self._close()

    def _close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _TrainProgress(Progress):
    """A progress bar with the newest metrics on a line of their own below it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            metrics = str(task.fields["metrics"])
            yield Text(metrics, style="cyan", no_wrap=True, overflow="ellipsis")


class _Remaining(ProgressColumn):
    """The time that is left, by the mean time of the steps so far."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text(f"{format_seconds(left)} left" if left is not None else "", style="dim")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _measured(metrics: Mapping[str, float]) -> str:
    """Say what an evaluation measured beside its loss."""
    parts: list[str] = []
    if "eval_perplexity" in metrics:
        parts.append(f"perplexity {metrics['eval_perplexity']:.2f}")
    if "eval_bits_per_byte" in metrics:
        parts.append(f"{metrics['eval_bits_per_byte']:.4f} bits per byte")
    elif "eval_token_accuracy" in metrics:
        parts.append(f"token accuracy {100 * metrics['eval_token_accuracy']:.1f} %")
    if "eval_reward" in metrics:
        parts.append(f"reward {metrics['eval_reward']:+.3f}")
    if "eval_rewards/accuracies" in metrics:
        parts.append(f"{100 * metrics['eval_rewards/accuracies']:.1f} % of pairs ranked right")
    if "eval_rewards/chosen" in metrics:
        chosen, rejected = metrics["eval_rewards/chosen"], metrics["eval_rewards/rejected"]
        parts.append(f"rewards {chosen:+.3f} and {rejected:+.3f}")
    return "  ".join(parts)


def _short(metrics: Mapping[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    if "reward" in metrics:
        parts.append(f"reward {metrics['reward']:+.3f}")
    if "rewards/accuracies" in metrics:
        parts.append(f"ranked right {100 * metrics['rewards/accuracies']:.0f} %")
    if "tokens_per_second" in metrics:
        parts += [
            f"lr {metrics['learning_rate']:.1e}",
            f"grad {metrics['grad_norm']:.2f}",
            f"{format_count(metrics['tokens_per_second'])} tok/s",
            format_bytes(metrics["memory_bytes"]),
        ]
    return " · ".join(parts)


def _long(metrics: Mapping[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.4f}", f"lr {metrics['learning_rate']:.2e}"]
    if "grad_norm" in metrics:
        parts.append(f"grad norm {metrics['grad_norm']:.3f}")
    if "reward" in metrics:
        parts.append(f"reward {metrics['reward']:+.3f}")
    if "rewards/accuracies" in metrics:
        parts.append(f"ranked right {100 * metrics['rewards/accuracies']:.1f} %")
    if "tokens_per_second" in metrics:
        parts.append(f"{format_count(metrics['tokens_per_second'])} tokens/s")
    parts.append(format_bytes(metrics["memory_bytes"]))
    return "  ".join(parts)
