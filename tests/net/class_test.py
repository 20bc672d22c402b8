#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The packet classes of a steered pod, numbered as for istio-cni's rules: who answers, and what addresses it sees, in
IPv4 and IPv6, with BPF and with iptables. Where BPF answers otherwise on purpose, the row's name ends in
"differs: HOW"."""
import contextlib
import functools
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP, ECHO, MODES, Bed, batch, extra, family, inside, sysctl
from packets import checksum
from rows import Table, check, equal, until
from servers import SO_MARK, dial_marked, echoes, hear, heard

table = Table(__file__)

PROBE = {False: "169.254.7.127", True: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}
VIP = {False: "10.72.0.1", True: "fd72::1"}
METADATA = {False: "169.254.169.254", True: "fd00:ec2::254"}
LOOPBACK = {False: "127.0.0.1", True: "::1"}
SECOND = {False: ("10.71.8.1", "10.71.8.2"), True: ("fd71:8::1", "fd71:8::2")}  # node, pod
VM = {False: "10.71.9.2", True: "fd71:9::2"}


class ClassBed(Bed):
    """Adds what single classes need: the probe addresses on the node, DNS servers, a second device."""

    def prepare(self):
        super().prepare()
        for ip in PROBE.values():
            batch(self.node.ns, f"{'-6 ' if ':' in ip else ''}addr add {ip} dev lo")
        self.servers.tcp(self.node, APP, "node")
        for host, word in ((self.pod, "app"), (self.remote, "remote")):
            self.servers.tcp(host, 53, word)
            for ip in (host.ip4, host.ip6, *LOOPBACK.values(), "127.0.0.53"):
                self.servers.udp(host, 53, word, ip)
        batch(self.pod.ns, f"link add eth1 type veth peer name v2-a1 netns {self.node.ns}")
        for v6, (node, pod) in SECOND.items():
            bits, dad = (64, " nodad") if v6 else (24, "")
            batch(self.node.ns, f"addr add {node}/{bits} dev v2-a1{dad}")
            batch(self.pod.ns, f"addr add {pod}/{bits} dev eth1{dad}")
        batch(self.node.ns, "link set v2-a1 up")
        batch(self.pod.ns, "link set eth1 up")


class VmBed(Bed):
    """The pod is a router for vm, which sits behind its device vif0."""

    def prepare(self):
        super().prepare()
        self.vm = self.stack.enter_context(extra(self.net, "vm"))
        batch(self.pod.ns, f"link add vif0 type veth peer name eth0 netns {self.vm.ns}",
              "addr add 10.71.9.1/24 dev vif0", "addr add fd71:9::1/64 dev vif0 nodad", "link set vif0 up")
        batch(self.vm.ns, "link set lo up", "addr add 10.71.9.2/24 dev eth0", "addr add fd71:9::2/64 dev eth0 nodad",
              "link set eth0 up", "route add default via 10.71.9.1", "route add default via fd71:9::1")
        with inside(self.pod.ns):
            sysctl("net/ipv4/ip_forward", 1)
            sysctl("net/ipv6/conf/all/forwarding", 1)
        batch(self.pod.ns, "route replace default via fe80::1 dev eth0")


class NoIpv6Bed(Bed):
    def prepare(self):
        with inside(self.pod.ns):
            sysctl("net/ipv6/conf/all/disable_ipv6", 1)
        self.servers.tcp(self.pod, APP, "app", "0.0.0.0")
        self.servers.tcp(self.remote, APP, "remote")


def shared(make):
    """One bed for each mode."""
    return {mode: functools.partial(make, mode) for mode in MODES}


DEFAULT, ROUTER, NO_IPV6 = shared(ClassBed), shared(VmBed), shared(NoIpv6Bed)


def packet_class(number, name, beds=DEFAULT, differs=None):
    """Registers fn(bed, v6). `beds` None: a bed of its own for each row, which the row may break."""

    def add(fn):
        for v6 in (False, True):
            for mode in MODES:
                bed = beds[mode] if beds else functools.partial(Bed, mode)
                tail = f", differs: {differs}" if differs and mode == "bpf" else ""
                table.row(f"{number:02}/{'v6' if v6 else 'v4'}/{mode} {name}{tail}", bed, v6)(fn)
        return fn

    return add


def expect(said, who, local=None, peer=None):
    equal(said.who, who, f"who answers ({said})")
    if local:
        equal(said.local, local, "its local address, the original destination")
    if peer:
        equal(said.peer[0], peer, "its peer, the source")


def outbound(bed, host, ip, port, who="agent=15001"):
    expect(bed.ask(host, ip, port), who, (ip, port))


def datagram(host, ip, to_port, data=b"?", mark=0, port=0):
    """Sends a datagram from a connected socket, so that only an answer from that address counts."""
    with contextlib.closing(host.socket(family(ip), socket.SOCK_DGRAM)) as s:
        if mark:
            s.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        s.bind(("", port))
        s.connect((ip, to_port))
        s.send(data)
        s.settimeout(5)
        return heard(s.recv(1 << 16))


def ping(host, ip):
    """An ICMP echo over a raw socket; fails when no reply comes."""
    v6 = ":" in ip
    with inside(host.ns):
        s = socket.socket(family(ip), socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
    with contextlib.closing(s):
        s.settimeout(5)
        body = struct.pack("!HH", os.getpid() & 0xffff, 1) + b"culvert!"
        head = bytes((128 if v6 else 8, 0))
        s.sendto(head + struct.pack("!H", 0 if v6 else checksum(head + b"\0\0" + body)) + body, (ip, 0))
        while True:
            packet, peer = s.recvfrom(2048)
            reply = packet if v6 else packet[20:]
            if peer[0] == ip and reply[0] == (129 if v6 else 0) and reply[4:] == body:
                return


@packet_class(1, "tcp-to-remote")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    with contextlib.closing(bed.pod.connect(ip, APP)) as s:
        expect(hear(s), "agent=15001", (ip, APP), bed.pod.ip(v6))
        equal(s.getpeername()[:2], (ip, APP), "the app's getpeername")
        check(echoes(s, os.urandom(1 << 18)), "bytes changed")


@packet_class(1, "tcp-and-dns-to-excluded-destination")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    for words in ((f"out={ip}/{128 if v6 else 32}",), ("out=fd71:2::/64" if v6 else "out=10.71.2.0/24",),
                  (f"out-port={APP}", "out-port=53")):
        with bed.configured("dns", *words):
            for port in (APP, 53):
                outbound(bed, bed.pod, ip, port, "remote")
            expect(datagram(bed.pod, ip, 53), "remote")
            outbound(bed, bed.pod, VIP[v6], 80)
    outbound(bed, bed.pod, ip, APP)


@packet_class(2, "tcp-53-to-remote")
def _(bed, v6):
    outbound(bed, bed.pod, bed.remote.ip(v6), 53, "agent=15053")


@packet_class(2, "tcp-53-without-dns-capture")
def _(bed, v6):
    with bed.configured():
        outbound(bed, bed.pod, bed.remote.ip(v6), 53)
    outbound(bed, bed.pod, bed.remote.ip(v6), 53, "agent=15053")


@packet_class(3, "udp-53-to-remote")
def _(bed, v6):
    expect(datagram(bed.pod, bed.remote.ip(v6), 53), "agent=15053")


@packet_class(3, "udp-53-without-dns-capture")
def _(bed, v6):
    with bed.configured():
        expect(datagram(bed.pod, bed.remote.ip(v6), 53), "remote", peer=bed.pod.ip(v6))


@packet_class(3, "udp-53-of-agent-from-a-port-of-the-app")
def _(bed, v6):
    """The agent's own query may leave from a port that the app has just used for the same resolver."""
    ip, port = bed.remote.ip(v6), 30053
    expect(datagram(bed.pod, ip, 53, port=port), "agent=15053")
    expect(datagram(bed.pod, ip, 53, port=port, mark=0x539), "remote", peer=bed.pod.ip(v6))
    expect(datagram(bed.pod, ip, 53, port=port), "agent=15053")


