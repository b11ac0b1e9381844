//! Loops in plain Rust that are compiled once for each instruction set.

/// Defines a function that calls `$body::<FLOATS>` compiled for the widest instructions that the CPU has. `FLOATS` is how
/// many of them a register holds: 4, 8 or 16.
macro_rules! vectorised {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident = $body:ident($($argument:ident: $kind:ty),* $(,)?)
        $(-> $answer:ty)?) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $kind),*) $(-> $answer)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,fma")]
                fn avx512($($argument: $kind),*) $(-> $answer)? {
                    $body::<16>($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $kind),*) $(-> $answer)? {
                    $body::<8>($($argument),*)
                }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the CPU has these instructions.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the CPU has these instructions.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body::<4>($($argument),*)
        }
    };
}

pub(crate) use vectorised;

/// `a * b + c`, rounded once where the instruction set has that in one instruction.
#[inline(always)]
pub(crate) fn mul_add<const FLOATS: usize>(a: f32, b: f32, c: f32) -> f32 {
    if FLOATS > 4 { a.mul_add(b, c) } else { a * b + c }
}

/// Adding it to a number below 2^22 rounds that to a whole number, ties to even, which then stands in the low bits.
const ROUNDING: f32 = 12_582_912.0;

/// The nearest whole number of `x`, ties to even; |x| is below 2^22.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    (x + ROUNDING) - ROUNDING
}

/// `exp(y)` for `y <= 0`, to about 1e-7 of itself; 0 below -87.7.
#[inline(always)]
pub(crate) fn exp_of_negative<const FLOATS: usize>(y: f32) -> f32 {
    let y = y.max(-88.0);
    let shifted = mul_add::<FLOATS>(y, std::f32::consts::LOG2_E, ROUNDING);
    let whole = shifted - ROUNDING;
    // ln 2 in two parts, so that the rest is exact.
    let rest = mul_add::<FLOATS>(whole, 2.121_944_4e-4, mul_add::<FLOATS>(whole, -0.693_359_4, y));
    // Taylor's series; |rest| is at most ln 2 / 2.
    let series = 1.0 / 720.0;
    let series = mul_add::<FLOATS>(series, rest, 1.0 / 120.0);
    let series = mul_add::<FLOATS>(series, rest, 1.0 / 24.0);
    let series = mul_add::<FLOATS>(series, rest, 1.0 / 6.0);
    let series = mul_add::<FLOATS>(series, rest, 0.5);
    let series = mul_add::<FLOATS>(series, rest, 1.0);
    let series = mul_add::<FLOATS>(series, rest, 1.0);
    let power = f32::from_bits(((shifted.to_bits() as i32).wrapping_add(127) << 23) as u32);
    series * power
}
