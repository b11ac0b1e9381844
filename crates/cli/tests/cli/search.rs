//! What `search` refuses before it trains; what it finds is tested where the search lives.

use crate::program::Folder;

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let folder = Folder::new();
    let stderr = folder.run(["search", "gone.ron"]).refused();
    assert!(stderr.contains("gone.ron cannot be read"), "{stderr}");
    assert!(folder.entries().is_empty());
}

#[test]
fn an_unknown_device_leaves_nothing_behind() {
    let folder = Folder::new().with("c.ron", "(version: 1, device: \"rk3588\")");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("no device is called `rk3588`: did you mean `rk3588s2`?"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn an_unknown_task_is_shown_where_it_stands() {
    let folder = Folder::new().with("c.ron", "(version: 1, task: BlockRecal)");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("c.ron:1:20") && stderr.contains("did you mean `BlockRecall`?"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn a_block_size_of_24_is_refused() {
    let folder = Folder::new().with("c.ron", "(version: 1, space: (block_sizes: [8, 24], precisions: [1]))");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("block size is 8, 16 or 32 tokens, not 24"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn a_folder_that_is_no_run_cannot_be_resumed() {
    let folder = Folder::new().with("c.ron", "(version: 1)");
    let stderr = folder.run(["search", "c.ron", "--resume", "."]).refused();
    assert!(stderr.contains(". is no run directory"), "{stderr}");
}

#[test]
fn runs_that_cannot_be_written_are_named() {
    let folder = Folder::new().with("c.ron", "(version: 1)").with("runs", "a file where a folder should be");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("runs cannot be read or written"), "{stderr}");
}
