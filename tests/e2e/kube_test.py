#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The keeper in Kubernetes: `culvertd node` against an API server that the test plays (tests/fake/kube_api.py), with a
tunnel that does what it is told. Pods are namespaces with a process in a cgroup that is named as the kubelet would."""
import contextlib
import os
import socket
import sys
import time
import uuid

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
from keeper_test import DEL, Place
from kube_api import KubeApi, status_object
from lib import cni
from lib.cni import Sandbox, WillingTunnel
from lib.net import sh
from lib.rows import Skip, Table, check, equal, until

T = Table(__file__)
MODE, REDIRECTION = "istio.io/dataplane-mode", "ambient.istio.io/redirection"
AMBIENT = {MODE: "ambient"}


class Process:
    """A process of a pod: in its namespace, and in a cgroup as the kubelet and containerd make it. `begin`: what it does
    first."""

    def __init__(self, place, netns, uid, begin=""):
        self.folder = f"{place.cgroup}/kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{uuid.uuid4().hex}.scope"
        os.makedirs(self.folder)
        self.process = netns.popen(["sh", "-c", f"echo $$ >{self.folder}/cgroup.procs; exec {begin} sleep 600"])
        until(lambda: open(f"{self.folder}/cgroup.procs").read().strip(), "the process in its cgroup")
        until(lambda: open(f"/proc/{self.process.pid}/comm").read() == "sleep\n", "the process to run")

    def close(self):
        self.process.kill()
        self.process.wait()
        if os.path.isdir(self.folder):
            until(lambda: not open(f"{self.folder}/cgroup.procs").read(), "an empty cgroup")
            os.rmdir(self.folder)


class KubePlace(Place):
    """A keeper on the first node, and the API server on its loopback. `up`: it is there from the beginning."""

    with_tunnel = True

    def __init__(self, steering="bpf", up=True, prepare=None, env=(), tls=False):
        super().__init__(steering)
        self.tls = tls
        self.up, self.prepare, self.more, self.api, self.processes = up, prepare, dict(env), None, []

    def start(self):
        if not self.api:
            self.begin_kube()
        super().start()
        if self.with_tunnel:
            self.willing()

    def stop(self):
        super().stop()
        said = [x for x in self.log().splitlines() if "Sanitizer:" in x or "runtime error:" in x]
        check(not said, lambda: said[0])
        for t in self.tunnels:  # another keeper has a tunnel of its own
            t.close()
        self.tunnels = []

    def begin_kube(self):
        self.cgroup = f"{self.folder}/cgroup"
        os.mkdir(self.cgroup)
        sh("mount", "-t", "cgroup2", "none", self.cgroup)
        self.stack.callback(sh, "umount", "-l", self.cgroup, ok=False)
        self.cgroup += f"/e2e-kube-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        os.mkdir(self.cgroup)
        self.stack.callback(self.remove_cgroups)
        self.write_token("first")
        pair = self.certificate("api") if self.tls else None
        self.api = KubeApi(self.node.listen(6443, "127.0.0.1"), tokens={"first"}, tls=pair)
        self.api.namespace("default", AMBIENT)
        self.api.namespace("free")
        self.api.namespace("kube-system", AMBIENT)
        self.kubeconfig = self.api.kubeconfig(f"{self.folder}/kubeconfig", token_file="token",
                                              ca="api.pem" if self.tls else None)
        self.env |= {"AMBIENT_ENABLED": "true", "NODE_NAME": "node-1", "KUBECONFIG": self.kubeconfig,
                     "EXCLUDE_NAMESPACES": "kube-system", **self.more}
        if self.prepare:
            self.prepare(self)
        if self.up:
            self.stack.enter_context(self.api)
        else:
            self.api.listener.close()

    def certificate(self, name):
        pair = f"{self.folder}/{name}.pem", f"{self.folder}/{name}.key"
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
           "-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1", "-out", pair[0], "-keyout", pair[1])
        return pair

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return {k: int(v.split()[0]) for k, v in (x.split(":") for x in f if x.startswith(("VmRSS", "RssAnon", "VmHWM")))}

    def remove_cgroups(self):
        for p in self.processes:
            p.close()
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def write_token(self, token):
        with open(f"{self.folder}/token.new", "w") as f:
            f.write(token + "\n")
        os.rename(f"{self.folder}/token.new", f"{self.folder}/token")

    def willing(self):
        t = WillingTunnel(f"{self.run}/zds.sock")
        self.tunnels.append(t)
        return t

    def runs(self, pod=None, namespace="default", name=None, process=True, **kw):
        """A pod that runs, in Kubernetes and on the node."""
        pod = pod or self.pod
        kw.setdefault("uid", str(uuid.uuid4()))
        if process:
            self.populate(pod, kw["uid"])
        return self.api.pod(namespace, name or pod.name, ips=[pod.ip4, pod.ip6], sa=pod.sa, **kw)

    def populate(self, netns, uid, begin=""):
        p = Process(self, netns, uid, begin)
        self.processes.append(p)
        return p

    def end_processes(self):
        for p in self.processes:
            p.close()
        self.processes = []

    def state(self, name="a1"):
        return self.pods().get(name, {}).get("state")

    def wait_in(self, name="a1", namespace="default", deadline=10):
        until(lambda: self.state(name) == "enrolled", f"{name} to be enrolled", deadline)
        until(lambda: self.api.annotation(namespace, name) == "enabled", "the annotation", deadline)

    def wait_out(self, name="a1", namespace="default", annotation=None, deadline=10):
        until(lambda: name not in self.pods(), f"{name} to be out", deadline)
        if self.api.get(namespace, name):
            until(lambda: self.api.annotation(namespace, name) == annotation, "the annotation", deadline)

    def http(self, port, path):
        return self.node.get(port, path)

    def ready(self):
        return self.http(8000, "/readyz")[0] == 200

    def wait_ready(self):
        until(self.ready, "readiness")

    def watches(self):
        return self.api.watching["pods"] > 0 and self.api.watching["namespaces"] > 0

    def settled(self):
        self.wait_ready()
        until(self.watches, "both watches")

    def quiet_in(self, seconds=0.5, name="a1"):
        """Nothing happens to it for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            equal(self.state(name), "enrolled", f"state of {name}")
            time.sleep(0.05)


