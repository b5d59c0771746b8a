"""TensorBoard: event files in a folder of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luthier.trackers.tracker import Opened, TrackedRun

if TYPE_CHECKING:
    from luthier.contracts.training import SampleRecord
    from luthier.trackers.histograms import Histogram

FOLDER = "tensorboard"
_SHOWN_IN_HPARAMS = ("train/loss", "eval/loss")


class TensorBoard:
    """Writes event files through torch's writer; implements `Tracker`."""

    rewinds = True

    def open(self, run: TrackedRun) -> Opened:
        """Open a file more in the run's folder.

        It begins with the step from which on TensorBoard forgets what older files say.
        """
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        folder = run.folder / FOLDER
        purge_step = run.step + 1 if run.step else 0
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step)
        values = {name: _plain(value) for name, value in run.settings.items() if value is not None}
        for summary in hparams(values, dict.fromkeys(_SHOWN_IN_HPARAMS, 0)):
            self._writer.file_writer.add_summary(summary)
        return Opened(run.name, str(folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_samples(self, record: SampleRecord) -> None:
        """Write each prompt under a tag of its own, where a slider goes through the steps."""
        for number, sample in enumerate(record.samples, start=1):
            text = f"**prompt**\n\n{_verbatim(sample.prompt)}\n\n**answer**\n\n"
            text += f"{_verbatim(sample.answer)}\n\n({sample.finish_reason})"
            self._writer.add_text(f"samples/{number}", text, record.step)

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """See `Tracker.log_histograms`."""
        for name, histogram in histograms.items():
            self._writer.add_histogram_raw(
                name,
                min=histogram.edges[0],
                max=histogram.edges[-1],
                num=sum(histogram.counts),
                sum=histogram.total,
                sum_squares=histogram.total_squares,
                bucket_limits=histogram.edges[1:],
                bucket_counts=histogram.counts,
                global_step=step,
            )

    def close(self, *, failed: bool) -> None:
        """Write what is left. A file says nothing of how the run ended."""
        self._writer.close()


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _verbatim(text: str) -> str:
    """Return Markdown that shows a text as it is, line for line."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
