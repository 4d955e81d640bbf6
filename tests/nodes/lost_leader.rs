//! Rule 13: a leader that has lost data takes no writes and drags nobody down with it; only an operator decides.

use std::time::Duration;

use ostraca::config::{Settings, StartAlone};
use ostraca::store::{Applied, Code};
use tokio::time::sleep;

use crate::cluster::{Cluster, end, settings, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_with_an_empty_file_beside_a_replica_with_data_halts_and_the_replica_serves() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.kill(0);
    cluster.disk(0).wipe();
    cluster.start(0);
    cluster.wait_state(0, "halted").await;
    let refused = cluster.put(0, "k", "2").await.unwrap_err();
    assert_eq!((refused.code, refused.applied), (Code::NoLeader, Applied::No));
    cluster.wait_state(1, "leader-lost-data").await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("1".into()));
    assert_eq!((end(cluster.disk(0)).0, end(cluster.disk(1)).0), (0, 1));
    // The operator throws the replica's copy away: from here on the leader leads.
    cluster.kill(1);
    cluster.disk(1).wipe();
    cluster.start(1);
    cluster.wait_leading().await;
    cluster.put(0, "j", "3").await.unwrap();
    cluster.wait_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_with_an_old_backup_halts_until_it_gets_the_replicas_file() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    let backup = cluster.disk(0).backup();
    cluster.put(0, "k", "2").await.unwrap();
    cluster.wait_converged().await;
    cluster.kill(0);
    cluster.disk(0).restore(backup);
    cluster.start(0);
    cluster.wait_state(0, "halted").await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("2".into()));
    cluster.kill(0);
    cluster.kill(1);
    cluster.disk(0).restore(cluster.disk(1).backup());
    cluster.start(0);
    cluster.start(1);
    cluster.wait_leading().await;
    cluster.put(0, "k", "3").await.unwrap();
    cluster.wait_converged().await;
}

/// The bug: what a replica's poll had shown was forgotten when the leader could not ask that replica, and it took writes
/// though it knew that it had lost data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_shown_by_a_poll_that_it_lost_data_stays_halted_though_it_cannot_ask() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.kill(0);
    cluster.kill(1);
    cluster.disk(0).wipe();
    cluster.start(0);
    cluster.wait_leading().await; // nobody was there to say anything else
    cluster.put(0, "j", "at risk").await.unwrap();
    cluster.net.cut_one_way(cluster.address(0), cluster.address(1));
    cluster.start(1);
    cluster.wait_state(0, "halted").await;
    cluster.kill(1);
    for _ in 0..40 {
        assert_eq!(cluster.status(0).await.state, "halted");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(end(cluster.disk(1)).0, 1, "the replica keeps what it has");
}

/// The bug: the leader of shard 0 drew a cluster uid of its own when it started alone with an empty file. To all others it
/// was a stranger from then on, so nobody could show it that it had lost data, and it went on taking writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_of_shard_0_that_starts_alone_and_empty_stays_in_its_cluster() {
    let mut cluster = Cluster::started(1).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    let (leader, replica) = (cluster.disk(0).clone(), cluster.disk(1).clone());
    let uid = |disk: &crate::disk::Disk| ostraca::storage::Engine::state(&disk.look()).unwrap().cluster_uid;
    until_true("both have written the cluster's uid down", || uid(&leader).is_some() && uid(&leader) == uid(&replica))
        .await;
    cluster.kill(0);
    cluster.kill(1);
    cluster.disk(0).wipe();
    cluster.start(0);
    cluster.wait_leading().await;
    cluster.start(1);
    cluster.wait_state(0, "halted").await;
    cluster.wait_state(1, "leader-lost-data").await;
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("1".into()));
}

/// `start_alone = "wait"`: a leader that hears no majority of its shard's copies serves `any` reads and takes no writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_is_to_wait_takes_no_writes_before_a_majority_of_its_copies_has_answered() {
    let mut cluster = Cluster::with(1, Settings { start_alone: StartAlone::Wait, ..settings() });
    cluster.start(0);
    cluster.start(1);
    cluster.wait_leading().await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.kill(1);
    cluster.restart(0);
    sleep(Duration::from_secs(3)).await;
    let refused = cluster.put(0, "k", "2").await.unwrap_err();
    assert_eq!((refused.code, refused.applied), (Code::NoLeader, Applied::No), "{refused}");
    assert_eq!(cluster.get_any(0, "k").await.unwrap(), Some("1".into()));
    cluster.start(1);
    cluster.wait_leading().await;
    cluster.put(0, "k", "3").await.unwrap();
    cluster.wait_converged().await;
}

/// Two replicas, one empty: the empty one gets nothing from a leader that has lost data either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_is_empty_does_not_make_a_halted_leader_lead() {
    let mut cluster = Cluster::started(2).await;
    cluster.put(0, "k", "1").await.unwrap();
    cluster.wait_converged().await;
    cluster.kill(0);
    cluster.kill(2);
    cluster.disk(0).wipe();
    cluster.disk(2).wipe();
    cluster.start(2);
    cluster.start(0);
    cluster.wait_state(0, "halted").await;
    let disk = cluster.disk(2).clone();
    sleep(Duration::from_millis(500)).await;
    assert_eq!((end(&disk).0, cluster.status(0).await.state.as_str()), (0, "halted"));
    assert_eq!(cluster.get_any(1, "k").await.unwrap(), Some("1".into()));
    let shown = cluster.disk(1).clone();
    until_true("the replica with data keeps it", || end(&shown).0 == 1).await;
}
