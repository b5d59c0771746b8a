"""The `luthier` command: which commands there are, and how an error looks.

Commands import what they need when they run, so that `--help` and a typo are answered at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from luthier import __version__
from luthier.core.disk import NO_ROOM
from luthier.core.errors import LuthierError, RunError

app = typer.Typer(
    name="luthier",
    help="Fine-tune language models: raw text in, a verified model out.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

# These commands take every setting as a flag; `recipes.config_flags` reads them.
_SETTINGS_AS_FLAGS = {"ignore_unknown_options": True, "allow_extra_args": True}
_METAVAR = "Arguments: [CONFIG] [--SETTING VALUE]...  `luthier config` lists all settings."
_PREPARE_ARGUMENTS = """\
Arguments: [CONFIG | FILES...] [--SETTING VALUE]... and these:

--out FOLDER: where the corpus goes; without it, corpus_dir says.

--dry_run [--rows N]: look at the first N rows of each source (2000); nothing is written.

--ray [ADDRESS]: work on Ray, on this machine or on a cluster; write it last.

Settings worth knowing: steps, val_size, val_file, languages, pii_action, decontaminate_files, \
preprocessing_num_workers, on_bad_row. `luthier config` lists all; docs/corpus.md tells of them.
"""
_LR_FIND_ARGUMENTS = """\
Arguments: [CONFIG] [--SETTING VALUE]... and these:

--min_lr RATE, --max_lr RATE: the range (1e-7 to 1); it ends early where the loss diverges.

--num_steps N: how many rates are tried in it (100, or one pass over fewer rows).

The curve goes to output_dir/lr-find; a run that is there is left as it is.
"""
_SWEEP_ARGUMENTS = """\
Arguments: CONFIG [--SETTING VALUE]... and these:

--num_trials N: trials of the whole sweep, in place of the file's.

--resume_from_checkpoint: go on with the sweep in output_dir. --overwrite_output_dir: remove it.

The file has a `sweep` section with the ranges; docs/sweeps.md tells of it.
"""

# Settings are spelled with underscores everywhere; typer alone would take dashes only.
_MaxNewTokens = Annotated[
    int,
    typer.Option("--max_new_tokens", help="Longest answer, in tokens."),
]
_Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.")]
_TopP = Annotated[float, typer.Option("--top_p", help="Draw from this share of probability.")]


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Fine-tune language models: raw text in, a verified model out."""
    if version:
        typer.echo(f"luthier {__version__}")
        raise typer.Exit


@app.command(context_settings=_SETTINGS_AS_FLAGS, epilog=_METAVAR)
def train(ctx: typer.Context) -> None:
    """Fine-tune a model, for example: luthier train configs/sft_alpaca.yaml --seed 7."""
    from luthier.cli.train import run

    run(ctx.args)


@app.command(
    context_settings=_SETTINGS_AS_FLAGS,
    epilog=_PREPARE_ARGUMENTS,
)
def prepare(ctx: typer.Context) -> None:
    """Clean raw data and say why each row left: luthier prepare raw/*.jsonl --out prepared."""
    from luthier.cli.prepare import run

    run(ctx.args)


@app.command(context_settings=_SETTINGS_AS_FLAGS, epilog=_METAVAR)
def inspect(ctx: typer.Context) -> None:
    """Show what the model will be taught, before a second of training."""
    from luthier.cli.inspect import run

    run(ctx.args)


@app.command("lr-find", context_settings=_SETTINGS_AS_FLAGS, epilog=_LR_FIND_ARGUMENTS)
def lr_find(ctx: typer.Context) -> None:
    """Try learning rates on a run's own rows and suggest one, in about a hundred steps."""
    from luthier.cli.lr_find import run

    run(ctx.args)


@app.command(context_settings=_SETTINGS_AS_FLAGS, epilog=_SWEEP_ARGUMENTS)
def sweep(ctx: typer.Context) -> None:
    """Try settings in their ranges, one run a trial, and say which are best and what mattered."""
    from luthier.cli.sweep import run

    run(ctx.args)


