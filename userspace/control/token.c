/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of bearer tokens. */
#include "control/token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char scheme[] = "Bearer ";

static ssize_t token_read(const char *source, char *buf, size_t cap)
{
	int fd = open(source, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG)) {
		n = (ssize_t)strlen(source);
		if ((size_t)n >= cap)
			return -E2BIG;
		memcpy(buf, source, (size_t)n);
		return n;
	}
	n = fd < 0 ? -1 : read(fd, buf, cap);
	if (n < 0)
		n = -errno;
	if (fd >= 0)
		close(fd);
	return n >= (ssize_t)cap ? -E2BIG : n;
}

int token_header(const char *source, char **out)
{
	size_t at = sizeof scheme - 1;
	char *text = malloc(at + TOKEN_MAX + 1);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	memcpy(text, scheme, at);
	n = token_read(source, text + at, TOKEN_MAX);
	while (n > 0 && strchr(" \t\r\n", text[at + (size_t)n - 1]))
		n--;
	for (ssize_t i = 0; i < n; i++)
		if (text[at + (size_t)i] <= ' ' || text[at + (size_t)i] >= 0x7f)
			n = -EINVAL;
	if (n <= 0) {
		free(text);
		return n ? (int)n : -ENODATA;
	}
	text[at + (size_t)n] = 0;
	*out = text;
	return 0;
}
