# SPDX-License-Identifier: Apache-2.0
"""istio-cni's end of ZDS: tells a tunnel which pods there are (SOCK_SEQPACKET, one protobuf message a packet)."""
import os
import socket
import threading

from .ca import encode, fields


class ZdsServer:
    """`pods` (uid -> Pod) is the snapshot; add() and remove() change it live. `acks` collects the answers' errors."""

    def __init__(self, path):
        self.path, self.pods, self.conns, self.acks = path, {}, [], []
        self.hello, self.lock = [], threading.RLock()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for c in self.conns:
                c.close()
        os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            c.settimeout(10)
            try:
                with self.lock:
                    self.hello.append(c.recv(1024))
                    for pod in list(self.pods.values()):
                        self._add(c, pod)
                    self._ask(c, encode(3, b""))
                    self.conns.append(c)
            except OSError:
                c.close()

    def _ask(self, c, message, fds=()):
        socket.send_fds(c, [message], list(fds))
        answer = c.recv(1024)
        if not answer:
            raise ConnectionError("ZDS peer left")
        ack = dict(fields(answer)).get(1, b"")
        error = dict(fields(ack)).get(1, b"").decode()
        self.acks.append(error)
        return error

    def _add(self, c, pod, netns=None, sockets=()):
        """`sockets`: (number in our extension, descriptor)."""
        info = encode(1, pod.name.encode()) + encode(2, pod.namespace.encode()) + encode(3, pod.sa.encode())
        more = encode(100, bytes(n for n, _ in sockets)) if sockets else b""
        with open(netns or f"/run/netns/{pod.ns}", "rb") as ns:
            return self._ask(c, encode(1, encode(1, pod.uid.encode()) + encode(2, info) + more),
                             [ns.fileno(), *(fd for _, fd in sockets)])

    def _each(self, fn):
        with self.lock:
            for c in list(self.conns):
                try:
                    fn(c)
                except OSError:
                    self.conns.remove(c)

    def add(self, pod):
        with self.lock:
            self.pods[pod.uid] = pod
            self._each(lambda c: self._add(c, pod))

    def offer(self, pod, netns=None, sockets=()):
        """Adds a pod that is not kept here; what the newest tunnel answers."""
        with self.lock:
            return self._add(self.conns[-1], pod, netns, sockets)

    def remove(self, pod):
        with self.lock:
            del self.pods[pod.uid]
            self._each(lambda c: self._ask(c, encode(2, encode(2, pod.uid.encode()))))
