# SPDX-License-Identifier: Apache-2.0
"""DNS messages as bytes, clients that ask in a pod, and a resolver that serves what a test tells it."""
import contextlib
import ipaddress
import os
import shutil
import socket
import struct
import threading
import time

from .net import PATIENCE, read_exactly

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, HTTPS, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 65, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
DO, CD, AD, RA, RD, TC, AA, QR = 0x8000, 0x10, 0x20, 0x80, 0x100, 0x200, 0x400, 0x8000


def name_bytes(name):
    return b"".join(bytes([len(x)]) + x.encode() for x in name.rstrip(".").split(".") if x) + b"\0"


def query(name, qtype=A, ident=None, edns=0, dnssec=False, flags=RD, qclass=1, options=b"", version=0):
    """`edns`: the size of a datagram that it takes."""
    ident = int.from_bytes(os.urandom(2), "big") if ident is None else ident
    head = struct.pack(">6H", ident, flags, 1, 0, 0, 1 if edns else 0)
    opt = b"\0" + struct.pack(">HHBBHH", OPT, edns, 0, version, DO if dnssec else 0, len(options)) + options if edns else b""
    return head + name_bytes(name) + struct.pack(">HH", qtype, qclass) + opt


def read_name(msg, at):
    labels, end = [], None
    while n := msg[at]:
        if n >= 0xc0:
            end = end or at + 2
            at = (n & 0x3f) << 8 | msg[at + 1]
            continue
        labels.append(msg[at + 1:at + 1 + n].decode("latin-1"))
        at += 1 + n
    return ".".join(labels), end or at + 1


class Message:
    """A message's parts; records are (owner, type, ttl, data) with readable data."""

    def __init__(self, msg):
        self.bytes, self.size = msg, len(msg)
        self.id, self.flags, *counts = struct.unpack_from(">6H", msg)
        self.rcode, self.tc, self.aa, self.ra = self.flags & 15, bool(self.flags & TC), bool(self.flags & AA), bool(self.flags & RA)
        at, self.questions = 12, []
        for _ in range(counts[0]):
            name, at = read_name(msg, at)
            self.questions.append((name, *struct.unpack_from(">HH", msg, at)))
            at += 4
        self.answers, self.authority, self.additional, self.edns = [], [], [], None
        for section, n in zip((self.answers, self.authority, self.additional), counts[1:]):
            for _ in range(n):
                owner, at = read_name(msg, at)
                rtype, rclass, ttl, size = struct.unpack_from(">HHIH", msg, at)
                at += 10
                if rtype == OPT:
                    self.edns = (rclass, ttl >> 16 & 0xff, bool(ttl & DO))
                else:
                    section.append((owner, rtype, ttl, self.data(rtype, at, size)))
                at += size
        self.behind = len(msg) - at  # bytes that belong to nothing

    def data(self, rtype, at, size):
        raw = self.bytes[at:at + size]
        if rtype in (A, AAAA):
            return str(ipaddress.ip_address(raw))
        if rtype in (CNAME, NS, PTR):
            return read_name(self.bytes, at)[0]
        if rtype == SOA:
            first, end = read_name(self.bytes, at)
            second, end = read_name(self.bytes, end)
            return (first, second, *struct.unpack_from(">5I", self.bytes, end))
        return raw

    def addresses(self):
        return sorted(data for _, rtype, _, data in self.answers if rtype in (A, AAAA))


def udp(pod, server, msg, timeout=PATIENCE):
    """The answer, or None when there is none in time. Only the server's own answer comes through."""
    with pod.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        s.connect((server, 53))
        s.send(msg)
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                got = s.recv(65535)
            except TimeoutError:
                break
            if got[:2] == msg[:2]:
                return Message(got)
    return None


def send_message(s, msg):
    s.sendall(struct.pack(">H", len(msg)) + msg)


def recv_message(s):
    return Message(read_exactly(s, struct.unpack(">H", read_exactly(s, 2))[0]))


def tcp(pod, server, msg, timeout=PATIENCE):
    with pod.connect(server, 53, timeout=timeout) as s:
        send_message(s, msg)
        return recv_message(s)


def record(name, rtype, ttl, data):
    return name_bytes(name) + struct.pack(">HHIH", rtype, 1, ttl, len(data)) + data


