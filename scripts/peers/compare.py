#!/usr/bin/env python3
"""Times our attention kernels against torch SDPA (fp32), OpenVINO (bf16, or f32 on CPUs without it) and FlexAttention (the
same mask), in turn, in one process, on the same q, k and v, and prints how many times faster ours are.

    cargo build --release -p maskwright-kernels
    python3 -m venv /somewhere && /somewhere/bin/pip install numpy torch openvino    # several GB; FlexAttention needs a C++ compiler
    /somewhere/bin/python scripts/peers/compare.py target/release/libmaskwright_kernels.so [--tokens 512,2048] [--json]

Ratios are of medians and, in parentheses, of each library's best call. Inputs lie at several places of memory in turn: which
pages share the sets of a cache is chance. A call counts when the core was whole before and after it, which a few microseconds of
our attention tell: where a core runs two threads and the other one is somebody else's, they take a third longer, and what waits for memory less. The share of calls that count is
printed, and with --json the ratios of all calls, too; where a library has none that counts, all calls of all count, and a star says so. Peers
that are not installed, or fail, are left out, and named on stderr. One thread, 12 heads of 64, blocks of 16, hot.
"""
import argparse, ctypes as c, json, statistics, sys, time

import numpy as np

HEADS, WIDTH, BLOCK, PLACES = 12, 64, 16, 4
WARM_UP = 5  # so many calls it takes until caches and branch predictors hold nothing of another library
WHOLE = 1.12  # a core is whole that takes at most so much longer than it took at the second percentile for the same
SHARES = {"fp32": (0, 0, 1), "bf16": (0, 1, 0), "int8": (1, 0, 0), "40/40/20": (0.4, 0.4, 0.2)}


class Module(c.Structure):
    _fields_ = [(n, c.c_uint32) for n in "kind heads queries keys head_dim threads integer_softmax".split()]


class Mask(c.Structure):
    _fields_ = [("block_size", c.c_uint32), ("blocks", c.POINTER(c.c_uint8)), ("len", c.c_size_t)]


def draw(tokens, density, shares, rng, heads=HEADS):
    """[heads, blocks, blocks] of 0, 1, 2, 4: the diagonal and equally many others in every row."""
    blocks = -(-tokens // BLOCK)
    mask = np.zeros((heads, blocks, blocks), np.uint8)
    for head in mask:
        for row in range(blocks):
            others = rng.permutation([column for column in range(blocks) if column != row])
            chosen = [row, *others[: max(round(density * blocks), 1) - 1]]
            head[row, chosen] = rng.choice([1, 2, 4], len(chosen), p=shares)
    return np.ascontiguousarray(mask)


def on_a_line(numbers, offset=0):
    """The same numbers where a cache line begins, as a tensor of torch does, or `offset` bytes later: numpy's own begin 16 later."""
    room = np.empty(numbers.size + 32, np.float32)
    first = (-room.ctypes.data % 64 + offset) // 4
    moved = room[first : first + numbers.size].reshape(numbers.shape)
    moved[:] = numbers
    return moved


def ours(library, mask, places, causal=False):
    library.maskwright_error_message.restype = c.c_char_p
    heads, tokens, width = places[0][0].shape
    masks = (Mask * heads)(*[Mask(BLOCK, m.ctypes.data_as(c.POINTER(c.c_uint8)), m.size) for m in mask])
    plan, workspace = c.c_void_p(), c.c_void_p()

    def check(status):
        if status:
            sys.exit(library.maskwright_error_message().decode())

    module = Module(int(causal), heads, tokens, tokens, width, 1, 0)
    check(library.maskwright_plan_new(c.byref(module), masks, c.c_size_t(heads), c.byref(plan)))
    check(library.maskwright_workspace_new(plan, c.byref(workspace)))

    def at(q, k, v):
        out = on_a_line(np.zeros_like(q), q.ctypes.data % 64)
        floats = [x for a in (q, k, v) for x in (a.ctypes.data_as(c.c_void_p), c.c_size_t(a.size))]
        tail = [c.c_size_t(2**64 - 1), out.ctypes.data_as(c.c_void_p), c.c_size_t(out.size), workspace]
        return lambda: check(library.maskwright_run(plan, *floats, *tail)) or out

    return [at(*place) for place in places]


class Core:
    """Whether this process has the core that it runs on for itself."""

    def __init__(self, library, rng):
        place = [on_a_line(rng.standard_normal((2, 64, 16), np.float32)) for _ in range(3)]
        (self.probe,), self.probes = ours(library, draw(64, 0.5, SHARES["bf16"], rng, 2), [place]), []
        end = time.perf_counter() + 2  # so long a host may take to move a neighbour away
        while time.perf_counter() < end:
            self.seconds()

    def seconds(self):
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            self.probe()
            times.append(time.perf_counter() - begun)
        self.probes.append(min(times))
        return self.probes[-1]

    def undisturbed(self, samples):
        """For each library, of pairs of what the probe and a call took, the calls while the core was whole; and their share of all."""
        limit = WHOLE * np.percentile(self.probes, 2)
        whole = {name: [call for probe, call in of if probe <= limit] for name, of in samples.items()}
        share = sum(map(len, whole.values())) / sum(map(len, samples.values()))
        everything = {name: [call for _, call in of] for name, of in samples.items()}
        return (whole if all(whole.values()) else everything), share, everything


def torch_sdpa(places):
    import torch

    torch.set_num_threads(1)

    def at(*place):
        q, k, v = (torch.from_numpy(a)[None] for a in place)
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)[0].numpy()

    return [at(*place) for place in places]


