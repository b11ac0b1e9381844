use std::path::PathBuf;

use clap::{Subcommand, builder::PossibleValuesParser};

use crate::commands::known_set_names;

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// List the sets and weights that the documentation uses, and how to get those that do not ship with the program.
    List {
        /// Print one JSON document instead of the table.
        #[arg(long)]
        json: bool,
    },
    /// Check that sets and weights have arrived, whole and unchanged.
    ///
    /// Nothing is fetched. Exit code 2 if one that was named is missing, or any is there with other bytes than those that
    /// the documentation's figures come from.
    Check {
        /// Names from the list; all of them if none is given.
        #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(known_set_names()))]
        names: Vec<String>,
        /// Where the files lie, if not in the folder that the list names; for one name.
        #[arg(short, long, value_name = "DIR", requires = "names")]
        folder: Option<PathBuf>,
        /// Print one JSON document instead of the lines.
        #[arg(long)]
        json: bool,
    },
}
