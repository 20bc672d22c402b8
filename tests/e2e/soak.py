#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lets pods, policies, certificates and connections come and go for MINUTES (5), and compares what the agents hold before and after:
descriptors, memory, BPF maps, namespaces. Exit status 1 when something was lost, refused or kept."""
import os
import resource
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib.churn import Churn
from lib.net import unwinding

EVERY = 5          # seconds between lines of progress; where nobody watches, six times as many
WARM_UP = 15       # seconds: what is needed once
GROWTH = 4         # MiB of resident memory that may come and stay


def progress(bed, begin, seconds, live):
    now = bed.held()
    rss = max(v for k, v in now.items() if k.endswith("resident MiB"))
    fds = sum(v for k, v in now.items() if k.endswith(": descriptors"))
    counts = ", ".join(f"{v:,} {k}" for k, v in bed.count.items())
    text = f"{time.monotonic() - begin:.0f} of {seconds:.0f} s: {counts}; {fds} descriptors, {rss:.1f} MiB at most"
    print(f"\r\033[K{text}" if live else text, end="" if live else "\n", flush=True)


def churn(bed, seconds, live):
    """For so long; what went wrong, or None."""
    begin = said = time.monotonic()
    bed.start()
    while time.monotonic() - begin < seconds and not bed.broken():
        time.sleep(0.5)
        if time.monotonic() - said >= EVERY * (1 if live else 6):
            said = time.monotonic()
            progress(bed, begin, seconds, live)
    if live:
        print()
    return bed.stop()


def compare(before, after):
    """[(what, before, after, kept)]"""
    rows = []
    for key in sorted(set(before) | set(after)):
        a, b = before.get(key, 0), after.get(key, 0)
        rows.append((key, a, b, b - a > GROWTH if key.endswith("MiB") else a != b))
    return rows


def table(rows):
    width = max(len(r[0]) for r in rows)
    lines = [f"{'held by the agents':{width}}  {'before':>8}  {'after':>8}"]
    for what, a, b, kept in rows:
        form = "8.1f" if what.endswith("MiB") else "8.0f"
        lines.append(f"{what:{width}}  {a:{form}}  {b:{form}}" + ("  <- kept" if kept else ""))
    return lines


def soak(seconds, live=False, warm_up=WARM_UP):
    """(lines of the table, what was kept, load's results)"""
    with Churn() as bed:
        churn(bed, warm_up, False)
        before = bed.settled()
        calls, streams = churn(bed, seconds, live)
        after = bed.settled(before)
        rows = compare(before, after)
        done = f"{', '.join(f'{v:,} {k}' for k, v in bed.count.items())}, {calls['count']:,} short connections, " \
               f"{streams['bytes'] / 1e6:,.0f} MB on {streams['count']} long ones"
        return [*table(rows), "", done], [r[0] for r in rows if r[3]]


def main():
    if os.geteuid():
        sys.exit("soak: needs root for network namespaces")
    seconds = 60 * float(os.environ.get("MINUTES") or 5)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with unwinding():
        lines, kept = soak(seconds, sys.stdout.isatty())
    print("\n".join(lines))
    print("\nnothing was kept" if not kept else f"\nkept: {', '.join(kept)}")
    sys.exit(1 if kept else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nsoak: stopped, everything is removed", file=sys.stderr)
        sys.exit(130)
    except AssertionError as e:
        print(f"\nsoak: {e}", file=sys.stderr)
        sys.exit(1)
