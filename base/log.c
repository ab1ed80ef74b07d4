/* Log lines: format, escape, one write(2). */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[QD_LOG_LEVEL_COUNT] = {"error", "warning", "info", "debug"};
static atomic_int max_level = QD_LOG_INFO;
static atomic_bool as_json;
static atomic_uint_fast64_t counts[QD_LOG_LEVEL_COUNT];

void qd_log_setup(enum qd_log_level level, bool json)
{
    atomic_store(&max_level, (int)level);
    atomic_store(&as_json, json);
}

uint64_t qd_log_count(enum qd_log_level level) { return atomic_load(&counts[level]); }
const char *qd_log_level_name(enum qd_log_level level) { return level_names[level]; }

/* Copies text with JSON string escapes; stops before `room` is used up. Returns bytes written. */
static size_t escape(char *out, size_t room, const char *text)
{
    size_t used = 0;
    for (; *text && used + 7 < room; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            out[used++] = '\\';
            out[used++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) {
            used += (size_t)snprintf(out + used, room - used, "\\u%04x", c);
        } else {
            out[used++] = (char)c;
        }
    }
    out[used] = 0;
    return used;
}

void qd_log(enum qd_log_level level, const char *format, ...)
{
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
        return;
    atomic_fetch_add_explicit(&counts[level], 1, memory_order_relaxed);

    char text[1024], safe[1536], when[32], line[1700];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    escape(safe, sizeof safe, text);

    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    const char *shape = atomic_load(&as_json) ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"message\":\"%s\"}\n"
                                              : "%s.%03ldZ %s %s\n";
    int n = snprintf(line, sizeof line, shape, when, now.tv_nsec / 1000000, level_names[level], safe);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to say it */
}