def row(name, **kw):
    """Every row has a place of its own."""

    def add(fn):
        T.row(name, lambda: KubePlace(**kw))(fn)
        return fn

    return add


# --- what runs already ----------------------------------------------------------------------------------------------


@row("a-pod-that-runs-is-enrolled-and-annotated", prepare=lambda p: p.runs())
def at_start(place):
    place.wait_in()
    check(place.steered(), "not steered")
    pod = place.pods()["a1"]
    equal((pod["uid"], pod["serviceAccount"]), (place.api.get("default", "a1")["metadata"]["uid"], "sa-a1"), "the pod")
    place.settled()
    equal(place.http(8000, "/healthz")[0], 200, "/healthz")
    equal(place.http(8000, "/elsewhere")[0], 404, "another path")
    text = place.http(15014, "/metrics")[1]
    for line in ("ztunnel_connected 1", 'nodeagent_reconcile_events_total{type="add"} 4',
                 'culvert_kube_pods{mesh="enrolled"} 1', "culvert_kube_connected 1"):
        check(line in text.splitlines(), f"no {line} in {text}")
    equal(place.api.count("GET", "/pods", fieldSelector="spec.nodeName=node-1"),
          place.api.count("GET", "/api/v1/pods"), "requests for this node's pods only")


@row("iptables-pods-too", steering="iptables", prepare=lambda p: p.runs())
def at_start_iptables(place):
    place.wait_in()
    check("ISTIO" in place.pod.run("iptables-save"), "no rules")


@row("a-pod-of-another-namespace-of-processes-is-not-taken-for-it")
def foreign_process(place):
    """Only the pod's cgroup and one of its addresses together prove anything."""
    place.settled()
    uid = str(uuid.uuid4())
    stranger = place.populate(place.second, uid)  # the right cgroup, in a namespace with other addresses
    place.runs(uid=uid, process=False)
    until(lambda: "none of its processes is in a namespace with its address" in place.log(), "the line")
    equal(place.pods(), {}, "pods")
    check(not place.steered(place.second), "the stranger's namespace is steered")
    place.populate(place.pod, uid)
    place.wait_in()
    check(place.steered(), "not steered")
    check(not place.steered(place.second), "the stranger's namespace is steered")
    stranger.close()


def within_users(place, levels):
    """A process of a pod in a network namespace with the pod's address that it made in a user namespace of its own."""
    uid = str(uuid.uuid4())
    make = (f"ip link add eth0 type veth peer name eth1 && ip addr add {place.pod.ip4}/24 dev eth0 && ip link set lo up && "
            f"ip link set eth0 up && exec sleep 600")
    program = f"{place.folder}/begin"
    with open(program, "w") as f:
        f.write(f"#!/bin/sh\n{make}\n")
    os.chmod(program, 0o755)
    place.populate(place.pod, uid, f"{'unshare -U -r ' * (levels - 1)}unshare -U -r -n {program}")
    return uid


@row("a-namespace-that-a-process-made-itself-is-not-the-pods")
def own_namespace(place):
    """An unprivileged process can make one in a user namespace of its own, and give it any address."""
    place.settled()
    place.runs(uid=within_users(place, 1), process=False)
    until(lambda: "none of its processes is in a namespace with its address" in place.log(), "the line")
    equal(place.pods(), {}, "pods")


@row("nor-one-in-a-pod-that-was-given-a-user-namespace")
def own_namespace_within(place):
    place.settled()
    place.runs(uid=within_users(place, 2), process=False, spec={"hostUsers": False})
    until(lambda: "none of its processes is in a namespace with its address" in place.log(), "the line")
    equal(place.pods(), {}, "pods")


@row("a-pod-that-was-given-a-user-namespace-is-enrolled")
def given_users(place):
    place.settled()
    place.runs(uid=within_users(place, 1), process=False, spec={"hostUsers": False})
    place.wait_in()


# --- labels ---------------------------------------------------------------------------------------------------------


@row("labels-of-the-pod-decide")
def pod_labels(place):
    place.settled()
    place.runs(namespace="free")
    place.api.mode("free", "a1", "ambient")
    place.wait_in(namespace="free")
    place.api.mode("free", "a1", "none")
    place.wait_out(namespace="free")
    place.untouched()
    place.api.mode("free", "a1", "ambient")
    place.wait_in(namespace="free")
    place.api.mode("free", "a1", None)
    place.wait_out(namespace="free")


