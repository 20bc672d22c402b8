#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The DNS proxy: what the mesh knows is answered from it, over UDP and TCP; all else is the resolver's, asked from the pod's
namespace. A resolver that is dead or slow costs nobody but who asked it."""
import contextlib
import os
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import dns, traffic
from lib.bed import VIP4, VIP6, kinds, not_ztunnel
from lib.dns import A, AAAA, CNAME, FORMERR, NOERROR, NOTIMP, NXDOMAIN, SERVFAIL, SOA, TXT, query
from lib.dns_bed import DEEP, DUAL, FOUR, HIDDEN, MANY, OWN, WILD, WWW, fixture
from lib.net import scale
from lib.rows import FAMILIES, V6, Table, check, equal, until

T = Table(__file__)
K = ".svc.cluster.local"
BEDS = {k: fixture(k) for k in kinds()}
POD_LIMIT, POD_CONNECTIONS, CONNECTION_QUERIES, IDLE = 256, 64, 32, 5  # dns_query.h
HUGE = 234 * 256  # bytes of an answer


def each(name):
    return T.each(BEDS, name, FAMILIES)


def slow(name):
    """Rows that mostly wait: with one family."""
    return T.each(BEDS, name, (V6,))


def both(bed, v6, name, qtype=A, pod=None, **kw):
    """The same question over UDP and over TCP: the two answers."""
    server = bed.u1.ip(v6)
    return [ask(pod or bed.a1, server, query(name, qtype, **kw)) for ask in (dns.udp, dns.tcp)]


def known(bed, v6, name, *want, qtype=A, pod=None, alias=None):
    """It is answered from the mesh, with these addresses."""
    before = bed.resolver.count(name.lower(), qtype)
    for m in both(bed, v6, name, qtype, pod):
        check(m, f"{name}: no answer")
        equal((m.rcode, m.addresses(), m.aa, m.ra, m.tc), (NOERROR, sorted(want), True, True, False), name)
        equal([x for x in m.answers if x[1] == CNAME], [(name, CNAME, 30, alias)] if alias else [], f"{name}: alias")
        check(all(ttl == 30 for _, _, ttl, _ in m.answers), f"{name}: lifetimes {m.answers}")
    equal(bed.resolver.count(name.lower(), qtype), before, f"{name}: queries that the resolver saw")


@each("service")
def service(bed, v6):
    for name in (f"web.default{K}", "web", "web.default", "web.default.svc"):
        known(bed, v6, name, VIP4)
        known(bed, v6, name, VIP6, qtype=AAAA)
    known(bed, v6, "web.default", VIP4, pod=bed.a2)


@each("service-outside")
def outside(bed, v6):
    known(bed, v6, "www.example.test", WWW)
    known(bed, v6, "dual.example.test", DUAL[0])
    known(bed, v6, "dual.example.test", DUAL[1], qtype=AAAA)


@each("search-domain")
def search(bed, v6):
    for end in (f".default{K}", K, ".cluster.local"):
        known(bed, v6, f"www.example.test{end}", WWW, alias="www.example.test")
    known(bed, v6, f"www.example.test.other{K}", WWW, pod=bed.a2, alias="www.example.test")


@each("wildcard")
def wildcard(bed, v6):
    known(bed, v6, "a.wild.test", WILD)
    known(bed, v6, "a.b.wild.test", WILD)
    known(bed, v6, "a.deep.wild.test", DEEP)
    known(bed, v6, f"a.wild.test.default{K}", WILD)


@each("headless")
def headless(bed, v6):
    known(bed, v6, "db", "10.74.0.1", "10.74.0.2")
    known(bed, v6, f"db.default{K}", "fd74::1", "fd74::2", qtype=AAAA)


@each("visibility")
def visibility(bed, v6):
    known(bed, v6, "own", OWN)
    known(bed, v6, f"hidden.other{K}", HIDDEN, pod=bed.a2)
    for pod, name in ((bed.a1, f"hidden.other{K}"), (bed.a2, f"own.default{K}")):
        for m in both(bed, v6, name, pod=pod):
            equal(m.rcode, NXDOMAIN, f"{name}: the resolver does not know it")


@each("pod-names")
def pods(bed, v6):
    not_ztunnel(bed, "does not know pods' names")
    for name in (f"db-1.db.default{K}", "db-1.db", "db-1.db.default", f"10-74-0-2.db.default{K}", "10-74-0-2.default.pod.cluster.local"):
        known(bed, v6, name, "10.74.0.2")
    known(bed, v6, f"db-1.db.default{K}", "fd74::2", qtype=AAAA)
    for m in both(bed, v6, f"db-9.db.default{K}"):
        equal(m.rcode, NXDOMAIN, "a pod that is not there is the resolver's to know")


@each("no-such-address-has-a-soa")
def empty(bed, v6):
    not_ztunnel(bed, "leaves SOA out")
    for name, qtype, zone in ((f"four.default{K}", AAAA, "cluster.local"), ("www.example.test", AAAA, "www.example.test"),
                              ("nobody", A, "nobody")):
        for m in both(bed, v6, name, qtype):
            equal((m.rcode, m.answers, m.aa), (NOERROR, [], True), name)
            equal([(owner, rtype, ttl, data[-1]) for owner, rtype, ttl, data in m.authority], [(zone, SOA, 5, 5)], f"{name}: SOA")
    known(bed, v6, "four", FOUR)


@each("case-is-kept")
def case(bed, v6):
    not_ztunnel(bed, "answers in lower case")
    for m in both(bed, v6, "WeB.dEfault"):
        equal((m.questions[0][0], m.answers[0][0], m.addresses()), ("WeB.dEfault", "WeB.dEfault", [VIP4]), "names")
    for _ in range(2):
        for m in both(bed, v6, "OuT.test"):
            equal((m.questions[0][0], m.addresses()), ("OuT.test", ["192.0.2.1", "192.0.2.2"]), "names")


@each("forwarded")
def forwarded(bed, v6):
    """As the resolver answers, and it sees the pod."""
    for m in both(bed, v6, "out.test"):
        equal((m.rcode, m.addresses(), m.aa, m.ra), (NOERROR, ["192.0.2.1", "192.0.2.2"], False, True), "out.test")
    for m in both(bed, v6, "out.test", AAAA):
        equal(m.addresses(), ["2001:db8::1"], "out.test, IPv6")
    for m in both(bed, v6, "out.test", TXT):
        equal([x[3] for x in m.answers], [b"\5hello"], "out.test, TXT")
    for m in both(bed, v6, "alias.out.test"):
        equal([x[1] for x in m.answers], [CNAME, A], "alias.out.test")
    sources = {source for name, _, _, source, _ in bed.resolver.seen if name == "out.test"}
    check(sources <= {bed.a1.ip4, bed.a1.ip6}, f"asked from {sources}")


@each("forwarded-negative")
def negative(bed, v6):
    """The resolver's SOA goes with it."""
    for name, rcode in (("nothing.test", NXDOMAIN), (f"web.nowhere{K}", NXDOMAIN), ("four.out.test", NOERROR)):
        for m in both(bed, v6, name, A if rcode else AAAA):
            equal((m.rcode, m.answers), (rcode, []), name)
            if "ztunnel" not in bed.kinds:
                equal([x[1] for x in m.authority], [SOA], f"{name}: authority")
    for m in both(bed, v6, f"web.default{K}", TXT):
        equal(m.rcode, NXDOMAIN, "other types are the resolver's")


