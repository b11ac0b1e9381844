use crate::vectorised::mul_add;

/// A matrix in someone else's memory: element `(row, column)` stands at `row * rows + column * columns`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
}

/// Rows, columns and the length of the sums of a product.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub m: usize,
    /// A multiple of 8.
    pub n: usize,
    pub k: usize,
}

/// `c[m][n] += sum over k of a(m, k) b[k][n]`; rows of `c` and `b` are `c_row` and `b_row` apart.
#[inline(always)]
pub(super) fn add_product<const FLOATS: usize>(
    size: Size,
    a: Matrix<'_>,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let Size { m, n, k } = size;
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!((m - 1) * a.rows + (k - 1) * a.columns < a.values.len());
    assert!((k - 1) * b_row + n <= b.len() && (m - 1) * c_row + n <= c.len() && n.is_multiple_of(8));
    let mut at = 0;
    while at < n {
        // Enough sums side by side to hide how long one takes, few enough for the registers.
        // SAFETY: the three assertions above; every tile lies within m rows and n columns.
        unsafe {
            match (FLOATS, n - at) {
                (16, 16..) => column::<FLOATS, 16, 8>(size, a, &b[at..], b_row, &mut c[at..], c_row),
                (8, 16..) => column::<FLOATS, 16, 6>(size, a, &b[at..], b_row, &mut c[at..], c_row),
                (8 | 16, _) => column::<FLOATS, 8, 8>(size, a, &b[at..], b_row, &mut c[at..], c_row),
                _ => column::<FLOATS, 8, 4>(size, a, &b[at..], b_row, &mut c[at..], c_row),
            }
        }
        at += if FLOATS >= 8 && n - at >= 16 { 16 } else { 8 };
    }
}

/// `W` columns of a product, `R` rows at a time.
///
/// # Safety
/// `a` has `m` rows of `k`, `b` has `k` rows of `W`, `c` has `m` rows of `W`.
#[inline(always)]
unsafe fn column<const FLOATS: usize, const W: usize, const R: usize>(
    Size { m, k, .. }: Size,
    a: Matrix<'_>,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let mut at = 0;
    while at + R <= m {
        // SAFETY: as here, from row `at` on.
        unsafe { tile::<FLOATS, W, R>(k, a, at, b, b_row, c, c_row) };
        at += R;
    }
    while at + 2 <= m {
        // SAFETY: as here, from row `at` on.
        unsafe { tile::<FLOATS, W, 2>(k, a, at, b, b_row, c, c_row) };
        at += 2;
    }
    if at < m {
        // SAFETY: as here, from row `at` on.
        unsafe { tile::<FLOATS, W, 1>(k, a, at, b, b_row, c, c_row) };
    }
}

/// # Safety
/// `a` has `R` rows of `k` from row `first` on, `b` has `k` rows of `W`, `c` has `R` rows of `W` from row `first` on.
#[inline(always)]
unsafe fn tile<const FLOATS: usize, const W: usize, const R: usize>(
    k: usize,
    a: Matrix<'_>,
    first: usize,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let mut sums = [[0.0_f32; W]; R];
    for at in 0..k {
        // SAFETY: row `at` of `b` exists.
        let b: &[f32; W] = unsafe { &*b.as_ptr().add(at * b_row).cast() };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: element `(first + r, at)` of `a` exists.
            let a = unsafe { *a.values.get_unchecked((first + r) * a.rows + at * a.columns) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = mul_add::<FLOATS>(a, *b, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: row `first + r` of `c` exists.
        let c: &mut [f32; W] = unsafe { &mut *c.as_mut_ptr().add((first + r) * c_row).cast() };
        for (c, sum) in c.iter_mut().zip(sums) {
            *c += sum;
        }
    }
}
