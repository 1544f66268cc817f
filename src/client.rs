//! Who is at the other end: the client family and what a connection said about itself at its upgrade.
//!
//! Plain data and pure functions. Rules: protocol of the reference server, section "connection set-up".

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::auth::Claims;

/// The name of a session, chosen by its client: `^[A-Za-z0-9_-]{1,128}$`.
///
/// Cloning shares the text. Whoever holds one may use it as a file name; nothing else that a peer sends is ever part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Longest id, in bytes. The reference has no limit; ours is below what a file name can hold with its suffixes.
    pub const BYTES_MAX: usize = 128;

    /// The id, or `None` when the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_valid(text).then(|| Self(text.into()))
    }

    /// Whether the text is an id; costs no allocation, so that a table can be asked with the bare `&str`.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    }

    /// The id as text that is shared, not copied.
    #[must_use]
    pub fn share(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The family of a client, fixed at the upgrade by its WebSocket subprotocol (the "dialect").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientType {
    /// A browser (or React Native) client of jitsi/rtcstats: `stats-entry` data are lines.
    Rtcstats,
    /// Jigasi, the SIP gateway.
    Jigasi,
    /// Jicofo, the conference focus.
    Jicofo,
    /// Jibri, the recorder.
    Jibri,
    /// Jitsi Videobridge.
    Jvb,
    /// Everything else, `3.1_LEGACY` and the empty protocol included.
    Unsupported,
}

impl ClientType {
    /// All values, in the order in which the subprotocol is searched for them.
    pub const ALL: [Self; 6] =
        [Self::Rtcstats, Self::Jigasi, Self::Jicofo, Self::Jibri, Self::Jvb, Self::Unsupported];

    /// The type for a subprotocol, by substring, first match wins (reference: connection set-up).
    #[must_use]
    pub fn of_protocol(protocol: &str) -> Self {
        const TABLE: [(&str, ClientType); 5] = [
            ("3.1_STANDARD", ClientType::Rtcstats),
            ("JIGASI", ClientType::Jigasi),
            ("JICOFO", ClientType::Jicofo),
            ("JIBRI", ClientType::Jibri),
            ("JVB", ClientType::Jvb),
        ];
        TABLE.iter().find(|(part, _)| protocol.contains(part)).map_or(Self::Unsupported, |(_, kind)| *kind)
    }

    /// The name as it stands in dumps and results, for instance `RTCSTATS_CLIENT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtcstats => "RTCSTATS_CLIENT",
            Self::Jigasi => "JIGASI_CLIENT",
            Self::Jicofo => "JICOFO_CLIENT",
            Self::Jibri => "JIBRI_CLIENT",
            Self::Jvb => "JVB_CLIENT",
            Self::Unsupported => "UNSUPPORTED_CLIENT",
        }
    }
}

/// What a connection said about itself: the seven documented members of a dump's first line, and what its token said.
///
/// Kept as long as the connection, so it is small: what many connections say alike is kept once ([`Common`]), and `path`
/// and `url` are put together when they are written. Cloning shares everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Request target with its query, without the session id that stands in it; a token is already removed.
    target: Rc<Target>,
    /// The valid session id in its URL.
    pub session_id: Option<SessionId>,
    /// The rest.
    pub agent: Rc<Agent>,
    /// What its token says about the session; in the first line it is a part of the member `server`.
    pub claims: Option<Rc<Claims>>,
}

/// A request target around the session id in it: all in one room have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Target {
    before: Box<str>,
    /// `None` when the id does not stand in it as it is.
    behind: Option<Box<str>>,
}

/// The program at the other end and the page that it shows: the same for most connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The `Origin` header, or empty.
    pub origin: Box<str>,
    /// The `User-Agent` header, or empty.
    pub user_agent: Box<str>,
    /// The selected WebSocket subprotocol, or empty.
    pub client_protocol: Box<str>,
    /// `chrome_standard`, `firefox`, `safari` or `unsupported`.
    pub stats_format: &'static str,
    /// [`ClientType::name`].
    pub client_type: &'static str,
}

