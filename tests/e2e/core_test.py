#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What every pair of agents must do: who is captured, who is served, what applications see. Run for each kind of
agent (lib/agents.py), and for pods of one node ("local"), in IPv4 and IPv6."""
import os
import socket
import ssl
import sys
from contextlib import ExitStack

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, net, traffic
from lib.bed import VIP4, VIP6, fixture, not_ztunnel, pair, places, two_nodes
from lib.mesh import Exact, Presence
from lib.net import inside, read_all, scale
from lib.pki import Ca
from lib.rows import FAMILIES, V4, Skip, Table, check, equal, until
from lib.tls_client import trusting

T = Table(__file__)
PROBE_PORT, STRICT_PORT = 9001, 9002
ELSEWHERE = "10.71.1.99", "fd71:1::99"


def policies(bed):
    """In the file from the start, for agents that read it once. a2 serves a1 only; b2 has two denied ports."""
    mesh = bed.mesh
    mesh.policy("only-a1", "Allow", [[[{"principals": [Exact("cluster.local/ns/default/sa/sa-a1")]}]]], ["a2"])
    mesh.policy("not-a1", "Deny", [[[{"principals": [Exact("cluster.local/ns/default/sa/sa-a1")],
                                      "destinationPorts": [PROBE_PORT]}]]], ["b2"])
    mesh.policy("strict", "Deny", [[[{"notPrincipals": [Presence()], "destinationPorts": [STRICT_PORT]}]]], ["b2"])
    mesh.policy("dry", "Deny", [[[{"destinationPorts": [8080]}]]], ["b1"], dry_run=True)
    mesh.service("named", ["10.72.0.2"], {81: 0}, ["b1"])
    mesh.workload("b1")["services"]["default/named.default.svc.cluster.local"] = {81: 8080}
    mesh.service("alien", ["10.72.0.3"], {80: 8080}, ["b2"])
    mesh.service("wrapped", ["10.72.0.4", "fd72::4"], {80: 8080}, ["a2"])
    elsewhere(bed)


def elsewhere(bed):
    """Another cluster's pod of a2's name, which is u1 under addresses that it does not call from."""
    for ip, family in zip(ELSEWHERE, ("-4", "-6")):
        bed.u1.run("ip", family, "addr", "add", ip, "dev", "eth0", "preferred_lft", "0",
                   *(["nodad"] if family == "-6" else []))
        bed.u1.node.run("ip", family, "route", "add", ip, "dev", f"v-{bed.u1.name}")
    bed.mesh.workloads.append({**bed.mesh.workload("a2"), "uid": "Elsewhere//Pod/default/a2", "clusterId": "Elsewhere",
                               "workloadIps": list(ELSEWHERE), "node": "node-9", "services": {},
                               "authorizationPolicies": []})


def cores(name, *only_v4):
    """A row for each kind and family; the function gets (bed, v6)."""
    return T.each(BEDS, name, (V4,) if only_v4 else FAMILIES)


def tunnels(name, *only_v4):
    """Not for "local": rows with a peer by hand, to whom it is one whose node a pod is on, and rows about one node anyway."""
    return T.each({k: b for k, b in BEDS.items() if not k.startswith("local")}, name, (V4,) if only_v4 else FAMILIES)


BEDS = {k: fixture(k, k, prepare=policies) for k in places(always=True)}


def peer(s):
    return s.getpeername()[0].removeprefix("::ffff:")


# --- who carries the records -----------------------------------------------------------------------------

CARRIED = {"off": (), "auto": (), "tx": ("tx",), "on": ("tx", "rx")}  # kTLS's directions, by mode


def kernel_sockets(pod):
    """Sockets that the kernel took over in the pod's namespace so far, by direction; it counts them itself."""
    with inside(pod.ns), open("/proc/thread-self/net/tls_stat") as f:
        stat = dict(line.split() for line in f)
    return {"tx": int(stat["TlsTxSw"]), "rx": int(stat["TlsRxSw"])}


