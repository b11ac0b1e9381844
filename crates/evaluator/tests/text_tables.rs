//! Tables of labelled texts as users bring them, and the folders of GLUE.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use maskwright_evaluator::{GlueSplit, GlueTask, Labels, TextExample, TextTable, TextTableError};
use tempfile::TempDir;

fn file(name: &str, content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn moods() -> TextTable {
    let labels = Labels::Names(vec!["bad".into(), "good".into()]);
    TextTable { text: "text".into(), second: None, label: "mood".into(), labels }
}

fn pairs() -> TextTable {
    TextTable { text: "a".into(), second: Some("b".into()), label: "same".into(), labels: Labels::Numbers(2) }
}

fn one(text: &str, label: u32) -> TextExample {
    TextExample { text: text.into(), second: None, label }
}

fn two(text: &str, second: &str, label: u32) -> TextExample {
    TextExample { text: text.into(), second: Some(second.into()), label }
}

/// The refusal's text, with the file's folder cut out.
fn refusal(table: &TextTable, name: &str, content: &[u8]) -> String {
    let (folder, path) = file(name, content);
    let error = table.read(&path).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn csv_fields_may_hold_commas_quotes_and_line_ends() {
    let (_folder, path) =
        file("a.csv", b"mood,id,text\r\ngood,1,\"a, \"\"b\"\"\r\nc\"\r\n\r\nbad,2,it's \"so\" so\r\n");
    assert_eq!(moods().read(&path).unwrap(), [one("a, \"b\"\nc", 1), one("it's \"so\" so", 0)]);
}

#[test]
fn tsv_keeps_quotes_and_a_byte_order_mark_is_no_text() {
    let (_folder, path) = file("a.tsv", "\u{feff}a\tb\tsame\n\"open\tshut\t1\n\tempty\t0".as_bytes());
    assert_eq!(pairs().read(&path).unwrap(), [two("\"open", "shut", 1), two("", "empty", 0)]);
}

#[test]
fn an_orange_file_has_three_header_rows_and_quotes() {
    let rows = "mood\ttext\td\nd\tstring\tc\nclass\tmeta include=True\t\n\ngood\t\"a\tb\"\t1\nbad\tno \"c\"\t2\n";
    let (_folder, path) = file("a.tab", rows.as_bytes());
    assert_eq!(moods().read(&path).unwrap(), [one("a\tb", 1), one("no \"c\"", 0)]);

    let tab = |content: &[u8]| refusal(&moods(), "a.tab", content);
    assert_eq!(
        tab(b"mood\ttext\ngood\tfine\nbad\todd\n"),
        "line 3 of a.tab gives a column the role `bad`, which Orange has not: a .tab file starts with three rows, names, \
         types and roles; rename one that has names alone to .tsv"
    );
    assert_eq!(tab(b"mood\ttext\nd\n"), "line 2 of a.tab has 1 fields, the first row names 2");
    assert_eq!(tab(b"mood\ttext\nd\tstring\nclass\t\n"), "a.tab holds no examples");
}

#[test]
fn jsonl_takes_numbers_and_strings_as_labels_and_ignores_other_fields() {
    let lines = "{\"a\": \"x\", \"b\": \"\\u00fc\", \"same\": 1, \"more\": [1, {}]}\n\n{\"same\": \"0\", \"b\": \"y\", \"a\": \"z\"}\n";
    let (_folder, path) = file("a.jsonl", lines.as_bytes());
    assert_eq!(pairs().read(&path).unwrap(), [two("x", "ü", 1), two("z", "y", 0)]);
}

#[test]
fn a_gzipped_table_holds_the_same_examples() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"text,mood\nfine,good\n").unwrap();
    let (_folder, path) = file("a.csv.gz", &packed.finish().unwrap());
    assert_eq!(moods().read(&path).unwrap(), [one("fine", 1)]);
}

#[test]
fn the_shipped_movie_sentences_are_read_with_their_labels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/movie-sentences");
    let labels = Labels::Names(vec!["negative".into(), "positive".into()]);
    let table = TextTable { text: "text".into(), second: None, label: "label".into(), labels };
    for (part, sentences, positive) in [("train", 8049, 3979), ("validation", 973, 500), ("test", 1050, 517)] {
        let examples = table.read(&folder.join(format!("{part}.tsv.gz"))).unwrap();
        assert_eq!(examples.len(), sentences);
        assert_eq!(examples.iter().filter(|example| example.label == 1).count(), positive);
    }
}

#[test]
fn rows_before_a_broken_one_are_read() {
    let (_folder, path) = file("a.csv", b"text,mood\nfine,good\nodd\n");
    let mut rows = moods().rows(&path).unwrap();
    assert_eq!(rows.next().unwrap().unwrap(), one("fine", 1));
    let error = rows.next().unwrap().unwrap_err();
    assert!(matches!(error, TextTableError::Row { line: 3, .. }), "{error}");
}

