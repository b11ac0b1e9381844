//! A search killed anywhere and resumed ends with the same bytes as one that was left alone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Real data and the default agent, but a model of one narrow layer and few evaluations: some seconds a run.
const SETS: [&str; 12] = [
    "model.source.New.encoder.width=16",
    "model.source.New.encoder.layers=1",
    "model.source.New.encoder.heads=2",
    "model.source.New.encoder.mlp=32",
    "model.training.epochs=1",
    "kappa=Scan(8)",
    "evaluations=40",
    "loop_examples=48",
    "calibration_examples=64",
    "finalists=1",
    "tolerance=Absolute(0.3)",
    "baselines=[\"Knapsack\"]",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn search(runs: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maskwright"));
    command.current_dir(workspace()).args(["search", "search-configs/quickstart.ron", "--runs"]).arg(runs);
    command.args(SETS.iter().flat_map(|set| ["--set", set])).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The one run below `runs`.
fn run_in(runs: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(runs).ok()?.map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.join("manifest.ron").exists())
}

/// What must be the same: episodes and every file of `best/`.
fn results(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = vec![run.join("episodes.jsonl")];
    files.extend(fs::read_dir(run.join("best")).unwrap().map(|entry| entry.unwrap().path()));
    files.into_iter().map(|file| (file.strip_prefix(run).unwrap().to_owned(), fs::read(&file).unwrap())).collect()
}

fn copied_cache(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("cache")).unwrap();
    for entry in fs::read_dir(from.join("cache")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join("cache").join(path.file_name().unwrap())).unwrap();
    }
}

fn wait_and_kill(child: &mut Child, after: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < after {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    true
}

#[expect(clippy::print_stdout, reason = "a failure is repeated by its dice")]
#[test]
fn ten_killed_searches_end_like_one_that_was_left_alone() {
    let undisturbed = tempfile::tempdir().unwrap();
    finish(search(undisturbed.path(), &[])); // trains, and fills the cache
    let again = tempfile::tempdir().unwrap();
    copied_cache(undisturbed.path(), again.path());
    let start = Instant::now();
    finish(search(again.path(), &[]));
    let whole = start.elapsed();
    let expected = results(&run_in(undisturbed.path()).unwrap());
    assert!(expected.len() >= 4, "episodes, the searched blueprint with its weights, a Pareto set");
    assert!(expected == results(&run_in(again.path()).unwrap()), "two undisturbed runs differ");

    let mut killed = 0;
    // A different point each time, from run to run too: the clock's last digits are as good as dice here.
    let mut dice = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    for round in 0..10 {
        println!("round {round}, dice {dice}");
        let runs = tempfile::tempdir().unwrap();
        copied_cache(undisturbed.path(), runs.path());
        let mut more: Vec<String> = Vec::new();
        // Killed, resumed and killed again, then left to finish.
        for _ in 0..2 {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let after = whole.mul_f64(f64::from(dice >> 8) / f64::from(1 << 24));
            let more_ref: Vec<&str> = more.iter().map(String::as_str).collect();
            let mut child = search(runs.path(), &more_ref).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let was_killed = wait_and_kill(&mut child, after);
            if let Some(run) = run_in(runs.path()) {
                killed += u32::from(was_killed);
                more = vec!["--resume".into(), run.display().to_string()];
            }
            if !was_killed {
                break;
            }
        }
        let more_ref: Vec<&str> = more.iter().map(String::as_str).collect();
        finish(search(runs.path(), &more_ref));
        let run = run_in(runs.path()).unwrap();
        assert!(expected == results(&run), "{} differs from an undisturbed run", run.display());
    }
    assert!(killed >= 10, "only {killed} of the processes were killed inside a run");
}

#[test]
fn ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on() {
    let runs = tempfile::tempdir().unwrap();
    let child = search(runs.path(), &["--set", "evaluations=4000", "--set", "agent=Evolution"]).spawn().unwrap();
    let episodes = |run: &Path| fs::metadata(run.join("episodes.jsonl")).map_or(0, |file| file.len());
    let start = Instant::now();
    while run_in(runs.path()).is_none_or(|run| episodes(&run) == 0) {
        assert!(start.elapsed() < Duration::from_secs(300), "no episode within five minutes");
        thread::sleep(Duration::from_millis(20));
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--resume"), "{said}");
}