@cores("records-are-where-the-mode-says")
def records_where(bed, v6):
    """As the kernel counts it, as /config_dump says it, and as the metric adds it up; on both sides of a new tunnel."""
    not_ztunnel(bed, "leaves records to its TLS library")
    two_nodes(bed, "there are no records")
    if not os.path.exists("/proc/net/tls_stat"):
        raise Skip("this kernel has no kTLS (CONFIG_TLS, module tls)")
    want = CARRIED[os.environ.get("CULVERT_KTLS", "auto")]
    client, server = (bed.a2, bed.b1) if v6 else (bed.b1, bed.a1)  # this is the first row: no tunnel is there yet
    agents = [client.node.agent, server.node.agent]

    def counted():
        return [[a.metric("culvert_ktls_connections_total", direction=d, result="kernel") for d in ("tx", "rx")] for a in agents]

    pods, metrics = [kernel_sockets(p) for p in (client, server)], counted()
    with pair(client, server, v6=v6) as (c, s):
        traffic.echo(c, s)
        for i, (pod, direction) in enumerate(((client, "outbound"), (server, "inbound"))):
            state = next(x for x in agents[i].config_dump()["workloadState"].values() if x["info"]["name"] == pod.name)
            (conn,) = state["connections"][direction]
            check({d for d in ("tx", "rx") if conn["tls"][d] == "kernel"} == set(want),
                  lambda: f"/config_dump, {direction}: {conn['tls']}; the agent's kTLS: {agents[i].config_dump()['ktls']}")
            now = kernel_sockets(pod)
            equal({d for d in now if now[d] > pods[i][d]}, set(want), f"the kernel's own count, {direction}")
            equal([b - a for a, b in zip(metrics[i], counted()[i])], [float(d in want) for d in ("tx", "rx")],
                  f"the metric, {direction}")


# --- who talks to whom ---------------------------------------------------------------------------------


@tunnels("same-node")
def same_node(bed, v6):
    with pair(bed.a1, bed.a2, v6=v6) as (c, s):
        traffic.echo(c, s)
        equal(peer(s), bed.a1.ip(v6), "the address that the server sees")


@cores("same-name-in-another-cluster-gets-no-plaintext")
def other_cluster(bed, v6):
    """Where a pod of this node has the name of a remote one, what is meant for that one is not sent past the tunnel."""
    with bed.u1.listen(8080) as listener:
        got = traffic.outcome(bed.a1, ELSEWHERE[v6], 8080, b"x")
        listener.settimeout(0.5)
        try:
            listener.accept()
            raise AssertionError("plaintext reached the other cluster's pod")
        except TimeoutError:
            pass
    check(got in ("closed", "refused"), f"the client saw {got!r}")


