"""The problems on which harness apply is compared with the witness, and their tensors."""
import numpy as np

CASES = []


def case(variant, mode="causal", B=2, H=2, K=None, Tq=7, Tk=None, D=4, E=None, klen=None, times=1.0, kind="normal", states=False, saturated=1.0, **opt):
    """One problem: H query heads on K key heads (mamba2: H heads of v, K of q and k), widths D and E, values of a kind times
    `times`; buckets and offset stand among the options, but are tensors."""
    CASES.append(dict(variant=variant, mode=mode, shape=(B, H, K or H, Tq, Tk or Tq, D, E or D), klen=klen, times=times, kind=kind,
                      states=states, saturated=saturated, buckets=opt.pop("buckets", None), offset=opt.pop("offset", None), opt=opt))


BOTH = ("causal", "bidirectional")


def everywhere(variant, modes, **opt):
    """Every length with every width; values that tie, that repeat and that are large."""
    for mode in modes:
        for T in (1, 2, 7, 64, 100, 257):
            for D in (4, 16, 64):
                case(variant, mode, Tq=T, D=D, H=2 if T < 64 else 1, **opt)
        for kind in ("ties", "dups"):
            case(variant, mode, Tq=13, kind=kind, **opt)
        case(variant, mode, Tq=13, times=30.0, **opt)


def softmax_cases():
    for T, D in ((1, 1), (2, 4), (7, 16), (64, 64)):
        case("softmax", Tq=T, D=D)
    for mode in ("causal", "bidirectional"):
        case("softmax", mode, B=3, H=6, K=2, D=5, E=3)
        case("softmax", mode, H=3, D=4, klen=(3, 0), output_norm="rms")
        case("softmax", mode, H=3, K=1, D=7, position="rope", times=2.0)
        case("softmax", mode, D=6, position="rope", rope_dim=4, rope_interleaved=False, rope_base=100.0)
        case("softmax", mode, D=8, position="rope", rope_freqs="linspace")
        case("softmax", mode, H=6, K=3, D=4, position="alibi")
        case("softmax", mode, H=4, D=4, position="alibi")
        case("softmax", mode, D=4, times=30.0)
        case("softmax", mode, D=4, kind="ties")
        case("softmax", mode, D=4, kind="zeros")
    case("softmax", "causal", Tq=3, Tk=9, D=5, position="rope")
    case("softmax", "causal", Tq=5, Tk=3, D=5)
    case("softmax", "cross", H=4, K=2, Tq=1, Tk=64, D=16, E=5, times=0.3)
    case("softmax", "cross", B=3, H=1, Tq=9, Tk=5, klen=(5, 0, 2), scale=0.7)


def linear_cases():
    maps = (dict(feature_map="elu1"), dict(feature_map="relu"), dict(feature_map="dpfp", nu=1), dict(feature_map="dpfp", nu=3))
    for f in maps:
        for mode in ("causal", "bidirectional", "cross"):
            case("linear", mode, B=3, H=6, K=3, Tq=7, Tk=11 if mode == "cross" else 7, D=5, E=3, **f)
            case("linear", mode, klen=(4, 0), Tq=7, D=4, kind="ties", **f)
        case("linear", "causal", Tq=64, D=16, normalize=False, **f)
        case("linear", "causal", times=30.0, denom_eps=0.5, **f)
        case("linear", "causal", Tq=3, Tk=8, **f)
    for T, D in ((1, 1), (2, 4), (64, 64)):
        case("linear", Tq=T, D=D)
    case("linear", "causal", kind="zeros", output_norm="rms", output_norm_eps=0.01)