@packet_class(4, "udp-53-over-lo")
def _(bed, v6):
    for ip in (LOOPBACK[v6] if v6 else "127.0.0.53", bed.pod.ip(v6)):
        expect(datagram(bed.pod, ip, 53), "app", (ip, 53))


@packet_class(5, "tcp-53-to-loopback")
def _(bed, v6):
    outbound(bed, bed.pod, LOOPBACK[v6], 53, "app")


@packet_class(6, "tcp-53-to-own-address", differs="untouched")
def _(bed, v6):
    for ip in (bed.pod.ip(v6), *(() if v6 else ("127.0.0.53",))):
        outbound(bed, bed.pod, ip, 53, "app" if bed.mode == "bpf" else "agent=15053")


@packet_class(7, "tcp-to-loopback")
def _(bed, v6):
    outbound(bed, bed.pod, LOOPBACK[v6], APP, "app")


@packet_class(8, "tcp-to-own-address")
def _(bed, v6):
    for ip in (bed.pod.ip(v6), *(() if v6 else ("127.0.0.2",))):
        outbound(bed, bed.pod, ip, APP, "app")


@packet_class(9, "udp-to-remote")
def _(bed, v6):
    expect(datagram(bed.pod, bed.remote.ip(v6), ECHO), "remote", peer=bed.pod.ip(v6))


