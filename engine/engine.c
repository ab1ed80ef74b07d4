/* The engine: kernels and team, loading and freeing models, signatures. Requests are in engine/infer.c, reports in
 * engine/report.c. */
#include "engine/mixed_impl.h"
#include "engine/plan/choose.h"

#include <string.h>

enum qd_status qd_engine_create(const struct qd_engine_options *options, struct qd_engine **out, struct qd_error *error)
{
    struct qd_engine *engine = qd_calloc(1, sizeof *engine);
    if (!engine)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the engine");
    engine->request_bytes = options->request_bytes ? (size_t)options->request_bytes : (size_t)2 << 30;
    enum qd_status status = qd_kernels_get(&engine->kernels, error);
    if (!status)
        status = qd_team_create(options->threads, &engine->team, error);
    if (status) {
        qd_engine_destroy(&engine);
        return status;
    }
    *out = engine;
    return QD_OK;
}

void qd_engine_destroy(struct qd_engine **engine)
{
    if (!*engine)
        return;
    qd_team_destroy(&(*engine)->team);
    qd_free(*engine);
    *engine = NULL;
}

const char *qd_engine_isa(const struct qd_engine *engine) { return engine->kernels->isa_name; }
uint32_t qd_engine_threads(const struct qd_engine *engine) { return qd_team_parallel(engine->team)->threads; }

bool qd_engine_selftest(const struct qd_engine *engine, uint64_t seed, struct qd_error *error)
{
    return qd_kernels_selftest(engine->kernels, seed, error) == QD_OK;
}

static struct qd_io describe(const struct qd_value *value)
{
    struct qd_io io = {
        .name = value->name, .dtype = value->info.dtype, .shape = value->info.shape, .optional = value->constant};
    memcpy(io.dim_names, value->dim_names, sizeof io.dim_names);
    for (int i = 0; i < QD_MAX_RANK; i++)
        if (io.dim_names[i] && strcmp(io.dim_names[i], "?") == 0)
            io.dim_names[i] = NULL; /* an exporter's word for "unknown", not a name that dimensions share */
    if (io.shape.rank < 0)
        io.shape.rank = 0;
    return io;
}

static enum qd_status describe_signature(struct qd_model *model, struct qd_error *error)
{
    const struct qd_graph *graph = model->graph;
    model->inputs = qd_arena_alloc(graph->arena, (size_t)graph->input_count, sizeof *model->inputs);
    model->outputs = qd_arena_alloc(graph->arena, (size_t)graph->output_count, sizeof *model->outputs);
    if (!model->inputs || !model->outputs)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model");
    for (int i = 0; i < graph->input_count; i++) {
        model->inputs[i] = describe(&graph->values[graph->inputs[i]]);
        if (graph->values[graph->inputs[i]].info.shape.rank < 0)
            return qd_fail(error, QD_ERR_UNSUPPORTED, "input '%s' has no declared rank", model->inputs[i].name);
    }
    for (int i = 0; i < graph->output_count; i++)
        model->outputs[i] = describe(&graph->values[graph->outputs[i]]);
    return QD_OK;
}

struct qd_range_rules qd_range_rules_of(const struct qd_quant_options *o)
{
    return (struct qd_range_rules){o->averaging_constant,
                                   o->max_step,
                                   {o->compat, o->activation_scheme == QD_SYMMETRIC, (float)o->averaging_constant}};
}

/* What the model's file says of a site: values outside are cut, as everywhere else where such a file runs. */
static struct qd_given fixed_of(const struct qd_site *site)
{
    if (!site->fixed)
        return (struct qd_given){.set = site->own, .own = site->own};
    return (struct qd_given){.set = true,
                             .cuts = true,
                             .exact = true,
                             .lo = qd_qparams_lo(site->fixed),
                             .hi = qd_qparams_hi(site->fixed),
                             .qp = *site->fixed};
}

enum qd_status qd_model_learner(const struct qd_quant_options *o, const struct qd_plan *plan, struct qd_learner **out)
{
    const size_t sites = (size_t)plan->site_count;
    struct qd_learner_site *of = qd_calloc(sites, sizeof *of);
    for (size_t i = 0; of && i < sites; i++) {
        const struct qd_site *site = &plan->sites[i];
        of[i] = (struct qd_learner_site){.wide = site->wide,
                                         .symmetric = site->symmetric,
                                         .bits = site->bits,
                                         .mode = site->mode,
                                         .fixed = fixed_of(site)};
    }
    const struct qd_learner_rules rules = {
        .range = qd_range_rules_of(o),
        .publish_tolerance = o->publish_tolerance,
        .min_observations = o->min_observations,
        .epochs_kept = o->epochs_kept,
        .always_own_range = o->mode == QD_MODE_REQUEST,
        .sites = of,
    };
    enum qd_status status = of ? qd_learner_create(&rules, sites, out) : QD_ERR_NO_MEMORY;
    qd_free(of);
    return status;
}

