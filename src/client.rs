//! Who is at the other end: the client family and what a connection said about itself at its upgrade.
//!
//! Plain data and pure functions. Rules: protocol of the reference server, section "connection set-up".

use std::borrow::Borrow;
use std::fmt;

use serde::Serialize;

use crate::auth::Claims;

/// The name of a session, chosen by its client: `^[A-Za-z0-9_-]{1,128}$`.
///
/// Whoever holds one may use it as a file name; nothing else that a peer sends is ever part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Box<str>);

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

/// The seven documented members of a dump's first line, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionInfo {
    /// Request target with its query; a token is already removed.
    pub path: String,
    /// The `Origin` header, or empty.
    pub origin: String,
    /// `origin` followed by `path`.
    pub url: String,
    /// The `User-Agent` header, or empty.
    pub user_agent: String,
    /// The selected WebSocket subprotocol, or empty.
    pub client_protocol: String,
    /// `chrome_standard`, `firefox`, `safari` or `unsupported`.
    pub stats_format: &'static str,
    /// [`ClientType::name`].
    pub client_type: &'static str,
    /// What its token says about the session; in the first line it is a part of the member `server`.
    #[serde(skip)]
    pub claims: Option<Claims>,
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
}
