#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Wrong input: one line that says what is wrong, an exit status other than 0, and nothing half-applied. At run time:
the line, and everything goes on as it was."""
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, traffic
from lib.bed import fixture, kinds, pair
from lib.net import Network, Unwound, sh
from lib.pki import Ca
from lib.rows import Skip, Table, check, equal, until

T = Table(__file__)
NOBODY = "65534"


class Place(Unwound):
    """A network without agents, a folder, a CA, and an environment that would start well."""

    def _begin(self):
        if kinds() == ["ztunnel"]:
            raise Skip("is about culvert's own programs")
        agents.need_culvert()
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        self.net = self.stack.enter_context(Network())
        self.folder = tempfile.mkdtemp(prefix="e2e-wrong-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.stack.callback(shutil.rmtree, self.folder, True)
        self.ca = Ca(self.folder)
        self.node, self.pod = self.net.nodes[0], self.net.pods["a1"]
        self.bpf = f"{self.folder}/bpf"
        os.mkdir(self.bpf)
        sh("mount", "-t", "bpf", "bpf", self.bpf)
        self.stack.callback(sh, "umount", "-l", self.bpf, ok=False)
        self.write("good.yaml", "workloads: []\n")

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w") as f:
            f.write(text)
        return f"{self.folder}/{name}"

    def env(self):
        run = f"{self.folder}/run"
        shutil.rmtree(run, True)
        os.mkdir(run)
        return {"PATH": os.environ["PATH"], "CULVERT_RUN_DIR": run, "CULVERT_BPF_DIR": self.bpf, "NODE_NAME": "node-1",
                "XDS_ADDRESS": "", "LOCAL_XDS_PATH": f"{self.folder}/good.yaml", "CULVERT_CA_CERT": self.ca.cert,
                "CULVERT_CA_KEY": self.ca.key, "INPOD_UDS": f"{run}/zds.sock", "RUST_LOG": "error"}

    def refuses(self, argv, change, want, prefix=(), node=None):
        """Runs it, and checks the line, the status and that nothing is left."""
        env = self.env()
        env |= change
        env = {k: v for k, v in env.items() if v is not None}
        host = node or self.node
        p = host.popen([*prefix, *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       stdin=subprocess.DEVNULL)
        try:
            out = p.communicate(timeout=15)[0]
        except subprocess.TimeoutExpired:
            p.terminate()
            try:
                p.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.communicate()
            raise AssertionError("it runs instead of ending") from None
        lines = [x for x in out.splitlines() if x.strip()]
        check(p.returncode > 0, f"exit status {p.returncode}: {out[-300:]}")
        equal(len(lines), 1, f"lines ({out[-400:]!r})")
        check(re.search(want, lines[0], re.I), f"{lines[0]!r} does not say {want!r}")
        self.nothing_left(env["CULVERT_RUN_DIR"])

    def nothing_left(self, run):
        pins = f"{self.bpf}/v1"
        equal(os.listdir(pins) if os.path.isdir(pins) else [], [], "pins")
        pods = f"{run}/pods"
        equal(os.listdir(pods) if os.path.isdir(pods) else [], [], "pod records")
        equal(self.pod.run("ss", "-Hlntu"), "", "sockets in the pod")
        check("0x111" not in self.pod.run("ip", "rule"), "an ip rule in the pod")
        check("clsact" not in self.pod.run("tc", "qdisc"), "a qdisc in the pod")


D, CTL = agents.CULVERTD, agents.CULVERTCTL
TUNNEL, NODE, PLAIN = [D, "tunnel"], [D, "node"], [D]

ROWS = [
    # name, command, environment as a function of the place, what the line must say
    ("unknown-command", [D, "nonsense"], {}, "nonsense"),
    ("unknown-flag", [D, "--no-such-flag"], {}, "no-such-flag"),
    ("unknown-flag-tunnel", [D, "tunnel", "--no-such-flag"], {}, "no-such-flag"),
    ("istio's-chart-means-the-tunnel", [D, "proxy", "ztunnel"], {"LOCAL_XDS_PATH": "/nonexistent/mesh.yaml"}, "/nonexistent/mesh.yaml"),
    ("mesh-file-missing", TUNNEL, {"LOCAL_XDS_PATH": "/nonexistent/mesh.yaml"}, "/nonexistent/mesh.yaml"),
    ("mesh-file-not-yaml", TUNNEL, {"LOCAL_XDS_PATH": ("bad.yaml", "workloads: [\n  {a: 1\n")}, r"bad\.yaml"),
    ("mesh-file-unknown-key", TUNNEL, {"LOCAL_XDS_PATH": ("key.yaml", "wrkloads: []\n")}, r"key\.yaml.*wrkloads"),
    ("mesh-file-unknown-workload-key", TUNNEL, {"LOCAL_XDS_PATH": ("wkey.yaml", """workloads:
