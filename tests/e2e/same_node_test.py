#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pods of one node, from socket to socket and, with CULVERT_LOCAL_HBONE, through the tunnel: two nodes that differ in nothing else. No
policy decides otherwise on one than on the other, and applications, metrics, the log and the dump are told the same."""
import collections
import contextlib
import os
import re
import socket
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.bed import Bed, pair, together
from lib.mesh import Exact, Prefix, Presence, Suffix
from lib.net import PATIENCE, Unwound, read_exactly
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
PORT, CLOSED = 8080, 7777
SHOP = ("10.72.0.9", "fd72::9")
A1, B1 = ("spiffe://cluster.local/ns/default/sa/" + sa for sa in ("sa-a1", "sa-b1"))


class Both(Unwound):
    """The two nodes; all that is asked of one is asked of the other."""

    def __init__(self, kinds=("local", "local-hbone")):
        env = {"AUTHZ_POLICY_INFO_LOGGING": "true"}
        self.beds = [Bed((k, k), env=env, pods=("a1", "a2", "b1"), prepare=Both.shop) for k in kinds]

    def shop(bed):
        bed.mesh.service("shop", SHOP, {80: PORT}, ["b1"])

    def _begin(self):
        for b in self.beds:
            self.stack.enter_context(b)

    def explain(self):
        for b in self.beds:
            b.explain()

    def agree(self, observe, *args):
        """What both say; an error if they differ."""
        out = [None] * len(self.beds)

        def one(i):
            out[i] = observe(self.beds[i], *args)

        together(lambda i=i: one(i) for i in range(len(self.beds)))
        check(out[0] == out[1], lambda: f"socket to socket and through the tunnel differ: {difference(*out)}")
        return out[0]


def difference(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: difference(a.get(k), b.get(k)) for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
    if isinstance(a, list) and isinstance(b, list):
        return [[x for x in a if x not in b], [x for x in b if x not in a]]
    return a, b


# --- what a connection leaves behind ---------------------------------------------------------------------------------------

COUNTED = "istio_tcp_"
GONE = {"time", "duration"}
# How a connection ended that the other side, or a policy there, cut off: a tunnel brings a code, which is the same for all.
CUT = {"INTERNAL_ERROR", "Connection reset by peer", "connection reset by the application"}
CUT_OVER_THERE = CUT | {"connection closed due to policy change"}


def plain(line):
    """A line of the log without what differs by chance, ports of clients and times, and with one word for what is CUT."""
    line = {k: v for k, v in line.items() if k not in GONE}
    line["src.addr"] = re.sub(r":\d+$", ":PORT", str(line.get("src.addr")))
    if line.get("error") in (CUT_OVER_THERE if line.get("direction") == "outbound" else CUT):
        line["error"] = "cut"
    return line


class Trace:
    """Metrics and lines since it was made. `ended`: as many connections as both sides have reported."""

    def __init__(self, bed):
        self.agent = bed.agents[0]
        self.before, self.since = self.agent.metrics(COUNTED), len(self.agent.log())

    def grown(self):
        now = self.agent.metrics(COUNTED)
        return {k: v - self.before.get(k, 0) for k, v in now.items() if "_open" not in k[0].removesuffix("opened_total")
                and v != self.before.get(k, 0)}

    def lines(self):
        return sorted((plain(x) for x in self.agent.lines(self.since)
                       if x.get("scope") == "access" or str(x.get("message", "")).startswith("dry-run")), key=str)

    def ended(self, n=1):
        def done():
            by = collections.Counter()
            for (name, labels), v in self.grown().items():
                if name == "istio_tcp_connections_closed_total":
                    by[dict(labels)["reporter"]] += v
            return by["source"] >= n and by["destination"] >= n and \
                len([x for x in self.lines() if x.get("message") == "connection complete"]) >= 2 * n

        until(done, "both sides to report the end")
        return {"metrics": sorted((k[0], sorted(k[1]), v) for k, v in self.grown().items()), "log": self.lines()}


def dial(bed, client, server, port, to=None, v6=False):
    """What came of one connection and one exchange: (served or cut, what was reported)."""
    trace = Trace(bed)
    server, client, served = bed.pod[server], bed.pod[client], False
    with server.listen(port if port != CLOSED else PORT) as listener:
        serving = traffic.Task(serve, listener)
        with contextlib.suppress(ConnectionError), client.connect(to or server.ip(v6), 80 if to else port) as c:
            c.sendall(b"hello mesh!")
            served = c.recv(100) == b"HELLO MESH!"
        if not served:
            listener.shutdown(socket.SHUT_RDWR)
        serving.result()
    return {"served": served, **trace.ended()}


def serve(listener):
    """One exchange, up to the client's end of file; nothing when the listener is shut down."""
    listener.settimeout(None)
    try:
        s, _ = listener.accept()
    except OSError:
        return
    with s:
        s.settimeout(PATIENCE)
        s.sendall(read_exactly(s, 11).upper())
        equal(s.recv(1), b"", "the end")


