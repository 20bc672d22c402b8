#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The keeper as installer of the CNI plugin: `culvertd node` with folders of its own in place of /etc/cni/net.d and
/opt/cni/bin, and an API server that the test plays. What it writes, what it repairs, when it is ready, and what is left of
it when it ends."""
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from cni_runtime_test import PORT, TARGET, RuntimePlace, captured
from kube_api import KubeApi, status_object
from lib import agents, cni
from lib.net import Host, folder, sh, topology
from lib.rows import Skip, Table, check, equal, until

T = Table(__file__)
LIBEXEC = f"{agents.BUILD}/libexec/culvert"
PLUGIN, HELPER = "istio-cni", "culvert-cni-api"
serial = itertools.count()


def conflist(*plugins, **more):
    return json.dumps({"cniVersion": "1.0.0", "name": "net", **more, "plugins": [{"type": p} for p in plugins]}, indent=2) + "\n"


BRIDGE, OTHER = conflist("bridge", "portmap"), conflist("ptp", big=123456789012345678901234567890)
SINGLE = '{"cniVersion": "0.4.0", "name": "net",\n "type": "bridge", "mtu": 1.50e3}\n'


class InstallPlace(topology.Unwound):
    """A namespace with an API server in it and folders for a keeper. `files` are in the configuration's folder from the
    beginning; `env` on top of the settings; `begin`: start the keeper; `kube`: with Kubernetes."""

    def __init__(self, files=None, env=(), begin=True, kube=True, up=True):
        self.files_before, self.more, self.begin, self.kube, self.up = dict(files or {}), dict(env), begin, kube, up
        self.daemonset = {"metadata": {"name": "istio-cni-node"}}  # or a status
        self.node_object = {"metadata": {"name": "node-1", "labels": {"zone": "a"}}}
        self.process, self.keepers = None, []

    def _begin(self):
        agents.need_culvert()
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        self.host = Host(f"e2e-{os.getpid()}-install-{next(serial)}")
        topology.sweep("e2e")
        sh("ip", "netns", "add", self.host.ns)
        self.stack.callback(sh, "ip", "netns", "del", self.host.ns, ok=False)
        sh("ip", "-n", self.host.ns, "link", "set", "lo", "up")
        self.folder = self.stack.enter_context(folder("e2e-install"))
        self.make_folders()
        self.stack.callback(self.end_all)
        if self.kube:
            self.make_api()
        if self.begin:
            self.start()

    def make_folders(self):
        self.net, self.bin, self.run = (f"{self.folder}/{x}" for x in ("net.d", "bin", "istio-cni"))
        self.kubeconfig, self.secrets = f"{self.run}/istio-cni-kubeconfig", f"{self.folder}/secrets"
        for path in (self.net, self.bin, self.secrets, f"{self.folder}/bpf"):
            os.mkdir(path)
        sh("mount", "-t", "bpf", "bpf", f"{self.folder}/bpf")
        for name, text in self.files_before.items():
            self.put(name, text)
        self.rotate("first")
        self.env = {"PATH": os.environ["PATH"], "CULVERT_RUN_DIR": f"{self.folder}/run", "CULVERT_BPF_DIR": f"{self.folder}/bpf",
                    "CULVERT_ZDS": f"{self.folder}/run/zds.sock", "CNI_AGENT_RUN_DIR": self.run,
                    "MOUNTED_CNI_NET_DIR": self.net, "CULVERT_CNI_BIN_DIR": self.bin}
        self.env |= {k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS") if k in os.environ}

    def make_api(self):
        listener = self.host.listen(6443, "127.0.0.1")
        self.api = KubeApi(listener, tokens={"first", "second"})
        self.api.hook = self.hook
        self.api.namespace("default", {"istio.io/dataplane-mode": "ambient"})
        self.api.namespace("free")
        user = self.api.kubeconfig(f"{self.folder}/kubeconfig", token_file=f"{self.secrets}/token")
        self.env |= {"AMBIENT_ENABLED": "true", "NODE_NAME": "node-1", "KUBECONFIG": user, "POD_NAMESPACE": "istio-system"}
        if self.up:
            self.api_up()
        else:
            self.stack.callback(listener.close)

    def api_up(self):
        self.stack.enter_context(self.api)

    def hook(self, method, path, query):
        what = {"/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node": self.daemonset,
                "/api/v1/nodes/node-1": self.node_object}.get(path)
        if what is None:
            return None
        return (what, status_object(what, "no"), ()) if isinstance(what, int) else (200, what, ())

    # --- files ----------------------------------------------------------------------------------------------

    def put(self, name, text, path=None):
        """As those do who do it well."""
        path = f"{path or self.net}/{name}"
        with open(f"{path}.new", "w") as f:
            f.write(text)
        os.rename(f"{path}.new", path)

    def rotate(self, token):
        self.put("token", token, self.secrets)

    def text(self, name):
        with open(f"{self.net}/{name}") as f:
            return f.read()

    def names(self):
        return sorted(os.listdir(self.net))

    def types(self, name):
        return [p["type"] for p in json.loads(self.text(name))["plugins"]]

    def entry(self, name):
        return json.loads(self.text(name))["plugins"][-1]

    def holds(self, name):
        """Nothing but our entry was added at the list's end, and the rest is as it was, byte for byte."""
        o, before = json.loads(self.text(name)), self.files_before.get(name)
        ours = [p for p in o["plugins"] if p["type"] == PLUGIN]
        equal(len(ours), 1, "entries of ours")
        check(o["plugins"][-1] == ours[0] and len(o["plugins"]) > 1, "ours is not the last")
        if before:
            at = self.text(name).index(json.dumps(ours[0]))
            check(self.text(name)[at + len(json.dumps(ours[0])):] in before, "what follows our entry")
            check(before.startswith(self.text(name)[:at].rstrip().rstrip(",")), "what stands before our entry")

    def same_program(self, name=PLUGIN, source="culvert-cni"):
        with open(f"{self.bin}/{name}", "rb") as f, open(f"{LIBEXEC}/{source}", "rb") as g:
            return f.read() == g.read()

    def token(self):
        with open(self.kubeconfig) as f:
            return json.load(f)["users"][0]["user"]["token"]

    def installed(self, name=None):
        check(self.same_program() and self.same_program(HELPER, HELPER), "the programs are not ours")
        for p in (PLUGIN, HELPER):
            equal(os.stat(f"{self.bin}/{p}").st_mode & 0o7777, 0o755, f"mode of {p}")
        if self.kube:
            equal(os.stat(self.kubeconfig).st_mode & 0o7777, 0o600, "mode of the kubeconfig")
            equal(self.token(), "first", "token")
        if name:
            self.holds(name)

    def no_trace(self):
        equal({n: self.text(n) for n in self.names()}, self.files_before, "configurations")
        equal(os.listdir(self.bin), [], "programs")
        check(not os.path.exists(self.kubeconfig), "the kubeconfig is left")

    # --- the keeper -----------------------------------------------------------------------------------------

    def start(self, **env):
        log = f"{self.folder}/log-{len(self.keepers)}"
        with open(log, "ab") as f:
            self.process = self.host.popen([agents.CULVERTD, "node"], env={**self.env, **self.more, **env}, stdout=f, stderr=f,
                                           stdin=subprocess.DEVNULL)
        self.keepers.append((self.process, log))
        until(lambda: self.alive() and self.status(), "the keeper to answer")
        return self.process

    def alive(self):
        check(self.process.poll() is None, lambda: f"it ended: {self.log()[-300:]}")
        return True

    def log(self):
        with open(self.keepers[-1][1]) as f:
            return f.read()

    def explain(self):
        if os.environ.get("E2E_LOGS") and self.keepers:
            print(self.log(), file=sys.stderr)

    def end_all(self):
        for p, log in self.keepers:
            if p.poll() is None:
                p.kill()
            p.wait()
            with open(log) as f:
                said = [x for x in f if "Sanitizer:" in x or "runtime error:" in x]
            check(not said, lambda: said[0])

    def end(self, within=15):
        self.process.terminate()
        equal(self.process.wait(within), 0, "exit status")

    def uninstall(self):
        self.daemonset = 404
        self.end()

    def ctl(self, *argv, **env):
        r = subprocess.run([agents.CULVERTCTL, *argv], env={**self.env, **env}, capture_output=True, text=True, timeout=40)
        return r.stdout if r.returncode == 0 or argv[0] == "status" else ""

    def status(self):
        return json.loads(self.ctl("status", "--json") or "{}")

    def installation(self):
        return self.status()["installation"]

    def http(self, port, path):
        return self.host.get(port, path)

    def ready(self):
        if not self.kube:
            return self.installation()["ready"]
        status, body = self.http(8000, "/readyz")
        equal(body.startswith("ready"), status == 200, "the answer's text")
        return status == 200

    def wait_ready(self):
        until(self.ready, "readiness")

    def wait_trouble(self, text):
        until(lambda: text in self.installation()["trouble"], f"trouble: {text}")
        return self.installation()

    def metric(self, name):
        return next((int(x.split()[-1]) for x in self.http(15014, "/metrics")[1].splitlines() if x.startswith(name + " ")), None)


