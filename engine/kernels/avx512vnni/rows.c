/* Normalizations and reductions of rows for this instruction set. */
#include "engine/kernels/rows_entries_simd.h"