@packet_class(9, "icmp-to-remote")
def _(bed, v6):
    ping(bed.pod, bed.remote.ip(v6))


@packet_class(9, "sctp-and-raw-to-remote")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    for protocol in (132, 253):
        with contextlib.ExitStack() as stack:
            ends = []
            for host in (bed.remote, bed.pod):
                with inside(host.ns):
                    ends.append(stack.enter_context(socket.socket(family(ip), socket.SOCK_RAW, protocol)))
            there, here = ends
            there.settimeout(5)
            here.sendto(b"anything at all", (ip, 0))
            packet, peer = there.recvfrom(2048)
            equal((packet[-15:], peer[0]), (b"anything at all", bed.pod.ip(v6)), f"protocol {protocol}")


@packet_class(10, "tcp-to-metadata-address")
def _(bed, v6):
    outbound(bed, bed.pod, METADATA[v6], 80)


@packet_class(10, "tcp-to-link-local", differs="fe80::/10 is untouched")
def _(bed, v6):
    if not v6:
        return outbound(bed, bed.pod, "169.254.1.1", APP)
    with inside(bed.pod.ns):
        scope = socket.if_nametoindex("eth0")
    with contextlib.closing(bed.pod.socket(socket.AF_INET6)) as s:
        if bed.mode == "bpf":
            s.connect(("fe80::1", APP, 0, scope))
            return expect(hear(s), "node")
        s.settimeout(1.5)  # redirected to ::1, whose answer has no way back to an address with a scope
        with contextlib.suppress(OSError):
            s.connect(("fe80::1", APP, 0, scope))
            check(hear(s).who != "node", "not captured")


@packet_class(11, "tcp-to-probe-address")
def _(bed, v6):
    expect(bed.ask(bed.pod, PROBE[v6], APP), "node", (PROBE[v6], APP), bed.pod.ip(v6))


@packet_class(12, "tcp-to-service-address")
def _(bed, v6):
    outbound(bed, bed.pod, VIP[v6], 80)


@packet_class(13, "tcp-from-remote")
def _(bed, v6):
    for port in (APP, 9, 53, 15001, 15006, 15053, 15021):
        said = bed.ask(bed.remote, bed.pod.ip(v6), port)
        expect(said, "agent=15006", (bed.pod.ip(v6), port), bed.remote.ip(v6))


@packet_class(13, "tcp-from-remote-to-excluded-port")
def _(bed, v6):
    with bed.configured("dns", f"in-port={APP}"):
        expect(bed.ask(bed.remote, bed.pod.ip(v6), APP), "app", (bed.pod.ip(v6), APP), bed.remote.ip(v6))
        expect(bed.ask(bed.remote, bed.pod.ip(v6), 9), "agent=15006")


@packet_class(14, "tcp-15008-from-remote")
def _(bed, v6):
    expect(bed.ask(bed.remote, bed.pod.ip(v6), 15008), "agent=15008", (bed.pod.ip(v6), 15008), bed.remote.ip(v6))


@packet_class(15, "tcp-from-probe-address")
def _(bed, v6):
    for port, who in ((APP, "app"), (15001, "agent=15001"), (15006, "agent=15006"), (15008, "agent=15008")):
        with contextlib.closing(bed.node.socket(family(PROBE[v6]))) as s:
            s.bind((PROBE[v6], 0))
            s.connect((bed.pod.ip(v6), port))
            expect(hear(s), who, (bed.pod.ip(v6), port), PROBE[v6])


@packet_class(16, "udp-and-icmp-from-remote")
def _(bed, v6):
    for port in (ECHO, 53):
        expect(datagram(bed.remote, bed.pod.ip(v6), port), "app", (bed.pod.ip(v6), port), bed.remote.ip(v6))
    ping(bed.remote, bed.pod.ip(v6))


@packet_class(17, "bypass-inbound-capture")
def _(bed, v6):
    with bed.configured("dns", "bypass"):
        expect(bed.ask(bed.remote, bed.pod.ip(v6), APP), "app", (bed.pod.ip(v6), APP), bed.remote.ip(v6))
        expect(bed.ask(bed.remote, bed.pod.ip(v6), 15008), "agent=15008")
        outbound(bed, bed.pod, bed.remote.ip(v6), APP)
    expect(bed.ask(bed.remote, bed.pod.ip(v6), APP), "agent=15006")


