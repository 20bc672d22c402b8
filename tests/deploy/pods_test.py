#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The pods of the chart, run as containers on two nodes: with no more than the capabilities, mounts and rights that the chart lists, in
namespaces and cgroups of their own, they enrol pods by their labels and carry connections between the nodes; and that goes on when
a container is replaced by another."""
import functools
import json
import os
import subprocess

from nodes import PRIMARY, TOKEN, Place, objects_of_chart, pods_of
from lib.net import sh
from lib.rows import Table, check, equal, until

T = Table(__file__)

T.row("traffic", Place)(lambda place: place.exchange())


@T.row("status-is-whole", Place)
def status(place):
    for half in place.halves:
        s = half.ctl("status")
        equal(s["markOnly"], False, f"markOnly of {half.node.name}: its log says {half.keeper.log()[-600:]}")
        equal(s["steering"], "bpf", "steering")
        equal(s["tunnel"]["connected"], True, "the tunnel")
        equal(s["kubeletExempt"], True, f"the kubelet's exemption: {s['kubelet']}")
        equal(half.ctl("connections").get("error"), None, "culvertctl connections, which asks the tunnel")


@T.row("pods-are-annotated", Place)
def annotated(place):
    for half in place.halves:
        for name in half.names:
            until(lambda: half.api.annotation("default", name) == "enabled", f"the annotation of {name}")


@T.row("plugin-is-installed-on-the-node", Place)
def installed(place):
    for half in place.halves:
        equal(half.plugins(), ["bridge", "istio-cni"], "plugins in the runtime's configuration")
        with open(f"{half.folder}/node/var/run/istio-cni/istio-cni-kubeconfig") as f:
            check(TOKEN in f.read(), "the plugin's kubeconfig has no token")
        check(os.access(f"{half.folder}/node/opt/cni/bin/istio-cni", os.X_OK), "the plugin is not there")


@T.row("agents-are-known-by-their-cgroups", Place)
def false_mark(place):
    """A process that sets the agent's mark is captured all the same."""
    a, b = place.net.pods["a1"], place.net.pods["b1"]
    seen = len(place.two.access())
    with b.listen(8080) as listener, a.socket() as c:
        c.setsockopt(1, 36, 0x539)  # SO_MARK
        c.connect((b.ip4, 8080))
        listener.accept()[0].close()
    until(lambda: place.two.access()[seen:], "the connection in the access log: it left in plaintext")


@T.row("another-tunnel", Place)
def another_tunnel(place):
    for half in place.halves:
        half.tunnel.kill("TERM")
        half.tunnel.wait_ended()
        half.tunnel.start()
    for half in place.halves:
        half.tunnel.wait_ready()
    place.exchange()


@T.row("a-tunnel-is-replaced-without-loss", Place)
def surge(place):
    """As the DaemonSet's strategy has it: the next one is ready before the kubelet ends the first."""
    a, b, half = place.net.pods["a1"], place.net.pods["b1"], place.one
    following = half.surge()
    with b.listen(8081) as listener, a.connect(b.ip4, 8081) as c, listener.accept()[0] as s:
        following.start()
        following.wait_ready()
        half.tunnel.kill("TERM")
        for _ in range(20):
            place.exchange()
            c.sendall(b"still")
            equal(s.recv(16), b"still", "what came through the first tunnel")
        check(half.tunnel.is_alive(), "the first tunnel ended before its connection")
    equal(half.tunnel.wait_ended(), 0, "the first tunnel's status")
    place.exchange()
    half.tunnel.start()
    half.tunnel.wait_ready()
    following.kill("TERM")
    following.wait_ended()


@T.row("another-keeper", Place)
def another_keeper(place):
    """In another cgroup than the first, whose listening sockets go on."""
    for half in place.halves:
        half.keeper.kill("TERM")
        half.keeper.wait_ended()
        equal(half.plugins(), ["bridge", "istio-cni"], "plugins between two keepers, as the DaemonSet is still there")
    place.exchange()
    for half in place.halves:
        half.keeper.start()
    for half in place.halves:
        half.keeper.wait_ready()
        half.wait_enrolled(*half.names)
    equal(place.one.ctl("status")["markOnly"], False, "markOnly")
    seen = place.two.counters("b1")
    for half in place.halves:  # with it the connections between the nodes
        half.tunnel.kill("TERM")
        half.tunnel.wait_ended()
        half.tunnel.start()
    for half in place.halves:
        half.tunnel.wait_ready()
    place.exchange("a2", "b2")
    place.exchange("a1", "b1")
    equal(place.two.counters("b1")["out_false_mark"], seen["out_false_mark"], "packets of the agent's taken for a pod's")