def tells_writers(path):
    with open(path) as f:
        try:
            fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
    return False


def row(name, **kw):
    """Every row has a place of its own."""

    def add(fn):
        T.row(name, lambda: InstallPlace(**kw))(fn)
        return fn

    return add


# --- what is installed, and that it goes without a trace ----------------------------------------------------------------

# name, files, settings, which list has our entry
INSTALLS = [
    ("a-list", {"10-net.conflist": BRIDGE}, {}, "10-net.conflist"),
    ("one-plugin", {"10-net.conf": SINGLE}, {}, "10-net.conflist"),
    ("the-first-of-several", {"20-b.conflist": OTHER, "10-a.conflist": BRIDGE, "9-c.conflist": OTHER}, {}, "10-a.conflist"),
    ("what-is-not-json-is-passed-over", {"01-a.conflist": "{", "10-net.conflist": BRIDGE}, {}, "10-net.conflist"),
    ("a-list-in-conf-is-passed-over", {"01-a.conf": BRIDGE, "10-net.conflist": BRIDGE}, {}, "10-net.conflist"),
    ("one-plugin-in-conflist-is-passed-over", {"01-a.conflist": SINGLE, "10-net.conflist": BRIDGE}, {}, "10-net.conflist"),
    ("other-names-are-passed-over", {"01-a.conflist.bak": BRIDGE, "10-net.conflist": BRIDGE}, {}, "10-net.conflist"),
    ("large-numbers", {"10-net.conflist": OTHER}, {}, "10-net.conflist"),
    ("by-name", {"10-a.conflist": OTHER, "20-b.conflist": BRIDGE}, {"CNI_CONF_NAME": "20-b.conflist"}, "20-b.conflist"),
    ("by-the-name-of-its-twin", {"20-b.conf": SINGLE}, {"CNI_CONF_NAME": "20-b.conflist"}, "20-b.conflist"),
    ("by-the-name-of-its-other-twin", {"20-b.conflist": BRIDGE}, {"CNI_CONF_NAME": "20-b.conf"}, "20-b.conflist"),
    ("alone", {"10-net.conflist": BRIDGE}, {"CHAINED_CNI_PLUGIN": "false"}, None),
    ("alone-by-name", {}, {"CHAINED_CNI_PLUGIN": "false", "CNI_CONF_NAME": "istio-cni.conf"}, None),
    ("owned", {"10-net.conflist": BRIDGE}, {"ISTIO_OWNED_CNI_CONFIG": "true"}, None),
    ("owned-by-name", {"10-net.conf": SINGLE}, {"ISTIO_OWNED_CNI_CONFIG": "true",
                                                "ISTIO_OWNED_CNI_CONFIG_FILENAME": "00-x.conflist"}, None),
    ("almost-a-mebibyte", {"10-net.conflist": BRIDGE + " " * ((1 << 20) - 4096)}, {}, "10-net.conflist"),
]
for name, files, env, holds in INSTALLS:
    @row(f"installs/{name}", files=files, env=env)
    def installs(place, files=files, env=env, holds=holds):
        place.wait_ready()
        place.installed(holds)
        if env.get("CHAINED_CNI_PLUGIN"):
            own = env.get("CNI_CONF_NAME", "YYY-istio-cni.conf")
            equal(json.loads(place.text(own))["type"], PLUGIN, "the configuration's type")
        elif env.get("ISTIO_OWNED_CNI_CONFIG"):
            own = env.get("ISTIO_OWNED_CNI_CONFIG_FILENAME", "02-istio-cni.conflist")
            equal(place.types(own)[-1], PLUGIN, "the last plugin")
        else:
            own = None
        if own:
            equal(os.stat(f"{place.net}/{own}").st_mode & 0o7777, 0o600, "mode")
            equal({n: place.text(n) for n in place.names() if n != own}, files, "the others' configurations")
        equal(place.installation()["path"], f"{place.net}/{own or holds}", "path")
        equal(place.metric('istio_cni_installs_total{result="SUCCESS"}'), 1, "installations")
        equal(place.metric("istio_cni_install_ready"), 1, "the gauge")
        place.uninstall()
        place.no_trace()