@row("labels-of-the-namespace-decide")
def namespace_labels(place):
    place.settled()
    place.runs(namespace="free")
    place.runs(place.second, namespace="free", labels={MODE: "none"})
    place.api.mode("free", None, "ambient")
    place.wait_in(namespace="free")
    equal(place.api.annotation("free", "a2"), None, "annotation of the pod that opts out")
    equal(list(place.pods()), ["a1"], "pods")
    place.api.mode("free", None, None)
    place.wait_out(namespace="free")
    place.untouched()


@row("opt-outs-are-kept")
def opt_outs(place):
    place.settled()
    place.runs(name="by-label", labels={MODE: "none"})
    place.runs(name="with-sidecar", annotations={"sidecar.istio.io/status": "{}"})
    place.runs(name="of-the-host", spec={"hostNetwork": True})
    place.runs(name="excluded", namespace="kube-system")
    place.runs(name="not-ours", node="node-2")
    place.runs(place.second, name="a2")
    place.wait_in("a2")
    equal(list(place.pods()), ["a2"], "pods")


@row("enrolling-a-running-pod-breaks-no-connection")
def connections_stay(place):
    place.settled()
    place.runs(namespace="free")
    # It has been seen outside: what is in the mesh when it is first seen should have been steered from its beginning.
    until(lambda: 'culvert_kube_pods{mesh="outside"} 1' in place.http(15014, "/metrics")[1], "the pod to be seen")
    listener = place.node.listen(7000)
    with contextlib.closing(listener), place.pod.connect("10.71.1.1", 7000) as c:
        s = listener.accept()[0]
        place.api.mode("free", None, "ambient")
        place.wait_in(namespace="free")
        c.sendall(b"still here")
        equal(s.recv(100), b"still here", "what arrives")
        s.close()


# --- restarts and repairs -------------------------------------------------------------------------------------------


@row("reboot-bypass-is-repaired", up=False)
def reboot(place):
    """It says enabled, and is not steered: what a reboot leaves when the CNI chain was late."""
    place.stop()
    listener = place.node.listen(7000)
    with contextlib.closing(listener), place.pod.connect("10.71.1.1", 7000) as plaintext:
        s = listener.accept()[0]
        place.api.listener = place.node.listen(6443, "127.0.0.1")
        place.stack.enter_context(place.api)
        place.runs(annotations={REDIRECTION: "enabled"})
        place.start()
        place.wait_in()
        check(place.steered(), "not steered")
        plaintext.settimeout(5)
        try:
            equal(plaintext.recv(10), None, "on a plaintext connection of a pod in the mesh")
        except ConnectionError:
            pass
        s.close()


@row("api-down-at-start-changes-nothing", prepare=lambda p: p.runs())
def api_down(place):
    place.wait_in()
    place.stop()
    place.api.__exit__()
    place.start()
    until(lambda: "trying again" in place.log(), "a line about the API server")
    equal(place.http(8000, "/readyz")[0], 503, "/readyz")
    until(lambda: place.state() == "enrolled", "the pod to be regained")
    place.quiet_in()
    check(place.steered(), "not steered")
    api = KubeApi(place.node.listen(6443, "127.0.0.1"), tokens={"first"})
    api.objects, api.version = place.api.objects, place.api.version + 50
    place.api = place.stack.enter_context(api)
    place.settled()
    place.quiet_in()


@row("half-a-list-un-enrols-nobody", prepare=lambda p: p.runs())
def half_a_list(place):
    """A keeper that starts, and hears of namespaces but not of pods."""
    place.wait_in()
    place.stop()
    place.api.mode("default", None, None)
    place.api.hook = lambda m, p, q: (500, status_object(500, "etcd is away")) if p == "/api/v1/pods" else None
    place.start()
    until(lambda: "etcd is away" in place.log(), "the line")
    until(lambda: place.state() == "enrolled", "the pod to be regained")
    place.quiet_in()
    equal(place.http(8000, "/readyz")[0], 503, "/readyz")
    place.api.hook = None
    place.wait_out()


@row("pods-that-vanished-meanwhile-are-un-enrolled", prepare=lambda p: (p.runs(), p.runs(p.second)))
def vanished(place):
    place.wait_in("a1")
    place.wait_in("a2")
    place.stop()
    place.api.vanish("pods", "default", "a1")
    place.processes[0].close()
    place.start()
    place.wait_out()
    until(lambda: place.state("a2") == "enrolled", "the other")
    check(place.api.count("GET", "/namespaces/default/pods/a1"), "it was not asked for by name")


@row("labels-that-changed-meanwhile-are-followed", prepare=lambda p: (p.runs(), p.runs(p.second, namespace="free")))
def changed_meanwhile(place):
    place.wait_in()
    place.stop()
    place.api.mode("default", None, None)
    place.api.mode("free", None, "ambient")
    place.start()
    place.wait_out()
    place.wait_in("a2", "free")


@row("a-deleted-pod-whose-processes-live-stays-steered", prepare=lambda p: p.runs())
def deleted_alive(place):
    place.wait_in()
    place.api.delete("pods", "default", "a1")
    until(lambda: "processes of it live on" in place.log(), "the line")
    place.quiet_in()
    check(place.steered(), "not steered")
    place.end_processes()
    place.wait_out(deadline=20)


@row("a-finished-job-is-un-enrolled", prepare=lambda p: p.runs())
def job(place):
    place.wait_in()
    place.end_processes()
    place.api.change("default", "a1", lambda o: o["status"].update(phase="Succeeded"))
    place.wait_out()
    place.untouched()