impl ConnectionInfo {
    /// What a connection said that asked for `path`, in which `session_id` was found.
    #[must_use]
    pub fn new(path: &str, session_id: Option<SessionId>, agent: Rc<Agent>) -> Self {
        let (before, behind) = match session_id.as_ref().and_then(|id| path.split_once(id.as_str())) {
            Some((before, behind)) => (before, Some(behind.into())),
            None => (path, None),
        };
        let target = Rc::new(Target { before: before.into(), behind });
        Self { target, session_id, agent, claims: None }
    }

    /// Request target with its query.
    #[must_use]
    pub fn path(&self) -> String {
        let Target { before, behind } = &*self.target;
        match (behind, &self.session_id) {
            (Some(behind), Some(id)) => format!("{before}{id}{behind}"),
            (None, _) | (_, None) => before.to_string(),
        }
    }
}

/// The members in the order in which they are documented.
impl Serialize for ConnectionInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(7))?;
        let path = self.path();
        members.serialize_entry("path", &path)?;
        members.serialize_entry("origin", &self.agent.origin)?;
        members.serialize_entry("url", &format!("{}{path}", self.agent.origin))?;
        members.serialize_entry("userAgent", &self.agent.user_agent)?;
        members.serialize_entry("clientProtocol", &self.agent.client_protocol)?;
        members.serialize_entry("statsFormat", self.agent.stats_format)?;
        members.serialize_entry("clientType", self.agent.client_type)?;
        members.end()
    }
}

/// What connections say alike, once; and what was derived from it.
#[derive(Debug, Default)]
pub struct Common {
    agents: Shared<Agent>,
    targets: Shared<Target>,
    /// The statistics formats of user agents that came before.
    formats: HashMap<Box<str>, &'static str>,
}

impl Common {
    /// User agents whose formats are kept, and how long they may be: some 50 KiB.
    const FORMATS_MAX: usize = 128;
    const FORMAT_KEY_BYTES_MAX: usize = 400;