@row("the-entry-is-what-the-plugin-needs", files={"10-net.conflist": BRIDGE},
     env={"EXCLUDE_NAMESPACES": "kube-system,other", "RUST_LOG": "info,cni-plugin=debug",
          "AMBIENT_ENABLEMENT_SELECTOR": "- podSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}"})
def entry(place):
    place.wait_ready()
    equal(place.entry("10-net.conflist"), {
        "type": PLUGIN, "name": PLUGIN, "plugin_log_level": "debug", "ambient_enabled": True,
        "enable_ambient_detection_retry": False, "cni_agent_run_dir": place.run, "pod_namespace": "istio-system",
        "exclude_namespaces": ["kube-system", "other"],
        "enablement_selectors": [{"podSelector": {"matchLabels": {"istio.io/dataplane-mode": "ambient"}}}]}, "the entry")


@row("what-is-installed-works", files={"10-net.conflist": BRIDGE})
def works(place):
    """As a runtime would call it: with the keeper, and without it by the kubeconfig."""
    place.wait_ready()

    class pod:
        ns, name, uid, ip4 = place.host.ns, "web-0", "", "10.0.0.2"

    sandbox = cni.Sandbox(pod, "c1", namespace="free")
    conf = {**place.entry("10-net.conflist"), "cniVersion": "1.0.0", "name": "net"}
    place.api.pod("free", "web-0", ips=["10.0.0.2"])
    saved, cni.PLUGIN = cni.PLUGIN, f"{place.bin}/{PLUGIN}"
    try:
        equal(cni.run("ADD", sandbox, conf)[0], 0, "ADD with the keeper")
        equal(place.metric('istio_cni_plugin_requests_total{response_code="200"}'), 1, "requests")
        place.end()
        # The API server is in the pod's namespace here.
        equal(cni.run("ADD", sandbox, conf, host=place.host, env={"CNI_NETNS_OVERRIDE": "1"})[0], 0, "ADD by the kubeconfig")
    finally:
        cni.PLUGIN = saved


# --- waiting ----------------------------------------------------------------------------------------------------------------


