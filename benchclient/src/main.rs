//! `benchclient`: load for an Ostraca cluster, over HTTP only, and proof that what was acknowledged can be read.
//!
//! ```text
//! hello → write: N keys, C workers → read: M times one of the acknowledged keys, C workers ┐→ report
//!                                    write2: a second writer, as long as they read         ┘
//! ```
//!
//! Only successes count as successes; an acknowledged key that is absent or differs is an error. What this is not, yet:
//! an open loop. A slow answer delays the worker's next request, so percentiles under overload look better than what
//! clients that do not wait would see.

mod args;
mod clock;
mod failure;
mod http;
mod keyspace;
mod phase;
mod progress;
mod report;
mod run;
mod signals;
mod tally;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    run::run(Args::parse()).await
}
