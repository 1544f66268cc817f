//! Extraction as a whole, on dumps made here: expected documents worked out by hand, properties, limits.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may end them")]

#[path = "../benches/extract/dumps.rs"]
mod dumps;

use std::io::{self, BufReader, Read};

use proptest::prelude::*;
use rtcstats_server::extract::{
    ArchiveKeys, Document, DocumentFeatures, ExtractError, ExtractLimits, Features, LineError, Options,
    extract,
};
use serde_json::{Value, json};

const CHROME: &str = r#"["connectionInfo",null,{"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36","clientProtocol":"3.1_STANDARD"},1700000000000]"#;

fn options(strict: bool) -> Options {
    Options {
        strict,
        client_id: "id".to_owned(),
        dump_path: "path".to_owned(),
        now_ms: 5.0,
        limits: ExtractLimits::default(),
    }
}

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn tolerant(dump: &str) -> Document {
    extract(dump.as_bytes(), &options(false)).unwrap()
}

fn json_of(document: &Document) -> Value {
    serde_json::to_value(document).unwrap()
}

#[expect(clippy::panic, reason = "the dumps here are a client's")]
fn features(document: &Document) -> &Features {
    match document.features() {
        DocumentFeatures::Rtcstats(features) => features,
        other @ (DocumentFeatures::None | DocumentFeatures::Backend { .. }) => panic!("{other:?}"),
    }
}

/// Gives the bytes in pieces of these sizes, over and over.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()].min(self.rest.len()).min(buffer.len());
        self.turn += 1;
        let (head, tail) = self.rest.split_at(size);
        buffer[..size].copy_from_slice(head);
        self.rest = tail;
        Ok(size)
    }
}

#[test]
fn a_chrome_dump_gives_what_was_worked_out_by_hand() {
    // Two stats entries: RTTs 0.1 and 0.2; received 100 then 200 packets, lost 1 then 4; sent 50 of which 5 were lost.
    let dump = lines(&[
        CHROME,
        r#"["identity",null,{"endpointId":"me","confID":"https://8x8.vc/vpaas-magic-cookie-x/a/../b","deploymentInfo":{"shard":"s"}},1]"#,
        r#"["constraints","PC_0",{"optional":[{"rtcStatsSFUP2P":true}]},1700000001000]"#,
        r#"["onconnectionstatechange","PC_0","connected",1700000001100]"#,
        r#"["getstats","PC_0",{"p":{"type":"candidate-pair","currentRoundTripTime":0.1,"localCandidateId":"l","remoteCandidateId":"r"},"l":{"candidateType":"relay","address":"1.2.3.4","port":5,"protocol":"udp","relayProtocol":"tls"},"t":{"type":"transport","selectedCandidatePairId":"p"},"i":{"type":"inbound-rtp","kind":"video","ssrc":11,"packetsReceived":100,"packetsLost":1,"frameHeight":360,"framesPerSecond":20},"o":{"type":"outbound-rtp","kind":"video","ssrc":12,"packetsSent":40,"remoteId":"q"},"q":{"type":"remote-inbound-rtp","packetsLost":2}},1700000002000]"#,
        r#"["getstats","PC_0",{"p":{"currentRoundTripTime":0.2},"l":{"timestamp":0},"t":{},"i":{"packetsReceived":200,"packetsLost":4,"frameHeight":720},"o":{"packetsSent":50},"q":{"packetsLost":5}},1700000003000]"#,
        r#"["onconnectionstatechange","PC_0","connected",1700000003500]"#,
        r#"["other",null,null,1700000004000]"#,
    ]);
    let expected = json!({
        "isP2P": true, "usesRelay": true, "dtlsErrors": 0, "dtlsFailure": 0, "sdpCreateFailure": 0, "sdpSetFailure": 0,
        "lastIceFailure": 0, "lastIceDisconnect": 0,
        "candidatePairData": {
            "id": "p", "isUsingRelay": true, "localCandidateType": "relay", "localAddress": "1.2.3.4", "localPort": 5,
            "localProtocol": "tls", "remoteCandidateType": "", "remoteAddress": "", "remotePort": "", "remoteProtocol": "",
        },
        "tracks": {
            "receiverTracks": [{
                "mediaType": "video", "ssrc": 11, "packets": 200, "packetsLost": 4, "packetsLostPct": 2,
                "packetsLostVariance": 0, "concealedPercentage": 0, "startTime": 1_700_000_002_000_u64, "endTime": 1_700_000_003_000_u64,
            }],
            "senderTracks": [{
                "mediaType": "video", "ssrc": 12, "packets": 50, "packetsLost": 5, "packetsLostPct": 10,
                "packetsLostVariance": 0, "concealedPercentage": 0, "startTime": 1_700_000_002_000_u64, "endTime": 1_700_000_003_000_u64,
            }],
        },
        "trackAggregates": {
            "totalSentPacketsLost": 5, "totalPacketsSent": 50, "sentPacketsLostPct": 10,
            "totalReceivedPacketsLost": 4, "totalPacketsReceived": 200, "receivedPacketsLostPct": 2,
        },
        "transportAggregates": { "meanRtt": 0.15 },
        "iceReconnects": 1, "pcSessionDurationMs": 2400, "connectionFailed": false,
        "inboundVideoExperience": {
            "upperBoundAggregates": { "meanFrameHeight": 540, "meanFramesPerSecond": 20 },
            "lowerBoundAggregates": { "meanFrameHeight": 540, "meanFramesPerSecond": 20 },
        },
    });
    let document = json_of(&tolerant(&dump));
    assert_eq!(document["features"]["aggregates"]["PC_0"], expected);
    assert_eq!(document["features"]["metrics"]["sessionDurationMs"], json!(3000));
    assert_eq!(document["features"]["metrics"]["statsRequestCount"], json!(2));
    assert_eq!(document["dumpMetadata"]["tenant"], json!("vpaas-magic-cookie-x"));
    assert_eq!(document["dumpMetadata"]["jaasMeetingFqn"], json!("vpaas-magic-cookie-x/b"));
    assert_eq!(document.get("problems"), None);
    assert_eq!(document.get("missing"), None);
}

