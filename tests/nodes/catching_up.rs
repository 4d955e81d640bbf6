//! A replica gets everything its leader has, in order and once in effect, whatever happens to either on the way.

use std::time::Duration;

use ostraca::config::Settings;

use crate::cluster::{Cluster, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_starts_empty_catches_up_from_the_log() {
    let kept = Settings::default().log_retain_bytes;
    let mut cluster = Cluster::with(1, Settings { log_retain_bytes: kept, ..settings() });
    cluster.start(0);
    cluster.wait_leading().await;
    for n in 0..200 {
        cluster.put(0, &format!("k{n}"), format!("{n}")).await.unwrap();
    }
    for n in (0..200).step_by(3) {
        cluster.delete(0, &format!("k{n}")).await.unwrap();
    }
    cluster.start(1);
    cluster.wait_converged().await;
    assert_eq!(cluster.disk(1).snapshots(), 0);
    assert_eq!(cluster.get_any(1, "k1").await.unwrap(), Some("1".into()));
    assert_eq!(cluster.get_any(1, "k0").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_are_killed_in_turns_go_on_where_they_were() {
    let mut cluster = Cluster::started(2).await;
    for round in 0..6 {
        for n in 0..20 {
            cluster.put(0, &format!("k{n}"), format!("{round}:{n}")).await.unwrap();
        }
        cluster.restart(round % 3);
        cluster.wait_leading().await;
        cluster.delete(0, &format!("k{round}")).await.unwrap();
    }
    cluster.wait_converged().await;
    let rows = cluster.disk(1).look();
    let rows = ostraca::storage::Engine::state(&rows).unwrap().history.rows().len();
    assert_eq!(rows, 3, "one row of history for each life in which the leader wrote");
}

/// A connection that breaks after any number of bytes: in a length, in a head, in an entry, between two frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_breaks_anywhere_in_an_answer_loses_and_doubles_nothing() {
    let cluster = Cluster::started(1).await;
    for bytes in (0..400_i64).step_by(13) {
        cluster.net.break_answers_after(cluster.address(0), bytes);
        for n in 0..3 {
            cluster.put(0, &format!("k{n}"), format!("{bytes}:{n}")).await.unwrap();
        }
        cluster.delete(0, "k0").await.unwrap();
    }
    cluster.wait_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_was_cut_off_says_so_and_takes_up_again() {
    let cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.net.cut(cluster.address(0), cluster.address(1));
    cluster.put(0, "k", "2").await.unwrap();
    cluster.wait_state(1, "away").await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("1".into()), "it serves what it has");
    cluster.net.heal(cluster.address(0), cluster.address(1));
    cluster.wait_converged().await;
    cluster.wait_state(1, "streaming").await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("2".into()));
}

/// A leader that is stopped and goes on answers polls that nobody waits for any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_too_late_are_not_taken_for_later_ones() {
    let cluster = Cluster::started(1).await;
    for round in 0..2 {
        cluster.net.freeze(cluster.address(0), true);
        for n in 0..10 {
            cluster.put(0, &format!("k{n}"), format!("{round}")).await.unwrap(); // at the leader itself
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        cluster.net.freeze(cluster.address(0), false);
        cluster.put(0, "k0", format!("after {round}")).await.unwrap();
        cluster.wait_converged().await;
    }
}
