#!/usr/bin/env python3
"""Times builds of our own attention kernels against each other, in turn, in one process, on the same masks and inputs, and prints
how many times faster than the first each of the others is: by tenth percentile, lower quartile and median.

    cargo build --release -p maskwright-kernels    # at each commit; copy target/release/libmaskwright_kernels.so away
    /somewhere/bin/python scripts/peers/in_turn.py before.so after.so [--tokens 512] [--blocks 8,16] [--densities 0.5,0.1]

Who begins changes with every turn. One thread, heads of 64, hot; needs numpy. Outputs that differ are told, not judged.
"""
import argparse, ctypes as c, time

import numpy as np

import compare

QUANTILES = (10, 25, 50)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("libraries", nargs="+")
    parse.add_argument("--tokens", default="512")
    parse.add_argument("--blocks", default="16")
    parse.add_argument("--densities", default="0.5,0.1")
    parse.add_argument("--precisions", default="fp32,int8,40/40/20")
    parse.add_argument("--heads", type=int, default=compare.HEADS)
    parse.add_argument("--repetitions", type=int, default=60, help="turns of each library")
    parse.add_argument("--calls", type=int, default=5, help="timed calls of a turn, after one that is not")
    given = parse.parse_args()
    compare.HEADS = given.heads
    libraries, rng = [c.CDLL(path) for path in given.libraries], np.random.default_rng(1)
    cases = [
        (int(tokens), int(block), float(density), precision)
        for tokens in given.tokens.split(",")
        for block in given.blocks.split(",")
        for density in given.densities.split(",")
        for precision in given.precisions.split(",")
    ]
    for tokens, compare.BLOCK, density, precision in cases:
        q, k, v = (compare.on_a_line(rng.standard_normal((compare.HEADS, tokens, compare.WIDTH), np.float32)) for _ in range(3))
        mask = compare.draw(tokens, density, compare.SHARES[precision], rng)
        runs = [compare.ours(library, mask, q, k, v) for library in libraries]
        outputs = [run().copy() for run in runs]
        times = [[] for _ in runs]
        for turn in range(given.repetitions):
            for at in range(len(runs)):
                at = (turn + at) % len(runs)
                runs[at]()
                for _ in range(given.calls):
                    begun = time.perf_counter()
                    runs[at]()
                    times[at].append(time.perf_counter() - begun)
        first, *others = [np.percentile(of, QUANTILES) for of in times]
        faster = " | ".join(" ".join(f"{ratio:.3f}" for ratio in first / other) for other in others)
        apart = max(float(np.abs(outputs[0] - output).max()) for output in outputs)
        print(
            f"{tokens:6} tokens  blocks of {compare.BLOCK:2}  {density:4}  {precision:>9}  {first[-1] * 1e3:8.3f} ms  "
            f"faster: {faster or '-'}  outputs apart: {apart:.1e}",
            flush=True,
        )


main()
