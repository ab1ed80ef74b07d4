/* The epilogue of this instruction set's matrix products: engine/kernels/epilogue_table_simd.h compiled for it. */
#include "engine/kernels/epilogue_table_simd.h"