@each("truncation")
def truncation(bed, v6):
    """What does not fit says so, and comes over TCP."""
    not_ztunnel(bed, "sends up to 4096 bytes to who did not ask for them")
    server = bed.u1.ip(v6)
    for name, n in ((f"many.default{K}", MANY), ("big.out.test", 100)):
        m = dns.udp(bed.a1, server, query(name))
        check(m.tc and m.size <= 512, f"{name}: {m.size} bytes, TC {m.tc}")
        m = dns.tcp(bed.a1, server, query(name))
        equal((len(m.addresses()), m.tc), (n, False), name)
    m = dns.udp(bed.a1, server, query("many"))
    check(len(m.addresses()) > 20, "as many as fit go with it")


@each("edns")
def edns(bed, v6):
    not_ztunnel(bed, "has EDNS of its own in all answers")
    server = bed.u1.ip(v6)
    m = dns.udp(bed.a1, server, query("many", edns=1232, dnssec=True))
    equal((len(m.addresses()), m.tc, m.edns), (MANY, False, (1232, 0, True)), "1232 bytes")
    m = dns.udp(bed.a1, server, query("many", edns=600))
    check(m.tc and m.size <= 600 and m.edns == (600, 0, False), f"600 bytes: {m.size}, TC {m.tc}, {m.edns}")
    m = dns.udp(bed.a1, server, query("web"))
    equal(m.edns, None, "EDNS that nobody asked for")
    m = dns.udp(bed.a1, server, query("big.out.test", edns=4096, dnssec=True))
    equal((len(m.addresses()), m.edns), (100, (1232, 0, True)), "the resolver's own")
    seen = [q for name, _, _, _, q in bed.resolver.seen if name == "big.out.test"][-1]
    equal(seen.edns, (4096, 0, True), "the resolver saw")


