//! `benchclient`: load for an Ostraca cluster, over HTTP only, and proof that what was acknowledged can be read.
//!
//! ```text
//! args ─→ hello, map ─→ run: preload → rounds → verify ─→ result ─→ tables, JSON, plot        compare: two results
//!                         each is a plan ─→ load: threads → workers → lanes → link
//! ```
//!
//! It knows nothing of the server's code: what it needs to know of a cluster it asks over HTTP.

mod args;
mod ask;
mod chooser;
mod classic;
mod clock;
mod cluster;
mod compare;
mod desk;
mod failure;
mod follow;
mod keyspace;
mod lanes;
mod ledger;
mod limits;
mod link;
mod live;
mod load;
mod measure;
mod pacer;
mod plan;
mod plot;
mod recorder;
mod request;
mod result;
mod run;
mod schedule;
mod session;
mod signals;
mod sizes;
mod stats;
mod tables;
mod tally;
mod text;
mod timer;
mod usage;
mod warn;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Compare(compare)) = &args.command {
        return compare::run(compare);
    }
    limits::raise_open_files();
    if args.load.workload.is_some() { run::run(args.load).await } else { classic::run(args.load).await }
}
