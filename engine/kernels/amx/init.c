/* What this instruction set does better than the levels below it. Not for detection: dispatch.c asks CPU and system. */
#include "engine/kernels/dispatch.h"

void qd_kernels_init__amx(struct qd_kernels *kernels)
{
    kernels->isa_name = "amx";
    kernels->isa = QD_ISA_AMX;
    kernels->gemm_q8 = qd_gemm_q8__amx;
    kernels->gemm_q16 = qd_gemm_q16__amx;
}
