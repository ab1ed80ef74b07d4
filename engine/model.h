/* What a loaded model and a request are made of. Private to the engine folder: users see engine/engine.h. */
#ifndef QD_ENGINE_MODEL_H
#define QD_ENGINE_MODEL_H

#include "base/mem.h"
#include "base/ref.h"
#include "engine/engine.h"
#include "engine/onnx/import.h"
#include "engine/plan/exec.h"
#include "engine/plan/team.h"
#include "engine/quant/epoch.h"

struct qd_engine {
    const struct qd_kernels *kernels;
    struct qd_team *team;
    size_t request_bytes;
};

struct qd_model {
    struct qd_ref ref;
    struct qd_engine *engine; /* borrowed */
    struct qd_quant_options options;
    char *name;
    struct qd_file file;            /* mapped, or bytes == NULL when the bytes are the caller's */
    struct qd_externals *externals; /* of a model from a file */
    size_t file_bytes;
    struct qd_graph *graph;
    struct qd_io *inputs, *outputs; /* in the graph's arena */
    struct qd_plan *plan;
    struct qd_plan *plan_fp32; /* compiled when first asked for, under the lock */
    pthread_mutex_t fp32_lock;
    struct qd_learner *learner; /* [loop] */
    float *utilization;         /* [site_count] of the last request; [loop] */
    uint64_t *step_macs;        /* [qd_plan_all_steps] at the signature's shape */
};

struct qd_infer {
    struct qd_model *model; /* a reference */
    struct qd_infer_options options;
    struct qd_epoch *epoch; /* a reference */
    struct qd_plan *plan;   /* a reference */
    struct qd_shaped *shaped;
    struct qd_arena *arena;
    struct qd_tensor *inputs; /* [input_count] dtype QD_NONE: not given */
    struct qd_lane lane;
    uint64_t deadline_ns;
    bool prepared, ran, finished;
};

/* The plan in full precision, made at the first call. [any] */
enum qd_status qd_model_plan_fp32(struct qd_model *model, struct qd_plan **out, struct qd_error *error) QD_MUST_CHECK;
/* Options of a plan that follow from the model's and the engine's. */
struct qd_plan_options qd_model_plan_options(const struct qd_model *model);

#endif
