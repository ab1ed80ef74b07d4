/* A plan: what runs, in which order, in which precision, on which bytes. Compiled once from a graph, immutable, shared
 * by all requests. Slots are the plan's variables: a value of the graph in one form (real or 8 bit, plain or channels
 * last). A shaped plan adds what one set of input shapes fixes: every slot's shape, place in memory, and what could be
 * computed beforehand. Not for running (engine/plan/exec.h). */
#ifndef QD_ENGINE_PLAN_PLAN_H
#define QD_ENGINE_PLAN_PLAN_H

#include "base/ref.h"
#include "engine/ir/graph.h"
#include "engine/ops/linear.h"
#include "engine/ops/op.h"
#include "engine/plan/workspace.h"
#include "engine/quant/epoch.h"

#include <pthread.h>

enum qd_form {
    QD_FORM_REAL,    /* the model's own dtype, plain layout */
    QD_FORM_REAL_CL, /* floats, channels last */
    QD_FORM_Q8,      /* u8 as carried (engine/quant/qparams.h), plain layout */
    QD_FORM_Q8_CL,   /* u8, channels last */
    QD_FORM_Q16,     /* s16, plain layout: made of floats by a quantize step, read by 16-bit layers */
    QD_FORM_Q16_CL,  /* s16, channels last */
    QD_FORM_Q8_ROWS, /* u8, plain layout, each row by its own range: made of floats for the linear layers that read it
                      */
    QD_FORM_ROW_SCALES, /* struct qd_row_scale of each of these rows, counted as int64 */
    QD_FORM_FAKE,       /* floats that a site's integers stand for, plain layout: read by layers in fake quantization */
    QD_FORM_FAKE_CL,    /* the same, channels last */
    QD_FORM_FAKE_ROWS,  /* floats that integers of each row's own range stand for, plain layout */
    QD_FORM_COUNT,
};

struct qd_slot {
    int value; /* of the graph */
    enum qd_form form;
    int site;                         /* whose scale and zero point the bytes have; -1 for real forms */
    const struct qd_tensor *constant; /* a constant's tensor, or NULL */
    int input;                        /* index of the model's input, or -1 */
};

struct qd_unit;

enum qd_step_kind {
    QD_STEP_OP,
    QD_STEP_LINEAR,
    QD_STEP_QUANTIZE,
    QD_STEP_QUANTIZE_ROWS, /* out: the integers, the rows' scales */
    QD_STEP_DEQUANTIZE,
    QD_STEP_FAKE_ROWS, /* to integers of each row's own range and back */
    QD_STEP_RELAYOUT,
    QD_STEP_CONTROL, /* If, Loop, Scan: engine/plan/control.h */
};

struct qd_step {
    enum qd_step_kind kind;
    const struct qd_node *node; /* of the model; for a conversion: the node that wanted it */
    const char *fused;          /* names of merged nodes, comma separated */
    const char *reason;         /* why this precision */
    bool int8, int16, pinned;
    bool given;   /* the file itself says that it runs in INT8 (engine/plan/qdq.h): not timed */
    bool follows; /* an operator without a precision of its own: integers only between those that have one */
    bool fake;    /* floats of which each stands for an integer */
    int in_count, out_count;
    const int *in, *out; /* slots; QD_NO_VALUE = absent; of a linear step: input, residual, rows' scales */
    int site;            /* the site this step writes, or -1 */
    const struct qd_op *op;
    const void *prep;
    const struct qd_linear *linear;
    const float *columns, *by;  /* of a step that quantizes rows, and of linear steps that read them or such channels: s
                                   and 1 / s of each column (docs/QUANTIZATION.md, section 4), or NULL */
    const float *out_by;        /* of a linear step: the same 1 / s of its output's channels, which it multiplies */
    const struct qd_unit *unit; /* of a linear step: what it was made from */
    /* of a linear step: measured while loading (engine/plan/choose.h); 0: not timed */
    float int8_us, int16_us, fp32_us;
    float words_us; /* of int16_us: making its input's words */
    const struct qd_control *control;
};

/* What happens when a request leaves the range in force by more than is tolerated. */
enum qd_guard_action {
    QD_GUARDED_CLIP,
    QD_GUARDED_WIDEN,
    QD_GUARDED_ESCALATE, /* as WIDEN, and the request is answered in FP32 by who runs it (engine/infer.c) */
    QD_GUARDED_REJECT,
};

