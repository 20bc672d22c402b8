# SPDX-License-Identifier: Apache-2.0
"""A containerd of a test's own: root, state, sockets, configuration and images in a folder, in a node's network namespace;
and as much of CRI (gRPC over HTTP/2 by hand) as a kubelet needs for the sandbox of a pod."""
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile

from .ca import encode, fields, uvarint
from .h2 import (ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
                 HeaderReader, Wire, header_block)
from .net import sh, stop
from .rows import Skip, check, until

PACKAGES = {"containerd": "containerd", "runc": "runc", "ctr": "containerd", "/usr/lib/cni/bridge":
            "containernetworking-plugins", "/bin/busybox": "busybox-static"}
IMAGE = "culvert.test/canary:1"


def need():
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if missing:
        raise Skip(f"not installed: {', '.join(missing)} (apt-get install)")
    if os.geteuid():
        raise Skip("needs root for containers")


def image(path, command):
    """An OCI image archive: busybox, which does `command` in a shell."""
    def blob(out, data):
        digest = hashlib.sha256(data).hexdigest()
        put(out, f"blobs/sha256/{digest}", data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def put(out, name, data, mode=0o644):
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        out.addfile(info, io.BytesIO(data))

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as t:
        with open("/bin/busybox", "rb") as f:
            put(t, "bin/busybox", f.read(), 0o755)
    with tarfile.open(path, "w") as out:
        put(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        files = blob(out, layer.getvalue())
        config = blob(out, json.dumps({
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox", "sh", "-c", command]},
            "rootfs": {"type": "layers", "diff_ids": [files["digest"]]}}).encode())
        manifest = blob(out, json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **files}]}).encode())
        put(out, "index.json", json.dumps({
            "schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", **manifest,
                                               "annotations": {"io.containerd.image.name": IMAGE}}]}).encode())


class CallFailed(Exception):
    pass


class Containerd:
    """`plugins`: the chain, as dictionaries. `command`: what the first process of each sandbox does."""

    def __init__(self, node, folder, plugins, bin_folders, command):
        self.node, self.folder = node, folder
        self.address, self.log_path, self.process = f"{folder}/containerd.sock", f"{folder}/containerd.log", None
        self.cgroup = f"/e2e-cni-{os.getpid()}"
        for name in "bin", "net.d":
            os.mkdir(f"{folder}/{name}")
        for bin_folder in bin_folders:
            for name in os.listdir(bin_folder):
                os.symlink(f"{bin_folder}/{name}", f"{folder}/bin/{name}")
        self.configure(plugins)
        with open(f"{folder}/config.toml", "w") as f:
            f.write(f'''version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{self.address}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/bin"
conf_dir = "{folder}/net.d"
''')
        image(f"{folder}/image.tar", command)

    def configure(self, plugins):
        with open(f"{self.folder}/net.d/10-net.conflist.new", "w") as f:
            json.dump({"cniVersion": "1.0.0", "name": "net", "plugins": plugins}, f)
        os.rename(f.name, f.name.removesuffix(".new"))

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.node.ns}", "containerd", "-c", f"{self.folder}/config.toml"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(self.is_up, "containerd to answer", 30)
        sh("ctr", "-a", self.address, "-n", "k8s.io", "images", "import", f"{self.folder}/image.tar")

    def is_up(self):
        check(self.process.poll() is None, lambda: f"containerd ended: {self.log()[-500:]}")
        return self.call("Version", b"") is not None

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def close(self):
        stop(self.process, 10)
        for pid in filter(str.isdigit, os.listdir("/proc")):  # shims of sandboxes that a failed row left
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as f:
                if self.address in f.read().split("\0"):
                    os.kill(int(pid), signal.SIGKILL)
        for root, folders, _ in os.walk("/sys/fs/cgroup"):
            if self.cgroup[1:] in folders:
                for at, _, _ in os.walk(f"{root}{self.cgroup}", topdown=False):
                    os.rmdir(at)

    # --- CRI ---

    def call(self, method, message, within=60):
        """The answer's message. CallFailed: an error instead; why is in the log."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(within)
            s.connect(self.address)
            s.sendall(PREFACE)
            wire, reader, out, status = Wire(s), HeaderReader(), b"", None
            wire.send(SETTINGS, 0, 0)
            wire.send(HEADERS, END_HEADERS, 1, header_block([
                (":method", "POST"), (":scheme", "http"), (":path", f"/runtime.v1.RuntimeService/{method}"),
                (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")]))
            wire.send(DATA, END_STREAM, 1, b"\0" + struct.pack(">I", len(message)) + message)
            while True:
                kind, flags, stream, payload = wire.recv()
                if kind == SETTINGS and not flags & ACK:
                    wire.send(SETTINGS, ACK, 0)
                elif kind == PING and not flags & ACK:
                    wire.send(PING, ACK, 0, payload)
                elif kind == DATA:
                    out += payload
                elif kind == HEADERS:
                    status = dict(reader.read(payload)).get("grpc-status", status)
                elif kind in (GOAWAY, RST_STREAM):
                    raise CallFailed(f"{method}: HTTP/2 frame {kind}")
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    break
        if len(out) < 5:
            raise CallFailed(f"{method}: status {status}")
        return out[5:]

    def run_sandbox(self, namespace, name, uid, attempt=0):
        """The sandbox's id."""
        metadata = encode(1, name.encode()) + encode(2, uid.encode()) + encode(3, namespace.encode())
        metadata += b"\x20" + uvarint(attempt)
        config = encode(1, metadata) + encode(2, name.encode()) + encode(3, f"{self.folder}/logs".encode())
        config += encode(8, encode(1, self.cgroup.encode()))
        return dict(fields(self.call("RunPodSandbox", encode(1, config))))[1].decode()

    def stop_sandbox(self, sandbox):
        self.call("StopPodSandbox", encode(1, sandbox.encode()))

    def remove_sandbox(self, sandbox):
        self.call("RemovePodSandbox", encode(1, sandbox.encode()))

    def netns(self, sandbox):
        """Path of the sandbox's network namespace."""
        answer = self.call("PodSandboxStatus", encode(1, sandbox.encode()) + b"\x10\x01")
        for field, value in fields(answer):
            if field == 2:  # info
                entry = dict(fields(value))
                info = json.loads(entry[2])
                for ns in info["runtimeSpec"]["linux"]["namespaces"]:
                    if ns["type"] == "network":
                        return ns["path"]
        raise KeyError("no network namespace in the sandbox's status")
