/* attention.c - the node of the variant: the builder derives the shape, asks the variant, declares its
 * parameters; compiling makes the mixer and fixes every pointer.
 *
 * Inputs of the node: q, k, v, then ATTN_MAX gates, ATTN_MAX parameters and klen; NN_NONE where there is none. */
#include "internal.h"
#include "mixer_choose.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATES = 3, PARAMS = 3 + ATTN_MAX, KLEN = 3 + 2 * ATTN_MAX };

static int attention_forward(nn_graph *g, node *n)
{
    k_range_push(g->dev, n->attention->spec.variant->name);
    attention *a = n->attention;
    a->io.pos = g->decoding.at;
    int rc = a->capacity ? nn_mixer_decode(a->mixer, &a->io) : nn_mixer_forward(a->mixer, &a->io);
    k_range_pop(g->dev);
    return rc;
}

/* Zeroes the gradients of parameters that are written for the first time: here all of them are added to. */
static void settle_params(nn_graph *g, const node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] != NN_NONE && g->tensors[n->in[i]].param >= 0)
            nn_param_grad(g->params, g->tensors[n->in[i]].param);
}

/* The variant overwrites: a gradient that others wrote before was computed beside it and is added here. */
static int attention_backward(nn_graph *g, node *n)
{
    attention *a = n->attention;
    settle_params(g, n);
    k_range_push(g->dev, a->spec.variant->name);
    int rc = nn_mixer_backward(a->mixer, &a->io);
    k_range_pop(g->dev);
    for (int i = 0; !rc && i < PARAMS; i++)
        if (a->extra[i])
            k_axpy(g->dev, g->params->dtype, g->tensors[n->in[i]].n, 1, a->extra[i], g->tensors[n->in[i]].grad);
    return rc;
}

static int attention_compile(nn_graph *, node *, char *why, size_t nwhy);
static const op attention_op = { .name = "attention", .reads = NN_READS_IN | NN_READS_OUT, .forward = attention_forward, .backward = attention_backward, .compile = attention_compile };

/* ---- building -------------------------------------------------------------------------------------------------- */

/* The shape of the problem, from the tensors; what an absent q or k cannot tell comes from spec, else from v. */
static attn_shape shape_of(const nn_graph *g, const nn_mixer_spec *spec, nn_id q, nn_id k, nn_id v)
{
    attn_dims dv = nn_dims(g, v), dk = nn_dims(g, k), dq = nn_dims(g, q);
    attn_shape s = spec->shape;
    s.B = (int32_t)dv.d[0];
    s.Tk = (int32_t)dv.d[1];
    s.Hv = (int32_t)dv.d[2];
    s.Hk = spec->variant->flags & ATTN_GROUPED_QK && k >= 0 ? (int32_t)dk.d[2] : s.Hv;
    s.Dv = (int32_t)dv.d[3];
    s.Tq = q >= 0 ? (int32_t)dq.d[1] : s.Tq > 0 ? s.Tq : s.Tk;
    s.Hq = q >= 0 ? (int32_t)dq.d[2] : s.Hq > 0 ? s.Hq : s.Hk;
    s.Dk = q >= 0 ? (int32_t)dq.d[3] : k >= 0 ? (int32_t)dk.d[3] : s.Dk > 0 ? s.Dk : s.Dv;
    s.dtype = (int32_t)g->params->dtype;
    s.training = g->training;
    return s;
}

/* Whether id is absent or a real tensor [B,T,H,D]. */
static int fits(const nn_graph *g, nn_id id, int64_t B, int64_t T, int64_t H, int64_t D)
{
    attn_dims d = nn_dims(g, id);
    return id == NN_NONE || (g->tensors[id].dtype == g->params->dtype && nn_is_narrow(g, id) && d.n == 4 && d.d[0] == B && d.d[1] == T && d.d[2] == H && d.d[3] == D);
}

/* Checks q, k and v against the shape derived from them. */
static int check_inputs(nn_graph *g, const attn_shape *s, nn_id q, nn_id k, nn_id v)
{
    char x[100], y[100], z[100];
    if (fits(g, q, s->B, s->Tq, s->Hq, s->Dk) && fits(g, k, s->B, s->Tk, s->Hk, s->Dk) && fits(g, v, s->B, s->Tk, s->Hv, s->Dv))
        return 0;
    nn_fail(g, ATTN_EINVAL, "attention: q %s, k %s and v %s do not fit together as [B,Tq,Hq,Dk], [B,Tk,Hk,Dk] and [B,Tk,Hv,Dv]",
            nn_dims_text(nn_dims(g, q), x, sizeof x), nn_dims_text(nn_dims(g, k), y, sizeof y), nn_dims_text(nn_dims(g, v), z, sizeof z));
    return -1;
}

