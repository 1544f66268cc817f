//! The fields of reports that a rule reads; all others are skipped in the line.

/// Declares the fields with their names.
macro_rules! fields {
    ($($field:ident => $name:literal,)+) => {
        /// A field of a report.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(in crate::extract) enum Field { $($field,)+ }

        impl Field {
            /// The field of that name.
            #[inline]
            pub(in crate::extract) fn of(name: &[u8]) -> Option<Self> {
                match TABLE.get(slot(name)) {
                    Some(Some((field, known))) if known.as_bytes() == name => Some(*field),
                    _ => None,
                }
            }
        }

        const NAMED: &[(Field, &str)] = &[$((Field::$field, $name),)+];
    };
}

fields! {
    Id => "id",
    SelectedCandidatePairId => "selectedCandidatePairId",
    CurrentRoundTripTime => "currentRoundTripTime",
    RoundTripTime => "roundTripTime",
    GoogActiveConnection => "googActiveConnection",
    GoogRtt => "googRtt",
    Selected => "selected",
    LocalCandidateId => "localCandidateId",
    RemoteCandidateId => "remoteCandidateId",
    CandidateType => "candidateType",
    Address => "address",
    Port => "port",
    Protocol => "protocol",
    RelayProtocol => "relayProtocol",
    MediaType => "mediaType",
    Kind => "kind",
    RemoteId => "remoteId",
    PacketsLost => "packetsLost",
    PacketsSent => "packetsSent",
    PacketsReceived => "packetsReceived",
    Ssrc => "ssrc",
    TotalSamplesReceived => "totalSamplesReceived",
    ConcealedSamples => "concealedSamples",
    FrameHeight => "frameHeight",
    FramesPerSecond => "framesPerSecond",
    GoogFrameHeightReceived => "googFrameHeightReceived",
    GoogFrameRateOutput => "googFrameRateOutput",
}

impl Field {
    /// The field's bit in a set of fields.
    #[inline]
    pub(in crate::extract) fn bit(self) -> u32 {
        1 << (self as u8)
    }
}

/// Slots of the table: enough that the names fall into different ones.
const SLOTS: usize = 64;

/// A hash of a name's length, its first, its last and its fourth last byte, chosen so that no two names share a slot.
#[inline]
#[expect(clippy::indexing_slicing, reason = "the places are below the length, and `get` is not const")]
const fn slot(name: &[u8]) -> usize {
    let length = name.len();
    if length < 2 {
        return 0;
    }
    let first = name[0] as usize;
    let fourth = name[length.saturating_sub(4)] as usize;
    let last = name[length - 1] as usize;
    ((length * 7) ^ (first * 5) ^ (fourth * 7) ^ (last * 31)) % SLOTS
}

/// Name -> field, at the slot of the name. Two names in one slot stop the compilation.
#[expect(clippy::indexing_slicing, reason = "runs in the compiler")]
static TABLE: [Option<(Field, &str)>; SLOTS] = {
    let mut table = [None; SLOTS];
    let mut at = 0;
    while at < NAMED.len() {
        let (field, name) = NAMED[at];
        let slot = slot(name.as_bytes());
        assert!(table[slot].is_none(), "two names share a slot: choose other factors");
        table[slot] = Some((field, name));
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_finds_its_field_and_nothing_else_does() {
        for (field, name) in NAMED {
            assert_eq!(Field::of(name.as_bytes()), Some(*field));
            assert_eq!(Field::of(name.to_uppercase().as_bytes()), None);
            assert_eq!(Field::of(&name.as_bytes()[1..]), None, "{name}");
        }
        for name in ["", "x", "timestamp", "bytesReceived", "codecId", "__proto__", "constructor"] {
            assert_eq!(Field::of(name.as_bytes()), None, "{name}");
        }
        let bits = NAMED.iter().fold(0_u32, |bits, (field, _)| bits | field.bit());
        assert_eq!(bits.count_ones() as usize, NAMED.len());
    }
}