struct qd_site {
    const char *name;             /* of the tensor; of one in a body: "<node>.<body>/<tensor>" */
    int value;                    /* the tensor it is named after; -1: in a body */
    int slot;                     /* written in that form first; -1: in a body */
    const char *const *consumers; /* nodes that read its integers */
    int consumer_count;
    int bits;                       /* of its integers, 2..8, where it isn't wide */
    bool wide;                      /* 16 bits (equation (4)), else 8 */
    bool symmetric;                 /* the scheme, where it isn't wide */
    enum qd_site_mode mode;         /* what its readers' rules say */
    int guard;                      /* the same: enum qd_guard_action, -1: nothing */
    bool smoothed;                  /* what is observed was divided by s */
    bool rows;                      /* each row has its own scale: what is observed is shown, not used */
    bool own;                       /* the file wants each request's own range, of u8 */
    const struct qd_qparams *fixed; /* the file's own scale and zero point, as carried; NULL: it learns */
};

/* What timing found for one node. */
struct qd_choice {
    bool fp32;
    float int8_us, int16_us, fp32_us;
    float words_us;                    /* of int16_us: making its input's words */
    const struct qd_choice *bodies[2]; /* of a control-flow node: by node of each compiled body, or NULL */
    int body_counts[2];
};

/* A layer whose precision is given, whatever is faster. */
struct qd_pin {
    const char *node;       /* its name, or a pattern as of fnmatch(3) */
    bool int8, int16, fake; /* none of them: FP32 */
    bool asked;             /* else a choice of ours */
    const char *reason;     /* one phrase, static */
};

/* Which matrix layers have their input quantized row by row. AUTO: those of tensors with three dimensions or more,
 * whose rows are tokens; where the rank isn't known those of MatMul, because exporters write matrices of two dimensions
 * as Gemm. */
enum qd_rows_rule { QD_ROWS_AUTO, QD_ROWS_NEVER, QD_ROWS_ALWAYS };

/* Columns of a tensor of rows, or channels of what depthwise convolutions read, that are divided by s before they are
 * quantized; its layers' weights are multiplied. */
struct qd_smoothed {
    const char *tensor;
    size_t columns;
    const float *s; /* [columns] positive */
};

struct qd_plan_options {
    bool fp32;      /* no quantization at all */
    bool symmetric; /* activations s8 instead of u8 */
    bool weights_per_tensor, weights_asymmetric;
    enum qd_rows_rule rows;
    bool int16;                                 /* linear layers in 16 bits where they can, everything else in FP32 */
    int weight_bits;                            /* of the weights of 16-bit layers, 8..16 */
    bool fake;                                  /* what INT8 would round is rounded, the arithmetic is FP32 */
    int fake_weight_bits, fake_activation_bits; /* 2..8 */
    const struct qd_choice
        *choices; /* by node of the compiled graph, read while compiling; NULL: INT8 where it can run */
    int choice_count;
    const struct qd_pin *pins; /* the last that fits a node counts; read while compiling */
    int pin_count;
    const struct qd_plan_rule
        *rules; /* engine/plan/rules.h: the last of a kind that fits a node counts; the plan keeps a copy */
    int rule_count;
    const struct qd_smoothed *smoothed; /* read while compiling */
    int smoothed_count;
    size_t request_bytes; /* most that tensors of one request, or what is known of them beforehand, may take */
};

struct qd_shaped {
    struct qd_ref ref;
    struct qd_shaped *next;  /* in the plan's cache, the last used first */
    struct qd_shape *inputs; /* the key: [graph->input_count] ... */
    enum qd_dtype *dtypes;   /* ... and what a body's inputs are, of which a file need not say it */
    struct qd_arena *arena;
    struct qd_tensor *slots; /* [slot_count] dtype, layout, shape; data: of constants and folded values, else NULL */
    size_t *offsets;         /* [slot_count] into a request's workspace; SIZE_MAX: not there */
    int *alias;              /* [slot_count] slot whose memory it shares, or -1 */
    bool *done;              /* [step_count] nothing to run: folded, or a view */
    size_t workspace_bytes, scratch_offset, scratch_bytes;
    int static_steps; /* from this step on shapes depend on data and are inferred while running */
};

