/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates of pods that have had no connection yet. On the control thread. Private to data/. */
#pragma once
#include "data/plane.h"
#include "data/pod.h"

/* Once for each pod, as soon as the mesh knows that it needs one. */
void prefetch_pod(struct data_plane *d, struct pod *p);
void prefetch_pods(struct data_plane *d);
