//! Records: what a document becomes in the tables of the data team.
//!
//! Pure: a [`Document`] in, blocks of JSON Lines out; appending them to files is the worker's business. Owns the
//! tables' names, their columns and the ids of their rows.
//!
//! An id is derived from the dump's archive id and what tells the row apart within the dump, so that processing a
//! dump again gives the same rows, and two dumps of one session do not share any. Times that are unknown are null.
//! Rules: feature records 2 to 7; our contract 3 and 6.

mod row;

use crate::extract::{Document, DocumentFeatures, Features, PeerConnectionFeatures, TrackFeatures, Value};
use crate::privacy::Cutter;
use row::{Row, RowId, sql_time};

/// What the rows say besides the document.
#[derive(Debug, Clone, Copy)]
pub struct RecordsContext<'a> {
    /// `appEnv` of the meeting row.
    pub app_environment: &'a str,
    /// Archive id of the dump, `<name>.gz`.
    pub dump_id: &'a str,
    /// When the dump was last written, in ms since 1970: `createDate`.
    pub last_write_ms: f64,
}

/// A table; its file is `<name>.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// One row per dump.
    Meeting,
    /// One row per peer connection.
    PeerConnection,
    /// One row per track and direction.
    Track,
    /// One row per recorded expression.
    FaceLandmarks,
    /// One row per change of the dominant speaker.
    MeetingEvent,
    /// One row per pinged participant.
    EndToEndPing,
}

impl Table {
    /// All tables, in the order in which their rows are written.
    pub const ALL: [Self; 6] = [
        Self::Meeting,
        Self::PeerConnection,
        Self::Track,
        Self::FaceLandmarks,
        Self::MeetingEvent,
        Self::EndToEndPing,
    ];

    /// The table's name, without `.jsonl`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meeting => "rtcstats",
            Self::PeerConnection => "rtcstats_pc_metrics",
            Self::Track => "rtcstats_track_metrics",
            Self::FaceLandmarks => "rtcstats_face_landmarks",
            Self::MeetingEvent => "rtcstats_meeting_event",
            Self::EndToEndPing => "rtcstats_e2e_ping",
        }
    }
}

/// The rows of a dump in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The table.
    pub table: Table,
    /// JSON Lines: one object per row, each with its `\n`.
    pub lines: Vec<u8>,
    /// The rows' ids, in order; each stands in its line as the member `id`.
    pub ids: Vec<String>,
}

/// The rows of a document, only tables that get any. None for back ends and dumps without a usable first line. With a `cutter`
/// they are without addresses: they are cut as they are written, so that nothing is held twice.
#[must_use]
pub fn rows(document: &Document, context: &RecordsContext<'_>, mut cutter: Option<&mut Cutter>) -> Vec<Rows> {
    let DocumentFeatures::Rtcstats(features) = document.features() else { return Vec::new() };
    let builder = Builder::new(document, features, context);
    let tables = Table::ALL.map(|table| {
        let mut rows =
            RowsWriter { table, lines: Vec::new(), ids: Vec::new(), cutter: cutter.as_deref_mut() };
        builder.fill(&mut rows);
        rows.finish()
    });
    tables.into_iter().filter(|rows| !rows.ids.is_empty()).collect()
}

/// A table's rows while they are written.
struct RowsWriter<'a> {
    table: Table,
    lines: Vec<u8>,
    ids: Vec<String>,
    cutter: Option<&'a mut Cutter>,
}

impl RowsWriter<'_> {
    fn push(&mut self, row: Row) {
        let id = match &mut self.cutter {
            Some(cutter) => {
                let mut writer = cutter.write_to(&mut self.lines);
                let id = row.write(&mut writer);
                writer.end();
                id
            }
            None => row.write(&mut self.lines),
        };
        self.ids.push(id);
    }

    fn finish(self) -> Rows {
        let Self { table, lines, ids, cutter: _ } = self;
        Rows { table, lines, ids }
    }
}

/// What all rows of a document share.
struct Builder<'a> {
    document: &'a Document,
    features: &'a Features,
    context: &'a RecordsContext<'a>,
    create_date: Value,
    conference_start: Value,
}

impl<'a> Builder<'a> {
    fn new(document: &'a Document, features: &'a Features, context: &'a RecordsContext<'a>) -> Self {
        let create_date = sql_time(context.last_write_ms);
        let conference_start = sql_time(features.conference_start_time);
        Self { document, features, context, create_date, conference_start }
    }

