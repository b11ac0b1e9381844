#!/usr/bin/env python3
"""Times forward passes and training steps of BERT-mini (4 layers, 256 wide, 4 heads, 128 tokens, batch 32) here and in PyTorch
eager, in turn, and prints how many times faster ours are, on each backend that is named.

    cargo build --release --workspace --example bert_mini
    /somewhere/bin/pip install torch                           # in a virtual environment
    taskset -c 0 /somewhere/bin/python scripts/peers/bert_mini.py target/release/examples/bert_mini [--threads 1] [--json]

With `--backends flex libtorch` the example must have been built with `--features libtorch` (docs/backends.md).

PyTorch's attention is dense (scaled_dot_product_attention), or masked and fake-quantised as in quantisation-aware training:
q, k, v in 8 bit with a scale a head, scores plus a mask, softmax, weights rounded to 1/255, straight-through gradients. That is
one precision where ours has three, so PyTorch has the easier task. Seconds are of wall clock, or with --cpu of the processes'
own time, which other programs on the machine disturb less.
"""
import argparse, json, os, statistics, subprocess, time

import torch
from torch import nn

BATCH, TOKENS, WIDTH, HEADS, LAYERS, MLP, WORDS = 32, 128, 256, 4, 4, 1024, 30522


def straight_through(x, rounded):
    return x + (rounded - x).detach()


def eight_bit(x):
    scale = x.detach().abs().amax((2, 3), keepdim=True).clamp_min(1e-30) / 127
    return straight_through(x, (x.detach() / scale).round() * scale)


class Layer(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.expand, self.contract = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)
        self.attention_norm, self.output_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mask = mask

    def attend(self, x):
        q, k, v = (f(x).view(BATCH, TOKENS, HEADS, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.mask is None:
            attended = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            q, k, v = eight_bit(q), eight_bit(k), eight_bit(v)
            scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + self.mask
            weights = scores.softmax(-1)
            attended = straight_through(weights, (weights * 255).round() / 255) @ v
        return self.output(attended.transpose(1, 2).reshape(BATCH, TOKENS, WIDTH))

    def forward(self, x):
        x = self.attention_norm(x + self.attend(x))
        return self.output_norm(x + self.contract(nn.functional.gelu(self.expand(x))))


class BertMini(nn.Module):
    def __init__(self, masked):
        super().__init__()
        torch.manual_seed(1)
        self.words, self.positions, self.types = nn.Embedding(WORDS, WIDTH), nn.Embedding(512, WIDTH), nn.Embedding(2, WIDTH)
        self.norm, self.pooler, self.classifier = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        blocks = (torch.rand(LAYERS, HEADS, 8, 8) < 0.2) | torch.eye(8, dtype=torch.bool)
        masks = (~blocks).float().mul(-1e9).repeat_interleave(16, 2).repeat_interleave(16, 3)
        self.layers = nn.ModuleList(Layer(mask if masked else None) for mask in masks)

    def forward(self, tokens, types):
        x = self.norm(self.words(tokens) + self.positions.weight[:TOKENS] + self.types(types))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.pooler(x[:, 0]).tanh())


def torch_steps():
    tokens, types = torch.randint(0, 30_000, (BATCH, TOKENS)), torch.zeros(BATCH, TOKENS, dtype=torch.long)
    labels, steps = torch.arange(BATCH) % 2, {}
    for name, masked in [("dense", False), ("masked", True)]:
        model = BertMini(masked)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def forward(model=model):
            with torch.no_grad():
                model(tokens, types)

        def train(model=model, optimiser=optimiser):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(tokens, types), labels).backward()
            optimiser.step()

        steps |= {f"forward {name}": forward, f"train {name}": train}
    return steps


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("ours", help="the example's program")
    parse.add_argument("--backends", nargs="+", default=["flex"], help="what computes ours")
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--repetitions", type=int, default=10)
    parse.add_argument("--cpu", action="store_true", help="time of the processes, not of the clock on the wall")
    parse.add_argument("--json", action="store_true")
    given = parse.parse_args()
    torch.set_num_threads(given.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": str(given.threads), "OMP_NUM_THREADS": str(given.threads)}
    children = {
        backend: subprocess.Popen(
            [given.ours, backend], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for backend in given.backends
    }

    def ours(child, step):
        child.stdin.write(step + "\n")
        child.stdin.flush()
        return float(child.stdout.readline())

    def clocked(clock, call):
        begun = time.clock_gettime(clock)
        answer = call()
        return time.clock_gettime(clock) - begun, answer

    calls = {}
    for step in ["forward", "train"]:
        for backend, child in children.items():
            clock = (~child.pid) << 3 | 2  # Linux: the clock of another process
            for way in ["dense", "whole", "composed", "blocks"]:
                calls[f"{backend}, {step} {way}"] = lambda child=child, clock=clock, line=f"{step} {way}": (
                    clocked(clock, lambda: ours(child, line))[0] if given.cpu else ours(child, line)
                )
    for name, run in torch_steps().items():
        clock = time.CLOCK_PROCESS_CPUTIME_ID if given.cpu else time.CLOCK_MONOTONIC
        calls[f"PyTorch, {name}"] = lambda run=run, clock=clock: clocked(clock, run)[0]
    seconds = {name: [] for name in calls}
    for repetition in range(given.repetitions + 2):
        for name, call in calls.items():
            taken = call()
            if repetition >= 2:
                seconds[name].append(taken)
    for child in children.values():
        child.stdin.close()
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {
        f"{backend}, {step} {way}": median[f"PyTorch, {step} {peer}"] / median[f"{backend}, {step} {way}"]
        for backend in children
        for step in ["forward", "train"]
        for way, peer in [("dense", "dense"), ("whole", "dense"), ("composed", "masked"), ("blocks", "masked")]
    }
    if given.json:
        print(json.dumps({"schema_version": 1, "torch": torch.__version__, "median_seconds": median, "times_faster": ratios}, indent=2))
        return
    for name, taken in median.items():
        print(f"{name:26} {taken * 1e3:8.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name:26} {ratio:8.2f} times PyTorch's speed")


main()
