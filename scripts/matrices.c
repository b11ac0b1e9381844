/* What products of the unit for matrices take, and what surrounds them in the kernel `amx` (docs/decisions/218). Needs Linux, AVX-512 and AMX;
   prints the least of many runs, in nanoseconds and in cycles of a chain of additions.

       gcc -O2 -mavx512f -mavx512bw -mamx-tile -mamx-int8 -mamx-bf16 scripts/matrices.c -o /tmp/matrices && taskset -c 1 /tmp/matrices */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint8_t memory[1 << 20] __attribute__((aligned(4096)));
static struct { uint8_t palette, first, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } shapes __attribute__((aligned(64)));

/* Registers of 16 rows of 64 bytes, but the last two: 16 rows of so many words, and as many rows. */
static void set(int words) {
    memset(&shapes, 0, sizeof shapes);
    shapes.palette = 1;
    for (int n = 0; n < 8; n++) shapes.bytes[n] = n == 6 ? 4 * words : 64, shapes.rows[n] = n == 7 ? words : 16;
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&shapes);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* The least of all rounds, for each `count` of what a turn does. */
#define TIMED(name, count, body)                                                          \
    {                                                                                     \
        static double least = 1;                                                          \
        double begun = now();                                                             \
        for (int i = 0; i < TURNS; i++) { body; }                                         \
        double taken = (now() - begun) / TURNS / (count);                                 \
        if (taken < least) least = taken;                                                 \
        if (last) printf("%-58s %6.1f ns %5.0f cycles\n", name, least * 1e9, least * hertz); \
    }
enum { TURNS = 1600, ROUNDS = 500 };
#define BLOCK(i) (memory + (256 << 10) + (i) * 37 % 32 * 1024)
#define SCORES(i) (memory + (64 << 10) + ((i) & 7) * 2176)
#define SCORE(sum, keys, n) _tile_zero(sum); _tile_loadd(keys, BLOCK(i) + n * 1024, 64); _tile_dpbssd(sum, 2, keys);
#define PAIR(a, b) \
    _tile_loadd(2, memory, 64); SCORE(0, a, 0) SCORE(1, b, 1) _tile_stored(0, SCORES(i), 64); _tile_stored(1, SCORES(i) + 1088, 64);
#define HALF_PAIR(queries, more, k) \
    _tile_loadd(queries, memory + more * 64, 128); \
    _tile_loadd(4, BLOCK(i) + 2048 * more, 64); _tile_dpbf16ps(0, queries, 4); \
    _tile_loadd(k, BLOCK(i) + 2048 * more + 1024, 64); _tile_dpbf16ps(1, queries, k);
#define HALF(second, k) \
    _tile_zero(0); _tile_zero(1); HALF_PAIR(2, 0, k) HALF_PAIR(second, 1, k) _tile_stored(0, SCORES(i), 64); _tile_stored(1, SCORES(i) + 1088, 64);
#define READ(at) \
    for (int n = 0; n < 32; n += 2) { \
        uint8_t *row = (at) + n / 16 * 1088 + n % 16 * 64; \
        __m512i a = _mm512_srav_epi32(_mm512_load_si512(row), bits), b = _mm512_srav_epi32(_mm512_load_si512(row + 64), bits); \
        a = _mm512_packs_epi32(a, b); \
        most = _mm512_max_epi16(most, a); \
        _mm512_store_si512(row, a); \
    }
#define WEIGHTS _tile_loadd(6, memory + (i & 7) * 1088, 16);
#define SUM(sum, at) _tile_loadd(7, BLOCK(i) + at, 256); _tile_dpbusd(sum, 6, 7);
#define COPY(to) \
    for (int block = 0; block < 4; block++) { \
        uint8_t *from = BLOCK(i * 4 + block), *row = (to) + block * 64; \
        _Pragma("GCC unroll 16") for (int n = 0; n < 16; n++) \
            _mm512_store_si512(row + n % 4 * 1024 + n / 4 * 256, _mm512_load_si512(from + n / 4 * 256 + n % 4 * 64)); \
    }
#define FOUR(from) \
    _tile_loadd(2, memory, 64); \
    _tile_loadd(4, from, 64); _tile_dpbusd(0, 2, 4); _tile_loadd(5, (from) + 1024, 64); _tile_dpbusd(1, 2, 5); \
    _tile_loadd(4, (from) + 2048, 64); _tile_dpbusd(0, 2, 4); _tile_loadd(5, (from) + 3072, 64); _tile_dpbusd(1, 2, 5);
/* Eight multiply-adds, none of which waits for another. */
#define VECTORS _Pragma("GCC unroll 8") for (int m = 0; m < 8; m++) floats[m] = _mm512_fmadd_ps(floats[m], half, half);
#define PRODUCT(sum, a, b, ...) _tile_dpbf16ps(sum, a, b); __VA_ARGS__
#define SIX(...) \
    PRODUCT(0, 2, 4, __VA_ARGS__) PRODUCT(1, 3, 5, __VA_ARGS__) PRODUCT(0, 2, 4, __VA_ARGS__) \
    PRODUCT(1, 3, 5, __VA_ARGS__) PRODUCT(0, 2, 4, __VA_ARGS__) PRODUCT(1, 3, 5, __VA_ARGS__)