# --- policies ------------------------------------------------------------------------------------------------------------------

ME, OTHER = "cluster.local/ns/default/sa/sa-a1", "cluster.local/ns/default/sa/sa-x"


def rule(*matches):
    return [[list(matches)]]


# name, [(action, rules, dry run)] for b1, is a1 served? "@4" and "@6": addresses of a1 and b1, see addressed()
POLICIES = [
    ("none", [], True),
    ("deny-port", [("Deny", rule({"destinationPorts": [PORT]}))], False),
    ("deny-another-port", [("Deny", rule({"destinationPorts": [81]}))], True),
    ("deny-not-port", [("Deny", rule({"notDestinationPorts": [PORT]}))], True),
    ("deny-not-another-port", [("Deny", rule({"notDestinationPorts": [81]}))], False),
    ("allow-port", [("Allow", rule({"destinationPorts": [PORT]}))], True),
    ("allow-another-port", [("Allow", rule({"destinationPorts": [81]}))], False),
    ("deny-principal", [("Deny", rule({"principals": [Exact(ME)]}))], False),
    ("deny-another-principal", [("Deny", rule({"principals": [Exact(OTHER)]}))], True),
    ("deny-not-principal", [("Deny", rule({"notPrincipals": [Exact(ME)]}))], True),
    ("deny-principal-prefix", [("Deny", rule({"principals": [Prefix("cluster.local/ns/default/")]}))], False),
    ("deny-principal-suffix", [("Deny", rule({"principals": [Suffix("/sa-a1")]}))], False),
    ("deny-principal-suffix-of-another", [("Deny", rule({"principals": [Suffix("/sa-a2")]}))], True),
    ("deny-any-principal", [("Deny", rule({"principals": [Presence()]}))], False),
    ("strict", [("Deny", rule({"notPrincipals": [Presence()]}))], True),
    ("allow-principal", [("Allow", rule({"principals": [Exact(ME)]}))], True),
    ("allow-another-principal", [("Allow", rule({"principals": [Exact(OTHER)]}))], False),
    ("deny-namespace", [("Deny", rule({"namespaces": [Exact("default")]}))], False),
    ("deny-another-namespace", [("Deny", rule({"namespaces": [Exact("defaul")]}))], True),
    ("deny-not-namespace", [("Deny", rule({"notNamespaces": [Exact("default")]}))], True),
    ("allow-namespace-prefix", [("Allow", rule({"namespaces": [Prefix("def")]}))], True),
    ("deny-service-account", [("Deny", rule({"serviceAccounts": [{"namespace": "default", "serviceAccount": "sa-a1"}]}))], False),
    ("deny-not-service-account", [("Deny", rule({"notServiceAccounts": [{"namespace": "default", "serviceAccount": "sa-a1"}]}))], True),
    ("allow-another-service-account", [("Allow", rule({"serviceAccounts": [{"namespace": "default", "serviceAccount": "sa-x"}]}))], False),
    ("deny-source", [("Deny", rule({"sourceIps": ["@a1"]}))], False),
    ("deny-another-source", [("Deny", rule({"sourceIps": ["@a2"]}))], True),
    ("deny-not-source", [("Deny", rule({"notSourceIps": ["@a1"]}))], True),
    ("allow-source", [("Allow", rule({"sourceIps": ["@a1"]}))], True),
    ("deny-destination", [("Deny", rule({"destinationIps": ["@b1"]}))], False),
    ("deny-not-destination", [("Deny", rule({"notDestinationIps": ["@b1"]}))], True),
    ("allow-another-destination", [("Allow", rule({"destinationIps": ["@a2"]}))], False),
    ("deny-both-attributes", [("Deny", rule({"principals": [Exact(ME)], "destinationPorts": [PORT]}))], False),
    ("deny-one-of-both-attributes", [("Deny", rule({"principals": [Exact(OTHER)], "destinationPorts": [PORT]}))], True),
    ("deny-alternatives", [("Deny", rule({"destinationPorts": [81]}, {"principals": [Exact(ME)]}))], False),
    ("deny-clauses", [("Deny", [[[{"destinationPorts": [PORT]}], [{"principals": [Exact(OTHER)]}]]])], True),
    ("deny-all", [("Deny", [[]])], False),
    ("deny-nobody", [("Deny", [])], True),
    ("allow-nobody", [("Allow", [])], False),
    ("allow-all", [("Allow", [[]])], True),
    ("deny-before-allow", [("Allow", [[]]), ("Deny", rule({"destinationPorts": [PORT]}))], False),
    ("one-of-two-allows", [("Allow", rule({"destinationPorts": [81]})), ("Allow", rule({"principals": [Exact(ME)]}))], True),
    ("dry-run-deny", [("Deny", rule({"destinationPorts": [PORT]}), True)], True),
    ("dry-run-allow-of-another", [("Allow", rule({"principals": [Exact(OTHER)]}), True)], True),
    ("dry-run-beside-a-denial", [("Deny", [[]], True), ("Deny", rule({"principals": [Exact(ME)]}))], False),
]


