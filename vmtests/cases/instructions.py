#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Inside a guest of `make vmbench`: what the two agents of a tunnel spend. Under QEMU's -icount a nanosecond of CPU time is an
instruction, so the scheduler's sums for the agents' threads count instructions, system calls and softirqs included.

Prints a line of JSON for each way of carrying records: M instructions per MiB at the sender and at the receiver, and per
connection (on a tunnel that is there, on a new tunnel)."""
import contextlib
import json
import os
import subprocess
import sys

sys.path.insert(0, "tests/e2e")
from lib import h2, traffic
from lib.bed import Bed, pair

MIB, ROUNDS, CONNECTIONS = 16, 3, 40
BUILD = os.environ.get("B", "build")
# name, CULVERT_KTLS, CULVERT_KTLS_DISABLE
WAYS = {"user": ("off", ""), "ktls-tx": ("tx", ""), "ktls-tx-rx": ("on", "rx-no-pad"), "ktls-tx-rx-no-pad": ("on", "")}


def spent(agent):
    """Nanoseconds on a CPU of all threads of the tunnel."""
    total = 0
    task = f"/proc/{agent.tunnel_pid()}/task"
    for thread in os.listdir(task):
        with contextlib.suppress(OSError), open(f"{task}/{thread}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def measure(agents, count, fn):
    """M instructions of each agent for one of `count`, the least of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        before = [spent(a) for a in agents]
        fn()
        rounds.append([(spent(a) - b) / 1e6 / count for a, b in zip(agents, before)])
    return [min(x) for x in zip(*rounds)]


def bulk(bed):
    data = traffic.random_bytes(MIB << 20)
    with pair(bed.a1, bed.b1) as (c, s):
        writer = traffic.Task(traffic.send_all, c, data)
        n, _ = traffic.read_hash(s)
        writer.result()
    assert n == MIB << 20, n


def connections(bed):
    with bed.b1.listen(8080) as listener:
        for _ in range(CONNECTIONS):
            with pair(bed.a1, bed.b1, listener=listener) as (c, s):
                traffic.echo(c, s)


def tunnels(bed):
    cert = bed.cert(bed.a1.spiffe)
    with bed.b1.listen(8080) as listener:
        for _ in range(CONNECTIONS):
            with h2.Client(bed.u1, bed.b1.ip4, bed.ca, cert) as h:
                stream = h.connect(f"{bed.b1.ip4}:8080")
                listener.accept()[0].close()
                h.status(stream)


def agent_way(ktls, disable):
    env = {"CULVERT_KTLS": ktls, "CULVERT_KTLS_DISABLE": disable, "RUST_LOG": "warn", "CULVERT_WORKERS": "1"}
    with Bed(("culvert", "culvert"), env=env) as bed:
        both = [bed.a1.node.agent, bed.b1.node.agent]
        bulk(bed)
        connections(bed)
        tx, rx = measure(both, MIB, lambda: bulk(bed))
        source, destination = measure(both, CONNECTIONS, lambda: connections(bed))
        _, tunnel = measure(both, CONNECTIONS, lambda: tunnels(bed))
    return {"tx": tx, "rx": rx, "connection_source": source, "connection_destination": destination, "tunnel": tunnel}


def openssl_way():
    def run(what, n):
        out = [subprocess.run([f"{BUILD}/vmtests/openssl_bench", what, str(n)], capture_output=True, text=True, check=True).stdout
               for _ in range(ROUNDS)]
        return [min(int(x.split()[i]) for x in out) / 1e6 / n for i in (1, 3)]

    tx, rx = run("bytes", MIB)
    client, server = run("connect", CONNECTIONS)
    return {"tx": tx, "rx": rx, "handshake_client": client, "handshake_server": server}


def main():
    ways = sys.argv[1:] or ["openssl", *WAYS]
    for way in ways:
        got = openssl_way() if way == "openssl" else agent_way(*WAYS[way])
        print(json.dumps({"way": way, **{k: round(v, 4) for k, v in got.items()}}), flush=True)


main()
