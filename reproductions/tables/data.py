"""The data of a tier: images that are made on the spot once, or those that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from reproductions.tables.check import TableError
from reproductions.tables.specification import Cell, Tier
from sharp_maml import Config, Protocol, check_protocol, open_dataset, read_records
from synthetic import write_images


def prepare_data(tier: Tier, data: Path | None, results: Path) -> Path:
    """The path of a tier's data; images of the demo tier are made here, once.

    Raises:
        TableError: The tier needs data that were not given.
    """
    if tier.data != "synthetic":
        if data is None:
            raise TableError(
                f"tier {tier.name} needs {tier.data}: name its directory with --data DIR (make ... DATA=DIR). The "
                "forms that are read are listed in sharp_maml/data/forms.py; nothing is downloaded"
            )
        return data
    if data is not None:
        raise TableError(f"tier {tier.name} makes its own images; leave --data out, or choose --tier cpu or paper")
    size = Config.from_mapping(tier.settings).image_size
    directory = results / "data" / f"synthetic-images-{size}-{tier.images_a_class}"
    if not directory.exists():
        write_images(directory, size=size, per_class=tier.images_a_class)
    return directory


def check_data(cells: Sequence[Cell], to_run: Sequence[Cell], data: Path, results: Path, console: Console) -> None:
    """Refuse given data that the cells cannot be run on, or have not been; say it if they are not the tier's.

    Raises:
        ValueError: The data cannot be read, or a split is too small for a cell's episodes.
        TableError: There are records of other data.
    """
    config = cells[0].config
    given = open_dataset(data, size=config.image_size, ways=config.ways)
    for cell in to_run:
        check_protocol(given, Protocol(cell.config.ways, cell.config.shots, cell.config.queries))
    for record in read_records([cell.directory(results) / "record.json" for cell in cells if cell not in to_run]):
        if record.data_digest != given.digest:
            raise TableError(
                f"{results / cells[0].tier.name} has records of other data ({record.data_name}, digest "
                f"{record.data_digest[:12]}) than {data} ({given.name}, digest {given.digest[:12]}): choose another "
                "--results"
            )
    if given.name != cells[0].tier.data:
        console.print(
            f"{data}: {given.name}, not {cells[0].tier.data}; the table says so and is not compared with the source"
        )
