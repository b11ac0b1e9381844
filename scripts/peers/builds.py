#!/usr/bin/env python3
"""Times several builds of our attention kernels in turn, in one process, on the same masks, q, k and v, and prints how much
faster or slower each is than the first: what a change to the kernels brought.

    git worktree add /somewhere/before COMMIT && cargo build --release -p maskwright-kernels      # in both trees, one after the other
    python3 scripts/peers/builds.py BEFORE.so AFTER.so [--tokens 64,197,512] [--block 8] [--densities 0.5,0.1] [--causal]

Milliseconds and differences are of tenth percentiles and, in parentheses, of medians. Calls count when the core
was whole (compare.py). How far outputs are apart is the largest difference of a number from the first library's. Name one library twice, by a copy, to see what differs by chance. It needs numpy. One thread, 12 heads of 64, hot, inputs on cache lines.
"""
import argparse, ctypes as c, time

import numpy as np

import compare


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("libraries", nargs="+", help="libmaskwright_kernels.so of each build, at different paths")
    parse.add_argument("--tokens", default="512")
    parse.add_argument("--densities", default="0.5,0.1")
    parse.add_argument("--block", type=int, default=16, choices=[8, 16, 32])
    parse.add_argument("--causal", action="store_true", help="no token attends to a later one; densities are of all blocks")
    parse.add_argument("--seconds", type=float, default=2.0, help="for each case")
    args = parse.parse_args()
    compare.BLOCK = args.block
    libraries = [c.CDLL(path) for path in args.libraries]
    cores = [compare.Core(library, np.random.default_rng(1)) for library in libraries]  # each probes with its own code, or the first's would be warm
    for tokens in map(int, args.tokens.split(",")):
        for density in map(float, args.densities.split(",")):
            for name, shares in compare.SHARES.items():
                rng = np.random.default_rng(7)
                normal = lambda: rng.standard_normal((compare.HEADS, tokens, compare.WIDTH), np.float32)
                place = [compare.on_a_line(normal()) for _ in range(3)]
                mask = compare.draw(tokens, density, shares, rng)
                runs = [compare.ours(library, mask, [place], args.causal)[0] for library in libraries]
                outputs, times = [run().copy() for run in runs], [[] for _ in runs]
                end, turn = time.perf_counter() + args.seconds, 0
                while time.perf_counter() < end or turn < 10:
                    for at in range(len(runs)):
                        at = (at + turn) % len(runs)
                        for _ in range(2):  # what the one before left in the caches is gone then
                            runs[at]()
                        before = cores[at].seconds()
                        start = time.perf_counter()
                        runs[at]()
                        seconds = time.perf_counter() - start
                        times[at].append((max(before, cores[at].seconds()), seconds))
                    turn += 1
                times = [core.undisturbed({"calls": of})[0]["calls"] for core, of in zip(cores, times)]
                shown = [[np.percentile(of, p) * 1e3 for p in (10, 50)] for of in times]
                differ = [" ".join(f"{100 * (x / y - 1):+.1f}" for x, y in zip(of, shown[0])) for of in shown[1:]]
                differ = ", ".join("{} % ({} %)".format(*pair.split()) for pair in differ)
                apart = max(float(np.abs(outputs[0] - output).max()) for output in outputs)
                print(f"{tokens:5} tokens  {density:4}  {name:>8}  {shown[0][0]:.4f} ms ({shown[0][1]:.4f})  {differ}  outputs apart by {apart:.1e}", flush=True)


main()
