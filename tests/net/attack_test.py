#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attempts to get around the agent of a steered pod. Outbound, the property is that no TCP segment of the app leaves
eth0; inbound, that no connection reaches the app but through the agent. Seen from the node's end of the veth."""
import contextlib
import errno
import functools
import os
import select
import socket
import struct
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP, MODES, Bed, Driver, agent_cgroup, batch, extra, family, inside, sysctl, write_file
from packets import ACK, NOBODY, RST, SYN, Knock, Wire, fragments, ip4, ip6_with_options, plain, tcp
from rows import Skip, Table, check, equal, until
from servers import AGENT_MARK, SO_MARK, dial_marked, echoes, hear, heard

table = Table(__file__)

STRANGER = {False: "10.71.7.7", True: "fd71:7::7"}  # the node drops what goes there
PROBE = {False: "169.254.7.127", True: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}  # exempt
IP_OPTIONS, IPV6_HOPOPTS, IPV6_DSTOPTS, IPV6_RTHDR = 4, 54, 59, 57
TCP_FASTOPEN, IPPROTO_MPTCP, MSG_FASTOPEN = 23, 262, 0x20000000


def flow(segment):
    return segment.src, segment.sport, segment.dst, segment.dport


class AttackBed(Bed):
    def prepare(self):
        super().prepare()
        batch(self.node.ns, "route add blackhole 10.71.7.0/24", "route add blackhole fd71:7::/64")
        self.wire = self.stack.enter_context(Wire(self.node, self.pod, "v-a1"))

    def explain(self):
        for s in self.wire.segments()[-12:]:
            print(f"  wire: {s.src}:{s.sport} > {s.dst}:{s.dport} flags {s.flags:#x} {len(s.data)} bytes")

    @contextlib.contextmanager
    def nothing_leaves(self, v6, *also):
        """No TCP segment to the remote pod (or `also` there) comes by meanwhile, but of connections that were there before and
        may end only now, and no connection reaches it."""
        self.wire.take()
        before = {flow(s) for s in self.wire.segments()}
        start, accepted = len(self.wire.frames), self.servers.accepted["remote"]
        yield
        self.wire.fence(self.remote.ip(v6))
        seen = [s for s in self.wire.segments(start) if s.dst in (self.remote.ip(v6), *also) and flow(s) not in before]
        check(not seen, lambda: f"on the wire: flags {seen[0].flags:#x}, {seen[0].data[:40]!r}")
        equal(self.servers.accepted["remote"], accepted, "connections at the remote pod")

    @contextlib.contextmanager
    def app_untouched(self, v6):
        """No connection reaches the app meanwhile."""
        before = self.servers.accepted["app"]
        yield
        self.wire.fence(self.remote.ip(v6))
        equal(hear_and_close(self.pod.connect("127.0.0.1", APP)).who, "app", "the app itself")
        equal(self.servers.accepted["app"], before + 1, "connections at the app")


class BoundBed(AttackBed):
    """The agent sits in a cgroup of its own, so that its mark is bound to it."""

    def rooms(self):
        super().rooms()
        self.cgroup = self.stack.enter_context(agent_cgroup())

    def start(self, cgroup=None):
        super().start(self.cgroup)

    @contextlib.contextmanager
    def in_cgroup(self):
        """This process sits beside the agent meanwhile."""
        with open("/proc/self/cgroup") as f:
            back = next(line.strip().split("::")[1] for line in f if "::" in line)
        write_file(f"{self.cgroup}/cgroup.procs", os.getpid())
        try:
            yield
        finally:
            write_file(f"{os.path.dirname(self.cgroup)}{back}/cgroup.procs", os.getpid())