@T.row("a-pod-that-a-runtime-adds-by-the-installed-plugin", Place)
def cni_add(place):
    """In a namespace that is made while the keeper runs."""
    half, name = place.one, f"{place.net.name}-late"
    sh("ip", "netns", "add", name)
    try:
        half.api.pod("default", "late", ips=["10.71.1.77"], sa="late-account")
        conf = half.configuration()["plugins"][-1]
        conf |= {"cniVersion": "1.0.0", "name": "net", "cni_agent_run_dir": f"{half.folder}/node{conf['cni_agent_run_dir']}",
                 "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": f"/var/run/netns/{name}"}],
                                "ips": [{"interface": 0, "address": "10.71.1.77/32"}]}}
        env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": f"/var/run/netns/{name}", "CNI_IFNAME": "eth0",
               "CNI_PATH": "/x", "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=late"}
        done = subprocess.run([f"{half.folder}/node/opt/cni/bin/istio-cni"], input=json.dumps(conf), env=env, text=True,
                              capture_output=True, timeout=60)
        equal((done.returncode, json.loads(done.stdout).get("msg")), (0, None), f"the plugin's answer, with {done.stderr[-300:]}")
        half.wait_enrolled("late")
    finally:
        half.api.delete("pods", "default", "late")
        sh("ip", "netns", "del", name)


@T.row("leaves-a-node-that-it-is-not-for", Place)
def leaves(place):
    """The plugin goes with the keeper, once the DaemonSet's affinity keeps it from the node."""
    half = place.one
    half.daemonset["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "dataplane", "operator": "In", "values": ["culvert"]}]}]}}}
    half.keeper.kill("TERM")
    half.keeper.wait_ended()
    equal(half.configuration(), PRIMARY, "the runtime's configuration")
    left = [f for folder in ("opt/cni/bin", "var/run/istio-cni") for f in os.listdir(f"{half.folder}/node/{folder}")]
    equal([f for f in left if f.endswith(("istio-cni", "kubeconfig", "culvert-cni-api"))], [], "files that were installed")


# --- what they are refused ------------------------------------------------------------------------------------------------

WITHOUT = {
    # (container, capability): what the log says
    ("install-cni", "NET_ADMIN"): "cannot bring lo up: Operation not permitted",
    ("install-cni", "NET_RAW"): "cannot open IPv4 raw socket in the pod: Operation not permitted",
    ("install-cni", "SYS_ADMIN"): "cannot make the BPF map",
    ("install-cni", "SYS_PTRACE"): "none of its processes was found",
    ("install-cni", "DAC_OVERRIDE"): "/host/opt/cni/bin/culvert-cni-api: Permission denied",
    ("istio-proxy", "NET_ADMIN"): "cannot mark sockets",
    ("istio-proxy", "SYS_ADMIN"): "cannot enter network namespaces",
}
for name, capability in WITHOUT:
    def needs(place, key=(name, capability)):
        half = place.one
        c = half.keeper if key[0] == "install-cni" else half.tunnel
        check(key[1] in c.pod["containers"][0]["securityContext"]["capabilities"]["add"], f"{key[0]} has no {key[1]}")
        half.begin()
        half.run_pod(place.net.pods["a1"])
        until(lambda: WITHOUT[key] in c.log(), f"\"{WITHOUT[key]}\" in the log", 20)

    T.row(f"without/{name}-{capability.lower()}", functools.partial(Place, without=(name, capability), serves=False))(needs)


@T.row("every-capability-has-a-row", functools.partial(Place, serves=False))
def every(place):
    have = {(name, c) for name, pod in pods_of(objects_of_chart()).items() for c in pod["containers"][0]["securityContext"]["capabilities"]["add"]}
    equal(have, set(WITHOUT), "capabilities")


@T.row("pins-need-the-node's-bpffs", functools.partial(Place, serves=False))
def no_bpffs(place):
    sh("umount", place.one.bpf)
    sh(*place.one.machine.inside("umount", place.one.bpf), ok=False)  # it is seen there, or not
    place.one.keeper.start()
    equal(place.one.keeper.wait_ended(), 1, "the keeper's status")
    check("mount -t bpf bpf /sys/fs/bpf" in place.one.keeper.log(), f"it says {place.one.keeper.log()[-300:]}")


if __name__ == "__main__":
    T.main()
