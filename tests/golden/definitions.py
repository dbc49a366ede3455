"""The variants by their definitions, without an eye on speed: forward formulas whose gradients the tape takes.

Every function takes a dict of Vars (q, k, v [B,H,T,D], gates, params, states by name), the options and the
mode, and returns (o, {state name: final state}).  Nothing here was taken from the code under test."""
import numpy as np
from tape import (Var, absolute, cat, cos, einsum, elementwise, exp, relu, reshape, sigmoid, sin, softplus, sqrt, tanh, total)


def heads(x, n):
    """Query head h reads key head h * Hk // n."""
    return x if x.shape[1] == n else x[:, np.arange(n) * x.shape[1] // n]


def allowed(B, Tq, Tk, mode, klen):
    """mask [B,1,Tq,Tk] of the keys that a query sees."""
    i, j = np.arange(Tq)[:, None] + Tk - Tq, np.arange(Tk)[None, :]
    m = np.ones((B, 1, Tq, Tk), bool)
    if mode == "causal":
        m &= j <= i
    if klen is not None:
        m &= (j < np.asarray(klen)[:, None, None])[:, None]
    return m


def where(mask, x):
    """x where mask, else an exact 0 without gradient (also where x is not finite)."""
    return Var(np.where(mask, x.v, 0.0), ((x, lambda g: np.where(mask, g, 0.0)),))


# ---- softmax ------------------------------------------------------------------------------------------------

def rope(x, positions, opt):
    """Rotates pairs of x [B,H,T,D] by position times frequency."""
    D = x.shape[3]
    r = opt.get("rope_dim", 0) or D - D % 2
    base, n = opt.get("rope_base", 10000.0), np.arange(r // 2)
    if opt.get("rope_freqs", "standard") == "standard":
        freq = base ** (-2.0 * n / r)
    else:
        freq = base ** (-n / max(r // 2 - 1, 1))
    angle = positions[:, None] * freq[None, :]
    first, second = (2 * n, 2 * n + 1) if opt.get("rope_interleaved", True) else (n, n + r // 2)
    a, b = x[..., first], x[..., second]
    turned = cat([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle), x[..., np.arange(r, D)]], 3)
    place = np.empty(D, int)
    place[first], place[second], place[r:] = n, r // 2 + n, np.arange(r, D)
    return turned[..., place]


def alibi_slopes(H):
    def power(n): return [2.0 ** (-8.0 * (h + 1) / n) for h in range(n)]
    P = 1 << (H.bit_length() - 1)
    return np.array(power(P) if P == H else power(P) + power(2 * P)[0::2][:H - P])


def masked_softmax(s, mask):
    """exp(s) / sum of exp(s) over the keys of mask [B,H,Tq,Tk]; 0 outside it and in rows without a key."""
    mask = np.broadcast_to(mask, s.shape)
    top = np.where(mask, s.v, -np.inf).max(axis=3, keepdims=True)
    e = where(mask, exp(where(mask, s - np.where(np.isfinite(top), top, 0.0))))
    den = total(e, 3)
    return e / (den + (den.v == 0))


def softmax(x, opt, mode, klen, pattern=None):
    """pattern(p, j, h, opt, causal): which of the keys j [1,Tk] the queries at positions p [Tq,1] of head h see, besides
    what mode and klen take away."""
    q, k, v = x["q"], x["k"], x["v"]
    B, H, Tq, D = q.shape
    Tk = k.shape[2]
    pq, pk = np.arange(Tq) + Tk - Tq, np.arange(Tk)
    if opt.get("position") == "rope":
        q, k = rope(q, pq, opt), rope(k, pk, opt)
    k, v = heads(k, H), heads(v, H)
    s = einsum("bhid,bhjd->bhij", q, k) * (opt.get("scale", 0) or D ** -0.5)
    if opt.get("position") == "alibi":
        s = s - alibi_slopes(H)[None, :, None, None] * np.abs(pq[:, None] - pk[None, :])
    mask = allowed(B, Tq, Tk, mode, klen)
    if pattern:
        mask = mask & np.stack([pattern(pq[:, None], pk[None, :], h, opt, mode == "causal") for h in range(H)])
    return einsum("bhij,bhje->bhie", masked_softmax(s, mask), v), {}


# ---- kernel attention ------------------------------------------------------------------------------------------

def elu1(x):
    below = np.exp(np.minimum(x.v, 0))
    return elementwise(x, np.where(x.v > 0, x.v + 1, below), np.where(x.v > 0, 1.0, below))


def dpfp(x, nu):
    r = cat([relu(x), relu(-x)], 3)
    n = r.shape[3]
    return cat([r * r[..., (np.arange(n) - s) % n] for s in range(1, nu + 1)], 3)


def kernel_attention(a, b, v, opt, mode, klen, den_guard=None):
    """num and den over the allowed keys; a [B,H,Tq,m], b [B,Hk,Tk,m]."""
    B, H, Tq, _ = a.shape
    b, v = heads(b, H), heads(v, H)
    w = einsum("bhim,bhjm->bhij", a, b)
    w = where(np.broadcast_to(allowed(B, Tq, b.shape[2], mode, klen), w.shape), w)
    num = einsum("bhij,bhje->bhie", w, v)
    if not opt.get("normalize", True):
        return num
    den = total(w, 3)
    if den_guard:
        den = den + 2 * den_guard * (np.abs(den.v) <= den_guard)
    den = den + opt["denom_eps"]
    empty = den.v == 0
    return where(np.broadcast_to(~empty, num.shape), num / (den + empty))


def linear(x, opt, mode, klen):
    name = opt.get("feature_map", "elu1")
    phi = {"elu1": elu1, "relu": relu, "dpfp": lambda y: dpfp(y, opt.get("nu", 3))}[name]
    return kernel_attention(phi(x["q"]), phi(x["k"]), x["v"], {"denom_eps": 1e-6, **opt}, mode, klen), {}


def favor(x, proj, is_key, opt, present, ctype, eps, stabilizer):
    """Features of x [B,H,T,D] by proj [H,m,D]; present [B,T]: the keys that exist."""
    D = x.shape[3]
    y = x * (opt.get("input_scale", 0) or D ** -0.25)
    u = einsum("bhtd,hmd->bhtm", y, proj)
    m = u.shape[3]
    eta = total(y * y, 3) * 0.5
    there = np.broadcast_to(present[:, None, :, None], eta.shape)
    def over_keys(z): return np.where(there, z, -np.inf).max(axis=(2, 3), keepdims=True)
    if ctype == "trig":
        f = cat([cos(u), sin(u)], 3) * m ** -0.5
        if not is_key:
            return f
        kappa = over_keys(eta.v) if stabilizer == "max" else 0.0
        return f * exp(where(there, eta - np.where(np.isfinite(kappa), kappa, 0.0)))
    if ctype == "hyperbolic":
        u, m = cat([u, -u], 3), 2 * m
    kappa = 0.0
    if stabilizer == "max":
        kappa = over_keys(u.v.max(axis=3, keepdims=True)) if is_key else u.v.max(axis=3, keepdims=True)
        kappa = np.where(np.isfinite(kappa), kappa, 0.0)
    z = u - eta - kappa
    keep = np.broadcast_to(present[:, None, :, None], z.shape) if is_key else np.ones(z.shape, bool)
    return (exp(where(keep, z)) + eps) * m ** -0.5


def presence(x, klen):
    B, _, T, _ = x.shape
    return np.arange(T)[None, :] < (np.full((B, 1), T) if klen is None else np.asarray(klen)[:, None])


def performer(x, opt, mode, klen):
    q, k = x["q"], x["k"]
    H, Hk = q.shape[1], k.shape[1]
    ctype, eps, stabilizer = opt.get("feature_type", "positive"), opt.get("feature_eps", 1e-6), opt.get("stabilizer", "max")
    proj = x["proj"].v * np.ones((Hk, 1, 1))
    a = favor(q, proj[np.arange(H) * Hk // H], 0, opt, np.ones((q.shape[0], q.shape[2]), bool), ctype, eps, stabilizer)
    b = favor(k, proj, 1, opt, presence(k, klen), ctype, eps, stabilizer)
    guard = opt.get("guard", 1e-6) if ctype == "trig" else None
    return kernel_attention(a, b, x["v"], {"denom_eps": 0.0, **opt}, mode, klen, guard), {}


def performer_generalized(x, opt, mode, klen):
    f = {"relu": relu, "abs": absolute, "exp": exp, "sigmoid": sigmoid, "softplus": softplus}[opt.get("kernel_fn", "relu")]
    H, Hk = x["q"].shape[1], x["k"].shape[1]
    def phi(y, shared):
        if opt.get("projection", "orthogonal") != "none":
            y = einsum("bhtd,hmd->bhtm", y, (x["proj"].v * np.ones((Hk, 1, 1)))[shared])
        return f(y) + opt.get("kernel_eps", 1e-3)
    a, b = phi(x["q"], np.arange(H) * Hk // H), phi(x["k"], np.arange(Hk))
    return kernel_attention(a, b, x["v"], {"denom_eps": 0.0, **opt}, mode, klen), {}


# ---- fast weights -------------------------------------------------------------------------------------------------

def fast_features(x, proj, opt):
    name = opt.get("feature_map", "dpfp")
    if name == "favor":
        Hk = proj.shape[0]
        p = proj[np.arange(x.shape[1]) * Hk // x.shape[1]]
        return favor(x, p, 0, opt, np.ones((x.shape[0], x.shape[2]), bool), opt.get("feature_type", "hyperbolic"),
                     opt.get("feature_eps", 0.0), "none")
    return {"dpfp": lambda: dpfp(x, opt.get("nu", 3)), "elu1": lambda: elu1(x), "relu": lambda: relu(x),
            "silu": lambda: x * sigmoid(x), "tanh": lambda: tanh(x), "identity": lambda: x}[name]()


def unit(f, opt):
    eps, how = opt.get("norm_eps", 1e-6), opt.get("qk_norm", "sum")
    return f / (total(f, 3) + eps) if how == "sum" else f / sqrt(total(f * f, 3) + eps) if how == "l2" else f


def write(W, z, b, v, beta, opt, first):
    """One token into W [B,K,m,e] and z [B,K,m]; b [B,K,m], v [B,K,e], beta [B,K,1]."""
    rule = opt.get("update_rule", "delta")
    znew = z + b
    if rule == "sum":
        return W + einsum("bkm,bke->bkme", b, v), znew
    if rule == "gated":
        return W * (1 - beta[..., None]) + einsum("bkm,bke->bkme", beta * b, v), z * (1 - beta) + beta * b
    old = einsum("bkme,bkm->bke", W, b)
    if opt.get("attn_norm", "none") == "full":
        old = old / (total(z * b, 2) + opt.get("attn_eps", 1e-6))
    if rule == "fwm" and first:
        return einsum("bkm,bke->bkme", beta * b, v), znew
    W = W + einsum("bkm,bke->bkme", b, beta * (v - old))
    if rule == "fwm":
        norm = sqrt(total(total(W * W, 3), 2))
        W = W / (1 + relu(norm - 1))
    return W, znew


def read(W, z, a, opt, D):
    """a [B,K,G,Tq,m] against one W; returns [B,K,G,Tq,e]."""
    y = einsum("bkme,bkgim->bkgie", W, a) * (opt.get("scale", 1.0) or D ** -0.5)
    if opt.get("attn_norm", "none") != "none":
        den = einsum("bkgim,bkm->bkgi", a, z)
        y = y / (den[..., None] + opt.get("attn_eps", 1e-6))
    if opt.get("update_rule", "delta") == "fwm":
        n = y.shape[-1]
        y = y - total(y, 4) / n
        y = y / sqrt(total(y * y, 4) / n + 1e-5)
    return y


def fwp(x, opt, mode, klen):
    q, k, v = x["q"], x["k"], x["v"]
    B, H, Tq, D = q.shape
    K, Tk, e = k.shape[1], k.shape[2], v.shape[3]
    proj = x["proj"].v * np.ones((K, 1, 1)) if "proj" in x else None
    a, b = unit(fast_features(q, proj, opt), opt), unit(fast_features(k, proj, opt), opt)
    m = b.shape[3]
    a = reshape(a, (B, K, H // K, Tq, m))
    beta = None
    if "beta" in x:
        beta = sigmoid(x["beta"]) * (2.0 if opt.get("allow_neg_eigval") else 1.0)
    W = x.setdefault("state", Var(np.zeros((B, K, m, e)))) if opt.get("update_rule") != "fwm" else Var(np.zeros((B, K, m, e)))
    z = x.setdefault("z", Var(np.zeros((B, K, m))))
    rows = []
    for t in range(Tk):
        W, z = write(W, z, b[:, :, t], v[:, :, t], beta[:, :, t, None] if beta is not None else None, opt, t == 0)
        if mode == "causal":
            rows.append(read(W, z, a[:, :, :, t:t + 1], opt, D))
    y = cat(rows, 3) if mode == "causal" else read(W, z, a, opt, D)
    return reshape(y, (B, H, Tq, e)), {"state": W, "z": z}


# ---- the rest ----------------------------------------------------------------------------------------------------------

def identity(x, opt, mode, klen):
    return heads(x["v"], x["q"].shape[1]) * 1.0, {}
