"""harness apply against an independent computation: TAP lines, one per case and precision.

usage: apply_numpy.py HARNESS FOLDER_OF_VARIANTS SCRATCH_FOLDER VARIANT..."""
import concurrent.futures
import os
import subprocess
import sys
import numpy as np
import witness
from cases import CASES, draw, make_cases

HARNESS, PLUGINS, SCRATCH, NAMES = *sys.argv[1:4], sys.argv[4:]


def run(c, folder, x, d_o):
    """harness apply on the case; the files that it wrote by name."""
    os.makedirs(folder, exist_ok=True)
    args = [HARNESS, "apply", os.path.join(PLUGINS, c["variant"] + ".so"), "--mode", c["mode"], "--out", folder + "/out", "--threads", "1"]
    def put(name, a):
        np.save(f"{folder}/{name}.npy", a)
        return f"{folder}/{name}.npy"
    for name, a in x.items():
        flag = "--" + name if name in "qkv" else "--gate" if name in witness.GATES else "--state" if name in witness.STATES else "--param"
        args += [flag, put(name, a) if name in "qkv" else f"{name}={put(name, a)}"]
    args += ["--do", put("do", d_o)]
    if c["klen"]:
        args += ["--kv-len", put("klen", np.array(c["klen"], np.int64))]
    args += [f"{k}={str(v).lower() if isinstance(v, bool) else ','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in c["opt"].items()]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()}")
    return {f[:-4]: np.load(f"{folder}/out/{f}") for f in sorted(os.listdir(folder + "/out"))}


def judge(c, got, want, dtype):
    """The complaint about the first result that is wrong, or None."""
    undefined = {"final_z", "dinitial_z"}                       # without a denominator z is nobody's business
    if c["opt"].get("update_rule") == "fwm":
        undefined |= {"dinitial_state"}                         # its first token has a rule of its own
    if not set(got) ^ set(want) <= undefined:
        return f"wrote {sorted(got)} instead of {sorted(want)}"
    got = {name: a for name, a in got.items() if name in want}
    for name, g in got.items():
        w = want[name]
        if g.dtype != dtype or g.shape != w.shape:
            return f"{name} is {g.dtype} {g.shape} instead of {np.dtype(dtype)} {w.shape}"
        bound = (1e-10 if dtype == np.float64 else 2e-4) * max(1.0, np.abs(w).max()) * max(1.0, c["times"])
        error = np.abs(g - w).max()
        if not error <= bound:
            at = np.unravel_index(np.argmax(np.where(np.isnan(g - w), np.inf, np.abs(g - w))), g.shape)
            return f"{name}{[int(i) for i in at]} is {g[at]!r} instead of {w[at]!r}"
    return None


def check(number, c, dtype):
    B, H, K, Tq, Tk, D, E = c["shape"]
    name = f"{c['variant']} {c['mode']} B={B} H={H}/{K} T={Tq}/{Tk} D={D}/{E}" + "".join(f" {k}={v}" for k, v in c["opt"].items())
    name += (f" kv_len={c['klen']}" if c["klen"] else "") + (f" {c['kind']}" if c["kind"] != "normal" else "")
    name += (" x%g" % c["times"] if c["times"] != 1 else "") + (" with states" if c["states"] else "") + f" {np.dtype(dtype)}"
    x, d_o = draw(c, np.random.default_rng(number), dtype)
    try:
        got = run(c, f"{SCRATCH}/{number}-{np.dtype(dtype)}", x, d_o)
        with np.errstate(all="ignore"):
            want = witness.compute(c["variant"], x, c["opt"], c["mode"], c["klen"], d_o)
        wrong = judge(c, got, want, dtype)
    except Exception as e:
        wrong = f"{type(e).__name__}: {e}"
    return f"ok - {name}" if not wrong else f"# {wrong}\nnot ok - {name}"


def check_tape(c, number):
    """The witness itself: its gradients against central differences in the direction of a random change."""
    x, d_o = draw(c, np.random.default_rng(number), np.float64)
    want = witness.compute(c["variant"], x, c["opt"], c["mode"], c["klen"], d_o)
    def loss(y): return float((witness.compute(c["variant"], y, c["opt"], c["mode"], c["klen"], d_o)["o"] * d_o).sum())
    rng, worst = np.random.default_rng(1), 0.0
    for name in x:
        if not witness.kind(name):
            continue
        g = want[witness.kind(name) + name]
        u, h = rng.standard_normal(g.shape), 1e-6
        slope = (loss({**x, name: x[name] + h * u}) - loss({**x, name: x[name] - h * u})) / (2 * h)
        worst = max(worst, abs(slope - (g * u).sum()) / max(1.0, abs(slope)))
    return f"{'ok' if worst < 1e-6 else 'not ok'} - the witness by differences: {c['variant']} {c['mode']} {c['opt']} ({worst:.1e})"


def smooth(c):
    """Small, and without the kinks and steps that differences fall over."""
    return (c["kind"] == "normal" and c["times"] <= 2 and c["shape"][4] <= 24 and c["saturated"] == 1 and c["opt"].get("feature_eps", 0) == 0
            and not (c["variant"] == "performer" and "feature_eps" not in c["opt"]))


def jobs(cases):
    """Every case in double; every third in float, and all of a variant with few, unless float cannot follow."""
    names = [c["variant"] for c in cases]
    for i, c in enumerate(cases):
        yield i, c, np.float64
        if (i % 3 == 0 or names.count(c["variant"]) < 12) and c["times"] < 30 and c["saturated"] == 1 and c["opt"].get("feature_type") != "trig":
            yield i, c, np.float32


def main():
    make_cases()
    cases = [c for c in CASES if c["variant"] in NAMES]
    for name in NAMES:
        for i, c in enumerate([c for c in cases if c["variant"] == name and smooth(c)][::5]):
            print(check_tape(c, i))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for line in pool.map(lambda job: check(*job), jobs(cases)):
            print(line)


main()
