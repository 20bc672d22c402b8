#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The programs that measure (tests/bench/) still do: each way and each load for a moment, one attack for a second. What figures come
out is not asked here, only that there are some."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib.agents import BUILD
from lib.net import folder
from lib.rows import Skip, Table, check, equal

T = Table(__file__)
PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench")
WAYS = ["direct", "culvert-bpf", "culvert-iptables"]
LOADS = {"bulk1", "pull1", "rr1", "open16", "conn16", "same-bulk1", "same-conn16"}  # of those, the ones that every way has


def measured(program, *argv):
    """(what it wrote, what it said)"""
    if os.geteuid():
        raise Skip("needs root for network namespaces")
    if not os.path.exists(f"{BUILD}/tests/bench/gen"):
        raise Skip("tests/bench/gen is not built (make check-e2e does)")
    with folder("measured") as out:
        r = subprocess.run([sys.executable, f"{PROGRAMS}/{program}.py", "--out", out, *argv], capture_output=True, text=True,
                           timeout=200)
        name = {"run": "bench", "floods": "floods"}[program]
        check(os.path.exists(f"{out}/{name}.json"), f"no figures: {r.stderr[-500:]}")
        with open(f"{out}/{name}.json") as f:
            return json.load(f), r.stdout + r.stderr


@T.row("each-way-and-load")
def ways():
    got, said = measured("run", "--rounds", "1", "--scale", "0.05", "--no-memory", "--only", " ".join(WAYS), "--loads",
                         "bulk,pull,rr,open,conn,same,dns")
    equal(got["failures"], [], "what failed")
    equal(got["modes"], WAYS, "ways")
    for way in WAYS:
        missing = {load for load in LOADS if not any(k.startswith(load + ".") and way in v for k, v in got["samples"].items())}
        equal(missing, set(), f"{way}: loads without figures")
    check("goals met" in said, f"no goals: {said[-500:]}")


@T.row("an-attack")
def attack():
    got, _ = measured("floods", "--seconds", "1", "--only", "SETTINGS")
    equal(sorted(got["results"]["culvert-bpf"]), ["SETTINGS", "quiet"], "what was measured")


if __name__ == "__main__":
    T.main()
