//! A worker's connections: one to the node that was named, or one to each leader that it has to ask (`--route direct`).

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::desk::Flight;
use crate::link::Link;
use crate::plan::{Place, Plan, Route};
use crate::request::{Cut, Forms};

/// A connection and what requests on it look like.
#[derive(Debug)]
pub(crate) struct Lane {
    place: Place,
    /// The connection.
    pub(crate) link: Link<Flight>,
    /// Requests to that node.
    pub(crate) cut: Cut,
}

/// The connections of a worker.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The first is that of the node that was named. A node that leads no more keeps its lane: it may lead again.
    lanes: Vec<Lane>,
    forms: Forms,
    route: Route,
    cluster: Option<Arc<Cluster>>,
    /// The lane of each shard's leader.
    by_shard: Vec<usize>,
}

impl Lanes {
    /// Not connected yet.
    pub(crate) fn new(plan: &Plan) -> Lanes {
        let mut lanes = Lanes {
            lanes: Vec::new(),
            forms: plan.forms.clone(),
            route: plan.route,
            cluster: None,
            by_shard: Vec::new(),
        };
        lanes.lane_to(plan.target.clone());
        lanes.learn(plan.cluster.borrow().clone());
        lanes
    }

    /// Connects all that are needed now.
    pub(crate) async fn connect(&mut self) {
        let needed: Vec<usize> = if self.by_shard.is_empty() { vec![0] } else { self.by_shard.clone() };
        for number in needed {
            if let Some(lane) = self.lanes.get_mut(number) {
                // A node that is not there shows as failures of the requests to it.
                let _ = lane.link.open().await;
            }
        }
    }

    /// Takes up a new map of the cluster. Costs a look at a lock that is hardly ever taken.
    pub(crate) fn follow(&mut self, plan: &Plan) {
        let known = self.cluster.as_ref().map_or(std::ptr::null(), Arc::as_ptr);
        let map = plan.cluster.borrow();
        if map.as_ref().map_or(std::ptr::null(), Arc::as_ptr) != known {
            let map = map.clone();
            self.learn(map);
        }
    }

    /// The index of a key's shard, one past the last if it cannot be known; and the lane to ask.
    pub(crate) fn of_key(&mut self, key: &[u8]) -> (usize, &mut Lane) {
        let shard = match &self.cluster {
            Some(cluster) => cluster.shard_of(key).unwrap_or(cluster.shards.len()),
            None => 0,
        };
        let number = self.by_shard.get(shard).copied().unwrap_or(0);
        let Some(lane) = self.lanes.get_mut(number) else { unreachable!("lane {number} was made with the map") };
        (shard, lane)
    }

    /// Those with requests under way.
    pub(crate) fn busy(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut().filter(|lane| lane.link.waiting() > 0)
    }

    /// Bytes of the burst that is being put together.
    pub(crate) fn burst_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.link.burst_bytes()).sum()
    }

    fn learn(&mut self, cluster: Option<Arc<Cluster>>) {
        self.by_shard.clear();
        if let (Some(cluster), Route::Direct) = (&cluster, self.route) {
            for shard in &cluster.shards {
                // Without a leader that can be understood, the node that was named is asked; it knows what to answer.
                let place = shard
                    .leader
                    .as_ref()
                    .and_then(|host| Some(Place { address: host.parse().ok()?, host: Arc::clone(host) }));
                let lane = place.map_or(0, |place| self.lane_to(place));
                self.by_shard.push(lane);
            }
        }
        self.cluster = cluster;
    }

    fn lane_to(&mut self, place: Place) -> usize {
        if let Some(known) = self.lanes.iter().position(|lane| lane.place == place) {
            return known;
        }
        let (link, cut) = (Link::new(place.address), self.forms.cut(&place.host));
        self.lanes.push(Lane { place, link, cut });
        self.lanes.len() - 1
    }
}