@app.command(context_settings=_SETTINGS_AS_FLAGS, epilog=_METAVAR)
def config(ctx: typer.Context) -> None:
    """List every setting, its value and where it came from."""
    from luthier.cli.config import run

    run(ctx.args)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A run folder, model folder or hub name.")],
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_new_tokens: _MaxNewTokens = 512,
    temperature: _Temperature = 0.0,
    top_p: _TopP = 1.0,
) -> None:
    """Talk to a model or to what a run has made of it."""
    from luthier.cli.chat import run

    run(
        model,
        system=system,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
    )


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder or hub name.")],
    prompts: Annotated[str, typer.Option(help="Rows with prompt, instruction or messages.")],
    out: Annotated[str, typer.Option(help="Where the answers go, as jsonl.")],
    max_new_tokens: _MaxNewTokens = 512,
    temperature: _Temperature = 0.0,
    top_p: _TopP = 1.0,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Prompts answered at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 42,
) -> None:
    """Answer a file of prompts."""
    from luthier.cli.generate import run

    run(
        model,
        prompts=prompts,
        out=out,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
    )


class _OptionalBase(TyperCommand):
    """Lets `--base` stand alone, for the model's own base, or before the name of another."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write an empty name behind a `--base` that has none."""
        for place, word in enumerate(args):
            if word == "--base" and (not args[place + 1 :] or args[place + 1].startswith("--")):
                args = [*args[: place + 1], "", *args[place + 1 :]]
                break
        return super().parse_args(ctx, args)


@app.command("eval", cls=_OptionalBase)
def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder or hub name.")],
    data: Annotated[
        str | None, typer.Option(help="Rows with answers, or texts; else the run's validation.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Between commas: perplexity,bleu,chrf,rouge,exact_match,math_answer."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of your own, as FILE.py:FUNCTION.")
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Answer the rows, and take the metrics that suit.")
    ] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="Write every answer to NAME.answers.jsonl.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="[MODEL]", help="Compare with the base, or with another model."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Benchmark tasks of lm-eval, between commas.")
    ] = None,
    num_rows: Annotated[
        int | None, typer.Option("--num_rows", min=1, help="Only the first so many rows.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Rows computed at once.")] = 8,
    max_new_tokens: _MaxNewTokens = 512,
    out: Annotated[
        str | None, typer.Option(help="Folder for the results; else RUN/evaluations.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the results are called; else after the data.")
    ] = None,
) -> None:
    """Measure a model with intervals, alone or against its base: luthier eval RUN --base."""
    from luthier.cli.eval import run
    from luthier.recipes.evaluation_plan import EvaluationRequest

    run(
        EvaluationRequest(
            model=model,
            data=data,
            metrics=None if metrics is None else _between_commas(metrics),
            own_metrics=metric or [],
            generate=generate,
            predict=predict,
            base=base,
            tasks=[] if tasks is None else _between_commas(tasks),
            num_rows=num_rows,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            out=out,
            name=name,
        )
    )


def _between_commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def checkpoints(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Output folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the checkpoints of a run, and verify every file of them."""
    from luthier.cli.checkpoints import run

    run(run_folder, as_json=as_json)


@app.command()
def runs(
    folder: Annotated[str, typer.Argument(help="Searched at any depth.")] = ".",
    where: Annotated[
        list[str] | None,
        typer.Option(help="'learning_rate>1e-4': any setting or metric; = != < <= > >=."),
    ] = None,
    sort: Annotated[str, typer.Option(help="By this name; -NAME: the largest first.")] = "-started",
    columns: Annotated[str | None, typer.Option(help="Names, by commas.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows that are shown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List runs, for example: luthier runs output --where stage=dpo --sort best_eval_loss."""
    from luthier.cli.runs import run

    run(folder, where=where or (), sort=sort, columns=columns, limit=limit, as_json=as_json)


@app.command()
def watch(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Output folder of a run.")],
) -> None:
    """Follow a run from another terminal; it exits with 0, 75 (stopped) or 1 (broken off)."""
    from luthier.cli.watch import run

    run(run_folder)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Folder of a run: the output_dir of `train`.")],
    out: Annotated[str | None, typer.Option(help="The page; else report.html in it.")] = None,
) -> None:
    """Write the report of a run: one page with curves, data, samples and what made it."""
    from luthier.cli import report as command

    command.run(run, out=out)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders of two runs or more.")],
    out: Annotated[str | None, typer.Option(help="Write a page, with curves.")] = None,
) -> None:
    """Show runs side by side: settings that differ, metrics, evaluations."""
    from luthier.cli.compare import run

    run(runs, out=out)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For bug reports.")] = False,
) -> None:
    """Show the machine, the versions, and what is available."""
    from luthier.cli.doctor import run

    run(as_json=as_json)


