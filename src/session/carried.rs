//! What one connection feeds. Pure.

use std::collections::HashMap;

use super::Sessions;
use crate::client::SessionId;
use crate::reactor::slots::SlotId;

/// What one connection feeds. Most feed one session; a bridge feeds thousands.
#[derive(Debug, Default)]
pub enum Carried {
    /// No session yet.
    #[default]
    None,
    /// One session.
    One(SlotId),
    /// Several, by id.
    Many(Box<HashMap<SessionId, SlotId>>),
}

impl Carried {
    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(map) => map.len(),
        }
    }

    /// Whether no session is fed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session of `id` on this connection.
    #[must_use]
    pub fn find(&self, id: &str, sessions: &Sessions) -> Option<SlotId> {
        match self {
            Self::None => None,
            Self::One(only) => {
                sessions.find(*only).is_some_and(|found| found.id.as_str() == id).then_some(*only)
            }
            Self::Many(map) => map.get(id).copied().filter(|key| sessions.find(*key).is_some()),
        }
    }

    /// Whether it carries one session, which is gone.
    #[must_use]
    pub fn is_only_gone(&self, sessions: &Sessions) -> bool {
        match self {
            Self::One(only) => sessions.find(*only).is_none(),
            Self::None | Self::Many(_) => false,
        }
    }

    /// Adds a session; an earlier one of the same id is replaced.
    pub fn add(&mut self, session: SlotId, sessions: &Sessions) {
        let Some(id) = sessions.find(session).map(|found| found.id.clone()) else { return };
        match self {
            Self::None => *self = Self::One(session),
            Self::One(only) => {
                let mut map = HashMap::new();
                if let Some(first) = sessions.find(*only) {
                    map.insert(first.id.clone(), *only);
                }
                map.insert(id, session);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => {
                map.insert(id, session);
            }
        }
    }

    /// Lets go of sessions that are no more.
    pub fn forget_gone(&mut self, sessions: &Sessions) {
        match self {
            Self::None => {}
            Self::One(only) if sessions.find(*only).is_some() => {}
            Self::One(_) => *self = Self::None,
            Self::Many(map) => map.retain(|_, key| sessions.find(*key).is_some()),
        }
    }

    /// Lets go of a session.
    pub fn remove(&mut self, session: SlotId) {
        match self {
            Self::None => {}
            Self::One(only) if *only == session => *self = Self::None,
            Self::One(_) => {}
            Self::Many(map) => map.retain(|_, other| *other != session),
        }
    }

    /// As [`Carried::remove`], by its id, which does not look at all the others.
    pub fn remove_named(&mut self, session: SlotId, id: &str) {
        match self {
            Self::None | Self::One(_) => self.remove(session),
            Self::Many(map) => {
                if map.get(id) == Some(&session) {
                    map.remove(id);
                }
            }
        }
    }

    /// All sessions.
    #[must_use]
    pub fn all(&self) -> Vec<SlotId> {
        match self {
            Self::None => Vec::new(),
            Self::One(only) => vec![*only],
            Self::Many(map) => map.values().copied().collect(),
        }
    }
}