@each("cache")
def cache(bed, v6):
    """An answer is kept for its pod, and gets older."""
    r, name = bed.resolver, f"cached-{v6:d}.out.test"
    r.add(name, "192.0.2.7", ttl=100)

    def asked(pod, **kw):
        return dns.udp(pod, bed.u1.ip(v6), query(name, **kw)).answers

    equal([x[2:] for x in asked(bed.a1)], [(100, "192.0.2.7")], "the first")
    for _ in range(40):
        asked(bed.a1)
    # More than one thread answers, and each has a cache of its own.
    check(r.count(name) <= 4, f"{r.count(name)} of 41 queries went to the resolver")
    until(lambda: asked(bed.a1)[0][2] < 100, "a lifetime that is shorter", 5)
    count = r.count(name)
    equal(asked(bed.a2)[0][3], "192.0.2.7", "another pod")
    check(r.count(name) > count, "another pod was answered from what the first one had asked for")
    if "ztunnel" not in bed.kinds:
        check(bed.a1.node.agent.metric("culvert_dns_cached_total") > 30, "the metric")


@slow("cache-ends")
def cache_ends(bed, v6):
    r = bed.resolver
    server = bed.u1.ip(v6)
    dns.udp(bed.a1, server, query("short.out.test"))
    count = r.count("short.out.test")

    def again():
        m = dns.udp(bed.a1, server, query("short.out.test"))
        check(m.answers[0][2] <= 2, "a lifetime has grown")
        return r.count("short.out.test") > count + 1

    until(again, "the resolver to be asked again", 8)


@each("failures")
def failures(bed, v6):
    for m in both(bed, v6, "broken.test"):
        equal(m.rcode, SERVFAIL, "the resolver's own failure")
    agent = bed.a1.node.agent
    check(agent.metric("istio_dns_upstream_failures_total", source_canonical_service="a1") > 0, "the metric")


@T.each({k: v for k, v in BEDS.items() if k == "culvert"}, "resolver-that-is-not-there", FAMILIES)
def dead(bed, v6):
    """Port 53 is closed: told at once. The mesh's names are answered all the same."""
    server, begin = bed.a2.ip(v6), time.monotonic()
    m = dns.udp(bed.a1, server, query("out.test"))
    check(m and m.rcode == SERVFAIL, f"over UDP: {m and m.rcode}")
    m = dns.tcp(bed.a1, server, query("out.test"))
    equal(m.rcode, SERVFAIL, "over TCP")
    check(time.monotonic() - begin < scale.deadline(3), "it took too long")
    for ask in (dns.udp, dns.tcp):
        equal(ask(bed.a1, server, query("web")).addresses(), [VIP4], "a name of the mesh")


