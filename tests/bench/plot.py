# SPDX-License-Identifier: Apache-2.0
"""The figures as one SVG. At the top Culvert's factors over others, if they were measured; then a card for each load
and a column for each figure of it: a bar to the median of each mode, a dot for each round, a tick where the goal is."""
import math
import statistics
from xml.sax.saxutils import escape

from figures import FIGURES, GOALS, NOTES
from report import OURS, number, ratio, reached

WIDTH, EDGE, GAP, PAD, ROW, BAR = 1240, 28, 16, 18, 21, 12
CARD = (WIDTH - 2 * EDGE - GAP) / 2
LABEL, COLUMNS, VALUE = 112, 3, 52  # pixels for a mode's name, columns a card, pixels for a number
NAMES = 330                         # pixels for a figure's name in the chart of factors
OUTLIER = 1.3                       # a dot further out than this times the longest bar is drawn at the end
OTHERS = ("ztunnel", "culvert-iptables")
ABOUT = {"direct": "nothing in between", "culvert-bpf": "BPF steering", "culvert-iptables": "istio-cni's rules",
         "culvert-dropin": "tunnel alone, istio-cni's rules", "ztunnel": "istio-cni's rules", "envoy": "as HBONE proxy"}
COLOURS = {"direct": "#a8b0ba", "culvert-bpf": "#0b7a75", "culvert-iptables": "#7cc4bf", "culvert-dropin": "#3f9fbf",
           "ztunnel": "#e07a3f", "envoy": "#9a7fc4"}
