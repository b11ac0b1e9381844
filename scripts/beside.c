// What an instruction takes from products that begin beside it: 24 products of 512 bits and 8 others in turn, all independent,
// in cycles that each of the others adds. For AVX-512 with VNNI, BF16 and VBMI; docs/measurements has what it said.
//
//     gcc -O2 -march=x86-64-v4 -o /tmp/beside scripts/beside.c && taskset -c 1 /tmp/beside
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

#define LOOPS 1000
#define WRITTEN                                                                                         \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",            \
    "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23"
#define PRODUCT(op, n) op " %%zmm30, %%zmm31, %%zmm" #n "\n"
#define STEP(op, a, b, c, other) PRODUCT(op, a) PRODUCT(op, b) PRODUCT(op, c) other "\n"
#define BODY(op, o0, o1, o2, o3, o4, o5, o6, o7)                                                        \
    STEP(op, 0, 1, 2, o0) STEP(op, 3, 4, 5, o1) STEP(op, 6, 7, 8, o2) STEP(op, 9, 10, 11, o3)           \
    STEP(op, 12, 13, 14, o4) STEP(op, 15, 0, 1, o5) STEP(op, 2, 3, 4, o6) STEP(op, 5, 6, 7, o7)
// The least of many runs, in seconds a loop.
#define TIME(best, body)                                                                                \
    do {                                                                                                \
        best = 1;                                                                                       \
        for (int k = 0; k < 200; k++) {                                                                 \
            long n = LOOPS;                                                                             \
            double from = now();                                                                        \
            __asm__ volatile("1:\n" body "dec %0\n jnz 1b" : "+r"(n) : "r"(p) : "memory", WRITTEN);      \
            double took = (now() - from) / LOOPS;                                                       \
            if (took < best) best = took;                                                               \
        }                                                                                               \
    } while (0)
// `before` and `after` are around the number of the register that is written or stored.
#define EIGHT(op, b, a)                                                                                 \
    BODY(op, b "16" a, b "17" a, b "18" a, b "19" a, b "20" a, b "21" a, b "22" a, b "23" a)
#define ROW(name, before, after)                                                                        \
    do {                                                                                                \
        double t[3];                                                                                    \
        TIME(t[0], EIGHT("vfmadd231ps", before, after));                                                \
        TIME(t[1], EIGHT("vdpbf16ps", before, after));                                                  \
        TIME(t[2], EIGHT("vpdpbusd", before, after));                                                   \
        printf("%-22s", name);                                                                          \
        for (int i = 0; i < 3; i++) printf("  %5.2f", (t[i] / alone[i] - 1) * 24 / 8);                  \
        puts("");                                                                                       \
    } while (0)

int main(void) {
    char *p = aligned_alloc(4096, 4096);
    for (int i = 0; i < 1024; i++) ((float *)p)[i] = 1;
    double alone[3];
    TIME(alone[0], BODY("vfmadd231ps", "", "", "", "", "", "", "", ""));
    TIME(alone[1], BODY("vdpbf16ps", "", "", "", "", "", "", "", ""));
    TIME(alone[2], BODY("vpdpbusd", "", "", "", "", "", "", "", ""));
    puts("each adds, in products      fp32   bf16   int8");
    ROW("multiply-add", "vfmadd213ps %%zmm30, %%zmm31, %%zmm", "");
    ROW("multiplication", "vmulps %%zmm30, %%zmm31, %%zmm", "");
    ROW("16-bit product", "vpmulhuw %%zmm30, %%zmm31, %%zmm", "");
    ROW("addition", "vaddps %%zmm30, %%zmm31, %%zmm", "");
    ROW("maximum", "vmaxps %%zmm30, %%zmm31, %%zmm", "");
    ROW("to integers", "vcvtps2dq %%zmm30, %%zmm", "");
    ROW("to bf16", "vcvtne2ps2bf16 %%zmm30, %%zmm31, %%zmm", "");
    ROW("vpackusdw", "vpackusdw %%zmm30, %%zmm31, %%zmm", "");
    ROW("16-bit addition", "vpaddw %%zmm30, %%zmm31, %%zmm", "");
    ROW("16-bit shift", "vpsllw $7, %%zmm31, %%zmm", "");
    ROW("vpsrlvw", "vpsrlvw %%zmm30, %%zmm31, %%zmm", "");
    ROW("vpternlogd", "vpternlogd $15, %%zmm30, %%zmm31, %%zmm", "");
    ROW("vpermb", "vpermb %%zmm30, %%zmm31, %%zmm", "");
    ROW("vpermt2w", "vpermt2w %%zmm30, %%zmm31, %%zmm", "");
    ROW("vreduceps", "vreduceps $0, %%zmm30, %%zmm", "");
    ROW("vscalefps", "vscalefps %%zmm30, %%zmm31, %%zmm", "");
    ROW("load", "vmovups 64(%1), %%zmm", "");
    ROW("store, 512 bits", "vmovups %%zmm", ", 1024(%1)");
    ROW("store, 256 bits", "vmovups %%ymm", ", 1024(%1)");
    ROW("upper half to memory", "vextractf64x4 $1, %%zmm", ", 1024(%1)");
}
