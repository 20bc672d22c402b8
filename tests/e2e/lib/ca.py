# SPDX-License-Identifier: Apache-2.0
"""A stand-in for istiod's certificate service (istio.v1.auth): gRPC over TLS, one method, any caller, every identity
that is asked for. Reads no header block; the request's protobuf is enough. What a row changes of it counts from the next
request on: `ca` and `roots` (PEM; else the CA's own), `lifetime` (seconds), `refuse` and `silent`."""
import socket
import ssl
import struct
import threading

from . import h2


def varint(data, at):
    n = shift = 0
    while True:
        b = data[at]
        n |= (b & 127) << shift
        at, shift = at + 1, shift + 7
        if not b & 128:
            return n, at


def fields(data):
    """(number, value) of a protobuf message: int or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            n, at = varint(data, at)
            value, at = data[at:at + n], at + n
        else:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, value


def encode(number, value):
    """One length-delimited field."""
    out, n = bytearray([number << 3 | 2]) if number < 16 else bytearray(uvarint(number << 3 | 2)), len(value)
    return bytes(out) + uvarint(n) + value


def uvarint(n):
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


class CaServer:
    """Serves on 127.0.0.1 of `host`'s namespace; `address` is what CA_ADDRESS wants. `identity`: the caller's own, who asks for
    no other; else callers name the pod that they ask for."""

    def __init__(self, host, ca, identity=None):
        self.identity, self.over = identity, False
        self.ca, self.issued, self.refuse, self.silent, self.asked = ca, [], False, False, 0
        self.roots, self.lifetime, self.refused = None, None, 0
        cert, key = ca.leaf("DNS:localhost,IP:127.0.0.1")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(cert, key)
        self.tls.set_alpn_protocols(["h2"])
        self.listener = host.listen(15012, "127.0.0.1")
        self.listener.settimeout(None)
        self.address, self.root = "https://localhost:15012", ca.cert
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.over = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            s.settimeout(None)
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, raw):
        try:
            with self.tls.wrap_socket(raw, server_side=True) as s:
                wire, body = h2.Wire(s), {}
                wire._take(len(h2.PREFACE))
                wire.send(h2.SETTINGS, 0, 0)
                while True:
                    kind, flags, stream, payload = wire.recv()
                    if kind == h2.SETTINGS and not flags & h2.ACK:
                        wire.send(h2.SETTINGS, h2.ACK, 0)
                    elif kind == h2.PING and not flags & h2.ACK:
                        wire.send(h2.PING, h2.ACK, 0, payload)
                    elif kind == h2.DATA:
                        body[stream] = body.get(stream, b"") + payload
                        if payload:
                            wire.send(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
                        if flags & h2.END_STREAM:
                            self._answer(wire, stream, body.pop(stream))
                    elif kind == h2.GOAWAY:
                        return
        except (OSError, ConnectionError):
            return
        except AssertionError:  # openssl without its files, which go first
            if not self.over:
                raise

    def _answer(self, wire, stream, message):
        kind = h2.header_block([(":status", "200"), ("content-type", "application/grpc")])
        if self.silent:
            self.asked += 1
            return
        if self.refuse:
            self.refused += 1
            trailer = h2.header_block([(":status", "200"), ("content-type", "application/grpc"),
                                       ("grpc-status", "14"), ("grpc-message", "refused by the test")])
            wire.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, trailer)
            return
        request = dict(fields(message[5:]))
        if self.identity and 4 in request:
            raise ValueError("metadata of a caller that asks for itself")
        identity = self.identity or impersonated(request.get(4, b""))
        self.issued.append(identity)
        ca = self.ca
        chain = [ca.sign(request[1].decode(), f"URI:{identity}", seconds=self.lifetime)]
        while ca.parent:
            chain.append(ca.root())
            ca = ca.parent
        reply = b"".join(encode(1, c.encode()) for c in (*chain, self.roots or ca.root()))
        wire.send(h2.HEADERS, h2.END_HEADERS, stream, kind)
        wire.send(h2.DATA, 0, stream, b"\0" + struct.pack(">I", len(reply)) + reply)
        wire.send(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, h2.header_block([("grpc-status", "0")]))


def impersonated(struct_bytes):
    """metadata.fields["ImpersonatedIdentity"].string_value"""
    for number, entry in fields(struct_bytes):
        pair = dict(fields(entry))
        if number == 1 and pair.get(1) == b"ImpersonatedIdentity":
            return dict(fields(pair[2]))[3].decode()
    raise ValueError("no ImpersonatedIdentity")
