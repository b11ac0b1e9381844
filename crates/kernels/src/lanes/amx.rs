//! Products of the matrix unit (Intel AMX).
//!
//! Its registers hold up to 16 rows of 64 bytes; how many rows and bytes each has, a program says beforehand. Here they are two
//! sums of 16 rows of 16 numbers; two first operands, and two second ones, of 16 words; one of each of 8 words, or of 4. However few words there are, a
//! product takes as long: 16 cycles, one for each row of the sum.
//!
//! No compiler has these registers for anything of its own. Still, no code here finds in one of them what other code has left there.

use std::{
    arch::{asm, x86_64::__cpuid_count},
    sync::LazyLock,
};

use super::{MatrixScores, MatrixSums};

/// Whether this CPU has the instructions for 8 and 16 bit, and the system lets this process use them, which it has to be asked for.
pub(super) fn is_allowed() -> bool {
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        /// Bits of leaf 7: AMX-BF16, AMX-TILE and AMX-INT8.
        const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        __cpuid_count(7, 0).edx & NEEDED == NEEDED && ask()
    });
    *ALLOWED
}

/// Asks for the registers, for every thread of the process.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` and `XFEATURE_XTILEDATA` of Linux's `asm/prctl.h` and `fpu/types.h`.
    const REQUEST: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: it reads and writes no memory of ours; a system that does not know it says so.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

/// What each register has, as `ldtilecfg` reads it: palette 1; from byte 16 on two bytes for the bytes of a row; from byte 48 on one for the rows.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    _first_row: u8,
    _reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// With so many words for the last two registers.
const fn shapes(words: u16) -> Shapes {
    let mut shapes = Shapes { palette: 1, _first_row: 0, _reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    // 0 and 1: sums. 2 and 3, and 6: the first operand, whose rows are as long as there are words. 4 and 5, and 7: the second one, with a row a word.
    let (row_words, rows) = ([16, 16, 16, 16, 16, 16, words, 16], [16, 16, 16, 16, 16, 16, 16, words as u8]);
    let mut n = 0;
    while n < 8 {
        (shapes.row_bytes[n], shapes.rows[n]) = (4 * row_words[n], rows[n]);
        n += 1;
    }
    shapes
}

/// Makes the registers ready for the functions below, with four words for [`sums`] or with eight.
///
/// # Safety
/// [`is_allowed`] has said so.
pub(super) unsafe fn begin(four: bool) {
    static FOUR_OR_EIGHT: [Shapes; 2] = [shapes(4), shapes(8)];
    let shapes = &FOUR_OR_EIGHT[usize::from(!four)];
    // SAFETY: the caller's promise; 64 bytes are read.
    unsafe { asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, readonly)) }
}

/// Gives them back: what is not in use needs not be saved.
///
/// # Safety
/// As for [`begin`].
pub(super) unsafe fn end() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// The instruction for scores, the one for sums, and bytes of where the words of a vector of 16 keys begin.
macro_rules! kind {
    (bytes scores) => {
        "tdpbssd"
    };
    (bytes sums) => {
        "tdpbusd"
    };
    (bytes rows) => {
        16_usize
    };
    (pairs scores) => {
        "tdpbf16ps"
    };
    (pairs sums) => {
        "tdpbf16ps"
    };
    (pairs rows) => {
        32_usize
    };
}

/// The line, if there are two vectors.
macro_rules! second {
    (two $line:expr) => {
        $line
    };
    (one $line:expr) => {
        ""
    };
}

/// Products of so many words of queries with those of each vector of keys, after which pointers are that much further.
macro_rules! step {
    ($kind:ident, $count:ident, $words:literal, $queries:literal, $first:literal, $second:literal) => {
        concat!(
            "tileloadd ", $queries, ", [{queries} + {stride}]\n",
            "tileloadd ", $first, ", [{first} + {line}]\n",
            kind!($kind scores), " tmm0, ", $queries, ", ", $first, "\n",
            second!($count concat!("tileloadd ", $second, ", [{second} + {line}]\n")),
            second!($count concat!(kind!($kind scores), " tmm1, ", $queries, ", ", $second, "\n")),
            "add {queries}, 4 * ", $words, "\n",
            "add {first}, 64 * ", $words, "\n",
            "add {second}, 64 * ", $words, "\n",
        )
    };
}

