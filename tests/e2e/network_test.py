#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two networks (lib/networks.py): what a1 sends to a service of the other one goes to a gateway, and within that tunnel in another one
to the service's pod."""
import contextlib
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.h2_server import Recorder, Server, answers, resetting
from lib.net import PATIENCE, read_all, reset
from lib.networks import ALIEN, BEYOND, MAPPED, UNNAMED, WRONG, TwoNetworks
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)


def by_hand():
    """b1 is served by the row."""
    return TwoNetworks(pods=("a1", "a2", "b2"))


def row(name, bed=TwoNetworks):
    return T.each({"": bed}, name, FAMILIES)


@contextlib.contextmanager
def through(bed, v6, vips=BEYOND):
    """a1's connection to a service: (its end, the pod's end)."""
    with bed.b1.listen(8080) as listener, bed.a1.connect(vips[v6], 80) as c:
        s, _ = listener.accept()
        with s:
            s.settimeout(PATIENCE)
            yield c, s


@row("both-ways")
def both_ways(bed, v6):
    with through(bed, v6) as (c, s):
        traffic.echo(c, s)
        traffic.bulk_both_ways(c, s)


@row("gateway-that-is-a-service")
def mapped(bed, v6):
    """Its port is the service's to map."""
    with through(bed, v6, MAPPED) as (c, s):
        traffic.echo(c, s)
        port = c.getsockname()[1]
    src = f"[{bed.a1.ip6}]:{port}" if v6 else f"{bed.a1.ip4}:{port}"
    line = bed.log_of(0, **{"src.addr": src, "direction": "outbound"})
    equal([line.get(k) for k in ("dst.addr", "dst.hbone_addr", "dst.workload", "error")],
          [f"[{bed.b2.ip6}]:15008" if v6 else f"{bed.b2.ip4}:15008", "mapped.default.svc.cluster.local:80", "b1", None], "the line")


@row("nobody-listens-at-the-pod")
def refused(bed, v6):
    traffic.dial_is_cut(bed.a1, BEYOND[v6], 81)


@row("what-is-asked", by_hand)
def asked(bed, v6):
    """Both tunnels have the same authority; only the inner one tells the network."""
    for vips, name, pod in ((WRONG, "wrong", bed.u1), (BEYOND, "beyond", bed.b1)):
        with Recorder(bed, pod, False) as server, bed.a1.connect(vips[v6], 80) as c:
            port = c.getsockname()[1]
            fields = until(lambda: server.requests, f"the request to {pod.name}")[0][1]
        src = f"[{bed.a1.ip6}]:{port}" if v6 else f"{bed.a1.ip4}:{port}"
        host = f"{name}.default.svc.cluster.local"
        want = [(":method", "CONNECT"), (":authority", f"{host}:80"),
                ("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=a1,service.name=a1,service.version=v1"),
                ("forwarded", f'for="{src}";host={host}'), ("traceparent", dict(fields)["traceparent"])]
        equal(fields, want + ([("x-forwarded-network", "")] if pod is bed.b1 else []), f"the request to {pod.name}")


@row("half-close")
def half_close(bed, v6):
    with through(bed, v6) as (c, s):
        c.sendall(b"request")
        c.shutdown(socket.SHUT_WR)
        equal(read_all(s), b"request", "the server read")
        s.sendall(b"answer")
        s.shutdown(socket.SHUT_WR)
        equal(read_all(c), b"answer", "the client read")


@row("resets")
def resets(bed, v6):
    """Of either end, and of the gateway: never a clean end."""
    for who in ("client", "server", "gateway"):
        with through(bed, v6) as (c, s):
            traffic.echo(c, s)
            if who == "client":
                reset(c)
            elif who == "server":
                reset(s)
            else:
                bed.gateway.cut()
            for end in {"client": (s,), "server": (c,)}.get(who, (c, s)):
                traffic.is_cut(end)


