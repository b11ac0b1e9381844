//! The blueprint crate as its users meet it: files that go round, files that are refused, files from strangers.

mod documentation;
mod hostile_files;
mod library;
mod masks;
mod models;
mod ron_errors;
mod round_trips;
mod safetensors_files;