@packet_class(18, "agent-to-anything")
def _(bed, v6):
    remote, own = bed.remote.ip(v6), bed.pod.ip(v6)
    for ip, port, who in ((remote, APP, "remote"), (remote, 53, "remote"), (own, APP, "app"),
                          (LOOPBACK[v6], APP, "app")):
        with contextlib.closing(dial_marked(bed.pod, ip, port)) as s:
            expect(hear(s), who, (ip, port))
            check(echoes(s, os.urandom(1 << 16)), "bytes changed")
    expect(datagram(bed.pod, remote, 53, mark=0x539), "remote", peer=own)
    expect(datagram(bed.pod, remote, 53, mark=0xabcd539), "remote", peer=own)


@packet_class(19, "agent-to-app-from-client-address")
def _(bed, v6):
    with contextlib.closing(dial_marked(bed.pod, bed.pod.ip(v6), APP, (bed.remote.ip(v6), 10240))) as s:
        expect(hear(s), "app", (bed.pod.ip(v6), APP), bed.remote.ip(v6))
        check(echoes(s, os.urandom(1 << 18)), "bytes changed")


@packet_class(20, "agent-to-app-on-loopback-only")
def _(bed, v6):
    listener = bed.servers.tcp(bed.pod, 9090, "app", LOOPBACK[v6])
    try:
        for source in (None, (bed.remote.ip(v6), 10241)):
            with contextlib.suppress(ConnectionRefusedError):
                dial_marked(bed.pod, bed.pod.ip(v6), 9090, source).close()
                raise AssertionError("connected to a listener on loopback through the pod's address")
    finally:
        bed.servers.close(listener)


@packet_class(21, "tcp-on-virtual-interface", ROUTER)
def _(bed, v6):
    with bed.configured("dns", "iface=vif0"):
        for ip in (bed.remote.ip(v6), bed.pod.ip(v6)):
            expect(bed.ask(bed.vm, ip, APP), "agent=15001", (ip, APP), VM[v6])
        expect(bed.ask(bed.remote, bed.pod.ip(v6), APP), "agent=15006")


@packet_class(22, "forwarded-from-unlisted-interface", ROUTER, differs="outbound")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    expect(bed.ask(bed.vm, ip, APP), "agent=15001" if bed.mode == "bpf" else "agent=15006", (ip, APP), VM[v6])


@packet_class(23, "ipv6-disabled", NO_IPV6)
def _(bed, v6):
    if not v6:
        outbound(bed, bed.pod, bed.remote.ip4, APP)
        expect(bed.ask(bed.remote, bed.pod.ip4, APP), "agent=15006")
        return
    try:
        bed.pod.connect(bed.remote.ip6, APP, 2).close()
        raise AssertionError("an IPv6 connection without IPv6")
    except OSError as e:
        check(not isinstance(e, (TimeoutError, ConnectionRefusedError)), f"not refused by the pod's own routing: {e}")
    equal(bed.pod.run("ip", "-6", "rule", "show", "pref", "32764", ok=False), "", "rules")


@packet_class(24, "connection-before-enrolment", None, differs="it stays")
def _(bed, v6):
    bed.unsteer()
    mine = bed.pod.connect(bed.remote.ip(v6), APP)
    theirs = bed.remote.connect(bed.pod.ip(v6), APP)
    with contextlib.closing(mine), contextlib.closing(theirs):
        expect(hear(mine), "remote")
        expect(hear(theirs), "app")
        bed.steer(*bed.config)
        if bed.mode == "bpf":
            check(echoes(mine, os.urandom(1 << 16)) and echoes(theirs, os.urandom(1 << 16)), "bytes changed")
        else:
            try:
                echoes(mine, b"still there?")
                raise AssertionError("a connection from before enrolment works")
            except (ConnectionError, TimeoutError):
                pass
        outbound(bed, bed.pod, bed.remote.ip(v6), APP)
        expect(bed.ask(bed.remote, bed.pod.ip(v6), APP), "agent=15006")


@packet_class(25, "agent-dead", None, differs="waits for the next agent")
def _(bed, v6):
    bed.kill_agent()
    pairs = ((bed.pod, bed.remote.ip(v6), "agent=15001"), (bed.remote, bed.pod.ip(v6), "agent=15006"))
    with contextlib.ExitStack() as stack:
        waiting = []
        for host, ip, who in pairs:
            s = stack.enter_context(host.socket(family(ip)))
            if bed.mode == "iptables":
                with contextlib.suppress(ConnectionRefusedError):
                    s.connect((ip, APP))
                    raise AssertionError(f"connected without an agent: {hear(s)}")
            else:
                s.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    s.connect((ip, APP))
                    raise AssertionError(f"connected without an agent: {hear(s)}")
                waiting.append((s, ip, who))
        bed.start()
        bed.steer(*bed.config)
        for s, ip, who in waiting:
            s.settimeout(10)
            with contextlib.suppress(BlockingIOError):
                s.connect((ip, APP))
            expect(hear(s), who, (ip, APP))
        for host, ip, who in pairs:
            expect(bed.ask(host, ip, APP), who, (ip, APP))


