"""What is shown of the benchmark's records: tables of README and `docs/performance.md`, a GPU's page.

Nothing is measured here. `make publish` puts them into the pages. Read next: `figure.py`, which draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.profile import KINDS, OTHER, OUTSIDE
from sharp_maml import Result, read_result

TARGETS = {84: 2.5, 42: 2.0}
"""Ratio to the plain loop, by pixels."""

GPU_TARGETS = {"maml": 15, "both": 35}
"""Minutes of the whole training of a variant on an H100."""

_RATE, _GIB = "{iterations_per_second:.1f}", "{gib:.1f}"

_NO_GPU = """\
# Speed on a GPU: not run on a GPU so far

Nothing of what would stand here was measured yet. On a machine with a GPU, in a checkout without changes,

```
make gpu DATA=/path/to/miniimagenet
make publish RESULTS=results ONLY=bench/gpu.json
```

runs the tests that need one, compares training with and without CUDA graphs, measures iterations a second and memory of
every variant, trains the first thousand iterations of the paper tier's MAML and Sharp-MAML both, and writes this page
from the record. A run that was cut off goes on when the command is given again.
"""


def tables(records: Path) -> dict[str, str]:
    """All tables and lines, by the name of their place in a page.

    Args:
        records: The folder of all records.
    """
    kinds = {"speed": "speed", "two-cores": "two-cores", "xeon": "speed", "training": "training"}
    speed, other, xeon, training = (read_result(records / f"bench/{name}.json", kind) for name, kind in kinds.items())
    measured = speed.payload
    return {
        "bench": front_table(measured) + f"\n{machine(speed)}",
        "bench-machine": machine(speed),
        "bench-table": full_table(measured),
        "bench-two-cores": other_machine(other),
        "bench-xeon": other_machine(xeon),
        "bench-peers": peers_table(measured),
        "bench-profile": profile_table(measured),
        "bench-convolutions": convolution_rates(measured, speed.provenance["threads"]),
        "bench-scaling": scaling_table(measured),
        "bench-processes": processes_table(measured),
        "bench-kernels": kernels_table(measured),
        "bench-compiled": compiled_table(measured),
        "bench-error": error_line(measured),
        "bench-theory": theory_table(records / "theory/claims"),
        "bench-training": training_table(training.payload) + _caveat(training),
    }


def front_table(record: Mapping[str, Any]) -> str:
    """The README's: a line per variant, both sizes beside each other."""
    rows = {row["work"]: row for row in record["rows"]}
    lines = []
    for variant in dict.fromkeys(row["work"].split("@")[0] for row in record["rows"]):
        cells = [of_variant(variant)]
        for pixels in TARGETS:
            row = rows[f"{variant}@{pixels}"]
            cells += [
                f"{row['median_seconds']['ours']:.2f}",
                ratio(row["ratio"]["plain"]),
                ratio(row["ratio"].get("higher")),
            ]
        lines.append(cells)
    head = ["", "84 px: seconds", "x plain loop", "x higher", "42 px: seconds", "x plain loop", "x higher"]
    return markdown(head, lines)


def full_table(record: Mapping[str, Any]) -> str:
    """Every work: seconds, ratio, fraction of the limit, memory and page faults."""
    lines = []
    for row in record["rows"]:
        target, against = TARGETS[int(row["work"].split("@")[1])], row["ratio"]["plain"]
        lines.append(
            [
                *timed(of_work(row["work"]), row),
                "yes" if against["min"] >= target else "at the edge" if against["median"] >= target else "no",
                *(f"{row['fraction_of_limit'][side]:.2f}" for side in ("ours", "plain")),
                *(f"{row['peak_gib_above_import'][side]:.2f}" for side in ("ours", "plain")),
                *(f"{row['page_faults'][side]:,.0f}" for side in ("ours", "plain")),
            ]
        )
    head = ["", "seconds", "plain", "ratio", "target met", "of limit", "plain", "GiB", "plain", "page faults", "plain"]
    return markdown(head, lines)


