//! A switchover whose target, leader or both are killed at any moment of it, under writers (REPLICATION.md, rule 20): before
//! the point of no return nothing has changed, behind it the other leads as soon as it is back; nothing acknowledged is lost
//! either way, no write is done twice, and no operator is needed. `tests/nodes/handing_over.rs` kills at chosen moments.

use std::time::Duration;

use rand::RngExt;

use crate::led::{copy, wait_followed};
use crate::storm::loses_nothing;
use crate::support::raw::{self, Request};
use crate::support::{At, Cluster, Spec, wait};

#[test]
fn switchover_whose_ends_are_killed_at_any_moment_loses_no_write_and_ends_with_one_leader() {
    // A second shard, for nodes that lose nobody and through which writers get in.
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    loses_nothing(&cluster, |cluster| {
        let ends: Vec<bool> = (0..wait::rounds(12)).map(|_| interrupt(cluster)).collect();
        eprintln!("{} of {} switchovers came to their end", ends.iter().filter(|done| **done).count(), ends.len());
    });
}

/// Orders a switchover and kills one or both of its ends somewhere within it; true when the other copy led in the end.
fn interrupt(cluster: &Cluster) -> bool {
    let mut rng = rand::rng();
    let from = leader(cluster);
    let to = At { copy: 1 - from.copy, ..from };
    let order = format!("/admin/v1/shards/Hyderabad/switchover?to={}", cluster.node_name(to));
    let killed: &[At] = match rng.random_range(0..5) {
        0 | 1 => &[to],
        2 | 3 => &[from],
        _ => &[to, from],
    };
    std::thread::scope(|scope| {
        scope.spawn(|| drop(raw::send(cluster.address(from), &Request::new("POST", order)))); // its answer may die, too
        std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
        killed.iter().for_each(|at| cluster.kill9(*at));
        std::thread::sleep(Duration::from_millis(rng.random_range(0..200)));
        killed.iter().for_each(|at| cluster.launch(*at));
    });
    killed.iter().for_each(|at| cluster.wait_ready(*at));
    let now = leader(cluster);
    wait_followed(cluster, now);
    now == to
}

/// The copy of the first shard that leads.
fn leader(cluster: &Cluster) -> At {
    wait::until("one of the two leads, and the other follows", || {
        let states = [0, 1].map(|number| copy(cluster, At { shard: 0, copy: number }).1);
        match [states[0].as_str(), states[1].as_str()] {
            ["leading", "streaming"] => Ok(At { shard: 0, copy: 0 }),
            ["streaming", "leading"] => Ok(At { shard: 0, copy: 1 }),
            _ => Err(states),
        }
    })
}