WORSE = "#c0392b"
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2933 }
.page { fill: #ffffff } .card { fill: #f5f7f9 } .rail { fill: #e3e8ed }
.h1 { font-size: 24px; font-weight: 700 } .h2 { font-size: 14px; font-weight: 700 } .s { font-size: 12px }
.dim { fill: #66727f } .e { text-anchor: end } .m { text-anchor: middle } .b { font-weight: 700 }
.dot { fill: #1f2933; fill-opacity: .38 } .goal { stroke: #1f2933; stroke-width: 2 }
.axis { stroke: #c3ccd5; stroke-width: 1 } .one { stroke: #66727f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6ebf0 } .page { fill: #12171c } .card { fill: #1b2229 } .rail { fill: #2a333c } .dim { fill: #9aa7b4 }
.dot { fill: #ffffff } .goal { stroke: #ffffff } .axis { stroke: #3a4651 } .one { stroke: #9aa7b4 } }
"""


def text(x, y, words, classes="s"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(words)}</text>'


def rect(x, y, width, height, more, radius=2):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height}" rx="{radius}" {more}/>'


def line(x1, y1, x2, y2, kind):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{kind}"/>'


def head(modes, subtitle):
    out, x = [text(EDGE, 44, "Culvert benchmark", "h1"), text(EDGE, 66, subtitle, "s dim")], EDGE
    for m in modes:
        out += [rect(x, 84, 12, 12, f'fill="{COLOURS[m]}"'), text(x + 18, 94, m, "s b")]
        x += 24 + 7.6 * len(m)
        out.append(text(x, 94, ABOUT[m], "s dim"))
        x += 22 + 6.6 * len(ABOUT[m])
    out.append(text(EDGE, 118, "Bar: median of the rounds; dots: the rounds; tick: the goal. "
                    "\u25b2 more is better, \u25bc less is better", "s dim"))
    return out, 136


def better(figure, factor):
    """A factor turned so that more is better."""
    return factor if figure.more_is_better or not factor else 1 / factor


def factors(samples):
    """[(figure, {other mode: factor}, goal as a factor or None)] of the figures that have a goal."""
    out = []
    for f in (f for f in FIGURES if f.key in GOALS):
        mine = samples.get(f.key, {})
        found = {m: better(f, r) for m in OTHERS if (r := ratio(mine, OURS, m))}
        got = reached(f, mine)
        if found.get("ztunnel"):
            out.append((f, found, better(f, got.goal) if got and got.against == "ztunnel" else None))
    return out


def chart(rows, y):
    """Culvert's factors on a logarithmic axis."""
    left, right = EDGE + PAD + NAMES, WIDTH - EDGE - PAD - 124
    top = max(2.0, *(max(*found.values(), goal or 1) for _, found, goal in rows)) * 1.05
    low = min(0.8, *(min(found.values()) for _, found, _ in rows)) / 1.05
    height = 66 + len(rows) * ROW + 12

    def at(v):
        return left + (right - left) * math.log(v / low) / math.log(top / low)

    out = [rect(EDGE, y, WIDTH - 2 * EDGE, height, 'class="card"', 8),
           text(EDGE + PAD, y + 26, "How many times better: culvert-bpf", "h2"),
           text(left, y + 26, "bar: than ztunnel; circle: than culvert-iptables; further right is better", "s dim")]
    bottom = y + 58 + len(rows) * ROW
    for v in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16):
        if low <= v <= top:
            out += [line(at(v), y + 52, at(v), bottom, "one" if v == 1 else "axis"),
                    text(at(v), y + 46, f"{v:g}x", "s dim m")]
    for i, (f, found, goal) in enumerate(rows):
        middle, v = y + 58 + i * ROW + ROW / 2, found["ztunnel"]
        out += [text(EDGE + PAD, middle + 4, f.title),
                rect(min(at(1), at(v)), middle - BAR / 2, abs(at(v) - at(1)), BAR,
                     f'fill="{COLOURS[OURS] if v >= 1 else WORSE}"')]
        if goal:
            out.append(line(at(goal), middle - 9, at(goal), middle + 9, "goal"))
        if other := found.get("culvert-iptables"):
            out.append(f'<circle cx="{at(other):.1f}" cy="{middle:.1f}" r="4.5" fill="none" stroke-width="2" '
                       f'stroke="{COLOURS["culvert-iptables"]}"/>')
        out.append(text(right + 12, middle + 4, f"{v:.2f}x" + ("" if not goal else ", goal met" if v >= goal else
                                                               f", goal {goal:.2f}x"), "s b"))
    return out, height


def bars(figure, mine, shown, x, y, width):
    """One figure's column: a bar for each mode that has it."""
    medians = {m: statistics.median(mine[m].values()) for m in shown if mine.get(m)}
    got = reached(figure, mine)
    goal = None if not got else got.goal * (medians[got.against] if got.against else 1)
    longest = max([*medians.values(), goal or 0])
    top = min(max(v for m in medians for v in mine[m].values()), longest * OUTLIER)
    top = max(top, longest) * 1.02 or 1
    room = width - VALUE - 10
    out = [text(x, y, figure.name, "s b"),
           text(x, y + 15, ("\u25b2 " if figure.more_is_better else "\u25bc ") + figure.unit, "s dim")]
    for i, m in enumerate(shown):
        at = y + 25 + i * ROW
        out.append(rect(x, at, room, BAR, 'class="rail"'))
        if m not in medians:
            out.append(text(x + room + 8, at + 10, "-", "s dim"))
            continue
        out.append(rect(x, at, room * medians[m] / top, BAR, f'fill="{COLOURS[m]}"'))
        if len(mine[m]) > 1:
            out += [f'<circle cx="{x + room * min(v / top, 1):.1f}" cy="{at + BAR / 2}" r="2" class="dot"/>'
                    for v in mine[m].values()]
        if goal and m == OURS:
            out.append(line(x + room * goal / top, at - 3, x + room * goal / top, at + BAR + 3, "goal"))
        out.append(text(x + room + 8, at + 10, number(medians[m]), "s b" if m == OURS else "s"))
    return out


def card(figures, samples, modes, x, y):
    """A load: the modes in rows, its figures in columns; its elements and its height."""
    shown = [m for m in modes if any(samples[f.key].get(m) for f in figures)]
    height = 84 + len(shown) * ROW
    title, width = figures[0].load, (CARD - 2 * PAD - LABEL) / COLUMNS
    out = [rect(x, y, CARD, height, 'class="card"', 8), text(x + PAD, y + 26, title, "h2"),
           text(x + PAD, y + 42, NOTES.get(title, ""), "s dim")]
    for i, m in enumerate(shown):
        out.append(text(x + PAD, y + 93 + i * ROW, m, "s b" if m == OURS else "s"))
    for i, f in enumerate(figures):
        out += bars(f, samples[f.key], shown, x + PAD + LABEL + i * width, y + 58, width)
    return out, height


def write(path, samples, modes, subtitle):
    figures = [f for f in FIGURES if any(samples.get(f.key, {}).get(m) for m in modes)]
    body, y = head(modes, subtitle)
    if rows := factors(samples):
        elements, height = chart(rows, y)
        body += elements
        y += height + GAP
    loads = list(dict.fromkeys(f.load for f in figures))
    for i in range(0, len(loads), 2):
        pair = [card([f for f in figures if f.load == load], samples, modes, EDGE + j * (CARD + GAP), y)
                for j, load in enumerate(loads[i:i + 2])]
        body += [e for elements, _ in pair for e in elements]
        y += max(height for _, height in pair) + GAP
    with open(path, "w") as out:
        out.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 12}" '
                  f'viewBox="0 0 {WIDTH} {y + 12}">\n<style>{STYLE}</style>\n'
                  f'<rect width="100%" height="100%" class="page"/>\n' + "\n".join(body) + "\n</svg>\n")
