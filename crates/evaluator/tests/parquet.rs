//! Parquet files as pandas, pyarrow and the datasets library write them; `references/parquet.py` made them.

use std::{fs, path::PathBuf};

use maskwright_evaluator::{Labels, ParallelFiles, TextExample, TextTable};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/references/parquet").join(format!("{name}.parquet"))
}

fn pairs() -> TextTable {
    TextTable { text: "text".into(), second: Some("answer".into()), label: "label".into(), labels: Labels::Numbers(3) }
}

fn one_text() -> TextTable {
    TextTable { second: None, ..pairs() }
}

/// Row `row`, from 0, of the file `usual` and its relatives.
fn review(row: u32) -> TextExample {
    let (text, second) = (format!("review {}", row % 7), Some(format!("ärger {row}")));
    TextExample { text, second, label: row % 3 }
}

/// The refusal's text, with the file's folder cut out.
fn refusal(table: &TextTable, name: &str) -> String {
    let path = path(name);
    let error = table.read(&path).unwrap_err().to_string();
    error.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn columns_are_found_by_name_across_row_groups_pages_and_compressions() {
    let expected: Vec<_> = (0..300).map(review).collect();
    for name in ["usual", "plain", "gzip", "second-form"] {
        assert_eq!(pairs().read(&path(name)).unwrap(), expected, "{name}");
    }
}

#[test]
fn columns_that_must_hold_a_value_are_read_too() {
    let examples = one_text().read(&path("required")).unwrap();
    let example = |text: &str, label| TextExample { text: text.into(), second: None, label };
    assert_eq!(examples, [example("fine", 1), example("odd", 0)]);
}

#[test]
fn parallel_text_may_stand_in_two_columns() {
    let files = ParallelFiles::Table { path: path("usual"), source: "text".into(), target: "answer".into() };
    let text = files.read(Some(2)).unwrap();
    assert_eq!((text.pairs.len(), text.pairs[1].target.as_str()), (2, "ärger 1"));
}

#[test]
fn a_row_that_cannot_be_read_is_named_by_its_number_and_the_next_one_is_read() {
    assert_eq!(
        refusal(&one_text(), "gap"),
        "row 2 of gap.parquet has nothing in `text`: fill it in, or leave the row out"
    );
    assert_eq!(refusal(&one_text(), "bytes"), "row 2 of bytes.parquet has something other than text in `text`");
    let rows: Vec<_> = one_text().rows(&path("gap")).unwrap().collect();
    assert_eq!(rows.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let two_classes = TextTable { labels: Labels::Numbers(2), ..pairs() };
    assert_eq!(
        refusal(&two_classes, "usual"),
        "row 3 of usual.parquet has the label `2`; labels are whole numbers from 0, below 2"
    );
}

#[test]
fn columns_that_are_missing_or_hold_something_else_are_refused() {
    let of = |text: &str| refusal(&TextTable { text: text.into(), ..one_text() }, "usual");
    assert_eq!(
        of("txt"),
        "usual.parquet has no column `txt`; its columns are `id`, `words`, `text`, `more`, `answer`, `label`, `score`"
    );
    let read = "text and whole numbers are read, one in each row";
    assert_eq!(of("words"), format!("usual.parquet has further columns in the column `words`; {read}"));
    assert_eq!(of("score"), format!("usual.parquet has numbers with a point in the column `score`; {read}"));
}

#[test]
fn forms_that_are_not_read_are_refused_with_the_way_out() {
    assert_eq!(
        refusal(&pairs(), "zstd"),
        "zstd.parquet is compressed with zstd; write it anew uncompressed or with snappy or gzip, in pandas with \
         to_parquet(.., compression=\"snappy\")"
    );
    assert_eq!(
        refusal(&pairs(), "delta"),
        "delta.parquet has values in encoding 7; write it anew with plain or dictionary encoding, as pandas does"
    );
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("a.parquet");
    fs::write(&foreign, "text,label\nfine,1\n").unwrap();
    let error = pairs().read(&foreign).unwrap_err().to_string();
    assert!(
        error.ends_with("a.parquet is no whole Parquet file, which starts and ends with PAR1; get it again"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.parquet");
    for name in ["required", "gap"] {
        let content = fs::read(path(name)).unwrap();
        for end in 0..content.len() {
            fs::write(&cut, &content[..end]).unwrap();
            assert!(one_text().read(&cut).is_err(), "{name} of {} bytes, cut after {end}", content.len());
        }
        // The end of the file says where everything lies: without its middle nothing is where it should be.
        let middle = content.len() / 2;
        fs::write(&cut, [&content[..middle - 5], &content[middle + 5..]].concat()).unwrap();
        assert!(one_text().read(&cut).is_err(), "{name}");
    }
}

#[test]
fn whatever_a_byte_is_changed_to_reading_ends() {
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("changed.parquet");
    for (name, table) in [("usual", pairs()), ("second-form", pairs()), ("gap", one_text()), ("required", one_text())] {
        let content = fs::read(path(name)).unwrap();
        // Every byte of the smaller files, and some of the larger ones.
        for at in (0..content.len()).step_by(content.len().div_ceil(500)) {
            for change in [1, 0xff] {
                let mut content = content.clone();
                content[at] ^= change;
                fs::write(&changed, &content).unwrap();
                // Whether it is refused depends on the byte; what counts is that neither panics nor runs away, even where
                // a count of rows was changed to billions.
                if let Ok(rows) = table.rows(&changed) {
                    rows.take(1000)
                        .flatten()
                        .for_each(|example| assert!(example.label < 3 && example.text.len() <= 1 << 20));
                }
            }
        }
    }
}
