"""The command `sharp-maml`: what it is asked is read here, and done by the packages below it.

It is a package of its own because `sharp_maml` imports torch: help and completion of the shell must not wait for that,
and so each command imports what it needs when it is run. Read next: `repository.py` (table and claims).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from typer.main import get_command

from sharp_maml_command import repository
from sharp_maml_command.text import columns

app = typer.Typer(
    rich_markup_mode=None,
    epilog="\b\nExample:\n  sharp-maml train examples/own_classes.toml data=DIR alpha_low=5e-4 alpha_up=5e-4",
)

Mode = Literal["transductive", "support"]
CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of the trainer, usually best.safetensors.")
]
TestSteps = Annotated[int | None, typer.Option(help="Inner steps; by default as in training's validations.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:NUMBER; by default where it was trained.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows `sharp-maml`; None means those of this process.

    Returns:
        The exit code: 0, 1 where a claim did not come out as expected, 2 after an error, of which one line tells.
    """
    try:
        code: int | None = get_command(app)(arguments, prog_name="sharp-maml", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context else ""
        return _failed(" ".join(error.format_message().split()).rstrip(".") + hint)
    except (ValueError, OSError) as error:
        return _failed(error)
    except RuntimeError as error:
        from sharp_maml import NonFiniteError  # whoever raises it has imported it

        if isinstance(error, NonFiniteError):
            return _failed(error)
        raise
    return code or 0


def _failed(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    """Sharp-MAML: train few-shot learners, judge them, adapt them to images, and check what the paper says."""
    if version:
        print(metadata.version("sharp-maml"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(
    epilog="\b\nExample:\n  sharp-maml train examples/own_classes.toml data=DIR alpha_low=5e-4 alpha_up=5e-4 seed=1"
)
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Settings; docs/settings.md has them all.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the file.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="The run directory; by default results/runs/<config>/seed<k>.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes that share each iteration's episodes.")] = 1,
) -> int:
    """Train MAML, Sharp-MAML or Matching Networks.

    Repeated, the command goes on where a run was cut off.
    """
    from sharp_maml import Config, NonFiniteError, distributed, open_dataset
    from sharp_maml.train import train as run

    if processes < 1:
        raise ValueError(f"--processes must be >= 1, got {processes}")
    if processes > 1 and "RANK" not in os.environ:
        own = [str(config), *(overrides or ()), *(("--directory", str(directory)) if directory else ())]
        return distributed.run_in_processes(processes, [sys.executable, "-m", "sharp_maml", "train", *own])
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if is_first else logging.ERROR, format="%(message)s")
    try:
        settings = Config.from_toml(config, overrides or ())
        if not settings.data:
            raise ValueError("data is not set: name a directory with data=DIR")
        directory = directory or Path("results/runs") / config.stem / f"seed{settings.seed}"
        dataset = open_dataset(settings.data, size=settings.image_size, ways=settings.ways)
        run(settings, dataset, directory, show_progress=True)
    except (ValueError, OSError, NonFiniteError) as error:
        return _failed(error) if distributed.speaks() else 2
    finally:
        distributed.stop()
    if is_first:
        print(f"evaluate with: sharp-maml evaluate {directory / 'best.safetensors'} {settings.data}")
    return 0