@row("waits-for-a-configuration")
def waits(place):
    place.wait_trouble("there is no CNI configuration yet")
    check(not place.ready(), "ready without a configuration")
    equal(place.metric("istio_cni_install_ready"), 0, "the gauge")
    place.put("10-net.conflist", "{")
    place.wait_trouble("10-net.conflist: not JSON")
    place.put("10-net.conflist", BRIDGE)
    place.wait_ready()
    place.holds("10-net.conflist")
    equal(place.metric('istio_cni_installs_total{result="CREATE_CNI_CONFIG_FAILURE"}'), 0, "failures: waiting is none")


@row("waits-for-the-one-that-was-asked-for", files={"10-a.conflist": BRIDGE}, env={"CNI_CONF_NAME": "20-b.conflist"})
def waits_named(place):
    place.wait_trouble("there is no 20-b.conflist yet")
    equal(place.text("10-a.conflist"), BRIDGE, "the other")
    place.put("20-b.conf", SINGLE)
    place.wait_ready()
    place.holds("20-b.conflist")
    equal(place.text("10-a.conflist"), BRIDGE, "the other")
    check("10-a.conflist comes before" in place.installation()["trouble"], "no warning")


@row("waits-for-folders", begin=False)
def waits_folders(place):
    os.rmdir(place.net)
    os.rmdir(place.bin)
    place.start()
    place.wait_trouble(place.net)
    os.mkdir(place.net)
    place.wait_trouble(f"{place.bin}/")
    place.put("10-net.conflist", BRIDGE)
    os.mkdir(place.bin)
    place.wait_ready()
    place.installed("10-net.conflist")


@row("waits-for-the-api-server", files={"10-net.conflist": BRIDGE}, up=False)
def waits_api(place):
    """A plugin that leads to a keeper that cannot tell who is in the mesh would stop every pod."""
    until(lambda: place.status()["kubernetes"]["trouble"], "trouble with the API server")
    equal((place.names(), os.listdir(place.bin)), (["10-net.conflist"], []), "files")
    equal(place.text("10-net.conflist"), BRIDGE, "the configuration")
    check("cannot serve pods yet" in place.installation()["trouble"], place.installation())


# --- repairs -----------------------------------------------------------------------------------------------------------------


def settled(name, **kw):
    """A row that begins when all is installed."""

    def add(fn):
        @row(name, **{"files": {"10-net.conflist": BRIDGE}, **kw})
        def begin(place):
            place.wait_ready()
            fn(place)
        return fn

    return add


@settled("repairs/the-entry-is-removed")
def entry_removed(place):
    for _ in range(3):
        place.put("10-net.conflist", BRIDGE)
        until(lambda: place.types("10-net.conflist")[-1] == PLUGIN, "the entry")
    place.wait_ready()
    place.holds("10-net.conflist")


@settled("repairs/the-entry-is-changed")
def entry_changed(place):
    place.put("10-net.conflist", place.text("10-net.conflist").replace(place.run, "/nowhere"))
    until(lambda: place.entry("10-net.conflist")["cni_agent_run_dir"] == place.run, "our entry")
    place.holds("10-net.conflist")


@settled("repairs/its-owner-writes-it-anew")
def written_anew(place):
    place.put("10-net.conflist", OTHER)
    until(lambda: place.types("10-net.conflist") == ["ptp", PLUGIN], "the entry in the new one")
    place.files_before["10-net.conflist"] = OTHER
    place.holds("10-net.conflist")
    place.wait_ready()
    place.uninstall()
    place.no_trace()


@settled("repairs/its-owner-writes-it-in-place")
def written_in_place(place):
    """Half of it may well be JSON, or be passed over for the next one: who writes is waited for."""
    place.put("20-next.conflist", OTHER)
    with open(f"{place.net}/10-net.conflist", "w") as f:
        f.write(BRIDGE[:40])
        f.flush()
        if not tells_writers(f.name):
            raise Skip("this file system cannot tell who writes a file")
        place.wait_trouble("10-net.conflist is being written")
        f.write(BRIDGE[40:])
        f.flush()
        place.rotate("second")  # something else to look at
        until(lambda: place.token() == "second", "the new token")
        check("10-net.conflist is being written" in place.installation()["trouble"], place.installation())
        equal(place.text("10-net.conflist"), BRIDGE, "the file")
    until(lambda: place.types("10-net.conflist")[-1] == PLUGIN, "the entry")
    place.holds("10-net.conflist")
    equal(place.text("20-next.conflist"), OTHER, "the next one")


@settled("repairs/one-plugin-is-written-anew", files={"10-net.conf": SINGLE})
def single_anew(place):
    equal(place.names(), ["10-net.conflist"], "files")
    place.put("10-net.conf", SINGLE.replace("bridge", "ptp"))
    until(lambda: place.names() == ["10-net.conflist"] and place.types("10-net.conflist") == ["ptp", PLUGIN], "the new one")
    place.wait_ready()
    place.uninstall()
    equal((place.names(), place.text("10-net.conf")), (["10-net.conf"], SINGLE.replace("bridge", "ptp")), "what is left")


@settled("repairs/the-plugin-is-removed")
def plugin_removed(place):
    for name in PLUGIN, HELPER:
        os.unlink(f"{place.bin}/{name}")
        until(lambda: os.path.exists(f"{place.bin}/{name}"), f"{name} to be back")
    place.wait_ready()
    place.installed("10-net.conflist")