@row("a-pod-that-has-ended-whose-processes-live-stays-steered", prepare=lambda p: p.runs())
def ended_alive(place):
    """What writes the phase may be wrong, or ahead of the runtime."""
    place.wait_in()
    place.api.change("default", "a1", lambda o: o["status"].update(phase="Failed"))
    until(lambda: "processes of it live on" in place.log(), "the line")
    place.quiet_in()
    check(place.steered(), "not steered")
    place.end_processes()
    place.wait_out(deadline=20)


@row("a-sandbox-made-behind-the-cni-is-found", prepare=lambda p: p.runs())
def new_sandbox(place):
    """The same pod in another namespace, of which only its status tells."""
    place.wait_in()
    place.end_processes()
    place.populate(place.second, place.api.get("default", "a1")["metadata"]["uid"])
    place.api.change("default", "a1", lambda o: o["status"].update(podIP=place.second.ip4,
                                                                  podIPs=[{"ip": place.second.ip4}]))
    until(lambda: place.steered(place.second), "the new namespace to be steered")
    place.wait_in()
    until(lambda: not place.steered(), "the old namespace to be let go")


@row("pods-enrolled-by-hand-are-left-alone")
def by_hand(place):
    place.settled()
    equal(place.ctl("enrol", f"/run/netns/{place.pod.ns}", "free/byhand/default"), (0, ""), "culvertctl enrol")
    place.api.forget()
    lists = place.api.count("GET", "/api/v1/pods", limit="100")
    place.api.cut()
    until(lambda: place.api.count("GET", "/api/v1/pods", limit="100") > lists, "a new list")
    place.settled()
    until(lambda: place.state("byhand") == "enrolled", "the pod to be regained")
    place.quiet_in(name="byhand")
    place.stop()
    place.start()
    place.settled()
    until(lambda: place.state("byhand") == "enrolled", "the pod to be regained")
    place.quiet_in(name="byhand")


# --- the API server's moods -----------------------------------------------------------------------------------------


@row("forgotten-versions-mean-a-new-list", prepare=lambda p: (p.runs(), p.runs(p.second)))
def forgotten(place):
    place.wait_in("a1")
    place.wait_in("a2")
    place.settled()
    place.api.vanish("pods", "default", "a1")
    place.processes[0].close()
    place.api.forget()
    place.api.cut()
    place.wait_out()
    place.settled()
    equal(place.state("a2"), "enrolled", "the other")


@row("a-list-alone-un-enrols-nobody", prepare=lambda p: p.runs())
def stale_list(place):
    """A list from a cache that lags lacks the pod, which is there when it is asked for by name."""
    place.wait_in()
    place.settled()
    empty = {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}

    def hook(method, path, query):
        return (200, {**empty, "metadata": {"resourceVersion": str(place.api.version)}}) if (
            path == "/api/v1/pods" and "watch" not in query) else None

    place.api.hook = hook
    place.api.forget()
    place.api.cut()
    until(lambda: place.api.count("GET", "/namespaces/default/pods/a1"), "the question")
    place.quiet_in()


def known(place):
    """Pods in the cache."""
    return sum(int(x.split()[-1]) for x in place.http(15014, "/metrics")[1].splitlines()
               if x.startswith("culvert_kube_pods{"))


def elsewhere(place):
    """The name is a pod's on another node, which is in the mesh there."""
    return place.api.pod("default", "a1", node="node-2", ips=["10.71.2.9"], annotations={REDIRECTION: "enabled"})


def is_left_alone(place):
    """The pod of the other node; and when the name comes back, nothing is in its way."""
    asked = len(place.api.seen)
    time.sleep(1)
    equal([x for x in place.api.seen[asked:] if "/pods/a1" in x[1]], [], "requests about another node's pod")
    equal(place.api.annotation("default", "a1"), "enabled", "annotation of another node's pod")
    equal(known(place), 0, "pods in the cache")
    place.api.delete("pods", "default", "a1")
    uid = place.api.pod("default", "a1")["metadata"]["uid"]
    code, text = cni.run("ADD", Sandbox(place.pod, "c1", uid=uid), conf(place))
    equal(code, 0, f"ADD of the successor: {text}")
    equal(place.pods()["a1"]["uid"], uid, "uid")


@row("a-pod-that-was-made-anew-on-another-node-is-not-ours", prepare=lambda p: p.runs())
def made_elsewhere(place):
    place.wait_in()
    place.settled()
    place.end_processes()
    place.api.vanish("pods", "default", "a1")
    elsewhere(place)
    place.api.forget()
    place.api.cut()
    until(lambda: not place.pods(), "the one that was here to be out")
    place.settled()
    is_left_alone(place)


@row("a-rotated-token-is-read-at-once")
def rotated(place):
    place.settled()
    place.runs(namespace="free")
    place.write_token("second")
    place.api.tokens = {"second"}
    place.api.cut()
    place.api.mode("free", None, "ambient")
    place.wait_in(namespace="free")
    check("Unauthorized" not in place.log(), "the old token was sent")
    place.api.tokens = {"third"}
    place.api.cut()
    until(lambda: "Unauthorized" in place.log(), "the line")
    place.write_token("third")
    begin = time.monotonic()
    place.api.mode("free", None, None)
    place.wait_out(namespace="free")
    check(time.monotonic() - begin < 4, f"{time.monotonic() - begin:.1f} s")


@row("a-refused-token-is-no-storm")
def refused(place):
    place.settled()
    place.api.tokens = {"other"}
    place.api.cut()
    before = len(place.api.seen)
    time.sleep(2)
    check(len(place.api.seen) - before < 30, f"{len(place.api.seen) - before} requests in 2 s")
    equal(place.log().count("Unauthorized; trying again"), 2, "lines")
    place.write_token("other")
    place.settled()
    check("first" not in place.log() and "other" not in place.log(), "a token in the log")