@app.command()
def demo(
    output_dir: Annotated[
        str, typer.Option("--output_dir", help="Folder of the run.")
    ] = "output/demo",
    model: Annotated[
        str | None, typer.Option(help="A chat model to tune in place of the 135M one.")
    ] = None,
) -> None:
    """Teach a real 135M chat model facts that no model knows, and show before and after."""
    from luthier.cli.demo import run

    run(output_dir=output_dir, model=model)


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="Folder of a run: the output_dir of `train`.")],
    output_dir: Annotated[
        str | None, typer.Option("--output_dir", help="Where it is repeated; else RUN-again.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the outcome; exit with 1 if it differs.")
    ] = False,
    check_only: Annotated[
        bool, typer.Option("--check_only", help="Show what differs today, and train nothing.")
    ] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow_changed_data", help="Train even if the data has changed.")
    ] = False,
    train_file: Annotated[
        list[str] | None, typer.Option("--train_file", help="Where the data is now.")
    ] = None,
    val_file: Annotated[
        list[str] | None, typer.Option("--val_file", help="The same of validation data.")
    ] = None,
    dataset_dir: Annotated[
        str | None, typer.Option("--dataset_dir", help="Where dataset_info.json is now.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model_name_or_path", help="Where the model is now.")
    ] = None,
) -> None:
    """Train a run again as it was, and say what differs: luthier reproduce RUN --verify."""
    from luthier.cli import reproduce as command

    files = {"train_file": train_file, "val_file": val_file}
    names = {"dataset_dir": dataset_dir, "model_name_or_path": model}
    command.run(
        run,
        output_dir=output_dir,
        verify=verify,
        check_only=check_only,
        allow_changed_data=allow_changed_data,
        moved={name: place for name, place in (files | names).items() if place},
        args=sys.argv[2:],
    )


class _SeveralTargets(TyperCommand):
    """Lets `--to` stand once before several targets."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--to` before each word that follows one, up to the next option."""
        written: list[str] = []
        of_to = False
        for word in args:
            if word.startswith("-"):
                of_to = word == "--to"
                written += [] if of_to else [word]
            else:
                written += ["--to", word] if of_to else [word]
        return super().parse_args(ctx, written)


@app.command(cls=_SeveralTargets)
def export(
    model: Annotated[str, typer.Argument(help="A run folder, checkpoint, adapter or model.")],
    to: Annotated[
        list[str], typer.Option("--to", help="Targets: hf adapter gguf:Q8_0 ... (docs/export.md)")
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder for the artifacts; else RUN/exports.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of hf weights: bfloat16, float16, float32.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows to check with; else the run's validation.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an artifact of the same name.")
    ] = False,
) -> None:
    """Merge, convert and check a model: luthier export RUN --to hf gguf:Q8_0."""
    from luthier.cli.export import run
    from luthier.recipes.export_request import ExportRequest

    run(ExportRequest(model, to, out=out, dtype=dtype, data=data, overwrite=overwrite))


@app.command()
def verify(
    folder: Annotated[str, typer.Argument(help="A folder that `luthier export` made.")],
) -> None:
    """Check an exported artifact again, anywhere: hashes, then what it says."""
    from luthier.cli.verify import run

    run(folder)


data = typer.Typer(help="Look at a corpus that `luthier prepare` wrote.", no_args_is_help=True)
app.add_typer(data, name="data")

_Corpus = Annotated[str, typer.Argument(help="A folder that `luthier prepare` wrote.")]


@data.command("show")
def data_show(
    folder: _Corpus,
    dropped: Annotated[
        str | None,
        typer.Option(help="Dropped rows of this reason beside what they are like, or `all`."),
    ] = None,
    side: Annotated[str, typer.Option(help="train or val.")] = "train",
    rows: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed shows other rows.")] = 0,
) -> None:
    """Show rows, or dropped rows beside what they duplicate."""
    from luthier.cli.data import show

    show(folder, dropped=dropped, side=side, num_rows=rows, seed=seed)


@data.command("verify")
def data_verify(folder: _Corpus) -> None:
    """Check every file of a corpus against its manifest, and print its account."""
    from luthier.cli.data import verify

    verify(folder)


def main() -> None:
    """Run the command line; an error of the user's making is one message, not a traceback."""
    try:
        app()
    except LuthierError as error:
        from luthier.cli.terminal import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        from luthier.cli.terminal import print_error

        mend = "Make room; a run goes on from its checkpoints with --resume_from_checkpoint."
        print_error(RunError("the disk is full", where=error.filename, mend=mend))
        sys.exit(RunError.exit_code)
    except SystemExit as end:
        from luthier.cli.terminal import Stopped
        from luthier.core.exit_codes import INTERRUPTED

        # typer turns Ctrl-C into this exit and says nothing.
        if end.code == INTERRUPTED and not isinstance(end, Stopped):
            typer.echo("\nStopped.", err=True)
        raise
