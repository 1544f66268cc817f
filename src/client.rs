//! Who is at the other end: the client family and what a connection said about itself at its upgrade.
//!
//! Plain data and pure functions. Rules: protocol of the reference server, section "connection set-up".

use serde::Serialize;

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
}
