"""All definitions by name, with the common options; results under the names of the files that harness apply writes."""
import definitions
import definitions_masks
import definitions_recurrent
from tape import Var, gradients, sqrt, total

VARIANTS = {"softmax": definitions.softmax, "linear": definitions.linear, "performer": definitions.performer,
            "performer_generalized": definitions.performer_generalized, "fwp": definitions.fwp, "identity": definitions.identity,
            **definitions_masks.VARIANTS, **definitions_recurrent.VARIANTS}
GATES = ("beta", "gk", "a", "dt")
PARAMS = ("rel_k", "rel_v", "a_log", "dt_bias", "d_skip", "w_x", "w_h", "bias", "weight")
FROZEN = ("proj", "rotations", "buckets", "offset")     # drawn or integer: no gradient
STATES = ("state", "z", "h", "c")


def output_norm(o, opt):
    if opt.get("output_norm", "none") == "none":
        return o
    return o / sqrt(total(o * o, 3) / o.shape[3] + opt.get("output_norm_eps", 1e-5))


def kind(name):
    """What stands before the name of a gradient; None where there is none."""
    return "d" if name in ("q", "k", "v") else "dgate_" if name in GATES else "dparam_" if name in PARAMS else "dinitial_" if name in STATES else None


def compute(variant, arrays, opt, mode, klen, d_o):
    """Outputs and gradients; initial states that are not given are zeros and have gradients, too."""
    x = {name: Var(a) for name, a in arrays.items()}
    o, final = VARIANTS[variant](x, opt, mode, klen)
    o = output_norm(o, opt)
    out = {"o": o.v, **{"final_" + name: s.v for name, s in final.items()}}
    for name, g in zip(x, gradients(o, d_o, list(x.values()))):
        if kind(name):
            out[kind(name) + name] = g
    return out
