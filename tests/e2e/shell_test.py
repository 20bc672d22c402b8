#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a process that has been taken over could not do: capabilities, system calls, core dumps, keys on a disk. That the agents work
like this is what all other tests show."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, traffic
from lib.bed import fixture, kinds, pair
from lib.rows import Skip, Table, check, equal, until

T = Table(__file__)
BITS = {"DAC_OVERRIDE": 1, "CHOWN": 0, "FOWNER": 3, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_PTRACE": 19, "SYS_ADMIN": 21}
TUNNEL = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN")
OURS = [k for k in kinds() if k != "ztunnel"]
BEDS = {k: fixture(k, k) for k in OURS}


def mask(names):
    return sum(1 << BITS[n] for n in names)


def status(path):
    with open(f"{path}/status") as f:
        return {k: v.strip() for k, _, v in (line.partition(":") for line in f)}


def filtered():
    if agents.sanitized():
        raise Skip("sanitizers make system calls of their own")


def tasks(pid):
    return [f"/proc/{pid}/task/{t}" for t in os.listdir(f"/proc/{pid}/task")]


@T.each(BEDS, "tunnel-has-three-capabilities")
def capabilities(bed):
    for agent in bed.agents:
        for task in tasks(agent.tunnel_pid()):
            got, most = status(task), mask(BITS) if hasattr(agent, "processes") else mask(TUNNEL)
            equal(int(got["CapBnd"], 16) & ~most, 0, "the bounding set, which the keeper's bounds")
            for name, want in ("CapPrm", mask(TUNNEL)), ("CapEff", mask(TUNNEL)), ("CapInh", 0), ("CapAmb", 0):
                equal(f"{int(got[name], 16):x}", f"{want:x}", f"{name} of {got['Name']}")


@T.each(BEDS, "tunnel-filters-system-calls-in-all-threads")
def system_calls(bed):
    filtered()
    for agent in bed.agents:
        threads = [status(t) for t in tasks(agent.tunnel_pid())]
        check(len(threads) >= 3, f"{len(threads)} threads")
        for got in threads:
            equal((got["Name"], got["Seccomp"], got["NoNewPrivs"]), (got["Name"], "2", "1"), "filter")


@T.each(BEDS, "keys-are-in-memory-that-is-locked")
def locked(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
    for agent in bed.agents:
        check(int(status(f"/proc/{agent.tunnel_pid()}")["VmLck"].split()[0]) > 0, "no memory is locked")


@T.each(BEDS, "nobody-without-ptrace-looks-into-the-tunnel")
def not_dumpable(bed):
    """As for a core dump: the process is not dumpable. Its own capabilities are what the one who looks has."""
    caps = ",".join(f"+{c.lower()}" for c in TUNNEL)
    for agent in bed.agents:
        pid = agent.tunnel_pid()
        for look in ("readlink", "exe"), ("dd", "if=mem"):  # maps and environ are open to SYS_ADMIN
            r = subprocess.run(["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{caps}", *look], capture_output=True, text=True,
                               cwd=f"/proc/{pid}")
            check(r.returncode and not r.stdout and "Input/output" not in r.stderr, f"{' '.join(look)}: {r.stdout}{r.stderr}")


@T.row("culvert/keeper-has-what-it-needs", BEDS.get("culvert"))
def keeper(bed):
    if bed is None:
        raise Skip("no agent of that kind here")
    want = mask(BITS)
    for agent in bed.agents:
        for pid in agent.processes("keeper"):
            got = status(f"/proc/{pid}")
            for name in "CapPrm", "CapEff", "CapBnd":
                equal(f"{int(got[name], 16):x}", f"{want:x}", name)


@T.row("off-is-said-in-the-log", fixture(OURS[0], None, env={"CULVERT_SECCOMP": "off"}, pods=("a1", "a2")) if OURS else None)
def off(bed):
    filtered()
    agent = bed.agents[0]
    equal(status(f"/proc/{agent.tunnel_pid()}")["Seccomp"], "0", "filter")
    until(lambda: "system calls are not filtered: CULVERT_SECCOMP=off" in agent.log(), "a warning")


if __name__ == "__main__":
    T.main()
