/// Numbers of a cache line.
pub(super) const LINE: usize = 16;
type Line = [f32; LINE];

/// Three tensors that will be needed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Next<'a>([&'a [Line]; 3]);

impl<'a> Next<'a> {
    pub(crate) fn of(tensors: [&'a [f32]; 3]) -> Self {
        Self(tensors.map(|tensor| tensor.as_chunks().0))
    }
}

/// How many lines of them have been asked for. A reference and a number: what is copied from tile to tile with one load is what
/// was stored with one, for which a load does not wait.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    next: &'a Next<'a>,
    pub asked: usize,
}

impl<'a> Ahead<'a> {
    pub(super) fn of(next: &'a Next<'a>) -> Self {
        Self { next, asked: 0 }
    }

    /// The next lines to be asked for, as many as `count` of one tensor.
    #[inline(always)]
    pub(super) fn take(&mut self, count: usize) -> &'a [Line] {
        let mut at = self.asked;
        for lines in self.next.0 {
            if let Some(rest @ [_, ..]) = lines.get(at..) {
                let lines = &rest[..count.min(rest.len())];
                self.asked += lines.len();
                return lines;
            }
            at -= lines.len();
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_asked_for_once_and_none_of_two_tensors_together() {
        let numbers: Vec<f32> = (0..16 * 12 + 5).map(|at| at as f32).collect();
        // Five lines, none, and seven, of which a part of an eighth is left alone.
        let next = Next::of([&numbers[..16 * 5], &[], &numbers[16 * 5..]]);
        let mut ahead = Ahead::of(&next);
        let mut taken = Vec::new();
        loop {
            let lines = ahead.take(4);
            if lines.is_empty() {
                break;
            }
            taken.push(lines.iter().map(|line| line[0] as usize / 16).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![0, 1, 2, 3], vec![4], vec![5, 6, 7, 8], vec![9, 10, 11]]);
        assert!(Ahead::of(&Next::default()).take(4).is_empty());
    }
}
