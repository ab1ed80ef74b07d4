/* The kinds of product that a lane of a matrix product adds up. Private to engine/kernels. */
#ifndef QD_ENGINE_KERNELS_DOT_H
#define QD_ENGINE_KERNELS_DOT_H

/* From four bytes of each side. */
enum dot {
    DOT_U8S8, /* four; not on AVX2 */
    DOT_S16,  /* two */
    DOT_F32   /* one, fused */
};

#endif