@slow("silent-resolver-holds-up-nobody")
def silent(bed, v6):
    """A pod has as many queries under way as it may have; others, and names of the mesh, do not wait for them."""
    not_ztunnel(bed, "has no limit for a pod")
    server, agent = bed.u1.ip(v6), bed.a1.node.agent
    before = agent.metric("culvert_dns_queries_dropped_total")
    with bed.a1.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((server, 53))

        def beyond():
            for _ in range(50):  # all at once they would not fit into the socket
                s.send(query("silent.test"))
            return agent.metric("culvert_dns_queries_dropped_total") >= before + 100

        until(beyond, "the limit to be reached", 4)
        check(bed.resolver.count("silent.test") >= POD_LIMIT, "the limit came too early")
        begin = time.monotonic()
        name = f"fresh-{v6:d}.out.test"
        bed.resolver.add(name, "192.0.2.3")
        for m in both(bed, v6, name, pod=bed.a2):
            equal(m.addresses(), ["192.0.2.3"], "another pod's query")
        for m in both(bed, v6, "web"):
            equal(m.addresses(), [VIP4], "a name of the mesh")
        check(time.monotonic() - begin < scale.deadline(2), "they had to wait")
        until(lambda: beyond() and dns.tcp(bed.a1, server, query(f"x{name}")).rcode == SERVFAIL, "a refusal over TCP", 4)
        s.settimeout(scale.deadline(9))
        equal(dns.Message(s.recv(512)).rcode, SERVFAIL, "in the end")
    until(lambda: any("as many as a pod may have" in x.get("message", "") for x in agent.lines()), "a line in the log")
    equal(dns.udp(bed.a1, server, query("out.test")).addresses(), ["192.0.2.1", "192.0.2.2"], "afterwards")


@each("many-queries-on-a-connection")
def pipelined(bed, v6):
    """They are answered as answers come, not in their order."""
    names = ["silent.test", "web", "out.test", f"db.default{K}", "nothing.test"]
    asked = b"".join(struct.pack(">H", len(q)) + q for q in (query(n, ident=i) for i, n in enumerate(names)))

    def answers():
        with bed.a1.connect(bed.u1.ip(v6), 53) as s:
            s.sendall(asked)
            got = {m.id: m for m in (dns.recv_message(s) for _ in names[1:])}
        equal(sorted(got), [1, 2, 3, 4], "answered")
        equal(got[1].addresses(), [VIP4], "web")
        return got

    # Silent queries of the row before may fill the pod's number for some seconds.
    until(lambda: answers()[4].rcode == NXDOMAIN, "the resolver's answer for nothing.test")


@each("connection-byte-by-byte")
def bytewise(bed, v6):
    msg = query("web.default")
    with bed.a1.connect(bed.u1.ip(v6), 53) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for b in struct.pack(">H", len(msg)) + msg:
                s.send(bytes([b]))
            equal(dns.recv_message(s).addresses(), [VIP4], "web.default")
        s.shutdown(socket.SHUT_WR)
        equal(s.recv(10), b"", "after its end")


@slow("idle-connection-is-closed")
def idle(bed, v6):
    with contextlib.ExitStack() as stack:
        some = [stack.enter_context(bed.a1.connect(bed.u1.ip(v6), 53)) for _ in range(3)]
        some[1].sendall(b"\0")
        dns.send_message(some[2], query("web"))
        dns.recv_message(some[2])
        begin = time.monotonic()
        for s in some:
            traffic.is_cut(s, scale.deadline(IDLE + 3))
        check(time.monotonic() - begin > 3, "they were cut too early")


@each("connections-have-a-limit")
def connections(bed, v6):
    not_ztunnel(bed, "has no limit for a pod")
    counts = []

    def served():
        with contextlib.ExitStack() as stack:
            some = []
            for _ in range(POD_CONNECTIONS + 5):
                with contextlib.suppress(ConnectionResetError):
                    some.append(stack.enter_context(bed.a1.connect(bed.u1.ip(v6), 53)))
            answered = 0
            for s in some:
                with contextlib.suppress(OSError):
                    dns.send_message(s, query("web"))
                    answered += dns.recv_message(s).addresses() == [VIP4]
            equal(dns.tcp(bed.a2, bed.u1.ip(v6), query("web.default")).addresses(), [VIP4], "another pod's")
        counts.append(answered)
        return answered == POD_CONNECTIONS

    until(served, "as many as there may be: those of the row before have to end first")
    equal(max(counts), POD_CONNECTIONS, "connections that are served at the most")


