#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two nodes with two pods each, real programs in them, and a look at what happens to their traffic.

  demo.py [culvert|culvert-iptables|dropin|ztunnel]    as root

For comparison: Culvert over istio-cni's iptables rules; its tunnel alone in ztunnel's place; ztunnel itself, the binary
that $ZTUNNEL names. They promise less, and the steps say where. Every step says what it claims and checks it; exit
status 1 if a claim does not hold. Everything lives in network namespaces of its own and is removed at the end, on Ctrl-C
and after failures too."""
import contextlib
import http.server
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "e2e")]
from lib import agents, pki
from lib.mesh import Exact, Mesh
from topology import Network, folder, sh, stop, sweep, unwinding, wait_for

PODS = ((1, "client", 2, True), (1, "other", 3, True), (2, "web", 2, True), (2, "db", 3, True))
VIP4, VIP6 = "10.72.0.1", "fd72::1"
HTTP, IPERF = 8080, 5201
IPERF_SECONDS = 4
DEAD_SECONDS = 2.5  # for so long nothing may leave a pod whose agent is dead: two SYNs of an attempt
BPFTOOL = shutil.which("bpftool") or "/usr/sbin/bpftool"
FIREWALLS = ("iptables", "iptables-save", "iptables-restore", "iptables-nft", "iptables-nft-restore", "iptables-legacy",
             "iptables-legacy-restore", "ip6tables", "ip6tables-save", "ip6tables-restore", "ip6tables-nft",
             "ip6tables-nft-restore", "ip6tables-legacy", "ip6tables-legacy-restore", "nft", "xtables-nft-multi")

MAP = """
    node-1                                             node-2
      client  10.71.1.2  fd71:1::2                       web  10.71.2.2  fd71:2::2   HTTP on 8080
      other   10.71.1.3  fd71:1::3                       db   10.71.2.3  fd71:2::3   iperf3 on 5201
      agent   ----------------------- wan ------------- agent
"""


class App(http.server.BaseHTTPRequestHandler):
    """The web application: tells its caller whom it sees."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        address = self.client_address[0].removeprefix("::ffff:")
        body = f"web sees {address}, {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