macro_rules! scores {
    ($kind:ident, $count:ident, $scores:expr) => {{
        let MatrixScores { queries, words, keys, to } = $scores;
        asm!(
            "tilezero tmm0",
            second!($count "tilezero tmm1"),
            "mov {left}, {words}",
            "shr {left}, 5",
            "jz 3f",
            "2:",
            step!($kind, $count, "16", "tmm2", "tmm4", "tmm5"),
            step!($kind, $count, "16", "tmm3", "tmm4", "tmm5"),
            "dec {left}",
            "jnz 2b",
            "3:",
            "test {words}, 16",
            "jz 4f",
            step!($kind, $count, "16", "tmm2", "tmm4", "tmm5"),
            "4:",
            "test {words}, 8",
            "jz 5f",
            step!($kind, $count, "8", "tmm6", "tmm7", "tmm7"),
            "5:",
            "tilestored [{to_first} + {line}], tmm0",
            second!($count "tilestored [{to_second} + {line}], tmm1"),
            "/* {to_second} */",
            queries = inout(reg) queries => _,
            first = inout(reg) keys[0] => _,
            second = inout(reg) keys[1] => _,
            words = in(reg) words,
            stride = in(reg) 4 * words,
            line = in(reg) 64_usize,
            to_first = in(reg) to[0],
            to_second = in(reg) to[1],
            left = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }};
}

/// # Safety
/// After [`begin`], on the same thread: there are `queries` and `keys` to be read, and `to` can be written. Where `ONE`, the second of each is left alone.
pub(super) unsafe fn scores<const BYTES: bool, const ONE: bool>(scores: MatrixScores) {
    // SAFETY: the caller's promise. No code but this knows these registers.
    unsafe {
        match (BYTES, ONE) {
            (true, false) => scores!(bytes, two, scores),
            (true, true) => scores!(bytes, one, scores),
            (false, false) => scores!(pairs, two, scores),
            (false, true) => scores!(pairs, one, scores),
        }
    }
}

/// A product of each vector of keys' weights with its values, for 32 features.
macro_rules! sums {
    ($kind:ident, $sums:expr) => {{
        let MatrixSums { weights, of_query, of_vector, rows, values, head_dim, to, adds } = $sums;
        asm!(
            "test {adds:l}, {adds:l}",
            "jz 2f",
            "tileloadd tmm0, [{to} + {pitch}]",
            "tileloadd tmm1, [{to} + {pitch} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "3:",
            "mov {row:e}, dword ptr [{rows}]",
            "lea {row}, [{values} + 4 * {row}]",
            "tileloadd tmm6, [{weights} + {of_query}]",
            "tileloadd tmm7, [{row} + {pitch}]",
            concat!(kind!($kind sums), " tmm0, tmm6, tmm7"),
            "tileloadd tmm7, [{row} + {pitch} + 64]",
            concat!(kind!($kind sums), " tmm1, tmm6, tmm7"),
            "add {rows}, {of_rows}",
            "add {weights}, {of_vector}",
            "dec {left}",
            "jnz 3b",
            "tilestored [{to} + {pitch}], tmm0",
            "tilestored [{to} + {pitch} + 64], tmm1",
            adds = in(reg) usize::from(adds),
            to = in(reg) to,
            pitch = in(reg) 4 * head_dim,
            row = out(reg) _,
            rows = inout(reg) rows.as_ptr() => _,
            values = in(reg) values,
            weights = inout(reg) weights => _,
            of_query = in(reg) 4 * of_query,
            of_vector = in(reg) 4 * of_vector,
            of_rows = const kind!($kind rows),
            left = inout(reg) rows.len().div_ceil(kind!($kind rows) / 4) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }};
}

/// # Safety
/// After [`begin`], on the same thread: there are weights, and values of as many words from each vector's first one on, to be read, at least one of them, and `to` can be
/// read and written.
pub(super) unsafe fn sums<const BYTES: bool>(sums: MatrixSums<'_>) {
    debug_assert!(!sums.rows.is_empty());
    // SAFETY: the caller's promise. No code but this knows these registers.
    unsafe { if BYTES { sums!(bytes, sums) } else { sums!(pairs, sums) } }
}
