//! The built program, run as a person runs it.

mod program;

mod completions;
mod config;
mod cost;
mod device;
mod export;
mod mask;
mod reference;
mod report;
mod search;
