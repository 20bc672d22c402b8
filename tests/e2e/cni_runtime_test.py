#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The CNI plugin in a real chain: containerd and runc make sandboxes on a bridge, whose first process dials out at once.

    n1 (containerd, keeper, bridge 10.71.1.129/25) --- n2, where the canary of every sandbox knocks: 10.71.2.1:9999

A sandbox of the mesh never reaches n2, not with its first packet: the tunnel gets the connection. After the sandbox's
end nothing of it is left. Needs packages that `make deps` does not install."""
import contextlib
import json
import os
import select
import socket
import sys
import time
import uuid

sys.path.insert(0, os.path.dirname(__file__))
from keeper_test import DEL
from lib import agents, cni, containerd
from lib.cni import OUTSIDE
from lib.net import folder, sh
from lib.rows import Table, check, equal, until
from lib.traffic import Task

T = Table(__file__)
TARGET, PORT = "10.71.2.1", 9999
CANARY = f"/bin/busybox nc {TARGET} {PORT} </dev/null & while :; do /bin/busybox sleep 1000; done"


class RuntimePlace(cni.CniPlace):
    def __init__(self):
        super().__init__("bpf")

    def _begin(self):
        containerd.need()
        super()._begin()
        self.target = self.stack.enter_context(contextlib.closing(self.net.nodes[1].listen(PORT, TARGET)))
        self.work = self.stack.enter_context(folder("e2e"))
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.71.1.128/25"}]], "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{self.work}/ipam"}}
        ours = self.conf()
        self.chain = [bridge, {k: v for k, v in ours.items() if k not in ("cniVersion", "name")}]
        self.runtime = containerd.Containerd(self.node, self.work, self.chain,
                                             ["/usr/lib/cni", f"{agents.BUILD}/libexec/culvert"], CANARY)
        self.stack.callback(self.runtime.close)
        self.runtime.start()

    def explain(self):
        super().explain()
        if os.environ.get("E2E_LOGS"):
            print(self.runtime.log()[-4000:], file=sys.stderr)

    def knocks(self, within):
        """Who knocked at the target: an address, or None in that time."""
        if not select.select([self.target], [], [], within)[0]:
            return None
        s, peer = self.target.accept()
        s.close()
        return peer[0]

    @contextlib.contextmanager
    def sandbox(self, namespace, name, uid=None):
        made = self.runtime.run_sandbox(namespace, name, uid or str(uuid.uuid4()))
        try:
            yield made
        finally:
            with contextlib.suppress(containerd.CallFailed):
                self.runtime.stop_sandbox(made)
                self.runtime.remove_sandbox(made)

    def clean(self):
        """Nothing is left of any sandbox."""
        equal(self.pods(), {}, "pods")
        equal(os.listdir(f"{self.run}/pods"), [], "records")
        until(lambda: not os.listdir(f"{self.bpf}/v1"), "the pins to go")
        equal([x for x in sh("ip", "-n", self.node.ns, "-o", "link").splitlines() if "master cni0" in x], [], "veths")


def row(name):
    return T.row(name, RuntimePlace)


def captured(tunnel, uid):
    """The connection that the pod's 15001 listener got, as the app meant it."""
    with socket.socket(fileno=os.dup(tunnel.fds[uid][1])) as listener:
        listener.setblocking(False)

        def accepted():
            with contextlib.suppress(BlockingIOError):
                return listener.accept()
            return None

        s, _ = until(accepted, "the canary at 15001")
        with s:
            return s.getsockname()[:2]


@row("mesh-sandbox-is-steered-from-its-first-packet")
def mesh(place):
    t, uid = place.willing(), str(uuid.uuid4())
    with place.sandbox("default", "web-0", uid) as sandbox:
        pod = place.pods()["web-0"]
        equal((pod["uid"], pod["state"], pod["netns"]), (uid, "enrolled", place.runtime.netns(sandbox)), "the pod")
        address = captured(t, uid)
        equal((address[0].removeprefix("::ffff:"), address[1]), (TARGET, PORT), "where the canary wanted to go")
        equal(place.knocks(0.3), None, "who reached the target past the mesh")
        with open(f"{place.run}/pods/{uid}.json") as f:
            equal(json.load(f)["containerId"], sandbox, "the record's container")
        place.runtime.stop_sandbox(sandbox)
        equal([kind for kind, _ in t.told].count(DEL), 1, "how often the tunnel was told of the end")
        place.clean()
        place.runtime.stop_sandbox(sandbox)  # as the kubelet does: again
        place.runtime.remove_sandbox(sandbox)
    place.clean()


@row("sandbox-outside-the-mesh-is-left-alone")
def outside(place):
    t = place.willing()
    with place.sandbox(OUTSIDE, "web-0"):
        who = place.knocks(10)
        check(who and who.startswith("10.71.1."), f"who reached the target: {who}")
        equal(place.pods(), {}, "pods")
        equal(t.told, [], "what the tunnel was told")
    place.clean()


@row("without-the-keeper-a-sandbox-fails-and-leaves-nothing")
def down(place):
    place.stop()
    try:
        place.runtime.run_sandbox("default", "web-0", str(uuid.uuid4()))
    except containerd.CallFailed:
        pass
    else:
        raise AssertionError("it started")
    check(cni_words(place), "the log does not say why")
    equal(place.knocks(0.3), None, "who reached the target")
    place.start()
    t = place.willing()
    uid = str(uuid.uuid4())
    with place.sandbox("default", "web-0", uid):  # tried again
        captured(t, uid)
    place.clean()


def cni_words(place):
    return "failed to contact node Istio CNI agent" in place.runtime.log()


@row("a-sandbox-made-anew-for-the-same-pod")
def anew(place):
    t, uid = place.willing(), str(uuid.uuid4())
    with place.sandbox("default", "web-0", uid) as first:
        place.runtime.stop_sandbox(first)
        second = place.runtime.run_sandbox("default", "web-0", uid, attempt=1)
        try:
            captured(t, uid)
            place.runtime.remove_sandbox(first)
            equal(place.pods()["web-0"]["state"], "enrolled", "state")
        finally:
            place.runtime.stop_sandbox(second)
            place.runtime.remove_sandbox(second)
    place.clean()


@row("ten-sandboxes-at-once-with-the-keeper-killed-meanwhile")
def storm(place):
    """Each starts steered or fails; what failed is tried again, as a kubelet does."""
    place.willing()
    uids = [str(uuid.uuid4()) for _ in range(10)]

    def up(i):
        for attempt in range(20):
            try:
                return place.runtime.run_sandbox("default", f"web-{i}", uids[i], attempt)
            except containerd.CallFailed:
                time.sleep(0.3)
        raise AssertionError(f"web-{i} does not start")

    made = []
    with contextlib.ExitStack() as stack:
        tasks = [Task(up, i) for i in range(10)]
        time.sleep(0.2)  # somewhere in the middle
        place.kill()
        place.tunnels.pop().close()
        place.start()
        place.willing()
        for task in tasks:
            made.append(task.result())
            stack.callback(place.runtime.remove_sandbox, made[-1])
            stack.callback(place.runtime.stop_sandbox, made[-1])
        until(lambda: sorted(p["uid"] for p in place.pods().values() if p["state"] == "enrolled") == sorted(uids),
              "all to be enrolled")
        equal(place.knocks(0.5), None, "who reached the target past the mesh")
    until(lambda: not place.pods(), "the pods to go")
    place.clean()


if __name__ == "__main__":
    T.main()
