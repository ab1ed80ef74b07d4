/*
 * The file format of numpy.save: a magic number, a header written as a Python dict, the raw elements. Reads what numpy
 * writes for dense little-endian arrays in C order and refuses the rest with a reason; never follows a pickle.
 */
#include "clients/cli/quantctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* After 'KEY': in the header, or NULL. */
static const char *value_of(const char *header, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s':", key);
    const char *at = strstr(header, quoted);
    return at ? at + strlen(quoted) + strspn(at + strlen(quoted), " ") : NULL;
}

static const char *read_shape(const char *at, struct quantd_ctl_npy *npy)
{
    if (!at || *at != '(')
        return "its header has no shape";
    at++;
    for (npy->rank = 0;; npy->rank++) {
        at += strspn(at, " ");
        if (*at == ')')
            return NULL;
        if (npy->rank == QUANTD_CLIENT_MAX_RANK)
            return "it has more than 8 dimensions";
        if (*at < '0' || *at > '9')
            return "its shape can't be read";
        char *end;
        npy->shape[npy->rank] = strtoll(at, &end, 10);
        at = end + strspn(end, " L");
        if (*at == ',')
            at++;
        else if (*at != ')')
            return "its shape can't be read";
    }
}

static const char *read_header(const char *header, struct quantd_ctl_npy *npy)
{
    const char *descr = value_of(header, "descr"), *order = value_of(header, "fortran_order");
    if (!descr || *descr != '\'' || !order)
        return "it is no plain array";
    if (strncmp(order, "False", 5) != 0)
        return "it is in Fortran order; save numpy.ascontiguousarray(x)";
    if (descr[1] == '>' || !strchr("<|=", descr[1]))
        return "it is big-endian";
    npy->kind = descr[2];
    npy->item_bytes = (size_t)strtoul(descr + 3, NULL, 10);
    if (!npy->kind || !strchr("fiub", npy->kind) || !npy->item_bytes || npy->item_bytes > 8 ||
        (npy->item_bytes & (npy->item_bytes - 1)) || (npy->kind == 'f' && npy->item_bytes == 1) ||
        (npy->kind == 'b' && npy->item_bytes != 1))
        return "its elements are neither numbers nor truth values that can be sent";
    return read_shape(value_of(header, "shape"), npy);
}

const char *quantd_ctl_npy_read(const char *bytes, size_t length, struct quantd_ctl_npy *npy)
{
    const unsigned char *head = (const unsigned char *)bytes;
    if (length < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return "it is no .npy file";
    bool wide = head[6] >= 2;
    size_t begin = wide ? 12 : 10, size = head[8] | (size_t)head[9] << 8;
    if (wide)
        size |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    if (head[6] < 1 || head[6] > 3 || size > length - begin)
        return "its header is cut off";
    char *header = strndup(bytes + begin, size);
    const char *wrong = header ? read_header(header, npy) : "there is no memory for it";
    free(header);
    if (wrong)
        return wrong;
    size_t need = npy->item_bytes;
    for (int i = 0; i < npy->rank; i++)
        if (npy->shape[i] < 0 || __builtin_mul_overflow(need, (uint64_t)npy->shape[i], &need))
            return "its shape is too large";
    npy->data = bytes + begin + size;
    npy->data_bytes = length - begin - size;
    return npy->data_bytes == need ? NULL : "it has more or less data than its shape needs";
}

/* What numpy calls it; BF16 it can't say, the bits go out as <u2. */
static const char *descr_of(enum quantd_client_datatype type)
{
    static const char *const names[] = {
        [QUANTD_CLIENT_BOOL] = "|b1",   [QUANTD_CLIENT_UINT8] = "|u1",  [QUANTD_CLIENT_UINT16] = "<u2",
        [QUANTD_CLIENT_UINT32] = "<u4", [QUANTD_CLIENT_UINT64] = "<u8", [QUANTD_CLIENT_INT8] = "|i1",
        [QUANTD_CLIENT_INT16] = "<i2",  [QUANTD_CLIENT_INT32] = "<i4",  [QUANTD_CLIENT_INT64] = "<i8",
        [QUANTD_CLIENT_FP16] = "<f2",   [QUANTD_CLIENT_FP32] = "<f4",   [QUANTD_CLIENT_FP64] = "<f8",
        [QUANTD_CLIENT_BF16] = "<u2",   [QUANTD_CLIENT_BYTES] = NULL};
    return names[type];
}

int quantd_ctl_npy_write(const char *path, const struct quantd_client_tensor *tensor)
{
    char header[512];
    int used, left;
    if (!descr_of(tensor->datatype))
        return quantd_ctl_say(QUANTD_CTL_USAGE, "output '%s' holds BYTES, which .npy can't", tensor->name);
    used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                    descr_of(tensor->datatype));
    for (int i = 0; i < tensor->rank; i++)
        used += snprintf(header + used, sizeof header - (size_t)used, "%" PRId64 ", ", tensor->shape[i]);
    used += snprintf(header + used, sizeof header - (size_t)used, "), }");
    left = (64 - (10 + used + 1) % 64) % 64; /* the data begin at a multiple of 64 */
    used += snprintf(header + used, sizeof header - (size_t)used, "%*s\n", left, "");
    FILE *file = fopen(path, "wb");
    if (!file)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "can't write '%s': %m", path);
    unsigned char magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)used, (unsigned char)(used >> 8)};
    bool good = fwrite(magic, 1, 10, file) == 10 && fwrite(header, 1, (size_t)used, file) == (size_t)used &&
                fwrite(tensor->data, 1, tensor->bytes, file) == tensor->bytes;
    if (fclose(file) != 0 || !good)
        return quantd_ctl_say(QUANTD_CTL_USAGE, "can't write all of '%s'", path);
    return QUANTD_CTL_OK;
}
