//! Where a socket stands in each session that it is in, and what its client was told of that: the
//! offset with which it can come back.

use std::sync::Arc;

use crate::dialect::offset::{self, UNRECOVERABLE};
use crate::domain::SessionId;

/// At most as many as a socket may join.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The offset of a socket that is in this session only; `None` while it joins.
    all: Vec<(SessionId, Option<Arc<str>>)>,
    /// Those in which it is still to go on: it stands there as its client told, whatever becomes of
    /// a try to join them.
    owed: Vec<SessionId>,
    told: Told,
    has_ended: bool,
}

/// What offset the client has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Told {
    /// None, or one from which nothing is recovered.
    #[default]
    Nothing,
    /// One that does not say where it stands now.
    Older,
    /// The present one.
    Present,
}

impl Places {
    /// Those of a socket that goes on in these sessions, whose client has told so.
    pub(super) fn recovered(all: impl IntoIterator<Item = (SessionId, Arc<str>)>) -> Self {
        let all: Vec<_> =
            all.into_iter().map(|(session, offset)| (session, Some(offset))).collect();
        let owed = all.iter().map(|(session, _)| session.clone()).collect();
        Self { all, owed, told: Told::Present, has_ended: false }
    }

    /// Those of a socket that begins anew, whose client may have the offset of an earlier one.
    pub(super) fn begun_anew() -> Self {
        Self { told: Told::Older, ..Self::default() }
    }

    /// Those of a socket that is shown nothing more.
    pub(super) fn ended() -> Self {
        Self { has_ended: true, ..Self::default() }
    }

    /// Whether it is shown nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// It joins a session. Where it is in it already, it keeps its place.
    pub(super) fn join(&mut self, session: &SessionId) {
        if self.all.iter().all(|(known, _)| known != session) {
            self.all.push((session.clone(), None));
            self.told = self.told.min(Told::Older);
        }
    }

    /// It stands there in a session, and is offered what comes after.
    pub(super) fn settle(&mut self, session: &SessionId, offset: Arc<str>) {
        self.owed.retain(|owed| owed != session);
        if let Some((_, place)) = self.all.iter_mut().find(|(known, _)| known == session)
            && place.as_ref() != Some(&offset)
        {
            *place = Some(offset);
            self.told = self.told.min(Told::Older);
        }
    }

    /// It is in a session no more, unless it is still to go on there.
    pub(super) fn leave(&mut self, session: &SessionId) {
        if !self.owed.contains(session) {
            self.give_up(session);
        }
    }

    /// It is in a session no more, and does not go on there.
    pub(super) fn give_up(&mut self, session: &SessionId) {
        self.owed.retain(|owed| owed != session);
        let before = self.all.len();
        self.all.retain(|(known, _)| known != session);
        if self.all.len() < before {
            self.told = self.told.min(Told::Older);
        }
    }

    /// The offset that has to be told by itself, since what the client has is not true any more.
    /// `None` also where it has none, and none is to be had.
    pub(super) fn untold(&self) -> Option<String> {
        if self.told == Told::Present {
            return None;
        }
        let all: Option<Vec<&str>> = self.all.iter().map(|(_, place)| place.as_deref()).collect();
        let offset = all.map_or_else(unrecoverable, |all| offset::joined(all.into_iter()));
        (self.told == Told::Older || offset != UNRECOVERABLE).then_some(offset)
    }

    /// What an event carries that brings the socket to `own`, the offset of one that is in its
    /// session only. `None` where it is not in that.
    pub(super) fn with(&self, own: &Arc<str>) -> Option<Arc<str>> {
        let at = self.at(own)?;
        if self.all.len() == 1 {
            return Some(own.clone());
        }
        let places = self.all.iter().enumerate();
        let all: Option<Vec<&str>> = places
            .map(|(n, (_, place))| if n == at { Some(&**own) } else { place.as_deref() })
            .collect();
        Some(all.map_or_else(unrecoverable, |all| offset::joined(all.into_iter())).into())
    }

    /// The client is being sent an event with `told`, which brings the socket to `own`.
    pub(super) fn moved(&mut self, own: &Arc<str>, told: &str) {
        if let Some(at) = self.at(own) {
            self.all[at].1 = Some(own.clone());
        }
        self.tells(told);
    }

    /// The client is being sent this offset.
    pub(super) fn tells(&mut self, offset: &str) {
        self.told = if offset == UNRECOVERABLE { Told::Nothing } else { Told::Present };
    }

    fn at(&self, own: &str) -> Option<usize> {
        self.all.iter().position(|(session, _)| offset::is_of(own, session))
    }
}

impl Told {
    /// The lesser of the two: who was told nothing has nothing that is older.
    fn min(self, other: Self) -> Self {
        if self == Self::Nothing { self } else { other }
    }
}

