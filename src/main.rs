//! The `tokencast` program.

fn main() {}
