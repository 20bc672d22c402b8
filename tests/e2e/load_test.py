#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many connections at once, and many one after the other, without a lost byte or a leaked descriptor.
E2E_SHORT sets the number of short connections (20,000; `make check-long` 100,000)."""
import os
import queue
import resource
import socket
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, traffic
from lib.bed import fixture, not_ztunnel, places
from lib.net import PATIENCE, read_all, read_exactly, scale
from lib.rows import Table, check, equal, until

T = Table(__file__)
AT_ONCE, THREADS = scale.count(2000, 200), 8  # fewer would weigh what an agent needs once
SHORT = int(os.environ.get("E2E_SHORT") or scale.count(20000))
WARM_UP = scale.count(2000)
GROWTH_MAX = 16 << 20  # bytes of anonymous memory, after a warm-up
IDLE_MAX = 3788        # bytes of anonymous memory of an idle connection, on each side


def each(name, fresh=False):
    def add(fn):
        for kind in places():
            T.row(f"{kind}/{name}", bed(kind) if fresh else BEDS[kind])(fn)
        return fn

    return add


def bed(kind):
    return fixture(kind, kind, env={"RUST_LOG": "warn"})


BEDS = {k: bed(k) for k in places()}


def anonymous(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(x.split()[1]) << 10 for x in f if x.startswith("Anonymous:"))


def raise_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    check(hard > 3 * AT_ONCE, f"only {hard} descriptors allowed")


@each(f"{AT_ONCE}-at-once")
def at_once(bed):
    raise_files()
    both = [bed.a1.node.agent, bed.b1.node.agent]
    with bed.b1.listen(8080) as listener:
        warm_up(bed, listener)
        before = [a.fds() for a in both]
        clients, servers = [], []
        accepting = traffic.Task(lambda: servers.extend(listener.accept()[0] for _ in range(AT_ONCE)))
        try:
            for i in range(AT_ONCE):
                clients.append(bed.a1.connect(bed.b1.ip4, 8080))
            accepting.result(60)
            for i, c in enumerate(clients):
                c.sendall(i.to_bytes(4, "big"))
            seen = set()
            for s in servers:
                s.settimeout(PATIENCE)
                number = read_exactly(s, 4)
                seen.add(number)
                s.sendall(number * 2)
            equal(len(seen), AT_ONCE, "connections with bytes of their own")
            for i, c in enumerate(clients):
                equal(read_exactly(c, 8), i.to_bytes(4, "big") * 2, f"connection {i}")
                c.shutdown(socket.SHUT_WR)
            for s in servers:
                equal(read_all(s), b"", "end of file")
        finally:
            for s in clients + servers:
                s.close()
        until(lambda: all(a.fds() <= n + 4 for a, n in zip(both, before)), "descriptors to be closed", 20)


@each(f"memory-of-{AT_ONCE}-idle", fresh=True)
def idle(bed):
    """What a connection costs that has carried data and rests, beyond what the agent kept from a first round."""
    not_ztunnel(bed, "needs 5.3 KiB")
    raise_files()
    both = [bed.a1.node.agent, bed.b1.node.agent]
    with bed.b1.listen(8080) as listener:
        warm_up(bed, listener)
        before = [anonymous(a.tunnel_pid()) for a in both]
        pairs = []
        try:
            for _ in range(AT_ONCE):
                c = bed.a1.connect(bed.b1.ip4, 8080)
                pairs.append((c, listener.accept()[0]))
            for c, s in pairs:
                s.settimeout(PATIENCE)
                c.sendall(b"x" * 3000)
                read_exactly(s, 3000)
                s.sendall(b"y" * 3000)
                read_exactly(c, 3000)
            out, inb = ((anonymous(a.tunnel_pid()) - n) / AT_ONCE for a, n in zip(both, before))
            check(max(out, inb) <= IDLE_MAX or agents.sanitized(),
                  f"{out:.0f} bytes for an outbound connection, {inb:.0f} for an inbound")
        finally:
            for x in pairs:
                for s in x:
                    s.close()


def warm_up(bed, listener):
    c = bed.a1.connect(bed.b1.ip4, 8080)
    s, _ = listener.accept()
    with c, s:
        s.settimeout(PATIENCE)
        traffic.echo(c, s)


def serve(listener):
    """Answers 64 bytes with 128 until the listener is closed."""
    while True:
        try:
            s, _ = listener.accept()
        except OSError:
            return
        with s:
            s.settimeout(PATIENCE)
            try:
                s.sendall(read_exactly(s, 64) * 2)
            except OSError:
                pass  # the client counts what it misses


def call(bed, n, errors):
    payload = os.urandom(64)
    for _ in range(n):
        try:
            with bed.a1.connect(bed.b1.ip4, 8080) as c:
                c.sendall(payload)
                if read_all(c) != payload * 2:
                    raise ValueError("wrong bytes")
        except (OSError, ValueError) as e:
            errors.put(repr(e))


def calls(bed, n):
    errors = queue.Queue()
    for t in [traffic.Task(call, bed, n // THREADS, errors) for _ in range(THREADS)]:
        t.result(600)
    check(errors.empty(), lambda: f"{errors.qsize()} of {n} failed, first: {errors.get()}")
    return n // THREADS * THREADS


@each(f"{SHORT}-short")
def short(bed):
    both = [bed.a1.node.agent, bed.b1.node.agent]
    listener = bed.b1.listen(8080)
    listener.settimeout(None)
    servers = [traffic.Task(serve, listener) for _ in range(THREADS)]
    try:
        calls(bed, WARM_UP)
        until(lambda: all(open_connections(a) == 0 for a in both), "the warm-up's end")
        before = [(a.fds(), anonymous(a.tunnel_pid()), counters(a)) for a in both]
        n = calls(bed, SHORT)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for t in servers:
            t.result()
    for agent, reporter, (fds, memory, count) in zip(both, ("source", "destination"), before):
        until(lambda: counters(agent)["closed", reporter] - count["closed", reporter] >= n, "connections to be closed")
        now = counters(agent)
        want = {"opened": n, "closed": n, "received": 64 * n, "sent": 128 * n, "failed": 0}
        equal({k: now[k, reporter] - count[k, reporter] for k in want}, want, f"{reporter}'s counters")
        until(lambda: agent.fds() <= fds + 4, f"{reporter}'s descriptors to be closed")
        grown = anonymous(agent.tunnel_pid()) - memory
        check(grown < GROWTH_MAX or agents.sanitized(), f"{reporter} grew by {grown >> 10} KiB")


def counters(agent):
    names = {"opened": "connections_opened", "closed": "connections_closed", "failed": "connections_failed",
             "received": "received_bytes", "sent": "sent_bytes"}
    return {(k, r): agent.metric(f"istio_tcp_{v}_total", reporter=r) for k, v in names.items()
            for r in ("source", "destination")}


def open_connections(agent):
    c = counters(agent)
    return sum(c["opened", r] - c["closed", r] for r in ("source", "destination"))


if __name__ == "__main__":
    T.main()
