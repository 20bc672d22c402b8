# SPDX-License-Identifier: Apache-2.0
"""Two nodes on which the chart's pods run as containers: each with an API server that gives no more rights than the chart does, a CA,
a kubelet's process, and pods of the mesh."""
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fake"))
import chart
import containers
from kube_api import KubeApi, status_object
from lib import agents, pki
from lib.ca import CaServer
from lib.mesh import Mesh
from lib.net import Network, Unwound, folder, sh
from lib.rows import equal, until

TOKEN, NOBODY = "token-of-the-keeper", 65534
PRIMARY = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}


def objects_of_chart():
    chart.need()
    return list(chart.render().values())


def pods_of(objects):
    """{container: pod} of both DaemonSets."""
    pods = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet"]
    return {p["containers"][0]["name"]: p for p in pods}


class Rights:
    """Those that the chart gives to the account of the keeper."""

    def __init__(self, objects):
        self.rules = [(o["metadata"].get("namespace"), r) for o in objects if o["kind"] in ("ClusterRole", "Role")
                      for r in o["rules"]]

    def allow(self, method, path, query):
        m = re.fullmatch(r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<ns>[^/]+)(?=/))?/(?P<kind>[a-z]+)"
                         r"(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?", path)
        verb = method.lower() if method != "GET" or m["name"] else "watch" if query.get("watch") else "list"
        what = m["kind"] + (f"/{m['sub']}" if m["sub"] else "")
        return any((m["group"] or "") in r["apiGroups"] and what in r["resources"] and verb in r["verbs"] and
                   m["name"] in r.get("resourceNames", [m["name"]]) and ns in (None, m["ns"]) for ns, r in self.rules)


