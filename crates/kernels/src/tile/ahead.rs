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