@settled("repairs/the-plugin-is-replaced")
def plugin_replaced(place):
    place.put(PLUGIN, "of another", place.bin)
    until(place.same_program, "our plugin")
    os.chmod(f"{place.bin}/{PLUGIN}", 0o600)
    until(lambda: os.stat(f"{place.bin}/{PLUGIN}").st_mode & 0o777 == 0o755, "the mode")
    place.installed("10-net.conflist")


@settled("repairs/the-kubeconfig-is-removed-or-damaged")
def kubeconfig_damaged(place):
    os.unlink(place.kubeconfig)
    until(lambda: os.path.exists(place.kubeconfig), "the kubeconfig")
    place.put("istio-cni-kubeconfig", "damaged", place.run)
    until(lambda: place.token() == "first", "the kubeconfig")
    place.wait_ready()
    place.installed("10-net.conflist")


@settled("repairs/the-token-is-rotated")
def token_rotated(place):
    time.sleep(0.3)  # the pass that its own writing brings is over
    place.rotate("second")
    until(lambda: place.token() == "second", "the new token")
    equal(os.stat(place.kubeconfig).st_mode & 0o7777, 0o600, "mode")
    place.wait_ready()
    check("second" not in place.log() and "first" not in place.log(), "a token in the log")


@settled("repairs/the-folder-is-replaced")
def folder_replaced(place):
    os.rename(place.net, f"{place.net}.old")
    until(lambda: not place.ready(), "unreadiness")
    os.mkdir(place.net)
    place.put("10-net.conflist", OTHER)
    until(lambda: place.types("10-net.conflist") == ["ptp", PLUGIN], "the entry in the new folder")
    place.wait_ready()


@settled("repairs/ready-means-valid")
def ready_means_valid(place):
    for _ in range(3):
        os.rename(f"{place.net}/10-net.conflist", f"{place.net}/10-net.conflist.bak")
        until(lambda: not place.ready(), "unreadiness")
        equal(place.metric("istio_cni_install_ready"), 0, "the gauge")
        os.rename(f"{place.net}/10-net.conflist.bak", f"{place.net}/10-net.conflist")
        place.wait_ready()


@settled("a-new-first-configuration-is-followed")
def followed(place):
    place.put("05-new.conflist", OTHER)
    until(lambda: place.types("05-new.conflist")[-1] == PLUGIN, "the entry in the new one")
    place.wait_ready()
    equal(place.installation()["path"], f"{place.net}/05-new.conflist", "path")
    check(PLUGIN in place.types("10-net.conflist"), "the old one has lost it: it may be the first again")
    os.unlink(f"{place.net}/05-new.conflist")
    until(lambda: place.installation()["path"] == f"{place.net}/10-net.conflist", "the old one")
    place.put("05-new.conf", SINGLE)
    until(lambda: "05-new.conflist" in place.names() and place.types("05-new.conflist") == ["bridge", PLUGIN], "the entry")
    place.uninstall()
    place.files_before["05-new.conf"] = SINGLE
    place.no_trace()


@settled("owned/the-original-is-followed", env={"ISTIO_OWNED_CNI_CONFIG": "true"})
def owned_followed(place):
    place.put("10-net.conflist", OTHER)
    until(lambda: place.types("02-istio-cni.conflist") == ["ptp", PLUGIN], "the new plugins in the copy")
    equal(json.loads(place.text("02-istio-cni.conflist"))["big"], 123456789012345678901234567890, "a large number")
    os.unlink(f"{place.net}/02-istio-cni.conflist")
    until(lambda: "02-istio-cni.conflist" in place.names(), "the copy")
    os.unlink(f"{place.net}/10-net.conflist")
    until(lambda: not place.ready(), "unreadiness")
    equal(place.names(), ["02-istio-cni.conflist"], "the copy stays: pods wait for the original's owner")


@settled("a-fight-is-bounded")
def fight(place):
    """Another program removes our entry whenever it comes."""
    path, end, removed = f"{place.net}/10-net.conflist", time.monotonic() + 6, 0
    while time.monotonic() < end:
        if PLUGIN in place.text("10-net.conflist"):
            place.put("10-net.conflist", BRIDGE)
            removed += 1
        time.sleep(0.001)
    check(7 <= removed <= 25, f"{removed} repairs in 6 s")
    check("another program changes the same files" in place.log(), "nothing in the log")
    until(lambda: PLUGIN in place.types("10-net.conflist"), "the entry")
    check(os.path.exists(path) and place.status(), "the keeper answers")


# --- what cannot be done --------------------------------------------------------------------------------------------------


