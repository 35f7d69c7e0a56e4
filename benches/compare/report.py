"""Turns samples into Markdown: ratios of each round, their medians, and what the goals say to them.

A sample is one measurement: a dictionary with the row, the peer, the peer's kind (`anchor`, `limit`, `candidate`,
`direct`), the round, and figures. A peer's ratio is taken in each round against that round's best anchor, so that
what the machine did meanwhile hits both sides; then the median of the rounds is taken.

Pure: no files, no processes, no clock.
"""

import statistics
from dataclasses import dataclass

from rows import GOALS, RATIO, ROWS

ANCHOR, CANDIDATE, LIMIT, DIRECT = "anchor", "candidate", "limit", "direct"
PERCENTILES = ("p50", "p99", "p999")
NOTHING = "-"


@dataclass(frozen=True)
class Judged:
    """A goal with what was measured; values are None where there is nothing to compare."""

    goal: object
    value: float | None
    candidate: float | None
    best: tuple[str, float] | None
    limit: float | None

    @property
    def verdict(self):
        """`goal` and `must` when reached, `missed`, or `-` without a value."""
        if self.value is None:
            return NOTHING
        wanted = self.limit if self.goal.goal is None else self.goal.goal
        if wanted is not None and reaches(self.value, wanted, self.goal.higher_is_better):
            return "goal"
        return "must" if reaches(self.value, self.goal.must, self.goal.higher_is_better) else "missed"


def reaches(value, wanted, higher_is_better):
    """Whether a value is as good as wanted. Rounded first: what the table shows is what counts."""
    value = round(value, 2)
    return value >= wanted if higher_is_better else value <= wanted


def merge(runs):
    """The samples of several saved runs as if they were one; rounds stay apart."""
    samples = []
    for number, run in enumerate(runs):
        for sample in run["samples"]:
            samples.append({**sample, "round": f"{number}/{sample['round']}"})
    return {"meta": runs[0]["meta"], "samples": samples}


def with_added_latency(samples):
    """The samples, with the latency that each proxy adds to going direct in the same round."""
    direct = {(s["row"], s["round"]): s for s in samples if s["kind"] == DIRECT}
    result = []
    for sample in samples:
        base = direct.get((sample["row"], sample["round"]))
        if base and sample["kind"] != DIRECT:
            added = {f"added_{p}": sample[p] - base[p] for p in PERCENTILES if p in sample}
            sample = {**sample, **added}
        result.append(sample)
    return result


def median(samples, figure):
    """The median of a figure over the samples that have it."""
    values = [sample[figure] for sample in samples if sample.get(figure) is not None]
    return statistics.median(values) if values else None


def of_row(samples, row):
    """The samples of one row."""
    return [sample for sample in samples if sample["row"] == row]


def by_peer(samples):
    """Samples grouped by peer, in the order in which peers first appear."""
    groups = {}
    for sample in samples:
        groups.setdefault(sample["peer"], []).append(sample)
    return groups


def ratios(samples, figure, higher_is_better=False, against=None):
    """The median ratio of each peer to the best anchor (or to `against`) of the same round.

    Rounds without an anchor, or whose anchor's figure is not above zero, give no ratio.
    """
    rounds, anchors = {}, {}
    for sample in samples:
        value = sample.get(figure)
        if value is None:
            continue
        rounds.setdefault(sample["round"], []).append((sample["peer"], value))
        if sample["peer"] == against or (against is None and sample["kind"] == ANCHOR):
            anchors.setdefault(sample["round"], []).append(value)
    found = {}
    for number, values in anchors.items():
        best = max(values) if higher_is_better else min(values)
        if best > 0:
            for peer, value in rounds[number]:
                found.setdefault(peer, []).append(value / best)
    return {peer: statistics.median(values) for peer, values in found.items()}


def best_anchor(samples, figure, higher_is_better=False, against=None):
    """Name and median of the anchor that is best over all rounds."""
    medians = {
        peer: median(group, figure)
        for peer, group in by_peer(samples).items()
        if group[0]["kind"] == ANCHOR and against in (None, peer)
    }
    known = [(peer, value) for peer, value in medians.items() if value is not None]
    choose = max if higher_is_better else min
    return choose(known, key=lambda pair: pair[1]) if known else None


def first_of_kind(samples, kind):
    """The first peer of this kind among the samples."""
    return next((sample["peer"] for sample in samples if sample["kind"] == kind), None)


def judge(goal, samples, candidate):
    """What was measured for a goal."""
    rows = of_row(samples, goal.row)
    groups = by_peer(rows)
    limit = first_of_kind(rows, LIMIT)
    own = {name: median(groups.get(name, []), goal.figure) for name in (candidate, limit)}
    best = best_anchor(rows, goal.figure, goal.higher_is_better, goal.against)
    if goal.kind != RATIO:
        return Judged(goal, own[candidate], own[candidate], best, own[limit])
    by_name = ratios(rows, goal.figure, goal.higher_is_better, goal.against)
    return Judged(goal, by_name.get(candidate), own[candidate], best, by_name.get(limit))


