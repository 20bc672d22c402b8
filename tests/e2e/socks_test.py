#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SOCKS5 (UNSTABLE_ENABLE_SOCKS5): at 127.0.0.1:15080 of each pod, what is asked for goes where a captured connection would go. The
client gets its answer when the connection is there, or why it is not."""
import contextlib
import os
import shutil
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.bed import VIP4, VIP6, fixture, kinds, not_ztunnel, places
from lib.mesh import Exact
from lib.net import PATIENCE, read_all, read_exactly, scale
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
PORT = 15080
METHODS, CHOSEN = b"\5\1\0", b"\5\0"
OK, FAILED, UNREACHABLE, UNSUPPORTED = 0, 1, 4, 7


def prepare(bed):
    """A name that only the node's resolver knows, and a pod that serves a1 alone."""
    node = bed.net.nodes[0]
    etc = f"/etc/netns/{node.ns}"
    os.makedirs(etc)
    bed.stack.callback(shutil.rmtree, etc)
    with open(f"{etc}/hosts", "w") as f:
        f.write(f"127.0.0.1 localhost\n::1 localhost\n{bed.u1.ip4} outside.test\n{bed.u1.ip6} six.test\n")
    with open(f"{etc}/resolv.conf", "w") as f:
        f.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    bed.mesh.policy("only-a1", "Allow", [[[{"principals": [Exact("cluster.local/ns/default/sa/sa-a1")],
                                            "sourceIps": [f"{bed.a1.ip4}/32", f"{bed.a1.ip6}/128"]}]]], ["a2"])


BEDS = {k: fixture(k, k, env={"UNSTABLE_ENABLE_SOCKS5": "true"}, prepare=prepare) for k in places()}


def each(name):
    return T.each(BEDS, name)


def families(name):
    return T.each(BEDS, name, FAMILIES)


def request(to, port, command=1):
    """CONNECT, or another command, for an address or a name."""
    if ":" in to:
        address = b"\4" + socket.inet_pton(socket.AF_INET6, to)
    elif to.replace(".", "").isdigit():
        address = b"\1" + socket.inet_aton(to)
    else:
        address = b"\3" + bytes([len(to)]) + to.encode()
    return bytes([5, command, 0]) + address + port.to_bytes(2, "big")


def ask(pod, to, port, **kw):
    """(the client's connection, the server's answer)"""
    c = pod.connect("127.0.0.1", PORT, **kw)
    try:
        c.sendall(METHODS)
        equal(read_exactly(c, 2), CHOSEN, "the way of authentication")
        c.sendall(request(to, port))
        answer = read_exactly(c, 10)
        equal((answer[0], answer[2:4]), (5, b"\0\1"), "the answer's shape")
        return c, answer[1]
    except BaseException:
        c.close()
        raise


@contextlib.contextmanager
def through(pod, server, to=None, port=8080, v6=False, listen=8080):
    """An established connection: (client's end, server's end, the address that the server sees)."""
    with server.listen(listen) as listener:
        c, answer = ask(pod, to or server.ip(v6), port)
        with c:
            equal(answer, OK, "the answer")
            s, peer = listener.accept()
            with s:
                s.settimeout(PATIENCE)
                yield c, s, peer[0].removeprefix("::ffff:")


@families("another-node")
def another_node(bed, v6):
    with through(bed.a1, bed.b1, v6=v6) as (c, s, peer):
        traffic.echo(c, s)
        equal(peer, bed.a1.ip(v6), "the address that the server sees")
        traffic.bulk_both_ways(c, s, 4 << 20)
    authority = f"[{bed.b1.ip6}]:8080" if v6 else f"{bed.b1.ip4}:8080"
    until(lambda: bed.a1.node.agent.access(dst_hbone_addr=authority, direction="outbound", src_identity=bed.a1.spiffe),
          "the client's line")


@families("same-node-under-a-policy-for-addresses")
def same_node(bed, v6):
    with through(bed.a1, bed.a2, v6=v6) as (c, s, peer):
        traffic.echo(c, s)
        equal(peer, bed.a1.ip(v6), "the address that the server sees")