class DeviceBed(AttackBed):
    """A second way out, eth1, for rows that add subflows."""

    def prepare(self):
        super().prepare()
        batch(self.pod.ns, f"link add eth1 type veth peer name v2-a1 netns {self.node.ns}", "link set eth1 up")
        batch(self.node.ns, "addr add 10.71.8.1/24 dev v2-a1", "addr add fd71:8::1/64 dev v2-a1 nodad",
              "link set v2-a1 up")
        batch(self.pod.ns, "addr add 10.71.8.2/24 dev eth1", "addr add fd71:8::2/64 dev eth1 nodad",
              "route add default via 10.71.8.1 dev eth1 metric 2000",
              "route add default via fd71:8::1 dev eth1 metric 2000")


PLAIN = {mode: functools.partial(AttackBed, mode) for mode in MODES}
BOUND = {mode: functools.partial(BoundBed, mode) for mode in MODES}


def attack(name, beds=PLAIN, families=(False, True), modes=MODES, bed=AttackBed):
    """Registers fn(bed, v6). `beds` None: each row has a bed of its own."""

    def add(fn):
        for v6 in families:
            for mode in modes:
                fixture = beds[mode] if beds else functools.partial(bed, mode)
                table.row(f"{'v6' if v6 else 'v4'}/{mode} {name}", fixture, v6)(fn)
        return fn

    return add


def hear_and_close(s):
    with contextlib.closing(s):
        return hear(s)


def secret():
    return b"secret-" + os.urandom(16).hex().encode() * 40


def captured(bed, v6, prepare=lambda s: None):
    """A connection of the app with sockets options of its choice: the agent answers, nothing leaves."""
    ip = bed.remote.ip(v6)
    with bed.nothing_leaves(v6), contextlib.closing(bed.pod.socket(family(ip))) as s:
        s.settimeout(5)
        prepare(s)
        s.connect((ip, APP))
        said = hear(s)
        equal((said.who, said.local), ("agent=15001", (ip, APP)), "who answers")
        check(echoes(s, secret()), "bytes changed")


def reaches_agent(bed, v6, prepare=lambda s: None, port=APP):
    """The same from outside."""
    ip = bed.pod.ip(v6)
    with bed.app_untouched(v6), contextlib.closing(bed.remote.socket(family(ip))) as s:
        s.settimeout(5)
        prepare(s)
        s.connect((ip, port))
        equal(hear(s).who, "agent=15006", "who answers")
        check(echoes(s, secret()), "bytes changed")


def knock(bed, v6, wrap, who, port=APP):
    """A handshake of hand-made packets ends at `who`; where that is nobody, with BPF, a drop is counted."""
    client = Knock(bed.wire, STRANGER[v6], bed.pod.ip(v6), port, wrap)
    counts = bed.mode == "bpf" and who == NOBODY
    with bed.app_untouched(v6):
        drops = bed.drops() if counts else 0
        if who == NOBODY:
            before = len(bed.wire.frames)  # an earlier row's client may have had the same port
            client.send(SYN, client.seq)
            bed.wire.fence(bed.remote.ip(v6))
            check(not any(map(client.answer, bed.wire.frames[before:])), "the SYN was answered")
        else:
            equal(heard(client.who().encode()).who, who, "who answers")
        check(not counts or bed.drops() > drops, "no drop was counted")


# --- headers -----------------------------------------------------------------------------------------------------

IPV4_OPTIONS = {
    "nops": bytes((1, 1, 1, 1)),
    "record-route-40-bytes": bytes((7, 39, 4)) + bytes(36) + b"\1",
    "timestamps": bytes((68, 36, 5, 0)) + bytes(32),
    "router-alert": bytes((148, 4, 0, 0)),
}


def ipv4_options(bed, v6, options):
    set_options = lambda s: s.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, options)  # noqa: E731
    captured(bed, v6, set_options)
    reaches_agent(bed, v6, set_options)
    knock(bed, v6, lambda src, dst, segment: [ip4(src, dst, segment, options)], "agent=15006")


for _name, _options in IPV4_OPTIONS.items():
    attack(f"ipv4-options-{_name}", families=(False,))(lambda bed, v6, o=_options: ipv4_options(bed, v6, o))