/* Numbers of 32 bit as three of bf16: of each 32 features six products of 16 queries, 384 bytes each, with 16 keys, 2 KiB for each third. */
#define QUERIES(third, at) _tile_loadd(2, memory + third * 128 + at * 64, 384);
#define KEYS(third, at) _tile_loadd(4, memory + (256 << 10) + i * 37 % 32 * 6144 + third * 2048 + at * 1024, 64);
#define FEATURES(at, ...) \
    QUERIES(2, at) KEYS(0, at) PRODUCT(0, 2, 4, __VA_ARGS__) QUERIES(1, at) PRODUCT(0, 2, 4, __VA_ARGS__) KEYS(1, at) PRODUCT(0, 2, 4, __VA_ARGS__) \
    QUERIES(0, at) PRODUCT(0, 2, 4, __VA_ARGS__) KEYS(2, at) PRODUCT(0, 2, 4, __VA_ARGS__) KEYS(0, at) PRODUCT(0, 2, 4, __VA_ARGS__)
#define THIRDS(...) _tile_zero(0); FEATURES(0, __VA_ARGS__) FEATURES(1, __VA_ARGS__) _tile_stored(0, SCORES(i), 64);

int main(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    if (syscall(SYS_arch_prctl, REQUEST, TILE_DATA)) return puts("this system has no AMX for us"), 1;
    __m512i bits = _mm512_set1_epi32(memory[5]), most = _mm512_setzero_si512();
    // Memory that nobody has written to is one page of zeros, which the innermost cache holds.
    memset(memory, 1, sizeof memory);
    __m512 floats[8] = {0}, half = _mm512_set1_ps(.5f);
    set(4);
    double hertz = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int last = round == ROUNDS - 1;
        double begun = now();
        for (long n = 0, x = 0; n < 20000; n++) __asm__ volatile("add $1, %0" : "+r"(x));
        double found = 20000 / (now() - begun);
        if (found > hertz) hertz = found;
        TIMED("setting all shapes", 1, _tile_loadconfig(&shapes))
        set(4);
        TIMED("8-bit product, 16 words", 2, _tile_dpbssd(0, 2, 4); _tile_dpbssd(1, 3, 5))
        TIMED("16-bit product, 16 words", 2, _tile_dpbf16ps(0, 2, 4); _tile_dpbf16ps(1, 3, 5))
        TIMED("8-bit product, 4 words", 2, _tile_dpbusd(0, 6, 7); _tile_dpbusd(1, 6, 7))
        TIMED("loading a register", 2, _tile_loadd(4, BLOCK(i), 64); _tile_loadd(5, BLOCK(i) + 1024, 64))
        TIMED("storing one", 2, _tile_stored(0, SCORES(i), 64); _tile_stored(1, SCORES(i) + 1088, 64))
        TIMED("8-bit scores of a block, keys in two registers", 2, PAIR(4, 5))
        TIMED("the same, in one", 2, PAIR(4, 4))
        TIMED("16-bit scores of a block, two registers of each", 2, HALF(3, 5))
        TIMED("the same, one", 2, HALF(2, 4))
        TIMED("reading a block's scores", 2, READ(SCORES(i)))
        TIMED("8-bit scores, and reading those before", 2, PAIR(4, 5) READ(SCORES(i - 1)))
        TIMED("a block's values, 4 words a product", 1,
              for (int at = 0; at < 256; at += 128) { WEIGHTS SUM(0, at) SUM(1, at + 64) })
        TIMED("values of four blocks copied together", 1, COPY(memory + (128 << 10) + (i & 3) * 4096))
        TIMED("the same, and their four products", 1, uint8_t *to = memory + (128 << 10) + (i & 3) * 4096; COPY(to) FOUR(to))
        TIMED("six products of 16 bit", 1, SIX())
        TIMED("the same, 8 vector instructions after each", 1, SIX(VECTORS))
        TIMED("16 after each", 1, SIX(VECTORS VECTORS))
        TIMED("24 after each", 1, SIX(VECTORS VECTORS VECTORS))
        TIMED("24 vector instructions, six times", 1, for (int n = 0; n < 18; n++) { VECTORS })
        TIMED("32-bit scores by thirds, from the second cache", 1, THIRDS())
        TIMED("the same, 16 vector instructions after each product", 1, THIRDS(VECTORS VECTORS))
        TIMED("the same, those of all products after the last", 1, THIRDS() for (int n = 0; n < 24; n++) { VECTORS })
    }
    for (int n = 0; n < 8; n++) most = _mm512_add_epi32(most, _mm512_castps_si512(floats[n]));
    memory[0] = _mm512_reduce_add_epi32(most);
    _tile_release();
    return 0;
}
