/* SPDX-License-Identifier: Apache-2.0 */
/* What the CNI plugin and the keeper say to each other: HTTP with JSON over a unix socket that root alone may open. One
 * request a connection. Fields may be added, and readers ignore those that they do not know.
 *
 * CNI_ADD is the request of istio-cni's plugin, so either side can be Istio's:
 *   {"Netns": path on the node, "PodName", "PodNamespace": texts, "IPs": null or [{"Interface": number or null,
 *    "Address": {"IP": text, "Mask": base64 of its bytes}, "Gateway": text, or "" for none}]}
 * 200 without a body: the pod is steered, and the tunnel knows it. Our plugin adds the fields of an attachment, see below,
 * and "Decide": true, by which it says that it has not looked at the pod itself: then 200 is also the answer for a pod
 * outside the mesh, which is left alone.
 *
 * All other requests carry the fields of an attachment, which are those above without "IPs" and
 *   {"ContainerID", "IfName", "Network": as CNI names them, "PodUID": Kubernetes', or "" where the runtime gives none}
 *
 * A request that fails is answered with one line of text for people:
 *   400  the request is wrong
 *   403  the pod is outside the mesh, and whoever asked thought otherwise
 *   409  it cannot be done, and trying again will not help
 *   503  it cannot be done now: try again
 * 500 is never the keeper's answer: Istio's agent gives it whenever a request fails, also for pods outside the mesh. */
#pragma once

#define CNI_SOCKET	  "cni.sock"	     /* in our run directory */
#define CNI_SOCKET_ISTIO  "pluginevent.sock" /* in Istio's */
#define CNI_RUN_DIR_ISTIO "/var/run/istio-cni"

/* Versions of the CNI specification that the plugin speaks, oldest first. */
#define CNI_VERSIONS "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"

#define CNI_ADD	     "/cmdadd"
/* The attachment is gone: the pod is un-enrolled. 200, also when it was not enrolled. */
#define CNI_DEL "/v1/cmddel"
/* 200: the pod's steering is whole, or the pod is rightly outside the mesh. 409 says what is missing. */
#define CNI_CHECK "/v1/cmdcheck"
/* {"Network": text, "Attachments": [{"ContainerID", "IfName"}]}: pods that were added for this network and are not in the
 * list are un-enrolled. 200. */
#define CNI_GC "/v1/gc"
/* {}: 200 if a pod could be added now. 503 if not; 409 if besides the pods of the mesh are cut off. */
#define CNI_STATUS "/v1/status"

enum {
	CNI_PLUGIN_MS = 5000,	       /* Istio's plugin waits so long for an answer, and so does ours */
	CNI_REQUEST_MAX = 1024 * 1024, /* of a body */
	CNI_ID_MAX = 128,	       /* container id, network, interface; with the terminator */
};
