//! `kv`: the server and the command line of Ostraca.

use std::process::ExitCode;

fn main() -> ExitCode {
    ostraca::cli::main()
}
