//! Rule 9: what a failed commit was about is unknown to its client, and nothing of it is offered to replicas before the
//! leader's process was restarted.

use std::time::Duration;

use ostraca::storage::memory::Failing;
use ostraca::store::{Applied, Code};
use tokio::time::sleep;

use crate::cluster::{Cluster, end};

async fn fail(when: Failing) -> Cluster {
    let cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.engine(0).fail_next_commit(when);
    let error = cluster.put(1, "k", "2").await.unwrap_err(); // through the replica: the outcome travels
    assert_eq!((error.code, error.applied), (Code::StorageFailed, Applied::Unknown), "{error}");
    let error = cluster.put(0, "k", "3").await.unwrap_err();
    assert_eq!((error.code, error.applied), (Code::StorageFailed, Applied::No), "{error}");
    cluster.wait_state(1, "away").await;
    sleep(Duration::from_millis(200)).await; // several polls
    assert_eq!(end(cluster.disk(1)).0, 1, "nothing of it was offered");
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("1".into()));
    assert_eq!(cluster.status(0).await.state, "failed");
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_commit_that_did_not_take_effect_is_gone_after_the_restart() {
    let mut cluster = fail(Failing::Before).await;
    cluster.restart(0);
    cluster.wait_leading().await;
    cluster.put(0, "j", "4").await.unwrap();
    cluster.wait_converged().await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("1".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_commit_that_took_effect_reaches_the_replicas_after_the_restart() {
    let mut cluster = fail(Failing::After).await;
    cluster.restart(0);
    cluster.wait_leading().await;
    cluster.wait_converged().await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("2".into()));
    cluster.put(0, "k", "4").await.unwrap();
    cluster.wait_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_whose_commit_fails_acknowledges_nothing_more_and_goes_on_after_its_restart() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.engine(1).fail_next_commit(Failing::Before);
    cluster.put(0, "k", "2").await.unwrap();
    cluster.wait_state(1, "stuck").await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(cluster.status(0).await.replicas[0].cursor, Some(1));
    cluster.restart(1);
    cluster.wait_converged().await;
}

/// The bug: replicas were told that their leader had lost data when its store failed as it began to lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_whose_store_fails_as_it_begins_is_not_called_one_that_lost_data() {
    let mut cluster = Cluster::new(1);
    cluster.disk(0).fail_at_opening(Failing::Before);
    cluster.start(1);
    cluster.start(0);
    for _ in 0..30 {
        assert_ne!(cluster.status(1).await.state, "leader-lost-data");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((cluster.status(0).await.state.as_str(), cluster.status(1).await.state.as_str()), ("failed", "away"));
    let error = cluster.put(1, "k", "v").await.unwrap_err();
    assert_eq!((error.code, error.applied), (Code::StorageFailed, Applied::No), "{error}");
    cluster.restart(0);
    cluster.wait_leading().await;
}