#[test]
fn generated_dumps_are_without_problems_and_the_modes_agree() {
    for dump in [dumps::chrome(20, 5), dumps::safari(20, 5), dumps::firefox(20, 5), dumps::jvb(20)] {
        let strict = extract(dump.as_bytes(), &options(true)).unwrap();
        assert_eq!(json_of(&strict), json_of(&tolerant(&dump)));
        assert_eq!(strict.facts().lines, dump.lines().count() as u64);
    }
    let document = tolerant(&dumps::chrome(20, 5));
    let (name, connection) = &features(&document).aggregates[0];
    assert_eq!(&**name, "PC_0");
    assert_eq!(connection.tracks.receiver_tracks.len(), 10);
    assert_eq!(connection.tracks.sender_tracks.len(), 3);
    assert_eq!(connection.transport_aggregates.mean_rtt, 0.03);
    let video = connection.inbound_video_experience.unwrap().upper_bound_aggregates;
    assert_eq!((video.mean_frame_height, video.mean_frames_per_second), (360.0, 30.0));
}

#[test]
fn a_dump_cut_anywhere_gives_all_complete_lines() {
    // Without the long lines, and with a user agent that is quickly recognised: this runs for every byte.
    let made =
        dumps::chrome(2, 1).replace("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36", "");
    let short = made.lines().filter(|line| line.len() < 1000 || line.starts_with("[\"getstats"));
    let mut dump: String = short.map(|line| format!("{line}\n")).collect();
    dump += "[\"e2eRtt\",null,{\"remoteEndpointId\":\"é🦀\",\"rtt\":5},1700000030000,12]\n";
    let bytes = dump.as_bytes();
    // What the complete lines alone give, by where the last of them ends.
    let mut whole = (0, json_of(&tolerant("")));
    for cut in 0..bytes.len() {
        if cut > 0 && bytes[cut - 1] == b'\n' {
            extract(&bytes[..cut], &options(true)).expect("complete lines are good");
            whole = (cut, json_of(&extract(&bytes[..cut], &options(false)).unwrap()));
        }
        let mut document = json_of(&extract(&bytes[..cut], &options(false)).unwrap());
        let problems = document.as_object_mut().unwrap().remove("problems");
        if bytes.get(cut) == Some(&b'\n') {
            // Only the terminator is missing: the line counts.
            assert_eq!(problems, None, "cut at {cut}");
            continue;
        }
        assert_eq!(document, whole.1, "cut at {cut}");
        assert_eq!(problems.is_some(), cut > whole.0, "cut at {cut}");
    }
}

