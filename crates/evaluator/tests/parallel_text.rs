//! Sentences with their translations as users bring them.

use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};
use maskwright_evaluator::{ParallelFiles, SentencePair};
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn lines(folder: &TempDir) -> ParallelFiles {
    ParallelFiles::Lines { source: folder.path().join("x.en"), target: folder.path().join("x.de") }
}

fn table(folder: &TempDir, name: &str) -> ParallelFiles {
    ParallelFiles::Table { path: folder.path().join(name), source: "english".into(), target: "german".into() }
}

fn pair(source: &str, target: &str) -> SentencePair {
    SentencePair { source: source.into(), target: target.into() }
}

/// The refusal's text, with the folder cut out.
fn refusal(files: &ParallelFiles, folder: &TempDir) -> String {
    files.read(None).unwrap_err().to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn line_n_of_one_file_translates_line_n_of_the_other() {
    let folder = folder(&[
        ("x.en", "\u{feff}A dog.\nOne \"cat\r\n\nlast".as_bytes()),
        ("x.de", "Ein Hund.\r\n Eine Katze \n\nzuletzt\n".as_bytes()),
    ]);
    let text = lines(&folder).read(None).unwrap();
    assert_eq!(text.pairs, [pair("A dog.", "Ein Hund."), pair("One \"cat", "Eine Katze"), pair("last", "zuletzt")]);
    assert_eq!(text.empty, 1);
}

#[test]
fn gzipped_files_hold_the_same_pairs() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"A dog.\n").unwrap();
    let folder = folder(&[("x.en", &packed.finish().unwrap()), ("x.de", b"Ein Hund.\n")]);
    assert_eq!(lines(&folder).read(None).unwrap().pairs, [pair("A dog.", "Ein Hund.")]);
}

#[test]
fn a_table_has_a_column_for_each_language() {
    let folder = folder(&[("pairs.tsv", b"id\tgerman\tenglish\n1\tEin Hund.\tA dog.\n2\t\tA cat.\n")]);
    let text = table(&folder, "pairs.tsv").read(None).unwrap();
    assert_eq!((text.pairs, text.empty), (vec![pair("A dog.", "Ein Hund.")], 1));
    assert_eq!(
        refusal(
            &ParallelFiles::Table {
                path: folder.path().join("pairs.tsv"),
                source: "id".into(),
                target: "french".into()
            },
            &folder
        ),
        "pairs.tsv has no column `french`; its columns are `id`, `german`, `english`"
    );
}

#[test]
fn the_first_so_many_pairs_may_be_asked_for() {
    let folder = folder(&[("x.en", b"a\nb\nc\n"), ("x.de", b"A\nB\nC\n"), ("t.tsv", b"english\tgerman\na\tA\nb\tB\n")]);
    assert_eq!(lines(&folder).read(Some(2)).unwrap().pairs, [pair("a", "A"), pair("b", "B")]);
    assert_eq!(table(&folder, "t.tsv").read(Some(1)).unwrap().pairs, [pair("a", "A")]);
    let none = table(&folder, "t.tsv").read(Some(0)).unwrap_err().to_string();
    assert!(none.starts_with("`most` is 0, which leaves no pair of ") && none.ends_with("or give 1 or more"), "{none}");
}

#[test]
fn files_of_other_lengths_are_refused_with_both_counts_however_few_pairs_are_wanted() {
    let folder = folder(&[("x.en", b"a\nb\nc\nd\n"), ("x.de", b"A\nB")]);
    let text = "x.en has 4 lines, x.de 2: line n of one is to be the translation of line n of the other, so one of them \
                lacks lines";
    assert_eq!(refusal(&lines(&folder), &folder), text);
    assert!(lines(&folder).read(Some(1)).is_err());
}

#[test]
fn broken_and_empty_files_are_named() {
    let long = b"ever on ".repeat(1 << 18);
    let odd = folder(&[("x.en", b"a\nb\n"), ("x.de", b"A\n\xfcber\n")]);
    assert_eq!(refusal(&lines(&odd), &odd), "line 2 of x.de is not UTF-8: convert the file, for example with iconv");
    let endless = folder(&[("x.en", &long), ("x.de", b"A\n")]);
    assert!(refusal(&lines(&endless), &endless).starts_with("line 1 of x.en starts a row of more than 1048576 bytes"));
    let empty = folder(&[("x.en", b"a\n\n"), ("x.de", b"\nB\n")]);
    assert_eq!(refusal(&lines(&empty), &empty), "x.en has no pair of which both sides hold text");
    let missing = folder(&[("x.en", b"a\n")]);
    assert_eq!(refusal(&lines(&missing), &missing), "x.de cannot be read");
}