class Demo:
    def __init__(self, kind, top, stack):
        self.kind, self.top, self.stack = kind, top, stack
        self.bpf, self.keeper = kind == "culvert", kind.startswith("culvert")
        self.broken, self.step_number, self.begin = [], 0, time.monotonic()
        self.bold, self.good, self.bad, self.plain = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") \
            if sys.stdout.isatty() else ("",) * 4

    # --- telling ------------------------------------------------------------------------------------------------

    def step(self, title):
        self.step_number += 1
        print(f"\n{self.bold}{self.step_number}. {title}{self.plain}  [{time.monotonic() - self.begin:.0f} s]", flush=True)

    def show(self, text):
        for line in text.rstrip("\n").splitlines():
            print(f"     {line}", flush=True)

    def claim(self, text, holds):
        mark = f"{self.good}ok{self.plain}" if holds else f"{self.bad}NO{self.plain}"
        print(f"  {mark} {text}", flush=True)
        if not holds:
            self.broken.append(text)

    # --- doing ---------------------------------------------------------------------------------------------------

    def background(self, pod, argv, **kw):
        p = pod.popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **kw)
        self.stack.callback(stop, p)
        return p

    def curl(self, pod, host, path="/hello", shown=True):
        """(exit status, output)"""
        url = f"http://{f'[{host}]' if ':' in host else host}:{HTTP if host not in (VIP4, VIP6) else 80}{path}"
        r = subprocess.run(["ip", "netns", "exec", pod.ns, "curl", "-sS", "--noproxy", "*", "--max-time", "8", url],
                           capture_output=True, text=True, timeout=20)
        out = (r.stdout or r.stderr).strip()
        if shown:
            self.show(f"{pod.name}$ curl {url}\n  {out}")
        return r.returncode, out

    @contextlib.contextmanager
    def capture(self, name):
        """Everything that passes between the nodes meanwhile; yields a function that answers (bytes, lines)."""
        path = f"{self.top}/{name}.pcap"
        p = subprocess.Popen(["ip", "netns", "exec", self.node2.ns, "tcpdump", "-i", "wan", "-U", "--immediate-mode", "-w", path],
                             stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.stack.callback(stop, p)
        line = p.stderr.readline()
        if "listening" not in line:
            raise RuntimeError(f"tcpdump: {line.strip()}")

        def read():
            time.sleep(0.3)  # the last acknowledgement
            stop(p)
            with open(path, "rb") as f:
                return f.read(), sh("tcpdump", "-nn", "-q", "-t", "-r", path, "tcp", ok=False).splitlines()

        yield read
        stop(p)

    def build(self):
        self.step("Two nodes, two pods on each, in network namespaces")
        self.net = self.stack.enter_context(Network("demo", PODS))
        self.client, self.other, self.web, self.db = (self.net.pods[p[1]] for p in PODS)
        self.node1, self.node2 = self.net.nodes
        for pod in self.net.pods.values():
            pod.sa = pod.name
            pod.spiffe = f"spiffe://cluster.local/ns/{pod.namespace}/sa/{pod.sa}"
        self.show(MAP.strip("\n"))
        self.background(self.web, [sys.executable, os.path.abspath(__file__), "--web"])
        self.background(self.db, ["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for pod, port in ((self.web, HTTP), (self.db, IPERF)):
            wait_for(lambda: pod.run("ss", "-Hltn", f"sport = :{port}"), f"{pod.name} to listen")

    def before(self):
        self.step("Before: the pods are not in the mesh")
        secret = secrets.token_hex(8)
        with self.capture("before") as read:
            self.curl(self.client, self.web.ip4, f"/secret-{secret}")
            raw, _ = read()
        line = next((x for x in raw.split(b"\r\n") if secret.encode() in x), b"")
        self.show("on the wire: " + line[line.find(b"GET"):].decode("ascii", "replace"))
        self.claim("a capture between the nodes holds the request in plaintext", secret.encode() in raw)
        self.old = http_get(self.client.connect(self.web.ip4, HTTP), "/opened-before")
        self.stack.callback(self.old.close)

    def feed(self, agent):
        """Where it has the mesh from: here the file that is everybody's."""

    def mesh(self):
        mesh = Mesh(self.net.pods.values())
        mesh.service("web", [VIP4, VIP6], {80: HTTP}, ["web"])
        mesh.policy("not-other", "Deny", [[[{"principals": [Exact("cluster.local/ns/default/sa/other")]}]]], ["web"])
        mesh.save(f"{self.top}/mesh.yaml")

    def enrol(self):
        self.step(f"{self.kind}: an agent on each node, and the four running pods are enrolled")
        self.ca = pki.Ca(self.top)
        self.mesh()
        self.trap()
        self.agents = []
        for node in self.net.nodes:
            agent = agents.make(self.kind, node, self.top, self.ca)
            self.agents.append(agent)
            self.stack.callback(agent.close)
            self.feed(agent)
            if self.bpf:
                agent.env["PATH"] = f"{self.top}/trap:{agent.env['PATH']}"
            agent.start()
            for pod in node.pods:
                agent.enrol(pod)
                self.show(f"{node.name}$ culvertctl enrol /run/netns/{pod.ns} {pod.namespace}/{pod.name}/{pod.sa}"
                          if self.keeper else f"{node.name}: iptables rules in {pod.name}, and the tunnel is told by ZDS")
        if self.bpf:
            for pod in self.net.pods.values():
                self.programs(pod)
            self.claim("a connection opened before enrolment lives on", lives(self.old))
        else:
            self.show(f"a connection opened before enrolment {'lives on' if lives(self.old) else 'is broken: that is'} "
                      "what istio-cni's rules do")

    def trap(self):
        """Programs named like the firewall's, first in the agents' path: whoever is called writes its name down."""
        os.mkdir(f"{self.top}/trap")
        for name in FIREWALLS:
            with open(f"{self.top}/trap/{name}", "w") as f:
                f.write(f'#!/bin/sh\necho "$0 $*" >>{self.top}/trapped\nexit 1\n')
            os.chmod(f.name, 0o755)

    def programs(self, pod):
        """The BPF programs of a pod, through the pins that keep them when the agent is gone. In the first seconds filters are
        replaced by links, so one look may find a pin that is just being changed."""
        agent = next(a for a in self.agents if a.node is pod.node)
        mine, end, want = [], time.monotonic() + 10, {"egress", "ingress", "lookup"}
        while not want <= (kinds := {n.split("-")[0] for n, _ in mine}) and time.monotonic() < end:
            mine = pins_of(agent, pod)
        self.show(f"{pod.name}: " + ", ".join(f"{n} = {p['name']} (program {p['id']})" for n, p in mine))
        self.claim(f"{pod.name}: programs on egress, ingress and socket lookup are attached", want <= kinds)

    def traffic(self):
        self.step("curl, through the mesh: IPv4, IPv6, and a service's address")
        since = [len(a.log()) for a in self.agents]
        for host, real in ((self.web.ip4, self.client.ip4), (self.web.ip6, self.client.ip6), (VIP4, self.client.ip4),
                           (VIP6, self.client.ip6)):
            rc, out = self.curl(self.client, host)
            self.claim("the application sees the client's own address", rc == 0 and f"web sees {real}," in out)
        for agent, at, direction in zip(self.agents, since, ("outbound", "inbound")):
            lines = wait_for(lambda: agent.access(at, direction=direction), "a line in the access log")
            line = lines[0]
            self.show(f"{agent.node.name} {direction}: src.identity={line.get('src.identity')}\n"
                      f"                 dst.identity={line.get('dst.identity')}")
            self.claim(f"{agent.node.name}'s access log names both identities",
                       (line.get("src.identity"), line.get("dst.identity")) == (self.client.spiffe, self.web.spiffe))

    def wire(self):
        self.step("What is on the wire between the nodes")
        secret = secrets.token_hex(8)
        with self.capture("mesh") as read:
            rc, out = self.curl(self.client, self.web.ip4, f"/secret-{secret}")
            raw, lines = read()
        tunnel = [x for x in lines if ".15008" in x]
        self.show("\n".join(lines[:4]) + f"\n... {len(lines)} packets, {len(raw):,} bytes")
        self.claim("the request arrived", rc == 0 and secret in out)
        self.claim(f"all {len(tunnel)} TCP packets belong to port 15008 (HBONE)", tunnel and len(tunnel) == len(lines))
        self.claim("the capture holds no plaintext of it",
                   not any(x in raw for x in (secret.encode(), b"GET /", b"web sees", b"HTTP/1.1")))

    def policy(self):
        self.step("A policy: DENY whoever is spiffe://cluster.local/ns/default/sa/other at web")
        agent = self.agents[1]
        since = len(agent.log())
        self.claim("other is denied", self.curl(self.other, self.web.ip4)[0] != 0)
        line = wait_for(lambda: [x for x in agent.access(since, direction="inbound") if "error" in x], "the line")[0]
        self.show(f"node-2: {line.get('message')}: {line['error']}")
        self.claim("client is still served", self.curl(self.client, self.web.ip4)[0] == 0)

    def iperf(self):
        self.step(f"iperf3, {IPERF_SECONDS} seconds")
        since = len(self.agents[0].log())
        r = json.loads(self.client.run("iperf3", "-c", self.db.ip4, "-t", str(IPERF_SECONDS), "-J"))
        got = r["end"]["sum_received"]
        self.show(f"client$ iperf3 -c {self.db.ip4}\n  {got['bytes'] / 1e9:.2f} GB, {got['bits_per_second'] / 8e6:,.0f} MB/s "
                  f"through mutual TLS; both agents, client and server share this machine's {os.cpu_count()} processors")
        # iperf3 opens a second connection for control; the other one carried the bytes.
        lines = wait_for(lambda: len(x := self.agents[0].access(since, direction="outbound")) >= 2 and x, "the log lines")
        logged = max(int(x.get("bytes_sent", 0)) for x in lines) + max(int(x.get("bytes_recv", 0)) for x in lines)
        self.claim("the access log has counted its bytes", logged >= got["bytes"])

    def operator(self):
        if not self.keeper:
            return
        self.step("What an operator sees on node-1")
        agent = self.agents[0]
        with self.client.connect(self.web.ip4, HTTP) as s:
            http_get(s, "/kept-open")
            for what in ("status", "pods", "connections", "drops"):
                self.show(f"node-1$ culvertctl {what}\n{indented(agent.ctl(what))}")
            pods = agent.status("pods")
            connections = agent.status("connections")
        self.claim("both pods are enrolled", all(x in json.dumps(pods) for x in ("client", "other")))
        self.claim("the open connection is there", self.web.ip4 in json.dumps(connections))

    def death(self):
        if not self.bpf:
            return
        self.step("Kill -9 of everything on node-1: no agent, and no plaintext either")
        agent = self.agents[0]
        agent.kill_all()
        with self.capture("dead") as read:
            attempt = subprocess.Popen(["ip", "netns", "exec", self.client.ns, "curl", "-sS", "--noproxy", "*",
                                        "--max-time", "30", f"http://{self.web.ip4}:{HTTP}/patient"],
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
            self.stack.callback(stop, attempt)
            self.show(f"client$ curl http://{self.web.ip4}:{HTTP}/patient &")
            with contextlib.suppress(subprocess.TimeoutExpired):
                attempt.wait(DEAD_SECONDS)
            _, lines = read()
        self.claim("the attempt waits: not refused, not connected", attempt.poll() is None)
        self.claim("nothing of it was on the wire", not lines)
        agent.start()
        out, _ = attempt.communicate(timeout=30)
        self.show(f"a new agent is there, and the same attempt ends with\n  {out.strip()}")
        self.claim("it has succeeded", f"web sees {self.client.ip4}, /patient" in out)

    def remove(self):
        if not self.keeper:
            return  # the rules stay until the pod goes
        self.step("Leaving the mesh")
        for agent in self.agents:
            for pod in agent.node.pods:
                agent.unenrol(pod)
        rc, out = self.curl(self.client, self.web.ip4)
        self.claim("the pods talk as before", rc == 0)
        if self.bpf:
            self.claim("no program, pin or routing rule is left",
                       not any(files for a in self.agents for _, _, files in os.walk(f"{a.bpf_dir}/v1"))
                       and not any("fwmark" in p.run("ip", *f, "rule") for p in self.net.pods.values()
                                   for f in ((), ("-6",))))
            self.claim("no iptables or nft program was run", not os.path.exists(f"{self.top}/trapped"))

    PARTS = ("build", "before", "enrol", "traffic", "wire", "policy", "iperf", "operator", "death", "remove")

    def run(self):
        for part in self.PARTS:
            getattr(self, part)()


def http_get(s, path):
    """A request on an open connection; returns it after the whole answer was read."""
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: web\r\n\r\n".encode())
    data = b""
    while path.encode() not in data:
        chunk = s.recv(4096)
        if not chunk:
            raise ConnectionError(f"the connection ended before {path} was answered")
        data += chunk
    return s


def indented(text):
    return "\n".join(f"  {x}" for x in text.rstrip("\n").splitlines())


def lives(s):
    try:
        return bool(http_get(s, "/still-here"))
    except OSError:
        return False


def pod_inode(pod):
    return os.stat(f"/run/netns/{pod.ns}").st_ino


def pins_of(agent, pod):
    """[(name, what pinned() says)]. Pins of a pod share a folder; the one of the socket lookup knows the namespace."""
    mine = []
    for place, _, files in os.walk(agent.bpf_dir):
        found = [(name, p) for name in sorted(files) if (p := pinned(f"{place}/{name}"))]
        if any(p["netns"] == pod_inode(pod) for _, p in found):
            mine += found
    return mine


def pinned(path):
    """{"id", "name", "netns"} of the program behind a pinned link or program, or None."""
    for kind in ("link", "prog"):
        r = subprocess.run([BPFTOOL, "-j", kind, "show", "pinned", path], capture_output=True, text=True, timeout=10)
        if r.returncode:
            continue
        what = json.loads(r.stdout)
        number = what.get("prog_id", what.get("id"))
        prog = json.loads(sh(BPFTOOL, "-j", "prog", "show", "id", str(number)))
        return {"id": number, "name": prog.get("name", "?"), "netns": what.get("netns_ino")}
    return None


def main(cls=Demo):
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    kind = sys.argv[1] if len(sys.argv) > 1 else "culvert"
    if os.geteuid():
        sys.exit("demo: needs root for network namespaces: sudo make demo")
    sweep("demo")
    try:
        with unwinding(), folder("demo") as top, contextlib.ExitStack() as stack:
            demo = cls(kind, top, stack)
            demo.run()
            took = time.monotonic() - demo.begin
    except KeyboardInterrupt:
        print("\ndemo: stopped, everything is removed", file=sys.stderr)
        sys.exit(130)
    except Exception as e:
        sys.exit(f"\ndemo: {type(e).__name__}: {e}; everything is removed")
    print(f"\n{len(demo.broken)} claims do not hold:\n  " + "\n  ".join(demo.broken) if demo.broken else
          f"\nEvery claim holds. {took:.0f} seconds; everything is removed.")
    sys.exit(bool(demo.broken))


if __name__ == "__main__":
    if sys.argv[1:] == ["--web"]:
        Server(("::", HTTP), App).serve_forever()
    main()
