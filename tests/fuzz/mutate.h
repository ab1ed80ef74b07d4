/* Structure-aware changes of ONNX files for the model targets (tests/fuzz/mutate.c says how), for libFuzzer's mutator
 * and for the replay's made-up variants. Both change `data` in place, which has room for `most` bytes, and return the
 * new size (the old one where nothing fits); equal seeds make equal changes. Not thread-safe. */
#ifndef QD_TESTS_FUZZ_MUTATE_H
#define QD_TESTS_FUZZ_MUTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One to three edits. */
size_t qd_mutate_model(uint8_t *data, size_t size, size_t most, unsigned seed);
/* A part of the other model in the place of one of the same kind. */
size_t qd_cross_models(uint8_t *data, size_t size, size_t most, const uint8_t *other, size_t other_size, unsigned seed);

#endif
