//! `kv status`: what is wrong, since when, and what to do, each thing once; and the same over and over with `--watch`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::{At, Cluster, Spec, wait};

/// What `kv status` shows once it shows this.
fn shows(cluster: &Cluster, through: At, wanted: &[&str]) -> String {
    wait::until(&format!("kv status shows {wanted:?}"), || {
        let said = cluster.kv(through, &["status"], "");
        if wanted.iter().all(|wanted| said.out.contains(wanted)) { Ok(said.out) } else { Err(said) }
    })
}

fn problems(shown: &str) -> usize {
    shown.lines().filter(|line| line.starts_with("  - ")).count()
}

#[test]
fn status_says_what_is_wrong_since_when_and_what_to_do_next() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    shows(&cluster, cluster.leader(0), &["healthy: 2 shards on 4 nodes\n"]);

    let (leader, replica) = (cluster.leader(0), cluster.replica(0));
    cluster.kill9(replica);
    let start = format!("next: start it, or look into its log: kv serve --http-addr {}", cluster.address(replica));
    let shown = shows(&cluster, leader, &["Hyderabad/1", "does not answer", "(for ", &start]);
    assert_eq!(problems(&shown), 1, "its leader does not repeat it: {shown}");
    cluster.restart(replica);
    shows(&cluster, leader, &["healthy: "]);

    cluster.kill9(leader);
    let shown = shows(&cluster, cluster.leader(1), &["nobody leads Hyderabad: writes to it are refused", "(for "]);
    assert_eq!(problems(&shown), 1, "nor does its replica: {shown}");
    cluster.restart(leader);
    shows(&cluster, leader, &["healthy: "]);
}

#[test]
fn drift_is_named_with_the_nodes_and_how_they_differ() {
    let cluster = Cluster::start(Spec::shards(2).replicas(1));
    // This one's file knows no replicas.
    let text = cluster.sharding_toml(&Spec::shards(2).replicas(1));
    let without: String =
        text.lines().filter(|line| !line.starts_with("replicas")).map(|line| format!("{line}\n")).collect();
    let other = cluster.directory().join("other.toml");
    std::fs::write(&other, without).unwrap();
    let at = cluster.leader(1);
    assert!(cluster.stop(at).success());
    let mut node = cluster.extra_process("other", cluster.serve_args(at, &other, &cluster.db_file(at)));
    node.start();
    cluster.wait_ready_at(cluster.address(at), &mut node);
    let lacks = format!(
        "without Bangalore/1 ({}), without Hyderabad/1 ({})",
        cluster.address(cluster.replica(1)),
        cluster.address(cluster.replica(0))
    );
    let shown = shows(&cluster, cluster.leader(0), &["Bangalore/0 reads a sharding.toml", &lacks]);
    assert!(shown.contains("than Hyderabad/0, Hyderabad/1, Bangalore/1"), "{shown}");
    assert_eq!(cluster.get(cluster.leader(0), "/readyz").status, 200, "a warning only");
    node.stop();

    // And this one's places keys otherwise: nobody talks to it.
    let fnv1 = cluster.directory().join("fnv1.toml");
    std::fs::write(&fnv1, cluster.sharding_toml(&Spec::shards(2).replicas(1).hash("fnv1"))).unwrap();
    let db = cluster.directory().join("fnv1.redb");
    let mut node = cluster.extra_process("fnv1", cluster.serve_args(at, &fnv1, &db));
    node.start();
    let shown = shows(
        &cluster,
        cluster.leader(0),
        &["Bangalore/0 and Hyderabad/0", "disagree about the placement", "fnv1, ", "(for "],
    );
    assert_eq!(problems(&shown), 1, "{shown}");
    let ready = wait::until("the outvoted node is not ready", || {
        let answer = cluster.get(at, "/readyz");
        if answer.status == 503 { Ok(answer.text()) } else { Err(answer) }
    });
    assert!(ready.contains("FAILED placement: most nodes read another"), "{ready}");
    let warned = wait::until("the others warn", || {
        let text = cluster.get(cluster.leader(0), "/readyz").expect(200).text();
        if text.contains("WARNING placement") { Ok(text) } else { Err(text) }
    });
    assert!(warned.contains("Bangalore/0 (1 of 4 nodes)"), "{warned}");
}

#[test]
fn watch_in_a_pipe_prints_one_frame_after_another() {
    let cluster = Cluster::start(Spec::shards(1));
    let url = format!("http://{}", cluster.address(cluster.leader(0)));
    let mut child = Command::new(env!("CARGO_BIN_EXE_kv"))
        .args(["status", "--watch", "1", "--url", &url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let heads: Vec<String> = BufReader::new(out)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.starts_with("---- after ") || line.starts_with("healthy: "))
        .take(6)
        .collect();
    // The reader has left: it ends by itself at its next frame.
    let status = wait::until("it ends", || child.try_wait().unwrap().ok_or("it runs"));
    assert_eq!(status.code(), Some(0));
    assert_eq!(heads.iter().filter(|line| *line == "healthy: 1 shard on 1 node").count(), 3, "{heads:?}");
    assert_eq!(heads[0], "---- after 0 s");
}
