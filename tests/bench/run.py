#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the ways from pod to pod side by side (modes.py) by the figures of figures.py: in rounds, the modes one after
the other within each round and each load, so that a slow minute of the machine meets them all. Prints a table, writes
JSON and a plot. Needs root; everything happens in namespaces of its own."""
import argparse
import contextlib
import datetime
import json
import os
import resource
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "e2e")]
import measure
import memory
import modes
import node
import plot
import report
from figures import LOADS
from topology import folder, sweep, unwinding


class Progress:
    """One line that is written over on a terminal; elsewhere a line a round."""

    def __init__(self):
        self.live, self.begin, self.last = sys.stderr.isatty(), time.monotonic(), ""

    def say(self, stage, detail="", share=None):
        took = time.monotonic() - self.begin
        left = f", {took / share - took:.0f} s left" if share and share > 0.02 else ""
        if self.live:
            print(f"\r\033[K{stage}  {detail}  ({took:.0f} s{left})", end="", file=sys.stderr, flush=True)
        elif stage != self.last:
            print(f"{stage} ({took:.0f} s{left})", file=sys.stderr, flush=True)
        self.last = stage

    def note(self, text):
        print(("\r\033[K" if self.live else "") + text, file=sys.stderr, flush=True)


class Run:
    def __init__(self, options, progress):
        self.options, self.progress = options, progress
        self.samples = {}   # figure -> mode -> round -> value
        self.threads = {}   # load -> mode -> thread -> seconds, of the last round
        self.failures, self.beds = [], {}

    def add(self, mode, at, values):
        for key, value in values.items():
            self.samples.setdefault(key, {}).setdefault(mode, {})[at] = value

    def fail(self, mode, what, error):
        text = f"{mode}: {what}: {str(error).strip()[:400]}"
        self.failures.append(text)
        self.progress.note("FAILED " + text)

    def load(self, load, mode, at):
        """One load on one mode."""
        bed = self.beds[mode]
        options = dict(load.options)
        options["seconds"] = options["seconds"] * self.options.scale
        window = measure.Window(bed.pids())
        gen = bed.popen(load.kind, load.path, **options)
        if not gen:
            return
        try:
            out, err = gen.communicate(timeout=60 + options["seconds"])
        finally:
            gen.kill()
            gen.wait()
        window.stop()
        bed.check()
        if set(bed.pids()) != set(window.pids):
            raise RuntimeError("another process serves than at the beginning")
        if gen.returncode:
            raise RuntimeError(err.strip())
        result = json.loads(out)
        if result["errors"]:
            self.fail(mode, load.key, f"{result['errors']} errors, the first: {result['error']}")
        self.add(mode, at, load.values(result, window))
        if window.threads:
            self.threads.setdefault(load.key, {})[mode] = window.threads

    def rounds(self):
        loads = [x for x in LOADS if not self.options.loads or any(w in x.key for w in self.options.loads)]
        total, done = self.options.rounds * len(loads) * len(self.beds), 0
        for at in range(self.options.rounds):
            for load in loads:
                order = list(self.beds)
                order = order[at % len(order):] + order[:at % len(order)]  # nobody is always the first
                for mode in order:
                    self.progress.say(f"round {at + 1}/{self.options.rounds}", f"{load.key} {mode}", done / total)
                    try:
                        self.load(load, mode, at)
                    except Exception as e:
                        self.fail(mode, load.key, e)
                    done += 1


def result(run, names):
    return {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "machine": measure.facts(),
            "options": {k: getattr(run.options, k) for k in ("rounds", "scale")}, "modes": names,
            "samples": run.samples, "threads": run.threads, "failures": run.failures}


def choose(options, progress):
    """The modes that are wanted and can run; those that were asked for by name must be able to."""
    known, out = modes.available(), []
    for mode in options.only or ("direct", "culvert-bpf", "culvert-iptables", "ztunnel", "envoy"):
        if mode not in known:
            sys.exit(f"bench: {mode}: unknown mode, known are {', '.join(known)}")
        if known[mode] and options.only:
            sys.exit(f"bench: {mode}: {known[mode]}")
        if known[mode]:
            progress.note(f"without {mode}: {known[mode]}")
        else:
            out.append(mode)
    return out


def parse():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--scale", type=float, default=1.0, help="factor on the seconds of each load")
    p.add_argument("--only", type=lambda s: [x for x in s.replace(",", " ").split() if x], default=[], help="modes")
    p.add_argument("--loads", type=lambda s: s.replace(",", " ").split(), default=[],
                   help="parts of loads' names; node: pods that come")
    p.add_argument("--no-memory", action="store_true", help="leave out memory and the large state")
    p.add_argument("--out", default=os.path.join(os.environ.get("B", "build"), "bench"), help="folder of the results")
    p.add_argument("--baseline", help="JSON of an earlier run: report what got worse")
    return p.parse_args()


def measure_all(run, names, top):
    ca = modes.new_ca(f"{top}/ca")
    with contextlib.ExitStack() as stack:
        for mode in names:
            run.progress.say("starting", mode)
            try:
                bed = stack.enter_context(modes.make(mode, f"{top}/{mode}", ca))
                bed.warm()
                run.beds[mode] = bed
            except Exception as e:
                run.fail(mode, "start", e)
        run.rounds()
    if not run.options.no_memory:  # alone on the machine: shared pages are not divided by more processes than two
        for mode in run.beds:
            if mode != "direct":
                memory.measure_all(run, mode, top, ca)
    if set(node.MODES) <= set(names) and (not run.options.loads or "node" in run.options.loads):
        node.measure_all(run, top, ca)


def main():
    options, progress = parse(), Progress()
    before = None
    if options.baseline:
        with open(options.baseline) as f:
            before = json.load(f)
    if os.geteuid():
        sys.exit("bench: needs root for network namespaces")
    names = choose(options, progress)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sweep("bench")
    run = Run(options, progress)
    with unwinding():
        with folder("bench") as top:
            measure_all(run, names, top)
    progress.note("")
    lines, worse = report.table(run.samples, names)
    print("\n".join(lines))
    goals = report.goals(run.samples)
    missed = [f"{r.figure.title} ({r.figure.key}): {r.text()}" for r in goals if not r.good]
    if goals:
        print(f"\n{len(goals) - len(missed)} of {len(goals)} goals met")
    for title, some in (("failed", run.failures), ("missed goals", missed), ("defects", worse)):
        if some:
            print(f"\n{title}:\n  " + "\n  ".join(some))
    out = json.loads(json.dumps(result(run, names)))  # as it reads back: rounds become text
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/bench.json", "w") as f:
        json.dump(out, f, indent=1)
    m = out["machine"]
    plot.write(f"{options.out}/bench.svg", run.samples, names,
               f"{m['cpus']} x {m['cpu']}, Linux {m['kernel']}, {options.rounds} rounds, {out['date']}")
    print(f"\n{options.out}/bench.json, {options.out}/bench.svg")
    if before:
        changes = report.against_baseline(out, before)
        print("\nagainst the baseline:\n  " + "\n  ".join(changes or ["nothing got worse"]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nbench: stopped, everything is removed", file=sys.stderr)
        sys.exit(130)