def other_machine(result: Result) -> str:
    """Works on another machine, by an earlier commit: seconds, ratio to the plain loop, fractions of the limit."""
    rows = [{**row, "ratio": {"plain": row["ratio"].get("plain", row["ratio"])}} for row in result.payload["rows"]]
    lines = [
        [*timed(of_work(row["work"]), row), *(f"{row['fraction_of_limit'][side]:.2f}" for side in ("ours", "plain"))]
        for row in rows
    ]
    head = ["", "seconds", "plain", "ratio", "of limit", "plain"]
    return markdown(head, lines) + f"\n{machine(Result(result.kind, result.provenance, {'rows': rows}))}"


def peers_table(record: Mapping[str, Any]) -> str:
    """Ratios to the public libraries, on the works that they know."""
    lines = [
        [of_work(row["work"])] + [ratio(row["ratio"][name]) for name in ("plain", *record["peers"])]
        for row in record["rows"]
        if set(record["peers"]) <= set(row["ratio"])
    ]
    return markdown(["", "plain loop", *(f"{name} {version}" for name, version in record["peers"].items())], lines)


def profile_table(record: Mapping[str, Any]) -> str:
    """Shares of one thread's time by kind of operation, and its seconds."""
    lines = []
    for row in record["profile"]:
        for side in ("ours", "plain"):
            found = row[side]
            shares = (found["seconds_by_kind"][kind] / found["seconds"] for kind in (*KINDS, OTHER, OUTSIDE))
            lines.append(
                [f"{of_work(row['work'])}, {side}", f"{found['seconds']:.2f}", f"{found['operations']:,}"]
                + [f"{100 * share:.0f} %" for share in shares]
            )
    return markdown(["", "seconds", "operations", *KINDS, OTHER, OUTSIDE], lines)


def convolution_rates(record: Mapping[str, Any], threads: int) -> str:
    """How fast the convolutions alone are, from the counted operations and their share of the time, and their bound."""
    gflop = {row["work"]: row["gflop"] for row in record["rows"]}
    rates = [gflop[row["work"]] / row["ours"]["seconds_by_kind"]["convolutions"] for row in record["profile"]]
    gemm = [row["gemm_gflop_per_second"] / threads for row in record["rows"]]
    bound = [row["plain"]["seconds"] / row["ours"]["seconds_by_kind"]["convolutions"] for row in record["profile"]]
    return (
        f"In these six works the convolutions alone run at {min(rates):.0f} to {max(rates):.0f} GFLOP/s a thread, and "
        f"GEMM at {min(gemm):.0f} to {max(gemm):.0f}. If all else took no time, the plain loop would take "
        f"{min(bound):.1f} to {max(bound):.1f} times as long.\n"
    )


def scaling_table(record: Mapping[str, Any]) -> str:
    """Seconds over inner steps and over episodes."""
    lines = []
    for row in record["scaling"]:
        variant, episodes = row["work"].split("@")[0], row["episodes"]
        lines.append(timed(f"{of_variant(variant)}, {episodes} episode{'s' if episodes > 1 else ''}", row))
    return markdown(["42 px", "seconds", "plain", "ratio"], lines)


def processes_table(record: Mapping[str, Any]) -> str:
    """Two processes of one thread against one, and against the plain loop in one."""
    labels = ("one process, one thread", "one process, two threads", "plain")
    lines = [
        [of_work(row["work"])]
        + [f"{row['median_seconds'][label]:.2f}" for label in ("two processes", *labels)]
        + [ratio(row["ratio"][label]) for label in labels]
        + [f"{row['peak_gib_above_import']['two processes']:.2f}"]
        for row in record["processes"]
    ]
    gains = ("gain over one thread", "over two threads", "over plain")
    head = ["", "two processes, s", *(f"{label}, s" for label in labels), *gains, "GiB"]
    return markdown(head, lines)