def flex(places, mask):
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.set_num_threads(1)
    active, tokens = torch.from_numpy(mask != 0), places[0][0].shape[1]
    keep = lambda b, h, i, j: active[h, i // BLOCK, j // BLOCK]
    blocks = create_block_mask(keep, 1, HEADS, tokens, tokens, device="cpu", BLOCK_SIZE=BLOCK)
    compiled = torch.compile(flex_attention)

    def at(*place):
        q, k, v = (torch.from_numpy(a)[None] for a in place)
        return lambda: compiled(q, k, v, block_mask=blocks)[0].detach().numpy()

    return [at(*place) for place in places]


def openvino_precision():
    """bf16 where the CPU has it: elsewhere OpenVINO emulates it, forty times slower than fp32."""
    try:
        flags = open("/proc/cpuinfo").read()
    except OSError:
        return "f32"
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "f32"


def openvino(places):
    import openvino as ov
    from openvino import opset13 as ops

    inputs = [ops.parameter([1, *a.shape], np.float32) for a in places[0]]
    model = ov.Model([ops.scaled_dot_product_attention(*inputs)], inputs)
    hints = {"INFERENCE_PRECISION_HINT": openvino_precision(), "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()

    def at(*place):
        given = [a[None] for a in place]
        return lambda: request.infer(given, share_inputs=True, share_outputs=True)[0][0]

    return [at(*place) for place in places]


def peer(name, make, peers):
    try:
        calls = make()
        calls[0]()
        peers[name] = calls
    except Exception as error:
        print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)


def dense_reference(mask, q, k, v):
    wide = np.repeat(np.repeat(mask != 0, BLOCK, 1), BLOCK, 2)[:, : q.shape[1], : q.shape[1]]
    scores = np.where(wide, np.einsum("hqd,hkd->hqk", q, k, dtype=np.float64) / WIDTH**0.5, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hqk,hkd->hqd", weights / weights.sum(-1, keepdims=True), v)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("library")
    parse.add_argument("--tokens", default="512,2048")
    parse.add_argument("--densities", default="0.5,0.1")
    parse.add_argument("--repetitions", type=int, default=20, help="turns of each library")
    parse.add_argument("--calls", type=int, default=8, help="timed calls of a turn, after five that are not")
    parse.add_argument("--offset", type=int, default=0, help="bytes past a cache line where inputs begin, a multiple of 4; numpy's own: 16")
    parse.add_argument("--json", action="store_true")
    given = parse.parse_args()
    if given.offset % 4 or not 0 <= given.offset < 64:
        parse.error("--offset is a multiple of 4 from 0 to 60")
    library, rng, rows = c.CDLL(given.library), np.random.default_rng(1), []
    core = Core(library, rng)
    for tokens in map(int, given.tokens.split(",")):
        q, k, v = (rng.standard_normal((HEADS, tokens, WIDTH), np.float32) for _ in range(3))
        places = [[on_a_line(a, given.offset) for a in (q, k, v)] for _ in range(PLACES)]
        dense = {}
        peer("torch SDPA fp32, dense", lambda: torch_sdpa(places), dense)
        peer(f"OpenVINO {openvino_precision()}, dense", lambda: openvino(places), dense)
        for density in map(float, given.densities.split(",")):
            for precision, shares in SHARES.items():
                mask = draw(tokens, density, shares, rng)
                run, peers = ours(library, mask, places), dict(dense)
                peer("FlexAttention fp32, same mask", lambda: flex(places, mask), peers)
                exact = dense_reference(mask, q, k, v) if tokens <= 2048 else None
                error = lambda out: None if exact is None else float(np.sqrt(((out - exact) ** 2).mean() / (exact**2).mean()))
                calls, samples = {"ours": run, **peers}, {}
                for turn in range(given.repetitions):
                    for name, at_places in calls.items():
                        call = at_places[turn % PLACES]
                        for _ in range(WARM_UP):
                            call()
                        before = core.seconds()
                        for _ in range(given.calls):
                            begun = time.perf_counter()
                            call()
                            seconds = time.perf_counter() - begun
                            after = core.seconds()
                            samples.setdefault(name, []).append((max(before, after), seconds))
                            before = after
                seconds, share, everything = core.undisturbed(samples)
                row = dict(tokens=tokens, density=density, precision=precision, our_relative_error=error(run[0]()), share_that_counts=share)
                row["all_count"] = seconds is everything
                faster = lambda of: {name: of[name] / of["ours"] for name in peers}
                middle = lambda times: {name: statistics.median(of) for name, of in times.items()}
                median, least = middle(seconds), {name: min(of) for name, of in seconds.items()}
                row |= {"median_seconds": median, "times_faster": faster(median), "times_faster_of_all_calls": faster(middle(everything))}
                rows.append(row | {"least_seconds": least, "times_faster_at_best": faster(least)})
    if given.json:
        print(json.dumps({"schema_version": 1, "rows": rows}, indent=2))
        return
    for row in rows:
        best = row["times_faster_at_best"]
        ratios = ", ".join(f"{ratio:.2f}x ({best[name]:.2f}) {name}" for name, ratio in row["times_faster"].items())
        print(f"{row['tokens']:6} tokens  {row['density']:4}  {row['precision']:>9}  {row['median_seconds']['ours'] * 1e3:8.3f} ms  {ratios}  {row['share_that_counts']:.0%} of calls{' *' if row['all_count'] else ''}")


if __name__ == "__main__":
    main()