- uid: x
  name: x
  namespace: default
  workloadIps: ["10.0.0.1"]
  services: {}
  protocl: HBONE
""")}, "protocl"),
    ("mesh-file-bad-address", TUNNEL, {"LOCAL_XDS_PATH": ("addr.yaml", """workloads:
- {uid: x, name: x, namespace: default, workloadIps: ["10.0.0.999"], services: {}}
""")}, r"10\.0\.0\.999"),
    ("mesh-file-bad-port", TUNNEL, {"LOCAL_XDS_PATH": ("port.yaml", """services:
- {name: s, namespace: d, hostname: s.d, vips: ["/10.0.0.1"], ports: {80: 70000}}
""")}, "70000"),
    ("mesh-file-bad-cidr", TUNNEL, {"LOCAL_XDS_PATH": ("cidr.yaml", """policies:
- {name: p, namespace: d, scope: Namespace, action: Deny, dryRun: false, rules: [[[{sourceIps: ["10.0.0.0/99"]}]]]}
""")}, r"10\.0\.0\.0/99"),
    ("mesh-file-and-text", TUNNEL, {"LOCAL_XDS": "workloads: []"}, "LOCAL_XDS"),
    ("bad-boolean", TUNNEL, {"ENABLE_PROXY": "yes please"}, "ENABLE_PROXY"),
    ("bad-duration", TUNNEL, {"CONNECTION_TERMINATION_DEADLINE": "soon"}, "CONNECTION_TERMINATION_DEADLINE"),
    ("bad-number", TUNNEL, {"POOL_MAX_STREAMS_PER_CONNECTION": "many"}, "POOL_MAX_STREAMS_PER_CONNECTION"),
    ("bad-proxy-mode", TUNNEL, {"PROXY_MODE": "sideways"}, "PROXY_MODE"),
    ("dedicated-to-nobody", TUNNEL, {"PROXY_MODE": "dedicated"}, "PROXY_WORKLOAD_INFO"),
    ("dedicated-under-a-keeper", PLAIN, {"PROXY_MODE": "dedicated"}, "PROXY_MODE"),
    ("bad-steering", PLAIN, {"CULVERT_STEERING": "wishful"}, "wishful|steering"),
    ("ca-certificate-missing", PLAIN, {"CULVERT_CA_CERT": "/nonexistent/ca.pem"}, "/nonexistent/ca.pem"),
    ("ca-certificate-garbage", PLAIN, {"CULVERT_CA_CERT": ("garbage.pem", "not a certificate\n")}, r"garbage\.pem"),
    ("ca-key-garbage", PLAIN, {"CULVERT_CA_KEY": ("garbage.key", "not a key\n")}, r"garbage\.key"),
    ("ca-root-missing", TUNNEL, {"CULVERT_CA_CERT": None, "CULVERT_CA_KEY": None, "CA_ADDRESS": "https://localhost:1",
                                 "CA_ROOT_CA": "/nonexistent/root.pem"}, "root|CA_ROOT_CA"),
    ("xds-root-missing", TUNNEL, {"XDS_ADDRESS": "localhost:1", "XDS_ROOT_CA": "/nonexistent/root.pem"}, "XDS_ROOT_CA"),
    ("xds-in-clear", TUNNEL, {"XDS_ADDRESS": "http://istiod:15010"}, "XDS_ADDRESS.*clear"),
    ("xds-address", TUNNEL, {"XDS_ADDRESS": "https://istiod:port", "XDS_ROOT_CA": "SYSTEM"}, "XDS_ADDRESS.*port"),
    ("xds-metadata-not-json", TUNNEL, {"XDS_ADDRESS": "istiod:1", "XDS_ROOT_CA": "SYSTEM", "ISTIO_METAJSON_X": "{"},
     "ISTIO_METAJSON_X"),
    ("xds-header-without-a-name", TUNNEL, {"XDS_ADDRESS": "istiod:1", "XDS_ROOT_CA": "SYSTEM", "XDS_HEADER_": "x"},
     "XDS_HEADER_"),
    ("xds-on-demand-from-nowhere", TUNNEL, {"XDS_ON_DEMAND": "true"}, "XDS_ON_DEMAND"),
    ("run-directory-cannot-be-made", PLAIN, {"CULVERT_RUN_DIR": "/proc/nowhere"}, "/proc/nowhere"),
    ("ctl-no-agent", [CTL, "status"], {}, r"ctl\.sock"),
    ("ctl-unknown-command", [CTL, "frobnicate"], {}, "frobnicate"),
    ("ctl-enrol-without-identity", [CTL, "enrol", "/run/netns/x"], {}, "usage|identity|NAMESPACE"),
]


def refused(place, argv, change, want):
    change = {k: place.write(*v) if isinstance(v, tuple) else v for k, v in change.items()}
    place.refuses(argv, change, want)


for name, *rest in ROWS:
    T.row(name, Place, *rest)(refused)


@T.row("who-asks-for-version-or-help-needs-nothing", Place)
def only_asked(place):
    """Neither a configuration that is right nor a node; ztunnel's words for it do as well."""
    said, version, help_ = {}, r"culvert \d+\.\d+\.\d+\n", r"(?s)culvert(d|ctl)( [a-z\[\]]+)? - .+"
    for argv in [D], [D, "node"], [D, "tunnel"], [CTL]:
        for word, want in ("--version", version), ("version", version), ("--help", help_), ("-h", help_), ("help", help_):
            p = subprocess.run([*argv, word], env={"XDS_ON_DEMAND": "perhaps"}, capture_output=True, text=True, timeout=15)
            said[(*map(os.path.basename, argv), word)] = p.returncode, bool(re.fullmatch(want, p.stdout)), p.stderr
    equal({k: v for k, v in said.items() if v != (0, True, "")}, {}, "who said something else")