@families("known-by-the-pod's-address")
def known(bed, v6):
    """Not by the loopback's, in the lines of both sides, also within the node."""
    not_ztunnel(bed, "tells the loopback address")
    for server in bed.a2, bed.b1, bed.u1:
        with through(bed.a1, server, v6=v6, port=8089, listen=8089) as (c, s, _):
            port = c.getsockname()[1]
        src = f"[{bed.a1.ip6}]:{port}" if v6 else f"{bed.a1.ip4}:{port}"
        directions = {"outbound"} | ({"inbound"} if server.mesh and server.node is bed.a1.node else set())
        until(lambda: {x["direction"] for x in bed.a1.node.agent.access(src_addr=src)} == directions, f"lines with {src} for {server.name}")


@families("outside-the-mesh")
def outside(bed, v6):
    with through(bed.b1, bed.u1, v6=v6) as (c, s, peer):
        traffic.echo(c, s)
        equal(peer, bed.b1.ip(v6), "the address that the server sees")


@families("virtual-address")
def vip(bed, v6):
    listeners = [p.listen(8080) for p in (bed.b1, bed.b2)]
    with contextlib.ExitStack() as stack:
        for x in listeners:
            stack.enter_context(x)
        c, answer = ask(bed.a1, VIP6 if v6 else VIP4, 80)
        c.close()
        equal(answer, OK, "the answer")


@each("own-loopback-address")
def own_loopback(bed):
    with bed.a1.listen(8081) as listener:
        c, answer = ask(bed.a1, "127.0.0.1", 8081)
        with c, listener.accept()[0] as s:
            equal(answer, OK, "the answer")
            s.settimeout(PATIENCE)
            traffic.echo(c, s)


@each("name-of-a-service")
def service_name(bed):
    with bed.b1.listen(8080), bed.b2.listen(8080):
        c, answer = ask(bed.a1, bed.host, 80)
        c.close()
        equal(answer, OK, "the answer")


@each("name-that-the-resolver-knows")
def known_name(bed):
    not_ztunnel(bed, "asks a server of names")
    for name, v6 in (("outside.test", False), ("six.test", True)):
        with through(bed.a1, bed.u1, to=name) as (c, s, peer):
            traffic.echo(c, s)
            equal(peer, bed.a1.ip(v6), "the address that the server sees")


@each("name-of-an-address")
def address_name(bed):
    not_ztunnel(bed, "asks a server of names")
    with bed.b1.listen(8080) as listener, bed.a1.connect("127.0.0.1", PORT) as c:
        c.sendall(METHODS + b"\5\1\0\3" + bytes([len(bed.b1.ip4)]) + bed.b1.ip4.encode() + (8080).to_bytes(2, "big"))
        equal(read_exactly(c, 12), CHOSEN + b"\5\0\0\1" + bytes(6), "the answers")
        listener.accept()[0].close()


@each("name-that-nobody-knows")
def unknown_name(bed):
    c, answer = ask(bed.a1, "nowhere.test", 80)
    c.close()
    equal(answer, UNREACHABLE, "the answer")


@each("nobody-listens-there")
def refused(bed):
    not_ztunnel(bed, "says that it has succeeded before it tries")
    for host in bed.b1, bed.a2, bed.u1:
        c, answer = ask(bed.a1, host.ip4, 7777)
        with c:
            equal(answer, FAILED, f"the answer for {host.name}")
            equal(read_all(c), b"", "what follows")


@each("denied-by-policy")
def denied(bed):
    not_ztunnel(bed, "says that it has succeeded before it tries")
    with bed.a2.listen(8080):
        c, answer = ask(bed.b1, bed.a2.ip4, 8080)
        with c:
            equal(answer, FAILED, "the answer")


