/* Where the bytes of A are: struct qd_rows (kernels.h) read piece by piece, for the packing of every ISA. Private to
 * engine/kernels; knows nothing of panels. */
#ifndef QD_ENGINE_KERNELS_ROWS_H
#define QD_ENGINE_KERNELS_ROWS_H

#include "engine/kernels/kernels.h"

#include <string.h>

/* Piece `tap` of row `row`: tap_bytes bytes, without any alignment. */
static inline const uint8_t *rows_piece(const struct qd_rows *rows, size_t row, size_t tap)
{
    if (!rows->table)
        return (const uint8_t *)rows->base + row * rows->stride_bytes;
    return (const uint8_t *)rows->table[row * rows->taps + tap] + rows->offset_bytes;
}

/* memcpy without a call: pieces are short, a pixel's channels. From 4 bytes on by two that may overlap. */
static inline void rows_copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
    if (bytes > 128) {
        memcpy(to, from, bytes);
    } else if (bytes >= 16) {
        for (size_t i = 0; i + 16 < bytes; i += 16)
            memcpy(to + i, from + i, 16);
        memcpy(to + bytes - 16, from + bytes - 16, 16);
    } else if (bytes >= 8) {
        memcpy(to, from, 8);
        memcpy(to + bytes - 8, from + bytes - 8, 8);
    } else if (bytes >= 4) {
        memcpy(to, from, 4);
        memcpy(to + bytes - 4, from + bytes - 4, 4);
    } else {
        for (size_t i = 0; i < bytes; i++)
            to[i] = from[i];
    }
}

/* The row in one piece at `line` (taps * tap_bytes bytes). */
static inline void rows_gather(const struct qd_rows *rows, size_t row, uint8_t *line)
{
    for (size_t tap = 0; tap < rows->taps; tap++, line += rows->tap_bytes)
        rows_copy(line, rows_piece(rows, row, tap), rows->tap_bytes);
}

/* The row in one piece: in place when it is one, else gathered into `line`. */
static inline const uint8_t *rows_line(const struct qd_rows *rows, size_t row, uint8_t *line)
{
    if (rows->taps == 1)
        return rows_piece(rows, row, 0);
    rows_gather(rows, row, line);
    return line;
}

#endif
