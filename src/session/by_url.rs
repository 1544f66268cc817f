//! Which session an id in a URL stands for. Pure.
//!
//! An index and nothing else: it keeps 4 bytes per session, the id stands in the session itself.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::Session;
use crate::client::SessionId;
use crate::reactor::slots::{SlotId, Slots};

/// Sessions by their id. Every one in it is in the table of sessions, under the id that it had when it came.
#[derive(Debug, Default)]
pub(super) struct ByUrl {
    key: RandomState,
    places: HashTable<u32>,
}

/// The hash of the id of the session that stands at this place.
fn hash_at(key: &RandomState, sessions: &Slots<Session>, place: u32) -> u64 {
    sessions.id_at(place).and_then(|id| sessions.find(id)).map_or(0, |session| key.hash_one(&session.id))
}

impl ByUrl {
    /// The session of `id`.
    pub(super) fn get(&self, id: &SessionId, sessions: &Slots<Session>) -> Option<SlotId> {
        let is_it = |place: &u32| {
            let session = sessions.id_at(*place).and_then(|found| sessions.find(found));
            session.is_some_and(|session| session.id == *id)
        };
        self.places.find(self.key.hash_one(id), is_it).and_then(|place| sessions.id_at(*place))
    }

    /// Puts a session in, which has its id already; another one of the same id goes out.
    pub(super) fn insert(&mut self, session: SlotId, sessions: &Slots<Session>) {
        let Some(found) = sessions.find(session) else { return };
        if let Some(other) = self.get(&found.id, sessions) {
            self.remove(&found.id, other);
        }
        let key = &self.key;
        let hash = key.hash_one(&found.id);
        self.places.insert_unique(hash, session.index, |place| hash_at(key, sessions, *place));
    }

    /// Takes `session` out if it stands under `id`; to be called before it changes its id, or when it is gone.
    pub(super) fn remove(&mut self, id: &SessionId, session: SlotId) {
        if let Ok(found) = self.places.find_entry(self.key.hash_one(id), |place| *place == session.index) {
            found.remove();
        }
    }

    /// Gives memory back that a crowd of sessions needed.
    pub(super) fn shrink(&mut self, sessions: &Slots<Session>) {
        if self.places.len() < self.places.capacity() / 8 {
            let key = &self.key;
            self.places.shrink_to_fit(|place| hash_at(key, sessions, *place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::DumpFile;
    use crate::moment::Moment;
    use crate::session::Record;

    /// Against a plain map: ids come, come again, go, and the table grows and shrinks meanwhile.
    #[test]
    fn it_finds_what_a_map_finds() {
        let (mut slots, mut index) = (Slots::default(), ByUrl::default());
        let mut expected = std::collections::BTreeMap::new();
        let id = |n: u32| SessionId::parse(&format!("id-{}", n * 7919 % 500)).unwrap();
        for n in 0..3000 {
            let connection = SlotId { index: 0, generation: 1 };
            let record = Record::Written(DumpFile::found("x", 0, 0, (0, 0)));
            let session = slots
                .insert_with(|_| Session::new(id(n), connection, true, record, Moment::at(u64::from(n))));
            index.insert(session, &slots);
            // The one that is displaced stays in the table, as one that is held does.
            let displaced = expected.insert(id(n), session);
            if let Some(displaced) = displaced {
                assert_ne!(index.get(&id(n), &slots), Some(displaced));
                index.remove(&id(n), displaced);
                slots.remove(displaced);
            }
            if n % 3 > 0 || n > 2000 {
                let gone = id(n / 2);
                if let Some(session) = expected.remove(&gone) {
                    slots.remove(session);
                    index.remove(&gone, session);
                }
                index.shrink(&slots);
            }
            for n in n.saturating_sub(20)..=n {
                assert_eq!(index.get(&id(n), &slots), expected.get(&id(n)).copied(), "{n}");
            }
            assert_eq!(index.places.len(), expected.len());
        }
    }
}
