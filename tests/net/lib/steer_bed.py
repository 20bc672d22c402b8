# SPDX-License-Identifier: Apache-2.0
"""The bed for rows about steering itself: one way of attaching, and what it leaves in a namespace."""
import os

from bed import APP, Bed, Driver, inside
from rows import Skip, check, equal
from topology import sh

ACCEPT_LOCAL = "/proc/sys/net/ipv4/conf/lo/accept_local"


def needs_tcx():
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 6):
        raise Skip("tcx needs Linux 6.6")


class SteerBed(Bed):
    """Starts the driver with `hook`; rows attach by themselves where `attached` is false."""

    def __init__(self, hook, attached=True, config=("dns",)):
        super().__init__("bpf", config)
        self.hook, self.attached = hook, attached

    def rooms(self):
        if self.hook == "tcx":
            needs_tcx()
        super().rooms()

    def start(self, cgroup=None):
        self.driver = Driver(self.pins, f"{self.mode} hook={self.hook}", cgroup)

    def steer(self, *config):
        if self.attached:
            super().steer(*config)
        self.attached = True

    def folder(self):
        return f"{self.pins}/v1/{self.pod.uid}"

    def status(self):
        return dict(w.split("=", 1) for w in self.driver.ask("status", self.pod.uid).split())

    def refuses(self, *words):
        """The driver's error line."""
        try:
            self.driver.ask(*words)
        except AssertionError as e:
            return str(e)
        raise AssertionError(f"{words} is not refused")

    def attach_error(self):
        return self.refuses("attach", self.pod.uid, f"/run/netns/{self.pod.ns}")

    def next_keeper(self, hook=None):
        """The driver is killed and another one comes."""
        self.kill_agent()
        self.hook = hook or self.hook
        self.start()

    def works(self, families=(False,)):
        """IPv6 waits for duplicate address detection, so only rows that care ask for it."""
        for v6 in families:
            ip = self.remote.ip(v6)
            equal(self.ask(self.pod, ip, APP).who, "agent=15001", "who answers the pod")
            equal(self.ask(self.remote, self.pod.ip(v6), APP).who, "agent=15006", "who answers the remote side")

    def direct(self, families=(False,)):
        for v6 in families:
            equal(self.ask(self.pod, self.remote.ip(v6), APP).who, "remote", "who answers the pod")
            equal(self.ask(self.remote, self.pod.ip(v6), APP).who, "app", "who answers the remote side")


def read(path):
    with open(path) as f:
        return f.read().strip()


def trace(pod):
    """Everything that steering touches in a namespace, as a set of lines."""
    commands = [("ip", "-n", pod.ns, *w.split()) for w in (
        "-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "link show up dev lo")]
    commands += [("tc", "-n", pod.ns, *w.split()) for w in (
        "qdisc", "filter show dev eth0 ingress", "filter show dev eth0 egress")]
    lines = [f"accept_local {read_in(pod, ACCEPT_LOCAL)}"]
    for argv in commands:
        lines += sh(*argv, ok=False).splitlines()
    with inside(pod.ns):
        lines += sh("bpftool", "net").splitlines() + sh("ss", "-Htlnu").splitlines()
    return {x for x in lines if "fe80::" not in x}  # duplicate address detection ends when it likes


def same(pod, before):
    after = trace(pod)
    check(after == before, f"in the namespace afterwards: new {sorted(after - before)}, gone {sorted(before - after)}")


def read_in(pod, path):
    with inside(pod.ns):
        return read(path)