class Half:
    """One node: an API server and a CA on its loopback, the keeper's and the tunnel's container."""

    def __init__(self, place, node, objects):
        pods = pods_of(objects)
        self.rights = Rights(objects)
        self.daemonset = next(o for o in objects if o["metadata"]["name"] == "istio-cni-node" and o["kind"] == "DaemonSet")
        self.node, self.place, stack = node, place, place.stack
        self.names = [p.name for p in node.pods if p.mesh]
        self.folder = f"{place.folder}/{node.name}"
        self.cgroup = f"{place.cgroup}/{node.name}"
        os.makedirs(self.cgroup)
        stack.callback(self.remove_cgroups)
        self.api = stack.enter_context(KubeApi(node.listen(6443, "127.0.0.1"), tokens={TOKEN}, node=node.name))
        self.api.hook = self.answer
        self.api.namespace("default", {"istio.io/dataplane-mode": "ambient"})
        self.ca = CaServer(node, place.ca)
        stack.callback(self.ca.close)
        for name in "istiod-ca-cert", "istio-token", "account", "mesh", "node/sys/fs/bpf", "node/etc/cni/net.d":
            os.makedirs(f"{self.folder}/{name}")
        self.write("istiod-ca-cert/root-cert.pem", place.ca.root())
        self.write("istio-token/istio-token", "token-of-the-tunnel")
        self.write("account/token", TOKEN)
        self.write("node/etc/cni/net.d/10-net.conflist", json.dumps(PRIMARY))
        for name in "node/etc/cni/net.d", "node/opt/cni/bin":  # on some platforms they are not root's
            os.makedirs(f"{self.folder}/{name}", exist_ok=True)
            os.chown(f"{self.folder}/{name}", NOBODY, NOBODY)
        self.write("account/ca.crt", place.ca.root())
        place.mesh.save(f"{self.folder}/mesh/mesh.yaml")
        self.bpf = f"{self.folder}/node/sys/fs/bpf"
        sh("mount", "-t", "bpf", "bpf", self.bpf)
        stack.callback(sh, "umount", "-l", self.bpf, ok=False)
        self.machine = containers.Machine(node, self.folder, agents.BUILD, {
            "istiod-ca-cert": f"{self.folder}/istiod-ca-cert", "istio-token": f"{self.folder}/istio-token"}, {
            "spec.nodeName": node.name, "metadata.name": "a-pod", "metadata.namespace": "istio-system", "status.podIP": node.wan4,
            "spec.serviceAccountName": "an-account"})
        stack.callback(self.machine.close)
        bind = {"type": "bind", "options": ["rbind", "ro"]}
        self.keeper = self.container(pods["install-cni"], {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443", "KUBERNETES_SERVICE_PROTOCOL": "http"},
            {**bind, "source": f"{self.folder}/account", "destination": "/var/run/secrets/kubernetes.io/serviceaccount"})
        self.tunnel = self.container(pods["istio-proxy"], {
            "XDS_ADDRESS": "", "LOCAL_XDS_PATH": "/mesh/mesh.yaml", "CA_ADDRESS": self.ca.address, "LOG_FORMAT": "json",
            "TERMINATION_GRACE_PERIOD_SECONDS": "12"},
            {**bind, "source": f"{self.folder}/mesh", "destination": "/mesh"})

    def remove_cgroups(self):
        for at, _, _ in os.walk(self.cgroup, topdown=False):
            until(lambda: not containers.is_populated(at), "an empty cgroup")
            os.rmdir(at)

    def surge(self):
        """Another tunnel beside the first. Each pod has ports of its own; here they share the node's."""
        pod = copy.deepcopy(self.tunnel.pod)
        pod["containers"][0]["readinessProbe"]["httpGet"]["port"] = 15121
        return self.container(pod, {**self.tunnel.env, "CULVERT_ADMIN_PORT": "15100", "CULVERT_STATS_PORT": "15120",
                                    "CULVERT_READY_PORT": "15121"}, *self.tunnel.mounts, name="istio-proxy-2")

    def container(self, pod, env, *mounts, name=None):
        lost = self.place.without or ("", "")
        drop = {lost[1]} if lost[0] == pod["containers"][0]["name"] else ()
        c = containers.Container(self.machine, pod, env, mounts, drop, name)
        self.place.stack.callback(c.close)
        return c

    def begin(self):
        self.keeper.start()
        self.tunnel.start()

    def answer(self, method, path, query):
        """What the API server refuses, and objects that it has besides pods and namespaces."""
        if not self.rights.allow(method, path, query):
            return 403, status_object(403, f"the chart's roles do not allow {method} {path}"), {}
        objects = {f"/api/v1/nodes/{self.node.name}": {"kind": "Node", "metadata": {"name": self.node.name, "labels": {}}},
                   "/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node": self.daemonset}
        return (200, objects[path], {}) if path in objects else None

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w") as f:
            f.write(text)

    def run_process(self, cgroup, ns, program):
        """One that sleeps."""
        at = f"{self.cgroup}/{cgroup}"
        os.makedirs(at)
        subprocess.Popen(self.machine.inside("nsenter", f"--net=/run/netns/{ns}", "sh", "-c",
                                             f"echo $$ >{at}/cgroup.procs && exec {program} infinity"), stdin=subprocess.DEVNULL)
        until(lambda: containers.is_populated(at), f"{program} in its cgroup")

    def run_kubelet(self):
        """What is called so, on the node itself."""
        os.symlink(shutil.which("sleep"), f"{self.folder}/kubelet")
        self.run_process("kubelet.service", self.node.ns, f"{self.folder}/kubelet")

    def run_pod(self, pod):
        """In Kubernetes and on the node."""
        uid = str(uuid.uuid4())
        self.run_process(f"kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{uuid.uuid4().hex}.scope", pod.ns, "sleep")
        self.api.pod("default", pod.name, ips=[pod.ip4, pod.ip6], sa=pod.sa, uid=uid)

    def ctl(self, what):
        return json.loads(self.keeper.exec("culvertctl", what, "--json", ok=what != "status"))

    def configuration(self):
        """The runtime's."""
        with open(f"{self.folder}/node/etc/cni/net.d/10-net.conflist") as f:
            return json.load(f)

    def counters(self, pod):
        """What steering counted for it."""
        pods = json.loads(self.keeper.exec("culvertctl", "drops", "--all", "--json"))["pods"]
        return {c["name"]: c["value"] for p in pods if p["name"] == pod for c in p["counters"]}

    def plugins(self):
        return [p["type"] for p in self.configuration()["plugins"]]

    def wait_enrolled(self, *names):
        def enrolled():
            return {p["name"] for p in self.ctl("pods")["pods"] if p["state"] == "enrolled"} >= set(names)

        until(enrolled, f"{names} to be enrolled", 20)

    def access(self):
        """Lines of the access log."""
        return [x for x in map(as_json, self.tunnel.log().splitlines()) if x.get("scope") == "access"]


def as_json(line):
    try:
        return json.loads(line)
    except ValueError:
        return {}


class Place(Unwound):
    """`without`: (container, capability) that it has not. `serves`: rows begin when all is ready and the pods are enrolled."""

    def __init__(self, without=None, serves=True):
        self.without, self.serves = without, serves

    def _begin(self):
        containers.need()
        agents.need_culvert()
        objects = objects_of_chart()
        try:
            self.start(objects)
        except BaseException:
            self.explain()
            raise

    def start(self, objects):
        self.folder = self.stack.enter_context(folder("e2e"))
        self.net = self.stack.enter_context(Network())
        self.ca = pki.Ca(self.folder)
        self.mesh = Mesh(p for p in self.net.pods.values() if p.mesh)
        self.cgroup = f"{self.folder}/cgroup"
        os.mkdir(self.cgroup)
        sh("mount", "-t", "cgroup2", "none", self.cgroup)
        self.stack.callback(sh, "umount", "-l", self.cgroup, ok=False)
        self.cgroup += f"/e2e-deploy-{os.getpid()}"
        os.mkdir(self.cgroup)
        self.stack.callback(os.rmdir, self.cgroup)
        self.halves = [Half(self, node, objects) for node in self.net.nodes]
        self.one, self.two = self.halves
        if self.serves:
            self.serve()

    def serve(self):
        for half in self.halves:
            half.run_kubelet()
            half.begin()
        for half in self.halves:
            half.keeper.wait_ready()
            half.tunnel.wait_ready()
            for pod in half.node.pods:
                if pod.name in half.names:
                    half.run_pod(pod)
        for half in self.halves:
            half.wait_enrolled(*half.names)

    def explain(self):
        """After a failed row: the ends of the logs."""
        lines = int(os.environ.get("E2E_LOGS") or 0)
        for half in getattr(self, "halves", ()) if lines else ():
            for c in (half.keeper, half.tunnel):
                print(f"--- {half.node.name} {c.name}\n" + "\n".join(c.log().splitlines()[-lines:]), file=sys.stderr)

    def exchange(self, client="a1", server="b1"):
        """A connection over HBONE, which both access logs show."""
        a, b = self.net.pods[client], self.net.pods[server]
        seen = len(self.two.access())
        with b.listen(8080) as listener:
            with a.connect(b.ip4, 8080) as c:
                s, peer = listener.accept()
                with s:
                    equal(peer[0].removeprefix("::ffff:"), a.ip4, "the client's address at the server")
                    c.sendall(b"there")
                    equal(s.recv(16), b"there", "what came")
                    s.sendall(b"back")
                    equal(c.recv(16), b"back", "what came back")
        until(lambda: [x for x in self.two.access()[seen:] if x.get("src.identity") == a.spiffe],
              "the connection in the other node's access log, with the client's identity")