def show(value):
    """A value for a table: three digits that matter; words as they are."""
    if value is None:
        return NOTHING
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{name} {count:.2f}" for name, count in ordered)
    if isinstance(value, str):
        return value
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(header, lines):
    """A Markdown table."""
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *lines])


def goals_table(samples, candidate):
    """The goals, with what the candidate reached; nothing where it was in no row that has one."""
    header = ["row", "what", "figure", candidate, "best anchor", "value", "limit", "must", "goal", "reached"]
    lines = []
    for goal in GOALS:
        rows = of_row(samples, goal.row)
        if not any(sample["peer"] == candidate for sample in rows):
            continue
        judged = judge(goal, samples, candidate)
        best = f"{judged.best[0]} {show(judged.best[1])}" if judged.best else NOTHING
        figure = f"{goal.figure}, {'ratio' if goal.kind == RATIO else 'itself'}"
        sign = ">= " if goal.higher_is_better else "<= "
        wanted = "the limit's" if goal.goal is None else sign + fixed(goal.goal)
        measured = [show(judged.candidate), best, fixed(judged.value), fixed(judged.limit)]
        lines.append(
            [goal.row, ROWS[goal.row].title, figure, *measured, sign + fixed(goal.must), wanted, judged.verdict]
        )
    return table(header, lines) if lines else ""


def fixed(value):
    """A value with two digits, as goals are compared."""
    return NOTHING if value is None else f"{value:.2f}"


def figures_table(samples):
    """Each row's main figure for each peer, with its ratio to the best anchor in brackets."""
    peers = [peer for peer, group in by_peer(samples).items() if group[0]["kind"] != DIRECT]
    lines = []
    for row in ROWS.values():
        rows = of_row(samples, row.name)
        if not rows:
            continue
        known = ratios(rows, row.figure, row.higher_is_better) if row.compared else {}
        groups = by_peer(rows)
        cells = [with_ratio(median(groups.get(peer, []), row.figure), known.get(peer)) for peer in peers]
        lines.append([f"{row.name} {row.title}", row.unit, *cells])
    return table(["row", "unit", *peers], lines)


def with_ratio(value, known):
    """A figure with its ratio in brackets."""
    return show(value) if known is None else f"{show(value)} ({known:.2f})"


def detail_table(row, samples):
    """All figures of one row, a line for each peer, the best first."""
    groups = by_peer(samples)
    known = ratios(samples, row.figure, row.higher_is_better) if row.compared else {}

    def rank(peer):
        value = median(groups[peer], row.figure)
        return (value is None, 0 if value is None else -value if row.higher_is_better else value)

    columns = dict.fromkeys((row.figure, *row.columns))
    header = ["peer", "ratio", *columns, "rounds", "spread", "foreign"]
    lines = []
    for peer in sorted(groups, key=rank):
        cells = [show(summary(groups[peer], column)) for column in columns]
        foreign = show(median(groups[peer], "foreign"))
        spread = show_spread(groups[peer], row.figure)
        lines.append([peer, fixed(known.get(peer)), *cells, str(len(groups[peer])), spread, foreign])
    return f"### {row.name}: {row.title}\n\n{table(header, lines)}"


def summary(samples, figure):
    """The median of a number; the last of what is none."""
    values = [sample[figure] for sample in samples if sample.get(figure) is not None]
    if values and not isinstance(values[-1], int | float):
        return values[-1]
    return median(samples, figure)


def show_spread(samples, figure):
    """The smallest and the largest value over the rounds."""
    values = [sample[figure] for sample in samples if sample.get(figure) is not None]
    return f"{show(min(values))} to {show(max(values))}" if values else NOTHING


def conditions(meta):
    """Where and how the figures were taken."""
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    machine = meta["machine"]
    return "\n".join(
        (
            f"Machine: {machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}; "
            f"load before {machine['load_before']}; {meta['started']}.  ",
            f"Versions: {versions}.  ",
            f"Command: `{meta['command']}`",
        )
    )


def report(run, candidate=None, details=True):
    """The whole report of a run, as Markdown."""
    samples = with_added_latency(run["samples"])
    candidate = candidate or first_of_kind(samples, CANDIDATE)
    parts = [conditions(run["meta"]), figures_table(samples)]
    goals = goals_table(samples, candidate) if candidate else ""
    if goals:
        parts.append(f"## Goals\n\n{goals}")
    if details:
        present = [row for row in ROWS.values() if of_row(samples, row.name)]
        parts.append(
            "## Details (medians)\n\n" + "\n\n".join(detail_table(r, of_row(samples, r.name)) for r in present)
        )
    return "\n\n".join(parts) + "\n"


def line(sample):
    """One sample as a line of progress."""
    row = ROWS[sample["row"]]
    columns = dict.fromkeys((row.figure, *row.columns, "foreign", "load_busy", "attempts"))
    words = [f"{name}={show(sample[name])}" for name in columns if sample.get(name) is not None]
    return f"round {sample['round']} {sample['row']} {sample['peer']}: " + " ".join(words)