/* Fills in[] with the gates, as wide as planned, and with the parameters, declared as prefix.NAME or prefix.ALIAS.NAME. */
static int bind_extras(nn_graph *g, const nn_mixer_spec *spec, const attn_plan *plan, const char *prefix, const nn_id *gates, nn_id *in)
{
    const attn_variant *v = spec->variant;
    const attn_shape *s = &spec->shape;
    if (g->carries && s->mode == ATTN_CAUSAL && !plan->state_dims[0].n)
        nn_fail(g, ATTN_EUNSUP, "%s has no state to go on from", v->name);
    for (int i = 0; i < ATTN_MAX; i++) {
        if (plan->gate_width[i]) {
            in[GATES + i] = gates ? gates[i] : NN_NONE;
            if (in[GATES + i] < 0 || in[GATES + i] >= g->ntensors || !fits(g, in[GATES + i], s->B, s->Tk, s->Hv, plan->gate_width[i])) {
                nn_fail(g, ATTN_EINVAL, "attention: %s needs the gate %s as [%d,%d,%d,%d]", v->name, v->gates[i].name, s->B, s->Tk,
                        s->Hv, plan->gate_width[i]);
                return -1;
            }
        }
        if (plan->param_dims[i].n && !(v->params[i].flags & ATTN_OPTIONAL)) {
            char name[120];
            snprintf(name, sizeof name, "%s.%s%s%s", prefix, spec->alias ? spec->alias : "", spec->alias ? "." : "", v->params[i].name);
            in[PARAMS + i] = nn_use(g, nn_param(g->params, name, plan->param_dims[i], plan->param_init[i], v->params[i].flags));
        }
    }
    return g->code;
}

nn_id nn_attention(nn_graph *g, const nn_mixer_spec *spec, const char *prefix, nn_id q, nn_id k, nn_id v, const nn_id *gates)
{
    return nn_attention_klen(g, spec, prefix, q, k, v, gates, NN_NONE);
}

/* Whether klen is absent or i32 [B]. */
static int is_lengths(const nn_graph *g, nn_id klen, int64_t B)
{
    return klen == NN_NONE || (g->tensors[klen].dtype == K_I32 && nn_dims(g, klen).n == 1 && nn_dims(g, klen).d[0] == B);
}

nn_id nn_attention_klen(nn_graph *g, const nn_mixer_spec *spec, const char *prefix, nn_id q, nn_id k, nn_id v, const nn_id *gates, nn_id klen)
{
    if (spec->variant->flags & ATTN_SHARED_QK)
        k = NN_NONE;                    /* its keys are its queries */
    nn_id in[NN_MAX_IN] = { q, k, v, klen };
    if (!nn_ready(g, "attention", in, 4))
        return NN_BAD;
    for (int i = GATES; i < NN_MAX_IN; i++)
        in[i] = i == KLEN ? klen : NN_NONE;
    if (v < 0 || nn_dims(g, v).n != 4 || !is_lengths(g, klen, nn_dims(g, v).d[0]))
        return nn_fail(g, ATTN_EINVAL, "attention: v must be [B,Tk,Hk,Dv], and lengths of keys i32 [B]");
    nn_mixer_spec asked = *spec;
    asked.shape = shape_of(g, spec, q, k, v);
    asked.shape.klen = klen != NN_NONE;
    attn_plan plan;
    char why[200];
    if (check_inputs(g, &asked.shape, q, k, v))
        return NN_BAD;
    int64_t capacity = nn_capacity(g, asked.shape.mode);
    if (capacity && klen != NN_NONE)
        return nn_fail(g, ATTN_EINVAL, "attention: a graph that decodes has no lengths of keys in causal attention");
    int rc = nn_mixer_ask(g->dev, &asked, capacity, &plan, why, sizeof why);
    if (rc)
        return nn_fail(g, rc, "%s", why);
    if (bind_extras(g, &asked, &plan, prefix, gates, in))
        return NN_BAD;
    attention *a = calloc(1, sizeof *a);
    if (!a)
        return nn_fail(g, NN_ENOMEM, "out of host memory");
    const attn_shape *s = &asked.shape;
    node *n = nn_new_node(g, &attention_op, in, NN_MAX_IN, g->params->dtype, (attn_dims){ 4, { s->B, s->Tq, attn_out_heads(s), s->Dv } });
    if (!n) {
        free(a);
        return NN_BAD;
    }
    a->spec = asked;
    a->plan = plan;
    a->capacity = capacity;
    a->seed = g->params->seed + nn_fnv1a(prefix);
    n->attention = a;
    return n->out;
}

/* ---- compiling --------------------------------------------------------------------------------------------------- */

/* Input i as a strided tensor over its data. */
static attn_tensor strided(const nn_graph *g, const node *n, int i, int64_t H, int64_t T, int64_t D)
{
    static const attn_tensor absent;
    return n->in[i] < 0 ? absent : nn_tensor_of(g->tensors[n->in[i]].data, H, T, D, 0);
}

/* Where the variant writes the gradient of input i: nowhere, into it, or beside it when it must be added. */
static int bind_gradient(nn_graph *g, node *n, int i, attn_tensor like, attn_tensor *out, char *why, size_t nwhy)
{
    const tensor *t = n->in[i] < 0 ? NULL : &g->tensors[n->in[i]];
    *out = like;
    int wanted = t && n->live && t->learns;
    out->p = wanted ? t->grad : NULL;
    if (!wanted || (!n->add[i] && t->param < 0))
        return 0;
    if (nn_take(g, K_TAG_WORKSPACE, (size_t)t->n * k_dtype_size(t->dtype), &n->attention->extra[i])) {
        snprintf(why, nwhy, "attention: %s", k_error(g->dev));
        return NN_ENOMEM;
    }
    out->p = n->attention->extra[i];
    return 0;
}

