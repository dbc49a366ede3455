/* fast_weights.cu - fast weights on CUDA: the table of kernels/cuda.h, where everything lies, and which way a problem goes.
 *
 * Saved: what its way needs, the memories at the start of chunks.  Features are made again for backward. */
#include "fast_weights.cuh"
#include "recurrence.cuh"

enum { MOST_FEATURES = 4096, WIDEST = 256, WIDEST_CHUNKS = 384, ON_CHIP = 64 };
enum fw_way { WALK, CHUNKS, DIRECT };   /* token by token; in chunks of features; in chunks that make their features themselves */

extern "C" const k_cuda_recurrence k_cuda_recurrence_v1;

/* A tensor [B,H,T,D] of the call and where it is in float; one and the same unless the call is in bfloat16. */
struct wide { int H, T, D; k_heads call, in_float; };
enum { Q, K, V, BETA, D_O, INPUTS, O = INPUTS, DQ, DK, DV, DBETA, TENSORS };

/* A problem with its arrays. */
struct fast_weights {
    int B;
    k_dtype dtype;                      /* of what is computed */
    fw_way way;
    bool convert;                       /* a walk of a call in bfloat16 is in float */
    wide tensor[TENSORS];
    fw_rows keys, queries;
    fw_walk walk;
    k_recurrence chunks;
};

/* Whether the map mixes the numbers of a row. */
static bool mixes(const k_fast_weights *f) { return f->features.map == K_MAP_DPFP || f->features.map == K_MAP_FAVOR; }

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Arrays one after the other from base on; only counted when it is NULL. */
struct cursor { char *base; size_t used; };
static void *take_bytes(cursor *c, size_t bytes)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
    return p;
}
static float *take(cursor *c, size_t numbers) { return (float *)take_bytes(c, numbers * sizeof(float)); }

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

/* The rows of one role and their arrays; number: bytes of one of theirs. */
static void lay_out_rows(cursor *c, const k_fast_weights *f, k_role role, size_t number, bool backward, const wide &x, const wide &dx, fw_rows *s)
{
    s->f = f->features, s->norm = f->qk_norm, s->eps = (float)f->norm_eps, s->role = role;
    s->B = f->B, s->H = role == K_KEY ? f->Hk : f->Hq, s->Hk = f->Hk, s->T = role == K_KEY ? f->Tk : f->Tq, s->m = f->m;
    s->x = x.in_float, s->dx = dx.in_float;
    s->whole = mixes(f) ? s->m % 8 == 0 : in_eights(s->x, s->m, number) && in_eights(s->dx, s->m, number);
    const bool favor = f->features.map == K_MAP_FAVOR;
    const size_t n = (size_t)s->B * (size_t)s->H * (size_t)s->T;
    s->y = take_bytes(c, n * s->m * number);
    s->r = take(c, n);
    s->phi = take_bytes(c, favor ? n * s->m * number : 0);
    s->dy = take(c, backward ? n * s->m : 0);
    s->dphi = take(c, backward && favor ? n * s->m : 0);
}

/* ---- the way in chunks ---------------------------------------------------------------------------------------------- */

/* The fastest that is open; decoding, whose state has sums of keys as well, always walks. */
static fw_way way_of(const k_fast_weights *f)
{
    if (!f->causal || f->attn_norm != K_FW_NONE || (f->rule != K_FW_DELTA && f->rule != K_FW_SUM) || f->m > WIDEST_CHUNKS) return WALK;
    return !mixes(f) && f->m <= ON_CHIP && f->Dv <= ON_CHIP ? DIRECT : CHUNKS;
}

/* [B,H,T,m] without gaps. */
static k_heads dense(void *p, const fw_rows &s) { return { p, (int64_t)s.H * s.T * s.m, (int64_t)s.T * s.m, s.m }; }

