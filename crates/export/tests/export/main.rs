//! Exported files as a deployment build meets them: compiled, walked, and compared with the blueprint.

mod blueprints;
mod capabilities;
mod compiled_tables;
mod written_files;