@each("reader-that-does-not-read")
def unread(bed, v6):
    """A client that only asks is not read from any more, and what it is owed stays bounded."""
    with bed.a1.connect(bed.u1.ip(v6), 53, rcvbuf=4096) as s:
        msg = query(f"many.default{K}")
        sent = traffic.Task(flood, s, struct.pack(">H", len(msg)) + msg)
        equal(dns.tcp(bed.a1, bed.u1.ip(v6), query("web")).addresses(), [VIP4], "another connection")
        check(sent.result() < 16 << 20, "it went on reading")


def huge(bed, v6, n, **kw):
    """A connection on which `n` queries have huge answers."""
    bed.resolver.names["huge.test", TXT] = [dns.record("huge.test", TXT, 300, (b"\xff" + bytes(255)) * (HUGE // 256))]
    s = bed.a1.connect(bed.u1.ip(v6), 53, **kw)
    msg = query("huge.test", TXT)
    s.sendall((struct.pack(">H", len(msg)) + msg) * n)
    return s


@each("answers-that-pile-up")
def piled(bed, v6):
    """A client that reads has all of them. Where none do, some are kept, and connections end for the others."""
    not_ztunnel(bed, "keeps them all")
    with huge(bed, v6, CONNECTION_QUERIES) as s:
        for _ in range(CONNECTION_QUERIES):
            check(dns.recv_message(s).size > HUGE, "the answer")
    with contextlib.ExitStack() as stack:
        some = []

        def ended():  # queries of the rows before may leave no room for as many as it takes
            if len(some) < POD_CONNECTIONS // 2:
                some.append(stack.enter_context(huge(bed, v6, CONNECTION_QUERIES, rcvbuf=4096)))
            return any(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for s in some)

        until(ended, "a connection to end")
    check(bed.a1.node.agent.metric("culvert_limits_reached_total", limit="dns_answers_of_a_pod") > 0, "the limit is counted")


@slow("reader-that-takes-a-little")
def little(bed, v6):
    """It has as long for an answer as for anything; a few bytes do not make it longer."""
    not_ztunnel(bed, "has no such limit")
    begin = time.monotonic()
    with huge(bed, v6, CONNECTION_QUERIES, rcvbuf=4096) as s, contextlib.suppress(ConnectionResetError):
        while s.recv(1024):
            time.sleep(0.3)
            check(time.monotonic() - begin < scale.deadline(IDLE + 5), "it is still served")


def flood(s, data):
    s.settimeout(1)
    n = 0
    with contextlib.suppress(OSError):
        while n < 64 << 20:
            n += s.send(data * 1000)
    return n


@each("wrong-messages")
def wrong(bed, v6):
    server = bed.u1.ip(v6)
    head = struct.pack(">6H", 7, dns.RD, 1, 0, 0, 0)
    for name, msg, rcode in (("cut", head + b"\7abc", FORMERR), ("opcode", query("web", flags=dns.RD | 2 << 11), NOTIMP),
                             ("no question", struct.pack(">6H", 7, dns.RD, 0, 0, 0, 0), SERVFAIL)):
        for ask in (dns.udp, dns.tcp):
            m = ask(bed.a1, server, msg)
            check(m and m.rcode == rcode, f"{name}, {ask.__name__}: {m and m.rcode}")
    for name, msg in (("response", query("web", flags=dns.QR)), ("short", b"\0\7\0\0")):
        equal(dns.udp(bed.a1, server, msg, timeout=0.3), None, name)
    equal(dns.udp(bed.a1, server, query("web")).addresses(), [VIP4], "afterwards")


@each("metrics")
def metrics(bed, v6):
    agent = bed.a1.node.agent
    labels = {"request_query_type": "a", "source_canonical_service": "a1", "source_canonical_revision": "v1"}

    def counts(protocol):
        return [agent.metric(f"istio_dns_{x}_total", request_protocol=protocol, **labels) for x in ("requests", "upstream_requests")]

    for protocol, ask in (("udp", dns.udp), ("tcp", dns.tcp)):
        before = counts(protocol)
        ask(bed.a1, bed.u1.ip(v6), query("web"))
        ask(bed.a1, bed.u1.ip(v6), query("out.test"))
        equal([b - a for a, b in zip(before, counts(protocol))], [2, 1], f"{protocol}: requests, of them forwarded")
    check(agent.metric("istio_dns_upstream_request_duration_seconds_count", **labels) > 0, "durations")


@T.row("pod-that-the-mesh-learns-of", fixture("culvert", {"RUST_LOG": "info,dns=debug"}))
def late(bed):
    server = bed.u1.ip4
    known_a2 = bed.mesh.workload("a2")
    bed.mesh.workloads.remove(known_a2)
    bed.mesh.save()
    until(lambda: "other/a2" not in str(bed.a1.node.agent.config_dump()["workloads"]), "the mesh without it")
    begin = time.monotonic()
    m = dns.udp(bed.a2, server, query("out.test"))
    equal(m.addresses(), ["192.0.2.1", "192.0.2.2"], "answered by the resolver in the end")
    check(1 < time.monotonic() - begin < scale.deadline(4), "not at once")
    waiting = traffic.Task(dns.udp, bed.a2, server, query("www.example.test"))
    bed.mesh.workloads.append(known_a2)
    bed.mesh.save()
    equal(waiting.result().addresses(), [WWW], "the query that waited")
    line = until(lambda: next((x for x in bed.a1.node.agent.lines() if x.get("scope") == "dns" and x.get("domain") == "www.example.test"), None),
                 "a line in the log")
    equal([line[k] for k in ("src.workload", "src.namespace", "query", "result", "endpoints")], ["a2", "other", "a", "success", 1], "the line")


@T.row("without-the-proxy", fixture("culvert", {"ISTIO_META_DNS_CAPTURE": "false"}))
def off(bed):
    """All queries are passed on as they are."""
    for v6 in FAMILIES:
        for m in both(bed, v6, f"web.default{K}"):
            equal(m.rcode, NXDOMAIN, "the resolver does not know it")
        for m in both(bed, v6, "out.test", edns=1232):
            equal(m.addresses(), ["192.0.2.1", "192.0.2.2"], "the resolver's")


@T.row("without-ipv6", fixture("culvert", {"IPV6_ENABLED": "false"}))
def without_ipv6(bed):
    m = dns.udp(bed.a1, bed.u1.ip4, query("dual.example.test", AAAA))
    equal((m.rcode, m.answers, len(m.authority)), (NOERROR, [], 1), "no IPv6 addresses")
    equal(dns.udp(bed.a1, bed.u1.ip4, query("dual.example.test")).addresses(), [DUAL[0]], "IPv4")


@T.row("queries-that-fail-at-once", fixture("culvert", {"ZTUNNEL_WORKER_THREADS": "1"}))
def at_once(bed):
    """The pod lets no connection out, asks without a pause and takes what it gets: others have their turn all the same."""
    over = threading.Event()

    def ask(s, many):
        while not over.is_set():
            s.sendall(many)

    def take(s):
        while s.recv(1 << 18):
            pass

    with bed.a1.socket() as held:
        held.bind(("", 40000))
        bed.a1.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40000")
        with bed.a1.connect(bed.u1.ip4, 53, source_port=50000) as s:
            msg = query("out.test")
            tasks = [traffic.Task(ask, s, (struct.pack(">H", len(msg)) + msg) * 1000), traffic.Task(take, s)]
            try:
                for _ in range(20):
                    m = dns.udp(bed.a2, bed.u1.ip4, query("web.default"), scale.deadline(1))
                    check(m and m.addresses() == [VIP4], "another pod's query")
                    time.sleep(0.1)
                check(all(t.is_alive() for t in tasks), "the connection ended")
            finally:
                over.set()
                s.shutdown(socket.SHUT_RDWR)


@T.row("another-domain", fixture("culvert", {"CLUSTER_DOMAIN": "Mesh.Test"}))
def domain(bed):
    m = dns.udp(bed.a1, bed.u1.ip4, query("web"))
    equal(m.rcode, NXDOMAIN, "web.default.svc.mesh.test is not there")
    m = dns.udp(bed.a1, bed.u1.ip4, query("www.example.test.default.svc.mesh.test"))
    equal([x[1] for x in m.answers], [CNAME, A], "its search domain")


if __name__ == "__main__":
    T.main()