@cores("cross-node")
def cross_node(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.echo(c, s)
        equal(peer(s), bed.a1.ip(v6), "the address that the server sees")
        equal(c.getpeername()[:2], (bed.b1.ip(v6), 8080), "the client's peer")


@cores("cross-node-is-encrypted")
def encrypted(bed, v6):
    """No packet between the nodes carries the text, and port 15008 is used."""
    two_nodes(bed, "nothing goes over a wire")
    with inside(bed.net.nodes[0].ns):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        tap.bind(("wan", 3))
    with tap, pair(bed.a1, bed.b1, v6=v6) as (c, s):
        c.sendall(b"needle-in-plain-sight" * 10)
        s.recv(1000)
        tap.settimeout(0.2)
        packets = []
        try:
            while True:
                packets.append(tap.recv(1 << 16))
        except TimeoutError:
            pass
    check(any((15008).to_bytes(2, "big") in p[34:60] for p in packets), "nothing went to port 15008")
    check(not any(b"needle-in" in p for p in packets), "plaintext between the nodes")


@cores("uncaptured-client")
def uncaptured_client(bed, v6):
    with pair(bed.u1, bed.b1, v6=v6) as (c, s):
        traffic.echo(c, s)
        equal(peer(s), bed.u1.ip(v6), "the address that the server sees")


@cores("uncaptured-server")
def uncaptured_server(bed, v6):
    with pair(bed.b1, bed.u1, v6=v6) as (c, s):
        traffic.echo(c, s)


@cores("self-by-own-address")
def self_traffic(bed, v6):
    with pair(bed.a1, bed.a1, v6=v6, port=8081) as (c, s):
        traffic.echo(c, s)
        equal(peer(s), bed.a1.ip(v6), "the address that the server sees")


@cores("self-by-loopback")
def loopback(bed, v6):
    with pair(bed.a1, bed.a1, to="::1" if v6 else "127.0.0.1", port=8082) as (c, s):
        traffic.echo(c, s)


@cores("service-vip-balances")
def vip(bed, v6):
    """Both endpoints after 50 connections, the first exchange already served."""
    servers = {p: p.listen(8080) for p in (bed.b1, bed.b2)}
    seen = set()
    try:
        for x in servers.values():
            x.settimeout(0.02)
        for _ in range(50):
            with bed.a1.connect(VIP6 if v6 else VIP4, 80) as c:

                def accepted():
                    for pod, listener in servers.items():
                        try:
                            return pod, listener.accept()[0]
                        except TimeoutError:
                            pass

                pod, s = until(accepted, "an endpoint to be called")
                seen.add(pod)
                with s:
                    s.settimeout(10)
                    traffic.echo(c, s)
    finally:
        for x in servers.values():
            x.close()
    equal(len(seen), 2, "endpoints used")


@cores("vip-without-port")
def vip_no_port(bed, v6):
    traffic.dial_is_cut(bed.a1, VIP6 if v6 else VIP4, 81)


@cores("no-listener")
def no_listener(bed, v6):
    """The application does not listen: the client's connection ends, it does not hang."""
    check(traffic.outcome(bed.a1, bed.b1.ip(v6), 7777, b"x") in ("closed", "refused"), "not closed")


# --- bytes and endings -----------------------------------------------------------------------------------


@cores("64-mib-both-ways")
def bulk(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.bulk_both_ways(c, s)


@tunnels("64-mib-same-node", "v4")
def bulk_local(bed, v6):
    with pair(bed.a1, bed.a2, v6=v6) as (c, s):
        traffic.bulk_both_ways(c, s)


@cores("64-mib-plaintext-inbound", "v4")
def bulk_inbound(bed, v6):
    with pair(bed.u1, bed.b1, v6=v6) as (c, s):
        traffic.bulk_both_ways(c, s)


@cores("client-ends-first")
def client_first(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.half_close(c, s)


@cores("server-ends-first")
def server_first(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        c.sendall(b"x")
        s.recv(1)
        traffic.half_close(s, c)


@tunnels("same-node-half-close", "v4")
def local_half_close(bed, v6):
    for swap in False, True:
        with pair(bed.a1, bed.a2, v6=v6) as ends:
            traffic.half_close(*reversed(ends) if swap else ends)


@cores("end-without-data")
def empty(bed, v6):
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        c.shutdown(socket.SHUT_WR)
        equal(read_all(s), b"", "the server read")
        s.close()
        equal(read_all(c), b"", "the client read")


@cores("client-resets")
def client_reset(bed, v6):
    not_ztunnel(bed, "turns a reset into an end of file")
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.reset_reaches(c, s)


@cores("server-resets")
def server_reset(bed, v6):
    not_ztunnel(bed, "turns a reset into an end of file")
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.reset_reaches(s, c)


@tunnels("same-node-resets", "v4")
def local_reset(bed, v6):
    not_ztunnel(bed, "turns a reset into an end of file")
    for swap in False, True:
        with pair(bed.a1, bed.a2, v6=v6) as ends:
            traffic.reset_reaches(*reversed(ends) if swap else ends)


@cores("an-answer-arrives-before-its-reset")
def early_answer(bed, v6):
    """Through the tunnel, between pods of one node, and where there is no tunnel: from outside, to the outside."""
    not_ztunnel(bed, "turns a reset into an end of file")
    for client, server in ((bed.a1, bed.b1), (bed.a1, bed.a2), (bed.u1, bed.b1), (bed.a1, bed.u1)):
        with server.listen(8080) as listener:
            for uploads in [False, True] * 5:
                with pair(client, server, v6=v6, listener=listener) as ends:
                    traffic.early_answer(*ends, uploads)


@cores("stalled-reader", "v4")
def stalled(bed, v6):
    stalled_readers(bed, 1)


@cores("eight-stalled-readers", "v4")
def eight_stalled(bed, v6):
    not_ztunnel(bed, "lets four stalled streams block the connection between two pods")
    stalled_readers(bed, 8)


def stalled_readers(bed, count):
    """Readers stall for 5 s with bounded buffers; another connection of the same two pods keeps answering; then
    every byte arrives."""
    with ExitStack() as stack:
        listener = stack.enter_context(bed.b1.listen(8080, rcvbuf=1 << 16))
        stalls = [stack.enter_context(pair(bed.a1, bed.b1, listener=listener)) for _ in range(count)]
        sent = [traffic.Task(traffic.fill, c) for c, _ in stalls]
        c, s = stack.enter_context(pair(bed.a1, bed.b1, listener=listener))
        worst = traffic.steady(lambda: traffic.echo(c, s), 5)
        check(worst < scale.deadline(2), f"an exchange beside stalled readers took {worst:.1f} s")
        for (c, s), n in zip(stalls, [t.result() for t in sent]):
            c.shutdown(socket.SHUT_WR)
            equal(traffic.read_hash(s)[0], n, "bytes after the stall")


# --- policy ----------------------------------------------------------------------------------------------


@cores("policy-allows-named-principal")
def allowed(bed, v6):
    with pair(bed.a1, bed.a2, v6=v6) as (c, s):
        traffic.echo(c, s)


@cores("policy-denies-other-principal")
def denied(bed, v6):
    with bed.a2.listen(8080):
        traffic.dial_is_cut(bed.b1, bed.a2.ip(v6), 8080)


@cores("policy-denies-plaintext-where-identity-is-needed")
def denied_plain(bed, v6):
    with bed.a2.listen(8080):
        traffic.dial_is_cut(bed.u1, bed.a2.ip(v6), 8080)


@cores("policy-deny-by-port")
def denied_port(bed, v6):
    with bed.b2.listen(PROBE_PORT):
        traffic.dial_is_cut(bed.a1, bed.b2.ip(v6), PROBE_PORT)
    with pair(bed.a2, bed.b2, port=PROBE_PORT, v6=v6) as (c, s):
        traffic.echo(c, s)


@cores("policy-strict")
def strict(bed, v6):
    with bed.b2.listen(STRICT_PORT):
        traffic.dial_is_cut(bed.u1, bed.b2.ip(v6), STRICT_PORT)
    with pair(bed.a1, bed.b2, port=STRICT_PORT, v6=v6) as (c, s):
        traffic.echo(c, s)


@cores("policy-change-cuts-live-connections")
def live(bed, v6):
    not_ztunnel(bed, "reads its file once")
    with pair(bed.a1, bed.b1, v6=v6) as (c, s), pair(bed.u1, bed.b1, port=8081, v6=v6) as (plain, plain_s), \
            pair(bed.a2, bed.b1, port=8082, v6=v6) as (other, other_s):
        traffic.echo(c, s)
        traffic.echo(plain, plain_s)
        traffic.echo(other, other_s)
        saved = (list(bed.mesh.policies), list(bed.mesh.workload("b1").get("authorizationPolicies", [])))
        bed.mesh.policy("late", "Deny", [[[{"principals": [Exact("cluster.local/ns/default/sa/sa-a1")]}]],
                                         [[{"notPrincipals": [Presence()]}]]], ["b1"])
        bed.mesh.save()
        try:
            traffic.is_cut(c)
            traffic.is_cut(s)
            traffic.is_cut(plain)
            traffic.echo(other, other_s)
        finally:
            bed.mesh.policies, bed.mesh.workload("b1")["authorizationPolicies"] = saved
            bed.mesh.save()

        def again():
            with bed.b1.listen(8083) as listener:
                listener.settimeout(2)  # nothing comes while the old file is in force
                with pair(bed.a1, bed.b1, port=8083, v6=v6, timeout=3, listener=listener) as (c, s):
                    traffic.echo(c, s)
            return True

        until(again, "the connection to be allowed again")


# --- HBONE by hand -----------------------------------------------------------------------------------------


def hbone(bed, v6, pod=None, cert=None, ca=None, **kw):
    return h2.Client(bed.u1, (pod or bed.b1).ip(v6), ca or bed.ca, cert or bed.cert(bed.a1.spiffe), **kw)


def authority(bed, v6, port=8080, pod=None):
    return net.authority((pod or bed.b1).ip(v6), port)


@tunnels("hbone-connect")
def hbone_connect(bed, v6):
    with bed.b1.listen(8080) as listener, hbone(bed, v6) as h:
        stream = h.connect(authority(bed, v6))
        s, _ = listener.accept()
        with s:
            equal(h.status(stream), "200", "status")
            equal(peer(s), bed.u1.ip(v6), "the address that the server sees")
            h.data(stream, b"ping")
            equal(s.recv(100), b"ping", "the server read")
            s.sendall(b"pong")
            equal(h.read(stream, 4), b"pong", "the client read")
            h.data(stream, b"", end=True)
            equal(s.recv(100), b"", "end of file")
            s.shutdown(socket.SHUT_WR)
            kind, flags, _, _ = h.event(stream)
            equal((kind, flags & h2.END_STREAM), (h2.DATA, h2.END_STREAM), "the stream's end")


CONNECT = [(":method", "CONNECT")]
GET = [(":method", "GET"), (":scheme", "https"), (":path", "/")]
STATUSES = [
    # row, request's fields (AUTH: this pod's authority), wanted, ztunnel's where ours differs on purpose
    ("ip-mismatch", lambda b: CONNECT + [(":authority", b.b2.ip4 + ":8080")], {"400"}),
    ("not-connect", lambda b: GET + [(":authority", b.b1.ip4 + ":8080")], {"400"}),
    ("no-authority", lambda b: CONNECT, {"RST 1", "400"}),
    ("no-port", lambda b: CONNECT + [(":authority", b.b1.ip4)], {"400"}),
    ("app-not-listening", lambda b: CONNECT + [(":authority", b.b1.ip4 + ":7777")], {"503"}),
    ("own-port-15001", lambda b: CONNECT + [(":authority", b.b1.ip4 + ":15001")], {"503"}),
    ("own-port-15006", lambda b: CONNECT + [(":authority", b.b1.ip4 + ":15006")], {"503"}),
    ("own-port-15008", lambda b: CONNECT + [(":authority", b.b1.ip4 + ":15008")], {"503"}),
    ("hostname", lambda b: CONNECT + [(":authority", b.host + ":80")], {"200"}),
    ("hostname-named-port", lambda b: CONNECT + [(":authority", "named.default.svc.cluster.local:81")], {"200"}),
    ("hostname-unknown", lambda b: CONNECT + [(":authority", "nobody.default.svc.cluster.local:80")], {"503"}),
    ("hostname-wrong-port", lambda b: CONNECT + [(":authority", b.host + ":99")], {"503"}),
    ("with-path", lambda b: CONNECT + [(":path", "/"), (":authority", b.b1.ip4 + ":8080")], {"RST 1", "400"}),
    ("with-scheme", lambda b: CONNECT + [(":scheme", "https"), (":authority", b.b1.ip4 + ":8080")], {"RST 1", "400"}),
    ("authority-garbage", lambda b: CONNECT + [(":authority", "a b:80")], {"RST 1", "400"}),
    ("bad-traceparent", lambda b: CONNECT + [(":authority", b.b1.ip4 + ":8080"), ("traceparent", "00-" + "0" * 52)],
     {"200"}, "closes the connection"),
    ("hostname-of-a-service-without-this-pod",
     lambda b: CONNECT + [(":authority", "alien.default.svc.cluster.local:80")], {"503"}, "does not check membership"),
]


def status_row(bed, request, want, ours_only=None):
    if ours_only:
        not_ztunnel(bed, ours_only)
    with bed.b1.listen(8080), hbone(bed, False) as h:
        got = h.status(h.request(request(bed)))
        check(got in want, f"status {got}, want {' or '.join(sorted(want))}")


for kind in BEDS:
    for name, *rest in STATUSES if not kind.startswith("local") else ():
        T.row(f"{kind}/hbone-{name}", BEDS[kind], *rest)(status_row)


@tunnels("hbone-hostname-with-proxy-header")
def hbone_proxy(bed, v6):
    """The application behind a host name learns the service's address and port, not a name's zero address."""
    not_ztunnel(bed, "reads its file once")
    a2, agent = bed.mesh.workload("a2"), bed.a2.node.agent
    seen = lambda: any(w["name"] == "a2" and w.get("applicationTunnel") for w in agent.config_dump()["workloads"])
    a2["applicationTunnel"] = {"protocol": "PROXY", "port": 7070}
    bed.mesh.save()
    try:
        until(seen, "the application tunnel in the dump")
        with bed.a2.listen(7070) as listener, hbone(bed, v6, bed.a2) as h:
            stream = h.connect("wrapped.default.svc.cluster.local:80")
            s, _ = listener.accept()
            with s:
                equal(h.status(stream), "200", "status")
                src, dst, _ = traffic.proxy_header(s)
                # A VIP of IPv4 is preferred, and is one of IPv6 beside a client of that family.
                vip = "::ffff:10.72.0.4" if v6 else "10.72.0.4"
                equal((src[0], dst), (bed.u1.ip(v6), (vip, 80)), "source and destination")
    finally:
        del a2["applicationTunnel"]
        bed.mesh.save()
        until(lambda: not seen(), "the application tunnel to go")


@tunnels("hbone-data-before-a-reset", "v4")
def hbone_data_before_reset(bed, v6):
    """What came before a reset is the application's before it. One that takes nothing is reset all the same, soon."""
    not_ztunnel(bed, "turns a reset into an end of file")
    size = 200000  # of which its socket's buffer holds a part
    for reads in True, False:
        agent = bed.b1.node.agent
        since = len(agent.log())
        with bed.b1.listen(8080, rcvbuf=1 << 14) as listener, hbone(bed, v6) as h:
            stream = h.connect(authority(bed, v6))
            s, _ = listener.accept()
            with s:
                equal(h.status(stream), "200", "status")
                for at in range(0, size, 10000):
                    h.data(stream, bytes(10000))
                h.wire.send(h2.RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4, "big"))
                if reads:
                    equal(traffic.sees_reset(s), size, "bytes before the reset")
                until(lambda: agent.access(since, error="CANCEL", direction="inbound"), "the connection's end in the log", 5)
                if not reads:
                    check(traffic.sees_reset(s) < size, "all was delivered: nothing stalled")


@tunnels("hbone-denied-by-policy")
def hbone_denied(bed, v6):
    with bed.b2.listen(PROBE_PORT), hbone(bed, v6, bed.b2) as h:
        equal(h.status(h.connect(authority(bed, v6, PROBE_PORT, bed.b2))), "401", "status")


@tunnels("hbone-connection-survives-refusals", "v4")
def hbone_survives(bed, v6):
    """After each kind of refusal the next CONNECT of the same HTTP/2 connection is served."""
    with bed.b1.listen(8080), hbone(bed, v6) as h:
        for name, request, *_ in STATUSES[:8]:
            h.status(h.request(request(bed)))
            equal(h.status(h.connect(authority(bed, v6))), "200", f"status after {name}")


def tls_refused(bed, **kw):
    """The handshake fails, or the connection ends before any answer."""
    try:
        with hbone(bed, False, **kw) as h:
            got = h.status(h.connect(authority(bed, False)))
    except (ssl.SSLError, ConnectionError) as e:
        return str(e)
    raise AssertionError(f"answered {got}")


@tunnels("tls-other-trust-domain", "v4")
def trust_domain(bed, v6):
    tls_refused(bed, cert=bed.cert("spiffe://other.test/ns/default/sa/sa-a1"))


@tunnels("tls-two-names-own-trust-domain-second", "v4")
def two_names(bed, v6):
    not_ztunnel(bed, "takes the identity from the first name and the trust domain from any")
    tls_refused(bed, cert=bed.ca.leaf("URI:spiffe://other.test/ns/default/sa/root,"
                                      "URI:spiffe://cluster.local/ns/default/sa/sa-a1"))


@tunnels("tls-identity-of-no-service-account", "v4")
def no_account(bed, v6):
    """Of the trust domain, but nobody whom a policy could name."""
    tls_refused(bed, cert=bed.cert("spiffe://cluster.local/machine/one"))
    tls_refused(bed, cert=bed.cert("spiffe://cluster.local/ns/default/sa/sa-a1/more"))


@tunnels("tls-no-client-certificate", "v4")
def no_certificate(bed, v6):
    try:
        with trusting().wrap_socket(bed.u1.connect(bed.b1.ip4, 15008)) as s:
            s.sendall(h2.PREFACE)
            equal(read_all(s), b"", "what a client without a certificate reads")
    except (ssl.SSLError, ConnectionError):
        pass


@tunnels("tls-foreign-ca", "v4")
def foreign_ca(bed, v6):
    os.makedirs(f"{bed.folder}/foreign", exist_ok=True)
    tls_refused(bed, cert=Ca(f"{bed.folder}/foreign", "foreign").leaf(f"URI:{bed.a1.spiffe}"))


@tunnels("tls-no-spiffe-name", "v4")
def no_spiffe(bed, v6):
    tls_refused(bed, cert=bed.ca.leaf("DNS:somebody"))


@tunnels("tls-server-only-certificate", "v4")
def wrong_usage(bed, v6):
    tls_refused(bed, cert=bed.cert(bed.a1.spiffe, usage="serverAuth"))


@tunnels("tls-alpn-without-h2", "v4")
def alpn(bed, v6):
    tls_refused(bed, alpn=["http/1.1"])


@tunnels("plaintext-to-15008", "v4")
def plaintext_hbone(bed, v6):
    got = traffic.outcome(bed.u1, bed.b1.ip4, 15008, b"GET / HTTP/1.1\r\n\r\n")
    check(got in ("closed", "refused") or got[:1] == b"\x15", f"answered {got!r}")


# --- calls to the agent's own ports ----------------------------------------------------------------------------

OWN_PORTS = (15000, 15001, 15006, 15008, 15020, 15021, 15053, 15080)


@cores("malicious-calls")
def malicious(bed, v6):
    """From outside, from the pod itself, and through the mesh: refused, closed, dropped or a TLS alert; nothing loops."""
    agents, node = bed.agents, bed.net.nodes[0]
    before = [a.fds() for a in agents]
    for who, ip in ((bed.u1, bed.a1.ip(v6)), (bed.a1, bed.a1.ip(v6)), (bed.a1, "::1" if v6 else "127.0.0.1"),
                    (bed.b1, bed.a1.ip(v6)), (bed.a1, node.wan6 if v6 else node.wan4), (bed.b1, node.wan6 if v6 else node.wan4)):
        for port in OWN_PORTS:
            if ip in (node.wan4, node.wan6) and port in (15020, 15021):
                continue  # metrics and readiness are for all
            got = traffic.outcome(who, ip, port, b"GET / HTTP/1.1\r\n\r\n", timeout=8)
            if port == 15053 and who is bed.a1 and got == "silent":
                continue  # the pod's own resolver, which waits for the rest of a query
            check(got in ("refused", "closed", "dropped") or got[:1] == b"\x15" or got[:12] == b"HTTP/1.1 400",
                  f"{who.name} to {ip}:{port}: {got!r}")
    until(lambda: all(a.fds() <= n + 8 for a, n in zip(agents, before)), "the calls' descriptors to be closed", 15)
    with pair(bed.b1, bed.a1, v6=v6) as (c, s):
        traffic.echo(c, s)


if __name__ == "__main__":
    T.main()
