//! Taking out the users of dead nodes. One node does it at a time, for as long as it says that it
//! is at it; taking the same out twice changes nothing, and only the first hears that somebody
//! has gone. So another may go on where one stopped.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::interfaces::SortedSetsInterface;
use fred::types::Value;
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

use super::super::{Absence, AdapterError};
use super::log::{ms, number};
use super::nodes::{DEAD, Held, claimed_for};
use super::presence::take_out;
use super::scripts::call;
use super::{Shared, devices, held_key, unavailable};
use crate::domain::{SessionId, UserId};

/// How much of what a dead node had is taken out at once.
const AT_ONCE: usize = 512;
/// How many commands of that are under way at once.
const UNDER_WAY: usize = 64;
/// After so many that could not be taken out it is tried again later.
const FAILED_MAX: usize = 512;
/// How long whoever is told may take to make room.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Takes out what the nodes had that are claimed.
pub(super) async fn sweep_claimed(shared: &Shared, mut claimed: mpsc::Receiver<String>) {
    while let Some(label) = claimed.recv().await {
        match sweep(shared, &label).await {
            Ok(taken_out) => {
                tracing::info!(node = label, taken_out, "took a dead node's users out")
            }
            // The claim runs out, and somebody claims it again.
            Err(error) => tracing::warn!(node = label, %error, "take a dead node's users out"),
        }
    }
}

/// Answers how much it was.
async fn sweep(shared: &Shared, label: &str) -> Result<usize, AdapterError> {
    let key = held_key(label);
    let (mut taken_out, mut failed) = (0, 0);
    loop {
        let (from, to) = (failed as i64, (failed + AT_ONCE) as i64 - 1);
        let members: Vec<String> = shared
            .commands
            .zrange(key.clone(), from, to, None, false, None, false)
            .await
            .map_err(|source| unavailable("read what is held", source))?;
        if members.is_empty() {
            break;
        }
        let all = members.len();
        let done: Vec<String> = stream::iter(group(members))
            .map(|group| take_out_group(shared, label, group))
            .buffer_unordered(UNDER_WAY)
            .map(stream::iter)
            .flatten()
            .collect()
            .await;
        failed += all - done.len();
        taken_out += done.len();
        if !done.is_empty() {
            let _: Value = shared
                .commands
                .zrem(key.clone(), done)
                .await
                .map_err(|source| unavailable("forget what was held", source))?;
        }
        if failed > FAILED_MAX {
            break;
        }
        let _: Value = call(
            &shared.commands,
            &shared.scripts.hold_claim,
            vec![DEAD.to_owned()],
            vec![label.into(), number(ms(claimed_for(shared)))],
        )
        .await
        .map_err(|source| unavailable("hold a claim", source))?;
    }
    if failed == 0 {
        let _: Value = shared
            .commands
            .zrem(DEAD, label)
            .await
            .map_err(|source| unavailable("forget a dead node", source))?;
    }
    Ok(taken_out)
}

/// What is taken out by one script, with the members that list it.
enum Group {
    User(UserId),
    InSession(SessionId, Vec<UserId>),
    /// Not understood: only taken off the list.
    Unknown,
}

fn group(members: Vec<String>) -> Vec<(Group, Vec<String>)> {
    let mut sessions: BTreeMap<SessionId, (Vec<UserId>, Vec<String>)> = BTreeMap::new();
    let mut groups = Vec::new();
    for member in members {
        match Held::read(&member) {
            Some(Held::User(user)) => groups.push((Group::User(user), vec![member])),
            Some(Held::InSession(session, user)) => {
                let (users, members) = sessions.entry(session).or_default();
                users.push(user);
                members.push(member);
            }
            None => groups.push((Group::Unknown, vec![member])),
        }
    }
    groups.extend(
        sessions
            .into_iter()
            .map(|(session, (users, members))| (Group::InSession(session, users), members)),
    );
    groups
}

/// Answers the members that are done with.
async fn take_out_group(
    shared: &Shared,
    label: &str,
    (group, members): (Group, Vec<String>),
) -> Vec<String> {
    let done = match group {
        Group::Unknown => {
            shared.garbage.found("held");
            Ok(())
        }
        Group::User(user) => match devices::take_offline(shared, &user, label).await {
            Ok(true) => {
                tell(shared, Absence::Offline { user }).await;
                Ok(())
            }
            answer => answer.map(drop),
        },
        Group::InSession(session, users) => match take_out(shared, label, &session, &users).await {
            Ok(left) => {
                for user in left.users {
                    let (session, online) = (session.clone(), left.online);
                    tell(shared, Absence::Left { session, user, online }).await;
                }
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => members,
        Err(error) => {
            tracing::debug!(%error, "take out what a dead node had");
            Vec::new()
        }
    }
}

/// Tells whoever announces it. A dead node's users are many at once: waits for room, but not again
/// and again where nobody makes any.
pub(super) async fn tell(shared: &Shared, absence: Absence) {
    let Some(sinks) = shared.sinks.get() else { return };
    let absence = match sinks.absences.try_send(absence) {
        Ok(()) => return shared.untold.store(false, Ordering::Relaxed),
        Err(TrySendError::Closed(_)) => return,
        Err(TrySendError::Full(absence)) => absence,
    };
    if shared.untold.load(Ordering::Relaxed) {
        return;
    }
    if timeout(TOLD_WITHIN, sinks.absences.send(absence)).await.is_err() {
        tracing::warn!("users' absences are dropped: nobody takes them");
        shared.untold.store(true, Ordering::Relaxed);
    }
}