@attack("source-route")
def _(bed, v6):
    """The header names the first hop as its destination, the option the last. A hop that is exempt must not help."""
    last, hops = bed.remote.ip(v6), [bed.node.wan6 if v6 else bed.node.wan4]
    if bed.mode == "bpf":
        hops.append(PROBE[v6])  # istio-cni's rules let it through
    for hop in hops:
        packed_hop, packed_last = (socket.inet_pton(family(ip), ip) for ip in (hop, last))
        if v6:
            options = [(socket.IPPROTO_IPV6, IPV6_RTHDR, bytes((0, 4, 4, 1, 1, 0, 0, 0)) + packed_last + packed_hop)]
        else:
            options = [(socket.IPPROTO_IP, IP_OPTIONS, bytes((kind, 11, 4)) + packed_hop + packed_last + b"\1")
                       for kind in (131, 137)]
        for option in options:
            with bed.nothing_leaves(v6, hop), contextlib.closing(bed.pod.socket(family(last))) as s:
                s.settimeout(0.5)
                s.setsockopt(*option)
                with contextlib.suppress(OSError):  # not getting anywhere is as good
                    s.connect((last, APP))
                    equal(hear(s).who, "agent=15001", "who answers")


@attack("ipv6-extension-headers-of-a-socket", families=(True,))
def _(bed, v6):
    padding = bytes((0, 0, 1, 4, 0, 0, 0, 0))
    for options in ((IPV6_HOPOPTS,), (IPV6_DSTOPTS,), (IPV6_HOPOPTS, IPV6_DSTOPTS)):
        def prepare(s):
            for o in options:
                s.setsockopt(socket.IPPROTO_IPV6, o, padding)
        captured(bed, v6, prepare)
        reaches_agent(bed, v6, prepare)


def extension_headers(bed, v6, count, who):
    knock(bed, v6, lambda src, dst, segment: ip6_with_options(src, dst, segment, count), who)


for _count in (1, 4, 8):
    attack(f"ipv6-{_count}-extension-headers", families=(True,))(
        lambda bed, v6, n=_count: extension_headers(bed, v6, n, "agent=15006"))
for _count in (9, 30):
    attack(f"ipv6-{_count}-extension-headers", families=(True,))(
        lambda bed, v6, n=_count: extension_headers(bed, v6, n, NOBODY if bed.mode == "bpf" else "agent=15006"))


@attack("raw-syn-with-many-headers-outbound", families=(True,), modes=("bpf",))
def _(bed, v6):
    src, dst = bed.pod.ip6, bed.remote.ip6
    for count in (8, 9, 30):
        with bed.nothing_leaves(v6):
            packet = ip6_with_options(src, dst, tcp(src, dst, 33333, APP, SYN, 1, data=secret()[:64]), count)[0]
            send_raw(bed.pod, dst, packet)


def send_raw(host, dst, packet):
    with inside(host.ns):
        s = socket.socket(family(dst), socket.SOCK_RAW, socket.IPPROTO_RAW)
    with contextlib.closing(s):
        if ":" not in dst:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        s.sendto(packet, (dst, 0))


# --- fragments -----------------------------------------------------------------------------------------------------

FRAGMENTS = {"first-with-syn": (24,), "first-without-flags": (8,), "offset-8": (8, 8), "tiny": (8, 8, 8)}


def fragmented(bed, v6, sizes):
    """A SYN in pieces: the agent's, after the kernel has put it together, or nobody's. Never the app's."""

    def pieces(src, dst, segment):
        whole = tcp(src, dst, *struct.unpack_from("!HH", segment), segment[13], *struct.unpack_from("!II", segment, 4),
                    data=b"x" * 16)
        return fragments(src, dst, whole, sizes)

    cut = v6 and sizes[0] < 20  # the kernel itself refuses an IPv6 fragment that ends in the TCP header
    knock(bed, v6, pieces, NOBODY if bed.mode == "bpf" or cut else "agent=15006")