    /// What `derive` says of a user agent; it is asked once for each that comes often.
    pub fn stats_format(&mut self, user_agent: &str, derive: fn(&str) -> &'static str) -> &'static str {
        if let Some(format) = self.formats.get(user_agent) {
            return format;
        }
        let format = derive(user_agent);
        if user_agent.len() <= Self::FORMAT_KEY_BYTES_MAX {
            if self.formats.len() >= Self::FORMATS_MAX {
                self.formats.clear();
            }
            self.formats.insert(user_agent.into(), format);
        }
        format
    }

    /// The same with as little memory as possible.
    #[must_use]
    pub fn share(&mut self, info: ConnectionInfo) -> ConnectionInfo {
        ConnectionInfo {
            target: self.targets.share(info.target),
            agent: self.agents.share(info.agent),
            ..info
        }
    }

    /// Forgets what a crowd that has gone said about itself. `sessions`: how many there are; each has one connection, or had
    /// one, and most connections have one.
    pub fn shrink(&mut self, sessions: usize) {
        self.targets.shrink(2 * sessions);
        self.agents.shrink(2 * sessions);
    }
}

/// Every value that a connection has, once. Those that no connection has any more are forgotten when there are twice as many
/// as were needed at the last look, and in [`Common::shrink`].
#[derive(Debug)]
struct Shared<T> {
    known: HashSet<Rc<T>>,
    /// How many are known when those without a connection are next forgotten.
    full_at: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), full_at: 0 }
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// Not worth a look before there are so many.
    const FORGOTTEN_MIN: usize = 64;

    /// The one that is equal to `value`.
    fn share(&mut self, value: Rc<T>) -> Rc<T> {
        if let Some(known) = self.known.get(&value) {
            return Rc::clone(known);
        }
        if self.known.len() >= self.full_at.max(Self::FORGOTTEN_MIN) {
            self.forget();
        }
        self.known.insert(Rc::clone(&value));
        value
    }

    fn forget(&mut self) {
        self.known.retain(|known| Rc::strong_count(known) > 1);
        // Looking at all of them costs a constant for each that comes.
        self.full_at = self.known.len() * 2;
        if self.known.len() < self.known.capacity() / 8 {
            self.known.shrink_to_fit();
        }
    }

    fn shrink(&mut self, connections_max: usize) {
        if self.known.len() > connections_max.max(Self::FORGOTTEN_MIN) {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule of our contract, at its edges.
    #[test]
    fn session_ids() {
        let longest = "a".repeat(SessionId::BYTES_MAX);
        for good in ["a", "_", "-", "9c93a447-c9f8-489d-87ca-21263dec0642", "A_1", longest.as_str()] {
            assert_eq!(SessionId::parse(good).map(|id| id.to_string()), Some(good.to_owned()));
        }
        let too_long = "a".repeat(SessionId::BYTES_MAX + 1);
        for bad in ["", ".", "..", "a.b", "a/b", "a b", "a\n", "a\0", "\u{e4}", "%61", too_long.as_str()] {
            assert_eq!(SessionId::parse(bad), None, "{bad:?}");
        }
    }

    /// The names of the reference, as they stand in dumps.
    #[test]
    fn client_types_have_the_names_of_the_reference() {
        for (client, expected) in [
            (ClientType::Rtcstats, "RTCSTATS_CLIENT"),
            (ClientType::Jigasi, "JIGASI_CLIENT"),
            (ClientType::Jicofo, "JICOFO_CLIENT"),
            (ClientType::Jibri, "JIBRI_CLIENT"),
            (ClientType::Jvb, "JVB_CLIENT"),
            (ClientType::Unsupported, "UNSUPPORTED_CLIENT"),
        ] {
            assert_eq!(client.name(), expected);
        }
    }

    fn agent(user_agent: &str) -> Rc<Agent> {
        Rc::new(Agent {
            origin: "https://a".into(),
            user_agent: user_agent.into(),
            client_protocol: "".into(),
            stats_format: "safari",
            client_type: "RTCSTATS_CLIENT",
        })
    }

    #[test]
    fn what_is_alike_is_kept_once_and_forgotten_with_its_last_connection() {
        let mut common = Common::default();
        let first = common.share(ConnectionInfo::new("/room", None, agent("one")));
        let again = common.share(ConnectionInfo::new("/room", None, agent("one")));
        assert!(Rc::ptr_eq(&first.agent, &again.agent) && Rc::ptr_eq(&first.target, &again.target));
        for n in 0..1000 {
            let other = common.share(ConnectionInfo::new(&format!("/{n}"), None, agent(&n.to_string())));
            assert!(!Rc::ptr_eq(&first.agent, &other.agent));
            let known = common.agents.known.len().max(common.targets.known.len());
            assert!(known <= 2 * Shared::<Agent>::FORGOTTEN_MIN, "{known}");
        }
        let again = common.share(ConnectionInfo::new("/room", None, agent("one")));
        assert!(Rc::ptr_eq(&first.agent, &again.agent));
    }

    #[test]
    fn nothing_is_kept_of_a_crowd_that_has_gone() {
        let mut common = Common::default();
        let share =
            |n: usize| common.share(ConnectionInfo::new(&format!("/{n}"), None, agent(&n.to_string())));
        let crowd: Vec<_> = (0..1000).map(share).collect();
        common.shrink(500);
        assert_eq!(common.targets.known.len(), 1000);
        drop(crowd);
        common.shrink(0);
        assert_eq!((common.targets.known.len(), common.agents.known.capacity()), (0, 0));
    }

    #[test]
    fn sessions_of_one_room_share_their_target_and_keep_their_path() {
        let mut common = Common::default();
        let mut info = |id: &str, path: &str| {
            common.share(ConnectionInfo::new(path, SessionId::parse(id), agent("one")))
        };
        let one = info("id-1", "/p?q=1&statsSessionId=id-1&isReconnect=true");
        let two = info("id-2", "/p?q=1&statsSessionId=id-2&isReconnect=true");
        assert!(Rc::ptr_eq(&one.target, &two.target));
        assert_eq!(two.path(), "/p?q=1&statsSessionId=id-2&isReconnect=true");
        // The id stands there twice, in another form, or not at all.
        for path in ["/id-3/id-3?statsSessionId=id-3", "/?statsSessionId=%69d-3", "/id-"] {
            assert_eq!(info("id-3", path).path(), path);
        }
        let written = serde_json::to_string(&info("x", "/p?s=x&q=1")).unwrap();
        assert_eq!(
            written,
            r#"{"path":"/p?s=x&q=1","origin":"https://a","url":"https://a/p?s=x&q=1","userAgent":"one","clientProtocol":"","statsFormat":"safari","clientType":"RTCSTATS_CLIENT"}"#
        );
    }
}
