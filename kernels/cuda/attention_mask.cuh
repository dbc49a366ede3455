/* attention_mask.cuh - the allowed sets of kernels/mask.h, cut for tiles of rows and columns.
 *
 * The CPU cuts a set into views of one step, because its matrix products read rows at one distance.  Tiles gather
 * their rows, so that a set has at most three passes here: in pass n a query at p sees the positions
 *     from <= j < to   whose column   j mod width   is   left <= column < right,
 * where width is that of the pass: a picture's rows, the blocks of summaries, or the stride, whose transposed columns
 * are one position wide.  from and to never fall while p rises; two passes never show a query the same key.
 *
 * Queries and keys are cut into views in which left and right are the same for all, and views into tiles. */
#ifndef ATTENTION_MASK_CUH
#define ATTENTION_MASK_CUH
#include "../mask.h"

#define BOTH __host__ __device__ inline

struct seen { int from, to, left, right; };

/* Row r, begin <= r < n, is at position base + r / run * step + r % run. */
struct view { int base, run, step, begin, n; };

/* A run of passes over one way of cutting queries, or keys. */
struct stage { int from, to; };

BOTH int least(int a, int b) { return a < b ? a : b; }
BOTH int most(int a, int b) { return a > b ? a : b; }
BOTH int floor_div(int a, int b) { return a / b - (a % b < 0); }
BOTH int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* Position of row r. */
BOTH int position(const view &v, int r)
{
    return v.run == K_FAR ? v.base + r : v.base + r / v.run * v.step + r % v.run;
}

/* Rows at positions before x. */
BOTH int rows_before(const view &v, int x)
{
    int d = x - v.base;
    return d <= 0 ? 0 : least(d / v.step * v.run + least(d % v.step, v.run), v.n);
}

/* ---- passes ------------------------------------------------------------------------------------------------ */

BOTH bool two_patterns(const k_mask &m) { return m.kind == K_MASK_STRIDED || m.kind == K_MASK_FIXED; }

/* How many passes a set has. */
BOTH int pass_count(const k_mask &m)
{
    if (m.kind == K_MASK_IMAGE)
        return !m.causal ? 1 : m.order == K_ORDER_BLOCK ? 3 : 2;
    return !two_patterns(m) ? 1 : m.patterns == K_PATTERNS_MERGED && !m.causal ? 3 : 2;
}

/* Whether a head goes through pass n. */
BOTH bool has_pass(const k_mask &m, int n, int head)
{
    if (!two_patterns(m) || m.patterns == K_PATTERNS_MERGED)
        return true;
    bool first = m.patterns == K_PATTERNS_FIRST || (m.patterns == K_PATTERNS_SPLIT && head % 2 == 0);
    return first == (n == 0);
}

/* After how many positions the columns of pass n come again. */
BOTH int pass_width(const k_mask &m, int n)
{
    return m.kind == K_MASK_IMAGE ? m.width : two_patterns(m) && n > 0 ? m.length : K_FAR;
}

/* The second pattern: all keys of its columns, or those before and after what the first pattern has, own .. own_end. */
BOTH seen in_columns(const k_mask &m, int n, int p, int own, int own_end)
{
    if (m.patterns != K_PATTERNS_MERGED)
        return { 0, m.causal ? p + 1 : K_FAR, 0, 0 };
    return n == 1 ? seen{ 0, own, 0, 0 } : seen{ own_end, K_FAR, 0, 0 };
}

/* A picture's rectangles: all, or the rows above the query's block, then beside and inside it. */
BOTH seen in_picture(const k_mask &m, int n, int p)
{
    if (p < 0)
        return { 0, 0, 0, 0 };
    int r0 = p / m.width / m.query_h * m.query_h, c0 = p % m.width / m.query_w * m.query_w;
    int left = most(c0 - m.flange_w, 0), right = least(c0 + m.query_w + m.flange_w, m.width);
    int above = most(r0 - m.flange_h, 0) * m.width, level = r0 * m.width, below = (r0 + m.query_h) * m.width;
    int own = least(c0 + m.query_w, m.width);
    if (!m.causal)
        return { above, below + m.flange_h * m.width, left, right };
    if (n == 0)
        return { above, level, left, right };
    if (m.order == K_ORDER_RASTER)
        return { level, p + 1, left, own };
    return n == 1 ? seen{ level, below, left, c0 } : seen{ level, p + 1, c0, own };
}

/* What the query at p sees in pass n. */
BOTH seen sees(const k_mask &m, int n, int head, int p)
{
    int l = m.length, block = m.kind == K_MASK_BLOCK || m.kind == K_MASK_FIXED ? floor_div(p, l) * l : 0;
    if (m.kind == K_MASK_IMAGE)
        return in_picture(m, n, p);
    if (m.kind == K_MASK_STRIDED && n > 0) {
        seen s = in_columns(m, n, p, p, p + 1);
        s.left = p - floor_div(p, l) * l;
        s.right = s.left + 1;
        return s;
    }
    if (m.kind == K_MASK_FIXED && n > 0) {
        int slot = (m.patterns == K_PATTERNS_SPLIT ? head / 2 : head) % m.summary_slots;
        seen s = in_columns(m, n, p, block, block + l);
        s.right = l - slot * m.summary_len;
        s.left = s.right - m.summary_len;
        return s;
    }
    seen s = { 0, K_FAR, 0, K_FAR };
    if (m.kind == K_MASK_WINDOW || m.kind == K_MASK_STRIDED)
        s = { p - l + 1, p + l, 0, K_FAR };
    if (m.kind == K_MASK_BLOCK || m.kind == K_MASK_FIXED) {
        bool beside = m.kind == K_MASK_BLOCK;
        s = { block - (beside ? m.left : 0), block + l + (beside ? m.right : 0), 0, K_FAR };
    }
    if (m.causal)
        s.to = p + 1;
    return s;
}