for _name, _sizes in FRAGMENTS.items():
    attack(f"fragments-{_name}")(lambda bed, v6, s=_sizes: fragmented(bed, v6, s))


@attack("each-fragment-that-hides-flags", modes=("bpf",))
def _(bed, v6):
    """One piece alone, so that no other defence can be the one that holds."""
    src, dst = STRANGER[v6], bed.pod.ip(v6)
    syn = tcp(src, dst, 33335, APP, SYN, 1, data=b"x" * 16)
    ack = tcp(src, dst, 33335, APP, ACK, 1, data=b"x" * 16)
    pieces = {"a SYN": fragments(src, dst, syn, (24,))[0], "no flags": fragments(src, dst, ack, (8,))[0],
              "offset 8": fragments(src, dst, ack, (8, 8))[1], "a bare ACK": fragments(src, dst, ack, (24,))[0]}
    for name, piece in pieces.items():
        drops = bed.drops()
        bed.wire.send(piece)
        bed.wire.fence(bed.remote.ip(v6))
        equal(bed.drops(), drops + 1, f"drops after a fragment with {name}")


@attack("fragmented-syn-outbound")
def _(bed, v6):
    src, dst = bed.pod.ip(v6), bed.remote.ip(v6)
    with bed.nothing_leaves(v6):
        for sizes in FRAGMENTS.values():
            for packet in fragments(src, dst, tcp(src, dst, 33334, APP, SYN, 1, data=secret()), sizes):
                send_raw(bed.pod, dst, packet)


# --- handshakes ------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def setting(host, path, value):
    with inside(host.ns):
        with open(f"/proc/sys/{path}") as f:
            old = f.read().strip()
        sysctl(path, value)
    try:
        yield
    finally:
        with inside(host.ns):
            sysctl(path, old)


@attack("syn-cookies-forced")
def _(bed, v6):
    with setting(bed.pod, "net/ipv4/tcp_syncookies", 2):
        captured(bed, v6)
        reaches_agent(bed, v6)
        knock(bed, v6, plain, "agent=15006")


@attack("syn-cookies-of-the-apps-listener")
def _(bed, v6):
    """Its SYN-ACKs belong to the listening socket: what one of them is must say nothing about the next."""
    client, ip = bed.remote.ip(v6), bed.pod.ip(v6)
    with setting(bed.pod, "net/ipv4/tcp_syncookies", 2):
        for port in (10601 + 2 * v6, 10602 + 2 * v6):
            with contextlib.closing(dial_marked(bed.pod, ip, APP, (client, port))) as s:
                equal(hear(s).who, "app", "who answers the agent")
            with bed.configured("dns", "bypass"):
                equal(hear_and_close(bed.remote.connect(ip, APP)).who, "app", "who answers a client that bypasses")


@attack("bare-ack")
def _(bed, v6):
    """An ACK out of nowhere must not open anything, with cookies or without."""
    for cookies in (1, 2):
        with setting(bed.pod, "net/ipv4/tcp_syncookies", cookies), bed.app_untouched(v6):
            client = Knock(bed.wire, STRANGER[v6], bed.pod.ip(v6), APP, plain)
            client.send(ACK, client.seq, 12345, secret())


def syn_on_live_connection(bed, v6, between):
    live = Knock(bed.wire, STRANGER[v6], bed.pod.ip(v6), APP, plain)
    synack = live.syn()
    live.send(ACK, live.seq + 1, synack.seq + 1)
    line = live.data()
    between(heard(line).who)
    with bed.app_untouched(v6):
        live.send(SYN, live.seq + 100000)
        check(live.wire.wait(lambda f: (s := live.answer(f)) and s.flags == ACK), "no ACK that challenges the SYN")
        live.send(ACK, live.seq + 1, synack.seq + 1 + len(line), b"echo")
        equal(live.data(), b"echo", "what the connection carries")
        live.send(RST, live.seq + 5)


