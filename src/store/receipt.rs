//! `/v1/receipt`: whether an acknowledged write survived. The key's leader decides by its history, and every copy is asked
//! whether its ledger lists the write; a copy that cannot be asked is named.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::view::{ReceiptView, SilentNode};
use super::{Code, Error, Store};
use crate::config::{Node, Shard};
use crate::peer::{Ask, CallError, Class, Kind};
use crate::replication::pair::receipt::{Led, Question, Said, Verdict};
use crate::types::{Key, Version};

/// A copy that has not answered in so long is silent. Its ledger may be long.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

impl Store {
    /// What became of the write of `key` that was answered with `version`.
    pub async fn receipt(&self, key: &Key, version: Version, deadline: Instant) -> Result<ReceiptView, Error> {
        let shard = self.shard_of(key);
        let wait = ANSWER_WAIT.min(deadline.saturating_duration_since(self.clock.now()));
        let question = Question { key: key.clone(), version };
        let answers = join_all(shard.copies.iter().map(|node| self.ask_receipt(node, &question, wait))).await;
        let said: Vec<_> = shard.copies.iter().zip(answers).collect();
        let leads = |said: &Said| said.leads.clone();
        let led = said.iter().filter_map(|(_, said)| leads(said.as_ref().ok()?)).max_by(|a, b| a.epoch.cmp(&b.epoch));
        let Some(Led { epoch, verdict, record }) = led else { return Err(self.nobody_leads(shard, &said)) };
        let lists = |said: &Result<Said, String>| said.as_ref().is_ok_and(|said| said.is_listed == Some(true));
        let ledgers: Vec<String> =
            said.iter().filter(|(_, said)| lists(said)).map(|(node, _)| node.name.to_string()).collect();
        let verdict = verdict.with_ledgers(!ledgers.is_empty());
        Ok(ReceiptView {
            answer: verdict.name().into(),
            why: why(verdict, record, &epoch.leader.to_string()),
            shard: shard.name.clone(),
            leader: self.map.leader_of(shard).address.to_string(),
            epoch: epoch.number,
            record: record.map(|version| version.to_string()),
            ledgers,
            silent: said.iter().filter_map(|(node, said)| silent(node, said)).collect(),
        })
    }

    async fn ask_receipt(&self, node: &Node, question: &Question, wait: Duration) -> Result<Said, String> {
        if let Some(pair) = self.copies.get(&node.shard).filter(|_| node.name == self.me.name) {
            return pair.answer_receipt(question.clone()).await.map_err(|error| error.to_string());
        }
        let ask = Ask {
            node,
            class: Class::Request,
            kind: Kind::Receipt,
            shard: node.shard,
            epoch: self.map.epoch_of(node.shard),
            request_id: self.pool.new_request_id(),
            body: question.encode(),
            answer_wait: wait,
            total_wait: wait,
        };
        let answer = self.pool.ask(ask).await.and_then(|bytes| Ok(Said::decode(bytes)?));
        answer.map_err(|error: CallError| error.to_string())
    }

    fn nobody_leads(&self, shard: &Shard, said: &[(&Node, Result<Said, String>)]) -> Error {
        let leader = self.map.leader_of(shard);
        let of_leader = said.iter().find(|(node, _)| node.name == leader.name);
        let error = match of_leader {
            Some((_, Err(why))) => {
                let detail = format!("node {} at {}, which leads {}: {why}", leader.name, leader.address, shard.name);
                Error::new(Code::ShardUnreachable, detail).hint("start it, or let another copy lead: kv shard takeover")
            }
            _ => Error::new(Code::NoLeader, format!("nobody leads shard {} now", shard.name))
                .hint("ask again in a second; kv status shows what is wrong"),
        };
        error.shard(&shard.name).leader(leader.address)
    }
}

fn silent(node: &Node, said: &Result<Said, String>) -> Option<SilentNode> {
    let why = match said {
        Ok(Said { is_listed: Some(_), .. }) => return None,
        Ok(_) => "its ledger cannot be read".to_owned(),
        Err(why) => why.clone(),
    };
    Some(SilentNode { node: node.name.to_string(), why })
}

fn why(verdict: Verdict, record: Option<Version>, leader: &str) -> String {
    match (verdict, record) {
        (Verdict::Yes, Some(_)) => "it is what the key holds".into(),
        (Verdict::Yes, None) => "it deleted the key, which is gone".into(),
        (Verdict::Superseded, Some(record)) => format!("it lasted; the key was written again since, as {record}"),
        (Verdict::Superseded, None) => "it lasted; the key was deleted since".into(),
        (Verdict::Lost, _) => {
            format!("it is not in the history of the shard's leader, {leader}, which began without it")
        }
        (Verdict::Unknown, _) => {
            "no write of this key with this version is known: it was never made, or never confirmed".into()
        }
    }
}