def performer_cases():
    for f in ("positive", "hyperbolic", "trig"):
        exact = dict(feature_type=f, feature_eps=0.0)
        for mode in ("causal", "bidirectional", "cross"):
            case("performer", mode, B=3, H=6, K=3, Tq=7, Tk=11 if mode == "cross" else 7, D=5, E=3, nb_features=16, **exact)
            case("performer", mode, klen=(4, 0), nb_features=8, feature_type=f)
        case("performer", "causal", Tq=64, D=16, nb_features=32, stabilizer="none", denom_eps=1e-6, **exact)
        case("performer", "cross", Tq=1, Tk=64, D=16, nb_features=32, input_scale=1.0, stabilizer="none", times=0.3, denom_eps=1e-6, **exact)
        case("performer", "causal", Tq=3, Tk=8, nb_features=8, **exact)
        case("performer", "causal", kind="ties", nb_features=8, feature_type=f)
    case("performer", "causal", Tq=1, D=1, nb_features=4)
    case("performer", "bidirectional", times=30.0, nb_features=16)
    case("performer", "causal", kind="zeros", nb_features=4)


def fwp_cases():
    for mode, Tq, Tk in (("causal", 7, 7), ("cross", 3, 9), ("cross", 1, 64)):
        for rule in ("sum", "delta", "gated"):
            for f in (dict(feature_map="dpfp", nu=1), dict(feature_map="dpfp", nu=3), dict(feature_map="elu1"), dict(feature_map="relu"),
                      dict(feature_map="favor", nb_features=8)):
                case("fwp", mode, Tq=Tq, Tk=Tk, H=4, K=2, D=4, E=3, update_rule=rule, **f)
            case("fwp", mode, Tq=Tq, Tk=Tk, B=3, H=3, D=5, E=4, update_rule=rule, feature_map="silu", qk_norm="l2")
            case("fwp", mode, Tq=Tq, Tk=Tk, D=4, E=3, update_rule=rule, feature_map="elu1", attn_norm="output", states=True)
        case("fwp", mode, Tq=Tq, Tk=Tk, D=4, update_rule="delta", feature_map="elu1", attn_norm="full", states=True)
        case("fwp", mode, Tq=Tq, Tk=Tk, D=4, update_rule="delta", feature_map="tanh", qk_norm="none", times=0.3)
        case("fwp", mode, Tq=Tq, Tk=Tk, D=4, update_rule="delta", feature_map="identity", qk_norm="l2", allow_neg_eigval=True, states=True)
        for f in (dict(feature_map="dpfp", nu=1), dict(feature_map="tanh")):
            case("fwp", mode, Tq=Tq, Tk=Tk, H=4, K=2, D=4, E=3, update_rule="fwm", qk_norm="none", **f)
    for T, D in ((1, 1), (1, 4), (2, 4), (64, 16)):
        case("fwp", Tq=T, D=D, nu=1)
    case("fwp", D=4, times=30.0, states=True)
    case("fwp", D=4, kind="ties")
    case("fwp", D=4, kind="zeros")
    case("fwp", H=3, K=1, D=5, E=7, output_norm="rms")
    case("fwp", update_rule="delta", feature_map="silu", qk_norm="l2", scale=0.0)


def identity_cases():
    for mode in ("causal", "bidirectional"):
        case("identity", mode, B=3, H=6, K=2, D=3, E=5)
        case("identity", mode, Tq=1, D=1, output_norm="rms")


def general_cases():
    for f in ("relu", "abs", "exp", "sigmoid", "softplus"):
        for mode in ("causal", "bidirectional", "cross"):
            case("performer_generalized", mode, B=3, H=6, K=3, Tq=7, Tk=11 if mode == "cross" else 7, D=5, E=3, nb_features=8, kernel_fn=f)
        case("performer_generalized", "bidirectional", D=4, klen=(4, 0), projection="none", kernel_fn=f, denom_eps=0.5)
        case("performer_generalized", Tq=64, D=16, nb_features=16, kernel_fn=f, normalize=False, times=0.3)
        case("performer_generalized", Tq=3, Tk=8, E=3, projection="none", kernel_fn=f)
        case("performer_generalized", kind="dups", nb_features=8, kernel_fn=f, kernel_eps=0.0)
    for T, D in ((1, 1), (2, 64), (257, 16)):
        case("performer_generalized", Tq=T, D=D, nb_features=16)
    case("performer_generalized", times=30.0, nb_features=16)
    case("performer_generalized", times=30.0, nb_features=16, kernel_fn="softplus")
    case("performer_generalized", kind="zeros", nb_features=4, kernel_eps=0.0)
    case("performer_generalized", kind="ties", projection="none", kernel_eps=0.0, output_norm="rms")


