"""Memories that are written token by token, and the comparators.  See definitions.py."""
import numpy as np
from definitions import heads, rope
from tape import Var, cat, clamp, einsum, exp, reshape, sigmoid, softplus, sqrt, tanh, total


def scan(q, k, v, S, decay, write, scale):
    """S [B,K,D,E] -> decay(t) S, then + write(S, t) v'-like rows, then read by the queries that share the head."""
    B, H, T, D = q.shape
    K, E = k.shape[1], v.shape[3]
    q, rows = reshape(q, (B, K, H // K, T, D)), []
    for t in range(T):
        S = S * decay(t)
        S = S + einsum("bkd,bke->bkde", k[:, :, t], write(S, t))
        rows.append(reshape(einsum("bkgd,bkde->bkge", q[:, :, :, t], S), (B, K, H // K, 1, E)))
    return reshape(cat(rows, 3), (B, H, T, E)) * scale, {"state": S}


def zero_state(x, *shape):
    return x.setdefault("state", Var(np.zeros(shape)))


def retention(x, opt, mode, klen):
    q, H = x["q"], x["q"].shape[1]
    k, v = heads(x["k"], H), heads(x["v"], H)
    B, _, T, D = q.shape
    if opt.get("position") == "rope":
        positions = np.arange(T) + (float(x["offset"].v.reshape(-1)[0]) if "offset" in x else 0)
        q, k = rope(q, positions, opt), rope(k, positions, opt)
    gamma = 1 - 2.0 ** (-opt.get("decay_exponent", 5.0) - np.arange(H))
    S = zero_state(x, B, H, D, v.shape[3])
    return scan(q, k, v, S, lambda t: gamma[None, :, None, None], lambda S, t: v[:, :, t], opt.get("scale", 0) or D ** -0.5)


def gla(x, opt, mode, klen):
    q, k, v = x["q"], x["k"], x["v"]
    B, K, T, D = k.shape
    decay = exp(clamp(-softplus(-x["gk"]) / opt.get("gate_normalizer", 16.0), opt.get("gate_min", -1e30), np.inf))
    S = zero_state(x, B, K, D, v.shape[3])
    return scan(q, k, v, S, lambda t: decay[:, :, t][..., None], lambda S, t: v[:, :, t], opt.get("scale", 0) or D ** -0.5)


def unit(x, eps):
    return x / sqrt(total(x * x, 3) + eps)


def gated_deltanet(x, opt, mode, klen):
    q, k, v = x["q"], x["k"], x["v"]
    B, K, T, D = k.shape
    if opt.get("qk_l2norm", True):
        q, k = unit(q, opt.get("norm_eps", 1e-6)), unit(k, opt.get("norm_eps", 1e-6))
    alpha = exp(-exp(x["a_log"])[:, None] * softplus(x["a"] + x["dt_bias"][:, None]))
    beta = sigmoid(x["beta"]) * (2.0 if opt.get("allow_neg_eigval") else 1.0)
    def write(S, t):
        return beta[:, :, t][..., None] * (v[:, :, t] - einsum("bkde,bkd->bke", S, k[:, :, t]))
    S = zero_state(x, B, K, D, v.shape[3])
    return scan(q, k, v, S, lambda t: alpha[:, :, t][..., None, None], write, opt.get("scale", 0) or D ** -0.5)


def mamba2(x, opt, mode, klen):
    v, H = x["v"], x["v"].shape[1]
    q, k = heads(x["q"], H), heads(x["k"], H)
    B, _, T, N = q.shape
    delta = clamp(softplus(x["dt"] + x["dt_bias"][:, None]), opt.get("dt_min", 0.0), opt.get("dt_max", 1e30))
    decay = exp(-exp(x["a_log"])[:, None] * delta)
    S = zero_state(x, B, H, N, v.shape[3])
    o, final = scan(q, k, v, S, lambda t: decay[:, :, t][..., None, None], lambda S, t: delta[:, :, t][..., None] * v[:, :, t], 1.0)
    return (o + x["d_skip"][:, None, None] * v if opt.get("use_d", True) else o), final


def lstm(x, opt, mode, klen):
    v = x["v"]
    B, H, T, D = v.shape
    h, c = x.setdefault("h", Var(np.zeros((B, H, D)))), x.setdefault("c", Var(np.zeros((B, H, D))))
    rows = []
    for t in range(T):
        a = einsum("hjd,bhd->bhj", x["w_x"], v[:, :, t]) + einsum("hjd,bhd->bhj", x["w_h"], h) + x["bias"]
        i, f, g, o = (a[:, :, n * D:(n + 1) * D] for n in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        rows.append(h[:, :, None])
    return cat(rows, 2), {"h": h, "c": c}


def conv(x, opt, mode, klen):
    v, w = x["v"], x["weight"]
    B, H, T, D = v.shape
    K, dilation = opt.get("kernel_size", 3), opt.get("dilation", 1)
    left = K - 1 if mode == "causal" else (K - 1) // 2
    o = Var(np.zeros((B, H, T, D))) + (x["bias"][:, None] if opt.get("bias", True) else 0.0)
    for tau in range(K):
        at = np.arange(T) + (tau - left) * dilation
        inside = (at >= 0) & (at < T)
        y = v[:, :, np.where(inside, at, 0)] * inside[:, None]
        depthwise = opt.get("conv_type", "full") == "depthwise"
        o = o + (y * w[:, tau][:, None] if depthwise else einsum("hed,bhtd->bhte", w[:, tau], y))
    return o, {}


VARIANTS = {"retention": retention, "gla": gla, "gated_deltanet": gated_deltanet, "mamba2": mamba2, "lstm": lstm, "conv": conv}