def addressed(bed, value):
    """ "@a1" becomes its addresses of both families."""
    if isinstance(value, dict):
        return {k: addressed(bed, v) for k, v in value.items()}
    if type(value) is list and any(isinstance(x, str) and x.startswith("@") for x in value):
        return [f"{ip}/{bits}" for x in value for ip, bits in ((bed.pod[x[1:]].ip4, 32), (bed.pod[x[1:]].ip6, 128))]
    return [addressed(bed, x) for x in value] if type(value) is list else value


def enact(bed, name, policies):
    """The row's policies, and no others, are in force: one names the row."""
    bed.mesh.clear_policies()
    for i, (action, rules, *dry) in enumerate(policies):
        bed.mesh.policy(f"{name}-{i}", action, addressed(bed, rules), ["b1"], dry_run=bool(dry))
    bed.mesh.save()
    want = {f"{name}-{i}" for i in range(len(policies))}
    until(lambda: {p["name"] for p in bed.agents[0].config_dump()["policies"]} == want, f"the policies of {name}")


@contextlib.contextmanager
def enacted(both, name, policies):
    together(lambda b=b: enact(b, name, policies) for b in both.beds)
    try:
        yield
    finally:
        together(lambda b=b: enact(b, "none", []) for b in both.beds)


def labels(report, metric):
    return [dict(x[1]) for x in report["metrics"] if x[0] == metric]


def judge(report, served):
    """That both agree is known; this is what they must agree on."""
    equal(report["served"], served, "served")
    closed = {x["reporter"]: x for x in labels(report, "istio_tcp_connections_closed_total")}
    equal({r: x["response_flags"] for r, x in closed.items()},
          {"source": "-", "destination": "-"} if served else {"source": "CONNECT", "destination": "DENY"}, "flags")
    equal({(x["source_principal"], x["destination_principal"], x["connection_security_policy"]) for x in closed.values()},
          {(A1, B1, "mutual_tls")}, "identities")


def policy(name, policies, served):
    @T.row(f"policy/{name}", Both)
    def compare(both):
        with enacted(both, name, policies):
            for v6 in FAMILIES:
                judge(both.agree(dial, "a1", "b1", PORT, None, v6), served)


for row in POLICIES:
    policy(*row)


# --- the rest ------------------------------------------------------------------------------------------------------------------


def each(name):
    return T.each({"": Both}, name, FAMILIES)


def tunnels(bed):
    """Connections to 15008 within the node."""
    return [line for pod in (bed.a1, bed.b1) for line in pod.run("ss", "-Htn", "dport", "=", ":15008").splitlines()]


@each("one-has-a-tunnel-and-the-other-none")
def carried(both, v6):
    for bed, through in zip(both.beds, (False, True)):
        trace = Trace(bed)
        with pair(bed.a1, bed.b1, v6=v6) as (c, s):
            traffic.echo(c, s)
            equal(bool(tunnels(bed)), through, "connections to 15008")
            states = {x["info"]["name"]: x["connections"] for x in bed.agents[0].config_dump()["workloadState"].values()}
            for pod, direction in ("a1", "outbound"), ("b1", "inbound"):
                (conn,) = states[pod][direction]
                equal("tls" in conn, through, f"a cipher in the dump, {direction}")
        trace.ended()  # before the next row counts


@each("the-application-sees-the-same")
def seen(both, v6):
    """The client's address, by the pod's address and by the service's; the peer's stays what was dialled."""
    def observe(bed, to, port):
        trace = Trace(bed)
        with bed.b1.listen(PORT) as listener, bed.a1.connect(to or bed.b1.ip(v6), port) as c, listener.accept()[0] as s:
            s.settimeout(PATIENCE)
            traffic.echo(c, s)
            names = s.getpeername()[0], s.getsockname()[:2], c.getpeername()[:2]
        trace.ended()  # before the next row counts
        return names

    for to, port in ((None, PORT), (SHOP[v6], 80)):
        peer, own, _ = both.agree(observe, to, port)
        equal(peer.removeprefix("::ffff:"), both.beds[0].a1.ip(v6), "the address that the server sees")
        equal(own[1], PORT, "the port that it sees")