/* Positions from .. to - 1 of the queries that see some of the keys a .. b in pass n, if their columns allow. */
BOTH stage seers(const k_mask &m, int n, int a, int b)
{
    int l = m.length;
    stage s = { -K_FAR, K_FAR };
    if (m.kind == K_MASK_WINDOW || (m.kind == K_MASK_STRIDED && n == 0))
        s = { a - l + 1, b + l };
    if (m.kind == K_MASK_BLOCK)
        s = { floor_div(a - m.right, l) * l, (floor_div(b + m.left, l) + 1) * l };
    if (m.kind == K_MASK_FIXED && n == 0)
        s = { floor_div(a, l) * l, (floor_div(b, l) + 1) * l };
    if (two_patterns(m) && m.patterns == K_PATTERNS_MERGED && n > 0) {
        const int after = m.kind == K_MASK_FIXED ? (floor_div(a, l) + 1) * l : a + 1, before = m.kind == K_MASK_FIXED ? floor_div(b, l) * l : b;
        s = n == 1 ? stage{ after, K_FAR } : stage{ -K_FAR, before };
    }
    if (m.causal && !(m.kind == K_MASK_IMAGE && m.order == K_ORDER_BLOCK))
        s.from = most(s.from, a);
    return s;
}

/* ---- views ------------------------------------------------------------------------------------------------- */

/* The keys that queries with these columns see in pass n. */
BOTH view keys_of(const k_mask &m, int n, const seen &s, int keys)
{
    view v = { s.left, s.right - s.left, pass_width(m, n), 0, K_FAR };
    v.n = rows_before(v, keys);
    return v;
}

/* Stages in which queries, or keys, are cut; returns how many.  Every key is in some stage. */
BOTH int stages_of(const k_mask &m, bool keys, stage (&s)[2])
{
    int n = 0, passes = pass_count(m);
    if (m.kind != K_MASK_STRIDED && !(m.kind == K_MASK_FIXED && keys)) {
        s[0] = { 0, passes };
        return 1;
    }
    if (m.kind == K_MASK_FIXED || m.patterns != K_PATTERNS_SECOND)
        s[n++] = { 0, 1 };
    if (m.patterns != K_PATTERNS_FIRST)
        s[n++] = { 1, passes };
    return n;
}

/* How the positions first .. first + n - 1 are cut in a stage: views, and rows of the longest. */
struct cut { int views, rows; };
BOTH cut cut_of(const k_mask &m, stage s, int first, int n)
{
    if (m.kind == K_MASK_IMAGE) {
        int tall = m.query_h * m.width, high = floor_div(first + n - 1, tall) - floor_div(first, tall) + 1;
        return { high * ceil_div(m.width, m.query_w), m.query_h * m.query_w };
    }
    if (m.kind == K_MASK_STRIDED && s.from > 0)
        return { least(m.length, n), ceil_div(n, m.length) };
    return { 1, n };
}

/* View number i of that cut; keys: of keys, whose second stage of the fixed set is that of summaries. */
BOTH view view_of(const k_mask &m, stage s, bool keys, int first, int n, int i)
{
    view v = { first, K_FAR, K_FAR, 0, n };
    if (m.kind == K_MASK_IMAGE) {
        int wide = ceil_div(m.width, m.query_w), tall = m.query_h * m.width, c0 = i % wide * m.query_w;
        v = { (floor_div(first, tall) + i / wide) * tall + c0, least(m.query_w, m.width - c0), m.width, 0, 0 };
        v.n = m.query_h * v.run;
        v.begin = rows_before(v, first);
    } else if (m.kind == K_MASK_STRIDED && s.from > 0) {
        v = { first + i, 1, m.length, 0, K_FAR };
    } else if (keys && m.kind == K_MASK_FIXED && s.from > 0) {
        int each = m.summary_len * m.summary_slots;
        v = { m.length - each, each, m.length, 0, K_FAR };
    }
    v.n = rows_before(v, first + n);
    return v;
}

/* The queries at first .. first + n - 1 that may see keys a .. b, of the view with the columns of the key at a. */
BOTH view queries_of(const k_mask &m, int pass, int first, int n, int a, int b)
{
    stage p = seers(m, pass, a, b);
    view v = { first, K_FAR, K_FAR, 0, n };
    if (m.kind == K_MASK_IMAGE) {
        int up = ceil_div(m.flange_h, m.query_h), side = ceil_div(m.flange_w, m.query_w);
        int row = a / m.width / m.query_h, column = a % m.width / m.query_w;
        int c0 = most(column - side, 0) * m.query_w, c1 = least((column + side + 1) * m.query_w, m.width);
        v = { most(row - up, 0) * m.query_h * m.width + c0, c1 - c0, m.width, 0, K_FAR };
        p.to = least(p.to, (row + up + 1) * m.query_h * m.width);
    } else if (m.kind == K_MASK_STRIDED && pass > 0) {
        int away = a - first;
        v = { first + away - floor_div(away, m.length) * m.length, 1, m.length, 0, K_FAR };
    }
    v.n = rows_before(v, least(first + n, p.to));
    v.begin = rows_before(v, most(first, p.from));
    return v;
}
#endif
