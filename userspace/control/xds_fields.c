// SPDX-License-Identifier: Apache-2.0
/* Walks over the fields of a message. */
#include "control/xds_fields.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static bool varint(struct xds_fields *f, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; shift < 64 && f->at < f->end; shift += 7) {
		uint8_t b = *f->at++;

		*out |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return true;
	}
	return false;
}

static bool skip(struct xds_fields *f, uint64_t n)
{
	if (n > (uint64_t)(f->end - f->at))
		return false;
	f->at += n;
	return true;
}

static bool value(struct xds_fields *f, unsigned wire)
{
	uint64_t n;

	f->bytes = NULL;
	f->len = 0;
	switch (wire) {
	case VARINT:
		return varint(f, &n);
	case FIXED64:
		return skip(f, 8);
	case FIXED32:
		return skip(f, 4);
	case BYTES:
		if (!varint(f, &n) || n > (uint64_t)(f->end - f->at))
			return false;
		f->bytes = f->at;
		f->len = (size_t)n;
		return skip(f, n);
	default:
		return false;
	}
}

bool xds_field_next(struct xds_fields *f)
{
	uint64_t tag;

	if (f->bad || f->at == f->end)
		return false;
	f->bad = !varint(f, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX >> 3 || !value(f, tag & 7);
	f->number = (uint32_t)(tag >> 3);
	return !f->bad;
}
