"""Two sets of records -> pairs that measure the same, and for all others the reason why they cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vggbench.errors import UsageError
from vggbench.gate_axes import ALL, NAMES, Axis, environment_axes, workload, workload_axes
from vggbench.results import Record

#: Rows that differ in more axes of their workload than this are not told as one row that was changed.
NEAR = 4


@dataclass(frozen=True)
class Pair:
    """What BASE and HEAD hold of one row; one side may be empty. why_not: "" where they can be compared.

    across: what differs with permission, as "tensorrt 10.16 -> 11.0".
    """

    name: str
    base: tuple[Record, ...]
    head: tuple[Record, ...]
    why_not: str = ""
    across: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return (self.base or self.head)[0].kind


def check_axes(across: Iterable[str]) -> frozenset[str]:
    """The axes as named in the tables, "_" for "-" accepted. Raises UsageError."""
    found = frozenset(name.strip().lower().replace("_", "-") for name in across)
    for name in sorted(found - set(NAMES)):
        raise UsageError(f"No axis {name!r} to compare across. Known: {', '.join(NAMES)}.")
    return found


def pairs(base: Sequence[Record], head: Sequence[Record], across: frozenset[str]) -> list[Pair]:
    """Rows in BASE's order, then those only in HEAD."""
    groups = (_groups(base), _groups(head))
    found: list[tuple[int, Pair]] = []
    order = {key: place for place, key in enumerate(dict.fromkeys([*groups[0], *groups[1]]))}
    for crossed in (False, True) if across else (False,):
        for one, other in _matches(*groups, across if crossed else frozenset()):
            found.append((order[one], _pair(groups[0].pop(one), groups[1].pop(other), across)))
    for one, other in _nearest(*groups):
        left, right = groups[0].pop(one), groups[1].pop(other)
        why_not = _told(left, right, across) or f"several rows fit across {', '.join(sorted(across))}: keep one a side"
        found.append((order[one], Pair(name_of(left[0]), tuple(left), tuple(right), why_not)))
    found += [(order[key], Pair(name_of(rs[0]), tuple(rs), (), "only in BASE")) for key, rs in groups[0].items()]
    found += [(order[key], Pair(name_of(rs[0]), (), tuple(rs), "only in HEAD")) for key, rs in groups[1].items()]
    return [pair for _, pair in sorted(found, key=lambda each: each[0])]


Groups = dict[tuple[str, ...], list[Record]]


def _groups(records: Iterable[Record]) -> Groups:
    """By workload; a record that stands twice in the files counts once."""
    found: Groups = {}
    seen = set()
    for record in records:
        if is_judged(record) and (text := record.model_dump_json()) not in seen:
            seen.add(text)
            found.setdefault(workload(record), []).append(record)
    return found


def is_judged(record: Record) -> bool:
    """Whether it is of some row; records read from elsewhere, peaks and loops are of none."""
    return record.kind in ALL and record.origin == "measured" and bool(record.samples.values)


def _matches(base: Groups, head: Groups, across: frozenset[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Keys of both that agree on all other axes, where exactly one of each side does."""
    sides: list[dict[tuple[str, ...], list[tuple[str, ...]]]] = [{}, {}]
    for side, groups in zip(sides, (base, head), strict=True):
        for key, records in groups.items():
            side.setdefault(workload(records[0], across), []).append(key)
    return [
        (keys[0], sides[1][shared][0])
        for shared, keys in sides[0].items()
        if len(keys) == 1 and len(sides[1].get(shared, ())) == 1
    ]


def _nearest(base: Groups, head: Groups) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Of what is left: each row with the one of the other side that differs in the fewest axes."""
    near = sorted(
        (sum(x != y for x, y in zip(one, other, strict=True)), i, j, one, other)
        for i, one in enumerate(base)
        for j, other in enumerate(head)
        if one[0] == other[0]
    )
    taken: set[tuple[str, ...]] = set()
    found = []
    for differ, _, _, one, other in near:
        if differ <= NEAR and ("base", *one) not in taken and ("head", *other) not in taken:
            taken |= {("base", *one), ("head", *other)}
            found.append((one, other))
    return found


def _pair(base: list[Record], head: list[Record], across: frozenset[str]) -> Pair:
    """Of the same row: comparable where machine and versions agree, or may differ."""
    labels = tuple(
        f"{axis.name} {_shown(axis, one)} \N{RIGHTWARDS ARROW} {_shown(axis, other)}"
        for axis, one, other in _differences(base, head)
        if axis.name in across
    )
    return Pair(name_of(base[0], across), tuple(base), tuple(head), _told(base, head, across), labels)


def _told(base: list[Record], head: list[Record], across: frozenset[str]) -> str:
    """Why not: the axes that differ without permission, and how to permit it."""
    parts = []
    open_ = [each for each in _differences(base, head) if each[0].name not in across or not each[0].crossable]
    for axis, one, other in open_:
        mixed = [
            f"{side} mixes {' and '.join(values)}"
            for side, values in (("BASE", one), ("HEAD", other))
            if len(values) > 1
        ]
        parts.append(
            f"{axis.name}: {'; '.join(mixed)}"
            if mixed
            else f"{axis.name} is {_shown(axis, one)} against {_shown(axis, other)}"
        )
    names = [axis.name for axis, one, other in open_ if axis.crossable and len(one) == len(other) == 1]
    if not parts:
        return ""
    allow = f" ({' '.join(f'--across {name}' for name in names)} allows it)" if len(names) == len(open_) else ""
    return "; ".join(parts) + allow


def _differences(base: list[Record], head: list[Record]) -> list[tuple[Axis, list[str], list[str]]]:
    """Axes on which the sides do not hold one and the same value."""
    kind = base[0].kind
    found = []
    for axis in [*workload_axes(kind), *environment_axes(kind)]:
        one, other = (sorted({axis.value(record) for record in side}) for side in (base, head))
        if axis.environment and _of_other_backends(axis, one, other, base, head):
            continue
        if one != other or len(one) > 1:
            found.append((axis, one, other))
    return found


def _of_other_backends(axis: Axis, one: list[str], other: list[str], base: list[Record], head: list[Record]) -> bool:
    """A library that only one of two backends uses is no difference of its own."""
    backends = {run.backend for record in (*base, *head) for run in record.networks}
    return len(backends) > 1 and ([""] in (one, other))


def _shown(axis: Axis, values: list[str]) -> str:
    return ", ".join(value or axis.nothing for value in values)


def name_of(record: Record, across: frozenset[str] = frozenset()) -> str:
    """A row's name for people: what ran on what, without what differs."""
    skip = {"weights", "calibration", "form", "transfers", "wait", "choices", "decoder", "reference", *across}
    if record.kind != "latency":
        skip -= {"weights"} - across
    before = {"batch": "batch ", "cuda-graph": "CUDA graph ", "runner": "runner ", "float-layers": "in float "}
    words = []
    for axis in workload_axes(record.kind):
        value = axis.value(record)
        if axis.name in skip or not value:
            continue
        words.append(f"{before.get(axis.name, '')}{value}" + (" threads" if axis.name == "threads" else ""))
    return ", ".join(words)
