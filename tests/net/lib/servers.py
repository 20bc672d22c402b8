# SPDX-License-Identifier: Apache-2.0
"""Servers that say who answers: a peer's first line is "WORD local=ADDR:PORT peer=ADDR:PORT", then TCP echoes until the
end of file. All of a Servers object live in one thread."""
import collections
import contextlib
import os
import selectors
import socket
import threading
from urllib.parse import urlsplit

from topology import family

SO_MARK, IP_TRANSPARENT, IPV6_TRANSPARENT = 36, 19, 75
AGENT_MARK = 0x539


def text(address):
    ip = address[0].removeprefix("::ffff:")
    return f"[{ip}]:{address[1]}" if ":" in ip else f"{ip}:{address[1]}"


class Said(dict):
    """The line of a server or of the agent: `who`, and its local and peer addresses as (ip, port)."""

    def __init__(self, line):
        words = line.split()
        super().__init__(w.split("=", 1) for w in words if "=" in w)
        self.line = line.strip()
        self.who = words[0] if words else "nobody"
        self.local, self.peer = self._address("local"), self._address("peer")

    def _address(self, key):
        u = urlsplit(f"//{self[key]}") if key in self else None
        return (u.hostname, u.port) if u else None

    def __repr__(self):
        return self.line


def heard(data):
    return Said(data.decode())


def hear(s):
    """The first line of a TCP socket."""
    line = b""
    while not line.endswith(b"\n"):
        c = s.recv(1)
        if not c:
            raise ConnectionError(f"end of file after {line!r}")
        line += c
    return heard(line)


def echoes(s, what):
    """Is the connection alive from end to end?"""
    s.sendall(what)
    got = b""
    while len(got) < len(what):
        chunk = s.recv(len(what) - len(got))
        if not chunk:
            raise ConnectionError("end of file instead of an echo")
        got += chunk
    return got == what


def dial_marked(host, ip, port, source=None, mark=AGENT_MARK, timeout=5):
    """Connects as the agent does: marked, and from somebody else's address when `source` says so."""
    v6 = ":" in ip
    s = host.socket(family(ip))
    s.settimeout(timeout)
    try:
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        if source:
            s.setsockopt(*((socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if v6 else (socket.IPPROTO_IP, IP_TRANSPARENT)), 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(source)
        s.connect((ip, port))
    except OSError:
        s.close()
        raise
    return s


class Servers:
    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.lock, self.open = threading.Lock(), {}
        self.accepted = collections.Counter()  # by word
        self.waker, self.wake = os.pipe()
        self.stopping = False
        self.selector.register(self.waker, selectors.EVENT_READ, lambda: None)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stopping = True
        os.write(self.wake, b"x")
        self.thread.join(5)
        for s in list(self.open):
            s.close()
        self.selector.close()
        os.close(self.waker)
        os.close(self.wake)

    def tcp(self, host, port, word, ip="::", prepare=None, close=False):
        """`prepare` makes the listener; `close`: the server ends connections after its line."""
        s = prepare(host, port, ip) if prepare else host.listen(port, ip)
        return self._add(s, word, lambda: self._accept(s, word, close))

    def udp(self, host, port, word, ip):
        s = host.socket(family(ip), socket.SOCK_DGRAM)
        s.bind((ip, port))
        return self._add(s, word, lambda: self._datagram(s, word))

    def close(self, s):
        with self.lock:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(s)
            self.open.pop(s, None)
            s.close()

    def close_all(self, word):
        """Ends the servers of `word` and their connections."""
        for s in [s for s, w in list(self.open.items()) if w == word]:
            self.close(s)

    def _add(self, s, word, ready):
        s.setblocking(False)
        with self.lock:
            self.open[s] = word
            self.selector.register(s, selectors.EVENT_READ, ready)
        return s

    def _run(self):
        while not self.stopping:
            for key, _ in self.selector.select(0.2):
                with contextlib.suppress(OSError, ValueError):
                    key.data()

    def _accept(self, listener, word, close):
        s, peer = listener.accept()
        self.accepted[word] += 1
        s.settimeout(5)
        s.sendall(f"{word} local={text(s.getsockname())} peer={text(peer)}\n".encode())
        if close:
            s.close()
        else:
            self._add(s, word, lambda: self._echo(s))

    def _echo(self, s):
        try:
            data = s.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            s.setblocking(True)
            s.sendall(data)
            s.setblocking(False)
        else:
            self.close(s)

    def _datagram(self, s, word):
        _, peer = s.recvfrom(1 << 16)
        s.sendto(f"{word} local={text(s.getsockname())} peer={text(peer)}\n".encode(), peer)
