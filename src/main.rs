//! `kv`: the server and the command line of Ostraca.

fn main() {}
