use crate::program::Folder;

#[test]
fn every_shell_completes_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Folder::new().run(["completions", shell]).good();
        assert!(script.contains("search") && script.contains("resume"), "{shell}");
    }
}
