/* The commands of the binary `quantd`: one function each, called by server/main.c's table with the arguments after the
 * command's name. They return the exit code: 0 done, 1 failed (said in one line), 2 called wrongly. [main thread] */
#ifndef QD_SERVER_CMD_H
#define QD_SERVER_CMD_H

#include "base/status.h"
#include "engine/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QD_EXIT_OK     0
#define QD_EXIT_FAILED 1
#define QD_EXIT_USAGE  2

int qd_cmd_serve(int argc, char **argv);
int qd_cmd_check(int argc, char **argv);
int qd_cmd_test(int argc, char **argv);
int qd_cmd_quantize(int argc, char **argv);
int qd_cmd_export(int argc, char **argv);
int qd_cmd_bench(int argc, char **argv);
int qd_cmd_selftest(int argc, char **argv);
int qd_cmd_healthcheck(int argc, char **argv);
int qd_cmd_version(int argc, char **argv);

/* Runs a folder's data sets through the calibration and puts the ranges in force. Errors: NOT_FOUND (no data set), the
 * engine's. */
enum qd_status qd_cmd_calibrate(struct qd_model *model, struct qd_calibration *calibration, const char *folder,
                                enum qd_method method, double percentile, struct qd_error *error) QD_MUST_CHECK;

/* A flag of a small command: `text` takes a value, `number` a finite number >= 0, `on` none; one of them is set. */
struct qd_flag {
    const char *name; /* without the dashes */
    const char **text;
    double *number;
    bool *on;
};

/* Reads flags from anywhere in argv (--x v, --x=v; after "--" none) and moves the other arguments to argv's front.
 * Returns how many those are, or -1 after saying on standard error what is wrong. -h and --help are the command
 * table's. */
int qd_cmd_flags(const char *command, const struct qd_flag *flags, size_t count, int argc, char **argv);
/* "quantd COMMAND: text" on standard error; returns `code`. */
int qd_cmd_say(const char *command, int code, const char *format, ...) QD_PRINTF(3, 4);

#endif
