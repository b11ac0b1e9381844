use crate::packed::{Largest, words};

/// Numbers of a cache line.
pub(super) const LINE: usize = 16;
type Line = [u32; LINE];

/// Three tensors that will be needed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Next<'a> {
    tensors: [&'a [Line]; 3],
    /// Whether their largest numbers are worth [looking](Looked) for.
    pub looks: bool,
}

impl<'a> Next<'a> {
    pub(crate) fn of(tensors: [&'a [f32]; 3]) -> Self {
        Self { tensors: tensors.map(|tensor| words(tensor).as_chunks().0), looks: false }
    }

    fn lines(&self) -> usize {
        self.tensors.iter().map(|lines| lines.len()).sum()
    }
}

/// The largest numbers of a [`Next`], lane by lane, as far as lines that had been asked for have been read while 8-bit blocks were
/// multiplied. A head of such blocks alone would be read once more for them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Looked {
    pub bits: [[u32; LINE]; 3],
    lines: [usize; 3],
    /// Whether nothing is left but ends of tensors that are shorter than what a loop reads.
    done: bool,
}

impl Looked {
    #[inline(always)]
    pub(super) fn largest(&self) -> [Largest; 3] {
        let of = |tensor: usize| {
            let bits = self.bits[tensor].iter().fold(0, |max, &bits| max.max(bits));
            Largest { of: self.lines[tensor] * LINE, bits }
        };
        [of(0), of(1), of(2)]
    }
}

/// Lines from one that is asked for back to one that is read: time to come from the third cache. More or fewer make no difference (docs/decisions/209).
const ON_THE_WAY: usize = 64;

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
        for lines in self.next.tensors {
            if let Some(rest @ [_, ..]) = lines.get(at..) {
                let lines = &rest[..count.min(rest.len())];
                self.asked += lines.len();
                return lines;
            }
            at -= lines.len();
        }
        &[]
    }

    /// Whether there are lines to be looked through.
    #[inline(always)]
    pub(super) fn looks(&self, looked: &Looked) -> bool {
        self.next.looks && !looked.done
    }

    /// The next `count` lines of one tensor to be looked through, and which one that is, if they have been asked for for some time. Of what is
    /// left at the end of a tensor, none.
    #[inline(always)]
    pub(super) fn look(&self, looked: &mut Looked, count: usize) -> Option<(usize, &'a [Line])> {
        let all = self.next.lines();
        let mut arrived = if self.asked == all { all } else { self.asked.saturating_sub(ON_THE_WAY) };
        for (tensor, lines) in self.next.tensors.into_iter().enumerate() {
            let at = looked.lines[tensor];
            if let Some(lines) = lines[at..].get(..count) {
                let come = at + count <= arrived;
                looked.lines[tensor] += if come { count } else { 0 };
                return come.then_some((tensor, lines));
            }
            arrived = arrived.saturating_sub(lines.len());
        }
        looked.done = true;
        None
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
            taken.push(lines.iter().map(|line| f32::from_bits(line[0]) as usize / 16).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![0, 1, 2, 3], vec![4], vec![5, 6, 7, 8], vec![9, 10, 11]]);
        assert!(Ahead::of(&Next::default()).take(4).is_empty());
    }

    #[test]
    fn lines_are_looked_through_once_when_they_have_been_asked_for_for_some_time() {
        let numbers = [0.0; 16 * 200];
        // 200 lines, none, and 70.
        let next = Next { looks: true, ..Next::of([&numbers, &[], &numbers[..16 * 70 + 5]]) };
        let (mut ahead, mut looked) = (Ahead::of(&next), Looked::default());
        let mut look = |asked: usize, count: usize| {
            ahead.asked = asked;
            assert!(ahead.looks(&looked));
            let found = ahead.look(&mut looked, count).map(|(tensor, lines)| (tensor, lines.as_ptr(), lines.len()));
            looked.bits[2][7] = 3;
            looked.bits[2][9] = 2;
            (found, looked.largest().map(|largest| largest.of / 16), looked.done)
        };
        let of =
            |tensor: usize, line: usize, count: usize| Some((tensor, next.tensors[tensor][line..].as_ptr(), count));
        assert_eq!(look(64 + 39, 40), (None, [0, 0, 0], false));
        assert_eq!(look(64 + 40, 40), (of(0, 0, 40), [40, 0, 0], false));
        assert_eq!(look(64 + 40, 40), (None, [40, 0, 0], false));
        assert_eq!(look(64 + 190, 150), (of(0, 40, 150), [190, 0, 0], false));
        // Ten are left of the first tensor, for its packing.
        assert_eq!(look(200 + 64 + 19, 20), (None, [190, 0, 0], false));
        assert_eq!(look(200 + 64 + 20, 20), (of(2, 0, 20), [190, 0, 20], false));
        assert_eq!(look(269, 5), (of(0, 190, 5), [195, 0, 20], false));
        assert_eq!(look(269, 40), (None, [195, 0, 20], false));
        // Nothing is to come any more.
        assert_eq!(look(270, 40), (of(2, 20, 40), [195, 0, 60], false));
        assert_eq!(look(270, 11), (None, [195, 0, 60], true));
        assert_eq!(looked.largest()[2], Largest { of: 16 * 60, bits: 3 });
        assert!(!Ahead::of(&next).looks(&looked));
        assert!(!Ahead::of(&Next::of([&numbers; 3])).looks(&Looked::default()));
    }
}