def masks_cases(variant, sets, small):
    """sets: options that tell apart what there is; small: one of them for every size."""
    for mode in ("causal", "bidirectional"):
        for opt in sets if mode == "causal" else sets[::2]:
            case(variant, mode, H=4, K=2, Tq=23, D=5, E=3, **opt)
        case(variant, mode, H=3, K=1, Tq=19, klen=(11, 0), **small)
        case(variant, mode, H=6, K=3, Tq=19, D=7, position="rope", output_norm="rms", **small)
        case(variant, mode, H=6, Tq=19, position="alibi", scale=0.7, **small)
        case(variant, mode, Tq=13, kind="zeros", **small)
    everywhere(variant, BOTH, **small)
    case(variant, "causal", Tq=6, Tk=23, H=4, K=2, D=5, E=3, **small)
    case(variant, "causal", Tq=9, Tk=5, **small)


def sparse_cases():
    heads = [dict(head_mode=m) for m in ("merged", "split", "first", "second")]
    masks_cases("sliding_window", [dict(window=w) for w in (1, 4, 23, 256)], dict(window=5))
    masks_cases("sparse_strided", [dict(stride=s, **h) for s in (1, 5, 128) for h in heads], dict(stride=4, head_mode="split"))
    masks_cases("sparse_fixed", [dict(stride=s, summary_len=c, summary_slots=n, **h) for s, c, n in ((1, 1, 1), (7, 2, 3), (5, 1, 2)) for h in heads],
                dict(stride=6, summary_len=2, summary_slots=2, head_mode="split"))


def local_cases():
    masks_cases("local_1d", [dict(block_length=b, memory_left=m, memory_right=r) for b, m, r in ((1, 0, 0), (4, -1, -1), (5, 2, 0), (3, 7, 1), (128, 3, 9))],
                dict(block_length=4, memory_left=6))
    image = dict(width=5, query_h=2, query_w=3, flange_h=1, flange_w=2)
    masks_cases("local_2d", [dict(image, query_h=1, query_w=1), dict(image, flange_h=0, flange_w=0), dict(image, width=23), dict(width=6)], image)
    for T in (1, 20, 23):
        case("local_2d", Tq=T, H=2, D=5, order="block", **image)
        case("local_2d", "bidirectional", Tq=T, H=2, D=5, order="block", **image)
    case("local_2d", Tq=37, D=5, position="rope", klen=(37, 21), order="block", **image)


def relative_cases():
    for mode in ("causal", "bidirectional"):
        for beyond in ("zero", "clamp"):
            for m in (1, 5, 23, 128):
                case("relative", mode, H=4, K=2, Tq=23, D=5, E=3, max_distance=m, beyond=beyond, relative_values=m == 5, share_heads=m == 23)
        case("relative", mode, Tq=19, max_distance=6, block_length=4, share_heads=True, relative_values=True, scale=0.3)
        case("relative", mode, Tq=13, kind="zeros", max_distance=6)
        case("relative", mode, Tq=13, times=30.0, max_distance=6, output_norm="rms")
    everywhere("relative", BOTH, max_distance=9, relative_values=True)


def lsh_cases():
    for mode in ("causal", "bidirectional"):
        for across in (True, False):
            for dedup in (True, False):
                case("lsh", mode, Tq=23, D=5, E=3, chunk_len=4, n_rounds=3, n_buckets=[6], attend_across_buckets=across, dedup=dedup, buckets=6)
                case("lsh", mode, Tq=24, H=3, D=4, chunk_len=4, n_rounds=2, n_buckets=[4], attend_across_buckets=across, dedup=dedup, lookback_wrap=True,
                     buckets=4)
            case("lsh", mode, Tq=19, D=6, chunk_len=4, n_rounds=2, n_buckets=[4, 2], attend_across_buckets=across)
        case("lsh", mode, Tq=13, n_rounds=0, scale=0.0, key_eps=0.1)
        for kind in ("ties", "dups", "zeros"):
            case("lsh", mode, Tq=13, kind=kind, chunk_len=4, n_rounds=2, n_buckets=[4], buckets=4)
        case("lsh", mode, Tq=13, times=30.0, chunk_len=4, n_rounds=2, output_norm="rms")
    case("lsh", Tq=8, chunk_len=8, n_rounds=1, n_buckets=[2], lookback_wrap=True, buckets=2)
    everywhere("lsh", BOTH, chunk_len=8, n_rounds=2)