static enum qd_status build(struct qd_model *model, const void *bytes, size_t size, struct qd_error *error)
{
    model->file_bytes = size;
    model->bytes = (struct qd_text){bytes, size};
    enum qd_status status = qd_onnx_import_beneath(bytes, size, model->externals, &model->graph, error);
    if (!status && model->externals)
        model->file_bytes += qd_externals_bytes(model->externals);
    if (!status)
        status = describe_signature(model, error);
    if (!status)
        status = qd_model_compile(model, &model->options, &model->plan, &model->step_macs, error);
    if (status)
        return status;
    size_t sites = (size_t)model->plan->site_count;
    model->utilization = qd_calloc(sites, sizeof *model->utilization);
    model->accuracy.layers = qd_calloc((size_t)model->plan->step_count, sizeof *model->accuracy.layers);
    model->means = qd_means_create(model->plan);
    if (!model->utilization || !model->accuracy.layers || !model->means ||
        qd_model_learner(&model->options, model->plan, &model->learner) != QD_OK)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model's ranges");
    return QD_OK;
}

static enum qd_status create(struct qd_engine *engine, const char *name, const struct qd_quant_options *options,
                             struct qd_model **out, struct qd_error *error)
{
    enum qd_status status = qd_options_check(options, error);
    if (status)
        return status;
    struct qd_model *model = qd_calloc(1, sizeof *model);
    if (!model)
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model");
    qd_ref_init(&model->ref);
    pthread_mutex_init(&model->fp32_lock, NULL);
    pthread_mutex_init(&model->choices_lock, NULL);
    model->engine = engine;
    model->name = qd_strndup(name, strlen(name));
    status = qd_options_copy(options, &model->options, error);
    if (!model->name || status) {
        qd_model_unref(&model);
        return qd_fail(error, QD_ERR_NO_MEMORY, "no memory for the model");
    }
    *out = model;
    return QD_OK;
}

enum qd_status qd_model_load_memory(struct qd_engine *engine, const char *name, const void *bytes, size_t size,
                                    const struct qd_quant_options *options, struct qd_model **out,
                                    struct qd_error *error)
{
    struct qd_model *model;
    enum qd_status status = create(engine, name, options, &model, error);
    if (status)
        return status;
    status = build(model, bytes, size, error);
    if (status)
        qd_model_unref(&model);
    else
        *out = model;
    return status;
}

enum qd_status qd_model_load_file(struct qd_engine *engine, const char *name, const char *path,
                                  const struct qd_quant_options *options, struct qd_model **out, struct qd_error *error)
{
    struct qd_model *model;
    enum qd_status status = create(engine, name, options, &model, error);
    if (status)
        return status;
    status = qd_file_map(path, &model->file, error);
    if (!status)
        status = qd_externals_open(path, &model->externals, error);
    if (!status)
        status = build(model, model->file.bytes, model->file.size, error);
    if (status)
        qd_model_unref(&model);
    else
        *out = model;
    return status;
}

struct qd_model *qd_model_ref(struct qd_model *model)
{
    qd_ref_take(&model->ref);
    return model;
}

void qd_model_unref(struct qd_model **model)
{
    struct qd_model *m = *model;
    *model = NULL;
    if (!m || !qd_ref_drop(&m->ref))
        return;
    for (int i = 0; i < QD_GENERATIONS_KEPT; i++) {
        qd_learner_destroy(&m->older[i].learner);
        qd_plan_unref(&m->older[i].plan);
    }
    qd_options_free(&m->options);
    qd_learner_destroy(&m->learner);
    qd_plan_unref(&m->plan_fp32);
    qd_plan_unref(&m->plan);
    qd_graph_destroy(&m->graph);
    qd_file_unmap(&m->file);
    qd_externals_close(&m->externals);
    pthread_mutex_destroy(&m->fp32_lock);
    pthread_mutex_destroy(&m->choices_lock);
    qd_choices_free(&m->choices, m->choice_count);
    qd_mixed_free(&m->mixed);
    qd_free(m->accuracy.layers);
    qd_free(m->utilization);
    qd_means_destroy(&m->means);
    qd_free(m->name);
    qd_free(m);
}

const char *qd_model_name(const struct qd_model *model) { return model->name; }
size_t qd_model_input_count(const struct qd_model *model) { return (size_t)model->graph->input_count; }
size_t qd_model_output_count(const struct qd_model *model) { return (size_t)model->graph->output_count; }
const struct qd_io *qd_model_input(const struct qd_model *model, size_t i) { return &model->inputs[i]; }
const struct qd_io *qd_model_output(const struct qd_model *model, size_t i) { return &model->outputs[i]; }