    fn fill(&self, rows: &mut RowsWriter<'_>) {
        match rows.table {
            Table::Meeting => self.meeting(rows),
            Table::PeerConnection => {
                for (name, connection) in &self.features.aggregates {
                    self.peer_connection(rows, name, connection);
                }
            }
            Table::Track => {
                for (name, connection) in &self.features.aggregates {
                    self.tracks(rows, name, connection);
                }
            }
            Table::FaceLandmarks => {
                for (ordinal, landmarks) in self.features.face_landmarks.iter().enumerate() {
                    let mut row = self.event_row(rows.table, ordinal);
                    row.set("timestamp", landmarks.timestamp.clone());
                    row.set("faceLandmarks", landmarks.face_landmarks.clone());
                    rows.push(row);
                }
            }
            Table::MeetingEvent => {
                for (ordinal, event) in self.features.dominant_speaker_events.iter().enumerate() {
                    let mut row = self.event_row(rows.table, ordinal);
                    row.set("timestamp", Value::Number(event.timestamp));
                    row.set("type", Value::text(event.kind));
                    rows.push(row);
                }
            }
            Table::EndToEndPing => {
                for (endpoint, ping) in self.features.e2e_pings.iter().flatten() {
                    let mut row = Row::new(self.id(rows.table).with(endpoint).finish());
                    row.set("statsSessionId", self.metadata("clientId"));
                    row.set("remoteEndpointId", Value::text(endpoint.clone()));
                    row.set("remoteRegion", ping.remote_region.clone());
                    row.set("rtt", ping.rtt.clone());
                    rows.push(row);
                }
            }
        }
    }

    fn meeting(&self, rows: &mut RowsWriter<'_>) {
        let features = self.features;
        let deployment = |name: &str| {
            features.deployment_info.as_ref().and_then(|info| info.get(name)).cloned().unwrap_or_default()
        };
        let browser = features.browser_info.as_ref();
        let mut row = Row::new(self.id(rows.table).finish());
        row.set("appEnv", Value::text(self.context.app_environment));
        row.set("createDate", self.create_date.clone());
        row.set("statsSessionId", self.metadata("clientId"));
        row.set("displayName", self.metadata("userId"));
        for name in ["crossRegion", "environment", "region", "releaseNumber", "shard", "userRegion"] {
            row.set(name, deployment(name));
        }
        row.set("meetingName", self.metadata("conferenceId"));
        row.set("meetingUrl", self.metadata("conferenceUrl"));
        row.set("meetingUniqueId", self.metadata("sessionId"));
        row.set("endpointId", self.metadata("endpointId"));
        row.set("conferenceStartTime", self.conference_start.clone());
        row.set("sessionStartTime", sql_time(features.session_start_time));
        row.set("sessionEndTime", sql_time(features.session_end_time));
        row.number("sessionDurationMs", features.metrics.session_duration_ms);
        row.number("conferenceDurationMs", features.metrics.conference_duration_ms);
        row.number("dominantSpeakerChanges", features.dominant_speaker_changes);
        row.number("speakerTime", features.speaker_time);
        const SENTIMENT_COLUMNS: [&str; 7] = [
            "sentimentAngry",
            "sentimentDisgusted",
            "sentimentFearful",
            "sentimentHappy",
            "sentimentNeutral",
            "sentimentSad",
            "sentimentSurprised",
        ];
        for (column, sum) in SENTIMENT_COLUMNS.iter().zip(features.sentiment.0) {
            row.number(column, sum);
        }
        if let Some(browser) = browser {
            row.set("os", Value::text(&*browser.os));
            row.set("browserName", Value::text(&*browser.name));
            row.set("browserVersion", Value::text(&*browser.version));
        }
        for name in ["isBreakoutRoom", "breakoutRoomId", "parentStatsSessionId", "tenant", "jaasClientId"] {
            row.set(name, self.metadata(name));
        }
        rows.push(row);
    }

