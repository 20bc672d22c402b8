#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What hostile clients do to whoever shares the server with them: each attack of attacks.py for some seconds from a host outside the
mesh that has one valid certificate and half a processor, while another client does 100 exchanges a second. Prints a table for
Culvert, and for ztunnel beside it where $ZTUNNEL names one, and says which goals were missed. Needs root; in namespaces of its own."""
import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "e2e")]
import attacks
import measure
import modes
from run import Progress
from topology import Network, folder, stop, sweep, unwinding

MIB, KIB = 1 << 20, 1 << 10
SHARE = 0.5           # of a processor
QUIET = 10            # seconds without an attack
HEAD = 1              # seconds of an attack before it counts
P99_TIMES, P99_LEAST = 3, 10_000  # of the quiet one; us
GROWTH, LOG = 16 * MIB, 64 * KIB  # bytes; bytes a second
PODS = (*Network.PODS, (1, "u1", 9, False))


def refuse(mesh):
    mesh.policy("no-9001", "Deny", [[[{"destinationPorts": [attacks.DENIED]}]]], ["b1"])


class Bed:
    """One data plane on two nodes; the second node's tunnel is attacked."""

    def __init__(self, mode, top, ca, stack):
        self.mode = mode
        self.bed = stack.enter_context(modes.make(mode, f"{top}/{mode}", ca, pods=PODS, prepare=refuse))
        self.net, self.ca = self.bed.net, ca
        self.cert = ca.leaf(f"URI:{self.net.pods['a2'].spiffe}")
        stack.enter_context(self.net.pods["b1"].listen(attacks.STALLED, rcvbuf=1 << 16))  # accepts nothing: it stalls
        stack.enter_context(self.net.pods["b1"].listen(attacks.DENIED))
        self.bed.warm()
        self.victim, self.pid = self.bed.agents[1], self.bed.tunnels()[1]

    def exchanges(self, seconds):
        """The other client, on its way."""
        return self.bed.popen("open", "cross", conns=4, rate=100, size=64, seconds=seconds, warm=HEAD)

    def attack(self, name):
        argv = [sys.executable, f"{HERE}/attacks.py", name, self.net.pods["b1"].ip4, self.ca.cert, *self.cert, str(SHARE)]
        return self.net.pods["u1"].popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)

    def alive(self):
        return self.victim.alive() and self.bed.tunnels()[1] == self.pid


def resident(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) << 10 for x in f if x.startswith(what))


def watch(bed, seconds, name=None):
    """Under the attack, or without one: {p50, p99, max (us), errors, growth, log (bytes a second), cpu (cores), alive; connections and
    bytes of the attacker}."""
    measure.settle(bed.pid, 15)
    with open(f"/proc/{bed.pid}/clear_refs", "w") as f:
        f.write("5")  # VmHWM begins anew
    before, size = resident(bed.pid, "VmRSS:"), os.path.getsize(bed.victim.log_path)
    attacker = bed.attack(name) if name else None
    try:
        gen, window, at = bed.exchanges(seconds), measure.Window([bed.pid]), time.monotonic()
        out, err = gen.communicate(timeout=90 + seconds)
        took, window = time.monotonic() - at, window.stop()
        if attacker and attacker.poll() is not None:
            raise RuntimeError(f"the attacker ended with {attacker.returncode}")
    finally:
        stop(attacker)
    sent = json.loads(attacker.stdout.read() or "{}") if attacker else {}
    if attacker and not sent.get("connections"):
        raise RuntimeError("the attacker could not connect once")
    got = json.loads(out) if gen.returncode == 0 else {"p50": None, "p99": None, "max": None, "errors": err.strip()}
    alive = bed.alive()
    return {**sent, **{k: got[k] for k in ("p50", "p99", "max", "errors")}, "alive": alive, "cpu": window.proxies / took,
            "growth": resident(bed.pid, "VmHWM:") - before if alive else None,
            "log": (os.path.getsize(bed.victim.log_path) - size) / took}