@attack("syn-for-a-live-tuple")
def _(bed, v6):
    syn_on_live_connection(bed, v6, lambda who: equal(who, "agent=15006", "who answers"))


@attack("syn-for-a-live-tuple-of-the-app", None, modes=("bpf",))
def _(bed, v6):
    """A connection from before enrolment meets a SYN with its own addresses and ports."""
    def enrol(who):
        equal(who, "app", "who answers")
        bed.steer(*bed.config)

    bed.unsteer()
    syn_on_live_connection(bed, v6, enrol)


@attack("syn-for-a-tuple-in-time-wait", None)
def _(bed, v6):
    """The app closed first; the client comes again from the same port."""
    bed.unsteer()
    ip = bed.pod.ip(v6)
    with contextlib.closing(bed.servers.tcp(bed.pod, 8081, "app", close=True)):
        with contextlib.closing(bed.remote.connect(ip, 8081, source_port=45678)) as s:
            equal(hear(s).who, "app", "who answers")
            equal(s.recv(1), b"", "end of file")
        state = bed.pod.run("ss", "-Htan", "state", "time-wait")
        check("45678" in state, f"the app's socket is not in TIME_WAIT: {state}")
        bed.steer(*bed.config)
        before = bed.servers.accepted["app"]
        with contextlib.closing(bed.remote.connect(ip, 8081, source_port=45678)) as s:
            equal(hear(s).who, "agent=15006", "who answers")
        equal(bed.servers.accepted["app"], before, "connections at the app")


# --- marks ---------------------------------------------------------------------------------------------------------

AS_APP = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all,+net_raw",
          "--ambient-caps", "-all,+net_raw", "--bounding-set", "-all,+net_raw", sys.executable, "-c")
MARKED = """import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.settimeout(5)
s.setsockopt(socket.SOL_SOCKET, 36, int(sys.argv[3], 0))
s.connect((sys.argv[1], int(sys.argv[2])))
s.sendall(b"secret")
print(s.makefile().readline(), end="")"""


@attack("agents-mark-with-only-net-raw", BOUND, modes=("bpf",))
def _(bed, v6):
    ip = bed.remote.ip(v6)
    for mark in (AGENT_MARK, 0xabc000 | AGENT_MARK):
        with bed.nothing_leaves(v6):
            line = bed.pod.run(*AS_APP, MARKED, ip, str(APP), hex(mark))
            equal(heard(line.encode()).who, "agent=15001", "who answers")
        with bed.nothing_leaves(v6):
            captured(bed, v6, lambda s: s.setsockopt(socket.SOL_SOCKET, SO_MARK, mark))


@attack("agents-mark-from-the-agents-cgroup", BOUND, modes=("bpf",))
def _(bed, v6):
    """The other side of the row above: the binding knows the agent."""
    with bed.in_cgroup():
        equal(hear_and_close(dial_marked(bed.pod, bed.remote.ip(v6), APP)).who, "remote", "who answers")


@attack("agents-mark-on-dns", BOUND, modes=("bpf",))
def _(bed, v6):
    ip = bed.remote.ip(v6)
    with contextlib.closing(bed.pod.socket(family(ip), socket.SOCK_DGRAM)) as s:
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, AGENT_MARK)
        s.connect((ip, 53))
        s.send(b"?")
        equal(heard(s.recv(1000)).who, "agent=15053", "who answers")


@attack("apps-own-mark")
def _(bed, v6):
    for mark in (1, 0x538, 0x10000, 0xfffff000):
        captured(bed, v6, lambda s: s.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark)))


@attack("apps-mark-is-the-local-one")
def _(bed, v6):
    """The policy rule sends it to lo at once: to the agent or nowhere."""
    ip = bed.remote.ip(v6)
    with bed.nothing_leaves(v6), contextlib.closing(bed.pod.socket(family(ip))) as s:
        s.settimeout(1)
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x111)
        with contextlib.suppress(OSError):
            s.connect((ip, APP))
            check(hear(s).who in ("agent=15001", "app"), "answered by somebody outside")


