"""harness apply against an independent computation: TAP lines, one per case and precision.

usage: apply_numpy.py HARNESS FOLDER_OF_VARIANTS SCRATCH_FOLDER"""
import concurrent.futures
import os
import subprocess
import sys
import numpy as np
import definitions

HARNESS, PLUGINS, SCRATCH = sys.argv[1:4]
CASES = []


def case(variant, mode="causal", B=2, H=2, K=None, Tq=7, Tk=None, D=4, E=None, klen=None, scale=1.0, kind="normal", states=False, **opt):
    """One problem: H query heads on K key heads, widths D and E, values of a kind times scale."""
    Tk = Tk or Tq
    CASES.append(dict(variant=variant, mode=mode, shape=(B, H, K or H, Tq, Tk, D, E or D), klen=klen, scale=scale, kind=kind,
                      states=states, opt=opt))


def softmax_cases():
    for T, D in ((1, 1), (2, 4), (7, 16), (64, 64)):
        case("softmax", Tq=T, D=D)
    for mode in ("causal", "bidirectional"):
        case("softmax", mode, B=3, H=6, K=2, D=5, E=3)
        case("softmax", mode, H=3, D=4, klen=(3, 0), output_norm="rms")
        case("softmax", mode, H=3, K=1, D=7, position="rope", scale=2.0)
        case("softmax", mode, D=6, position="rope", rope_dim=4, rope_interleaved=False, rope_base=100.0)
        case("softmax", mode, D=8, position="rope", rope_freqs="linspace")
        case("softmax", mode, H=6, K=3, D=4, position="alibi")
        case("softmax", mode, H=4, D=4, position="alibi")
        case("softmax", mode, D=4, scale=30.0)
        case("softmax", mode, D=4, kind="ties")
        case("softmax", mode, D=4, kind="zeros")
    case("softmax", "causal", Tq=3, Tk=9, D=5, position="rope")
    case("softmax", "causal", Tq=5, Tk=3, D=5)
    case("softmax", "cross", H=4, K=2, Tq=1, Tk=64, D=16, E=5, scale=0.3)
    case("softmax", "cross", B=3, H=1, Tq=9, Tk=5, klen=(5, 0, 2))
    CASES[-1]["opt"]["scale"] = 0.7


def linear_cases():
    maps = (dict(feature_map="elu1"), dict(feature_map="relu"), dict(feature_map="dpfp", nu=1), dict(feature_map="dpfp", nu=3))
    for f in maps:
        for mode in ("causal", "bidirectional", "cross"):
            case("linear", mode, B=3, H=6, K=3, Tq=7, Tk=11 if mode == "cross" else 7, D=5, E=3, **f)
            case("linear", mode, klen=(4, 0), Tq=7, D=4, kind="ties", **f)
        case("linear", "causal", Tq=64, D=16, normalize=False, **f)
        case("linear", "causal", scale=30.0, denom_eps=0.5, **f)
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
        case("performer", "cross", Tq=1, Tk=64, D=16, nb_features=32, input_scale=1.0, stabilizer="none", scale=0.3, denom_eps=1e-6, **exact)
        case("performer", "causal", Tq=3, Tk=8, nb_features=8, **exact)
        case("performer", "causal", kind="ties", nb_features=8, feature_type=f)
    case("performer", "causal", Tq=1, D=1, nb_features=4)
    case("performer", "bidirectional", scale=30.0, nb_features=16)
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
        case("fwp", mode, Tq=Tq, Tk=Tk, D=4, update_rule="delta", feature_map="tanh", qk_norm="none", scale=0.3)
        case("fwp", mode, Tq=Tq, Tk=Tk, D=4, update_rule="delta", feature_map="identity", qk_norm="l2", allow_neg_eigval=True, states=True)
        for f in (dict(feature_map="dpfp", nu=1), dict(feature_map="tanh")):
            case("fwp", mode, Tq=Tq, Tk=Tk, H=4, K=2, D=4, E=3, update_rule="fwm", qk_norm="none", **f)
    for T, D in ((1, 1), (1, 4), (2, 4), (64, 16)):
        case("fwp", Tq=T, D=D, nu=1)
    case("fwp", D=4, scale=30.0, states=True)
    case("fwp", D=4, kind="ties")
    case("fwp", D=4, kind="zeros")
    case("fwp", H=3, K=1, D=5, E=7, output_norm="rms")
    case("fwp", update_rule="delta", feature_map="silu", qk_norm="l2")
    CASES[-1]["opt"]["scale"] = 0.0


def identity_cases():
    for mode in ("causal", "bidirectional"):
        case("identity", mode, B=3, H=6, K=2, D=3, E=5)
        case("identity", mode, Tq=1, D=1, output_norm="rms")


def draw(c, rng, dtype):
    """All tensors of a case, rounded to the precision that harness will see."""
    B, H, K, Tq, Tk, D, E = c["shape"]
    shapes = dict(q=(B, H, Tq, D), k=(B, K, Tk, D), v=(B, K, Tk, E))
    opt, m = c["opt"], 0
    x = {}
    for name, s in shapes.items():
        a = rng.standard_normal(s) * c["scale"]
        x[name] = np.round(2 * a) / 2 if c["kind"] == "ties" else a * 0 if c["kind"] == "zeros" else a
    if "nb_features" in opt:
        x["proj"] = rng.standard_normal((1 if rng.random() < 0.5 else K, opt["nb_features"], D))
    if c["variant"] == "fwp":
        if opt.get("update_rule", "delta") != "sum":
            x["beta"] = rng.standard_normal((B, K, Tk))
        m = {"dpfp": 2 * opt.get("nu", 3) * D, "favor": 2 * opt.get("nb_features", 0)}.get(opt.get("feature_map", "dpfp"), D)
        if c["states"]:
            x["state"] = rng.standard_normal((B, K, m, E))
            if opt.get("attn_norm", "none") != "none":
                x["z"] = np.abs(rng.standard_normal((B, K, m)))
    return {n: a.astype(dtype) for n, a in x.items()}, rng.standard_normal((B, H, Tq, E)).astype(dtype)