/* A memory that does not fade, ln(1 - 2^-1e9) is 0, over rows of features or, direct, over the call's. */
static k_recurrence chunks_of(const k_fast_weights *f, bool direct, const fw_rows &keys, const fw_rows &queries)
{
    k_recurrence r = {};
    r.B = f->B, r.H = r.Hk = r.Hv = f->Hk, r.Hq = r.Ho = f->Hq, r.T = f->Tk, r.D = f->m, r.E = f->Dv;
    r.decay = K_DECAY_FIXED, r.decay_exponent = 1e9, r.write = f->rule == K_FW_DELTA ? K_WRITE_DELTA : K_WRITE_SUM;
    r.scale = f->scale, r.beta_max = f->beta_max;
    r.v = f->v, r.beta = f->beta, r.o = f->o, r.d_o = f->d_o, r.dv = f->dv, r.dbeta = f->dbeta;
    if (direct) {
        r.q = f->q, r.k = f->k, r.dq = f->dq, r.dk = f->dk;
        r.map = f->features.map, r.norm = f->qk_norm, r.norm_eps = f->norm_eps;
    } else {
        r.q = dense(queries.y, queries), r.k = dense(keys.y, keys), r.dq = dense(queries.dy, queries), r.dk = dense(keys.dy, keys);
        r.norm = K_NORM_NONE, r.float_rows = 1;
    }
    r.state_in = f->state_in, r.state_out = f->state_out, r.dstate = f->dstate, r.saved = f->saved;
    return r;
}

static void lay_out_chunks(cursor *c, const k_fast_weights *f, bool backward, fast_weights *x)
{
    k_cuda_sizes z;
    x->chunks = chunks_of(f, x->way == DIRECT, x->keys, x->queries);
    k_cuda_recurrence_v1.plan(&x->chunks, x->dtype, backward, &z);
    x->chunks.scratch = take_bytes(c, backward ? z.scratch_bwd : z.scratch_fwd);
}

/* ---- the walk ------------------------------------------------------------------------------------------------------- */

static void lay_out_walk(cursor *c, const k_fast_weights *f, bool backward, fast_weights *x)
{
    const size_t units = (size_t)f->B * (size_t)f->Hk, memory = (size_t)fw_size(*f);
    const wide *t = x->tensor;
    fw_walk *w = &x->walk;
    w->f = *f, w->G = f->Hq / f->Hk, w->chunks = (f->Tk + FW_CHUNK - 1) / FW_CHUNK;
    w->f.v = t[V].in_float, w->f.beta = t[BETA].in_float, w->f.o = t[O].in_float, w->f.d_o = t[D_O].in_float;
    w->f.dv = t[DV].in_float, w->f.dbeta = t[DBETA].in_float;
    w->a = (float *)x->queries.y, w->b = (float *)x->keys.y, w->da = x->queries.dy, w->db = x->keys.dy;
    w->kept = (float *)f->saved;
    w->memory = take(c, units * memory);
    w->past = take(c, backward ? units * (FW_CHUNK + 1) * memory : 0);
    w->clip = take(c, backward ? units * FW_CHUNK : 0);
}

/* A problem in the scratch from base on; returns the bytes of it. */
static size_t lay_out(const k_fast_weights *f, k_dtype dtype, fw_way way, bool backward, void *base, fast_weights *x)
{
    cursor c = { (char *)base, 0 };
    *x = fast_weights{};
    x->B = f->B, x->way = way;
    x->convert = dtype == K_BF16 && way == WALK;
    x->dtype = x->convert ? K_F32 : dtype;
    lay_out_tensors(&c, f, backward, x);
    const wide *t = x->tensor;
    const size_t number = k_dtype_size(x->dtype);
    if (way != DIRECT) {
        lay_out_rows(&c, f, K_KEY, number, backward, t[K], t[DK], &x->keys);
        lay_out_rows(&c, f, K_QUERY, number, backward, t[Q], t[DQ], &x->queries);
    }
    if (way == WALK) lay_out_walk(&c, f, backward, x);
    else lay_out_chunks(&c, f, backward, x);
    return c.used;
}

