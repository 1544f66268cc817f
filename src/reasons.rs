//! Closed sets: why a connection ended, why one was refused, why a request was not taken, how a session was joined, why
//! archived dumps went.
//!
//! Plain enums without payload. Each knows its metric label; nothing that a peer sends ever becomes a label.
//! Rules: our contract for close codes and refusals, RFC 6455 7.4.

/// Declares an enum whose values all have a metric label.
macro_rules! labelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order; `value as usize` indexes this list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The metric label and log word of this value.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

pub(crate) use labelled;

labelled! {
    /// Why an upgraded connection ended.
    CloseReason {
        /// The peer sent a close frame.
        PeerClosed => "peer_closed",
        /// The byte stream ended without a close frame.
        EndOfStream => "end_of_stream",
        /// The transport failed, usually a reset.
        TransportError => "transport_error",
        /// RFC 6455 was violated (1002).
        ProtocolError => "protocol_error",
        /// A text message or close reason was not UTF-8 (1007).
        InvalidUtf8 => "invalid_utf8",
        /// A message was larger, or in more fragments, than allowed (1009).
        MessageTooBig => "message_too_big",
        /// Too many bad requests in a minute (1008).
        BadRequests => "bad_requests",
        /// Nothing was heard from the peer for too long.
        Idle => "idle",
        /// The peer does not read what is sent to it.
        SlowReader => "slow_reader",
        /// A newer connection took the session over (3001).
        Replaced => "replaced",
        /// Its client has gone on with the session under another id (1001).
        MovedOn => "moved_on",
        /// A reconnect to a session which its client had ended (3001).
        EndedByClient => "ended_by_client",
        /// Sending again would fail again (3002).
        Hopeless => "hopeless",
        /// The dump could not be written (1013).
        StorageError => "storage_error",
        /// Token or origin was refused (1008).
        Unauthorized => "unauthorized",
        /// More memory for incomplete messages than allowed (1013).
        Overload => "overload",
        /// The server is shutting down (1001).
        Shutdown => "shutdown",
    }
}

impl CloseReason {
    /// The WebSocket close code that we send for this reason; `None` where nothing can or need be sent.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        match self {
            Self::PeerClosed | Self::EndOfStream | Self::TransportError | Self::SlowReader => None,
            // If it was somebody else's all the same, that one comes back.
            Self::Shutdown | Self::Idle | Self::MovedOn => Some(1001),
            Self::ProtocolError => Some(1002),
            Self::InvalidUtf8 => Some(1007),
            Self::BadRequests | Self::Unauthorized => Some(1008),
            Self::MessageTooBig => Some(1009),
            Self::StorageError | Self::Overload => Some(1013),
            Self::Replaced | Self::EndedByClient => Some(3001),
            Self::Hopeless => Some(3002),
        }
    }

    /// Whether this end counts in `rtcstats_websocket_connection_error`: reset, protocol violation, timeout.
    #[must_use]
    pub fn is_error(self) -> bool {
        match self {
            Self::PeerClosed | Self::Replaced | Self::MovedOn | Self::EndedByClient | Self::Shutdown => false,
            Self::EndOfStream
            | Self::TransportError
            | Self::ProtocolError
            | Self::InvalidUtf8
            | Self::MessageTooBig
            | Self::BadRequests
            | Self::Idle
            | Self::SlowReader
            | Self::Hopeless
            | Self::StorageError
            | Self::Unauthorized
            | Self::Overload => true,
        }
    }
}

labelled! {
    /// Why a connection did not become a WebSocket.
    Refusal {
        /// The head is not HTTP/1.x, or the upgrade is faulty (400).
        BadRequest => "bad_request",
        /// No such resource (404).
        NotFound => "not_found",
        /// A known resource with another method (405).
        MethodNotAllowed => "method_not_allowed",
        /// The head did not arrive in time (408).
        HeadTimeout => "head_timeout",
        /// Another WebSocket version than 13 (426).
        UpgradeRequired => "upgrade_required",
        /// The head is larger or has more fields than allowed (431).
        HeadTooLarge => "head_too_large",
        /// Too many connections of this address, or too many handshakes (429).
        TooManyRequests => "too_many_requests",
        /// Too many connections in all (503).
        TooManyConnections => "too_many_connections",
        /// Too many sessions in all for a new one (503).
        TooManySessions => "too_many_sessions",
        /// No descriptors left (503).
        NoDescriptors => "no_descriptors",
        /// The server is shutting down (503).
        Draining => "draining",
        /// The dump file system has too little space (503).
        DiskFull => "disk_full",
        /// The dump folder cannot be written, or is gone (503).
        DiskUnwritable => "disk_unwritable",
        /// TLS could not be agreed upon, or its first records were broken.
        Tls => "tls",
        /// The peer vanished, or closed, before its head was complete.
        Vanished => "vanished",
    }
}

impl Refusal {
    /// The HTTP status with which this refusal is answered; `None` when nobody is there to read it.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        match self {
            Self::BadRequest => Some(400),
            Self::NotFound => Some(404),
            Self::MethodNotAllowed => Some(405),
            Self::HeadTimeout => Some(408),
            Self::UpgradeRequired => Some(426),
            Self::TooManyRequests => Some(429),
            Self::HeadTooLarge => Some(431),
            Self::TooManyConnections
            | Self::TooManySessions
            | Self::NoDescriptors
            | Self::Draining
            | Self::DiskFull
            | Self::DiskUnwritable => Some(503),
            Self::Tls | Self::Vanished => None,
        }
    }
}

labelled! {
    /// How the rest of a session, which came under another id, was known.
    JoinedBy {
        /// Its first entry was in the dump already.
        Proof => "proof",
        /// Its first entry has exactly the next number, and no other session is in question.
        Number => "number",
    }
}

labelled! {
    /// Why something was removed from the archive.
    RemovalReason {
        /// Its day is older than `archive.max_age_days`.
        Age => "age",
        /// The archive is larger than `archive.max_bytes`.
        Size => "size",
    }
}

labelled! {
    /// Why a request inside a WebSocket message was not taken.
    RequestFault {
        /// The message is not JSON from here on.
        NotJson => "not_json",
        /// The document is no object.
        NotObject => "not_object",
        /// `statsSessionId` is missing, no string, or not `^[A-Za-z0-9_-]{1,128}$`.
        BadSessionId => "bad_session_id",
        /// `type` is missing, no string, or unknown.
        UnknownType => "unknown_type",
        /// `data` is missing or empty where the type needs it.
        MissingData => "missing_data",
        /// `data` has a type or content that the request type does not allow.
        BadData => "bad_data",
        /// It would open a session, and there are too many in all.
        TooManySessions => "too_many_sessions",
        /// The session has reached its size limit.
        SessionTooBig => "session_too_big",
        /// The session's dump cannot be written.
        StorageError => "storage_error",
    }
}
