/* From bytes of an ONNX file to a graph. Weights stay where they are: constants are views into the bytes. */
#ifndef QD_ENGINE_ONNX_IMPORT_H
#define QD_ENGINE_ONNX_IMPORT_H

#include "engine/ir/graph.h"

/* F32 tensors from this size on stay views even where the file has them misaligned (protocol buffers align nothing):
 * who reads them uses memcpy, or copies them first (engine/plan does). Smaller ones are always aligned for their type.
 */
#define QD_ONNX_VIEW_BYTES ((size_t)64 << 10)

/* `bytes` stay valid and unchanged as long as the graph. Checks everything a later stage relies on: known dtypes, raw
 * data as long as the shape says, ids in range, no cycle, each value produced once, ranks <= QD_MAX_RANK;
 * sorts topologically. Which opsets an operator is known from is the registry's to say. Tensors whose data is
 * misaligned in the file or stored in typed fields (float_data, int64_data...) are copied into the arena; nothing else
 * is. Initializers become constants; Constant nodes too. Subgraphs (If, Loop, Scan) are imported with outer values
 * resolved by name. The model's own functions are put in the place of their calls. Errors: FORMAT, UNSUPPORTED
 * (strings, sparse, data in other files), NO_MEMORY; the sentence names the tensor or node. [any] */
enum qd_status qd_onnx_import(const void *bytes, size_t size, struct qd_graph **out,
                              struct qd_error *error) QD_MUST_CHECK;

/* Files beneath the folder of a model's file that hold its large tensors ("external data"). */
struct qd_externals;
/* Errors: IO, NO_MEMORY. */
enum qd_status qd_externals_open(const char *model_path, struct qd_externals **out,
                                 struct qd_error *error) QD_MUST_CHECK;
/* Unmaps; after the graph that views them. */
void qd_externals_close(struct qd_externals **externals);
/* As qd_file_release, for each. */
void qd_externals_release(const struct qd_externals *externals);
size_t qd_externals_bytes(const struct qd_externals *externals);

/* As qd_onnx_import, for a model whose tensors may lie in `externals` (which then live as long as the graph). */
enum qd_status qd_onnx_import_beneath(const void *bytes, size_t size, struct qd_externals *externals,
                                      struct qd_graph **out, struct qd_error *error) QD_MUST_CHECK;

/* One TensorProto (of a test data set): *out views `bytes` where it can, otherwise memory of the arena. */
enum qd_status qd_onnx_tensor(const void *bytes, size_t size, struct qd_arena *arena, struct qd_tensor *out,
                              const char **name, struct qd_error *error) QD_MUST_CHECK;

/* A whole file, mapped read-only. */
struct qd_file {
    const void *bytes;
    size_t size;
};
enum qd_status qd_file_map(const char *path, struct qd_file *out, struct qd_error *error) QD_MUST_CHECK;
void qd_file_unmap(struct qd_file *file);
/* Tells the system that the pages are not needed soon (they leave the resident set, a later read brings them back). */
void qd_file_release(const struct qd_file *file);

#endif
