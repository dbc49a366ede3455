"""A reverse-mode tape over NumPy arrays, as small as it can be: the gradients of the golden values."""
import numpy as np


class Var:
    """An array and how its gradient flows back: parents holds (Var, function of the gradient) pairs."""

    def __init__(self, value, parents=()):
        self.v, self.parents, self.g = np.asarray(value, dtype=np.float64), parents, None

    shape = property(lambda self: self.v.shape)

    def __add__(self, o): o = var(o); return broadcast(self.v + o.v, (self, lambda g: g), (o, lambda g: g))
    def __sub__(self, o): o = var(o); return broadcast(self.v - o.v, (self, lambda g: g), (o, lambda g: -g))
    def __mul__(self, o): o = var(o); return broadcast(self.v * o.v, (self, lambda g: g * o.v), (o, lambda g: g * self.v))
    def __truediv__(self, o):
        o = var(o)
        return broadcast(self.v / o.v, (self, lambda g: g / o.v), (o, lambda g: -g * self.v / o.v ** 2))
    def __rsub__(self, o): return var(o) - self
    def __rtruediv__(self, o): return var(o) / self
    def __neg__(self): return self * -1.0
    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, i):
        def back(g):
            out = np.zeros_like(self.v)
            if all(isinstance(n, (int, slice, type(None), type(Ellipsis))) for n in (i if isinstance(i, tuple) else (i,))):
                out[i] = g              # without arrays no element is taken twice
            else:
                np.add.at(out, i, g)
            return out
        return Var(self.v[i], ((self, back),))


def var(x):
    return x if isinstance(x, Var) else Var(x)


def broadcast(value, *parents):
    """The gradient of a broadcast operand is summed over what was repeated."""
    def shrunk(p, f):
        def back(g):
            g = np.broadcast_to(f(g), value.shape)
            g = g.sum(axis=tuple(range(g.ndim - p.v.ndim)))
            return g.sum(axis=tuple(i for i, n in enumerate(p.shape) if n == 1 and g.shape[i] != 1), keepdims=True)
        return p, back
    return Var(value, tuple(shrunk(p, f) for p, f in parents))


def elementwise(x, value, slope):
    return Var(value, ((x, lambda g: g * slope),))


def exp(x): e = np.exp(x.v); return elementwise(x, e, e)
def sqrt(x): r = np.sqrt(x.v); return elementwise(x, r, 0.5 / r)
def tanh(x): t = np.tanh(x.v); return elementwise(x, t, 1 - t * t)
def sin(x): return elementwise(x, np.sin(x.v), np.cos(x.v))
def cos(x): return elementwise(x, np.cos(x.v), -np.sin(x.v))
def absolute(x): return elementwise(x, np.abs(x.v), np.sign(x.v))
def softplus(x): return elementwise(x, np.maximum(x.v, 0) + np.log1p(np.exp(-np.abs(x.v))), sigmoid(x).v)
def clamp(x, low, high): return elementwise(x, np.clip(x.v, low, high), ((x.v >= low) & (x.v <= high)) * 1.0)
def reshape(x, shape): return Var(x.v.reshape(shape), ((x, lambda g: g.reshape(x.shape)),))
def relu(x): return elementwise(x, np.maximum(x.v, 0), (x.v > 0) * 1.0)


def sigmoid(x):
    s = np.where(x.v >= 0, 1 / (1 + np.exp(-np.abs(x.v))), np.exp(-np.abs(x.v)) / (1 + np.exp(-np.abs(x.v))))
    return elementwise(x, s, s * (1 - s))


def total(x, axis, keep=True):
    return Var(x.v.sum(axis=axis, keepdims=keep),
               ((x, lambda g: np.broadcast_to(g if keep else np.expand_dims(g, axis), x.shape)),))


def cat(xs, axis):
    ends = np.cumsum([x.shape[axis] for x in xs])
    def piece(i):
        n = xs[i].shape[axis]
        return lambda g: np.take(g, range(ends[i] - n, ends[i]), axis=axis)
    return Var(np.concatenate([x.v for x in xs], axis=axis), tuple((x, piece(i)) for i, x in enumerate(xs)))


def einsum(spec, a, b):
    """Two operands; each gradient is the einsum of the other's letters."""
    a, b = var(a), var(b)
    (sa, sb), so = spec.split("->")[0].split(","), spec.split("->")[1]
    return Var(np.einsum(spec, a.v, b.v), ((a, lambda g: np.einsum(f"{so},{sb}->{sa}", g, b.v)),
                                           (b, lambda g: np.einsum(f"{so},{sa}->{sb}", g, a.v))))


def gradients(y, dy, inputs):
    """d sum(y * dy) / d input for each of inputs; zeros where there is no path."""
    order, seen = [], set()
    stack = [(y, False)]
    while stack:                        # a post-order walk without recursion: recurrences are long
        x, done = stack.pop()
        if done:
            order.append(x)
        elif id(x) not in seen:
            seen.add(id(x))
            stack.append((x, True))
            stack.extend((p, False) for p, _ in x.parents)
    for x in order:
        x.g = None
    y.g = np.array(dy, dtype=np.float64)
    for x in reversed(order):
        if x.g is None:
            continue
        for p, back in x.parents:
            g = back(x.g)
            p.g = g + 0.0 if p.g is None else p.g + g
    return [np.zeros_like(x.v) if id(x) not in seen or x.g is None else x.g for x in inputs]