def kernels_table(record: Mapping[str, Any]) -> str:
    """The native kernels against torch's operations."""
    lines = [
        timed(f"{of_work(row['work'])}, {row['filters']} filters", row, "kernels", "torch", digits=3)
        for row in record["kernels"]
    ]
    return markdown(["one thread", "kernels, s", "torch, s", "gain"], lines)


def compiled_table(record: Mapping[str, Any]) -> str:
    """The compiled form against the eager one."""
    lines = [
        [*timed(of_work(row["work"]), row, "compiled", "eager"), f"{row['first_seconds']['compiled']:.0f}"]
        for row in record["compiled"]
    ]
    return markdown(["one thread", "compiled, s", "eager, s", "gain", "first iteration, s"], lines)


def gpu_page(result: Result | None) -> str:
    """The page of a GPU's record, or of how to make one.

    Args:
        result: The record, perhaps of an unfinished run; None while there is none.

    Returns:
        The page, in markdown.
    """
    if result is None:
        return _NO_GPU
    found, origin = result.payload, result.provenance
    speed, training, equality = (found.get(part, {}) for part in ("speed", "training", "equality"))
    modes = list(dict.fromkeys(mode for rows in speed.values() for mode in rows))
    speeds = [
        [of_variant(variant), *(_shown(rows.get(mode), form) for mode in modes for form in (_RATE, _GIB))]
        for variant, rows in speed.items()
    ]

    def timed(row: Mapping[str, Any]) -> Mapping[str, Any]:
        return row if "error" in row else {**row, "minutes": row["seconds"] / 60 * found["whole"] / row["iterations"]}

    forms = ("{iterations:,}", "{validation_accuracy:.1%}", _GIB, "{minutes:.0f}")
    trained = [
        [variant, *(_shown(row, form) for form in forms), str(GPU_TARGETS[variant])]
        for variant, rows in training.items()
        for row in map(timed, rows.values())
    ]
    others = list(dict.fromkeys(mode for rows in equality.values() for mode in list(rows)[1:]))
    compared = [
        [variant, *(_shown(rows.get(mode), "{apart:.1e}") for mode in others)] for variant, rows in equality.items()
    ]
    failed = [
        f"- {part} of {variant}, {mode}: `{row['error']}`\n"
        for part in ("speed", "training", "equality")
        for variant, rows in found.get(part, {}).items()
        for mode, row in rows.items()
        if "error" in row
    ]
    head = ["", "iterations", "validation accuracy", "GiB", "whole training, min", "goal on an H100, min"]
    return (
        f"# Speed on a GPU\n\n{origin['device']}, torch {origin['torch']}, {found['data']['name']} on the paper tier's "
        f"settings; {result.code}. `make gpu DATA=...` measures anew; the record is `records/bench/gpu.json`.\n"
        f"{_caveat(result)}\nThe tests that need a GPU: {found['tests']['said']}.\n\n"
        "## Iterations a second, and memory\n\nThe last two thirds of a short training run, drawing of episodes and "
        "update included; the largest memory on the device, with all training images where there are graphs.\n\n"
        + markdown(["", *(text for mode in modes for text in (f"{mode}, 1/s", "GiB"))], speeds)
        + "\n## The first iterations of the paper tier, with graphs\n\nThe time of the whole training is that of these "
        f"iterations, with start and validation, in proportion to all {found['whole']:,}.\n\n"
        + markdown(head, trained)
        + "\n## What graphs change\n\nHow far the parameters are from those of single operations after the same few "
        "iterations in float64, relative to how far they have come; single operations once more are the control. With "
        "graphs Adam's corrections are float32 numbers.\n\n"
        + markdown(["", *others], compared)
        + ("\n## What failed\n\n" + "".join(failed) if failed else "")
    )


def _shown(row: Mapping[str, Any] | None, form: str) -> str:
    """A number of a run; empty where it was not done yet."""
    return "" if row is None else "failed" if "error" in row else form.format(**row)


