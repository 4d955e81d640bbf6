//! `kv completion SHELL`: the script that lets a shell complete commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Kv;
use super::exit::Done;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: kv completion bash > ~/.local/share/bash-completion/completions/kv")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    /// The script, to standard output.
    pub(crate) fn run(&self) -> Done {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Kv::command(), "kv", &mut script);
        Done::ok(script)
    }
}
