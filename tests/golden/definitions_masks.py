"""The softmax family beyond plain softmax: sets of visible keys, relative positions, hashing.  See definitions.py."""
import numpy as np
from definitions import allowed, heads, masked_softmax, softmax
from tape import Var, einsum, sqrt, total


# ---- sets of keys: p [Tq,1] positions of queries, j [1,Tk] of keys ---------------------------------------------

def window(p, j, h, opt, causal):
    return np.abs(p - j) < opt.get("window", 256)


def of_head(first, second, h, opt):
    how = opt.get("head_mode", "merged")
    if how == "split":
        how = "second" if h % 2 else "first"
    return first | second if how == "merged" else first if how == "first" else second


def strided(p, j, h, opt, causal):
    stride = opt.get("stride", 128)
    return of_head(np.abs(p - j) < stride, (p - j) % stride == 0, h, opt)


def fixed(p, j, h, opt, causal):
    stride, c, slots = opt.get("stride", 128), opt.get("summary_len", 8), opt.get("summary_slots", 1)
    slot = (h // 2 if opt.get("head_mode") == "split" else h) % slots
    place = j % stride
    summary = (stride - c * (slot + 1) <= place) & (place < stride - c * slot)
    return of_head(j // stride == p // stride, summary & (p == p), h, opt)


def blocks(p, j, length, left, right):
    first = p // length * length
    return (first - left <= j) & (j < first + length + right)


def local_1d(p, j, h, opt, causal):
    b, left, right = opt.get("block_length", 128), opt.get("memory_left", -1), opt.get("memory_right", -1)
    left = b if left == -1 else left
    right = 0 if causal else left if right == -1 else right
    return blocks(p, j, b, left, right)


def local_2d(p, j, h, opt, causal):
    qh, qw, fh, fw = opt.get("query_h", 8), opt.get("query_w", 16), opt.get("flange_h", 8), opt.get("flange_w", 16)
    r, c, row, column = p // opt["width"], p % opt["width"], j // opt["width"], j % opt["width"]
    r0, c0 = r // qh * qh, c // qw * qw
    columns = (c0 - fw <= column) & (column < c0 + qw + fw)
    if not causal:
        return (r0 - fh <= row) & (row < r0 + qh + fh) & columns
    top = (r0 - fh <= row) & (row < r0) & columns
    here = (r0 <= row) & (row < r0 + qh)
    left = here & (c0 - fw <= column) & (column < c0)
    own = here & (c0 <= column) & (column < c0 + qw) & (j <= p)
    seen = top | left | own
    return seen if opt.get("order", "raster") == "block" else seen & (j <= p)


def masked(pattern):
    return lambda x, opt, mode, klen: softmax(x, opt, mode, klen, pattern)


def image(x, opt, mode, klen):
    """In block order a query sees keys behind it: then the pattern alone is causal."""
    if mode == "causal" and opt.get("order", "raster") == "block":
        return softmax(x, opt, "bidirectional", klen, lambda p, j, h, o, causal: local_2d(p, j, h, o, True))
    return softmax(x, opt, mode, klen, local_2d)


# ---- relative positions ------------------------------------------------------------------------------------------

def relative(x, opt, mode, klen):
    q, k, v, rel_k = x["q"], x["k"], x["v"], x["rel_k"]
    B, H, T, D = q.shape
    M, b = opt.get("max_distance", 128), opt.get("block_length", 0)
    p, j = np.arange(T)[:, None], np.arange(T)[None, :]
    row, last = j - p + M - 1, rel_k.shape[1] - 1
    there = np.ones((T, T)) if opt.get("beyond", "zero") == "clamp" else (row >= 0) & (row <= last)
    row = np.clip(row, 0, last)
    def table(w):
        w = w if w.shape[0] == H else w[np.zeros(H, int)]
        return w[:, row] * there[None, :, :, None]
    k, v = heads(k, H), heads(v, H)
    s = einsum("bhid,bhjd->bhij", q, k) + einsum("bhid,hijd->bhij", q, table(rel_k))
    mask = allowed(B, T, T, mode, klen)
    if b:
        mask = mask & blocks(p, j, b, b, 0 if mode == "causal" else b)
    w = masked_softmax(s * (opt.get("scale", 0) or D ** -0.5), mask)
    o = einsum("bhij,bhje->bhie", w, v)
    return (o + einsum("bhij,hije->bhie", w, table(x["rel_v"])) if opt.get("relative_values") else o), {}


# ---- hashing -------------------------------------------------------------------------------------------------------

def hashed(q, rotations, factors):
    """Buckets [B,H,R,T] of q [B,H,T,D] by rotations [1 or H,R,D,sum of the factors / 2]."""
    y = np.einsum("bhtd,hrdn->bhrtn", q, rotations * np.ones((q.shape[1], 1, 1, 1)))
    bucket, at, weight = 0, 0, 1
    for f in factors:
        part = y[..., at:at + f // 2]
        bucket = bucket + weight * np.argmax(np.concatenate([part, -part], axis=-1), axis=-1)
        at, weight = at + f // 2, weight * f
    return bucket


def met(bucket, opt):
    """How often query i meets key j in each round: [R,T,T] of bucket [R,T]."""
    R, T = bucket.shape
    c, wrap = opt.get("chunk_len", 64), opt.get("lookback_wrap", False)
    order = np.argsort(bucket, axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")            # of token t in round r
    chunk = place // c + (np.arange(R)[:, None] * (T // c) if wrap else 0)
    count, n = R * (T // c), np.zeros((R, T, T))
    for r in range(R):
        own, before = chunk[r], chunk[r] - 1
        n[r] += own[:, None] == own[None, :]
        if not wrap:
            n[r] += before[:, None] == own[None, :]
        if not opt.get("attend_across_buckets", True):
            n[r] *= bucket[r][:, None] == bucket[r][None, :]
        for s in range(R if wrap else 0):
            back = (before % count)[:, None] == chunk[s][None, :]
            if not opt.get("attend_across_buckets", True):
                back = back & (bucket[r][:, None] == bucket[s][None, :]) & (r == s)
            n[r] += back
    return n


def lsh(x, opt, mode, klen):
    q, v = x["q"], x["v"]
    B, H, T, D = q.shape
    if opt.get("n_rounds", 4) == 0:
        n = np.ones((B, H, 1, T, T))
    else:
        if "buckets" in x:
            bucket = x["buckets"].v
        else:
            factors = opt.get("n_buckets", [0])
            bucket = hashed(q.v, x["rotations"].v, [2 * max(1, T // opt.get("chunk_len", 64))] if factors == [0] else factors)
        n = np.stack([[met(bucket[b, h], opt) for h in range(H)] for b in range(B)])
    if mode == "causal":
        n = n * (np.arange(T)[None, :] <= np.arange(T)[:, None])
    k = q / sqrt(total(q * q, 3) + D * opt.get("key_eps", 1e-6))
    s = einsum("bhid,bhjd->bhij", q, k) * (opt.get("scale", 1.0) or D ** -0.5) - 1e5 * np.eye(T)
    many = n.sum(axis=2)
    if opt.get("dedup"):
        many = np.minimum(many, 1)
    s = s + Var(np.log(np.maximum(many, 1)))
    return einsum("bhij,bhje->bhie", masked_softmax(s, many > 0), v), {}


VARIANTS = {"sliding_window": masked(window), "sparse_strided": masked(strided), "sparse_fixed": masked(fixed),
            "local_1d": masked(local_1d), "local_2d": image, "relative": relative, "lsh": lsh}