@row("a-read-only-folder", files={"10-net.conflist": BRIDGE}, begin=False)
def read_only(place):
    for folder_, counter in ((place.bin, "COPY_BINARIES"), (place.net, "CREATE_CNI_CONFIG")):
        sh("mount", "--bind", folder_, folder_)
        sh("mount", "-o", "remount,bind,ro", folder_)
        place.start()
        trouble = place.wait_trouble("read-only file system: is this the folder of this platform")
        check(folder_ in trouble["trouble"], trouble)
        check(not place.ready(), "ready")
        until(lambda: place.metric(f'istio_cni_installs_total{{result="{counter}_FAILURE"}}') > 2, "failures to be counted")
        equal(place.log().count("read-only file system"), 1, "lines in the log")
        # It has mounts of its own.
        sh("nsenter", "-t", str(place.process.pid), "-m", "mount", "-o", "remount,bind,rw", folder_)
        place.wait_ready()
        place.installed("10-net.conflist")
        sh("mount", "-o", "remount,bind,rw", folder_)
        place.uninstall()
        sh("umount", folder_)
        place.no_trace()
        place.daemonset = {"metadata": {}}


@row("more-than-a-mebibyte", files={"10-net.conflist": BRIDGE + " " * (1 << 20), "20-b.conflist": OTHER})
def too_large(place):
    """The runtime takes it; the next one is of no use."""
    place.wait_trouble("has more than 1048576 bytes")
    check(not place.ready(), "ready")
    equal(place.text("20-b.conflist"), OTHER, "the next one")
    place.put("10-net.conflist", BRIDGE)
    place.wait_ready()


@row("a-version-that-the-plugin-does-not-speak", files={"10-net.conflist": BRIDGE.replace("1.0.0", "0.2.0")})
def old_version(place):
    place.wait_trouble('its cniVersion is "0.2.0"')
    check(not place.ready(), "ready")
    equal(place.text("10-net.conflist"), place.files_before["10-net.conflist"], "the configuration")


@row("symbolic-links", begin=False)
def links(place):
    os.mkdir(f"{place.folder}/elsewhere")
    place.put("real", BRIDGE, f"{place.folder}/elsewhere")
    os.symlink(f"{place.folder}/elsewhere/real", f"{place.net}/10-net.conflist")
    place.start()
    place.wait_ready()
    check(os.path.islink(f"{place.net}/10-net.conflist"), "the link is gone")
    place.holds("10-net.conflist")
    place.put("real", OTHER, f"{place.folder}/elsewhere")
    until(lambda: place.types("10-net.conflist") == ["ptp", PLUGIN], "what it leads to was changed")
    place.wait_ready()
    os.rename(f"{place.folder}/elsewhere/real", f"{place.folder}/elsewhere/moved")
    place.wait_trouble("is a symbolic link to what is not there")
    check(not place.ready(), "ready")
    os.rename(f"{place.folder}/elsewhere/moved", f"{place.folder}/elsewhere/real")
    place.wait_ready()
    place.uninstall()
    equal((place.text("10-net.conflist"), os.path.islink(f"{place.net}/10-net.conflist")), (OTHER, True), "what is left")


@row("modes-and-owners-are-kept", begin=False)
def modes(place):
    place.put("10-net.conflist", BRIDGE)
    os.chmod(f"{place.net}/10-net.conflist", 0o640)
    os.chown(f"{place.net}/10-net.conflist", 12, 34)
    place.start()
    place.wait_ready()
    for _ in range(2):
        st = os.stat(f"{place.net}/10-net.conflist")
        equal((st.st_mode & 0o7777, st.st_uid, st.st_gid), (0o640, 12, 34), "mode and owner")
        if place.process.poll() is None:
            place.uninstall()


@row("what-a-dead-keeper-left-unfinished", files={"10-net.conflist": BRIDGE}, begin=False)
def unfinished(place):
    place.put(f"{PLUGIN}.culvert-tmp", "half", place.bin)
    place.put("other.culvert-tmp", "half", place.bin)
    place.put("05-other.conflist.culvert-tmp", "half")
    place.start()
    place.wait_ready()
    equal((place.names(), sorted(os.listdir(place.bin))), (["10-net.conflist"], [HELPER, PLUGIN]), "files")
    place.uninstall()
    place.no_trace()


# --- two of them, and restarts --------------------------------------------------------------------------------------------


@settled("two-keepers-take-turns")
def two(place):
    first = place.process
    before = os.stat(f"{place.net}/10-net.conflist").st_ino
    second = {"CULVERT_RUN_DIR": f"{place.folder}/second", "CULVERT_ZDS": f"{place.folder}/second/zds.sock",
              "CNI_AGENT_RUN_DIR": f"{place.folder}/second", "CULVERT_BPF_DIR": f"{place.folder}/bpf/second",
              "MONITORING_PORT": "15015", "AMBIENT_ENABLED": "false", "CULVERT_CNI_PODS": "all"}
    os.mkdir(second["CULVERT_BPF_DIR"])
    place.env["CULVERT_RUN_DIR"] = second["CULVERT_RUN_DIR"]
    place.start(**second)
    place.wait_trouble("another keeper installs into")
    equal(os.stat(f"{place.net}/10-net.conflist").st_ino, before, "the file that the first one wrote")
    first.kill()
    first.wait()
    until(lambda: place.installation()["ready"], "the second to take over")
    equal(place.entry("10-net.conflist")["cni_socket"], f"{place.folder}/second/pluginevent.sock", "whose socket")


