//! `kv serve`: finds out which node of the file this process is, and runs it until it is told to stop.

use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::check::faulty;
use super::exit::{Done, Exit, Failure};
use super::log::{Lines, Style};
use crate::config::{self, Config, Wanted, choose_node, default_db_location};
use crate::server::{self, Options};
use crate::types::NodeName;

/// Run a node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Which node it is follows from --http-addr, or from --shard and --replica; what is given beyond that is checked
against the file. KV_LOG sets what is logged, such as debug or ostraca=debug,info.")]
pub(crate) struct Serve {
    /// The cluster's file, the same on every node
    #[arg(long, value_name = "FILE", default_value = "sharding.toml")]
    config_file: PathBuf,
    /// The shard that the node holds a copy of
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
    /// The address that the node listens on, one of the file
    #[arg(long, value_name = "IP:PORT")]
    http_addr: Option<String>,
    /// The node's database file [default: data/NAME.redb, from the node's name]
    #[arg(long, value_name = "FILE")]
    db_location: Option<PathBuf>,
    /// The node is a replica of the shard
    #[arg(long)]
    replica: bool,
    /// How log lines are written [default: human on a terminal, else json]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

impl Serve {
    /// Blocks until the node has stopped.
    pub(crate) fn run(&self) -> Result<Done, Failure> {
        let options = self.options()?;
        self.start_log(&options)?;
        match server::run(options) {
            Ok(()) => Ok(Done::ok("")),
            Err(error) => {
                let hint = format!(
                    "put that right, and start the node again; kv check {} shows who is who",
                    self.config_file.display()
                );
                Err(Failure::new(Exit::Error, "the node has stopped", error.to_string(), hint))
            }
        }
    }

    fn options(&self) -> Result<Options, Failure> {
        let config = config::load(&self.config_file).map_err(|faults| faulty(&faults, "start the node again"))?;
        let (node, db_location) = self.place(&config)?;
        Ok(Options { config, node, db_location, config_path: self.config_file.clone() })
    }

    /// Which node it is, and where its data is.
    fn place(&self, config: &Config) -> Result<(NodeName, PathBuf), Failure> {
        let wanted = Wanted { address: self.http_addr.as_deref(), shard: self.shard.as_deref(), replica: self.replica };
        let node = choose_node(&config.topology, wanted).map_err(|fault| {
            let title = format!("the command line and {} do not fit", self.config_file.display());
            Failure::new(Exit::Usage, title, fault.what, fault.remedy)
        })?;
        let db_location = match &self.db_location {
            Some(path) if path.is_dir() => {
                let inside = path.join(default_db_location(&node.name).file_name().unwrap_or_default());
                let detail = format!("--db-location {} is a directory", path.display());
                return Err(Failure::usage(detail, format!("name the file in it: --db-location {}", inside.display())));
            }
            Some(path) if path.as_os_str().is_empty() => {
                return Err(Failure::usage("--db-location is empty", "name a file, or leave the option out"));
            }
            Some(path) => path.clone(),
            None => default_db_location(&node.name),
        };
        Ok((node.name.clone(), db_location))
    }

    /// Log lines go to standard error.
    fn start_log(&self, options: &Options) -> Result<(), Failure> {
        let wanted = std::env::var("KV_LOG").ok().filter(|text| !text.is_empty());
        let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("info")).map_err(|error| {
            Failure::usage(
                format!("KV_LOG={} cannot be read: {error}", wanted.unwrap_or_default()),
                "set it to info, or unset it",
            )
        })?;
        let human = if stderr().is_terminal() { LogFormat::Human } else { LogFormat::Json };
        let style = match self.log_format.unwrap_or(human) {
            LogFormat::Human => Style::Human { colours: stderr().is_terminal() },
            LogFormat::Json => Style::Json,
        };
        let topology = &options.config.topology;
        let shard = topology.node(&options.node).and_then(|node| topology.shard(node.shard));
        let shard = shard.map(|shard| shard.name.clone()).unwrap_or_default();
        let lines = Lines { style, node: options.node.clone(), shard };
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).event_format(lines).init();
        std::panic::set_hook(Box::new(log_panic));
        Ok(())
    }
}

/// A panic is a line of the log like any other, and an error: whatever else it ends, this program is wrong.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let (thread, place) = (std::thread::current(), panic.location().map(ToString::to_string));
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let detail = text.unwrap_or("a panic that says nothing");
    tracing::error!(thread = thread.name(), place, detail, "the program panicked: this is a bug, please report it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn place(arguments: &[&str]) -> Result<(String, PathBuf), Failure> {
        let line = Line::try_parse_from([&["serve"], arguments].concat()).unwrap();
        let config = config::parse(include_str!("../../sharding.toml"), "sharding.toml").unwrap();
        line.serve.place(&config).map(|(node, path)| (node.to_string(), path))
    }

    #[test]
    fn serve_everything_follows_from_the_address() {
        let node = ("Hyderabad/1".to_owned(), PathBuf::from("data/hyderabad-1.redb"));
        assert_eq!(place(&["--http-addr", "127.0.0.22:8080"]).unwrap(), node);
        assert_eq!(place(&["--shard", "Hyderabad", "--replica"]).unwrap(), node);
    }

    #[test]
    fn serve_given_options_are_checked() {
        let full = ["--shard", "Hyderabad", "--http-addr", "127.0.0.2:8080", "--db-location", "x/y.redb"];
        assert_eq!(place(&full).unwrap(), ("Hyderabad/0".to_owned(), PathBuf::from("x/y.redb")));
        let wrong = place(&["--shard", "Delhi", "--http-addr", "127.0.0.2:8080"]).unwrap_err();
        assert_eq!(wrong.exit, Exit::Usage);
        assert!(wrong.title.contains("sharding.toml") && wrong.detail.contains("Delhi"), "{wrong}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        let wrong = place(&["--http-addr", "127.0.0.2:8080", "--db-location", &path]).unwrap_err();
        assert!(wrong.hint.ends_with("/hyderabad.redb"), "{wrong}");
    }
}