    fn peer_connection(&self, rows: &mut RowsWriter<'_>, name: &str, connection: &PeerConnectionFeatures) {
        let mut row = Row::default();
        row.set("pcname", Value::text(name));
        row.id(self.connection_id(name));
        row.set("createDate", self.create_date.clone());
        row.set("statsSessionId", self.metadata("clientId"));
        row.set("meetingUniqueId", self.metadata("sessionId"));
        row.count("dtlsErrors", connection.dtls_errors);
        row.count("dtlsFailure", connection.dtls_failure);
        row.count("sdpCreateFailure", connection.sdp_create_failure);
        row.count("sdpSetFailure", connection.sdp_set_failure);
        row.set("isP2P", connection.is_p2p.clone());
        row.set("usesRelay", connection.uses_relay.map_or(Value::Null, Value::Bool));
        row.count("iceReconnects", connection.ice_reconnects);
        row.number("pcSessionDurationMs", connection.pc_session_duration_ms);
        row.set("connectionFailed", Value::Bool(connection.connection_failed));
        row.set("lastIceFailure", connection.last_ice_failure.into());
        row.set("lastIceDisconnect", connection.last_ice_disconnect.into());
        let sums = &connection.track_aggregates;
        row.number("receivedPacketsLostPct", sums.received_packets_lost_pct);
        row.number("sentPacketsLostPct", sums.sent_packets_lost_pct);
        row.number("totalPacketsReceived", sums.total_packets_received);
        row.number("totalPacketsSent", sums.total_packets_sent);
        row.number("totalReceivedPacketsLost", sums.total_received_packets_lost);
        row.number("totalSentPacketsLost", sums.total_sent_packets_lost);
        row.number("meanRtt", connection.transport_aggregates.mean_rtt);
        if let Some(video) = &connection.inbound_video_experience {
            let (upper, lower) = (&video.upper_bound_aggregates, &video.lower_bound_aggregates);
            row.known_number("meanUpperBoundFrameHeight", upper.mean_frame_height);
            row.known_number("meanUpperBoundFramesPerSecond", upper.mean_frames_per_second);
            row.known_number("meanLowerBoundFrameHeight", lower.mean_frame_height);
            row.known_number("meanLowerBoundFramesPerSecond", lower.mean_frames_per_second);
        }
        row.set("conferenceStartTime", self.conference_start.clone());
        row.set("tenant", self.metadata("tenant"));
        row.set("jaasClientId", self.metadata("jaasClientId"));
        row.set("meetingUrl", self.metadata("conferenceUrl"));
        if let Some(pair) = &connection.candidate_pair_data {
            row.set("localAddress", pair.local.address.clone());
            row.set("localCandidateType", pair.local.candidate_type.clone());
            row.set("localProtocol", pair.local.protocol.clone());
            row.set("remoteAddress", pair.remote.address.clone());
            row.set("remoteCandidateType", pair.remote.candidate_type.clone());
            row.set("remoteProtocol", pair.remote.protocol.clone());
        }
        rows.push(row);
    }

    fn tracks(&self, rows: &mut RowsWriter<'_>, name: &str, connection: &PeerConnectionFeatures) {
        let connection_id = self.connection_id(name);
        // Rows that nothing else tells apart are numbered.
        let mut ordinals = std::collections::HashMap::new();
        for (direction, tracks) in
            [("received", &connection.tracks.receiver_tracks), ("send", &connection.tracks.sender_tracks)]
        {
            for track in tracks {
                let key = self
                    .id(rows.table)
                    .with(name)
                    .with(direction)
                    .with(&track.media_type)
                    .with(&track.ssrc.key_text())
                    .with(&Value::from(track.start_time).key_text());
                let ordinal = ordinals.entry(key.clone()).or_insert(0_usize);
                let id = key.with(&ordinal.to_string()).finish();
                *ordinal += 1;
                let row = self.track(id, &connection_id, connection, direction, track);
                rows.push(row);
            }
        }
    }

    fn track(
        &self,
        id: String,
        connection_id: &str,
        connection: &PeerConnectionFeatures,
        direction: &str,
        track: &TrackFeatures,
    ) -> Row {
        let mut row = Row::new(id);
        row.set("createDate", self.create_date.clone());
        row.set("pcId", Value::text(connection_id));
        row.set("statsSessionId", self.metadata("clientId"));
        row.set("meetingUniqueId", self.metadata("sessionId"));
        row.set("isP2P", connection.is_p2p.clone());
        row.set("direction", Value::text(direction));
        row.set("mediaType", Value::text(&*track.media_type));
        row.set("ssrc", track.ssrc.clone());
        row.set("packets", track.packets.clone());
        row.set("packetsLost", track.packets_lost.clone());
        row.number("packetsLostPct", track.packets_lost_pct);
        row.number("packetsLostVariance", track.packets_lost_variance);
        row.number("concealedPercentage", track.concealed_percentage);
        row.set("conferenceStartTime", self.conference_start.clone());
        row.set("jaasClientId", self.metadata("jaasClientId"));
        row.set("meetingUrl", self.metadata("conferenceUrl"));
        row.set("tenant", self.metadata("tenant"));
        for (column, time) in [("startTime", track.start_time), ("endTime", track.end_time)] {
            if let Some(ms) = time.truthy() {
                row.set(column, sql_time(ms));
            }
        }
        row
    }

