"""The clock and the comparison of pytorch_attention.sh: python3 pytorch_attention.py BUILD T...

Each pair of runs is one of ours and one of PyTorch's, in alternating order, on the same numbers; the results must agree
to 1e-4 of the largest number.  FLOPs: 4 D a visible pair forward, 10 D backward.
"""
import statistics
import struct
import subprocess
import sys
import time

import numpy
import torch

H, D, THREADS, SECONDS = 8, 64, 2, 3.0


class Ours:
    """bench_attention as a server."""

    def __init__(self, build, length, causal, tensors):
        self.shape = (1, H, length, D)
        mode = "causal" if causal else "bidirectional"
        self.process = subprocess.Popen([f"{build}/tests/bench/bench_attention", str(length), mode, str(THREADS)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for x in tensors:
            self.process.stdin.write(x.numpy().tobytes())

    def ask(self, letter, size):
        self.process.stdin.write(letter)
        self.process.stdin.flush()
        return self.process.stdout.read(size)

    def seconds(self, both):
        return struct.unpack("d", self.ask(b"b" if both else b"f", 8))[0]

    def results(self):
        everything = numpy.frombuffer(self.ask(b"r", 16 * H * self.shape[2] * D), dtype=numpy.float32)
        return [torch.from_numpy(x.reshape(self.shape).copy()) for x in numpy.split(everything, 4)]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    """The function of PyTorch, whose backward is autograd's."""

    def __init__(self, causal, tensors):
        self.inputs = [x.clone().requires_grad_() for x in tensors[:3]]
        self.gradient, self.causal = tensors[3], causal

    def call(self, both):
        attend = torch.nn.functional.scaled_dot_product_attention
        if both:
            o = attend(*self.inputs, is_causal=self.causal)
            return (o, *torch.autograd.grad(o, self.inputs, self.gradient))
        with torch.no_grad():
            return (attend(*self.inputs, is_causal=self.causal),)

    def seconds(self, both):
        start = time.perf_counter()
        self.call(both)
        return time.perf_counter() - start

    def results(self):
        return [x.detach() for x in self.call(True)]


def pairs(ours, theirs, both):
    """Seconds of each pair of runs, after one that warms up; at least three."""
    times = []
    for i in range(41):
        order = (ours, theirs) if i % 2 else (theirs, ours)
        seconds = {}
        for who in order:
            time.sleep(0.02)            # the other's threads spin for a while before they leave their cores
            seconds[who] = who.seconds(both)
        if i:
            times.append((seconds[ours], seconds[theirs]))
        if i >= 3 and sum(map(sum, times)) > SECONDS:
            break
    return times


def compare(build, length, causal):
    """Two rows of the table; the worst ratio of the least times."""
    generator = torch.Generator().manual_seed(length)
    tensors = [torch.randn(1, H, length, D, generator=generator) for _ in range(4)]
    ours, theirs = Ours(build, length, causal, tensors), Theirs(causal, tensors)
    worst = float("inf")
    for both in (False, True):
        times = pairs(ours, theirs, both)
        mine, other = (min(t[i] for t in times) for i in (0, 1))
        ratio, median = other / mine, statistics.median(t[1] / t[0] for t in times)
        visible = length * (length + 1) / 2 if causal else length * length
        rate = visible * H * D * (14 if both else 4) * 1e-9
        name = f"{'causal' if causal else 'full':7s} {'fwd+bwd' if both else 'fwd':8s}"
        print(f"{length:6d} {name} {mine * 1e3:10.2f} {other * 1e3:10.2f} {ratio:8.2f} {median:8.2f} {rate / mine:8.1f}"
              f" {rate / other:8.1f} {len(times):6d}", flush=True)
        worst = min(worst, ratio)
    for name, x, y in zip(("o", "dq", "dk", "dv"), ours.results(), theirs.results()):
        error = ((x - y).abs().max() / y.abs().max()).item()
        if not error < 1e-4:
            sys.exit(f"{name} differs by {error:.1e} of the largest number")
    ours.close()
    return worst


def main(build, *lengths):
    torch.set_num_threads(THREADS)
    print(f"PyTorch {torch.__version__}, {THREADS} threads each, float32, B = 1, H = {H}, D = {D}; ratio: PyTorch's time over ours")
    print(f"{'T':>6s} {'mask':7s} {'pass':8s} {'ours ms':>10s} {'torch ms':>10s} {'of mins':>8s} {'median':>8s}"
          f" {'ours':>8s} {'torch':>8s} {'pairs':>6s}   (GFLOP/s)")
    worst = min(compare(build, int(length), causal) for length in lengths for causal in (False, True))
    print(f"least ratio {worst:.2f}; all results agree to 1e-4")


main(*sys.argv[1:])
