// SPDX-License-Identifier: Apache-2.0
/* The one place that compresses. */
#include "admin/gzip.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16, GZIP_MEMORY = 8 };

int gzip(const void *in, size_t len, char **out, size_t *out_len)
{
	z_stream z = {0};
	unsigned char *to;
	size_t room;
	int e = -ENOMEM;

	if (deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	room = deflateBound(&z, len);
	to = malloc(room);
	z.next_in = (unsigned char *)in;
	z.avail_in = (unsigned)len;
	z.next_out = to;
	z.avail_out = (unsigned)room;
	if (to && deflate(&z, Z_FINISH) == Z_STREAM_END) {
		*out = (char *)to;
		*out_len = z.total_out;
		to = NULL;
		e = 0;
	}
	free(to);
	deflateEnd(&z);
	return e;
}