#[test]
fn a_bad_line_costs_only_itself() {
    let good =
        lines(&[CHROME, r#"["identity",null,{"confName":"a"},1]"#, r#"["x",null,null,1700000001000,1]"#]);
    let bad = lines(&[
        CHROME,
        "",
        r#"["identity",null,{"confName":"a"},1]"#,
        r#"["identity",null,{"confName":"b"}"#,
        "null",
        "\u{feff}[]",
        r#"["x",null,null,1700000001000,1]"#,
        r#"["dominantSpeaker",null,{}]"#,
        r#"["faceLandmarks",null,null,1700000000500]"#,
    ]);
    let (good, bad) = (tolerant(&good), tolerant(&bad));
    assert_eq!(bad.problems().total(), 6);
    let problems: Vec<_> = bad.problems().first().iter().map(|p| (p.line, p.error.to_string())).collect();
    let expected = [
        (2, "not JSON: ends inside a value"),
        (4, "not JSON: ends inside a value"),
        (5, "entry is no array"),
        (6, "not JSON: unexpected byte 0xef at offset 0"),
        (8, "dominantSpeaker: timestamp is missing"),
        (9, "faceLandmarks: data is null or missing"),
    ];
    assert_eq!(problems, expected.map(|(line, error)| (line, error.to_owned())));
    let (mut good, mut bad) = (json_of(&good), json_of(&bad));
    assert!(bad.as_object_mut().unwrap().remove("problems").is_some());
    // The last line's clock counts, and so does that it was there.
    let sentiment = bad["features"]["metrics"]["sentimentRequestCount"].take();
    assert_eq!(sentiment, json!(1));
    good["features"]["metrics"]["sentimentRequestCount"].take();
    let bytes = bad["features"]["metrics"]["sentimentRequestBytes"].take();
    assert_eq!(bytes, json!(82));
    good["features"]["metrics"]["sentimentRequestBytes"].take();
    assert_eq!(good["features"]["sessionStartTime"].take(), json!(1_700_000_001_000_u64));
    assert_eq!(bad["features"]["sessionStartTime"].take(), json!(1_700_000_001_000_u64));
    assert_eq!(good, bad);
}

#[test]
fn null_reports_cost_only_themselves() {
    let dump = lines(&[
        CHROME,
        r#"["getstats","PC_0",{"a":{"type":"inbound-rtp","kind":"audio","ssrc":1,"packetsReceived":5},"b":{"type":"inbound-rtp","kind":"audio","ssrc":2,"packetsReceived":6}},1700000001000]"#,
        r#"["getstats","PC_0",{"a":null,"b":{"packetsReceived":7}},1700000002000]"#,
    ]);
    let document = tolerant(&dump);
    assert_eq!(document.problems().total(), 1);
    let (_, connection) = &features(&document).aggregates[0];
    let packets: Vec<_> =
        connection.tracks.receiver_tracks.iter().map(|track| track.packets.to_number()).collect();
    assert_eq!(packets, [5.0, 7.0]);
    assert!(matches!(extract(dump.as_bytes(), &options(true)), Err(ExtractError::Line { line: 3, .. })));
}

/// What goes wrong with a connection is counted, each kind by itself; Firefox reports a DTLS failure also when ICE was lost.
#[test]
fn failures_of_a_connection_are_counted_by_kind() {
    let firefox = CHROME
        .replace("Chrome/120.0.0.0 Safari/537.36", "")
        .replace("AppleWebKit/537.36 (KHTML, like Gecko)", "Gecko/20100101 Firefox/121.0");
    let events = [
        r#"["create","PC_0",{"iceServers":[{"urls":["stun:a","turn:b"]},{"urls":"stun:c"},{}]},1]"#,
        r#"["oniceconnectionstatechange","PC_0","checking",10]"#,
        r#"["oniceconnectionstatechange","PC_0","disconnected",20]"#,
        r#"["oniceconnectionstatechange","PC_0","failed",30]"#,
        r#"["createOfferOnFailure","PC_0","why",31]"#,
        r#"["createAnswerOnFailure","PC_0","why",32]"#,
        r#"["setLocalDescriptionOnFailure","PC_0","why",33]"#,
        r#"["setRemoteDescriptionOnFailure","PC_0","why",34]"#,
        r#"["setRemoteDescriptionOnFailure","PC_0","why",35]"#,
        r#"["ondtlserror","PC_0","why",36]"#,
        r#"["ondtlsstatechange","PC_0","connected",37]"#,
        r#"["ondtlsstatechange","PC_0","failed",38]"#,
        r#"["onconnectionstatechange","PC_0","failed",39]"#,
        r#"["ondtlsstatechange","PC_1","failed",40]"#,
    ];
    for (first, with_ice_lost) in [(CHROME, 1), (firefox.as_str(), 0)] {
        let document = tolerant(&lines(&[&[first], events.as_slice()].concat()));
        assert_eq!(document.problems().total(), 0, "{:?}", document.problems());
        let document = json_of(&document);
        let found = &document["features"]["aggregates"]["PC_0"];
        for (name, expected) in [
            ("dtlsErrors", 1),
            ("dtlsFailure", with_ice_lost),
            ("sdpCreateFailure", 2),
            ("sdpSetFailure", 3),
            ("lastIceDisconnect", 20),
            ("lastIceFailure", 30),
        ] {
            assert_eq!(found[name], json!(expected), "{name} after {first}");
        }
        assert_eq!(found["connectionFailed"], json!(true));
        assert_eq!(document["features"]["aggregates"]["PC_1"]["dtlsFailure"], json!(1), "{first}");
    }
}

/// A video type closes the track that had another one and begins a new one, on every connection but those of others.
#[test]
fn video_types_begin_new_tracks() {
    let document = json_of(&tolerant(&lines(&[
        CHROME,
        r#"["create","callstats",{},1]"#,
        r#"["getstats","PC_0",{"i":{"type":"inbound-rtp","kind":"video","ssrc":11,"packetsReceived":5}},1700000001000]"#,
        r#"["setVideoType",null,{"ssrc":11,"videoType":"camera"},1700000002000]"#,
        r#"["setVideoType",null,{"ssrc":11,"videoType":"camera"},1700000003000]"#,
        r#"["setVideoType",null,{"ssrc":12,"videoType":"desktop"},1700000004000]"#,
        r#"["getstats","PC_0",{"i":{"packetsReceived":9},"j":{"type":"inbound-rtp","kind":"video","ssrc":12,"packetsReceived":1}},1700000005000]"#,
    ])));
    let tracks = document["features"]["aggregates"]["PC_0"]["tracks"]["receiverTracks"].as_array().unwrap();
    let seen: Vec<_> = tracks
        .iter()
        .map(|track| {
            let seconds = |name: &str| track[name].as_u64().unwrap() / 1000 - 1_700_000_000;
            (
                track["ssrc"].as_u64().unwrap(),
                track["packets"].as_u64().unwrap(),
                seconds("startTime"),
                seconds("endTime"),
            )
        })
        .collect();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [(11, 5, 1, 2), (11, 9, 2, 5), (12, 1, 4, 5)], "{seen:?}");
}

/// The conference may have begun before the session; what is not a time begins now, and 0 tells nothing.
#[test]
fn the_start_of_the_conference_is_what_the_client_says() {
    let last = r#"["after",null,null,1700000009000]"#;
    for (starts, start, duration) in [
        (&[r#"["conferenceStartTimestamp",null,1700000004000,1]"#][..], 1_700_000_004_000_u64, 5_000_u64),
        (&[r#"["conferenceStartTimestamp",null,"1700000008000",1]"#], 1_700_000_008_000, 1_000),
        (
            &[r#"["conferenceStartTimestamp",null,7,1]"#, r#"["conferenceStartTimestamp",null,0,1]"#],
            7,
            1_700_000_008_993,
        ),
        // The test's clock stands at 5.
        (&[r#"["conferenceStartTimestamp",null,"soon",1]"#], 5, 1_700_000_008_995),
    ] {
        let document = json_of(&tolerant(&lines(&[&[CHROME], starts, &[last]].concat())));
        assert_eq!(document["features"]["conferenceStartTime"], json!(start), "{starts:?}");
        assert_eq!(document["features"]["metrics"]["conferenceDurationMs"], json!(duration), "{starts:?}");
    }
}

/// A back end's line is an object; anything else is passed over, but for `null`, which the reference trips over.
#[test]
fn a_back_ends_line_is_an_object() {
    let first = r#"["connectionInfo",null,{"userAgent":"node","clientProtocol":"3.0_JVB"},1700000000000]"#;
    let last = r#"{"statsSessionId":"a","type":"stats-entry","data":{},"timestamp":1700000009000}"#;
    for (line, problems) in [("5", 0), (r#""text""#, 0), ("[1,{}]", 0), ("null", 1), ("{", 1), ("[1", 1)] {
        let document = tolerant(&lines(&[first, line, last]));
        assert_eq!(document.problems().total(), problems, "{line}: {:?}", document.problems());
        assert!(
            matches!(document.features(), DocumentFeatures::Backend { session_end_time, .. } if *session_end_time == 1_700_000_009_000.0),
            "{line}: {:?}",
            document.features()
        );
    }
}

/// Entries of a shape that their type does not allow are told by reason, and cost nothing but themselves.
#[test]
fn misshapen_entries_are_told_by_reason() {
    const UNSUPPORTED: &str =
        r#"["connectionInfo",null,{"userAgent":"curl/8.4.0","clientProtocol":"3.1_STANDARD"},1700000000000]"#;
    let stats = r#"["getstats","PC_0",{"a":{"type":"inbound-rtp","ssrc":1}},2]"#;
    for (before, line, problem) in [
        (&[CHROME][..], r#"["create","PC_0",null,2]"#, Some("create: data is null or missing")),
        (&[CHROME], r#"["create","PC_0",{"iceServers":{}},2]"#, Some("create: iceServers is no array")),
        (&[CHROME], r#"["create","PC_0",{"iceServers":[null]},2]"#, Some("create: an ICE server is null")),
        (
            &[CHROME],
            r#"["create","PC_0",{"iceServers":[{"urls":null}]},2]"#,
            Some("create: urls of an ICE server is null or an object"),
        ),
        (
            &[CHROME],
            r#"["create","PC_0",{"iceServers":[{"urls":["stun:a",7]}]},2]"#,
            Some("create: a URL of an ICE server is no string"),
        ),
        (&[CHROME], r#"["create","PC_0",{"iceServers":null},2]"#, None),
        (&[CHROME], r#"["setVideoType",null,null,2]"#, Some("setVideoType: data is null or missing")),
        (&[CHROME], r#"["identity",null,null,2]"#, Some("identity: data is null or missing")),
        (&[CHROME], r#"["getstats","PC_0",null,2]"#, Some("getstats: data is null or missing")),
        (&[CHROME], r#"["getstats","PC_0",0,2]"#, None),
        // Nobody evaluates the statistics of an unknown browser, but they are taken apart all the same.
        (&[UNSUPPORTED], r#"["getstats","PC_0",null,2]"#, None),
        (&[UNSUPPORTED, stats], r#"["getstats","PC_0",null,3]"#, Some("getstats: data is null or missing")),
        (&[UNSUPPORTED, stats], r#"["getstats","PC_0",{"a":null},3]"#, Some("getstats: a report is null")),
        (&[UNSUPPORTED, stats], r#"["getstats","PC_0",{"a":null,"a":{}},3]"#, None),
        (&[UNSUPPORTED, stats], stats, None),
    ] {
        let after = r#"["after",null,null,1700000009000]"#;
        let document = tolerant(&lines(&[before, &[line, after]].concat()));
        let found: Vec<_> = document.problems().first().iter().map(|one| one.error.to_string()).collect();
        assert_eq!(found, Vec::from_iter(problem.map(str::to_owned)), "{line} after {before:?}");
        assert_eq!(json_of(&document)["features"]["sessionEndTime"], json!(1_700_000_009_000_u64), "{line}");
    }
}

#[test]
fn without_a_usable_first_line_there_is_a_document_that_says_so() {
    for first in
        ["", "[\"create\",null,{}]", "{}", "null", "[\"connectionInfo\",null,null]", "[\"connectionInfo\""]
    {
        let document = json_of(&tolerant(&lines(&[first, "[\"x\",null,null,1]"])));
        assert_eq!(document["features"], json!({}), "{first}");
        assert_eq!(document["dumpMetadata"], json!({ "dumpPath": "path", "clientId": "id" }), "{first}");
        assert_eq!(document["problems"]["total"], json!(1), "{first}");
    }
}

#[test]
fn gaps_in_the_numbers_are_told() {
    let entry = |number: u64| format!("[\"x\",\"PC_0\",null,1700000001000,{number}]");
    let first = |server: &str| {
        CHROME.replace("\"clientProtocol\"", &format!("\"server\":{server},\"clientProtocol\""))
    };
    let dump = |server: &str, numbers: &[u64]| {
        let mut all = vec![first(server)];
        all.extend(numbers.iter().map(|number| entry(*number)));
        all.push("[\"x\",1700000001000,21]".to_owned());
        all.push("[\"x\",null,1,2,3,1700000001000,22]".to_owned());
        all.join("\n")
    };
    let document =
        tolerant(&dump("{\"id\":\"s\",\"continuesFrom\":10,\"part\":1}", &[11, 12, 15, 17, 18, 20]));
    assert_eq!(
        (document.missing().total(), document.missing().ranges()),
        (4, &[(13, 14), (16, 16), (19, 19)][..])
    );
    assert_eq!(
        json_of(&document)["missing"],
        json!({ "total": 4, "ranges": [[13, 14], [16, 16], [19, 19]] })
    );
    assert_eq!(json_of(&document)["dumpMetadata"]["continuesFrom"], json!(10));
    let facts = document.facts();
    assert_eq!((facts.server.id.as_deref(), facts.server.part), (Some("s"), Some(1)));
    assert_eq!(facts.first_clock_ms, Some(1.7e12));
    let strict = extract(dump("{\"continuesFrom\":10}", &[12]).as_bytes(), &options(true)).unwrap();
    assert_eq!(json_of(&strict).get("missing"), None);
    assert_eq!(json_of(&strict)["dumpMetadata"].get("continuesFrom"), None);
}

#[test]
fn a_legacy_clients_numbers_are_in_its_data() {
    let first = CHROME.replace("3.1_STANDARD", "3.1_LEGACY");
    let dump = lines(&[
        &first,
        r#"{"statsSessionId":"s","type":"identity","data":["identity",null,{},1700000001000,1],"timestamp":5}"#,
        r#"{"statsSessionId":"s","type":"stats-entry","data":"[\"getstats\",\"PC_0\",{\"a\":1},1700000001000,4]","timestamp":6}"#,
        r#"{"statsSessionId":"s","type":"stats-entry","data":"{\"a\":[1700000001000,9]}","timestamp":6}"#,
    ]);
    let document = tolerant(&dump);
    assert_eq!(document.missing().ranges(), [(2, 3)]);
    assert_eq!(json_of(&document)["features"], json!({ "sessionStartTime": 5, "sessionEndTime": 6 }));
}

#[test]
fn the_archive_adds_where_the_dump_is() {
    let keys = ArchiveKeys {
        dump_path: "2023-11-14/s_1.gz",
        dump_id: "s_1.gz",
        base_dump_id: "s",
        fallback_ms: 99.0,
    };
    let mut document = tolerant(&lines(&[CHROME, "[\"x\",null,null,1700000001000]"]));
    document.set_archive_keys(&keys);
    let metadata = &json_of(&document)["dumpMetadata"];
    assert_eq!(metadata["dumpPath"], json!("2023-11-14/s_1.gz"));
    assert_eq!((&metadata["dumpId"], &metadata["baseDumpId"]), (&json!("s_1.gz"), &json!("s")));
    assert_eq!(metadata["startDate"], json!(1_700_000_001_000_u64));
    let mut document = tolerant("");
    document.set_archive_keys(&keys);
    assert_eq!(json_of(&document)["dumpMetadata"]["endDate"], json!(99));
}

#[test]
fn everything_that_could_grow_is_limited() {
    let limits = ExtractLimits {
        line_bytes_max: 600,
        nesting_max: 10,
        peer_connections_max: 2,
        tracks_max: 2,
        reports_max: 3,
    };
    let track = |ssrc: u64| {
        format!(
            "\"r{ssrc}\":{{\"type\":\"inbound-rtp\",\"kind\":\"audio\",\"ssrc\":{ssrc},\"packetsReceived\":5}}"
        )
    };
    let stats = |pc: &str, reports: &[String]| {
        format!("[\"getstats\",\"{pc}\",{{{}}},1700000001000]", reports.join(","))
    };
    let cases = [
        (format!("[\"x\",null,\"{}\"]", "y".repeat(600)), "line of 613 bytes is above 600"),
        (format!("[\"x\",null,{}{}]", "[".repeat(10), "]".repeat(10)), "not JSON: nesting depth is above 10"),
        (stats("PC_2", &[]), "more than 2 peer connections"),
        (stats("PC_0", &[1, 2, 3].map(track)), "more than 2 tracks of a peer connection"),
        (stats("PC_0", &[1, 2, 3, 4].map(track)), "more than 3 reports of a stats entry"),
    ];
    for (line, error) in cases {
        let dump = lines(&[
            CHROME,
            &stats("PC_0", &[]),
            &stats("PC_1", &[]),
            &line,
            "[\"x\",null,null,1700000009000]",
        ]);
        let run = |strict: bool| extract(dump.as_bytes(), &Options { limits, ..options(strict) });
        let document = run(false).unwrap();
        assert_eq!(document.problems().total(), 1, "{error}");
        assert_eq!(document.problems().first()[0].error.to_string(), error);
        assert_eq!(features(&document).session_end_time, 1_700_000_009_000.0);
        assert!(features(&document).aggregates.len() <= 2);
        assert!(
            matches!(run(true), Err(ExtractError::Line { line: 4, reason }) if reason.to_string() == error)
        );
    }
}

#[test]
fn names_of_built_in_members_are_ordinary_names() {
    let dump = lines(&[
        CHROME,
        r#"["__proto__","__proto__",{"a":1},1700000001000]"#,
        r#"["constructor","constructor",null,1700000001000]"#,
        r#"["getstats","toString",{"__proto__":{"type":"inbound-rtp","kind":"audio","ssrc":"__proto__","packetsReceived":5}},1700000002000]"#,
        r#"["e2eRtt",null,{"remoteEndpointId":"__proto__","rtt":5},1700000003000]"#,
        r#"["dominantSpeaker",null,{"dominantSpeakerEndpoint":"constructor"},1700000003000]"#,
        r#"["identity",null,{"deploymentInfo":{"__proto__":{"x":1}},"__proto__":{"confName":"no"}},1700000003000]"#,
    ]);
    let document = json_of(&extract(dump.as_bytes(), &options(true)).unwrap());
    let names: Vec<_> = document["features"]["aggregates"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["__proto__", "constructor", "toString"]);
    assert_eq!(document["features"]["metrics"]["otherRequestCount"], json!(2));
    assert_eq!(document["features"]["e2epings"]["__proto__"], json!({ "rtt": 5 }));
    assert_eq!(document["features"]["deploymentInfo"]["__proto__"], json!({ "x": 1 }));
    assert_eq!(document["dumpMetadata"].get("conferenceId"), None);
    assert_eq!(
        document["features"]["aggregates"]["toString"]["tracks"]["receiverTracks"][0]["ssrc"],
        json!("__proto__")
    );
}

#[test]
fn reports_may_come_and_go_in_any_order() {
    // The same reports in three orders, with one gone in between: the base must not depend on the guessed order.
    let report = |name: &str, packets: u64| {
        format!(
            "\"{name}\":{{\"type\":\"inbound-rtp\",\"kind\":\"audio\",\"ssrc\":\"{name}\",\"packetsReceived\":{packets}}}"
        )
    };
    let orders = [["a", "b", "c", "10", "2"], ["2", "10", "a", "b", "c"], ["c", "b", "a", "2", "10"]];
    let mut documents = Vec::new();
    for order in orders {
        let all: Vec<_> = order.iter().map(|name| report(name, 10)).collect();
        let moved = order.iter().filter(|name| **name != "b");
        let moved: Vec<_> = moved.map(|name| format!("\"{name}\":{{\"packetsReceived\":20}}")).collect();
        let back: Vec<_> = order
            .iter()
            .map(|name| if *name == "b" { report("b", 5) } else { format!("\"{name}\":{{\"timestamp\":0}}") })
            .collect();
        let entries = [all, moved, back]
            .map(|reports| format!("[\"getstats\",\"PC_0\",{{{}}},1700000001000]", reports.join(",")));
        let dump = lines(&[CHROME, &entries[0], &entries[1], &entries[2]]);
        let document = tolerant(&dump);
        assert_eq!(document.problems().total(), 0);
        let (_, connection) = &features(&document).aggregates[0];
        let mut tracks: Vec<_> = connection
            .tracks
            .receiver_tracks
            .iter()
            .map(|t| (t.ssrc.key_text(), t.packets.to_number()))
            .collect();
        assert_eq!(tracks.iter().take(2).map(|(ssrc, _)| &**ssrc).collect::<Vec<_>>(), ["2", "10"]);
        tracks.sort_by(|a, b| a.0.cmp(&b.0));
        documents.push(tracks);
    }
    assert_eq!(documents[0], documents[1]);
    assert_eq!(documents[0], documents[2]);
    assert_eq!(
        documents[0].iter().map(|(_, packets)| *packets).collect::<Vec<_>>(),
        [20.0, 20.0, 20.0, 5.0, 20.0]
    );
}

#[test]
fn repeated_reports_and_fields_count_once() {
    let dump = lines(&[
        CHROME,
        r#"["getstats","PC_0",{"a":{"type":"inbound-rtp","kind":"audio","ssrc":1,"packetsReceived":5},"a":{"type":"inbound-rtp","kind":"audio","ssrc":2,"packetsReceived":6,"packetsReceived":7}},1700000001000]"#,
        r#"["getstats","PC_0",{"a":{"packetsReceived":8,"ssrc":3},"a":{"packetsReceived":9},"n":{"ssrc":4,"packetsReceived":1,"kind":"audio"},"n":{"ssrc":5,"packetsReceived":1,"kind":"audio"}},1700000002000]"#,
    ]);
    let document = extract(dump.as_bytes(), &options(true)).unwrap();
    let (_, connection) = &features(&document).aggregates[0];
    let tracks: Vec<_> = connection
        .tracks
        .receiver_tracks
        .iter()
        .map(|t| (t.ssrc.to_number(), t.packets.to_number()))
        .collect();
    assert_eq!(tracks, [(2.0, 9.0), (5.0, 1.0)]);
}

#[test]
fn a_report_named_timestamp_is_one_in_the_first_line_only() {
    // Found by comparison with the plain wording: the guess for the next report took it for one.
    let report = |packets: u64| {
        format!("{{\"type\":\"inbound-rtp\",\"kind\":\"audio\",\"ssrc\":1,\"packetsReceived\":{packets}}}")
    };
    let line = |packets| {
        format!("[\"getstats\",\"PC_0\",{{\"a\":{{}},\"timestamp\":{}}},1700000001000]", report(packets))
    };
    let document = tolerant(&lines(&[CHROME, &line(5), &line(6)]));
    assert_eq!(features(&document).aggregates[0].1.track_aggregates.total_packets_received, 5.0);
}

#[test]
fn a_report_that_becomes_interesting_later_is_evaluated() {
    // Found by comparison with the plain wording: the list of such reports was made with the first line only.
    let dump = lines(&[
        CHROME,
        r#"["getstats","PC_0",{"a":{"kind":"audio"}},1700000001000]"#,
        r#"["getstats","PC_0",{"a":{"ssrc":1,"packetsReceived":7}},1700000002000]"#,
    ]);
    let document = tolerant(&dump);
    assert_eq!(features(&document).aggregates[0].1.track_aggregates.total_packets_received, 7.0);
}

#[test]
fn problems_carry_no_text_of_the_peer() {
    let dump = lines(&[
        CHROME,
        "[\"secret\" 5]",
        "[\"getstats\",\"secret\",null,1]",
        "[\"identity\",null,null,\"secret\"]",
    ]);
    let document = tolerant(&dump);
    assert_eq!(document.problems().total(), 3);
    assert!(!json_of(&document)["problems"].to_string().contains("secret"));
}

/// Entries of three connections, each in its own order.
fn connection_lines() -> Vec<Vec<String>> {
    ["PC_0", "PC_1", "other"]
        .map(|pc| {
            let mut out = vec![
                format!(
                    "[\"constraints\",\"{pc}\",{{\"optional\":[{{\"rtcStatsSFUP2P\":true}}]}},1700000001000]"
                ),
                format!("[\"onconnectionstatechange\",\"{pc}\",\"connected\",1700000001000]"),
            ];
            let dump = dumps::chrome(3, 1).replace("PC_0", pc);
            out.extend(dump.lines().filter(|line| line.starts_with("[\"getstats\"")).map(str::to_owned));
            out.push(format!("[\"oniceconnectionstatechange\",\"{pc}\",\"failed\",1700000091000]"));
            out
        })
        .to_vec()
}

fn aggregates(lines: &[String]) -> Vec<(String, Value)> {
    let document = tolerant(&format!("{CHROME}\n{}\n", lines.join("\n")));
    assert_eq!(document.problems().total(), 0);
    let aggregates = json_of(&document)["features"]["aggregates"].take();
    let mut all: Vec<_> = aggregates.as_object().unwrap().clone().into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

type Fields = serde_json::Map<String, Value>;

/// Delta decompression as the specification words it, with nothing clever: feature extraction 8.1, order of section 2.
#[derive(Default)]
struct PlainBase {
    /// Id, fields if it is an object, whether it counts as true.
    reports: Vec<(String, Option<Fields>, bool)>,
    is_there: bool,
}

impl PlainBase {
    /// Applies a line; reports that are null count as not mentioned from the second line on.
    fn apply(&mut self, line: &[(String, Value)]) {
        let truthy =
            |value: &Value| !matches!(value, Value::Null) && *value != json!(0) && *value != json!("");
        // In an object the last of repeated keys wins, at the place of the first.
        let mut mentioned: Vec<(String, Value)> = Vec::new();
        for (id, value) in line {
            match mentioned.iter_mut().find(|(known, _)| known == id) {
                Some((_, known)) => *known = value.clone(),
                None => mentioned.push((id.clone(), value.clone())),
            }
        }
        if self.is_there {
            mentioned.retain(|(id, value)| id != "timestamp" && !value.is_null());
            self.reports
                .retain(|(id, ..)| mentioned.iter().any(|(known, value)| known == id && truthy(value)));
        }
        self.is_there = true;
        mentioned.sort_by_key(|(id, _)| id.parse::<u32>().map_or(u64::MAX, u64::from));
        for (id, value) in mentioned {
            let fields = value.as_object().cloned();
            match self.reports.iter_mut().find(|(known, ..)| *known == id) {
                Some((_, Some(known), true)) => known.extend(fields.unwrap_or_default()),
                Some((_, None, true)) => {}
                Some(falsy) => *falsy = (id, fields, truthy(&value)),
                None => self.reports.push((id, fields, truthy(&value))),
            }
        }
        self.reports.sort_by_key(|(id, ..)| id.parse::<u32>().map_or(u64::MAX, u64::from));
    }
}

/// A value under a report id: mostly a report, sometimes something odd.
fn report_value() -> impl Strategy<Value = Value> {
    let field = |name: &'static str, values: std::ops::Range<u64>| {
        prop::option::of(values).prop_map(move |value| value.map(|value| (name.to_owned(), json!(value))))
    };
    let report = (
        field("ssrc", 1..4),
        field("packetsReceived", 0..50),
        field("packetsLost", 0..9),
        field("jitter", 0..3),
    );
    let report = report.prop_map(|(a, b, c, d)| {
        let mut report: Fields = [a, b, c, d].into_iter().flatten().collect();
        report.insert("kind".to_owned(), json!("audio"));
        Value::Object(report)
    });
    prop_oneof![
        8 => report,
        3 => Just(json!({ "timestamp": 0 })),
        1 => Just(json!(null)),
        1 => Just(json!(0)),
        1 => Just(json!("text")),
        1 => Just(json!([1])),
    ]
}

/// A stats line: ids in any order, some of them twice.
fn stats_line() -> impl Strategy<Value = Vec<(String, Value)>> {
    let ids = ["a", "b", "c", "d\"", "é", "10", "9", "timestamp"].map(str::to_owned).to_vec();
    prop::collection::vec((prop::sample::select(ids), report_value()), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn how_the_input_is_split_never_shows(sizes in prop::collection::vec(1_usize..300, 1..8), capacity in 1_usize..500) {
        let dump = dumps::chrome(2, 1).replace('\n', "\r\n") + "[\"é🦀";
        let whole = json_of(&tolerant(&dump));
        let pieces = BufReader::with_capacity(capacity, Pieces { rest: dump.as_bytes(), sizes, turn: 0 });
        let split = json_of(&extract(pieces, &options(false)).unwrap());
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn connections_do_not_touch_each_other(picks in prop::collection::vec(0_usize..3, 40)) {
        let mut queues: Vec<_> = connection_lines().into_iter().map(std::collections::VecDeque::from).collect();
        let apart: Vec<String> = queues.iter().flatten().cloned().collect();
        let mut mixed = Vec::new();
        for pick in picks {
            mixed.extend(queues[pick].pop_front());
        }
        mixed.extend(queues.into_iter().flatten());
        prop_assert_eq!(aggregates(&apart), aggregates(&mixed));
    }

    #[test]
    fn decompression_does_what_the_plain_wording_says(lines in prop::collection::vec(stats_line(), 1..8)) {
        let mut base = PlainBase::default();
        let mut tracks: Vec<[f64; 3]> = Vec::new();
        let mut dump = format!("{CHROME}\n");
        for line in &lines {
            let text: Vec<String> = line.iter().map(|(id, value)| format!("{}:{value}", json!(id))).collect();
            dump += &format!("[\"getstats\",\"PC_0\",{{{}}},1700000001000]\n", text.join(","));
            base.apply(line);
            for fields in base.reports.iter().filter_map(|(_, fields, _)| fields.as_ref()) {
                let field = |name: &str| fields.get(name).and_then(Value::as_f64).unwrap_or(0.0);
                let (ssrc, packets, lost) = (field("ssrc"), field("packetsReceived"), field("packetsLost"));
                if ssrc > 0.0 && packets > 0.0 {
                    tracks.retain(|[known, ..]| *known != ssrc);
                    tracks.push([ssrc, packets, lost]);
                }
            }
        }
        tracks.sort_by(|one, other| one[0].total_cmp(&other[0]));
        let document = tolerant(&dump);
        let (_, connection) = &features(&document).aggregates[0];
        let found: Vec<_> = connection.tracks.receiver_tracks.iter()
            .map(|track| [&track.ssrc, &track.packets, &track.packets_lost].map(|value| value.to_number()))
            .collect();
        prop_assert_eq!(found, tracks);
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for strict in [false, true] {
            let _ = extract(&*bytes, &options(strict));
        }
    }

    #[test]
    fn no_damage_to_a_dump_causes_a_panic(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30)) {
        let mut bytes = [dumps::chrome(2, 1), dumps::firefox(3, 1)].concat().into_bytes();
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        let document = extract(&*bytes, &options(false)).unwrap();
        serde_json::to_string(&document).unwrap();
        if let Ok(strict) = extract(&*bytes, &options(true)) {
            prop_assert_eq!(document.problems().total(), 0);
            prop_assert_eq!(&json_of(&strict)["features"], &json_of(&document)["features"]);
        }
    }
}

#[test]
fn reading_errors_are_told_in_both_modes() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    for strict in [false, true] {
        let input = BufReader::new(CHROME.as_bytes().chain(Broken));
        assert!(matches!(extract(input, &options(strict)), Err(ExtractError::Read(_))));
    }
    assert!(matches!(
        extract(&b"{"[..], &options(true)),
        Err(ExtractError::Line { line: 1, reason: LineError::NotJson(_) })
    ));
}
