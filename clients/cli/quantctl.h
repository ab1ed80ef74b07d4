/*
 * What the files of quantctl share: its arguments, saying why it stops, reading inputs, printing. Not a library.
 */
#ifndef QUANTD_CLIENTS_CLI_QUANTCTL_H
#define QUANTD_CLIENTS_CLI_QUANTCTL_H

#include "clients/c/quantd_client.h"

#include <stdio.h>

enum { QUANTD_CTL_OK, QUANTD_CTL_REFUSED, QUANTD_CTL_USAGE, QUANTD_CTL_UNREACHED }; /* exit statuses */
enum { QUANTD_CTL_MAX_TENSORS = 32, QUANTD_CTL_MAX_NAMES = 64 };

/* NAME=VALUE as given; name NULL where only a value was given */
struct quantd_ctl_pair {
    char *name, *value;
};

struct quantd_ctl_arguments {
    const char *url, *command, *model;
    struct quantd_ctl_pair inputs[QUANTD_CTL_MAX_TENSORS], outputs[QUANTD_CTL_MAX_TENSORS],
        shapes[QUANTD_CTL_MAX_TENSORS];
    size_t input_count, output_count, shape_count;
    const char *names[QUANTD_CTL_MAX_NAMES]; /* what follows the model */
    size_t name_count;
    const char *precision, *format, *file;
    uint64_t epoch;
    bool json, csv, watch, unobserved, remove, not_self;
    double watch_seconds;
    uint64_t frames; /* --count: stop after so many; 0: never */
    double timeout_seconds;
};

/* A sentence on standard error, cleaned for a terminal; returns status. */
__attribute__((format(printf, 2, 3))) int quantd_ctl_say(int status, const char *format, ...);
/* The same for an error of the client. */
int quantd_ctl_failed(const struct quantd_client_error *error);
/* Writes a text of somebody else's: no control character reaches the terminal. */
void quantd_ctl_print(FILE *out, const char *text);
/* Cuts or fills it to `width` columns. */
void quantd_ctl_print_column(FILE *out, const char *text, int width);
/* Columns that a text takes: its characters, each taken as one wide. */
int quantd_ctl_columns(const char *text);

/* The daemon's own text of /v2/models/MODEL<rest>: into *text, which is to be freed after QUANTD_CTL_OK; printed. */
int quantd_ctl_get_path(struct quantd_client *client, const char *model, const char *rest, char **text, size_t *length);
int quantd_ctl_print_path(struct quantd_client *client, const char *model, const char *rest);

/* /v2/models/MODEL<rest><name>, the names in %XX (name may be NULL); false when it is too long. */
enum { QUANTD_CTL_PATH_BYTES = 4096 };
bool quantd_ctl_path(char path[QUANTD_CTL_PATH_BYTES], const char *model, const char *rest, const char *name);

/* snapshots.c */
int quantd_ctl_snapshots(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_snapshot(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_rollback(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_diff(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_drift(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_state(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_merge(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);

/* ranges.c */
int quantd_ctl_ranges(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
/* given.c */
int quantd_ctl_export(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
int quantd_ctl_set_ranges(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);
/* infer.c */
int quantd_ctl_infer(struct quantd_client *client, const struct quantd_ctl_arguments *arguments);

/* tensors.c: one input from a file or from JSON, in the datatype the model takes. free() tensor->data. */
int quantd_ctl_read_tensor(const char *source, const char *shape, const struct quantd_client_signature *signature,
                           struct quantd_client_tensor *tensor);

/* npy.c: the format of numpy.save, versions 1 to 3, C order, little-endian */
struct quantd_ctl_npy {
    char kind; /* f i u b */
    size_t item_bytes;
    int rank;
    int64_t shape[QUANTD_CLIENT_MAX_RANK];
    const char *data; /* inside the file's bytes */
    size_t data_bytes;
};
/* NULL, or what is wrong with it. */
const char *quantd_ctl_npy_read(const char *bytes, size_t length, struct quantd_ctl_npy *npy);
int quantd_ctl_npy_write(const char *path, const struct quantd_client_tensor *tensor);

/* numbers.c: one element of a tensor as a number, and back */
struct quantd_ctl_number {
    enum { QUANTD_CTL_REAL, QUANTD_CTL_SIGNED, QUANTD_CTL_UNSIGNED } kind;
    double real;
    int64_t whole;
    uint64_t natural;
};
/* false where the datatype can't hold it. FP16, BF16 and BYTES hold none. */
bool quantd_ctl_number_store(enum quantd_client_datatype type, struct quantd_ctl_number number, void *place);
/* FP16 and BF16 are widened; false for BYTES. */
bool quantd_ctl_number_load(enum quantd_client_datatype type, const void *place, struct quantd_ctl_number *number);

#endif