@each("data-behind-the-request-arrives")
def ahead(bed):
    """A client that does not wait for the answers; and one that sends byte by byte."""
    whole = METHODS + request(bed.b1.ip4, 8080) + b"early"
    for pieces in [whole], [whole[i:i + 1] for i in range(len(whole))]:
        with bed.b1.listen(8080) as listener, bed.a1.connect("127.0.0.1", PORT) as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                c.sendall(piece)
            with listener.accept()[0] as s:
                s.settimeout(PATIENCE)
                equal(read_exactly(s, 5), b"early", "the server read")
                equal(read_exactly(c, 12), CHOSEN + b"\5\0\0\1" + bytes(6), "the answers")
                traffic.echo(c, s)


@each("half-close-and-reset")
def endings(bed):
    not_ztunnel(bed, "turns a reset into an end of file")
    with through(bed.a1, bed.b1) as (c, s, _):
        traffic.half_close(c, s)
    with through(bed.a1, bed.b1) as (c, s, _):
        traffic.reset_reaches(s, c)


# What the client says, what is answered. ztunnel answers 7 also where the way of authentication is asked for.
VIOLATIONS = [
    ("version-4", b"\4\1\0\120\1\2\3\4\0", b"\5\xff"),
    ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\5\xff"),
    ("password-only", b"\5\1\2", b"\5\xff"),
    ("no-methods", b"\5\0", b"\5\xff"),
    ("bind", METHODS + request("10.0.0.1", 80, 2), CHOSEN + b"\5\7\0\1" + bytes(6)),
    ("udp", METHODS + request("10.0.0.1", 80, 3), CHOSEN + b"\5\7\0\1" + bytes(6)),
    ("version-4-later", METHODS + b"\4" + request("10.0.0.1", 80)[1:], CHOSEN + b"\5\7\0\1" + bytes(6)),
    ("kind-of-address", METHODS + b"\5\1\0\2\1\2\3\4\0\120", CHOSEN + b"\5\7\0\1" + bytes(6)),
    ("empty-name", METHODS + b"\5\1\0\3\0\0\120", CHOSEN + b"\5\7\0\1" + bytes(6)),
    ("name-with-a-zero", METHODS + b"\5\1\0\3\3a\0b\0\120", CHOSEN + b"\5\7\0\1" + bytes(6)),
]


@each("against-the-protocol")
def violations(bed):
    not_ztunnel(bed, "answers in other words")
    for name, said, want in VIOLATIONS:
        with bed.a1.connect("127.0.0.1", PORT) as c:
            c.sendall(said)
            equal(read_all(c), want, name)


@each("clients-that-leave-or-stay-silent")
def silent(bed):
    """Each is given up in time, and its descriptor with it."""
    not_ztunnel(bed, "waits for ever")
    agent = bed.a1.node.agent
    before = agent.fds()
    for said in b"", METHODS, METHODS + b"\5\1\0":
        bed.a1.connect("127.0.0.1", PORT).close()
        with bed.a1.connect("127.0.0.1", PORT) as c:
            c.sendall(said)
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(bed.a1.connect("127.0.0.1", PORT, timeout=scale.deadline(30))) for _ in range(3)]
        for c, said in zip(waiting, (b"", b"\5", METHODS + b"\5\1\0\1")):
            c.sendall(said)
        equal([read_all(c) for c in waiting], [b"\5\xff", b"\5\xff", CHOSEN + b"\5\1\0\1" + bytes(6)], "the answers")
        took = time.monotonic() - begin
        check(9.5 < took < scale.deadline(15), f"given up after {took:.1f} s")
    until(lambda: agent.fds() <= before, "the descriptors to be closed")


@each("own-ports")
def own_ports(bed):
    """No way leads back to us."""
    agent = bed.a1.node.agent
    before = agent.fds()
    for to in "127.0.0.1", "::1", bed.a1.ip4, bed.b1.ip4:
        for port in 15001, 15006, 15008, 15053, PORT:
            try:
                c, answer = ask(bed.a1, to, port)
            except ConnectionError:
                continue
            with c:
                if answer == OK:  # ztunnel, before it tries
                    not_ztunnel(bed, "says that it has succeeded before it tries")
                equal(answer, FAILED, f"{to}:{port}")
    with h2.Client(bed.u1, bed.b1.ip4, bed.ca, bed.cert(bed.a1.spiffe)) as h:
        equal(h.status(h.connect(f"{bed.b1.ip4}:{PORT}")), "503", "CONNECT to the port")
    until(lambda: agent.fds() <= before + 8, "the descriptors to be closed")


