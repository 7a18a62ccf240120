// SPDX-License-Identifier: GPL-2.0-only
/*
 * Definitions of the tracepoints in trace.h.
 */

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "trace.h"
