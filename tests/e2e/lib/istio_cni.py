# SPDX-License-Identifier: Apache-2.0
"""Istio's node agent in the keeper's place: $ISTIO_CNI names a folder with its programs install-cni and istio-cni. It
runs in a root of its own, since it writes to fixed places, and gets its pods from an API server that the test plays."""
import json
import os
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fake"))
from kube_api import KubeApi
from kube_test import AMBIENT, MODE, Process

from .agents import CULVERTD, Agent, Tunnel
from .net import sh, stop
from .rows import Skip, until

# Arguments: a folder of its own, the programs' folder, a folder that both roots share. The agent takes the first
# process's network for the host's: in a test that is the node's, where it runs itself.
ROOT = """set -e
mkdir -p $1
mount -t tmpfs none $1
mkdir $1/upper $1/work $1/root
mount -t overlay none -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $1/root
cd $1/root
for d in proc sys dev run/netns; do mkdir -p $d; mount --rbind /$d $d; done
for d in proc run/netns; do mkdir -p host/$d; mount --rbind /$d host/$d; done
mkdir -p .$3 host/opt/cni/bin opt/cni/bin run/secrets/kubernetes.io/serviceaccount
mount --bind $3 .$3
mount --bind /proc/$$ host/proc/1
cp $2/istio-cni opt/cni/bin
echo token >run/secrets/kubernetes.io/serviceaccount/token
cp $2/install-cni usr/bin/install-cni
exec chroot . /usr/bin/install-cni
"""
SELECTOR = json.dumps([
    {"podSelector": {"matchLabels": AMBIENT}},
    {"podSelector": {"matchExpressions": [{"key": MODE, "operator": "NotIn", "values": ["none"]}]},
     "namespaceSelector": {"matchLabels": AMBIENT}}])


def programs():
    path = os.environ.get("ISTIO_CNI")
    if not path:
        raise Skip("no ISTIO_CNI= given")
    return os.path.abspath(path)


class NodeAgent(Tunnel):
    """The agent, and `culvertd tunnel` as its ztunnel. Pods are enrolled by label."""

    def __init__(self, node, folder, ca, env=None):
        self.programs = programs()
        super().__init__(node, folder, ca, [CULVERTD, "tunnel"], env)
        self.zds.close()
        self.share, self.processes = f"{folder}/{node.name}-cni", []
        self.run_dir = f"{self.share}/run"
        os.makedirs(f"{self.share}/net.d")
        with open(f"{self.share}/net.d/10-net.conflist", "w") as f:
            f.write('{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}\n')
        os.mkdir(f"{folder}/{node.name}-cgroup")
        sh("mount", "-t", "cgroup2", "none", f"{folder}/{node.name}-cgroup")
        self.cgroup = f"{folder}/{node.name}-cgroup/e2e-istio-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.api = KubeApi(node.listen(6443, "127.0.0.1"), node=node.name)
        self.api.namespace("default")
        self.env["INPOD_UDS"] = f"{self.share}/ztunnel.sock"
        self.agent = Agent(node, f"{self.share}", {
            "KUBECONFIG": self.api.kubeconfig(f"{self.share}/kubeconfig"), "KUBERNETES_NODE_NAME": node.name,
            "KUBERNETES_SERVICE_PROTOCOL": "http", "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": "6443", "SKIP_TLS_VERIFY": "true", "AMBIENT_ENABLED": "true",
            "AMBIENT_ENABLEMENT_SELECTOR": SELECTOR, "AMBIENT_DNS_CAPTURE": "true", "AMBIENT_IPV6": "true",
            "REPAIR_ENABLED": "false", "POD_NAMESPACE": "istio-system", "CNI_AGENT_RUN_DIR": self.run_dir,
            "MOUNTED_CNI_NET_DIR": f"{self.share}/net.d", "ZTUNNEL_UDS_ADDRESS": self.env["INPOD_UDS"],
            "KUBE_FEATURE_WatchListClient": "false", "GODEBUG": ""})

    def start(self):
        if not self.agent.alive():
            self.api.__enter__()
            os.makedirs(self.run_dir, exist_ok=True)
            self.agent.spawn(["sh", "-c", ROOT, "root", f"{self.share}-root", self.programs, self.share])
            until(lambda: self.agent_ready() or not self.agent.alive(), "Istio's agent to be ready", 30)
        super().start()

    def agent_ready(self):
        return os.path.exists(self.env["INPOD_UDS"]) and os.path.exists(f"{self.run_dir}/pluginevent.sock")

    def runs(self, pod, **kw):
        """The pod's process, and its object."""
        os.makedirs(self.cgroup, exist_ok=True)
        self.processes.append(Process(self, pod, pod.uid))
        return self.api.pod(pod.namespace, pod.name, ips=[pod.ip4, pod.ip6], sa=pod.sa, uid=pod.uid, **kw)

    def enrol(self, pod):
        """By its label: of a pod that is new to it the agent expects the plugin to tell."""
        self.runs(pod)
        self.api.mode(pod.namespace, pod.name, "ambient")
        until(lambda: self.api.annotation(pod.namespace, pod.name) == "enabled", f"{pod.name} to be enrolled", 20)

    def unenrol(self, pod):
        self.api.mode(pod.namespace, pod.name, None)
        until(lambda: self.api.annotation(pod.namespace, pod.name) is None, f"{pod.name} to be out", 20)

    def close(self):
        try:
            self.stop()
        finally:
            for p in self.processes:
                p.close()
            stop(self.agent.process)
            self.api.__exit__()
            self.ca.close()
            for folder, _, _ in os.walk(self.cgroup, topdown=False):
                os.rmdir(folder)
            sh("umount", "-l", os.path.dirname(self.cgroup), ok=False)