@settled("a-restarted-keeper-finds-all-as-it-was")
def restarted(place):
    paths = [f"{place.net}/10-net.conflist", f"{place.bin}/{PLUGIN}", f"{place.bin}/{HELPER}", place.kubeconfig]
    before = [os.stat(p).st_ino for p in paths]
    place.end()
    place.installed("10-net.conflist")
    place.start()
    place.wait_ready()
    equal([os.stat(p).st_ino for p in paths], before, "files: nothing was written anew")


@settled("a-killed-keeper-leaves-it")
def killed(place):
    place.process.kill()
    place.process.wait()
    place.installed("10-net.conflist")
    place.put("10-net.conflist", BRIDGE)  # its owner writes it anew meanwhile
    place.start(EXCLUDE_NAMESPACES="other")
    place.wait_ready()
    equal(place.entry("10-net.conflist")["exclude_namespaces"], ["other"], "the new keeper's settings")


@settled("other-settings-leave-nothing-behind", env={"ISTIO_OWNED_CNI_CONFIG": "true"})
def other_settings(place):
    place.end()
    place.start(ISTIO_OWNED_CNI_CONFIG="false")
    until(lambda: place.names() == ["10-net.conflist"], "the copy to go")
    place.wait_ready()
    place.end()
    place.start(CHAINED_CNI_PLUGIN="false")
    until(lambda: "YYY-istio-cni.conf" in place.names(), "a configuration of its own")
    place.wait_ready()
    place.uninstall()
    place.no_trace()


# --- the end ------------------------------------------------------------------------------------------------------------------

AFFINITY = {"metadata": {}, "spec": {"template": {"spec": {"affinity": {"nodeAffinity": {
    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}}}}}}
LABELS = {"metadata": {"name": "node-1", "labels": {"zone": "b"}}}

# name, answer about the DaemonSet, about the node, settings, does it stay, questions
ENDS = [
    ("the-daemonset-is-there", {"metadata": {}}, None, {}, True, 1),
    ("the-daemonset-is-gone", 404, None, {}, False, 1),
    ("the-daemonset-is-being-deleted", {"metadata": {"deletionTimestamp": "2026-11-26T00:00:00Z"}}, None, {}, False, 1),
    ("our-account-is-refused", 401, None, {}, True, 3),
    ("our-role-is-not-enough", 403, None, {}, True, 3),
    ("the-node-is-still-wanted", AFFINITY, None, {}, True, 1),
    ("the-node-is-not-wanted-any-more", AFFINITY, LABELS, {}, False, 1),
    ("the-node-cannot-be-asked-for", AFFINITY, 403, {}, True, 3),
    ("the-api-server-is-in-trouble", 500, None, {}, True, 3),
    ("an-answer-that-is-none", [], None, {}, True, 3),
    ("not-a-safe-upgrade", {"metadata": {}}, None, {"AMBIENT_DISABLE_SAFE_UPGRADE": "true"}, False, 0),
    ("without-our-namespace", 404, None, {"POD_NAMESPACE": ""}, True, 0),
    ("owned-and-gone", 404, None, {"ISTIO_OWNED_CNI_CONFIG": "true"}, False, 1),
    ("owned-and-our-role-is-not-enough", 403, None, {"ISTIO_OWNED_CNI_CONFIG": "true"}, True, 3),
]
for name, daemonset, node, env, stays, questions in ENDS:
    @settled(f"ends/{name}", env=env)
    def ends(place, daemonset=daemonset, node=node, stays=stays, questions=questions):
        place.daemonset, place.node_object = daemonset, node or place.node_object
        place.end()
        equal(place.api.count("GET", "/daemonsets/"), questions, "questions")
        if stays:
            place.installed()
            check(any(PLUGIN in place.text(n) for n in place.names()), "the entry is gone")
        else:
            place.no_trace()


@settled("ends/the-api-server-is-away")
def ends_alone(place):
    """A reboot: who cannot be asked cannot tell that this is the end."""
    place.api.__exit__(None, None, None)
    place.end()
    place.installed("10-net.conflist")


@settled("ends/the-api-server-does-not-answer")
def ends_silent(place):
    place.api.hook = lambda method, path, query: time.sleep(60) if "daemonsets" in path else None
    t = time.monotonic()
    place.end(25)
    check(time.monotonic() - t < 15, f"it took {time.monotonic() - t:.0f} s of the 30 that Kubernetes gives")
    place.installed("10-net.conflist")


@settled("ends/unready-while-it-asks")
def ends_unready(place):
    place.api.hook = lambda method, path, query: time.sleep(1) if "daemonsets" in path else None
    place.process.terminate()
    until(lambda: not place.ready(), "unreadiness")
    place.process.wait(20)


@settled("ends/another-plugin-took-its-place")
def ends_replaced(place):
    """Istio's installer came back: what is there is his."""
    place.process.send_signal(signal.SIGSTOP)  # it does not repair what comes now
    place.put(PLUGIN, "of another", place.bin)
    place.daemonset = 404
    place.process.terminate()
    place.process.send_signal(signal.SIGCONT)
    equal(place.process.wait(20), 0, "exit status")
    with open(f"{place.bin}/{PLUGIN}") as f:
        equal(f.read(), "of another", "his plugin")
    check(PLUGIN in place.types("10-net.conflist"), "the entry is gone")


