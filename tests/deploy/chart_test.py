#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The chart's objects beyond its values: rights, names beside Istio's, one half alone; and that the chart, its schema, the programs
and the operator's page say the same."""
import json
import re
import subprocess
from chart import CHART, KEEPER, POD, TUNNEL, helm, is_consistent, read_file, sets, yaml
from lib.rows import Skip, Table, check, equal

T = Table(__file__)


def row(name):
    return T.row(name, helm)


@row("rbac/no-more-than-is-asked-for")
def rbac(helm):
    objects = helm(namespace="mesh-nodes")
    rules = {(r["resources"][i], v) for r in objects["ClusterRole/culvert-keeper-mesh-nodes"]["rules"]
             for i in range(len(r["resources"])) for v in r["verbs"]}
    equal(rules, {(what, verb) for what in ("pods", "namespaces") for verb in ("get", "list", "watch")} |
          {("nodes", "get"), ("pods/status", "patch")}, "rights on the cluster")
    equal(objects["Role/culvert-keeper"]["rules"], [{"apiGroups": ["apps"], "resources": ["daemonsets"],
                                                   "resourceNames": ["istio-cni-node"], "verbs": ["get"]}], "in the namespace")
    for o in objects.values():
        for s in o.get("subjects", ()):
            equal(s["namespace"], "mesh-nodes", f"namespace of a subject of {o['metadata']['name']}")
            check(f"{s['kind']}/{s['name']}" in objects, f"{s['name']} is not there")


@row("beside-istio/nothing-of-the-cluster-has-its-names")
def beside(helm):
    """In another namespace than Istio's, as during a migration."""
    objects = helm(*sets('nodeLabels={"dataplane":"culvert"}'), namespace="culvert-system")
    for name, o in objects.items():
        if "namespace" not in o["metadata"]:
            check(name.split("/")[1].endswith("-culvert-system"), f"{name} may be another release's as well")
        else:
            equal(o["metadata"]["namespace"], "culvert-system", f"namespace of {name}")


for half, left, gone in (("cni", TUNNEL, KEEPER), ("ztunnel", KEEPER, TUNNEL)):
    def one_half(helm, half=half, left=left, gone=gone):
        objects = helm(*sets(f"{half}.enabled=false", "global.networkPolicy.enabled=true", "global.platform=gke"))
        is_consistent(objects)
        check(left in objects and gone not in objects, f"there are {sorted(objects)}")
        word = {"cni": "istio-cni", "ztunnel": "ztunnel"}[half]
        check(not [o for o in objects if o.endswith(f"/{word}")], f"of the other half there are {sorted(objects)}")

    row(f"half/{half}-left-out")(one_half)


@row("apparmor/annotation-before-1.30")
def apparmor(helm):
    objects = helm(kube="1.29.4")
    equal(objects.at(KEEPER, f"{POD}.containers[install-cni].securityContext.appArmorProfile"), None, "the field")
    equal(objects.at(KEEPER, "spec.template.metadata.annotations")["container.apparmor.security.beta.kubernetes.io/install-cni"],
          "unconfined", "the annotation")


@row("capabilities/page-says-what-for")
def capabilities(helm):
    objects = helm()
    page = {(m[1], who) for m in re.finditer(r"^\| `([A-Z_]+)` \| ([a-z, ]+) \| \S", read_file("deploy/README.md"), re.M)
            for who in m[2].split(", ")}
    have = {(c, who) for name, who in ((KEEPER, "keeper"), (TUNNEL, "tunnel"))
            for c in objects.container(name)["securityContext"]["capabilities"]["add"]}
    equal(page, have, "capabilities on the operator's page")
    for name in (KEEPER, TUNNEL):
        equal(objects.container(name)["securityContext"]["capabilities"]["drop"], ["ALL"], f"what {name} drops")


@row("page/commands-render")
def page_commands(helm):
    """What the operator's page gives to helm."""
    lines = re.findall(r"^    helm (install|upgrade) culvert deploy/helm/culvert (.*)$", read_file("deploy/README.md"), re.M)
    check(len(lines) >= 3, f"the page has {len(lines)} commands")
    for _, words in lines:
        values = re.findall(r"--set (\S+)", words)
        namespace = re.search(r"-n (\S+)", words)[1]
        check(KEEPER in helm(*sets(*values), namespace=namespace), words)


@row("page/a-choice-of-nodes-can-be-dropped")
def no_choice(helm):
    equal(helm(*sets("nodeLabels.dataplane=culvert", "nodeLabels=null")).at(KEEPER, f"{POD}.affinity"), None, "affinity")


@T.row("page/patch-of-istio's-daemonsets-is-the-opposite-of-nodeLabels")
def page_patch():
    patch = json.loads(re.search(r"--type merge -p '(.*?)'$", read_file("deploy/README.md"), re.M | re.S)[1])
    (term,) = patch["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    equal(term, {"matchExpressions": [{"key": "dataplane", "operator": "NotIn", "values": ["culvert"]}]}, "the term")


@row("lint")
def lint(helm):
    done = subprocess.run(["helm", "lint", "--strict", CHART], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, done.stdout + done.stderr)


# --- without helm ----------------------------------------------------------------------------------------------------------

@T.row("plain/schema-has-every-value")
def schema():
    if not yaml:
        raise Skip("no PyYAML (apt-get install python3-yaml)")
    all_of = json.loads(read_file("deploy/helm/culvert/values.schema.json"))

    def compare(values, s, at):
        s = all_of["definitions"][s["$ref"].rsplit("/", 1)[1]] if "$ref" in s else s
        if "properties" not in s:
            return
        equal(sorted(values), sorted(s["properties"]), f"names in {at or 'values.yaml'}")
        equal(s["additionalProperties"], False, f"additionalProperties in {at}")
        for k, v in values.items():
            compare(v, s["properties"][k], f"{at}.{k}")

    compare(yaml.safe_load(read_file("deploy/helm/culvert/values.yaml")), all_of, "")


@T.row("plain/version-is-the-programs")
def version():
    program = re.search(r'CULVERT_VERSION "([^"]+)"', read_file("userspace/base/version.h"))[1]
    chart = read_file("deploy/helm/culvert/Chart.yaml")
    equal(re.findall(r"^(?:appVersion|version): (.+)$", chart, re.M), [program] * 2, "version and appVersion")


@T.row("plain/platforms-are-in-schema-and-page")
def platforms():
    rows = re.findall(r"^([a-z0-9]+): \{", read_file("deploy/helm/culvert/files/platforms.yaml"), re.M)
    s = json.loads(read_file("deploy/helm/culvert/values.schema.json"))["properties"]["global"]["properties"]["platform"]["enum"]
    equal(sorted(s), sorted("" if r == "default" else r for r in rows), "platforms in the schema")
    page = read_file("deploy/README.md")
    equal([p for p in s if p and f"`{p}`" not in page], [], "platforms that the page does not name")
    rows = read_file("tests/deploy/values_test.py")
    equal([p for p in s if p and f'    "{p}": (' not in rows], [], "platforms without a row")


T.main()
