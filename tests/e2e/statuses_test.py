#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From an error to its status, its line and its metric. Inbound: the checks on a CONNECT, in their order; what is wrong before the
policies are asked is a line and no metric, what comes after them is a connection that failed. Outbound: what each failure on the way
is called."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.bed import fixture, kinds, not_ztunnel
from lib.h2_server import Server, answers
from lib.net import scale
from lib.rows import Table, check, equal, until

T = Table(__file__)
DENIED, CLOSED, SILENT = 9001, 7777, 7778


def prepare(bed):
    bed.mesh.policy("not-9001", "Deny", [[[{"destinationPorts": [DENIED, 15008]}]]], ["b1"])
    bed.mesh.service("alien", ["10.72.0.3"], {80: 8080}, ["b2"])
    bed.b1.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", str(SILENT), "-j", "DROP")


BEDS = {k: fixture(k, k, prepare=prepare) for k in kinds()}
FAILED, COMPLETE = "connection failed", "connection complete"


def connect(authority):
    return [(":method", "CONNECT"), (":authority", authority)]


# row, request, status, the line's message, what its error says, response_flags of the metric
ROWS = [
    ("served", lambda b: connect(f"{b.b1.ip4}:8080"), "200", COMPLETE, None, "-"),
    ("served-by-host-name", lambda b: connect(f"{b.host}:80"), "200", COMPLETE, None, "-"),
    ("method", lambda b: [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", f"{b.b1.ip4}:8080")], "400", FAILED,
     "unsupported method", None),
    ("authority-without-port", lambda b: connect(b.b1.ip4), "400", FAILED, "invalid authority", None),
    ("another-pod", lambda b: connect(f"{b.b2.ip4}:8080"), "400", FAILED, "ip mismatch: {b1} != {b2}", None),
    ("another-pod-and-denied", lambda b: connect(f"{b.b2.ip4}:{DENIED}"), "400", FAILED, "ip mismatch: {b1} != {b2}", None),
    ("unknown-host", lambda b: connect("nobody.default.svc.cluster.local:80"), "503", FAILED,
     "requested service nobody.default.svc.cluster.local is unknown", None),
    ("host-of-another-pod", lambda b: connect("alien.default.svc.cluster.local:80"), "503", FAILED, "unknown or not of this pod", None),
    ("host-without-this-port", lambda b: connect(f"{b.host}:99"), "503", FAILED, "cannot resolve port 99", None),
    ("own-port", lambda b: connect(f"{b.b1.ip4}:15006"), "503", FAILED, "attempted recursive call to ourselves", None),
    ("own-port-and-denied", lambda b: connect(f"{b.b1.ip4}:15008"), "503", FAILED, "attempted recursive call to ourselves", None),
    ("denied", lambda b: connect(f"{b.b1.ip4}:{DENIED}"), "401", COMPLETE, "not-9001", "DENY"),
    ("nobody-listens", lambda b: connect(f"{b.b1.ip4}:{CLOSED}"), "503", COMPLETE, "Connection refused", "CONNECT"),
    ("application-is-silent", lambda b: connect(f"{b.b1.ip4}:{SILENT}"), "503", COMPLETE, "timed out", "CONNECT"),
]


def failed(agent, flag=None):
    return agent.metric("istio_tcp_connections_failed_total", reporter="destination", **({"response_flags": flag} if flag else {}))


def status(bed, name, request, want, message, error, flag):
    if name == "host-of-another-pod":
        not_ztunnel(bed, "does not check membership")
    agent = bed.b1.node.agent
    since, opened = len(agent.log()), agent.metric("istio_tcp_connections_opened_total", reporter="destination")
    before = failed(agent), failed(agent, flag)
    with bed.b1.listen(8080) as listener, h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a1.spiffe), timeout=scale.deadline(20)) as h:
        stream = h.request(request(bed))
        equal(h.status(stream), want, "the status")
        if want == "200":
            h.data(stream, b"", end=True)
            listener.accept()[0].close()
            equal(h.event(stream)[0], h2.DATA, "the end of the stream")
    line = until(lambda: agent.access(since, direction="inbound", message=message), f"a line: {message}")[0]
    equal(line["level"], "warn" if message == FAILED else "error" if error else "info", "its level")
    if message == COMPLETE:
        equal(line["dst.hbone_addr"], dict(request(bed))[":authority"], "the authority that was asked for")
    check(not error or bed.kinds[0] == "ztunnel" or error.format(b1=bed.b1.ip4, b2=bed.b2.ip4) in line["error"], f"its error: {line.get('error')}")
    more = agent.metric("istio_tcp_connections_opened_total", reporter="destination") - opened
    equal(more, float(message == COMPLETE), "connections that were opened")
    bad = flag not in (None, "-")
    equal((failed(agent) - before[0], failed(agent, flag) - before[1] if bad else 0), (float(bad), float(bad)), "connections that failed")


for kind in BEDS:
    for row in ROWS:
        T.row(f"{kind}/{row[0]}", BEDS[kind], *row)(status)


