//! The tables go through the compilers of those who will use them, and give the mask back.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use maskwright_blueprint::Blueprint;
use maskwright_export::Target;
use tempfile::TempDir;

use crate::blueprints::{large, listing, two_modules};

/// Walks the header's tables as firmware would. `N` is the header's prefix, pasted in by the test.
const C_WALK: &str = r#"
#include "N.h"
#include <stdio.h>

int main(void) {
    if (N_checksum() != U_CHECKSUM) return 1;
    for (uint32_t module = 0; module < U_MODULES; ++module)
        for (uint32_t head = N_module_head[module]; head < N_module_head[module + 1]; ++head)
            for (uint32_t row = N_head_row[head]; row < N_head_row[head + 1]; ++row)
                for (uint32_t block = N_row_ptr[row]; block < N_row_ptr[row + 1]; ++block)
                    printf("%u %u %u %u %u %u\n", (unsigned)module, (unsigned)(head - N_module_head[module]),
                           (unsigned)N_block_size[head], (unsigned)(row - N_head_row[head]),
                           (unsigned)N_col_idx[block], (unsigned)N_width[block]);
    return N_module_kind[0] + (N_module_queries[0] == 0) + (N_module_keys[0] == 0);
}
"#;

const RUST_WALK: &str = r#"
mod table;
use table::*;

fn main() {
    assert_eq!(checksum(), CHECKSUM);
    for module in 0..MODULES {
        let heads = MODULE_HEAD[module] as usize..MODULE_HEAD[module + 1] as usize;
        for head in heads.clone() {
            let rows = HEAD_ROW[head] as usize..HEAD_ROW[head + 1] as usize;
            for row in rows.clone() {
                for block in ROW_PTR[row] as usize..ROW_PTR[row + 1] as usize {
                    let (size, column, width) = (BLOCK_SIZE[head], COL_IDX[block], WIDTH[block]);
                    println!("{module} {} {size} {} {column} {width}", head - heads.start, row - rows.start);
                }
            }
        }
    }
}
"#;

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{command:?}: {}\n{complaint}", output.status);
    output
}

/// What the walker in C prints.
fn walk_c(blueprint: &Blueprint) -> String {
    let folder = TempDir::new().unwrap();
    let header = Target::CHeader.export(blueprint).unwrap();
    let name = header.file_name.strip_suffix(".h").unwrap();
    let main = C_WALK.replace("N_", &format!("{name}_")).replace("U_", &format!("{}_", name.to_uppercase()));
    fs::write(folder.path().join(&header.file_name), &header.bytes).unwrap();
    fs::write(folder.path().join("main.c"), main.replace("N.h", &header.file_name)).unwrap();
    let strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"];
    run(Command::new("cc").current_dir(&folder).args(strict).args(["-o", "walk", "main.c"]));
    String::from_utf8(run(&mut Command::new(folder.path().join("walk"))).stdout).unwrap()
}

/// What the walker in Rust prints.
fn walk_rust(blueprint: &Blueprint) -> String {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("table.rs"), Target::RustTable.export(blueprint).unwrap().bytes).unwrap();
    fs::write(folder.path().join("lib.rs"), "#![no_std]\npub mod table;\n").unwrap();
    fs::write(folder.path().join("main.rs"), RUST_WALK).unwrap();
    let rustc = || {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.current_dir(&folder).args(["--edition", "2024"]);
        rustc
    };
    run(rustc().args(["-D", "warnings", "--crate-type", "lib", "--emit", "metadata", "lib.rs"]));
    run(rustc().args(["-A", "dead_code", "-o", "walk", "main.rs"]));
    String::from_utf8(run(&mut Command::new(Path::new(folder.path()).join("walk"))).stdout).unwrap()
}

#[test]
fn a_c_program_finds_every_block_in_the_header() {
    let blueprint = two_modules("ViT-B/16");
    assert_eq!(walk_c(&blueprint), listing(&blueprint));
}

#[test]
fn a_rust_program_finds_every_block_in_the_table() {
    let blueprint = two_modules("ViT-B/16");
    assert_eq!(walk_rust(&blueprint), listing(&blueprint));
}

#[test]
fn a_table_of_98304_blocks_compiles_and_is_found_whole() {
    let blueprint = large();
    let expected = listing(&blueprint);
    assert_eq!(expected.lines().count(), 98_304);
    assert!(walk_c(&blueprint) == expected);
    assert!(walk_rust(&blueprint) == expected);
}