def run(c, folder, x, d_o):
    """harness apply on the case; the files that it wrote by name."""
    os.makedirs(folder, exist_ok=True)
    args = [HARNESS, "apply", os.path.join(PLUGINS, c["variant"] + ".so"), "--mode", c["mode"], "--out", folder + "/out", "--threads", "1"]
    def put(name, a):
        np.save(f"{folder}/{name}.npy", a)
        return f"{folder}/{name}.npy"
    for name, a in x.items():
        flag = {"q": "--q", "k": "--k", "v": "--v", "proj": "--param", "beta": "--gate"}.get(name, "--state")
        args += [flag, put(name, a) if name in ("q", "k", "v") else f"{name}={put(name, a)}"]
    args += ["--do", put("do", d_o)]
    if c["klen"]:
        args += ["--kv-len", put("klen", np.array(c["klen"], np.int64))]
    args += [f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in c["opt"].items()]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()}")
    return {f[:-4]: np.load(f"{folder}/out/{f}") for f in sorted(os.listdir(folder + "/out"))}


def judge(c, got, want, dtype):
    """The complaint about the first result that is wrong, or None."""
    optional = {"final_z", "dinitial_z", "final_state", "dinitial_state"}
    if set(got) - set(want) - optional or set(want) - set(got) - optional:
        return f"wrote {sorted(got)} instead of {sorted(want)}"
    if c["variant"] == "fwp" and not {"final_state", "dinitial_state"} <= set(got):
        return "a state is missing"
    for name, g in got.items():
        if name not in want:            # the gradient of an initial state that was not given
            continue
        w = want[name]
        if g.dtype != dtype or g.shape != w.shape:
            return f"{name} is {g.dtype} {g.shape} instead of {np.dtype(dtype)} {w.shape}"
        bound = (1e-10 if dtype == np.float64 else 2e-4) * max(1.0, np.abs(w).max())
        error = np.abs(g - w).max()
        if not error <= bound:
            at = np.unravel_index(np.argmax(np.where(np.isnan(g - w), np.inf, np.abs(g - w))), g.shape)
            return f"{name}{[int(i) for i in at]} is {g[at]!r} instead of {w[at]!r}"
    return None


def check(number, c, dtype):
    B, H, K, Tq, Tk, D, E = c["shape"]
    name = f"{c['variant']} {c['mode']} B={B} H={H}/{K} T={Tq}/{Tk} D={D}/{E}" + "".join(f" {k}={v}" for k, v in c["opt"].items())
    name += (f" kv_len={c['klen']}" if c["klen"] else "") + (f" {c['kind']}" if c["kind"] != "normal" else "")
    name += (" x%g" % c["scale"] if c["scale"] != 1 else "") + (" with states" if c["states"] else "") + f" {np.dtype(dtype)}"
    x, d_o = draw(c, np.random.default_rng(number), dtype)
    try:
        got = run(c, f"{SCRATCH}/{number}-{np.dtype(dtype)}", x, d_o)
        with np.errstate(all="ignore"):
            want = definitions.compute(c["variant"], x, c["opt"], c["mode"], c["klen"], d_o)
        wrong = judge(c, got, want, dtype)
    except Exception as e:
        wrong = f"{type(e).__name__}: {e}"
    return f"ok - {name}" if not wrong else f"# {wrong}\nnot ok - {name}"


def check_tape(c, number):
    """The witness itself: its gradients against central differences in the direction of a random change."""
    x, d_o = draw(c, np.random.default_rng(number), np.float64)
    want = definitions.compute(c["variant"], x, c["opt"], c["mode"], c["klen"], d_o)
    def loss(y): return float((definitions.compute(c["variant"], y, c["opt"], c["mode"], c["klen"], d_o)["o"] * d_o).sum())
    rng, worst = np.random.default_rng(1), 0.0
    for name in x:
        g = want.get("d" + name, want.get("dgate_" + name, want.get("dinitial_" + name)))
        if g is None:
            continue
        u, h = rng.standard_normal(g.shape), 1e-6
        slope = (loss({**x, name: x[name] + h * u}) - loss({**x, name: x[name] - h * u})) / (2 * h)
        worst = max(worst, abs(slope - (g * u).sum()) / max(1.0, abs(slope)))
    return f"{'ok' if worst < 1e-6 else 'not ok'} - the witness by differences: {c['variant']} {c['mode']} {c['opt']} ({worst:.1e})"


def main():
    softmax_cases(), linear_cases(), performer_cases(), fwp_cases(), identity_cases()
    plain = [c for c in CASES if c["kind"] == "normal" and c["scale"] <= 2 and c["shape"][4] <= 11 and c["opt"].get("feature_eps", 0) == 0
             and not (c["variant"] == "performer" and "feature_eps" not in c["opt"])]
    for i, c in enumerate(plain[::5]):
        print(check_tape(c, i))
    jobs = [(i, c, np.float64) for i, c in enumerate(CASES)]
    jobs += [(i, c, np.float32) for i, c in enumerate(CASES) if i % 3 == 0 and c["scale"] < 30 and c["opt"].get("feature_type") != "trig"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for line in pool.map(lambda job: check(*job), jobs):
            print(line)


main()
