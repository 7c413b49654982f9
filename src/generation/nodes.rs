//! The other nodes, as far as a generation's node has to know them: who could go on with what it
//! runs, and who takes a new one.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::lease::DEAD_AFTER;
use super::{Generations, Shared};
use crate::domain::NodeId;
use crate::store::{Heartbeat, StoreError};

/// How long the database may take to list the nodes.
const LISTED_WITHIN: Duration = Duration::from_secs(1);

impl Generations {
    /// A node that takes a new generation now: of two that are drawn, the one with more room.
    /// `None` where there is none.
    ///
    /// # Errors
    /// Where the database cannot tell.
    pub async fn elsewhere(&self) -> Result<Option<NodeId>, StoreError> {
        let mut nodes = self.shared.store.nodes(DEAD_AFTER).await?;
        nodes.retain(|node| node.node != self.shared.options.node && takes(node));
        Ok(drawn(&nodes, Uuid::new_v4().as_u128()))
    }
}

impl Shared {
    /// Whether another node can go on with what this one runs.
    pub(super) async fn has_heir(&self) -> bool {
        if !self.options.shares_log {
            return false;
        }
        match timeout(LISTED_WITHIN, self.store.nodes(DEAD_AFTER)).await {
            Ok(Ok(nodes)) => nodes.iter().any(|node| node.node != self.options.node && takes(node)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "list nodes");
                false
            }
            Err(_) => false,
        }
    }
}

fn takes(node: &Heartbeat) -> bool {
    node.role.generates() && node.redis_up && !node.draining && node.running < node.running_max
}

fn room(node: &Heartbeat) -> u32 {
    node.running_max.saturating_sub(node.running)
}

fn drawn(nodes: &[Heartbeat], dice: u128) -> Option<NodeId> {
    let len = nodes.len() as u128;
    if len == 0 {
        return None;
    }
    let draw = |dice: u128| usize::try_from(dice % len).ok().and_then(|at| nodes.get(at));
    let (one, other) = (draw(dice & u128::from(u64::MAX))?, draw(dice >> 64)?);
    Some(if room(other) > room(one) { other.node } else { one.node })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;

    fn node(running: u32) -> Heartbeat {
        Heartbeat {
            node: NodeId::new(),
            address: String::new(),
            role: Role::Generator,
            redis_up: true,
            running,
            running_max: 10,
            draining: false,
        }
    }

    #[test]
    fn of_two_that_are_drawn_the_one_with_more_room_is_taken() {
        let nodes = [node(5), node(1), node(9)];
        let draw = |one: u128, other: u128| drawn(&nodes, one + (other << 64)).unwrap();
        assert_eq!(draw(0, 1), nodes[1].node);
        assert_eq!(draw(1, 2), nodes[1].node);
        assert_eq!(draw(2, 0), nodes[0].node);
        assert_eq!(draw(2, 2), nodes[2].node);
        assert_eq!(drawn(&[], 7), None);
    }

    #[test]
    fn a_node_takes_one_that_generates_has_redis_room_and_goes_on() {
        assert!(takes(&node(9)) && takes(&Heartbeat { role: Role::All, ..node(0) }));
        for node in [
            node(10),
            Heartbeat { role: Role::Edge, ..node(0) },
            Heartbeat { redis_up: false, ..node(0) },
            Heartbeat { draining: true, ..node(0) },
        ] {
            assert!(!takes(&node), "{node:?}");
        }
    }
}