def gone(kind):
    @T.row(f"{kind}/the-mesh-has-lost-the-pod", BEDS[kind])
    def lost(bed):
        """While its HBONE connections are there."""
        not_ztunnel(bed, "reads its file once")
        agent, workloads = bed.b1.node.agent, list(bed.mesh.workloads)
        known = lambda: any(w["name"] == "b1" for w in agent.config_dump()["workloads"])
        with bed.b1.listen(8080), h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a1.spiffe)) as h:
            equal(h.status(h.connect(f"{bed.b1.ip4}:8080")), "200", "the status before")
            bed.mesh.workloads = [w for w in workloads if w["name"] != "b1"]
            bed.mesh.save()
            try:
                until(lambda: not known(), "the pod to leave the mesh")
                since = len(agent.log())
                equal(h.status(h.connect(f"{bed.b1.ip4}:8080")), "503", "the status")
                until(lambda: [x for x in agent.access(since, message=FAILED) if "local workload" in x["error"]], "a line")
            finally:
                bed.mesh.workloads = workloads
                bed.mesh.save()
            until(known, "the pod to come back")
            equal(h.status(h.connect(f"{bed.b1.ip4}:8080")), "200", "the status after")


for kind in BEDS:
    gone(kind)


# --- outbound -------------------------------------------------------------------------------------------------------


def unserved(bed):
    """b1 is served by the row, or by nobody; nothing is heard of b2."""
    bed.mesh.service("nobody", ["10.72.0.4"], {80: 8080}, [])
    bed.mesh.service("noport", ["10.72.0.5"], {80: 8080}, ["b1"])
    bed.b2.run("iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP")


def answered(status):
    return answers([(":status", status)], end=True)


def garbage(server, s):
    s.recv(1)
    s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def no_http2(server, s):
    server.open_tls(s).sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    server.over.wait(30)


OTHER = "spiffe://cluster.local/ns/default/sa/other"
# row, where a1 dials, what b1's 15008 does, its certificate if not b1's, the line's message, what its error says, response_flags
OUTBOUND = [
    ("refused-by-a-policy", lambda b: (b.b1.ip4, 8080), answered("401"), None, COMPLETE, "http status: 401", "CONNECT"),
    ("refused-by-the-application", lambda b: (b.b1.ip4, 8080), answered("503"), None, COMPLETE, "http status: 503", "CONNECT"),
    ("not-tls", lambda b: (b.b1.ip4, 8080), garbage, None, COMPLETE, "TLS handshake failed", "TLS_FAILURE"),
    ("another-identity", lambda b: (b.b1.ip4, 8080), answered("200"), OTHER, COMPLETE, "TLS handshake failed", "TLS_FAILURE"),
    ("not-http2", lambda b: (b.b1.ip4, 8080), no_http2, None, COMPLETE, "", "H2_HANDSHAKE_FAILURE"),
    ("nobody-at-15008", lambda b: (b.b1.ip4, 8080), None, None, COMPLETE, "Connection refused", "CONNECT"),
    ("nothing-is-heard", lambda b: (b.b2.ip4, 8080), None, None, COMPLETE, "maybe a NetworkPolicy is blocking HBONE port 15008", "NETWORK_POLICY"),
    ("plaintext-refused", lambda b: (b.u1.ip4, CLOSED), None, None, COMPLETE, "Connection refused", "CONNECT"),
    ("service-without-endpoints", lambda b: ("10.72.0.4", 80), None, None, FAILED, "no healthy upstream", None),
    ("service-without-this-port", lambda b: ("10.72.0.5", 81), None, None, FAILED, "no healthy upstream", None),
]
CLIENTS = {k: fixture(k, None, prepare=unserved, pods=("a1", "a2")) for k in kinds()}


def outbound(bed, name, to, behave, spiffe, message, error, flag):
    if flag == "TLS_FAILURE":
        not_ztunnel(bed, "calls it CONNECT")
    agent = bed.a1.node.agent
    count = lambda what, **more: agent.metric(f"istio_tcp_connections_{what}_total", reporter="source", **more)
    since, before = len(agent.log()), (count("opened"), count("failed"), count("failed", response_flags=flag))
    with Server(bed, bed.b1, False, behave, bed.cert(spiffe or bed.b1.spiffe)) if behave else contextlib.nullcontext():
        with contextlib.suppress(ConnectionResetError), bed.a1.connect(*to(bed)) as c:
            traffic.is_cut(c, scale.deadline(20))
        line = until(lambda: agent.access(since, direction="outbound", message=message), f"a line: {message}")[0]
    equal(line["level"], "warn" if message == FAILED else "error", "its level")
    check(bed.kinds[0] == "ztunnel" or error in line["error"], f"its error: {line['error']}")
    bad = float(flag is not None)
    equal((count("opened") - before[0], count("failed") - before[1], count("failed", response_flags=flag) - before[2]), (bad, bad, bad),
          f"opened, failed, and failed with {flag}")


for kind in CLIENTS:
    for row in OUTBOUND:
        T.row(f"{kind}/outbound-{row[0]}", CLIENTS[kind], *row)(outbound)


if __name__ == "__main__":
    T.main()