struct qd_plan {
    struct qd_ref ref;
    struct qd_arena *arena;
    struct qd_graph graph; /* the model's, with constants folded; arrays in the plan's arena */
    const struct qd_kernels *kernels;
    struct qd_parallel *parallel;
    struct qd_plan_options options;
    int slot_count, step_count, site_count; /* sites of bodies of control flow stand behind the plan's own */
    struct qd_slot *slots;
    struct qd_step *steps;
    struct qd_site *sites;
    int *output_slots;           /* [graph.output_count] */
    int *last_use;               /* [slot_count] last step that reads it; step_count for outputs */
    struct qd_control *controls; /* a list; they own their bodies' plans */
    size_t packed_bytes;
    size_t all_steps; /* with those of bodies */
    uint32_t digest;
    pthread_mutex_t cache_lock;
    struct qd_shaped *cache; /* at most QD_SHAPES_KEPT */
    struct qd_workspaces workspaces;
};

/* Folds constants, fuses, chooses forms, packs. `graph` is borrowed and outlives the plan. Errors name the node. [any]
 */
enum qd_status qd_plan_compile(const struct qd_graph *graph, const struct qd_kernels *kernels,
                               struct qd_parallel *parallel, const struct qd_plan_options *options,
                               struct qd_plan **out, struct qd_error *error) QD_MUST_CHECK;
struct qd_plan *qd_plan_ref(struct qd_plan *plan);
void qd_plan_unref(struct qd_plan **plan);
/* While compiling: the pin of a node, or NULL. */
const struct qd_pin *qd_plan_pin(const struct qd_plan *plan, const struct qd_node *node);
/* While compiling: what timing said of a node of plan->graph, or NULL. */
const struct qd_choice *qd_plan_choice(const struct qd_plan *plan, const struct qd_node *node);

/* How many sets of input shapes a plan remembers; the least recently used goes first. */
#define QD_SHAPES_KEPT 32

/* The plan for these input shapes (by graph.inputs; the default's own shape where the request gives none), from the
 * cache or made now; a reference of the caller's. Errors: SHAPE naming a node, TOO_LARGE, NO_MEMORY. [any] */
enum qd_status qd_plan_shape(struct qd_plan *plan, const struct qd_shape *inputs, struct qd_shaped **out,
                             struct qd_error *error) QD_MUST_CHECK;
/* The same with the inputs' types, which a file need not declare in bodies of control flow. */
enum qd_status qd_plan_shape_typed(struct qd_plan *plan, const struct qd_shape *inputs, const enum qd_dtype *dtypes,
                                   struct qd_shaped **out, struct qd_error *error) QD_MUST_CHECK;
void qd_shaped_unref(struct qd_shaped **shaped);

/* Gives a tensor without elements an address that is neither read nor written: so data is NULL only while a value isn't
 * known, and operators may count from it. Others are left alone. */
void qd_plan_place_empty(struct qd_tensor *tensor);

/* Multiply-adds of a step under a shaped plan, 0 of what is no sum of products; bodies of control flow apart. */
uint64_t qd_step_macs(const struct qd_plan *plan, const struct qd_step *step, const struct qd_shaped *shaped);

/* Slot of a linear step's residual or of its input's rows' scales, or QD_NO_VALUE. */
static inline int qd_step_residual(const struct qd_step *step)
{
    return step->in_count > 1 ? step->in[1] : QD_NO_VALUE;
}
static inline int qd_step_rows(const struct qd_step *step) { return step->in_count > 2 ? step->in[2] : QD_NO_VALUE; }

/* Fills `call` for one generic step from tensors by slot; `in` and `out` have room for the step's counts. */
void qd_step_call(const struct qd_plan *plan, const struct qd_step *step, const struct qd_tensor *slots,
                  struct qd_tensor *in, struct qd_tensor *out, struct qd_call *call);
/* Shapes of a step's outputs from its inputs' (written to slots[]); QD_ERR_NEEDS_DATA as in engine/ops/op.h. */
enum qd_status qd_step_infer(const struct qd_plan *plan, const struct qd_step *step, struct qd_tensor *slots,
                             struct qd_error *error) QD_MUST_CHECK;
/* Scratch bytes of a step whose shapes are known. */
size_t qd_step_scratch(const struct qd_plan *plan, const struct qd_step *step, const struct qd_tensor *slots);

/* Most inputs or outputs a step may have; checked when the plan is compiled. */
#define QD_MAX_STEP_TENSORS 256

#endif
