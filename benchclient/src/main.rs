//! `benchclient`: load for an Ostraca cluster, over HTTP only.

fn main() {}