@attack("app-that-listens-has-a-mark")
def _(bed, v6):
    """Accepted sockets inherit it, and answer the agent's connection from a client's address."""
    def marked(host, port, ip):
        s = host.listen(port, ip)
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x77)
        return s

    listener = bed.servers.tcp(bed.pod, 8082, "app", prepare=marked)
    try:
        client = bed.remote.ip(v6)
        with bed.nothing_leaves(v6), contextlib.closing(
                dial_marked(bed.pod, bed.pod.ip(v6), 8082, (client, 10300))) as s:
            said = hear(s)
            equal((said.who, said.peer), ("app", (client, 10300)), "who answers, and whom it sees")
            check(echoes(s, secret()), "bytes changed")
    finally:
        bed.servers.close(listener)


# --- kinds of sockets ------------------------------------------------------------------------------------------

@attack("tcp-fast-open-outbound")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    with setting(bed.pod, "net/ipv4/tcp_fastopen", 0x207), setting(bed.remote, "net/ipv4/tcp_fastopen", 0x207):
        with bed.nothing_leaves(v6), contextlib.closing(bed.pod.socket(family(ip))) as s:
            data = secret()
            s.sendto(data, MSG_FASTOPEN, (ip, APP))
            equal(hear(s).who, "agent=15001", "who answers")
            equal(s.recv(len(data), socket.MSG_WAITALL), data, "the echo")


@attack("tcp-fast-open-inbound")
def _(bed, v6):
    ip = bed.pod.ip(v6)

    def eager(host, port, at):
        s = host.listen(port, at)
        s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        return s

    with setting(bed.pod, "net/ipv4/tcp_fastopen", 0x207), setting(bed.remote, "net/ipv4/tcp_fastopen", 0x207):
        listener = bed.servers.tcp(bed.pod, 8083, "app", prepare=eager)
        try:
            with bed.app_untouched(v6), contextlib.closing(bed.remote.socket(family(ip))) as s:
                s.sendto(secret(), MSG_FASTOPEN, (ip, 8083))
                equal(hear(s).who, "agent=15006", "who answers")
        finally:
            bed.servers.close(listener)


def mptcp(host, ip):
    with inside(host.ns):
        try:
            s = socket.socket(family(ip), socket.SOCK_STREAM, IPPROTO_MPTCP)
        except OSError as e:
            raise Skip(f"this kernel has no MPTCP: {e}") from e
    s.settimeout(5)
    return s


@attack("mptcp")
def _(bed, v6):
    for host, ip, who in ((bed.pod, bed.remote.ip(v6), "agent=15001"), (bed.remote, bed.pod.ip(v6), "agent=15006")):
        with bed.nothing_leaves(v6) if host is bed.pod else bed.app_untouched(v6):
            with contextlib.closing(mptcp(host, ip)) as s:
                s.connect((ip, APP))
                equal(hear(s).who, who, "who answers")
                check(echoes(s, secret()), "bytes changed")


@attack("mptcp-join-after-enrolment", None, modes=("bpf",), bed=DeviceBed)
def _(bed, v6):
    """An MPTCP connection from before enrolment stays on its path; a new subflow is a new connection."""
    def listen(host, port, at):
        s = mptcp(host, "::")
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind((at, port))
        s.listen(5)
        return s

    ip = bed.remote.ip(v6)
    bed.unsteer()
    for host in (bed.remote, bed.pod):
        host.run("ip", "mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4")
    bed.servers.tcp(bed.remote, 8084, "remote", prepare=listen)
    second = bed.stack.enter_context(Wire(bed.node, bed.pod, "v2-a1"))
    with contextlib.closing(mptcp(bed.pod, ip)) as s:
        s.connect((ip, 8084))
        equal(hear(s).who, "remote", "who answers")
        bed.steer(*bed.config)
        captures = bed.counters()["out_captured"]
        source = "fd71:8::2" if v6 else "10.71.8.2"
        bed.pod.run("ip", "mptcp", "endpoint", "add", source, "dev", "eth1", "subflow")
        check(echoes(s, secret()), "the connection is dead")
        until(lambda: bed.counters()["out_captured"] > captures, "the join to be captured")
        bed.wire.fence(ip)
        second.take()
        for wire in (bed.wire, second):
            syns = [x for x in wire.segments() if x.flags & (SYN | ACK) == SYN and x.src == source]
            check(not syns, "the join left the pod")


