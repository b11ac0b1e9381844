/// As many numbers as a cache line holds.
pub(crate) type Line = [f32; 16];

/// Three tensors that will be needed, and how many of their lines have been asked for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ahead<'a> {
    tensors: [&'a [Line]; 3],
    pub asked: usize,
}

impl<'a> Ahead<'a> {
    pub(crate) fn of(tensors: [&'a [f32]; 3]) -> Self {
        Self { tensors: tensors.map(|tensor| tensor.as_chunks().0), asked: 0 }
    }

    /// The next lines to be asked for, as many as `count` of one tensor.
    #[inline(always)]
    pub(super) fn take(&mut self, count: usize) -> &'a [Line] {
        let mut at = self.asked;
        for lines in self.tensors {
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
        let mut ahead = Ahead::of([&numbers[..16 * 5], &[], &numbers[16 * 5..]]);
        let mut taken = Vec::new();
        loop {
            let lines = ahead.take(4);
            if lines.is_empty() {
                break;
            }
            taken.push(lines.iter().map(|line| line[0] as usize / 16).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![0, 1, 2, 3], vec![4], vec![5, 6, 7, 8], vec![9, 10, 11]]);
        assert!(Ahead::default().take(4).is_empty());
    }
}
