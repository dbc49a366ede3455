#!/usr/bin/env python3
"""The perplexity of kept weights, computed from the text, the safetensors file and the formulas alone.

usage: perplexity.py TRAIN.txt TEST.txt MODEL.safetensors PLAN.json      prints loss, tokens

PLAN: what `harness run FILE --dry-run --json` says of the one cell.  Words, vocabulary, windows, memories, Transformer and the mixers (definitions.py) are done here anew, in double precision.
"""
import json
import math
import struct
import sys

import numpy as np
from tape import Var
from witness import VARIANTS, output_norm


def words(path):
    """The words of every line, and <eos> at its end."""
    return [w for line in open(path, encoding="utf-8") for w in line.split() + ["<eos>"]]


def vocabulary(train, least):
    """WikiText's: <eos>, then by falling frequency, equal ones by first occurrence; rarer than least is <unk>, first of its equals."""
    count = {}
    for w in train:
        count[w] = count.get(w, 0) + 1
    count.setdefault("<unk>", 0)
    for w in [w for w, n in count.items() if n < least and w not in ("<unk>", "<eos>")]:
        count["<unk>"] += count.pop(w)
    rest = sorted((w for w in count if w != "<eos>"), key=lambda w: (-count[w], w != "<unk>"))
    return {w: i for i, w in enumerate(["<eos>"] + rest)}


def tensors(path):
    """Every float tensor of a safetensors file, in double."""
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__" or t["dtype"] not in ("F32", "F64"):
            continue
        a, b = (8 + n + o for o in t["data_offsets"])
        out[name] = np.frombuffer(raw[a:b], "<f4" if t["dtype"] == "F32" else "<f8").astype(float).reshape(t["shape"])
    return out


class Transformer:
    def __init__(self, doc, weights):
        self.s, self.variant, self.opt, self.w = doc["model"], doc["variant"]["name"], doc["variant"]["options"], weights
        self.memory, self.past = doc["task"]["options"]["memory"] * doc["task"]["options"]["context"], {}

    def linear(self, x, name):
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def norm(self, x, name):
        if self.s["norm"] == "rms":
            return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + self.s["norm_eps"]) * self.w[f"{name}.weight"]
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + self.s["norm_eps"]) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attention(self, x, name):
        B, T, d = x.shape
        arrays, seen = {}, x
        if self.memory:                 # what keys and values are made of: the layer's inputs in the segments before, zeros at first, and now
            seen = np.concatenate([self.past.get(name, np.zeros((B, self.memory, d))), x], 1)
            self.past[name] = seen[:, T:]
        for n in self.w:                # NAME.q.weight, NAME.gate.beta.weight: projections; NAME.proj: the variant's own
            rest = n[len(name) + 1:].split(".") if n.startswith(f"{name}.") else []
            if len(rest) == 1:
                arrays[rest[0]] = self.w[n]
            elif rest and rest[-1] == "weight" and rest[0] not in ("norm", "out"):
                a = self.linear(x if rest[0] == "q" else seen, n[:-len(".weight")])
                a = a.reshape(B, -1, self.s["heads"], a.shape[2] // self.s["heads"]).transpose(0, 2, 1, 3)
                arrays[rest[-2]] = a[..., 0] if rest[0] == "gate" and a.shape[3] == 1 else a
        o = output_norm(VARIANTS[self.variant]({k: Var(v) for k, v in arrays.items()}, self.opt, "causal", None)[0], self.opt).v
        return self.linear(o.transpose(0, 2, 1, 3).reshape(B, T, -1), f"{name}.out")

    def feed_forward(self, x, name):
        up = self.linear(x, f"{name}.up")
        act = {"relu": lambda z: np.maximum(z, 0), "silu": lambda z: z / (1 + np.exp(-z)),
               "gelu": lambda z: z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))}
        kind = {"swiglu": "silu", "reglu": "relu", "geglu": "gelu"}.get(self.s["activation"])
        y = act[kind](self.linear(x, f"{name}.gate")) * up if kind else act[self.s["activation"]](up)
        return self.linear(y, f"{name}.down")

    def positions(self, T, d):
        t = np.arange(T)[::-1] if self.s["positions"].endswith("reversed") else np.arange(T)
        angle = t[:, None] * 10000.0 ** (-2.0 * np.arange(d // 2) / d)
        return np.concatenate([np.sin(angle), np.cos(angle)], 1)

    def logits(self, tokens):
        E = self.w["embedding.weight"]
        x = E[tokens] * (math.sqrt(E.shape[1]) if self.s["scale_embedding"] else 1)
        if self.s["positions"].startswith("sin"):
            x = x + self.positions(tokens.shape[1], E.shape[1])
        elif self.s["positions"] == "learned":
            x = x + self.w["positions.weight"][:tokens.shape[1]]
        pre = self.s["norm_position"] == "pre"
        for layer in range(self.s["layers"]):
            for part in ("attention", "feed_forward"):
                name = f"layers.{layer}.{part}"
                if pre:
                    x = x + getattr(self, part)(self.norm(x, f"{name}.norm"), name)
                else:
                    x = self.norm(x + getattr(self, part)(x, name), f"{name}.norm")
        x = self.norm(x, "norm") if pre else x
        W, cuts = E if self.s["tie_embeddings"] else self.w["output.weight"], self.s["adaptive_cutoffs"]
        return self.adaptive(x, W, cuts) if cuts[0] else x @ W.T

    def adaptive(self, x, W, cuts):
        """Logarithms of probabilities: the head's, and in a tail those of its entry in the head plus those within it."""
        def log_softmax(z):
            z = z - z.max(-1, keepdims=True)
            return z - np.log(np.exp(z).sum(-1, keepdims=True))
        head = log_softmax(x @ np.concatenate([W[:cuts[0]], self.w["output.tails.weight"]]).T)
        parts = [head[..., :cuts[0]]]
        for i, (a, b) in enumerate(zip(cuts, cuts[1:] + [len(W)])):
            parts.append(head[..., cuts[0] + i:cuts[0] + i + 1] + log_softmax(x @ W[a:b].T))
        return np.concatenate(parts, -1)


def main():
    train, test, model, plan = sys.argv[1:5]
    doc = json.load(open(plan))["cell"][0]["doc"]
    task = doc["task"]["options"]
    ids = vocabulary(words(train), 3)
    x = np.array([ids.get(w, ids["<unk>"]) for w in words(test)])[:task["test_tokens"] + 1]
    net = Transformer(doc, tensors(model))
    n, loss, scored = len(x) - 1, 0.0, 0
    T = n if task["carry"] else task["context"]         # states carried on are one long context
    while scored < n:                   # inputs begin .. end - 1; of their targets those that were not scored yet count
        end = min(max(T, scored + (task["test_stride"] or T)), n)
        begin = scored if net.memory else max(end - T, 0)       # what is in memories is not seen twice
        rows = np.zeros(T, int)         # a short last window is filled up behind: positions may count from the end
        rows[:end - begin] = x[begin:end]
        z = net.logits(rows[None])[0][:end - begin]
        z = z - z.max(-1, keepdims=True)
        nll = np.log(np.exp(z).sum(-1)) - z[np.arange(end - begin), x[begin + 1:end + 1]]
        loss += nll[scored - begin:].sum()
        scored = end
    print(f"{loss / n:.12g} {n}")


if __name__ == "__main__":
    main()