@attack("pods-own-source-from-the-wire")
def _(bed, v6):
    """A neighbour sends what only the pod itself may: a RST from the app to the agent's client address."""
    ip, client, port = bed.pod.ip(v6), bed.remote.ip(v6), 10412
    with Wire(bed.pod, bed.pod, "lo") as inside_pod, contextlib.closing(
            dial_marked(bed.pod, ip, APP, (client, port))) as s:
        equal(hear(s).who, "app", "who answers")
        check(echoes(s, b"x" * 100), "bytes changed")
        inside_pod.take()
        last = [x for x in inside_pod.segments() if (x.src, x.dst, x.dport) == (ip, client, port)][-1]
        bed.wire.send(plain(ip, client, tcp(ip, client, APP, port, RST, last.seq + len(last.data)))[0])
        bed.wire.fence(client)
        check(echoes(s, b"y" * 100), "bytes changed")


@attack("reuseport-app")
def _(bed, v6):
    def shared(host, port, ip):
        s = host.socket(socket.AF_INET6)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind((ip, port))
        s.listen(16)
        return s

    listeners = [bed.servers.tcp(bed.pod, 8085, "app", prepare=shared) for _ in range(4)]
    try:
        for _ in range(8):
            reaches_agent(bed, v6, port=8085)
    finally:
        for s in listeners:
            bed.servers.close(s)


@attack("app-takes-the-agents-ports")
def _(bed, v6):
    for port in (15001, 15006, 15008, 15053):
        for ip in (bed.pod.ip(v6), "::" if v6 else "0.0.0.0"):
            with contextlib.closing(bed.pod.socket(family(ip))) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind((ip, port))
                    s.listen(1)
                    raise AssertionError(f"the app listens on {ip} port {port}")
                except OSError as e:
                    equal(e.errno, errno.EADDRINUSE, f"{ip} port {port}")


@attack("client-port-collides", modes=("bpf",))
def _(bed, v6):
    """The agent dials the app with the address and port that a live connection from that client has: the two would be
    one, so nothing comes of it. (With NAT the live one dies: the agent must choose another port.)"""
    ip, client, port = bed.pod.ip(v6), bed.remote.ip(v6), 20006 if v6 else 20004
    with contextlib.closing(bed.remote.connect(ip, APP, source_port=port)) as live:
        equal(hear(live).who, "agent=15006", "who answers")
        with contextlib.suppress(OSError):
            dial_marked(bed.pod, ip, APP, (client, port), timeout=0.5).close()
            raise AssertionError("two connections have the same addresses and ports")
        check(echoes(live, secret()), "the live connection suffers")


@attack("own-address-and-the-agents-ports")
def _(bed, v6):
    """The app gets one connection with the agent, whose original destination says what it is; no loop."""
    ip = bed.pod.ip(v6)
    for port in (15001, 15006, 15008, 15053):
        with contextlib.suppress(ConnectionError), contextlib.closing(bed.pod.connect(ip, port)) as s:
            said = hear(s)
            equal((said.who, said.local), (f"agent={port}", (ip, port)), "who answers")
    here = bed.pod.run("ss", "-Htan", "state", "established")
    check(len(here.splitlines()) < 40, f"connections multiply: {here}")


