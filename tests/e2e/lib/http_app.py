# SPDX-License-Identifier: Apache-2.0
"""An application that speaks HTTP/1.1, in a pod: it tells what it was asked, takes and gives bytes, and answers by halves."""
import hashlib
import http.server
import json
import threading

from . import traffic


class App(http.server.ThreadingHTTPServer):
    """On all addresses of `host`. What it got of a request is its answer."""

    def __init__(self, host, port):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = host.listen(port)
        self.socket.settimeout(None)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def server_bind(self):
        pass

    def handle_error(self, request, client):
        pass  # rows cut connections

    def __exit__(self, *exc):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        """With a number as path so many bytes, of which the last never come."""
        if self.path.strip("/").isdigit():
            self.answer(bytes(int(self.path[1:]) // 2), int(self.path[1:]))
            self.rfile.read(1)
            return
        self.answer(json.dumps({"from": self.client_address[0].removeprefix("::ffff:"), **{k.lower(): v for k, v in self.headers.items()}}).encode())

    def do_POST(self):
        """The body's hash as a header, and as many other bytes."""
        left, digest = int(self.headers["content-length"]), hashlib.sha256()
        size = left
        while left:
            chunk = self.rfile.read(min(left, traffic.MIB))
            digest.update(chunk)
            left -= len(chunk)
        self.answer(bytes(traffic.random_bytes(2 * size)[size:]), x_hash=digest.hexdigest())

    def answer(self, body, length=None, **headers):
        self.send_response(200)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