@row("bookmarks-spare-a-list")
def bookmarks(place):
    place.settled()
    place.api.bookmark_s = 0.05
    place.api.cut()  # a new watch, with bookmarks
    until(place.watches, "the watches")
    place.api.version += 1000  # of objects that nobody here sees
    time.sleep(0.5)
    lists = place.api.count("GET", "/api/v1/pods", limit="100")
    place.api.oldest = place.api.version - 500
    place.api.cut()
    time.sleep(0.5)
    until(place.watches, "the watches")
    equal(place.api.count("GET", "/api/v1/pods", limit="100"), lists, "lists")


@row("a-silent-watch-is-opened-anew", env={"CULVERT_KUBE_SILENCE": "1s"})
def silent(place):
    place.settled()
    place.api.mute = True
    place.runs()
    time.sleep(0.3)
    equal(place.pods(), {}, "pods while nothing is told")
    time.sleep(1)
    place.api.mute = False
    place.wait_in()


@row("a-slow-stream-is-read")
def slow(place):
    place.settled()
    place.api.drip = 0.0005
    place.runs()
    place.wait_in()


@row("cut-streams-cost-nothing", prepare=lambda p: p.runs())
def cut(place):
    place.wait_in()
    place.settled()
    lists = place.api.count("GET", "/api/v1/pods", limit="100")
    for _ in range(5):
        place.api.cut()
        until(place.watches, "the watches")
    place.runs(place.second)
    place.wait_in("a2")
    equal(place.api.count("GET", "/api/v1/pods", limit="100"), lists, "lists")


@row("errors-are-waited-out")
def errors(place):
    place.settled()
    left = {"n": 6}

    def hook(method, path, query):
        if left["n"] > 0 and "watch" in query:
            left["n"] -= 1
            return (429, status_object(429, "too many"), {"Retry-After": "1"}) if left["n"] % 2 else (
                503, status_object(503, "busy"))

    place.api.hook = hook
    place.api.cut()
    place.runs()
    place.wait_in(deadline=20)


@row("garbage-is-survived", prepare=lambda p: p.runs())
def garbage(place):
    place.wait_in()
    place.settled()
    wrong = [None, 1, [], "text", {"metadata": []}, {"metadata": {"name": 1}}, {"metadata": {"labels": {"a": 1}}},
             {"metadata": {"namespace": "../..", "name": "x", "uid": "u"}}, {"spec": 1}]
    for i, meta in enumerate(wrong):
        obj = place.api.pod("default", f"bad-{i}")
        if isinstance(meta, dict):
            obj.update(meta)
            with place.api.cond:
                place.api.events[-1] = place.api.events[-1][:3] + ({**meta, "spec": {"nodeName": "node-1"}},)
        place.api.vanish("pods", "default", f"bad-{i}")
    place.runs(place.second)
    place.wait_in("a2")
    deep = "[" * 100000
    place.api.hook = lambda m, p, q: (200, deep) if "watch" in q else None
    place.api.cut()
    time.sleep(1)
    place.api.hook = None
    place.settled()
    check(place.answers(), "the keeper does not answer")
    equal((place.state("a1"), place.state("a2")), ("enrolled", "enrolled"), "states")


@row("a-huge-object-is-refused-and-survived", prepare=lambda p: p.runs())
def huge(place):
    place.wait_in()
    place.settled()
    place.api.pod("default", "huge", annotations={"x": "y" * (10 << 20)})
    until(lambda: "too large" in place.log(), "the line")
    place.quiet_in()
    place.api.vanish("pods", "default", "huge")
    place.api.forget()
    place.runs(place.second)
    place.wait_in("a2", deadline=20)


@row("https-with-a-token", tls=True, prepare=lambda p: p.runs())
def https(place):
    place.wait_in()
    place.settled()
    print(f"# https, one pod: keeper's KiB: {place.memory()}", flush=True)
    place.api.cut()
    place.runs(place.second)
    place.wait_in("a2")


@row("https-with-another-certificate-is-refused", tls=True, prepare=lambda p: (
    p.runs(), p.certificate("other"), p.api.kubeconfig(p.kubeconfig, token_file="token", ca="other.pem")))
def https_wrong(place):
    until(lambda: "certificate" in place.log(), "the line")
    equal(place.http(8000, "/readyz")[0], 503, "/readyz")
    equal((place.pods(), place.api.seen), ({}, []), "pods, and requests")


# --- annotations ----------------------------------------------------------------------------------------------------


@row("a-patch-that-fails-is-tried-again")
def patches(place):
    place.settled()
    answers = [(409, status_object(409, "conflict")), (500, status_object(500, "etcd")),
               (429, status_object(429, "slow down"), {"Retry-After": "1"}), (403, status_object(403, "no"))]
    place.api.hook = lambda m, p, q: answers.pop(0) if m == "PATCH" and answers else None
    place.runs()
    place.wait_in(deadline=15)
    equal(answers, [], "answers that were not asked for")
    equal(place.log().count("cannot write its annotation"), 1, "lines")


