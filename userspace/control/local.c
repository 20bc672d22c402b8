// SPDX-License-Identifier: Apache-2.0
/* The local file as a whole: it is read to the end before the store sees any of it. */
#include "control/local.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/local_parts.h"

/* --- the top level -------------------------------------------------------------------------------------- */

static void section(struct doc *d, const char *name, struct local_state *s,
		    void (*one)(struct doc *d, struct local_state *s))
{
	for (doc_list(d, name); doc_item(d);)
		one(d, s);
}

static void workloads(struct doc *d, const struct doc_field *f, void *state)
{
	section(d, f->name, state, local_workload);
}

static void services(struct doc *d, const struct doc_field *f, void *state)
{
	section(d, f->name, state, local_service);
}

static void policies(struct doc *d, const struct doc_field *f, void *state)
{
	section(d, f->name, state, local_policy);
}

/* What /config_dump has beyond the mesh. */
static void not_the_mesh(struct doc *d, const struct doc_field *f, void *state)
{
	doc_skip(d);
}

static const struct doc_field top[] = {
	{"workloads", workloads},
	{"services", services},
	{"policies", policies},
	{"certificates", not_the_mesh},
	{"config", not_the_mesh},
	{"crl", not_the_mesh},
	{"ktls", not_the_mesh},
	{"stagedServices", not_the_mesh},
	{"staticConfig", not_the_mesh},
	{"version", not_the_mesh},
	{"workloadState", not_the_mesh},
	{"xds", not_the_mesh},
	{0},
};

/* --- into the store ------------------------------------------------------------------------------------- */

static void **objects(const struct local_list *l)
{
	return (void **)l->p;
}

/* The store takes each reference over, also when it fails; what it took is out of the list. */
static int insert(struct store *s, struct local_list *l, int (*one)(struct store *s, void *object))
{
	int e = 0;

	for (size_t i = 0; i < l->n && !e; i++) {
		e = one(s, objects(l)[i]);
		objects(l)[i] = NULL;
	}
	return e;
}

static int insert_policy(struct store *s, void *object)
{
	return store_insert_policy(s, object);
}

static int insert_service(struct store *s, void *object)
{
	return store_insert_service(s, object);
}

static int insert_workload(struct store *s, void *object)
{
	return store_insert_workload(s, object);
}

/* Policies first: when memory runs out, what was there before stays beside what came, and no policy is missing that
 * the mesh had. */
static int insert_all(struct store *s, struct local_state *all)
{
	int e;

	store_begin_full(s);
	e = insert(s, &all->policies, insert_policy);
	if (!e)
		e = insert(s, &all->services, insert_service);
	if (!e)
		e = insert(s, &all->workloads, insert_workload);
	if (e)
		store_keep_rest(s);
	store_commit(s);
	return e;
}

static void list_free(struct local_list *l)
{
	if (l->p != l->first)
		free(l->p);
}

static void state_free(struct local_state *s)
{
	for (size_t i = 0; i < s->workloads.n; i++)
		workload_unref(objects(&s->workloads)[i]);
	for (size_t i = 0; i < s->services.n; i++)
		if (objects(&s->services)[i])
			service_unref(objects(&s->services)[i]);
	for (size_t i = 0; i < s->policies.n; i++)
		policy_unref(objects(&s->policies)[i]);
	list_free(&s->workloads);
	list_free(&s->services);
	list_free(&s->policies);
	list_free(&s->endpoints);
	list_free(&s->mentions);
	free(s->uids.slot);
	free(s->addrs.slot);
	free(s->service_names.slot);
	free(s->policy_names.slot);
}

static int load(struct store *s, const char *name, FILE *file, const char *text, size_t len, char *why)
{
	struct local_state all = {.uids = {.n = 0}};
	struct doc d;
	int e;

	local_list_init(&all.workloads, sizeof(void *));
	local_list_init(&all.services, sizeof(void *));
	local_list_init(&all.policies, sizeof(void *));
	local_list_init(&all.endpoints, sizeof(struct local_endpoint));
	local_list_init(&all.mentions, sizeof(struct local_mention));
	if (!doc_open(&d, name, file, text, len, why)) {
		doc_object(&d, "file", top, &all);
		doc_finish(&d);
		local_join(&d, &all);
		local_check_policies(&d, &all);
	}
	e = d.error;
	doc_close(&d);
	if (!e) {
		e = insert_all(s, &all);
		if (e)
			snprintf(why, LOCAL_REASON_MAX, "%s: out of memory; it is in use in parts", name);
	}
	state_free(&all);
	return e;
}

/* --- sources -------------------------------------------------------------------------------------------- */

int local_load_text(struct store *s, const char *name, const char *text, size_t len, char why[LOCAL_REASON_MAX])
{
	return load(s, name, NULL, text, len, why);
}

static int regular_file(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return st.st_size > LOCAL_FILE_MAX ? -EFBIG : 0;
}

static int unreadable(const char *path, int e, char *why)
{
	snprintf(why, LOCAL_REASON_MAX, "%s: cannot be read: %s", path,
		 e == -EINVAL ? "not a regular file" : strerror(-e));
	return e;
}

int local_load_file(struct store *s, const char *path, char why[LOCAL_REASON_MAX])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), e;
	FILE *f;

	if (fd < 0)
		return unreadable(path, -errno, why);
	e = regular_file(fd);
	f = e ? NULL : fdopen(fd, "r");
	if (!f) {
		e = e ? e : -errno;
		close(fd);
		return unreadable(path, e, why);
	}
	setvbuf(f, NULL, _IONBF, 0); /* libyaml has a buffer of its own */
	e = load(s, path, f, NULL, 0, why);
	fclose(f);
	return e;
}
