# SPDX-License-Identifier: Apache-2.0
"""An HBONE server by hand, for rows in which it does wrong: TLS, the preface, and from there what the row wants."""
import contextlib
import socket
import ssl
import struct
import threading

from . import h2


class Server:
    """Serves one address of a pod on 15008; `behave(self, socket)` runs in a thread for each connection."""

    def __init__(self, bed, pod, v6, behave, cert=None):
        self.pod, self.ip, self.behave, self.accepted = pod, pod.ip(v6), behave, 0
        self.socks, self.threads, self.over = [], [], threading.Event()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*(cert or bed.cert(pod.spiffe)))
        self.tls.load_verify_locations(bed.ca.cert)
        self.tls.verify_mode = ssl.CERT_REQUIRED
        self.tls.set_alpn_protocols(["h2"])
        self.listener = pod.listen(15008, self.ip)
        self.listener.settimeout(None)
        self._start(self._accept)

    def _start(self, target, *args):
        self.threads.append(threading.Thread(target=target, args=args, daemon=True))
        self.threads[-1].start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        """A descriptor is closed when no thread reads it any more: its number may be another file's a moment later."""
        self.over.set()
        for thread in self.threads:  # grows as long as the first, which accepts, runs
            while thread.is_alive():
                for s in [self.listener, *self.socks]:
                    with contextlib.suppress(OSError):
                        s.shutdown(socket.SHUT_RDWR)
                thread.join(0.05)
        for s in [self.listener, *self.socks]:
            s.close()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.socks.append(s)
            self._start(self._run, s)

    def _run(self, s):
        s.settimeout(120)
        with contextlib.suppress(OSError):
            self.behave(self, s)

    def open_tls(self, s):
        s = self.tls.wrap_socket(s, server_side=True, do_handshake_on_connect=False)
        self.socks.append(s)
        s.do_handshake()
        return s

    def open_http2(self, s):
        """TLS, the client's preface, our SETTINGS; a wire that does the housekeeping in take()."""
        wire = h2.Wire(self.open_tls(s))
        wire._take(len(h2.PREFACE))
        wire.send(h2.SETTINGS, 0, 0)
        return wire


class Recorder(Server):
    """Answers 200 to all and keeps what it was asked: (flags, fields)."""

    def __init__(self, bed, pod, v6):
        self.requests = []
        super().__init__(bed, pod, v6, Recorder.serve)

    def serve(self, s):
        wire, reader = self.open_http2(s), h2.HeaderReader()
        while True:
            kind, flags, stream, payload = take(wire)
            if kind == h2.HEADERS:
                self.requests.append((flags, reader.read(payload)))
                wire.send(h2.HEADERS, h2.END_HEADERS, stream, h2.header_block([(":status", "200")]))


def take(wire):
    """The next frame that is not housekeeping."""
    while True:
        kind, flags, stream, payload = wire.recv()
        if kind == h2.SETTINGS and not flags & h2.ACK:
            wire.send(h2.SETTINGS, h2.ACK, 0)
        elif kind == h2.PING and not flags & h2.ACK:
            wire.send(h2.PING, h2.ACK, 0, payload)
        elif kind not in (h2.SETTINGS, h2.PING, h2.WINDOW_UPDATE):
            return kind, flags, stream, payload


def to_each_request(act):
    """A behaviour: act(wire, stream) for each CONNECT; the rest is left unanswered."""

    def behave(server, s):
        wire = server.open_http2(s)
        while True:
            kind, _, stream, _ = take(wire)
            if kind == h2.HEADERS:
                act(wire, stream)

    return behave


def answers(fields, then=b"", end=False):
    def answer(wire, stream):
        wire.send(h2.HEADERS, h2.END_HEADERS | (h2.END_STREAM if end else 0), stream, h2.header_block(fields))
        if then:
            wire.send(h2.DATA, 0, stream, then)

    return to_each_request(answer)


def resetting(code):
    return to_each_request(lambda wire, stream: wire.send(h2.RST_STREAM, 0, stream, struct.pack(">I", code)))
