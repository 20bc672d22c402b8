#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Podman with its CNI back end and runc: culvert-cni as the last of a chain. Podman tells plugins a container's name and no
namespace, so its containers are outside the mesh: the chain adds and removes them, and nothing is steered. Needs packages
that `make deps` does not install, and is a place for who wants podman's containers in the mesh to begin."""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, cni
from lib.net import folder, scale, sh
from lib.rows import Skip, Table, check, equal

T = Table(__file__)
PACKAGES = {"podman": "podman", "runc": "runc", "/usr/lib/cni/bridge": "containernetworking-plugins",
            "/bin/busybox": "busybox-static"}
COMMAND = "ip -4 addr show dev eth0; ip rule"


class PodmanPlace(cni.CniPlace):
    """Podman with folders of its own in the first node's network namespace; its containers run from a folder, not from
    an image."""

    def __init__(self):
        super().__init__("bpf")

    def _begin(self):
        if missing := sorted({package for program, package in PACKAGES.items() if not shutil.which(program)}):
            raise Skip(f"not installed: {', '.join(missing)} (apt-get install)")
        super()._begin()
        self.work = self.stack.enter_context(folder("e2e"))
        self.cgroup = f"e2e-podman-{os.getpid()}"
        self.stack.callback(self.remove_cgroups)
        for name in "net.d", "bin", *(f"rootfs/{x}" for x in ("bin", "dev", "etc", "proc", "run", "sys", "tmp")):
            os.makedirs(f"{self.work}/{name}")
        shutil.copy("/bin/busybox", f"{self.work}/rootfs/bin/")
        for where in "/usr/lib/cni", f"{agents.BUILD}/libexec/culvert":
            for name in os.listdir(where):
                os.symlink(f"{where}/{name}", f"{self.work}/bin/{name}")
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.71.1.128/25"}]], "dataDir": f"{self.work}/ipam"}}
        ours = {k: v for k, v in self.conf().items() if k not in ("cniVersion", "name")}
        with open(f"{self.work}/net.d/10-mesh.conflist", "w") as f:
            json.dump({"cniVersion": "0.4.0", "name": "mesh", "plugins": [bridge, ours]}, f)
        with open(f"{self.work}/containers.conf", "w") as f:
            f.write(f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{self.work}/bin"]\n'
                    f'network_config_dir = "{self.work}/net.d"\ndefault_network = "mesh"\n'
                    '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n')

    def remove_cgroups(self):
        for root, folders, _ in os.walk("/sys/fs/cgroup"):
            if self.cgroup in folders:
                for at, _, _ in os.walk(f"{root}/{self.cgroup}", topdown=False):
                    os.rmdir(at)

    def run_container(self, name):
        """(status, what it said)"""
        env = {"PATH": os.environ["PATH"], "CONTAINERS_CONF": f"{self.work}/containers.conf", "TMPDIR": self.work}
        r = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.node.ns}", "podman", "--root", f"{self.work}/root", "--runroot",
             f"{self.work}/runroot", "--storage-driver", "vfs", "run", "--rm", "--network", "mesh", "--name", name,
             "--cgroup-parent", f"/{self.cgroup}", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
             "--rootfs", f"{self.work}/rootfs", "/bin/busybox", "sh", "-c", COMMAND],
            env=env, capture_output=True, text=True, timeout=scale.deadline(60))
        return r.returncode, r.stdout + r.stderr


@T.row("a-container-comes-and-goes-outside-the-mesh", PodmanPlace)
def container(place):
    t = place.willing()
    status, said = place.run_container("web-0")
    equal(status, 0, f"exit status; it said {said}")
    check("inet 10.71.1." in said and "0x111" not in said, said)
    equal((t.told, place.pods(), os.listdir(f"{place.bpf}/v1")), ([], {}, []), "what the tunnel was told, pods, pins")
    equal([x for x in sh("ip", "-n", place.node.ns, "-o", "link").splitlines() if "master cni0" in x], [], "veths")
    equal([x for x in os.listdir(f"{place.work}/ipam/mesh") if x.startswith("10.")], [], "addresses")


@T.row("the-chain-does-not-need-the-keeper-for-it", PodmanPlace)
def alone(place):
    place.stop()
    status, said = place.run_container("web-1")
    equal(status, 0, f"exit status; it said {said}")


if __name__ == "__main__":
    T.main()