@packet_class(26, "after-un-enrolment", None)
def _(bed, v6):
    pairs = ((bed.pod, bed.remote.ip(v6), "remote"), (bed.remote, bed.pod.ip(v6), "app"))
    with contextlib.ExitStack() as stack:
        through = []
        for host, ip, _ in pairs:
            s = stack.enter_context(contextlib.closing(host.connect(ip, APP)))
            check(hear(s).who.startswith("agent="), "not captured before")
            through.append(s)
        bed.unsteer()
        for s in through:
            with contextlib.suppress(ConnectionError):
                echoes(s, b"still there?")
                raise AssertionError("a captured connection outlives un-enrolment")
        for host, ip, who in pairs:
            expect(bed.ask(host, ip, APP), who, (ip, APP))
    expect(datagram(bed.pod, bed.remote.ip(v6), ECHO), "remote")


@packet_class(26, "during-un-enrolment", None)
def _(bed, v6):
    """New connections are direct, captured ones go on until they end; then the answer comes."""
    pairs = ((bed.pod, bed.remote.ip(v6), "remote"), (bed.remote, bed.pod.ip(v6), "app"))
    with contextlib.ExitStack() as stack:
        through = [stack.enter_context(contextlib.closing(host.connect(ip, APP))) for host, ip, _ in pairs]
        for s in through:
            check(hear(s).who.startswith("agent="), "not captured before")
        bed.driver.tell("detach", bed.pod.uid, 30000)
        for host, ip, who in pairs:
            until(lambda: bed.ask(host, ip, APP).who == who, f"an answer of {who}")
        for s in through:
            check(echoes(s, os.urandom(1 << 16)), "bytes changed")
    bed.driver.answer("detach")
    bed.steered = False


@packet_class(27, "fragments-of-udp")
def _(bed, v6):
    expect(datagram(bed.pod, bed.remote.ip(v6), ECHO, b"x" * 4000), "remote", peer=bed.pod.ip(v6))
    expect(datagram(bed.remote, bed.pod.ip(v6), ECHO, b"x" * 4000), "app", peer=bed.remote.ip(v6))


@packet_class(27, "fragments-of-udp-53", differs="dropped and counted")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    if bed.mode == "iptables":
        return expect(datagram(bed.pod, ip, 53, b"x" * 4000), "agent=15053")
    before = bed.drops()
    with contextlib.suppress(TimeoutError):
        with contextlib.closing(bed.pod.socket(family(ip), socket.SOCK_DGRAM)) as s:
            s.sendto(b"x" * 4000, (ip, 53))
            until(lambda: bed.drops() > before, "a counted drop")


@packet_class(28, "tcp-to-multicast-and-broadcast")
def _(bed, v6):
    for ip in ("ff02::1", "ff0e::1") if v6 else ("224.0.0.1", "255.255.255.255", "10.71.8.255"):
        try:
            s = bed.pod.connect(ip, APP, 2)
        except OSError as e:
            check(not isinstance(e, TimeoutError), f"{ip}: no error at once")
            continue
        raise AssertionError(f"{ip}: {hear(s)}")


@packet_class(29, "second-device")
def _(bed, v6):
    node, pod = SECOND[v6]
    expect(bed.ask(bed.pod, node, APP), "agent=15001", (node, APP), pod)
    expect(bed.ask(bed.node, pod, APP), "agent=15006", (pod, APP), node)


CLIENT = """import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print(s.makefile().readline(), end="")"""


@packet_class(30, "first-process-of-the-pod")
def _(bed, v6):
    ip = bed.remote.ip(v6)
    expect(heard(bed.pod.run(sys.executable, "-c", CLIENT, ip, str(APP)).encode()), "agent=15001", (ip, APP))


@packet_class(31, "terminating-pod", None)
def _(bed, v6):
    bed.servers.close_all("app")
    ip = bed.remote.ip(v6)
    expect(heard(bed.pod.run(sys.executable, "-c", CLIENT, ip, str(APP)).encode()), "agent=15001", (ip, APP))
    expect(bed.ask(bed.remote, bed.pod.ip(v6), APP), "agent=15006", (bed.pod.ip(v6), APP))


if __name__ == "__main__":
    table.main()