    /// A row of a table whose rows only their order tells apart.
    fn event_row(&self, table: Table, ordinal: usize) -> Row {
        let mut row = Row::new(self.id(table).with(&ordinal.to_string()).finish());
        row.set("statsSessionId", self.metadata("clientId"));
        row
    }

    fn connection_id(&self, name: &str) -> String {
        self.id(Table::PeerConnection).with(name).finish()
    }

    fn id(&self, table: Table) -> RowId {
        RowId::default().with(self.context.dump_id).with(table.name())
    }

    fn metadata(&self, name: &str) -> Value {
        self.document.metadata().get(name).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::{ExtractLimits, Options, extract};

    const DUMP: &str = r#"["connectionInfo",null,{"clientProtocol":"3.1_STANDARD","userAgent":"Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"},1700000000000]
["identity",null,{"endpointId":"me","displayName":"Ann","confName":"room","confID":"https://h/room","deploymentInfo":{"shard":"s1","releaseNumber":7}},1700000000100]
["dominantSpeaker",null,{"dominantSpeakerEndpoint":"me"},1700000001500]
["faceLandmarks",null,{"faceLandmarks":"happy","duration":2,"timestamp":5},1700000001600]
["e2eRtt",null,{"remoteEndpointId":"you","remoteRegion":"eu","rtt":12.5},1700000001700]
["getstats","PC_0",{"a":{"type":"inbound-rtp","ssrc":5,"kind":"audio","packetsReceived":10,"packetsLost":1},"b":{"type":"remote-inbound-rtp","ssrc":6,"kind":"audio","packetsLost":0,"roundTripTime":0.25}},1700000002999.75]
"#;

    fn document(dump: &str) -> Document {
        let options = Options {
            strict: true,
            client_id: "s".into(),
            dump_path: "p".into(),
            now_ms: 1.0,
            limits: ExtractLimits::default(),
        };
        extract(dump.as_bytes(), &options).unwrap()
    }

    fn rows_of(dump: &str, dump_id: &str) -> Vec<Rows> {
        let context = RecordsContext { app_environment: "test", dump_id, last_write_ms: 1_700_000_009_000.0 };
        rows(&document(dump), &context, None)
    }

    /// The rows of a table, without their ids, as text.
    fn table(rows: &[Rows], table: Table) -> String {
        let rows = rows.iter().find(|rows| rows.table == table).unwrap();
        let mut text = String::from_utf8(rows.lines.clone()).unwrap();
        for id in &rows.ids {
            assert!(text.contains(&format!("\"id\":\"{id}\"")));
            text = text.replace(id, "ID");
        }
        assert_eq!(text.lines().count(), rows.ids.len());
        text
    }

    #[test]
    fn each_table_gets_its_rows() {
        let rows = rows_of(DUMP, "s.gz");
        assert_eq!(
            table(&rows, Table::Meeting),
            concat!(
                r#"{"id":"ID","appEnv":"test","createDate":"2023-11-14 22:13:29","statsSessionId":"s","displayName":"Ann","releaseNumber":7,"shard":"s1","#,
                r#""meetingName":"room","meetingUrl":"https://h/room","endpointId":"me","conferenceStartTime":null,"#,
                r#""sessionStartTime":"2023-11-14 22:13:21","sessionEndTime":"2023-11-14 22:13:22","sessionDurationMs":1499.75,"conferenceDurationMs":0,"#,
                r#""dominantSpeakerChanges":1,"speakerTime":1499.75,"sentimentAngry":0,"sentimentDisgusted":0,"sentimentFearful":0,"sentimentHappy":2,"#,
                r#""sentimentNeutral":0,"sentimentSad":0,"sentimentSurprised":0,"os":"Linux 64-bit","browserName":"Firefox","browserVersion":"120.0","#,
                r#""tenant":"","jaasClientId":""}"#,
                "\n"
            )
        );
        assert_eq!(
            table(&rows, Table::PeerConnection),
            concat!(
                r#"{"pcname":"PC_0","id":"ID","createDate":"2023-11-14 22:13:29","statsSessionId":"s","dtlsErrors":0,"dtlsFailure":0,"#,
                r#""sdpCreateFailure":0,"sdpSetFailure":0,"isP2P":null,"usesRelay":null,"iceReconnects":0,"pcSessionDurationMs":0,"#,
                r#""connectionFailed":false,"lastIceFailure":0,"lastIceDisconnect":0,"receivedPacketsLostPct":10,"sentPacketsLostPct":0,"#,
                r#""totalPacketsReceived":10,"totalPacketsSent":0,"totalReceivedPacketsLost":1,"totalSentPacketsLost":0,"meanRtt":0.25,"#,
                r#""conferenceStartTime":null,"tenant":"","jaasClientId":"","meetingUrl":"https://h/room"}"#,
                "\n"
            )
        );
        let tracks = table(&rows, Table::Track);
        assert!(tracks.starts_with(r#"{"id":"ID","createDate":"2023-11-14 22:13:29","pcId":""#), "{tracks}");
        assert!(tracks.lines().next().unwrap().ends_with(concat!(
            r#""statsSessionId":"s","isP2P":null,"direction":"received","mediaType":"audio","ssrc":5,"packets":10,"packetsLost":1,"packetsLostPct":10,"#,
            r#""packetsLostVariance":0,"concealedPercentage":0,"conferenceStartTime":null,"jaasClientId":"","meetingUrl":"https://h/room","tenant":"","#,
            r#""startTime":"2023-11-14 22:13:22","endTime":"2023-11-14 22:13:22"}"#
        )), "{tracks}");
        assert_eq!(
            table(&rows, Table::FaceLandmarks),
            "{\"id\":\"ID\",\"statsSessionId\":\"s\",\"timestamp\":5,\"faceLandmarks\":\"happy\"}\n"
        );
        assert_eq!(
            table(&rows, Table::MeetingEvent),
            "{\"id\":\"ID\",\"statsSessionId\":\"s\",\"timestamp\":1700000001500,\"type\":\"DOMINANT_SPEAKER_STARTED\"}\n"
        );
        assert_eq!(
            table(&rows, Table::EndToEndPing),
            "{\"id\":\"ID\",\"statsSessionId\":\"s\",\"remoteEndpointId\":\"you\",\"remoteRegion\":\"eu\",\"rtt\":12.5}\n"
        );
    }

    #[test]
    fn ids_are_the_same_again_and_others_for_another_dump() {
        let ids = |rows: &[Rows]| -> Vec<String> { rows.iter().flat_map(|rows| rows.ids.clone()).collect() };
        let (first, again, other) = (rows_of(DUMP, "s.gz"), rows_of(DUMP, "s.gz"), rows_of(DUMP, "s_1.gz"));
        assert_eq!(first, again);
        let mut all = [ids(&first), ids(&other)].concat();
        assert_eq!(all.len(), 14);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 14);
    }

    #[test]
    fn tracks_that_look_the_same_have_their_own_ids() {
        let line = r#"["setVideoType",null,{"ssrc":5,"videoType":"TYPE"},1700000002000]"#;
        let stats = DUMP.lines().last().unwrap();
        let (camera, desktop) = (line.replace("TYPE", "camera"), line.replace("TYPE", "desktop"));
        let stats_then = stats.replace("1700000002999.75", "1700000002000");
        let dump = [DUMP, &camera, &stats_then, &desktop, &stats_then, &camera, &stats_then, ""]
            .join("\n")
            .replace("\n\n", "\n");
        let rows = rows_of(&dump, "s.gz");
        let tracks = rows.iter().find(|rows| rows.table == Table::Track).unwrap();
        let mut ids = tracks.ids.clone();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), tracks.ids.len()), (5, 5));
    }

    #[test]
    fn back_ends_have_no_rows() {
        let dump = "[\"connectionInfo\",null,{\"clientProtocol\":\"1.0_JVB\"}]\n";
        assert_eq!(rows_of(dump, "s.gz"), []);
    }
}