@row("a-patch-does-not-reach-a-successor", prepare=lambda p: p.runs())
def successor(place):
    """The uid goes with it: the keeper has not heard yet that another pod has the name."""
    place.wait_in()
    place.settled()
    place.api.mute = "pods"
    place.api.pod("default", "a1", annotations={REDIRECTION: "enabled"})
    patches = place.api.count("PATCH")
    place.api.mode("default", None, None)
    until(lambda: place.api.count("PATCH") > patches, "the patch")
    place.wait_out(annotation="enabled")
    equal(place.api.annotation("default", "a1"), "enabled", "annotation of the successor")


@row("steering-follows-annotations", prepare=lambda p: p.runs(annotations={"ambient.istio.io/dns-capture": "false"}))
def overlay(place):
    place.wait_in()
    check("15053" not in place.pod.run("ss", "-Hlntu"), "DNS is captured")
    place.api.change("default", "a1", lambda o: o["metadata"]["annotations"].update(
        {"culvert/exclude-outbound-ports": "5432, 5433", "ambient.istio.io/bypass-inbound-capture": "maybe"}))
    until(lambda: "bypass-inbound-capture is not followed: \"maybe\"" in place.log(), "the line")
    listener = place.node.listen(5432)
    with contextlib.closing(listener):
        def direct():
            with place.pod.connect("10.71.1.1", 5432, timeout=0.3):
                listener.settimeout(0.3)
                listener.accept()[0].close()
                return True
        until(direct, "the excluded port to be reached directly")
    place.api.change("default", "a1", lambda o: o["metadata"]["annotations"].pop("culvert/exclude-outbound-ports"))
    equal(place.state(), "enrolled", "state")


@row("dns-capture-is-turned-on-with-the-next-sandbox", prepare=lambda p: p.runs(annotations={"ambient.istio.io/dns-capture": "false"}))
def dns_later(place):
    place.wait_in()
    place.api.change("default", "a1", lambda o: o["metadata"]["annotations"].update(
        {"ambient.istio.io/dns-capture": "true"}))
    until(lambda: "DNS capture begins when its sandbox is made anew" in place.log(), "the line")
    place.quiet_in()
    check("15053" not in place.pod.run("ss", "-Hlntu"), "DNS is captured, and no tunnel serves it")
    uid = place.api.get("default", "a1")["metadata"]["uid"]
    place.end_processes()
    place.populate(place.second, uid)
    place.api.change("default", "a1", lambda o: o["status"].update(podIP=place.second.ip4,
                                                                  podIPs=[{"ip": place.second.ip4}]))
    until(lambda: "15053" in place.second.run("ss", "-Hlntu"), "the DNS listeners")


class NoTunnel(KubePlace):
    with_tunnel = False


@T.row("without-a-tunnel-pods-wait", lambda: NoTunnel(
    prepare=lambda p: (p.runs(annotations={REDIRECTION: "enabled"}), p.runs(p.second))))
def no_tunnel(place):
    place.wait_ready()
    until(lambda: "no tunnel is connected: pods" in place.log(), "the line")
    check("pods wait for a tunnel" in place.http(8000, "/readyz")[1], "readiness tells")
    until(lambda: place.api.annotation("default", "a1") == "pending", "the annotation to be true")
    equal(place.api.annotation("default", "a2"), None, "annotation of the other")
    equal(place.pods(), {}, "pods")
    place.willing()
    place.wait_in("a1")
    place.wait_in("a2")


@row("probes-of-the-node-pass-where-the-kubelet-cannot-be-told-apart", prepare=lambda p: p.runs(
    spec={"containers": [{"name": "app", "ports": [{"name": "health", "containerPort": 8081}],
                          "livenessProbe": {"httpGet": {"port": "health"}}}]}, status={"hostIP": "10.71.1.1"}))
def probes(place):
    """From the node's address to the probes' ports, and nowhere else."""
    if "the kubelet cannot be told apart" not in place.log():
        raise Skip("the kubelet is told apart here")
    place.wait_in()
    with contextlib.closing(place.pod.listen(8081)) as probe, contextlib.closing(place.pod.listen(8082)) as other:
        place.node.connect(place.pod.ip4, 8081, timeout=5).close()
        probe.accept()[0].close()
        place.node.connect(place.pod.ip4, 8082, timeout=5).close()  # to the tunnel's listener
        other.settimeout(0.3)
        try:
            raise AssertionError(f"captured traffic reached the application: {other.accept()[1]}")
        except TimeoutError:
            pass


# --- the CNI socket -------------------------------------------------------------------------------------------------


def conf(place):
    return {"cniVersion": "1.1.0", "name": "net", "type": "culvert-cni", "cni_socket": f"{place.run}/cni.sock"}


@row("cni-add-asks-once-for-a-pod-that-the-watch-has-not-brought")
def add_unseen(place):
    place.settled()
    place.api.mute = True
    uid = place.api.pod("default", "a1")["metadata"]["uid"]
    equal(cni.run("ADD", Sandbox(place.pod, "c1", uid=uid), conf(place))[0], 0, "ADD")
    check(place.steered(), "not steered")
    equal(place.api.count("GET", "/namespaces/default/pods/a1"), 1, "questions")
    until(lambda: place.api.annotation("default", "a1") == "enabled", "the annotation")
    equal(place.pods()["a1"]["serviceAccount"], "default", "service account")
    place.api.mute = False
    place.populate(place.pod, uid)
    place.api.change("default", "a1", lambda o: o["status"].update(podIP=place.pod.ip4, podIPs=[{"ip": place.pod.ip4}]))
    place.quiet_in()
    equal([x for x in place.tunnels[0].told if x[0] == DEL], [], "un-enrolments")


