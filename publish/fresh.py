"""Fresh results brought from a folder of results into `records/`, and only those that can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.page import GPU_TARGETS
from reproductions.tables import track
from reproductions.tables.specification import load
from sharp_maml import RecordError, Result, read_result, write_result

PLACES = {
    "landscape/*.json": "landscape",
    "sensitivity/*.json": "sensitivity",
    "method.json": "method",
    "bench/speed.json": "speed",
    "bench/training.json": "training",
    "bench/gpu.json": "gpu",
    "theory/claims/*.json": "claim",
    "theory/calibration.json": "calibration",
    "theory/alarms.json": "alarms",
    "theory/mutants.json": "mutants",
    "theory/certificate.json": "certificate",
    "theory/regime.json": "regime",
    "theory/counts.json": "counts",
    "theory/proofs.json": "proofs",
    "theory/network-rate.json": "network-rate",
    "reliability.json": "reliability",
    "numbers.json": "numbers",
    "kills.json": "kills",
    "clusters.json": "clusters",
}
"""Where results of each kind lie, in a folder of results as in `records/`; cells of tables are in `tables/<tier>/`."""


def bring(results: Path, records: Path, only: Sequence[str] = (), *, networks: bool = False) -> list[str]:
    """Bring fresh results into the folder of records; nothing is written unless all can be.

    Args:
        results: Where commands have left them.
        records: The folder of records.
        only: Files or folders of `records`, such as `tables/cpu` or `theory/regime.json`; all if there is none.
        networks: Bring also the best network of each row of a table.

    Returns:
        What was brought, a line each.

    Raises:
        RecordError, ValueError: There is nothing to bring, or what there is could not be made again.
    """

    def is_wanted(name: str) -> bool:
        return not only or any(f"{name}/".startswith(f"{place.rstrip('/')}/") for place in only)

    found: dict[Path, Result] = {}
    for pattern, kind in PLACES.items():
        for path in sorted(results.glob(pattern)):
            name = path.relative_to(results)
            if is_wanted(str(name)):
                found[records / name] = _whole(path, read_result(path, kind))
    _, tiers = load()
    runs = {tier: track.finished(tiers[tier], results) for tier in tiers if is_wanted(f"tables/{tier}")}
    if not found and not any(runs.values()):
        raise RecordError(f"{results} has nothing that records could take{' of ' if only else ''}{', '.join(only)}")
    for path, result in found.items():
        write_result(path, result)
    told = [str(path) for path in found]
    for tier, of_tier in runs.items():
        told += track.copy(of_tier, records / "tables" / tier, networks=networks)
    return told


def _whole(path: Path, result: Result) -> Result:
    """The result, if it is one that the repository may print."""
    if result.provenance["dirty"] is not False:
        raise RecordError(f"{path}: made with uncommitted changes, so nobody could make it again")
    if result.kind == "claim" and result.provenance["budget"]["name"] != "full":
        raise RecordError(f"{path}: the repository prints claims of the full budget: make theory BUDGET=full")
    if result.kind == "speed" and "profile" not in result.payload:
        raise RecordError(f"{path}: of a quick or unfinished run; make it with: make bench")
    if result.kind == "gpu" and set(result.payload.get("training", {})) != set(GPU_TARGETS):
        raise RecordError(f"{path}: of an unfinished run; go on with: make gpu")
    return result
