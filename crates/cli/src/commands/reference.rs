use clap::{Command, CommandFactory};

use crate::arguments::Arguments;

/// The help of every command, as one Markdown page.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "<!-- generated: `cargo run --release -- reference > docs/reference/cli.md`; a test compares -->\n\n# Command \
         line\n",
    );
    let mut root = Arguments::command();
    root.build();
    write(&mut page, root, "maskwright");
    page
}

fn write(page: &mut String, mut command: Command, name: &str) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    *page += &format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n"));
    let commands: Vec<Command> = command.get_subcommands().filter(|of| !of.is_hide_set()).cloned().collect();
    for of in commands.into_iter().filter(|of| of.get_name() != "help") {
        let name = format!("{name} {}", of.get_name());
        write(page, of, &name);
    }
}
