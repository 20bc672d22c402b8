/* SPDX-License-Identifier: Apache-2.0 */
/* What the tunnel's dump says is wrong: certificates and the clock that they show, istiod, the mesh, kTLS. */
#include <stdio.h>
#include <string.h>

#include "culvertctl.h"
#include "doctor.h"

enum { SKEW_S = 5, /* not worth a word */ XDS_SETTLE_S = 10 };

/* The dump's times, in UTC; -1: none. */
static time_t time_of(json_t *o, const char *key)
{
	struct tm t = {.tm_isdst = 0};
	const char *end = strptime(text_of(o, key), "%Y-%m-%dT%H:%M:%SZ", &t);

	return end && !*end ? timegm(&t) : -1;
}

/* --- certificates --------------------------------------------------------------------------------------- */

static const char ask_ca[] =
	"look at the CA (CA_ADDRESS) and its log: is it reachable, does it know the tunnel's token and, in another "
	"namespace than istiod's, its account (CA_TRUSTED_NODE_ACCOUNTS)? The tunnel tries again by itself";

/* A renewal begins at half of the life; what is late by a tenth more has failed, or was never tried. */
static void check_life(struct doctor *d, const char *identity, time_t from, time_t to)
{
	char buf[32];

	if (d->now >= to)
		finding(d, FINDING_PROBLEM, ask_ca, "%s: the certificate ended %s ago, and peers refuse the pod",
			identity, duration(d->now - to, buf));
	else if (d->now > from + (to - from) * 6 / 10)
		finding(d, FINDING_WARNING, ask_ca,
			"%s: the certificate is past its half-life and was not renewed; it ends in %s", identity,
			duration(to - d->now, buf));
}

/* Whoever signed it has a clock that is ahead of ours, by this at least. */
static void check_skew(struct doctor *d, const char *identity, time_t from)
{
	char buf[32];

	if (from > d->now + SKEW_S)
		finding(d, FINDING_PROBLEM, "set the clocks of this node and of the CA (chrony, systemd-timesyncd)",
			"%s: the certificate begins in %s: our clock is behind the CA's", identity,
			duration(from - d->now, buf));
}

void check_certificates(struct doctor *d)
{
	json_t *c, *crl = json_object_get(d->dump, "crl");
	size_t i;

	json_array_foreach(json_object_get(d->dump, "certificates"), i, c)
	{
		json_t *leaf = json_array_get(json_object_get(c, "certChain"), 0);
		time_t from = time_of(leaf, "validFrom"), to = time_of(leaf, "expirationTime");
		const char *identity = text_of(c, "identity");

		if (!strncmp(text_of(c, "state"), "Unavailable", 11))
			finding(d, FINDING_PROBLEM, ask_ca, "%s: no certificate (%s): connections of its pods fail",
				identity, text_of(c, "state"));
		if (from < 0 || to < 0)
			continue;
		check_life(d, identity, from, to);
		check_skew(d, identity, from);
	}
	if (*text_of(crl, "trouble"))
		finding(d, FINDING_WARNING, "mend the file that CRL_PATH names; what was read before stays in force",
			"revocation lists: %s", text_of(crl, "trouble"));
}

/* --- istiod --------------------------------------------------------------------------------------------- */

static const char correct_object[] =
	"correct what the line names; until then its last good version is in force, if there was one";
static const char correct_policy[] =
	"correct what the line names; until then a policy in it denies everything, or allows nothing";

void check_istiod(struct doctor *d)
{
	json_t *x = json_object_get(d->dump, "xds");
	const char *address = text_of(x, "address"), *said = text_of(x, "lastError");
	long long since = d->now - time_of(x, "since");
	char buf[32];

	if (!json_is_object(x))
		return;
	if (!flag_of(x, "connected"))
		finding(d, since < XDS_SETTLE_S ? FINDING_WARNING : FINDING_PROBLEM,
			"is istiod there, and reachable from the tunnel (XDS_ADDRESS)? What it told before stays in "
			"force, "
			"new pods and policies do not arrive",
			"istiod (%s) has been away for %s%s%s", address, duration(since > 0 ? since : 0, buf),
			*said ? ": " : "", said);
	else if (!flag_of(x, "complete"))
		finding(d, FINDING_WARNING, "wait a moment, then ask again; istiod's log says what it waits for",
			"istiod (%s) has not told all of the mesh yet: pods have to wait", address);
	if (*text_of(x, "refused"))
		finding(d, FINDING_WARNING, number_of(x, "closed") ? correct_policy : correct_object,
			"istiod sent what could not be taken: %s", text_of(x, "refused"));
}

/* --- the mesh ------------------------------------------------------------------------------------------- */

static bool on_demand(json_t *dump)
{
	return flag_of(json_object_get(dump, "config"), "xdsOnDemand");
}

static void check_known(struct doctor *d)
{
	json_t *pod, *states = json_object_get(d->dump, "workloadState");
	size_t i;

	json_array_foreach(json_object_get(d->pods, "pods"), i, pod)
	{
		json_t *state = json_object_get(states, text_of(pod, "uid"));

		if (strcmp(text_of(pod, "state"), "enrolled") != 0 || !json_is_false(json_object_get(state, "inMesh")))
			continue;
		finding(d, FINDING_PROBLEM,
			"is it in LOCAL_XDS_PATH's file, or does istiod see it (istioctl ztunnel-config workloads)? "
			"Its "
			"namespace, name and service account must be those that it was enrolled with",
			"%s/%s is steered, but the mesh does not know it: its connections wait, then fail",
			text_of(pod, "namespace"), text_of(pod, "name"));
	}
}

static void check_pending(struct doctor *d)
{
	const char *uid;
	json_t *w;

	json_object_foreach(json_object_get(d->dump, "workloadState"), uid,
			    w) if (strcmp(text_of(w, "state"), "Up") != 0)
	{
		json_t *info = json_object_get(w, "info");

		finding(d, FINDING_WARNING, "the tunnel's log says what it waits for",
			"%s/%s is not served by the tunnel yet (%s)", text_of(info, "namespace"), text_of(info, "name"),
			text_of(w, "state"));
	}
}

/* The default is that the tunnel does it itself: then nothing is missing. */
static void check_ktls(struct doctor *d)
{
	json_t *k = json_object_get(d->dump, "ktls"), *f;
	const char *mode = text_of(k, "mode");
	size_t i;

	if (strcmp(mode, "on") != 0 && strcmp(mode, "tx") != 0)
		return;
	json_array_foreach(json_object_get(k, "features"), i, f)
	{
		if (flag_of(f, "available") || (!strcmp(mode, "tx") && strcmp(text_of(f, "name"), "tx") != 0))
			continue;
		finding(d, FINDING_NOTE,
			"modprobe tls, or a kernel that does it right; the tunnel does it itself meanwhile",
			"kTLS is %s, but %s is not used: %s", mode, text_of(f, "name"), text_of(f, "reason"));
	}
}

void check_mesh(struct doctor *d)
{
	if (!on_demand(d->dump))
		check_known(d);
	check_pending(d);
	check_ktls(d);
}