fn unrecoverable() -> String {
    UNRECOVERABLE.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialects;
    use crate::domain::Cursor;

    fn session(id: &str) -> SessionId {
        SessionId::new(id).unwrap()
    }

    fn offset(id: &str, ordinal: u64) -> Arc<str> {
        let cursor = Cursor { ordinal, ..Cursor::default() };
        offset::of(Dialects::new(false).native(), &session(id), &cursor).into()
    }

    fn both(first: &str, second: &str) -> String {
        offset::joined([first, second].into_iter())
    }

    /// Shows an event, as a socket is sent one.
    fn show(places: &mut Places, own: &Arc<str>) -> String {
        let told = places.with(own).expect("it is in the session");
        places.moved(own, &told);
        told.to_string()
    }

    #[test]
    fn a_socket_in_one_session_is_told_its_events_own_offsets() {
        let mut places = Places::default();
        assert_eq!(places.untold(), None, "nothing joined, nothing told");
        places.join(&session("a"));
        assert_eq!(places.untold(), None, "nothing was told that is wrong now");
        places.settle(&session("a"), offset("a", 1));
        assert_eq!(places.untold().as_deref(), Some(&*offset("a", 1)));
        assert_eq!(show(&mut places, &offset("a", 2)), *offset("a", 2));
        assert_eq!(places.untold(), None);
        places.settle(&session("a"), offset("a", 2));
        assert_eq!(places.untold(), None, "it stands there already");
        places.join(&session("a"));
        assert_eq!(places.untold(), None, "joined again, it keeps its place");
        assert_eq!(places.with(&offset("b", 1)), None);
    }

    #[test]
    fn in_several_each_event_tells_all_places() {
        let mut places = Places::default();
        places.join(&session("a"));
        places.settle(&session("a"), offset("a", 1));
        show(&mut places, &offset("a", 2));
        places.join(&session("b"));
        assert_eq!(
            places.untold().as_deref(),
            Some(UNRECOVERABLE),
            "what was told lacks the second"
        );
        places.tells(UNRECOVERABLE);
        assert_eq!(show(&mut places, &offset("a", 3)), UNRECOVERABLE);
        places.settle(&session("b"), offset("b", 7));
        assert_eq!(places.untold(), Some(both(&offset("a", 3), &offset("b", 7))));
        assert_eq!(show(&mut places, &offset("b", 8)), both(&offset("a", 3), &offset("b", 8)));
        assert_eq!(show(&mut places, &offset("a", 4)), both(&offset("a", 4), &offset("b", 8)));
        places.leave(&session("a"));
        assert_eq!(places.untold().as_deref(), Some(&*offset("b", 8)));
        places.tells(&offset("b", 8));
        places.leave(&session("b"));
        assert_eq!(places.untold().as_deref(), Some(UNRECOVERABLE));
        places.tells(UNRECOVERABLE);
        assert_eq!(places.untold(), None);
        places.leave(&session("b"));
        assert_eq!(places.untold(), None);
    }

    #[test]
    fn who_comes_back_has_its_places_from_the_start() {
        let all = [(session("a"), offset("a", 1)), (session("b"), offset("b", 1))];
        let mut places = Places::recovered(all);
        assert_eq!(places.untold(), None);
        places.join(&session("a"));
        assert_eq!(show(&mut places, &offset("b", 2)), both(&offset("a", 1), &offset("b", 2)));
        places.settle(&session("a"), offset("a", 1));
        assert_eq!(places.untold(), None);
    }

    #[test]
    fn who_cannot_go_on_yet_keeps_the_place_that_its_client_told() {
        let all = [(session("a"), offset("a", 1)), (session("b"), offset("b", 1))];
        let mut places = Places::recovered(all);
        places.join(&session("b"));
        places.leave(&session("b"));
        assert_eq!(places.untold(), None, "it joined, and what it missed could not be had");
        assert_eq!(show(&mut places, &offset("a", 2)), both(&offset("a", 2), &offset("b", 1)));
        places.settle(&session("b"), offset("b", 1));
        places.leave(&session("b"));
        assert_eq!(places.untold().as_deref(), Some(&*offset("a", 2)), "it went on, and left");
        places.tells(&offset("a", 2));
        places.give_up(&session("a"));
        assert_eq!(places.untold().as_deref(), Some(UNRECOVERABLE));
    }

    #[test]
    fn who_begins_anew_is_told_that_the_older_offset_is_void() {
        let mut places = Places::begun_anew();
        assert_eq!(places.untold().as_deref(), Some(UNRECOVERABLE));
        places.tells(UNRECOVERABLE);
        assert_eq!(places.untold(), None);
    }

    #[test]
    fn too_many_places_are_told_once_to_be_too_many() {
        let mut places = Places::default();
        for n in 0..100 {
            let id = format!("a-session-of-some-length-{n}");
            places.join(&session(&id));
            places.settle(&session(&id), offset(&id, 1));
        }
        assert_eq!(places.untold(), None, "none was told before");
        let own = offset("a-session-of-some-length-7", 2);
        assert_eq!(show(&mut places, &own), UNRECOVERABLE);
        assert_eq!(places.untold(), None);
    }
}
