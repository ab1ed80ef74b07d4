/* Log lines to standard error, one JSON object or one plain line each. Never on the hot path, never with request
 * bodies or secrets. Control characters are escaped, long fields cut. */
#ifndef QD_BASE_LOG_H
#define QD_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum qd_log_level { QD_LOG_ERROR, QD_LOG_WARNING, QD_LOG_INFO, QD_LOG_DEBUG, QD_LOG_LEVEL_COUNT };

/* Lines above `level` are dropped. [any], normally once at start */
void qd_log_setup(enum qd_log_level level, bool json);
/* One line; thread safe, one write(2) each. [any] */
void qd_log(enum qd_log_level level, const char *format, ...) QD_PRINTF(2, 3);
/* Lines written per level since start, for the metrics. [any] */
uint64_t qd_log_count(enum qd_log_level level);
const char *qd_log_level_name(enum qd_log_level level);

#endif
