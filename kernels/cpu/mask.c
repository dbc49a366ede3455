/* mask.c - allowed sets as passes, see mask.h. */
#include "../mask.h"

/* The smaller and the larger one; floor(a / b) for b > 0. */
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static const k_edge START = { 0, 0 }, END = { 0, K_FAR };

/* ---- what a query sees of a pass ---------------------------------------------------------------------- */

/* The edge for a query at p. */
static int64_t edge_at(k_edge e, int64_t p)
{
    return e.block == 0 ? e.add : e.block == 1 ? p + e.add : floor_div(p, e.block) * e.block + e.add;
}

/* Key rows before position x. */
static int rows_before(const k_pass *a, int64_t x)
{
    if (x <= a->k0)
        return 0;
    int64_t n = a->kstep == 1 ? x - a->k0 : (x - a->k0 + a->kstep - 1) / a->kstep;
    return (int)least(n, a->nk);
}

k_span k_pass_span(const k_pass *a, int i)
{
    int64_t p = a->q0 + i * a->qstep;
    k_span s = { rows_before(a, edge_at(a->from, p)), rows_before(a, edge_at(a->to, p)) };
    return s.from < s.to ? s : (k_span){ 0, 0 };
}

/* ---- one dimension -------------------------------------------------------------------------------------- */

/* All queries over the keys k0, k0 + kstep, ... */
static k_pass whole(const k_scope *s, int64_t k0, int64_t kstep, k_edge from, k_edge to)
{
    int64_t nk = k0 < s->keys ? (s->keys - k0 + kstep - 1) / kstep : 0;
    return (k_pass){ .q0 = s->first, .qstep = 1, .nq = s->Tq, .k0 = k0, .kstep = kstep, .nk = (int)nk, .from = from, .to = to };
}

/* The keys around the query or around its block, up to the query itself when causal. */
static k_pass around(const k_mask *m, const k_scope *s, int64_t block, int64_t left, int64_t right)
{
    return whole(s, 0, 1, (k_edge){ block, -left }, m->causal ? (k_edge){ 1, 1 } : (k_edge){ block, right });
}

/* Whether a head has the first and the second pattern. */
static int has_first(const k_mask *m, int head)
{
    return m->patterns == K_PATTERNS_MERGED || m->patterns == K_PATTERNS_FIRST || (m->patterns == K_PATTERNS_SPLIT && head % 2 == 0);
}
static int has_second(const k_mask *m, int head)
{
    return m->patterns == K_PATTERNS_MERGED || !has_first(m, head);
}

/* Column n of the second pattern; both: without what the first pattern has, before it or (side 1) after it. */
static k_pass column(const k_mask *m, const k_scope *s, int64_t n, int both, int side)
{
    int64_t l = m->length, own = m->kind == K_MASK_FIXED ? l : 1;      /* what the first pattern has of a column */
    k_edge before = { own, 0 }, after = { own, own };
    k_edge from = both && side ? after : START, to = both && !side ? before : m->causal ? (k_edge){ 1, 1 } : END;
    if (m->kind == K_MASK_FIXED) {
        int slot = (m->patterns == K_PATTERNS_SPLIT ? s->head / 2 : s->head) % m->summary_slots;
        k_pass p = whole(s, l - (int64_t)m->summary_len * (slot + 1) + n, l, from, to);
        p.summary = 1;
        return p;
    }
    int64_t q0 = s->first + n;
    k_pass p = whole(s, q0 - floor_div(q0, l) * l, l, from, to);
    p.q0 = q0;
    p.qstep = l;
    p.nq = (int)((s->Tq - n + l - 1) / l);
    return p;
}

/* Columns of the second pattern. */
static int64_t columns(const k_mask *m, const k_scope *s)
{
    return m->kind == K_MASK_FIXED ? m->summary_len : least(m->length, s->Tq);
}

/* Pass n of a set of two patterns: the first, then the columns, each in one or two parts. */
static k_pass patterns(const k_mask *m, const k_scope *s, int64_t n)
{
    int first = has_first(m, s->head), both = first && has_second(m, s->head), sides = both && !m->causal ? 2 : 1;
    if (first && n == 0)
        return m->kind == K_MASK_FIXED ? around(m, s, m->length, 0, m->length) : around(m, s, 1, m->length - 1, m->length);
    n -= first;
    return column(m, s, n / sides, both, (int)(n % sides));
}

/* ---- two dimensions --------------------------------------------------------------------------------------- */

/* The picture's rows and column blocks that hold the queries, and the rows that hold keys. */
typedef struct { int64_t row, rows, block, blocks, reach; } picture;

/* Cuts the queries at positions from 0 on into runs inside one row and one column block. */
static picture picture_of(const k_mask *m, const k_scope *s)
{
    int64_t first = most(s->first, 0), last = s->first + s->Tq - 1;
    if (last < first)
        return (picture){ 0 };
    picture p = { .row = first / m->width, .blocks = (m->width + m->query_w - 1) / m->query_w };
    p.rows = last / m->width - p.row + 1;
    p.reach = least((int64_t)m->query_h + 2 * (int64_t)m->flange_h, (s->keys + m->width - 1) / m->width);
    if (p.rows == 1) {
        p.block = first % m->width / m->query_w;
        p.blocks = last % m->width / m->query_w - p.block + 1;
    }
    return p;
}