@settled("ends/an-unreadable-file-is-left-alone")
def ends_unreadable(place):
    place.put("30-other.conflist", "{ istio-cni")
    place.uninstall()
    place.files_before["30-other.conflist"] = "{ istio-cni"
    place.no_trace()


# --- without Kubernetes ----------------------------------------------------------------------------------------------------


@settled("plain/installs-and-stays", kube=False, env={"CULVERT_CNI_PODS": "all"})
def plain(place):
    place.installed("10-net.conflist")
    entry = place.entry("10-net.conflist")
    equal((entry["cni_socket"], entry["ambient_enabled"]), (f"{place.run}/pluginevent.sock", True), "the entry")
    check("cni_agent_run_dir" not in entry and not os.path.exists(place.kubeconfig), "it leads to an API server")
    check(f"installation   {place.net}/10-net.conflist, valid\n" in place.ctl("status"), place.ctl("status"))
    place.end()
    place.installed("10-net.conflist")
    place.start(CULVERT_CNI_REMOVE_AT_END="true")
    place.wait_ready()
    place.end()
    place.no_trace()


@row("plain/trouble-is-told", kube=False)
def plain_trouble(place):
    place.wait_trouble("no CNI configuration yet")
    check(f"installation   NOT valid: {place.net}: there is no CNI configuration yet\n" in place.ctl("status"),
          place.ctl("status"))


@row("plain/nothing-is-installed-unless-it-is-asked-for", kube=False, files={"10-net.conflist": BRIDGE}, begin=False)
def plain_off(place):
    del place.env["MOUNTED_CNI_NET_DIR"]
    place.start()
    equal(place.installation(), None, "installation")
    check("installation" not in place.ctl("status"), "a line about it")
    place.end()
    place.no_trace()


# --- a runtime ------------------------------------------------------------------------------------------------------------


@T.row("containerd-follows", RuntimePlace)
def containerd_follows(place):
    """What the keeper writes is what a real runtime takes: at once, after another has written it anew, and when it is gone."""
    def listed():
        return PLUGIN.encode() in place.runtime.call("Status", b"\x08\x01")

    bridge = place.chain[:1]
    place.runtime.configure(bridge)
    until(lambda: b"culvert-cni" not in place.runtime.call("Status", b"\x08\x01"), "containerd to know the bridge alone")
    place.stop()
    place.env |= {"CULVERT_CNI_CONF_DIR": f"{place.work}/net.d", "CULVERT_CNI_BIN_DIR": f"{place.work}/bin"}
    place.start()
    until(listed, "our entry in containerd")
    t, uid = place.willing(), str(uuid.uuid4())
    with place.sandbox("default", "web-0", uid):
        address = captured(t, uid)
        equal((address[0].removeprefix("::ffff:"), address[1]), (TARGET, PORT), "where the canary wanted to go")
        place.runtime.configure(bridge)
        until(listed, "our entry again")
    os.rename(f"{place.work}/net.d/10-net.conflist", f"{place.work}/10-net.conflist")
    with open(f"{place.work}/net.d/10-net.conf", "w") as f:
        json.dump({"cniVersion": "1.0.0", "name": "net", **bridge[0]}, f)
    until(lambda: os.listdir(f"{place.work}/net.d") == ["10-net.conflist"], "the list that was one plugin")
    until(listed, "our entry in it")
    second = str(uuid.uuid4())
    with place.sandbox("default", "web-1", second):
        captured(t, second)
    equal(place.knocks(0.3), None, "who reached the target past the mesh")
    place.env["CULVERT_CNI_REMOVE_AT_END"] = "true"
    place.stop()
    place.start()
    until(listed, "our entry")
    place.stop()
    until(lambda: not listed(), "our entry to go")
    equal(os.listdir(f"{place.work}/net.d"), ["10-net.conf"], "configurations")
    with place.sandbox("default", "web-2", str(uuid.uuid4())):
        check(place.knocks(10), "the pod does not reach its target without the mesh")


# name, settings, the line
WRONG = [
    ("name-with-a-folder", {"CNI_CONF_NAME": "../x.conflist"}, "is not the name of a CNI configuration"),
    ("name-of-another-kind", {"CNI_CONF_NAME": "x.yaml"}, "is not the name of a CNI configuration"),
    ("selectors", {"AMBIENT_ENABLEMENT_SELECTOR": "["}, "AMBIENT_ENABLEMENT_SELECTOR"),
    ("mode", {"KUBECONFIG_MODE": "rw"}, 'KUBECONFIG_MODE: "rw" is not the mode of a file'),
    ("folder", {"MOUNTED_CNI_NET_DIR": "net.d"}, "is not an absolute path"),
]
for name, env, line in WRONG:
    @row(f"wrong-settings/{name}", kube=False, begin=False, files={"10-net.conflist": BRIDGE})
    def wrong(place, env=env, line=line):
        r = place.host.popen([agents.CULVERTD, "node"], env={**place.env, **env}, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        out = r.communicate(timeout=20)[0]
        check(r.returncode == 1 and line in out.splitlines()[-1], f"{r.returncode}: {out}")
        place.no_trace()


if __name__ == "__main__":
    T.main()