static const char *plan(const k_fast_weights *f, k_dtype dtype, int training, k_cuda_sizes *z)
{
    fast_weights x;
    k_cuda_sizes chunks = {};
    const fw_way way = way_of(f);
    const size_t memories = (size_t)f->B * (size_t)f->Hk, memory = (size_t)fw_size(*f) * sizeof(float);
    if (f->Dk > WIDEST || f->Dv > WIDEST) return "the CUDA kernels of fast weights go up to width 256";
    if (f->m > MOST_FEATURES) return "the CUDA kernels of fast weights go up to 4096 features";
    *z = k_cuda_sizes{};
    z->scratch_dec = lay_out(f, dtype, WALK, false, NULL, &x);
    z->saved = training ? memories * (size_t)x.walk.chunks * memory : 0;
    z->scratch_fwd = lay_out(f, dtype, way, false, NULL, &x);
    if (way != WALK) {
        k_cuda_recurrence_v1.plan(&x.chunks, x.dtype, training, &chunks);
        z->saved = chunks.saved;
    }
    z->scratch_bwd = training ? lay_out(f, dtype, way, true, NULL, &x) : 0;
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

template <class T> static void find_features(const fast_weights &x, cudaStream_t stream)
{
    if (x.way == DIRECT) return;
    fw_features<T>(x.keys, stream);
    fw_features<T>(x.queries, stream);
}
template <class T> static void features_back(const fast_weights &x, cudaStream_t stream)
{
    if (x.keys.dx.p) fw_features_back<T>(x.keys, stream);
    if (x.queries.dx.p) fw_features_back<T>(x.queries, stream);
}

/* Features, then the tokens. */
static int forward_by(const k_fast_weights *f, k_dtype dtype, fw_way way, cudaStream_t stream)
{
    fast_weights x;
    lay_out(f, dtype, way, false, f->scratch, &x);
    convert(x, false, stream);
    if (x.dtype == K_BF16) find_features<bf16>(x, stream);
    else find_features<float>(x, stream);
    if (way == WALK) fw_walk_forward(x.walk, stream);
    else k_cuda_recurrence_v1.forward(&x.chunks, x.dtype, stream);
    convert(x, true, stream);
    return launched();
}
static int forward(const k_fast_weights *f, k_dtype dtype, void *stream)
{
    return forward_by(f, dtype, way_of(f), (cudaStream_t)stream);
}

/* Features, the tokens back, then through the features. */
static int backward(const k_fast_weights *f, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    fast_weights x;
    lay_out(f, dtype, way_of(f), true, f->scratch, &x);
    convert(x, false, stream);
    if (x.dtype == K_BF16) find_features<bf16>(x, stream);
    else find_features<float>(x, stream);
    if (x.way == WALK) fw_walk_backward(x.walk, stream);
    else k_cuda_recurrence_v1.backward(&x.chunks, x.dtype, stream);
    if (x.dtype == K_BF16) features_back<bf16>(x, stream);
    else features_back<float>(x, stream);
    convert(x, true, stream);
    return launched();
}

/* A forward pass over the new tokens from the memories to themselves, token by token. */
static int decode(const k_fast_weights *f, k_dtype dtype, void *state, int64_t pos, int64_t capacity, void *stream)
{
    k_fast_weights now = *f;
    (void)pos, (void)capacity;
    now.state_in = now.state_out = state;
    now.z_in = now.z_out = (float *)state + (int64_t)f->B * f->Hk * f->m * f->Dv;
    now.saved = NULL;
    return forward_by(&now, dtype, WALK, (cudaStream_t)stream);
}

extern "C" __attribute__((visibility("default"))) const k_cuda_fast_weights k_cuda_fast_weights_v1;
const k_cuda_fast_weights k_cuda_fast_weights_v1 = { sizeof(k_cuda_fast_weights), plan, forward, backward, decode };
