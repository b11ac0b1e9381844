use std::fmt::Write as _;

use maskwright_blueprint::Blueprint;

use crate::{
    comment,
    tables::{Array, FNV_OFFSET, FNV_PRIME, Length, Tables},
};

/// A C11 header: the [`Tables`] as constants, `name` before every identifier.
pub(crate) fn write(blueprint: &Blueprint, name: &str, tables: &Tables) -> String {
    let mut text = comment::provenance(blueprint);
    text.push_str(LAYOUT);
    write_header(&mut text, name, tables).expect("a String takes every write");
    text
}

const LAYOUT: &str = "\
//
// Module m has the heads module_head[m] .. module_head[m + 1] - 1, head h the rows head_row[h] .. head_row[h + 1] - 1,
// row r the active blocks row_ptr[r] .. row_ptr[r + 1] - 1. The last row or column of blocks may be ragged.
";

fn write_header(text: &mut String, name: &str, tables: &Tables) -> std::fmt::Result {
    let upper = name.to_uppercase();
    writeln!(text, "#ifndef {upper}_H\n#define {upper}_H\n\n#include <stdint.h>\n")?;
    for (count, value) in tables.counts() {
        writeln!(text, "#define {upper}_{count} {value}")?;
    }
    writeln!(text, "#define {upper}_CHECKSUM UINT32_C(0x{:08x})", tables.checksum())?;

    for array in &tables.arrays {
        let Array { name: of, doc, .. } = array;
        let length = match array.length {
            Length::Each(count) => format!("{upper}_{count}"),
            Length::EachAndEnd(count) => format!("{upper}_{count} + 1"),
        };
        writeln!(text, "\n// {doc}\nstatic const uint{}_t {name}_{of}[] = {{", array.bits())?;
        write!(text, "{}", array.lines("    "))?;
        writeln!(text, "}};")?;
        writeln!(
            text,
            "_Static_assert(sizeof {name}_{of} / sizeof {name}_{of}[0] == {length}, \"{of} was changed\");"
        )?;
    }

    writeln!(
        text,
        "\n// Equal to {upper}_CHECKSUM if the tables arrived whole: 32-bit FNV-1a, a step for each value."
    )?;
    writeln!(
        text,
        "static inline uint32_t {name}_checksum(void) {{\n    uint32_t sum = UINT32_C(0x{FNV_OFFSET:08x});"
    )?;
    for Array { name: of, .. } in &tables.arrays {
        writeln!(text, "    for (uint32_t i = 0; i < sizeof {name}_{of} / sizeof {name}_{of}[0]; ++i)")?;
        writeln!(text, "        sum = (sum ^ (uint32_t){name}_{of}[i]) * UINT32_C(0x{FNV_PRIME:08x});")?;
    }
    writeln!(text, "    return sum;\n}}\n\n#endif")
}
