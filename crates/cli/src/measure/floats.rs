use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Numbers that begin on a cache line, as those of PyTorch's tensors do. The heap would begin them on one or not, from run to
/// run, and kernels copy values that do not.
#[derive(Debug)]
pub(crate) struct Floats {
    /// The heap block stays where it is when this struct moves.
    values: Vec<f32>,
    start: usize,
}

impl Floats {
    pub(crate) fn zeroed(len: usize) -> Self {
        let room = LINE / size_of::<f32>();
        let mut values = vec![0.0; len + room];
        // `align_offset` may decline to answer: no harm done.
        let start = values.as_ptr().align_offset(LINE).min(room);
        values.truncate(start + len);
        Self { values, start }
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_on_a_cache_line_and_are_as_many_as_asked_for() {
        // Lengths that the heap places differently; all kept, so that no two have the same place.
        let all: Vec<_> = (0..200).map(|at| Floats::zeroed(at * 7)).collect();
        for (at, floats) in all.iter().enumerate() {
            assert_eq!((floats.len(), floats.as_ptr().addr() % LINE), (at * 7, 0), "{at}");
        }
    }
}
