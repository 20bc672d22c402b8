# SPDX-License-Identifier: Apache-2.0
"""Just enough HTTP/2 to speak HBONE by hand: frames, and header blocks without tables on the way out. Used as a client that may do
wrong things, and by the certificate authority."""
import ctypes
import ssl
import struct
import threading
import weakref

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0, 2, 7, 8


def header_block(fields):
    """Literals without indexing, no Huffman."""
    out = bytearray()
    for name, value in fields:
        out += b"\x00" + hpack_int(len(name), 7) + name.encode() + hpack_int(len(value), 7) + value.encode("latin-1")
    return bytes(out)


def hpack_int(n, bits):
    top = (1 << bits) - 1
    if n < top:
        return bytes([n])
    out, n = bytearray([top]), n - top
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


class Field(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("value", ctypes.c_void_p), ("name_len", ctypes.c_size_t), ("value_len", ctypes.c_size_t),
                ("flags", ctypes.c_uint8)]


class HeaderReader:
    """One direction's decoder: nghttp2's."""

    def __init__(self):
        self.lib = ctypes.CDLL("libnghttp2.so.14")
        self.lib.nghttp2_hd_inflate_hd2.restype = ctypes.c_ssize_t
        self.state = ctypes.c_void_p()
        if self.lib.nghttp2_hd_inflate_new(ctypes.byref(self.state)):
            raise MemoryError
        weakref.finalize(self, self.lib.nghttp2_hd_inflate_del, self.state)

    def read(self, block):
        """[(name, value)] of a whole block."""
        fields, flags = [], ctypes.c_int()
        while not flags.value & 1:  # the last one
            nv = Field()
            n = self.lib.nghttp2_hd_inflate_hd2(self.state, ctypes.byref(nv), ctypes.byref(flags), block, ctypes.c_size_t(len(block)), 1)
            if n < 0:
                raise ValueError(f"HPACK: {n}")
            block = block[n:]
            if flags.value & 2:
                fields.append(tuple(ctypes.string_at(*x).decode("latin-1") for x in ((nv.name, nv.name_len), (nv.value, nv.value_len))))
        self.lib.nghttp2_hd_inflate_end_headers(self.state)
        return fields


class Wire:
    """Frames over a socket."""

    def __init__(self, sock):
        self.sock, self.buf, self.lock = sock, b"", threading.Lock()

    def send(self, kind, flags, stream, payload=b""):
        with self.lock:
            self.sock.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def _take(self, n):
        while len(self.buf) < n:
            chunk = self.sock.recv(1 << 16)
            if not chunk:
                raise ConnectionError("end of file in HTTP/2")
            self.buf += chunk
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def recv(self):
        head = self._take(9)
        n = int.from_bytes(head[:3], "big")
        return head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, self._take(n)


class Client:
    """An HBONE client. `cert`: (path, key path) or None; `alpn`: list or None."""

    def __init__(self, host, ip, ca, cert, port=15008, alpn=("h2",), preface=True, timeout=10):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(ca.cert)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if cert:
            context.load_cert_chain(*cert)
        raw = host.connect(ip, port, timeout=timeout)
        try:
            self.tls = context.wrap_socket(raw)
        except OSError:
            raw.close()
            raise
        self.wire, self.headers, self.next = Wire(self.tls), HeaderReader(), 1
        self.goaway, self.initial, self.window = [], 65535, {0: 65535}
        if preface:
            self.tls.sendall(PREFACE)
            self.wire.send(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 24))
            self.wire.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 26))

    def close(self):
        self.tls.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def request(self, fields, end=False):
        stream, self.next = self.next, self.next + 2
        self.wire.send(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, header_block(fields))
        return stream

    def connect(self, authority, *more):
        fields = [(":method", "CONNECT")] + ([(":authority", authority)] if authority is not None else [])
        return self.request(fields + list(more))

    def event(self, stream=None, updates=False):
        """The next frame that is not housekeeping: (kind, flags, stream, payload or fields)."""
        while True:
            kind, flags, sid, payload = self.wire.recv()
            if kind == SETTINGS and not flags & ACK:
                for i in range(0, len(payload), 6):
                    name, value = struct.unpack(">HI", payload[i:i + 6])
                    if name == 4:
                        self.initial = value
                self.wire.send(SETTINGS, ACK, 0)
            elif kind == WINDOW_UPDATE:
                default = 0 if sid == 0 else self.initial
                self.window[sid] = self.window.get(sid, default) + int.from_bytes(payload, "big")
                if updates:
                    return kind, flags, sid, payload
            elif kind == PING and not flags & ACK:
                self.wire.send(PING, ACK, 0, payload)
            elif kind == GOAWAY:
                self.goaway.append(struct.unpack(">II", payload[:8]))
                if stream is None:
                    return kind, flags, sid, payload
            elif kind == HEADERS:
                fields = self.headers.read(payload)
                if stream in (None, sid):
                    return kind, flags, sid, fields
            elif kind in (DATA, RST_STREAM) and stream in (None, sid):
                return kind, flags, sid, payload

    def status(self, stream):
        """The response's status, or "RST n"."""
        kind, _, _, got = self.event(stream)
        if kind == RST_STREAM:
            return f"RST {int.from_bytes(got, 'big')}"
        return dict(got).get(":status")

    def data(self, stream, payload, end=False):
        self.wire.send(DATA, END_STREAM if end else 0, stream, payload)

    def fill(self, *streams, limit=64 << 20):
        """Sends what the windows take until they stay empty for a second; the number of bytes."""
        sent, chunk = 0, bytes(16384)
        self.tls.settimeout(1)
        for stream in streams:
            self.window.setdefault(stream, self.initial)
        while sent < limit:
            stream = max(streams, key=self.window.get)
            n = min(self.window[0], self.window[stream], len(chunk))
            if n > 0:
                self.data(stream, chunk[:n])
                self.window[0] -= n
                self.window[stream] -= n
                sent += n
                continue
            try:
                self.event(updates=True)
            except TimeoutError:
                break
        self.tls.settimeout(10)
        return sent

    def read(self, stream, n):
        """n bytes of a stream."""
        out = b""
        while len(out) < n:
            kind, flags, _, payload = self.event(stream)
            if kind == DATA:
                out += payload
                if payload:
                    self.wire.send(WINDOW_UPDATE, 0, stream, struct.pack(">I", len(payload)))
            if kind == RST_STREAM or (kind == DATA and flags & END_STREAM and len(out) < n):
                raise ConnectionError(f"stream ended after {len(out)} of {n}")
        return out