@row("who-is-who")
def who_is_who(bed, v6):
    """Both sides' access logs and metrics: gateway and pod saw a1, and a1 knows who answered."""
    with through(bed, v6) as (c, s):
        traffic.echo(c, s)
        port = c.getsockname()[1]
        check(bed.a1.node.agent.metric("istio_tcp_connections_opened_total", reporter="source", destination_service_name="beyond",
                                       destination_workload="b1", destination_principal=bed.b1.spiffe) >= 1, "the source's metric")
        mine = [x for pod in bed.a1.node.agent.config_dump()["workloadState"].values() for x in pod["connections"]["outbound"]
                if x["src"].endswith(f":{port}")]
        equal([x["protocol"] for x in mine], ["DOUBLEHBONE"], "in the dump")
    src = f"[{bed.a1.ip6}]:{port}" if v6 else f"{bed.a1.ip4}:{port}"
    here = bed.log_of(0, **{"src.addr": src, "direction": "outbound"})
    equal([here.get(k) for k in ("dst.identity", "dst.workload", "dst.hbone_addr", "src.identity", "error")],
          [bed.b1.spiffe, "b1", "beyond.default.svc.cluster.local:80", bed.a1.spiffe, None], "the source's line")
    for dst in (bed.b1, bed.b2):
        there = bed.log_of(1, **{"src.workload": "a1", "direction": "inbound", "dst.workload": dst.name})
        equal(there["src.identity"], bed.a1.spiffe, f"who came to {dst.name}")


@row("one-tunnel-to-the-gateway-an-inner-one-for-each-connection")
def tunnels(bed, v6):
    def outer():
        return len(bed.b2.run("ss", "-Htn", "state", "established", f"src {bed.b2.ip4}:15008 or src [::ffff:{bed.b2.ip4}]:15008").splitlines())

    with bed.b1.listen(8080) as listener, contextlib.ExitStack() as stack:
        before = bed.hop.accepted
        for _ in range(5):
            c = stack.enter_context(bed.a1.connect(BEYOND[v6], 80))
            s, _ = listener.accept()
            stack.enter_context(s).settimeout(PATIENCE)
            traffic.echo(c, s)
        equal(bed.hop.accepted - before, 5, "inner tunnels")
        check(1 <= outer() <= os.cpu_count(), f"{outer()} outer tunnels for one client")
    until(lambda: not bed.b1.run("ss", "-Htn", "state", "established", "sport", "=", ":15008").strip(), "the inner tunnels to end")


@row("nobody-may-answer-whom-the-service-does-not-name")
def identities(bed, v6):
    why = "TLS handshake beyond the network gateway failed"
    for vips in UNNAMED, ALIEN:
        before = len(bed.a1.node.agent.lines())
        traffic.dial_is_cut(bed.a1, vips[v6], 80)
        until(lambda: any(why in x.get("error", "") for x in bed.a1.node.agent.lines()[before:]), f"a line that says: {why}")


# (what the gateway does, what the log says, seconds)
WRONGS = [
    (answers([(":status", "503")]), "http status of the network gateway: 503", 0),
    (answers([(":status", "200")], end=True), "", 0),
    (answers([(":status", "200")], then=b"HTTP/1.1 400 Bad Request\r\n\r\n"), "beyond the network gateway failed", 0),
    (answers([(":status", "200")], then=bytes(5000)), "beyond the network gateway failed", 0),
    (resetting(h2.INTERNAL_ERROR), "", 0),
    (answers([(":status", "200")]), "beyond the network gateway timed out", 10),
]


@row("gateways-that-do-wrong")
def wrongs(bed, v6):
    for behave, why, seconds in WRONGS:
        before = len(bed.a1.node.agent.lines())
        with Server(bed, bed.u1, False, behave), bed.a1.connect(WRONG[v6], 80, timeout=seconds + 2 * PATIENCE) as c:
            with contextlib.suppress(ConnectionError):
                equal(c.recv(100), b"never", "the client read")
                check(False, "a clean end")
        until(lambda: any(why in x.get("error", "") for x in bed.a1.node.agent.lines()[before:] if "error" in x), f"a line that says: {why}")


if __name__ == "__main__":
    T.main()
