/* SPDX-License-Identifier: Apache-2.0 */
/* What culvertctl and the keeper say to each other: HTTP/1.1 with JSON over RUN_DIR/ctl.sock (mode 0600). Fields may be
 * added, and readers ignore those that they do not know; none is renamed or changes its meaning within /v1. An error is
 * {"error": one line}, with a status of 400 or more. */
#pragma once

#define CTL_RUN_DIR	  "/run/culvert" /* without CULVERT_RUN_DIR */
#define CTL_SOCKET	  "ctl.sock"
#define CTL_TUNNEL_SOCKET "tunnel.sock" /* the tunnel's own: the paths of its port 15000 */
/* The same of a tunnel that drains; the number is that of its process, or the next that was free. */
#define CTL_DRAINING_SOCKET "draining-%d.sock"
#define CTL_CONTENT_TYPE    "application/json"

/* POST {"netns": absolute path, "identity": "NAMESPACE/NAME/SERVICEACCOUNT"} */
#define CTL_ENROL "/v1/enrol"
/* POST {"pod": uid, absolute path of the namespace, or NAMESPACE/NAME where only one pod has it} */
#define CTL_UNENROL "/v1/unenrol"
/* POST: starts a tunnel anew beside the one that serves; done when that one was told to drain. 409: another program runs
 * the tunnel. */
#define CTL_UPGRADE "/v1/upgrade"
/* All answer 202 with an operation, and so does GET ?id=NUMBER, with 200:
 *   {"operation": number, "state": "running" | "done" | "failed", "error": text, if failed}
 * One that has ended is remembered for a minute at least, unless CTL_OPERATIONS_MAX later ones were started. */
#define CTL_OPERATIONS "/v1/operations"
enum { CTL_OPERATIONS_MAX = 256 };

/* GET {"version", "pid", "uptimeSeconds", "runDir", "bpfDir", "steering": "bpf" | "iptables",
 *      "pods": {"enrolled", "joining", "recovering", "leaving"; "broken": enrolled, but their steering is not whole;
 *               "mended": times that steering which somebody removed was put back}: numbers,
 *      "markOnly": the agent's mark alone counts, "tcx", "kubeletExempt": bools, "kubelet": how it was found,
 *      "tunnel": {"connected": a tunnel is there and has all pods, "connections": number, "pid", "ours": it takes sockets,
 *                 "generations": [{"pid", "state": "starting" | "serving" | "draining", "connected": bool; if
 *                                  supervised "ageSeconds", "adopted", "program": path, "current": it runs the file that
 *                                  is there now}], oldest first,
 *                 "supervised": bool; if so "runningPid" (0: none), "adopted": bool, "restarts": number,
 *                 "upgrades": {"running": bool, "done", "failed": numbers, "trouble": why the last one failed, or ""}},
 *      "kubernetes": null or {"ready", "connected": bools, "pods", "inMesh", "notEnrolledYet", "namespaces", "lists",
 *                 "failures", "unreadableObjects": numbers, "trouble": text},
 *      "installation": null or {"ready": bool, "path", "trouble": texts, "results": {RESULT: number}}} */
#define CTL_STATUS "/v1/status"
/* GET {"pods": [{"uid", "namespace", "name", "serviceAccount", "netns": path, "netnsCookie": number, "state":
 *      "enrolled" | "joining" | "recovering" | "leaving", "trouble": text, if any, "mended": {"times": number,
 *      "last": what was missing}, if ever, "steering": "bpf" | "iptables",
 *      "foreignTunnel": bool, "sockets": ["TCP15001", ...], "devices": [{"name", "ifindex", "late", "ethernet",
 *      "attached"}], "addresses": [text], "existingConnections": direct ones, from before the enrolment}]} */
#define CTL_PODS "/v1/pods"
/* GET {"pods": [{"uid", "namespace", "name", "counters": [{"name", "kind": "drop" | "decision", "value", "help"}]}]} */
#define CTL_DROPS "/v1/drops"
/* GET {"filter": text}; POST ?level=LEVEL or ?level=TARGET=LEVEL[,...] changes it and answers the same;
 * ?level=reset: as at the start. */
#define CTL_LOG "/v1/log"
/* GET Prometheus text: decisions and drops by pod. */
#define CTL_METRICS "/metrics"