def seen_free(place):
    """A pod that the keeper knows, outside the mesh."""
    place.settled()
    uid = place.api.pod("free", "a1")["metadata"]["uid"]
    until(lambda: known(place) == 1, "the pod in the cache")
    return Sandbox(place.pod, "c1", namespace="free", uid=uid)


def questions(place, namespace):
    """About its pod, and about it."""
    return (place.api.count("GET", f"/namespaces/{namespace}/pods/a1"),
            sum(x[1] == f"/api/v1/namespaces/{namespace}" for x in place.api.seen))


@row("cni-add-answers-from-what-is-known")
def add_known(place):
    place.settled()
    uid = place.api.pod("default", "a1")["metadata"]["uid"]
    until(lambda: known(place) == 1, "the pod in the cache")
    equal(cni.run("ADD", Sandbox(place.pod, "c1", uid=uid), conf(place))[0], 0, "ADD")
    check(place.steered(), "not steered")
    equal(questions(place, "default"), (0, 0), "questions")


@row("cni-add-asks-once-whether-a-pod-is-still-outside")
def add_outside(place):
    s = seen_free(place)
    equal(cni.run("ADD", s, conf(place))[0], 0, "ADD")
    equal(place.pods(), {}, "pods")
    equal(questions(place, "free"), (1, 1), "questions")


@row("cni-add-of-a-pod-of-an-excluded-namespace-asks-nobody")
def add_excluded(place):
    place.settled()
    uid = place.api.pod("kube-system", "a1")["metadata"]["uid"]
    until(lambda: known(place) == 1, "the pod in the cache")
    equal(cni.run("ADD", Sandbox(place.pod, "c1", namespace="kube-system", uid=uid), conf(place))[0], 0, "ADD")
    equal((place.pods(), questions(place, "kube-system")), ({}, (0, 0)), "pods, and questions")


@row("cni-add-does-not-believe-a-watch-that-is-behind")
def add_behind(place):
    """Its labels, or the namespace's, have just been changed, and the pod starts."""
    for name in (None, "a1"):
        s = seen_free(place)
        place.api.mute = True
        place.api.mode("free", name, "ambient")
        equal(cni.run("ADD", s, conf(place))[0], 0, "ADD")
        check(place.steered(), f"not steered, though the label of {name or 'its namespace'} says so")
        place.api.mode("free", name, None)
        equal(cni.run("DEL", s, conf(place))[0], 0, "DEL")
        place.api.mute = False
        place.api.delete("pods", "free", "a1")
        until(lambda: known(place) == 0, "the pod to go")


def adds_without_answers(place, sandbox, path):
    """What ADD says, and in time, of an API server that fails, then one that is silent, about a path; nothing is enrolled."""
    for what, hook in (("500", lambda m, p, q: (500, status_object(500, "etcd is away")) if path in p else None),
                       ("silence", lambda m, p, q: time.sleep(6) if path in p else None)):
        place.api.hook = hook
        begin = time.monotonic()
        code, text = cni.run("ADD", sandbox, conf(place))
        took = time.monotonic() - begin
        check(took < 5, f"{what}: {code} {text}, {took:.1f} s")
        yield what, code, text
        equal(place.pods(), {}, "pods")


@row("cni-add-of-a-pod-outside-needs-no-api-server")
def add_without_api(place):
    s = seen_free(place)
    for what, code, text in adds_without_answers(place, s, "/namespaces/free"):
        equal(code, 0, f"{what}: {text}")
    equal(place.log().count("pod free/a1 starts outside the mesh, as the API server told earlier"), 2, "lines")


@row("cni-add-of-a-pod-that-is-on-another-node-now-fails")
def add_elsewhere(place):
    """Its deletion was forced, and it was made anew, before the runtime got to it."""
    place.settled()
    elsewhere(place)
    code, text = cni.run("ADD", Sandbox(place.pod, "c1", uid=str(uuid.uuid4())), conf(place))
    check(code and "knows no such pod on this node" in text, f"{code} {text}")
    is_left_alone(place)


def overtaken(place, path, change):
    """The next answer about `path` is on its way while the watch tells of `change`."""
    said = []

    def hook(method, at, query):
        if at != path or said:
            return None
        said.append(place.api.get(*(("free", "a1") if at.endswith("a1") else ("", "free", "namespaces"))))
        before = place.http(15014, "/metrics")[1]
        change()
        until(lambda: place.http(15014, "/metrics")[1] != before, "the keeper to hear of it")
        return 200, said[0]

    place.api.hook = hook


@row("an-answer-about-a-pod-that-the-watch-overtakes-is-not-taken")
def pod_overtaken(place):
    place.settled()
    place.api.mute = "pods"
    uid = place.api.pod("free", "a1")["metadata"]["uid"]

    def change():
        place.api.mute = False
        place.api.delete("pods", "free", "a1")

    overtaken(place, "/api/v1/namespaces/free/pods/a1", change)
    code, text = cni.run("ADD", Sandbox(place.pod, "c1", namespace="free", uid=uid), conf(place))
    check(code and "knows no such pod" in text, f"{code} {text}")
    equal(known(place), 0, "pods in the cache")


@row("an-answer-about-a-namespace-that-the-watch-overtakes-is-not-taken")
def namespace_overtaken(place):
    s = seen_free(place)
    overtaken(place, "/api/v1/namespaces/free", lambda: place.api.mode("free", None, "ambient"))
    equal(cni.run("ADD", s, conf(place))[0], 0, "ADD")
    check(place.steered(), "not steered")