def soa(zone, ttl=60, minimum=60):
    return record(zone, SOA, ttl, name_bytes("ns." + zone) + name_bytes("admin." + zone) + struct.pack(">5I", 7, 3600, 600, 86400, minimum))


def address_records(name, ips, ttl=60):
    return [record(name, AAAA if ":" in ip else A, ttl, ipaddress.ip_address(ip).packed) for ip in ips]


class Resolver:
    """Serves on port 53 of a host, UDP and TCP, both families. `names`: {(name, type): records}; an answer's records, or
    "silent", or an rcode; or a function of the query's Message that returns one of these. Of other names there are none, with the SOA of
    their last label; of known names with other types there is nothing. `seen`: (name, type, transport, source, Message)."""

    def __init__(self, host, ips):
        self.names, self.seen, self.stack, self.lock = {}, [], contextlib.ExitStack(), threading.Lock()
        self.closing = False
        for ip in ips:
            s = host.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
            self.stack.callback(s.close)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            s.bind((ip, 53))
            s.settimeout(0.2)
            listener = host.listen(53, ip)
            self.stack.callback(listener.close)
            listener.settimeout(0.2)
            threading.Thread(target=self.serve_udp, args=(s,), daemon=True).start()
            threading.Thread(target=self.serve_tcp, args=(listener,), daemon=True).start()

    def close(self):
        self.closing = True
        time.sleep(0.25)  # each thread sees it at its next look
        self.stack.close()

    def add(self, name, *ips, ttl=60, rtype=None):
        for rtype in {AAAA if ":" in ip else A for ip in ips}:
            self.names[name, rtype] = address_records(name, [ip for ip in ips if (":" in ip) == (rtype == AAAA)], ttl)

    def count(self, name, rtype=A):
        with self.lock:
            return sum(1 for n, t, *_ in self.seen if (n, t) == (name, rtype))

    def answer(self, msg, transport, source, room):
        q = Message(msg)
        name, rtype, rclass = q.questions[0]
        name = name.lower()
        with self.lock:
            self.seen.append((name, rtype, transport, source, q))
        found = self.names.get((name, rtype))
        if callable(found):
            found = found(q)
        if found == "silent":
            return None
        rcode, authority = NOERROR, []
        if isinstance(found, int):
            rcode, found = found, []
        elif found is None:
            rcode = NOERROR if any(n == name for n, _ in self.names) else NXDOMAIN
            found, authority = [], [soa(name.rpartition(".")[2])]
        question = msg[12:12 + len(name_bytes(name)) + 4]
        opt = [b"\0" + struct.pack(">HHBBHH", OPT, 1232, 0, 0, DO if q.edns[2] else 0, 0)] if q.edns else []
        flags = QR | RA | q.flags & (RD | CD) | rcode

        def whole(answers, more=0):
            return struct.pack(">6H", q.id, flags | more, 1, len(answers), len(authority), len(opt)) + question + \
                b"".join([*answers, *authority, *opt])

        out = whole(found)
        return out if len(out) <= room(q) else whole([], TC)

    def serve_udp(self, s):
        while not self.closing:
            try:
                msg, source = s.recvfrom(65535)
            except TimeoutError:
                continue
            except OSError:
                return
            out = self.answer(msg, "udp", source[0], lambda q: max(q.edns[0], 512) if q.edns else 512)
            if out:
                s.sendto(out, source)

    def serve_tcp(self, listener):
        while not self.closing:
            try:
                s, source = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self.serve_connection, args=(s, source[0]), daemon=True).start()

    def serve_connection(self, s, source):
        with s, contextlib.suppress(OSError):
            s.settimeout(PATIENCE)
            while True:
                out = self.answer(read_exactly(s, struct.unpack(">H", read_exactly(s, 2))[0]), "tcp", source, lambda q: 65535)
                if out:
                    s.sendall(struct.pack(">H", len(out)) + out)


@contextlib.contextmanager
def resolv_conf(node, *servers):
    """The node's agent finds these in /etc/resolv.conf: `ip netns exec` gives it the files of /etc/netns/NAME."""
    etc = f"/etc/netns/{node.ns}"
    os.makedirs(etc)
    try:
        with open(f"{etc}/resolv.conf", "w") as f:
            f.write("".join(f"nameserver {x}\n" for x in servers))
        yield
    finally:
        shutil.rmtree(etc)
