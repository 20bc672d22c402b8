# SPDX-License-Identifier: Apache-2.0
"""What the numbers say: medians and spread, paired differences between modes, goals, what got worse since another
run."""
import statistics
from dataclasses import dataclass

from figures import FIGURES, GOALS, Figure

NOISE = 0.03       # differences below are not worth a word
AGREE = 0.8        # share of the rounds that must point the same way
BASELINE_NOISE = 0.05
OURS = "culvert-bpf"
PAIRS = (("culvert-bpf", "culvert-iptables"), ("culvert-bpf", "ztunnel"))


def number(v):
    if v is None:
        return "-"
    return f"{v:,.0f}" if abs(v) >= 100 else f"{v:.1f}" if abs(v) >= 10 else f"{v:.2f}"


def half_range(values):
    """Half of the range that the middle half of the values covers."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def spread(values):
    """The same as a share of the median."""
    middle = statistics.median(values)
    return half_range(values) / abs(middle) if middle else 0.0


def paired(samples, mode, other):
    """Relative differences of one figure, round by round."""
    mine, theirs = samples.get(mode, {}), samples.get(other, {})
    return [mine[r] / theirs[r] - 1 for r in mine if r in theirs and theirs[r]]


def verdict(figure, differences):
    """("+12 %", is it worse beyond the noise)"""
    if not differences:
        return "", False
    middle = statistics.median(differences)
    bad = [d < 0 if figure.more_is_better else d > 0 for d in differences]
    worse = figure.judged and sum(bad) >= AGREE * len(bad) and abs(middle) > max(NOISE, half_range(differences))
    return f"{100 * middle:+.0f} %", worse


def ratio(samples, mode, other):
    """Median of the rounds' ratios of one figure, or None."""
    differences = paired(samples, mode, other)
    return 1 + statistics.median(differences) if differences else None


@dataclass
class Reached:
    """What Culvert has come to where there is a goal."""
    value: float   # a factor, or the figure itself
    goal: float
    then: float
    sign: str
    good: bool
    figure: Figure
    against: str

    def text(self):
        wanted = f"{'>=' if self.figure.more_is_better else '<='} {self.goal:g}{self.sign}"
        return f"{number(self.value)}{self.sign} ({wanted}) {'met' if self.good else 'MISSED'}"


def reached(figure, samples):
    """Reached, or None where there is no goal or nothing to compare with."""
    goal, mine = GOALS.get(figure.key), samples.get(OURS, {})
    if not goal or not mine:
        return None
    value = ratio(samples, OURS, goal.against) if goal.against else statistics.median(mine.values())
    if value is None:
        return None
    good = value >= goal.first if figure.more_is_better else value <= goal.first
    return Reached(value, goal.first, goal.then, "x" if goal.against else "", good, figure, goal.against)


def goals(samples):
    """Reached, for each goal that this run can judge."""
    return [r for f in FIGURES if (r := reached(f, samples.get(f.key, {})))]


def table(samples, modes):
    """Lines of text, and the list of sentences on what is slower than it should be."""
    pairs = [p for p in PAIRS if p[0] in modes and p[1] in modes]
    any_goal = bool(goals(samples))
    head = ["", "", *modes, *(f"{a.removeprefix('culvert-')} : {b.removeprefix('culvert-')}" for a, b in pairs),
            *(["goal"] if any_goal else [])]
    rows, worse, load = [head], [], None
    for f in FIGURES:
        mine = samples.get(f.key, {})
        if not mine:
            continue
        if f.load != load:
            load = f.load
            rows.append([load])
        row = [f"  {f.name}", f.unit]
        for m in modes:
            values = list(mine.get(m, {}).values())
            cell = number(statistics.median(values)) if values else "-"
            row.append(cell + (f" ±{100 * spread(values):.0f}%" if len(values) > 1 else ""))
        for a, b in pairs:
            text, is_worse = verdict(f, paired(mine, a, b))
            row.append(text + (" WORSE" if is_worse else ""))
            if is_worse:
                worse.append(f"{a} is worse than {b} beyond the noise: {f.title} ({f.key}), {text}")
        if any_goal:
            row.append(r.text() if (r := reached(f, mine)) else "")
        rows.append(row)
    width = [max(len(r[i]) for r in rows if len(r) > 1) for i in range(len(head))]
    lines = []
    for i, r in enumerate(rows):
        lines.append("  ".join(c.ljust(w) if j < 2 else c.rjust(w) for j, (c, w) in enumerate(zip(r, width))).rstrip()
                     if len(r) > 1 else r[0])
        if not i:
            lines.append("-" * (sum(width) + 2 * len(width) - 2))
    return lines, worse


def against_baseline(now, before):
    """Sentences on what is worse than in an earlier run's JSON, by more than both runs' spread."""
    out = []
    for what in ("machine", "options"):
        if now[what] != before.get(what):
            out.append(f"note: {what} differ from the baseline's: {before.get(what)}")
    for f in FIGURES:
        for mode, values in now["samples"].get(f.key, {}).items():
            old = list(before["samples"].get(f.key, {}).get(mode, {}).values())
            if not old or not values:
                continue
            a, b = statistics.median(values.values()), statistics.median(old)
            change = a / b - 1 if b else 0.0
            noise = max(BASELINE_NOISE, spread(list(values.values())) + spread(old))
            if (-change if f.more_is_better else change) > noise:
                out.append(f"{mode}: {f.title} ({f.key}) went from {number(b)} to {number(a)} {f.unit}, "
                           f"{100 * change:+.0f} % (noise {100 * noise:.0f} %)")
    return out