@app.command(
    epilog="\b\nExample:\n  sharp-maml evaluate results/runs/own_classes/seed0/best.safetensors DIR --episodes standard"
)
def evaluate(
    checkpoint: CheckpointFile,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The directory of the data, in any form.")],
    episodes: Annotated[
        str, typer.Option(help="A number, or one of quick (600), standard (1,000), full (10,000).")
    ] = "quick",
    split: Annotated[Literal["test", "validation", "train"], typer.Option(help="Whose classes.")] = "test",
    batch_norm: Annotated[
        Literal["both", Mode], typer.Option(help="Whose statistics normalise the query images.")
    ] = "both",
    test_steps: TestSteps = None,
    queries: Annotated[int | None, typer.Option(help="Query images of a class; by default as in training.")] = None,
    device: Device = "",
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 leaves its choice.")] = 0,
    record: Annotated[Path | None, typer.Option(help="Write the record (JSON) here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of a checkpoint.

    Over fixed episodes, with a 95% interval over episodes.
    """
    import torch
    from rich.progress import Progress

    from sharp_maml import Config, keep_freed_memory, load_checkpoint, open_dataset, write_record
    from sharp_maml.evaluate import entry
    from sharp_maml.evaluate import evaluate as judge

    n = _number_of(episodes)
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    trained = load_checkpoint(checkpoint)
    config = Config.from_mapping(entry(trained, "config"))
    dataset = open_dataset(data, size=config.image_size, ways=config.ways)
    modes: tuple[Mode, ...] = get_args(Mode) if batch_norm == "both" else (batch_norm,)
    with Progress(transient=True, disable=as_json or not sys.stdout.isatty()) as bar:
        task = bar.add_task("episodes", total=n)
        found = judge(
            trained,
            dataset,
            name=checkpoint.parent.name or "checkpoint",
            split=split,
            episodes=n,
            modes=modes,
            test_steps=test_steps,
            queries=queries,
            device=device,
            on_episode=lambda index: bar.advance(task),
        )
    if record:
        write_record(record, found)
    if as_json:
        print(found.to_result(), end="")
        return
    for mode in modes:
        estimate = found.metrics[f"accuracy_{mode}"]
        print(
            f"{split}, {mode} batch norm: {100 * estimate.mean:.2f}% [{100 * estimate.low:.2f}, "
            f"{100 * estimate.high:.2f}], {n} episodes, step {found.selected_step}"
        )
    if record:
        print(f"record: {record}")


def _number_of(episodes: str) -> int:
    """The number that `--episodes` says, or the preset that it names."""
    from sharp_maml.evaluate import PRESETS

    if not (episodes in PRESETS or (episodes.isdecimal() and int(episodes))):
        raise ValueError(f"--episodes must be a number >= 1 or one of {', '.join(PRESETS)}, got {episodes!r}")
    return PRESETS.get(episodes) or int(episodes)


@app.command(epilog="\b\nExample:\n  sharp-maml adapt results/runs/own_classes/seed0/best.safetensors LABELLED IMAGES")
def adapt(
    checkpoint: CheckpointFile,
    support: Annotated[
        Path, typer.Argument(metavar="LABELLED", help="A folder of labelled images, a sub-folder for each class.")
    ],
    queries: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Images to tell the classes of: files, and folders.")
    ],
    batch_norm: Annotated[
        Mode, typer.Option(help="Normalise by the labelled images (support), or by all others together.")
    ] = "support",
    test_steps: TestSteps = None,
    device: Device = "",
    output: Annotated[Path | None, typer.Option(help="Keep the adapted parameters here (safetensors).")] = None,
    as_json: AsJson = False,
) -> None:
    """Adapt a checkpoint to labelled images, and classify others.

    There must be as many classes as the network tells apart, each with one image or more.
    """
    from sharp_maml import load_checkpoint
    from sharp_maml.classify import classify, pixels_of, save_adapted
    from sharp_maml.data import labelled_images, unlabelled_images

    trained = load_checkpoint(checkpoint)
    pixels = pixels_of(trained)
    labelled = labelled_images(support, pixels)
    names, images = unlabelled_images(queries, pixels)
    found = classify(trained, labelled, images, batch_norm=batch_norm, test_steps=test_steps, device=device)
    if output:
        save_adapted(output, found, trained)
    answers: list[dict[str, Any]] = []
    for name, row in zip(names, found.probabilities, strict=True):
        of_classes = dict(zip(found.classes, row.tolist(), strict=True))
        best = max(of_classes, key=of_classes.__getitem__)
        answers.append({"file": name, "class": best, "probability": of_classes[best], "probabilities": of_classes})
    if as_json:
        print(json.dumps({"classes": found.classes, "predictions": answers}))
        return
    rows = [(each["file"], each["class"], f"{each['probability']:.3f}") for each in answers]
    print(columns([("file", "class", "probability"), *rows]))


@app.command(epilog="\b\nExample:\n  sharp-maml data DIR --contact-sheet sheet.png")
def data(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory, in any form that training reads.")],
    size: Annotated[int | None, typer.Option(help="Height and width in pixels; by default the form's own.")] = None,
    ways: Annotated[int, typer.Option(help="Classes that each split of one pool gets at least.")] = 5,
    sheet: Annotated[
        Path | None, typer.Option("--contact-sheet", metavar="FILE.png", help="Draw some images of every class here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a directory of images, and say what it is.

    Every image is decoded into the cache that training uses; one that is there already is compared with its digest.
    """
    from sharp_maml.data import contact_sheet, form_of, open_dataset

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    form = form_of(directory)
    dataset = open_dataset(directory, size=size, ways=ways, verify=True)
    if sheet:
        contact_sheet(dataset, sheet)
    splits = {
        split: {"classes": len(source.names), "images": sum(source.counts)} for split, source in dataset.splits.items()
    }
    what = {"form": form, "name": dataset.name, "digest": dataset.digest}
    if as_json:
        print(json.dumps({**what, "size": dataset.size, "channels": dataset.channels, "splits": splits}))
        return
    counts = {split: f"{n['classes']:,} classes, {n['images']:,} images" for split, n in splits.items()}
    pixels = {"pixels": f"{dataset.size} x {dataset.size}, {dataset.channels} channel(s)"}
    print(columns(list({**what, **pixels, **counts, **({"sheet": str(sheet)} if sheet else {})}.items())))


app.command("table", **repository.PASSES_ON, epilog=repository.TABLE_EXAMPLE)(repository.table)
app.add_typer(repository.claims, name="claims")