@each("nobody-else-gets-in")
def loopback_only(bed):
    for who in bed.u1, bed.a2, bed.b1:
        got = traffic.outcome(who, bed.a1.ip4, PORT, METHODS)
        check(got in ("refused", "closed", "dropped"), f"{who.name}: {got!r}")


@each("goes-with-the-pod")
def goes(bed):
    """Who is served, who is being looked up and who has said nothing: all are told when the pod leaves the mesh."""
    with contextlib.ExitStack() as stack:
        c, _, _ = stack.enter_context(through(bed.a2, bed.u1))
        waiting = stack.enter_context(bed.a2.connect("127.0.0.1", PORT))
        waiting.sendall(METHODS)
        equal(read_exactly(waiting, 2), CHOSEN, "the way of authentication")
        bed.a2.node.agent.unenrol(bed.a2)
        until(lambda: traffic.outcome(bed.a2, "127.0.0.1", PORT, timeout=0.5) == "refused", "the port to be closed")
        for x in c, waiting:
            x.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                read_all(x)


def drains(kind):
    @T.row(f"{kind}/drain", fixture(kind, kind, env={"UNSTABLE_ENABLE_SOCKS5": "true"}, pods=("a1", "b1")))
    def drain(bed):
        """The port is closed at once; who is served and who is about to say where to go on."""
        agent = bed.a1.node.agent
        with contextlib.ExitStack() as stack:
            c, s, _ = stack.enter_context(through(bed.a1, bed.u1))
            late = stack.enter_context(bed.a1.connect("127.0.0.1", PORT))
            late.sendall(METHODS)
            equal(read_exactly(late, 2), CHOSEN, "the way of authentication")
            agent.signal(signal.SIGTERM)
            until(lambda: traffic.outcome(bed.a1, "127.0.0.1", PORT, timeout=0.5) == "refused", "the port to be closed")
            traffic.echo(c, s)
            with bed.u1.listen(8082) as listener:
                late.sendall(request(bed.u1.ip4, 8082))
                equal(read_exactly(late, 10)[1], OK, "the answer")
                with listener.accept()[0] as s2:
                    s2.settimeout(PATIENCE)
                    traffic.echo(late, s2)
        equal(agent.process.wait(PATIENCE), 0, "the exit status")


for k in kinds():
    drains(k)
    if k == "culvert":
        @T.row(f"{k}/upgrade", fixture(k, k, env={"UNSTABLE_ENABLE_SOCKS5": "true"}, pods=("a1", "b1")))
        def upgrade(bed):
            """The port is no keeper's to hand over: the new tunnel opens it beside the old one, and nobody is turned away."""
            agent = bed.a1.node.agent
            old = agent.tunnel_pid()
            with through(bed.a1, bed.u1) as (c, s, _), bed.u1.listen(8082) as listener:
                task = traffic.Task(agent.ctl, "upgrade")
                while task.is_alive() or agent.processes("tunnel") == [old]:
                    c2, answer = ask(bed.a1, bed.u1.ip4, 8082)
                    with c2, listener.accept()[0] as s2:
                        equal(answer, OK, "the answer")
                        s2.settimeout(PATIENCE)
                        traffic.echo(c2, s2)
                task.result()
                traffic.echo(c, s)
                check(len(agent.processes("tunnel")) == 2, "the old tunnel does not wait for its connection")
            until(lambda: old not in agent.processes("tunnel"), "the old tunnel to end")
            with through(bed.a1, bed.b1) as (c, s, _):
                traffic.echo(c, s)


if __name__ == "__main__":
    T.main()
