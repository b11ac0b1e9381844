use maskwright_blueprint::{AttentionKind, Blueprint};

/// A blueprint as arrays of numbers: compressed rows, for all heads of all modules one after the other.
///
/// Module `m` has the heads `module_head[m]..module_head[m + 1]`, head `h` the rows `head_row[h]..head_row[h + 1]`, row
/// `r` the blocks `row_ptr[r]..row_ptr[r + 1]`; block `b` lies in column `col_idx[b]` and has `width[b]` bytes per
/// element.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub modules: usize,
    pub heads: usize,
    pub rows: usize,
    pub blocks: usize,
    /// In the order in which the checksum takes them.
    pub arrays: Vec<Array>,
}

/// One constant array.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub name: &'static str,
    pub doc: &'static str,
    /// Its length, in the words of [`Tables`]: `ROWS`, or one more.
    pub length: Length,
    pub values: Vec<u64>,
}

/// Entries of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// One for each.
    Each(&'static str),
    /// One for each, and the end of the last.
    EachAndEnd(&'static str),
}

impl Array {
    /// Bits of the smallest unsigned integer that holds every value.
    pub fn bits(&self) -> u32 {
        let most = self.values.iter().copied().max().unwrap_or(0);
        [8, 16, 32].into_iter().find(|bits| most >> bits == 0).unwrap_or(64)
    }

    /// The values as source text, in lines of at most 100 characters after `indent`.
    pub fn lines(&self, indent: &str) -> String {
        let mut text = String::new();
        let mut line = indent.to_owned();
        for value in &self.values {
            let item = format!("{value},");
            if line.len() > indent.len() && line.len() + item.len() > 100 {
                text.push_str(line.trim_end());
                text.push('\n');
                line.truncate(indent.len());
            }
            line.push_str(&item);
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
        text
    }
}

impl Tables {
    pub fn of(blueprint: &Blueprint) -> Self {
        let shapes = || blueprint.model().modules.iter().map(|module| module.shape);
        let masks = || blueprint.masks().iter().flatten();
        let rows = || masks().flat_map(|mask| (0..mask.blocks.rows()).map(|row| mask.blocks.row(row)));
        let blocks = || masks().flat_map(|mask| mask.blocks.active());

        use Length::{Each, EachAndEnd};
        let array = |name, doc, length, values| Array { name, doc, length, values };
        let arrays = vec![
            array(
                "module_kind",
                "0 self-attention, 1 causal self-attention, 2 cross-attention.",
                Each("MODULES"),
                shapes().map(|shape| kind_code(shape.kind)).collect(),
            ),
            array("module_queries", "Query tokens.", Each("MODULES"), shapes().map(|s| s.queries.into()).collect()),
            array("module_keys", "Key tokens.", Each("MODULES"), shapes().map(|s| s.keys.into()).collect()),
            array(
                "module_head",
                "First head of each module.",
                EachAndEnd("MODULES"),
                starts(shapes().map(|shape| shape.heads as usize)),
            ),
            array(
                "block_size",
                "Tokens along one side of a head's blocks.",
                Each("HEADS"),
                masks().map(|mask| mask.block_size.tokens().into()).collect(),
            ),
            array(
                "head_row",
                "First row (query block) of each head.",
                EachAndEnd("HEADS"),
                starts(masks().map(|mask| mask.blocks.rows())),
            ),
            array(
                "row_ptr",
                "First active block of each row.",
                EachAndEnd("ROWS"),
                starts(rows().map(|row| row.iter().flatten().count())),
            ),
            array(
                "col_idx",
                "Column (key block) of each active block, ascending in a row.",
                Each("BLOCKS"),
                blocks().map(|(_, column, _)| column as u64).collect(),
            ),
            array(
                "width",
                "Bytes per element of each active block: 1 int8, 2 half, 4 single.",
                Each("BLOCKS"),
                blocks().map(|(.., precision)| precision.bytes().into()).collect(),
            ),
        ];
        let (heads, rows) = (masks().count(), rows().count());
        Self { modules: blueprint.masks().len(), heads, rows, blocks: blocks().count(), arrays }
    }

    /// The four lengths by name.
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        [("MODULES", self.modules), ("HEADS", self.heads), ("ROWS", self.rows), ("BLOCKS", self.blocks)]
    }

    /// FNV-1a with one step of 32 bits for each value of each array.
    pub fn checksum(&self) -> u32 {
        let values = self.arrays.iter().flat_map(|array| &array.values);
        values.fold(FNV_OFFSET, |sum, &value| (sum ^ value as u32).wrapping_mul(FNV_PRIME))
    }
}

/// Parameters of 32-bit FNV-1a.
pub(crate) const FNV_OFFSET: u32 = 0x811c_9dc5;
pub(crate) const FNV_PRIME: u32 = 0x0100_0193;

fn kind_code(kind: AttentionKind) -> u64 {
    match kind {
        AttentionKind::SelfAttention => 0,
        AttentionKind::CausalSelfAttention => 1,
        AttentionKind::CrossAttention => 2,
    }
}

/// Where each of some runs starts, and where the last one ends.
fn starts(lengths: impl Iterator<Item = usize>) -> Vec<u64> {
    let mut starts = vec![0];
    let mut end = 0;
    for length in lengths {
        end += length as u64;
        starts.push(end);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: Vec<u64>) -> Array {
        Array { name: "x", doc: "", length: Length::Each("ROWS"), values }
    }

    #[test]
    fn the_smallest_integer_that_fits_is_taken() {
        assert_eq!(array(vec![]).bits(), 8);
        assert_eq!(array(vec![0, 255]).bits(), 8);
        assert_eq!(array(vec![256]).bits(), 16);
        assert_eq!(array(vec![65_535]).bits(), 16);
        assert_eq!(array(vec![65_536]).bits(), 32);
        assert_eq!(array(vec![1 << 32]).bits(), 64);
    }

    #[test]
    fn long_arrays_are_broken_into_lines_of_at_most_100_characters() {
        let text = array((0..100).map(|n| n * 1000).collect()).lines("    ");
        assert!(text.lines().all(|line| line.len() <= 100 && line.starts_with("    ")));
        assert_eq!(text.matches(',').count(), 100);
        assert!(text.starts_with("    0, 1000, 2000, ") && text.ends_with(" 99000,\n"));
    }

    #[test]
    fn starts_count_from_0_to_the_end() {
        assert_eq!(starts([2, 0, 3].into_iter()), [0, 2, 2, 5]);
    }
}
