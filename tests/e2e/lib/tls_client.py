# SPDX-License-Identifier: Apache-2.0
"""The client's side of HBONE's TLS, for clients that do not ask who answers: with a socket, without one, and its first message."""
import contextlib
import ssl

from .rows import check

HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)


def trusting(*cert):
    """A context that takes any server; `cert`: path, key path, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if cert:
        context.load_cert_chain(*cert)
    return context


class Bytes:
    """A client's TLS without its socket."""

    def __init__(self, *cert):
        self.came, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = trusting(*cert).wrap_bio(self.came, self.sent)

    def hello(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.sent.read()

    def until(self, s, do):
        """What it says, when it has read enough."""
        while True:
            try:
                got = do()
                s.sendall(self.sent.read())
                return got
            except ssl.SSLWantReadError:
                s.sendall(self.sent.read())
                check(self.came.write(s.recv(1 << 16)), "the end of the connection")


HELLO = Bytes().hello()
