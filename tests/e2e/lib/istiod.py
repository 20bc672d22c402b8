# SPDX-License-Identifier: Apache-2.0
"""The stand-in for istiod (tests/fake/istiod.c) in a node's namespace: the mesh of a test's file by xDS, and certificates."""
import json
import os
import subprocess
import threading

from .net import scale, stop

BUILD = os.path.abspath(os.environ.get("B", "build"))
PROGRAM = f"{BUILD}/tests/fake/istiod"


class Istiod:
    """`address` is what XDS_ADDRESS and CA_ADDRESS want. Each method is one line to the program."""

    def __init__(self, host, ip, folder, ca, port=15012, mesh=None, token="test"):
        if not os.access(PROGRAM, os.X_OK):
            raise FileNotFoundError(f"{os.path.relpath(PROGRAM)} is not built: make {os.path.relpath(PROGRAM)}")
        self.host, self.ip, self.port, self.ca, self.token = host, ip, port, ca, token
        self.root, self.address, self.mesh = f"{folder}/istiod-root.pem", f"https://{ip}:{port}", mesh
        self.process, self.lock = None, threading.Lock()

    def start(self):
        argv = [PROGRAM, "--listen", self.ip, "--port", str(self.port), "--root", self.root, "--token", self.token,
                "--cert", self.ca.cert, "--key", self.ca.key]
        if self.mesh:
            argv += ["--mesh", self.mesh]
        self.process = self.host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"istiod did not start: {line!r}")
        return self

    def close(self):
        stop(self.process, scale.deadline(5))

    def env(self):
        """What makes an agent use it for the mesh; LOCAL_XDS_PATH would be read as well."""
        return {"XDS_ADDRESS": self.address, "XDS_ROOT_CA": self.root, "AUTH_TOKEN": self.token, "LOCAL_XDS_PATH": None}

    def env_ca(self):
        """And for certificates."""
        return {"CA_ADDRESS": self.address, "CA_ROOT_CA": self.root, "AUTH_TOKEN": self.token, "CULVERT_CA_CERT": "",
                "CULVERT_CA_KEY": ""}

    def say(self, line):
        with self.lock:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise AssertionError(f"istiod: {line[:60]}: {answer}")
        return answer[3:]

    def load(self, path=None):
        self.mesh = path or self.mesh
        self.say(f"load {self.mesh}")

    def state(self):
        return json.loads(self.say("state"))

    def seen(self):
        """Requests since the last call."""
        return json.loads(self.say("seen"))