#[test]
fn a_broken_row_is_named_by_line_and_file() {
    let csv = |content: &[u8]| refusal(&moods(), "a.csv", content);
    assert_eq!(csv(b"text,mood\nfine,good\n\nodd\n"), "line 4 of a.csv has 1 fields, the first row names 2");
    assert_eq!(
        csv(b"text,mood\n\"two\nlines\",good\n\"never closed,good\nfine,good\n"),
        "line 4 of a.csv opens a quote that the file never closes"
    );
    assert_eq!(
        csv(b"text,mood\n\"fine\" so,good\n"),
        "line 2 of a.csv has text behind a closing quote: a quote within a quoted field is written twice"
    );
    assert_eq!(
        csv(b"text,mood\n\xe4h,good\n"),
        "line 2 of a.csv is not UTF-8: convert the file, for example with iconv"
    );
    let json = |content: &[u8]| refusal(&pairs(), "a.jsonl", content);
    assert_eq!(
        json(b"{\"a\": \"x\", \"b\": \"y\", \"same\": 1}\n{\"a\": \n"),
        "line 2 of a.jsonl is no JSON object: EOF while parsing a value"
    );
    assert_eq!(
        json(b"{\"a\": \"x\", \"same\": 1}\n"),
        "line 1 of a.jsonl has no field `b`; its fields are `a`, `same`"
    );
    assert_eq!(
        json(b"{\"a\": null, \"b\": \"y\", \"same\": 1}\n"),
        "line 1 of a.jsonl has something other than text in `a`"
    );
}

#[test]
fn labels_out_of_range_are_refused() {
    assert_eq!(
        refusal(&pairs(), "a.tsv", b"a\tb\tsame\nx\ty\t1\nx\ty\t2\n"),
        "line 3 of a.tsv has the label `2`; labels are whole numbers from 0, below 2"
    );
    assert_eq!(
        refusal(&moods(), "a.csv", b"text,mood\nfine,great\n"),
        "line 2 of a.csv has the label `great`; labels are `bad`, `good`"
    );
}

#[test]
fn a_missing_column_and_a_foreign_file_are_refused_with_what_is_there() {
    assert_eq!(
        refusal(&moods(), "a.csv", b"text,label\n"),
        "a.csv has no column `mood`; its columns are `text`, `label`"
    );
    assert_eq!(
        refusal(&moods(), "a.csv", b"text,mood,mood\nfine,good,bad\n"),
        "a.csv has several columns `mood`: name each differently"
    );
    assert_eq!(refusal(&moods(), "a.csv", b"text,mood\n"), "a.csv holds no examples");
    assert_eq!(refusal(&moods(), "a.csv", b""), "a.csv holds no examples");
    assert_eq!(
        refusal(&moods(), "a.xlsx", b""),
        "a.xlsx is no table that can be read: names end in .csv, .tsv, .tab or .jsonl, also with .gz behind, or in .parquet"
    );
}

#[test]
fn a_row_without_end_is_refused_before_it_fills_the_memory() {
    let too_long = "line 2 of a.csv starts a row of more than 1048576 bytes; in a CSV file, is a quote not closed?";
    let open_quote = [b"text,mood\n\"".as_slice(), &b"ever on\n".repeat(1 << 18)].concat();
    assert_eq!(refusal(&moods(), "a.csv", &open_quote), too_long);
    let one_line = [b"text,mood\n".as_slice(), &b"ever on ".repeat(1 << 18)].concat();
    assert_eq!(refusal(&moods(), "a.csv", &one_line), too_long);
}

#[test]
fn glue_folders_are_read_as_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    let read = |task: GlueTask, split| task.read(folder.path(), split);

    write(
        "msr_paraphrase_train.txt",
        "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe said \"no.\tHe said no.\r\n",
    );
    assert_eq!(read(GlueTask::Mrpc, GlueSplit::Train).unwrap(), [two("He said \"no.", "He said no.", 1)]);

    write("dev.tsv", "sentence\tlabel\nunflinchingly bleak and desperate \t0\n");
    assert_eq!(read(GlueTask::Sst2, GlueSplit::Dev).unwrap(), [one("unflinchingly bleak and desperate ", 0)]);

    let columns = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t\
                   sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n";
    write(
        "dev_mismatched.tsv",
        &format!("{columns}0\t1\t1e\tverbatim\t()\t()\t()\t()\tA dog.\tA cat.\tneutral\tcontradiction\n"),
    );
    assert_eq!(read(GlueTask::Mnli, GlueSplit::DevMismatched).unwrap(), [two("A dog.", "A cat.", 2)]);

    let error = read(GlueTask::Mnli, GlueSplit::Dev).unwrap_err().to_string();
    assert!(error.starts_with("no dev_matched.tsv in "), "{error}");
    let error = read(GlueTask::Sst2, GlueSplit::DevMismatched).unwrap_err().to_string();
    assert_eq!(error, "Sst2 has no mismatched split: only MNLI has");
    assert_eq!([GlueTask::Mrpc, GlueTask::Sst2, GlueTask::Mnli].map(GlueTask::classes), [2, 2, 3]);
}
