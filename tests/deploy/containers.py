# SPDX-License-Identifier: Apache-2.0
"""Runs a pod of the chart as the kubelet would have it run: by runc, with the container's capabilities, mounts, variables and
namespaces, on this machine's files. A node is a process 1 with all that runs there under it; its paths are in a folder of the
test's, but for those that must be the machine's own."""
import contextlib
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib.net import sh
from lib.rows import Skip, check, until

# hostPath volumes that are the machine's: namespaces that the test makes are there, and cgroups.
SHARED = {"/var/run/netns": "/run/netns", "/sys/fs/cgroup": "/sys/fs/cgroup"}
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def need():
    if os.geteuid():
        raise Skip("needs root for containers")
    if not shutil.which("runc"):
        raise Skip("not installed: runc (apt-get install)")


class Machine:
    """The node's part: `folder` has its files, `files` what volumes that are no hostPath hold: {volume: folder}, `fields` what
    the pod's fields say. Network namespaces that are made later appear on the node, as they do on a real one."""

    def __init__(self, node, folder, build, files, fields):
        self.node, self.folder, self.build, self.files, self.fields = node, folder, build, files, fields
        self.root = f"{folder}/root"
        for name in ("root/host", "root/run", "root/var", "root/tmp", "root/etc", "root/usr", "root/proc", "root/sys", "root/dev",
                     "root/culvert"):
            os.makedirs(f"{folder}/{name}", exist_ok=True)
        os.symlink("../run", f"{self.root}/var/run")  # as in Debian
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{self.root}/{name}")
        self.unshare = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child",
             "--propagation=slave", "sh", "-c", "sleep infinity & wait"], stdin=subprocess.DEVNULL)
        self.init = until(lambda: children(self.unshare.pid), "the node's process 1")[0]
        until(lambda: children(int(self.init)), "its child")

    def close(self):
        """Everything that runs there ends."""
        self.unshare.kill()
        self.unshare.wait()
        until(lambda: not os.path.exists(f"/proc/{self.init}"), "the end of the node's process 1")

    def inside(self, *argv):
        """A command line that runs there, in the machine's network."""
        return ["nsenter", f"--target={self.init}", "--pid", "--mount", *argv]

    def path(self, host):
        """Where a path of the node is."""
        return SHARED.get(host) or f"{self.folder}/node{host}"

    def mounts(self, pod, container):
        volumes = {v["name"]: v for v in pod["volumes"]}
        for m in container["volumeMounts"]:
            v = volumes[m["name"]]
            source = self.path(v["hostPath"]["path"]) if "hostPath" in v else self.files[m["name"]]
            if v.get("hostPath", {}).get("type") != "Directory":
                os.makedirs(source, exist_ok=True)
            check(os.path.isdir(source), f"{source} is no folder: the kubelet would not start the pod")
            propagation = {"HostToContainer": "rslave", None: "rprivate"}[m.get("mountPropagation")]
            yield {"destination": m["mountPath"], "type": "bind", "source": source,
                   "options": ["rbind", propagation, "ro" if m.get("readOnly") else "rw"]}

    def env(self, container, more):
        out = {"PATH": "/culvert/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for v in container["env"]:
            source = v.get("valueFrom", {})
            out[v["name"]] = (self.fields[source["fieldRef"]["fieldPath"]] if "fieldRef" in source
                              else str(os.cpu_count()) if source else v["value"])
        return [f"{k}={v}" for k, v in {**out, **more}.items()]

    def specification(self, pod, more_env, more_mounts, drop):
        """The OCI runtime's."""
        (container,) = pod["containers"]
        context = container["securityContext"]
        capabilities = [f"CAP_{c}" for c in context["capabilities"]["add"] if c not in drop]
        check(context["capabilities"]["drop"] == ["ALL"] and not context["privileged"], "the container has more than it lists")
        namespaces = [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"},
                      {"type": "network", "path": f"/run/netns/{self.node.ns}"}]
        if not pod.get("hostPID"):
            namespaces.append({"type": "pid"})
        bind = ["rbind", "rprivate", "ro"]
        return {
            "ociVersion": "1.0.2", "hostname": self.node.name, "root": {"path": self.root,
                                                                         "readonly": context["readOnlyRootFilesystem"]},
            "process": {
                "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]}, "cwd": "/",
                "args": container["command"] + container.get("args", []), "env": self.env(container, more_env),
                "capabilities": {s: capabilities for s in ("bounding", "effective", "permitted")},
                "noNewPrivileges": not context["allowPrivilegeEscalation"]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                 "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": bind},
                {"destination": "/etc", "type": "bind", "source": "/etc", "options": bind},
                {"destination": "/culvert", "type": "bind", "source": self.build, "options": bind},
                *self.mounts(pod, container), *more_mounts],
            "linux": {"namespaces": namespaces, "maskedPaths": MASKED, "readonlyPaths": READ_ONLY}}


class Container:
    """One pod's container. Each start has a name, a cgroup and namespaces of its own, as each container of a kubelet has."""

    def __init__(self, machine, pod, env=(), mounts=(), drop=(), name=None):
        self.machine, self.pod, self.env, self.mounts, self.drop = machine, pod, dict(env), list(mounts), drop
        self.name, self.process, self.starts = name or pod["containers"][0]["name"], None, 0
        self.log_path = f"{machine.folder}/{self.name}.log"

    def start(self):
        self.starts += 1
        self.id = f"e2e-deploy-{os.getpid()}-{self.machine.node.name}-{self.name}-{self.starts}"
        bundle = f"{self.machine.folder}/{self.id}"
        os.mkdir(bundle)
        spec = self.machine.specification(self.pod, self.env, self.mounts, self.drop)
        spec["linux"]["cgroupsPath"] = f"/{self.id}"
        with open(f"{bundle}/config.json", "w") as f:
            json.dump(spec, f)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.machine.inside("runc", "--root", f"{self.machine.folder}/runc", "run", "--bundle", bundle, self.id),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def wait_ended(self, within=20):
        until(lambda: not self.is_alive(), f"{self.name} to end", within)
        return self.process.returncode

    def runc(self, *argv, ok=True):
        return sh(*self.machine.inside("runc", "--root", f"{self.machine.folder}/runc", *argv), ok=ok)

    def exec(self, *argv, ok=True):
        """As `kubectl exec` does."""
        return self.runc("exec", self.id, *argv, ok=ok)

    def kill(self, sig="KILL"):
        self.runc("kill", self.id, sig)

    def wait_ready(self, within=20):
        """The readiness probe of the pod."""
        get = self.pod["containers"][0]["readinessProbe"]["httpGet"]

        def is_ready():
            if not self.is_alive():
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.log()[-400:]}")
            return http(self.machine.node, get["port"], get["path"])[0] == 200

        until(is_ready, f"{self.name} to be ready", within)

    def close(self):
        if self.starts:
            self.runc("delete", "--force", self.id, ok=False)
        if self.is_alive():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
            self.process.wait()
        said = [x for x in self.log().splitlines() if "Sanitizer:" in x or "runtime error:" in x]
        check(not said, lambda: f"{self.name}: {said[0]}")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return f.read().split()


def is_populated(cgroup):
    with open(f"{cgroup}/cgroup.events") as f:
        return "populated 1" in f.read()


def http(host, port, path):
    """(status, body)"""
    return host.get(port, path, timeout=5)
