/* SPDX-License-Identifier: Apache-2.0 */
/* Where the Kubernetes API server is, and how it is to be spoken to: as a pod finds it, or as a kubeconfig file
 * says. */
#pragma once
#include <limits.h>

#include "node/pods.h"

enum { KUBE_SERVER_MAX = 512, KUBE_TOKEN_MAX = 16384 };

struct kube_config {
	char server[KUBE_SERVER_MAX]; /* https://HOST:PORT, without a slash at the end; http:// for tests */
	char token_file[PATH_MAX];    /* read again for every request: tokens are rotated; "": none */
	char token[KUBE_TOKEN_MAX];   /* where the kubeconfig has it in itself; "" */
	char ca_file[PATH_MAX];	      /* "": the system's */
	int ca_fd;		      /* that `ca_file` names, when the kubeconfig has the certificate in itself; -1 */
	bool skip_verify;
};

struct kube_config_sources {
	const char *kubeconfig;		    /* a file; NULL: as in a pod */
	const char *host, *port, *protocol; /* KUBERNETES_SERVICE_HOST, _PORT, _PROTOCOL ("https" when NULL) */
	const char *secrets;		    /* the folder with token and ca.crt */
	const char *ca_file;		    /* KUBE_CA_FILE, NULL: in `secrets` */
	bool skip_verify;		    /* SKIP_TLS_VERIFY */
};
#define KUBE_SECRETS "/var/run/secrets/kubernetes.io/serviceaccount"

/* -errno and a line in `why`. kube_config_close() is owed after success. */
int kube_config_read(struct kube_config *out, const struct kube_config_sources *from, char why[POD_WHY_MAX]);
void kube_config_close(struct kube_config *c);

/* The token as it is now, in `out`, which is the caller's to wipe. 0, also with "" for none; -errno and a line in
 * `why`. */
int kube_token_read(const struct kube_config *c, char out[KUBE_TOKEN_MAX], char why[POD_WHY_MAX]);
