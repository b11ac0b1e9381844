//! The built program, run as a person runs it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod program;

mod bench;
mod completions;
mod config;
mod cost;
mod data;
mod device;
mod export;
mod mask;
mod reference;
mod report;
mod search;
