use std::fmt::Write as _;

use maskwright_blueprint::Blueprint;

use crate::{
    comment,
    tables::{Array, FNV_OFFSET, FNV_PRIME, Length, Tables},
};

/// A Rust module that needs no `std`: the [`Tables`] as statics.
pub(crate) fn write(blueprint: &Blueprint, tables: &Tables) -> String {
    let mut text = comment::provenance(blueprint);
    text.push_str(LAYOUT);
    write_module(&mut text, tables).expect("a String takes every write");
    text
}

const LAYOUT: &str = "\
//
// Module m has the heads MODULE_HEAD[m]..MODULE_HEAD[m + 1], head h the rows HEAD_ROW[h]..HEAD_ROW[h + 1], row r the
// active blocks ROW_PTR[r]..ROW_PTR[r + 1]. The last row or column of blocks may be ragged.

";

fn write_module(text: &mut String, tables: &Tables) -> std::fmt::Result {
    for (count, value) in tables.counts() {
        writeln!(text, "pub const {count}: usize = {value};")?;
    }
    for array in &tables.arrays {
        let length = match array.length {
            Length::Each(count) => count.to_owned(),
            Length::EachAndEnd(count) => format!("{count} + 1"),
        };
        writeln!(text, "\n/// {}", array.doc)?;
        writeln!(text, "pub static {}: [u{}; {length}] = [", array.name.to_uppercase(), array.bits())?;
        write!(text, "{}", array.lines("    "))?;
        writeln!(text, "];")?;
    }
    writeln!(text)?;
    for (ends, count) in [("MODULE_HEAD[MODULES]", "HEADS"), ("HEAD_ROW[HEADS]", "ROWS"), ("ROW_PTR[ROWS]", "BLOCKS")] {
        writeln!(text, "const _: () = assert!({ends} as usize == {count});")?;
    }

    writeln!(text, "\n/// What [`checksum`] gives if the tables arrived whole.")?;
    writeln!(text, "pub const CHECKSUM: u32 = 0x{:08x};", tables.checksum())?;
    writeln!(text, "\n/// 32-bit FNV-1a, a step for each value.")?;
    writeln!(text, "pub fn checksum() -> u32 {{\n    let mut sum: u32 = 0x{FNV_OFFSET:08x};")?;
    for Array { name, .. } in &tables.arrays {
        writeln!(text, "    for &value in &{} {{", name.to_uppercase())?;
        writeln!(text, "        sum = (sum ^ value as u32).wrapping_mul(0x{FNV_PRIME:08x});\n    }}")?;
    }
    writeln!(text, "    sum\n}}")
}