@attack("host-port")
def _(bed, v6):
    """The node forwards a port of its own to the pod."""
    ip = bed.pod.ip(v6)
    at = f"[{ip}]:{APP}" if v6 else f"{ip}:{APP}"
    tool = "ip6tables" if v6 else "iptables"
    rule = ("-p", "tcp", "--dport", "18080", "-j", "DNAT", "--to-destination", at)
    bed.node.run(tool, "-w", "-t", "nat", "-A", "PREROUTING", *rule)
    try:
        wan = bed.node.wan6 if v6 else bed.node.wan4
        with bed.app_untouched(v6), contextlib.closing(bed.remote.connect(wan, 18080)) as s:
            said = hear(s)
            equal((said.who, said.local, said.peer[0]), ("agent=15006", (ip, APP), bed.remote.ip(v6)), "who answers")
            check(echoes(s, secret()), "bytes changed")
    finally:
        bed.node.run(tool, "-w", "-t", "nat", "-D", "PREROUTING", *rule)


# --- life of the agent -----------------------------------------------------------------------------------------

def send_until_it_ends(s, data):
    with contextlib.suppress(OSError):
        while True:
            s.sendall(data)
            if select.select([s], [], [], 0)[0] and not s.recv(1 << 16):
                return


@attack("agent-killed-with-data-in-flight", None)
def _(bed, v6):
    ip = bed.remote.ip(v6)
    with bed.nothing_leaves(v6), contextlib.closing(bed.pod.connect(ip, APP)) as s:
        equal(hear(s).who, "agent=15001", "who answers")
        writer = threading.Thread(target=send_until_it_ends, args=(s, secret() * 50))
        writer.start()
        bed.kill_agent()
        writer.join(20)
        check(not writer.is_alive(), "the app's connection does not end")


@attack("un-enrolled-with-data-in-flight", None)
def _(bed, v6):
    """What the app could not get rid of must not go to the wire once capture ends."""
    ip = bed.remote.ip(v6)
    with bed.nothing_leaves(v6), contextlib.closing(bed.pod.connect(ip, APP)) as s:
        equal(hear(s).who, "agent=15001", "who answers")
        s.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                s.send(secret() * 50)
        bed.unsteer()
        s.settimeout(10)
        send_until_it_ends(s, secret())
    equal(hear_and_close(bed.pod.connect(ip, APP)).who, "remote", "who answers afterwards")


@attack("two-enrolments-at-once", None)
def _(bed, v6):
    """A second keeper comes for the same pod: it fails or shares, and the first stays in force."""
    bed.unsteer()
    other = Driver(bed.pins, bed.mode)
    try:
        ends = {}

        def enrol(driver):
            try:
                driver.ask("attach", bed.pod.uid, f"/run/netns/{bed.pod.ns}", *bed.config)
                ends[driver] = ""
            except AssertionError as e:
                ends[driver] = str(e)

        threads = [threading.Thread(target=enrol, args=(d,)) for d in (bed.driver, other)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(20)
        check("" in ends.values(), f"both fail: {ends.values()}")
        bed.steered = not ends[bed.driver]
        captured(bed, v6)
        reaches_agent(bed, v6)
    finally:
        if ends.get(other) == "":
            other.ask("detach", bed.pod.uid, 0)
        other.close()


@attack("two-pods-enrolled-at-once", None)
def _(bed, v6):
    with extra(bed.net, "second") as pod:
        batch(pod.ns, "link set lo up")
        other = Driver(bed.pins, bed.mode)
        uid = bed.pod.uid.replace("4000", "4001")
        try:
            bed.unsteer()
            thread = threading.Thread(target=other.ask, args=("attach", uid, f"/run/netns/{pod.ns}", "dns"))
            thread.start()
            bed.steer(*bed.config)
            thread.join(20)
            captured(bed, v6)
            with contextlib.closing(pod.connect("127.0.0.1", 15008)) as s:
                equal(hear(s).who, "agent=15008", "who answers in the second pod")
            other.ask("detach", uid, 0)
            captured(bed, v6)
        finally:
            other.close()


if __name__ == "__main__":
    table.main()