@T.row("mesh-file-unreadable", Place)
def unreadable(place):
    """As root nothing is unreadable: a directory stands for it."""
    place.refuses(TUNNEL, {"LOCAL_XDS_PATH": place.folder}, re.escape(place.folder))


@T.row("admin-port-in-use", Place)
def admin_port(place):
    with place.node.listen(15000, "127.0.0.1"):
        place.refuses(TUNNEL, {}, "15000")


@T.row("readiness-port-in-use", Place)
def ready_port(place):
    with place.node.listen(15021):
        place.refuses(TUNNEL, {}, "15021")


@T.row("stats-port-in-use", Place)
def stats_port(place):
    with place.node.listen(15020):
        place.refuses(TUNNEL, {}, "15020")


@T.row("dedicated-port-in-use", Place)
def dedicated_port(place):
    for port in 15001, 15006, 15008, 15053:
        with place.node.listen(port):
            place.refuses(TUNNEL, {"PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "default/a1/sa-a1"}, str(port))


@T.row("own-hbone-port-in-use", Place)
def own_port(place):
    with place.node.listen(15008):
        place.refuses(TUNNEL, {"POD_NAME": "ztunnel", "POD_NAMESPACE": "istio-system", "SERVICE_ACCOUNT": "ztunnel"}, "15008")


@T.row("keeper-not-root", Place)
def not_root(place):
    place.refuses(PLAIN, {"CULVERT_RUN_DIR": f"{place.folder}/run"}, "root|CAP_|permission|permitted",
                  prefix=["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"])


@T.row("keeper-without-bpf", Place)
def no_bpf(place):
    place.refuses(PLAIN, {}, "bpf|CAP_",
                  prefix=["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"])


@T.row("bpf-directory-is-no-bpffs", Place)
def no_bpffs(place):
    place.refuses(PLAIN, {"CULVERT_BPF_DIR": place.write("file-instead-of-folder", "")}, "file-instead-of-folder")


# --- while it runs ------------------------------------------------------------------------------------------------


def running(name):
    def add(fn):
        for kind in kinds():
            if kind.startswith("culvert"):
                T.row(f"{kind}/{name}", BEDS[kind])(fn)
        return fn

    return add


BEDS = {k: fixture(k, k) for k in kinds() if k.startswith("culvert")}


def works(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)


def ctl_refuses(agent, *argv, want):
    r = subprocess.run([CTL, *argv], env=agent.env, capture_output=True, text=True, timeout=15)
    out = (r.stdout + r.stderr).strip()
    check(r.returncode > 0, f"exit status {r.returncode}: {out}")
    equal(len(out.splitlines()), 1, f"lines ({out!r})")
    check(re.search(want, out, re.I), f"{out!r} does not say {want!r}")


@running("enrol-missing-netns")
def missing_netns(bed):
    agent = bed.net.nodes[0].agent
    before = agent.status("pods")
    ctl_refuses(agent, "enrol", "/run/netns/e2e-no-such", "default/x/x", want="e2e-no-such")
    equal(agent.status("pods"), before, "pods")
    works(bed)


@running("enrol-bad-identity")
def bad_identity(bed):
    agent = bed.net.nodes[0].agent
    for bad in "x", "a/b", "a/b/c/d", "//", "a b/c/d":
        ctl_refuses(agent, "enrol", f"/run/netns/{bed.u1.ns}", bad, want="identity|NAMESPACE|/")
    check("0x111" not in bed.u1.run("ip", "rule") and bed.u1.run("ss", "-Hlnt") == "", "the pod was touched")


@running("enrol-file-that-is-no-netns")
def no_netns(bed):
    ctl_refuses(bed.net.nodes[0].agent, "enrol", "/etc/hostname", "default/x/x", want="/etc/hostname")


@running("enrol-host-netns")
def host_netns(bed):
    """The node's own namespace must never be steered."""
    agent = bed.net.nodes[0].agent
    ctl_refuses(agent, "enrol", f"/run/netns/{bed.net.nodes[0].ns}", "default/x/x", want="own|host|node")
    works(bed)


@running("unenrol-unknown")
def unenrol_unknown(bed):
    ctl_refuses(bed.net.nodes[0].agent, "unenrol", f"/run/netns/{bed.u1.ns}", want="not enrolled|unknown|no pod")


@running("enrol-pod-whose-port-is-taken")
def port_taken(bed):
    """The application has 15008: the pod cannot be served, and is not steered into nothing."""
    agent = bed.net.nodes[0].agent
    with bed.u1.listen(15008):
        ctl_refuses(agent, "enrol", f"/run/netns/{bed.u1.ns}", "default/u1/u1", want="15008")
    check("0x111" not in bed.u1.run("ip", "rule") and bed.u1.run("ss", "-Hlnt") == "", "half-enrolled")
    works(bed)


@running("mesh-file-broken-later")
def broken_later(bed):
    """A reload that fails is one line in the log; what was there goes on, and the next good file is taken."""
    agent = bed.net.nodes[0].agent
    path, since = f"{bed.folder}/mesh.yaml", len(agent.log())
    with pair(bed.a1, bed.b1) as (c, s):
        with open(path + ".new", "w") as f:
            f.write("workloads: [\n")
        os.rename(path + ".new", path)
        until(lambda: [x for x in agent.log()[since:].splitlines() if "mesh.yaml" in x], "the line about it")
        traffic.echo(c, s)
        with pair(bed.a1, bed.b1, port=8081) as (c2, s2):
            traffic.echo(c2, s2)
    check(agent.ready(), "not ready any more")
    bed.mesh.service("later", ["10.72.0.9"], {80: 8080}, ["b1"])
    bed.mesh.save()
    until(lambda: "later" in str(agent.config_dump()["services"]), "the repaired file to be taken")


TCP15001, UDP15053, RAW4 = 0, 4, 5
OFFERS = {
    "a-pipe": (TCP15001, lambda pod: os.fdopen(os.pipe()[0], "rb")),
    "a-file": (TCP15001, lambda pod: open("/dev/null", "rb")),
    "a-socket-that-does-not-listen": (TCP15001, lambda pod: pod.socket()),
    "a-listener-of-another-namespace": (TCP15001, lambda pod: socket.create_server(("127.0.0.1", 0))),
    "a-listener-where-a-datagram-socket-is-due": (UDP15053, lambda pod: pod.listen(8099)),
    "a-datagram-socket-where-a-raw-one-is-due": (RAW4, lambda pod: pod.socket(kind=socket.SOCK_DGRAM)),
}


def offers(bed):
    """What a keeper sends as a pod's sockets is looked at: the pod is refused, and the tunnel goes on."""
    zds = bed.a1.node.agent.zds
    for name, (number, make) in OFFERS.items():
        with make(bed.u1) as s:
            said = zds.offer(bed.u1, sockets=[(number, s.fileno())])
        check("is no listener, or not of its namespace" in said, f"{name}: {said!r}")
    said = zds.offer(bed.u1, netns=f"/proc/{bed.a1.node.agent.process.pid}/ns/net")
    check("is the tunnel's own" in said, f"its own namespace: {said!r}")
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)


if "dropin" in kinds():
    T.row("dropin/sockets-that-are-none-are-refused", fixture("dropin", "dropin"))(offers)


if __name__ == "__main__":
    T.main()
