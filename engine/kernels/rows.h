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

/* The row in one piece: in place when it is one, else gathered into `line` (taps * tap_bytes bytes). */
static inline const uint8_t *rows_line(const struct qd_rows *rows, size_t row, uint8_t *line)
{
    if (rows->taps == 1)
        return rows_piece(rows, row, 0);
    uint8_t *to = line;
    for (size_t tap = 0; tap < rows->taps; tap++) {
        const uint8_t *from = rows_piece(rows, row, tap);
        if (rows->tap_bytes >= 16)
            memcpy(to, from, rows->tap_bytes);
        else
            for (size_t i = 0; i < rows->tap_bytes; i++) /* pixels of few channels: a call would cost more */
                to[i] = from[i];
        to += rows->tap_bytes;
    }
    return line;
}

#endif
