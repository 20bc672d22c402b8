# SPDX-License-Identifier: Apache-2.0
"""The chart in deploy/helm/culvert, rendered by `helm template`, as objects."""
import contextlib
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib.rows import Skip, check, equal

try:
    import yaml
except ImportError:
    yaml = None

TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
CHART = f"{TREE}/deploy/helm/culvert"
KEEPER, TUNNEL = "DaemonSet/istio-cni-node", "DaemonSet/ztunnel"
POD = "spec.template.spec"


class Refused(Exception):
    """helm's line."""


class Objects(dict):
    """{"KIND/NAME": object}"""

    def at(self, name, path):
        """The value at a path of keys; in lists [NAME] is the element that is called so. None: not there."""
        value = self[name]
        for key in re.findall(r"\[[^]]+\]|(?:\\.|[^.[])+", path):
            key = key.replace("\\", "")
            if key[0] == "[":
                value = next((v for v in value or () if v.get("name") == key[1:-1]), None)
            else:
                value = (value or {}).get(key)
        return value

    def container(self, name):
        (one,) = self.at(name, f"{POD}.containers")
        return one

    def env(self, name):
        """{variable: value, or where it is from}"""
        return {v["name"]: v.get("value", v.get("valueFrom")) for v in self.container(name)["env"]}


def read_file(path):
    with open(f"{TREE}/{path}") as f:
        return f.read()


def render(*values, namespace="istio-system", kube="1.32.0"):
    done = subprocess.run(["helm", "template", "culvert", CHART, "--namespace", namespace, "--kube-version", kube, *values],
                          capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Refused(done.stderr)
    out = Objects()
    for o in yaml.safe_load_all(done.stdout):
        if o:
            name = f"{o['kind']}/{o['metadata']['name']}"
            check(name not in out, f"{name} twice")
            out[name] = o
    return out


def sets(*values):
    return [word for v in values for word in ("--set-json" if re.search(r"=[\[{\"]", v) else "--set", v)]


def need():
    if not yaml:
        raise Skip("no PyYAML (apt-get install python3-yaml)")
    if not shutil.which("helm"):
        raise Skip("no helm on PATH")


@contextlib.contextmanager
def helm():
    """A fixture of rows: the function that renders."""
    need()
    yield render


def is_consistent(objects):
    """What holds whatever the values are."""
    for name in {KEEPER, TUNNEL} & set(objects):
        check("helm.sh/chart" not in objects.at(name, "spec.template.metadata.labels"), "another chart would restart all pods")
        pod, labels = objects.at(name, POD), objects.at(name, "spec.template.metadata.labels")
        check(objects.at(name, "spec.selector.matchLabels").items() <= labels.items(), f"{name} does not select its own pods")
        volumes, used = [v["name"] for v in pod["volumes"]], [m["name"] for m in objects.container(name)["volumeMounts"]]
        equal(sorted(used), sorted(volumes), f"volumes of {name}")
        variables = [v["name"] for v in objects.container(name)["env"]]
        equal(len(variables), len(set(variables)), f"different variables among {sorted(variables)}")
        for v in objects.env(name).values():
            check(isinstance(v, (str, dict)), f"{name}: a variable's value is {v!r}, no text")
        check(f"ServiceAccount/{pod['serviceAccountName']}" in objects, f"{name}: its account is not there")