def missed(ours, quiet, theirs):
    """What an attack came to against what it may."""
    out = []
    if not ours["alive"]:
        out.append("the process ended")
    if ours["p99"] is None or ours["errors"]:
        out.append(f"the other client: {ours['errors']}")
    elif ours["p99"] > max(P99_TIMES * quiet["p99"], P99_LEAST):
        out.append(f"p99 {ours['p99'] / 1000:.1f} ms")
    if theirs and theirs["p99"] is not None and ours["p99"] is not None and ours["p99"] > theirs["p99"]:
        out.append(f"p99 {ours['p99'] / 1000:.1f} ms, ztunnel's {theirs['p99'] / 1000:.1f}")
    if (ours["growth"] or 0) >= GROWTH:
        out.append(f"{ours['growth'] / MIB:.0f} MiB")
    if ours["log"] >= LOG:
        out.append(f"{ours['log'] / KIB:.0f} KiB/s of log")
    return out


def cells(r):
    if r is None:
        return ["-"] * 4
    if not r["alive"]:
        return ["ended", "-", "-", "-"]
    p99 = "none" if r["p99"] is None else f"{r['p99'] / 1000:.1f}"
    return [p99, f"{r['growth'] / MIB:+.1f}", f"{r['log'] / KIB:.1f}", f"{r['cpu']:.2f}"]


def table(names, results):
    modes_ = list(results)
    lines = [["second client's p99 ms, RSS MiB, log KiB/s, CPU cores", *(x for m in modes_ for x in (m, "", "", ""))]]
    lines += [[n, *(x for m in modes_ for x in cells(results[m].get(n)))] for n in names]
    width = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(x.ljust(w) if i == 0 else x.rjust(w) for i, (x, w) in enumerate(zip(line, width))).rstrip() for line in lines]


def parse():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=float, default=30, help="of each attack")
    p.add_argument("--only", type=lambda s: [x.strip() for x in s.split(",") if x.strip()], default=[], help="parts of attacks' names")
    p.add_argument("--out", default=os.path.join(os.environ.get("B", "build"), "bench"), help="folder of the result")
    return p.parse_args()


def measure_all(options, progress, names, top, results):
    ca = modes.new_ca(f"{top}/ca")
    with contextlib.ExitStack() as stack:
        beds = []
        for mode in results:
            progress.say("starting", mode)
            beds.append(Bed(mode, top, ca, stack))
        for i, name in enumerate(names):
            for bed in beds:
                progress.say(name, bed.mode, i / len(names))
                if not bed.alive():
                    continue
                what = (QUIET, None) if name == "quiet" else (options.seconds, name)
                try:
                    results[bed.mode][name] = watch(bed, *what)
                except Exception as e:
                    progress.note(f"FAILED {bed.mode}: {name}: {e}")


def main():
    options, progress = parse(), Progress()
    if os.geteuid():
        sys.exit("floods: needs root for network namespaces")
    known = modes.available()
    if known["culvert-bpf"]:
        sys.exit(f"floods: {known['culvert-bpf']}")
    wanted = [m for m in ("culvert-bpf", "ztunnel") if not known[m]]
    if "ztunnel" not in wanted:
        progress.note(f"without ztunnel: {known['ztunnel']}")
    names = ["quiet", *(n for n in attacks.ATTACKS if not options.only or any(o.lower() in n.lower() for o in options.only))]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sweep("bench")
    results = {m: {} for m in wanted}
    with unwinding(), folder("bench") as top:
        measure_all(options, progress, names, top, results)
    progress.note("")
    print("\n".join(table(names, results)))
    ours, theirs = results["culvert-bpf"], results.get("ztunnel", {})
    bad = {n: missed(ours[n], ours["quiet"], theirs.get(n)) for n in names[1:] if n in ours}
    bad |= {n: ["not measured"] for n in names if n not in ours}
    bad = {n: why for n, why in bad.items() if why}
    print(f"\n{len(names) - 1 - len(bad)} of {len(names) - 1} attacks within the goals")
    for n, why in bad.items():
        print(f"  {n}: {'; '.join(why)}")
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/floods.json", "w") as f:
        json.dump({"machine": measure.facts(), "seconds": options.seconds, "results": results}, f, indent=1)
    print(f"\n{options.out}/floods.json")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nfloods: stopped, everything is removed", file=sys.stderr)
        sys.exit(130)