@row("what-a-watch-that-was-behind-tells-undoes-no-answer")
def watch_behind(place):
    """The namespace changed twice, and its label is with the second change only."""
    s = seen_free(place)
    place.api.mute = True
    place.api.change("", "free", lambda o: o["metadata"].update(annotations={"notes": "x"}), "namespaces")
    place.api.mode("free", None, "ambient")
    equal(cni.run("ADD", s, conf(place))[0], 0, "ADD")
    check(place.steered(), "not steered")
    place.api.mute = False
    place.api.namespace("more")
    until(lambda: 'type="add"} 5' in place.http(15014, "/metrics")[1], "what was missed to be told")
    place.quiet_in()
    equal([x for x in place.tunnels[0].told if x[0] == DEL], [], "un-enrolments")


@row("pods-that-wait-for-a-namespace-are-looked-at-when-a-question-brings-it")
def namespace_brought(place):
    place.settled()
    place.api.mute = "namespaces"
    place.api.namespace("late", AMBIENT)
    place.runs(namespace="late")
    until(lambda: known(place) == 1, "the pod in the cache")
    equal(place.pods(), {}, "pods while its namespace is not known")
    uid = place.api.pod("late", "a2")["metadata"]["uid"]
    equal(cni.run("ADD", Sandbox(place.second, "c1", namespace="late", uid=uid), conf(place))[0], 0, "ADD")
    place.wait_in(namespace="late")


@row("cni-add-of-a-pod-that-nobody-knows-fails")
def add_unknown(place):
    place.settled()
    code, text = cni.run("ADD", Sandbox(place.pod, "c1", name="nobody"), conf(place))
    check(code and "knows no such pod" in text, f"{code} {text}")
    uid = place.api.pod("default", "a1")["metadata"]["uid"]
    code, text = cni.run("ADD", Sandbox(place.pod, "c1", uid=str(uuid.uuid4())), conf(place))
    check(code and "another, by its uid" in text, f"{code} {text}")
    equal(place.pods(), {}, "pods")
    equal(cni.run("ADD", Sandbox(place.pod, "c1", uid=uid), conf(place))[0], 0, "the right one")


@row("cni-add-without-an-answer-fails-in-time")
def add_in_time(place):
    place.settled()
    place.api.mute = True
    uid = place.api.pod("default", "a1")["metadata"]["uid"]
    s = Sandbox(place.pod, "c1", uid=uid)
    for what, code, text in adds_without_answers(place, s, "/pods/a1"):
        check(code and "nobody told within" in text, f"{what}: {code} {text}")
    failing = iter([(500, status_object(500, "once")), (429, status_object(429, "twice"))])
    place.api.hook = lambda m, p, q: next(failing, None) if "/pods/a1" in p else None
    equal(cni.run("ADD", s, conf(place))[0], 0, "after two errors")


@row("a-static-pod-is-known-by-its-hash")
def static_pod(place):
    """Its sandbox and cgroup have the hash of its file, the API's mirror of it has a uid."""
    place.settled()
    digest = uuid.uuid4().hex
    uid = place.api.pod("default", "a1", annotations={"kubernetes.io/config.mirror": digest})["metadata"]["uid"]
    equal(cni.run("ADD", Sandbox(place.pod, "c1", uid=digest), conf(place))[0], 0, "ADD")
    equal(place.pods()["a1"]["uid"], uid, "uid")
    equal(cni.run("DEL", Sandbox(place.pod, "c1", uid=digest), conf(place))[0], 0, "DEL")
    equal(place.pods(), {}, "pods")
    place.populate(place.pod, digest)
    place.api.change("default", "a1", lambda o: o["status"].update(podIP=place.pod.ip4, podIPs=[{"ip": place.pod.ip4}]))
    place.wait_in()


# --- many -----------------------------------------------------------------------------------------------------------


def crowd(place):
    for i in range(250):
        place.api.pod("default", f"p{i}", ips=[f"10.99.{i // 250}.{i % 250 + 1}"], annotations={"notes": "x" * 8000})
    for i in range(300):
        place.api.namespace(f"n{i}")
    place.runs()


@row("a-crowd-at-open-ports-takes-no-place-from-the-operator")
def crowded_ports(place):
    """Who asked first would have to go for them."""
    place.settled()
    with contextlib.ExitStack() as stack:
        operator = stack.enter_context(socket.socket(socket.AF_UNIX))
        operator.settimeout(5)
        operator.connect(f"{place.run}/ctl.sock")
        for _ in range(150):
            stack.enter_context(place.node.connect("127.0.0.1", 15014))
        operator.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        equal(operator.recv(12), b"HTTP/1.1 200", "the answer")


@row("250-pods-are-listed", prepare=crowd)
def many(place):
    begin = time.monotonic()
    place.wait_in()
    took = time.monotonic() - begin
    until(lambda: '{mesh="not-enrolled-yet"} 250' in place.http(15014, "/metrics")[1], "all to be known")
    print(f"# 250 pods, 303 namespaces: a1 enrolled after {took:.2f} s; keeper's KiB: {place.memory()}", flush=True)
    equal(place.api.count("GET", "/api/v1/pods", limit="100"), 3, "pages")
    place.api.mode("default", None, None)
    place.wait_out()
    until(lambda: 'culvert_kube_pods{mesh="outside"} 251' in place.http(15014, "/metrics")[1], "all to be out")


if __name__ == "__main__":
    T.main()