def memory_cases(variant, sets):
    """What all recurrent memories have in common, then the option sets."""
    for opt in sets:
        case(variant, B=3, H=6, K=2, Tq=11, D=5, E=3, states=True, **opt)
    everywhere(variant, ["causal"])
    case(variant, Tq=1, D=1)
    case(variant, Tq=13, kind="zeros")
    case(variant, Tq=70, D=4, states=True, saturated=30.0)
    case(variant, Tq=13, H=4, K=1, output_norm="rms")


def recurrent_cases():
    memory_cases("retention", [{}, dict(decay_exponent=1.0), dict(scale=1.0), dict(position="rope"), dict(position="rope", rope_freqs="linspace", offset=5),
                               dict(position="rope", rope_dim=2, rope_interleaved=False, rope_base=100.0)])
    memory_cases("gla", [{}, dict(gate_normalizer=1.0), dict(gate_normalizer=1.0, gate_min=-0.7), dict(scale=0.5)])
    memory_cases("gated_deltanet", [{}, dict(qk_l2norm=False, scale=0.3), dict(allow_neg_eigval=True), dict(norm_eps=0.1), dict(scale=2.0)])
    memory_cases("mamba2", [{}, dict(use_d=False), dict(dt_min=0.5), dict(dt_max=0.6), dict(dt_min=0.3, dt_max=0.9)])


def comparator_cases():
    for T, D in ((1, 1), (2, 4), (7, 16), (33, 5), (64, 16)):
        case("lstm", B=3, H=3, Tq=T, D=D, states=T > 2)
    case("lstm", B=9, H=1, Tq=40, D=8, states=True, output_norm="rms")
    case("lstm", Tq=7, times=30.0)
    case("lstm", Tq=7, kind="zeros")
    case("lstm", Tq=13, kind="dups")
    for mode in ("causal", "bidirectional"):
        for conv_type in ("full", "depthwise"):
            for K, dilation in ((1, 1), (2, 1), (3, 2), (4, 3), (5, 40)):
                case("conv", mode, B=3, H=3, Tq=17, D=5, conv_type=conv_type, kernel_size=K, dilation=dilation, bias=K != 3)
            case("conv", mode, Tq=257, D=16, conv_type=conv_type)
            case("conv", mode, Tq=1, D=1, conv_type=conv_type, output_norm="rms")
        case("conv", mode, Tq=100, D=64, H=1)
        case("conv", mode, times=30.0, kernel_size=2)


def make_cases():
    softmax_cases(), linear_cases(), performer_cases(), general_cases(), fwp_cases(), identity_cases()
    sparse_cases(), local_cases(), relative_cases(), lsh_cases(), recurrent_cases(), comparator_cases()
    for variant, opt in (("softmax", {}), ("linear", {}), ("performer", dict(nb_features=16)), ("performer_generalized", dict(nb_features=16)),
                         ("identity", {}), ("conv", {})):
        everywhere(variant, BOTH, **opt)
    everywhere("fwp", ["causal"], nu=1)
    everywhere("lstm", ["causal"])


# ---- tensors ----------------------------------------------------------------------------------------------------------