def theory_table(records: Path, longest: int = 6) -> str:
    """The claims that take longest, with their controls, and all together."""
    seconds = {
        path.stem: sum(unit["seconds"] for unit in read_result(path, "claim").payload["units"].values())
        for path in sorted(records.glob("*.json"))
    }
    shown = sorted(seconds, key=lambda name: -seconds[name])[:longest]
    lines = [[f"`{name}`", f"{seconds[name]:.0f}"] for name in shown]
    rest = sum(seconds.values()) - sum(seconds[name] for name in shown)
    lines += [[f"the other {len(seconds) - len(shown)}", f"{rest:.0f}"], ["all", f"{sum(seconds.values()):.0f}"]]
    return markdown(["claim, with its controls", "seconds of one core"], lines)


def error_line(record: Mapping[str, Any]) -> str:
    """Errors against float64."""
    errors = {side: f"{error:.1e}" for side, error in record["float32_error"].items()}
    peers = "".join(f", {name} {errors[name]}" for name in record["peers"] if name in errors)
    return (
        "Relative error of the one-step meta-gradient of a small network against float64, median of nine: this package "
        f"{errors['ours']}, plain loop {errors['plain']}{peers}; this package in bfloat16 {errors['bfloat16']}.\n"
    )


def training_table(record: Mapping[str, Any]) -> str:
    """Accuracies by seed, and the paired differences to the plain loop."""
    lines = []
    for row in record["rows"]:
        for side, label in (
            ("ours", "this package"),
            ("reversed", "plain loop, episodes reversed"),
            ("plain", "plain loop"),
        ):
            found = row["difference_to_plain"].get(side)
            lines.append(
                [
                    row["variant"],
                    label,
                    ", ".join(f"{value:.2f}" for value in row["accuracy"][side]),
                    f"{found['mean']:+.2f} [{found['low']:.2f}, {found['high']:.2f}]" if found else "",
                ]
            )
    commits = sorted({commit[:10] for row in record["rows"] for of in row["commit"].values() for commit in of})
    below = (
        f"\n{record['iterations']:,} iterations, {record['episodes']} validation episodes of {record['data']['name']}; "
        f"commits {', '.join(commits)}.\n"
    )
    return markdown(["", "gradient by", "accuracy by seed, %", "difference to plain, points"], lines) + below


def machine(result: Result) -> str:
    """What measured it, in a line."""
    origin, rows = result.provenance, result.payload["rows"]
    gemm = sorted(row["gemm_gflop_per_second"] for row in rows)
    kernels = f"{origin['kernels']} kernels, " if "kernels" in origin else ""
    return (
        f"{origin['device']}, {origin['threads']} threads, torch {origin['torch']}, {kernels}GEMM "
        f"{gemm[0]:.0f} to {gemm[-1]:.0f} GFLOP/s; medians of {rows[0]['ratio']['plain']['n']} turns, "
        f"[least, most]; {result.code}.\n{_caveat(result)}"
    )


def _caveat(result: Result) -> str:
    """What is to be said beside the numbers, as a paragraph."""
    return f"\n{result.caveat}\n" if result.caveat else ""


def timed(label: str, row: Mapping[str, Any], first: str = "ours", other: str = "plain", digits: int = 2) -> list[str]:
    """The cells that most lines begin with: a label, the seconds of two sides, and the other's over the first's."""
    seconds = (f"{row['median_seconds'][side]:.{digits}f}" for side in (first, other))
    return [label, *seconds, ratio(row["ratio"][other])]


def of_work(name: str) -> str:
    """`both-5@84` in words."""
    variant, pixels = name.split("@")
    return f"{of_variant(variant)}, {pixels} px"


def of_variant(variant: str) -> str:
    """`both-5` in words."""
    name, steps = variant.split("-")
    return f"{name}, {steps} step{'s' if steps != '1' else ''}"


def ratio(found: dict[str, float] | None) -> str:
    """Median, least and most; empty where there is none."""
    return f"{found['median']:.2f} [{found['min']:.2f}, {found['max']:.2f}]" if found else ""


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))
