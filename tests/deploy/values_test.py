#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What becomes of values: tables of what helm is given and of what must be in the objects, in the programs' variables, or in
helm's refusal."""
import json
import os
from chart import KEEPER, POD, TUNNEL, Refused, helm, is_consistent, sets, yaml
from lib.rows import Skip, Table, check, equal

T = Table(__file__)
BUILD = os.path.abspath(os.environ.get("B", "build"))


def row(name):
    return T.row(name, helm)


# --- a table of values -------------------------------------------------------------------------------------------

def mount(name):
    return f"{POD}.volumes[{name}].hostPath.path"


CASES = {
    # name: (values, {object: {path: what must be there; None: nothing}})
    "default": ((), {
        KEEPER: {f"{POD}.hostPID": True, f"{POD}.hostNetwork": None, f"{POD}.affinity": None,
                 f"{POD}.priorityClassName": "system-node-critical", f"{POD}.terminationGracePeriodSeconds": 30,
                 f"{POD}.containers[install-cni].image": "culvert:0.1.0", "metadata.namespace": "istio-system",
                 f"{POD}.containers[install-cni].readinessProbe.httpGet": {"path": "/readyz", "port": 8000},
                 f"{POD}.containers[install-cni].livenessProbe.httpGet": {"path": "/healthz", "port": 8000},
                 f"{POD}.containers[install-cni].securityContext.appArmorProfile": {"type": "Unconfined"},
                 f"{POD}.containers[install-cni].securityContext.privileged": False,
                 "spec.selector.matchLabels": {"k8s-app": "istio-cni-node"},
                 "spec.updateStrategy.rollingUpdate": {"maxUnavailable": 1},
                 "spec.template.metadata.labels.istio\\.io/dataplane-mode": "none",
                 "spec.template.metadata.annotations.prometheus\\.io/port": "15014",
                 mount("cni-bin-dir"): "/opt/cni/bin", mount("cni-net-dir"): "/etc/cni/net.d",
                 mount("cni-netns-dir"): "/var/run/netns", mount("bpffs"): "/sys/fs/bpf"},
        TUNNEL: {f"{POD}.hostPID": None, f"{POD}.hostNetwork": None, f"{POD}.automountServiceAccountToken": False,
                 f"{POD}.serviceAccountName": "ztunnel", f"{POD}.containers[istio-proxy].image": "culvert:0.1.0",
                 f"{POD}.containers[istio-proxy].readinessProbe.httpGet": {"path": "/healthz/ready", "port": 15021},
                 f"{POD}.containers[istio-proxy].livenessProbe": None,
                 f"{POD}.containers[istio-proxy].securityContext.privileged": False,
                 "spec.selector.matchLabels": {"app": "ztunnel"},
                 "spec.updateStrategy.rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                 "spec.template.metadata.labels.app": "ztunnel",
                 "spec.template.metadata.labels.istio\\.io/dataplane-mode": "none",
                 "spec.template.metadata.annotations.prometheus\\.io/port": "15020",
                 f"{POD}.volumes[istiod-ca-cert].configMap.name": "istio-ca-root-cert",
                 f"{POD}.volumes[istio-token].projected.sources": [{"serviceAccountToken": {
                     "path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200}}]}}),
    "k3s": (["global.platform=k3s"], {
        KEEPER: {mount("cni-bin-dir"): "/var/lib/rancher/k3s/data/cni",
                 mount("cni-net-dir"): "/var/lib/rancher/k3s/agent/etc/cni/net.d"}}),
    "k3d": (["global.platform=k3d"], {
        KEEPER: {mount("cni-bin-dir"): "/bin", mount("cni-net-dir"): "/var/lib/rancher/k3s/agent/etc/cni/net.d"}}),
    "microk8s": (["global.platform=microk8s"], {
        KEEPER: {mount("cni-bin-dir"): "/var/snap/microk8s/current/opt/cni/bin",
                 mount("cni-net-dir"): "/var/snap/microk8s/current/args/cni-network"}}),
    "minikube": (["global.platform=minikube"], {
        KEEPER: {mount("cni-netns-dir"): "/var/run/docker/netns", mount("cni-bin-dir"): "/opt/cni/bin",
                 f"{POD}.containers[install-cni].volumeMounts[cni-netns-dir].mountPath": "/host/var/run/docker/netns"}}),
    "eks": (["global.platform=eks"], {KEEPER: {mount("cni-bin-dir"): "/opt/cni/bin"}}),
    "gke": (["global.platform=gke"], {
        KEEPER: {mount("cni-bin-dir"): "/home/kubernetes/bin", mount("cni-net-dir"): "/etc/cni/net.d"},
        "ResourceQuota/culvert-cni": {"spec.hard.pods": "5000"},
        "ResourceQuota/culvert-ztunnel": {"spec.hard.pods": "5000"}}),
    "openshift": (["global.platform=openshift"], {
        KEEPER: {mount("cni-bin-dir"): "/var/lib/cni/bin", mount("cni-net-dir"): "/etc/cni/multus/net.d",
                 f"{POD}.containers[install-cni].securityContext.seLinuxOptions": {"type": "spc_t"}},
        TUNNEL: {f"{POD}.containers[istio-proxy].securityContext.seLinuxOptions": {"type": "spc_t"}},
        "RoleBinding/culvert-privileged": {"roleRef.name": "system:openshift:scc:privileged"},
        "NetworkAttachmentDefinition/istio-cni": {"metadata.namespace": "default"}}),
    "own-folders-win-over-platform": (["global.platform=k3s", "cni.cniBinDir=/x/bin", "cni.cniConfDir=/x/net.d",
                                       "cni.cniNetnsDir=/run/netns"], {
        KEEPER: {mount("cni-bin-dir"): "/x/bin", mount("cni-net-dir"): "/x/net.d", mount("cni-netns-dir"): "/run/netns",
                 f"{POD}.containers[install-cni].volumeMounts[cni-netns-dir].mountPath": "/host/run/netns"}}),
    "image-of-both": (["global.hub=example.org/mesh", "global.tag=v2"], {
        KEEPER: {f"{POD}.containers[install-cni].image": "example.org/mesh/culvert:v2"},
        TUNNEL: {f"{POD}.containers[istio-proxy].image": "example.org/mesh/culvert:v2"}}),
    "image-of-one": (["cni.hub=example.org/a", "cni.image=keeper", "cni.tag=v3", "ztunnel.image=example.org/b/t@sha256:00"], {
        KEEPER: {f"{POD}.containers[install-cni].image": "example.org/a/keeper:v3"},
        TUNNEL: {f"{POD}.containers[istio-proxy].image": "example.org/b/t@sha256:00"}}),
    "pull": (["global.imagePullPolicy=Always", "ztunnel.imagePullPolicy=Never", 'global.imagePullSecrets=["a"]',
              'ztunnel.imagePullSecrets=["a","b"]'], {
        KEEPER: {f"{POD}.containers[install-cni].imagePullPolicy": "Always", f"{POD}.imagePullSecrets": [{"name": "a"}]},
        TUNNEL: {f"{POD}.containers[istio-proxy].imagePullPolicy": "Never",
                 f"{POD}.imagePullSecrets": [{"name": "a"}, {"name": "b"}]}}),
    "tolerations": (['cni.tolerations=[{"key":"a","operator":"Exists"}]', "ztunnel.tolerations=[]"], {
        KEEPER: {f"{POD}.tolerations": [{"key": "a", "operator": "Exists"}]}, TUNNEL: {f"{POD}.tolerations": []}}),
    "nodes-by-labels": (['nodeLabels={"dataplane":"culvert"}'], {
        name: {f"{POD}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms": [
            {"matchExpressions": [{"key": "dataplane", "operator": "In", "values": ["culvert"]}]}]}
        for name in (KEEPER, TUNNEL)}),
    "affinity-of-one": (['cni.affinity={"nodeAffinity":{}}'], {
        KEEPER: {f"{POD}.affinity": {"nodeAffinity": {}}}, TUNNEL: {f"{POD}.affinity": None}}),
    "host-network": (["cni.ambient.shareHostNetworkNamespace=true"], {
        KEEPER: {f"{POD}.hostNetwork": True, f"{POD}.dnsPolicy": "ClusterFirstWithHostNet"}}),
    "labels-and-annotations": (["cni.daemonSetLabels.a=1x", "cni.podLabels.b=2x", "cni.podAnnotations.c=3x",
                                "ztunnel.labels.d=4x", "ztunnel.annotations.e=5x", "ztunnel.podLabels.f=6x"], {
        KEEPER: {"metadata.labels.a": "1x", "spec.template.metadata.labels.b": "2x",
                 "spec.template.metadata.annotations.c": "3x", "spec.template.metadata.labels.k8s-app": "istio-cni-node"},
        TUNNEL: {"metadata.labels.d": "4x", "metadata.annotations.e": "5x", "spec.template.metadata.labels.f": "6x",
                 "spec.template.metadata.labels.app": "ztunnel"}}),
    "grace-is-drain-limit": (["ztunnel.terminationGracePeriodSeconds=77"], {
        TUNNEL: {f"{POD}.terminationGracePeriodSeconds": 77,
                 f"{POD}.containers[istio-proxy].env[TERMINATION_GRACE_PERIOD_SECONDS].value": "77"}}),
    "network-policy": (["global.networkPolicy.enabled=true"], {
        "NetworkPolicy/istio-cni": {"spec.podSelector.matchLabels": {"k8s-app": "istio-cni-node"}},
        "NetworkPolicy/ztunnel": {"spec.podSelector.matchLabels": {"app": "ztunnel"}}}),
    "own-volumes-of-ztunnel": (['ztunnel.volumes=[{"name":"x","emptyDir":{}}]',
                                'ztunnel.volumeMounts=[{"name":"x","mountPath":"/x"}]'], {
        TUNNEL: {f"{POD}.volumes[x].emptyDir": {}, f"{POD}.containers[istio-proxy].volumeMounts[x].mountPath": "/x"}}),
    "confined": (['cni.seccompProfile={"type":"RuntimeDefault"}', 'ztunnel.seLinuxOptions={"type":"x_t"}'], {
        KEEPER: {f"{POD}.containers[install-cni].securityContext.seccompProfile": {"type": "RuntimeDefault"}},
        TUNNEL: {f"{POD}.containers[istio-proxy].securityContext.seLinuxOptions": {"type": "x_t"}}}),
}


for case, (values, wanted) in CASES.items():
    def rendered(helm, values=values, wanted=wanted):
        objects = helm(*sets(*values))
        is_consistent(objects)
        for name, paths in wanted.items():
            check(name in objects, f"{name} is not among {sorted(objects)}")
            for path, want in paths.items():
                equal(objects.at(name, path), want, f"{name} {path}")
        extra = {o for o in objects if o.split("/")[0] in ("ResourceQuota", "NetworkPolicy", "NetworkAttachmentDefinition")}
        equal(extra - set(wanted), set(), "objects that nobody asked for")

    row(f"values/{case}")(rendered)


# --- variables -------------------------------------------------------------------------------------------------------

ENV = {
    # name: (values, object, {variable: value; None: not set})
    "default-keeper": ((), KEEPER, {
        "AMBIENT_ENABLED": "true", "NODE_NAME": {"fieldRef": {"fieldPath": "spec.nodeName"}}, "AMBIENT_DNS_CAPTURE": "true",
        "EXCLUDE_NAMESPACES": "kube-system", "CULVERT_STEERING": "bpf", "CULVERT_LOG": "info", "LOG_FORMAT": "plain",
        "CULVERT_RUN_DIR": None, "CHAINED_CNI_PLUGIN": "true", "CNI_CONF_NAME": None, "ISTIO_OWNED_CNI_CONFIG": None,
        "POD_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}}, "SYSTEM_NAMESPACE": "istio-system"}),
    "default-tunnel": ((), TUNNEL, {
        "XDS_ADDRESS": "istiod.istio-system.svc:15012", "CA_ADDRESS": "istiod.istio-system.svc:15012",
        "ISTIO_META_CLUSTER_ID": "Kubernetes", "NETWORK": None, "INPOD_UDS": "/var/run/ztunnel/ztunnel.sock",
        "TERMINATION_GRACE_PERIOD_SECONDS": "43200", "CULVERT_DRAIN_LIMIT": "43200s",
        "INSTANCE_IP": {"fieldRef": {"fieldPath": "status.podIP"}}, "RUST_LOG": "info", "LOG_FORMAT": "plain"}),
    "revision": (["ztunnel.revision=canary", "global.istioNamespace=mesh"], TUNNEL, {
        "XDS_ADDRESS": "istiod-canary.mesh.svc:15012", "CA_ADDRESS": "istiod-canary.mesh.svc:15012"}),
    "own-addresses": (["ztunnel.caAddress=ca.example:1", "ztunnel.xdsAddress=xds.example:2"], TUNNEL, {
        "CA_ADDRESS": "ca.example:1", "XDS_ADDRESS": "xds.example:2"}),
    "multi-cluster": (["global.network=n1", "ztunnel.multiCluster.clusterName=c1"], TUNNEL, {
        "NETWORK": "n1", "ISTIO_META_CLUSTER_ID": "c1"}),
    "log": (["global.logging.level=warn", "cni.logging.level=debug", "global.logAsJson=true"], KEEPER, {
        "CULVERT_LOG": "debug", "LOG_FORMAT": "json"}),
    "log-of-tunnel": (["global.logging.level=warn", "ztunnel.logAsJson=true"], TUNNEL, {
        "RUST_LOG": "warn", "LOG_FORMAT": "json"}),
    "excluded-namespaces": (['cni.excludeNamespaces=["a","b"]', "cni.ambient.dnsCapture=false"], KEEPER, {
        "EXCLUDE_NAMESPACES": "a,b", "AMBIENT_DNS_CAPTURE": "false"}),
    "nothing-excluded": (["cni.excludeNamespaces=[]"], KEEPER, {"EXCLUDE_NAMESPACES": ""}),
    "not-chained": (["cni.chained=false", "cni.cniConfFileName=x.conf"], KEEPER, {
        "CHAINED_CNI_PLUGIN": "false", "CNI_CONF_NAME": "x.conf"}),
    "openshift-is-not-chained": (["global.platform=openshift"], KEEPER, {
        "CHAINED_CNI_PLUGIN": "false", "CNI_CONF_NAME": "istio-cni.conf"}),
    "openshift-chained-by-hand": (["global.platform=openshift", "cni.chained=true"], KEEPER, {"CHAINED_CNI_PLUGIN": "true"}),
    "own-configuration": (["cni.istioOwnedCNIConfig=true", "cni.istioOwnedCNIConfigFileName=01-x.conflist"], KEEPER, {
        "ISTIO_OWNED_CNI_CONFIG": "true", "ISTIO_OWNED_CNI_CONFIG_FILENAME": "01-x.conflist"}),
    "iptables": (["cni.steering=iptables"], KEEPER, {"CULVERT_STEERING": "iptables"}),
    "own-variables-win": (['cni.env={"CULVERT_LOG":"trace","CULVERT_DRAIN":"9s"}'], KEEPER, {
        "CULVERT_LOG": "trace", "CULVERT_DRAIN": "9s"}),
    "own-variables-of-tunnel": (['ztunnel.env={"CULVERT_KTLS":"on"}'], TUNNEL, {"CULVERT_KTLS": "on"}),
}
for case, (values, name, wanted) in ENV.items():
    def variables(helm, values=values, name=name, wanted=wanted):
        objects = helm(*sets(*values))
        is_consistent(objects)
        have = objects.env(name)
        for variable, want in wanted.items():
            equal(have.get(variable), want, variable)

    row(f"env/{case}")(variables)


@row("env/selectors-are-what-was-given")
def selectors(helm):
    have = yaml.safe_load(helm().env(KEEPER)["AMBIENT_ENABLEMENT_SELECTOR"])
    equal([sorted(s) for s in have], [["podSelector"], ["namespaceSelector", "podSelector"]], "default selectors")
    own = [{"namespaceSelector": {"matchLabels": {"mesh": "yes"}}}]
    have = helm("--set-json", f"cni.ambient.enablementSelectors={json.dumps(own)}").env(KEEPER)["AMBIENT_ENABLEMENT_SELECTOR"]
    equal(yaml.safe_load(have), own, "own selectors")


def program_text(program):
    path = f"{BUILD}/libexec/culvert/{program}"
    if not os.path.exists(path):
        raise Skip(f"{os.path.relpath(path)} is not built")
    with open(path, "rb") as f:
        return f.read()


def is_known(variable, text):
    """Is it among a program's texts? The keeper makes CULVERT_SOME_FLAG of some-flag when it runs."""
    flag = variable.removeprefix("CULVERT_").lower().replace("_", "-") if variable.startswith("CULVERT_") else variable
    return any(f"{name}\0".encode() in text for name in (variable, flag))


@row("env/programs-know-every-variable")
def known(helm):
    everything = sets("global.network=n", "global.platform=openshift", "cni.istioOwnedCNIConfig=true",
                      "cni.istioOwnedCNIConfigFileName=x.conflist", "cni.ambient.enableAmbientDetectionRetry=true")
    for values in ((), everything):
        objects = helm(*values)
        for name, program in ((KEEPER, "culvert-keeper"), (TUNNEL, "culvert-tunnel")):
            text = program_text(program)
            equal([v for v in objects.env(name) if not is_known(v, text)], [], f"variables that {program} does not know")


# --- refusals ----------------------------------------------------------------------------------------------------------

REFUSED = {
    # name: (values, what the line says)
    "unknown-name": (["cni.repair.enabled=true"], "repair"),
    "unknown-name-at-top": (["cniBinDir=/x"], "cniBinDir"),
    "misspelt": (["ztunnel.xdsAdress=x"], "xdsAdress"),
    "unknown-platform": (["global.platform=os2"], "platform"),
    "unknown-steering": (["cni.steering=ebpf"], "steering"),
    "relative-folder": (["cni.cniBinDir=opt/bin"], "cniBinDir"),
    "file-name-with-folder": (["cni.cniConfFileName=a/b.conflist"], "cniConfFileName"),
    "variable-that-is-no-text": (["ztunnel.env.X=true"], "X"),
    "no-selector": (["cni.ambient.enablementSelectors=[]"], "enablementSelectors"),
    "grace-too-short": (["ztunnel.terminationGracePeriodSeconds=1"], "terminationGracePeriodSeconds"),
    "nodes-in-two-ways": (['nodeLabels={"a":"b"}', 'cni.affinity={"nodeAffinity":{}}'],
                          "nodeLabels and an affinity of cni or ztunnel are both set; give one"),
}
for case, (values, word) in REFUSED.items():
    def refused(helm, values=values, word=word):
        try:
            helm(*sets(*values))
        except Refused as e:
            check(word in str(e), f"helm says {e}")
        else:
            check(False, "rendered")

    row(f"refused/{case}")(refused)


T.main()
