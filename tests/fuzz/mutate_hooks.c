/* The two functions by which libFuzzer asks a target for its own mutations; linked into the model targets when there is
 * a fuzzer. */
#include "tests/fuzz/mutate.h"

#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                                 size_t most, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    if (seed % 8 == 0)
        return LLVMFuzzerMutate(data, size, most);
    return qd_mutate_model(data, size, most, seed);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                                 size_t most, unsigned seed)
{
    if (a_size > most)
        return 0;
    memcpy(out, a, a_size);
    return qd_cross_models(out, a_size, most, b, b_size, seed);
}