/* The states that this forward begins with and that the next one will. */
static int bind_states(nn_graph *g, attention *a, char *why, size_t nwhy)
{
    const attn_plan *plan = &a->plan;
    size_t each = k_dtype_size(g->params->wide);
    int rc = 0;
    for (int i = 0; !rc && g->carries && a->spec.shape.mode == ATTN_CAUSAL && i < ATTN_MAX; i++) {
        void *in = NULL;
        if (!plan->state_dims[i].n)
            continue;
        rc = nn_carry_take(g, (size_t)nn_elements(plan->state_dims[i]) * each, &in, &a->io.state_out[i], why, nwhy);
        a->io.state_in[i] = in;
    }
    return rc;
}

/* Asks the graph for what its mixers have in turns: scratch, and of nodes that backward runs again, segment by segment, what
 * they save. */
static void borrow(nn_graph *g, node *n)
{
    attention *a = n->attention;
    a->spec.lent = NN_LENT_SCRATCH;
    nn_share_room(g, nn_mixer_scratch(&a->plan, g->training, a->capacity));
    if (!n->again)
        return;
    if (g->saving != n->segment)
        g->segment_saved = 0;
    g->saving = n->segment;
    a->spec.lent |= NN_LENT_SAVED;
    a->saved_at = g->segment_saved;
    g->segment_saved += (a->plan.saved + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    if (g->segment_saved > g->saved_bytes)
        g->saved_bytes = g->segment_saved;
}

/* Makes the mixer and fixes its pointers. */
static int attention_compile(nn_graph *g, node *n, char *why, size_t nwhy)
{
    attention *a = n->attention;
    borrow(g, n);
    int rc = g->plan ? nn_mixer_count_bytes(g->dev, &a->spec, a->capacity, g->plan->bytes, why, nwhy)
                     : nn_mixer_new(g->dev, &a->spec, a->capacity, &a->mixer, why, nwhy);
    if (rc)
        return rc;
    const attn_shape *s = &a->spec.shape;
    const attn_plan *plan = &a->plan;
    nn_mixer_io *io = &a->io;
    *io = (nn_mixer_io){ .q = strided(g, n, 0, s->Hq, s->Tq, s->Dk), .k = strided(g, n, 1, s->Hk, s->Tk, s->Dk),
                         .v = strided(g, n, 2, s->Hv, s->Tk, s->Dv), .seed = a->seed };
    io->o = nn_tensor_of(g->tensors[n->out].data, attn_out_heads(s), s->Tq, s->Dv, 0);
    io->klen = n->in[KLEN] < 0 ? NULL : g->tensors[n->in[KLEN]].data;
    io->d_o = io->o;
    io->d_o.p = g->tensors[n->out].grad;
    attn_tensor *const d[] = { &io->dq, &io->dk, &io->dv }, like[] = { io->q, io->k, io->v };
    for (int i = 0; !rc && i < GATES; i++)
        rc = bind_gradient(g, n, i, like[i], d[i], why, nwhy);
    for (int i = 0; !rc && i < ATTN_MAX; i++) {
        io->gate[i] = strided(g, n, GATES + i, s->Hv, s->Tk, plan->gate_width[i]);
        rc = bind_gradient(g, n, GATES + i, io->gate[i], &io->dgate[i], why, nwhy);
        const tensor *p = n->in[PARAMS + i] < 0 ? NULL : &g->tensors[n->in[PARAMS + i]];
        io->param[i] = p ? nn_param_value(g->params, p->param) : NULL;
        io->dparam[i] = p && n->live ? p->grad : NULL;
    }
    return rc ? rc : bind_states(g, a, why, nwhy);
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

void nn_watch(nn_graph *g)
{
    for (int i = 0; i < g->nnodes; i++) {
        if (!g->nodes[i].attention)
            continue;
        for (int j = 0; j < PARAMS; j++)
            nn_keep(g, g->nodes[i].in[j]);
        nn_keep(g, g->nodes[i].out);
    }
}

int nn_seen_count(const nn_graph *g)
{
    int n = 0;
    for (int i = 0; i < g->nnodes; i++)
        n += g->nodes[i].attention != NULL;
    return n;
}

nn_seen nn_see(const nn_graph *g, int call)
{
    for (int i = 0; i < g->nnodes; i++)
        if (g->nodes[i].attention && call-- == 0)
            return (nn_seen){ &g->nodes[i].attention->spec, &g->nodes[i].attention->io };
    return (nn_seen){ 0 };
}

void nn_release_attention(nn_graph *g, attention *a)
{
    if (!a)
        return;
    for (int i = 0; i < NN_MAX_IN; i++)
        k_free(g->dev, a->extra[i]);
    nn_mixer_free(a->mixer);
    free(a);
}