def values(c, rng, shape):
    a = rng.standard_normal(shape) * c["times"]
    if c["kind"] == "dups":
        return a[:, :, np.arange(shape[2]) // 3]
    return np.round(2 * a) / 2 if c["kind"] == "ties" else a * 0 if c["kind"] == "zeros" else a


def fast_weights(c, rng):
    B, H, K, Tq, Tk, D, E = c["shape"]
    opt, x = c["opt"], {}
    if opt.get("update_rule", "delta") != "sum":
        x["beta"] = rng.standard_normal((B, K, Tk))
    m = {"dpfp": 2 * opt.get("nu", 3) * D, "favor": 2 * opt.get("nb_features", 0)}.get(opt.get("feature_map", "dpfp"), D)
    if c["states"]:
        x["state"] = rng.standard_normal((B, K, m, E))
        if opt.get("attn_norm", "none") != "none":
            x["z"] = np.abs(rng.standard_normal((B, K, m)))
    return x


def memory(c, rng):
    """Gates, parameters and the state of the recurrent variants; saturated: how large gates are."""
    B, H, K, T, _, D, E = c["shape"]
    variant, x, large = c["variant"], {}, c["saturated"]
    def gate(*shape): return rng.standard_normal(shape) * large
    if variant == "gla":
        x["gk"] = gate(B, K, T, D)
    if variant == "gated_deltanet":
        x.update(a=gate(B, K, T), beta=gate(B, K, T), a_log=rng.standard_normal(K), dt_bias=rng.standard_normal(K))
    if variant == "mamba2":
        x.update(dt=gate(B, H, T), a_log=rng.standard_normal(H), dt_bias=rng.standard_normal(H))
        if c["opt"].get("use_d", True):
            x["d_skip"] = rng.standard_normal(H)
    if c["states"]:
        x["state"] = rng.standard_normal((B, H if variant in ("retention", "mamba2") else K, D, E))
    if c["offset"] is not None:
        x["offset"] = np.array([c["offset"]])
    return x


def hashing(c, rng):
    B, H, _, T, _, D, _ = c["shape"]
    opt = c["opt"]
    R = opt.get("n_rounds", 4)
    if c["buckets"]:
        return {"buckets": rng.integers(0, c["buckets"], (B, H, R, T))}
    factors = opt.get("n_buckets", [0])
    columns = max(1, T // opt.get("chunk_len", 64)) if factors == [0] else sum(factors) // 2
    return {"rotations": rng.standard_normal((H, R, D, columns))} if R else {}


def extras(c, rng):
    """What a variant takes besides q, k and v."""
    B, H, K, Tq, Tk, D, E = c["shape"]
    variant, opt, x = c["variant"], c["opt"], {}
    if "nb_features" in opt:
        x["proj"] = rng.standard_normal((1 if rng.random() < 0.5 else K, opt["nb_features"], D))
    if variant == "fwp":
        x.update(fast_weights(c, rng))
    if variant in ("retention", "gla", "gated_deltanet", "mamba2"):
        x.update(memory(c, rng))
    if variant == "lsh":
        x.update(hashing(c, rng))
    if variant == "relative":
        M = opt.get("max_distance", 128)
        table = (1 if opt.get("share_heads") else H, M if c["mode"] == "causal" else 2 * M - 1)
        x["rel_k"] = rng.standard_normal(table + (D,))
        if opt.get("relative_values"):
            x["rel_v"] = rng.standard_normal(table + (E,))
    if variant == "lstm":
        x.update(w_x=rng.standard_normal((H, 4 * E, E)) / E ** 0.5, w_h=rng.standard_normal((H, 4 * E, E)) / E ** 0.5, bias=rng.standard_normal((H, 4 * E)))
        if c["states"]:
            x.update(h=rng.standard_normal((B, H, E)), c=rng.standard_normal((B, H, E)))
    if variant == "conv":
        depthwise = opt.get("conv_type", "full") == "depthwise"
        x["weight"] = rng.standard_normal((H, opt.get("kernel_size", 3)) + ((E,) if depthwise else (E, E)))
        if opt.get("bias", True):
            x["bias"] = rng.standard_normal((H, E))
    return x


def draw(c, rng, dtype):
    """All tensors of a case, rounded to the precision that harness will see, and the gradient of o."""
    B, H, K, Tq, Tk, D, E = c["shape"]
    mamba = c["variant"] == "mamba2"
    shapes = dict(q=(B, K if mamba else H, Tq, D), k=(B, K, Tk, D), v=(B, H if mamba else K, Tk, E))
    reads = {"lsh": "qv", "lstm": "v", "conv": "v"}.get(c["variant"], "qkv")
    x = {name: values(c, rng, shapes[name]) for name in reads}
    x.update(extras(c, rng))
    return ({n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in x.items()}, rng.standard_normal((B, H, Tq, E)).astype(dtype))
