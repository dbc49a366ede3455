/* fast_weights.cu - fast weights on CUDA: the table of kernels/cuda.h, and where everything lies.
 *
 * Saved: the memories at the start of chunks.  Features are made again for backward. */
#include "fast_weights.cuh"

enum { MOST_FEATURES = 4096, WIDEST = 256 };

/* A tensor [B,H,T,D] of the call and where it is in float; one and the same unless the call is in bfloat16. */
struct wide { int H, T, D; k_heads call, in_float; };
enum { Q, K, V, BETA, D_O, INPUTS, O = INPUTS, DQ, DK, DV, DBETA, TENSORS };

/* A problem with its arrays. */
struct fast_weights {
    int B;
    bool convert;                       /* the call is in bfloat16 */
    wide tensor[TENSORS];
    fw_rows keys, queries;
    fw_walk walk;
};

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Arrays one after the other from base on; only counted when it is NULL. */
struct cursor { char *base; size_t used; };
static float *take(cursor *c, size_t numbers)
{
    float *p = c->base ? (float *)(c->base + c->used) : NULL;
    c->used += (numbers * sizeof(float) + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    return p;
}

/* The tensors of a call, in float; those of backward only then. */
static void lay_out_tensors(cursor *c, const k_fast_weights *f, bool backward, fast_weights *x)
{
    const int Hq = f->Hq, Hk = f->Hk, Tq = f->Tq, Tk = f->Tk;
    const wide all[TENSORS] = { { Hq, Tq, f->Dk, f->q, {} },  { Hk, Tk, f->Dk, f->k, {} },  { Hk, Tk, f->Dv, f->v, {} },  { Hk, Tk, 1, f->beta, {} },
                                { Hq, Tq, f->Dv, f->d_o, {} }, { Hq, Tq, f->Dv, f->o, {} },  { Hq, Tq, f->Dk, f->dq, {} }, { Hk, Tk, f->Dk, f->dk, {} },
                                { Hk, Tk, f->Dv, f->dv, {} },  { Hk, Tk, 1, f->dbeta, {} } };
    for (int n = 0; n < TENSORS; n++) {
        wide *t = &x->tensor[n];
        const bool needed = backward ? n != O : n < D_O || n == O;
        *t = all[n];
        t->in_float = t->call;
        if (!x->convert || !needed) continue;
        const int64_t row = t->D, head = t->T * row, batch = t->H * head;
        float *room = take(c, (size_t)(f->B * batch));
        t->in_float = { c->base && !t->call.p ? NULL : room, batch, head, row };
    }
}

/* The rows of one role and their arrays. */
static void lay_out_rows(cursor *c, const k_fast_weights *f, k_role role, bool backward, const wide &x, const wide &dx, fw_rows *s)
{
    const size_t n = (size_t)f->B * (size_t)x.H * (size_t)x.T;
    s->f = f->features, s->norm = f->qk_norm, s->eps = (float)f->norm_eps, s->role = role;
    s->B = f->B, s->H = x.H, s->Hk = f->Hk, s->T = x.T, s->m = f->m;
    s->mixes = f->features.map == K_MAP_DPFP || f->features.map == K_MAP_FAVOR;
    s->x = x.in_float, s->dx = dx.in_float;
    s->y = take(c, n * s->m);
    s->r = take(c, n);
    s->phi = take(c, s->mixes ? n * s->m : 0);
    s->dy = take(c, backward ? n * s->m : 0);
    s->dphi = take(c, backward && s->mixes ? n * s->m : 0);
}

/* A problem in the scratch from base on; returns the bytes of it. */
static size_t lay_out(const k_fast_weights *f, k_dtype dtype, bool backward, void *base, fast_weights *x)
{
    const size_t units = (size_t)f->B * (size_t)f->Hk, memory = (size_t)fw_size(*f);
    cursor c = { (char *)base, 0 };
    *x = fast_weights{};
    x->B = f->B, x->convert = dtype == K_BF16;
    lay_out_tensors(&c, f, backward, x);
    const wide *t = x->tensor;
    lay_out_rows(&c, f, K_KEY, backward, t[K], t[DK], &x->keys);
    lay_out_rows(&c, f, K_QUERY, backward, t[Q], t[DQ], &x->queries);
    fw_walk *w = &x->walk;
    w->f = *f, w->G = f->Hq / f->Hk, w->chunks = (f->Tk + FW_CHUNK - 1) / FW_CHUNK;
    w->f.v = t[V].in_float, w->f.beta = t[BETA].in_float, w->f.o = t[O].in_float, w->f.d_o = t[D_O].in_float;
    w->f.dv = t[DV].in_float, w->f.dbeta = t[DBETA].in_float;
    w->a = x->queries.y, w->b = x->keys.y, w->da = x->queries.dy, w->db = x->keys.dy;
    w->kept = (float *)f->saved;
    w->memory = take(&c, units * memory);
    w->past = take(&c, backward ? units * (FW_CHUNK + 1) * memory : 0);
    w->clip = take(&c, backward ? units * FW_CHUNK : 0);
    return c.used;
}

static const char *plan(const k_fast_weights *f, k_dtype dtype, int training, k_cuda_sizes *z)
{
    fast_weights x;
    const size_t memories = (size_t)f->B * (size_t)f->Hk, memory = (size_t)fw_size(*f) * sizeof(float);
    if (f->Dk > WIDEST || f->Dv > WIDEST) return "the CUDA kernels of fast weights go up to width 256";
    if (f->m > MOST_FEATURES) return "the CUDA kernels of fast weights go up to 4096 features";
    *z = k_cuda_sizes{};
    z->scratch_fwd = z->scratch_dec = lay_out(f, dtype, false, NULL, &x);
    z->scratch_bwd = training ? lay_out(f, dtype, true, NULL, &x) : 0;
    z->saved = training ? memories * (size_t)x.walk.chunks * memory : 0;
    z->state = memories * memory;
    return NULL;
}

/* ---- the passes ----------------------------------------------------------------------------------------------------- */

static int launched() { return cudaPeekAtLastError() == cudaSuccess ? K_OK : K_EDEVICE; }

/* Inputs to float, results from it. */
static void convert(const fast_weights &x, bool results, cudaStream_t stream)
{
    for (int n = results ? (int)INPUTS : 0; x.convert && n < (results ? (int)TENSORS : (int)INPUTS); n++) {
        const wide &t = x.tensor[n];
        if (!t.call.p || t.call.p == t.in_float.p) continue;
        if (results) fw_narrow(x.B, t.H, t.T, t.D, t.in_float, t.call, stream);
        else fw_widen(x.B, t.H, t.T, t.D, t.call, t.in_float, stream);
    }
}

/* Features, then the tokens. */
static int forward(const k_fast_weights *f, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    fast_weights x;
    lay_out(f, dtype, false, f->scratch, &x);
    convert(x, false, stream);
    fw_features(x.keys, stream);
    fw_features(x.queries, stream);
    fw_walk_forward(x.walk, stream);
    convert(x, true, stream);
    return launched();
}

/* Features, the tokens back, then through the features. */
static int backward(const k_fast_weights *f, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    fast_weights x;
    lay_out(f, dtype, true, f->scratch, &x);
    convert(x, false, stream);
    fw_features(x.keys, stream);
    fw_features(x.queries, stream);
    fw_walk_backward(x.walk, stream);
    if (f->dk.p) fw_features_back(x.keys, stream);
    if (f->dq.p) fw_features_back(x.queries, stream);
    convert(x, true, stream);
    return launched();
}

/* A forward pass over the new tokens from the memories to themselves. */
static int decode(const k_fast_weights *f, k_dtype dtype, void *state, int64_t pos, int64_t capacity, void *stream)
{
    k_fast_weights now = *f;
    (void)pos, (void)capacity;
    now.state_in = now.state_out = state;
    now.z_in = now.z_out = (float *)state + (int64_t)f->B * f->Hk * f->m * f->Dv;
    now.saved = NULL;
    return forward(&now, dtype, stream);
}

extern "C" __attribute__((visibility("default"))) const k_cuda_fast_weights k_cuda_fast_weights_v1;
const k_cuda_fast_weights k_cuda_fast_weights_v1 = { sizeof(k_cuda_fast_weights), plan, forward, backward, decode };