/* Keys of row kr between two columns, for queries of one block. */
static void keys_of_row(const k_mask *m, const k_scope *s, int64_t kr, int64_t left, int64_t right, k_pass *p)
{
    left = most(left, 0);
    p->k0 = kr * m->width + left;
    p->kstep = 1;
    p->nk = (int)most(least(kr * m->width + least(right, m->width), s->keys) - p->k0, 0);
}

/* Pass n: one run of queries over one row of keys. */
static k_pass rectangle(const k_mask *m, const k_scope *s, int64_t n)
{
    picture at = picture_of(m, s);
    int64_t r = at.row + n / at.reach / at.blocks, c0 = (at.block + n / at.reach % at.blocks) * m->query_w;
    int64_t r0 = r / m->query_h * m->query_h, kr = most(r0 - m->flange_h, 0) + n % at.reach;
    int64_t begin = most(r * m->width + c0, s->first);
    int64_t end = least(r * m->width + least(c0 + m->query_w, m->width), s->first + s->Tq);
    k_pass p = { .q0 = begin, .qstep = 1, .nq = (int)most(end - begin, 0), .kstep = 1, .from = START, .to = END };
    int64_t right = c0 + m->query_w + m->flange_w;
    if (kr >= r0 + m->query_h + (m->causal ? 0 : m->flange_h))
        return p;                                           /* below what the block sees */
    if (m->causal && kr >= r0)
        right = kr <= r ? c0 + m->query_w : m->order == K_ORDER_BLOCK ? c0 : 0;
    if (m->causal && kr == r)
        p.to = (k_edge){ 1, 1 };
    keys_of_row(m, s, kr, c0 - m->flange_w, right, &p);
    return p;
}

/* ---- all of them ------------------------------------------------------------------------------------------ */

int64_t k_mask_passes(const k_mask *m, const k_scope *s)
{
    if (m->kind == K_MASK_IMAGE) {
        picture p = picture_of(m, s);
        return p.rows * p.blocks * p.reach;
    }
    if (m->kind != K_MASK_STRIDED && m->kind != K_MASK_FIXED)
        return 1;
    int first = has_first(m, s->head), second = has_second(m, s->head);
    return first + second * columns(m, s) * (first && !m->causal ? 2 : 1);
}

k_pass k_mask_pass(const k_mask *m, const k_scope *s, int64_t n)
{
    switch (m->kind) {
    case K_MASK_WINDOW: return around(m, s, 1, m->length - 1, m->length);
    case K_MASK_BLOCK: return around(m, s, m->length, m->left, (int64_t)m->length + m->right);
    case K_MASK_STRIDED: case K_MASK_FIXED: return patterns(m, s, n);
    case K_MASK_IMAGE: return rectangle(m, s, n);
    default: return whole(s, 0, 1, START, m->causal ? (k_edge){ 1, 1 } : END);
    }
}

double k_mask_pairs(const k_mask *m, const k_scope *s)
{
    double pairs = 0;
    for (int64_t n = 0, passes = k_mask_passes(m, s); n < passes; n++) {
        k_pass p = k_mask_pass(m, s, n);
        int alike = p.from.block == 0 && p.to.block == 0 && p.nq ? p.nq : 1;       /* queries that see the same keys */
        for (int i = 0; i < p.nq; i += alike) {
            k_span seen = k_pass_span(&p, i);
            pairs += (double)alike * (seen.to - seen.from);
        }
    }
    return pairs;
}

/* ---- what decoding holds ------------------------------------------------------------------------------------ */

int64_t k_mask_ring(const k_mask *m, int64_t capacity)
{
    switch (m->kind) {
    case K_MASK_WINDOW: case K_MASK_FIXED: return least(m->length, capacity);
    case K_MASK_BLOCK: return least((int64_t)m->length + m->left, capacity);
    case K_MASK_IMAGE: return least(((int64_t)m->query_h + m->flange_h) * m->width, capacity);
    default: return capacity;
    }
}

/* Keys of one block that are in a summary column, 0 when no head reads them. */
static int64_t summaries(const k_mask *m)
{
    int read = m->kind == K_MASK_FIXED && m->patterns != K_PATTERNS_FIRST;
    return read ? (int64_t)m->summary_len * m->summary_slots : 0;
}

int64_t k_mask_rows(const k_mask *m, int64_t capacity)
{
    int64_t each = summaries(m), blocks = each ? capacity / m->length : 0;
    int64_t rest = each ? most(capacity - blocks * m->length - (m->length - each), 0) : 0;
    return k_mask_ring(m, capacity) + blocks * each + rest;
}

int64_t k_mask_row(const k_mask *m, int64_t capacity, int64_t j) { return j % k_mask_ring(m, capacity); }

int64_t k_mask_summary_row(const k_mask *m, int64_t capacity, int64_t j)
{
    int64_t each = summaries(m), at = each ? j % m->length - (m->length - each) : -1;
    return at < 0 ? -1 : k_mask_ring(m, capacity) + j / m->length * each + at;
}
