/* SPDX-License-Identifier: Apache-2.0 */
/* The version that every program and every answer names. */
#pragma once

#define CULVERT_VERSION "0.1.0"
