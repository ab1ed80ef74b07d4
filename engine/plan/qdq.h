/* Quantized files: QuantizeLinear and DequantizeLinear around operators (static, or from training), and the standard's
 * QLinearConv and QLinearMatMul, become what a plan runs in integers (docs/QUANTIZATION.md, section "Models that come
 * quantized"). Not for products of integers (MatMulInteger) nor 16-bit files: those run as they are written. */
#ifndef QD_ENGINE_PLAN_QDQ_H
#define QD_ENGINE_PLAN_QDQ_H

#include "engine/ir/graph.h"

#include "base/status.h"

/* While constants are folded for the first time: 8-bit weights under DequantizeLinear are left to qd_qdq_rewrite. */
bool qd_qdq_keeps(const struct qd_graph *graph, const struct qd_node *node);

/* In a graph whose constants are folded (the caller's own arrays, as qd_fold_constants edits them):
 * - constants under DequantizeLinear get value->integers; a Transpose behind it goes before it, to the integers;
 * - QuantizeLinear and DequantizeLinear of one constant scale and zero point, or several of the latter, become one
 *   RoundTrip (engine/ops/round_trip.h); operators that only move elements between the two move floats;
 * - DequantizeLinear of integers that come from elsewhere is followed by a RoundTrip, which changes nothing but tells
 *   the scale;
 * - QuantizeLinear stays where somebody reads its integers.
 * *any: there was something, so constants are to be folded again. Errors: NO_MEMORY, UNSUPPORTED naming a node without
 * an operator. */
enum qd_status qd_qdq_rewrite(struct qd_graph *graph, struct qd_arena *arena, bool *any,
                              struct qd_error *error) QD_MUST_CHECK;

#endif