@each("a-service-is-named")
def service(both, v6):
    report = both.agree(dial, "a1", "b1", PORT, SHOP[v6], v6)
    equal(report["served"], True, "served")
    equal({x["destination_service_name"] for x in labels(report, "istio_tcp_connections_closed_total")}, {"shop"}, "the service")


@each("nobody-listens")
def nobody(both, v6):
    report = both.agree(dial, "a1", "b1", CLOSED, None, v6)
    equal(report["served"], False, "served")
    closed = {x["reporter"]: x["response_flags"] for x in labels(report, "istio_tcp_connections_closed_total")}
    equal(closed, {"source": "CONNECT", "destination": "CONNECT"}, "flags")


@each("proxy-header")
def header(both, v6):
    """An application that wants one gets the one that a tunnel brings."""
    def enact_tunnel(bed, tunnel):
        if tunnel:
            bed.mesh.workload("b1")["applicationTunnel"] = tunnel
        else:
            del bed.mesh.workload("b1")["applicationTunnel"]
        bed.mesh.save()
        is_there = lambda: [w for w in bed.agents[0].config_dump()["workloads"] if w["name"] == "b1" and w.get("applicationTunnel")]
        until(lambda: bool(is_there()) == bool(tunnel), "the application tunnel")

    def observe(bed):
        trace = Trace(bed)
        with bed.b1.listen(7070, "::1" if v6 else "127.0.0.1") as listener, bed.a1.connect(bed.b1.ip(v6), PORT) as c:
            with listener.accept()[0] as s:
                s.settimeout(PATIENCE)
                src, dst, tlvs = traffic.proxy_header(s)
                traffic.echo(c, s)
                c.close()
                equal(s.recv(1), b"", "the end")
        return src[0], dst, tlvs, trace.ended()

    together(lambda b=b: enact_tunnel(b, {"protocol": "PROXY", "port": 7070}) for b in both.beds)
    try:
        src, dst, tlvs, _ = both.agree(observe)
        equal((src, dst, tlvs), (both.beds[0].a1.ip(v6), (both.beds[0].b1.ip(v6), PORT), {0xD0: A1.encode()}), "the header")
    finally:
        together(lambda b=b: enact_tunnel(b, None) for b in both.beds)


@each("a-reset-arrives-as-one")
def resets(both, v6):
    def observe(bed, swap):
        trace = Trace(bed)
        with pair(bed.a1, bed.b1, v6=v6) as ends:
            traffic.reset_reaches(*reversed(ends) if swap else ends)
        return trace.ended()

    for swap in False, True:
        both.agree(observe, swap)


@each("a-half-close-arrives-as-one")
def half_closes(both, v6):
    def observe(bed, swap):
        trace = Trace(bed)
        with pair(bed.a1, bed.b1, v6=v6) as ends:
            traffic.half_close(*reversed(ends) if swap else ends)
        return trace.ended()

    for swap in False, True:
        both.agree(observe, swap)


@each("a-policy-that-comes-cuts-the-live-connection")
def live(both, v6):
    """With the same flags and lines on both sides; a connection that it does not mean goes on."""
    def observe(bed):
        with pair(bed.a2, bed.b1, v6=v6, port=8082) as (other, other_s), pair(bed.a1, bed.b1, v6=v6) as (c, s):
            traffic.echo(other, other_s)
            traffic.echo(c, s)
            trace = Trace(bed)
            enact(bed, "late", [("Deny", rule({"principals": [Exact(ME)]}))])
            traffic.is_cut(c)
            traffic.is_cut(s)
            report = trace.ended()
            traffic.echo(other, other_s)
            enact(bed, "none", [])
        return report

    report = both.agree(observe)
    equal({x["reporter"]: x["response_flags"] for x in labels(report, "istio_tcp_connections_closed_total")}["destination"], "DENY",
          "the destination's flag")
    check([x for x in report["log"] if x.get("error") == "connection closed due to policy change"], report["log"])


@each("a-pod-that-leaves-ends-its-connections")
def leaves(both, v6):
    def observe(bed):
        agent = bed.agents[0]
        with pair(bed.a2, bed.b1, v6=v6) as (c, s):
            traffic.echo(c, s)
            agent.unenrol(bed.b1)
            try:
                traffic.is_cut(c, 20)
            finally:
                agent.enrol(bed.b1)

    both.agree(observe)


if __name__ == "__main__":
    T.main()
